"""The engine against its slow twin: criterion, gradient, estimates, on designs of every kind."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bayeslmm.classical.engine import (
    TermData,
    criterion,
    estimate,
    objective,
    prepare,
    rebased,
    theta_jacobian,
    theta_of,
    turned,
    vector_of,
)
from bayeslmm.classical.lmm import problem_of
from bayeslmm.covariance import STRUCTURES
from bayeslmm.errors import FitError
from bayeslmm.model import model
from tests.unit.classical import twin

N = 90
A = np.arange(N) % 5
B = A * 3 + (np.arange(N) // 5) % 3
C = B * 2 + (np.arange(N) // 15) % 2


def values(k: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.column_stack([np.ones(N), *(rng.normal(2.0, 1.5, N) for _ in range(k - 1))])


def term(name: str, index: np.ndarray, k: int = 1, structure: str = "us", seed: int = 0) -> TermData:
    return TermData(group=name, index=index, n_levels=int(index.max()) + 1, values=values(k, seed), structure=STRUCTURES[structure])


def scattered(levels: int, seed: int) -> np.ndarray:
    index = np.random.default_rng(seed).integers(0, levels, N)
    index[:levels] = np.arange(levels)
    return index


SUBJECT, ITEM, RATER = scattered(9, 1), scattered(7, 2), scattered(4, 3)

DESIGNS: dict[str, list[TermData]] = {
    "no random term": [],
    "one intercept": [term("s", SUBJECT)],
    "one slope": [term("s", SUBJECT, 2)],
    "three effects": [term("s", SUBJECT, 3)],
    "two terms of a factor": [
        term("s", SUBJECT),
        TermData(group="s", index=SUBJECT, n_levels=9, values=values(2, 5)[:, 1:], structure=STRUCTURES["us"]),
    ],
    "nested": [term("b", B), term("a", A)],
    "nested slopes": [term("b", B, 2, seed=3), term("a", A, 2, seed=4)],
    "nested three deep": [term("c", C), term("b", B, 2, seed=3), term("a", A)],
    "crossed": [term("s", SUBJECT), term("i", ITEM)],
    "crossed slopes": [term("s", SUBJECT, 2, seed=6), term("i", ITEM, 2, seed=7)],
    "three crossed": [term("s", SUBJECT), term("i", ITEM, 3, seed=7), term("r", RATER)],
    "nested and crossed": [term("c", C), term("b", B, 2, seed=3), term("i", ITEM, 2, seed=8), term("a", A)],
    "diagonal": [term("s", SUBJECT, 3, "diag")],
    "compound symmetry": [term("s", SUBJECT, 3, "cs"), term("i", ITEM)],
    "homogeneous": [term("s", SUBJECT, 3, "homcs"), term("i", ITEM, 2, "homdiag")],
    "autoregressive": [term("s", SUBJECT, 4, "ar1"), term("i", ITEM, 2, seed=9)],
}


def data(seed: int = 0, p: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = np.column_stack([np.ones(N), *(rng.normal(3.0, 2.0, N) for _ in range(p - 1))])[:, :p]
    return 10.0 + rng.normal(size=N) * 2.0 + SUBJECT * 0.3, X


def random_theta(terms: list[TermData], seed: int, singular: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    parts = [np.zeros(0)]
    for one in terms:
        k, structure = one.values.shape[1], one.structure
        theta = structure.start(k) + 0.4 * rng.normal(size=structure.n_theta(k))
        theta = np.clip(theta, np.maximum(structure.lower(k) * 0.9, -2.0), np.minimum(structure.upper(k) * 0.9, 2.0))
        is_sd = structure.lower(k) == 0.0
        theta[is_sd] = np.abs(theta[is_sd]) + 0.05
        if singular:
            theta[np.flatnonzero(is_sd)[-1]] = 0.0
        parts.append(theta)
    return np.concatenate(parts)


every_design = pytest.mark.parametrize("name", DESIGNS)
both = pytest.mark.parametrize("reml", [True, False])


@every_design
@both
@pytest.mark.parametrize("singular", [False, True])
def test_criterion_equals_the_twin(name: str, reml: bool, singular: bool) -> None:
    terms = DESIGNS[name]
    y, X = data()
    problem = prepare(y, X, terms, weights=None, offset=None, reml=reml)
    theta = random_theta(terms, 3, singular)
    assert criterion(problem, theta) == pytest.approx(twin.at(theta, y, X, terms, reml=reml).criterion, rel=1e-11)


@every_design
@both
def test_weights_and_offset(name: str, reml: bool) -> None:
    terms = DESIGNS[name]
    y, X = data()
    rng = np.random.default_rng(4)
    weights, offset = rng.uniform(0.2, 3.0, N), rng.normal(size=N) * 5.0
    problem = prepare(y, X, terms, weights=weights, offset=offset, reml=reml)
    theta = random_theta(terms, 5, False)
    expected = twin.at(theta, y, X, terms, weights=weights, offset=offset, reml=reml)
    assert criterion(problem, theta) == pytest.approx(expected.criterion, rel=1e-11)
    np.testing.assert_allclose(estimate(problem, theta).beta, expected.beta, rtol=1e-9)


@every_design
@both
@pytest.mark.parametrize("singular", [False, True])
def test_gradient_equals_differences(name: str, reml: bool, singular: bool) -> None:
    terms = DESIGNS[name]
    y, X = data()
    problem = prepare(y, X, terms, weights=None, offset=None, reml=reml)
    t = vector_of(problem, random_theta(terms, 6, singular))
    gradient = objective(problem, t)[1].copy()
    h = 1e-5
    for i in range(problem.n_theta):
        step = np.zeros(problem.n_theta)
        step[i] = h
        if t[i] - h < problem.lower[i]:
            continue
        difference = (objective(problem, t + step)[0] - objective(problem, t - step)[0]) / (2.0 * h)
        assert gradient[i] == pytest.approx(difference, rel=1e-6, abs=1e-6 * (1.0 + np.max(np.abs(gradient))))


@every_design
@pytest.mark.parametrize("singular", [False, True])
def test_estimates_equal_the_twin(name: str, singular: bool) -> None:
    terms = DESIGNS[name]
    y, X = data()
    problem = prepare(y, X, terms, weights=None, offset=None, reml=True)
    theta = random_theta(terms, 7, singular)
    found, expected = estimate(problem, theta), twin.at(theta, y, X, terms, reml=True)
    assert found.ld_l2 == pytest.approx(expected.ld_l2, rel=1e-10)
    assert found.ld_rx2 == pytest.approx(expected.ld_rx2, rel=1e-10)
    assert found.pwrss == pytest.approx(expected.pwrss, rel=1e-10)
    np.testing.assert_allclose(found.beta, expected.beta, rtol=1e-9)
    np.testing.assert_allclose(found.unscaled_vcov, expected.vcov, rtol=1e-8, atol=1e-12)
    start, used = 0, dict.fromkeys(problem.groups, 0)
    for one in terms:
        f, first = problem.groups.index(one.group), used[one.group]
        used[one.group] += one.values.shape[1]
        k, size = one.values.shape[1], one.n_levels * one.values.shape[1]
        b = found.b[f][:, first : first + k]
        np.testing.assert_allclose(b.ravel(), expected.b[start : start + size], rtol=1e-7, atol=1e-9)
        block = expected.variance[start : start + size, start : start + size]
        diagonal = np.array([block[j * k : (j + 1) * k, j * k : (j + 1) * k] for j in range(one.n_levels)])
        np.testing.assert_allclose(found.unscaled_variance[f][:, first : first + k, first : first + k], diagonal, rtol=1e-7, atol=1e-9)
        start += size


def test_the_designs_take_every_path() -> None:
    y, X = data()
    systems = [prepare(y, X, terms, weights=None, offset=None, reml=True).system for terms in DESIGNS.values()]
    assert {system.n_sparse_factors for system in systems} >= {0, 1, 2, 3}
    assert any(system.q for system in systems)
    assert any(system.levels.where.size for system in systems)


@every_design
def test_coordinates_come_back(name: str) -> None:
    terms = DESIGNS[name]
    y, X = data()
    problem = prepare(y, X, terms, weights=None, offset=None, reml=True)
    theta = random_theta(terms, 8, False)
    np.testing.assert_allclose(theta_of(problem, vector_of(problem, theta)), theta, rtol=1e-10, atol=1e-12)


def test_jacobian_of_theta_is_its_derivative() -> None:
    y, X = data()
    problem = prepare(y, X, DESIGNS["three effects"], weights=None, offset=None, reml=True)
    t = vector_of(problem, random_theta(DESIGNS["three effects"], 9, False))
    jacobian = theta_jacobian(problem, t)
    step = 1e-4 * np.arange(1.0, 7.0)
    moved = (theta_of(problem, t + step) - theta_of(problem, t - step)) / 2.0
    np.testing.assert_allclose(jacobian @ step, moved, rtol=1e-4, atol=1e-9)


def test_any_basis_gives_the_same_criterion() -> None:
    terms = DESIGNS["crossed slopes"]
    y, X = data()
    problem = prepare(y, X, terms, weights=None, offset=None, reml=True)
    theta = random_theta(terms, 10, False)
    again = prepare(y, X, terms, weights=None, offset=None, reml=True, bases=turned(problem, vector_of(problem, theta)))
    assert criterion(again, theta) == pytest.approx(criterion(problem, theta), rel=1e-12)
    factor = terms[0].structure.factor(vector_of(again, theta)[:3], 2)
    assert (factor @ factor.T)[0, 1] == pytest.approx(0.0, abs=1e-10)


def test_collinear_random_effects_are_scaled_only() -> None:
    y, X = data()
    x = values(2, 1)[:, 1]
    doubled = TermData(group="s", index=SUBJECT, n_levels=9, values=np.column_stack([x, 2.0 * x]), structure=STRUCTURES["us"])
    problem = prepare(y, X, [doubled], weights=None, offset=None, reml=True)
    theta = np.array([0.5, 0.1, 0.3])
    assert criterion(problem, theta) == pytest.approx(twin.at(theta, y, X, [doubled], reml=True).criterion, rel=1e-11)


@pytest.mark.parametrize("p", [0, 1, 8])
def test_any_number_of_fixed_effects(p: int) -> None:
    y, X = data(p=p)
    terms = DESIGNS["crossed slopes"]
    problem = prepare(y, X, terms, weights=None, offset=None, reml=True)
    theta = random_theta(terms, 11, False)
    found, expected = estimate(problem, theta), twin.at(theta, y, X, terms, reml=True)
    assert found.criterion == pytest.approx(expected.criterion, rel=1e-11)
    np.testing.assert_allclose(found.beta, expected.beta, rtol=1e-8)


def test_nothing_left_to_explain_is_refused() -> None:
    _, X = data()
    with pytest.raises(FitError, match="no variance"):
        prepare(X @ np.array([1.0, 2.0]), X, [], weights=None, offset=None, reml=True)


def test_more_coefficients_than_rows_are_refused() -> None:
    y, X = data(p=2)
    with pytest.raises(FitError, match="2 rows"):
        prepare(y[:2], X[:2], [], weights=None, offset=None, reml=True)


@pytest.mark.parametrize("shift", [0.0, 1e3, 1e9, 1e14])
@pytest.mark.parametrize("weighted", [False, True])
def test_rebased_columns_do_not_depend_on_the_origin(shift: float, weighted: bool) -> None:
    x = np.random.default_rng(3).integers(-4, 5, N).astype(float)
    root = np.random.default_rng(4).uniform(0.5, 2.0, N) if weighted else np.ones(N)
    z, T, T_inverse = rebased(np.column_stack([np.ones(N), shift + x]), root)
    centred = x - (root**2 @ x) / (root**2 @ np.ones(N))
    np.testing.assert_allclose(z.T @ z / N, np.eye(2), atol=1e-12)
    np.testing.assert_allclose(z[:, 1], root * centred / np.sqrt(np.mean((root * centred) ** 2)), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(T @ T_inverse, np.eye(2), atol=1e-15 * max(shift, 1.0))


@pytest.mark.parametrize("rho", [-1.0, 1.0])
def test_the_criterion_is_level_at_the_limits_of_a_correlation(rho: float) -> None:
    y, X = data()
    problem = prepare(y, X, [term("s", SUBJECT, 3, "ar1")], weights=None, offset=None, reml=True)
    t = vector_of(problem, np.array([0.7, rho]))
    assert abs(t[1]) == pytest.approx(np.pi / 2.0)
    assert theta_of(problem, t)[1] == rho
    assert objective(problem, t)[1][1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("term", ["(x | g)", "(x || g)", "(poly(x, 2) | g)", "(x | g) + (1 | h)"])
def test_slope_of_theta_is_that_of_differences(term: str) -> None:
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {"x": rng.normal(size=90), "g": np.repeat(np.arange(15), 6).astype(str), "h": np.tile(np.arange(6), 15).astype(str)}
    )
    problem = problem_of(model(f"y ~ x + {term}", frame.assign(y=rng.normal(size=90))))
    for t in rng.normal(size=(5, problem.n_theta)):
        steps = 1e-6 * np.eye(problem.n_theta)
        expected = np.column_stack([(theta_of(problem, t + h) - theta_of(problem, t - h)) / 2e-6 for h in steps])
        np.testing.assert_allclose(theta_jacobian(problem, t), expected, rtol=1e-7, atol=1e-7)
