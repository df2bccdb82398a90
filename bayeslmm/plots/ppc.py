"""Checks of a fit against responses simulated from it (posterior predictive checks): one function a kind, the kinds in one table."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import FitError
from bayeslmm.plots import plot
from bayeslmm.plots.common import Source, grid_shape, short
from bayeslmm.plots.picture import Picture
from bayeslmm.plots.ppc_pit import leave_one_out, leave_one_out_if_possible, pit
from bayeslmm.plots.ppc_rows import calibration, error, intervals
from bayeslmm.plots.ppc_shapes import bars, density, ecdf, histogram, rootogram
from bayeslmm.plots.ppc_statistics import LABELLED, stat, statistics_of
from bayeslmm.plots.ppc_view import (
    FEW_VALUES,
    Facet,
    Request,
    Sample,
    View,
    extent,
    levels_of,
    on_scale,
    replicated,
    response_words,
    shown_levels,
    whole,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.fit import Fit
    from bayeslmm.model import Model

__all__ = ["CHECKS", "PredictiveCheck", "draw", "pp_check"]

type Array = np.ndarray

_MOST_PANELS = 12
_GROUPED = "_grouped"
"""Ending of a kind's name: by levels of `group`, or of the first grouping factor where none is given; `stat_grouped` is brms's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictiveCheck:
    """A kind of predictive check.

    Attributes
    ----------
    shows
        What it shows, in a few words.
    panel
        Draws one panel and returns its numbers.
    n
        Replicates where none are asked for.
    labels
        `View` -> labels of both axes.
    refuses
        `Model` -> why it does not fit a model, as the rest of a sentence; empty where it does.
    sample
        `(fit, request, n)` -> replicates.
    options
        Options beyond those of all: `stat`, `x`.
    proportions
        Whether successes of trials are drawn as proportions.
    limit
        Default of the most panels (or rows, or levels) shown.
    panel_size
        Width and height of a panel in inches, of one alone and of several.
    shared
        Whether the panels share their axes (x, y).
    brms
        Names of the kind in brms's `pp_check`.
    """

    shows: str
    panel: Callable[[Axes, Facet, View], pd.DataFrame]
    n: int
    labels: Callable[[View], tuple[str, str]]
    refuses: Callable[[Model], str] = lambda model: ""
    sample: Callable[[Fit, Request, int], Sample] = replicated
    options: tuple[str, ...] = ()
    proportions: bool = False
    limit: int = _MOST_PANELS
    panel_size: tuple[tuple[float, float], tuple[float, float]] = ((5.2, 2.9), (2.5, 2.0))
    shared: tuple[bool, bool] = (True, False)
    brms: tuple[str, ...] = ()


# Which kind fits which model -------------------------------------------------------------------------------------------


def _few(model: Model) -> bool:
    return model.family.discrete and whole(model.design.y)


def _not_smooth(model: Model) -> str:
    if not _few(model):
        return ""
    return f"is of a continuous response, and {model.design.response_name} takes {len(np.unique(model.design.y))} whole values"


def _not_few(model: Model) -> str:
    if not model.family.discrete:
        return f"is of a discrete response, and the {model.family.name} response is continuous"
    return "" if _few(model) else f"draws each value, and {model.design.response_name} takes more than {FEW_VALUES}"


def _not_counts(model: Model) -> str:
    if not model.family.discrete:
        return f"is of counts, and the {model.family.name} response is continuous"
    if model.design.response_levels is not None or _binary(model):
        return f"is of counts, and {model.design.response_name} is a category"
    return ""


def _not_probability(model: Model) -> str:
    if model.family.discrete and (model.design.trials is not None or _binary(model)):
        return ""
    return f"is of probabilities, and the {model.family.name} response is not a success or a number of successes"


def _two_values(model: Model) -> str:
    return f"says nothing of {model.design.response_name}, which is a yes or a no: see 'calibration'" if _binary(model) else ""


def _binary(model: Model) -> bool:
    return model.design.trials is None and bool(np.isin(model.design.y, (0.0, 1.0)).all())


# What stands on the axes -----------------------------------------------------------------------------------------------


def _of_counts(y_label: str) -> Callable[[View], tuple[str, str]]:
    return lambda view: (response_words(view.model, proportions=False), y_label)


def _of_bars(view: View) -> tuple[str, str]:
    """Name the response alone where its levels stand under the bars."""
    design = view.model.design
    return (response_words(view.model, proportions=False) if design.response_levels is None else design.response_name), "rows"


