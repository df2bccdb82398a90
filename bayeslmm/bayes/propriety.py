"""Whether flat priors leave a posterior: each reason why they do not is a function in `REASONS`; the first is an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.errors import PriorError
from bayeslmm.priors import INTERCEPT, bounds

if TYPE_CHECKING:
    from bayeslmm.model import Model
    from bayeslmm.priors import PriorRow

__all__ = ["REASONS", "refuse_improper"]

type Array = np.ndarray

_LEVELS = 3
"""Levels that bound a standard deviation under a flat prior (Gelman 2006, Bayesian Analysis 1)."""
_FAR = (1e6, 1e9)
"""Two values of a parameter at which a likelihood that has a limit has reached it."""


def refuse_improper(model: Model) -> None:
    """Refuse priors under which the model has no posterior.

    Raises
    ------
    PriorError
        With the prior, what the data lack, and what to do.
    """
    flat = [row for row in model.prior_rows if not row.distribution.proper]
    if not flat:
        return
    for reason in REASONS:
        said = reason(model, flat)
        if said is not None:
            raise PriorError(f"{said}: there is no proper posterior; give it a proper prior")


def _few_levels(model: Model, flat: list[PriorRow]) -> str | None:
    """A standard deviation of few levels, or of few whose rows differ in outcome: the likelihood hardly falls where it grows."""
    from bayeslmm.separation import extreme_rows

    low, high = extreme_rows(model)
    for row in flat:
        for block in model.design.blocks if row.part == "sd" and not row.parameter else ():
            if block.group == row.group and row.term in block.effects:
                same = [_all_of_levels(extreme, block.index, block.n_levels) for extreme in (low, high)]
                mixed = int(np.sum(~(same[0] | same[1])))
                if block.n_levels < _LEVELS:
                    return f"flat() on sd {row.term} of '{row.group}' with {block.n_levels} levels"
                if mixed < _LEVELS:
                    return f"flat() on sd {row.term} of '{row.group}', of whose {block.n_levels} levels only {mixed} have both outcomes"
    return None


def _all_of_levels(rows: Array, index: Array, n_levels: int) -> Array:
    """Return which levels have nothing but such rows."""
    return np.asarray(np.bincount(index, weights=~rows, minlength=n_levels) == 0)


def _separated(model: Model, flat: list[PriorRow]) -> str | None:
    """Coefficients that grow without bound where they separate the response (Albert & Anderson 1984)."""
    from bayeslmm.separation import extreme_rows, separation
    from bayeslmm.separation.kernel import separate

    own = [row for row in flat if row.part in ("intercept", "fixed") and not row.parameter]
    names = [row.term for row in own if row.part == "fixed"]
    low, high = extreme_rows(model)
    if not own or not (low.any() or high.any()):
        return None
    fixed = model.design.fixed
    centred = any(row.part == "intercept" and not row.parameter for row in model.prior_rows)
    X = fixed.X - fixed.X.mean(axis=0) if centred else fixed.X
    columns = [X[:, [fixed.names.index(name)]] for name in names]
    columns += [np.ones((len(X), 1))] if len(own) > len(names) else []
    if separate(np.hstack(columns), low, high) is None:
        return None
    found = separation(model, groups=False)
    shown = ", ".join([*names, *([INTERCEPT] if len(own) > len(names) else [])])
    return f"flat() on {shown} and a response that is separated ({found.sentence})"


def _limit_of_likelihood(model: Model, flat: list[PriorRow]) -> str | None:
    """A further parameter whose likelihood tends to a limit above 0: Student's t becomes normal, overdispersion vanishes."""
    family, design = model.family, model.design
    if family.of_levels is not None:
        return None
    mu = np.full(design.n, float(np.mean(family.start(design.y, design.trials))))
    start = {one.name: 1.0 for one in family.parameters} | dict(family.start_parameters(design.y, design.trials))
    for row in flat:
        if row.part != "aux" or np.isfinite(bounds(row, family)[1]):
            continue
        with np.errstate(all="ignore"):
            near, far = (
                float(np.sum(family.loglik(design.y, mu, {k: np.full(1, v) for k, v in (start | {row.term: a}).items()}, design.trials)))
                for a in _FAR
            )
        if np.isfinite(near) and abs(far - near) < 1e-3 * design.n:
            return f"flat() on {row.term}, whose likelihood does not fall as it grows"
    return None


def _few_rows(model: Model, flat: list[PriorRow]) -> str | None:
    """A residual scale of a model with as many flat coefficients as rows."""
    scale = [row for row in flat if row.part == "aux" and row.term == model.family.scale]
    coefficients = sum(row.part in ("intercept", "fixed") and not row.parameter for row in flat)
    if scale and model.design.n - coefficients < 2:
        return f"flat() on {scale[0].term} of {model.design.n} rows with {coefficients} flat coefficients"
    return None


REASONS: tuple[Callable[[Model, list[PriorRow]], str | None], ...] = (_few_levels, _separated, _limit_of_likelihood, _few_rows)
"""Why there may be no posterior: functions of a model and its flat prior rows that say so, None where it is not so."""
