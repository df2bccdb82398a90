"""Bernoulli responses: 0 or 1 (or the second level of a two-level factor), mu the probability of 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families._binomial import LINKS_OF_PROBABILITIES, LOGIT, rows, start
from bayeslmm.families.base import Family, Quantity, none_or_all, register_likelihood
from bayeslmm.families.jets import times
from bayeslmm.families.kernels import PROBABILITY, Kernel

__all__ = ["BERNOULLI"]

type Array = np.ndarray


def _check(y: Array, trials: Array | None) -> Array:
    return np.asarray(~((y == 0) | (y == 1)))


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    return times(y, mean.log) + times(1.0 - y, mean.log_complement)


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(mu * (1.0 - mu))


def _information(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(1.0 / (mu * (1.0 - mu)))


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(rng.random(np.shape(mu)) < mu, dtype=float)


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.Bernoulli, name, {"p": mu}, observed, weights, dims)


BERNOULLI = Family(
    name="bernoulli",
    link="logit",
    links=LINKS_OF_PROBABILITIES,
    response="0 or 1, or a factor with two levels",
    check=_check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=start,
    information=_information,
    closed=LOGIT,
    kernel=Kernel(rows=rows, needs=PROBABILITY),
    pymc=_pymc,
    discrete=True,
    latex=r"\mathrm{Bernoulli}(p_i)",
    latex_mean="p_i",
    takes_levels=True,
    extremes=none_or_all,
    r_lme4="binomial",
    r_brms="bernoulli",
)
