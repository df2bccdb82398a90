"""From draws of the collapsed density's parameters to those of the model: values, and what was integrated out, drawn exactly given them.

One elimination gives the distribution of integrated coefficients given all others; with these drawn, v = (-beta, 1) is known. Given Lambda,
sigma and v, the effects b of a level have, given those of all later columns, the mean H V'z and the covariance sigma^2 H = sigma^2 G'G
(notation of `pls`): one back substitution with noise makes a joint draw of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit

from bayeslmm.bayes.collapsed_density import (
    Plan,
    Products,
    Room,
    Space,
    back_solve,
    pls,
    products_of,
    reduce,
    room_of,
    space_of,
    to_values,
    weigh,
)
from bayeslmm.linear import blas

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bayeslmm.bayes.collapsed_density import Density

__all__ = ["Values", "coefficients", "correlations", "deviations", "effects", "values_of"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """S draws: values `x` (S, slots), correlation factors `C` (S, sum k^2), Lambda `lam` (S, size) and `v` (S, m + 1), as in `Plan`.

    Integrated coefficients stand at a fixed value until `effects` draws them.
    """

    x: Array
    C: Array
    lam: Array
    v: Array


def values_of(density: Density, u: Array) -> Values:
    """Return the values of draws u (S, d)."""
    space = space_of(density)
    x, C, lam, v = (np.empty((len(u), one.size)) for one in (space.x, space.C, space.lam, space.v))
    _all_values(density.plan, np.ascontiguousarray(u), space, x, C, lam, v)
    return Values(x=x, C=C, lam=lam, v=v)


@njit(cache=True, nogil=True, error_model="numpy")
def _all_values(plan: Plan, u: Array, space: Space, x: Array, C: Array, lam: Array, v: Array) -> None:
    for s in range(u.shape[0]):
        to_values(plan, u[s], space)
        x[s] = space.x
        C[s] = space.C
        lam[s] = space.lam
        v[s] = space.v


def coefficients(density: Density, values: Values) -> Array:
    """Return the coefficients (S, p) of the design as it is, the intercept at predictors of zero."""
    b = values.x[:, : density.p].copy()
    if density.intercept >= 0:
        b[:, density.intercept] -= b @ density.means
    return b


def deviations(density: Density, values: Values, f: int) -> Array:
    """Return the standard deviations (S, K) of the effects of one factor."""
    return np.asarray(values.x[:, density.plan.sd_slot[_own(density, f)]])


def correlations(density: Density, values: Values, f: int) -> Array:
    """Return the correlation matrices (S, K, K) of the effects of one factor, zero between terms."""
    group = density.groups[f]
    K = len(group.effects)
    found = np.zeros((len(values.x), K, K))
    at = int(sum(columns.size**2 for other in density.groups[:f] for columns in other.columns))
    for columns in group.columns:
        k = columns.size
        C = values.C[:, at : at + k * k].reshape(-1, k, k)
        found[:, columns[:, None], columns] = C @ C.transpose(0, 2, 1)
        at += k * k
    return found


def _own(density: Density, f: int) -> slice:
    start = sum(density.system.widths[:f])
    return slice(start, start + density.system.widths[f])


def effects(density: Density, values: Values, rng: np.random.Generator, chunk: int = 200) -> tuple[Array, ...]:
    """Return, per factor, a draw (S, J, K) of the random effects given each draw of the parameters.

    Integrated coefficients are drawn too, into `values`. The noise is read from `rng` draw by draw, so that the result does not depend on
    `chunk`, the draws that are held at a time.
    """
    system, plan, inner = density.system, density.plan, len(density.plan.inner)
    found = tuple(np.empty((len(values.x), J, k)) for J, k in zip(system.n_levels, system.widths, strict=True))
    products, space, room = products_of(density), space_of(density), room_of(density)
    for which in _chunks(len(values.x), chunk):
        noise = rng.standard_normal((which.stop - which.start, inner + system.n_columns))
        noise[:, inner:] *= values.x[which, -1:] / plan.y_scale
        z = np.empty((len(noise), system.n_columns + system.p + 1))
        _draw(plan, products, values.x[which], values.lam[which], values.v[which], noise, space, room, z)
        for f, out in enumerate(found):
            first, k = system.first_col[f], system.widths[f]
            own = z[:, first : first + k * system.n_levels[f]].reshape(len(z), -1, k)
            b = -own * (plan.y_scale / plan.size[_own(density, f)])
            root = density.roots[f]
            out[which] = b if root is None else np.matmul(root, b)
    return found


def _chunks(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


@njit(cache=True, nogil=True, error_model="numpy")
def _draw(plan: Plan, products: Products, x: Array, lam: Array, v: Array, noise: Array, space: Space, room: Room, z: Array) -> None:
    """Write draws of the integrated coefficients into x and v, and of z = -b, in units of y_scale; noise (S, i + columns)."""
    inner, q, levels = plan.inner.size, room.tail.S.shape[0], products.levels
    for s in range(lam.shape[0]):
        reduce(products, lam[s], room)
        if inner:
            space.x[:], space.v[:] = x[s], v[s]
            _draw_inner(plan, room.F, room.Fbar, noise[s], space)
            x[s], v[s] = space.x, space.v
        z[s, z.shape[1] - v.shape[1] :] = v[s]
        if q:
            _draw_tail(products.blocks, lam[s], v[s], noise[s, inner + levels.first_tail :], room, z[s, levels.first_tail :])
        draw_rows(levels, room.store, room.scratch, noise[s, inner:], z[s])


@njit(cache=True, nogil=True, error_model="numpy")
def _draw_inner(plan: Plan, F: Array, Fbar: Array, noise: Array, space: Space) -> None:
    """Draw the integrated coefficients, from N(d, K^-1) about their centre, into x and v."""
    weigh(plan, space, F, Fbar)
    apart = noise[: plan.inner.size].copy()
    back_solve(space.K, apart)
    for a in range(plan.inner.size):
        slot = plan.inner[a]
        space.x[slot] = plan.centre[slot] + space.d[a] + apart[a]
        for i in range(plan.G.shape[0]):
            space.v[i] -= plan.G[i, slot] * apart[a]


@njit(cache=True, nogil=True, error_model="numpy")
def _draw_tail(blocks: pls.Blocks, lam: Array, v: Array, noise: Array, room: Room, z: Array) -> None:
    """Write a draw of -b of the q dense columns: b = Lambda (Z1 v + R^-1 noise); Z1 is in B and R in S."""
    tail = room.tail
    q = tail.S.shape[0]
    u, b = noise[:q].copy().reshape((q, 1)), np.empty((1, q))
    blas.solve_triangle(room.scratch.at, tail.S, False, u)
    for a in range(q):
        for c in range(v.size):
            u[a, 0] += tail.B[a, c] * v[c]
    pls.times_lambda(blocks, lam, u, b)
    for a in range(q):
        z[a] = -b[0, a]


@njit(cache=True, nogil=True, error_model="numpy")
def draw_rows(levels: pls.Levels, store: Array, scratch: pls.Scratch, noise: Array, z: Array) -> None:
    """Write a draw of -b of the rows into z, whose later entries are given: b = G'(G V'z + noise), with noise N(0, sigma^2 I)."""
    G = scratch.G
    s, half = np.zeros(scratch.W.shape[1]), np.zeros(scratch.W.shape[1])
    for r in range(levels.k.size - 1, -1, -1):
        k, v, g, c = levels.k[r], levels.v_at[r], levels.g_at[r], levels.col_at[r]
        own = levels.first[r]
        s[:k] = 0.0
        for a in range(levels.col_at[r + 1] - c):
            for i in range(k):
                s[i] += store[v + a * k + i] * z[levels.cols[c + a]]
        for a in range(k):
            half[a] = noise[own + a]
            for j in range(k):
                half[a] += G[g + a * k + j] * s[j]
        for i in range(k):
            b = 0.0
            for a in range(k):
                b += G[g + a * k + i] * half[a]
            z[own + i] = -b
