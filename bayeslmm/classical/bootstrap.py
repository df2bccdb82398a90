"""The bootstrap of a linear mixed model: parametric, of residuals, of rows and of groups, with every failure on record."""

from __future__ import annotations

import math
import multiprocessing
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from bayeslmm.classical.engine import Problem, estimate_at, theta_of
from bayeslmm.classical.fit import ClassicalFit
from bayeslmm.classical.lmm import fit_again, fit_model, one_thread, optimum, problem_of, to_minimise
from bayeslmm.classical.noise import has_noise
from bayeslmm.classical.optimise import Box, Minimum, minimise
from bayeslmm.classical.parameters import check_level, chosen, estimates_of, parameter_values
from bayeslmm.classical.reuse import Responses, on_response, responses
from bayeslmm.covariance import structure_of
from bayeslmm.errors import BayesLmmError, FitError, suggest
from bayeslmm.progress import counted

if TYPE_CHECKING:
    from bayeslmm.design import Design, RandomBlock
    from bayeslmm.model import Model
    from bayeslmm.plots.picture import Picture

__all__ = ["Bootstrap", "bootstrap"]

type Array = np.ndarray
type Statistic = Callable[[ClassicalFit], Any]
type Outcome = tuple[Array | None, str]

_SINGULAR = 1e-4
"""lme4's tolerance of `isSingular`."""
_OFF_ZERO = 0.02
"""Standard deviations of zero start here, off the point where their gradient vanishes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bootstrap:
    """Replicates of a fit's statistics; made by `bootstrap`.

    Attributes
    ----------
    fit
        The fit that was replicated.
    kind
        `parametric`, `semiparametric`, `case` or `cluster`.
    estimate
        The statistics of the fit itself.
    replicates
        A row for each replicate; a failed one is NaN.
    status
        For each replicate `ok`, `singular` (kept: a boundary estimate is an estimate) or `failed: ` and the reason.
    entropy
        The seed that repeats them.
    group
        The grouping factor whose levels `cluster` resamples and the jackknife of BCa leaves out; None where there is none.
    statistic
        The user's statistic; None for the default.
    """

    fit: ClassicalFit
    kind: str
    estimate: pd.Series
    replicates: pd.DataFrame
    status: pd.Series
    entropy: int
    group: str | None
    statistic: Statistic | None

    @property
    def counts(self) -> dict[str, int]:
        """Number of replicates, of those that are singular, and of those that failed."""
        failed = int(self.status.str.startswith("failed").sum())
        return {"replicates": len(self.status), "singular": int((self.status == "singular").sum()), "failed": failed}

    @property
    def failures(self) -> pd.Series:
        """Reason -> number of replicates that failed for it."""
        reasons = self.status[self.status.str.startswith("failed")].str.removeprefix("failed: ")
        return reasons.value_counts().rename("replicates")

    @property
    def table(self) -> pd.DataFrame:
        """A row for each statistic: `estimate, mean, bias, se, lower, upper` (percentile 95 %), `n` usable replicates."""
        mean, se = self.replicates.mean(), self.replicates.std(ddof=1)
        limits = self.intervals()
        columns = {"estimate": self.estimate, "mean": mean, "bias": mean - self.estimate, "se": se}
        return pd.DataFrame({**columns, "lower": limits["lower"], "upper": limits["upper"], "n": self.replicates.notna().sum()})

    def intervals(self, kind: str = "percentile", level: float = 0.95, parameters: Sequence[str] | str | None = None) -> pd.DataFrame:
        """Return intervals of the statistics: a frame `lower, upper`.

        Parameters
        ----------
        kind
            `percentile`; `basic` (percentiles mirrored at the estimate); `normal` (bias removed, normal quantiles); `bca` (bias
            corrected and accelerated; the acceleration by leaving out one group at a time, or one row where there are no groups).
        level
            Their nominal coverage.
        parameters
            Names of some of the statistics.

        Raises
        ------
        FitError
            For an unknown kind or statistic, a level outside 0 to 1, or where no replicate succeeded.

        Source: Davison & Hinkley (1997), Bootstrap Methods and their Application, chapter 5.
        """
        if kind not in _INTERVALS:
            raise FitError(f"unknown kind of interval {kind!r}{suggest(str(kind), list(_INTERVALS))} (kinds: {', '.join(_INTERVALS)})")
        check_level(level)
        if self.counts["failed"] == len(self.status):
            raise FitError(f"all {len(self.status)} replicates failed: {self.failures.index[0]}")
        names = chosen([str(name) for name in self.estimate.index], parameters)
        rows = _INTERVALS[kind](self, list(names), level)
        return pd.DataFrame(rows, index=list(names), columns=["lower", "upper"])

    def plot(self) -> Picture:
        """Draw the distribution of every statistic over the replicates, with the estimate and the percentile interval."""
        from bayeslmm.plots.bootstrap import draw

        return draw(self)

    def __str__(self) -> str:
        counts = self.counts
        tally = f"{counts['singular']} singular (kept), {counts['failed']} failed"
        reasons = "".join(f"\n  {number} x {reason}" for reason, number in self.failures.items())
        table = self.table.to_string(float_format=lambda value: f"{value:.4g}")
        return f"{self.kind} bootstrap, {counts['replicates']} replicates: {tally}; seed {self.entropy}{reasons}\n{table}"

    def __repr__(self) -> str:
        counts = self.counts
        return f"<Bootstrap {self.kind}, {counts['replicates']} replicates, {counts['singular']} singular, {counts['failed']} failed>"


def bootstrap(
    fit: ClassicalFit,
    statistic: Statistic | None = None,
    n: int = 1000,
    kind: str = "parametric",
    seed: int | None = None,
    workers: int = 1,
    *,
    group: str | None = None,
) -> Bootstrap:
    """Replicate a fit on simulated or resampled data.

    Parameters
    ----------
    fit
        What `lmer` returned; each replicate is fitted in the same way (REML or ML).
    statistic
        `fit -> numbers` (a Series, a sequence, a number); default: standard deviations, correlations, sigma and coefficients,
        named as by `confint`.
    n
        Number of replicates.
    kind
        `parametric`: new random effects and residuals from the fitted model (lme4's `bootMer`, `use.u=FALSE`);
        `semiparametric`: the fitted values, random effects included, plus residuals drawn with replacement (`use.u=TRUE`;
        residuals are weighted ones); `cluster`: the levels of `group` drawn with replacement, each copy a group of its own;
        `case`: rows drawn with replacement, which treats rows of a group as if they were independent and so is
        over-confident about all that differs between groups.
    seed
        Seed; each replicate has its own stream, so that results do not depend on `workers`.
    workers
        Number of processes (by fork; threads where the system has none).
    group
        Grouping factor for `cluster` and for the jackknife of BCa; default: the one that all others are nested in.

    Returns
    -------
    Bootstrap
        Failed replicates are NaN and counted, with their reasons; singular ones are counted and kept.

    Raises
    ------
    FitError
        For an unknown kind or group, bad numbers, crossed factors without `group`, or a statistic that fails on the fit itself.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))
    >>> boot = bl.bootstrap(fit, n=50, seed=1)
    >>> boot.counts["failed"], list(boot.table.index)
    (0, ['sd_(Intercept)|Batch', 'sigma', '(Intercept)'])
    """
    if kind not in _REPLICATORS:
        raise FitError(f"unknown kind of bootstrap {kind!r}{suggest(str(kind), list(_REPLICATORS))} (kinds: {', '.join(_REPLICATORS)})")
    for name, number in (("n", n), ("workers", workers)):
        if not isinstance(number, Integral) or isinstance(number, bool) or number < 1:
            raise FitError(f"{name} must be a whole number of at least 1, not {number!r}")
    if kind != "parametric" and (fit.generalised or has_noise(fit.model.design)):
        raise FitError(f"kind={kind!r} is not available for a generalised model or a residual structure; use kind='parametric'")
    root = _seed_sequence(seed)
    top = _top_group(fit.model.design, group, needed=kind == "cluster")
    estimate = _statistic_of(statistic, fit)
    job = _Job(fit=fit, statistic=statistic, kind=kind, group=top, size=len(estimate))
    outcomes = _run(job, root.spawn(int(n)), int(workers))
    values = np.array([np.full(len(estimate), np.nan) if found is None else found for found, _ in outcomes])
    return Bootstrap(
        fit=fit,
        kind=kind,
        estimate=estimate,
        replicates=pd.DataFrame(values, columns=list(estimate.index)),
        status=pd.Series([status for _, status in outcomes], name="status", dtype=object),
        entropy=int(root.entropy),  # type: ignore[arg-type]
        group=top,
        statistic=statistic,
    )


def _seed_sequence(seed: int | None) -> np.random.SeedSequence:
    try:
        return np.random.SeedSequence(seed)
    except (TypeError, ValueError):
        raise FitError(f"seed must be a whole number that is not negative, or None, not {seed!r}") from None


def _statistic_of(statistic: Statistic | None, fit: ClassicalFit) -> pd.Series:
    """Return the statistics of a fit as a Series of numbers."""
    if statistic is None:
        return estimates_of(fit)
    found = statistic(fit)
    series = found if isinstance(found, pd.Series) else pd.Series(np.atleast_1d(np.asarray(found, dtype=float)).ravel())
    return pd.Series(series.to_numpy(dtype=float), index=[str(name) for name in series.index], name="estimate")


# ----------------------------------------------------------------------------------------------------------- groups and their rows


def _top_group(design: Design, group: str | None, *, needed: bool) -> str | None:
    """Return the factor whose levels are the independent units: the given one, or that in which all others are nested."""
    blocks = {block.group: block for block in design.blocks}
    if group is not None:
        if group not in blocks:
            raise FitError(f"there is no grouping factor {group!r}{suggest(str(group), list(blocks))} (factors: {', '.join(blocks)})")
        return group
    for block in sorted(blocks.values(), key=lambda block: block.n_levels):
        if all(_nested(other, block) for other in blocks.values()):
            return block.group
    if needed and not blocks:
        raise FitError("a model without random effects has no groups to resample; use kind='case'")
    if needed:
        raise FitError(f"the grouping factors {', '.join(blocks)} are crossed, so that none holds independent units: name one by group=")
    return max(blocks, key=lambda name: blocks[name].n_levels) if blocks else None


def _nested(inner: RandomBlock, outer: RandomBlock) -> bool:
    """Return whether each level of `inner` occurs in one level of `outer` only."""
    pairs = np.unique(inner.index.astype(np.int64) * outer.n_levels + outer.index)
    return len(pairs) == len(np.unique(inner.index))


def _resampled(model: Model, rows: Array, copies: Array, group: str | None) -> Model:
    """Return the model on the given rows; of `group`, and of factors nested in it, each copy is a level of its own."""
    design = model.design
    outer = next((block for block in design.blocks if block.group == group), None)
    blocks = []
    for block in design.blocks:
        index = block.index[rows].astype(np.int64)
        if outer is not None and _nested(block, outer):
            index = index * (int(copies.max(initial=0)) + 1) + copies
        levels, position = np.unique(index, return_inverse=True)
        labels = tuple(str(label) for label in range(len(levels)))
        known = block.known and block.known.take(levels)
        blocks.append(replace(block, index=position.astype(block.index.dtype), levels=labels, values=block.values[rows], known=known))
    small = replace(
        design,
        y=design.y[rows],
        fixed=replace(design.fixed, X=design.fixed.X[rows]),
        blocks=tuple(blocks),
        weights=design.weights[rows],
        offset=design.offset[rows],
        index=pd.RangeIndex(len(rows)),
        kept=np.ones(len(rows), dtype=bool),
    )
    frame = model.frame.loc[design.kept].iloc[rows].reset_index(drop=True)
    return model.on(small, frame)


def _fit_resampled(fit: ClassicalFit, rows: Array, copies: Array, group: str | None) -> ClassicalFit:
    model = _resampled(fit.model, rows, copies, group)
    X = model.design.X
    if X.shape[1] and np.linalg.matrix_rank(X / np.maximum(np.max(np.abs(X), axis=0), np.finfo(float).tiny)) < X.shape[1]:
        raise FitError("the resampled rows do not determine all coefficients")
    return fit_again(fit, model)


# ------------------------------------------------------------------------------------------------------------------ one replicate


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """What every replicate is made from; `size`: the number of statistics."""

    fit: ClassicalFit
    statistic: Statistic | None
    kind: str
    group: str | None
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Simulator:
    """What simulated responses are made of: the mean without random effects, roots of weights, the job's cross-products."""

    job: _Job
    ready: Responses
    mean: Array
    root: Array
    factors: tuple[Array, ...]
    box: Box
    start: Array
    curvature: Array


