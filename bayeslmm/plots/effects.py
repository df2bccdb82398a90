"""What the fits predict as each predictor changes, the others typical: conditional effects, one panel a predictor or interaction."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.data import read_column
from bayeslmm.effects.predictions import predictions
from bayeslmm.effects.rows import compared_names, variable_named
from bayeslmm.errors import BayesLmmWarning, FitError
from bayeslmm.formula.evaluate import columns_in
from bayeslmm.formula.values import Numbers, as_factor, recode
from bayeslmm.plots.common import Source, grid_shape, observed, pick, response_label
from bayeslmm.plots.picture import COLOURS, LINES, MARKERS, MUTED, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.effects.rows import Variable
    from bayeslmm.fit import Fit
    from bayeslmm.model import Model

__all__ = ["draw"]

type Array = np.ndarray

_POINTS = 2000
"""More observations are thinned."""
_GRID = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class _Panel:
    """What a panel shows: the fits (by number), the predictor on the axis and, of an interaction, the one that tells lines apart."""

    fits: tuple[int, ...]
    x: Variable
    by: Variable | None
    title: str


def draw(
    source: Source,
    *,
    variables: str | Sequence[str] | None = None,
    target: str = "average_group",
    points: bool = True,
    limit: int = 12,
    prob: float = 0.95,
) -> Picture:
    """Draw predictions against each predictor, the others at their mean or first category, with intervals.

    Two-way interactions have panels of their own, with lines for the categories of the second predictor, or for its mean and one
    standard deviation below and above; of several fits one panel each.

    Parameters
    ----------
    source
        The fits.
    variables
        The predictors, `"Days"`, and interactions, `"Days:sex"`, to draw (default: all of the fixed part).
    target
        As for `predictions`.
    points
        Show the observations too.
    limit
        At most so many panels.
    prob
        Probability of the intervals.
    """
    model = source.model
    panels = [panel for shown in _shown(model, variables) for panel in _panels(source, shown)][:limit]
    rows, columns = (2, 2) if len(panels) == 4 else grid_shape(len(panels), 3)
    figure = Picture(figsize=(1.2 + 2.9 * columns, 1.0 + 2.5 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    parts = []
    for panel, place in zip(panels, axes, strict=False):
        if points:
            _observations(place, model, panel)
        parts += [_lines(place, source, panel, number, target, prob) for number in panel.fits]
        if panel.by is not None:
            place.set_title(panel.title)
        _decorate(place, panel)
    for place in axes[len(panels) :]:
        place.set_visible(False)
    figure.supylabel(response_label(model), fontsize=9.5)
    _legend(figure, source, [part for part in parts if len(part)], prob, points)
    return figure.describe(_alt(source, panels, points), pd.concat(parts, ignore_index=True))


# What is shown ---------------------------------------------------------------------------------------------------------


def _shown(model: Model, variables: str | Sequence[str] | None) -> list[tuple[str, ...]]:
    """Return predictors and pairs of them; by default all predictors, then all pairs that interact."""
    names = compared_names(model)
    if variables is not None:
        asked = (variables,) if isinstance(variables, str) else tuple(variables)
        found = [tuple(name.split(":")) if name not in names else (name,) for name in asked]
        for one in found:
            if len(one) > 2:
                raise FitError(f"a panel shows one predictor or two, not '{':'.join(one)}'")
            for name in one:
                variable_named(model, name)
        return found
    if not names:
        raise FitError("the fixed part has no predictor, so that there is no effect to draw; see plot(fit, 'ranef')")
    together = [list(dict.fromkeys(name for variable in term.variables for name in columns_in(variable))) for term in _terms(model)]
    pairs = dict.fromkeys(pair for columns in together for pair in combinations(sorted(columns, key=names.index), 2))
    return [*((name,) for name in names), *pairs]


def _terms(model: Model) -> Sequence[Any]:
    return model.design.encoder.formula.mean.terms


def _panels(source: Source, names: tuple[str, ...]) -> list[_Panel]:
    found = [variable_named(source.model, name) for name in names]
    everyone = tuple(range(len(source.fits)))
    if len(found) == 1:
        return [_Panel(fits=everyone, x=found[0], by=None, title=names[0])]
    x, by = sorted(found, key=_richness, reverse=True)
    several = len(everyone) > 1
    label = f"{x.name} by {by.name}"
    return [_Panel(fits=(number,), x=x, by=by, title=f"{label}, {source.labels[number]}" if several else label) for number in everyone]


def _richness(x: Variable) -> float:
    """Return how much a predictor asks for the axis: a number most, then the one of more categories."""
    return np.inf if x.categories is None else float(len(x.categories))


def _values(x: Variable) -> list[Any]:
    """Return where predictions are made along the axis."""
    if x.categories is not None:
        return list(x.categories)
    return np.linspace(float(x.numbers.min()), float(x.numbers.max()), _GRID).tolist()


def _levels(by: Variable) -> tuple[list[Any], list[str]]:
    """Return the values that tell lines apart, and their labels."""
    if by.categories is None:
        mean, sd = float(by.numbers.mean()), float(by.numbers.std(ddof=1))
        values = [mean - sd, mean, mean + sd]
        return values, [f"{value:.3g}" for value in values]
    which = pick(len(by.categories), len(COLOURS))
    return [by.categories[i] for i in which], [by.labels[i] for i in which]


# Drawing ---------------------------------------------------------------------------------------------------------------


def _lines(place: Axes, source: Source, panel: _Panel, number: int, target: str, prob: float) -> pd.DataFrame:
    """Draw a fit's predictions; return them."""
    x, fit = panel.x, source.fits[number]
    values = _values(x)
    levels, labels = ([None], [""]) if panel.by is None else _levels(panel.by)
    found = _predicted(fit, x, values, panel.by, levels, target, prob)
    size, parts = len(values), []
    for k, label in enumerate(labels):
        part = found.iloc[k * size : (k + 1) * size]
        style = number if panel.by is None else k
        shift = _shift(style, len(source.fits) if panel.by is None else len(labels))
        _line(place, x, values, part, style, shift)
        told = pd.DataFrame({"panel": panel.title, "fit": source.labels[number], "variable": x.name, "value": x.labels or values})
        limits = [name for name in ("estimate", "se", "lower", "upper") if name in part]
        parts.append(pd.concat([told.assign(by=label), part[limits].reset_index(drop=True)], axis=1))
    if panel.by is not None:
        handles, _ = place.get_legend_handles_labels()
        place.legend(handles, labels, title=panel.by.name, title_fontsize=8, fontsize=7.5, loc="best", handlelength=2.6)
    return pd.concat(parts, ignore_index=True)


