"""Samplers: the same seed gives the same draws on any number of cores, and every sampler the same posterior."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import bayeslmm as bl
from bayeslmm.bayes import SAMPLERS

pytestmark = [pytest.mark.sampling, pytest.mark.filterwarnings("ignore::bayeslmm.errors.ConvergenceWarning")]


def _cbpp() -> bl.Model:
    return bl.model("cbind(incidence, size - incidence) ~ period + (1 | herd)", bl.load_dataset("cbpp"), family="binomial")


def _sleepstudy() -> bl.Model:
    return bl.model("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))


def _crossed() -> bl.Model:
    return bl.model("diameter ~ 1 + (1 | plate) + (1 | sample)", bl.load_dataset("Penicillin"))


@pytest.mark.parametrize("make", [_cbpp, _sleepstudy, _crossed])
def test_same_seed_same_draws_whatever_the_cores(make: Callable[[], bl.Model], capfd: pytest.CaptureFixture[str]) -> None:
    model = make()
    one, two, other = (bl.brm(model, draws=150, tune=200, cores=cores, seed=seed) for cores, seed in ((1, 11), (2, 11), (2, 12)))
    for name in one.tree["posterior"].data_vars:
        np.testing.assert_array_equal(one.tree["posterior"][name].values, two.tree["posterior"][name].values)
    assert not np.array_equal(one.tree["posterior"]["b"].values, other.tree["posterior"]["b"].values)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err == ""


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_has_the_same_posterior(sampler: str) -> None:
    if sampler in ("numpyro", "blackjax"):
        pytest.importorskip(sampler)
    model = _cbpp() if SAMPLERS[sampler].limit(_cbpp()) is None else _sleepstudy()
    fit = bl.brm(model, sampler=sampler, seed=5)
    reference = bl.brm(model, draws=5000, seed=6, sampler="nutpie")
    distance = (fit.estimates["estimate"] - reference.estimates["estimate"]).abs() / reference.estimates["se"]
    assert distance.max() < 0.2
    for name, variable in reference.tree["posterior"].to_dataset().isel(draw=slice(0, 1000)).items():
        found = fit.tree["posterior"][name]
        assert found.dims == variable.dims
        assert found.shape == variable.shape
        assert {dim: list(found[dim].values) for dim in found.coords} == {dim: list(variable[dim].values) for dim in variable.coords}
    assert list(fit.tree["posterior"].data_vars) == list(reference.tree["posterior"].data_vars)
    assert [check.code for check in fit.diagnose()] == [check.code for check in reference.diagnose()]
    assert "diverging" in fit.tree["sample_stats"]


_FIRST_DRAW = """
import warnings; warnings.simplefilter("ignore")
import bayeslmm as bl
fit = bl.brm("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"), seed=3, chains=2, draws=50, tune=50)
print(float(fit.tree["posterior"]["b"].mean()).hex())
"""


@pytest.mark.slow
def test_same_seed_same_draws_whether_compiled_now_or_before(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTENSOR_FLAGS": f"base_compiledir={tmp_path}"}
    command = [sys.executable, "-c", _FIRST_DRAW]
    cold, warm = (subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout for _ in range(2))
    assert cold == warm
