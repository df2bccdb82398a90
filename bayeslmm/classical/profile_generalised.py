"""The criterion of a generalised fit, priors included, with one of its parameters held: what its profile minimises.

Coefficients, standard deviations, correlations and further constants are linear in the search's coordinates x = (gamma, t), or one of
them, so that holding one leaves x = at + E v with free v.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import null_space, solve

from bayeslmm.classical.engine import rebased, theta_of, vector_of
from bayeslmm.classical.glmm import Criterion, criterion_of
from bayeslmm.classical.held import OFF_ZERO, Held, Holder, affine, correlation, kept
from bayeslmm.classical.optimise import Box, free_box
from bayeslmm.errors import FitError
from bayeslmm.families import LINKS

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.classical.generalised import Glmm
    from bayeslmm.classical.parameters import Parameter

__all__ = ["HOLDERS", "least", "point_of"]

type Array = np.ndarray


def least(fit: ClassicalFit) -> float:
    """Return the criterion of a generalised fit with its priors, at the estimate.

    Raises
    ------
    FitError
        For a fit with its coefficients in the mode, `n_agq=0`.
    """
    found = criterion_of(fit)
    if found.method.m:
        raise FitError("a profile needs the coefficients outside the mode: fit with n_agq=1, Laplace's approximation, or more nodes")
    if found.method.prior is None:
        return fit.criterion
    return fit.criterion + found.method.prior(point_of(found, fit))[0]


def point_of(found: Criterion, fit: ClassicalFit) -> Array:
    """Return the search's coordinates of a fit, standard deviations of zero a little off zero, where their gradient vanishes."""
    beta = [fit.beta, *(part.beta for part in fit.further.values())]
    gamma = np.concatenate([solve(one.back, own) for one, own in zip(found.predictors, beta, strict=True)])
    if found.problem is None:
        return gamma
    theta = np.concatenate([fit.theta, *(part.theta for part in fit.further.values())])
    t = vector_of(found.problem, theta)
    is_sd = found.problem.mirror | (found.problem.lower == 0.0)
    return np.concatenate([gamma, np.where(is_sd, np.maximum(t, OFF_ZERO), t)])


def _problem(found: Criterion) -> Glmm:
    if found.problem is None:
        raise FitError("the model has no random effects")
    return found.problem


# -------------------------------------------------------------------------------------------------------------------- coefficients


def _hold_coefficient(fit: ClassicalFit, target: Parameter) -> Holder:
    return _hold_row(fit, 0, target.at, lambda value: value)


def _hold_further(fit: ClassicalFit, target: Parameter) -> Holder:
    """Hold a coefficient of a further predictor, or a constant, which is one on its link's scale."""
    part = list(fit.further.values())[target.block]
    link = LINKS[part.link].link
    return _hold_row(fit, 1 + target.block, target.at, (lambda v: v) if part.names else (lambda v: float(link(np.array(v)))))


def _hold_row(fit: ClassicalFit, predictor: int, row: int, natural: Callable[[float], float]) -> Holder:
    """Hold a'gamma of one predictor, a a row of its `back`: the other directions of gamma are orthogonal to a."""
    found = criterion_of(fit)
    one, x = found.predictors[predictor], point_of(found, fit)
    a = np.zeros(len(x))
    a[one.place] = one.back[row]
    own = np.arange(one.place.start, one.place.stop)
    rest = np.setdiff1d(np.arange(len(x)), own)
    E = np.zeros((len(x), len(x) - 1))
    E[rest, np.arange(len(rest))] = 1.0
    E[np.ix_(own, np.arange(len(rest), len(x) - 1))] = null_space(a[own][None, :])
    box = _joined(kept(found.box, rest), free_box(len(own) - 1))
    curvature = np.einsum("ij,i,ij->j", E, found.curvature, E)

    def held(value: float) -> Held:
        at = natural(value) * a / float(a @ a)
        return Held(function=affine(found.method.objective, at, E), box=box, start=E.T @ (x - at), curvature=curvature)

    return held


def _joined(one: Box, other: Box) -> Box:
    limits = [np.concatenate(pair) for pair in ((one.lower, other.lower), (one.upper, other.upper), (one.mirror, other.mirror))]
    return Box(lower=limits[0], upper=limits[1], mirror=limits[2])


