"""Predictions and simulations: targets, new levels, scales, against closed forms."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, linalg, special, stats

import bayeslmm as bl
from bayeslmm.errors import DataError, FitError
from bayeslmm.fit import Draws
from bayeslmm.prediction import linear_predictor, predict, quantile_residuals, simulate

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


# ------------------------------------------------------------------------------------------------ errors of a classical fit


def dense_error_variance(fit: bl.ClassicalFit, x: np.ndarray, z: np.ndarray) -> np.ndarray:
    """var(x'(beta_hat - beta) + z'(b_hat - b)) by Henderson's equations with dense matrices; rows of x (n, p), z (n, q)."""
    design = fit.model.design
    W = np.hstack([design.X, design.Z.toarray()]) * np.sqrt(design.weights)[:, None]
    blocks = [np.kron(np.eye(block.n_levels), np.linalg.inv(c)) for block, c in zip(design.blocks, fit.covariances, strict=True)]
    penalty = linalg.block_diag(np.zeros((design.p, design.p)), *blocks)
    rows = np.hstack([x, z])
    return np.einsum("ni,ij,nj->n", rows, np.linalg.inv(W.T @ W / fit.sigma**2 + penalty), rows)


@pytest.fixture(scope="module")
def crossed() -> bl.ClassicalFit:
    """Weighted, two crossed factors and a random slope, unbalanced."""
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"g": rng.choice(list("abcdefgh"), 150), "h": rng.choice(list("uvwxyz"), 150), "x": rng.normal(size=150)})
    data["w"] = rng.uniform(0.5, 2.0, 150)
    g, h = (data[name].map(dict(zip(sorted(set(data[name])), rng.normal(size=8), strict=False))) for name in "gh")
    data["y"] = 1 + 2 * data["x"] + g * (1 + 0.5 * data["x"]) + h + rng.normal(size=150) / np.sqrt(data["w"])
    return bl.lmer("y ~ x + (x | g) + (1 | h)", data, weights="w")


def test_conditional_error_is_the_joint_one_of_fixed_and_random_effects(crossed: bl.ClassicalFit) -> None:
    design = crossed.model.design
    expected = np.sqrt(dense_error_variance(crossed, design.X, design.Z.toarray()))
    np.testing.assert_allclose(crossed.predict()["se"], expected, rtol=1e-9)
    new = crossed.predict({"x": [0.5], "g": ["b"], "h": ["z"]})["se"]
    z = np.zeros((1, design.q))
    z[0, [2, 3, 16 + 5]] = [1.0, 0.5, 1.0]
    np.testing.assert_allclose(new, np.sqrt(dense_error_variance(crossed, np.array([[1.0, 0.5]]), z)), rtol=1e-9)


def test_errors_of_the_other_targets(crossed: bl.ClassicalFit) -> None:
    new = {"x": [0.0, 2.0]}
    X = np.array([[1.0, 0.0], [1.0, 2.0]])
    fixed = np.einsum("ni,ij,nj->n", X, crossed.vcov().to_numpy(), X)
    between = np.einsum("ni,ij,nj->n", X, crossed.covariances[0], X) + crossed.covariances[1][0, 0]
    for target, expected in {"average_group": fixed, "population": fixed, "new_group": fixed + between}.items():
        np.testing.assert_allclose(crossed.predict(new, target=target)["se"], np.sqrt(expected), rtol=1e-9)


def test_limits_are_of_students_t(fit: bl.ClassicalFit) -> None:
    """In a balanced growth study the fixed effects' degrees of freedom are groups - 1 = 17; a prediction adds sigma^2."""
    confidence = fit.predict({"Days": [0.0]}, target="average_group", interval="confidence", prob=0.9).iloc[0]
    half = stats.t.ppf(0.95, 17) * confidence["se"]
    assert confidence["upper"] - confidence["estimate"] == pytest.approx(half, rel=1e-5)
    assert confidence["estimate"] - confidence["lower"] == pytest.approx(half, rel=1e-5)
    predicted = fit.predict({"Days": [0.0]}, target="average_group", interval="prediction", prob=0.9).iloc[0]
    total = np.sqrt(confidence["se"] ** 2 + fit.sigma**2)
    assert stats.t.ppf(0.95, 180) * total < (predicted["upper"] - predicted["lower"]) / 2 < stats.t.ppf(0.95, 17) * total
    assert predicted["se"] == confidence["se"]


