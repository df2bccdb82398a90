"""Truncated Taylor numbers: a value with its derivatives to third order in a few variables, row by row, through one arithmetic.

A density written with the functions of this module serves plain arrays (values) and `Jet`s (values and exact derivatives) alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import scipy.special as special

__all__ = [
    "Jet",
    "Taylor",
    "arccot",
    "digamma",
    "exp",
    "expit",
    "expm1",
    "gammaln",
    "log",
    "log1mexp",
    "log1mexpexp",
    "log1p",
    "log1pmx",
    "log_ndtr",
    "logaddexp",
    "logsumexp",
    "ndtr",
    "polygamma",
    "rising_excess",
    "softplus",
    "sqrt",
    "stirling_error",
    "taylor",
    "times",
    "variables",
    "where",
]

type Array = np.ndarray
type Rule = Callable[[Array], Iterator[Array]]

_LOG_ROOT_2PI = 0.5 * np.log(2.0 * np.pi)


@dataclass(frozen=True, slots=True, kw_only=True)
class Taylor:
    """A function of K variables at n rows: `value` (n,), `d1` (K, n), `d2` (K, K, n), `d3` (K, K, K, n); empty above the order asked."""

    value: Array
    d1: Array
    d2: Array
    d3: Array


@dataclass(frozen=True, slots=True, eq=False)
class Jet:
    """A value at n rows and its derivatives in the few variables (k of all K) that it depends on.

    Attributes
    ----------
    variables
        Positions of those variables, ascending.
    value
        (n,).
    derivatives
        One array an order: (k, n), (k, k, n), (k, k, k, n), symmetric; as many as were asked for.

    Source: Griewank & Walther (2008), Evaluating Derivatives, chapter 13.
    """

    __array_ufunc__ = None

    variables: tuple[int, ...]
    value: Array
    derivatives: tuple[Array, ...]

    @property
    def order(self) -> int:
        return len(self.derivatives)

    def __add__(self, other: Any) -> Jet:
        if not isinstance(other, Jet):
            return Jet(self.variables, self.value + other, self.derivatives)
        u, v = _aligned(self, other)
        return Jet(u.variables, u.value + v.value, tuple(a + b for a, b in zip(u.derivatives, v.derivatives, strict=True)))

    def __mul__(self, other: Any) -> Jet:
        if not isinstance(other, Jet):
            return Jet(self.variables, self.value * other, tuple(part * other for part in self.derivatives))
        u, v = _aligned(self, other)
        return Jet(u.variables, u.value * v.value, tuple(islice(_leibniz(u, v), u.order)))

    def __neg__(self) -> Jet:
        return Jet(self.variables, -self.value, tuple(-part for part in self.derivatives))

    def __sub__(self, other: Any) -> Jet:
        return self.__add__(-other)

    def __rsub__(self, other: Any) -> Jet:
        return (-self).__add__(other)

    def __truediv__(self, other: Any) -> Jet:
        return self.__mul__(_apply(_reciprocal, other) if isinstance(other, Jet) else 1.0 / other)

    def __rtruediv__(self, other: Any) -> Any:
        return _apply(_reciprocal, self) * other

    def __pow__(self, exponent: float) -> Any:
        return _apply(lambda x: _power(x, exponent), self)

    __radd__ = __add__
    __rmul__ = __mul__


def variables(etas: Array, order: int) -> tuple[Jet, ...]:
    """Return the rows of `etas` (K, n) as the K variables, each with derivative one in itself."""
    n = etas.shape[1]
    first = (np.ones((1, n)), np.zeros((1, 1, n)), np.zeros((1, 1, 1, n)))[:order]
    return tuple(Jet((k,), eta, first) for k, eta in enumerate(etas))


def taylor(jet: Any, count: int, n: int, order: int) -> Taylor:
    """Return a jet, or an array that depends on no variable, as derivatives in all `count` variables."""
    full = _spread(_as_jet(jet, n, order), tuple(range(count)))
    parts = (*full.derivatives, *(np.empty((count,) * m + (0,)) for m in range(order + 1, 4)))
    return Taylor(value=np.array(np.broadcast_to(full.value, n), dtype=float), d1=parts[0], d2=parts[1], d3=parts[2])


def _as_jet(x: Any, n: int, order: int) -> Jet:
    if isinstance(x, Jet):
        return x
    empty = tuple(np.zeros((0,) * m + (n,)) for m in range(1, order + 1))
    return Jet((), np.broadcast_to(np.asarray(x, dtype=float), n), empty)


def _aligned(u: Jet, v: Jet) -> tuple[Jet, Jet]:
    """Return both over the variables of either."""
    if u.variables == v.variables:
        return u, v
    union = tuple(sorted({*u.variables, *v.variables}))
    return _spread(u, union), _spread(v, union)


def _spread(u: Jet, union: tuple[int, ...]) -> Jet:
    """Return a jet over more variables, of zero derivative in those that it does not depend on."""
    if u.variables == union:
        return u
    at = [union.index(variable) for variable in u.variables]
    spread = []
    for m, part in enumerate(u.derivatives, start=1):
        full = np.zeros((len(union),) * m + part.shape[m:])
        full[np.ix_(*[at] * m)] = part
        spread.append(full)
    return Jet(union, u.value, tuple(spread))


def _leibniz(u: Jet, v: Jet) -> Iterator[Array]:
    """Yield the derivatives of a product, of first, second and third order."""
    (u1, u2, u3), (v1, v2, v3) = (_padded(u), _padded(v))
    yield u.value * v1 + v.value * u1
    outer = u1[:, None] * v1
    yield u.value * v2 + v.value * u2 + outer + outer.swapaxes(0, 1)
    yield u.value * v3 + v.value * u3 + _symmetric(u2, v1) + _symmetric(v2, u1)


def _padded(u: Jet) -> tuple[Array, ...]:
    return (*u.derivatives, *(np.empty(0),) * (3 - u.order))


def _symmetric(second: Array, first: Array) -> Array:
    """Return s_ij f_k + s_ik f_j + s_jk f_i (k, k, k, n)."""
    return np.asarray(second[:, :, None] * first + second[:, None] * first[:, None] + second * first[:, None, None])


def _apply(rule: Rule, x: Any) -> Any:
    """Return f(x): of a jet with its derivatives by the chain rule, from a rule that yields f, f', f'', f''' in turn."""
    if not isinstance(x, Jet):
        return next(rule(np.asarray(x, dtype=float)))
    values = tuple(islice(rule(x.value), x.order + 1))
    return Jet(x.variables, values[0], tuple(islice(_chain(x, values), x.order)))


def _chain(u: Jet, f: Sequence[Array]) -> Iterator[Array]:
    """Yield the derivatives of f(u), of first, second and third order (Faa di Bruno)."""
    u1, u2, u3 = _padded(u)
    yield f[1] * u1
    outer = u1[:, None] * u1
    yield f[2] * outer + f[1] * u2
    yield f[3] * (outer[:, :, None] * u1) + f[2] * _symmetric(u2, u1) + f[1] * u3


# --- Functions ----------------------------------------------------------------------------------------------------------------


def _reciprocal(x: Array) -> Iterator[Array]:
    r = 1.0 / x
    yield r
    yield -(r**2)
    yield 2.0 * r**3
    yield -6.0 * r**4


def _power(x: Array, a: float) -> Iterator[Array]:
    factor = 1.0
    for m in range(4):
        yield factor * x ** (a - m) if factor else np.zeros_like(x)
        factor *= a - m


def _exp(x: Array) -> Iterator[Array]:
    e = np.exp(x)
    while True:
        yield e


def _expm1(x: Array) -> Iterator[Array]:
    yield np.expm1(x)
    yield from _exp(x)


def _log(x: Array) -> Iterator[Array]:
    yield np.log(x)
    yield from _reciprocal(x)


def _log1p(x: Array) -> Iterator[Array]:
    yield np.log1p(x)
    yield from _reciprocal(1.0 + x)


def _log1pmx(x: Array) -> Iterator[Array]:
    """log(1 + x) - x; below 0.01 by its series."""
    series = np.polynomial.polynomial.polyval(x, [0.0, 0.0, -1 / 2, 1 / 3, -1 / 4, 1 / 5, -1 / 6, 1 / 7, -1 / 8])
    yield np.where(np.abs(x) < 0.01, series, np.log1p(x) - x)
    r = 1.0 / (1.0 + x)
    yield -x * r
    yield -(r**2)
    yield 2.0 * r**3


def _expit(x: Array) -> Iterator[Array]:
    p, q = special.expit(x), special.expit(-x)
    yield p
    yield p * q
    yield p * q * (q - p)
    yield p * q * ((q - p) ** 2 - 2.0 * p * q)


def _softplus(x: Array) -> Iterator[Array]:
    yield np.logaddexp(0.0, x)
    yield from _expit(x)


def _arccot(x: Array) -> Iterator[Array]:
    """The angle between 0 and pi whose cotangent is x: exact in the tail where it is small."""
    yield np.arctan2(1.0, x)
    r = 1.0 / (1.0 + x**2)
    yield -r
    yield 2.0 * x * r**2
    yield (2.0 - 6.0 * x**2) * r**3


def _ndtr(x: Array) -> Iterator[Array]:
    yield special.ndtr(x)
    density = np.exp(-0.5 * x**2 - _LOG_ROOT_2PI)
    yield density
    yield -x * density
    yield (x**2 - 1.0) * density


_MILLS_TERMS = 50
_MILLS_BELOW = -3.0


def _mills_excess(t: Array) -> tuple[Array, Array, Array]:
    """Return c(t) = phi(t) / Phi(-t) - t and two derivatives, t >= 3, by Laplace's continued fraction c_k = k / (t + c_(k+1)).

    It starts from the c that c = k / (t + c) has.
    """
    s = np.sqrt(t**2 + 4.0 * _MILLS_TERMS)
    c, c1, c2 = 0.5 * (s - t), 0.5 * (t / s - 1.0), 2.0 * _MILLS_TERMS / s**3
    for k in range(_MILLS_TERMS, 0, -1):
        d, d1 = t + c, 1.0 + c1
        c, c1, c2 = k / d, -k * d1 / d**2, k * (2.0 * d1**2 - d * c2) / d**3
    return c, c1, c2


def _log_ndtr(x: Array) -> Iterator[Array]:
    """log Phi(x): its derivatives by the continued fraction where differences would cancel (x < -3)."""
    value = special.log_ndtr(x)
    yield value
    low = x < _MILLS_BELOW
    c, c1, c2 = _mills_excess(-x[low])
    r = np.exp(-0.5 * x**2 - _LOG_ROOT_2PI - value)
    sum_ = x + r
    first, second, third = r, -r * sum_, r * (sum_ * (sum_ + r) - 1.0)
    for part, exact in ((first, c - x[low]), (second, -(1.0 + c1)), (third, c2)):
        part[low] = exact
    yield first
    yield second
    yield third


def _log1mexp(x: Array) -> Iterator[Array]:
    """log(1 - exp(-x)), x > 0."""
    yield np.where(x < np.log(2.0), np.log(-np.expm1(-x)), np.log1p(-np.exp(-x)))
    q = 1.0 / np.expm1(x)
    yield q
    yield -q * (1.0 + q)
    yield q * (1.0 + q) * (1.0 + 2.0 * q)


_BERNOULLI = np.array([1.0, -1 / 2, 1 / 12, 0.0, -1 / 720, 0.0, 1 / 30240, 0.0, -1 / 1209600, 0.0, 1 / 47900160, 0.0, -691 / 1307674368000])
"""Coefficients of u / (exp(u) - 1)."""


def _log1mexpexp(x: Array) -> Iterator[Array]:
    """log(1 - exp(-u)), u = exp(x): derivatives from B(u) = u / (exp(u) - 1), for small u by its series."""
    u = np.exp(np.minimum(x, 700.0))
    yield np.where(x < -37.0, x, next(_log1mexp(u)))
    small, k = u < 0.5, np.arange(len(_BERNOULLI))
    first = u / np.expm1(u)
    rest = 1.0 - u - first
    second = first * rest
    third = second * rest - first * (u + second)
    for m, part in enumerate((first, second, third)):
        yield np.where(small, np.polynomial.polynomial.polyval(np.where(small, u, 0.0), _BERNOULLI * k**m), part)


def _gammaln(x: Array) -> Iterator[Array]:
    yield special.gammaln(x)
    yield from _digamma(x)


def _digamma(x: Array) -> Iterator[Array]:
    yield special.digamma(x)
    for m in (1, 2, 3):
        yield _polygamma_value(m, x)


def _polygamma_value(m: int, x: Array) -> Array:
    return np.asarray((-1.0) ** (m + 1) * special.factorial(m) * special.zeta(m + 1.0, x))


_STIRLING = np.array([1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156, -3617 / 122400])
"""Coefficients of 1 / x, 1 / x^3, ... in the error of Stirling's formula."""
_STIRLING_FROM = 10.0


