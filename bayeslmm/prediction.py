"""Predictions and simulated responses: one implementation for both engines, over draws of the coefficients.

The classical engine holds one draw, its estimate; the Bayesian engine holds its posterior draws.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.design import NewRows
from bayeslmm.errors import DataError, FitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bayeslmm.fit import Draws, Fit
    from bayeslmm.model import Model

__all__ = ["NEW_LEVELS", "TARGETS", "linear_predictor", "predict", "simulate"]

type Array = np.ndarray

TARGETS = ("conditional", "average_group", "new_group", "population")
NEW_LEVELS = ("raise", "average", "sample")
_SCALES = ("response", "link")
_INTERVALS = (None, "confidence", "prediction")
_QUADRATURE_POINTS = 40


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
        For conditional predictions at a level that the fit has not seen: `"raise"`, `"average"` (effect 0), `"sample"`.
    scale
        `"response"` or `"link"`.
    interval, prob
        `None`, `"confidence"` (of the mean) or `"prediction"` (of a new observation), and its probability.
    seed
        For whatever is drawn at random.

    Returns
    -------
    DataFrame
        Column `estimate` and, for a posterior, `se`; with an interval also `lower`, `upper`. Rows with a missing
        predictor are NaN; the index is that of the rows.

    Raises
    ------
    FitError
        If an option is unknown, or the interval is one that this engine cannot give yet.
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
    draws = fit.draws()
    if interval is not None and draws.n_draws == 1:
        raise FitError(
            "intervals of predictions need posterior draws, and this fit is a point estimate: fit with `brm`, or leave interval=None"
        )
    if interval == "prediction" and scale == "link":
        raise FitError("a prediction interval is for a new observation; use scale='response'")
    rng = _generator(seed)
    rows = _rows(fit.model, newdata, random=target == "conditional", parameters=interval == "prediction")
    mean = _mean(fit.model, rows, draws, target, new_levels, scale, rng)
    if interval is None:
        return _frame(mean, mean, rows.index, None, prob)
    shown = _mean(fit.model, rows, draws, "new_group", new_levels, scale, rng) if target == "new_group" else mean
    if interval == "prediction":
        shown = _observations(fit.model, rows, draws, shown, rng)
    return _frame(mean, shown, rows.index, interval, prob)


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
    if not isinstance(n, Integral) or n < 1:
        raise FitError(f"n must be a whole number of at least 1, not {n!r}")
    rng = _generator(seed)
    draws = fit.draws()
    picked = draws.take(rng.integers(draws.n_draws, size=int(n)))
    rows = _rows(fit.model, newdata, random=True, parameters=True)
    effects = [_gathered(rows, position, picked, rng, conditional=conditional) for position in range(len(rows.blocks))]
    mean = fit.model.link.inverse(_eta(rows, picked, effects))
    values = _observations(fit.model, rows, picked, mean, rng)
    return pd.DataFrame(values.T, index=rows.index, columns=[f"sim_{i + 1}" for i in range(n)])


def linear_predictor(model: Model, draws: Draws) -> Array:
    """Return eta (S, n) of the fitted rows at each draw, random effects and offset included."""
    rows = _rows(model, None, random=True, parameters=False)
    return _eta(rows, draws, [effects[:, block.index] for block, effects in zip(rows.blocks, draws.effects, strict=True)])


def _rows(model: Model, newdata: Any, *, random: bool, parameters: bool) -> NewRows:
    """Return the rows to predict: those of the fit, or new ones in its coding."""
    if newdata is not None:
        rows = model.design.encoder.encode_new(newdata, random=random)
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
    )


def _mean(model: Model, rows: NewRows, draws: Draws, target: str, new_levels: str, scale: str, rng: np.random.Generator) -> Array:
    """Return the mean (S, n) on the asked scale."""
    inverse = model.link.inverse if scale == "response" else _identity
    if target == "conditional":
        _refuse_unseen(rows, new_levels)
        effects = [_gathered(rows, i, draws, rng, conditional=True, sample=new_levels == "sample") for i in range(len(rows.blocks))]
        return np.asarray(inverse(_eta(rows, draws, effects)))
    fixed = _eta(rows, draws, [])
    if target == "average_group" or not model.design.blocks:
        return np.asarray(inverse(fixed))
    spread = np.sqrt(_random_variance(rows, draws))
    if target == "new_group" and draws.n_draws > 1:
        return np.asarray(inverse(fixed + spread * rng.standard_normal(fixed.shape)))
    return _population_mean(inverse, fixed, spread)


def _population_mean(inverse: Any, fixed: Array, spread: Array) -> Array:
    """Return E inverse(fixed + spread t) over t ~ N(0, 1), by Gauss-Hermite quadrature: eta is normal given the fixed part."""
    points, weights = np.polynomial.hermite_e.hermegauss(_QUADRATURE_POINTS)
    total = np.zeros_like(fixed)
    for point, weight in zip(points, weights / weights.sum(), strict=True):
        total += weight * inverse(fixed + spread * point)
    return total


def _random_variance(rows: NewRows, draws: Draws) -> Array:
    """Return z' Sigma z (S, n), summed over the blocks: the variance of the random part of eta for a new group."""
    total = np.zeros((draws.n_draws, len(rows.index)))
    for block, covariance in zip(rows.blocks, draws.covariance, strict=True):
        total += np.einsum("nk,skl,nl->sn", block.values, covariance, block.values)
    return total


