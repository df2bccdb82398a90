"""Sets of contrasts between means, by name or as the user's own coefficients, with the labels that R's emmeans gives them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bayeslmm.errors import DataError, FitError, suggest

__all__ = ["CONTRASTS", "ContrastSet", "contrast_set"]

type Array = np.ndarray

_OPERATORS = re.compile(r"[-+/*]")
_POLYNOMIALS = ("linear", "quadratic", "cubic", "quartic")
_HIGHEST = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastSet:
    """Contrasts of k means: `weights` (q, k), the `names` (q,), the usual adjustment, and whether they are all pairs of the means.

    `ratios`: the names where the differences are of logarithms.
    """

    weights: Array
    names: tuple[str, ...]
    ratios: tuple[str, ...]
    adjust: str
    pairs: bool = False


def contrast_set(method: str | Mapping[str, Any] | Any, labels: Sequence[str]) -> ContrastSet:
    """Return contrasts between means that bear the labels.

    Parameters
    ----------
    method
        A name of `CONTRASTS`; a dict of name -> coefficients (k,); or a matrix (q, k), one row a contrast.
    labels
        The means' labels (k,).

    Raises
    ------
    FitError
        For an unknown name.
    DataError
        If coefficients do not fit the number of means.

    Source: Searle, Speed & Milliken (1980), Am. Stat. 34; Lenth's emmeans for names and the scale of polynomials.

    Examples
    --------
    >>> contrast_set("pairwise", ["A", "B", "C"]).names
    ('A - B', 'A - C', 'B - C')
    """
    if isinstance(method, str):
        if method not in CONTRASTS:
            raise FitError(f"unknown contrast '{method}'{suggest(method, list(CONTRASTS))}")
        if len(labels) < 2:
            raise DataError(f"there is one mean only, so that contrast '{method}' has nothing to compare; name factors, or see at=")
        return CONTRASTS[method](_bracketed(labels))
    named = method if isinstance(method, Mapping) else {f"c{i + 1}": row for i, row in enumerate(np.atleast_2d(np.asarray(method)))}
    if not named:
        raise DataError("contrast is an empty dict; give name -> coefficients")
    rows = [_coefficients(str(name), row, labels) for name, row in named.items()]
    names = tuple(str(name) for name in named)
    return ContrastSet(weights=np.array(rows), names=names, ratios=names, adjust="none")


def _coefficients(name: str, row: Any, labels: Sequence[str]) -> Array:
    try:
        values = np.asarray(row, dtype=float)
    except (TypeError, ValueError) as error:
        raise DataError(f"contrast '{name}' must be numbers, one for each of {', '.join(labels)}") from error
    if values.shape != (len(labels),) or not np.isfinite(values).all():
        shape = values.shape[0] if values.ndim == 1 else values.shape
        raise DataError(f"contrast '{name}' needs {len(labels)} finite coefficients ({', '.join(labels)}), not {shape}")
    return values


def _bracketed(labels: Sequence[str]) -> list[str]:
    """Return the labels, those with an operator's sign in brackets."""
    return [f"({label})" if _OPERATORS.search(label) else label for label in labels]


def _differences(labels: Sequence[str], pairs: Sequence[tuple[int, int]], adjust: str, *, all_pairs: bool = False) -> ContrastSet:
    unit = np.eye(len(labels))
    return ContrastSet(
        weights=np.array([unit[i] - unit[j] for i, j in pairs]).reshape(len(pairs), len(labels)),
        names=tuple(f"{labels[i]} - {labels[j]}" for i, j in pairs),
        ratios=tuple(f"{labels[i]} / {labels[j]}" for i, j in pairs),
        adjust=adjust,
        pairs=all_pairs,
    )


def _pairwise(labels: Sequence[str]) -> ContrastSet:
    k = len(labels)
    return _differences(labels, [(i, j) for i in range(k) for j in range(i + 1, k)], "tukey", all_pairs=True)


def _revpairwise(labels: Sequence[str]) -> ContrastSet:
    return _differences(labels, [(i, j) for i in range(1, len(labels)) for j in range(i)], "tukey", all_pairs=True)


def _first_is_control(labels: Sequence[str]) -> ContrastSet:
    return _differences(labels, [(i, 0) for i in range(1, len(labels))], "dunnettx")


def _last_is_control(labels: Sequence[str]) -> ContrastSet:
    last = len(labels) - 1
    return _differences(labels, [(i, last) for i in range(last)], "dunnettx")


def _consecutive(labels: Sequence[str]) -> ContrastSet:
    return _differences(labels, [(i, i - 1) for i in range(1, len(labels))], "mvt")


def _effects(labels: Sequence[str]) -> ContrastSet:
    k = len(labels)
    names = tuple(f"{label} effect" for label in labels)
    return ContrastSet(weights=np.eye(k) - 1.0 / k, names=names, ratios=names, adjust="fdr")


def _polynomial(labels: Sequence[str]) -> ContrastSet:
    """Orthogonal polynomials of equally spaced levels, in the whole numbers of the old tables."""
    from bayeslmm.formula.splines import poly_basis, poly_recurrence

    k = len(labels)
    degree = min(_HIGHEST, k - 1)
    scores = np.arange(1.0, k + 1)
    basis = poly_basis(scores, *poly_recurrence(scores, degree)) if degree else np.zeros((k, 0))
    names = (*_POLYNOMIALS, *(f"degree {i}" for i in range(len(_POLYNOMIALS) + 1, _HIGHEST + 1)))[:degree]
    weights = np.array([_whole(column) for column in basis.T]).reshape(degree, k)
    return ContrastSet(weights=weights, names=names, ratios=names, adjust="none")


def _whole(column: Array) -> Array:
    """Return a multiple of the column that is whole numbers, but for rounding."""
    scaled = column / np.min(column[column > 0.01])
    rest = float(np.max(np.abs(scaled - np.round(scaled))))
    while rest > 0.05:
        scaled = scaled / rest
        rest = float(np.max(np.abs(scaled - np.round(scaled))))
    rounded: Array = np.round(scaled)
    return rounded


CONTRASTS: Mapping[str, Callable[[Sequence[str]], ContrastSet]] = MappingProxyType(
    {
        "pairwise": _pairwise,
        "revpairwise": _revpairwise,
        "trt.vs.ctrl": _first_is_control,
        "trt.vs.ctrl1": _first_is_control,
        "trt.vs.ctrlk": _last_is_control,
        "consec": _consecutive,
        "eff": _effects,
        "poly": _polynomial,
    }
)
"""Name of a set of contrasts -> function of the means' labels."""
