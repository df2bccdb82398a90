"""Diagonal covariance `diag` (and `homdiag`, one variance for all): independent effects, theta their relative standard deviations."""

from __future__ import annotations

from typing import Any

import numpy as np

from bayeslmm.covariance.base import Structure

__all__ = ["DIAG", "HOMDIAG"]

type Array = np.ndarray


def _is_boundary(theta: Array, k: int, tol: float) -> bool:
    return bool(np.any(np.asarray(theta) < tol))


def _no_correlation(name: str, k: int, eta: float, dims: tuple[str, str] | None) -> Any:
    return None


def _unit_diagonals(k: int) -> Array:
    basis = np.zeros((k, k, k))
    basis[np.arange(k), np.arange(k), np.arange(k)] = 1.0
    return basis


DIAG = Structure(
    name="diag",
    n_theta=lambda k: k,
    start=lambda k: np.ones(k),
    lower=lambda k: np.zeros(k),
    upper=lambda k: np.full(k, np.inf),
    factor=lambda theta, k: np.diag(np.asarray(theta, dtype=float)),
    jacobian=lambda theta, k: _unit_diagonals(k),
    labels=lambda effects: effects,
    linear=True,
    correlated=False,
    is_boundary=_is_boundary,
    pymc_cholesky=_no_correlation,
)

HOMDIAG = Structure(
    name="homdiag",
    n_theta=lambda k: 1,
    start=lambda k: np.ones(1),
    lower=lambda k: np.zeros(1),
    upper=lambda k: np.full(1, np.inf),
    factor=lambda theta, k: np.asarray(theta, dtype=float)[0] * np.eye(k),
    jacobian=lambda theta, k: np.eye(k)[None],
    labels=lambda effects: effects if len(effects) == 1 else ("sd",),
    linear=True,
    correlated=False,
    hom=True,
    is_boundary=_is_boundary,
    pymc_cholesky=_no_correlation,
)
