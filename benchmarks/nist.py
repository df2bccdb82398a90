"""Digits that agree with NIST's certified one-way analyses of variance, and with REML in closed form: print and keep a table.

    python benchmarks/nist.py [FOLDER] [--out benchmarks/results/nist.md]

FOLDER (default: `nist` in the folder of reference results, environment variable BAYESLMM_REFERENCE_DIR) holds the eleven one-way data
sets of the Statistical Reference Datasets (NIST, 1998) and `nist_anova.json`. Digits: -log10 of the relative error, at most 15.
"Attainable" is the answer in exact rational arithmetic on the data as 64-bit numbers, which cannot hold all of their digits:
nobody who reads doubles can do better.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import warnings
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import pandas as pd

import bayeslmm as bl

MOST = 15.0
REFERENCE = Path(os.environ.get("BAYESLMM_REFERENCE_DIR") or Path(__file__).resolve().parents[2] / "shared" / "reference")


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """One data set: correct digits of F, of the residual SD and of the REML estimates, and those attainable for F."""

    name: str
    difficulty: str
    f: float
    f_attainable: float
    residual_sd: float
    mean: float
    sd_between: float
    criterion: float


def digits(found: float, certified: float) -> float:
    """Return the number of digits that agree."""
    if found == certified:
        return MOST
    return max(0.0, min(MOST, -math.log10(abs(found - certified) / abs(certified))))


def exact_f(frame: pd.DataFrame) -> float:
    """Return the F value of the one-way analysis in rational arithmetic on the doubles."""
    groups = [[Fraction(value) for value in rows.tolist()] for _, rows in frame.groupby("treatment", observed=True)["y"]]
    everything = [value for rows in groups for value in rows]
    grand = sum(everything) / len(everything)
    means = [sum(rows) / len(rows) for rows in groups]
    between = sum(len(rows) * (mean - grand) ** 2 for rows, mean in zip(groups, means, strict=True))
    within = sum((value - mean) ** 2 for rows, mean in zip(groups, means, strict=True) for value in rows)
    return float(between / (len(groups) - 1) / (within / (len(everything) - len(groups))))


def read(folder: Path, file: str) -> pd.DataFrame:
    """Return a data set, its treatment as a factor."""
    return pd.read_csv(folder / file).astype({"treatment": "category"})


def compare(name: str, case: dict[str, Any], frame: pd.DataFrame) -> Digits:
    """Fit one data set with fixed and with random treatments, and count digits."""
    certified, closed = case["certified"], case["random_intercept_REML"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        fixed, mixed = bl.lmer("y ~ treatment", frame), bl.lmer("y ~ 1 + (1 | treatment)", frame)
    return Digits(
        name=name,
        difficulty=case["difficulty"],
        f=digits(float(bl.anova(fixed)["f_value"].iloc[0]), certified["F"]),
        f_attainable=digits(exact_f(frame), certified["F"]),
        residual_sd=digits(fixed.sigma, certified["residual_sd"]),
        mean=digits(float(mixed.beta[0]), closed["mu"]),
        sd_between=digits(float(mixed.theta[0]) * mixed.sigma, closed["sd_b"]),
        criterion=digits(mixed.criterion, closed["REMLcrit"]),
    )


def table(rows: list[Digits]) -> str:
    """Return the table in markdown."""
    lines = [
        "| data | difficulty | F | F, attainable | residual SD | REML: mean | REML: SD between | REML criterion |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        numbers = (row.f, row.f_attainable, row.residual_sd, row.mean, row.sd_between, row.criterion)
        lines.append(f"| {row.name} | {row.difficulty} | {' | '.join(f'{number:.1f}' for number in numbers)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=REFERENCE / "nist")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if not (arguments.folder / "nist_anova.json").exists():
        print(f"no NIST data in {arguments.folder}: left out")
        return
    cases = json.loads((arguments.folder / "nist_anova.json").read_text(encoding="utf8"))
    shown = table([compare(name, case, read(arguments.folder, case["file"])) for name, case in cases.items()])
    print(shown)
    if arguments.out:
        made = f"`python benchmarks/nist.py`, {datetime.date.today()}, bayeslmm {bl.__version__}, Python {platform.python_version()}"
        head = "# Correct digits on NIST's one-way analyses of variance"
        arguments.out.write_text(f"{head}\n\n{made}. {_MEANING}\n\n{shown}\n", encoding="utf8")


_MEANING = (
    "Digits: -log10 of the relative error against the certified value (F, residual SD) or the closed form of REML in a balanced one-way "
    "layout, at most 15. Attainable: exact arithmetic on the data as 64-bit numbers; data of 13 leading constant digits keep three or four."
)


if __name__ == "__main__":
    main()
