"""The kernels between rows and blocks, and solutions with the blocked factor, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import block_diag

from bayeslmm.linear import rows as kernels
from bayeslmm.linear import system as blocked

RNG = np.random.default_rng(11)
N = 80
INDEX = {"a": np.arange(N) % 20, "b": RNG.integers(0, 6, N), "c": (np.arange(N) % 20) // 5, "d": RNG.integers(0, 3, N)}
DESIGNS = {
    "one": [("a", 1)],
    "wide": [("b", 3)],
    "nested": [("a", 1), ("c", 2)],
    "crossed": [("a", 2), ("b", 1)],
    "three": [("a", 1), ("b", 2), ("c", 1)],
    "four": [("d", 2), ("b", 1), ("a", 1), ("c", 1)],
}


def built(name: str):
    """System, map, dense Z by predictor (K, n, q) in elimination order, and the predictor of every column."""
    factors = [
        blocked.Factor(index=INDEX[group].astype(np.int64), n_levels=int(INDEX[group].max()) + 1, z=RNG.normal(size=(N, k)))
        for group, k in DESIGNS[name]
    ]
    owner = [i % 2 for i in range(sum(factor.k for factor in factors))]
    system, rows = blocked.row_map(factors, owner)
    Z, column = np.zeros((2, N, system.n_columns)), 0
    for f, factor in enumerate(factors):
        for a in range(factor.k):
            Z[owner[column], np.arange(N), system.first_col[f] + factor.index * factor.k + a] = factor.z[:, a]
            column += 1
    return factors, system, rows, Z


def weights(negative: bool) -> np.ndarray:
    W = RNG.normal(size=(N, 2, 2))
    W = W @ np.swapaxes(W, 1, 2)
    if negative:
        W = W - 0.2 * np.eye(2)
    return np.ascontiguousarray(np.moveaxis(W, 0, 2))


def dense_lambda(factors, system, lam: np.ndarray) -> np.ndarray:
    parts = [np.kron(np.eye(factor.n_levels), L) for factor, L in zip(factors, blocked.blocks_of(system, lam), strict=True)]
    order = np.argsort(system.first_col)
    return block_diag(*[parts[f] for f in order])


def lower_blocks(factors) -> np.ndarray:
    return np.concatenate([np.tril(0.4 * RNG.normal(size=(factor.k, factor.k)) + 0.6 * np.eye(factor.k)).ravel() for factor in factors])


@pytest.mark.parametrize("name", DESIGNS)
def test_products_with_rows(name: str) -> None:
    _, system, rows, Z = built(name)
    g, b = RNG.normal(size=(2, N)), RNG.normal(size=system.n_columns)
    r, eta = np.empty(system.n_columns), np.zeros((2, N))
    kernels.total(rows, g, r)
    kernels.spread(rows, b, eta)
    assert np.allclose(r, np.einsum("knq,kn->q", Z, g), rtol=1e-13)
    assert np.allclose(eta, Z @ b, rtol=1e-13)


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("name", DESIGNS)
def test_factor_solutions_and_inverse(name: str, negative: bool) -> None:
    factors, system, rows, Z = built(name)
    work, W, lam = blocked.workspace(system), weights(negative), lower_blocks(factors)
    kernels.fill(rows, W, work.store, work.M.reshape(-1))
    logdet, L = blocked.factorise(system, work, lam)
    Lambda = dense_lambda(factors, system, lam)
    S = np.eye(system.n_columns) + Lambda.T @ np.einsum("kni,kln,lnj->ij", Z, W, Z, optimize=True) @ Lambda
    assert logdet == pytest.approx(np.linalg.slogdet(S)[1], rel=1e-11, abs=1e-11)
    r = RNG.normal(size=system.n_columns)
    b, u = blocked.solve_for(system, work, lam, L, r)
    exact = np.linalg.solve(S, Lambda.T @ r)
    assert np.allclose(u, exact, rtol=1e-9, atol=1e-10)
    assert np.allclose(b, Lambda @ exact, rtol=1e-9, atol=1e-10)
    assert np.allclose(blocked.lambda_times(system, lam, u), Lambda @ u)
    assert np.allclose(blocked.lambda_times(system, lam, r, transposed=True), Lambda.T @ r)
    blocked.inverse_parts(system, work, lam, L)
    h = np.empty((2, 2, N))
    kernels.gather(rows, work.bar, work.Mbar.reshape(-1), h)
    C = Lambda @ np.linalg.solve(S, Lambda.T)
    assert np.allclose(h, np.einsum("kni,ij,lnj->kln", Z, C, Z, optimize=True), rtol=1e-8, atol=1e-9)


def test_a_matrix_that_is_not_positive_has_no_determinant() -> None:
    for name in DESIGNS:
        factors, system, rows, _ = built(name)
        work = blocked.workspace(system)
        W = np.zeros((2, 2, N))
        W[0, 0] = W[1, 1] = -50.0
        kernels.fill(rows, W, work.store, work.M.reshape(-1))
        assert np.isnan(blocked.factorise(system, work, lower_blocks(factors))[0])


def test_outer_products_are_the_adjoint_of_lambda() -> None:
    factors, system, _, _ = built("three")
    left, right = RNG.normal(size=(2, system.n_columns))
    lam = lower_blocks(factors)
    slope = blocked.outer_blocks(system, left, right)
    assert left @ dense_lambda(factors, system, lam) @ right == pytest.approx(slope @ lam)
