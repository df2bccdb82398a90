"""The record of a random-effect covariance structure: both faces, numpy and PyMC, of one parametrisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Structure"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Structure:
    """A family of k x k covariance matrices `sigma^2 L(theta) L(theta)'`, with L lower-triangular.

    Attributes
    ----------
    name
        As in the formula's tag: `us`, `diag`, `cs`, `ar1`.
    n_theta
        `k -> int`: the length of theta.
    start, lower, upper
        `k -> (n_theta,)`: lme4's starting value (the identity matrix) and the box of theta.
    factor
        `(theta, k) -> (k, k)`: the relative Cholesky factor L.
    jacobian
        `(theta, k) -> (n_theta, k, k)`: dL / dtheta_i.
    labels
        `effects -> tuple[str, ...]`: a name for each theta, as `(Intercept)`, `Days.(Intercept)`, `Days`.
    linear
        True where L is linear in theta (`us`, `diag`): the jacobian is then constant.
    correlated
        True where the structure has correlations to report (`cor` rows of the estimates).
    hom
        True where all effects share one standard deviation.
    powers
        `k -> (k, k)`: for structures whose correlations are powers of one rho, their exponents; None for others.
    is_boundary
        `(theta, k, tol) -> bool`: lme4's `isSingular` for this structure.
    pymc_cholesky
        `(name, k, eta, dims) -> tensor or None`: in the open PyMC model, the Cholesky factor (k, k) of the *correlation*
        matrix, registering `cor_<name>`; None where the structure has no correlations. `eta`: the LKJ shape. Free
        variables: `L_<name>` (the Cholesky factor; `us`) or `rho_<name>` (in 0..1, stretched over rho's range; `cs`, `ar1`).
    """

    name: str
    n_theta: Callable[[int], int]
    start: Callable[[int], Array]
    lower: Callable[[int], Array]
    upper: Callable[[int], Array]
    factor: Callable[[Array, int], Array]
    jacobian: Callable[[Array, int], Array]
    labels: Callable[[tuple[str, ...]], tuple[str, ...]]
    linear: bool
    correlated: bool
    is_boundary: Callable[[Array, int, float], bool]
    pymc_cholesky: Callable[[str, int, float, tuple[str, str] | None], Any]
    hom: bool = False
    powers: Callable[[int], Array] | None = None
