"""Kernels of penalised least squares: the profiled criterion of a linear mixed model and its exact gradient.

Notation (Bates, Maechler, Bolker & Walker 2015, J. Stat. Softw. 67(1)): b = Lambda u, u ~ N(0, sigma^2 I). All of the data that
the criterion needs is A = [Z X y]'[Z X y] (weights already in). The columns of Z are eliminated a level at a time:

    S = I + L'DL = CC',   H = L S^-1 L',   A' = A_rr - V H V',   logdet += log|S|,

where D (k, k) is the level's diagonal block, L (k, k) its lower-triangular factor in Lambda and V (m, k) its products with the m
later columns that occur together with it. What is left is F = [[P, r], [r', s]]: beta = P^-1 r and pwrss = s - r'P^-1 r. The
gradient runs the same recursion backwards on adjoints, with full symmetric matrices (df = tr(Abar' dA)):

    Hbar = -V'Abar V,   Dbar = H - H Hbar H,   Vbar = -Abar V H,   Lbar += 2 [(I - DH) Hbar + D] L S^-1,

which needs no inverse of L, and so holds on the boundary. Symmetric blocks are stored in their upper triangle.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from bayeslmm.linear import blas

__all__ = [
    "Blocks",
    "Levels",
    "Scratch",
    "Tail",
    "accumulate_dense",
    "accumulate_diagonal",
    "accumulate_pairs",
    "accumulate_tail",
    "accumulate_tail_dense",
    "adjoint",
    "back_substitute",
    "eliminate",
    "evaluate_sparse",
    "finish",
    "map_targets",
    "reduce_right",
    "small_cholesky",
    "solve_back",
    "solve_sparse",
    "tail_adjoint",
    "tail_factor",
    "tail_inverse",
    "tail_solve",
    "tail_system",
    "times_lambda",
]

type Array = np.ndarray


class Levels(NamedTuple):
    """The levels (rows, in elimination order) that are eliminated one by one.

    Per row: `k` columns; where its L starts in the flat Lambda (`lam_at`), its D (k, k) and V (m, k) in the store (`d_at`, `v_at`),
    its G and P (k, k) in the scratch (`g_at`); its own first column `first`. Its later columns, ascending, are
    `cols[col_at[r]:col_at[r + 1]]`; the first `n_sparse` belong to later rows: the pair (a, b) of these with any is at
    `where[map_at + a * m + b]` in the store. All others are columns `first_tail + j` of the dense matrix M. Rows from `wide` on meet
    so many of these, and no later row, that they are taken together by BLAS; the rows before these, from `spread` on, meet no later row
    either and are taken by dense columns: dense random column j is met by rows `row_of[met_at[j]:met_at[j + 1]]`, in which it is the
    later column in `place_of`, so that M is gone through once, row by row.
    """

    k: Array
    lam_at: Array
    d_at: Array
    v_at: Array
    g_at: Array
    first: Array
    col_at: Array
    cols: Array
    n_sparse: Array
    map_at: Array
    where: Array
    first_tail: int
    wide: int
    spread: int
    met_at: Array
    row_of: Array
    place_of: Array


class Blocks(NamedTuple):
    """The levels whose columns are kept dense: first column, number of columns, and where L starts in the flat Lambda."""

    at: Array
    k: Array
    lam_at: Array


class Scratch(NamedTuple):
    """Per row G = C^-1 L' and P = S^-1 L' (flat), and working space: W (m, k), four matrices (4, k, k).

    `stack` (2, c, columns of M): the columns of some of the wide rows at once, c at least k; `all`: VG' or Y of the spread rows, laid out
    as the store; `at`: the routines of `blas`.
    """

    G: Array
    P: Array
    W: Array
    small: Array
    stack: Array
    all: Array
    at: Array


class Tail(NamedTuple):
    """Working space of the q dense columns: S and B = L'M_tx (q, p + 1), N' and (M N)' (p + 1, q), the bands of L (k, q), U (k, q).

    Entry (d, j) of the bands is that of L in column j's block, in its row and d columns to the left of its diagonal: see `bands`.
    """

    S: Array
    B: Array
    N: Array
    MN: Array
    bands: Array
    U: Array


# -------------------------------------------------------------------------------------------------------------------- forward


@njit(cache=True)
def _factor(k: int, lam: Array, lo: int, store: Array, d: int, scratch: Scratch, g: int) -> float:
    """Return log|S| of one level, and write G = C^-1 L' and P = S^-1 L' (k, k) at `g`."""
    if k == 1:
        s = 1.0 + lam[lo] * lam[lo] * store[d]
        scratch.G[g] = lam[lo] / math.sqrt(s)
        scratch.P[g] = lam[lo] / s
        return math.log(s)
    C = scratch.small[0]
    _small_system(k, lam, lo, store, d, scratch.small[1], C)
    logdet = small_cholesky(k, C)
    for j in range(k):
        _small_solve(k, lam, lo, j, C, scratch.G, scratch.P, g)
    return logdet


@njit(cache=True)
def _small_system(k: int, lam: Array, lo: int, store: Array, d: int, T: Array, S: Array) -> None:
    """Write the lower triangle of S = I + L'DL (k, k); T = DL is scratch."""
    for i in range(k):
        for j in range(k):
            total = 0.0
            for a in range(j, k):
                total += store[d + min(i, a) * k + max(i, a)] * lam[lo + a * k + j]
            T[i, j] = total
    for i in range(k):
        for j in range(i + 1):
            total = 1.0 if i == j else 0.0
            for a in range(i, k):
                total += lam[lo + a * k + i] * T[a, j]
            S[i, j] = total


