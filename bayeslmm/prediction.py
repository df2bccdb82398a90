"""Predictions and simulated responses: one implementation for both engines, over draws of the coefficients.

The classical engine holds one draw, its estimate, and the variance of its error; the Bayesian engine holds its posterior draws.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd

from bayeslmm.design import NewRows
from bayeslmm.errors import DataError, FitError
from bayeslmm.families import LINKS
from bayeslmm.residual import residual_of

if TYPE_CHECKING:
    from bayeslmm.design import RandomBlock
    from bayeslmm.fit import Draws, Fit
    from bayeslmm.known import Known
    from bayeslmm.model import Model
    from bayeslmm.series import Series

__all__ = [
    "NEW_LEVELS",
    "TARGETS",
    "distribution",
    "expected",
    "generator",
    "linear_predictor",
    "mean_function",
    "new_group_effects",
    "predict",
    "quantile_residuals",
    "replicates",
    "replicates_of",
    "simulate",
    "whole_number",
]

type Array = np.ndarray
type Table = tuple[Array, Array | None]

TARGETS = ("conditional", "average_group", "new_group", "population")
NEW_LEVELS = ("raise", "average", "sample")
_SCALES = ("response", "link")
_INTERVALS = (None, "confidence", "prediction")
_QUADRATURE_POINTS = 40
_STEP = 1e-5
"""Of differences in the linear predictor."""
_SIMULATIONS = 4000
"""New observations a row, for a prediction interval of a generalised point estimate."""
_CHUNK = 20_000_000
"""Draws x rows held at a time."""


@runtime_checkable
class KnowsItsError(Protocol):
    """A point estimate that knows the variance (n,) of the error of its linear predictor, and its degrees of freedom (n,).

    `generalised`: whether the response is other than normal about the linear predictor itself.
    """

    @property
    def generalised(self) -> bool: ...
    def prediction_variance(self, rows: NewRows, target: str, *, new_levels: str, observation: bool, df: bool) -> tuple[Array, Array]: ...


def predict(
    fit: Fit,
    newdata: Any = None,
    *,
    target: str = "conditional",
    new_levels: str = "raise",
    scale: str = "response",
    interval: str | None = None,
    prob: float = 0.95,
    seed: int | None = None,
) -> pd.DataFrame:
    """Predict rows of the data, or of new data.

    Parameters
    ----------
    fit
        A fit of either engine.
    newdata
        Frame with the predictors (and, where the target asks for them, the grouping factors); default: the fitted rows.
    target
        `"conditional"`: these groups; `"average_group"`: random effects at 0; `"new_group"`: a group drawn from the
        fitted population; `"population"`: the mean over that population.
    new_levels
        For conditional predictions at a level that the fit has not seen: `"raise"`, `"average"` (effect 0), `"sample"`. Levels that
        a known covariance (`gr(g, cov = K)`) relates to those of the fit are not new: they are predicted from their relatives.
    scale
        `"response"` or `"link"`.
    interval, prob
        `None`, `"confidence"` (of the mean) or `"prediction"` (of a new observation), and its probability.
    seed
        For whatever is drawn at random.

    Returns
    -------
    DataFrame
        Columns `estimate`, `se` and, with an interval, `lower`, `upper`. Rows with a missing predictor are NaN; the index is that
        of the rows.

        On the scale of the response a prediction is of the response's mean: with zeros, (1 - zi) mu; with trials, of the proportion.

        A posterior's `estimate`, `se` and limits are the mean, standard deviation and quantiles of its draws.

        For a classical fit `se` is that of the error of the estimate, the variance parameters being held at their estimates:
        `conditional`: the joint variance of the fixed effects and these groups' random effects; `average_group` and `population`:
        that of the fixed effects; `new_group`: that, and the variance of a new group's effects. Intervals are of Student's t
        with Satterthwaite's degrees of freedom of that variance, which is how the uncertainty of the variance parameters
        enters; a prediction interval adds sigma^2 / weight, and for `population` the variance of its group. With
        `new_levels="sample"` the estimate is one draw, and the limits are those of all that could be drawn.

        For a generalised model the variance is that of the linear predictor (`conditional`: given all parameters but the mean's
        coefficients). `se` is carried to the response's scale by the delta method, limits are normal ones on the link's scale, and
        a prediction interval has the quantiles of simulated responses.

    Raises
    ------
    FitError
        If an option is unknown, or the fit is a point estimate that does not know its error and an interval is asked for.
    DataError
        If a column or level is missing from `newdata`, or a group level is new and `new_levels="raise"`.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> fit.predict({"Days": [0, 9], "Subject": ["308", "308"]})["estimate"].round(1).tolist()
    [253.7, 430.7]
    """
    _one_of("target", target, TARGETS)
    _one_of("new_levels", new_levels, NEW_LEVELS)
    _one_of("scale", scale, _SCALES)
    _one_of("interval", interval, _INTERVALS)
    if not isinstance(prob, Real) or not 0 < prob < 1:
        raise FitError(f"prob must lie between 0 and 1, not {prob!r}")
    if interval == "prediction" and scale == "link":
        raise FitError("a prediction interval is for a new observation; use scale='response'")
    draws = fit.draws()
    rows = _rows(fit.model, newdata, random=target == "conditional", parameters=interval == "prediction")
    if target == "conditional":
        _refuse_unseen(rows, new_levels)
    request = _Request(target=target, new_levels=new_levels, scale=scale, interval=interval, prob=float(prob))
    if draws.n_draws == 1:
        return _point(fit, rows, draws, request, generator(seed))
    return _posterior(fit.model, rows, draws, request, generator(seed))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What was asked of `predict`, checked; `scale` may also be `"mu"`: the family's mu, where the response has another mean."""

    target: str
    new_levels: str
    scale: str
    interval: str | None
    prob: float


