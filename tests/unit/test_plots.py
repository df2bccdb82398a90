"""Figures: every kind draws fits and comparisons, holds the numbers it shows, says what it is, and leaves matplotlib's state alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bayeslmm.classical import glmer, lmer
from bayeslmm.datasets import load_dataset
from bayeslmm.errors import FitError
from bayeslmm.model import model
from bayeslmm.plots import KINDS, compare_plot, plot
from tests.unit.fakes import FakeFit, FakePosterior, compared

OF_DRAWS = ("trace", "rank", "pairs", "prior_posterior")
OF_SAMPLERS = ("energy", "khat")
"""Of the sampler's statistics and the log-likelihood: see `test_plots_draws.py`."""
OF_ESTIMATES = tuple(kind for kind in KINDS if kind != "profile" and kind not in OF_SAMPLERS)
"""All but the figure that fits again, which needs a fit by the classical engine."""


@pytest.fixture(scope="module")
def sleep() -> Any:
    return model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))


@pytest.fixture(scope="module")
def both(sleep: Any) -> Any:
    return compared(FakeFit(sleep), FakePosterior(sleep))


@pytest.mark.parametrize("kind", OF_ESTIMATES)
def test_every_kind_draws_a_comparison(kind: str, both: Any) -> None:
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    before = pyplot.get_fignums()
    picture = plot(both, kind)
    assert isinstance(picture, Figure)
    assert len(picture.alt) > 40
    assert "NUTS" in picture.alt
    assert len(picture.data) > 0
    assert pyplot.get_fignums() == before
    assert picture.png(40).startswith(b"\x89PNG")
    assert picture.svg().count("<svg") == 1


@pytest.mark.parametrize("kind", [kind for kind in OF_ESTIMATES if kind not in OF_DRAWS])
def test_one_fit_alone_is_drawn_too(kind: str, sleep: Any) -> None:
    assert "REML" in plot(FakeFit(sleep), kind).alt


@pytest.mark.parametrize("kind", [*OF_DRAWS, "energy"])
def test_draws_are_asked_of_a_posterior_only(kind: str, sleep: Any) -> None:
    with pytest.raises(FitError, match="shows draws of a posterior, and REML has none"):
        plot(FakeFit(sleep), kind)


def test_profile_is_drawn_of_the_first_classical_fit() -> None:
    fit = lmer("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff"))
    picture = plot(compared(fit, FakePosterior(fit.model)), "profile", parameters=["sd_(Intercept)|Batch", "(Intercept)"])
    assert set(picture.data["parameter"]) == {"sd_(Intercept)|Batch", "(Intercept)"}
    assert "ML refit" in picture.alt
    assert [axes.get_title() for axes in picture.axes] == ["sd_(Intercept)\n| Batch", "(Intercept)"]


def test_profile_needs_a_likelihood(sleep: Any) -> None:
    with pytest.raises(FitError, match="shows a likelihood, and NUTS has none"):
        plot(FakePosterior(sleep), "profile")


def test_ranks_need_two_chains(sleep: Any) -> None:
    with pytest.raises(FitError, match="compares chains, and there is one only"):
        plot(FakePosterior(sleep, n_chains=1), "rank")


def test_chains_that_agree_stay_in_the_band_and_one_that_does_not_leaves_it(sleep: Any) -> None:
    from types import SimpleNamespace

    from bayeslmm.plots import rank
    from bayeslmm.plots.common import Source

    rng = np.random.default_rng(3)
    for chains in (2, 4):
        sound, odd = rng.normal(size=(chains, 300)), rng.normal(size=(chains, 300))
        odd[0] += 1.0
        assert not _leaves_the_band(rank, Source, SimpleNamespace, sound)
        assert _leaves_the_band(rank, Source, SimpleNamespace, odd)


def _leaves_the_band(rank: Any, source: Any, namespace: Any, values: np.ndarray) -> bool:
    """Draw one parameter and say whether any chain's line lies outside the grey band."""
    import xarray as xr

    tree = xr.DataTree.from_dict({"posterior": xr.Dataset({"sigma": (("chain", "draw"), values)})})
    fit = namespace(tree=tree)
    axes = rank.draw(source(fits=(fit,), labels=("NUTS",))).axes[0]
    band = axes.collections[0].get_paths()[0].vertices
    edges = {side: band[np.sign(band[:, 1]) == side] for side in (-1, 1)}
    outside = False
    for line in axes.lines:
        x, y = np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
        for side in (-1, 1):
            edge = edges[side][np.argsort(edges[side][:, 0])]
            outside |= bool(np.any(side * y > side * np.interp(x, edge[:, 0], edge[:, 1]) + 0.02))
    return outside


def test_an_unknown_kind_lists_the_known(sleep: Any) -> None:
    with pytest.raises(FitError, match="no figure of kind 'rannef'; did you mean 'ranef'") as caught:
        plot(FakeFit(sleep), "rannef")
    assert all(kind in str(caught.value) for kind in KINDS)


def test_an_unknown_option_and_a_stranger_are_refused(sleep: Any) -> None:
    with pytest.raises(FitError, match="has no option 'grup'; did you mean 'group'"):
        plot(FakeFit(sleep), "ranef", grup="Subject")
    with pytest.raises(FitError, match="not of DataFrame"):
        plot(pd.DataFrame(), "ranef")


