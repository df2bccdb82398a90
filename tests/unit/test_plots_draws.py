"""Figures of posterior draws: priors are exact densities, divergences are counted, energies and k-hats are those of ArviZ and `loo`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import bayeslmm as bl
from bayeslmm.bayes import draws as posterior_arrays
from bayeslmm.bayes.fit import BayesFit
from tests.unit.fakes import FakeFit, FakePosterior


@pytest.fixture(scope="module")
def posterior() -> BayesFit:
    """A posterior with what a sampler says of its draws; nothing is sampled."""
    model = bl.model("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    groups = {"posterior": FakePosterior(model, n_chains=2, n_draws=150).tree["posterior"].to_dataset()}
    rng = np.random.default_rng(3)
    diverging = np.zeros((2, 150), dtype=bool)
    diverging[0, [3, 70]] = True
    statistics = {"diverging": (("chain", "draw"), diverging), "energy": (("chain", "draw"), rng.gamma(4.0, size=(2, 150)))}
    groups["sample_stats"] = xr.Dataset(statistics)
    likelihood = posterior_arrays.log_likelihood(model, posterior_arrays.draws_of(model, groups["posterior"])).reshape(2, 150, -1)
    groups["log_likelihood"] = xr.Dataset({"y": (("chain", "draw", "obs"), likelihood)})
    return BayesFit(model=model, tree=xr.DataTree.from_dict(groups), provenance={})


def test_priors_are_drawn_as_their_exact_densities(posterior: BayesFit) -> None:
    data = bl.plot(posterior, "prior_posterior").data
    table = posterior.model.priors.set_index(["part", "term"])["prior"]
    numbers = {part: [float(x) for x in text.split("(")[1].rstrip(")").split(",")] for part, text in table.items()}
    slope, sigma = data[data["parameter"] == "Days"], data[data["parameter"] == "sigma"]
    np.testing.assert_allclose(slope["prior"], stats.norm(*numbers["fixed", "Days"]).pdf(slope["x"]))
    nu, mu, scale = numbers["aux", "sigma"]
    np.testing.assert_allclose(sigma["prior"], 2.0 * stats.t(nu, mu, scale).pdf(sigma["x"]))
    correlation = data[data["parameter"] == "cor Days.(Intercept) | Subject"]
    np.testing.assert_allclose(correlation["prior"], stats.beta(2, 2).pdf((correlation["x"] + 1) / 2) / 2)  # lkj(2) of two effects
    for _, part in data.groupby("parameter"):
        assert np.trapezoid(part["posterior"], part["x"]) == pytest.approx(1.0, abs=0.02)


def test_the_intercept_is_that_of_the_centred_design(posterior: BayesFit) -> None:
    data = bl.plot(posterior, "prior_posterior").data
    part = data[data["parameter"] == "(Intercept), centred"]
    mean = np.trapezoid(part["posterior"] * part["x"], part["x"])
    assert mean == pytest.approx(posterior.model.design.y.mean(), abs=3.0)


def test_a_correlation_of_three_effects_has_the_marginal_of_lkj() -> None:
    """The density drawn is that of matrices drawn from LKJ(2), by vines: their share below 0.5 agrees."""
    data = bl.load_dataset("sleepstudy").assign(late=lambda frame: (frame["Days"] > 4).astype(float))
    model = bl.model("Reaction ~ Days + (Days + late | Subject)", data)
    tree = FakePosterior(model, n_chains=1, n_draws=60).tree
    part = bl.plot(BayesFit(model=model, tree=tree, provenance={}), "prior_posterior").data
    part = part[part["parameter"] == "cor late.Days | Subject"]
    rng = np.random.default_rng(1)
    z12, z13 = (2.0 * rng.beta(2.5, 2.5, 100_000) - 1.0 for _ in range(2))
    z23 = 2.0 * rng.beta(2.0, 2.0, 100_000) - 1.0
    third = z23 * np.sqrt((1 - z12**2) * (1 - z13**2)) + z12 * z13
    below = part["x"] < 0.5
    assert np.trapezoid(part["prior"][below], part["x"][below]) == pytest.approx(np.mean(third < 0.5), abs=0.01)


def test_an_improper_prior_is_named() -> None:
    model = bl.model("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"), priors=[bl.prior("flat()", part="intercept")])
    picture = bl.plot(BayesFit(model=model, tree=FakePosterior(model).tree, provenance={}), "prior_posterior")
    assert picture.data[picture.data["parameter"] == "(Intercept)"]["prior"].isna().all()
    assert any("improper" in text.get_text() for text in picture.axes[0].texts)


def test_pairs_mark_what_diverged(posterior: BayesFit) -> None:
    picture = bl.plot(posterior, "pairs", parameters=["sigma", "sd Days | Subject"])
    assert picture.data["diverging"].sum() == 2
    assert "2 of 300 transitions diverged" in picture.alt
    assert picture.legends[0].get_texts()[1].get_text() == "2 of 300 divergent"
    scatter = picture.axes[2].lines
    np.testing.assert_allclose(np.asarray(scatter[1].get_xdata(), dtype=float), picture.data["sigma"][picture.data["diverging"]])
    with pytest.raises(bl.FitError, match="no parameter 'sigm'; did you mean 'sigma'"):
        bl.plot(posterior, "pairs", parameters=["sigm", "Days"])
    with pytest.raises(bl.FitError, match="two parameters or more"):
        bl.plot(posterior, "pairs", parameters="sigma")


def test_the_energy_figure_says_e_bfmi(posterior: BayesFit) -> None:
    import arviz_stats

    expected = arviz_stats.bfmi(posterior.tree)["energy"].to_numpy()  # type: ignore[attr-defined,no-untyped-call]
    titles = [panel.get_title(loc="left") for panel in bl.plot(posterior, "energy").axes[:2]]
    assert titles == [f"chain {number + 1}: E-BFMI {value:.2f}" for number, value in enumerate(expected)]


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.ConvergenceWarning")
def test_the_khat_figure_shows_those_of_loo(posterior: BayesFit) -> None:
    data = bl.plot(posterior, "khat").data
    np.testing.assert_allclose(data["khat"], bl.loo(posterior).pareto_k)
    assert len(data) == posterior.nobs
    with pytest.raises(bl.FitError, match="is of a posterior, and REML has none"):
        bl.plot(FakeFit(posterior.model), "khat")


def test_without_statistics_of_the_sampler_the_energy_is_refused(posterior: BayesFit) -> None:
    bare: Any = BayesFit(
        model=posterior.model, tree=xr.DataTree.from_dict({"posterior": posterior.tree["posterior"].to_dataset()}), provenance={}
    )
    with pytest.raises(bl.FitError, match="needs the sampler's energies"):
        bl.plot(bare, "energy")
    assert bl.plot(bare, "pairs").data["diverging"].sum() == 0
