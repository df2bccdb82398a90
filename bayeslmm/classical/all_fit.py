"""`all_fit`: the same model by several optimisers, side by side, to see whether they agree."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import optimize

from bayeslmm.classical.diagnose import row_factor
from bayeslmm.classical.engine import estimate_at, theta_of, vector_of
from bayeslmm.classical.glmm import searchable_generalised
from bayeslmm.classical.lmm import box_of, one_thread, problem_of, to_minimise
from bayeslmm.classical.optimise import Searchable, minimise
from bayeslmm.classical.parameters import parameter_values, parameters_of
from bayeslmm.covariance import structure_of
from bayeslmm.errors import BayesLmmError, FitError, suggest

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.design import Design

__all__ = ["ALL_FIT_COLUMNS", "OPTIMISERS", "Optimiser", "all_fit"]

type Array = np.ndarray

ALL_FIT_COLUMNS = ("criterion", "difference", "converged", "evaluations", "seconds", "gradient", "verdict", "message")
SAME_CRITERION = 1e-3
"""Criteria (-2 log-likelihoods) that differ by less are the same: a likelihood ratio of 1.0005."""
SAME_ESTIMATE = 0.01
"""Coefficients that differ by less than this share of their standard error are the same."""
SAME_COVARIANCE = 0.02
"""So are covariance matrices of effects, in units of the residual variance and of their columns, where no entry differs by more than
this, or by more than this share of the largest."""


# ------------------------------------------------------------------------------------------------------- the criterion of a fit


def searchable(fit: ClassicalFit) -> Searchable:
    """Return the criterion of a fit, from lme4's start: theta of the identity."""
    return searchable_generalised(fit) if fit.generalised else _linear(fit)


def _linear(fit: ClassicalFit) -> Searchable:
    problem = problem_of(fit.model, reml=fit.reml)
    identity = [structure_of(block).start(block.n_effects) for block in fit.model.design.blocks]

    def estimates(t: Array) -> tuple[Array, float, Array]:
        found = estimate_at(problem, t)
        return theta_of(problem, t), float(np.sqrt(found.pwrss / problem.df)), found.beta

    return Searchable(
        function=to_minimise(problem, avoid_boundary=fit.avoids_boundary),
        start=vector_of(problem, np.concatenate(identity)),
        box=box_of(problem),
        curvature=problem.curvature,
        estimates=estimates,
    )


# ------------------------------------------------------------------------------------------------------------------ the optimisers


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimiser:
    """One way to search: `run(search, function)` returns the point, whether the optimiser calls it a success, and its message.

    `uses_gradient` says whether it takes the exact gradient, or only values of the function.
    """

    name: str
    uses_gradient: bool
    run: Callable[[Searchable, _Counted], tuple[Array, bool, str]]


def _newton(search: Searchable, function: _Counted) -> tuple[Array, bool, str]:
    found = minimise(function, search.start, search.box, search.curvature)
    return found.x, found.converged, "a Newton step changes nothing more" if found.converged else "stopped before the optimum"


_minimize: Any = optimize.minimize
"""SciPy's, whose types do not know that a table chooses the method."""


def _scipy(name: str, *, gradient: bool, method: str = "", **options: Any) -> Optimiser:
    """Return the row of one method of `scipy.optimize.minimize`."""

    def run(search: Searchable, function: _Counted) -> tuple[Array, bool, str]:
        found = _minimize(
            function if gradient else lambda t: function(t)[0],
            search.start,
            jac=gradient or None,
            method=method or name,
            bounds=optimize.Bounds(search.box.lower, search.box.upper),
            options=options,
        )
        return np.asarray(found.x, dtype=float), bool(found.success), str(found.message)

    return Optimiser(name=name, uses_gradient=gradient, run=run)


_MANY = 1_000_000
"""A limit on iterations that is never met: `max_evaluations` stops a search."""

