"""Structures `diag(s) C(rho)`: relative standard deviations, one each or one for all, times a Cholesky factor of a correlation matrix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bayeslmm.covariance.base import Structure

__all__ = ["scaled_structure"]

type Array = np.ndarray


def scaled_structure(
    name: str,
    *,
    hom: bool,
    lowest: Callable[[int], float],
    correlation_factor: Callable[[float, int], tuple[Array, Array]],
    pymc_correlation: Callable[[Any, int], Any],
    powers: Callable[[int], Array],
) -> Structure:
    """Return the structure whose theta is the relative standard deviations, then rho.

    Parameters
    ----------
    name
        The structure's name.
    hom
        One standard deviation for all effects, in place of one for each.
    lowest
        `k -> ` the least rho of a valid correlation matrix; the greatest is 1.
    correlation_factor
        `(rho, k) -> (C, dC / drho)`, both (k, k): the Cholesky factor of the correlation matrix.
    pymc_correlation
        `(rho, k) ->` the correlation matrix as a tensor.
    powers
        `k -> (k, k)`: the correlations' exponents of rho.
    """

    def n_sd(k: int) -> int:
        return 1 if hom else k

    def n_theta(k: int) -> int:
        return n_sd(k) + (k > 1)

    def with_rho(sds: Array, rho: float, k: int) -> Array:
        return np.append(sds, rho) if k > 1 else sds

    def split(theta: Array, k: int) -> tuple[Array, float]:
        theta = np.asarray(theta, dtype=float)
        sds = np.broadcast_to(theta[: n_sd(k)], (k,))
        return sds, float(theta[-1]) if k > 1 else 0.0

    def factor(theta: Array, k: int) -> Array:
        sds, rho = split(theta, k)
        L: Array = sds[:, None] * correlation_factor(rho, k)[0]
        return L

    def jacobian(theta: Array, k: int) -> Array:
        sds, rho = split(theta, k)
        C, dC = correlation_factor(rho, k)
        by_sd = np.zeros((k, k, k))
        by_sd[np.arange(k), np.arange(k)] = C
        parts = [by_sd.sum(axis=0, keepdims=True) if hom else by_sd]
        return np.concatenate([*parts, (sds[:, None] * dC)[None]]) if k > 1 else parts[0]

    def labels(effects: tuple[str, ...]) -> tuple[str, ...]:
        sds = ("sd",) if hom and len(effects) > 1 else effects
        return (*sds, "rho") if len(effects) > 1 else sds

    def is_boundary(theta: Array, k: int, tol: float) -> bool:
        sds, rho = split(theta, k)
        at_limit = k > 1 and min(rho - lowest(k), 1.0 - rho) < tol
        return bool(np.any(sds < tol) or at_limit)

    def pymc_cholesky(name: str, k: int, eta: float, dims: tuple[str, str] | None) -> Any:
        """Beta(eta, eta) on rho stretched over its range: LKJ(eta) where k is 2. The free variable is `rho_<name>`."""
        import pymc as pm
        import pytensor.tensor as pt

        if k == 1:
            return None
        unit = pm.Beta(f"rho_{name}", eta, eta)
        R = pymc_correlation(lowest(k) + (1.0 - lowest(k)) * unit, k)
        pm.Deterministic(f"cor_{name}", R, dims=dims)
        return pt.linalg.cholesky(R)

    return Structure(
        name=name,
        n_theta=n_theta,
        start=lambda k: with_rho(np.ones(n_sd(k)), 0.0, k),
        lower=lambda k: with_rho(np.zeros(n_sd(k)), lowest(k), k),
        upper=lambda k: with_rho(np.full(n_sd(k), np.inf), 1.0, k),
        factor=factor,
        jacobian=jacobian,
        labels=labels,
        linear=False,
        correlated=True,
        powers=powers,
        hom=hom,
        is_boundary=is_boundary,
        pymc_cholesky=pymc_cholesky,
    )
