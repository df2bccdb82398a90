"""Random effects of any family integrated out of the density of left-out rows, part by part, by quadrature at each draw.

With u ~ N(0, I), eta = eta_0 + (Lambda'Z')'u and the mode of u in a part, standard coordinates t about the mode (in which its curvature is
the identity) carry one rule of nodes for all of the part's rows. With the log integrand F_k at node k,

    log p(y_A | y_-A) = log sum_k exp F_k - log sum_k exp(F_k - sum_{i in A} log p(y_i | u_k)),

and the first term alone is log p(y_A) where A is the whole part. One or two effects: the trapezoidal rule, which for an analytic
integrand that vanishes at both ends errs by less than any power of its step, on a range that covers the distribution of u without each
set A too. More: scrambled Sobol' points of a multivariate t distribution, by importance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import gammaln, logsumexp

from bayeslmm.bayes.marginal import Part, chunks, covariance_root, parts_of
from bayeslmm.errors import FitError
from bayeslmm.families import jets
from bayeslmm.families.base import IDENTITY, Quantity
from bayeslmm.progress import counted

if TYPE_CHECKING:
    from bayeslmm.families.base import Family, Link
    from bayeslmm.fit import Draws
    from bayeslmm.model import Model

__all__ = ["MOST_EFFECTS", "given_predictor", "integrated_row", "left_out"]

type Array = np.ndarray

MOST_EFFECTS = 12
"""More effects than this in one part are not integrated out."""
_NEWTON, _HALVINGS, _STILL = 30, 25, 1e-6
_IMPOSSIBLE = -1e6
"""The log density of what has none, so that it can be taken off again."""
_REACH = (12.0, 8.0)
"""Standard deviations on either side of the mode, for one effect and for two."""
_PRIOR = 9.0
"""Standard deviations of the prior beyond which one effect does not go."""
_STEP = (0.5, 0.75)
_LONGEST = (401, 61)
"""Nodes of one coordinate, at most."""
_POINTS = 1024
"""Of the rule for three effects or more."""
_DF = 8.0
_MOVED = 0.25
"""From here on (squared shift of the centre and growth of the variance) a set's rows have nodes of their own, for three effects or more."""


def left_out(model: Model, draws: Draws, units: Array) -> Array:
    """Return log p(y_A | all other rows, parameters) (S, U) for the rows A of every unit 0..U-1.

    Raises
    ------
    FitError
        If rows are connected by more effects than can be integrated out, as those of crossed factors are.
    """
    design = model.design
    parts = list(parts_of(design.n, design.blocks, None))
    _refuse_large(model, parts)
    roots = tuple(covariance_root(one) for one in draws.covariance)
    result = np.zeros((draws.n_draws, int(units.max(initial=-1)) + 1))
    with counted("leaving out", design.n * draws.n_draws) as advance:
        for part in parts:
            local, own = np.unique(units[part.rows], return_inverse=True)
            for which in chunks(draws.n_draws, len(part.rows) * _nodes_at_most(len(part.Zt))):
                eta = draws.b[which] @ design.X[part.rows].T + design.offset[part.rows]
                B = np.swapaxes(part.root(tuple(L[which] for L in roots)), 1, 2) @ part.Zt
                result[which][:, local] += _in_part(_rows(model, draws, which, part.rows, eta), B, own)
                advance(len(part.rows) * (which.stop - which.start))
    return result


def integrated_row(model: Model, draws: Draws, row: int, eta: Array, spread: Array) -> Array:
    """Return log p(y_row) (S,) where the linear predictor is normal with mean `eta` (S,) and standard deviation `spread` (S,)."""
    result = np.empty(draws.n_draws)
    for which in chunks(draws.n_draws, _nodes_at_most(1)):
        rows = _rows(model, draws, which, np.array([row]), eta[which, None])
        result[which] = _in_part(rows, spread[which, None, None], np.zeros(1, dtype=np.int64))[:, 0]
    return result


def given_predictor(model: Model, draws: Draws, eta: Array) -> Array:
    """Return log p(y_i | eta_i) (S, n) of all rows of a model at given linear predictors (S, n)."""
    rows = np.arange(model.design.n)
    return _rows(model, draws, slice(None), rows, eta).density(np.zeros((1, 1, len(rows))))[:, 0]


