"""Comparisons between predictions that differ in one predictor, or in several at once; names as in marginaleffects."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.data import read_column
from bayeslmm.effects.pairs import Comparison, comparison_named, pairs_named
from bayeslmm.effects.quantities import Quantity, setting_of
from bayeslmm.effects.rows import Rows, Variable, base_rows, coded, compared_names, variable_named, with_weights
from bayeslmm.effects.tables import Part, asked, result
from bayeslmm.errors import DataError, FitError, suggest
from bayeslmm.formula.values import Numbers, number_label

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

    from bayeslmm.fit import Fit
    from bayeslmm.model import Model

__all__ = ["STEPS", "Change", "change_part", "changes_of", "comparisons", "numbers_of", "specified"]

type Array = np.ndarray


def comparisons(
    fit: Fit,
    variables: Mapping[str, Any] | Sequence[str] | str | None = None,
    by: bool | str | Sequence[str] | None = None,
    comparison: str = "difference",
    newdata: Any = None,
    *,
    cross: bool = False,
    target: str = "average_group",
    scale: str = "response",
    wts: Any = None,
    ddf: str | None = None,
    prob: float = 0.95,
    hypothesis: Any = None,
    seed: int | None = None,
) -> pd.DataFrame:
    """Return how predictions differ as predictors change, for every row or averaged.

    Parameters
    ----------
    fit, by, target, scale, wts, ddf, prob, seed
        As for `predictions`.
    variables
        Names of predictors, or a dict of name -> change. Default: all of the fixed part. Changes of a number: a step (1), centred
        on the row's value; `"sd"`, `"2sd"` (centred steps of that many standard deviations); `"iqr"`, `"minmax"`; a pair (from,
        to). Of categories: `"reference"` (each against the first; the default), `"sequential"`, `"pairwise"`, `"all"`, `"minmax"`,
        `"revreference"`, `"revsequential"`, `"revpairwise"`, or a pair. A number of 0 and 1 only counts as categories.
    comparison
        Of the high and the low prediction: `"difference"`, `"ratio"`, `"lnratio"`, `"lnor"` (logarithm of the odds ratio), `"lift"`
        ((high - low) / low). With `by`, the averages of the high and of the low predictions are compared.
    newdata
        The rows at which predictors change, as for `predictions`.
    cross
        Whether all predictors change together, one row for each combination of their changes.
    hypothesis
        As for `predictions`. Tests are against no difference, which is 1 for a ratio and 0 otherwise, unless a number is given.

    Returns
    -------
    DataFrame
        `term, contrast` (of `cross`: `contrast_<name>` by predictor), then as for `predictions`; a posterior has `p_direction`.

    Raises
    ------
    DataError
        If a column or value is not there, or a column that holds no numbers is to be stepped.
    FitError
        For an unknown option, or one that the fit cannot have.

    Source: Arel-Bundock, Greifer & Heiss (2024), J. Stat. Softw. 111(9), for names and definitions.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("diameter ~ sample + (1 | plate)", bl.load_dataset("Penicillin"))
    >>> bl.comparisons(fit, by=True)[["contrast", "estimate"]].round(2).head(2).values.tolist()
    [['B - A', -3.21], ['C - A', -0.25]]
    """
    comparison_named(comparison)
    setting = setting_of(fit, target, scale, seed)
    question = asked(by, ddf, prob, hypothesis)
    rows = with_weights(base_rows(fit.model, newdata), wts)
    found = [changes_of(variable, change) for variable, change in specified(fit.model, variables)]
    together = list(product(*found)) if cross else [(change,) for changes in found for change in changes]
    if not any(together):
        raise DataError("there is no predictor to compare; the fixed part has none")
    parts = [change_part(fit.model, changes, comparison, cross=cross, random=target == "conditional") for changes in together]
    return result(setting, rows, parts, question)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A predictor's change: `low` and `high` give its column from the rows; `pair`: the names of both ends, `name` if it has its own."""

    variable: str
    low: Callable[[Rows], Any]
    high: Callable[[Rows], Any]
    pair: tuple[str, str] | None = None
    name: str = ""

    def label(self, how: Comparison) -> str:
        """Return the contrast's label: of a pair by the comparison."""
        return self.name if self.pair is None else how.label.format(high=self.pair[0], low=self.pair[1])


def change_part(model: Model, changes: Sequence[Change], comparison: str, *, cross: bool = False, random: bool) -> Part:
    """Return the quantity of a table that compares predictions after the changes with those before."""
    how = comparison_named(comparison)
    quantity = partial(_quantity, model, changes, comparison, how, random)
    return Part(labels=_labels(changes, how, cross=cross), quantity=quantity, null=how.null)


def _labels(changes: Sequence[Change], how: Comparison, *, cross: bool) -> dict[str, str]:
    if not cross:
        return {"term": changes[0].variable, "contrast": changes[0].label(how)}
    return {"term": "cross", **{f"contrast_{change.variable}": change.label(how) for change in changes}}


