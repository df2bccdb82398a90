"""Residual variance by predictors and residuals correlated in time: dense V as the twin, refusals, all that follows from a fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as t_distribution

import bayeslmm as bl
from bayeslmm.classical import noise
from bayeslmm.classical.structured import whitened_of
from bayeslmm.covariance import structure_of
from bayeslmm.errors import DataError, FitError, FormulaError

FORMULAS = {
    "variance": ("y ~ x + (1 | g)", "~ f"),
    "variance_slope": ("y ~ x + (x | g) + (1 | h)", "~ f + z"),
    "cells": ("y ~ x + (1 | g)", "~ 0 + f"),
    "correlated": ("y ~ x + (1 | g) + ar(t, s)", None),
    "both": ("y ~ x + (1 | h) + (1 | s) + ar(t, s)", "~ f"),
    "both_structured": ("y ~ x + ar1(0 + f | h) + ar(time = t, gr = s)", "~ z"),
    "no_random": ("y ~ x + f + ar(t, s)", "~ z"),
    "no_intercept": ("y ~ 0 + x + (0 + x | g)", "~ f"),
}
FITS = [(name, reml) for name in FORMULAS for reml in (True, False)]


@cache
def data() -> pd.DataFrame:
    """Two crossed factors g and h, series s within their cells at times with gaps, unequal weights."""
    rng = np.random.default_rng(11)
    frame = pd.DataFrame([(g, h, t) for g in range(6) for h in range(5) for t in (0, 1, 2, 5, 6)], columns=["g", "h", "t"])
    frame["s"] = frame["g"] * 5 + frame["h"]
    n = len(frame)
    frame["x"], frame["z"] = rng.normal(size=n), rng.uniform(-1.0, 1.0, size=n)
    frame["f"] = np.array(["a", "b", "c"])[rng.integers(3, size=n)]
    frame["w"] = rng.uniform(0.5, 2.0, size=n)
    sd = np.exp(0.3 + 0.4 * (frame["f"] == "b") - 0.5 * frame["z"])
    lag = np.abs(frame["t"].to_numpy()[:, None] - frame["t"].to_numpy())
    C = np.where(frame["s"].to_numpy()[:, None] == frame["s"].to_numpy(), 0.5**lag, 0.0)
    noise = np.linalg.cholesky(C) @ rng.normal(size=n)
    frame["y"] = (
        2.0
        + frame["x"] * (1.0 + rng.normal(size=6)[frame["g"]])
        + 2.0 * rng.normal(size=6)[frame["g"]]
        + rng.normal(size=5)[frame["h"]]
        + sd * noise
    )
    frame = frame.sample(frac=1.0, random_state=3)
    return frame.astype({"g": str, "h": str, "s": str}).reset_index(drop=True)


def formula(name: str) -> Any:
    text, sigma = FORMULAS[name]
    return bl.formula(text, sigma=sigma) if sigma else text


@cache
def fitted(name: str, reml: bool) -> bl.ClassicalFit:
    fit = bl.lmer(formula(name), data(), reml=reml, weights="w")
    assert fit.converged
    return fit


# ----------------------------------------------------------------------------------------------------------------- the dense twin


def residual_covariance(fit: bl.ClassicalFit, gamma: Any, rho: float, sigma: float) -> np.ndarray:
    """D C D over the weights, from the rows' own columns of the data."""
    design = fit.model.design
    sd = np.full(design.n, sigma) if gamma is None else np.exp(design.parameters["sigma"][0].X @ gamma)
    sd = sd / np.sqrt(design.weights)
    C = np.eye(design.n)
    if design.series is not None:
        frame = data()
        lag = np.abs(frame["t"].to_numpy()[:, None] - frame["t"].to_numpy())
        C = np.where(frame["s"].to_numpy()[:, None] == frame["s"].to_numpy(), float(rho) ** lag, 0.0)
    return sd[:, None] * C * sd


def parameters(fit: bl.ClassicalFit) -> tuple[np.ndarray, Any, float, float]:
    """theta times sigma where it is a standard deviation; gamma; rho; sigma."""
    gamma = fit.further["sigma"].beta if "sigma" in fit.further else None
    rho = float(fit.further["ar"].natural()[0]) if "ar" in fit.further else 0.0
    return fit.theta, gamma, rho, fit.sigma


