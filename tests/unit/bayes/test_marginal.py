"""Densities of left-out rows with the random effects integrated out: against dense normals, and against brute-force quadrature."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.integrate import quad
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

import bayeslmm as bl
from bayeslmm.bayes import draws as arrays
from bayeslmm.bayes import marginal
from bayeslmm.bayes.marginal_quadrature import MOST_EFFECTS, integrated_row
from bayeslmm.bayes.subset import on_rows
from bayeslmm.errors import DataError, FitError
from bayeslmm.fit import Draws
from bayeslmm.model import Model

S = 3


def _data(n: int = 60, seed: int = 1) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, h = rng.integers(0, 8, n), rng.integers(0, 5, n)
    frame = pd.DataFrame({"x": rng.normal(size=n), "g": [f"g{i}" for i in g], "h": [f"h{i}" for i in h]})
    frame["inner"] = [f"i{i}" for i in rng.integers(0, 2, n)]
    frame["y"] = 1.0 + frame["x"] + rng.normal(size=8)[g] + rng.normal(size=5)[h] + rng.normal(size=n)
    frame["count"] = rng.poisson(np.exp(0.3 + 0.3 * frame["x"] + 0.5 * rng.normal(size=8)[g]))
    frame["trials"] = rng.integers(1, 12, n)
    frame["wins"] = rng.binomial(frame["trials"], 0.4)
    frame["yes"] = (rng.random(n) < 0.6).astype(int)
    frame["grade"] = pd.cut(frame["y"], [-99.0, 0.0, 1.0, 2.5, 99.0], labels=["a", "b", "c", "d"])
    frame["w"] = rng.uniform(0.5, 3.0, n)
    frame["o"] = rng.normal(size=n)
    frame["time"] = frame.groupby("g").cumcount() * 2 + rng.integers(0, 2, n)
    frame["site"] = rng.choice(["n", "s"], n)
    return frame


def _draws(model: Model, seed: int = 2) -> Draws:
    """Parameters at random: what is tested holds for any."""
    rng = np.random.default_rng(seed)
    covariance = []
    for block in model.design.blocks:
        k = block.n_effects
        A = rng.normal(size=(S, k, k)) * 0.6
        covariance.append(A @ np.swapaxes(A, 1, 2) + 0.1 * np.eye(k))
    effects = [rng.normal(size=(S, block.n_levels, block.n_effects)) for block in model.design.blocks]
    aux = {}
    for parameter in model.family.parameters:
        if parameter.name in model.design.parameters:
            aux[parameter.name] = rng.uniform(0.2, 0.9, (S, model.design.n))
        elif parameter.name == "ar":
            aux[parameter.name] = np.array([0.6, -0.4, 0.05])
        else:
            aux[parameter.name] = rng.uniform(0.5, 1.5, S)
    if model.family.increasing:
        aux = dict(zip(aux, np.sort(np.stack(list(aux.values())), axis=0), strict=True))
    b = rng.normal(size=(S, model.design.p)) * 0.5
    return Draws(b=b, effects=tuple(effects), covariance=tuple(covariance), aux=aux)


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    formula: Any
    options: dict[str, Any] = field(default_factory=dict)

    def model(self) -> Model:
        return bl.model(self.formula, _data(), **self.options)


def _relationship() -> pd.DataFrame:
    labels = [f"g{i}" for i in range(8)]
    distance = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    return pd.DataFrame(1.3 * 0.5**distance, index=labels, columns=labels)


GAUSSIAN = (
    Case(name="intercept", formula="y ~ x + (1 | g)"),
    Case(name="slopes", formula="y ~ x + (x | g)"),
    Case(name="uncorrelated", formula="y ~ x + (x || g)"),
    Case(name="crossed", formula="y ~ x + (x | g) + (1 | h)"),
    Case(name="nested", formula="y ~ x + (1 | g / inner)"),
    Case(name="weights", formula="y ~ x + (1 | g)", options={"weights": "w"}),
    Case(name="offset", formula="y ~ x + (1 | g) + (1 | h)", options={"offset": "o"}),
    Case(name="sigma", formula=bl.formula("y ~ x + (1 | g)", sigma="~ x")),
    Case(name="known", formula="y ~ x + (x | gr(g, cov = K))", options={"data2": {"K": _relationship()}}),
    Case(name="ar", formula="y ~ x + ar(time = time, gr = g) + (1 | g)"),
    Case(name="ar_across", formula="y ~ x + ar(time = time, gr = g) + (1 | h)"),
    Case(name="ar_alone", formula="y ~ x + ar(time = time, gr = g)"),
)


def _dense(model: Model, draws: Draws, s: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance (n, n) of the response at one draw, written out."""
    design = model.design
    mean = design.X @ draws.b[s] + design.offset
    sd = np.broadcast_to(draws.aux["sigma"][s], design.n) / np.sqrt(design.weights)
    R = np.eye(design.n)
    if design.series is not None:
        index, time = design.series.index, design.series.time
        together = np.equal.outer(index, index)
        R = np.where(together, np.power(draws.aux["ar"][s], np.abs(np.subtract.outer(time, time))), 0.0)
    V = sd[:, None] * R * sd[None, :]
    for block, covariance in zip(design.blocks, draws.covariance, strict=True):
        z, level = block.values, block.index
        K = np.eye(block.n_levels) if block.known is None else _relationship().loc[list(block.levels), list(block.levels)].to_numpy()
        V += (z @ covariance[s] @ z.T) * K[level[:, None], level[None, :]]
    return mean, V


