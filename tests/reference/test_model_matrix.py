"""Model matrices against R's `model.matrix` and lme4's `lFormula` (made by `model_matrix.R` in this folder)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bayeslmm.design import Encoder, encode
from bayeslmm.formula import parse

R: dict[str, Any] = json.loads((Path(__file__).parent / "model_matrix.json").read_text(encoding="utf8"))
ABSOLUTE = 1e-10
"""R's JSON has 15 decimals; the bases agree to rounding."""


def _frame(columns: dict[str, list[Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(columns)
    for name, levels in R["levels"].items():
        frame[name] = pd.Categorical(frame[name], categories=levels, ordered=name == "o")
    return frame


DATA, NEW = _frame(R["data"]), _frame(R["new"])


def _one_sided(case: dict[str, Any], **options: Any) -> Any:
    return encode(parse(case["formula"]), DATA, need_response=False, **options)


def _with_dropped(design: Any) -> tuple[tuple[str, ...], np.ndarray]:
    """Names and X of all columns, those dropped for rank too, by an encoder that drops none."""
    plain = design.encoder.to_dict()
    plain["kept"][""] = list(range(len(design.fixed.names) + len(design.fixed.dropped)))
    rows = Encoder.from_dict(plain).encode_new(DATA.loc[design.index])
    return rows.fixed_names, rows.X


@pytest.mark.parametrize("case", R["fixed"], ids=lambda case: case["formula"])
def test_columns_equal_those_of_model_matrix(case):
    names, X = _with_dropped(_one_sided(case))
    assert list(names) == case["names"]
    np.testing.assert_allclose(X, np.array(case["X"], dtype=float).reshape(X.shape), atol=ABSOLUTE, rtol=0)


@pytest.mark.parametrize("case", R["fixed"], ids=lambda case: case["formula"])
def test_assign_and_kept_columns(case):
    fixed = _one_sided(case).fixed
    columns = {name: position for position, name in enumerate(case["names"])}
    kept = [columns[name] for name in fixed.names]
    assert list(fixed.assign) == [case["assign"][position] for position in kept]
    np.testing.assert_allclose(fixed.X, np.array(case["X"], dtype=float)[:, kept], atol=ABSOLUTE, rtol=0)
    assert np.linalg.matrix_rank(fixed.X) == len(kept) == np.linalg.matrix_rank(np.array(case["X"], dtype=float))


@pytest.mark.parametrize("case", [case for case in R["fixed"] if case["new"]], ids=lambda case: case["formula"])
def test_new_rows_equal_those_of_R(case):
    plain = _one_sided(case).encoder.to_dict()
    plain["kept"][""] = list(range(len(case["names"])))
    X = Encoder.from_dict(json.loads(json.dumps(plain))).encode_new(NEW).X
    wanted = np.array(case["new"], dtype=float).reshape(X.shape)
    np.testing.assert_allclose(X, wanted, atol=ABSOLUTE * max(1.0, float(np.abs(wanted).max())), rtol=0)


@pytest.mark.parametrize("case", R["coded"], ids=lambda case: f"{case['formula']} {list(case['contrasts'])}")
def test_contrasts_argument(case):
    contrasts = {name: _contrast(spec) for name, spec in case["contrasts"].items()}
    design = _one_sided(case, contrasts=contrasts)
    assert list(design.fixed_names) == case["names"]
    np.testing.assert_allclose(design.X, np.array(case["X"], dtype=float), atol=ABSOLUTE, rtol=0)


def _contrast(spec: Any) -> Any:
    if isinstance(spec, str):
        return spec
    return pd.DataFrame(spec["matrix"], columns=spec["names"]) if spec.get("names") else np.array(spec["matrix"], dtype=float)


@pytest.mark.parametrize("case", R["random"], ids=lambda case: case["formula"])
def test_random_blocks_equal_those_of_lFormula(case):
    design = encode(parse(case["formula"]), DATA)
    assert [block.group for block in design.blocks] == [_ungrouped(name) for name in case["groups"]]
    assert [list(block.effects) for block in design.blocks] == case["effects"]
    assert [list(block.levels) for block in design.blocks] == case["levels"]
    Z = design.Z
    assert Z.shape == (case["n"], design.q)
    np.testing.assert_allclose(Z.toarray(), np.array(case["Z"], dtype=float), atol=ABSOLUTE, rtol=0)


def _ungrouped(name: str) -> str:
    """lme4 makes names of two terms of one factor unique (`site.1`); the group is `site`."""
    stem, _, number = name.rpartition(".")
    return stem if number.isdigit() else name


@pytest.mark.parametrize("case", R["rank"], ids=lambda case: case["formula"])
def test_rank_deficient_columns_are_those_that_lme4_drops(case):
    fixed = encode(parse(case["formula"]), DATA).fixed
    assert list(fixed.names) == case["names"]
    assert set(fixed.dropped) == set(case["dropped"])
