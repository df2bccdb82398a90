"""Profile likelihood: the deviance as a function of one parameter, all others at their best, and the limits it gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.interpolate import PchipInterpolator
from scipy.optimize import brentq
from scipy.stats import chi2, norm

from bayeslmm.classical.engine import Problem, objective, parts, rebased, vector_of
from bayeslmm.classical.held import OFF_ZERO, Held, Holder, correlation, kept
from bayeslmm.classical.lmm import fit_model, needs_maximum, one_thread, problem_of
from bayeslmm.classical.noise import has_noise
from bayeslmm.classical.optimise import Box, Minimum, minimise
from bayeslmm.classical.parameters import Parameter, check_level, chosen, estimates_of, profiled
from bayeslmm.classical.profile_generalised import HOLDERS, least
from bayeslmm.classical.reuse import at_value, hold_coefficient
from bayeslmm.classical.separated import separated
from bayeslmm.errors import FitError

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.plots.picture import Picture

__all__ = ["Profile", "profile", "profile_limits", "profile_note"]

type Array = np.ndarray
type Objective = Callable[[Array], tuple[float, Array]]

_STEP = 0.25
"""Distance in zeta between the points of a profile."""
_SLACK = 1e-6
"""A deviance lower than the fit's by more than this means that the fit was not at the minimum."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The profile of a fit by maximum likelihood; made by `profile`.

    Attributes
    ----------
    fit
        The fit that was profiled: the fit itself, or the ML refit of one by REML.
    table
        Columns `parameter, value, zeta, deviance`: zeta is the signed root of the rise of the deviance (with the penalty, where the
        fit has one) over its minimum.
    note
        A sentence on what was profiled.
    """

    fit: ClassicalFit
    table: pd.DataFrame
    note: str

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters, in order."""
        return tuple(dict.fromkeys(self.table["parameter"]))

    def intervals(self, level: float = 0.95, parameters: Sequence[str] | str | None = None) -> pd.DataFrame:
        """Return limits by monotone interpolation of the profile: a frame `lower, upper`; `confint` finds them exactly.

        A limit beyond the profile is the parameter's bound (0 for a standard deviation, -1 and 1 for a correlation).

        Raises
        ------
        FitError
            For an unknown parameter, or a level outside 0 to 1.
        """
        cutoff = _cutoff(level)
        names = chosen(self.parameters, parameters)
        bounds = {one.name: (one.lower, one.upper) for one in profiled(self.fit)}
        rows = [_interpolated(self.table[self.table["parameter"] == name], bounds[name], cutoff) for name in names]
        return pd.DataFrame(rows, index=list(names), columns=["lower", "upper"])

    def plot(self) -> Picture:
        """Draw zeta against each parameter, with the 50, 80, 90, 95 and 99 % intervals."""
        from bayeslmm.plots.profile import draw_profile

        return draw_profile(self)

    def __repr__(self) -> str:
        return f"<Profile of {len(self.parameters)} parameters, {len(self.table)} points; {self.note}>"


def profile(fit: ClassicalFit, parameters: Sequence[str] | str | None = None) -> Profile:
    """Profile the likelihood of every parameter: standard deviations, correlations, sigma, coefficients, further parameters.

    Parameters
    ----------
    fit
        What `lmer` or `glmer` returned; a REML fit is fitted again by maximum likelihood first, as lme4 does, and `note` says so. Of a
        penalised fit the likelihood with its penalty is profiled.
    parameters
        Names of some of them, as `confint` has them; default all.

    Returns
    -------
    Profile
        Points about a quarter of a unit of zeta apart, out to the 99 % limit of all parameters jointly or the parameter's bound; of a
        coefficient that data separate, on the side on which there is a limit.

    Raises
    ------
    FitError
        For an unknown parameter, a fit with `n_agq=0`, or where a lower deviance than that of the fit turns up.

    Source: Bates, Maechler, Bolker & Walker (2015), J. Stat. Softw. 67(1), section 5.1.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))
    >>> bl.profile(fit).intervals(0.95).round(1).loc["sigma"].tolist()
    [38.2, 67.7]
    """
    with one_thread():
        best = _by_ml(fit)
        targets = _targets(best, parameters)
        reach = math.sqrt(float(chi2.ppf(0.99, best.n_parameters)))
        rows: list[tuple[str, float, float, float]] = []
        for curve in _curves(best, targets):
            name = curve.target.parameter.name
            rows += [(name, value, zeta, curve.minimum + zeta**2) for value, zeta in _points(curve, reach)]
    table = pd.DataFrame(rows, columns=["parameter", "value", "zeta", "deviance"])
    return Profile(fit=best, table=table, note=profile_note(fit))


