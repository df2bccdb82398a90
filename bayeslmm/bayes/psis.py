"""Pareto-smoothed importance sampling in one kernel: ArviZ's numbers, for many rows or loci at once."""

from __future__ import annotations

import math

import numba as nb
import numpy as np

__all__ = ["khats", "pareto_smooth", "tail_length"]

type Array = np.ndarray


@nb.njit(cache=True)
def tail_length(n_draws: int, efficiency: float) -> int:
    """Return how many of the largest weights are smoothed, given the draws' effective number over their number; as ArviZ."""
    if n_draws * efficiency > 225:
        return int(3.0 * math.sqrt(n_draws / efficiency))
    return n_draws // 5


@nb.njit(cache=True)
def _generalised_pareto(x: Array) -> tuple[float, float]:
    """Return k and sigma of a generalised Pareto distribution of sorted exceedances x (Zhang & Stephens 2009, as in PSIS)."""
    n = x.shape[0]
    m = 30 + int(math.sqrt(n))
    quartile = x[(n + 2) // 4 - 1]
    b = np.empty(m)
    loglik = np.empty(m)
    for i in range(m):
        b[i] = (1.0 - math.sqrt(m / (i + 0.5))) / (3.0 * quartile) + 1.0 / x[n - 1]
        k = 0.0
        for j in range(n):
            k += math.log1p(-b[i] * x[j])
        k /= n
        loglik[i] = n * (math.log(-b[i] / k) - k - 1.0)
    largest = loglik.max()
    total, mean = 0.0, 0.0
    for i in range(m):
        weight = math.exp(loglik[i] - largest)
        total += weight
        mean += weight * b[i]
    mean /= total
    k = 0.0
    for j in range(n):
        k += math.log1p(-mean * x[j])
    k /= n
    sigma = -k / mean
    return (k * n + 5.0) / (n + 10.0), sigma


@nb.njit(cache=True)
def pareto_smooth(log_weights: Array, tail: int) -> float:
    """Smooth the largest `tail` of log weights (D,) in place, normalise them to sum to one, and return k-hat.

    It is minus infinity where all weights are the same, infinite where the tail is too short to tell. Source: Vehtari, Simpson, Gelman,
    Yao & Gabry (2024), JMLR 25(72).
    """
    D = log_weights.shape[0]
    largest = log_weights.max()
    for i in range(D):
        log_weights[i] -= largest
    k = math.inf
    order = np.argsort(log_weights)
    if tail > 4:
        cut = max(log_weights[order[D - tail - 1]], math.log(2.3e-308))
        exceedance = np.empty(tail)
        for i in range(tail):
            exceedance[i] = math.exp(log_weights[order[D - tail + i]]) - math.exp(cut)
        if exceedance[0] > 0.0 and exceedance[tail - 1] - exceedance[0] > 1e-12 * exceedance[tail - 1]:
            k, sigma = _generalised_pareto(exceedance)
            for i in range(tail):
                share = (i + 0.5) / tail
                quantile = -sigma * math.log1p(-share) if abs(k) < 1e-12 else sigma * math.expm1(-k * math.log1p(-share)) / k
                log_weights[order[D - tail + i]] = min(math.log(quantile + math.exp(cut)), 0.0)
        elif exceedance[tail - 1] - exceedance[0] <= 1e-12 * max(exceedance[tail - 1], 1e-300):
            k = -math.inf
    total = 0.0
    for i in range(D):
        total += math.exp(log_weights[i])
    for i in range(D):
        log_weights[i] -= math.log(total)
    return k


@nb.njit(cache=True, nogil=True)
def khats(log_ratios: Array, tail: int) -> Array:
    """Return k-hat (n,) of each row of log importance ratios (n, S)."""
    found = np.empty(log_ratios.shape[0])
    for i in range(log_ratios.shape[0]):
        found[i] = pareto_smooth(log_ratios[i].copy(), tail)
    return found
