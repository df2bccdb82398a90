"""Bernoulli responses: 0 or 1 (or the second level of a two-level factor), mu the probability of 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import xlog1py, xlogy

from bayeslmm.families.base import Family, register_likelihood

__all__ = ["BERNOULLI"]

type Array = np.ndarray


def _check(y: Array, trials: Array | None) -> Array:
    return np.asarray(~((y == 0) | (y == 1)))


def _loglik(y: Array, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(xlogy(y, mu) + xlog1py(1.0 - y, -mu))


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(mu * (1.0 - mu))


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(rng.random(np.shape(mu)) < mu, dtype=float)


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.Bernoulli, name, {"p": mu}, observed, weights, dims)


BERNOULLI = Family(
    name="bernoulli",
    link="logit",
    links=("logit", "probit", "cloglog", "cauchit", "log", "identity"),
    response="0 or 1, or a factor with two levels",
    check=_check,
    loglik=_loglik,
    variance=_variance,
    simulate=_simulate,
    pymc=_pymc,
    discrete=True,
    latex=r"\mathrm{Bernoulli}(p_i)",
    latex_mean="p_i",
    takes_levels=True,
)
