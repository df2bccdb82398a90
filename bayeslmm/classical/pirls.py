"""Penalised Newton for the conditional mode of a generalised model: of the random effects, or of them and coefficients together.

With b = Lambda u, u ~ N(0, I), predictors eta_k = Q_k gamma_k + Z_k b + offset_k and W = -d2 l / d eta2 (observed, a K x K matrix a
row), the mode maximises l(eta) - |u|^2 / 2. Its Newton step solves

    S u_new = Lambda'Z'(d1 + W Z b),     S = I + Lambda'Z'WZ Lambda,

by the blocked Cholesky factor of `system`. Coefficients that belong to the mode (`inner`) add a Schur complement. Where W is not
positive and neither is S, the step is that of W's positive part; the factor at the mode is always that of W itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.linear import rows as row_kernels
from bayeslmm.linear import system as blocked

if TYPE_CHECKING:
    from bayeslmm.classical.generalised import Glmm

__all__ = ["Mode", "Schur", "find_mode", "schur", "solved"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Schur:
    """The coefficients of the mode next to the random effects: B = Lambda U, U = S^-1 Lambda'Z'WQ (q, m), P = Q'WQ - Q'WZ B (m, m)."""

    B: Array
    U: Array
    P: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """The mode at given parameters: u and b (q,), the inner coefficients (m,), eta (K, n), W (K, K, n), d1 (K, n), d3 (K, K, K, n).

    `penalised` = -2 l + |u|^2; `logdet` = log|S|, NaN where S is not positive definite; `L`: the dense part's Cholesky factor;
    `decrement`: the length of the last Newton step in the metric of S.
    """

    u: Array
    b: Array
    inner: Array
    eta: Array
    W: Array
    d1: Array
    d3: Array
    penalised: float
    logdet: float
    L: Array
    schur: Schur
    decrement: float


def find_mode(problem: Glmm, eta: Array, lam: Array, m: int) -> Mode | None:
    """Return the mode of u and of the mean's first m coefficients (0, or all of them), or None where the likelihood has no such value.

    Parameters
    ----------
    problem
        The model.
    eta
        Predictors (K, n) without random effects and without the inner coefficients.
    lam
        The blocks of Lambda, flat.
    m
        Number of inner coefficients.
    """
    point = _start(problem, eta, lam, m)
    newton = None if point is None else _search(problem, eta, lam, m, point)
    if newton is None and point is not None and np.any(point.u):
        point = _at(problem, eta, lam, np.zeros_like(point.u), point.inner, 2)
        newton = None if point is None else _search(problem, eta, lam, m, point)
    if newton is None:
        return None
    point = newton.point
    problem.warm.u, problem.warm.inner = point.u, point.inner
    return Mode(
        u=point.u,
        b=point.b,
        inner=point.inner,
        eta=point.eta,
        W=-point.d2,
        d1=point.d1,
        d3=point.d3 if point.d3.size else problem.likelihood(point.eta, 3).d3,
        penalised=point.penalised,
        logdet=newton.logdet,
        L=newton.L,
        schur=newton.schur,
        decrement=newton.decrement,
    )


def _search(problem: Glmm, eta: Array, lam: Array, m: int, point: _Point) -> _Newton | None:
    """Return the last of the Newton steps from a point; None where they lead to no mode: the range of the family ends before it."""
    newton, halvings = _newton(problem, point, lam, m), 0
    for _ in range(_STEPS):
        if newton.decrement <= _TOLERANCE:
            return newton
        moved, halved = _move(problem, eta, lam, newton)
        halvings += halved
        if moved is None or halvings > _HALVINGS:
            return newton if newton.decrement < _NEARLY else None
        after = _newton(problem, moved, lam, m, before=newton.decrement)
        if newton.decrement < _NEARLY:
            return after
        newton = after
    return None


_TOLERANCE = 1e-11
"""A Newton step shorter than this, in the metric of S, ends the search for the mode; the steps square at each iteration."""
_NEARLY = 1e-7
"""A step shorter than this is the last: what remains after it is its square."""
_SOON = 1e-4
"""After a step shorter than this the third derivatives are computed too: one of the next points is the mode."""
_STEPS = 100
_MOST_HALVED, _HALVINGS = 15, 40
"""Most halvings of one step, and of all steps in a search for a mode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Point:
    u: Array
    b: Array
    inner: Array
    eta: Array
    Zb: Array
    d1: Array
    d2: Array
    d3: Array
    penalised: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Newton:
    point: _Point
    step_u: Array
    step_inner: Array
    decrement: float
    logdet: float
    L: Array
    schur: Schur


def _start(problem: Glmm, eta: Array, lam: Array, m: int) -> _Point | None:
    """Return the last mode, or zero random effects where that has no likelihood."""
    q, warm = problem.system.n_columns, problem.warm
    inner = warm.inner if warm.inner.size == m else np.zeros(m)
    last = _at(problem, eta, lam, warm.u, inner, 2) if warm.u.size == q else None
    return _at(problem, eta, lam, np.zeros(q), inner, 2) if last is None else last


def _penalised(problem: Glmm, fixed: Array, lam: Array, u: Array, inner: Array) -> float:
    """Return the penalised likelihood at u without its derivatives, which may cost ten times as much."""
    eta = _eta(problem, fixed, lam, u, inner)[0]
    return -2.0 * float(np.sum(problem.likelihood(eta, 0).value)) + float(u @ u)


def _eta(problem: Glmm, fixed: Array, lam: Array, u: Array, inner: Array) -> tuple[Array, Array, Array]:
    """Return the predictors (K, n) at u, Z b and b."""
    b = blocked.lambda_times(problem.system, lam, u)
    Zb = np.zeros_like(fixed)
    row_kernels.spread(problem.rows, b, Zb)
    eta = fixed + Zb
    if inner.size:
        eta[0] += problem.predictors[0].Q @ inner
    return eta, Zb, b


