"""Generalised mixed models against lme4's glmer and glmmTMB: every stored case, and cases of our own (glmmtmb.R)."""

from __future__ import annotations

import json
import os
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy.special import gammaln, xlog1py, xlogy

import bayeslmm as bl
from bayeslmm.classical import ClassicalFit
from bayeslmm.classical.engine import vector_of
from bayeslmm.classical.glmm import glmm_problem
from bayeslmm.classical.laplace import laplace
from bayeslmm.classical.quadrature import quadrature
from bayeslmm.errors import BayesLmmWarning
from tests.support import ROOT, reference_case, reference_dir

pytestmark = pytest.mark.reference

_FOLDER = Path(os.environ.get("BAYESLMM_REFERENCE_DIR") or ROOT.parent / "shared" / "reference") / "results"
LME4 = sorted(path.stem for path in _FOLDER.glob("*__g[0-9][0-9].json")) or ["absent"]
TMB = sorted(path.stem for path in _FOLDER.glob("*__t[0-9][0-9].json")) or ["absent"]
BLOCKS = {"Laplace": 1, "nAGQ0": 0, "nAGQ10": 10, "nAGQ25": 25, "nAGQ50": 50}
OWN = json.loads((Path(__file__).parent / "glmmtmb.json").read_text(encoding="utf8"))

FAMILY = {"binomial": "binomial", "poisson": "poisson", "Gamma": "gamma", "inverse.gaussian": "inverse_gaussian", "nb": "negative_binomial"}
NOT_ML = {"sim_glmm__g08", "sim_glmm__g09", "sim_glmm__g10", "sleepstudy__g01"}
"""lme4's dispersion of Gamma and inverse Gaussian is not that of maximum likelihood, and glmer.nb alternates: see glmmTMB's below."""
CANONICAL = {("binomial", "logit"), ("poisson", "log")}
"""Elsewhere lme4's Laplace approximation has expected weights, this package's (and TMB's) observed ones."""

CRITERION = 1e-6
"""Most that -2 log L may lie above the reference's. lme4 itself stops up to 1e-5 above its own mode of the random effects."""
BETA, SE, THETA, EFFECTS = 1e-3, 1e-3, 1e-4, 1e-4
"""Coefficients in standard errors, standard errors relative; theta and random effects absolute, or relative above one."""


def _named(text: str) -> tuple[str, str | None]:
    name, _, rest = text.partition("(")
    return FAMILY[name], rest.split("'")[1] if "'" in rest else None


