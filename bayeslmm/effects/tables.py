"""The frames of `predictions`, `comparisons` and `slopes`: quantities for every row or averaged, tested, with intervals, labelled."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy import stats

from bayeslmm.classical.fit import ClassicalFit
from bayeslmm.effects.emmeans import DDF, DDF_METHODS, MAX_ROWS_DDF
from bayeslmm.effects.grid import value_label
from bayeslmm.effects.pairs import null_value, reduction
from bayeslmm.effects.quantities import Linearised, Setting, known, linearise, stacked, values, variance_of
from bayeslmm.errors import BayesLmmWarning, DataError, FitError, suggest

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.effects.quantities import Quantity
    from bayeslmm.effects.rows import Rows

__all__ = ["NUMBERS", "Asked", "Part", "asked", "by_columns", "result"]

type Array = np.ndarray

NUMBERS = ("estimate", "se", "df", "statistic", "p_value", "lower", "upper", "p_direction")
"""Columns of numbers, in order; a posterior has no `df`, `statistic` and `p_value`, a classical fit no `p_direction`."""
_AT_ONCE = 20_000_000
"""Draws x rows of a table made at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One quantity of a table: its `labels`, how it is made of rows and the weights of their averages, its value of no effect."""

    labels: Mapping[str, str]
    quantity: Callable[[Rows, sp.csr_array | None], Quantity]
    null: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How quantities are averaged (`by`: columns, none for a single mean, None for every row) and judged.

    `on_link`: tests and limits are made on the scale of the link, and the limits carried back.
    """

    by: tuple[str, ...] | None
    ddf: str | None
    prob: float
    hypothesis: Any
    on_link: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """A table to be made: `nulls` of each part, `weights` of averages (None: every row), `texts` that name estimates in hypotheses."""

    setting: Setting
    rows: Rows
    parts: Sequence[Part]
    nulls: Sequence[float | None]
    weights: sp.csr_array | None
    question: Asked
    texts: Sequence[str]


def asked(by: Any, ddf: str | None, prob: float, hypothesis: Any, *, on_link: bool = False) -> Asked:
    """Return the options, checked.

    Raises
    ------
    FitError
        For an option that there is not.
    """
    if ddf is not None and ddf not in DDF:
        raise FitError(f"unknown ddf {ddf!r}{suggest(str(ddf), DDF)}")
    if isinstance(prob, bool) or not isinstance(prob, Real) or not 0 < prob < 1:
        raise FitError(f"prob must lie between 0 and 1, not {prob!r}")
    if isinstance(hypothesis, bool):
        raise FitError("hypothesis is a number, text as 'difference ~ pairwise', a dict of name -> coefficients or a matrix")
    return Asked(by=by_columns(by), ddf=ddf, prob=float(prob), hypothesis=hypothesis, on_link=on_link)


def by_columns(by: Any) -> tuple[str, ...] | None:
    """Return the columns to average by: none of them for `True`, None for no average at all.

    Raises
    ------
    DataError
        If `by` is no column's name, list of names, True or None.
    """
    if by is None or by is False:
        return None
    if by is True:
        return ()
    names = (by,) if isinstance(by, str) else tuple(by) if isinstance(by, list | tuple) else (None,)
    if not all(isinstance(name, str) for name in names):
        raise DataError("by is True, a column's name or a list of them")
    for name in names:
        if name in NUMBERS:
            raise DataError(f"by: the column '{name}' has the name of a column of the result; rename it", column=name)
    return tuple(dict.fromkeys(names))


def result(setting: Setting, rows: Rows, parts: Sequence[Part], question: Asked) -> pd.DataFrame:
    """Return the frame of some quantities."""
    import pandas as pd

    groups, weights = _averages(rows, question.by)
    labels = pd.concat([_labelled(part, groups, rows) for part in parts], ignore_index=True)
    data = labels[[]] if groups is not None else pd.concat([_grid_columns(rows, labels)] * len(parts), ignore_index=True)
    null = null_value(question.hypothesis)
    nulls = [part.null if null is None else null for part in parts]
    make = _posterior if setting.posterior else _point
    names, columns = make(
        _Work(
            setting=setting, rows=rows, parts=parts, nulls=nulls, weights=weights, question=question, texts=_texts(labels, data, question)
        )
    )
    shown = [labels, pd.DataFrame(columns), data] if names is None else [pd.DataFrame({"hypothesis": list(names), **columns})]
    table = pd.concat(shown, axis=1)
    table.attrs["notes"] = [f"target: {setting.target}", f"scale: {setting.scale}", f"intervals: {100 * question.prob:g} %"]
    return table


