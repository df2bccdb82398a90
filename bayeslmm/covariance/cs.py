"""Compound symmetry `cs` (and `homcs`, one variance for all): the same correlation rho between any two effects."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayeslmm.covariance._scaled import scaled_structure

__all__ = ["CS", "HOMCS"]

type Array = np.ndarray

_EDGE = 1e-12
"""How near to a limit of rho the derivative is taken: at the limit itself it is infinite."""


def correlation_factor(rho: float, k: int) -> tuple[Array, Array]:
    """Return the Cholesky factor of `(1 - rho) I + rho J` and its derivative by rho, both (k, k).

    Column 0 is `(1, rho, rho, ...)`. For column j > 0 let `a = rho / (1 + (j - 1) rho)`; then the diagonal is
    `sqrt((1 - rho) (1 + a))` and every entry below it `a sqrt((1 - rho) / (1 + a))`.
    """
    j = np.arange(1, k)
    C, dC = np.zeros((k, k)), np.zeros((k, k))
    C[:, 0], C[0, 0], dC[1:, 0] = rho, 1.0, 1.0
    inside = min(max(rho, -1.0 / max(k - 1, 1) + _EDGE), 1.0 - _EDGE)

    def column(r: float) -> tuple[Array, Array, Array, Array]:
        a = r / (1.0 + (j - 1) * r)
        return a, 1.0 + a, np.sqrt(np.maximum(1.0 - r, 0.0) * np.maximum(1.0 + a, 0.0)), 1.0 / (1.0 + (j - 1) * r) ** 2

    a, one_plus, diagonal, da = column(inside)
    d_diagonal = (-one_plus + (1.0 - inside) * da) / (2.0 * diagonal)
    below = a * diagonal / one_plus
    d_below = da * diagonal / one_plus + a * d_diagonal / one_plus - a * diagonal * da / one_plus**2
    exact = column(rho)[2] if -1.0 / max(k - 1, 1) <= rho <= 1.0 else diagonal
    for column_index, d, dd, b, db in zip(j, exact, d_diagonal, below, d_below, strict=True):
        C[column_index, column_index], dC[column_index, column_index] = d, dd
        C[column_index + 1 :, column_index], dC[column_index + 1 :, column_index] = b, db
    return C, dC


def _correlation(rho: Any, k: int) -> Any:
    return (1.0 - rho) * np.eye(k) + rho * np.ones((k, k))


def _powers(k: int) -> Array:
    return 1 - np.eye(k, dtype=np.int64)


def _lowest(k: int) -> float:
    return -1.0 / (k - 1) if k > 1 else -1.0


CS = scaled_structure("cs", hom=False, lowest=_lowest, correlation_factor=correlation_factor, pymc_correlation=_correlation, powers=_powers)
HOMCS = scaled_structure(
    "homcs", hom=True, lowest=_lowest, correlation_factor=correlation_factor, pymc_correlation=_correlation, powers=_powers
)
