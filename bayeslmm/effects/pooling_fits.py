"""Complete and no pooling: a model without its random effects, on all rows and on those of one level; which coefficients rows determine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.errors import BayesLmmError
from bayeslmm.separation import extreme_rows
from bayeslmm.separation.kernel import separate

if TYPE_CHECKING:
    from bayeslmm.model import Model

__all__ = ["Estimate", "Estimates", "by_level", "determined", "fit_alone", "independent", "rows_by_level"]

type Array = np.ndarray

_DEPENDENT = 1e-9
"""A column that lies so near the span of others, relative to its length, is one of it."""
_LOOSE = 1e-7
"""A null direction with less than this of a coefficient leaves it determined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Coefficients (K,) of some rows with standard errors, NaN where undefined; degrees of freedom; position -> why undefined."""

    coef: Array
    se: Array
    df: float
    reasons: dict[int, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimates:
    """The same of every level: `coef`, `se` (J, K), `df` (J,), `(level, term) -> reason`; `held` (K,): terms left out everywhere."""

    coef: Array
    se: Array
    df: Array
    reasons: dict[tuple[int, int], str]
    held: Array


def rows_by_level(index: Array, n_levels: int) -> list[Array]:
    """Return the positions of the rows of each level."""
    order = np.argsort(index, kind="stable")
    return np.split(order, np.cumsum(np.bincount(index, minlength=n_levels))[:-1])


def by_level(model: Model, X: Array, varying: Array, fixed: Array, index: Array, n_levels: int) -> Estimates:
    """Fit the rows of every level alone.

    Parameters
    ----------
    model
        The model; its random effects are left out.
    X
        Columns (n, K) of the terms, those of the fixed part and of the level's random effects.
    varying
        (K,): the terms that have a random effect of the grouping factor. Of the others those stay that some level's rows tell apart
        from the terms before them; the rest (the same in all rows of a level, as a person's age) are held at `fixed`.
    fixed
        (K,): the fit's fixed effects.
    index, n_levels
        Level of each row.
    """
    places = rows_by_level(index, n_levels)
    order = np.concatenate([np.flatnonzero(varying), np.flatnonzero(~varying)])
    found = [order[independent(X[rows][:, order])] for rows in places]
    kept = varying.copy()
    kept[np.unique(np.concatenate(found))] = True
    columns = order[kept[order]]
    offset = model.design.offset + X[:, ~kept] @ fixed[~kept]
    shape = (n_levels, X.shape[1])
    coef, se, df, reasons = np.full(shape, np.nan), np.full(shape, np.nan), np.full(n_levels, np.nan), {}
    fit = fit_alone(model)
    for level, rows in enumerate(places):
        one = fit(rows, X[rows][:, columns], offset[rows])
        coef[level, columns], se[level, columns], df[level] = one.coef, one.se, one.df
        reasons.update({(level, int(columns[term])): reason for term, reason in one.reasons.items()})
    return Estimates(coef=coef, se=se, df=df, reasons=reasons, held=~kept)


def fit_alone(model: Model) -> Callable[[Array, Array, Array], Estimate]:
    """Return the fit of some rows, `(rows, X, offset) -> Estimate`: least squares, or maximum likelihood by the family's machinery."""
    if model.family.name == "gaussian" and model.link.name == "identity":
        return lambda rows, X, offset: _least_squares(model, rows, X, offset)
    if model.family.increasing:
        return lambda rows, X, offset: _ordered(model, rows, X, offset)
    return lambda rows, X, offset: _maximum_likelihood(model, rows, X, offset)


def independent(X: Array) -> Array:
    """Return the positions of the columns that are not in the span of the columns before them.

    Examples
    --------
    >>> import numpy as np
    >>> independent(np.array([[1.0, 30.0, 0.0], [1.0, 30.0, 1.0]])).tolist()
    [0, 2]
    """
    basis: list[Array] = []
    kept = []
    for position, column in enumerate(X.T):
        length = np.linalg.norm(column)
        rest = column
        for _ in range(2):
            for vector in basis:
                rest = rest - (vector @ rest) * vector
        left = np.linalg.norm(rest)
        if left > _DEPENDENT * length and len(basis) < len(X):
            basis.append(rest / left)
            kept.append(position)
    return np.array(kept, dtype=int)


def determined(X: Array) -> Array:
    """Return which coefficients (K,) the rows of X determine, whatever the others are.

    Examples
    --------
    >>> import numpy as np
    >>> determined(np.array([[1.0, 0.0]])).tolist(), determined(np.array([[1.0, 5.0]])).tolist()
    ([True, False], [False, False])
    """
    lengths = np.linalg.norm(X, axis=0)
    triangle = np.linalg.qr(X / np.where(lengths > 0.0, lengths, 1.0), mode="r")
    _, size, rows = np.linalg.svd(triangle)
    rank = int(np.count_nonzero(size > _DEPENDENT * size.max(initial=0.0)))
    return np.asarray(np.linalg.norm(rows[rank:], axis=0) < _LOOSE)


def _estimate(X: Array, coef: Array, se: Array, df: float, infinite: dict[int, str] | None = None) -> Estimate:
    """Return coefficients with what the rows do not determine, and what is infinite, as NaN."""
    sure = determined(X)
    word = f"its {len(X)} rows do" if len(X) != 1 else "its one row does"
    reasons = {int(term): f"{word} not determine it" for term in np.flatnonzero(~sure)} | (infinite or {})
    shown = sure.copy()
    shown[list(reasons)] = False
    return Estimate(coef=np.where(shown, coef, np.nan), se=np.where(shown, se, np.nan), df=df, reasons=reasons)


def _least_squares(model: Model, rows: Array, X: Array, offset: Array) -> Estimate:
    design = model.design
    root = np.sqrt(design.weights[rows])
    lengths = np.linalg.norm(X, axis=0)
    lengths[lengths == 0.0] = 1.0
    y = (design.y[rows] - offset) * root
    A = X / lengths * root[:, None]
    inverse = np.linalg.pinv(A, rcond=_DEPENDENT)
    coef = inverse @ y
    rank = len(independent(A))
    df = np.inf if design.known_errors else float(len(rows) - rank)
    scale = 1.0 if design.known_errors else float(np.sqrt(np.sum((y - A @ coef) ** 2) / df)) if df > 0 else np.nan
    return _estimate(X, coef / lengths, scale * np.linalg.norm(inverse, axis=1) / lengths, df)


def _maximum_likelihood(model: Model, rows: Array, X: Array, offset: Array) -> Estimate:
    """Fit some rows of a generalised model; a further parameter is of these rows too."""
    from bayeslmm.classical.glmm import fit_generalised

    K = X.shape[1]
    coef, se = np.full(K, np.nan), np.full(K, np.nan)
    basis = independent(X)
    small = _on_rows(model, rows, X[:, basis], [f"x{i}" for i in basis], offset)
    split = separate(X[:, basis], *extreme_rows(small))
    if split is not None and split.infinite.all():
        return _estimate(X, coef, se, np.inf, _infinite(basis, split.up, split.down))
    try:
        found = fit_generalised(small)
    except BayesLmmError as refusal:
        return _estimate(X, coef, se, np.inf, dict.fromkeys(range(K), f"no fit to its {len(rows)} rows: {refusal}"))
    coef[basis], se[basis] = found.beta, found.standard_errors
    infinite = {} if split is None else _infinite(basis, split.up, split.down)
    missing = {int(term): "its estimate does not settle" for term in basis if not np.isfinite(coef[term])}
    return _estimate(X, coef, se, np.inf, missing | infinite)


def _infinite(basis: Array, up: Array, down: Array) -> dict[int, str]:
    """Return position -> why there is no finite estimate, of the columns that separate outcomes."""
    words = {(True, False): "+inf", (False, True): "-inf", (True, True): "the difference of two infinite ones"}
    pairs = zip(basis.tolist(), zip(up.tolist(), down.tolist(), strict=True), strict=True)
    return {term: f"separated: its estimate is {words[pair]}" for term, pair in pairs if pair in words}


def _ordered(model: Model, rows: Array, X: Array, offset: Array) -> Estimate:
    """Ordered levels: a group's own thresholds and its own intercept are one, so that only all rows together are fitted."""
    if len(rows) == model.design.n:
        return _maximum_likelihood(model, rows, X, offset)
    nothing = np.full(X.shape[1], np.nan)
    reason = "the thresholds of an ordered response are not fitted group by group"
    return Estimate(coef=nothing, se=nothing, df=np.inf, reasons=dict.fromkeys(range(X.shape[1]), reason))


def _on_rows(model: Model, rows: Array, X: Array, names: Sequence[str], offset: Array) -> Model:
    """Return the model without random effects on some rows, with other columns."""
    design = model.design
    mask = np.zeros(len(design.kept), dtype=bool)
    mask[np.flatnonzero(design.kept)[rows]] = True
    small = replace(
        design,
        y=design.y[rows],
        trials=None if design.trials is None else design.trials[rows],
        fixed=replace(design.fixed, X=X, names=tuple(names), assign=(0,) * len(names)),
        blocks=(),
        weights=design.weights[rows],
        offset=offset,
        has_offset=True,
        index=design.index[rows],
        kept=mask,
        parameters={name: (replace(fixed, X=fixed.X[rows]), ()) for name, (fixed, _) in design.parameters.items()},
        series=None,
    )
    return replace(model, design=small)
