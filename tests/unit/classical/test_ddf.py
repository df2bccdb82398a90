"""Satterthwaite and Kenward-Roger against brute force: dense V, numerical derivatives of the deviance, the published formulas."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import block_diag
from scipy.stats import f as f_distribution

from bayeslmm.classical import ClassicalFit, lmer
from bayeslmm.classical.anova import contrast
from bayeslmm.classical.ddf import contrast_table, f_test, inference
from bayeslmm.classical.information import information
from bayeslmm.covariance import structure_of
from bayeslmm.errors import BayesLmmWarning, ConvergenceWarning, DataError, FitError
from bayeslmm.random_blocks import RandomBlock


def data(seed: int = 5) -> pd.DataFrame:
    """60 rows: g (8 levels) crossed with h (5), s nested in g, unbalanced; x, f, weights. Seed 5: fits inside; seed 0: some singular."""
    rng = np.random.default_rng(seed)
    n = 60
    g, h = rng.integers(8, size=n), rng.integers(5, size=n)
    s = g * 2 + rng.integers(2, size=n)
    x, f = rng.normal(size=n), rng.integers(3, size=n)
    b = rng.normal(size=(8, 2)) * [1.0, 0.7]
    y = (
        1.0
        + 0.3 * x
        + 0.5 * (f == 1)
        + b[g, 0]
        + b[g, 1] * x
        + 0.6 * rng.normal(size=5)[h]
        + 0.5 * rng.normal(size=16)[s]
        + rng.normal(size=n)
    )
    labels = {name: [f"{name}{value:02d}" for value in values] for name, values in (("g", g), ("h", h), ("s", s), ("f", f))}
    return pd.DataFrame({"y": y, "x": x, "w": rng.uniform(0.5, 2.0, size=n), **labels})


MODELS = {
    "one": ("y ~ x + f + (1 | g)", None),
    "slopes": ("y ~ x + f + (x | g)", None),
    "zero": ("y ~ x + (x || g)", None),
    "crossed": ("y ~ x + f + (x | g) + (1 | h)", None),
    "nested": ("y ~ x + (1 | g) + (1 | s)", None),
    "weighted": ("y ~ x + f + (x | g) + (1 | h)", "w"),
    "two terms": ("y ~ x + (1 | g) + (0 + x | g) + (1 | h)", None),
    "no intercept": ("y ~ 0 + f + (1 | g)", None),
}


def fitted(formula: str, weights: str | None, *, reml: bool = True, seed: int = 5) -> ClassicalFit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        return lmer(formula, data(seed), weights=weights, reml=reml)


# ------------------------------------------------------------------------------------------------------------------ brute force


def dense_columns(block: RandomBlock) -> np.ndarray:
    """Z of one term (n, J k): levels outer, effects inner."""
    n, k = block.values.shape
    Z = np.zeros((n, block.n_levels * k))
    for effect in range(k):
        Z[np.arange(n), block.index * k + effect] = block.values[:, effect]
    return Z


def covariance(fit: ClassicalFit, psi: np.ndarray) -> np.ndarray:
    """V (n, n) at (theta, sigma)."""
    V = np.diag(psi[-1] ** 2 / fit.model.design.weights)
    at = 0
    for block in fit.model.design.blocks:
        structure, k = structure_of(block), block.n_effects
        size = structure.n_theta(k)
        L = psi[-1] * structure.factor(psi[at : at + size], k)
        at += size
        Z = dense_columns(block)
        V = V + Z @ block_diag(*[L @ L.T] * block.n_levels) @ Z.T
    return V


def deviance(fit: ClassicalFit, psi: np.ndarray) -> np.ndarray:
    X, y, V = fit.model.design.X, fit.model.design.y, covariance(fit, psi)
    inverse = np.linalg.inv(V)
    S = X.T @ inverse @ X
    e = y - X @ np.linalg.solve(S, X.T @ inverse @ y)
    value = np.linalg.slogdet(V)[1] + e @ inverse @ e
    return np.asarray(value + (np.linalg.slogdet(S)[1] if fit.reml else 0.0))


def vcov(fit: ClassicalFit, psi: np.ndarray) -> np.ndarray:
    X = fit.model.design.X
    return np.linalg.inv(X.T @ np.linalg.solve(covariance(fit, psi), X))


def central(function: Callable[[np.ndarray], np.ndarray], at: np.ndarray, step: float = 1e-3) -> np.ndarray:
    """Derivatives of fourth order (d, ...)."""
    rows = []
    for unit in np.eye(len(at)) * step:
        near = np.asarray(function(at + unit)) - np.asarray(function(at - unit))
        far = np.asarray(function(at + 2 * unit)) - np.asarray(function(at - 2 * unit))
        rows.append((8.0 * near - far) / (12.0 * step))
    return np.array(rows)


def satterthwaite_df(fit: ClassicalFit, contrast: np.ndarray) -> float:
    psi = np.append(fit.theta, fit.sigma)
    H = central(lambda at: central(lambda inner: deviance(fit, inner), at), psi)
    slopes = central(lambda at: vcov(fit, at), psi)
    g = np.einsum("x,dxy,y->d", contrast, slopes, contrast)
    return float(2.0 * (contrast @ vcov(fit, psi) @ contrast) ** 2 / (g @ np.linalg.solve(H / 2.0, g)))


def kenward_roger(fit: ClassicalFit, L: np.ndarray) -> tuple[np.ndarray, float, float]:
    """Adjusted covariance, denominator df and F of Kenward & Roger (1997), sections 3 and 4, term by term."""
    design = fit.model.design
    X, n, q = design.X, design.n, len(L)
    V = covariance(fit, np.append(fit.theta, fit.sigma))
    W = np.linalg.inv(V)
    G = [np.diag(1.0 / design.weights)]
    for block in design.blocks:
        Z, k = dense_columns(block), block.n_effects
        for r in range(k):
            for c in range(r + 1):
                one = Z[:, r::k] @ Z[:, c::k].T
                G.append(one if r == c else one + one.T)
    Phi = np.linalg.inv(X.T @ W @ X)
    P = [-X.T @ W @ one @ W @ X for one in G]
    R = W - W @ X @ Phi @ X.T @ W
    information_ = 0.5 * np.array([[np.trace(R @ one @ R @ two) for two in G] for one in G])
    spread = np.linalg.inv(information_)
    adjustment = np.zeros_like(Phi)
    for (i, one), (j, two) in product(enumerate(G), enumerate(G)):
        adjustment += spread[i, j] * (X.T @ W @ one @ W @ two @ W @ X - P[i] @ Phi @ P[j])
    adjusted = Phi + 2.0 * Phi @ adjustment @ Phi
    theta = L.T @ np.linalg.inv(L @ Phi @ L.T) @ L
    A1, A2 = 0.0, 0.0
    for i, j in product(range(len(G)), range(len(G))):
        one, two = theta @ Phi @ P[i] @ Phi, theta @ Phi @ P[j] @ Phi
        A1 += spread[i, j] * np.trace(one) * np.trace(two)
        A2 += spread[i, j] * np.trace(one @ two)
    B = (A1 + 6 * A2) / (2 * q)
    gap = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    share = 3 * q + 2 * (1 - gap)
    E = 1 / (1 - A2 / q)
    var = 2 / q * (1 + gap / share * B) / ((1 - (q - gap) / share * B) ** 2 * (1 - (q + 2 - gap) / share * B))
    rho = var / (2 * E**2)
    df = 4 + (q + 2) / (q * rho - 1)
    scale = df / (E * (df - 2))
    wald = L @ fit.beta @ np.linalg.solve(L @ adjusted @ L.T, L @ fit.beta)
    assert n == len(V)
    return adjusted, df, scale * wald / q


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(("name", "seed"), [*((name, 5) for name in MODELS), ("slopes", 0), ("crossed", 0)])
def test_satterthwaite_by_brute_force(name: str, seed: int, reml: bool) -> None:
    fit = fitted(*MODELS[name], reml=reml, seed=seed)
    table = fit.coefficients()
    expected = [satterthwaite_df(fit, unit) for unit in np.eye(len(fit.beta))]
    np.testing.assert_allclose(table["df"], expected, rtol=1e-5)


@pytest.mark.parametrize(("name", "seed"), [*((name, 5) for name in MODELS), ("slopes", 0), ("crossed", 0)])
def test_kenward_roger_by_brute_force(name: str, seed: int) -> None:
    fit = fitted(*MODELS[name], seed=seed)
    found = inference(fit, "kenward-roger")
    L = np.eye(len(fit.beta))[1:]
    adjusted, df, statistic = kenward_roger(fit, L)
    test = f_test(found, L)
    assert test is not None
    np.testing.assert_allclose(found.vcov, adjusted, rtol=1e-7, atol=1e-10)
    assert test.den_df == pytest.approx(df, rel=1e-7)
    assert test.f_value == pytest.approx(statistic, rel=1e-7)
    assert test.p_value == pytest.approx(f_distribution.sf(statistic, len(L), df), rel=1e-6)


@pytest.mark.parametrize("formula", ["y ~ x + cs(x | g)", "y ~ x + diag(x | g)", "y ~ x + ar1(0 + f | g)"])
def test_satterthwaite_of_other_structures(formula: str) -> None:
    fit = fitted(formula, None)
    assert fit.convergence == "converged"
    np.testing.assert_allclose(fit.coefficients()["df"], [satterthwaite_df(fit, unit) for unit in np.eye(2)], rtol=1e-5)


def test_kenward_roger_sees_only_what_the_structure_can_do() -> None:
    """`diag` is the same model as `||`."""
    one, two = fitted("y ~ x + diag(x | g)", None), fitted("y ~ x + (x || g)", None)
    np.testing.assert_allclose(one.coefficients("kenward-roger"), two.coefficients("kenward-roger"), rtol=1e-5)


def test_information_is_the_derivative_of_the_deviance() -> None:
    """At the optimum of an interior fit the gradient by every covariance parameter vanishes."""
    for reml in (True, False):
        fit = fitted("y ~ x + (1 | g)", None, reml=reml)
        np.testing.assert_allclose(information(fit).gradient(reml), 0.0, atol=1e-4)


# ---------------------------------------------------------------------------------------------------------------- exact answers


def test_balanced_one_way_has_the_degrees_of_freedom_of_the_groups() -> None:
    rng = np.random.default_rng(3)
    g = np.repeat(np.arange(7), 6)
    y = rng.normal(size=7)[g] + rng.normal(size=42)
    fit = lmer("y ~ 1 + (1 | g)", pd.DataFrame({"y": y, "g": g.astype(str)}))
    for method in ("satterthwaite", "kenward-roger"):
        row = fit.coefficients(method).iloc[0]
        assert row["df"] == pytest.approx(6.0, rel=1e-6)
        means = pd.Series(y).groupby(g).mean()
        assert row["se"] == pytest.approx(means.std() / np.sqrt(7), rel=1e-6)


def test_linear_model_has_the_residual_degrees_of_freedom() -> None:
    frame = data()
    fit = lmer("y ~ x + f", frame)
    for method in ("satterthwaite", "kenward-roger"):
        assert set(fit.coefficients(method)["df"]) == {56.0}


@pytest.mark.parametrize("factor", [1e9, 1e-9])
def test_units_of_a_predictor_do_not_matter(factor: float) -> None:
    frame = data()
    plain = lmer("y ~ x + f + (x | g)", frame)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        scaled = lmer("y ~ x + f + (x | g)", frame.assign(x=frame["x"] * factor))
    for method in ("satterthwaite", "kenward-roger"):
        one, two = plain.coefficients(method), scaled.coefficients(method)
        np.testing.assert_allclose(two["df"], one["df"], rtol=1e-4)
        np.testing.assert_allclose(two["p_value"], one["p_value"], rtol=1e-3)


# --------------------------------------------------------------------------------------------------------------------- refusals


def test_unknown_method_is_refused() -> None:
    with pytest.raises(FitError, match="did you mean 'kenward-roger'"):
        fitted("y ~ x + (1 | g)", None).coefficients("kenward-rogers")


def test_kenward_roger_of_an_ml_fit_is_that_of_reml() -> None:
    ml, reml = fitted("y ~ x + (1 | g)", None, reml=False), fitted("y ~ x + (1 | g)", None)
    with pytest.warns(BayesLmmWarning, match="fitted again by REML"):
        table = ml.coefficients("kenward-roger")
    np.testing.assert_allclose(table, reml.coefficients("kenward-roger"), rtol=1e-6)


def test_flat_likelihood_is_warned_of() -> None:
    """Two factors that are the same partition: only the sum of their variances is determined; the degrees of freedom are those of one."""
    frame = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        fit = lmer("y ~ x + (1 | g) + (1 | again)", frame.assign(again=frame["g"] + "!"))
    with pytest.warns(ConvergenceWarning, match="not curved"):
        table = fit.coefficients()
    np.testing.assert_allclose(table, lmer("y ~ x + (1 | g)", frame).coefficients(), rtol=1e-4)
    np.testing.assert_allclose(fit.coefficients("kenward-roger"), lmer("y ~ x + (1 | g)", frame).coefficients("kenward-roger"), rtol=1e-4)


def test_contrasts() -> None:
    fit = fitted("y ~ x + f + (1 | g)", None)
    found = inference(fit, "satterthwaite")
    table = contrast_table(found, np.array([[0.0, 1.0, 0.0, 0.0]]), ["x"], 0.3)
    own = fit.coefficients().loc["x"]
    assert table.loc["x", "statistic"] == pytest.approx((own["estimate"] - 0.3) / own["se"])
    one = contrast(fit, np.array([0.0, 1.0, 0.0, 0.0])).iloc[0]
    assert one["f_value"] == pytest.approx(own["statistic"] ** 2)
    assert one["p_value"] == pytest.approx(own["p_value"])
    twice = contrast(fit, np.array([[0.0, 1.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]])).iloc[0]
    np.testing.assert_allclose(twice, one)


def test_bad_contrasts_are_refused() -> None:
    fit = fitted("y ~ x + (1 | g)", None)
    with pytest.raises(DataError, match="2 finite numbers"):
        contrast(fit, np.ones(3))
    with pytest.raises(DataError, match="contradict"):
        contrast(fit, np.array([[0.0, 1.0], [0.0, 1.0]]), np.array([1.0, 2.0]))
    with pytest.raises(DataError, match="zeros"):
        contrast(fit, np.zeros((1, 2)), 1.0)
    assert contrast(fit, np.zeros((1, 2))).isna().all(axis=None)
