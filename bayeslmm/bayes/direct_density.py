"""The joint density of a generalised mixed model's parameters and random effects in one kernel: log density and exact gradient.

The coordinates x are the free scalars (coefficients of the centred design, standard deviations, further parameters) on the real line,
the rows of the free correlations, and for each level j of a factor a vector v that is standard normal where the likelihood is normal.
With b = L u, u ~ N(0, I), and the log likelihood of the rows near that of normal observations of eta, of weights W,

    A = I + L'D L = R R',   u = R'^-1 (v + R^-1 L'h),   D = Z'W Z,   h = Z'W (working response - eta without b),

level by level, one factor after the other, that of the fewest levels first: each given those before it, without those after it. W and
the working response are fixed numbers (see `direct_plan`), so that the density is exact whatever they are; du/dv is 1 / |R|. A level of
much data is thus centred, one of none is not, and all between as they should be: this is the conditional posterior of a normal model.

Sources: Papaspiliopoulos, Roberts and Skoeld (2007), Statistical Science 22(1); Gorinova, Moore and Hoffman (2020), ICML.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import cfunc, njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.numpy_support import carray

from bayeslmm.bayes.collapsed_density import FREE, correlation_adjoint, correlation_factor
from bayeslmm.bayes.collapsed_priors import Scalars, constrain, form
from bayeslmm.bayes.native import DENSITY, part, verdict

__all__ = ["Plan", "density_function", "draws", "whitened"]

type Array = np.ndarray


class Plan(NamedTuple):
    """All that the kernel needs of a model, and of the point near which it runs.

    Values (slots): p coefficients, standard deviations, A further parameters; those that are free are in `scalars`, the first entries of x;
    constants stand in `fixed`. Per term: `k` effects, `kind` of its correlation, `cor_at` where its correlations start in x, `matrix_at`
    where its (k, k) correlation factor starts in C, `power` = 2 eta - 1 + k, `column` its first effect in its factor. Per factor f:
    `width` K, `levels` J, `term_at` its first term, `sd_at` its first effect in `sd_slot`, `lam_at` where its (K, K) factor of the
    covariance starts, `z_at` its (n, K) values in `z`, `level_at` its (J, K) vectors in `target`, `info_at` its (J, K, K) D in `info`,
    `v_at` its v in x. `level`, `weights` (factors, n): the rows' levels and W. `X` (n, p) is centred; `powers` (n,) multiply the rows'
    log densities, `scale` (n,) the family's scale. x = mode + root t, root (m, m) for the first m entries, the identity for the others.
    `work_at`: where the arrays of `Work` start. `needs`, `link`, `family`: see `families.kernels`.
    """

    scalars: Scalars
    fixed: Array
    k: Array
    kind: Array
    cor_at: Array
    matrix_at: Array
    power: Array
    column: Array
    width: Array
    levels: Array
    term_at: Array
    sd_at: Array
    lam_at: Array
    z_at: Array
    level_at: Array
    info_at: Array
    v_at: Array
    sd_slot: Array
    X: Array
    offset: Array
    y: Array
    trials: Array
    scale: Array
    powers: Array
    level: Array
    z: Array
    weights: Array
    info: Array
    target: Array
    mode: Array
    root: Array
    work_at: Array
    further: int
    needs: int
    link: int
    family: int


class Work(NamedTuple):
    """Scratch of one call, cut from one array.

    Values (slots); their slopes by x and the log prior's derivatives (scalars); C and L (flat); for all levels R (J, K, K), h,
    m = R^-1 L'h, u and the effects b (J, K); eta (n,). Adjoints: of values, C, eta, the effects, one factor's L, and R and A.
    Of the response: `mean` (6, n), `value` (n,), `by` (1 + A, n). Points `x` and `by_x` (d,).
    """

    values: Array
    slope: Array
    prior: Array
    C: Array
    L: Array
    R: Array
    h: Array
    m: Array
    u: Array
    b: Array
    eta: Array
    values_bar: Array
    C_bar: Array
    eta_bar: Array
    b_bar: Array
    L_bar: Array
    R_bar: Array
    A_bar: Array
    mean: Array
    value: Array
    by: Array
    x: Array
    by_x: Array


def work_at(plan: Plan) -> Array:
    """Return where each array of `Work` starts in the scratch of a plan, and the end of the last."""
    slots, scalars, squares = len(plan.fixed), len(plan.scalars.slot), int(np.sum(plan.k**2))
    n, vectors, widest = len(plan.y), len(plan.target), int(np.max(plan.width, initial=0)) ** 2
    lams = int(np.sum(plan.width**2))
    sizes = [slots, scalars, scalars, squares, lams, len(plan.info), vectors, vectors, vectors, vectors, n]
    sizes += [
        slots,
        squares,
        n,
        vectors,
        widest,
        len(plan.info),
        len(plan.info),
        6 * n,
        n,
        (1 + plan.further) * n,
        len(plan.mode),
        len(plan.mode),
    ]
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


@njit(cache=True, nogil=True, error_model="numpy")
def _cut(space: Array, at: Array, i: int) -> Array:
    return space[at[i] : at[i + 1]]


@njit(cache=True, nogil=True, error_model="numpy")
def _work(plan: Plan, space: Array) -> Work:
    at = plan.work_at
    return Work(
        _cut(space, at, 0),
        _cut(space, at, 1),
        _cut(space, at, 2),
        _cut(space, at, 3),
        _cut(space, at, 4),
        _cut(space, at, 5),
        _cut(space, at, 6),
        _cut(space, at, 7),
        _cut(space, at, 8),
        _cut(space, at, 9),
        _cut(space, at, 10),
        _cut(space, at, 11),
        _cut(space, at, 12),
        _cut(space, at, 13),
        _cut(space, at, 14),
        _cut(space, at, 15),
        _cut(space, at, 16),
        _cut(space, at, 17),
        _cut(space, at, 18),
        _cut(space, at, 19),
        _cut(space, at, 20),
        _cut(space, at, 21),
        _cut(space, at, 22),
    )


# ------------------------------------------------------------------------------------------------------- calls of C functions


def _caller(integers: int) -> Any:
    """Return the code generator of a call (address, integers..., arrays...) -> nothing, arrays by their data."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        from llvmlite import ir  # type: ignore[import-untyped, unused-ignore]

        given = list(args[1 : 1 + integers])
        for kind, value in zip(signature.args[1 + integers :], args[1 + integers :], strict=True):
            given.append(cgutils.create_struct_proxy(kind)(context, builder, value).data)  # type: ignore[no-untyped-call]
        function = ir.FunctionType(ir.VoidType(), [one.type for one in given]).as_pointer()
        builder.call(builder.inttoptr(args[0], function), given)
        return context.get_dummy_value()

    return generate