# ----------------------------------------------------------------------------------------------------------- covariance parameters


def _hold_own_sd(fit: ClassicalFit, target: Parameter) -> Holder:
    found = criterion_of(fit)
    problem = _problem(found)
    place = problem.terms[target.block].theta.start + target.at
    return _hold_sd(fit, found, place, float(problem.scale[place, place]), ())


def _hold_free_sd(fit: ClassicalFit, target: Parameter) -> Holder:
    """Hold an effect's standard deviation: with the effect first in the triangle, that is the first component of t."""
    found = _with_first(fit, target.block, [target.at])
    term = _problem(found).terms[target.block]
    dead = tuple(range(term.theta.start + 1, term.theta.start + term.k))
    return _hold_sd(fit, found, term.theta.start, abs(float(term.T[target.at, 0])), dead)


def _hold_sd(fit: ClassicalFit, found: Criterion, place: int, size: float, dead: tuple[int, ...]) -> Holder:
    """Hold size * t[place]; the other variables are the rest of x, less `dead` where the value is zero."""
    p, x = _problem(found).p, point_of(found, fit)

    def held(value: float) -> Held:
        away = [p + place, *(p + i for i in dead)] if value == 0.0 else [p + place]
        at = np.zeros(len(x))
        at[p + place] = value / size
        return _selected(found, x, at, away)

    return held


def _selected(found: Criterion, x: Array, at: Array, away: list[int]) -> Held:
    """Return the criterion of all coordinates but those that are away, which stay where `at` has them."""
    keep = np.setdiff1d(np.arange(len(x)), away)
    E = np.zeros((len(x), len(keep)))
    E[keep, np.arange(len(keep))] = 1.0
    function = affine(found.method.objective, at, E)
    return Held(function=function, box=kept(found.box, keep), start=x[keep], curvature=found.curvature[keep])


def _hold_rho(fit: ClassicalFit, target: Parameter) -> Holder:
    """Hold a structure's own rho: one component of t."""
    found = criterion_of(fit)
    problem, x = _problem(found), point_of(found, fit)
    place = problem.terms[target.block].theta.start + target.at
    theta = theta_of(problem, x[problem.p :])

    def held(value: float) -> Held:
        moved = theta.copy()
        moved[place] = value
        at = np.zeros(len(x))
        at[problem.p + place] = vector_of(problem, moved)[place]
        return _selected(found, x, at, [problem.p + place])

    return held


def _hold_free_cor(fit: ClassicalFit, target: Parameter) -> Holder:
    """Hold a correlation, with its two effects first in the triangle."""
    effects = [target.at, target.other]
    found = _with_first(fit, target.block, effects)
    problem = _problem(found)
    term = problem.terms[target.block]
    at = problem.p + term.theta.start
    places = (at, at + 1, at + term.k)
    return correlation(found.method.objective, found.box, found.curvature, point_of(found, fit), term.T[effects, :2], places)


def _with_first(fit: ClassicalFit, position: int, effects: list[int]) -> Criterion:
    """Return the criterion with one term searched in a basis whose first rows, in this order, are the given effects."""
    design = fit.model.design
    block = design.blocks[position]
    order = [*effects, *(i for i in range(block.n_effects) if i not in effects)]
    _, upper, _ = rebased(block.values[:, order[::-1]])
    T = np.empty((block.n_effects, block.n_effects))
    T[order] = upper[::-1, ::-1]
    n_blocks = len(design.blocks) + sum(len(blocks) for _, blocks in design.parameters.values())
    bases: list[Array | None] = [None] * n_blocks
    bases[position] = T
    return criterion_of(fit, bases)


HOLDERS: Mapping[str, Callable[[ClassicalFit, Parameter], Holder]] = MappingProxyType(
    {
        "free_sd": _hold_free_sd,
        "free_cor": _hold_free_cor,
        "own_sd": _hold_own_sd,
        "own_rho": _hold_rho,
        "coefficient": _hold_coefficient,
        "further": _hold_further,
    }
)
"""Kind of parameter -> function of fit and parameter that holds it."""