def _point(fit: Fit, rows: NewRows, draws: Draws, request: _Request, rng: np.random.Generator) -> pd.DataFrame:
    """Return the frame of a point estimate: with errors and limits where the fit knows them."""
    model, target, interval = fit.model, request.target, request.interval
    tables = _tables(rows, rows.blocks, draws, rng, conditional=True, sample=request.new_levels == "sample")
    estimate = _mean(model, rows, draws, tables, request, rng)[0]
    if not isinstance(fit, KnowsItsError):
        if interval is not None:
            raise FitError("this fit is a point estimate that does not know its error: fit with `brm`, or leave interval=None")
        return pd.DataFrame({"estimate": estimate}, index=rows.index)
    if fit.generalised:
        return _generalised(fit.model, fit, rows, draws, request, rng).assign(estimate=estimate)
    variance, df = fit.prediction_variance(rows, target, new_levels=request.new_levels, observation=False, df=interval == "confidence")
    frame = pd.DataFrame({"estimate": estimate, "se": np.sqrt(variance)}, index=rows.index)
    if interval is None:
        return frame
    if interval == "prediction":
        variance, df = fit.prediction_variance(rows, target, new_levels=request.new_levels, observation=True, df=True)
    from scipy.stats import t as t_distribution

    averaged = _tables(rows, rows.blocks, draws, rng, conditional=True, sample=False)
    centre = _mean(model, rows, draws, averaged, request, rng)[0]
    half = t_distribution.ppf(0.5 + request.prob / 2.0, np.maximum(df, 1.0)) * np.sqrt(variance)
    return frame.assign(lower=centre - half, upper=centre + half)


