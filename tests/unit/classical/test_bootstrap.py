"""The bootstrap: replicates against separate refits, moments against theory, honest counts, independence of workers."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from bayeslmm.classical import ClassicalFit, lmer, refit
from bayeslmm.classical.bootstrap import bootstrap
from bayeslmm.classical.engine import criterion, estimate
from bayeslmm.classical.lmm import problem_of
from bayeslmm.classical.reuse import at_value, hold_coefficient, on_response, responses
from bayeslmm.datasets import load_dataset
from bayeslmm.errors import FitError

pytestmark = pytest.mark.filterwarnings("ignore::bayeslmm.errors.BayesLmmWarning")

FORMULAS = [
    ("Reaction ~ Days + (Days | Subject)", "sleepstudy"),
    ("strength ~ cask + (1 | batch) + (1 | sample)", "Pastes"),
    ("diameter ~ 1 + (1 | plate) + (1 | sample)", "Penicillin"),
    ("Reaction ~ Days + cs(Days | Subject)", "sleepstudy"),
]


@pytest.fixture(scope="module")
def sleep() -> ClassicalFit:
    return lmer("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))


@pytest.mark.parametrize(("formula", "data"), FORMULAS)
@pytest.mark.parametrize("reml", [True, False])
def test_changed_response_is_the_problem_built_anew(formula: str, data: str, reml: bool) -> None:
    fit = lmer(formula, load_dataset(data), reml=reml)
    y = fit.simulate(seed=3)["sim_1"].to_numpy()
    fast = on_response(responses(problem_of(fit.model, reml=reml), fit.model.design), y)
    slow = refit(fit, y)
    assert criterion(fast, slow.theta) == pytest.approx(slow.criterion, rel=1e-11)
    assert estimate(fast, slow.theta).beta == pytest.approx(slow.beta, rel=1e-8)


def test_held_coefficient_is_a_column_in_the_offset() -> None:
    data = load_dataset("Pastes").assign(z=lambda d: np.cos(np.arange(len(d))) * 7.0 + 100.0)
    fit = lmer("strength ~ z + (1 | batch) + (1 | sample)", data, reml=False)
    held = at_value(hold_coefficient(problem_of(fit.model, reml=False), 1), 0.3)
    slow = lmer("strength ~ 1 + (1 | batch) + (1 | sample)", data, offset=0.3 * data["z"], reml=False)
    assert criterion(held, slow.theta) == pytest.approx(slow.criterion, rel=1e-11)


def test_default_statistics_are_those_of_the_full_refit(sleep: ClassicalFit) -> None:
    fast = bootstrap(sleep, n=12, seed=5)
    full = bootstrap(sleep, lambda fit: [*fit.varcorr()["sdcor"], *fit.fixef()], n=12, seed=5)
    order = [0, 2, 1, 3, 4, 5]
    assert full.replicates.to_numpy()[:, order] == pytest.approx(fast.replicates.to_numpy(), rel=1e-5, abs=1e-6)


def test_parametric_moments_are_those_of_theory() -> None:
    """Balanced one-way: the mean is N(mu, sb^2 / J + s^2 / (J n)), the within mean square s^2 chi2 / df."""
    fit = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff"))
    boot = bootstrap(fit, n=2000, seed=11)
    sd, sigma = boot.estimate["sd_(Intercept)|Batch"], boot.estimate["sigma"]
    theory = np.sqrt(sd**2 / 6 + sigma**2 / 30)
    means = boot.replicates["(Intercept)"]
    assert means.mean() == pytest.approx(fit.beta[0], abs=4 * theory / np.sqrt(2000))
    assert means.std() == pytest.approx(theory, rel=4 / np.sqrt(2 * 2000))
    usual = boot.replicates.loc[boot.status == "ok", "sigma"] ** 2
    assert usual.median() == pytest.approx(sigma**2 * scipy.stats.chi2.median(24) / 24, rel=0.04)
    between = sigma**2 + 5 * sd**2
    singular = scipy.stats.f.cdf(sigma**2 / between, 5, 24)
    assert boot.counts["singular"] / 2000 == pytest.approx(singular, abs=4 * np.sqrt(singular / 2000))


def test_semiparametric_keeps_effects_and_draws_residuals(sleep: ClassicalFit) -> None:
    boot = bootstrap(sleep, lambda fit: fit.model.design.y, n=3, kind="semiparametric", seed=1)
    noise = boot.replicates.to_numpy() - sleep.fitted().to_numpy()
    known = np.sort(sleep.residuals().to_numpy())
    nearest = np.abs(known[np.clip(np.searchsorted(known, noise), 1, 179) - np.array([[[0]], [[1]]])] - noise).min(axis=0)
    assert nearest.max() < 1e-9
    assert np.unique(noise.round(6)).size > 100


def test_rows_are_overconfident_where_clusters_are_not() -> None:
    """The lecture's point: rows of a subject are not independent, so resampling them understates the error of the intercept."""
    fit = lmer("Reaction ~ Days + (1 | Subject)", load_dataset("sleepstudy"))
    rows = bootstrap(fit, n=150, kind="case", seed=2).table.loc["(Intercept)", "se"]
    groups = bootstrap(fit, n=150, kind="cluster", seed=2).table.loc["(Intercept)", "se"]
    subjects = (
        load_dataset("sleepstudy").groupby("Subject").apply(lambda d: np.polyfit(d["Days"], d["Reaction"], 1)[1], include_groups=False)
    )
    theory = subjects.std(ddof=0) / np.sqrt(18)
    assert groups == pytest.approx(theory, rel=0.2)
    assert rows < 0.8 * groups


