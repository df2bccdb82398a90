"""Log densities of rows in compiled code: what a family and a link give a sampler that runs without Python.

A kernel is a plain function over pointers or arrays, in the part of Python that Numba compiles; it is compiled where it is first needed
and kept in Numba's cache. The mean of a row is handed from link to family as six numbers, `MEAN` rows of n: mu, log mu, log(1 - mu), each
with its derivative by eta behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bayeslmm.families.base import Family, Link

__all__ = ["LOGS", "MEAN", "PROBABILITY", "VALUE", "Kernel", "family_address", "link_address", "rows"]

type Array = np.ndarray

VALUE, LOGS, PROBABILITY = range(3)
"""What a family needs of the mean: mu alone, log mu too, log(1 - mu) too."""
MEAN = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A family's log density of n rows, compiled.

    Attributes
    ----------
    rows
        `(n, y, trials, scale, mean, aux, value, slope)`: writes the log density (n,), but for terms of y and trials alone, into `value`,
        and its derivatives (1 + A, n), by eta and by the A further parameters, into `slope`. `mean` (6, n) comes from the link; `aux` (A,)
        are the further parameters, on their own scale; `scale` (n,) multiplies that which weights rescale.
    needs
        `VALUE`, `LOGS` or `PROBABILITY`: which of the mean's six numbers are wanted.
    """

    rows: Callable[..., None]
    needs: int


@cache
def _register(function: Any) -> None:
    """Let compiled code call the functions of this package that a kernel calls by name, and those that they call."""
    from numba.extending import register_jitable

    for name in function.__code__.co_names:
        called = function.__globals__.get(name)
        if isinstance(called, FunctionType) and called.__module__.startswith(__package__):
            register_jitable(called)
            _register(called)


@cache
def _compiled(function: Callable[..., None], pointers: int, integers: int) -> Any:
    """Return a kernel's C function of some integers, then pointers to numbers."""
    from numba import cfunc, types

    _register(function)
    numbers = types.CPointer(types.double)  # type: ignore[no-untyped-call]
    signature = types.void(*[types.int64] * integers, *[numbers] * pointers)
    return cfunc(signature, cache=True, error_model="numpy")(function)


def link_address(link: Link) -> int:
    """Return the address of a link's C function (n, needs, eta, mean)."""
    assert link.kernel is not None
    return int(_compiled(link.kernel, 2, 2).address)


def family_address(family: Family) -> int:
    """Return the address of a family's C function, with the arguments of `Kernel.rows`."""
    assert family.kernel is not None
    return int(_compiled(family.kernel.rows, 7, 1).address)


def rows(family: Family, link: Link, y: Array, eta: Array, aux: Array, trials: Array | None = None) -> tuple[Array, Array]:
    """Return value (n,) and slope (1 + A, n) of a family's kernel at linear predictors (n,) and further parameters (A,)."""
    from ctypes import POINTER, c_double

    assert family.kernel is not None
    assert link.kernel is not None
    n = len(y)
    mean, value, slope = np.zeros((MEAN, n)), np.zeros(n), np.zeros((1 + len(aux), n))
    held = [np.array(one, dtype=float) for one in (y, np.ones(n) if trials is None else trials, np.ones(n), eta, aux)]

    def at(array: Array) -> Any:
        return array.ctypes.data_as(POINTER(c_double))

    y_, trials_, scale_, eta_, aux_ = map(at, held)
    _compiled(link.kernel, 2, 2).ctypes(n, family.kernel.needs, eta_, at(mean))
    _compiled(family.kernel.rows, 7, 1).ctypes(n, y_, trials_, scale_, at(mean), aux_, at(value), at(slope))
    return value, slope
