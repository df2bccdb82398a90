"""Predictions, comparisons, slopes: against slow twins by numeric differentiation, hand computation on draws, and closed forms."""

from __future__ import annotations

import warnings
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import integrate, stats
from scipy.special import expit, logit

import bayeslmm as bl
from bayeslmm.classical.fit import ClassicalFit
from bayeslmm.errors import BayesLmmWarning, DataError, FitError
from bayeslmm.fit import Draws
from tests.unit.fakes import FakeFit, FakePosterior

COUNTS = ["estimate", "se", "lower", "upper"]


def frame(seed: int = 0, n: int = 90) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    data = pd.DataFrame(
        {
            "f": pd.Categorical(rng.choice(["a", "b", "c"], n), categories=["a", "b", "c", "unused"]),
            "x": rng.gamma(3.0, 2.0, n),
            "t": rng.random(n) < 0.4,
            "s": rng.normal(size=n),
            "w": rng.integers(0, 4, n),
            "g": [f"g{i % 9}" for i in range(n)],
        }
    )
    effect = rng.normal(size=9)[np.arange(n) % 9]
    data["y"] = 10.0 + data["x"] + data["f"].cat.codes + effect + rng.normal(size=n)
    data["y"] += 0.8 * rng.normal(size=9)[np.arange(n) % 9] * data["s"]
    data["d"] = (rng.random(n) < expit(0.3 * (data["x"] - 6.0) + 1.5 * effect)).astype(int)
    return data


@pytest.fixture(scope="module")
def mixed() -> ClassicalFit:
    return bl.lmer("y ~ f * log(x) + t + (s | g)", frame())


@pytest.fixture(scope="module")
def posterior() -> FakePosterior:
    return FakePosterior(bl.model("y ~ f * x + t + (s | g)", frame()), sd=1.0, sigma=1.0)


class Logistic(FakePosterior):
    """Draws of a logistic model, made up: coefficients and effects of groups around given values."""

    def draws(self) -> Draws:
        rng, design = np.random.default_rng(3), self.model.design
        b = np.linspace(-1.0, 0.5, design.p) + 0.1 * rng.normal(size=(200, design.p))
        effects = tuple(0.8 * rng.normal(size=(200, block.n_levels, block.n_effects)) for block in design.blocks)
        covariance = tuple((0.5 + rng.random(200))[:, None, None] * np.eye(block.n_effects) for block in design.blocks)
        return Draws(b=b, effects=effects, covariance=covariance, aux={})


def generalised(formula: str = "d ~ x + f + (1 | g)", sd: float = 1.2) -> ClassicalFit:
    """A classical logistic fit at given estimates."""
    model = bl.model(formula, frame(), "bernoulli")
    p, blocks = model.design.p, model.design.blocks
    A = np.random.default_rng(5).normal(size=(p, p))
    return ClassicalFit(
        model=model,
        method="Laplace",
        theta=np.full(len(blocks), sd),
        criterion=0.0,
        sigma=1.0,
        beta=np.linspace(-1.5, 0.6, p),
        unscaled_vcov=0.02 * (A @ A.T + np.eye(p)),
        effects=tuple(np.zeros((block.n_levels, 1)) for block in blocks),
        unscaled_condvar=MappingProxyType({}),
        ld_l2=0.0,
        ld_rx2=0.0,
        pwrss=0.0,
        search=None,
        information=np.ones(model.design.n),
    )


# Linear mixed models ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["average_group", "population", "conditional", "new_group"])
def test_predictions_of_rows_are_those_of_predict(mixed: ClassicalFit, target: str) -> None:
    ours = bl.predictions(mixed, target=target)
    theirs = mixed.predict(target=target, interval="confidence")
    np.testing.assert_allclose(ours[COUNTS], theirs[COUNTS], rtol=1e-6)
    assert ours["rowid"].tolist() == list(mixed.model.design.index)
    assert ours["g"].tolist() == frame()["g"].tolist()


