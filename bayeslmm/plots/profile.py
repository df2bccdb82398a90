"""The profile of every parameter: zeta against its value, with intervals of several levels; a straight line would be a normal one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.stats import norm

from bayeslmm.classical.fit import ClassicalFit
from bayeslmm.errors import FitError
from bayeslmm.plots.common import Source, grid_shape
from bayeslmm.plots.picture import COLOURS, MUTED, Picture, style

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    from matplotlib.axes import Axes

    from bayeslmm.classical.profile import Profile

__all__ = ["draw", "draw_profile"]

LEVELS = (0.5, 0.8, 0.9, 0.95, 0.99)
WIDEST = 4


def draw(source: Source, *, parameters: Sequence[str] | str | None = None) -> Picture:
    """Profile the likelihood of a fit and draw it.

    Parameters
    ----------
    source
        Fits, of which one is by maximum likelihood or REML; the first such is profiled.
    parameters
        Names of parameters, as `bayeslmm.profile` takes them; None for all.

    Raises
    ------
    FitError
        There is no such fit, or no such parameter.
    """
    from bayeslmm.classical.profile import profile

    fit = next((one for one in source.fits if isinstance(one, ClassicalFit)), None)
    if fit is None:
        raise FitError(f"figure 'profile' shows a likelihood, and {' and '.join(source.labels)} has none; fit with `lmer` or `fit`")
    return draw_profile(profile(fit, parameters))


def draw_profile(profile: Profile) -> Picture:
    """Draw a panel for each parameter: the signed root of the rise of the deviance, and the limits where it crosses a quantile.

    Parameters
    ----------
    profile
        What `bayeslmm.profile` returned.
    """
    names = [name for name in profile.parameters if (profile.table["parameter"] == name).sum() > 1]
    rows, columns = grid_shape(max(len(names), 1), WIDEST)
    with style():
        figure = Picture(figsize=(0.4 + 2.1 * columns, 0.7 + 1.9 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
        for panel, name in zip(grid, names, strict=False):
            _panel(panel, profile.table[profile.table["parameter"] == name], name)
        for panel in grid[len(names) :]:
            panel.set_axis_off()
        figure.supylabel("zeta", fontsize=9)
        levels = ", ".join(f"{level:.0%}" for level in LEVELS)
        alt = (
            f"Profile zeta of {len(names)} parameters ({profile.note}): the straighter the line, the closer the likelihood is to a "
            f"normal one; vertical lines are the limits of {levels} intervals, the darkest 95%."
        )
        return figure.describe(alt, profile.table.copy())


def _panel(panel: Axes, points: pd.DataFrame, name: str) -> None:
    points = points.drop_duplicates("value").sort_values("value")
    value, zeta = points["value"].to_numpy(dtype=float), points["zeta"].to_numpy(dtype=float)
    if len(value) < 2:
        panel.text(0.5, 0.5, "no profile", transform=panel.transAxes, ha="center", va="center", color=MUTED)
        panel.set_title("\n| ".join(name.split("|")), fontsize=9)
        return
    fine = np.linspace(value[0], value[-1], 200)
    panel.plot(fine, PchipInterpolator(value, zeta)(fine), color=COLOURS[0])
    panel.axhline(0.0, color=MUTED, lw=0.6, zorder=0)
    rising = np.append(True, np.diff(np.maximum.accumulate(zeta)) > 0.0)
    inverse = PchipInterpolator(zeta[rising], value[rising], extrapolate=False) if np.count_nonzero(rising) > 1 else None
    for level in LEVELS:
        for side in (-1.0, 1.0):
            cutoff = side * float(norm.ppf(0.5 + level / 2.0))
            at = float("nan") if inverse is None else float(inverse(cutoff))
            if np.isfinite(at):
                panel.vlines(at, min(cutoff, 0.0), max(cutoff, 0.0), color=COLOURS[1] if level == 0.95 else MUTED, lw=1.0)
    panel.set_title("\n| ".join(name.split("|")), fontsize=9)
    panel.locator_params(axis="x", nbins=4)
