"""The translation of a formula has the log density of the same model written by hand, wherever it is evaluated."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from bayeslmm.bayes.translate import translate
from bayeslmm.datasets import load_dataset
from bayeslmm.errors import DataError
from bayeslmm.gallery import Case, read_case
from bayeslmm.model import model
from tests.support import ROOT

CASES = sorted(path.parent.name for path in (ROOT / "models").glob("*/pymc_model.py"))
POINTS = 6

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")


def test_every_case_has_its_model_by_hand() -> None:
    assert sorted(path.parent.name for path in (ROOT / "models").glob("*/model.toml")) == CASES
    assert len(CASES) >= 7


@pytest.mark.parametrize("name", CASES)
def test_translation_equals_the_model_by_hand(name: str) -> None:
    case = read_case(ROOT / "models" / name)
    _compare(case, case.main, by_hand=_module(case.folder).build(_data(case)))


@pytest.mark.parametrize("which", ["intercepts", "slopes", "uncorrelated"])
def test_the_other_structures_of_the_lecture(which: str) -> None:
    case = read_case(ROOT / "models" / "sleepstudy183")
    _compare(case, which, by_hand=_module(case.folder).build(_data(case), which))


def _compare(case: Case, which: str, by_hand: Any) -> None:
    translated = translate(model(case.named(which).formula, _data(case), case.family, priors=case.prior_rows() or None))
    assert {variable.name for variable in translated.free_RVs} == {variable.name for variable in by_hand.free_RVs}
    for dim, labels in by_hand.coords.items():
        assert [str(label) for label in translated.coords[dim]] == [str(label) for label in labels], dim
    start = translated.initial_point()
    theirs = by_hand.initial_point()
    assert {key: value.shape for key, value in start.items()} == {key: value.shape for key, value in theirs.items()}
    ours, hand = translated.compile_logp(mode="FAST_COMPILE"), by_hand.compile_logp(mode="FAST_COMPILE")
    rng = np.random.default_rng(20240101)
    values = []
    for _ in range(POINTS):
        point = {key: value + rng.normal(scale=0.5, size=value.shape) for key, value in start.items()}
        np.testing.assert_allclose(ours(point), hand(point), rtol=1e-10)
        values.append(float(hand(point)))
    assert np.all(np.isfinite(values))
    assert np.ptp(values) > 1


def _data(case: Case) -> Any:
    try:
        return load_dataset(case.dataset)
    except DataError as refusal:
        pytest.skip(str(refusal))


def _module(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"models_{folder.name}", folder / "pymc_model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
