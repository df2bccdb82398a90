"""Generalised mixed models on further data sets, against glmmTMB, glmer, car, emmeans and performance (see glmm_more.R)."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.polynomial.hermite_e import hermegauss

import bayeslmm as bl
from bayeslmm.classical import ClassicalFit
from bayeslmm.errors import BayesLmmWarning

pytestmark = pytest.mark.reference

_HERE = Path(__file__).parent
STORED = json.loads((_HERE / "glmm_more.json").read_text(encoding="utf8"))
FITS, VERBS = STORED["fits"], STORED["verbs"]

BACTERIA = "y ~ trt + I(week > 2) + (1 | ID)"
OWLS = "SiblingNegotiation ~ {} + offset(log(BroodSize)) + (1 | Nest)"
SEEDS = "fruits ~ nutrient * amd + rack + status + (1 | popu) + "
EPIL = "y ~ lbase * trt + lage + {}(1 | subject)"
GOPHER = "shells ~ prev + factor(year) + offset(log(Area)) + (1 | Site)"

type Case = tuple[str, str, str, dict[str, str], dict[str, Any]]
CASES: dict[str, Case] = {
    "bacteria": ("bacteria", BACTERIA, "bernoulli", {}, {}),
    **{f"bacteria_agq{k}": ("bacteria", BACTERIA, "bernoulli", {}, {"n_agq": k}) for k in (5, 10, 25)},
    "bacteria_probit_agq50": ("bacteria", BACTERIA, "bernoulli", {}, {"link": "probit", "n_agq": 50}),
    "bacteria_cauchit_agq50": ("bacteria", "y ~ trt + (1 | ID)", "bernoulli", {}, {"link": "cauchit", "n_agq": 50}),
    "epil": ("epil", EPIL.format("V4 + "), "poisson", {}, {}),
    "epil_agq10": ("epil", EPIL.format("V4 + "), "poisson", {}, {"n_agq": 10}),
    "epil_slopes": ("epil", "y ~ lbase + trt + (period | subject)", "poisson", {}, {}),
    "epil_nb1": ("epil", EPIL.format(""), "negative_binomial1", {}, {}),
    "epil_nb2": ("epil", EPIL.format(""), "negative_binomial", {}, {}),
    "women": ("women", "use ~ age + I(age^2) + urban + livch + (1 | district)", "bernoulli", {}, {}),
    "women_slopes": ("women", "use ~ age + I(age^2) + urban + livch + (urban | district)", "bernoulli", {}, {}),
    "women_cells": ("women", "use ~ age + urban + (0 + urban | district)", "bernoulli", {}, {"link": "cloglog"}),
    "women_poly": ("women", "use ~ poly(age, 3) * urban + livch + (1 | district)", "bernoulli", {}, {"link": "probit"}),
    "owls_zip": ("owls", OWLS.format("FoodTreatment * SexParent"), "zero_inflated_poisson", {}, {}),
    "owls_zinb": ("owls", OWLS.format("FoodTreatment + ArrivalTime"), "zero_inflated_negative_binomial", {"zi": "~ FoodTreatment"}, {}),
    "owls_nb1": ("owls", OWLS.format("FoodTreatment + SexParent"), "negative_binomial1", {}, {}),
    "seeds": ("seeds", SEEDS + "(1 | gen)", "poisson", {}, {}),
    "seeds_nb2": ("seeds", SEEDS + "(nutrient | gen)", "negative_binomial", {}, {}),
    "gopher": ("gopher", GOPHER, "poisson", {}, {}),
    "gopher_agq25": ("gopher", GOPHER, "poisson", {}, {"n_agq": 25}),
    "nested": ("sim", "cbind(k, n - k) ~ x + f + (1 | a/b)", "binomial", {}, {}),
    "crossed_sum": ("sim", "yb ~ x * f + (1 | a) + (1 | item)", "bernoulli", {}, {"contrasts": {"f": "contr.sum"}}),
    "crossed_helmert": ("sim", "yb ~ x + f + (1 | a) + (1 | item)", "bernoulli", {}, {"contrasts": {"f": "helmert"}}),
    "proportion": ("sim", "prop ~ x + f + (1 | a)", "binomial", {}, {"weights": "n"}),
    "proportion_agq10": ("sim", "k/n ~ x + f + (1 | a)", "binomial", {}, {"weights": "n", "n_agq": 10}),
    "correlated": ("sim", "cbind(k, n - k) ~ x + (x | a:b)", "binomial", {}, {}),
    "uncorrelated": ("sim", "yp ~ x + f + (x || a:b)", "poisson", {}, {}),
    "observation": ("sim", "yo ~ x + (1 | a/b) + (1 | row)", "poisson", {}, {"offset": "log_exposure"}),
    "loglink": ("sim", "cbind(klog, n - klog) ~ x + (1 | a:b)", "binomial", {}, {"link": "log"}),
    "splines": ("sim", "yp ~ ns(x, 3) + f + (1 | a)", "poisson", {}, {}),
    "missing": ("sim", "yp ~ xna + f + (1 | a)", "poisson", {}, {}),
    "unused": ("sim", "yp ~ x + f4 + (1 | a)", "poisson", {}, {}),
    "scaled": ("sim", "yb ~ big + (1 | a)", "bernoulli", {}, {}),
    "rare": ("sim", "rare ~ x + (1 | a)", "bernoulli", {}, {}),
    "rare_agq25": ("sim", "rare ~ x + twice + (1 | a)", "bernoulli", {}, {"n_agq": 25}),
    "nb2_dispersion": ("sim", "ynb ~ x + (1 | a)", "negative_binomial", {"shape": "~ z + f"}, {}),
    "nb1_dispersion": ("sim", "ynb ~ x + (1 | a/b)", "negative_binomial1", {"phi": "~ z"}, {}),
    "betabinomial": ("sim", "cbind(kbb, n - kbb) ~ x + (x | a)", "beta_binomial", {}, {}),
    "betabinomial_weights": ("sim", "cbind(kbb, n - kbb) ~ x + (1 | a)", "beta_binomial", {"phi": "~ z"}, {}),
    "beta": ("sim", "ybe ~ x + f + (1 | a) + (1 | item)", "beta", {}, {}),
    "beta_dispersion": ("sim", "ybe ~ x + (1 | a)", "beta", {"phi": "~ z + x"}, {"link": "cloglog"}),
    "gamma_log": ("sim", "yg ~ x + f + (1 | a/b)", "gamma", {}, {"link": "log"}),
    "gamma_inverse": ("sim", "yinv ~ x + (1 | a)", "gamma", {}, {"link": "inverse"}),
    "gamma_weights": ("sim", "yg ~ x + (1 | a)", "gamma", {}, {"link": "log", "weights": "w"}),
    "zip_formula": ("sim", "yzi ~ x + (1 | a)", "zero_inflated_poisson", {"zi": "~ z + (1 | a)"}, {}),
    "zinb": ("sim", "yzi ~ x + (1 | a)", "zero_inflated_negative_binomial", {"zi": "~ z"}, {}),
    "hurdle_nb2": ("sim", "yhu ~ x + (1 | a)", "hurdle_negative_binomial", {"hu": "~ z"}, {}),
    "hurdle_random": ("sim", "yhu ~ x + (1 | a)", "hurdle_poisson", {"hu": "~ z + (1 | item)"}, {}),
    "truncated_poisson": ("positive", "yhu ~ x + (1 | a)", "truncated_poisson", {}, {}),
    "truncated_nb2": ("positive", "yhu ~ x + f + (1 | a)", "truncated_negative_binomial", {}, {}),
    "lognormal": ("sim", "yln ~ x + f + (1 | a/b)", "lognormal", {}, {}),
    "gaussian_log": ("sim", "yln ~ x + (1 | a)", "gaussian", {}, {"link": "log"}),
    "flat": ("sim", "cbind(flat, n - flat) ~ x + (1 | item)", "binomial", {}, {}),
    "poisson_weights": ("sim", "yp ~ x + (x | a)", "poisson", {}, {"weights": "w"}),
}
UNITS = {"scaled": np.array([1.0, 1e6])}
"""What coefficients are multiplied by to be R's, which had the predictor in other units."""
LOG_VARIANCE = ("lognormal", "gaussian_log")
"""glmmTMB 1.1.5 has the dispersion of normal responses as log(sigma^2)."""
QUADRATURE = [name for name in CASES if "nAGQ" in FITS[name]]
LAPLACE = [name for name in CASES if name not in QUADRATURE]
NO_SE = [name for name in LAPLACE if None in np.ravel(FITS[name]["se"]["beta"]).tolist() or "NaN" in np.ravel(FITS[name]["se"]["beta"])]


