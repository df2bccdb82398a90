"""Fits under the boundary-avoiding prior against blme's `blmer` with the equal prior (blme.R)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayeslmm.classical.glmm import fit_generalised
from bayeslmm.classical.lmm import fit_model
from bayeslmm.datasets import load_dataset
from bayeslmm.model import model
from tests.support import reference_dir

CASES = json.loads((Path(__file__).parent / "blme.json").read_text(encoding="utf8"))

TOLERANCE = 1e-4
"""blme's optimiser (Nelder-Mead; the others stop earlier still) leaves theta good to about 2e-5, and all else that depends on it."""


@pytest.mark.parametrize(
    "case", CASES["linear"], ids=lambda case: f"{case['dataset']}-{'REML' if case['reml'] else 'ML'}-{case['formula']}"
)
def test_mode_is_that_of_blmer(case: dict[str, Any]) -> None:
    reference_dir()
    data = load_dataset(case["dataset"])
    if case["rows"]:
        column, _, value = case["rows"].partition(" == ")
        data = data[data[column] == value.strip("'")]
    fit = fit_model(model(case["formula"], data), reml=case["reml"], avoid_boundary=True)
    assert fit.converged
    np.testing.assert_allclose(fit.theta, case["theta"], atol=TOLERANCE)
    np.testing.assert_allclose(fit.sigma, case["sigma"], rtol=TOLERANCE)
    np.testing.assert_allclose(fit.beta, case["fixef"], rtol=TOLERANCE, atol=1e-8)
    np.testing.assert_allclose(fit.standard_errors, case["se"], rtol=TOLERANCE)


@pytest.mark.parametrize("case", CASES["generalised"], ids=lambda case: f"{case['dataset']}-{case['formula']}")
def test_mode_is_that_of_bglmer(case: dict[str, Any]) -> None:
    reference_dir()
    fit = fit_generalised(model(case["formula"], load_dataset(case["dataset"]), case["family"]), avoid_boundary=True)
    assert fit.method == "MAP (Laplace)"
    np.testing.assert_allclose(fit.theta, case["theta"], atol=10 * TOLERANCE)
    np.testing.assert_allclose(fit.beta, case["fixef"], atol=10 * TOLERANCE)
