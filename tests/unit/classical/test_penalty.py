"""Penalties of coefficients: their gradients, Firth's estimates in closed form and by a slow twin, and every verb on a penalised fit."""

from __future__ import annotations

import warnings
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import expit, gammaln, logit
from scipy.stats import binom, norm, t

import bayeslmm as bl
from bayeslmm.classical import separated
from bayeslmm.classical.glmm import fit_generalised
from bayeslmm.classical.penalty import Penalty, penalty_for, penalty_of
from bayeslmm.classical.reduce import fit_again
from bayeslmm.errors import BayesLmmError, ConvergenceWarning, FitError, PriorError

SET_B = "cbind(mC_b, uC_b) ~ treatment * time + (1 | tank)"


@pytest.fixture(scope="module")
def reads():
    return bl.load_dataset("methylation_sets")


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(8)
    n = 60
    frame = pd.DataFrame({"x": rng.normal(size=n), "f": rng.choice(["a", "b", "c"], n), "size": rng.integers(1, 9, n)})
    frame["hits"] = rng.binomial(frame["size"], expit(0.4 + 0.7 * frame["x"]))
    level = np.repeat(rng.normal(size=(10, 2)) * [0.8, 0.5], 6, axis=0)
    frame["count"] = rng.poisson(np.exp(0.6 + 0.4 * frame["x"]))
    frame["many"] = rng.poisson(np.exp(2.0 + level[:, 0] + (0.4 + level[:, 1]) * frame["x"]))
    frame["win"] = (frame["hits"] > frame["size"] / 2).astype(int)
    frame["g"] = np.repeat(np.arange(10), 6).astype(str)
    frame["w"] = 1.0 + np.arange(n) % 3
    frame["off"] = 0.1 * rng.normal(size=n)
    return frame


MODELS = [
    *(("cbind(hits, size - hits) ~ x + f", "binomial", link) for link in ("logit", "probit", "cloglog", "cauchit")),
    ("win ~ x + f", "bernoulli", "logit"),
    *(("count ~ x + f", "poisson", link) for link in ("log", "sqrt")),
]


