"""Negative binomial responses, counts with variance mu (1 + phi) (NB1, quasi-Poisson's)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import gammaln

from bayeslmm.families._counts import LOG_LINKS, check, poisson_counts, start
from bayeslmm.families._special import log1pmx as log1pmx_of
from bayeslmm.families._special import rising_excess as rising_excess_and_slope
from bayeslmm.families.base import Family, Parameter, Quantity, no_count, register_likelihood
from bayeslmm.families.jets import log1p, log1pmx, rising_excess, times
from bayeslmm.families.kernels import LOGS, Kernel

__all__ = ["NEGATIVE_BINOMIAL1"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    phi = aux["phi"].value
    constant = rising_excess(mean.log - aux["phi"].log, y) - gammaln(y + 1.0)
    return times(y, mean.log) - mean.value * (1.0 + log1pmx(phi) / phi) - y * log1p(phi) + constant


def _rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    phi = aux[0]
    spread, excess = math.log1p(phi), log1pmx_of(phi)
    rest, by_phi = 1.0 + excess / phi, -1.0 / (1.0 + phi) - excess / (phi * phi)
    for i in range(n):
        rising, its_slope = rising_excess_and_slope(mean[i] / phi, y[i])
        value[i] = y[i] * mean[2 * n + i] - mean[i] * rest - y[i] * spread + rising
        slope[i] = (y[i] + its_slope) * mean[3 * n + i] - rest * mean[n + i]
        slope[n + i] = -mean[i] * by_phi - y[i] / (1.0 + phi) - its_slope / phi


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return np.asarray(mu * (1.0 + aux["phi"]))


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return poisson_counts(rng, rng.gamma(mu / aux["phi"], np.broadcast_to(aux["phi"], np.shape(mu))))


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
    kernel=Kernel(rows=_rows, needs=LOGS),
    pymc=_pymc,
    discrete=True,
    extremes=no_count,
    latex=r"\mathrm{NegBinomial1}(\mu_i,\ \phi)",
)
