"""The marginal log-posterior of one locus: one random effect integrated out by adaptive Gauss-Hermite quadrature.

theta = (beta (p), tau, and for the beta-binomial log phi); eta_s = x_s beta + tau z_s u_g(s) with u_g ~ N(0, 1). The density is an even
function of tau, which thus has a sign that means nothing, and no limit at zero, where many loci have their mode. For each group, the
nodes stand about the mode of its integrand, scaled by the curvature there (Liu & Pierce 1994; Pinheiro & Bates 1995). Gradient and
Hessian are the posterior moments of the complete data's over the nodes (Fisher's identity; Louis 1982). Rows are sorted by group.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba as nb
import numpy as np

from bayeslmm.loci.likelihood import BINOMIAL, row, row_value

__all__ = ["Prior", "Shape", "log_posterior", "log_posterior_derivatives", "log_prior", "nodes"]

type Array = np.ndarray


_AT, _NEAR = 1e-4, 0.2
"""How near to its mode, in its scale, a group's nodes stand: for derivatives; for values, where quadrature makes up for the rest."""


class Shape(NamedTuple):
    """What all loci share: the design of the samples, in an order in which groups stand together.

    `X` (S, p); `z` (S,) what the random effect is multiplied by; `first` (G + 1,) where each group's rows begin; `family` code;
    `nodes`, `weights` (K,) of Gauss-Hermite quadrature, weights as logarithms with x^2 added.
    """

    X: Array
    z: Array
    first: Array
    family: int
    nodes: Array
    weights: Array


class Prior(NamedTuple):
    """The priors: of A beta, independent Student's t (df infinite: normal) about `location` with `scale`; of tau and log phi.

    `A` (p, p); `location`, `scale`, `df` (p,); tau: half Student's t with `tau_df`, `tau_scale`; log phi: normal with `phi_mean`, `phi_sd`.
    """

    A: Array
    location: Array
    scale: Array
    df: Array
    tau_df: float
    tau_scale: float
    phi_mean: float
    phi_sd: float


def nodes(k: int) -> tuple[Array, Array]:
    """Return nodes and log weights (x^2 added) of k-point Gauss-Hermite quadrature."""
    x, w = np.polynomial.hermite.hermgauss(k)
    return x, np.log(w) + x**2


@nb.njit(cache=True)
def _student(t: float, df: float) -> tuple[float, float, float]:
    """Return the log density of a standard Student's t (df infinite: normal) at t and its two derivatives."""
    if math.isinf(df):
        return -0.5 * t * t - 0.5 * math.log(2.0 * math.pi), -t, -1.0
    inside = 1.0 + t * t / df
    constant = math.lgamma(0.5 * (df + 1.0)) - math.lgamma(0.5 * df) - 0.5 * math.log(df * math.pi)
    first = -(df + 1.0) * t / (df * inside)
    return constant - 0.5 * (df + 1.0) * math.log(inside), first, -(df + 1.0) / df * (1.0 - t * t / df) / (inside * inside)


@nb.njit(cache=True)
def log_prior(theta: Array, family: int, prior: Prior, gradient: Array, hessian: Array) -> float:
    """Return the log prior density of theta (of tau: that of |tau|), adding its derivatives to `gradient` and `hessian`."""
    p = prior.A.shape[0]
    value = 0.0
    for i in range(p):
        deviation = -prior.location[i]
        for j in range(p):
            deviation += prior.A[i, j] * theta[j]
        level, first, second = _student(deviation / prior.scale[i], prior.df[i])
        value += level - math.log(prior.scale[i])
        for j in range(p):
            gradient[j] += first * prior.A[i, j] / prior.scale[i]
            for k in range(p):
                hessian[j, k] += second * prior.A[i, j] * prior.A[i, k] / (prior.scale[i] * prior.scale[i])
    level, first, second = _student(float(theta[p]) / prior.tau_scale, prior.tau_df)
    value += level + math.log(2.0 / prior.tau_scale)
    gradient[p] += first / prior.tau_scale
    hessian[p, p] += second / (prior.tau_scale * prior.tau_scale)
    if family != BINOMIAL:
        level, first, second = _student((theta[p + 1] - prior.phi_mean) / prior.phi_sd, math.inf)
        value += level - math.log(prior.phi_sd)
        gradient[p + 1] += first / prior.phi_sd
        hessian[p + 1, p + 1] += second / (prior.phi_sd * prior.phi_sd)
    return value


@nb.njit(cache=True)
def _group_mode(
    shape: Shape, y: Array, n: Array, eta: Array, tau: float, phi: float, g: int, start: float, tolerance: float
) -> tuple[float, float]:
    """Return the mode of a group's integrand over u, within `tolerance` scales, and the scale there, by Newton steps from `start`."""
    u, scale = start, 1.0
    for _ in range(30):
        slope, curvature = -u, 1.0
        for s in range(shape.first[g], shape.first[g + 1]):
            step = tau * shape.z[s]
            _, l_e, l_ee, _, _, _ = row(shape.family, eta[s] + step * u, y[s], n[s], phi)
            slope += step * l_e
            curvature -= step * step * l_ee
        curvature = max(curvature, 1.0)
        scale = 1.0 / math.sqrt(curvature)
        change = max(-2.0, min(2.0, slope / curvature))
        u += change
        if abs(change) < tolerance * scale:
            break
    return u, scale