OPTIMISERS: Mapping[str, Optimiser] = MappingProxyType(
    {
        row.name: row
        for row in (
            Optimiser(name="Newton", uses_gradient=True, run=_newton),
            _scipy("L-BFGS-B", gradient=True, maxiter=_MANY, maxfun=_MANY, ftol=1e-14, gtol=1e-7),
            _scipy("SLSQP", gradient=True, maxiter=_MANY, ftol=1e-12),
            _scipy("trust-constr", gradient=True, maxiter=_MANY, gtol=1e-7, xtol=1e-10),
            _scipy("Nelder-Mead", gradient=False, maxiter=_MANY, maxfev=_MANY, xatol=1e-6, fatol=1e-8, adaptive=True),
            _scipy("Powell", gradient=False, maxiter=_MANY, maxfev=_MANY, xtol=1e-6, ftol=1e-12),
            _scipy("COBYQA", gradient=False, maxiter=_MANY, maxfev=_MANY, final_tr_radius=1e-6),
        )
    }
)
"""Name -> optimiser: the package's own, then SciPy's with the exact gradient, then SciPy's without any."""


# ------------------------------------------------------------------------------------------------------------------------ the verb


def all_fit(fit: ClassicalFit, optimisers: Sequence[str] | str | None = None, *, max_evaluations: int = 20_000) -> pd.DataFrame:
    """Fit the same model again by several optimisers, each from lme4's start, and show whether they agree.

    Optimisers that differ in kind and arrive at one criterion and one set of estimates have found the optimum, whatever a
    convergence warning said. Where they arrive at one criterion but at other estimates, the criterion is flat: the data do not
    determine these estimates. Where some end higher, they stopped early or fell into another optimum: read the lowest, and
    trust it where several that differ in kind end there.

    Parameters
    ----------
    fit
        What `lmer` or `glmer` returned, with random effects.
    optimisers
        Names of `OPTIMISERS`, one or several; None for all: `Newton` (the package's own), `L-BFGS-B`, `SLSQP` and
        `trust-constr` with the exact gradient, `Nelder-Mead`, `Powell` and `COBYQA` without any.
    max_evaluations
        A search that asks for the criterion more often than this is stopped, and its best point is shown.

    Returns
    -------
    DataFrame
        A row by optimiser. `criterion` (as `fit.criterion`; of a fit with priors, these included); `difference` to the lowest of all;
        `converged`, as the optimiser itself says; `evaluations` of the criterion; `seconds`; `gradient`: the largest of a free parameter
        there, in scaled units; `verdict`: `agrees` (with the lowest), `same criterion, other estimates`, `higher` (by 0.001 or more) or
        `failed`; `message`, the optimiser's own. Then the estimates: a column for each standard deviation, correlation, `sigma` and
        coefficient, named as in `confint`, and for each theta, `theta_1` on. An optimiser that fails is a row of NaN with its message.

    Raises
    ------
    FitError
        For a fit without random effects, and for unknown optimisers.

    Source: as lme4's `allFit`; Bates et al. (2015), J. Stat. Softw. 67(1).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> bl.all_fit(fit, ["Newton", "L-BFGS-B", "COBYQA"])["verdict"].tolist()
    ['agrees', 'agrees', 'agrees']
    """
    chosen = _chosen(optimisers)
    if not fit.model.design.blocks:
        raise FitError("the model has no random effects: least squares has no optimiser that could disagree")
    with one_thread():
        search = searchable(fit)
        ends = [_search(row, search, max_evaluations) for row in chosen]
    return _table(fit, chosen, ends)


def _chosen(names: Sequence[str] | str | None) -> list[Optimiser]:
    wanted = list(OPTIMISERS) if names is None else [names] if isinstance(names, str) else list(names)
    for name in wanted:
        if name not in OPTIMISERS:
            raise FitError(f"unknown optimiser {name!r}{suggest(str(name), list(OPTIMISERS))} (there are {', '.join(OPTIMISERS)})")
    if not wanted:
        raise FitError(f"no optimiser is named; there are {', '.join(OPTIMISERS)}")
    return [OPTIMISERS[name] for name in wanted]


# ----------------------------------------------------------------------------------------------------------------------- one search


_WALL = 1e3
"""How far above the best value a point counts, relative to it, where the criterion is infinite: some line searches need a number."""


class _Stopped(Exception):
    """The limit of evaluations was met."""


@dataclass(slots=True)
class _Counted:
    """The criterion and its gradient, counted; remembers the best point; changes as a search goes, and never leaves this module."""

    search: Searchable
    limit: int
    evaluations: int = 0
    best: float = np.inf
    at: Array = field(default_factory=lambda: np.zeros(0))

    def __call__(self, t: Array) -> tuple[float, Array]:
        if self.evaluations >= self.limit:
            raise _Stopped
        self.evaluations += 1
        value, gradient = self.search.function(np.asarray(t, dtype=float))
        if np.isfinite(value) and value < self.best:
            self.best, self.at = value, np.array(t, dtype=float)
        return (value, gradient) if np.isfinite(value) else (self.best + _WALL * (1.0 + abs(self.best)), np.zeros_like(gradient))


