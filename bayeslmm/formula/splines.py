"""Polynomial and spline bases with R's knots, signs and normalisation: `poly`, `bs`, `ns`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bayeslmm.errors import FormulaError

__all__ = ["bs_basis", "bs_knots", "ns_basis", "ns_knots", "poly_basis", "poly_recurrence"]

type Array = np.ndarray


def poly_recurrence(x: Array, degree: int) -> tuple[list[float], list[float]]:
    """Return `(alpha, norm2)` of the polynomials orthogonal on the points `x`: Stieltjes' three-term recurrence.

    p_0 = 1, p_{i+1} = (x - alpha_i) p_i - (norm2_i / norm2_{i-1}) p_{i-1}; alpha_i = <x p_i, p_i> / <p_i, p_i>
    (Kennedy and Gentle 1980, pp. 343-4, as R's `poly`). `alpha` has `degree` entries, `norm2` one more.
    """
    alpha: list[float] = []
    norm2 = [float(len(x))]
    before, now = np.zeros_like(x), np.ones_like(x)
    for i in range(degree):
        alpha.append(float(x @ (now * now)) / norm2[i])
        ratio = norm2[i] / norm2[i - 1] if i else 0.0
        before, now = now, (x - alpha[i]) * now - ratio * before
        norm2.append(float(now @ now))
    return alpha, norm2


def poly_basis(x: Array, alpha: Sequence[float], norm2: Sequence[float]) -> Array:
    """Return the orthonormal polynomials of degree 1 to `len(alpha)` at any points: (n, degree)."""
    columns = []
    before, now = np.zeros_like(x), np.ones_like(x)
    for i, centre in enumerate(alpha):
        ratio = norm2[i] / norm2[i - 1] if i else 0.0
        before, now = now, (x - centre) * now - ratio * before
        columns.append(now / np.sqrt(norm2[i + 1]))
    return np.column_stack(columns)


def bs_knots(
    x: Array, df: int | None, knots: Sequence[float] | None, degree: int, intercept: bool, boundary: Sequence[float] | None
) -> list[float]:
    """Return the full knot sequence of `bs`: `degree + 1` times each boundary knot around the inner knots."""
    spare = 0 if df is None else df - degree - int(intercept)
    if spare < 0:
        raise FormulaError(f"bs(): df = {df} is too small; it must be at least {degree + int(intercept)} for degree {degree}")
    return _with_boundary(x, spare, knots, degree + 1, boundary)


def ns_knots(x: Array, df: int | None, knots: Sequence[float] | None, intercept: bool, boundary: Sequence[float] | None) -> list[float]:
    """Return the full knot sequence of `ns`: four times each boundary knot around the inner knots."""
    spare = 0 if df is None else df - 1 - int(intercept)
    if spare < 0:
        raise FormulaError(f"ns(): df = {df} is too small; it must be at least {1 + int(intercept)}")
    return _with_boundary(x, spare, knots, 4, boundary)


def _with_boundary(x: Array, spare: int, knots: Sequence[float] | None, order: int, boundary: Sequence[float] | None) -> list[float]:
    low, high = (float(x.min()), float(x.max())) if boundary is None else sorted(float(b) for b in boundary)
    if not low < high:
        raise FormulaError("a spline needs at least two distinct values between its boundary knots")
    inside = x[(x >= low) & (x <= high)]
    inner = np.quantile(inside, np.linspace(0, 1, spare + 2)[1:-1]) if knots is None else np.sort(np.asarray(knots, dtype=float))
    return sorted([low] * order + inner.tolist() + [high] * order)


def bs_basis(x: Array, knots: Sequence[float], degree: int, intercept: bool) -> Array:
    """Return the B-spline basis (n, k); outside the boundary knots the outer polynomial pieces go on, as in R."""
    return _splines(x, np.asarray(knots), degree)[:, 0 if intercept else 1 :]


def ns_basis(x: Array, knots: Sequence[float], intercept: bool) -> Array:
    """Return the natural cubic spline basis (n, k), linear outside the boundary knots.

    The cubic B-splines are turned by the orthogonal factor of the two conditions "second derivative zero at the
    boundary" (its Householder signs are those of R's `qr`), and the first two columns left out.
    """
    sequence = np.asarray(knots)
    ends = sequence[[0, -1]]
    clipped = np.clip(x, *ends)
    basis = _splines(clipped, sequence, 3)
    for end, outside in ((ends[0], x < ends[0]), (ends[1], x > ends[1])):
        if outside.any():
            slope = _splines(np.array([end]), sequence, 3, derivative=1)
            basis[outside] += (x[outside] - end)[:, None] * slope
    first = 0 if intercept else 1
    conditions = _splines(ends, sequence, 3, derivative=2)[:, first:]
    Q = np.linalg.qr(conditions.T, mode="complete").Q
    return np.asarray((basis[:, first:] @ Q)[:, 2:])


def _splines(x: Array, knots: Array, degree: int, derivative: int = 0) -> Array:
    from scipy.interpolate import BSpline

    size = len(knots) - degree - 1
    spline = BSpline(knots, np.eye(size), degree, extrapolate=True)
    return np.asarray((spline.derivative(derivative) if derivative else spline)(x), dtype=float)