def _bare_code(typing: Any, array: Any) -> Any:
    """The same array, not counted: cuts of it cost no atomic operations. Its owner must live longer."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        given = cgutils.create_struct_proxy(signature.args[0])(context, builder, args[0])  # type: ignore[no-untyped-call]
        for name in ("meminfo", "parent"):
            setattr(given, name, getattr(given, name).type(None))
        return given._getvalue()

    return array(array), generate


def _call_link_code(typing: Any, address: Any, n: Any, needs: Any, eta: Any, mean: Any) -> Any:
    return types.void(types.int64, types.int64, types.int64, eta, mean), _caller(2)


def _call_family_code(
    typing: Any, address: Any, n: Any, y: Any, trials: Any, scale: Any, mean: Any, aux: Any, value: Any, slope: Any
) -> Any:
    return types.void(types.int64, types.int64, y, trials, scale, mean, aux, value, slope), _caller(1)


_bare: Any = intrinsic(_bare_code)
_call_link: Any = intrinsic(_call_link_code)
_call_family: Any = intrinsic(_call_family_code)


# --------------------------------------------------------------------------------------------------------------------- forward


@njit(cache=True, nogil=True, error_model="numpy")
def _to_values(plan: Plan, x: Array, work: Work) -> float:
    """Write the values, C and each factor's L; return the log prior with its Jacobian, and keep its derivative by the scalars."""
    scalars, total = plan.scalars, 0.0
    work.values[:] = plan.fixed
    for i in range(scalars.slot.size):
        value, slope, log_jacobian, its_slope = constrain(x[i], scalars.lower[i], scalars.upper[i])
        log_prior, by_value = form(scalars.kind[i], scalars.args[i], value)
        work.values[scalars.slot[i]] = value
        work.slope[i] = slope
        work.prior[i] = by_value * slope + its_slope
        total += log_prior + log_jacobian
    work.L[:] = 0.0
    for f in range(plan.width.size):
        K = plan.width[f]
        for t in range(plan.term_at[f], plan.term_at[f + 1]):
            total += correlation_factor(plan, t, x, work.C)
            k, first = plan.k[t], plan.column[t]
            for i in range(k):
                sd = work.values[plan.sd_slot[plan.sd_at[f] + first + i]]
                for j in range(i + 1):
                    work.L[plan.lam_at[f] + (first + i) * K + first + j] = sd * work.C[plan.matrix_at[t] + i * k + j]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _fixed_part(plan: Plan, work: Work) -> None:
    """Write eta of the fixed effects and the offset."""
    p = plan.X.shape[1]
    for i in range(plan.y.size):
        eta = plan.offset[i]
        for c in range(p):
            eta += plan.X[i, c] * work.values[c]
        work.eta[i] = eta


