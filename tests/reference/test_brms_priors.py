"""The table of default priors in style "brms" is the one that brms prints (see brms_priors.R)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.priors import PriorRow
from tests.support import reference_case

pytestmark = pytest.mark.reference

CASES = {
    "brms_sleepstudy": ("Reaction ~ Days + (Days | Subject)", "gaussian", lambda: bl.load_dataset("sleepstudy")),
    "brms_cbpp": ("incidence | trials(size) ~ period + (1 | herd)", "binomial", lambda: bl.load_dataset("cbpp")),
}
CLASSES = {"intercept": "Intercept", "fixed": "b", "sd": "sd", "cor": "L", "aux": "sigma"}


def _printed(case: str) -> dict[str, str]:
    """brms's class -> its prior, as written in the row of the whole class; an empty one is flat."""
    table = reference_case(case)["prior_table"]
    rows = pd.DataFrame(table["values"], columns=table["columns"])
    whole = rows[(rows["coef"] == "") & (rows["group"] == "")]
    return dict(zip(whole["class"], whole["prior"].replace({"": "flat()"}).str.replace("lkj_corr_cholesky", "lkj"), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_default_priors_are_those_of_brms(case: str, reference_dir: object) -> None:
    formula, family, load = CASES[case]
    rows = bl.default_priors(bl.model(formula, load(), family), "brms")
    printed = _printed(case)
    assert {CLASSES[row.part] for row in rows} == set(printed)
    for row in rows:
        assert str(row.distribution) == printed[CLASSES[row.part]], row


def test_methylation_case_has_no_prior_from_its_data(reference_dir: object) -> None:
    data = pd.read_csv(reference_dir / "datasets" / "methylation.csv")  # type: ignore[operator]
    locus = data[data["locus"] == data["locus"].iloc[0]]
    rows = bl.default_priors(bl.model("m | trials(m + u) ~ treatment * time + (1 | tank)", locus, "binomial"), "brms")
    printed = _printed("brms_methylation_L001_default")
    assert {str(row.distribution) for row in rows} == set(printed.values())


STORED: dict[str, Any] = json.loads(Path(__file__).with_name("brms_priors.json").read_text())
OUR_NAMES = {"Gamma": "gamma", "inverse.gaussian": "inverse_gaussian", "negbinomial": "negative_binomial", "Beta": "beta"}
OUR_NAMES |= {"zero_inflated_negbinomial": "zero_inflated_negative_binomial", "hurdle_negbinomial": "hurdle_negative_binomial"}
NEWER_SHAPE = "inv_gamma(0.4, 0.3)"
"""Of negative binomials in brms 2.21 and later (its issue 1614); the version that made the file has `gamma(0.01, 0.01)`."""
OUR_CLASSES = {"intercept": "Intercept", "fixed": "b", "sd": "sd", "cor": "cor"}


def _label(case: dict[str, Any]) -> str:
    formula = case["formula"]
    return f"{formula if isinstance(formula, str) else ' | '.join(formula.values())}, {case['family']} {case['link'] or ''}"


def _brms_class(row: PriorRow) -> str:
    return "Intercept" if row.term.startswith("Intercept[") else OUR_CLASSES.get(row.part, row.term)


@pytest.mark.parametrize("case", STORED["cases"], ids=_label)
def test_default_priors_of_many_models_are_those_of_brms(case: dict[str, Any]) -> None:
    formula = case["formula"]
    if isinstance(formula, dict):
        further = {name: "~" + text.partition("~")[2] for name, text in formula.items() if name != "1"}
        formula = bl.formula(formula["1"], **further)
    family = OUR_NAMES.get(case["family"], case["family"])
    data = pd.DataFrame(STORED["data"])
    data["level"] = pd.Categorical(data["level"], ordered=True)
    rows = bl.default_priors(bl.model(formula, data, family, link=case["link"]), "brms")
    printed = {(row["class"], row["dpar"]): row["prior"] or "flat()" for row in case["priors"] if not row["coef"] and not row["group"]}
    printed |= {key: NEWER_SHAPE for key in printed if key == ("shape", "") and "negbinomial" in case["family"]}
    found = {(_brms_class(row), row.parameter): str(row.distribution) for row in rows}
    assert found == printed
    assert len({(_brms_class(row), row.parameter, str(row.distribution)) for row in rows}) == len(found)
