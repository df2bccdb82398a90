"""PIT-ECDF: where the observed responses lie among their replicates, with a simultaneous band; leave-one-out where that can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from bayeslmm.errors import FitError
from bayeslmm.plots.picture import COLOURS, INK, MUTED
from bayeslmm.plots.ppc_view import MOST_CELLS, Request, Sample, replicated
from bayeslmm.prediction import generator, replicates_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bayeslmm.fit import Fit
    from bayeslmm.plots.ppc_view import Facet, View

__all__ = ["band", "leave_one_out", "leave_one_out_if_possible", "pit"]

type Array = np.ndarray

_POINTS = 200
_KHAT_LIMIT = 0.7
_BAND_SIMULATIONS = 2000


def pit(panel: Axes, facet: Facet, view: View) -> pd.DataFrame:
    """Draw the ECDF of the PIT values less that of a uniform variable, in the simultaneous band of independent uniform values."""
    values = _pit_values(facet, view)
    points = np.arange(1, min(len(values), _POINTS)) / min(len(values), _POINTS) if len(values) > 1 else np.array([0.5])
    low, high = band(len(values), points, view.request.prob, seed=0)
    seen = np.searchsorted(np.sort(values), points, side="right") / len(values)
    out = (seen < low) | (seen > high)
    ends = np.concatenate([[0.0], points, [1.0]])
    lower, upper = (np.concatenate([[0.0], side - points, [0.0]]) for side in (low, high))
    panel.fill_between(ends, lower, upper, color=MUTED, alpha=0.3, lw=0, label=f"{view.request.prob:.0%} band, simultaneous")
    panel.axhline(0, color=MUTED, lw=0.8)
    panel.plot(ends, np.concatenate([[0.0], seen - points, [0.0]]), color=COLOURS[0], lw=1.5, label="observed")
    if out.any():
        panel.plot(points[out], (seen - points)[out], "D", ms=3, color=COLOURS[1], mec=INK, mew=0.3, label="outside the band")
    panel.set_xlim(0, 1)
    panel.set_title(view.title(facet, _said(facet, bool(out.any()))), loc="left")
    frame = pd.DataFrame({"row": view.model.design.index[facet.rows], "pit": values, "fit": facet.label, "level": facet.level})
    return frame if facet.sample.khat is None else frame.assign(khat=facet.sample.khat)


def _said(facet: Facet, leaves: bool) -> str:
    """Return what the panel says: which PIT, whether it leaves the band, and how many rows have a doubtful leave-one-out value."""
    khat = facet.sample.khat
    said = f"{'PIT' if khat is None else 'LOO-PIT'} {'leaves' if leaves else 'within'} the band"
    doubtful = 0 if khat is None else int(np.sum(khat > _KHAT_LIMIT))
    return f"{said}\n{doubtful} of {len(facet.y)} rows with k-hat > {_KHAT_LIMIT}" if doubtful else said


def _pit_values(facet: Facet, view: View) -> Array:
    """Return the PIT (m,): the share of replicates below the observed response, ties broken at random."""
    if facet.sample.pit is not None:
        return facet.sample.pit
    below, equal = np.sum(facet.simulated < facet.y, axis=0), np.sum(facet.simulated == facet.y, axis=0)
    u = generator(view.request.seed).spawn(1)[0].random(len(below))
    return np.asarray((below + u * (equal + 1.0)) / (len(facet.simulated) + 1.0))


def band(n: int, points: Array, prob: float, *, seed: int) -> tuple[Array, Array]:
    """Return lower and upper limits (K,) that the ECDF of n independent uniform values keeps at all points with a probability.

    The limits are quantiles of the binomial distribution at each point, at the level that the share `prob` of simulated ECDFs keeps.
    Source: Säilynoja, Bürkner & Vehtari (2022), Statistics and Computing 32, 32, algorithm 1. (ArviZ's `ecdf_pit` leaves out the
    upper tail of simulated ECDFs that start with 0.)
    """
    steps = np.diff(np.concatenate([[0.0], points, [1.0]]))
    counts = np.random.default_rng(seed).multinomial(n, steps, size=_BAND_SIMULATIONS)[:, :-1].cumsum(axis=1)
    tails = np.minimum(binom.cdf(counts, n, points), binom.sf(counts - 1, n, points))
    level = np.quantile(tails.min(axis=1), 1.0 - prob, method="lower") * (1.0 - 1e-9)
    return np.asarray(binom.ppf(level, n, points)) / n, np.asarray(binom.isf(level, n, points)) / n


def leave_one_out(fit: Fit, request: Request, default: int) -> Sample:
    """Return replicates at the posterior's own draws, and the PIT of each row given all others, by Pareto smoothed importance sampling.

    Raises
    ------
    FitError
        The fit is no posterior with a log-likelihood at hand, or the replicates have new groups.
    """
    reason = _cannot(fit, request)
    if reason:
        raise FitError(f"a leave-one-out PIT {reason}; kind 'pit' does without")
    return _smoothed(fit, request)


def leave_one_out_if_possible(fit: Fit, request: Request, default: int) -> Sample:
    """Return what `leave_one_out` does where it can, else replicates, whose PIT has seen each row before."""
    return replicated(fit, request, default) if _cannot(fit, request) else _smoothed(fit, request)


def _cannot(fit: Fit, request: Request) -> str:
    """Return why a leave-one-out PIT cannot be, or nothing."""
    tree: Any = getattr(fit, "tree", None)
    if tree is None:
        return f"is of a posterior, and {fit.method} has no draws"
    if "log_likelihood" not in tree:
        return "needs the log-likelihood of every row at every draw, which this posterior does not hold"
    if not request.conditional:
        return "is about the fitted groups, not target='new_group'"
    return ""


def _smoothed(fit: Any, request: Request) -> Sample:
    import arviz_stats  # noqa: F401  (registers the accessor)
    import xarray as xr

    likelihood = fit.tree["log_likelihood"]["y"].transpose("chain", "draw", ...)
    chains, length, rows = likelihood.shape
    wanted = request.n if request.n is not None else min(chains * length, max(400, MOST_CELLS // max(rows, 1)))
    step = max(1, -(-chains * length // wanted))
    some = likelihood[:, ::step]
    picked = np.arange(chains * length).reshape(chains, length)[:, ::step]
    draws = fit.draws().take(picked.ravel())
    parts = [part for _, part in replicates_of(fit.model, draws, conditional=True, rng=generator(request.seed))]
    simulated = np.concatenate(parts, axis=1)
    dims = ("chain", "draw", "obs")
    drawn = xr.DataArray(simulated.reshape(*picked.shape, rows), dims=dims)
    ratios = xr.DataArray(-some.to_numpy(), dims=dims)
    accessor: Any = drawn.azstats
    found, khat = accessor.loo_pit(xr.DataArray(fit.model.design.y, dims="obs"), log_ratios=ratios, random_state=request.seed)
    return Sample(simulated=simulated, pit=np.clip(found.to_numpy(), 0.0, 1.0), khat=khat.to_numpy())