@dataclass(frozen=True, slots=True, kw_only=True)
class _End:
    """Where one optimiser ended; `theta`, `sigma`, `beta` are None where it failed."""

    criterion: float
    converged: bool
    evaluations: int
    seconds: float
    gradient: float
    message: str
    at: tuple[Array, float, Array] | None


def _search(optimiser: Optimiser, search: Searchable, limit: int) -> _End:
    function = _Counted(search=search, limit=limit)
    began = time.perf_counter()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            x, converged, message = optimiser.run(search, function)
    except _Stopped:
        x, converged, message = function.at, False, f"stopped after {limit} evaluations"
    except (BayesLmmError, ArithmeticError, ValueError, RuntimeError) as error:
        x, converged, message = np.zeros(0), False, f"{type(error).__name__}: {error}"
    seconds = time.perf_counter() - began
    return _end(search, x, converged, " ".join(message.split()), function.evaluations, seconds)


def _end(search: Searchable, x: Array, converged: bool, message: str, evaluations: int, seconds: float) -> _End:
    value, gradient = search.function(x) if x.size else (np.nan, np.zeros(0))
    arrived = bool(np.isfinite(value))
    free = np.where(search.box.held(x, gradient), 0.0, np.abs(gradient)) if arrived else np.full(1, np.nan)
    return _End(
        criterion=value if arrived else np.nan,
        converged=converged and arrived,
        evaluations=evaluations,
        seconds=seconds,
        gradient=float(np.max(free)),
        message=message,
        at=search.estimates(x) if arrived else None,
    )


# ----------------------------------------------------------------------------------------------------------------------- the table


def _table(fit: ClassicalFit, chosen: Sequence[Optimiser], ends: Sequence[_End]) -> pd.DataFrame:
    design = fit.model.design
    best = min((end for end in ends if end.at is not None), key=lambda end: end.criterion, default=None)
    rows = []
    for end in ends:
        difference = end.criterion - best.criterion if best is not None else np.nan
        rows.append(
            (end.criterion, difference, end.converged, end.evaluations, end.seconds, end.gradient, _verdict(fit, end, best), end.message)
        )
    index = pd.Index([row.name for row in chosen], name="optimiser")
    table = pd.DataFrame(rows, columns=list(ALL_FIT_COLUMNS), index=index)
    names = [*(parameter.name for parameter in parameters_of(design)), *(f"theta_{i + 1}" for i in range(len(fit.theta)))]
    values = [np.full(len(names), np.nan) if end.at is None else _values(design, *end.at) for end in ends]
    estimates = pd.DataFrame(values, columns=names, index=index)
    return pd.concat([table, estimates if fit.has_residual else estimates.drop(columns="sigma")], axis=1)


def _values(design: Design, theta: Array, sigma: float, beta: Array) -> Array:
    return np.concatenate([parameter_values(design, theta, sigma, beta), theta])


def _verdict(fit: ClassicalFit, end: _End, best: _End | None) -> str:
    if end.at is None or best is None or best.at is None:
        return "failed"
    if end.criterion - best.criterion > SAME_CRITERION:
        return "higher"
    theta, _, beta = end.at
    best_theta, _, best_beta = best.at
    same = bool(np.all(np.abs(beta - best_beta) <= SAME_ESTIMATE * fit.standard_errors))
    for one, other in zip(_covariances(fit.model.design, theta), _covariances(fit.model.design, best_theta), strict=True):
        same = same and bool(np.max(np.abs(one - other)) <= SAME_COVARIANCE * max(1.0, float(np.max(np.abs(other)))))
    return "agrees" if same else "same criterion, other estimates"


def _covariances(design: Design, theta: Array) -> list[Array]:
    """Return per term the effects' covariance over the residual variance, in units of the root mean squares of their columns."""
    found, at = [], 0
    for block in design.blocks:
        size = structure_of(block).n_theta(block.n_effects)
        A = row_factor(block, theta[at : at + size])
        at += size
        found.append(A @ A.T)
    return found
