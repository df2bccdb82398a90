"""The linear mixed model as a function of theta: scaling, the map from theta to Lambda, the criterion and its exact gradient.

All is computed on well-scaled copies: X by an orthonormal basis, y as its least-squares residual in units of its root mean square,
the columns z of an unstructured random term by an orthonormal basis zT of their own (`rebased`), those of other terms in units of
their root mean square. Results are carried back to the user's scale, so `1e6 * y`, `1e8 * x` or `1e9 + x` fits as well as `y` and
`x`. An unstructured term is searched by the Cholesky factor in its basis, directions of large variance first: where a small variance
stands before a large one, the criterion has long curved valleys. A correlation is searched by the angle whose sine it is, in which
the criterion is smooth up to and through its limits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from bayeslmm.covariance.base import Structure
from bayeslmm.errors import FitError
from bayeslmm.linear import related
from bayeslmm.linear import system as pls
from bayeslmm.linear.triangle import triangle_of, upper_solve

__all__ = [
    "Estimate",
    "Placed",
    "Placement",
    "Problem",
    "TermData",
    "basis_of",
    "boundary_prior",
    "conditional_variance",
    "criterion",
    "estimate",
    "estimate_at",
    "lambda_of",
    "least_squares",
    "linear_map",
    "objective",
    "parts",
    "place",
    "prepare",
    "rebased",
    "slope_of",
    "starts_of",
    "theta_jacobian",
    "theta_of",
    "turned",
    "unexplained",
    "vector_of",
]

type Array = np.ndarray

_DEPENDENT = 1e-14
"""A column of which less than this share is left beside the earlier ones says the same as they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TermData:
    """One random term as the engine needs it: factor label, level index (n,), number of levels, values (n, k), structure.

    `root` (J, J): that of the known covariance among levels, the same for all terms of a factor; None for independent ones.
    """

    group: str
    index: Array
    n_levels: int
    values: Array
    structure: Structure
    root: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A term's place: its slice of theta, its factor, its first column within it, and T (k, k), T^-1.

    `free`: any covariance matrix is possible, so T may be any basis; otherwise T is diagonal, as T^-1 L has to be lower-triangular.
    """

    structure: Structure
    free: bool
    k: int
    theta: slice
    factor: int
    column: int
    T: Array
    T_inverse: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Random terms in the search's coordinates t: the places of the terms, their columns by grouping factor, and the box of t.

    `roots`: per grouping factor that of a known covariance among levels (J, J); its columns are in units of `related.size`.
    The search runs in t (`lower`, `upper`), see `theta_of`. `mirror`, `scale`, `middle`, `half`: as in `Problem`.
    """

    terms: tuple[Term, ...]
    groups: tuple[str, ...]
    factors: tuple[pls.Factor, ...]
    roots: tuple[Array | None, ...]
    scale: Array
    middle: Array
    half: Array
    lower: Array
    upper: Array
    mirror: Array


