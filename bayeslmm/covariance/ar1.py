"""First-order autoregression `ar1` (one variance for all; `hetar1` one each): correlation `rho^|i - j|` between effects i and j."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayeslmm.covariance._scaled import scaled_structure

__all__ = ["AR1", "HETAR1"]

type Array = np.ndarray

_EDGE = 1e-12
"""How near to 1 the derivative of `sqrt(1 - rho^2)` is taken: at 1 itself it is infinite."""


def correlation_factor(rho: float, k: int) -> tuple[Array, Array]:
    """Return the Cholesky factor of `rho^|i - j|` and its derivative by rho, both (k, k).

    Column 0 is `rho^i`; column j > 0 is `rho^(i - j) sqrt(1 - rho^2)` for i >= j.
    """
    lag = np.subtract.outer(np.arange(k), np.arange(k))
    power = np.where(lag >= 0, float(rho) ** np.maximum(lag, 0), 0.0)
    d_power = np.where(lag >= 1, lag * float(rho) ** np.maximum(lag - 1, 0), 0.0)
    root = np.sqrt(max(1.0 - rho**2, 0.0))
    inside = np.clip(rho, -1.0 + _EDGE, 1.0 - _EDGE)
    d_root = -inside / np.sqrt(1.0 - inside**2)
    scale = np.full(k, root)
    d_scale = np.full(k, d_root)
    scale[0], d_scale[0] = 1.0, 0.0
    return power * scale, d_power * scale + power * d_scale


def _correlation(rho: Any, k: int) -> Any:
    import pytensor.tensor as pt

    lag = np.abs(np.subtract.outer(np.arange(k), np.arange(k)))
    powers = [0.0 * rho + 1.0]
    for _ in range(1, k):
        powers.append(powers[-1] * rho)
    return pt.stack(powers)[lag]


def _powers(k: int) -> Array:
    return np.abs(np.subtract.outer(np.arange(k), np.arange(k)))


def _lowest(k: int) -> float:
    return -1.0


AR1 = scaled_structure(
    "ar1", hom=True, lowest=_lowest, correlation_factor=correlation_factor, pymc_correlation=_correlation, powers=_powers
)
HETAR1 = scaled_structure(
    "hetar1", hom=False, lowest=_lowest, correlation_factor=correlation_factor, pymc_correlation=_correlation, powers=_powers
)
