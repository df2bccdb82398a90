"""Poisson responses: counts 0, 1, 2, ..., mu the expected count."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import gammaln

from bayeslmm.families._counts import LOG_LINKS, check, poisson_counts, start
from bayeslmm.families.base import Family, Quantity, no_count, register_likelihood
from bayeslmm.families.jets import Taylor, times
from bayeslmm.families.kernels import LOGS, Kernel

__all__ = ["POISSON", "log_density", "rows"]

type Array = np.ndarray


def log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    """Return the Poisson log density of counts (n,), jet or array."""
    return times(y, mean.log) - mean.value - gammaln(y + 1.0)


def _on_log(y: Array, etas: Array, trials: Array | None, order: int) -> Taylor:
    """The log density and its derivatives with mu = exp(eta)."""
    mu = np.exp(etas[0])
    value = y * etas[0] - mu - gammaln(y + 1.0)
    d1 = y - mu if order > 0 else np.empty(0)
    d2, d3 = (-mu if order > m else np.empty(0) for m in (1, 2))
    return Taylor(value=value, d1=d1[None], d2=d2[None, None], d3=d3[None, None, None])


def rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    """Write y log mu - mu."""
    for i in range(n):
        value[i] = y[i] * mean[2 * n + i] - mean[i]
        slope[i] = y[i] * mean[3 * n + i] - mean[n + i]


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(mu, dtype=float)


def _information(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(1.0 / mu)


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return poisson_counts(rng, mu)


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.Poisson, name, {"mu": mu}, observed, weights, dims)


POISSON = Family(
    name="poisson",
    link="log",
    links=LOG_LINKS,
    response="counts 0, 1, 2, ...",
    check=check,
    log_density=log_density,
    variance=_variance,
    simulate=_simulate,
    start=start,
    information=_information,
    closed=MappingProxyType({("log",): _on_log}),
    kernel=Kernel(rows=rows, needs=LOGS),
    pymc=_pymc,
    discrete=True,
    latex=r"\mathrm{Poisson}(\mu_i)",
    extremes=no_count,
    r_lme4="poisson",
    r_brms="poisson",
)
