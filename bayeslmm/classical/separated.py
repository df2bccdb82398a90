"""Whether a fit's coefficients ran off because its fixed effects separate the response: asked only where they look as if they had."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.separation import Separation

__all__ = ["WAY_OUT", "separated"]

WAY_OUT = "the others hold; `glmer(..., penalty='jeffreys')` gives finite estimates, `brm` a posterior, whose priors keep it finite"
"""What to do, as checks and warnings end."""
_CERTAIN = 1e-4
"""A fitted mean closer than this to its limit, in a row whose likelihood is greatest there, may be on its way to it."""


def separated(fit: ClassicalFit) -> Separation | None:
    """Return what separates the response of a fit by the likelihood alone, or None.

    The linear program that decides is solved only where some row's mean, by the fixed effects, is next to its limit.
    """
    if not fit.generalised or fit.penalty is not None or fit.model.family.extremes is None:
        return None
    from bayeslmm.separation import extreme_rows, separation

    design = fit.model.design
    low, high = extreme_rows(fit.model)
    with np.errstate(all="ignore"):
        mu = fit.model.link.inverse(design.X @ fit.beta + design.offset)
    if not np.any((low & (mu < _CERTAIN)) | (high & (mu > 1.0 - _CERTAIN))):
        return None
    found = separation(fit.model, groups=False)
    return found if found.separated else None
