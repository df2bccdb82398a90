"""`glmer`: fit a generalised linear mixed model by maximum likelihood, Laplace's approximation or adaptive quadrature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.classical.diagnose import undetermined
from bayeslmm.classical.engine import TermData, basis_of, boundary_prior, conditional_variance, theta_jacobian, theta_of, vector_of
from bayeslmm.classical.fit import ClassicalFit, Further, SearchLog
from bayeslmm.classical.generalised import Glm, Glmm, Likelihood, Predictor, PredictorData, fixed_part, prepare, without_effects
from bayeslmm.classical.laplace import at_mode, laplace
from bayeslmm.classical.lmm import box_of, by_block, inside, lmer, one_thread, other_starts, verdict_of, warn_of
from bayeslmm.classical.optimise import Box, Minimum, Objective, Searchable, approach, free_box, minimise, search
from bayeslmm.classical.penalty import Penalty, penalty_for, penalty_of
from bayeslmm.classical.pirls import schur
from bayeslmm.classical.quadrature import MAX_NODES, quadrature
from bayeslmm.covariance import structure_of
from bayeslmm.design import check_groups
from bayeslmm.errors import DataError, FitError
from bayeslmm.families import LINKS
from bayeslmm.families.derivatives import derivatives
from bayeslmm.families.jets import Taylor
from bayeslmm.formula.values import frozen
from bayeslmm.linear import related
from bayeslmm.linear import system as blocked
from bayeslmm.model import Model, as_model

if TYPE_CHECKING:
    from bayeslmm.classical.engine import Term
    from bayeslmm.design import RandomBlock
    from bayeslmm.formula import Formula
    from bayeslmm.priors import PriorRow

__all__ = [
    "Criterion",
    "Method",
    "criterion_of",
    "engine_for",
    "fit_generalised",
    "glmer",
    "glmm_problem",
    "hessian_at",
    "nodes_of",
    "refit_generalised",
    "searchable_generalised",
]

type Array = np.ndarray

_LEAST_CURVATURE = 1e-12
"""Of a Hessian's eigenvalues, relative to the greatest: less is rounding."""
_FEW_NODES = {"PIRLS": 0, "Laplace": 1, "ML": 1}
_OPTIMISER = "projected BFGS, then Newton, with the exact gradient"


def glmer(
    formula: str | Formula | Model,
    data: Any = None,
    family: str = "binomial",
    *,
    link: str | None = None,
    n_agq: int = 1,
    penalty: str | PriorRow | Sequence[PriorRow] | None = None,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    data2: Mapping[str, Any] | None = None,
    na: str = "omit",
    dialect: str = "lme4",
) -> ClassicalFit:
    """Fit a generalised linear mixed model by maximum likelihood; without random terms, a generalised linear model.

    Parameters
    ----------
    formula, data
        lme4's formula, as `"cbind(incidence, size - incidence) ~ period + (1 | herd)"`, and a data frame; or a ready `Model` alone.
        What `bayeslmm.formula` returned may give further parameters predictors of their own, random terms included.
    family, link
        Response family in brms's spelling and its link (default: the family's own).
    n_agq
        Nodes of adaptive Gauss-Hermite quadrature, up to 50. 1 is Laplace's approximation; more take one random term with a single
        effect. 0 finds the coefficients of the mean together with the random effects, which is fast and less exact (lme4's
        `nAGQ = 0`). All constants are in the likelihood, so that fits compare between these.
    penalty
        A prior of the mean's coefficients whose mode, times the likelihood, is taken, so that estimates are finite where data are
        separated: `"jeffreys"` (Firth's penalised likelihood; at random effects of zero), `"prior"` (the model's own priors, as `brm`
        has them), a distribution of all coefficients but the intercept, as `"normal(0, 2.5)"`, or rows made by `prior(...)`. Standard
        errors are from the Hessian of both; the criterion is that of the likelihood alone.
    weights
        Column's name or array: a weight is a power of the row's likelihood; for gaussian responses sigma^2 / weight is the variance.
    offset
        Column's name or array that is added to the linear predictor of the mean.
    contrasts, data2, na, dialect
        As `bayeslmm.model` takes them.

    Returns
    -------
    ClassicalFit
        Method `Laplace`, `AGQ(k)` or `PIRLS` (`n_agq=0`); standard errors are those of the inverse Hessian of -log L in all
        parameters. Warns as `lmer` does, and `ConvergenceWarning` of code `separated` where the fixed effects separate the response:
        the coefficients named have no finite estimate, and are shown as far out as rounding lets them go.

    Raises
    ------
    FormulaError, DataError
        As `bayeslmm.model` does, and for grouping factors that cannot have a variance.
    FitError
        For a linear mixed model (use `lmer`), an `n_agq` that the random terms do not allow, or a penalty that the family cannot have.
    PriorError
        For a penalty that cannot be read, or that names nothing in the model.

    Source: Bates et al. (2015), J. Stat. Softw. 67(1); Kristensen et al. (2016), J. Stat. Softw. 70(5), for the observed Hessian;
    Firth (1993), Biometrika 80, 27-38, for Jeffreys' prior.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", bl.load_dataset("cbpp"))
    >>> round(fit.criterion, 4)
    184.0526
    >>> separated = {"hit": [0, 7], "miss": [12, 5], "arm": ["a", "b"]}
    >>> bl.glmer("cbind(hit, miss) ~ arm", separated, penalty="jeffreys").beta.round(3).tolist()
    [-3.219, 3.529]
    """
    options = {"link": link, "weights": weights, "offset": offset, "contrasts": contrasts, "data2": data2}
    ready = as_model(formula, data, family, **options, na=na, dialect=dialect)
    return _warned(fit_generalised(ready, n_agq=n_agq, penalty=penalty_of(penalty)))