def _generalised(
    model: Model, fit: KnowsItsError, rows: NewRows, draws: Draws, request: _Request, rng: np.random.Generator
) -> pd.DataFrame:
    """Return the frame of a generalised point estimate: errors by the delta method, limits carried over from the link's scale."""
    from scipy.special import ndtri

    inverse, target = _inverse(model, rows, draws, request, rng), request.target
    known = target == "conditional"
    tables = _tables(rows, rows.blocks, draws, rng, conditional=True, sample=False)
    eta = _eta(rows, draws, tables if known else [])
    about = target if known else "average_group"
    fixed, _ = fit.prediction_variance(rows, about, new_levels=request.new_levels, observation=False, df=False)
    groups = 0.0 if target in ("conditional", "average_group") else _random_variance(rows.blocks, draws)[0]
    spread = np.sqrt(groups)

    def mean(at: Array) -> Array:
        return np.asarray(inverse(at) if target in ("conditional", "average_group") else _population_mean(inverse, at, spread))

    slope = (mean(eta + _STEP) - mean(eta - _STEP))[0] / (2.0 * _STEP)
    between = 0.0
    if target == "new_group":
        between = _population_mean(lambda at: np.square(inverse(at) - mean(eta)), eta, spread)[0]
    frame = pd.DataFrame({"estimate": mean(eta)[0], "se": np.sqrt(slope**2 * fixed + between)}, index=rows.index)
    if request.interval is None:
        return frame
    tail = (1.0 - request.prob) / 2.0
    if request.interval == "prediction":
        limits = _simulated_limits(model, rows, draws, request, eta, fixed + groups, rng)
    else:
        half = -ndtri(tail) * np.sqrt(fixed + (groups if target == "new_group" else 0.0))
        curve = inverse if target == "new_group" else mean
        limits = np.sort(np.stack([curve(eta - half)[0], curve(eta + half)[0]]), axis=0)
    return frame.assign(lower=limits[0], upper=limits[1])


