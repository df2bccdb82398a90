"""Predictions, comparisons and slopes against Python's marginaleffects on models by statsmodels, and averages against R's emmeans."""

from __future__ import annotations

import json
import re
import warnings
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.classical.fit import ClassicalFit
from bayeslmm.errors import BayesLmmWarning
from tests.support import reference_dir

pytestmark = pytest.mark.reference

STORED = json.loads((Path(__file__).parent / "marginaleffects.json").read_text(encoding="utf8"))
FAMILIES = {"poisson": "poisson", "logit": "bernoulli"}
VERBS = {"predictions": bl.predictions, "comparisons": bl.comparisons, "slopes": bl.slopes}
DERIVED = {"predictions": 1e-5, "comparisons": 1e-5, "slopes": 1e-3}
"""Relative, of standard errors: marginaleffects differentiates by the coefficients by finite differences, slopes twice over."""


def renamed(name: str) -> str:
    """Return patsy's name of a coefficient as R's."""
    return re.sub(r"\[T\.(\w+)\]", r"\1", name).replace("Intercept", "(Intercept)")


@cache
def fitted(name: str) -> ClassicalFit:
    """Return the linear model fitted here, the others at the stored estimates."""
    stored, data = STORED["models"][name], pd.DataFrame(STORED["data"])
    if name == "ols":
        return bl.lmer(stored["formula"], data)
    model = bl.model(stored["formula"], data, FAMILIES[name])
    order = [[renamed(one) for one in stored["names"]].index(one) for one in model.design.fixed_names]
    return ClassicalFit(
        model=model,
        method="Laplace",
        theta=np.zeros(0),
        criterion=0.0,
        sigma=1.0,
        beta=np.array(stored["beta"])[order],
        unscaled_vcov=np.array(stored["vcov"])[np.ix_(order, order)],
        effects=(),
        unscaled_condvar=MappingProxyType({}),
        ld_l2=0.0,
        ld_rx2=0.0,
        pwrss=0.0,
        search=None,
    )