@njit(cache=True)
def small_cholesky(k: int, C: Array) -> float:
    """Factor the lower triangle of C in place, S = CC'; return log|S|. All is NaN where S is not positive definite."""
    logdet = 0.0
    for j in range(k):
        for i in range(j, k):
            total = C[i, j]
            for a in range(j):
                total -= C[i, a] * C[j, a]
            if i > j:
                C[i, j] = total / C[j, j]
            else:
                C[i, i] = math.sqrt(total) if total > 0.0 else math.nan
        logdet += 2.0 * math.log(C[j, j])
    return logdet


@njit(cache=True)
def _small_solve(k: int, lam: Array, lo: int, j: int, C: Array, G: Array, P: Array, g: int) -> None:
    """Write column j of G = C^-1 L' and of P = C'^-1 G."""
    for i in range(k):
        total = lam[lo + j * k + i] if j >= i else 0.0
        for a in range(i):
            total -= C[i, a] * G[g + a * k + j]
        G[g + i * k + j] = total / C[i, i]
    for i in range(k - 1, -1, -1):
        total = G[g + i * k + j]
        for a in range(i + 1, k):
            total -= C[a, i] * P[g + a * k + j]
        P[g + i * k + j] = total / C[i, i]


@njit(cache=True)
def _times_factor(k: int, m: int, G: Array, g: int, store: Array, v: int, W: Array) -> None:
    """Write W = V G' (m, k), so that V H V' = W W'."""
    for a in range(m):
        for i in range(k):
            total = 0.0
            for j in range(k):
                total += G[g + i * k + j] * store[v + a * k + j]
            W[a, i] = total


@njit(cache=True)
def _dot(k: int, W: Array, a: int, b: int) -> float:
    total = 0.0
    for i in range(k):
        total += W[a, i] * W[b, i]
    return total


@njit(cache=True)
def eliminate(levels: Levels, lam: Array, store: Array, M: Array, scratch: Scratch) -> float:
    """Eliminate all rows in order: `store` and the dense `M` become A' = A_rr - WW'; return sum log|S|."""
    logdet = 0.0
    W = scratch.W
    for r in range(levels.spread):
        k, v, g, c = levels.k[r], levels.v_at[r], levels.g_at[r], levels.col_at[r]
        m = levels.col_at[r + 1] - c
        logdet += _factor(k, lam, levels.lam_at[r], store, levels.d_at[r], scratch, g)
        _times_factor(k, m, scratch.G, g, store, v, W)
        for a in range(levels.n_sparse[r]):
            at = levels.map_at[r] + a * m
            for b in range(a, m):
                store[levels.where[at + b]] -= _dot(k, W, a, b)
        for a in range(levels.n_sparse[r], m):
            row = levels.cols[c + a] - levels.first_tail
            for b in range(a, m):
                M[row, levels.cols[c + b] - levels.first_tail] -= _dot(k, W, a, b)
    if levels.spread < levels.wide:
        logdet += _eliminate_spread(levels, lam, store, M, scratch)
    if levels.wide < levels.k.size:
        logdet += _eliminate_wide(levels, lam, store, M, scratch)
    return logdet


@njit(cache=True)
def _eliminate_spread(levels: Levels, lam: Array, store: Array, M: Array, scratch: Scratch) -> float:
    """Eliminate the spread rows: first W = V G' of all, then W W' a row of M at a time."""
    logdet, W = 0.0, scratch.all
    for r in range(levels.spread, levels.wide):
        k, v, g = levels.k[r], levels.v_at[r], levels.g_at[r]
        logdet += _factor(k, lam, levels.lam_at[r], store, levels.d_at[r], scratch, g)
        for a in range(levels.col_at[r + 1] - levels.col_at[r]):
            for i in range(k):
                W[v + a * k + i] = 0.0
                for j in range(k):
                    W[v + a * k + i] += scratch.G[g + i * k + j] * store[v + a * k + j]
    q = levels.met_at.size - 1
    for j in range(q):
        for at in range(levels.met_at[j], levels.met_at[j + 1]):
            _subtract_outer(levels, levels.row_of[at], levels.place_of[at], W, M[j])
    for r in range(levels.spread, levels.wide):
        m = levels.col_at[r + 1] - levels.col_at[r]
        for a in range(q - M.shape[0] + m, m):
            _subtract_outer(levels, r, a, W, M[levels.cols[levels.col_at[r] + a] - levels.first_tail])
    return logdet


