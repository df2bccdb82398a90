"""The data with the fitted lines of every fit, a panel per level of a grouping factor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import FitError, suggest
from bayeslmm.formula.nodes import names_in
from bayeslmm.plots.common import Source, grid_shape, observed, pick, response_label, short
from bayeslmm.plots.effects import draw as draw_effects
from bayeslmm.plots.picture import COLOURS, LINES, MARKERS, MUTED, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.design import RandomBlock
    from bayeslmm.fit import Fit
    from bayeslmm.model import Model

__all__ = ["PredictorAxis", "axis_of", "default_x", "draw", "set_ticks", "show_ticks_above_gaps", "typical"]

AVERAGE = "(average)"
"""A level that no data has: with `new_levels="average"`, a group whose random effects are zero."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictorAxis:
    """The horizontal axis: the variable, its values at the rows (codes where categorical), where lines are evaluated, ticks."""

    name: str
    rows: np.ndarray
    grid: np.ndarray
    values: list[Any]
    ticks: tuple[str, ...] | None
    whole: bool = False


def draw(source: Source, *, group: str | None = None, x: str | None = None, limit: int = 20, prob: float = 0.95) -> Picture:
    """Draw observations and fitted lines, a panel per level of `group`.

    Parameters
    ----------
    source
        The fits.
    group
        The grouping factor (default: the one with most levels).
    x
        The predictor on the horizontal axis (default: a numeric one that varies by group, else the first one). Other
        predictors are held at their mean, or their first level; other grouping factors at effect zero.
    limit
        At most so many panels, spread evenly over the levels.
    prob
        Probability of the band around a posterior's line.
    """
    model = source.model
    frame = model.frame.loc[model.design.kept]
    block = _block(model, group)
    name = x or default_x(model, block)
    if name is None:
        return _by_level(source, frame, block, prob)
    if block is None:
        return draw_effects(source, variables=name, prob=prob)
    if name not in frame.columns:
        raise FitError(
            f"the data have no column {name!r} for the horizontal axis{suggest(name, [str(column) for column in frame.columns])}"
        )
    return _panels(source, frame, block, axis_of(frame, name), limit, prob)


