"""200 simulated methylated loci: a status for each by `glmer`, and the penalised fit, beside the outcome of lme4's glmer in R.

    python benchmarks/loci.py [output.md]

The loci and R's outcome lie in the folder of R results (BAYESLMM_REFERENCE_DIR, default ../shared/reference): 24 samples of 6 tanks
each, two treatments, two days; 20 loci were made with a cell at 0 % or 100 %, three more have one by chance. Nothing here is random.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import warnings
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

import bayeslmm as bl
from bayeslmm.classical.separated import separated

FORMULA = "cbind(m, u) ~ treatment * time + (1 | tank)"
FOLDER = Path(os.environ.get("BAYESLMM_REFERENCE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one locus: status, the largest coefficient and standard error of both fits, and their seconds."""

    locus: str
    status: str
    largest: float
    error: float
    penalised: float
    penalised_error: float
    seconds: float
    penalised_seconds: float


def status(fit: bl.ClassicalFit) -> str:
    """Return `ok`, `singular`, `flat`, `failed`, or `separated: ` and by what."""
    found = separated(fit)
    if found is not None:
        return f"separated: {'; '.join(one.sentence for one in found.findings)}"
    if fit.convergence in ("failed", "flat"):
        return fit.convergence
    return "singular" if fit.is_singular else "ok"


def outcome(locus: str, data: pd.DataFrame) -> Outcome:
    """Fit one locus both ways."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.BayesLmmWarning)
        begun = time.perf_counter()
        fit = bl.glmer(FORMULA, data)
        between = time.perf_counter()
        penalised = bl.glmer(FORMULA, data, penalty="jeffreys")
        ended = time.perf_counter()
    return Outcome(
        locus=locus,
        status=status(fit),
        largest=float(np.max(np.abs(fit.beta))),
        error=float(np.max(fit.standard_errors)),
        penalised=float(np.max(np.abs(penalised.beta))),
        penalised_error=float(np.max(penalised.standard_errors)),
        seconds=between - begun,
        penalised_seconds=ended - between,
    )


def page(table: pd.DataFrame, theirs: pd.DataFrame) -> str:
    """Return the page of results."""
    separate = table["status"].str.startswith("separated")
    counts = Counter(table["status"].str.partition(":")[0])
    runaway = (theirs["max_abs_fixef"] > 8.0) | (theirs["max_se"] > 20.0)
    clean = ~(theirs["error"] | theirs["conv_warning"] | theirs["singular"] | theirs["any_cell_0_or_1"])
    lines = [
        "# 200 simulated methylated loci",
        "",
        f"`{FORMULA}`, 24 samples of 6 tanks a locus. Made by `python benchmarks/loci.py`, {datetime.now(UTC):%Y-%m-%d}; bayeslmm "
        f"{bl.__version__}, Python {platform.python_version()}, NumPy {np.__version__}, {platform.machine()}, load of the machine "
        f"{os.getloadavg()[0]:.1f}. R's outcome: lme4 1.1-31, default settings, timed when it was made.",
        "",
        "| | `bl.glmer` | R's `glmer` |",
        "|---|---|---|",
        f"| loci with an answer | {len(table)} | {int((~theirs['error']).sum())} |",
        f"| ok | {counts['ok']} | {int(clean.sum())} without any message or runaway estimate |",
        f"| singular, not separated | {counts['singular']} | {int((theirs['singular'] & ~runaway).sum())} |",
        f"| separated, by name | {counts['separated']} | none by name: {int(runaway.sum())} runaway estimates (above 8, or standard error "
        f"above 20), {int((runaway & ~theirs['conv_warning']).sum())} of them without a convergence warning |",
        f"| convergence warnings | {counts['flat'] + counts['failed']} beside the separated ones | {int(theirs['conv_warning'].sum())} |",
        f"| seconds a locus, median (model and fit) | {table['seconds'].median():.4f} | 0.037 (7.5 s for all) |",
        "",
        '## With `penalty="jeffreys"`',
        "",
        f"Finite estimates and standard errors at all {int(np.isfinite(table[['penalised', 'penalised_error']]).all(axis=1).sum())} loci: "
        f"the largest coefficient is {table['penalised'].max():.2f} and the largest standard error {table['penalised_error'].max():.2f}; "
        f"{table['penalised_seconds'].median():.4f} s a locus (median).",
        "",
        "## The separated loci",
        "",
        "| locus | what separates it | penalised: largest coefficient (largest SE) | R: largest coefficient (largest SE) | R's warning |",
        "|---|---|---|---|---|",
    ]
    for row in table[separate].itertuples():
        other = theirs.loc[row.Index]
        said = "convergence" if other["conv_warning"] else "singular fit only" if other["singular"] else "none"
        lines.append(
            f"| {row.Index} | {row.status.removeprefix('separated: ')} | {row.penalised:.2f} ({row.penalised_error:.2f}) | "
            f"{other['max_abs_fixef']:.3g} ({other['max_se']:.3g}) | {said} |"
        )
    return "\n".join([*lines, ""])


def main(output: Path) -> None:
    """Fit all loci; print and write the page."""
    data = pd.read_csv(FOLDER / "datasets" / "methylation.csv")
    theirs = pd.read_csv(FOLDER / "results" / "methylation_glmer_summary.csv").set_index("locus")
    parts = [(str(locus), part) for locus, part in data.groupby("locus", sort=False)]
    outcome(*parts[0])  # compiles
    table = pd.DataFrame([outcome(locus, part) for locus, part in parts]).set_index("locus")
    text = page(table, theirs)
    print(text)
    output.write_text(text, encoding="utf8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "results" / "loci.md")