def test_fitted_lines_are_the_predictions(sleep: Any) -> None:
    fit = FakeFit(sleep)
    data = plot(fit, "fitted").data
    here = data[data["level"] == "337"]
    coefficients = fit.fixef() + fit.ranef()["Subject"].loc["337"]
    np.testing.assert_allclose(here["estimate"], coefficients["(Intercept)"] + coefficients["Days"] * here["Days"].astype(float))
    assert here["Days"].min() == 0
    assert here["Days"].max() == 9


def test_the_caterpillar_holds_the_random_effects_with_normal_intervals(sleep: Any) -> None:
    fit = FakeFit(sleep)
    values, sds = fit.ranef(condsd=True)["Subject"]
    data = plot(fit, "ranef", prob=0.9).data.set_index(["level", "effect"])
    row = data.loc[("308", "Days")]
    assert row["estimate"] == pytest.approx(values.loc["308", "Days"])
    assert row["upper"] - row["estimate"] == pytest.approx(1.6448536 * sds.loc["308", "Days"])


def test_the_caterpillar_of_a_posterior_holds_its_quantiles(sleep: Any) -> None:
    fit = FakePosterior(sleep)
    block = sleep.design.blocks[0]
    draws = fit.draws().effects[0][:, block.levels.index("308"), 1]
    row = plot(fit, "ranef").data.set_index(["level", "effect"]).loc[("308", "Days")]
    np.testing.assert_allclose([row["lower"], row["upper"]], np.quantile(draws, [0.025, 0.975]))


def test_the_forest_stands_on_the_first_fit(both: Any) -> None:
    data = compare_plot(both).data
    first = data[data["fit"] == "REML"]
    np.testing.assert_allclose(first["z"], 0.0)
    fixed = both.table[both.table["part"] == "fixed"].set_index("term").loc["Days"]
    z = data[(data["fit"] == "NUTS") & (data["term"] == "Days") & (data["part"] == "fixed")]["z"].iloc[0]
    assert z == pytest.approx((fixed["NUTS"] - fixed["REML"]) / fixed["REML_se"])


def test_residuals_are_those_of_the_fit_in_units_of_sigma(sleep: Any) -> None:
    fit = FakeFit(sleep)
    data = plot(fit, "residuals").data
    np.testing.assert_allclose(data["residual"], fit.residuals() / fit.sigma)


def test_trace_names_parameters_as_lme4_does(sleep: Any) -> None:
    columns = set(plot(FakePosterior(sleep), "trace").data.columns)
    assert {"(Intercept)", "Days", "sd Days | Subject", "cor Days.(Intercept) | Subject", "sigma"} <= columns


def test_a_factor_stands_on_the_axis_and_other_groups_at_zero() -> None:
    data = load_dataset("Penicillin").assign(
        half=lambda frame: pd.Categorical(["odd" if code % 2 else "even" for code in frame["plate"].cat.codes])
    )
    fit = FakeFit(model("diameter ~ half + (1 | plate) + (1 | sample)", data))
    drawn = plot(fit, "fitted", group="sample").data
    fixed, shift = fit.fixef(), fit.ranef()["sample"]["(Intercept)"]["A"]
    here = drawn[drawn["level"] == "A"].set_index("half")["estimate"]
    assert here["even"] == pytest.approx(fixed["(Intercept)"] + shift)
    assert here["odd"] == pytest.approx(fixed["(Intercept)"] + fixed["halfodd"] + shift)


def test_without_a_predictor_the_levels_are_on_the_axis() -> None:
    fit = FakePosterior(model("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")))
    data = plot(fit, "fitted").data
    assert data["level"].tolist() == list("ABCDEF")
    assert (data["lower"] < data["upper"]).all()


def test_many_levels_are_thinned_and_unknown_groups_refused(sleep: Any) -> None:
    assert plot(FakeFit(sleep), "fitted", limit=5).data["level"].nunique() == 5
    for kind in ("fitted", "ranef"):
        with pytest.raises(FitError, match="no grouping factor 'Subjekt'; did you mean 'Subject'"):
            plot(FakeFit(sleep), kind, group="Subjekt")
    with pytest.raises(FitError, match="no column 'Dais' for the horizontal axis; did you mean 'Days'"):
        plot(FakeFit(sleep), "fitted", x="Dais")


def test_dollar_signs_in_names_are_not_read_as_mathematics() -> None:
    data = load_dataset("Dyestuff").assign(Batch=lambda frame: frame["Batch"].cat.rename_categories(lambda level: f"$\\frac{level}$"))
    assert plot(FakeFit(model("Yield ~ 1 + (1 | Batch)", data)), "ranef").png(40)


def test_counts_are_compared_as_counts() -> None:
    fit = glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", load_dataset("cbpp"), "binomial", n_agq=0)
    picture = plot(fit, "ppc", n=10)
    assert picture.get_supylabel() == "rows"
    assert picture.data["observed"].sum() == fit.nobs


def test_the_same_figure_twice_is_the_same_file(sleep: Any) -> None:
    assert plot(FakeFit(sleep), "fitted", limit=4).svg() == plot(FakeFit(sleep), "fitted", limit=4).svg()


def test_importing_the_package_and_asking_for_plot_loads_no_matplotlib() -> None:
    code = "import sys, bayeslmm; bayeslmm.plot; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
