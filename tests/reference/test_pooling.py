"""Pooling against R: lm, glm, lmList and lme4's coef and condVar (pooling.R), and the numbers that the seed lecture prints."""

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
from tests.support import reference_dir

pytestmark = pytest.mark.reference

R: dict[str, Any] = json.loads((Path(__file__).parent / "pooling.json").read_text(encoding="utf8"))
EXACT = 1e-10
FITTED = 1e-6
"""Relative to the spread of the levels: theta of lme4 is good to about 1e-6 of its own."""

LECTURE = {
    "308": (244.1927, 21.764702),
    "309": (205.0549, 2.261785),
    "310": (203.4842, 6.114899),
    "330": (289.6851, 3.008073),
    "331": (285.7390, 5.266019),
    "332": (264.2516, 9.566768),
    "333": (275.0191, 9.142045),
    "334": (240.1629, 12.253141),
    "335": (263.0347, -2.881034),
    "337": (290.1041, 19.025974),
    "349": (215.1118, 13.493933),
    "350": (225.8346, 19.504017),
    "351": (261.1470, 6.433498),
    "352": (276.3721, 13.566549),
    "369": (254.9681, 11.348109),
    "370": (210.4491, 18.056151),
    "371": (253.6360, 9.188445),
    "372": (267.0448, 11.298073),
    "373": (245.0000, np.nan),
    "374": (286.0000, 2.000000),
}
"""The lecture's table of no pooling, but for the slope of 373, which has one row: the lecture fills it with 0."""
LECTURE_PARTIAL = {
    "(1 | subject)": {"308": (292.2749, 10.43191), "309": (174.0559, 10.43191), "373": (248.2086, 10.43191), "374": (273.9400, 10.43191)},
    "(0 + days | subject)": {
        "308": (252.2965, 19.9526801),
        "310": (252.2965, -0.9574726),
        "373": (252.2965, 10.4142695),
        "374": (252.2965, 11.9097917),
    },
    "(1 + days | subject)": {
        "308": (253.9479, 19.6264139),
        "335": (251.3700, -0.3355554),
        "373": (248.9752, 10.3915245),
        "374": (271.1451, 11.0782697),
    },
}
"""Rows of the lecture's three tables of coefficients; all rows are compared with R's."""


@cache
def pooled(formula: str, data: str, family: str = "gaussian", group: str | None = None) -> bl.Pooling:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        fit = bl.lmer if family == "gaussian" else bl.glmer
        options = {} if family == "gaussian" else {"family": family}
        return bl.pooling(fit(formula, bl.load_dataset(data), **options), group)


def shown(pooling: bl.Pooling, method: str, column: str = "estimate") -> pd.DataFrame:
    rows = pooling.table[pooling.table["method"] == method]
    return rows.pivot(index="level", columns="term", values=column)[list(pooling.terms)]


def stored(block: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(block["values"], index=block["rows"], columns=block["columns"], dtype=float)


def close(ours: Any, theirs: Any, tolerance: float) -> None:
    ours, theirs = np.asarray(ours, dtype=float), np.asarray(theirs, dtype=float)
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(theirs))
    assert np.nanmax(np.abs(ours - theirs)) <= tolerance * np.nanmax(np.abs(theirs)), np.nanmax(np.abs(ours - theirs))


FORMULA = "reaction ~ 1 + days + {}"
EACH = pytest.mark.parametrize("number", range(3), ids=[part["random"] for part in R["sleepstudy183"]["partial"]])


@EACH
def test_no_pooling_is_lm_by_subject_as_in_the_lecture(number):
    random = R["sleepstudy183"]["partial"][number]["random"]
    none = shown(pooled(FORMULA.format(random), "sleepstudy183"), "none")
    close(none, stored(R["sleepstudy183"]["none"]["coef"]).loc[none.index], EXACT)
    close(none, stored(R["sleepstudy183"]["lmlist"]).loc[none.index], EXACT)
    printed = np.array([LECTURE[level] for level in none.index])
    np.testing.assert_allclose(none["(Intercept)"], printed[:, 0], rtol=0.0, atol=0.6e-4)
    np.testing.assert_allclose(none["days"], printed[:, 1], rtol=0.0, atol=0.6e-6)


def test_intervals_of_no_pooling_are_those_of_lm():
    pooling = pooled(FORMULA.format("(1 + days | subject)"), "sleepstudy183")
    lower, upper = shown(pooling, "none", "lower"), shown(pooling, "none", "upper")
    for level, limits in R["sleepstudy183"]["none"]["confint"].items():
        limits = np.array(limits, dtype=float)
        close(np.column_stack([lower.loc[level], upper.loc[level]]), limits, EXACT) if np.isfinite(limits).any() else None
        assert np.isnan(lower.loc[level]).all() == (level in ("373", "374"))


def test_complete_pooling_is_lm_of_all_rows():
    pooling = pooled(FORMULA.format("(1 + days | subject)"), "sleepstudy183")
    complete = R["sleepstudy183"]["complete"]
    for level in ("308", "373"):
        close(shown(pooling, "complete").loc[level], complete["coef"], EXACT)
        close(shown(pooling, "complete", "lower").loc[level], np.array(complete["confint"])[:, 0], EXACT)
        close(shown(pooling, "complete", "upper").loc[level], np.array(complete["confint"])[:, 1], EXACT)