def test_average_over_rows_and_within_groups(mixed: ClassicalFit) -> None:
    rows, X, V = bl.predictions(mixed), mixed.model.design.X, mixed.vcov().to_numpy()
    table = bl.predictions(mixed, by=["f", "t"])
    assert list(table.columns[:2]) == ["f", "t"]
    assert len(table) == 6
    for row in table.itertuples():
        inside = ((rows["f"] == row.f) & (rows["t"] == row.t)).to_numpy()
        x = X[inside].mean(axis=0)
        assert row.estimate == pytest.approx(rows["estimate"][inside].mean(), rel=1e-10)
        assert row.se == pytest.approx(np.sqrt(x @ V @ x), rel=1e-8)
    whole = bl.predictions(mixed, by=True)
    assert whole["estimate"].item() == pytest.approx(rows["estimate"].mean(), rel=1e-10)


def test_weights_of_rows(mixed: ClassicalFit) -> None:
    w, rows = frame()["w"].to_numpy(), bl.predictions(mixed)
    named, given = bl.predictions(mixed, by=True, wts="w"), bl.predictions(mixed, by=True, wts=w)
    assert named["estimate"].item() == pytest.approx(np.average(rows["estimate"], weights=w), rel=1e-12)
    pd.testing.assert_frame_equal(named, given)
    lifted = bl.comparisons(mixed, "x", by=True, wts="w")
    per_row = bl.comparisons(mixed, "x")
    assert lifted["estimate"].item() == pytest.approx(np.average(per_row["estimate"], weights=w), rel=1e-10)


def dense_error(fit: ClassicalFit, x: np.ndarray, z: np.ndarray) -> float:
    """Return var(x'(beta_hat - beta) + z'(b_hat - b)) by Henderson's equations, dense."""
    design = fit.model.design
    Z = design.Z.toarray()
    G = np.zeros((Z.shape[1], Z.shape[1]))
    start = 0
    for block, covariance in zip(design.blocks, fit.covariances, strict=True):
        width = block.n_levels * block.n_effects
        G[start : start + width, start : start + width] = np.kron(np.eye(block.n_levels), covariance)
        start += width
    W = np.hstack([design.X, Z])
    C = W.T @ W / fit.sigma**2 if fit.information is None else W.T @ (fit.information[:, None] * W)
    C[design.p :, design.p :] += np.linalg.inv(G)
    weights = np.concatenate([x, z])
    return float(weights @ np.linalg.solve(C, weights))


def test_average_over_groups_has_the_joint_error_of_coefficients_and_effects(mixed: ClassicalFit) -> None:
    design = mixed.model.design
    Z = design.Z.toarray()
    table = bl.predictions(mixed, by="f", target="conditional").set_index("f")
    for level in ("a", "b", "c"):
        inside = (frame()["f"] == level).to_numpy()
        error = dense_error(mixed, design.X[inside].mean(axis=0), Z[inside].mean(axis=0))
        assert table.loc[level, "se"] == pytest.approx(np.sqrt(error), rel=1e-6)
        assert table.loc[level, "estimate"] == pytest.approx(mixed.fitted()[inside].mean(), rel=1e-10)


def test_slope_of_a_random_effect_in_its_own_group(mixed: ClassicalFit) -> None:
    fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    rows = pd.DataFrame({"Days": [4.0], "Subject": ["337"]})
    found = bl.slopes(fit, "Days", newdata=rows, target="conditional").iloc[0]
    assert found["estimate"] == pytest.approx(fit.coef()["Subject"].loc["337", "Days"], rel=1e-8)
    block = fit.model.design.blocks[0]
    z = np.zeros(36)
    z[2 * block.levels.index("337") + 1] = 1.0
    assert found["se"] == pytest.approx(np.sqrt(dense_error(fit, np.array([0.0, 1.0]), z)), rel=1e-6)


def test_slope_in_a_new_group_has_the_variance_of_its_slope() -> None:
    fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    found = bl.slopes(fit, "Days", by=True, target="new_group").iloc[0]
    assert found["se"] ** 2 == pytest.approx(fit.vcov().loc["Days", "Days"] + fit.covariances[0][1, 1], rel=1e-7)