@cache
def model(case: str) -> bl.Model:
    stored = reference_case(case)
    family, link = _named(stored["family"])
    formula = stored["formula"]
    if stored["weights"] == "size":
        formula = formula.replace("incidence/size", "cbind(incidence, size - incidence)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        data = bl.load_dataset(stored["dataset"])
        return bl.model(formula, data, family, link=link, contrasts=stored["contrasts"] or None)


@cache
def fitted(case: str, block: str) -> ClassicalFit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        return bl.glmer(model(case), n_agq=BLOCKS[block])


def expected(case: str, block: str) -> dict:
    reference_dir()
    stored = reference_case(case)
    if block not in stored:
        pytest.skip("not stored")
    return stored[block]


def comparable(case: str, block: str) -> dict:
    """Return a block whose approximation is this package's too."""
    stored = expected(case, block)
    if case in NOT_ML:
        pytest.skip("not maximum likelihood in lme4")
    family = model(case).family.name, model(case).link.name
    if BLOCKS[block] <= 10 and family not in CANONICAL:
        pytest.skip("lme4's weights are expected ones, which few nodes do not make up for; see test_against_glmmtmb")
    return stored


def saturated(case: str) -> float:
    """Return -2 log L of the saturated model, which lme4 leaves out of its quadrature."""
    design, family = model(case).design, model(case).family.name
    y = design.y
    if family == "poisson":
        return -2.0 * float(np.sum(xlogy(y, y) - y - gammaln(y + 1.0)))
    n = np.ones_like(y) if design.trials is None else design.trials
    choose = gammaln(n + 1.0) - gammaln(y + 1.0) - gammaln(n - y + 1.0)
    return -2.0 * float(np.sum(choose + xlogy(y, y / n) + xlog1py(n - y, -y / n)))


def close(value, reference, tolerance) -> None:
    value, reference = np.asarray(value, dtype=float), np.asarray(reference, dtype=float)
    assert value.shape == reference.shape
    assert np.all(np.abs(value - reference) <= tolerance * np.maximum(np.abs(reference), 1.0)), (value, reference)


every_block = pytest.mark.parametrize("block", list(BLOCKS))
every_case = pytest.mark.parametrize("case", LME4)


def _coordinates(problem, point: dict) -> np.ndarray:
    back = problem.predictors[0].back
    return np.concatenate([np.linalg.solve(back, point["beta"]), vector_of(problem, np.array(point["theta"]))])


@every_case
@every_block
def test_likelihood_at_given_parameters(case: str, block: str) -> None:
    """lme4 ends its search for the mode a little early: it may lie above by as much as its tolerance, but not below."""
    stored = comparable(case, block)
    problem, _, _ = glmm_problem(model(case))
    constant = saturated(case) if BLOCKS[block] > 1 else 0.0
    for point in stored.get("devfun", {}).values():
        x = _coordinates(problem, point)
        value = quadrature(problem, x, BLOCKS[block])[0] if BLOCKS[block] > 1 else laplace(problem, x)[0]
        difference = value - constant - point["value"]
        assert difference < 1e-7 + 1e-11 * abs(value)
        assert difference > -1e-5


@every_case
@every_block
def test_optimum(case: str, block: str) -> None:
    stored, fit = comparable(case, block), fitted(case, block)
    constant = saturated(case) if BLOCKS[block] > 1 else 0.0
    assert fit.criterion - constant <= -2.0 * stored["logLik"] + CRITERION
    assert fit.criterion - constant >= -2.0 * stored["logLik"] - 1e-5
    assert fit.converged
    assert fit.method == {0: "PIRLS", 1: "Laplace"}.get(BLOCKS[block], f"AGQ({BLOCKS[block]})")
    assert fit.n_parameters == stored["logLik_df"]
    assert fit.df_residual == stored["df_residual"]
    assert fit.nobs == stored["nobs"]
    assert fit.ngroups == stored["ngrps"]


@every_case
@every_block
def test_fixed_effects(case: str, block: str) -> None:
    stored, fit = comparable(case, block), fitted(case, block)
    reference = np.array(list(stored["fixef"].values()))
    assert list(fit.fixef().index) == list(stored["fixef"])
    se = np.array(list(stored["se_RX"].values()))
    assert np.max(np.abs(fit.beta - reference) / se) < BETA
    exact = stored["se_RX"] if block == "nAGQ0" else stored.get("se_hess_numDeriv")
    if exact is not None:
        assert np.max(np.abs(fit.standard_errors / np.array(list(exact.values())) - 1.0)) < SE


@every_case
@every_block
def test_variances_and_effects(case: str, block: str) -> None:
    stored, fit = comparable(case, block), fitted(case, block)
    close(fit.theta, list(stored["theta"].values()), THETA)
    assert fit.is_singular == stored["isSingular"]
    for group, table in fit.ranef(condsd=True).items():
        reference = stored["ranef"][group]
        assert list(table[0].index) == reference["levels"]
        assert list(table[0].columns) == reference["terms"]
        close(table[0], reference["values"], EFFECTS)
        if (fit.model.family.name, fit.model.link.name) in CANONICAL:
            close(table[1], reference["condsd"], EFFECTS)


@every_case
def test_rows(case: str) -> None:
    stored, fit = comparable(case, "Laplace"), fitted(case, "Laplace")
    close(fit.fitted()[:20], stored["fitted20_response"], EFFECTS)
    for kind in ("response", "pearson", "deviance"):
        close(fit.residuals(kind)[:20], stored[f"resid20_{kind}"], EFFECTS)
    link = fit.predict(scale="link")["estimate"]
    close(link[: len(stored["predict"]["link_NULL"])], stored["predict"]["link_NULL"], EFFECTS)
    average = fit.predict(target="average_group")["estimate"]
    close(average[: len(stored["predict"]["response_NA"])], stored["predict"]["response_NA"], EFFECTS)


# ---------------------------------------------------------------------------------------------------------------------- glmmTMB

_TMB_FAMILY = {
    ("poisson", False): "poisson",
    ("poisson", True): "zero_inflated_poisson",
    ("nbinom2", False): "negative_binomial",
    ("nbinom2", True): "zero_inflated_negative_binomial",
    ("betabinomial", False): "beta_binomial",
    ("binomial", False): "binomial",
    ("beta_family", False): "beta",
    ("gaussian", False): "gaussian",
}
_DISPERSION = {"gaussian": ("sigma", 0.5), "beta": ("phi", 1.0), "beta_binomial": ("phi", 1.0)}
"""Parameter, and by what glmmTMB's coefficients of its logarithm (of sigma^2 for gaussian) are multiplied; others have a shape."""


def _tmb_fit(stored: dict) -> ClassicalFit:
    inflated = stored["ziformula"] != "~0"
    family = _TMB_FAMILY[stored["family"].partition("(")[0], inflated]
    predictors = {"zi": stored["ziformula"]} if stored["ziformula"] not in ("~0", "~1") else {}
    if stored["dispformula"] != "~1":
        predictors[_DISPERSION.get(family, ("shape", 1.0))[0]] = stored["dispformula"]
    if family == "gaussian" and "sigma" not in predictors:
        pytest.skip("a linear mixed model")
    formula = bl.formula(stored["formula"], **predictors) if predictors else stored["formula"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        return bl.glmer(formula, bl.load_dataset(stored["dataset"]), family)


@pytest.mark.parametrize("case", TMB)
def test_stored_glmmtmb(case: str) -> None:
    reference_dir()
    stored = reference_case(case)
    fit = _tmb_fit(stored)
    assert fit.converged
    if stored["max_abs_grad"] < 1e-6:
        assert abs(fit.criterion + 2.0 * stored["logLik"]) < CRITERION
    assert fit.criterion <= -2.0 * stored["logLik"] + CRITERION
    assert fit.n_parameters == stored["logLik_df"]
    _same_coefficients(fit.beta, fit.standard_errors, stored, "cond")
    close(np.sqrt(np.diagonal(fit.covariances[0])), next(iter(stored["varcorr"].values()))["sd"], 2e-4)
    name, share = _DISPERSION.get(fit.model.family.name, ("shape", 1.0))
    if "disp" in stored["fixef"]:
        values = np.array(list(stored["fixef"]["disp"].values())) * share
        close(fit.further[name].beta, values, 1e-4)
    if "zi" in stored["fixef"]:
        _same_coefficients(fit.further["zi"].beta, fit.further["zi"].standard_errors, stored, "zi")


def _same_coefficients(beta: np.ndarray, errors: np.ndarray, stored: dict, part: str) -> None:
    reference, se = (np.array(list(stored[what][part].values())) for what in ("fixef", "se"))
    assert np.max(np.abs(beta - reference) / se) < BETA
    assert np.max(np.abs(errors / se - 1.0)) < SE


_CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
_TICKS = "TICKS ~ YEAR + I((HEIGHT - 460) / 100) + (1 | BROOD) + (1 | LOCATION)"
OWN_MODELS = {
    "cbpp_probit": (_CBPP, "cbpp", "binomial", "probit", {}),
    "cbpp_cloglog": (_CBPP, "cbpp", "binomial", "cloglog", {}),
    "gamma_log": ("y_gamma ~ x + (1 | g)", "sim_glmm", "gamma", "log", {}),
    "gamma_inverse": ("y_gamma ~ x + (1 | g)", "sim_glmm", "gamma", "inverse", {}),
    "gamma_slopes": ("Reaction ~ Days + (Days | Subject)", "sleepstudy", "gamma", "log", {}),
    "gaussian_log": ("Reaction ~ Days + (1 | Subject)", "sleepstudy", "gaussian", "log", {}),
    "poisson_sqrt": ("y_pois ~ x + (1 | g)", "sim_glmm", "poisson", "sqrt", {}),
    "poisson_weights": ("y_pois ~ x + (1 | g)", "sim_glmm", "poisson", None, {}),
    "poisson_offset": ("y_poff ~ x + offset(log(exposure)) + (1 | g)", "sim_glmm", "poisson", None, {}),
    "nbinom1": ("y_nb ~ x + (1 | g)", "sim_glmm", "negative_binomial1", None, {}),
    "nbinom2_dispersion": ("y_nb ~ x + (1 | g)", "sim_glmm", "negative_binomial", None, {"shape": "~ x"}),
    "betabinomial_dispersion": ("cbind(k_bb, n - k_bb) ~ x + (1 | g)", "sim_glmm", "beta_binomial", None, {"phi": "~ x"}),
    "beta_probit": ("y_beta ~ x + (1 | g)", "sim_glmm", "beta", "probit", {}),
    "zip_random": ("count ~ mined + (1 | site)", "Salamanders", "zero_inflated_poisson", None, {"zi": "~ mined + (1 | site)"}),
    "zip_crossed": ("count ~ mined + (1 | site) + (1 | spp)", "Salamanders", "zero_inflated_poisson", None, {"zi": "~ mined + (1 | spp)"}),
    "hurdle_poisson": ("count ~ mined + (1 | site)", "Salamanders", "hurdle_poisson", None, {"hu": "~ mined"}),
    "hurdle_nbinom2": ("count ~ mined + (1 | site)", "Salamanders", "hurdle_negative_binomial", None, {"hu": "~ mined"}),
    "ticks_nbinom2": (_TICKS, "grouseticks", "negative_binomial", None, {}),
}


def test_every_golden_value_is_used() -> None:
    assert set(OWN) == set(OWN_MODELS)


@pytest.mark.parametrize("name", OWN)
def test_against_glmmtmb(name: str) -> None:
    reference_dir()
    formula, dataset, family, link, predictors = OWN_MODELS[name]
    stored, data = OWN[name], bl.load_dataset(dataset)
    weights = 1.0 + np.arange(1, len(data) + 1) % 3 if name == "poisson_weights" else None
    fit = bl.glmer(bl.formula(formula, **predictors) if predictors else formula, data, family, link=link, weights=weights)
    assert fit.criterion == pytest.approx(-2.0 * stored["logLik"], abs=1e-8 * abs(stored["logLik"]))
    beta, se = (np.atleast_1d(stored[what]["beta"]) for what in ("par", "se"))
    assert np.max(np.abs(fit.beta - beta) / se) < BETA
    assert np.max(np.abs(fit.standard_errors / se - 1.0)) < SE
    sds = np.concatenate([np.sqrt(np.diagonal(covariance)) for covariance in fit.covariances])
    close(sds, np.exp(np.atleast_1d(stored["par"]["theta"])[: len(sds)]), THETA)
    inflation = next((fit.further[part] for part in ("zi", "hu") if part in fit.further), None)
    if inflation is not None:
        close(inflation.beta, stored["par"]["betazi"], 1e-5)
        assert np.max(np.abs(inflation.standard_errors / stored["se"]["betazi"] - 1.0)) < SE
    if "thetazi" in stored["par"]:
        close(np.sqrt(inflation.covariances[0][0, 0]), np.exp(stored["par"]["thetazi"]), THETA)
