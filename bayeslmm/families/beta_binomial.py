"""Beta-binomial responses: successes out of known trials whose probability is itself a draw of a beta(mu phi, (1 - mu) phi)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families._binomial import LINKS_OF_PROBABILITIES, check, log_choose, start
from bayeslmm.families._special import rising_excess as rising_excess_and_slope
from bayeslmm.families.base import Family, Parameter, Quantity, none_or_all, register_likelihood
from bayeslmm.families.jets import rising_excess, times
from bayeslmm.families.kernels import PROBABILITY, Kernel

__all__ = ["BETA_BINOMIAL"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    n, log_phi = np.asarray(1.0 if trials is None else trials), aux["phi"].log
    spread = rising_excess(mean.log + log_phi, y) + rising_excess(mean.log_complement + log_phi, n - y) - rising_excess(log_phi, n)
    return times(y, mean.log) + times(n - y, mean.log_complement) + spread + log_choose(y, trials)


def _rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    phi = aux[0]
    for i in range(n):
        hits, misses = y[i], trials[i] - y[i]
        upper, by_upper = rising_excess_and_slope(mean[i] * phi, hits)
        lower, by_lower = rising_excess_and_slope((1.0 - mean[i]) * phi, misses)
        both, by_both = rising_excess_and_slope(phi, trials[i])
        total, derivative = upper + lower - both, 0.0
        if hits > 0.0:
            total, derivative = total + hits * mean[2 * n + i], (hits + by_upper) * mean[3 * n + i]
        if misses > 0.0:
            total, derivative = total + misses * mean[4 * n + i], derivative + (misses + by_lower) * mean[5 * n + i]
        value[i], slope[i] = total, derivative
        slope[n + i] = (by_upper + by_lower - by_both) / phi


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    n = 1.0 if trials is None else trials
    return np.asarray(n * mu * (1.0 - mu) * (1.0 + (n - 1.0) / (1.0 + aux["phi"])))


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    n = np.ones(np.shape(mu)) if trials is None else trials
    return np.asarray(rng.binomial(np.asarray(n).astype(int), rng.beta(mu * aux["phi"], (1.0 - mu) * aux["phi"])), dtype=float)


def _start_parameters(y: Array, trials: Array | None) -> dict[str, float]:
    n = np.ones_like(y) if trials is None else trials
    pooled, single = float(np.sum(y) / np.sum(n)), float(np.mean(1.0 / n))
    ratio = float(np.var(y / n)) / max(pooled * (1.0 - pooled), 1e-8)
    within = float(np.clip((ratio - single) / max(1.0 - single, 1e-8), 0.01, 0.9))
    return {"phi": 1.0 / within - 1.0}


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    parameters = {"n": 1 if trials is None else trials, "alpha": mu * aux["phi"], "beta": (1.0 - mu) * aux["phi"]}
    return register_likelihood(pm.BetaBinomial, name, parameters, observed, weights, dims)


BETA_BINOMIAL = Family(
    name="beta_binomial",
    link="logit",
    links=LINKS_OF_PROBABILITIES,
    parameters=(Parameter(name="phi", prior="gamma(0.01, 0.01)"),),
    response="successes 0, 1, ..., trials (`cbind(successes, failures)` or `k | trials(n)`)",
    check=check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=start,
    start_parameters=_start_parameters,
    kernel=Kernel(rows=_rows, needs=PROBABILITY),
    pymc=_pymc,
    discrete=True,
    extremes=none_or_all,
    needs_trials=True,
    latex=r"\mathrm{BetaBinomial}(n_i,\ p_i,\ \phi)",
    latex_mean="p_i",
    r_brms="beta_binomial",
)
