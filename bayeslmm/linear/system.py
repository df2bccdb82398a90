"""Design -> the theta-independent products A = [Z X y]'W[Z X y] in blocks, and one evaluation of the profiled criterion on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import lapack

from bayeslmm.linear import blas, pls
from bayeslmm.linear.rows import RowMap

if TYPE_CHECKING:
    from collections.abc import Sequence

type Array = np.ndarray

__all__ = [
    "Evaluation",
    "Factor",
    "Solution",
    "System",
    "Workspace",
    "assemble",
    "blocks_of",
    "by_factor",
    "evaluate",
    "factorise",
    "inverse_parts",
    "lambda_times",
    "outer_blocks",
    "row_map",
    "solve",
    "solve_for",
    "stacked",
    "variances",
    "workspace",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """All columns of Z that belong to one grouping factor: `index` (n,) the level of each row, `z` (n, k) its values."""

    index: Array
    n_levels: int
    z: Array

    @property
    def k(self) -> int:
        return int(self.z.shape[1])

    @property
    def size(self) -> int:
        return self.n_levels * self.k


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """The products A in elimination order (see `pls` for the layout); R sparse levels (rows), then q dense columns, then [X y].

    `order`: factors in elimination order, the first `n_sparse_factors` of them level by level, the rest dense. `first_col` per
    factor (in the caller's order): its first column in that order.
    """

    n: int
    p: int
    q: int
    order: tuple[int, ...]
    n_sparse_factors: int
    n_levels: tuple[int, ...]
    widths: tuple[int, ...]
    first_col: tuple[int, ...]
    n_columns: int
    lam_at: tuple[int, ...]
    lam_size: int
    levels: pls.Levels
    blocks: pls.Blocks
    first_inner: int
    store_from: int
    store: Array
    M: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """Scratch arrays of one fit, overwritten by every evaluation."""

    store: Array
    bar: Array
    M: Array
    Mbar: Array
    scratch: pls.Scratch
    R: Array
    beta: Array
    Fbar: Array
    lambar: Array
    tail: pls.Tail


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """log|I + L'Z'WZL|, log|R_X|^2, the penalised residual sum of squares, and (if asked) the adjoint of every factor's L (flat)."""

    ld_l2: float
    ld_rx2: float
    pwrss: float
    lambar: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """At one theta: `beta` (p,), `P` (p, p) = X'V^-1 X, per factor `b` (J, k) and conditional variances over sigma^2 (J, k, k)."""

    ld_l2: float
    ld_rx2: float
    pwrss: float
    beta: Array
    P: Array
    b: tuple[Array, ...]
    variance: tuple[Array, ...]


# ---------------------------------------------------------------------------------------------------------------- symbolic part


def _elimination_order(factors: Sequence[Factor]) -> list[int]:
    return sorted(range(len(factors)), key=lambda f: -factors[f].size)


@dataclass(slots=True)
class _Patterns:
    """Level-by-level co-occurrence: per sparse factor the sorted keys `level * n_all + other` over all later levels."""

    first_level: list[int]
    n_all: int
    sparse: list[int]
    keys: list[Array]
    owner: Array


def _patterns(factors: Sequence[Factor]) -> _Patterns:
    order = _elimination_order(factors)
    first_level = _offsets([factor.n_levels for factor in factors])
    n_all = int(first_level[-1])
    owner = np.repeat(np.arange(len(factors)), [factor.n_levels for factor in factors])
    found = _Patterns(first_level=[int(first) for first in first_level[:-1]], n_all=n_all, sparse=[], keys=[], owner=owner)
    dense_columns = 0
    for f in order:
        if found.sparse and not _stays_block_diagonal(found, f):
            dense_columns += factors[f].size
            continue
        keys = _pattern_of(found, factors, f)
        if found.sparse and _dense_is_cheaper(keys, found, factors, f, dense_columns):
            dense_columns += factors[f].size
            continue
        found.sparse.append(f)
        found.keys.append(keys)
    return found


def _stays_block_diagonal(found: _Patterns, f: int) -> bool:
    for keys in found.keys:
        rows, others = np.divmod(keys, found.n_all)
        rows = rows[found.owner[others] == f]
        if rows.size and np.any(rows[1:] == rows[:-1]):
            return False
    return True


def _pattern_of(found: _Patterns, factors: Sequence[Factor], f: int) -> Array:
    """Keys of factor f's levels with all levels of factors not yet eliminated: from the data, and filled in by earlier eliminations."""
    mine = factors[f].index.astype(np.int64) * found.n_all
    done = {*found.sparse, f}
    parts = [mine + (found.first_level[g] + factor.index) for g, factor in enumerate(factors) if g not in done]
    for keys in found.keys:
        rows, others = np.divmod(keys, found.n_all)
        level_of_row = np.full(int(rows.max(initial=-1)) + 1, -1, dtype=np.int64)
        own = found.owner[others] == f
        level_of_row[rows[own]] = others[own] - found.first_level[f]
        keep = (level_of_row[rows] >= 0) & ~np.isin(found.owner[others], list(done))
        parts.append(level_of_row[rows[keep]] * found.n_all + others[keep])
    return np.unique(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)


def _dense_is_cheaper(keys: Array, found: _Patterns, factors: Sequence[Factor], f: int, dense_columns: int) -> bool:
    widths = np.array([factor.k for factor in factors])
    rows, others = np.divmod(keys, found.n_all)
    m = np.bincount(rows, weights=widths[found.owner[others]], minlength=factors[f].n_levels)
    sparse_cost = float(np.sum(m**2)) * factors[f].k
    dense_cost = ((dense_columns + factors[f].size) ** 3 - dense_columns**3) / 10.0
    return sparse_cost > dense_cost


# ----------------------------------------------------------------------------------------------------------------- numeric part


def _offsets(sizes: Sequence[int] | Array) -> Array:
    """Return (0, s0, s0 + s1, ...): where each of consecutive blocks starts, and the total."""
    found = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=found[1:])
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Columns:
    """Where everything stands in elimination order: per factor its first column; the number of random columns; the dense ones' start."""

    order: tuple[int, ...]
    n_sparse: int
    first: tuple[int, ...]
    total: int
    first_tail: int
    n_dense: int