def _stirling_error(x: Array) -> Iterator[Array]:
    """log Gamma(x) - [(x - 1/2) log x - x + log(2 pi) / 2]: by its series from x = 10 on."""
    large, safe = x >= _STIRLING_FROM, np.maximum(x, _STIRLING_FROM)
    exact = _stirling_error_small(np.minimum(x, _STIRLING_FROM))
    power, coefficients = 1.0 - 2.0 * np.arange(1, len(_STIRLING) + 1), _STIRLING
    for m in range(4):
        series = np.polynomial.polynomial.polyval(safe**-2.0, coefficients) * safe ** (-1.0 - m)
        yield np.where(large, series, next(exact))
        coefficients = coefficients * (power - m)


def _stirling_error_small(x: Array) -> Iterator[Array]:
    yield special.gammaln(x) - (x - 0.5) * np.log(x) + x - _LOG_ROOT_2PI
    yield special.digamma(x) - np.log(x) + 0.5 / x
    yield _polygamma_value(1, x) - 1.0 / x - 0.5 / x**2
    yield _polygamma_value(2, x) + 1.0 / x**2 + 1.0 / x**3


_LARGEST_LOG = 100.0
"""Above it the excess is 0 in floating point."""


def _rising_excess(x: Array, y: Array) -> Iterator[Array]:
    """log Gamma(a + y) - log Gamma(a) - y log a at x = log a: from a = 10 on by Stirling's formula, which does not cancel."""
    x = np.minimum(x, _LARGEST_LOG)
    plain, a = (y == 0.0) | (y == 1.0), np.exp(x)
    small = _excess_small(np.minimum(a, _STIRLING_FROM), x, y)
    large = _excess_large(np.maximum(a, _STIRLING_FROM), y)
    for direct, by_series in zip(small, large, strict=True):
        yield np.where(plain, 0.0, np.where(a < _STIRLING_FROM, direct, by_series))


