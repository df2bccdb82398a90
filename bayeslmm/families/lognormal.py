"""Lognormal responses, above 0: mu the mean and sigma the standard deviation of the response's logarithm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families import gaussian
from bayeslmm.families._positive import check
from bayeslmm.families.base import Family, Parameter, Quantity, register_likelihood
from bayeslmm.families.kernels import VALUE, Kernel

__all__ = ["LOGNORMAL"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    return gaussian.log_density(np.log(y), mean, aux, trials) - np.log(y)


def _rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    sigma = aux[0]
    for i in range(n):
        z = (math.log(y[i]) - mean[i]) / sigma
        value[i] = -0.5 * z * z - math.log(sigma)
        slope[i] = z / sigma * mean[n + i]
        slope[n + i] = (z * z - 1.0) / sigma


def _response_mean(mu: Array, aux: Mapping[str, Array]) -> Array:
    return np.asarray(np.exp(mu + 0.5 * np.square(aux["sigma"])))


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(np.expm1(np.square(aux["sigma"])) * np.square(_response_mean(mu, aux)))


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(np.maximum(rng.lognormal(mu, aux["sigma"], size=np.shape(mu)), np.finfo(float).tiny))


def _information(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.array(np.broadcast_to(1.0 / np.square(aux["sigma"]), np.shape(mu)), dtype=float)


def _start(y: Array, trials: Array | None) -> Array:
    return np.asarray(np.log(y))


def _start_parameters(y: Array, trials: Array | None) -> dict[str, float]:
    return {"sigma": float(np.std(np.log(y))) or 1.0}


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.LogNormal, name, {"mu": mu, "sigma": aux["sigma"]}, observed, weights, dims)


LOGNORMAL = Family(
    name="lognormal",
    link="identity",
    links=("identity", "inverse"),
    parameters=(Parameter(name="sigma"),),
    response="numbers above 0",
    check=check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=_start,
    start_parameters=_start_parameters,
    information=_information,
    response_mean=_response_mean,
    kernel=Kernel(rows=_rows, needs=VALUE),
    pymc=_pymc,
    log_scale=True,
    latex=r"\mathrm{LogNormal}(\mu_i,\ \sigma)",
    r_brms="lognormal",
)