def _given_others(y: np.ndarray, mean: np.ndarray, V: np.ndarray, A: np.ndarray) -> float:
    """log p(y_A | y_-A), by conditioning a dense normal."""
    rest = np.setdiff1d(np.arange(len(y)), A)
    if not len(rest):
        return float(multivariate_normal(mean, V).logpdf(y))
    slope = np.linalg.solve(V[np.ix_(rest, rest)], V[np.ix_(rest, A)]).T
    covariance = V[np.ix_(A, A)] - slope @ V[np.ix_(rest, A)]
    centre = mean[A] + slope @ (y[rest] - mean[rest])
    return float(multivariate_normal(centre, covariance).logpdf(y[A]))


@pytest.mark.parametrize("case", GAUSSIAN, ids=lambda case: case.name)
@pytest.mark.parametrize("by", ["row", "g", "h", "site"])
def test_gaussian_densities_are_those_of_a_dense_normal(case: Case, by: str) -> None:
    model = case.model()
    draws, n = _draws(model), model.design.n
    units = np.arange(n) if by == "row" else marginal.units(model, by)[0]
    found = marginal.left_out(model, draws, units)
    for s in range(S):
        mean, V = _dense(model, draws, s)
        expected = [_given_others(model.design.y, mean, V, np.flatnonzero(units == unit)) for unit in range(units.max() + 1)]
        np.testing.assert_allclose(found[s], expected, rtol=1e-9, atol=1e-8)


