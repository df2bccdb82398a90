"""Degrees of freedom, tests of terms and likelihood ratios against lmerTest and pbkrtest: every stored case, and those of lmertest.R."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.classical.anova import contrast
from bayeslmm.datasets import load_dataset
from bayeslmm.errors import BayesLmmWarning
from tests.support import ROOT, reference_case, reference_dir

pytestmark = pytest.mark.reference

_FOLDER = Path(os.environ.get("BAYESLMM_REFERENCE_DIR") or ROOT.parent / "shared" / "reference") / "results"
CASES = sorted(path.stem for path in _FOLDER.glob("*__[0-9][0-9].json") if not path.stem.startswith("InstEval")) or ["absent"]
BLOCKS = [(case, block) for case in CASES for block in ("REML", "ML")]
MORE = json.loads((Path(__file__).parent / "lmertest.json").read_text(encoding="utf8"))

TOLERANCE = 2e-5
"""Relative. lmerTest differentiates numerically, which leaves its degrees of freedom good to about 1e-5 (school__01: 1.3e-5)."""
EXACT = 1e-6
"""Relative. Kenward-Roger and likelihood ratios are limited by the fits alone."""


@cache
def fitted(case: str, block: str) -> bl.ClassicalFit:
    stored = reference_case(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        return bl.lmer(
            stored["formula"],
            load_dataset(stored["dataset"]),
            reml=block == "REML",
            weights=stored["weights"],
            contrasts=stored["contrasts"] or None,
        )


def part(case: str, block: str, kind: str) -> dict[str, Any]:
    reference_dir()
    found: dict[str, Any] = reference_case(case)[block].get(kind)
    if not found:
        pytest.skip(f"no {kind} for this case")
    return found


def quietly[T](call: Callable[[], T]) -> T:
    """Call without warnings: the over-parametrised cases have a Hessian that is not positive, others columns left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        return call()


def same(table: pd.DataFrame, reference: dict[str, Any], tolerance: float, *, rows: bool = True) -> None:
    values = np.array(reference["values"], dtype=float).reshape(-1, table.shape[1])
    if rows:
        assert list(table.index) == list(reference["rows"])
    np.testing.assert_allclose(table.to_numpy(dtype=float)[:, :-1], values[:, :-1], rtol=tolerance, atol=1e-12)
    # a p value deep in the tail moves by more than its statistic
    np.testing.assert_allclose(table.to_numpy(dtype=float)[:, -1], values[:, -1], rtol=100 * tolerance, atol=1e-12)


every_block = pytest.mark.parametrize(("case", "block"), BLOCKS)


@every_block
def test_satterthwaite_coefficients(case: str, block: str) -> None:
    stored = part(case, block, "lmerTest")["coefficients"]
    table = quietly(lambda: fitted(case, block).coefficients())
    same(table[["se", "df", "statistic", "p_value"]], _columns(stored, (1, 2, 3, 4)), TOLERANCE)


@every_block
@pytest.mark.parametrize("kind", ["I", "II", "III"])
def test_satterthwaite_terms(case: str, block: str, kind: str) -> None:
    stored = part(case, block, "lmerTest")[f"anova_{kind}"]
    same(quietly(lambda: bl.anova(fitted(case, block), type=kind)), stored, TOLERANCE)


@pytest.mark.parametrize("case", CASES)
def test_kenward_roger(case: str) -> None:
    stored, fit = part(case, "REML", "KR"), fitted(case, "REML")
    table = fit.coefficients(ddf="kenward-roger")
    same(table[["se", "df", "statistic", "p_value"]], _columns(stored["coefficients"], (1, 2, 3, 4)), EXACT)
    np.testing.assert_allclose(table["se"] ** 2, np.diagonal(np.array(stored["vcovAdj"], dtype=float)), rtol=EXACT)
    same(bl.anova(fit, ddf="kenward-roger"), stored["anova_III"], EXACT)


def _columns(stored: dict[str, Any], columns: tuple[int, ...]) -> dict[str, Any]:
    return {"rows": stored["rows"], "values": [[row[column] for column in columns] for row in stored["values"]]}


