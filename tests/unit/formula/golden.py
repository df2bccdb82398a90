"""What R and lme4 make of formulas: `golden.json`, written by `LC_ALL=C.UTF-8 Rscript golden.R` in this folder."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any


@cache
def golden() -> dict[str, list[dict[str, Any]]]:
    loaded: dict[str, list[dict[str, Any]]] = json.loads(Path(__file__).with_name("golden.json").read_text(encoding="utf8"))
    return loaded
