"""How good Laplace's approximation is at an estimate: the next term, by quadrature or by its series, and how far estimates would move.

Where there is one random term with a single effect, the likelihood by 25 nodes stands for the exact one. Elsewhere the next term of
the series does: with V the conditional variance of a level's effects, k3 and k4 the third and fourth derivatives of its rows'
log-likelihood by them, log L gains

    sum k4_ijkl V_ij V_kl / 8 + sum k3_ijk k3_lmn V_ij V_kl V_mn / 8 + sum k3_ijk k3_lmn V_il V_jm V_kn / 12

a level. Grouping factors are taken one at a time, the effects of the others at their mode, so that it is exact for one factor and a
rough guide for several. Its gradient is by differences, each at its own mode.
Source: Shun & McCullagh (1995), J. R. Stat. Soc. B 57, 749-760; Raudenbush, Yang & Yosef (2000), J. Comput. Graph. Stat. 9.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.classical.glmm import Criterion, criterion_of, hessian_at
from bayeslmm.classical.laplace import at_mode
from bayeslmm.classical.lmm import one_thread
from bayeslmm.classical.profile_generalised import point_of
from bayeslmm.classical.quadrature import quadrature
from bayeslmm.fit import Check
from bayeslmm.linear import system as blocked

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.classical.generalised import Glmm
    from bayeslmm.classical.optimise import Objective
    from bayeslmm.classical.pirls import Mode

__all__ = ["laplace_accuracy", "next_term"]

type Array = np.ndarray

_NODES = 25
_SHIFT = 0.25
"""Estimates that would move by less than this share of their standard error are as good as exact: the limit of `compare`, too."""
_MANY = 2_000_000
"""Rows times columns of random effects times searches, from which on the series is not worth its time."""


def laplace_accuracy(fit: ClassicalFit) -> Check | None:
    """Return the check that Laplace's approximation is good enough at a fit; None where it was not used, or has no optimum to speak of."""
    if not fit.generalised or fit.approximation != "Laplace" or not fit.converged or fit.convergence == "flat":
        return None
    with one_thread(), np.errstate(all="ignore"):
        found = criterion_of(fit)
        problem = found.problem
        if problem is None or any(root is not None for root in problem.roots):
            return None
        scalar = len(problem.terms) == 1 and len(problem.rows.predictor) == 1
        if not scalar and problem.n * len(problem.rows.predictor) * len(found.curvature) > _MANY:
            return None
        gain, shift = _compared(found, problem, point_of(found, fit), scalar)
    if not np.isfinite(shift):
        return None
    way = f"quadrature with {_NODES} nodes" if scalar else "the next term of the series"
    passed = shift <= _SHIFT
    said = f"against {way} -2 log L moves by {gain:+.3g}, and estimates by at most {shift:.2g} standard errors"
    return Check(
        code="laplace_accuracy",
        value=float(shift),
        limit=_SHIFT,
        passed=passed,
        meaning=f"Laplace's approximation is good enough here: {said}"
        if passed
        else f"Laplace's approximation is poor here, as it is where levels have few trials: {said}",
        remedy="fit with n_agq=25"
        if scalar
        else "fit by brm, whose posterior takes no approximation; simulate from the fit to see the bias",
    )


def _compared(found: Criterion, problem: Glmm, x: Array, scalar: bool) -> tuple[float, float]:
    """Return how much -2 log L changes by the better approximation, and the largest Newton step towards its optimum, in standard errors."""
    method = found.method
    free = ~found.box.on_edge(x)
    better = _by_quadrature(problem, method.prior) if scalar else _by_series(problem, method.objective, free)
    value, _ = method.objective(x)
    more, gradient = better(x)
    H = hessian_at(method.objective, x, free)
    sizes, vectors = np.linalg.eigh(H)
    if sizes[0] <= 1e-8 * sizes[-1]:
        return np.nan, np.nan
    inverse = (vectors / sizes) @ vectors.T
    step = np.zeros(len(x))
    step[free] = -inverse @ gradient[free]
    errors = np.zeros(len(x))
    errors[free] = np.sqrt(2.0 * np.diagonal(inverse))
    moved = [np.abs(step[problem.p :]) / np.where(free, errors, 1.0)[problem.p :]]
    full = np.zeros((len(x), len(x)))
    full[np.ix_(free, free)] = 2.0 * inverse
    for one in found.predictors:
        spread = np.sqrt(np.diagonal(one.back @ full[one.place, one.place] @ one.back.T))
        moved.append(np.abs(one.back @ step[one.place]) / spread)
    return more - value, float(np.max(np.concatenate(moved)))


