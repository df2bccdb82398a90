"""`ranova` and tests of one variance: deletions, the boundary's mixture, and the exact test against a simulation of fits."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy.stats import chi2, f_oneway

import bayeslmm as bl
from bayeslmm.classical.variance_tests import RANOVA_COLUMNS, boundary_p_value, variance_test
from bayeslmm.errors import BayesLmmWarning, FitError


def groups(tau: float, *, seed: int, n_groups: int = 10, size: int = 4) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(n_groups), size)
    x = rng.normal(size=len(g))
    y = x + tau * (rng.normal(size=n_groups)[g] + rng.normal(size=n_groups)[g] * x) + rng.normal(size=len(g))
    return pd.DataFrame(
        {
            "y": y,
            "x": x,
            "w": rng.uniform(0.5, 2, size=len(g)),
            "g": [f"g{i:02d}" for i in g],
            "f": rng.choice(["p", "q", "r"], size=len(g)),
        }
    )


# ------------------------------------------------------------------------------------------------------------------------ ranova


def test_deletions_are_the_smaller_fits() -> None:
    frame = groups(1.0, seed=1)
    fit = bl.lmer("y ~ x + (x | g)", frame, weights="w")
    table = bl.ranova(fit)
    assert tuple(table.columns) == RANOVA_COLUMNS
    assert list(table.index) == ["<none>", "x in (x | g)"]
    small = bl.lmer("y ~ x + (1 | g)", frame, weights="w")
    row = table.loc["x in (x | g)"]
    assert row["lrt"] == pytest.approx(small.criterion - fit.criterion, abs=1e-6)
    assert row["df"] == 2
    assert row["p_value"] == pytest.approx(chi2.sf(row["lrt"], 2))
    assert row["p_boundary"] == pytest.approx(0.5 * chi2.sf(row["lrt"], 1) + 0.5 * chi2.sf(row["lrt"], 2))


def test_last_random_term_leaves_a_linear_model() -> None:
    frame = groups(1.0, seed=2)
    fit = bl.lmer("y ~ x + (1 | g)", frame, reml=False)
    row = bl.ranova(fit).loc["(1 | g)"]
    assert row["loglik"] == pytest.approx(bl.lmer("y ~ x", frame, reml=False).loglik)
    assert row["p_boundary"] == pytest.approx(0.5 * row["p_value"])


def test_missing_rows_stay_out() -> None:
    frame = groups(1.0, seed=3)
    frame.loc[[3, 17], "x"] = np.nan
    with pytest.warns(BayesLmmWarning, match="missing"):
        fit = bl.lmer("y ~ 1 + (x | g)", frame)
    table = bl.ranova(fit)
    small = bl.lmer("y ~ 1 + (1 | g)", frame.drop(index=[3, 17]))
    assert table["loglik"].iloc[1] == pytest.approx(small.loglik, rel=1e-9)


def test_interactions_go_before_their_margins() -> None:
    frame = groups(1.0, seed=4, n_groups=20, size=8)
    with pytest.warns(BayesLmmWarning):
        fit = bl.lmer("y ~ x + (f * x | g)", frame)
    assert list(bl.ranova(fit).index) == ["<none>", "f:x in (f * x | g)"]


def test_nothing_to_leave_out_is_refused() -> None:
    with pytest.raises(FitError, match="no random effects"):
        bl.ranova(bl.lmer("y ~ x", groups(0.0, seed=1)))


# ----------------------------------------------------------------------------------------------------------------------- mixture


def test_boundary_p_value_is_that_of_a_truncated_normal() -> None:
    """One variance: the likelihood ratio is the square of the positive part of a standard normal."""
    normal = np.random.default_rng(0).normal(size=200_000)
    ratio = np.maximum(normal, 0.0) ** 2
    for value in (0.5, 2.0, 4.0):
        assert boundary_p_value(value, 1) == pytest.approx(np.mean(ratio >= value), abs=0.004)
    assert boundary_p_value(0.0, 1) == 1.0
    assert np.isnan(boundary_p_value(1.0, 0))


# ------------------------------------------------------------------------------------------------------------------------ exact


def test_exact_test_is_the_distribution_of_fitted_likelihood_ratios() -> None:
    """Fits of 120 data sets without a group effect: their exact p values are uniform, apart from an atom at one."""
    fits = []
    for seed in range(120):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BayesLmmWarning)
            fits.append(bl.lmer("y ~ x + (1 | g)", groups(0.0, seed=seed, n_groups=6, size=3)))
    p_values = np.array([variance_test(fit, seed=5, n_sim=500)["p_value"].iloc[0] for fit in fits])
    for level in (0.05, 0.2, 0.35):
        assert np.mean(p_values <= level) == pytest.approx(level, abs=4.0 * np.sqrt(level * (1 - level) / 120))
    assert np.mean(p_values == 1.0) > 0.4


def test_exact_test_of_a_balanced_layout_is_the_f_test() -> None:
    """One-way and balanced: the restricted likelihood ratio grows with F, so that p is that of the exact F test."""
    frame = groups(0.7, seed=11, n_groups=8, size=5)
    fit = bl.lmer("y ~ 1 + (1 | g)", frame)
    expected = f_oneway(*[part["y"].to_numpy() for _, part in frame.groupby("g")]).pvalue
    found = variance_test(fit, seed=1, n_sim=100_000)["p_value"].iloc[0]
    assert 0.001 < expected < 0.3
    assert found == pytest.approx(expected, abs=4.0 * np.sqrt(expected / 100_000))


def test_mixture_and_names() -> None:
    frame = groups(0.8, seed=5)
    fit = bl.lmer("y ~ x + (1 | g) + (1 | f)", frame.assign(f=frame["f"] + frame["g"].str[-1]))
    with pytest.raises(FitError, match=r"name one: \(1 \| g\), \(1 \| f\)"):
        variance_test(fit)
    with pytest.raises(FitError, match="no random term"):
        variance_test(fit, "(1 | h)")
    row = variance_test(fit, "1|g", method="mixture").iloc[0]
    assert row["p_value"] == pytest.approx(0.5 * chi2.sf(row["rlrt"], 1))
    assert row["rlrt"] == pytest.approx(bl.ranova(fit).loc["(1 | g)", "lrt"], abs=1e-6)


def test_seed_decides() -> None:
    fit = bl.lmer("y ~ x + (1 | g)", groups(0.4, seed=6), weights="w")
    one, two, three = (variance_test(fit, seed=seed, n_sim=500)["p_value"].iloc[0] for seed in (1, 1, 2))
    assert one == two
    assert one != three


def test_ml_fit_is_fitted_again() -> None:
    frame = groups(0.4, seed=6)
    with pytest.warns(BayesLmmWarning, match="again by REML"):
        one = variance_test(bl.lmer("y ~ x + (1 | g)", frame, reml=False), seed=1)
    pd.testing.assert_frame_equal(one, variance_test(bl.lmer("y ~ x + (1 | g)", frame), seed=1), rtol=1e-6)


def test_refusals() -> None:
    fit = bl.lmer("y ~ x + (x | g)", groups(1.0, seed=1))
    with pytest.raises(FitError, match="2 effects"):
        variance_test(fit)
    with pytest.raises(FitError, match="did you mean 'exact'"):
        variance_test(fit, method="exactly")
    with pytest.raises(FitError, match="at least 1"):
        variance_test(fit, n_sim=0)
