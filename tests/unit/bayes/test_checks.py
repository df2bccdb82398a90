"""Each check of a posterior finds the failure that is planted for it, and passes a sound case."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import norm

import bayeslmm as bl
from bayeslmm.bayes.checks import CHECKS, FIT_CHECKS, diagnose, fit_checks, monte_carlo_errors, quick_problem
from bayeslmm.fit import Check

CHAINS, DRAWS = 4, 1000

type Array = np.ndarray


def _tree(b: Array, **stats: Array) -> Any:
    """Return a posterior of one coefficient and a random effect, its statistics sound but for those given."""
    rng = np.random.default_rng(5)
    sound = {
        "diverging": np.zeros(b.shape, dtype=bool),
        "maxdepth_reached": np.zeros(b.shape, dtype=bool),
        "energy": rng.normal(size=b.shape),
    }
    posterior = xr.Dataset({"b": (("chain", "draw"), b), "r_g": (("chain", "draw", "g"), rng.normal(size=(*b.shape, 2)))})
    sampler = xr.Dataset({name: (("chain", "draw"), values) for name, values in (sound | stats).items()})
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": sampler})


def _draws(chains: int = CHAINS, draws: int = DRAWS) -> Array:
    return np.random.default_rng(11).normal(size=(chains, draws))


def _checks(tree: Any, notes: Mapping[str, str] | None = None) -> dict[str, Check]:
    return {check.code: check for check in diagnose(tree, notes)}


def _walk() -> Array:
    """Chains that move slowly: an autoregression of 0.995."""
    noise, walk = _draws(), np.zeros((CHAINS, DRAWS))
    for i in range(1, DRAWS):
        walk[:, i] = 0.995 * walk[:, i - 1] + noise[:, i]
    return walk


def _few_in_the_tails() -> Array:
    """Draws whose middle is independent and whose tails come in runs."""
    b = np.sort(_draws(), axis=1)
    middle = np.random.default_rng(3).permuted(b[:, 100:-100], axis=1)
    return np.concatenate([b[:, :100], middle, b[:, -100:]], axis=1)


FAILURES: dict[str, Any] = {
    "rhat": _tree(_draws() + np.arange(CHAINS)[:, None]),
    "ess_bulk": _tree(_walk()),
    "ess_tail": _tree(_few_in_the_tails()),
    "mcse_mean": _tree(_walk()),
    "mcse_interval": _tree(_walk()),
    "divergences": _tree(_draws(), diverging=np.arange(CHAINS * DRAWS).reshape(CHAINS, DRAWS) == 3),
    "tree_depth": _tree(_draws(), maxdepth_reached=np.tile([True] + [False] * 9, (CHAINS, DRAWS // 10))),
    "ebfmi": _tree(_draws(), energy=np.cumsum(_draws(), axis=1)),
}
NOTES = ("mcse_mean", "mcse_interval", "tree_depth")


@pytest.mark.parametrize("code", FAILURES)
def test_a_planted_failure_is_found_and_said(code: str) -> None:
    check = _checks(FAILURES[code])[code]
    assert not check.passed
    assert check.severity == ("note" if code in NOTES else "error")
    assert check.meaning
    assert check.remedy
    assert code in str(diagnose(FAILURES[code]))


def test_independent_draws_pass() -> None:
    found = diagnose(_tree(_draws()))
    assert [check.code for check in found] == list(FAILURES)
    assert not found.failed
    assert found.ok
    assert len(CHECKS) == len(found) + 1, "only an interruption is said where it happened alone"


def test_an_interruption_comes_first() -> None:
    tree, notes = _tree(_draws() + np.arange(CHAINS)[:, None]), {"interrupted": "10 of 20 draws are there"}
    assert not _checks(tree, notes)["interrupted"].passed
    problem = quick_problem(tree, notes)
    assert problem is not None
    assert problem[0] == "interrupted"
    assert "10 of 20 draws are there" in problem[1]


@pytest.mark.parametrize(("chains", "draws"), [(1, 1000), (4, 3), (1, 1), (2, 4)])
def test_one_chain_and_few_draws_are_failures_not_errors(chains: int, draws: int) -> None:
    found = _checks(_tree(_draws(chains, draws)))
    assert not found["rhat"].passed or (chains, draws) == (2, 4)
    assert found["ess_bulk"].passed is (draws == 1000)
    assert (found["rhat"].severity == "note") is (chains == 1)


def test_monte_carlo_errors_of_independent_normal_draws() -> None:
    draws = np.random.default_rng(2).normal(3.0, 7.0, size=(20, CHAINS, DRAWS))
    mean, end = monte_carlo_errors(draws)
    n = CHAINS * DRAWS
    assert mean.mean() == pytest.approx(1.0 / np.sqrt(n), rel=0.05)
    expected = np.sqrt(0.025 * 0.975 / n) / norm.pdf(norm.ppf(0.025))
    assert end.mean() == pytest.approx(expected, rel=0.25), "the worse of two ends lies somewhat above the error of one"
    moved = np.random.default_rng(4).normal(size=(4000, CHAINS, DRAWS // 10)).mean(axis=(1, 2))
    assert np.std(moved) == pytest.approx(monte_carlo_errors(draws[:, :, : DRAWS // 10])[0].mean(), rel=0.1)


def test_a_parameter_that_never_moves_has_no_monte_carlo_error() -> None:
    mean, end = monte_carlo_errors(np.ones((1, CHAINS, DRAWS)))
    assert np.isnan(mean).all()
    assert np.isnan(end).all()


# --- Against data and priors --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(8)
    g = np.repeat(np.arange(10), 8)
    y = 5.0 + rng.normal(size=10)[g] + rng.normal(size=80)
    return pd.DataFrame({"y": y, "g": [f"g{i}" for i in g]}, index=[f"row{i}" for i in range(80)])


PROPER = (bl.prior("normal(5, 10)", part="intercept"), bl.prior("normal(0, 3)", part="sd"), bl.prior("normal(0, 3)", part="aux"))


@pytest.fixture(scope="module")
def sound(frame: pd.DataFrame) -> bl.BayesFit:
    return bl.brm("y ~ 1 + (1 | g)", frame, priors=PROPER, seed=1, progressbar=False)


def _of(fit: bl.BayesFit, code: str) -> Check:
    return next(check for check in fit.diagnose() if check.code == code)


def test_a_sound_fit_passes_all(sound: bl.BayesFit) -> None:
    diagnostics = sound.diagnose()
    assert {"khat", "prior_conflict"} <= {check.code for check in diagnostics}
    assert not diagnostics.failed, str(diagnostics)
    assert "All checks passed: the draws can be trusted." in str(sound.summary())


def test_a_row_that_decides_the_posterior_is_named(frame: pd.DataFrame) -> None:
    y = frame["y"].to_numpy(copy=True)
    y[17] += 60.0
    fit = bl.brm("y ~ 1 + (1 | g)", frame.assign(y=y), priors=PROPER, seed=1, progressbar=False)
    check = _of(fit, "khat")
    assert not check.passed
    assert check.severity == "note"
    assert check.value > check.limit == pytest.approx(0.7)
    assert "worst: row row17" in check.meaning
    assert "kind='marginal'" in check.remedy
    assert "khat: " in str(fit.summary())


def test_a_prior_far_from_the_data_is_named(frame: pd.DataFrame) -> None:
    priors = (*PROPER[:2], bl.prior("normal(0, 0.1)", part="aux"))
    fit = bl.brm("y ~ 1 + (1 | g)", frame, priors=priors, seed=1, progressbar=False)
    check = _of(fit, "prior_conflict")
    assert not check.passed
    assert check.severity == "note"
    assert "sigma" in check.meaning


def test_where_the_log_likelihood_is_not_kept_they_are_left_out(sound: bl.BayesFit) -> None:
    tree = xr.DataTree.from_dict({name: sound.tree[name].to_dataset() for name in sound.tree.children if name != "log_likelihood"})
    without = dataclasses.replace(sound, tree=tree)
    assert not {"khat", "prior_conflict"} & {check.code for check in without.diagnose()}
    assert "log_likelihood" not in without.tree


@pytest.mark.parametrize(("said", "kept"), [("All tail values are the same", True), ("operands could not be broadcast", False)])
def test_weights_that_cannot_be_smoothed_end_one_check_alone(
    said: str, kept: bool, sound: bl.BayesFit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(fit: bl.BayesFit) -> None:
        raise ValueError(said)

    monkeypatch.setattr("bayeslmm.bayes.checks.FIT_CHECKS", (fails, FIT_CHECKS[0]))
    if kept:
        assert [check.code for check in fit_checks(sound)] == ["khat"]
    else:
        with pytest.raises(ValueError, match="broadcast"):
            fit_checks(sound)
