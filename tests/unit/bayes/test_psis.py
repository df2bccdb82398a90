"""Pareto smoothing in our kernel against ArviZ's."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.bayes.psis import khats, pareto_smooth, tail_length


@pytest.mark.parametrize("efficiency", [0.3, 1.0, 1.7])
@pytest.mark.parametrize("size", [100, 200, 1000, 4000])
@pytest.mark.parametrize("df", [2, 5, 50])
def test_weights_and_khat_are_arvizs(size: int, df: int, efficiency: float) -> None:
    from arviz_stats.base import array_stats

    raw = np.random.default_rng(size + df).standard_t(df, size)
    expected, k = array_stats.psislw(-raw, r_eff=efficiency)
    smoothed = raw.copy()
    assert pareto_smooth(smoothed, tail_length(size, efficiency)) == pytest.approx(float(k), abs=1e-8)
    assert smoothed == pytest.approx(expected, abs=1e-8)
    assert khats(np.stack([raw, raw]), tail_length(size, efficiency)) == pytest.approx(2 * [float(k)], abs=1e-8)


def test_what_cannot_be_told() -> None:
    same = np.zeros(400)
    assert pareto_smooth(same, tail_length(400, 1.0)) == -np.inf
    assert np.exp(same).sum() == pytest.approx(1.0)
    assert pareto_smooth(np.random.default_rng(1).standard_normal(20), 4) == np.inf
