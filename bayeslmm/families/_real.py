"""What the families of real numbers share: the check of the response and where a fit starts."""

from __future__ import annotations

import numpy as np

__all__ = ["check", "spread", "start"]

type Array = np.ndarray


def check(y: Array, trials: Array | None) -> Array:
    """Return the rows that are no finite number."""
    return np.asarray(~np.isfinite(y))


def start(y: Array, trials: Array | None) -> Array:
    """Return the response (n,)."""
    return np.asarray(y, dtype=float)


def spread(y: Array, trials: Array | None) -> dict[str, float]:
    """Return the response's standard deviation as `sigma`; 1 for a constant."""
    return {"sigma": float(np.std(y)) or 1.0}
