"""Checks against replicates: the numbers drawn equal slow twins and closed forms, planted failures are seen, refusals are sentences."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import bayeslmm as bl
from bayeslmm.bayes import draws as posterior_arrays
from bayeslmm.bayes.fit import BayesFit
from bayeslmm.plots.ppc import CHECKS
from bayeslmm.plots.ppc_pit import band
from bayeslmm.plots.ppc_rows import binned
from bayeslmm.plots.ppc_shapes import hanging, kde
from bayeslmm.plots.ppc_statistics import predictive_p
from tests.unit.fakes import FakeFit, FakePosterior, compared

SD, SIGMA = 40.0, 50.0


@pytest.fixture(scope="module")
def dyes() -> Any:
    return bl.model("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))


@pytest.fixture(scope="module")
def sleep() -> Any:
    return FakeFit(bl.model("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")))


@pytest.fixture(scope="module")
def cbpp() -> Any:
    return bl.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", bl.load_dataset("cbpp"), "binomial", n_agq=0)


@pytest.fixture(scope="module")
def ticks() -> Any:
    return bl.glmer("TICKS ~ YEAR + cHEIGHT + (1 | BROOD)", bl.load_dataset("grouseticks"), "poisson", n_agq=0)


@pytest.fixture(scope="module")
def exact(dyes: Any) -> BayesFit:
    """A posterior at known standard deviations under a flat prior of the mean: draws of the exact normal, nothing is sampled by NUTS."""
    fake, chains, length = FakeFit(dyes, sd=SD, sigma=SIGMA), 4, 500
    solution, covariance = fake._solution
    sample = np.random.default_rng(7).multivariate_normal(solution, covariance, size=chains * length).reshape(chains, length, -1)
    variables = {
        "b": (("chain", "draw", "fixed"), sample[..., :1]),
        "sd_Batch": (("chain", "draw", "Batch_effect"), np.full((chains, length, 1), SD)),
        "r_Batch": (("chain", "draw", "Batch", "Batch_effect"), sample[..., 1:, None]),
        "sigma": (("chain", "draw"), np.full((chains, length), SIGMA)),
    }
    coords = {"fixed": ["(Intercept)"], "Batch": list("ABCDEF"), "Batch_effect": ["(Intercept)"]}
    posterior = xr.Dataset(variables, coords=coords)
    likelihood = posterior_arrays.log_likelihood(dyes, posterior_arrays.draws_of(dyes, posterior)).reshape(chains, length, -1)
    tree = xr.DataTree.from_dict({"posterior": posterior, "log_likelihood": xr.Dataset({"y": (("chain", "draw", "obs"), likelihood)})})
    return BayesFit(model=dyes, tree=tree, provenance={})


# Every kind ------------------------------------------------------------------------------------------------------------

GAUSSIAN = ("density", "ecdf", "histogram", "stat", "pit", "intervals", "error")
COUNTS = ("ecdf", "histogram", "rootogram", "stat", "pit", "intervals", "error")


@pytest.mark.parametrize("kind", GAUSSIAN)
def test_every_kind_draws_a_continuous_response_of_both_engines(kind: str, sleep: Any) -> None:
    picture = bl.pp_check(compared(sleep, FakePosterior(sleep.model)), kind, n=12)
    assert set(picture.data["fit"]) == {"REML", "NUTS"}
    assert "REML and NUTS" in picture.alt
    assert "12 and 12 responses simulated of the fitted groups" in picture.alt
    assert picture.png(30).startswith(b"\x89PNG")


@pytest.mark.parametrize("kind", [*COUNTS, "bars", "calibration"])
def test_every_kind_draws_successes_of_trials(kind: str, cbpp: Any) -> None:
    assert len(bl.pp_check(cbpp, kind, n=12).data) > 1


@pytest.mark.parametrize("kind", COUNTS)
def test_every_kind_draws_counts_by_levels(kind: str, ticks: Any) -> None:
    data = bl.pp_check(ticks, kind, n=12, group="YEAR", stat="max" if kind == "stat" else None).data
    assert set(data["level"]) == {"95", "96", "97"}


def test_the_default_kind_follows_the_response(sleep: Any, cbpp: Any, ticks: Any) -> None:
    assert [bl.pp_check(fit, n=5).alt.split("(")[1].split(")")[0] for fit in (sleep, cbpp, ticks)] == ["density", "bars", "rootogram"]


def test_the_names_of_brms_are_taken(sleep: Any) -> None:
    ours, theirs = bl.pp_check(sleep, "density", n=5), bl.pp_check(sleep, "dens_overlay", n=5)
    pd.testing.assert_frame_equal(ours.data, theirs.data)
    assert set(bl.pp_check(sleep, "stat_grouped", n=20).data["group"]) == {"Subject"}


def test_an_unknown_kind_lists_what_exists(sleep: Any) -> None:
    with pytest.raises(bl.FitError, match="no predictive check of kind 'rotogram'; did you mean 'rootogram'") as caught:
        bl.pp_check(sleep, "rotogram")
    assert all(kind in str(caught.value) for kind in CHECKS)


@pytest.mark.parametrize(
    ("which", "kind", "said"),
    [
        ("sleep", "bars", "is of a discrete response, and the gaussian response is continuous"),
        ("sleep", "rootogram", "is of counts, and the gaussian response is continuous; kinds that fit: density"),
        ("sleep", "calibration", "is of probabilities"),
        ("sleep", "loo_pit", "is of a posterior, and REML has no draws"),
        ("cbpp", "density", "is of a continuous response"),
    ],
)
def test_a_kind_that_does_not_fit_says_why(which: str, kind: str, said: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(bl.FitError, match=said):
        bl.pp_check(request.getfixturevalue(which), kind)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kind": "density", "stat": "mean"}, "'density' has no option 'stat'; it is of 'stat'"),
        ({"kind": "stat", "stat": "men"}, "unknown statistic 'men'; did you mean 'mean'"),
        ({"kind": "stat", "stat": "zeros"}, "'zeros' is of counts, and the gaussian response is continuous"),
        ({"kind": "stat", "stat": lambda y: "text"}, "gave no number"),
        (
            {"kind": "density", "group": "Subjekt"},
            "neither a grouping factor of the model nor a column of its data; did you mean 'Subject'",
        ),
        ({"kind": "error", "x": "Dais"}, "did you mean 'Days'"),
        ({"kind": "density", "target": "population"}, "'new_group' \\(groups drawn anew"),
        ({"kind": "density", "n": 0}, "n must be a whole number"),
        ({"kind": "density", "prob": 95}, "prob must lie between 0 and 1"),
        ({"kind": "density", "limit": 0}, "limit must be a whole number"),
    ],
)
def test_options_are_checked(options: dict[str, Any], said: str, sleep: Any) -> None:
    with pytest.raises(bl.FitError, match=said):
        bl.pp_check(sleep, **options)


def test_the_same_seed_makes_the_same_figure(sleep: Any) -> None:
    first, again, other = (bl.pp_check(sleep, "density", n=5, seed=seed).data["sim_1"] for seed in (3, 3, 4))
    assert first.equals(again)
    assert not first.equals(other)


# Statistics ------------------------------------------------------------------------------------------------------------


def test_a_statistic_is_that_of_simulated_responses(sleep: Any) -> None:
    for conditional, target in ((True, "conditional"), (False, "new_group")):
        data = bl.pp_check(sleep, "stat", stat=["sd", np.ptp], n=40, seed=5, target=target).data
        simulated = sleep.simulate(40, conditional=conditional, seed=5)
        np.testing.assert_allclose(data[data["statistic"] == "sd"]["simulated"], simulated.std(ddof=1))
        np.testing.assert_allclose(data[data["statistic"] == "ptp"]["simulated"], simulated.max() - simulated.min())
        assert data[data["statistic"] == "sd"]["observed"].iloc[0] == pytest.approx(sleep.model.design.y.std(ddof=1))


def test_the_p_value_counts_ties_half() -> None:
    assert predictive_p(2.0, np.array([1.0, 2.0, 2.0, 3.0])) == 0.5
    assert predictive_p(5.0, np.array([1.0, 2.0])) == 0.0


def test_statistics_by_level_are_those_of_its_rows(ticks: Any) -> None:
    data = bl.pp_check(ticks, "stat", stat="zeros", group="YEAR", n=30).data.set_index("level")
    rows = ticks.model.frame.groupby("YEAR", observed=True)["TICKS"]
    expected = rows.agg(lambda counts: (counts == 0).mean())
    expected.index = expected.index.astype(str)
    np.testing.assert_allclose(data["observed"], expected.loc[data.index].astype(float))
    assert data["rows"].sum() == ticks.nobs
    outside = (data["observed"] < data["lower"]) | (data["observed"] > data["upper"])
    assert (data["outside"] == outside).all()


def test_proportions_are_compared_where_there_are_trials(cbpp: Any) -> None:
    data = bl.pp_check(cbpp, "stat", stat="max", n=20).data
    design = cbpp.model.design
    assert data["observed"].iloc[0] == pytest.approx((design.y / design.trials).max())


# Shapes ----------------------------------------------------------------------------------------------------------------


def test_the_rootogram_hangs_from_the_expected_roots() -> None:
    rng = np.random.default_rng(2)
    y, simulated = rng.poisson(3.0, 80), rng.poisson(2.5, (60, 80))
    frame = hanging(y.astype(float), simulated.astype(float), np.arange(0, 12) - 0.5, 0.025)
    for value in range(11):
        drawn = [Counter(one.tolist())[value] for one in simulated]
        expected = sum(drawn) / len(drawn)
        row = frame.iloc[value]
        assert row["observed"] == Counter(y.tolist())[value]
        assert row["expected"] == pytest.approx(expected)
        assert row["end"] == pytest.approx(expected**0.5 - Counter(y.tolist())[value] ** 0.5)
        ends = [expected**0.5 - count**0.5 for count in drawn]
        np.testing.assert_allclose([row["lower"], row["upper"]], np.quantile(ends, [0.025, 0.975]))


def test_a_rootogram_sees_too_many_zeros() -> None:
    rng = np.random.default_rng(4)
    data = pd.DataFrame({"g": np.repeat([f"g{i}" for i in range(20)], 20), "y": rng.poisson(4.0, 400) * (rng.random(400) > 0.25)})
    fit = bl.glmer("y ~ 1 + (1 | g)", data, "poisson", n_agq=0)
    zero = bl.pp_check(fit, "rootogram", n=100).data.iloc[0]
    assert zero["end"] < zero["lower"]


def test_counts_beyond_the_widest_share_the_last_bar(ticks: Any) -> None:
    data = bl.pp_check(ticks, "rootogram", n=20).data
    assert np.isinf(data["to"].iloc[-1])
    assert data["observed"].sum() == ticks.nobs


def test_the_kernel_density_is_scipys_and_stays_within_its_ends() -> None:
    values = np.random.default_rng(1).normal(10.0, 2.0, 400)
    at, height = kde(values, 0.0, 20.0)
    iqr = np.subtract(*np.quantile(values, [0.75, 0.25]))
    width = 0.9 * min(values.std(), iqr / 1.34) * len(values) ** -0.2
    twin = stats.gaussian_kde(values, bw_method=width / values.std(ddof=1))(at)
    np.testing.assert_allclose(height, twin, atol=0.01 * twin.max())
    at, height = kde(np.random.default_rng(1).exponential(1.0, 3000), 0.0, 15.0)
    assert np.sum(height) * (at[1] - at[0]) == pytest.approx(1.0, abs=1e-3)
    assert height[0] > 0.8


def test_bars_stand_on_the_levels_of_an_ordered_response() -> None:
    data = bl.load_dataset("VerbAgg")
    few = data[data["id"].astype(int) <= 30]
    fit = bl.glmer("r2 ~ btype + (1 | id)", few, "binomial", n_agq=0)
    picture = bl.pp_check(fit, "bars", n=10)
    assert [tick.get_text() for tick in picture.axes[0].get_xticklabels()] == ["N", "Y"]
    assert picture.data["observed"].tolist() == few["r2"].value_counts().loc[["N", "Y"]].tolist()
    with pytest.raises(bl.FitError, match="says nothing of r2"):
        bl.pp_check(fit, "intervals")


# Rows ------------------------------------------------------------------------------------------------------------------


def test_intervals_are_quantiles_of_the_replicates(sleep: Any) -> None:
    data = bl.pp_check(sleep, "intervals", n=50, seed=2, prob=0.8).data.set_index("row").sort_index()
    simulated = sleep.simulate(50, conditional=True, seed=2)
    np.testing.assert_allclose(data["lower"], simulated.quantile(0.1, axis=1).sort_index())
    np.testing.assert_allclose(data["upper_half"], simulated.quantile(0.75, axis=1).sort_index())
    assert (data["inside"] == data["observed"].between(data["lower"], data["upper"])).all()


def test_mean_errors_of_bins() -> None:
    rng = np.random.default_rng(3)
    x, errors, noise = np.repeat([1.0, 2.0, 5.0], 10), rng.normal(size=30), rng.normal(size=(50, 30))
    table = binned(x, errors, noise, 0.05)
    for number, value in enumerate((1.0, 2.0, 5.0)):
        here = x == value
        row = table.iloc[number]
        assert (row["x"], row["rows"]) == (value, 10)
        assert row["mean"] == pytest.approx(errors[here].mean())
        np.testing.assert_allclose([row["lower"], row["upper"]], np.quantile(noise[:, here].mean(axis=1), [0.05, 0.95]))
    assert binned(rng.normal(size=500), np.zeros(500), np.zeros((3, 500)), 0.05)["rows"].sum() == 500


def test_a_predictor_left_out_shows_in_the_errors() -> None:
    rng = np.random.default_rng(5)
    data = pd.DataFrame({"g": np.tile(list("abcdefgh"), 25), "x": np.linspace(-1, 1, 200)})
    data["y"] = 2.0 * data["x"] ** 2 + np.tile(rng.normal(size=8), 25) + rng.normal(0, 0.3, 200)
    fit = bl.lmer("y ~ x + (1 | g)", data)
    titles = [bl.pp_check(fit, "error", x=name, n=100).axes[0].get_title(loc="left") for name in ("x", "g")]
    assert int(titles[0].split()[0]) >= 5
    assert int(titles[1].split()[0]) <= 1


def test_calibration_is_isotonic_regression(cbpp: Any) -> None:
    data = bl.pp_check(cbpp, "calibration", n=30, seed=1).data
    design = cbpp.model.design
    simulated = cbpp.simulate(30, conditional=True, seed=1).to_numpy() / design.trials[:, None]
    order = np.argsort(simulated.mean(axis=1), kind="stable")
    np.testing.assert_allclose(data["observed"], _pooled((design.y / design.trials)[order], design.trials[order]))


def _pooled(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pool adjacent violators, by hand."""
    blocks = [[value * weight, weight, 1] for value, weight in zip(values, weights, strict=True)]
    at = 0
    while at < len(blocks) - 1:
        if blocks[at][0] / blocks[at][1] > blocks[at + 1][0] / blocks[at + 1][1]:
            blocks[at] = [one + two for one, two in zip(blocks[at], blocks.pop(at + 1), strict=True)]
            at = max(at - 1, 0)
        else:
            at += 1
    return np.concatenate([np.full(size, total / weight) for total, weight, size in blocks])


