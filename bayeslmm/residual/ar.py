"""Stationary first-order autoregression `ar(time, gr)` of the residuals: correlation `rho^|t - t'|` within a series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.residual.base import Residual

if TYPE_CHECKING:
    from bayeslmm.series import Series

__all__ = ["AR"]

type Array = np.ndarray


def _power(rho: Any, series: Series) -> Array:
    """Return rho^gap, and zero at the first row of a series."""
    return np.where(series.previous >= 0, np.asarray(rho, dtype=float) ** series.gap, 0.0)


def _d_power(rho: Any, series: Series) -> Array:
    return np.where(series.previous >= 0, series.gap * np.asarray(rho, dtype=float) ** np.maximum(series.gap - 1.0, 0.0), 0.0)


def _prediction(rho: Any, series: Series, errors: Array) -> Array:
    return np.asarray(_power(rho, series) * errors[..., np.maximum(series.previous, 0)])


def _d_prediction(rho: Any, series: Series, errors: Array) -> Array:
    return np.asarray(_d_power(rho, series) * errors[..., np.maximum(series.previous, 0)])


def _conditional_sd(rho: Any, series: Series) -> Array:
    return np.asarray(np.sqrt(1.0 - _power(rho, series) ** 2))


def _d_conditional_sd(rho: Any, series: Series) -> Array:
    return np.asarray(-_power(rho, series) * _d_power(rho, series) / _conditional_sd(rho, series))


def _colour(rho: Array, series: Series, noise: Array) -> Array:
    result = noise.copy()
    for rows in series.steps:
        power = rho[:, None] ** series.gap[rows]
        result[:, rows] = power * result[:, series.previous[rows]] + np.sqrt(1.0 - power**2) * noise[:, rows]
    return result


def _pymc_power(rho: Any, series: Series) -> Any:
    """Return rho^gap (n,) by repeated products, which have a gradient at zero and below it; zero at a first row."""
    import pytensor.tensor as pt

    gaps = np.where(series.previous >= 0, series.gap, 0.0).astype(np.int64)
    values = np.unique(gaps[gaps > 0])
    table = pt.stack([0.0 * rho, *(_whole_power(rho, int(gap)) for gap in values)])
    return table[np.where(gaps > 0, 1 + np.searchsorted(values, gaps), 0)]


def _whole_power(base: Any, exponent: int) -> Any:
    """Return base^exponent by squaring, exponent at least one."""
    result = None
    while exponent:
        if exponent % 2:
            result = base if result is None else result * base
        base, exponent = base * base, exponent // 2
    return result


def _pymc_prediction(rho: Any, series: Series, errors: Any) -> Any:
    return _pymc_power(rho, series) * errors[np.maximum(series.previous, 0)]


def _pymc_conditional_sd(rho: Any, series: Series) -> Any:
    import pytensor.tensor as pt

    return pt.sqrt(1.0 - _pymc_power(rho, series) ** 2)


AR = Residual(
    name="ar",
    link="atanh",
    lower=-1.0,
    upper=1.0,
    prior="uniform(-1, 1)",
    prediction=_prediction,
    d_prediction=_d_prediction,
    conditional_sd=_conditional_sd,
    d_conditional_sd=_d_conditional_sd,
    colour=_colour,
    pymc_prediction=_pymc_prediction,
    pymc_conditional_sd=_pymc_conditional_sd,
    latex=r"\rho^{|t_i - t_j|}",
)
