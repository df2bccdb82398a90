"""Slopes of predictions: derivatives by a predictor and elasticities, for every row or averaged; names as in marginaleffects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.effects.comparisons import change_part, changes_of, numbers_of, specified
from bayeslmm.effects.pairs import COMPARISONS
from bayeslmm.effects.quantities import Quantity, setting_of
from bayeslmm.effects.rows import Variable, base_rows, coded, with_weights
from bayeslmm.effects.tables import Part, asked, result
from bayeslmm.errors import DataError, FitError, suggest

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

    from bayeslmm.effects.rows import Rows
    from bayeslmm.fit import Fit
    from bayeslmm.model import Model

__all__ = ["SLOPES", "slopes"]

type Array = np.ndarray

_STEP = 1e-4
"""Of the central differences, in ranges of the predictor, as in marginaleffects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slope:
    """A derivative times x (`of_x`) over the prediction (`of_y`), and its label."""

    label: str
    of_x: bool = False
    of_y: bool = False


SLOPES: Mapping[str, Slope] = MappingProxyType(
    {
        "dydx": Slope(label="dY/dX"),
        "eyex": Slope(label="eY/eX", of_x=True, of_y=True),
        "eydx": Slope(label="eY/dX", of_y=True),
        "dyex": Slope(label="dY/eX", of_x=True),
    }
)
"""Name -> what is differentiated by what: y or x themselves (d), or relative changes of them (e)."""


def slopes(
    fit: Fit,
    variables: Sequence[str] | str | None = None,
    by: bool | str | Sequence[str] | None = None,
    slope: str = "dydx",
    newdata: Any = None,
    *,
    target: str = "average_group",
    scale: str = "response",
    wts: Any = None,
    ddf: str | None = None,
    prob: float = 0.95,
    hypothesis: Any = None,
    seed: int | None = None,
) -> pd.DataFrame:
    """Return slopes of predictions by predictors, for every row or averaged.

    Derivatives are central differences over 1e-4 of the predictor's range, new values going through the formula's functions as the
    fit applied them (splines, polynomials, interactions).

    Parameters
    ----------
    fit, by, target, scale, wts, ddf, prob, hypothesis, seed
        As for `predictions`.
    variables
        Names of predictors. Default: all of the fixed part (for elasticities all numbers). Categories have no slope: with `"dydx"`
        each is compared with the first.
    slope
        `"dydx"`; `"eyex"`: the elasticity, per cent of y for one per cent of x; `"eydx"`, `"dyex"`: semi-elasticities.
    newdata
        The rows at which slopes are taken, as for `predictions`.

    Returns
    -------
    DataFrame
        `term, contrast` (`dY/dX`), then as for `predictions`; a posterior has `p_direction`.

    Raises
    ------
    DataError
        If a column is not there.
    FitError
        For an unknown option, an elasticity of categories, or an option that the fit cannot have.

    Source: Arel-Bundock, Greifer & Heiss (2024), J. Stat. Softw. 111(9), for names and definitions.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + I(Days^2) + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> bl.slopes(fit, newdata={"Days": [0, 9]})[["term", "contrast", "estimate"]].round(2).values.tolist()
    [['Days', 'dY/dX', 7.43], ['Days', 'dY/dX', 13.5]]
    """
    if slope not in SLOPES:
        raise FitError(f"unknown slope {slope!r}{suggest(str(slope), list(SLOPES))} (known: {', '.join(SLOPES)})")
    if isinstance(variables, Mapping):
        raise DataError("variables of slopes are names of predictors; for changes of a given size use `comparisons`")
    setting = setting_of(fit, target, scale, seed)
    question = asked(by, ddf, prob, hypothesis)
    rows = with_weights(base_rows(fit.model, newdata), wts)
    wanted = _wanted(specified(fit.model, variables), SLOPES[slope], named=variables is not None)
    random = target == "conditional"
    parts = [part for variable in wanted for part in _parts(fit.model, variable, SLOPES[slope], random)]
    if not parts:
        raise DataError("there is no predictor to differentiate by; the fixed part has none")
    return result(setting, rows, parts, question)


def _wanted(found: Sequence[tuple[Variable, Any]], kind: Slope, *, named: bool) -> list[Variable]:
    """Return the predictors, for elasticities those that are numbers."""
    elastic = kind.of_x or kind.of_y
    for variable, _ in found:
        if elastic and named and variable.categories is not None:
            raise FitError(f"'{variable.name}' holds categories, which have no elasticity; use slope='dydx', or `comparisons`")
    return [variable for variable, _ in found if not elastic or variable.categories is None]


def _parts(model: Model, variable: Variable, kind: Slope, random: bool) -> list[Part]:
    if variable.categories is not None:
        return [change_part(model, (change,), "difference", random=random) for change in changes_of(variable, None)]
    quantity = partial(_quantity, model, variable, kind, random)
    return [Part(labels={"term": variable.name, "contrast": kind.label}, quantity=quantity, null=COMPARISONS["difference"].null)]


def _quantity(model: Model, variable: Variable, kind: Slope, random: bool, rows: Rows, weights: sp.csr_array | None) -> Quantity:
    """Return (high - low) / step, times x, over the prediction in between."""
    name, x = variable.name, numbers_of(rows, variable.name)
    step = _STEP * float(np.ptp(variable.numbers))
    arms = [coded(model, rows.assign({name: x + shift * step}), random=random) for shift in (0.5, -0.5)]
    factor = (x if kind.of_x else np.ones(len(x))) / step
    if not kind.of_y:
        return Quantity(
            arms=tuple(arms),
            value=lambda high, low: (high - low) * factor,
            slopes=lambda high, low: (factor, -factor),
            weights=weights,
            average_first=False,
        )

    def by_each(high: Array, low: Array, mu: Array) -> tuple[Array, Array, Array]:
        return factor / mu, -factor / mu, -(high - low) * factor / mu**2

    return Quantity(
        arms=(*arms, coded(model, rows, random=random)),
        value=lambda high, low, mu: (high - low) * factor / mu,
        slopes=by_each,
        weights=weights,
        average_first=False,
    )
