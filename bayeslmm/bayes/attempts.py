"""A sampling that is mended once, and one that was cut short: a retry against divergences, another sampler, the draws before Ctrl-C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.samplers import Settings, sample
from bayeslmm.errors import FitError

if TYPE_CHECKING:
    from bayeslmm.model import Model

__all__ = ["RETRY_ACCEPT", "Sampled", "draw"]

RETRY_ACCEPT = 0.99
"""Target acceptance of the second attempt."""
FEWEST = 100
"""Draws in all below which an interrupted sampling is thrown away: too few for a mean, let alone an interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """What was drawn: the sampler's `raw` DataTree, by which `sampler` and `settings` (with the chains and draws that are there).

    `notes`: code -> sentence of all that did not go as asked: `retry`, `fallback`, `interrupted`.
    """

    raw: Any
    sampler: str
    settings: Settings
    notes: dict[str, str]


def draw(sampler: str, model: Model, names: Sequence[str], settings: Settings) -> Sampled:
    """Sample a model, and mend once what can be mended.

    Where transitions diverge and the settings leave it open (`retry`), the model is sampled again with target acceptance 0.99 and a
    seed that follows from the first. Where the sampler fails and the settings name another (`fallback`), that one samples. What was drawn
    before an interruption is kept.

    Raises
    ------
    FitError
        If the sampler fails, and the other too; if an interruption left fewer than 100 draws.
    """
    first = _with_fallback(sampler, model, names, settings)
    count = _divergences(first.raw)
    if not count or not settings.retry or "interrupted" in first.notes or settings.target_accept >= RETRY_ACCEPT:
        return first
    seed = int(np.random.SeedSequence([settings.seed, 1]).generate_state(1)[0] // 2)
    again = replace(settings, seed=seed, target_accept=RETRY_ACCEPT)
    before = f"{count} of {settings.chains * settings.draws} transitions diverged at target_accept={settings.target_accept:g}"
    try:
        second = _once(first.sampler, model, names, again)
    except (FitError, KeyboardInterrupt) as failure:
        why = "was interrupted" if isinstance(failure, KeyboardInterrupt) else f"failed ({failure})"
        return replace(first, notes=first.notes | {"retry": f"{before}; a second attempt at {RETRY_ACCEPT:g} {why}"})
    if "interrupted" in second.notes:
        return replace(first, notes=first.notes | {"retry": f"{before}; a second attempt at {RETRY_ACCEPT:g} was interrupted"})
    left = _divergences(second.raw)
    note = f"{before}, so the model was sampled again at {RETRY_ACCEPT:g}, where {left or 'none'} did"
    return replace(second, notes=first.notes | {"retry": note})


def _with_fallback(sampler: str, model: Model, names: Sequence[str], settings: Settings) -> Sampled:
    try:
        return _once(sampler, model, names, settings)
    except FitError as failure:
        if settings.fallback is None or isinstance(failure.__cause__, KeyboardInterrupt):
            raise
        try:
            other = _once(settings.fallback, model, names, settings)
        except FitError:
            raise failure from None
        return replace(other, notes=other.notes | {"fallback": f"{failure}; '{settings.fallback}' sampled in its place"})


def _once(sampler: str, model: Model, names: Sequence[str], settings: Settings) -> Sampled:
    """Sample once, and see whether all was drawn."""
    raw = sample(sampler, model, names, settings)
    sizes = raw["posterior"].sizes
    chains, length = sizes["chain"], sizes["draw"]
    if (chains, length) == (settings.chains, settings.draws):
        return Sampled(raw=raw, sampler=sampler, settings=settings, notes={})
    said = f"{length} of {settings.draws} draws in {chains} of {settings.chains} chain{'s' if settings.chains > 1 else ''}"
    if chains * length < FEWEST:
        message = f"sampling was interrupted after {said}: too few to keep (at least {FEWEST} in all)"
        raise FitError(message) from KeyboardInterrupt()
    kept = replace(settings, chains=chains, draws=length)
    return Sampled(raw=raw, sampler=sampler, settings=kept, notes={"interrupted": f"{said} are there"})


def _divergences(raw: Any) -> int:
    stats = raw["sample_stats"].to_dataset() if "sample_stats" in raw else {}
    return int(np.sum(stats["diverging"].values)) if "diverging" in stats else 0
