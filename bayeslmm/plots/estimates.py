"""Estimates of all fits side by side on a standardised scale, by part, with the numbers beside: the forest plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.plots.common import Source
from bayeslmm.plots.picture import COLOURS, INK, MARKERS, MUTED, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

PARTS = {"fixed": "Fixed effects", "sd": "Standard deviations", "cor": "Correlations", "aux": "Residual and other"}
"""Headings by `part` of the estimates; a part that is not here keeps its own name."""


def draw(source: Source) -> Picture:
    """Draw each estimate as its distance from the first fit's, in standard errors, with its interval.

    The unit of a row is the standard error of the first fit that has one there (lme4 states none for standard deviations,
    a posterior does), so that parameters of every size share one axis.
    """
    table = _table(source)
    rows = list(dict.fromkeys(zip(table["part"], table["group"], table["term"], strict=True)))
    parts = list(dict.fromkeys(row[0] for row in rows))
    heights = [1.0 + sum(row[0] == part for row in rows) for part in parts]
    number_width = 0.95 * len(source.labels)
    figure = Picture(figsize=(6.2 + number_width, 0.9 + 0.30 * sum(heights)), layout="constrained")
    ratios = {"height_ratios": heights, "width_ratios": [4.0, *([0.72] * len(source.labels))]}
    grid = figure.subplots(len(parts), 1 + len(source.labels), squeeze=False, gridspec_kw=ratios)
    panels = grid[:, 0]
    for panel in panels[:-1]:
        panel.sharex(panels[-1])
    for position, (panel, part) in enumerate(zip(panels, parts, strict=True)):
        _panel(panel, source, table[table["part"] == part], [row for row in rows if row[0] == part])
        _numbers(
            list(grid[position, 1:]), source, table[table["part"] == part], [row for row in rows if row[0] == part], header=position == 0
        )
        panel.set_title(PARTS.get(part, part), loc="left", fontweight="bold")
        if position < len(parts) - 1:
            panel.spines["bottom"].set_visible(False)
            panel.tick_params(bottom=False, labelbottom=False)
    reach = np.nanmax(np.abs(table[["low", "high", "z"]].to_numpy(dtype=float)), initial=1.0)
    panels[-1].set_xlim(-min(reach * 1.08, 8), min(reach * 1.08, 8))
    panels[-1].set_xlabel(f"distance from the estimate by {source.labels[0]}, in standard errors")
    _legend(figure, source)
    alt = (
        f"Forest plot: {len(rows)} estimates by {' and '.join(source.labels)}, each as its distance from {source.labels[0]} "
        "in standard errors, with 95% intervals; the estimates themselves stand to the right."
    )
    return figure.describe(alt, table.drop(columns=["low", "high"]))


def _table(source: Source) -> pd.DataFrame:
    """Return one row per estimate and fit, with `z`, `low`, `high` on the standardised scale."""
    keys = ["part", "group", "term"]
    parts = [fit.estimates.assign(fit=label) for label, fit in zip(source.labels, source.fits, strict=True)]
    table = pd.concat(parts, ignore_index=True)
    table = table[table["estimate"].notna()]
    centre = table.drop_duplicates(keys).set_index(keys)["estimate"]
    spread = table[table["se"] > 0].drop_duplicates(keys).set_index(keys)["se"]
    index = pd.MultiIndex.from_frame(table[keys])
    middle, unit = centre.reindex(index).to_numpy(dtype=float), spread.reindex(index).to_numpy(dtype=float)
    unit = np.where(np.isfinite(unit) & (unit > 0), unit, np.where(middle == 0, 1.0, np.abs(middle)))
    scaled = {
        name: (table[column].to_numpy(dtype=float) - middle) / unit
        for name, column in (("z", "estimate"), ("low", "lower"), ("high", "upper"))
    }
    return table.assign(**scaled).reset_index(drop=True)


def _panel(panel: Axes, source: Source, table: pd.DataFrame, rows: list[tuple[str, str, str]]) -> None:
    panel.axvline(0, color=MUTED, lw=0.8, zorder=0)
    offsets = np.linspace(0.17, -0.17, len(source.labels)) if len(source.labels) > 1 else np.zeros(1)
    for number, label in enumerate(source.labels):
        here = table[table["fit"] == label].set_index(["part", "group", "term"]).reindex(pd.MultiIndex.from_tuples(rows))
        at = np.arange(len(rows))[::-1] + offsets[number]
        panel.hlines(at, here["low"], here["high"], color=COLOURS[number], lw=1.4)
        panel.plot(here["z"], at, MARKERS[number], ms=4.5, color=COLOURS[number], mfc=COLOURS[number] if number == 0 else "white", mew=1.1)
    panel.set_yticks(np.arange(len(rows))[::-1], [_name(group, term) for _, group, term in rows])
    panel.set_ylim(-0.6, len(rows) - 0.4)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)


def _numbers(panels: Sequence[Axes], source: Source, table: pd.DataFrame, rows: list[tuple[str, str, str]], *, header: bool) -> None:
    """Write the estimates of each fit as a column of their own."""
    index = pd.MultiIndex.from_tuples(rows)
    for number, (panel, label) in enumerate(zip(panels, source.labels, strict=True)):
        values = table[table["fit"] == label].set_index(["part", "group", "term"])["estimate"].reindex(index).to_numpy(dtype=float)
        panel.set_axis_off()
        panel.set_xlim(0, 1)
        panel.set_ylim(-0.6, len(rows) - 0.4)
        for position, value in enumerate(values[::-1]):
            panel.text(
                0.95,
                position,
                _written(value),
                ha="right",
                va="center",
                fontsize=8.5,
                color=INK,
            )
        if header:
            panel.set_title(label, loc="right", color=COLOURS[number], fontweight="bold")


def _written(value: float) -> str:
    """Write four significant digits, a dash where there is no estimate."""
    return "–" if np.isnan(value) else f"{value:#.4g}".removesuffix(".").replace("-", "−")


def _name(group: str, term: str) -> str:
    return f"{term} | {group}" if group else term


def _legend(figure: Picture, source: Source) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=COLOURS[number],
            marker=MARKERS[number],
            ms=4.5,
            mfc=COLOURS[number] if number == 0 else "white",
            label=f"{label}, 95% interval",
        )
        for number, label in enumerate(source.labels)
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