def covariance(fit: bl.ClassicalFit, theta: np.ndarray, gamma: Any, rho: float, sigma: float) -> np.ndarray:
    """The dense covariance matrix of y."""
    design, at = fit.model.design, 0
    V = residual_covariance(fit, gamma, rho, sigma)
    for block in design.blocks:
        structure, k = structure_of(block), block.n_effects
        own = theta[at : at + structure.n_theta(k)]
        at += len(own)
        L = sigma * structure.factor(own, k)
        same = block.index[:, None] == block.index
        V = V + np.where(same, block.values @ L @ L.T @ block.values.T, 0.0)
    return V


def deviance(fit: bl.ClassicalFit, V: np.ndarray) -> float:
    """-2 log L, or that of the restricted likelihood as lme4 has it, beta at its best."""
    design = fit.model.design
    X, y = design.X, design.y - design.offset
    inverse = np.linalg.inv(V)
    P = X.T @ inverse @ X
    e = y - X @ np.linalg.solve(P, X.T @ inverse @ y)
    n, p = X.shape
    value = np.linalg.slogdet(V)[1] + e @ inverse @ e
    if not fit.reml:
        return float(value + n * np.log(2.0 * np.pi))
    return float(value + np.linalg.slogdet(P)[1] + (n - p) * np.log(2.0 * np.pi))


@pytest.mark.parametrize(("name", "reml"), FITS)
def test_estimates_are_those_of_the_dense_model(name: str, reml: bool) -> None:
    fit = fitted(name, reml)
    design = fit.model.design
    V = covariance(fit, *parameters(fit))
    assert fit.criterion == pytest.approx(deviance(fit, V), rel=1e-10)
    inverse = np.linalg.inv(V)
    vcov = np.linalg.inv(design.X.T @ inverse @ design.X)
    beta = vcov @ design.X.T @ inverse @ design.y
    np.testing.assert_allclose(fit.beta, beta, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(fit.vcov(), vcov, rtol=1e-7, atol=1e-12)
    error = inverse @ (design.y - design.X @ beta)
    for block, effects, covariance_ in zip(design.blocks, fit.effects, fit.covariances, strict=True):
        Z = np.zeros((design.n, block.n_levels, block.n_effects))
        Z[np.arange(design.n), block.index] = block.values
        np.testing.assert_allclose(effects, np.einsum("njk,n->jk", Z, error) @ covariance_, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("name", "reml"), FITS)
def test_no_other_parameters_are_better(name: str, reml: bool) -> None:
    fit = fitted(name, reml)
    theta, gamma, rho, sigma = parameters(fit)
    best, rng = fit.criterion, np.random.default_rng(5)
    for _ in range(25):
        moved = theta + 0.05 * rng.normal(size=len(theta))
        other = None if gamma is None else gamma + 0.05 * rng.normal(size=len(gamma))
        scale = sigma * np.exp(0.05 * rng.normal())
        correlation = float(np.clip(rho + 0.05 * rng.normal(), -0.99, 0.99))
        bounded = [structure_of(block).upper(block.n_effects) for block in fit.model.design.blocks]
        moved = np.minimum(moved, np.concatenate([np.zeros(0), *bounded]))
        assert deviance(fit, covariance(fit, moved, other, correlation, scale)) > best - 1e-8


@pytest.mark.parametrize(("name", "reml"), FITS)
def test_the_gradient_is_exact(name: str, reml: bool) -> None:
    made = whitened_of(fitted(name, reml).model, reml)
    rng = np.random.default_rng(7)
    x = np.clip(made.start + 0.2 * rng.normal(size=len(made.start)), made.lower, made.upper)
    _, gradient = noise.objective(made, x)
    h = 1e-5
    steps = h * np.eye(len(x))
    differences = [(noise.objective(made, x + step)[0] - noise.objective(made, x - step)[0]) / (2.0 * h) for step in steps]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6, atol=1e-5)


def test_the_gradient_does_not_read_what_is_not_set() -> None:
    """Half of the adjoint of the dense products is never written: what stood there in memory, be it NaN, must not count."""
    made = whitened_of(fitted("variance_slope", True).model, True)
    _, expected = noise.objective(made, made.start)
    noise.problem_at(made, made.start[made.n_t :]).work.Mbar[...] = np.nan
    _, gradient = noise.objective(made, made.start)
    np.testing.assert_array_equal(gradient, expected)


