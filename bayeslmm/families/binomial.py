"""Binomial responses: successes out of known trials, mu the probability of success; without trials, 0 or 1 (one trial)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families._binomial import LINKS_OF_PROBABILITIES, LOGIT, check, log_choose, rows, start
from bayeslmm.families.base import Family, Quantity, none_or_all, register_likelihood
from bayeslmm.families.jets import times
from bayeslmm.families.kernels import PROBABILITY, Kernel

__all__ = ["BINOMIAL"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    n = 1.0 if trials is None else trials
    return times(y, mean.log) + times(n - y, mean.log_complement) + log_choose(y, trials)


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray((1.0 if trials is None else trials) * mu * (1.0 - mu))


def _information(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray((1.0 if trials is None else trials) / (mu * (1.0 - mu)))


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    n = np.ones(np.shape(mu)) if trials is None else trials
    return np.asarray(rng.binomial(np.asarray(n).astype(int), mu), dtype=float)


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    n = 1 if trials is None else trials
    return register_likelihood(pm.Binomial, name, {"n": n, "p": mu}, observed, weights, dims)


BINOMIAL = Family(
    name="binomial",
    link="logit",
    links=LINKS_OF_PROBABILITIES,
    response="successes 0, 1, ..., trials (`cbind(successes, failures)`, `k | trials(n)`, or 0/1)",
    check=check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=start,
    information=_information,
    closed=LOGIT,
    kernel=Kernel(rows=rows, needs=PROBABILITY),
    pymc=_pymc,
    discrete=True,
    needs_trials=True,
    latex=r"\mathrm{Binomial}(n_i,\ p_i)",
    latex_mean="p_i",
    takes_levels=True,
    extremes=none_or_all,
    r_lme4="binomial",
    r_brms="binomial",
)
