"""Triangles of small matrices by LAPACK itself, where numpy's call costs ten times the arithmetic."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy.linalg import lapack

__all__ = ["inverse_of", "triangle_of", "upper_solve"]

type Array = np.ndarray


def triangle_of(A: Array) -> Array:
    """Return R (min(m, n), n), upper-triangular, of A = QR (m, n); its pivots have either sign."""
    m, n = A.shape
    if not m or not n:
        return np.zeros((min(m, n), n))
    packed = lapack.dgeqrf(A)[0]
    R: Array = np.where(_upper(min(m, n), n), packed[: min(m, n)], 0.0)
    return R


def upper_solve(R: Array, right: Array) -> Array:
    """Return R^-1 times a vector or matrix, R upper-triangular and regular.

    Raises
    ------
    numpy.linalg.LinAlgError
        If R is singular.
    """
    solution, failed = lapack.dtrtrs(R, right)
    if failed:
        raise np.linalg.LinAlgError("singular triangular matrix")
    return np.asarray(solution)


def inverse_of(A: Array) -> Array:
    """Return the inverse of a square matrix, its generalised inverse where it is nearly singular or not square."""
    if A.shape[0] == A.shape[1] and A.size:
        LU, pivots, failed = lapack.dgetrf(A)
        sizes = np.abs(LU.diagonal())
        if failed == 0 and sizes.min() > 1e-8 * np.abs(A).max():
            return np.asarray(lapack.dgetri(LU, pivots)[0])
    return np.asarray(np.linalg.pinv(A))


@cache
def _upper(m: int, n: int) -> Array:
    return np.triu(np.ones((m, n), dtype=bool))
