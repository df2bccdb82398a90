"""Rank ECDF of every parameter's draws, chain by chain, as ArviZ draws it: the lines of chains that mix stay in the band."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.errors import FitError
from bayeslmm.plots.common import Source
from bayeslmm.plots.picture import Picture
from bayeslmm.plots.trace import the_posterior

__all__ = ["draw"]


def draw(source: Source, *, limit: int = 12) -> Picture:
    """Draw the difference of each chain's rank ECDF from uniform, with a simultaneous 99% envelope.

    Draws are thinned until they are nearly independent first, as the envelope takes them to be. Säilynoja, Bürkner and
    Vehtari (2022), Graphical test for discrete uniformity, Statistics and Computing 32, 32. (ArviZ's envelope of
    several chains degenerates for two; that of one, a little wider, stands in.)

    Parameters
    ----------
    source
        Fits, of which one is a posterior; the first such is drawn.
    limit
        At most so many parameters.
    """
    import arviz_base
    import arviz_plots
    from matplotlib import pyplot

    label, draws = the_posterior(source, "rank")
    names = list(draws)[:limit]
    chains, length = draws[names[0]].shape
    if chains < 2:
        raise FitError("figure 'rank' compares chains, and there is one only; sample with chains=4")
    thinned = _thinned({name: draws[name] for name in names})
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    drawn = arviz_plots.plot_rank(
        arviz_base.from_dict({"posterior": thinned}),
        method="envelope",
        envelope_prob=0.99,
        thin=False,
        backend="matplotlib",
        col_wrap=columns,
        stats={"ecdf_pit": {"n_chains": chains if chains > 2 else 1}},
        figure_kwargs={"FigureClass": Picture, "figsize": (0.8 + 1.9 * columns, 0.5 + 1.7 * rows), "layout": "constrained"},
    )
    figure: Picture = drawn.viz["figure"].item()
    pyplot.close(figure)
    for axes in figure.axes:
        axes.set_title("\n| ".join(axes.get_title().split(" | ")), fontsize=9)
    alt = (
        f"Rank ECDF differences of {len(names)} parameters by {label}, {chains} chains of {length} draws; "
        "the grey band holds 99% of what well-mixed chains would give."
    )
    return figure.describe(alt, _ranks(draws, names))


def _thinned(draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return every k-th draw, k from the autocorrelation; at least 20 draws of each chain stay.

    Effective sizes are summed over the chains, each on its own: chains that disagree are to be seen, not thinned away.
    """
    import arviz_base
    from arviz_stats import ess  # type: ignore[attr-defined]

    chains, length = next(iter(draws.values())).shape
    alone = {f"{name}[{chain}]": values[chain : chain + 1] for name, values in draws.items() for chain in range(chains)}
    sizes: Any = ess(arviz_base.from_dict({"posterior": alone}))  # type: ignore[no-untyped-call]
    smallest = min(np.nansum([float(sizes[f"{name}[{chain}]"]) for chain in range(chains)]) for name in draws)
    step = int(np.clip(np.ceil(chains * length / max(smallest, 1.0)), 1, max(1, length // 20)))
    return {name: values[:, ::step] for name, values in draws.items()}


def _ranks(draws: dict[str, np.ndarray], names: list[str]) -> pd.DataFrame:
    """Return the fractional rank of every draw among all chains: columns `chain, draw` and one a parameter."""
    chains, length = draws[names[0]].shape
    columns = {name: (pd.Series(draws[name].ravel()).rank() / draws[name].size).to_numpy() for name in names}
    return pd.DataFrame({"chain": np.repeat(np.arange(chains), length), "draw": np.tile(np.arange(length), chains), **columns})
