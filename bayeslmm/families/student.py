"""Student-t responses: location mu, scale sigma, degrees of freedom nu; robust against outlying rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import gammaln

from bayeslmm.families.base import Family, Parameter, register_likelihood

__all__ = ["STUDENT"]

type Array = np.ndarray


def _check(y: Array, trials: Array | None) -> Array:
    return np.asarray(~np.isfinite(y))


def _loglik(y: Array, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    sigma, nu = aux["sigma"], aux["nu"]
    constant = gammaln((nu + 1.0) / 2.0) - gammaln(nu / 2.0) - 0.5 * np.log(np.pi * nu) - np.log(sigma)
    return np.asarray(constant - 0.5 * (nu + 1.0) * np.log1p(((y - mu) / sigma) ** 2 / nu))


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    nu = np.asarray(aux["nu"], dtype=float)
    ratio = np.divide(nu, nu - 2.0, out=np.full(nu.shape, np.inf), where=nu > 2.0)
    return np.array(np.broadcast_to(np.square(aux["sigma"]) * ratio, np.shape(mu)), dtype=float)


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(mu + aux["sigma"] * rng.standard_t(aux["nu"], size=np.shape(mu)))


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.StudentT, name, {"nu": aux["nu"], "mu": mu, "sigma": aux["sigma"]}, observed, weights, dims)


STUDENT = Family(
    name="student",
    link="identity",
    links=("identity", "log", "inverse", "sqrt", "softplus"),
    parameters=(Parameter(name="sigma"), Parameter(name="nu", lower=1.0)),
    response="any real number",
    check=_check,
    loglik=_loglik,
    variance=_variance,
    simulate=_simulate,
    pymc=_pymc,
    scale="sigma",
    latex=r"t_\nu(\mu_i,\ \sigma)",
)
