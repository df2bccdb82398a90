"""Contrasts that test whole terms: type I, II and III hypotheses as SAS and lmerTest define them, whatever the coding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from scipy.linalg import solve_triangular

from bayeslmm.design import variables
from bayeslmm.errors import FitError
from bayeslmm.formula.deparse import deparse
from bayeslmm.formula.functions import FUNCTIONS
from bayeslmm.formula.nodes import Call
from bayeslmm.formula.values import Numbers
from bayeslmm.model_matrix import FactorCoding, Matrix, build_matrix, full_rank_columns

if TYPE_CHECKING:
    from bayeslmm.formula.nodes import Node, Term
    from bayeslmm.formula.values import Factor
    from bayeslmm.model import Model

__all__ = ["TYPES", "term_contrasts"]

type Array = np.ndarray

_ZERO = 1e-8


def term_contrasts(model: Model, kind: int | str) -> dict[str, Array]:
    """Return, for each term of the fixed part, the contrasts (q, p) that are zero where the term has no effect.

    Parameters
    ----------
    model
        A model.
    kind
        1 (each term after the earlier ones), 2 (after all that do not contain it) or 3 (after all others, averaged over the levels
        of the factors in them with equal weights); or `"I"`, `"II"`, `"III"`. A term without columns of its own has no row.

    Raises
    ------
    FitError
        For another type.

    Source: SAS/STAT user's guide, "The four types of estimable functions".

    Examples
    --------
    >>> import bayeslmm as bl
    >>> model = bl.model("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> term_contrasts(model, 3)["Days"].tolist()
    [[0.0, 1.0]]
    """
    if str(kind) not in TYPES:
        raise FitError(f"unknown type of test {kind!r}; known: 1, 2, 3")
    fixed = model.design.fixed
    if len(fixed.names) <= 1 or len(fixed.terms) <= 1:
        return _sequential(model)
    return TYPES[str(kind)](model)


def _rows_of(fixed_assign: tuple[int, ...], term: int) -> Array:
    return np.flatnonzero(np.array(fixed_assign) == term)


def _triangular(X: Array) -> Array:
    """Return R of X = QR with a unit diagonal: row i is what column i says beyond the earlier ones."""
    R: Array = np.linalg.qr(X, mode="r")
    return R / np.diagonal(R)[:, None]


def _sequential(model: Model) -> dict[str, Array]:
    fixed = model.design.fixed
    R = _triangular(fixed.X)
    return {label: R[_rows_of(fixed.assign, number)] for number, label in enumerate(fixed.terms, start=1)}


def _hierarchical(model: Model) -> dict[str, Array]:
    fixed, coded = model.design.fixed, _coded(model)
    found = {}
    for number, label in enumerate(fixed.terms, start=1):
        own = _rows_of(fixed.assign, number)
        if not coded.containing(number):
            found[label] = np.eye(len(fixed.names))[own]
            continue
        containing = [column for other in coded.containing(number) for column in _rows_of(fixed.assign, other)]
        first = [column for column in range(len(fixed.names)) if column not in {*own, *containing}]
        order = np.array([*first, *own, *containing], dtype=int)
        L = np.zeros((len(own), len(order)))
        L[:, order] = _triangular(fixed.X[:, order])[len(first) : len(first) + len(own)]
        found[label] = L
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coded:
    """The fixed terms with their variables: plain numbers over their largest value, factors with treatment contrasts.

    `matrices`: the labels of variables that are matrices in R.
    """

    terms: tuple[Term, ...]
    intercept: bool
    matrices: frozenset[str]
    values: Mapping[str, Numbers | Factor]
    codings: Mapping[str, FactorCoding]
    n: int

    def matrix(self, terms: tuple[Term, ...], intercept: bool) -> Matrix:
        return build_matrix(terms, intercept, self.values, self.codings, self.n)

    def containing(self, number: int) -> list[int]:
        """Return the terms that contain one: all its variables and more, but no more numeric ones.

        What has the columns of a matrix in R (`poly`, `ns`, `scale`) is none of the numeric ones, as in lmerTest.
        """
        own = self._variables(number)
        others = {other: self._variables(other) for other in range(1, len(self.terms) + 1)}
        return [other for other, theirs in others.items() if own < theirs and self._numeric(own) == self._numeric(theirs)]

    def _variables(self, number: int) -> set[str]:
        return {deparse(variable) for variable in self.terms[number - 1].variables}

    def _numeric(self, labels: set[str]) -> set[str]:
        return {label for label in labels if isinstance(self.values[label], Numbers) and label not in self.matrices}


def _coded(model: Model) -> _Coded:
    design = model.design
    values = {label: _unit(value) for label, value in variables(design.encoder, model.frame.loc[design.kept]).items()}
    codings = {label: replace(coding, contrast="treatment") for label, coding in design.encoder.factors.items() if label in values}
    mean = model.formula.mean
    matrices = frozenset(deparse(variable) for term in mean.terms for variable in term.variables if _is_matrix(variable))
    return _Coded(terms=mean.terms, intercept=mean.intercept, matrices=matrices, values=values, codings=codings, n=design.n)


def _is_matrix(variable: Node) -> bool:
    function = FUNCTIONS.get(variable.function) if isinstance(variable, Call) else None
    return function is not None and (function.kind == "matrix" or function.one_column)


def _unit(value: Numbers | Factor) -> Numbers | Factor:
    """Scale plain numbers; columns of a matrix keep their sizes, on which the degrees of freedom of their joint test depend."""
    if not isinstance(value, Numbers) or value.values.ndim > 1:
        return value
    largest = np.max(np.abs(value.values))
    return replace(value, values=value.values / (largest or 1.0))


def _marginal(model: Model) -> dict[str, Array]:
    """Type III: rows of the estimable functions of the overparametrised matrix, each term made orthogonal to those that contain it."""
    coded, fixed = _coded(model), model.design.fixed
    treatment = coded.matrix(coded.terms, coded.intercept)
    kept = full_rank_columns(treatment.X)
    names = [treatment.names[column] for column in kept]
    columns = {number: np.flatnonzero(np.array(treatment.assign)[kept] == number) for number in range(1, len(coded.terms) + 1)}
    Q, R = np.linalg.qr(treatment.X[:, kept])
    indicators = [coded.matrix((term,), False) for term in coded.terms]
    ones = [coded.matrix((), True)] if coded.intercept else []
    L = _solved(Q, R, np.column_stack([part.X for part in [*ones, *indicators]])).T
    rows = [name for part in [*ones, *indicators] for name in part.names]
    for number in sorted(columns, key=lambda term: -len(coded.terms[term - 1].variables)):
        above = [column for other in coded.containing(number) for column in columns[other]]
        if above and len(columns[number]):
            own = L[:, columns[number]]
            L[:, columns[number]] = _zapped(own - L[:, above] @ np.linalg.lstsq(L[:, above], own)[0])
    L = L[[rows.index(name) for name in names]]
    back = _solved(Q, R, fixed.X)
    found = {}
    for number, label in enumerate(fixed.terms, start=1):
        contrasts = L[:, columns[number]].T
        found[label] = contrasts[np.sum(np.abs(contrasts), axis=1) > _ZERO] @ back
    return found


def _solved(Q: Array, R: Array, columns: Array) -> Array:
    """Return the coefficients of columns in the basis QR, what is zero but for rounding made so."""
    return _zapped(solve_triangular(R, Q.T @ columns))


def _zapped(values: Array) -> Array:
    """Return values with those zero that are so but for rounding, column by column."""
    largest = np.max(np.abs(values), axis=0, initial=0.0)
    return np.where(np.abs(values) < 1e-10 * largest, 0.0, values)


TYPES: Mapping[str, Callable[[Model], dict[str, Array]]] = MappingProxyType(
    {"1": _sequential, "2": _hierarchical, "3": _marginal, "I": _sequential, "II": _hierarchical, "III": _marginal}
)
"""Type of hypothesis -> contrasts of a model, by term."""
