"""The first tier: the mode of each locus's marginal posterior and the curvature there, by Newton's method."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from bayeslmm.loci.likelihood import BINOMIAL
from bayeslmm.loci.marginal import Prior, Shape, log_posterior_derivatives

__all__ = ["CONVERGED", "FAILED", "find_mode", "find_modes"]

type Array = np.ndarray

CONVERGED, FAILED = 0, 1
"""How a search ended."""


@nb.njit(cache=True)
def _start(theta: Array, y: Array, n: Array, shape: Shape, prior: Prior) -> None:
    """Begin at the overall proportion: the coefficients that fit its logit best in the prior's metric, tau at half its scale."""
    p = shape.X.shape[1]
    total, trials = 0.5, 1.0
    for s in range(y.shape[0]):
        total += y[s]
        trials += n[s]
    logit = math.log(total / (trials - total))
    precision = np.zeros((p, p))
    right = np.zeros(p)
    for i in range(p):
        w = 1.0 / (prior.scale[i] * prior.scale[i])
        for j in range(p):
            right[j] += w * prior.A[i, j] * prior.location[i]
            for k in range(p):
                precision[j, k] += w * prior.A[i, j] * prior.A[i, k]
    for s in range(y.shape[0]):
        if n[s] > 0:
            for j in range(p):
                right[j] += shape.X[s, j] * logit
                for k in range(p):
                    precision[j, k] += shape.X[s, j] * shape.X[s, k]
    theta[:p] = np.linalg.solve(precision, right)
    theta[p] = 0.5 * prior.tau_scale
    if shape.family != BINOMIAL:
        theta[p + 1] = prior.phi_mean


@nb.njit(cache=True)
def _ascent(gradient: Array, hessian: Array, damping: float) -> tuple[Array, bool]:
    """Return the damped Newton step, with the least damping at which minus the Hessian is positive definite."""
    d = gradient.shape[0]
    M = -hessian
    for i in range(d):
        M[i, i] += damping * max(1.0, abs(hessian[i, i]))
    L = np.zeros((d, d))
    for j in range(d):
        total = M[j, j]
        for k in range(j):
            total -= L[j, k] * L[j, k]
        if not total > 1e-10 * max(1.0, abs(M[j, j])):
            return gradient, False
        L[j, j] = math.sqrt(total)
        for i in range(j + 1, d):
            rest = M[i, j]
            for k in range(j):
                rest -= L[i, k] * L[j, k]
            L[i, j] = rest / L[j, j]
    step = np.empty(d)
    for i in range(d):
        total = gradient[i]
        for k in range(i):
            total -= L[i, k] * step[k]
        step[i] = total / L[i, i]
    for i in range(d - 1, -1, -1):
        total = step[i]
        for k in range(i + 1, d):
            total -= L[k, i] * step[k]
        step[i] = total / L[i, i]
    return step, True


@nb.njit(cache=True)
def find_mode(theta: Array, y: Array, n: Array, shape: Shape, prior: Prior, modes: Array, root: Array) -> tuple[float, int]:
    """Climb from a start of its own to the mode: fill `theta` (d,) and `root` (d, d), a lower-triangular root of minus the inverse Hessian.

    Returns the log posterior there and how the search ended.
    """
    d, p = theta.shape[0], shape.X.shape[1]
    gradient, hessian = np.empty(d), np.empty((d, d))
    new_gradient, new_hessian = np.empty(d), np.empty((d, d))
    _start(theta, y, n, shape, prior)
    modes[:] = 0.0
    value = log_posterior_derivatives(theta, y, n, shape, prior, modes, gradient, hessian)
    damping, status = 0.0, FAILED
    for _ in range(100):
        step, definite = _ascent(gradient, hessian, damping)
        if not definite:
            damping = max(4.0 * damping, 1e-3)
            continue
        gain = 0.0
        largest = 0.0
        for i in range(d):
            gain += step[i] * gradient[i]
            largest = max(largest, abs(step[i]))
        if gain < 1e-7:
            status = CONVERGED
            if damping > 0.0:
                damping = 0.0
                step, definite = _ascent(gradient, hessian, 0.0)
                status = CONVERGED if definite else FAILED
            break
        if largest > 3.0:
            step = step * (3.0 / largest)
        trial = theta + step
        found = log_posterior_derivatives(trial, y, n, shape, prior, modes, new_gradient, new_hessian)
        if found > value - 1e-9 and math.isfinite(found):
            theta[:] = trial
            value = found
            gradient, new_gradient = new_gradient, gradient
            hessian, new_hessian = new_hessian, hessian
            damping = damping / 8.0 if damping > 1e-6 else 0.0
        else:
            damping = max(4.0 * damping, 1e-2)
            if damping > 1e8:
                break
    if theta[p] < 0.0:
        theta[p] = -theta[p]
        hessian[p] = -hessian[p]
        hessian[:, p] = -hessian[:, p]
    if status == CONVERGED:
        root[:] = _root_of_inverse(-hessian)
    return value, status


@nb.njit(cache=True)
def _root_of_inverse(M: Array) -> Array:
    """Return lower-triangular R with RR' = M^-1."""
    return np.linalg.cholesky(np.linalg.inv(0.5 * (M + M.T)))


@nb.njit(cache=True)
def find_modes(Y: Array, N: Array, shape: Shape, prior: Prior) -> tuple[Array, Array, Array, Array]:
    """Return of each locus (rows of Y and N) the mode (L, d), root (L, d, d), log posterior (L,) and how the search ended (L,)."""
    L = Y.shape[0]
    d = shape.X.shape[1] + (1 if shape.family == BINOMIAL else 2)
    theta, root = np.empty((L, d)), np.zeros((L, d, d))
    value, status = np.empty(L), np.empty(L, dtype=np.int64)
    modes = np.empty(shape.first.shape[0] - 1)
    for locus in range(L):
        value[locus], status[locus] = find_mode(theta[locus], Y[locus], N[locus], shape, prior, modes, root[locus])
    return theta, root, value, status
