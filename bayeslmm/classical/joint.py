"""The joint uncertainty of fixed and random effects: variances of predictions, leverages and their degrees of freedom.

With b = L u (L: the relative factors, block-diagonal) and S = L'Z'WZL + I, given the variance parameters and over sigma^2,

    var(x'(beta_hat - beta) + z'(b_hat - b)) = v'S^-1 v + (x - R v)'P^-1 (x - R v),   v = L'z,   R = X'WZL S^-1,   P = X'V^-1 X

(Henderson's mixed model equations, with u in place of b, so that singular covariances need no inverse). S is sparse; of its inverse
only entries between effects of one row are needed, and effects that do not hang together are solved for at the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from bayeslmm.classical.information import by_theta, information
from bayeslmm.classical.noise import has_noise, whitened_design
from bayeslmm.covariance import structure_of
from bayeslmm.errors import FitError
from bayeslmm.random_blocks import independent_Z
from bayeslmm.residual import residual_of

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.classical.information import Information
    from bayeslmm.design import Design, NewRows, RandomBlock

__all__ = ["combination_variance", "leverage", "prediction_variance"]

type Array = np.ndarray

_CHUNK = 20_000_000
"""Numbers of S^-1 held at a time."""
_DENSE = 0.2
"""From this share of entries that are not zero on, a matrix is taken as dense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Products:
    """What does not depend on the variance parameters; X = Q `to_q`^-1 with orthonormal (weighted) Q.

    `D` (q, q) = Z'WZ, `ZQ` (q, p) = Z'WQ; by column of Z: its connected `component` and its place `local` within it.
    """

    to_q: Array
    D: sp.csc_array
    ZQ: Array
    component: Array
    local: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class _Joint:
    """The equations at one theta: `factors` L by block; `lu` of S; `Y` (q, p) = S^-1 L'Z'WQ; `P` = Q'V^-1 Q as its Cholesky factor."""

    factors: tuple[Array, ...]
    lu: Any
    Y: Array
    P: Any


def leverage(fit: ClassicalFit) -> Array:
    """Return the hat values (n,) of the used rows, the diagonal of d fitted / d y: random effects included, as lme4's `hatvalues`.

    Parameters
    ----------
    fit
        What `lmer` returned.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))
    >>> leverage(fit)[:2].round(4).tolist()
    [0.1638, 0.1638]
    """
    design = _independent(fit)
    if fit.model.design.series is not None:
        raise FitError("hat values are not available for a model with correlated residuals; leave out groups by influence(fit, group)")
    products = _products(design)
    joint = _at(fit, products, fit.theta_by_block)
    values: Array = design.weights * _unscaled(products, joint, design.X, design.blocks, known=True)
    return values