# PIT -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [30, 400])
def test_the_band_holds_ecdfs_of_uniform_values_with_its_probability(n: int) -> None:
    points = np.arange(1, min(n, 100)) / min(n, 100)
    low, high = band(n, points, 0.9, seed=0)
    rng = np.random.default_rng(11)
    kept = 0
    for _ in range(2000):
        ecdf = np.searchsorted(np.sort(rng.random(n)), points, side="right") / n
        kept += bool(np.all((ecdf >= low - 1e-12) & (ecdf <= high + 1e-12)))
    assert kept / 2000 == pytest.approx(0.9, abs=0.03)  # four standard errors of both simulations


def test_leave_one_out_pit_is_the_closed_form_of_a_normal_model(exact: BayesFit) -> None:
    design = exact.model.design
    Z = design.Z.toarray()
    inverse = np.linalg.inv(SIGMA**2 * np.eye(design.n) + SD**2 * Z @ Z.T)
    P = inverse - inverse @ design.X @ np.linalg.solve(design.X.T @ inverse @ design.X, design.X.T @ inverse)
    closed = stats.norm.cdf((P @ design.y) / np.sqrt(np.diag(P)))
    picture = bl.pp_check(exact, "pit")
    np.testing.assert_allclose(picture.data["pit"], closed, atol=0.05)  # 2000 weighted draws: standard error up to 0.012
    assert "LOO-PIT" in picture.axes[0].get_title(loc="left")
    assert (picture.data["khat"] < 0.7).all()
    pd.testing.assert_frame_equal(bl.pp_check(exact, "loo_pit").data, picture.data)


