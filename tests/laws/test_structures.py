"""Laws of every row of STRUCTURES: a lower-triangular factor, its derivative, both faces equal, labels, the boundary."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.covariance import STRUCTURES, Structure

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")

structures = pytest.mark.parametrize("structure", STRUCTURES.values(), ids=lambda structure: structure.name)
sizes = pytest.mark.parametrize("k", [1, 2, 3, 5])


def _inside(structure: Structure, k: int, seed: int) -> np.ndarray:
    """A theta inside its box, off-diagonal entries between -2 and 2."""
    lower, upper = np.maximum(structure.lower(k), -2.0), np.minimum(structure.upper(k), 2.0)
    return lower + (upper - lower) * np.random.default_rng(seed).uniform(0.1, 0.9, structure.n_theta(k))


@structures
@sizes
def test_start_is_the_identity(structure: Structure, k: int) -> None:
    assert structure.start(k).shape == structure.lower(k).shape == structure.upper(k).shape == (structure.n_theta(k),)
    np.testing.assert_allclose(structure.factor(structure.start(k), k), np.eye(k))


@structures
@sizes
def test_factor_is_lower_triangular_with_a_positive_diagonal(structure: Structure, k: int) -> None:
    for seed in range(5):
        L = structure.factor(_inside(structure, k, seed), k)
        np.testing.assert_array_equal(L, np.tril(L))
        assert np.all(np.diag(L) > 0)


@structures
@sizes
def test_derivative_of_the_factor(structure: Structure, k: int) -> None:
    h = 1e-6
    for seed in range(5):
        theta = _inside(structure, k, seed)
        jacobian = structure.jacobian(theta, k)
        assert jacobian.shape == (structure.n_theta(k), k, k)
        for i in range(structure.n_theta(k)):
            step = np.zeros(len(theta))
            step[i] = h
            differences = (structure.factor(theta + step, k) - structure.factor(theta - step, k)) / (2 * h)
            np.testing.assert_allclose(jacobian[i], differences, atol=1e-7)


@structures
@sizes
def test_linear_structures_have_a_constant_derivative(structure: Structure, k: int) -> None:
    first, second = (structure.jacobian(_inside(structure, k, seed), k) for seed in (1, 2))
    assert not structure.linear or np.array_equal(first, second)
    if structure.linear:
        theta = _inside(structure, k, 3)
        np.testing.assert_allclose(np.tensordot(theta, first, axes=1), structure.factor(theta, k))


@structures
@sizes
def test_finite_at_every_corner_of_the_box(structure: Structure, k: int) -> None:
    for corner in (np.maximum(structure.lower(k), -2.0), np.minimum(structure.upper(k), 2.0)):
        assert np.all(np.isfinite(structure.factor(corner, k)))
        assert np.all(np.isfinite(structure.jacobian(corner, k)))


@structures
@sizes
def test_labels_are_unique_and_as_many_as_theta(structure: Structure, k: int) -> None:
    labels = structure.labels(("(Intercept)", "x", "z", "a:b", "I(x^2)")[:k])
    assert len(labels) == len(set(labels)) == structure.n_theta(k)


@structures
@sizes
def test_boundary(structure: Structure, k: int) -> None:
    start = structure.start(k)
    assert not structure.is_boundary(start, k, 1e-4)
    for i in np.flatnonzero(structure.lower(k) == 0.0):
        theta = start.copy()
        theta[i] = 1e-5
        assert structure.is_boundary(theta, k, 1e-4)


@pytest.mark.parametrize("name", ["cs", "homcs", "ar1", "hetar1"])
def test_correlation_at_its_limit_is_the_boundary(name: str) -> None:
    structure = STRUCTURES[name]
    for end in (structure.lower(3)[-1], structure.upper(3)[-1]):
        theta = structure.start(3)
        theta[-1] = end * (1 - 1e-6)
        assert structure.is_boundary(theta, 3, 1e-4)


@structures
@sizes
def test_pymc_factor_is_one_of_this_structure(structure: Structure, k: int) -> None:
    """Its correlation matrix is reached by the numpy factor: with unit standard deviations and the rho that it shows."""
    import pymc as pm

    with pm.Model() as model:
        L = structure.pymc_cholesky("g", k, 1.5, None)
    if k == 1 or not structure.correlated:
        assert L is None
        assert not model.free_RVs
        return
    cor, factor = pm.draw([model["cor_g"], L], draws=1, random_seed=4, mode="FAST_COMPILE")
    np.testing.assert_allclose(factor @ factor.T, cor, atol=1e-10)
    np.testing.assert_allclose(np.diag(cor), 1.0)
    assert abs(cor[1, 0]) > 1e-6
    if structure.name == "us":
        theirs = factor[np.tril_indices(k)[0], np.tril_indices(k)[1]]
        ours = np.linalg.cholesky(cor)[np.tril_indices(k)]
        np.testing.assert_allclose(theirs, ours, atol=1e-10)
        return
    theta = structure.start(k)
    theta[-1] = cor[1, 0]
    np.testing.assert_allclose(structure.factor(theta, k), factor, atol=1e-8)
