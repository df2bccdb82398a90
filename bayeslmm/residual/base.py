"""The record of a residual correlation structure: both faces, numpy and PyMC, of one parametrisation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bayeslmm.series import Series

__all__ = ["Residual"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Residual:
    """Correlation matrices C(rho) (n, n) of the residuals within series, by each row's expectation given the earlier ones.

    Errors e ~ N(0, C) of standard deviation one: row i is `prediction + conditional_sd * w` with independent standard normal w, which is
    a triangular square root of C: log|C| is twice the sum of log `conditional_sd`. Errors have the rows last, (..., n); rho is a
    number, or (..., 1) to go with them.

    Attributes
    ----------
    name
        As in the formula: `ar`; also the parameter's name.
    link
        The link (of `families.LINKS`) on whose scale the parameter has no limits.
    lower, upper, prior
        The parameter's range, and its default prior.
    prediction, d_prediction
        `(rho, series, errors) -> (..., n)`: the expectation of each row given the earlier ones of its series, and its derivative.
    conditional_sd, d_conditional_sd
        `(rho, series) -> (..., n)`: the standard deviation of each row given the earlier ones, and its derivative.
    colour
        `(rho (S,), series, noise (S, n)) -> (S, n)`: errors made of independent standard normals.
    pymc_prediction, pymc_conditional_sd
        `prediction` (of errors (n,)) and `conditional_sd` on tensors.
    latex
        The correlation of rows i and j of one series.
    """

    name: str
    link: str
    lower: float
    upper: float
    prior: str
    prediction: Callable[[Any, Series, Array], Array]
    d_prediction: Callable[[Any, Series, Array], Array]
    conditional_sd: Callable[[Any, Series], Array]
    d_conditional_sd: Callable[[Any, Series], Array]
    colour: Callable[[Array, Series, Array], Array]
    pymc_prediction: Callable[[Any, Series, Any], Any]
    pymc_conditional_sd: Callable[[Any, Series], Any]
    latex: str

    def whiten(self, rho: Any, series: Series, errors: Array) -> Array:
        """Return C^-1/2 times errors (..., n): each row less its prediction, over its conditional standard deviation."""
        return np.asarray((errors - self.prediction(rho, series, errors)) / self.conditional_sd(rho, series))

    def d_whiten(self, rho: Any, series: Series, errors: Array) -> Array:
        """Return the derivative of `whiten` by rho."""
        moved = self.d_prediction(rho, series, errors) + self.d_conditional_sd(rho, series) * self.whiten(rho, series, errors)
        return np.asarray(-moved / self.conditional_sd(rho, series))