def _excess_small(a: Array, x: Array, y: Array) -> Iterator[Array]:
    yield special.gammaln(a + y) - special.gammaln(1.0 + a) - (y - 1.0) * x
    first = a * (special.digamma(a + y) - special.digamma(1.0 + a))
    yield first - (y - 1.0)
    second = a**2 * (_polygamma_value(1, a + y) - _polygamma_value(1, 1.0 + a))
    yield second + first
    third = a**3 * (_polygamma_value(2, a + y) - _polygamma_value(2, 1.0 + a))
    yield third + 3.0 * second + first


def _excess_large(a: Array, y: Array) -> Iterator[Array]:
    b, r = a + y, y / a
    errors = (upper - lower for upper, lower in zip(_stirling_error(b), _stirling_error(a), strict=True))
    yield a * next(_log1pmx(r)) + (y - 0.5) * np.log1p(r) + next(errors)
    first = a * (next(_log1pmx(r)) + 0.5 * y / (a * b) + next(errors))
    yield first
    second = y**2 / b - 0.5 * y * (a + b) / b**2 + a**2 * next(errors)
    yield second + first
    third = -(y**2) * (3.0 * a + 2.0 * y) / b**2 + y * (3.0 * a * b + y**2) / b**3 + a**3 * next(errors)
    yield third + 3.0 * second + first


