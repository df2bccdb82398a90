"""Sample the same models, under the same priors, by this package, brms, rstanarm and bambi, in one run.

    python benchmarks/bayes.py [FOLDER] [--out benchmarks/results/bayes.md] [--cases NAME ...] [--peers NAME ...]

FOLDER (default: the environment variable BAYESLMM_DATA_DIR) holds the data files. Every peer runs in a process of its own, four chains of
1000 tuning and 1000 kept draws on two cores, brms's default priors (rstanarm has priors of its own, which cannot be made the same; bambi
has no correlated effects and is given the uncorrelated model). `process` is the time from the start of the process to the summary of the
posterior: of the Python packages the first with empty caches of compiled code, then a second in a fresh process. `sampling` is CPU time
of warm-up and sampling, summed over chains, without compilation (Stan's own record; for this package all of a second call of `brm`, for
bambi all of a second `fit`). ESS is the least bulk ESS over all parameters, random effects included, by the same formula (Vehtari et al.
2021) for all. `agreement`: the largest difference of posterior means from ours, in combined Monte-Carlo standard errors.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
THREADS = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
CHAINS, DRAWS, TUNE, CORES = 4, 1000, 1000, 2
LIMIT = 3600.0
"""Seconds after which a peer is stopped."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model: its file (or maker of data), formula, the columns that are factors, family, and what bambi is given.

    `peers`: who runs it; `draws`, `tune`: of this package, where they differ from the others'; `once`: of a model that takes minutes one
    process is run, with the caches as they are.
    """

    name: str
    file: str
    formula: str
    factors: tuple[str, ...]
    family: str = "gaussian"
    bambi: str | None = None
    peers: tuple[str, ...] = ("bayeslmm", "brms", "rstanarm", "bambi")
    draws: int = DRAWS
    tune: int = TUNE
    once: bool = False

    @property
    def r_formula(self) -> str:
        """The formula in rstanarm's spelling, where brms's `| trials(n)` is not known."""
        return self.formula.replace("incidence | trials(size)", "cbind(incidence, size - incidence)")


CASES = (
    Case(
        name="sleepstudy",
        file="sleepstudy.csv",
        formula="Reaction ~ Days + (Days | Subject)",
        factors=("Subject",),
        bambi="Reaction ~ Days + (Days | Subject)",
    ),
    Case(
        name="cbpp",
        file="cbpp.csv",
        formula="incidence | trials(size) ~ period + (1 | herd)",
        factors=("period", "herd"),
        family="binomial",
        bambi="p(incidence, size) ~ period + (1 | herd)",
    ),
    Case(
        name="md_red",
        file="md_red.csv",
        formula="Effect_Size ~ Condition + (1 | SubjectID) + (1 | Experiment) + (1 | Region)",
        factors=("Condition", "SubjectID", "Experiment", "Region"),
        bambi="Effect_Size ~ Condition + (1 | SubjectID) + (1 | Experiment) + (1 | Region)",
    ),
    Case(
        name="crossed 40 x 40",
        file="crossed.csv",
        formula="y ~ x + (x | a) + (x | b)",
        factors=("a", "b"),
        bambi="y ~ x + (x | a) + (x | b)",
    ),
    Case(
        name="InstEval",
        file="InstEval.csv.gz",
        formula="y ~ service + (1 | s) + (1 | d) + (1 | dept)",
        factors=("service", "s", "d", "dept"),
        peers=("bayeslmm", "lme4"),
        draws=500,
        tune=100,
        once=True,
    ),
)


def crossed(path: Path, levels: int = 40, seed: int = 1) -> None:
    """Write a simulated design of two crossed factors, one row a cell, with correlated random slopes for both."""
    import numpy as np
    import pandas as pd

    rng = np.random.default_rng(seed)
    a, b = (part.ravel() for part in np.meshgrid(np.arange(levels), np.arange(levels), indexing="ij"))
    x = rng.standard_normal(levels**2)
    u = rng.multivariate_normal([0, 0], [[1.0, 0.3], [0.3, 0.5]], levels)
    v = rng.multivariate_normal([0, 0], [[0.6, -0.2], [-0.2, 0.3]], levels)
    y = 1.0 + u[a, 0] + v[b, 0] + (0.5 + u[a, 1] + v[b, 1]) * x + rng.standard_normal(levels**2)
    pd.DataFrame({"y": y, "x": x, "a": [f"a{i:02d}" for i in a], "b": [f"b{i:02d}" for i in b]}).to_csv(path, index=False)


def _frame(case: Case, folder: Path) -> Any:
    import pandas as pd

    return pd.read_csv(folder / case.file).astype(dict.fromkeys(case.factors, "category"))


# ------------------------------------------------------------------------------------------------------------------------- workers


def _summary(draws: Mapping[str, Any]) -> dict[str, Any]:
    """Return names, means, Monte-Carlo errors, ESS and R-hat of scalar draws (chains, draws)."""
    import arviz_stats.base as base
    import numpy as np

    array_stats = vars(base)["array_stats"]
    stacked = np.stack(list(draws.values()))
    axes = {"chain_axis": 1, "draw_axis": 2}
    return {
        "names": list(draws),
        "mean": stacked.mean(axis=(1, 2)).tolist(),
        "mcse": array_stats.mcse(stacked, method="mean", **axes).tolist(),
        "ess": array_stats.ess(stacked, method="bulk", **axes).tolist(),
        "tail": array_stats.ess(stacked, method="tail", prob=(0.05, 0.95), **axes).tolist(),
        "rhat": array_stats.rhat(stacked, **axes).tolist(),
    }


def _plain(name: str) -> str:
    return name.replace("(Intercept)", "Intercept")


def _scalars(tree: Any) -> dict[str, Any]:
    """Return the draws of every parameter of our fit under brms's name."""
    posterior = tree["posterior"].to_dataset()
    found = {}
    for name, variable in posterior.data_vars.items():
        values = variable.transpose("chain", "draw", ...)
        labels = [[str(label) for label in values.coords[dim].values] for dim in values.dims[2:]]
        if name == "b":
            found |= {f"b_{_plain(label)}": values.values[..., i] for i, label in enumerate(labels[0])}
        elif not labels:
            found[name] = values.values
        elif name.startswith("sd_"):
            found |= {f"{name}__{_plain(label)}": values.values[..., i] for i, label in enumerate(labels[0])}
        elif name.startswith("cor_"):
            pairs = [(i, j) for j in range(len(labels[0])) for i in range(j)]
            found |= {f"{name}__{_plain(labels[0][i])}__{_plain(labels[0][j])}": values.values[..., j, i] for i, j in pairs}
        elif name.startswith("r_"):
            places = [(i, j) for i in range(len(labels[0])) for j in range(len(labels[1]))]
            found |= {f"{name}[{labels[0][i]},{_plain(labels[1][j])}]": values.values[..., i, j] for i, j in places}
    return found


