"""Mixed models for scientists: an lme4 formula in; a REML fit and a PyMC posterior out, side by side.

Names load on first use, so that `import bayeslmm` is instant and PyMC is imported only where a posterior is asked for.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "bayeslmm.errors": (
        "BayesLmmError",
        "BayesLmmWarning",
        "ConvergenceWarning",
        "DataError",
        "DataWarning",
        "FitError",
        "FormulaError",
        "PersistenceError",
        "PriorError",
        "SingularFitWarning",
    ),
    "bayeslmm.formula": ("formula",),
    "bayeslmm.formula.functions": ("register_transform",),
    "bayeslmm.datasets": ("list_datasets", "load_dataset"),
    "bayeslmm.priors": ("prior",),
    "bayeslmm.model": ("Model", "default_priors", "model"),
    "bayeslmm.fit": ("Check", "Diagnostics", "Fit"),
    "bayeslmm.classical": ("ClassicalFit", "glmer", "lmer", "refit"),
    "bayeslmm.classical.anova": ("anova",),
    "bayeslmm.classical.all_fit": ("all_fit",),
    "bayeslmm.classical.influence": ("influence",),
    "bayeslmm.classical.variance_tests": ("ranova", "variance_test"),
    "bayeslmm.classical.bootstrap": ("bootstrap",),
    "bayeslmm.classical.intervals": ("confint",),
    "bayeslmm.classical.profile": ("profile",),
    "bayeslmm.bayes": ("BayesFit", "brm"),
    "bayeslmm.bayes.describe": ("describe_posterior",),
    "bayeslmm.bayes.evidence": ("bayes_factor", "marginal_likelihood"),
    "bayeslmm.bayes.prior_predictive": ("prior_predictive",),
    "bayeslmm.bayes.sensitivity": ("prior_sensitivity",),
    "bayeslmm.bayes.kfold": ("kfold",),
    "bayeslmm.bayes.loo": ("loo", "loo_compare"),
    "bayeslmm.effects.comparisons": ("comparisons",),
    "bayeslmm.effects.emmeans": ("emmeans",),
    "bayeslmm.effects.hypothesis": ("hypothesis",),
    "bayeslmm.effects.pooling": ("Pooling", "pooling"),
    "bayeslmm.effects.predictions": ("predictions",),
    "bayeslmm.effects.slopes": ("slopes",),
    "bayeslmm.effects.variance": ("icc", "r2"),
    "bayeslmm.loci.data": ("LociData", "loci_data"),
    "bayeslmm.loci.reading": ("read_methylation",),
    "bayeslmm.persistence": ("load",),
    "bayeslmm.plots": ("plot",),
    "bayeslmm.plots.ppc": ("pp_check",),
    "bayeslmm.compare": ("Comparison", "compare", "fit"),
    "bayeslmm.remedy": ("Remedy", "remedy"),
    "bayeslmm.report": ("Report", "report"),
    "bayeslmm.separation": ("Separation", "separation"),
}
_HOME = {name: module for module, names in _EXPORTS.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bayeslmm' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


class _Package(ModuleType):
    """This package as a module that keeps its public functions where a submodule has the same name (`model`, `fit`)."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from bayeslmm.bayes import BayesFit as BayesFit
    from bayeslmm.bayes import brm as brm
    from bayeslmm.bayes.describe import describe_posterior as describe_posterior
    from bayeslmm.bayes.evidence import bayes_factor as bayes_factor
    from bayeslmm.bayes.evidence import marginal_likelihood as marginal_likelihood
    from bayeslmm.bayes.kfold import kfold as kfold
    from bayeslmm.bayes.loo import loo as loo
    from bayeslmm.bayes.loo import loo_compare as loo_compare
    from bayeslmm.bayes.prior_predictive import prior_predictive as prior_predictive
    from bayeslmm.bayes.sensitivity import prior_sensitivity as prior_sensitivity
    from bayeslmm.classical import ClassicalFit as ClassicalFit
    from bayeslmm.classical import glmer as glmer
    from bayeslmm.classical import lmer as lmer
    from bayeslmm.classical import refit as refit
    from bayeslmm.classical.all_fit import all_fit as all_fit
    from bayeslmm.classical.anova import anova as anova
    from bayeslmm.classical.bootstrap import bootstrap as bootstrap
    from bayeslmm.classical.influence import influence as influence
    from bayeslmm.classical.intervals import confint as confint
    from bayeslmm.classical.profile import profile as profile
    from bayeslmm.classical.variance_tests import ranova as ranova
    from bayeslmm.classical.variance_tests import variance_test as variance_test
    from bayeslmm.compare import Comparison as Comparison
    from bayeslmm.compare import compare as compare
    from bayeslmm.compare import fit as fit
    from bayeslmm.datasets import list_datasets as list_datasets
    from bayeslmm.datasets import load_dataset as load_dataset
    from bayeslmm.effects.comparisons import comparisons as comparisons
    from bayeslmm.effects.emmeans import emmeans as emmeans
    from bayeslmm.effects.hypothesis import hypothesis as hypothesis
    from bayeslmm.effects.pooling import Pooling as Pooling
    from bayeslmm.effects.pooling import pooling as pooling
    from bayeslmm.effects.predictions import predictions as predictions
    from bayeslmm.effects.slopes import slopes as slopes
    from bayeslmm.effects.variance import icc as icc
    from bayeslmm.effects.variance import r2 as r2
    from bayeslmm.errors import BayesLmmError as BayesLmmError
    from bayeslmm.errors import BayesLmmWarning as BayesLmmWarning
    from bayeslmm.errors import ConvergenceWarning as ConvergenceWarning
    from bayeslmm.errors import DataError as DataError
    from bayeslmm.errors import DataWarning as DataWarning
    from bayeslmm.errors import FitError as FitError
    from bayeslmm.errors import FormulaError as FormulaError
    from bayeslmm.errors import PersistenceError as PersistenceError
    from bayeslmm.errors import PriorError as PriorError
    from bayeslmm.errors import SingularFitWarning as SingularFitWarning
    from bayeslmm.fit import Check as Check
    from bayeslmm.fit import Diagnostics as Diagnostics
    from bayeslmm.fit import Fit as Fit
    from bayeslmm.formula import formula as formula
    from bayeslmm.formula.functions import register_transform as register_transform
    from bayeslmm.loci.data import LociData as LociData
    from bayeslmm.loci.data import loci_data as loci_data
    from bayeslmm.loci.reading import read_methylation as read_methylation
    from bayeslmm.model import Model as Model
    from bayeslmm.model import default_priors as default_priors
    from bayeslmm.model import model as model
    from bayeslmm.persistence import load as load
    from bayeslmm.plots import plot as plot
    from bayeslmm.plots.ppc import pp_check as pp_check
    from bayeslmm.priors import prior as prior
    from bayeslmm.remedy import Remedy as Remedy
    from bayeslmm.remedy import remedy as remedy
    from bayeslmm.report import Report as Report
    from bayeslmm.report import report as report
    from bayeslmm.separation import Separation as Separation
    from bayeslmm.separation import separation as separation
