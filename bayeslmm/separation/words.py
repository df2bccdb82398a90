"""Separation in plain words: which cells, ranges or combinations of the predictors hold rows of one outcome only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations

import numpy as np

from bayeslmm.formula.values import Factor, Numbers, as_factor, number_label
from bayeslmm.model_matrix import full_rank_columns
from bayeslmm.separation.kernel import separate

__all__ = ["Finding", "Rows", "findings"]

type Array = np.ndarray
type Values = Mapping[str, Numbers | Factor]

_FEW_VALUES = 6
"""A number with at most so many distinct values is named by its values, `dose = 3`, where the model allows."""
_MOST_CELLS = 1000
_NAMED = 4
"""A combination of more coefficients than these is named without its numbers."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """The rows of a model: X (n, p) and its names, y and trials (n,), which rows are extreme, and what a success is called.

    `among`: what to add to the name of a cell where these are not all rows.
    """

    X: Array
    names: tuple[str, ...]
    y: Array
    trials: Array | None
    low: Array
    high: Array
    success: str
    counts: bool
    among: str = ""

    @cached_property
    def factors(self) -> tuple[Array, Array]:
        """Q and R of X."""
        Q, R = np.linalg.qr(self.X)
        return Q, R

    def spanned(self, v: Array) -> Array | None:
        """Return the coefficients with `X delta = v`; None where there are none."""
        Q, R = self.factors
        inside = Q.T @ v
        if np.linalg.norm(v - Q @ inside) > 1e-8 * np.linalg.norm(v):
            return None
        return np.asarray(np.linalg.solve(R, inside))

    def only(self, left: Array) -> tuple[Rows, Array]:
        """Return some of the rows, with the columns (positions) that have full rank in them."""
        kept = full_rank_columns(self.X[left])
        some = replace(
            self,
            X=self.X[left][:, kept],
            names=tuple(self.names[j] for j in kept.tolist()),
            y=self.y[left],
            trials=None if self.trials is None else self.trials[left],
            low=self.low[left],
            high=self.high[left],
            among="" if left.all() else f" (among the other {int(left.sum())} rows)",
        )
        return some, kept

    def tally(self, rows: Array) -> tuple[float, float]:
        """Return the successes and the trials of some rows; rows are trials where there are no others."""
        full = float(rows.sum()) if self.trials is None else float(self.trials[rows].sum())
        return float(self.y[rows].sum()), full

    def said(self, rows: Array) -> str:
        """Say what the outcome of rows is that have one outcome only."""
        successes, full = self.tally(rows)
        if self.counts:
            value = f"{float(self.y[rows][0]):g}"
            return f"all {full:g} counts are {value}" if full != 1 else f"the only count is {value}"
        unit = "row" if self.trials is None else "trial"
        if successes:
            return f"all {full:g} {unit}s are {self.success}" if full != 1 else f"the only {unit} is {self.success}"
        return f"0 of {full:g} {unit}{'s' * (full != 1)} are {self.success}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Rows of one outcome that the model can take apart from the others.

    `where`: the level or range in words; `rows` (n,); `direction` (p,): the move of the coefficients that takes them there.
    """

    where: str
    sentence: str
    successes: float
    trials: float
    rows: Array
    direction: Array


def findings(rows: Rows, terms: Sequence[tuple[str, ...]], values: Values, separated: Array) -> tuple[Finding, ...]:
    """Return what separates rows, coarse cells before fine ones, and a combination of predictors for what is left.

    Parameters
    ----------
    rows
        The model's rows.
    terms
        Labels of the variables of each fixed term.
    values
        Label -> values (n,) of each variable.
    separated
        Mask (n,) of the rows that are known to be separated.
    """
    found: list[Finding] = []
    left = np.ones(len(separated), dtype=bool)
    while (separated & left).any():
        some, kept = rows.only(left)
        here = {label: _taken(value, left) for label, value in values.items()}
        new = _greedy(some, terms, here, separated[left]) or _combination(some)
        if not new:
            break
        found += [_among_all(one, left, kept, len(rows.names)) for one in new]
        left &= ~np.logical_or.reduce([one.rows for one in found])
    return tuple(found)