def _function(rule: Rule, about: str) -> Callable[[Any], Any]:
    def function(x: Any) -> Any:
        return _apply(rule, x)

    function.__doc__ = about
    return function


exp = _function(_exp, "exp(x).")
expm1 = _function(_expm1, "exp(x) - 1.")
log = _function(_log, "log(x).")
log1p = _function(_log1p, "log(1 + x).")
log1pmx = _function(_log1pmx, "log(1 + x) - x, without cancellation near 0.")
expit = _function(_expit, "1 / (1 + exp(-x)).")
softplus = _function(_softplus, "log(1 + exp(x)).")
arccot = _function(_arccot, "The angle between 0 and pi whose cotangent is x.")
ndtr = _function(_ndtr, "The normal distribution's probability below x.")
log_ndtr = _function(_log_ndtr, "Its logarithm, with derivatives exact in both tails.")
log1mexp = _function(_log1mexp, "log(1 - exp(-x)), x > 0.")
log1mexpexp = _function(_log1mexpexp, "log(1 - exp(-exp(x))), with derivatives exact in both tails.")
gammaln = _function(_gammaln, "log Gamma(x), x > 0.")
digamma = _function(_digamma, "The derivative of log Gamma(x), x > 0, to third order (its own derivatives).")
stirling_error = _function(_stirling_error, "log Gamma(x) less Stirling's formula.")


