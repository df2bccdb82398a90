"""Ordered levels, continuation ratios: P(y > k | y >= k) = F(eta - tau_k), as of steps that go on past a level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bayeslmm.families._ordinal import Distribution, Operations, ordinal, running
from bayeslmm.families.base import Link
from bayeslmm.families.links import LINKS

__all__ = ["CRATIO"]

type Array = np.ndarray


def _log_probabilities(on: Operations, latent: Distribution, eta: Any, taus: Sequence[Any]) -> list[Any]:
    passed = running([latent.below(on, eta - tau) for tau in taus])
    return [*(latent.above(on, eta - tau) + before for tau, before in zip(taus, passed[:-1], strict=True)), passed[-1]]


def _thresholds(counts: Array, link: Link) -> Array:
    return np.asarray(-link.link(1.0 - counts[:-1] / np.cumsum(counts[::-1])[:0:-1]))


CRATIO = ordinal("cratio", _log_probabilities, _thresholds, r"\mathrm{CRatio}(\eta_i,\ \tau)", increasing=False)(3, LINKS["logit"])
