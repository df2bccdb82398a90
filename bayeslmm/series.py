"""Series of rows in order of time, within which residuals may be correlated: who comes before whom, and how long before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.errors import DataError
from bayeslmm.formula.values import frozen

if TYPE_CHECKING:
    from bayeslmm.formula.nodes import SeriesTerm

__all__ = ["Series", "make_series", "order_within"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The rows of a residual term `ar(time, gr)` on data.

    `index` (n,): each row's series; `time` (n,): whole numbers, no two equal in a series. `previous` (n,): the row of the same
    series that is last before it, -1 for none; `gap` (n,): how much earlier that is, 0 for none. `steps`: the first rows' followers,
    then theirs, and so on: arrays of rows, whose predecessors are all in earlier arrays.
    """

    term: SeriesTerm
    index: Array
    time: Array
    previous: Array
    gap: Array
    steps: tuple[Array, ...]

    def take(self, rows: Array, index: Array | None = None) -> Series:
        """Return the series of some rows (positions, or a mask), gaps over those left out; `index`: other numbers of series.

        Raises
        ------
        DataError
            If a row is taken twice into one series.
        """
        return make_series(self.term, self.index[rows] if index is None else index, self.time[rows], np.arange(len(self.time))[rows])


def order_within(index: Array) -> Array:
    """Return 0, 1, 2, ... (n,) for the rows of each series, in their order.

    Examples
    --------
    >>> order_within(np.array([0, 1, 0, 0, 1])).tolist()
    [0.0, 0.0, 1.0, 2.0, 1.0]
    """
    order = np.argsort(index, kind="stable")
    first = np.searchsorted(index[order], index[order])
    rank = np.empty(len(index))
    rank[order] = np.arange(len(index)) - first
    return rank


def make_series(term: SeriesTerm, index: Array, time: Array, labels: Any) -> Series:
    """Return the series of rows with given numbers of series and times, both (n,); `labels` name the rows in messages.

    Raises
    ------
    DataError
        If a time is no whole number, or stands twice in one series.
    """
    labels = np.asarray(labels)
    fraction = ~np.isfinite(time) | (time != np.round(time)) | (np.abs(time) > 2.0**52)
    if np.any(fraction):
        raise DataError(
            f"the times of {term.text} must be whole numbers, as {term.label_of_time} is not ({time[fraction][0]:g}); "
            "round or rescale them to steps of one",
            column=term.label_of_time,
            rows=labels[fraction].tolist(),
        )
    order = np.lexsort((time, index))
    together = index[order][1:] == index[order][:-1]
    gaps = np.diff(time[order])
    twice = np.flatnonzero(together & (gaps == 0.0))
    if twice.size:
        same = np.unique(np.concatenate([order[twice], order[twice + 1]]))
        raise DataError(
            f"a series of {term.text} has two rows at the same time; give the series by gr, or times that differ",
            column=term.label_of_time,
            rows=labels[same].tolist(),
        )
    previous = np.full(len(index), -1, dtype=np.int64)
    gap = np.zeros(len(index))
    previous[order[1:][together]] = order[:-1][together]
    gap[order[1:][together]] = gaps[together]
    starts = np.concatenate([np.ones(min(1, len(index)), dtype=bool), ~together])
    position = np.arange(len(index)) - np.maximum.accumulate(np.where(starts, np.arange(len(index)), 0))
    steps = tuple(frozen(order[position == step]) for step in range(1, int(np.max(position, initial=0)) + 1))
    return Series(term=term, index=frozen(index), time=frozen(time), previous=frozen(previous), gap=frozen(gap), steps=steps)