@every_block
def test_ranova(case: str, block: str) -> None:
    stored = part(case, block, "lmerTest")["ranova"]
    if not stored:
        pytest.skip("no ranova for this case")
    table = bl.ranova(fitted(case, block))
    assert list(table.index) == stored["rows"]
    values = np.array(stored["values"], dtype=float)
    found = table.to_numpy()[:, :6]
    np.testing.assert_allclose(found[:, [0, 1, 2, 4]], values[:, [0, 1, 2, 4]], rtol=1e-8)
    np.testing.assert_allclose(found[:, 3], values[:, 3], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[:, 5], values[:, 5], rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------------------------------------------ other tables


def test_likelihood_ratios() -> None:
    path = reference_dir() / "results" / "lrt.json"
    for stored in json.loads(path.read_text(encoding="utf8")):
        if stored["engine"] != "lmer ML" or stored["dataset"] == "Machines":
            continue
        fits = [bl.lmer(text, load_dataset(stored["dataset"])) for text in stored["formulas"]]
        with pytest.warns(BayesLmmWarning, match="fitted again by ML"):
            table = bl.anova(*reversed(fits))
        assert list(table.index) == stored["formulas"]
        same(table, stored["anova"], EXACT, rows=False)


COMPARED = {
    "sleepstudy": ([[0.0, 1.0]],),
    "Orthodont": ([[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]],),
    "cake": (np.eye(18)[8:].tolist(),),
}
"""What the smaller model of each comparison in krmodcomp.json restricts."""


def test_model_comparisons_of_pbkrtest() -> None:
    path = reference_dir() / "results" / "krmodcomp.json"
    for stored in json.loads(path.read_text(encoding="utf8")):
        if stored["dataset"] not in COMPARED:
            continue
        fit = bl.lmer(stored["large"], load_dataset(stored["dataset"]))
        (L,) = COMPARED[stored["dataset"]]
        for method, key in (("kenward-roger", "KR"), ("satterthwaite", "SAT")):
            row = contrast(fit, np.array(L), ddf=method).iloc[0]
            statistic, num_df, den_df = stored[key]["values"][0][:3]
            assert row["f_value"] == pytest.approx(statistic, rel=TOLERANCE)
            assert row["num_df"] == num_df
            assert row["den_df"] == pytest.approx(den_df, rel=TOLERANCE)


# ------------------------------------------------------------------------------------------------- unbalanced, empty cells, coding


@cache
def other(position: int) -> bl.ClassicalFit:
    reference_dir()
    stored = MORE[position]
    data = load_dataset(stored["dataset"])
    data = data.drop(index=data.index[stored["drop"]])
    return quietly(lambda: bl.lmer(stored["formula"], data, contrasts=stored.get("contrasts") or None))


@pytest.mark.parametrize("kind", ["I", "II", "III"])
@pytest.mark.parametrize(("method", "prefix"), [("satterthwaite", ""), ("kenward-roger", "KR_")])
@pytest.mark.parametrize("position", range(len(MORE)))
def test_further_terms(position: int, kind: str, method: str, prefix: str) -> None:
    stored = MORE[position].get(prefix + kind)
    if not stored:
        pytest.skip("lmerTest has no answer")
    table = bl.anova(other(position), type=kind, ddf=method)
    order = [
        *(term for term in table.index if table.loc[term].notna().all()),
        *(term for term in table.index if table.loc[term].isna().any()),
    ]
    same(table.loc[order], stored, 1e-4)


@pytest.mark.parametrize("position", [i for i, stored in enumerate(MORE) if stored.get("contest")])
def test_several_contrasts_against_values(position: int) -> None:
    stored = MORE[position]
    for method, key in (("satterthwaite", "contest"), ("kenward-roger", "KR_contest")):
        row = contrast(other(position), np.array(stored["L"]), np.array(stored["rhs"]), ddf=method)
        np.testing.assert_allclose(row.iloc[0], stored[key], rtol=1e-4)


def test_type_three_does_not_depend_on_the_coding() -> None:
    reference_dir()
    cake = load_dataset("cake")
    tables = [
        bl.anova(bl.lmer("angle ~ recipe * temp + (1 | recipe:replicate)", cake, contrasts={"recipe": coding}))
        for coding in ("treatment", "sum", "helmert", "poly")
    ]
    for table in tables[1:]:
        np.testing.assert_allclose(table.to_numpy()[:, [0, 1, 2, 4]], tables[0].to_numpy()[:, [0, 1, 2, 4]], rtol=1e-8)


def test_type_three_of_cake_is_that_of_lmer_test_and_not_of_dummy_columns() -> None:
    """Published: 84.26; the treatment-coded column alone, the slope of recipe A, gives 26.57."""
    reference_dir()
    fit = bl.lmer("angle ~ recipe * temp + (1 | replicate)", load_dataset("cake"))
    assert bl.anova(fit).loc["temp", "f_value"] == pytest.approx(84.26, abs=0.005)
    assert float(fit.coefficients()["statistic"]["temp"]) ** 2 == pytest.approx(26.57, abs=0.005)
