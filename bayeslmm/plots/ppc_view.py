"""What every check against replicates shows: the options asked for, the rows and replicates of a panel, the levels that split them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import FitError, suggest
from bayeslmm.plots.common import observed, response_label
from bayeslmm.prediction import generator, replicates

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.fit import Fit
    from bayeslmm.model import Model

__all__ = [
    "FEW_VALUES",
    "MOST_CELLS",
    "Facet",
    "Levels",
    "Request",
    "Sample",
    "View",
    "column",
    "extent",
    "levels_of",
    "replicated",
    "whole",
]

type Array = np.ndarray

TARGETS = {"conditional": True, "new_group": False}
"""Target -> whether replicates keep the fitted random effects."""
FEW_VALUES = 40
"""A response of whole numbers with no more distinct values than these is drawn value by value."""
_TITLE = 32
"""Longer titles of a panel take two lines."""
MOST_CELLS = 20_000_000
"""Rows x replicates held at a time, where the number of replicates was not asked for (160 MB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The options of a check, as the user gave them (None: the check's own)."""

    group: str | None
    n: int | None
    stat: Any
    target: str
    x: str | None
    prob: float
    limit: int | None
    seed: int | None

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            known = "'conditional' (the fitted groups) or 'new_group' (groups drawn anew from the fitted population)"
            raise FitError(f"replicates have target {known}, not {self.target!r}{suggest(str(self.target), list(TARGETS))}")
        if not isinstance(self.prob, (int, float)) or not 0 < self.prob < 1:
            raise FitError(f"prob must lie between 0 and 1, not {self.prob!r}")
        if self.limit is not None and (not isinstance(self.limit, (int, np.integer)) or self.limit < 1):
            raise FitError(f"limit must be a whole number of at least 1, not {self.limit!r}")

    @property
    def conditional(self) -> bool:
        return TARGETS[self.target]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Replicates (S, n) of a fit's rows; where a check computed them, each row's leave-one-out PIT (n,) and its k-hat (n,)."""

    simulated: Array
    pit: Array | None = None
    khat: Array | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """A variable that splits the rows: its name, its levels, and the level of each row (n,), -1 where it has none."""

    name: str
    labels: tuple[str, ...]
    codes: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Facet:
    """One panel: which fit, which rows (of which level), the response there (m,) and its replicates (S, m); a statistic if it has one."""

    label: str
    level: str
    rows: Array
    y: Array
    sample: Sample
    statistic: Any = None

    @property
    def simulated(self) -> Array:
        return self.sample.simulated


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What all panels of a figure share.

    `y`: the response (n,) on the scale of the check, counts or proportions; `samples`: replicates by fit on the same scale;
    `levels`: what splits the rows, or None; `limit`: at most so many panels, levels or rows; `extent`: where the response and nearly
    all of its replicates lie.
    """

    model: Model
    request: Request
    labels: tuple[str, ...]
    y: Array
    samples: tuple[Sample, ...]
    levels: Levels | None
    limit: int
    extent: tuple[float, float]

    def facet(self, number: int, rows: Array | None = None, *, level: str = "", statistic: Any = None) -> Facet:
        """Return the panel of a fit for some rows (None: all)."""
        sample = self.samples[number]
        if rows is None:
            return Facet(label=self.labels[number], level=level, rows=np.arange(len(self.y)), y=self.y, sample=sample, statistic=statistic)
        some = Sample(
            simulated=sample.simulated[:, rows],
            pit=None if sample.pit is None else sample.pit[rows],
            khat=None if sample.khat is None else sample.khat[rows],
        )
        return Facet(label=self.labels[number], level=level, rows=rows, y=self.y[rows], sample=some, statistic=statistic)

    def title(self, facet: Facet, said: str = "") -> str:
        """Return what tells a panel from the others, fit and level, and then what it says."""
        names = ": ".join(part for part in (facet.label if len(self.labels) > 1 else "", facet.level) if part)
        if not names or not said:
            return names or said
        return f"{names}: {said}" if len(names) + len(said.splitlines()[0]) <= _TITLE else f"{names}\n{said}"


type Panel = Callable[[Axes, Facet, View], pd.DataFrame]


def replicated(fit: Fit, request: Request, default: int) -> Sample:
    """Return responses simulated from a fit: as many as were asked for, or the check's own number where memory allows."""
    rows = fit.model.design.n
    n = request.n if request.n is not None else min(default, max(20, MOST_CELLS // max(rows, 1)))
    parts = [part for _, part in replicates(fit, n, conditional=request.conditional, rng=generator(request.seed))]
    return Sample(simulated=np.concatenate(parts, axis=1))


def extent(y: Array, samples: Sequence[Sample]) -> tuple[float, float]:
    """Return the range of the response and of all but a thousandth of its replicates at either end."""
    ends = np.array([np.quantile(sample.simulated, [0.001, 0.999]) for sample in samples])
    return min(float(y.min()), float(ends[:, 0].min())), max(float(y.max()), float(ends[:, 1].max()))


def whole(y: Array) -> bool:
    """Return whether a response is of whole numbers, few of them distinct."""
    return bool(np.all(y == np.round(y))) and len(np.unique(y)) <= FEW_VALUES


def on_scale(model: Model, sample: Sample, *, proportions: bool) -> tuple[Array, Sample]:
    """Return the response (n,) and its replicates as counts, or as proportions of the trials where there are any."""
    design = model.design
    if not proportions or design.trials is None:
        return np.asarray(design.y, dtype=float), sample
    trials = np.maximum(design.trials, 1)
    return observed(model), Sample(simulated=sample.simulated / trials, pit=sample.pit, khat=sample.khat)


def response_words(model: Model, *, proportions: bool) -> str:
    """Return the response's name for an axis; ordered levels are drawn as 0, 1, ..., and the label says so."""
    name = response_label(model, counts=not proportions)
    ordered = model.design.response_levels is not None and len(model.design.response_levels) > 2
    return f"{name} (levels as 0, 1, …)" if ordered else name


def levels_of(model: Model, name: str) -> Levels:
    """Return the levels of a grouping factor of the model, or of a column of its data.

    Raises
    ------
    FitError
        There is neither.
    """
    for block in model.design.blocks:
        if block.group == name:
            return Levels(name=name, labels=tuple(block.levels), codes=np.asarray(block.index))
    values = column(model, name, "group")
    if isinstance(values.dtype, pd.CategoricalDtype):
        factor = pd.Categorical(values).remove_unused_categories()
    else:
        factor = pd.Categorical(values, categories=sorted(values.dropna().unique(), key=lambda value: (str(type(value)), value)))
    return Levels(name=name, labels=tuple(_label(level) for level in factor.categories), codes=np.asarray(factor.codes))


def column(model: Model, name: str, option: str) -> pd.Series[Any]:
    """Return a column of the data at the rows used; `option` is what the user called it by.

    Raises
    ------
    FitError
        The data have no such column.
    """
    frame = model.frame
    if name not in frame.columns:
        known = list(dict.fromkeys([*(block.group for block in model.design.blocks), *(str(column) for column in frame.columns)]))
        raise FitError(f"{option}={name!r} is neither a grouping factor of the model nor a column of its data{suggest(str(name), known)}")
    values: pd.Series[Any] = frame.loc[model.design.kept, name]
    return values


def _label(level: Any) -> str:
    return format(level, "g") if isinstance(level, (float, np.floating)) else str(level)


def shown_levels(levels: Levels, limit: int) -> Sequence[int]:
    """Return positions of at most `limit` levels that have rows, spread evenly."""
    present = np.unique(levels.codes[levels.codes >= 0])
    if len(present) <= limit:
        return [int(code) for code in present]
    return [int(code) for code in present[np.unique(np.linspace(0, len(present) - 1, limit).round().astype(int))]]
