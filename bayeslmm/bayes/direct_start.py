"""Where the direct sampler starts: the posterior's mode, and coordinates in which the posterior near it is a standard normal.

The mode in the coordinates of `direct_density` is near that of the parameters' posterior with the random effects integrated out by
Laplace's approximation. It is found by turns: the working responses of the rows at a point, then the mode given these (L-BFGS).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.collapsed_density import unconstrained
from bayeslmm.bayes.collapsed_priors import form
from bayeslmm.bayes.direct_plan import columns_of, evaluate, laid_out, linearised, slopes, values_of

if TYPE_CHECKING:
    from bayeslmm.bayes.direct_plan import Direct

__all__ = ["whiten"]

type Array = np.ndarray

_TURNS = 8
_CLOSE = 0.1
"""The turns end where no coordinate of the mode moves by more, in units of a rough standard deviation."""
_STEP = 1e-4
"""Of the differences of the gradient, in the same units."""


def whiten(direct: Direct) -> Direct:
    """Return the density in coordinates t, x = mode + root t, in which the posterior is near a standard normal."""
    x, direct = _first(direct)
    for turn in range(_TURNS):
        direct = _scaled(direct, x)
        t = _maximum(direct)
        x = _at(direct, t)
        if np.max(np.abs(t[: direct.globals]), initial=0.0) < _CLOSE:
            break
        if turn > 1:  # ever less of the way: what one turn gives to a factor, the next may take from it for another one
            x[: direct.globals] += (direct.plan.mode[: direct.globals] - x[: direct.globals]) * (1.0 - 1.0 / turn)
        values = values_of(replace(direct, plan=_here(direct, x, np.zeros((0, 0)))).plan, np.zeros((1, direct.dim)))
        direct = linearised(direct, values)
        x[direct.globals :] = 0.0
    return replace(direct, plan=_here(direct, x, _root(direct, x)))


def _here(direct: Direct, mode: Array, root: Array) -> Any:
    return direct.plan._replace(mode=mode, root=np.ascontiguousarray(root))


def _at(direct: Direct, t: Array) -> Array:
    """Return x of a point t."""
    x, m = direct.plan.mode + t, len(direct.plan.root)
    x[:m] = direct.plan.mode[:m] + direct.plan.root @ t[:m]
    return np.asarray(x)


def _first(direct: Direct) -> tuple[Array, Direct]:
    """Return a point to begin with, and the density linearised where the family's starting means are."""
    model, plan = direct.model, direct.plan
    family, design, p = model.family, model.design, direct.p
    slots = plan.fixed.copy()
    started = family.start_parameters(plan.y, design.trials)
    for k, parameter in enumerate(family.parameters):
        slots[len(slots) - plan.further + k] = started.get(parameter.name, 0.5)
    with np.errstate(all="ignore"):
        eta = np.asarray(model.link.link(family.start(plan.y, design.trials)), dtype=float)
    eta = np.where(np.isfinite(eta), eta, 0.0)
    score, curvature = slopes(direct, slots, eta)
    root = np.sqrt(curvature)
    working = np.divide(score, curvature, out=np.zeros_like(score), where=curvature > 0) + eta - plan.offset
    slots[:p] = np.linalg.lstsq(plan.X * root[:, None], working * root)[0]
    left = working - plan.X @ slots[:p]
    spread = float(np.sqrt(np.sum(curvature * left**2) / max(float(np.sum(curvature)), 1e-300))) or 1.0
    for f, (at, K) in enumerate(zip(plan.sd_at, plan.width, strict=True)):
        slots[plan.sd_slot[at : at + K]] = 0.5 * spread / _sizes(columns_of(plan, f))
    scalars = plan.scalars
    x = np.zeros(direct.dim)
    for i, at in enumerate(scalars.slot):
        x[i] = unconstrained(float(slots[at]), scalars.lower[i], scalars.upper[i])
    if not np.isfinite(evaluate(laid_out(plan), x)[0]) and direct.intercept >= 0:
        x[: int(np.sum(scalars.slot < p))] = 0.0  # the same mean for all rows, where a link's range leaves out what the regression gave
        x[np.flatnonzero(scalars.slot == direct.intercept)] = float(np.median(eta - plan.offset))
    values = values_of(plan, x[None])
    return x, linearised(direct, replace(values, eta=eta))


