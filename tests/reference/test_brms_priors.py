"""The table of default priors in style "brms" is the one that brms prints."""

from __future__ import annotations

import pandas as pd
import pytest

import bayeslmm as bl
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
