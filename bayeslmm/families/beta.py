"""Beta responses, proportions above 0 and below 1: mean mu, precision phi, variance mu (1 - mu) / (1 + phi)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families._binomial import LINKS_OF_PROBABILITIES
from bayeslmm.families._special import digamma as digamma_of
from bayeslmm.families.base import Family, Parameter, Quantity, register_likelihood
from bayeslmm.families.jets import gammaln
from bayeslmm.families.kernels import VALUE, Kernel

__all__ = ["BETA"]

type Array = np.ndarray


def _check(y: Array, trials: Array | None) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(~((y > 0) & (y < 1)))


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    phi = aux["phi"].value
    a, b = mean.value * phi, mean.complement * phi
    poles = mean.log + mean.log_complement + aux["phi"].log
    constant = gammaln(1.0 + phi) - gammaln(1.0 + a) - gammaln(1.0 + b) + poles
    return constant + (a - 1.0) * np.log(y) + (b - 1.0) * np.log1p(-y)


def _rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    phi = aux[0]
    constant, by_phi = math.lgamma(phi), digamma_of(phi)
    for i in range(n):
        mu = mean[i]
        a, b = mu * phi, (1.0 - mu) * phi
        log_y, log_rest = math.log(y[i]), math.log1p(-y[i])
        by_a, by_b = log_y - digamma_of(a), log_rest - digamma_of(b)
        value[i] = constant - math.lgamma(a) - math.lgamma(b) + a * log_y + b * log_rest
        slope[i] = (by_a - by_b) * phi * mean[n + i]
        slope[n + i] = by_phi + mu * by_a + (1.0 - mu) * by_b


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(mu * (1.0 - mu) / (1.0 + aux["phi"]))


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    tiny = np.finfo(float)
    draws = rng.beta(mu * aux["phi"], (1.0 - mu) * aux["phi"])
    return np.asarray(np.clip(draws, tiny.tiny, 1.0 - tiny.epsneg))


def _start(y: Array, trials: Array | None) -> Array:
    return np.asarray(y, dtype=float)


def _start_parameters(y: Array, trials: Array | None) -> dict[str, float]:
    mean = float(np.mean(y))
    return {"phi": float(np.clip(mean * (1.0 - mean) / max(float(np.var(y)), 1e-300) - 1.0, 0.1, 1e6))}


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.Beta, name, {"alpha": mu * aux["phi"], "beta": (1.0 - mu) * aux["phi"]}, observed, weights, dims)


BETA = Family(
    name="beta",
    link="logit",
    links=LINKS_OF_PROBABILITIES,
    parameters=(Parameter(name="phi", prior="gamma(0.01, 0.01)"),),
    response="proportions above 0 and below 1",
    check=_check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=_start,
    start_parameters=_start_parameters,
    kernel=Kernel(rows=_rows, needs=VALUE),
    pymc=_pymc,
    latex=r"\mathrm{Beta}(\mu_i \phi,\ (1 - \mu_i) \phi)",
    r_brms="Beta",
)
