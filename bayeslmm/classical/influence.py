"""Which rows and which groups a fit depends on: leverage, Cook's distance, and fits with one level of a factor left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.classical.engine import estimate
from bayeslmm.classical.joint import leverage
from bayeslmm.classical.lmm import fit_again, one_thread, problem_of
from bayeslmm.classical.noise import has_noise
from bayeslmm.errors import BayesLmmError, FitError, suggest

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.design import Design, RandomBlock
    from bayeslmm.model import Model

__all__ = ["influence"]

type Array = np.ndarray


def influence(fit: ClassicalFit, group: str | None = None, *, refit: bool = True) -> pd.DataFrame:
    """Return what each row, or each level of a grouping factor, does to a fit.

    Parameters
    ----------
    fit
        What `lmer` or `glmer` returned, penalised fits included.
    group
        None for rows; or a grouping factor, whose levels are left out one at a time.
    refit
        Fit again without the level; False: keep the variance parameters theta, and estimate all else again (one step, fast).

    Returns
    -------
    DataFrame
        For rows, on their index: `leverage` (hat value, random effects included), `residual` (scaled), `cooks_distance`, as
        lme4's `hatvalues` and `cooks.distance`; NaN where the leverage is one.

        For levels: `n_rows`; `cooks_distance`, (b - b_j)' V^-1 (b - b_j) / p with V the covariance of all data's coefficients b;
        `sigma`, the residual standard deviation without the level; a column `dfbetas_<coefficient>` each, (b - b_j) over the
        standard error without the level; `status`, `ok` or `failed:` with the reason (its numbers are NaN).

    Raises
    ------
    FitError
        If there is no such grouping factor.

    Source: Nieuwenhuis, te Grotenhuis & Pelzer (2012), R Journal 4(2); Snijders & Bosker (2012), Multilevel Analysis, section 10.7.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> bl.influence(fit, "Subject")["cooks_distance"].idxmax()
    '309'
    """
    if group is None:
        return _of_rows(fit)
    if not refit and (fit.generalised or has_noise(fit.model.design)):
        raise FitError("refit=False is of linear mixed models without a residual structure, where theta determines all else; refit")
    design = fit.model.design
    block = next((block for block in design.blocks if block.group == group), None)
    if block is None:
        names = list(design.ngroups)
        known = f" (factors: {', '.join(names)})" if names else " (the model has no random effects)"
        raise FitError(f"there is no grouping factor {group!r}{suggest(str(group), names)}{known}")
    rows = [_of_level(fit, np.flatnonzero(block.index != level), refit) for level in range(block.n_levels)]
    return pd.DataFrame(rows, index=pd.Index(block.levels, name=group))


def _of_rows(fit: ClassicalFit) -> pd.DataFrame:
    hat = leverage(fit)
    scaled = fit.residuals("scaled").to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        cooks = (scaled / (1.0 - hat)) ** 2 * hat / max(len(fit.beta), 1)
    cooks = np.where(1.0 - hat > 1e-12, cooks, np.nan)
    return pd.DataFrame({"leverage": hat, "residual": scaled, "cooks_distance": cooks}, index=fit.model.design.index)


def _of_level(fit: ClassicalFit, kept: Array, refit: bool) -> dict[str, float | str]:
    """Return the row of one level; `kept`: positions of the rows of all others."""
    names = [f"dfbetas_{name}" for name in fit.model.design.fixed_names]
    start: dict[str, float | str] = {"n_rows": fit.nobs - len(kept)}
    try:
        beta, se, sigma = _estimates(fit, _without(fit.model, kept), refit)
    except BayesLmmError as error:
        nan = float("nan")
        return {**start, "cooks_distance": nan, "sigma": nan, **dict.fromkeys(names, nan), "status": f"failed: {error}"}
    difference = fit.beta - beta
    p = len(difference)
    cooks = float(difference @ np.linalg.solve(fit.vcov().to_numpy(), difference)) / p if p else float("nan")
    shifts = dict(zip(names, (difference / se).tolist(), strict=True))
    return {**start, "cooks_distance": cooks, "sigma": sigma, **shifts, "status": "ok"}


def _estimates(fit: ClassicalFit, model: Model, refit: bool) -> tuple[Array, Array, float]:
    """Return coefficients, their standard errors and sigma of the model without some rows."""
    if refit:
        again = fit_again(fit, model)
        return again.beta, again.standard_errors, again.sigma
    with one_thread():
        problem = problem_of(model, reml=fit.reml)
        found = estimate(problem, fit.theta)
    sigma = float(np.sqrt(found.pwrss / problem.df))
    return found.beta, sigma * np.sqrt(np.diagonal(found.unscaled_vcov)), sigma


def _without(model: Model, kept: Array) -> Model:
    """Return the model on the kept rows (positions), without the levels that are left without any.

    Raises
    ------
    FitError
        If the rows do not determine all coefficients.
    """
    design = model.design
    X = design.X[kept]
    lengths = np.max(np.abs(X), axis=0, initial=0.0)
    if X.shape[1] and np.linalg.matrix_rank(X / np.where(lengths > 0.0, lengths, 1.0)) < X.shape[1]:
        raise FitError("without it the data do not determine all coefficients")
    small = _subset(design, kept, X)
    mask = np.zeros(len(design.kept), dtype=bool)
    mask[np.flatnonzero(design.kept)[kept]] = True
    return model.on(replace(small, kept=mask))


def _subset(design: Design, kept: Array, X: Array) -> Design:
    return replace(
        design,
        y=design.y[kept],
        trials=None if design.trials is None else design.trials[kept],
        fixed=replace(design.fixed, X=X),
        blocks=_blocks(design.blocks, kept),
        weights=design.weights[kept],
        offset=design.offset[kept],
        index=design.index[kept],
        parameters={name: (replace(fixed, X=fixed.X[kept]), _blocks(own, kept)) for name, (fixed, own) in design.parameters.items()},
        series=None if design.series is None else design.series.take(kept),
    )


def _blocks(blocks: Sequence[RandomBlock], kept: Array) -> tuple[RandomBlock, ...]:
    """Return the random terms on the kept rows, without the levels that are left without any."""
    found = []
    for block in blocks:
        levels, position = np.unique(block.index[kept], return_inverse=True)
        labels = tuple(block.levels[level] for level in levels)
        known = block.known and block.known.take(levels)
        found.append(replace(block, index=position.astype(block.index.dtype), levels=labels, values=block.values[kept], known=known))
    return tuple(found)