@njit(cache=True)
def _subtract_outer(levels: Levels, r: int, a: int, W: Array, row: Array) -> None:
    """Subtract W_a W_b' of later columns b >= a of row r from the row of M that is column a's."""
    k, v, c = levels.k[r], levels.v_at[r], levels.col_at[r]
    for i in range(k):
        own = W[v + a * k + i]
        for b in range(a, levels.col_at[r + 1] - c):
            row[levels.cols[c + b] - levels.first_tail] -= own * W[v + b * k + i]


@njit(cache=True)
def _eliminate_wide(levels: Levels, lam: Array, store: Array, M: Array, scratch: Scratch) -> float:
    """Eliminate the wide rows, as many at once as the stack holds."""
    logdet, k, W = 0.0, levels.k[levels.wide], scratch.stack[0]
    step = W.shape[0] // k
    for start in range(levels.wide, levels.k.size, step):
        stop = min(start + step, levels.k.size)
        W[: (stop - start) * k] = 0.0
        for r in range(start, stop):
            v, g, c, own = levels.v_at[r], levels.g_at[r], levels.col_at[r], (r - start) * k
            logdet += _factor(k, lam, levels.lam_at[r], store, levels.d_at[r], scratch, g)
            for a in range(levels.col_at[r + 1] - c):
                column = levels.cols[c + a] - levels.first_tail
                for i in range(k):
                    total = 0.0
                    for j in range(k):
                        total += scratch.G[g + i * k + j] * store[v + a * k + j]
                    W[own + i, column] = total
        blas.rank_k(scratch.at, -1.0, W, (stop - start) * k, M)
    return logdet


@njit(cache=True)
def finish(F: Array, df: float, reml: bool, R: Array, beta: Array, Fbar: Array) -> tuple[float, float]:
    """Solve F = [[P, r], [r', s]] (upper triangle, p + 1): write beta = P^-1 r and the adjoint of F; return (log|P|, pwrss).

    The criterion's part here is df log(pwrss) [+ log|P| for REML]: Fbar = df/pwrss vv' [+ P^-1], v = [-beta; 1]. R (p, p): scratch.
    A pwrss that is not positive (all rounding) is returned as NaN.
    """
    p = F.shape[0] - 1
    for i in range(p):
        for j in range(i + 1):
            R[i, j] = F[j, i]
        beta[i] = F[i, p]
    logdet = small_cholesky(p, R)
    _half_solve(p, R, beta)
    pwrss = F[p, p]
    for i in range(p):
        pwrss -= beta[i] * beta[i]
    if not pwrss > 0.0:
        pwrss = math.nan
    _back_solve(p, R, beta)
    v = np.ones(p + 1)
    v[:p] = -beta
    for i in range(p + 1):
        for j in range(p + 1):
            Fbar[i, j] = df / pwrss * v[i] * v[j]
    if reml:
        for j in range(p):
            v[:p] = 0.0
            v[j] = 1.0
            _half_solve(p, R, v)
            _back_solve(p, R, v)
            for i in range(p):
                Fbar[i, j] += v[i]
    return logdet, pwrss


@njit(cache=True)
def _half_solve(p: int, R: Array, x: Array) -> None:
    """Solve R x = x in place, R lower-triangular (p, p)."""
    for i in range(p):
        total = x[i]
        for a in range(i):
            total -= R[i, a] * x[a]
        x[i] = total / R[i, i]


@njit(cache=True)
def _back_solve(p: int, R: Array, x: Array) -> None:
    """Solve R'x = x in place, R lower-triangular (p, p)."""
    for i in range(p - 1, -1, -1):
        total = x[i]
        for a in range(i + 1, p):
            total -= R[a, i] * x[a]
        x[i] = total / R[i, i]


# ------------------------------------------------------------------------------------------------------------------- backward


@njit(cache=True)
def _gather(levels: Levels, r: int, store: Array, bar: Array, Mbar: Array, Y: Array) -> None:
    """Write Y = Abar V (m, k) of row r, Abar being the adjoint at the pairs of its later columns."""
    k, v, c = levels.k[r], levels.v_at[r], levels.col_at[r]
    m = levels.col_at[r + 1] - c
    Y[:m, :k] = 0.0
    for a in range(m):
        sparse = a < levels.n_sparse[r]
        at = levels.map_at[r] + a * m
        row = levels.cols[c + a] - levels.first_tail
        for b in range(a, m):
            value = bar[levels.where[at + b]] if sparse else Mbar[row, levels.cols[c + b] - levels.first_tail]
            for i in range(k):
                Y[a, i] += value * store[v + b * k + i]
            if b > a:
                for i in range(k):
                    Y[b, i] += value * store[v + a * k + i]