def at_point(fit: bl.ClassicalFit, point: np.ndarray) -> tuple[np.ndarray, Any, float, float]:
    """The twin's parameters at (theta, further parameters on their links' scale, log sigma where it has no predictor)."""
    theta, rest = point[: len(fit.theta)], point[len(fit.theta) :]
    gamma, rho, sigma = None, 0.0, fit.sigma
    if "sigma" in fit.further:
        gamma, rest = rest[: len(fit.further["sigma"].beta)], rest[len(fit.further["sigma"].beta) :]
    else:
        sigma, rest = float(np.exp(rest[0])), rest[1:]
    return theta, gamma, float(np.tanh(rest[0])) if len(rest) else rho, sigma


def point_of(fit: bl.ClassicalFit) -> np.ndarray:
    own = fit.further["sigma"].beta if "sigma" in fit.further else [np.log(fit.sigma)]
    return np.concatenate([fit.theta, own, fit.further["ar"].beta if "ar" in fit.further else []])


def second_differences(function: Callable[[np.ndarray], float], x: np.ndarray, h: float = 1e-3) -> np.ndarray:
    """Hessian by central differences, Richardson-extrapolated once."""
    d = len(x)

    def plain(step: float) -> np.ndarray:
        H, E = np.zeros((d, d)), step * np.eye(d)
        for i in range(d):
            for j in range(i, d):
                corners = [function(x + a * E[i] + b * E[j]) * a * b for a in (1, -1) for b in (1, -1)]
                H[i, j] = H[j, i] = sum(corners) / (4.0 * step**2)
        return H

    return (4.0 * plain(h) - plain(2.0 * h)) / 3.0


@pytest.mark.parametrize("name", ["variance", "correlated", "both", "no_random", "cells"])
def test_standard_errors_and_degrees_of_freedom(name: str) -> None:
    """Satterthwaite's from the dense deviance: theta sigma held free, as sigma with a predictor scales theta by the fit's own sigma."""
    fit = fitted(name, True)
    x = point_of(fit)
    H = second_differences(lambda point: deviance(fit, covariance(fit, *at_point(fit, point))), x)
    spread = 2.0 * np.linalg.inv(H)
    at = len(fit.theta)
    errors = np.sqrt(np.diagonal(spread))[at:]
    found = np.concatenate([fit.further[one].standard_errors for one in ("sigma", "ar") if one in fit.further])
    np.testing.assert_allclose(found, errors if "sigma" in fit.further else errors[1:], rtol=2e-5)

    def vcov(point: np.ndarray) -> np.ndarray:
        X = fit.model.design.X
        return np.asarray(np.linalg.inv(X.T @ np.linalg.solve(covariance(fit, *at_point(fit, point)), X)))

    slopes = np.array([(np.diagonal(vcov(x + step)) - np.diagonal(vcov(x - step))) / 2e-4 for step in 1e-4 * np.eye(len(x))])
    df = 2.0 * np.diagonal(vcov(x)) ** 2 / np.einsum("dp,de,ep->p", slopes, spread, slopes)
    np.testing.assert_allclose(fit.coefficients()["df"], df, rtol=1e-4)


@pytest.mark.parametrize("name", ["variance", "correlated", "both"])
def test_prediction_errors_and_intervals(name: str) -> None:
    fit = fitted(name, True)
    design = fit.model.design
    G = [np.kron(np.eye(block.n_levels), own) for block, own in zip(design.blocks, fit.covariances, strict=True)]
    Z = np.concatenate([_dense(block.index, block.values, block.n_levels) for block in design.blocks], axis=1)
    prior = np.zeros((Z.shape[1], Z.shape[1]))
    start = 0
    for own in G:
        prior[start : start + len(own), start : start + len(own)] = own
        start += len(own)
    R = residual_covariance(fit, *parameters(fit)[1:])
    XZ, p = np.column_stack([design.X, Z]), design.p
    equations = XZ.T @ np.linalg.solve(R, XZ)
    equations[p:, p:] += np.linalg.inv(prior)
    variance = np.einsum("na,ab,nb->n", XZ, np.linalg.inv(equations), XZ)
    table = fit.predict(interval="prediction")
    np.testing.assert_allclose(table["se"], np.sqrt(variance), rtol=1e-6)
    half = (table["upper"] - table["lower"]) / 2.0
    total = np.sqrt(variance + np.diagonal(R))
    ratio = half / total
    assert np.all((ratio > t_distribution.ppf(0.975, 1e6)) & (ratio < t_distribution.ppf(0.975, 3.0)))


