"""`confint`: one table for the three methods, rows and names as lme4's."""

from __future__ import annotations

import numpy as np
import pytest

import bayeslmm as bl
from bayeslmm.classical import ClassicalFit
from bayeslmm.errors import FitError

ROWS = ["sd_(Intercept)|Subject", "cor_Days.(Intercept)|Subject", "sd_Days|Subject", "sigma", "(Intercept)", "Days"]


@pytest.fixture(scope="module")
def sleep() -> ClassicalFit:
    return bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))


@pytest.mark.parametrize("method", ["wald", "profile", "boot"])
def test_rows_and_columns(method: str, sleep: ClassicalFit) -> None:
    table = bl.confint(sleep, method, n=30, seed=1)
    assert list(table.index) == ROWS
    assert list(table.columns) == ["lower", "upper"]
    assert table.attrs["method"] == method
    assert (table["lower"] < table["upper"]).sum() == (2 if method == "wald" else 6)


def test_wald_as_lme4(sleep: ClassicalFit) -> None:
    """lme4 1.1-31: confint(fm1, method = "Wald")."""
    table = bl.confint(sleep)
    assert table.loc[ROWS[:4]].isna().all(axis=None)
    assert table.loc["(Intercept)"].tolist() == pytest.approx([238.029141, 264.781069], abs=2e-4)
    assert table.loc["Days"].tolist() == pytest.approx([7.437594, 13.496978], abs=2e-5)


def test_notes_say_what_was_done(sleep: ClassicalFit) -> None:
    assert "ML refit" in bl.confint(sleep, "profile", parameters="Days").attrs["note"]
    note = bl.confint(sleep, "boot", n=20, seed=9).attrs["note"]
    assert "20 parametric replicates" in note
    assert "0 failed" in note
    assert "seed 9" in note


def test_boot_is_the_percentile_interval(sleep: ClassicalFit) -> None:
    table = bl.confint(sleep, "boot", level=0.8, n=40, seed=2)
    assert table.equals(bl.bootstrap(sleep, n=40, seed=2).intervals("percentile", 0.8))


def test_parameters_are_picked_in_order(sleep: ClassicalFit) -> None:
    assert list(bl.confint(sleep, "profile", parameters=["Days", "sigma"]).index) == ["sigma", "Days"]


def test_wider_with_the_level(sleep: ClassicalFit) -> None:
    for method in ("wald", "profile"):
        narrow, wide = (np.diff(bl.confint(sleep, method, level, parameters="Days").to_numpy()).item() for level in (0.5, 0.99))
        assert wide > 3.0 * narrow


def test_terms_of_one_factor_are_told_apart() -> None:
    data = bl.load_dataset("sleepstudy")
    fit = bl.lmer("Reaction ~ Days + (1 | Subject) + (0 + Days | Subject)", data)
    assert list(bl.confint(fit).index[:2]) == ["sd_(Intercept)|Subject", "sd_Days|Subject"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "profil"}, "unknown method 'profil'.*profile"),
        ({"level": 95}, "level must lie between 0 and 1"),
        ({"level": "x"}, "level must lie between 0 and 1"),
        ({"parameters": ["Dais"]}, "no parameter 'Dais'.*Days"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str, sleep: ClassicalFit) -> None:
    with pytest.raises(FitError, match=message):
        bl.confint(sleep, **options)
