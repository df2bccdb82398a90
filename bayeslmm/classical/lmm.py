"""`lmer`: fit a linear mixed model by REML or maximum likelihood; `refit` it to another response."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.classical.diagnose import badly_scaled, singular_terms, undetermined
from bayeslmm.classical.engine import (
    Problem,
    TermData,
    estimate_at,
    objective,
    prepare,
    theta_jacobian,
    theta_of,
    turned,
    unexplained,
    vector_of,
)
from bayeslmm.classical.fit import ClassicalFit, SearchLog
from bayeslmm.classical.optimise import Box, Minimum, minimise, search
from bayeslmm.covariance import structure_of
from bayeslmm.design import check_groups
from bayeslmm.errors import ConvergenceWarning, DataError, DataWarning, FitError, SingularFitWarning
from bayeslmm.model import Model, as_model

if TYPE_CHECKING:
    from bayeslmm.formula import Formula

__all__ = ["fit_model", "lmer", "one_thread", "optimum", "problem_of", "refit"]

type Array = np.ndarray

_OPTIMISER = "projected BFGS, then Newton, with the exact gradient"
_EXACT = 1e-11
"""A fit that leaves less than this share of the variance cannot be told from an exact one: the rest has no digits."""


def lmer(
    formula: str | Formula | Model,
    data: Any = None,
    *,
    reml: bool = True,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    na: str = "omit",
    dialect: str = "lme4",
) -> ClassicalFit:
    """Fit a linear mixed model by REML or maximum likelihood; without random terms, a linear model by least squares.

    Parameters
    ----------
    formula, data
        lme4's formula, as `"Reaction ~ Days + (Days | Subject)"`, and a data frame; or a ready `Model` alone.
    reml
        REML (default) or maximum likelihood.
    weights
        Column's name or array: the residual variance of a row is sigma^2 / weight.
    offset
        Column's name or array that is added to the linear predictor.
    contrasts
        Column -> contrast, as `bayeslmm.model` takes them.
    na
        `"omit"` leaves rows with missing values out, `"raise"` refuses them.
    dialect
        `"lme4"` or `"brms"`: whose reading of the formula.

    Returns
    -------
    ClassicalFit
        Warns `SingularFitWarning` where a variance is zero or a correlation one, `ConvergenceWarning` where the search failed or
        the optimum is flat, `DataWarning` where predictors are badly scaled.

    Raises
    ------
    FormulaError, DataError
        As `bayeslmm.model` does, and for grouping factors that cannot have a variance (one level, a level for every row).
    FitError
        For another family than gaussian, further predictors, or nothing left to explain: by the fixed effects, or by fixed and
        random effects together.

    Source: Bates, Maechler, Bolker & Walker (2015), J. Stat. Softw. 67(1).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> round(fit.criterion, 4)
    1743.6283
    """
    ready = as_model(formula, data, weights=weights, offset=offset, contrasts=contrasts, na=na, dialect=dialect)
    return _fit(ready, reml=reml, start=None)


def refit(fit: ClassicalFit, y: Any) -> ClassicalFit:
    """Fit the same model to another response, starting from the estimates of `fit`.

    Parameters
    ----------
    fit
        What `lmer` returned.
    y
        The new response: one finite number for each row that was used, or for each row of the data.

    Raises
    ------
    DataError
        If `y` has another length, or is not finite.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))
    >>> again = bl.refit(fit, fit.simulate(seed=1)["sim_1"])
    >>> again.nobs
    30
    """
    design = fit.model.design
    values = np.array(y, dtype=float)
    if values.shape == design.kept.shape and len(design.kept) != design.n:
        values = values[design.kept]
    if values.shape != (design.n,):
        raise DataError(f"the new response has shape {values.shape}; the fit uses {design.n} rows")
    if not np.all(np.isfinite(values)):
        raise DataError("the new response is not finite", rows=list(design.index[~np.isfinite(values)]))
    values.flags.writeable = False
    return _fit(replace(fit.model, design=replace(design, y=values)), reml=fit.reml, start=fit.theta)


def problem_of(model: Model, *, reml: bool = True, bases: Sequence[Array | None] | None = None) -> Problem:
    """Return the criterion of a gaussian model, ready to be evaluated at any theta (see `engine`; `bases` as in `prepare`).

    Raises
    ------
    FitError, DataError
        As `lmer` does.
    """
    design = model.design
    if model.family.name != "gaussian" or model.link.name != "identity":
        shown = f"{model.family.name}({model.link.name})"
        raise FitError(f"the classical engine fits gaussian models with identity link so far, not {shown}; use `brm` for it")
    if design.parameters:
        named = ", ".join(design.parameters)
        raise FitError(f"the classical engine fits one predictor, of the mean; this model has more ({named}): use `brm` for it")
    check_groups(design, residual=True)
    terms = [
        TermData(
            group=block.group,
            index=block.index,
            n_levels=block.n_levels,
            values=block.values,
            structure=structure_of(block),
        )
        for block in design.blocks
    ]
    return prepare(
        design.y,
        design.X,
        terms,
        weights=design.weights if design.has_weights else None,
        offset=design.offset if design.has_offset else None,
        reml=reml,
        bases=bases,
    )


def _fit(model: Model, *, reml: bool, start: Array | None) -> ClassicalFit:
    fit = fit_model(model, reml=reml, start=start)
    _warn(fit)
    return fit


def fit_model(model: Model, *, reml: bool, start: Array | None = None, problem: Problem | None = None) -> ClassicalFit:
    """Fit a model without a warning, from `start` (theta) if given; `problem`: that of the model, where it is at hand."""
    with one_thread():
        problem = problem_of(model, reml=reml) if problem is None else problem
        found = optimum(problem, start)
        if not found.converged:
            problem, found = _search_turned(model, problem, found)
        theta = theta_of(problem, found.x)
        values = estimate_at(problem, found.x)
    design = model.design
    df = problem.df if design.blocks else problem.n - problem.p
    return ClassicalFit(
        model=model,
        method="REML" if reml else "ML",
        theta=_frozen(theta),
        criterion=values.criterion,
        sigma=float(np.sqrt(values.pwrss / df)),
        beta=_frozen(values.beta),
        unscaled_vcov=_frozen(values.unscaled_vcov),
        effects=tuple(_frozen(effects) for effects in _by_block(problem, values.b)),
        unscaled_condvar={group: _frozen(v) for group, v in zip(problem.groups, values.unscaled_variance, strict=True)},
        ld_l2=values.ld_l2,
        ld_rx2=values.ld_rx2,
        pwrss=values.pwrss,
        search=_log(model, problem, found) if design.blocks else None,
    )


def _frozen(values: Array) -> Array:
    values.flags.writeable = False
    return values


def _by_block(problem: Problem, b: tuple[Array, ...]) -> list[Array]:
    return [b[term.factor][:, term.column : term.column + term.k].copy() for term in problem.terms]


def optimum(problem: Problem, start: Array | None = None) -> Minimum:
    """Return the minimum of the criterion, searched from `start` (theta) or from moments, from elsewhere too where it is doubtful."""
    box = _box(problem)
    curved = not all(term.structure.linear for term in problem.terms)
    first = problem.start if start is None else _inside(problem, vector_of(problem, start))

    def doubtful(found: Minimum) -> bool:
        _refuse_exact(problem, found)
        return curved or found.flat or not found.converged or bool(np.any(box.on_edge(found.x)))

    return search(
        lambda t: objective(problem, t),
        first,
        box,
        problem.curvature,
        others=_other_starts(problem),
        doubtful=doubtful,
    )


def _refuse_exact(problem: Problem, found: Minimum) -> None:
    """Raise where a search has run to where nothing is left of the response but rounding: the likelihood has no maximum."""
    if unexplained(problem, found.x) >= _EXACT:
        return
    sizes = [float(np.max(np.abs(found.x[term.theta]))) for term in problem.terms]
    large = [problem.groups[term.factor] for term, size in zip(problem.terms, sizes, strict=True) if size > 1e-2 * max(sizes)]
    groups = dict.fromkeys(large)
    raise FitError(
        f"the random effects of {' and '.join(groups)} fit the response exactly (residual variance 0): it does not vary within their "
        "levels, or rows are repeated; leave the term out, or keep one row for each of its levels and fit a model without it"
    )


def _search_turned(model: Model, problem: Problem, found: Minimum) -> tuple[Problem, Minimum]:
    """Search on from where a search failed, with each unstructured term in the principal directions of its covariance there."""
    again = problem_of(model, reml=problem.reml, bases=turned(problem, found.x))
    start = vector_of(again, theta_of(problem, found.x))
    better = minimise(lambda t: objective(again, t), _inside(again, start), _box(again), again.curvature)
    if better.value > found.value + 1e-9 * max(1.0, abs(found.value)):
        return problem, found
    return again, replace(better, evaluations=found.evaluations + better.evaluations, starts=found.starts + 1)


def _box(problem: Problem) -> Box:
    return Box(lower=problem.lower, upper=problem.upper, mirror=problem.mirror)


def _inside(problem: Problem, t: Array) -> Array:
    """Move zero standard deviations a little off zero, where the gradient would vanish."""
    return np.where(_is_sd(problem), np.maximum(t, 0.02), t)


def _is_sd(problem: Problem) -> Array:
    is_sd: Array = problem.mirror | (problem.lower == 0.0)
    return is_sd


def _other_starts(problem: Problem) -> list[Array]:
    """Return starts that differ in kind: lme4's identity, then small and large effects with correlations of either sign."""
    identity = vector_of(problem, np.concatenate([np.zeros(0), *(term.structure.start(term.k) for term in problem.terms)]))
    on_diagonal = _is_sd(problem)
    sign = np.where(np.arange(problem.n_theta) % 2 == 0, 0.4, -0.4)
    mixed = np.where(on_diagonal, 0.5, np.clip(sign, 0.5 * problem.lower, 0.5 * problem.upper))
    bounded = np.isfinite(problem.upper)
    return [identity, mixed, np.where(on_diagonal, 2.0, np.where(bounded, 0.8 * problem.upper, -mixed))]


