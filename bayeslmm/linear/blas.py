"""BLAS and LAPACK inside kernels: SciPy's own routines, called by addresses that are data, so that compiled kernels can be cached."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped, unused-ignore]
from numba import njit, types
from numba.core import cgutils
from numba.extending import get_cython_function_address, intrinsic

__all__ = ["addresses", "cholesky", "invert", "rank_k", "solve_triangle", "symmetric_product"]

type Array = np.ndarray

_utilities: Any = cgutils

_ROUTINES = (("lapack", "dpotrf"), ("lapack", "dpotri"), ("blas", "dtrsm"), ("blas", "dsyrk"), ("blas", "dsymm"))
_POTRF, _POTRI, _TRSM, _SYRK, _SYMM = range(len(_ROUTINES))
_LOWER, _LEFT, _RIGHT, _PLAIN, _TRANSPOSED = (ord(letter) for letter in "LLRNT")


@cache
def addresses() -> Array:
    """Return where the routines are in this process, in the order that this module's functions expect."""
    return np.array([get_cython_function_address(f"scipy.linalg.cython_{part}", name) for part, name in _ROUTINES], dtype=np.int64)


def _call_by_address(typing_context: Any, address: Any, arguments: Any) -> Any:
    """Call a Fortran routine: arrays by their data, numbers by a copy; uint8 is a character, integers have 32 bits."""
    signature, allocate, unpack = types.void(types.int64, arguments), _utilities.alloca_once_value, _utilities.unpack_tuple

    def place(context: Any, builder: Any, kind: Any, value: Any) -> Any:
        if isinstance(kind, types.Array):
            return builder.bitcast(context.make_array(kind)(context, builder, value).data, ir.IntType(8).as_pointer())
        if isinstance(kind, types.Integer):
            value = builder.trunc(value, ir.IntType(32)) if value.type.width > 32 else value
        return builder.bitcast(allocate(builder, value), ir.IntType(8).as_pointer())

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kinds = signature.args[1].types
        places = [place(context, builder, kind, one) for kind, one in zip(kinds, unpack(builder, values[1]), strict=True)]
        function = ir.FunctionType(ir.VoidType(), [one.type for one in places])
        builder.call(builder.inttoptr(values[0], function.as_pointer()), places)
        return context.get_dummy_value()

    return signature, generate


_call: Any = intrinsic(_call_by_address)


# Arrays here are C-contiguous and of symmetric matrices the upper triangle counts: to Fortran that is the lower one of the transpose.


@njit(cache=True, nogil=True)
def cholesky(at: Array, S: Array) -> int:
    """Overwrite the upper triangle of S (n, n) by R, S = R'R; return 0, or the order of the minor that is not positive definite."""
    n, info = S.shape[0], np.zeros(1, dtype=np.int32)
    _call(at[_POTRF], (np.uint8(_LOWER), n, S, n, info))
    return int(info[0])


@njit(cache=True, nogil=True)
def invert(at: Array, R: Array) -> None:
    """Overwrite the upper triangle of R (n, n) by that of (R'R)^-1."""
    n, info = R.shape[0], np.zeros(1, dtype=np.int32)
    _call(at[_POTRI], (np.uint8(_LOWER), n, R, n, info))


@njit(cache=True, nogil=True)
def solve_triangle(at: Array, R: Array, transposed: bool, B: Array) -> None:
    """Overwrite B (n, m) by R^-1 B, or by R'^-1 B; R upper-triangular."""
    n, m = B.shape
    how = np.uint8(_TRANSPOSED) if transposed else np.uint8(_PLAIN)
    _call(at[_TRSM], (np.uint8(_RIGHT), np.uint8(_LOWER), how, np.uint8(_PLAIN), m, n, 1.0, R, n, B, m))


@njit(cache=True, nogil=True)
def rank_k(at: Array, alpha: float, W: Array, rows: int, C: Array) -> None:
    """Add alpha W'W, of the first `rows` rows of W (r, n), to the upper triangle of C (n, n)."""
    n = C.shape[0]
    _call(at[_SYRK], (np.uint8(_LOWER), np.uint8(_PLAIN), n, rows, alpha, W, n, 1.0, C, n))


@njit(cache=True, nogil=True)
def symmetric_product(at: Array, V: Array, rows: int, n: int, A: Array, Y: Array) -> None:
    """Write Y = V A of the first `rows` rows of V (r, n), A symmetric: the first n rows and columns of what is given, upper triangle."""
    _call(at[_SYMM], (np.uint8(_LEFT), np.uint8(_LOWER), n, rows, 1.0, A, A.shape[1], V, V.shape[1], 0.0, Y, Y.shape[1]))