class Placed(Protocol):
    """What has random terms in the search's coordinates: a `Problem`, or that of a generalised model."""

    @property
    def terms(self) -> tuple[Term, ...]: ...
    @property
    def groups(self) -> tuple[str, ...]: ...
    @property
    def roots(self) -> tuple[Array | None, ...]: ...
    @property
    def system(self) -> pls.System: ...
    @property
    def work(self) -> pls.Workspace: ...
    @property
    def scale(self) -> Array: ...
    @property
    def middle(self) -> Array: ...
    @property
    def half(self) -> Array: ...
    @property
    def linear(self) -> Array: ...
    @property
    def lower(self) -> Array: ...
    @property
    def upper(self) -> Array: ...
    @property
    def mirror(self) -> Array: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A linear mixed model ready to be evaluated at any theta.

    The search runs in t (`start`, `lower`, `upper`, `curvature`: a rough diagonal of the Hessian), see `theta_of`. `mirror`:
    diagonal entries of a linear structure, which the search may take through zero, as the sign of a column of Lambda means nothing.
    `scale`: theta = scale @ t for terms that are not free, but middle + half sin(t) where theta has two limits (`half` > 0).
    `linear` (lam_size, n_theta): Lambda's blocks as a linear function of t, for the terms whose structure is linear.
    `roots`: as in `Placement`.
    """

    system: pls.System
    work: pls.Workspace
    terms: tuple[Term, ...]
    groups: tuple[str, ...]
    roots: tuple[Array | None, ...]
    scale: Array
    middle: Array
    half: Array
    linear: Array
    start: Array
    lower: Array
    upper: Array
    mirror: Array
    curvature: Array
    n: int
    p: int
    reml: bool
    ols: Array
    R: Array
    log_det_R: float
    y_scale: float
    log_weights: float

    @property
    def df(self) -> int:
        """The residual degrees of freedom of the criterion: n, or n - p for REML."""
        return self.n - self.p if self.reml else self.n

    @property
    def n_theta(self) -> int:
        return int(self.scale.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Everything estimated at one theta, on the user's scale.

    `beta` (p,), `unscaled_vcov` (p, p) = (X'V^-1 X)^-1 with V over sigma^2; per factor (order of `Problem.groups`) `b` (J, k) and
    conditional variances (J, k, k); `pwrss`, `ld_l2`, `ld_rx2` as lme4's `devcomp`.
    """

    criterion: float
    ld_l2: float
    ld_rx2: float
    pwrss: float
    beta: Array
    unscaled_vcov: Array
    b: tuple[Array, ...]
    unscaled_variance: tuple[Array, ...]


# --------------------------------------------------------------------------------------------------------------------- preparing


def prepare(
    y: Array,
    X: Array,
    terms: Sequence[TermData],
    *,
    weights: Array | None,
    offset: Array | None,
    reml: bool,
    bases: Sequence[Array | None] | None = None,
) -> Problem:
    """Return the problem of fitting `y - offset = X beta + Z b + e`, `e ~ N(0, sigma^2 / weights)`.

    Parameters
    ----------
    y, X
        Response (n,) and full-rank fixed effects (n, p).
    terms
        Random terms in lme4's order; terms of one grouping factor are eliminated together.
    weights, offset
        (n,) each, or None for ones and zeros.
    reml
        REML rather than maximum likelihood.
    bases
        For each term a matrix T (k, k) to search in (as `turned` makes), or None to choose one; heeded for unstructured terms.

    Raises
    ------
    FitError
        Where nothing is left to explain: the fixed effects fit the response exactly, or n <= p.
    """
    n, p = X.shape
    if n <= p:
        raise FitError(f"{n} rows cannot estimate {p} coefficients and a residual variance; use fewer terms or more data")
    root = np.ones(n) if weights is None else np.sqrt(weights)
    response = np.asarray(y, dtype=float) if offset is None else y - offset
    Q, R, ols, residual, y_scale = least_squares(X * root[:, None], response * root)
    placed = place(terms, root, residual / y_scale, bases)
    built = related.assemble(placed.factors, placed.roots, np.column_stack([Q, residual / y_scale]))
    start, curvature = _moments(placed, residual / y_scale)
    return Problem(
        system=built,
        work=pls.workspace(built),
        terms=placed.terms,
        groups=placed.groups,
        roots=placed.roots,
        scale=placed.scale,
        middle=placed.middle,
        half=placed.half,
        linear=linear_map(placed, built),
        start=np.clip(start, placed.lower, placed.upper),
        lower=placed.lower,
        upper=placed.upper,
        mirror=placed.mirror,
        curvature=curvature,
        n=n,
        p=p,
        reml=reml,
        ols=ols,
        R=R,
        log_det_R=2.0 * float(np.sum(np.log(np.abs(np.diagonal(R))))),
        y_scale=y_scale,
        log_weights=0.0 if weights is None else float(np.sum(np.log(weights))),
    )