def _quantity(
    model: Model, changes: Sequence[Change], name: str, how: Comparison, random: bool, rows: Rows, weights: sp.csr_array | None
) -> Quantity:
    high = coded(model, rows.assign({change.variable: change.high(rows) for change in changes}), random=random)
    low = coded(model, rows.assign({change.variable: change.low(rows) for change in changes}), random=random)

    def value(up: Array, down: Array) -> Array:
        how.check(name, up, down)
        with np.errstate(divide="ignore", invalid="ignore"):
            return how.value(up, down)

    return Quantity(arms=(high, low), value=value, slopes=how.slopes, weights=weights, average_first=True)


# Changes ---------------------------------------------------------------------------------------------------------------


def specified(model: Model, variables: Any) -> list[tuple[Variable, Any]]:
    """Return the predictors and the changes asked for, None for the usual one.

    Raises
    ------
    DataError
        If there is no such predictor.
    """
    if variables is None:
        return [(variable_named(model, name), None) for name in compared_names(model)]
    if isinstance(variables, Mapping):
        return [(variable_named(model, name), change) for name, change in variables.items()]
    names = (variables,) if isinstance(variables, str) else tuple(variables) if isinstance(variables, list | tuple) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise DataError("variables is a dict of column -> change, as {'x': 'sd'}, or names of columns")
    return [(variable_named(model, str(name)), None) for name in names]


def changes_of(variable: Variable, change: Any) -> list[Change]:
    """Return the changes of a predictor that were asked for; the usual one where that is None.

    Raises
    ------
    FitError
        For an unknown name of a change.
    DataError
        For values that the predictor cannot have.
    """
    return _of_number(variable, change) if variable.categories is None else _of_categories(variable, change)


def _of_categories(variable: Variable, change: Any) -> list[Change]:
    categories, labels = variable.categories or (), variable.labels
    if change is None or isinstance(change, str):
        pairs = pairs_named(change or "reference", len(categories), f"variables: '{variable.name}'")
    else:
        low, high = _pair(variable, change)
        pairs = [(variable.position(high, "variables"), variable.position(low, "variables"))]
    return [
        Change(
            variable=variable.name,
            low=partial(_filled, variable, categories[low]),
            high=partial(_filled, variable, categories[high]),
            pair=(labels[high], labels[low]),
        )
        for high, low in pairs
    ]


def _of_number(variable: Variable, change: Any) -> list[Change]:
    if isinstance(change, str):
        if change not in STEPS:
            known = ", ".join(STEPS)
            raise FitError(f"variables: unknown change {change!r} of '{variable.name}'{suggest(change, list(STEPS))} (known: {known})")
        return [STEPS[change](variable)]
    if change is None or np.ndim(change) == 0:
        (step,) = variable.checked(1.0 if change is None else change, "variables")
        return [_step(variable, step, name=f"+{number_label(step)}" if step >= 0.0 else number_label(step))]
    low, high = variable.checked(_pair(variable, change), "variables")
    return [_between(variable, low, high, (number_label(high), number_label(low)))]


def _pair(variable: Variable, change: Any) -> tuple[Any, Any]:
    values = tuple(np.asarray(change, dtype=object).ravel().tolist())
    if len(values) != 2:
        raise DataError(
            f"variables: '{variable.name}' takes the name of a change, or a pair (from, to), not {change!r}", column=variable.name
        )
    return values


def _step(variable: Variable, step: float, *, pair: tuple[str, str] | None = None, name: str = "") -> Change:
    """Return a step centred on each row's own value."""
    return Change(
        variable=variable.name,
        low=lambda rows: numbers_of(rows, variable.name) - step / 2.0,
        high=lambda rows: numbers_of(rows, variable.name) + step / 2.0,
        pair=pair,
        name=name,
    )


def _between(variable: Variable, low: float, high: float, pair: tuple[str, str]) -> Change:
    return Change(variable=variable.name, low=partial(_filled, variable, low), high=partial(_filled, variable, high), pair=pair)


def _filled(variable: Variable, value: Any, rows: Rows) -> Any:
    return variable.column([value] * rows.n)


def numbers_of(rows: Rows, name: str) -> Array:
    """Return a column of the rows that holds numbers.

    Raises
    ------
    DataError
        If it is not there, or holds none.
    """
    value = read_column(rows.frame, name)
    if not isinstance(value, Numbers):
        raise DataError(f"column '{name}' holds categories, but held numbers in the fitted data", column=name)
    return value.values


STEPS: Mapping[str, Callable[[Variable], Change]] = MappingProxyType(
    {
        "sd": lambda x: _step(x, float(np.std(x.numbers, ddof=1)), pair=("(x+sd/2)", "(x-sd/2)")),
        "2sd": lambda x: _step(x, 2.0 * float(np.std(x.numbers, ddof=1)), pair=("(x+sd)", "(x-sd)")),
        "iqr": lambda x: _between(x, float(np.quantile(x.numbers, 0.25)), float(np.quantile(x.numbers, 0.75)), ("Q3", "Q1")),
        "minmax": lambda x: _between(x, float(x.numbers.min()), float(x.numbers.max()), ("Max", "Min")),
    }
)
"""Name -> the change of a number over the rows of the fit."""
