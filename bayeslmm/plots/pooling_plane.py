"""Shrinkage in the plane of two effects: arrows from no to partial pooling, alone or over contours of the distribution of levels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.effects.pooling import covariance_draws, terms_of
from bayeslmm.errors import FitError, suggest
from bayeslmm.plots.common import pick, short
from bayeslmm.plots.picture import MUTED, Picture
from bayeslmm.plots.pooling import LOOKS, handle

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.effects.pooling import Pooling

__all__ = ["shrinkage", "topographic"]

type Array = np.ndarray

PROBABILITIES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Contours: so much of the levels' distribution lies within."""
_MOST = 300
_NAMED = 6
AVERAGE: Any = {"color": "#222222"}
_PAPER: Any = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}


def shrinkage(pooling: Pooling, *, terms: Sequence[str] | None = None) -> Picture:
    """Draw an arrow for each level, from its own estimate to the partially pooled one; with one effect, a row for each level.

    Parameters
    ----------
    pooling
        What `bayeslmm.pooling` returned.
    terms
        Two effects (default: the first two).
    """
    if terms is None and len(pooling.effects) == 1:
        return _on_a_line(pooling)
    return _plane(pooling, _two(pooling, terms), 0)


def topographic(pooling: Pooling, *, terms: Sequence[str] | None = None, draws: int = 25) -> Picture:
    """Draw the arrows over the contours of the estimated normal distribution of levels, of a posterior also at some of its draws.

    Parameters
    ----------
    pooling
        What `bayeslmm.pooling` returned.
    terms
        Two effects (default: the first two).
    draws
        So many draws of a posterior, each by the contour that holds half of the levels.
    """
    return _plane(pooling, _two(pooling, terms), max(1, int(draws)))


def _two(pooling: Pooling, terms: Sequence[str] | None) -> tuple[str, str]:
    known = list(pooling.effects)
    wanted = known[:2] if terms is None else list(terms)
    for term in wanted:
        if term not in known:
            raise FitError(f"{pooling.group} has no random effect {term!r}{suggest(str(term), known)} (effects: {', '.join(known)})")
    if len(wanted) != 2 or wanted[0] == wanted[1]:
        raise FitError(f"the plane has two effects, and {pooling.group} has here {', '.join(wanted) or 'none'}; use kind='shrinkage'")
    return wanted[0], wanted[1]


# ------------------------------------------------------------------------------------------------------------------------- plane


def _plane(pooling: Pooling, terms: tuple[str, str], draws: int) -> Picture:
    """Draw the plane; `draws` 0: without contours."""
    figure = Picture(figsize=(6.6, 5.6), layout="constrained")
    panel = figure.subplots()
    points = _points(pooling, terms)
    contours = [_contours(panel, pooling, method, terms, draws) for method in pooling.fits] if draws else []
    for method in pooling.fits:
        _arrows(panel, points, method)
    for method in ("none", *pooling.fits):
        _marks(panel, points[points["method"] == method], method)
    complete = points[points["method"] == "complete"].iloc[0]
    look = LOOKS["complete"]
    if np.isfinite(complete["x"]) and np.isfinite(complete["y"]):
        panel.plot(complete["x"], complete["y"], look.marker, ms=9, color=look.colour, mfc="none", zorder=6)
    average = [_average(pooling, term) for term in terms]
    panel.plot(*([value] for value in average), "+", ms=10, mew=1.4, color=AVERAGE["color"], zorder=6)
    _names(panel, points, next(iter(pooling.fits)))
    panel.set_xlabel(terms[0])
    panel.set_ylabel(terms[1])
    handles = [handle(pooling, method, line=False, marker=True) for method in ("complete", "none", *pooling.fits)]
    handles.append(_average_handle(pooling, marker="+", ls=""))
    figure.legend(handles=[*handles, *_contour_handles(pooling, draws)], loc="outside upper center", ncols=2)
    named = {"x": terms[0], "y": terms[1]}
    data = pd.concat([points.assign(kind="level"), *contours], ignore_index=True).rename(columns=named)
    alone = points[(points["method"] == "none") & (points["x"].isna() | points["y"].isna())]["level"].tolist()
    lost = f" Without an own estimate of both, so without an arrow: {_some(alone)}." if alone else ""
    contour = " Contours hold 10, 30, 50, 70 and 90 per cent of the estimated distribution of levels." if draws else ""
    alt = (
        f"Arrows from no to partial pooling in the plane of {terms[0]} and {terms[1]} for {points['level'].nunique()} levels of "
        f"{pooling.group}; larger marks have more rows. They lead towards the average, the longer the further from it and the fewer "
        f"the rows.{contour}{lost}"
    )
    return figure.describe(alt, data)


