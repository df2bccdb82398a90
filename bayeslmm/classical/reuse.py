"""The same model with another response, or with a coefficient held at a value, by changing cross-products instead of building them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.linalg import solve_triangular

if TYPE_CHECKING:
    from bayeslmm.classical.engine import Problem
    from bayeslmm.design import Design
    from bayeslmm.linear.system import System

__all__ = ["Held", "Responses", "at_value", "hold_coefficient", "on_response", "responses"]

type Array = np.ndarray


def _level_rows(system: System) -> list[tuple[Array, int]]:
    """Return for the levels that are eliminated one by one where their products with [X y] start in the store, and their k, by k."""
    levels, p1 = system.levels, system.p + 1
    starts = levels.v_at + (np.diff(levels.col_at) - p1) * levels.k
    return [(starts[levels.k == k], int(k)) for k in np.unique(levels.k)]


def _with_products(problem: Problem, store: Array, M: Array) -> Problem:
    """Return the problem on other products of the same layout, with working space that agrees with them."""
    system = replace(problem.system, store=store, M=M)
    return replace(problem, system=system, work=replace(problem.work, store=store.copy()))


# ----------------------------------------------------------------------------------------------------- a coefficient at a value


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What it takes to hold one coefficient: `K` (p + 1, p + 1) maps [X y] to [the rest of X, zeros, y].

    `column` (p + 1,): the coefficient's own column in these terms. `unit`: the coefficient's distance from least squares, in the
    user's units, that moves y by one `column`.
    """

    problem: Problem
    K: Array
    column: Array
    least_squares: float
    unit: float


def hold_coefficient(problem: Problem, j: int) -> Held:
    """Return what is needed to move coefficient `j` into the offset.

    With X = QR, an orthogonal H whose last column spans what of x_j the other columns do not (R'^-1 e_j, made a unit vector)
    splits Q into the rest and u_j = Q h; y - c x_j is, but for the rest of X, y - d u_j with d proportional to c.
    """
    p = problem.p
    h = solve_triangular(problem.R, np.eye(p)[j], trans="T")
    size = float(np.linalg.norm(h))
    H = np.linalg.qr(np.column_stack([h / size, np.eye(p)]))[0][:, :p]
    K = np.zeros((p + 1, p + 1))
    K[:p, : p - 1] = H[:, 1:]
    K[p, p] = 1.0
    return Held(problem=problem, K=K, column=np.append(h / size, 0.0), least_squares=float(problem.ols[j]), unit=problem.y_scale * size)


def at_value(held: Held, value: float) -> Problem:
    """Return the problem with the coefficient at `value`: y less its column, and an empty column of X (unit square) in its place."""
    problem, p = held.problem, held.problem.p
    K = held.K.copy()
    K[:, p] -= (value - held.least_squares) / held.unit * held.column
    system = problem.system
    q = system.q
    M = system.M.copy()
    M[:q, q:] = system.M[:q, q:] @ K
    M[q:, q:] = K.T @ system.M[q:, q:] @ K
    M[q + p - 1, q + p - 1] += 1.0
    store = system.store.copy()
    for starts, k in _level_rows(system):
        places = starts[:, None, None] + np.arange(p + 1)[:, None] * k + np.arange(k)
        store[places] = np.einsum("rak,ab->rbk", system.store[places], K)
    return _with_products(problem, store, M)


# ------------------------------------------------------------------------------------------------------------- another response


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses:
    """A problem ready for other responses: weighted Q (n, p), Z' (q, n) in the order of `places`, the store's places of Z'y.

    `places`: in the store for the levels that are eliminated one by one, then rows of M's last column for the dense ones.
    """

    problem: Problem
    root: Array
    offset: Array
    Q: Array
    Zt: sparse.csr_array
    n_sparse: int
    places: Array


def responses(problem: Problem, design: Design) -> Responses:
    """Return what `on_response` needs; O(n) once. `problem` is that of the design."""
    root = np.sqrt(design.weights) if design.has_weights else np.ones(design.n)
    Xw = design.X * root[:, None]
    Q = _orthonormal_columns(solve_triangular(problem.R, Xw.T, trans="T").T) if problem.p else np.zeros((design.n, 0))
    Zt, places, n_sparse = _transposed(problem, design, root)
    return Responses(problem=problem, root=root, offset=design.offset, Q=Q, Zt=Zt, n_sparse=n_sparse, places=places)


def _orthonormal_columns(nearly: Array) -> Array:
    """Return columns that are orthonormal to rounding, next to columns that nearly are."""
    Q, R = np.linalg.qr(nearly)
    signed: Array = Q * np.sign(np.diagonal(R))
    return signed


def _transposed(problem: Problem, design: Design, root: Array) -> tuple[sparse.csr_array, Array, int]:
    system = problem.system
    levels = system.levels
    last = levels.v_at + (np.diff(levels.col_at) - 1) * levels.k
    parts, places = [sparse.csr_array((0, design.n))], [np.zeros(0, dtype=np.int64)]
    row = 0
    for position, f in enumerate(system.order):
        parts.append(_factor_rows(problem, design, f, root))
        k, n_levels = system.widths[f], system.n_levels[f]
        if position < system.n_sparse_factors:
            places.append((last[row : row + n_levels, None] + np.arange(k)).ravel())
            row += n_levels
        else:
            places.append(system.first_col[f] - levels.first_tail + np.arange(k * n_levels))
    n_sparse = int(sum(system.widths[f] * system.n_levels[f] for f in system.order[: system.n_sparse_factors]))
    return sparse.csr_array(sparse.vstack(parts, format="csr")), np.concatenate(places), n_sparse


def _factor_rows(problem: Problem, design: Design, f: int, root: Array) -> sparse.csr_array:
    """Return Z' of one factor in the search's basis (J k, n), levels outer."""
    mine = [(block, term) for block, term in zip(design.blocks, problem.terms, strict=True) if term.factor == f]
    z = np.column_stack([(block.values * root[:, None]) @ term.T for block, term in mine])
    k, n = z.shape[1], design.n
    index = mine[0][0].index.astype(np.int64)
    rows = (index[:, None] * k + np.arange(k)).ravel()
    columns = np.repeat(np.arange(n), k)
    Zt = sparse.csr_array((z.ravel(), (rows, columns)), shape=(mine[0][0].n_levels * k, n))
    C = problem.roots[f]
    return Zt if C is None else sparse.csr_array(sparse.kron(sparse.csr_array(C.T), sparse.eye_array(k), format="csr") @ Zt)


def on_response(ready: Responses, y: Array) -> Problem:
    """Return the problem with response `y` (n,): only Z'y, X'y and y'y change."""
    problem = ready.problem
    system, p = problem.system, problem.p
    unit = ready.root * (y - ready.offset)
    first = ready.Q.T @ unit
    residual = unit - ready.Q @ first
    second = ready.Q.T @ residual
    residual = (residual - ready.Q @ second) / problem.y_scale
    q = system.q
    Zy = ready.Zt @ residual
    store, M = system.store.copy(), system.M.copy()
    store[ready.places[: ready.n_sparse]] = Zy[: ready.n_sparse]
    M[ready.places[ready.n_sparse :], q + p] = Zy[ready.n_sparse :]
    M[q : q + p, q + p] = M[q + p, q : q + p] = ready.Q.T @ residual
    M[q + p, q + p] = residual @ residual
    ols = solve_triangular(problem.R, first + second) if p else problem.ols
    return replace(_with_products(problem, store, M), ols=ols)