@cache
def data(name: str) -> pd.DataFrame:
    if name == "positive":
        return data("sim").query("yhu > 0")
    table = pd.read_csv(_HERE / "data" / f"{name}.csv")
    for column, levels in STORED["levels"][name].items():
        if column in table:
            table[column] = pd.Categorical(table[column].astype(str), categories=levels)
    if name == "sim":
        table = table.assign(big=1e6 * table["x"], twice=2.0 * table["x"], row=pd.Categorical(np.arange(1, len(table) + 1)))
        f4 = table["f"].cat.set_categories(["low", "mid", "none", "high"])
        table = table.assign(log_exposure=np.log(table["exposure"]), f4=f4)
    if name == "seeds":
        table = table.assign(**{column: pd.Categorical(table[column]) for column in ("nutrient", "rack", "gen")})
    return table


@cache
def fitted(case: str) -> ClassicalFit:
    source, formula, family, predictors, options = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        return bl.glmer(bl.formula(formula, **predictors), data(source), family, **options)


def test_every_case_is_stored() -> None:
    assert set(CASES) == set(FITS)


@pytest.mark.parametrize("case", LAPLACE)
def test_optimum(case: str) -> None:
    stored, fit = FITS[case], fitted(case)
    assert fit.converged
    assert fit.criterion <= -2.0 * stored["logLik"] + 1e-6
    if stored["max_abs_grad"] < 1e-6:
        assert fit.criterion >= -2.0 * stored["logLik"] - 1e-6
    assert fit.nobs == stored["nobs"]
    assert fit.n_parameters == sum(len(np.ravel(values)) for values in stored["par"].values())


