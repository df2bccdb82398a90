"""Minimise a smooth function with exact gradient in a box: projected quasi-Newton, then Newton steps, then other starts if needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import lapack

from bayeslmm.errors import FitError

__all__ = ["Box", "Minimum", "Objective", "Searchable", "approach", "free_box", "minimise", "search"]

type Array = np.ndarray
type Objective = Callable[[Array], tuple[float, Array]]

_ROUNDOFF = 1e-12
"""Relative error of the criterion that is taken for rounding."""
_STEP_TOLERANCE = 1e-8
"""A Newton step shorter than this ends the search; a step is measured in units of one plus the size of the parameter."""
_NEAR = 1e-5
"""A parameter this close to a limit is tried exactly on it."""
_FLAT = 1e-6
"""An eigenvalue of the Hessian below this share of the largest is a flat direction."""
_ALMOST_FLAT = 1e-3
"""Below this share the Hessian is taken again by central differences: one-sided ones cannot tell flat from almost flat."""
_LITTLE = 1e-7
"""A share of the function that is not worth following an almost flat valley for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Box:
    """Lower and upper limits (n,) of the parameters; `mirror`: those in whose sign the function is even, so that zero is an edge.

    A parameter with a mirror has no lower limit in the search: a limit at zero would be a trap where the way to the minimum leads
    through zero, as for a Cholesky factor whose column has to change sign. Only the result is brought back to the positive side.
    """

    lower: Array
    upper: Array
    mirror: Array

    def clip(self, x: Array) -> Array:
        inside: Array = np.minimum(np.maximum(x, self.lower), self.upper)
        return inside

    def held(self, x: Array, gradient: Array) -> Array:
        """Return which parameters stand at a limit that the gradient pushes them against."""
        return ((x <= self.lower) & (gradient > 0.0)) | ((x >= self.upper) & (gradient < 0.0))

    def at_limit(self, x: Array) -> Array:
        return (x <= self.lower) | (x >= self.upper)

    def on_edge(self, x: Array) -> Array:
        """Return which parameters are at a limit, or at the zero of a mirror."""
        edge: Array = self.at_limit(x) | (self.mirror & (x == 0.0))
        return edge


def free_box(n: int) -> Box:
    """Return the box of n parameters without limits."""
    return Box(lower=np.full(n, -np.inf), upper=np.full(n, np.inf), mirror=np.zeros(n, dtype=bool))