def _columns(found: _Patterns, factors: Sequence[Factor]) -> _Columns:
    order = (*found.sparse, *(f for f in _elimination_order(factors) if f not in found.sparse))
    starts = dict(zip(order, _offsets([factors[f].size for f in order]), strict=False))
    total = sum(factor.size for factor in factors)
    first_tail = sum(factors[f].size for f in found.sparse)
    first = tuple(int(starts[f]) for f in range(len(factors)))
    return _Columns(order=order, n_sparse=len(found.sparse), first=first, total=total, first_tail=first_tail, n_dense=total - first_tail)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """The levels of the sparse factors, in elimination order: arrays of `System`, and the sorted keys that find a pair's place.

    `keys[s]` (sorted `level * total + first column`), `places[s]`: position of that block's first column in `cols`.
    """

    k: Array
    first_row: tuple[int, ...]
    col_at: Array
    cols: Array
    d_at: Array
    v_at: Array
    g_at: Array
    store_size: int
    col_of_row: Array
    keys: tuple[Array, ...]
    places: tuple[Array, ...]


def _rows(found: _Patterns, factors: Sequence[Factor], columns: _Columns, p1: int) -> _Rows:
    counts, starts, widths, keys = [], [], [], []
    width_of = np.array([factor.k for factor in factors], dtype=np.int64)
    first_level, first_col = np.array(found.first_level), np.array(columns.first)
    for s, f in enumerate(found.sparse):
        rows, others = np.divmod(found.keys[s], found.n_all)
        owner = found.owner[others]
        start = first_col[owner] + (others - first_level[owner]) * width_of[owner]
        key = rows * columns.total + start
        by_key = np.argsort(key)
        keys.append(key[by_key])
        starts.append(start[by_key])
        widths.append(width_of[owner[by_key]])
        counts.append(np.bincount(rows, weights=width_of[owner], minlength=factors[f].n_levels).astype(np.int64))
    k = np.repeat([factors[f].k for f in found.sparse], [factors[f].n_levels for f in found.sparse]).astype(np.int64)
    col_at = _offsets(np.concatenate(counts) + p1) if counts else np.zeros(1, dtype=np.int64)
    first_row = _offsets([factors[f].n_levels for f in found.sparse])
    cols = np.empty(int(col_at[-1]), dtype=np.int64)
    cols[(col_at[1:, None] - p1 + np.arange(p1)).ravel()] = np.tile(columns.total + np.arange(p1), k.size)
    places = []
    for s in range(len(found.sparse)):
        row = keys[s] // columns.total + first_row[s]
        place = _offsets(widths[s])[:-1] + row * p1 + (col_at[first_row[s]] - first_row[s] * p1)
        for a in range(int(widths[s].max(initial=0))):
            wide = widths[s] > a
            cols[place[wide] + a] = starts[s][wide] + a
        places.append(place)
    block = _offsets(k**2 + np.diff(col_at) * k)
    return _Rows(
        k=k,
        first_row=tuple(int(row) for row in first_row),
        col_at=col_at,
        cols=cols,
        d_at=block[:-1],
        v_at=block[:-1] + k**2,
        g_at=_offsets(k**2)[:-1],
        store_size=int(block[-1]),
        col_of_row=_offsets(k)[:-1],
        keys=tuple(keys),
        places=tuple(places),
    )


