"""What the data say about covariance parameters: derivatives of V by every entry of a covariance matrix, without an n x n matrix.

V = sum_a gamma_a G_a is linear in gamma: the entries (r >= c) of each random term's covariance matrix, then the residual variance.
All that Satterthwaite's and Kenward and Roger's methods need are products of V^-1 and the G_a between columns of X, the residual and
Z. By Woodbury, with D = Z'Z, Omega the effects' covariance and M = V / sigma^2,

    K = (I + Omega D)^-1,   T = Z'M^-1 Z = D K,   U = Z'M^-1 X = K'Z'X,   M^-1 X = X - Z C,   C = K Omega Z'X,

and these fall apart into the connected components of the grouping (one per level for a single factor, one in all for crossed
factors), which are computed in batches of equal shape. Where the covariance A = RR' among levels is known, Z stands for Z (R (x) I),
whose effects are independent, and levels that A relates hang together. Everything is in units of the fit: X orthonormal, Z's columns
at most one (before R), sigma = 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from bayeslmm.covariance import structure_of
from bayeslmm.errors import FitError
from bayeslmm.random_blocks import independent_Z

if TYPE_CHECKING:
    import scipy.sparse as sp

    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.design import Design

__all__ = ["MAX_CONNECTED", "Information", "Parameters", "by_theta", "information", "linear_span"]

type Array = np.ndarray

MAX_CONNECTED = 12_000
"""More columns of Z that hang together are refused: their matrix alone would take over a gigabyte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Information:
    """Products between the p columns of X and the residual e, all over sigma; m coordinates gamma, the residual variance last.

    `half` (p, p): beta = half @ (scaled beta), so that vcov(beta) = half phi half'; `phi` (p, p) = (X'V^-1 X)^-1.
    `A` (m, p, p) = X'V^-1 G_a V^-1 X, `Ae` (m, p) the same with e on the right, `Aee` (m,) on both sides.
    `Q` (m, m, p, p) = X'V^-1 G_a V^-1 G_b V^-1 X, `Qee` (m, m) with e on both sides.
    `trace` (m,) = tr V^-1 G_a; `traces` (m, m) = tr V^-1 G_a V^-1 G_b. `sizes`: per term the scale of its columns (k,).
    """

    half: Array
    phi: Array
    A: Array
    Ae: Array
    Aee: Array
    Q: Array
    Qee: Array
    trace: Array
    traces: Array
    sizes: tuple[Array, ...]

    @property
    def expected(self) -> Array:
        """tr(P G_a P G_b) (m, m), P the residual-forming V^-1 - V^-1 X phi X'V^-1: twice the restricted expected information."""
        phi_A = self.phi @ self.A
        crossed = np.einsum("axy,byx->ab", phi_A, phi_A)
        return np.asarray(self.traces - 2.0 * np.einsum("xy,abyx->ab", self.phi, self.Q) + crossed)

    def gradient(self, reml: bool) -> Array:
        """Return the derivative of the deviance, or of the REML criterion, by gamma (m,); beta is profiled out."""
        shift = np.einsum("xy,ayx->a", self.phi, self.A)
        return np.asarray(self.trace - self.Aee - (shift if reml else 0.0))

    def hessian(self, reml: bool) -> Array:
        """Return the second derivative by gamma (m, m)."""
        data = self.Qee - self.Ae @ self.phi @ self.Ae.T
        value: Array = 2.0 * data - (self.expected if reml else self.traces)
        return np.asarray(0.5 * (value + value.T))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Gamma as a function of (theta, sigma): `first` (m, d), `second` (m, d, d)."""

    first: Array
    second: Array


def information(fit: ClassicalFit) -> Information:
    """Return the products of a fit with random effects, at its estimate.

    Cost: O(n) once, and cubes of the components' sizes; memory: their squares.

    Raises
    ------
    FitError
        If more than `MAX_CONNECTED` columns of Z hang together.
    """
    from bayeslmm.classical.lmm import one_thread

    with one_thread():
        return _information(fit)


def _information(fit: ClassicalFit) -> Information:
    design, p = fit.model.design, len(fit.beta)
    root = np.sqrt(design.weights)
    residual = (design.y - design.offset - design.X @ fit.beta) * root / fit.sigma
    XE, half = _orthonormal(design.X * root[:, None], residual, fit.sigma)
    Z, sizes = _scaled_Z(design, root)
    omegas = _relative_covariances(fit, sizes)
    sums = _Sums(design, p + 1)
    gram = XE.T @ XE
    S, first, second = gram.copy(), gram.copy(), gram.copy()
    trace, square = float(design.n - Z.shape[1]), float(design.n - Z.shape[1])
    for batch in _batches(design, Z, XE):
        K, T, U, U2, C = _woodbury(batch, omegas)
        UC = np.einsum("bqx,bqy->xy", U, C)
        S -= np.einsum("bqx,bqy->xy", batch.ZX, C)
        first -= np.einsum("bqx,bqy->xy", batch.ZX, C) + UC
        second -= np.einsum("bqx,bqy->xy", batch.ZX, C) + UC + UC.T - np.einsum("bqx,bqy->xy", C, T @ C)
        trace += float(np.einsum("bqq->", K))
        square += float(np.einsum("bqr,brq->", K, K))
        sums.add(batch, K, T, U, U2)
    sums.close(first, second, trace, square)
    return Information(
        half=half,
        phi=np.linalg.inv(S[:p, :p]),
        A=sums.A[:, :p, :p],
        Ae=sums.A[:, :p, p],
        Aee=sums.A[:, p, p],
        Q=sums.Q[:, :, :p, :p],
        Qee=sums.Q[:, :, p, p],
        trace=sums.trace,
        traces=sums.traces,
        sizes=sizes,
    )


# ------------------------------------------------------------------------------------------------------------------ parameters


def by_theta(fit: ClassicalFit, info: Information) -> Parameters:
    """Return gamma's first and second derivatives by (theta, sigma), lme4's parameters, at the estimate."""
    d = len(fit.theta) + 1
    rows_1, rows_2, at = [], [], 0
    for block, theta, size in zip(fit.model.design.blocks, fit.theta_by_block, info.sizes, strict=True):
        structure, k = structure_of(block), block.n_effects
        own = np.arange(at, at + len(theta))
        at += len(theta)
        L = size[:, None] * structure.factor(theta, k)
        dL = size[:, None] * structure.jacobian(theta, k)
        d2L = np.zeros((len(theta), len(theta), k, k)) if structure.linear else size[:, None] * _bend(structure.jacobian, theta, k)
        one = np.zeros((d, k, k))
        one[own] = _twice(dL @ L.T)
        one[-1] = 2.0 * L @ L.T / fit.sigma
        two = np.zeros((d, d, k, k))
        two[np.ix_(own, own)] = _twice(np.einsum("iac,jbc->ijab", dL, dL) + d2L @ L.T)
        two[own, -1] = two[-1, own] = 2.0 * one[own] / fit.sigma
        two[-1, -1] = 2.0 * L @ L.T / fit.sigma**2
        r, c = np.tril_indices(k)
        rows_1.append(one[:, r, c].T)
        rows_2.append(np.moveaxis(two[:, :, r, c], 2, 0))
    residual = np.zeros((1, d))
    residual[0, -1] = 2.0 / fit.sigma
    bend = np.zeros((1, d, d))
    bend[0, -1, -1] = 2.0 / fit.sigma**2
    return Parameters(first=np.concatenate([*rows_1, residual]), second=np.concatenate([*rows_2, bend]))


def linear_span(fit: ClassicalFit, info: Information) -> Array:
    """Return a basis (m, d) of the directions in which gamma can move under the terms' structures.

    For structures whose factor is linear in theta (`us`, `diag`, `homdiag`) these are all their covariance matrices; for others
    the tangent at the estimate (the first-order form of Kenward and Roger's method).
    """
    parts = []
    for block, theta, size in zip(fit.model.design.blocks, fit.theta_by_block, info.sizes, strict=True):
        structure, k = structure_of(block), block.n_effects
        basis = structure.jacobian(structure.start(k) if structure.linear else theta, k)
        other = basis if structure.linear else structure.factor(theta, k)[None]
        moves = _twice(np.einsum("iac,jbc->ijab", basis, other)).reshape(-1, k, k) * np.outer(size, size)
        r, c = np.tril_indices(k)
        if not structure.linear:
            moves = np.concatenate([moves, (other @ other.transpose(0, 2, 1)) * np.outer(size, size)])
        parts.append(_independent(moves[:, r, c].T))
    widths = [part.shape[1] for part in parts]
    basis = np.zeros((sum(part.shape[0] for part in parts) + 1, sum(widths) + 1))
    row = column = 0
    for part in parts:
        basis[row : row + part.shape[0], column : column + part.shape[1]] = part
        row, column = row + part.shape[0], column + part.shape[1]
    basis[-1, -1] = 1.0
    return basis


def _twice(A: Array) -> Array:
    """Return A + A' for the last two axes."""
    total: Array = A + np.swapaxes(A, -1, -2)
    return total


def _bend(jacobian: object, theta: Array, k: int) -> Array:
    """Return d^2 L / d theta_i d theta_j (n_theta, n_theta, k, k) by central differences of the exact jacobian."""
    assert callable(jacobian)
    step = 1e-6
    rows = [(jacobian(theta + step * unit, k) - jacobian(theta - step * unit, k)) / (2.0 * step) for unit in np.eye(len(theta))]
    return np.array(rows)


def _independent(columns: Array) -> Array:
    """Return an orthonormal basis of the columns' span."""
    lengths = np.linalg.norm(columns, axis=0)
    columns = columns[:, lengths > 0.0] / lengths[lengths > 0.0]
    if not columns.size:
        return np.zeros((columns.shape[0], 0))
    U, values, _ = np.linalg.svd(columns, full_matrices=False)
    basis: Array = U[:, values > 1e-9 * values[0]]
    return basis


# --------------------------------------------------------------------------------------------------------------------- products


def _orthonormal(X: Array, residual: Array, sigma: float) -> tuple[Array, Array]:
    """Return [Q e] of X = QR and half = sigma R^-1."""
    lengths = np.max(np.abs(X), axis=0, initial=0.0)
    lengths[lengths == 0.0] = 1.0
    Q, R = np.linalg.qr(X / lengths)
    half = solve_triangular(R, np.eye(X.shape[1])) * sigma / lengths[:, None] if X.shape[1] else np.zeros((0, 0))
    return np.column_stack([Q, residual]), half


def _scaled_Z(design: Design, root: Array) -> tuple[sp.csr_array, tuple[Array, ...]]:
    """Return Z (n, q) of independent effects with the weights' roots in, columns over the largest value of their effect; and those."""
    sizes = []
    for block in design.blocks:
        largest = np.max(np.abs(block.values * root[:, None]), axis=0)
        sizes.append(np.where(largest > 0.0, largest, 1.0))
    repeated = [np.tile(size, block.n_levels) for block, size in zip(design.blocks, sizes, strict=True)]
    Z = independent_Z(design.blocks, design.n).multiply(root[:, None]).multiply(1.0 / np.concatenate(repeated)[None, :])
    return Z.tocsr(), tuple(sizes)


def _relative_covariances(fit: ClassicalFit, sizes: tuple[Array, ...]) -> list[Array]:
    return [covariance * np.outer(size, size) / fit.sigma**2 for covariance, size in zip(fit.covariances, sizes, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Batch:
    """B components of one shape: `levels` and effects `k` of every term in each, D (B, q, q) and Z'[X e] (B, q, p + 1)."""

    levels: tuple[int, ...]
    k: tuple[int, ...]
    D: Array
    ZX: Array

    @property
    def slices(self) -> list[slice]:
        ends = np.cumsum([count * k for count, k in zip(self.levels, self.k, strict=True)]).tolist()
        return [slice(end - count * k, end) for end, count, k in zip(ends, self.levels, self.k, strict=True)]


def _batches(design: Design, Z: sp.csr_array, XE: Array) -> Iterator[_Batch]:
    """Yield the connected components, those of one shape together."""
    component, counts = _components(design)
    k = tuple(block.n_effects for block in design.blocks)
    widths = counts * np.array(k)
    if int(np.max(np.sum(widths, axis=1))) > MAX_CONNECTED:
        raise FitError(
            f"{int(np.max(np.sum(widths, axis=1)))} random effects hang together through crossed factors, too many for degrees of freedom "
            "(their matrix is dense); with so many, use ddf='none' and the normal distribution"
        )
    starts = np.cumsum(widths, axis=1) - widths
    of_column, local = _column_places(design, component, starts)
    shapes, shape_of = np.unique(counts, axis=0, return_inverse=True)
    shape_of = shape_of.ravel()
    D, ZX = (Z.T @ Z).tocoo(), np.asarray(Z.T @ XE)
    for number, shape in enumerate(shapes):
        members = np.flatnonzero(shape_of == number)
        place = np.full(len(counts), -1)
        place[members] = np.arange(len(members))
        q = int(np.sum(shape * np.array(k)))
        block = np.zeros((len(members), q, q))
        row, column = D.coords
        mine = place[of_column[row]] >= 0
        block[place[of_column[row[mine]]], local[row[mine]], local[column[mine]]] = D.data[mine]
        rows = np.zeros((len(members), q, XE.shape[1]))
        own = place[of_column] >= 0
        rows[place[of_column[own]], local[own]] = ZX[own]
        yield _Batch(levels=tuple(shape.tolist()), k=k, D=block, ZX=rows)


def _components(design: Design) -> tuple[list[Array], Array]:
    """Return the component of each level, per term, and the number of levels (components, terms)."""
    starts = np.cumsum([0, *(block.n_levels for block in design.blocks)])
    first = design.blocks[0].index
    pairs = [(first, start + block.index) for start, block in zip(starts[1:-1], design.blocks[1:], strict=True)]
    for start, block in zip(starts, design.blocks, strict=False):
        if block.known is not None:
            level, other = np.nonzero(block.known.root)
            pairs.append((start + level, start + other))
    rows = np.concatenate([np.zeros(0, dtype=np.int64), *(one for one, _ in pairs)])
    columns = np.concatenate([np.zeros(0, dtype=np.int64), *(other for _, other in pairs)])
    total = int(starts[-1])
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(total, total))
    number, labels = connected_components(graph.tocsr(), directed=False)
    parts = [labels[start:end] for start, end in pairwise(starts.tolist())]
    return parts, np.stack([np.bincount(part, minlength=number) for part in parts], axis=1)


def _column_places(design: Design, component: list[Array], starts: Array) -> tuple[Array, Array]:
    """Return, for each column of Z, its component and its place within it."""
    of_column, local = [], []
    for term, (block, own) in enumerate(zip(design.blocks, component, strict=True)):
        order = np.argsort(own, kind="stable")
        first = np.searchsorted(own[order], own[order])
        rank = np.empty(len(own), dtype=np.int64)
        rank[order] = np.arange(len(own)) - first
        at = starts[own, term] + rank * block.n_effects
        local.append((at[:, None] + np.arange(block.n_effects)).ravel())
        of_column.append(np.repeat(own, block.n_effects))
    return np.concatenate(of_column), np.concatenate(local)


def _woodbury(batch: _Batch, omegas: list[Array]) -> tuple[Array, Array, Array, Array, Array]:
    """Return K, T, U, U2 = Z'M^-2 [X e] and C of a batch."""
    D = batch.D
    OD, OX = np.zeros_like(D), np.zeros_like(batch.ZX)
    for part, count, k, omega in zip(batch.slices, batch.levels, batch.k, omegas, strict=True):
        shape = (len(D), count, k, -1)
        OD[:, part] = (omega @ D[:, part].reshape(shape)).reshape(D[:, part].shape)
        OX[:, part] = (omega @ batch.ZX[:, part].reshape(shape)).reshape(batch.ZX[:, part].shape)
    OD[:, np.arange(D.shape[1]), np.arange(D.shape[1])] += 1.0
    K = np.linalg.inv(OD)
    T = D @ K
    T = 0.5 * (T + np.swapaxes(T, 1, 2))
    U = np.swapaxes(K, 1, 2) @ batch.ZX
    C = K @ OX
    return K, T, U, U - T @ C, C


class _Sums:
    """The products by coordinate, added up over batches."""

    __slots__ = ("A", "Q", "first", "k", "trace", "traces")

    def __init__(self, design: Design, p1: int):
        self.k = [block.n_effects for block in design.blocks]
        self.first = np.cumsum([0, *(k * (k + 1) // 2 for k in self.k)]).tolist()
        m = self.first[-1] + 1
        self.A, self.Q = np.zeros((m, p1, p1)), np.zeros((m, m, p1, p1))
        self.trace, self.traces = np.zeros(m), np.zeros((m, m))

    def add(self, batch: _Batch, K: Array, T: Array, U: Array, U2: Array) -> None:
        """Add one batch's products of every term, and of every pair of terms, first as full k x k tables."""
        parts, n = batch.slices, len(T)
        cells = [(count, k) for count, k in zip(batch.levels, batch.k, strict=True)]
        T2 = np.swapaxes(K, 1, 2) @ T
        for t, (part, (count, k)) in enumerate(zip(parts, cells, strict=True)):
            own = slice(self.first[t], self.first[t + 1])
            u, u2 = (M[:, part].reshape(n * count, k, -1) for M in (U, U2))
            self.A[own] += _pairs(np.tensordot(u, u, axes=(0, 0)).transpose(0, 2, 1, 3))
            self.Q[own, -1] += _pairs(np.tensordot(u, u2, axes=(0, 0)).transpose(0, 2, 1, 3))
            diagonal, squared = (M[:, part, part].reshape(n, count, k, count, k) for M in (T, T2))
            self.trace[own] += _pairs(np.einsum("njcjr->rc", diagonal))
            self.traces[own, -1] += _pairs(np.einsum("njcjr->rc", squared))
            for s in range(t, len(parts)):
                other, (levels, width) = parts[s], cells[s]
                theirs = slice(self.first[s], self.first[s + 1])
                block = T[:, part, other].reshape(n, count, k, levels, width)
                v = U[:, other].reshape(n, levels, width, -1)
                traces, Q = _crossed(block, u.reshape(n, count, k, -1), v)
                self.traces[own, theirs] += _pairs(np.moveaxis(_pairs(traces), 0, 2)).T
                self.Q[own, theirs] += np.swapaxes(_pairs(np.moveaxis(_pairs(Q), 0, 2)), 0, 1)

    def close(self, first: Array, second: Array, trace: float, square: float) -> None:
        """Put in the residual variance's own products, and fill in the lower triangles."""
        self.A[-1], self.Q[-1, -1] = first, second
        self.trace[-1], self.traces[-1, -1] = trace, square
        m = len(self.trace)
        for a in range(m):
            for b in range(a + 1, m):
                self.traces[b, a] = self.traces[a, b]
                self.Q[b, a] = self.Q[a, b].T
        for t in range(len(self.k)):
            for a in range(self.first[t], self.first[t + 1]):
                self.A[a] = 0.5 * (self.A[a] + self.A[a].T)


def _crossed(T: Array, u: Array, v: Array) -> tuple[Array, Array]:
    """Return tr(E_rc T E_sw T) as (r, c, s, w) and U'E_rc T E_sw U as (r, c, s, w, x, y); E_rc = I (x) e_r e_c'."""
    n, count, k, levels, width = T.shape
    flat = np.moveaxis(T, (2, 4), (0, 1)).reshape(k * width, n * count * levels)
    gram = (flat @ flat.T).reshape(k, width, k, width)
    traces = gram.transpose(2, 0, 1, 3)
    p1 = u.shape[-1]
    Q = np.empty((k, k, width, width, p1, p1))
    left = u.reshape(n * count, k * p1)
    right = v.reshape(n, levels, width * p1)
    for c in range(k):
        for s in range(width):
            middle = (T[:, :, c, :, s] @ right).reshape(n * count, width * p1)
            Q[:, c, s] = (left.T @ middle).reshape(k, p1, width, p1).transpose(0, 2, 1, 3)
    return traces, Q


def _pairs(full: Array) -> Array:
    """Return (k (k + 1) / 2, ...) of a table (k, k, ...): entries (r, c) and (c, r) added up, the diagonal as it is."""
    r, c = np.tril_indices(full.shape[0])
    off = (r != c).reshape(-1, *[1] * (full.ndim - 2))
    total: Array = full[r, c] + np.where(off, full[c, r], 0.0)
    return total
