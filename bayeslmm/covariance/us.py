"""Unstructured covariance `us`: any k x k matrix, theta the lower triangle of its relative Cholesky factor."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from bayeslmm.covariance.base import Structure

__all__ = ["US"]

type Array = np.ndarray


@cache
def triangle(k: int) -> tuple[Array, Array]:
    """Return rows and columns of the lower triangle of a k x k matrix, column by column (lme4's order of theta)."""
    columns, rows = np.triu_indices(k)
    return rows, columns


def n_theta(k: int) -> int:
    return k * (k + 1) // 2


def start(k: int) -> Array:
    rows, columns = triangle(k)
    return np.asarray(rows == columns, dtype=float)


def lower(k: int) -> Array:
    rows, columns = triangle(k)
    bounds: Array = np.where(rows == columns, 0.0, -np.inf)
    return bounds


def upper(k: int) -> Array:
    return np.full(n_theta(k), np.inf)


def factor(theta: Array, k: int) -> Array:
    L = np.zeros((k, k))
    L[triangle(k)] = theta
    return L


@cache
def _basis(k: int) -> Array:
    rows, columns = triangle(k)
    basis = np.zeros((n_theta(k), k, k))
    basis[np.arange(n_theta(k)), rows, columns] = 1.0
    basis.flags.writeable = False
    return basis


def jacobian(theta: Array, k: int) -> Array:
    return _basis(k)


def labels(effects: tuple[str, ...]) -> tuple[str, ...]:
    rows, columns = triangle(len(effects))
    return tuple(effects[i] if i == j else f"{effects[i]}.{effects[j]}" for i, j in zip(rows, columns, strict=True))


def is_boundary(theta: Array, k: int, tol: float) -> bool:
    return bool(np.any(np.asarray(theta)[lower(k) == 0.0] < tol))


def pymc_cholesky(name: str, k: int, eta: float, dims: tuple[str, str] | None) -> Any:
    """LKJ(eta) on the correlation matrix: the free variable is its Cholesky factor `L_<name>`."""
    import pymc as pm

    if k == 1:
        return None
    L = pm.LKJCorr(f"L_{name}", n=k, eta=eta)
    pm.Deterministic(f"cor_{name}", L @ L.T, dims=dims)
    return L


US = Structure(
    name="us",
    n_theta=n_theta,
    start=start,
    lower=lower,
    upper=upper,
    factor=factor,
    jacobian=jacobian,
    labels=labels,
    linear=True,
    correlated=True,
    is_boundary=is_boundary,
    pymc_cholesky=pymc_cholesky,
)
