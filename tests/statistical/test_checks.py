"""Level and power of the checks of counts: sound models are flagged in at most 5 %, planted overdispersion and zeros nearly always."""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import bayeslmm as bl
from bayeslmm.checks import model_checks, outliers, overdispersion, trend, uniformity, zero_inflation
from bayeslmm.errors import SingularFitWarning

pytestmark = pytest.mark.slow

REPLICATES = 200
LEVEL = 0.05
HIGH = LEVEL + 3.0 * np.sqrt(LEVEL * (1.0 - LEVEL) / REPLICATES)
N = 199


def poisson(seed: int, *, spread: float = 0.0, zeros: float = 0.0, groups: int = 20, size: int = 10, sd: float = 0.6) -> bl.ClassicalFit:
    """Fit a Poisson model to counts with gamma factors of variance `spread`, and a share of `zeros` more."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(groups), size)
    x = rng.normal(size=len(g))
    mu = np.exp(0.7 + 0.5 * x + sd * rng.normal(size=groups)[g])
    mu = mu * rng.gamma(1.0 / spread, spread, len(g)) if spread else mu
    y = rng.poisson(mu) * (rng.random(len(g)) >= zeros)
    return _fitted("y ~ x + (1 | g)", pd.DataFrame({"y": y, "x": x, "g": g.astype(str)}), "poisson")


def binomial(seed: int, *, spread: float = 0.0, zeros: float = 0.0) -> bl.ClassicalFit:
    """Fit a binomial model to successes with beta probabilities of intraclass correlation `spread`, and a share of `zeros` more."""
    rng = np.random.default_rng(seed)
    g = np.repeat(np.arange(20), 10)
    x, n = rng.normal(size=200), rng.integers(5, 25, 200)
    p = expit(-0.5 + 0.5 * x + 0.6 * rng.normal(size=20)[g])
    p = rng.beta(p * (1.0 / spread - 1.0), (1.0 - p) * (1.0 / spread - 1.0)) if spread else p
    k = rng.binomial(n, p) * (rng.random(200) >= zeros)
    return _fitted("cbind(k, n - k) ~ x + (1 | g)", pd.DataFrame({"k": k, "n": n, "x": x, "g": g.astype(str)}), "binomial")


def _fitted(formula: str, data: pd.DataFrame, family: str) -> bl.ClassicalFit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SingularFitWarning)
        return bl.glmer(formula, data, family)


MAKERS = {"poisson": poisson, "binomial": binomial}
SOUND = ("overdispersion", "overdispersion, groups anew", "zero_inflation", "uniformity", "outliers", "trend", "trend by x")


@cache
def sound(family: str) -> pd.DataFrame:
    """Return which checks flag sound models: rows replicates, columns checks."""
    flagged = []
    for seed in range(REPLICATES):
        fit = MAKERS[family](seed)
        p_values = (
            overdispersion(fit, n=N, seed=seed).p_value,
            overdispersion(fit, n=N, seed=seed, conditional=False).p_value,
            zero_inflation(fit, n=N, seed=seed).p_value,
            uniformity(fit, n=N, seed=seed).p_value,
            outliers(fit, n=N, seed=seed).p_value,
            trend(fit, n=N, seed=seed).p_value,
            trend(fit, "x", n=N, seed=seed).p_value,
        )
        row = dict(zip(SOUND, np.array(p_values) < LEVEL, strict=True))
        flagged.append(row | {f"{check.code} at fit": not check.passed for check in model_checks(fit)})
    return pd.DataFrame(flagged)


@pytest.mark.parametrize("family", MAKERS)
def test_sound_models_are_flagged_in_at_most_five_percent(family: str) -> None:
    shares = sound(family).mean()
    assert {"overdispersion at fit", "zero_inflation at fit"} <= set(shares.index)
    assert shares.max() < HIGH, shares


@pytest.mark.parametrize(("family", "spread"), [("poisson", 0.3), ("binomial", 0.1)])
def test_planted_overdispersion_is_found(family: str, spread: float) -> None:
    found, at_fit = [], []
    for seed in range(REPLICATES // 4):
        fit = MAKERS[family](seed, spread=spread)
        found.append(overdispersion(fit, n=N).p_value < LEVEL)
        at_fit.append(next(not check.passed for check in model_checks(fit) if check.code == "overdispersion"))
    assert np.mean(found) > 0.95
    assert np.mean(at_fit) > 0.95


@pytest.mark.parametrize(("family", "zeros"), [("poisson", 0.3), ("binomial", 0.1)])
def test_planted_zeros_are_found(family: str, zeros: float) -> None:
    found, at_fit = [], []
    for seed in range(REPLICATES // 4):
        fit = MAKERS[family](seed, zeros=zeros)
        found.append(zero_inflation(fit, n=N).p_value < LEVEL)
        at_fit.append(next(not check.passed for check in model_checks(fit) if check.code == "zero_inflation"))
    assert np.mean(found) > 0.95
    assert np.mean(at_fit) > 0.95


def test_few_large_groups_are_no_misfit() -> None:
    """Kolmogorov's own p value takes the rows of a group for independent."""
    found = [uniformity(poisson(seed, groups=8, size=50, sd=1.5), n=N, seed=seed) for seed in range(REPLICATES // 2)]
    assert np.mean([one.p_value < LEVEL for one in found]) < HIGH
    assert np.mean([one.independent_p_value < LEVEL for one in found]) > 0.4
