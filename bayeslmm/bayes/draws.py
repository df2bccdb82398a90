"""Posterior draws as arrays, and what follows from them row by row: mean, log-likelihood, residuals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.shrinkage import SHRINKAGE, shrinkage_row
from bayeslmm.bayes.translate import Factor, factors
from bayeslmm.errors import FitError, suggest
from bayeslmm.families import LINKS
from bayeslmm.fit import Draws
from bayeslmm.residual import residual_of

if TYPE_CHECKING:
    from bayeslmm.design import FixedPart, RandomBlock
    from bayeslmm.model import Model
    from bayeslmm.series import Series

__all__ = [
    "RESIDUALS",
    "draws_of",
    "flat",
    "log_likelihood",
    "mean_draw",
    "posterior_mean_of_response",
    "posterior_names",
    "residuals",
    "response_draws",
]

type Array = np.ndarray

_CHUNK = 2_000_000
"""Rows x draws held at a time."""


def posterior_names(model: Model) -> list[str]:
    """Return the variables of the tree's `posterior`: coefficients, standard deviations, correlations, random effects, the rest."""
    names = ["b", *(f"b_{name}" for name in model.design.parameters)]
    joint = shrinkage_row(model.prior_rows)
    names += SHRINKAGE[joint.distribution.name].variables if joint is not None else []
    for factor in factors(model):
        names.append(f"sd_{factor.label}")
        names += [f"cor_{factor.label}"] if factor.correlated else []
        names.append(f"r_{factor.label}")
    return names + [parameter.name for parameter in model.family.parameters if parameter.name not in model.design.parameters]


def flat(variable: Any) -> Array:
    """Return a posterior variable (chain, draw, ...) as (S, ...), chains one after the other."""
    values = variable.transpose("chain", "draw", ...).values
    return np.asarray(values.reshape(values.shape[0] * values.shape[1], *values.shape[2:]))


def draws_of(model: Model, posterior: Any) -> Draws:
    """Return the draws of all parameters; effects and covariances by block of the design."""
    groups = factors(model)
    aux = {parameter.name: _aux(model, parameter.name, parameter.link, groups, posterior) for parameter in model.family.parameters}
    further = {name: Draws(**_predictor(groups, name, blocks, posterior), aux={}) for name, (_, blocks) in model.design.parameters.items()}
    return Draws(**_predictor(groups, "", model.design.blocks, posterior), aux=aux, further=further)


def _predictor(groups: tuple[Factor, ...], name: str, blocks: tuple[RandomBlock, ...], posterior: Any) -> dict[str, Any]:
    """Return `b`, `effects` and `covariance` of one predictor: of the mean (""), or of a further parameter."""
    found: dict[str, tuple[Array, Array]] = {}
    for factor in groups:
        if factor.parameter == name:
            found |= _of_factor(factor, posterior)
    return {
        "b": flat(posterior[f"b_{name}" if name else "b"]),
        "effects": tuple(found[block.name][0] for block in blocks),
        "covariance": tuple(found[block.name][1] for block in blocks),
    }


def _of_factor(factor: Factor, posterior: Any) -> dict[str, tuple[Array, Array]]:
    """Return block name -> (effects (S, J, k), covariance (S, k, k))."""
    r, sd = flat(posterior[f"r_{factor.label}"]), flat(posterior[f"sd_{factor.label}"])
    if factor.correlated:
        cor = flat(posterior[f"cor_{factor.label}"])
    else:
        cor = np.broadcast_to(np.eye(len(factor.effects)), (len(sd), len(factor.effects), len(factor.effects)))
    result = {}
    for block, columns in zip(factor.blocks, factor.columns, strict=True):
        scale = sd[:, columns]
        result[block.name] = (r[:, :, columns], scale[:, :, None] * cor[:, columns[:, None], columns] * scale[:, None, :])
    return result


def _aux(model: Model, name: str, link: str, groups: tuple[Factor, ...], posterior: Any) -> Array:
    """Return draws (S,) of a further parameter, or (S, n) where it has a predictor."""
    if name not in model.design.parameters:
        return flat(posterior[name])
    fixed, _ = model.design.parameters[name]
    eta = flat(posterior[f"b_{name}"]) @ fixed.X.T
    for factor in groups:
        if factor.parameter == name:
            r = flat(posterior[f"r_{factor.label}"])
            for block, columns in zip(factor.blocks, factor.columns, strict=True):
                eta = eta + np.einsum("snk,nk->sn", r[:, block.index][:, :, columns], block.values)
    return LINKS[link].inverse(eta)


