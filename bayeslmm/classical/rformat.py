"""Numbers and names as R prints them: common formatting of a vector, `printCoefmat`, matrices of text, `abbreviate`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["abbreviate", "coefficient_table", "format_numbers", "format_p_values", "named_row", "text_matrix", "zapsmall"]

type Array = np.ndarray


def format_numbers(values: Sequence[float] | Array, digits: int = 7, nsmall: int = 0) -> list[str]:
    """Return numbers in one common format, right-justified: the fewest decimals that show each to `digits` significant digits.

    Fixed notation unless scientific is narrower; at least `nsmall` decimals; NaN is `NA`.

    Examples
    --------
    >>> format_numbers([612.0899, 35.0717, 654.94], digits=4)
    ['612.09', ' 35.07', '654.94']
    """
    numbers = [float(value) for value in np.ravel(np.asarray(values, dtype=float))]
    finite = [value for value in numbers if math.isfinite(value)]
    if not finite:
        return _justify([_special(value) for value in numbers])
    parts = [_significant(value, digits) for value in finite]
    decimals = max(max(0, count - exponent - 1) for count, exponent in parts)
    fixed = max(len(f"{value:.{decimals}f}") for value in finite)
    mantissa = max(count for count, _ in parts) - 1
    scientific = max(len(_scientific(value, mantissa)) for value in finite)
    if fixed <= scientific:
        decimals = max(decimals, nsmall)
        return _justify([f"{value:.{decimals}f}" if math.isfinite(value) else _special(value) for value in numbers])
    return _justify([_scientific(value, mantissa) if math.isfinite(value) else _special(value) for value in numbers])


def _special(value: float) -> str:
    return "NA" if math.isnan(value) else ("Inf" if value > 0 else "-Inf")


def _significant(value: float, digits: int) -> tuple[int, int]:
    """Return how many significant digits (at most `digits`) a number needs, and its decimal exponent."""
    if value == 0.0:
        return 1, 0
    mantissa, exponent = f"{abs(value):.{digits - 1}e}".split("e")
    return max(len(mantissa.replace(".", "").rstrip("0")), 1), int(exponent)


def _scientific(value: float, decimals: int) -> str:
    return f"{value:.{decimals}e}"


def _justify(texts: list[str]) -> list[str]:
    width = max(len(text) for text in texts)
    return [text.rjust(width) for text in texts]


def zapsmall(values: Array, digits: int) -> Array:
    """Round to `digits` significant digits of the largest value, as R 4.2 does."""
    largest = float(np.max(np.abs(values), initial=0.0))
    decimals = max(0, math.floor(digits - math.log10(largest) + 0.5)) if largest > 0 else digits
    rounded: Array = np.round(values, decimals)
    return rounded


def named_row(names: Sequence[str], texts: Sequence[str]) -> str:
    """Return a named vector as R prints it: all columns of one width, names over values."""
    width = max(len(text) for text in (*names, *texts))
    return "".join(f"{name:>{width}} " for name in names) + "\n" + "".join(f"{text:>{width}} " for text in texts)


def text_matrix(columns: Sequence[tuple[str, Sequence[str]]], row_names: Sequence[str], *, right: bool = False) -> str:
    """Return a matrix of text as R prints it without quotes: columns left-justified (or right), row names first."""
    stub = max((len(name) for name in row_names), default=0)
    lines = [" " * stub, *(f"{name:<{stub}}" for name in row_names)]
    for header, cells in columns:
        width = max(len(text) for text in (header, *cells))
        for position, text in enumerate((header, *cells)):
            lines[position] += " " + (f"{text:>{width}}" if right else f"{text:<{width}}")
    return "\n".join(lines)


def coefficient_table(
    names: Sequence[str], estimate: Array, se: Array, statistic: Array, p_value: Array | None = None, digits: int = 4
) -> str:
    """Return `printCoefmat` of estimates, standard errors and t values; with p values of z values, these and R's stars."""
    both = np.concatenate([estimate, se])
    sizes = np.abs(both[np.isfinite(both) & (both != 0.0)])
    least = 1 + math.floor(math.log10(float(sizes.min()))) if sizes.size else 0
    cells = format_numbers(np.round(both, max(1, digits - least)), digits)
    for position, value in enumerate(both):
        if math.isfinite(value) and (value == 0.0) != (float(cells[position]) == 0.0):
            cells[position] = format_numbers([value], max(1, digits - 1))[0]
    ratios = format_numbers(np.round(statistic, max(1, min(5, digits - 1))), digits)
    n = len(names)
    columns = [("Estimate", cells[:n]), ("Std. Error", cells[n:])]
    if p_value is None:
        return text_matrix([*columns, ("t value", ratios)], names, right=True)
    table = text_matrix([*columns, ("z value", ratios), ("Pr(>|z|)", format_p_values(p_value))], names, right=True)
    stars = [next(star for limit, star in _STARS if not value >= limit) for value in p_value]
    marked = [f"{line} {star:<3}" for line, star in zip(table.split("\n"), ("", *stars), strict=True)]
    return "\n".join([*marked, "---", _LEGEND]) if any(star.strip() for star in stars) else table


_STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"), (0.1, "."), (math.inf, ""))
_LEGEND = "Signif. codes:  0 '***' 0.001 '**' 0.01 '*' 0.05 '.' 0.1 ' ' 1"


def format_p_values(values: Array, digits: int = 3) -> list[str]:
    """Return p values as R's `format.pval`: those from 1e-4 on and smaller ones formatted apart, tiny ones as `<2e-16`.

    Examples
    --------
    >>> format_p_values(np.array([0.0010681, 0.00047412, 1.4734e-09]))
    ['0.001068', '0.000474', '1.47e-09']
    """
    values = np.asarray(values, dtype=float)
    texts = ["NA"] * len(values)
    tiny = values < float(np.finfo(float).eps)
    for mask in (values >= 1e-4, (values < 1e-4) & ~tiny):
        if np.any(mask):
            for position, text in zip(np.flatnonzero(mask), format_numbers(values[mask], digits), strict=True):
                texts[position] = text
    widest = max((len(text) for text, is_tiny in zip(texts, tiny, strict=True) if not is_tiny), default=0)
    return ["< 2e-16" if is_tiny and widest > 6 else "<2e-16" if is_tiny else text for text, is_tiny in zip(texts, tiny, strict=True)]


def abbreviate(names: Sequence[str], length: int) -> list[str]:
    """Return names shortened to at least `length` characters, still distinct, by R's rule.

    Characters go from the right, never the first of a word: vowels at the ends of words, other lower-case vowels, lower-case
    letters at the ends of words, other lower-case letters, then any.

    Examples
    --------
    >>> abbreviate(["(Intercept)", "Days"], 6)
    ['(Intr)', 'Days']
    """
    shortened = {name: _shorten(name, length) for name in names}
    repeated = _repeated(shortened)
    while repeated and length < max(len(name) for name in names):
        length += 1
        for name in repeated:
            shortened[name] = _shorten(name, length)
        repeated = _repeated(shortened)
    return [shortened[name] for name in names]


def _repeated(shortened: dict[str, str]) -> list[str]:
    values = list(shortened.values())
    return [name for name, text in shortened.items() if values.count(text) > 1]


def _shorten(name: str, length: int) -> str:
    text = list(name.strip())
    for vowels_only, ends_only in ((True, True), (True, False), (False, True), (False, False)):
        _drop(text, length, vowels_only, ends_only)
    for position in range(len(text) - 1, 0, -1):
        if _size(text) <= length:
            break
        if text[position - 1] != " " and text[position] != " ":
            del text[position]
    return "".join(text) if _size(text) == len(text) or len(text) <= length else "".join(text).replace(" ", "")


def _size(text: list[str]) -> int:
    return len(text) - text.count(" ")


def _drop(text: list[str], length: int, vowels_only: bool, ends_only: bool) -> None:
    for position in range(len(text) - 1, 0, -1):
        if _size(text) <= length:
            return
        letter = text[position]
        wanted = letter in "aeiou" if vowels_only else letter.islower()
        first = text[position - 1] == " "
        last = not first and (position + 1 == len(text) or text[position + 1] == " ")
        if wanted and (last if ends_only else not first):
            del text[position]
