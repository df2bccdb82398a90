"""Laplace's approximation of -2 log L of a generalised model with random effects, and its exact gradient.

At the mode of u (see `pirls`), -2 log L = -2 l + |u|^2 + log|S|, all constants of l included. The gradient has three parts: the
penalised likelihood's, by the envelope theorem at fixed u; log|S| at fixed W; and log|S| through W(eta), at fixed u and through
the mode's own derivative, for which one more solution with S is enough. With C = Lambda S^-1 Lambda', h = z'Cz of every row,

    c = sum h dW/d eta,   v = C Z'c,   e = -2 d1 + c - W (Z v + Q g),   t = S^-1 Lambda'Z'c,

the gradient by the coefficients is Q'e and by Lambda sum_j (Z'e)_j u_j' + (Z'd1)_j t_j' plus that of log|S| at fixed W (g: the
inner coefficients' share of the solution, if there are any).
Source: Bates et al. (2015), J. Stat. Softw. 67(1); Kristensen et al. (2016), J. Stat. Softw. 70(5), for the observed Hessian.
"""

from __future__ import annotations

import numpy as np

from bayeslmm.classical.engine import lambda_of, slope_of
from bayeslmm.classical.generalised import Glmm, by_coefficients, fixed_part
from bayeslmm.classical.pirls import Mode, find_mode, solved
from bayeslmm.linear import rows as row_kernels
from bayeslmm.linear import system as blocked

__all__ = ["at_mode", "laplace"]

type Array = np.ndarray


def at_mode(problem: Glmm, x: Array, m: int = 0) -> tuple[Mode | None, Array]:
    """Return the mode at x = (outer coefficients, t), and Lambda's blocks; the mean's first m coefficients are inside the mode."""
    gamma, t = np.concatenate([np.zeros(m), x[: problem.p - m]]), x[problem.p - m :]
    lam = lambda_of(problem, t)
    return find_mode(problem, fixed_part(problem.predictors, gamma), lam, m), lam


def laplace(problem: Glmm, x: Array, m: int = 0) -> tuple[float, Array]:
    """Return -2 log L by Laplace's approximation and its gradient at x = (coefficients, t).

    Parameters
    ----------
    problem
        The model.
    x
        The coefficients of all predictors but the first m, and the search's coordinates of the covariance parameters.
    m
        How many of the mean's coefficients are found together with the random effects: 0, or all of them (lme4's `nAGQ = 0`).

    Returns
    -------
    tuple
        Infinite where the likelihood has no value, or its Hessian at the mode is not positive definite.
    """
    mode, lam = at_mode(problem, x, m)
    if mode is None or np.isnan(mode.logdet):
        return np.inf, np.zeros_like(x)
    system, work, rows = problem.system, problem.work, problem.rows
    cost, t = _through_mode(problem, mode, lam)
    e = cost - 2.0 * mode.d1
    r_e, r_1 = np.empty(system.n_columns), np.empty(system.n_columns)
    row_kernels.total(rows, e, r_e)
    row_kernels.total(rows, mode.d1, r_1)
    lambar = work.lambar + blocked.outer_blocks(system, r_e, mode.u) + blocked.outer_blocks(system, r_1, t)
    gradient = np.concatenate([by_coefficients(problem.predictors, e)[m:], slope_of(problem, x[problem.p - m :], lambar)])
    value = mode.penalised + mode.logdet
    return (value, gradient) if np.all(np.isfinite(gradient)) else (np.inf, np.zeros_like(x))


def _through_mode(problem: Glmm, mode: Mode, lam: Array) -> tuple[Array, Array]:
    """Return c - W (Z v + Q g) (K, n) and t (q,): what log|S| gains through W; the inverse's parts go to the workspace."""
    system, work, rows = problem.system, problem.work, problem.rows
    blocked.inverse_parts(system, work, lam, mode.L)
    h = np.empty_like(mode.W)
    row_kernels.gather(rows, work.bar, work.Mbar.reshape(-1), h)
    c = -np.einsum("kln,klmn->mn", h, mode.d3)
    r = np.empty(system.n_columns)
    row_kernels.total(rows, c, r)
    v, t = blocked.solve_for(system, work, lam, mode.L, r)
    moved = np.zeros_like(c)
    if mode.inner.size:
        Q = problem.predictors[0].Q
        row_kernels.spread(rows, v, moved)
        g = solved(mode.schur.P, Q.T @ (c[0] - np.einsum("ln,ln->n", mode.W[0], moved)))
        v, t = v - mode.schur.B @ g, t - mode.schur.U @ g
        moved[:] = 0.0
        moved[0] = Q @ g
    row_kernels.spread(rows, v, moved)
    return c - np.einsum("kln,ln->kn", mode.W, moved), t
