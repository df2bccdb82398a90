"""Predictions and simulations: targets, new levels, scales, against closed forms."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, special, stats

import bayeslmm as bl
from bayeslmm.errors import DataError, FitError
from bayeslmm.fit import Draws
from bayeslmm.prediction import linear_predictor, predict, simulate

FORMULA = "Reaction ~ Days + (Days | Subject)"


class Point:
    """The least that predictions ask of a fit: its model and its draws."""

    method = "made by hand"

    def __init__(self, model: bl.Model, draws: Draws):
        self.model, self._draws = model, draws

    def draws(self) -> Draws:
        return self._draws


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return bl.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def fit(data: pd.DataFrame) -> bl.ClassicalFit:
    return bl.lmer(FORMULA, data)


@pytest.fixture(scope="module")
def logistic() -> Point:
    """A binomial model with known coefficients: intercept -1, slope 0.5, group SD 1.5."""
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"k": rng.integers(0, 5, 40), "n": 5, "x": np.tile(np.arange(4.0), 10), "g": np.repeat(list("abcdefghij"), 4)})
    model = bl.model("k | trials(n) ~ x + (1 | g)", data, "binomial")
    effects = np.linspace(-1, 1, 10)[None, :, None]
    return Point(model, Draws(b=np.array([[-1.0, 0.5]]), effects=(effects,), covariance=(np.array([[[2.25]]]),), aux={}))


def test_conditional_prediction_is_the_fitted_value(fit: bl.ClassicalFit) -> None:
    np.testing.assert_allclose(fit.predict()["estimate"], fit.fitted(), rtol=1e-12)


def test_average_group_leaves_the_random_effects_out(fit: bl.ClassicalFit, data: pd.DataFrame) -> None:
    beta = fit.fixef()
    expected = beta["(Intercept)"] + beta["Days"] * data["Days"]
    np.testing.assert_allclose(fit.predict(target="average_group")["estimate"], expected, rtol=1e-12)


def test_population_equals_average_group_on_the_identity_link(fit: bl.ClassicalFit) -> None:
    np.testing.assert_allclose(fit.predict(target="population")["estimate"], fit.predict(target="average_group")["estimate"], rtol=1e-10)


def test_new_levels(fit: bl.ClassicalFit) -> None:
    new = pd.DataFrame({"Days": [0.0, 3.0], "Subject": ["308", "nobody"]}, index=["a", "b"])
    with pytest.raises(DataError, match="nobody"):
        fit.predict(new)
    average = fit.predict(new, new_levels="average")["estimate"]
    assert list(average.index) == ["a", "b"]
    assert average["b"] == pytest.approx(fit.fixef() @ [1.0, 3.0])
    sampled = fit.predict(new, new_levels="sample", seed=3)["estimate"]
    assert sampled["a"] == average["a"]
    assert sampled["b"] != average["b"]


def test_missing_predictors_give_nan_and_keep_the_index(fit: bl.ClassicalFit) -> None:
    new = pd.DataFrame({"Days": [0.0, np.nan], "Subject": ["308", "309"]}, index=[7, 9])
    predicted = fit.predict(new)["estimate"]
    assert list(predicted.index) == [7, 9]
    assert np.isfinite(predicted[7])
    assert np.isnan(predicted[9])


def test_no_rows_give_an_empty_frame(fit: bl.ClassicalFit) -> None:
    assert len(fit.predict(pd.DataFrame({"Days": np.array([], float), "Subject": np.array([], str)}))) == 0


@pytest.mark.parametrize("option", [{"target": "nobody"}, {"scale": "log"}, {"new_levels": "drop"}, {"interval": "wald"}, {"prob": 1.5}])
def test_unknown_options_are_refused(fit: bl.ClassicalFit, option: dict[str, str]) -> None:
    with pytest.raises(FitError):
        fit.predict(**option)  # type: ignore[arg-type]


def test_population_mean_integrates_the_random_effects_out(logistic: Point) -> None:
    new = pd.DataFrame({"x": [0.0, 2.0]})
    predicted = predict(logistic, new, target="population")["estimate"]
    for x, estimate in zip(new["x"], predicted, strict=True):
        exact, _ = integrate.quad(lambda u, x=x: special.expit(-1 + 0.5 * x + u) * stats.norm.pdf(u, scale=1.5), -15, 15)
        assert estimate == pytest.approx(exact, abs=1e-9)
    assert predict(logistic, new, target="average_group")["estimate"].iloc[0] == pytest.approx(special.expit(-1.0))
    assert predict(logistic, new, target="average_group", scale="link")["estimate"].iloc[0] == pytest.approx(-1.0)


def test_linear_predictor_is_x_beta_plus_z_b(logistic: Point) -> None:
    design, draws = logistic.model.design, logistic.draws()
    expected = design.X @ draws.b[0] + design.Z @ draws.effects[0][0].ravel()
    np.testing.assert_allclose(linear_predictor(logistic.model, draws)[0], expected, rtol=1e-12)


def test_unconditional_simulation_has_the_marginal_variance(fit: bl.ClassicalFit) -> None:
    varcorr = fit.varcorr()
    draws = fit.draws()
    simulated = fit.simulate(4000, seed=1).to_numpy()
    design = fit.model.design
    z = design.blocks[0].values[:10]
    expected = np.diag(z @ draws.covariance[0][0] @ z.T) + varcorr["vcov"].iloc[-1]
    np.testing.assert_allclose(simulated[:10].var(axis=1, ddof=1), expected, rtol=5 * np.sqrt(2 / 4000))
    within = np.cov(simulated[:10])[0, 9]
    assert within == pytest.approx((z @ draws.covariance[0][0] @ z.T)[0, 9], abs=5 * expected.max() / np.sqrt(4000))
    between = np.cov(simulated[[0, 10]])[0, 1]
    assert abs(between) < 5 * expected.max() / np.sqrt(4000)


def test_conditional_simulation_keeps_the_fitted_groups(fit: bl.ClassicalFit) -> None:
    simulated = fit.simulate(4000, conditional=True, seed=1).to_numpy()
    standard_error = fit.sigma / np.sqrt(4000)
    assert np.max(np.abs(simulated.mean(axis=1) - fit.fitted())) < 5 * standard_error


def test_a_seed_gives_the_same_simulation(fit: bl.ClassicalFit) -> None:
    pd.testing.assert_frame_equal(fit.simulate(2, seed=9), fit.simulate(2, seed=9))


def test_binomial_simulation_gives_counts_within_trials(logistic: Point) -> None:
    values = simulate(logistic, 50, seed=2).to_numpy()
    assert values.min() >= 0
    assert values.max() <= 5
    np.testing.assert_array_equal(values, np.round(values))


def test_intervals_come_from_draws(logistic: Point) -> None:
    with pytest.raises(FitError, match="brm"):
        predict(logistic, interval="confidence")
    rng = np.random.default_rng(5)
    S = 2000
    draws = Draws(
        b=rng.normal([-1.0, 0.5], [0.2, 0.1], size=(S, 2)),
        effects=(np.repeat(logistic.draws().effects[0], S, axis=0),),
        covariance=(np.full((S, 1, 1), 2.25),),
        aux={},
    )
    spread = Point(logistic.model, draws)
    confidence = predict(spread, target="average_group", interval="confidence", scale="link")
    x = logistic.model.design.X[:, 1]
    np.testing.assert_allclose(confidence["se"], np.sqrt(0.04 + 0.01 * x**2), rtol=0.1)
    np.testing.assert_allclose(confidence["upper"] - confidence["lower"], 2 * 1.96 * np.sqrt(0.04 + 0.01 * x**2), rtol=0.1)
    new_group = predict(spread, target="new_group", interval="confidence", scale="link", seed=1)
    np.testing.assert_allclose(new_group["upper"] - new_group["lower"], 2 * 1.96 * np.sqrt(2.25 + 0.04 + 0.01 * x**2), rtol=0.12)
    observed = predict(spread, interval="prediction", seed=1)
    assert observed["upper"].max() <= 5
