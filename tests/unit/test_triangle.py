"""Triangles by LAPACK itself against numpy's."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.linear.triangle import inverse_of, triangle_of, upper_solve


@pytest.mark.parametrize("shape", [(7, 3), (3, 3), (2, 5), (4, 1), (0, 3), (3, 0)])
def test_triangle_is_that_of_numpy(shape: tuple[int, int]) -> None:
    A = np.random.default_rng(1).standard_normal(shape)
    R = triangle_of(A)
    assert R.shape == (min(shape), shape[1])
    assert np.array_equal(R, np.triu(R))
    assert np.allclose(R.T @ R, A.T @ A, atol=1e-12)


@pytest.mark.parametrize("kind", ["regular", "singular", "wide"])
def test_inverse_is_the_generalised_one(kind: str) -> None:
    A = np.random.default_rng(2).standard_normal((3, 3))
    A = {"regular": A, "singular": A * np.array([1.0, 0.0, 1.0]), "wide": A[:2]}[kind]
    assert np.allclose(inverse_of(A), np.linalg.pinv(A), atol=1e-12)
    assert inverse_of(np.zeros((0, 0))).shape == (0, 0)


def test_upper_solve_solves_or_refuses() -> None:
    R = np.triu(np.random.default_rng(3).standard_normal((4, 4))) + 3.0 * np.eye(4)
    right = np.arange(4.0)
    assert np.allclose(R @ upper_solve(R, right), right)
    R[2, 2] = 0.0
    with pytest.raises(np.linalg.LinAlgError):
        upper_solve(R, right)
