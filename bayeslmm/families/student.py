"""Student-t responses: location mu, scale sigma, degrees of freedom nu; robust against outlying rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families._real import check, spread, start
from bayeslmm.families._special import rising_excess as rising_excess_and_slope
from bayeslmm.families.base import Family, Parameter, Quantity, register_likelihood
from bayeslmm.families.jets import log1p, rising_excess
from bayeslmm.families.kernels import VALUE, Kernel

__all__ = ["STUDENT"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    sigma, nu = aux["sigma"], aux["nu"]
    z2 = ((y - mean.value) / sigma.value) ** 2
    constant = rising_excess(nu.log - np.log(2.0), 0.5) - 0.5 * np.log(2.0 * np.pi) - sigma.log
    return constant - 0.5 * (nu.value + 1.0) * log1p(z2 / nu.value)


def _rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    sigma, nu = aux[0], aux[1]
    constant, its_slope = rising_excess_and_slope(0.5 * nu, 0.5)
    for i in range(n):
        sd = sigma * scale[i]
        z = (y[i] - mean[i]) / sd
        log_term, share = math.log1p(z * z / nu), (nu + 1.0) / (nu + z * z)
        value[i] = constant - math.log(sd) - 0.5 * (nu + 1.0) * log_term
        slope[i] = share * z / sd * mean[n + i]
        slope[n + i] = (share * z * z - 1.0) / sigma
        slope[2 * n + i] = (its_slope + 0.5 * share * z * z) / nu - 0.5 * log_term


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    nu = np.asarray(aux["nu"], dtype=float)
    ratio = np.divide(nu, nu - 2.0, out=np.full(nu.shape, np.inf), where=nu > 2.0)
    return np.array(np.broadcast_to(np.square(aux["sigma"]) * ratio, np.shape(mu)), dtype=float)


def _information(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    nu = aux["nu"]
    return np.array(np.broadcast_to((nu + 1.0) / ((nu + 3.0) * np.square(aux["sigma"])), np.shape(mu)), dtype=float)


def _start_parameters(y: Array, trials: Array | None) -> dict[str, float]:
    return {**spread(y, trials), "nu": 10.0}


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(mu + aux["sigma"] * rng.standard_t(aux["nu"], size=np.shape(mu)))


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.StudentT, name, {"nu": aux["nu"], "mu": mu, "sigma": aux["sigma"]}, observed, weights, dims)


STUDENT = Family(
    name="student",
    link="identity",
    links=("identity", "log", "inverse", "sqrt", "softplus"),
    parameters=(Parameter(name="sigma"), Parameter(name="nu", lower=1.0, prior="gamma(2, 0.1)", predicted_prior="normal(2.7, 0.8)")),
    response="any real number",
    check=check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=start,
    start_parameters=_start_parameters,
    information=_information,
    kernel=Kernel(rows=_rows, needs=VALUE),
    pymc=_pymc,
    scale="sigma",
    latex=r"t_\nu(\mu_i,\ \sigma)",
    r_brms="student",
)