def _information(family: str, link: str, eta: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Expected information of each row by its predictor, from textbook formulas."""
    if family == "poisson":
        return np.exp(eta) if link == "log" else np.full_like(eta, 4.0)
    p, slope = {
        "logit": (expit(eta), expit(eta) * expit(-eta)),
        "probit": (norm.cdf(eta), norm.pdf(eta)),
        "cloglog": (-np.expm1(-np.exp(eta)), np.exp(eta - np.exp(eta))),
        "cauchit": (t(1).cdf(eta), t(1).pdf(eta)),
    }[link]
    return trials * slope**2 / (p * (1.0 - p))


@pytest.mark.parametrize(("formula", "family", "link"), MODELS)
@pytest.mark.parametrize("options", [{}, {"weights": "w", "offset": "off"}])
def test_jeffreys_is_the_determinant_of_the_information(rows, formula: str, family: str, link: str, options: dict[str, str]) -> None:
    m = bl.model(formula, rows, family, link=link, **options)
    function = penalty_for(m, Penalty(name="jeffreys"))
    trials = np.ones(len(rows)) if m.design.trials is None else m.design.trials

    def slow(beta: np.ndarray) -> float:
        W = _information(family, link, m.design.X @ beta + m.design.offset, trials) * m.design.weights
        return -np.linalg.slogdet(m.design.X.T @ (W[:, None] * m.design.X))[1]

    first, second = np.array([0.9, 0.2, -0.3, 0.1]), np.array([1.2, -0.1, 0.3, 0.4])
    assert function(first)[0] - function(second)[0] == pytest.approx(slow(first) - slow(second), rel=1e-8)


@pytest.mark.parametrize(("formula", "family", "link"), MODELS)
@pytest.mark.parametrize("given", ["jeffreys", "prior", "normal(0, 2.5)", "student_t(4, 0.2, 1.5)", "cauchy(0, 1)"])
def test_gradients_by_differences(rows, formula: str, family: str, link: str, given: str) -> None:
    function = penalty_for(bl.model(formula, rows, family, link=link), penalty_of(given))
    beta = np.array([1.1, 0.2, -0.3, 0.15])
    steps = 1e-6 * np.eye(len(beta))
    slopes = [(function(beta + h)[0] - function(beta - h)[0]) / 2e-6 for h in steps]
    assert np.allclose(function(beta)[1], slopes, rtol=1e-6, atol=1e-7)


def test_rows_are_the_densities_that_they_say(rows) -> None:
    given = [
        bl.prior("normal(0.5, 2)", part="fixed"),
        bl.prior("student_t(3, 0, 1)", part="fixed", term="x"),
        bl.prior("cauchy(0, 10)", part="fixed", term="(Intercept)"),
    ]
    m = bl.model("count ~ x + f", rows, "poisson")
    function = penalty_for(m, penalty_of(given))

    def slow(b: np.ndarray) -> float:
        return -2.0 * float(t(1).logpdf(b[0] / 10) + t(3).logpdf(b[1]) + norm(0.5, 2).logpdf(b[2:]).sum())

    first, second = np.array([0.3, 0.5, -1.0, 2.0]), np.array([-1.0, 0.1, 0.4, 0.7])
    assert m.design.fixed_names[:2] == ("(Intercept)", "x")
    assert function(first)[0] - function(second)[0] == pytest.approx(slow(first) - slow(second), rel=1e-12)


def test_the_models_own_priors_are_of_the_centred_intercept(rows) -> None:
    m = bl.model("count ~ x", rows, "poisson", priors=[bl.prior("normal(0, 1)", part="intercept"), bl.prior("normal(0, 3)", part="fixed")])
    function = penalty_for(m, Penalty(name="prior"))
    first, second = np.array([0.3, 0.5]), np.array([-1.0, 0.1])

    def slow(b: np.ndarray) -> float:
        return -2.0 * float(norm(0, 1).logpdf(b[0] + b[1] * rows["x"].mean()) + norm(0, 3).logpdf(b[1]))

    assert function(first)[0] - function(second)[0] == pytest.approx(slow(first) - slow(second), rel=1e-12)


# ------------------------------------------------------------------------------------------------------ Firth, without random terms


def test_two_by_two_adds_a_half_to_every_cell() -> None:
    table = pd.DataFrame({"hit": [0, 7], "miss": [12, 5], "arm": ["a", "b"]})
    fit = bl.glmer("cbind(hit, miss) ~ arm", table, penalty="jeffreys")
    a, b = np.log(0.5 / 12.5), np.log(7.5 / 5.5)
    assert np.allclose(fit.beta, [a, b - a], rtol=1e-8)
    assert fit.criterion == pytest.approx(-2.0 * float(binom(12, expit([a, b])).logpmf([0, 7]).sum()), rel=1e-7)
    assert fit.method == "ML, penalty jeffreys"
    assert "penalty of the coefficients (jeffreys)" in str(fit)


def test_cells_of_counts_add_a_half_too() -> None:
    table = pd.DataFrame({"n": [0, 0, 0, 2, 5, 1], "year": ["95", "95", "95", "96", "96", "96"]})
    fit = bl.glmer("n ~ 0 + year", table, "poisson", penalty="jeffreys")
    assert np.allclose(np.exp(fit.beta), [0.5 / 3, 8.5 / 3], rtol=1e-8)


def test_firths_modified_score_with_a_covariate_that_separates() -> None:
    x = np.array([-2.0, -1.4, -0.9, -0.3, 0.2, 0.8, 1.5, 2.2])
    y = (x > 0).astype(float)
    X = np.column_stack([np.ones(8), x])
    beta = np.zeros(2)
    for _ in range(200):  # Newton steps on U*(beta) = X'(y - p + h (1/2 - p)), as Heinze & Schemper (2002) write it
        p = expit(X @ beta)
        information = X.T @ ((p * (1 - p))[:, None] * X)
        h = p * (1 - p) * np.einsum("ij,jk,ik->i", X, np.linalg.inv(information), X)
        beta = beta + np.linalg.solve(information, X.T @ (y - p + h * (0.5 - p)))
    fit = bl.glmer("y ~ x", pd.DataFrame({"x": x, "y": y.astype(int)}), "bernoulli", penalty="jeffreys")
    assert np.allclose(fit.beta, beta, rtol=1e-7)


def test_a_normal_penalty_against_a_plain_minimisation(rows) -> None:
    fit = bl.glmer("cbind(hits, size - hits) ~ x", rows, penalty="normal(0, 0.2)")

    def slow(b: np.ndarray) -> float:
        likelihood = binom(rows["size"], expit(b[0] + b[1] * rows["x"])).logpmf(rows["hits"]).sum()
        return -float(likelihood + norm(0, 0.2).logpdf(b[1]))

    found = minimize(slow, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
    assert np.allclose(fit.beta, found.x, atol=1e-6)
    step, one, other = 1e-3, np.array([1e-3, 0.0]), np.array([0.0, 1e-3])
    first, bend = ((slow(found.x + h) - 2 * slow(found.x) + slow(found.x - h)) / step**2 for h in (one, other))
    cross = sum(s1 * s2 * slow(found.x + s1 * one + s2 * other) for s1 in (-1, 1) for s2 in (-1, 1)) / (4 * step**2)
    errors = np.sqrt(np.diagonal(np.linalg.inv([[first, cross], [cross, bend]])))
    assert np.allclose(fit.standard_errors, errors, rtol=1e-4)


# ------------------------------------------------------------------------------------------------------------- with random effects


def test_quadrature_with_a_penalty_against_brute_force(rows) -> None:
    fit = bl.glmer("cbind(hits, size - hits) ~ x + (1 | g)", rows, penalty="normal(0, 0.3)", n_agq=25)
    nodes, weights = np.polynomial.hermite_e.hermegauss(81)
    hits, size, x, g = (rows[name].to_numpy() for name in ("hits", "size", "x", "g"))
    constant = gammaln(size + 1.0) - gammaln(hits + 1.0) - gammaln(size - hits + 1.0)

    def slow(v: np.ndarray) -> float:
        eta = v[0] + v[1] * x + abs(v[2]) * nodes[:, None]
        each = constant + hits * eta - size * np.logaddexp(0.0, eta)
        total = 0.0
        for level in np.unique(g):
            total += np.log(np.sum(weights * np.exp(each[:, g == level].sum(axis=1))) / np.sqrt(2.0 * np.pi))
        return -2.0 * float(total + norm(0, 0.3).logpdf(v[1]))

    found = minimize(slow, np.append(fit.beta, 0.3), method="Nelder-Mead", options={"xatol": 1e-8, "fatol": 1e-11, "maxiter": 4000})
    assert np.allclose(fit.beta, found.x[:2], atol=1e-5)
    assert fit.theta[0] == pytest.approx(abs(found.x[2]), abs=1e-4)
    assert fit.criterion == pytest.approx(found.fun + 2.0 * float(norm(0, 0.3).logpdf(found.x[1])), abs=1e-5)


def test_a_wide_penalty_changes_nothing(rows) -> None:
    plain = bl.glmer("many ~ x + (x | g)", rows, "poisson")
    wide = bl.glmer("many ~ x + (x | g)", rows, "poisson", penalty="normal(0, 1e6)")
    assert np.allclose(plain.beta, wide.beta, atol=1e-7)
    assert plain.criterion == pytest.approx(wide.criterion, abs=1e-8)


def test_both_priors_together(reads) -> None:
    m = bl.model(SET_B, reads, "binomial")
    fit = fit_generalised(m, avoid_boundary=True, penalty=Penalty(name="jeffreys"))
    assert (fit.method, fit.approximation) == ("MAP (Laplace), penalty jeffreys", "Laplace")
    assert not fit.is_singular
    assert np.max(np.abs(fit.beta)) < 10
    alone = fit_generalised(m, penalty=Penalty(name="jeffreys"))
    assert alone.is_singular
    assert alone.criterion < fit.criterion


# ----------------------------------------------------------------------------------------------------------------- separated data


def test_a_separated_fit_ends_and_says_why(reads) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = bl.glmer(SET_B, reads)
    assert [warning.message.code for warning in caught] == ["singular", "separated"]
    said = str(caught[-1].message)
    assert "treatment = 400, time = 09: all 66 trials are successes" in said
    assert "penalty='jeffreys'" in said
    assert fit.convergence == "flat"
    assert np.all(np.isfinite(fit.beta))
    assert np.all(np.isfinite(fit.standard_errors))
    assert [check.code for check in fit.diagnose().failed if check.severity == "error"] == ["curvature", "separated", "singular"]


def test_separation_without_random_terms_is_told_too() -> None:
    table = pd.DataFrame({"hit": [0, 7], "miss": [12, 5], "arm": ["a", "b"]})
    with pytest.warns(ConvergenceWarning, match="arm = a: 0 of 12 trials") as caught:
        bl.glmer("cbind(hit, miss) ~ arm", table)
    assert caught[0].message.code == "separated"


def test_sound_fits_solve_no_linear_program(rows, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("asked for a linear program")

    monkeypatch.setattr(import_module("bayeslmm.separation"), "separation", refuse)
    fit = bl.glmer("cbind(hits, size - hits) ~ x + f", rows)
    assert separated.separated(fit) is None


@pytest.mark.parametrize("given", ["jeffreys", "prior", "normal(0, 2.5)"])
@pytest.mark.parametrize("name", ["b", "c"])
def test_penalised_estimates_of_separated_data_are_finite(reads, given: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.SingularFitWarning)
        fit = bl.glmer(f"cbind(mC_{name}, uC_{name}) ~ treatment * time + (1 | tank)", reads, penalty=given)
    assert fit.converged
    assert fit.convergence != "flat"
    assert np.max(np.abs(fit.beta)) < 12
    assert np.max(fit.standard_errors) < 5


# ---------------------------------------------------------------------------------------------------------------------- the verbs


@pytest.fixture(scope="module")
def penalised(rows):
    return bl.glmer("cbind(hits, size - hits) ~ x + (1 | g)", rows, penalty="jeffreys")


def test_refits_keep_the_penalty(rows, penalised) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.SingularFitWarning)
        again = bl.refit(penalised, rows["hits"])
    assert again.method == "Laplace, penalty jeffreys"
    assert np.allclose(again.beta, penalised.beta, atol=1e-6)
    assert fit_again(penalised, penalised.model).penalty == penalised.penalty


def test_all_fit_searches_with_the_penalty(penalised) -> None:
    assert bl.all_fit(penalised, ["Newton", "L-BFGS-B"])["verdict"].tolist() == ["agrees", "agrees"]


def test_the_bootstrap_is_of_penalised_fits(reads) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.SingularFitWarning)
        fit = bl.glmer(SET_B, reads, penalty="jeffreys")
    boot = bl.bootstrap(fit, n=10, seed=3)
    assert boot.counts["failed"] == 0
    assert np.max(np.abs(boot.replicates.to_numpy())) < 12


def test_predictions_and_checks(penalised) -> None:
    limits = penalised.predict(interval="confidence")
    assert np.all((limits["lower"] > 0.0) & (limits["upper"] < 1.0))
    assert penalised.simulate(seed=1).shape == (60, 1)
    assert {"gradient", "curvature", "laplace_accuracy"} <= {check.code for check in penalised.diagnose().checks}


def test_likelihood_ratios_are_refused(rows, penalised) -> None:
    smaller = bl.glmer("cbind(hits, size - hits) ~ 1 + (1 | g)", rows, penalty="jeffreys")
    with pytest.raises(FitError, match="mode under a penalty of the coefficients"):
        bl.anova(smaller, penalised)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ("jeffrey", FitError, "did you mean 'jeffreys'"),
        ("normal(0)", PriorError, "normal\\(mu, sigma\\)"),
        ("gamma(1, 1)", FitError, "not gamma"),
        (3, FitError, "a penalty is a name"),
        ([], FitError, "a penalty is a name"),
        (bl.prior("normal(0, 1)", part="sd"), FitError, "not of part 'sd'"),
        (bl.prior("normal(0, 1)", part="fixed", term="z"), PriorError, "no term 'z'"),
    ],
)
def test_what_is_no_penalty_is_refused(rows, given: object, error: type[BayesLmmError], said: str) -> None:
    with pytest.raises(error, match=said):
        bl.glmer("cbind(hits, size - hits) ~ x", rows, penalty=given)


def test_where_a_penalty_has_no_place(rows) -> None:
    with pytest.raises(FitError, match="outside the mode"):
        bl.glmer("cbind(hits, size - hits) ~ x + (1 | g)", rows, penalty="jeffreys", n_agq=0)
    with pytest.raises(FitError, match="not for family 'negative_binomial'"):
        bl.glmer("count ~ x", rows, "negative_binomial", penalty="jeffreys")


def test_logit_of_no_coefficients(rows) -> None:
    fit = bl.glmer("cbind(hits, size - hits) ~ 1", rows, penalty="jeffreys")
    assert fit.beta[0] == pytest.approx(logit((rows["hits"].sum() + 0.5) / (rows["size"].sum() + 1.0)), rel=1e-8)


def test_a_prior_of_bambi_is_a_penalty_and_bounds_are_none() -> None:
    class TheirPrior:
        name, args = "Normal", {"mu": 0.0, "sigma": 2.5}

    assert penalty_of(TheirPrior()) == penalty_of("normal(0, 2.5)")
    data = bl.load_dataset("cbpp")
    row = bl.prior("normal(0, 1)", part="fixed", lower=0)
    with pytest.raises(FitError, match="takes no bounds, as normal\\(0, 1\\), lower=0 has"):
        bl.glmer("incidence | trials(size) ~ period", data, "binomial", penalty=[row])