def _simulator(job: _Job) -> _Simulator:
    fit, design = job.fit, job.fit.model.design
    factors = []
    for block, theta in zip(design.blocks, fit.theta_by_block, strict=True):
        factors.append(fit.sigma * structure_of(block).factor(theta, block.n_effects))
    problem = problem_of(fit.model, reml=fit.reml)
    found = optimum(problem, fit.theta, avoid_boundary=fit.avoids_boundary)
    return _Simulator(
        job=job,
        ready=responses(problem, design),
        mean=design.X @ fit.beta + design.offset,
        root=np.sqrt(design.weights),
        factors=tuple(factors),
        box=Box(lower=problem.lower, upper=problem.upper, mirror=problem.mirror),
        start=np.where(problem.mirror | (problem.lower == 0.0), np.maximum(found.x, _OFF_ZERO), found.x),
        curvature=np.maximum(np.abs(np.diagonal(found.hessian)), 1e-3),
    )


def _search(made: _Simulator, problem: Problem) -> Minimum:
    """Return the optimum next to that of the fit where it is beyond doubt, and what a search from everywhere finds otherwise."""
    fit = made.job.fit
    found = minimise(to_minimise(problem, avoid_boundary=fit.avoids_boundary), made.start, made.box, made.curvature)
    plain = found.converged and not found.flat and not np.any(made.box.on_edge(found.x))
    if plain and all(term.structure.linear for term in problem.terms):
        return found
    return optimum(problem, fit.theta, avoid_boundary=fit.avoids_boundary)