def mean_draw(draws: Draws) -> Draws:
    """Return the posterior means as one draw."""
    return Draws(
        b=draws.b.mean(axis=0, keepdims=True),
        effects=tuple(part.mean(axis=0, keepdims=True) for part in draws.effects),
        covariance=tuple(part.mean(axis=0, keepdims=True) for part in draws.covariance),
        aux={name: values.mean(axis=0, keepdims=True) for name, values in draws.aux.items()},
    )


def _eta(model: Model, fixed: FixedPart, draws: Draws, *, random: bool = True) -> Array:
    """Return the linear predictor (S, n) of the fitted rows."""
    eta = model.design.offset + draws.b @ fixed.X.T
    if random:
        for block, effects in zip(model.design.blocks, draws.effects, strict=True):
            for c in range(block.n_effects):
                eta += effects[:, block.index, c] * block.values[:, c]
    return np.asarray(eta)


def _in_chunks(model: Model, draws: Draws, chunk: int) -> Iterator[tuple[slice, Draws, Array, dict[str, Array]]]:
    """Yield the draws a few at a time: which, the draws, mu (s, n), and the further parameters of each row (s, n or 1)."""
    design, family = model.design, model.family
    size = max(1, chunk // max(len(design.y), 1))
    rescaled = family.scale if design.has_weights and model.dialect == "lme4" else None
    for start in range(0, draws.n_draws, size):
        which = slice(start, min(start + size, draws.n_draws))
        some = draws.take(np.arange(which.start, which.stop))
        mu = model.link.inverse(_eta(model, design.fixed, some))
        aux = {name: values if values.ndim == 2 else values[:, None] for name, values in some.aux.items()}
        if rescaled is not None:
            aux[rescaled] = aux[rescaled] / np.sqrt(design.weights)
        yield which, some, mu, aux


def posterior_mean_of_response(model: Model, draws: Draws, *, chunk: int = _CHUNK) -> Array:
    """Return the posterior mean (n,) of each row's expected response (with trials, of its proportion)."""
    total = np.zeros(len(model.design.y))
    for _, _, mu, aux in _in_chunks(model, draws, chunk):
        total += _expected(model, mu, aux).sum(axis=0)
    return np.asarray(total / draws.n_draws)


def response_draws(model: Model, draws: Draws, *, random: bool = True) -> Array:
    """Return the expected response (S, n) of the fitted rows at every draw; without the mean's random effects where asked."""
    aux = {name: values if values.ndim == 2 else values[:, None] for name, values in draws.aux.items()}
    return _expected(model, model.link.inverse(_eta(model, model.design.fixed, draws, random=random)), aux)


def _expected(model: Model, mu: Array, aux: Mapping[str, Array]) -> Array:
    response_mean = model.family.response_mean
    return mu if response_mean is None else response_mean(mu, aux)


def log_likelihood(model: Model, draws: Draws, chunk: int = _CHUNK) -> Array:
    """Return log p(y_i | parameters, random effects) as (S, n): with lme4's precision weights, or to the power of brms's.

    Where residuals are correlated, `ar(time, gr)`, that of a row given the earlier ones of its series too: they add up to the whole.
    """
    design = model.design
    powers = design.weights if design.has_weights and not (model.dialect == "lme4" and model.family.scale) else 1.0
    result = np.empty((draws.n_draws, len(design.y)))
    with np.errstate(divide="ignore", invalid="ignore"):
        for which, _, mu, aux in _in_chunks(model, draws, chunk):
            if design.series is not None:
                mu, aux = _given_earlier(design.series, design.y, mu, aux)
            result[which] = powers * model.family.loglik(design.y, mu, aux, design.trials)
    return result


def _given_earlier(series: Series, y: Array, mu: Array, aux: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """Return mean (S, n) and standard deviation of each row given the earlier ones of its series."""
    structure = residual_of(series)
    rho, sigma = aux[structure.name], aux["sigma"]
    mean = mu + sigma * structure.prediction(rho, series, (y - mu) / sigma)
    return np.asarray(mean), {**aux, "sigma": sigma * structure.conditional_sd(rho, series)}


# --- Residuals ----------------------------------------------------------------------------------------------------------------


def residuals(model: Model, draws: Draws, fitted: Array, kind: str) -> Array:
    """Return residuals (n,) of a kind in `RESIDUALS` about the posterior mean `fitted` (n,).

    Raises
    ------
    FitError
        If the kind is unknown.
    """
    if kind not in RESIDUALS:
        raise FitError(f"unknown kind of residuals {kind!r}{suggest(str(kind), list(RESIDUALS))}")
    return RESIDUALS[kind](model, draws, fitted)


def _observed(model: Model) -> Array:
    """Return the response on the scale of mu: proportions where there are trials."""
    y = model.design.y
    return np.asarray(y if model.design.trials is None else y / np.maximum(model.design.trials, 1))


def _unit_aux(model: Model, draws: Draws) -> Mapping[str, Array]:
    """Return the further parameters' means, the scale at 1: residuals are on the response's scale, as in lme4."""
    means = {name: np.asarray(values.mean(axis=0)) for name, values in draws.aux.items()}
    return means | ({model.family.scale: np.ones(())} if model.family.scale else {})


def _mu(model: Model, draws: Draws, fitted: Array) -> Array:
    """Return the posterior mean (n,) of mu, which is the mean of the response but in families with a `response_mean`."""
    if model.family.response_mean is None:
        return fitted
    return np.asarray(sum(mu.sum(axis=0) for _, _, mu, _ in _in_chunks(model, draws, _CHUNK)) / draws.n_draws)


def _refuse_another_mean(model: Model, kind: str) -> None:
    if model.family.response_mean is not None:
        raise FitError(f"{kind} residuals are not defined for family {model.family.name!r}, whose mean is not mu; use 'quantile'")


def _response(model: Model, draws: Draws, fitted: Array) -> Array:
    return np.asarray(_observed(model) - fitted)


def _pearson(model: Model, draws: Draws, fitted: Array) -> Array:
    design = model.design
    trials = np.ones(design.n) if design.trials is None else np.maximum(design.trials, 1)
    variance = model.family.variance(_mu(model, draws, fitted), _unit_aux(model, draws), design.trials) / trials**2
    return np.asarray(_response(model, draws, fitted) * np.sqrt(design.weights / variance))


def _scaled(model: Model, draws: Draws, fitted: Array) -> Array:
    scale = draws.aux[model.family.scale].mean(axis=0) if model.family.scale else 1.0
    return np.asarray(_pearson(model, draws, fitted) / scale)


def _deviance(model: Model, draws: Draws, fitted: Array) -> Array:
    """sign(y - mu) sqrt(2 (l(y) - l(mu))), the log density at unit scale, times the prior weights."""
    _refuse_another_mean(model, "deviance")
    design, aux = model.design, _unit_aux(model, draws)
    observed = _observed(model)
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = model.family.loglik(design.y, observed, aux, design.trials) - model.family.loglik(design.y, fitted, aux, design.trials)
    return np.asarray(np.sign(observed - fitted) * np.sqrt(2.0 * np.maximum(loss, 0.0) * design.weights))


def _working(model: Model, draws: Draws, fitted: Array) -> Array:
    _refuse_another_mean(model, "working")
    return np.asarray(_response(model, draws, fitted) / model.link.mu_eta(model.link.link(fitted)))


def _quantile(model: Model, draws: Draws, fitted: Array) -> Array:
    """Randomised quantile residuals (Dunn and Smyth 1996) of the posterior predictive distribution; the same at each call."""
    from scipy.special import ndtri

    rng = np.random.default_rng(0)
    design = model.design
    below, equal = np.zeros(len(design.y)), np.zeros(len(design.y))
    for _, _, mu, aux in _in_chunks(model, draws, _CHUNK):
        full = {name: np.broadcast_to(values, mu.shape) for name, values in aux.items()}
        trials = None if design.trials is None else np.broadcast_to(design.trials, mu.shape)
        simulated = model.family.simulate(rng, mu, full, trials)
        below += (simulated < design.y).sum(axis=0)
        equal += (simulated == design.y).sum(axis=0)
    u = (below + rng.random(len(design.y)) * (equal + 1.0)) / (draws.n_draws + 1.0)
    return np.asarray(ndtri(u))


RESIDUALS: Mapping[str, Callable[[Model, Draws, Array], Array]] = {
    "response": _response,
    "pearson": _pearson,
    "deviance": _deviance,
    "working": _working,
    "scaled": _scaled,
    "quantile": _quantile,
}
"""Kind of residual -> function of (model, draws, fitted)."""