# Rows and their averages -----------------------------------------------------------------------------------------------


def _averages(rows: Rows, by: tuple[str, ...] | None) -> tuple[pd.DataFrame | None, sp.csr_array | None]:
    """Return the groups of the rows, one a row of a frame, and the weights (groups, rows) of their means."""
    import pandas as pd

    if by is None:
        return None, None
    for name in by:
        if name not in rows.frame.columns:
            raise DataError(f"by: the rows have no column '{name}'{suggest(name, [str(c) for c in rows.frame.columns])}", column=name)
    if by:
        codes = rows.frame.groupby(list(by), observed=True, sort=True).ngroup().to_numpy()
        found, first = np.unique(codes, return_index=True)
        groups = rows.frame[list(by)].iloc[first[found >= 0]].reset_index(drop=True)
    else:
        codes, groups = np.zeros(rows.n, dtype=int), pd.DataFrame(index=range(1))
    inside = np.flatnonzero(codes >= 0)
    W = sp.csr_array((rows.weights[inside], (codes[inside], inside)), shape=(len(groups), rows.n))
    total = np.asarray(W.sum(axis=1)).ravel()
    if np.any(total <= 0.0):
        raise DataError("there is nothing to average: no row, or all weights of a group are zero")
    return groups, sp.csr_array(sp.diags_array(1.0 / total) @ W)


def _labelled(part: Part, groups: pd.DataFrame | None, rows: Rows) -> pd.DataFrame:
    import pandas as pd

    shown = pd.DataFrame({"rowid": rows.rowid}) if groups is None else groups
    labels = pd.DataFrame(dict(part.labels), index=shown.index)
    return pd.concat([shown, labels], axis=1) if groups is None else pd.concat([labels, groups], axis=1)


def _grid_columns(rows: Rows, shown: pd.DataFrame) -> pd.DataFrame:
    """Return the columns of the rows that have no name of the result's own."""
    taken = {*shown.columns, *NUMBERS}
    return rows.frame[[name for name in rows.frame.columns if name not in taken]].reset_index(drop=True)


def _texts(labels: pd.DataFrame, data: pd.DataFrame, question: Asked) -> list[str]:
    """Return one text for each estimate, where a hypothesis names them: by the columns that vary, the row's label if these leave ties."""
    import pandas as pd

    if question.hypothesis is None or null_value(question.hypothesis) is not None:
        return []
    told = pd.concat([labels.drop(columns="rowid", errors="ignore"), data], axis=1)
    told = told[[name for name in told.columns if told[name].nunique() > 1]]
    told = labels if told.duplicated().any() or not len(told.columns) else told
    return [", ".join(_text(value) for value in row) or f"b{i + 1}" for i, row in enumerate(told.itertuples(index=False))]


def _text(value: Any) -> str:
    return value_label(value) if isinstance(value, str | bool | int | float | np.number | np.bool_) else str(value)


# Posteriors ------------------------------------------------------------------------------------------------------------


