"""Is Laplace's approximation good enough: the check against refits by quadrature, and the series' next term against slow twins."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, gammaln

import bayeslmm as bl
from bayeslmm.classical.adequacy import laplace_accuracy, next_term
from bayeslmm.classical.glmm import criterion_of
from bayeslmm.classical.laplace import at_mode
from bayeslmm.classical.profile_generalised import point_of
from bayeslmm.classical.quadrature import quadrature
from tests.support import reference_dir


def _pairs(sd: float, levels: int = 150, seed: int = 5) -> pd.DataFrame:
    """Two answers, yes or no, of every level: what Laplace's approximation is worst at."""
    rng = np.random.default_rng(seed)
    g, x = np.repeat(np.arange(levels), 2), rng.normal(size=2 * levels)
    y = rng.uniform(size=2 * levels) < expit(0.3 + x + sd * rng.normal(size=levels)[g])
    return pd.DataFrame({"y": y.astype(int), "x": x, "g": g.astype(str)})


def _check(fit: bl.ClassicalFit) -> bl.Check:
    return next(check for check in fit.diagnose().checks if check.code == "laplace_accuracy")


def test_cbpp_passes() -> None:
    check = _check(bl.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", bl.load_dataset("cbpp")))
    assert check.passed
    assert "good enough" in check.meaning


def test_two_answers_a_level_fail_and_say_what_to_do() -> None:
    fit = bl.glmer("y ~ x + (1 | g)", _pairs(3.0), "bernoulli")
    check = _check(fit)
    assert not check.passed
    assert check.severity == "error"
    assert "n_agq=25" in check.remedy


@pytest.mark.reference
def test_toenail_fails() -> None:
    reference_dir()
    fit = bl.glmer("outcome ~ treatment * visit + (1 | patientID)", bl.load_dataset("toenail"), "bernoulli")
    assert not _check(fit).passed


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_shift_is_about_that_of_a_refit(seed: int) -> None:
    data = _pairs(0.8, seed=seed)
    fit, exact = bl.glmer("y ~ x + (1 | g)", data, "bernoulli"), bl.glmer("y ~ x + (1 | g)", data, "bernoulli", n_agq=25)
    moved = np.abs(exact.beta - fit.beta) / fit.standard_errors
    value = _check(fit).value
    assert 0.4 * moved.max() < value
    assert _check(fit).value == pytest.approx(laplace_accuracy(fit).value)
    assert "-2 log L moves by" in _check(fit).meaning


def test_fits_by_other_methods_have_no_such_check() -> None:
    data = bl.load_dataset("cbpp")
    formula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    for options in ({"n_agq": 7}, {"n_agq": 0}):
        assert laplace_accuracy(bl.glmer(formula, data, **options)) is None
    assert laplace_accuracy(bl.glmer("cbind(incidence, size - incidence) ~ period", data)) is None


# ---------------------------------------------------------------------------------------------------------------------- the series


def test_the_next_term_is_what_quadrature_adds_where_variances_are_small() -> None:
    fit = bl.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", bl.load_dataset("cbpp"))
    found = criterion_of(fit)
    for share in (0.3, 0.15):
        x = point_of(found, fit)
        x[-1] *= share
        mode, lam = at_mode(found.problem, x)
        gain = quadrature(found.problem, x, 40)[0] - found.method.objective(x)[0]
        assert next_term(found.problem, mode, lam) == pytest.approx(gain, rel=2.0 * share**2)


def test_the_next_term_of_several_effects_against_brute_force() -> None:
    rng = np.random.default_rng(2)
    x, g = rng.normal(size=80), np.repeat(np.arange(8), 10)
    effects = rng.normal(size=(8, 2)) * [0.6, 0.4]
    y = rng.poisson(np.exp(1.2 + effects[g, 0] + (0.3 + effects[g, 1]) * x))
    fit = bl.glmer("y ~ x + (x | g)", pd.DataFrame({"y": y, "x": x, "g": g.astype(str)}), "poisson")
    found = criterion_of(fit)
    at = point_of(found, fit)
    mode, lam = at_mode(found.problem, at)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    u = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    log_weights = np.log(np.outer(weights, weights).ravel() / (2.0 * np.pi))
    L = np.linalg.cholesky(fit.covariances[0])
    total = 0.0
    for level in range(8):
        rows = g == level
        modes, sds = fit.effects[0][level], np.linalg.cholesky(fit.condvar["g"][level])
        b = modes + u @ sds.T  # about the mode, as wide as the posterior
        eta = fit.beta[0] + b[:, :1] + (fit.beta[1] + b[:, 1:]) * x[rows]
        each = np.sum(y[rows] * eta - np.exp(eta) - gammaln(y[rows] + 1.0), axis=1)
        prior = -0.5 * np.sum(np.linalg.solve(L, b.T) ** 2, axis=0) - np.log(2.0 * np.pi) - np.log(np.abs(np.diagonal(L))).sum()
        proposal = -0.5 * np.sum(u**2, axis=1) - np.log(2.0 * np.pi) - np.log(np.diagonal(sds)).sum()
        total += np.log(np.sum(np.exp(log_weights + each + prior - proposal)))
    gain = -2.0 * total - fit.criterion
    assert next_term(found.problem, mode, lam) == pytest.approx(gain, rel=0.1)
    assert _check(fit).passed
    assert "series" in _check(fit).meaning