def _dense(index: np.ndarray, values: np.ndarray, levels: int) -> np.ndarray:
    Z = np.zeros((len(index), levels, values.shape[1]))
    Z[np.arange(len(index)), index] = values
    return Z.reshape(len(index), -1)


# ------------------------------------------------------------------------------------------------------------ special cases, equal


def test_an_intercept_alone_is_the_plain_model() -> None:
    plain, same = bl.lmer("y ~ x + (1 | g)", data()), bl.lmer(bl.formula("y ~ x + (1 | g)", sigma="~ 1"), data())
    assert same.criterion == pytest.approx(plain.criterion, rel=1e-12)
    assert same.sigma == pytest.approx(plain.sigma, rel=1e-7)
    assert same.n_parameters == plain.n_parameters
    np.testing.assert_allclose(same.coefficients()["df"], plain.coefficients()["df"], rtol=1e-5)
    np.testing.assert_allclose(same.theta, plain.theta, rtol=1e-6)


def test_cells_and_contrasts_are_one_model() -> None:
    cells, contrasts = fitted("cells", True), bl.lmer(bl.formula("y ~ x + (1 | g)", sigma="~ f"), data(), weights="w")
    assert cells.criterion == pytest.approx(contrasts.criterion, rel=1e-11)
    gamma = contrasts.further["sigma"].beta
    np.testing.assert_allclose(cells.further["sigma"].beta, [gamma[0], gamma[0] + gamma[1], gamma[0] + gamma[2]], rtol=1e-6)
    np.testing.assert_allclose(cells.covariances[0], contrasts.covariances[0], rtol=1e-6)
    np.testing.assert_allclose(cells.residuals("scaled"), contrasts.residuals("scaled"), rtol=1e-6)
    assert contrasts.sigma == pytest.approx(np.exp(gamma[0]), rel=1e-12)


def test_units_of_the_predictor_do_not_matter() -> None:
    frame = data().assign(far=1e6 * data()["z"] + 3e6)
    one, other = bl.lmer(bl.formula("y ~ x + (1 | g)", sigma="~ z"), frame), bl.lmer(bl.formula("y ~ x + (1 | g)", sigma="~ far"), frame)
    assert one.criterion == pytest.approx(other.criterion, rel=1e-10)
    assert one.further["sigma"].beta[1] == pytest.approx(1e6 * other.further["sigma"].beta[1], rel=1e-6)
    np.testing.assert_allclose(one.covariances[0], other.covariances[0], rtol=1e-6)
    np.testing.assert_allclose(one.coefficients()["df"], other.coefficients()["df"], rtol=1e-4)


def test_rows_in_their_order_are_one_series() -> None:
    frame = pd.DataFrame({"y": np.random.default_rng(0).normal(size=30).cumsum(), "t": range(30)})
    by_order, by_time = bl.lmer("y ~ 1 + ar()", frame), bl.lmer("y ~ 1 + ar(t)", frame)
    assert by_order.criterion == by_time.criterion
    assert by_order.further["ar"].natural()[0] > 0.5


def test_without_times_the_rows_of_a_series_follow_one_another() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"y": rng.normal(size=40).cumsum(), "s": np.tile(list("ab"), 20), "t": np.repeat(np.arange(20), 2)})
    assert bl.lmer("y ~ s + ar(gr = s)", frame).criterion == bl.lmer("y ~ s + ar(t, s)", frame).criterion


def test_the_family_ancestor_is_nested_in_its_heir() -> None:
    plain, heir = bl.lmer("y ~ x + (1 | g)", data(), reml=False), bl.lmer(bl.formula("y ~ x + (1 | g)", sigma="~ f"), data(), reml=False)
    table = bl.anova(plain, heir)
    assert table["df"].iloc[1] == 2
    assert table["chisq"].iloc[1] == pytest.approx(plain.criterion - heir.criterion)
    assert list(table.index) == ["y ~ x + (1 | g)", "y ~ x + (1 | g), sigma ~ f"]


# ---------------------------------------------------------------------------------------------------------------- what follows


