"""Side by side: the join, the differences, the words; on classical fits and on a made-up pair."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.errors import FitError

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return bl.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def pair(data: pd.DataFrame) -> bl.Comparison:
    return bl.compare(bl.lmer(FORMULA, data), bl.lmer(FORMULA, data, reml=False))


def test_table_joins_the_estimates_of_both(pair: bl.Comparison) -> None:
    reml, ml = pair.fits
    table = pair.table
    assert list(table["part"]) == ["fixed", "fixed", "sd", "sd", "cor", "aux"]
    np.testing.assert_array_equal(table["REML"], reml.estimates["estimate"])
    np.testing.assert_array_equal(table["ML"], ml.estimates["estimate"])
    np.testing.assert_allclose(table["difference"], table["ML"] - table["REML"])


def test_difference_is_in_units_of_the_larger_standard_error(pair: bl.Comparison) -> None:
    row = pair.table.iloc[1]
    larger = max(row["REML_se"], row["ML_se"])
    assert row["difference_in_se"] == pytest.approx(row["difference"] / larger)
    assert row["verdict"] == "agree"


def test_labels_are_numbered_where_a_method_occurs_twice(data: pd.DataFrame) -> None:
    both = bl.compare(bl.lmer(FORMULA, data), bl.lmer("Reaction ~ Days + (1 | Subject)", data))
    assert both.labels == ("REML 1", "REML 2")
    slope = both.table[(both.table["part"] == "sd") & (both.table["term"] == "Days")].iloc[0]
    assert np.isnan(slope["REML 2"])
    assert slope["verdict"] == "in one fit only"


def test_verdicts_name_the_estimates_that_differ(data: pd.DataFrame) -> None:
    both = bl.compare(bl.lmer(FORMULA, data), bl.lmer("Reaction ~ 1 + (Days | Subject)", data))
    assert any("(Intercept)" in sentence and "standard errors" in sentence for sentence in both.verdicts)


def test_a_fit_is_found_by_its_label(pair: bl.Comparison) -> None:
    assert pair["ML"].method == "ML"
    with pytest.raises(FitError, match="NUTS"):
        pair["NUTS"]


def test_print_out_shows_every_estimate(pair: bl.Comparison) -> None:
    text = str(pair)
    for term in ("(Intercept)", "Days.(Intercept)", "sigma", "diff/SE", "verdict"):
        assert term in text
    assert "<table" in pair._repr_html_()


def test_fits_of_other_rows_are_refused(data: pd.DataFrame) -> None:
    with pytest.raises(FitError, match="same rows"):
        bl.compare(bl.lmer(FORMULA, data), bl.lmer(FORMULA, data.iloc[:170]))


def test_one_fit_is_no_comparison(data: pd.DataFrame) -> None:
    with pytest.raises(FitError, match="two"):
        bl.compare(bl.lmer(FORMULA, data))


def test_boundary_is_said_in_words() -> None:
    data = bl.load_dataset("Dyestuff2")
    with pytest.warns(bl.SingularFitWarning):
        singular = bl.lmer("Yield ~ 1 + (1 | Batch)", data)
    other = bl.lmer("Yield ~ 1", data)
    table = bl.compare(singular, other).table
    assert table.loc[table["part"] == "sd", "verdict"].tolist() == ["in one fit only"]
