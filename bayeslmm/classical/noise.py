"""Linear mixed models whose residuals differ in variance, or are correlated in time: the criterion and its exact gradient.

The residuals have covariance sigma^2 R(phi), R = D C D / w: D = exp(W phi) for a predictor of log sigma, C(rho) for a residual term
`ar(time, gr)`, w the weights. With a triangular square root, R^-1/2 [Z X y] follows the plain model, and the criterion is that of the
whitened data plus log|R|. All rows of a series lie in one level of every grouping factor, so whitened Z keeps its pattern.

The gradient by phi is <Abar, dA> + d log|R|: A = [Z X y]'R^-1 [Z X y] are the products that the criterion is computed from, Abar their
adjoint, which the reverse sweep of `pls` has anyway, and dA = a'da + da'a, by polarisation of the products of a + da and a - da.
The search's coordinates: t of theta (see `engine`), phi by orthonormal centred columns of W, rho on its link's scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular

from bayeslmm.classical import engine
from bayeslmm.errors import DataError, FitError
from bayeslmm.families import LINKS
from bayeslmm.linear import system as pls
from bayeslmm.linear.related import assemble
from bayeslmm.residual import Residual, residual_of

if TYPE_CHECKING:
    from bayeslmm.classical.engine import Estimate, Problem, TermData
    from bayeslmm.design import Design, FixedPart
    from bayeslmm.series import Series

__all__ = [
    "Noise",
    "Whitened",
    "has_noise",
    "hessian",
    "natural",
    "noise_of",
    "objective",
    "prepare",
    "problem_at",
    "slopes",
    "whitened_design",
]

type Array = np.ndarray

_LIMIT = 14.0
"""How far log sd of a row may go from the mean by any column: beyond, the variance of some rows runs to zero."""
_RHO_LIMIT = 9.0
"""tanh of this is within 3e-8 of one."""
_STEP = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The residual structure on data.

    `columns` (n, m): of log sd, centred and orthonormal on average; `to_gamma` (M, 1 + m): the predictor's coefficients of
    (mean log sd, phi), with M = 0 where sigma has no predictor; `reference` (m,): log sd where all of W but the intercept is zero, less
    its mean. `root` (n,): square roots of weights.
    """

    columns: Array
    to_gamma: Array
    reference: Array
    root: Array
    series: Series | None
    structure: Residual | None

    @property
    def m(self) -> int:
        """Number of free columns of log sd."""
        return int(self.columns.shape[1])

    @property
    def n_parameters(self) -> int:
        """Length of phi: log sd's columns, then rho."""
        return self.m + (self.structure is not None)

    def rho(self, phi: Array) -> float:
        """The correlation at phi."""
        assert self.structure is not None
        return float(LINKS[self.structure.link].inverse(phi[self.m :])[0])

    def d_rho(self, phi: Array) -> float:
        """Its derivative by its coordinate."""
        assert self.structure is not None
        return float(LINKS[self.structure.link].mu_eta(phi[self.m :])[0])

    def log_sd(self, phi: Array) -> Array:
        """Log of each row's sd (n,) over the geometric mean, weights aside."""
        values: Array = self.columns @ phi[: self.m]
        return values

    def whiten(self, phi: Array, columns: Array) -> Array:
        """Return R^-1/2 times columns (n, c) that have the weights' roots in."""
        scaled = columns * np.exp(-self.log_sd(phi))[:, None]
        return scaled if self.structure is None or self.series is None else self.structure.whiten(self.rho(phi), self.series, scaled.T).T

    def tangents(self, phi: Array, columns: Array) -> list[Array]:
        """Return the derivatives of `whiten` by each of phi."""
        scaled = columns * np.exp(-self.log_sd(phi))[:, None]
        moved = [-column[:, None] * scaled for column in self.columns.T]
        if self.structure is None or self.series is None:
            return moved
        rho = self.rho(phi)
        found = [self.structure.whiten(rho, self.series, one.T).T for one in moved]
        return [*found, self.structure.d_whiten(rho, self.series, scaled.T).T * self.d_rho(phi)]

    def log_determinant(self, phi: Array) -> tuple[float, Array]:
        """Return log|R| and its derivative by phi; log sd's columns are centred and add nothing."""
        value, slope = -2.0 * float(np.sum(np.log(self.root))), np.zeros(self.n_parameters)
        if self.structure is not None and self.series is not None:
            rho = self.rho(phi)
            sd = self.structure.conditional_sd(rho, self.series)
            value += 2.0 * float(np.sum(np.log(sd)))
            slope[self.m] = 2.0 * float(np.sum(self.structure.d_conditional_sd(rho, self.series) / sd)) * self.d_rho(phi)
        return value, slope


