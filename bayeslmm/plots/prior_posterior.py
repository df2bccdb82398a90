"""The prior of every parameter beside its posterior: exact prior densities where there are any, else draws from the prior."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import FitError
from bayeslmm.plots.common import Source, grid_shape
from bayeslmm.plots.picture import COLOURS, INK, Picture
from bayeslmm.plots.ppc_shapes import kde
from bayeslmm.priors import INTERCEPT, Distribution, bounds, log_density

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.model import Model
    from bayeslmm.priors import PriorRow

__all__ = ["draw"]

type Array = np.ndarray

_PRIOR_DRAWS = 4000
_WIDER = 3.0
"""How many widths of the posterior the axis goes beyond it, where the prior does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """A parameter: name, the prior in words, draws (S,) of its posterior, its range, and the prior's density (None: improper)."""

    name: str
    prior: str
    draws: Array
    lower: float
    upper: float
    density: Callable[[Array], Array] | None


def draw(source: Source, *, limit: int = 16) -> Picture:
    """Draw prior and posterior density of each parameter on the prior's scale, the intercept that of the centred predictors.

    A posterior as wide as its prior says that the data tell little; one in the prior's tail, that the two disagree.

    Parameters
    ----------
    source
        Fits, of which one is a posterior; the first such is drawn.
    limit
        At most so many parameters.
    """
    if not source.posteriors:
        raise FitError(
            f"figure 'prior_posterior' shows draws of a posterior, and {' and '.join(source.labels)} has none; fit with `brm` or `fit`"
        )
    label, tree = source.posteriors[0]
    every = list(_pairs(source.model, tree["posterior"].to_dataset()))
    pairs = every[:limit]
    if not pairs:
        raise FitError("every parameter of the model is held constant, so that there is no prior to draw")
    rows, columns = grid_shape(len(pairs), 4)
    figure = Picture(figsize=(0.4 + 2.25 * columns, 0.7 + 1.75 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    parts = [_panel(panel, pair) for panel, pair in zip(panels, pairs, strict=False)]
    for panel in panels[len(pairs) :]:
        panel.set_visible(False)
    handles = {text: handle for panel in panels for handle, text in zip(*panel.get_legend_handles_labels(), strict=True)}
    figure.legend(handles=list(handles.values()), labels=list(handles), loc="outside upper center", ncols=2)
    more = f" ({len(pairs)} of {len(every)} parameters)" if len(pairs) < len(every) else ""
    alt = f"Prior and posterior density by {label}{more}: {'; '.join(f'{pair.name}, prior {pair.prior}' for pair in pairs)}."
    return figure.describe(alt, pd.concat(parts, ignore_index=True))


# The parameters --------------------------------------------------------------------------------------------------------


def _pairs(model: Model, posterior: Any) -> Iterator[_Pair]:
    """Yield every parameter that has a prior of its own, then correlations, then coefficients under one prior of them all."""
    from bayeslmm.bayes.prior_density import row_values

    for row, values in row_values(model, posterior):
        if row.part == "cor" or row.distribution.name == "constant":
            continue
        lower, upper = bounds(row, model.family)
        density = partial(_density, row.distribution, lower, upper) if row.distribution.proper else None
        yield _Pair(name=_name(model, row), prior=str(row), draws=values.ravel(), lower=lower, upper=upper, density=density)
    yield from _correlations(model, posterior)
    yield from _joint(model, posterior)


def _density(distribution: Distribution, lower: float, upper: float, x: Array) -> Array:
    return np.exp(log_density(distribution, x, lower, upper))


def _name(model: Model, row: PriorRow) -> str:
    if row.part == "sd":
        return f"sd {row.term} | {row.group}"
    centred = row.part == "intercept" and row.term in ("", INTERCEPT) and model.design.p > 1
    return f"{row.term or INTERCEPT}, centred" if centred else row.term


def _correlations(model: Model, posterior: Any) -> Iterator[_Pair]:
    """Yield each correlation; under LKJ(eta) of k effects it is Beta(eta - 1 + k/2) on (-1, 1).

    Source: Lewandowski, Kurowicka & Joe (2009), J. Multivar. Anal. 100. Structures with one correlation: Beta(eta, eta) over its range.
    """
    from bayeslmm.bayes.translate import factors, has_correlation, rows_of

    for factor in factors(model):
        rows = iter(rows_of(model, "cor", factor.parameter, factor.group))
        for block, columns, structure in zip(factor.blocks, factor.columns, factor.structures, strict=True):
            if not has_correlation(block, structure):
                continue
            row, k = next(rows), len(columns)
            matrices = posterior[f"cor_{factor.label}"].transpose("chain", "draw", ...).to_numpy()
            eta = row.distribution.args[0]
            shape = eta - 1.0 + k / 2.0 if structure.linear else eta
            low, high = (-1.0, 1.0) if structure.linear else (float(structure.lower(k)[-1]), float(structure.upper(k)[-1]))
            stretched = partial(_stretched, Distribution(name="beta", args=(shape, shape)), low, high)
            places = list(combinations(range(k), 2)) if structure.linear else [(0, 1)]
            for j, i in places:
                yield _Pair(
                    name=f"cor {block.effects[i]}.{block.effects[j]} | {factor.group}",
                    prior=str(row),
                    draws=matrices[:, :, columns[i], columns[j]].ravel(),
                    lower=low,
                    upper=high,
                    density=stretched,
                )


def _stretched(distribution: Distribution, low: float, high: float, x: Array) -> Array:
    return np.exp(log_density(distribution, (x - low) / (high - low), 0.0, 1.0)) / (high - low)


def _joint(model: Model, posterior: Any) -> Iterator[_Pair]:
    """Yield the coefficients under a prior of all of them together (horseshoe, R2D2), whose density is that of draws."""
    rows = [row for row in model.prior_rows if row.part == "fixed" and not row.parameter and row.distribution.kind.joint]
    if not rows:
        return
    from bayeslmm.bayes.prior_predictive import prior_draws

    names = list(model.design.fixed_names)
    drawn = prior_draws(model, _PRIOR_DRAWS, np.random.default_rng(0))["b"].to_numpy()[0]
    b = posterior["b"].transpose("chain", "draw", ...).to_numpy()
    for row in rows:
        at = names.index(row.term)
        values = b[:, :, at].ravel()
        yield _Pair(
            name=row.term, prior=f"{row.distribution.name}, draws", draws=values, lower=-np.inf, upper=np.inf,
            density=partial(_of_draws, drawn[:, at]),
        )  # fmt: skip


def _of_draws(values: Array, x: Array) -> Array:
    at, height = kde(values, float(x[0]), float(x[-1]))
    return np.asarray(np.interp(x, at, height))


# A panel ---------------------------------------------------------------------------------------------------------------


def _panel(panel: Axes, pair: _Pair) -> pd.DataFrame:
    low, high = _window(pair)
    x, posterior = kde(pair.draws, low, high)
    panel.fill_between(x, posterior, color=COLOURS[0], alpha=0.25, lw=0)
    panel.plot(x, posterior, color=COLOURS[0], lw=1.6, label="posterior")
    prior = np.full(len(x), np.nan)
    if pair.density is not None:
        prior = pair.density(x)
        panel.plot(x, prior, color=INK, lw=1.3, ls="--", label="prior")
    tallest = np.nanmax(np.where(np.isfinite(prior), prior, 0.0), initial=0.0)
    panel.set_ylim(0, 1.08 * min(max(float(posterior.max()), float(tallest)), 3.0 * float(posterior.max())))
    panel.set_yticks([])
    panel.spines["left"].set_visible(False)
    panel.locator_params(axis="x", nbins=4)
    name = "\n| ".join(pair.name.split(" | "))
    said = pair.prior if pair.density is not None else f"{pair.prior}: improper"
    panel.text(
        0.0, 1.0, said if len(said) <= 34 else said[:33] + "…", transform=panel.transAxes, fontsize=7.5, va="bottom", color="#444444"
    )
    panel.set_title(f"{name}\n", loc="left", fontsize=9)
    return pd.DataFrame({"parameter": pair.name, "x": x, "prior": prior, "posterior": posterior})


def _window(pair: _Pair) -> tuple[float, float]:
    """Return the range of the axis: the posterior, and the prior's middle where it lies not too far off."""
    low, high = (float(end) for end in np.quantile(pair.draws, [0.001, 0.999]))
    width = high - low or abs(high) or 1.0
    low, high = low - 0.15 * width, high + 0.15 * width
    if pair.density is not None:
        x = np.linspace(low - _WIDER * width, high + _WIDER * width, 1001)
        height = pair.density(x)
        height = np.where(np.isfinite(height), height, 0.0)
        inside = x[height > 0.05 * height.max()] if height.max() > 0 else x[:0]
        if len(inside):
            low, high = min(low, float(inside[0])), max(high, float(inside[-1]))
    return max(low, pair.lower), min(high, pair.upper)