def _average(pooling: Pooling, term: str) -> float:
    """Return the fixed effect of the first fit, towards which levels are pooled; 0 where it has none."""
    return float(next(iter(pooling.fits.values())).fixef().get(term, 0.0))


def _average_handle(pooling: Pooling, **look: Any) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], ms=8, mew=1.4, label=f"average ({next(iter(pooling.fits.values())).method})", **AVERAGE, **look)


def _some(levels: list[str]) -> str:
    return ", ".join(levels[:_NAMED]) + (f" and {len(levels) - _NAMED} more" if len(levels) > _NAMED else "")


def _points(pooling: Pooling, terms: tuple[str, str]) -> pd.DataFrame:
    """Return `level, method, n_obs, x, y` of at most so many levels."""
    table = pooling.table
    levels = table["level"].drop_duplicates().to_numpy()
    shown = table[table["level"].isin(levels[pick(len(levels), _MOST)])]
    wide = [shown[shown["term"] == term].set_index(["level", "method"])["estimate"] for term in terms]
    counts = shown[shown["term"] == terms[0]].set_index(["level", "method"])["n_obs"]
    return pd.DataFrame({"n_obs": counts, "x": wide[0], "y": wide[1]}).reset_index()


def _arrows(panel: Axes, points: pd.DataFrame, method: str) -> None:
    start = points[points["method"] == "none"].set_index("level")
    end = points[points["method"] == method].set_index("level")
    look = LOOKS[method]
    for level in start.index:
        ends = [*end.loc[level, ["x", "y"]].astype(float), *start.loc[level, ["x", "y"]].astype(float)]
        if np.all(np.isfinite(ends)):
            arrow = {
                "arrowstyle": "-|>",
                "color": look.colour,
                "lw": 0.8,
                "ls": look.arrow,
                "shrinkA": 0,
                "shrinkB": 2,
                "mutation_scale": 7,
            }
            panel.annotate("", xy=(ends[0], ends[1]), xytext=(ends[2], ends[3]), arrowprops=arrow, zorder=3)


def _marks(panel: Axes, points: pd.DataFrame, method: str) -> None:
    look = LOOKS[method]
    share = points["n_obs"] / points["n_obs"].max()
    size = (12 + 30 * share) * (1.0 if method == "none" else 0.6)
    panel.scatter(
        points["x"], points["y"], s=size, marker=look.marker, edgecolors=look.colour, facecolors=look.face, linewidths=0.9, zorder=4
    )


def _names(panel: Axes, points: pd.DataFrame, method: str) -> None:
    """Name the levels that move furthest, and those with no own estimate."""
    start = points[points["method"] == "none"].set_index("level")
    end = points[points["method"] == method].set_index("level")
    spread = end[["x", "y"]].std().replace(0.0, 1.0)
    moved = (((end[["x", "y"]] - start[["x", "y"]]) / spread) ** 2).sum(axis=1, skipna=False)
    lost = moved.index[moved.isna()].tolist()
    for level in [*lost[:_NAMED], *moved.nlargest(_NAMED).index]:
        at = end if level in lost else start
        x, y = at.at[level, "x"], at.at[level, "y"]
        label = f"{short(level)} (no own estimate)" if level in lost else short(level)
        place: Any = {"xytext": (-6, -3), "ha": "right"} if level in lost else {"xytext": (5, 4)}
        panel.annotate(label, (x, y), textcoords="offset points", fontsize=7.5, color="#444444", zorder=7, **place)


# ---------------------------------------------------------------------------------------------------------------------- contours


def _contours(panel: Axes, pooling: Pooling, method: str, terms: tuple[str, str], draws: int) -> pd.DataFrame:
    """Draw the contours of a fit; return their points."""
    fit = pooling.fits[method]
    own = terms_of(fit.model, pooling.group)
    every = fit.draws()
    look = LOOKS[method]
    if any(term not in own.effects for term in terms):
        return pd.DataFrame()
    place = [own.effects.index(term) for term in terms]
    covariance = covariance_draws(every, own, containing=True)[:, place][:, :, place]
    zero = np.zeros(every.n_draws)
    centre = np.column_stack([every.b[:, own.fixed[term]] if term in own.fixed else zero for term in terms])
    parts = []
    if every.n_draws > 1:
        for draw in pick(every.n_draws, draws):
            line = _ellipse(centre[draw], covariance[draw], 0.5)
            panel.plot(line[:, 0], line[:, 1], color=look.colour, lw=0.5, alpha=0.45, zorder=1)
            parts.append(_contour_rows(line, method, 0.5, int(draw)))
    if every.n_draws == 1 or len(pooling.fits) == 1:
        for probability in PROBABILITIES:
            line = _ellipse(centre.mean(axis=0), covariance.mean(axis=0), probability)
            panel.plot(line[:, 0], line[:, 1], color=MUTED, lw=0.8, ls="-", zorder=2)
            panel.annotate(f"{probability:.0%}", line[25], fontsize=6.5, color="#555555", ha="center", va="center", zorder=2, bbox=_PAPER)
            parts.append(_contour_rows(line, method, probability, -1))
    return pd.concat(parts, ignore_index=True)


