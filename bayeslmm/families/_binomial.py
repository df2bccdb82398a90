"""What the families of successes out of trials share: the check, the constant, where a fit starts, and the logit written out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import expit, gammaln

from bayeslmm.families.base import Closed
from bayeslmm.families.jets import Taylor

__all__ = ["LINKS_OF_PROBABILITIES", "LOGIT", "check", "log_choose", "rows", "start"]

type Array = np.ndarray

LINKS_OF_PROBABILITIES = ("logit", "probit", "cloglog", "cauchit", "log", "identity")


def check(y: Array, trials: Array | None) -> Array:
    """Return the rows that are no successes 0, 1, ..., trials."""
    n = 1.0 if trials is None else trials
    with np.errstate(invalid="ignore"):
        return np.asarray(~((y >= 0) & (y <= n) & (y == np.round(y)) & np.isfinite(n) & (n == np.round(n))))


def log_choose(y: Array, trials: Array | None) -> Array:
    """Return the log of the binomial coefficient (n,)."""
    n = 1.0 if trials is None else trials
    return np.asarray(gammaln(n + 1.0) - gammaln(y + 1.0) - gammaln(n - y + 1.0))


def start(y: Array, trials: Array | None) -> Array:
    """Return proportions (n,) pulled away from 0 and 1, as R's `binomial()$initialize`."""
    return np.asarray((y + 0.5) / ((1.0 if trials is None else trials) + 1.0))


def _logit(y: Array, etas: Array, trials: Array | None, order: int) -> Taylor:
    n = 1.0 if trials is None else trials
    eta = etas[0]
    p, q = expit(eta), expit(-eta)
    constant = 0.0 if trials is None else log_choose(y, trials)
    d1 = y * q - (n - y) * p if order > 0 else np.empty(0)
    d2 = -n * p * q if order > 1 else np.empty(0)
    d3 = d2 * (q - p) if order > 2 else np.empty(0)
    value = constant - y * np.logaddexp(0.0, -eta) - (n - y) * np.logaddexp(0.0, eta)
    return Taylor(value=value, d1=d1[None], d2=d2[None, None], d3=d3[None, None, None])


LOGIT: Mapping[tuple[str, ...], Closed] = MappingProxyType({("logit",): _logit})
"""The derivatives of a binomial log density on the logit, written out."""


def rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    """Write successes times log mu, plus failures times log(1 - mu)."""
    for i in range(n):
        hits, misses = y[i], trials[i] - y[i]
        total = derivative = 0.0
        if hits > 0.0:
            total, derivative = hits * mean[2 * n + i], hits * mean[3 * n + i]
        if misses > 0.0:
            total, derivative = total + misses * mean[4 * n + i], derivative + misses * mean[5 * n + i]
        value[i], slope[i] = total, derivative