def _greedy(rows: Rows, terms: Sequence[tuple[str, ...]], values: Values, separated: Array) -> list[Finding]:
    """Return cells and ranges, each of which separates rows that those before it do not."""
    found: list[Finding] = []
    left = separated.copy()
    for one in _candidates(rows, terms, values):
        if (one.rows & left).any():
            found.append(one)
            left &= ~one.rows
        if not left.any():
            break
    return found


def _taken(value: Numbers | Factor, left: Array) -> Numbers | Factor:
    return replace(value, codes=value.codes[left]) if isinstance(value, Factor) else replace(value, values=value.values[left])


def _among_all(one: Finding, left: Array, kept: Array, p: int) -> Finding:
    """Return a finding among some rows and columns as one among all."""
    rows, direction = np.zeros(len(left), dtype=bool), np.zeros(p)
    rows[left], direction[kept] = one.rows, one.direction
    return replace(one, rows=rows, direction=direction)


def _candidates(rows: Rows, terms: Sequence[tuple[str, ...]], values: Values) -> Iterator[Finding]:
    for labels in _subsets(terms):
        cells = [label for label in labels if _as_cells(values[label])]
        if len(cells) == len(labels):
            yield from _cells(rows, labels, values)
        for measure in labels:
            others = tuple(label for label in labels if label != measure)
            if _is_measure(values[measure]) and all(other in cells for other in others):
                yield from _ranges(rows, measure, others, values)


