"""The distribution of every statistic over bootstrap replicates, with the estimate and its percentile interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.plots.common import grid_shape
from bayeslmm.plots.picture import COLOURS, INK, MUTED, Picture, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.classical.bootstrap import Bootstrap

__all__ = ["draw"]

type Array = np.ndarray

WIDEST = 4


def draw(bootstrap: Bootstrap, *, level: float = 0.95) -> Picture:
    """Draw a histogram of the replicates of each statistic; failed replicates are counted in the heading.

    Parameters
    ----------
    bootstrap
        What `bayeslmm.bootstrap` returned.
    level
        Level of the percentile intervals.
    """
    limits = bootstrap.intervals(level=level)
    names = [str(name) for name in limits.index]
    counts = bootstrap.counts
    rows, columns = grid_shape(len(names), WIDEST)
    tally = f"{counts['replicates']} replicates, {counts['singular']} singular (kept), {counts['failed']} failed"
    with style():
        figure = Picture(figsize=(0.4 + 2.1 * columns, 0.9 + 1.8 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        sides_of = dict(zip(names, limits.to_numpy(dtype=float).tolist(), strict=True))
        for panel, name in zip(grid, names, strict=False):
            values = bootstrap.replicates[name].to_numpy(dtype=float)
            sides = (sides_of[name][0], sides_of[name][1])
            _panel(panel, values[np.isfinite(values)], float(bootstrap.estimate[name]), sides, name)
        for panel in grid[len(names) :]:
            panel.set_axis_off()
        figure.suptitle(f"{bootstrap.kind} bootstrap: {tally}", fontsize=9.5)
        alt = (
            f"Histograms of {len(names)} statistics over {tally} of a {bootstrap.kind} bootstrap; the dark line is the estimate, "
            f"the bar below the {level:.0%} percentile interval."
        )
        return figure.describe(alt, bootstrap.replicates.assign(status=bootstrap.status))


def _panel(panel: Axes, values: Array, estimate: float, limits: tuple[float, float], name: str) -> None:
    if len(values):
        panel.hist(values, bins=min(40, max(8, round(len(values) ** 0.5))), color=COLOURS[4], edgecolor="white", lw=0.3)
    if np.isfinite(estimate):
        panel.axvline(estimate, color=INK, lw=1.2)
    panel.hlines(0.0, *limits, color=COLOURS[1], lw=4.0, clip_on=False)
    panel.set_title("\n| ".join(name.split("|")), fontsize=9)
    panel.set_yticks([])
    panel.spines["left"].set_color(MUTED)
    panel.locator_params(axis="x", nbins=4)
