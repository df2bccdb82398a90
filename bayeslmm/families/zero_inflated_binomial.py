"""Zero-inflated binomial responses: 0 with probability zi, otherwise successes out of known trials, of probability mu."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bayeslmm.families._binomial import LINKS_OF_PROBABILITIES, check, start
from bayeslmm.families._binomial import rows as binomial_rows
from bayeslmm.families._zeros import ZI, inflated, kept_mean, kept_variance, start_inflated, thinned
from bayeslmm.families._zeros import inflate_rows as inflate
from bayeslmm.families.base import Family, Quantity, none_or_all, register_likelihood
from bayeslmm.families.binomial import BINOMIAL
from bayeslmm.families.kernels import PROBABILITY, Kernel

__all__ = ["ZERO_INFLATED_BINOMIAL"]

type Array = np.ndarray


def _log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
    n = 1.0 if trials is None else trials
    return inflated(y, BINOMIAL.log_density(y, mean, aux, trials), n * mean.log_complement, aux["zi"])


def _rows(n: int, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any) -> None:
    binomial_rows(n, y, trials, scale, mean, aux, value, slope)
    inflate(n, 1, y, aux[0], value, slope)


def _variance(mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    n = 1.0 if trials is None else trials
    return kept_variance(n * mu, BINOMIAL.variance(mu, aux, trials), 1.0 - aux["zi"])


def _simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
    return thinned(rng, BINOMIAL.simulate(rng, mu, aux, trials), aux["zi"])


def _start(y: Array, trials: Array | None) -> Array:
    usual = start(y, trials)
    return np.where(y > 0, usual, np.mean(usual[y > 0]) if np.any(y > 0) else usual)


def _pymc(name: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str) -> Any:
    import pymc as pm

    parameters = {"psi": 1.0 - aux["zi"], "n": 1 if trials is None else trials, "p": mu}
    return register_likelihood(pm.ZeroInflatedBinomial, name, parameters, observed, weights, dims)


ZERO_INFLATED_BINOMIAL = Family(
    name="zero_inflated_binomial",
    link="logit",
    links=LINKS_OF_PROBABILITIES,
    parameters=(ZI,),
    response="successes 0, 1, ..., trials (`cbind(successes, failures)` or `k | trials(n)`)",
    check=check,
    log_density=_log_density,
    variance=_variance,
    simulate=_simulate,
    start=_start,
    start_parameters=start_inflated,
    response_mean=lambda mu, aux: kept_mean(mu, 1.0 - aux["zi"]),
    kernel=Kernel(rows=_rows, needs=PROBABILITY),
    pymc=_pymc,
    discrete=True,
    needs_trials=True,
    latex=r"\mathrm{ZeroInflatedBinomial}(n_i,\ p_i,\ \mathrm{zi})",
    latex_mean="p_i",
    extremes=none_or_all,
    r_brms="zero_inflated_binomial",
)
