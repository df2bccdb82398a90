"""The records of a response family and of a link: both faces, numpy and PyMC, on one page each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from bayeslmm.families import jets
from bayeslmm.families._link_rows import identity_rows
from bayeslmm.families.kernels import Kernel

__all__ = ["IDENTITY", "Closed", "Family", "Link", "Parameter", "Quantity", "register_likelihood"]

type Array = np.ndarray
type Closed = Callable[[Array, Array, Array | None, int], jets.Taylor]


def _log_complement(value: Any) -> Any:
    return jets.log1p(-value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """eta = g(mu): the function and its inverse.

    Attributes
    ----------
    link, inverse, mu_eta
        g, its inverse and d mu / d eta on arrays, held inside the range of mu as R's `make.link` does.
    pymc_inverse
        The inverse on tensors.
    mean, log_mean, log_complement
        mu, log mu and log(1 - mu) of eta, an array or a `jets.Jet`: not held inside the range, and exact in both tails.
    latex
        How g(mu) is written, `{}` for mu; empty: the name of the link as a function.
    kernel
        `(n, needs, eta, mean)`: mean, log_mean and log_complement in compiled code, see `kernels`; None where there is none.
    """

    name: str
    link: Callable[[Array], Array]
    inverse: Callable[[Array], Array]
    mu_eta: Callable[[Array], Array]
    pymc_inverse: Callable[[Any], Any]
    mean: Callable[[Any], Any]
    log_mean: Callable[[Any], Any]
    log_complement: Callable[[Any], Any]
    latex: str = ""
    kernel: Callable[..., None] | None = None


IDENTITY = Link(
    name="identity",
    link=lambda mu: mu,
    inverse=lambda eta: eta,
    mu_eta=np.ones_like,
    pymc_inverse=lambda eta: eta,
    mean=lambda eta: eta,
    log_mean=jets.log,
    log_complement=_log_complement,
    latex="{}",
    kernel=identity_rows,
)


@dataclass(frozen=True, eq=False)
class Quantity:
    """A parameter in a log density: its value and the logs of it and of one minus it, as the link gives them from eta, jet or array."""

    link: Link
    eta: Any

    @cached_property
    def value(self) -> Any:
        return self.link.mean(self.eta)

    @cached_property
    def log(self) -> Any:
        return self.link.log_mean(self.eta)

    @cached_property
    def log_complement(self) -> Any:
        return self.link.log_complement(self.eta)

    @cached_property
    def complement(self) -> Any:
        return jets.exp(self.log_complement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A further parameter of a family.

    Attributes
    ----------
    name
        `sigma`, `nu`, `phi`, ...
    lower, upper
        Its range.
    link
        Its link when it has a predictor of its own.
    prior
        Default prior of a constant in brms's spelling; empty where it follows the response's scale (`sigma`).
    predicted_prior
        Default prior of the intercept of its own predictor; empty for `student_t(3, ., 2.5)`.
    """

    name: str
    lower: float = 0.0
    upper: float = float("inf")
    link: str = "log"
    prior: str = ""
    predicted_prior: str = ""