def _predicted(fit: Fit, x: Variable, values: list[Any], by: Variable | None, levels: list[Any], target: str, prob: float) -> pd.DataFrame:
    chosen = {x.name: values} if by is None else {by.name: levels, x.name: values}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        return predictions(fit, "reference", chosen, target=target, prob=prob)


def _shift(number: int, count: int) -> float:
    """Return how far marks at a category stand from its tick, so that several neither overlap nor hide the observations."""
    step = min(0.12, 0.36 / max(count - 1, 1))
    return step * (number - (count - 1) / 2.0) - (0.05 if count > 1 else 0.0)


def _line(place: Axes, x: Variable, values: list[Any], part: pd.DataFrame, style: int, shift: float) -> None:
    colour, look = COLOURS[style % len(COLOURS)], LINES[style % len(LINES)]
    if x.categories is None:
        if "lower" in part:
            place.fill_between(values, part["lower"], part["upper"], color=colour, alpha=0.15, lw=0)
        place.plot(values, part["estimate"], ls=look, color=colour, lw=1.7, zorder=3, label="line")
        return
    at = np.arange(len(values)) + shift
    if "lower" in part:
        place.vlines(at, part["lower"], part["upper"], color=colour, lw=1.5, zorder=3)
    place.plot(
        at,
        part["estimate"],
        MARKERS[style % len(MARKERS)],
        ls=look if len(values) > 1 else "",
        lw=0.7,
        ms=5.5,
        color=colour,
        mfc=colour if style == 0 else "white",
        zorder=4,
        label="line",
    )


def _observations(place: Axes, model: Model, panel: _Panel) -> None:
    """Draw the observations faintly, those of a category beside its tick."""
    y, x = observed(model), _rows_of(model, panel.x)
    binary = bool(np.isin(y, (0.0, 1.0)).all())
    which = pick(len(y), _POINTS)
    if panel.x.categories is not None:
        x = x + 0.33 + 0.09 * np.random.default_rng(0).uniform(-1.0, 1.0, len(x))
    marker, size = ("|", 5.0) if binary else ("o", 2.6)
    place.plot(x[which], y[which], marker, ms=size, mfc="none", mec=MUTED, mew=0.6, alpha=0.55, zorder=1)


def _rows_of(model: Model, x: Variable) -> Array:
    """Return the rows' values, positions of categories."""
    value = read_column(model.frame.loc[model.design.kept], x.name)
    if x.categories is None and isinstance(value, Numbers):
        return value.values
    return recode(as_factor(value), x.labels).codes.astype(float)


def _decorate(place: Axes, panel: _Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    x = panel.x
    place.set_xlabel(x.name)
    if x.categories is None:
        whole = bool(np.all(x.numbers == np.round(x.numbers)))
        place.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=whole))
        return
    longest = max(len(label) for label in x.labels)
    place.set_xticks(range(len(x.labels)), [_short(label) for label in x.labels], rotation=60 if longest * len(x.labels) > 28 else 0)
    place.set_xlim(-0.5, len(x.labels) - 0.4)


def _legend(figure: Picture, source: Source, parts: Sequence[pd.DataFrame], prob: float, points: bool) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for number, label in enumerate(source.labels):
        band = any("lower" in part and part["fit"].iloc[0] == label for part in parts)
        text = f"{label} ({prob:.0%} interval)" if band else label
        handles.append(Line2D([], [], color=COLOURS[number], ls=LINES[number], label=text))
    if points:
        handles.append(Line2D([], [], marker="o", ls="", ms=4, mfc="none", mec=MUTED, label="observed"))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))


def _alt(source: Source, panels: Sequence[_Panel], points: bool) -> str:
    titles = ", ".join(panel.title for panel in panels[:6]) + (", ..." if len(panels) > 6 else "")
    return (
        f"Predicted {response_label(source.model)} by {' and '.join(source.labels)} as one predictor changes and the others stay typical; "
        f"panels: {titles}. Lines or marks with intervals{', over the observations' if points else ''}."
    )


def _short(label: str, width: int = 14) -> str:
    return label if len(label) <= width else label[: width - 1] + "…"
