"""`lmer`: fit a linear mixed model by REML or maximum likelihood; `refit` it to another response."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.classical.diagnose import badly_scaled, on_boundary, plateau, undetermined
from bayeslmm.classical.engine import (
    Placed,
    Problem,
    TermData,
    boundary_prior,
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
from bayeslmm.classical.noise import has_noise
from bayeslmm.classical.optimise import Box, Minimum, Objective, minimise, search
from bayeslmm.classical.separated import WAY_OUT, separated
from bayeslmm.covariance import structure_of
from bayeslmm.design import check_groups
from bayeslmm.errors import ConvergenceWarning, DataError, DataWarning, FitError, SingularFitWarning
from bayeslmm.formula.values import frozen
from bayeslmm.linear.triangle import inverse_of
from bayeslmm.model import Model, as_model

if TYPE_CHECKING:
    from bayeslmm.design import Design
    from bayeslmm.formula import Formula

__all__ = [
    "box_of",
    "by_block",
    "fit_again",
    "fit_model",
    "inside",
    "lmer",
    "needs_maximum",
    "one_thread",
    "optimum",
    "other_starts",
    "problem_of",
    "refit",
    "refuse_exact",
    "terms_of",
    "to_minimise",
    "verdict_of",
    "warn_of",
]

type Array = np.ndarray

_OPTIMISER = "projected BFGS, then Newton, with the exact gradient"
_METHODS = {(True, False): "REML", (False, False): "ML", (True, True): "MAP", (False, True): "MAP (ML)"}
"""Restricted likelihood or not, prior or not -> the fit's method."""
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
    data2: Mapping[str, Any] | None = None,
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
    data2
        Name -> known covariance matrix among the levels of a factor, as `bayeslmm.model` takes it for `(x | gr(g, cov = name))`.
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

    Notes
    -----
    Residuals may have a structure, as in nlme: `formula("y ~ f + (1 | g)", sigma="~ f")` has log(sigma) = W gamma, which for a factor is
    `varIdent(form = ~1 | f)`, for a number `varExp`; `+ ar(time, gr)` in the formula of the mean is `corAR1(form = ~time | gr)`, the
    stationary correlation rho^|t - t'| of residuals of one series `gr` at whole times (by default the rows follow one another, and all
    are one series). Series must lie within the levels of every grouping factor. Both may stand together, and without random terms.

    Source: Bates, Maechler, Bolker & Walker (2015), J. Stat. Softw. 67(1); Pinheiro & Bates (2000), Mixed-Effects Models in S and
    S-PLUS, chapter 5, for residual structures.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> data = bl.load_dataset("sleepstudy")
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", data)
    >>> round(fit.criterion, 4)
    1743.6283
    >>> in_time = bl.lmer("Reaction ~ Days + (1 | Subject) + ar(Days, Subject)", data)
    >>> round(float(in_time.further["ar"].natural()[0]), 4)
    0.6531
    """
    ready = as_model(formula, data, weights=weights, offset=offset, contrasts=contrasts, data2=data2, na=na, dialect=dialect)
    return _warned(fit_model(ready, reml=reml))


def refit(fit: ClassicalFit, y: Any) -> ClassicalFit:
    """Fit the same model to another response, starting from the estimates of `fit`.

    Parameters
    ----------
    fit
        What `lmer` or `glmer` returned.
    y
        The new response: one finite number for each row that was used, or for each row of the data; of rows with trials, successes.

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
    return _warned(fit_again(fit, fit.model.on(replace(design, y=values))))


def fit_again(fit: ClassicalFit, model: Model) -> ClassicalFit:
    """Fit a model of other rows or responses as another was, starting from its estimates, without a warning."""
    if fit.generalised:
        from bayeslmm.classical.glmm import refit_generalised

        return refit_generalised(fit, model)
    return fit_model(model, reml=fit.reml, start=fit.theta, avoid_boundary=fit.avoids_boundary)


def problem_of(model: Model, *, reml: bool = True, bases: Sequence[Array | None] | None = None) -> Problem:
    """Return the criterion of a gaussian model, ready to be evaluated at any theta (see `engine`; `bases` as in `prepare`).

    Raises
    ------
    FitError, DataError
        As `lmer` does.
    """
    design = model.design
    terms = terms_of(model)
    if has_noise(design):
        raise FitError(
            "this is not available for a model with a residual structure (a predictor of sigma, or ar()), whose criterion depends on more "
            "than theta; use `confint` by wald or boot, `bootstrap`, or `anova` of two fits"
        )
    return prepare(
        design.y,
        design.X,
        terms,
        weights=design.weights if design.has_weights else None,
        offset=design.offset if design.has_offset else None,
        reml=reml,
        bases=bases,
    )


def _refuse_known_errors(design: Design) -> None:
    if design.known_errors:
        raise FitError("lmer estimates the residual variance, and known standard errors, se(), leave none to estimate; use `brm`")


