"""Terms and evaluated variables -> a model matrix with R's factor coding, column names and rule for its rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from bayeslmm.errors import DataError
from bayeslmm.formula.contrasts import contrast_matrix
from bayeslmm.formula.deparse import deparse
from bayeslmm.formula.nodes import Term
from bayeslmm.formula.values import Factor, Numbers
from bayeslmm.linear.triangle import triangle_of

__all__ = ["MAX_CELLS", "FactorCoding", "Matrix", "build_matrix", "full_rank_columns"]

type Array = np.ndarray

MAX_CELLS = 100_000_000
"""A dense matrix of more cells (800 MB) is refused before it is made."""
_RANK_TOLERANCE = 1e-7


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorCoding:
    """How a factor enters a model matrix: its levels (those with rows in the fit) and its contrast, as plain data."""

    levels: tuple[str, ...]
    contrast: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """A model matrix `X` (n, p), its column names, and `assign` (p,): the number of each column's term (0: intercept)."""

    X: Array
    names: tuple[str, ...]
    assign: tuple[int, ...]


def build_matrix(
    terms: Sequence[Term],
    intercept: bool,
    values: Mapping[str, Numbers | Factor],
    codings: Mapping[str, FactorCoding],
    n: int,
) -> Matrix:
    """Return the model matrix of terms, as R's `model.matrix` makes it.

    Parameters
    ----------
    terms
        In R's order.
    intercept
        Whether a column of ones comes first.
    values
        Variable's label -> its values; a factor's codes point into the levels of its coding.
    codings
        Variable's label -> coding, for those that are factors.
    n
        Number of rows.

    Raises
    ------
    DataError
        If the matrix would have more than `MAX_CELLS` cells.
    """
    labels = [tuple(deparse(variable) for variable in term.variables) for term in terms]
    contrasted = _contrasted(labels, intercept, codings)
    blocks: list[list[_Columns]] = [
        [_columns(label, values[label], codings.get(label), label in used) for label in term]
        for term, used in zip(labels, contrasted, strict=True)
    ]
    widths = [prod(len(columns.names) for columns in block) for block in blocks]
    p = int(intercept) + sum(widths)
    if n * p > MAX_CELLS:
        raise DataError(
            f"the model matrix would have {n} x {p} cells, more than {MAX_CELLS:.0e}; a factor with very many levels belongs behind a bar"
        )
    X = np.empty((n, p))
    names: list[str] = []
    if intercept:
        X[:, 0] = 1.0
        names.append("(Intercept)")
    for block in blocks:
        made, new = _product(block)
        X[:, len(names) : len(names) + len(new)] = made
        names += new
    assign = [0] * int(intercept) + [position for position, width in enumerate(widths, start=1) for _ in range(width)]
    return Matrix(X=X, names=tuple(names), assign=tuple(assign))


def _contrasted(labels: Sequence[tuple[str, ...]], intercept: bool, codings: Mapping[str, FactorCoding]) -> list[set[str]]:
    """Return, for each term, the factors that are coded by contrasts rather than by a column for every level.

    R's rule (`TermCode`): contrasts where the term without the factor is empty or contained in an earlier term. Without an
    intercept, the first factor of the first term that has one gets all its levels.
    """
    found: list[set[str]] = []
    earlier: list[set[str]] = []
    for term in labels:
        whole = set(term)
        found.append({label for label in term if label in codings and _has_margin(whole - {label}, earlier)})
        earlier.append(whole)
    if not intercept:
        for term, used in zip(labels, found, strict=True):
            first = next((label for label in term if label in codings), None)
            if first is not None:
                used.discard(first)
                break
    return found


def _has_margin(rest: set[str], earlier: Sequence[set[str]]) -> bool:
    return not rest or any(rest <= term for term in earlier)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of one variable, made when they are needed: `table[codes]` for a factor."""

    names: tuple[str, ...]
    values: Array
    table: Array | None = None

    def make(self) -> Array:
        if self.table is None:
            return self.values if self.values.ndim == 2 else self.values[:, None]
        made = self.table[self.values]
        if self.values.size and self.values.min() < 0:
            made[self.values < 0] = np.nan
        return np.asarray(made)


def _columns(label: str, value: Numbers | Factor, coding: FactorCoding | None, contrast: bool) -> _Columns:
    if isinstance(value, Numbers):
        single = value.values.ndim == 1 or value.values.shape[1] == 1
        return _Columns((label,) if single else tuple(label + suffix for suffix in value.suffixes), value.values)
    if coding is None:
        raise DataError(f"'{label}' is categorical here but was numeric in the fitted data")
    if not contrast:
        return _Columns(tuple(label + level for level in coding.levels), value.codes, np.eye(len(coding.levels)))
    table, suffixes = contrast_matrix(coding.levels, coding.contrast, label)
    return _Columns(tuple(label + suffix for suffix in suffixes), value.codes, table)


def _product(block: Sequence[_Columns]) -> tuple[Array, list[str]]:
    """Return all products of the variables' columns, the first variable's varying fastest."""
    values, names = block[0].make(), list(block[0].names)
    for columns in block[1:]:
        other = columns.make()
        values = (other[:, :, None] * values[:, None, :]).reshape(len(values), len(names) * len(columns.names))
        names = [f"{name}:{new}" for new in columns.names for name in names]
    return values, names


def full_rank_columns(X: Array, tolerance: float = _RANK_TOLERANCE) -> Array:
    """Return the positions of the columns that R keeps: those no linear combination of earlier kept ones.

    As LINPACK's `dqrdc2` with limited pivoting: in order, a column stays if what the earlier ones leave of it has a norm of
    at least `tolerance` times its own; a column that fails goes to the end. One LAPACK factorisation settles a matrix of
    full rank; only a deficient one is walked column by column, on its triangular factor.
    """
    n, p = X.shape
    if p == 0 or n == 0:
        return np.arange(p)
    X, norms = _scaled(X)
    R = triangle_of(X) if n >= p else X
    if n >= p and bool((np.abs(np.diagonal(R)) >= tolerance * norms).all()):
        return np.arange(p)
    return _walk(np.array(R), norms, tolerance, min(n, p))


def _scaled(X: Array) -> tuple[Array, Array]:
    """Return X and its columns' norms (1 for a zero column), columns scaled first where squares would over- or underflow."""
    with np.errstate(over="ignore", under="ignore"):
        norms = np.linalg.norm(X, axis=0)
    if not ((norms > 1e-140) & (norms < 1e140)).all():
        largest = np.abs(X).max(axis=0)
        X = X / np.where(largest == 0, 1.0, largest)
        norms = np.linalg.norm(X, axis=0)
    return X, np.where(norms == 0, 1.0, norms)


def _walk(R: Array, norms: Array, tolerance: float, limit: int) -> Array:
    """Householder's triangularisation in order, passing over columns that the kept ones explain."""
    kept: list[int] = []
    for j in range(R.shape[1]):
        step = len(kept)
        if step == limit:
            break
        rest = R[step:, j]
        length = float(np.linalg.norm(rest))
        if length < tolerance * norms[j] or length == 0.0:
            continue
        kept.append(j)
        v = rest.copy()
        v[0] += length if v[0] >= 0 else -length
        R[step:, j:] -= np.outer(v, (2.0 / (v @ v)) * (v @ R[step:, j:]))
    return np.asarray(kept, dtype=np.intp)