def _bayeslmm(case: Case, folder: Path, timed: bool) -> dict[str, Any]:
    import bayeslmm as bl

    model = bl.model(case.formula, _frame(case, folder), case.family)
    model = bl.model(case.formula, _frame(case, folder), case.family, priors=bl.default_priors(model, "brms"))
    sizes = {"chains": CHAINS, "draws": case.draws, "tune": case.tune, "cores": CORES}
    start, cpu = time.perf_counter(), time.process_time()
    fit = bl.brm(model, seed=1, **sizes)
    sampling = time.process_time() - cpu
    str(fit.summary())
    result = {"seconds": time.perf_counter() - start, "sampler": fit.provenance["sampler"], "version": bl.__version__}
    if timed and not case.once:
        cpu = time.process_time()
        fit = bl.brm(model, seed=2, **sizes)
        sampling = time.process_time() - cpu
    if timed:
        result["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        result["sampling"] = sampling
        result["divergences"] = int(fit.tree["sample_stats"]["diverging"].values.sum())
        result |= _summary(_scalars(fit.tree))
    return result


def _bambi(case: Case, folder: Path, timed: bool) -> dict[str, Any]:
    import bambi as bmb

    import bayeslmm as bl

    frame = _frame(case, folder)
    defaults = bl.default_priors(bl.model(case.formula, frame, case.family), "brms")
    weak = {(row.part, row.group, row.term): row.distribution for row in defaults}
    model = bmb.Model(case.bambi, frame, family=case.family, priors=_bambi_priors(weak), auto_scale=False)
    start = time.perf_counter()
    sizes = {"chains": CHAINS, "draws": DRAWS, "tune": TUNE, "cores": CORES, "progressbar": False}
    tree = model.fit(random_seed=1, **sizes)
    import arviz_stats

    arviz_stats.summary(tree)
    result = {"seconds": time.perf_counter() - start, "version": bmb.__version__}
    if timed:
        before = os.times()
        tree = model.fit(random_seed=2, **sizes)
        after = os.times()
        result["sampling"] = sum(after[:4]) - sum(before[:4])
        result["divergences"] = int(tree["sample_stats"]["diverging"].values.sum())
        result |= _summary(_bambi_scalars(tree))
    return result


def _bambi_priors(rows: Mapping[tuple[str, str, str], Any]) -> dict[str, Any]:
    """Return brms's default priors for bambi: a flat one for slopes, Student's t for the intercept and, halved, for the deviations."""
    import bambi as bmb

    nu, mu, sigma = next(found.args for (part, _, _), found in rows.items() if part == "intercept")
    half = {key: bmb.Prior("HalfStudentT", nu=found.args[0], sigma=found.args[2]) for key, found in rows.items() if key[0] in ("sd", "aux")}
    priors: dict[str, Any] = {"Intercept": bmb.Prior("StudentT", nu=nu, mu=mu, sigma=sigma), "common": bmb.Prior("Flat")}
    for (part, group, term), prior in half.items():
        if part == "aux":
            priors["sigma"] = prior
        else:
            priors[f"{'1' if term == '(Intercept)' else term}|{group}"] = bmb.Prior("Normal", mu=0, sigma=prior)
    return priors


def _bambi_scalars(tree: Any) -> dict[str, Any]:
    """Return the draws of every parameter of a bambi fit under brms's name."""
    posterior = tree["posterior"].to_dataset()
    found = {}
    for name, variable in posterior.data_vars.items():
        values = variable.transpose("chain", "draw", ...)
        labels = [str(label) for label in values.coords[values.dims[2]].values] if values.ndim > 2 else []
        if "|" not in name:
            names = [f"b_{name}{label}" for label in labels] or [name if name == "sigma" else f"b_{name}"]
        else:
            effect, group = name.removesuffix("_sigma").split("|")
            effect = "Intercept" if effect == "1" else effect
            names = [f"sd_{group}__{effect}"] if name.endswith("_sigma") else [f"r_{group}[{label},{effect}]" for label in labels]
        columns = values.values.reshape(*values.shape[:2], -1)
        found |= {one: columns[..., i] for i, one in enumerate(names)}
    return found


WORKERS: Mapping[str, Callable[[Case, Path, bool], dict[str, Any]]] = {"bayeslmm": _bayeslmm, "bambi": _bambi}


# ------------------------------------------------------------------------------------------------------------------------ the parent


def _run(command: list[str], environment: Mapping[str, str]) -> tuple[float, dict[str, Any] | None, str]:
    """Return the seconds of a process, what it printed as JSON, and its complaint."""
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env={**os.environ, **environment}, check=False)
    except subprocess.TimeoutExpired:
        return LIMIT, None, f"not within {LIMIT:.0f} s"
    seconds = time.perf_counter() - start
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return seconds, json.loads(lines[-1]) if lines else None, (done.stderr.strip().splitlines() or ["failed"])[-1]