# Functions of all levels of a factor: J levels of K effects, whose matrices start at d0, vectors at a0, and v at v0 in x. They take no
# records, and run over the levels themselves: a call with many arrays costs more than a level.


@njit(cache=True, nogil=True, error_model="numpy")
def _choleskys(J: int, K: int, d0: int, info: Array, L: Array, R: Array) -> None:
    """Write R R' = I + L'D L."""
    for j in range(J):
        d = d0 + j * K * K
        for a in range(K):
            for b in range(a + 1):
                total = 1.0 if a == b else 0.0
                for c in range(a, K):
                    for e in range(b, K):
                        total += L[c * K + a] * info[d + c * K + e] * L[e * K + b]
                for c in range(b):
                    total -= R[d + a * K + c] * R[d + b * K + c]
                R[d + a * K + b] = math.sqrt(total) if a == b else total / R[d + b * K + b]


@njit(cache=True, nogil=True, error_model="numpy")
def _means(J: int, K: int, d0: int, a0: int, L: Array, R: Array, h: Array, m: Array) -> None:
    """Write m = R^-1 L'h."""
    for j in range(J):
        d, at = d0 + j * K * K, a0 + j * K
        for a in range(K):
            value = 0.0
            for c in range(a, K):
                value += L[c * K + a] * h[at + c]
            for c in range(a):
                value -= R[d + a * K + c] * m[at + c]
            m[at + a] = value / R[d + a * K + a]


@njit(cache=True, nogil=True, error_model="numpy")
def _effects(J: int, K: int, d0: int, a0: int, v0: int, x: Array, L: Array, R: Array, m: Array, u: Array, b: Array) -> float:
    """Write u = R'^-1 (v + m) and b = L u; return the log density of v, without the response's part."""
    total, volume = 0.0, 1.0
    for j in range(J):
        d, at, v = d0 + j * K * K, a0 + j * K, v0 + j * K
        for a in range(K - 1, -1, -1):
            value = x[v + a] + m[at + a]
            for c in range(a + 1, K):
                value -= R[d + c * K + a] * u[at + c]
            u[at + a] = value / R[d + a * K + a]
            total -= 0.5 * u[at + a] * u[at + a]
            volume *= R[d + a * K + a]
        if volume > 1e100:
            total, volume = total - math.log(volume), 1.0
        for a in range(K):
            b[at + a] = 0.0
            for c in range(a + 1):
                b[at + a] += L[a * K + c] * u[at + c]
    return total - math.log(volume)


