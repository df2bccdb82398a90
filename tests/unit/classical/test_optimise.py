"""The search on functions whose minima are known."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.classical.optimise import Box, approach, minimise, search
from bayeslmm.errors import FitError

INF = np.inf


def box(n: int, lower: float = -INF, upper: float = INF, mirror: bool = False) -> Box:
    return Box(lower=np.full(n, lower), upper=np.full(n, upper), mirror=np.full(n, mirror))


def quadratic(target: np.ndarray, H: np.ndarray):
    return lambda x: (0.5 * (x - target) @ H @ (x - target), H @ (x - target))


def rosenbrock(x: np.ndarray):
    a, b = 1.0 - x[0], x[1] - x[0] ** 2
    return a**2 + 100.0 * b**2, np.array([-2.0 * a - 400.0 * x[0] * b, 200.0 * b])


def test_quadratic() -> None:
    target = np.array([1.0, -2.0, 0.5])
    found = minimise(quadratic(target, np.diag([1.0, 30.0, 900.0])), np.zeros(3), box(3), np.ones(3))
    np.testing.assert_allclose(found.x, target, atol=1e-8)
    assert found.converged
    assert not found.flat
    assert found.projected < 1e-6
    np.testing.assert_allclose(found.hessian, np.diag([1.0, 30.0, 900.0]), atol=1e-3)


def test_curved_valley() -> None:
    found = minimise(rosenbrock, np.array([-1.2, 1.0]), box(2), np.ones(2))
    np.testing.assert_allclose(found.x, [1.0, 1.0], atol=1e-7)
    assert found.converged


def test_limits_hold() -> None:
    H = np.array([[2.0, 1.0], [1.0, 3.0]])
    found = minimise(quadratic(np.array([-1.0, 2.0]), H), np.array([1.0, 1.0]), box(2, lower=0.0), np.ones(2))
    # With x0 = 0: the gradient of x1 vanishes at 2 + 1/3 (-1 - 0).
    np.testing.assert_allclose(found.x, [0.0, 2.0 - 1.0 / 3.0], atol=1e-8)
    assert found.converged
    assert found.projected < 1e-7


def test_a_mirror_ends_exactly_at_zero() -> None:
    found = minimise(lambda x: (np.cosh(x[0]), np.array([np.sinh(x[0])])), np.array([0.7]), box(1, mirror=True), np.ones(1))
    assert found.x[0] == 0.0
    assert found.converged


def double_well(x: np.ndarray):
    return float((x[0] ** 2 - 1.0) ** 2), np.array([4.0 * x[0] * (x[0] ** 2 - 1.0)])


@pytest.mark.parametrize("limits", [box(1, mirror=True), box(1, lower=0.0)])
def test_leaves_a_stationary_maximum_at_zero(limits: Box) -> None:
    found = minimise(double_well, np.zeros(1), limits, np.ones(1))
    assert abs(found.x[0]) == pytest.approx(1.0, abs=1e-8)
    assert found.converged


def test_flat_direction_is_reported() -> None:
    found = minimise(quadratic(np.array([1.0, 0.0]), np.diag([4.0, 0.0])), np.array([3.0, 2.0]), box(2), np.ones(2))
    assert found.flat
    np.testing.assert_allclose(np.abs(found.flat_directions[:, 0]), [0.0, found.x[1]], atol=1e-9)
    assert found.value == pytest.approx(0.0, abs=1e-12)


def test_a_circle_of_minima_is_flat() -> None:
    """One-sided differences of a gradient see a curvature along the circle that is not there."""
    found = minimise(lambda x: (float((x @ x - 4.0) ** 2), 4.0 * (x @ x - 4.0) * x), np.array([1.0, 2.0]), box(2), np.ones(2))
    assert found.converged
    assert found.flat
    assert found.x @ found.flat_directions[:, 0] == pytest.approx(0.0, abs=1e-5)


def test_curvature_is_measured_in_units_of_the_parameter() -> None:
    """Minus the log likelihood of a Poisson count of a million has a curvature of 1e-6 there, and is not flat."""
    found = minimise(lambda x: (x[0] - 1e6 * np.log(x[0]), 1.0 - 1e6 / x), np.array([1e3]), box(1, lower=1e-3), np.ones(1))
    assert found.x[0] == pytest.approx(1e6, rel=1e-6)
    assert found.converged
    assert not found.flat


def test_an_almost_flat_valley_ends_the_search() -> None:
    """A curved valley whose floor falls by 1e-9 a unit: no number of steps arrives, and nothing is to be gained."""
    found = minimise(
        lambda x: (
            1e3 + float((x[1] - np.sin(3.0 * x[0])) ** 2) * 1e3 - 1e-9 * x[0],
            np.array([-6e3 * (x[1] - np.sin(3.0 * x[0])) * np.cos(3.0 * x[0]) - 1e-9, 2e3 * (x[1] - np.sin(3.0 * x[0]))]),
        ),
        np.array([0.3, 0.2]),
        box(2),
        np.ones(2),
    )
    assert found.converged
    assert found.flat


def test_no_finite_value_at_the_start_is_refused() -> None:
    with pytest.raises(FitError, match="rescale"):
        minimise(lambda x: (np.nan, x), np.ones(1), box(1), np.ones(1))


def tilted_wells(x: np.ndarray):
    value = (x[0] ** 2 - 1.0) ** 2 + 0.3 * x[0]
    return float(value), np.array([4.0 * x[0] * (x[0] ** 2 - 1.0) + 0.3])


def test_other_starts_are_used_only_in_doubt() -> None:
    start, others, curvature = np.array([1.2]), [np.array([-1.2])], np.array([10.0])
    sure = search(tilted_wells, start, box(1), curvature, others=others, doubtful=lambda _: False)
    doubt = search(tilted_wells, start, box(1), curvature, others=others, doubtful=lambda _: True)
    assert sure.x[0] > 0 > doubt.x[0]
    assert (sure.starts, doubt.starts) == (1, 2)
    assert doubt.value < sure.value
    assert doubt.evaluations > sure.evaluations


def test_values_that_are_not_finite_are_stepped_back_from() -> None:
    def function(x: np.ndarray):
        return (x[0] - np.log(x[0]), np.array([1.0 - 1.0 / x[0]])) if x[0] > 0 else (np.nan, np.array([np.nan]))

    found = minimise(function, np.array([0.01]), box(1), np.array([1e-3]))
    assert found.x[0] == pytest.approx(1.0, abs=1e-8)


def test_no_parameters() -> None:
    found = minimise(lambda x: (3.0, x), np.zeros(0), box(0), np.zeros(0))
    assert found.value == 3.0
    assert found.converged


def test_approach_ends_near_the_minimum_with_a_hessian_of_it() -> None:
    target, H = np.array([1.0, -2.0]), np.array([[2.0, 0.5], [0.5, 30.0]])
    x, hessian, evaluations = approach(quadratic(target, H), np.zeros(2), box(2), np.array([1.0, 10.0]))
    value = quadratic(target, H)(x)[0]
    assert value < 1e-3
    assert evaluations < 20
    assert np.all(np.linalg.eigvalsh(hessian) > 0.0)


def test_a_whole_hessian_saves_steps() -> None:
    target, H = np.array([1.0, -2.0]), np.array([[2.0, 1.9], [1.9, 2.0]])
    by_matrix = minimise(quadratic(target, H), np.zeros(2), box(2), H)
    by_diagonal = minimise(quadratic(target, H), np.zeros(2), box(2), np.diagonal(H).copy())
    np.testing.assert_allclose(by_matrix.x, target, atol=1e-8)
    assert by_matrix.evaluations < by_diagonal.evaluations