def _level_columns(factor: Factor, first: int) -> Array:
    """Each observation's first column of this factor."""
    return first + factor.index.astype(np.int64) * factor.k


def row_map(factors: Sequence[Factor], predictor: Sequence[int], wide: Array | None = None) -> tuple[System, RowMap]:
    """Return the system of random columns alone, its products still zero, and the map that fills them with any row weights.

    `predictor` (C,): whose linear predictor the columns of all factors, in order, belong to, then those of `wide` (n, m): columns
    that every row has, which the system holds in the place of X. It has one further column, of zeros, in the place of y.
    """
    n = len(wide) if wide is not None else len(factors[0].index)
    wide = np.zeros((n, 0)) if wide is None else wide
    m = wide.shape[1]
    found = _patterns(factors)
    columns = _columns(found, factors)
    rows = _rows(found, factors, columns, m + 1)
    empty = np.zeros((n, m + 1))
    blank = [Factor(index=factor.index, n_levels=factor.n_levels, z=np.zeros_like(factor.z)) for factor in factors]
    system = _built(factors, empty, found, columns, rows, np.zeros(rows.store_size), _dense_products(blank, columns, empty))
    base, pairs = _pair_places(factors, columns, rows, system.M.shape[0])
    if m:
        _add_wide_places(base, pairs, factors, columns, rows, empty.shape)
    starts = _offsets([*(factor.k for factor in factors), m])
    at = [_level_columns(factor, columns.first[f]) + a for f, factor in enumerate(factors) for a in range(factor.k)]
    at += [np.full(n, columns.total + x) for x in range(m)]
    family, offset, dense, first, second = np.array(pairs, dtype=np.int64).reshape(-1, 7)[:, [0, 1, 2, 3, 5]].T.copy()
    within = np.array(pairs, dtype=np.int64).reshape(-1, 7)[:, [4, 6]].T
    return system, RowMap(
        z=np.ascontiguousarray(np.hstack([*(factor.z for factor in factors), wide]).T),
        at=np.array(at, dtype=np.int64),
        predictor=np.array(predictor, dtype=np.int64),
        base=np.array(base, dtype=np.int64),
        family=family,
        offset=offset,
        dense=dense.astype(np.bool_),
        first=starts[first] + within[0],
        second=starts[second] + within[1],
    )


def _pair_places(factors: Sequence[Factor], columns: _Columns, rows: _Rows, size: int) -> tuple[list[Array], list[tuple[int, ...]]]:
    """Return where each pair of factors' products stand, (pairs of factors, n), and (family, offset, dense, f, c, g, d) of each pair.

    Columns c of factor f and d of g, f first in elimination order: see `_sparse_products` and `_dense_products` for the layout.
    """
    base: list[Array] = []
    pairs: list[tuple[int, ...]] = []
    for s, f in enumerate(columns.order):
        k = factors[f].k
        for g in columns.order[s:]:
            h = factors[g].k
            sparse = s < columns.n_sparse
            base.append(_pair_base(factors, columns, rows, s, g, size))
            places = [(a, b) for a in range(k) for b in range(h) if f != g or a <= b]
            stride = (1, k) if sparse and f != g else (k if sparse else size, 1)
            pairs += [(len(base) - 1, a * stride[0] + b * stride[1], int(not sparse), f, a, g, b) for a, b in places]
    return base, pairs


