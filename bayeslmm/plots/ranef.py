"""Random effects of every level with their intervals, sorted by size, all fits together: the caterpillar."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.errors import FitError, suggest
from bayeslmm.plots.common import Source, effect_intervals, pick
from bayeslmm.plots.picture import COLOURS, MARKERS, MUTED, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

LABELLED = 45
"""With more levels than this the level names would overlap and are left out."""


def draw(source: Source, *, group: str | None = None, limit: int = 150, prob: float = 0.95) -> Picture:
    """Draw the random effects, a panel per grouping factor and effect.

    Parameters
    ----------
    source
        The fits.
    group
        Only this grouping factor (default: all).
    limit
        At most so many levels of a factor, spread evenly over the sorted levels.
    prob
        Probability of the intervals: quantiles of a posterior; for a point estimate normal, given the variances.
    """
    groups = list(dict.fromkeys(block.group for block in source.model.design.blocks))
    if not groups:
        raise FitError("the model has no random effects to draw")
    if group is not None and group not in groups:
        raise FitError(f"the model has no grouping factor {group!r}{suggest(group, groups)}")
    tables = {name: _table(source, name, prob) for name in ([group] if group else groups)}
    panels = [(name, effect) for name, table in tables.items() for effect in dict.fromkeys(table["effect"])]
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    most = max(min(table["level"].nunique(), limit) for table in tables.values())
    height = min(9.5, max(2.4, 1.2 + 0.2 * most)) if most <= LABELLED else 6.5
    figure = Picture(figsize=(max(4.2, 1.0 + 2.4 * columns), height * (1.0 if rows == 1 else 0.8 * rows)), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (name, effect) in zip(axes, panels, strict=False):
        _panel(axis, source, tables[name], name, effect, limit, labels=effect == tables[name]["effect"].iloc[0] or columns == 1)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    _legend(figure, source, prob)
    data = pd.concat([table.assign(group=name) for name, table in tables.items()], ignore_index=True)
    data = data[["fit", "group", "level", "effect", "estimate", "lower", "upper"]]
    alt = (
        f"Caterpillar plot: random effects of {', '.join(f'{name} ({tables[name]["level"].nunique()} levels)' for name in tables)} "
        f"with {prob:.0%} intervals by {' and '.join(source.labels)}, sorted by the first effect; a vertical line marks zero."
    )
    return figure.describe(alt, data)


def _table(source: Source, group: str, prob: float) -> pd.DataFrame:
    parts = [effect_intervals(fit, group, prob).assign(fit=label) for label, fit in zip(source.labels, source.fits, strict=True)]
    return pd.concat(parts, ignore_index=True)


def _panel(axis: Axes, source: Source, table: pd.DataFrame, group: str, effect: str, limit: int, *, labels: bool) -> None:
    first = table[(table["fit"] == source.labels[0]) & (table["effect"] == table["effect"].iloc[0])]
    ordered = first.sort_values("estimate", kind="stable")["level"].to_numpy()
    ordered = ordered[pick(len(ordered), limit)]
    shift = 0.32 / max(1, len(source.labels) - 1) if len(source.labels) > 1 else 0.0
    thin = len(ordered) > LABELLED
    axis.axvline(0, color=MUTED, lw=0.8, ls="-", zorder=0)
    for number, label in enumerate(source.labels):
        here = table[(table["fit"] == label) & (table["effect"] == effect)].set_index("level").reindex(ordered)
        at = np.arange(len(ordered)) + 0.16 * (len(source.labels) > 1) - shift * number
        axis.hlines(at, here["lower"], here["upper"], color=COLOURS[number], lw=0.6 if thin else 1.1)
        axis.plot(
            here["estimate"],
            at,
            MARKERS[number],
            ms=2.2 if thin else 3.6,
            color=COLOURS[number],
            mfc=COLOURS[number] if number == 0 else "white",
            mew=0.9,
        )
    axis.set_ylim(-0.8, len(ordered) - 0.2)
    axis.set_title(effect)
    axis.set_xlabel("difference from the average")
    if thin or not labels:
        axis.set_yticks([])
    else:
        axis.set_yticks(range(len(ordered)), ordered)
    axis.set_ylabel(f"{group} ({len(ordered)} levels)" if labels else "")


def _legend(figure: Picture, source: Source, prob: float) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=COLOURS[number],
            marker=MARKERS[number],
            ms=4,
            mfc=COLOURS[number] if number == 0 else "white",
            label=f"{label}, {prob:.0%} interval",
        )
        for number, label in enumerate(source.labels)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
