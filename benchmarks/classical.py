"""Time `bl.lmer`, `bl.glmer` and what follows a fit beside lme4, lmerTest, pbkrtest, mixedlm and statsmodels, in one run on one core.

    python benchmarks/classical.py [FOLDER] [--out benchmarks/results/classical.md]

FOLDER (default: the environment variable BAYESLMM_DATA_DIR) holds the data files. A peer that is not installed is left out and said so.
Whole calls are timed (a fit: formula, design, search, estimates), each peer in a process of its own; the first call, which may compile, is
shown apart; medians of the others are compared. Peers have to agree: the last column is the criterion (REML, or -2 log L) above the least
one found, for tests the largest relative difference of the standard errors and degrees of freedom from ours.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THREADS = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True, kw_only=True)
class Case:
    """One task on one model: its file, formula, the columns that are factors, how often it is timed.

    `family`: `gaussian` (REML) or that of a Laplace fit. `task`: `fit`;
    `satterthwaite` and `kenward-roger` (the table of coefficients with degrees of freedom, of a fit at hand);
    `bootstrap` (one parametric replicate, the mean over 200).
    """

    name: str
    file: str
    formula: str
    factors: tuple[str, ...]
    repeats: int
    task: str = "fit"
    family: str = "gaussian"


CASES = (
    Case(
        name="sleepstudy, correlated slope",
        file="sleepstudy.csv",
        formula="Reaction ~ Days + (Days | Subject)",
        factors=("Subject",),
        repeats=200,
    ),
    Case(
        name="md_red, three crossed factors",
        file="md_red.csv",
        formula="Effect_Size ~ Condition + (1 + Condition | SubjectID) + (1 | Experiment) + (1 | Region)",
        factors=("Condition", "SubjectID", "Experiment", "Region"),
        repeats=3,
    ),
    Case(
        name="InstEval, two crossed factors",
        file="InstEval.csv.gz",
        formula="y ~ service + (1 | s) + (1 | d)",
        factors=("service", "s", "d"),
        repeats=3,
    ),
    Case(
        name="InstEval, three crossed factors",
        file="InstEval.csv.gz",
        formula="y ~ service + (1 | s) + (1 | d) + (1 | dept)",
        factors=("service", "s", "d", "dept"),
        repeats=3,
    ),
    Case(
        name="sleepstudy, Satterthwaite",
        file="sleepstudy.csv",
        formula="Reaction ~ Days + (Days | Subject)",
        factors=("Subject",),
        repeats=10,
        task="satterthwaite",
    ),
    Case(
        name="sleepstudy, Kenward-Roger",
        file="sleepstudy.csv",
        formula="Reaction ~ Days + (Days | Subject)",
        factors=("Subject",),
        repeats=5,
        task="kenward-roger",
    ),
    Case(
        name="sleepstudy, bootstrap replicate",
        file="sleepstudy.csv",
        formula="Reaction ~ Days + (Days | Subject)",
        factors=("Subject",),
        repeats=3,
        task="bootstrap",
    ),
    Case(
        name="md_red, Satterthwaite",
        file="md_red.csv",
        formula="Effect_Size ~ Condition + (1 + Condition | SubjectID) + (1 | Experiment) + (1 | Region)",
        factors=("Condition", "SubjectID", "Experiment", "Region"),
        repeats=3,
        task="satterthwaite",
    ),
    Case(
        name="md_red, Kenward-Roger, one factor",
        file="md_red.csv",
        formula="Effect_Size ~ Condition + (1 | SubjectID)",
        factors=("Condition", "SubjectID"),
        repeats=1,
        task="kenward-roger",
    ),
    Case(
        name="cbpp, binomial",
        file="cbpp.csv",
        formula="cbind(incidence, size - incidence) ~ period + (1 | herd)",
        factors=("period", "herd"),
        repeats=10,
        family="binomial",
    ),
    Case(
        name="grouseticks, Poisson, three random terms",
        file="grouseticks.csv",
        formula="TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION)",
        factors=("YEAR", "BROOD", "INDEX", "LOCATION"),
        repeats=3,
        family="poisson",
    ),
    Case(
        name="VerbAgg, persons and items crossed",
        file="VerbAgg.csv",
        formula="r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item)",
        factors=("r2", "Gender", "btype", "situ", "id", "item"),
        repeats=3,
        family="binomial",
    ),
)

LIMIT = 600.0
"""Seconds after which a peer is stopped."""


def _timed(call: Callable[[], Any], answer: Callable[[Any], list[float]], repeats: int, replicates: int = 1) -> None:
    for _ in range(repeats + 1):
        start = time.perf_counter()
        made = call()
        seconds = (time.perf_counter() - start) / replicates
        print(json.dumps({"seconds": seconds, "answer": [float(value) for value in answer(made)]}), flush=True)


def _frame(case: Case, folder: Path) -> Any:
    import pandas as pd

    frame = pd.read_csv(folder / case.file)
    return frame.astype(dict.fromkeys(case.factors, "category"))


def _bayeslmm(case: Case, folder: Path) -> None:
    import bayeslmm as bl

    frame = _frame(case, folder)
    if case.task == "fit":
        call = (lambda: bl.lmer(case.formula, frame)) if case.family == "gaussian" else (lambda: bl.glmer(case.formula, frame, case.family))
        _timed(call, lambda fit: [fit.criterion], case.repeats)
        return
    fit = bl.lmer(case.formula, frame)
    if case.task == "bootstrap":
        _timed(lambda: bl.bootstrap(fit, n=200, seed=1), lambda made: [], case.repeats, 200)
        return
    _timed(lambda: fit.coefficients(case.task), lambda table: [*table["se"], *table["df"]], case.repeats)


def _mixedlm(case: Case, folder: Path) -> None:
    import mixedlm

    if case.task != "fit":
        raise SystemExit("fits only")
    frame, formula, weights = _frame(case, folder), case.formula, None
    families = {"binomial": mixedlm.families.Binomial, "poisson": mixedlm.families.Poisson}
    if "r2" in frame:
        frame = frame.assign(r2=(frame["r2"] == "Y").astype(float))
    if "incidence" in frame:
        frame, weights = frame.assign(share=frame["incidence"] / frame["size"]), "size"
        formula = f"share ~{formula.partition('~')[2]}"

    def fit() -> Any:
        if case.family == "gaussian":
            return mixedlm.lmer(formula, frame)
        return mixedlm.glmer(formula, frame, families[case.family](), weights=weights)

    _timed(fit, lambda fit: [-2 * fit.logLik().value], case.repeats)


def _statsmodels(case: Case, folder: Path) -> None:
    from statsmodels.regression.mixed_linear_model import MixedLM

    if len(case.factors) > 1 or case.task != "fit" or case.family != "gaussian":
        raise SystemExit("fits of one grouping factor only")
    frame = _frame(case, folder)
    fixed = case.formula.partition(" + (")[0]
    _timed(
        lambda: MixedLM.from_formula(fixed, frame, groups=case.factors[0], re_formula="~ Days").fit(),
        lambda fit: [-2 * fit.llf],
        case.repeats,
    )


PEERS = ("bayeslmm", "R", "mixedlm", "statsmodels")
R_NAMES = {"fit": "lme4", "satterthwaite": "lmerTest", "kenward-roger": "pbkrtest", "bootstrap": "lme4 (bootMer)"}
WORKERS = {"bayeslmm": _bayeslmm, "mixedlm": _mixedlm, "statsmodels": _statsmodels}


def measure(peer: str, case: Case, folder: Path) -> list[dict[str, Any]]:
    """Run one peer on one case in its own process; an empty list where it cannot, or not within the limit."""
    if peer == "R":
        script = [shutil.which("Rscript") or "Rscript", str(HERE / "classical.R")]
        command = [*script, str(folder / case.file), case.formula, ",".join(case.factors), str(case.repeats + 1), case.task, case.family]
    else:
        command = [sys.executable, __file__, "--worker", peer, "--case", case.name, str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=LIMIT, env={**os.environ, **THREADS})
    except (subprocess.SubprocessError, OSError):
        return []
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def _disagreement(case: Case, made: list[dict[str, Any]], runs: dict[str, list[dict[str, Any]]]) -> str:
    """Return how far a peer's answer is from the least criterion, or from our standard errors and degrees of freedom."""
    answer = made[-1]["answer"]
    if not answer:
        return ""
    if case.task == "fit":
        return f"{answer[0] - min(run['answer'][0] for peer in runs.values() for run in peer):.1e}"
    ours = runs["bayeslmm"][-1]["answer"]
    return f"{max(abs(a - b) / abs(b) for a, b in zip(answer, ours, strict=True)):.1e}"


