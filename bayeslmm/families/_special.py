"""Special functions of one number, value and derivative, in the part of Python that Numba compiles."""

from __future__ import annotations

import math

__all__ = ["digamma", "log1mexp", "log1pmx", "log_ndtr", "log_sum", "rising_excess", "stirling_error"]


def digamma(x: float) -> float:
    """Return the derivative of log Gamma(x), x > 0: by recurrence up to 10, then by its asymptotic series."""
    less = 0.0
    while x < 10.0:
        less += 1.0 / x
        x += 1.0
    r = 1.0 / (x * x)
    series = r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r * (1 / 132 - r * (691 / 32760 - r / 12))))))
    return math.log(x) - 0.5 / x - series - less


def stirling_error(x: float) -> tuple[float, float]:
    """Return log Gamma(x) - [(x - 1/2) log x - x + log(2 pi) / 2] and its derivative, x > 0."""
    if x < 10.0:
        log = math.log(x)
        return math.lgamma(x) - (x - 0.5) * log + x - 0.9189385332046727, digamma(x) - log + 0.5 / x
    r = 1.0 / (x * x)
    value = (1 / 12 - r * (1 / 360 - r * (1 / 1260 - r * (1 / 1680 - r * (1 / 1188 - r * 691 / 360360))))) / x
    slope = -r * (1 / 12 - r * (1 / 120 - r * (1 / 252 - r * (1 / 240 - r * (1 / 132 - r * 691 / 32760)))))
    return value, slope


def log1pmx(x: float) -> float:
    """Return log(1 + x) - x."""
    if abs(x) > 0.01:
        return math.log1p(x) - x
    return x * x * (-1 / 2 + x * (1 / 3 + x * (-1 / 4 + x * (1 / 5 + x * (-1 / 6 + x * (1 / 7 - x / 8))))))


def rising_excess(a: float, y: float) -> tuple[float, float]:
    """Return log Gamma(a + y) - log Gamma(a) - y log a and its derivative by log a, a > 0, y >= 0: exactly 0 in the limit of a large a.

    Small whole numbers y by the product of 1 + k / a, k < y; else by log Gamma up to a = 10, beyond by Stirling's formula.
    """
    if y == 0.0 or y == 1.0:
        return 0.0, 0.0
    if y <= 12.0 and y == math.floor(y) and a > 1e-20:
        product, slope = 1.0, 0.0
        for k in range(1, int(y)):
            product *= 1.0 + k / a
            slope -= k / (a + k)
        return math.log(product), slope
    if a < 10.0:
        value = math.lgamma(a + y) - math.lgamma(1.0 + a) - (y - 1.0) * math.log(a)
        return value, a * (digamma(a + y) - digamma(1.0 + a)) - (y - 1.0)
    b, r = a + y, y / a
    excess = log1pmx(r)
    upper, upper_slope = stirling_error(b)
    lower, lower_slope = stirling_error(a)
    value = a * excess + (y - 0.5) * math.log1p(r) + (upper - lower)
    return value, a * (excess + 0.5 * y / (a * b) + (upper_slope - lower_slope))


def log1mexp(x: float) -> tuple[float, float]:
    """Return log(1 - exp(-x)) and its derivative, x > 0."""
    value = math.log(-math.expm1(-x)) if x < 0.6931471805599453 else math.log1p(-math.exp(-x))
    return value, 1.0 / math.expm1(x)


def log_ndtr(x: float) -> tuple[float, float]:
    """Return log Phi(x) and its derivative phi(x) / Phi(x): below -5 by Laplace's continued fraction."""
    if x > -5.0:
        value = math.log(0.5 * math.erfc(-x * 0.7071067811865476)) if x < 2.0 else math.log1p(-0.5 * math.erfc(x * 0.7071067811865476))
        return value, math.exp(-0.5 * x * x - 0.9189385332046727 - value)
    t = -x
    c = 0.5 * (math.sqrt(t * t + 160.0) - t)
    for k in range(40, 0, -1):
        c = k / (t + c)
    ratio = t + c
    return -0.5 * x * x - 0.9189385332046727 - math.log(ratio), ratio


def log_sum(a: float, b: float) -> tuple[float, float]:
    """Return log(exp(a) + exp(b)) and the share of exp(a) in the sum."""
    if a >= b:
        e = math.exp(b - a)
        return a + math.log1p(e), 1.0 / (1.0 + e)
    e = math.exp(a - b)
    return b + math.log1p(e), e / (1.0 + e)