@njit(cache=True)
def _quadratics(k: int, m: int, G: Array, g: int, store: Array, v: int, Y: Array, small: Array) -> None:
    """Write H = G'G, Hbar = -V'Y and H Hbar (k, k) into small[0], small[1], small[2]."""
    H, Hbar, product = small[0], small[1], small[2]
    for i in range(k):
        for j in range(k):
            total = 0.0
            for a in range(k):
                total += G[g + a * k + i] * G[g + a * k + j]
            H[i, j] = total
            total = 0.0
            for a in range(m):
                total -= store[v + a * k + i] * Y[a, j]
            Hbar[i, j] = total
    for i in range(k):
        for j in range(k):
            total = 0.0
            for a in range(k):
                total += H[i, a] * Hbar[a, j]
            product[i, j] = total


@njit(cache=True)
def _add_factor_adjoint(k: int, P: Array, g: int, store: Array, d: int, small: Array, lambar: Array, lo: int) -> None:
    """Add 2 [(I - DH) Hbar + D] L S^-1 to `lambar`; H Hbar and Hbar are in small[2], small[1]; small[3] is scratch."""
    E = small[3]
    for i in range(k):
        for j in range(k):
            total = small[1, i, j] + store[d + min(i, j) * k + max(i, j)]
            for a in range(k):
                total -= store[d + min(i, a) * k + max(i, a)] * small[2, a, j]
            E[i, j] = total
    for i in range(k):
        for j in range(k):
            total = 0.0
            for a in range(k):
                total += E[i, a] * P[g + j * k + a]
            lambar[lo + i * k + j] += 2.0 * total


@njit(cache=True)
def _block_adjoint(k: int, m: int, d: int, v: int, Y: Array, small: Array, bar: Array) -> None:
    """Write Dbar = H - H Hbar H (upper triangle) and Vbar = -Y H into `bar`."""
    H, product = small[0], small[2]
    for i in range(k):
        for j in range(i, k):
            total = H[i, j]
            for a in range(k):
                total -= 0.5 * (product[i, a] * H[a, j] + product[j, a] * H[a, i])
            bar[d + i * k + j] = total
    for a in range(m):
        for i in range(k):
            total = 0.0
            for j in range(k):
                total -= Y[a, j] * H[j, i]
            bar[v + a * k + i] = total


@njit(cache=True)
def adjoint(levels: Levels, store: Array, scratch: Scratch, first_inner: int, Mbar: Array, bar: Array, lambar: Array) -> None:
    """Run the elimination backwards: from the adjoint `Mbar` of the dense part, add the adjoint of every L to `lambar`.

    `bar` has the layout of `store` and receives Dbar and Vbar of the rows from `first_inner` on: the first factor's are needed by
    nobody, except that Dbar with Fbar = 0 is L S_full^-1 L', the conditional variance over sigma^2 (`first_inner` = 0).
    """
    if levels.wide < levels.k.size:
        _wide_adjoint(levels, store, scratch, first_inner, Mbar, bar, lambar)
    if levels.spread < levels.wide:
        _spread_adjoint(levels, store, scratch, first_inner, Mbar, bar, lambar)
    for r in range(levels.spread - 1, -1, -1):
        _gather(levels, r, store, bar, Mbar, scratch.W)
        _row_adjoint(levels, r, store, scratch, first_inner, bar, lambar)


@njit(cache=True)
def _row_adjoint(levels: Levels, r: int, store: Array, scratch: Scratch, first_inner: int, bar: Array, lambar: Array) -> None:
    """Add the adjoint of one row's L, and write those of its D and V where wanted; Y = Abar V is in `scratch.W`."""
    Y, small = scratch.W, scratch.small
    k, d, v, g = levels.k[r], levels.d_at[r], levels.v_at[r], levels.g_at[r]
    m = levels.col_at[r + 1] - levels.col_at[r]
    _quadratics(k, m, scratch.G, g, store, v, Y, small)
    _add_factor_adjoint(k, scratch.P, g, store, d, small, lambar, levels.lam_at[r])
    if r >= first_inner:
        _block_adjoint(k, m, d, v, Y, small, bar)