def _posterior(work: _Work) -> tuple[tuple[str, ...] | None, Mapping[str, Array]]:
    setting, question, weights = work.setting, work.question, work.weights
    if question.ddf is not None:
        raise FitError("ddf is of classical fits; a posterior needs no degrees of freedom")
    asked_of = reduction(question.hypothesis, work.texts)
    if asked_of is not None:
        draws = np.hstack([values(setting, part.quantity(work.rows, weights)) for part in work.parts])
        return asked_of.names, _summary(asked_of.value(draws), asked_of.null, question.prob)
    size = max(1, _AT_ONCE // setting.draws.n_draws)
    columns: dict[str, list[Array]] = {}
    for part, null in zip(work.parts, work.nulls, strict=True):
        for piece in [work.rows] if weights is not None else work.rows.pieces(size):
            quantity = part.quantity(piece, weights)
            told = _told(setting, quantity)
            for name, column in _summary(values(setting, quantity), null, question.prob).items():
                columns.setdefault(name, []).append(np.where(told, column, np.nan))
    return None, {name: np.concatenate(pieces) for name, pieces in columns.items()}


def _told(setting: Setting, quantity: Quantity) -> Array | bool:
    if not setting.model.design.fixed.dropped:
        return True
    return _warned(known(setting, linearise(setting, quantity)))


def _summary(draws: Array, null: float | None, prob: float) -> dict[str, Array]:
    lower, upper = np.quantile(draws, [0.5 - prob / 2.0, 0.5 + prob / 2.0], axis=0)
    columns = {"estimate": draws.mean(axis=0), "se": draws.std(axis=0, ddof=1), "lower": lower, "upper": upper}
    if null is not None:
        columns["p_direction"] = np.maximum(np.mean(draws > null, axis=0), np.mean(draws < null, axis=0))
    return columns


# Point estimates -------------------------------------------------------------------------------------------------------


def _point(work: _Work) -> tuple[tuple[str, ...] | None, Mapping[str, Array]]:
    setting, question = work.setting, work.question
    made = [linearise(setting, part.quantity(work.rows, work.weights)) for part in work.parts]
    null = np.repeat([np.nan if value is None else value for value in work.nulls], [len(one.estimate) for one in made])
    found, names = stacked(made), None
    asked_of = reduction(question.hypothesis, work.texts)
    if asked_of is not None:
        found = found.mapped(asked_of.value(found.estimate), asked_of.jacobian(found.estimate))
        names, null = asked_of.names, np.full(len(asked_of.names), asked_of.null)
    told = _warned(known(setting, found))
    estimate = np.where(told, found.estimate, np.nan)
    if not isinstance(setting.fit, ClassicalFit):
        return names, {"estimate": estimate}
    variance, df = _variance(setting, setting.fit, found, question.ddf)
    se = np.where(told, np.sqrt(variance), np.nan)
    on_link = question.on_link and asked_of is None and not setting.linear
    return names, _tested(setting, estimate, se, np.where(told, df, np.nan), null, question.prob, on_link=on_link)


def _tested(setting: Setting, estimate: Array, se: Array, df: Array, null: Array, prob: float, *, on_link: bool) -> dict[str, Array]:
    """Return estimates with their tests and limits; a null value that is not given is zero, `on_link` on that scale."""
    link = setting.model.link
    at, spread, against = estimate, se, np.where(np.isnan(null), 0.0, null)
    with np.errstate(divide="ignore", invalid="ignore"):
        if on_link:
            at = link.link(estimate)
            spread = se / np.abs(link.mu_eta(at))
            against = np.where(np.isnan(null), 0.0, link.link(null))
        statistic = (at - against) / spread
        half = stats.t.ppf(0.5 + prob / 2.0, df) * spread
        p_value = 2.0 * stats.t.sf(np.abs(statistic), df)
    limits = (at - half, at + half)
    if on_link:
        ends = [link.inverse(limit) for limit in limits]
        limits = (np.minimum(*ends), np.maximum(*ends))
    return {"estimate": estimate, "se": se, "df": df, "statistic": statistic, "p_value": p_value, "lower": limits[0], "upper": limits[1]}


def _variance(setting: Setting, fit: ClassicalFit, found: Linearised, ddf: str | None) -> tuple[Array, Array]:
    """Return variances and degrees of freedom: Satterthwaite's, unless others are asked for or they cannot be had."""
    if fit.generalised:
        if ddf not in (None, "asymptotic"):
            raise FitError(f"ddf='{ddf}' is of linear mixed models; this fit by {fit.method} has normal tests")
        return _variance_by(setting, fit, found, "asymptotic")
    if found.U is not None and ddf == "kenward-roger":
        raise FitError("Kenward and Roger's method is of the fixed effects alone; with random effects use ddf='satterthwaite'")
    if ddf is None:
        return _usual_variance(setting, fit, found)
    return _variance_by(setting, fit, found, ddf)


def _variance_by(setting: Setting, fit: ClassicalFit, found: Linearised, ddf: str) -> tuple[Array, Array]:
    if found.U is not None:
        return variance_of(setting, fit, found, None, df=ddf == "satterthwaite")
    judged = DDF_METHODS[ddf](fit)
    return variance_of(setting, fit, found, (judged.vcov, judged.df), df=False)


def _usual_variance(setting: Setting, fit: ClassicalFit, found: Linearised) -> tuple[Array, Array]:
    reason = f"{fit.nobs} rows are more than {MAX_ROWS_DDF}"
    if fit.nobs <= MAX_ROWS_DDF:
        try:
            return _variance_by(setting, fit, found, "satterthwaite")
        except FitError as error:
            reason = str(error)
    message = f"tests are asymptotic, without degrees of freedom: {reason}; ask by ddf='satterthwaite' or 'asymptotic'"
    warnings.warn(BayesLmmWarning("asymptotic", message), stacklevel=7)
    return _variance_by(setting, fit, found, "asymptotic")


def _warned(told: Array) -> Array:
    if not told.all():
        message = f"{int(np.sum(~told))} of {len(told)} values cannot be estimated from these data; they are NaN"
        warnings.warn(BayesLmmWarning("not_estimable", message), stacklevel=6)
    return told