def sorted_labels(frame: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
    """Return labels as text in one order, and that order."""
    text = frame.apply(lambda column: column.astype(object).map(lambda value: re.sub(r"\.0(?!\d)", "", str(value))))
    order = text.sort_values(list(text.columns), kind="stable").index.to_numpy() if len(text.columns) else np.arange(len(text))
    return text.loc[order].reset_index(drop=True), order


@pytest.mark.parametrize("number", range(len(STORED["answers"])))
def test_as_marginaleffects(number: int) -> None:
    case = STORED["answers"][number]
    question = dict(case["question"])
    found = VERBS[case["verb"]](fitted(case["model"]), **question)
    reduced = isinstance(question.get("hypothesis"), str)
    names = ["hypothesis"] if reduced else [name for name in case["labels"] if name != "rowid" or "newdata" not in question]
    theirs = pd.DataFrame(case["labels"], index=range(len(case["values"])))
    if "rowid" in theirs:
        theirs["rowid"] %= len(STORED["data"]["x"])  # they number the repeated rows on
    labels, ours = sorted_labels(found[names])
    expected, order = sorted_labels(theirs[["term"] if reduced else names])
    assert labels.to_numpy().tolist() == expected.to_numpy().tolist()
    values = np.array(case["values"])[order]
    table, rough = found.loc[ours].reset_index(drop=True), DERIVED[case["verb"]]
    np.testing.assert_allclose(table["estimate"], values[:, 0], rtol=5e-6, atol=1e-9)
    np.testing.assert_allclose(table["se"], values[:, 1], rtol=rough, atol=1e-9)
    through_link = case["verb"] == "predictions" and case["model"] != "ols" and not reduced
    if not through_link:
        np.testing.assert_allclose(table["statistic"], values[:, 2], rtol=2 * rough, atol=1e-6)
    if case["model"] == "ols":
        np.testing.assert_allclose(table[["lower", "upper"]], values[:, 3:], rtol=10 * rough, atol=rough)


def test_slope_in_the_reference_level_is_the_coefficient_with_its_own_error() -> None:
    fit, stored = fitted("ols"), STORED["models"]["ols"]
    row = bl.slopes(fit, "x", by="f").set_index("f").loc["a"]
    place = stored["names"].index("x")
    assert row["estimate"] == pytest.approx(stored["beta"][place], rel=1e-8)
    assert row["se"] == pytest.approx(np.sqrt(stored["vcov"][place][place]), rel=1e-7)


# Linear mixed models, against emmeans ----------------------------------------------------------------------------------


MARGINAL = json.loads((Path(__file__).parent / "emmeans.json").read_text(encoding="utf8"))["cases"]
MEANS = [(i, j) for i, case in enumerate(MARGINAL) for j, one in enumerate(case["questions"]) if one["contrast"] is None]
PAIRS = [
    (i, j)
    for i, case in enumerate(MARGINAL)
    for j, one in enumerate(case["questions"])
    if one["contrast"] in ("pairwise", "revpairwise") and len(one["specs"]) == 1 and one["specs"][0] not in (one["at"] or {})
]


@cache
def mixed(number: int) -> ClassicalFit:
    reference_dir()
    case = MARGINAL[number]
    data = bl.load_dataset(case["dataset"])
    data = data.drop(index=data.index[case["drop"]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        return bl.lmer(case["formula"], data, reml=case["reml"], weights=case["weights"], contrasts=case["contrasts"] or None)


def stored_numbers(question: dict[str, Any]) -> np.ndarray:
    """Return `estimate, se, df`; degrees of freedom that JSON cannot write are infinite where there is an estimate."""
    values = np.array(question["values"], dtype=float)[:, :3]
    values[np.isnan(values[:, 2]) & np.isfinite(values[:, 0]), 2] = np.inf
    return values


def listed(names: str | list[str] | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or [])


def compared(number: int, ours: pd.DataFrame, labels: list[str], question: dict[str, Any]) -> None:
    """Compare tables whose rows have other orders."""
    theirs = pd.DataFrame(dict(zip(question["names"], question["labels"], strict=True)))[labels]
    mine, ours_order = sorted_labels(ours[labels])
    found, order = sorted_labels(theirs)
    assert mine.map(str.upper).to_numpy().tolist() == found.map(str.upper).to_numpy().tolist()
    values, table = stored_numbers(question)[order], ours.loc[ours_order]
    np.testing.assert_allclose(table[["estimate", "se"]], values[:, :2], rtol=1e-5, atol=1e-7)
    if mixed(number).reml or question["ddf"] != "kenward-roger":
        np.testing.assert_allclose(table["df"], values[:, 2], rtol=1e-5)


@pytest.mark.parametrize(("number", "position"), MEANS)
def test_averages_over_a_balanced_grid_are_marginal_means(number: int, position: int) -> None:
    question = MARGINAL[number]["questions"][position]
    names = listed(question["specs"]) + listed(question["by"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        ours = bl.predictions(mixed(number), "balanced", question["at"], by=names, ddf=question["ddf"])
    compared(number, ours, names, question)


@pytest.mark.parametrize(("number", "position"), PAIRS)
def test_comparisons_on_a_balanced_grid_are_contrasts_of_marginal_means(number: int, position: int) -> None:
    question = MARGINAL[number]["questions"][position]
    (name,), by = listed(question["specs"]), listed(question["by"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        grid = bl.predictions(mixed(number), "balanced", question["at"], ddf="asymptotic")
        spread = "revpairwise" if question["contrast"] == "pairwise" else "pairwise"
        ours = bl.comparisons(mixed(number), {name: spread}, by=by or True, newdata=grid, ddf=question["ddf"])
    ours["contrast"] = ours["contrast"].map(lambda text: re.sub(r"\b(?=[\d.]+)", name if text[0].isdigit() else "", text))
    compared(number, ours, ["contrast", *by], question)


# Generalised mixed models, against emmeans of glmer --------------------------------------------------------------------


GENERALISED = json.loads((Path(__file__).parent / "marginal_glmer.json").read_text(encoding="utf8"))
SEARCHED = {"rtol": 5e-5, "atol": 1e-6}
"""glmer's standard errors are by finite differences of the deviance."""


def as_glmer(name: str, kind: str, ours: pd.DataFrame, columns: list[str | None]) -> None:
    stored = GENERALISED[name][kind]["values"]
    for place, column in enumerate(columns):
        if column is not None:
            np.testing.assert_allclose(ours[column], [float(row[place]) for row in stored], **SEARCHED, err_msg=column)


def test_means_and_odds_ratios_of_a_binomial_mixed_model() -> None:
    fit = bl.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", bl.load_dataset("cbpp"), "binomial")
    numbers = ["estimate", "se", None, "lower", "upper"]
    as_glmer("cbpp", "link", bl.predictions(fit, "balanced", scale="link"), numbers)
    as_glmer("cbpp", "response", bl.predictions(fit, "balanced"), numbers)
    as_glmer("cbpp", "odds", bl.comparisons(fit, "period", by=True, comparison="lnor", newdata="mean"), numbers)


def test_means_and_differences_of_a_poisson_mixed_model() -> None:
    data = bl.load_dataset("grouseticks").assign(cHEIGHT=lambda table: (table["HEIGHT"] - 460) / 50)
    fit = bl.glmer("TICKS ~ YEAR + cHEIGHT + (1 | LOCATION)", data, "poisson")
    as_glmer("grouseticks", "response", bl.predictions(fit, "balanced", {"cHEIGHT": 0.5}), ["estimate", "se", None, "lower", "upper"])
    grid = pd.DataFrame({"cHEIGHT": [0.5], "YEAR": ["95"]})
    ours = bl.comparisons(fit, {"YEAR": "pairwise"}, by=True, newdata=grid)
    as_glmer("grouseticks", "difference", ours, ["estimate", "se", None, "statistic"])
    assert ours["contrast"].tolist() == ["96 - 95", "97 - 95", "97 - 96"]
