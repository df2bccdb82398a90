"""Complete, no and partial pooling side by side: what every level's coefficients are by each, and how far each level is pooled."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.design import NewRows
from bayeslmm.effects.pooling_fits import Estimates, by_level, fit_alone
from bayeslmm.errors import FitError, suggest
from bayeslmm.families.base import IDENTITY
from bayeslmm.families.derivatives import derivatives
from bayeslmm.fit import Fit
from bayeslmm.prediction import linear_predictor

if TYPE_CHECKING:
    from bayeslmm.design import RandomBlock
    from bayeslmm.fit import Draws
    from bayeslmm.model import Model
    from bayeslmm.plots.picture import Picture

__all__ = ["METHODS", "TABLE_COLUMNS", "Pooling", "Terms", "coefficient_draws", "covariance_draws", "pooling", "terms_of"]

type Array = np.ndarray

METHODS = ("complete", "none", "partial_reml", "partial_posterior")
TABLE_COLUMNS = ("group", "level", "term", "method", "estimate", "lower", "upper", "n_obs", "pooling_factor")
_FACTOR_COLUMNS = ("group", "level", "term", "method", "pooling_factor", "lower", "upper")
_UNDEFINED_COLUMNS = ("group", "level", "term", "method", "reason")
_DRAWS = 400
"""Draws of a posterior from which pooling factors are computed, spread evenly."""
_ALL = "(all)"
"""The level of the rows of `.factors` that are of a term as a whole."""


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """Estimates of every level of a grouping factor by complete, no and partial pooling.

    Attributes
    ----------
    group
        The grouping factor.
    terms
        The coefficients, as in `fit.coef()[group]`.
    effects
        Those of them that have a random effect of the group.
    table
        `group, level, term, method, estimate, lower, upper, n_obs, pooling_factor`; `method` is `complete`, `none`, `partial_reml`
        (any fit of the classical engine) or `partial_posterior`. What a level's rows do not determine is NaN.
    factors
        Pooling factors `group, level, term, method, pooling_factor, lower, upper`, with the interval of a posterior; level `(all)`: of the
        term over all levels.
    sds
        Standard deviation of the estimates over the levels, `term, method, sd, n_levels, population_sd`: over the levels where every
        method has an estimate; `population_sd` is the standard deviation of random effects that the fit estimates.
    undefined
        `group, level, term, method, reason`: why a cell of the table is NaN.
    fits
        Method -> the fit of the partial pooling.
    prob
        Probability of the intervals.
    """

    group: str
    terms: tuple[str, ...]
    effects: tuple[str, ...]
    table: pd.DataFrame
    factors: pd.DataFrame
    undefined: pd.DataFrame
    fits: Mapping[str, Fit]
    prob: float

    @property
    def model(self) -> Model:
        """The model of the first fit."""
        return next(iter(self.fits.values())).model

    @property
    def labels(self) -> dict[str, str]:
        """Method -> what it is called in figures: `partial pooling (REML)`."""
        partial = {method: f"partial pooling ({fit.method})" for method, fit in self.fits.items()}
        return {"complete": "complete pooling", "none": "no pooling", **partial}

    @cached_property
    def sds(self) -> pd.DataFrame:
        population = {
            method: dict(zip(terms_of(fit.model, self.group).effects, np.sqrt(_mean_variances(fit, self.group)), strict=True))
            for method, fit in self.fits.items()
        }
        rows = []
        for term in self.terms:
            wide = self.wide(term)
            common = wide.loc[:, wide.notna().any()].dropna()
            for method in wide.columns:
                values = common[method] if method in common else pd.Series(dtype=float)
                sd = float((values - values.iloc[0]).std(ddof=1)) if len(values) > 1 else np.nan
                rows.append((term, method, sd, len(values), population.get(method, {}).get(term, np.nan)))
        return pd.DataFrame(rows, columns=["term", "method", "sd", "n_levels", "population_sd"])

    def wide(self, term: str) -> pd.DataFrame:
        """Return the estimates of a term, levels x methods.

        Raises
        ------
        FitError
            If there is no such term.
        """
        if term not in self.terms:
            raise FitError(f"there is no term {term!r}{suggest(str(term), list(self.terms))} (terms: {', '.join(self.terms)})")
        here = self.table[self.table["term"] == term]
        wide = here.pivot(index="level", columns="method", values="estimate")
        return wide.reindex(index=here["level"].drop_duplicates(), columns=list(self.labels)).rename_axis(columns=None)

    def plot(self, kind: str = "lines", **options: Any) -> Picture:
        """Draw the pooling.

        Parameters
        ----------
        kind
            `"lines"`: data and the line of every method, a panel per level; `"shrinkage"`: arrows from no to partial pooling in the
            plane of two effects; `"topographic"`: the same over the contours of the estimated distribution of levels;
            `"caterpillar"`: estimates of every level with intervals.
        **options
            Of that kind: `x`, `limit` (lines); `terms` (two terms: shrinkage, topographic); `draws` (topographic: so many of a posterior);
            `limit` (caterpillar).

        Raises
        ------
        FitError
            If the kind or an option is unknown.
        """
        from bayeslmm.plots.pooling import draw

        return draw(self, kind, options)

    def __str__(self) -> str:
        lines = [f"Pooling over {self.table['level'].nunique()} levels of {self.group}", "", "Standard deviation over the levels"]
        shown = self.sds.pivot(index="term", columns="method", values="sd").reindex(index=list(self.effects), columns=list(self.labels))
        lines += [shown.rename_axis(index=None, columns=None).to_string(float_format=lambda value: f"{value:.4g}")]
        whole = self.factors[(self.factors["level"] == _ALL) & self.factors["term"].isin(self.effects)]
        lines += ["", "Pooling factor (0: none, 1: complete)"]
        factors = zip(whole["term"], whole["method"].astype(str), whole["pooling_factor"], strict=True)
        lines += [f"  {term}: {factor:.3f} by {self.labels[method]}" for term, method, factor in factors]
        lines += ["", *self._sentences()]
        return "\n".join(lines).rstrip()

    def _sentences(self) -> list[str]:
        """Return what is undefined, a line for each term and reason."""
        grouped = self.undefined.groupby(["method", "term", "reason"], sort=False)["level"]
        return [
            f"Undefined: {term} by {self.labels[str(method)]} for {_listed(levels.tolist(), self.group)}: {reason}"
            for (method, term, reason), levels in grouped
        ]

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        return f"<pre>{escape(str(self))}</pre>"


def pooling(fit: Any, group: str | None = None, *, prob: float = 0.95) -> Pooling:
    """Put complete, no and partial pooling side by side.

    Complete pooling is the model without its random effects; no pooling fits the rows of each level alone (least squares; for other
    families maximum likelihood, further parameters being each level's own); partial pooling is the fit.

    Parameters
    ----------
    fit
        A fit of either engine, or a comparison: then partial pooling by the first fit of each engine.
    group
        The grouping factor (default: the model's first, that of most levels).
    prob
        Probability of the intervals.

    Returns
    -------
    Pooling
        With `.table`, `.factors`, `.sds`, `.undefined` and `.plot()`.

    Raises
    ------
    FitError
        If there is no such grouping factor, or no fit, or `prob` lies outside 0 to 1.

    Notes
    -----
    A coefficient that a level's rows do not determine, or that is infinite (a level of one outcome), is NaN and named in `.undefined`.
    Terms that are the same in all rows of every level (a person's age) cannot be fitted by level: they are held at the fit's
    estimate, so that the other coefficients mean the same by every method. Factors that contain the group (`school` of
    `class:school`) count towards its coefficients, as they do towards its rows' mean; other factors do not.

    The pooling factor of a level is the conditional variance of its random effect, given its own rows and all parameters, over the variance
    between levels: 0 no pooling, 1 complete (Gelman & Hill). A term without a random effect is pooled completely. That of a posterior is
    computed at each draw: mean and interval. In level `(all)` stands lambda = 1 - Var(E(b)) / E(Var(b)), variances being over the
    levels, expectations over what is unknown (Gelman & Pardoe), for a classical fit given its parameters.

    Intervals are of least squares (t), Wald's for maximum likelihood; of partial pooling by the joint error of coefficients and random
    effects, given the variances; quantiles of a posterior. Residuals count as independent, and in complete and
    no pooling of normal responses as of one variance.

    Source: Gelman & Pardoe (2006), Technometrics 48(2), 241-251; Gelman & Hill (2007), Data Analysis Using Regression and
    Multilevel/Hierarchical Models, section 21.6; the figures after T. Mahr, Plotting partial pooling in mixed-effects models.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("reaction ~ days + (days | subject)", bl.load_dataset("sleepstudy183"))
    >>> pooled = bl.pooling(fit)
    >>> pooled.wide("days").round(2).loc["373"].tolist()
    [10.33, nan, 10.39]
    """
    fits = _by_method(fit)
    if not isinstance(prob, Real) or not 0 < prob < 1:
        raise FitError(f"prob must lie between 0 and 1, not {prob!r}")
    first = next(iter(fits.values()))
    name = _chosen(first.model, group)
    for other in fits.values():
        _chosen(other.model, name)
    parts = {method: terms_of(one.model, name) for method, one in fits.items()}
    columns = _columns(list(parts.values()))
    effects = tuple(term for term in columns if any(term in part.effects for part in parts.values()))
    counts = np.bincount(next(iter(parts.values())).index, minlength=len(next(iter(parts.values())).levels))
    frame = _Frame(group=name, levels=next(iter(parts.values())).levels, terms=tuple(columns), n_obs=counts)
    complete = _complete(first.model, frame, float(prob))
    alone = _alone(first, parts, columns, effects)
    tables, factors = [complete, _none(alone, frame, float(prob))], []
    for method, one in fits.items():
        estimates, own = _partial(one, method, parts[method], frame, float(prob))
        tables.append(estimates)
        factors.append(own)
    return Pooling(
        group=name,
        terms=tuple(columns),
        effects=effects,
        table=_ordered_rows(tables, frame),
        factors=pd.concat(factors, ignore_index=True)[list(_FACTOR_COLUMNS)],
        undefined=_undefined(alone, complete, frame),
        fits=fits,
        prob=float(prob),
    )


def _by_method(obj: Any) -> dict[str, Fit]:
    """Return the first classical fit and the first posterior of a fit or comparison."""
    fits = getattr(obj, "fits", (obj,))
    if not isinstance(fits, tuple) or not all(isinstance(one, Fit) for one in fits):
        raise FitError(f"pooling takes a fit or a comparison, not {type(obj).__name__}")
    found: dict[str, Fit] = {}
    for one in fits:
        found.setdefault("partial_posterior" if one.draws().n_draws > 1 else "partial_reml", one)
    return {method: found[method] for method in METHODS if method in found}


def _chosen(model: Model, group: str | None) -> str:
    names = list(model.design.ngroups)
    if not names:
        raise FitError("the model has no random effects, so that there is nothing to pool; add a term such as (1 | group)")
    if group is None:
        return names[0]
    if group not in names:
        raise FitError(f"the model has no grouping factor {group!r}{suggest(str(group), names)} (factors: {', '.join(names)})")
    return group


# ------------------------------------------------------------------------------------------------------------------------ terms


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Where the coefficients of a factor's levels stand in a model.

    `columns`: term -> its values (n,); `fixed`: term -> position among the fixed effects; `own`: (block, effect, term) of the factor's
    random effects; `containing`: the same of factors that contain it, with the level (J,) that each of its levels lies in.
    """

    group: str
    levels: tuple[str, ...]
    index: Array
    columns: dict[str, Array]
    fixed: dict[str, int]
    own: tuple[tuple[int, int, str], ...]
    containing: tuple[tuple[int, int, str, Array], ...]

    @property
    def effects(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(term for _, _, term in self.own))

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.columns)


def terms_of(model: Model, group: str) -> Terms:
    """Return where the coefficients of a grouping factor's levels stand: fixed effects first, then effects without a fixed part."""
    design = model.design
    blocks = list(enumerate(design.blocks))
    first = next(block for _, block in blocks if block.group == group)
    columns = {name: design.X[:, i] for i, name in enumerate(design.fixed_names)}
    own, containing = [], []
    for position, block in blocks:
        inside = _container(first, block)
        for effect, name in enumerate(block.effects):
            if block.group == group:
                own.append((position, effect, name))
            elif inside is not None:
                containing.append((position, effect, name, inside))
            else:
                continue
            columns.setdefault(name, block.values[:, effect])
    fixed = {name: i for i, name in enumerate(design.fixed_names)}
    return Terms(
        group=group, levels=first.levels, index=first.index, columns=columns, fixed=fixed, own=tuple(own), containing=tuple(containing)
    )


def _container(block: RandomBlock, other: RandomBlock) -> Array | None:
    """Return the level of `other` (J,) that each level of `block` lies in, None where it is not in one."""
    inside = np.zeros(block.n_levels, dtype=int)
    inside[block.index] = other.index
    return inside if np.array_equal(inside[block.index], other.index) and other.n_levels < block.n_levels else None


def coefficient_draws(draws: Draws, terms: Terms) -> Array:
    """Return the coefficients of every level at each draw (S, J, K), an effect without a fixed part counting from 0."""
    place = {name: k for k, name in enumerate(terms.columns)}
    out = np.zeros((draws.n_draws, len(terms.levels), len(place)))
    for name, position in terms.fixed.items():
        out[:, :, place[name]] += draws.b[:, None, position]
    for block, effect, name in terms.own:
        out[:, :, place[name]] += draws.effects[block][:, :, effect]
    for block, effect, name, inside in terms.containing:
        out[:, :, place[name]] += draws.effects[block][:, inside, effect]
    return out


def covariance_draws(draws: Draws, terms: Terms, *, containing: bool = False) -> Array:
    """Return the covariance of the factor's effects at each draw (S, k, k), if asked with that of the factors that contain it."""
    names = terms.effects
    wanted = [*terms.own, *((block, effect, name) for block, effect, name, _ in terms.containing if containing and name in names)]
    out = np.zeros((draws.n_draws, len(names), len(names)))
    for one, effect, name in wanted:
        for two, other, also in wanted:
            if one == two:
                out[:, names.index(name), names.index(also)] += draws.covariance[one][:, effect, other]
    return out


def _columns(parts: Sequence[Terms]) -> dict[str, Array]:
    """Return the terms of all fits with their values, those of the first fit first."""
    columns: dict[str, Array] = {}
    for part in parts:
        for name, values in part.columns.items():
            columns.setdefault(name, values)
    return columns


# ---------------------------------------------------------------------------------------------------------------------- methods


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """What all rows of the table share."""

    group: str
    levels: tuple[str, ...]
    terms: tuple[str, ...]
    n_obs: Array

    def rows(self, method: str, estimate: Array, lower: Array, upper: Array, factor: Array) -> pd.DataFrame:
        """Return the rows of a method from arrays (J, K)."""
        J, K = estimate.shape
        values = {"estimate": estimate, "lower": lower, "upper": upper, "pooling_factor": factor}
        return pd.DataFrame(
            {
                "group": self.group,
                "level": np.repeat(np.array(self.levels, dtype=object), K),
                "term": np.tile(np.array(self.terms, dtype=object), J),
                "method": method,
                "n_obs": np.repeat(self.n_obs, K),
                **{name: array.ravel() for name, array in values.items()},
            }
        )[list(TABLE_COLUMNS)]


def _ordered_rows(tables: Sequence[pd.DataFrame], frame: _Frame) -> pd.DataFrame:
    """Return all rows, the methods of a level and term one below the other."""
    size = len(frame.levels) * len(frame.terms)
    order = np.arange(len(tables) * size).reshape(len(tables), size).T.ravel()
    return pd.concat(tables, ignore_index=True).iloc[order].reset_index(drop=True)


def _complete(model: Model, frame: _Frame, prob: float) -> pd.DataFrame:
    """Return the model without its random effects, the same for every level."""
    design = model.design
    found = fit_alone(model)(np.arange(design.n), design.X, design.offset)
    place = [frame.terms.index(name) for name in design.fixed_names]
    values = np.full((3, len(frame.levels), len(frame.terms)), np.nan)
    half = _quantile(prob, np.array(found.df)) * found.se
    for row, numbers in zip(values, (found.coef, found.coef - half, found.coef + half), strict=True):
        row[:, place] = numbers
    return frame.rows("complete", values[0], values[1], values[2], np.where(np.isfinite(values[0]), 1.0, np.nan))


def _alone(first: Fit, parts: Mapping[str, Terms], columns: Mapping[str, Array], effects: tuple[str, ...]) -> Estimates:
    """Return the fits of each level's rows, level by level."""
    terms = next(iter(parts.values()))
    b = first.fixef()
    varying = np.array([name in effects or any(name == held[2] for held in terms.containing) for name in columns])
    fixed = np.array([float(b[name]) if name in terms.fixed else 0.0 for name in columns])
    return by_level(first.model, np.column_stack(list(columns.values())), varying, fixed, terms.index, len(terms.levels))


def _none(alone: Estimates, frame: _Frame, prob: float) -> pd.DataFrame:
    half = _quantile(prob, alone.df)[:, None] * alone.se
    factor = np.where(np.isfinite(alone.coef), 0.0, np.nan)
    return frame.rows("none", alone.coef, alone.coef - half, alone.coef + half, factor)


def _quantile(prob: float, df: Array) -> Array:
    """Return the half-width of an interval in standard errors: of t, of the normal distribution where df is infinite, NaN where it is 0."""
    known = np.where(df > 0.0, df, np.nan)
    return np.asarray(np.where(np.isinf(known), stats.norm.ppf(0.5 + prob / 2), stats.t.ppf(0.5 + prob / 2, known)))


def _partial(fit: Fit, method: str, terms: Terms, frame: _Frame, prob: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a fit's rows of the table, and of its pooling factors."""
    draws = fit.draws()
    several = draws.n_draws > 1
    every = coefficient_draws(draws, terms)
    estimate = every.mean(axis=0)
    tails = [(1.0 - prob) / 2.0, (1.0 + prob) / 2.0]
    lower, upper = np.quantile(every, tails, axis=0) if several else _joint_interval(fit, terms, estimate, prob)
    thinned = draws.take(np.unique(np.linspace(0, draws.n_draws - 1, min(draws.n_draws, _DRAWS)).round().astype(int)))
    variance, between = _conditional_variances(fit.model, thinned, terms)
    ratio = np.divide(variance, between, out=np.ones_like(variance), where=between > 0.0)
    own = np.ones((3, *estimate.shape))
    place = [terms.names.index(name) for name in terms.effects]
    own[0][:, place] = ratio.mean(axis=0)
    own[1][:, place], own[2][:, place] = np.quantile(ratio, tails, axis=0)
    if not several:
        own[1:] = np.nan
    levels = [terms.levels.index(level) for level in frame.levels]
    shown = [_spread(values[levels], terms.names, frame) for values in (estimate, lower, upper, *own)]
    rows = frame.rows(method, shown[0], shown[1], shown[2], shown[3])
    each = frame.rows(method, shown[0], shown[4], shown[5], shown[3])
    whole = pd.DataFrame(
        {
            "group": frame.group,
            "level": _ALL,
            "term": list(terms.effects),
            "method": method,
            "pooling_factor": _lambda(draws, terms, variance.mean(axis=0)),
            "lower": np.nan,
            "upper": np.nan,
        }
    )
    return rows, pd.concat([whole, each[each["term"].isin(terms.names)][list(_FACTOR_COLUMNS)]], ignore_index=True)


def _spread(values: Array, names: tuple[str, ...], frame: _Frame) -> Array:
    """Return values (J, K) of a fit's terms in the table's, NaN for terms that it does not have."""
    out = np.full((len(values), len(frame.terms)), np.nan)
    out[:, [frame.terms.index(name) for name in names]] = values
    return out


def _joint_interval(fit: Any, terms: Terms, estimate: Array, prob: float) -> tuple[Array, Array]:
    """Return limits (J, K) by the joint error of coefficients and random effects, given the variance parameters."""
    design = fit.model.design
    J, K = estimate.shape
    level = np.repeat(np.arange(J), K)
    X, place = np.zeros((J * K, design.p)), {name: k for k, name in enumerate(terms.names)}
    for name, position in terms.fixed.items():
        X[place[name] :: K, position] = 1.0
    values = [np.zeros((J * K, block.n_effects)) for block in design.blocks]
    index = [np.zeros(J * K, dtype=int) for _ in design.blocks]
    for block, effect, name in terms.own:
        values[block][place[name] :: K, effect], index[block] = 1.0, level
    for block, effect, name, inside in terms.containing:
        values[block][place[name] :: K, effect], index[block] = 1.0, inside[level]
    blocks = tuple(replace(block, index=i, values=v) for block, i, v in zip(design.blocks, index, values, strict=True))
    rows = NewRows(
        X=X,
        fixed_names=design.fixed_names,
        offset=np.zeros(J * K),
        blocks=blocks,
        unseen={},
        index=pd.RangeIndex(J * K),
        weights=np.ones(J * K),
    )
    variance, _ = fit.prediction_variance(rows, "conditional")
    half = stats.norm.ppf(0.5 + prob / 2) * np.sqrt(variance).reshape(J, K)
    return estimate - half, estimate + half


# ---------------------------------------------------------------------------------------------------------------- pooling factors


def _conditional_variances(model: Model, draws: Draws, terms: Terms) -> tuple[Array, Array]:
    """Return the variances (S, J, k) of each level's effects given its own rows, and those without (S, J, k), at each draw's parameters."""
    design, own = model.design, list(dict.fromkeys(block for block, _, _ in terms.own))
    Z = np.hstack([design.blocks[block].values for block in own])
    sizes = [design.blocks[block].n_effects for block in own]
    starts = dict(zip(own, np.concatenate([[0], np.cumsum(sizes)[:-1]]).tolist(), strict=True))
    k, names = sum(sizes), terms.effects
    sum_of = np.zeros((len(names), k))
    for block, effect, name in terms.own:
        sum_of[names.index(name), starts[block] + effect] = 1.0
    known = design.blocks[own[0]].known
    scale = np.ones(len(terms.levels)) if known is None else known.variance
    order = np.argsort(terms.index, kind="stable")
    edges = np.concatenate([[0], np.cumsum(np.bincount(terms.index, minlength=len(terms.levels)))[:-1]])
    products = (Z[:, :, None] * Z[:, None, :])[order]
    variance, between = np.empty((2, draws.n_draws, len(terms.levels), len(names)))
    weight_at = _row_information(model, draws)
    for draw in range(draws.n_draws):
        sigma = np.zeros((k, k))
        for block, size in zip(own, sizes, strict=True):
            here = slice(starts[block], starts[block] + size)
            sigma[here, here] = draws.covariance[block][draw]
        M = np.add.reduceat(products * weight_at(draw)[order, None, None], edges, axis=0)
        prior = scale[:, None, None] * sigma
        left = np.linalg.solve(np.eye(k) + prior @ M, prior)
        variance[draw] = np.einsum("ti,jik,tk->jt", sum_of, left, sum_of)
        between[draw] = np.einsum("ti,jik,tk->jt", sum_of, prior, sum_of)
    return np.maximum(variance, 0.0), between


def _row_information(model: Model, draws: Draws) -> Callable[[int], Array]:
    """Return draw -> the information (n,) of each row on its linear predictor; a row of negative information counts for none."""
    design, family = model.design, model.family
    eta = linear_predictor(model, draws)
    links = [model.link, *(IDENTITY for _ in family.parameters)]

    def at(draw: int) -> Array:
        aux = [np.broadcast_to(draws.aux[parameter.name][draw], design.n) for parameter in family.parameters]
        found = derivatives(family, links, design.y, np.vstack([eta[draw], *aux]), design.trials, order=2)
        weights: Array = np.maximum(np.nan_to_num(-found.d2[0, 0]), 0.0) * design.weights
        return weights

    return at


def _mean_variances(fit: Fit, group: str) -> Array:
    """Return the variance (k,) of a factor's effects: the mean of the draws' standard deviations, squared."""
    terms = terms_of(fit.model, group)
    variances = np.diagonal(covariance_draws(fit.draws(), terms), axis1=1, axis2=2)
    return np.asarray(np.sqrt(variances).mean(axis=0) ** 2)


def _lambda(draws: Draws, terms: Terms, variance: Array) -> Array:
    """Return Gelman and Pardoe's pooling factor (k,) of each effect over all levels."""
    if len(terms.levels) < 2:
        return np.full(len(terms.effects), np.nan)
    effects = np.zeros((draws.n_draws, len(terms.levels), len(terms.effects)))
    for block, effect, name in terms.own:
        effects[:, :, terms.effects.index(name)] += draws.effects[block][:, :, effect]
    of_means = effects.mean(axis=0).var(axis=0, ddof=1)
    mean_of = effects.var(axis=1, ddof=1).mean(axis=0) if draws.n_draws > 1 else of_means + variance.mean(axis=0)
    return np.asarray(1.0 - np.divide(of_means, mean_of, out=np.zeros_like(of_means), where=mean_of > 0.0))


# -------------------------------------------------------------------------------------------------------------------- undefined


def _undefined(alone: Estimates, complete: pd.DataFrame, frame: _Frame) -> pd.DataFrame:
    rows = [(frame.group, frame.levels[j], frame.terms[k], "none", reason) for (j, k), reason in sorted(alone.reasons.items())]
    held = "the same in all rows of every level, or told by other terms: held at the fit's estimate"
    rows += [(frame.group, level, frame.terms[k], "none", held) for k in np.flatnonzero(alone.held) for level in frame.levels]
    absent = complete.loc[complete["estimate"].isna(), ["level", "term"]].itertuples(index=False, name=None)
    rows += [(frame.group, level, term, "complete", "the model has no fixed effect of it") for level, term in absent]
    return pd.DataFrame(rows, columns=list(_UNDEFINED_COLUMNS))


def _listed(levels: Sequence[str], group: str, most: int = 6) -> str:
    shown = ", ".join(levels[:most]) + (f" and {len(levels) - most} more" if len(levels) > most else "")
    return f"{group} {shown}"
