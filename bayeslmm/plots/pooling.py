"""Complete, no and partial pooling in one figure: a panel of lines for each level, or estimates with intervals sorted by size."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.effects.pooling import Terms, coefficient_draws, terms_of
from bayeslmm.errors import FitError, suggest
from bayeslmm.formula.nodes import names_in
from bayeslmm.plots.common import grid_shape, observed, pick, response_label, short
from bayeslmm.plots.fitted import PredictorAxis, axis_of, default_x, set_ticks, show_ticks_above_gaps
from bayeslmm.plots.picture import COLOURS, INK, MUTED, Picture, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.design import RandomBlock
    from bayeslmm.effects.pooling import Pooling
    from bayeslmm.fit import Fit

__all__ = ["LOOKS", "Look", "caterpillar", "draw", "handle", "lines"]

type Array = np.ndarray

_BAND_DRAWS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How a method is drawn, told apart without colour: line, marker, filled or open, the line of arrows."""

    colour: str
    line: Any
    marker: str
    filled: bool = False
    arrow: Any = "-"

    @property
    def face(self) -> str:
        return self.colour if self.filled else "white"


LOOKS: Mapping[str, Look] = MappingProxyType(
    {
        "complete": Look(colour=INK, line=(0, (1, 1)), marker="D"),
        "none": Look(colour=COLOURS[1], line=(0, (5, 1.5)), marker="o"),
        "partial_reml": Look(colour=COLOURS[0], line="-", marker="s", filled=True),
        "partial_posterior": Look(colour=COLOURS[2], line=(0, (6, 3, 1, 3)), marker="^", arrow=(0, (3, 3))),
    }
)
_KINDS = ("lines", "shrinkage", "topographic", "caterpillar")