def prediction_variance(
    fit: ClassicalFit, rows: NewRows, target: str, *, new_levels: str = "raise", observation: bool = False, df: bool = False
) -> tuple[Array, Array]:
    """Return the variance (n,) of the error of predictions at given rows, and its degrees of freedom (n,).

    Parameters
    ----------
    fit
        What `lmer` returned.
    rows
        Rows in the coding of the fit.
    target
        As in `bayeslmm.prediction.predict`. `conditional`: joint variance of beta and b; `average_group`, `population`: of beta;
        `new_group`: with the variance of a new group's effects. Of a generalised model that of beta is the fit's own, which heeds
        the uncertainty of all parameters, but not within `conditional`.
    new_levels
        Of conditional predictions: with `"sample"`, levels not seen add the variance of their effects.
    observation
        Add the residual variance, of a new observation (and for `population` that of its group).
    df
        Compute the degrees of freedom: Satterthwaite's, 2 v^2 / var(v), with var(v) by the delta method from the asymptotic
        covariance of (theta, sigma), derivatives by theta being central differences. Infinite where `df` is False, and where too
        many effects hang together for it (`information.MAX_CONNECTED`).

    Source: Henderson (1975), Biometrics 31; Fai & Cornelius (1996), J. Stat. Comput. Simul. 54.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> rows = fit.model.design.encoder.encode_new({"Days": [0.0], "Subject": ["308"]})
    >>> variance, _ = prediction_variance(fit, rows, "average_group")
    >>> bool(abs(variance[0] - fit.vcov().iloc[0, 0]) < 1e-8)
    True
    """
    products = _products(_independent(fit))
    groups = target == "new_group" or (target == "population" and observation)

    def unscaled(theta: Sequence[Array]) -> Array:
        joint = _at(fit, products, theta)
        if fit.generalised and target != "conditional":
            total = np.sum((rows.X @ fit.unscaled_vcov) * rows.X, axis=1)
        else:
            total = _unscaled(products, joint, rows.X, rows.blocks, known=target == "conditional")
        for block, L in zip(rows.blocks, joint.factors, strict=True):
            spread = np.sum((block.values @ L) ** 2, axis=1)
            if groups:
                total = total + spread * block.mean_variance
            elif target == "conditional":
                total = total + _of_levels(rows, block, spread, spread if new_levels == "sample" else 0.0 * spread)
        return total + _residual_variance(fit, rows) if observation else total

    variance = fit.sigma**2 * unscaled(fit.theta_by_block)
    if not df or fit.generalised:
        return variance, np.full(len(variance), np.inf)
    if has_noise(fit.model.design):
        from bayeslmm.classical.structured import degrees

        def moved(other: ClassicalFit) -> Array:
            return prediction_variance(other, rows, target, new_levels=new_levels, observation=observation)[0]

        return variance, degrees(fit, variance, moved)
    if not fit.model.design.blocks:
        return variance, np.full(len(variance), float(fit.nobs - len(fit.beta)))
    return variance, _satterthwaite(fit, variance, unscaled)


def combination_variance(
    fit: ClassicalFit, X: Array, Z: sp.csr_array | None = None, new: Sequence[Array] = (), *, df: bool = False
) -> tuple[Array, Array]:
    """Return the variance (m,) of the error of linear combinations X beta + Z w + sum_i U_i u_i, and its degrees of freedom (m,).

    Parameters
    ----------
    fit
        What `lmer` or `glmer` returned; of a generalised model, errors are those of linear predictors, as in `prediction_variance`.
    X
        Weights (m, p) of the coefficients.
    Z
        Weights (m, q) of the random effects, independent ones as in `random_blocks.independent_Z`.
    new
        By block of the design: weights U (m, k) of the effects of a level that is not in the data.
    df
        As for `prediction_variance`.

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> variance, df = combination_variance(fit, np.array([[0.0, 1.0]]), df=True)
    >>> float(np.sqrt(variance[0]).round(4)), float(df[0].round(2))
    (1.5458, 17.0)
    """
    design = _independent(fit)
    products = _products(design)

    def unscaled(theta: Sequence[Array]) -> Array:
        joint = _at(fit, products, theta)
        x, total = X @ products.to_q, np.zeros(len(X))
        if Z is not None and design.blocks:
            V = sp.csr_array(Z @ _relative(design.blocks, joint.factors))
            x, total = x - V @ joint.Y, _quadratic_of_all(joint, V)
        if fit.generalised and Z is None:
            total = np.sum((X @ fit.unscaled_vcov) * X, axis=1)
        elif x.shape[1]:
            total = total + np.sum(x * cho_solve(joint.P, x.T).T, axis=1)
        if new:
            for U, block, L in zip(new, design.blocks, joint.factors, strict=True):
                total = total + block.mean_variance * np.sum((U @ L) ** 2, axis=1)
        return total

    variance = fit.sigma**2 * unscaled(fit.theta_by_block)
    if not df or fit.generalised:
        return variance, np.full(len(variance), np.inf)
    if has_noise(fit.model.design):
        from bayeslmm.classical.structured import degrees

        return variance, degrees(fit, variance, lambda moved: combination_variance(moved, X, Z, new)[0])
    if not fit.model.design.blocks:
        return variance, np.full(len(variance), float(fit.nobs - len(fit.beta)))
    return variance, _satterthwaite(fit, variance, unscaled)