@njit(cache=True)
def _spread_adjoint(levels: Levels, store: Array, scratch: Scratch, first_inner: int, Mbar: Array, bar: Array, lambar: Array) -> None:
    """Do what `adjoint` does for the spread rows, Mbar a row at a time."""
    Y, q = scratch.all, levels.met_at.size - 1
    Y[:] = 0.0
    for j in range(q):
        for at in range(levels.met_at[j], levels.met_at[j + 1]):
            _add_products(levels, levels.row_of[at], levels.place_of[at], store, Mbar[j], Y)
    for r in range(levels.wide - 1, levels.spread - 1, -1):
        k, v = levels.k[r], levels.v_at[r]
        m = levels.col_at[r + 1] - levels.col_at[r]
        for a in range(q - Mbar.shape[0] + m, m):
            _add_products(levels, r, a, store, Mbar[levels.cols[levels.col_at[r] + a] - levels.first_tail], Y)
        for a in range(m):
            for i in range(k):
                scratch.W[a, i] = Y[v + a * k + i]
        _row_adjoint(levels, r, store, scratch, first_inner, bar, lambar)


@njit(cache=True)
def _add_products(levels: Levels, r: int, a: int, store: Array, row: Array, Y: Array) -> None:
    """Add Abar V of later column a of row r with those from it on; `row` of the adjoint is column a's."""
    k, v, c = levels.k[r], levels.v_at[r], levels.col_at[r]
    first = v + a * k
    if k == 1:
        own = store[first]
        total = row[levels.cols[c + a] - levels.first_tail] * own
        for b in range(a + 1, levels.col_at[r + 1] - c):
            value = row[levels.cols[c + b] - levels.first_tail]
            total += value * store[v + b]
            Y[v + b] += value * own
        Y[first] += total
        return
    for b in range(a, levels.col_at[r + 1] - c):
        value = row[levels.cols[c + b] - levels.first_tail]
        for i in range(k):
            Y[first + i] += value * store[v + b * k + i]
        if b > a:
            for i in range(k):
                Y[v + b * k + i] += value * store[first + i]


@njit(cache=True)
def _wide_adjoint(levels: Levels, store: Array, scratch: Scratch, first_inner: int, Mbar: Array, bar: Array, lambar: Array) -> None:
    """Do what `adjoint` does for the wide rows, as many at once as the stack holds."""
    k, V, Y = levels.k[levels.wide], scratch.stack[0], scratch.stack[1]
    step = V.shape[0] // k
    for start in range(levels.wide, levels.k.size, step):
        stop = min(start + step, levels.k.size)
        V[: (stop - start) * k] = 0.0
        for r in range(start, stop):
            v, c, own = levels.v_at[r], levels.col_at[r], (r - start) * k
            for a in range(levels.col_at[r + 1] - c):
                for i in range(k):
                    V[own + i, levels.cols[c + a] - levels.first_tail] = store[v + a * k + i]
        blas.symmetric_product(scratch.at, V, (stop - start) * k, Mbar.shape[0], Mbar, Y)
        for r in range(start, stop):
            c, own = levels.col_at[r], (r - start) * k
            for a in range(levels.col_at[r + 1] - c):
                for i in range(k):
                    scratch.W[a, i] = Y[own + i, levels.cols[c + a] - levels.first_tail]
            _row_adjoint(levels, r, store, scratch, first_inner, bar, lambar)


@njit(cache=True)
def evaluate_sparse(
    levels: Levels,
    lam: Array,
    base: Array,
    base_M: Array,
    first_inner: int,
    store_from: int,
    df: float,
    reml: bool,
    store: Array,
    M: Array,
    scratch: Scratch,
    R: Array,
    beta: Array,
    Fbar: Array,
    bar: Array,
    lambar: Array,
) -> tuple[float, float, float]:
    """Return (logdet, log|P|, pwrss) of a model without dense columns, and fill `lambar`, in one call.

    `base`, `base_M`: the products of the data; `store` from `store_from` on and `M` are overwritten (see `eliminate`, `finish`).
    """
    store[store_from:] = base[store_from:]
    M[:] = base_M
    logdet = eliminate(levels, lam, store, M, scratch)
    logdet_x, pwrss = finish(M, df, reml, R, beta, Fbar)
    lambar[:] = 0.0
    adjoint(levels, store, scratch, first_inner, Fbar, bar, lambar)
    return logdet, logdet_x, pwrss


# ----------------------------------------------------------------------------------------------------------------- dense part


@njit(cache=True)
def _fill_bands(blocks: Blocks, lam: Array, bands: Array) -> None:
    """Write entry (d, j): of L in the row of dense column j, d columns before its diagonal; 0 outside of its block."""
    bands[:] = 0.0
    for block in range(blocks.at.size):
        at, k, lo = blocks.at[block], blocks.k[block], blocks.lam_at[block]
        for i in range(k):
            for d in range(i + 1):
                bands[d, at + i] = lam[lo + i * k + i - d]