def test_slope_through_a_logarithm_and_an_interaction(mixed: ClassicalFit) -> None:
    beta, V = mixed.fixef(), mixed.vcov()
    table = bl.slopes(mixed, "x", newdata="balanced", by="f").set_index("f")
    at = frame()["x"].mean()
    for level, terms in {"a": ["log(x)"], "c": ["log(x)", "fc:log(x)"]}.items():
        assert table.loc[level, "estimate"] == pytest.approx(beta[terms].sum() / at, rel=1e-7)
        assert table.loc[level, "se"] == pytest.approx(np.sqrt(V.loc[terms, terms].to_numpy().sum()) / at, rel=1e-6)


def test_slope_through_splines_and_polynomials_is_the_derivative_of_predictions() -> None:
    fit = bl.lmer("y ~ ns(x, df = 3) + poly(s, 2) + (1 | g)", frame())
    at = pd.DataFrame({"x": [2.0, 5.0, 11.0], "s": [0.5, -1.0, 0.0]})
    for name in ("x", "s"):
        step = 1e-3
        up, down = (fit.predict(at.assign(**{name: at[name] + h}), target="average_group")["estimate"] for h in (step, -step))
        found = bl.slopes(fit, name, newdata=at)["estimate"]
        np.testing.assert_allclose(found, (up - down) / (2 * step), rtol=1e-5)


def test_degrees_of_freedom(mixed: ClassicalFit) -> None:
    x = bl.comparisons(mixed, {"f": "sequential"}, by=True)
    roger = bl.comparisons(mixed, {"f": "sequential"}, by=True, ddf="kenward-roger")
    normal = bl.comparisons(mixed, {"f": "sequential"}, by=True, ddf="asymptotic")
    assert np.isinf(normal["df"]).all()
    assert (roger["df"] > 1.0).all()
    assert (roger["se"] > x["se"] * 0.999).all()
    np.testing.assert_allclose(normal["p_value"], 2 * stats.norm.sf(np.abs(normal["estimate"] / normal["se"])), rtol=1e-9)
    np.testing.assert_allclose(x["upper"], x["estimate"] + stats.t.ppf(0.975, x["df"]) * x["se"], rtol=1e-9)


def test_balanced_grid_and_values() -> None:
    fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    table = bl.predictions(fit, "mean", {"Days": [0, 9]})
    beta = fit.fixef()
    np.testing.assert_allclose(table["estimate"], beta["(Intercept)"] + beta["Days"] * np.array([0.0, 9.0]))
    assert table["Days"].tolist() == [0.0, 9.0]
    assert bl.predictions(fit, "mean", "Days")["Days"].tolist() == [0.0, 2.0, 4.5, 7.0, 9.0]


def test_grids(mixed: ClassicalFit) -> None:
    data = frame()
    mean = bl.predictions(mixed, "mean").iloc[0]
    assert mean["x"] == pytest.approx(data["x"].mean())
    assert mean["f"] == data["f"].mode()[0]
    assert not mean["t"]
    assert bl.predictions(mixed, "median")["x"].item() == pytest.approx(data["x"].median())
    assert bl.predictions(mixed, "reference")["f"].item() == "a"
    balanced = bl.predictions(mixed, "balanced", {"f": ["c", "a"]})
    assert balanced["f"].tolist() == ["c", "a", "c", "a"]
    assert balanced["x"].nunique() == 1
    assert bl.predictions(mixed, "mean", target="conditional")["g"].item() == "g0"


def test_counterfactual_rows_and_means(mixed: ClassicalFit) -> None:
    table = bl.predictions(mixed, variables={"f": ["a", "c"], "x": 5})
    assert len(table) == 180
    assert table["f"].tolist() == ["a"] * 90 + ["c"] * 90
    means = bl.predictions(mixed, variables={"f": ["a", "c"]}, by="f")
    contrast = bl.comparisons(mixed, {"f": ("a", "c")}, by=True)
    assert contrast["contrast"].item() == "c - a"
    assert contrast["estimate"].item() == pytest.approx(means["estimate"][1] - means["estimate"][0], rel=1e-9)
    tested = bl.predictions(mixed, variables={"f": ["a", "c"]}, by="f", hypothesis="difference ~ reference")
    assert tested["hypothesis"].item() == "(c) - (a)"
    np.testing.assert_allclose(tested[["estimate", "se", "df"]], contrast[["estimate", "se", "df"]], rtol=1e-8)