def _simulated_limits(
    model: Model, rows: NewRows, draws: Draws, request: _Request, eta: Array, variance: Array, rng: np.random.Generator
) -> Array:
    """Return quantiles (2, n) of new observations, the linear predictor being normal about its estimate."""
    target = "new_group" if request.target == "population" else request.target
    tail, size = (1.0 - request.prob) / 2.0, max(1, _CHUNK // _SIMULATIONS)
    parts = []
    for start in range(0, rows.n, size):
        which = slice(start, start + size)
        some = _some_rows(rows, which)
        noise = rng.standard_normal((_SIMULATIONS, some.n)) * np.sqrt(variance[which])
        aux = _aux_rows(model, some, draws, rng, target=target, sample=request.new_levels == "sample")
        values = _observations(model, some, aux, np.asarray(model.link.inverse(eta[:, which] + noise)), rng)
        parts.append(np.quantile(values, [tail, 1.0 - tail], axis=0))
    return np.concatenate([np.zeros((2, 0)), *parts], axis=1)


def _posterior(model: Model, rows: NewRows, draws: Draws, request: _Request, rng: np.random.Generator) -> pd.DataFrame:
    """Return the frame of a posterior, some rows at a time; rows of one new level share its effect at each draw."""
    sample = request.new_levels == "sample"
    conditional = request.target == "conditional"
    tables = _tables(rows, rows.blocks, draws, rng, conditional=True, sample=sample) if conditional else []
    frames = []
    for some, here in _in_chunks(rows, draws):
        mean = _mean(model, some, here, tables, request, rng)
        shown = mean
        if request.interval == "prediction":
            if request.target == "population" or model.family.response_mean is not None:
                group = "new_group" if request.target == "population" else request.target
                shown = _mean(model, some, here, tables, replace(request, target=group, scale="mu"), rng)
            aux = _aux_rows(model, some, here, rng, target=request.target, sample=sample)
            shown = _observations(model, some, aux, shown, rng)
        frames.append(_frame(mean, shown, some.index, request.interval, request.prob))
    return frames[0] if len(frames) == 1 else pd.concat(frames)


def _in_chunks(rows: NewRows, draws: Draws) -> Iterator[tuple[NewRows, Draws]]:
    """Yield the rows, and the draws of what is by row, so many at a time that draws x rows stay within `_CHUNK`."""
    size = max(1, _CHUNK // draws.n_draws)
    if rows.n <= size or rows.series is not None:
        yield rows, draws
        return
    for start in range(0, rows.n, size):
        which = slice(start, start + size)
        by_row = {
            name: values[:, which] if values.ndim == 2 and values.shape[1] == rows.n else values for name, values in draws.aux.items()
        }
        yield _some_rows(rows, which), replace(draws, aux=by_row)


def _some_rows(rows: NewRows, which: slice) -> NewRows:
    return replace(
        rows,
        X=rows.X[which],
        offset=rows.offset[which],
        blocks=_some_of(rows.blocks, which),
        unseen={name: (labels, index[which]) for name, (labels, index) in rows.unseen.items()},
        index=rows.index[which],
        weights=rows.weights[which],
        y=None if rows.y is None else rows.y[which],
        trials=None if rows.trials is None else rows.trials[which],
        parameters={name: (replace(fixed, X=fixed.X[which]), _some_of(blocks, which)) for name, (fixed, blocks) in rows.parameters.items()},
    )


def _some_of(blocks: Sequence[RandomBlock], which: slice) -> tuple[RandomBlock, ...]:
    return tuple(replace(block, index=block.index[which], values=block.values[which]) for block in blocks)


def simulate(fit: Fit, n: int = 1, *, conditional: bool = False, newdata: Any = None, seed: int | None = None) -> pd.DataFrame:
    """Simulate new responses from a fit: a frame of rows x n.

    Parameters
    ----------
    fit
        A fit of either engine.
    n
        Number of simulated responses, one a column (`sim_1`, ...).
    conditional
        False: random effects drawn anew from the fitted population (lme4's `use.u = FALSE`); True: the fitted ones.
    newdata
        Frame to simulate for; default: the fitted rows. Rows of one new level share its effect.
    seed
        Seed of the random numbers.

    Raises
    ------
    FitError
        If `n` is no positive whole number, or the seed none at all.
    DataError
        If a column is missing from `newdata`.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))
    >>> fit.simulate(3, seed=1).shape
    (30, 3)
    """
    n = whole_number(n)
    rng = generator(seed)
    draws = fit.draws()
    picked = draws.take(rng.integers(draws.n_draws, size=int(n)))
    rows = _rows(fit.model, newdata, random=True, parameters=True, series=True)
    parts = list(_simulated(fit.model, rows, picked, rng, conditional=conditional))
    return pd.DataFrame(np.concatenate(parts, axis=1).T, index=rows.index, columns=[f"sim_{i + 1}" for i in range(n)])


def _simulated(model: Model, rows: NewRows, draws: Draws, rng: np.random.Generator, *, conditional: bool) -> Iterator[Array]:
    """Yield one new response (S, m) a draw, some rows at a time."""
    tables = _tables(rows, rows.blocks, draws, rng, conditional=conditional, sample=True)
    target = "conditional" if conditional else "new_group"
    for some, here in _in_chunks(rows, draws):
        mean = model.link.inverse(_eta(some, here, tables))
        aux = _aux_rows(model, some, here, rng, target=target, sample=True)
        yield _observations(model, some, aux, mean, rng)


def quantile_residuals(fit: Fit, n: int = 1000, *, conditional: bool = True, seed: int = 0) -> pd.Series:
    """Return randomised quantile residuals, by simulation: standard normal where the model holds.

    A residual is the normal quantile of the share of simulated responses below the observed one; where some are equal (counts), a
    random part of their share counts as below.

    Parameters
    ----------
    fit
        A fit of either engine.
    n
        Number of simulated responses; no residual can be further out than the normal quantile of 1 / (n + 1).
    conditional
        Simulate with the fitted random effects, or (False) with new ones, which shows misfit of the groups too.
    seed
        Seed; the same residuals at each call.

    Raises
    ------
    FitError
        If `n` is no positive whole number, or the seed none at all.

    Source: Dunn & Smyth (1996), J. Comput. Graph. Stat. 5(3); Hartig, DHARMa.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))
    >>> bool(abs(quantile_residuals(fit).mean()) < 0.2)
    True
    """
    from scipy.special import ndtri

    rng = generator(seed)
    design = fit.model.design
    u = np.empty(design.n)
    for here, simulated in replicates(fit, n, conditional=conditional, rng=rng):
        below, equal = np.sum(simulated < design.y[here], axis=0), np.sum(simulated == design.y[here], axis=0)
        u[here] = (below + rng.random(len(below)) * (equal + 1.0)) / (n + 1.0)
    return pd.Series(ndtri(u), index=design.index, name="residual")


def replicates(fit: Fit, n: int, *, conditional: bool, rng: np.random.Generator) -> Iterator[tuple[slice, Array]]:
    """Yield n simulated responses of the fitted rows, some rows at a time: which, and the responses (n, m); see `simulate`.

    Raises
    ------
    FitError
        If `n` is no positive whole number.
    """
    n = whole_number(n)
    draws = fit.draws()
    yield from replicates_of(fit.model, draws.take(rng.integers(draws.n_draws, size=int(n))), conditional=conditional, rng=rng)


def replicates_of(model: Model, draws: Draws, *, conditional: bool, rng: np.random.Generator) -> Iterator[tuple[slice, Array]]:
    """Yield one simulated response of the fitted rows for each draw, some rows at a time: which, and the responses (S, m)."""
    rows = _rows(model, None, random=True, parameters=True, series=True)
    start = 0
    for simulated in _simulated(model, rows, draws, rng, conditional=conditional):
        yield slice(start, start + simulated.shape[1]), simulated
        start += simulated.shape[1]


def distribution(model: Model, draws: Draws) -> Iterator[tuple[slice, Array, dict[str, Array]]]:
    """Yield what the fitted rows are distributed as in these groups, some rows at a time: which, mu (S, m), further parameters."""
    rows = _rows(model, None, random=True, parameters=True)
    tables: list[Table] = [(effects, None) for effects in draws.effects]
    rng, start = generator(0), 0
    for some, here in _in_chunks(rows, draws):
        aux = _aux_rows(model, some, here, rng, target="conditional", sample=False)
        yield slice(start, start + some.n), model.link.inverse(_eta(some, here, tables)), aux
        start += some.n


def expected(function: Callable[[Array], Array], rows: NewRows, draws: Draws, target: str) -> Array:
    """Return a function of the linear predictor (S, n) as a target means it.

    `"conditional"`: of that of these groups, which the fit must know; `"average_group"`: of that with random effects at 0;
    `"population"`: its mean over the random effects, by quadrature.
    """
    if target == "conditional":
        _refuse_unseen(rows, "raise")
        return np.asarray(function(_eta(rows, draws, [(effects, None) for effects in draws.effects])))
    fixed = _eta(rows, draws, [])
    if target == "average_group" or not rows.blocks:
        return np.asarray(function(fixed))
    return _population_mean(function, fixed, np.sqrt(_random_variance(rows.blocks, draws)))


def mean_function(model: Model, rows: NewRows, draws: Draws, target: str, scale: str, seed: int | None) -> Callable[[Array], Array]:
    """Return the function from the linear predictor (S, n) of the rows to the mean of the response, or to itself (`scale="link"`)."""
    request = _Request(target=target, new_levels="raise", scale=scale, interval=None, prob=0.95)
    return _inverse(model, rows, draws, request, generator(seed))


def new_group_effects(blocks: Sequence[RandomBlock], draws: Draws, seed: int | None) -> tuple[Array, ...]:
    """Return by block the effects (S, 1, k) of one new level at each draw."""
    rng = generator(seed)
    return tuple(np.sqrt(block.mean_variance) * _drawn(draws, position, 1, rng) for position, block in enumerate(blocks))


def linear_predictor(model: Model, draws: Draws) -> Array:
    """Return eta (S, n) of the fitted rows at each draw, random effects and offset included."""
    rows = _rows(model, None, random=True, parameters=False)
    return _eta(rows, draws, [(effects, None) for effects in draws.effects])


def _rows(model: Model, newdata: Any, *, random: bool, parameters: bool, series: bool = False) -> NewRows:
    """Return the rows to predict: those of the fit, or new ones in its coding."""
    if newdata is not None:
        rows = model.design.encoder.encode_new(newdata, random=random, series=series)
        if parameters and model.family.needs_trials and rows.trials is None and model.design.trials is not None:
            raise DataError("newdata has no trials; add the columns of the response, or predict without a prediction interval")
        return rows
    design = model.design
    return NewRows(
        X=design.X,
        fixed_names=design.fixed_names,
        offset=design.offset,
        blocks=design.blocks,
        unseen={},
        index=design.index,
        weights=design.weights,
        y=design.y,
        trials=design.trials,
        parameters=design.parameters,
        series=design.series,
    )


def _mean(model: Model, rows: NewRows, draws: Draws, tables: Sequence[Table], request: _Request, rng: np.random.Generator) -> Array:
    """Return the mean (S, n) on the asked scale."""
    inverse = _inverse(model, rows, draws, request, rng)
    if request.target == "conditional":
        return np.asarray(inverse(_eta(rows, draws, tables)))
    fixed = _eta(rows, draws, [])
    if request.target == "average_group" or not model.design.blocks:
        return np.asarray(inverse(fixed))
    spread = np.sqrt(_random_variance(rows.blocks, draws))
    if request.target == "new_group" and draws.n_draws > 1:
        return np.asarray(inverse(fixed + spread * rng.standard_normal(fixed.shape)))
    return _population_mean(inverse, fixed, spread)


def _inverse(model: Model, rows: NewRows, draws: Draws, request: _Request, rng: np.random.Generator) -> Callable[[Array], Array]:
    """Return the function from eta (S, n) to the asked scale."""
    if request.scale == "link":
        return _identity
    response_mean = model.family.response_mean
    if request.scale == "mu" or response_mean is None:
        return model.link.inverse
    target = request.target if draws.n_draws > 1 or request.target == "conditional" else "average_group"
    aux = _aux_rows(model, rows, draws, rng, target=target, sample=request.new_levels == "sample")
    return lambda eta: response_mean(model.link.inverse(eta), aux)


def _population_mean(inverse: Any, fixed: Array, spread: Array) -> Array:
    """Return E inverse(fixed + spread t) over t ~ N(0, 1), by Gauss-Hermite quadrature: eta is normal given the fixed part."""
    points, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE_POINTS)
    total = np.zeros_like(fixed)
    for point, weight in zip(points, weights / weights.sum(), strict=True):
        total += weight * inverse(fixed + spread * point)
    return total


def _random_variance(blocks: Sequence[RandomBlock], draws: Draws) -> Array:
    """Return z' Sigma z (S, n), summed over the blocks: the variance of the random part of eta for a new group.

    Where the covariance K among levels is known, that of a level drawn from among those of the fit: times the mean of K's diagonal.
    """
    total: Array | float = 0.0
    for block, covariance in zip(blocks, draws.covariance, strict=True):
        total = total + block.mean_variance * np.einsum("nk,skl,nl->sn", block.values, covariance, block.values)
    return np.asarray(total)


def _eta(rows: NewRows, draws: Draws, tables: Sequence[Table]) -> Array:
    """Return X b + sum z b_group + offset (S, n); `tables`: effects by block, or none for a mean without random effects."""
    eta = draws.b @ rows.X.T + rows.offset
    if tables:
        _add_random(eta, rows, rows.blocks, tables)
    return np.asarray(eta)


def _add_random(eta: Array, rows: NewRows, blocks: Sequence[RandomBlock], tables: Sequence[Table]) -> None:
    """Add the random part to eta (S, n): of known levels, of unseen ones where the table has them, NaN for missing ones."""
    for block, (known, new) in zip(blocks, tables, strict=True):
        _, unseen = _unseen(rows, block)
        for k in range(block.n_effects):
            values = known[:, block.index, k] if known.shape[1] else np.full(eta.shape, np.nan)
            values = np.where(block.index >= 0, values, np.nan)
            if new is not None and unseen is not None:
                values = np.where(unseen >= 0, new[:, unseen, k], values)
            eta += values * block.values[:, k]


def _unseen(rows: NewRows, block: RandomBlock) -> tuple[tuple[str, ...], Array | None]:
    """Return the new levels of a block's factor and each row's position among them."""
    for other in rows.blocks:
        if other.group == block.group and other.name in rows.unseen:
            return rows.unseen[other.name]
    return (), None


def _tables(
    rows: NewRows, blocks: Sequence[RandomBlock], draws: Draws, rng: np.random.Generator, *, conditional: bool, sample: bool
) -> list[Table]:
    """Return by block the effects (S, J, k) of known levels, fitted or drawn anew, and of unseen ones (S, U, k), drawn or 0.

    Levels that a known covariance relates to those of the fit are known: conditional on these, their means (`sample`, or for
    draws of a posterior: drawn around them).
    """
    tables: list[Table] = []
    for position, block in enumerate(blocks):
        fitted = draws.effects[position]
        known = fitted if conditional else _drawn(draws, position, block.n_levels, rng)
        if block.known is not None:
            known = _related(block.known, known, draws, position, rng, conditional=conditional, sample=sample or draws.n_draws > 1)
        labels, _ = _unseen(rows, block)
        if labels and sample and block.known is not None:
            raise DataError(
                f"the matrix '{block.known.relationship.name}' has no row for the new level '{labels[0]}' of '{block.group}', so that its "
                "effect cannot be drawn; add the level to the matrix, or use new_levels='average'",
                column=block.group,
            )
        new = None
        if labels:
            new = _drawn(draws, position, len(labels), rng) if sample else np.zeros((draws.n_draws, len(labels), fitted.shape[2]))
        tables.append((known, new))
    return tables


def _related(
    known: Known, effects: Array, draws: Draws, position: int, rng: np.random.Generator, *, conditional: bool, sample: bool
) -> Array:
    """Return effects (S, J, k) with the known covariance among levels: of independent ones, or `conditional` on those of the fit."""
    if not conditional:
        return known.correlated(effects)
    found = known.predicted(effects)
    more = len(known.levels) - known.n_fit
    if more and sample:
        noise = _drawn(draws, position, more, rng)
        found[:, known.n_fit :] += np.einsum("jl,slk->sjk", known.root[known.n_fit :, known.n_fit :], noise)
    return found


def _drawn(draws: Draws, position: int, levels: int, rng: np.random.Generator) -> Array:
    """Return new effects (S, J, k) ~ N(0, Sigma_s); a symmetric root serves singular covariances too."""
    values, vectors = np.linalg.eigh(draws.covariance[position])
    root = vectors * np.sqrt(np.clip(values, 0.0, None))[:, None, :]
    noise = rng.standard_normal((draws.n_draws, levels, root.shape[1]))
    return np.asarray(np.einsum("skl,sjl->sjk", root, noise))


def _refuse_unseen(rows: NewRows, new_levels: str) -> None:
    if new_levels != "raise":
        return
    for block in rows.blocks:
        labels, index = rows.unseen.get(block.name, ((), None))
        if index is not None and len(labels):
            raise DataError(
                f"new levels of '{block.group}': {', '.join(labels[:5])}{', ...' if len(labels) > 5 else ''}; "
                "use new_levels='average' or 'sample', "
                "or target='average_group', 'new_group' or 'population'",
                column=block.group,
                rows=list(rows.index[index >= 0]),
            )


def _observations(model: Model, rows: NewRows, aux: Mapping[str, Array], mean: Array, rng: np.random.Generator) -> Array:
    """Return new observations (S, n) around a mean (S, n), further parameters (S, 1) or (S, n); NaN where any of these is."""
    complete = np.isfinite(mean).all(axis=0)
    for values in aux.values():
        complete &= np.isfinite(values).all(axis=0)
    trials = None if rows.trials is None else rows.trials[complete]
    here = {name: values[:, complete] if values.shape[1] > 1 else values for name, values in aux.items()}
    if model.family.scale is not None and model.dialect == "lme4":
        here[model.family.scale] = here[model.family.scale] / np.sqrt(rows.weights[complete])
    values = np.full(mean.shape, np.nan)
    values[:, complete] = model.family.simulate(rng, mean[:, complete], here, trials)
    if rows.series is not None and complete.any():
        values[:, complete] = _in_series(rows.series.take(complete), values[:, complete], mean[:, complete], here)
    return values


def _in_series(series: Series, values: Array, mean: Array, aux: Mapping[str, Array]) -> Array:
    """Return independent observations (S, n) with the correlation of their residual term put in."""
    structure = residual_of(series)
    sd = np.broadcast_to(aux["sigma"], values.shape)
    return np.asarray(mean + sd * structure.colour(aux[structure.name][:, 0], series, (values - mean) / sd))


def _aux_rows(model: Model, rows: NewRows, draws: Draws, rng: np.random.Generator, *, target: str, sample: bool) -> dict[str, Array]:
    """Return the further parameters as (S, 1), or (S, n) where they have a predictor of their own."""
    links = {parameter.name: parameter.link for parameter in model.family.parameters}
    found = {}
    for name, values in draws.aux.items():
        if name in draws.further:
            found[name] = LINKS[links[name]].inverse(_further_eta(rows, name, draws.further[name], rng, target=target, sample=sample))
            continue
        found[name] = values if values.ndim == 2 else values[:, None]
        if values.ndim == 2 and values.shape[1] != rows.n:
            raise FitError(f"'{name}' has a predictor of its own whose coefficients this fit does not hold: predict the fitted rows only")
    return found


def _further_eta(rows: NewRows, name: str, draws: Draws, rng: np.random.Generator, *, target: str, sample: bool) -> Array:
    """Return the linear predictor (S, n) of a further parameter, for the groups that the target means."""
    fixed, blocks = rows.parameters[name]
    eta = np.asarray(draws.b @ fixed.X.T)
    if not blocks or target == "average_group":
        return eta
    if target != "conditional":
        return np.asarray(eta + np.sqrt(_random_variance(blocks, draws)) * rng.standard_normal(eta.shape))
    for block in blocks:
        if block.group not in [other.group for other in rows.blocks] and np.any(block.index < 0):
            unknown = list(rows.index[block.index < 0])
            raise DataError(
                f"new or missing levels of '{block.group}', a group of the predictor of {name}", column=block.group, rows=unknown
            )
    _add_random(eta, rows, blocks, _tables(rows, blocks, draws, rng, conditional=True, sample=sample))
    return eta


def _frame(mean: Array, shown: Array, index: pd.Index, interval: str | None, prob: float) -> pd.DataFrame:
    """Return estimate (mean over draws), se (sd over draws) and limits of `shown`."""
    columns = {"estimate": mean.mean(axis=0), "se": mean.std(axis=0, ddof=1)}
    if interval is not None:
        columns["lower"], columns["upper"] = np.quantile(shown, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    return pd.DataFrame(columns, index=index)


def whole_number(n: Any, name: str = "n") -> int:
    """Return a number of simulated responses; FitError where it is no whole number of at least 1."""
    if not isinstance(n, Integral) or n < 1:
        raise FitError(f"{name} must be a whole number of at least 1, not {n!r}")
    return int(n)


def generator(seed: Any) -> np.random.Generator:
    """Return the random numbers of a seed; FitError where it is none."""
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise FitError(f"seed must be None or a whole number of at least 0, not {seed!r}") from error


def _identity(eta: Array) -> Array:
    return eta


def _one_of(name: str, value: str | None, known: tuple[str | None, ...]) -> None:
    if value not in known:
        options = ", ".join(repr(one) for one in known)
        raise FitError(f"{name} must be one of {options}, not {value!r}")
