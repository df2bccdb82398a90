"""Energy of the sampler: its distribution beside that of its changes, chain by chain; narrow changes explore slowly."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bayeslmm.errors import FitError
from bayeslmm.plots.common import Source, grid_shape
from bayeslmm.plots.picture import COLOURS, INK, Picture
from bayeslmm.plots.ppc_shapes import kde
from bayeslmm.plots.trace import the_posterior

__all__ = ["draw"]


def draw(source: Source) -> Picture:
    """Draw the density of the energy about its mean and of its changes from draw to draw, with E-BFMI, a panel per chain.

    Where the changes are much narrower (E-BFMI below 0.3) the sampler crosses the posterior slowly. Betancourt (2016),
    arXiv:1604.00695.

    Parameters
    ----------
    source
        Fits, of which one is a posterior; the first such is drawn.
    """
    label, _ = the_posterior(source, "energy")
    tree = source.posteriors[0][1]
    if "sample_stats" not in tree or "energy" not in tree["sample_stats"]:
        raise FitError(f"figure 'energy' needs the sampler's energies, which {label} does not hold")
    energy = tree["sample_stats"]["energy"].transpose("chain", "draw").to_numpy().astype(float)
    if energy.shape[1] < 4:
        raise FitError("figure 'energy' needs four draws of a chain or more")
    rows, columns = grid_shape(len(energy), 4)
    figure = Picture(figsize=(0.8 + 2.4 * columns, 0.9 + 1.9 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    reach = float(np.abs(energy - energy.mean(axis=1, keepdims=True)).max()) or 1.0
    said = []
    for chain, (panel, values) in enumerate(zip(panels, energy, strict=False)):
        changes = np.diff(values)
        bfmi = float(np.mean(changes**2) / np.var(values, ddof=1)) if np.ptp(values) > 0 else float("nan")
        for shown, colour, ls, name in ((values - values.mean(), COLOURS[0], "-", "energy"), (changes, COLOURS[1], "--", "change")):
            at, height = kde(shown, -1.3 * reach, 1.3 * reach)
            panel.plot(at, height, color=colour, ls=ls, label=name)
            panel.fill_between(at, height, color=colour, alpha=0.15, lw=0)
        panel.axvline(0, color=INK, lw=0.5)
        panel.set_yticks([])
        panel.set_ylim(bottom=0, auto=True)
        said.append(f"chain {chain + 1}: E-BFMI {bfmi:.2f}")
        panel.set_title(said[-1], loc="left")
    for panel in panels[len(energy) :]:
        panel.set_visible(False)
    figure.supxlabel("energy about its mean, and its change from draw to draw", fontsize=9.5)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    data = pd.DataFrame({"chain": np.repeat(np.arange(len(energy)), energy.shape[1]), "energy": energy.ravel()})
    alt = f"Density of the energy by {label} and of its changes from draw to draw, by chain; {'; '.join(said)}; below 0.3 is too low."
    return figure.describe(alt, data)
