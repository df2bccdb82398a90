"""`lmer` and its fit: laws that need no reference, and the refusals."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from bayeslmm.classical import ClassicalFit, lmer, refit
from bayeslmm.datasets import load_dataset
from bayeslmm.errors import BayesLmmError, ConvergenceWarning, DataError, FitError, SingularFitWarning
from bayeslmm.fit import ESTIMATES_COLUMNS, TIDY_COLUMNS, Fit
from bayeslmm.formula import formula
from bayeslmm.model import model

SLOPES = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep() -> pd.DataFrame:
    return load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def fit(sleep: pd.DataFrame) -> ClassicalFit:
    return lmer(SLOPES, sleep)


# ---------------------------------------------------------------------------------------------------------------- equivariance


def test_order_of_rows_does_not_matter(sleep: pd.DataFrame, fit: ClassicalFit) -> None:
    again = lmer(SLOPES, sleep.sample(frac=1.0, random_state=1))
    assert again.criterion == pytest.approx(fit.criterion, rel=1e-12)
    np.testing.assert_allclose(again.theta, fit.theta, rtol=1e-6)
    pd.testing.assert_series_equal(again.fitted().sort_index(), fit.fitted(), rtol=1e-7)


def test_names_of_groups_do_not_matter(sleep: pd.DataFrame, fit: ClassicalFit) -> None:
    renamed = sleep.assign(Subject=sleep["Subject"].astype(str).map(lambda name: f"{1000 - int(name)}"))
    again = lmer(SLOPES, renamed)
    assert again.criterion == pytest.approx(fit.criterion, rel=1e-12)
    np.testing.assert_allclose(np.sort(again.ranef()["Subject"]["Days"]), np.sort(fit.ranef()["Subject"]["Days"]), rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-100, 1e-6, 1e6, 1e100])
def test_scale_of_the_response(sleep: pd.DataFrame, fit: ClassicalFit, scale: float) -> None:
    again = lmer(SLOPES, sleep.assign(Reaction=sleep["Reaction"] * scale))
    np.testing.assert_allclose(again.theta, fit.theta, rtol=1e-7)
    np.testing.assert_allclose(again.fixef(), fit.fixef() * scale, rtol=1e-9)
    assert again.sigma == pytest.approx(fit.sigma * scale, rel=1e-9)
    assert again.criterion == pytest.approx(fit.criterion + 2 * (180 - 2) * np.log(scale), rel=1e-10)


@pytest.mark.parametrize(("scale", "shift"), [(1e8, 0.0), (1e-8, 0.0), (1.0, 2000.0), (-3.0, 50.0)])
def test_scale_and_origin_of_a_predictor(sleep: pd.DataFrame, fit: ClassicalFit, scale: float, shift: float) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = lmer(SLOPES, sleep.assign(Days=sleep["Days"] * scale + shift))
    assert [str(warning.message)[:14] for warning in caught] == ["[badly_scaled]"] * int(abs(np.log10(abs(scale))) > 7)
    assert again.criterion == pytest.approx(fit.criterion - 2 * np.log(abs(1 / scale)), rel=1e-9)
    np.testing.assert_allclose(again.fitted(), fit.fitted(), rtol=1e-6)
    assert again.fixef()["Days"] == pytest.approx(fit.fixef()["Days"] / scale, rel=1e-7)
    sd = again.varcorr().set_index("term1").loc["Days", "sdcor"]
    assert sd == pytest.approx(fit.varcorr().set_index("term1").loc["Days", "sdcor"] / abs(scale), rel=1e-5)
    assert again.converged


def test_large_constant_in_the_response(sleep: pd.DataFrame, fit: ClassicalFit) -> None:
    again = lmer(SLOPES, sleep.assign(Reaction=sleep["Reaction"] + 1e9))
    np.testing.assert_allclose(again.theta, fit.theta, rtol=1e-3)
    assert again.fixef()["Days"] == pytest.approx(fit.fixef()["Days"], rel=1e-6)


def test_a_balanced_one_way_layout_has_the_anova_estimates() -> None:
    data = load_dataset("Dyestuff")
    fit = lmer("Yield ~ 1 + (1 | Batch)", data)
    means = data.groupby("Batch", observed=True)["Yield"].mean()
    between = 5 * means.var(ddof=1)
    within = data.groupby("Batch", observed=True)["Yield"].var(ddof=1).mean()
    assert fit.sigma**2 == pytest.approx(within, rel=1e-8)
    assert fit.varcorr()["vcov"][0] == pytest.approx((between - within) / 5, rel=1e-8)
    assert fit.fixef()["(Intercept)"] == pytest.approx(data["Yield"].mean(), rel=1e-12)


def test_double_weights_are_two_half_variances(sleep: pd.DataFrame, fit: ClassicalFit) -> None:
    again = lmer(SLOPES, sleep.assign(w=2.0), weights="w")
    assert again.sigma == pytest.approx(fit.sigma * np.sqrt(2), rel=1e-8)
    np.testing.assert_allclose(again.theta, fit.theta / np.sqrt(2), rtol=1e-6)
    assert again.loglik == pytest.approx(fit.loglik, rel=1e-10)


def test_offset_moves_the_response(sleep: pd.DataFrame, fit: ClassicalFit) -> None:
    again = lmer(SLOPES, sleep.assign(Reaction=sleep["Reaction"] + 7.0 * sleep["Days"], shift=7.0 * sleep["Days"]), offset="shift")
    np.testing.assert_allclose(again.fixef(), fit.fixef(), rtol=1e-8)


# -------------------------------------------------------------------------------------------------------------- without groups


@pytest.mark.parametrize("reml", [True, False])
def test_no_random_term_is_least_squares(sleep: pd.DataFrame, reml: bool) -> None:
    fit = lmer("Reaction ~ Days", sleep, reml=reml)
    X = np.column_stack([np.ones(180), sleep["Days"]])
    beta, rss = np.linalg.lstsq(X, sleep["Reaction"], rcond=None)[:2]
    df = 178 if reml else 180
    extra = np.linalg.slogdet(X.T @ X)[1] if reml else 0.0
    np.testing.assert_allclose(fit.fixef(), beta, rtol=1e-10)
    assert fit.sigma == pytest.approx(np.sqrt(rss[0] / 178), rel=1e-10)
    assert fit.criterion == pytest.approx(df * (1 + np.log(2 * np.pi * rss[0] / df)) + extra, rel=1e-12)
    assert fit.df_residual == 178
    assert fit.converged
    assert fit.ranef() == {}
    assert fit.diagnose().ok
    assert "Linear model" in str(fit.summary())


# -------------------------------------------------------------------------------------------------------------------- the tables


def test_fulfils_the_protocol(fit: ClassicalFit) -> None:
    assert isinstance(fit, Fit)
    assert fit.method == "REML"
    assert fit.convergence == "converged"


def test_estimates(fit: ClassicalFit) -> None:
    table = fit.estimates
    assert tuple(table.columns) == ESTIMATES_COLUMNS
    assert list(table["part"]) == ["fixed", "fixed", "sd", "sd", "cor", "aux"]
    assert list(table["group"]) == ["", "", "Subject", "Subject", "Subject", ""]
    assert list(table["term"]) == ["(Intercept)", "Days", "(Intercept)", "Days", "Days.(Intercept)", "sigma"]
    fixed = table[table["part"] == "fixed"]
    np.testing.assert_allclose(fixed["upper"] - fixed["estimate"], 1.959963984540054 * fixed["se"], rtol=1e-12)
    assert table.loc[table["part"] != "fixed", ["se", "lower", "upper"]].isna().all().all()


def test_coef_is_fixed_plus_random(fit: ClassicalFit) -> None:
    expected = fit.ranef()["Subject"] + fit.fixef()
    pd.testing.assert_frame_equal(fit.coef()["Subject"][["(Intercept)", "Days"]], expected[["(Intercept)", "Days"]])


def test_coef_without_a_fixed_part_has_the_effect_first(sleep: pd.DataFrame) -> None:
    fit = lmer("Reaction ~ 1 + (Days | Subject)", sleep)
    assert list(fit.coef()["Subject"].columns) == ["Days", "(Intercept)"]
    np.testing.assert_allclose(fit.coef()["Subject"]["Days"], fit.ranef()["Subject"]["Days"])


def test_terms_of_one_factor_are_side_by_side(sleep: pd.DataFrame) -> None:
    fit = lmer("Reaction ~ Days + (Days || Subject)", sleep)
    assert list(fit.ranef()["Subject"].columns) == ["(Intercept)", "Days"]
    assert list(fit.varcorr()["group"]) == ["Subject", "Subject.1", "Residual"]
    assert fit.condvar["Subject"].shape == (18, 2, 2)
    assert set(fit.estimates.query("part == 'sd'")["group"]) == {"Subject"}


def test_fitted_and_residuals_add_up(sleep: pd.DataFrame, fit: ClassicalFit) -> None:
    np.testing.assert_allclose(fit.fitted() + fit.residuals(), sleep["Reaction"], rtol=1e-14)
    np.testing.assert_allclose(fit.residuals("scaled") * fit.sigma, fit.residuals("pearson"))
    assert fit.fitted().index.equals(sleep.index)
    with pytest.raises(FitError, match="did you mean 'pearson'"):
        fit.residuals("person")


def test_coefficients(fit: ClassicalFit) -> None:
    table = fit.coefficients("none")
    assert list(table.columns) == ["estimate", "se", "df", "statistic", "p_value"]
    np.testing.assert_allclose(table["statistic"], table["estimate"] / table["se"])
    assert table[["df", "p_value"]].isna().all(axis=None)
    with pytest.raises(FitError, match="unknown ddf"):
        fit.coefficients("kr")


def test_tidy(fit: ClassicalFit) -> None:
    table = fit.tidy()
    assert list(table["effect"]) == ["fixed"] * 2 + ["ran_pars"] * 4
    assert list(table["term"])[2:] == ["sd__(Intercept)", "sd__Days", "cor__(Intercept).Days", "sd__Observation"]
    assert list(table["group"]) == ["", "", "Subject", "Subject", "Subject", "Residual"]
    np.testing.assert_allclose(table["statistic"][:2], fit.coefficients("none")["statistic"])
    np.testing.assert_allclose(table[["conf_low", "conf_high"]][:2], fit.estimates[["lower", "upper"]][:2])
    assert len(fit.tidy("ran_vals")) == 36
    for effects in ("fixed", "ran_pars", "ran_vals", "ran_coefs"):
        assert list(fit.tidy(effects).columns) == list(TIDY_COLUMNS)
    assert fit.tidy("ran_coefs")[["std_error", "statistic"]].isna().all(axis=None)
    with pytest.raises(FitError, match="unknown effects"):
        fit.tidy("random")


def test_glance_and_augment(sleep: pd.DataFrame, fit: ClassicalFit) -> None:
    row = fit.glance().iloc[0]
    assert row["nobs"] == 180
    assert row["reml_criterion"] == fit.criterion
    assert row["aic"] == pytest.approx(fit.criterion + 12)
    table = fit.augment()
    np.testing.assert_allclose(table[".fitted"] + table[".resid"], table["Reaction"])
    assert list(sleep.columns) == [name for name in table.columns if not name.startswith(".")]


def test_missing_rows_keep_the_index(sleep: pd.DataFrame) -> None:
    holes = sleep.assign(Reaction=sleep["Reaction"].where(sleep["Days"] != 3))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = lmer(SLOPES, holes)
    assert fit.nobs == 162
    assert not (fit.fitted().index % 10 == 3).any()
    assert "18 left out for missing values" in str(fit.summary())
    again = refit(fit, sleep["Reaction"])
    assert again.criterion == pytest.approx(fit.criterion, rel=1e-10)


def test_everything_is_read_only(fit: ClassicalFit) -> None:
    for array in (fit.theta, fit.beta, fit.effects[0], fit.unscaled_condvar["Subject"]):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0.0


# ------------------------------------------------------------------------------------------------------------------- verdicts


def test_singular_fit_is_exact_and_said() -> None:
    with pytest.warns(SingularFitWarning, match=r"\[singular\].* the variance of \(1 \| Batch\) is zero"):
        fit = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff2"))
    assert fit.theta[0] == 0.0
    assert fit.is_singular
    assert fit.convergence == "converged at the boundary"
    assert not fit.diagnose().ok
    assert [check.code for check in fit.diagnose().failed] == ["singular"]
    assert "boundary (singular) fit" in str(fit.summary())
    assert fit.sigma**2 == pytest.approx(load_dataset("Dyestuff2")["Yield"].var(ddof=1), rel=1e-10)
    assert (fit.ranef()["Batch"] == 0.0).all().all()


def test_flat_optimum_is_said() -> None:
    rng = np.random.default_rng(3)
    group = np.repeat(np.arange(20), 6)
    kind = np.where(group % 2, "a", "b")
    effect = rng.normal(size=20)[group] * np.where(group % 2, 3.0, 1.0)
    data = pd.DataFrame({"y": effect + rng.normal(size=120), "g": group.astype(str), "kind": kind})
    with pytest.warns(ConvergenceWarning, match=r"\[flat\]"):
        fit = lmer("y ~ kind + (0 + kind | g)", data)
    assert fit.convergence == "flat"
    assert {check.code for check in fit.diagnose().failed} == {"curvature"}


def test_few_levels_is_a_note(sleep: pd.DataFrame) -> None:
    few = sleep[sleep["Subject"].astype(str).isin(["308", "309", "310", "330"])]
    checks = {check.code: check for check in lmer("Reaction ~ Days + (1 | Subject)", few).diagnose()}
    assert not checks["few_levels"].passed
    assert checks["few_levels"].severity == "note"
    assert checks["gradient"].passed


def test_dropped_columns(sleep: pd.DataFrame) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = lmer("Reaction ~ Days + twice + (1 | Subject)", sleep.assign(twice=2 * sleep["Days"]))
    assert fit.dropped == ("twice",)
    assert list(fit.fixef().index) == ["(Intercept)", "Days"]
    assert "rank deficient so dropping 1 column / coefficient" in str(fit.summary())
    assert "rank_deficient" in {check.code for check in fit.diagnose().failed}


def test_restarts_find_the_better_of_two_optima() -> None:
    """Reaction times by half of the study: a search from lme4's start can end at 1789.2632 (see the reference's README)."""
    data = load_dataset("sleepstudy")
    data["late"] = pd.Categorical(np.where(data["Days"] >= 5, "TRUE", "FALSE"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = lmer("Reaction ~ late + (late || Subject)", data)
    assert fit.criterion == pytest.approx(1787.3205, abs=1e-3)


def test_summary_of_many_coefficients_has_no_correlations(sleep: pd.DataFrame) -> None:
    wide = sleep.assign(**{f"x{i}": np.random.default_rng(i).normal(size=180) for i in range(12)})
    many = lmer("Reaction ~ " + " + ".join(f"x{i}" for i in range(12)) + " + (1 | Subject)", wide)
    assert "Correlation of Fixed Effects" not in str(many.summary())


def test_summary_in_a_notebook(fit: ClassicalFit) -> None:
    page = fit.summary()._repr_html_()
    assert page.startswith("<pre>")
    assert "Linear mixed model fit by REML" in page
    assert repr(fit).startswith("<ClassicalFit Reaction ~ Days")


# -------------------------------------------------------------------------------------------------------------- verbs, refusals


def test_refit_to_the_same_response(sleep: pd.DataFrame, fit: ClassicalFit) -> None:
    again = refit(fit, sleep["Reaction"])
    assert again.criterion == pytest.approx(fit.criterion, rel=1e-12)
    np.testing.assert_allclose(again.theta, fit.theta, rtol=1e-6)


def test_refit_leaves_zero() -> None:
    """From a fit with a variance of zero, where the gradient vanishes, the search still finds another response's optimum."""
    with pytest.warns(SingularFitWarning):
        fit = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff2"))
    again = refit(fit, load_dataset("Dyestuff")["Yield"])
    assert again.criterion == pytest.approx(lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")).criterion, rel=1e-12)


@pytest.mark.parametrize(
    ("response", "message"), [([1.0, 2.0], "180 rows"), ([np.nan] * 180, "not finite"), (np.full(180, 3.0), "constant")]
)
def test_refit_refuses(fit: ClassicalFit, response: object, message: str) -> None:
    with pytest.raises(BayesLmmError, match=message):
        refit(fit, response)


def test_other_families_are_refused(sleep: pd.DataFrame) -> None:
    with pytest.raises(FitError, match="use `brm`"):
        lmer(model("Reaction ~ Days + (1 | Subject)", sleep, "student"))


def test_random_effects_of_sigma_are_refused(sleep: pd.DataFrame) -> None:
    with pytest.raises(FitError, match="sigma"):
        lmer(formula("Reaction ~ Days + (1 | Subject)", sigma="~ Days + (1 | Subject)"), sleep)


def test_groups_that_cannot_have_a_variance_are_refused(sleep: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="levels"):
        lmer("Reaction ~ Days + (1 | row)", sleep.assign(row=[f"r{i}" for i in range(180)]))


def test_weights_of_zero_leave_rows_out(sleep: pd.DataFrame) -> None:
    early = sleep["Days"] < 9
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        weighted = lmer(SLOPES, sleep.assign(w=np.where(early, 1.0, 0.0)), weights="w")
    assert weighted.criterion == pytest.approx(lmer(SLOPES, sleep[early]).criterion, rel=1e-12)
    assert weighted.nobs == 162
    assert "180 rows, 18 left out for zero weight" in str(weighted.summary())


def test_a_model_in_place_of_formula_and_data(sleep: pd.DataFrame, fit: ClassicalFit) -> None:
    assert lmer(model(SLOPES, sleep)).criterion == fit.criterion


# ------------------------------------------------------------------------------------------------------------- hard data


def groups(seed: int = 5) -> pd.DataFrame:
    """Forty rows in eight groups, with a strong difference between groups; x takes the same whole numbers in each."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": np.tile(np.arange(5.0), 8), "f": ["a", "b"] * 20, "g": np.repeat(np.arange(8), 5)})
    return frame.assign(y=rng.normal(size=40) + np.repeat(rng.normal(size=8), 5) * 2.0 + np.repeat(rng.normal(size=8), 5) * frame["x"])


def quietly(formula_text: str, data: pd.DataFrame) -> tuple[ClassicalFit, list[str]]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = lmer(formula_text, data)
    return found, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("shift", [1e3, 1e6, 1e7])
def test_a_predictor_far_from_zero(shift: float) -> None:
    """A shift of x changes neither the model nor the slopes."""
    data = groups()
    near, _ = quietly("y ~ x + (x | g)", data)
    far, messages = quietly("y ~ x + (x | g)", data.assign(x=data["x"] + shift))
    assert far.convergence == near.convergence == "converged"
    assert far.is_singular is near.is_singular is False
    assert far.criterion == pytest.approx(near.criterion, rel=1e-9)
    assert far.fixef()["x"] == pytest.approx(near.fixef()["x"], rel=1e-6)
    np.testing.assert_allclose(far.ranef()["g"]["x"], near.ranef()["g"]["x"], rtol=1e-6)
    assert any(f"subtract a value near {shift:.3g}" in message for message in messages) is (shift > 1e5)
    assert any(check.code == "badly_scaled" for check in far.diagnose()) is (shift > 1e5)


@pytest.mark.parametrize("shift", [1e9, 1e12])
def test_a_predictor_very_far_from_zero(shift: float) -> None:
    """R's tolerance leaves x out of the fixed effects there; its random slopes are still found to all digits."""
    data = groups()
    near, _ = quietly("y ~ 1 + (x | g)", data)
    far, messages = quietly("y ~ x + (x | g)", data.assign(x=data["x"] + shift))
    assert far.dropped == ("x",)
    assert far.convergence == "converged"
    assert far.criterion == pytest.approx(near.criterion, rel=1e-10)
    np.testing.assert_allclose(far.ranef()["g"]["x"], near.ranef()["g"]["x"], rtol=1e-7)
    assert far.sigma == pytest.approx(near.sigma, rel=1e-8)
    assert any("[badly_scaled]" in message for message in messages)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize(
    ("formula_text", "change"),
    [
        ("y ~ 1 + (1 | g)", lambda d: d.assign(y=d["g"] ** 2.0)),
        ("y ~ x + (1 | g)", lambda d: d.assign(y=d["g"] % 5 + 0.5 * d["x"])),
        ("y ~ x + (x | g)", lambda d: d.assign(y=d["g"] ** 2 % 5 + d["g"] * d["x"])),
        ("y ~ f + (1 | g:x)", lambda d: pd.concat([d, d], ignore_index=True)),
        ("y ~ f + (1 | g) + (1 | g:x)", lambda d: pd.concat([d, d], ignore_index=True)),
    ],
)
def test_random_effects_that_fit_exactly_are_refused(formula_text: str, change: Callable, reml: bool) -> None:
    with pytest.raises(FitError, match=r"random effects of g.* fit the response exactly \(residual variance 0\).*leave the term out"):
        lmer(formula_text, change(groups()), reml=reml)


def test_almost_exact_is_fitted() -> None:
    """The residual of one-way groups is known in closed form: sigma^2 is the mean square within."""
    data = groups()
    y = 1000.0 * data["g"] + data["y"] - data.groupby("g")["y"].transform("mean")
    within = float(((y - y.groupby(data["g"]).transform("mean")) ** 2).sum() / 32)
    fit = lmer("y ~ 1 + (1 | g)", data.assign(y=y))
    assert fit.convergence == "converged"
    assert fit.sigma**2 == pytest.approx(within, rel=1e-5)


def test_the_same_factor_twice_is_flat() -> None:
    data = groups().assign(k=lambda d: d["g"] + 1)
    fit, messages = quietly("y ~ x + (1 | g) + (1 | k)", data)
    assert fit.convergence == "flat"
    assert fit.converged
    assert fit.search is not None
    assert fit.search.undetermined == ("(Intercept) | g", "(Intercept) | k")
    assert fit.criterion == pytest.approx(lmer("y ~ x + (1 | g)", data).criterion, rel=1e-9)
    assert "only a combination of (Intercept) | g, (Intercept) | k" in messages[0]
    assert "only a combination of (Intercept) | g" in str(fit.diagnose())


@pytest.mark.parametrize("seed", range(6))
def test_factor_and_intercept_without_correlation(seed: int) -> None:
    """`(f || g)` is (1 | g) + (0 + f | g), whose covariances are those of (0 + f | g) alone: flat, or a variance of zero."""
    data = groups(seed)
    fit, _ = quietly("y ~ (f || g)", data)
    alone, _ = quietly("y ~ f + (0 + f | g)", data)
    assert fit.convergence in {"flat", "converged at the boundary"}
    assert fit.converged
    assert quietly("y ~ f + (f || g)", data)[0].criterion == pytest.approx(alone.criterion, rel=1e-8)


@pytest.mark.parametrize("seed", range(6))
def test_autoregression_at_its_limit(seed: int) -> None:
    """With a correlation of one between all effects the model is that of an intercept; the search may end there or do better."""
    data = groups(seed).drop(columns="y")
    rng = np.random.default_rng(seed)
    data["y"] = rng.normal(size=40) + np.repeat(rng.normal(size=8), 5) * 2.0
    fit, _ = quietly("y ~ x + ar1(0 + f | g)", data)
    limit, _ = quietly("y ~ x + (1 | g)", data)
    assert fit.convergence in {"converged", "converged at the boundary"}
    assert fit.criterion <= limit.criterion + 1e-7
    if fit.theta[1] == 1.0:
        assert fit.criterion == pytest.approx(limit.criterion, rel=1e-10)


@pytest.mark.parametrize("shift", [1e4, 1e6, 1e9])
def test_uncorrelated_terms_that_are_almost_the_same(shift: float) -> None:
    """Far from zero an intercept and a slope through zero are the same effect: the criterion is that of the intercept."""
    rng = np.random.default_rng(1)
    data = groups().assign(x=shift + rng.normal(size=40), y=rng.normal(size=40) + np.repeat(rng.normal(size=8), 5) * 2.0)
    fit, _ = quietly("y ~ f + (x || g)", data)
    assert fit.converged
    assert fit.criterion == pytest.approx(lmer("y ~ f + (1 | g)", data).criterion, rel=1e-6)
