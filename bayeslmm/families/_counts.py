"""What the families of counts share: the check of the response and where a fit starts."""

from __future__ import annotations

import numpy as np

__all__ = ["LOG_LINKS", "check", "check_positive", "start"]

type Array = np.ndarray

LOG_LINKS = ("log", "identity", "sqrt", "softplus")


def check(y: Array, trials: Array | None) -> Array:
    """Return the rows that are no counts 0, 1, 2, ..."""
    with np.errstate(invalid="ignore"):
        return np.asarray(~(np.isfinite(y) & (y >= 0) & (y == np.round(y))))


def check_positive(y: Array, trials: Array | None) -> Array:
    """Return the rows that are no counts 1, 2, 3, ..."""
    return np.asarray(check(y, trials) | (y == 0))


def start(y: Array, trials: Array | None) -> Array:
    """Return counts (n,) pulled away from 0, as R's `poisson()$initialize`."""
    return np.asarray(y + 0.1)
