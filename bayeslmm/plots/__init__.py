"""Figures of fits and comparisons: one file a kind, the kinds in one table, matplotlib loaded only when one is drawn."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bayeslmm.errors import FitError, suggest

if TYPE_CHECKING:
    from bayeslmm.plots.picture import Picture

__all__ = ["KINDS", "compare_plot", "plot"]

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "fitted": "data with the fitted lines, a panel per group",
        "effects": "what the fit predicts as each predictor changes, the others typical (conditional effects)",
        "ranef": "random effects of every level with their intervals (caterpillar)",
        "residuals": "residuals against fitted values, and their normal quantiles",
        "estimates": "estimates of all fits side by side on a standardised scale (forest)",
        "profile": "profile likelihood of every parameter: the straighter its line, the closer to a normal one",
        "trace": "density and trace of every parameter's draws, chain by chain",
        "rank": "rank ECDF of every parameter's draws, chain by chain (ArviZ)",
        "pairs": "draws of every two parameters against each other, divergent transitions marked",
        "energy": "the sampler's energy and its changes, chain by chain, with E-BFMI",
        "prior_posterior": "the prior of every parameter beside its posterior",
        "khat": "Pareto k-hat of every row or group left out: where leave-one-out cannot be trusted",
        "prior_predictive": "responses that the priors alone imply, beside the data (of a model, or of a fit's)",
        "ppc": "the response beside responses simulated from the fit",
    }
)
"""Kind -> what it shows; each is drawn by `draw(source, **options)` of the module of that name in this package."""


OF_MODELS = ("prior_predictive",)
"""The kinds that are drawn of a model, whether it is fitted or not."""


def plot(obj: Any, kind: str, **options: Any) -> Picture:
    """Draw a figure of a fit, or of all fits of a comparison together.

    Parameters
    ----------
    obj
        A fit, or a `Comparison`; for `prior_predictive` a `Model` too.
    kind
        One of `KINDS`: `fitted effects ranef residuals estimates profile trace rank pairs energy prior_posterior khat
        prior_predictive ppc`.
    **options
        Options of that kind, as its `draw` function states them: `group`, `x`, `limit`, `prob`, `seed`, `parameters`, `variables`,
        `target`, `points`, `leave`, `draws`; of `ppc` those of `pp_check`, whose `kind` is `check` here.

    Returns
    -------
    Picture
        A matplotlib figure that also has `.alt` (text for those who cannot see it) and `.data` (the frame it shows).

    Raises
    ------
    FitError
        The kind or an option is unknown, or the figure needs posterior draws that no fit has.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> bl.plot(fit, "ranef").data.shape
    (36, 7)
    """
    if kind not in KINDS:
        raise FitError(f"there is no figure of kind {kind!r}{suggest(str(kind), list(KINDS))} (kinds: {', '.join(KINDS)})")
    from bayeslmm.plots.common import source_of
    from bayeslmm.plots.picture import style

    draw = import_module(f"bayeslmm.plots.{kind}").draw
    known = [name for name, parameter in inspect.signature(draw).parameters.items() if parameter.kind is parameter.KEYWORD_ONLY]
    for name in options:
        if name not in known:
            raise FitError(f"figure {kind!r} has no option {name!r}{suggest(name, known)}")
    source = source_of(obj)
    if not source.fits and kind not in OF_MODELS:
        raise FitError(f"figure {kind!r} is of a fit: fit the model first (of a model alone: {', '.join(OF_MODELS)})")
    with style():
        picture: Picture = draw(source, **options)
    return picture


def compare_plot(comparison: Any) -> Picture:
    """Draw the estimates of a comparison's fits side by side, standardised by the first fit: a forest plot."""
    return plot(comparison, "estimates")
