"""Directions of the coefficients in which a likelihood never falls: linear programming over arrays, with cheap checks before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Separated", "separate", "separate_with_levels"]

type Array = np.ndarray

_ZERO = 1e-9
"""Relative to the largest, what counts as zero among numbers made by an orthogonal factorisation."""
_FAR = 1e6
"""How far the linear programs look: an angle of less than its inverse to a row does not separate that row."""
_STEPS = 25


@dataclass(frozen=True, slots=True, kw_only=True)
class Separated:
    """What separation does to rows and coefficients.

    `rows` (n,): the rows that some direction takes towards their extreme, as many as can be; `direction` (p,): one direction
    that takes them all; `up`, `down` (p,): whether directions exist that raise, that lower the coefficient without bound.
    """

    rows: Array
    direction: Array
    up: Array
    down: Array

    @property
    def infinite(self) -> Array:
        """The coefficients (p,) without a finite estimate."""
        return np.asarray(self.up | self.down)


def separate(X: Array, low: Array, high: Array) -> Separated | None:
    """Return the directions delta with `x_i delta <= 0` in `low` rows, `>= 0` in `high` rows, `= 0` in all others, not all 0.

    None where there is no such direction: the rows overlap, and maximum likelihood has a finite estimate.

    Parameters
    ----------
    X
        Matrix (n, p) of full column rank.
    low, high
        Masks (n,): the rows whose likelihood grows with a falling, with a rising linear predictor. Rows in neither have
        their maximum in between.

    Notes
    -----
    Rows that are in between leave the null space of theirs; where it is empty, all is settled. A saturated rest (as many
    distinct rows as dimensions) is solved by its inverse. Else Newton's method on a logistic regression looks for positive
    weights w with `A' w = 0`, which prove overlap (Stiemke's lemma; `|A' w| < min(w) sigma_min(A) / sqrt(k)` is enough); then
    the linear program `max sum(s)`, `A gamma >= s`, `0 <= s <= 1` finds all rows that can be separated.

    Source: Albert & Anderson (1984), Biometrika 71, 1-10; Konis (2007), Linear programming algorithms for detecting
    separated data in binary logistic regression models (thesis, Oxford); Correia, Guimaraes & Zylkin (2019),
    arXiv:1903.01633 (counts).

    Examples
    --------
    >>> X = np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 2.0], [1.0, 3.0]])
    >>> separate(X, low=np.array([1, 1, 0, 0], dtype=bool), high=np.array([0, 0, 1, 1], dtype=bool)).up.tolist()
    [False, True]
    """
    n, p = X.shape
    free = np.asarray(low | high)
    if p == 0 or not free.any():
        return None
    Q, R = np.linalg.qr(X)
    hull = _null_space(Q[~free], p)
    if hull.shape[1] == 0:
        return None
    A = np.where(high, 1.0, -1.0)[free, None] * Q[free] @ hull
    cone, position = _rays(A)
    gamma, strict = _strictly(cone)
    if gamma is None:
        return None
    rows = np.zeros(n, dtype=bool)
    rows[np.flatnonzero(free)[position >= 0]] = strict[position[position >= 0]]
    inner = hull @ _null_space(cone[~strict], cone.shape[1])
    T = np.linalg.solve(R, inner) * np.linalg.norm(X, axis=0)[:, None]
    up, down = _signs(T, _rays(np.where(high, 1.0, -1.0)[rows, None] * Q[rows] @ inner)[0])
    return Separated(rows=rows, direction=np.linalg.solve(R, hull @ gamma), up=up, down=down)


def _null_space(rows: Array, p: int, least: float = 1e-4) -> Array:
    """Return an orthonormal basis (p, r) of what `rows` (m, p) map to zero; `least`: the size that rounding errors are held against."""
    if len(rows) == 0 or p == 0:
        return np.eye(p)
    small = np.linalg.qr(rows, mode="r") if len(rows) > p else rows
    _, sizes, Vt = np.linalg.svd(small)
    rank = int((sizes > _ZERO * max(sizes[0], least)).sum())
    return np.asarray(Vt[rank:].T)


def _rays(A: Array) -> tuple[Array, Array]:
    """Return the distinct directions of the rows (k, r), as unit vectors, and each row's position among them (-1: a zero row)."""
    size = np.linalg.norm(A, axis=1)
    live = size > _ZERO * size.max(initial=0.0)
    units = A[live] / size[live, None]
    _, first, inverse = np.unique(np.round(units, 9) + 0.0, axis=0, return_index=True, return_inverse=True)
    position = np.full(len(A), -1, dtype=np.intp)
    position[live] = inverse.ravel()
    return units[first], position


def _strictly(cone: Array) -> tuple[Array | None, Array]:
    """Return a `gamma` with `cone gamma >= 0` and the mask of rows where it is above 0, the most that can be; None if none is."""
    k, r = cone.shape
    if k == r and np.linalg.cond(cone) < _FAR:
        return np.linalg.solve(cone, np.ones(k)), np.ones(k, dtype=bool)
    if _overlap(cone):
        return None, np.zeros(k, dtype=bool)
    gamma = _most_separated(cone, None)
    reached = cone @ gamma
    strict = reached > 1e-4
    if not strict.any() or reached.min() < -1e-5:
        return None, np.zeros(k, dtype=bool)
    return gamma, strict


def _overlap(cone: Array) -> bool:
    """Whether a logistic regression on the rows (all of them successes) finds positive weights that prove overlap."""
    k, r = cone.shape
    needed = float(np.linalg.svd(cone, compute_uv=False)[-1]) / np.sqrt(k)
    gamma = np.zeros(r)
    for _ in range(_STEPS):
        w = 1.0 / (1.0 + np.exp(np.minimum(cone @ gamma, 30.0)))
        gradient = cone.T @ w
        if float(np.linalg.norm(gradient)) < needed * float(w.min()):
            return True
        step = np.linalg.lstsq((cone.T * (w * (1.0 - w))) @ cone, gradient, rcond=None)[0]
        gamma = gamma + step * min(1.0, 5.0 / float(np.linalg.norm(step)))
        if float(np.linalg.norm(gamma)) > 100.0:
            return False
    return False


def _signs(T: Array, cone: Array) -> tuple[Array, Array]:
    """Return for each row t of T (p, r) whether `t gamma` can be positive, negative, for `cone gamma >= 0`."""
    size = np.linalg.norm(T, axis=1)
    moved = np.flatnonzero(size > _ZERO * size.max())
    up, down = np.zeros(len(T), dtype=bool), np.zeros(len(T), dtype=bool)
    if cone.shape[0] == cone.shape[1] and np.linalg.cond(cone) < _FAR:
        ends = T @ np.linalg.inv(cone)
        limit = 1e-7 * np.abs(ends).max()
        up[moved], down[moved] = (ends[moved] > limit).any(axis=1), (ends[moved] < -limit).any(axis=1)
        return up, down
    for j in moved.tolist():
        t = T[j] / size[j]
        up[j], down[j] = _reaches(cone, None, t), _reaches(cone, None, -t)
    return up, down


def _most_separated(A: Any, E: Any) -> Array:
    """Solve `max sum(s)`, `A gamma >= s`, `0 <= s <= 1`, `E gamma = 0`; returns gamma."""
    import scipy.sparse as sp
    from scipy.optimize import linprog

    k, r = A.shape
    slack = sp.hstack([-sp.csr_array(A), sp.eye_array(k)], format="csc")
    equal = None if E is None else sp.hstack([sp.csr_array(E), sp.csr_array((E.shape[0], k))], format="csc")
    bounds = np.vstack([np.tile([-_FAR, _FAR], (r, 1)), np.tile([0.0, 1.0], (k, 1))])
    found: Any = linprog(  # type: ignore[call-overload]  # its stubs know no sparse matrices
        np.concatenate([np.zeros(r), -np.ones(k)]),
        A_ub=slack,
        b_ub=np.zeros(k),
        A_eq=equal,
        b_eq=None if E is None else np.zeros(E.shape[0]),
        bounds=bounds,
        method="highs",
    )
    return np.zeros(r) if found.x is None else np.asarray(found.x[:r])


def _reaches(A: Any, E: Any, t: Array) -> bool:
    """Whether `t gamma` can be above 0 for `A gamma >= 0`, `E gamma = 0`."""
    from scipy.optimize import linprog

    zero = None if E is None else np.zeros(E.shape[0])
    found: Any = linprog(-t, A_ub=-A, b_ub=np.zeros(A.shape[0]), A_eq=E, b_eq=zero, bounds=(-1.0, 1.0), method="highs")
    return found.x is not None and -float(found.fun) > 1e-6


# With the groups as fixed effects --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SeparatedLevels:
    """Separation where groups are fixed effects too: rows (n,), fixed coefficients (p,), and levels whose rows are all extreme.

    `levels`: (block, level) in the order of finding.
    """

    rows: Array
    up: Array
    down: Array
    levels: tuple[tuple[int, int], ...]


def separate_with_levels(X: Array, Z: Any, groups: Sequence[tuple[int, Array, int]], low: Array, high: Array) -> SeparatedLevels | None:
    """Return what is separated by the fixed effects and the groups together; None where nothing is.

    Levels whose rows are all at one extreme are set aside first, again and again as others become so; a sparse linear program
    has the rest. A coefficient of X has no finite estimate where all rows determine it (given the groups) but those that are
    not separated do not.

    Parameters
    ----------
    X
        Fixed effects (n, p).
    Z
        Groups' columns, sparse (n, q).
    groups
        For each block with an intercept: its position, the level of each row (n,), the number of levels.
    low, high
        As for `separate`.
    """
    import scipy.sparse as sp

    rows, levels = _extreme_levels(groups, low, high)
    known = _determined(X, _without(X, Z))
    inside = X[:, known] / np.linalg.norm(X[:, known], axis=0)
    A = sp.hstack([_unit_columns(Z), sp.csr_array(inside)], format="csr")
    left = np.flatnonzero(~rows)
    if len(left):
        rows = rows.copy()
        rows[left] |= _separated_rows(A[left], low[left], high[left])
    if not rows.any():
        return None
    up, down = np.zeros((2, X.shape[1]), dtype=bool)
    up[known], down[known] = _infinite(inside, Z, A, rows, low, high)
    return SeparatedLevels(rows=rows, up=up, down=down, levels=levels)


def _extreme_levels(groups: Sequence[tuple[int, Array, int]], low: Array, high: Array) -> tuple[Array, tuple[tuple[int, int], ...]]:
    taken = np.zeros(len(low), dtype=bool)
    found: list[tuple[int, int]] = []
    grown = True
    while grown:
        grown = False
        for block, index, size in groups:
            counts = np.bincount(index[~taken], minlength=size)
            for extreme in (low, high):
                whole = (counts > 0) & (np.bincount(index[~taken & extreme], minlength=size) == counts)
                if whole.any():
                    found += [(block, level) for level in np.flatnonzero(whole).tolist()]
                    taken |= whole[index] & ~taken
                    counts = np.where(whole, 0, counts)
                    grown = True
    return taken, tuple(found)


def _unit_columns(Z: Any) -> Any:
    import scipy.sparse as sp

    size = np.sqrt(np.asarray(Z.multiply(Z).sum(axis=0)).ravel())
    return sp.csr_array(Z @ sp.diags_array(1.0 / np.where(size > 0, size, 1.0)))


def _signed(A: Any, low: Array, high: Array) -> tuple[Any, Any]:
    """Return the rows that may move, signed, and those that may not (None: there are none)."""
    import scipy.sparse as sp

    free = low | high
    moving = sp.diags_array(np.where(high[free], 1.0, -1.0)) @ A[np.flatnonzero(free)]
    fixed = np.flatnonzero(~free)
    return moving, (A[fixed] if len(fixed) else None)


def _separated_rows(A: Any, low: Array, high: Array) -> Array:
    rows = np.zeros(len(low), dtype=bool)
    free = low | high
    if free.any():
        moving, fixed = _signed(A, low, high)
        rows[free] = moving @ _most_separated(moving, fixed) > 1e-4
    return rows


def _infinite(X: Array, Z: Any, A: Any, rows: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """Return for each column of X, determined by all rows given Z, whether its coefficient can rise, fall without bound."""
    p, q = X.shape[1], Z.shape[1]
    up, down = np.zeros(p, dtype=bool), np.zeros(p, dtype=bool)
    rest = np.flatnonzero(~rows)
    null = _null_space(_without(X[rest], Z[rest]) if len(rest) else np.zeros((0, p)), p, least=1.0)
    lost = np.flatnonzero(np.linalg.norm(null, axis=1) > 1e-6).tolist()
    if lost:
        moving, fixed = _signed(A, low, high)
        for j in lost:
            t = np.zeros(q + p)
            t[q + j] = 1.0
            up[j], down[j] = _reaches(moving, fixed, t), _reaches(moving, fixed, -t)
    return up, down


def _without(X: Array, Z: Any) -> Array:
    """Return X less its projection on the columns of Z."""
    from scipy.sparse.linalg import lsmr

    return np.column_stack([x - Z @ lsmr(Z, x, atol=1e-13, btol=1e-13, maxiter=500)[0] for x in X.T]) if X.shape[1] else X


def _determined(X: Array, within: Array) -> list[int]:
    """Return the columns that the groups and earlier columns leave something of."""
    size = np.maximum(np.linalg.norm(X, axis=0), 1e-300)
    kept: list[int] = []
    for j in range(X.shape[1]):
        chosen = within[:, [*kept, j]] / size[[*kept, j]]
        if np.linalg.matrix_rank(chosen, tol=1e-7) == len(kept) + 1:
            kept.append(j)
    return kept
