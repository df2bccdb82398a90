"""Rows one by one: predictive intervals, errors against the prediction or a predictor, calibration of probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.optimize import isotonic_regression

from bayeslmm.plots.common import pick
from bayeslmm.plots.picture import COLOURS, INK, MUTED
from bayeslmm.plots.ppc_view import column

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.plots.ppc_view import Facet, View

__all__ = ["binned", "calibration", "error", "intervals"]

type Array = np.ndarray

_MOST_POINTS = 3000
_MOST_ROWS = 100
_MOST_BINS = 20
_ROWS_PER_BIN = 12
_FEW_VALUES = 12
"""A predictor with no more distinct values than these has a bin for each."""


def intervals(panel: Axes, facet: Facet, view: View) -> pd.DataFrame:
    """Draw each row's predictive interval with the observed response, along a predictor or in order of the prediction."""
    tail = (1.0 - view.request.prob) / 2.0
    limits = np.quantile(facet.simulated, [tail, 0.25, 0.5, 0.75, 1.0 - tail], axis=0)
    columns = dict(zip(["lower", "lower_half", "median", "upper_half", "upper"], limits, strict=True))
    frame = pd.DataFrame({"row": view.model.design.index[facet.rows], "observed": facet.y, **columns})
    inside = (frame["observed"] >= frame["lower"]) & (frame["observed"] <= frame["upper"])
    frame = frame.assign(inside=inside, fit=facet.label, level=facet.level)
    most = view.limit if view.levels is None else _MOST_ROWS
    if view.request.x is None:
        order = np.lexsort((facet.simulated.mean(axis=0), limits[2]))
        frame = frame.iloc[order]
        shown = frame.iloc[pick(len(frame), most)]
        at = np.arange(len(shown), dtype=float)
        panel.set_xticks([])
    else:
        values, ticks = _axis(view, facet, view.request.x)
        frame = frame.assign(x=values).sort_values("x", kind="stable")
        shown = frame.iloc[pick(len(frame), most)]
        at = _apart(shown["x"].to_numpy(dtype=float))
        _name_ticks(panel, ticks)
    panel.vlines(
        at, shown["lower"], shown["upper"], color=COLOURS[0], lw=0.9, alpha=0.8, label=f"simulated, 50% and {view.request.prob:.0%}"
    )
    panel.vlines(at, shown["lower_half"], shown["upper_half"], color=COLOURS[0], lw=2.4, alpha=0.8)
    within = shown["inside"].to_numpy()
    panel.plot(at[within], shown["observed"][within], "o", ms=3.2, color=INK, label="observed")
    if not within.all():
        outside = shown["observed"][~within]
        panel.plot(at[~within], outside, "D", ms=4, color=COLOURS[1], mec=INK, mew=0.5, label="observed, outside")
    panel.set_title(view.title(facet, f"{frame['inside'].mean():.0%} of {len(frame)} rows inside"), loc="left")
    return frame.reset_index(drop=True)


def error(panel: Axes, facet: Facet, view: View) -> pd.DataFrame:
    """Draw each row's average error against its prediction or a predictor, and the mean errors of bins with what chance makes."""
    predicted = facet.simulated.mean(axis=0)
    ticks = None
    x = predicted
    if view.request.x is not None:
        x, ticks = _axis(view, facet, view.request.x)
    errors = facet.y - predicted
    keep = pick(len(x), _MOST_POINTS)
    panel.axhline(0, color=MUTED, lw=0.8)
    panel.plot(x[keep], errors[keep], "o", ms=2.6, mfc="none", mec=MUTED, mew=0.6, alpha=0.7, label="observed − predicted")
    table = binned(x, errors, facet.simulated - predicted, (1.0 - view.request.prob) / 2.0)
    panel.vlines(
        table["x"], table["lower"], table["upper"], color=COLOURS[0], lw=4, alpha=0.5, label=f"mean, {view.request.prob:.0%} by chance"
    )
    out = ((table["mean"] < table["lower"]) | (table["mean"] > table["upper"])).to_numpy()
    panel.plot(table["x"][~out], table["mean"][~out], "o", ms=4.4, color=INK, label="mean error of the bin")
    if out.any():
        panel.plot(table["x"][out], table["mean"][out], "D", ms=5, color=COLOURS[1], mec=INK, mew=0.6, label="mean error, outside")
    _name_ticks(panel, ticks)
    panel.set_title(view.title(facet, f"{int(out.sum())} of {len(table)} bins outside"), loc="left")
    return pd.DataFrame(
        {
            "row": view.model.design.index[facet.rows],
            "x": x,
            "observed": facet.y,
            "predicted": predicted,
            "error": errors,
            "fit": facet.label,
        }
    ).assign(level=facet.level)


