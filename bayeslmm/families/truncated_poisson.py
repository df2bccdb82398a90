"""Zero-truncated Poisson responses: counts 1, 2, 3, ..., mu the mean that they would have with their zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families import poisson
from bayeslmm.families._counts import LOG_LINKS, check_positive, poisson_counts
from bayeslmm.families._special import log1mexp as log1mexp_and_slope
from bayeslmm.families._zeros import arrivals, kept_mean, kept_variance, register_density
from bayeslmm.families.base import Family, Quantity, only_ones
from bayeslmm.families.jets import log1mexpexp
from bayeslmm.families.kernels import LOGS, Kernel

__all__ = ["TRUNCATED_POISSON", "log_density", "pymc_log_density", "rows", "share", "simulate"]

type Array = np.ndarray


def log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    """Return the Poisson log density of counts above 0 (n,), given that they are."""
    return poisson.log_density(y, mean, aux, trials) - log1mexpexp(mean.log)


def rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    """Write y log mu - mu - log(1 - exp(-mu))."""
    for i in range(n):
        kept, its_slope = log1mexp_and_slope(mean[i])
        value[i] = y[i] * mean[2 * n + i] - mean[i] - kept
        slope[i] = y[i] * mean[3 * n + i] - (1.0 + its_slope) * mean[n + i]


def share(mu: Array) -> Array:
    """Return one over the probability of a count above 0."""
    return np.asarray(-1.0 / np.expm1(-mu))


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return kept_variance(mu, mu, share(mu))


def simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    """Return Poisson counts above 0: the first arrival, then those of the time that is left."""
    return 1.0 + poisson_counts(rng, mu - arrivals(rng, mu))


def pymc_log_density(y: Any, mu: Any) -> Any:
    """Return the log density as a tensor, -inf at 0."""
    import pymc as pm
    import pytensor.tensor as pt

    return pt.switch(pt.ge(y, 1), pm.logp(pm.Poisson.dist(mu=mu), y) - pt.log1mexp(-mu), -np.inf)


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    return register_density(TRUNCATED_POISSON, pymc_log_density, name, mu, aux, observed, weights, dims)


TRUNCATED_POISSON = Family(
    name="truncated_poisson",
    link="log",
    links=LOG_LINKS,
    response="counts 1, 2, 3, ...",
    check=check_positive,
    log_density=log_density,
    variance=_variance,
    simulate=simulate,
    start=lambda y, trials: np.asarray(y, dtype=float),
    response_mean=lambda mu, aux: kept_mean(mu, share(mu)),
    kernel=Kernel(rows=rows, needs=LOGS),
    pymc=_pymc,
    discrete=True,
    latex=r"\mathrm{TruncatedPoisson}(\mu_i)",
    extremes=only_ones,
)