def _refuse_large(model: Model, parts: list[Part]) -> None:
    largest = max(parts, key=lambda part: len(part.Zt))
    if len(largest.Zt) <= MOST_EFFECTS:
        return
    groups = list(dict.fromkeys(block.group for block in model.design.blocks))
    raise FitError(
        f"{len(largest.rows)} rows hang together by {len(largest.Zt)} random effects (groups: {', '.join(groups)}); outside the Gaussian "
        f"family at most {MOST_EFFECTS} can be integrated out at once, as of one grouping factor, or of nested ones with few levels "
        "inside each other. Use kfold(fit), or loo(fit, kind='conditional')"
    )


def _nodes_at_most(q: int) -> int:
    """Return the usual number of nodes, for the memory that is taken."""
    return (60, 900, _POINTS)[min(q, 3) - 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Log densities of some rows about linear predictors `eta` (S, n); `aux` further parameters (S, 1, n or 1), `powers` (n,) weights."""

    family: Family
    link: Link
    y: Array
    trials: Array | None
    powers: Array
    eta: Array
    aux: Mapping[str, Array]

    def take(self, draws: Array) -> _Rows:
        """Return the same at some of the draws."""
        return replace(self, eta=self.eta[draws], aux={name: values[draws] for name, values in self.aux.items()})

    def _given(self, shape: tuple[int, ...]) -> tuple[Array, dict[str, Quantity], Array | None]:
        """Return response, further parameters and trials as long as all of (S, K, n)."""

        def flat(values: Array) -> Array:
            return np.ascontiguousarray(np.broadcast_to(values, shape)).reshape(-1)

        further = {name: Quantity(IDENTITY, flat(values)) for name, values in self.aux.items()}
        return flat(self.y), further, None if self.trials is None else flat(self.trials)

    def density(self, shift: Array) -> Array:
        """Return log densities (S, K, n) at eta + shift (S, K, n), of impossible ones a large negative number."""
        at = self.eta[:, None, :] + shift
        y, further, trials = self._given(at.shape)
        with np.errstate(all="ignore"):
            value = self.family.log_density(y, Quantity(self.link, at.reshape(-1)), further, trials)
        value = np.broadcast_to(value, at.size).reshape(at.shape) * self.powers
        return np.where(value > _IMPOSSIBLE, value, _IMPOSSIBLE)

    def slopes(self, shift: Array) -> tuple[Array, Array, Array]:
        """Return log densities (S, n) at eta + shift (S, n), their first derivatives and their curvatures, negative ones as none."""
        at = self.eta + shift
        y, further, trials = self._given((len(at), 1, at.shape[1]))
        (variable,) = jets.variables(at.reshape(1, -1), 2)
        with np.errstate(all="ignore"):
            taylor = jets.taylor(self.family.log_density(y, Quantity(self.link, variable), further, trials), 1, at.size, 2)
        value, d1, d2 = (one.reshape(at.shape) * self.powers for one in (taylor.value, taylor.d1[0], taylor.d2[0, 0]))
        curvature = np.where(np.isfinite(d2), np.maximum(-d2, 0.0), 0.0)
        return np.where(value > _IMPOSSIBLE, value, _IMPOSSIBLE), np.where(np.isfinite(d1), d1, 0.0), curvature


def _rows(model: Model, draws: Draws, which: slice, rows: Array, eta: Array) -> _Rows:
    """Return the log densities of some rows at some draws, about eta (S, n)."""
    design, family = model.design, model.family
    w, powers, aux = design.weights[rows], np.ones(len(rows)), {}
    for name, values in draws.aux.items():
        own = values[which]
        aux[name] = (own[:, rows] if own.ndim == 2 else own[:, None])[:, None, :]
    if design.has_weights and model.dialect == "lme4" and family.scale is not None:
        aux[family.scale] = aux[family.scale] / np.sqrt(w)
    elif design.has_weights:
        powers = w
    trials = None if design.trials is None else design.trials[rows]
    return _Rows(family=family, link=model.link, y=design.y[rows], trials=trials, powers=powers, eta=eta, aux=aux)


# ------------------------------------------------------------------------------------------------------------------ one part


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mode:
    """Where the integrand of a part is largest: u (S, q), and L, LL' = I + B diag(h) B' its curvature; row derivatives there."""

    u: Array
    L: Array
    d1: Array
    h: Array


def _in_part(rows: _Rows, B: Array, own: Array) -> Array:
    """Return log p(y_A | y_-A) (S, sets) of the sets of one part's rows; eta = eta_0 + B'u, B (S, q, n)."""
    mode = _mode(rows, B)
    count, q = int(own.max()) + 1, B.shape[1]
    membership = np.equal.outer(np.arange(count), own).astype(float)
    centre, covariance = _shifted(mode, B, membership)
    low, high = _reach(mode, centre, covariance) if count > 1 else _reach(mode, centre[:, :0], covariance[:, :0])
    t, log_weight = _rule(len(B), q, low, high)
    each, base = _integrand(rows, B, mode, t)
    F = log_weight + base + each.sum(axis=2)
    whole = logsumexp(F, axis=1)
    if count == 1:
        return np.asarray(whole[:, None])
    without = np.stack([logsumexp(F - each @ inside, axis=1) for inside in membership], axis=1)
    if q > 2:
        _recentre(without, rows, B, mode, membership, centre, covariance)
    return np.asarray(whole[:, None] - without)


def _integrand(rows: _Rows, B: Array, mode: _Mode, t: Array) -> tuple[Array, Array]:
    """Return at nodes t (S, K, q) the rows' log densities (S, K, n), and the log prior of u with the change of variables (S, K)."""
    u = mode.u[:, None, :] + np.swapaxes(np.linalg.solve(np.swapaxes(mode.L, 1, 2), np.swapaxes(t, 1, 2)), 1, 2)
    prior = -0.5 * np.sum(u**2, axis=2) - 0.5 * B.shape[1] * np.log(2.0 * np.pi)
    logdet = np.sum(np.log(np.diagonal(mode.L, axis1=1, axis2=2)), axis=1)
    return rows.density(u @ B), prior - logdet[:, None]


def _recentre(without: Array, rows: _Rows, B: Array, mode: _Mode, membership: Array, centre: Array, covariance: Array) -> None:
    """Overwrite the log integrals (S, sets) without the sets that move the distribution of u: nodes about where it is without them."""
    q = B.shape[1]
    points, log_weights = _sobol(q)
    moved = np.sum(centre**2, axis=2) + np.trace(covariance, axis1=2, axis2=3) - q > _MOVED
    for a, inside in enumerate(membership):
        for which in chunks(len(B), B.shape[2] * _POINTS):
            some = np.arange(which.start, which.stop)[moved[which, a]]
            if not some.size:
                continue
            root = np.linalg.cholesky(covariance[some, a])
            t = centre[some, a, None, :] + points @ np.swapaxes(root, 1, 2)
            here = replace(mode, u=mode.u[some], L=mode.L[some])
            each, base = _integrand(rows.take(some), B[some], here, t)
            logdet = np.sum(np.log(np.diagonal(root, axis1=1, axis2=2)), axis=1)
            without[some, a] = logdet + logsumexp(log_weights + base + each @ (1.0 - inside), axis=1)


def _mode(rows: _Rows, B: Array) -> _Mode:
    """Return the mode by Newton's method with halved steps, each draw for itself."""
    q = B.shape[1]
    u = np.zeros((len(B), q))
    value, d1, h = _at(rows, B, u)
    for _ in range(_NEWTON):
        H = np.eye(q) + (B * h[:, None, :]) @ np.swapaxes(B, 1, 2)
        step = np.linalg.solve(H, (np.einsum("sqn,sn->sq", B, d1) - u)[:, :, None])[:, :, 0]
        if np.max(np.abs(step)) < _STILL:
            break
        size = np.ones(len(u))
        for _ in range(_HALVINGS):
            new_value, new_d1, new_h = _at(rows, B, u + size[:, None] * step)
            worse = new_value < value - 1e-9 * np.abs(value)
            if not np.any(worse):
                break
            size = np.where(worse, size / 2.0, size)
        u, value, d1, h = u + size[:, None] * step, new_value, new_d1, new_h
    H = np.eye(q) + (B * h[:, None, :]) @ np.swapaxes(B, 1, 2)
    return _Mode(u=u, L=np.linalg.cholesky(H), d1=d1, h=h)


def _at(rows: _Rows, B: Array, u: Array) -> tuple[Array, Array, Array]:
    """Return the log integrand (S,) at u, the rows' slopes (S, n) and their curvatures."""
    each, d1, h = rows.slopes(np.einsum("sqn,sq->sn", B, u))
    return each.sum(axis=1) - 0.5 * np.sum(u**2, axis=1), d1, h


def _shifted(mode: _Mode, B: Array, membership: Array) -> tuple[Array, Array]:
    """Return centre (S, sets, q) and covariance (S, sets, q, q) of t without each set's rows, by one Newton step from the mode."""
    V = np.linalg.solve(mode.L, B)
    lost = np.einsum("sqn,sn,srn,an->saqr", V, mode.h, V, membership, optimize=True)
    slope = np.einsum("sqn,sn,an->saq", V, mode.d1, membership, optimize=True)
    covariance = np.linalg.inv(np.eye(B.shape[1]) - lost)
    return -np.einsum("saqr,sar->saq", covariance, slope), covariance


def _reach(mode: _Mode, centre: Array, covariance: Array) -> tuple[Array, Array]:
    """Return how far (S, q) a rule for one or two effects reaches below and above the mode; for one, not beyond the prior's own reach."""
    q = mode.u.shape[1]
    reach = _REACH[min(q, 2) - 1]
    half = reach * np.sqrt(np.maximum(np.diagonal(covariance, axis1=2, axis2=3), 1.0))
    low = np.min(centre - half, axis=1, initial=-reach)
    high = np.max(centre + half, axis=1, initial=reach)
    if q > 1:
        return low, high
    return np.maximum(low, mode.L[:, 0] * (-_PRIOR - mode.u)), np.minimum(high, mode.L[:, 0] * (_PRIOR - mode.u))


def _rule(n: int, q: int, low: Array, high: Array) -> tuple[Array, Array]:
    """Return nodes t (S, K, q) and log weights (S or 1, K) for the integral over t."""
    if q > 2:
        points, log_weights = _sobol(q)
        return np.broadcast_to(points, (n, *points.shape)), log_weights
    step, longest = _STEP[q - 1], _LONGEST[q - 1]
    counts = [min(int(np.ceil(np.max(high[:, a] - low[:, a]) / step)) + 1, longest) for a in range(q)]
    axes = [low[:, a, None] + (high - low)[:, a, None] * np.linspace(0.0, 1.0, counts[a]) for a in range(q)]
    log_step = np.sum([np.log((high - low)[:, a] / (counts[a] - 1)) for a in range(q)], axis=0)
    columns = [axes[0]] if q == 1 else [np.repeat(axes[0], counts[1], axis=1), np.tile(axes[1], (1, counts[0]))]
    return np.stack(columns, axis=2), log_step[:, None]


@cache
def _sobol(q: int) -> tuple[Array, Array]:
    """Return points (1, K, q) of a multivariate t distribution, and the logs of their weights one over (K density)."""
    from scipy.special import ndtri
    from scipy.stats import chi2
    from scipy.stats.qmc import Sobol

    uniform = Sobol(q + 1, seed=0).random(_POINTS)
    z = ndtri(np.clip(uniform[:, :q], 1e-12, 1.0 - 1e-12))
    points = z / np.sqrt(chi2.ppf(np.clip(uniform[:, q], 1e-12, 1.0), _DF) / _DF)[:, None]
    constant = gammaln((_DF + q) / 2.0) - gammaln(_DF / 2.0) - 0.5 * q * np.log(_DF * np.pi)
    log_density = constant - 0.5 * (_DF + q) * np.log1p(np.sum(points**2, axis=1) / _DF)
    return points, -np.log(_POINTS) - log_density[None, :]