def test_without_the_log_likelihood_or_of_new_groups_the_pit_is_not_leave_one_out(exact: BayesFit, dyes: Any) -> None:
    bare = BayesFit(model=dyes, tree=xr.DataTree.from_dict({"posterior": exact.tree["posterior"].to_dataset()}), provenance={})
    assert "khat" not in bl.pp_check(bare, "pit", n=50).data
    with pytest.raises(bl.FitError, match="needs the log-likelihood"):
        bl.pp_check(bare, "loo_pit")
    assert "khat" not in bl.pp_check(exact, "pit", target="new_group", n=50).data
    with pytest.raises(bl.FitError, match="about the fitted groups, not target='new_group'"):
        bl.pp_check(exact, "loo_pit", target="new_group")


def test_the_pit_of_a_sound_fit_stays_in_the_band_and_of_too_wide_a_one_leaves_it(sleep: Any) -> None:
    rng = np.random.default_rng(8)
    data = pd.DataFrame({"g": np.repeat([f"g{i}" for i in range(30)], 10)})
    data["y"] = rng.normal(size=300) + np.repeat(rng.normal(size=30), 10)
    fitted = bl.model("y ~ 1 + (1 | g)", data)
    sound, wide = (bl.pp_check(FakeFit(fitted, sd=1.0, sigma=sigma), "pit", n=200) for sigma in (1.0, 2.0))
    assert "within the band" in sound.alt
    assert "leaves the band" in wide.alt