def _sizes(columns: Array) -> Array:
    """Return the root mean square of each column, one for a column of zeros."""
    size = np.sqrt(np.mean(columns**2, axis=0))
    return np.where(size > 0.0, size, 1.0)


def _scaled(direct: Direct, x: Array) -> Direct:
    """Return the density in coordinates around x where the coefficients have the covariance of a regression of the working responses."""
    plan, scalars = direct.plan, direct.plan.scalars
    free = scalars.slot[scalars.slot < direct.p]
    root = np.eye(direct.globals)
    if len(free):
        slots = values_of(plan._replace(mode=x, root=np.zeros((0, 0))), np.zeros((1, direct.dim)))
        _, curvature = slopes(direct, slots.x[0], slots.eta)
        X = plan.X[:, free]
        prior = np.array([_precision(int(scalars.kind[i]), scalars.args[i], x[i]) for i in range(len(free))])
        H = X.T @ (curvature[:, None] * X) + np.diag(prior)
        root[: len(free), : len(free)] = _inverse_root(H)
    return replace(direct, plan=plan._replace(mode=x, root=root))


def _precision(kind: int, args: Array, x: float) -> float:
    """Return the curvature of a prior's log density at x, not below 0."""
    step = 1e-3 * (abs(args[1]) or 1.0)
    return max(float(form(kind, args, x - step)[1] - form(kind, args, x + step)[1]) / (2.0 * step), 0.0)


def _inverse_root(H: Array) -> Array:
    """Return a root of the inverse of a symmetric matrix, its eigenvalues made positive; scaled first by its diagonal."""
    size = np.sqrt(np.maximum(np.abs(np.diagonal(H)), 1e-300))
    values, vectors = np.linalg.eigh((H + H.T) / 2.0 / size / size[:, None])
    values = np.maximum(np.abs(values), 1e-9 * float(np.max(np.abs(values))))
    return np.asarray(np.linalg.qr((vectors / np.sqrt(values)).T, mode="r").T / size[:, None])


def _maximum(direct: Direct) -> Array:
    """Return the maximum of the density in the coordinates t around the plan's mode."""
    from scipy.optimize import minimize

    buffer = laid_out(direct.plan)

    def negative(t: Array) -> tuple[float, Array]:
        value, grad = evaluate(buffer, t)
        return (-value, -grad) if np.isfinite(value) and np.all(np.isfinite(grad)) else (np.inf, np.zeros_like(t))

    found = minimize(negative, np.zeros(direct.dim), jac=True, method="L-BFGS-B", options={"maxiter": 200, "maxcor": 20, "gtol": 1e-2})
    return np.asarray(found.x)


def _root(direct: Direct, x: Array) -> Array:
    """Return the root of the posterior's covariance, of the parameters and as many effects as a dense matrix is worth.

    Of the others, whose covariance given these is near the identity, the products with these are taken out.
    """
    plan = direct.plan._replace(mode=x)
    m = _dense(direct)
    start = np.eye(m)
    start[: direct.globals, : direct.globals] = plan.root
    buffer = laid_out(plan._replace(root=start))

    def gradient(t: Array) -> Array:
        return evaluate(buffer, t)[1]

    steps = _STEP * np.eye(m, direct.dim)
    H = np.stack([gradient(-step) - gradient(step) for step in steps]) / (2.0 * _STEP)
    if not np.all(np.isfinite(H)):  # at the edge of what a link takes
        return start
    own, others = H[:, :m], H[:, m:]
    return np.asarray(start @ _inverse_root(own - others @ others.T))


def _dense(direct: Direct) -> int:
    """Return how many coordinates have a dense covariance: the parameters, and the factors of few levels."""
    plan, m = direct.plan, direct.globals
    most = max(48, int(np.sqrt(5.0 * len(plan.y))))
    for size in (plan.levels * plan.width)[::-1]:
        if m + size > most:
            break
        m += int(size)
    return m