@njit(cache=True, nogil=True, error_model="numpy")
def _single_effects(
    J: int, d0: int, a0: int, v0: int, x: Array, info: Array, L: Array, R: Array, h: Array, m: Array, u: Array, b: Array
) -> float:
    """Do what `_choleskys`, `_means` and `_effects` do for K = 1, but write 1 / R in place of R."""
    total, volume, s = 0.0, 1.0, L[0]
    for j in range(J):
        d, at = d0 + j, a0 + j
        A = 1.0 + s * s * info[d]
        R[d] = 1.0 / math.sqrt(A)
        m[at] = s * h[at] * R[d]
        u[at] = (x[v0 + j] + m[at]) * R[d]
        b[at] = s * u[at]
        total -= 0.5 * u[at] * u[at]
        volume *= A
        if volume > 1e100:
            total, volume = total - 0.5 * math.log(volume), 1.0
    return total - 0.5 * math.log(volume)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_factor(plan: Plan, f: int, x: Array, work: Work) -> float:
    """Write the effects of factor f from its v in x and add them to eta; return the log density of v, without the response's part."""
    n, K, J = plan.y.size, plan.width[f], plan.levels[f]
    at, z_at, v_at = plan.level_at[f], plan.z_at[f], plan.v_at[f]
    L = work.L[plan.lam_at[f] : plan.lam_at[f] + K * K]
    h, b = work.h, work.b
    h[at : at + J * K] = plan.target[at : at + J * K]
    for i in range(n):
        weighted, level = plan.weights[f, i] * work.eta[i], at + plan.level[f, i] * K
        for c in range(K):
            h[level + c] -= weighted * plan.z[z_at + i * K + c]
    d = plan.info_at[f]
    if K == 1:
        total: float = _single_effects(J, d, at, v_at, x, plan.info, L, work.R, h, work.m, work.u, b)
    else:
        _choleskys(J, K, d, plan.info, L, work.R)
        _means(J, K, d, at, L, work.R, h, work.m)
        total = _effects(J, K, d, at, v_at, x, L, work.R, work.m, work.u, b)
    for i in range(n):
        level = at + plan.level[f, i] * K
        for c in range(K):
            work.eta[i] += plan.z[z_at + i * K + c] * b[level + c]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _forward(plan: Plan, x: Array, work: Work) -> float:
    """Write all of `work`; return the log density of everything but the response."""
    total = _to_values(plan, x, work)
    _fixed_part(plan, work)
    for f in range(plan.width.size - 1, -1, -1):
        total += _add_factor(plan, f, x, work)
    return total


# -------------------------------------------------------------------------------------------------------------------- backward


@njit(cache=True, nogil=True, error_model="numpy")
def _v_adjoints(J: int, K: int, d0: int, a0: int, v0: int, L: Array, R: Array, u: Array, bbar: Array, Lbar: Array, vbar: Array) -> None:
    """Write the adjoint of v from that of the effects, and add to that of L the share of b = L u."""
    for j in range(J):
        d, at, v = d0 + j * K * K, a0 + j * K, v0 + j * K
        for a in range(K):
            total = -u[at + a]
            for c in range(a, K):
                total += L[c * K + a] * bbar[at + c]
                Lbar[c * K + a] += bbar[at + c] * u[at + a]
            for c in range(a):
                total -= R[d + a * K + c] * vbar[v + c]
            vbar[v + a] = total / R[d + a * K + a]


