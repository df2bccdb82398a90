"""What a generalised fit says of the response: its expected values, and residuals of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.families import LINKS, derivatives

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit

__all__ = ["KINDS", "auxiliary", "expected", "residuals"]

type Array = np.ndarray

_STEPS = 50


def auxiliary(fit: ClassicalFit) -> dict[str, Array]:
    """Return the further parameters of the response's distribution at the fitted rows: name -> (n,)."""
    design, family = fit.model.design, fit.model.family
    found = {name: np.broadcast_to(part.natural(fit.predictor(name)), (design.n,)) for name, part in fit.further.items()}
    if family.scale in found:
        found[family.scale] = found[family.scale] / np.sqrt(design.weights)
    return found


def expected(fit: ClassicalFit) -> Array:
    """Return the expected response of each row (n,); of a row with trials, the expected proportion."""
    family = fit.model.family
    mu = fit.model.link.inverse(fit.predictor())
    return np.asarray(mu if family.response_mean is None else family.response_mean(mu, auxiliary(fit)), dtype=float)


def residuals(fit: ClassicalFit, kind: str) -> Array:
    """Return the residuals (n,) of a kind in `KINDS`; of rows with trials, of the proportion.

    `response`: observed less expected; `pearson` and `scaled`: over the standard deviation of the row's distribution, times the root
    of its weight; `deviance`: signed root of twice the log-likelihood that is lost against the best mean for the row; `working`:
    the response residual on the link's scale.
    """
    return KINDS[kind](fit)


def _observed(fit: ClassicalFit) -> Array:
    design = fit.model.design
    return np.asarray(design.y if design.trials is None else design.y / design.trials)


def _response(fit: ClassicalFit) -> Array:
    return np.asarray(_observed(fit) - expected(fit))


def _working(fit: ClassicalFit) -> Array:
    eta = fit.predictor()
    link = fit.model.link
    return np.asarray((_observed(fit) - link.inverse(eta)) / link.mu_eta(eta))


def _pearson(fit: ClassicalFit) -> Array:
    design, family = fit.model.design, fit.model.family
    variance = family.variance(fit.model.link.inverse(fit.predictor()), auxiliary(fit), design.trials)
    size = 1.0 if design.trials is None else design.trials
    return np.asarray(_response(fit) * size / np.sqrt(variance) * np.sqrt(_powers(fit)))


def _powers(fit: ClassicalFit) -> Array:
    """Return the weights that are powers of the likelihood; precision weights are in the scale already."""
    design = fit.model.design
    return design.weights if fit.model.family.scale is None else np.ones(design.n)


def _deviance(fit: ClassicalFit) -> Array:
    eta = _etas(fit)
    lost = 2.0 * _powers(fit) * np.maximum(_best(fit, eta) - _loglik(fit, eta), 0.0)
    return np.asarray(np.sign(_response(fit)) * np.sqrt(lost))


def _etas(fit: ClassicalFit) -> Array:
    """Return all predictors (K, n), the scale's with the precision weights in."""
    design, family = fit.model.design, fit.model.family
    rows = [fit.predictor()]
    for parameter in family.parameters:
        eta = np.broadcast_to(fit.predictor(parameter.name), (design.n,))
        rows.append(eta - 0.5 * np.log(design.weights) if parameter.name == family.scale else eta)
    return np.stack(rows)


def _loglik(fit: ClassicalFit, etas: Array) -> Array:
    return _derivatives(fit, etas, 0)[0]


def _derivatives(fit: ClassicalFit, etas: Array, order: int) -> tuple[Array, Array, Array]:
    """Return each row's log-likelihood and its first two derivatives by the mean's predictor."""
    design, family = fit.model.design, fit.model.family
    links = (fit.model.link, *(LINKS[parameter.link] for parameter in family.parameters))
    found = derivatives(family, links, design.y, etas, design.trials, order)
    return (found.value, found.d1[0], found.d2[0, 0]) if order else (found.value, found.value, found.value)


def _best(fit: ClassicalFit, etas: Array) -> Array:
    """Return the greatest log-likelihood (n,) that any mean gives a row, by Newton steps from the mean that equals the observation.

    Where it is approached only in the limit, as by a count of 0, the mean ends far enough out to tell no difference.
    """
    design, family = fit.model.design, fit.model.family
    etas = etas.copy()
    fitted = _loglik(fit, etas)
    etas[0] = fit.model.link.link(family.start(design.y, design.trials))
    value, slope, bend = _derivatives(fit, etas, 2)
    for _ in range(_STEPS):
        step = np.clip(slope / np.where(np.abs(bend) > 1e-300, np.abs(bend), 1.0), -2.0, 2.0)
        tried = etas.copy()
        tried[0] += step
        new, new_slope, new_bend = _derivatives(fit, tried, 2)
        better = new > value
        if not np.any(better & (new > value + 1e-14 * np.maximum(1.0, np.abs(value)))):
            break
        etas[0] = np.where(better, tried[0], etas[0])
        value, slope, bend = (np.where(better, a, b) for a, b in ((new, value), (new_slope, slope), (new_bend, bend)))
    with np.errstate(all="ignore"):
        aux = auxiliary(fit)
        exact = family.loglik(design.y, _observed(fit), aux, design.trials)
    return np.asarray(np.fmax(np.fmax(value, fitted), np.where(np.isfinite(exact), exact, -np.inf)))


KINDS = {"response": _response, "working": _working, "pearson": _pearson, "scaled": _pearson, "deviance": _deviance}
