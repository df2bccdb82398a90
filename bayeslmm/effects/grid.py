"""The reference grid of a model: all combinations of its factors' levels, coded as the fit coded its rows, and what is estimable on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.data import read_column
from bayeslmm.design import MEAN
from bayeslmm.errors import DataError, suggest
from bayeslmm.formula.deparse import deparse
from bayeslmm.formula.evaluate import columns_in
from bayeslmm.formula.values import Factor, Numbers, drop_unused, number_label

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.design import Design, Encoder
    from bayeslmm.model import Model

__all__ = [
    "MAX_ROWS",
    "Axis",
    "Grid",
    "Linear",
    "coerced",
    "fixed_columns",
    "null_basis",
    "reference_grid",
    "value_label",
    "with_all_columns",
]

type Array = np.ndarray

MAX_ROWS = 100_000
"""A grid of more rows is refused."""
_ESTIMABLE = 1e-6
"""Largest share of a function's squared length in directions that the data say nothing about.

(emmeans allows 1e-8 in the columns' own units, where a covariate far from zero hides much more.)
"""
_KEPT_VALUES = 2
"""A number with no more than this many values keeps them all, as in emmeans; one with more stands at its mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """One column of the grid: its `values` in order; `factor` where they are levels (text) rather than numbers or TRUE and FALSE."""

    name: str
    values: tuple[Any, ...]
    factor: bool

    @property
    def numeric_labels(self) -> bool:
        """Whether each value reads as a number, so that it needs the column's name before it to be understood."""
        return all(_is_number(value) for value in self.values)

    @property
    def labels(self) -> tuple[str, ...]:
        """The values as text."""
        return tuple(value_label(value) for value in self.values)

    def column(self, codes: Array) -> Any:
        """Return the values at the codes as a column: categories in order for a factor."""
        import pandas as pd

        if self.factor:
            return pd.Categorical(np.asarray(self.values, dtype=object)[codes], categories=list(self.values))
        return np.asarray(self.values)[codes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """Linear functions of the coefficients, one for each row of `labels`: `L` (m, p) of those in the fit, plus `offset` (m,).

    `full` (m, P) and `null` (P, r): the same in all columns of X, and what the data say nothing about (see `Grid`).
    """

    labels: pd.DataFrame
    L: Array
    offset: Array
    full: Array
    null: Array

    @property
    def known(self) -> Array:
        """Whether the data tell each function (m,): whether it is estimable."""
        inside = np.sum((self.full @ self.null) ** 2, axis=1)
        result: Array = inside <= _ESTIMABLE * np.maximum(np.sum(self.full**2, axis=1), np.finfo(float).tiny)
        return result

    def combined(self, weights: Array, labels: pd.DataFrame) -> Linear:
        """Return the combinations that the rows of `weights` (q, m) say."""
        return Linear(labels=labels, L=weights @ self.L, offset=weights @ self.offset, full=weights @ self.full, null=self.null)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The product of the axes, the first varying fastest: `X` (G, p) coded rows, `offset` (G,).

    `full` (G, P) has the rank-deficient columns too, each in units of its length in the data; `null` (P, r) spans the combinations
    of these that are zero in every row of the data.
    """

    axes: tuple[Axis, ...]
    X: Array
    full: Array
    offset: Array
    null: Array

    def axis(self, name: str) -> Axis:
        """Return the axis of a column.

        Raises
        ------
        DataError
            If the fixed part of the model has no such column.
        """
        for axis in self.axes:
            if axis.name == name:
                return axis
        known = [axis.name for axis in self.axes]
        raise DataError(f"'{name}' is no column of the model's fixed part{suggest(str(name), known)}", column=str(name))

    def marginal(self, names: Sequence[str]) -> Linear:
        """Return the means over all other axes, equally weighted, one for each combination of the axes named, the first fastest."""
        import pandas as pd

        wanted = [self.axis(name) for name in names]
        sizes = [len(axis.values) for axis in wanted]
        codes = np.indices(sizes[::-1]).reshape(len(sizes), prod(sizes))[::-1]
        labels = pd.DataFrame({axis.name: axis.column(code) for axis, code in zip(wanted, codes, strict=True)}, index=range(prod(sizes)))
        return Linear(
            labels=labels,
            L=self._averaged(self.X, names),
            offset=self._averaged(self.offset[:, None], names)[:, 0],
            full=self._averaged(self.full, names),
            null=self.null,
        )

    def _averaged(self, rows: Array, names: Sequence[str]) -> Array:
        count = len(self.axes)
        cube = rows.reshape(*(len(axis.values) for axis in reversed(self.axes)), rows.shape[1])
        place = {axis.name: count - 1 - i for i, axis in enumerate(self.axes)}
        kept = [place[name] for name in reversed(names)]
        others = [i for i in range(count) if i not in kept]
        turned = cube.transpose(*kept, *others, count)
        shape = (prod(turned.shape[: len(kept)]), prod(turned.shape[len(kept) : -1]), rows.shape[1])
        mean: Array = turned.reshape(shape).mean(axis=1)
        return mean


def reference_grid(model: Model, at: Mapping[str, Any] | None = None) -> Grid:
    """Return the reference grid of a model's fixed part, as R's emmeans lays it out.

    Factors, logical columns, columns inside `factor()` and numbers of two values have all their values; other numbers stand at
    their mean over the rows used, before any transformation: `log(x)` is taken at the logarithm of the mean.

    Parameters
    ----------
    model
        The model.
    at
        Column -> value or values, in place of those.

    Raises
    ------
    DataError
        If `at` names no column of the fixed part, or a value that its column cannot have; if the grid has more than `MAX_ROWS` rows.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> grid = reference_grid(bl.model("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")))
    >>> grid.axes[0].values, grid.X.tolist()
    ((4.5,), [[1.0, 4.5]])
    """
    import pandas as pd

    design = model.design
    rows = model.frame.loc[design.kept]
    encoder = replace(design.encoder, weights=None, offset=None, array_offset=False)
    whole = with_all_columns(encoder, design)
    names = fixed_columns(encoder)
    chosen = _chosen(at, names)
    axes = tuple(_axis(name, rows, encoder, chosen.get(name)) for name in names)
    sizes = [len(axis.values) for axis in axes]
    if prod(sizes) > MAX_ROWS:
        raise DataError(f"the reference grid would have {prod(sizes)} rows, more than {MAX_ROWS}; fix some columns with at={{...}}")
    codes = np.indices(sizes[::-1]).reshape(len(sizes), prod(sizes))[::-1]
    columns = {axis.name: axis.column(code) for axis, code in zip(axes, codes, strict=True)}
    filler = {name: rows[name].iloc[np.zeros(prod(sizes), dtype=int)].array for name in rows.columns if name not in columns}
    coded = whole.encode_new(pd.DataFrame({**filler, **columns}), random=False)
    full, null = coded.X, np.zeros((coded.X.shape[1], 0))
    if design.fixed.dropped:
        scale, null = null_basis(whole.encode_new(rows, random=False).X)
        full = coded.X / scale
    return Grid(
        axes=axes,
        X=coded.X[:, np.asarray(encoder.kept[MEAN], dtype=np.intp)],
        full=full,
        offset=coded.offset + _mean_argument_offset(model, encoder, rows),
        null=null,
    )


def with_all_columns(encoder: Encoder, design: Design) -> Encoder:
    """Return the encoder that keeps the rank-deficient columns of the fixed part too, (n, P)."""
    return replace(encoder, kept=MappingProxyType({**encoder.kept, MEAN: tuple(range(design.p + len(design.fixed.dropped)))}))


def value_label(value: Any) -> str:
    """Return a value of the grid as R writes it."""
    if isinstance(value, bool | np.bool_):
        return "TRUE" if value else "FALSE"
    return value if isinstance(value, str) else number_label(float(value))


def fixed_columns(encoder: Encoder) -> tuple[str, ...]:
    """Return the columns of the data that the fixed part of the mean and its offsets read."""
    mean = encoder.formula.mean
    nodes = [*(variable for term in mean.terms for variable in term.variables), *mean.offsets]
    return tuple(dict.fromkeys(name for node in nodes for name in columns_in(node)))


def coerced(encoder: Encoder, name: str) -> bool:
    """Whether a column of numbers is turned into a factor by the formula, as by `factor(x)`; `x > 3` counts as a number."""
    labels = [deparse(v) for term in encoder.formula.mean.terms for v in term.variables if name in columns_in(v)]
    return any(label in encoder.factors and set(encoder.factors[label].levels) != {"FALSE", "TRUE"} for label in labels)


def _axis(name: str, rows: pd.DataFrame, encoder: Encoder, given: Any) -> Axis:
    value = read_column(rows, name)
    if isinstance(value, Factor):
        levels = drop_unused(value).levels
        return Axis(name=name, values=levels if given is None else _levels(name, given, levels), factor=True)
    distinct = np.unique(value.values)
    if value.logical:
        found = tuple(bool(x) for x in distinct) if given is None else _truths(name, given)
        return Axis(name=name, values=found, factor=False)
    if given is not None:
        return Axis(name=name, values=_numbers(name, given), factor=False)
    whole = len(distinct) <= _KEPT_VALUES or coerced(encoder, name)
    return Axis(name=name, values=tuple(distinct.tolist()) if whole else (_mean(value),), factor=False)


def _mean(value: Numbers) -> float:
    return float(np.mean(value.values))


def _chosen(at: Mapping[str, Any] | None, names: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    if at is not None and not isinstance(at, Mapping):
        raise DataError(f"at is a dict of column -> values, as {{'x': [0, 1]}}, not {type(at).__name__}")
    chosen = {}
    for name, given in (at or {}).items():
        if name not in names:
            raise DataError(f"at: '{name}' is no column of the model's fixed part{suggest(str(name), names)}", column=str(name))
        several = np.ndim(given) > 0
        values = tuple(np.asarray(given, dtype=object).ravel().tolist()) if several else (given,)
        if not values:
            raise DataError(f"at: no value of '{name}'; leave it out to keep its usual values", column=name)
        chosen[name] = values
    return chosen


def _levels(name: str, given: tuple[Any, ...], levels: Sequence[str]) -> tuple[str, ...]:
    wanted = tuple(value_label(value) if _is_plain(value) else str(value) for value in given)
    for level in wanted:
        if level not in levels:
            raise DataError(f"at: factor '{name}' has no level '{level}' in the rows used{suggest(level, levels)}", column=name)
    return tuple(dict.fromkeys(wanted))


def _truths(name: str, given: tuple[Any, ...]) -> tuple[bool, ...]:
    if not all(isinstance(value, bool | np.bool_) for value in given):
        raise DataError(f"at: column '{name}' holds TRUE and FALSE; give True or False", column=name)
    return tuple(dict.fromkeys(bool(value) for value in given))


def _numbers(name: str, given: tuple[Any, ...]) -> tuple[float, ...]:
    if not all(_is_plain(value) and not isinstance(value, str) and np.isfinite(value) for value in given):
        raise DataError(f"at: column '{name}' holds numbers; give finite numbers", column=name)
    return tuple(dict.fromkeys(float(value) for value in given))


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | bool | int | float | np.number | np.bool_)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def _mean_argument_offset(model: Model, encoder: Encoder, rows: pd.DataFrame) -> float:
    """Return the mean of the offset that was given as an argument, which no column of the formula carries."""
    given = model.design.encoder
    if given.offset is None and not given.array_offset:
        return 0.0
    return float(np.mean(model.design.offset - encoder.encode_new(rows, random=False).offset))


def null_basis(X: Array) -> tuple[Array, Array]:
    """Return the lengths of X's columns (P,), and an orthonormal basis (P, r) of what X in these units takes to zero."""
    norms = np.linalg.norm(X, axis=0)
    scale = np.where(norms > 0.0, norms, 1.0)
    _, values, vectors = np.linalg.svd(np.linalg.qr(X / scale, mode="r"))
    rank = int(np.sum(values > 1e-7 * values[0]))
    return scale, vectors[rank:].T
