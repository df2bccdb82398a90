"""Pareto k-hat of every row or group that is left out: which ones the leave-one-out estimate cannot be trusted for."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.errors import ConvergenceWarning, FitError
from bayeslmm.plots.common import Source
from bayeslmm.plots.picture import COLOURS, INK, MUTED, Picture

__all__ = ["draw"]

MOST_LABELS = 6


def draw(source: Source, *, leave: str = "conditional", group: str | None = None) -> Picture:
    """Draw the Pareto k-hat of each row or group, those above the limit marked and the worst named.

    Parameters
    ----------
    source
        Fits, of which one is a posterior; the first such is drawn.
    leave
        What `loo` leaves out: `"conditional"`, `"marginal"` or `"group"`.
    group
        For `"group"`: the grouping factor, as `loo` takes it.
    """
    from bayeslmm.bayes import BayesFit
    from bayeslmm.bayes.loo import loo

    fit = next((one for one in source.fits if isinstance(one, BayesFit)), None)
    if fit is None:
        raise FitError(f"figure 'khat' is of a posterior, and {' and '.join(source.labels)} has none; fit with `brm` or `fit`")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        found: Any = loo(fit, kind=leave, group=group)
    values, limit = np.ravel(found.pareto_k.to_numpy()), float(found.good_k)
    dim = str(found.pareto_k.dims[0])
    names = [str(name) for name in (fit.model.design.index if dim == "obs" else found.pareto_k.coords[dim].to_numpy())]
    high = values > limit
    figure = Picture(figsize=(7.0, 3.0), layout="constrained")
    panel = figure.subplots()
    at = np.arange(len(values))
    panel.plot(at[~high], values[~high], "o", ms=3, mfc="none", mec=COLOURS[0], mew=0.8, label="trusted")
    if high.any():
        panel.plot(at[high], values[high], "D", ms=4.5, color=COLOURS[1], mec=INK, mew=0.5, label=f"above {limit:.2g}")
    panel.axhline(limit, color=INK, lw=0.9, ls="--", label=f"limit {limit:.2g}")
    panel.axhline(0, color=MUTED, lw=0.6)
    worst = np.argsort(-values, kind="stable")[: min(MOST_LABELS, int(high.sum()))]
    for one in worst:
        panel.annotate(names[one], (at[one], values[one]), xytext=(4, 3), textcoords="offset points", fontsize=7.5)
    panel.margins(x=0.03, y=0.12)
    panel.set_xlabel("row" if dim == "obs" else dim)
    panel.set_ylabel("Pareto k-hat")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=3)
    of = "rows" if dim == "obs" else f"levels of {dim}"
    alt = (
        f"Pareto k-hat of {len(values)} {of} left out one by one ({leave}): {int(high.sum())} above the limit of {limit:.2g}"
        f"{', the worst ' + ', '.join(names[one] for one in worst[:3]) if len(worst) else ''}."
    )
    return figure.describe(alt, pd.DataFrame({"left_out": names, "khat": values, "trusted": ~high}))
