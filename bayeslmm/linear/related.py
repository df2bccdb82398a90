"""Grouping factors whose levels covary in a known way: whitened by the root of K, they are dense columns behind all others.

With b = (C (x) I) w, K = CC', the effects w are independent between levels, Z b = Z (C (x) I) w, and each row has all columns of w.
Their products with one another, with the levels of other factors and with [X y] are those of further columns of X, so that
`system.assemble` makes them; from there on they are eliminated as the dense columns of any other factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.linear import pls
from bayeslmm.linear import system as blocked

if TYPE_CHECKING:
    from bayeslmm.linear.rows import RowMap

__all__ = ["assemble", "correlated", "row_map", "size", "variances"]

type Array = np.ndarray


def size(root: Array | None) -> float:
    """Return the root of the mean of K's diagonal, 1 for independent levels: what a level's effect is large by."""
    return 1.0 if root is None else float(np.sqrt(np.mean(np.sum(root**2, axis=1))))


def assemble(factors: Sequence[blocked.Factor], roots: Sequence[Array | None], XY: Array) -> blocked.System:
    """Return the products of the factors' columns and `XY` (n, p + 1), factors with a root (J, J) whitened by it.

    `factors`: with columns in units of `size`; a root is divided by it. Cost: O(n q^2) for q whitened columns, once per fit.
    """
    plain = [f for f, root in enumerate(roots) if root is None]
    if len(plain) == len(factors):
        return blocked.assemble(factors, XY)
    dense = [f for f in range(len(factors)) if f not in plain]
    columns = [_whitened(factors[f], roots[f]) for f in dense]
    built = blocked.assemble([factors[f] for f in plain], np.column_stack([*columns, XY]))
    return _placed(built, factors, plain, dense, XY.shape[1] - 1)


def row_map(factors: Sequence[blocked.Factor], roots: Sequence[Array | None], predictor: Sequence[int]) -> tuple[blocked.System, RowMap]:
    """Return what `system.row_map` does, factors with a root whitened by it; `predictor` (C,): whose the factors' columns are."""
    plain = [f for f, root in enumerate(roots) if root is None]
    if len(plain) == len(factors):
        return blocked.row_map(factors, predictor)
    dense = [f for f in range(len(factors)) if f not in plain]
    ends = np.cumsum([factor.k for factor in factors])
    owners = [predictor[end - factor.k : end] for factor, end in zip(factors, ends.tolist(), strict=True)]
    own = [*(owner for f in plain for owner in owners[f]), *(owner for f in dense for owner in np.tile(owners[f], factors[f].n_levels))]
    wide = np.column_stack([_whitened(factors[f], roots[f]) for f in dense])
    built, rows = blocked.row_map([factors[f] for f in plain], own, wide)
    return _placed(built, factors, plain, dense, 0), rows


def _whitened(factor: blocked.Factor, root: Array | None) -> Array:
    """Return Z (C (x) I) of a factor (n, J k), levels outer."""
    assert root is not None
    wide: Array = (root / size(root))[factor.index][:, :, None] * factor.z[:, None, :]
    return wide.reshape(len(factor.z), -1)


def _placed(built: blocked.System, factors: Sequence[blocked.Factor], plain: Sequence[int], dense: Sequence[int], p: int) -> blocked.System:
    """Return the system with the first columns of what it holds as X read as those of the dense factors."""
    widths, sizes = [factors[f].k for f in dense], [factors[f].size for f in dense]
    starts = np.cumsum([built.n_columns, *sizes]).tolist()
    lam = np.cumsum([built.lam_size, *(k * k for k in widths)]).tolist()
    first_col = {**dict(zip(plain, built.first_col, strict=True)), **dict(zip(dense, starts, strict=False))}
    lam_at = {**dict(zip(plain, built.lam_at, strict=True)), **dict(zip(dense, lam, strict=False))}
    own = [np.arange(start, end, k) - built.levels.first_tail for (start, end), k in zip(pairwise(starts), widths, strict=True)]
    counts = [factors[f].n_levels for f in dense]
    blocks = pls.Blocks(
        at=np.concatenate([built.blocks.at, *own]).astype(np.int64),
        k=np.concatenate([built.blocks.k, np.repeat(widths, counts)]).astype(np.int64),
        lam_at=np.concatenate([built.blocks.lam_at, np.repeat(lam[:-1], counts)]).astype(np.int64),
    )
    q = built.q + sum(sizes)
    M = built.M.copy()
    M[:, :q] = np.triu(M)[:, :q]  # of products with random columns the upper triangle, as `assemble` has it
    return replace(
        built,
        M=M,
        p=p,
        q=q,
        order=(*(plain[f] for f in built.order), *dense),
        n_levels=tuple(factor.n_levels for factor in factors),
        widths=tuple(factor.k for factor in factors),
        first_col=tuple(first_col[f] for f in range(len(factors))),
        n_columns=starts[-1],
        lam_at=tuple(lam_at[f] for f in range(len(factors))),
        lam_size=lam[-1],
        blocks=blocks,
    )


def correlated(root: Array | None, w: Array) -> Array:
    """Return b = (C (x) I) w, both (J, k)."""
    return w if root is None else root @ w


def variances(system: blocked.System, work: blocked.Workspace, f: int, root: Array, T: Array) -> Array:
    """Return the conditional variances (J, k, k) of b = C w T' over sigma^2, after `system.solve`: they need all covariances of w."""
    k, J, at = system.widths[f], system.n_levels[f], system.first_col[f] - system.levels.first_tail
    upper = np.triu(work.Mbar[at : at + J * k, at : at + J * k])
    V = (upper + np.triu(upper, 1).T).reshape(J, k, J, k)
    CV = np.tensordot(root, V, axes=(1, 0))
    found: Array = T @ np.einsum("jamb,jm->jab", CV, root, optimize=True) @ T.T
    return found
