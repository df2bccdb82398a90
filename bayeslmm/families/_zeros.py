"""What the families with more, fewer or no zeros share: the mixture, moments of what is kept, simulation, starts, the PyMC density."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bayeslmm.families._special import log_sum
from bayeslmm.families.base import Family, Parameter, Quantity
from bayeslmm.families.jets import logaddexp, where

__all__ = [
    "HU",
    "ZI",
    "arrivals",
    "hurdle_rows",
    "hurdled",
    "inflate_rows",
    "inflated",
    "kept_mean",
    "kept_variance",
    "pymc_hurdled",
    "register_density",
    "start_hurdle",
    "start_inflated",
    "start_positive",
    "thinned",
]

type Array = np.ndarray

ZI = Parameter(name="zi", upper=1.0, link="logit", prior="beta(1, 1)", predicted_prior="logistic(0, 1)")
HU = Parameter(name="hu", upper=1.0, link="logit", prior="beta(1, 1)", predicted_prior="logistic(0, 1)")


def inflated(y: Array, log_density: Any, log_zero: Any, zi: Quantity) -> Any:
    """Return the log density (n,) of 0 with probability zi, otherwise of `log_density`, which is `log_zero` at 0."""
    return where(y == 0, logaddexp(zi.log, zi.log_complement + log_zero), zi.log_complement + log_density)


def hurdled(y: Array, log_truncated: Any, hu: Quantity) -> Any:
    """Return the log density (n,) of 0 with probability hu, otherwise of a density of counts above 0."""
    return where(y == 0, hu.log, hu.log_complement + log_truncated)


def inflate_rows(n: int, k: int, y: Any, zi: float, value: Any, slope: Any) -> None:
    """Turn rows of a kernel, of k derivatives, into those of the density with additional zeros; zi is the parameter k."""
    log_zi, log_rest = math.log(zi), math.log1p(-zi)
    for i in range(n):
        zero = 0.0
        value[i] += log_rest
        if y[i] == 0.0:
            value[i], zero = log_sum(log_zi, value[i])
        for a in range(k):
            slope[a * n + i] *= 1.0 - zero
        slope[k * n + i] = zero / zi - (1.0 - zero) / (1.0 - zi)


def hurdle_rows(n: int, k: int, y: Any, hu: float, value: Any, slope: Any) -> None:
    """Turn rows of a kernel of counts above 0, of k derivatives, into those of the density with a hurdle; hu is the parameter k."""
    for i in range(n):
        if y[i] == 0.0:
            value[i], slope[k * n + i] = math.log(hu), 1.0 / hu
            for a in range(k):
                slope[a * n + i] = 0.0
        else:
            value[i], slope[k * n + i] = value[i] + math.log1p(-hu), -1.0 / (1.0 - hu)


def kept_mean(mu: Array, share: Array) -> Array:
    """Return the mean of a count whose probabilities above 0 are those of a mean `mu`, times `share`."""
    return np.asarray(share * mu)


def kept_variance(mu: Array, variance: Array, share: Array) -> Array:
    """Return its variance, `variance` being that of the count before."""
    return np.asarray(share * (variance + np.square(mu)) - np.square(share * mu))


def thinned(rng: np.random.Generator, counts: Array, zeros: Array) -> Array:
    """Return counts, 0 with probability `zeros`."""
    return np.where(rng.random(np.shape(counts)) < zeros, 0.0, counts)


def arrivals(rng: np.random.Generator, rate: Array) -> Array:
    """Return the first arrival of a Poisson process of rate one, given that it comes before the time `rate`."""
    return np.asarray(np.minimum(-np.log1p(rng.random(np.shape(rate)) * np.expm1(-rate)), rate))


def start_positive(y: Array, trials: Array | None) -> Array:
    """Return counts (n,), the mean of those above 0 in place of a 0, which may be of the other kind."""
    return np.where(y > 0, y, np.mean(y[y > 0]) if np.any(y > 0) else 0.5)


def start_inflated(y: Array, trials: Array | None) -> dict[str, float]:
    """Return zi as half the share of zeros."""
    return {"zi": float(np.clip(0.5 * np.mean(y == 0), 0.02, 0.9))}


def start_hurdle(y: Array, trials: Array | None) -> dict[str, float]:
    """Return hu as the share of zeros."""
    return {"hu": float(np.clip(np.mean(y == 0), 0.02, 0.98))}


def pymc_hurdled(y: Any, log_truncated: Any, hu: Any) -> Any:
    """Return `hurdled` as a tensor."""
    import pytensor.tensor as pt

    return pt.switch(pt.eq(y, 0), pt.log(hu), pt.log1p(-hu) + log_truncated)


def register_density(
    family: Family,
    log_density: Callable[..., Any],
    name: str,
    mu: Any,
    aux: Mapping[str, Any],
    observed: Any,
    weights: Array | None,
    dims: str | None,
) -> Any:
    """Register a likelihood that PyMC lacks, `log_density(y, mu, *further parameters)`, simulated as the family's numpy face does."""
    import pymc as pm

    names = [parameter.name for parameter in family.parameters]

    def random(*values: Any, rng: np.random.Generator, size: Any) -> Array:
        mean, *further = (np.broadcast_to(value, size) if size is not None else np.asarray(value) for value in values)
        return np.asarray(family.simulate(rng, mean, dict(zip(names, further, strict=True)), None)).astype(int)

    values = [mu, *(aux[parameter] for parameter in names)]
    variable = pm.CustomDist(name, *values, logp=log_density, random=random, observed=observed, dims=dims, dtype="int64")
    if weights is not None:
        pm.Potential(f"{name}_power", ((weights - 1.0) * log_density(observed, *values)).sum())
    return variable