def test_changes_together(mixed: ClassicalFit) -> None:
    data = frame()
    table = bl.comparisons(mixed, {"x": (2, 8), "f": "reference"}, by=True, cross=True)
    assert table["contrast_x"].tolist() == ["8 - 2", "8 - 2"]
    assert table["contrast_f"].tolist() == ["b - a", "c - a"]
    assert set(table["term"]) == {"cross"}
    high = mixed.predict(data.assign(x=8.0, f="c"), target="average_group")["estimate"]
    low = mixed.predict(data.assign(x=2.0, f="a"), target="average_group")["estimate"]
    assert table["estimate"][1] == pytest.approx((high - low).mean(), rel=1e-9)


def test_logical_columns_and_default_terms(mixed: ClassicalFit) -> None:
    table = bl.comparisons(mixed, by=True)
    assert table["term"].tolist() == ["f", "f", "x", "t"]
    assert table["contrast"].tolist() == ["b - a", "c - a", "+1", "TRUE - FALSE"]
    assert table["estimate"][3] == pytest.approx(mixed.fixef()["tTRUE"], rel=1e-9)
    sloped = bl.slopes(mixed, by=True)
    assert sloped["contrast"].tolist() == ["b - a", "c - a", "dY/dX", "TRUE - FALSE"]


def test_hypotheses(mixed: ClassicalFit) -> None:
    means = bl.predictions(mixed, "balanced", by="f")
    value = bl.predictions(mixed, "balanced", by="f", hypothesis=12.0)
    np.testing.assert_allclose(value["statistic"], (means["estimate"] - 12.0) / means["se"])
    named = bl.predictions(mixed, "balanced", by="f", hypothesis={"first": [1.0, -0.5, -0.5]})
    assert named["hypothesis"].tolist() == ["first"]
    assert named["estimate"].item() == pytest.approx(means["estimate"] @ [1.0, -0.5, -0.5])
    ratio = bl.predictions(mixed, "balanced", by="f", hypothesis="ratio ~ sequential")
    assert ratio["hypothesis"].tolist() == ["(b) / (a)", "(c) / (b)"]
    np.testing.assert_allclose(ratio["statistic"], (ratio["estimate"] - 1.0) / ratio["se"])


def test_offset_given_as_an_array() -> None:
    data = frame()
    shift = np.linspace(0.0, 5.0, 90)
    fit = bl.lmer("y ~ x + (1 | g)", data, offset=shift)
    np.testing.assert_allclose(bl.predictions(fit)["estimate"], fit.predict(target="average_group")["estimate"])
    assert bl.predictions(fit, "mean")["estimate"].item() == pytest.approx(fit.fixef() @ [1.0, data["x"].mean()] + shift.mean())
    with pytest.raises(DataError, match="offset was given as an array"):
        bl.predictions(fit, data)