def _subsets(terms: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return every set of variables that stands in one term, the empty one first, small before large."""
    found = {(): None} | {part: None for term in terms for size in range(1, len(term) + 1) for part in combinations(term, size)}
    return sorted(found, key=len)


def _is_measure(value: Numbers | Factor) -> bool:
    return isinstance(value, Numbers) and value.values.ndim == 1 and not value.logical


def _as_cells(value: Numbers | Factor) -> bool:
    if isinstance(value, Factor) or value.logical:
        return True
    return value.values.ndim == 1 and len(np.unique(value.values)) <= _FEW_VALUES


def _cell_codes(labels: Sequence[str], values: Values, n: int) -> tuple[Array, list[str]]:
    """Return each row's cell and the cells' names, as `treatment = 2800, time = 9`."""
    factors = [as_factor(values[label]) for label in labels]
    codes = np.zeros(n, dtype=np.int64)
    for factor in factors:
        codes = codes * len(factor.levels) + factor.codes
    seen, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    parts = zip(labels, factors, strict=True) if labels else ()
    named = [[f"{label} = {factor.levels[factor.codes[row]]}" for row in first.tolist()] for label, factor in parts]
    return inverse.ravel(), [", ".join(names) for names in zip(*named, strict=True)] if named else ["every row"] * len(seen)


def _cells(rows: Rows, labels: tuple[str, ...], values: Values) -> Iterator[Finding]:
    codes, names = _cell_codes(labels, values, len(rows.y))
    sizes = np.bincount(codes)
    for extreme, sign in ((rows.low, -1.0), (rows.high, 1.0)):
        for cell in np.flatnonzero(np.bincount(codes[extreme], minlength=len(sizes)) == sizes)[:_MOST_CELLS].tolist():
            inside = codes == cell
            direction = rows.spanned(sign * inside)
            if direction is not None:
                yield _finding(rows, names[cell], inside, direction, f"{names[cell]}{rows.among}: {rows.said(inside)}")


def _ranges(rows: Rows, measure: str, others: tuple[str, ...], values: Values) -> Iterator[Finding]:
    """Yield where a measure, in a cell of others, has one outcome above (and perhaps the other below) a threshold."""
    codes, names = _cell_codes(others, values, len(rows.y))
    x = np.asarray(values[measure].values)  # type: ignore[union-attr]
    for cell in range(min(len(names), _MOST_CELLS)):
        inside = codes == cell
        for above, below, sign in ((rows.high, rows.low, 1.0), (rows.low, rows.high, -1.0)):
            start = x[inside & ~above].max(initial=-np.inf)
            stop = x[inside & ~below].min(initial=np.inf)
            for threshold in _thresholds(start, stop):
                direction = rows.spanned(np.where(inside, sign * (x - threshold), 0.0)) if np.ptp(x[inside]) else None
                if direction is not None:
                    upper, lower = inside & (x > threshold), inside & (x < threshold)
                    prefix = f"{names[cell]}, " if others else ""
                    yield _range(rows, f"{prefix}{measure}", threshold, start, (upper, lower), direction)
                    break


def _thresholds(start: float, stop: float) -> list[float]:
    """Return values between the two: the middle, and 0 for models that have no other."""
    if start > stop:
        return []
    finite = [end for end in (start, stop) if np.isfinite(end)]
    middle = [float(np.mean(finite))] if finite else []
    return [*middle, *([0.0] if start <= 0.0 <= stop and middle != [0.0] else [])]


def _range(rows: Rows, what: str, threshold: float, start: float, sides: tuple[Array, Array], direction: Array) -> Finding:
    """Say what lies above and below a threshold; rows at `start` count as below it where the threshold is beyond them."""
    upper, lower = sides
    both = bool(upper.any() and lower.any())
    shown = _shown(start if both else threshold)
    where = f"{what} {'above' if upper.any() else 'below'} {shown}"
    named = upper if upper.any() else lower
    sentence = f"{where}{rows.among}: {rows.said(named)}"
    if both:
        sentence += f"; {'below' if threshold == start else 'up to'} {shown}: {rows.said(lower)}"
    return _finding(rows, where, upper | lower, direction, sentence, counted=named)


def _shown(value: float) -> str:
    return number_label(float(f"{value:.6g}"))


def _finding(rows: Rows, where: str, inside: Array, direction: Array, sentence: str, counted: Array | None = None) -> Finding:
    successes, trials = rows.tally(inside if counted is None else counted)
    return Finding(where=where, sentence=sentence, successes=successes, trials=trials, rows=inside, direction=direction)


def _combination(rows: Rows) -> list[Finding]:
    """Name the combination of coefficients that separates rows which no cell and no range holds."""
    found = separate(rows.X, rows.low, rows.high)
    if found is None:
        return []
    score = rows.X @ found.direction
    size = np.abs(found.direction) * np.abs(rows.X).max(axis=0)
    direction = np.where(size < 1e-7 * size.max(), 0.0, found.direction)
    where, threshold = _combined(rows.names, direction)
    words = (f"above {threshold}", f"below {threshold}") if threshold else ("on one side", "on the other side")
    sides = zip((found.rows & (score > 0), found.rows & (score < 0)), words, strict=True)
    parts = [f"{word}: {rows.said(side)}" for side, word in sides if side.any()]
    return [_finding(rows, where, found.rows, direction, f"{where}{rows.among} {'; '.join(parts)}")]


def _combined(names: Sequence[str], direction: Array) -> tuple[str, str]:
    """Write a direction as a weighted sum of coefficients and the threshold it has, `dose - 0.62 age`, `1.3`."""
    moved = [j for j in np.flatnonzero(direction).tolist() if names[j] != "(Intercept)"]
    if not moved:
        return "every row", ""
    unit = abs(direction[moved[0]])
    listed = [names[j] for j in moved]
    if len(moved) > _NAMED:
        return f"a combination of {', '.join(listed[:-1])} and {listed[-1]}", ""
    text = ""
    for j, name in zip(moved, listed, strict=True):
        weight = direction[j] / unit
        sign = (" - " if weight < 0 else " + ") if text else ("-" if weight < 0 else "")
        factor = "" if abs(abs(weight) - 1.0) < 5e-4 else f"{abs(weight):.3g} "
        text += f"{sign}{factor}{name}"
    intercept = direction[names.index("(Intercept)")] / unit if "(Intercept)" in names else 0.0
    return text, f"{-intercept:.4g}" if intercept else "0"