def test_population_prediction_includes_its_group(fit: bl.ClassicalFit) -> None:
    new = {"Days": [3.0]}
    population = fit.predict(new, target="population", interval="prediction").iloc[0]
    new_group = fit.predict(new, target="new_group", interval="prediction").iloc[0]
    np.testing.assert_allclose(population[["lower", "upper"]], new_group[["lower", "upper"]], rtol=1e-9)


def test_linear_model_has_the_textbook_intervals(data: pd.DataFrame) -> None:
    model = bl.lmer("Reaction ~ Days", data)
    X = np.column_stack([np.ones(180), data["Days"]])
    inverse = np.linalg.inv(X.T @ X)
    x = np.array([1.0, 4.0])
    shown = model.predict({"Days": [4.0]}, interval="prediction").iloc[0]
    half = stats.t.ppf(0.975, 178) * model.sigma * np.sqrt(1 + x @ inverse @ x)
    assert shown["upper"] - shown["estimate"] == pytest.approx(half)
    assert shown["se"] == pytest.approx(model.sigma * np.sqrt(x @ inverse @ x))


def test_a_sampled_level_has_the_limits_of_all_that_could_be_drawn(fit: bl.ClassicalFit) -> None:
    new = {"Days": [3.0, 3.0], "Subject": ["nobody", "308"]}
    sampled = fit.predict(new, new_levels="sample", interval="confidence", seed=1)
    group = fit.predict({"Days": [3.0]}, target="new_group", interval="confidence").iloc[0]
    np.testing.assert_allclose(sampled.loc[0, ["se", "lower", "upper"]].astype(float), group[["se", "lower", "upper"]], rtol=1e-9)
    assert sampled.loc[0, "estimate"] != pytest.approx(group["estimate"])
    average = fit.predict(new, new_levels="average").iloc[0]
    assert average["se"] < group["se"]
    known = fit.predict({"Days": [3.0], "Subject": ["308"]}).iloc[0]
    assert sampled.loc[1, "se"] == pytest.approx(known["se"])


def test_missing_values_have_no_error(fit: bl.ClassicalFit) -> None:
    new = pd.DataFrame({"Days": [0.0, np.nan, 1.0], "Subject": ["308", "309", None]})
    shown = fit.predict(new, interval="confidence")
    assert shown.iloc[0].notna().all()
    assert shown.iloc[1:].isna().all().all()


def test_singular_fit_has_finite_errors() -> None:
    with pytest.warns(bl.SingularFitWarning):
        singular = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2"))
    shown = singular.predict(interval="prediction")
    assert np.isfinite(shown).all().all()
    assert shown["se"].iloc[0] == pytest.approx(singular.sigma / np.sqrt(30), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "interval"), [(t, i) for t in ("conditional", "new_group") for i in ("confidence", "prediction")])
def test_intervals_cover(target: str, interval: str) -> None:
    """Six groups of four rows: the intervals hold what they name in 95 % of 1,000 data sets (normal quantiles would in about 90 %)."""
    rng = np.random.default_rng(1)
    x, codes = np.tile(np.arange(4) / 4, 6), np.repeat(np.arange(6), 4)
    hits = []
    for _ in range(1000):
        b = rng.normal(size=7)
        frame = pd.DataFrame({"y": 1 + 2 * x + b[codes] + rng.normal(size=24), "x": x, "g": np.array(list("abcdef"))[codes]})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bl.BayesLmmWarning)
            shown = bl.lmer("y ~ x + (1 | g)", frame).predict({"x": [0.5], "g": ["a"]}, target=target, interval=interval).iloc[0]
        truth = 2 + b[0 if target == "conditional" else 6] + (rng.normal() if interval == "prediction" else 0.0)
        hits.append(shown["lower"] <= truth <= shown["upper"])
    assert 0.925 < np.mean(hits) < 0.975


# ------------------------------------------------------------------------------------------- chunks, residuals, further parameters


def scattered(logistic: Point, S: int = 400) -> Point:
    rng = np.random.default_rng(5)
    effects = rng.normal(size=(S, 10, 1))
    draws = Draws(b=rng.normal([-1.0, 0.5], 0.1, size=(S, 2)), effects=(effects,), covariance=(np.full((S, 1, 1), 2.25),), aux={})
    return Point(logistic.model, draws)


