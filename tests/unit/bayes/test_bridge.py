"""Bridge sampling of densities whose integrals are known, and whether its errors are the errors that it makes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln

from bayeslmm.bayes.bridge import METHODS, bridge
from bayeslmm.errors import FitError

_SHAPE = 1.2


def _draws(rng: np.random.Generator, n: int) -> np.ndarray:
    """log of a gamma variable (skewed), beside three correlated normal ones: (4, n, 4)."""
    u = np.empty((4, n, 4))
    u[..., 0] = np.log(rng.gamma(_SHAPE, size=(4, n)))
    u[..., 1:] = rng.multivariate_normal(np.arange(3.0), _COVARIANCE, size=(4, n))
    return u


_COVARIANCE = np.array([[4.0, 1.5, 0.2], [1.5, 1.0, 0.3], [0.2, 0.3, 0.5]])
_EXACT = 3.0 + float(gammaln(_SHAPE))


def _log_density(u: np.ndarray) -> np.ndarray:
    normal = stats.multivariate_normal(np.arange(3.0), _COVARIANCE)
    return 3.0 + _SHAPE * u[:, 0] - np.exp(u[:, 0]) + normal.logpdf(u[:, 1:])


@pytest.mark.parametrize("method", list(METHODS))
def test_errors_are_those_of_repeated_draws(method: str) -> None:
    scores = []
    for seed in range(30):
        found = bridge(_log_density, _draws(np.random.default_rng(seed), 500), method=method, seed=seed)
        scores.append((found.log_integral - _EXACT) / found.error)
        assert 0.0 < found.error < 0.03
    assert 0.5 < float(np.sqrt(np.mean(np.square(scores)))) < 1.7


def test_the_same_seed_gives_the_same_number() -> None:
    draws = _draws(np.random.default_rng(0), 200)
    assert bridge(_log_density, draws, seed=3) == bridge(_log_density, draws, seed=3)
    assert bridge(_log_density, draws, seed=3) != bridge(_log_density, draws, seed=4)


def test_dependent_draws_count_for_less() -> None:
    independent = _draws(np.random.default_rng(0), 500)
    stuck = np.repeat(independent[:, :50], 10, axis=1)
    first, second = bridge(_log_density, independent, seed=1), bridge(_log_density, stuck, seed=1)
    assert second.n_effective < 0.3 * first.n_effective
    assert second.error > first.error


def test_one_chain_will_do() -> None:
    found = bridge(_log_density, _draws(np.random.default_rng(5), 2000)[:1], seed=1)
    assert found.log_integral == pytest.approx(_EXACT, abs=5 * found.error)


def test_a_constant_offset_of_any_size_is_recovered() -> None:
    draws = _draws(np.random.default_rng(0), 500)
    base = bridge(_log_density, draws, seed=1).log_integral
    assert bridge(lambda u: _log_density(u) - 1e5, draws, seed=1).log_integral == pytest.approx(base - 1e5, abs=1e-6)


def test_points_without_density_are_no_obstacle() -> None:
    """A uniform density on the unit square: proposals outside have none."""
    draws = np.random.default_rng(0).random((4, 1000, 2))

    def log_density(u: np.ndarray) -> np.ndarray:
        return np.where(np.all((u > 0.0) & (u < 1.0), axis=1), 0.0, np.where(u[:, 0] < 0.0, np.nan, -np.inf))

    found = bridge(log_density, draws, seed=1)
    assert found.log_integral == pytest.approx(0.0, abs=4 * found.error)


def test_what_cannot_be_integrated_is_refused() -> None:
    draws = _draws(np.random.default_rng(0), 100)
    with pytest.raises(FitError, match=r"unknown method 'warp'; did you mean 'warp3'\?"):
        bridge(_log_density, draws, method="warp")
    with pytest.raises(FitError, match="4 draws are too few for bridge sampling in 4 dimensions"):
        bridge(_log_density, draws[:1, :4], seed=1)
    with pytest.raises(FitError, match="not a number at some of its own draws"):
        bridge(lambda u: np.full(len(u), np.nan), draws)
    with pytest.raises(FitError, match="the same value in all draws"):
        bridge(lambda u: np.zeros(len(u)), np.zeros((2, 50, 1)))
