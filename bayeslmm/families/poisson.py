"""Poisson responses: counts 0, 1, 2, ..., mu the expected count."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import gammaln, xlogy

from bayeslmm.families.base import Family, register_likelihood

__all__ = ["POISSON"]

type Array = np.ndarray


def _check(y: Array, trials: Array | None) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(~(np.isfinite(y) & (y >= 0) & (y == np.round(y))))


def _loglik(y: Array, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(xlogy(y, mu) - mu - gammaln(y + 1.0))


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(mu, dtype=float)


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(rng.poisson(mu), dtype=float)


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.Poisson, name, {"mu": mu}, observed, weights, dims)


POISSON = Family(
    name="poisson",
    link="log",
    links=("log", "identity", "sqrt", "softplus"),
    response="counts 0, 1, 2, ...",
    check=_check,
    loglik=_loglik,
    variance=_variance,
    simulate=_simulate,
    pymc=_pymc,
    discrete=True,
    latex=r"\mathrm{Poisson}(\mu_i)",
)