def terms_of(model: Model) -> list[TermData]:
    """Return the random terms of a gaussian model for the engine, once the model is one that it can fit; raises as `problem_of`."""
    design = model.design
    if model.family.name != "gaussian" or model.link.name != "identity":
        shown = f"{model.family.name}({model.link.name})"
        raise FitError(f"this is for gaussian models with identity link, not {shown}; use `brm` or `glmer` for those")
    _refuse_known_errors(design)
    check_groups(design, residual=True)
    return [
        TermData(
            group=block.group,
            index=block.index,
            n_levels=block.n_levels,
            values=block.values,
            structure=structure_of(block),
            root=None if block.known is None else block.known.root,
        )
        for block in design.blocks
    ]


def _warned(fit: ClassicalFit) -> ClassicalFit:
    warn_of(fit)
    return fit


def fit_model(
    model: Model, *, reml: bool, start: Array | None = None, problem: Problem | None = None, avoid_boundary: bool = False
) -> ClassicalFit:
    """Fit a model without a warning, from `start` (theta) if given; `problem`: that of the model, where it is at hand.

    With `avoid_boundary` theta is the mode of likelihood times `engine.boundary_prior` (method `MAP`, or `MAP (ML)`); all else is
    estimated at this theta as ever, and the criterion is that of the likelihood alone.
    """
    if has_noise(model.design):
        from bayeslmm.classical.structured import fit_structured

        return fit_structured(model, reml=reml, start=start, avoid_boundary=avoid_boundary)
    with one_thread():
        problem = problem_of(model, reml=reml) if problem is None else problem
        found = optimum(problem, start, avoid_boundary=avoid_boundary)
        if not found.converged:
            problem, found = _search_turned(model, problem, found, avoid_boundary)
        theta = theta_of(problem, found.x)
        values = estimate_at(problem, found.x)
    design = model.design
    df = problem.df if design.blocks else problem.n - problem.p
    return ClassicalFit(
        model=model,
        method=_METHODS[reml, avoid_boundary],
        theta=frozen(theta),
        criterion=values.criterion,
        sigma=float(np.sqrt(values.pwrss / df)),
        beta=frozen(values.beta),
        unscaled_vcov=frozen(values.unscaled_vcov),
        effects=tuple(frozen(effects) for effects in by_block(problem, values.b)),
        unscaled_condvar={group: frozen(v) for group, v in zip(problem.groups, values.unscaled_variance, strict=True)},
        ld_l2=values.ld_l2,
        ld_rx2=values.ld_rx2,
        pwrss=values.pwrss,
        search=_log(model, problem, found) if design.blocks else None,
    )


def by_block(problem: Placed, b: tuple[Array, ...]) -> list[Array]:
    """Return the random effects (J, k) of each term, from those of each grouping factor."""
    return [b[term.factor][:, term.column : term.column + term.k].copy() for term in problem.terms]


def to_minimise(problem: Problem, *, avoid_boundary: bool = False) -> Objective:
    """Return the criterion with its gradient as a function of t, with the prior that keeps it off the boundary if wanted."""
    if not avoid_boundary:
        return lambda t: objective(problem, t)

    def penalised(t: Array) -> tuple[float, Array]:
        value, gradient = objective(problem, t)
        penalty, slope = boundary_prior(problem, t)
        return value + penalty, gradient + slope

    return penalised


def optimum(problem: Problem, start: Array | None = None, *, avoid_boundary: bool = False) -> Minimum:
    """Return the minimum of the criterion, searched from `start` (theta) or from moments, from elsewhere too where it is doubtful."""
    box = box_of(problem)
    curved = not all(term.structure.linear for term in problem.terms)
    first = problem.start if start is None else inside(problem, vector_of(problem, start))

    def doubtful(found: Minimum) -> bool:
        refuse_exact(problem, found)
        return curved or found.flat or not found.converged or bool(np.any(box.on_edge(found.x)))

    return search(
        to_minimise(problem, avoid_boundary=avoid_boundary),
        first,
        box,
        problem.curvature,
        others=other_starts(problem),
        doubtful=doubtful,
    )


def refuse_exact(problem: Problem, found: Minimum) -> None:
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


def _search_turned(model: Model, problem: Problem, found: Minimum, avoid_boundary: bool) -> tuple[Problem, Minimum]:
    """Search on from where a search failed, with each unstructured term in the principal directions of its covariance there."""
    again = problem_of(model, reml=problem.reml, bases=turned(problem, found.x))
    start = vector_of(again, theta_of(problem, found.x))
    function = to_minimise(again, avoid_boundary=avoid_boundary)
    better = minimise(function, inside(again, start), box_of(again), again.curvature)
    if better.value > found.value + 1e-9 * max(1.0, abs(found.value)):
        return problem, found
    return again, replace(better, evaluations=found.evaluations + better.evaluations, starts=found.starts + 1)


