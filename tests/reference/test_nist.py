"""NIST's eleven one-way analyses of variance: as many digits as their doubles hold, and REML in closed form."""

from __future__ import annotations

import json
import runpy
from types import SimpleNamespace

import pytest

from tests.support import ROOT, reference_dir

NIST = SimpleNamespace(**runpy.run_path(str(ROOT / "benchmarks" / "nist.py")))
NAMES = ("AtmWtAg", "SiRstv", *(f"SmLs{number:02d}" for number in range(1, 10)))


@pytest.mark.parametrize("name", NAMES)
def test_digits(name: str) -> None:
    folder = reference_dir() / "nist"
    case = json.loads((folder / "nist_anova.json").read_text(encoding="utf8"))[name]
    found = NIST.compare(name, case, NIST.read(folder, case["file"]))
    assert found.f >= min(13.0, found.f_attainable - 1.0)
    assert found.residual_sd >= min(13.0, found.f_attainable - 1.0)
    assert found.mean >= 13.0
    assert found.criterion >= min(11.0, found.f_attainable - 1.0)
    assert found.sd_between >= min(7.0, found.f_attainable - 0.5), "a maximum fixes half of the digits of its place"