def _same(beta: np.ndarray, errors: np.ndarray, stored: dict, part: str, share: float = 1.0) -> None:
    reference, se = (share * np.ravel(stored[what][part]).astype(float) for what in ("par", "se"))
    assert np.max(np.abs(beta - reference) / se) < 1e-3
    assert np.max(np.abs(errors / se - 1.0)) < 1e-3


@pytest.mark.parametrize("case", [name for name in LAPLACE if name not in NO_SE])
def test_coefficients(case: str) -> None:
    stored, fit = FITS[case], fitted(case)
    _same(fit.beta * UNITS.get(case, 1.0), fit.standard_errors * UNITS.get(case, 1.0), stored, "beta")
    if case not in UNITS:
        assert list(fit.fixef().index) == stored["names"]["cond"]
    zeros = [part for name, part in fit.further.items() if name in ("zi", "hu")]
    others = [part for name, part in fit.further.items() if name not in ("zi", "hu")]
    for part in zeros:
        _same(part.beta, part.standard_errors, stored, "betazi")
    for part in others:
        _same(part.beta, part.standard_errors, stored, "betad", 0.5 if case in LOG_VARIANCE else 1.0)


@pytest.mark.parametrize("case", LAPLACE)
def test_variances_and_effects(case: str) -> None:
    stored, fit = FITS[case], fitted(case)
    ours, near = fit.varcorr(), 1e-3 if fit.is_singular else 2e-5
    parts = {"sd": ours["term2"].isna(), "cor": ours["term2"].notna()}
    for kind, rows in parts.items():
        found = ours[rows & (ours["group"] != "Residual")]
        for group, values in stored[kind].items():
            if values and group != "Residual" and not (case == "uncorrelated" and kind == "cor"):
                own = found[found["group"].str.replace(r"\.1$", "", regex=True) == group]["sdcor"]
                np.testing.assert_allclose(own, np.ravel(values), atol=near, err_msg=f"{kind} {group}")
    effects = fit.ranef()
    for group, table in stored["ranef"].items():
        np.testing.assert_allclose(effects[group].loc[table["levels"]], table["values"], atol=2e-5, err_msg=group)
    if case != "lognormal":
        np.testing.assert_allclose(fit.fitted()[:12], stored["fitted"], rtol=2e-5)


