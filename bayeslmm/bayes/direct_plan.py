"""The plan of a model for the direct sampler's kernel: its arrays, and the working responses and weights of its rows at a point.

Near a point the log likelihood of a row is that of a normal observation of eta: the working response eta + score / W of weight W, the
curvature. What factors of more levels leave of the rows' information to one of fewer is a share of each row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes import direct_density as kernel
from bayeslmm.bayes.collapsed_density import FREE, INDEPENDENT, coefficient_rows
from bayeslmm.bayes.collapsed_priors import scalars_of
from bayeslmm.bayes.native import pack
from bayeslmm.bayes.translate import deviation_slots, factors, has_correlation, rows_of
from bayeslmm.families import LINKS, derivatives
from bayeslmm.families.kernels import family_address, link_address

if TYPE_CHECKING:
    from bayeslmm.bayes.translate import Factor
    from bayeslmm.model import Model

__all__ = ["Direct", "Values", "columns_of", "direct_of", "evaluate", "laid_out", "linearised", "slopes", "values_of"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """The density of one model: its kernel's plan, and how its values become the model's parameters.

    `means` (p,): what the columns of X are centred by, zero for the intercept at `intercept` (-1: nothing is centred). `globals`: how many
    entries of x are parameters; behind them are the random effects.
    """

    model: Model
    plan: kernel.Plan
    groups: tuple[Factor, ...]
    means: Array
    intercept: int
    globals: int

    @property
    def dim(self) -> int:
        """The number of coordinates."""
        return len(self.plan.mode)

    @property
    def p(self) -> int:
        """The number of coefficients."""
        return len(self.means)


# --------------------------------------------------------------------------------------------------------------------- preparing


def direct_of(model: Model) -> Direct:
    """Return the density of a model to which it applies (see `direct.limit`), without weights: effects not centred, no mode."""
    design, family, groups = model.design, model.family, factors(model)
    coefficients, intercept = coefficient_rows(model)
    means = np.where(np.arange(len(coefficients)) == intercept, 0.0, design.X.mean(axis=0)) * (intercept >= 0)
    deviations = [rows_of(model, "sd", "", group.group) for group in groups]
    rows = [*coefficients, *(row for own in deviations for row in own), *rows_of(model, "aux")]
    first = np.cumsum([len(coefficients), *(len(own) for own in deviations)])
    slots = [start + deviation_slots(group) for start, group in zip(first, groups, strict=False)]
    free = [(slot, row) for slot, row in enumerate(rows) if row.distribution.name != "constant"]
    scalars, _ = scalars_of(free, family)
    terms = _terms(model, groups, len(free))
    n_globals = len(free) + int(sum(k * (k - 1) // 2 for k, kind in zip(terms["k"], terms["kind"], strict=True) if kind == FREE))
    places = _places(groups, n_globals)
    powers, scale = _weights(model)
    assert family.kernel is not None
    n, F = design.n, len(groups)
    vectors = int(sum(places["width"] * places["levels"]))
    plan = kernel.Plan(
        scalars=scalars,
        fixed=np.array([row.distribution.args[0] if row.distribution.name == "constant" else 0.0 for row in rows]),
        **terms,
        **places,
        sd_slot=np.concatenate([np.zeros(0), *slots]).astype(np.int64),
        X=design.X - means,
        offset=np.array(design.offset, dtype=float),
        y=np.array(design.y, dtype=float),
        trials=np.ones(n) if design.trials is None else np.array(design.trials, dtype=float),
        scale=scale,
        powers=powers,
        level=np.array([group.blocks[0].index for group in groups], dtype=np.int64).reshape(F, n),
        z=np.concatenate([np.zeros(0), *(_values(group).ravel() for group in groups)]),
        weights=np.zeros((F, n)),
        info=np.zeros(int(sum(places["levels"] * places["width"] ** 2))),
        target=np.zeros(vectors),
        mode=np.zeros(n_globals + vectors),
        root=np.zeros((0, 0)),
        work_at=np.zeros(0, dtype=np.int64),
        further=len(family.parameters),
        needs=family.kernel.needs,
        link=link_address(model.link),
        family=family_address(family),
    )
    plan = plan._replace(work_at=kernel.work_at(plan))
    return Direct(model=model, plan=plan, groups=groups, means=means, intercept=intercept, globals=n_globals)


def _values(group: Factor) -> Array:
    """Return the values (n, K) of all effects of a factor."""
    return np.column_stack([block.values for block in group.blocks])


def _weights(model: Model) -> tuple[Array, Array]:
    """Return the rows' powers and the multiples of the family's scale: brms's weights, or lme4's."""
    design = model.design
    ones = np.ones(design.n)
    if not design.has_weights:
        return ones, ones
    if model.dialect == "lme4" and model.family.scale is not None:
        return ones, 1.0 / np.sqrt(design.weights)
    return np.array(design.weights, dtype=float), ones


def _terms(model: Model, groups: tuple[Factor, ...], n_scalars: int) -> dict[str, Array]:
    """Return the plan's arrays by term."""
    k, kind, power, column = [], [], [], []
    for group in groups:
        etas = iter(rows_of(model, "cor", "", group.group))
        for block, columns, structure in zip(group.blocks, group.columns, group.structures, strict=True):
            correlated = has_correlation(block, structure)
            eta = next(etas).distribution.args[0] if correlated else 1.0
            k.append(block.n_effects)
            kind.append(FREE if correlated else INDEPENDENT)
            power.append(2.0 * eta - 1.0 + block.n_effects)
            column.append(int(columns[0]))
    counts = [size * (size - 1) // 2 if one == FREE else 0 for size, one in zip(k, kind, strict=True)]
    return {
        "k": np.array(k, dtype=np.int64),
        "kind": np.array(kind, dtype=np.int64),
        "cor_at": n_scalars + _starts(counts),
        "matrix_at": _starts([size**2 for size in k]),
        "power": np.array(power, dtype=float),
        "column": np.array(column, dtype=np.int64),
    }


def _places(groups: tuple[Factor, ...], n_globals: int) -> dict[str, Array]:
    """Return the plan's arrays by factor; v of the factor of the fewest levels stands first in x."""
    width = np.array([len(group.effects) for group in groups], dtype=np.int64)
    levels = np.array([len(group.levels) for group in groups], dtype=np.int64)
    sizes = levels * width
    n = len(groups[0].blocks[0].index) if groups else 0
    return {
        "width": width,
        "levels": levels,
        "term_at": np.concatenate([[0], np.cumsum([len(group.blocks) for group in groups])]).astype(np.int64),
        "sd_at": _starts(width),
        "lam_at": _starts(width**2),
        "z_at": _starts(n * width),
        "level_at": _starts(sizes),
        "info_at": _starts(levels * width**2),
        "v_at": n_globals + _starts(sizes[::-1])[::-1],
    }


def _starts(sizes: Any) -> Array:
    """Return where each of some pieces starts in a row of them."""
    return np.concatenate([[0], np.cumsum(sizes)[:-1]])[: len(sizes)].astype(np.int64)


def laid_out(plan: kernel.Plan) -> Array:
    """Return the buffer of a plan that the kernel reads."""
    sizes = np.array([plan.further, plan.needs, plan.link, plan.family, len(plan.root), plan.X.shape[1]], dtype=np.int64)
    scalars = plan.scalars
    return pack(
        [
            sizes, scalars.slot, scalars.kind, scalars.args, scalars.lower, scalars.upper, plan.fixed, plan.k, plan.kind, plan.cor_at,
            plan.matrix_at, plan.power, plan.column, plan.width, plan.levels, plan.term_at, plan.sd_at, plan.lam_at, plan.z_at,
            plan.level_at, plan.info_at, plan.v_at, plan.sd_slot, plan.X, plan.offset, plan.trials, plan.y, plan.scale, plan.powers,
            plan.level, plan.z, plan.weights, plan.info, plan.target, plan.mode, plan.root, plan.work_at,
        ]
    )  # fmt: skip


def evaluate(buffer: Array, t: Array) -> tuple[float, Array]:
    """Return the log density at x = mode + root t, but for a constant, and its gradient by t."""
    grad = np.empty(len(t))
    return kernel.whitened(buffer, buffer.view(np.float64), t, grad), grad


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """S points: values `x` (S, slots), correlation factors `C` (S, sum k^2), effects `b` (S, sum JK); `eta` (n,) of the last one."""

    x: Array
    C: Array
    b: Array
    eta: Array


def values_of(plan: kernel.Plan, t: Array) -> Values:
    """Return what points t (S, d) are."""
    S, squares = len(t), int(np.sum(plan.k**2))
    found = Values(x=np.empty((S, len(plan.fixed))), C=np.empty((S, squares)), b=np.empty((S, len(plan.target))), eta=np.empty(len(plan.y)))
    buffer = laid_out(plan)
    kernel.draws(buffer, buffer.view(np.float64), np.ascontiguousarray(t), found.x, found.C, found.b, found.eta)
    return found


# ----------------------------------------------------------------------------------------------------------- working responses


def linearised(direct: Direct, values: Values) -> Direct:
    """Return the density with weights and working responses of the rows at a point (S = 1): the curvature of their log likelihood."""
    score, curvature = slopes(direct, values.x[0], values.eta)
    plan = direct.plan
    L = _factors_of(plan, values)
    index, z = plan.level, [columns_of(plan, f) for f in range(len(L))]
    weights = np.tile(curvature, (len(L), 1))
    info, target = [], []
    for f, K in enumerate(plan.width):
        w = weights[f]
        D = np.zeros((plan.levels[f], K, K))
        np.add.at(D, index[f], (w[:, None] * z[f])[:, :, None] * z[f][:, None, :])
        share = np.divide(w, curvature, out=np.zeros_like(w), where=curvature > 0)
        H = np.zeros((plan.levels[f], K))
        np.add.at(H, index[f], (w * values.eta + share * score)[:, None] * z[f])
        covariance = L[f] @ np.linalg.solve(np.eye(K) + L[f].T @ D @ L[f], np.broadcast_to(L[f].T, D.shape))
        for g in range(f + 1, len(L)):
            weights[g] *= _left(index[f], index[g], w, z[f], covariance)
        info.append(D.ravel())
        target.append(H.ravel())
    empty = np.zeros(0)
    changed = plan._replace(weights=weights, info=np.concatenate([empty, *info]), target=np.concatenate([empty, *target]))
    return replace(direct, plan=changed)


def columns_of(plan: kernel.Plan, f: int) -> Array:
    """Return the values (n, K) of a factor's effects."""
    n, K = len(plan.y), plan.width[f]
    return plan.z[plan.z_at[f] : plan.z_at[f] + n * K].reshape(n, K)


def _left(fine: Array, coarse: Array, w: Array, z: Array, covariance: Array) -> Array:
    """Return what share (n,) of the rows' information a finer factor of given levels' covariance (J, K, K) leaves to a coarser one.

    It is exact for the diagonal of the coarser one's information where its effects are intercepts.
    """
    _, cell, first = _cells(fine, coarse)
    total = np.bincount(cell, w)
    sums = np.stack([np.bincount(cell, w * column) for column in z.T], axis=1)
    taken = np.einsum("ca,cab,cb->c", sums, covariance[fine[first]], sums)
    share = np.divide(taken, total, out=np.zeros_like(total), where=total > 0)
    return np.asarray(np.clip(1.0 - share, 0.0, 1.0)[cell])


def _cells(fine: Array, coarse: Array) -> tuple[Array, Array, Array]:
    """Return the distinct pairs of levels, each row's pair, and each pair's first row."""
    pairs, first, cell = np.unique(fine * (int(np.max(coarse, initial=0)) + 1) + coarse, return_index=True, return_inverse=True)
    return pairs, cell, first


def _factors_of(plan: kernel.Plan, values: Values) -> list[Array]:
    """Return each factor's L (K, K) of its effects' covariance at a point."""
    found = []
    for f, K in enumerate(plan.width):
        L = np.zeros((K, K))
        for t in range(plan.term_at[f], plan.term_at[f + 1]):
            k, first, at = plan.k[t], plan.column[t], plan.matrix_at[t]
            sd = values.x[0, plan.sd_slot[plan.sd_at[f] + first : plan.sd_at[f] + first + k]]
            L[first : first + k, first : first + k] = sd[:, None] * values.C[0, at : at + k * k].reshape(k, k)
        found.append(L)
    return found


def slopes(direct: Direct, x: Array, eta: Array) -> tuple[Array, Array]:
    """Return the rows' derivative by eta and their curvature, not below 0; both 0 where the density is not defined."""
    model, plan = direct.model, direct.plan
    family = model.family
    aux = x[len(x) - plan.further :]
    identity = LINKS["identity"]
    etas = np.stack([eta, *(np.full(len(eta), value) for value in aux)])
    for k, parameter in enumerate(family.parameters, start=1):
        if parameter.name == family.scale:
            etas[k] *= plan.scale
    found = derivatives(family, (model.link, *[identity] * plan.further), plan.y, etas, model.design.trials, order=2)
    score, curvature = plan.powers * found.d1[0], np.maximum(-plan.powers * found.d2[0, 0], 0.0)
    sound = np.isfinite(score) & np.isfinite(curvature)
    return np.where(sound, score, 0.0), np.where(sound, curvature, 0.0)
