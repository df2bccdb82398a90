"""Draws of chosen parameters from their priors, by their place in the estimates, improper priors left out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.bayes.prior_predictive import improper_rows, prior_draws
from bayeslmm.bayes.summary import quantities
from bayeslmm.priors import Distribution

if TYPE_CHECKING:
    from bayeslmm.model import Model
    from bayeslmm.priors import PriorRow

__all__ = ["drawn_parameters"]

type Array = np.ndarray
type Key = tuple[str, str, str]

_CELLS = 10_000_000
"""Draws x random effects held at a time."""


def drawn_parameters(model: Model, wanted: Collection[Key], n: int, seed: int) -> Mapping[Key, Array]:
    """Return draws (n,) of parameters from their priors, by (part, group, term) of the estimates.

    Coefficients are those of the design as it is: an intercept whose prior is of the centred design is moved. Parameters that depend on an
    improper prior have no draws, and are left out.
    """
    improper = improper_rows(model)
    proper = model if not improper else replace(model, stated_priors=tuple(_held(row, improper) for row in model.prior_rows))
    rng = np.random.default_rng(seed)
    size = max(1, min(n, _CELLS // max(model.dims.q, 1)))
    found: dict[Key, list[Array]] = {}
    for start in range(0, n, size):
        for row in quantities(model, prior_draws(proper, min(size, n - start), rng)):
            key = (row.part, row.group, row.term)
            if key in wanted and not any(_depends(model, key, one) for one in improper):
                found.setdefault(key, []).append(row.draws.reshape(-1))
    return {key: np.concatenate(parts) for key, parts in found.items()}


def _held(row: PriorRow, improper: Collection[PriorRow]) -> PriorRow:
    return replace(row, distribution=Distribution(name="constant", args=(0.0,))) if row in improper else row


def _depends(model: Model, key: Key, row: PriorRow) -> bool:
    """Whether a parameter is that of a prior row, or shifted by it: by a slope, the intercept and the thresholds of the centred design."""
    part, group, term = key
    if row.part == "fixed" and part == "aux":
        return model.family.of_levels is not None and not row.parameter
    if row.part == "sd":
        return part == "sd" and group == row.group
    centred = {one.term for one in model.prior_rows if one.part == "intercept" and one.parameter == row.parameter}
    shifted = row.part == "fixed" and part == "fixed" and term in centred
    return shifted or ("fixed" if row.part == "intercept" else row.part, row.group, row.term) == key
