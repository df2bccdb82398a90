"""Covariance structures in closed form: lme4's order and names of theta, correlation patterns, options of the tag."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.covariance import STRUCTURES, structure_named
from bayeslmm.errors import FormulaError


def _correlation(L: np.ndarray) -> np.ndarray:
    S = L @ L.T
    d = np.sqrt(np.diag(S))
    return S / np.outer(d, d)


def test_us_is_filled_column_by_column() -> None:
    L = STRUCTURES["us"].factor(np.arange(1.0, 7.0), 3)
    np.testing.assert_array_equal(L, [[1, 0, 0], [2, 4, 0], [3, 5, 6]])


def test_us_has_lme4s_names_and_bounds() -> None:
    us = STRUCTURES["us"]
    assert us.labels(("(Intercept)", "Days")) == ("(Intercept)", "Days.(Intercept)", "Days")
    np.testing.assert_array_equal(us.start(3), [1, 0, 0, 1, 0, 1])
    np.testing.assert_array_equal(us.lower(2), [0, -np.inf, 0])


def test_us_is_singular_at_a_zero_diagonal_only() -> None:
    assert not STRUCTURES["us"].is_boundary(np.array([1.0, 0.0, 1.0]), 2, 1e-4)
    assert STRUCTURES["us"].is_boundary(np.array([1.0, 0.5, 0.5e-4]), 2, 1e-4)


def test_diag_is_diagonal() -> None:
    np.testing.assert_array_equal(STRUCTURES["diag"].factor(np.array([2.0, 3.0]), 2), [[2, 0], [0, 3]])
    np.testing.assert_array_equal(STRUCTURES["homdiag"].factor(np.array([2.0]), 2), [[2, 0], [0, 2]])


@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.4, 0.95])
def test_cs_has_one_correlation(rho: float) -> None:
    L = STRUCTURES["cs"].factor(np.array([1.0, 2.0, 3.0, 0.5, rho]), 4)
    np.testing.assert_allclose(np.sqrt(np.diag(L @ L.T)), [1.0, 2.0, 3.0, 0.5])
    np.testing.assert_allclose(_correlation(L)[np.tril_indices(4, -1)], rho, atol=1e-14)


def test_cs_reaches_both_ends_of_its_range() -> None:
    cs = STRUCTURES["cs"]
    assert cs.lower(4)[-1] == pytest.approx(-1 / 3)
    smallest = np.linalg.eigvalsh(_correlation(cs.factor(np.array([1, 1, 1, 1, -1 / 3 + 1e-9]), 4)))[0]
    assert smallest == pytest.approx(0.0, abs=1e-8)
    np.testing.assert_allclose(cs.factor(np.array([1, 1, 1, 1.0]), 3)[:, 0], 1.0)


@pytest.mark.parametrize("rho", [-0.7, 0.0, 0.9])
def test_ar1_decays_with_distance(rho: float) -> None:
    L = STRUCTURES["ar1"].factor(np.array([1.7, rho]), 4)
    distance = np.abs(np.subtract.outer(range(4), range(4)))
    np.testing.assert_allclose(L @ L.T, 1.7**2 * rho**distance, atol=1e-14)
    L = STRUCTURES["hetar1"].factor(np.array([1.0, 2.0, 3.0, rho]), 3)
    np.testing.assert_allclose(np.sqrt(np.diag(L @ L.T)), [1.0, 2.0, 3.0])


def test_options_choose_the_variant() -> None:
    assert structure_named("cs").name == "cs"
    assert structure_named("cs", [("hom", True)]).name == "homcs"
    assert structure_named("ar1", [("hom", False)]).name == "hetar1"
    assert structure_named("diag", [("hom", True)]).name == "homdiag"


@pytest.mark.parametrize(("name", "options"), [("sc", []), ("us", [("hom", True)]), ("cs", [("home", True)])])
def test_unknown_names_are_refused(name: str, options: list[tuple[str, object]]) -> None:
    with pytest.raises(FormulaError):
        structure_named(name, options)