def test_cluster_copies_are_groups_of_their_own() -> None:
    fit = lmer("strength ~ 1 + (1 | batch) + (1 | sample)", load_dataset("Pastes"))
    boot = bootstrap(fit, lambda fit: list(fit.ngroups.values()), n=4, kind="cluster", seed=0)
    assert boot.group == "batch"
    assert boot.replicates.to_numpy().tolist() == [[30.0, 10.0]] * 4


def test_crossed_factors_need_a_group() -> None:
    fit = lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", load_dataset("Penicillin"))
    with pytest.raises(FitError, match=r"plate, sample are crossed.*group="):
        bootstrap(fit, n=2, kind="cluster")
    boot = bootstrap(fit, lambda fit: list(fit.ngroups.values()), n=2, kind="cluster", group="plate", seed=0)
    assert boot.replicates.to_numpy().tolist() == [[24.0, 6.0]] * 2


@pytest.mark.parametrize("kind", ["parametric", "cluster"])
def test_workers_do_not_change_the_results(kind: str, sleep: ClassicalFit) -> None:
    alone, together = (bootstrap(sleep, n=10, kind=kind, seed=7, workers=workers) for workers in (1, 2))
    pd.testing.assert_frame_equal(alone.replicates, together.replicates, rtol=0, atol=0)
    assert list(alone.status) == list(together.status)


def test_entropy_repeats_an_unseeded_run(sleep: ClassicalFit) -> None:
    first = bootstrap(sleep, n=3)
    pd.testing.assert_frame_equal(first.replicates, bootstrap(sleep, n=3, seed=first.entropy).replicates)
    assert not first.replicates.equals(bootstrap(sleep, n=3).replicates)


def test_failures_are_counted_and_shown(sleep: ClassicalFit) -> None:
    def fails_above(fit: ClassicalFit) -> float:
        if fit.beta[1] > sleep.beta[1] + 1e-9:
            raise ValueError("too steep")
        return float(fit.beta[1])

    boot = bootstrap(sleep, fails_above, n=40, seed=3)
    failed = boot.counts["failed"]
    assert 5 < failed < 35
    assert boot.replicates.isna().to_numpy().sum() == failed
    assert boot.failures.to_dict() == {"the statistic raised ValueError: too steep": failed}
    assert f"{failed} failed" in str(boot)
    assert f"{failed} x the statistic raised ValueError: too steep" in str(boot)
    assert boot.table["n"].item() == 40 - failed
    assert f"{failed} failed" in boot.plot().alt


def test_all_failed_is_an_error(sleep: ClassicalFit) -> None:
    calls = []

    def once(fit: ClassicalFit) -> float:
        calls.append(1)
        if len(calls) > 1:
            raise RuntimeError("no more")
        return 1.0

    with pytest.raises(FitError, match=r"all 3 replicates failed: the statistic raised RuntimeError: no more"):
        bootstrap(sleep, once, n=3, seed=1).intervals()


