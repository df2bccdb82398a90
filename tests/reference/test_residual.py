"""Residual structures against nlme (stored cases, and those of residual.R) and glmmTMB."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bayeslmm as bl
from bayeslmm.datasets import load_dataset
from tests.support import reference_case, reference_dir

pytestmark = pytest.mark.reference

NLME = {
    "Orthodont__n01": ("distance ~ age * Sex + (age | Subject)", None),
    "Orthodont__n02": ("distance ~ age * Sex + (1 | Subject)", "~ Sex"),
    "sim_hetero__n01": ("y ~ trt + x + (1 | g)", None),
    "sim_hetero__n02": ("y ~ trt + x + (1 | g)", "~ trt"),
    "sleepstudy__n01": ("Reaction ~ Days + (Days | Subject)", None),
    "sleepstudy__n02": ("Reaction ~ Days + (1 | Subject) + ar(time = Days, gr = Subject)", None),
}
GLMMTMB = {
    "sleepstudy__t01": ("Reaction ~ Days + (Days | Subject)", None),
    "sleepstudy__t02": ("Reaction ~ Days + (Days | Subject)", None),
    "sleepstudy__t03": ("Reaction ~ Days + diag(1 + Days | Subject)", None),
    "Orthodont__t01": ("distance ~ age * Sex + (1 | Subject)", "~ Sex"),
    "sim_hetero__t01": ("y ~ trt + x + (1 | g)", None),
    "sim_hetero__t02": ("y ~ trt + x + (1 | g)", "~ trt"),
}
MORE: dict[str, Any] = json.loads((Path(__file__).parent / "residual.json").read_text(encoding="utf8"))
METHODS = ("REML", "ML")

LOGLIK, FIXED, VARIANCE = 1e-8, 1e-5, 1e-4
"""Relative. The optimisers of nlme stop where the likelihood has 8 digits, its variance parameters 4."""
TIGHT = 1e-5
"""Relative, of variance parameters: nlme at its tightest (residual.R), limited by its own numerical gradient."""


def formula(text: str, sigma: str | None) -> Any:
    return bl.formula(text, sigma=sigma) if sigma else text


@cache
def stored_fit(case: str, method: str) -> bl.ClassicalFit:
    reference_dir()
    text, sigma = (NLME | GLMMTMB)[case]
    return bl.lmer(formula(text, sigma), load_dataset(reference_case(case)["dataset"]), reml=method == "REML")


@cache
def own_fit(name: str, method: str) -> bl.ClassicalFit:
    reference_dir()
    case = MORE["cases"][name]
    data = load_dataset(case["dataset"])
    if case["dataset"] == "Orthodont":
        data = data.assign(wave=(data["age"] - 6) / 2)
    if case["rows"] is not None:
        data = data.iloc[case["rows"]]
    return bl.lmer(formula(case["formula"], case["sigma"]), data, reml=method == "REML", weights=case["weights"])


def close(found: Any, expected: Any, tolerance: float) -> None:
    """Equal to a share of the size of the largest, so that entries near zero are judged beside the others."""
    expected = np.asarray(expected, dtype=float)
    np.testing.assert_allclose(np.asarray(found, dtype=float), expected, rtol=tolerance, atol=0.1 * tolerance * np.max(np.abs(expected)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("case", NLME)
def test_stored_nlme_fits(case: str, method: str) -> None:
    fit = stored_fit(case, method)
    stored = reference_case(case)[method]
    assert fit.loglik == pytest.approx(stored["logLik"], rel=LOGLIK)
    assert fit.aic == pytest.approx(stored["AIC"], rel=LOGLIK)
    names = list(stored["fixef"])
    close(fit.fixef()[names], list(stored["fixef"].values()), FIXED)
    close(fit.vcov().loc[names, names], stored["vcov"], VARIANCE)
    n, p = fit.nobs, len(fit.beta)
    scaled = 1.0 if method == "REML" else np.sqrt(n / (n - p))  # summary.lme's, at ML, are for a variance over n - p
    close(fit.standard_errors * scaled, [stored["se"][name] for name in fit.fixef().index], VARIANCE if fit.further else 2e-4)
    assert fit.sigma == pytest.approx(stored["sigma"], rel=VARIANCE)
    close(fit.covariances[0], stored["getVarCov"], 2e-3)
    if stored["varIdent_relative_sd"]:
        ratios = np.exp(np.append(0.0, fit.further["sigma"].beta[1:]))
        close(ratios, list(stored["varIdent_relative_sd"].values()), VARIANCE)
    if stored["corAR1_phi"] is not None:
        assert fit.further["ar"].natural()[0] == pytest.approx(stored["corAR1_phi"], rel=VARIANCE)
    modes = next(iter(fit.ranef().values())).loc[stored["ranef"]["levels"]]
    np.testing.assert_allclose(modes, stored["ranef"]["values"], rtol=VARIANCE, atol=VARIANCE * float(np.abs(modes.to_numpy()).max()))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", MORE["cases"])
def test_tight_nlme_fits(name: str, method: str) -> None:
    fit = own_fit(name, method)
    expected = MORE["cases"][name][method]
    assert fit.loglik == pytest.approx(expected["loglik"], rel=1e-9)
    assert fit.n_parameters == expected["n_parameters"]
    close(fit.beta, expected["fixef"], 1e-6)
    n, p = fit.nobs, len(fit.beta)
    mixed = bool(fit.model.design.blocks)
    close(fit.vcov() * (1.0 if mixed or method == "REML" else n / (n - p)), expected["vcov"], 2e-5)  # gls scales at ML
    assert fit.sigma == pytest.approx(expected["sigma"], rel=TIGHT)
    if expected["rho"] is not None:
        assert fit.further["ar"].natural()[0] == pytest.approx(expected["rho"], rel=TIGHT)
    if expected["var"] is not None:
        gamma = fit.further["sigma"].beta[1:]
        of_factor = MORE["cases"][name]["sigma"] in ("~ late", "~ trt")
        close(np.exp(gamma) if of_factor else gamma, expected["var"], TIGHT)
    close(fit.residuals("scaled"), expected["pearson"], TIGHT)
    order = _series_order(fit)
    close(fit.residuals("normalized").to_numpy()[order], np.asarray(expected["normalized"])[order], TIGHT)


def _series_order(fit: bl.ClassicalFit) -> np.ndarray:
    """nlme's normalized residuals are its own root of the inverse correlation: the same where rows follow one another by the hour."""
    series = fit.model.design.series
    return np.arange(fit.nobs) if series is None else np.flatnonzero(series.previous == np.arange(fit.nobs) - 1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [name for name, case in MORE["cases"].items() if "sd" in case["REML"]])