def _of_stat(view: View) -> tuple[str, str]:
    name = response_words(view.model, proportions=True)
    return f"statistic of {name}", "" if view.levels is None else view.levels.name


def _of_rows(view: View) -> tuple[str, str]:
    return view.request.x or "rows, in order of the prediction", response_words(view.model, proportions=True)


def _of_errors(view: View) -> tuple[str, str]:
    name = response_words(view.model, proportions=True)
    return view.request.x or f"predicted {name}", f"error of {name}"


CHECKS: Mapping[str, PredictiveCheck] = MappingProxyType(
    {
        "density": PredictiveCheck(
            shows="density of the response over those of its replicates",
            panel=density, n=50, labels=_of_counts("density"), refuses=_not_smooth, brms=("dens_overlay", "dens"),
        ),
        "ecdf": PredictiveCheck(
            shows="cumulative distribution of the response over those of its replicates",
            panel=ecdf, n=50, labels=_of_counts("share of rows up to here"), brms=("ecdf_overlay",), shared=(True, True),
        ),
        "histogram": PredictiveCheck(
            shows="histogram of the response, and each bin's interval in the replicates",
            panel=histogram, n=400, labels=_of_counts("rows"), brms=("hist", "freqpoly"),
        ),
        "bars": PredictiveCheck(
            shows="rows at each value of the response, and their interval in the replicates",
            panel=bars, n=400, labels=_of_bars, refuses=_not_few,
        ),
        "rootogram": PredictiveCheck(
            shows="roots of the observed frequencies hanging from the expected ones",
            panel=rootogram, n=400, labels=_of_counts("root of the number of rows"), refuses=_not_counts,
        ),
        "stat": PredictiveCheck(
            shows="statistics of the response among those of its replicates; with group, level by level",
            panel=stat, n=1000, labels=_of_stat, options=("stat",), proportions=True, shared=(False, False), limit=LABELLED,
            brms=("stat_2d",),
        ),
        "pit": PredictiveCheck(
            shows="PIT-ECDF with a simultaneous band, leave-one-out where the log-likelihood is at hand",
            panel=pit, n=1000, labels=lambda view: ("PIT", "ECDF − uniform"), sample=leave_one_out_if_possible,
            shared=(True, True), brms=("pit_ecdf",),
        ),
        "loo_pit": PredictiveCheck(
            shows="PIT-ECDF, each row predicted from all others",
            panel=pit, n=1000, labels=lambda view: ("LOO-PIT", "ECDF − uniform"), sample=leave_one_out,
            shared=(True, True), brms=("loo_pit_overlay", "loo_pit_qq", "loo_pit_ecdf"),
        ),
        "intervals": PredictiveCheck(
            shows="predictive interval of each row with the observed response",
            panel=intervals, n=1000, labels=_of_rows, refuses=_two_values, options=("x",), proportions=True, limit=100,
            panel_size=((7.4, 3.2), (2.5, 2.0)), shared=(False, True), brms=("ribbon", "loo_intervals"),
        ),
        "error": PredictiveCheck(
            shows="average errors against the prediction or a predictor, in bins with what chance makes",
            panel=error, n=400, labels=_of_errors, options=("x",), proportions=True, shared=(True, True),
            brms=("error_scatter", "error_scatter_avg", "error_scatter_avg_vs_x", "error_binned"),
        ),
        "calibration": PredictiveCheck(
            shows="observed frequency against predicted probability",
            panel=calibration, n=200, labels=lambda view: ("predicted probability", "observed frequency"),
            refuses=_not_probability, proportions=True, shared=(False, False), panel_size=((4.4, 3.4), (2.9, 2.3)),
        ),
    }
)  # fmt: skip
"""Kind -> check; a name with `_grouped` after it is by levels, and brms's names are taken too."""


# Drawing ---------------------------------------------------------------------------------------------------------------