def _panels(source: Source, frame: pd.DataFrame, block: RandomBlock, axis: PredictorAxis, limit: int, prob: float) -> Picture:
    model = source.model
    shown = pick(block.n_levels, limit)
    rows, columns = grid_shape(len(shown), 6)
    figure = Picture(figsize=(1.0 + 1.45 * columns, 1.1 + 1.35 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    y = observed(model)
    new = pd.concat([_rows_to_predict(model, frame, block, int(level), axis) for level in shown], ignore_index=True)
    lines = {label: _predicted(fit, new, prob) for label, fit in zip(source.labels, source.fits, strict=True)}
    size = len(axis.grid)
    for position, (level, panel) in enumerate(zip(shown, panels, strict=False)):
        here = block.index == level
        panel.plot(axis.rows[here], y[here], "o", ms=3, mfc="none", mec=MUTED, mew=0.8, zorder=1)
        part = slice(position * size, (position + 1) * size)
        for number, frame_of_line in enumerate(lines.values()):
            _line(panel, axis, frame_of_line.iloc[part], number)
        panel.set_title(short(block.levels[level]), pad=3, fontsize=8.5)
        set_ticks(panel, axis)
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    show_ticks_above_gaps(panels, columns, len(shown))
    figure.supxlabel(f"{axis.name}   (a panel for each {block.group})", fontsize=9.5)
    figure.supylabel(response_label(model), fontsize=9.5)
    _legend(figure, source, any("lower" in frame_of_line for frame_of_line in lines.values()), prob)
    data = _line_data(block, shown, axis, lines)
    alt = (
        f"Small multiples of {response_label(model)} against {axis.name} for {len(shown)} of {block.n_levels} levels of {block.group}: "
        f"circles are observations, lines the fits by {' and '.join(source.labels)}."
    )
    return figure.describe(alt, data)


def _by_level(source: Source, frame: pd.DataFrame, block: RandomBlock | None, prob: float) -> Picture:
    """Without a predictor (or a group): observations by level, and each fit's mean of that level."""
    model = source.model
    y = observed(model)
    levels = ("all rows",) if block is None else block.levels
    codes = np.zeros(len(y), dtype=int) if block is None else block.index
    first = [int(np.flatnonzero(codes == level)[0]) for level in range(len(levels))]
    figure = Picture(figsize=(min(9.0, 2.2 + 0.42 * len(levels)), 3.4), layout="constrained")
    panel = figure.subplots()
    panel.plot(codes, y, "o", ms=4, mfc="none", mec=MUTED, mew=0.9)
    new = frame.iloc[first]
    parts = []
    for number, (label, fit) in enumerate(zip(source.labels, source.fits, strict=True)):
        shown = _predicted(fit, new, prob)
        at = np.arange(len(levels)) + 0.22 + 0.16 * number
        if "lower" in shown:
            panel.vlines(at, shown["lower"], shown["upper"], color=COLOURS[number], lw=1.3)
        panel.plot(at, shown["estimate"], MARKERS[number], ms=5, color=COLOURS[number], mfc=COLOURS[number] if number == 0 else "white")
        parts.append(shown.assign(fit=label, level=levels))
    panel.set_xticks(range(len(levels)), [short(level) for level in levels], rotation=60 if len(levels) > 15 else 0)
    panel.set_xlim(-0.5, len(levels))
    panel.set_xlabel("" if block is None else block.group)
    panel.set_ylabel(response_label(model))
    _legend(figure, source, any("lower" in part for part in parts), prob, markers=True)
    alt = (
        f"{response_label(model)} by level of {block.group if block else 'no group'}: circles are observations, "
        f"filled or open marks the means fitted by {' and '.join(source.labels)}."
    )
    return figure.describe(alt, pd.concat(parts, ignore_index=True))


def _block(model: Model, group: str | None) -> RandomBlock | None:
    blocks = model.design.blocks
    if group is None:
        return blocks[0] if blocks else None
    known = [block.group for block in blocks]
    if group not in known:
        raise FitError(f"the model has no grouping factor {group!r}{suggest(group, known)}")
    return blocks[known.index(group)]


def default_x(model: Model, block: RandomBlock | None) -> str | None:
    """Return a numeric predictor that varies by group, else a numeric one, else the first, else None."""
    fixed = list(dict.fromkeys(name for term in model.formula.mean.terms for node in term.variables for name in names_in(node)))
    varying = [] if block is None else [name for term in block.term.effects for node in term.variables for name in names_in(node)]
    numeric = [name for name in fixed if pd.api.types.is_numeric_dtype(model.frame[name])]
    for choice in ([name for name in numeric if name in varying], [name for name in fixed if name in varying], numeric, fixed):
        if choice:
            return choice[0]
    return None


def axis_of(frame: pd.DataFrame, name: str) -> PredictorAxis:
    column = frame[name]
    if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
        rows = column.to_numpy(dtype=float)
        grid = np.linspace(rows.min(), rows.max(), 40)
        return PredictorAxis(name=name, rows=rows, grid=grid, values=list(grid), ticks=None, whole=bool(np.all(rows == np.round(rows))))
    categories = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else sorted(column.unique())
    codes = pd.Categorical(column, categories=categories).codes.astype(float)
    present = [level for code, level in enumerate(categories) if (codes == code).any()]
    codes = pd.Categorical(column, categories=present).codes.astype(float)
    return PredictorAxis(
        name=name, rows=codes, grid=np.arange(len(present), dtype=float), values=present, ticks=tuple(str(level) for level in present)
    )


def _rows_to_predict(model: Model, frame: pd.DataFrame, block: RandomBlock, level: int, axis: PredictorAxis) -> pd.DataFrame:
    """Return rows along the axis for one level: other predictors typical, other grouping factors at effect zero."""
    row = int(np.flatnonzero(block.index == level)[0])
    groups = {name for node in block.term.group for name in names_in(node)}
    fixed = {name for term in model.formula.mean.terms for node in term.variables for name in names_in(node)}
    others = {name for other in model.design.blocks for node in other.term.group for name in names_in(node)} - groups - fixed
    columns: dict[str, Any] = {}
    for column in frame.columns:
        values = frame[column]
        if column == axis.name:
            continue
        if column in others:
            columns[column] = [AVERAGE] * len(axis.grid)
        elif column in fixed - groups:
            columns[column] = pd.Series([typical(values)] * len(axis.grid)).astype(
                values.dtype if not pd.api.types.is_numeric_dtype(values) else float
            )
        else:
            columns[column] = pd.Series([values.iloc[row]] * len(axis.grid)).astype(values.dtype)
    dtype = frame[axis.name].dtype if axis.ticks is not None else float
    columns[axis.name] = pd.Series(axis.values).astype(dtype)
    return pd.DataFrame(columns)


def typical(values: pd.Series[Any]) -> Any:
    """Return the mean of a numeric column, the first level of any other."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
        return float(values.mean())
    if isinstance(values.dtype, pd.CategoricalDtype):
        return values.cat.categories[0]
    return sorted(values.dropna().unique())[0]


def _predicted(fit: Fit, new: pd.DataFrame, prob: float) -> pd.DataFrame:
    interval = "confidence" if fit.draws().n_draws > 1 else None
    return fit.predict(new, new_levels="average", interval=interval, prob=prob).reset_index(drop=True)


def _line(panel: Axes, axis: PredictorAxis, shown: pd.DataFrame, number: int) -> None:
    if axis.ticks is not None:
        at = axis.grid + 0.18 * (number + 1)
        if "lower" in shown:
            panel.vlines(at, shown["lower"], shown["upper"], color=COLOURS[number], lw=1.2)
        panel.plot(
            at,
            shown["estimate"],
            MARKERS[number],
            ls=LINES[number],
            lw=0.8,
            ms=3.5,
            color=COLOURS[number],
            mfc=COLOURS[number] if number == 0 else "white",
        )
        return
    if "lower" in shown:
        panel.fill_between(axis.grid, shown["lower"], shown["upper"], color=COLOURS[number], alpha=0.18, lw=0)
    panel.plot(axis.grid, shown["estimate"], ls=LINES[number], color=COLOURS[number], zorder=3 + number)


def set_ticks(panel: Axes, axis: PredictorAxis) -> None:
    from matplotlib.ticker import MaxNLocator

    if axis.ticks is None:
        panel.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=axis.whole))
    else:
        longest = max(len(tick) for tick in axis.ticks)
        panel.set_xticks(range(len(axis.ticks)), list(axis.ticks), rotation=60 if longest * len(axis.ticks) > 14 else 0)
        panel.set_xlim(-0.4, len(axis.ticks) - 0.3)


def show_ticks_above_gaps(panels: Any, columns: int, count: int) -> None:
    """Give tick labels to the lowest panel of each column, also where the last row is not full."""
    for panel in panels[max(0, count - columns) : count]:
        panel.tick_params(labelbottom=True)


def _legend(figure: Picture, source: Source, band: bool, prob: float, markers: bool = False) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], marker="o", ls="", ms=4, mfc="none", mec=MUTED, label="observed")]
    for number, label in enumerate(source.labels):
        look = {"marker": MARKERS[number], "ls": ""} if markers else {"ls": LINES[number]}
        drawn = source.fits[number].draws().n_draws > 1
        text = f"{label} ({prob:.0%} interval)" if band and drawn else label
        handles.append(Line2D([], [], color=COLOURS[number], mfc=COLOURS[number] if number == 0 else "white", label=text, **look))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def _line_data(block: RandomBlock, shown: np.ndarray, axis: PredictorAxis, lines: dict[str, pd.DataFrame]) -> pd.DataFrame:
    levels = np.repeat([block.levels[level] for level in shown], len(axis.grid))
    values = axis.values * len(shown)
    return pd.concat([frame.assign(fit=label, level=levels, **{axis.name: values}) for label, frame in lines.items()], ignore_index=True)
