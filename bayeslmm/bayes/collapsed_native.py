"""The collapsed density as a C function that nutpie calls without Python, so that chains run side by side: one function for all models.

A model is laid out in one buffer of eight-byte numbers, integers and floats in turn: the kernel's arrays are views of it. The function is
compiled once on a machine and kept in Numba's cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import cfunc, njit
from numba.np.numpy_support import carray

from bayeslmm.bayes.collapsed_density import Plan, Products, Room, Space, evaluate, linear, pls
from bayeslmm.bayes.collapsed_priors import Scalars
from bayeslmm.bayes.native import DENSITY, pack, part, verdict
from bayeslmm.bayes.native import compiled as native
from bayeslmm.linear import blas

if TYPE_CHECKING:
    from collections.abc import Callable

    from bayeslmm.bayes.collapsed_density import Density

__all__ = ["compiled", "laid_out"]

type Array = np.ndarray


def laid_out(density: Density, mode: Array, root: Array) -> Array:
    """Return the buffer (int64) of a density of t, where u = mode + root t; see `_unpack` for the order."""
    plan, system = density.plan, density.system
    levels, scalars = system.levels, plan.scalars
    slots = len(plan.fixed)
    k = int(max(system.widths))
    sizes = (
        levels.first_tail, system.first_inner, system.store_from, slots, k, int(np.max(np.diff(levels.col_at), initial=1)),
        int(np.sum(levels.k**2)), system.lam_size, int(np.sum(plan.k**2)), levels.wide, linear.stacked(levels), len(system.M), system.q,
        int(np.max(system.blocks.k, initial=1)), levels.spread,
    )  # fmt: skip
    arrays: list[Any] = [
        sizes, scalars.slot, scalars.kind, plan.k, plan.kind, plan.lam_at, plan.width, plan.effect_at, plan.cor_at, plan.matrix_at,
        plan.sd_slot, levels.k, levels.lam_at, levels.d_at, levels.v_at, levels.g_at, levels.first, levels.col_at, levels.cols,
        levels.n_sparse, levels.map_at, levels.where,
        np.array([plan.y_scale, plan.rows, plan.constant]), scalars.args, scalars.lower, scalars.upper, plan.fixed, plan.G, plan.centre,
        plan.power, plan.size, system.store, system.M, mode, root, plan.rho_at, plan.lowest, plan.powers, plan.inner, plan.inner_mean,
        plan.inner_precision, system.blocks.at, system.blocks.k, system.blocks.lam_at, blas.addresses(),
        levels.met_at, levels.row_of, levels.place_of,
    ]  # fmt: skip
    return pack(arrays)


@njit(cache=True, nogil=True, error_model="numpy")
def _plan(ints: Array, reals: Array) -> Plan:
    numbers = part(reals, ints, 22)
    n_scalars = part(ints, ints, 1).size
    p = part(reals, ints, 28).size
    rows = part(reals, ints, 27).size // max(p, 1)
    return Plan(
        Scalars(
            part(ints, ints, 1),
            part(ints, ints, 2),
            part(reals, ints, 23).reshape((n_scalars, 4)),
            part(reals, ints, 24),
            part(reals, ints, 25),
        ),
        part(reals, ints, 26),
        part(reals, ints, 27).reshape((rows, p)),
        part(reals, ints, 28),
        numbers[0],
        numbers[1],
        numbers[2],
        part(ints, ints, 3),
        part(ints, ints, 4),
        part(ints, ints, 5),
        part(ints, ints, 6),
        part(ints, ints, 7),
        part(ints, ints, 8),
        part(ints, ints, 9),
        part(reals, ints, 29),
        part(ints, ints, 10),
        part(reals, ints, 30),
        part(ints, ints, 35),
        part(reals, ints, 36),
        part(ints, ints, 37),
        part(ints, ints, 38),
        part(reals, ints, 39),
        part(reals, ints, 40),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _levels(ints: Array) -> pls.Levels:
    return pls.Levels(
        part(ints, ints, 11),
        part(ints, ints, 12),
        part(ints, ints, 13),
        part(ints, ints, 14),
        part(ints, ints, 15),
        part(ints, ints, 16),
        part(ints, ints, 17),
        part(ints, ints, 18),
        part(ints, ints, 19),
        part(ints, ints, 20),
        part(ints, ints, 21),
        part(ints, ints, 0)[0],
        part(ints, ints, 0)[9],
        part(ints, ints, 0)[14],
        part(ints, ints, 45),
        part(ints, ints, 46),
        part(ints, ints, 47),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _products(ints: Array, reals: Array) -> Products:
    sizes = part(ints, ints, 0)
    return Products(
        _levels(ints),
        pls.Blocks(part(ints, ints, 41), part(ints, ints, 42), part(ints, ints, 43)),
        sizes[1],
        sizes[2],
        part(reals, ints, 31),
        part(reals, ints, 32).reshape((sizes[11], sizes[11])),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _space(plan: Plan, sizes: Array) -> Space:
    m, inner, scalars = plan.G.shape[0], plan.inner.size, plan.scalars.slot.size
    return Space(
        np.empty(sizes[3]), np.empty(sizes[3]), np.empty(scalars), np.empty(scalars), np.empty(sizes[8]), np.empty(sizes[8]),
        np.empty(sizes[8]), np.empty(sizes[7]), np.empty(m + 1), np.empty(m + 1), np.empty((m, inner)), np.empty((inner, inner)),
        np.empty(inner),
    )  # fmt: skip


@njit(cache=True, nogil=True, error_model="numpy")
def _room(products: Products, sizes: Array, at: Array) -> Room:
    base, k, q, size = products.store, sizes[4], sizes[12], sizes[11]
    nothing = products.store_from == base.size
    p1 = size - q
    M = np.empty((size, size))
    return Room(
        base if nothing else base.copy(),
        M,
        np.empty((size, size)),
        np.empty(0 if nothing else base.size),
        pls.Scratch(
            np.empty(sizes[6]),
            np.empty(sizes[6]),
            np.empty((sizes[5], k)),
            np.empty((4, k, k)),
            np.empty((2, sizes[10], size)),
            np.empty(base.size if sizes[14] < sizes[9] else 0),
            at,
        ),
        pls.Tail(np.empty((q, q)), np.empty((q, p1)), np.empty((p1, q)), np.empty((p1, q)), np.empty((sizes[13], q)), np.empty((k, q))),
        np.empty((p1, p1)) if q else M,
        np.empty((p1, p1)),
        np.empty(sizes[7]),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def whitened(ints: Array, reals: Array, t: Array, grad: Array) -> float:
    """Return the log density at t and write its gradient by t (d,); all scratch arrays are this call's own."""
    plan, products, sizes, dim = _plan(ints, reals), _products(ints, reals), part(ints, ints, 0), t.size
    mode, root = part(reals, ints, 33), part(reals, ints, 34).reshape((dim, dim))
    u, by_u = np.empty(dim), np.empty(dim)
    for i in range(dim):
        u[i] = mode[i]
        for j in range(i + 1):
            u[i] += root[i, j] * t[j]
    value = evaluate(plan, products, u, _space(plan, sizes), _room(products, sizes, part(ints, ints, 44)), by_u)
    for j in range(dim):
        grad[j] = 0.0
        for i in range(j, dim):
            grad[j] += root[i, j] * by_u[i]
    return value


@cfunc(DENSITY, cache=True)
def _log_density(dim: int, t: Any, grad: Any, value: Any, data: Any) -> int:
    """What nutpie calls."""
    size = carray(data, (1,), np.int64)[0]
    gradient = carray(grad, (dim,))
    found = whitened(carray(data, (size,), np.int64), carray(data, (size,), np.float64), carray(t, (dim,)), gradient)
    carray(value, (1,))[0] = found
    return verdict(found, gradient)


def compiled(density: Density, mode: Array, root: Array, initial: Callable[[int], Array]) -> Any:
    """Return nutpie's model of the density of t, variable `t` of dimension `parameter`; `initial`: seed -> where a chain starts."""
    return native(_log_density, laid_out(density, mode, root), density.dim, initial)
