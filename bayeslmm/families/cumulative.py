"""Ordered levels, cumulative: P(y <= k) = F(tau_k - eta), with increasing thresholds tau; proportional odds on the logit."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from bayeslmm.families._ordinal import Distribution, Operations, ordinal
from bayeslmm.families.base import Link
from bayeslmm.families.links import LINKS

__all__ = ["CUMULATIVE"]

type Array = np.ndarray


def _log_probabilities(on: Operations, latent: Distribution, eta: Any, taus: Sequence[Any]) -> list[Any]:
    at = [tau - eta for tau in taus]
    inside = [latent.between(on, low, high) for low, high in pairwise(at)]
    return [latent.below(on, at[0]), *inside, latent.above(on, at[-1])]


def _thresholds(counts: Array, link: Link) -> Array:
    return link.link(np.cumsum(counts)[:-1] / counts.sum())


_LATEX = r"\mathrm{Cumulative}(\eta_i,\ \tau)"

CUMULATIVE = ordinal("cumulative", _log_probabilities, _thresholds, _LATEX, increasing=True)(3, LINKS["logit"])
