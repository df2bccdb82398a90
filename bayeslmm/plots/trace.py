"""Density and trace of every parameter's draws, chain by chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.errors import FitError
from bayeslmm.plots.common import Source, pick, posterior_draws
from bayeslmm.plots.picture import COLOURS, LINES, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "the_posterior"]

type Array = np.ndarray

MOST_DRAWS = 500


def draw(source: Source, *, limit: int = 14) -> Picture:
    """Draw density (left) and trace (right) of each scalar parameter of the posterior.

    Parameters
    ----------
    source
        Fits, of which one is a posterior; the first such is drawn.
    limit
        At most so many parameters: coefficients, then standard deviations, correlations and the others.
    """
    label, draws = the_posterior(source, "trace")
    names = list(draws)[:limit]
    figure = Picture(figsize=(7.6, 0.5 + 1.05 * len(names)), layout="constrained")
    grid = figure.subplots(len(names), 2, squeeze=False, width_ratios=[1, 2.2])
    for row, name in enumerate(names):
        _density(grid[row, 0], draws[name])
        _trace(grid[row, 1], draws[name])
        grid[row, 0].set_title(name, loc="left", pad=3)
        grid[row, 1].tick_params(labelbottom=row == len(names) - 1)
    grid[-1, 1].set_xlabel("draw")
    chains, length = draws[names[0]].shape
    data = pd.DataFrame(
        {
            "chain": np.repeat(np.arange(chains), length),
            "draw": np.tile(np.arange(length), chains),
            **{name: draws[name].ravel() for name in names},
        }
    )
    more = f" ({len(names)} of {len(draws)} parameters)" if len(names) < len(draws) else ""
    alt = f"Density and trace of {len(names)} parameters{more} by {label}, {chains} chains of {length} draws overlaid: {', '.join(names)}."
    return figure.describe(alt, data)


def the_posterior(source: Source, kind: str) -> tuple[str, dict[str, Array]]:
    """Return the label and the scalar draws of the first posterior among the fits.

    Raises
    ------
    FitError
        There is none.
    """
    if not source.posteriors:
        raise FitError(f"figure {kind!r} shows draws of a posterior, and {' and '.join(source.labels)} has none; fit with `brm` or `fit`")
    label, tree = source.posteriors[0]
    return label, posterior_draws(tree)


def _density(panel: Axes, values: Array) -> None:
    low, high = values.min(), values.max()
    at = np.linspace(low, high, 160)
    for chain, draws in enumerate(values):
        if np.ptp(draws) > 0:
            panel.plot(at, stats.gaussian_kde(draws)(at), color=COLOURS[chain % len(COLOURS)], ls=LINES[chain % len(LINES)], lw=1.0)
    panel.set_yticks([])
    panel.set_ylim(bottom=0)
    panel.spines["left"].set_visible(False)


def _trace(panel: Axes, values: Array) -> None:
    shown = pick(values.shape[1], MOST_DRAWS)
    for chain, draws in enumerate(values):
        panel.plot(shown, draws[shown], color=COLOURS[chain % len(COLOURS)], lw=0.4, alpha=0.85, rasterized=True)
    panel.margins(x=0)
