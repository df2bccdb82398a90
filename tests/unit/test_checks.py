"""Checks of a model against its data: closed forms, slow twins of every statistic, planted failures, what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import special, stats

import bayeslmm as bl
from bayeslmm import prediction
from bayeslmm.checks import collinearity, model_checks, outliers, overdispersion, trend, uniformity, zero_inflation
from bayeslmm.checks.dispersion import WIDER
from bayeslmm.checks.simulated import ranked, tail
from bayeslmm.checks.zeros import INFLATED
from bayeslmm.errors import DataError, FitError
from bayeslmm.families import FAMILIES
from bayeslmm.fit import Draws

BY_SIMULATION = (partial(overdispersion, conditional=False), zero_inflation, uniformity, outliers, trend)


@dataclass(frozen=True)
class Known:
    """A fit at known parameters: what checks ask of the protocol, from a model and its draws."""

    model: bl.Model
    at: Draws

    @property
    def nobs(self) -> int:
        return self.model.design.n

    def draws(self) -> Draws:
        return self.at

    def fitted(self) -> pd.Series:
        return self.predict()["estimate"]

    def predict(self, **options: Any) -> pd.DataFrame:
        fit: Any = self
        return prediction.predict(fit, **options)

    def simulate(self, n: int, **options: Any) -> pd.DataFrame:
        fit: Any = self
        return prediction.simulate(fit, n, **options)

    def residuals(self, kind: str) -> pd.Series:
        assert kind == "pearson"
        design = self.model.design
        _, mu, aux = next(iter(prediction.distribution(self.model, self.at)))
        size = 1.0 if design.trials is None else design.trials
        variance = self.model.family.variance(mu[0], {name: value[0] for name, value in aux.items()}, design.trials)
        values: pd.Series = (design.y - self.fitted() * size) / np.sqrt(variance)
        return values

    def vcov(self) -> pd.DataFrame:
        X = self.model.design.X
        return pd.DataFrame(np.linalg.inv(X.T @ X))


def known(
    family: str, data: pd.DataFrame, formula: str = "y ~ x + (1 | g)", b: tuple[float, ...] = (0.5, 0.4), sd: float = 0.6, **aux: float
) -> Any:
    """Return a fit with the given coefficients, and group effects that are normal quantiles times `sd`."""
    model = bl.model(formula, data, family)
    effects, covariance = [], []
    for block in model.design.blocks:
        effects.append(sd * stats.norm.ppf((np.arange(block.n_levels) + 0.5) / block.n_levels)[None, :, None])
        covariance.append(np.full((1, 1, 1), sd**2))
    draws = Draws(
        b=np.array([b]), effects=tuple(effects), covariance=tuple(covariance), aux={name: np.array([v]) for name, v in aux.items()}
    )
    return Known(model, draws)


def rows(seed: int, groups: int = 10, size: int = 6) -> pd.DataFrame:
    """Return predictors, groups and their effects `u`, and a response that any family of real numbers or counts can have."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), size)
    columns = {"y": np.arange(len(g)) % 2.0, "x": rng.normal(size=len(g)), "n": 8, "f": np.resize(list("abc"), len(g))}
    return pd.DataFrame({**columns, "g": [f"g{i:02d}" for i in g], "u": rng.normal(size=groups)[g]})


def answered(fit: Any, seed: int) -> Any:
    """Return the fit with a response that its own model made, groups and all."""
    y = fit.simulate(1, seed=seed).to_numpy()[:, 0]
    return Known(replace(fit.model, design=replace(fit.model.design, y=y)), fit.at)


@pytest.fixture(scope="module")
def poisson() -> Any:
    return answered(known("poisson", rows(1)), 2)


@pytest.fixture(scope="module")
def binomial() -> Any:
    return answered(known("binomial", rows(1), "cbind(y, n - y) ~ x + (1 | g)"), 2)


@pytest.fixture(scope="module")
def gaussian() -> Any:
    return answered(known("gaussian", rows(1), sigma=0.7), 2)


# --------------------------------------------------------------------------------------------------------- simulation, slow twins


@pytest.mark.parametrize("name", ["poisson", "gaussian"])
def test_ranks_are_those_of_a_loop(name: str, request: pytest.FixtureRequest) -> None:
    fit, n = request.getfixturevalue(name), 30
    simulated = fit.simulate(n, seed=4).to_numpy().T
    values = np.vstack([fit.model.design.y, simulated])
    for here, _, ranks in ranked(fit, n, conditional=False, seed=4):
        for column, own in zip(values[:, here].T, ranks.T, strict=True):
            assert sorted(own) == list(range(n + 1))
            for value, rank in zip(column, own, strict=True):
                assert np.sum(column < value) <= rank <= np.sum(column <= value) - 1


