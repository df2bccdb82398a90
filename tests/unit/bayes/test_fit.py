"""`brm` and `BayesFit` without sampling: draws come from the prior (PyMC's mock), the numbers are recomputed from them by hand."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.bayes import log_likelihood
from bayeslmm.bayes.fit import sample_model
from bayeslmm.bayes.samplers import Sampler, Settings, sample, shows_progress
from bayeslmm.errors import ConvergenceWarning, FitError
from bayeslmm.fit import ESTIMATES_COLUMNS, TIDY_COLUMNS, Fit

CHAINS, DRAWS = 4, 150
STATS = {
    "diverging": lambda size: np.zeros(size, dtype=bool),
    "reached_max_treedepth": lambda size: np.zeros(size, dtype=bool),
    "energy": lambda size: np.random.default_rng(1).normal(size=size),
}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    data = bl.load_dataset("sleepstudy").iloc[:90].copy()
    data.index = pd.Index([f"row{i}" for i in range(90)])
    data["Subject"] = data["Subject"].astype(str)
    data["w"] = 1.0 + np.arange(90) % 3
    return data


def _mocked(formula: Any, data: pd.DataFrame, **options: Any) -> bl.BayesFit:
    import pymc as pm
    from pymc.testing import mock_sample

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pm, "sample", partial(mock_sample, sample_stats=STATS))
        return bl.brm(formula, data, chains=CHAINS, draws=DRAWS, seed=3, sampler="pymc", **options)


@pytest.fixture(scope="module")
def slopes(frame: pd.DataFrame) -> bl.BayesFit:
    return _mocked("Reaction ~ Days + (Days | Subject)", frame)


@pytest.fixture(scope="module")
def counts() -> bl.BayesFit:
    return _mocked("cbind(incidence, size - incidence) ~ period + (1 | herd)", bl.load_dataset("cbpp"), family="binomial")


def test_it_is_a_fit(slopes: bl.BayesFit) -> None:
    assert isinstance(slopes, Fit)
    assert slopes.method == "NUTS"
    assert slopes.nobs == 90
    assert slopes.ngroups == {"Subject": 9}


def test_tree_holds_the_names_of_the_contract_and_no_helpers(slopes: bl.BayesFit) -> None:
    posterior = slopes.tree["posterior"]
    assert set(posterior.data_vars) == {"b", "sd_Subject", "cor_Subject", "r_Subject", "sigma"}
    assert posterior["b"].dims == ("chain", "draw", "fixed")
    assert posterior["cor_Subject"].dims[2:] == ("Subject_effect", "Subject_effect2")
    assert posterior["r_Subject"].dims[2:] == ("Subject", "Subject_effect")
    assert list(posterior["fixed"].values) == ["(Intercept)", "Days"]
    assert {"posterior", "sample_stats", "observed_data", "log_likelihood"} <= set(slopes.tree.children)
    np.testing.assert_array_equal(slopes.tree["observed_data"]["y"].values, slopes.model.design.y)


def test_estimates(slopes: bl.BayesFit) -> None:
    table = slopes.estimates
    assert tuple(table.columns) == ESTIMATES_COLUMNS
    rows = list(table[["part", "group", "term"]].itertuples(index=False, name=None))
    assert rows == [
        ("fixed", "", "(Intercept)"),
        ("fixed", "", "Days"),
        ("sd", "Subject", "(Intercept)"),
        ("sd", "Subject", "Days"),
        ("cor", "Subject", "Days.(Intercept)"),
        ("aux", "", "sigma"),
    ]
    draws = slopes.tree["posterior"]["cor_Subject"].values[:, :, 1, 0].ravel()
    row = table.iloc[4]
    assert row["estimate"] == pytest.approx(draws.mean())
    assert row["se"] == pytest.approx(draws.std(ddof=1))
    assert (row["lower"], row["upper"]) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    table.loc[0, "estimate"] = np.nan
    assert not slopes.estimates["estimate"].isna().any()


def test_effects(slopes: bl.BayesFit) -> None:
    r = slopes.tree["posterior"]["r_Subject"].values.reshape(-1, 9, 2)
    values, sds = slopes.ranef(condsd=True)["Subject"]
    np.testing.assert_allclose(values.to_numpy(), r.mean(axis=0))
    np.testing.assert_allclose(sds.to_numpy(), r.std(axis=0, ddof=1))
    assert list(values.columns) == ["(Intercept)", "Days"]
    coef = slopes.coef()["Subject"]
    np.testing.assert_allclose(coef.loc["309"], slopes.fixef() + values.loc["309"])
    b = slopes.tree["posterior"]["b"].values.reshape(-1, 2)
    np.testing.assert_allclose(slopes.vcov().to_numpy(), np.cov(b, rowvar=False))


def test_varcorr(slopes: bl.BayesFit) -> None:
    table = slopes.varcorr()
    assert list(table["group"]) == ["Subject", "Subject", "Subject", "Residual"]
    assert list(table["term1"])[:3] == ["(Intercept)", "Days", "(Intercept)"]
    assert table["term2"].iloc[2] == "Days"
    sd = slopes.estimates.query("part == 'sd'")["estimate"].to_numpy()
    np.testing.assert_allclose(table["sdcor"].iloc[:2], sd)
    assert table["vcov"].iloc[2] == pytest.approx(table["sdcor"].iloc[2] * sd[0] * sd[1])
    assert table["sdcor"].iloc[3] == slopes.sigma


def test_fitted_is_the_mean_over_draws_row_by_row(slopes: bl.BayesFit, frame: pd.DataFrame) -> None:
    posterior = slopes.tree["posterior"]
    b, r = posterior["b"].values.reshape(-1, 2), posterior["r_Subject"].values.reshape(-1, 9, 2)
    days = float(frame["Days"].iloc[25])
    expected = (b[:, 0] + r[:, 2, 0] + days * (b[:, 1] + r[:, 2, 1])).mean()
    assert slopes.fitted()["row25"] == pytest.approx(expected)
    np.testing.assert_allclose(slopes.residuals(), frame["Reaction"] - slopes.fitted())


def test_log_likelihood_is_of_each_row_given_its_group(slopes: bl.BayesFit, frame: pd.DataFrame) -> None:
    import scipy.stats

    posterior = slopes.tree["posterior"].isel(chain=2, draw=7)
    mu = posterior["b"].values @ [1, frame["Days"].iloc[25]] + posterior["r_Subject"].values[2] @ [1, frame["Days"].iloc[25]]
    expected = scipy.stats.norm(mu, posterior["sigma"].values).logpdf(frame["Reaction"].iloc[25])
    assert slopes.tree["log_likelihood"]["y"].values[2, 7, 25] == pytest.approx(expected)
    assert log_likelihood(slopes).shape == (CHAINS, DRAWS, 90)


def test_precision_weights_enter_the_log_likelihood(frame: pd.DataFrame) -> None:
    import scipy.stats

    fit = _mocked("Reaction ~ Days", frame, weights="w")
    posterior = fit.tree["posterior"].isel(chain=0, draw=0)
    mu = posterior["b"].values @ [1, frame["Days"].iloc[2]]
    expected = scipy.stats.norm(mu, posterior["sigma"].values / np.sqrt(3.0)).logpdf(frame["Reaction"].iloc[2])
    assert fit.tree["log_likelihood"]["y"].values[0, 0, 2] == pytest.approx(expected)


def test_binomial_rows_are_probabilities(counts: bl.BayesFit) -> None:
    fitted = counts.fitted()
    assert fitted.between(0, 1).all()
    data = counts.model.frame
    np.testing.assert_allclose(counts.residuals(), data["incidence"] / data["size"] - fitted)
    pearson = (data["incidence"] - data["size"] * fitted) / np.sqrt(data["size"] * fitted * (1 - fitted))
    np.testing.assert_allclose(counts.residuals("pearson"), pearson)
    assert counts.sigma == 1.0
    assert "Residual" not in set(counts.varcorr()["group"])


def test_deviance_residuals_square_to_the_deviance(counts: bl.BayesFit) -> None:
    from scipy.special import xlogy

    y, n, p = counts.model.design.y, counts.model.design.trials, counts.fitted().to_numpy()
    expected = 2 * (xlogy(y, y / (n * p)) + xlogy(n - y, (n - y) / (n * (1 - p))))
    np.testing.assert_allclose(counts.residuals("deviance") ** 2, expected, atol=1e-9)


@pytest.mark.parametrize("kind", ["working", "scaled", "quantile"])
def test_other_residuals(kind: str, slopes: bl.BayesFit) -> None:
    values = slopes.residuals(kind)
    assert np.all(np.isfinite(values))
    pd.testing.assert_series_equal(values, slopes.residuals(kind))
    if kind == "scaled":
        np.testing.assert_allclose(values, slopes.residuals() / slopes.sigma)


def test_an_unknown_residual_is_refused(slopes: bl.BayesFit) -> None:
    with pytest.raises(FitError, match="did you mean 'pearson'"):
        slopes.residuals("person")


def test_draws_by_block(slopes: bl.BayesFit) -> None:
    draws = slopes.draws()
    assert draws.n_draws == CHAINS * DRAWS
    posterior = slopes.tree["posterior"]
    sd, cor = posterior["sd_Subject"].values[0, 5], posterior["cor_Subject"].values[0, 5]
    np.testing.assert_allclose(draws.covariance[0][5], np.diag(sd) @ cor @ np.diag(sd))
    np.testing.assert_array_equal(draws.effects[0][5], posterior["r_Subject"].values[0, 5])
    assert draws.aux["sigma"].shape == (CHAINS * DRAWS,)


def test_summary(slopes: bl.BayesFit) -> None:
    text = str(slopes.summary())
    assert "Group-level effects, Subject (9 levels):" in text
    assert "cor(Intercept,Days)" in text
    assert "Rhat  Bulk_ESS  Tail_ESS" in text
    estimate = slopes.estimates.iloc[1]["estimate"]
    (line,) = [line for line in text.splitlines() if line.startswith("Days ")]
    assert float(line.split()[1]) == pytest.approx(estimate, abs=0.006)
    html = slopes._repr_html_()
    assert html.count("<table") == 4
    assert "cor(Intercept,Days)" in html


def test_diagnose_finds_nothing_in_independent_draws(slopes: bl.BayesFit) -> None:
    diagnostics = slopes.diagnose()
    sampled = ["rhat", "ess_bulk", "ess_tail", "mcse_mean", "mcse_interval", "divergences", "tree_depth", "ebfmi"]
    assert [check.code for check in diagnostics] == [*sampled, "khat", "prior_conflict"]
    assert diagnostics.table.set_index("code").loc[["divergences", "tree_depth", "ebfmi"], "passed"].all()
    assert "All checks passed" in str(slopes.summary()) or not diagnostics.ok


def test_tidy_glance_augment(slopes: bl.BayesFit, frame: pd.DataFrame) -> None:
    tidy = slopes.tidy()
    assert list(tidy["term"]) == ["(Intercept)", "Days", "sd__(Intercept)", "sd__Days", "cor__(Intercept).Days", "sd__Observation"]
    assert list(tidy["group"]) == ["", "", "Subject", "Subject", "Subject", "Residual"]
    assert list(tidy.columns) == [*TIDY_COLUMNS, "rhat", "ess_bulk", "ess_tail"]
    assert tidy["statistic"].isna().all()
    assert list(tidy["effect"])[:3] == ["fixed", "fixed", "ran_pars"]
    np.testing.assert_allclose(tidy["std_error"], slopes.estimates["se"])
    assert len(slopes.tidy("ran_vals")) == 18
    with pytest.raises(FitError, match="did you mean 'fixed'"):
        slopes.tidy("fixd")
    assert slopes.glance().loc[0, "nobs"] == 90
    augmented = slopes.augment()
    assert list(augmented.index) == list(frame.index)
    np.testing.assert_allclose(augmented["fitted"] + augmented["resid"], frame["Reaction"])
    assert (augmented["lower"] < augmented["upper"]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws must be a whole number of at least 1, not 0"),
        ({"draws": -5}, "draws must be"),
        ({"draws": 10.5}, "draws must be"),
        ({"chains": 0}, "chains must be"),
        ({"tune": -1}, "tune must be"),
        ({"cores": 0}, "cores must be"),
        ({"seed": -1}, "seed must be"),
        ({"target_accept": 1.0}, "target_accept must lie between 0 and 1"),
        ({"sampler": "nutpi"}, r"did you mean 'nutpie'\?; known: auto, collapsed, direct, nutpie, pymc"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any], message: str, slopes: bl.BayesFit) -> None:
    with pytest.raises(FitError, match=message):
        bl.brm(slopes.model, **options)


def test_a_ready_model_takes_no_second_definition(slopes: bl.BayesFit, frame: pd.DataFrame) -> None:
    with pytest.raises(FitError, match="has its link already"):
        bl.brm(slopes.model, link="log")
    with pytest.raises(FitError, match="has its data already"):
        bl.brm(slopes.model, frame)


@pytest.mark.filterwarnings("ignore:.*few_draws:bayeslmm.errors.ConvergenceWarning")
def test_one_chain_is_warned_of(slopes: bl.BayesFit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayeslmm.bayes.fit.sample_model", lambda *given: given)
    with pytest.warns(ConvergenceWarning, match=r"\[one_chain\]"):
        bl.brm(slopes.model, chains=1, draws=1000)
    with pytest.warns(ConvergenceWarning, match=r"\[few_draws\]"):
        bl.brm(slopes.model, draws=50)


def test_settings_reach_the_sampler(slopes: bl.BayesFit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayeslmm.bayes.fit.sample_model", lambda *given: given)
    model, name, settings = bl.brm(slopes.model, chains=3, draws=700, tune=40, cores=8, seed=5, target_accept=0.99)  # type: ignore[misc]
    assert name == "collapsed"
    assert (settings.chains, settings.draws, settings.tune, settings.cores, settings.seed) == (3, 700, 40, 3, 5)
    assert settings.target_accept == 0.99
    assert model is slopes.model
    _, name, _ = bl.brm(bl.model("Reaction ~ Days", slopes.model.frame))  # type: ignore[misc]
    assert name == "direct"
    _, _, fresh = bl.brm(slopes.model)  # type: ignore[misc]
    _, _, other = bl.brm(slopes.model)  # type: ignore[misc]
    assert fresh.seed != other.seed


def test_a_failing_sampler_says_so_in_one_line(slopes: bl.BayesFit, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: Any) -> None:
        logging.getLogger("pymc").warning("noise")
        raise TypeError("kernel() got an unexpected argument\nmore")

    monkeypatch.setattr("bayeslmm.bayes.samplers.SAMPLERS", {"broken": Sampler(run=broken, package="numpy")})
    settings = Settings(chains=1, draws=1, tune=1, cores=1, seed=1, target_accept=0.9, progressbar=False)
    with pytest.raises(FitError, match=r"^the sampler 'broken' failed: kernel\(\) got an unexpected argument$"):
        sample("broken", slopes.model, [], settings)


def test_no_progress_bar_without_a_terminal() -> None:
    assert not shows_progress(True)


def test_divergences_are_warned_of_after_sampling(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    import pymc as pm
    from pymc.testing import mock_sample

    monkeypatch.setattr(pm, "sample", partial(mock_sample, sample_stats=STATS | {"diverging": lambda size: np.ones(size, dtype=bool)}))
    model = bl.model("Reaction ~ Days", frame)
    settings = Settings(chains=4, draws=400, tune=1, cores=1, seed=1, target_accept=0.9, progressbar=False)
    with pytest.warns(ConvergenceWarning, match=r"\[divergences\] 1600 divergent transitions"):
        fit = sample_model(model, "pymc", settings)
    assert not fit.diagnose().ok
    assert "Do not trust these numbers" in str(fit.summary())


@pytest.mark.filterwarnings("ignore:.*weak_groups")
def test_a_flat_prior_on_the_sd_of_two_groups_is_refused(frame: pd.DataFrame) -> None:
    two = frame.iloc[:20]
    with pytest.raises(bl.PriorError, match="with 2 levels: there is no proper posterior"):
        bl.brm("Reaction ~ Days + (1 | Subject)", two, priors=[bl.prior("flat()", part="sd")])
