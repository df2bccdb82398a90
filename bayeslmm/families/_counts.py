"""What the families of counts share: the check of the response, where a fit starts, random counts of any rate."""

from __future__ import annotations

import numpy as np

__all__ = ["LOG_LINKS", "check", "check_positive", "poisson_counts", "start"]

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


_HIGHEST_RATE = 1e18
"""Near the largest whole number of 64 bits, which the counts must be."""


def poisson_counts(rng: np.random.Generator, rate: Array) -> Array:
    """Return Poisson counts, of rates held at 1e18."""
    return np.asarray(rng.poisson(np.minimum(rate, _HIGHEST_RATE)), dtype=float)
