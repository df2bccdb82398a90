"""A generalised model with random effects as a function of its coefficients and covariance parameters: scaling and starting values.

As in `engine`, all is computed on well-scaled copies: the fixed effects of every linear predictor by an orthonormal basis (in units of
their root mean square), random effects in the search's coordinates t of `engine`, absolute in place of relative to a residual.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.linalg import solve_triangular

from bayeslmm.classical.engine import Placement, TermData, linear_map, place, starts_of
from bayeslmm.linear import related
from bayeslmm.linear import system as blocked

if TYPE_CHECKING:
    from bayeslmm.classical.engine import Term
    from bayeslmm.linear.rows import RowMap

__all__ = [
    "Derivatives",
    "Glm",
    "Glmm",
    "Likelihood",
    "Predictor",
    "PredictorData",
    "fixed_part",
    "prepare",
    "without_effects",
    "without_random",
]

type Array = np.ndarray


class Derivatives(Protocol):
    """The log-likelihood of each row and its derivatives by the K predictors: (n,), (K, n), (K, K, n) and (K, K, K, n)."""

    @property
    def value(self) -> Array: ...
    @property
    def d1(self) -> Array: ...
    @property
    def d2(self) -> Array: ...
    @property
    def d3(self) -> Array: ...


type Likelihood = Callable[[Array, int], Derivatives]
"""`(etas (K, n), order) -> Derivatives` up to that order, prior weights and all constants in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorData:
    """A linear predictor's data: name ("" for the mean), X (n, p), offset (n,), and eta (n,) to start the search for its coefficients."""

    name: str
    X: Array
    offset: Array
    start: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """A linear predictor: name, `Q` (n, p) with orthogonal columns of mean square one, beta = `back` gamma, offset, place in gamma."""

    name: str
    Q: Array
    back: Array
    offset: Array
    place: slice


