"""Time `bl.lmer` beside lme4's `lmer` in one run, on one core: InstEval (73 421 rows, crossed) and sleepstudy.

    python benchmarks/insteval.py [FOLDER]

FOLDER (default: the environment variable BAYESLMM_DATA_DIR) holds InstEval.csv.gz and sleepstudy.csv; both programs read the same
files. Prints a table of seconds, their ratio, and by how much our criterion is lower than lme4's. Whole calls are timed: formula,
design, search, estimates; the first call of ours, which may compile, is shown apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

THREADS = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model: its data set, file, formula, and how often it is fitted."""

    name: str
    file: str
    formula: str
    repeats: int


CASES = (
    Case(name="sleepstudy", file="sleepstudy.csv", formula="Reaction ~ Days + (Days | Subject)", repeats=20),
    Case(name="InstEval", file="InstEval.csv.gz", formula="y ~ service + (1 | s) + (1 | d)", repeats=3),
)


def ours(case: Case, folder: Path) -> list[dict[str, float]]:
    """Fit one case with this package: seconds, criterion and evaluations of each repeat, the first one extra."""
    import bayeslmm as bl

    os.environ["BAYESLMM_DATA_DIR"] = str(folder)
    data = bl.load_dataset(case.name)
    runs = []
    for _ in range(case.repeats + 1):
        start = time.perf_counter()
        fit = bl.lmer(case.formula, data)
        seconds = time.perf_counter() - start
        runs.append({"seconds": seconds, "criterion": fit.criterion, "evaluations": fit.search.evaluations if fit.search else 0})
    return runs


def theirs(case: Case, folder: Path) -> list[dict[str, float]]:
    """Fit one case with lme4, in R."""
    script = Path(__file__).with_name("lmer.R")
    command = ["Rscript", str(script), case.name, str(folder / case.file), case.formula, str(case.repeats)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **THREADS}).stdout
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")]


def main() -> int:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("BAYESLMM_DATA_DIR", "."))
    missing = [case.file for case in CASES if not (folder / case.file).is_file()]
    if missing:
        print(f"not in {folder}: {', '.join(missing)}; give the folder as argument or in BAYESLMM_DATA_DIR")
        return 2
    print(f"{'case':<12}{'ours first':>12}{'ours best':>12}{'lme4 best':>12}{'ratio':>8}{'evaluations':>14}{'criterion - lme4':>18}")
    for case in CASES:
        mine, other = ours(case, folder), theirs(case, folder)
        first, best = mine[0]["seconds"], min(run["seconds"] for run in mine[1:])
        reference = min(run["seconds"] for run in other)
        counts = f"{mine[0]['evaluations']:.0f} / {other[0]['evaluations']:.0f}"
        difference = mine[0]["criterion"] - other[0]["criterion"]
        print(f"{case.name:<12}{first:>12.4f}{best:>12.4f}{reference:>12.4f}{best / reference:>8.3f}{counts:>14}{difference:>18.2e}")
    return 0


if __name__ == "__main__":
    os.environ.update(THREADS)
    sys.exit(main())