@njit(cache=True, nogil=True, error_model="numpy")
def _h_adjoints(
    J: int,
    K: int,
    d0: int,
    a0: int,
    v0: int,
    L: Array,
    R: Array,
    m: Array,
    u: Array,
    h: Array,
    vbar: Array,
    Lbar: Array,
    Rbar: Array,
    hbar: Array,
) -> None:
    """Write the adjoints of h and R from that of v, and add to that of L the share of L'h."""
    for j in range(J):
        d, at, v = d0 + j * K * K, a0 + j * K, v0 + j * K
        for a in range(K - 1, -1, -1):
            total = vbar[v + a]
            for c in range(a + 1, K):
                total -= R[d + c * K + a] * hbar[at + c]
            hbar[at + a] = total / R[d + a * K + a]
        for a in range(K):
            for c in range(a + 1):
                Lbar[a * K + c] += h[at + a] * hbar[at + c]
                Rbar[d + a * K + c] = -u[at + a] * vbar[v + c] - hbar[at + a] * m[at + c]
            Rbar[d + a * K + a] -= 1.0 / R[d + a * K + a]
        for a in range(K - 1, -1, -1):
            total = 0.0
            for c in range(a + 1):
                total += L[a * K + c] * hbar[at + c]
            hbar[at + a] = total


@njit(cache=True, nogil=True, error_model="numpy")
def _cholesky_adjoints(J: int, K: int, d0: int, R: Array, Rbar: Array, Abar: Array) -> None:
    """Write Abar, symmetric, of A = R R': R'^-1 S R^-1 / 2, S the lower triangle of R'Rbar made symmetric (Smith 1995)."""
    for j in range(J):
        d = d0 + j * K * K
        for a in range(K):
            for b in range(a + 1):
                total = 0.0
                for c in range(a, K):
                    total += R[d + c * K + a] * Rbar[d + c * K + b]
                Abar[d + a * K + b] = Abar[d + b * K + a] = 0.5 * total
        for b in range(K):
            for a in range(K - 1, -1, -1):
                total = Abar[d + a * K + b]
                for c in range(a + 1, K):
                    total -= R[d + c * K + a] * Abar[d + c * K + b]
                Abar[d + a * K + b] = total / R[d + a * K + a]
        for a in range(K):
            for b in range(K - 1, -1, -1):
                total = Abar[d + a * K + b]
                for c in range(b + 1, K):
                    total -= R[d + c * K + b] * Abar[d + a * K + c]
                Abar[d + a * K + b] = total / R[d + b * K + b]


@njit(cache=True, nogil=True, error_model="numpy")
def _information_adjoints(J: int, K: int, d0: int, info: Array, L: Array, Abar: Array, Lbar: Array) -> None:
    """Add 2 D L Abar, the share of L'D L, to the adjoint of L."""
    for j in range(J):
        d = d0 + j * K * K
        for a in range(K):
            for e in range(K):
                total = 0.0
                for c in range(e, K):
                    total += info[d + a * K + c] * L[c * K + e]
                for b in range(a + 1):
                    Lbar[a * K + b] += 2.0 * total * Abar[d + e * K + b]


@njit(cache=True, nogil=True, error_model="numpy")
def _single_adjoints(
    J: int, d0: int, a0: int, v0: int, info: Array, L: Array, R: Array, m: Array, u: Array, h: Array, bbar: Array, Lbar: Array, vbar: Array
) -> None:
    """Do what the four functions above do for K = 1, from 1 / R in place of R; the adjoint of h replaces that of the effects."""
    total, s = 0.0, L[0]
    for j in range(J):
        d, at = d0 + j, a0 + j
        v = (s * bbar[at] - u[at]) * R[d]
        w = v * R[d]
        Rbar = -u[at] * v - w * m[at] - R[d]
        total += bbar[at] * u[at] + h[at] * w + info[d] * s * Rbar * R[d]
        bbar[at] = s * w
        vbar[v0 + j] = v
    Lbar[0] += total