@pytest.mark.parametrize("case", QUADRATURE)
def test_quadrature(case: str) -> None:
    stored, fit = FITS[case], fitted(case)
    assert fit.converged
    assert fit.criterion <= stored["deviance"] + 1e-6
    assert fit.criterion >= stored["deviance"] - 1e-4
    assert list(fit.fixef().index) == stored["names"]
    assert np.max(np.abs(fit.beta - stored["beta"]) / stored["se"]) < 1e-3
    assert np.max(np.abs(fit.standard_errors / stored["se"] - 1.0)) < 1e-3
    np.testing.assert_allclose(fit.theta, stored["theta"], atol=1e-4)


@pytest.mark.parametrize(("case", "within"), [("bacteria_probit_agq50", 1e-8), ("gopher_agq25", 1e-8), ("rare_agq25", 1e-6)])
def test_quadrature_is_the_integral(case: str, within: float) -> None:
    """At the estimates, against plain Gauss-Hermite quadrature with so many nodes that none need be adapted."""
    fit = fitted(case)
    nodes, weights = hermegauss(250)
    fixed = fit.model.design.X @ fit.beta + fit.model.design.offset
    block, total = fit.model.design.blocks[0], 0.0
    for level in range(block.n_levels):
        rows = block.index == level
        eta = fixed[rows, None] + fit.theta[0] * nodes
        log = fit.model.family.loglik(fit.model.design.y[rows, None], fit.model.link.inverse(eta), {}, None).sum(axis=0)
        total += np.log(np.sum(weights / np.sqrt(2.0 * np.pi) * np.exp(log - log.max()))) + log.max()
    assert fit.criterion == pytest.approx(-2.0 * total, abs=within)


# Verbs -----------------------------------------------------------------------------------------------------------------

SEARCHED = {"rtol": 2e-4, "atol": 1e-7}
"""glmer's standard errors are by finite differences of the deviance."""


def test_likelihood_ratio() -> None:
    smaller = bl.glmer("cbind(k, n - k) ~ x + (1 | a/b)", data("sim"), "binomial")
    ours = bl.anova(smaller, fitted("nested"))
    assert ours["chisq"].iloc[1] == pytest.approx(VERBS["lrt"][5][1], rel=1e-6)
    assert ours["p_value"].iloc[1] == pytest.approx(VERBS["lrt"][7][1], rel=1e-6)


@pytest.mark.parametrize(("case", "kind"), [("nested", 2), ("crossed_sum", 3)])
def test_wald_tests_of_terms_are_car_s(case: str, kind: int) -> None:
    """With no limit to the denominator's degrees of freedom, F times its numerator's is car's chi-square.

    Type II of a model with a covariate in an interaction is lmerTest's, not car's, which leaves that interaction out for its factors.
    """
    ours, skipped = bl.anova(fitted(case), type=kind), int(kind == 3)
    chisq, df, p_value = (np.array(values)[skipped:] for values in VERBS[f"type{kind}"])
    np.testing.assert_allclose(ours["f_value"] * ours["num_df"], chisq, **SEARCHED)
    np.testing.assert_array_equal(ours["num_df"], df)
    np.testing.assert_allclose(ours["p_value"], p_value, rtol=1e-3)


def test_ranova_leaves_terms_out() -> None:
    ours = bl.ranova(fitted("nested"))
    assert list(ours.index) == ["<none>", "(1 | b:a)", "(1 | a)"]
    np.testing.assert_allclose(ours["lrt"].iloc[1:], VERBS["without"], rtol=1e-6)


def _means(ours: pd.DataFrame, stored: list, columns: list[str]) -> None:
    for column, values in zip(columns, stored, strict=True):
        if column:
            np.testing.assert_allclose(ours[column], np.array(values, dtype=float), **SEARCHED, err_msg=column)


