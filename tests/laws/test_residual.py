"""Laws of every row of RESIDUALS: a correlation matrix, its root and derivative, both faces equal, simulated covariance."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.errors import DataError
from bayeslmm.families import LINKS
from bayeslmm.formula import parse
from bayeslmm.residual import RESIDUALS, Residual
from bayeslmm.series import Series, make_series

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")

structures = pytest.mark.parametrize("structure", RESIDUALS.values(), ids=lambda structure: structure.name)
values = pytest.mark.parametrize("rho", [-0.7, -0.05, 0.0, 0.3, 0.95])

EXPECTED = {"ar": lambda rho, lag: rho**lag}


def series(name: str = "ar") -> Series:
    """Two series and a single row, unordered, with gaps."""
    term = parse(f"y ~ x + {name}(t, g)").mean.series
    assert term is not None
    index = np.array([0, 1, 0, 0, 2, 1, 0, 1])
    time = np.array([5.0, 2.0, 1.0, 2.0, 7.0, 3.0, 9.0, 8.0])
    return make_series(term, index, time, np.arange(8))


def matrix(structure: Residual, rho: float, rows: Series) -> np.ndarray:
    lag = np.abs(rows.time[:, None] - rows.time)
    return np.where(rows.index[:, None] == rows.index, EXPECTED[structure.name](rho, lag), 0.0)


@structures
@values
def test_the_root_is_that_of_the_inverse_correlation(structure: Residual, rho: float) -> None:
    rows = series(structure.name)
    C = matrix(structure, rho, rows)
    root = structure.whiten(rho, rows, np.eye(8)).T
    np.testing.assert_allclose(root.T @ root, np.linalg.inv(C), atol=1e-10)
    determinant = 2.0 * np.sum(np.log(structure.conditional_sd(rho, rows)))
    assert determinant == pytest.approx(np.linalg.slogdet(C)[1], abs=1e-12)


@structures
@values
def test_derivatives(structure: Residual, rho: float) -> None:
    rows, errors, h = series(structure.name), np.random.default_rng(1).standard_normal((3, 8)), 1e-6
    pairs = [
        (structure.d_whiten(rho, rows, errors), structure.whiten(rho + h, rows, errors) - structure.whiten(rho - h, rows, errors)),
        (structure.d_conditional_sd(rho, rows), structure.conditional_sd(rho + h, rows) - structure.conditional_sd(rho - h, rows)),
    ]
    for exact, difference in pairs:
        np.testing.assert_allclose(exact, difference / (2.0 * h), rtol=1e-6, atol=1e-8)


@structures
@values
def test_colour_undoes_whiten(structure: Residual, rho: float) -> None:
    rows, noise = series(structure.name), np.random.default_rng(2).standard_normal((4, 8))
    errors = structure.colour(np.full(4, rho), rows, noise)
    np.testing.assert_allclose(structure.whiten(rho, rows, errors), noise, atol=1e-10)


@structures
def test_several_values_at_once(structure: Residual) -> None:
    rows, errors, rho = series(structure.name), np.random.default_rng(3).standard_normal((2, 8)), np.array([[0.2], [-0.5]])
    found = structure.whiten(rho, rows, errors)
    for s in range(2):
        np.testing.assert_allclose(found[s], structure.whiten(float(rho[s, 0]), rows, errors[s]))


@structures
@values
def test_tensors_say_the_same(structure: Residual, rho: float) -> None:
    import pytensor
    import pytensor.tensor as pt

    rows, errors, symbol = series(structure.name), np.random.default_rng(4).standard_normal(8), pt.dscalar("rho")
    outputs = [structure.pymc_prediction(symbol, rows, pt.constant(errors)), structure.pymc_conditional_sd(symbol, rows)]
    slope = pt.grad(outputs[1].sum() + outputs[0].sum(), symbol)
    prediction, sd, gradient = pytensor.function([symbol], [*outputs, slope], mode="FAST_COMPILE")(rho)
    np.testing.assert_allclose(prediction, structure.prediction(rho, rows, errors), atol=1e-14)
    np.testing.assert_allclose(sd, structure.conditional_sd(rho, rows), rtol=1e-12)
    total = np.sum(structure.d_prediction(rho, rows, errors)) + np.sum(structure.d_conditional_sd(rho, rows))
    assert gradient == pytest.approx(total, rel=1e-9, abs=1e-12)


@structures
def test_the_record_is_complete(structure: Residual) -> None:
    assert structure.link in LINKS
    edges = LINKS[structure.link].inverse(np.array([-30.0, 30.0]))
    np.testing.assert_allclose(edges, [structure.lower, structure.upper])


def test_rows_left_out_widen_the_gaps() -> None:
    rows = series().take(np.array([0, 1, 2, 5, 6]))
    assert rows.gap.tolist() == [4.0, 0.0, 0.0, 1.0, 4.0]
    assert rows.previous.tolist() == [2, -1, -1, 1, 0]


def test_a_time_twice_in_a_series_is_refused() -> None:
    with pytest.raises(DataError, match=r"two rows at the same time.*rows 0, 0"):
        series().take(np.array([0, 0, 1]))
