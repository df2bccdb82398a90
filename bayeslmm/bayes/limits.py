"""Why a sampler with a kernel of its own cannot sample a model: the reasons of its list, or a prior that the kernels do not know."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bayeslmm.model import Model

__all__ = ["Limits", "first_of"]

type Limits = tuple[tuple[str, Callable[[Model], bool]], ...]


def first_of(limits: Limits, model: Model) -> str | None:
    """Return the first reason that a model has, of a list of reasons and whether a model has them; None where it has none."""
    from bayeslmm.bayes.collapsed_priors import FORMS

    for reason, present in limits:
        if present(model):
            return reason
    for row in model.prior_rows:
        name = row.distribution.name
        if name not in FORMS and name != ("lkj" if row.part == "cor" else "constant"):
            return f"the prior {row.distribution} is not among those that it knows"
    return None
