"""A statistic of the response among the same statistic of its replicates, of all rows or level by level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import FitError, suggest
from bayeslmm.plots.picture import COLOURS, INK
from bayeslmm.plots.ppc_view import shown_levels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.model import Model
    from bayeslmm.plots.ppc_view import Facet, Levels, View

__all__ = ["LABELLED", "STATISTICS", "Statistic", "predictive_p", "stat", "statistics_of"]

type Array = np.ndarray

LABELLED = 60
"""With more levels than this their names would overlap and are left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistic:
    """A number of a response: its name, and the function from responses (S, m) to numbers (S,); `counts`: of counts only."""

    name: str
    of: Callable[[Array], Array]
    counts: bool = False


def _sd(values: Array) -> Array:
    return values.std(axis=1, ddof=1) if values.shape[1] > 1 else np.full(len(values), np.nan)


STATISTICS: Mapping[str, Statistic] = MappingProxyType(
    {
        one.name: one
        for one in (
            Statistic(name="mean", of=lambda values: values.mean(axis=1)),
            Statistic(name="sd", of=_sd),
            Statistic(name="min", of=lambda values: values.min(axis=1)),
            Statistic(name="max", of=lambda values: values.max(axis=1)),
            Statistic(name="median", of=lambda values: np.median(values, axis=1)),
            Statistic(name="zeros", of=lambda values: (values == 0).mean(axis=1), counts=True),
        )
    }
)
"""Name -> statistic; `zeros` is the share of rows that are 0."""


def statistics_of(model: Model, y: Array, asked: Any, *, grouped: bool) -> tuple[Statistic, ...]:
    """Return the statistics asked for: names, functions of a response (m,), or a list of these; by default those that tell most.

    Raises
    ------
    FitError
        One is neither, or is of counts and the response is continuous.
    """
    if asked is None:
        asked = "mean" if grouped or len(np.unique(y)) <= 2 else _default(model)
    several = asked if isinstance(asked, Sequence) and not isinstance(asked, str) else (asked,)
    if not several:
        raise FitError(f"stat is empty; name one or more of {', '.join(STATISTICS)}, or give a function")
    found = tuple(_statistic(one) for one in several)
    for one in found:
        if one.counts and not model.family.discrete:
            raise FitError(f"statistic {one.name!r} is of counts, and the {model.family.name} response is continuous")
    return found


def _default(model: Model) -> tuple[str, ...]:
    if model.design.response_levels is not None:
        return ("mean", "sd")
    return ("mean", "sd", "zeros", "max") if model.family.discrete else ("mean", "sd", "min", "max")


def _statistic(asked: Any) -> Statistic:
    if callable(asked):
        return Statistic(name=getattr(asked, "__name__", "statistic").strip("<>"), of=lambda values: _by_function(asked, values))
    if not isinstance(asked, str) or asked not in STATISTICS:
        raise FitError(f"unknown statistic {asked!r}{suggest(str(asked), list(STATISTICS))}; or give a function of the response")
    return STATISTICS[asked]


def _by_function(function: Callable[[Array], Any], values: Array) -> Array:
    """Return a user's function of each response; FitError where it fails or gives no number."""
    out = np.empty(len(values))
    for number, one in enumerate(values):
        try:
            out[number] = function(one)
        except Exception as error:
            name = getattr(function, "__name__", "the function")
            raise FitError(f"stat: {name} of a response of {len(one)} values gave no number ({type(error).__name__}: {error})") from error
    return out


def predictive_p(observed: float, simulated: Array) -> float:
    """Return the posterior predictive p value P(T(y_rep) > T(y)) + P(T(y_rep) = T(y)) / 2, near 0.5 where the fit is like the data.

    Source: Gelman, Meng & Stern (1996), Statistica Sinica 6; ties halved, so that counts are not pushed to one side.
    """
    return float(np.mean(simulated > observed) + 0.5 * np.mean(simulated == observed))