def _of_levels(rows: NewRows, block: RandomBlock, spread: Array, of_new: Array) -> Array:
    """Return 0 for levels of the fit, of those related to them what they leave open, `of_new` for new ones, NaN where it is missing."""
    _, index = rows.unseen.get(block.name, ((), None))
    new = np.zeros(len(spread), dtype=bool) if index is None else index >= 0
    left = 0.0 if block.known is None else spread * block.known.remainder[block.index]
    return np.where(block.index >= 0, left, np.where(new, of_new, np.nan))


# --------------------------------------------------------------------------------------------------------------------- equations


def _independent(fit: ClassicalFit) -> Design:
    """Return the design of a fit with independent residuals of standard deviation sigma: whitened where they have a structure.

    That of a generalised model has the information of its rows as weights: a row of negative information counts for none.
    """
    design = fit.model.design
    if fit.information is not None:
        return replace(design, weights=np.maximum(fit.information, np.finfo(float).tiny))
    if not has_noise(design):
        return design
    correlation = 0.0 if design.series is None else float(fit.further[residual_of(design.series).name].natural()[0])
    return whitened_design(design, fit.residual_sd / fit.sigma, correlation)


def _residual_variance(fit: ClassicalFit, rows: NewRows) -> Array:
    """Return the variance (n,) of new observations about their mean, over sigma^2."""
    relative = 1.0 / rows.weights
    if "sigma" not in fit.further:
        return relative
    part = fit.further["sigma"]
    own: Array = relative * (part.natural(rows.parameters["sigma"][0].X @ part.beta) / fit.sigma) ** 2
    return own


def _products(design: Design) -> _Products:
    root = np.sqrt(design.weights)[:, None]
    lengths = np.max(np.abs(design.X), axis=0, initial=0.0)
    lengths[lengths == 0.0] = 1.0
    Q, R = np.linalg.qr(design.X * root / lengths)
    p = len(lengths)
    to_q = solve_triangular(R, np.eye(p)) / lengths[:, None] if p else np.zeros((0, 0))
    Z = independent_Z(design.blocks, design.n).multiply(root).tocsr()
    D = sp.csc_array(Z.T @ Z)
    component, local = _places(design.blocks, D)
    return _Products(to_q=to_q, D=D, ZQ=np.asarray(Z.T @ Q), component=component, local=local)


def _places(blocks: Sequence[RandomBlock], D: sp.csc_array) -> tuple[Array, Array]:
    """Return the connected component of every column of Z (effects of one level belong together), and its place in it."""
    q = D.shape[0]
    if not q:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    level = np.concatenate([np.repeat(first, block.n_effects) for block, first in _numbered(blocks)])
    join = sp.csr_array((np.ones(q), (np.arange(q), level)), shape=(q, int(level[-1]) + 1))
    _, of_level = connected_components(join.T @ D @ join, directed=False)
    component = of_level[level].astype(np.int64)
    order = np.argsort(component, kind="stable")
    local = np.empty(q, dtype=np.int64)
    local[order] = np.arange(q) - np.searchsorted(component[order], component[order])
    return component, local


def _numbered(blocks: Sequence[RandomBlock]) -> list[tuple[RandomBlock, Array]]:
    """Return each block with running numbers of its levels."""
    starts = np.cumsum([0, *(block.n_levels for block in blocks)])
    return [(block, np.arange(start, start + block.n_levels)) for block, start in zip(blocks, starts, strict=False)]