def least_squares(X: Array, y: Array) -> tuple[Array, Array, Array, Array, float]:
    """Return Q, R of X = QR, the least-squares coefficients, the residual and its root mean square; columns scaled first."""
    lengths = np.max(np.abs(X), axis=0, initial=0.0)
    lengths[lengths == 0.0] = 1.0
    largest = float(np.max(np.abs(y), initial=0.0)) or 1.0
    Q, R = np.linalg.qr(X / lengths)
    unit = y / largest
    first = Q.T @ unit
    residual = unit - Q @ first
    second = Q.T @ residual
    residual = residual - Q @ second
    size = math.sqrt(float(residual @ residual) / len(y))
    if not size > 1e-14 * math.sqrt(float(unit @ unit) / len(y)):
        raise FitError("the fixed effects fit the response exactly (or it is constant): there is no variance to estimate")
    coefficients = upper_solve(R, first + second) * largest / lengths if R.size else np.zeros(0)
    return Q, R * lengths, coefficients, residual * largest, size * largest


def rebased(values: Array, root: Array | None = None) -> tuple[Array, Array, Array]:
    """Return columns zT (n, k) that are orthonormal on average, T (k, k; upper-triangular) and T^-1.

    Gram-Schmidt, twice, on the columns in units that are powers of two: so a column of ones is taken out of `1e9 + x` without any
    rounding, and the columns are as exact as the data. Forming z'z or zT first would lose as many digits as the shift has.
    A column that says the same as earlier ones is scaled only. `root` (n,): square roots of weights, which all are multiplied by.
    """
    k = values.shape[1]
    root = np.ones(len(values)) if root is None else root
    sizes = np.ldexp(1.0, np.frexp(np.max(np.abs(values), axis=0))[1])
    sizes = np.where(np.max(np.abs(values), axis=0) > 0.0, sizes, 1.0)
    z = values / sizes
    U = np.eye(k)
    for j in range(k):
        column, turn = z[:, j].copy(), U[:, j].copy()
        for i in (*range(j), *range(j)):
            c = float(((root * z[:, i]) @ (root * column)) / ((root * z[:, i]) @ (root * z[:, i])))
            column -= c * z[:, i]
            turn -= c * U[:, i]
        if np.linalg.norm(root * column) > _DEPENDENT * np.linalg.norm(root * z[:, j]):
            z[:, j], U[:, j] = column, turn
    z = z * root[:, None]
    lengths = np.sqrt(np.mean(z**2, axis=0))
    lengths = np.where(lengths > 0.0, lengths, 1.0)
    inverse = upper_solve(U, np.eye(k))
    return z / lengths, U / lengths / sizes[:, None], inverse * lengths[:, None] * sizes


def place(terms: Sequence[TermData], root: Array, residual: Array, bases: Sequence[Array | None] | None = None) -> Placement:
    """Return the terms' places and the search's coordinates of their parameters.

    `root` (n,): square roots of the weights, which the factors' columns hold; `residual` (n,): what tells large effects from small.
    """
    groups = tuple(dict.fromkeys(term.group for term in terms))
    roots = {term.group: term.root for term in terms}
    terms = [replace(term, values=term.values * related.size(term.root)) for term in terms]
    placed, columns = _place(terms, groups, root, residual, bases or [None] * len(terms))
    scale = _scale(placed)
    lower = np.concatenate([np.zeros(0), *(term.structure.lower(term.k) for term in placed)])
    upper = np.concatenate([np.zeros(0), *(term.structure.upper(term.k) for term in placed)])
    between = np.isfinite(lower) & np.isfinite(upper)
    middle = (np.where(between, upper, 0.0) + np.where(between, lower, 0.0)) / 2.0
    half = (np.where(between, upper, 0.0) - np.where(between, lower, 0.0)) / 2.0
    lower, upper = np.where(between, -np.pi / 2.0, lower), np.where(between, np.pi / 2.0, upper)
    is_linear = np.repeat([term.structure.linear for term in placed], [term.theta.stop - term.theta.start for term in placed])
    mirror = (lower == 0.0) & is_linear.astype(bool)
    diagonal = np.diagonal(scale)
    return Placement(
        terms=placed,
        groups=groups,
        factors=tuple(_factor(terms, placed, columns, f) for f in range(len(groups))),
        roots=tuple(roots[group] for group in groups),
        scale=scale,
        middle=middle,
        half=half,
        lower=np.where(mirror, -np.inf, lower) / diagonal,
        upper=upper / diagonal,
        mirror=mirror,
    )


