"""`anova`: hypotheses of terms against cell means and model comparisons, likelihood ratios against their definition, refusals."""

from __future__ import annotations

import warnings
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2
from scipy.stats import f as f_distribution

import bayeslmm as bl
from bayeslmm.classical.anova import LRT_COLUMNS, TERM_COLUMNS
from bayeslmm.classical.terms import term_contrasts
from bayeslmm.errors import BayesLmmWarning, FitError


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Unbalanced two-way layout a (2) x b (3) with a covariate, in 12 groups."""
    rng = np.random.default_rng(2)
    n = 120
    a, b, g = rng.integers(2, size=n), rng.integers(3, size=n), rng.integers(12, size=n)
    x = rng.normal(size=n)
    y = 0.5 * a + 0.3 * b * (a == 1) + 0.4 * x * (b == 2) + rng.normal(size=12)[g] + rng.normal(size=12)[g] * x + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "a": [f"a{i}" for i in a], "b": [f"b{i}" for i in b], "g": [f"g{i:02d}" for i in g]})


# -------------------------------------------------------------------------------------------------------------------- hypotheses


def span(L: np.ndarray) -> np.ndarray:
    """The projection onto the rows' span: two sets of contrasts are the same hypothesis where these are equal."""
    return np.asarray(np.linalg.pinv(L) @ L)


def test_type_three_compares_unweighted_cell_means(frame: pd.DataFrame) -> None:
    model = bl.model("y ~ a * b + (1 | g)", frame)
    cells = pd.DataFrame([(i, j) for i in ("a0", "a1") for j in ("b0", "b1", "b2")], columns=["a", "b"])
    X = model.design.encoder.encode_new(cells, random=False).X
    means = {level: X[cells["a"] == level].mean(axis=0) for level in ("a0", "a1")}
    others = {level: X[cells["b"] == level].mean(axis=0) for level in ("b0", "b1", "b2")}
    found = term_contrasts(model, 3)
    np.testing.assert_allclose(span(found["a"]), span((means["a1"] - means["a0"])[None, :]), atol=1e-10)
    wanted = np.array([others["b1"] - others["b0"], others["b2"] - others["b0"]])
    np.testing.assert_allclose(span(found["b"]), span(wanted), atol=1e-10)
    np.testing.assert_allclose(span(found["a:b"]), np.diag([0.0, 0, 0, 0, 1, 1]), atol=1e-10)


def test_type_three_averages_slopes_over_the_levels(frame: pd.DataFrame) -> None:
    found = term_contrasts(bl.model("y ~ b * x + (1 | g)", frame), 3)
    np.testing.assert_allclose(span(found["x"]), span(np.array([[0, 0, 0, 1, 1 / 3, 1 / 3]])), atol=1e-10)
    np.testing.assert_allclose(span(found["b"]), np.diag([0.0, 1, 1, 0, 0, 0]), atol=1e-10)


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_linear_model_tests_are_those_of_sums_of_squares(frame: pd.DataFrame, kind: int) -> None:
    """Without random effects: F of a term is the drop in residual sum of squares when it enters, after what its type says."""
    table = bl.anova(bl.lmer("y ~ a * b", frame), type=kind)

    def rss(*columns: np.ndarray) -> float:
        X = np.column_stack(columns)
        return float(np.sum((frame["y"] - X @ np.linalg.lstsq(X, frame["y"].to_numpy())[0]) ** 2))

    # coding by sums to zero: with it, leaving out columns is the type III hypothesis
    one, a = np.ones(120), np.where(frame["a"] == "a0", 1.0, -1.0)
    b = np.stack([(frame["b"] == level).astype(float) - (frame["b"] == "b2") for level in ("b0", "b1")], axis=1)
    ab = a[:, None] * b
    drops = {
        1: [rss(one) - rss(one, a), rss(one, a) - rss(one, a, b), rss(one, a, b) - rss(one, a, b, ab)],
        2: [rss(one, b) - rss(one, a, b), rss(one, a) - rss(one, a, b), rss(one, a, b) - rss(one, a, b, ab)],
        3: [rss(one, b, ab) - rss(one, a, b, ab), rss(one, a, ab) - rss(one, a, b, ab), rss(one, a, b) - rss(one, a, b, ab)],
    }
    np.testing.assert_allclose(table["sum_sq"], drops[kind], rtol=1e-8)
    assert list(table["num_df"]) == [1, 2, 2]
    assert set(table["den_df"]) == {114.0}
    residual = rss(one, a, b, ab) / 114
    np.testing.assert_allclose(table["f_value"], np.array(drops[kind]) / [1, 2, 2] / residual, rtol=1e-8)
    np.testing.assert_allclose(table["p_value"], f_distribution.sf(table["f_value"], table["num_df"], 114), rtol=1e-8)