@njit(cache=True)
def _mirror(A: Array, q: int) -> None:
    """Copy the upper triangle of the first q rows and columns to the lower one, in squares that fit the cache."""
    size = 32
    for top in range(0, q, size):
        for left in range(top, q, size):
            for i in range(top, min(top + size, q)):
                for j in range(max(left, i + 1), min(left + size, q)):
                    A[j, i] = A[i, j]


@njit(cache=True)
def tail_system(M: Array, q: int, blocks: Blocks, lam: Array, tail: Tail) -> None:
    """Write S = I + L'ML (q, q; upper), B = L'M_tx (q, p + 1) and the bands of L, block-diagonal over `blocks`."""
    S, B, bands = tail.S, tail.B, tail.bands
    _fill_bands(blocks, lam, bands)
    for block in range(blocks.at.size):
        at, k, lo = blocks.at[block], blocks.k[block], blocks.lam_at[block]
        for i in range(at + 1, at + k):
            for j in range(at, i):
                M[i, j] = M[j, i]
        for e in range(k):
            for c in range(B.shape[1]):
                total = 0.0
                for a in range(e, k):
                    total += lam[lo + a * k + e] * M[at + a, q + c]
                B[at + e, c] = total
            row = S[at + e]
            row[at:] = 0.0
            for a in range(e, k):
                factor = lam[lo + a * k + e]
                for d in range(bands.shape[0]):
                    for j in range(at, q - d):
                        row[j] += factor * M[at + a, j + d] * bands[d, j + d]
            row[at + e] += 1.0


@njit(cache=True)
def tail_factor(at: Array, tail: Tail) -> float:
    """Overwrite S by its factor R, S = R'R; return log|S|, NaN where S is not positive definite."""
    S = tail.S
    for i in range(S.shape[0]):
        if not math.isfinite(S[i, i]):
            return math.nan
    if blas.cholesky(at, S) != 0:
        return math.nan
    logdet = 0.0
    for i in range(S.shape[0]):
        logdet += 2.0 * math.log(S[i, i])
    return logdet


@njit(cache=True)
def tail_solve(at: Array, M: Array, tail: Tail, F: Array) -> None:
    """Overwrite B by Z1 = S^-1 B and write F = M_xx - B'Z1 (upper triangle), S factored."""
    B, q = tail.B, tail.S.shape[0]
    blas.solve_triangle(at, tail.S, True, B)
    for i in range(F.shape[0]):
        for j in range(i, F.shape[0]):
            F[i, j] = M[q + i, q + j]
    for a in range(q):
        for i in range(F.shape[0]):
            for j in range(i, F.shape[0]):
                F[i, j] -= B[a, i] * B[a, j]
    blas.solve_triangle(at, tail.S, False, B)


@njit(cache=True)
def tail_inverse(at: Array, tail: Tail) -> None:
    """Overwrite the factor R of S by S^-1."""
    blas.invert(at, tail.S)


@njit(cache=True)
def times_lambda(blocks: Blocks, lam: Array, columns: Array, out: Array) -> None:
    """Write (Lambda times dense random columns)' (m, q), of columns (q, m)."""
    for block in range(blocks.at.size):
        at, k, lo = blocks.at[block], blocks.k[block], blocks.lam_at[block]
        for i in range(k):
            for c in range(columns.shape[1]):
                total = 0.0
                for j in range(i + 1):
                    total += lam[lo + i * k + j] * columns[at + j, c]
                out[c, at + i] = total


@njit(cache=True)
def tail_adjoint(at: Array, M: Array, blocks: Blocks, lam: Array, tail: Tail, Fbar: Array, Mbar: Array, lambar: Array) -> None:
    """Write the adjoint of the dense part and add to `lambar`; Z1 is in `tail.B` and C = S^-1 in `tail.S`.

    N = L Z1. Mbar_tt = L C L' + N Fbar N' (upper triangle), Mbar_tx = -N Fbar, Mbar_xx = Fbar; Lbar += 2 diagonal blocks of
    [M L C - (M_tx - M N) Fbar Z1'].
    """
    N, MN = tail.N, tail.MN
    q, n_x = tail.B.shape
    times_lambda(blocks, lam, tail.B, N)
    blas.symmetric_product(at, N, n_x, q, M, MN)
    NF = Fbar @ N
    Mbar[q:, q:] = Fbar
    for i in range(q):
        row = Mbar[i]
        row[i:q] = 0.0
        for c in range(n_x):
            factor = NF[c, i]
            row[q + c] = -factor
            for j in range(i, q):
                row[j] += factor * N[c, j]
    if tail.bands.shape[0] == 1:
        _scalar_part(M, blocks, tail, Mbar, lambar)
    else:
        _mirror(M, q)
        _mirror(tail.S, q)
        _block_part(M, blocks, lam, tail, Mbar, lambar)
    for block in range(blocks.at.size):
        first, k, lo = blocks.at[block], blocks.k[block], blocks.lam_at[block]
        for i in range(k):
            for c in range(n_x):
                factor = 0.0
                for other in range(n_x):
                    factor += (M[first + i, q + other] - MN[other, first + i]) * Fbar[other, c]
                for e in range(k):
                    lambar[lo + i * k + e] -= 2.0 * factor * tail.B[first + e, c]


