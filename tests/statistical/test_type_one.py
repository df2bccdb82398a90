"""Type-I error of tests of fixed effects with few groups: Satterthwaite and Kenward-Roger keep 5 %, Wald z does not."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import numpy as np
import pytest

from tests.support import ROOT

pytestmark = pytest.mark.slow

REPLICATES = 10_000
LOW, HIGH = 0.0435, 0.0565
"""Three standard errors of a share of 5 % in 10,000."""


def _study() -> ModuleType:
    spec = importlib.util.spec_from_file_location("type_one", ROOT / "benchmarks" / "type_one.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["type_one"] = module
    spec.loader.exec_module(module)
    return module


STUDY = _study()


@pytest.mark.parametrize("layout", STUDY.LAYOUTS, ids=lambda layout: layout.name)
def test_type_one_error(layout: object) -> None:
    wald, satterthwaite, kenward_roger = np.mean(STUDY.p_values(layout, REPLICATES) < 0.05, axis=0)
    assert LOW < satterthwaite < HIGH
    assert LOW < kenward_roger < HIGH
    assert wald > HIGH