def test_tables() -> None:
    fit = fitted("both", True)
    rows = fit.estimates.set_index("term")
    assert {"sigma_(Intercept)", "sigma_fb", "sigma_fc", "ar"} <= set(rows.index)
    assert "sigma" not in rows.index
    assert rows.loc["ar", "part"] == "aux"
    assert rows.loc["ar", "lower"] < rows.loc["ar", "estimate"] < rows.loc["ar", "upper"] < 1.0
    assert fit.n_parameters == 2 + 2 + 3 + 1
    text = str(fit.summary())
    assert "Predictor of sigma (log link)" in text
    assert "sigma: ~ f" in text
    assert "\nar " in text
    assert "Residual" not in text
    assert str(fitted("no_random", True).summary()).startswith("Linear model fit by generalized least squares (REML)")


def test_normalized_residuals_are_uncorrelated_and_of_unit_variance() -> None:
    fit = fitted("both", False)
    design = fit.model.design
    R = residual_covariance(fit, *parameters(fit)[1:])
    error = design.y - fit.fitted().to_numpy()
    np.testing.assert_allclose(fit.residuals("scaled"), error / np.sqrt(np.diagonal(R)), rtol=1e-10)
    order = np.lexsort((data()["t"], data()["s"]))
    root = np.linalg.cholesky(R[np.ix_(order, order)])
    np.testing.assert_allclose(fit.residuals("normalized").to_numpy()[order], np.linalg.solve(root, error[order]), atol=1e-9)


def test_simulated_responses_have_the_covariance_of_the_model() -> None:
    fit = fitted("both", True)
    draws = fit.simulate(4000, seed=1).to_numpy()
    V = covariance(fit, *parameters(fit))
    found = np.cov(draws)
    size = np.sqrt((np.outer(np.diagonal(V), np.diagonal(V)) + V**2) / 4000)
    assert np.max(np.abs(found - V) / size) < 5.5
    assert np.corrcoef(found.ravel(), V.ravel())[0, 1] > 0.9
    new = fit.simulate(2, seed=1, newdata=data().iloc[:7])
    assert new.shape == (7, 2)


def test_refit_and_bootstrap() -> None:
    fit = fitted("variance", True)
    again = bl.refit(fit, fit.model.design.y)
    assert again.criterion == pytest.approx(fit.criterion, rel=1e-11)
    boot = bl.bootstrap(fit, n=4, seed=1)
    assert boot.counts["failed"] == 0
    assert {"sigma_fb", "sd_(Intercept)|g", "x"} <= set(boot.table.index)
    limits = bl.confint(fit)
    part = fit.further["sigma"]
    assert limits.loc["sigma_fb", "upper"] == pytest.approx(part.beta[1] + 1.959964 * part.standard_errors[1])


def test_leaving_out_a_level() -> None:
    fit = fitted("both", True)
    table = bl.influence(fit, "h")
    assert (table["status"] == "ok").all()
    without = data()[data()["h"] != "2"]
    again = bl.lmer(formula("both"), without, weights="w")
    assert table.loc["2", "sigma"] == pytest.approx(again.sigma, rel=1e-5)


def test_hat_values_of_unequal_variances() -> None:
    fit = fitted("variance", True)
    design, y = fit.model.design, fit.model.design.y
    V, R = covariance(fit, *parameters(fit)), residual_covariance(fit, *parameters(fit)[1:])
    inverse = np.linalg.inv(V)
    X = design.X
    P = inverse - inverse @ X @ np.linalg.solve(X.T @ inverse @ X, X.T @ inverse)
    np.testing.assert_allclose(bl.influence(fit)["leverage"], 1.0 - np.diagonal(R @ P), rtol=1e-6)
    np.testing.assert_allclose(fit.fitted(), y - R @ P @ y, rtol=1e-8)


def test_explanation() -> None:
    text = fitted("both", True).model.explain().latex
    assert r"\sigma_i^2" in text
    assert r"\mathrm{log}(\sigma_i) &= \gamma_{0} + \gamma_{1}" in text
    assert r"\rho^{|t_i - t_j|}" in text


# -------------------------------------------------------------------------------------------------------------------- refusals


