"""Where the tests find what they share: the folder of R results, and how to read a case of it."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


def reference_dir() -> Path:
    """Return the folder of R results, or skip the test where it is absent."""
    folder = Path(os.environ.get("BAYESLMM_REFERENCE_DIR") or ROOT.parent / "shared" / "reference")
    if not (folder / "results").is_dir():
        pytest.skip("needs the R results: set BAYESLMM_REFERENCE_DIR")
    return folder


@cache
def reference_case(name: str) -> dict[str, Any]:
    """Return one case of the R results, as `sleepstudy__02`."""
    with (reference_dir() / "results" / f"{name}.json").open(encoding="utf8") as handle:
        return json.load(handle)