def profile_note(fit: ClassicalFit) -> str:
    """Say what is profiled."""
    if fit.penalty is not None:
        return f"profile of the likelihood with its penalty ({fit.penalty.name})"
    apart = separated(fit)
    if apart is not None:
        return f"profile likelihood; an infinite limit is of a coefficient that has no finite estimate ({', '.join(apart.coefficients)})"
    if fit.avoids_boundary:
        return "profile of the likelihood with its boundary-avoiding prior"
    return "profile likelihood of the ML refit (the fit is by REML)" if fit.reml else "profile likelihood"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """A parameter to profile, its estimate, and the sides (-1, 1) to which the likelihood of separated data has no end."""

    parameter: Parameter
    estimate: float
    endless: tuple[float, ...] = ()


_ENDLESS = {"+inf": (1.0,), "-inf": (-1.0,), "undefined": (-1.0, 1.0)}
"""What a separation says of a coefficient -> the sides on which it has no finite limit."""


def _targets(fit: ClassicalFit, wanted: Sequence[str] | str | None) -> list[_Target]:
    estimates = estimates_of(fit)
    names = chosen([str(name) for name in estimates.index], wanted)
    pairs = zip(profiled(fit), estimates.tolist(), strict=True)
    apart = separated(fit)
    signs = {} if apart is None else {name: _ENDLESS[sign] for name, sign in apart.coefficients.items()}
    return [
        _Target(parameter=one, estimate=value, endless=signs.get(one.name, ()) if one.kind == "coefficient" else ())
        for one, value in pairs
        if one.name in names
    ]


def profile_limits(fit: ClassicalFit, level: float, parameters: Sequence[str] | str | None) -> pd.DataFrame:
    """Return profile limits, each found as the root of zeta = +-cutoff to 1e-7 relative: a frame `lower, upper`."""
    cutoff = _cutoff(level)
    with one_thread():
        best = _by_ml(fit)
        targets = _targets(best, parameters)
        rows = [(_limit(curve, -1.0, cutoff), _limit(curve, 1.0, cutoff)) for curve in _curves(best, targets)]
    return pd.DataFrame(rows, index=[target.parameter.name for target in targets], columns=["lower", "upper"])


def _by_ml(fit: ClassicalFit) -> ClassicalFit:
    if has_noise(fit.model.design):
        raise FitError(
            "the profile likelihood is not available for a model with a residual structure (a predictor of sigma, or ar()); "
            "use confint by 'wald' or 'boot', or anova of two fits"
        )
    if fit.generalised:
        return fit
    needs_maximum(fit, "a profile")
    return fit_model(fit.model, reml=False, start=fit.theta) if fit.reml else fit


def _cutoff(level: float) -> float:
    return float(norm.ppf(0.5 + check_level(level) / 2.0))


# ------------------------------------------------------------------------------------------------------- one parameter's deviance


@dataclass(slots=True)
class _Curve:
    """A parameter's profile as it is explored: points seen so far, each with where its search ended, to start the next."""

    target: _Target
    held: Holder
    minimum: float
    seen: dict[float, tuple[float, Array, Array]] = field(default_factory=dict)

    def zeta(self, value: float) -> float:
        """Return the signed root of the deviance's rise at `value`."""
        if value == self.target.estimate:
            return 0.0
        if value not in self.seen:
            self.seen[value] = self._search(value)
        return math.copysign(math.sqrt(max(self.seen[value][0], 0.0)), value - self.target.estimate)

    def _search(self, value: float) -> tuple[float, Array, Array]:
        held = self.held(value)
        near = self._nearest(value, held.start.size)
        found = None if near is None else _minimum(held, *near)
        if found is None or not found.converged:
            other = _minimum(held, held.start, held.curvature)
            found = other if found is None or (other is not None and other.value < found.value) else found
        if found is None:
            return math.inf, np.zeros(0), np.zeros(0)
        rise = found.value - self.minimum
        if rise < -_SLACK * max(1.0, abs(self.minimum)):
            raise FitError(
                f"profiling {self.target.parameter.name} found a deviance lower than the fit's by {-rise:.3g}: the fit is not at the "
                "optimum; see fit.diagnose(), rescale predictors or simplify the random effects"
            )
        return rise, found.x, _diagonal(found)

    def _nearest(self, value: float, size: int) -> tuple[Array, Array] | None:
        known = [at for at, (rise, x, _) in self.seen.items() if x.size == size and math.isfinite(rise)]
        if not known:
            return None
        _, x, curvature = self.seen[min(known, key=lambda at: abs(at - value))]
        return x, curvature