def pp_check(
    fit: Any,
    kind: str | None = None,
    *,
    group: str | None = None,
    n: int | None = None,
    stat: Any = None,
    target: str = "conditional",
    x: str | None = None,
    prob: float = 0.95,
    limit: int | None = None,
    seed: int | None = 1,
) -> Picture:
    """Compare the response with replicates, responses simulated from a fit (posterior predictive checks).

    Source: Gabry et al. (2019), J. R. Stat. Soc. A 182(2); rootograms: Kleiber & Zeileis (2016), Am. Stat. 70(3); the band by
    Säilynoja, Bürkner & Vehtari (2022), Stat. Comput. 32, 32. LOO-PIT values of few rows depend on each other a little, which the
    band leaves out.

    Parameters
    ----------
    fit
        A fit of either engine, or a comparison: a panel each. Replicates of a posterior are each of a draw of all parameters; those
        of a classical fit are of its estimates, which leaves their uncertainty out.
    kind
        `"density"` (the default of a continuous response), `"ecdf"`, `"histogram"`, `"bars"` (the default of one with few whole
        values), `"rootogram"` (hanging; the default of other counts), `"stat"` (a statistic with its posterior predictive p value,
        P(T(y_rep) > T(y)), ties halved), `"pit"` (PIT-ECDF with a simultaneous band; leave-one-out where the log-likelihood is at
        hand), `"loo_pit"`, `"intervals"` (row by row), `"error"` (average errors), `"calibration"` (of probabilities). With
        `_grouped` after it, by levels of `group`, or of the first grouping factor. The names in brms's `pp_check` are taken too.
    group
        A grouping factor of the model, or a column of its data: a panel for each level (`"stat"`: a line for each).
    n
        Number of replicates (default: 50 for curves, 200 to 1000 for intervals; fewer where rows are very many).
    stat
        Of kind `"stat"`: `"mean"`, `"sd"`, `"min"`, `"max"`, `"median"`, `"zeros"` (share of rows that are 0), a function from a
        response (rows,) to a number, or a list of these.
    target
        `"conditional"`: replicates of the fitted groups; `"new_group"`: random effects drawn anew from the fitted population.
    x
        Of kinds `"intervals"` and `"error"`: the column of the data on the horizontal axis (default: the prediction).
    prob
        Probability of intervals and bands.
    limit
        At most so many panels, or levels (`"stat"`) or rows (`"intervals"`), spread evenly.
    seed
        Same seed, same figure.

    Returns
    -------
    Picture
        A matplotlib figure that also has `.alt` (text for those who cannot see it) and `.data` (the frame it shows).

    Raises
    ------
    FitError
        The kind or an option is unknown, or the kind does not fit the response: the sentence says why.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> bl.pp_check(fit, "stat", group="Subject", stat="sd", n=200).data["level"].nunique()
    18
    """
    return plot(fit, "ppc", check=kind, group=group, n=n, stat=stat, target=target, x=x, prob=prob, limit=limit, seed=seed)


def draw(
    source: Source,
    *,
    check: str | None = None,
    group: str | None = None,
    n: int | None = None,
    stat: Any = None,
    target: str = "conditional",
    x: str | None = None,
    prob: float = 0.95,
    limit: int | None = None,
    seed: int | None = 1,
) -> Picture:
    """Draw a predictive check of every fit; `check` is the kind, the others as `pp_check` says.

    Parameters
    ----------
    source
        The fits.
    """
    model = source.model
    name, group = _named(check, group, model)
    entry = CHECKS[name]
    for option, value in (("stat", stat), ("x", x)):
        if value is not None and option not in entry.options:
            those = " and ".join(repr(kind) for kind, other in CHECKS.items() if option in other.options)
            raise FitError(f"predictive check {name!r} has no option {option!r}; it is of {those}")
    refusal = entry.refuses(model)
    if refusal:
        raise FitError(f"predictive check {name!r} {refusal}; kinds that fit: {', '.join(_that_fit(source))}")
    request = Request(group=group, n=n, stat=stat, target=target, x=x, prob=prob, limit=limit, seed=seed)
    samples = [on_scale(model, entry.sample(fit, request, entry.n), proportions=entry.proportions) for fit in source.fits]
    view = View(
        model=model,
        request=request,
        labels=source.labels,
        y=samples[0][0],
        samples=tuple(sample for _, sample in samples),
        levels=None if group is None else levels_of(model, group),
        extent=extent(samples[0][0], [sample for _, sample in samples]),
        limit=limit or (entry.limit if group is None or "stat" in entry.options else _MOST_PANELS),
    )
    facets = _facets(entry, view)
    return _laid_out(entry, name, view, facets)


