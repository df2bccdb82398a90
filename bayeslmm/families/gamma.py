"""Gamma responses, above 0: mean mu, variance mu^2 / shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families._positive import check, start
from bayeslmm.families._special import stirling_error as stirling_error_and_slope
from bayeslmm.families.base import Family, Parameter, Quantity, register_likelihood
from bayeslmm.families.jets import exp, stirling_error
from bayeslmm.families.kernels import LOGS, Kernel

__all__ = ["GAMMA"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    shape, log_ratio = aux["shape"], np.log(y) - mean.log
    constant = 0.5 * (shape.log - np.log(2.0 * np.pi)) - stirling_error(shape.value) - np.log(y)
    return shape.value * (log_ratio + 1.0 - exp(log_ratio)) + constant


def _rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    shape = aux[0]
    error, its_slope = stirling_error_and_slope(shape)
    constant = 0.5 * math.log(shape) - error
    for i in range(n):
        log_ratio = math.log(y[i]) - mean[2 * n + i]
        ratio = math.exp(log_ratio)
        value[i] = shape * (log_ratio + 1.0 - ratio) + constant
        slope[i] = shape * (ratio - 1.0) * mean[3 * n + i]
        slope[n + i] = log_ratio + 1.0 - ratio + 0.5 / shape - its_slope


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(np.square(mu) / aux["shape"])


def _information(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(aux["shape"] / np.square(mu))


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    shape = np.broadcast_to(aux["shape"], np.shape(mu))
    return np.asarray(np.maximum(rng.gamma(shape, mu / shape), np.finfo(float).tiny))


def _start_parameters(y: Array, trials: Array | None) -> dict[str, float]:
    return {"shape": float(np.clip(np.mean(y) ** 2 / max(float(np.var(y)), 1e-300), 0.1, 1e6))}


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.Gamma, name, {"alpha": aux["shape"], "beta": aux["shape"] / mu}, observed, weights, dims)


GAMMA = Family(
    name="gamma",
    link="log",
    links=("log", "inverse", "identity", "softplus"),
    parameters=(Parameter(name="shape", prior="gamma(0.01, 0.01)"),),
    response="numbers above 0",
    check=check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=start,
    start_parameters=_start_parameters,
    information=_information,
    kernel=Kernel(rows=_rows, needs=LOGS),
    pymc=_pymc,
    latex=r"\mathrm{Gamma}(\mu_i,\ \mathrm{shape})",
    r_lme4="Gamma",
    r_brms="Gamma",
)