def test_what_the_data_do_not_tell_is_nan() -> None:
    data = frame()
    data = data[~((data["f"] == "c") & data["t"])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        fit = bl.lmer("y ~ f * t + (1 | g)", data)
    assert fit.dropped
    with pytest.warns(BayesLmmWarning, match="1 of 6 values cannot be estimated"):
        cells = bl.predictions(fit, "balanced")
    assert cells.loc[cells["estimate"].isna(), ["f", "t"]].to_numpy().tolist() == [["c", True]]
    assert np.isfinite(bl.predictions(fit)["estimate"]).all()
    with pytest.warns(BayesLmmWarning, match="1 of 3 values cannot be estimated"):
        by_t = bl.comparisons(fit, "t", newdata="balanced", by="f").set_index("f")
    assert np.isnan(by_t.loc["c", "estimate"])
    assert by_t.loc["a", "estimate"] == pytest.approx(fit.fixef()["tTRUE"])


def test_rows_with_a_missing_predictor_are_nan(mixed: ClassicalFit) -> None:
    new = frame().head(3)
    new.loc[1, "x"] = np.nan
    table = bl.predictions(mixed, new)
    assert table[["estimate", "se", "p_value"]].isna().all(axis=1).tolist() == [False, True, False]


def test_a_fit_that_does_not_know_its_error_has_estimates_only() -> None:
    fit = FakeFit(bl.model("y ~ x + (1 | g)", frame()))
    table = bl.comparisons(fit, by=True)
    assert list(table.columns) == ["term", "contrast", "estimate"]


# Through a link --------------------------------------------------------------------------------------------------------


def expit_mean(eta: float, sd: float) -> float:
    value, _ = integrate.quad(lambda u: expit(eta + sd * u) * stats.norm.pdf(u), -9, 9)
    return float(value)


def test_population_is_averaged_over_the_groups_and_its_error_is_that_of_the_delta_method() -> None:
    fit = generalised()
    rows = pd.DataFrame({"x": [1.0, 9.0], "f": ["a", "c"]})
    X, V = fit.model.design.encoder.encode_new(rows, random=False).X, fit.vcov().to_numpy()
    table = bl.predictions(fit, rows, target="population")
    for i in range(2):
        assert table["estimate"][i] == pytest.approx(expit_mean(float(X[i] @ fit.beta), 1.2), rel=1e-6)
        step = 1e-5
        slope = np.array(
            [
                (expit_mean(float(X[i] @ (fit.beta + h)), 1.2) - expit_mean(float(X[i] @ (fit.beta - h)), 1.2)) / (2 * step)
                for h in step * np.eye(len(fit.beta))
            ]
        )
        assert table["se"][i] == pytest.approx(np.sqrt(slope @ V @ slope), rel=1e-5)
    assert np.isinf(table["df"]).all()


QUESTIONS: list[tuple[Any, dict[str, Any]]] = [
    (bl.predictions, {"by": "f"}),
    (bl.predictions, {"by": "f", "hypothesis": "lnor ~ pairwise"}),
    (bl.comparisons, {"variables": "x", "comparison": "lnor"}),
    (bl.comparisons, {"variables": "x", "comparison": "lift", "by": "f"}),
    (bl.comparisons, {"variables": {"x": "sd", "f": "all"}, "comparison": "ratio", "cross": True, "by": True}),
    (bl.slopes, {"variables": "x", "slope": "eyex", "by": True}),
    (bl.slopes, {"variables": "x", "slope": "eydx"}),
]


@pytest.mark.parametrize("target", ["average_group", "population"])
@pytest.mark.parametrize(("verb", "options"), QUESTIONS)
def test_errors_are_those_of_numeric_derivatives(verb: Any, options: dict[str, Any], target: str) -> None:
    from dataclasses import replace

    fit = generalised()
    step, V = 1e-4, fit.vcov().to_numpy()
    moved = [
        [verb(replace(fit, beta=fit.beta + sign * h), target=target, **options)["estimate"].to_numpy() for sign in (1.0, -1.0)]
        for h in step * np.eye(len(fit.beta))
    ]
    J = np.array([(up - down) / (2 * step) for up, down in moved]).T
    table = verb(fit, target=target, **options)
    np.testing.assert_allclose(table["se"], np.sqrt(np.einsum("mp,pq,mq->m", J, V, J)), rtol=1e-5)


def test_limits_of_predictions_are_made_on_the_scale_of_the_link() -> None:
    fit = generalised()
    response, link = bl.predictions(fit), bl.predictions(fit, scale="link")
    np.testing.assert_allclose(response["lower"], expit(link["lower"]), rtol=1e-9)
    np.testing.assert_allclose(response["upper"], expit(link["upper"]), rtol=1e-9)
    np.testing.assert_allclose(response["statistic"], link["statistic"], rtol=1e-9)
    mean = bl.predictions(fit, by=True).iloc[0]
    half = 1.959963984540054 * mean["se"] / (mean["estimate"] * (1 - mean["estimate"]))
    assert mean["upper"] == pytest.approx(expit(logit(mean["estimate"]) + half), rel=1e-9)


def test_groups_own_predictions_of_a_generalised_fit() -> None:
    fit = bl.glmer("d ~ x + (1 | g)", frame(), "bernoulli")
    rows, theirs = bl.predictions(fit, target="conditional"), fit.predict(target="conditional", interval="confidence")
    np.testing.assert_allclose(rows[COUNTS], theirs[COUNTS], rtol=1e-5)
    design, mu = fit.model.design, rows["estimate"].to_numpy()
    mean = bl.predictions(fit, by=True, target="conditional").iloc[0]
    slope = mu * (1.0 - mu)
    error = dense_error(fit, (slope[:, None] * design.X).mean(axis=0), (slope[:, None] * design.Z.toarray()).mean(axis=0))
    assert mean["estimate"] == pytest.approx(mu.mean())
    assert mean["se"] == pytest.approx(np.sqrt(error), rel=1e-6)
    population = bl.predictions(fit, target="population")
    np.testing.assert_allclose(population[COUNTS[:2]], fit.predict(target="population", interval="confidence")[COUNTS[:2]], rtol=1e-5)


def test_what_a_generalised_fit_cannot_have() -> None:
    with pytest.raises(FitError, match="use target='population'"):
        bl.predictions(generalised(), target="new_group")
    assert np.isfinite(bl.predictions(generalised(), target="new_group", scale="link")["se"]).all()
    with pytest.raises(FitError, match="normal tests"):
        bl.predictions(generalised(), ddf="satterthwaite")


# Posteriors ------------------------------------------------------------------------------------------------------------


def by_hand(draws: np.ndarray, null: float | None = None, prob: float = 0.95) -> dict[str, float]:
    lower, upper = np.quantile(draws, [0.5 - prob / 2, 0.5 + prob / 2])
    found = {"estimate": draws.mean(), "se": draws.std(ddof=1), "lower": lower, "upper": upper}
    return found if null is None else found | {"p_direction": max((draws > null).mean(), (draws < null).mean())}


def same(row: pd.Series, expected: dict[str, float]) -> None:
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, rel=1e-8), name