def fit_to(text: str, sigma: str | None = None, **options: Any) -> bl.ClassicalFit:
    return bl.lmer(bl.formula(text, sigma=sigma) if sigma else text, options.pop("frame", data()), **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y ~ x + ar(t, s) + ar(t, g)", "one correlation structure"),
        ("y ~ x - ar(t, s)", "cannot be removed"),
        ("y ~ x + ar(t, s, p = 2)", "order p = 1 only"),
        ("y ~ x + ar(t, s, cov = FALSE)", "cov = TRUE"),
        ("y ~ x + ar(t, s, q = 1)", "no argument q"),
        ("y ~ x:ar(t, s)", "a term of its own"),
        ("y ~ log(ar(t, s))", "a term of its own"),
    ],
)
def test_formulas_that_mean_nothing(text: str, message: str) -> None:
    with pytest.raises(FormulaError, match=message):
        fit_to(text)


def test_unknown_columns() -> None:
    with pytest.raises(DataError, match="nowhere"):
        fit_to("y ~ x + ar(nowhere, s)")
    with pytest.raises(DataError, match="nowhere"):
        fit_to("y ~ x", "~ nowhere")


def test_times_that_cannot_be_used() -> None:
    with pytest.raises(DataError, match="whole numbers") as caught:
        fit_to("y ~ x + ar(z, s)")
    assert len(caught.value.rows) == len(data())
    with pytest.raises(DataError, match="two rows at the same time") as caught:
        fit_to("y ~ x + ar(t, g)")
    assert caught.value.rows


def test_series_across_levels_are_refused() -> None:
    frame = data().assign(u=data().groupby("g").cumcount())
    with pytest.raises(DataError, match="several levels of 'h'"):
        fit_to("y ~ x + (1 | h) + ar(u, g)", frame=frame)


def test_models_that_cannot_be_fitted() -> None:
    with pytest.raises(FitError, match="use `brm`"):
        fit_to("y ~ x + (1 | g)", "~ (1 | g)")
    with pytest.raises(FitError, match="needs an intercept"):
        fit_to("y ~ x + (1 | g)", "~ 0 + z")
    with pytest.raises(FormulaError, match="that of the mean"):
        fit_to("y ~ x", "~ ar(t, s)")
    with pytest.raises(DataError, match="only one level"):
        fit_to("y ~ x", "~ one", frame=data().assign(one="a"))
    with pytest.raises(FitError, match="poisson"):
        bl.model("n ~ x + ar(t, s)", data().assign(n=1), "poisson")


def test_a_constant_predictor_is_left_out_with_a_warning() -> None:
    with pytest.warns(bl.DataWarning, match="sigma_one"):
        fit = fit_to("y ~ x", "~ one", frame=data().assign(one=2.0))
    assert fit.further["sigma"].names == ("(Intercept)",)


def test_rows_that_are_fitted_exactly_have_no_variance() -> None:
    frame = data().assign(f=np.where(np.arange(len(data())) < 1, "only", "rest"))
    with pytest.raises(FitError, match="variance of 1 row runs to zero"):
        fit_to("y ~ f + x", "~ f", frame=frame, reml=False)
    with pytest.warns(bl.ConvergenceWarning, match="only a combination of sigma_"):
        fit_to("y ~ f + x", "~ f", frame=frame)


def test_a_correlation_of_one_is_said() -> None:
    rng = np.random.default_rng(4)
    frame = pd.DataFrame({"s": np.repeat(list("abcdefgh"), 6), "t": np.tile(np.arange(6), 8)})
    frame["y"] = np.repeat(rng.normal(size=8), 6) + 1e-5 * rng.normal(size=(8, 6)).cumsum(axis=1).ravel()
    with pytest.warns(bl.SingularFitWarning, match="correlation of neighbouring residuals"):
        fit = bl.lmer("y ~ 1 + ar(t, s)", frame)
    assert fit.further["ar"].natural()[0] > 1.0 - 1e-7
    assert not next(check for check in fit.diagnose().checks if check.code == "singular").passed


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fit: fit.coefficients("kenward-roger"), "satterthwaite"),
        (lambda fit: bl.confint(fit, "profile"), "'wald' or 'boot'"),
        (bl.profile, "'wald' or 'boot'"),
        (lambda fit: bl.bootstrap(fit, n=2, kind="case"), "parametric"),
        (lambda fit: bl.variance_test(fit, "(1 | s)"), "mixture"),
        (bl.influence, "hat values"),
        (lambda fit: bl.influence(fit, "h", refit=False), "refit"),
    ],
)
def test_what_is_not_available_says_so(call: Callable[[bl.ClassicalFit], Any], message: str) -> None:
    with pytest.raises(FitError, match=message):
        call(fitted("both", True))