def _log(model: Model, problem: Problem, found: Minimum) -> SearchLog:
    J = theta_jacobian(problem, found.x)
    back = np.linalg.pinv(J)
    boundary = bool(np.any(_box(problem).on_edge(found.x)))
    verdict = "converged at the boundary" if boundary else "converged"
    names = _undetermined(model, problem, found, J)
    if names:
        verdict = "flat"
    if not found.converged:
        verdict = "failed"
    return SearchLog(
        optimiser=_OPTIMISER,
        evaluations=found.evaluations,
        starts=found.starts,
        gradient=_frozen(back.T @ found.gradient),
        hessian=_frozen(back.T @ found.hessian @ back),
        projected=found.projected,
        least_curvature=found.least_curvature,
        flat=bool(names),
        undetermined=names,
        converged=found.converged,
        verdict=verdict,
        trace=found.trace,
    )


def _undetermined(model: Model, problem: Problem, found: Minimum, J: Array) -> tuple[str, ...]:
    """Return the covariance parameters that change along the flat directions, if the covariance matrices change at all there.

    `J` is d theta / d t. Where some columns of a factor L are zero, L may change and LL' not: such a direction says nothing about the data.
    """
    if not found.flat:
        return ()
    return undetermined(model.design.blocks, theta_of(problem, found.x), J @ found.flat_directions)


