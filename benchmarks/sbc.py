"""Simulation-based calibration of the samplers: where parameters come from the prior, their ranks among the posterior's draws are uniform.

    python benchmarks/sbc.py [--sets 1000] [--workers 2] [--only collapsed nutpie] [--state out/sbc] [--out benchmarks/results/sbc.md]

For each design, parameters are drawn from the priors and a response from the model, both by numpy alone and without this package; the
posterior is sampled, and the true value of each parameter is ranked among 99 of its draws, thinned to be near independent. The sum of the
log-likelihood is ranked too: it sees what no parameter alone does, such as a posterior that has forgotten the data (Modrák et al. 2023).
Source: Talts, Betancourt, Simpson, Vehtari and Gelman (2018), arXiv 1804.06788; the simultaneous band of the ECDF is that of Säilynoja,
Bürkner and Vehtari (2022), Statistics and Computing 32. The loop is this file's own: simuk, the library for it, calls `pm.sample` on a
PyMC model, and so reaches neither the samplers without one nor what lies between formula and PyMC.

A data set's ranks depend on its number alone. They are kept in one file for each study (`--state`), so that a run can be stopped and
continued, and lengthened by a greater `--sets`.
"""

from __future__ import annotations

import argparse
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats
from scipy.special import bdtr, expit

import bayeslmm as bl
from bayeslmm.bayes.checks import scalar_draws

LEVEL = 0.99
"""Of the simultaneous band."""
KEPT = 99
"""Draws among which the truth is ranked: ranks 0, ..., 99."""
SEED = 2026
TARGET_ACCEPT = 0.95

type Array = np.ndarray
type Rng = np.random.Generator


# --- Designs ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A random term: the name of its factor, the columns that make its levels, its effects ("(Intercept)" or a column)."""

    group: str
    columns: tuple[str, ...]
    effects: tuple[str, ...] = ("(Intercept)",)
    correlated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A design: its formula, rows without a response, random terms, priors by part, and the sampler's sizes."""

    name: str
    formula: str
    frame: pd.DataFrame
    terms: tuple[Term, ...]
    priors: Mapping[str, str]
    family: str = "gaussian"
    tune: int = 500
    thin: int = 10
    samplers: tuple[str, ...] = ("collapsed", "direct", "nutpie")


def _frame(*sizes: tuple[str, int], seed: int, rows: int = 1) -> pd.DataFrame:
    """Return all combinations of some factors' levels, `rows` of each, with predictors x (off centre) and z."""
    levels = [[f"{name}{i}" for i in range(size)] for name, size in sizes]
    index = pd.MultiIndex.from_product([*levels, range(rows)], names=[*(name for name, _ in sizes), "row"])
    frame = index.to_frame(index=False).drop(columns="row")
    rng = np.random.default_rng(seed)
    return frame.assign(x=rng.normal(1.0, 1.0, len(frame)).round(3), z=rng.choice([0.0, 1.0], len(frame)))


_CASES = (
    Case(
        name="random intercept",
        formula="y ~ x + (1 | g)",
        frame=_frame(("g", 8), rows=5, seed=1),
        terms=(Term(group="g", columns=("g",)),),
        priors={"intercept": "student_t(5, 1, 2)", "fixed": "normal(0, 1)", "sd": "student_t(5, 0, 1)", "aux": "exponential(1)"},
    ),
    Case(
        name="correlated slopes",
        formula="y ~ x + (x | g)",
        frame=_frame(("g", 8), rows=6, seed=2),
        terms=(Term(group="g", columns=("g",), effects=("(Intercept)", "x"), correlated=True),),
        priors={"intercept": "normal(0, 2)", "fixed": "normal(0, 1)", "sd": "exponential(1)", "cor": "lkj(2)", "aux": "gamma(4, 4)"},
    ),
    Case(
        name="crossed",
        formula="y ~ x + z + (1 | s) + (1 | i)",
        frame=_frame(("s", 7), ("i", 6), seed=3),
        terms=(Term(group="s", columns=("s",)), Term(group="i", columns=("i",))),
        priors={"intercept": "normal(0, 2)", "fixed": "normal(0, 1)", "sd": "normal(0, 1)", "aux": "gamma(4, 4)"},
    ),
    Case(
        name="nested",
        formula="y ~ x + (1 | a/b)",
        frame=_frame(("a", 5), ("b", 4), rows=3, seed=4),
        terms=(Term(group="b:a", columns=("b", "a")), Term(group="a", columns=("a",))),
        priors={"intercept": "normal(0, 2)", "fixed": "student_t(4, 0, 1)", "sd": "gamma(2, 2)", "aux": "exponential(1)"},
    ),
    Case(
        name="binomial",
        formula="y | trials(n) ~ x + (1 | g)",
        frame=_frame(("g", 8), rows=5, seed=5).assign(n=np.tile([3.0, 6.0, 9.0, 12.0], 10)),
        terms=(Term(group="g", columns=("g",)),),
        priors={"intercept": "normal(0, 1.5)", "fixed": "normal(0, 1)", "sd": "exponential(1)"},
        family="binomial",
        samplers=("direct", "nutpie"),
    ),
    Case(
        name="beta-binomial",
        formula="y | trials(n) ~ x + (1 | g)",
        frame=_frame(("g", 8), rows=5, seed=6).assign(n=np.tile([6.0, 9.0, 12.0, 15.0], 10)),
        terms=(Term(group="g", columns=("g",)),),
        priors={"intercept": "normal(0, 1.5)", "fixed": "normal(0, 1)", "sd": "exponential(1)", "aux": "gamma(4, 0.5)"},
        family="beta_binomial",
        samplers=("direct", "nutpie"),
    ),
)