@EACH
def test_partial_pooling_is_coef_of_lmer_as_in_the_lecture(number):
    golden = R["sleepstudy183"]["partial"][number]
    partial = shown(pooled(FORMULA.format(golden["random"]), "sleepstudy183"), "partial_reml")
    close(partial, stored(golden["coef"]).loc[partial.index], FITTED)
    for level, (intercept, slope) in LECTURE_PARTIAL[golden["random"]].items():
        assert partial.at[level, "(Intercept)"] == pytest.approx(intercept, abs=6e-4)
        assert partial.at[level, "days"] == pytest.approx(slope, abs=3e-4)


@EACH
def test_pooling_factors_are_condvar_over_the_variance_between_subjects(number):
    golden = R["sleepstudy183"]["partial"][number]
    pooling = pooled(FORMULA.format(golden["random"]), "sleepstudy183")
    factor = shown(pooling, "partial_reml", "pooling_factor")
    sds = np.array(golden["sd"][: len(pooling.effects)])
    close(factor[list(pooling.effects)], stored(golden["condvar"]).loc[factor.index] / sds**2, 1e-4)
    assert (factor.drop(columns=list(pooling.effects)) == 1.0).all(axis=None)
    assert (shown(pooling, "none", "pooling_factor").drop("373") == 0.0).all(axis=None)
    assert (shown(pooling, "complete", "pooling_factor") == 1.0).all(axis=None)


def test_the_variance_shrinks_as_the_lecture_prints_it():
    sds = pooled("Reaction ~ Days + (Days | Subject)", "sleepstudy").sds.pivot(index="term", columns="method", values="sd")
    for method, ours in (("none", "none"), ("partial", "partial_reml")):
        close(sds[ours].loc[["(Intercept)", "Days"]], R["sleepstudy"]["sds"][method], FITTED)
    assert sds["none"].round(2).tolist() == [28.95, 6.56]
    assert np.abs(sds["partial_reml"] - [21.59, 5.46]).max() < 0.006
    assert (sds["complete"] == 0.0).all()


def test_counts_are_glm_by_brood_and_a_brood_without_ticks_is_undefined():
    golden, pooling = R["grouseticks"], pooled("TICKS ~ 1 + (1 | BROOD)", "grouseticks", "poisson")
    none = shown(pooling, "none")["(Intercept)"]
    close(none[golden["levels"]], golden["none"], 1e-8)
    half = (shown(pooling, "none", "upper") - shown(pooling, "none", "lower"))["(Intercept)"] / 2 / 1.959963984540054
    close(half[golden["levels"]], golden["se"], 1e-6)
    empty = sorted(set(golden["all_levels"]) - set(golden["levels"]))
    assert sorted(none.index[none.isna()]) == empty
    assert sorted(pooling.undefined["level"]) == empty
    assert pooling.undefined["reason"].str.contains("-inf").all()
    close(shown(pooling, "complete").iloc[0], [golden["complete"]["coef"]], 1e-8)
    partial = stored(golden["partial"])
    close(shown(pooling, "partial_reml").loc[partial.index], partial, 1e-4)
    factor = shown(pooling, "partial_reml", "pooling_factor").loc[partial.index]
    close(factor["(Intercept)"], stored(golden["condvar"])["(Intercept)"] / golden["sd"] ** 2, 1e-3)


def test_casks_count_their_batch_and_their_means_are_no_pooling():
    golden = R["pastes"]
    casks = pooled("strength ~ 1 + (1 | batch/cask)", "Pastes", group="cask:batch")
    close(shown(casks, "none").loc[golden["levels"], "(Intercept)"], golden["means"], EXACT)
    close(shown(casks, "partial_reml").loc[golden["levels"], "(Intercept)"], golden["partial"], FITTED)
    batches = pooled("strength ~ 1 + (1 | batch/cask)", "Pastes", group="batch")
    close(shown(batches, "none")["(Intercept)"], golden["batch_means"], EXACT)
    close(shown(batches, "partial_reml"), stored(golden["batches"]), FITTED)


SCHOOL = {"I": 46.44407, "II": 54.20862, "III": 58.29847, "IV": 62.15074, "V": 66.41348, "VI": 73.91156}
CROSSED = {"I": 46.10663, "II": 54.02956, "III": 58.22277, "IV": 62.15508, "V": 66.51062, "VI": 74.16838}


@pytest.mark.parametrize(
    ("random", "group", "printed"),
    [
        ("(1 | school/class)", "school", SCHOOL),
        ("(1 | school) + (1 | class)", "school", CROSSED),
        ("(1 | school) + (1 | class)", "class", {"a": 57.35175, "b": 59.39261, "c": 61.04758, "d": 63.00342}),
    ],
)
def test_schools_and_classes_are_those_of_the_lecture(random, group, printed):
    reference_dir()
    partial = shown(pooled(f"extro ~ open + agree + social + {random}", "school", group=group), "partial_reml")["(Intercept)"]
    assert partial.to_dict() == pytest.approx(printed, abs=2e-4)
