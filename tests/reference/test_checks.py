"""Overdispersion, zero inflation and collinearity against R's performance and car (checks.R)."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import bayeslmm as bl
from bayeslmm.checks import collinearity, overdispersion, zero_inflation

CASES = json.loads((Path(__file__).parent / "checks.json").read_text(encoding="utf8"))
COUNTS = [i for i, case in enumerate(CASES) if "overdispersion" in case]
ZEROS = [i for i in COUNTS if "zeros" in CASES[i] and CASES[i]["family"] != "negative_binomial1"]
"""(For `nbinom1` performance takes the probability of a zero from the other negative binomial distribution.)"""
COLLINEAR = [i for i, case in enumerate(CASES) if "collinearity" in case]


def name(i: int) -> str:
    return f"{CASES[i]['dataset']}, {CASES[i]['family']}: {CASES[i]['formula'].split('~')[1].strip()}"


@cache
def fitted(i: int) -> bl.ClassicalFit:
    case = CASES[i]
    data = bl.load_dataset(case["dataset"])
    if case["rows"]:
        data = data.query(case["rows"])
    data = data.assign(row=[str(n) for n in range(len(data))])
    if case["family"] == "gaussian":
        return bl.lmer(case["formula"], data)
    return bl.glmer(case["formula"], data, case["family"])


@pytest.mark.parametrize("i", COUNTS, ids=name)
def test_overdispersion_is_that_of_performance(i: int, reference_dir: Path) -> None:
    found, stored = overdispersion(fitted(i), n=20), CASES[i]["overdispersion"]
    assert found.df == stored["residual_df"]
    assert found.chisq == pytest.approx(stored["chisq_statistic"], rel=2e-4)
    assert found.pearson_ratio == pytest.approx(stored["dispersion_ratio"], rel=2e-4)
    assert found.pearson_p_value == pytest.approx(stored["p_value"], rel=0.1)


@pytest.mark.parametrize("i", ZEROS, ids=name)
def test_zeros_are_those_of_performance(i: int, reference_dir: Path) -> None:
    found, stored = zero_inflation(fitted(i), n=20), CASES[i]["zeros"]
    assert found.observed == stored["observed.zeros"]
    assert round(found.predicted) == stored["predicted.zeros"]


@pytest.mark.parametrize("i", COLLINEAR, ids=name)
def test_variance_inflation_is_that_of_performance_and_car(i: int, reference_dir: Path) -> None:
    table, case = collinearity(fitted(i)).table, CASES[i]
    rtol = 1e-5 if case["family"] == "gaussian" else 1e-3
    assert list(table.index) == case["collinearity"]["term"]
    np.testing.assert_allclose(table["vif"], case["collinearity"]["vif"], rtol=rtol)
    if "car" in case:
        np.testing.assert_allclose(table["vif"], case["car"]["gvif"], rtol=rtol)
    if "df" in case.get("car", {}):
        assert table["df"].tolist() == case["car"]["df"]
        np.testing.assert_allclose(table["se_factor"], case["car"]["factor"], rtol=rtol)
