"""`glmer`: what it takes and refuses, what its fit says, and models whose answer is known in closed form."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit, logit
from scipy.stats import norm

import bayeslmm as bl
from bayeslmm.errors import BayesLmmWarning, ConvergenceWarning, DataError, FitError, SingularFitWarning

CBPP = "cbind(incidence, size - incidence) ~ period + (1 | herd)"


@pytest.fixture(scope="module")
def cbpp():
    return bl.load_dataset("cbpp")


@pytest.fixture(scope="module")
def fit(cbpp):
    return bl.glmer(CBPP, cbpp)


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(4)
    x, g = rng.normal(size=240), np.repeat(np.arange(12), 20)
    u = rng.normal(0.0, 0.6, 12)
    y = rng.poisson(np.exp(0.5 + 0.3 * x + u[g]))
    return pd.DataFrame({"y": y, "x": x, "g": g.astype(str), "row": np.arange(240).astype(str), "w": 1.0 + np.arange(240) % 2})


# ----------------------------------------------------------------------------------------------------------------- closed forms


def test_one_proportion_without_random_terms(cbpp) -> None:
    fit = bl.glmer("cbind(incidence, size - incidence) ~ 1", cbpp)
    share = cbpp["incidence"].sum() / cbpp["size"].sum()
    assert fit.beta[0] == pytest.approx(logit(share), rel=1e-10)
    assert fit.standard_errors[0] == pytest.approx(1.0 / np.sqrt(share * (1.0 - share) * cbpp["size"].sum()), rel=1e-8)
    assert fit.method == "ML"
    assert fit.ranef() == {}
    assert "Generalized linear model" in str(fit)


def test_a_cell_a_coefficient_has_the_cells_mean(counts) -> None:
    table = counts.assign(half=np.where(counts["x"] > 0, "up", "down"))
    fit = bl.glmer("y ~ 0 + half", table, "poisson")
    assert np.allclose(np.exp(fit.beta), table.groupby("half")["y"].mean(), rtol=1e-9)


def test_weights_are_repeats(counts) -> None:
    weighted = bl.glmer("y ~ x + (1 | g)", counts, "poisson", weights="w")
    repeated = counts.loc[np.repeat(counts.index, counts["w"].astype(int))].reset_index(drop=True)
    again = bl.glmer("y ~ x + (1 | g)", repeated, "poisson")
    assert weighted.criterion == pytest.approx(again.criterion, rel=1e-10)
    assert np.allclose(weighted.beta, again.beta, rtol=1e-6)
    assert np.allclose(weighted.standard_errors, again.standard_errors, rtol=1e-5)


def test_bernoulli_and_its_counts_agree_up_to_a_constant(cbpp) -> None:
    rows = np.repeat(np.arange(len(cbpp)), cbpp["size"])
    start = np.repeat(np.cumsum(cbpp["size"]) - cbpp["size"], cbpp["size"])
    success = (np.arange(len(rows)) - start.to_numpy()) < cbpp["incidence"].to_numpy()[rows]
    long = cbpp.iloc[rows].assign(y=success.astype(float)).reset_index(drop=True)
    one, other = bl.glmer("y ~ period + (1 | herd)", long, "bernoulli"), bl.glmer(CBPP, cbpp)
    assert np.allclose(one.beta, other.beta, rtol=1e-6)
    assert np.allclose(one.theta, other.theta, rtol=1e-6)
    assert np.allclose(one.standard_errors, other.standard_errors, rtol=1e-5)


def test_units_of_predictors_do_not_matter(counts) -> None:
    rng = np.random.default_rng(6)
    g = counts["g"].astype(int).to_numpy()
    table = counts.assign(y=rng.poisson(np.exp(0.5 + rng.normal(0.3, 0.5, 12)[g] * counts["x"] + rng.normal(0.0, 0.5, 12)[g])))
    plain = bl.glmer("y ~ x + (x | g)", table, "poisson")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        scaled = bl.glmer("y ~ x + (x | g)", table.assign(x=1e6 * counts["x"] + 1e8), "poisson")
    assert scaled.criterion == pytest.approx(plain.criterion, abs=1e-6)
    assert scaled.beta[1] * 1e6 == pytest.approx(plain.beta[1], rel=1e-4)


def test_a_level_a_row_is_overdispersion(counts) -> None:
    rng = np.random.default_rng(5)
    table = counts.assign(y=rng.poisson(counts["y"] * rng.gamma(1.0, 1.0, len(counts))))
    fit = bl.glmer("y ~ x + (1 | g) + (1 | row)", table, "poisson")
    assert fit.ngroups["row"] == 240
    assert fit.converged
    assert fit.criterion < bl.glmer("y ~ x + (1 | g)", table, "poisson").criterion - 10.0


def test_quadrature_compares_with_laplace(cbpp) -> None:
    fits = {k: bl.glmer(CBPP, cbpp, n_agq=k) for k in (1, 5, 20, 50)}
    values = {k: fit.criterion for k, fit in fits.items()}
    assert abs(values[1] - values[50]) < 0.2
    assert values[20] == pytest.approx(values[50], abs=1e-8)
    assert fits[5].method == "AGQ(5)"


# --------------------------------------------------------------------------------------------------------------------- refusals


def test_a_linear_model_is_sent_to_lmer() -> None:
    with pytest.raises(FitError, match="use lmer"):
        bl.glmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"), "gaussian")


@pytest.mark.parametrize("n_agq", [-1, 51, 2.5, True, "3"])
def test_nodes_that_are_none(cbpp, n_agq) -> None:
    with pytest.raises(FitError, match="n_agq must be a whole number from 0 to 50"):
        bl.glmer(CBPP, cbpp, n_agq=n_agq)


@pytest.mark.parametrize("random", ["(x | g)", "(1 | g) + (1 | row)"])
def test_quadrature_of_several_effects(counts, random: str) -> None:
    with pytest.raises(FitError, match="exactly one random term with a single effect"):
        bl.glmer(f"y ~ x + {random}", counts, "poisson", n_agq=5)


def test_responses_that_a_family_cannot_have(counts) -> None:
    with pytest.raises(DataError, match="cannot have"):
        bl.glmer("x ~ 1 + (1 | g)", counts, "poisson")


def test_one_level_has_no_variance(counts) -> None:
    with pytest.raises(DataError, match="1 level"):
        bl.glmer("y ~ x + (1 | g)", counts.assign(g="a"), "poisson")


def test_degrees_of_freedom_of_linear_models(fit) -> None:
    with pytest.raises(FitError, match="z values"):
        fit.coefficients("kenward-roger")


# ---------------------------------------------------------------------------------------------------------- what may go wrong


def test_a_variance_of_zero_is_said() -> None:
    rng = np.random.default_rng(1)
    table = pd.DataFrame({"y": np.tile([0, 1, 2, 1, 0, 2], 10), "x": rng.normal(size=60), "g": np.repeat(list("abcdefghij"), 6)})
    with pytest.warns(SingularFitWarning, match=r"variance of \(1 \| g\) is zero"):
        fit = bl.glmer("y ~ x + (1 | g)", table, "poisson")
    assert fit.theta[0] == 0.0
    assert fit.convergence == "converged at the boundary"
    alone = bl.glmer("y ~ x", table, "poisson")
    assert fit.criterion == pytest.approx(alone.criterion, rel=1e-10)
    assert np.allclose(fit.standard_errors, alone.standard_errors, rtol=1e-6)


def test_separation_is_named() -> None:
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"arm": np.repeat(["a", "b"], 60), "g": np.tile(list("abcdef"), 20)})
    table["y"] = np.where(table["arm"] == "b", 0, rng.integers(0, 2, 120))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = bl.glmer("y ~ arm + (1 | g)", table, "bernoulli")
    said = [one.message for one in caught if isinstance(one.message, ConvergenceWarning)]
    assert [one.code for one in said] == ["separated"]
    assert "arm" in str(said[0])
    assert fit.convergence == "flat"
    assert not fit.diagnose().ok
    assert fit.beta[1] < -10.0
    assert fit.standard_errors[1] > 100.0
    assert np.all(np.isfinite(fit.standard_errors))


# ------------------------------------------------------------------------------------------------------------------ what it says


def test_coefficients_are_wald_tests(fit) -> None:
    table = fit.coefficients()
    assert np.all(np.isinf(table["df"]))
    assert np.allclose(table["p_value"], 2.0 * norm.sf(np.abs(fit.beta / fit.standard_errors)))


def test_fitted_values_and_predictions_agree(fit, cbpp) -> None:
    predicted = fit.predict()
    assert np.allclose(predicted["estimate"], fit.fitted())
    link = fit.predict(scale="link", interval="confidence")
    response = fit.predict(interval="confidence")
    for column in ("estimate", "lower", "upper"):
        assert np.allclose(expit(link[column]), response[column])
    p = response["estimate"]
    assert np.allclose(response["se"], link["se"] * p * (1.0 - p), rtol=1e-6)
    again = fit.predict(cbpp.head(3), interval="confidence")
    assert np.allclose(again, response.head(3))


def test_errors_of_fixed_parts_are_those_of_the_coefficients(fit) -> None:
    link = fit.predict(target="average_group", scale="link")
    X, V = fit.model.design.X, fit.vcov().to_numpy()
    assert np.allclose(link["se"], np.sqrt(np.einsum("np,pq,nq->n", X, V, X)))


def test_a_new_groups_mean_is_over_groups(fit) -> None:
    """Against draws of the group's effect."""
    population = fit.predict(target="population")["estimate"].iloc[0]
    u = norm.ppf((np.arange(200000) + 0.5) / 200000) * np.sqrt(fit.covariances[0][0, 0])
    assert population == pytest.approx(np.mean(expit(fit.beta[0] + u)), rel=1e-5)
    new = fit.predict(target="new_group")
    assert new["estimate"].iloc[0] == pytest.approx(population)
    assert np.all(new["se"] > fit.predict(target="population")["se"])