def _eta(rows: NewRows, draws: Draws, effects: Sequence[Array]) -> Array:
    """Return X b + sum z b_group + offset (S, n), `effects` (S, n, k) by block."""
    eta = draws.b @ rows.X.T + rows.offset
    for block, gathered in zip(rows.blocks, effects, strict=False):
        eta = eta + np.einsum("nk,snk->sn", block.values, gathered)
    return np.asarray(eta)


def _gathered(rows: NewRows, position: int, draws: Draws, rng: np.random.Generator, *, conditional: bool, sample: bool = True) -> Array:
    """Return each row's random effects (S, n, k) of one block: fitted or new for known levels, new (or 0) for unseen ones."""
    block, fitted = rows.blocks[position], draws.effects[position]
    known = fitted if conditional else _drawn(draws, position, fitted.shape[1], rng)
    gathered = np.where((block.index >= 0)[None, :, None], known[:, block.index], np.nan)
    labels, index = rows.unseen.get(block.name, ((), None))
    if index is not None and len(labels):
        new = _drawn(draws, position, len(labels), rng) if sample else np.zeros((draws.n_draws, len(labels), fitted.shape[2]))
        gathered = np.where((index >= 0)[None, :, None], new[:, index], gathered)
    return np.asarray(gathered)


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


def _observations(model: Model, rows: NewRows, draws: Draws, mean: Array, rng: np.random.Generator) -> Array:
    """Return new observations (S, n) around a mean (S, n); NaN where the mean is."""
    complete = np.isfinite(mean).all(axis=0)
    trials = None if rows.trials is None else rows.trials[complete]
    aux = {name: _aux_rows(values, complete, len(rows.index)) for name, values in draws.aux.items()}
    if model.family.scale is not None and model.dialect == "lme4":
        aux[model.family.scale] = aux[model.family.scale] / np.sqrt(rows.weights[complete])
    values = np.full(mean.shape, np.nan)
    values[:, complete] = model.family.simulate(rng, mean[:, complete], aux, trials)
    return values


def _aux_rows(values: Array, complete: Array, n: int) -> Array:
    """Return a further parameter as (S, 1), or (S, complete rows) where it has a predictor of its own."""
    if values.ndim == 1:
        return values[:, None]
    if values.shape[1] != n:
        raise FitError("a parameter with a predictor of its own can be simulated for the fitted rows only, so far")
    return values[:, complete]


def _frame(mean: Array, shown: Array, index: pd.Index, interval: str | None, prob: float) -> pd.DataFrame:
    """Return estimate (mean over draws), se (sd over draws, where there are several) and limits of `shown`."""
    columns = {"estimate": mean.mean(axis=0)}
    if mean.shape[0] > 1:
        columns["se"] = mean.std(axis=0, ddof=1)
    if interval is not None:
        columns["lower"], columns["upper"] = np.quantile(shown, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
    return pd.DataFrame(columns, index=index)


def _generator(seed: Any) -> np.random.Generator:
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
