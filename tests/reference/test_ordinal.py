"""Ordered levels: probabilities of brms's functions, fits of VGAM and of ordinal's clmm (see ordinal.R)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.families import FAMILIES, LINKS, Family, derivatives, latent

STORED: dict[str, Any] = json.loads(Path(__file__).with_name("ordinal.json").read_text())


def _family(name: str, levels: int, link: str) -> Family:
    of_levels = FAMILIES[name].of_levels
    assert of_levels is not None
    return of_levels(levels, LINKS[link])


def _label(case: dict[str, Any]) -> str:
    return f"{case['family']}-{case['link']}"


@pytest.mark.parametrize("case", STORED["probabilities"], ids=_label)
def test_probabilities_are_brms_s(case: dict[str, Any]) -> None:
    family = _family(case["family"], 5, case["link"])
    aux = {parameter.name: np.array(value) for parameter, value in zip(family.parameters, STORED["thresholds"], strict=True)}
    for eta, expected in zip(STORED["etas"], case["probabilities"], strict=True):
        found = np.exp(family.loglik(np.arange(5.0), np.full(5, eta), aux, None))
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("case", STORED["fits"], ids=_label)
def test_log_likelihood_at_vgam_s_estimates_and_its_gradient(case: dict[str, Any]) -> None:
    family = _family(case["family"], 4, case["link"])
    x, y = np.array(STORED["x"]), np.array(STORED["y"], dtype=float) - 1.0
    etas = np.array([case["b"] * x, *(np.full(len(x), tau) for tau in case["thresholds"])])
    found = derivatives(family, (latent(LINKS[case["link"]]), *[LINKS["identity"]] * 3), y, etas, None, 1)
    assert found.value.sum() == pytest.approx(case["loglik"], rel=1e-10)
    np.testing.assert_allclose([found.d1[0] @ x, *found.d1[1:].sum(axis=1)], 0.0, atol=1e-5)


@pytest.mark.parametrize("name", ["cumulative", "sratio", "cratio", "acat"])
@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_thresholds_start_at_the_proportions(name: str, link: str) -> None:
    """Maximum likelihood without predictors gives the proportions themselves; the start adds half an observation to each level."""
    family = _family(name, 4, link)
    y = np.repeat(np.arange(4.0), [5, 11, 2, 7])
    aux = {threshold: np.array(value) for threshold, value in family.start_parameters(y, None).items()}
    expected = (np.array([5, 11, 2, 7]) + 0.5) / 27.0
    np.testing.assert_allclose(np.exp(family.loglik(np.arange(4.0), np.zeros(4), aux, None)), expected, rtol=1e-12)


@pytest.mark.parametrize("case", STORED["clmm"], ids=lambda case: f"{case['link']}-{case['n_agq']}")
def test_mixed_models_are_clmm_s(case: dict[str, Any]) -> None:
    """Within clmm's own convergence: 1e-7 of the log-likelihood, 1e-3 standard errors, 1e-3 of the standard errors themselves.

    Those of the complementary log-log are left out: clmm's are not those of its likelihood's Hessian by differences.
    """
    levels = pd.Categorical.from_codes(np.array(STORED["z"]) - 1, categories=list("abcd"), ordered=True)
    data = pd.DataFrame({"z": levels, "x": STORED["x"], "g": np.array(STORED["g"]).astype(str)})
    fit = bl.glmer("z ~ x + (1 | g)", data, "cumulative", link=case["link"], n_agq=case["n_agq"])
    rows = fit.estimates.set_index(["part", "term"])
    terms = [*(("aux", f"Intercept[{k}]") for k in (1, 2, 3)), ("fixed", "x")]
    expected, se = np.array([*case["thresholds"], case["b"]]), np.array(case["se"])
    assert fit.loglik == pytest.approx(case["loglik"], rel=1e-7)
    assert np.all(np.abs(rows.loc[terms, "estimate"].to_numpy(dtype=float) - expected) < 1e-3 * se)
    if case["link"] != "cloglog":
        np.testing.assert_allclose(rows.loc[terms, "se"].to_numpy(dtype=float), se, rtol=1e-3)
    np.testing.assert_allclose(rows.loc[("sd", "(Intercept)"), "estimate"], case["sd"], rtol=1e-3)
