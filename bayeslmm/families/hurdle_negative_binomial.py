"""Hurdle negative binomial responses: 0 with probability hu, otherwise a zero-truncated negative binomial count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families import negative_binomial as nb
from bayeslmm.families import truncated_negative_binomial as truncated
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
from bayeslmm.families.truncated_negative_binomial import rows as truncated_rows

__all__ = ["HURDLE_NEGATIVE_BINOMIAL"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    return hurdled(y, truncated.log_density(y, mean, aux, trials), aux["hu"])


def _rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    truncated_rows(n, y, trials, scale, mean, aux, value, slope)
    hurdle(n, 2, y, aux[1], value, slope)


def _share(mu: Array, aux: Mapping[str, Array]) -> Array:
    return np.asarray((1.0 - aux["hu"]) * truncated.share(mu, aux["shape"]))


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return kept_variance(mu, nb.variance(mu, aux, trials), _share(mu, aux))


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return thinned(rng, truncated.simulate(rng, mu, aux, trials), aux["hu"])


def _start_parameters(y: Array, trials: Array | None) -> dict[str, float]:
    return {**nb.start_parameters(y[y > 0] if np.any(y > 0) else y, trials), **start_hurdle(y, trials)}


def _pymc_log_density(y: Any, mu: Any, shape: Any, hu: Any) -> Any:
    return pymc_hurdled(y, truncated.pymc_log_density(y, mu, shape), hu)


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    return register_density(HURDLE_NEGATIVE_BINOMIAL, _pymc_log_density, name, mu, aux, observed, weights, dims)


HURDLE_NEGATIVE_BINOMIAL = Family(
    name="hurdle_negative_binomial",
    link="log",
    links=LOG_LINKS,
    parameters=(nb.SHAPE, HU),
    response="counts 0, 1, 2, ...",
    check=check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=start_positive,
    start_parameters=_start_parameters,
    response_mean=lambda mu, aux: kept_mean(mu, _share(mu, aux)),
    kernel=Kernel(rows=_rows, needs=LOGS),
    pymc=_pymc,
    discrete=True,
    latex=r"\mathrm{HurdleNegBinomial}(\mu_i,\ \mathrm{shape},\ \mathrm{hu})",
    r_brms="hurdle_negbinomial",
)