def _ellipse(centre: Array, covariance: Array, probability: float) -> Array:
    """Return points (101, 2) of the curve that holds so much of a normal distribution."""
    values, vectors = np.linalg.eigh(covariance)
    angle = np.linspace(0.0, 2.0 * np.pi, 101)
    radius = np.sqrt(stats.chi2.ppf(probability, 2) * np.maximum(values, 0.0))
    root = vectors @ (radius[:, None] * (vectors.T @ np.vstack([np.cos(angle), np.sin(angle)])))
    return np.asarray(centre + root.T)


def _contour_rows(line: Array, method: str, probability: float, draw: int) -> pd.DataFrame:
    return pd.DataFrame({"kind": "contour", "method": method, "probability": probability, "draw": draw, "x": line[:, 0], "y": line[:, 1]})


def _contour_handles(pooling: Pooling, draws: int) -> list[Any]:
    from matplotlib.lines import Line2D

    if not draws:
        return []
    found = [Line2D([], [], color=MUTED, lw=0.9, label="estimated distribution of levels")]
    found += [
        Line2D([], [], color=LOOKS[method].colour, lw=0.6, alpha=0.6, label="its 50% contour at draws of the posterior")
        for method, fit in pooling.fits.items()
        if fit.draws().n_draws > 1
    ]
    return found


# ---------------------------------------------------------------------------------------------------------------------- one effect


def _on_a_line(pooling: Pooling, limit: int = 60) -> Picture:
    """Draw a row for each level: an arrow from its own estimate to the pooled one, sorted by the own."""
    term = pooling.effects[0]
    wide = pooling.wide(term)
    counts = pooling.table.drop_duplicates("level").set_index("level")["n_obs"]
    order = wide.sort_values(["none", next(iter(pooling.fits))], kind="stable").index.to_numpy()
    order = order[pick(len(order), limit)]
    figure = Picture(figsize=(6.4, min(9.5, 1.5 + 0.2 * len(order))), layout="constrained")
    panel = figure.subplots()
    share = counts[order] / counts.max()
    at = np.arange(len(order))
    centre = float(wide["complete"].iloc[0])
    if np.isfinite(centre):
        panel.axvline(centre, color=LOOKS["complete"].colour, ls=LOOKS["complete"].line, lw=1.0, zorder=0)
    panel.axvline(_average(pooling, term), lw=0.8, zorder=0, **AVERAGE)
    for method in ("none", *pooling.fits):
        look, values = LOOKS[method], wide.loc[order, method]
        if method != "none":
            arrow = {"arrowstyle": "-|>", "color": look.colour, "lw": 0.8, "shrinkA": 0, "shrinkB": 2, "mutation_scale": 7}
            for place in np.flatnonzero(np.isfinite(wide.loc[order, "none"])):
                panel.annotate("", xy=(values.iloc[place], place), xytext=(wide.at[order[place], "none"], place), arrowprops=arrow)
        size = (10 + 28 * share) * (1.0 if method == "none" else 0.6)
        panel.scatter(values, at, s=size, marker=look.marker, edgecolors=look.colour, facecolors=look.face, linewidths=0.9, zorder=4)
    panel.set_yticks(at, [short(level) for level in order] if len(order) <= 60 else [], fontsize=7)
    panel.set_xlabel(term)
    panel.set_ylabel(f"{pooling.group} ({len(order)} of {len(wide)} levels)")
    handles = [handle(pooling, method, line=method == "complete", marker=method != "complete") for method in pooling.labels]
    handles.append(_average_handle(pooling, lw=0.8))
    figure.legend(handles=handles, loc="outside upper center", ncols=2)
    lost = wide.index[wide["none"].isna()].tolist()
    alt = (
        f"Arrows from no to partial pooling of {term} for {len(order)} levels of {pooling.group}, sorted by the own estimate; vertical "
        "lines are complete pooling (dotted) and the fit's average. They lead towards the average, the longer the further from it and the "
        "fewer the rows (smaller marks)." + (f" No own estimate: {_some(lost)}." if lost else "")
    )
    data = pooling.table[(pooling.table["term"] == term) & pooling.table["level"].isin(order)].reset_index(drop=True)
    return figure.describe(alt, data)
