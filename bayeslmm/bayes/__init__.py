"""The Bayesian engine: a model's posterior by NUTS (`brm`), and the fit that holds it (`BayesFit`)."""

from __future__ import annotations

from bayeslmm.bayes.fit import BayesFit, brm, log_likelihood
from bayeslmm.bayes.samplers import SAMPLERS
from bayeslmm.bayes.translate import translate

__all__ = ["SAMPLERS", "BayesFit", "brm", "log_likelihood", "translate"]