def _python(peer: str, case: Case, folder: Path) -> dict[str, Any] | str:
    """Run a Python peer: with empty caches, with warm ones, and once more for the sampling alone."""
    if case.once:
        seconds, made, said = _run(
            [sys.executable, str(HERE / "bayes.py"), str(folder), "--worker", peer, "--case", case.name, "--timed"], THREADS
        )
        return said if made is None else made | {"first": seconds, "process": seconds}
    with tempfile.TemporaryDirectory() as caches:
        environment = {**THREADS, "NUMBA_CACHE_DIR": f"{caches}/numba", "PYTENSOR_FLAGS": f"base_compiledir={caches}/pytensor"}
        command = [sys.executable, str(HERE / "bayes.py"), str(folder), "--worker", peer, "--case", case.name]
        first, made, said = _run([*command], environment)
        if made is None:
            return said
        second, _, _ = _run([*command], environment)
        _, made, said = _run([*command, "--timed"], environment)
    return said if made is None else made | {"first": first, "process": second}


def _r(peer: str, case: Case, folder: Path) -> dict[str, Any] | str:
    formula = case.formula if peer == "brms" else case.r_formula
    sizes = [str(size) for size in (CHAINS, DRAWS, TUNE, CORES)]
    script = [shutil.which("Rscript") or "Rscript", str(HERE / "bayes.R"), peer, str(folder / case.file), formula, ",".join(case.factors)]
    seconds, made, said = _run([*script, case.family, *sizes], THREADS)
    return said if made is None else made | {"first": seconds, "process": seconds}


def _lme4(case: Case, folder: Path) -> dict[str, Any] | str:
    """Time lme4's fit of the model, the measure of large ones."""
    factors = "".join(f"d[['{name}']] <- factor(d[['{name}']]);" for name in case.factors)
    code = (
        f"suppressMessages(library(lme4)); d <- read.csv('{folder / case.file}', stringsAsFactors = TRUE); {factors}"
        f"s <- system.time(lmer({case.formula}, d))[['elapsed']];"
        'cat(sprintf(\'{"seconds": %.3f, "version": "%s"}\\n\', s, as.character(packageVersion(\'lme4\'))))'
    )
    seconds, made, said = _run([shutil.which("Rscript") or "Rscript", "-e", code], THREADS)
    return said if made is None else made | {"first": seconds, "process": seconds}