CASES: Mapping[str, Case] = {case.name: case for case in _CASES}


# --- Truth: drawn by numpy, without the package -------------------------------------------------------------------------------

_DRAW: Mapping[str, Callable[..., Any]] = {
    "normal": lambda rng, mu, sigma: rng.normal(mu, sigma),
    "student_t": lambda rng, nu, mu, sigma: mu + sigma * rng.standard_t(nu),
    "exponential": lambda rng, rate: rng.exponential(1.0 / rate),
    "gamma": lambda rng, shape, rate: rng.gamma(shape, 1.0 / rate),
    "lkj": lambda rng, eta: 2.0 * rng.beta(eta, eta) - 1.0,
}
"""A draw of each prior; of `lkj` that of the one correlation of two effects."""


def _prior_draw(rng: Rng, text: str, *, positive: bool = False) -> float:
    """Return a draw; cut to positive numbers, which for a prior about 0 is its absolute value."""
    name, arguments = text.rstrip(")").split("(")
    value = float(_DRAW[name](rng, *(float(one) for one in arguments.split(","))))
    return abs(value) if positive else value


def _truth(case: Case, rng: Rng) -> tuple[dict[str, float], Array]:
    """Return the true parameters, by the names of the posterior's scalars, and the linear predictor (n,)."""
    slopes = [term.strip() for term in case.formula.split("~")[1].split("(")[0].split("+") if term.strip()]
    X = case.frame[slopes].to_numpy()
    beta = np.array([_prior_draw(rng, case.priors["fixed"]) for _ in slopes])
    centred = _prior_draw(rng, case.priors["intercept"])
    truth = {"b[(Intercept)]": centred - float(X.mean(axis=0) @ beta)}
    truth |= {f"b[{name}]": float(value) for name, value in zip(slopes, beta, strict=True)}
    eta = centred + (X - X.mean(axis=0)) @ beta
    for term in case.terms:
        found, part = _random_part(case, term, rng)
        truth |= found
        eta = eta + part
    return truth, eta


def _random_part(case: Case, term: Term, rng: Rng) -> tuple[dict[str, float], Array]:
    """Return a term's standard deviations, correlation and the effects of its first level, and its part of the predictor (n,)."""
    levels, index = _levels(case.name, term.columns)
    sd = np.array([_prior_draw(rng, case.priors["sd"], positive=True) for _ in term.effects])
    R = np.eye(len(sd))
    truth = {f"sd_{term.group}[{effect}]": float(value) for effect, value in zip(term.effects, sd, strict=True)}
    if term.correlated:
        R[0, 1] = R[1, 0] = _prior_draw(rng, case.priors["cor"])
        truth[f"cor_{term.group}[{term.effects[1]}, {term.effects[0]}]"] = float(R[1, 0])
    effects = rng.multivariate_normal(np.zeros(len(sd)), R * np.outer(sd, sd), size=len(levels))
    truth |= {f"r_{term.group}[{levels[0]}, {effect}]": float(effects[0, c]) for c, effect in enumerate(term.effects)}
    values = [np.ones(len(index)) if effect == "(Intercept)" else case.frame[effect].to_numpy() for effect in term.effects]
    return truth, np.sum(effects[index] * np.column_stack(values), axis=1)


@cache
def _levels(case_name: str, columns: tuple[str, ...]) -> tuple[list[str], Array]:
    """Return the sorted levels of a factor and each row's position among them."""
    labels = CASES[case_name].frame[list(columns)].agg(":".join, axis=1)
    levels = sorted(set(labels))
    return levels, np.array([levels.index(label) for label in labels])