def _at(problem: Glmm, fixed: Array, lam: Array, u: Array, inner: Array, order: int) -> _Point | None:
    """Return the penalised likelihood and its derivatives at u, or None where it has no value."""
    eta, Zb, b = _eta(problem, fixed, lam, u, inner)
    found = problem.likelihood(eta, order)
    penalised = -2.0 * float(np.sum(found.value)) + float(u @ u)
    if not np.isfinite(penalised) or not np.isfinite(found.d2).all():
        return None
    return _Point(u=u, b=b, inner=inner, eta=eta, Zb=Zb, d1=found.d1, d2=found.d2, d3=found.d3, penalised=penalised)


def _newton(problem: Glmm, point: _Point, lam: Array, m: int, before: float = np.inf) -> _Newton:
    """Return the Newton step at a point, and the factor of S there; after a step so short that no other follows, the factor alone."""
    W = -point.d2
    logdet, L, complement = _factor(problem, W, lam, m)
    if before < _NEARLY:
        none = np.zeros(0)
        return _Newton(point=point, step_u=none, step_inner=none, decrement=before**2, logdet=logdet, L=L, schur=complement)
    used = W
    if np.isnan(logdet) or (m and not _positive(complement.P)):
        used = _positive_part(W)
        _, L, complement = _factor(problem, used, lam, m)
    right = point.d1 + np.einsum("kln,ln->kn", used, point.Zb)
    r = np.empty(problem.system.n_columns)
    row_kernels.total(problem.rows, right, r)
    b, u = blocked.solve_for(problem.system, problem.work, lam, L, r)
    slope = np.empty_like(r)
    row_kernels.total(problem.rows, point.d1, slope)
    step_u, step_b, step_inner = u - point.u, b - point.b, np.zeros(m)
    gain = 0.0
    if m:
        Q = problem.predictors[0].Q
        moved = np.zeros_like(right)
        row_kernels.spread(problem.rows, step_b, moved)
        score = Q.T @ point.d1[0]
        step_inner = solved(complement.P, score - Q.T @ np.einsum("ln,ln->n", used[0], moved))
        step_u, step_b = step_u - complement.U @ step_inner, step_b - complement.B @ step_inner
        gain = float(score @ step_inner)
    gain += float((blocked.lambda_times(problem.system, lam, slope, transposed=True) - point.u) @ step_u)
    length = float(np.sqrt(max(gain, 0.0)))
    return _Newton(point=point, step_u=step_u, step_inner=step_inner, decrement=length, logdet=logdet, L=L, schur=complement)


def _factor(problem: Glmm, W: Array, lam: Array, m: int) -> tuple[float, Array, Schur]:
    row_kernels.fill(problem.rows, W, problem.work.store, problem.work.M.reshape(-1))
    logdet, L = blocked.factorise(problem.system, problem.work, lam)
    return logdet, L, schur(problem, W, lam, L, m)


_NO_COEFFICIENTS = Schur(B=np.zeros((0, 0)), U=np.zeros((0, 0)), P=np.zeros((0, 0)))


def schur(problem: Glmm, W: Array, lam: Array, L: Array, m: int) -> Schur:
    """Return the Schur complement of the mean's first m coefficients."""
    q = problem.system.n_columns
    if m == 0:
        return _NO_COEFFICIENTS
    Q = problem.predictors[0].Q[:, :m]
    B, U, ZWQ = np.empty((q, m)), np.empty((q, m)), np.empty((q, m))
    r = np.empty(q)
    for j in range(m):
        row_kernels.total(problem.rows, W[0] * Q[:, j], r)
        ZWQ[:, j] = r
        B[:, j], U[:, j] = blocked.solve_for(problem.system, problem.work, lam, L, r)
    return Schur(B=B, U=U, P=Q.T @ (W[0, 0][:, None] * Q) - ZWQ.T @ B)


def solved(P: Array, right: Array) -> Array:
    """Return P^-1 times a vector, P symmetric; nothing along directions in which P vanishes."""
    values, vectors = np.linalg.eigh(P)
    real = np.abs(values) > 1e-13 * float(np.max(np.abs(values), initial=0.0))
    solution: Array = vectors[:, real] @ ((vectors[:, real].T @ right) / values[real])
    return solution


def _positive(P: Array) -> bool:
    try:
        np.linalg.cholesky(P)
    except np.linalg.LinAlgError:
        return False
    return True


def _positive_part(W: Array) -> Array:
    """Return W (K, K, n) with the negative eigenvalues of each row's matrix turned to their absolute size."""
    values, vectors = np.linalg.eigh(np.moveaxis(W, 2, 0))
    return np.ascontiguousarray(np.einsum("nkj,nj,nlj->kln", vectors, np.abs(values), vectors))


def _move(problem: Glmm, eta: Array, lam: Array, newton: _Newton) -> tuple[_Point | None, int]:
    """Return the point after the longest of the step's halves that lowers the penalised likelihood enough, if any, and how often halved."""
    point, order = newton.point, 3 if newton.decrement < _SOON else 2
    slack = 1e-13 * max(1.0, abs(point.penalised))
    for halved in range(_MOST_HALVED):
        alpha = 0.5**halved
        enough = point.penalised - 2e-4 * alpha * newton.decrement**2 + slack
        u, inner = point.u + alpha * newton.step_u, point.inner + alpha * newton.step_inner
        if halved and not _penalised(problem, eta, lam, u, inner) <= enough:
            continue
        found = _at(problem, eta, lam, u, inner, order)
        if found is not None and found.penalised <= enough:
            return found, halved
    return None, _MOST_HALVED