def test_posterior_of_predictions_and_averages(posterior: FakePosterior) -> None:
    draws, X = posterior.draws(), posterior.model.design.X
    eta = draws.b @ X.T
    table = bl.predictions(posterior)
    assert [name for name in table.columns if name in (*COUNTS, "df", "p_value", "p_direction")] == COUNTS
    same(table.iloc[7], by_hand(eta[:, 7]))
    same(bl.predictions(posterior, by=True, prob=0.8).iloc[0], by_hand(eta.mean(axis=1), prob=0.8))
    inside = (frame()["f"] == "b").to_numpy()
    same(bl.predictions(posterior, by="f", hypothesis=14.0).iloc[1], by_hand(eta[:, inside].mean(axis=1), 14.0))


def test_posterior_of_the_groups_own_predictions(posterior: FakePosterior) -> None:
    draws, design = posterior.draws(), posterior.model.design
    block = design.blocks[0]
    eta = draws.b @ design.X.T + np.einsum("snk,nk->sn", draws.effects[0][:, block.index], block.values)
    same(bl.predictions(posterior, target="conditional").iloc[3], by_hand(eta[:, 3]))
    same(bl.predictions(posterior, by=True, target="conditional").iloc[0], by_hand(eta.mean(axis=1)))


def test_posterior_of_a_slope_and_a_contrast(posterior: FakePosterior) -> None:
    b = pd.DataFrame(posterior.draws().b, columns=list(posterior.model.design.fixed_names))
    slope = bl.slopes(posterior, "x", by="f").set_index("f")
    same(slope.loc["c"], by_hand((b["x"] + b["fc:x"]).to_numpy(), 0.0))
    x = frame()["x"].mean()
    contrast = bl.comparisons(posterior, {"f": "pairwise"}, by=True).set_index("contrast")
    same(contrast.loc["c - b"], by_hand((b["fc"] - b["fb"] + x * (b["fc:x"] - b["fb:x"])).to_numpy(), 0.0))