def measure(peer: str, case: Case, folder: Path) -> dict[str, Any] | str:
    """Run one peer on one case; a sentence where it cannot."""
    if peer in WORKERS:
        return _python(peer, case, folder) if peer != "bambi" or case.bambi else "no formula"
    return _lme4(case, folder) if peer == "lme4" else _r(peer, case, folder)


def _agreement(made: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Return the largest difference of posterior means in combined Monte-Carlo errors, its parameter and how many were compared."""
    here = dict(zip(ours["names"], zip(ours["mean"], ours["mcse"], strict=True), strict=True))
    there = zip(made["names"], made["mean"], made["mcse"], strict=True)
    z = {name: abs(mean - here[name][0]) / (mcse**2 + here[name][1] ** 2) ** 0.5 for name, mean, mcse in there if name in here}
    if not z:
        return ""
    worst = max(z, key=lambda name: z[name])
    return f"{z[worst]:.1f} ({worst}; {len(z)} compared)"


def _row(case: Case, peer: str, made: dict[str, Any] | str, ours: dict[str, Any] | str) -> str:
    if isinstance(made, str):
        return f"| {case.name} | {peer} | {made} | | | | | | | | |"
    times = f"{made['first']:.1f} | {made['process']:.1f}"
    ratio = f"{made['process'] / ours['process']:.1f}" if isinstance(ours, dict) else ""
    if "ess" not in made:
        return f"| {case.name} | {peer} ({made['seconds']:.1f} s for the fit itself) | {times} | {ratio} | | | | | | |"
    least, worst = min(made["ess"]), max(value for value in made["rhat"] if value is not None)
    rate = least / made["sampling"]
    relative = f"{rate / (min(ours['ess']) / ours['sampling']):.3f}" if isinstance(ours, dict) else ""
    agree = _agreement(made, ours) if isinstance(ours, dict) and peer in ("brms", "bambi") else ""
    shown = f"{peer} ({made['memory']:.1f} GB)" if case.once and "memory" in made else peer
    cells = [case.name, shown, times, ratio, f"{made['sampling']:.2f}", f"{least:.0f}", f"{rate:.1f}", relative]
    return f"| {' | '.join(cells)} | {worst:.3f} ({made['divergences']}) | {agree} |"


HEAD = (
    "| model | peer | process, first, s | process, s | times ours | sampling, CPU s | least ESS | ESS per CPU s | of ours | "
    "largest R-hat (divergences) | agreement |"
)


def table(folder: Path, names: list[str], peers: list[str]) -> tuple[str, list[str]]:
    """Measure the named cases and return the table as Markdown, and the versions met."""
    lines, versions = [HEAD, "|---|---|---:|---:|---:|---:|---:|---:|---:|---|---|"], {}
    for case in (case for case in CASES if case.name in names):
        runs = {peer: measure(peer, case, folder) for peer in case.peers if peer in peers}
        for peer, made in runs.items():
            if isinstance(made, dict):
                versions[peer] = f"{peer} {made['version']}"
            lines.append(_row(case, peer, made, runs["bayeslmm"]))
            print(lines[-1], file=sys.stderr, flush=True)
    return "\n".join(lines), list(versions.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("BAYESLMM_DATA_DIR", "."))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--cases", nargs="+", default=[case.name for case in CASES])
    parser.add_argument("--peers", nargs="+", default=["bayeslmm", "brms", "rstanarm", "bambi", "lme4"])
    parser.add_argument("--worker", choices=sorted(WORKERS))
    parser.add_argument("--case")
    parser.add_argument("--timed", action="store_true")
    arguments = parser.parse_args()
    folder = Path(arguments.folder)
    if arguments.worker:
        case = next(case for case in CASES if case.name == arguments.case)
        print(json.dumps(WORKERS[arguments.worker](case, folder, arguments.timed)))
        return 0
    with tempfile.TemporaryDirectory() as here:
        work = Path(here)
        for case in CASES:
            if (folder / case.file).is_file():
                (work / case.file).symlink_to((folder / case.file).resolve())
        crossed(work / "crossed.csv")
        missing = sorted({case.file for case in CASES if case.name in arguments.cases and not (work / case.file).is_file()})
        if missing:
            print(f"not in {folder}: {', '.join(missing)}; give the folder as argument or in BAYESLMM_DATA_DIR", file=sys.stderr)
            return 2
        rows, versions = table(work, arguments.cases, arguments.peers)
    made = f"{datetime.date.today()}; Python {platform.python_version()}, {', '.join(versions)}"
    text = f"# Posteriors beside brms, rstanarm and bambi\n\n{made}; {CHAINS} chains on {CORES} cores\n\n{rows}\n"
    print(text)
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(text, encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
