"""What a piece of a formula evaluates to on data: `Numbers` or a `Factor`, with missing values marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["MISSING", "Factor", "Numbers", "Value", "as_factor", "drop_unused", "frozen", "labels_of", "number_label", "recode"]

type Array = np.ndarray
type Value = Numbers | Factor | float | str | bool | None

MISSING = -1
"""The code of a missing value in a factor; codes below it count levels that the fit has not seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """Numeric values (n,) or (n, k), NaN where missing.

    `suffixes` (k,): what R appends to the variable's name for each column. `logical`: values are TRUE (1) or FALSE (0).
    """

    values: Array
    suffixes: tuple[str, ...] = ()
    logical: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """Categories: `codes` (n,) into `levels`; -1 missing; -2 - i the i-th of `unseen`, levels that the fit does not know.

    `text`: read from a text column. `contrast`: a contrast's name, or a matrix as nested lists, set by `C()`; None for the default.
    """

    codes: Array
    levels: tuple[str, ...]
    ordered: bool = False
    contrast: object = None
    unseen: tuple[str, ...] = ()
    text: bool = False


def number_label(value: float) -> str:
    """Return a number as R's `as.character` writes it: 15 significant digits, whole numbers without a point."""
    if np.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    mantissa, exponent = f"{value:.14e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    power = int(exponent)
    scientific = f"{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"
    digits = len(mantissa.lstrip("-").replace(".", ""))
    fixed = f"{value:.{max(digits - 1 - power, 0)}f}"
    return fixed if len(fixed) <= len(scientific) else scientific


def as_factor(value: Numbers | Factor) -> Factor:
    """Return numbers as a factor, levels in numeric order with R's labels; a factor as it is."""
    if isinstance(value, Factor):
        return value
    missing = np.isnan(value.values)
    if value.logical:
        return Factor(codes=np.where(missing, MISSING, value.values != 0).astype(np.intp), levels=("FALSE", "TRUE"))
    unique, inverse = np.unique(value.values[~missing], return_inverse=True)
    codes = np.full(len(missing), MISSING, dtype=np.intp)
    codes[~missing] = inverse
    return Factor(codes=codes, levels=tuple(number_label(number) for number in unique.tolist()))


def recode(factor: Factor, levels: Sequence[str]) -> Factor:
    """Return a factor with its codes pointing into `levels`; labels that are not among them become `unseen`."""
    wanted = tuple(levels)
    if factor.levels == wanted:
        return factor
    position = {level: code for code, level in enumerate(wanted)}
    known = (*factor.levels, *factor.unseen)
    slots = np.where(factor.codes >= 0, factor.codes, np.where(factor.codes == MISSING, len(known), len(factor.levels) - 2 - factor.codes))
    used = np.unique(slots[slots < len(known)])
    unseen = tuple(known[old] for old in used.tolist() if known[old] not in position)
    table = np.full(len(known) + 1, MISSING, dtype=np.intp)
    position |= {label: -2 - order for order, label in enumerate(unseen)}
    for old in used.tolist():
        table[old] = position[known[old]]
    return replace(factor, codes=table[slots], levels=wanted, unseen=unseen)


def drop_unused(factor: Factor) -> Factor:
    """Return a factor without the levels that no row has."""
    used = np.zeros(len(factor.levels), dtype=bool)
    used[factor.codes[factor.codes >= 0]] = True
    return factor if used.all() else recode(factor, [level for level, seen in zip(factor.levels, used.tolist(), strict=True) if seen])


def labels_of(factor: Factor) -> Array:
    """Return each row's label (objects), None where it is missing."""
    known = np.array([*factor.levels, *factor.unseen, None], dtype=object)
    size = len(factor.levels)
    return np.asarray(known[np.where(factor.codes >= 0, factor.codes, np.where(factor.codes == MISSING, -1, size - 2 - factor.codes))])


def frozen(values: Array) -> Array:
    """Return the array itself, which nobody can write to any more; for arrays of our own making."""
    values.flags.writeable = False
    return values
