"""Negative binomial responses, counts with variance mu + mu^2 / shape (NB2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import gammaln

from bayeslmm.families._counts import LOG_LINKS, check, poisson_counts, start
from bayeslmm.families._special import rising_excess as rising_excess_and_slope
from bayeslmm.families.base import Family, Parameter, Quantity, no_count, register_likelihood
from bayeslmm.families.jets import log1p, rising_excess, times
from bayeslmm.families.kernels import LOGS, Kernel

__all__ = ["NEGATIVE_BINOMIAL", "SHAPE", "log_density", "log_zero", "rows", "start_parameters", "variance"]

type Array = np.ndarray


SHAPE = Parameter(name="shape", prior="inv_gamma(0.4, 0.3)")


def log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    """Return the log density (n,) of counts, jet or array: it goes to Poisson's as the shape grows, without cancellation."""
    shape = aux["shape"].value
    constant = rising_excess(aux["shape"].log, y) - gammaln(y + 1.0)
    return times(y, mean.log) - (y + shape) * log1p(mean.value / shape) + constant


def rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    """Write the log density, as `log_density` has it."""
    shape = aux[0]
    for i in range(n):
        mu = mean[i]
        excess, its_slope = rising_excess_and_slope(shape, y[i])
        spread = math.log1p(mu / shape)
        value[i] = y[i] * mean[2 * n + i] - (y[i] + shape) * spread + excess
        slope[i] = y[i] * mean[3 * n + i] - (y[i] + shape) / (shape + mu) * mean[n + i]
        slope[n + i] = (y[i] + shape) * mu / (shape * (shape + mu)) - spread + its_slope / shape


def log_zero(mean: Quantity, aux: Mapping[str, Quantity]) -> Any:
    """Return the log probability of a count of 0."""
    shape = aux["shape"].value
    return -(shape * log1p(mean.value / shape))


def variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    """Return mu + mu^2 / shape (n,)."""
    return np.asarray(mu + np.square(mu) / aux["shape"])


def _information(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(1.0 / variance(mu, aux, trials))


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    shape = np.broadcast_to(aux["shape"], np.shape(mu))
    return poisson_counts(rng, rng.gamma(shape, mu / shape))


def start_parameters(y: Array, trials: Array | None) -> dict[str, float]:
    """Return the shape by moments."""
    mean, spread = float(np.mean(y)), float(np.var(y))
    return {"shape": float(np.clip(mean**2 / max(spread - mean, 1e-8), 0.1, 100.0))}


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.NegativeBinomial, name, {"mu": mu, "alpha": aux["shape"]}, observed, weights, dims)


NEGATIVE_BINOMIAL = Family(
    name="negative_binomial",
    link="log",
    links=LOG_LINKS,
    parameters=(SHAPE,),
    response="counts 0, 1, 2, ...",
    check=check,
    log_density=log_density,
    variance=variance,
    simulate=_simulate,
    start=start,
    start_parameters=start_parameters,
    information=_information,
    kernel=Kernel(rows=rows, needs=LOGS),
    pymc=_pymc,
    discrete=True,
    extremes=no_count,
    latex=r"\mathrm{NegBinomial}(\mu_i,\ \mathrm{shape})",
    r_lme4="glmer.nb",
    r_brms="negbinomial",
)
