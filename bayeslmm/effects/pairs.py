"""How two predictions are compared (`COMPARISONS`), which pairs of several (`PAIRS`), and hypotheses about a table's estimates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import Any

import numpy as np

from bayeslmm.effects.contrasts import contrast_set
from bayeslmm.errors import DataError, FitError, suggest

__all__ = ["COMPARISONS", "MAX_PAIRED", "PAIRS", "Comparison", "Reduction", "comparison_named", "null_value", "pairs_named", "reduction"]

type Array = np.ndarray

MAX_PAIRED = 500
"""More estimates are not compared in pairs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A function of a high and a low prediction: `value(high, low)` and its derivatives by both.

    `label`: of a pair, to be filled in; `null`: the value of no difference; `inside`: predictions must lie between these.
    """

    value: Callable[[Array, Array], Array]
    slopes: Callable[[Array, Array], tuple[Array, Array]]
    label: str
    null: float = 0.0
    inside: tuple[float, float] = (-np.inf, np.inf)

    def check(self, name: str, *predictions: Array) -> None:
        """Refuse predictions that the comparison has no meaning for.

        Raises
        ------
        FitError
            If one lies outside.
        """
        low, high = self.inside
        for mu in predictions:
            if np.any((mu <= low) | (mu >= high)):
                meaning = "positive predictions" if high == np.inf else "predictions that are probabilities"
                raise FitError(f"comparison '{name}' is of {meaning}, and some are not; use comparison='difference', or another scale")


def _logit(p: Array) -> Array:
    return np.asarray(np.log(p) - np.log1p(-p))


COMPARISONS: Mapping[str, Comparison] = MappingProxyType(
    {
        "difference": Comparison(
            value=lambda high, low: high - low,
            slopes=lambda high, low: (np.ones_like(high), -np.ones_like(low)),
            label="{high} - {low}",
        ),
        "ratio": Comparison(
            value=lambda high, low: high / low,
            slopes=lambda high, low: (1.0 / low, -high / low**2),
            label="{high} / {low}",
            null=1.0,
        ),
        "lnratio": Comparison(
            value=lambda high, low: np.log(high / low),
            slopes=lambda high, low: (1.0 / high, -1.0 / low),
            label="ln({high} / {low})",
            inside=(0.0, np.inf),
        ),
        "lnor": Comparison(
            value=lambda high, low: _logit(high) - _logit(low),
            slopes=lambda high, low: (1.0 / (high * (1.0 - high)), -1.0 / (low * (1.0 - low))),
            label="ln(odds({high}) / odds({low}))",
            inside=(0.0, 1.0),
        ),
        "lift": Comparison(
            value=lambda high, low: (high - low) / low,
            slopes=lambda high, low: (1.0 / low, -high / low**2),
            label="({high} - {low}) / {low}",
        ),
    }
)
"""Name -> how a high and a low prediction are compared; names as in marginaleffects."""


def comparison_named(name: Any) -> Comparison:
    """Return a comparison by its name.

    Raises
    ------
    FitError
        If there is none.
    """
    if name not in COMPARISONS:
        raise FitError(f"unknown comparison {name!r}{suggest(str(name), list(COMPARISONS))} (known: {', '.join(COMPARISONS)})")
    return COMPARISONS[name]


PAIRS: Mapping[str, Callable[[int], list[tuple[int, int]]]] = MappingProxyType(
    {
        "reference": lambda k: [(i, 0) for i in range(1, k)],
        "revreference": lambda k: [(0, i) for i in range(1, k)],
        "sequential": lambda k: [(i + 1, i) for i in range(k - 1)],
        "revsequential": lambda k: [(i, i + 1) for i in range(k - 1)],
        "pairwise": lambda k: [(high, low) for low in range(k) for high in range(low + 1, k)],
        "revpairwise": lambda k: [(low, high) for low in range(k) for high in range(low + 1, k)],
        "all": lambda k: [(high, low) for low in range(k) for high in range(k) if high != low],
        "minmax": lambda k: [(k - 1, 0)] if k > 1 else [],
    }
)
"""Name -> the pairs (high, low) of k values in order."""


def pairs_named(name: str, k: int, what: str) -> list[tuple[int, int]]:
    """Return the pairs of k values by the set's name.

    Raises
    ------
    FitError
        If there is no such set.
    """
    if name not in PAIRS:
        raise FitError(f"{what}: unknown set of pairs {name!r}{suggest(str(name), list(PAIRS))} (known: {', '.join(PAIRS)})")
    return PAIRS[name](k)


# Hypotheses ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """Functions of a table's m estimates: `names` (q,), `value` (..., m) -> (..., q), `jacobian` (m,) -> (q, m), `null`."""

    names: tuple[str, ...]
    value: Callable[[Array], Array]
    jacobian: Callable[[Array], Array]
    null: float


def null_value(hypothesis: Any) -> float | None:
    """Return the value that estimates are tested against, where the hypothesis is a number."""
    return float(hypothesis) if isinstance(hypothesis, Real) and not isinstance(hypothesis, bool) else None


def reduction(hypothesis: Any, labels: Sequence[str]) -> Reduction | None:
    """Return what a hypothesis asks of estimates that bear the labels; None where it is a number or there is none.

    Parameters
    ----------
    hypothesis
        Text `"difference ~ pairwise"` (a name of `COMPARISONS`, one of `PAIRS`; the first may be left out), a dict of name ->
        coefficients, or a matrix with one row a hypothesis.
    labels
        One for each estimate.

    Raises
    ------
    FitError, DataError
        For an unknown name, coefficients that do not fit, or too many estimates to pair.
    """
    if hypothesis is None or null_value(hypothesis) is not None:
        return None
    if isinstance(hypothesis, str):
        left, _, right = hypothesis.rpartition("~")
        return _paired(left.strip() or "difference", right.strip(), labels)
    chosen = contrast_set(hypothesis, labels)
    weights = chosen.weights
    return Reduction(names=chosen.names, value=lambda x: x @ weights.T, jacobian=lambda x: weights, null=0.0)


def _paired(name: str, pairs: str, labels: Sequence[str]) -> Reduction:
    comparison = comparison_named(name)
    if len(labels) > MAX_PAIRED:
        raise DataError(f"{len(labels)} estimates are too many to compare in pairs (at most {MAX_PAIRED}); average them by=, or use a grid")
    found = pairs_named(pairs, len(labels), "hypothesis")
    high, low = (np.array([pair[i] for pair in found], dtype=np.intp) for i in (0, 1))

    def value(x: Array) -> Array:
        comparison.check(name, x[..., high], x[..., low])
        return comparison.value(x[..., high], x[..., low])

    def jacobian(x: Array) -> Array:
        result = np.zeros((len(found), len(x)))
        by_high, by_low = comparison.slopes(x[high], x[low])
        result[np.arange(len(found)), high] += by_high
        result[np.arange(len(found)), low] += by_low
        return result

    names = tuple(comparison.label.format(high=f"({labels[i]})", low=f"({labels[j]})") for i, j in found)
    return Reduction(names=names, value=value, jacobian=jacobian, null=comparison.null)
