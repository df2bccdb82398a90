"""Binomial responses: successes out of known trials, mu the probability of success; without trials, 0 or 1 (one trial)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import gammaln, xlog1py, xlogy

from bayeslmm.families.base import Family, register_likelihood

__all__ = ["BINOMIAL"]

type Array = np.ndarray


def _check(y: Array, trials: Array | None) -> Array:
    n = 1.0 if trials is None else trials
    with np.errstate(invalid="ignore"):
        return np.asarray(~((y >= 0) & (y <= n) & (y == np.round(y)) & np.isfinite(n) & (n == np.round(n))))


def _loglik(y: Array, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    n = 1.0 if trials is None else trials
    constant = gammaln(n + 1.0) - gammaln(y + 1.0) - gammaln(n - y + 1.0)
    return np.asarray(constant + xlogy(y, mu) + xlog1py(n - y, -mu))


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray((1.0 if trials is None else trials) * mu * (1.0 - mu))


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
    links=("logit", "probit", "cloglog", "cauchit", "log", "identity"),
    response="successes 0, 1, ..., trials (`cbind(successes, failures)`, `k | trials(n)`, or 0/1)",
    check=_check,
    loglik=_loglik,
    variance=_variance,
    simulate=_simulate,
    pymc=_pymc,
    discrete=True,
    needs_trials=True,
    latex=r"\mathrm{Binomial}(n_i,\ p_i)",
    latex_mean="p_i",
    takes_levels=True,
)