def _parametric(job: _Job) -> Callable[[np.random.Generator], ClassicalFit | _Estimates]:
    if job.fit.generalised or has_noise(job.fit.model.design):
        return partial(_structured, job)
    made = _simulator(job)

    def replicate(rng: np.random.Generator) -> ClassicalFit | _Estimates:
        y = made.mean + job.fit.sigma * rng.standard_normal(len(made.mean)) / made.root
        for block, L in zip(job.fit.model.design.blocks, made.factors, strict=True):
            effects = rng.standard_normal((block.n_levels, block.n_effects)) @ L.T
            effects = effects if block.known is None else block.known.correlated(effects)
            y += np.einsum("nk,nk->n", block.values, effects[block.index])
        return _refitted(made, y)

    return replicate


def _structured(job: _Job, rng: np.random.Generator) -> ClassicalFit:
    """Fit a simulated response of a generalised model, or of one with a residual structure."""
    fit = job.fit
    y = fit.simulate(seed=int(rng.integers(2**63))).to_numpy()[:, 0]
    return fit_again(fit, fit.model.on(replace(fit.model.design, y=y)))


def _semiparametric(job: _Job) -> Callable[[np.random.Generator], ClassicalFit | _Estimates]:
    made = _simulator(job)
    fitted = job.fit.fitted().to_numpy()
    scaled = (job.fit.model.design.y - fitted) * made.root

    def replicate(rng: np.random.Generator) -> ClassicalFit | _Estimates:
        return _refitted(made, fitted + rng.choice(scaled, size=len(scaled)) / made.root)

    return replicate