def polygamma(m: int, x: Any) -> Any:
    """Return the m-th derivative (m at least 1) of digamma at x > 0."""
    return _apply(lambda value: (_polygamma_value(m + k, value) for k in range(4)), x)


def rising_excess(log_a: Any, y: Array | float) -> Any:
    """Return log Gamma(a + y) - log Gamma(a) - y log a, `log_a` a jet or array, y >= 0 an array: it goes to 0 as a grows, exactly."""
    return _apply(lambda value: _rising_excess(value, np.asarray(y, dtype=float)), log_a)


def sqrt(x: Any) -> Any:
    """Return the square root."""
    return _apply(lambda value: _power(value, 0.5), x)


def where(mask: Array, a: Any, b: Any) -> Any:
    """Return `a` in the rows of the mask and `b` in the others, jets or arrays; what is not taken may be infinite or NaN."""
    if not (isinstance(a, Jet) or isinstance(b, Jet)):
        return np.where(mask, a, b)
    known = a if isinstance(a, Jet) else b
    u, v = _aligned(*(_as_jet(x, len(known.value), known.order) for x in (a, b)))
    parts = tuple(np.where(mask, p, q) for p, q in zip(u.derivatives, v.derivatives, strict=True))
    return Jet(u.variables, np.where(mask, u.value, v.value), parts)


def times(y: Array, x: Any) -> Any:
    """Return y x for an array y, 0 where y is 0, even if x is infinite."""
    return where(np.asarray(y) == 0, 0.0, y * x)


def logaddexp(a: Any, b: Any) -> Any:
    """Return log(exp(a) + exp(b)), of jets or arrays."""
    if not (isinstance(a, Jet) or isinstance(b, Jet)):
        return np.logaddexp(a, b)
    return a + softplus(b - a)


def logsumexp(terms: Sequence[Any]) -> Any:
    """Return the log of the sum of exponentials of some jets or arrays."""
    total = terms[0]
    for term in terms[1:]:
        total = logaddexp(total, term)
    return total
