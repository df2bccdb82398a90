"""What a report is made of: sections of blocks, tables of typed cells, and how a number is written in every format."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bayeslmm.plots.picture import Picture

__all__ = ["NOT_RECORDED", "Block", "Bullets", "Code", "Column", "Equation", "Figure", "Paragraph", "Section", "Table", "number", "written"]

NOT_RECORDED = "[not recorded]"
"""Stands wherever a fit does not know what a report should say; nothing is made up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A table's column: its heading and the kind of its cells (`text`, `code`, `number`, `plain`, `signed`, `count`, `mark`)."""

    name: str
    kind: str = "text"

    @property
    def numeric(self) -> bool:
        return self.kind in ("number", "signed", "count", "plain")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of values under typed columns; `note` stands below. `group_by`: rows are set apart where that column changes."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""
    group_by: int | None = None

    @property
    def cells(self) -> tuple[tuple[str, ...], ...]:
        """All cells as text."""
        return tuple(tuple(written(value, column) for value, column in zip(row, self.columns, strict=True)) for row in self.rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """Prose; `tone` is `plain`, `good` (all checks passed) or `bad`."""

    text: str
    tone: str = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Text whose spaces count, such as a print-out; `caption` names it."""

    text: str
    caption: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """Mathematics as LaTeX."""

    latex: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A picture with its caption."""

    picture: Picture
    caption: str
    name: str


type Block = Table | Paragraph | Bullets | Code | Equation | Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A heading and what stands under it; `key` is its anchor."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def number(value: float) -> str:
    """Write a number with four significant digits, plainly where that can be read, with a true minus sign.

    Examples
    --------
    >>> number(251.40510), number(1743.628), number(0.0655512), number(-0.000012)
    ('251.4', '1743.6', '0.06555', '−1.2e−05')
    """
    if not math.isfinite(value):
        return "" if math.isnan(value) else ("∞" if value > 0 else "−∞")
    if value == 0:
        return "0"
    size = abs(value)
    if size < 1e-4 or size >= 1e7:
        text = f"{value:.3g}"
    else:
        text = f"{value:.{max(1 if size < 1e5 else 0, 3 - math.floor(math.log10(size)))}f}"
        if float(value).is_integer() and size < 1e5:
            text = f"{value:.0f}"
    return text.replace("-", "−")


def written(value: Any, column: Column) -> str:
    """Write a cell: empty where the value is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return _WRITERS[column.kind](value)


_WRITERS: dict[str, Callable[[Any], str]] = {
    "text": str,
    "code": str,
    "number": lambda value: number(float(value)),
    "signed": lambda value: f"{float(value):+.2f}".replace("-", "−"),
    "count": lambda value: f"{int(value)}",
    "plain": lambda value: f"{float(value):.4g}".replace("-", "−"),
    "mark": str,
}


def from_frame(caption: str, frame: Any, kinds: Sequence[tuple[str, str, str]], *, note: str = "", group_by: int | None = None) -> Table:
    """Make a table of a frame's columns: `kinds` holds (column of the frame, heading, kind)."""
    columns = tuple(Column(name=heading, kind=kind) for _, heading, kind in kinds)
    rows = tuple(tuple(row) for row in frame[[name for name, _, _ in kinds]].itertuples(index=False, name=None))
    return Table(caption=caption, columns=columns, rows=rows, note=note, group_by=group_by)