def _place(
    terms: Sequence[TermData], groups: tuple[str, ...], root: Array, residual: Array, bases: Sequence[Array | None]
) -> tuple[tuple[Term, ...], list[Array]]:
    """Return the terms' places, and their columns zT, weights in."""
    placed, columns, at = [], [], 0
    width = dict.fromkeys(groups, 0)
    for term, basis in zip(terms, bases, strict=True):
        k = term.values.shape[1]
        size = term.structure.n_theta(k)
        free = term.structure.linear and size == k * (k + 1) // 2
        z, T, T_inverse = _basis(term, root, residual, basis) if free else _scaled(term.values, root)
        columns.append(z)
        placed.append(
            Term(
                structure=term.structure,
                free=free,
                k=k,
                theta=slice(at, at + size),
                factor=groups.index(term.group),
                column=width[term.group],
                T=T,
                T_inverse=T_inverse,
            )
        )
        width[term.group] += k
        at += size
    return tuple(placed), columns


def _basis(term: TermData, root: Array, residual: Array, basis: Array | None) -> tuple[Array, Array, Array]:
    """Return zT, T, T^-1 of the given basis, or of an orthonormal one with directions of large variance first."""
    z, T, T_inverse = rebased(term.values, root)
    if basis is None:
        order = np.argsort(-_between(term.index, term.n_levels, z, residual), kind="stable")
        return z[:, order], T[:, order], T_inverse[order]
    turn = T_inverse @ basis
    return z @ turn, T @ turn, np.linalg.solve(turn, T_inverse)


def _scaled(values: Array, root: Array) -> tuple[Array, Array, Array]:
    """Return zT, T, T^-1 with the diagonal T that gives the columns a root mean square of one."""
    sizes = _root_mean_square(values * root[:, None])
    return values * root[:, None] / sizes, np.diag(1.0 / sizes), np.diag(sizes)


def _root_mean_square(z: Array) -> Array:
    largest = np.max(np.abs(z), axis=0)
    largest = np.where(largest > 0.0, largest, 1.0)
    size: Array = largest * np.sqrt(np.mean((z / largest) ** 2, axis=0))
    return np.where(size > 0.0, size, 1.0)


def _between(index: Array, n_levels: int, z: Array, residual: Array) -> Array:
    """Return a moment estimate of the variance of each column's effect (k,), the total variance being one.

    E sum_j s_j^2 / n_j = J v + sigma_f^2 (n - J), with s_j = sum z e and n_j = sum z^2 in level j, and v the total variance.
    """
    sizes = np.empty(z.shape[1])
    for c, column in enumerate(z.T):
        mass = np.bincount(index, column**2, n_levels)
        sums = np.bincount(index, column * residual, n_levels)
        sizes[c] = np.sum(sums[mass > 0.0] ** 2 / mass[mass > 0.0])
    return (sizes - n_levels) / max(len(residual) - n_levels, 1)


def _factor(terms: Sequence[TermData], placed: tuple[Term, ...], columns: Sequence[Array], f: int) -> pls.Factor:
    mine = [i for i, term in enumerate(placed) if term.factor == f]
    z = np.column_stack([columns[i] for i in mine])
    data = terms[mine[0]]
    return pls.Factor(index=np.ascontiguousarray(data.index, dtype=np.int64), n_levels=data.n_levels, z=np.ascontiguousarray(z))


def _scale(placed: tuple[Term, ...]) -> Array:
    size = placed[-1].theta.stop if placed else 0
    scale = np.eye(size)
    for term in placed:
        scale[term.theta, term.theta] = _term_scale(term)
    return scale