def has_noise(design: Design) -> bool:
    """Return whether the residuals have a structure: a predictor of sigma, or a correlation."""
    return design.series is not None or "sigma" in design.parameters


def noise_of(design: Design) -> Noise:
    """Return the residual structure of a design.

    Raises
    ------
    FitError
        If the predictor of sigma has random effects, or no intercept.
    DataError
        If a series of correlated residuals has rows in two levels of a grouping factor.
    """
    columns, to_gamma, reference = np.zeros((design.n, 0)), np.zeros((0, 1)), np.zeros(0)
    if "sigma" in design.parameters:
        fixed, blocks = design.parameters["sigma"]
        if blocks:
            raise FitError("random effects in the predictor of sigma cannot be fitted by the classical engine; use `brm`")
        columns, to_gamma, reference = _log_sd_columns(fixed)
    if design.series is not None:
        _check_nested(design, design.series)
    return Noise(
        columns=columns,
        to_gamma=to_gamma,
        reference=reference,
        root=np.sqrt(design.weights),
        series=design.series,
        structure=None if design.series is None else residual_of(design.series),
    )


def _log_sd_columns(fixed: FixedPart) -> tuple[Array, Array, Array]:
    """Return `columns`, `to_gamma` and `reference` of a predictor of log sigma."""
    W = fixed.X
    n, size = W.shape
    if not size:
        raise FitError("the predictor of sigma is empty; leave it out")
    lengths = np.max(np.abs(W), axis=0)
    scaled = W / np.where(lengths > 0.0, lengths, 1.0)
    U, _, _ = np.linalg.svd(scaled - scaled.mean(axis=0), full_matrices=False)
    columns = math.sqrt(n) * U[:, : size - 1]
    columns = columns - columns.mean(axis=0)
    target = np.column_stack([np.ones(n), columns])
    coefficients, *_ = np.linalg.lstsq(scaled, target, rcond=None)
    if np.max(np.abs(scaled @ coefficients - target)) > 1e-7:
        raise FitError(
            "the predictor of sigma needs an intercept, or a factor with all its levels, to be fitted by the classical engine; use `brm`"
        )
    to_gamma = coefficients / lengths[:, None]
    reference = to_gamma[fixed.names.index("(Intercept)"), 1:] if "(Intercept)" in fixed.names else np.zeros(size - 1)
    return columns, to_gamma, reference


def _check_nested(design: Design, series: Series) -> None:
    for block in design.blocks:
        first = np.full(int(series.index.max()) + 1, -1, dtype=np.int64)
        first[series.index[::-1]] = block.index[::-1]
        split = first[series.index] != block.index
        if np.any(split):
            raise DataError(
                f"a series of {series.term.text} has rows in several levels of '{block.group}': correlated residuals must lie within every "
                f"grouping factor; name a finer series, as gr = {block.group}, or leave ({' + '.join(block.effects)} | {block.group}) out",
                column=block.group,
                rows=list(design.index[split]),
            )


# ---------------------------------------------------------------------------------------------------------------- the criterion