def test_rows_in_chunks_give_the_same(logistic: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    spread = scattered(logistic)
    new = pd.DataFrame({"x": np.arange(7.0), "g": ["a", "new", "b", "new", "c", "other", "new"], "n": 5})
    options = {"new_levels": "sample", "interval": "confidence", "seed": 3}
    whole = predict(spread, new, **options)  # type: ignore[arg-type]
    monkeypatch.setattr("bayeslmm.prediction._CHUNK", 900)
    pd.testing.assert_frame_equal(predict(spread, new, **options), whole, rtol=1e-12)  # type: ignore[arg-type]
    assert simulate(spread, 300, seed=1).shape == (40, 300)


def test_quantile_residuals_of_a_normal_model_are_the_scaled_ones(fit: bl.ClassicalFit) -> None:
    quantile, scaled = fit.residuals("quantile"), fit.residuals("scaled")
    inner = scaled.abs() < 1.5
    assert np.max(np.abs(quantile - scaled)[inner]) < 0.25
    pd.testing.assert_series_equal(quantile, fit.residuals("quantile"))
    assert np.std(quantile_residuals(fit, conditional=False)) == pytest.approx(1.0, abs=0.15)
    with pytest.raises(FitError):
        quantile_residuals(fit, n=0)


def test_quantile_residuals_of_counts_are_standard_normal() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=1500)
    model = bl.model("y ~ x", pd.DataFrame({"y": rng.poisson(np.exp(0.2 + 0.5 * x)), "x": x}), "poisson")
    residual = quantile_residuals(Point(model, Draws(b=np.array([[0.2, 0.5]]), effects=(), covariance=(), aux={})))  # type: ignore[arg-type]
    assert stats.kstest(residual, "norm").pvalue > 0.01


def test_a_predictor_of_sigma_holds_for_new_rows() -> None:
    """sigma = exp(0.5 x + b_g), known without error."""
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"y": rng.normal(size=40), "x": np.tile([0.0, 1.0], 20), "g": np.repeat(list("abcd"), 10)})
    model = bl.model(bl.formula("y ~ x + (1 | g)", sigma="~ 0 + x + (1 | g)"), data)
    S = 4000
    mean = {"effects": (np.zeros((S, 4, 1)),), "covariance": (np.zeros((S, 1, 1)),)}
    levels = np.tile(np.log([1.0, 2.0, 3.0, 4.0])[None, :, None], (S, 1, 1))
    further = Draws(b=np.full((S, 1), 0.5), effects=(levels,), covariance=(np.full((S, 1, 1), 0.25),), aux={})
    fitted = np.exp(0.5 * data["x"].to_numpy())[None] * np.repeat([1.0, 2.0, 3.0, 4.0], 10)
    draws = Draws(b=np.zeros((S, 2)), **mean, aux={"sigma": np.tile(fitted, (S, 1))}, further={"sigma": further})  # type: ignore[arg-type]
    point = Point(model, draws)
    new = pd.DataFrame({"x": [0.0, 2.0], "g": ["a", "d"]})
    shown = predict(point, new, interval="prediction", seed=1)  # type: ignore[arg-type]
    np.testing.assert_allclose(shown["upper"] - shown["lower"], 3.92 * np.array([1.0, 4.0 * np.e]), rtol=0.1)
    average = predict(point, new, target="average_group", interval="prediction", seed=1)  # type: ignore[arg-type]
    np.testing.assert_allclose(average["upper"] - average["lower"], 3.92 * np.array([1.0, np.e]), rtol=0.1)
    unknown = predict(point, {"x": [0.0], "g": ["new"]}, new_levels="sample", interval="prediction", seed=1)  # type: ignore[arg-type]
    mixture = np.quantile(rng.normal(size=200_000) * np.exp(0.5 * rng.normal(size=200_000)), [0.025, 0.975])
    np.testing.assert_allclose(unknown[["lower", "upper"]].iloc[0], mixture, rtol=0.15)
    assert simulate(point, 3, newdata=new, seed=1).shape == (2, 3)  # type: ignore[arg-type]
