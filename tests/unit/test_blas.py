"""BLAS inside kernels, and the three ways of eliminating a factor's levels, against numpy and one another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bayeslmm.linear import blas, system

AT = blas.addresses()
RNG = np.random.default_rng(3)


def _definite(n: int) -> np.ndarray:
    A = RNG.normal(size=(n, n + 3))
    return A @ A.T


@pytest.mark.parametrize("n", [1, 5, 70])
def test_routines_are_those_of_numpy(n: int) -> None:
    A, B = _definite(n), RNG.normal(size=(n, 3))
    S = np.triu(A) + 99.0 * np.tril(np.ones((n, n)), -1)  # the lower triangle is nobody's
    R = S.copy()
    assert blas.cholesky(AT, R) == 0
    upper = np.triu(R)
    np.testing.assert_allclose(upper.T @ upper, A, rtol=1e-10, atol=1e-10)
    for transposed, matrix in ((False, upper), (True, upper.T)):
        X = B.copy()
        blas.solve_triangle(AT, R, transposed, X)
        np.testing.assert_allclose(matrix @ X, B, rtol=1e-8, atol=1e-8)
    blas.invert(AT, R)
    np.testing.assert_allclose(np.triu(R), np.triu(np.linalg.inv(A)), rtol=1e-7, atol=1e-9)
    W, C = RNG.normal(size=(6, n)), S.copy()
    blas.rank_k(AT, -0.5, W, 4, C)
    np.testing.assert_allclose(np.triu(C), np.triu(A - 0.5 * W[:4].T @ W[:4]), rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(np.tril(C, -1), np.tril(S, -1))
    larger, Y = np.zeros((n + 2, n + 2)), np.zeros((6, n))
    larger[:n, :n] = S
    blas.symmetric_product(AT, W, 5, n, larger, Y)
    np.testing.assert_allclose(Y[:5], W[:5] @ A, rtol=1e-10, atol=1e-10)
    assert not Y[5].any()


def test_a_matrix_that_is_not_positive_definite_has_no_factor() -> None:
    assert blas.cholesky(AT, np.array([[1.0, 2.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])) == 2


@pytest.mark.parametrize("widths", [(1, 1), (2, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize(("n_levels", "n"), [((20, 14), 200), ((150, 110), 500)])
def test_rows_may_be_taken_one_by_one_together_or_by_column(widths: tuple[int, int], n_levels: tuple[int, int], n: int) -> None:
    rng = np.random.default_rng(5)
    factors = [
        system.Factor(index=np.r_[np.arange(levels), rng.integers(0, levels, n - levels)], n_levels=levels, z=rng.normal(size=(n, k)))
        for k, levels in zip(widths, n_levels, strict=True)
    ]
    XY = rng.normal(size=(n, 4))
    built = system.assemble(factors, XY)
    assert built.q
    rows, first = built.levels.k.size, 0
    one_by_one = built.levels._replace(wide=rows, spread=rows)
    together = one_by_one._replace(wide=first, spread=first)
    entries = np.flatnonzero(built.levels.cols < built.levels.first_tail + built.q)
    column = built.levels.cols[entries] - built.levels.first_tail
    entries = entries[np.argsort(column, kind="stable")]
    row_of = np.searchsorted(built.levels.col_at, entries, side="right") - 1
    by_column = one_by_one._replace(
        spread=first,
        met_at=np.concatenate([[0], np.cumsum(np.bincount(column, minlength=built.q))]),
        row_of=row_of,
        place_of=entries - built.levels.col_at[row_of],
    )
    lam = np.concatenate([np.tril(rng.normal(size=(k, k))).ravel() for k in widths])
    found = []
    for levels in (built.levels, one_by_one, together, by_column):
        own = replace(built, levels=levels)
        evaluated = system.evaluate(own, system.workspace(own), lam, float(n), False)
        solved = system.solve(own, system.workspace(own), lam)
        found.append(
            np.concatenate([[evaluated.ld_l2, evaluated.pwrss], evaluated.lambar, *(v.ravel() for v in (*solved.b, *solved.variance))])
        )
    assert first in (built.levels.wide, built.levels.spread)
    Z = np.hstack([(np.eye(f.n_levels)[f.index][:, :, None] * f.z[:, None, :]).reshape(n, -1) for f in factors])
    L = np.zeros((Z.shape[1],) * 2)
    at = 0
    for levels, k, block in zip(n_levels, widths, system.blocks_of(built, lam), strict=True):
        L[at : at + levels * k, at : at + levels * k] = np.kron(np.eye(levels), block)
        at += levels * k
    assert found[0][0] == pytest.approx(np.linalg.slogdet(np.eye(len(L)) + L.T @ Z.T @ Z @ L)[1], rel=1e-10)
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=1e-8, atol=1e-8)