@dataclass(slots=True)
class _Latest:
    """The problem at the phi that was asked for last, and the derivatives of its products; never leaves this module."""

    phi: Array | None = None
    problem: Problem | None = None
    moves: list[tuple[Array, Array]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Whitened:
    """A model with a residual structure, ready to be evaluated at any (t, phi): `start`, `lower`, `upper`, `mirror`, `curvature` of both.

    `plain`: the problem at phi = 0; `factors`, `X`, `y`: its columns, the weights' roots in. `sigma_names`: of sigma's predictor.
    """

    noise: Noise
    sigma_names: tuple[str, ...]
    plain: Problem
    factors: tuple[pls.Factor, ...]
    X: Array
    y: Array
    start: Array
    lower: Array
    upper: Array
    mirror: Array
    curvature: Array
    latest: _Latest

    @property
    def n_t(self) -> int:
        """Number of the search's coordinates that belong to theta."""
        return self.plain.n_theta


def prepare(design: Design, terms: Sequence[TermData], *, reml: bool, bases: Sequence[Array | None] | None = None) -> Whitened:
    """Return the problem of a design with a residual structure; arguments as in `engine.prepare`, errors also of `noise_of`."""
    noise = noise_of(design)
    weights = design.weights if design.has_weights else None
    offset = design.offset if design.has_offset else None
    plain = engine.prepare(design.y, design.X, terms, weights=weights, offset=offset, reml=reml, bases=bases)
    X, y = design.X * noise.root[:, None], (design.y - design.offset) * noise.root
    residual = (y - X @ plain.ols) / plain.y_scale
    limit = np.full(noise.n_parameters, _RHO_LIMIT)
    limit[: noise.m] = _LIMIT / np.max(np.abs(noise.columns), axis=0)
    return Whitened(
        noise=noise,
        sigma_names=design.parameters["sigma"][0].names if "sigma" in design.parameters else (),
        plain=plain,
        factors=engine.place(terms, noise.root, residual, bases).factors,
        X=X,
        y=y,
        start=np.append(plain.start, np.zeros(noise.n_parameters)),
        lower=np.append(plain.lower, -limit),
        upper=np.append(plain.upper, limit),
        mirror=np.append(plain.mirror, np.zeros(noise.n_parameters, dtype=bool)),
        curvature=np.append(plain.curvature, np.full(noise.n_parameters, 2.0 * design.n)),
        latest=_Latest(),
    )


def problem_at(made: Whitened, phi: Array) -> Problem:
    """Return the plain problem of the data whitened at phi, log|R| in its `log_weights`; its sweep fills the adjoint of all products."""
    latest = made.latest
    if latest.problem is None or latest.phi is None or not np.array_equal(latest.phi, phi):
        latest.problem, latest.moves, latest.phi = _problem(made, phi), [], phi.copy()
    return latest.problem


def _problem(made: Whitened, phi: Array) -> Problem:
    noise = made.noise
    whitened = noise.whiten(phi, np.column_stack([made.X, made.y]))
    Q, R, ols, residual, y_scale = engine.least_squares(whitened[:, :-1], whitened[:, -1])
    factors = [replace(factor, z=np.ascontiguousarray(noise.whiten(phi, factor.z))) for factor in made.factors]
    built = replace(assemble(factors, made.plain.roots, np.column_stack([Q, residual / y_scale])), first_inner=0)
    return replace(
        made.plain,
        system=built,
        work=pls.workspace(built),
        ols=ols,
        R=R,
        log_det_R=2.0 * float(np.sum(np.log(np.abs(np.diagonal(R))))),
        y_scale=y_scale,
        log_weights=-noise.log_determinant(phi)[0],
    )


def _moves(made: Whitened, phi: Array) -> list[tuple[Array, Array]]:
    """Return the derivatives of the products, `(store, M)` by each of phi; bases of X and Z and the residual's origin are held."""
    problem = problem_at(made, phi)
    if made.latest.moves:
        return made.latest.moves
    noise = made.noise
    XE = np.column_stack([made.X, made.y - made.X @ problem.ols])
    here, there = _based(problem, noise.whiten(phi, XE)), [_based(problem, moved) for moved in noise.tangents(phi, XE)]
    z = [(noise.whiten(phi, factor.z), noise.tangents(phi, factor.z)) for factor in made.factors]
    made.latest.moves = [_polarised(made, problem, [(at, by[j]) for at, by in z], here, there[j]) for j in range(len(phi))]
    return made.latest.moves


def _based(problem: Problem, XE: Array) -> Array:
    """Return [X R^-1, e / y_scale]."""
    X, e = XE[:, :-1], XE[:, -1:]
    return np.column_stack([solve_triangular(problem.R, X.T, trans="T").T if problem.p else X, e / problem.y_scale])


def _polarised(made: Whitened, problem: Problem, z: Sequence[tuple[Array, Array]], XY: Array, dXY: Array) -> tuple[Array, Array]:
    """Return a'da + da'a in the layout of the products, pairs (a, b) that stand for (b, a) too counted twice."""
    ends = []
    for sign in (1.0, -1.0):
        moved = [replace(factor, z=np.ascontiguousarray(at + sign * by)) for factor, (at, by) in zip(made.factors, z, strict=True)]
        ends.append(assemble(moved, made.plain.roots, XY + sign * dXY))
    store, M = ends[0].store - ends[1].store, ends[0].M - ends[1].M
    levels, q = problem.system.levels, problem.system.q
    row = np.repeat(np.arange(len(levels.k)), levels.k)
    within = np.arange(len(row)) - np.repeat(np.cumsum(levels.k) - levels.k, levels.k)
    store[levels.d_at[row] + within * (levels.k[row] + 1)] *= 0.5
    M[q:, q:] *= 0.5
    M[np.arange(q), np.arange(q)] *= 0.5
    return store, M


def objective(made: Whitened, x: Array) -> tuple[float, Array]:
    """Return the profiled criterion at (t, phi), and its exact gradient."""
    t, phi = x[: made.n_t], x[made.n_t :]
    value, gradient = engine.objective(problem_at(made, phi), t)
    return value, np.append(gradient, _slope(made, phi))


def _slope(made: Whitened, phi: Array) -> Array:
    """Return the gradient by phi of what was evaluated last."""
    problem = problem_at(made, phi)
    work = problem.work
    Mbar = work.Mbar if problem.system.q else work.Fbar
    products = [float(work.bar @ store) + float(Mbar[M != 0.0] @ M[M != 0.0]) for store, M in _moves(made, phi)]  # else Mbar is unset
    slope: Array = made.noise.log_determinant(phi)[1] + np.array(products).reshape(len(phi))
    return slope


def whitened_design(design: Design, relative_sd: Array, rho: float) -> Design:
    """Return the design that the data follow once their residuals are independent, of one variance: R^-1/2 times X, Z and y.

    `relative_sd` (n,): of the rows over sigma, weights included; `rho`: of the residual term, if there is one.
    """

    def whiten(columns: Array) -> Array:
        scaled = columns / relative_sd[:, None]
        return scaled if design.series is None else residual_of(design.series).whiten(rho, design.series, scaled.T).T

    return replace(
        design,
        y=whiten((design.y - design.offset)[:, None])[:, 0],
        fixed=replace(design.fixed, X=whiten(design.X)),
        blocks=tuple(replace(block, values=whiten(block.values)) for block in design.blocks),
        weights=np.ones(design.n),
        offset=np.zeros(design.n),
        has_weights=False,
        has_offset=False,
    )


def natural(made: Whitened, t: Array, phi: Array) -> tuple[Estimate, float]:
    """Return all estimates at (t, phi), in units of the geometric mean of the residual sds, and that mean sigma."""
    problem = problem_at(made, phi)
    values = engine.estimate_at(problem, t)
    return values, math.sqrt(values.pwrss / problem.df)


# --------------------------------------------------------------------------------------------------- derivatives at the optimum


def hessian(made: Whitened, at: Array) -> Array:
    """Return the Hessian of the deviance by (t, phi, log sigma), beta profiled out: central differences of the exact gradient."""
    rows = []
    for i in range(len(at)):
        h = _STEP * max(1.0, abs(at[i]))
        rows.append((_deviance_slope(made, _moved(at, i, h)) - _deviance_slope(made, _moved(at, i, -h))) / (2.0 * h))
    H = np.array(rows)
    return np.asarray(0.5 * (H + H.T))


def slopes(made: Whitened, at: Array) -> Array:
    """Return the derivatives (d, p, p) of vcov(beta) by (t, phi, log sigma), by central differences."""
    found = []
    for i in range(len(at)):
        h = _STEP * max(1.0, abs(at[i]))
        found.append((_vcov(made, _moved(at, i, h)) - _vcov(made, _moved(at, i, -h))) / (2.0 * h))
    return np.array(found)


def _moved(at: Array, i: int, h: float) -> Array:
    moved = at.copy()
    moved[i] += h
    return moved


def _deviance_slope(made: Whitened, at: Array) -> Array:
    """Return the gradient of -2 log L (or restricted) by (t, phi, log sigma)."""
    t, phi, log_sigma = at[: made.n_t], at[made.n_t : -1], float(at[-1])
    problem = problem_at(made, phi)
    share = engine.parts(problem, t, 0.0)[0].pwrss * problem.y_scale**2 * math.exp(-2.0 * log_sigma)
    _, gradient = engine.parts(problem, t, share)
    return np.concatenate([gradient, _slope(made, phi), [2.0 * problem.df - 2.0 * share]])


def _vcov(made: Whitened, at: Array) -> Array:
    unscaled = engine.estimate_at(problem_at(made, at[made.n_t : -1]), at[: made.n_t]).unscaled_vcov
    vcov: Array = math.exp(2.0 * at[-1]) * unscaled
    return vcov
