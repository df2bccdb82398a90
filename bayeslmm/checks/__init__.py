"""Checks of a model against its data: overdispersion, zero inflation, residuals by simulation, collinearity; for fits of either engine.

Each check is a function of a fit that returns a small record; its `.check` says value, limit, meaning and what to do. Those that need
no simulation (`MODEL_CHECKS`) are part of every fit's `diagnose()`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bayeslmm.checks.collinear import Collinearity, collinearity
from bayeslmm.checks.collinear import at_fit as _collinear
from bayeslmm.checks.dispersion import Overdispersion, overdispersion
from bayeslmm.checks.dispersion import at_fit as _dispersed
from bayeslmm.checks.residuals import Outliers, Trend, Uniformity, outliers, trend, uniformity
from bayeslmm.checks.zeros import ZeroInflation, zero_inflation
from bayeslmm.checks.zeros import at_fit as _zeros

if TYPE_CHECKING:
    from bayeslmm.fit import Check, Fit

__all__ = [
    "MODEL_CHECKS",
    "Collinearity",
    "Outliers",
    "Overdispersion",
    "Trend",
    "Uniformity",
    "ZeroInflation",
    "collinearity",
    "model_checks",
    "outliers",
    "overdispersion",
    "trend",
    "uniformity",
    "zero_inflation",
]

MODEL_CHECKS: tuple[Callable[[Fit], Check | None], ...] = (_dispersed, _zeros, _collinear)
"""The checks without simulation: functions of a fit, None where the check is not about its model."""


def model_checks(fit: Fit) -> tuple[Check, ...]:
    """Return the checks without simulation that are about this fit's model."""
    found = (check(fit) for check in MODEL_CHECKS)
    return tuple(check for check in found if check is not None)