def test_prediction_intervals_hold_new_counts(fit) -> None:
    limits = fit.predict(target="new_group", interval="prediction", seed=1)
    simulated = fit.simulate(400, seed=2)
    inside = (simulated.ge(limits["lower"], axis=0) & simulated.le(limits["upper"], axis=0)).to_numpy().mean()
    assert 0.94 < inside < 1.0


def test_residuals(fit, cbpp) -> None:
    p, n = fit.fitted(), cbpp["size"]
    observed = cbpp["incidence"] / n
    assert np.allclose(fit.residuals(), observed - p)
    assert np.allclose(fit.residuals("working"), (observed - p) / (p * (1.0 - p)))
    assert np.allclose(fit.residuals("pearson"), (observed - p) / np.sqrt(p * (1.0 - p) / n))
    assert np.array_equal(fit.residuals("scaled"), fit.residuals("pearson"))
    assert abs(fit.residuals("quantile").std() - 1.0) < 0.35
    with pytest.raises(FitError, match="unknown kind"):
        fit.residuals("raw")


@pytest.mark.parametrize(("family", "link"), [("poisson", "sqrt"), ("negative_binomial", None), ("zero_inflated_poisson", None)])
def test_deviance_residuals_are_against_the_best_mean(counts, family: str, link: str | None) -> None:
    """The best mean by a fine grid of the linear predictor."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        fit = bl.glmer("y ~ x + (1 | g)", counts, family, link=link)
    aux = {name: part.natural() for name, part in fit.further.items()}
    record, y = fit.model.family, fit.model.design.y
    grid = np.exp(np.linspace(-25.0, 4.0, 6001))
    best = np.max([record.loglik(y, np.full(len(y), mu), aux, None) for mu in grid], axis=0)
    lost = 2.0 * (best - record.loglik(y, fit.model.link.inverse(fit.predictor()), aux, None))
    assert np.allclose(fit.residuals("deviance") ** 2, lost, atol=2e-5)


def test_further_parameters_are_estimates(counts) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        fit = bl.glmer(bl.formula("y ~ x + (1 | g)", zi="~ x + (1 | g)"), counts, "zero_inflated_poisson")
    names = fit.estimates.set_index(["part", "term"]).index
    assert ("fixed", "zi_x") in names
    assert ("sd", "zi_(Intercept)") in names
    assert fit.n_parameters == 6
    assert "Predictor of zi (logit link)" in str(fit)
    assert np.allclose(fit.predict()["estimate"], fit.fitted())
    assert fit.simulate(2, seed=1).shape == (240, 2)


def test_refit_to_the_same_response_is_the_same(fit, cbpp) -> None:
    again = bl.refit(fit, cbpp["incidence"])
    assert again.criterion == pytest.approx(fit.criterion, rel=1e-12)
    other = bl.refit(fit, fit.simulate(seed=3)["sim_1"])
    assert other.criterion != pytest.approx(fit.criterion)
    with pytest.raises(DataError, match="must be successes"):
        bl.refit(fit, cbpp["size"] + 1.0)


def test_tables(fit) -> None:
    assert list(fit.varcorr()["group"]) == ["herd"]
    assert fit.glance()["deviance"].iloc[0] == pytest.approx(fit.criterion)
    assert set(fit.tidy()["effect"]) == {"fixed", "ran_pars"}
    frame = fit.augment()
    assert np.allclose(frame[".fitted"] + frame[".resid"], frame["incidence"] / frame["size"])
    assert fit.ranef()["herd"].shape == (15, 1)


def test_summary_is_laid_out_as_lme4s(fit) -> None:
    lines = str(fit).splitlines()
    assert lines[0] == "Generalized linear mixed model fit by maximum likelihood (Laplace Approximation) ['ClassicalFit']"
    assert lines[1] == " Family: binomial  ( logit )"
    assert "            Estimate Std. Error z value Pr(>|z|)    " in lines
    assert "period2      -0.9923     0.3066  -3.236 0.001212 ** " in lines
    assert "Residual" not in str(fit)


def test_likelihood_ratio_and_wald_tests(fit, cbpp) -> None:
    small = bl.glmer("cbind(incidence, size - incidence) ~ 1 + (1 | herd)", cbpp)
    table = bl.anova(small, fit)
    assert table["chisq"].iloc[1] == pytest.approx(small.criterion - fit.criterion)
    wald = bl.anova(fit)
    V = fit.vcov().to_numpy()[1:, 1:]
    assert wald["f_value"].iloc[0] == pytest.approx(fit.beta[1:] @ np.linalg.solve(V, fit.beta[1:]) / 3.0)
    assert np.isinf(wald["den_df"].iloc[0])


def test_a_bootstrap_fits_simulated_responses(fit) -> None:
    found = bl.bootstrap(fit, n=5, seed=1)
    assert found.counts["failed"] == 0
    assert "sigma" not in found.table.index
