"""Settings of every test: where the data of the R results lie, and no figures on a screen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import reference_dir as find_reference_dir

os.environ.setdefault("MPLBACKEND", "Agg")
_DATASETS = Path(os.environ.get("BAYESLMM_REFERENCE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "reference") / "datasets"
if _DATASETS.is_dir():
    os.environ.setdefault("BAYESLMM_DATA_DIR", str(_DATASETS))


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    return find_reference_dir()
