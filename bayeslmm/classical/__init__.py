"""The classical engine: linear mixed models by REML and maximum likelihood, generalised ones by Laplace and quadrature."""

from bayeslmm.classical.fit import ClassicalFit
from bayeslmm.classical.glmm import engine_for, glmer
from bayeslmm.classical.lmm import lmer, problem_of, refit

__all__ = ["ClassicalFit", "engine_for", "glmer", "lmer", "problem_of", "refit"]
