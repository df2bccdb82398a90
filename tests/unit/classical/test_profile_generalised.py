"""Profiles of generalised models: closed forms, slow twins that minimise over all else, and limits that separated data do not have."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import expit, logit
from scipy.stats import binom, chi2, norm

import bayeslmm as bl
from bayeslmm.classical.engine import theta_of
from bayeslmm.classical.glmm import criterion_of
from bayeslmm.classical.optimise import minimise
from bayeslmm.classical.parameters import parameter_values, profiled
from bayeslmm.classical.profile_generalised import HOLDERS, least, point_of
from bayeslmm.errors import FitError

CUTOFF = float(chi2.ppf(0.95, 1))


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(11)
    x, g = rng.normal(size=120), np.repeat(np.arange(12), 10)
    level = rng.normal(size=(12, 2)) @ np.array([[0.7, 0.3], [0.0, 0.4]])
    y = rng.poisson(np.exp(1.0 + level[g, 0] + (0.3 + level[g, 1]) * x))
    z = rng.negative_binomial(2.0, 2.0 / (2.0 + np.exp(1.0 + 0.4 * x)))
    return pd.DataFrame({"y": y, "z": z, "x": x, "g": g.astype(str)})


@pytest.fixture(scope="module")
def slopes(counts):
    return bl.glmer("y ~ x + (x | g)", counts, "poisson")


def test_one_proportion() -> None:
    fit = bl.glmer("cbind(hit, miss) ~ 1", pd.DataFrame({"hit": [1, 2], "miss": [9, 8]}))

    def rise(eta: float) -> float:
        return 2.0 * float(binom(20, 0.15).logpmf(3) - binom(20, expit(eta)).logpmf(3)) - CUTOFF

    expected = [brentq(rise, -6.0, logit(0.15)), brentq(rise, logit(0.15), 2.0)]
    assert np.allclose(bl.confint(fit, "profile").loc["(Intercept)"], expected, rtol=1e-6)


def test_a_penalty_is_in_the_profile() -> None:
    table = pd.DataFrame({"hit": [0, 7], "miss": [12, 5], "arm": ["a", "b"]})
    fit = bl.glmer("cbind(hit, miss) ~ arm", table, penalty="jeffreys")

    def penalised(a: float, b: float) -> float:  # binomials of each arm, with half an observation added to every cell
        return -2.0 * float(0.5 * np.log(expit(a)) + 12.5 * np.log(expit(-a)) + 7.5 * np.log(expit(b)) + 5.5 * np.log(expit(-b)))

    least_of = penalised(logit(0.5 / 13.0), logit(7.5 / 13.0))

    def rise(difference: float) -> float:
        found = minimize(
            lambda a: penalised(a[0], a[0] + difference), [-2.0], method="Nelder-Mead", options={"fatol": 1e-12, "xatol": 1e-9}
        )
        return found.fun - least_of - CUTOFF

    limits = bl.confint(fit, "profile", parameters="armb")
    assert np.allclose(limits.loc["armb"], [brentq(rise, 0.0, 3.0), brentq(rise, 4.0, 15.0)], rtol=1e-6)
    assert "penalty (jeffreys)" in limits.attrs["note"]


def _constrained(fit: bl.ClassicalFit, name: str, value: float) -> float:
    """Minimise the criterion over all of x under the constraint that the parameter has its value: knows nothing of `held`."""
    found = criterion_of(fit)
    k = [one.name for one in profiled(fit)].index(name)

    def away(x: np.ndarray) -> float:
        theta = theta_of(found.problem, x[found.problem.p :])
        beta = found.predictors[0].back @ x[found.predictors[0].place]
        values = parameter_values(fit.model.design, theta, 1.0, beta)
        return float(np.delete(values, len(values) - len(beta) - 1)[k]) - value

    constraint = {"type": "eq", "fun": away}
    start, options = point_of(found, fit), {"ftol": 1e-12, "maxiter": 500}
    end = minimize(found.method.objective, start, jac=True, method="SLSQP", constraints=constraint, options=options)
    assert abs(away(end.x)) < 1e-7
    return float(end.fun)


@pytest.mark.parametrize(
    ("name", "value"), [("x", 0.6), ("sd_(Intercept)|g", 1.1), ("sd_x|g", 0.9), ("cor_x.(Intercept)|g", -0.1), ("(Intercept)", 0.5)]
)
def test_held_criteria_against_a_constrained_search(slopes, name: str, value: float) -> None:
    table = bl.profile(slopes, name).table
    zeta = float(np.interp(value, table["value"], table["zeta"]))
    parameter = next(one for one in profiled(slopes) if one.name == name)
    held = HOLDERS[parameter.kind](slopes, parameter)(value)
    exact = minimise(held.function, held.start, held.box, held.curvature).value
    assert exact == pytest.approx(_constrained(slopes, name, value), abs=1e-5)
    assert exact - least(slopes) == pytest.approx(zeta**2, rel=0.05)


@pytest.mark.parametrize("name", ["x", "sd_x|g", "cor_x.(Intercept)|g"])
def test_gradients_of_held_criteria_by_differences(slopes, name: str) -> None:
    parameter = next(one for one in profiled(slopes) if one.name == name)
    held = HOLDERS[parameter.kind](slopes, parameter)(0.3)
    gradient = held.function(held.start)[1]
    steps = 1e-5 * np.eye(len(held.start))
    slow = [(held.function(held.start + h)[0] - held.function(held.start - h)[0]) / 2e-5 for h in steps]
    assert np.allclose(gradient, slow, rtol=1e-5, atol=1e-4)


def test_the_interpolated_limits_are_the_exact_ones(slopes) -> None:
    assert np.allclose(bl.profile(slopes).intervals(), bl.confint(slopes, "profile"), rtol=2e-3, atol=2e-3)


def test_further_constants_have_limits_on_their_own_scale(counts) -> None:
    fit = bl.glmer("z ~ x", counts, "negative_binomial")
    limits = bl.confint(fit, "profile", parameters="shape").loc["shape"]
    for value in limits:
        held = HOLDERS["further"](fit, profiled(fit)[-1])(float(value))
        found = minimize(
            lambda v, held=held: held.function(v)[0], held.start, method="Nelder-Mead", options={"fatol": 1e-11, "xatol": 1e-8}
        )
        assert found.fun - fit.criterion == pytest.approx(CUTOFF, abs=1e-5)
    shape = float(fit.further["shape"].natural()[0])
    assert limits["lower"] < shape < limits["upper"]


def test_separated_coefficients_have_one_limit() -> None:
    table = pd.DataFrame({"hit": [0, 7], "miss": [12, 5], "arm": ["a", "b"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.ConvergenceWarning)
        fit = bl.glmer("cbind(hit, miss) ~ arm", table)
    limits = bl.confint(fit, "profile")
    assert limits.loc["(Intercept)", "lower"] == -np.inf
    assert limits.loc["armb", "upper"] == np.inf
    # -2 log L of 0 hits in 12 rises from its infimum, 0, to the cutoff where 24 log(1 + exp(eta)) does
    assert limits.loc["(Intercept)", "upper"] == pytest.approx(np.log(np.expm1(CUTOFF / 24.0)), rel=1e-5)
    assert "no finite estimate" in limits.attrs["note"]
    walked = bl.profile(fit).intervals()
    assert walked.loc["(Intercept)", "upper"] == pytest.approx(limits.loc["(Intercept)", "upper"], rel=1e-3)
    assert walked.loc["(Intercept)", "lower"] == -np.inf


def test_wald_limits(slopes) -> None:
    limits = bl.confint(slopes, "wald", parameters="x").loc["x"]
    assert np.allclose(limits, slopes.beta[1] + norm.ppf([0.025, 0.975]) * slopes.standard_errors[1])


def test_coefficients_in_the_mode_have_no_profile(counts) -> None:
    with pytest.raises(FitError, match="n_agq=1"):
        bl.confint(bl.glmer("y ~ x + (1 | g)", counts, "poisson", n_agq=0), "profile")
