"""Priors of single parameters for the collapsed density: value and derivative of each distribution, and the maps from the real line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit

from bayeslmm.priors import bounds, log_density

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bayeslmm.families.base import Family
    from bayeslmm.priors import PriorRow

__all__ = ["FORMS", "Scalars", "constrain", "form", "scalars_of"]

type Array = np.ndarray

_FLAT, _NORMAL, _STUDENT, _LOGISTIC, _POWERS, _LOGNORMAL = range(6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A prior distribution as one of a few functions of x: `kind`, and `convert`, its arguments -> the four numbers of `form`."""

    kind: int
    convert: Callable[..., tuple[float, float, float, float]]


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "flat": Form(kind=_FLAT, convert=lambda: (0.0, 0.0, 0.0, 0.0)),
        "uniform": Form(kind=_FLAT, convert=lambda lower, upper: (0.0, 0.0, 0.0, 0.0)),
        "normal": Form(kind=_NORMAL, convert=lambda mu, sigma: (mu, sigma, 0.0, 0.0)),
        "student_t": Form(kind=_STUDENT, convert=lambda nu, mu, sigma: (mu, sigma, nu, 0.0)),
        "cauchy": Form(kind=_STUDENT, convert=lambda mu, sigma: (mu, sigma, 1.0, 0.0)),
        "logistic": Form(kind=_LOGISTIC, convert=lambda mu, sigma: (mu, sigma, 0.0, 0.0)),
        "exponential": Form(kind=_POWERS, convert=lambda rate: (0.0, rate, 0.0, 0.0)),
        "gamma": Form(kind=_POWERS, convert=lambda shape, rate: (shape - 1.0, rate, 0.0, 0.0)),
        "inv_gamma": Form(kind=_POWERS, convert=lambda shape, scale: (-shape - 1.0, 0.0, scale, 0.0)),
        "beta": Form(kind=_POWERS, convert=lambda alpha, beta: (alpha - 1.0, 0.0, 0.0, beta - 1.0)),
        "lognormal": Form(kind=_LOGNORMAL, convert=lambda mu, sigma: (mu, sigma, 0.0, 0.0)),
    }
)
"""Distribution's name -> its form; a prior that is not here cannot be sampled by the collapsed sampler."""


class Scalars(NamedTuple):
    """The free scalar parameters, one by one: where each stands among all values, its prior's form and its range.

    `slot` (m,): its place in the vector of values; `kind` (m,) and `args` (m, 4): of `form`; `lower`, `upper` (m,): its range.
    """

    slot: Array
    kind: Array
    args: Array
    lower: Array
    upper: Array


def scalars_of(rows: Sequence[tuple[int, PriorRow]], family: Family) -> tuple[Scalars, float]:
    """Return the free scalars of (slot, prior row) pairs, and the sum of the constants that `form` leaves out of their densities."""
    kinds, arguments, lower, upper, constant = [], [], [], [], 0.0
    for _, row in rows:
        distribution, limits = row.distribution, bounds(row, family)
        low, high = (max(limits[0], distribution.kind.support[0]), min(limits[1], distribution.kind.support[1]))
        if distribution.name == "uniform":
            low, high = max(low, distribution.args[0]), min(high, distribution.args[1])
        one = FORMS[distribution.name]
        args = one.convert(*distribution.args)
        at = _inside(low, high)
        value, _ = form(one.kind, np.array(args), at)
        constant += float(log_density(distribution, np.array(at), low, high)) - value
        kinds.append(one.kind)
        arguments.append(args)
        lower.append(low)
        upper.append(high)
    return Scalars(
        slot=np.array([slot for slot, _ in rows], dtype=np.int64),
        kind=np.array(kinds, dtype=np.int64),
        args=np.array(arguments, dtype=float).reshape(len(rows), 4),
        lower=np.array(lower, dtype=float),
        upper=np.array(upper, dtype=float),
    ), constant


def _inside(lower: float, upper: float) -> float:
    """Return a point inside a range."""
    if np.isfinite(lower) and np.isfinite(upper):
        return (lower + upper) / 2.0
    return lower + 1.0 if np.isfinite(lower) else upper - 1.0 if np.isfinite(upper) else 0.0


@njit(cache=True)
def form(kind: int, args: Array, x: float) -> tuple[float, float]:
    """Return log density, but for a constant, and its derivative at x.

    Forms: flat; normal and Student's t of z = (x - mu) / sigma; logistic; lognormal; and
    `a log x - b x - c / x + d log(1 - x)`, which is exponential, gamma, inverse gamma and beta.
    """
    a, b, c, d = args[0], args[1], args[2], args[3]
    if kind == _FLAT:
        return 0.0, 0.0
    if kind == _POWERS:
        value, slope = -b * x, -b
        if a != 0.0:
            value, slope = value + a * math.log(x), slope + a / x
        if c != 0.0:
            value, slope = value - c / x, slope + c / (x * x)
        if d != 0.0:
            value, slope = value + d * math.log1p(-x), slope - d / (1.0 - x)
        return value, slope
    if kind == _LOGNORMAL:
        z = (math.log(x) - a) / b
        return -0.5 * z * z - math.log(x), -(z / b + 1.0) / x
    z = (x - a) / b
    if kind == _NORMAL:
        return -0.5 * z * z, -z / b
    if kind == _STUDENT:
        return -0.5 * (c + 1.0) * math.log1p(z * z / c), -(c + 1.0) * z / (b * (c + z * z))
    e = math.exp(-abs(z))
    return -abs(z) - 2.0 * math.log1p(e), -math.copysign((1.0 - e) / (1.0 + e), z) / b


@njit(cache=True)
def constrain(u: float, lower: float, upper: float) -> tuple[float, float, float, float]:
    """Return x in (lower, upper) of u on the real line, dx / du, log |dx / du| and the derivative of that."""
    if lower == -math.inf and upper == math.inf:
        return u, 1.0, 0.0, 0.0
    if upper == math.inf:
        e = math.exp(u)
        return lower + e, e, u, 1.0
    if lower == -math.inf:
        e = math.exp(u)
        return upper - e, -e, u, 1.0
    e = math.exp(-abs(u))
    share = 1.0 / (1.0 + e) if u >= 0.0 else e / (1.0 + e)
    slope = e / (1.0 + e) ** 2
    width = upper - lower
    return lower + width * share, width * slope, math.log(width) - abs(u) - 2.0 * math.log1p(e), 1.0 - 2.0 * share