@dataclass(slots=True)
class Warm:
    """Where the last search for a mode ended: a start for the next one, on which no result depends."""

    u: Array
    inner: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Glmm:
    """A generalised model ready to be evaluated at any coefficients gamma (of all predictors) and covariance parameters t.

    `terms` ... `mirror`: the search's coordinates of the covariance parameters, as in `engine.Problem`. `system`: the blocks of
    Z'WZ, which `rows` fills; without random effects both are those of no columns. `roots`: of known covariances, as in `Placement`.
    `gamma`: the estimate without random effects; `start`, `curvature`: where to start t, and a rough diagonal of the Hessian;
    `information` (p,): that of gamma.
    """

    likelihood: Likelihood
    predictors: tuple[Predictor, ...]
    n: int
    rows: RowMap
    system: blocked.System
    work: blocked.Workspace
    terms: tuple[Term, ...]
    groups: tuple[str, ...]
    roots: tuple[Array | None, ...]
    scale: Array
    middle: Array
    half: Array
    linear: Array
    lower: Array
    upper: Array
    mirror: Array
    gamma: Array
    information: Array
    start: Array
    curvature: Array
    warm: Warm = field(default_factory=lambda: Warm(np.zeros(0), np.zeros(0)))

    @property
    def p(self) -> int:
        """Number of coefficients of all predictors."""
        return len(self.gamma)

    @property
    def n_mean(self) -> int:
        """Number of coefficients of the mean."""
        return int(self.predictors[0].place.stop)

    @property
    def n_theta(self) -> int:
        return int(self.scale.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Glm:
    """A model without random effects at its optimum: coefficients (p,), -2 log L, its gradient and Hessian, and whether it arrived."""

    gamma: Array
    value: float
    gradient: Array
    hessian: Array
    steps: int
    converged: bool


def prepare(
    likelihood: Likelihood,
    data: Sequence[PredictorData],
    terms: Sequence[TermData],
    owner: Sequence[int],
    bases: Sequence[Array | None] | None = None,
) -> tuple[Glmm | None, Glm, tuple[Predictor, ...]]:
    """Return the problem (None without random terms), the fit without random effects, and the predictors.

    Parameters
    ----------
    likelihood
        Of the rows, by their linear predictors.
    data
        The K predictors, that of the mean first.
    terms, owner
        Random terms, those of the mean first (in lme4's order), and the predictor that each belongs to.
    bases
        For each term a matrix to search in, or None, as `engine.place` takes them.
    """
    predictors = _predictors(data)
    glm = without_random(likelihood, predictors, _first(likelihood, predictors, data))
    if not terms:
        return None, glm, predictors
    found = likelihood(fixed_part(predictors, glm.gamma), 2)
    n = len(data[0].offset)
    placed = place(terms, np.ones(n), _working_residual(found), bases)
    built, rows = related.row_map(placed.factors, placed.roots, _owners(placed, owner))
    start, curvature = _moments(placed, owner, found)
    return (
        Glmm(
            likelihood=likelihood,
            predictors=predictors,
            n=n,
            rows=rows,
            system=built,
            work=blocked.workspace(built),
            terms=placed.terms,
            groups=placed.groups,
            roots=placed.roots,
            scale=placed.scale,
            middle=placed.middle,
            half=placed.half,
            linear=linear_map(placed, built),
            lower=placed.lower,
            upper=placed.upper,
            mirror=placed.mirror,
            gamma=glm.gamma,
            information=np.maximum(np.diagonal(glm.hessian), 1e-6),
            start=np.clip(start, placed.lower, placed.upper),
            curvature=curvature,
        ),
        glm,
        predictors,
    )


def _predictors(data: Sequence[PredictorData]) -> tuple[Predictor, ...]:
    """Return the predictors in an orthonormal basis: columns are scaled first, so that any units fit alike."""
    predictors, at = [], 0
    for one in data:
        n, p = one.X.shape
        lengths = np.max(np.abs(one.X), axis=0, initial=0.0)
        lengths[lengths == 0.0] = 1.0
        Q, R = np.linalg.qr(one.X / lengths)
        back = solve_triangular(R, np.eye(p)) / lengths[:, None] * np.sqrt(n) if p else np.zeros((0, 0))
        predictors.append(Predictor(name=one.name, Q=Q * np.sqrt(n), back=back, offset=one.offset, place=slice(at, at + p)))
        at += p
    return tuple(predictors)


def _first(likelihood: Likelihood, predictors: Sequence[Predictor], data: Sequence[PredictorData]) -> Array:
    """Return coefficients to start from: those nearest to each row's own start or, where they leave the range of a mean, to its average."""
    own = [one.start for one in data]
    near, average = (_towards(predictors, starts) for starts in (own, [np.full(len(start), np.mean(start)) for start in own]))
    return near if np.isfinite(_glm_at(likelihood, predictors, near)[0]) else average


def _towards(predictors: Sequence[Predictor], starts: Sequence[Array]) -> Array:
    """Return the coefficients that come closest to a start (n,) of each predictor."""
    return np.concatenate([one.Q.T @ (start - one.offset) / len(start) for one, start in zip(predictors, starts, strict=True)])


def fixed_part(predictors: Sequence[Predictor], gamma: Array) -> Array:
    """Return the predictors (K, n) at coefficients gamma, without random effects."""
    return np.stack([predictor.Q @ gamma[predictor.place] + predictor.offset for predictor in predictors])


def by_coefficients(predictors: Sequence[Predictor], e: Array) -> Array:
    """Return Q'e of all predictors, e (K, n)."""
    return np.concatenate([predictor.Q.T @ e[k] for k, predictor in enumerate(predictors)])


def information(predictors: Sequence[Predictor], W: Array) -> Array:
    """Return Q'WQ over all predictors, W (K, K, n)."""
    rows = [
        np.hstack([one.Q.T @ (W[k, l][:, None] * other.Q) for l, other in enumerate(predictors)])  # noqa: E741
        for k, one in enumerate(predictors)
    ]
    return np.vstack(rows)


_GLM_STEPS = 100
_GLM_TOLERANCE = 1e-8
"""A Newton step that promises less than this is the last: the gains square. So separated data end at coefficients that are large only."""


def without_random(likelihood: Likelihood, predictors: Sequence[Predictor], gamma: Array) -> Glm:
    """Return the maximum likelihood fit without random effects, by Newton steps with the observed information, halved where needed."""
    value, score, H = _glm_at(likelihood, predictors, gamma)
    if not np.isfinite(value):
        gamma = 0.0 * gamma
        value, score, H = _glm_at(likelihood, predictors, gamma)
    converged, steps = False, 0
    while steps < _GLM_STEPS:
        steps += 1
        step = _ascent(H, score)
        gain = float(step @ score)
        moved = _glm_move(likelihood, predictors, gamma, value, step, gain)
        converged = gain < _GLM_TOLERANCE
        if moved is None:
            break
        gamma, value, score, H = moved
        if converged:
            break
    return Glm(gamma=gamma, value=value, gradient=-2.0 * score, hessian=2.0 * H, steps=steps, converged=converged)


def without_effects(likelihood: Likelihood, predictors: Sequence[Predictor], gamma: Array) -> tuple[float, Array]:
    """Return -2 log L at coefficients gamma without random effects, and its gradient."""
    value, score, _ = _glm_at(likelihood, predictors, gamma)
    return value, -2.0 * score


def _glm_at(likelihood: Likelihood, predictors: Sequence[Predictor], gamma: Array) -> tuple[float, Array, Array]:
    """Return -2 log L, the score and the observed information."""
    with np.errstate(all="ignore"):
        found = likelihood(fixed_part(predictors, gamma), 2)
        value = -2.0 * float(np.sum(found.value))
    if not np.isfinite(value) or not np.all(np.isfinite(found.d2)):
        return np.inf, np.zeros(len(gamma)), np.eye(len(gamma))
    return value, by_coefficients(predictors, found.d1), information(predictors, -found.d2)


def _ascent(H: Array, score: Array) -> Array:
    """Return the Newton step with absolute eigenvalues of the information, none of them tiny."""
    if not score.size:
        return score
    values, vectors = np.linalg.eigh(H)
    sizes = np.maximum(np.abs(values), 1e-10 * max(float(np.max(np.abs(values))), 1e-10))
    step: Array = vectors @ ((vectors.T @ score) / sizes)
    largest = float(np.max(np.abs(step)))
    return step * (5.0 / largest) if largest > 5.0 else step


def _glm_move(
    likelihood: Likelihood, predictors: Sequence[Predictor], gamma: Array, value: float, step: Array, gain: float
) -> tuple[Array, float, Array, Array] | None:
    alpha = 1.0
    for _ in range(40):
        there = gamma + alpha * step
        found, score, H = _glm_at(likelihood, predictors, there)
        if found < value - 1e-4 * alpha * gain:
            return there, found, score, H
        alpha *= 0.5
    return None


def _working_residual(found: Derivatives) -> Array:
    """Return d1 / W of the mean, held to a few of its own spreads, to tell which random effects are large."""
    W = np.maximum(-found.d2[0, 0], 1e-10)
    residual = found.d1[0] / W
    size = float(np.sqrt(np.sum(W * residual**2) / np.sum(W)))
    clipped: Array = np.clip(residual, -3.0 * size, 3.0 * size)
    root = float(np.sqrt(np.mean(clipped**2)))
    return clipped / root if root > 0.0 else clipped


def _owners(placed: Placement, owner: Sequence[int]) -> list[int]:
    """Return the predictor of every column of all factors, in order."""
    order = sorted(range(len(placed.terms)), key=lambda i: (placed.terms[i].factor, placed.terms[i].column))
    return [owner[i] for i in order for _ in range(placed.terms[i].k)]


def _moments(placed: Placement, owner: Sequence[int], found: Derivatives) -> tuple[Array, Array]:
    """Return a start in t and a rough Hessian there, from the scores s of the levels: E s^2 = I + v I^2 with information I, variance v."""
    variances, masses = [], []
    for term, k in zip(placed.terms, owner, strict=True):
        factor = placed.factors[term.factor]
        z = factor.z[:, term.column : term.column + term.k]
        W = np.maximum(-found.d2[k, k], 1e-10)
        scores = np.column_stack([np.bincount(factor.index, z[:, c] * found.d1[k], factor.n_levels) for c in range(term.k)])
        masses_of = np.column_stack([np.bincount(factor.index, z[:, c] ** 2 * W, factor.n_levels) for c in range(term.k)])
        squares = np.sum(masses_of**2, axis=0)
        variances.append(np.sum(scores**2 - masses_of, axis=0) / np.where(squares > 0.0, squares, 1.0))
        masses.append(np.mean(masses_of, axis=0))
    return starts_of(placed, variances, masses)
