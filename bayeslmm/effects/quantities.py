"""Smooth functions of predictions, averaged or not: their estimates with errors by the delta method, or their posterior draws."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from bayeslmm.classical.fit import ClassicalFit
from bayeslmm.classical.joint import combination_variance
from bayeslmm.design import MEAN
from bayeslmm.effects.grid import null_basis, with_all_columns
from bayeslmm.errors import FitError, suggest
from bayeslmm.prediction import TARGETS, expected, generator, mean_function, new_group_effects
from bayeslmm.random_blocks import independent_Z

if TYPE_CHECKING:
    from bayeslmm.design import NewRows
    from bayeslmm.fit import Draws, Fit
    from bayeslmm.model import Model

__all__ = ["SCALES", "Linearised", "Quantity", "Setting", "known", "linearise", "plain", "setting_of", "stacked", "values", "variance_of"]

type Array = np.ndarray

SCALES = ("response", "link")
_CHUNK = 20_000_000
"""Draws x rows held at a time."""
_ESTIMABLE = 1e-6
"""As in `grid`: the largest share of a function's squared length in directions that the data say nothing about."""
_STEP = 1e-5
"""Of differences in the linear predictor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A function of the predictions at one or more `arms` of M rows each.

    `value(*mu)`: from predictions, last axis the rows; `slopes(*mu)`: its derivatives by each, all elementwise. `weights` (m, M):
    averages over rows, None for every row by itself; `average_first`: whether predictions are averaged, or values are.
    """

    arms: tuple[NewRows, ...]
    value: Callable[..., Array]
    slopes: Callable[..., tuple[Array, ...]]
    weights: sp.csr_array | None
    average_first: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A fit and what is meant by its predictions, `target` and `scale`; `seed` of what is drawn at random.

    `draws`: coefficients with zeros for rank-deficient columns and, for `new_group`, the effects of one new level.
    """

    fit: Fit
    draws: Draws
    target: str
    scale: str
    seed: int

    @property
    def model(self) -> Model:
        return self.fit.model

    @property
    def posterior(self) -> bool:
        return self.draws.n_draws > 1

    @property
    def linear(self) -> bool:
        """Whether predictions are the linear predictor itself."""
        return self.scale == "link" or (self.model.link.name == "identity" and self.model.family.response_mean is None)


def setting_of(fit: Fit, target: str, scale: str, seed: int | None) -> Setting:
    """Return the setting that predictions are made in.

    Raises
    ------
    FitError
        For an unknown target or scale, or one that the fit cannot have.
    """
    for name, value, options in (("target", target, TARGETS), ("scale", scale, SCALES)):
        if value not in options:
            raise FitError(f"{name} must be one of {', '.join(options)}, not {value!r}{suggest(str(value), list(options))}")
    model, draws = fit.model, fit.draws()
    draws = replace(draws, b=_padded(model, draws.b))
    if model.family.response_mean is None:
        draws = replace(draws, aux={}, further={})
    start = int(generator(seed).integers(2**31))
    if target == "new_group":
        blocks = model.design.blocks
        none = tuple(np.zeros((1, 1, block.n_effects)) for block in blocks)
        draws = replace(draws, effects=new_group_effects(blocks, draws, start) if draws.n_draws > 1 else none)
    setting = Setting(fit=fit, draws=draws, target=target, scale=scale, seed=start)
    if target == "population" and setting.linear:
        setting = replace(setting, target="average_group")
    if target == "new_group" and isinstance(fit, ClassicalFit) and model.design.blocks and not setting.linear:
        raise FitError(
            "through a link a new group's mean differs from the mean group's: use target='population' (the mean over new groups), "
            "scale='link', or a posterior"
        )
    return setting


def _padded(model: Model, b: Array) -> Array:
    """Return draws (S, P) of the coefficients of all columns, zero for those that were dropped."""
    design = model.design
    if not design.fixed.dropped:
        return b
    padded = np.zeros((len(b), design.p + len(design.fixed.dropped)))
    padded[:, _kept(model)] = b
    return padded


def _kept(model: Model) -> Array:
    return np.asarray(model.design.encoder.kept[MEAN], dtype=np.intp)


def plain(arm: NewRows, weights: sp.csr_array | None) -> Quantity:
    """Return the predictions themselves, or their averages."""
    return Quantity(arms=(arm,), value=lambda mu: mu, slopes=lambda mu: (np.ones_like(mu),), weights=weights, average_first=True)


# Draws -----------------------------------------------------------------------------------------------------------------


def values(setting: Setting, quantity: Quantity) -> Array:
    """Return the draws (S, m) of a quantity."""
    draws, size = setting.draws, max(1, _CHUNK // max(quantity.arms[0].n, 1))
    starts = range(0, draws.n_draws, size)
    some = ((draws.take(np.arange(start, min(start + size, draws.n_draws))), setting.seed + start) for start in starts)
    return np.concatenate([_values(setting, quantity, here, seed) for here, seed in some])


def _values(setting: Setting, quantity: Quantity, draws: Draws, seed: int) -> Array:
    mus = [_mean(setting, arm, draws, seed) for arm in quantity.arms]
    weights = quantity.weights
    if weights is not None and quantity.average_first:
        mus = [(weights @ mu.T).T for mu in mus]
    result = quantity.value(*mus)
    return np.asarray((weights @ result.T).T if weights is not None and not quantity.average_first else result)


def _mean(setting: Setting, arm: NewRows, draws: Draws, seed: int) -> Array:
    return _expected(setting, mean_function(setting.model, arm, draws, setting.target, setting.scale, seed), arm, draws)


def _slope(setting: Setting, arm: NewRows, draws: Draws) -> Array:
    """Return the derivative of predictions by the linear predictor."""
    if setting.linear:
        return np.ones((draws.n_draws, arm.n))
    if setting.model.family.response_mean is None:
        return _expected(setting, setting.model.link.mu_eta, arm, draws)
    mean = mean_function(setting.model, arm, draws, setting.target, setting.scale, setting.seed)
    return _expected(setting, lambda eta: (mean(eta + _STEP) - mean(eta - _STEP)) / (2.0 * _STEP), arm, draws)


def _expected(setting: Setting, function: Callable[[Array], Array], arm: NewRows, draws: Draws) -> Array:
    if setting.target != "new_group":
        return expected(function, arm, draws, setting.target)
    one = tuple(replace(block, index=np.zeros_like(block.index)) for block in arm.blocks)
    return expected(function, replace(arm, blocks=one, unseen={}), draws, "conditional")


# Point estimates -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Linearised:
    """Estimates (m,) and their derivatives by the coefficients, `G` (m, P), and by random effects or those of a new group, `U` (m, q)."""

    estimate: Array
    G: Array
    U: sp.csr_array | None

    def mapped(self, estimate: Array, jacobian: Array) -> Linearised:
        """Return functions of the estimates, given their values (q,) and derivatives (q, m)."""
        U = None if self.U is None else sp.csr_array(sp.csr_array(jacobian) @ self.U)
        return Linearised(estimate=estimate, G=jacobian @ self.G, U=U)


def stacked(parts: Sequence[Linearised]) -> Linearised:
    """Return all estimates one after the other."""
    U = [part.U for part in parts if part.U is not None]
    return Linearised(
        estimate=np.concatenate([part.estimate for part in parts]),
        G=np.vstack([part.G for part in parts]),
        U=sp.csr_array(sp.vstack(U)) if U else None,
    )


def linearise(setting: Setting, quantity: Quantity) -> Linearised:
    """Return a quantity at the estimate, or at the mean of the draws, and its derivatives."""
    draws = _mean_draw(setting.draws)
    found = [_arm(setting, arm, draws) for arm in quantity.arms]
    W = quantity.weights
    first = W is not None and quantity.average_first
    if W is not None and first:
        found = [Linearised(estimate=W @ one.estimate, G=W @ one.G, U=None if one.U is None else sp.csr_array(W @ one.U)) for one in found]
    mus = [one.estimate for one in found]
    estimate = np.asarray(quantity.value(*mus))
    slopes = quantity.slopes(*mus)
    G = sum((slope[:, None] * one.G for slope, one in zip(slopes, found, strict=True)), start=np.zeros(found[0].G.shape))
    parts = [sp.csr_array(sp.diags_array(slope) @ one.U) for slope, one in zip(slopes, found, strict=True) if one.U is not None]
    U = sum(parts[1:], start=parts[0]) if parts else None
    if W is not None and not first:
        estimate, G, U = W @ estimate, W @ G, None if U is None else W @ U
    return Linearised(estimate=estimate, G=G, U=None if U is None else sp.csr_array(U))


def _mean_draw(draws: Draws) -> Draws:
    """Return the mean of the draws, which of a point estimate is itself."""
    if draws.n_draws == 1:
        return draws
    return Draws(
        b=draws.b.mean(axis=0, keepdims=True),
        effects=tuple(effects.mean(axis=0, keepdims=True) for effects in draws.effects),
        covariance=tuple(covariance.mean(axis=0, keepdims=True) for covariance in draws.covariance),
        aux={name: values.mean(axis=0, keepdims=True) for name, values in draws.aux.items()},
        further={name: _mean_draw(part) for name, part in draws.further.items()},
    )


def _arm(setting: Setting, arm: NewRows, draws: Draws) -> Linearised:
    mu, slope = _mean(setting, arm, draws, setting.seed)[0], _slope(setting, arm, draws)[0]
    U = None
    if setting.target == "conditional" and arm.blocks:
        U = sp.csr_array(sp.diags_array(slope) @ independent_Z(arm.blocks, arm.n))
    elif setting.target == "new_group" and arm.blocks:
        U = sp.csr_array(slope[:, None] * np.hstack([block.values for block in arm.blocks]))
    return Linearised(estimate=mu, G=slope[:, None] * arm.X, U=U)


def known(setting: Setting, found: Linearised) -> Array:
    """Return whether the data tell each quantity (m,): False where it needs a combination of columns that they do not determine."""
    model = setting.model
    if not model.design.fixed.dropped:
        return np.ones(len(found.estimate), dtype=bool)
    encoder = with_all_columns(replace(model.design.encoder, weights=None, array_offset=False), model.design)
    scale, null = null_basis(encoder.encode_new(model.frame.loc[model.design.kept], random=False).X)
    full = found.G / scale
    inside = np.sum((full @ null) ** 2, axis=1)
    result: Array = inside <= _ESTIMABLE * np.maximum(np.sum(full**2, axis=1), np.finfo(float).tiny)
    return result


def variance_of(
    setting: Setting, fit: ClassicalFit, found: Linearised, inference: tuple[Array, Callable[[Array], float]] | None, *, df: bool
) -> tuple[Array, Array]:
    """Return the variance (m,) of the error of quantities and its degrees of freedom (m,), each combination once.

    `inference`: the covariance (p, p) of the coefficients and a contrast's degrees of freedom; None for quantities of random effects
    too, whose degrees of freedom, where wanted (`df`), are Satterthwaite's.
    """
    G = found.G[:, _kept(setting.model)] if setting.model.design.fixed.dropped else found.G
    wide = G if found.U is None else np.hstack([G, _compact(found.U)])
    finite = np.isfinite(wide).all(axis=1) & np.isfinite(found.estimate)
    variance, degrees = np.full(len(G), np.nan), np.full(len(G), np.nan)
    if not finite.any():
        return variance, degrees
    _, first, back = np.unique(wide[finite], axis=0, return_index=True, return_inverse=True)
    which = np.flatnonzero(finite)[first]
    if found.U is None and inference is not None:
        vcov, df_of = inference
        own = np.einsum("mp,pq,mq->m", G[which], vcov, G[which])
        nu = np.array([df_of(row) for row in G[which]])
    else:
        own, nu = _joint(setting, fit, G[which], None if found.U is None else sp.csr_array(found.U[which]), df=df)
    back = np.asarray(back).ravel()
    variance[finite], degrees[finite] = np.maximum(own, 0.0)[back], nu[back]
    return variance, degrees


def _compact(U: sp.csr_array) -> Array:
    """Return two columns that tell the rows of a sparse matrix apart: their projections on fixed random directions."""
    rng = np.random.default_rng(1)
    return np.asarray(U @ rng.standard_normal((U.shape[1], 2)))


def _joint(setting: Setting, fit: ClassicalFit, G: Array, U: sp.csr_array | None, *, df: bool) -> tuple[Array, Array]:
    if U is None or setting.target == "conditional":
        return combination_variance(fit, G, U, df=df)
    sizes = [block.n_effects for block in fit.model.design.blocks]
    new = np.split(U.toarray(), np.cumsum(sizes)[:-1], axis=1)
    return combination_variance(fit, G, None, new, df=df)