@njit(cache=True, nogil=True, error_model="numpy")
def _factor_adjoint(plan: Plan, f: int, work: Work, grad: Array) -> None:
    """Write the gradient by v of factor f and L's adjoint; turn that of eta into that of eta without the factor's effects."""
    n, K, J = plan.y.size, plan.width[f], plan.levels[f]
    z_at, v_at, first = plan.z_at[f], plan.v_at[f], plan.level_at[f]
    L = work.L[plan.lam_at[f] : plan.lam_at[f] + K * K]
    info, R, h, m, u = plan.info, work.R, work.h, work.m, work.u
    b, Lbar, Rbar, Abar, bar = work.b_bar, work.L_bar, work.R_bar, work.A_bar, work.eta_bar
    b[first : first + J * K] = 0.0
    Lbar[: K * K] = 0.0
    for i in range(n):
        level = first + plan.level[f, i] * K
        for c in range(K):
            b[level + c] += plan.z[z_at + i * K + c] * bar[i]
    d = plan.info_at[f]
    if K == 1:
        _single_adjoints(J, d, first, v_at, info, L, R, m, u, h, b, Lbar, grad)
    else:
        _v_adjoints(J, K, d, first, v_at, L, R, u, b, Lbar, grad)
        _h_adjoints(J, K, d, first, v_at, L, R, m, u, h, grad, Lbar, Rbar, b)
        _cholesky_adjoints(J, K, d, R, Rbar, Abar)
        _information_adjoints(J, K, d, info, L, Abar, Lbar)
    for i in range(n):
        level = first + plan.level[f, i] * K
        for c in range(K):
            bar[i] -= plan.weights[f, i] * plan.z[z_at + i * K + c] * b[level + c]


@njit(cache=True, nogil=True, error_model="numpy")
def _covariance_adjoint(plan: Plan, f: int, work: Work, grad: Array) -> None:
    """Add to the adjoints of the standard deviations of factor f and write the gradient by its correlations."""
    K = plan.width[f]
    for t in range(plan.term_at[f], plan.term_at[f + 1]):
        k, first, at = plan.k[t], plan.column[t], plan.matrix_at[t]
        for i in range(k):
            slot = plan.sd_slot[plan.sd_at[f] + first + i]
            for j in range(i + 1):
                bar = work.L_bar[(first + i) * K + first + j]
                work.values_bar[slot] += bar * work.C[at + i * k + j]
                work.C_bar[at + i * k + j] = bar * work.values[slot]
        if plan.kind[t] == FREE:
            correlation_adjoint(plan, t, work.C, work.C_bar, grad)


@njit(cache=True, nogil=True, error_model="numpy")
def _response(plan: Plan, work: Work) -> float:
    """Return the log likelihood; write its derivatives by eta (n,) and add those by the further parameters."""
    n, A = plan.y.size, plan.further
    aux_at = work.values.size - A
    _call_link(plan.link, n, plan.needs, work.eta, work.mean)
    _call_family(plan.family, n, plan.y, plan.trials, plan.scale, work.mean, work.values[aux_at:], work.value, work.by)
    total = 0.0
    for i in range(n):
        total += plan.powers[i] * work.value[i]
        work.eta_bar[i] = plan.powers[i] * work.by[i]
    for a in range(A):
        for i in range(n):
            work.values_bar[aux_at + a] += plan.powers[i] * work.by[(1 + a) * n + i]
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def log_density(plan: Plan, x: Array, work: Work, grad: Array) -> float:
    """Return the log density at x, but for a constant, and write its gradient (d,)."""
    work.values_bar[:] = 0.0
    total = _forward(plan, x, work)
    total += _response(plan, work)
    for f in range(plan.width.size):
        _factor_adjoint(plan, f, work, grad)
        _covariance_adjoint(plan, f, work, grad)
    for i in range(plan.y.size):
        for c in range(plan.X.shape[1]):
            work.values_bar[c] += plan.X[i, c] * work.eta_bar[i]
    for i in range(plan.scalars.slot.size):
        grad[i] = work.values_bar[plan.scalars.slot[i]] * work.slope[i] + work.prior[i]
    return total