def _case(job: _Job) -> Callable[[np.random.Generator], ClassicalFit | _Estimates]:
    n = job.fit.nobs

    def replicate(rng: np.random.Generator) -> ClassicalFit | _Estimates:
        rows = np.sort(rng.integers(n, size=n))
        return _fit_resampled(job.fit, rows, np.zeros(n, dtype=np.int64), None)

    return replicate


def _cluster(job: _Job) -> Callable[[np.random.Generator], ClassicalFit | _Estimates]:
    block = next(block for block in job.fit.model.design.blocks if block.group == job.group)
    for inner in job.fit.model.design.blocks:
        if inner.known is not None and _nested(inner, block):
            matrix = inner.known.relationship.name
            raise FitError(f"copies of a level of '{inner.group}' have no place in the matrix '{matrix}'; use kind='parametric'")
    members = [np.flatnonzero(block.index == level) for level in range(block.n_levels)]

    def replicate(rng: np.random.Generator) -> ClassicalFit | _Estimates:
        drawn = rng.integers(block.n_levels, size=block.n_levels)
        rows = np.concatenate([members[level] for level in drawn])
        copies = np.repeat(np.arange(len(drawn)), [len(members[level]) for level in drawn])
        return _fit_resampled(job.fit, rows, copies, job.group)

    return replicate


