"""Normal responses: mean mu, standard deviation sigma."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families.base import Family, Parameter, register_likelihood

__all__ = ["GAUSSIAN"]

type Array = np.ndarray


def _check(y: Array, trials: Array | None) -> Array:
    return np.asarray(~np.isfinite(y))


def _loglik(y: Array, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    sigma = aux["sigma"]
    return np.asarray(-0.5 * np.log(2.0 * np.pi) - np.log(sigma) - 0.5 * ((y - mu) / sigma) ** 2)


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.array(np.broadcast_to(np.square(aux.get("sigma", 1.0)), np.shape(mu)), dtype=float)


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
    check=_check,
    loglik=_loglik,
    variance=_variance,
    simulate=_simulate,
    pymc=_pymc,
    scale="sigma",
    latex=r"\mathcal{N}(\mu_i,\ \sigma^2)",
)
