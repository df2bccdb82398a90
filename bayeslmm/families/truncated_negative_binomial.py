"""Zero-truncated negative binomial responses: counts 1, 2, 3, ..., mu the mean that they would have with their zeros."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families import negative_binomial as nb
from bayeslmm.families._counts import LOG_LINKS, check_positive, poisson_counts
from bayeslmm.families._special import log1mexp as log1mexp_and_slope
from bayeslmm.families._special import rising_excess as rising_excess_and_slope
from bayeslmm.families._zeros import arrivals, kept_mean, kept_variance, register_density
from bayeslmm.families.base import Family, Quantity, only_ones
from bayeslmm.families.jets import log1mexp
from bayeslmm.families.kernels import LOGS, Kernel

__all__ = ["TRUNCATED_NEGATIVE_BINOMIAL", "log_density", "pymc_log_density", "rows", "share", "simulate"]

type Array = np.ndarray


def log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    """Return the negative binomial log density of counts above 0 (n,), given that they are."""
    return nb.log_density(y, mean, aux, trials) - log1mexp(-nb.log_zero(mean, aux))


def rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    """Write the log density, as `log_density` has it."""
    shape = aux[0]
    for i in range(n):
        mu = mean[i]
        excess, its_slope = rising_excess_and_slope(shape, y[i])
        spread, share_of = math.log1p(mu / shape), mu / (shape * (shape + mu))
        kept, by_kept = log1mexp_and_slope(shape * spread)
        value[i] = y[i] * mean[2 * n + i] - (y[i] + shape) * spread + excess - kept
        slope[i] = y[i] * mean[3 * n + i] - (y[i] + shape * (1.0 + by_kept)) / (shape + mu) * mean[n + i]
        slope[n + i] = (y[i] + shape * (1.0 + by_kept)) * share_of - (1.0 + by_kept) * spread + its_slope / shape


def share(mu: Array, shape: Array) -> Array:
    """Return one over the probability of a count above 0."""
    return np.asarray(-1.0 / np.expm1(-shape * np.log1p(mu / shape)))


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return kept_variance(mu, nb.variance(mu, aux, trials), share(mu, aux["shape"]))


def simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    """Return counts above 0: a Poisson number of logarithmic ones, the first drawn by itself, the rest together."""
    ratio = mu / aux["shape"]
    rate = aux["shape"] * np.log1p(ratio)
    rest = (rate - arrivals(rng, rate)) / np.log1p(ratio)
    first = np.asarray(rng.logseries(np.minimum(ratio / (1.0 + ratio), np.nextafter(1.0, 0.0))), dtype=float)
    return np.asarray(first + poisson_counts(rng, rng.gamma(rest, ratio)))


def pymc_log_density(y: Any, mu: Any, shape: Any) -> Any:
    """Return the log density as a tensor, -inf at 0."""
    import pymc as pm
    import pytensor.tensor as pt

    log_zero = -shape * pt.log1p(mu / shape)
    return pt.switch(pt.ge(y, 1), pm.logp(pm.NegativeBinomial.dist(mu=mu, alpha=shape), y) - pt.log1mexp(log_zero), -np.inf)


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    return register_density(TRUNCATED_NEGATIVE_BINOMIAL, pymc_log_density, name, mu, aux, observed, weights, dims)


TRUNCATED_NEGATIVE_BINOMIAL = Family(
    name="truncated_negative_binomial",
    link="log",
    links=LOG_LINKS,
    parameters=(nb.SHAPE,),
    response="counts 1, 2, 3, ...",
    check=check_positive,
    log_density=log_density,
    variance=_variance,
    simulate=simulate,
    start=lambda y, trials: np.asarray(y, dtype=float),
    start_parameters=nb.start_parameters,
    response_mean=lambda mu, aux: kept_mean(mu, share(mu, aux["shape"])),
    kernel=Kernel(rows=rows, needs=LOGS),
    pymc=_pymc,
    discrete=True,
    latex=r"\mathrm{TruncatedNegBinomial}(\mu_i,\ \mathrm{shape})",
    extremes=only_ones,
)
