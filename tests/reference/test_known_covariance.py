"""Random effects with a known covariance among levels against lme4's modular functions and pbkrtest (known_covariance.R)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl

STORED = json.loads((Path(__file__).parent / "known_covariance.json").read_text(encoding="utf8"))
DATA = {name: pd.DataFrame(columns) for name, columns in STORED["data"].items()}
MATRICES = {name: pd.DataFrame(item["values"], item["labels"], item["labels"]) for name, item in STORED["matrices"].items()}
CASES = STORED["cases"]
IDS = [f"{case['formula'].split('~')[1].strip()} {'REML' if case['reml'] else 'ML'}" for case in CASES]


def fitted(case: dict[str, Any]) -> bl.ClassicalFit:
    return bl.lmer(case["formula"], DATA[case["data"]], reml=case["reml"], data2={case["matrix"]: MATRICES[case["matrix"]]})


def test_there_are_levels_without_records_and_crossed_factors() -> None:
    assert not set(MATRICES["A"].columns) <= set(DATA["animals"]["animal"])
    assert any(len(case["b"]) == 2 for case in CASES)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_estimates_are_those_of_lme4(case: dict[str, Any]) -> None:
    fit = fitted(case)
    assert fit.criterion == pytest.approx(case["criterion"], rel=1e-9)
    np.testing.assert_allclose(fit.theta, case["theta"], atol=1e-5)
    assert fit.sigma == pytest.approx(case["sigma"], rel=1e-6)
    np.testing.assert_allclose(fit.fixef(), [case["fixef"][name] for name in fit.fixef().index], rtol=1e-6)
    np.testing.assert_allclose(fit.standard_errors, case["se"], rtol=1e-6)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_random_effects_are_those_of_lme4(case: dict[str, Any]) -> None:
    ranef = fitted(case).ranef()
    for group, values in case["b"].items():
        levels = list(dict.fromkeys(case["levels"][group]))
        theirs = np.array(values).reshape(len(levels), -1)
        np.testing.assert_allclose(ranef[group].loc[levels].to_numpy(), theirs, atol=1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if case["reml"]], ids=[i for i, c in zip(IDS, CASES, strict=True) if c["reml"]])
def test_kenward_roger_is_that_of_pbkrtest(case: dict[str, Any]) -> None:
    table = fitted(case).coefficients("kenward-roger")
    np.testing.assert_allclose(table["se"], case["kr_se"], rtol=2e-6)
    np.testing.assert_allclose(table["df"], case["kr_df"], rtol=2e-5)
