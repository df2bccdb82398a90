"""Adaptive Gauss-Hermite quadrature of -2 log L of a model with one scalar random term, and its exact gradient.

A level's integral over u of exp(l - u^2 / 2) is taken at nodes about its mode, spread by the curvature there: u_q = u_hat + sqrt(2/S) x_q.
All constants are in, so that one node is Laplace's approximation and results compare between numbers of nodes (lme4's do not). The
gradient lets the nodes move with the mode and its curvature, and so is that of what is computed.
Source: Pinheiro & Bates (1995), J. Comput. Graph. Stat. 4(1).
"""

from __future__ import annotations

from functools import cache

import numpy as np

from bayeslmm.classical.engine import slope_of
from bayeslmm.classical.generalised import Glmm, by_coefficients
from bayeslmm.classical.laplace import at_mode

__all__ = ["MAX_NODES", "quadrature"]

type Array = np.ndarray

MAX_NODES = 50


@cache
def _nodes(k: int) -> tuple[Array, Array]:
    """Return nodes x of exp(-x^2) (k,), symmetric, and log(w exp(x^2) / sqrt(pi))."""
    x, w = np.polynomial.hermite.hermgauss(k)
    x, w = (x - x[::-1]) / 2.0, (w + w[::-1]) / 2.0
    return x, np.log(w) + x**2 - 0.5 * np.log(np.pi)


def quadrature(problem: Glmm, x: Array, k: int) -> tuple[float, Array]:
    """Return -2 log L by k nodes a level and its gradient at x = (coefficients, t); infinite as `laplace` is.

    The model has one random term with a single effect: the columns of `problem.rows` are one.
    """
    mode, lam = at_mode(problem, x)
    if mode is None or np.isnan(mode.logdet):
        return np.inf, np.zeros_like(x)
    rows, own, L = problem.rows, int(problem.rows.predictor[0]), float(lam[0])
    z, level, size = rows.z[0], rows.at[0], problem.system.n_columns
    D = np.bincount(level, mode.W[own, own] * z**2, size)
    S = 1.0 + L**2 * D
    nodes, log_weights = _nodes(k)
    u = mode.u + np.sqrt(2.0 / S) * nodes[:, None]
    log_f, d1 = _at_nodes(problem, mode.eta, L * z * (u - mode.u)[:, level], own)
    terms = np.stack([np.bincount(level, row, size) for row in log_f]) - 0.5 * u**2 + log_weights[:, None]
    largest = np.max(terms, axis=0)
    share = np.exp(terms - largest)
    total = np.sum(share, axis=0)
    share /= total
    value = -2.0 * float(np.sum(largest + np.log(total))) + float(np.sum(np.log(S)))

    slopes = np.stack([np.bincount(level, z * row, size) for row in d1[:, own]])
    pull = L * slopes - u
    by_mode = -2.0 * np.sum(share * pull, axis=0)
    by_log_S = 1.0 + np.sum(share * pull * nodes[:, None], axis=0) * np.sqrt(2.0 / S)
    c = -(by_log_S * L**2 / S)[level] * z**2 * mode.d3[own, own]
    t = (by_mode + L * np.bincount(level, z * c[own], size)) / S
    e = -2.0 * np.einsum("qn,qkn->kn", share[:, level], d1) + c - mode.W[own] * (z * (L * t)[level])
    by_L = np.sum(-2.0 * np.sum(share * slopes * u, axis=0) + 2.0 * by_log_S * L * D / S)
    by_L += np.sum(np.bincount(level, z * c[own], size) * mode.u + t * np.bincount(level, z * mode.d1[own], size) - L * t * D * mode.u)
    gradient = np.concatenate([by_coefficients(problem.predictors, e), slope_of(problem, x[problem.p :], np.array([by_L]))])
    return (value, gradient) if np.all(np.isfinite(gradient)) else (np.inf, np.zeros_like(x))


def _at_nodes(problem: Glmm, eta: Array, moved: Array, own: int) -> tuple[Array, Array]:
    """Return the rows' log-likelihood (k, n) and its slopes (k, K, n) at every node; `moved` (k, n): how far eta is from the mode's."""
    values, slopes = [], []
    for shift in moved:
        there = eta.copy()
        there[own] += shift
        with np.errstate(all="ignore"):
            found = problem.likelihood(there, 1)
        usable = np.isfinite(found.value)
        values.append(np.where(usable, found.value, -np.inf))
        slopes.append(np.where(usable, found.d1, 0.0))
    return np.stack(values), np.stack(slopes)
