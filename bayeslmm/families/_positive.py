"""What the families of numbers above 0 share: the check of the response and where a fit starts."""

from __future__ import annotations

import numpy as np

__all__ = ["check", "start"]

type Array = np.ndarray


def check(y: Array, trials: Array | None) -> Array:
    """Return the rows that are no finite number above 0."""
    with np.errstate(invalid="ignore"):
        return np.asarray(~(np.isfinite(y) & (y > 0)))


def start(y: Array, trials: Array | None) -> Array:
    """Return the response (n,), as R's `Gamma()$initialize`."""
    return np.asarray(y, dtype=float)