def test_ties_are_broken_evenly() -> None:
    fit = known("poisson", rows(1, groups=1, size=5000).assign(y=[1.0] + [0.0] * 4999), "y ~ x", b=(-20.0, 0.0))
    _, _, ranks = next(iter(ranked(fit, 4, conditional=False, seed=0)))
    np.testing.assert_allclose(np.bincount(ranks[0]) / 5000, 0.2, atol=4 * np.sqrt(0.16 / 5000))


def test_p_values_count_the_observed_statistic_among_the_simulated() -> None:
    simulated = np.array([1.0, 2.0, 2.0, 5.0])
    assert tail(2.0, simulated, "greater") == 4 / 5
    assert tail(2.0, simulated, "less") == 4 / 5
    assert tail(6.0, simulated, "greater") == 1 / 5
    assert tail(6.0, simulated, "two-sided") == 2 / 5
    assert tail(2.0, simulated, "two-sided") == 1.0


@pytest.mark.parametrize("conditional", [True, False])
def test_dispersion_ratio_is_the_variance_of_raw_residuals_over_the_simulated(binomial: Any, conditional: bool) -> None:
    found = overdispersion(binomial, n=50, conditional=conditional, seed=7)
    simulated = binomial.simulate(50, conditional=conditional, seed=7).to_numpy().T
    eta = 0.5 + 0.4 * binomial.model.design.X[:, 1]
    if conditional:
        eta = eta + binomial.at.effects[0][0, binomial.model.design.blocks[0].index, 0]
    centre = 8 * special.expit(eta)
    expected = np.mean([np.var(one - centre, ddof=1) for one in simulated])
    assert found.ratio == pytest.approx(np.var(binomial.model.design.y - centre, ddof=1) / expected, rel=1e-9)
    np.testing.assert_allclose(found.simulated, [np.var(one - centre, ddof=1) / expected for one in simulated], rtol=1e-9)
    assert found.p_value == pytest.approx((1 + np.sum(found.simulated >= found.ratio)) / 51)


def test_pearson_ratio_is_chi_square_over_rows_less_parameters(poisson: Any) -> None:
    found, mu = overdispersion(poisson, n=5), poisson.fitted()
    chisq = float(np.sum((poisson.model.design.y - mu) ** 2 / mu))
    assert found.df == 60 - 3
    assert found.pearson_ratio == pytest.approx(chisq / 57)
    assert found.pearson_p_value == pytest.approx(stats.chi2.sf(chisq, 57))


def test_parameters_of_other_predictors_count() -> None:
    data = rows(1)
    fit = bl.formula("y ~ x + (1 | g)", shape="~ x + (1 | g)")
    model = bl.model(fit, data.assign(y=np.arange(60.0)), "negative_binomial")
    stub = known("negative_binomial", data.assign(y=np.arange(60.0)), shape=1.5)
    assert overdispersion(stub, n=5).df == 60 - 4
    one = Draws(b=np.zeros((1, 2)), effects=(np.zeros((1, 10, 1)),), covariance=(np.ones((1, 1, 1)),), aux={})
    draws = replace(stub.at, aux={"shape": np.full((1, 60), 1.5)}, further={"shape": one})
    own: Any = Known(model, draws)
    assert overdispersion(own, n=5).df == 60 - 3 - 3


def test_zeros_are_counted(poisson: Any) -> None:
    found = zero_inflation(poisson, n=50, seed=5)
    simulated = np.sum(poisson.simulate(50, seed=5).to_numpy() == 0, axis=0)
    np.testing.assert_array_equal(found.simulated, simulated)
    assert found.observed == np.sum(poisson.model.design.y == 0)
    assert found.ratio == pytest.approx(found.observed / simulated.mean())
    assert found.predicted == pytest.approx(np.exp(-poisson.fitted()).sum())


def test_expected_zeros_have_closed_forms(binomial: Any) -> None:
    assert zero_inflation(binomial, n=5).predicted == pytest.approx(np.sum((1 - binomial.fitted()) ** 8))
    inflated = known("zero_inflated_poisson", rows(1), zi=0.25)
    mu = np.exp(inflated.predict(scale="link")["estimate"])
    assert zero_inflation(inflated, n=5).predicted == pytest.approx(np.sum(0.25 + 0.75 * np.exp(-mu)))