def stat(panel: Axes, facet: Facet, view: View) -> pd.DataFrame:
    """Draw a statistic's distribution over the replicates with its observed value; with `group`, both level by level."""
    if view.levels is not None:
        return _by_level(panel, facet, view, view.levels)
    statistic: Statistic = facet.statistic
    seen, drawn = float(statistic.of(facet.y[None])[0]), statistic.of(facet.simulated)
    values = drawn[np.isfinite(drawn)]
    if not np.isfinite(seen) or not len(values):
        raise FitError(f"statistic {statistic.name!r} of the response or of its replicates is not a finite number")
    distinct = np.unique(values)
    if len(distinct) <= 30:
        gaps = np.diff(distinct).min() if len(distinct) > 1 else abs(distinct[0]) * 0.05 or 1.0
        edges = np.append(distinct - gaps / 2, distinct[-1] + gaps / 2)
        panel.bar(distinct, [np.sum(values == one) for one in distinct], width=0.9 * gaps, color=COLOURS[4], label="simulated")
    else:
        edges = np.histogram_bin_edges(values, bins=min(40, max(10, round(len(values) ** 0.5))))
        panel.hist(values, bins=edges.tolist(), color=COLOURS[4], edgecolor="white", lw=0.3, label="simulated")
    panel.axvline(seen, color=INK, lw=2.2, label="observed")
    panel.margins(x=0.04 if len(distinct) > 1 else 2.0)
    panel.set_yticks([])
    panel.locator_params(axis="x", nbins=5)
    p = predictive_p(seen, values)
    said = "p < 0.01" if p < 0.01 else "p > 0.99" if p > 0.99 else f"p = {p:.2f}"
    panel.set_title(view.title(facet, f"{statistic.name}, {said}"), loc="left")
    columns = {"statistic": statistic.name, "replicate": np.arange(1, len(drawn) + 1), "simulated": drawn, "observed": seen, "p": p}
    return pd.DataFrame(columns).assign(fit=facet.label)


def _by_level(panel: Axes, facet: Facet, view: View, levels: Levels) -> pd.DataFrame:
    """Draw the statistic of each level: observed, and the interval of its replicates."""
    statistic: Statistic = facet.statistic
    tail = (1.0 - view.request.prob) / 2.0
    records = []
    for code in shown_levels(levels, view.limit):
        rows = levels.codes == code
        seen, drawn = float(statistic.of(facet.y[None, rows])[0]), statistic.of(facet.simulated[:, rows])
        limits = np.quantile(drawn, [tail, 0.25, 0.5, 0.75, 1.0 - tail])
        records.append((levels.labels[code], int(rows.sum()), seen, *limits, predictive_p(seen, drawn)))
    columns = ["level", "rows", "observed", "lower", "lower_half", "median", "upper_half", "upper", "p"]
    frame = pd.DataFrame(records, columns=columns)
    frame = frame.dropna(subset=["observed", "lower"]).reset_index(drop=True)
    if not len(frame):
        raise FitError(f"statistic {statistic.name!r} is undefined at every level of '{levels.name}': they have too few rows")
    at, thin = np.arange(len(frame)), len(frame) > LABELLED
    panel.hlines(at, frame["lower"], frame["upper"], color=COLOURS[0], lw=0.8 if thin else 1.3, label=_interval(view))
    panel.hlines(at, frame["lower_half"], frame["upper_half"], color=COLOURS[0], lw=1.6 if thin else 3.2)
    out = (frame["observed"] < frame["lower"]) | (frame["observed"] > frame["upper"])
    panel.plot(frame["observed"][~out], at[~out], "o", ms=2.4 if thin else 4, color=INK, label="observed")
    if out.any():
        panel.plot(
            frame["observed"][out], at[out], "D", ms=3 if thin else 4.6, color=COLOURS[1], mec=INK, mew=0.5, label="observed, outside"
        )
    panel.set_ylim(len(frame) - 0.3, -0.7)
    panel.set_yticks([] if thin else at, [] if thin else [label[:24] for label in frame["level"]])
    panel.set_title(view.title(facet, f"{statistic.name}: {int(out.sum())} of {len(frame)} outside"), loc="left")
    return frame.assign(fit=facet.label, statistic=statistic.name, group=levels.name, outside=out)


def _interval(view: View) -> str:
    return f"simulated, 50% and {view.request.prob:.0%}"