def _warned(fit: ClassicalFit) -> ClassicalFit:
    warn_of(fit)
    return fit


def engine_for(model: Model, *, reml: bool = True, penalty: str | None = None) -> tuple[str, Callable[[], ClassicalFit]]:
    """Return the method by which the classical engine fits a model, and the fit to be made: `lmer`, or `glmer` with its penalty."""
    if _is_linear(model):
        return ("REML" if reml else "ML"), lambda: lmer(model, reml=reml)
    return "Laplace", lambda: glmer(model, penalty=penalty)


def refit_generalised(fit: ClassicalFit, model: Model) -> ClassicalFit:
    """Fit a model as another was, from its estimates, without a warning.

    Raises
    ------
    DataError
        If the response is none that the family can have.
    """
    design = model.design
    bad = model.family.check(design.y, design.trials)
    if np.any(bad):
        raise DataError(f"the new response must be {model.family.response}", rows=list(design.index[bad]))
    theta = np.concatenate([fit.theta, *(part.theta for part in fit.further.values())])
    return fit_generalised(model, n_agq=nodes_of(fit.approximation), start=theta, avoid_boundary=fit.avoids_boundary, penalty=fit.penalty)


def nodes_of(approximation: str) -> int:
    """Return the `n_agq` of a fit's `approximation`: `"PIRLS"`, `"Laplace"` or `"AGQ(k)"`; without random terms any."""
    return _FEW_NODES[approximation] if approximation in _FEW_NODES else int(approximation[4:-1])


# ---------------------------------------------------------------------------------------------------------------------- problem


def glmm_problem(model: Model, bases: Sequence[Array | None] | None = None) -> tuple[Glmm | None, Glm, tuple[Predictor, ...]]:
    """Return -2 log L of a model, ready to be evaluated; see `generalised.prepare`.

    Raises
    ------
    FitError, DataError
        As `glmer` does.
    """
    _check_model(model)
    design, family = model.design, model.family
    begin = family.start_parameters(design.y, design.trials)
    data = [PredictorData(name="", X=design.X, offset=design.offset, start=_start_of(model))]
    blocks = [(0, block) for block in design.blocks]
    for k, parameter in enumerate(family.parameters, start=1):
        part = design.parameters.get(parameter.name)
        X = np.ones((design.n, 1)) if part is None else part[0].X
        value = np.full(design.n, float(LINKS[parameter.link].link(np.array(begin[parameter.name]))))
        data.append(PredictorData(name=parameter.name, X=X, offset=_offset_of(model, parameter.name), start=value))
        blocks += [(k, block) for block in (() if part is None else part[1])]
    terms = [
        TermData(
            group=block.group,
            index=block.index,
            n_levels=block.n_levels,
            values=block.values,
            structure=structure_of(block),
            root=None if block.known is None else block.known.root,
        )
        for _, block in blocks
    ]
    return prepare(_likelihood(model), data, terms, [k for k, _ in blocks], bases)