def test_marginal_means_and_odds_ratios() -> None:
    fit, numbers = fitted("nested"), ["estimate", "se", "", "lower", "upper"]
    _means(bl.emmeans(fit, "f"), VERBS["means"], numbers)
    _means(bl.emmeans(fit, "f", scale="response"), VERBS["means_response"], numbers)
    pairs = bl.emmeans(fit, "f", contrast="pairwise", scale="response")
    assert pairs["contrast"].tolist() == ["low / mid", "low / high", "mid / high"]
    _means(pairs, VERBS["odds_limits"], numbers)
    np.testing.assert_allclose(pairs["p_value"], VERBS["odds"][-1], rtol=2e-3)


def test_marginal_means_with_an_offset() -> None:
    fit = bl.glmer("yo ~ x + f + offset(log(exposure)) + (1 | a)", data("sim"), "poisson")
    _means(bl.emmeans(fit, "f", scale="response"), VERBS["exposed"], ["estimate", "se", "", "lower", "upper"])


@pytest.mark.parametrize(("case", "name"), [("nested", "nested"), ("correlated", "slopes")])
def test_shares_of_variance_are_performance_s(case: str, name: str) -> None:
    ours = [*bl.r2(fitted(case))["estimate"].loc[["marginal", "conditional"]], *bl.icc(fitted(case))["estimate"].iloc[:2]]
    np.testing.assert_allclose(ours, VERBS["shares"][name], rtol=1e-4)


def test_rows_and_numbers() -> None:
    fit = fitted("correlated")
    for kind, values in VERBS["residuals"].items():
        np.testing.assert_allclose(fit.residuals(kind)[:12], values, atol=1e-6, err_msg=kind)
    np.testing.assert_allclose(fit.predict(scale="link")["estimate"][:12], VERBS["link"], atol=1e-6)
    np.testing.assert_allclose(fit.predict(target="average_group")["estimate"][:12], VERBS["average"], atol=1e-6)
    assert (fit.aic, fit.bic) == pytest.approx((VERBS["aic"], VERBS["bic"]), abs=1e-5)
    assert fit.df_residual == VERBS["df_residual"]


def test_a_table_of_coefficients_has_p_values() -> None:
    fit = fitted("correlated")
    tidy = fit.tidy("fixed").set_index("term")
    np.testing.assert_allclose(tidy["p_value"], fit.coefficients()["p_value"], rtol=1e-12)


def test_a_proportion_of_trials_is_its_counts() -> None:
    proportion, counts = fitted("proportion"), bl.glmer("cbind(k, n - k) ~ x + f + (1 | a)", data("sim"), "binomial")
    assert proportion.criterion == pytest.approx(counts.criterion, abs=1e-9)
    np.testing.assert_array_equal(proportion.model.design.trials, data("sim")["n"])
    newdata = data("sim")[["x", "f", "a", "n"]].head(3)
    intervals = proportion.predict(newdata, interval="prediction", seed=1)
    pd.testing.assert_frame_equal(intervals, counts.predict(newdata.assign(k=0), interval="prediction", seed=1), rtol=1e-5)


def test_a_wrong_number_of_trials_is_refused() -> None:
    with pytest.raises(bl.DataError, match="`weights=` names its trials"):
        bl.glmer("prop ~ x + (1 | a)", data("sim"), "binomial", weights="w")


def test_a_link_that_leaves_the_range_starts_inside_it() -> None:
    """Rows' own starts, 1 / y^2, are so far apart that the line through them turns negative; their mean is not."""
    fit = bl.glmer("yg ~ x + (1 | a)", data("sim"), "inverse_gaussian")
    assert fit.converged
    assert np.all(fit.fitted() > 0.0)


@pytest.mark.parametrize(("name", "here"), [("nbinom2", "negative_binomial"), ("betabinomial", "beta_binomial")])
def test_names_of_families_elsewhere(name: str, here: str) -> None:
    with pytest.raises(bl.FitError, match=f"'{here}'"):
        bl.glmer("yp ~ x + (1 | a)", data("sim"), name)