@pytest.mark.parametrize("case", [case for case in GAUSSIAN if "ar" not in case.name and case.name != "known"], ids=lambda case: case.name)
def test_rows_by_sparse_elimination_are_the_same(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    model = case.model()
    draws, rows = _draws(model), np.random.default_rng(0).permutation(model.design.n)
    dense = marginal.left_out(model, draws, rows)
    called: list[bool] = []
    by_elimination = marginal._eliminated

    def counted(*arguments: Any) -> np.ndarray:
        called.append(True)
        return by_elimination(*arguments)

    monkeypatch.setattr(marginal, "_DENSE", 0)
    monkeypatch.setattr(marginal, "_eliminated", counted)
    np.testing.assert_allclose(marginal.left_out(model, draws, rows), dense, rtol=1e-9, atol=1e-9)
    assert called


def test_densities_of_all_rows_add_up_over_independent_groups() -> None:
    model = bl.model("y ~ x + (x | g)", _data())
    draws = _draws(model)
    found = marginal.left_out(model, draws, marginal.units(model, "g")[0]).sum(axis=1)
    expected = [multivariate_normal(*_dense(model, draws, s)).logpdf(model.design.y) for s in range(S)]
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_given_effects_correlated_residuals_are_conditioned_on_each_other() -> None:
    model = bl.model("y ~ x + ar(time = time, gr = g) + (1 | h)", _data())
    draws = _draws(model)
    found = marginal.left_out(model, draws, np.arange(model.design.n), given_effects=True)
    for s in range(S):
        mean, V = _dense(model, draws, s)
        block = model.design.blocks[0]
        V = V - draws.covariance[0][s] * np.equal.outer(block.index, block.index)
        mean = mean + draws.effects[0][s, block.index, 0]
        expected = [_given_others(model.design.y, mean, V, np.array([i])) for i in range(model.design.n)]
        np.testing.assert_allclose(found[s], expected, rtol=1e-9, atol=1e-9)


def test_powers_of_brms_are_integrated_as_powers() -> None:
    """Of one row in each group: the integral of N(y; m + u, sigma)^w N(u; 0, tau), by adaptive quadrature."""
    data = _data(12)
    data["g"] = [f"g{i // 2}" for i in range(12)]
    model = bl.model("y ~ x + (1 | g)", data, weights="w", dialect="brms")
    draws = _draws(model)
    found = marginal.left_out(model, draws, model.design.blocks[0].index)
    mu = draws.b @ model.design.X.T
    for s, level in ((0, 0), (2, 4)):
        rows = np.flatnonzero(model.design.blocks[0].index == level)
        sigma, tau = draws.aux["sigma"][s], np.sqrt(draws.covariance[0][s, 0, 0])

        def integrand(u: float, s: int = s, rows: np.ndarray = rows, sigma: float = sigma, tau: float = tau) -> float:
            error = model.design.y[rows] - mu[s, rows] - u
            each = -0.5 * np.log(2 * np.pi * sigma**2) - 0.5 * (error / sigma) ** 2
            return float(np.exp(model.design.weights[rows] @ each - 0.5 * (u / tau) ** 2) / np.sqrt(2 * np.pi) / tau)

        value = quad(integrand, -30 * tau, 30 * tau, epsabs=1e-14, points=[0.0])[0]
        np.testing.assert_allclose(found[s, level], np.log(value), rtol=1e-7)


GENERALISED = (
    Case(name="poisson", formula="count ~ x + (1 | g)", options={"family": "poisson"}),
    Case(name="poisson_offset", formula="count ~ x + (1 | g)", options={"family": "poisson", "offset": "o"}),
    Case(name="poisson_powers", formula="count ~ x + (1 | g)", options={"family": "poisson", "weights": "w"}),
    Case(name="poisson_slopes", formula="count ~ x + (x | g)", options={"family": "poisson"}),
    Case(name="binomial", formula="cbind(wins, trials - wins) ~ x + (1 | g)", options={"family": "binomial"}),
    Case(name="bernoulli_slopes", formula="yes ~ x + (x || g)", options={"family": "bernoulli"}),
    Case(name="negative_binomial", formula="count ~ x + (1 | g)", options={"family": "negative_binomial"}),
    Case(name="zero_inflated", formula=bl.formula("count ~ x + (1 | g)", zi="~ x"), options={"family": "zero_inflated_poisson"}),
    Case(name="cumulative", formula="grade ~ x + (1 | g)", options={"family": "cumulative"}),
    Case(name="student", formula="y ~ x + (1 | g)", options={"family": "student", "weights": "w"}),
    Case(name="gaussian_log", formula="y2 ~ x + (1 | g)", options={"family": "gaussian", "link": "log"}),
)


def _log_likelihoods(model: Model, draws: Draws, s: int, points: np.ndarray, level: int, rows: np.ndarray) -> np.ndarray:
    """log p(y_i | effects of the level) of some rows, at many points (P, effects) as draws: by the package's conditional density."""
    P = len(points)
    one = draws.take(np.full(P, s))
    effects, at = [], 0
    for block in model.design.blocks:
        values = np.zeros((P, block.n_levels, block.n_effects))
        values[:, level] = points[:, at : at + block.n_effects]
        effects.append(values)
        at += block.n_effects
    model, one = on_rows(model, Draws(b=one.b, effects=tuple(effects), covariance=one.covariance, aux=one.aux), rows)
    return arrays.log_likelihood(model, one)


@pytest.mark.parametrize("case", GENERALISED, ids=lambda case: case.name)
def test_quadrature_is_that_of_a_fine_grid_over_the_prior(case: Case) -> None:
    data = _data()
    data["y2"] = np.abs(data["y"]) + 0.5
    model = bl.model(case.formula, data, **case.options)
    draws = _draws(model)
    rows_left_out = marginal.left_out(model, draws, np.arange(model.design.n))
    groups_left_out = marginal.left_out(model, draws, model.design.blocks[0].index)
    halves, _, _ = marginal.units(model, "site")
    halves_left_out = marginal.left_out(model, draws, halves)
    s, total = 1, np.zeros(2)
    for level in range(model.design.blocks[0].n_levels):
        rows = np.flatnonzero(model.design.blocks[0].index == level)
        covariances = [one[s] for one in draws.covariance]
        axes = [np.linspace(-9.0, 9.0, 3001 if sum(len(c) for c in covariances) == 1 else 261)] * sum(len(c) for c in covariances)
        t = np.stack([one.ravel() for one in np.meshgrid(*axes, indexing="ij")], axis=1)
        roots = [np.linalg.cholesky(one) for one in covariances]
        L = np.zeros((t.shape[1], t.shape[1]))
        at = 0
        for root in roots:
            L[at : at + len(root), at : at + len(root)] = root
            at += len(root)
        each = _log_likelihoods(model, draws, s, t @ L.T, level, rows)
        prior = -0.5 * np.sum(t**2, axis=1)
        prior -= logsumexp(prior)
        whole = logsumexp(prior + each.sum(axis=1))
        np.testing.assert_allclose(groups_left_out[s, level], whole, rtol=1e-7)
        without = logsumexp(prior[:, None] + each.sum(axis=1)[:, None] - each, axis=0)
        np.testing.assert_allclose(rows_left_out[s, rows], whole - without, rtol=1e-5, atol=1e-6)
        for side in range(2):
            total[side] += whole - logsumexp(prior + each[:, halves[rows] != side].sum(axis=1))
    np.testing.assert_allclose(halves_left_out[s], total, rtol=1e-5)


def test_many_effects_by_importance_agree_with_the_closed_form() -> None:
    """Gaussian models by the quadrature for any family: five effects a group, nested in it."""
    from bayeslmm.bayes import marginal_quadrature

    data = _data(80)
    data["inner"] = [f"i{i % 4}" for i in range(80)]
    model = bl.model("y ~ x + (1 | g / inner)", data)
    draws = _draws(model)
    index = marginal.units(model, "g")[0]
    for units, tolerance in ((index, 0.02), (np.arange(80), 0.02)):
        exact = marginal.left_out(model, draws, units)
        np.testing.assert_allclose(marginal_quadrature.left_out(model, draws, units), exact, atol=tolerance)


def test_a_row_of_a_new_group_is_integrated_over_its_normal_predictor() -> None:
    model = bl.model("count ~ x + (1 | g)", _data(), family="poisson")
    draws = _draws(model)
    eta, spread = np.array([0.2, 1.0, -0.5]), np.array([0.3, 1.2, 0.0])
    found = integrated_row(model, draws, 4, eta, spread)
    t = np.linspace(-9.0, 9.0, 4001)
    weight = np.exp(-0.5 * t**2)
    for s in range(3):
        mu = np.exp(eta[s] + spread[s] * t)
        density = model.family.loglik(np.full(len(t), model.design.y[4]), mu, {}, None)
        np.testing.assert_allclose(found[s], logsumexp(density, b=weight / weight.sum()), rtol=1e-7)


def test_without_random_effects_rows_are_independent() -> None:
    model = bl.model("count ~ x", _data(), family="poisson")
    draws = _draws(model)
    each = arrays.log_likelihood(model, draws)
    np.testing.assert_array_equal(marginal.left_out(model, draws, np.arange(60)), each)
    index = marginal.units(model, "site")[0]
    expected = np.stack([each[:, index == one].sum(axis=1) for one in range(2)], axis=1)
    np.testing.assert_allclose(marginal.left_out(model, draws, index), expected)


def test_a_singular_covariance_has_a_root() -> None:
    rng = np.random.default_rng(0)
    A = rng.normal(size=(4, 3, 2))
    covariance = np.concatenate([A @ np.swapaxes(A, 1, 2), np.zeros((1, 3, 3)), np.diag([0.0, 2.0, 0.0])[None]])
    L = marginal.covariance_root(covariance)
    np.testing.assert_allclose(L @ np.swapaxes(L, 1, 2), covariance, atol=1e-10)
    assert np.all(np.triu(L, 1) == 0.0)


def test_what_cannot_be_integrated_out_is_refused_in_words() -> None:
    data = _data()
    crossed = bl.model("count ~ x + (1 | g) + (1 | h)", data, family="poisson")
    with pytest.raises(FitError, match=rf"13 random effects \(groups: g, h\).*at most {MOST_EFFECTS}.*kfold"):
        marginal.left_out(crossed, _draws(crossed), np.arange(60))
    further = bl.model(bl.formula("y ~ x + (1 | g)", sigma="~ (1 | h)"), data)
    with pytest.raises(FitError, match="random effects of 'h' in the predictor of sigma cannot be integrated out"):
        marginal.left_out(further, _draws(further), np.arange(60))


def test_too_many_effects_for_dense_products_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = bl.model("y ~ x + (1 | g) + (1 | h)", _data())
    monkeypatch.setattr(marginal, "_LARGEST", 12)
    with pytest.raises(FitError, match=r"13 random effects hang together.*use kfold\(fit, by=\.\.\.\)"):
        marginal.left_out(model, _draws(model), marginal.units(model, "g")[0])
    smaller = bl.model("y ~ x + (1 | g)", _data())
    assert marginal.left_out(smaller, _draws(smaller), marginal.units(smaller, "h")[0]).shape == (S, 5)


def test_units_are_named_or_refused() -> None:
    data = _data()
    data["hole"] = np.where(np.arange(60) == 3, None, "a")
    crossed = bl.model("y ~ x + (1 | g) + (1 | h)", data)
    with pytest.raises(FitError, match="several grouping factors; name one: g, h"):
        marginal.units(crossed, None)
    with pytest.raises(FitError, match="no grouping factor"):
        marginal.units(bl.model("y ~ x", data), None)
    with pytest.raises(FitError, match=r"'sit' is neither .*did you mean 'site'"):
        marginal.units(crossed, "sit")
    with pytest.raises(DataError, match="column 'hole' lacks values"):
        marginal.units(crossed, "hole")
    index, dim, labels = marginal.units(crossed, "site")
    assert dim == "site"
    assert labels[index].tolist() == data["site"].tolist()
