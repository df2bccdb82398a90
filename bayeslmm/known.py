"""Known covariance matrices among the levels of a factor (pedigrees, phylogenies, space): read, checked, and their roots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import lapack, solve_triangular

from bayeslmm.data import to_pandas
from bayeslmm.errors import DataError, FitError, suggest
from bayeslmm.formula.values import frozen, number_label

__all__ = ["Known", "Relationship", "known_among", "relationships"]

type Array = np.ndarray

_ASYMMETRY = 1e-8
"""Entries (i, j) and (j, i) may differ by this share of the largest entry."""
_DETERMINED = 1e-10
"""A level of which less than this share of its variance is left beside earlier levels says the same as they do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relationship:
    """A covariance matrix of `data2`: its `name`, the `labels` (m,) of its rows, and the `matrix` (m, m), symmetric and finite."""

    name: str
    labels: tuple[str, ...]
    matrix: Array

    def among(self, levels: Sequence[str]) -> Array:
        """Return the matrix of the given levels, which it must have."""
        place = {label: row for row, label in enumerate(self.labels)}
        rows = [place[level] for level in levels]
        return self.matrix[np.ix_(rows, rows)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The covariance K = `root` `root`' among the `levels` (J,) of a random term: b = (root (x) I) w, with independent w by level.

    `root` (J, J) is lower-triangular on the first `n_fit` levels, those of the fit; further ones are levels of new rows that the
    matrix relates to these. Levels of the matrix that the data do not have are left out, which is to integrate them out.
    """

    relationship: Relationship
    levels: tuple[str, ...]
    root: Array
    n_fit: int

    @property
    def variance(self) -> Array:
        """Diagonal of K, by level (J,)."""
        return np.asarray(np.sum(self.root**2, axis=1))

    @property
    def relates(self) -> bool:
        """Whether levels differ in variance or covary, so that their effects can be told from a residual of each."""
        variance = self.variance
        return bool(np.any(np.tril(self.root, -1)) or np.any(variance != variance[0]))

    @property
    def mean_variance(self) -> float:
        """Mean of K's diagonal over the levels of the fit: that of a level drawn from among them."""
        return float(np.mean(self.variance[: self.n_fit]))

    @property
    def remainder(self) -> Array:
        """The variance (J,) of each level that those of the fit leave open: zero for these."""
        return np.asarray(np.sum(self.root[:, self.n_fit :] ** 2, axis=1))

    def related(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return those of the labels that the matrix has a row for."""
        known = set(self.relationship.labels)
        return tuple(label for label in labels if label in known)

    def take(self, positions: Array) -> Known:
        """Return the covariance among some of the levels (positions, each once)."""
        return known_among(self.relationship, [self.levels[position] for position in positions.tolist()])

    def extended(self, levels: Sequence[str]) -> Known:
        """Return the covariance among its levels and those that come after them in `levels`, for which the matrix has a row."""
        more = levels[len(self.levels) :]
        if not more:
            return self
        K, J = self.relationship.among(levels), len(self.levels)
        across = solve_triangular(self.root, K[:J, J:], lower=True).T
        values, vectors = np.linalg.eigh(K[J:, J:] - across @ across.T)
        rest = vectors * np.sqrt(np.clip(values, 0.0, None))
        root = np.block([[self.root, np.zeros((J, len(more)))], [across, rest]])
        return Known(relationship=self.relationship, levels=tuple(levels), root=frozen(root), n_fit=self.n_fit)

    def correlated(self, independent: Array) -> Array:
        """Return effects (..., J, k) with covariance K among levels, of independent ones of the same shape."""
        return np.asarray(np.einsum("jl,...lk->...jk", self.root, independent, optimize=True))

    def predicted(self, effects: Array) -> Array:
        """Return the effects (..., J, k) of all levels, given those of the fit (..., n_fit, k): their conditional means."""
        own = self.root[: self.n_fit, : self.n_fit]
        weights = solve_triangular(own, self.root[self.n_fit :, : self.n_fit].T, lower=True, trans="T").T
        more = np.einsum("jl,...lk->...jk", weights, effects, optimize=True)
        return np.concatenate([effects, more], axis=-2)


def relationships(data2: Mapping[str, Any] | None, named: Sequence[str]) -> dict[str, Relationship]:
    """Return the matrices that a formula names, read and checked.

    Parameters
    ----------
    data2
        Name -> matrix: a square pandas frame whose index and columns name the levels, or another frame (polars) whose columns do,
        rows in the same order.
    named
        The names in the formula's `gr(g, cov = name)`.

    Raises
    ------
    FitError
        If `data2` is no dict, lacks a name, or holds one that the formula does not use.
    DataError
        If a matrix has no names, or is not square, finite and symmetric.

    Examples
    --------
    >>> import pandas as pd
    >>> A = pd.DataFrame([[1.0, 0.5], [0.5, 1.0]], index=["a", "b"], columns=["a", "b"])
    >>> relationships({"A": A}, ["A"])["A"].labels
    ('a', 'b')
    """
    given = {} if data2 is None else data2
    if not isinstance(given, Mapping):
        raise FitError(f"data2 is a dict of name -> matrix, as {{'A': A}} for gr(g, cov = A), not {type(given).__name__}")
    for name in named:
        if name not in given:
            what = suggest(name, [str(other) for other in given])
            raise FitError(f"the formula has cov = {name}, which data2 does not hold{what or f': pass data2={{{name!r}: matrix}}'}")
    for name in given:
        if name not in named:
            wanted = suggest(str(name), list(named)) if named else "; write it into a term, as (1 | gr(g, cov = K))"
            raise FitError(f"data2 holds '{name}', which no term of the formula names{wanted}")
    return {name: _read(name, given[name]) for name in dict.fromkeys(named)}


def _read(name: str, value: Any) -> Relationship:
    if isinstance(value, Relationship):
        return value
    labels, matrix = _named_matrix(name, value)
    twice = [label for label in dict.fromkeys(labels) if labels.count(label) > 1] if len(set(labels)) < len(labels) else []
    if twice:
        raise DataError(f"matrix '{name}' has the level '{twice[0]}' more than once; keep one row and column for each")
    if not np.all(np.isfinite(matrix)):
        bad = labels[int(np.argwhere(~np.isfinite(matrix))[0, 0])]
        raise DataError(f"matrix '{name}' has missing or infinite entries, the first in the row of '{bad}'; a covariance has none")
    apart = np.abs(matrix - matrix.T)
    if apart.max(initial=0.0) > _ASYMMETRY * np.abs(matrix).max(initial=0.0):
        i, j = np.unravel_index(np.argmax(apart), apart.shape)
        values = f"{matrix[i, j]:g} and {matrix[j, i]:g}"
        raise DataError(f"matrix '{name}' is not symmetric: its entries of '{labels[i]}' and '{labels[j]}' are {values}; use (A + A.T) / 2")
    return Relationship(name=name, labels=tuple(labels), matrix=frozen(0.5 * (matrix + matrix.T)))


def _named_matrix(name: str, value: Any) -> tuple[list[str], Array]:
    """Return labels and entries, rows in the order of the columns."""
    import pandas as pd

    if not hasattr(value, "columns"):
        kind = "a sparse matrix" if hasattr(value, "toarray") else f"of type {type(value).__name__}"
        dense = "A.toarray()" if hasattr(value, "toarray") else "A"
        raise DataError(
            f"matrix '{name}' is {kind}, which does not name its levels; pass pandas.DataFrame({dense}, index=names, columns=names)"
        )
    frame = value if isinstance(value, pd.DataFrame) else to_pandas(value)
    if frame.shape[0] != frame.shape[1]:
        raise DataError(f"matrix '{name}' has {frame.shape[0]} rows and {frame.shape[1]} columns; a covariance is square")
    if isinstance(frame.columns, pd.RangeIndex):
        raise DataError(f"matrix '{name}' is a frame without names; make it by pandas.DataFrame(A, index=names, columns=names)")
    labels, rows = _labels(frame.columns), _labels(frame.index)
    if rows != labels and not isinstance(frame.index, pd.RangeIndex):
        if sorted(rows) != sorted(labels):
            odd = next(iter(sorted(set(rows) ^ set(labels))), rows[0])
            raise DataError(f"matrix '{name}' has other names on its rows than on its columns ('{odd}'); index and columns name the levels")
        place = {label: row for row, label in enumerate(rows)}
        frame = frame.iloc[[place[label] for label in labels]]
    try:
        matrix = frame.to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"matrix '{name}' holds other things than numbers: {error}") from error
    return labels, matrix


def _labels(index: Any) -> list[str]:
    return [
        number_label(label) if isinstance(label, int | float) and not isinstance(label, bool) else str(label) for label in index.tolist()
    ]


def known_among(relationship: Relationship, levels: Sequence[str], column: str | None = None) -> Known:
    """Return a known covariance among levels, with its root.

    Parameters
    ----------
    relationship
        A matrix of `data2`.
    levels
        The levels that the data have; those of the matrix beyond these are left out.
    column
        The grouping factor, for messages.

    Raises
    ------
    DataError
        If the matrix lacks a level, or is not positive definite among them.

    Examples
    --------
    >>> import pandas as pd
    >>> A = pd.DataFrame([[1.0, 0.5], [0.5, 1.0]], index=["a", "b"], columns=["a", "b"])
    >>> known_among(relationships({"A": A}, ["A"])["A"], ["b", "a"]).root.round(4).tolist()
    [[1.0, 0.0], [0.5, 0.866]]
    """
    name, own = relationship.name, set(relationship.labels)
    absent = [level for level in levels if level not in own]
    if absent:
        shown = ", ".join(f"'{level}'" for level in absent[:5]) + (", ..." if len(absent) > 5 else "")
        raise DataError(
            f"matrix '{name}' has no row for {len(absent)} of {len(levels)} levels of '{column}' ({shown}); add them, or drop their data",
            column=column,
        )
    K = relationship.among(levels)
    root, info = lapack.dpotrf(K, lower=1, clean=1)
    pivots = np.square(np.diagonal(root)) / np.where(np.diagonal(K) > 0.0, np.diagonal(K), np.inf)
    at = int(info) - 1 if info > 0 else int(np.argmin(pivots))
    if info > 0 or pivots[at] < _DETERMINED:
        smallest = float(np.linalg.eigvalsh(K)[0])
        raise DataError(
            f"matrix '{name}' is not positive definite among the levels in the data (smallest eigenvalue {smallest:.3g}): level "
            f"'{levels[at]}' is determined by others, as a twin or duplicate is; merge or drop it, or add a little to the diagonal, "
            f"{name} + 1e-6 * I",
            column=column,
        )
    return Known(relationship=relationship, levels=tuple(levels), root=frozen(np.ascontiguousarray(root)), n_fit=len(levels))
