"""Kernels of penalised least squares: the profiled criterion of a linear mixed model and its exact gradient.

Notation (Bates, Maechler, Bolker & Walker 2015, J. Stat. Softw. 67(1)): b = Lambda u, u ~ N(0, sigma^2 I). All of the data that
the criterion needs is A = [Z X y]'[Z X y] (weights already in). The columns of Z are eliminated a level at a time:

    S = I + L'DL = CC',   H = L S^-1 L',   A' = A_rr - V H V',   logdet += log|S|,

where D (k, k) is the level's diagonal block, L (k, k) its factor of Lambda and V (m, k) its products with the m later columns that
occur together with it. What is left is F = [[P, r], [r', s]]: beta = P^-1 r and pwrss = s - r'P^-1 r. The gradient runs the same
recursion backwards on adjoints, with full symmetric matrices (df = tr(Abar' dA)):

    Hbar = -V'Abar V,   Dbar = H - H Hbar H,   Vbar = -Abar V H,   Lbar += 2 [(I - DH) Hbar + D] L S^-1,

which needs no inverse of L, and so holds on the boundary. Symmetric blocks are stored in their upper triangle.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

__all__ = [
    "accumulate_dense",
    "accumulate_diagonal",
    "accumulate_pairs",
    "accumulate_tail",
    "accumulate_tail_dense",
    "adjoint",
    "back_substitute",
    "eliminate",
    "finish",
    "map_targets",
    "one_factor",
    "tail_adjoint",
    "tail_system",
]


@njit(cache=True)
def _factor(k, lam, lo, store, d, G, P, g, C, T):
    """Return log|S| of one level, and write G = C^-1 L' and P = S^-1 L' (k, k) at `g`; C and T are scratch."""
    if k == 1:
        scale = lam[lo]
        s = 1.0 + scale * scale * store[d]
        G[g] = scale / math.sqrt(s)
        P[g] = scale / s
        return math.log(s)
    for i in range(k):
        for j in range(k):
            total = 0.0
            for a in range(j, k):
                total += store[d + min(i, a) * k + max(i, a)] * lam[lo + a * k + j]
            T[i, j] = total
    logdet = 0.0
    for j in range(k):
        for i in range(j, k):
            total = 1.0 if i == j else 0.0
            for a in range(i, k):
                total += lam[lo + a * k + i] * T[a, j]
            for a in range(j):
                total -= C[i, a] * C[j, a]
            if i == j:
                C[j, j] = math.sqrt(total)
                logdet += math.log(total)
            else:
                C[i, j] = total / C[j, j]
    for j in range(k):
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
    return logdet


@njit(cache=True)
def eliminate(k_row, lam_at, d_at, v_at, g_at, col_at, cols, n_sparse, map_at, where, first_tail, lam, store, M, G, P, W, C, T):
    """Eliminate all sparse levels in order; return sum log|S|.

    Per level (row) r: `k_row` its k, `lam_at` where its L starts in `lam`, `d_at`/`v_at` where D (k, k) and V (m, k) start in
    `store`, `g_at` where G, P (k, k) go, `cols[col_at[r]:col_at[r+1]]` its later columns, ascending. The first `n_sparse` of these
    belong to later sparse levels: `where[map_at + a*m + b]` is the place of the pair (a, b) in `store`. The others are columns
    `first_tail + j` of the dense matrix `M` (upper triangle). `store` and `M` are updated in place: A' = A_rr - (GV')'(GV').
    """
    logdet = 0.0
    for r in range(k_row.size):
        k = k_row[r]
        v = v_at[r]
        g = g_at[r]
        c = col_at[r]
        m = col_at[r + 1] - c
        logdet += _factor(k, lam, lam_at[r], store, d_at[r], G, P, g, C, T)
        for a in range(m):
            for i in range(k):
                total = 0.0
                for j in range(k):
                    total += G[g + i * k + j] * store[v + a * k + j]
                W[a, i] = total
        for a in range(m):
            if a < n_sparse[r]:
                at = map_at[r] + a * m
                for b in range(a, m):
                    total = 0.0
                    for i in range(k):
                        total += W[a, i] * W[b, i]
                    store[where[at + b]] -= total
            elif k == 1:
                row = cols[c + a] - first_tail
                left = W[a, 0]
                for b in range(a, m):
                    M[row, cols[c + b] - first_tail] -= left * W[b, 0]
            else:
                row = cols[c + a] - first_tail
                for b in range(a, m):
                    total = 0.0
                    for i in range(k):
                        total += W[a, i] * W[b, i]
                    M[row, cols[c + b] - first_tail] -= total
    return logdet


@njit(cache=True)
def finish(F, df, reml, R, beta, Fbar):
    """Solve F = [[P, r], [r', s]] (upper triangle, p + 1): write beta = P^-1 r and the adjoint of F; return (log|P|, pwrss).

    The criterion's part here is df log(pwrss) [+ log|P| for REML]: Fbar = df/pwrss vv' [+ P^-1], v = [-beta; 1]. R (p, p): scratch.
    """
    p = F.shape[0] - 1
    logdet = 0.0
    pwrss = F[p, p]
    for j in range(p):
        for i in range(j, p):
            total = F[j, i]
            for a in range(j):
                total -= R[i, a] * R[j, a]
            if i == j:
                R[j, j] = math.sqrt(total)
                logdet += math.log(total)
            else:
                R[i, j] = total / R[j, j]
    for i in range(p):
        total = F[i, p]
        for a in range(i):
            total -= R[i, a] * beta[a]
        beta[i] = total / R[i, i]
        pwrss -= beta[i] * beta[i]
    for i in range(p - 1, -1, -1):
        total = beta[i]
        for a in range(i + 1, p):
            total -= R[a, i] * beta[a]
        beta[i] = total / R[i, i]
    scale = df / pwrss
    for i in range(p + 1):
        left = 1.0 if i == p else -beta[i]
        for j in range(p + 1):
            right = 1.0 if j == p else -beta[j]
            Fbar[i, j] = scale * left * right
    if reml:
        _add_inverse(R, p, Fbar)
    return logdet, pwrss


@njit(cache=True)
def _add_inverse(R, p, Fbar):
    """Add (RR')^-1 to the leading (p, p) block of Fbar."""
    column = np.empty(p)
    for j in range(p):
        for i in range(p):
            total = 1.0 if i == j else 0.0
            for a in range(i):
                total -= R[i, a] * column[a]
            column[i] = total / R[i, i]
        for i in range(p - 1, -1, -1):
            total = column[i]
            for a in range(i + 1, p):
                total -= R[a, i] * column[a]
            column[i] = total / R[i, i]
        for i in range(p):
            Fbar[i, j] += column[i]


@njit(cache=True)
def adjoint(
    k_row, lam_at, d_at, v_at, g_at, col_at, cols, n_sparse, map_at, where, first_tail, lam, store, G, P, first_inner, Mbar, bar, lambar, Y, work
):
    """Run the elimination backwards: from the adjoint `Mbar` of the dense part to `lambar`, the adjoint of every L.

    `bar` has the layout of `store` and receives Dbar and Vbar of the levels from `first_inner` on (0: also those of the first
    factor, where Dbar with Fbar = 0 is L S_full^-1 L', the conditional variance over sigma^2). `Y` (m, k), `work` (5, k, k): scratch.
    """
    H, Hbar, HH, E, B = work[0], work[1], work[2], work[3], work[4]
    for r in range(k_row.size - 1, -1, -1):
        k = k_row[r]
        lo = lam_at[r]
        d = d_at[r]
        v = v_at[r]
        g = g_at[r]
        c = col_at[r]
        m = col_at[r + 1] - c
        for a in range(m):
            for i in range(k):
                Y[a, i] = 0.0
        for a in range(m):
            sparse = a < n_sparse[r]
            at = map_at[r] + a * m
            row = cols[c + a] - first_tail
            for b in range(a, m):
                value = bar[where[at + b]] if sparse else Mbar[row, cols[c + b] - first_tail]
                for i in range(k):
                    Y[a, i] += value * store[v + b * k + i]
                if b > a:
                    for i in range(k):
                        Y[b, i] += value * store[v + a * k + i]
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
                HH[i, j] = total
        # E = (I - DH) Hbar + D
        for i in range(k):
            for j in range(k):
                total = Hbar[i, j] + store[d + min(i, j) * k + max(i, j)]
                for a in range(k):
                    total -= store[d + min(i, a) * k + max(i, a)] * HH[a, j]
                E[i, j] = total
        for i in range(k):
            for j in range(k):
                total = 0.0
                for a in range(k):
                    total += E[i, a] * P[g + j * k + a]
                lambar[lo + i * k + j] += 2.0 * total
        if r < first_inner:
            continue
        for i in range(k):
            for j in range(k):
                total = H[i, j]
                for a in range(k):
                    total -= HH[i, a] * H[a, j]
                B[i, j] = total
        for i in range(k):
            for j in range(i, k):
                bar[d + i * k + j] = 0.5 * (B[i, j] + B[j, i])
        for a in range(m):
            for i in range(k):
                total = 0.0
                for j in range(k):
                    total -= Y[a, j] * H[j, i]
                bar[v + a * k + i] = total


@njit(cache=True)
def one_factor(
    k_row, lam_at, d_at, v_at, g_at, col_at, cols, n_sparse, map_at, where, first_tail, lam, base, base_M, first_inner, store_from, df, reml,
    store, M, G, P, W, C, T, R, beta, Fbar, bar, lambar, work,
):  # fmt: skip
    """Criterion's parts (logdet, log|P|, pwrss) and `lambar` of a model without dense columns, in one call (see `eliminate`, `finish`)."""
    store[store_from:] = base[store_from:]
    M[:] = base_M
    logdet = eliminate(k_row, lam_at, d_at, v_at, g_at, col_at, cols, n_sparse, map_at, where, first_tail, lam, store, M, G, P, W, C, T)
    logdet_x, pwrss = finish(M, df, reml, R, beta, Fbar)
    lambar[:] = 0.0
    adjoint(
        k_row, lam_at, d_at, v_at, g_at, col_at, cols, n_sparse, map_at, where, first_tail, lam, store, G, P, first_inner, Fbar, bar, lambar, W, work
    )
    return logdet, logdet_x, pwrss


@njit(cache=True)
def tail_system(M, q, block_at, block_k, block_lam, lam, S, B):
    """Write S = I + L'ML (q, q; upper) and B = L'M_tx (q, p + 1) of the dense columns, L block-diagonal over `block_*`."""
    n_x = M.shape[0] - q
    n_blocks = block_at.size
    for block in range(n_blocks):
        i0, ki, li = block_at[block], block_k[block], block_lam[block]
        for e in range(ki):
            for c in range(n_x):
                total = 0.0
                for a in range(e, ki):
                    total += lam[li + a * ki + e] * M[i0 + a, q + c]
                B[i0 + e, c] = total
        for other in range(block, n_blocks):
            j0, kj, lj = block_at[other], block_k[other], block_lam[other]
            if ki == 1 and kj == 1:
                S[i0, j0] = lam[li] * M[i0, j0] * lam[lj]
                continue
            for e in range(ki):
                for f in range(kj):
                    total = 0.0
                    for a in range(e, ki):
                        for b in range(f, kj):
                            total += lam[li + a * ki + e] * M[min(i0 + a, j0 + b), max(i0 + a, j0 + b)] * lam[lj + b * kj + f]
                    S[i0 + e, j0 + f] = total
    for i in range(q):
        S[i, i] += 1.0


@njit(cache=True)
def tail_adjoint(M, q, block_at, block_k, block_lam, lam, inverse, Z1, N, Fbar, Mbar, lambar, MN):
    """Write the adjoint of the dense part and add to `lambar`.

    inverse = S^-1 (q, q; upper), Z1 = S^-1 L'M_tx, N = L Z1 (both (q, p + 1)). Mbar_tt = L S^-1 L' + N Fbar N', Mbar_tx = -N Fbar,
    Mbar_xx = Fbar; Lbar = 2 diag-blocks of [M L S^-1 - (M_tx - MN) Fbar Z1'].
    """
    n_x = M.shape[0] - q
    n_blocks = block_at.size
    NF = N @ Fbar
    for i in range(q):
        for c in range(n_x):
            Mbar[i, q + c] = -NF[i, c]
            MN[i, c] = 0.0
    for i in range(n_x):
        for j in range(n_x):
            Mbar[q + i, q + j] = Fbar[i, j]
    for i in range(q):
        for j in range(i, q):
            total = 0.0
            for c in range(n_x):
                total += NF[i, c] * N[j, c]
                MN[i, c] += M[i, j] * N[j, c]
            Mbar[i, j] = total
            if j > i:
                for c in range(n_x):
                    MN[j, c] += M[i, j] * N[i, c]
    for block in range(n_blocks):
        i0, ki, li = block_at[block], block_k[block], block_lam[block]
        for other in range(block, n_blocks):
            j0, kj, lj = block_at[other], block_k[other], block_lam[other]
            if ki == 1 and kj == 1:
                value = inverse[i0, j0]
                Mbar[i0, j0] += lam[li] * value * lam[lj]
                value *= 2.0 * M[i0, j0]
                lambar[li] += lam[lj] * value
                if other > block:
                    lambar[lj] += lam[li] * value
                continue
            _tail_pair(M, i0, ki, li, j0, kj, lj, lam, inverse, Mbar, lambar)
    Q = (M[:q, q:] - MN) @ Fbar
    for block in range(n_blocks):
        i0, ki, li = block_at[block], block_k[block], block_lam[block]
        for a in range(ki):
            for e in range(ki):
                total = 0.0
                for c in range(n_x):
                    total += Q[i0 + a, c] * Z1[i0 + e, c]
                lambar[li + a * ki + e] -= 2.0 * total


@njit(cache=True)
def _tail_pair(M, i0, ki, li, j0, kj, lj, lam, inverse, Mbar, lambar):
    """Add one pair of blocks to Mbar (L_I C_IJ L_J') and to lambar (2 M_IJ L_J C_JI, and its mirror)."""
    for a in range(ki):
        for b in range(kj):
            row, column = i0 + a, j0 + b
            if row <= column:
                total = 0.0
                for e in range(a + 1):
                    for f in range(b + 1):
                        total += lam[li + a * ki + e] * inverse[min(i0 + e, j0 + f), max(i0 + e, j0 + f)] * lam[lj + b * kj + f]
                Mbar[row, column] += total
            value = 2.0 * M[min(row, column), max(row, column)]
            for f in range(b + 1):
                right = value * lam[lj + b * kj + f]
                for e in range(ki):
                    lambar[li + a * ki + e] += right * inverse[min(i0 + e, j0 + f), max(i0 + e, j0 + f)]
            if j0 > i0:
                for e in range(a + 1):
                    left = value * lam[li + a * ki + e]
                    for f in range(kj):
                        lambar[lj + b * kj + f] += left * inverse[i0 + e, j0 + f]


@njit(cache=True)
def back_substitute(k_row, v_at, g_at, col_at, cols, col_of_row, store, G, z):
    """Write -b of the sparse levels into z, whose entries of later columns are -b, -beta and (last) 1: b = H V'z."""
    for r in range(k_row.size - 1, -1, -1):
        k, v, g, c = k_row[r], v_at[r], g_at[r], col_at[r]
        m = col_at[r + 1] - c
        s = np.zeros(k)
        for a in range(m):
            value = z[cols[c + a]]
            for i in range(k):
                s[i] += store[v + a * k + i] * value
        for i in range(k):
            b = 0.0
            for a in range(k):
                for j in range(k):
                    b += G[g + a * k + i] * G[g + a * k + j] * s[j]
            z[col_of_row[r] + i] = -b


@njit(cache=True)
def accumulate_diagonal(store, d_at, row_of, z):
    """Add z_i z_i' of every observation to the diagonal block of its level (upper triangle)."""
    k = z.shape[1]
    for i in range(z.shape[0]):
        d = d_at[row_of[i]]
        for a in range(k):
            for b in range(a, k):
                store[d + a * k + b] += z[i, a] * z[i, b]


@njit(cache=True)
def accumulate_pairs(store, at, z, other):
    """Add the products of a level's columns `z` (n, k) with a later factor's `other` (n, h): V blocks start at `at` (n,)."""
    k = z.shape[1]
    for i in range(z.shape[0]):
        v = at[i]
        for a in range(other.shape[1]):
            for b in range(k):
                store[v + a * k + b] += other[i, a] * z[i, b]


@njit(cache=True)
def accumulate_dense(store, at, row_of, z, XY):
    """Add the products with [X y] (n, p + 1); V's rows for it start at `at[row]`."""
    k = z.shape[1]
    for i in range(z.shape[0]):
        v = at[row_of[i]]
        for c in range(XY.shape[1]):
            for b in range(k):
                store[v + c * k + b] += XY[i, c] * z[i, b]


@njit(cache=True)
def accumulate_tail(M, row_at, z, column_at, other):
    """Add z_i other_i' of every observation to M at (`row_at`, `column_at`), upper triangle only."""
    for i in range(z.shape[0]):
        for a in range(z.shape[1]):
            for b in range(other.shape[1]):
                row, column = row_at[i] + a, column_at[i] + b
                if row <= column:
                    M[row, column] += z[i, a] * other[i, b]


@njit(cache=True)
def accumulate_tail_dense(M, row_at, z, q, XY):
    """Add the products of dense random columns with [X y]."""
    for i in range(z.shape[0]):
        for a in range(z.shape[1]):
            for c in range(XY.shape[1]):
                M[row_at[i] + a, q + c] += z[i, a] * XY[i, c]


@njit(cache=True)
def map_targets(k_row, d_at, v_at, col_at, cols, n_sparse, map_at, row_of_col, col_of_row, where):
    """Fill `where`: the place in `store` of every pair (a, b) of later columns whose first belongs to a sparse level."""
    for r in range(k_row.size):
        c = col_at[r]
        m = col_at[r + 1] - c
        for a in range(n_sparse[r]):
            column = cols[c + a]
            target = row_of_col[column]
            k = k_row[target]
            effect = column - col_of_row[target]
            t = col_at[target]
            position = t
            for b in range(a, m):
                other = cols[c + b]
                if other < col_of_row[target] + k:
                    where[map_at[r] + a * m + b] = d_at[target] + effect * k + (other - col_of_row[target])
                    continue
                while cols[position] < other:
                    position += 1
                where[map_at[r] + a * m + b] = v_at[target] + (position - t) * k + effect
