"""Laplace's approximation and adaptive quadrature against dense matrices, brute-force integrals and differences."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import minimize

from bayeslmm.classical.engine import TermData, theta_of
from bayeslmm.classical.generalised import Glmm, PredictorData, fixed_part, prepare
from bayeslmm.classical.laplace import at_mode, laplace
from bayeslmm.classical.quadrature import quadrature
from bayeslmm.covariance import structure_named
from bayeslmm.families import FAMILIES, LINKS, derivatives
from tests.unit.classical.twin import dense_columns

RNG = np.random.default_rng(20)
N = 60
X = np.column_stack([np.ones(N), RNG.normal(size=N)])
GROUP = np.arange(N) % 8
OTHER = RNG.integers(0, 5, N)
SUB = GROUP * 2 + (np.arange(N) // 8) % 2


def term(group: str, index: np.ndarray, effects: int = 1, structure: str = "us") -> TermData:
    columns = [np.ones(N), X[:, 1], np.cos(np.arange(N))][:effects]
    return TermData(
        group=group,
        index=index,
        n_levels=int(index.max()) + 1,
        values=np.column_stack(columns),
        structure=structure_named(structure),
    )


DESIGNS = {
    "one": [term("g", GROUP)],
    "slopes": [term("g", GROUP, 2)],
    "three, correlated": [term("g", GROUP, 3)],
    "two terms of a factor": [term("g", GROUP), term("g", GROUP, 2, "diag")],
    "crossed": [term("g", GROUP), term("h", OTHER)],
    "nested": [term("s", SUB), term("g", GROUP)],
    "crossed slopes": [term("g", GROUP, 2), term("h", OTHER, 2)],
    "three factors": [term("s", SUB, 2), term("g", GROUP), term("h", OTHER)],
    "a level a row": [term("r", np.arange(N))],
    "compound symmetry": [term("g", GROUP, 3, "cs"), term("h", OTHER)],
    "autoregressive": [term("g", GROUP, 3, "ar1")],
}
Y = {
    "poisson": RNG.poisson(2.0, N).astype(float),
    "bernoulli": RNG.integers(0, 2, N).astype(float),
    "gamma": RNG.gamma(2.0, 1.0, N),
    "negative_binomial": RNG.poisson(RNG.gamma(1.0, 2.0, N)).astype(float),
    "student": RNG.standard_t(3, N),
    "zero_inflated_poisson": (RNG.poisson(2.0, N) * RNG.integers(0, 2, N)).astype(float),
}


def problem(family: str, terms: list[TermData], owner: list[int] | None = None, link: str | None = None) -> Glmm:
    record, y = FAMILIES[family], Y[family]
    links = (LINKS[link or record.link], *(LINKS[parameter.link] for parameter in record.parameters))
    starts = [links[0].link(record.start(y, None))]
    begin = record.start_parameters(y, None)
    starts += [np.full(N, float(one.link(np.array(begin[p.name])))) for one, p in zip(links[1:], record.parameters, strict=True)]
    data = [
        PredictorData(name="" if k == 0 else f"p{k}", X=X if k == 0 else X[:, :1], offset=0.1 * X[:, 1], start=start)
        for k, start in enumerate(starts)
    ]
    found, _, _ = prepare(lambda etas, order: derivatives(record, links, y, etas, None, order), data, terms, owner or [0] * len(terms))
    assert found is not None
    return found


def somewhere(made: Glmm, seed: int) -> np.ndarray:
    """A point near the start, variances not near zero."""
    rng = np.random.default_rng(seed)
    t = np.where(made.mirror | (made.lower == 0.0), 0.3 + rng.random(made.n_theta), rng.normal(0.0, 0.3, made.n_theta))
    return np.concatenate([made.gamma + rng.normal(0.0, 0.2, made.p), t])


def twin(made: Glmm, x: np.ndarray, terms: list[TermData], owner: list[int] | None = None) -> float:
    """-2 log L by Laplace with dense matrices and a general optimiser for the mode."""
    owner = owner or [0] * len(terms)
    theta, at, pieces = theta_of(made, x[made.p :]), 0, []
    K = len(made.predictors)
    for one, k in zip(terms, owner, strict=True):
        size = one.structure.n_theta(one.values.shape[1])
        L = one.structure.factor(theta[at : at + size], one.values.shape[1])
        at += size
        Z = np.zeros((K, N, one.n_levels * one.values.shape[1]))
        Z[k] = dense_columns(one) @ np.kron(np.eye(one.n_levels), L)
        pieces.append(Z)
    Z = np.concatenate(pieces, axis=2)
    fixed = fixed_part(made.predictors, x[: made.p])

    def penalised(u: np.ndarray) -> tuple[float, np.ndarray]:
        found = made.likelihood(fixed + Z @ u, 1)
        return float(-2.0 * found.value.sum() + u @ u), -2.0 * np.einsum("knq,kn->q", Z, found.d1) + 2.0 * u

    u = minimize(penalised, np.zeros(Z.shape[2]), jac=True, method="BFGS", options={"gtol": 1e-7}).x
    for _ in range(5):
        found = made.likelihood(fixed + Z @ u, 2)
        H = np.eye(len(u)) - np.einsum("kni,kln,lnj->ij", Z, found.d2, Z)
        u = u + np.linalg.solve(H, np.einsum("knq,kn->q", Z, found.d1) - u)
    found = made.likelihood(fixed + Z @ u, 2)
    H = np.eye(len(u)) - np.einsum("kni,kln,lnj->ij", Z, found.d2, Z)
    sign, logdet = np.linalg.slogdet(H)
    assert sign > 0
    return float(-2.0 * found.value.sum() + u @ u + logdet)


def differences(function, x: np.ndarray) -> np.ndarray:
    steps = 1e-4 * np.eye(len(x))
    wide = [(function(x + h)[0] - function(x - h)[0]) / 2e-4 for h in steps]
    narrow = [(function(x + h)[0] - function(x - h)[0]) / 1e-4 for h in 0.5 * steps]
    return np.array([(4.0 * b - a) / 3.0 for a, b in zip(wide, narrow, strict=True)])


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("family", ["poisson", "bernoulli", "negative_binomial"])
def test_value_is_that_of_dense_matrices(name: str, family: str) -> None:
    made = problem(family, DESIGNS[name])
    x = somewhere(made, 1)
    assert laplace(made, x)[0] == pytest.approx(twin(made, x, DESIGNS[name]), rel=1e-10)


@pytest.mark.parametrize("name", DESIGNS)
@pytest.mark.parametrize("family", ["poisson", "bernoulli", "gamma", "negative_binomial"])
def test_gradient_is_that_of_differences(name: str, family: str) -> None:
    made = problem(family, DESIGNS[name])
    x = somewhere(made, 2)
    gradient = laplace(made, x)[1]
    assert np.allclose(gradient, differences(lambda at: laplace(made, at), x), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", ["one", "slopes", "crossed slopes", "three factors"])
def test_gradient_with_the_coefficients_in_the_mode(name: str) -> None:
    made = problem("poisson", DESIGNS[name])
    x = somewhere(made, 3)[made.n_mean :]
    gradient = laplace(made, x, made.n_mean)[1]
    assert np.allclose(gradient, differences(lambda at: laplace(made, at, made.n_mean), x), rtol=1e-6, atol=1e-5)


def test_coefficients_in_the_mode_leave_no_slope() -> None:
    made = problem("negative_binomial", DESIGNS["crossed"])
    x = somewhere(made, 4)[made.n_mean :]
    mode, _ = at_mode(made, x, made.n_mean)
    assert mode is not None
    assert np.max(np.abs(made.predictors[0].Q.T @ mode.d1[0])) < 1e-8


@pytest.mark.parametrize(
    ("terms", "owner"),
    [
        ([term("g", GROUP), term("g", GROUP)], [0, 1]),
        ([term("g", GROUP, 2), term("h", OTHER), term("g", GROUP)], [0, 0, 1]),
        ([term("g", GROUP), term("h", OTHER)], [0, 1]),
        ([term("h", OTHER)], [1]),
    ],
)
@pytest.mark.parametrize("family", ["zero_inflated_poisson", "negative_binomial"])
def test_random_terms_of_several_predictors(terms: list[TermData], owner: list[int], family: str) -> None:
    made = problem(family, terms, owner)
    x = somewhere(made, 5)
    value, gradient = laplace(made, x)
    assert value == pytest.approx(twin(made, x, terms, owner), rel=1e-10)
    assert np.allclose(gradient, differences(lambda at: laplace(made, at), x), rtol=1e-6, atol=1e-5)


def test_rows_of_negative_information() -> None:
    """A Student-t row far out curves the wrong way; the approximation stays that of the observed Hessian."""
    made = problem("student", DESIGNS["crossed"])
    x = np.concatenate([made.gamma, np.full(made.n_theta, 0.7)])
    mode, _ = at_mode(made, x)
    assert mode is not None
    assert np.any(mode.W[0, 0] < 0.0)
    assert laplace(made, x)[0] == pytest.approx(twin(made, x, DESIGNS["crossed"]), rel=1e-10)


def test_the_value_does_not_depend_on_where_the_search_comes_from() -> None:
    made = problem("bernoulli", DESIGNS["three factors"])
    x = somewhere(made, 7)
    first = laplace(made, x)[0]
    laplace(made, x + 1.0)
    assert laplace(made, x)[0] == pytest.approx(first, rel=1e-13)


def test_variances_of_zero_leave_the_fixed_effects() -> None:
    made = problem("poisson", DESIGNS["crossed slopes"])
    x = np.concatenate([made.gamma, np.zeros(made.n_theta)])
    value, gradient = laplace(made, x)
    fixed = made.likelihood(fixed_part(made.predictors, made.gamma), 0).value
    assert value == pytest.approx(-2.0 * fixed.sum(), rel=1e-13)
    assert np.max(np.abs(gradient)) < 1e-3


def test_no_value_is_infinite() -> None:
    made = problem("gamma", DESIGNS["one"], link="inverse")
    x = np.concatenate([-made.gamma, made.start])
    assert laplace(made, x)[0] == np.inf


def _exact(made: Glmm, x: np.ndarray) -> float:
    """-2 log L of one scalar term by scipy's adaptive integration, level by level."""
    L = float(theta_of(made, x[made.p :])[0])
    fixed = fixed_part(made.predictors, x[: made.p])
    total = 0.0
    for level in range(int(made.rows.at[0].max()) + 1):
        mine = made.rows.at[0] == level

        def log_density(u: float, mine: np.ndarray = mine) -> float:
            eta = fixed.copy()
            eta[0] += L * u
            return float(made.likelihood(eta, 0).value[mine].sum() - 0.5 * u * u - 0.5 * np.log(2.0 * np.pi))

        grid = np.linspace(-8.0, 8.0, 65)
        top = max(log_density(u) for u in grid)

        def density(u: float, f=log_density, top: float = top) -> float:
            return float(np.exp(f(u) - top))

        pieces = [quad(density, a, b, epsabs=1e-14, epsrel=1e-13)[0] for a, b in itertools.pairwise(grid)]
        total += np.log(np.sum(pieces)) + top
    return -2.0 * total