def _minimum(held: Held, x: Array, curvature: Array) -> Minimum | None:
    """Return the minimum from x, standard deviations of zero moved off zero; None where the deviance is infinite."""
    is_sd = held.box.mirror | (held.box.lower == 0.0)
    start = held.box.clip(np.where(is_sd & (np.abs(x) < 1e-3), OFF_ZERO, x))
    if not math.isfinite(held.function(start)[0]):
        return None
    return minimise(held.function, start, held.box, curvature)


def _diagonal(found: Minimum) -> Array:
    """Return a positive diagonal of the Hessian, to start the next search with."""
    diagonal: Array = np.maximum(np.abs(np.diagonal(found.hessian)), 1e-3)
    return diagonal


def _curves(fit: ClassicalFit, targets: Sequence[_Target]) -> list[_Curve]:
    """Return the curves to walk, one for each target."""
    makers, minimum = (HOLDERS, least(fit)) if fit.generalised else (_MAKERS, fit.criterion)
    return [_Curve(target=target, held=makers[target.parameter.kind](fit, target.parameter), minimum=minimum) for target in targets]


def _box(problem: Problem) -> Box:
    return Box(lower=problem.lower, upper=problem.upper, mirror=problem.mirror)


def _start(problem: Problem, theta: Array) -> Array:
    """Return the search's coordinates of theta, standard deviations of zero a little off zero."""
    t = vector_of(problem, theta)
    is_sd = problem.mirror | (problem.lower == 0.0)
    return np.where(is_sd, np.maximum(t, OFF_ZERO), t)


def _hold_coefficient(fit: ClassicalFit, target: Parameter) -> Holder:
    problem = problem_of(fit.model, reml=False)
    shift = hold_coefficient(problem, target.at)
    start = _start(problem, fit.theta)

    def held(value: float) -> Held:
        moved = at_value(shift, value)
        return Held(function=lambda t: objective(moved, t), box=_box(problem), start=start, curvature=problem.curvature)

    return held


def _hold_sigma(fit: ClassicalFit, target: Parameter) -> Holder:
    problem = problem_of(fit.model, reml=False)
    start = _start(problem, fit.theta)

    def held(value: float) -> Held:
        log_sigma = math.log(value / problem.y_scale) if value > 0.0 else -math.inf

        def function(t: Array) -> tuple[float, Array]:
            deviance, by_t, _ = _deviance(problem, t, log_sigma)
            return deviance, by_t

        return Held(function=function, box=_box(problem), start=start, curvature=problem.curvature)

    return held


def _hold_theta(fit: ClassicalFit, target: Parameter) -> Holder:
    """Hold a structure's own rho: one component of t."""
    problem = problem_of(fit.model, reml=False)
    place = problem.terms[target.block].theta.start + target.at
    keep = np.delete(np.arange(problem.n_theta), place)
    start = _start(problem, fit.theta)

    def held(value: float) -> Held:
        theta = fit.theta.copy()
        theta[place] = value
        coordinate = float(vector_of(problem, theta)[place])

        def function(v: Array) -> tuple[float, Array]:
            deviance, gradient = objective(problem, _inserted(v, keep, place, coordinate))
            return deviance, gradient[keep]

        return Held(function=function, box=kept(_box(problem), keep), start=start[keep], curvature=problem.curvature[keep])

    return held


def _inserted(v: Array, keep: Array, place: int, value: float) -> Array:
    t = np.empty(len(keep) + 1)
    t[keep], t[place] = v, value
    return t


def _deviance(problem: Problem, t: Array, log_sigma: float) -> tuple[float, Array, float]:
    """Return -2 log L at t and sigma (in units of `y_scale`), beta at its best, with its gradients by t and by log sigma."""
    zero = np.zeros(problem.n_theta)
    if not math.isfinite(log_sigma):
        return math.inf, zero, 0.0
    value, _ = parts(problem, t, 0.0)
    if not value.pwrss > 0.0:
        return math.inf, zero, 0.0
    share = value.pwrss * math.exp(-2.0 * log_sigma)
    _, gradient = parts(problem, t, share)
    n = problem.n
    constant = n * math.log(2.0 * math.pi) + 2.0 * n * math.log(problem.y_scale) - problem.log_weights
    deviance = value.ld_l2 + constant + 2.0 * n * log_sigma + share
    return deviance, gradient, 2.0 * n - 2.0 * share


