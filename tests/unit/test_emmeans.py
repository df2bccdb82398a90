"""Marginal means: the grid, what is estimable, adjustments in closed form, and posteriors against hand computation on their draws."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import bayeslmm as bl
from bayeslmm.effects.adjust import TestFamily, adjusted
from bayeslmm.effects.contrasts import contrast_set
from bayeslmm.effects.grid import reference_grid
from bayeslmm.errors import BayesLmmWarning, DataError, FitError
from bayeslmm.fit import Draws
from tests.unit.fakes import FakePosterior

NUMBERS = ["estimate", "se", "df", "lower", "upper"]


def frame(seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = 90
    data = pd.DataFrame(
        {
            "f": pd.Categorical(rng.choice(["a", "b", "c"], n), categories=["a", "b", "c", "unused"]),
            "h": rng.choice(["low", "mid-1"], n),
            "x": rng.gamma(3.0, 2.0, n),
            "two": rng.choice([10.0, 20.0], n),
            "t": rng.random(n) < 0.4,
            "s": rng.normal(size=n),
            "g": [f"g{i % 9}" for i in range(n)],
        }
    )
    effect = rng.normal(size=9)[np.arange(n) % 9]
    data["y"] = data["x"] + data["f"].cat.codes + 2.0 * (data["h"] == "low") + effect + rng.normal(size=n)
    return data


def posterior(formula: str, data: pd.DataFrame | None = None) -> FakePosterior:
    return FakePosterior(bl.model(formula, frame() if data is None else data), sd=1.0, sigma=1.0)


def fitted(formula: str, data: pd.DataFrame | None = None, **options: Any) -> bl.ClassicalFit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        return bl.lmer(formula, frame() if data is None else data, **options)


# The grid --------------------------------------------------------------------------------------------------------------


def test_grid_of_each_kind_of_column() -> None:
    data = frame()
    grid = reference_grid(bl.model("y ~ f * x + h + two + t + (s | g)", data))
    values = {axis.name: axis.values for axis in grid.axes}
    assert values == {
        "f": ("a", "b", "c"),
        "x": (pytest.approx(data["x"].mean()),),
        "h": ("low", "mid-1"),
        "two": (10.0, 20.0),
        "t": (False, True),
    }
    assert grid.X.shape == (24, 9)
    np.testing.assert_array_equal(grid.X[:3, 1:3], [[0, 0], [1, 0], [0, 1]])


def test_grid_takes_transforms_at_the_mean_of_the_column() -> None:
    data = frame()
    grid = reference_grid(bl.model("y ~ log(x) + scale(s) + (1 | g)", data))
    np.testing.assert_allclose(grid.X, [[1.0, math.log(data["x"].mean()), 0.0]], atol=1e-12)


def test_grid_of_numbers_in_factor_and_in_comparisons() -> None:
    data = frame().assign(k=np.arange(90) % 4)
    assert reference_grid(bl.model("y ~ factor(k) + (1 | g)", data)).axis("k").values == (0, 1, 2, 3)
    assert reference_grid(bl.model("y ~ (k > 1) + (1 | g)", data)).axis("k").values == (pytest.approx(data["k"].mean()),)


def test_grid_uses_the_rows_of_the_fit() -> None:
    data = frame()
    data.loc[data["f"] == "c", "x"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        grid = reference_grid(bl.model("y ~ f + x + (1 | g)", data))
    assert grid.axis("f").values == ("a", "b")
    assert grid.axis("x").values == (pytest.approx(data["x"].mean()),)


def test_at_replaces_values_in_its_order() -> None:
    fit = posterior("y ~ f * x + (1 | g)")
    table = bl.emmeans(fit, ["f", "x"], at={"f": ["c", "a"], "x": [1, 5.5]})
    assert table["f"].tolist() == ["c", "a", "c", "a"]
    assert table["x"].tolist() == [1.0, 1.0, 5.5, 5.5]
    b = fit.draws().b[:, [fit.model.design.fixed_names.index(name) for name in ("(Intercept)", "fc", "x", "fc:x")]]
    assert table["estimate"][2] == pytest.approx((b @ [1.0, 1.0, 5.5, 5.5]).mean())


def test_a_product_too_large_is_refused() -> None:
    with pytest.raises(DataError, match="at="):
        reference_grid(bl.model("y ~ x + s + (1 | g)", frame()), {"x": np.arange(400.0), "s": np.arange(400.0)})


# Posteriors ------------------------------------------------------------------------------------------------------------


def test_posterior_means_by_hand() -> None:
    fit = posterior("y ~ f * h + x + (1 | g)")
    b = pd.DataFrame(fit.draws().b, columns=list(fit.model.design.fixed_names))
    x = frame()["x"].mean()
    level_b = b["(Intercept)"] + b["fb"] + x * b["x"] + 0.5 * (b["hmid-1"] + b["fb:hmid-1"])
    table = bl.emmeans(fit, "f", level=0.9)
    assert list(table.columns) == ["f", "estimate", "se", "lower", "upper"]
    row = table[table["f"] == "b"].iloc[0]
    expected = [level_b.mean(), level_b.std(), level_b.quantile(0.05), level_b.quantile(0.95)]
    np.testing.assert_allclose(row[["estimate", "se", "lower", "upper"]].to_numpy(dtype=float), expected)


def test_posterior_contrasts_by_hand() -> None:
    fit = posterior("y ~ f * h + (1 | g)")
    b = pd.DataFrame(fit.draws().b, columns=list(fit.model.design.fixed_names))
    table = bl.emmeans(fit, "revpairwise ~ f | h")
    assert table["contrast"].tolist() == ["b - a", "c - a", "c - b"] * 2
    assert table["h"].tolist() == ["low"] * 3 + ["mid-1"] * 3
    difference = b["fc"] + b["fc:hmid-1"] - b["fb"] - b["fb:hmid-1"]
    assert table["estimate"][5] == pytest.approx(difference.mean())
    assert table["p_direction"][5] == pytest.approx(max((difference > 0).mean(), (difference < 0).mean()))


@dataclass(frozen=True)
class LogitPosterior(FakePosterior):
    """Draws of a logistic model, chosen by hand."""

    def draws(self) -> Draws:
        rng = np.random.default_rng(3)
        b = rng.normal(0.3, 0.4, size=(500, self.model.design.p))
        return Draws(b=b, effects=(), covariance=(), aux={})


def test_response_scale_of_a_logit_link() -> None:
    data = frame()
    data["z"] = (data["y"] > data["y"].median()).astype(int)
    fit = LogitPosterior(bl.model("z ~ f + (1 | g)", data, family="bernoulli"))
    b = fit.draws().b
    table = bl.emmeans(fit, "f", scale="response")
    p = 1.0 / (1.0 + np.exp(-(b[:, 0] + b[:, 1])))
    np.testing.assert_allclose(table.loc[1, ["estimate", "se"]].to_numpy(dtype=float), [p.mean(), p.std(ddof=1)])
    odds = bl.emmeans(fit, "f", contrast="pairwise", scale="response")
    assert odds["contrast"].tolist() == ["a / b", "a / c", "b / c"]
    ratio = np.exp(-b[:, 1])
    np.testing.assert_allclose(odds["estimate"][0], ratio.mean())
    assert odds["p_direction"][0] == pytest.approx((b[:, 1] > 0).mean())
    on_link = bl.emmeans(fit, "f", contrast="pairwise")
    assert on_link["estimate"][0] == pytest.approx(-b[:, 1].mean())
    with pytest.raises(FitError, match="response scale"):
        bl.emmeans(fit, "f", contrast={"sum": [1, 1, 1]}, scale="response")


# Classical fits --------------------------------------------------------------------------------------------------------


def test_balanced_means_are_the_cells() -> None:
    data = bl.load_dataset("Penicillin")
    table = bl.emmeans(bl.lmer("diameter ~ sample + (1 | plate)", data), "sample", ddf="asymptotic")
    cells = data.groupby("sample", observed=True)["diameter"].mean()
    assert table["sample"].tolist() == cells.index.tolist()
    np.testing.assert_allclose(table["estimate"], cells.to_numpy(), rtol=1e-9)


@pytest.mark.parametrize("coding", ["treatment", "sum", "helmert", "poly", "SAS"])
def test_means_do_not_depend_on_the_coding(coding: str) -> None:
    usual, other = fitted("y ~ f * h + x + (1 | g)"), fitted("y ~ f * h + x + (1 | g)", contrasts={"f": coding, "h": "sum"})
    for question in ({"specs": "f"}, {"specs": "pairwise ~ f | h"}, {"specs": "h", "contrast": "eff"}):
        first, second = bl.emmeans(usual, **question), bl.emmeans(other, **question)
        assert first.columns.equals(second.columns)
        numbers = [name for name in first.columns if name in (*NUMBERS, "statistic", "p_value")]
        np.testing.assert_allclose(first[numbers], second[numbers], rtol=1e-5)


def test_means_do_not_depend_on_the_order_of_rows_or_columns() -> None:
    data = frame()
    first = bl.emmeans(fitted("y ~ f + h + x + (1 | g)", data), "f")
    second = bl.emmeans(fitted("y ~ x + h + f + (1 | g)", data.iloc[::-1]), "f")
    np.testing.assert_allclose(first[NUMBERS], second[NUMBERS], rtol=1e-6)


def test_contrast_of_two_levels_is_the_coefficient() -> None:
    fit = fitted("y ~ f + h + x + (1 | g)")
    row = bl.emmeans(fit, "h", contrast="revpairwise", ddf="satterthwaite").iloc[0]
    coefficient = fit.coefficients().loc["hmid-1"]
    assert row["contrast"] == "(mid-1) - low"
    np.testing.assert_allclose(
        row[["estimate", "se", "df", "statistic", "p_value"]].to_numpy(dtype=float), coefficient.to_numpy(), rtol=1e-9
    )


def test_offset_given_as_an_array_enters_at_its_mean() -> None:
    data = frame()
    data["o"] = np.linspace(0.0, 3.0, len(data)) ** 2
    named, array = (fitted("y ~ f + (1 | g)", data, offset=given) for given in ("o", data["o"].to_numpy()))
    inside = fitted("y ~ f + offset(o) + (1 | g)", data)
    for fit in (named, array):
        np.testing.assert_allclose(bl.emmeans(fit, "f")[NUMBERS], bl.emmeans(inside, "f")[NUMBERS], rtol=1e-7)


def test_an_empty_cell_leaves_its_means_unknown() -> None:
    data = frame()
    data = data[~((data["f"] == "b") & (data["h"] == "low"))]
    fit = fitted("y ~ f * h + x + (1 | g)", data)
    assert fit.dropped
    with pytest.warns(BayesLmmWarning, match="not_estimable"):
        table = bl.emmeans(fit, ["f", "h"])
    unknown = (table["f"] == "b") & (table["h"] == "low")
    assert table.loc[unknown, NUMBERS].isna().all(axis=None)
    assert table.loc[~unknown, NUMBERS].notna().all(axis=None)
    with pytest.warns(BayesLmmWarning, match="not_estimable"):
        pairs = bl.emmeans(fit, "f", contrast="pairwise")
    assert pairs["estimate"].isna().tolist() == [True, False, True]
    assert pairs["p_value"].isna().tolist() == [True, False, True]


def test_what_data_say_does_not_depend_on_units() -> None:
    data = frame()
    data = data[~((data["f"] == "b") & (data["h"] == "low"))].assign(x=lambda d: 1e7 * d["x"])
    with pytest.warns(BayesLmmWarning, match="not_estimable"):
        table = bl.emmeans(fitted("y ~ f * h + x + (1 | g)", data), ["f", "h"])
    assert int(table["estimate"].isna().sum()) == 1


def test_ml_keeps_its_estimates_under_kenward_roger() -> None:
    fit = fitted("y ~ f + x + (1 | g)", reml=False)
    with pytest.warns(BayesLmmWarning, match="refitted_reml"):
        table = bl.emmeans(fit, "f")
    np.testing.assert_allclose(table["estimate"], bl.emmeans(fit, "f", ddf="asymptotic")["estimate"])


def test_many_rows_are_asymptotic_by_default() -> None:
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"f": rng.choice(["a", "b"], 3200), "g": np.arange(3200) % 40, "y": rng.normal(size=3200)})
    fit = fitted("y ~ f + (1 | g)", data)
    with pytest.warns(BayesLmmWarning, match="asymptotic"):
        table = bl.emmeans(fit, "f")
    assert np.isinf(table["df"]).all()


def test_notes_say_what_was_done() -> None:
    table = bl.emmeans(fitted("y ~ f * h + x + (1 | g)"), "f", contrast="pairwise")
    assert table.attrs["notes"] == [
        "averaged over the levels of: h",
        "may mislead: these columns interact with those averaged over",
        "degrees of freedom: kenward-roger",
        "adjusted: tukey",
        "intervals: 95 %",
    ]


# Contrasts and adjustments ---------------------------------------------------------------------------------------------


def test_polynomials_of_the_old_tables() -> None:
    weights = contrast_set("poly", ["1", "2", "3", "4", "5", "6"]).weights
    assert weights[:3].tolist() == [[-5, -3, -1, 1, 3, 5], [5, -1, -4, -4, -1, 5], [-5, 7, 4, -4, -7, 5]]


def test_a_matrix_is_one_row_a_contrast() -> None:
    fit = fitted("y ~ f + (1 | g)")
    table = bl.emmeans(fit, "f", contrast=[[1, -1, 0], [0.5, 0.5, -1]], adjust="none")
    pairs = bl.emmeans(fit, "f", contrast="pairwise", adjust="none")
    assert table["contrast"].tolist() == ["c1", "c2"]
    np.testing.assert_allclose(table.loc[0, "p_value"], pairs.loc[0, "p_value"])
    np.testing.assert_allclose(table.loc[1, "estimate"], pairs.loc[1:2, "estimate"].mean())


def family(statistic: list[float], df: float, correlation: np.ndarray | None = None, pairs: bool = False) -> TestFamily:
    n = len(statistic)
    return TestFamily(np.array(statistic), np.full(n, df), np.eye(n) if correlation is None else correlation, n + 1, pairs)


def test_mvt_of_independent_normal_tests_is_sidak() -> None:
    tests = family([1.0, 2.2, -3.0], np.inf)
    mvt, sidak = adjusted(tests, "mvt", 0.95), adjusted(tests, "sidak", 0.95)
    np.testing.assert_allclose(mvt[0], sidak[0], rtol=1e-3)
    np.testing.assert_allclose(mvt[1], sidak[1], rtol=1e-4)


def test_mvt_of_one_test_twice_is_that_test() -> None:
    tests = family([1.7, -1.7], 8.0, np.array([[1.0, -1.0], [-1.0, 1.0]]))
    np.testing.assert_allclose(adjusted(tests, "mvt", 0.95)[0], 2.0 * stats.t.sf(1.7, 8.0), rtol=1e-9)


@pytest.mark.parametrize("name", ["none", "tukey", "dunnettx", "mvt", "sidak", "bonferroni"])
@pytest.mark.parametrize("df", [4.5, 30.0, np.inf])
def test_intervals_leave_out_zero_where_tests_reject(name: str, df: float) -> None:
    critical = adjusted(family([1.0, 2.0, 3.0], df, pairs=True), name, 0.9)[1]
    at_limit = adjusted(family(critical.tolist(), df, pairs=True), name, 0.9)[0]
    np.testing.assert_allclose(at_limit, 0.1, rtol=1e-6)


def test_tukey_of_two_means_is_the_t_test() -> None:
    tests = TestFamily(np.array([2.1, 2.1]), np.array([9.0, 9.0]), np.eye(2), 2, True)
    np.testing.assert_allclose(adjusted(tests, "tukey", 0.95)[0], 2.0 * stats.t.sf(2.1, 9.0), rtol=1e-7)


def test_tukey_is_sidak_where_there_are_not_all_pairs() -> None:
    tests = family([1.0, 2.0], 12.0)
    assert adjusted(tests, "tukey", 0.95)[2] == "sidak"
    np.testing.assert_allclose(adjusted(tests, "tukey", 0.95)[0], 1.0 - (1.0 - tests.plain) ** 2)


def test_step_methods_by_hand() -> None:
    p = np.array([0.01, 0.04, 0.03, 0.2])
    tests = family(stats.norm.isf(p / 2.0).tolist(), np.inf)
    np.testing.assert_allclose(adjusted(tests, "holm", 0.95)[0], [0.04, 0.09, 0.09, 0.2])
    np.testing.assert_allclose(adjusted(tests, "fdr", 0.95)[0], [0.04, 4 * 0.04 / 3, 4 * 0.04 / 3, 0.2])


@pytest.mark.parametrize("name", ["none", "tukey", "dunnettx", "mvt", "sidak", "bonferroni", "holm", "fdr"])
def test_a_test_that_cannot_be_made_is_nan_and_the_rest_stay(name: str) -> None:
    correlation = np.array([[1.0, np.nan, 0.3], [np.nan, np.nan, np.nan], [0.3, np.nan, 1.0]])
    tests = family([1.0, float("nan"), 2.0], 10.0, correlation, pairs=True)
    p_values, critical, _ = adjusted(tests, name, 0.95)
    assert np.isnan(p_values).tolist() == [False, True, False]
    assert np.isnan(critical).tolist() == [False, True, False]


# Refusals --------------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[Callable[[Any], Any], type[Exception], str]] = [
    (lambda fit: bl.emmeans(fit, "ff"), DataError, "did you mean 'f'"),
    (lambda fit: bl.emmeans(fit, "f", by="g"), DataError, "'g' is no column of the model's fixed part"),
    (lambda fit: bl.emmeans(fit, "f", contrast="pairs"), FitError, "did you mean 'pairwise'"),
    (lambda fit: bl.emmeans(fit, "f", contrast={"d": [1, -1]}), DataError, "needs 3 finite coefficients"),
    (lambda fit: bl.emmeans(fit, "f", contrast={}), DataError, "empty"),
    (lambda fit: bl.emmeans(fit, "f", contrast={"d": "abc"}), DataError, "must be numbers"),
    (lambda fit: bl.emmeans(fit, "x", contrast="pairwise"), DataError, "one mean only"),
    (lambda fit: bl.emmeans(fit, [], contrast="eff"), DataError, "one mean only"),
    (lambda fit: bl.emmeans(fit, "f", adjust="tuckey"), FitError, "did you mean 'tukey'"),
    (lambda fit: bl.emmeans(fit, "f", ddf="kr"), FitError, "unknown ddf"),
    (lambda fit: bl.emmeans(fit, "f", scale="log"), FitError, "unknown scale"),
    (lambda fit: bl.emmeans(fit, "f", level=95), FitError, "level"),
    (lambda fit: bl.emmeans(fit, "f", at={"f": ["z"]}), DataError, "no level 'z'"),
    (lambda fit: bl.emmeans(fit, "f", at={"x": ["many"]}), DataError, "finite numbers"),
    (lambda fit: bl.emmeans(fit, "f", at={"x": []}), DataError, "no value of 'x'"),
    (lambda fit: bl.emmeans(fit, "f", at={"w": 1}), DataError, "'w' is no column"),
    (lambda fit: bl.emmeans(fit, "f", at=3), DataError, "at is a dict"),
    (lambda fit: bl.emmeans(fit, "pairwise ~ f", contrast="eff"), DataError, "give one of them"),
    (lambda fit: bl.emmeans(fit, "~ f | x", by="x"), DataError, "give one of them"),
    (lambda fit: bl.emmeans(fit, [3]), DataError, "column's name"),
]


@pytest.mark.parametrize(("call", "error", "words"), REFUSED)
def test_refusals(call: Callable[[Any], Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call(posterior("y ~ f + x + (1 | g)"))


@pytest.mark.parametrize("option", [{"adjust": "tukey"}, {"ddf": "satterthwaite"}])
def test_a_posterior_has_no_tests(option: dict[str, str]) -> None:
    with pytest.raises(FitError, match="posterior"):
        bl.emmeans(posterior("y ~ f + (1 | g)"), "f", **option)


def test_overall_mean() -> None:
    fit = fitted("y ~ f + (1 | g)")
    table = bl.emmeans(fit, "~ 1")
    assert table["estimate"].tolist() == [pytest.approx(bl.emmeans(fit, "f")["estimate"].mean())]


def test_a_model_without_fixed_effects_has_a_mean_of_zero() -> None:
    assert bl.emmeans(fitted("y ~ 0 + (1 | g)"), [])["estimate"].tolist() == [0.0]


def test_a_linear_model_has_its_residual_degrees_of_freedom() -> None:
    data = frame()
    assert bl.emmeans(fitted("y ~ f + x", data), "f")["df"].tolist() == [len(data) - 4] * 3
