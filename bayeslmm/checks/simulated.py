"""Monte-Carlo tests: a statistic of the observed responses among the same of responses simulated from the fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.errors import FitError
from bayeslmm.prediction import generator, replicates

if TYPE_CHECKING:
    from bayeslmm.fit import Fit

__all__ = ["ALTERNATIVES", "LEVEL", "ranked", "single_trials", "stacked", "tail"]

type Array = np.ndarray

ALTERNATIVES = ("greater", "less", "two-sided")
LEVEL = 0.05
"""Level of every test."""
_BLOCK = 2_000_000
"""Ranks held at a time."""


def stacked(fit: Fit, n: int, *, conditional: bool, seed: int) -> Iterator[tuple[slice, Array]]:
    """Yield observed and n simulated responses, some rows at a time: which rows, and responses (n + 1, m), the observed ones first."""
    y = fit.model.design.y
    for here, simulated in replicates(fit, n, conditional=conditional, rng=generator(seed)):
        yield here, np.concatenate([y[None, here], simulated])


def ranked(fit: Fit, n: int, *, conditional: bool, seed: int) -> Iterator[tuple[slice, Array, Array]]:
    """Yield the responses of `stacked` with their ranks 0 .. n within their row, ties of counts broken at random, some rows at a time.

    Where the model holds and its parameters are known, the n + 1 sets of ranks are exchangeable, whatever depends on what within a
    response: a statistic of the observed one is a draw from the distribution of that of the simulated ones.
    """
    ties = generator(seed).spawn(1)[0] if fit.model.family.discrete else None
    size = max(1, _BLOCK // (n + 1))
    for here, values in stacked(fit, n, conditional=conditional, seed=seed):
        for start in range(here.start, here.stop, size):
            stop = min(start + size, here.stop)
            some = values[:, start - here.start : stop - here.start]
            yield slice(start, stop), some, _ranks(some if ties is None else some + ties.random(some.shape))


def _ranks(values: Array) -> Array:
    """Return the ranks (S, m) of values (S, m) within their column."""
    order = np.argsort(np.ascontiguousarray(values.T), axis=1)
    ranks = np.empty(order.shape, dtype=np.int64)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(len(values)), order.shape), axis=1)
    return ranks.T


def tail(observed: float, simulated: Array, alternative: str) -> float:
    """Return the p value of an observed statistic among n simulated ones, (1 + number as extreme) / (1 + n).

    Source: Davison & Hinkley (1997), Bootstrap Methods and their Application, section 4.2.
    """
    if alternative not in ALTERNATIVES:
        raise FitError(f"alternative must be one of {', '.join(map(repr, ALTERNATIVES))}, not {alternative!r}")
    total = len(simulated) + 1.0
    greater, less = ((1.0 + float(np.sum(extreme))) / total for extreme in (simulated >= observed, simulated <= observed))
    return {"greater": greater, "less": less, "two-sided": min(1.0, 2.0 * min(greater, less))}[alternative]


def single_trials(fit: Fit) -> bool:
    """Say whether each row is one trial or one of some levels, so that its mean says all about it."""
    trials = fit.model.design.trials
    return fit.model.family.takes_levels and (trials is None or bool(np.all(trials == 1)))