def _hold_own_sd(fit: ClassicalFit, target: Parameter) -> Holder:
    problem = problem_of(fit.model, reml=False)
    place = problem.terms[target.block].theta.start + target.at
    return _hold_sd(fit, problem, place, float(problem.scale[place, place]), ())


def _hold_free_sd(fit: ClassicalFit, target: Parameter) -> Holder:
    """Hold an effect's standard deviation: with the effect first in the triangle, that is sigma times the first component of t."""
    problem = _with_first(fit, target.block, [target.at])
    term = problem.terms[target.block]
    dead = tuple(range(term.theta.start + 1, term.theta.start + term.k))
    return _hold_sd(fit, problem, term.theta.start, abs(float(term.T[target.at, 0])), dead)


def _hold_sd(fit: ClassicalFit, problem: Problem, place: int, size: float, dead: tuple[int, ...]) -> Holder:
    """Hold sigma * size * t[place]; the other variables are log sigma and the rest of t, less `dead` where the value is zero."""
    t = _start(problem, fit.theta)
    log_sigma = math.log(fit.sigma / problem.y_scale)

    def held(value: float) -> Held:
        away = (place, *dead) if value == 0.0 else (place,)
        keep = np.setdiff1d(np.arange(problem.n_theta), away)

        def function(v: Array) -> tuple[float, Array]:
            full = np.zeros(problem.n_theta)
            full[keep] = v[1:]
            with np.errstate(over="ignore"):
                full[place] = value / (size * problem.y_scale) * np.exp(-v[0])
            deviance, by_t, by_sigma = _deviance(problem, full, float(v[0]))
            return deviance, np.concatenate([[by_sigma - by_t[place] * full[place]], by_t[keep]])

        inner = kept(_box(problem), keep)
        box = Box(lower=np.append(-np.inf, inner.lower), upper=np.append(np.inf, inner.upper), mirror=np.append(False, inner.mirror))
        curvature = np.append(4.0 * problem.n, problem.curvature[keep])
        return Held(function=function, box=box, start=np.append(log_sigma, t[keep]), curvature=curvature)

    return held


def _hold_free_cor(fit: ClassicalFit, target: Parameter) -> Holder:
    """Hold a correlation, with its two effects first in the triangle."""
    effects = [target.at, target.other]
    problem = _with_first(fit, target.block, effects)
    term = problem.terms[target.block]
    at = term.theta.start
    places = (at, at + 1, at + term.k)
    start, curvature = _start(problem, fit.theta), problem.curvature
    return correlation(lambda t: objective(problem, t), _box(problem), curvature, start, term.T[effects, :2], places)


def _with_first(fit: ClassicalFit, position: int, effects: list[int]) -> Problem:
    """Return the problem with one term searched in a basis whose first rows, in this order, are the given effects."""
    design = fit.model.design
    block = design.blocks[position]
    k = block.n_effects
    order = [*effects, *(i for i in range(k) if i not in effects)]
    _, upper, _ = rebased(block.values[:, order[::-1]], np.sqrt(design.weights))
    T = np.empty((k, k))
    T[order] = upper[::-1, ::-1]
    bases: list[Array | None] = [None] * len(design.blocks)
    bases[position] = T
    return problem_of(fit.model, reml=False, bases=bases)


_MAKERS: dict[str, Callable[[ClassicalFit, Parameter], Holder]] = {
    "free_sd": _hold_free_sd,
    "free_cor": _hold_free_cor,
    "own_sd": _hold_own_sd,
    "own_rho": _hold_theta,
    "sigma": _hold_sigma,
    "coefficient": _hold_coefficient,
}


# ------------------------------------------------------------------------------------------------------------ walking the profile


def _step_size(fit_value: float, target: _Target) -> float:
    return 0.1 * abs(fit_value) if fit_value else 0.1 * (target.parameter.upper if math.isfinite(target.parameter.upper) else 1.0)


