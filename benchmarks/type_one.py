"""Type-I error of tests of a fixed effect that is not there: Wald z, Satterthwaite and Kenward-Roger beside one another.

    python benchmarks/type_one.py [replicates] [output.md]

Each design is simulated without an effect, fitted by REML, and tested; the table holds the share of p values below 0.05. With 10,000
replicates its standard error is 0.0022.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

import bayeslmm as bl

LEVEL = 0.05
METHODS = ("wald", "satterthwaite", "kenward-roger")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A design: its name, formula, the coefficient that is zero, and rows with a response (rng -> frame)."""

    name: str
    formula: str
    coefficient: str
    rows: Callable[[np.random.Generator], pd.DataFrame]


def _between(rng: np.random.Generator) -> pd.DataFrame:
    """12 groups of 6, half of them treated: nested."""
    g = np.repeat(np.arange(12), 6)
    return pd.DataFrame({"y": rng.normal(size=12)[g] + rng.normal(size=72), "x": np.where(g % 2, 0.5, -0.5), "g": g.astype(str)})


def _crossed(rng: np.random.Generator) -> pd.DataFrame:
    """14 subjects by 12 items, items of two kinds: crossed, with slopes of subjects."""
    s, i = np.repeat(np.arange(14), 12), np.tile(np.arange(12), 14)
    x = np.where(i % 2, 0.5, -0.5)
    y = rng.normal(size=14)[s] + 0.8 * rng.normal(size=14)[s] * x + rng.normal(size=12)[i] + rng.normal(size=168)
    return pd.DataFrame({"y": y, "x": x, "s": s.astype(str), "i": i.astype(str)})


LAYOUTS = (
    Layout(name="nested, 12 groups", formula="y ~ x + (1 | g)", coefficient="x", rows=_between),
    Layout(name="crossed, 14 x 12", formula="y ~ x + (x | s) + (1 | i)", coefficient="x", rows=_crossed),
)


def p_values(layout: Layout, replicates: int, seed: int = 1) -> np.ndarray:
    """Return p values (replicates, 3) in the order of `METHODS`."""
    found = np.empty((replicates, len(METHODS)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.BayesLmmWarning)
        first = bl.lmer(layout.formula, layout.rows(np.random.default_rng(seed)))
        for row, rng in zip(found, np.random.default_rng(seed).spawn(replicates), strict=True):
            fit = bl.refit(first, layout.rows(rng)["y"].to_numpy())
            row[0] = 2.0 * float(norm.sf(np.abs(fit.coefficients("none")["statistic"][layout.coefficient])))
            row[1:] = [float(fit.coefficients(method)["p_value"][layout.coefficient]) for method in METHODS[1:]]
    return found


def table(replicates: int) -> pd.DataFrame:
    """Return the shares of p values below `LEVEL`, designs by methods."""
    shares = {layout.name: np.mean(p_values(layout, replicates) < LEVEL, axis=0) for layout in LAYOUTS}
    return pd.DataFrame.from_dict(shares, orient="index", columns=list(METHODS))


def main(arguments: list[str]) -> None:
    replicates = int(arguments[0]) if arguments else 10_000
    shares = table(replicates)
    lines = [f"| design ({replicates} replicates) | {' | '.join(METHODS)} |", "|---|" + "---|" * len(METHODS)]
    for name, row in zip(shares.index, shares.to_numpy(), strict=True):
        lines.append(f"| {name} | {' | '.join(f'{share:.4f}' for share in row)} |")
    text = "\n".join(lines) + "\n"
    if len(arguments) > 1:
        Path(arguments[1]).write_text(text, encoding="utf8")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
