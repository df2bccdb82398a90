"""Families and links by name, and what a family's numbers are in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

import bayeslmm as bl
from bayeslmm.bayes.draws import residuals
from bayeslmm.errors import DataError, FitError
from bayeslmm.families import FAMILIES, family_named, link_named
from bayeslmm.fit import Draws
from bayeslmm.prediction import predict, simulate


def test_names_are_brms_own() -> None:
    assert {"gaussian", "student", "bernoulli", "binomial", "poisson"} <= set(FAMILIES)
    assert [parameter.name for parameter in FAMILIES["student"].parameters] == ["sigma", "nu"]


def test_a_typo_is_answered_with_the_name() -> None:
    with pytest.raises(FitError, match="did you mean 'poisson'"):
        family_named("poison")
    with pytest.raises(FitError, match="did you mean 'probit'"):
        link_named("probits")


def test_a_link_that_the_family_lacks_is_refused() -> None:
    with pytest.raises(FitError, match="family 'poisson' has no link 'logit'; known: log, identity"):
        link_named("logit", family_named("poisson"))
    assert link_named("log", family_named("poisson")).name == "log"


def test_a_family_that_is_no_text_is_refused() -> None:
    with pytest.raises(FitError, match="unknown family"):
        family_named(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "frozen", "aux", "trials"),
    [
        ("gaussian", scipy.stats.norm(0.4, 1.3), {"sigma": np.array(1.3)}, None),
        ("student", scipy.stats.t(5.0, 0.4, 1.3), {"sigma": np.array(1.3), "nu": np.array(5.0)}, None),
        ("bernoulli", scipy.stats.bernoulli(0.4), {}, None),
        ("binomial", scipy.stats.binom(7, 0.4), {}, np.array([7.0, 7.0])),
        ("poisson", scipy.stats.poisson(0.4), {}, None),
    ],
)
def test_log_likelihood_is_scipys(name: str, frozen: object, aux: dict[str, np.ndarray], trials: np.ndarray | None) -> None:
    y = np.array([0.0, 1.0])
    theirs = getattr(frozen, "logpmf" if FAMILIES[name].discrete else "logpdf")(y)
    np.testing.assert_allclose(FAMILIES[name].loglik(y, np.full(2, 0.4), aux, trials), theirs, rtol=1e-12)
    mu = np.full(2, 0.4)
    np.testing.assert_allclose(FAMILIES[name].variance(mu, aux, trials), frozen.var())  # type: ignore[attr-defined]


def test_binomial_without_trials_takes_zero_and_one_only() -> None:
    np.testing.assert_array_equal(FAMILIES["binomial"].check(np.array([0.0, 1.0, 2.0, 0.5]), None), [False, False, True, True])


def test_certain_outcomes_have_log_likelihood_zero() -> None:
    for name in ("bernoulli", "binomial"):
        np.testing.assert_array_equal(FAMILIES[name].loglik(np.array([0.0, 1.0]), np.array([0.0, 1.0]), {}, None), [0.0, 0.0])


def test_student_has_no_variance_at_two_degrees_of_freedom() -> None:
    aux = {"sigma": np.array(1.0), "nu": np.array(2.0)}
    assert FAMILIES["student"].variance(np.zeros(1), aux, None)[0] == np.inf


# --- Families in models -------------------------------------------------------------------------------------------------------


class Point:
    """The least that predictions ask of a fit: its model and its draws."""

    method = "made by hand"

    def __init__(self, model: bl.Model, draws: Draws):
        self.model, self._draws = model, draws

    def draws(self) -> Draws:
        return self._draws


def _frame(y: list[float], **columns: list[float]) -> pd.DataFrame:
    n = len(y)
    return pd.DataFrame({"y": y, "x": np.linspace(0.0, 1.0, n), "g": [f"g{i // 2}" for i in range(n)], **columns})


def _point(family: str, y: list[float], aux: dict[str, float], *, sd: float = 0.5, **columns: list[float]) -> Point:
    """eta = 0.3 + 0.4 x + b_g, at known further parameters."""
    response = "y | trials(n)" if "n" in columns else "y"
    model = bl.model(f"{response} ~ x + (1 | g)", _frame(y, **columns), family)
    effects = np.linspace(-0.6, 0.6, model.dims.levels["g"])[None, :, None]
    given = {name: np.array([value]) for name, value in aux.items()}
    return Point(model, Draws(b=np.array([[0.3, 0.4]]), effects=(effects,), covariance=(np.full((1, 1, 1), sd**2),), aux=given))


COUNTS = [0.0, 3.0, 1.0, 0.0, 2.0, 5.0]
POSITIVE = [1.0, 3.0, 1.0, 4.0, 2.0, 5.0]
RESPONSE_MEANS = [
    ("zero_inflated_poisson", COUNTS, {"zi": 0.3}, lambda eta: 0.7 * np.exp(eta)),
    ("zero_inflated_negative_binomial", COUNTS, {"shape": 2.0, "zi": 0.3}, lambda eta: 0.7 * np.exp(eta)),
    ("hurdle_poisson", COUNTS, {"hu": 0.4}, lambda eta: 0.6 * np.exp(eta) / (1.0 - np.exp(-np.exp(eta)))),
    (
        "hurdle_negative_binomial",
        COUNTS,
        {"shape": 2.0, "hu": 0.4},
        lambda eta: 0.6 * np.exp(eta) / (1.0 - (2.0 / (2.0 + np.exp(eta))) ** 2),
    ),
    ("truncated_poisson", POSITIVE, {}, lambda eta: np.exp(eta) / (1.0 - np.exp(-np.exp(eta)))),
    ("truncated_negative_binomial", POSITIVE, {"shape": 2.0}, lambda eta: np.exp(eta) / (1.0 - (2.0 / (2.0 + np.exp(eta))) ** 2)),
    ("lognormal", POSITIVE, {"sigma": 0.8}, lambda eta: np.exp(eta + 0.32)),
]
response_means = pytest.mark.parametrize(("name", "y", "aux", "mean"), RESPONSE_MEANS, ids=[row[0] for row in RESPONSE_MEANS])


@response_means
def test_predictions_are_of_the_response_not_of_mu(name: str, y: list[float], aux: dict[str, float], mean: Any) -> None:
    fit = _point(name, y, aux)
    eta = 0.3 + 0.4 * fit.model.frame["x"].to_numpy()
    effects = fit.draws().effects[0][0, fit.model.design.blocks[0].index, 0]
    np.testing.assert_allclose(predict(fit)["estimate"], mean(eta + effects), rtol=1e-10)
    np.testing.assert_allclose(predict(fit, target="average_group")["estimate"], mean(eta), rtol=1e-10)
    np.testing.assert_allclose(predict(fit, scale="link")["estimate"], eta + effects, rtol=1e-10)
    integrand = scipy.stats.norm(0.0, 0.5)
    expected = [scipy.integrate.quad(lambda b, at=at: mean(at + b) * integrand.pdf(b), -6.0, 6.0)[0] for at in eta]
    np.testing.assert_allclose(predict(fit, target="population")["estimate"], expected, rtol=1e-7)


@response_means
def test_simulated_responses_have_the_predicted_mean(name: str, y: list[float], aux: dict[str, float], mean: Any) -> None:
    fit = _point(name, y, aux)
    draws = simulate(fit, 4000, conditional=True, seed=1)
    error = draws.std(axis=1) / np.sqrt(4000)
    assert np.all(np.abs(draws.mean(axis=1) - predict(fit)["estimate"]) < 5 * error)


def test_zeros_with_their_own_predictor_enter_the_prediction() -> None:
    model = bl.model(bl.formula("y ~ 1", zi="~ x"), _frame(COUNTS), "zero_inflated_poisson")
    further = Draws(b=np.array([[-1.0, 2.0]]), effects=(), covariance=(), aux={})
    zi = scipy.special.expit(-1.0 + 2.0 * model.frame["x"].to_numpy())
    fit = Point(model, Draws(b=np.array([[0.5]]), effects=(), covariance=(), aux={"zi": zi[None]}, further={"zi": further}))
    np.testing.assert_allclose(predict(fit)["estimate"], (1.0 - zi) * np.exp(0.5), rtol=1e-12)
    np.testing.assert_allclose(predict(fit, {"x": [3.0]})["estimate"], [(1.0 - scipy.special.expit(5.0)) * np.exp(0.5)], rtol=1e-12)


def test_zero_inflated_binomial_predicts_proportions() -> None:
    fit = _point("zero_inflated_binomial", [0.0, 2.0, 5.0, 0.0], {"zi": 0.25}, n=[5.0, 6.0, 7.0, 8.0])
    expected = 0.75 * scipy.special.expit(predict(fit, scale="link")["estimate"])
    np.testing.assert_allclose(predict(fit)["estimate"], expected, rtol=1e-12)


def test_pearson_residuals_of_a_beta_binomial_have_its_variance() -> None:
    fit = _point("beta_binomial", [0.0, 2.0, 5.0, 3.0], {"phi": 3.0}, n=[5.0, 6.0, 7.0, 8.0])
    n = np.array([5.0, 6.0, 7.0, 8.0])
    p = predict(fit)["estimate"].to_numpy()
    expected = (fit.model.design.y - n * p) / np.sqrt(n * p * (1.0 - p) * (1.0 + (n - 1.0) / 4.0))
    np.testing.assert_allclose(residuals(fit.model, fit.draws(), p, "pearson"), expected, rtol=1e-12)


def test_pearson_residuals_of_zero_inflated_counts_have_their_variance() -> None:
    fit = _point("zero_inflated_poisson", COUNTS, {"zi": 0.3})
    mu = np.exp(predict(fit, scale="link")["estimate"].to_numpy())
    expected = (fit.model.design.y - 0.7 * mu) / np.sqrt(0.7 * (mu + mu**2) - 0.49 * mu**2)
    np.testing.assert_allclose(residuals(fit.model, fit.draws(), 0.7 * mu, "pearson"), expected, rtol=1e-12)
    for kind in ("deviance", "working"):
        with pytest.raises(FitError, match=r"not defined for family 'zero_inflated_poisson'.*use 'quantile'"):
            residuals(fit.model, fit.draws(), 0.7 * mu, kind)


@pytest.mark.parametrize(
    ("family", "aux", "expected"),
    [
        ("negative_binomial", {"shape": 2.0}, lambda m: np.log1p(1.0 / m + 0.5)),
        ("negative_binomial1", {"phi": 1.5}, lambda m: np.log1p(2.5 / m)),
        ("gamma", {"shape": 2.0}, lambda m: np.log1p(0.5)),
        ("lognormal", {"sigma": 0.8}, lambda m: 0.64),
    ],
)
def test_nakagawa_s_residual_variance(family: str, aux: dict[str, float], expected: Any) -> None:
    fit = _point(family, POSITIVE, aux)
    eta = 0.3 + 0.4 * fit.model.frame["x"].to_numpy()
    residual = expected(np.exp(eta + 0.125).mean())
    table = bl.icc(fit)
    assert float(table.loc["adjusted", "estimate"]) == pytest.approx(0.25 / (0.25 + residual))


# --- Refusals -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "y", "message"),
    [
        ("negative_binomial", [0.0, 1.5, 2.0, 1.0], r"cannot have \(1.5\); it needs counts 0, 1, 2, .*offset\(log\(exposure\)\)"),
        ("truncated_poisson", [0.0, 1.0, 2.0, 1.0], r"cannot have \(0\); it needs counts 1, 2, 3"),
        ("gamma", [0.0, 1.0, 2.0, 1.0], r"cannot have \(0\); it needs numbers above 0"),
        ("lognormal", [-1.0, 1.0, 2.0, 1.0], r"cannot have \(-1\); it needs numbers above 0"),
        ("beta", [0.0, 0.3, 0.4, 1.0], r"cannot have \(0, 1\); it needs proportions above 0 and below 1"),
        ("beta_binomial", [0.0, 0.3, 0.4, 1.0], "a proportion becomes its counts"),
        ("gamma", [2.0, 2.0, 2.0, 2.0], r"is constant \(2\); there is nothing to fit"),
    ],
)
def test_a_response_that_the_family_cannot_have(family: str, y: list[float], message: str) -> None:
    with pytest.raises(DataError, match=message):
        bl.model("y ~ x", _frame(y), family)


def test_trials_are_for_families_of_successes() -> None:
    frame = _frame([1.0, 2.0, 3.0, 4.0], n=[5.0, 5.0, 5.0, 5.0])
    with pytest.raises(DataError, match="needs family='binomial', or 'beta_binomial', 'zero_inflated_binomial', not 'poisson'"):
        bl.model("y | trials(n) ~ x", frame, "poisson")
    assert bl.model("y | trials(n) ~ x", frame, "beta_binomial").dims.n == 4


def test_default_priors_of_further_parameters_are_brms_s() -> None:
    wanted = {
        ("negative_binomial", "shape"): "inv_gamma(0.4, 0.3)",
        ("gamma", "shape"): "gamma(0.01, 0.01)",
        ("beta", "phi"): "gamma(0.01, 0.01)",
        ("zero_inflated_poisson", "zi"): "beta(1, 1)",
        ("hurdle_poisson", "hu"): "beta(1, 1)",
    }
    responses = {"beta": [0.2, 0.4, 0.5, 0.9], "gamma": [1.0, 2.0, 0.5, 3.0]}
    for (family, parameter), expected in wanted.items():
        rows = bl.default_priors(bl.model("y ~ x", _frame(responses.get(family, [0.0, 2.0, 1.0, 4.0])), family), "brms")
        assert [str(row.distribution) for row in rows if row.term == parameter] == [expected]


def test_the_zeros_predictor_has_a_logistic_intercept() -> None:
    model = bl.model(bl.formula("y ~ x", zi="~ x"), _frame(COUNTS), "zero_inflated_poisson")
    for style in ("weak", "brms"):
        rows = {row.term: row for row in bl.default_priors(model, style)}
        assert str(rows["zi_(Intercept)"].distribution) == "logistic(0, 1)"


def test_lognormal_priors_are_on_the_scale_of_the_logarithm() -> None:
    frame = _frame([10.0, 100.0, 1000.0, 300.0])
    rows = {row.term: row.distribution for row in bl.default_priors(bl.model("y ~ x", frame, "lognormal"), "brms")}
    logs = np.log(frame["y"])
    mad = 1.4826 * float(np.median(np.abs(logs - logs.median())))
    assert rows["(Intercept)"].args == (3.0, round(float(logs.median()), 1), max(2.5, round(mad, 1)))
    assert rows["sigma"].args == (3.0, 0.0, max(2.5, round(mad, 1)))


def test_the_inverse_square_link_is_written_as_a_power() -> None:
    model = bl.model("y ~ x", _frame(POSITIVE), "inverse_gaussian")
    assert r"\mu_i^{-2} &= " in str(model.explain().latex)
