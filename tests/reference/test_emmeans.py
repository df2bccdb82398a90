"""Marginal means and contrasts against R's emmeans: the stored cake results, and the cases of emmeans.R."""

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
from bayeslmm.datasets import load_dataset
from bayeslmm.effects.adjust import TestFamily, adjusted
from bayeslmm.errors import BayesLmmWarning
from tests.support import reference_case, reference_dir

pytestmark = pytest.mark.reference

STORED = json.loads((Path(__file__).parent / "emmeans.json").read_text(encoding="utf8"))
QUESTIONS = [(i, j) for i, case in enumerate(STORED["cases"]) for j in range(len(case["questions"]))]
NUMBERS = ["estimate", "se", "df", "lower", "upper", "statistic", "p_value"]
RANDOM = {"consec": 2e-3}
"""Absolute. emmeans integrates the multivariate t distribution by Monte Carlo, to 0.001, and at whole degrees of freedom."""
ROUGH = {"trt.vs.ctrl": 1e-3, "trt.vs.ctrlk": 1e-3, "consec": 1e-2}
"""Absolute, of a critical value: emmeans looks for that of `dunnettx` to 0.0005, and for that of `mvt` among random numbers."""


@cache
def fitted(number: int) -> bl.ClassicalFit:
    reference_dir()
    case = STORED["cases"][number]
    data = load_dataset(case["dataset"])
    data = data.drop(index=data.index[case["drop"]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        return bl.lmer(case["formula"], data, reml=case["reml"], weights=case["weights"], contrasts=case["contrasts"] or None)


def asked(fit: bl.ClassicalFit, question: dict[str, Any]) -> pd.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        return bl.emmeans(
            fit,
            question["specs"],
            question["by"],
            question["contrast"],
            question["adjust"],
            at=question["at"],
            ddf=question["ddf"],
        )


def numbers(rows: list[list[Any]]) -> np.ndarray:
    """Return the stored numbers; degrees of freedom that JSON cannot write are infinite where there is an estimate."""
    values = np.array(rows, dtype=float)
    values[np.isnan(values[:, 2]) & np.isfinite(values[:, 0]), 2] = np.inf
    return values


def same_label(ours: Any, theirs: str) -> bool:
    return float(ours) == float(theirs) if isinstance(ours, float) else str(ours).upper() == theirs.upper()


@pytest.mark.parametrize(("number", "position"), QUESTIONS)
def test_as_emmeans(number: int, position: int) -> None:
    fit, question = fitted(number), STORED["cases"][number]["questions"][position]
    table, stored = asked(fit, question), numbers(question["values"])
    assert [name for name in table.columns if name not in NUMBERS] == question["names"]
    for name, labels in zip(question["names"], question["labels"], strict=True):
        assert all(same_label(ours, theirs) for ours, theirs in zip(table[name], labels, strict=True)), list(table[name])
    method = question["contrast"] if isinstance(question["contrast"], str) and question["adjust"] is None else None
    np.testing.assert_allclose(table[["estimate", "se"]], stored[:, :2], rtol=1e-5, atol=1e-7)
    if not fit.reml and question["ddf"] == "kenward-roger":
        return  # emmeans mixes the ML fit's covariance into the degrees of freedom of the REML fit
    np.testing.assert_allclose(table["df"], stored[:, 2], rtol=1e-5)
    rough = ROUGH.get(str(method), 0.0) * stored[:, 1:2]
    intervals = table[["lower", "upper"]].to_numpy()
    near = np.isclose(intervals, stored[:, 3:5], rtol=1e-4, atol=1e-6, equal_nan=True)
    assert np.all(near | (np.abs(intervals - stored[:, 3:5]) < rough))
    if question["contrast"] is not None:
        np.testing.assert_allclose(table["statistic"], stored[:, 5], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(table["p_value"], stored[:, 6], rtol=1e-4, atol=RANDOM.get(str(method), 1e-9))


@pytest.mark.parametrize("stored", STORED["mvt"], ids=lambda case: f"{case['correlation']}-{case['df']}-{case['x']}")
def test_multivariate_t(stored: dict[str, Any]) -> None:
    chain = np.eye(5) - 0.5 * np.eye(5, k=1) - 0.5 * np.eye(5, k=-1)
    correlation = chain if stored["correlation"] == "chain" else 0.5 * np.eye(4) + 0.5
    n = len(correlation)
    df = float(stored["df"]) or np.inf
    family = TestFamily(np.full(n, stored["x"]), np.full(n, df), correlation, n + 1, False)
    p_values, critical, _ = adjusted(family, "mvt", 0.95)
    np.testing.assert_allclose(p_values, stored["p"], atol=1e-4, rtol=1e-3)
    at_critical = adjusted(TestFamily(critical, np.full(n, df), correlation, n + 1, False), "mvt", 0.95)[0]
    np.testing.assert_allclose(at_critical, 0.05, atol=1e-6)


FIT = "angle ~ recipe * temperature + (1 | recipe:replicate)"
FIT2 = "angle ~ recipe + temp + (1 | recipe:replicate)"
CAKE: dict[str, tuple[str, dict[str, Any]]] = {
    "recipe": (FIT, {"specs": "recipe"}),
    "recipe_pairs_tukey": (FIT, {"specs": "recipe", "contrast": "pairwise"}),
    "recipe_pairs_none": (FIT, {"specs": "pairwise ~ recipe", "adjust": "none"}),
    "recipe_pairs_bonf": (FIT, {"specs": "recipe", "contrast": "pairwise", "adjust": "bonferroni"}),
    "recipe_pairs_holm": (FIT, {"specs": "recipe", "contrast": "pairwise", "adjust": "holm"}),
    "recipe_trt_vs_ctrl": (FIT, {"specs": ["recipe"], "contrast": "trt.vs.ctrl"}),
    "temperature": (FIT, {"specs": "~ temperature"}),
    "temperature_poly": (FIT, {"specs": "temperature", "contrast": "poly"}),
    "temperature_consec": (FIT, {"specs": "temperature", "contrast": "consec"}),
    "recipe_by_temperature": (FIT, {"specs": "~ recipe | temperature"}),
    "pairs_recipe_by_temperature": (FIT, {"specs": "pairwise ~ recipe | temperature"}),
    "recipe_at_temp200": (FIT2, {"specs": "recipe", "at": {"temp": 200}}),
}


@cache
def cake(formula: str) -> bl.ClassicalFit:
    reference_dir()
    return bl.lmer(formula, load_dataset("cake"))


@pytest.mark.parametrize("ddf", ["kenward-roger", "satterthwaite", "asymptotic"])
@pytest.mark.parametrize("name", CAKE)
def test_stored_cake(name: str, ddf: str) -> None:
    stored = reference_case("emmeans_cake")[ddf][name]
    formula, question = CAKE[name]
    table = bl.emmeans(cake(formula), ddf=ddf, **question)
    columns = {"emmean": "estimate", "SE": "se", "asymp.LCL": "lower", "asymp.UCL": "upper"}
    columns |= {"lower.CL": "lower", "upper.CL": "upper", "t.ratio": "statistic", "z.ratio": "statistic", "p.value": "p_value"}
    for position, column in enumerate(stored["columns"]):
        theirs = [row[position] for row in stored["values"]]
        ours = table[columns.get(column, column)]
        if isinstance(theirs[0], str) and column != "df":
            assert ours.astype(str).tolist() == theirs
        elif column == "df" and ddf == "asymptotic":
            assert np.isinf(ours).all()
        else:
            random = 2e-3 if column == "p.value" and name == "temperature_consec" else 1e-9
            np.testing.assert_allclose(ours, np.array(theirs, dtype=float), rtol=1e-5, atol=random)