@dataclass(frozen=True, slots=True, kw_only=True)
class Searchable:
    """The criterion that a fit minimised, as any optimiser can search it.

    `function(x)` returns criterion and exact gradient (n,); `start`: lme4's; `box`; `curvature`: a rough diagonal of the Hessian;
    `estimates(x)` returns theta (n_theta,), sigma, and the coefficients (p,).
    """

    function: Objective
    start: Array
    box: Box
    curvature: Array
    estimates: Callable[[Array], tuple[Array, float, Array]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Minimum:
    """Where a search ended.

    Attributes
    ----------
    x, value, gradient, hessian
        The point (n,), the function, its gradient (n,) and Hessian (n, n; differences of exact gradients).
    projected
        Largest absolute gradient among the parameters that are free to move.
    step
        Length (largest component) of the last Newton step, in units of one plus the parameter's size.
    evaluations
        Number of evaluations of function and gradient, over all starts.
    starts
        Number of starting points tried.
    converged
        Whether the last Newton step was negligible, or promised no more than rounding; in an almost flat valley, next to nothing.
    least_curvature
        Least eigenvalue of the Hessian of the free parameters, over the greatest (or one, if that is less); parameters in units of
        their size, or of one if that is less.
    flat_directions
        Eigenvectors (n, m) of the eigenvalues that are nearly zero, or negative; of an almost flat valley where the search ended in it.
    trace
        `(x, value)` of the accepted steps of the best start.
    """

    x: Array
    value: float
    gradient: Array
    hessian: Array
    projected: float
    step: float
    evaluations: int
    starts: int
    converged: bool
    least_curvature: float
    flat_directions: Array
    trace: tuple[tuple[Array, float], ...]

    @property
    def flat(self) -> bool:
        """Whether the function does not change in some direction."""
        return bool(self.flat_directions.shape[1])


@dataclass(slots=True)
class _State:
    """The running state of one search; changes as it goes, and never leaves this module."""

    function: Objective
    box: Box
    x: Array
    value: float
    gradient: Array
    evaluations: int
    trace: list[tuple[Array, float]]

    def evaluate(self, x: Array) -> tuple[float, Array]:
        self.evaluations += 1
        value, gradient = self.function(x)
        return (value, gradient) if np.isfinite(value) else (np.inf, gradient)

    def accept(self, x: Array, value: float, gradient: Array) -> None:
        self.x, self.value, self.gradient = x, value, gradient
        self.trace.append((x.copy(), value))


def minimise(function: Objective, start: Array, box: Box, curvature: Array) -> Minimum:
    """Return the local minimum that a search from `start` reaches.

    Projected BFGS (Bertsekas 1982, SIAM J. Control Optim. 20) from the Hessian `curvature` (n, n), or its diagonal (n,), until it
    predicts little to gain; then Newton steps with the Hessian by differences of the exact gradient, which also leave limits and
    saddles where the curvature is negative.

    Raises
    ------
    FitError
        If the function is not finite at the start.
    """
    state = _begin(function, start, box)
    if state.x.size == 0:
        return _minimum(state, np.zeros((0, 0)), 0.0, True)
    _quasi_newton(state, _square(curvature))
    return _newton(state)


def approach(function: Objective, start: Array, box: Box, curvature: Array) -> tuple[Array, Array, int]:
    """Return a point near the minimum, where projected BFGS expects little to gain, its Hessian there and the number of evaluations."""
    state, hessian = _begin(function, start, box), _square(curvature)
    if state.x.size:
        _quasi_newton(state, hessian)
    return state.x, hessian, state.evaluations


def _begin(function: Objective, start: Array, box: Box) -> _State:
    x = box.clip(np.asarray(start, dtype=float))
    state = _State(function, box, x, np.inf, np.zeros_like(x), 0, [])
    state.accept(x, *state.evaluate(x))
    if not np.isfinite(state.value):
        raise FitError(
            "the likelihood cannot be computed for these data: predictors or weights differ too much in size (rescale them), "
            "or the link lets the mean leave the range of the family (use one that keeps it inside, as `log` or `logit`)"
        )
    return state


def _square(curvature: Array) -> Array:
    """Return a Hessian of its own, from one or from its diagonal."""
    return np.diag(curvature) if curvature.ndim == 1 else curvature.copy()


def search(
    function: Objective, start: Array, box: Box, curvature: Array, *, others: Iterable[Array] = (), doubtful: Callable[[Minimum], bool]
) -> Minimum:
    """Return the best minimum from `start`, and from `others` as well where the first is `doubtful`."""
    best = minimise(function, start, box, curvature)
    evaluations, starts = best.evaluations, 1
    if doubtful(best):
        for other in others:
            found = minimise(function, other, box, curvature)
            evaluations, starts = evaluations + found.evaluations, starts + 1
            margin = 1e-9 * max(1.0, abs(best.value))
            if found.value < best.value - margin or (found.value < best.value + margin and found.converged and not best.converged):
                best = found
    return replace(best, evaluations=evaluations, starts=starts)


def _minimum(state: _State, hessian: Array, step: float, converged: bool) -> Minimum:
    values, vectors = _curvatures(state, hessian)
    if values[0] < _ALMOST_FLAT:
        hessian = _differences(state, central=True)
        values, vectors = _curvatures(state, hessian)
    flat = _FLAT
    if not converged and values[0] > -_ALMOST_FLAT:
        rest = _capped(_descent(hessian, state.gradient, _free(state)), state.x)
        converged = _negligible(state, rest)
        if not converged and values[0] < _ALMOST_FLAT and _negligible(state, rest, _LITTLE):
            converged, flat = True, _ALMOST_FLAT
    projected = np.where(state.box.held(state.x, state.gradient), 0.0, np.abs(state.gradient))
    return Minimum(
        x=state.x,
        value=state.value,
        gradient=state.gradient,
        hessian=hessian,
        projected=float(np.max(projected, initial=0.0)),
        step=step,
        evaluations=state.evaluations,
        starts=1,
        converged=converged,
        least_curvature=float(values[0]),
        flat_directions=vectors[:, values < flat],
        trace=tuple(state.trace),
    )


def _curvatures(state: _State, hessian: Array) -> tuple[Array, Array]:
    """Return the eigenvalues of the Hessian of the free parameters over the greatest, ascending, and directions (n, m) of x."""
    free = ~state.box.at_limit(state.x)
    if not free.any():
        return np.ones(1), np.zeros((state.x.size, 1))
    sizes = np.maximum(1.0, np.abs(state.x[free]))
    values, vectors = np.linalg.eigh(hessian[np.ix_(free, free)] * np.outer(sizes, sizes))
    directions = np.zeros((state.x.size, len(values)))
    directions[free] = vectors * sizes[:, None]
    return values / max(float(values[-1]), 1.0), directions


# ----------------------------------------------------------------------------------------------------------------- quasi-Newton


def _quasi_newton(state: _State, hessian: Array, limit: int = 80) -> None:
    for _ in range(limit):
        free = ~state.box.held(state.x, state.gradient)
        direction = _descent(hessian, state.gradient, free)
        if -float(direction @ state.gradient) < 1e-4:
            return
        before, slope = state.x, state.gradient
        if not _line_search(state, _capped(direction, state.x)):
            return
        _update(hessian, state.x - before, state.gradient - slope)


def _capped(direction: Array, x: Array) -> Array:
    """Shorten a step that would move some parameter by more than its own size and one."""
    largest = _length(direction, x)
    return direction / largest if largest > 1.0 else direction


def _length(step: Array, x: Array) -> float:
    return float((np.abs(step) / (1.0 + np.abs(x))).max(initial=0.0))


def _descent(hessian: Array, gradient: Array, free: Array) -> Array:
    """Return the Newton direction of the free parameters, with absolute eigenvalues of the Hessian, none of them tiny."""
    return _direction(hessian, gradient, free, lambda sizes, largest: np.maximum(sizes, 1e-9 * largest))


def _direction(hessian: Array, gradient: Array, free: Array, divisors: Callable[[Array, float], Array]) -> Array:
    """Return the Newton direction of the free parameters; where the Hessian is not safely convex, along its eigenvectors.

    `divisors` turns the eigenvalues' sizes, and the largest of them (at least 1e-6), into what slopes are divided by.
    """
    direction = np.zeros_like(gradient)
    if not free.any():
        return direction
    inner = hessian if free.all() else hessian[np.ix_(free, free)]
    step = _where_convex(inner, gradient[free])
    if step is None:
        values, vectors = np.linalg.eigh(inner)
        sizes = np.abs(values)
        step = -vectors @ ((vectors.T @ gradient[free]) / divisors(sizes, max(float(np.max(sizes)), 1e-6)))
    direction[free] = step
    return direction


def _where_convex(hessian: Array, gradient: Array) -> Array | None:
    """Return the Newton step of a positive definite Hessian that is not nearly singular, None of another."""
    factor, step, failed = lapack.dposv(hessian, gradient)
    pivots = factor.diagonal()
    return -step if failed == 0 and pivots.min() ** 2 > 1e-5 * pivots.max() ** 2 else None


def _update(hessian: Array, s: Array, y: Array) -> None:
    """BFGS, in place; damped (Powell 1978) where the curvature along the step is not positive."""
    Hs = hessian @ s
    along = float(s @ Hs)
    if along <= 0.0:
        return
    curvature = float(s @ y)
    if curvature < 0.1 * along:
        share = 0.9 * along / (along - curvature)
        y = share * y + (1.0 - share) * Hs
        curvature = float(s @ y)
    hessian += y[:, None] * (y / curvature) - Hs[:, None] * (Hs / along)


def _line_search(state: _State, direction: Array, limit: int = 25) -> bool:
    """Move along the projected direction until the function falls enough (Armijo); return whether it did."""
    slack = _ROUNDOFF * max(1.0, abs(state.value))
    alpha = 1.0
    for _ in range(limit):
        x = state.box.clip(state.x + alpha * direction)
        move = x - state.x
        if not move.any():
            return False
        slope = float(state.gradient @ move)
        value, gradient = state.evaluate(x)
        if value <= state.value + 1e-4 * slope + slack and (slope < 0.0 or value <= state.value):
            state.accept(x, value, gradient)
            return True
        if np.isfinite(value) and slope < 0.0:
            best = -slope / (2.0 * (value - state.value - slope))
            alpha *= float(np.clip(best, 0.1, 0.5))
        else:
            alpha *= 0.2
    return False


# ----------------------------------------------------------------------------------------------------------------------- Newton


def _newton(state: _State, limit: int = 40) -> Minimum:
    hessian = _differences(state)
    step = previous = np.inf
    for _ in range(limit):
        if _leave_limit(state, hessian) or _escape_saddle(state, hessian):
            _quasi_newton(state, np.diag(np.maximum(np.abs(np.diagonal(hessian)), 1e-3)))
            hessian, previous = _differences(state), np.inf
        direction = _capped(_regular_step(hessian, state.gradient, _free(state)), state.x)
        step = _length(direction, state.x)
        if step >= _STEP_TOLERANCE and not _newton_step(state, direction):
            negligible = _negligible(state, direction)
            if negligible and _snap(state):
                hessian = _differences(state)
            return _minimum(state, hessian, step, negligible)
        ahead = step * min(step / previous if np.isfinite(previous) else step, 1.0)
        arrived = ahead < 0.1 * _STEP_TOLERANCE or step < _STEP_TOLERANCE
        if arrived and not _snap(state):
            return _minimum(state, hessian, step, True)
        if step > 0.1 * previous and not arrived:
            hessian, step = _differences(state), np.inf
        previous = step
    return _minimum(state, hessian, step, False)


def _free(state: _State) -> Array:
    """Return which parameters may move: not those held at a limit, nor those on an edge with zero slope (a variance of zero)."""
    resting = state.box.on_edge(state.x) & (np.abs(state.gradient) < 1e-9)
    return ~state.box.held(state.x, state.gradient) & ~resting


def _snap(state: _State) -> bool:
    """Put parameters that are next to a limit exactly on it where that costs nothing; return whether any moved."""
    box, x = state.box, state.x
    near_lower = (x > box.lower) & (x < box.lower + _NEAR)
    near_upper = (x < box.upper) & (x > box.upper - _NEAR)
    near_zero = box.mirror & (x != 0.0) & (np.abs(x) < _NEAR)
    if not (near_lower | near_upper | near_zero).any():
        return False
    snapped = np.where(near_zero, 0.0, np.where(near_lower, box.lower, np.where(near_upper, box.upper, x)))
    value, gradient = state.evaluate(snapped)
    if value > state.value + _ROUNDOFF * max(1.0, abs(state.value)):
        return False
    state.accept(snapped, value, gradient)
    return True


def _negligible(state: _State, direction: Array, share: float = 1e-10) -> bool:
    """Return whether a refused step promised no more than rounding, or than the given share of the function."""
    return abs(float(direction @ state.gradient)) < share * max(1.0, abs(state.value))


def _differences(state: _State, central: bool = False) -> Array:
    """Hessian by differences of the exact gradient, one-sided or central, symmetrised; steps stay inside the box."""
    n = state.x.size
    hessian = np.zeros((n, n))
    for i in range(n):
        h = (1e-4 if central else 1e-5) * max(1.0, abs(state.x[i]))
        ahead = _beside(state, i, h)
        behind = _beside(state, i, -h) if central or ahead is None else None
        sides = [side for side in (ahead, behind) if side is not None]
        if sides:
            (one, slope), (other, other_slope) = sides if len(sides) == 2 else (sides[0], (state.x[i], state.gradient))
            hessian[i] = (slope - other_slope) / (one - other)
    return 0.5 * (hessian + hessian.T)


def _beside(state: _State, i: int, h: float) -> tuple[float, Array] | None:
    """Return parameter i and the gradient at h from here, or None where that is outside the box or the function is not finite."""
    x = state.x.copy()
    x[i] += h
    if not state.box.lower[i] <= x[i] <= state.box.upper[i]:
        return None
    value, gradient = state.evaluate(x)
    return (float(x[i]), gradient) if np.isfinite(value) else None


def _regular_step(hessian: Array, gradient: Array, free: Array) -> Array:
    """Newton step of the free parameters, without the flat directions (generalised inverse)."""
    return _direction(hessian, gradient, free, lambda sizes, largest: np.where(sizes > 1e-7 * largest, sizes, np.inf))


def _newton_step(state: _State, direction: Array) -> bool:
    """Take the step where it lowers the function, or the gradient at no more than rounding; halve it otherwise."""
    before = float(np.max(np.where(state.box.held(state.x, state.gradient), 0.0, np.abs(state.gradient))))
    slack = _ROUNDOFF * max(1.0, abs(state.value))
    for alpha in (1.0, 0.5, 0.25, 0.1, 0.01):
        x = state.box.clip(state.x + alpha * direction)
        value, gradient = state.evaluate(x)
        size = float(np.max(np.where(state.box.held(x, gradient), 0.0, np.abs(gradient))))
        if value < state.value - slack or (value <= state.value + slack and size < before):
            state.accept(x, value, gradient)
            return True
    return False


def _leave_limit(state: _State, hessian: Array) -> bool:
    """Move parameters off a limit with zero slope where the curvature is negative; return whether one did."""
    resting = np.flatnonzero(state.box.at_limit(state.x) & (np.abs(state.gradient) < 1e-9) & (np.diagonal(hessian) < -1e-6))
    slack = _ROUNDOFF * max(1.0, abs(state.value))
    for i in resting:
        for size in (0.5, 0.1, 0.02):
            x = state.x.copy()
            x[i] += size if x[i] <= state.box.lower[i] else -size
            value, gradient = state.evaluate(state.box.clip(x))
            if value < state.value - slack:
                state.accept(state.box.clip(x), value, gradient)
                return True
    return False


def _escape_saddle(state: _State, hessian: Array) -> bool:
    """At a stationary point with negative curvature inside the box, move along it; return whether the function fell."""
    free = ~state.box.at_limit(state.x)
    if not free.any():
        return False
    inner = hessian[np.ix_(free, free)]
    if lapack.dpotrf(inner)[1] == 0:
        return False
    values, vectors = np.linalg.eigh(inner)
    if values[0] > -1e-4 * max(1.0, float(values[-1])) or float(np.max(np.abs(state.gradient[free]))) > 1e-2 * max(1.0, -values[0]):
        return False
    slack = _ROUNDOFF * max(1.0, abs(state.value))
    for size in (0.3, -0.3, 0.05, -0.05):
        x = state.x.copy()
        x[free] += size * vectors[:, 0]
        x = state.box.clip(x)
        value, gradient = state.evaluate(x)
        if value < state.value - slack:
            state.accept(x, value, gradient)
            return True
    return False