def _gaussian(case: Case, eta: Array, rng: Rng) -> tuple[dict[str, float], Array, float]:
    sigma = _prior_draw(rng, case.priors["aux"], positive=True)
    y = rng.normal(eta, sigma)
    return {"sigma": sigma}, y, float(stats.norm(eta, sigma).logpdf(y).sum())


def _binomial(case: Case, eta: Array, rng: Rng) -> tuple[dict[str, float], Array, float]:
    n, p = case.frame["n"].to_numpy().astype(int), expit(eta)
    y = rng.binomial(n, p)
    return {}, y, float(stats.binom(n, p).logpmf(y).sum())


def _beta_binomial(case: Case, eta: Array, rng: Rng) -> tuple[dict[str, float], Array, float]:
    n, p = case.frame["n"].to_numpy().astype(int), np.clip(expit(eta), 1e-12, 1.0 - 1e-12)
    phi = _prior_draw(rng, case.priors["aux"], positive=True)
    y = rng.binomial(n, rng.beta(p * phi, (1.0 - p) * phi))
    return {"phi": phi}, y, float(stats.betabinom(n, p * phi, (1.0 - p) * phi).logpmf(y).sum())


RESPONSES: Mapping[str, Callable[[Case, Array, Rng], tuple[dict[str, float], Array, float]]] = {
    "gaussian": _gaussian,
    "binomial": _binomial,
    "beta_binomial": _beta_binomial,
}
"""Family -> function of (case, linear predictor, rng) that returns further parameters, the response and its log-likelihood."""


def simulated(case: Case, number: int) -> tuple[dict[str, float], Array, int]:
    """Return the truth of one data set, its response (n,), and the seed of its sampling."""
    rng = np.random.default_rng(np.random.SeedSequence([SEED, list(CASES).index(case.name), number]))
    truth, eta = _truth(case, rng)
    further, y, log_likelihood = RESPONSES[case.family](case, eta, rng)
    return truth | further | {"log_likelihood": log_likelihood}, y.astype(float), int(rng.integers(2**31))


# --- Posterior ----------------------------------------------------------------------------------------------------------------


@cache
def model_of(case_name: str) -> bl.Model:
    """Return the model of a design, on the response of its first data set; it holds the priors of all."""
    case = CASES[case_name]
    rows = [bl.prior(text, part=part) for part, text in case.priors.items()]
    return bl.model(case.formula, case.frame.assign(y=simulated(case, 0)[1]), case.family, priors=rows)


def ranks(case_name: str, sampler: str, number: int) -> dict[str, Any]:
    """Return the rank of each true value among the posterior's draws of one data set, its divergences, and the draws' correlation."""
    case = CASES[case_name]
    truth, y, seed = simulated(case, number)
    model = model_of(case_name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.BayesLmmWarning)
        fit = bl.brm(
            model.on(replace(model.design, y=y)),
            chains=1,
            cores=1,
            draws=KEPT * case.thin,
            tune=case.tune,
            seed=seed,
            sampler=sampler,
            target_accept=TARGET_ACCEPT,
            progressbar=False,
        )
    draws = {name: values[0] for name, values in scalar_draws(fit.tree["posterior"].to_dataset(), random=True).items()}
    draws["log_likelihood"] = fit.tree["log_likelihood"]["y"].sum("obs").values[0]
    return {
        "set": number,
        "ranks": {name: int(np.sum(draws[name][:: case.thin] < value)) for name, value in truth.items()},
        "divergences": int(fit.tree["sample_stats"]["diverging"].sum()),
        "correlation": round(float(np.mean([_lag_one(draws[name][:: case.thin]) for name in truth])), 3),
    }


def _lag_one(draws: Array) -> float:
    """Return the correlation of successive thinned draws."""
    return float(np.corrcoef(draws[:-1], draws[1:])[0, 1])


# --- Runs that can be continued -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A design under one sampler, and the file of its ranks."""

    case: str
    sampler: str
    path: Path

    @property
    def name(self) -> str:
        return f"{self.case}, {self.sampler}"

    def records(self, sets: int) -> list[dict[str, Any]]:
        """Return what has been found so far of the first `sets` data sets, by number; a line cut short by a stop is left out."""
        found: dict[int, dict[str, Any]] = {}
        for line in self.path.read_text(encoding="utf8").splitlines() if self.path.exists() else ():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            if record["set"] < sets:
                found[record["set"]] = record
        return [found[number] for number in sorted(found)]