def _at(fit: ClassicalFit, products: _Products, theta: Sequence[Array]) -> _Joint:
    blocks = fit.model.design.blocks
    factors = tuple(structure_of(block).factor(own, block.n_effects) for block, own in zip(blocks, theta, strict=True))
    p = products.to_q.shape[0]
    if not blocks:
        return _Joint(factors=(), lu=None, Y=products.ZQ, P=cho_factor(np.eye(p)) if p else None)
    Lambda = _relative(blocks, factors)
    S = sp.csc_array(Lambda.T @ products.D @ Lambda + sp.eye_array(products.D.shape[0]))
    lu = _factorised(S)
    LZQ = Lambda.T @ products.ZQ
    Y = lu.solve(LZQ) if p else LZQ
    return _Joint(factors=factors, lu=lu, Y=Y, P=cho_factor(np.eye(p) - LZQ.T @ Y) if p else None)


def _unscaled(products: _Products, joint: _Joint, X: Array, blocks: Sequence[RandomBlock], *, known: bool) -> Array:
    """Return the variance over sigma^2 (n,) of x'(beta_hat - beta), where `known` with the random effects of known levels."""
    x = X @ products.to_q
    total = np.zeros(len(X))
    if known and any(block.known is not None for block in blocks):
        V = _all_effects(joint, blocks, len(X))
        x = x - V @ joint.Y
        total = _quadratic_of_all(joint, V)
    elif known and blocks:
        v, columns = _effects(joint, blocks)
        for a in range(v.shape[1]):
            x = x - v[:, [a]] * joint.Y[columns[:, a]]
        total = _quadratic(products, joint, v, columns)
    complete = np.isfinite(x).all(axis=1)
    total = np.where(complete, total, np.nan)
    if x.shape[1] and complete.any():
        total[complete] += np.sum(x[complete] * cho_solve(joint.P, x[complete].T).T, axis=1)
    return total


def _effects(joint: _Joint, blocks: Sequence[RandomBlock]) -> tuple[Array, Array]:
    """Return v = L'z and its columns of Z, (n, effects of all blocks) each; zeros for levels that are not known."""
    v, columns, start = [], [], 0
    for block, L in zip(blocks, joint.factors, strict=True):
        k = block.n_effects
        known = (block.index >= 0)[:, None]
        v.append(np.where(known, block.values @ L, 0.0))
        columns.append(np.where(known, start + block.index.astype(np.int64)[:, None] * k + np.arange(k), 0))
        start += block.n_levels * k
    return np.concatenate(v, axis=1), np.concatenate(columns, axis=1)


def _all_effects(joint: _Joint, blocks: Sequence[RandomBlock], n: int) -> sp.csr_array:
    """Return v (n, q) over all columns of independent effects: a row has those of all levels that a known covariance relates to its own."""
    return sp.csr_array(independent_Z(blocks, n) @ _relative(blocks, joint.factors))


@dataclass(frozen=True, slots=True, kw_only=True)
class _DenseFactor:
    """A Cholesky factor with the one method that is asked of SciPy's sparse factors."""

    cholesky: Any

    def solve(self, right: Array) -> Array:
        return np.asarray(cho_solve(self.cholesky, right))


def _factorised(S: sp.csc_array) -> Any:
    """Return a factor of S, positive definite: a dense one where most of S is not zero, as under a known covariance among levels."""
    if S.nnz > _DENSE * S.shape[0] ** 2:
        return _DenseFactor(cholesky=cho_factor(S.toarray()))
    return splu(S, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True})


def _relative(blocks: Sequence[RandomBlock], factors: Sequence[Array]) -> sp.csc_array:
    """Return Lambda (q, q), the factors L repeated for each level of the fit."""
    levels = [block.n_levels if block.known is None else block.known.n_fit for block in blocks]
    return sp.csc_array(sp.block_diag([sp.kron(sp.eye_array(J), L) for J, L in zip(levels, factors, strict=True)], format="csc"))


