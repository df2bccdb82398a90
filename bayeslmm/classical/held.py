"""A criterion with one parameter held at a value: a function of all others, as profiles minimise it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from bayeslmm.classical.optimise import Box, Objective

__all__ = ["OFF_ZERO", "Held", "Holder", "affine", "correlation", "kept"]

type Array = np.ndarray
type Holder = Callable[[float], Held]
"""Value of the parameter -> the criterion with it held there."""

OFF_ZERO = 0.02
"""Standard deviations of zero start here, off the point where their gradient vanishes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """The criterion with one parameter held: a function of the others v with its gradient, their box, and a start."""

    function: Objective
    box: Box
    start: Array
    curvature: Array


def affine(function: Objective, at: Array, E: Array) -> Objective:
    """Return `function` at x = at + E v, of v, with its gradient by v."""

    def held(v: Array) -> tuple[float, Array]:
        value, gradient = function(at + E @ v)
        return value, E.T @ gradient

    return held


def kept(box: Box, keep: Array) -> Box:
    """Return the limits of some of the parameters."""
    return Box(lower=box.lower[keep], upper=box.upper[keep], mirror=box.mirror[keep])


def correlation(function: Objective, box: Box, curvature: Array, start: Array, T: Array, places: tuple[int, int, int]) -> Holder:
    """Return the criterion with the correlation of an unstructured term's first two effects held.

    The effects' factor is T L, T lower-triangular (a positive diagonal) in its first two rows `T` (2, 2); `places` are those of L00,
    L10 and L11 in x. The rows of T L are (T00 t0, 0) and (T10 t0 + T11 t1, T11 t2), the second of length T11 s, so that
    t1 = rho s - T10 t0 / T11 and t2 = sqrt(1 - rho^2) s: linear in the other variables; s takes the places of t1 and t2.

    Parameters
    ----------
    function, box, curvature
        Of x (n,).
    start
        Where to start, in x.
    T, places
        As above.
    """
    at, low, diagonal = places
    slope = float(T[1, 0]) / float(T[1, 1])
    keep = np.delete(np.arange(len(start)), low)
    here, size_at = int(np.searchsorted(keep, at)), int(np.searchsorted(keep, diagonal))
    start = start.copy()
    start[diagonal] = max(math.hypot(start[low] + slope * start[at], start[diagonal]), OFF_ZERO)
    bounded = kept(box, keep)
    is_scale = np.isin(np.arange(keep.size), [here, size_at])
    inner = Box(lower=np.where(is_scale, 0.0, bounded.lower), upper=bounded.upper, mirror=bounded.mirror & ~is_scale)

    def held(rho: float) -> Held:
        E = np.zeros((len(start), keep.size))
        E[keep, np.arange(keep.size)] = 1.0
        E[diagonal, size_at] = math.sqrt(max(1.0 - rho * rho, 0.0))
        E[low, size_at], E[low, here] = rho, -slope
        return Held(function=affine(function, np.zeros(len(start)), E), box=inner, start=start[keep], curvature=curvature[keep])

    return held