def studies(state: Path, samplers: Sequence[str] | None = None, cases: Sequence[str] | None = None) -> tuple[Study, ...]:
    """Return all designs by samplers, or those of some samplers and designs."""
    return tuple(
        Study(case=case.name, sampler=sampler, path=state / f"{case.name.replace(' ', '_')}_{sampler}.jsonl")
        for case in CASES.values()
        for sampler in case.samplers
        if (samplers is None or sampler in samplers) and (cases is None or case.name in cases)
    )


def run(study: Study, sets: int, workers: int, chunk: int = 20) -> None:
    """Fit the data sets that are not in the study's file yet and append their ranks, some at a time."""
    done = {record["set"] for record in study.records(sets)}
    missing = [number for number in range(sets) if number not in done]
    study.path.parent.mkdir(parents=True, exist_ok=True)
    if study.path.exists() and not study.path.read_bytes().endswith(b"\n"):
        with study.path.open("a", encoding="utf8") as file:
            file.write("\n")
    for records in _computed(partial(ranks, study.case, study.sampler), missing, workers, chunk):
        with study.path.open("a", encoding="utf8") as file:
            file.writelines(json.dumps(record) + "\n" for record in records)


def _computed(
    make: Callable[[int], dict[str, Any]], numbers: Sequence[int], workers: int, chunk: int
) -> Iterator[Sequence[dict[str, Any]]]:
    parts = [numbers[at : at + chunk] for at in range(0, len(numbers), chunk)]
    if workers == 1 or not parts:
        yield from ([make(number) for number in part] for part in parts)
        return
    import multiprocessing

    with ProcessPoolExecutor(min(workers, len(parts)), mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(partial(_of_part, make), parts)


def _of_part(make: Callable[[int], dict[str, Any]], part: Sequence[int]) -> list[dict[str, Any]]:
    return [make(number) for number in part]


# --- Uniform or not -----------------------------------------------------------------------------------------------------------


def gamma(counts: Array, n: int) -> Array:
    """Return twice the smallest tail probability of an ECDF along its points: how far out a set of ranks lies (Säilynoja et al., eq. 6).

    `counts` (..., KEPT): how many of n ranks are at most 0, 1, ..., KEPT - 1, each Binomial(n, (j + 1) / (KEPT + 1)).
    """
    z = np.arange(1, KEPT + 1) / (KEPT + 1)
    below, above = bdtr(counts, n, z), 1.0 - bdtr(np.maximum(counts - 1, 0), n, z) * (counts > 0)
    return np.asarray(2.0 * np.minimum(below.min(axis=-1), above.min(axis=-1)))


def counts_of(found: Array) -> Array:
    """Return, of ranks (n, ...), how many are at most 0, 1, ..., KEPT - 1: (..., KEPT)."""
    return np.moveaxis(np.stack([np.sum(found <= j, axis=0) for j in range(KEPT)]), 0, -1)


@cache
def null_gammas(n: int, simulations: int = 20_000) -> Array:
    """Return the sorted gammas of n uniform ranks, simulated."""
    rng = np.random.default_rng(SEED)
    rows = [rng.multinomial(n, np.full(KEPT + 1, 1.0 / (KEPT + 1)), size=1000) for _ in range(simulations // 1000)]
    return np.sort(np.concatenate([gamma(np.cumsum(some, axis=1)[:, :-1], n) for some in rows]))


def p_values(found: pd.DataFrame) -> pd.Series:
    """Return, for each column of ranks, the probability of an ECDF this far from uniform: it leaves the 99 % band below 0.01."""
    null = null_gammas(len(found))
    observed = gamma(counts_of(found.to_numpy()), len(found))
    return pd.Series((np.searchsorted(null, observed, side="right") + 1) / (len(null) + 1), index=found.columns)


def band(n: int, level: float = LEVEL) -> tuple[Array, Array]:
    """Return lower and upper ends of the simultaneous band of the ECDF less its expectation, at ranks 0, ..., KEPT - 1."""
    z = np.arange(1, KEPT + 1) / (KEPT + 1)
    alpha = float(np.quantile(null_gammas(n), 1.0 - level))
    lower, upper = stats.binom.ppf(alpha / 2.0, n, z), stats.binom.ppf(1.0 - alpha / 2.0, n, z)
    return np.asarray(lower / n - z), np.asarray(upper / n - z)


def ranks_frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return data sets by quantities."""
    return pd.DataFrame([record["ranks"] for record in records])


# --- Table and figure ---------------------------------------------------------------------------------------------------------


def table(some: Sequence[Study], sets: int) -> pd.DataFrame:
    """Return one row for each study with data sets: how many quantities leave the band, and the joint verdict."""
    rows = []
    for study in some:
        records = study.records(sets)
        if not records:
            continue
        p = p_values(ranks_frame(records))
        joint = min(1.0, float(p.min()) * len(p))
        rows.append(
            {
                "design": study.case,
                "sampler": study.sampler,
                "data sets": len(records),
                "quantities": len(p),
                "outside their own 99 % band": ", ".join(p.index[p < 1.0 - LEVEL]) or "none",
                "least p": f"{p.min():.4f} ({p.idxmin()})",
                "all inside the joint 99 % band": "yes" if joint >= 1.0 - LEVEL else "NO",
                "sets with divergences": sum(record["divergences"] > 0 for record in records),
                "lag-1 correlation": f"{np.mean([record['correlation'] for record in records]):.2f}",
            }
        )
    return pd.DataFrame(rows)


def figure(some: Sequence[Study], sets: int, path: Path) -> None:
    """Draw, for each study, the ECDF of each quantity's ranks less its expectation, inside the 99 % band."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "sbc"
    import matplotlib.pyplot as plt

    shown = [study for study in some if study.records(sets)]
    across = min(2, len(shown))
    down = -(-len(shown) // across)
    drawn, axes = plt.subplots(
        down, across, figsize=(5.2 * across, 2.3 * down), sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    x = np.arange(1, KEPT + 1) / (KEPT + 1)
    for axis, study in zip(axes.flat, shown, strict=False):
        found = ranks_frame(study.records(sets))
        lower, upper = band(len(found))
        axis.fill_between(x, lower, upper, color="0.88", linewidth=0)
        axis.axhline(0.0, color="0.6", linewidth=0.6)
        outside = p_values(found) < 1.0 - LEVEL
        for name, counts in zip(found.columns, counts_of(found.to_numpy()), strict=True):
            colour = "C1" if outside[name] else "C0"
            axis.plot(x, counts / len(found) - x, color=colour, linewidth=0.8, alpha=0.8, label=name if outside[name] else None)
        if outside.any():
            axis.legend(fontsize=7, frameon=False, loc="upper right")
        axis.set_title(f"{study.name} ({len(found)} data sets, {found.shape[1]} quantities)", fontsize=9)
    for axis in axes.flat[len(shown) :]:
        axis.set_axis_off()
    drawn.supxlabel("rank of the truth among the draws (share)", fontsize=9)
    drawn.supylabel("ECDF less its expectation", fontsize=9)
    drawn.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(drawn)


def page(found: pd.DataFrame, sets: int, picture: str) -> str:
    """Return the Markdown page."""
    first = _CASES[0]
    lines = [
        f"# Simulation-based calibration ({sets} data sets a design)",
        "",
        "Parameters drawn from the priors, a response from the model, its posterior sampled, and the truth ranked among "
        f"{KEPT} thinned draws of it: all ranks are equally likely where the posterior is right. Ranked are all parameters, the effects "
        "of the first level of each factor, and the log-likelihood. The band of a quantity holds 99 of 100 ECDFs of uniform ranks as a "
        "whole, so that of 100 quantities one is expected to leave its own; the joint band holds all quantities of a design 99 times of "
        f"100 (Bonferroni). One chain of {KEPT * first.thin} draws after {first.tune} of tuning, every {first.thin}th ranked, target "
        f"acceptance {TARGET_ACCEPT}, seed {SEED}: `python benchmarks/sbc.py`.",
        "",
        f"![ECDFs of the ranks less their expectation]({picture})",
        "",
        f"| {' | '.join(found.columns)} |",
        "|" + "---|" * len(found.columns),
        *(f"| {' | '.join(str(cell) for cell in row)} |" for row in found.itertuples(index=False)),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", type=int, default=1000, help="data sets of each design")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--only", nargs="+", help="samplers")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), help="designs")
    parser.add_argument("--state", type=Path, default=Path("out/sbc"), help="folder of the ranks found so far")
    parser.add_argument("--out", type=Path, help="the page; its figure lies beside it")
    chosen = parser.parse_args()
    some = studies(chosen.state, chosen.only, chosen.cases)
    for study in some:
        run(study, chosen.sets, chosen.workers)
        print(table([study], chosen.sets).to_string(index=False), flush=True)
    if chosen.out is not None:
        figure(some, chosen.sets, chosen.out.with_suffix(".svg"))
        chosen.out.write_text(page(table(some, chosen.sets), chosen.sets, chosen.out.with_suffix(".svg").name), encoding="utf8")


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    main()