@nb.njit(cache=True)
def log_posterior(theta: Array, y: Array, n: Array, shape: Shape, prior: Prior, modes: Array, eta: Array, work: Array) -> float:
    """Return the log marginal posterior density of theta (d,), up to the data's binomial coefficients.

    `modes` (G,) holds starts of the groups' modes and takes the new ones; `eta` (S,) and `work` (d + d d,) are scratch.
    """
    S, p = shape.X.shape
    d = theta.shape[0]
    work[:] = 0.0
    value = log_prior(theta, shape.family, prior, work[:d], work[d:].reshape(d, d))
    tau = float(theta[p])
    phi = math.exp(theta[p + 1]) if shape.family != BINOMIAL else 0.0
    for s in range(S):
        total = 0.0
        for j in range(p):
            total += shape.X[s, j] * theta[j]
        eta[s] = total
    K = shape.nodes.shape[0]
    for g in range(shape.first.shape[0] - 1):
        mode, scale = _group_mode(shape, y, n, eta, tau, phi, g, modes[g], _NEAR)
        modes[g] = mode
        largest, total = -math.inf, 0.0
        for k in range(K):
            u = mode + math.sqrt(2.0) * scale * shape.nodes[k]
            term = shape.weights[k] - 0.5 * u * u
            for s in range(shape.first[g], shape.first[g + 1]):
                term += row_value(shape.family, eta[s] + tau * shape.z[s] * u, y[s], n[s], phi)
            if term > largest:
                total = total * math.exp(largest - term) + 1.0
                largest = term
            else:
                total += math.exp(term - largest)
        value += largest + math.log(total) + math.log(scale) - 0.5 * math.log(math.pi)
    return value


@nb.njit(cache=True)
def _add_row(
    k: int, s: int, u: float, theta: Array, eta: Array, y: Array, n: Array, phi: float, shape: Shape, v: Array, scores: Array, curved: Array
) -> float:
    """Add row s's score and Hessian at node u to those of node k (lower triangle); return its log-likelihood. `v` (p + 1,): scratch."""
    p, d = shape.X.shape[1], theta.shape[0]
    level, l_e, l_ee, l_a, l_ea, l_aa = row(shape.family, eta[s] + theta[p] * shape.z[s] * u, y[s], n[s], phi)
    v[:p] = shape.X[s]
    v[p] = shape.z[s] * u
    for i in range(p + 1):
        scores[k, i] += l_e * v[i]
        for j in range(i + 1):
            curved[k, i, j] += l_ee * v[i] * v[j]
    if d > p + 1:
        scores[k, p + 1] += l_a
        for j in range(p + 1):
            curved[k, p + 1, j] += l_ea * v[j]
        curved[k, p + 1, p + 1] += l_aa
    return level


@nb.njit(cache=True)
def _add_moments(weights: Array, scores: Array, curved: Array, gradient: Array, hessian: Array) -> None:
    """Add a group's gradient and Hessian: moments over the nodes, whose `weights` (K,) sum to one."""
    K, d = scores.shape
    for i in range(d):
        mean = 0.0
        for k in range(K):
            mean += weights[k] * scores[k, i]
        gradient[i] += mean
        for j in range(i + 1):
            second, other = 0.0, 0.0
            for k in range(K):
                second += weights[k] * (curved[k, i, j] + scores[k, i] * scores[k, j])
                other += weights[k] * scores[k, j]
            hessian[i, j] += second - mean * other
            if j < i:
                hessian[j, i] += second - mean * other


@nb.njit(cache=True)
def log_posterior_derivatives(
    theta: Array, y: Array, n: Array, shape: Shape, prior: Prior, modes: Array, gradient: Array, hessian: Array
) -> float:
    """Return the log marginal posterior density and fill `gradient` (d,) and `hessian` (d, d)."""
    p, d, K = shape.X.shape[1], theta.shape[0], shape.nodes.shape[0]
    gradient[:] = 0.0
    hessian[:] = 0.0
    value = log_prior(theta, shape.family, prior, gradient, hessian)
    phi = math.exp(theta[p + 1]) if shape.family != BINOMIAL else 0.0
    eta = shape.X @ theta[:p]
    terms, scores, curved, v = np.empty(K), np.empty((K, d)), np.empty((K, d, d)), np.empty(p + 1)
    for g in range(shape.first.shape[0] - 1):
        mode, scale = _group_mode(shape, y, n, eta, float(theta[p]), phi, g, modes[g], _AT)
        modes[g] = mode
        scores[:] = 0.0
        curved[:] = 0.0
        for k in range(K):
            u = mode + math.sqrt(2.0) * scale * shape.nodes[k]
            terms[k] = shape.weights[k] - 0.5 * u * u
            for s in range(shape.first[g], shape.first[g + 1]):
                terms[k] += _add_row(k, s, u, theta, eta, y, n, phi, shape, v, scores, curved)
        largest = terms.max()
        terms[:] = np.exp(terms - largest)
        total = terms.sum()
        value += largest + math.log(total) + math.log(scale) - 0.5 * math.log(math.pi)
        terms /= total
        _add_moments(terms, scores, curved, gradient, hessian)
    return value
