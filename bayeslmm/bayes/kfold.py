"""K-fold cross-validation: a model refitted without each fold of rows, or of whole groups, and its density of what was left out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import logsumexp

from bayeslmm.bayes import marginal
from bayeslmm.bayes.checks import quick_problem
from bayeslmm.bayes.fit import BayesFit, brm
from bayeslmm.bayes.fit import log_likelihood as given_effects
from bayeslmm.bayes.loo import elpd_attributes, posterior_fit
from bayeslmm.bayes.marginal_quadrature import given_predictor, integrated_row
from bayeslmm.bayes.samplers import SAMPLERS, available_cores
from bayeslmm.bayes.subset import model_on
from bayeslmm.errors import ConvergenceWarning, FitError
from bayeslmm.families import LINKS
from bayeslmm.fit import Draws
from bayeslmm.progress import counted

if TYPE_CHECKING:
    from bayeslmm.design import FixedPart
    from bayeslmm.model import Model
    from bayeslmm.random_blocks import RandomBlock

__all__ = ["folds_of", "held_out", "kfold"]

type Array = np.ndarray


def kfold(
    fit: BayesFit,
    k: int = 10,
    by: str | None = None,
    *,
    stratify: str | None = None,
    seed: int | None = None,
    workers: int = 1,
) -> Any:
    """Estimate how well a model predicts what it has not seen, by refitting it without each of k parts of the data.

    Parameters
    ----------
    fit
        What `brm` returned; it is refitted with its own priors, sampler, number of chains and draws, and target acceptance.
    k
        Number of folds.
    by
        A grouping factor, or another column: each of its groups is left out as a whole. Default: rows are left out.
    stratify
        Rows are left out, but those of each group of this factor or column spread evenly over the folds.
    seed
        Seed of the folds and of the refits. Default: a fresh one.
    workers
        Refits at the same time, their chains sharing the cores; more than one only where nothing is compiled (the collapsed sampler).

    Returns
    -------
    arviz.ELPDData
        `elpd` with its standard error `se`, `p` the effective number of parameters, `elpd_i` and `p_kfold_i` of each row (dim `obs`),
        `n_folds`. The density of a row of a group without other rows is that of a new group, its random effects integrated out.

    Warns
    -----
    ConvergenceWarning
        `kfold`: some refits failed a check of convergence.

    Raises
    ------
    FitError
        If the fit is no posterior, a number is out of range, `by` names nothing or has fewer groups than folds, residuals are correlated
        between rows that would be separated, or a refit fails.

    Source: Vehtari, Gelman & Gabry (2017), Stat. Comput. 27, section 2.3; Roberts et al. (2017), Ecography 40 (by groups).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.brm("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"), seed=1, draws=250, progressbar=False)
    >>> whole_batches = bl.kfold(fit, k=6, by="Batch", seed=1)
    >>> whole_batches.n_folds, whole_batches.elpd_i.sizes["obs"]
    (6, 30)
    """
    posterior_fit(fit, "kfold")
    for name, number, least in (("k", k, 2), ("workers", workers, 1)):
        if not isinstance(number, Integral) or isinstance(number, bool) or number < least:
            raise FitError(f"{name} must be a whole number of at least {least}, not {number!r}")
    root = _seeds(seed)
    of_folds, *of_fits = root.spawn(int(k) + 1)
    folds = folds_of(fit.model, int(k), by, stratify, np.random.default_rng(of_folds))
    _check_series(fit.model, folds)
    jobs = [
        _Job(fit=fit, fold=number + 1, rows=np.flatnonzero(folds == number), seed=one, workers=int(workers))
        for number, one in enumerate(of_fits)
    ]
    found = _run(jobs, int(workers))
    elpd_i = np.empty(fit.nobs)
    for job, outcome in zip(jobs, found, strict=True):
        elpd_i[job.rows] = outcome.elpd
    problems = [f"fold {job.fold}: {outcome.problem}" for job, outcome in zip(jobs, found, strict=True) if outcome.problem]
    if problems:
        message = f"{len(problems)} of {k} refits failed a check of convergence ({problems[0]}); refit with more draws, or tighter priors"
        warnings.warn(ConvergenceWarning("kfold", message), stacklevel=2)
    return _result(fit, int(k), by, elpd_i, warning=bool(problems))


def _seeds(seed: int | None) -> np.random.SeedSequence:
    try:
        return np.random.SeedSequence(seed)
    except (TypeError, ValueError):
        raise FitError(f"seed must be a whole number that is not negative, or None, not {seed!r}") from None


def _result(fit: BayesFit, k: int, by: str | None, elpd_i: Array, *, warning: bool) -> Any:
    import arviz as az
    import xarray as xr

    values = given_effects(fit)
    density = logsumexp(values, axis=(0, 1)) - np.log(values.shape[0] * values.shape[1])
    coords = {"obs": np.arange(len(elpd_i))}
    result = az.ELPDDataLOOKFold(
        elpd=float(elpd_i.sum()),
        se=float(np.sqrt(len(elpd_i) * np.var(elpd_i, ddof=1))),
        p=float(np.sum(density - elpd_i)),
        n_samples=values.shape[0] * values.shape[1],
        n_data_points=len(elpd_i),
        scale="log",
        warning=warning,
        good_k=None,
        elpd_i=xr.DataArray(elpd_i, dims=("obs",), coords=coords),
        n_folds=k,
        p_kfold_i=xr.DataArray(density - elpd_i, dims=("obs",), coords=coords),
    )
    result.elpd_i.attrs.update(elpd_attributes(fit, "kfold", f"{k} folds of {by or 'rows'}", len(elpd_i)))
    return result


# ------------------------------------------------------------------------------------------------------------------------ folds


def folds_of(model: Model, k: int, by: str | None, stratify: str | None, rng: np.random.Generator) -> Array:
    """Return the fold 0..k-1 (n,) of each row, folds being as equal in rows as they can be.

    Raises
    ------
    FitError
        If `by` and `stratify` are both given, name nothing, or there are fewer rows or groups than folds.
    """
    if by is not None and stratify is not None:
        raise FitError("by= leaves out whole groups and stratify= spreads each over all folds; give one of them")
    n = model.design.n
    if by is not None:
        index, _, labels = marginal.units(model, by)
        if len(labels) < k:
            raise FitError(f"'{by}' has {len(labels)} groups, too few for {k} folds; use k={len(labels)}, which leaves out one at a time")
        of_groups = _balanced(np.bincount(index, minlength=len(labels)), k, rng)
        return np.asarray(of_groups[index])
    if n < k:
        raise FitError(f"{n} rows are too few for {k} folds; use k={n}, which leaves out one at a time")
    strata = np.zeros(n, dtype=np.int64) if stratify is None else marginal.units(model, stratify)[0]
    order = np.lexsort((rng.permutation(n), strata))
    folds = np.empty(n, dtype=np.int64)
    folds[order] = np.arange(n) % k
    return folds


def _balanced(sizes: Array, k: int, rng: np.random.Generator) -> Array:
    """Return the fold of each group: the largest first, each into the fold with the fewest rows so far."""
    shuffled = rng.permutation(len(sizes))
    folds, rows = np.empty(len(sizes), dtype=np.int64), np.zeros(k, dtype=np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        folds[group] = np.argmin(rows)
        rows[folds[group]] += sizes[group]
    return folds


def _check_series(model: Model, folds: Array) -> None:
    series = model.design.series
    if series is None:
        return
    pairs = np.unique(np.stack([series.index, folds]), axis=1).shape[1]
    if pairs > len(np.unique(series.index)):
        raise FitError(
            f"residuals are correlated within the series of {series.term.text}, which these folds would cut; leave out whole series "
            "by=..., or use loo(fit, kind='marginal')"
        )


# ----------------------------------------------------------------------------------------------------------------------- refits


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A refit without `rows`."""

    fit: BayesFit
    fold: int
    rows: Array
    seed: np.random.SeedSequence
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """The log predictive density of each row left out, and what is wrong with the refit."""

    elpd: Array
    problem: str