def test_expected_zeros_of_a_posterior_are_means_over_its_draws(poisson: Any) -> None:
    two = Draws(
        b=np.array([[0.5, 0.4], [0.1, -0.2]]),
        effects=(np.repeat(poisson.at.effects[0], 2, axis=0),),
        covariance=(np.repeat(poisson.at.covariance[0], 2, axis=0),),
        aux={},
    )
    fits: list[Any] = [Known(poisson.model, draws) for draws in (two, two.take(np.array([0])), two.take(np.array([1])))]
    both, *each = (zero_inflation(fit, n=5).predicted for fit in fits)
    assert both == pytest.approx(np.mean(each))


def test_limit_of_zeros_is_the_quantile_of_their_distribution(poisson: Any) -> None:
    check = next(check for check in model_checks(poisson) if check.code == "zero_inflation")
    distribution = np.ones(1)
    probabilities = np.exp(-poisson.fitted())
    for p in probabilities:
        distribution = np.convolve(distribution, [1 - p, p])
    exact = int(np.searchsorted(np.cumsum(distribution), 0.95))
    assert abs(check.limit * probabilities.sum() - exact) <= 1.0


def test_uniform_residuals_are_the_quantile_residuals(gaussian: Any) -> None:
    found = uniformity(gaussian, n=99, seed=3)
    u = special.ndtr(prediction.quantile_residuals(gaussian, 99, conditional=False, seed=3))
    np.testing.assert_array_equal(np.floor(found.residuals * 100), np.floor(u * 100))
    assert found.statistic == pytest.approx(stats.kstest(found.residuals, "uniform").statistic)
    assert found.independent_p_value == pytest.approx(stats.kstest(found.residuals, "uniform").pvalue)


def test_uniformity_compares_each_simulated_response_with_the_others(gaussian: Any) -> None:
    n = 19
    values = np.vstack([gaussian.model.design.y, gaussian.simulate(n, seed=3).to_numpy().T])
    distances = []
    for own in values:
        share = np.sum(values < own, axis=0)
        distances.append(max(abs(np.mean(share <= k) - (k + 1) / (n + 1)) for k in range(n + 1)))
    found = uniformity(gaussian, n=n, seed=3)
    np.testing.assert_allclose(found.simulated, distances[1:], atol=1e-12)
    assert found.p_value == pytest.approx((1 + np.sum(np.array(distances[1:]) >= distances[0] - 1e-12)) / (n + 1))


def test_outliers_are_the_rows_outside_all_simulated(gaussian: Any) -> None:
    simulated = gaussian.simulate(25, seed=6).to_numpy()
    y = gaussian.model.design.y
    outside = (y < simulated.min(axis=1)) | (y > simulated.max(axis=1))
    found = outliers(gaussian, n=25, seed=6)
    assert found.rows == tuple(gaussian.model.design.index[outside])
    assert found.observed == outside.sum()
    assert found.expected == pytest.approx(60 * 2 / 26)
    assert found.binomial_p_value == pytest.approx(stats.binomtest(int(outside.sum()), 60, 2 / 26).pvalue)


def test_trend_is_kruskal_and_wallis_statistic_of_the_simulated_ranks(gaussian: Any) -> None:
    n = 40
    found = trend(gaussian, "f", n=n, seed=8)
    simulated = gaussian.simulate(n, seed=8).to_numpy()
    u = (np.sum(simulated < gaussian.model.design.y[:, None], axis=1) + 0.5) / (n + 1)
    means = pd.Series(u).groupby(gaussian.model.frame["f"].to_numpy()).agg(["size", "mean"])
    assert found.df == 2
    assert found.table["rows"].tolist() == means["size"].tolist()
    np.testing.assert_allclose(found.table["mean"], means["mean"])
    assert found.statistic == pytest.approx(12 * np.sum(means["size"] * (means["mean"] - u.mean()) ** 2))


def test_a_numeric_predictor_is_cut_into_bins_of_equal_size(gaussian: Any) -> None:
    assert trend(gaussian, "x", bins=5, n=10).table["rows"].tolist() == [12] * 5
    assert trend(gaussian, n=10).by == "fitted"


@pytest.mark.parametrize("family", ["poisson", "binomial"])
def test_p_values_are_uniform_at_known_parameters(family: str) -> None:
    """With 19 simulated responses each of the 20 p values has probability 1/20, for statistics without ties."""
    formula = "cbind(y, n - y) ~ x + (1 | g)" if family == "binomial" else "y ~ x + (1 | g)"
    fit = known(family, rows(1), formula)
    p_values = np.array([[check(answered(fit, 100 + s), n=19, seed=s).p_value for check in BY_SIMULATION] for s in range(120)])
    flagged = np.sum(p_values <= 0.1, axis=0)
    assert np.all(flagged <= stats.binom.isf(1e-4, 120, 0.1))
    assert np.all(flagged[[0, 2, 4]] >= stats.binom.ppf(1e-4, 120, 0.1))