_REPLICATORS: dict[str, Callable[[_Job], Callable[[np.random.Generator], ClassicalFit | _Estimates]]] = {
    "parametric": _parametric,
    "semiparametric": _semiparametric,
    "case": _case,
    "cluster": _cluster,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Estimates:
    """What the default statistics need of a replicate, without the rest of a fit."""

    values: Array
    converged: bool
    singular: bool


def _refitted(made: _Simulator, y: Array) -> ClassicalFit | _Estimates:
    """Fit another response on the same cross-products; all of a fit only where a statistic asks for it."""
    fit, design = made.job.fit, made.job.fit.model.design
    problem = on_response(made.ready, y)
    if made.job.statistic is not None:
        model = fit.model.on(replace(design, y=y))
        return fit_model(model, reml=fit.reml, start=fit.theta, problem=problem, avoid_boundary=fit.avoids_boundary)
    found = _search(made, problem)
    if not found.converged:
        return fit_model(fit.model.on(replace(design, y=y)), reml=fit.reml, start=fit.theta, avoid_boundary=fit.avoids_boundary)
    values = estimate_at(problem, found.x)
    theta = theta_of(problem, found.x)
    df = problem.df if design.blocks else problem.n - problem.p
    sigma = math.sqrt(values.pwrss / df)
    return _Estimates(values=parameter_values(design, theta, sigma, values.beta), converged=True, singular=_is_singular(design, theta))


def _is_singular(design: Design, theta: Array) -> bool:
    at = 0
    for block in design.blocks:
        structure, k = structure_of(block), block.n_effects
        size = structure.n_theta(k)
        if structure.is_boundary(theta[at : at + size], k, _SINGULAR):
            return True
        at += size
    return False


def _replicated(job: _Job, replicate: Callable[[np.random.Generator], ClassicalFit | _Estimates], seed: np.random.SeedSequence) -> Outcome:
    """Return one replicate's statistics and status; None where it failed."""
    try:
        found = replicate(np.random.default_rng(seed))
    except (BayesLmmError, np.linalg.LinAlgError) as error:
        return None, f"failed: {str(error).splitlines()[0]}"
    if not found.converged:
        return None, "failed: the search for the optimum did not converge"
    if isinstance(found, _Estimates):
        return found.values, "singular" if found.singular else "ok"
    return _evaluated(job, found)


def _evaluated(job: _Job, fit: ClassicalFit) -> Outcome:
    try:
        values = _statistic_of(job.statistic, fit).to_numpy()
    except Exception as error:  # the statistic is the user's code: whatever it raises is a failed replicate, on record
        return None, f"failed: the statistic raised {type(error).__name__}: {error}"
    if values.shape != (job.size,):
        return None, f"failed: the statistic returned {len(values)} numbers, not {job.size}"
    return values, "singular" if fit.is_singular else "ok"


# -------------------------------------------------------------------------------------------------------------- all replicates


def _batch(job: _Job, seeds: Sequence[np.random.SeedSequence], tell: Callable[[], None] | None = None) -> list[Outcome]:
    """Return the outcomes of some replicates, in order."""
    outcomes = []
    with one_thread(), np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        replicate = _REPLICATORS[job.kind](job)
        for seed in seeds:
            outcomes.append(_replicated(job, replicate, seed))
            if tell is not None:
                tell()
    return outcomes


def _run(job: _Job, seeds: Sequence[np.random.SeedSequence], workers: int) -> list[Outcome]:
    with counted("bootstrap", len(seeds)) as advance:
        if workers == 1:
            return _batch(job, seeds, partial(advance, 1))
        size = max(1, math.ceil(len(seeds) / (4 * workers)))
        starts = range(0, len(seeds), size)
        with _pool(job, workers) as (pool, task):
            futures = [pool.submit(task, seeds[start : start + size]) for start in starts]
            for future in as_completed(futures):
                advance(len(future.result()))
        return [outcome for future in futures for outcome in future.result()]


_SHARED: list[_Job] = []
"""The job of a forked worker: set before the fork, so that fits and statistics need not be pickled."""


def _batch_of_shared(seeds: Sequence[np.random.SeedSequence]) -> list[Outcome]:
    return _batch(_SHARED[-1], seeds)


@contextmanager
def _pool(job: _Job, workers: int) -> Iterator[tuple[Executor, Callable[[Sequence[np.random.SeedSequence]], list[Outcome]]]]:
    """Yield a pool and its task: processes that inherit the job by fork; threads where forking is not safe."""
    if sys.platform == "darwin" or "fork" not in multiprocessing.get_all_start_methods():
        with ThreadPoolExecutor(workers) as threads:
            yield threads, partial(_batch, job)
        return
    _SHARED.append(job)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fork.*")
            with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("fork")) as processes:
                yield processes, _batch_of_shared
    finally:
        _SHARED.pop()


