"""The second tier: importance sampling of each locus's marginal posterior about its mode, with Pareto-smoothed weights and their k-hat."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

from bayeslmm.bayes.psis import pareto_smooth, tail_length
from bayeslmm.loci.marginal import Prior, Shape, log_posterior
from bayeslmm.loci.random import normal, stream

__all__ = ["sample_importance"]

type Array = np.ndarray

PROPOSAL_DF = 5
"""Degrees of freedom of the multivariate t that draws are proposed from: tails heavier than the posterior's."""
_STREAM = 101
"""The part of a locus's key that this tier draws from; chains are 0, 1, ..."""


@nb.njit(cache=True)
def _mirrored(draw: Array, theta: Array, root: Array, p: int, z: Array) -> float:
    """Return the squared length, in the proposal's metric, of a draw with the other sign of tau; `z` (d,) is scratch."""
    square = 0.0
    for j in range(draw.shape[0]):
        total = (-draw[j] if j == p else draw[j]) - theta[j]
        for k in range(j):
            total -= root[j, k] * z[k]
        z[j] = total / root[j, j]
        square += z[j] * z[j]
    return square


@nb.njit(cache=True)
def sample_importance(
    Y: Array, N: Array, shape: Shape, prior: Prior, theta: Array, root: Array, keys: Array, n_draws: int
) -> tuple[Array, Array, Array, Array]:
    """Return of each locus draws (L, D, d), normalised weights (L, D), k-hat (L,) and log evidence (L,; without binomial coefficients).

    `theta` (L, d), `root` (L, d, d): the modes and roots of the covariances there; `keys` (L,): of the random numbers.
    """
    L, d = theta.shape
    p = shape.X.shape[1]
    draws, weights = np.empty((L, n_draws, d)), np.empty((L, n_draws))
    khat, evidence = np.empty(L), np.empty(L)
    modes = np.empty(shape.first.shape[0] - 1)
    eta, work = np.empty(shape.X.shape[0]), np.empty(d + d * d)
    z, chi = np.empty(d), np.empty(PROPOSAL_DF)
    tail = tail_length(n_draws, 1.0)
    constant = math.lgamma(0.5 * (PROPOSAL_DF + d)) - math.lgamma(0.5 * PROPOSAL_DF) - 0.5 * d * math.log(PROPOSAL_DF * math.pi)
    for locus in range(L):
        state = stream(keys[locus], _STREAM)
        log_det = 0.0
        for i in range(d):
            log_det += math.log(root[locus, i, i])
        modes[:] = 0.0
        for i in range(n_draws):
            normal(state, z)
            normal(state, chi)
            stretch = 0.0
            for j in range(PROPOSAL_DF):
                stretch += chi[j] * chi[j]
            stretch = math.sqrt(PROPOSAL_DF / stretch)
            square = 0.0
            for j in range(d):
                z[j] *= stretch
                square += z[j] * z[j]
            for j in range(d):
                total = theta[locus, j]
                for k in range(j + 1):
                    total += root[locus, j, k] * z[k]
                draws[locus, i, j] = total
            proposal = constant - log_det - 0.5 * (PROPOSAL_DF + d) * math.log1p(square / PROPOSAL_DF)
            folded = _mirrored(draws[locus, i], theta[locus], root[locus], p, z)
            proposal += math.log1p(((PROPOSAL_DF + square) / (PROPOSAL_DF + folded)) ** (0.5 * (PROPOSAL_DF + d)))
            draws[locus, i, p] = abs(draws[locus, i, p])
            weights[locus, i] = log_posterior(draws[locus, i], Y[locus], N[locus], shape, prior, modes, eta, work) - proposal
        largest = weights[locus].max()
        total = 0.0
        for i in range(n_draws):
            total += math.exp(weights[locus, i] - largest)
        evidence[locus] = largest + math.log(total / n_draws)
        khat[locus] = pareto_smooth(weights[locus], tail)
        for i in range(n_draws):
            weights[locus, i] = math.exp(weights[locus, i])
    return draws, weights, khat, evidence