def _no_parameters(y: Array, trials: Array | None) -> dict[str, float]:
    return {}


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
    log_density
        `(y, mean, aux, trials) -> (n,)`: log density of each row, all constants included, of `Quantity`s; written with the
        functions of `jets`, so that it gives values (`loglik`) and derivatives (`families.derivatives`).
    variance
        `(mu, aux, trials) -> (n,)`: the variance of a row of weight one.
    simulate
        `(rng, mu, aux, trials) -> (n,)` draws (counts for binomial).
    start
        `(y, trials) -> mu (n,)`: where a fit starts, inside the range of mu, as R's `mustart`.
    start_parameters
        `(y, trials) -> {name: value}`: moment estimates of the further parameters, where a fit starts.
    information
        `(mu, aux, trials) -> (n,)`: expected information on mu of a row; None where it has no simple form.
    response_mean
        `(mu, aux) -> (n,)`: the mean of the response (with trials, of the proportion), where it is not mu; None where it is.
    closed
        Names of the links (of the mean, of each further parameter) -> the derivatives of the log density written out, for speed.
    kernel
        The log density in compiled code, see `kernels`; None where there is none.
    pymc
        `(name, mu, aux, trials, observed, weights, dims) -> tensor`: registers the likelihood in the open PyMC model.
    needs_trials
        True for binomial-like families.
    discrete
        True where the response is a count or a class, so that its density is a probability.
    scale
        The parameter that lme4's precision weights rescale, `sigma / sqrt(w)`; None where a weight is a likelihood's power.
    correlates
        True where residuals y - mu can be correlated within series, `ar(time, gr)`: a normal response.
    takes_levels
        True where a two-level factor may be the response, its second level a success.
    extremes
        `(y, trials) -> (low, high)`: masks of the rows whose likelihood is largest where the mean tends to the lower, the upper
        end of its range, as a 0, and a 1, of a Bernoulli; None for families without such rows. Separation is about these.
    r_lme4, r_brms
        How R spells the family: the family function of `glmer` (or a function of lme4 that fits it alone, `glmer.nb`), and of brms;
        empty where the package does not have it.
    log_scale
        True where mu is on the scale of the response's logarithm.
    of_levels
        `(number of levels, link) -> Family`: for ordered levels, the family of so many, whose mu is eta itself, whose further
        parameters are the thresholds and whose design has no intercept; None for all others.
    increasing
        True where the further parameters are thresholds that increase.
    latex, latex_mean
        How the distribution of `y_i` and its mean are written.
    """

    name: str
    link: str
    links: tuple[str, ...]
    parameters: tuple[Parameter, ...] = ()
    response: str = "any real number"
    check: Callable[[Array, Array | None], Array]
    log_density: Callable[[Array, Quantity, Mapping[str, Quantity], Array | None], Any]
    variance: Callable[[Array, Mapping[str, Array], Array | None], Array]
    simulate: Callable[[np.random.Generator, Array, Mapping[str, Array], Array | None], Array]
    start: Callable[[Array, Array | None], Array]
    start_parameters: Callable[[Array, Array | None], Mapping[str, float]] = _no_parameters
    information: Callable[[Array, Mapping[str, Array], Array | None], Array] | None = None
    response_mean: Callable[[Array, Mapping[str, Array]], Array] | None = None
    closed: Mapping[tuple[str, ...], Closed] = field(default_factory=lambda: MappingProxyType({}))
    kernel: Kernel | None = None
    pymc: Callable[..., Any]
    needs_trials: bool = False
    discrete: bool = False
    scale: str | None = None
    takes_levels: bool = False
    correlates: bool = False
    log_scale: bool = False
    extremes: Callable[[Array, Array | None], tuple[Array, Array]] | None = None
    r_lme4: str = ""
    r_brms: str = ""
    of_levels: Callable[[int, Link], Family] | None = None
    increasing: bool = False
    latex: str
    latex_mean: str = r"\mu_i"

    def loglik(self, y: Array, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
        """Return the log density (n,) of each row, all constants included, at its mean and further parameters."""
        given = {name: Quantity(IDENTITY, np.asarray(value, dtype=float)) for name, value in aux.items()}
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(self.log_density(y, Quantity(IDENTITY, np.asarray(mu, dtype=float)), given, trials), dtype=float)


def none_or_all(y: Array, trials: Array | None) -> tuple[Array, Array]:
    """Rows without a success and rows without a failure: the extremes of a proportion."""
    return np.asarray(y == 0), np.asarray(y == (1.0 if trials is None else trials))


def no_count(y: Array, trials: Array | None) -> tuple[Array, Array]:
    """Rows with a count of 0: the extremes of an expected count, which has no upper end."""
    return np.asarray(y == 0), np.zeros(len(y), dtype=bool)


def only_ones(y: Array, trials: Array | None) -> tuple[Array, Array]:
    """Rows with a count of 1, where there is no 0: the extremes of a truncated count."""
    return np.asarray(y == 1), np.zeros(len(y), dtype=bool)


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