def binned(x: Array, errors: Array, noise: Array, tail: float) -> pd.DataFrame:
    """Return by bin of x (n,) its mean x, the mean error (n,), and the interval of the mean errors of replicates (S, n)."""
    values, codes = np.unique(x, return_inverse=True)
    if len(values) > _FEW_VALUES:
        count = int(np.clip(len(x) // _ROWS_PER_BIN, 3, _MOST_BINS))
        codes = np.searchsorted(np.unique(np.quantile(x, np.linspace(0, 1, count + 1)[1:-1])), x, side="right")
    records = []
    for code in np.unique(codes):
        here = codes == code
        low, high = np.quantile(noise[:, here].mean(axis=1), [tail, 1.0 - tail])
        records.append((x[here].mean(), int(here.sum()), errors[here].mean(), low, high))
    return pd.DataFrame(records, columns=["x", "rows", "mean", "lower", "upper"])


def calibration(panel: Axes, facet: Facet, view: View) -> pd.DataFrame:
    """Draw the observed frequency against the predicted probability, by isotonic regression, with its interval in the replicates.

    Source: Dimitriadis, Gneiting & Jordan (2021), PNAS 118(8).
    """
    predicted = facet.simulated.mean(axis=0)
    trials = view.model.design.trials
    weights = np.ones(len(predicted)) if trials is None else np.maximum(trials[facet.rows], 1).astype(float)
    order = np.argsort(predicted, kind="stable")
    seen = _isotonic(facet.y[order], weights[order])
    drawn = np.stack([_isotonic(one, weights[order]) for one in facet.simulated[:, order]])
    tail = (1.0 - view.request.prob) / 2.0
    low, high = np.quantile(drawn, [tail, 1.0 - tail], axis=0)
    x = predicted[order]
    panel.fill_between(x, low, high, color=COLOURS[0], alpha=0.25, lw=0, label=f"simulated, {view.request.prob:.0%} interval")
    panel.plot([0, 1], [0, 1], color=MUTED, lw=0.9, ls="--", label="calibrated")
    panel.plot(x, seen, color=INK, lw=1.8, label="observed, isotonic")
    panel.plot(x[pick(len(x), 150)], np.full(min(len(x), 150), -0.02), "|", ms=5, color=MUTED, mew=0.6, clip_on=False)
    margin = 0.04 * max(float(np.ptp(x)), 0.05)
    panel.set_xlim(max(0.0, x[0] - margin), min(1.0, x[-1] + margin))
    panel.set_ylim(-0.02, max(1e-3, min(1.02, 1.08 * max(float(seen.max()), float(high.max())))))
    out = float(np.average((seen < low) | (seen > high), weights=weights[order]))
    panel.set_title(view.title(facet, f"{1 - out:.0%} inside"), loc="left")
    columns = {"predicted": x, "observed": seen, "lower": low, "upper": high}
    return pd.DataFrame(columns).assign(fit=facet.label, level=facet.level)


def _isotonic(values: Array, weights: Array) -> Array:
    return np.asarray(isotonic_regression(values, weights=weights).x)


def _axis(view: View, facet: Facet, name: str) -> tuple[Array, tuple[str, ...] | None]:
    """Return a column at a panel's rows as numbers, with the names of its values where it is categorical."""
    values: pd.Series[Any] = column(view.model, name, "x")
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return values.to_numpy(dtype=float)[facet.rows], None
    factor = values.astype("category").cat.remove_unused_categories()
    return factor.cat.codes.to_numpy(dtype=float)[facet.rows], tuple(str(level) for level in factor.cat.categories)


def _name_ticks(panel: Axes, ticks: tuple[str, ...] | None) -> None:
    if ticks is not None and len(ticks) <= 30:
        turned = sum(len(tick) for tick in ticks) > 40
        panel.set_xticks(range(len(ticks)), list(ticks), rotation=60 if turned else 0, ha="right" if turned else "center")


def _apart(x: Array) -> Array:
    """Return x with equal values set apart a little, so that their intervals can be told from one another."""
    values, codes, counts = np.unique(x, return_inverse=True, return_counts=True)
    gap = float(np.diff(values).min()) if len(values) > 1 else 1.0
    place = np.empty(len(x))
    for code in range(len(values)):
        here = np.flatnonzero(codes == code)
        place[here] = np.arange(len(here)) - (len(here) - 1) / 2.0
    return np.asarray(x + 0.8 * gap * place / max(1, int(counts.max())))