def _start_of(model: Model) -> Array:
    """Return where the mean's predictor may start (n,): the family's start, where the link can reach it."""
    design = model.design
    with np.errstate(all="ignore"):
        eta = np.asarray(model.link.link(model.family.start(design.y, design.trials)), dtype=float)
    usable = np.isfinite(eta)
    return np.where(usable, eta, np.mean(eta[usable]) if np.any(usable) else 0.0)


def _check_model(model: Model) -> None:
    design = model.design
    if _is_linear(model) and not design.parameters:
        raise FitError("a gaussian model with identity link is a linear mixed model: use lmer(...) for it")
    if design.known_errors:
        raise FitError("glmer estimates sigma, and known standard errors, se(), leave none to estimate; use `brm`")
    residual = model.family.scale is not None
    for part in (design, *(replace(design, blocks=blocks) for _, blocks in design.parameters.values())):
        check_groups(part, residual=residual)


def _is_linear(model: Model) -> bool:
    return model.family.name == "gaussian" and model.link.name == "identity"


def _offset_of(model: Model, name: str) -> Array:
    """Return the offset of a further parameter: zero, but for the scale that precision weights divide."""
    design = model.design
    if name != model.family.scale or not design.has_weights:
        return np.zeros(design.n)
    return np.asarray(-0.5 * np.log(design.weights))


def _likelihood(model: Model) -> Likelihood:
    design, family = model.design, model.family
    links = (model.link, *(LINKS[parameter.link] for parameter in family.parameters))
    power = design.weights if design.has_weights and family.scale is None else None
    aux = {name: np.asarray(value, dtype=float) for name, value in family.start_parameters(design.y, design.trials).items()}
    guarded = _leaves(model, aux, np.linspace(-30.0, 30.0, 121))

    def likelihood(etas: Array, order: int) -> Taylor:
        found = derivatives(family, links, design.y, etas, design.trials, order)
        if guarded and _leaves(model, aux, etas[0]):
            return replace(found, value=np.full(design.n, np.nan))
        if power is None:
            return found
        higher = [part if part.size == 0 else power * part for part in (found.d1, found.d2, found.d3)]
        return Taylor(value=power * found.value, d1=higher[0], d2=higher[1], d3=higher[2])

    return likelihood


def _leaves(model: Model, aux: Mapping[str, Array], eta: Array) -> bool:
    """Return whether some mean at eta (m,) is none that the family can have, so that the variance would be negative.

    A row may have a likelihood even so, as a success has where the log link makes its probability 1.2.
    """
    with np.errstate(all="ignore"):
        variance = model.family.variance(np.asarray(model.link.mean(eta)), aux, None)
    return bool(np.any(variance < 0.0))


