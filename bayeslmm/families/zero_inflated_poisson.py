"""Zero-inflated Poisson responses: 0 with probability zi, otherwise a Poisson count of mean mu."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families import poisson
from bayeslmm.families._counts import LOG_LINKS, check
from bayeslmm.families._zeros import ZI, inflated, kept_mean, kept_variance, start_inflated, start_positive, thinned
from bayeslmm.families._zeros import inflate_rows as inflate
from bayeslmm.families.base import Family, Quantity, no_count, register_likelihood
from bayeslmm.families.kernels import LOGS, Kernel
from bayeslmm.families.poisson import rows as poisson_rows

__all__ = ["ZERO_INFLATED_POISSON"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    return inflated(y, poisson.log_density(y, mean, aux, trials), -mean.value, aux["zi"])


def _rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    poisson_rows(n, y, trials, scale, mean, aux, value, slope)
    inflate(n, 1, y, aux[0], value, slope)


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return kept_variance(mu, mu, 1.0 - aux["zi"])


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return thinned(rng, poisson.POISSON.simulate(rng, mu, aux, trials), aux["zi"])


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.ZeroInflatedPoisson, name, {"psi": 1.0 - aux["zi"], "mu": mu}, observed, weights, dims)


ZERO_INFLATED_POISSON = Family(
    name="zero_inflated_poisson",
    link="log",
    links=LOG_LINKS,
    parameters=(ZI,),
    response="counts 0, 1, 2, ...",
    check=check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=start_positive,
    start_parameters=start_inflated,
    response_mean=lambda mu, aux: kept_mean(mu, 1.0 - aux["zi"]),
    kernel=Kernel(rows=_rows, needs=LOGS),
    pymc=_pymc,
    discrete=True,
    latex=r"\mathrm{ZeroInflatedPoisson}(\mu_i,\ \mathrm{zi})",
    extremes=no_count,
    r_brms="zero_inflated_poisson",
)
