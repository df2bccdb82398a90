"""Predictions for every row, on a grid or averaged over rows, of either engine's fit; names as in marginaleffects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.effects.quantities import Quantity, plain, setting_of
from bayeslmm.effects.rows import Variable, base_rows, coded, compared_names, counterfactual, variable_named, with_weights
from bayeslmm.effects.tables import Part, asked, result
from bayeslmm.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

    from bayeslmm.effects.rows import Rows
    from bayeslmm.fit import Fit
    from bayeslmm.model import Model

__all__ = ["predictions"]


def predictions(
    fit: Fit,
    newdata: Any = None,
    variables: Mapping[str, Any] | Sequence[str] | str | None = None,
    by: bool | str | Sequence[str] | None = None,
    *,
    target: str = "average_group",
    scale: str = "response",
    wts: Any = None,
    ddf: str | None = None,
    prob: float = 0.95,
    hypothesis: Any = None,
    seed: int | None = None,
) -> pd.DataFrame:
    """Return predictions with their errors, for every row or averaged.

    Parameters
    ----------
    fit
        A fit of either engine.
    newdata
        Rows to predict. Default: those of the fit. A frame; or a grid: `"mean"`, `"median"` (one row: numbers there, categories at
        the commonest), `"reference"` (numbers at the mean, categories at the first) or `"balanced"` (all combinations of
        categories, numbers at the mean: the reference grid of `emmeans`).
    variables
        Columns to set to other values, all rows once for each combination: a dict `{"Days": [0, 9]}`; names alone stand for all
        categories, and for the minimum, quartiles and maximum of a number.
    by
        True: the mean over all rows; columns: the means in their groups. Default: every row by itself.
    target
        `"average_group"`: random effects at 0; `"population"`: the mean over the groups of the fitted population; `"conditional"`:
        the rows' own groups; `"new_group"`: one group drawn from the population, the same for all rows.
    scale
        `"response"` or `"link"`.
    wts
        Weights of the rows in means: a column or an array.
    ddf
        Of linear mixed models by the classical engine: `"satterthwaite"` (default), `"kenward-roger"` or `"asymptotic"` (default
        above 3000 rows).
    prob
        Probability of the intervals.
    hypothesis
        A number to test against; or functions of the estimates in their place: `"difference ~ pairwise"` (`ratio`, `lnratio`,
        ...; `reference`, `sequential`, `revpairwise`, ...), a dict of name -> coefficients, or a matrix with one row a hypothesis.
    seed
        For the new group of a posterior.

    Returns
    -------
    DataFrame
        Every row: `rowid` (its label in the data), the numbers, the row's columns. Means: the columns of `by`, the numbers.
        Numbers of a classical fit: `estimate, se, df, statistic, p_value, lower, upper`, errors by the delta method, the variance
        parameters held at their estimates. Through a link (`scale="response"`) test and limits are made on its scale, where 0 is
        what is tested against, and the limits carried back. Numbers of a posterior: `estimate` (mean), `se` (standard deviation),
        `lower, upper` (quantiles) and, with a hypothesis, `p_direction`. NaN, with a warning `not_estimable`, where the data do
        not tell a prediction.

    Raises
    ------
    DataError
        If a column or value is not there.
    FitError
        For an unknown option, or one that the fit cannot have.

    Source: Arel-Bundock, Greifer & Heiss (2024), J. Stat. Softw. 111(9), for names and definitions.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> bl.predictions(fit, "mean", {"Days": [0, 9]})[["estimate", "se", "df", "Days"]].round(2).values.tolist()
    [[251.41, 6.82, 17.0, 0.0], [345.61, 14.63, 17.0, 9.0]]
    """
    setting = setting_of(fit, target, scale, seed)
    question = asked(by, ddf, prob, hypothesis, on_link=True)
    chosen = _chosen(fit.model, variables)
    laid_out = compared_names(fit.model) if isinstance(newdata, str) and newdata == "balanced" else ()
    rows = with_weights(base_rows(fit.model, newdata, {variable.name: values for variable, values in chosen}), wts)
    rows = counterfactual(rows, [(variable, values) for variable, values in chosen if variable.name not in laid_out])
    random = target == "conditional"

    def quantity(some: Rows, weights: sp.csr_array | None) -> Quantity:
        return plain(coded(fit.model, some, random=random), weights)

    return result(setting, rows, [Part(labels={}, quantity=quantity)], question)


def _chosen(model: Model, variables: Any) -> list[tuple[Variable, tuple[Any, ...]]]:
    """Return the variables to set and their values."""
    if variables is None:
        return []
    if isinstance(variables, Mapping):
        named = [(variable_named(model, name), given) for name, given in variables.items()]
        return [(variable, _usual(variable) if given is None else variable.checked(given, "variables")) for variable, given in named]
    names = (variables,) if isinstance(variables, str) else tuple(variables) if isinstance(variables, list | tuple) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise DataError("variables is a dict of column -> values, as {'x': [0, 1]}, or names of columns")
    return [(variable, _usual(variable)) for variable in (variable_named(model, str(name)) for name in names)]


def _usual(variable: Variable) -> tuple[Any, ...]:
    """Return all categories, or the five numbers of a number."""
    if variable.categories is not None:
        return variable.categories
    return tuple(np.quantile(variable.numbers, [0.0, 0.25, 0.5, 0.75, 1.0]).tolist())
