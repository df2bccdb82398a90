"""Residuals against fitted values and their normal quantiles, a row of two panels per fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.plots.common import Source, pick
from bayeslmm.plots.picture import COLOURS, INK, MUTED, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.fit import Fit

__all__ = ["draw"]

type Array = np.ndarray

MOST_POINTS = 4000
FEW_VALUES = 8
"""With no more distinct fitted values than these a running median would say nothing."""


def draw(source: Source, *, residual: str = "pearson", prob: float = 0.95) -> Picture:
    """Draw residuals against fitted values with a running median, and a normal quantile plot with a pointwise band.

    Parameters
    ----------
    source
        The fits.
    residual
        Kind of residual, as `fit.residuals(kind)` takes it. Pearson residuals are divided by the fit's `sigma` where it has one.
    prob
        Probability of the band of the quantile plot, at each point.
    """
    figure = Picture(figsize=(7.4, 0.5 + 2.9 * len(source.fits)), layout="constrained")
    grid = figure.subplots(len(source.fits), 2, squeeze=False)
    parts = []
    for number, (label, fit) in enumerate(zip(source.labels, source.fits, strict=True)):
        table = _table(fit, residual)
        _against_fitted(grid[number, 0], table, COLOURS[number], f"{label}: {residual.capitalize()} residuals")
        _quantiles(grid[number, 1], table["residual"].to_numpy(), COLOURS[number], label, prob)
        parts.append(table.assign(fit=label))
    data = pd.concat(parts, ignore_index=True)
    alt = (
        f"For {' and '.join(source.labels)}: {residual} residuals against fitted values with a running median, "
        f"and their normal quantile plot with a {prob:.0%} band. Largest absolute residual {data['residual'].abs().max():.2f}."
    )
    return figure.describe(alt, data)


def _table(fit: Fit, residual: str) -> pd.DataFrame:
    values = fit.residuals(residual)
    one_scale = residual == "pearson" and "sigma" not in fit.model.design.parameters
    scale = fit.sigma if one_scale and np.isfinite(fit.sigma) and fit.sigma > 0 else 1.0
    return (
        pd.DataFrame({"fitted": fit.fitted().to_numpy(dtype=float), "residual": values.to_numpy(dtype=float) / scale})
        .dropna()
        .reset_index(drop=True)
    )


def _against_fitted(panel: Axes, table: pd.DataFrame, colour: str, title: str) -> None:
    ordered = table.sort_values("fitted", kind="stable")
    shown = ordered.iloc[pick(len(ordered), MOST_POINTS)]
    panel.axhline(0, color=MUTED, lw=0.8)
    panel.plot(shown["fitted"], shown["residual"], "o", ms=3, mfc="none", mec=colour, mew=0.7, alpha=0.8)
    if ordered["fitted"].round(9).nunique() > FEW_VALUES:
        window = max(11, len(ordered) // 4)
        smooth = ordered["residual"].rolling(window, center=True, min_periods=window // 2).median()
        panel.plot(ordered["fitted"], smooth, color=INK, lw=1.2, ls="--", label="running median")
        panel.legend(loc="best")
    panel.set_xlabel("fitted value")
    panel.set_ylabel("residual (in SDs)")
    panel.set_title(title, loc="left")


def _quantiles(panel: Axes, residuals: Array, colour: str, label: str, prob: float) -> None:
    count = len(residuals)
    ordered = np.sort((residuals - residuals.mean()) / (residuals.std(ddof=1) or 1.0))
    ranks = np.arange(1, count + 1)
    theory = stats.norm.ppf((ranks - 0.5) / count)
    low, high = (stats.norm.ppf(stats.beta.ppf(tail, ranks, count + 1 - ranks)) for tail in ((1 - prob) / 2, (1 + prob) / 2))
    keep = pick(count, MOST_POINTS)
    panel.fill_between(theory, low, high, color=MUTED, alpha=0.25, lw=0, label=f"{prob:.0%} band")
    panel.plot(theory, theory, color=INK, lw=0.9)
    panel.plot(theory[keep], ordered[keep], "o", ms=3, mfc="none", mec=colour, mew=0.7)
    panel.set_xlabel("normal quantile")
    panel.set_ylabel("residual, standardised")
    panel.set_title(f"{label}: normal quantiles", loc="left")
    panel.legend(loc="upper left")
