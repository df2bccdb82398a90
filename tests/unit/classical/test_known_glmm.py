"""`glmer` with a known covariance among levels: Laplace's approximation by dense matrices is the twin."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import gammaln

import bayeslmm as bl
from bayeslmm.classical.fit import ClassicalFit

LEVELS = [f"a{i}" for i in range(12)]


@pytest.fixture(scope="module")
def K() -> pd.DataFrame:
    A = np.random.default_rng(2).normal(size=(12, 15))
    return pd.DataFrame(A @ A.T / 15 + 0.2 * np.eye(12), index=LEVELS, columns=LEVELS)


@pytest.fixture(scope="module")
def counts(K: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(5)
    animal, herd, x = rng.integers(0, 12, size=150), rng.integers(0, 9, size=150), rng.normal(size=150)
    b = np.linalg.cholesky(K.to_numpy()) @ rng.normal(size=(12, 2)) * [0.7, 0.4]
    eta = 0.4 + 0.3 * x + b[animal, 0] + b[animal, 1] * x + 0.5 * rng.normal(size=9)[herd]
    names = {"a": [LEVELS[i] for i in animal], "h": [f"h{i}" for i in herd]}
    return pd.DataFrame({"y": rng.poisson(np.exp(eta)), "x": x, **names})


def _root(fit: ClassicalFit, K: pd.DataFrame, scale: tuple[float, ...]) -> np.ndarray:
    """Return Z times the Cholesky factor of all random effects' covariance (n, q), the blocks' covariances times `scale`."""
    parts = []
    for block, covariance, times in zip(fit.model.design.blocks, fit.covariances, scale, strict=True):
        n, k = block.values.shape
        Z = np.zeros((n, block.n_levels, k))
        Z[np.arange(n), block.index] = block.values
        among = K.loc[list(block.levels), list(block.levels)].to_numpy() if block.group == "a" else np.eye(block.n_levels)
        own = np.linalg.cholesky(times * covariance + 1e-300 * np.eye(k))
        parts.append(Z.reshape(n, -1) @ np.kron(np.linalg.cholesky(among), own))
    return np.hstack(parts)


def _dense(fit: ClassicalFit, K: pd.DataFrame, beta: np.ndarray, scale: tuple[float, ...]) -> tuple[float, np.ndarray, np.ndarray]:
    """Return -2 log L of a Poisson model, the predictor and the Hessian at the mode."""
    design = fit.model.design
    A = _root(fit, K, scale)
    u = np.zeros(A.shape[1])
    for _ in range(100):
        mu = np.exp(design.X @ beta + A @ u)
        u = u + np.linalg.solve(A.T @ (mu[:, None] * A) + np.eye(len(u)), A.T @ (design.y - mu) - u)
    eta = design.X @ beta + A @ u
    S = A.T @ (np.exp(eta)[:, None] * A) + np.eye(len(u))
    loglik = np.sum(design.y * eta - np.exp(eta) - gammaln(design.y + 1.0))
    return float(-2.0 * loglik + u @ u + np.linalg.slogdet(S)[1]), eta, S


@pytest.mark.parametrize(
    "term",
    ["(1 | gr(a, cov = K))", "(1 | gr(a, cov = K)) + (1 | h)", "(x || gr(a, cov = K)) + (1 | h)", "(x | gr(a, cov = K))"],
)
def test_fit_is_the_optimum_of_the_dense_likelihood(counts: pd.DataFrame, K: pd.DataFrame, term: str) -> None:
    fit = bl.glmer(f"y ~ x + {term}", counts, "poisson", data2={"K": K})
    ones = (1.0,) * len(fit.covariances)
    value, eta, _ = _dense(fit, K, fit.beta, ones)
    assert fit.convergence == "converged"
    assert fit.criterion == pytest.approx(value, abs=1e-8)
    np.testing.assert_allclose(fit.fitted(), np.exp(eta), rtol=1e-8)
    for step in 1e-4 * np.eye(2):
        slope = (_dense(fit, K, fit.beta + step, ones)[0] - _dense(fit, K, fit.beta - step, ones)[0]) / 2e-4
        assert abs(slope) < 1e-4
    for i in range(len(ones)):
        more, less = (tuple(1.0 + h * (i == j) for j in range(len(ones))) for h in (1e-4, -1e-4))
        assert abs(_dense(fit, K, fit.beta, more)[0] - _dense(fit, K, fit.beta, less)[0]) / 2e-4 < 1e-3


def test_conditional_variances_are_those_of_dense_matrices(counts: pd.DataFrame, K: pd.DataFrame) -> None:
    fit = bl.glmer("y ~ x + (1 | gr(a, cov = K))", counts, "poisson", data2={"K": K})
    (block,) = fit.model.design.blocks
    Z = np.eye(block.n_levels)[block.index]
    among = K.loc[list(block.levels), list(block.levels)].to_numpy() * fit.covariances[0]
    V = np.linalg.inv(Z.T @ (fit.fitted().to_numpy()[:, None] * Z) + np.linalg.inv(among))
    np.testing.assert_allclose(fit.ranef(condsd=True)["a"][1].iloc[:, 0], np.sqrt(np.diagonal(V)), rtol=1e-8)


def test_unrelated_levels_are_independent_ones(counts: pd.DataFrame) -> None:
    unrelated = pd.DataFrame(np.eye(12), index=LEVELS, columns=LEVELS)
    known = bl.glmer("y ~ x + (1 | gr(a, cov = I)) + (1 | h)", counts, "poisson", data2={"I": unrelated})
    plain = bl.glmer("y ~ x + (1 | a) + (1 | h)", counts, "poisson")
    assert known.criterion == pytest.approx(plain.criterion, abs=1e-8)
    np.testing.assert_allclose(known.vcov(), plain.vcov(), rtol=1e-5)


def test_quadrature_needs_independent_levels(counts: pd.DataFrame, K: pd.DataFrame) -> None:
    with pytest.raises(bl.FitError, match="independent levels"):
        bl.glmer("y ~ x + (1 | gr(a, cov = K))", counts, "poisson", data2={"K": K}, n_agq=5)


def test_verbs_of_a_fit(counts: pd.DataFrame, K: pd.DataFrame) -> None:
    fit = bl.glmer("y ~ x + (1 | gr(a, cov = K)) + (1 | h)", counts, "poisson", data2={"K": K})
    assert fit.predict(interval="confidence")["se"].gt(0.0).all()
    assert bl.refit(fit, counts["y"]).criterion == pytest.approx(fit.criterion, abs=1e-6)
    assert list(bl.ranova(fit).index)[1:] == ["(1 | gr(a, cov = K))", "(1 | h)"]
    assert "singular" not in [check.code for check in fit.diagnose().failed]