def _named(check: str | None, group: str | None, model: Model) -> tuple[str, str | None]:
    """Return the kind's own name and its group: defaults filled in, brms's names and the ending `_grouped` read."""
    if check is None:
        return ("bars" if _few(model) else "rootogram" if model.family.discrete else "density"), group
    asked = str(check)
    base = "stat" if asked == "grouped" else asked.removesuffix(_GROUPED)
    if base != asked and group is None:
        if not model.design.blocks:
            raise FitError(f"predictive check {asked!r} is by levels; name a column by group=")
        group = model.design.blocks[0].group
    names = {other: kind for kind, entry in CHECKS.items() for other in (kind, *entry.brms)}
    if base not in names:
        close = difflib.get_close_matches(base, list(names), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        raise FitError(f"there is no predictive check of kind {asked!r}{hint} (kinds: {', '.join(CHECKS)})")
    return names[base], group


def _that_fit(source: Source) -> list[str]:
    able = {kind: entry for kind, entry in CHECKS.items() if source.posteriors or entry.sample is not leave_one_out}
    return [kind for kind, entry in able.items() if not entry.refuses(source.model)]


def _facets(entry: PredictiveCheck, view: View) -> list[Facet]:
    """Return the panels in order: statistics, then levels, then fits."""
    fits = range(len(view.labels))
    if "stat" in entry.options:
        wanted = statistics_of(view.model, view.y, view.request.stat, grouped=view.levels is not None)
        return [view.facet(number, statistic=one) for one in wanted for number in fits]
    if view.levels is None:
        return [view.facet(number) for number in fits]
    rows = [(view.levels.labels[code], np.flatnonzero(view.levels.codes == code)) for code in shown_levels(view.levels, view.limit)]
    if not rows:
        raise FitError(f"'{view.levels.name}' is missing in every row used")
    return [view.facet(number, here, level=short(level)) for level, here in rows for number in fits]


def _laid_out(entry: PredictiveCheck, name: str, view: View, facets: Sequence[Facet]) -> Picture:
    fits = len(view.labels)
    rows, columns = _grid(len(facets), fits)
    width, height = entry.panel_size[len(facets) > 1]
    if view.levels is not None and "stat" in entry.options:
        shown = len(shown_levels(view.levels, view.limit))
        height = max(2.2, 0.6 + 0.17 * min(shown, LABELLED)) if shown <= LABELLED else 6.5
        width = max(width, 3.2)
    figure = Picture(figsize=(0.7 + width * columns, 0.9 + height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=entry.shared[0], sharey=entry.shared[1]).ravel()
    frames = [entry.panel(panel, facet, view) for panel, facet in zip(axes, facets, strict=False)]
    for panel in axes[len(facets) :]:
        panel.set_visible(False)
    for panel in axes[max(0, len(facets) - columns) : len(facets)]:
        panel.tick_params(labelbottom=True)
    x_label, y_label = entry.labels(view)
    figure.supxlabel(x_label, fontsize=9.5)
    figure.supylabel(y_label, fontsize=9.5)
    _legend(figure, axes[: len(facets)])
    said = [title for panel in axes[: len(facets)] if (title := panel.get_title(loc="left").replace("\n", ", "))]
    return figure.describe(_alt(entry, name, view, said), pd.concat(frames, ignore_index=True))


def _grid(panels: int, fits: int) -> tuple[int, int]:
    """Return rows and columns; the fits of one level or statistic stand side by side."""
    if fits == 1:
        return (2, 2) if panels == 4 else grid_shape(panels, 4)
    columns = fits * max(1, min(4 // fits, panels // fits))
    return -(-panels // columns), columns


def _legend(figure: Picture, axes: Array) -> None:
    """Give the figure one legend of all that any panel names."""
    found: dict[str, Any] = {}
    for panel in axes:
        for handle, label in zip(*panel.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    wide = figure.get_figwidth()
    columns = max(1, min(len(found), int(wide / 1.9)))
    figure.legend(handles=list(found.values()), labels=list(found), loc="outside upper center", ncols=columns)


def _alt(entry: PredictiveCheck, name: str, view: View, said: Sequence[str]) -> str:
    shown = "" if view.levels is None else f", by {view.levels.name} ({len(view.levels.labels)} levels)"
    groups = "the fitted groups" if view.request.conditional else "new groups"
    n = " and ".join(str(len(sample.simulated)) for sample in view.samples)
    blocks = f" of {groups}" if view.model.design.blocks else ""
    found = f" {'; '.join(said[:12])}." if said else ""
    return (
        f"Predictive check ({name}) of {view.model.design.response_name} by {' and '.join(view.labels)}{shown}: {entry.shows}; "
        f"{n} responses simulated{blocks}.{found}"
    )