def _add_wide_places(
    base: list[Array], pairs: list[tuple[int, ...]], factors: Sequence[Factor], columns: _Columns, rows: _Rows, shape: tuple[int, int]
) -> None:
    """Add the places of the wide columns' products with all factors and with one another; they stand behind, where X does."""
    n, p1 = shape
    m, wide, size = p1 - 1, len(factors), columns.n_dense + p1
    dense_at = rows.v_at + (np.diff(rows.col_at) - p1) * rows.k
    for s, f in enumerate(columns.order):
        k, sparse = factors[f].k, s < columns.n_sparse
        if sparse:
            base.append(dense_at[factors[f].index.astype(np.int64) + rows.first_row[s]])
        else:
            base.append(_level_columns(factors[f], columns.first[f] - columns.first_tail) * size + columns.n_dense)
        stride = (1, k) if sparse else (size, 1)
        pairs += [(len(base) - 1, a * stride[0] + x * stride[1], int(not sparse), f, a, wide, x) for a in range(k) for x in range(m)]
    base.append(np.full(n, columns.n_dense * (size + 1)))
    pairs += [(len(base) - 1, x * size + y, 1, wide, x, wide, y) for x in range(m) for y in range(x, m)]


def _pair_base(factors: Sequence[Factor], columns: _Columns, rows: _Rows, s: int, g: int, size: int) -> Array:
    """Return the place (n,) of the first product of the factor that is eliminated as the s-th with factor g."""
    f = columns.order[s]
    if s >= columns.n_sparse:
        mine = _level_columns(factors[f], columns.first[f] - columns.first_tail)
        return np.asarray(mine * size + _level_columns(factors[g], columns.first[g] - columns.first_tail))
    level = factors[f].index.astype(np.int64)
    row = level + rows.first_row[s]
    if f == g:
        return np.asarray(rows.d_at[row])
    place = _place_of(rows, factors, columns, s, g)
    return np.asarray(rows.v_at[row] + (place - rows.col_at[row]) * factors[f].k)


def _place_of(rows: _Rows, factors: Sequence[Factor], columns: _Columns, s: int, g: int) -> Array:
    """Return each observation's position in `cols` of factor g's first column, among the later columns of the s-th factor's level."""
    level = factors[columns.order[s]].index.astype(np.int64)
    key = level * columns.total + _level_columns(factors[g], columns.first[g])
    return np.asarray(rows.places[s][np.searchsorted(rows.keys[s], key)])


def _sparse_products(rows: _Rows, factors: Sequence[Factor], columns: _Columns, XY: Array) -> Array:
    store = np.zeros(rows.store_size)
    p1 = XY.shape[1]
    dense_at = rows.v_at + (np.diff(rows.col_at) - p1) * rows.k
    for s, f in enumerate(columns.order[: columns.n_sparse]):
        factor = factors[f]
        level = factor.index.astype(np.int64)
        row = level + rows.first_row[s]
        pls.accumulate_diagonal(store, rows.d_at, row, factor.z)
        pls.accumulate_dense(store, dense_at, row, factor.z, XY)
        for g in columns.order[s + 1 :]:
            place = _place_of(rows, factors, columns, s, g)
            pls.accumulate_pairs(store, rows.v_at[row] + (place - rows.col_at[row]) * factor.k, factor.z, factors[g].z)
    return store


def _dense_products(factors: Sequence[Factor], columns: _Columns, XY: Array) -> Array:
    q, p1 = columns.n_dense, XY.shape[1]
    M = np.zeros((q + p1, q + p1))
    dense = columns.order[columns.n_sparse :]
    for i, f in enumerate(dense):
        mine = _level_columns(factors[f], columns.first[f] - columns.first_tail)
        pls.accumulate_tail_dense(M, mine, factors[f].z, q, XY)
        for g in dense[i:]:
            pls.accumulate_tail(M, mine, factors[f].z, _level_columns(factors[g], columns.first[g] - columns.first_tail), factors[g].z)
    M[q:, q:] = XY.T @ XY
    return M


