"""From draws of the collapsed density's parameters to those of the model: values, and random effects drawn exactly given them.

Given Lambda, sigma and v = (-beta, 1), the effects b of a level have, given those of all later columns, the mean H V'z and the covariance
sigma^2 H = sigma^2 G'G (notation of `pls`): one elimination and one back substitution with noise make a joint draw of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numba import njit
from scipy.linalg import lapack

from bayeslmm.bayes.collapsed_density import Plan, Space, given_factor, linear, pls, space_of, times_lambda, to_tail, to_values
from bayeslmm.bayes.collapsed_priors import constrain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bayeslmm.bayes.collapsed_density import Density

__all__ = ["Values", "coefficients", "correlations", "deviations", "effects", "values_of"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """S draws: values `x` (S, slots), correlation factors `C` (S, sum k^2), Lambda `lam` (S, size) and `v` (S, m + 1), as in `Plan`."""

    x: Array
    C: Array
    lam: Array
    v: Array


def values_of(density: Density, u: Array) -> Values:
    """Return the values of draws u (S, d)."""
    space = space_of(density)
    x, C, lam, v = (np.empty((len(u), one.size)) for one in (space.x, space.C, space.lam, space.v))
    C[...] = 0.0
    for term in density.stretched:
        shares = [constrain(one, 0.0, 1.0)[0] for one in u[:, term.at]]
        C[:, term.matrix_at : term.matrix_at + term.k**2] = [given_factor(term, share)[0].ravel() for share in shares]
    _all_values(density.plan, np.ascontiguousarray(u), space, x, C, lam, v)
    return Values(x=x, C=C, lam=lam, v=v)


@njit(cache=True, nogil=True, error_model="numpy")
def _all_values(plan: Plan, u: Array, space: Space, x: Array, C: Array, lam: Array, v: Array) -> None:
    for s in range(u.shape[0]):
        space.C[:] = C[s]
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

    The noise is read from `rng` draw by draw, so that the result does not depend on `chunk`, the draws that are held at a time.
    """
    system, plan = density.system, density.plan
    found = tuple(np.empty((len(values.x), J, k)) for J, k in zip(system.n_levels, system.widths, strict=True))
    draw = _drawer(density)
    for which in _chunks(len(values.x), chunk):
        noise = rng.standard_normal((which.stop - which.start, system.n_columns))
        deviation = values.x[which, -1] / plan.y_scale
        z = draw(values.lam[which], values.v[which], noise * deviation[:, None])
        for f, out in enumerate(found):
            first, k = system.first_col[f], system.widths[f]
            own = z[:, first : first + k * system.n_levels[f]].reshape(len(z), -1, k)
            out[which] = -own * (plan.y_scale / plan.size[_own(density, f)])
    return found


def _chunks(n: int, size: int) -> Iterator[slice]:
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def _drawer(density: Density) -> Callable[[Array, Array, Array], Array]:
    """Return a function of Lambda (s, size), v (s, m + 1) and noise (s, columns) to z = -b (s, columns + m + 1), in units of y_scale."""
    system = density.system
    work = linear.workspace(system)
    q, tail = system.q, slice(system.levels.first_tail, system.n_columns)
    start = (system.levels, system.blocks, system.store, system.M, system.store_from)

    def at_once(lam: Array, v: Array, noise: Array) -> Array:
        z = np.empty((len(lam), system.n_columns + v.shape[1]))
        _draw_sparse(system.levels, system.store, system.M, system.store_from, lam, v, noise, work.store, work.M, work.scratch, z)
        return z

    def by_parts(lam: Array, v: Array, noise: Array) -> Array:
        z = np.empty((len(lam), system.n_columns + v.shape[1]))
        b = np.empty((q, 1))
        for s in range(len(lam)):
            to_tail(*start, lam[s], work.store, work.M, work.scratch, work.S, work.B)
            L, _ = lapack.dpotrf(work.S.T, lower=1, clean=0)
            half = lapack.dtrtrs(L, work.B @ v[s], lower=1)[0] + noise[s, tail]
            times_lambda(system.blocks, lam[s], lapack.dtrtrs(L, half, lower=1, trans=1)[0][:, None], b)
            z[s, system.n_columns :] = v[s]
            z[s, tail] = -b[:, 0]
            draw_rows(system.levels, work.store, work.scratch, noise[s], z[s])
        return z

    return by_parts if q else at_once


@njit(cache=True, nogil=True, error_model="numpy")
def _draw_sparse(
    levels: pls.Levels,
    base: Array,
    base_M: Array,
    store_from: int,
    lam: Array,
    v: Array,
    noise: Array,
    store: Array,
    M: Array,
    scratch: pls.Scratch,
    z: Array,
) -> None:
    for s in range(lam.shape[0]):
        store[store_from:] = base[store_from:]
        M[:] = base_M
        pls.eliminate(levels, lam[s], store, M, scratch)
        z[s, z.shape[1] - v.shape[1] :] = v[s]
        draw_rows(levels, store, scratch, noise[s], z[s])


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