def _term_scale(term: Term) -> Array:
    """Return B (n_theta, n_theta), theta = B t, so that t of order one gives effects of the size of the noise (free terms: t is in T).

    For a structure linear in theta, T where it maps the structure onto itself, T L(t) = L(B t), and otherwise its mean size.
    For others only unbounded standard deviations are scaled.
    """
    structure, k = term.structure, term.k
    if term.free:
        return np.eye(structure.n_theta(k))
    size = float(np.exp(np.mean(np.log(np.diagonal(term.T)))))
    if not structure.linear:
        is_sd = (structure.lower(k) == 0.0) & np.isinf(structure.upper(k))
        return np.diag(np.where(is_sd, size, 1.0))
    basis = structure.jacobian(structure.start(k), k)
    flat = basis.reshape(len(basis), -1)
    moved = (term.T @ basis).reshape(len(basis), -1)
    B: Array = moved @ np.linalg.pinv(flat)
    onto_itself = np.allclose(B @ flat, moved, rtol=1e-12, atol=1e-14 * np.max(np.abs(moved)))
    return B.T if onto_itself else size * np.eye(len(basis))


def linear_map(placed: Placement, built: pls.System) -> Array:
    """Return the blocks of Lambda (lam_size, n_theta) as a linear function of t, zero for the terms whose structure is not linear."""
    K = np.zeros((built.lam_size, placed.scale.shape[0]))
    for term in placed.terms:
        if term.structure.linear:
            basis = term.structure.jacobian(term.structure.start(term.k), term.k)
            own = basis if term.free else term.T_inverse @ basis
            K[_places(term, built).ravel(), term.theta] = own.reshape(len(basis), -1).T
    mapped: Array = K @ placed.scale
    return mapped


def _places(term: Term, built: pls.System) -> Array:
    """Return where in the flat Lambda the term's (k, k) block stands."""
    width = built.widths[term.factor]
    rows = term.column + np.arange(term.k)
    return built.lam_at[term.factor] + rows[:, None] * width + rows


def _moments(placed: Placement, residual: Array) -> tuple[Array, Array]:
    """Return a start in t from sums of squares between levels, and a rough diagonal of the Hessian there."""
    sizes = []
    for term in placed.terms:
        factor = placed.factors[term.factor]
        sizes.append(_between(factor.index, factor.n_levels, factor.z[:, term.column : term.column + term.k], residual))
    noise = max(1.0 - sum(float(np.sum(np.maximum(size, 0.0))) for size in sizes), 0.1)
    masses = [np.full(term.k, len(residual) / placed.factors[term.factor].n_levels) for term in placed.terms]
    return starts_of(placed, [size / noise for size in sizes], masses)


def starts_of(placed: Placement, variances: Sequence[Array], masses: Sequence[Array]) -> tuple[Array, Array]:
    """Return a start in t and a rough diagonal of the Hessian there.

    Per term: variances (k,) of the (scaled) effects, relative to the noise, and the information (k,) that a level has on each.
    """
    size = placed.scale.shape[0]
    start, curvature = np.zeros(size), np.ones(size)
    for term, variance, mass in zip(placed.terms, variances, masses, strict=True):
        relative = np.sqrt(np.clip(variance, 0.04, 25.0))
        level_mass = relative**2 * mass
        weight = placed.factors[term.factor].n_levels * (level_mass / (1.0 + level_mass)) ** 2 / relative**2
        t, bend = _term_start(term, relative, weight, placed.scale[term.theta, term.theta])
        start[term.theta], curvature[term.theta] = t, bend
    return start, curvature


def _term_start(term: Term, relative: Array, weight: Array, B: Array) -> tuple[Array, Array]:
    """Return t that gives each (scaled) effect the standard deviation `relative`, as far as the structure can, and the curvature."""
    structure, k = term.structure, term.k
    theta = structure.start(k)
    J = np.tensordot(B.T, structure.jacobian(theta, k), axes=1)
    J = J if term.free else term.T_inverse @ J
    on_diagonal = np.diagonal(J, axis1=1, axis2=2)
    reach = np.sum(np.abs(on_diagonal), axis=1)
    is_sd = (structure.lower(k) == 0.0) & (reach > 0.0)
    t = np.where(is_sd, (np.abs(on_diagonal) @ relative) / np.where(is_sd, reach, 1.0), theta)
    bend = np.einsum("irc,rc->i", J**2, (2.0 + 2.0 * np.eye(k)) * weight[:, None])
    return t, np.maximum(bend, 1e-3)