def draw(pooling: Pooling, kind: str, options: Mapping[str, Any]) -> Picture:
    """Draw a `Pooling`: `lines`, `shrinkage`, `topographic` or `caterpillar`, in the package's style.

    Raises
    ------
    FitError
        If the kind or an option is unknown, or the effects are too few for it.
    """
    from bayeslmm.plots import pooling_plane

    functions: dict[str, Callable[..., Picture]] = {"lines": lines, "caterpillar": caterpillar}
    functions |= {"shrinkage": pooling_plane.shrinkage, "topographic": pooling_plane.topographic}
    if kind not in functions:
        raise FitError(f"there is no figure of kind {kind!r} of a pooling{suggest(str(kind), list(_KINDS))} (kinds: {', '.join(_KINDS)})")
    known = [name for name, parameter in inspect.signature(functions[kind]).parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise FitError(f"figure {kind!r} has no option {name!r}{suggest(name, known)} (options: {', '.join(known)})")
    with style():
        return functions[kind](pooling, **options)


def handle(pooling: Pooling, method: str, *, line: bool, marker: bool, note: str = "") -> Any:
    """Return the legend's entry of a method."""
    from matplotlib.lines import Line2D

    look = LOOKS[method]
    return Line2D(
        [],
        [],
        color=look.colour,
        ls=look.line if line else "",
        marker=look.marker if marker else "",
        ms=4.5,
        mfc=look.face,
        label=pooling.labels[method] + note,
    )


# ------------------------------------------------------------------------------------------------------------------------- lines


def lines(pooling: Pooling, *, x: str | None = None, limit: int = 20) -> Picture:
    """Draw the data and every method's line, a panel for each level; without a predictor, each method's mean by level.

    Parameters
    ----------
    pooling
        What `bayeslmm.pooling` returned.
    x
        The predictor on the axis (default: a numeric one that varies by level). Others are at the level's own mean, or most
        frequent category.
    limit
        At most so many panels, spread evenly over the levels.
    """
    model = pooling.model
    block = next(block for block in model.design.blocks if block.group == pooling.group)
    frame = model.frame.loc[model.design.kept]
    name = x or default_x(model, block) or _first_slope(block)
    if name is None:
        return _by_level(pooling, block, limit)
    if name not in frame.columns:
        known = [str(column) for column in frame.columns]
        raise FitError(f"the data have no column {name!r} for the horizontal axis{suggest(str(name), known)}")
    axis = axis_of(frame, name)
    shown = pick(block.n_levels, limit)
    rows, columns = grid_shape(len(shown), 6)
    figure = Picture(figsize=(max(5.2, 1.0 + 1.45 * columns), 1.3 + 1.4 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    y = observed(model)
    parts = _all_lines(pooling, frame, block, [(int(level), axis) for level in shown])
    for level, panel, part in zip(shown, panels, parts, strict=False):
        here = block.index == level
        panel.plot(axis.rows[here], y[here], "o", ms=2.8, mfc="none", mec=MUTED, mew=0.8, zorder=1)
        _draw_lines(panel, axis, part)
        panel.set_title(f"{short(block.levels[level])}  (n = {int(here.sum())})" if not _even(block) else short(block.levels[level]), pad=3)
        set_ticks(panel, axis)
    for panel in panels[len(shown) :]:
        panel.set_visible(False)
    show_ticks_above_gaps(panels, columns, len(shown))
    data = pd.concat(parts, ignore_index=True)
    _hold(panels[: len(shown)], y, data)
    figure.supxlabel(f"{axis.name}   (a panel for each {pooling.group})", fontsize=9.5)
    figure.supylabel(response_label(model), fontsize=9.5)
    _legend(figure, pooling, line=True, marker=axis.ticks is not None, columns=columns)
    missing = data.loc[(data["method"] == "none") & data["estimate"].isna(), "level"].unique().tolist()
    absent = f" No own line: {', '.join(missing)}." if missing else ""
    alt = (
        f"Small multiples of {response_label(model)} against {axis.name} for {len(shown)} of {block.n_levels} levels of {pooling.group}: "
        f"circles are observations, lines those of {', '.join(pooling.labels.values())}; partial pooling lies between the others.{absent}"
    )
    return figure.describe(alt, data)


def _first_slope(block: RandomBlock) -> str | None:
    """Return the predictor of a random slope that has no fixed part, None where there is none."""
    return next((name for term in block.term.effects for node in term.variables for name in names_in(node)), None)


def _even(block: RandomBlock) -> bool:
    return len(np.unique(np.bincount(block.index, minlength=block.n_levels))) == 1


def _hold(panels: Array, y: Array, data: pd.DataFrame) -> None:
    """Keep the vertical axis about the data and pooled lines: a wild line of a level with hardly a row runs out of its panel."""
    pooled = data[data["method"] != "none"]
    inside = np.concatenate([y, pooled["estimate"].to_numpy()])
    low, high = float(np.nanmin(inside)), float(np.nanmax(inside))
    room = 0.08 * (high - low) or 1.0
    panels[0].set_ylim(low - room, high + room)


def _all_lines(pooling: Pooling, frame: pd.DataFrame, block: RandomBlock, axes: Sequence[tuple[int, PredictorAxis]]) -> list[pd.DataFrame]:
    """Return the points of every method's line of some levels: `level, method, <x>, estimate, lower, upper` on the response's scale."""
    places = [np.flatnonzero(block.index == level) for level, _ in axes]
    new = pd.concat([_typical_rows(frame.iloc[here], axis) for here, (_, axis) in zip(places, axes, strict=True)], ignore_index=True)
    first = next(iter(pooling.fits.values()))
    coded = {id(fit): _Coded.of(fit, pooling.group, new) for fit in pooling.fits.values()}
    parts, start = [], 0
    for here, (level, axis) in zip(places, axes, strict=True):
        rows = slice(start, start + len(axis.grid))
        for method in pooling.labels:
            one = coded[id(pooling.fits.get(method, first))]
            shown = _response_lines(pooling, method, one, block.levels[level], rows, here)
            parts.append(pd.DataFrame({"level": block.levels[level], "method": method, axis.name: axis.values, **shown}))
        start = rows.stop
    size = len(pooling.labels)
    return [pd.concat(parts[i : i + size], ignore_index=True) for i in range(0, len(parts), size)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coded:
    """Rows in the coding of a fit: its terms' columns and the offset; `draws` (S, J, K): coefficients of a posterior, or None."""

    fit: Fit
    terms: Terms
    matrix: pd.DataFrame
    offset: Array
    draws: Array | None

    @staticmethod
    def of(fit: Fit, group: str, new: pd.DataFrame) -> _Coded:
        terms, every = terms_of(fit.model, group), fit.draws()
        rows = replace(fit.model.design.encoder, weights=None, array_offset=False).encode_new(new)
        columns = {name: rows.X[:, position] for name, position in terms.fixed.items()}
        for block, effect, name in (*terms.own, *(part[:3] for part in terms.containing)):
            columns.setdefault(name, rows.blocks[block].values[:, effect])
        some = every.take(np.unique(np.linspace(0, every.n_draws - 1, min(every.n_draws, _BAND_DRAWS)).round().astype(int)))
        draws = coefficient_draws(some, terms) if every.n_draws > 1 else None
        return _Coded(fit=fit, terms=terms, matrix=pd.DataFrame(columns), offset=rows.offset, draws=draws)


def _typical_rows(own: pd.DataFrame, axis: PredictorAxis) -> pd.DataFrame:
    """Return rows along the axis, all other columns as is typical of the level."""
    columns: dict[Any, Any] = {}
    for name, values in own.items():
        if name == axis.name:
            columns[name] = pd.Series(axis.values).astype(values.dtype if axis.ticks is not None else float)
            continue
        numeric = pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)
        one = values.mean() if numeric and values.nunique() > 1 else values.mode().iloc[0] if values.notna().any() else values.iloc[0]
        columns[name] = pd.Series([one] * len(axis.grid)).astype(float if numeric and values.nunique() > 1 else values.dtype)
    return pd.DataFrame(columns)


def _response_lines(pooling: Pooling, method: str, coded: _Coded, level: str, rows: slice, here: Array) -> dict[str, Array]:
    """Return a line and, of a posterior, its limits, on the response's scale; `here`: the level's rows."""
    matrix, design = coded.matrix.iloc[rows], coded.fit.model.design
    given = float(design.offset[here].mean()) if design.encoder.array_offset else 0.0
    offset = coded.offset[rows] + given
    if method in pooling.fits and coded.draws is not None:
        values = coded.draws[:, coded.terms.levels.index(level)] @ matrix[list(coded.terms.names)].to_numpy().T
        limits = np.quantile(values, [0.5 - pooling.prob / 2, 0.5 + pooling.prob / 2], axis=0)
        lines = {"estimate": values.mean(axis=0), "lower": limits[0], "upper": limits[1]}
    else:
        nothing = np.full(len(matrix), np.nan)
        lines = {"estimate": _eta(pooling, method, level, matrix), "lower": nothing, "upper": nothing}
    return {name: _response(coded.fit, eta + offset) for name, eta in lines.items()}


def _eta(pooling: Pooling, method: str, level: str, matrix: pd.DataFrame) -> Array:
    """Return a line; NaN where it asks for a coefficient that is not defined."""
    table = pooling.table
    own = table[(table["level"] == level) & (table["method"] == method)].set_index("term")["estimate"].reindex(matrix.columns)
    own = own.fillna(_stand_in(pooling, method, level).reindex(matrix.columns))
    used = (matrix != 0.0).to_numpy()
    return np.asarray(np.where(used, matrix.to_numpy() * own.to_numpy(), 0.0).sum(axis=1))


def _stand_in(pooling: Pooling, method: str, level: str) -> pd.Series:
    """Return what holds in place of a coefficient that a method does not have: 0 in complete pooling, the fit's where it is held."""
    if method == "complete":
        return pd.Series(0.0, index=list(pooling.terms))
    lost = pooling.undefined[(pooling.undefined["method"] == "none") & (pooling.undefined["level"] == level)]
    held = lost.loc[lost["reason"].str.contains("held at"), "term"]
    first = next(iter(pooling.fits.values()))
    return first.fixef().reindex(held)


def _response(fit: Fit, eta: Array) -> Array:
    """Return the mean of the response (with trials, of the proportion) at linear predictors; further parameters at their mean."""
    model = fit.model
    mu = np.asarray(model.link.inverse(eta))
    if model.family.response_mean is None:
        return mu
    aux = {name: np.asarray(np.mean(values)) for name, values in fit.draws().aux.items()}
    return np.asarray(model.family.response_mean(mu, aux))


def _draw_lines(panel: Axes, axis: PredictorAxis, part: pd.DataFrame) -> None:
    for number, (method, line) in enumerate(part.groupby("method", sort=False)):
        look = LOOKS[str(method)]
        band = line["lower"].notna().all()
        if axis.ticks is None:
            if band:
                panel.fill_between(axis.grid, line["lower"], line["upper"], color=look.colour, alpha=0.15, lw=0)
            panel.plot(axis.grid, line["estimate"], ls=look.line, color=look.colour, lw=1.3, zorder=2 + number)
        else:
            at = axis.grid + 0.14 * (number + 1)
            if band:
                panel.vlines(at, line["lower"], line["upper"], color=look.colour, lw=1.0)
            panel.plot(at, line["estimate"], marker=look.marker, ls=look.line, lw=0.7, ms=3.4, color=look.colour, mfc=look.face)
    if part.loc[part["method"] == "none", "estimate"].isna().any():
        panel.text(0.97, 0.04, "no own line", transform=panel.transAxes, ha="right", va="bottom", fontsize=7, color=MUTED, style="italic")


def _by_level(pooling: Pooling, block: RandomBlock, limit: int) -> Picture:
    """Without a predictor: observations by level and each method's mean."""
    model = pooling.model
    shown = pick(block.n_levels, limit)
    frame = model.frame.loc[model.design.kept]
    y = observed(model)
    figure = Picture(figsize=(min(10.0, 3.0 + 0.36 * len(shown)), 3.6), layout="constrained")
    panel = figure.subplots()
    for place, level in enumerate(shown):
        here = block.index == level
        panel.plot(np.full(int(here.sum()), place), y[here], "o", ms=3.2, mfc="none", mec=MUTED, mew=0.8)
    flat = PredictorAxis(name="position", rows=y, grid=np.zeros(1), values=[0], ticks=None)
    data = pd.concat(_all_lines(pooling, frame, block, [(int(level), flat) for level in shown]), ignore_index=True)
    for number, method in enumerate(pooling.labels):
        look, line = LOOKS[method], data[data["method"] == method]
        if method == "complete":
            panel.axhline(float(line["estimate"].iloc[0]), color=look.colour, ls=look.line, lw=1.1, zorder=0)
            continue
        at = np.arange(len(shown)) + 0.12 + 0.16 * number
        panel.vlines(at, line["lower"], line["upper"], color=look.colour, lw=1.0)
        panel.plot(at, line["estimate"], look.marker, ms=4.4, color=look.colour, mfc=look.face)
    names = [short(block.levels[level]) for level in shown]
    panel.set_xticks(range(len(shown)), names, rotation=60 if len(shown) > 15 or max(map(len, names)) > 5 else 0)
    panel.set_xlim(-0.5, len(shown))
    panel.set_xlabel(pooling.group)
    panel.set_ylabel(response_label(model))
    _legend(figure, pooling, line=True, marker=True, columns=3)
    alt = (
        f"{response_label(model)} by level of {pooling.group} ({len(shown)} of {block.n_levels}): circles are observations, the dotted "
        f"line is complete pooling, marks the means by {', '.join(list(pooling.labels.values())[1:])}, nearer to the line when pooled."
    )
    return figure.describe(alt, data.drop(columns="position"))


def _legend(figure: Picture, pooling: Pooling, *, line: bool, marker: bool, columns: int) -> None:
    from matplotlib.lines import Line2D

    notes = {method: f", {pooling.prob:.0%} interval" if line and fit.draws().n_draws > 1 else "" for method, fit in pooling.fits.items()}
    handles = [Line2D([], [], marker="o", ls="", ms=4, mfc="none", mec=MUTED, label="observed")]
    handles += [handle(pooling, method, line=line, marker=marker, note=notes.get(method, "")) for method in pooling.labels]
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles) if columns > 4 and len(handles) < 5 else 3)


# ------------------------------------------------------------------------------------------------------------------ caterpillar


def caterpillar(pooling: Pooling, *, limit: int = 45) -> Picture:
    """Draw every level's estimates with intervals, sorted by partial pooling, a panel for each effect.

    Parameters
    ----------
    pooling
        What `bayeslmm.pooling` returned.
    limit
        At most so many levels, spread evenly over the sorted ones.
    """
    table, first = pooling.table, next(iter(pooling.fits))
    methods = [method for method in pooling.labels if method != "complete"]
    main = pooling.wide(pooling.effects[0])[first].sort_values(kind="stable")
    levels = main.index.to_numpy()[pick(len(main), limit)]
    columns = min(4, len(pooling.effects))
    rows = -(-len(pooling.effects) // columns)
    figure = Picture(figsize=(max(5.4, 1.3 + 2.9 * columns), rows * min(9.5, 1.4 + 0.24 * len(levels))), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    parts = []
    for number, (term, panel) in enumerate(zip(pooling.effects, panels, strict=False)):
        here = table[table["term"] == term]
        _estimates(panel, here, methods, levels)
        panel.set_title(term)
        panel.set_xlabel("coefficient")
        panel.set_yticks(range(len(levels)), [short(level) for level in levels] if number % columns == 0 else [])
        panel.set_ylabel(f"{pooling.group} ({len(levels)} of {len(main)} levels)" if number % columns == 0 else "")
        parts.append(here[here["level"].isin(levels)])
    for panel in panels[len(pooling.effects) :]:
        panel.set_visible(False)
    handles = [handle(pooling, method, line=False, marker=True, note=f", {pooling.prob:.0%} interval") for method in methods]
    handles.append(handle(pooling, "complete", line=True, marker=False))
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    alt = (
        f"Caterpillar plot: {', '.join(pooling.effects)} of {len(levels)} levels of {pooling.group} with {pooling.prob:.0%} intervals by "
        f"{', '.join(pooling.labels[method] for method in methods)}, sorted by partial pooling; the vertical line is complete pooling, "
        "towards which partial estimates are drawn."
    )
    return figure.describe(alt, pd.concat(parts, ignore_index=True))


def _estimates(panel: Axes, table: pd.DataFrame, methods: list[str], levels: Array) -> None:
    centre = table.loc[table["method"] == "complete", "estimate"].iloc[0]
    if np.isfinite(centre):
        panel.axvline(centre, color=LOOKS["complete"].colour, ls=LOOKS["complete"].line, lw=1.0, zorder=0)
    shifts = np.linspace(0.2, -0.2, len(methods))
    limits = []
    for shift, method in zip(shifts, methods, strict=True):
        look = LOOKS[method]
        here = table[table["method"] == method].set_index("level").reindex(levels)
        at = np.arange(len(levels)) + shift
        panel.hlines(at, here["lower"], here["upper"], color=look.colour, lw=0.9 if method != "none" else 0.6)
        panel.plot(here["estimate"], at, look.marker, ms=3.6, color=look.colour, mfc=look.face, mew=0.9)
        values = here[["estimate"]] if method == "none" else here[["estimate", "lower", "upper"]]
        limits.append(values.to_numpy(dtype=float).ravel())
    inside = np.concatenate(limits)
    low, high = float(np.nanmin(inside)), float(np.nanmax(inside))
    room = 0.12 * (high - low) or 1.0
    panel.set_xlim(low - room, high + room)
    panel.set_ylim(-0.8, len(levels) - 0.2)
