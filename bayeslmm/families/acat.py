"""Ordered levels, adjacent categories: P(y = k + 1 | y is k or k + 1) = F(eta - tau_k)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from bayeslmm.families._ordinal import Distribution, Operations, ordinal, running
from bayeslmm.families.base import Link
from bayeslmm.families.links import LINKS

__all__ = ["ACAT"]

type Array = np.ndarray


def _log_probabilities(on: Operations, latent: Distribution, eta: Any, taus: Sequence[Any]) -> list[Any]:
    """As brms: the product of F below the level and of 1 - F from it on, over the sum of these."""
    passed = running([latent.below(on, eta - tau) for tau in taus])
    stopped = running([latent.above(on, eta - tau) for tau in taus[::-1]])[::-1]
    weights = [up + down for up, down in zip(passed, stopped, strict=True)]
    total = reduce(on.logaddexp, weights)
    return [weight - total for weight in weights]


def _thresholds(counts: Array, link: Link) -> Array:
    return np.asarray(-link.link(counts[1:] / (counts[:-1] + counts[1:])))


ACAT = ordinal("acat", _log_probabilities, _thresholds, r"\mathrm{Acat}(\eta_i,\ \tau)", increasing=False)(3, LINKS["logit"])