@njit(cache=True)
def _scalar_part(M: Array, blocks: Blocks, tail: Tail, Mbar: Array, lambar: Array) -> None:
    """Do what `_block_part` does where all blocks are of one column, from upper triangles."""
    C, scale, total = tail.S, tail.bands[0], tail.U[0]
    q = C.shape[0]
    total[:] = 0.0
    for i in range(q):
        Mbar[i, i] += scale[i] * C[i, i] * scale[i]
        own = M[i, i] * C[i, i] * scale[i]
        for j in range(i + 1, q):
            value = C[i, j]
            Mbar[i, j] += scale[i] * value * scale[j]
            total[j] += M[i, j] * value * scale[i]
        total[i] += own + _triple(M[i, i + 1 : q], C[i, i + 1 :], scale[i + 1 :])
    for block in range(q):
        lambar[blocks.lam_at[block]] += 2.0 * total[blocks.at[block]]


@njit(cache=True)
def _block_part(M: Array, blocks: Blocks, lam: Array, tail: Tail, Mbar: Array, lambar: Array) -> None:
    """Add L C L' to Mbar (upper triangle) and the diagonal blocks of 2 M L C to `lambar`; M_tt and C with both triangles."""
    C, bands, U = tail.S, tail.bands, tail.U
    q = C.shape[0]
    for block in range(blocks.at.size):
        first, k, lo = blocks.at[block], blocks.k[block], blocks.lam_at[block]
        for e in range(k):
            _times_bands(C[first + e], bands, U[e])
        for i in range(k):
            row = Mbar[first + i]
            for e in range(i + 1):
                factor = lam[lo + i * k + e]
                for j in range(first + i, q):
                    row[j] += factor * U[e, j]
            for e in range(k):
                lambar[lo + i * k + e] += 2.0 * _inner(M[first + i, :q], U[e])


@njit(cache=True, fastmath={"reassoc"})
def _triple(x: Array, y: Array, z: Array) -> float:
    total = 0.0
    for j in range(x.size):
        total += x[j] * y[j] * z[j]
    return total


@njit(cache=True)
def _times_bands(row: Array, bands: Array, out: Array) -> None:
    """Write a row (q,) times L'."""
    for j in range(row.size):
        out[j] = row[j] * bands[0, j]
    for d in range(1, bands.shape[0]):
        for j in range(d, row.size):
            out[j] += row[j - d] * bands[d, j]


@njit(cache=True, fastmath={"reassoc"})
def _inner(x: Array, y: Array) -> float:
    total = 0.0
    for j in range(x.size):
        total += x[j] * y[j]
    return total


# ------------------------------------------------------------------------------------------------------------ random effects


@njit(cache=True)
def back_substitute(levels: Levels, store: Array, scratch: Scratch, z: Array) -> None:
    """Write -b of the rows into z, whose entries of later columns are -b, -beta and (last) 1: b = H V'z."""
    G = scratch.G
    for r in range(levels.k.size - 1, -1, -1):
        k, v, g, c = levels.k[r], levels.v_at[r], levels.g_at[r], levels.col_at[r]
        s = np.zeros(k)
        for a in range(levels.col_at[r + 1] - c):
            s += store[v + a * k : v + (a + 1) * k] * z[levels.cols[c + a]]
        half = np.zeros(k)
        for a in range(k):
            for j in range(k):
                half[a] += G[g + a * k + j] * s[j]
        for i in range(k):
            b = 0.0
            for a in range(k):
                b += G[g + a * k + i] * half[a]
            z[levels.first[r] + i] = -b


@njit(cache=True)
def reduce_right(levels: Levels, store: Array, scratch: Scratch, r: Array) -> None:
    """Eliminate the rows from a right-hand side r (n_columns + 1) of the system, in place: of later columns r - V H r_row is left."""
    G = scratch.G
    half, s = np.zeros(scratch.W.shape[1]), np.zeros(scratch.W.shape[1])
    for row in range(levels.k.size):
        k, v, g, c = levels.k[row], levels.v_at[row], levels.g_at[row], levels.col_at[row]
        own = levels.first[row]
        for a in range(k):
            half[a] = 0.0
            for j in range(k):
                half[a] += G[g + a * k + j] * r[own + j]
        for i in range(k):
            s[i] = 0.0
            for a in range(k):
                s[i] += G[g + a * k + i] * half[a]
        for a in range(levels.col_at[row + 1] - c):
            for i in range(k):
                r[levels.cols[c + a]] -= store[v + a * k + i] * s[i]