_WIDE = 12
"""Dense columns from which on BLAS is worth its calls."""
_FILLED = 0.25
"""Share of the dense columns that rows must meet on average for BLAS, which takes all, to be faster."""
_STACKED = 192
"""Random columns that BLAS takes at once."""


def _first_wide(rows: _Rows, m: Array, n_dense: int) -> int:
    """Return the first row of the last sparse factor where its rows are wide (see `pls.Levels`), else the number of rows."""
    if len(rows.first_row) < 2:
        return rows.k.size
    first = rows.first_row[-2]
    wide = n_dense >= _WIDE and m[first:].size > 1 and float(np.mean(m[first:])) >= _FILLED * n_dense
    return first if wide else rows.k.size


_SPREAD = 100
"""Dense columns from which on M is gone through once, as it does not stay in the nearest cache."""


def _spread(levels: pls.Levels, rows: _Rows, q: int) -> pls.Levels:
    """Return the levels with the later columns of the last sparse factor's rows listed by dense random column (see `pls.Levels`)."""
    start = rows.col_at[rows.first_row[-2]]
    entry = start + np.flatnonzero(levels.cols[start:] < levels.first_tail + q)
    column = levels.cols[entry] - levels.first_tail
    entry = entry[np.argsort(column, kind="stable")]
    row = np.searchsorted(rows.col_at, entry, side="right") - 1
    return levels._replace(
        spread=rows.first_row[-2],
        met_at=_offsets(np.bincount(column, minlength=q)),
        row_of=row.astype(np.int64),
        place_of=(entry - rows.col_at[row]).astype(np.int64),
    )


def _levels(rows: _Rows, row_lam: Array, first_tail: int, q: int, n_dense: int) -> pls.Levels:
    """Return the rows with the map of their later pairs (see `pls.map_targets`); `q`: dense random columns, `n_dense`: all of M."""
    n_rows = rows.k.size
    m = np.diff(rows.col_at)
    n_sparse = np.zeros(n_rows, dtype=np.int64)
    if len(rows.first_row) > 2:
        below = _offsets(rows.cols < first_tail)
        n_sparse = below[rows.col_at[1:]] - below[rows.col_at[:-1]]
    map_at = _offsets(n_sparse * m)
    wide = _first_wide(rows, m, n_dense)
    levels = pls.Levels(
        k=rows.k,
        lam_at=row_lam,
        d_at=rows.d_at,
        v_at=rows.v_at,
        g_at=rows.g_at,
        first=rows.col_of_row,
        col_at=rows.col_at,
        cols=rows.cols,
        n_sparse=n_sparse,
        map_at=map_at[:-1],
        where=np.zeros(int(map_at[-1]), dtype=np.int64),
        first_tail=first_tail,
        wide=wide,
        spread=wide,
        met_at=np.zeros(1, dtype=np.int64),
        row_of=np.zeros(0, dtype=np.int64),
        place_of=np.zeros(0, dtype=np.int64),
    )
    if wide == n_rows and n_rows and q >= _SPREAD:
        levels = _spread(levels, rows, q)
    if levels.where.size:
        pls.map_targets(levels, np.repeat(np.arange(n_rows), rows.k))
    return levels


def assemble(factors: Sequence[Factor], XY: Array) -> System:
    """Return the products of the factors' columns and of `XY` = [X y] (n, p + 1); the weights' square roots are already in all.

    Cost: O(n) per pair of factors, once per fit.
    """
    found = _patterns(factors)
    columns = _columns(found, factors)
    rows = _rows(found, factors, columns, XY.shape[1])
    store, M = _sparse_products(rows, factors, columns, XY), _dense_products(factors, columns, XY)
    return _built(factors, XY, found, columns, rows, store, M)


