"""Penalties that keep the coefficients of a generalised model finite: Jeffreys' prior (Firth), or the model's own priors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.errors import FitError, suggest
from bayeslmm.families.derivatives import derivatives
from bayeslmm.priors import INTERCEPT, Distribution, PriorRow, overlay, prior

if TYPE_CHECKING:
    from bayeslmm.model import Model

__all__ = ["PENALTIES", "Penalty", "penalty_for", "penalty_of"]

type Array = np.ndarray
type Function = Callable[[Array], tuple[float, Array]]

_COEFFICIENTS = ("intercept", "fixed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """A prior of the mean's coefficients: `name` is what is shown; `rows` are the user's own, of a penalty that is none of `PENALTIES`."""

    name: str
    rows: tuple[PriorRow, ...] = ()


def penalty_of(given: Any) -> Penalty | None:
    """Return the penalty that a user wrote: a name of `PENALTIES`, a distribution of all coefficients but the intercept, or prior rows.

    Raises
    ------
    FitError
        If it is none of these, or a row is about another part of the model.
    PriorError
        For a distribution that cannot be read.
    """
    if given is None or isinstance(given, Penalty):
        return given
    if isinstance(given, str):
        if given in PENALTIES:
            return Penalty(name=given)
        if "(" not in given:
            raise FitError(
                f"unknown penalty {given!r}{suggest(given, list(PENALTIES))}; or give a distribution of the coefficients, as "
                "'normal(0, 2.5)', or rows made by prior(...)"
            )
    if isinstance(given, str) or (hasattr(given, "name") and hasattr(given, "args")):  # a text, or a `bambi.Prior`
        row = prior(given, part="fixed")
        return Penalty(name=str(row), rows=(row,))
    rows = (given,) if isinstance(given, PriorRow) else tuple(given) if isinstance(given, Iterable) else ()
    if not rows or not all(isinstance(row, PriorRow) for row in rows):
        raise FitError(f"a penalty is a name ({', '.join(PENALTIES)}), a distribution as 'normal(0, 2.5)', or rows made by prior(...)")
    wrong = [row.part for row in rows if row.part not in _COEFFICIENTS]
    if wrong:
        raise FitError(f"a penalty is of coefficients (part 'fixed' or 'intercept'), not of part '{wrong[0]}'; for that use brm")
    return Penalty(name="; ".join(f"{row.term or row.part} ~ {row.distribution}" for row in rows), rows=rows)


def penalty_for(model: Model, penalty: Penalty) -> Function:
    """Return -2 log p(beta) of a penalty of a model's coefficients (p,), up to a constant, with its gradient by beta.

    `jeffreys`: |X'W X|^(1/2), W the expected information at random effects of zero, so that a model without random effects has
    Firth's estimates. `prior`: the model's own prior rows of intercept and coefficients, so that the estimate is a mode of the
    posterior that `brm` samples, at flat priors of all else. Rows: these, and flat priors of all other coefficients.

    Raises
    ------
    FitError
        For Jeffreys' prior where the information hangs on further parameters of the family, and for a distribution that a penalty
        cannot have.
    PriorError
        For rows that name nothing in the model.

    Source: Firth (1993), Biometrika 80, 27-38; for mixed models Sterzinger & Kosmidis (2023), Stat. Comput. 33, section 3.
    """
    if not penalty.rows:
        return PENALTIES[penalty.name](model)
    own = [row for row in model.prior_rows if row.part in _COEFFICIENTS and not row.parameter]
    flat = [replace(row, distribution=Distribution(name="flat"), source="default") for row in own]
    return _by_rows(model, overlay(flat, penalty.rows, model.design, model.family))


def _jeffreys(model: Model) -> Function:
    design, family, link = model.design, model.family, model.link
    if family.parameters or family.information is None:
        raise FitError(
            f"Jeffreys' prior is available for bernoulli, binomial and poisson responses, whose information hangs on the mean alone, not "
            f"for family '{family.name}'; use penalty='prior' for the model's own priors, or a distribution as penalty='normal(0, 2.5)'"
        )
    trials = np.ones(design.n) if design.trials is None else design.trials
    lengths = np.max(np.abs(design.X), axis=0, initial=0.0)
    X = design.X / np.where(lengths > 0.0, lengths, 1.0)
    weights = design.weights if design.has_weights else np.ones(design.n)

    def curvature(eta: Array) -> tuple[Array, Array]:
        """Return the expected information of each row by eta, and its derivative: that of an exponential family is linear in y."""
        low, high = (derivatives(family, (link,), y, eta[None], design.trials, 3) for y in (np.zeros(design.n), trials))
        share, rise = high.d2[0, 0] - low.d2[0, 0], high.d3[0, 0, 0] - low.d3[0, 0, 0]
        mu, slope = link.inverse(eta), link.mu_eta(eta)
        return -weights * (low.d2[0, 0] + share * mu), -weights * (low.d3[0, 0, 0] + rise * mu + share * slope)

    def function(beta: Array) -> tuple[float, Array]:
        with np.errstate(all="ignore"):
            W, change = curvature(design.X @ beta + design.offset)
        if not np.all(np.isfinite(W)):
            return np.inf, np.zeros(len(beta))
        root = np.sqrt(np.maximum(W, 1e-300))
        Q, R = np.linalg.qr(root[:, None] * X)
        hat = np.einsum("np,np->n", Q, Q)
        with np.errstate(divide="ignore"):
            value = -2.0 * float(np.sum(np.log(np.abs(np.diagonal(R)))))
        return value, -(design.X.T @ (hat * change / np.maximum(W, 1e-300)))

    return function


def _prior(model: Model) -> Function:
    return _by_rows(model, model.prior_rows)


def _by_rows(model: Model, prior_rows: Iterable[PriorRow]) -> Function:
    """Return the priors of the coefficients: A beta are the quantities that have them, the first of the centred design."""
    design = model.design
    names = design.fixed_names
    own = [row for row in prior_rows if not row.parameter]
    rows = {row.term: row for row in own if row.part == "fixed"}
    centred = [row for row in own if row.part == "intercept"]
    A = np.eye(len(names))
    if centred and INTERCEPT in names:
        rows[INTERCEPT] = centred[0]
        A[names.index(INTERCEPT)] = design.X.mean(axis=0)
    ordered = [rows[name] for name in names]

    def function(beta: Array) -> tuple[float, Array]:
        terms = [_minus_two_log(row, value) for row, value in zip(ordered, (A @ beta).tolist(), strict=True)]
        return sum(value for value, _ in terms), A.T @ np.array([slope for _, slope in terms])

    for row in ordered:
        _minus_two_log(row, 0.0)
    return function


_TAILS: Mapping[str, Callable[..., tuple[float, float, float]]] = MappingProxyType(
    {
        "normal": lambda mu, sigma: (np.inf, mu, sigma),
        "student_t": lambda nu, mu, sigma: (nu, mu, sigma),
        "cauchy": lambda mu, sigma: (1.0, mu, sigma),
        "flat": lambda: (np.inf, 0.0, np.inf),
    }
)
"""Prior distributions that a penalty can be: degrees of freedom (infinite: normal), location and scale of Student's t."""


def _minus_two_log(row: PriorRow, value: float) -> tuple[float, float]:
    distribution = row.distribution
    if distribution.name not in _TAILS:
        known = ", ".join(_TAILS)
        raise FitError(f"a penalty of '{row.term or row.part}' can be {known}, not {distribution}; sample the model with brm")
    if row.bounded:
        raise FitError(f"a penalty of '{row.term or row.part}' takes no bounds, as {row} has; sample the model with brm")
    nu, location, scale = _TAILS[distribution.name](*distribution.args)
    z = (value - location) / scale
    if np.isinf(nu):
        return z * z, 2.0 * z / scale
    return (nu + 1.0) * float(np.log1p(z * z / nu)), 2.0 * (nu + 1.0) * z / (nu + z * z) / scale


PENALTIES: Mapping[str, Callable[[Model], Function]] = MappingProxyType({"jeffreys": _jeffreys, "prior": _prior})
