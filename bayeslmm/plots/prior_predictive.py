"""Responses drawn from the priors alone, beside the data: whether the priors allow the observed, and how much else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from bayeslmm.bayes.prior_predictive import prior_predictive
from bayeslmm.errors import FitError
from bayeslmm.plots.common import Source, response_label
from bayeslmm.plots.picture import COLOURS, INK, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw"]

type Array = np.ndarray

_SHOWN = 50
"""Draws shown as a line each."""
_MARGIN = 3.0
"""How many widths of the data the axis goes beyond them, where the draws do."""


def draw(source: Source, *, draws: int = 500, seed: int = 1) -> Picture:
    """Draw the distribution of responses implied by the priors, a line a draw, and how widely they spread, beside the data's.

    Parameters
    ----------
    source
        A model, or the fits of one, whose priors are drawn from.
    draws
        Number of draws from the priors.
    seed
        Seed of the draws.

    Raises
    ------
    PriorError
        If a prior is improper.
    FitError
        If no draw has a response that the family can have.
    """
    model = source.model
    tree = prior_predictive(model, draws, seed)
    simulated, y = tree["prior_predictive"]["y"].values[0], np.asarray(model.design.y, dtype=float)
    if model.design.trials is not None:
        simulated, y = simulated / model.design.trials, y / model.design.trials
    whole = simulated[np.isfinite(simulated).all(axis=1)]
    if not len(whole):
        raise FitError("no draw from the priors has responses that the family can have: their means lie outside of its range")
    figure = Picture(figsize=(7.4, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    label = response_label(model)
    _distributions(left, whole, y, label)
    inside = _spreads(right, whole, y, label)
    lost = len(simulated) - len(whole)
    alt = (
        f"Distribution functions of {label} in {min(_SHOWN, len(whole))} draws from the priors (thin lines) and in the data (dark line); "
        f"beside, the standard deviation of the response in {len(whole)} draws, in {inside:.0%} of them at least the data's."
    )
    alt += f" The priors are those of {' and '.join(source.labels)}." if source.labels else ""
    alt += f" {lost} draws with a mean outside of the family's range are left out." if lost else ""
    long = pd.DataFrame({"draw": np.arange(len(whole)), "mean": whole.mean(axis=1), "sd": whole.std(axis=1)})
    quantiles = np.quantile(whole, [0.05, 0.5, 0.95], axis=1)
    return figure.describe(alt, long.assign(q05=quantiles[0], median=quantiles[1], q95=quantiles[2]))


def _distributions(panel: Axes, simulated: Array, y: Array, label: str) -> None:
    share = (np.arange(y.size) + 1.0) / y.size
    for number, values in enumerate(simulated[:_SHOWN]):
        panel.step(
            np.sort(values), share, where="post", color=COLOURS[0], lw=0.6, alpha=0.45, label="from the priors" if number == 0 else None
        )
    panel.step(np.sort(y), share, where="post", color=INK, lw=2.0, label="observed")
    width = float(np.ptp(y)) or 1.0
    low, high = np.quantile(simulated[:_SHOWN], [0.02, 0.98])
    panel.set_xlim(max(low, y.min() - _MARGIN * width), min(high, y.max() + _MARGIN * width))
    panel.set_ylim(0.0, 1.0)
    panel.set_xlabel(label)
    panel.set_ylabel("share of rows at most this")
    panel.set_title("response", loc="left")
    panel.legend(loc="lower right")


def _spreads(panel: Axes, simulated: Array, y: Array, label: str) -> float:
    """Draw the standard deviations of the draws on a logarithmic axis; return the share that is at least the data's."""
    sds, observed = simulated.std(axis=1), float(y.std())
    positive = sds[sds > 0.0]
    low, high = np.quantile(positive, [0.01, 0.99]) if len(positive) else (0.1, 1.0)
    low, high = min(low, observed or low), max(high, observed)
    edges = np.geomspace(low, high * (1.0 + 1e-9), 31)
    panel.hist(np.clip(positive, low, high), bins=edges.tolist(), color=COLOURS[0], alpha=0.6)
    panel.axvline(observed, color=INK, lw=2.0, label="observed")
    panel.set_xscale("log")
    panel.xaxis.set_major_locator(LogLocator(numticks=6))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlabel(f"standard deviation of {label}")
    panel.set_ylabel("draws")
    panel.set_title("spread", loc="left")
    panel.legend(loc="upper right")
    return float(np.mean(sds >= observed))
