"""Leave-one-out results against the R package loo, on the same draws (loo.R writes the densities out and makes loo.json)."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.special import ndtri

import bayeslmm as bl
from bayeslmm.bayes.loo import khat

R: dict[str, Any] = json.loads((Path(__file__).parent / "loo.json").read_text(encoding="utf8"))
KINDS = ("conditional", "marginal", "group")
S = 1000
SMOOTHED, SHAPE = 2e-3, 0.05
"""Absolute, of a density whose k-hat is below 0.7, and of k-hats: R and ArviZ fit the Pareto distribution to tails one draw apart."""


def _quantiles(step: int, shift: int) -> np.ndarray:
    return ndtri(((np.arange(1, S + 1) * step + shift) % S + 0.5) / S)


@cache
def _fit(slope: float) -> bl.BayesFit:
    """The draws of loo.R as a posterior of one chain, whose relative efficiency is one."""
    data = pd.DataFrame({"y": R["data"]["y"], "x": R["data"]["x"], "g": [f"g{j}" for j in R["data"]["group"]]})
    model = bl.model("y ~ x + (1 | g)", data)
    tau, sigma = np.exp(-0.1 + 0.3 * _quantiles(211, 3)), np.exp(0.15 + 0.12 * _quantiles(733, 11))
    b = np.column_stack([2.1 + 0.35 * _quantiles(389, 0), slope * (0.6 + 0.2 * _quantiles(617, 7))])
    r = np.column_stack([tau * (0.5 * (j - 3.5) / 2 + 0.4 * _quantiles(100 * j + 7, 13 * j)) for j in range(1, 7)])
    variables = {
        "b": (("chain", "draw", "fixed"), b[None]),
        "sd_g": (("chain", "draw", "g_effect"), tau[None, :, None]),
        "r_g": (("chain", "draw", "g", "g_effect"), r[None, :, :, None]),
        "sigma": (("chain", "draw"), sigma[None]),
    }
    coords = {"chain": [0], "draw": np.arange(S), "fixed": ["(Intercept)", "x"], "g": [f"g{j}" for j in range(1, 7)]}
    posterior = xr.Dataset(variables, coords=coords | {"g_effect": ["(Intercept)"]})
    return bl.BayesFit(model=model, tree=xr.DataTree.from_dict({"posterior": posterior}), provenance=MappingProxyType({}))


def _loo(slope: float, kind: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.ConvergenceWarning)
        return bl.loo(_fit(slope), kind=kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("slope", "name"), [(1.0, "one"), (0.0, "two")])
def test_loo_is_that_of_r(slope: float, name: str, kind: str) -> None:
    found, expected = _loo(slope, kind), R[name][kind]
    good = np.array(expected["k"]) < 0.7
    assert good.mean() > 0.6
    np.testing.assert_allclose(found.elpd_i.values[good], np.array(expected["elpd_i"])[good], atol=SMOOTHED)
    np.testing.assert_allclose(found.pareto_k.values, expected["k"], atol=SHAPE)
    np.testing.assert_allclose([found.elpd, found.p], [expected["elpd"], expected["p"]], atol=SMOOTHED if good.all() else 0.1)
    np.testing.assert_allclose(found.se, expected["se"], rtol=1e-2)


def test_k_hats_of_the_conditional_kind_are_found_alone() -> None:
    np.testing.assert_allclose(khat(_fit(1.0)), R["one"]["conditional"]["k"], atol=SHAPE)


@pytest.mark.parametrize("kind", KINDS)
def test_comparison_is_that_of_r(kind: str) -> None:
    expected = R["difference"][kind]
    found = bl.loo_compare({"one": _loo(1.0, kind), "two": _loo(0.0, kind)})
    n = 6 if kind == "group" else 30
    assert found.index[0] == expected["best"]
    np.testing.assert_allclose(found["elpd_diff"].iloc[1], expected["elpd_diff"], atol=0.1 if kind == "conditional" else 0.01)
    np.testing.assert_allclose(found["dse"].iloc[1] * np.sqrt(n / (n - 1)), expected["se_diff"], rtol=1e-2)
    np.testing.assert_allclose(found.loc[["one", "two"], "weight"], expected["weights"], atol=5e-3)