# -------------------------------------------------------------------------------------------------------------------- evaluating


def theta_of(problem: Placed, t: Array) -> Array:
    """Return theta, lme4's parameters, of the search's coordinates t; diagonals of Lambda are made positive.

    A free term's factor is that of T L(t) L(t)'T', found by an orthogonal rotation of the columns of T L(t).
    """
    theta = np.zeros(len(problem.scale))
    for term in problem.terms:
        theta[term.theta] = _term_theta(problem, term, t)
    return theta


def _term_theta(problem: Placed, term: Term, t: Array) -> Array:
    own = _own(problem, term, t)
    if not term.structure.linear:
        return own
    L = term.structure.factor(own, term.k)
    return _coordinates(term, _lower(term.T, L) if term.free else L)


def _own(problem: Placed, term: Term, t: Array) -> Array:
    """Return a term's parameters at t (of a free term: those in its basis)."""
    own: Array = problem.scale[term.theta, term.theta] @ t[term.theta]
    middle, half = problem.middle[term.theta], problem.half[term.theta]
    if np.any(half):
        own = np.where(half > 0.0, np.clip(middle + half * np.sin(t[term.theta]), middle - half, middle + half), own)
    return own


def _d_own(problem: Placed, term: Term, t: Array) -> Array:
    """Return the derivative of `_own` by the term's part of t."""
    half = problem.half[term.theta]
    return np.where(half > 0.0, np.diag(half * np.cos(t[term.theta])), problem.scale[term.theta, term.theta])


def vector_of(problem: Placed, theta: Array) -> Array:
    """Return the search's coordinates of theta."""
    t = np.zeros(len(problem.scale))
    for term in problem.terms:
        own = np.asarray(theta, dtype=float)[term.theta]
        if term.free:
            t[term.theta] = _coordinates(term, _lower(term.T_inverse, term.structure.factor(own, term.k)))
        else:
            middle, half = problem.middle[term.theta], problem.half[term.theta]
            sine = np.clip((own - middle) / np.where(half > 0.0, half, 1.0), -1.0, 1.0)
            t[term.theta] = np.where(half > 0.0, np.arcsin(sine), np.linalg.solve(problem.scale[term.theta, term.theta], own))
    return t


def theta_jacobian(problem: Placed, t: Array) -> Array:
    """Return d theta / d t (n_theta, n_theta), block by block: exact for free terms inside the boundary, by central differences else."""
    J = np.zeros((len(problem.scale), len(problem.scale)))
    for term in problem.terms:
        slope = _free_slope(term, t[term.theta]) if term.free else None
        J[term.theta, term.theta] = _term_differences(problem, term, t) if slope is None else slope
    return J


def _term_differences(problem: Placed, term: Term, t: Array) -> Array:
    columns = []
    for i in range(term.theta.start, term.theta.stop):
        h = np.zeros(len(problem.scale))
        h[i] = 1e-6
        columns.append((_term_theta(problem, term, t + h) - _term_theta(problem, term, t - h)) / 2e-6)
    return np.array(columns).T


def _free_slope(term: Term, t: Array) -> Array | None:
    """Return the derivative of a free term's theta; None where its factor is singular.

    With C Q' = T L(t), C lower-triangular, dC = C (tril X + (triu X)'), X = C^-1 T dL Q less its diagonal in the second part.
    """
    basis = term.structure.jacobian(t, term.k)
    Q, R = np.linalg.qr((term.T @ term.structure.factor(t, term.k)).T)
    C = R.T
    pivots = np.diagonal(C)
    if np.min(np.abs(pivots)) <= 1e-6 * np.max(np.abs(C)):
        return None
    X = np.linalg.solve(C, term.T @ basis @ Q)
    slopes = C @ (np.tril(X) + np.swapaxes(np.triu(X, 1), 1, 2)) * np.sign(pivots)
    flat = basis.reshape(len(basis), -1)
    return np.asarray(flat @ slopes.reshape(len(basis), -1).T)


