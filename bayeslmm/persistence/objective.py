"""The objective of a fit computed anew from its model: the criterion at the estimates, the log-likelihood at some draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.classical.engine import estimate_at, vector_of
from bayeslmm.classical.glmm import criterion_of
from bayeslmm.classical.lmm import one_thread, problem_of
from bayeslmm.classical.noise import has_noise, natural
from bayeslmm.classical.structured import place_of, whitened_of

if TYPE_CHECKING:
    from bayeslmm.bayes import BayesFit
    from bayeslmm.classical import ClassicalFit

__all__ = ["criterion_at", "log_likelihoods_at"]

type Array = np.ndarray

_DRAWS = 5


def criterion_at(fit: ClassicalFit) -> float:
    """Return the criterion of a fit's model at its estimates: REML's or -2 log L, priors and penalties left out as in `fit.criterion`."""
    with one_thread():
        if fit.generalised:
            return _generalised(fit)
        if has_noise(fit.model.design):
            made = whitened_of(fit.model, fit.reml)
            place, _ = place_of(fit, made)
            return natural(made, place[: made.n_t], place[made.n_t :])[0].criterion
        problem = problem_of(fit.model, reml=fit.reml)
        return estimate_at(problem, vector_of(problem, fit.theta)).criterion


def _generalised(fit: ClassicalFit) -> float:
    found = criterion_of(fit)
    beta = [fit.beta, *(part.beta for part in fit.further.values())]
    gamma = np.concatenate([np.linalg.solve(one.back, own) for one, own in zip(found.predictors, beta, strict=True)])
    x = gamma[found.method.m :]
    if found.problem is not None:
        found.problem.warm.inner = gamma[: found.method.m]
        theta = np.concatenate([fit.theta, *(part.theta for part in fit.further.values())])
        x = np.concatenate([x, vector_of(found.problem, theta)])
    prior = 0.0 if found.method.prior is None else found.method.prior(x)[0]
    return found.method.objective(x)[0] - prior


def log_likelihoods_at(fit: BayesFit) -> list[float]:
    """Return the log-likelihood, given the random effects, at a few draws from all over the chains."""
    from bayeslmm.bayes.draws import log_likelihood

    draws = fit.draws()
    which = np.unique(np.linspace(0, draws.n_draws - 1, _DRAWS).astype(int))
    return [float(value) for value in log_likelihood(fit.model, draws.take(which)).sum(axis=1)]
