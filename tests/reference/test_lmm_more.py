"""Linear mixed models on nlme's, MASS's and simulated data against lme4, lmerTest, pbkrtest, emmeans, performance, nlme and glmmTMB."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.errors import BayesLmmWarning

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLmmWarning")]

_HERE = Path(__file__).parent
STORED = json.loads((_HERE / "lmm_more.json").read_text(encoding="utf8"))
STRUCTURES = json.loads((_HERE / "lmm_more_structures.json").read_text(encoding="utf8"))
CASES: dict[str, dict[str, Any]] = STORED["cases"]
BLOCKS = [(case, block) for case in CASES for block in ("REML", "ML")]
TESTED = 1e-4
"""Relative. lmerTest differentiates numerically; Kenward-Roger's numbers are limited by the fits."""
FITTED = 1e-5
"""Relative, of estimates: R's search ends where the criterion no longer moves, which leaves theta half of its digits."""

every_block = pytest.mark.parametrize(("case", "block"), BLOCKS)


def having(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("case", "block"), [(case, block) for case, block in BLOCKS if CASES[case][block].get(kind)])


def read(name: str) -> pd.DataFrame:
    frame = pd.read_csv(_HERE / "data" / f"{name}.csv", na_values=["NA"], keep_default_na=False)
    for column, described in STORED["data"][name].items():
        if described["type"] in ("factor", "ordered"):
            kind = pd.CategoricalDtype(described["levels"], ordered=described["type"] == "ordered")
            frame[column] = frame[column].map(label, na_action="ignore").astype(kind)
    return frame


def label(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)