# ----------------------------------------------------------------------------------------------------------------------- search


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a likelihood is computed: its name, the function of (outer coefficients, t), and how many coefficients are in the mode.

    `prior`: -2 log of the priors that are in the function, with its gradient, if any are; `penalised`: whether coefficients have one.
    """

    name: str
    objective: Objective
    m: int
    prior: Objective | None = None
    penalised: bool = False


def _method(problem: Glmm, model: Model, n_agq: int, penalty: Penalty | None, *, avoid_boundary: bool) -> Method:
    """Return the function to minimise: that of `n_agq` nodes, with the priors that are asked for."""
    method = _likelihood_by(problem, n_agq)
    if avoid_boundary:
        method = replace(_with_prior(method, _boundary(problem, method.m)), name=f"MAP ({method.name})")
    if penalty is None:
        return method
    if method.m:
        raise FitError("a penalty needs the coefficients outside the mode: use n_agq=1, Laplace's approximation, or more nodes")
    penalised = _with_prior(method, _coefficients_prior(model, problem.predictors, penalty))
    return replace(penalised, name=_penalised_name(method.name, penalty), penalised=True)


def _penalised_name(name: str, penalty: Penalty) -> str:
    return f"{name}, penalty {penalty.name}"


def _likelihood_by(problem: Glmm, n_agq: int) -> Method:
    if n_agq == 0:
        return Method(name="PIRLS", objective=lambda x: laplace(problem, x, problem.n_mean), m=problem.n_mean)
    if n_agq == 1:
        return Method(name="Laplace", objective=lambda x: laplace(problem, x), m=0)
    return Method(name=f"AGQ({n_agq})", objective=lambda x: quadrature(problem, x, n_agq), m=0)


def _with_prior(method: Method, prior: Objective) -> Method:
    return replace(method, objective=_sum(method.objective, prior), prior=prior if method.prior is None else _sum(method.prior, prior))


def _sum(one: Objective, other: Objective) -> Objective:
    def both(x: Array) -> tuple[float, Array]:
        value, gradient = one(x)
        more, slope = other(x)
        return value + more, gradient + slope

    return both


def _boundary(problem: Glmm, m: int) -> Objective:
    """Return the prior that keeps theta off the boundary, `engine.boundary_prior`, as a function of (outer coefficients, t)."""
    outer = problem.p - m

    def prior(x: Array) -> tuple[float, Array]:
        value, slope = boundary_prior(problem, x[outer:])
        return value, np.concatenate([np.zeros(outer), slope])

    return prior


def _coefficients_prior(model: Model, predictors: Sequence[Predictor], penalty: Penalty) -> Objective:
    """Return a penalty as a function of (all coefficients gamma, anything more)."""
    function, mean = penalty_for(model, penalty), predictors[0]

    def prior(x: Array) -> tuple[float, Array]:
        value, slope = function(mean.back @ x[mean.place])
        gradient = np.zeros_like(x)
        gradient[mean.place] = mean.back.T @ slope
        return value, gradient

    return prior


def _check_nodes(n_agq: Any, terms: int, effects: int) -> None:
    if isinstance(n_agq, bool) or not isinstance(n_agq, int | np.integer) or not 0 <= n_agq <= MAX_NODES:
        raise FitError(f"n_agq must be a whole number from 0 to {MAX_NODES}, not {n_agq!r}")
    if n_agq > 1 and (terms != 1 or effects != 1):  # a known covariance makes a row depend on the effects of all levels
        raise FitError(
            f"n_agq={n_agq} needs exactly one random term with a single effect, as (1 | group), of independent levels; use n_agq=1, "
            "Laplace's approximation, or brm for an exact posterior"
        )


def _box(problem: Glmm, m: int) -> Box:
    """Return the limits of (outer coefficients, t)."""
    own, free = box_of(problem), np.full(problem.p - m, np.inf)
    mirror = np.concatenate([np.zeros(problem.p - m, dtype=bool), own.mirror])
    return Box(lower=np.concatenate([-free, own.lower]), upper=np.concatenate([free, own.upper]), mirror=mirror)


def _optimum(problem: Glmm, method: Method, start: Array | None) -> Minimum:
    """Return the minimum: near it by the approximation with the coefficients in the mode, which is cheap, then by the method itself.

    That approximation has no penalty: a penalised search begins at the penalised coefficients without random effects.
    """
    m = 0 if method.penalised else problem.n_mean
    first = np.concatenate([problem.gamma[m:], problem.start if start is None else inside(problem, vector_of(problem, start))])
    curvature = np.concatenate([problem.information[m:], problem.curvature])
    evaluations = 0
    problem.warm.inner = problem.gamma[:m].copy()
    first[problem.p - m :] *= _usable_share(problem, first, m)
    if m and method.m == 0:
        near, _, evaluations = approach(lambda x: laplace(problem, x, m), first, _box(problem, m), curvature)
        mode, _ = at_mode(problem, near, m)
        first = np.concatenate([problem.gamma[:m] if mode is None else mode.inner, near])
        curvature = np.concatenate([problem.information, problem.curvature])
    if method.prior is not None:
        t = first[problem.p - method.m :]
        t[:] = np.where(problem.mirror | (problem.lower == 0.0), np.maximum(np.abs(t), 0.1), t)
    box = _box(problem, method.m)
    places = list(other_starts(problem))[0 if problem.n_theta > 1 else -1 :]
    others = [np.concatenate([problem.gamma[method.m :], t]) for t in places]
    curved = not all(term.structure.linear for term in problem.terms)
    outer = problem.p - method.m

    def doubtful(found: Minimum) -> bool:
        flat = bool(np.any(np.abs(found.flat_directions[outer:]) > 1e-3))
        return curved or flat or not found.converged or bool(np.any(box.on_edge(found.x)))

    found = search(method.objective, first, box, curvature, others=others, doubtful=doubtful)
    return replace(found, evaluations=found.evaluations + evaluations)


def _usable_share(problem: Glmm, x: Array, m: int) -> float:
    """Return how far from zero the covariance parameters may start, so that the likelihood has a value: all of the way, or less.

    The first m of the mean's coefficients are in the mode, and not in x.

    Raises
    ------
    FitError
        Where it has none even without random effects to speak of.
    """
    outer = problem.p - m
    for share in (1.0, 0.3, 0.1, 0.02):
        there = np.concatenate([x[:outer], share * x[outer:]])
        if np.isfinite(laplace(problem, there, m)[0]):
            return share
    raise FitError(
        "the likelihood has no value where the search starts: the link lets the mean leave the range of the family (as `identity`, "
        "`inverse` and `sqrt` do); use a link that keeps it inside, as `log` or `logit`, or give the formula an intercept"
    )


def hessian_at(objective: Objective, x: Array, free: Array) -> Array:
    """Return the Hessian of the free parameters by central differences of the exact gradient."""
    columns = []
    for i in np.flatnonzero(free):
        h = np.zeros(len(x))
        h[i] = 2e-4 * max(1.0, abs(x[i]))
        columns.append(((objective(x + h)[1] - objective(x - h)[1]) / (2.0 * h[i]))[free])
    H = np.array(columns).reshape(len(columns), len(columns))
    return np.asarray(0.5 * (H + H.T))


# -------------------------------------------------------------------------------------------------------------------------- fit


def fit_generalised(
    model: Model, *, n_agq: int = 1, start: Array | None = None, avoid_boundary: bool = False, penalty: Penalty | None = None
) -> ClassicalFit:
    """Fit a generalised model without a warning, from `start` (theta of all predictors' terms) if given.

    With `avoid_boundary` the mode of likelihood times `engine.boundary_prior` (method `MAP (Laplace)`), with a penalty that of
    likelihood times the penalty (method `Laplace, penalty jeffreys`): standard errors are from the Hessian of both, the criterion is
    that of the likelihood alone.
    """
    with one_thread():
        problem, glm, predictors = glmm_problem(model)
        glm = glm if penalty is None else _penalised(model, glm, predictors, penalty)
        if problem is None:
            _check_nodes(n_agq, 1, 1)
            return _fixed_only(model, glm, predictors, penalty)
        _check_nodes(n_agq, len(problem.terms), len(problem.rows.predictor))
        problem = problem if penalty is None else _from_penalised(problem, glm)
        method = _method(problem, model, n_agq, penalty, avoid_boundary=avoid_boundary)
        found = _optimum(problem, method, start)
        return replace(_assembled(model, problem, method, found), penalty=penalty)


def _without_random(model: Model, predictors: tuple[Predictor, ...], penalty: Penalty | None) -> Method:
    """Return the function to minimise of a model without random effects, of all coefficients."""
    likelihood = _likelihood(model)
    method = Method(name="ML", objective=lambda gamma: without_effects(likelihood, predictors, gamma), m=0)
    if penalty is None:
        return method
    penalised = _with_prior(method, _coefficients_prior(model, predictors, penalty))
    return replace(penalised, name=_penalised_name("ML", penalty), penalised=True)


def _penalised(model: Model, glm: Glm, predictors: tuple[Predictor, ...], penalty: Penalty) -> Glm:
    """Return the fit without random effects at the mode of likelihood times penalty; its value is that of the likelihood alone."""
    objective = _without_random(model, predictors, penalty).objective
    starts = [share * glm.gamma for share in (1.0, 0.3, 0.1, 0.0)]
    first = min(starts, key=lambda gamma: objective(gamma)[0])
    found = minimise(objective, first, free_box(len(first)), np.maximum(np.diagonal(glm.hessian), 1e-2 * model.design.n))
    return Glm(
        gamma=found.x,
        value=without_effects(_likelihood(model), predictors, found.x)[0],
        gradient=found.gradient,
        hessian=hessian_at(objective, found.x, np.ones(len(found.x), dtype=bool)),
        steps=found.evaluations,
        converged=found.converged,
    )


def _from_penalised(problem: Glmm, glm: Glm) -> Glmm:
    """Return the problem with its searches beginning at penalised coefficients."""
    return replace(problem, gamma=glm.gamma, information=np.maximum(np.diagonal(glm.hessian), 1e-6))


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """What a generalised fit minimised, as a function of x = (coefficients outside the mode, t).

    `start` (p,): coefficients without random effects; `curvature`: a rough diagonal of the Hessian at them and `problem.start`;
    `problem`: None without random effects.
    """

    predictors: tuple[Predictor, ...]
    problem: Glmm | None
    method: Method
    box: Box
    start: Array
    curvature: Array


def criterion_of(fit: ClassicalFit, bases: Sequence[Array | None] | None = None) -> Criterion:
    """Return the function that a generalised fit minimised, priors included; `bases`: in which to search, as `engine.place` takes them."""
    problem, glm, predictors = glmm_problem(fit.model, bases)
    glm = glm if fit.penalty is None else _penalised(fit.model, glm, predictors, fit.penalty)
    information = np.maximum(np.diagonal(glm.hessian), 1e-6)
    if problem is None:
        method = _without_random(fit.model, predictors, fit.penalty)
        box = free_box(len(glm.gamma))
        return Criterion(predictors=predictors, problem=None, method=method, box=box, start=glm.gamma, curvature=information)
    problem = _from_penalised(problem, glm)
    method = _method(problem, fit.model, nodes_of(fit.approximation), fit.penalty, avoid_boundary=fit.avoids_boundary)
    curvature = np.concatenate([information[method.m :], problem.curvature])
    return Criterion(
        predictors=predictors, problem=problem, method=method, box=_box(problem, method.m), start=glm.gamma, curvature=curvature
    )


def searchable_generalised(fit: ClassicalFit) -> Searchable:
    """Return the criterion that a fit minimised, from lme4's start: theta of the identity, coefficients without random effects.

    Raises
    ------
    FitError
        For a model without random effects.
    """
    found = criterion_of(fit)
    problem, method = found.problem, found.method
    if problem is None:
        raise FitError("the model has no random effects: there is no optimiser that could disagree")
    outer, mean = problem.p - method.m, problem.predictors[0]
    identity = np.concatenate([term.structure.start(term.k) for term in problem.terms])

    def estimates(x: Array) -> tuple[Array, float, Array]:
        mode, _ = at_mode(problem, x, method.m)
        inner = np.full(method.m, np.nan) if mode is None else mode.inner
        gamma = np.concatenate([inner, x[:outer]])
        return theta_of(problem, x[outer:])[: len(fit.theta)], 1.0, mean.back @ gamma[mean.place]

    return Searchable(
        function=method.objective,
        start=np.concatenate([problem.gamma[method.m :], vector_of(problem, identity)]),
        box=found.box,
        curvature=found.curvature,
        estimates=estimates,
    )


def _fixed_only(model: Model, glm: Glm, predictors: tuple[Predictor, ...], penalty: Penalty | None) -> ClassicalFit:
    """Return the fit of a model without random terms."""
    vcov = 2.0 * _inverse(glm.hessian, len(glm.gamma))
    parts = _coefficients(predictors, glm.gamma, vcov)
    return ClassicalFit(
        model=model,
        method="ML" if penalty is None else _penalised_name("ML", penalty),
        penalty=penalty,
        theta=np.zeros(0),
        criterion=glm.value,
        sigma=1.0,
        beta=parts[0][0],
        unscaled_vcov=parts[0][1],
        effects=(),
        unscaled_condvar=MappingProxyType({}),
        ld_l2=0.0,
        ld_rx2=0.0,
        pwrss=0.0,
        search=None,
        further=_further(model, parts, {}),
        information=frozen(-_likelihood(model)(fixed_part(predictors, glm.gamma), 2).d2[0, 0]),
    )


def _coefficients(predictors: tuple[Predictor, ...], gamma: Array, vcov: Array) -> list[tuple[Array, Array]]:
    """Return each predictor's coefficients and their covariance, on the user's scale."""
    parts = []
    for one in predictors:
        beta, spread = one.back @ gamma[one.place], one.back @ vcov[one.place, one.place] @ one.back.T
        parts.append((frozen(beta), frozen(spread)))
    return parts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effects:
    """A predictor's random effects: blocks, theta, effects and covariances by block, conditional variances by grouping factor."""

    theta: Array
    effects: tuple[Array, ...]
    covariances: tuple[Array, ...]
    condvar: Mapping[str, Array]


_NO_EFFECTS = _Effects(theta=np.zeros(0), effects=(), covariances=(), condvar=MappingProxyType({}))


def _further(model: Model, parts: list[tuple[Array, Array]], effects: Mapping[int, _Effects]) -> Mapping[str, Further]:
    found = {}
    for k, parameter in enumerate(model.family.parameters, start=1):
        part = model.design.parameters.get(parameter.name)
        own = effects.get(k, _NO_EFFECTS)
        found[parameter.name] = Further(
            link=parameter.link,
            beta=parts[k][0],
            vcov=parts[k][1],
            names=() if part is None else part[0].names,
            theta=own.theta,
            effects=own.effects,
            covariances=own.covariances,
            condvar=own.condvar,
        )
    return MappingProxyType(found)


def _assembled(model: Model, problem: Glmm, method: Method, found: Minimum) -> ClassicalFit:
    mode, lam = at_mode(problem, found.x, method.m)
    if mode is None or np.isnan(mode.logdet):
        raise FitError("the likelihood cannot be computed at the estimate; rescale predictors or simplify the random effects")
    P = schur(problem, mode.W, lam, mode.L, problem.n_mean).P
    blocked.inverse_parts(problem.system, problem.work, lam, mode.L)
    spread = [
        conditional_variance(problem, f, basis_of(problem, f), own) for f, own in enumerate(blocked.variances(problem.system, problem.work))
    ]
    H = hessian_at(method.objective, found.x, ~_box(problem, method.m).on_edge(found.x))
    outer = problem.p - method.m
    theta = theta_of(problem, found.x[outer:])
    effects = _effects_of(model, problem, mode.b, spread, theta)
    vcov = _vcov(problem, method, H, P)
    parts = _coefficients(problem.predictors, np.concatenate([mode.inner, found.x[:outer]]), vcov)
    return ClassicalFit(
        model=model,
        method=method.name,
        theta=effects[0].theta,
        criterion=found.value - (0.0 if method.prior is None else method.prior(found.x)[0]),
        sigma=1.0,
        beta=parts[0][0],
        unscaled_vcov=parts[0][1],
        effects=effects[0].effects,
        unscaled_condvar=effects[0].condvar,
        ld_l2=mode.logdet,
        ld_rx2=float(np.linalg.slogdet(P)[1] - 2.0 * np.linalg.slogdet(problem.predictors[0].back)[1]),
        pwrss=float(np.sum(mode.d1[0] ** 2 / np.maximum(mode.W[0, 0], 1e-300)) + mode.u @ mode.u),
        search=_log(model, problem, method, found, H, theta),
        further=_further(model, parts, effects),
        information=frozen(mode.W[0, 0].copy()),
    )


def _vcov(problem: Glmm, method: Method, H: Array, P: Array) -> Array:
    """Return the covariance (p, p) of all coefficients, from the Hessian H of -2 log L.

    Of coefficients within the mode it is P^-1, that at these covariance parameters (lme4's `use.hessian = FALSE`).
    """
    outer, mean = problem.p - method.m, slice(0, problem.n_mean)
    vcov = np.zeros((problem.p, problem.p))
    inverse = 2.0 * _inverse(H, outer)
    vcov[method.m :, method.m :] = inverse[:outer, :outer]
    if method.m:
        vcov[mean, mean] = _inverse(P, problem.n_mean)
    return vcov


def _inverse(H: Array, m: int) -> Array:
    """Return the inverse of a Hessian that may be flat, the first m of its parameters being coefficients.

    Along a direction of coefficients that the data leave open the variance is large, but a number; others are left out.
    """
    values, vectors = np.linalg.eigh(H)
    least = _LEAST_CURVATURE * max(float(np.max(values, initial=0.0)), 1e-300)
    kept = (values > least) | (np.linalg.norm(vectors[:m], axis=0) > 1e-3)
    inverse: Array = (vectors[:, kept] / np.maximum(values[kept], least)) @ vectors[:, kept].T
    return inverse


def _effects_of(model: Model, problem: Glmm, b: Array, variance: list[Array], theta: Array) -> dict[int, _Effects]:
    """Return the random effects of every predictor that has some; of the mean in any case."""
    T = [basis_of(problem, f) for f in range(len(problem.groups))]
    by_group = tuple(related.correlated(problem.roots[f], own @ T[f].T) for f, own in enumerate(blocked.by_factor(problem.system, b)))
    blocks = by_block(problem, by_group)
    found, at, first_theta = {}, 0, 0
    for k, own_blocks in enumerate(_blocks_by_predictor(model)):
        terms = problem.terms[at : at + len(own_blocks)]
        n_theta = sum(term.theta.stop - term.theta.start for term in terms)
        factors = [term.structure.factor(theta[term.theta], term.k) for term in terms]
        found[k] = _Effects(
            theta=frozen(theta[first_theta : first_theta + n_theta].copy()),
            effects=tuple(frozen(own) for own in blocks[at : at + len(own_blocks)]),
            covariances=tuple(frozen(L @ L.T) for L in factors),
            condvar=MappingProxyType(_variances(problem, terms, variance)),
        )
        at, first_theta = at + len(own_blocks), first_theta + n_theta
    return found


def _blocks_by_predictor(model: Model) -> list[tuple[RandomBlock, ...]]:
    parts = [model.design.parameters.get(parameter.name) for parameter in model.family.parameters]
    return [model.design.blocks, *(() if part is None else part[1] for part in parts)]


def _variances(problem: Glmm, terms: tuple[Term, ...], variance: list[Array]) -> dict[str, Array]:
    """Return the conditional variances (J, k, k) by grouping factor, of the columns of some terms."""
    found = {}
    for f in dict.fromkeys(term.factor for term in terms):
        columns = np.concatenate([term.column + np.arange(term.k) for term in terms if term.factor == f])
        found[problem.groups[f]] = frozen(variance[f][:, columns[:, None], columns].copy())
    return found


def _log(model: Model, problem: Glmm, method: Method, found: Minimum, H: Array, theta: Array) -> SearchLog:
    """Return the log of the search; its gradient and Hessian are by theta, then the coefficients outside the mode."""
    outer = problem.p - method.m
    box = _box(problem, method.m)
    J = theta_jacobian(problem, found.x[outer:])
    back = np.zeros((problem.n_theta + outer, len(found.x)))
    back[: problem.n_theta, outer:] = np.linalg.pinv(J).T
    for one in problem.predictors:
        place = slice(one.place.start - method.m, one.place.stop - method.m)
        if place.start >= 0:
            back[problem.n_theta + place.start : problem.n_theta + place.stop, place] = np.linalg.pinv(one.back).T
    full = np.zeros((len(found.x), len(found.x)))
    free = ~box.on_edge(found.x)
    full[np.ix_(free, free)] = H
    names = _undetermined(model, problem, found, J, outer, theta) if found.flat else ()
    return SearchLog(
        optimiser=_OPTIMISER,
        evaluations=found.evaluations,
        starts=found.starts,
        gradient=frozen(back @ found.gradient),
        hessian=frozen(back @ full @ back.T),
        projected=found.projected,
        least_curvature=found.least_curvature,
        flat=bool(names),
        undetermined=names,
        converged=found.converged,
        verdict=verdict_of(found, box, flat=bool(names)),
        trace=found.trace,
    )


def _undetermined(model: Model, problem: Glmm, found: Minimum, J: Array, outer: int, theta: Array) -> tuple[str, ...]:
    """Return the coefficients and covariance parameters that change along the directions in which the likelihood is flat."""
    directions = found.flat_directions
    blocks = [block for own in _blocks_by_predictor(model) for block in own]
    return _moving(model, problem, directions[:outer]) + undetermined(blocks, theta, J @ directions[outer:])


def _moving(model: Model, problem: Glmm, directions: Array) -> tuple[str, ...]:
    """Return the names of the coefficients that move along directions (outer coefficients, m): each by its column's greatest size."""
    design = model.design
    names, sizes = [], []
    for one in problem.predictors:
        if one.place.start < problem.p - len(directions):
            continue
        fixed = design.fixed if not one.name else design.parameters[one.name][0] if one.name in design.parameters else None
        X = np.ones((design.n, 1)) if fixed is None else fixed.X
        prefix = f"{one.name}_" if one.name else ""
        names += [one.name] if fixed is None else [prefix + name for name in fixed.names]
        place = slice(one.place.start - problem.p + len(directions), one.place.stop - problem.p + len(directions))
        sizes.append(np.max(np.abs(one.back @ directions[place]), axis=1, initial=0.0) * np.max(np.abs(X), axis=0))
    moved = np.concatenate([np.zeros(0), *sizes])
    largest = float(np.max(moved, initial=0.0))
    return tuple(name for name, size in zip(names, moved, strict=True) if size > 0.1 * largest) if largest > 0.1 else ()
