"""The description of a posterior against quantiles, counts and densities that are known."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import bayeslmm as bl
from bayeslmm.bayes.describe import describe_posterior, rope_range
from bayeslmm.errors import FitError


@cache
def _fit() -> bl.BayesFit:
    """A normal coefficient, a skewed standard deviation, and whatever else there must be."""
    rng = np.random.default_rng(0)
    model = bl.model("Reaction ~ Days + (1 | Subject)", bl.load_dataset("sleepstudy"))
    shape = (4, 5000)
    b = np.stack([rng.normal(250.0, 7.0, shape), rng.normal(3.0, 2.0, shape)], axis=-1)
    variables = {"b": b, "sd_Subject": rng.gamma(2.0, size=(*shape, 1)), "r_Subject": np.zeros((*shape, 18, 1)), "sigma": np.ones(shape)}
    arrays = {name: (("chain", "draw", *(f"{name}_{a}" for a in range(v.ndim - 2))), v) for name, v in variables.items()}
    return bl.BayesFit(model=model, tree=xr.DataTree.from_dict({"posterior": xr.Dataset(arrays)}), provenance={})


def test_normal_draws_are_described_by_their_normal_distribution() -> None:
    row = describe_posterior(_fit(), rope=(-1.0, 1.0)).set_index("term").loc["Days"]
    exact = stats.norm(3.0, 2.0)
    assert row[["median", "mean", "sd"]].tolist() == pytest.approx([3.0, 3.0, 2.0], abs=0.06)
    assert row["map"] == pytest.approx(3.0, abs=0.25)
    assert row[["lower", "upper"]].tolist() == pytest.approx(exact.ppf([0.025, 0.975]).tolist(), abs=0.12)
    assert row["p_direction"] == pytest.approx(exact.sf(0.0), abs=0.01)
    assert row["rope_share"] == pytest.approx(exact.cdf(1.0) - exact.cdf(-1.0), abs=0.01)


def test_the_shortest_interval_of_a_skewed_density_lies_left_of_the_equal_tailed_one() -> None:
    eti, hdi = (describe_posterior(_fit(), parts="sd", interval=kind, prob=0.9).iloc[0] for kind in ("eti", "hdi"))
    exact = stats.gamma(2.0)
    assert eti[["lower", "upper"]].tolist() == pytest.approx(exact.ppf([0.05, 0.95]).tolist(), abs=0.1)
    assert hdi["upper"] - hdi["lower"] < eti["upper"] - eti["lower"]
    assert exact.cdf(hdi["upper"]) - exact.cdf(hdi["lower"]) == pytest.approx(0.9, abs=0.01)
    assert exact.pdf(hdi["lower"]) == pytest.approx(exact.pdf(hdi["upper"]), abs=0.03)
    assert exact.pdf(eti["map"]) > 0.97 * exact.pdf(1.0)


def test_long_tails_do_not_move_the_highest_point() -> None:
    values = np.random.default_rng(0).lognormal(1.0, 2.0, size=(4, 5000))
    fit = _fit()
    posterior = fit.tree["posterior"].to_dataset().assign(sigma=(("chain", "draw"), values))
    heavy = bl.BayesFit(model=fit.model, tree=xr.DataTree.from_dict({"posterior": posterior}), provenance={})
    row = describe_posterior(heavy, parts="aux").iloc[0]
    assert stats.lognorm(2.0, scale=math.e).pdf(row["map"]) > 0.8 * stats.lognorm(2.0, scale=math.e).pdf(math.exp(1.0 - 4.0))


def test_the_share_of_the_interval_leaves_its_tails_out() -> None:
    rope = {"Days": (-20.0, 3.0)}
    whole, inside = (describe_posterior(_fit(), rope, rope_of=of, prob=0.5).set_index("term") for of in ("posterior", "interval"))
    assert whole.loc["Days", "rope_share"] == pytest.approx(0.5, abs=0.02)
    exact = stats.norm(3.0, 2.0)
    assert inside.loc["Days", "rope_share"] == pytest.approx((0.5 - exact.cdf(exact.ppf(0.25))) / 0.5, abs=0.02)
    assert math.isnan(whole.loc["(Intercept)", "rope_share"])


def test_the_default_region_is_of_the_coefficients_but_the_intercept() -> None:
    table = describe_posterior(_fit(), parts=("fixed", "sd", "aux")).set_index("term")
    tenth = 0.1 * bl.load_dataset("sleepstudy")["Reaction"].std()
    assert table.loc["Days", ["rope_low", "rope_high"]].tolist() == pytest.approx([-tenth, tenth])
    assert table["rope_low"].isna().tolist() == [True, False, True, True]
    assert table["part"].tolist() == ["fixed", "fixed", "sd", "aux"]
    assert table.loc["sigma", ["map", "lower", "upper", "p_direction"]].tolist() == [1.0, 1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("formula", "options", "expected"),
    [
        ("y ~ x", {}, 0.1 * np.std([1.0, 2.0, 4.0, 8.0], ddof=1)),
        ("log(y) ~ x", {}, 0.01),
        ("y ~ x", {"link": "log"}, 0.01),
        ("y ~ x", {"family": "lognormal"}, 0.01),
        ("yes ~ x", {"family": "bernoulli"}, 0.1 * math.pi / math.sqrt(3.0)),
        ("yes ~ x", {"family": "bernoulli", "link": "probit"}, 0.1),
        ("count ~ x", {"family": "poisson"}, 0.1),
    ],
)
def test_regions_follow_family_and_link(formula: str, options: dict[str, Any], expected: float) -> None:
    data = pd.DataFrame({"y": [1.0, 2.0, 4.0, 8.0], "x": [0.0, 1.0, 1.0, 3.0], "yes": [0, 1, 0, 1], "count": [1, 0, 3, 2]})
    assert rope_range(bl.model(formula, data, **options)) == pytest.approx((-expected, expected))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interval": "hpd"}, "unknown interval 'hpd'; did you mean 'hdi'"),
        ({"rope_of": "all"}, "unknown rope_of 'all'; known: interval, posterior"),
        ({"parts": "random"}, "unknown part 'random'; known: aux, cor, fixed, sd"),
        ({"prob": 95}, "prob must lie between 0 and 1, not 95"),
        ({"rope": (1, -1)}, "the lower one first"),
        ({"rope": 0.1}, r"rope is a pair \(low, high\), not 0.1"),
        ({"rope": {"Day": (-1, 1)}}, "no term 'Day' in this table; did you mean 'Days'"),
    ],
)
def test_options_that_there_are_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FitError, match=message):
        describe_posterior(_fit(), **options)


def test_a_classical_fit_has_no_posterior() -> None:
    fit = bl.lmer("Reaction ~ Days + (1 | Subject)", bl.load_dataset("sleepstudy"))
    with pytest.raises(FitError, match="of posteriors, which `brm` makes, not of ClassicalFit"):
        describe_posterior(fit)  # type: ignore[arg-type]
