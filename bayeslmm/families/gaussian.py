"""Normal responses: mean mu, standard deviation sigma."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from bayeslmm.families._real import check, spread, start
from bayeslmm.families.base import Family, Parameter, Quantity, register_likelihood
from bayeslmm.families.jets import Taylor
from bayeslmm.families.kernels import VALUE, Kernel

__all__ = ["GAUSSIAN", "log_density"]

type Array = np.ndarray


_LOG_ROOT_2PI = 0.5 * np.log(2.0 * np.pi)


def log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    """Return the normal log density (n,), jet or array."""
    sigma = aux["sigma"]
    return -0.5 * ((y - mean.value) / sigma.value) ** 2 - sigma.log - _LOG_ROOT_2PI


def _on_identity(y: Array, etas: Array, trials: Array | None, order: int) -> Taylor:
    """The log density and its derivatives with mu = eta_0 and sigma = exp(eta_1)."""
    precision, residual = np.exp(-2.0 * etas[1]), y - etas[0]
    first, square = residual * precision, residual**2 * precision
    value = -0.5 * square - etas[1] - _LOG_ROOT_2PI
    parts: list[Array] = [np.array([first, square - 1.0]), np.array([[-precision, -2.0 * first], [-2.0 * first, -2.0 * square]])]
    if order > 2:
        by_sigma = [[2.0 * precision, 4.0 * first], [4.0 * first, 4.0 * square]]
        parts.append(np.array([[[np.zeros_like(first), 2.0 * precision], by_sigma[0]], by_sigma]))
    parts = [*parts[:order], *(np.empty((2,) * m + (0,)) for m in range(order + 1, 4))]
    return Taylor(value=value, d1=parts[0], d2=parts[1], d3=parts[2])


def rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    """Write the normal log density."""
    sigma = aux[0]
    for i in range(n):
        sd = sigma * scale[i]
        z = (y[i] - mean[i]) / sd
        value[i] = -0.5 * z * z - math.log(sd)
        slope[i] = z / sd * mean[n + i]
        slope[n + i] = (z * z - 1.0) / sigma


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.array(np.broadcast_to(np.square(aux.get("sigma", 1.0)), np.shape(mu)), dtype=float)


def _information(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.array(np.broadcast_to(1.0 / np.square(aux["sigma"]), np.shape(mu)), dtype=float)


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(rng.normal(mu, aux["sigma"]))


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.Normal, name, {"mu": mu, "sigma": aux["sigma"]}, observed, weights, dims)


GAUSSIAN = Family(
    name="gaussian",
    link="identity",
    links=("identity", "log", "inverse", "sqrt", "softplus"),
    parameters=(Parameter(name="sigma"),),
    response="any real number",
    check=check,
    log_density=log_density,
    variance=_variance,
    simulate=_simulate,
    start=start,
    start_parameters=spread,
    information=_information,
    closed=MappingProxyType({("identity", "log"): _on_identity}),
    kernel=Kernel(rows=rows, needs=VALUE),
    pymc=_pymc,
    scale="sigma",
    correlates=True,
    latex=r"\mathcal{N}(\mu_i,\ \sigma^2)",
    r_lme4="gaussian",
    r_brms="gaussian",
)
