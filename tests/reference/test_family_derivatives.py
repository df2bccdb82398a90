"""Log densities and their derivatives in the linear predictors, against mpmath's in 60 digits (see family_derivatives.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayeslmm.families import FAMILIES, LINKS, derivatives, latent

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("family_derivatives.json").read_text())
NAMES = sorted({(case["family"], case["links"][0]) for case in CASES})


def test_every_family_is_there() -> None:
    assert {name for name, _ in NAMES} == set(FAMILIES)


@pytest.mark.parametrize(("name", "link"), NAMES, ids=lambda value: str(value))
def test_derivatives_are_exact_to_the_last_digits(name: str, link: str) -> None:
    """1e-9 of each derivative, or 1e-12 of the row's largest: what doubles can hold of a sum of terms of that size."""
    for case in CASES:
        if (case["family"], case["links"][0]) != (name, link):
            continue
        family, links = FAMILIES[name], tuple(LINKS[each] for each in case["links"])
        if family.of_levels is not None:
            family, links = family.of_levels(3, links[0]), (latent(links[0]), *links[1:])
        trials = None if case["trials"] is None else np.array([float(case["trials"])])
        found = derivatives(family, links, np.array([float(case["y"])]), np.array(case["eta"])[:, None], trials)
        largest = max(1.0, *(abs(value) for value in case["derivatives"].values()))
        for key, expected in case["derivatives"].items():
            at = tuple(k for k, times in enumerate(key.split(",")) for _ in range(int(times)))
            value = (found.value, found.d1, found.d2, found.d3)[len(at)][(*at, 0)]
            assert value == pytest.approx(expected, rel=1e-9, abs=1e-12 * largest), (case, key)
