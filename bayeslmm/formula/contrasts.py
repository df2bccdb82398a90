"""Contrast matrices of factors with R's values and column labels: treatment, sum, helmert, poly, or the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from bayeslmm.errors import FormulaError, suggest

__all__ = ["CONTRASTS", "contrast_matrix", "contrast_spec"]

type Array = np.ndarray
type Coding = tuple[Array, tuple[str, ...]]


def _treatment(levels: Sequence[str]) -> Coding:
    return np.eye(len(levels))[:, 1:], tuple(levels[1:])


def _sas(levels: Sequence[str]) -> Coding:
    return np.eye(len(levels))[:, :-1], tuple(levels[:-1])


def _sum(levels: Sequence[str]) -> Coding:
    size = len(levels)
    return np.vstack([np.eye(size - 1), -np.ones((1, size - 1))]), _numbered(size - 1)


def _helmert(levels: Sequence[str]) -> Coding:
    size = len(levels)
    matrix = np.zeros((size, size - 1))
    for column in range(size - 1):
        matrix[: column + 1, column] = -1.0
        matrix[column + 1, column] = column + 1.0
    return matrix, _numbered(size - 1)


def _poly(levels: Sequence[str]) -> Coding:
    from bayeslmm.formula.splines import poly_basis, poly_recurrence

    size = len(levels)
    scores = np.arange(1.0, size + 1)
    names = tuple((".L", ".Q", ".C")[:3][i] if i < 3 else f"^{i + 1}" for i in range(size - 1))
    return poly_basis(scores, *poly_recurrence(scores, size - 1)), names


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(str(i + 1) for i in range(count))


CONTRASTS: dict[str, Callable[[Sequence[str]], Coding]] = {
    "treatment": _treatment,
    "sum": _sum,
    "helmert": _helmert,
    "poly": _poly,
    "SAS": _sas,
}
"""Contrast's name -> function of the levels that returns `(matrix (L, c), column labels (c,))`."""


def contrast_spec(spec: Any) -> str | dict[str, Any]:
    """Return a user's contrast as plain data.

    A name of `CONTRASTS`; or `{"matrix": rows, "names": labels}`; or `{"function": name}` for R's `C(f, contr.treatment)`,
    where R hands the function the number of levels only, so that its labels are `2`, `3` and not the levels.

    Parameters
    ----------
    spec
        `"treatment" "sum" "helmert" "poly" "SAS"`, R's `"contr.sum"` and so on, or a matrix (levels x columns): an
        array, nested lists, or a frame whose column names become the labels.

    Raises
    ------
    FormulaError
        If it is no known name and no matrix of numbers.

    Examples
    --------
    >>> contrast_spec("contr.sum")
    'sum'
    """
    if isinstance(spec, str):
        name = spec.removeprefix("contr.")
        if name not in CONTRASTS:
            raise FormulaError(f"unknown contrast '{spec}'{suggest(name, list(CONTRASTS))}")
        return name
    if isinstance(spec, dict) and spec.keys() & {"matrix", "function"}:
        return spec
    labels = tuple(str(name) for name in spec.columns) if hasattr(spec, "columns") else None
    try:
        matrix = np.asarray(spec, dtype=float)
    except (TypeError, ValueError) as error:
        raise FormulaError(f"a contrast must be a name ({', '.join(CONTRASTS)}) or a matrix of numbers") from error
    matrix = matrix[:, None] if matrix.ndim == 1 else matrix
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise FormulaError("a contrast matrix must have one row a level, one column a contrast, and finite numbers")
    return {"matrix": matrix.tolist(), "names": list(labels or _numbered(matrix.shape[1]))}


def contrast_matrix(levels: Sequence[str], spec: Any, factor: str) -> Coding:
    """Return a factor's contrast matrix (L, c) and R's column labels.

    Parameters
    ----------
    levels
        The factor's levels, in order.
    spec
        As for `contrast_spec`.
    factor
        The factor's name, for messages.

    Raises
    ------
    FormulaError
        If the contrast is unknown, or its matrix does not fit the levels.

    Examples
    --------
    >>> contrast_matrix(("a", "b", "c"), "sum", "f")[0].tolist()
    [[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]]
    """
    plain = contrast_spec(spec)
    if isinstance(plain, str):
        return CONTRASTS[plain](levels)
    if "function" in plain:
        return CONTRASTS[plain["function"]](_numbered(len(levels)))
    return _checked(np.asarray(plain["matrix"], dtype=float), tuple(plain["names"]), len(levels), factor)


def _checked(matrix: Array, names: tuple[str, ...], size: int, factor: str) -> Coding:
    if matrix.shape[0] != size:
        raise FormulaError(f"the contrast matrix of '{factor}' has {matrix.shape[0]} rows, but the factor has {size} levels")
    columns = matrix.shape[1]
    if columns > size - 1 or np.linalg.matrix_rank(np.column_stack([np.ones(size), matrix])) <= columns:
        raise FormulaError(f"the contrast matrix of '{factor}' is singular: its columns and the intercept must be linearly independent")
    return matrix, names