def versions() -> str:
    """Return versions of the peers and the machine in one line."""
    from importlib import metadata

    parts = [f"Python {platform.python_version()}"]
    for name in ("bayeslmm", "mixedlm", "statsmodels", "numpy", "scipy", "numba"):
        try:
            parts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            parts.append(f"{name} not installed")
    if shutil.which("Rscript"):
        line = 'cat(R.version.string); for (p in c("lme4", "lmerTest", "pbkrtest")) cat(",", p, as.character(packageVersion(p)))'
        parts.append(subprocess.run(["Rscript", "-e", line], capture_output=True, text=True, check=False).stdout.strip())
    return ", ".join(parts)


def table(folder: Path) -> str:
    """Measure all cases with all peers and return the table as Markdown."""
    lines = [
        "| task | peer | first call, s | median, s | times ours | disagreement |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for case in CASES:
        runs = {peer: measure(peer, case, folder) for peer in PEERS}
        ours = statistics.median(run["seconds"] for run in runs["bayeslmm"][1:])
        for peer, made in runs.items():
            shown = R_NAMES[case.task] if peer == "R" else peer
            if not made and (case.task == "fit" or peer == "R"):
                lines.append(f"| {case.name} | {shown} | cannot, or not within {LIMIT:.0f} s | | | |")
            elif made:
                median = statistics.median(run["seconds"] for run in made[1:] or made)
                far = _disagreement(case, made, runs)
                lines.append(f"| {case.name} | {shown} | {made[0]['seconds']:.3f} | {median:.4f} | {median / ours:.1f} | {far} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("BAYESLMM_DATA_DIR", "."))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", choices=sorted(WORKERS))
    parser.add_argument("--case")
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    if arguments.worker:
        WORKERS[arguments.worker](next(case for case in CASES if case.name == arguments.case), folder)
        return 0
    missing = sorted({case.file for case in CASES if not (folder / case.file).is_file()})
    if missing:
        print(f"not in {folder}: {', '.join(missing)}; give the folder as argument or in BAYESLMM_DATA_DIR", file=sys.stderr)
        return 2
    text = f"# Mixed models by maximum likelihood: seconds on one core\n\n{datetime.date.today()}; {versions()}\n\n{table(folder)}\n"
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text, encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
