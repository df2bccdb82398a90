"""Negative binomial responses, counts with variance mu (1 + phi) (NB1, quasi-Poisson's)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import gammaln

from bayeslmm.families._counts import LOG_LINKS, check, start
from bayeslmm.families.base import Family, Parameter, Quantity, no_count, register_likelihood
from bayeslmm.families.jets import log1p, log1pmx, rising_excess, times

__all__ = ["NEGATIVE_BINOMIAL1"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    phi = aux["phi"].value
    constant = rising_excess(mean.log - aux["phi"].log, y) - gammaln(y + 1.0)
    return times(y, mean.log) - mean.value * (1.0 + log1pmx(phi) / phi) - y * log1p(phi) + constant


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(mu * (1.0 + aux["phi"]))


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(rng.poisson(rng.gamma(mu / aux["phi"], np.broadcast_to(aux["phi"], np.shape(mu)))), dtype=float)


def _start_parameters(y: Array, trials: Array | None) -> dict[str, float]:
    return {"phi": float(np.clip(np.var(y) / max(float(np.mean(y)), 1e-8) - 1.0, 0.1, 100.0))}


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    return register_likelihood(pm.NegativeBinomial, name, {"mu": mu, "alpha": mu / aux["phi"]}, observed, weights, dims)


NEGATIVE_BINOMIAL1 = Family(
    name="negative_binomial1",
    link="log",
    links=LOG_LINKS,
    parameters=(Parameter(name="phi", prior="gamma(0.01, 0.01)"),),
    response="counts 0, 1, 2, ...",
    check=check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=start,
    start_parameters=_start_parameters,
    pymc=_pymc,
    discrete=True,
    extremes=no_count,
    latex=r"\mathrm{NegBinomial1}(\mu_i,\ \phi)",
)
