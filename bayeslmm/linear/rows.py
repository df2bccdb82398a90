"""Between rows and blocks: fill Z'WZ with new row weights, read z'Cz of every row, and multiply by Z and Z'."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

__all__ = ["RowMap", "fill", "gather", "spread", "total"]

type Array = np.ndarray


class RowMap(NamedTuple):
    """Where every row's random columns stand: C columns (of all grouping factors, in order) and their pairs.

    `z` (C, n) the values; `at` (C, n) the place in a vector of random effects (elimination order); `predictor` (C,) whose column.
    Pair p of columns `first[p] <= second[p]` of row i is at `base[family[p], i] + offset[p]`, in M (flat) where `dense[p]`, otherwise
    in the store.
    """

    z: Array
    at: Array
    predictor: Array
    base: Array
    family: Array
    offset: Array
    dense: Array
    first: Array
    second: Array


@njit(cache=True)
def fill(rows: RowMap, w: Array, store: Array, M: Array) -> None:
    """Write Z'WZ into `store` and the flat `M`; w (K, K, n): the weight of a row between its predictors, of any sign."""
    store[:] = 0.0
    M[:] = 0.0
    n = rows.z.shape[1]
    for p in range(rows.first.size):
        c, d, offset = rows.first[p], rows.second[p], rows.offset[p]
        weight, base = w[rows.predictor[c], rows.predictor[d]], rows.base[rows.family[p]]
        left, right = rows.z[c], rows.z[d]
        target = M if rows.dense[p] else store
        for i in range(n):
            target[base[i] + offset] += weight[i] * left[i] * right[i]


@njit(cache=True)
def gather(rows: RowMap, store: Array, M: Array, h: Array) -> None:
    """Write h (K, K, n) = z_a'C z_b of every row and pair of predictors, C in the layout of the products."""
    h[:] = 0.0
    n = rows.z.shape[1]
    for p in range(rows.first.size):
        c, d, offset = rows.first[p], rows.second[p], rows.offset[p]
        a, b, base = rows.predictor[c], rows.predictor[d], rows.base[rows.family[p]]
        left, right = rows.z[c], rows.z[d]
        source = M if rows.dense[p] else store
        for i in range(n):
            value = left[i] * right[i] * source[base[i] + offset]
            h[a, b, i] += value
            if c != d:
                h[b, a, i] += value


@njit(cache=True)
def spread(rows: RowMap, b: Array, eta: Array) -> None:
    """Add Z b to eta (K, n)."""
    for c in range(rows.predictor.size):
        at, z, own = rows.at[c], rows.z[c], eta[rows.predictor[c]]
        for i in range(z.size):
            own[i] += z[i] * b[at[i]]


@njit(cache=True)
def total(rows: RowMap, g: Array, r: Array) -> None:
    """Write r = Z'g, of g (K, n)."""
    r[:] = 0.0
    for c in range(rows.predictor.size):
        at, z, own = rows.at[c], rows.z[c], g[rows.predictor[c]]
        for i in range(z.size):
            r[at[i]] += z[i] * own[i]
