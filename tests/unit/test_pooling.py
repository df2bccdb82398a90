"""Pooling: what is undefined, closed forms of pooling factors and intervals, both engines, several factors, figures, errors."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import polars as pl
import pytest

import bayeslmm as bl
from bayeslmm.effects.pooling_fits import determined, independent
from bayeslmm.errors import FitError

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLmmWarning")

FORMULA = "reaction ~ days + (days | subject)"
KINDS = ("lines", "shrinkage", "topographic", "caterpillar")


@cache
def lectures() -> pd.DataFrame:
    return bl.load_dataset("sleepstudy183")


@cache
def reml() -> bl.Fit:
    return bl.lmer(FORMULA, lectures())


@cache
def posterior() -> bl.Fit:
    return bl.brm(FORMULA, lectures(), chains=2, draws=250, tune=250, seed=5, sampler="collapsed", progressbar=False)


@cache
def both() -> bl.Pooling:
    return bl.pooling(bl.compare(reml(), posterior()))


def of(pooling: bl.Pooling, method: str, column: str = "estimate") -> pd.DataFrame:
    rows = pooling.table[pooling.table["method"] == method]
    return rows.pivot(index="level", columns="term", values=column)[list(pooling.terms)]


def grouped(rows: int = 6, groups: int = 8, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    n = rows * groups
    g = np.repeat(np.arange(groups), rows)
    frame = pd.DataFrame({"g": [f"no. {k} é|:" for k in g], "x": rng.normal(size=n), "age": (20.0 + g * 3.0)})
    frame["w"] = rng.uniform(0.5, 2.0, n)
    frame["o"] = rng.normal(size=n)
    frame["y"] = 1.0 + frame["x"] + 0.1 * frame["age"] + frame["o"] + rng.normal(size=groups)[g] + rng.normal(size=n)
    return frame


# --------------------------------------------------------------------------------------------------------------------- the table


def test_the_table_has_its_columns_and_a_row_for_each_level_term_and_method():
    table = both().table
    assert table.columns.tolist() == ["group", "level", "term", "method", "estimate", "lower", "upper", "n_obs", "pooling_factor"]
    assert len(table) == 20 * 2 * 4
    assert table["method"].unique().tolist() == ["complete", "none", "partial_reml", "partial_posterior"]
    assert table.groupby("level")["n_obs"].unique().map(lambda one: one.tolist()).to_dict() == {
        level: [{"373": 1, "374": 2}.get(level, 10)] for level in table["level"].unique()
    }


def test_a_level_of_one_row_has_no_slope_and_of_two_no_interval():
    none = of(both(), "none")
    assert none.loc["373", "(Intercept)"] == pytest.approx(245.0)
    assert np.isnan(none.loc["373", "days"])
    assert none.drop("373").notna().all(axis=None)
    assert of(both(), "none", "lower").loc[["373", "374"]].isna().all(axis=None)
    assert both().undefined[["level", "term", "method"]].values.tolist() == [["373", "days", "none"]]
    assert "its one row does not determine it" in str(both())


def test_one_row_away_from_zero_determines_nothing():
    data = lectures().assign(days=lectures()["days"] + 5)
    none = of(bl.pooling(bl.lmer(FORMULA, data)), "none")
    assert none.loc["373"].isna().all()


def test_determined_and_independent_against_ranks():
    rng = np.random.default_rng(1)
    for _ in range(40):
        X = rng.integers(-1, 2, size=(rng.integers(1, 5), 4)).astype(float)
        rank = np.linalg.matrix_rank(X)
        rest = [np.linalg.matrix_rank(np.delete(X, k, axis=1)) for k in range(4)]
        assert determined(X).tolist() == [rank > one for one in rest]
        first = [k for k in range(4) if np.linalg.matrix_rank(X[:, : k + 1]) > (np.linalg.matrix_rank(X[:, :k]) if k else 0)]
        assert independent(X).tolist() == first


def test_weights_and_offset_count_in_each_groups_fit():
    data = grouped()
    pooling = bl.pooling(bl.lmer("y ~ x + (x | g)", data, weights="w", offset="o"))
    for level, part in data.groupby("g"):
        root = np.sqrt(part["w"].to_numpy())
        X = np.column_stack([np.ones(len(part)), part["x"]]) * root[:, None]
        expected = np.linalg.lstsq(X, (part["y"] - part["o"]).to_numpy() * root)[0]
        np.testing.assert_allclose(of(pooling, "none").loc[level], expected, rtol=1e-9)


def test_a_predictor_of_groups_is_held_at_the_fits_estimate():
    data = grouped()
    fit = bl.lmer("y ~ age + x + (1 | g)", data)
    pooling = bl.pooling(fit)
    none = of(pooling, "none")
    assert none["age"].isna().all()
    assert pooling.undefined["reason"].str.contains("held at the fit").all()
    for level, part in data.groupby("g"):
        X = np.column_stack([np.ones(len(part)), part["x"]])
        expected = np.linalg.lstsq(X, (part["y"] - fit.fixef()["age"] * part["age"]).to_numpy())[0]
        np.testing.assert_allclose(none.loc[level, ["(Intercept)", "x"]], expected, rtol=1e-9)


def test_a_term_without_random_effect_is_pooled_completely_and_one_without_fixed_part_has_no_complete_pooling():
    data = bl.load_dataset("sleepstudy")
    intercepts = bl.pooling(bl.lmer("Reaction ~ Days + (1 | Subject)", data))
    assert (of(intercepts, "partial_reml", "pooling_factor")["Days"] == 1.0).all()
    slopes = bl.pooling(bl.lmer("Reaction ~ 1 + (0 + Days | Subject)", data))
    assert slopes.terms == ("(Intercept)", "Days")
    assert of(slopes, "complete")["Days"].isna().all()
    assert of(slopes, "none").notna().all(axis=None)


def test_a_separated_level_is_undefined_and_named():
    pooling = bl.pooling(bl.glmer("cbind(incidence, size - incidence) ~ 1 + (1 | herd)", bl.load_dataset("cbpp")))
    data = bl.load_dataset("cbpp").groupby("herd", observed=True)[["incidence", "size"]].sum()
    share = data["incidence"] / data["size"]
    expected = np.log(share / (1.0 - share)).where(share > 0.0)
    np.testing.assert_allclose(of(pooling, "none")["(Intercept)"].reindex(expected.index), expected, rtol=1e-6)
    assert set(pooling.undefined["level"]) == set(share.index[share == 0.0].astype(str))


def test_ordered_responses_have_complete_and_partial_pooling():
    data = grouped()
    data["rank"] = pd.cut(data["y"], 3, labels=["low", "mid", "high"])
    pooling = bl.pooling(bl.glmer("rank ~ x + (1 | g)", data, "cumulative"))
    assert of(pooling, "none").isna().all(axis=None)
    assert np.isfinite(of(pooling, "complete")["x"]).all()
    assert pooling.undefined["reason"].str.contains("thresholds").any()


def test_frames_of_polars_and_dropped_columns_are_as_others():
    data = grouped()
    ours = bl.pooling(bl.lmer("y ~ x + twice + (x | g)", pl.from_pandas(data.assign(twice=2 * data["x"]))))
    theirs = bl.pooling(bl.lmer("y ~ x + (x | g)", data))
    pd.testing.assert_frame_equal(ours.table, theirs.table)


# ------------------------------------------------------------------------------------------------------------- partial pooling


def test_partial_pooling_is_coef_of_both_engines():
    for method, fit in (("partial_reml", reml()), ("partial_posterior", posterior())):
        ours = of(both(), method)
        np.testing.assert_allclose(ours, fit.coef()["subject"].loc[ours.index], rtol=1e-10)


def test_intervals_of_partial_pooling_are_those_of_hendersons_equations():
    fit, design = reml(), reml().model.design
    Z = design.Z.toarray()
    precision = np.kron(np.eye(20), np.linalg.inv(fit.covariances[0] / fit.sigma**2))
    W = np.hstack([design.X, Z])
    left = W.T @ W
    left[2:, 2:] += precision
    error = fit.sigma**2 * np.linalg.inv(left)
    lower, upper = of(both(), "partial_reml", "lower"), of(both(), "partial_reml", "upper")
    for position, level in enumerate(design.blocks[0].levels):
        for k, term in enumerate(("(Intercept)", "days")):
            weight = np.zeros(42)
            weight[[k, 2 + 2 * position + k]] = 1.0
            half = 1.959963984540054 * np.sqrt(weight @ error @ weight)
            assert (upper - lower).loc[level, term] == pytest.approx(2.0 * half, rel=1e-8)


def test_intervals_of_a_posterior_are_quantiles_of_its_draws():
    draws, levels = posterior().draws(), posterior().model.design.blocks[0].levels
    values = draws.b[:, 1] + draws.effects[0][:, levels.index("374"), 1]
    expected = np.quantile(values, [0.025, 0.975])
    row = both().table.query("level == '374' and term == 'days' and method == 'partial_posterior'").iloc[0]
    np.testing.assert_allclose([row["lower"], row["upper"]], expected)


def test_factors_of_a_balanced_design_have_a_closed_form_at_each_draw():
    data = bl.load_dataset("Dyestuff")
    fit = bl.brm("Yield ~ 1 + (1 | Batch)", data, chains=2, draws=150, tune=150, seed=1, sampler="collapsed", progressbar=False)
    pooling, draws = bl.pooling(fit), fit.draws()
    noise = draws.aux["sigma"] ** 2 / 5.0
    ratio = noise / (noise + draws.covariance[0][:, 0, 0])
    rows = pooling.factors[pooling.factors["level"] != "(all)"]
    np.testing.assert_allclose(rows["pooling_factor"], ratio.mean(), rtol=1e-9)
    np.testing.assert_allclose(rows[["lower", "upper"]].iloc[0], np.quantile(ratio, [0.025, 0.975]), rtol=1e-9)
    effects = draws.effects[0][:, :, 0]
    whole = 1.0 - effects.mean(axis=0).var(ddof=1) / effects.var(axis=1, ddof=1).mean()
    assert pooling.factors.set_index("level").at["(all)", "pooling_factor"] == pytest.approx(whole)


def test_factors_grow_where_rows_are_few_and_are_one_without_variance():
    factor = of(both(), "partial_reml", "pooling_factor")
    assert (factor.loc["373"] > factor.loc["374"]).all()
    assert (factor.loc["374"] > factor.drop(["373", "374"]).max()).all()
    with pytest.warns(bl.SingularFitWarning):
        flat = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2"))
    pooling = bl.pooling(flat)
    assert (pooling.factors["pooling_factor"] == 1.0).all()
    assert pooling.sds.set_index("method").at["partial_reml", "sd"] == pytest.approx(0.0, abs=1e-12)


def test_sds_are_over_the_levels_that_all_methods_have():
    sds = both().sds.set_index(["term", "method"])
    assert sds.loc["days", "n_levels"].eq(19).all()
    own = of(both(), "none")["days"].drop("373")
    assert sds.at[("days", "none"), "sd"] == pytest.approx(own.std(ddof=1))
    assert sds.at[("days", "partial_reml"), "population_sd"] == pytest.approx(5.918867, abs=1e-4)


def test_the_first_fit_of_each_engine_is_taken_and_a_factor_can_be_chosen():
    fit = bl.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", bl.load_dataset("Penicillin"))
    ml = bl.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", bl.load_dataset("Penicillin"), reml=False)
    assert bl.pooling(fit).group == "plate"
    pooling = bl.pooling(bl.compare(fit, ml), "sample")
    assert pooling.fits == {"partial_reml": fit}
    means = bl.load_dataset("Penicillin").groupby("sample", observed=True)["diameter"].mean()
    np.testing.assert_allclose(of(pooling, "none")["(Intercept)"], means, rtol=1e-10)
    np.testing.assert_allclose(of(pooling, "partial_reml"), fit.coef()["sample"], rtol=1e-10)


# ------------------------------------------------------------------------------------------------------------------------ figures


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_of_both_engines_has_data_and_a_text(kind):
    picture = both().plot(kind)
    assert len(picture.alt) > 60
    assert len(picture.data)
    assert set(both().fits) <= set(picture.data["method"])
    assert picture.svg().startswith("<?xml")


@pytest.mark.parametrize("kind", ["lines", "shrinkage", "caterpillar"])
@pytest.mark.parametrize(
    ("formula", "data", "family"),
    [
        ("cbind(incidence, size - incidence) ~ period + (1 | herd)", "cbpp", "binomial"),
        ("strength ~ 1 + (1 | batch/cask)", "Pastes", "gaussian"),
        ("Reaction ~ 1 + (0 + Days | Subject)", "sleepstudy", "gaussian"),
    ],
)
def test_figures_of_other_models(kind, formula, data, family):
    fit = bl.lmer(formula, bl.load_dataset(data)) if family == "gaussian" else bl.glmer(formula, bl.load_dataset(data), family)
    picture = bl.pooling(fit).plot(kind)
    assert len(picture.alt) > 60
    assert len(picture.data)


def test_lines_are_the_coefficients_and_an_undefined_one_is_not_drawn():
    data = both().plot("lines").data
    ends = data[data["days"] == 9.0].set_index(["level", "method"])["estimate"]
    for level, method in (("308", "none"), ("374", "partial_reml"), ("374", "partial_posterior"), ("308", "complete")):
        intercept, slope = of(both(), method).loc[level]
        assert ends[level, method] == pytest.approx(intercept + 9.0 * slope, rel=5e-3 if method == "partial_posterior" else 1e-9)
    assert np.isnan(ends["373", "none"])


def test_lines_of_a_held_predictor_use_the_levels_own_value():
    data = grouped()
    fit = bl.lmer("y ~ age + x + (1 | g)", data)
    pooling = bl.pooling(fit)
    line = pooling.plot("lines", x="x").data.query("method == 'none'")
    for level, part in line.groupby("level"):
        intercept, _, slope = of(pooling, "none").loc[level]
        age = data.loc[data["g"] == level, "age"].iloc[0]
        np.testing.assert_allclose(part["estimate"], intercept + fit.fixef()["age"] * age + slope * part["x"], rtol=1e-9)


def test_contours_hold_what_they_say():
    data = both().plot("topographic").data.query("kind == 'contour' and method == 'partial_reml' and probability == 0.5")
    gap = data[["(Intercept)", "days"]].to_numpy() - reml().fixef().to_numpy()
    distance = np.einsum("ni,ij,nj->n", gap, np.linalg.inv(reml().covariances[0]), gap)
    np.testing.assert_allclose(distance, 2.0 * np.log(2.0), rtol=1e-9)


# ------------------------------------------------------------------------------------------------------------------------- errors


def test_errors_say_what_is_there():
    with pytest.raises(FitError, match="no grouping factor 'subjct'; did you mean 'subject'"):
        bl.pooling(reml(), "subjct")
    with pytest.raises(FitError, match="no random effects"):
        bl.pooling(bl.lmer("reaction ~ days", lectures()))
    with pytest.raises(FitError, match="takes a fit or a comparison"):
        bl.pooling(lectures())
    with pytest.raises(FitError, match="prob must lie"):
        bl.pooling(reml(), prob=95)
    with pytest.raises(FitError, match="no term 'day'"):
        both().wide("day")
    with pytest.raises(FitError, match="no figure of kind 'line'"):
        both().plot("line")
    with pytest.raises(FitError, match="no option 'term'"):
        both().plot("shrinkage", term="days")
    with pytest.raises(FitError, match="no column 'day'"):
        both().plot("lines", x="day")
    with pytest.raises(FitError, match="two effects"):
        bl.pooling(bl.lmer("reaction ~ days + (1 | subject)", lectures())).plot("topographic")