# -------------------------------------------------------------------------------------------------------------- planted failures


@pytest.fixture(scope="module")
def inflated() -> bl.ClassicalFit:
    rng = np.random.default_rng(40)
    data = rows(4, groups=20, size=15)
    data["y"] = rng.poisson(np.exp(1.2 + 0.4 * data["x"] + 0.5 * data["u"])) * (rng.random(300) > 0.3)
    return bl.glmer("y ~ x + (1 | g)", data, "poisson")


def test_planted_zeros_are_found_and_the_family_named(inflated: bl.ClassicalFit) -> None:
    found = zero_inflation(inflated)
    assert found.p_value < 0.01
    assert not found.check.passed
    assert "zero_inflated_poisson" in found.check.remedy
    assert str(found.observed) in found.check.meaning


def test_planted_overdispersion_is_in_the_diagnosis() -> None:
    rng = np.random.default_rng(40)
    data = rows(4, groups=20, size=15)
    data["y"] = rng.poisson(np.exp(1.2 + 0.4 * data["x"] + 0.5 * data["u"]) * rng.gamma(1.0, 1.0, 300))
    fit = bl.glmer("y ~ x + (1 | g)", data, "poisson")
    check = next(check for check in fit.diagnose() if check.code == "overdispersion")
    assert not check.passed
    assert check.severity == "error"
    assert not fit.diagnose().ok
    assert "negative_binomial" in check.remedy
    assert "standard errors are too small" in check.meaning
    mended = bl.glmer("y ~ x + (1 | g)", data, "negative_binomial").diagnose()
    assert "overdispersion" not in [check.code for check in mended.failed]


def test_sound_counts_pass(poisson: Any) -> None:
    data = rows(1).assign(y=answered(poisson, 3).model.design.y)
    checks = {check.code: check for check in bl.glmer("y ~ x + (1 | g)", data, "poisson").diagnose()}
    assert checks["overdispersion"].passed
    assert checks["zero_inflation"].passed


def test_a_missed_bend_is_found() -> None:
    rng = np.random.default_rng(40)
    data = rows(4, groups=20, size=15)
    data["y"] = data["x"] ** 2 + data["u"] + rng.normal(size=300)
    straight, bent = (bl.lmer(f"y ~ {term} + (1 | g)", data) for term in ("x", "poly(x, 2)"))
    assert not (found := trend(straight, "x", n=200)).check.passed
    assert "x" in found.check.meaning
    assert trend(bent, "x", n=200).check.passed


def test_planted_outliers_are_named() -> None:
    rng = np.random.default_rng(40)
    data = rows(4, groups=20, size=15)
    data["y"] = data["x"] + 3.0 * data["u"] + rng.normal(size=300)
    data.loc[[7, 70, 100, 200], "y"] += 60.0
    found = outliers(bl.lmer("y ~ x + (1 | g)", data))
    assert {7, 70, 100, 200} <= set(found.rows)
    assert "7" in found.check.meaning


def test_another_distribution_is_found() -> None:
    rng = np.random.default_rng(40)
    data = rows(4, groups=20, size=15)
    data["y"] = data["u"] + np.exp(rng.normal(size=300))
    found = uniformity(bl.lmer("y ~ x + (1 | g)", data), n=200, conditional=True)
    assert not found.check.passed
    assert "not distributed" in found.check.meaning


# ------------------------------------------------------------------------------------------------------------------ collinearity


def correlated(formula: str, r: float) -> Any:
    rng = np.random.default_rng(9)
    data = rows(0)
    data["z"] = r * data["x"] + np.sqrt(1 - r**2) * rng.normal(size=60)
    return known("poisson", data, formula, b=(0.0,))


def test_variance_inflation_is_one_over_one_less_r_squared() -> None:
    fit = correlated("y ~ x + z + f", 0.8)
    table, X = collinearity(fit).table, fit.model.design.X
    for column, term in ((1, "x"), (2, "z")):
        others = np.delete(X, column, axis=1)
        residual = X[:, column] - others @ np.linalg.lstsq(others, X[:, column])[0]
        assert table.loc[term, "vif"] == pytest.approx(np.var(X[:, column]) * 60 / (residual @ residual))
    np.testing.assert_allclose(table["se_factor"], table["vif"] ** (0.5 / table["df"]))
    assert table["df"].tolist() == [1, 1, 2]
    np.testing.assert_allclose(table["tolerance"] * table["vif"], 1.0)


