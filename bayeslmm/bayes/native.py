"""Arrays in one buffer that compiled code reads: how a density goes to nutpie without Python in it, so that chains run side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import cfunc, njit, types
from numba.np.numpy_support import carray

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["DENSITY", "NUMBERS", "compiled", "pack", "part", "verdict"]

type Array = np.ndarray

_HEAD = 64
"""Entries before the arrays: how many entries there are in all, then where each array starts."""

NUMBERS = types.CPointer(types.double)  # type: ignore[no-untyped-call]
DENSITY = types.int64(types.uint64, NUMBERS, NUMBERS, NUMBERS, types.voidptr)
"""The signature of what nutpie calls: size, point, gradient, value, the buffer; it returns `verdict`."""


def pack(arrays: Sequence[Any]) -> Array:
    """Return a buffer (int64) of arrays of eight-byte integers or floats, at most 62, which `part` finds again by position."""
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
def part(values: Array, offsets: Array, i: int) -> Array:
    """Return array i of a buffer seen as integers (`offsets`), and as integers or floats (`values`)."""
    return values[offsets[1 + i] : offsets[2 + i]]


@njit(cache=True, nogil=True, error_model="numpy")
def verdict(value: float, grad: Array) -> int:
    """Return 0 where the density and its gradient are numbers, else a code of the error, which ends the trajectory."""
    for i in range(grad.size):
        if not np.isfinite(grad[i]):
            return 3
    return 0 if np.isfinite(value) else 4


@cfunc(types.int64(types.uint64, types.uint64, NUMBERS, NUMBERS, types.voidptr), cache=True)
def _expand(dim: int, expanded: int, t: Any, out: Any, data: Any) -> int:
    """Copy a draw."""
    values, copied = carray(t, (dim,)), carray(out, (expanded,))
    copied[:] = values
    return 0


def compiled(log_density: Any, buffer: Array, dim: int, initial: Callable[[int], Array]) -> Any:
    """Return nutpie's model of a density of t (dim,), variable `t` of dimension `parameter`.

    Parameters
    ----------
    log_density
        A C function of the signature `DENSITY`.
    buffer
        What it is given, made by `pack`.
    dim
        The length of t.
    initial
        Seed -> where a chain starts.
    """
    from nutpie.compile_pymc import CompiledPyMCModel

    return CompiledPyMCModel(
        dims={"t": ("parameter",)},
        compiled_logp_func=log_density,
        compiled_expand_func=_expand,
        initial_point_func=initial,
        shared_data={},
        shared_var_keys={},
        user_data=buffer,
        n_expanded=dim,
        shape_info=(["t"], [slice(0, dim)], [(dim,)]),
        logp_func=None,
        expand_func=None,
        _n_dim=dim,
        _shapes={"t": (dim,)},
        _coords={"parameter": np.arange(dim)},
    )
