"""The posterior of a Gaussian linear mixed model with its random effects integrated out: log density and exact gradient.

With V = sigma^2 (W^-1 + Z Lambda Lambda'Z') and v = (-beta, 1), all that the density needs of n rows is F = [X y]'(V / sigma^2)^-1 [X y],
which the elimination of `system` makes from products that are formed once:

    log p(y | beta, Lambda, sigma) = -n/2 log(2 pi sigma^2) + (sum log w) / 2 - log|I + Lambda'Z'WZ Lambda| / 2 - v'F v / (2 sigma^2).

The adjoint of the same elimination, started with v v' / sigma^2, is the gradient by Lambda. Parameters are those of `translate`, on the
real line with their Jacobians: coefficients of the centred design, standard deviations, correlations by the rows of their Cholesky factor
(y / sqrt(1 + |y|^2), 1 / sqrt(1 + |y|^2)), sigma. X enters by an orthonormal basis, y as its least-squares residual, the columns of Z
in units of their root mean square, so that digits are kept whatever the units.

Coefficients whose priors are normal or flat, x_I = m + d with prior precision D about mu, may be integrated out too (`marginal`): with
v = v0 - G_I d, K = G_I'FG_I y_scale^2 / sigma^2 + D and d the minimiser K d = G_I'F v0 y_scale^2 / sigma^2 - D (m - mu), the density has
this v, the prior at this d and -log|K| / 2, and F has the further adjoint G_I K^-1 G_I' y_scale^2 / sigma^2, as in REML.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from numba import njit

from bayeslmm.bayes.collapsed_priors import FORMS, Scalars, constrain, form, lkj_constant, scalars_of
from bayeslmm.bayes.translate import Factor, deviation_slots, factors, has_correlation, rows_of
from bayeslmm.linear import pls, related
from bayeslmm.linear import system as linear
from bayeslmm.priors import INTERCEPT, Distribution, PriorRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bayeslmm.covariance import Structure
    from bayeslmm.model import Model

__all__ = [
    "Density",
    "Evaluator",
    "Plan",
    "Products",
    "Room",
    "Space",
    "density_of",
    "evaluate",
    "evaluator",
    "linear",
    "pls",
    "products_of",
    "room_of",
    "space_of",
]

type Array = np.ndarray

INDEPENDENT, FREE, GIVEN = range(3)


class Plan(NamedTuple):
    """All that a kernel needs to go from a point u on the real line to the arguments of the elimination, and back.

    Values x (in slots): p coefficients, standard deviations, the parameters of `cs` and `ar1` stretched to (0, 1), sigma last. Those
    that are free are in `scalars`, u's first entries; constants stand in `fixed` (slots,). Behind them in u: the rows of the free
    correlations. `G` (m, p), `centre` (p,): v = (-G (x - centre), 1). `y_scale`: unit of the response. `rows`: n, or the sum of
    brms's weights. Per term t: `k` effects, `kind` of its correlation, `lam_at` and `width` of its factor's block in Lambda,
    `effect_at` where its effects start in `sd_slot` and `size` (the factors' effects), `cor_at` where its correlations start in u,
    `matrix_at` where its (k, k) correlation factor stands in C, `power` = 2 eta - 1 + k. Of `cs` and `ar1`: the slot `rho_at` of rho
    stretched from (`lowest`, 1), whose `powers` (by C's places) are the correlations. Integrated coefficients: their slots `inner`,
    `inner_mean` and `inner_precision` of their priors, 0 where flat.
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
    rho_at: Array
    lowest: Array
    powers: Array
    inner: Array
    inner_mean: Array
    inner_precision: Array


class Terms(Protocol):
    """What the correlations need of a plan: `k`, `kind`, `cor_at`, `matrix_at`, `power` by term, as in `Plan`."""

    @property
    def k(self) -> Array: ...
    @property
    def kind(self) -> Array: ...
    @property
    def cor_at(self) -> Array: ...
    @property
    def matrix_at(self) -> Array: ...
    @property
    def power(self) -> Array: ...


class Space(NamedTuple):
    """Scratch of one thread: values x and adjoints (slots), dx/du and d log prior / du (scalars), C, adjoint, d/d rho (flat), L, v, Fv.

    Of the i integrated coefficients: FG (m, i), K (i, i), turned into its lower Cholesky factor, and d (i,).
    """

    x: Array
    xbar: Array
    slope: Array
    prior: Array
    C: Array
    Cbar: Array
    dC: Array
    lam: Array
    v: Array
    Fv: Array
    FG: Array
    K: Array
    d: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """The log density of u (d,) of one model: the products of its data, and how u becomes parameters.

    `means` (p,): of the columns of X that the coefficients are centred by, zero for the intercept
    at `intercept` (-1: nothing is centred). `roots`: per factor that of a known covariance among levels (J, J), by which its columns
    are whitened. `start` (d,), `scale` (d,): where a search may begin, and a rough standard deviation of each entry.
    """

    system: linear.System
    plan: Plan
    groups: tuple[Factor, ...]
    roots: tuple[Array | None, ...]
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


def density_of(model: Model, *, marginal: bool = False) -> Density:
    """Return the collapsed density of a Gaussian linear mixed model to which it applies (see `collapsed.limit`).

    `marginal`: coefficients are integrated out too, where their priors allow it.
    """
    design, groups = model.design, factors(model)
    weights = design.weights if design.has_weights else np.ones(design.n)
    root = np.sqrt(weights)
    coefficients, intercept = coefficient_rows(model)
    means = np.where(np.arange(len(coefficients)) == intercept, 0.0, design.X.mean(axis=0)) * (intercept >= 0)
    basis = _basis((design.X - means) * root[:, None], (design.y - design.offset) * root)
    columns = [np.column_stack([block.values for block in group.blocks]) * root[:, None] for group in groups]
    sizes = [_sizes(z) for z in columns]
    roots = tuple(None if group.known is None else group.known.root for group in groups)
    system = related.assemble(
        [
            linear.Factor(index=group.blocks[0].index, n_levels=len(group.levels), z=z / size)
            for group, z, size in zip(groups, columns, sizes, strict=True)
        ],
        roots,
        basis.XY,
    )
    terms = [term for f, group in enumerate(groups) for term in _terms(model, f, group)]
    deviations = [rows_of(model, "sd", "", group.group) for group in groups]
    units = [_unit_row(term.eta) for term in terms if term.kind == GIVEN]
    rows = [*coefficients, *(row for own in deviations for row in own), *units, *rows_of(model, "aux")]
    first = np.cumsum([len(coefficients), *(len(own) for own in deviations)])
    slots = [start + deviation_slots(group) for start, group in zip(first, groups, strict=False)]
    inner = [slot for slot, row in enumerate(coefficients) if marginal and _integrable(row)]
    free = [(slot, row) for slot, row in enumerate(rows) if row.distribution.name != "constant" and slot not in inner]
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
        constant=constant + sum(_normaliser(term) for term in terms) + _inner_constant([rows[slot] for slot in inner]),
        sd_slot=np.concatenate([np.zeros(0), *slots]).astype(np.int64),
        size=np.concatenate(
            [np.zeros(0), *(size * related.size(root) for size, root in zip(sizes, roots, strict=True))]  # as `related` has them
        ),
        inner=np.array(inner, dtype=np.int64),
        inner_mean=np.array([_normal_arguments(rows[slot])[0] for slot in inner], dtype=float),
        inner_precision=np.array([_normal_arguments(rows[slot])[1] for slot in inner], dtype=float),
        **_places(terms, system, len(free)),
        **_given(terms, len(rows) - 1 - len(units)),
    )
    start, scale = _start(plan, len(coefficients))
    return Density(
        system=system,
        plan=plan,
        groups=groups,
        roots=roots,
        fixed_names=design.fixed.names,
        means=means,
        intercept=intercept,
        start=start,
        scale=scale,
    )


def _integrable(row: PriorRow) -> bool:
    """Whether a coefficient can be integrated out: its prior is normal or flat, without bounds."""
    return row.distribution.name in ("normal", "flat") and not row.bounded


def _normal_arguments(row: PriorRow) -> tuple[float, float]:
    """Return mean and precision of a normal prior; a flat one has none."""
    if row.distribution.name == "flat":
        return 0.0, 0.0
    mean, sd = row.distribution.args
    return mean, 1.0 / sd**2


def _inner_constant(rows: Sequence[PriorRow]) -> float:
    """Return the log constants of the integrated coefficients' priors, and of the integral."""
    return sum(FORMS[row.distribution.name].constant(*row.distribution.args) for row in rows) + 0.5 * len(rows) * math.log(2.0 * math.pi)


def coefficient_rows(model: Model) -> tuple[list[PriorRow], int]:
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
        kind = INDEPENDENT if not correlated else FREE if structure.linear else GIVEN
        eta = next(etas).distribution.args[0] if correlated else 1.0
        found.append(_Term(factor=f, column=int(columns[0]), k=block.n_effects, structure=structure, kind=kind, eta=eta))
    return found


def _unit_row(eta: float) -> PriorRow:
    """Return the prior of a correlation's parameter, stretched to (0, 1), as `Structure.pymc_cholesky` has it."""
    return PriorRow(part="cor", distribution=Distribution(name="beta", args=(eta, eta)))


def _normaliser(term: _Term) -> float:
    """Return the log of what the LKJ density is divided by, negative; 0 for other correlations."""
    return -lkj_constant(term.k, term.eta) if term.kind == FREE else 0.0


def _places(terms: Sequence[_Term], system: linear.System, n_scalars: int) -> dict[str, Array]:
    """Return the plan's arrays by term."""
    starts = np.concatenate([[0], np.cumsum(system.widths)]).astype(np.int64)
    factor, column, k = (np.array([getattr(term, name) for term in terms], dtype=np.int64) for name in ("factor", "column", "k"))
    widths = np.array(system.widths, dtype=np.int64)[factor]
    counts = [term.k * (term.k - 1) // 2 if term.kind == FREE else 0 for term in terms]
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


def _given(terms: Sequence[_Term], slot: int) -> dict[str, Array]:
    """Return the plan's arrays of `cs` and `ar1`, by term; the first such one's parameter is the value in `slot`."""
    before = np.cumsum([0, *(term.kind == GIVEN for term in terms)])
    exponents = [np.zeros(term.k**2) if term.structure.powers is None else term.structure.powers(term.k).ravel() for term in terms]
    return {
        "rho_at": slot + before[:-1].astype(np.int64),
        "lowest": np.array([term.structure.lower(term.k)[-1] if term.kind == GIVEN else 0.0 for term in terms], dtype=float),
        "powers": np.concatenate([np.zeros(0), *exponents]).astype(np.int64),
    }


def _start(plan: Plan, p: int) -> tuple[Array, Array]:
    """Return where a search for the mode may begin, (d,), and a rough scale of each entry: least squares, middling variances."""
    x = np.full(len(plan.fixed), 0.5)
    x[:p] = plan.centre
    x[plan.sd_slot] = 0.7 * plan.y_scale / plan.size
    x[-1] = 0.8 * plan.y_scale
    spread = np.ones(len(x))
    spread[:p] = 1.0 / np.sqrt(np.maximum(np.sum(plan.G**2, axis=0), np.finfo(float).tiny))
    slot, dim = plan.scalars.slot, len(plan.scalars.slot) + int(np.sum(np.where(plan.kind == FREE, plan.k * (plan.k - 1) // 2, 0)))
    start, scale = np.zeros(dim), np.ones(dim)
    for i, at in enumerate(slot):
        start[i] = unconstrained(x[at], plan.scalars.lower[i], plan.scalars.upper[i])
        bounded = np.isfinite(plan.scalars.lower[i]) or np.isfinite(plan.scalars.upper[i])
        scale[i] = 1.0 if bounded else spread[at]
    return start, scale


def unconstrained(x: float, lower: float, upper: float) -> float:
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
    for i in range(plan.inner.size):
        x[plan.inner[i]] = plan.centre[plan.inner[i]]
    for t in range(plan.k.size):
        if plan.kind[t] == GIVEN:
            _given_factor(plan, t, space)
        else:
            total += correlation_factor(plan, t, u, space.C)
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
def correlation_factor(plan: Terms, t: int, u: Array, C: Array) -> float:
    """Write the Cholesky factor (k, k) of one term's correlation matrix; return its log prior with the Jacobian of its rows."""
    k, at, entry = plan.k[t], plan.matrix_at[t], plan.cor_at[t]
    total = 0.0
    for i in range(k):
        for j in range(k):
            C[at + i * k + j] = 1.0 if i == j else 0.0
        if plan.kind[t] == INDEPENDENT:
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
def _given_factor(plan: Plan, t: int, space: Space) -> None:
    """Write the Cholesky factor (k, k) of correlations that are powers of rho, and its derivative by rho."""
    k, at, C, dC = plan.k[t], plan.matrix_at[t], space.C, space.dC
    rho = plan.lowest[t] + (1.0 - plan.lowest[t]) * space.x[plan.rho_at[t]]
    for j in range(k):
        for i in range(k):
            power = plan.powers[at + i * k + j]
            value, slope = rho**power, power * rho ** max(power - 1, 0)
            for a in range(j):
                value -= C[at + i * k + a] * C[at + j * k + a]
                slope -= dC[at + i * k + a] * C[at + j * k + a] + C[at + i * k + a] * dC[at + j * k + a]
            if i < j:
                value = slope = 0.0
            elif i == j:
                value = math.sqrt(value)
                slope /= 2.0 * value
            else:
                value /= C[at + j * k + j]
                slope = (slope - value * dC[at + j * k + j]) / C[at + j * k + j]
            C[at + i * k + j], dC[at + i * k + j] = value, slope


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

    From the log determinant, F v, K and d in `space` (see `weigh`) and `lambar`, the adjoint of Lambda in log|S| + v'F v y_scale^2 /
    sigma^2 + log|K|.
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
    log_inner, freedom = _inner_part(plan, space)
    xbar[x.size - 1] = (quad - plan.rows + freedom) / sigma
    grad[:] = 0.0
    for t in range(plan.k.size):
        _term_adjoint(plan, t, u, space, lambar, grad)
    for i in range(plan.scalars.slot.size):
        grad[i] = xbar[plan.scalars.slot[i]] * space.slope[i] + space.prior[i]
    return log_prior + plan.constant - plan.rows * math.log(sigma) - 0.5 * logdet - 0.5 * quad + log_inner


@njit(cache=True, nogil=True, error_model="numpy")
def _inner_part(plan: Plan, space: Space) -> tuple[float, float]:
    """Return what integrated coefficients add to the log density, and tr(K^-1 (K - D)): sigma / 2 times -d log|K| / d sigma."""
    K, total, freedom = space.K, 0.0, 0.0
    for i in range(plan.inner.size):
        off = plan.centre[plan.inner[i]] + space.d[i] - plan.inner_mean[i]
        total -= 0.5 * plan.inner_precision[i] * off * off + math.log(K[i, i])
        variance = np.zeros(plan.inner.size)
        variance[i] = 1.0
        half_solve(K, variance)
        freedom += 1.0 - plan.inner_precision[i] * np.sum(variance**2)
    return total, freedom


@njit(cache=True, nogil=True, error_model="numpy")
def _term_adjoint(plan: Plan, t: int, u: Array, space: Space, lambar: Array, grad: Array) -> None:
    """Add one term's share to the adjoints of its standard deviations and sigma, write Cbar and the gradient by its correlations."""
    k, at = plan.k[t], plan.matrix_at[t]
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
    if plan.kind[t] == GIVEN:
        for i in range(1, k):
            for j in range(i + 1):
                xbar[plan.rho_at[t]] += (1.0 - plan.lowest[t]) * Cbar[at + i * k + j] * space.dC[at + i * k + j]
    if plan.kind[t] == FREE:
        correlation_adjoint(plan, t, C, Cbar, grad)


@njit(cache=True, nogil=True, error_model="numpy")
def correlation_adjoint(plan: Terms, t: int, C: Array, Cbar: Array, grad: Array) -> None:
    """Write the gradient by the free correlations of one term, log prior and Jacobian included, from the adjoint of its factor."""
    k, at, entry = plan.k[t], plan.matrix_at[t], plan.cor_at[t]
    for i in range(1, k):
        diagonal = C[at + i * k + i]
        along = 0.0
        for j in range(i + 1):
            along += Cbar[at + i * k + j] * C[at + i * k + j]
        for j in range(i):
            direction = C[at + i * k + j]
            grad[entry + j] = diagonal * (Cbar[at + i * k + j] - along * direction - plan.power[t] * direction)
        entry += i


class Room(NamedTuple):
    """What an evaluation overwrites beside `Space`: see `linear.Workspace`; F (m + 1, m + 1) is M where no column is dense."""

    store: Array
    M: Array
    Mbar: Array
    bar: Array
    scratch: pls.Scratch
    tail: pls.Tail
    F: Array
    Fbar: Array
    lambar: Array


class Products(NamedTuple):
    """The products of the data and their layout: fields of `linear.System`."""

    levels: pls.Levels
    blocks: pls.Blocks
    first_inner: int
    store_from: int
    store: Array
    M: Array


@njit(cache=True, nogil=True, error_model="numpy")
def reduce(products: Products, lam: Array, room: Room) -> float:
    """Eliminate all random columns: F is left; return the log determinant, NaN where the matrix is not positive definite."""
    levels, tail = products.levels, room.tail
    room.store[products.store_from :] = products.store[products.store_from :]
    room.M[:] = products.M
    logdet: float = pls.eliminate(levels, lam, room.store, room.M, room.scratch)
    if tail.S.shape[0]:
        pls.tail_system(room.M, tail.S.shape[0], products.blocks, lam, tail)
        logdet += pls.tail_factor(room.scratch.at, tail)
        pls.tail_solve(room.scratch.at, room.M, tail, room.F)
    return logdet


@njit(cache=True, nogil=True, error_model="numpy")
def evaluate(plan: Plan, products: Products, u: Array, space: Space, room: Room, grad: Array) -> float:
    """Return the log density at u (d,) and write its gradient."""
    log_prior = to_values(plan, u, space)
    logdet = reduce(products, space.lam, room)
    if not math.isfinite(logdet):
        grad[:] = math.nan
        return math.nan
    weigh(plan, space, room.F, room.Fbar)
    room.lambar[:] = 0.0
    if room.tail.S.shape[0]:
        pls.tail_inverse(room.scratch.at, room.tail)
        pls.tail_adjoint(room.scratch.at, room.M, products.blocks, space.lam, room.tail, room.Fbar, room.Mbar, room.lambar)
    else:
        room.Mbar[:] = room.Fbar
    pls.adjoint(products.levels, room.store, room.scratch, products.first_inner, room.Mbar, room.bar, room.lambar)
    return to_gradient(plan, u, space, logdet, room.lambar, log_prior, grad)


@njit(cache=True, nogil=True, error_model="numpy")
def weigh(plan: Plan, space: Space, F: Array, Fbar: Array) -> None:
    """Write v, F v (F: upper triangle), K's factor and d of the integrated coefficients, and the adjoint of F, in units of y_scale."""
    v, Fv = space.v, space.Fv
    precision = (plan.y_scale / space.x[space.x.size - 1]) ** 2
    _times(F, v, Fv)
    if plan.inner.size:
        _integrate(plan, space, F, precision)
        _times(F, v, Fv)
    for i in range(v.size):
        for j in range(v.size):
            Fbar[i, j] = precision * v[i] * v[j]
    if plan.inner.size:
        _add_spread(plan, space.K, precision, Fbar)


@njit(cache=True, nogil=True, error_model="numpy")
def _integrate(plan: Plan, space: Space, F: Array, precision: float) -> None:
    """Write K's factor and d of the integrated coefficients, and move v to their mode."""
    v, Fv, G, K, d, FG = space.v, space.Fv, plan.G, space.K, space.d, space.FG
    m, count = G.shape[0], plan.inner.size
    for a in range(count):
        own = plan.inner[a]
        d[a] = -plan.inner_precision[a] * (plan.centre[own] - plan.inner_mean[a])
        for i in range(m):
            d[a] += precision * G[i, own] * Fv[i]
            FG[i, a] = 0.0
            for j in range(m):
                FG[i, a] += F[min(i, j), max(i, j)] * G[j, own]
        for b in range(a + 1):
            K[a, b] = plan.inner_precision[a] if a == b else 0.0
            for i in range(m):
                K[a, b] += precision * G[i, plan.inner[b]] * FG[i, a]
    pls.small_cholesky(count, K)
    half_solve(K, d)
    back_solve(K, d)
    for a in range(count):
        for i in range(m):
            v[i] -= G[i, plan.inner[a]] * d[a]


@njit(cache=True, nogil=True, error_model="numpy")
def _add_spread(plan: Plan, K: Array, precision: float, Fbar: Array) -> None:
    """Add what the integrated coefficients' spread adds to the adjoint of F: precision G_I K^-1 G_I'."""
    G, column = plan.G, np.empty(plan.inner.size)
    for i in range(G.shape[0]):
        for a in range(column.size):
            column[a] = G[i, plan.inner[a]]
        half_solve(K, column)
        back_solve(K, column)
        for j in range(G.shape[0]):
            for a in range(column.size):
                Fbar[i, j] += precision * G[j, plan.inner[a]] * column[a]


@njit(cache=True, nogil=True, error_model="numpy")
def _times(F: Array, v: Array, Fv: Array) -> None:
    """Write F v, F's upper triangle given."""
    for i in range(v.size):
        Fv[i] = 0.0
        for j in range(v.size):
            Fv[i] += F[min(i, j), max(i, j)] * v[j]


@njit(cache=True, nogil=True, error_model="numpy")
def half_solve(K: Array, x: Array) -> None:
    """Solve in place with a lower Cholesky factor K (i, i)."""
    for i in range(x.size):
        for a in range(i):
            x[i] -= K[i, a] * x[a]
        x[i] /= K[i, i]


@njit(cache=True, nogil=True, error_model="numpy")
def back_solve(K: Array, x: Array) -> None:
    """Solve in place with the transpose of a lower Cholesky factor K (i, i)."""
    for i in range(x.size - 1, -1, -1):
        for a in range(i + 1, x.size):
            x[i] -= K[a, i] * x[a]
        x[i] /= K[i, i]


def space_of(density: Density) -> Space:
    """Return scratch arrays for one thread."""
    plan = density.plan
    slots, scalars, p1, inner = len(plan.fixed), len(plan.scalars.slot), density.system.p + 1, len(plan.inner)
    squares = int(np.sum(plan.k**2))
    return Space(
        x=np.zeros(slots),
        xbar=np.zeros(slots),
        slope=np.zeros(scalars),
        prior=np.zeros(scalars),
        C=np.zeros(squares),
        Cbar=np.zeros(squares),
        dC=np.zeros(squares),
        lam=np.zeros(density.system.lam_size),
        v=np.zeros(p1),
        Fv=np.zeros(p1),
        FG=np.zeros((p1 - 1, inner)),
        K=np.zeros((inner, inner)),
        d=np.zeros(inner),
    )


def room_of(density: Density) -> Room:
    """Return what evaluations of one thread overwrite."""
    work, p1 = linear.workspace(density.system), density.system.p + 1
    F = np.zeros((p1, p1)) if density.system.q else work.M
    return Room(work.store, work.M, work.Mbar, work.bar, work.scratch, work.tail, F, work.Fbar, work.lambar)


def products_of(density: Density) -> Products:
    """Return the products of the data as kernels take them."""
    system = density.system
    return Products(system.levels, system.blocks, system.first_inner, system.store_from, system.store, system.M)


def evaluator(density: Density) -> Evaluator:
    """Return a function of u (d,) to the log density and its gradient (d,), a new array each time; one for each thread."""
    plan, products, space, room = density.plan, products_of(density), space_of(density), room_of(density)

    def one(u: Array) -> tuple[float, Array]:
        grad = np.empty(u.size)
        return evaluate(plan, products, u, space, room, grad), grad

    return one
