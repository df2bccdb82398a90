"""Inverse Gaussian responses, above 0: mean mu, variance mu^3 / shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families._positive import check, start
from bayeslmm.families.base import Family, Parameter, Quantity, register_likelihood
from bayeslmm.families.jets import expm1
from bayeslmm.families.kernels import LOGS, Kernel

__all__ = ["INVERSE_GAUSSIAN"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    shape = aux["shape"]
    return 0.5 * (shape.log - np.log(2.0 * np.pi * y**3)) - 0.5 * shape.value * expm1(np.log(y) - mean.log) ** 2 / y


def _rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    shape = aux[0]
    for i in range(n):
        excess = math.expm1(math.log(y[i]) - mean[2 * n + i])
        value[i] = 0.5 * (math.log(shape) - shape * excess * excess / y[i])
        slope[i] = shape * excess * (1.0 + excess) / y[i] * mean[3 * n + i]
        slope[n + i] = 0.5 * (1.0 / shape - excess * excess / y[i])


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(mu**3 / aux["shape"])


def _information(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(aux["shape"] / mu**3)


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(np.maximum(rng.wald(mu, np.broadcast_to(aux["shape"], np.shape(mu))), np.finfo(float).tiny))


def _start_parameters(y: Array, trials: Array | None) -> dict[str, float]:
    return {"shape": float(np.clip(np.mean(y) ** 3 / max(float(np.var(y)), 1e-300), 1e-3, 1e9))}


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.Wald, name, {"mu": mu, "lam": aux["shape"]}, observed, weights, dims)


INVERSE_GAUSSIAN = Family(
    name="inverse_gaussian",
    link="1/mu^2",
    links=("1/mu^2", "inverse", "identity", "log", "softplus"),
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
    latex=r"\mathrm{InvGaussian}(\mu_i,\ \mathrm{shape})",
    r_lme4="inverse.gaussian",
    r_brms="inverse.gaussian",
)
