"""The collapsed density as a C function that nutpie calls without Python, so that chains run side by side: one function for all models.

A model without dense columns is laid out in one buffer of eight-byte numbers, integers and floats in turn: the kernel's arrays are views of
it. The function is compiled once on a machine and kept in Numba's cache.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import cfunc, njit, types
from numba.np.numpy_support import carray

from bayeslmm.bayes.collapsed_density import Plan, Space, evaluate_sparse, pls
from bayeslmm.bayes.collapsed_priors import Scalars

if TYPE_CHECKING:
    from collections.abc import Callable

    from bayeslmm.bayes.collapsed_density import Density

__all__ = ["compiled", "laid_out"]

type Array = np.ndarray

_HEAD = 64
"""Entries before the arrays: how many entries there are in all, then where each array starts."""


def laid_out(density: Density, mode: Array, root: Array) -> Array:
    """Return the buffer (int64) of a density of t, where u = mode + root t; see `_unpack` for the order."""
    plan, system = density.plan, density.system
    levels, scalars = system.levels, plan.scalars
    slots = len(plan.fixed)
    k = int(max(system.widths))
    sizes = (
        levels.first_tail, system.first_inner, system.store_from, slots, k, int(np.max(np.diff(levels.col_at))),
        int(np.sum(levels.k**2)), system.lam_size, int(np.sum(plan.k**2)),
    )  # fmt: skip
    arrays: list[Any] = [
        sizes, scalars.slot, scalars.kind, plan.k, plan.kind, plan.lam_at, plan.width, plan.effect_at, plan.cor_at, plan.matrix_at,
        plan.sd_slot, levels.k, levels.lam_at, levels.d_at, levels.v_at, levels.g_at, levels.first, levels.col_at, levels.cols,
        levels.n_sparse, levels.map_at, levels.where,
        np.array([plan.y_scale, plan.rows, plan.constant]), scalars.args, scalars.lower, scalars.upper, plan.fixed, plan.G, plan.centre,
        plan.power, plan.size, system.store, system.M, mode, root,
    ]  # fmt: skip
    flat = [np.ascontiguousarray(array).ravel() for array in arrays]
    offsets = _HEAD + np.concatenate([[0], np.cumsum([len(one) for one in flat])])
    buffer = np.zeros(int(offsets[-1]), dtype=np.int64)
    buffer[0] = len(buffer)
    buffer[1 : 1 + len(offsets)] = offsets
    for start, array in zip(offsets, flat, strict=False):
        own = buffer[start : start + len(array)]
        (own.view(np.float64) if array.dtype == np.float64 else own)[...] = array
    return buffer


@njit(cache=True, nogil=True, error_model="numpy")
def _of(values: Array, offsets: Array, i: int) -> Array:
    return values[offsets[1 + i] : offsets[2 + i]]


@njit(cache=True, nogil=True, error_model="numpy")
def _plan(ints: Array, reals: Array) -> Plan:
    numbers = _of(reals, ints, 22)
    n_scalars = _of(ints, ints, 1).size
    p = _of(reals, ints, 28).size
    rows = _of(reals, ints, 27).size // max(p, 1)
    return Plan(
        Scalars(
            _of(ints, ints, 1),
            _of(ints, ints, 2),
            _of(reals, ints, 23).reshape((n_scalars, 4)),
            _of(reals, ints, 24),
            _of(reals, ints, 25),
        ),
        _of(reals, ints, 26),
        _of(reals, ints, 27).reshape((rows, p)),
        _of(reals, ints, 28),
        numbers[0],
        numbers[1],
        numbers[2],
        _of(ints, ints, 3),
        _of(ints, ints, 4),
        _of(ints, ints, 5),
        _of(ints, ints, 6),
        _of(ints, ints, 7),
        _of(ints, ints, 8),
        _of(ints, ints, 9),
        _of(reals, ints, 29),
        _of(ints, ints, 10),
        _of(reals, ints, 30),
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _levels(ints: Array) -> pls.Levels:
    return pls.Levels(
        _of(ints, ints, 11),
        _of(ints, ints, 12),
        _of(ints, ints, 13),
        _of(ints, ints, 14),
        _of(ints, ints, 15),
        _of(ints, ints, 16),
        _of(ints, ints, 17),
        _of(ints, ints, 18),
        _of(ints, ints, 19),
        _of(ints, ints, 20),
        _of(ints, ints, 21),
        _of(ints, ints, 0)[0],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def whitened(ints: Array, reals: Array, t: Array, grad: Array) -> float:
    """Return the log density at t and write its gradient by t (d,); all scratch arrays are this call's own."""
    plan, levels, sizes = _plan(ints, reals), _levels(ints), _of(ints, ints, 0)
    base, mode = _of(reals, ints, 31), _of(reals, ints, 33)
    dim, p1 = t.size, plan.G.shape[0] + 1
    root = _of(reals, ints, 34).reshape((dim, dim))
    slots, k, scalars = sizes[3], sizes[4], plan.scalars.slot.size
    store_from = sizes[2]
    nothing = store_from == base.size
    store = base if nothing else base.copy()
    bar = np.empty(0 if nothing else base.size)
    space = Space(
        np.empty(slots), np.empty(slots), np.empty(scalars), np.empty(scalars), np.empty(sizes[8]), np.empty(sizes[8]),
        np.empty(sizes[7]), np.empty(p1), np.empty(p1),
    )  # fmt: skip
    scratch = pls.Scratch(np.empty(sizes[6]), np.empty(sizes[6]), np.empty((sizes[5], k)), np.empty((4, k, k)))
    u, by_u = np.empty(dim), np.empty(dim)
    for i in range(dim):
        u[i] = mode[i]
        for j in range(i + 1):
            u[i] += root[i, j] * t[j]
    value = evaluate_sparse(
        plan, levels, base, _of(reals, ints, 32).reshape((p1, p1)), sizes[1], store_from, u, space,
        store, np.empty((p1, p1)), np.empty((p1, p1)), bar, scratch, np.empty(sizes[7]), by_u,
    )  # fmt: skip
    for j in range(dim):
        grad[j] = 0.0
        for i in range(j, dim):
            grad[j] += root[i, j] * by_u[i]
    return value