def test_random_effects_beside_a_residual_structure(name: str, method: str) -> None:
    fit = own_fit(name, method)
    stored = MORE["cases"][name][method]["ranef"]
    tables = [stored] if "levels" in stored else list(stored.values())
    found = fit.ranef()
    for table, modes in zip(tables, found.values() if len(tables) == 1 else [found["region"], found["site:region"]], strict=True):
        levels = [":".join(reversed(level.split("/"))) for level in table["levels"]]
        expected = np.asarray(table["values"])
        np.testing.assert_allclose(modes.loc[levels], expected, rtol=VARIANCE, atol=TIGHT * np.abs(expected).max())


def test_likelihood_ratios() -> None:
    reference_dir()
    data = load_dataset("sleepstudy_x")
    texts = [("Reaction ~ Days + (1 | Subject)", None), ("Reaction ~ Days + (1 | Subject)", "~ late")]
    texts.append(("Reaction ~ Days + (1 | Subject) + ar(Days, Subject)", "~ late"))
    table = bl.anova(*(bl.lmer(formula(*text), data, reml=False) for text in texts))
    expected = MORE["lrt"]
    np.testing.assert_allclose(table["loglik"], expected["loglik"], rtol=1e-9)
    assert table["n_parameters"].tolist() == expected["df"]
    np.testing.assert_allclose(table["chisq"][1:], expected["chisq"][1:], rtol=1e-6)
    np.testing.assert_allclose(table["p_value"][1:], expected["p_value"][1:], rtol=1e-5)


@pytest.mark.parametrize("case", GLMMTMB)
def test_glmmtmb_fits(case: str) -> None:
    stored = reference_case(case)
    fit = stored_fit(case, "REML" if stored["REML"] else "ML")
    assert fit.loglik == pytest.approx(stored["logLik"], rel=LOGLIK)
    names = list(stored["fixef"]["cond"])
    close(fit.fixef()[names], list(stored["fixef"]["cond"].values()), 1e-6)
    if "sigma" in fit.further:  # glmmTMB 1.1.5: the predictor is of log sigma^2
        part, disp = fit.further["sigma"], stored["fixef"]["disp"]
        close(part.beta, 0.5 * np.array(list(disp.values())), 1e-6)
        where = [i for i, name in enumerate(stored["vcov_full"]["names"]) if name.startswith("d~")]
        close(part.vcov, 0.25 * np.asarray(stored["vcov_full"]["values"])[np.ix_(where, where)], 1e-4)
    else:
        assert fit.sigma == pytest.approx(stored["sigma"], rel=1e-6)
    for group, expected in stored["varcorr"].items():
        sd = np.sqrt(
            np.diagonal(next(own for own, block in zip(fit.covariances, fit.model.design.blocks, strict=True) if block.group == group))
        )
        close(sd, expected["sd"], 1e-5)


def test_a_latent_autoregression_where_glmmtmb_fails() -> None:
    """sleepstudy__t04 ends in false convergence there; the same model as nlme's correlation with a nugget is well behaved."""
    reference_dir()
    fit = bl.lmer("Reaction ~ Days + ar1(0 + factor(Days) | Subject)", load_dataset("sleepstudy"), reml=False)
    expected = MORE["latent"]
    assert fit.converged
    assert fit.loglik == pytest.approx(expected["loglik"], rel=1e-9)
    close(fit.beta, expected["fixef"], 1e-6)
    covariance = fit.covariances[0]
    found = [np.sqrt(covariance[0, 0]), fit.sigma, covariance[0, 1] / covariance[0, 0]]
    close(found, [expected["sd"], expected["sigma"], expected["rho"]], TIGHT)