def box_of(problem: Placed) -> Box:
    """Return the limits of the search."""
    return Box(lower=problem.lower, upper=problem.upper, mirror=problem.mirror)


def inside(problem: Placed, t: Array) -> Array:
    """Move zero standard deviations a little off zero, where the gradient would vanish."""
    return np.where(_is_sd(problem), np.maximum(t, 0.02), t)


def _is_sd(problem: Placed) -> Array:
    is_sd: Array = problem.mirror | (problem.lower == 0.0)
    return is_sd


def other_starts(problem: Placed) -> Iterator[Array]:
    """Yield starts that differ in kind: lme4's identity, then small and large effects with correlations of either sign."""
    identity = vector_of(problem, np.concatenate([np.zeros(0), *(term.structure.start(term.k) for term in problem.terms)]))
    on_diagonal = _is_sd(problem)
    sign = np.where(np.arange(len(problem.scale)) % 2 == 0, 0.4, -0.4)
    mixed = np.where(on_diagonal, 0.5, np.clip(sign, 0.5 * problem.lower, 0.5 * problem.upper))
    bounded = np.isfinite(problem.upper)
    yield from (identity, mixed, np.where(on_diagonal, 2.0, np.where(bounded, 0.8 * problem.upper, -mixed)))


def _log(model: Model, problem: Problem, found: Minimum) -> SearchLog:
    J = theta_jacobian(problem, found.x)
    back = inverse_of(J)
    names = _undetermined(model, problem, found, J)
    return SearchLog(
        optimiser=_OPTIMISER,
        evaluations=found.evaluations,
        starts=found.starts,
        gradient=frozen(back.T @ found.gradient),
        hessian=frozen(back.T @ found.hessian @ back),
        projected=found.projected,
        least_curvature=found.least_curvature,
        flat=bool(names),
        undetermined=names,
        converged=found.converged,
        verdict=verdict_of(found, box_of(problem), flat=bool(names)),
        trace=found.trace,
    )


def verdict_of(found: Minimum, box: Box, *, flat: bool) -> str:
    """Return how a search ended, in the words of `SearchLog`; `flat`: along a direction that means something."""
    if not found.converged:
        return "failed"
    if flat:
        return "flat"
    return "converged at the boundary" if np.any(box.on_edge(found.x)) else "converged"


def _undetermined(model: Model, problem: Problem, found: Minimum, J: Array) -> tuple[str, ...]:
    """Return the covariance parameters that change along the flat directions, if the covariance matrices change at all there.

    `J` is d theta / d t. Where some columns of a factor L are zero, L may change and LL' not: such a direction says nothing about the data.
    """
    if not found.flat:
        return ()
    return undetermined(model.design.blocks, theta_of(problem, found.x), J @ found.flat_directions)


def warn_of(fit: ClassicalFit) -> None:
    """Warn of what is wrong with a fit: called by what the user called, at one remove."""
    poorly = badly_scaled(fit.model.design)
    if poorly:
        warnings.warn(DataWarning("badly_scaled", f"badly scaled: {'; '.join(poorly)}"), stacklevel=4)
    terms = on_boundary(fit)
    if terms:
        message = (
            f"boundary (singular) fit: {'; '.join(terms)}; the data do not support all of the random effects: simplify them, or fit by "
            "brm, whose prior keeps variances away from zero; `remedy` shows the ways out side by side"
        )
        warnings.warn(SingularFitWarning("singular", message), stacklevel=4)
    if fit.convergence == "failed":
        message = "the search for the optimum did not converge; see fit.diagnose(), rescale predictors or simplify the random effects"
        warnings.warn(ConvergenceWarning("not_converged", message), stacklevel=4)
    apart = separated(fit)
    if apart is not None:
        warnings.warn(ConvergenceWarning("separated", f"{apart.sentence}; {WAY_OUT}"), stacklevel=4)
    elif fit.search is not None and fit.search.flat and fit.convergence != "failed":
        found, remedy = plateau(fit)
        warnings.warn(ConvergenceWarning("flat", f"{found}; all other estimates hold; {remedy}"), stacklevel=4)


def needs_maximum(fit: ClassicalFit, what: str) -> None:
    """Refuse a fit by a prior where likelihoods at their maxima are compared; `what` names the verb.

    Raises
    ------
    FitError
        For the rungs `MAP` and `penalised` of `remedy`.
    """
    if fit.avoids_boundary or fit.penalty is not None:
        prior = "a boundary-avoiding prior" if fit.avoids_boundary else "a penalty of the coefficients"
        raise FitError(
            f"{what} compares likelihoods at their maxima, and this fit ({fit.method}) is the mode under {prior}; take the fit without "
            "it, by `lmer(fit.model)` or `glmer(fit.model)`, or bootstrap this one"
        )


@cache
def _thread_pools() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold the linear algebra libraries to one thread: the matrices are small, and idle threads that spin cost more than they bring."""
    with _thread_pools().limit(limits=1, user_api="blas"):
        yield
