"""What the families of ordered levels share: thresholds on a latent scale, one expression for arrays, jets and tensors, simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from types import MappingProxyType
from typing import Any

import numpy as np

from bayeslmm.families import jets
from bayeslmm.families._zeros import register_density
from bayeslmm.families.base import Family, Link, Parameter, Quantity

__all__ = ["DISTRIBUTIONS", "Distribution", "Operations", "ordinal", "running"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """The functions that a density of levels is made of, on arrays and jets or on tensors."""

    exp: Callable[[Any], Any]
    softplus: Callable[[Any], Any]
    log_ndtr: Callable[[Any], Any]
    log1mexp: Callable[[Any], Any]
    log1mexpexp: Callable[[Any], Any]
    logaddexp: Callable[[Any, Any], Any]
    where: Callable[[Any, Any, Any], Any]
    positive: Callable[[Any], Any]


def _sign(x: Any) -> Array:
    return np.asarray((x.value if isinstance(x, jets.Jet) else x) > 0)


_NUMBERS = Operations(
    exp=jets.exp,
    softplus=jets.softplus,
    log_ndtr=jets.log_ndtr,
    log1mexp=jets.log1mexp,
    log1mexpexp=jets.log1mexpexp,
    logaddexp=jets.logaddexp,
    where=jets.where,
    positive=_sign,
)


def _tensors() -> Operations:
    import pytensor.tensor

    pt: Any = pytensor.tensor
    root = np.sqrt(2.0)
    return Operations(
        exp=pt.exp,
        softplus=pt.softplus,
        log_ndtr=lambda x: pt.switch(
            pt.lt(x, -1.0), pt.log(0.5 * pt.erfcx(-pt.minimum(x, -1.0) / root)) - 0.5 * x**2, pt.log1p(-0.5 * pt.erfc(x / root))
        ),
        log1mexp=lambda x: pt.log1mexp(-x),
        log1mexpexp=lambda x: pt.log1mexp(-pt.exp(x)),
        logaddexp=pt.logaddexp,
        where=pt.switch,
        positive=lambda x: pt.gt(x, 0.0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """The distribution of the latent response: log probabilities below x, above x, and between a < b."""

    below: Callable[[Operations, Any], Any]
    above: Callable[[Operations, Any], Any]
    between: Callable[[Operations, Any, Any], Any]


def _normal_between(on: Operations, a: Any, b: Any) -> Any:
    """Of the lower tail, mirrored where a > 0: the difference of two numbers near 1 would cancel."""
    upper = on.positive(a)
    low, high = on.where(upper, -b, a), on.where(upper, -a, b)
    log_high = on.log_ndtr(high)
    return log_high + on.log1mexp(log_high - on.log_ndtr(low))


DISTRIBUTIONS: Mapping[str, Distribution] = MappingProxyType(
    {
        "logit": Distribution(
            below=lambda on, x: -on.softplus(-x),
            above=lambda on, x: -on.softplus(x),
            between=lambda on, a, b: on.log1mexp(b - a) - on.softplus(-b) - on.softplus(a),
        ),
        "probit": Distribution(
            below=lambda on, x: on.log_ndtr(x),
            above=lambda on, x: on.log_ndtr(-x),
            between=_normal_between,
        ),
        "cloglog": Distribution(
            below=lambda on, x: on.log1mexpexp(x),
            above=lambda on, x: -on.exp(x),
            between=lambda on, a, b: on.log1mexp(on.exp(b) - on.exp(a)) - on.exp(a),
        ),
    }
)
"""Link -> distribution of the latent response."""

type Levels = Callable[[Operations, Distribution, Any, Sequence[Any]], list[Any]]
"""(operations, distribution, eta, thresholds) -> the log probability of each level."""
type Thresholds = Callable[[Array, Link], Array]
"""(counts of the levels, link) -> thresholds that have these proportions at eta = 0."""


def ordinal(name: str, log_probabilities: Levels, thresholds: Thresholds, latex: str, *, increasing: bool) -> Callable[[int, Link], Family]:
    """Return the function that makes the family of `name` for a number of levels and a link."""

    def of_levels(levels: int, link: Link) -> Family:
        distribution = DISTRIBUTIONS[link.name]
        names = tuple(f"Intercept[{k}]" for k in range(1, levels))

        def densities(on: Operations, eta: Any, taus: Sequence[Any]) -> list[Any]:
            return log_probabilities(on, distribution, eta, taus)

        def log_density(y: Array, mean: Quantity, aux: Mapping[str, Quantity], trials: Array | None) -> Any:
            each = densities(_NUMBERS, mean.value, [aux[threshold].value for threshold in names])
            return reduce(lambda rest, k: jets.where(y == k, each[k], rest), range(levels - 1), each[-1])

        def probabilities(mu: Array, aux: Mapping[str, Array]) -> Array:
            with np.errstate(all="ignore"):
                each = densities(_NUMBERS, np.asarray(mu), [np.asarray(aux[threshold]) for threshold in names])
            return np.exp(np.array([np.broadcast_to(part, np.shape(mu)) for part in each]))

        def moment(mu: Array, aux: Mapping[str, Array], power: int) -> Array:
            return np.asarray(np.tensordot(np.arange(levels) ** power, probabilities(mu, aux), 1))

        def simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
            below = np.cumsum(probabilities(mu, aux)[:-1], axis=0)
            return np.asarray((rng.random(np.shape(mu)) > below).sum(axis=0), dtype=float)

        def start_parameters(y: Array, trials: Array | None) -> dict[str, float]:
            counts = np.array([np.sum(y == k) for k in range(levels)]) + 0.5
            return {threshold: float(value) for threshold, value in zip(names, thresholds(counts, link), strict=True)}

        def pymc_log_density(y: Any, mu: Any, *taus: Any) -> Any:
            import pytensor.tensor as pt

            each = densities(_tensors(), mu, taus)
            return reduce(lambda rest, k: pt.switch(pt.eq(y, k), each[k], rest), range(levels - 1), each[-1])

        def pymc(
            variable: str, mu: Any, aux: Mapping[str, Any], trials: Array | None, observed: Any, weights: Array | None, dims: str
        ) -> Any:
            return register_density(family, pymc_log_density, variable, mu, aux, observed, weights, dims)

        family = Family(
            name=name,
            link="logit",
            links=tuple(DISTRIBUTIONS),
            parameters=tuple(Parameter(name=each, lower=-np.inf, link="identity", prior="student_t(3, 0, 2.5)") for each in names),
            response="a factor with its levels in order",
            check=lambda y, trials: np.asarray(~np.isin(y, np.arange(levels))),
            log_density=log_density,
            variance=lambda mu, aux, trials: np.asarray(moment(mu, aux, 2) - moment(mu, aux, 1) ** 2),
            simulate=simulate,
            start=lambda y, trials: np.zeros(len(y)),
            start_parameters=start_parameters,
            response_mean=lambda mu, aux: moment(mu, aux, 1),
            pymc=pymc,
            discrete=True,
            takes_levels=True,
            of_levels=of_levels,
            increasing=increasing,
            latex=latex,
            latex_mean=r"\eta_i",
            r_brms=name,
        )
        return family

    return of_levels


def running(log_probabilities: Sequence[Any]) -> list[Any]:
    """Return the sums of the first 0, 1, 2, ... of them."""
    sums: list[Any] = [0.0]
    for each in log_probabilities:
        sums.append(sums[-1] + each)
    return sums
