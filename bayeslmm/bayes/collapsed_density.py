"""The posterior of a Gaussian linear mixed model with its random effects integrated out: log density and exact gradient.

With V = sigma^2 (W^-1 + Z Lambda Lambda'Z') and v = (-beta, 1), all that the density needs of n rows is F = [X y]'(V / sigma^2)^-1 [X y],
which the elimination of `system` makes from products that are formed once:

    log p(y | beta, Lambda, sigma) = -n/2 log(2 pi sigma^2) + (sum log w) / 2 - log|I + Lambda'Z'WZ Lambda| / 2 - v'F v / (2 sigma^2).

The adjoint of the same elimination, started with v v' / sigma^2, is the gradient by Lambda. Parameters are those of `translate`, on the
real line with their Jacobians: coefficients of the centred design, standard deviations, correlations by the rows of their Cholesky factor
(y / sqrt(1 + |y|^2), 1 / sqrt(1 + |y|^2)), sigma. X enters by an orthonormal basis, y as its least-squares residual, the columns of Z
in units of their root mean square, so that digits are kept whatever the units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit
from scipy.linalg import lapack
from scipy.special import betaln

from bayeslmm.bayes.collapsed_priors import Scalars, constrain, form, scalars_of
from bayeslmm.bayes.translate import Factor, deviation_slots, factors, has_correlation, rows_of
from bayeslmm.linear import pls
from bayeslmm.linear import system as linear
from bayeslmm.priors import INTERCEPT, Distribution, PriorRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bayeslmm.covariance import Structure
    from bayeslmm.model import Model

__all__ = ["Density", "Evaluator", "Plan", "density_of", "evaluator", "linear", "pls"]

type Array = np.ndarray

_INDEPENDENT, _FREE, _GIVEN = range(3)


class Plan(NamedTuple):
    """All that a kernel needs to go from a point u on the real line to the arguments of the elimination, and back.

    Values x (in slots): p coefficients, standard deviations, the parameters of `cs` and `ar1` stretched to (0, 1), sigma last. Those
    that are free are in `scalars`, u's first entries; constants stand in `fixed` (slots,). Behind them in u: the rows of the free
    correlations. `G` (m, p), `centre` (p,): v = (-G (x - centre), 1). `y_scale`: unit of the response. `rows`: n, or the sum of
    brms's weights. Per term t: `k` effects, `kind` of its correlation, `lam_at` and `width` of its factor's block in Lambda,
    `effect_at` where its effects start in `sd_slot` and `size` (the factors' effects), `cor_at` where its correlations start in u,
    `matrix_at` where its (k, k) correlation factor stands in C, `power` = 2 eta - 1 + k.
    """

    scalars: Scalars
    fixed: Array
    G: Array
    centre: Array
    y_scale: float
    rows: float
    constant: float
    k: Array
    kind: Array
    lam_at: Array
    width: Array
    effect_at: Array
    cor_at: Array
    matrix_at: Array
    power: Array
    sd_slot: Array
    size: Array


class Space(NamedTuple):
    """Scratch of one thread: values x and adjoints (slots), dx/du and d log prior / du (scalars), C and adjoint (flat), L, v, Fv."""

    x: Array
    xbar: Array
    slope: Array
    prior: Array
    C: Array
    Cbar: Array
    lam: Array
    v: Array
    Fv: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretched:
    """A term whose correlation matrix has one parameter, stretched from (0, 1): its places in u and in C."""

    at: int
    matrix_at: int
    k: int
    structure: Structure


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """The log density of u (d,) of one model: the products of its data, and how u becomes parameters.

    `means` (p,): of the columns of X that the coefficients are centred by, zero for the intercept
    at `intercept` (-1: nothing is centred). `stretched`: terms of `cs` and `ar1`. `start` (d,), `scale` (d,): where a search may
    begin, and a rough standard deviation of each entry.
    """

    system: linear.System
    plan: Plan
    groups: tuple[Factor, ...]
    stretched: tuple[Stretched, ...]
    fixed_names: tuple[str, ...]
    means: Array
    intercept: int
    start: Array
    scale: Array

    @property
    def dim(self) -> int:
        """The number of parameters."""
        return len(self.start)

    @property
    def p(self) -> int:
        """The number of coefficients."""
        return len(self.means)


type Evaluator = Callable[[Array], tuple[float, Array]]


# --------------------------------------------------------------------------------------------------------------------- preparing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Term:
    """One random term: its factor, first column in it, and the prior of its correlations."""

    factor: int
    column: int
    k: int
    structure: Structure
    kind: int
    eta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Basis:
    """[Q, residual / y_scale] with the weights' roots in, and v = (-G (x - centre), 1) in these columns."""

    XY: Array
    G: Array
    centre: Array
    y_scale: float


def density_of(model: Model) -> Density:
    """Return the collapsed density of a Gaussian linear mixed model to which it applies (see `collapsed.limit`)."""
    design, groups = model.design, factors(model)
    weights = design.weights if design.has_weights else np.ones(design.n)
    root = np.sqrt(weights)
    coefficients, intercept = _coefficients(model)
    means = np.where(np.arange(len(coefficients)) == intercept, 0.0, design.X.mean(axis=0)) * (intercept >= 0)
    basis = _basis((design.X - means) * root[:, None], (design.y - design.offset) * root)
    columns = [np.column_stack([block.values for block in group.blocks]) * root[:, None] for group in groups]
    sizes = [_sizes(z) for z in columns]
    system = linear.assemble(
        [
            linear.Factor(index=group.blocks[0].index, n_levels=len(group.levels), z=z / size)
            for group, z, size in zip(groups, columns, sizes, strict=True)
        ],
        basis.XY,
    )
    terms = [term for f, group in enumerate(groups) for term in _terms(model, f, group)]
    deviations = [rows_of(model, "sd", "", group.group) for group in groups]
    units = [_unit_row(term.eta) for term in terms if term.kind == _GIVEN]
    rows = [*coefficients, *(row for own in deviations for row in own), *units, *rows_of(model, "aux")]
    first = np.cumsum([len(coefficients), *(len(own) for own in deviations)])
    slots = [start + deviation_slots(group) for start, group in zip(first, groups, strict=False)]
    free = [(slot, row) for slot, row in enumerate(rows) if row.distribution.name != "constant"]
    scalars, constant = scalars_of(free, model.family)
    precise = model.dialect == "lme4"
    n = float(design.n if precise else np.sum(weights))
    constant += -0.5 * n * math.log(2.0 * math.pi) + (0.5 * float(np.sum(np.log(weights))) if precise else 0.0)
    plan = Plan(
        scalars=scalars,
        fixed=np.array([row.distribution.args[0] if row.distribution.name == "constant" else 0.0 for row in rows]),
        G=basis.G,
        centre=basis.centre,
        y_scale=basis.y_scale,
        rows=n,
        constant=constant + sum(_normaliser(term) for term in terms),
        sd_slot=np.concatenate([np.zeros(0), *slots]).astype(np.int64),
        size=np.concatenate([np.zeros(0), *sizes]),
        **_places(terms, system, len(free)),
    )
    start, scale = _start(plan, len(coefficients))
    return Density(
        system=system,
        plan=plan,
        groups=groups,
        stretched=_stretched(plan, terms, len(rows) - 1 - len(units)),
        fixed_names=design.fixed.names,
        means=means,
        intercept=intercept,
        start=start,
        scale=scale,
    )


def _coefficients(model: Model) -> tuple[list[PriorRow], int]:
    """Return the prior rows of the coefficients in the design's order, and the place of the centred intercept among them, or -1."""
    intercept, slopes = rows_of(model, "intercept"), rows_of(model, "fixed")
    if not intercept:
        return slopes, -1
    at = model.design.fixed.names.index(INTERCEPT)
    return [*slopes[:at], *intercept, *slopes[at:]], at


def _basis(X: Array, y: Array) -> _Basis:
    """Return an orthonormal basis of X (n, p) beside what it leaves of y (n,), both with the weights' roots in.

    Where nothing is left, y is kept as it is: priors make a posterior even then.
    """
    lengths = _sizes(X)
    Q, R = np.linalg.qr(X / lengths)
    first = Q.T @ y
    residual = y - Q @ first
    second = Q.T @ residual
    residual = residual - Q @ second
    y_scale = float(np.sqrt(np.mean(residual**2)))
    if not y_scale > 1e-10 * float(np.sqrt(np.mean(y**2))):
        y_scale, first, second, residual = float(np.sqrt(np.mean(y**2))) or 1.0, np.zeros_like(first), np.zeros_like(first), y
    centre = np.linalg.lstsq(R, first + second)[0] / lengths
    return _Basis(XY=np.column_stack([Q, residual / y_scale]), G=R * lengths / y_scale, centre=centre, y_scale=y_scale)


def _sizes(columns: Array) -> Array:
    """Return the root mean square of each column, one for a column of zeros."""
    largest = np.max(np.abs(columns), axis=0, initial=0.0)
    largest = np.where(largest > 0.0, largest, 1.0)
    size = largest * np.sqrt(np.mean((columns / largest) ** 2, axis=0))
    return np.where(size > 0.0, size, 1.0)


def _terms(model: Model, f: int, group: Factor) -> list[_Term]:
    etas = iter(rows_of(model, "cor", "", group.group))
    found = []
    for block, columns, structure in zip(group.blocks, group.columns, group.structures, strict=True):
        correlated = has_correlation(block, structure)
        kind = _INDEPENDENT if not correlated else _FREE if structure.linear else _GIVEN
        eta = next(etas).distribution.args[0] if correlated else 1.0
        found.append(_Term(factor=f, column=int(columns[0]), k=block.n_effects, structure=structure, kind=kind, eta=eta))
    return found


def _unit_row(eta: float) -> PriorRow:
    """Return the prior of a correlation's parameter, stretched to (0, 1), as `Structure.pymc_cholesky` has it."""
    return PriorRow(part="cor", distribution=Distribution(name="beta", args=(eta, eta)))


def _normaliser(term: _Term) -> float:
    """Return the log of the LKJ density's constant (Lewandowski, Kurowicka and Joe 2009, equation 16), 0 for other correlations."""
    if term.kind != _FREE:
        return 0.0
    j = np.arange(1, term.k)
    half = term.eta + (term.k - j - 1) / 2.0
    return -float(np.sum((term.k - j) * ((2.0 * term.eta - 2.0 + term.k - j) * math.log(2.0) + betaln(half, half))))


def _places(terms: Sequence[_Term], system: linear.System, n_scalars: int) -> dict[str, Array]:
    """Return the plan's arrays by term."""
    starts = np.concatenate([[0], np.cumsum(system.widths)]).astype(np.int64)
    factor, column, k = (np.array([getattr(term, name) for term in terms], dtype=np.int64) for name in ("factor", "column", "k"))
    widths = np.array(system.widths, dtype=np.int64)[factor]
    counts = [term.k * (term.k - 1) // 2 if term.kind == _FREE else 0 for term in terms]
    return {
        "k": k,
        "kind": np.array([term.kind for term in terms], dtype=np.int64),
        "lam_at": np.array(system.lam_at, dtype=np.int64)[factor] + column * (widths + 1),
        "width": widths,
        "effect_at": starts[factor] + column,
        "cor_at": n_scalars + np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)[: len(terms)],
        "matrix_at": np.concatenate([[0], np.cumsum(k**2)[:-1]]).astype(np.int64)[: len(terms)],
        "power": np.array([2.0 * term.eta - 1.0 + term.k for term in terms]),
    }


def _stretched(plan: Plan, terms: Sequence[_Term], slot: int) -> tuple[Stretched, ...]:
    """Return the terms of `cs` and `ar1`; the first one's parameter is the value in `slot`."""
    given = [(term, int(at)) for term, at in zip(terms, plan.matrix_at, strict=True) if term.kind == _GIVEN]
    places = [int(np.flatnonzero(plan.scalars.slot == slot + i)[0]) for i in range(len(given))]
    return tuple(
        Stretched(at=at, matrix_at=matrix_at, k=term.k, structure=term.structure)
        for at, (term, matrix_at) in zip(places, given, strict=True)
    )


def _start(plan: Plan, p: int) -> tuple[Array, Array]:
    """Return where a search for the mode may begin, (d,), and a rough scale of each entry: least squares, middling variances."""
    x = np.full(len(plan.fixed), 0.5)
    x[:p] = plan.centre
    x[plan.sd_slot] = 0.7 * plan.y_scale / plan.size
    x[-1] = 0.8 * plan.y_scale
    spread = np.ones(len(x))
    spread[:p] = 1.0 / np.sqrt(np.maximum(np.sum(plan.G**2, axis=0), np.finfo(float).tiny))
    slot, dim = plan.scalars.slot, len(plan.scalars.slot) + int(np.sum(np.where(plan.kind == _FREE, plan.k * (plan.k - 1) // 2, 0)))
    start, scale = np.zeros(dim), np.ones(dim)
    for i, at in enumerate(slot):
        start[i] = _unconstrained(x[at], plan.scalars.lower[i], plan.scalars.upper[i])
        bounded = np.isfinite(plan.scalars.lower[i]) or np.isfinite(plan.scalars.upper[i])
        scale[i] = 1.0 if bounded else spread[at]
    return start, scale


def _unconstrained(x: float, lower: float, upper: float) -> float:
    """Return u of a value x, which is moved into its range; the inverse of `constrain`."""
    if np.isfinite(lower) and np.isfinite(upper):
        share = min(max((x - lower) / (upper - lower), 0.02), 0.98)
        return math.log(share / (1.0 - share))
    if np.isfinite(lower):
        return math.log(x - lower) if x > lower else 0.0
    if np.isfinite(upper):
        return math.log(upper - x) if x < upper else 0.0
    return float(x)


# -------------------------------------------------------------------------------------------------------------------- evaluation


@njit(cache=True, nogil=True, error_model="numpy")
def to_values(plan: Plan, u: Array, space: Space) -> float:
    """Write x, C, Lambda and v of a point u; return the log prior with its Jacobian, and keep its derivative by the scalars."""
    scalars, x = plan.scalars, space.x
    total = 0.0
    x[:] = plan.fixed
    for i in range(scalars.slot.size):
        value, slope, log_jacobian, its_slope = constrain(u[i], scalars.lower[i], scalars.upper[i])
        log_prior, by_value = form(scalars.kind[i], scalars.args[i], value)
        x[scalars.slot[i]] = value
        space.slope[i] = slope
        space.prior[i] = by_value * slope + its_slope
        total += log_prior + log_jacobian
    for t in range(plan.k.size):
        if plan.kind[t] != _GIVEN:
            total += _correlation_factor(plan, t, u, space.C)
    _fill_lambda(plan, space)
    p, m = plan.centre.size, plan.G.shape[0]
    for j in range(m):
        v = 0.0
        for c in range(p):
            v -= plan.G[j, c] * (x[c] - plan.centre[c])
        space.v[j] = v
    space.v[m] = 1.0
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _correlation_factor(plan: Plan, t: int, u: Array, C: Array) -> float:
    """Write the Cholesky factor (k, k) of one term's correlation matrix; return its log prior with the Jacobian of its rows."""
    k, at, entry = plan.k[t], plan.matrix_at[t], plan.cor_at[t]
    total = 0.0
    for i in range(k):
        for j in range(k):
            C[at + i * k + j] = 1.0 if i == j else 0.0
        if plan.kind[t] == _INDEPENDENT:
            continue
        square = 1.0
        for j in range(i):
            square += u[entry + j] * u[entry + j]
        for j in range(i):
            C[at + i * k + j] = u[entry + j] / math.sqrt(square)
        C[at + i * k + i] = 1.0 / math.sqrt(square)
        entry += i
        total -= 0.5 * plan.power[t] * math.log(square)
    return total


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_lambda(plan: Plan, space: Space) -> None:
    """Write L = diag(size sd / sigma) C of every term into its factor's block."""
    sigma = space.x[space.x.size - 1]
    space.lam[:] = 0.0
    for t in range(plan.k.size):
        k = plan.k[t]
        for i in range(k):
            effect = plan.effect_at[t] + i
            scale = plan.size[effect] * space.x[plan.sd_slot[effect]] / sigma
            for j in range(i + 1):
                space.lam[plan.lam_at[t] + i * plan.width[t] + j] = scale * space.C[plan.matrix_at[t] + i * k + j]


@njit(cache=True, nogil=True, error_model="numpy")
def to_gradient(plan: Plan, u: Array, space: Space, logdet: float, lambar: Array, log_prior: float, grad: Array) -> float:
    """Return the log density and write its gradient (d,).

    From the log determinant, F v in `space` and `lambar`, the adjoint of Lambda in log|S| + v'F v y_scale^2 / sigma^2.
    """
    x, xbar, v, Fv = space.x, space.xbar, space.v, space.Fv
    sigma = x[x.size - 1]
    precision = (plan.y_scale / sigma) ** 2
    quad = 0.0
    for j in range(v.size):
        quad += v[j] * Fv[j] * precision
    xbar[:] = 0.0
    for c in range(plan.centre.size):
        for j in range(plan.G.shape[0]):
            xbar[c] += plan.G[j, c] * Fv[j] * precision
    xbar[x.size - 1] = (quad - plan.rows) / sigma
    grad[:] = 0.0
    for t in range(plan.k.size):
        _term_adjoint(plan, t, u, space, lambar, grad)
    for i in range(plan.scalars.slot.size):
        grad[i] = xbar[plan.scalars.slot[i]] * space.slope[i] + space.prior[i]
    return log_prior + plan.constant - plan.rows * math.log(sigma) - 0.5 * logdet - 0.5 * quad


@njit(cache=True, nogil=True, error_model="numpy")
def _term_adjoint(plan: Plan, t: int, u: Array, space: Space, lambar: Array, grad: Array) -> None:
    """Add one term's share to the adjoints of its standard deviations and sigma, write Cbar and the gradient by its correlations."""
    k, at, entry = plan.k[t], plan.matrix_at[t], plan.cor_at[t]
    x, xbar, C, Cbar = space.x, space.xbar, space.C, space.Cbar
    sigma = x[x.size - 1]
    for i in range(k):
        effect = plan.effect_at[t] + i
        slot = plan.sd_slot[effect]
        scale = plan.size[effect] / sigma
        total = 0.0
        for j in range(i + 1):
            bar = -0.5 * lambar[plan.lam_at[t] + i * plan.width[t] + j] * scale
            total += bar * C[at + i * k + j]
            Cbar[at + i * k + j] = bar * x[slot]
        xbar[slot] += total
        xbar[x.size - 1] -= total * x[slot] / sigma
    if plan.kind[t] != _FREE:
        return
    for i in range(1, k):
        diagonal = C[at + i * k + i]
        along = 0.0
        for j in range(i + 1):
            along += Cbar[at + i * k + j] * C[at + i * k + j]
        for j in range(i):
            direction = C[at + i * k + j]
            grad[entry + j] = diagonal * (Cbar[at + i * k + j] - along * direction - plan.power[t] * direction)
        entry += i


@njit(cache=True, nogil=True, error_model="numpy")
def evaluate_sparse(
    plan: Plan,
    levels: pls.Levels,
    base: Array,
    base_M: Array,
    first_inner: int,
    store_from: int,
    u: Array,
    space: Space,
    store: Array,
    M: Array,
    Mbar: Array,
    bar: Array,
    scratch: pls.Scratch,
    lambar: Array,
    grad: Array,
) -> float:
    """Return the log density of a model without dense columns and write its gradient, in one call."""
    log_prior = to_values(plan, u, space)
    store[store_from:] = base[store_from:]
    M[:] = base_M
    logdet = pls.eliminate(levels, space.lam, store, M, scratch)
    weigh(plan, space, M, Mbar)
    lambar[:] = 0.0
    pls.adjoint(levels, store, scratch, first_inner, Mbar, bar, lambar)
    return to_gradient(plan, u, space, logdet, lambar, log_prior, grad)


@njit(cache=True, nogil=True, error_model="numpy")
def weigh(plan: Plan, space: Space, F: Array, Fbar: Array) -> None:
    """Write F v (F: upper triangle) and the adjoint v v' y_scale^2 / sigma^2 of F."""
    v, Fv = space.v, space.Fv
    precision = (plan.y_scale / space.x[space.x.size - 1]) ** 2
    for i in range(v.size):
        total = 0.0
        for j in range(v.size):
            total += F[min(i, j), max(i, j)] * v[j]
            Fbar[i, j] = precision * v[i] * v[j]
        Fv[i] = total


def space_of(density: Density) -> Space:
    """Return scratch arrays for one thread."""
    plan = density.plan
    slots, scalars, p1 = len(plan.fixed), len(plan.scalars.slot), density.system.p + 1
    squares = int(np.sum(plan.k**2))
    return Space(
        x=np.zeros(slots),
        xbar=np.zeros(slots),
        slope=np.zeros(scalars),
        prior=np.zeros(scalars),
        C=np.zeros(squares),
        Cbar=np.zeros(squares),
        lam=np.zeros(density.system.lam_size),
        v=np.zeros(p1),
        Fv=np.zeros(p1),
    )


def evaluator(density: Density) -> Evaluator:
    """Return a function of u (d,) to the log density and its gradient (d,), a new array each time; one for each thread."""
    space = space_of(density)
    one = _by_parts(density, space) if density.system.q else _at_once(density, space)
    if not density.stretched:
        return one

    def with_given(u: Array) -> tuple[float, Array]:
        jacobians = [_fill_given(term, u, space.C) for term in density.stretched]
        value, grad = one(u)
        for term, jacobian in zip(density.stretched, jacobians, strict=True):
            at = term.matrix_at
            grad[term.at] += float(space.Cbar[at : at + term.k**2] @ jacobian)
        return value, grad

    return with_given


def _fill_given(term: Stretched, u: Array, C: Array) -> Array:
    """Write a term's correlation factor, a function of one entry of u, into C; return its derivative by it (k * k,)."""
    share, slope, _, _ = constrain(u[term.at], 0.0, 1.0)
    factor, jacobian = given_factor(term, share)
    C[term.matrix_at : term.matrix_at + term.k**2] = factor.ravel()
    return np.asarray(jacobian.ravel() * slope)


def given_factor(term: Stretched, share: float) -> tuple[Array, Array]:
    """Return the Cholesky factor (k, k) of a term's correlation matrix and its derivative by `share` in (0, 1)."""
    structure, k = term.structure, term.k
    lowest, highest = structure.lower(k)[-1], structure.upper(k)[-1]
    theta = np.ones(structure.n_theta(k))
    theta[-1] = lowest + (highest - lowest) * share
    return structure.factor(theta, k), structure.jacobian(theta, k)[-1] * (highest - lowest)


def _at_once(density: Density, space: Space) -> Evaluator:
    system, work, plan = density.system, linear.workspace(density.system), density.plan

    def evaluate(u: Array) -> tuple[float, Array]:
        grad = np.empty(u.size)
        value = evaluate_sparse(
            plan, system.levels, system.store, system.M, system.first_inner, system.store_from, u, space,
            work.store, work.M, work.Mbar, work.bar, work.scratch, work.lambar, grad,
        )  # fmt: skip
        return value, grad

    return evaluate


def _by_parts(density: Density, space: Space) -> Evaluator:
    """Return the evaluator of a model with dense columns: kernels before and after LAPACK's Cholesky factor and inverse."""
    system, work, plan = density.system, linear.workspace(density.system), density.plan
    start = (system.levels, system.blocks, system.store, system.M, system.store_from)
    N = np.empty_like(work.B)

    def evaluate(u: Array) -> tuple[float, Array]:
        grad = np.full(u.size, np.nan)
        log_prior = to_values(plan, u, space)
        logdet = to_tail(*start, space.lam, work.store, work.M, work.scratch, work.S, work.B)
        L, info = lapack.dpotrf(work.S.T, lower=1, clean=0)
        if info != 0 or not np.isfinite(logdet):
            return np.nan, grad
        Z1 = np.ascontiguousarray(lapack.dpotrs(L, work.B, lower=1)[0])
        logdet += 2.0 * float(np.sum(np.log(np.diagonal(L))))
        inverse = lapack.dpotri(L, lower=1, overwrite_c=1)[0].T
        value = from_tail(
            plan, u, space, log_prior, logdet, system.levels, system.blocks, system.first_inner, Z1, inverse,
            work.store, work.M, work.Mbar, work.MN, N, work.bar, work.B, work.scratch, work.lambar, grad,
        )  # fmt: skip
        return value, grad

    return evaluate


@njit(cache=True, nogil=True, error_model="numpy")
def to_tail(
    levels: pls.Levels,
    blocks: pls.Blocks,
    base: Array,
    base_M: Array,
    store_from: int,
    lam: Array,
    store: Array,
    M: Array,
    scratch: pls.Scratch,
    S: Array,
    B: Array,
) -> float:
    """Eliminate the levels and write the dense part's S (upper triangle) and B (see `pls.tail_system`); return log|S| of the levels."""
    store[store_from:] = base[store_from:]
    M[:] = base_M
    logdet: float = pls.eliminate(levels, lam, store, M, scratch)
    pls.tail_system(M, S.shape[0], blocks, lam, S, B)
    return logdet


@njit(cache=True, nogil=True, error_model="numpy")
def times_lambda(blocks: pls.Blocks, lam: Array, columns: Array, out: Array) -> None:
    """Write Lambda times dense random columns (q, m)."""
    for block in range(blocks.at.size):
        at, k, lo = blocks.at[block], blocks.k[block], blocks.lam_at[block]
        for i in range(k):
            for c in range(columns.shape[1]):
                total = 0.0
                for j in range(i + 1):
                    total += lam[lo + i * k + j] * columns[at + j, c]
                out[at + i, c] = total


@njit(cache=True, nogil=True, error_model="numpy")
def from_tail(
    plan: Plan,
    u: Array,
    space: Space,
    log_prior: float,
    logdet: float,
    levels: pls.Levels,
    blocks: pls.Blocks,
    first_inner: int,
    Z1: Array,
    inverse: Array,
    store: Array,
    M: Array,
    Mbar: Array,
    MN: Array,
    N: Array,
    bar: Array,
    B: Array,
    scratch: pls.Scratch,
    lambar: Array,
    grad: Array,
) -> float:
    """Return the log density and write its gradient, from Z1 = S^-1 B and S^-1 (upper triangle) of the dense part."""
    q, p1 = Z1.shape
    F, Fbar = np.empty((p1, p1)), np.empty((p1, p1))
    for i in range(p1):
        for j in range(i, p1):
            F[i, j] = M[q + i, q + j]
            for a in range(q):
                F[i, j] -= B[a, i] * Z1[a, j]
    weigh(plan, space, F, Fbar)
    lambar[:] = 0.0
    times_lambda(blocks, space.lam, Z1, N)
    pls.tail_adjoint(M, q, blocks, space.lam, inverse, Z1, N, Fbar, Mbar, lambar, MN)
    pls.adjoint(levels, store, scratch, first_inner, Mbar, bar, lambar)
    return to_gradient(plan, u, space, logdet, lambar, log_prior, grad)