# ------------------------------------------------------------------------------------------------------------------- the buffer


@njit(cache=True, nogil=True, error_model="numpy")
def _plan(ints: Array, reals: Array) -> Plan:
    """Return the plan that `direct_plan.laid_out` has put into a buffer."""
    numbers = part(ints, ints, 0)
    kind = part(ints, ints, 2)
    F = part(ints, ints, 13).size
    y = part(reals, ints, 26)
    m = numbers[4]
    return Plan(
        Scalars(
            part(ints, ints, 1),
            kind,
            part(reals, ints, 3).reshape((kind.size, 4)),
            part(reals, ints, 4),
            part(reals, ints, 5),
        ),
        part(reals, ints, 6),
        part(ints, ints, 7),
        part(ints, ints, 8),
        part(ints, ints, 9),
        part(ints, ints, 10),
        part(reals, ints, 11),
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
        part(ints, ints, 22),
        part(reals, ints, 23).reshape((y.size, numbers[5])),
        part(reals, ints, 24),
        y,
        part(reals, ints, 25),
        part(reals, ints, 27),
        part(reals, ints, 28),
        part(ints, ints, 29).reshape((F, y.size)),
        part(reals, ints, 30),
        part(reals, ints, 31).reshape((F, y.size)),
        part(reals, ints, 32),
        part(reals, ints, 33),
        part(reals, ints, 34),
        part(reals, ints, 35).reshape((m, m)),
        part(ints, ints, 36),
        numbers[0],
        numbers[1],
        numbers[2],
        numbers[3],
    )


@njit(cache=True, nogil=True, error_model="numpy")
def _point(plan: Plan, t: Array, x: Array) -> None:
    """Write x = mode + root t."""
    x[:] = plan.mode + t
    for i in range(plan.root.shape[0]):
        x[i] = plan.mode[i]
        for j in range(plan.root.shape[0]):
            x[i] += plan.root[i, j] * t[j]


@njit(cache=True, nogil=True, error_model="numpy")
def whitened(ints: Array, reals: Array, t: Array, grad: Array) -> float:
    """Return the log density at x = mode + root t, but for a constant, and write its gradient by t; `ints`, `reals`: the buffer."""
    plan = _plan(_bare(ints), _bare(reals))
    space = np.empty(plan.work_at[plan.work_at.size - 1])
    work, m = _work(plan, _bare(space)), plan.root.shape[0]
    by_x = work.by_x
    _point(plan, t, work.x)
    value = log_density(plan, work.x, work, by_x)
    grad[m:] = by_x[m:]
    for j in range(m):
        grad[j] = 0.0
        for i in range(m):
            grad[j] += plan.root[i, j] * by_x[i]
    space[0] = 0.0  # so long it lives
    return value


@njit(cache=True, nogil=True, error_model="numpy")
def draws(ints: Array, reals: Array, t: Array, values: Array, C: Array, b: Array, eta: Array) -> None:
    """Write what points t (S, d) are: values (S, slots), correlation factors (S, sum k^2), effects (S, sum JK); eta (n,) of the last."""
    plan = _plan(_bare(ints), _bare(reals))
    space = np.empty(plan.work_at[plan.work_at.size - 1])
    work = _work(plan, _bare(space))
    for s in range(t.shape[0]):
        _point(plan, t[s], work.x)
        _forward(plan, work.x, work)
        values[s] = work.values
        C[s] = work.C
        b[s] = work.b
    eta[:] = work.eta
    space[0] = 0.0  # so long it lives


@cfunc(DENSITY, cache=True)
def density_function(dim: int, t: Any, grad: Any, value: Any, data: Any) -> int:
    """What nutpie calls."""
    size = carray(data, (1,), np.int64)[0]
    gradient = carray(grad, (dim,))
    found = whitened(carray(data, (size,), np.int64), carray(data, (size,), np.float64), carray(t, (dim,)), gradient)
    carray(value, (1,))[0] = found
    return verdict(found, gradient)