def _warn(fit: ClassicalFit) -> None:
    poorly = badly_scaled(fit.model.design)
    if poorly:
        warnings.warn(DataWarning("badly_scaled", f"badly scaled: {'; '.join(poorly)}"), stacklevel=4)
    terms = singular_terms(fit)
    if terms:
        message = (
            f"boundary (singular) fit: a variance of zero or a correlation of one in {', '.join(terms)}; "
            "the data do not support the term: simplify it, or fit by brm, whose prior keeps the variance away from zero"
        )
        warnings.warn(SingularFitWarning("singular", message), stacklevel=4)
    if fit.convergence == "failed":
        message = "the search for the optimum did not converge; see fit.diagnose(), rescale predictors or simplify the random effects"
        warnings.warn(ConvergenceWarning("not_converged", message), stacklevel=4)
    elif fit.search is not None and fit.search.flat:
        message = (
            f"the optimum is flat: the data determine only a combination of {', '.join(fit.search.undetermined)}; the criterion and the "
            "fixed effects hold, these variances and correlations do not; drop a random effect or a correlation"
        )
        warnings.warn(ConvergenceWarning("flat", message), stacklevel=4)


@cache
def _thread_pools() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold the linear algebra libraries to one thread: the matrices are small, and idle threads that spin cost more than they bring."""
    with _thread_pools().limit(limits=1, user_api="blas"):
        yield
