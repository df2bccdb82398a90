"""Profile limits of generalised linear mixed models against lme4's, by fine profiles of tight fits (`profile_glmer.R`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayeslmm.classical.glmm import fit_generalised
from bayeslmm.classical.intervals import confint
from bayeslmm.datasets import load_dataset
from bayeslmm.model import model
from tests.support import reference_dir

pytestmark = pytest.mark.reference

CASES = json.loads((Path(__file__).parent / "profile_glmer.json").read_text(encoding="utf8"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['dataset']}-{case['n_agq']}")
def test_limits(case: dict[str, Any]) -> None:
    reference_dir()
    fit = fit_generalised(model(case["formula"], load_dataset(case["dataset"]), case["family"]), n_agq=case["n_agq"])
    table = confint(fit, "profile", case["level"])
    assert list(table.index) == case["rows"]
    for name, limits in zip(case["rows"], case["limits"], strict=True):
        assert np.allclose(table.loc[name], limits, rtol=1e-3, atol=1e-3 * np.abs(limits).max()), name