@cache
def fitted(case: str, block: str) -> bl.ClassicalFit:
    stored = CASES[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        given = {name: stored[name] for name in ("weights", "offset", "contrasts")}
        return bl.lmer(stored["formula"], read(stored["dataset"]), reml=block == "REML", **given)


def close(ours: Any, theirs: Any, rtol: float, atol: float = 1e-9) -> None:
    expected = np.array([np.nan if value in (None, "NA") else value for value in np.ravel(np.array(theirs, dtype=object))], dtype=float)
    np.testing.assert_allclose(np.ravel(np.asarray(ours, dtype=float)), expected, rtol=rtol, atol=atol)


def same(table: pd.DataFrame, stored: dict[str, Any]) -> None:
    assert list(table.index) == stored["rows"]
    values = np.array(stored["values"], dtype=float)
    close(table.iloc[:, :-1], values[:, :-1], TESTED)
    close(table.iloc[:, -1], values[:, -1], 100 * TESTED, 1e-12)  # a p value deep in the tail moves by more than its statistic


@every_block
def test_estimates(case: str, block: str) -> None:
    fit, stored = fitted(case, block), CASES[case][block]
    assert list(fit.fixef().index) == stored["names"]
    close(fit.criterion, stored["criterion"], 1e-8)
    close([fit.loglik, fit.aic, fit.bic], [stored[name] for name in ("loglik", "aic", "bic")], 1e-8)
    assert (fit.n_parameters, fit.df_residual) == (stored["npar"], stored["df_residual"])
    close(fit.fixef(), stored["fixef"], FITTED, 1e-7)
    close(fit.vcov(), stored["vcov"], 1e-4, 1e-6 * np.max(np.abs(stored["vcov"])))
    close(fit.sigma, stored["sigma"], FITTED)
    close(fit.theta, stored["theta"], 1e-4, 1e-5)
    assert list(fit.varcorr()["group"]) == stored["varcorr"]["grp"]
    close(fit.varcorr()["sdcor"], stored["varcorr"]["sdcor"], 1e-4, 1e-5)


@having("hat")
def test_rows_and_levels(case: str, block: str) -> None:
    fit, stored = fitted(case, block), CASES[case][block]
    scale = float(np.std(stored["fitted"]))
    close(fit.fitted(), stored["fitted"], FITTED, 1e-6 * scale)
    close(fit.predict(target="average_group")["estimate"], stored["population"], FITTED, 1e-6 * scale)
    close(fit.residuals("pearson"), stored["pearson"], 1e-4, 1e-6 * scale)
    influence = bl.influence(fit)
    close(influence["leverage"], stored["hat"], 1e-4)
    close(influence["cooks_distance"], stored["cooks"], 1e-3, 1e-7)
    effects = fit.ranef(condsd=True)
    assert list(effects) == list(stored["ranef"])
    for group, expected in stored["ranef"].items():
        values, errors = effects[group]
        assert list(values.index) == expected["levels"]
        assert list(values.columns) == expected["columns"]
        close(values, expected["values"], 1e-4, 1e-6 * scale)
        close(errors, expected["sds"], 1e-4)


@having("predict")
def test_new_rows(case: str, block: str) -> None:
    fit, stored = fitted(case, block), CASES[case][block]["predict"]
    rows = pd.DataFrame(CASES[case]["new"])
    close(fit.predict(rows, new_levels="average")["estimate"], stored["conditional"], FITTED)
    close(fit.predict(rows, target="average_group")["estimate"], stored["average"], FITTED)


@every_block
def test_coefficients(case: str, block: str) -> None:
    fit, stored = fitted(case, block), CASES[case][block]
    same(fit.coefficients(), stored["satterthwaite"])
    if "kr" in stored:
        same(fit.coefficients(ddf="kenward-roger"), stored["kr"])


@pytest.mark.parametrize("type", [1, 2, 3])
@having("anova3")
def test_terms(case: str, block: str, type: int) -> None:
    fit, stored = fitted(case, block), CASES[case][block]
    same(bl.anova(fit, type=type), stored[f"anova{type}"])
    if f"kr_anova{type}" in stored:
        same(bl.anova(fit, type=type, ddf="kenward-roger"), stored[f"kr_anova{type}"])


@having("ranova")
def test_random_terms(case: str, block: str) -> None:
    table, stored = bl.ranova(fitted(case, block)), CASES[case][block]["ranova"]
    assert list(table.index) == stored["rows"]
    values = np.array(stored["values"], dtype=float)
    close(table["n_parameters"], values[:, 0], 0)
    close(table["loglik"], values[:, 1], 1e-7)
    close(table["lrt"], values[:, 3], TESTED, 1e-5)
    close(table["df"], values[:, 4], 0)
    close(table["p_value"], values[:, 5], 100 * TESTED, 1e-12)


@having("r2")
def test_shares_of_variance(case: str, block: str) -> None:
    fit, stored = fitted(case, block), CASES[case][block]
    close(bl.r2(fit)["estimate"].loc[["conditional", "marginal"]], stored["r2"], TESTED)
    close(bl.icc(fit)["estimate"].loc[["adjusted", "unadjusted"]], stored["icc"], TESTED)


@having("emmeans")
def test_marginal_means(case: str, block: str) -> None:
    names, _, by = (part.strip() for part in CASES[case]["emm"].removeprefix("~").partition("|"))
    specs = [name.strip() for name in names.split("+")]
    columns = {"estimate": "emmean", "se": "SE", "df": "df", "lower": "lower.CL", "upper": "upper.CL"}
    pairwise = {"estimate": "estimate", "se": "SE", "df": "df", "statistic": "t.ratio"}
    for ddf, stored in CASES[case][block]["emmeans"].items():
        means = bl.emmeans(fitted(case, block), specs, by=by or None, ddf=ddf)
        for ours, theirs in columns.items():
            close(means[ours], [row.get(theirs) for row in stored["means"]], TESTED, 1e-6)
        pairs = bl.emmeans(fitted(case, block), specs, by=by or None, ddf=ddf, contrast="pairwise")
        for ours, theirs in pairwise.items():
            close(pairs[ours], [row.get(theirs) for row in stored["pairs"]], TESTED, 1e-6)
        close(pairs["p_value"], [row.get("p.value") for row in stored["pairs"]], 1e-2, 1e-5)


@having("profile")
def test_profile_limits(case: str, block: str) -> None:
    stored = CASES[case][block]["profile"]
    table = bl.confint(fitted(case, block), method="profile")
    assert sorted(table.index) == sorted(stored["rows"])
    close(table.loc[stored["rows"]], stored["values"], 1e-3, 1e-4)


@pytest.mark.parametrize("chain", STORED["chains"], ids=lambda chain: chain["dataset"])
def test_likelihood_ratios(chain: dict[str, Any]) -> None:
    data = read(chain["dataset"])
    table = bl.anova(*(bl.lmer(formula, data) for formula in chain["formulas"]))
    close(table.iloc[:, :-1], np.array(chain["table"]["values"], dtype=object)[:, :-1], 1e-6, 1e-6)
    close(table.iloc[:, -1], np.array(chain["table"]["values"], dtype=object)[:, -1], 1e-4)


NLME = [(name, block) for name, stored in STRUCTURES["nlme"].items() for block in ("REML", "ML") if "error" not in stored[block]]


@pytest.mark.parametrize(("case", "block"), NLME)
def test_residual_structures_of_nlme(case: str, block: str) -> None:
    stored = STRUCTURES["nlme"][case]
    data = read(stored["dataset"]).dropna()
    if stored["dataset"] == "BodyWeight":
        data["week"] = data["Time"].rank(method="dense").astype(int)
    formula = bl.formula(stored["formula"], sigma=stored["sigma"]) if stored["sigma"] else stored["formula"]
    fit, expected = bl.lmer(formula, data, reml=block == "REML"), stored[block]
    close(fit.loglik, expected["loglik"], 1e-8)
    assert fit.n_parameters == expected["n_parameters"]
    close(fit.fixef(), expected["fixef"], 1e-4, 1e-5)
    gls = not fit.model.design.blocks and block == "ML"
    inflated = fit.nobs / (fit.nobs - len(fit.fixef())) if gls else 1.0  # gls by ML divides by n - p all the same
    close(fit.vcov() * inflated, expected["vcov"], 1e-3, 1e-4 * np.max(np.abs(expected["vcov"])))
    if "ar" in fit.further:
        close(fit.further["ar"].natural(), [expected["rho"]], 1e-3)


@pytest.mark.parametrize("case", STRUCTURES["tmb"])
def test_covariance_structures_of_glmmtmb(case: str) -> None:
    stored = STRUCTURES["tmb"][case]
    fit = bl.lmer(stored["formula"], read(stored["dataset"]).dropna(), reml=stored["reml"])
    close(fit.criterion, stored["criterion"], 1e-9)
    assert fit.n_parameters == stored["df"]
    close(fit.fixef(), stored["fixef"], 1e-5, 1e-5)
    close(fit.sigma, stored["sigma"], 1e-4)
    spreads = fit.varcorr()
    for group, expected in stored["sds"].items():
        own = spreads[(spreads["group"] == group) & spreads["term2"].isna()]
        close(own["sdcor"], expected, 1e-4)
