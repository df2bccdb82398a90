"""Predictions, leverages, ICC and R2 of every stored linear case, against lme4 and performance."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from bayeslmm import icc, r2
from bayeslmm.classical.joint import leverage
from bayeslmm.datasets import load_dataset
from tests.reference.test_lmer import BLOCKS, EFFECTS, NOT_UNIQUE, close, expected, fitted
from tests.support import reference_case

pytestmark = pytest.mark.reference

every_block = pytest.mark.parametrize(("case", "block"), BLOCKS)


def rows_of(case: str, positions: list[int]) -> pd.DataFrame:
    """The stored rows of the data, numbered from 1."""
    return load_dataset(reference_case(case)["dataset"]).iloc[np.array(positions) - 1]


@every_block
def test_predictions(case: str, block: str) -> None:
    stored, fit = expected(case, block)["predict"], fitted(case, block)
    rows = rows_of(case, stored["rows"])
    close(fit.predict(rows)["estimate"], stored["re.form_NULL"], EFFECTS, scale=fit.sigma)
    close(fit.predict(rows, target="average_group")["estimate"], stored["re.form_NA"], EFFECTS, scale=fit.sigma)


@every_block
def test_predictions_at_new_levels(case: str, block: str) -> None:
    stored, fit = expected(case, block)["predict"], fitted(case, block)
    if "new_levels" not in stored:
        pytest.skip("no new levels stored")
    stored = stored["new_levels"]
    changed = stored["changed"] if isinstance(stored["changed"], list) else [stored["changed"]]
    rows = rows_of(case, stored["rows"]).assign(**dict.fromkeys(changed, "a level nobody saw"))
    predicted = fit.predict(rows, new_levels="average")["estimate"]
    close(predicted, stored["values"], EFFECTS, scale=fit.sigma)


@every_block
def test_leverage(case: str, block: str) -> None:
    stored, fit = expected(case, block), fitted(case, block)
    if "hat20" not in stored:
        pytest.skip("no leverages stored")
    hat = leverage(fit)
    close(hat[:20], stored["hat20"], EFFECTS, scale=1.0)
    close(hat.sum(), stored["hat_sum"], EFFECTS)


@every_block
def test_icc_and_r2(case: str, block: str) -> None:
    """performance sums the variance of a random term only over effects that are fixed effects too, and only one term a factor."""
    stored, fit = expected(case, block), fitted(case, block)
    blocks = fit.model.design.blocks
    partly = len(fit.ngroups) < len(blocks) or any(set(b.effects) - set(fit.model.design.fixed_names) for b in blocks)
    if partly or case in NOT_UNIQUE or not stored.get("icc"):
        pytest.skip("another definition, or none stored")
    found, share = icc(fit)["estimate"], r2(fit)["estimate"]
    for measure in ("adjusted", "unadjusted", "conditional"):
        close(found[measure], stored["icc"][f"ICC_{measure}"], EFFECTS, scale=1.0)
    for measure in ("marginal", "conditional"):
        close(share[measure], stored["r2_nakagawa"][measure], EFFECTS, scale=1.0)
