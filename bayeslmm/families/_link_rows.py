"""The links' kernels: mu, log mu and log(1 - mu) of each row's eta, each with its derivative; see `kernels`."""

from __future__ import annotations

import math
from typing import Any

from bayeslmm.families._special import log1mexp, log_ndtr

__all__ = [
    "cauchit_rows",
    "cloglog_rows",
    "identity_rows",
    "inverse_rows",
    "inverse_square_rows",
    "log_rows",
    "logit_rows",
    "probit_rows",
    "softplus_rows",
    "sqrt_rows",
]


def identity_rows(n: int, needs: int, eta: Any, mean: Any) -> None:
    """mu = eta."""
    for i in range(n):
        x = eta[i]
        mean[i], mean[n + i] = x, 1.0
        if needs > 0:
            mean[2 * n + i], mean[3 * n + i] = math.log(x), 1.0 / x
        if needs > 1:
            mean[4 * n + i], mean[5 * n + i] = math.log1p(-x), -1.0 / (1.0 - x)


def log_rows(n: int, needs: int, eta: Any, mean: Any) -> None:
    """mu = exp(eta)."""
    for i in range(n):
        x = eta[i]
        mu = math.exp(x)
        mean[i], mean[n + i], mean[2 * n + i], mean[3 * n + i] = mu, mu, x, 1.0
        if needs > 1:
            value, slope = log1mexp(-x)
            mean[4 * n + i], mean[5 * n + i] = value, -slope


def logit_rows(n: int, needs: int, eta: Any, mean: Any) -> None:
    """mu = 1 / (1 + exp(-eta))."""
    for i in range(n):
        x = eta[i]
        e = math.exp(-abs(x))
        larger, smaller = 1.0 / (1.0 + e), e / (1.0 + e)
        p, q = (larger, smaller) if x >= 0.0 else (smaller, larger)
        rest = math.log1p(e) if needs > 0 else 0.0
        mean[i], mean[n + i] = p, p * q
        mean[2 * n + i], mean[3 * n + i] = min(x, 0.0) - rest, q
        mean[4 * n + i], mean[5 * n + i] = -max(x, 0.0) - rest, -p


def probit_rows(n: int, needs: int, eta: Any, mean: Any) -> None:
    """mu = Phi(eta)."""
    for i in range(n):
        x = eta[i]
        mean[i], mean[n + i] = 0.5 * math.erfc(-x * 0.7071067811865476), math.exp(-0.5 * x * x) * 0.3989422804014327
        if needs > 0:
            value, slope = log_ndtr(x)
            mean[2 * n + i], mean[3 * n + i] = value, slope
        if needs > 1:
            value, slope = log_ndtr(-x)
            mean[4 * n + i], mean[5 * n + i] = value, -slope


def cloglog_rows(n: int, needs: int, eta: Any, mean: Any) -> None:
    """mu = 1 - exp(-exp(eta))."""
    for i in range(n):
        u = math.exp(eta[i])
        mean[i], mean[n + i] = -math.expm1(-u), u * math.exp(-u)
        mean[4 * n + i], mean[5 * n + i] = -u, -u
        if needs > 0:
            small = u < 1e-16
            value, slope = log1mexp(max(u, 1e-16))
            mean[2 * n + i], mean[3 * n + i] = (eta[i], 1.0) if small else (value, u * slope)


def cauchit_rows(n: int, needs: int, eta: Any, mean: Any) -> None:
    """mu = 1/2 + atan(eta) / pi."""
    for i in range(n):
        x = eta[i]
        p, q = math.atan2(1.0, -x) / math.pi, math.atan2(1.0, x) / math.pi
        d = 1.0 / (math.pi * (1.0 + x * x))
        mean[i], mean[n + i] = p, d
        if needs > 0:
            mean[2 * n + i], mean[3 * n + i] = math.log(p), d / p
        if needs > 1:
            mean[4 * n + i], mean[5 * n + i] = math.log(q), -d / q


def inverse_rows(n: int, needs: int, eta: Any, mean: Any) -> None:
    """mu = 1 / eta."""
    for i in range(n):
        r = 1.0 / eta[i]
        mean[i], mean[n + i] = r, -r * r
        if needs > 0:
            mean[2 * n + i], mean[3 * n + i] = math.log(r), -r


def inverse_square_rows(n: int, needs: int, eta: Any, mean: Any) -> None:
    """mu = 1 / sqrt(eta)."""
    for i in range(n):
        x = eta[i]
        mu = 1.0 / math.sqrt(x)
        mean[i], mean[n + i] = mu, -0.5 * mu / x
        if needs > 0:
            mean[2 * n + i], mean[3 * n + i] = math.log(mu), -0.5 / x


def sqrt_rows(n: int, needs: int, eta: Any, mean: Any) -> None:
    """mu = eta^2."""
    for i in range(n):
        x = eta[i]
        mean[i], mean[n + i] = x * x, 2.0 * x
        if needs > 0:
            mean[2 * n + i], mean[3 * n + i] = 2.0 * math.log(abs(x)), 2.0 / x


def softplus_rows(n: int, needs: int, eta: Any, mean: Any) -> None:
    """mu = log(1 + exp(eta))."""
    for i in range(n):
        x = eta[i]
        e = math.exp(-abs(x))
        mu, slope = max(x, 0.0) + math.log1p(e), 1.0 / (1.0 + e) if x >= 0.0 else e / (1.0 + e)
        mean[i], mean[n + i] = mu, slope
        if needs > 0:
            mean[2 * n + i], mean[3 * n + i] = math.log(mu), slope / mu