def test_posterior_of_a_new_group_has_one_group_for_all_rows(posterior: FakePosterior) -> None:
    rows = pd.DataFrame({"x": [1.0, 1.0], "f": ["a", "a"], "t": [False, False], "s": [0.0, 2.0]})
    table = bl.predictions(posterior, rows, target="new_group", seed=4)
    sd = np.sqrt(posterior.draws().covariance[0][:, 0, 0].mean())
    assert table["se"][0] == pytest.approx(sd, rel=0.35)
    assert table["se"][1] > 1.5 * table["se"][0]
    pd.testing.assert_frame_equal(table, bl.predictions(posterior, rows, target="new_group", seed=4))
    nothing = bl.comparisons(posterior, "x", newdata=rows, target="new_group", seed=4)
    same(nothing.iloc[0], by_hand(posterior.draws().b[:, posterior.model.design.fixed_names.index("x")], 0.0))


def test_posterior_through_a_link() -> None:
    fit = Logistic(bl.model("d ~ x + f + (1 | g)", frame(), "bernoulli"))
    draws, data = fit.draws(), frame()

    def p(**values: Any) -> np.ndarray:
        X = fit.model.design.encoder.encode_new(data.assign(**values), random=False).X
        return np.asarray(expit(draws.b @ X.T))

    ratio = bl.comparisons(fit, "f", by=True, comparison="ratio").set_index("contrast")
    same(ratio.loc["c / a"], by_hand(p(f="c").mean(axis=1) / p(f="a").mean(axis=1), 1.0))
    odds = bl.comparisons(fit, {"x": 2}, comparison="lnor").iloc[5]
    assert odds["contrast"] == "+2"
    same(odds, by_hand(2 * draws.b[:, 1], 0.0))
    rowwise = bl.slopes(fit, "x").iloc[11]
    mu = p()[:, 11]
    assert rowwise["estimate"] == pytest.approx((mu * (1 - mu) * draws.b[:, 1]).mean(), rel=1e-6)
    spread = np.sqrt(draws.covariance[0][:, 0, 0])
    population = bl.predictions(fit, target="population").iloc[2]
    eta = draws.b @ fit.model.design.X[2]
    assert population["estimate"] == pytest.approx(np.mean([expit_mean(*pair) for pair in zip(eta, spread, strict=True)]), rel=1e-5)


def test_the_mean_of_a_response_with_more_zeros() -> None:
    class Counts(Logistic):
        def draws(self) -> Draws:
            found = super().draws()
            return Draws(b=found.b, effects=found.effects, covariance=found.covariance, aux={"zi": np.linspace(0.1, 0.6, 200)})

    fit = Counts(bl.model("w ~ s + (1 | g)", frame(), "zero_inflated_poisson"))
    draws = fit.draws()
    mu = (1.0 - draws.aux["zi"])[:, None] * np.exp(draws.b @ fit.model.design.X.T)
    same(bl.predictions(fit, by=True).iloc[0], by_hand(mu.mean(axis=1)))
    ratio = bl.comparisons(fit, "s", comparison="lnratio").iloc[0]
    same(ratio, by_hand(draws.b[:, 1], 0.0))


def test_many_draws_are_taken_some_at_a_time(posterior: FakePosterior, monkeypatch: pytest.MonkeyPatch) -> None:
    from bayeslmm.effects import quantities, tables

    whole = [bl.comparisons(posterior, "x"), bl.predictions(posterior, by="f"), bl.slopes(posterior, "x", slope="eyex")]
    monkeypatch.setattr(quantities, "_CHUNK", 1000)
    monkeypatch.setattr(tables, "_AT_ONCE", 2000)
    pieces = [bl.comparisons(posterior, "x"), bl.predictions(posterior, by="f"), bl.slopes(posterior, "x", slope="eyex")]
    for one, other in zip(whole, pieces, strict=True):
        pd.testing.assert_frame_equal(one, other)