def test_collinear_predictors_are_named() -> None:
    check = collinearity(correlated("y ~ x + z + f", 0.999)).check
    assert not check.passed
    assert check.severity == "note"
    assert "x, z" in check.meaning
    assert collinearity(correlated("y ~ x + z", 0.1)).check.passed


def test_terms_of_an_interaction_are_not_held_against_the_model() -> None:
    data = rows(0)
    data["x"] += 100.0
    found = collinearity(known("poisson", data, "y ~ x * f", b=(0.0,)))
    assert found.table["interacts"].all()
    assert found.table["vif"].max() > 1000
    assert found.check.passed


def test_a_covariance_that_is_not_known_fails_nothing() -> None:
    @dataclass(frozen=True)
    class Lost(Known):
        def vcov(self) -> pd.DataFrame:
            return pd.DataFrame(np.full((3, 3), np.nan))

    fit = correlated("y ~ x + z", 0.1)
    lost: Any = Lost(fit.model, fit.at)
    assert collinearity(lost).check.passed


# ------------------------------------------------------------------------------------------------------------ refusals, registries


def test_what_has_no_dispersion_or_zeros_is_refused(gaussian: Any) -> None:
    single = answered(known("bernoulli", rows(1)), 3)
    with pytest.raises(FitError, match="single trials"):
        overdispersion(single)
    with pytest.raises(FitError, match="single trials"):
        zero_inflation(single)
    with pytest.raises(FitError, match="gaussian"):
        overdispersion(gaussian)
    with pytest.raises(FitError, match="any real number"):
        zero_inflation(gaussian)
    with pytest.raises(FitError, match="no zeros"):
        zero_inflation(known("truncated_poisson", rows(1).assign(y=1.0)))
    with pytest.raises(FitError, match="two terms"):
        collinearity(gaussian)
    assert [check.code for check in model_checks(single)] == []


@pytest.mark.parametrize("check", BY_SIMULATION)
@pytest.mark.parametrize("option", [{"n": 0}, {"n": 2.5}, {"n": "many"}, {"seed": -1}])
def test_impossible_numbers_are_refused(poisson: Any, check: Any, option: dict[str, Any]) -> None:
    with pytest.raises(FitError, match=next(iter(option))):
        check(poisson, **option)


def test_unknown_options_are_refused(poisson: Any) -> None:
    with pytest.raises(FitError, match="'two-sided'"):
        zero_inflation(poisson, alternative="both")
    with pytest.raises(FitError, match="conditional=False"):
        overdispersion(poisson, alternative="less")
    with pytest.raises(DataError, match=r"'xx'.*x"):
        trend(poisson, "xx")
    with pytest.raises(DataError, match="single value"):
        trend(poisson, "n")
    with pytest.raises(FitError, match="bins"):
        trend(poisson, "x", bins=1)


def test_remedies_name_families_that_exist() -> None:
    assert {*WIDER, *WIDER.values(), *INFLATED, *INFLATED.values()} <= set(FAMILIES)


CONSTANTS = {"zi": 0.2, "hu": 0.3, "nu": 5.0}


@pytest.mark.parametrize("name", sorted(name for name, family in FAMILIES.items() if family.of_levels is None))
def test_every_family_can_be_checked(name: str) -> None:
    family = FAMILIES[name]
    data = rows(1)
    low, high = (0.0, 1.0) if name == "bernoulli" else (1.0, 2.0) if family.discrete else (0.3, 0.7)
    data["y"] = np.where(data["y"] == 0, low, high)
    formula = "cbind(y, n - y) ~ x + f + (1 | g)" if family.needs_trials else "y ~ x + f + (1 | g)"
    constants = {parameter.name: CONSTANTS.get(parameter.name, 1.5) for parameter in family.parameters}
    fit = known(name, data, formula, b=(2.0, 0.1, 0.1, -0.1), sd=0.1, **constants)
    checks = model_checks(answered(fit, 5))
    assert "collinearity" in [check.code for check in checks]
    assert all(np.isfinite([check.value, check.limit]).all() for check in checks)
    assert ("overdispersion" in [check.code for check in checks]) == (family.discrete and name != "bernoulli")
    assert 0 < uniformity(answered(fit, 5), n=20).p_value <= 1


def test_codes_are_in_the_table_of_the_documentation() -> None:
    from tests.support import ROOT

    text = (ROOT / "docs" / "how-to" / "when-a-fit-complains.md").read_text(encoding="utf8")
    for code in ("overdispersion", "zero_inflation", "collinearity"):
        assert f"`{code}`" in text
