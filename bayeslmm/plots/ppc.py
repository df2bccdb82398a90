"""The response beside responses simulated from each fit: densities, or counts where the response has few values."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.plots.common import Source, response_label
from bayeslmm.plots.picture import COLOURS, INK, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

type Array = np.ndarray

FEW_VALUES = 40


def draw(source: Source, *, n: int = 60, seed: int = 1) -> Picture:
    """Draw the observed response over `n` responses simulated with the fitted groups, a panel per fit.

    For a posterior these are posterior predictive draws, one of each of `n` draws of the parameters.

    Parameters
    ----------
    source
        The fits.
    n
        Number of simulated responses.
    seed
        Seed of the simulation.
    """
    y = np.asarray(source.model.design.y, dtype=float)
    figure = Picture(figsize=(0.8 + 3.6 * len(source.fits), 3.0), layout="constrained")
    panels = figure.subplots(1, len(source.fits), sharex=True, sharey=True, squeeze=False).ravel()
    discrete = bool(np.all(y == np.round(y))) and len(np.unique(y)) <= FEW_VALUES
    parts = []
    for number, (panel, label, fit) in enumerate(zip(panels, source.labels, source.fits, strict=True)):
        simulated = fit.simulate(n, conditional=True, seed=seed).to_numpy(dtype=float)
        (_counts if discrete else _densities)(panel, y, simulated, COLOURS[number])
        panel.set_title(f"{label}: {n} simulated responses", loc="left")
        panel.set_xlabel(response_label(source.model, counts=True))
        panel.legend(loc="upper right")
        parts.append(pd.DataFrame(simulated, columns=[f"sim_{i + 1}" for i in range(simulated.shape[1])]).assign(fit=label, observed=y))
    panels[0].set_ylabel("rows" if discrete else "density")
    alt = f"Observed {source.model.design.response_name} (dark line) over {n} responses simulated by {' and '.join(source.labels)}."
    return figure.describe(alt, pd.concat(parts, ignore_index=True))


def _densities(panel: Axes, y: Array, simulated: Array, colour: str) -> None:
    low, high = min(y.min(), np.quantile(simulated, 0.001)), max(y.max(), np.quantile(simulated, 0.999))
    at = np.linspace(low - 0.05 * (high - low), high + 0.05 * (high - low), 200)
    for column, draws in enumerate(simulated.T):
        if np.ptp(draws) > 0:
            panel.plot(at, stats.gaussian_kde(draws)(at), color=colour, lw=0.5, alpha=0.35, label="simulated" if column == 0 else None)
    if np.ptp(y) > 0:
        panel.plot(at, stats.gaussian_kde(y)(at), color=INK, lw=2.0, label="observed")
    panel.set_ylim(bottom=0, auto=True)


def _counts(panel: Axes, y: Array, simulated: Array, colour: str) -> None:
    values = np.arange(min(y.min(), simulated.min()), max(y.max(), simulated.max()) + 1)
    observed = np.array([(y == value).sum() for value in values])
    drawn = np.array([[(column == value).sum() for value in values] for column in simulated.T])
    low, middle, high = np.quantile(drawn, [0.025, 0.5, 0.975], axis=0)
    panel.vlines(values, low, high, color=colour, lw=3, alpha=0.45, label="simulated, 95%")
    panel.plot(values, middle, "s", ms=4, color=colour, mfc="white")
    panel.plot(values, observed, "o", ms=4, color=INK, label="observed")
    panel.set_ylim(bottom=0, auto=True)