def _built(factors: Sequence[Factor], XY: Array, found: _Patterns, columns: _Columns, rows: _Rows, store: Array, M: Array) -> System:
    n, p1 = XY.shape
    lam_at = _offsets([factor.k**2 for factor in factors])
    inner = rows.first_row[1] if columns.n_sparse else 0
    row_lam = np.repeat(lam_at[np.array(found.sparse, dtype=np.int64)], np.diff(rows.first_row))
    return System(
        n=n,
        p=p1 - 1,
        q=columns.n_dense,
        order=columns.order,
        n_sparse_factors=columns.n_sparse,
        n_levels=tuple(factor.n_levels for factor in factors),
        widths=tuple(factor.k for factor in factors),
        first_col=columns.first,
        n_columns=columns.total,
        lam_at=tuple(int(at) for at in lam_at[:-1]),
        lam_size=int(lam_at[-1]),
        levels=_levels(rows, row_lam, columns.first_tail, columns.n_dense, len(M)),
        blocks=_blocks(factors, columns, lam_at),
        first_inner=inner,
        store_from=int(rows.d_at[inner]) if inner < rows.k.size else rows.store_size,
        store=store,
        M=M,
    )


def _blocks(factors: Sequence[Factor], columns: _Columns, lam_at: Array) -> pls.Blocks:
    dense = list(columns.order[columns.n_sparse :])
    levels = [factors[f].n_levels for f in dense]
    at = [columns.first[f] - columns.first_tail + factors[f].k * np.arange(factors[f].n_levels) for f in dense]
    return pls.Blocks(
        at=np.concatenate([np.empty(0), *at]).astype(np.int64),
        k=np.repeat(np.array([factors[f].k for f in dense], dtype=np.int64), levels),
        lam_at=np.repeat(lam_at[np.array(dense, dtype=np.int64)], levels),
    )


def workspace(system: System) -> Workspace:
    """Return scratch arrays for evaluations of one system."""
    size, p1, levels, q = system.M.shape[0], system.p + 1, system.levels, system.q
    k = max(system.widths, default=1)
    widest = int(np.max(np.diff(levels.col_at), initial=1))
    squares = int(np.sum(levels.k**2))
    return Workspace(
        store=system.store.copy(),
        bar=np.zeros(system.store.size),
        M=np.empty((size, size)),
        Mbar=np.empty((size, size)),
        scratch=pls.Scratch(
            G=np.empty(squares),
            P=np.empty(squares),
            W=np.empty((widest, k)),
            small=np.empty((4, k, k)),
            stack=np.empty((2, stacked(levels), size)),
            all=np.empty(system.store.size if levels.spread < levels.wide else 0),
            at=blas.addresses(),
        ),
        R=np.empty((system.p, system.p)),
        beta=np.empty(system.p),
        Fbar=np.empty((p1, p1)),
        lambar=np.empty(system.lam_size),
        tail=pls.Tail(
            S=np.empty((q, q)),
            B=np.empty((q, p1)),
            N=np.empty((p1, q)),
            MN=np.empty((p1, q)),
            bands=np.empty((int(np.max(system.blocks.k, initial=1)), q)),
            U=np.empty((k, q)),
        ),
    )


