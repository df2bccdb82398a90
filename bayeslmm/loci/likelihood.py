"""The log-likelihood of one sample's counts given the linear predictor, with the derivatives that modes and samplers need."""

from __future__ import annotations

import math

import numba as nb

__all__ = ["BETA_BINOMIAL", "BINOMIAL", "row", "row_value"]

BINOMIAL, BETA_BINOMIAL = 0, 1
"""Codes of the families in the kernels."""

_LARGEST = 36.0
"""Beyond this a probability is 0 or 1 in float64."""
_SHORT = 96
"""Up to this count a rising factorial is a product, beyond it differences of special functions."""


@nb.njit(cache=True, inline="always")
def _digamma(x: float) -> tuple[float, float]:
    """Return psi(x) and psi'(x), x > 0: recurrence to x >= 8, then the asymptotic series (Abramowitz & Stegun 6.3.18, 6.4.12)."""
    first, second = 0.0, 0.0
    while x < 8.0:
        first -= 1.0 / x
        second += 1.0 / (x * x)
        x += 1.0
    r = 1.0 / x
    r2 = r * r
    first += math.log(x) - 0.5 * r - r2 * (1.0 / 12.0 - r2 * (1.0 / 120.0 - r2 * (1.0 / 252.0 - r2 * (1.0 / 240.0 - r2 / 132.0))))
    second += r * (1.0 + 0.5 * r + r2 * (1.0 / 6.0 - r2 * (1.0 / 30.0 - r2 * (1.0 / 42.0 - r2 * (1.0 / 30.0 - r2 * 5.0 / 66.0)))))
    return first, second


@nb.njit(cache=True)
def rising(a: float, k: int) -> tuple[float, float, float]:
    """Return log(Gamma(a + k) / Gamma(a)), its derivative by a, and minus its second derivative."""
    if k <= _SHORT:
        value, product, first, second = 0.0, 1.0, 0.0, 0.0
        for i in range(k):
            x = a + i
            r = 1.0 / x
            first += r
            second += r * r
            product *= x
            if product > 1e200 or product < 1e-200:
                value += math.log(product)
                product = 1.0
        return value + math.log(product), first, second
    upper, upper2 = _digamma(a + k)
    lower, lower2 = _digamma(a)
    return math.lgamma(a + k) - math.lgamma(a), upper - lower, lower2 - upper2


@nb.njit(cache=True)
def rising_value(a: float, k: int) -> float:
    """Return log(Gamma(a + k) / Gamma(a))."""
    if k > _SHORT:
        return math.lgamma(a + k) - math.lgamma(a)
    value, product = 0.0, 1.0
    for i in range(k):
        product *= a + i
        if product > 1e200 or product < 1e-200:
            value += math.log(product)
            product = 1.0
    return value + math.log(product)


@nb.njit(cache=True)
def row_value(family: int, eta: float, y: int, n: int, phi: float) -> float:
    """Return the log-likelihood of y of n, without the binomial coefficient; `phi`: the beta-binomial's precision."""
    if n == 0:
        return 0.0
    eta = min(max(eta, -_LARGEST), _LARGEST)
    if family == BINOMIAL:
        return y * eta - n * (max(eta, 0.0) + math.log1p(math.exp(-abs(eta))))
    mu = 1.0 / (1.0 + math.exp(-eta))
    return rising_value(mu * phi, y) + rising_value((1.0 - mu) * phi, n - y) - rising_value(phi, n)


@nb.njit(cache=True)
def row(family: int, eta: float, y: int, n: int, phi: float) -> tuple[float, float, float, float, float, float]:
    """Return the log-likelihood l and its derivatives l_e, l_ee, l_a, l_ea, l_aa by eta (e) and log phi (a).

    Beta-binomial with alpha = mu phi, beta = (1 - mu) phi, mu the inverse logit of eta, as brms has it.
    """
    if n == 0:
        return 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    eta = min(max(eta, -_LARGEST), _LARGEST)
    tail = math.exp(-abs(eta))
    mu = 1.0 / (1.0 + tail) if eta >= 0.0 else tail / (1.0 + tail)
    other = tail / (1.0 + tail) if eta >= 0.0 else 1.0 / (1.0 + tail)
    v = mu * other
    if family == BINOMIAL:
        return y * eta - n * (max(eta, 0.0) + math.log1p(tail)), y - n * mu, -n * v, 0.0, 0.0, 0.0
    a0, a1, a2 = rising(mu * phi, y)
    b0, b1, b2 = rising(other * phi, n - y)
    n0, n1, n2 = rising(phi, n)
    by_mu = phi * (a1 - b1)
    by_phi = mu * a1 + other * b1 - n1
    return (
        a0 + b0 - n0,
        by_mu * v,
        -phi * phi * (a2 + b2) * v * v + by_mu * v * (other - mu),
        by_phi * phi,
        ((a1 - b1) - phi * (mu * a2 - other * b2)) * v * phi,
        (n2 - mu * mu * a2 - other * other * b2) * phi * phi + by_phi * phi,
    )
