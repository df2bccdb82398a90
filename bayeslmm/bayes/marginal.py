"""The density of left-out rows given all others at each draw of the parameters, random effects integrated out.

Of a Gaussian model y ~ N(mu, V), V = R + Z Sigma Z', with the precision Q = V^-1 and g = Q (y - mu), a set A of rows has, given all others,
the precision Q_AA and the error Q_AA^-1 g_A:

    log p(y_A | y_-A) = (log|Q_AA| - g_A' Q_AA^-1 g_A - |A| log(2 pi)) / 2

(Sundararajan & Keerthi 2001, Neural Comput. 13; Bürkner, Gabry & Vehtari 2021, Comput. Stat. 36). Rows that no level and no series
connects are independent, so that V is taken by connected parts, and Q there by Woodbury's identity in the part's random effects:
Q = R^-1 - Y'Y with Y = L^-1 Lambda'Z'R^-1, LL' = I + Lambda'Z'R^-1 Z Lambda, Sigma = Lambda Lambda'; no inverse is of the size of the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes import draws as arrays
from bayeslmm.errors import DataError, FitError, suggest
from bayeslmm.progress import counted
from bayeslmm.residual import residual_of

if TYPE_CHECKING:
    from bayeslmm.fit import Draws
    from bayeslmm.model import Model
    from bayeslmm.random_blocks import RandomBlock
    from bayeslmm.series import Series

__all__ = ["Part", "chunks", "left_out", "normal_log_density", "parts_of", "power_constant", "row_sd", "units"]

type Array = np.ndarray
type Times = Callable[[Array], Array]

_HELD = 4_000_000
"""Numbers of one array held at a time."""
_DENSE = 32
"""Up to so many random effects in one part, products are dense and taken for many draws at once."""
_LARGEST = 2000
"""Of the random effects in one part, where their products are dense."""
_RESERVED = ("chain", "draw")
_LOG_2PI = math.log(2.0 * math.pi)


# ------------------------------------------------------------------------------------------------------------------------- units


def units(model: Model, group: str | None) -> tuple[Array, str, Array]:
    """Return the unit (n,) of each row, the name of a dimension for them, and their labels.

    Raises
    ------
    FitError
        If `group` names neither a grouping factor nor a column, or is None and the model has not exactly one factor.
    DataError
        If the column lacks values.
    """
    design = model.design
    own = {block.group: block for block in design.blocks}
    if group is None:
        if len(own) != 1:
            what = f"several grouping factors; name one: {', '.join(own)}" if own else "no grouping factor; name a column of the data"
            raise FitError(f"the model has {what}, as in group='...'")
        (group,) = own
    dim = f"{group}_" if group in _RESERVED else group
    if group in own:
        return own[group].index, dim, np.array(own[group].levels, dtype=object)
    columns = [str(name) for name in model.frame.columns]
    if group not in columns:
        raise FitError(f"'{group}' is neither a grouping factor nor a column of the data{suggest(group, [*own, *columns])}")
    column = model.frame.loc[design.kept, group]
    if column.isna().any():
        rows = column.index[column.isna()].tolist()
        raise DataError(f"column '{group}' lacks values, so that its groups cannot be left out", column=group, rows=rows)
    labels, index = np.unique(column.astype(str).to_numpy(dtype=object), return_inverse=True)
    return index, dim, labels


# ------------------------------------------------------------------------------------------------------------------------- parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Rows that no level or series connects with others: `rows` (n,), `Zt` (q, n) their random effects' columns, transposed.

    `copies`: per block of the design how many times its (k, k) factor of the covariance stands in Lambda, in the order of the columns.
    """

    rows: Array
    Zt: Array
    copies: tuple[int, ...]

    def gram(self, w: Array) -> Array:
        """Return Z'WZ (q, q) for row weights w (n,)."""
        Zt = self.sparse
        return np.asarray(((Zt * w[None, :]) @ Zt.T).todense())

    def columns_times(self, T: Array) -> Array:
        """Return T Z' (S, m, n) of T (S, m, q)."""
        if not T.shape[2]:
            return np.zeros((*T.shape[:2], len(self.rows)))
        flat = T.reshape(-1, T.shape[2])
        return np.asarray((self.sparse.T @ flat.T).T).reshape(*T.shape[:2], len(self.rows))

    @property
    def sparse(self) -> Any:
        from scipy.sparse import csr_array

        return csr_array(self.Zt)

    def root(self, roots: tuple[Array, ...]) -> Array:
        """Return Lambda (S, q, q), block diagonal, of the blocks' factors (S, k, k)."""
        result = np.zeros((len(roots[0]) if roots else 1, len(self.Zt), len(self.Zt)))
        at = 0
        for L, copies in zip(roots, self.copies, strict=True):
            k = L.shape[1]
            for _ in range(copies):
                result[:, at : at + k, at : at + k] = L
                at += k
        return result