@pytest.mark.parametrize("family", ["poisson", "bernoulli", "negative_binomial"])
def test_quadrature_is_the_integral(family: str) -> None:
    made = problem(family, DESIGNS["one"])
    x = somewhere(made, 8)
    assert quadrature(made, x, 50)[0] == pytest.approx(_exact(made, x), abs=1e-8)


def test_one_node_is_laplace() -> None:
    made = problem("bernoulli", DESIGNS["one"])
    x = somewhere(made, 9)
    (value, gradient), (other, slope) = quadrature(made, x, 1), laplace(made, x)
    assert value == pytest.approx(other, rel=1e-13)
    assert np.allclose(gradient, slope, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("nodes", [2, 5, 16])
@pytest.mark.parametrize("family", ["poisson", "bernoulli", "negative_binomial", "zero_inflated_poisson"])
def test_gradient_of_quadrature_is_that_of_differences(nodes: int, family: str) -> None:
    made = problem(family, DESIGNS["one"])
    x = somewhere(made, 10)
    gradient = quadrature(made, x, nodes)[1]
    assert np.allclose(gradient, differences(lambda at: quadrature(made, at, nodes), x), rtol=1e-6, atol=1e-5)


def test_nodes_of_many_rows_do_not_underflow() -> None:
    made = problem("poisson", [term("g", np.arange(N) % 2)])
    x = somewhere(made, 11)
    value = quadrature(made, x, 25)[0]
    assert np.isfinite(value)
    assert abs(value - laplace(made, x)[0]) < 1.0
