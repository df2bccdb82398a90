"""The records of a response family and of a link: both faces, numpy and PyMC, on one page each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Family", "Link", "Parameter", "register_likelihood"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """eta = g(mu): the function, its inverse, and d mu / d eta, on arrays; `pymc_inverse` on tensors."""

    name: str
    link: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    mu_eta: Callable[[Array], Array]
    pymc_inverse: Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A further parameter of a family: its name (`sigma`, `nu`, `phi`), lower bound, default link when predicted."""

    name: str
    lower: float = 0.0
    upper: float = float("inf")
    link: str = "log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A response distribution given its mean `mu` and further parameters.

    Attributes
    ----------
    name, link, links
        The family's name in brms's spelling, its default link and those it allows.
    parameters
        Further parameters in order (`sigma`, `nu`, ...).
    response
        What the response must be, in words, for messages: `"any real number"`, `"counts 0, 1, 2, ..."`.
    check
        `(y, trials) -> Array[bool]`: True for the rows that the family cannot take.
    loglik
        `(y, mu, aux, trials) -> (n,)`: log density of each row, all constants included.
    variance
        `(mu, aux, trials) -> (n,)`: the variance of a row of weight one.
    simulate
        `(rng, mu, aux, trials) -> (n,)` draws (counts for binomial).
    pymc
        `(name, mu, aux, trials, observed, weights, dims) -> tensor`: registers the likelihood in the open PyMC model.
    needs_trials
        True for binomial-like families.
    discrete
        True where the response is a count or a class, so that its density is a probability.
    scale
        The parameter that lme4's precision weights rescale, `sigma / sqrt(w)`; None where a weight is a likelihood's power.
    takes_levels
        True where a two-level factor may be the response, its second level a success.
    latex, latex_mean
        How the distribution of `y_i` and its mean are written.
    """

    name: str
    link: str
    links: tuple[str, ...]
    parameters: tuple[Parameter, ...] = ()
    response: str = "any real number"
    check: Callable[[Array, Array | None], Array]
    loglik: Callable[[Array, Array, Mapping[str, Array], Array | None], Array]
    variance: Callable[[Array, Mapping[str, Array], Array | None], Array]
    simulate: Callable[[np.random.Generator, Array, Mapping[str, Array], Array | None], Array]
    pymc: Callable[..., Any]
    needs_trials: bool = False
    discrete: bool = False
    scale: str | None = None
    takes_levels: bool = False
    latex: str
    latex_mean: str = r"\mu_i"


def register_likelihood(
    distribution: Any, name: str, parameters: Mapping[str, Any], observed: Any, weights: Array | None, dims: str | None
) -> Any:
    """Register `observed ~ distribution(parameters)` in the open PyMC model, to the power of `weights` where given."""
    import pymc as pm

    variable = distribution(name, **parameters, observed=observed, dims=dims)
    if weights is not None:
        logp = pm.logp(distribution.dist(**parameters), observed)
        pm.Potential(f"{name}_power", ((weights - 1.0) * logp).sum())
    return variable
