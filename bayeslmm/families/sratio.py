"""Ordered levels, stopping ratios: P(y = k | y >= k) = F(tau_k - eta), as of steps that stop at a level."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bayeslmm.families._ordinal import Distribution, Operations, ordinal, running
from bayeslmm.families.base import Link
from bayeslmm.families.links import LINKS

__all__ = ["SRATIO"]

type Array = np.ndarray


def _log_probabilities(on: Operations, latent: Distribution, eta: Any, taus: Sequence[Any]) -> list[Any]:
    passed = running([latent.above(on, tau - eta) for tau in taus])
    return [*(latent.below(on, tau - eta) + before for tau, before in zip(taus, passed[:-1], strict=True)), passed[-1]]


def _thresholds(counts: Array, link: Link) -> Array:
    return link.link(counts[:-1] / np.cumsum(counts[::-1])[:0:-1])


SRATIO = ordinal("sratio", _log_probabilities, _thresholds, r"\mathrm{SRatio}(\eta_i,\ \tau)", increasing=False)(3, LINKS["logit"])