_NUMBERS = types.CPointer(types.double)  # type: ignore[no-untyped-call]


@cfunc(types.int64(types.uint64, _NUMBERS, _NUMBERS, _NUMBERS, types.voidptr), cache=True)
def _log_density(dim: int, t: Any, grad: Any, value: Any, data: Any) -> int:
    """What nutpie calls: 0 where the density and its gradient are numbers, else a code of the error, which ends the trajectory."""
    size = carray(data, (1,), np.int64)[0]
    gradient = carray(grad, (dim,))
    found = whitened(carray(data, (size,), np.int64), carray(data, (size,), np.float64), carray(t, (dim,)), gradient)
    carray(value, (1,))[0] = found
    for i in range(gradient.size):
        if not math.isfinite(gradient[i]):
            return 3
    return 0 if math.isfinite(found) else 4


@cfunc(types.int64(types.uint64, types.uint64, _NUMBERS, _NUMBERS, types.voidptr), cache=True)
def _expand(dim: int, expanded: int, t: Any, out: Any, data: Any) -> int:
    """Copy a draw."""
    values, copied = carray(t, (dim,)), carray(out, (expanded,))
    copied[:] = values
    return 0


def compiled(density: Density, mode: Array, root: Array, initial: Callable[[int], Array]) -> Any:
    """Return nutpie's model of the density of t, variable `t` of dimension `parameter`; `initial`: seed -> where a chain starts."""
    from nutpie.compile_pymc import CompiledPyMCModel

    d = density.dim
    return CompiledPyMCModel(
        dims={"t": ("parameter",)},
        compiled_logp_func=_log_density,
        compiled_expand_func=_expand,
        initial_point_func=initial,
        shared_data={},
        shared_var_keys={},
        user_data=laid_out(density, mode, root),
        n_expanded=d,
        shape_info=(["t"], [slice(0, d)], [(d,)]),
        logp_func=None,
        expand_func=None,
        _n_dim=d,
        _shapes={"t": (d,)},
        _coords={"parameter": np.arange(d)},
    )
