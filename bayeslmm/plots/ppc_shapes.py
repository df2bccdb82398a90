"""The response's distribution beside its replicates': density, ECDF, histogram, bars, hanging rootogram."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator
from scipy.ndimage import gaussian_filter1d

from bayeslmm.plots.picture import COLOURS, INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.plots.ppc_view import Facet, View

__all__ = ["bars", "density", "ecdf", "hanging", "histogram", "kde", "rootogram"]

type Array = np.ndarray

_GRID = 512
_SHOWN = 200
_WIDEST_BINS = 40
"""Counts further than this above the smallest share the last bar of a rootogram."""


def density(panel: Axes, facet: Facet, view: View) -> pd.DataFrame:
    """Kernel densities of the response, dark, over those of its replicates; they end where the family's range ends."""
    low, high = _reach(view)
    at, dark = kde(facet.y, low, high)
    curves = np.stack([kde(one, low, high)[1] for one in facet.simulated])
    panel.plot(at, curves.T, color=COLOURS[0], lw=0.5, alpha=0.4)
    panel.plot([], [], color=COLOURS[0], lw=0.8, label=f"{len(curves)} simulated responses")
    panel.plot(at, dark, color=INK, lw=2.0, label="observed")
    panel.set_ylim(bottom=0, auto=True)
    panel.set_title(view.title(facet), loc="left")
    keep = slice(None, None, max(1, _GRID // _SHOWN))
    return _curves(facet, at[keep], dark[keep], curves[:, keep])


def ecdf(panel: Axes, facet: Facet, view: View) -> pd.DataFrame:
    """Empirical distribution function of the response, dark, over those of its replicates."""
    low, high = view.extent
    steps = view.model.family.discrete and high - low <= _SHOWN
    at = np.arange(np.floor(low) - 1, np.ceil(high) + 2) if steps else np.linspace(low, high, _SHOWN)
    dark = np.searchsorted(np.sort(facet.y), at, side="right") / len(facet.y)
    curves = np.stack([np.searchsorted(np.sort(one), at, side="right") / len(one) for one in facet.simulated])
    style = "steps-post" if steps else "default"
    panel.plot(at, curves.T, color=COLOURS[0], lw=0.5, alpha=0.4, drawstyle=style)
    panel.plot([], [], color=COLOURS[0], lw=0.8, label=f"{len(curves)} simulated responses")
    panel.plot(at, dark, color=INK, lw=2.0, label="observed", drawstyle=style)
    panel.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=bool(steps)))
    panel.set_ylim(-0.02, 1.02)
    panel.set_title(view.title(facet), loc="left")
    return _curves(facet, at, dark, curves)


def kde(values: Array, low: float, high: float) -> tuple[Array, Array]:
    """Return a grid over (low, high) and the Gaussian kernel density of values on it, reflected at both ends.

    Silverman's (1986, eq. 3.31) bandwidth; binned, so that its cost does not grow with the grid.
    """
    edges = np.linspace(low, high, _GRID + 1)
    width = edges[1] - edges[0]
    counts, _ = np.histogram(values, edges)
    spread = np.std(values)
    middle = np.subtract(*np.quantile(values, [0.75, 0.25])) / 1.34
    bandwidth = 0.9 * min(spread, middle if middle > 0 else spread) * len(values) ** -0.2
    smooth = gaussian_filter1d(counts / (len(values) * width), max(bandwidth / width, 0.5), mode="reflect", truncate=5.0)
    return (edges[:-1] + edges[1:]) / 2.0, smooth


def _reach(view: View) -> tuple[float, float]:
    """Return where densities are drawn: the response and nearly all replicates, with a margin that stays in the family's range."""
    low, high = view.extent
    margin = 0.08 * (high - low) or 1.0
    check = view.model.family.check
    below, above = check(np.array([-1.0]), None)[0], check(np.array([2.0]), None)[0]
    return (max(low - margin, 0.0) if below else low - margin), (min(high + margin, 1.0) if below and above else high + margin)


def histogram(panel: Axes, facet: Facet, view: View) -> pd.DataFrame:
    """Histogram of the response, with the interval of each bin's height in the replicates."""
    frame = _binned(panel, facet, view, _edges(view))
    panel.set_title(view.title(facet), loc="left")
    return frame


def bars(panel: Axes, facet: Facet, view: View) -> pd.DataFrame:
    """Number of rows at each value of the response, with its interval in the replicates."""
    low, high = view.extent
    values = np.arange(np.floor(low), np.ceil(high) + 1)
    frame = _binned(panel, facet, view, np.append(values - 0.5, values[-1] + 0.5))
    names = view.model.design.response_levels
    if len(values) <= 12:
        labels = [f"{value:g}" for value in values] if names is None else [names[int(value)] for value in values]
        panel.set_xticks(values, labels)
    else:
        _whole_ticks(panel, values, more=False)
    panel.set_title(view.title(facet), loc="left")
    return frame