def turned(problem: Placed, t: Array) -> list[Array | None]:
    """Return for each free term the basis of the principal directions of its covariance at t, largest first; None for others."""
    bases: list[Array | None] = []
    for term in problem.terms:
        if not term.free:
            bases.append(None)
            continue
        U, _, _ = np.linalg.svd(term.structure.factor(t[term.theta], term.k))
        bases.append(term.T @ U)
    return bases


def _lower(T: Array, L: Array) -> Array:
    """Return the lower-triangular factor of TLL'T'; where L is singular, a diagonal that is zero but for rounding is made so."""
    A = T @ L
    turned = triangle_of(A.T).T
    rows = np.arange(len(L))
    rounding = 1e-10 if np.any(np.diagonal(L) == 0.0) else 0.0
    tiny = np.abs(turned[rows, rows]) <= rounding * np.sqrt(np.sum(A**2, axis=1))
    turned[rows[tiny], rows[tiny]] = 0.0
    return turned


def _coordinates(term: Term, L: Array) -> Array:
    """Return the parameters of a linear structure's L (k, k), after giving its columns a diagonal that is not negative."""
    basis = term.structure.jacobian(term.structure.start(term.k), term.k).reshape(-1, term.k**2)
    positive = L * np.where(np.diagonal(L) < 0.0, -1.0, 1.0)
    coordinates: Array = (basis @ positive.ravel()) / np.sum(basis**2, axis=1)
    return coordinates


def lambda_of(problem: Placed, t: Array) -> Array:
    """Return the blocks of Lambda, flat, in the search's basis."""
    lam: Array = problem.linear @ t
    for term in problem.terms:
        if not term.structure.linear:
            lam[_places(term, problem.system)] = term.T_inverse @ term.structure.factor(_own(problem, term, t), term.k)
    return lam


def _total(problem: Problem, ld_l2: float, ld_rx2: float, pwrss: float) -> float:
    df = problem.df
    if not pwrss > 0.0:
        return math.nan
    value = ld_l2 - problem.log_weights + df * (1.0 + math.log(2.0 * math.pi * pwrss / df) + 2.0 * math.log(problem.y_scale))
    return value + ld_rx2 + problem.log_det_R if problem.reml else value


def objective(problem: Problem, t: Array) -> tuple[float, Array]:
    """Return the profiled criterion (REML criterion, or deviance) at t and its exact gradient by t, both (n_theta,).

    Source: Bates et al. (2015), J. Stat. Softw. 67(1), eqs. 34 and 42; the gradient by the reverse sweep of `pls`.
    """
    value, gradient = parts(problem, t, float(problem.df))
    return _total(problem, value.ld_l2, value.ld_rx2, value.pwrss), gradient


def parts(problem: Problem, t: Array, df: float) -> tuple[pls.Evaluation, Array]:
    """Return the parts of the criterion at t, and the gradient by t of ld_l2 [+ ld_rx2] + df log(pwrss)."""
    value = pls.evaluate(problem.system, problem.work, lambda_of(problem, t), df, problem.reml)
    return value, slope_of(problem, t, value.lambar)


def slope_of(problem: Placed, t: Array, lambar: Array) -> Array:
    """Return the gradient by t of a function whose gradient by Lambda's blocks is `lambar` (flat)."""
    gradient: Array = problem.linear.T @ lambar
    for term in problem.terms:
        if not term.structure.linear:
            jacobian = term.T_inverse @ term.structure.jacobian(_own(problem, term, t), term.k)
            gradient[term.theta] = _d_own(problem, term, t).T @ np.tensordot(jacobian, lambar[_places(term, problem.system)], axes=2)
    return gradient