def _by_quadrature(problem: Glmm, prior: Objective | None) -> Objective:
    def better(x: Array) -> tuple[float, Array]:
        value, gradient = quadrature(problem, x, _NODES)
        if prior is None:
            return value, gradient
        more, slope = prior(x)
        return value + more, gradient + slope

    return better


def _by_series(problem: Glmm, objective: Objective, free: Array) -> Objective:
    """Return Laplace's approximation with the next term, the latter's gradient by differences of the free parameters."""

    def term(x: Array) -> float:
        mode, lam = at_mode(problem, x)
        return np.nan if mode is None or np.isnan(mode.logdet) else next_term(problem, mode, lam)

    def better(x: Array) -> tuple[float, Array]:
        value, gradient = objective(x)
        slope = np.zeros(len(x))
        for i in np.flatnonzero(free):
            h = np.zeros(len(x))
            h[i] = 1e-3 * max(1.0, abs(x[i]))
            slope[i] = (term(x + h) - term(x - h)) / (2.0 * h[i])
        return value + term(x), gradient + slope

    return better


def next_term(problem: Glmm, mode: Mode, lam: Array) -> float:
    """Return what the next term of the series adds to -2 log L at a mode; `lam`: the blocks of Lambda there."""
    d4 = _fourth(problem, mode.eta)
    parts = [_of_factor(*_columns(problem, f), L, mode, d4) for f, L in enumerate(blocked.blocks_of(problem.system, lam))]
    return -2.0 * float(np.sum(parts))


_STEP = 1e-3
"""By how much a predictor moves for a derivative."""


def _fourth(problem: Glmm, eta: Array) -> Array:
    """Return the fourth derivatives (K, K, K, K, n) of the rows' log-likelihood, by differences of the third."""
    slopes = []
    for k in range(len(eta)):
        h = np.zeros_like(eta)
        h[k] = _STEP
        slopes.append((problem.likelihood(eta + h, 3).d3 - problem.likelihood(eta - h, 3).d3) / (2.0 * _STEP))
    return np.stack(slopes)


def _columns(problem: Glmm, f: int) -> tuple[Array, Array, Array]:
    """Return a grouping factor's columns z (k, n), the level of each row (n,), and the predictor (k,) of each column."""
    widths = problem.system.widths
    own = slice(sum(widths[:f]), sum(widths[: f + 1]))
    places = blocked.by_factor(problem.system, np.arange(problem.system.n_columns, dtype=float))[f].astype(int)
    level = np.zeros(problem.system.n_columns, dtype=int)
    level[places] = np.arange(len(places))[:, None]
    return problem.rows.z[own], level[problem.rows.at[own.start]], problem.rows.predictor[own]


def _of_factor(z: Array, level: Array, predictor: Array, L: Array, mode: Mode, d4: Array) -> float:
    """Return the three sums over the levels of one grouping factor, its effects with factor L (k, k)."""
    d3, k, levels = mode.d3, len(z), int(np.max(level)) + 1
    V = _conditional(z, level, predictor, L, mode.W)
    owns = np.eye(len(d3))[predictor]
    h = np.einsum("ia,jb,in,jn,nij->abn", owns, owns, z, z, V[level], optimize=True)
    once = np.einsum("abcn,bcn->an", d3, h)
    pull = np.stack([np.bincount(level, z[i] * once[predictor[i]], levels) for i in range(k)], axis=1)
    cube = np.empty((levels, k, k, k))
    for i, j, m in np.ndindex(k, k, k):
        cube[:, i, j, m] = np.bincount(level, z[i] * z[j] * z[m] * d3[predictor[i], predictor[j], predictor[m]], levels)
    fourth = np.einsum("abcdn,abn,cdn->", d4, h, h) / 8.0
    squares = np.einsum("Ji,Jij,Jj->", pull, V, pull) / 8.0
    cubes = np.einsum("Jijk,Jlmn,Jil,Jjm,Jkn->", cube, cube, V, V, V, optimize=True) / 12.0
    return float(fourth + squares + cubes)


def _conditional(z: Array, level: Array, predictor: Array, L: Array, W: Array) -> Array:
    """Return the variances (J, k, k) of a factor's effects given all others: L (I + L'DL)^-1 L', D a level's information."""
    k = len(z)
    D = np.empty((int(np.max(level)) + 1, k, k))
    for i, j in np.ndindex(k, k):
        D[:, i, j] = np.bincount(level, z[i] * z[j] * W[predictor[i], predictor[j]], len(D))
    return np.asarray(L @ np.linalg.solve(np.eye(k) + L.T @ D @ L, np.broadcast_to(L.T, D.shape)))
