"""Posterior draws of every two parameters against each other, divergent transitions marked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import FitError, suggest
from bayeslmm.plots.common import Source, pick
from bayeslmm.plots.picture import COLOURS, INK, MUTED, Picture
from bayeslmm.plots.trace import the_posterior

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

type Array = np.ndarray

MOST_POINTS = 1500


def draw(source: Source, *, parameters: str | Sequence[str] | None = None, limit: int = 6) -> Picture:
    """Draw a scatter of the draws for every two parameters, their histograms on the diagonal, and the divergent transitions on top.

    Divergences that crowd in a corner, as where a standard deviation nears zero, show which part of the posterior was not explored.

    Parameters
    ----------
    source
        Fits, of which one is a posterior; the first such is drawn.
    parameters
        Names of two or more parameters, as the figures `trace` and `rank` print them (default: the first ones, standard deviations and
        correlations before coefficients where they do not all fit).
    limit
        At most so many parameters.
    """
    label, draws = the_posterior(source, "pairs")
    names = _chosen(draws, parameters, limit)
    values = {name: draws[name].ravel() for name in names}
    diverging = _diverging(source.posteriors[0][1], draws[names[0]].shape)
    size = len(names)
    figure = Picture(figsize=(1.0 + 1.55 * size, 0.9 + 1.4 * size), layout="constrained")
    grid = figure.subplots(size, size, squeeze=False, sharex="col")
    for row, below in enumerate(names):
        for column, left in enumerate(names):
            panel = grid[row, column]
            if column > row:
                panel.set_axis_off()
            elif column == row:
                _histogram(panel, values[below], diverging)
            else:
                _scatter(panel, values[left], values[below], diverging)
            _label(panel, "\n| ".join(left.split(" | ")), "\n| ".join(below.split(" | ")), row, column, size)
    _legend(figure, int(diverging.sum()), len(diverging))
    chains, length = draws[names[0]].shape
    data = pd.DataFrame({"chain": np.repeat(np.arange(chains), length), "draw": np.tile(np.arange(length), chains), **values})
    alt = (
        f"Scatter of the posterior draws by {label} of every two of {size} parameters ({', '.join(names)}), histograms on the diagonal; "
        f"{int(diverging.sum())} of {len(diverging)} transitions diverged and are marked."
    )
    return figure.describe(alt, data.assign(diverging=diverging))


def _chosen(draws: dict[str, Array], parameters: str | Sequence[str] | None, limit: int) -> list[str]:
    """Return the parameters asked for, or the first ones that vary."""
    if parameters is not None:
        asked = [parameters] if isinstance(parameters, str) else list(parameters)
        for name in asked:
            if name not in draws:
                raise FitError(f"the posterior has no parameter {name!r}{suggest(str(name), list(draws))}")
    else:
        varying = [name for name, values in draws.items() if np.ptp(values) > 0]
        ordered = sorted(varying, key=lambda name: not name.startswith(("sd ", "cor ", "sigma"))) if len(varying) > limit else varying
        asked = [name for name in varying if name in ordered[:limit]]
    if len(asked) < 2:
        raise FitError("figure 'pairs' shows two parameters or more; name them by parameters=")
    return asked


def _diverging(tree: Any, shape: tuple[int, ...]) -> Array:
    """Return which draws (S,) ended a divergent transition; none where the sampler does not say."""
    if "sample_stats" not in tree or "diverging" not in tree["sample_stats"]:
        return np.zeros(int(np.prod(shape)), dtype=bool)
    return np.asarray(tree["sample_stats"]["diverging"].transpose("chain", "draw").to_numpy().ravel(), dtype=bool)


def _scatter(panel: Axes, x: Array, y: Array, diverging: Array) -> None:
    keep = pick(len(x), MOST_POINTS)
    panel.plot(x[keep], y[keep], "o", ms=1.6, color=COLOURS[0], alpha=0.35, mew=0, rasterized=True)
    _mark(panel, x[diverging], y[diverging])


def _histogram(panel: Axes, x: Array, diverging: Array) -> None:
    panel.hist(x, bins=30, color=COLOURS[4], edgecolor="white", lw=0.2)
    _mark(panel, x[diverging], np.zeros(int(diverging.sum())))


def _mark(panel: Axes, x: Array, y: Array) -> None:
    if len(x):
        panel.plot(x, y, "X", ms=5, color=COLOURS[1], mec=INK, mew=0.5, clip_on=False, zorder=4)


def _label(panel: Axes, x: str, y: str, row: int, column: int, size: int) -> None:
    panel.locator_params(nbins=4)
    panel.tick_params(labelbottom=row == size - 1, labelleft=column == 0 and row > 0, labelsize=7)
    if row == size - 1:
        panel.set_xlabel(x, fontsize=8)
    if row == column:
        panel.set_yticks([])
        panel.spines["left"].set_color(MUTED)
    if column == 0:
        panel.set_ylabel(y, fontsize=8)


def _legend(figure: Picture, diverged: int, total: int) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", ls="", ms=4, color=COLOURS[0], mew=0, label="posterior draws")]
    if diverged:
        handles.append(
            Line2D([], [], marker="X", ls="", ms=6, color=COLOURS[1], mec=INK, mew=0.5, label=f"{diverged} of {total} divergent")
        )
    else:
        handles.append(Line2D([], [], ls="", label="no divergences"))
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