def parts_of(n: int, blocks: tuple[RandomBlock, ...], series: Series | None) -> Iterator[Part]:
    """Yield the independent parts of n rows with some random terms and, maybe, correlated residuals."""
    label = _components(n, blocks, series)
    order = np.argsort(label, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(label[order])) + 1):
        columns = [_columns(block, rows) for block in blocks]
        copies = tuple(len(Zt) // block.n_effects for block, Zt in zip(blocks, columns, strict=True))
        yield Part(rows=rows, Zt=np.concatenate([np.zeros((0, len(rows))), *columns]), copies=copies)


def _components(n: int, blocks: tuple[RandomBlock, ...], series: Series | None) -> Array:
    """Return which connected part each row (n,) belongs to; a known covariance among levels connects all of them."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    links = [np.zeros(n, dtype=np.int64) if block.known is not None else block.index.astype(np.int64) for block in blocks]
    links += [] if series is None else [series.index.astype(np.int64)]
    rows, nodes, first = [], [], n
    for link in links:
        rows.append(np.arange(n))
        nodes.append(first + link)
        first += int(link.max(initial=0)) + 1
    at = (np.concatenate([*rows, np.zeros(0, dtype=np.int64)]), np.concatenate([*nodes, np.zeros(0, dtype=np.int64)]))
    _, label = connected_components(coo_array((np.ones(len(at[0])), at), shape=(first, first)), directed=False)
    return np.asarray(label[:n])


def _columns(block: RandomBlock, rows: Array) -> Array:
    """Return the columns (q, n) of one block for rows of a part: of independent effects, where the covariance among levels is known."""
    index, z = block.index[rows], block.values[rows]
    if block.known is not None:
        root = block.known.root[index, : block.known.n_fit]
        return np.asarray((root[:, :, None] * z[:, None, :]).reshape(len(rows), -1).T)
    seen, position = np.unique(index, return_inverse=True)
    result = np.zeros((len(seen), block.n_effects, len(rows)))
    result[position, :, np.arange(len(rows))] = z
    return result.reshape(-1, len(rows))


def covariance_root(covariance: Array) -> Array:
    """Return lower-triangular L (S, k, k) with L L' = covariance, also of a singular one, whose column is then zero."""
    result = np.zeros_like(covariance)
    for j in range(covariance.shape[1]):
        rest = covariance[:, j:, j] - np.einsum("sij,sj->si", result[:, j:, :j], result[:, j, :j])
        pivot = np.sqrt(np.maximum(rest[:, 0], 0.0))
        zero = rest[:, 0] <= 1e-14 * covariance[:, j, j]
        result[:, j:, j] = np.where(zero[:, None], 0.0, rest / np.where(zero, 1.0, pivot)[:, None])
    return result


def chunks(n_draws: int, numbers: int) -> Iterator[slice]:
    """Yield slices of the draws such that `numbers` for each stay within what is held at a time."""
    size = max(1, _HELD // max(numbers, 1))
    for start in range(0, n_draws, size):
        yield slice(start, min(start + size, n_draws))


# -------------------------------------------------------------------------------------------------------------------- any family


def left_out(model: Model, draws: Draws, units: Array, *, given_effects: bool = False) -> Array:
    """Return log p(y_A | all other rows, parameters) (S, U) for the rows A of every unit 0..U-1.

    `given_effects`: given the drawn random effects too, which then leave only correlated residuals to connect rows.

    Raises
    ------
    FitError
        If the random effects of the model cannot be integrated out here.
    """
    design = model.design
    blocks = () if given_effects else design.blocks
    if not given_effects:
        _refuse_further(model)
    if not blocks and design.series is None:
        result = np.zeros((draws.n_draws, int(units.max(initial=-1)) + 1))
        np.add.at(result.T, units, arrays.log_likelihood(model, draws).T)
        return result
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):  # many small products, which threads only slow
        if (model.family.name, model.link.name) == ("gaussian", "identity"):
            return _gaussian(model, draws, units, blocks)
        from bayeslmm.bayes.marginal_quadrature import left_out as by_quadrature

        return by_quadrature(model, draws, units)


def _refuse_further(model: Model) -> None:
    for name, (_, blocks) in model.design.parameters.items():
        if blocks:
            raise FitError(
                f"the random effects of '{blocks[0].group}' in the predictor of {name} cannot be integrated out; use kfold(fit), "
                "or loo(fit, kind='conditional')"
            )


# ---------------------------------------------------------------------------------------------------------------------- Gaussian


def row_sd(model: Model, draws: Draws) -> Array:
    """Return the residual standard deviation (S, n or 1) of the rows, weights heeded."""
    sigma = draws.aux["sigma"]
    sigma = sigma if sigma.ndim == 2 else sigma[:, None]
    return np.asarray(sigma / np.sqrt(model.design.weights)) if model.design.has_weights else sigma


def power_constant(model: Model, draws: Draws) -> Array | float:
    """Return what N(y; m, s)^w has over N(y; m, s / sqrt(w)) in logs, (S, n): brms's weights are powers; zero for lme4's."""
    if not model.design.has_weights or model.dialect == "lme4":
        return 0.0
    sigma, w = draws.aux["sigma"], model.design.weights
    sigma = sigma if sigma.ndim == 2 else sigma[:, None]
    return np.asarray(0.5 * (1.0 - w) * (_LOG_2PI + 2.0 * np.log(sigma)) - 0.5 * np.log(w))


def normal_log_density(error: Array, variance: Array) -> Array:
    """Return the log density of an error with mean zero."""
    return np.asarray(-0.5 * (_LOG_2PI + np.log(variance) + error**2 / variance))


def _gaussian(model: Model, draws: Draws, units: Array, blocks: tuple[RandomBlock, ...]) -> Array:
    design = model.design
    n = len(design.y)
    sd, constant = row_sd(model, draws), power_constant(model, draws)
    rho = None if design.series is None else draws.aux[residual_of(design.series).name][:, None]
    roots = tuple(covariance_root(one) for one in draws.covariance) if blocks else ()
    effects = draws.effects if not blocks else ()
    result = np.zeros((draws.n_draws, int(units.max(initial=-1)) + 1))
    parts = list(parts_of(n, blocks, design.series))
    with counted("leaving out", n * draws.n_draws) as advance:
        if blocks and len(np.unique(units)) == n and _rows_by_elimination(model, parts):
            found = _eliminated(model, draws, advance) + constant
            result[:, units] = found
            return result
        _refuse_large(parts)
        for part in parts:
            series = None if design.series is None else design.series.take(part.rows)
            local, own = np.unique(units[part.rows], return_inverse=True)
            gram = part.gram(design.weights[part.rows]) if series is None and draws.aux["sigma"].ndim == 1 else None
            for which in chunks(draws.n_draws, len(part.rows) * (len(part.Zt) + 1) + len(part.Zt) ** 2):
                some = draws.take(np.arange(which.start, which.stop))
                scale = sd[which] if sd.shape[1] == 1 else sd[which][:, part.rows]
                precision = _precision(scale, None if rho is None else rho[which], series, len(part.rows))
                error = design.y[part.rows] - _mean(model, some, part.rows, given=bool(effects))
                products = None if gram is None else gram / draws.aux["sigma"][which, None, None] ** 2
                found = _in_part(part, precision, products, tuple(L[which] for L in roots), error, own)
                if isinstance(constant, np.ndarray):
                    np.add.at(found.T, own, constant[which][:, part.rows].T)
                result[which][:, local] += found
                advance(len(part.rows) * (which.stop - which.start))
    return result


def _refuse_large(parts: list[Part]) -> None:
    effects = max(len(part.Zt) for part in parts)
    if effects > _LARGEST:
        raise FitError(
            f"{effects} random effects hang together, too many for dense matrices of them at each draw (limit: {_LARGEST}); "
            "use kfold(fit, by=...), or leave out rows, kind='marginal'"
        )


def _rows_by_elimination(model: Model, parts: list[Part]) -> bool:
    """Whether rows are left out one by one of a model whose Z'R^-1 Z is better factorised sparse, draw by draw."""
    design = model.design
    if design.series is not None or any(block.known is not None for block in design.blocks):
        return False
    return max(len(part.Zt) for part in parts) > _DENSE


def _eliminated(model: Model, draws: Draws, advance: Callable[[int], None]) -> Array:
    """Return log p(y_i | y_-i, parameters) (S, n) of every row, of one sparse factorisation a draw.

    With C = Lambda S^-1 Lambda', S = I + Lambda'Z'WZ Lambda, only z_i'Cz_i of every row and Z C Z'W (y - mu) are needed of the inverse.
    """
    from bayeslmm.linear import rows as kernels
    from bayeslmm.linear import system as linear

    design = model.design
    groups = [[at for at, block in enumerate(design.blocks) if block.group == group] for group in design.ngroups]
    factors = [
        linear.Factor(
            index=design.blocks[own[0]].index,
            n_levels=design.blocks[own[0]].n_levels,
            z=np.column_stack([design.blocks[at].values for at in own]),
        )
        for own in groups
    ]
    system, rows = linear.row_map(factors, [0] * sum(factor.k for factor in factors))
    work = linear.workspace(system)
    roots = [covariance_root(one) for one in draws.covariance]
    sd, n = row_sd(model, draws), design.n
    result, h, r = np.empty((draws.n_draws, n)), np.empty((1, 1, n)), np.empty(system.n_columns)
    for s in range(draws.n_draws):
        w = np.ascontiguousarray(np.broadcast_to(1.0 / sd[s] ** 2, (1, n)))
        lam = np.concatenate([_block_diagonal([roots[at][s] for at in own]).ravel() for own in groups])
        kernels.fill(rows, w[None], work.store, work.M.reshape(-1))
        _, L = linear.factorise(system, work, lam)
        error = design.y - design.offset - design.X @ draws.b[s]
        kernels.total(rows, w * error, r)
        b, _ = linear.solve_for(system, work, lam, L, r)
        fitted = np.zeros((1, n))
        kernels.spread(rows, b, fitted)
        linear.inverse_parts(system, work, lam, L)
        kernels.gather(rows, work.bar, work.Mbar.reshape(-1), h)
        q = w[0] - w[0] ** 2 * h[0, 0]
        result[s] = normal_log_density(w[0] * (error - fitted[0]) / q, 1.0 / q)
        advance(n)
    return result


def _block_diagonal(blocks: list[Array]) -> Array:
    from scipy.linalg import block_diag

    return blocks[0] if len(blocks) == 1 else np.asarray(block_diag(*blocks))


def _mean(model: Model, draws: Draws, rows: Array, *, given: bool) -> Array:
    """Return the mean (S, n) of some rows, at random effects of zero or those drawn."""
    design = model.design
    mu = draws.b @ design.X[rows].T + design.offset[rows]
    if given:
        for block, effects in zip(design.blocks, draws.effects, strict=True):
            mu += np.einsum("snk,nk->sn", effects[:, block.index[rows]], block.values[rows])
    return np.asarray(mu)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Precision:
    """R^-1 of a part's rows: `times` maps (S, ..., n) to R^-1 times it, `diagonal` (S, n), `logdet` (S,) log|R|, whether it is diagonal."""

    times: Times
    diagonal: Array
    logdet: Array
    uncorrelated: bool


def _precision(sd: Array, rho: Array | None, series: Series | None, n: int) -> _Precision:
    """Return the precision of residuals of standard deviation sd (S, n or 1), correlated within series by the row before."""
    scale = np.broadcast_to(sd, (len(sd), n))
    if series is None or rho is None:
        return _Precision(
            times=lambda x: x / (scale**2).reshape(len(scale), *(1,) * (x.ndim - 2), n),
            diagonal=1.0 / scale**2,
            logdet=2.0 * np.sum(np.log(scale), axis=1),
            uncorrelated=True,
        )
    structure = residual_of(series)
    later = np.flatnonzero(series.previous >= 0)
    before = series.previous[later]
    weight = np.broadcast_to(structure.prediction(rho, series, np.ones(n)), scale.shape)[:, later]
    conditional = np.broadcast_to(structure.conditional_sd(rho, series), scale.shape)

    def times(x: Array) -> Array:
        shape = (len(scale), *(1,) * (x.ndim - 2), -1)
        own, white = scale.reshape(shape), conditional.reshape(shape)
        w = structure.whiten(rho.reshape(shape), series, x / own) / white
        w[..., before] -= weight.reshape(shape) * w[..., later]
        return np.asarray(w / own)

    diagonal = 1.0 / conditional**2
    diagonal[:, before] += weight**2 / conditional[:, later] ** 2
    logdet = 2.0 * np.sum(np.log(scale) + np.log(conditional), axis=1)
    return _Precision(times=times, diagonal=diagonal / scale**2, logdet=logdet, uncorrelated=False)


def _in_part(part: Part, R: _Precision, products: Array | None, roots: tuple[Array, ...], error: Array, own: Array) -> Array:
    """Return log p(y_A | y_-A) (S, sets) of the sets of one part's rows, `own` (n,) saying which; `products`: Z'R^-1 Z where known."""
    root = part.root(roots)
    U = R.times(np.broadcast_to(part.Zt, (len(error), *part.Zt.shape))) if products is None else None
    A = U @ part.Zt.T if U is not None else products
    L = np.linalg.cholesky(np.eye(len(part.Zt)) + np.swapaxes(root, 1, 2) @ A @ root)
    T = np.linalg.solve(L, np.swapaxes(root, 1, 2))
    Y = T @ U if U is not None else R.times(part.columns_times(T))
    g = R.times(error) - np.einsum("sqn,sq->sn", Y, np.einsum("sqn,sn->sq", Y, error))
    count = int(own.max()) + 1
    if count == len(own):
        q = R.diagonal - np.sum(Y**2, axis=1)
        return np.asarray((normal_log_density(g / q, 1.0 / q))[:, np.argsort(own)])
    if count == 1:
        logdet = R.logdet + 2.0 * np.sum(np.log(np.diagonal(L, axis1=1, axis2=2)), axis=1)
        return np.asarray(-0.5 * (len(own) * _LOG_2PI + logdet + np.sum(error * g, axis=1)))[:, None]
    return np.column_stack([_of_set(R, Y, g, np.flatnonzero(own == one)) for one in range(count)])


def _of_set(R: _Precision, Y: Array, g: Array, A: Array) -> Array:
    """Return log p(y_A | y_-A) (S,) of one set of rows of a part."""
    own, error = Y[:, :, A], g[:, A]
    if R.uncorrelated and Y.shape[1] < len(A):
        variance = 1.0 / R.diagonal[:, A]
        S = np.eye(Y.shape[1]) - (own * variance[:, None, :]) @ np.swapaxes(own, 1, 2)
        L = np.linalg.cholesky(S)
        half = np.linalg.solve(L, np.einsum("sqn,sn->sq", own, variance * error)[:, :, None])[:, :, 0]
        logdet = -np.sum(np.log(variance), axis=1)
        square = np.sum(variance * error**2, axis=1) + np.sum(half**2, axis=1)
    else:
        Q = _block(R, A, Y.shape[2]) - np.swapaxes(own, 1, 2) @ own
        L = np.linalg.cholesky(Q)
        square, logdet = np.sum(np.linalg.solve(L, error[:, :, None])[:, :, 0] ** 2, axis=1), np.zeros(1)
    logdet = logdet + 2.0 * np.sum(np.log(np.diagonal(L, axis1=1, axis2=2)), axis=1)
    return np.asarray(0.5 * (logdet - square - len(A) * _LOG_2PI))


def _block(R: _Precision, A: Array, n: int) -> Array:
    """Return the rows and columns A of R^-1 (S, |A|, |A|)."""
    if R.uncorrelated:
        return np.asarray(R.diagonal[:, A, None] * np.eye(len(A)))
    units = np.zeros((len(A), n))
    units[np.arange(len(A)), A] = 1.0
    return R.times(np.broadcast_to(units, (len(R.diagonal), *units.shape)))[:, :, A]
