"""Taylor arithmetic: polynomials whose derivatives are known in full, identities, and what is not taken staying out."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.families import jets
from bayeslmm.families.jets import Jet, taylor, variables

X, Y, Z = np.array([0.7, -1.2]), np.array([2.0, 0.5]), np.array([1.5, -0.4])


def _three(order: int = 3) -> tuple[Jet, ...]:
    return variables(np.array([X, Y, Z]), order)


def test_a_product_of_three_variables_has_one_mixed_derivative() -> None:
    x, y, z = _three()
    found = taylor(x * y * z, 3, 2, 3)
    np.testing.assert_allclose(found.value, X * Y * Z)
    np.testing.assert_allclose(found.d1, [Y * Z, X * Z, X * Y])
    zero = np.zeros(2)
    np.testing.assert_allclose(found.d2, [[zero, Z, Y], [Z, zero, X], [Y, X, zero]])
    for i in range(3):
        for j in range(3):
            for k in range(3):
                np.testing.assert_array_equal(found.d3[i, j, k], float(len({i, j, k}) == 3))


def test_a_cube_of_a_sum() -> None:
    x, y, _ = _three()
    found = taylor((2.0 * x - y + 1.0) ** 3, 2, 2, 3)
    u, a = 2.0 * X - Y + 1.0, np.array([2.0, -1.0])
    np.testing.assert_allclose(found.d1, [3.0 * u**2 * one for one in a])
    np.testing.assert_allclose(found.d2, 6.0 * np.multiply.outer(np.outer(a, a), u))
    np.testing.assert_allclose(found.d3, 6.0 * np.multiply.outer(np.multiply.outer(np.outer(a, a), a), np.ones(2)))


def test_quotients_and_what_stands_on_the_left() -> None:
    x, y, _ = _three()
    direct, by_parts = taylor(x / y, 3, 2, 3), taylor(x * (1.0 / y), 3, 2, 3)
    back = taylor((x / y) * y, 3, 2, 3)
    for name in ("value", "d1", "d2", "d3"):
        np.testing.assert_allclose(getattr(direct, name), getattr(by_parts, name))
    np.testing.assert_allclose(back.d1, [np.ones(2), np.zeros(2), np.zeros(2)], atol=1e-14)
    np.testing.assert_allclose(back.d3, 0.0, atol=1e-13)
    left = taylor(np.array([3.0, 4.0]) - x, 1, 2, 1)
    np.testing.assert_allclose(left.value, [2.3, 5.2])
    np.testing.assert_allclose(left.d1, [[-1.0, -1.0]])


INVERSES = [
    (jets.exp, jets.log),
    (jets.expm1, jets.log1p),
    (lambda x: x**2, jets.sqrt),
    (jets.softplus, lambda x: jets.log(jets.expm1(x))),
    (jets.expit, lambda x: jets.log(x) - jets.log1p(-x)),
    (lambda x: -jets.log1mexp(x), jets.log1mexp),
]


@pytest.mark.parametrize(("function", "inverse"), INVERSES)
def test_a_function_of_its_inverse_is_the_variable_itself(function: object, inverse: object) -> None:
    (x,) = variables(np.array([[0.2, 1.3, 2.0]]), 3)
    sign = -1.0 if inverse is jets.log1mexp else 1.0
    found = taylor(sign * inverse(function(x)), 1, 3, 3)  # type: ignore[operator]
    np.testing.assert_allclose(found.value, x.value, rtol=1e-12)
    np.testing.assert_allclose(found.d1, np.ones((1, 3)), rtol=1e-11)
    np.testing.assert_allclose(found.d2, 0.0, atol=1e-10)
    np.testing.assert_allclose(found.d3, 0.0, atol=1e-9)


def test_gamma_functions_are_each_other_s_derivatives() -> None:
    (x,) = variables(np.array([[0.3, 4.0, 30.0]]), 3)
    log_gamma, first, second = (taylor(f, 1, 3, 3) for f in (jets.gammaln(x), jets.digamma(x), jets.polygamma(1, x)))
    np.testing.assert_allclose(log_gamma.d1[0], first.value)
    np.testing.assert_allclose(log_gamma.d2[0], first.d1)
    np.testing.assert_allclose(first.d1[0], second.value)
    np.testing.assert_allclose(first.d3[0], second.d2)


def test_rising_excess_of_counts_is_a_sum_of_logarithms() -> None:
    """Gamma(a + y) / Gamma(a) = a (a + 1) ... (a + y - 1)."""
    for y in (0, 1, 2, 5, 40):
        a = np.array([1e-9, 0.3, 9.999, 10.001, 250.0, 1e9])
        expected = sum((np.log1p(j / a) for j in range(y)), start=np.zeros(len(a)))
        np.testing.assert_allclose(jets.rising_excess(np.log(a), np.full(len(a), float(y))), expected, rtol=1e-11, atol=1e-12)


def test_stirling_s_error_joins_where_the_series_takes_over() -> None:
    at = np.array([10.0 - 1e-9, 10.0])
    (x,) = variables(at[None], 3)
    found = taylor(jets.stirling_error(x), 1, 2, 3)
    for part in (found.value, found.d1[0], found.d2[0, 0], found.d3[0, 0, 0]):
        assert part[0] == pytest.approx(part[1], rel=1e-8)


def test_what_a_mask_leaves_out_may_be_infinite() -> None:
    (x,) = variables(np.array([[0.0, 2.0]]), 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = taylor(jets.where(x.value > 1.0, jets.log(x), 7.0), 1, 2, 3)
        product = taylor(jets.times(np.array([0.0, 3.0]), jets.log(x)), 1, 2, 3)
    np.testing.assert_allclose(found.value, [7.0, np.log(2.0)])
    np.testing.assert_allclose(found.d1, [[0.0, 0.5]])
    np.testing.assert_allclose(product.value, [0.0, 3.0 * np.log(2.0)])
    np.testing.assert_allclose(product.d3[0, 0, 0], [0.0, 0.75])


def test_the_log_of_a_sum_of_exponentials() -> None:
    x, y, _ = _three()
    found = taylor(jets.logsumexp([x, y, x + y]), 2, 2, 2)
    p = np.exp([X, Y, X + Y]) / np.exp([X, Y, X + Y]).sum(axis=0)
    np.testing.assert_allclose(found.d1, [p[0] + p[2], p[1] + p[2]])
    np.testing.assert_allclose(found.d2[0, 1], p[2] - (p[0] + p[2]) * (p[1] + p[2]), rtol=1e-12)


def test_arrays_give_arrays() -> None:
    for name in ("exp", "log1p", "softplus", "ndtr", "log_ndtr", "gammaln", "stirling_error", "log1mexp", "arccot"):
        assert isinstance(getattr(jets, name)(np.array([[0.5, 1.0]])), np.ndarray)
    np.testing.assert_array_equal(jets.logaddexp(np.zeros(2), -np.inf), np.zeros(2))


def test_a_function_of_no_variable_has_no_derivatives() -> None:
    found = taylor(np.array([1.0, 2.0]), 2, 2, 2)
    np.testing.assert_array_equal(found.d2, np.zeros((2, 2, 2)))
    assert found.d3.shape == (2, 2, 2, 0)