def _walk(
    curve: _Curve, sign: float, step: float, begin: tuple[float, float, float] | None = None, limit: int = 60
) -> Iterator[tuple[float, float]]:
    """Yield points (value, zeta) about `step` in zeta apart, the parameter's bound last.

    They go out from the estimate, or from `begin`: value, zeta, and how far the next point is.
    """
    target = curve.target
    bound = target.parameter.lower if sign < 0.0 else target.parameter.upper
    at, zeta, move = (target.estimate, 0.0, _first_move(curve, sign, step)) if begin is None else begin
    for _ in range(limit):
        ahead = at + sign * move
        if (ahead - bound) * sign >= 0.0:
            ahead = bound
        value = curve.zeta(ahead)
        if not math.isfinite(value):
            move = 0.5 * min(move, abs(bound - at))
            continue
        yield ahead, value
        if ahead == bound:
            return
        gain = abs(value) - abs(zeta)
        at, zeta = ahead, value
        move *= min(max(step / gain, 0.3), 3.0) if gain > 0.0 else 3.0


def _first_move(curve: _Curve, sign: float, step: float) -> float:
    """Return the change of the parameter that raises zeta by about `step`; of one that ran off, half of the way back to zero."""
    target = curve.target
    if target.endless:
        return 0.5 * abs(target.estimate)
    bound = target.parameter.lower if sign < 0.0 else target.parameter.upper
    move = _step_size(target.estimate, target)
    for _ in range(60):
        if math.isfinite(bound):
            move = min(move, 0.5 * abs(bound - target.estimate))
        if move == 0.0:
            return 0.0
        gain = abs(curve.zeta(target.estimate + sign * move))
        if 0.3 * step <= gain <= 3.0 * step:
            return move * step / gain
        before = move
        move *= min(max(step / gain, 0.01), 100.0) if gain > 0.0 else 100.0
        if math.isfinite(bound) and move >= 0.5 * abs(bound - target.estimate) <= before:
            return before
    return move


def _points(curve: _Curve, reach: float) -> list[tuple[float, float]]:
    """Return the points (value, zeta) of a profile, ascending, out to zeta = +-reach."""
    if math.isnan(curve.target.estimate):
        return []
    below, above = ([*_within(_outwards(curve, sign), reach)] for sign in (-1.0, 1.0))
    return [*reversed(below), (curve.target.estimate, 0.0), *above]


def _outwards(curve: _Curve, sign: float) -> Iterator[tuple[float, float]]:
    """Yield the points of one side; of an estimate that ran off only the other side has some, from where the profile begins to rise."""
    if not curve.target.endless:
        yield from _walk(curve, sign, _STEP)
    elif sign not in curve.target.endless:
        first, second = _limit(curve, sign, _STEP), _limit(curve, sign, 2.0 * _STEP)
        yield from ((first, sign * _STEP), (second, 2.0 * sign * _STEP))
        yield from _walk(curve, sign, _STEP, begin=(second, 2.0 * sign * _STEP, abs(second - first)))


def _within(points: Iterator[tuple[float, float]], reach: float) -> Iterator[tuple[float, float]]:
    for value, zeta in points:
        yield value, zeta
        if abs(zeta) >= reach:
            return


def _limit(curve: _Curve, sign: float, cutoff: float) -> float:
    """Return where zeta is `sign * cutoff`, or the parameter's bound where it stays below."""
    target = curve.target
    bound = target.parameter.lower if sign < 0.0 else target.parameter.upper
    if math.isnan(target.estimate) or target.estimate == bound or sign in target.endless:
        return bound
    inner = target.estimate
    for value, zeta in _walk(curve, sign, cutoff):
        if abs(zeta) >= cutoff:
            return _root(curve, sign * cutoff, inner, value)
        inner = value
    return bound


def _root(curve: _Curve, wanted: float, inner: float, outer: float) -> float:
    """Return the root between a point below the cutoff and one above, to 1e-7 of their distance from the estimate."""
    tolerance = 1e-7 * abs(outer - curve.target.estimate)
    return float(brentq(lambda value: curve.zeta(value) - wanted, inner, outer, xtol=tolerance, rtol=1e-12))


def _interpolated(points: pd.DataFrame, bounds: tuple[float, float], cutoff: float) -> tuple[float, float]:
    """Return limits from the points of one profile by a monotone cubic of value on zeta."""
    if len(points) == 0:
        return bounds
    zeta = np.maximum.accumulate(points["zeta"].to_numpy(dtype=float))
    value = points["value"].to_numpy(dtype=float)
    rising = np.append(True, np.diff(zeta) > 0.0)
    if np.count_nonzero(rising) < 2:
        return bounds
    curve = PchipInterpolator(zeta[rising], value[rising], extrapolate=False)
    lower, upper = (float(curve(side)) for side in (-cutoff, cutoff))
    return (bounds[0] if math.isnan(lower) else lower, bounds[1] if math.isnan(upper) else upper)
