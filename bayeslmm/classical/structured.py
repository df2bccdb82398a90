"""Fit a linear mixed model with a residual structure: a predictor of log sigma, residuals correlated in time, or both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.classical.diagnose import undetermined
from bayeslmm.classical.engine import theta_jacobian, theta_of, turned, vector_of
from bayeslmm.classical.fit import ClassicalFit, Further, SearchLog
from bayeslmm.classical.lmm import by_block, one_thread, other_starts, refuse_exact, terms_of
from bayeslmm.classical.noise import Whitened, hessian, natural, objective, prepare, problem_at, slopes
from bayeslmm.classical.optimise import Box, Minimum, minimise, search
from bayeslmm.covariance import structure_of
from bayeslmm.errors import FitError
from bayeslmm.formula.values import frozen

if TYPE_CHECKING:
    from bayeslmm.model import Model

__all__ = ["Spread", "degrees", "fit_structured", "place_of", "spread_of", "whitened_of"]

type Array = np.ndarray

_OPTIMISER = "projected BFGS, then Newton, with the exact gradient, in theta and the residual structure together"
_MOVES = 0.1
"""A parameter whose share of a flat direction is larger is named."""
_OTHER_CORRELATIONS = (0.6, -0.4, 1.5)
"""Coordinates of a residual correlation to start from, where the first start is doubtful: it competes with random intercepts."""


def fit_structured(model: Model, *, reml: bool, start: Array | None = None, avoid_boundary: bool = False) -> ClassicalFit:
    """Fit a model with a residual structure, without a warning; arguments as of `lmm.fit_model`.

    Of a fit with a predictor of sigma, `sigma` is the residual standard deviation where that predictor is its intercept alone (nlme's
    sigma; the geometric mean of the rows' where there is no intercept), and all that is relative is relative to it.

    Raises
    ------
    FitError
        As `noise.prepare`; where the variance of some rows runs to zero; and for `avoid_boundary`, which cannot be had here.

    Source: Pinheiro & Bates (2000), Mixed-Effects Models in S and S-PLUS, chapter 5.
    """
    if avoid_boundary:
        raise FitError("the boundary-avoiding prior is not available for a model with a residual structure; use `brm`")
    with one_thread():
        made = whitened_of(model, reml)
        found = _optimum(made, start)
        if not found.converged:
            made, found = _turned(model, made, found)
        return _fit(model, made, found)


def whitened_of(model: Model, reml: bool) -> Whitened:
    """Return the problem of a model with a residual structure."""
    return prepare(model.design, terms_of(model), reml=reml)


def _box(made: Whitened) -> Box:
    return Box(lower=made.lower, upper=made.upper, mirror=made.mirror)


def _with_noise(made: Whitened, t: Array, phi: Array | float) -> Array:
    """Return (t, phi) with standard deviations of zero a little off zero, where the gradient would vanish."""
    is_sd = made.plain.mirror | (made.plain.lower == 0.0)
    return np.append(np.where(is_sd, np.maximum(t, 0.02), t), np.broadcast_to(phi, made.noise.n_parameters))


def _optimum(made: Whitened, start: Array | None) -> Minimum:
    box, noise = _box(made), made.noise
    first = made.start if start is None else _with_noise(made, vector_of(made.plain, start), 0.0)

    def doubtful(found: Minimum) -> bool:
        _refuse(made, found)
        return noise.series is not None or found.flat or not found.converged or bool(np.any(box.on_edge(found.x)))

    others = []
    for t, correlation in zip(other_starts(made.plain), _OTHER_CORRELATIONS, strict=True):
        phi = np.zeros(noise.n_parameters)
        phi[noise.m :] = correlation
        others.append(_with_noise(made, t, phi))
    found = search(lambda x: objective(made, x), first, box, made.curvature, others=others, doubtful=doubtful)
    _refuse(made, found)
    return found


def _refuse(made: Whitened, found: Minimum) -> None:
    """Raise where the likelihood has no maximum."""
    t, phi = found.x[: made.n_t], found.x[made.n_t :]
    refuse_exact(problem_at(made, phi), replace(found, x=t))
    log_sd = phi[: made.noise.m]
    if np.any(np.abs(log_sd) >= made.upper[made.n_t : made.n_t + made.noise.m]):
        rows = int(np.sum(made.noise.log_sd(phi) < -5.0))
        raise FitError(
            f"the residual variance of {rows} row{'s' * (rows != 1)} runs to zero: the model fits them exactly, so that the predictor of "
            "sigma has no estimate; leave the level or term that singles them out of it, or fit by `brm`"
        )


def _turned(model: Model, made: Whitened, found: Minimum) -> tuple[Whitened, Minimum]:
    """Search on from where a search failed, with each unstructured term in the principal directions of its covariance there."""
    t, phi = found.x[: made.n_t], found.x[made.n_t :]
    again = prepare(model.design, terms_of(model), reml=made.plain.reml, bases=turned(made.plain, t))
    start = _with_noise(again, vector_of(again.plain, theta_of(made.plain, t)), phi)
    better = minimise(lambda x: objective(again, x), start, _box(again), again.curvature)
    if better.value > found.value + 1e-9 * max(1.0, abs(found.value)):
        return made, found
    return again, replace(better, evaluations=found.evaluations + better.evaluations, starts=found.starts + 1)


# --------------------------------------------------------------------------------------------------------------------- the fit


def _fit(model: Model, made: Whitened, found: Minimum) -> ClassicalFit:
    t, phi = found.x[: made.n_t], found.x[made.n_t :]
    values, mean = natural(made, t, phi)
    ratio = math.exp(-float(made.noise.reference @ phi[: made.noise.m]))
    problem = problem_at(made, phi)
    return ClassicalFit(
        model=model,
        method="REML" if problem.reml else "ML",
        theta=_frozen(theta_of(made.plain, t) * _scaled(model, ratio)),
        criterion=values.criterion,
        sigma=mean / ratio,
        beta=_frozen(values.beta),
        unscaled_vcov=_frozen(values.unscaled_vcov * ratio**2),
        effects=tuple(_frozen(effects) for effects in by_block(problem, values.b)),
        unscaled_condvar={group: _frozen(v * ratio**2) for group, v in zip(problem.groups, values.unscaled_variance, strict=True)},
        ld_l2=values.ld_l2,
        ld_rx2=values.ld_rx2,
        pwrss=values.pwrss / ratio**2,
        search=_log(model, made, found),
        further=MappingProxyType(_further(made, found, math.log(mean))),
    )


def _frozen(values: Array) -> Array:
    """Return a copy that nobody can write to."""
    return frozen(np.array(values))


def _scaled(model: Model, ratio: float) -> Array:
    """Return what theta is multiplied by where sigma is divided by `ratio`: relative standard deviations, not correlations."""
    parts = [np.zeros(0)]
    for block in model.design.blocks:
        structure, k = structure_of(block), block.n_effects
        is_sd = (structure.lower(k) == 0.0) & np.isinf(structure.upper(k))
        parts.append(np.where(is_sd | structure.linear, ratio, 1.0))
    return np.concatenate(parts)


def place_of(fit: ClassicalFit, made: Whitened) -> tuple[Array, float]:
    """Return a fit's (t, phi) and the logarithm of its geometric mean of residual sds."""
    noise = made.noise
    phi, log_mean = np.zeros(noise.n_parameters), math.log(fit.sigma)
    if "sigma" in fit.further:
        solved, *_ = np.linalg.lstsq(noise.to_gamma, fit.further["sigma"].beta, rcond=None)
        log_mean, phi[: noise.m] = float(solved[0]), solved[1:]
    if noise.structure is not None:
        phi[noise.m :] = fit.further[noise.structure.name].beta
    theta = fit.theta / _scaled(fit.model, math.exp(log_mean) / fit.sigma)
    return np.append(vector_of(made.plain, theta), phi), log_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The asymptotic covariance (d, d) of (t, phi, log sigma), zero for those on an edge, and the slopes (d, p, p) of vcov(beta)."""

    covariance: Array
    slopes: Array


def spread_of(fit: ClassicalFit) -> Spread:
    """Return what Satterthwaite's degrees of freedom of coefficients need: twice the inverse Hessian of the deviance, and slopes."""
    with one_thread():
        made = whitened_of(fit.model, fit.reml)
        at, log_mean = place_of(fit, made)
        at = np.append(at, log_mean)
        return Spread(covariance=_covariance(made, at), slopes=slopes(made, at))


def degrees(fit: ClassicalFit, variance: Array, variance_of: Callable[[ClassicalFit], Array]) -> Array:
    """Return Satterthwaite's degrees of freedom (n,) of variances: 2 v^2 / (g'Ag), g by central differences.

    `variance_of` gives the variances (n,) of the fit at other variance parameters.
    """
    with one_thread():
        made = whitened_of(fit.model, fit.reml)
        place, log_mean = place_of(fit, made)
        at = np.append(place, log_mean)
        spread = _covariance(made, at)
        g = []
        for i in range(len(at)):
            ends = [at + sign * 1e-4 * max(1.0, abs(at[i])) * (np.arange(len(at)) == i) for sign in (1.0, -1.0)]
            values = [variance_of(_fit_at(fit, made, end)) for end in ends]
            g.append((values[0] - values[1]) / (ends[0][i] - ends[1][i]))
    uncertainty = np.einsum("dn,de,en->n", np.array(g), spread, np.array(g))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = np.where(variance > 0.0, 2.0 * variance**2 / uncertainty, np.inf)
    return found


def _fit_at(fit: ClassicalFit, made: Whitened, at: Array) -> ClassicalFit:
    """Return the fit with other variance parameters; its other estimates are those of the fit."""
    noise, t, phi = made.noise, at[: made.n_t], at[made.n_t : -1]
    ratio = math.exp(-float(noise.reference @ phi[: noise.m]))
    further = dict(fit.further)
    if "sigma" in further:
        further["sigma"] = replace(further["sigma"], beta=noise.to_gamma @ np.append(at[-1], phi[: noise.m]))
    if noise.structure is not None:
        further[noise.structure.name] = replace(further[noise.structure.name], beta=phi[noise.m :])
    theta = theta_of(made.plain, t) * _scaled(fit.model, ratio)
    return replace(fit, theta=theta, sigma=math.exp(at[-1]) / ratio, further=further)


def _covariance(made: Whitened, at: Array) -> Array:
    """Return the asymptotic covariance (d, d) of (t, phi, log sigma) at the optimum."""
    H = hessian(made, at)
    free = np.append(~_box(made).on_edge(at[:-1]), True)
    spread = np.zeros_like(H)
    spread[np.ix_(free, free)] = 2.0 * _inverse(H[np.ix_(free, free)])
    return spread


def _further(made: Whitened, found: Minimum, log_mean: float) -> dict[str, Further]:
    noise, phi = made.noise, found.x[made.n_t :]
    spread = _covariance(made, np.append(found.x, log_mean))
    last = len(spread) - 1
    result = {}
    if made.sigma_names:
        own = np.append(last, made.n_t + np.arange(noise.m))
        beta = noise.to_gamma @ np.append(log_mean, phi[: noise.m])
        vcov = noise.to_gamma @ spread[np.ix_(own, own)] @ noise.to_gamma.T
        result["sigma"] = Further(link="log", names=made.sigma_names, beta=_frozen(beta), vcov=_frozen(vcov))
    if noise.structure is not None:
        vcov = spread[last - 1 : last, last - 1 : last]
        result[noise.structure.name] = Further(link=noise.structure.link, beta=_frozen(phi[noise.m :]), vcov=_frozen(vcov))
    return result


def _inverse(H: Array) -> Array:
    """Return the inverse of a Hessian on its positive eigenvalues, parameters scaled to a unit diagonal."""
    scale = np.sqrt(np.abs(np.diagonal(H)))
    scale = np.where(scale > 0.0, scale, 1.0)
    values, vectors = np.linalg.eigh(H / np.outer(scale, scale))
    keep = values > 1e-10
    part = vectors[:, keep]
    inverse: Array = (part / values[keep]) @ part.T / np.outer(scale, scale)
    return inverse


def _undetermined(model: Model, made: Whitened, found: Minimum, J: Array) -> tuple[str, ...]:
    """Return the parameters that change along the flat directions: covariance parameters, coefficients of sigma's predictor, rho."""
    n_t, noise, directions = made.n_t, made.noise, found.flat_directions
    names = list(undetermined(model.design.blocks, theta_of(made.plain, found.x[:n_t]), J[:n_t] @ directions)) if n_t else []
    own, rho = directions[n_t : n_t + noise.m], directions[n_t + noise.m :]
    if np.any(np.abs(own) > _MOVES):
        moves = np.max(np.abs(noise.to_gamma[:, 1:] @ own), axis=1)
        names += [f"sigma_{name}" for name, move in zip(made.sigma_names, moves, strict=True) if move > _MOVES * np.max(moves)]
    return (*names, *([noise.structure.name] if noise.structure is not None and np.any(np.abs(rho) > _MOVES) else []))


def _log(model: Model, made: Whitened, found: Minimum) -> SearchLog:
    n_t = made.n_t
    J = np.eye(len(found.x))
    J[:n_t, :n_t] = theta_jacobian(made.plain, found.x[:n_t])
    back = np.linalg.pinv(J)
    verdict = "converged at the boundary" if np.any(_box(made).on_edge(found.x)) else "converged"
    names = _undetermined(model, made, found, J) if found.flat else ()
    if names:
        verdict = "flat"
    if not found.converged:
        verdict = "failed"
    return SearchLog(
        optimiser=_OPTIMISER,
        evaluations=found.evaluations,
        starts=found.starts,
        gradient=_frozen(back.T @ found.gradient),
        hessian=_frozen(back.T @ found.hessian @ back),
        projected=found.projected,
        least_curvature=found.least_curvature,
        flat=bool(names),
        undetermined=names,
        converged=found.converged,
        verdict=verdict,
        trace=found.trace,
    )