# ------------------------------------------------------------------------------------------------------------------- intervals


def _values(boot: Bootstrap, name: str) -> Array:
    """Return the replicates of one statistic that are numbers, sorted."""
    values = boot.replicates[name].to_numpy(dtype=float)
    return np.sort(values[np.isfinite(values)])


def _quantiles(values: Array, shares: Sequence[float]) -> Array:
    """Return quantiles at positions (R + 1) share, as Davison & Hinkley's; NaN where there are no values."""
    if len(values) == 0:
        return np.full(len(shares), math.nan)
    found: Array = np.quantile(values, np.clip(shares, 0.0, 1.0), method="weibull")
    return found


def _sides(level: float) -> tuple[float, float]:
    return 0.5 - level / 2.0, 0.5 + level / 2.0


def _percentile(boot: Bootstrap, names: list[str], level: float) -> list[tuple[float, float]]:
    return [(float(low), float(high)) for low, high in (_quantiles(_values(boot, name), _sides(level)) for name in names)]


def _basic(boot: Bootstrap, names: list[str], level: float) -> list[tuple[float, float]]:
    return [
        (2.0 * boot.estimate[name] - high, 2.0 * boot.estimate[name] - low)
        for name, (low, high) in zip(names, _percentile(boot, names, level), strict=True)
    ]


def _normal(boot: Bootstrap, names: list[str], level: float) -> list[tuple[float, float]]:
    half = float(norm.ppf(0.5 + level / 2.0))
    rows = []
    for name in names:
        values = _values(boot, name)
        if len(values) < 2:
            rows.append((math.nan, math.nan))
            continue
        centre, spread = 2.0 * boot.estimate[name] - np.mean(values), half * np.std(values, ddof=1)
        rows.append((float(centre - spread), float(centre + spread)))
    return rows


def _bca(boot: Bootstrap, names: list[str], level: float) -> list[tuple[float, float]]:
    acceleration = dict(zip((str(name) for name in boot.estimate.index), _acceleration(boot), strict=True))
    rows = []
    for name in names:
        values = _values(boot, name)
        below = (np.sum(values < boot.estimate[name]) + 0.5 * np.sum(values == boot.estimate[name])) / max(len(values), 1)
        if not (0.0 < below < 1.0 and math.isfinite(acceleration[name])):
            rows.append((math.nan, math.nan))
            continue
        z0, a = float(norm.ppf(below)), acceleration[name]
        shares = []
        for side in _sides(level):
            z = z0 + float(norm.ppf(side))
            shares.append(float(norm.cdf(z0 + z / (1.0 - a * z))))
        low, high = _quantiles(values, shares)
        rows.append((float(low), float(high)))
    return rows


def _acceleration(boot: Bootstrap) -> Array:
    """Return Efron's acceleration of every statistic, from leaving out one group (or row) at a time.

    Source: Efron (1987), J. Amer. Statist. Assoc. 82, 171-185, with the groups as the independent units.
    """
    fit = boot.fit
    blocks = [block for block in fit.model.design.blocks if block.group == boot.group]
    units = blocks[0].index if blocks else np.arange(fit.nobs)
    job = _Job(fit=fit, statistic=boot.statistic, kind="case", group=None, size=len(boot.estimate))
    left = [_left_out(job, np.flatnonzero(units != unit)) for unit in np.unique(units)]
    found = np.array([values for values in left if values is not None]).reshape(-1, len(boot.estimate))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        away = np.nanmean(found, axis=0) - found
        result: Array = np.nansum(away**3, axis=0) / (6.0 * np.nansum(away**2, axis=0) ** 1.5)
    return result


def _left_out(job: _Job, rows: Array) -> Array | None:
    copies = np.zeros(len(rows), dtype=np.int64)
    values, _ = _replicated(job, lambda rng: _fit_resampled(job.fit, rows, copies, None), np.random.SeedSequence(0))
    return values


_INTERVALS: dict[str, Callable[[Bootstrap, list[str], float], list[tuple[float, float]]]] = {
    "percentile": _percentile,
    "basic": _basic,
    "normal": _normal,
    "bca": _bca,
}