def _run(jobs: Sequence[_Job], workers: int) -> list[_Outcome]:
    """Return the outcomes in order; the refits' own warnings are taken up in one of `kfold`'s."""
    with warnings.catch_warnings(), counted("kfold", len(jobs)) as advance:
        warnings.simplefilter("ignore")
        if workers == 1 or jobs[0].fit.provenance["sampler"] != "collapsed":
            found = []
            for job in jobs:
                found.append(_refit(job))
                advance(1)
            return found
        with ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(_refit, job) for job in jobs]
            for _ in as_completed(futures):
                advance(1)
            return [future.result() for future in futures]


def _refit(job: _Job) -> _Outcome:
    model, made = job.fit.model, job.fit.provenance
    kept = np.setdiff1d(np.arange(model.design.n), job.rows)
    training = model_on(model, kept, drop_levels=True)
    _check_determined(training, job.fold)
    seed_of_fit, seed_of_effects = job.seed.generate_state(2)
    try:
        refitted = brm(
            training,
            chains=made["chains"],
            draws=made["draws"],
            tune=made["tune"],
            cores=max(1, available_cores() // job.workers),
            seed=int(seed_of_fit // 2),
            sampler=made["sampler"],
            target_accept=None if made["target_accept"] == SAMPLERS[made["sampler"]].target_accept else made["target_accept"],
            progressbar=False,
        )
    except FitError as error:
        raise FitError(f"the refit without fold {job.fold} failed: {error}") from error
    density = held_out(model, refitted, job.rows, np.random.default_rng(seed_of_effects))
    problem = quick_problem(refitted.tree)
    return _Outcome(elpd=logsumexp(density, axis=0) - np.log(len(density)), problem="" if problem is None else problem[1])


def _check_determined(model: Model, fold: int) -> None:
    """Refuse a fold without which coefficients of flat priors are not determined."""
    flat = any(row.part in ("fixed", "intercept") and not row.distribution.proper for row in model.prior_rows)
    X = model.design.X
    if flat and X.shape[1] and np.linalg.matrix_rank(X / np.maximum(np.max(np.abs(X), axis=0), np.finfo(float).tiny)) < X.shape[1]:
        raise FitError(
            f"the rows without fold {fold} do not determine all coefficients, whose priors are flat; give them proper priors, "
            "use more folds, or stratify= by the factor that a fold empties"
        )


# ------------------------------------------------------------------------------------------------------------------ predictions


def held_out(model: Model, fit: BayesFit, rows: Array, rng: np.random.Generator) -> Array:
    """Return log p(y_i | draw) (S, m) of rows of `model` under a fit to other rows: random effects of new groups integrated out.

    Those of new groups in the predictor of a further parameter are drawn from `rng`.
    """
    draws = fit.draws()
    here = model_on(model, rows)
    eta, variance = _predictor(here.design.fixed, here.design.blocks, fit.model.design.blocks, draws)
    aux = dict(draws.aux)
    links = {parameter.name: parameter.link for parameter in model.family.parameters}
    for name, (fixed, blocks) in here.design.parameters.items():
        value, spread = _predictor(fixed, blocks, fit.model.design.parameters[name][1], draws.further[name])
        aux[name] = LINKS[links[name]].inverse(value + np.sqrt(spread) * rng.standard_normal(value.shape))
    eta = eta + here.design.offset
    own = Draws(b=draws.b, effects=(), covariance=(), aux=aux)
    if (model.family.name, model.link.name) == ("gaussian", "identity"):
        density = marginal.normal_log_density(here.design.y - eta, marginal.row_sd(here, own) ** 2 + variance)
        return np.asarray(density + marginal.power_constant(here, own))
    density = given_predictor(here, own, eta)
    for row in np.flatnonzero(np.any(variance > 0.0, axis=0)):
        density[:, row] = integrated_row(here, own, int(row), eta[:, row], np.sqrt(variance[:, row]))
    return density


def _predictor(fixed: FixedPart, blocks: tuple[RandomBlock, ...], fitted: tuple[RandomBlock, ...], draws: Draws) -> tuple[Array, Array]:
    """Return mean and variance (S, m) of one linear predictor: the effects of levels that a fit has, and of those that it has not."""
    eta = draws.b @ fixed.X.T
    variance = np.zeros_like(eta)
    for block, own, effects, covariance in zip(blocks, fitted, draws.effects, draws.covariance, strict=True):
        place = {level: position for position, level in enumerate(own.levels)}
        at = np.array([place.get(level, -1) for level in block.levels])[block.index]
        seen = at >= 0
        eta[:, seen] += np.einsum("snk,nk->sn", effects[:, at[seen]], block.values[seen])
        variance[:, ~seen] += np.einsum("nk,skl,nl->sn", block.values[~seen], covariance, block.values[~seen])
    return np.asarray(eta), variance