def test_single_coefficient_terms_are_the_squares_of_the_t_tests(frame: pd.DataFrame) -> None:
    fit = bl.lmer("y ~ x + a + (x | g)", frame)
    for ddf in ("satterthwaite", "kenward-roger"):
        table, t = bl.anova(fit, ddf=ddf), fit.coefficients(ddf)
        assert tuple(table.columns) == TERM_COLUMNS
        assert list(table.index) == ["x", "a"]
        np.testing.assert_allclose(table["den_df"], t["df"].iloc[1:])
        np.testing.assert_allclose(table["f_value"], t["statistic"].iloc[1:] ** 2)
        np.testing.assert_allclose(table["p_value"], t["p_value"].iloc[1:])


def test_a_term_without_columns_of_its_own_has_no_test(frame: pd.DataFrame) -> None:
    with pytest.warns(BayesLmmWarning, match="z"):
        fit = bl.lmer("y ~ x + z + (1 | g)", frame.assign(z=2.0 * frame["x"]))
    for kind in (1, 2, 3):
        table = bl.anova(fit, type=kind)
        assert table.loc["z"].isna().all()
        assert table.loc["x"].notna().all()


def test_a_model_of_the_mean_alone_has_no_terms(frame: pd.DataFrame) -> None:
    assert bl.anova(bl.lmer("y ~ 1 + (1 | g)", frame)).empty


def test_units_of_a_covariate_do_not_matter(frame: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        small, large = (bl.lmer("y ~ b * x + (1 | g)", frame.assign(x=frame["x"] * factor)) for factor in (1e-8, 1e8))
    for kind in (1, 2, 3):
        one, two = bl.anova(small, type=kind), bl.anova(large, type=kind)
        np.testing.assert_allclose(one["f_value"], two["f_value"], rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------- likelihood ratios


def test_likelihood_ratios(frame: pd.DataFrame) -> None:
    fits = [bl.lmer(text, frame, reml=False) for text in ("y ~ x + (x | g)", "y ~ x", "y ~ x + (1 | g)")]
    table = bl.anova(*fits)
    assert tuple(table.columns) == LRT_COLUMNS
    assert list(table.index) == ["y ~ x", "y ~ x + (1 | g)", "y ~ x + (x | g)"]
    assert list(table["n_parameters"]) == [3, 4, 6]
    deviance = [fits[1].criterion, fits[2].criterion, fits[0].criterion]
    np.testing.assert_allclose(table["deviance"], deviance)
    np.testing.assert_allclose(table["chisq"].iloc[1:], -np.diff(deviance))
    np.testing.assert_allclose(table["p_value"].iloc[1:], chi2.sf(-np.diff(deviance), [1, 2]))
    np.testing.assert_allclose(table["bic"], np.array(deviance) + np.log(120) * table["n_parameters"])


def test_reml_fits_are_fitted_again_and_it_says_so(frame: pd.DataFrame) -> None:
    texts = ("y ~ 1 + (1 | g)", "y ~ x + (1 | g)")
    with pytest.warns(BayesLmmWarning, match="2 of 2 models fitted again by ML"):
        table = bl.anova(*(bl.lmer(text, frame) for text in texts))
    pd.testing.assert_frame_equal(table, bl.anova(*(bl.lmer(text, frame, reml=False) for text in texts)))


def test_reml_likelihoods_as_they_are(frame: pd.DataFrame) -> None:
    small, large = bl.lmer("y ~ x", frame), bl.lmer("y ~ x + (1 | g)", frame)
    table = bl.anova(small, large, refit=False)
    assert table["chisq"].iloc[1] == pytest.approx(small.criterion - large.criterion)
    with pytest.raises(FitError, match="different fixed effects"):
        bl.anova(small, bl.lmer("y ~ 1 + (1 | g)", frame), refit=False)
    with pytest.raises(FitError, match="some of the fits"):
        bl.anova(small, bl.lmer("y ~ x + (1 | g)", frame, reml=False), refit=False)


def test_equal_numbers_of_parameters_have_no_test(frame: pd.DataFrame) -> None:
    fit = bl.lmer("y ~ x + (1 | g)", frame, reml=False)
    table = bl.anova(fit, fit)
    assert list(table.index) == ["y ~ x + (1 | g) (1)", "y ~ x + (1 | g) (2)"]
    assert np.isnan(table["p_value"].iloc[1])


def test_refusals(frame: pd.DataFrame) -> None:
    fit = bl.lmer("y ~ x + (1 | g)", frame, reml=False)
    with pytest.raises(FitError, match="different rows"):
        bl.anova(fit, bl.lmer("y ~ x", frame.iloc[:-1], reml=False))
    with pytest.raises(FitError, match="different responses"):
        bl.anova(fit, bl.lmer("x ~ 1", frame, reml=False))
    with pytest.raises(FitError, match="different responses"):
        bl.anova(fit, bl.lmer("y ~ x", frame.assign(y=frame["y"] + 1.0), reml=False))
    with pytest.raises(FitError, match="unknown type of test 4"):
        bl.anova(fit, type=4)
    with pytest.raises(FitError, match="unknown ddf"):
        bl.anova(fit, ddf="none at all")
    with pytest.raises(FitError, match="needs a fit"):
        bl.anova()
    with pytest.raises(FitError, match="compare posteriors"):
        bl.anova(fit, cast(Any, SimpleNamespace(method="NUTS")))