def _binned(panel: Axes, facet: Facet, view: View, edges: Array) -> pd.DataFrame:
    """Draw the counts of the bins: observed as bars, replicates as median and interval; return the numbers."""
    tail = (1.0 - view.request.prob) / 2.0
    middle, width = (edges[:-1] + edges[1:]) / 2.0, np.diff(edges)
    seen, _ = np.histogram(facet.y, edges)
    drawn = np.stack([np.histogram(one, edges)[0] for one in facet.simulated])
    low, median, high = np.quantile(drawn, [tail, 0.5, 1.0 - tail], axis=0)
    panel.bar(middle, seen, width=0.92 * width, color="#d9d9d9", edgecolor=MUTED, lw=0.6, label="observed")
    panel.vlines(middle, low, high, color=COLOURS[0], lw=1.8, label=f"simulated, {view.request.prob:.0%} interval")
    panel.plot(middle, median, "o", ms=3.6, color=COLOURS[0], mfc="white", mew=1.2)
    panel.set_ylim(bottom=0, auto=True)
    columns = {"from": edges[:-1], "to": edges[1:], "observed": seen, "median": median, "lower": low, "upper": high}
    return pd.DataFrame(columns).assign(fit=facet.label, level=facet.level)


def _edges(view: View) -> Array:
    """Return at most 30 bins over the response and nearly all of its replicates; of counts with edges between them."""
    (low, high), y = view.extent, view.y
    if view.model.family.discrete:
        step = max(1, int(np.ceil((high - low + 1) / 30)))
        return np.arange(np.floor(low), np.ceil(high) + step + 1, step) - 0.5
    count = int(np.clip(len(np.histogram_bin_edges(y, "fd")) * (high - low) / np.ptp(y), 8, 30)) if np.ptp(y) > 0 else 20
    return np.linspace(low, high if high > low else low + 1.0, count + 1)


def rootogram(panel: Axes, facet: Facet, view: View) -> pd.DataFrame:
    """Hanging rootogram: bars of the square roots of the observed frequencies hang from the expected ones.

    A bar that ends above zero has fewer rows than the fit expects, one that ends below has more; the band at zero holds the ends
    of the replicates' own bars. Expected: the mean over the replicates.
    """
    tail = (1.0 - view.request.prob) / 2.0
    edges = _unit_bins(*view.extent)
    frame = hanging(facet.y, facet.simulated, edges, tail)
    middle = edges[:-1] + 0.5
    top, end = np.sqrt(frame["expected"].to_numpy()), frame["end"].to_numpy()
    outside = np.asarray((end < frame["lower"]) | (end > frame["upper"]))
    below, above = np.append(frame["lower"], 0.0), np.append(frame["upper"], 0.0)
    band = f"{view.request.prob:.0%} of simulated ends"
    panel.fill_between(np.append(middle - 0.5, middle[-1] + 0.5), below, above, step="post", color=MUTED, alpha=0.3, lw=0, label=band)
    panel.bar(middle, top - end, bottom=end, width=0.8, color="#d9d9d9", edgecolor=MUTED, lw=0.6, label="observed, hanging")
    if outside.any():
        panel.plot(middle[outside], end[outside], "D", ms=3.6, color=COLOURS[1], label="ends outside")
    closed = np.isfinite(edges[1:])
    panel.plot(middle[closed], top[closed], "-o", ms=2.8, lw=1.2, color=COLOURS[0], label="expected")
    panel.plot(middle[~closed], top[~closed], "o", ms=2.8, color=COLOURS[0])
    panel.axhline(0, color=INK, lw=0.8)
    _whole_ticks(panel, middle, more=bool(np.isinf(edges[-1])))
    panel.set_title(view.title(facet, f"{int(outside.sum())} of {len(frame)} ends outside"), loc="left")
    return frame.assign(fit=facet.label, level=facet.level)


def _whole_ticks(panel: Axes, values: Array, *, more: bool) -> None:
    """Put ticks at whole numbers; the last value, where it stands for all above it too, as `≥ 40`."""
    ticks = [tick for tick in MaxNLocator(nbins=7, integer=True).tick_values(values[0], values[-1]) if values[0] <= tick <= values[-1]]
    if more:
        ticks = [tick for tick in ticks if tick <= values[-1] - 0.18 * np.ptp(values)] + [values[-1]]
    panel.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks[:-1]] + [f"{'≥ ' if more else ''}{ticks[-1]:.0f}"])


def _unit_bins(low: float, high: float) -> Array:
    """Return edges of a bin for each value, the last one open where counts go beyond `_WIDEST_BINS` values."""
    low = np.floor(low)
    edges = np.arange(low, min(np.ceil(high), low + _WIDEST_BINS) + 2) - 0.5
    if high > edges[-1]:
        edges[-1] = np.inf
    return np.asarray(edges)


def hanging(y: Array, simulated: Array, edges: Array, tail: float) -> pd.DataFrame:
    """Return by bin the observed and expected frequency, where the hanging bar ends, and the interval of the replicates' ends."""
    seen, _ = np.histogram(y, edges)
    drawn = np.stack([np.histogram(one, edges)[0] for one in simulated])
    expected = drawn.mean(axis=0)
    low, high = np.quantile(np.sqrt(expected) - np.sqrt(drawn), [tail, 1.0 - tail], axis=0)
    columns = {"from": edges[:-1], "to": edges[1:], "observed": seen, "expected": expected}
    return pd.DataFrame({**columns, "end": np.sqrt(expected) - np.sqrt(seen), "lower": low, "upper": high})


def _curves(facet: Facet, at: Array, dark: Array, curves: Array) -> pd.DataFrame:
    columns = {f"sim_{number + 1}": curve for number, curve in enumerate(curves)}
    return pd.DataFrame({"x": at, "observed": dark, **columns}).assign(fit=facet.label, level=facet.level)
