"""The boundary-avoiding prior: its value by definition, its gradient by differences, and what a fit under it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar

import bayeslmm as bl
from bayeslmm.classical.engine import boundary_prior, criterion, theta_of
from bayeslmm.classical.lmm import fit_model, optimum, problem_of
from bayeslmm.covariance import structure_of
from bayeslmm.errors import FitError

TERMS = ["(Days | Subject)", "(1 | Subject) + (0 + Days | Subject)", "diag(Days | Subject)", "cs(Days | Subject)", "ar1(0 + f | Subject)"]


@pytest.fixture(scope="module")
def sleep() -> pd.DataFrame:
    data = bl.load_dataset("sleepstudy")
    return data.assign(f=(data["Days"] % 3).astype(str))


def by_definition(model: bl.Model, theta: np.ndarray) -> float:
    """Return -2 log p(theta): the determinant of unstructured and diagonal factors; of others their own parameters."""
    value, at = 0.0, 0
    for block in model.design.blocks:
        structure, k = structure_of(block), block.n_effects
        own = theta[at : at + structure.n_theta(k)]
        at += len(own)
        if structure.linear:
            value -= np.log(np.linalg.det(structure.factor(own, k) @ structure.factor(own, k).T))
        else:
            sds, rho = own[:-1], own[-1]
            value -= 2.0 * np.sum(np.log(sds)) + np.log((rho - structure.lower(k)[-1]) * (1.0 - rho))
    return float(value)


@pytest.mark.parametrize("term", TERMS)
def test_value_and_gradient(sleep: pd.DataFrame, term: str) -> None:
    model = bl.model(f"Reaction ~ Days + {term}", sleep)
    problem = problem_of(model)
    rng = np.random.default_rng(1)
    first = problem.start
    constants = []
    for _ in range(3):
        t = first + 0.2 * rng.normal(size=first.shape)
        value, gradient = boundary_prior(problem, t)
        constants.append(value - by_definition(model, theta_of(problem, t)))
        for i in range(len(t)):
            h = 1e-6 * np.eye(len(t))[i]
            difference = (boundary_prior(problem, t + h)[0] - boundary_prior(problem, t - h)[0]) / 2e-6
            assert gradient[i] == pytest.approx(difference, rel=1e-6, abs=1e-7)
    np.testing.assert_allclose(constants, constants[0], atol=1e-8)


@pytest.mark.parametrize("reml", [True, False])
def test_fit_is_the_mode_of_likelihood_times_prior(reml: bool) -> None:
    model = bl.model("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2"))
    problem = problem_of(model, reml=reml)
    slow = minimize_scalar(lambda s: criterion(problem, np.array([s])) - 2.0 * np.log(s), bounds=(1e-3, 3.0), options={"xatol": 1e-10})
    fit = fit_model(model, reml=reml, avoid_boundary=True)
    assert fit.theta[0] == pytest.approx(slow.x, rel=1e-6)
    assert fit.criterion == pytest.approx(criterion(problem, fit.theta), rel=1e-10)
    assert (fit.method, fit.reml, fit.avoids_boundary) == ("MAP" if reml else "MAP (ML)", reml, True)
    assert not fit.is_singular
    assert fit.diagnose().ok


def test_no_variance_is_zero_and_no_correlation_one_where_the_likelihood_says_so() -> None:
    rng = np.random.default_rng(3)
    g, x = np.repeat(np.arange(8), 6), np.tile(np.arange(6.0), 8)
    data = pd.DataFrame({"g": g.astype(str), "x": x, "y": x + rng.normal(size=8)[g] + rng.normal(size=48)})
    model = bl.model("y ~ x + (x | g)", data)
    assert fit_model(model, reml=True).is_singular
    fit = fit_model(model, reml=True, avoid_boundary=True)
    covariance = fit.covariances[0]
    assert np.linalg.eigvalsh(covariance / np.sqrt(np.outer(np.diagonal(covariance), np.diagonal(covariance))))[0] > 0.01


def test_verbs_that_compare_maxima_refuse_it_and_others_keep_its_prior() -> None:
    model = bl.model("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2"))
    fit = fit_model(model, reml=True, avoid_boundary=True)
    for verb in (bl.profile, bl.ranova, bl.variance_test, lambda one: bl.anova(one, one)):
        with pytest.raises(FitError, match="boundary-avoiding prior"):
            verb(fit)
    assert bl.refit(fit, model.design.y).theta[0] == pytest.approx(fit.theta[0], rel=1e-6)
    replicates = bl.bootstrap(fit, n=20, seed=1).replicates
    assert replicates["sd_(Intercept)|Batch"].min() > 0.0
    assert "boundary-avoiding prior" in str(fit.summary())


def test_the_search_is_the_same_without_it() -> None:
    problem = problem_of(bl.model("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff")))
    plain, penalised = optimum(problem), optimum(problem, avoid_boundary=True)
    assert penalised.value != pytest.approx(plain.value)
    assert theta_of(problem, penalised.x)[0] > theta_of(problem, plain.x)[0]