def stacked(levels: pls.Levels) -> int:
    """Return how many columns of wide rows are taken at once, whole rows."""
    if levels.wide == levels.k.size:
        return 0
    k = int(levels.k[levels.wide])
    return k * min(levels.k.size - levels.wide, max(_STACKED // k, 1))


# ------------------------------------------------------------------------------------------------------------------- evaluation


def evaluate(system: System, work: Workspace, lam: Array, df: float, reml: bool) -> Evaluation:
    """Evaluate the criterion's parts and the adjoint of Lambda at `lam`, the factors' (k, k) blocks one after another.

    `df` is n, or n - p for REML: the gradient is of ld_l2 [+ ld_rx2] + df log(pwrss). `lambar` is overwritten by the next evaluation.
    """
    if system.q == 0:
        ld_l2, ld_rx2, pwrss = pls.evaluate_sparse(
            system.levels, lam, system.store, system.M, system.first_inner, system.store_from, df, reml,
            work.store, work.M, work.scratch, work.R, work.beta, work.Fbar, work.bar, work.lambar,
        )  # fmt: skip
        return Evaluation(ld_l2=ld_l2, ld_rx2=ld_rx2, pwrss=pwrss, lambar=work.lambar)
    ld_l2, F = _forward(system, work, lam)
    ld_rx2, pwrss = pls.finish(F, df, reml, work.R, work.beta, work.Fbar)
    _backward(system, work, lam, work.Fbar, system.first_inner)
    return Evaluation(ld_l2=ld_l2, ld_rx2=ld_rx2, pwrss=pwrss, lambar=work.lambar)


def _forward(system: System, work: Workspace, lam: Array) -> tuple[float, Array]:
    """Eliminate all random columns; return (logdet, F). In `work.tail`: Z1 = S^-1 L'M_tx as B and S^-1 as S."""
    work.store[system.store_from :] = system.store[system.store_from :]
    work.M[...] = system.M
    logdet, _ = factorise(system, work, lam)
    if system.q == 0:
        return logdet, work.M.copy()
    F = np.full((system.p + 1, system.p + 1), np.nan)
    if np.isnan(logdet):
        work.tail.S[...] = work.tail.B[...] = np.nan
        return np.nan, F
    pls.tail_solve(work.scratch.at, work.M, work.tail, F)
    pls.tail_inverse(work.scratch.at, work.tail)
    return logdet, F


def factorise(system: System, work: Workspace, lam: Array) -> tuple[float, Array]:
    """Eliminate all random columns of the products in `work`; return log|S| and the dense part's Cholesky factor (q, q; lower).

    The determinant is NaN where S = I + L'Z'WZL is not positive definite, as it can be with negative weights.
    """
    logdet = pls.eliminate(system.levels, lam, work.store, work.M, work.scratch)
    if system.q == 0 or np.isnan(logdet):
        return logdet, work.tail.S
    pls.tail_system(work.M, system.q, system.blocks, lam, work.tail)
    return logdet + pls.tail_factor(work.scratch.at, work.tail), work.tail.S.T


def solve_for(system: System, work: Workspace, lam: Array, L: Array, right: Array) -> tuple[Array, Array]:
    """Return b = Lambda u and u = S^-1 Lambda'r, (n_columns,) each, of a right-hand side r; after `factorise`, which gave `L`."""
    r, b, u = np.zeros((3, len(right) + 1))
    r[:-1] = right
    if system.q == 0:
        pls.solve_sparse(system.levels, work.store, work.scratch, r, b, u)
        return b[:-1], u[:-1]
    pls.reduce_right(system.levels, work.store, work.scratch, r)
    tail = slice(system.levels.first_tail, system.n_columns)
    u[tail] = lapack.dpotrs(L, _times_lambda(system, lam, r[tail, None], transposed=True), lower=1)[0][:, 0]
    b[tail] = _times_lambda(system, lam, u[tail, None])[:, 0]
    pls.solve_back(system.levels, work.store, work.scratch, r, b, u)
    return b[:-1], u[:-1]


def inverse_parts(system: System, work: Workspace, lam: Array, L: Array) -> None:
    """Fill `work.bar` and `work.Mbar` with C = Lambda S^-1 Lambda' (upper triangles), `work.lambar` with d log|S| / d Lambda."""
    if system.q:
        work = replace(work, tail=work.tail._replace(S=np.array(L.T, order="C"), B=np.zeros_like(work.tail.B)))
        pls.tail_inverse(work.scratch.at, work.tail)
    _backward(system, work, lam, np.zeros_like(work.Fbar), 0)


def by_factor(system: System, vector: Array) -> list[Array]:
    """Return a vector of random columns as (J, k) per factor."""
    pieces = zip(system.first_col, system.widths, system.n_levels, strict=True)
    return [vector[at : at + k * levels].reshape(levels, k) for at, k, levels in pieces]


def blocks_of(system: System, lam: Array) -> list[Array]:
    """Return the factors' (k, k) blocks of Lambda."""
    return [lam[at : at + k * k].reshape(k, k) for at, k in zip(system.lam_at, system.widths, strict=True)]


def lambda_times(system: System, lam: Array, u: Array, *, transposed: bool = False) -> Array:
    """Return Lambda u, or Lambda'u."""
    if system.lam_size == 1:
        return np.asarray(lam[0] * u)
    b = np.empty_like(u)
    for own, mine, L in zip(by_factor(system, b), by_factor(system, u), blocks_of(system, lam), strict=True):
        own[...] = mine @ (L if transposed else L.T)
    return b


def outer_blocks(system: System, left: Array, right: Array) -> Array:
    """Return sum_j left_j right_j' of each factor's levels, flat as Lambda: the adjoint of Lambda in left'Lambda right."""
    found = np.zeros(system.lam_size)
    for at, k, a, b in zip(system.lam_at, system.widths, by_factor(system, left), by_factor(system, right), strict=True):
        found[at : at + k * k] = (a.T @ b).ravel()
    return found


def _backward(system: System, work: Workspace, lam: Array, Fbar: Array, first_inner: int) -> None:
    """Fill `work.lambar` and `work.Mbar`, and `work.bar` for the levels from `first_inner` on."""
    work.lambar[:] = 0.0
    if system.q:
        pls.tail_adjoint(work.scratch.at, work.M, system.blocks, lam, work.tail, Fbar, work.Mbar, work.lambar)
    else:
        work.Mbar[...] = Fbar
    pls.adjoint(system.levels, work.store, work.scratch, first_inner, work.Mbar, work.bar, work.lambar)


def _times_lambda(system: System, lam: Array, columns: Array, *, transposed: bool = False) -> Array:
    """Return L (or L') times dense random columns (q, m)."""
    result = np.empty_like(columns)
    for f in system.order[system.n_sparse_factors :]:
        k, at = system.widths[f], system.first_col[f] - system.levels.first_tail
        block = slice(at, at + k * system.n_levels[f])
        L = lam[system.lam_at[f] : system.lam_at[f] + k * k].reshape(k, k)
        L = L.T if transposed else L
        result[block] = (L @ columns[block].reshape(-1, k, columns.shape[1])).reshape(-1, columns.shape[1])
    return result


def solve(system: System, work: Workspace, lam: Array) -> Solution:
    """Return estimates, conditional modes and conditional variances (over sigma^2; beta held fixed) at one Lambda.

    The variances are the diagonal blocks of L (L'Z'WZL + I)^-1 L', read off the adjoint of log|I + L'Z'WZL|.
    """
    ld_l2, F = _forward(system, work, lam)
    q, p = system.q, system.p
    ld_rx2, pwrss = pls.finish(F, 1.0, False, work.R, work.beta, work.Fbar)
    v = np.append(-work.beta, 1.0)
    z = np.zeros(system.n_columns + p + 1)
    z[system.n_columns :] = v
    if q:
        z[system.levels.first_tail : system.n_columns] = -_times_lambda(system, lam, (work.tail.B @ v)[:, None])[:, 0]
    pls.back_substitute(system.levels, work.store, work.scratch, z)
    beta = work.beta.copy()
    _backward(system, work, lam, np.zeros((p + 1, p + 1)), 0)
    P = np.triu(F[:p, :p])
    return Solution(
        ld_l2=ld_l2,
        ld_rx2=ld_rx2,
        pwrss=pwrss,
        beta=beta,
        P=P + np.triu(P, 1).T,
        b=tuple(
            -z[at : at + k * levels].reshape(levels, k)
            for at, k, levels in zip(system.first_col, system.widths, system.n_levels, strict=True)
        ),
        variance=variances(system, work),
    )


def variances(system: System, work: Workspace) -> tuple[Array, ...]:
    """Return the levels' blocks (J, k, k) of Lambda S^-1 Lambda' by factor, from the adjoint of log|S| in `work`."""
    return tuple(_variance(system, work, f) for f in range(len(system.widths)))


def _variance(system: System, work: Workspace, f: int) -> Array:
    k, levels = system.widths[f], system.n_levels[f]
    position = system.order.index(f)
    if position < system.n_sparse_factors:
        row = sum(system.n_levels[g] for g in system.order[:position])
        size = system.levels.d_at[row + np.arange(levels)][:, None] + np.arange(k * k)
        upper = work.bar[size].reshape(levels, k, k)
    else:
        at = system.first_col[f] - system.levels.first_tail + k * np.arange(levels)
        rows = at[:, None] + np.arange(k)
        upper = work.Mbar[rows[:, :, None], rows[:, None, :]]
    upper = np.triu(upper)
    return upper + np.swapaxes(np.triu(upper, 1), 1, 2)
