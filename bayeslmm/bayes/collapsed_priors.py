"""Priors of single parameters for the collapsed density: value and derivative of each distribution, and the maps from the real line."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit
from scipy.special import betaln

from bayeslmm.priors import bounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bayeslmm.families.base import Family
    from bayeslmm.priors import Distribution, PriorRow

__all__ = ["FORMS", "Scalars", "constrain", "form", "lkj_constant", "scalars_of"]

type Array = np.ndarray

_FLAT, _NORMAL, _STUDENT, _LOGISTIC, _POWERS, _LOGNORMAL = range(6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A prior distribution as one of a few functions of x.

    `kind` and `convert`, its arguments -> the four numbers of `form`; `constant`, its arguments -> what `form` leaves out of the
    log density; `symmetric` about its location `mu`.
    """

    kind: int
    convert: Callable[..., tuple[float, float, float, float]]
    constant: Callable[..., float]
    symmetric: bool = False


def _t_constant(nu: float, mu: float, sigma: float) -> float:
    return math.lgamma((nu + 1.0) / 2.0) - math.lgamma(nu / 2.0) - 0.5 * math.log(nu * math.pi) - math.log(sigma)


def _normal_constant(mu: float, sigma: float) -> float:
    return -0.5 * math.log(2.0 * math.pi) - math.log(sigma)


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "flat": Form(kind=_FLAT, convert=lambda: (0.0, 0.0, 0.0, 0.0), constant=lambda: 0.0),
        "uniform": Form(
            kind=_FLAT,
            convert=lambda lower, upper: (0.0, 0.0, 0.0, 0.0),
            constant=lambda lower, upper: -math.log(upper - lower),
        ),
        "normal": Form(kind=_NORMAL, convert=lambda mu, sigma: (mu, sigma, 0.0, 0.0), constant=_normal_constant, symmetric=True),
        "student_t": Form(kind=_STUDENT, convert=lambda nu, mu, sigma: (mu, sigma, nu, 0.0), constant=_t_constant, symmetric=True),
        "cauchy": Form(
            kind=_STUDENT,
            convert=lambda mu, sigma: (mu, sigma, 1.0, 0.0),
            constant=lambda mu, sigma: -math.log(math.pi * sigma),
            symmetric=True,
        ),
        "logistic": Form(
            kind=_LOGISTIC, convert=lambda mu, sigma: (mu, sigma, 0.0, 0.0), constant=lambda mu, sigma: -math.log(sigma), symmetric=True
        ),
        "exponential": Form(kind=_POWERS, convert=lambda rate: (0.0, rate, 0.0, 0.0), constant=lambda rate: math.log(rate)),
        "gamma": Form(
            kind=_POWERS,
            convert=lambda shape, rate: (shape - 1.0, rate, 0.0, 0.0),
            constant=lambda shape, rate: shape * math.log(rate) - math.lgamma(shape),
        ),
        "inv_gamma": Form(
            kind=_POWERS,
            convert=lambda shape, scale: (-shape - 1.0, 0.0, scale, 0.0),
            constant=lambda shape, scale: shape * math.log(scale) - math.lgamma(shape),
        ),
        "beta": Form(
            kind=_POWERS,
            convert=lambda alpha, beta: (alpha - 1.0, 0.0, 0.0, beta - 1.0),
            constant=lambda alpha, beta: math.lgamma(alpha + beta) - math.lgamma(alpha) - math.lgamma(beta),
        ),
        "lognormal": Form(kind=_LOGNORMAL, convert=lambda mu, sigma: (mu, sigma, 0.0, 0.0), constant=_normal_constant),
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
    ranges = [_range(row, family) for _, row in rows]
    forms = [FORMS[row.distribution.name] for _, row in rows]
    constants = [
        one.constant(*row.distribution.args) - math.log(_mass(row.distribution, *limits))
        for one, (_, row), limits in zip(forms, rows, ranges, strict=True)
    ]
    return Scalars(
        slot=np.array([slot for slot, _ in rows], dtype=np.int64),
        kind=np.array([one.kind for one in forms], dtype=np.int64),
        args=np.array([one.convert(*row.distribution.args) for one, (_, row) in zip(forms, rows, strict=True)]).reshape(len(rows), 4),
        lower=np.array([lower for lower, _ in ranges], dtype=float),
        upper=np.array([upper for _, upper in ranges], dtype=float),
    ), sum(constants)


def _range(row: PriorRow, family: Family) -> tuple[float, float]:
    """Return where both the parameter and its prior's distribution can be."""
    distribution, (lower, upper) = row.distribution, bounds(row, family)
    low, high = distribution.args if distribution.name == "uniform" else distribution.kind.support
    return max(lower, low), min(upper, high)


def _mass(distribution: Distribution, lower: float, upper: float) -> float:
    """Return the probability of a range, which the density is divided by; 1 for `flat`."""
    low, high = distribution.kind.support
    if distribution.name == "flat" or (lower <= low and upper >= high):
        return 1.0
    at = dict(zip(distribution.kind.arguments, distribution.args, strict=True))
    if FORMS[distribution.name].symmetric and (lower, upper) == (at["mu"], np.inf):
        return 0.5
    make = distribution.kind.scipy
    assert make is not None
    frozen = make(*distribution.args)
    return float(frozen.cdf(upper) - frozen.cdf(lower))


def lkj_constant(k: int, eta: float) -> float:
    """Return the log of the integral of |C|^(eta - 1) over correlation matrices C (k, k).

    Source: Lewandowski, Kurowicka and Joe (2009), J. Multivar. Anal. 100, equation 16.
    """
    j = np.arange(1, k)
    half = eta + (k - j - 1) / 2.0
    return float(np.sum((k - j) * ((2.0 * eta - 2.0 + k - j) * math.log(2.0) + betaln(half, half))))


@njit(cache=True, error_model="numpy")
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


@njit(cache=True, error_model="numpy")
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
