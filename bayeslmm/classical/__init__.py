"""The classical engine: linear mixed models by REML and maximum likelihood."""

from bayeslmm.classical.fit import ClassicalFit
from bayeslmm.classical.lmm import lmer, problem_of, refit

__all__ = ["ClassicalFit", "lmer", "problem_of", "refit"]
