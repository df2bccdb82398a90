"""Zero-inflated negative binomial responses: 0 with probability zi, otherwise a count of mean mu and variance mu + mu^2 / shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families import negative_binomial as nb
from bayeslmm.families._counts import LOG_LINKS, check
from bayeslmm.families._zeros import ZI, inflated, kept_mean, kept_variance, start_inflated, start_positive, thinned
from bayeslmm.families._zeros import inflate_rows as inflate
from bayeslmm.families.base import Family, Quantity, no_count, register_likelihood
from bayeslmm.families.kernels import LOGS, Kernel
from bayeslmm.families.negative_binomial import rows as nb_rows

__all__ = ["ZERO_INFLATED_NEGATIVE_BINOMIAL"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    return inflated(y, nb.log_density(y, mean, aux, trials), nb.log_zero(mean, aux), aux["zi"])


def _rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    nb_rows(n, y, trials, scale, mean, aux, value, slope)
    inflate(n, 2, y, aux[1], value, slope)


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return kept_variance(mu, nb.variance(mu, aux, trials), 1.0 - aux["zi"])


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return thinned(rng, nb.NEGATIVE_BINOMIAL.simulate(rng, mu, aux, trials), aux["zi"])


def _start_parameters(y: Array, trials: Array | None) -> dict[str, float]:
    return {"shape": 1.0, **start_inflated(y, trials)}


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    parameters = {"psi": 1.0 - aux["zi"], "mu": mu, "alpha": aux["shape"]}
    return register_likelihood(pm.ZeroInflatedNegativeBinomial, name, parameters, observed, weights, dims)


ZERO_INFLATED_NEGATIVE_BINOMIAL = Family(
    name="zero_inflated_negative_binomial",
    link="log",
    links=LOG_LINKS,
    parameters=(nb.SHAPE, ZI),
    response="counts 0, 1, 2, ...",
    check=check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=start_positive,
    start_parameters=_start_parameters,
    response_mean=lambda mu, aux: kept_mean(mu, 1.0 - aux["zi"]),
    kernel=Kernel(rows=_rows, needs=LOGS),
    pymc=_pymc,
    discrete=True,
    latex=r"\mathrm{ZeroInflatedNegBinomial}(\mu_i,\ \mathrm{shape},\ \mathrm{zi})",
    extremes=no_count,
    r_brms="zero_inflated_negbinomial",
)
