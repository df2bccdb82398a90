"""Penalties that keep the coefficients of a generalised model finite: Jeffreys' prior (Firth), or the model's own priors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.errors import FitError, suggest
from bayeslmm.families.derivatives import derivatives
from bayeslmm.priors import INTERCEPT

if TYPE_CHECKING:
    from bayeslmm.model import Model
    from bayeslmm.priors import PriorRow

__all__ = ["PENALTIES", "Penalty", "penalty_for"]

type Array = np.ndarray
type Function = Callable[[Array], tuple[float, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalty:
    """A prior of the mean's coefficients: `function` gives -2 log p(beta), up to a constant, and its gradient by beta (p,)."""

    name: str
    function: Function


def penalty_for(model: Model, name: str) -> Penalty:
    """Return the penalty of a name for the coefficients of a model's mean.

    `"jeffreys"`: |X'W X|^(1/2), W the expected information at random effects of zero, so that a model without random effects has
    Firth's estimates. `"prior"`: the model's own prior rows of intercept and coefficients, so that the estimate is a mode of the
    posterior that `brm` samples, at flat priors of all else.

    Raises
    ------
    FitError
        For an unknown name, or Jeffreys' prior where the information hangs on further parameters of the family.

    Source: Firth (1993), Biometrika 80, 27-38; for mixed models Sterzinger & Kosmidis (2023), Stat. Comput. 33, section 3.
    """
    if name not in PENALTIES:
        raise FitError(f"unknown penalty {name!r}{suggest(str(name), list(PENALTIES))}; known: {', '.join(PENALTIES)}")
    return Penalty(name=name, function=PENALTIES[name](model))


def _jeffreys(model: Model) -> Function:
    design, family, link = model.design, model.family, model.link
    if family.parameters or family.information is None:
        named = "', '".join(parameter.name for parameter in family.parameters)
        raise FitError(
            f"Jeffreys' prior of family '{family.name}' hangs on its further parameters ('{named}'); use penalty='prior' for the "
            "model's own priors"
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
        W, change = curvature(design.X @ beta + design.offset)
        root = np.sqrt(np.maximum(W, 1e-300))
        Q, R = np.linalg.qr(root[:, None] * X)
        hat = np.einsum("np,np->n", Q, Q)
        with np.errstate(divide="ignore"):
            value = -2.0 * float(np.sum(np.log(np.abs(np.diagonal(R)))))
        return value, -(design.X.T @ (hat * change / np.maximum(W, 1e-300)))

    return function


def _prior(model: Model) -> Function:
    """Return the priors of the coefficients: A beta are the quantities that have them, the first of the centred design."""
    design = model.design
    names = design.fixed_names
    rows = {row.term: row for row in model.prior_rows if row.part == "fixed" and not row.parameter}
    centred = [row for row in model.prior_rows if row.part == "intercept" and not row.parameter]
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
    nu, location, scale = _TAILS[distribution.name](*distribution.args)
    z = (value - location) / scale
    if np.isinf(nu):
        return z * z, 2.0 * z / scale
    return (nu + 1.0) * float(np.log1p(z * z / nu)), 2.0 * (nu + 1.0) * z / (nu + z * z) / scale


PENALTIES: Mapping[str, Callable[[Model], Function]] = MappingProxyType({"jeffreys": _jeffreys, "prior": _prior})