@njit(cache=True)
def solve_sparse(levels: Levels, store: Array, scratch: Scratch, r: Array, b: Array, u: Array) -> None:
    """Write b = L S^-1 L'r and u = S^-1 L'r of a model without dense columns; r is overwritten."""
    reduce_right(levels, store, scratch, r)
    solve_back(levels, store, scratch, r, b, u)


@njit(cache=True)
def solve_back(levels: Levels, store: Array, scratch: Scratch, r: Array, b: Array, u: Array) -> None:
    """Write b = L S^-1 L'r and u = S^-1 L'r of the rows, from r reduced by `reduce_right` and b of the dense columns."""
    G, P = scratch.G, scratch.P
    half, s = np.zeros(scratch.W.shape[1]), np.zeros(scratch.W.shape[1])
    for row in range(levels.k.size - 1, -1, -1):
        k, v, g, c = levels.k[row], levels.v_at[row], levels.g_at[row], levels.col_at[row]
        own = levels.first[row]
        for i in range(k):
            s[i] = r[own + i]
        for a in range(levels.col_at[row + 1] - c):
            for i in range(k):
                s[i] -= store[v + a * k + i] * b[levels.cols[c + a]]
        for a in range(k):
            half[a] = 0.0
            u[own + a] = 0.0
            for j in range(k):
                half[a] += G[g + a * k + j] * s[j]
                u[own + a] += P[g + a * k + j] * s[j]
        for i in range(k):
            b[own + i] = 0.0
            for a in range(k):
                b[own + i] += G[g + a * k + i] * half[a]


# ------------------------------------------------------------------------------------------------------- products of the data


@njit(cache=True)
def accumulate_diagonal(store: Array, d_at: Array, row_of: Array, z: Array) -> None:
    """Add z_i z_i' of every observation to the diagonal block of its level (upper triangle)."""
    k = z.shape[1]
    for i in range(z.shape[0]):
        d = d_at[row_of[i]]
        for a in range(k):
            for b in range(a, k):
                store[d + a * k + b] += z[i, a] * z[i, b]


@njit(cache=True)
def accumulate_pairs(store: Array, at: Array, z: Array, other: Array) -> None:
    """Add the products of a level's columns `z` (n, k) with a later factor's `other` (n, h): V blocks start at `at` (n,)."""
    k = z.shape[1]
    for i in range(z.shape[0]):
        v = at[i]
        for a in range(other.shape[1]):
            for b in range(k):
                store[v + a * k + b] += other[i, a] * z[i, b]


@njit(cache=True)
def accumulate_dense(store: Array, at: Array, row_of: Array, z: Array, XY: Array) -> None:
    """Add the products with [X y] (n, p + 1); V's rows for it start at `at[row]`."""
    k = z.shape[1]
    for i in range(z.shape[0]):
        v = at[row_of[i]]
        for c in range(XY.shape[1]):
            for b in range(k):
                store[v + c * k + b] += XY[i, c] * z[i, b]


@njit(cache=True)
def accumulate_tail(M: Array, row_at: Array, z: Array, column_at: Array, other: Array) -> None:
    """Add z_i other_i' of every observation to M at (`row_at`, `column_at`), upper triangle only."""
    for i in range(z.shape[0]):
        for a in range(z.shape[1]):
            for b in range(other.shape[1]):
                row, column = row_at[i] + a, column_at[i] + b
                if row <= column:
                    M[row, column] += z[i, a] * other[i, b]


@njit(cache=True)
def accumulate_tail_dense(M: Array, row_at: Array, z: Array, q: int, XY: Array) -> None:
    """Add the products of dense random columns with [X y]."""
    for i in range(z.shape[0]):
        for a in range(z.shape[1]):
            for c in range(XY.shape[1]):
                M[row_at[i] + a, q + c] += z[i, a] * XY[i, c]


@njit(cache=True)
def map_targets(levels: Levels, row_of_col: Array) -> None:
    """Fill `levels.where`: the place in the store of every pair (a, b) of later columns whose first belongs to a row."""
    for r in range(levels.k.size):
        c = levels.col_at[r]
        m = levels.col_at[r + 1] - c
        for a in range(levels.n_sparse[r]):
            column = levels.cols[c + a]
            target = row_of_col[column]
            k = levels.k[target]
            effect = column - levels.first[target]
            position = levels.col_at[target]
            for b in range(a, m):
                other = levels.cols[c + b]
                if other < levels.first[target] + k:
                    place = levels.d_at[target] + effect * k + (other - levels.first[target])
                else:
                    while levels.cols[position] < other:
                        position += 1
                    place = levels.v_at[target] + (position - levels.col_at[target]) * k + effect
                levels.where[levels.map_at[r] + a * m + b] = place