# Refusals --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda fit: bl.predictions(fit, "meen"), FitError, "newdata is a frame or one of"),
        (lambda fit: bl.predictions(fit, variables={"xx": 1}), DataError, "'xx' is no predictor of the model; did you mean 'x'"),
        (lambda fit: bl.predictions(fit, variables={"f": ["d"]}), DataError, "'f' has no value 'd'"),
        (lambda fit: bl.predictions(fit, variables={"x": ["b"]}), DataError, "holds numbers"),
        (lambda fit: bl.predictions(fit, variables={"x": []}), DataError, "no value of 'x'"),
        (lambda fit: bl.predictions(fit, variables={"g": ["g1"]}), DataError, "'g' is no predictor"),
        (lambda fit: bl.predictions(fit, variables=3), DataError, "variables is a dict"),
        (lambda fit: bl.predictions(fit, by="ff"), DataError, "by: the rows have no column 'ff'; did you mean 'f'"),
        (lambda fit: bl.predictions(fit, by=3), DataError, "by is True"),
        (lambda fit: bl.predictions(fit, by="estimate"), DataError, "rename"),
        (lambda fit: bl.predictions(fit, target="group"), FitError, "target must be one of"),
        (lambda fit: bl.predictions(fit, scale="log"), FitError, "scale must be one of"),
        (lambda fit: bl.predictions(fit, prob=1.0), FitError, "prob must lie"),
        (lambda fit: bl.predictions(fit, ddf="kr"), FitError, "unknown ddf"),
        (lambda fit: bl.predictions(fit, by=True, wts="nobody"), DataError, "no column 'nobody'"),
        (lambda fit: bl.predictions(fit, by=True, wts=[1.0]), DataError, "one for each of the 90 rows"),
        (lambda fit: bl.predictions(fit, by=True, wts=np.zeros(90)), DataError, "nothing to average"),
        (lambda fit: bl.predictions(fit, by="f", hypothesis="difference ~ pairs"), FitError, "unknown set of pairs 'pairs'"),
        (lambda fit: bl.predictions(fit, by="f", hypothesis="diff ~ pairwise"), FitError, "unknown comparison 'diff'"),
        (lambda fit: bl.predictions(fit, by="f", hypothesis={"a": [1, 2]}), DataError, "needs 3 finite coefficients"),
        (lambda fit: bl.predictions(fit, by="f", hypothesis=True), FitError, "hypothesis is a number"),
        (lambda fit: bl.predictions(fit, frame().drop(columns="x")), DataError, "x"),
        (lambda fit: bl.predictions(fit, frame().assign(g="new"), target="conditional"), DataError, "new"),
        (lambda fit: bl.comparisons(fit, comparison="lnrr"), FitError, "unknown comparison 'lnrr'"),
        (lambda fit: bl.comparisons(fit, comparison="lnor"), FitError, "predictions that are probabilities"),
        (lambda fit: bl.comparisons(fit, {"x": "sdd"}), FitError, "unknown change 'sdd' of 'x'; did you mean 'sd'"),
        (lambda fit: bl.comparisons(fit, {"f": "pairs"}), FitError, "unknown set of pairs"),
        (lambda fit: bl.comparisons(fit, {"f": ["a", "b", "c"]}), DataError, "a pair"),
        (lambda fit: bl.comparisons(fit, {"x": (1, 2, 3)}), DataError, "a pair"),
        (lambda fit: bl.comparisons(fit, {"x": np.nan}), DataError, "no finite"),
        (lambda fit: bl.slopes(fit, slope="dxdy"), FitError, "unknown slope 'dxdy'"),
        (lambda fit: bl.slopes(fit, "f", slope="eyex"), FitError, "no elasticity"),
        (lambda fit: bl.slopes(fit, {"x": 1}), DataError, "names of predictors"),
        (lambda fit: bl.predictions(fit, ddf="kenward-roger", target="conditional"), FitError, "fixed effects alone"),
    ],
)
def test_what_cannot_be_is_refused(mixed: ClassicalFit, call: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call(mixed)


def test_a_posterior_has_no_degrees_of_freedom(posterior: FakePosterior) -> None:
    with pytest.raises(FitError, match="ddf is of classical fits"):
        bl.predictions(posterior, ddf="satterthwaite")


def test_a_model_without_predictors_has_nothing_to_compare() -> None:
    fit = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))
    assert bl.predictions(fit, by=True)["estimate"].item() == pytest.approx(fit.fixef().item())
    for verb in (bl.comparisons, bl.slopes):
        with pytest.raises(DataError, match="no predictor"):
            verb(fit)