def _quadratic_of_all(joint: _Joint, V: sp.csr_array) -> Array:
    """Return v'S^-1 v (n,), some rows at a time."""
    size = max(1, _CHUNK // V.shape[1])
    parts = [V[start : start + size].toarray() for start in range(0, V.shape[0], size)]
    return np.concatenate([np.zeros(0), *(np.sum(part * joint.lu.solve(part.T).T, axis=1) for part in parts)])


def _quadratic(products: _Products, joint: _Joint, v: Array, columns: Array) -> Array:
    """Return v'S^-1 v (n,): for every place within a component, its column of S^-1 in all components at once."""
    q = len(products.local)
    component, local = products.component[columns], products.local[columns]
    places = np.unique(local)
    total = np.zeros(len(v))
    for start in range(0, len(places), max(1, _CHUNK // q)):
        some = places[start : start + max(1, _CHUNK // q)]
        mine = np.flatnonzero(np.isin(products.local, some))
        right = np.zeros((q, len(some)))
        right[mine, np.searchsorted(some, products.local[mine])] = 1.0
        inverse = joint.lu.solve(right)
        for a in range(v.shape[1]):
            at = np.flatnonzero((local[:, a] >= some[0]) & (local[:, a] <= some[-1]))
            column = np.searchsorted(some, local[at, a])
            for b in range(v.shape[1]):
                together = component[at, a] == component[at, b]
                total[at] += np.where(together, v[at, a] * v[at, b] * inverse[columns[at, b], column], 0.0)
    return total


# ------------------------------------------------------------------------------------------------------------ degrees of freedom


def _satterthwaite(fit: ClassicalFit, variance: Array, unscaled: Any) -> Array:
    """Return 2 v^2 / (g'Ag) (n,): g the derivative of v by (theta, sigma), A their asymptotic covariance."""
    try:
        info = information(fit)
    except FitError:
        return np.full(len(variance), np.inf)
    spread = _spread(fit, info)
    slopes = [fit.sigma**2 * slope for slope in _by_theta(fit, info, unscaled)]
    g = np.stack([*slopes, 2.0 * variance / fit.sigma], axis=1)
    uncertainty = np.einsum("nd,de,ne->n", g, spread, g)
    with np.errstate(divide="ignore", invalid="ignore"):
        found: Array = np.where(variance > 0.0, 2.0 * variance**2 / uncertainty, np.inf)
    return found


def _by_theta(fit: ClassicalFit, info: Information, unscaled: Any) -> list[Array]:
    """Return the derivatives (n,) of the unscaled variance by each theta: central differences inside the parameters' limits."""
    slopes = []
    for position, (block, size) in enumerate(zip(fit.model.design.blocks, info.sizes, strict=True)):
        structure, k = structure_of(block), block.n_effects
        theta = fit.theta_by_block[position]
        moved = np.max(np.abs(size[:, None] * structure.jacobian(theta, k)), axis=(1, 2))
        step = 1e-4 * np.maximum(np.abs(theta), 0.1 / np.where(moved > 0.0, moved, 1.0))
        lower = np.full(len(theta), -np.inf) if structure.linear else structure.lower(k)
        upper = structure.upper(k)
        for i in range(len(theta)):
            ends, values = [], []
            for sign in (1.0, -1.0):
                parts = list(fit.theta_by_block)
                own = theta.copy()
                own[i] = np.clip(theta[i] + sign * step[i], lower[i], upper[i])
                parts[position] = own
                ends.append(own[i])
                values.append(unscaled(parts))
            slopes.append((values[0] - values[1]) / (ends[0] - ends[1]))
    return slopes


def _spread(fit: ClassicalFit, info: Information) -> Array:
    """Return the asymptotic covariance of (theta, sigma): twice the inverse of the deviance's Hessian, where it is curved upwards."""
    parameters = by_theta(fit, info)
    J = parameters.first
    H = J.T @ info.hessian(fit.reml) @ J + np.einsum("a,ade->de", info.gradient(fit.reml), parameters.second)
    scale = np.sqrt(np.abs(np.diagonal(H)))
    scale = np.where(scale > 0.0, scale, 1.0)
    values, vectors = np.linalg.eigh(H / np.outer(scale, scale))
    keep = values > 1e-8 * max(float(values[-1]), 0.0)
    part = vectors[:, keep]
    inverse: Array = 2.0 * (part / values[keep]) @ part.T / np.outer(scale, scale)
    return inverse
