"""Rows to predict: those of the fit, new ones or a grid, with columns set to other values, coded as the fit coded its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.data import read_column, to_pandas
from bayeslmm.effects.grid import coerced, fixed_columns, reference_grid, value_label, with_all_columns
from bayeslmm.errors import DataError, FitError, suggest
from bayeslmm.formula.evaluate import columns_in
from bayeslmm.formula.values import Factor, drop_unused

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.design import NewRows
    from bayeslmm.model import Model

__all__ = ["GRIDS", "Rows", "Variable", "base_rows", "coded", "compared_names", "counterfactual", "variable_named", "with_weights"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Rows as a frame; `offset` (n,) is that of an array argument, which no column carries (None: new rows, which cannot have it).

    `rowid` (n,): each row's label in the data, or its number in a grid; `weights` (n,): of averages.
    """

    frame: pd.DataFrame
    offset: Array | None
    rowid: Array
    weights: Array

    @property
    def n(self) -> int:
        return len(self.frame)

    def take(self, which: Any) -> Rows:
        """Return some rows, also repeated."""
        offset = None if self.offset is None else self.offset[which]
        return Rows(frame=self.frame.iloc[which], offset=offset, rowid=self.rowid[which], weights=self.weights[which])

    def assign(self, columns: Mapping[str, Any]) -> Rows:
        """Return the rows with other values in some columns."""
        return replace(self, frame=self.frame.assign(**columns))

    def pieces(self, size: int) -> Iterator[Rows]:
        """Yield the rows, `size` at a time."""
        for start in range(0, max(self.n, 1), max(size, 1)):
            yield self.take(slice(start, start + max(size, 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """A predictor: its `categories` in order (levels, FALSE and TRUE, the two values 0 and 1) or, of a number, None.

    `numbers`: its values in the rows of the fit, none for a factor; `factor`: whether the categories are levels.
    """

    name: str
    categories: tuple[Any, ...] | None
    numbers: Array
    factor: bool

    @property
    def labels(self) -> tuple[str, ...]:
        """The categories as text."""
        return tuple(value_label(value) for value in self.categories or ())

    def column(self, values: Sequence[Any]) -> Any:
        """Return a column of such values: categories in order for a factor."""
        import pandas as pd

        if self.factor:
            return pd.Categorical(list(values), categories=list(self.categories or ()))
        return np.asarray(values)

    def checked(self, given: Any, what: str) -> tuple[Any, ...]:
        """Return values that the variable can have.

        Raises
        ------
        DataError
            If there is none, or one is no level of the rows of the fit, or no finite number.
        """
        values = tuple(np.asarray(given, dtype=object).ravel().tolist())
        if not values:
            raise DataError(f"{what}: no value of '{self.name}'", column=self.name)
        if self.categories is not None:
            return tuple(self.categories[self.position(value, what)] for value in values)
        for value in values:
            if isinstance(value, bool | str) or not isinstance(value, int | float | np.number) or not np.isfinite(value):
                raise DataError(f"{what}: column '{self.name}' holds numbers, and {value!r} is no finite one", column=self.name)
        return tuple(float(value) for value in values)

    def position(self, value: Any, what: str) -> int:
        """Return the place of a category, given as itself or as its label."""
        label = value if isinstance(value, str) else value_label(value) if _is_plain(value) else str(value)
        if label not in self.labels:
            known = ", ".join(self.labels[:10])
            raise DataError(
                f"{what}: '{self.name}' has no value '{label}' in the rows used{suggest(str(label), self.labels)} (values: {known})",
                column=self.name,
            )
        return self.labels.index(label)


def variable_named(model: Model, name: str) -> Variable:
    """Return a predictor of the mean by its column's name.

    Raises
    ------
    DataError
        If the mean has no such predictor.
    """
    known = [*compared_names(model), *_slope_columns(model)]
    if name not in known:
        raise DataError(f"'{name}' is no predictor of the model{suggest(str(name), known)}", column=str(name))
    return _variable(model, name)


def _variable(model: Model, name: str) -> Variable:
    value = read_column(model.frame.loc[model.design.kept], name)
    if isinstance(value, Factor):
        return Variable(name=name, categories=drop_unused(value).levels, numbers=np.zeros(0), factor=True)
    numbers = value.values[np.isfinite(value.values)]
    distinct = np.unique(numbers).tolist()
    categories: tuple[Any, ...] | None = None
    if value.logical:
        categories = tuple(bool(one) for one in distinct)
    elif coerced(model.design.encoder, name) or distinct == [0.0, 1.0]:
        categories = tuple(distinct)
    return Variable(name=name, categories=categories, numbers=numbers, factor=False)


def compared_names(model: Model) -> tuple[str, ...]:
    """Return the columns that the terms of the fixed part read, offsets left out."""
    terms = model.design.encoder.formula.mean.terms
    return tuple(dict.fromkeys(name for term in terms for variable in term.variables for name in columns_in(variable)))


def _slope_columns(model: Model) -> tuple[str, ...]:
    bars = model.design.encoder.formula.mean.random
    return tuple(name for bar in bars for effect in bar.effects for variable in effect.variables for name in columns_in(variable))


def counterfactual(rows: Rows, values: Sequence[tuple[Variable, Sequence[Any]]]) -> Rows:
    """Return all rows once for each combination of the variables' values, the first variable's varying slowest."""
    combinations = list(product(*(given for _, given in values)))
    repeated = rows.take(np.tile(np.arange(rows.n), len(combinations)))
    columns = {}
    for i, (variable, _) in enumerate(values):
        columns[variable.name] = variable.column([one[i] for one in combinations for _ in range(rows.n)])
    return repeated.assign(columns)


def with_weights(rows: Rows, wts: Any) -> Rows:
    """Return the rows with the weights of averages: a column's name, or an array (n,).

    Raises
    ------
    DataError
        If they are no numbers of at least zero, one a row.
    """
    if wts is None:
        return rows
    if isinstance(wts, str) and wts not in rows.frame.columns:
        raise DataError(f"wts: the rows have no column '{wts}'{suggest(wts, [str(name) for name in rows.frame.columns])}", column=wts)
    try:
        weights = np.asarray(rows.frame[wts] if isinstance(wts, str) else wts, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError("wts must be the name of a column of numbers, or an array of them") from error
    if weights.shape != (rows.n,) or not np.isfinite(weights).all() or (weights < 0.0).any():
        raise DataError(f"wts must be finite and not negative, one for each of the {rows.n} rows; found shape {weights.shape}")
    return replace(rows, weights=weights)


# Where rows come from --------------------------------------------------------------------------------------------------


def base_rows(model: Model, newdata: Any, fixed: Mapping[str, tuple[Any, ...]] | None = None) -> Rows:
    """Return the rows of the fit (None), a grid by its name, or new ones.

    Parameters
    ----------
    model
        The model.
    newdata
        None, one of `GRIDS`, or a frame.
    fixed
        Column -> values that will be put in place of the grid's, so that it needs to lay out none of its own.

    Raises
    ------
    FitError
        If there is no such grid.
    """
    if newdata is None:
        frame = model.frame.loc[model.design.kept]
        return _rows(frame, _argument_offset(model), frame.index.to_numpy())
    if isinstance(newdata, str):
        if newdata not in GRIDS:
            raise FitError(f"newdata is a frame or one of {', '.join(GRIDS)}, not {newdata!r}{suggest(newdata, list(GRIDS))}")
        frame = GRIDS[newdata](model, fixed or {})
        return _rows(frame, np.full(len(frame), float(np.mean(_argument_offset(model)))), np.arange(len(frame)))
    frame = to_pandas(newdata)
    return _rows(frame, None, frame.index.to_numpy())


def _rows(frame: pd.DataFrame, offset: Array | None, rowid: Array) -> Rows:
    return Rows(frame=frame, offset=offset, rowid=rowid, weights=np.ones(len(frame)))


def _argument_offset(model: Model) -> Array:
    """Return the offset (n,) of the fitted rows that was given as an array."""
    design = model.design
    if not design.encoder.array_offset:
        return np.zeros(design.n)
    encoder = replace(design.encoder, weights=None, array_offset=False)
    rest: Array = design.offset - encoder.encode_new(model.frame.loc[design.kept], random=False).offset
    return rest


def _typical(number: Callable[[Array], float], category: Callable[[Any], Any]) -> Callable[[Model, Mapping[str, Any]], pd.DataFrame]:
    """Return what makes a grid of one row: each number at one value of its column, each category at another."""

    def grid(model: Model, fixed: Mapping[str, Any]) -> pd.DataFrame:
        import pandas as pd

        return pd.DataFrame(_typical_columns(model, _all_columns(model), number, category))

    return grid


def _typical_columns(
    model: Model, names: Sequence[str], number: Callable[[Array], float], category: Callable[[Any], Any]
) -> dict[str, Any]:
    """Return columns of one row; the levels of groups are the most frequent ones."""
    groups = _group_columns(model)
    columns = {}
    for name in names:
        raw = model.frame.loc[model.design.kept, name]
        variable = _variable(model, name)
        if name in groups:
            columns[name] = _most_frequent(raw).array
        elif variable.categories is None:
            columns[name] = np.array([number(variable.numbers)])
        else:
            columns[name] = category(raw).array
    return columns


def _balanced(model: Model, fixed: Mapping[str, Any]) -> pd.DataFrame:
    names = fixed_columns(model.design.encoder)
    grid = reference_grid(model, {name: values for name, values in fixed.items() if name in names})
    frame = grid.marginal([axis.name for axis in grid.axes]).labels
    others = _typical_columns(model, [name for name in _all_columns(model) if name not in frame.columns], np.mean, _most_frequent)
    return frame.assign(**{name: column[np.zeros(len(frame), dtype=int)] for name, column in others.items()})


def _most_frequent(raw: pd.Series) -> pd.Series:
    """Return one row that has the commonest value, the first of several in the column's order."""
    counts = raw.value_counts(sort=False).sort_index(kind="stable")
    place = int(np.argmax((raw == counts.index[int(np.argmax(counts.to_numpy()))]).to_numpy()))
    return raw.iloc[place : place + 1]


def _first(raw: pd.Series) -> pd.Series:
    """Return one row that has the first level, or the smallest value."""
    return raw.sort_values(kind="stable").iloc[:1]


GRIDS: Mapping[str, Callable[[Model, Mapping[str, Any]], pd.DataFrame]] = MappingProxyType(
    {
        "mean": _typical(lambda x: float(np.mean(x)), _most_frequent),
        "median": _typical(lambda x: float(np.median(x)), _most_frequent),
        "reference": _typical(lambda x: float(np.mean(x)), _first),
        "balanced": _balanced,
    }
)
"""Name -> the grid's frame. `mean`, `median`: one row, categories at the commonest; `reference`: at the first; `balanced`: all of them."""


def _all_columns(model: Model) -> tuple[str, ...]:
    """Return every column that coding a row reads: of all predictors, of offsets, of groups."""
    formula = model.design.encoder.formula
    nodes = []
    for predictor in (formula.mean, *formula.parameters.values()):
        nodes += [variable for term in predictor.terms for variable in term.variables] + list(predictor.offsets)
        for bar in predictor.random:
            nodes += [variable for term in bar.effects for variable in term.variables] + list(bar.group)
    names = [name for node in nodes for name in columns_in(node)]
    given = model.design.encoder.offset
    return tuple(dict.fromkeys([*names, *([given] if given is not None else [])]))


def _group_columns(model: Model) -> set[str]:
    formula = model.design.encoder.formula
    bars = [bar for predictor in (formula.mean, *formula.parameters.values()) for bar in predictor.random]
    return {name for bar in bars for node in bar.group for name in columns_in(node)} - set(compared_names(model))


# Coding ----------------------------------------------------------------------------------------------------------------


def coded(model: Model, rows: Rows, *, random: bool) -> NewRows:
    """Return rows in the coding of the fit, rank-deficient columns of X kept, (n, P).

    Parameters
    ----------
    random
        Whether the groups of the rows are wanted.

    Raises
    ------
    DataError
        If a column or a level is not there, or a group is known only by its relatives.
    """
    design = model.design
    encoder = replace(design.encoder, weights=None, array_offset=design.encoder.array_offset and rows.offset is None)
    if design.fixed.dropped:
        encoder = with_all_columns(encoder, design)
    new = encoder.encode_new(rows.frame, random=random)
    for block, of_fit in zip(new.blocks, design.blocks, strict=True):
        if block.n_levels > of_fit.n_levels:
            raise DataError(f"level '{block.levels[-1]}' of '{block.group}' is not in the data of the fit", column=block.group)
    return new if rows.offset is None else replace(new, offset=new.offset + rows.offset)


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | np.number | np.bool_)