def boundary_prior(problem: Placed, t: Array) -> tuple[float, Array]:
    """Return -2 log p(theta) of the prior that keeps a fit off the boundary, up to a constant, and its gradient by t (n_theta,).

    p is the product of the relative standard deviations (diagonals of the Cholesky factors; for one term with a single effect
    gamma(2, 0), for an unstructured matrix Wishart with k + 2 degrees of freedom and an infinite scale), and of the root of
    (rho - lower) (upper - rho) for a structure's own correlation rho. Infinite on the boundary.

    Source: Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013), Psychometrika 78; Chung, Gelman, Rabe-Hesketh, Liu & Dorie (2015),
    J. Educ. Behav. Stat. 40.
    """
    value, gradient = 0.0, np.zeros(len(problem.scale))
    for term in problem.terms:
        own = _own(problem, term, t)
        lower, upper = term.structure.lower(term.k), term.structure.upper(term.k)
        between = np.isfinite(lower) & np.isfinite(upper)
        is_sd = (lower == 0.0) & ~between
        above = np.where(is_sd, own, np.where(between, own - lower, 1.0))
        below = np.where(between, upper - own, 1.0)
        if np.any(above == 0.0) or np.any(below == 0.0):
            return math.inf, gradient
        value -= float(np.sum(np.where(is_sd, 2.0, 1.0) * np.log(np.abs(above)) + np.log(below)))
        value -= 2.0 * float(np.linalg.slogdet(term.T)[1]) if term.free else 0.0
        slope = np.where(is_sd, 2.0 / above, np.where(between, 1.0 / above - 1.0 / below, 0.0))
        gradient[term.theta] = -_d_own(problem, term, t).T @ slope
    return value, gradient


def criterion(problem: Problem, theta: Array) -> float:
    """Return the REML criterion, or the deviance -2 log L, at theta."""
    return objective(problem, vector_of(problem, theta))[0]


def unexplained(problem: Problem, t: Array) -> float:
    """Return the penalised residual sum of squares at t as a share of that of the fixed effects alone."""
    return pls.evaluate(problem.system, problem.work, lambda_of(problem, t), float(problem.df), problem.reml).pwrss / problem.n


def estimate(problem: Problem, theta: Array) -> Estimate:
    """Return all estimates at theta, on the scale of the data."""
    return estimate_at(problem, vector_of(problem, theta))


def estimate_at(problem: Problem, t: Array) -> Estimate:
    """Return all estimates at the search's coordinates t, which hold more digits than theta where predictors are far from zero."""
    found = pls.solve(problem.system, problem.work, lambda_of(problem, t))
    R, p = problem.R, problem.p
    beta, vcov = problem.ols, np.zeros((0, 0))
    if p:
        beta = problem.ols + upper_solve(R, found.beta) * problem.y_scale
        half = upper_solve(R, np.linalg.inv(np.linalg.cholesky(found.P)).T)
        vcov = half @ half.T
    T = [basis_of(problem, f) for f in range(len(problem.groups))]
    return Estimate(
        criterion=_total(problem, found.ld_l2, found.ld_rx2, found.pwrss),
        ld_l2=found.ld_l2,
        ld_rx2=found.ld_rx2 + problem.log_det_R,
        pwrss=found.pwrss * problem.y_scale**2,
        beta=beta,
        unscaled_vcov=vcov,
        b=tuple(related.correlated(problem.roots[f], b @ T[f].T * problem.y_scale) for f, b in enumerate(found.b)),
        unscaled_variance=tuple(conditional_variance(problem, f, T[f], variance) for f, variance in enumerate(found.variance)),
    )


def conditional_variance(problem: Placed, f: int, T: Array, variance: Array) -> Array:
    """Return the conditional variances (J, k, k) of b = T L u over sigma^2, of those (J, k, k) of L u that were just solved for."""
    root = problem.roots[f]
    if root is not None:
        return related.variances(problem.system, problem.work, f, root, T)
    return np.asarray(T @ variance @ T.T)


def basis_of(problem: Placed, f: int) -> Array:
    """Return T (k, k) of all columns of a grouping factor: b = T L u on the user's scale."""
    T = np.zeros((problem.system.widths[f],) * 2)
    for term in problem.terms:
        if term.factor == f:
            own = slice(term.column, term.column + term.k)
            T[own, own] = term.T
    return T