def test_rank_deficient_resample_is_a_failure() -> None:
    rng = np.random.default_rng(1)
    data = pd.DataFrame({"y": rng.normal(size=12), "g": np.repeat(list("abc"), 4), "rare": np.eye(12)[0]})
    boot = bootstrap(lmer("y ~ rare + (1 | g)", data), n=30, kind="case", seed=1)
    assert 3 < boot.counts["failed"] < 20
    assert "do not determine all coefficients" in boot.failures.index[0]


def test_interval_kinds_by_hand(sleep: ClassicalFit) -> None:
    boot = bootstrap(sleep, n=199, seed=4)
    values, estimate_ = np.sort(boot.replicates["Days"]), sleep.beta[1]
    low, high = values[int(0.05 * 200) - 1], values[int(0.95 * 200) - 1]
    assert boot.intervals("percentile", 0.9).loc["Days"].tolist() == pytest.approx([low, high])
    assert boot.intervals("basic", 0.9).loc["Days"].tolist() == pytest.approx([2 * estimate_ - high, 2 * estimate_ - low])
    centre, half = 2 * estimate_ - values.mean(), 1.6448536269514722 * values.std(ddof=1)
    assert boot.intervals("normal", 0.9).loc["Days"].tolist() == pytest.approx([centre - half, centre + half])


def test_bca_by_hand(sleep: ClassicalFit) -> None:
    boot = bootstrap(sleep, n=199, seed=4)
    data = load_dataset("sleepstudy")
    left = []
    for subject in data["Subject"].unique():
        rest = data[data["Subject"] != subject].assign(Subject=lambda d: d["Subject"].astype(str))
        left.append(lmer("Reaction ~ Days + (Days | Subject)", rest).sigma)
    away = np.mean(left) - np.array(left)
    a = np.sum(away**3) / (6 * np.sum(away**2) ** 1.5)
    values = np.sort(boot.replicates["sigma"])
    z0 = scipy.stats.norm.ppf(np.mean(values < sleep.sigma))
    z = scipy.stats.norm.ppf([0.025, 0.975]) + z0
    shares = scipy.stats.norm.cdf(z0 + z / (1 - a * z))
    expected = np.interp(shares * 200, np.arange(1, 200), values)
    assert boot.intervals("bca").loc["sigma"].tolist() == pytest.approx(expected.tolist(), rel=1e-5)


def test_sleepstudy_replicate_takes_milliseconds(sleep: ClassicalFit) -> None:
    """Under 2 ms on a quiet core; three times that here, for a loaded one."""
    bootstrap(sleep, n=5, seed=1)
    times = []
    for _ in range(3):
        before = time.process_time()
        bootstrap(sleep, n=50, seed=1)
        times.append((time.process_time() - before) / 50)
    assert min(times) < 0.006


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "cases"}, "unknown kind of bootstrap 'cases'.*case"),
        ({"n": 0}, "n must be a whole number of at least 1"),
        ({"workers": 1.5}, "workers must be a whole number"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"group": "subject", "kind": "cluster"}, "no grouping factor 'subject'.*Subject"),
    ],
)
def test_bad_arguments_are_refused(options: dict, message: str, sleep: ClassicalFit) -> None:
    with pytest.raises(FitError, match=message):
        bootstrap(sleep, **options)


def test_unknown_interval_is_refused(sleep: ClassicalFit) -> None:
    with pytest.raises(FitError, match="unknown kind of interval 'perc'"):
        bootstrap(sleep, n=2, seed=1).intervals("perc")


def test_model_without_groups(sleep: ClassicalFit) -> None:
    fit = lmer("Reaction ~ Days", load_dataset("sleepstudy"))
    boot = bootstrap(fit, n=300, seed=1)
    assert boot.table.loc["Days", "se"] == pytest.approx(fit.standard_errors[1], rel=4 / np.sqrt(600))
    with pytest.raises(FitError, match="no groups to resample"):
        bootstrap(fit, n=2, kind="cluster")
