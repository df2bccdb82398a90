"""Hurdle Poisson responses: 0 with probability hu, otherwise a zero-truncated Poisson count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families import truncated_poisson as truncated
from bayeslmm.families._counts import LOG_LINKS, check
from bayeslmm.families._zeros import (
    HU,
    hurdled,
    kept_mean,
    kept_variance,
    pymc_hurdled,
    register_density,
    start_hurdle,
    start_positive,
    thinned,
)
from bayeslmm.families._zeros import hurdle_rows as hurdle
from bayeslmm.families.base import Family, Quantity
from bayeslmm.families.kernels import LOGS, Kernel
from bayeslmm.families.truncated_poisson import rows as truncated_rows

__all__ = ["HURDLE_POISSON"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    return hurdled(y, truncated.log_density(y, mean, aux, trials), aux["hu"])


def _rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    truncated_rows(n, y, trials, scale, mean, aux, value, slope)
    hurdle(n, 1, y, aux[0], value, slope)


def _share(mu: Array, aux: Mapping[str, Array]) -> Array:
    return np.asarray((1.0 - aux["hu"]) * truncated.share(mu))


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return kept_variance(mu, mu, _share(mu, aux))


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return thinned(rng, truncated.simulate(rng, mu, aux, trials), aux["hu"])


def _pymc_log_density(y: Any, mu: Any, hu: Any) -> Any:
    return pymc_hurdled(y, truncated.pymc_log_density(y, mu), hu)


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    return register_density(HURDLE_POISSON, _pymc_log_density, name, mu, aux, observed, weights, dims)


HURDLE_POISSON = Family(
    name="hurdle_poisson",
    link="log",
    links=LOG_LINKS,
    parameters=(HU,),
    response="counts 0, 1, 2, ...",
    check=check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=start_positive,
    start_parameters=start_hurdle,
    response_mean=lambda mu, aux: kept_mean(mu, _share(mu, aux)),
    kernel=Kernel(rows=_rows, needs=LOGS),
    pymc=_pymc,
    discrete=True,
    latex=r"\mathrm{HurdlePoisson}(\mu_i,\ \mathrm{hu})",
    r_brms="hurdle_poisson",
)
