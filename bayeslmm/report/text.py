"""Reports as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import Any

from bayeslmm.report.records import Bullets, Code, Equation, Figure, Paragraph, Section, Table

__all__ = ["render"]

WIDTH = 110


def render(title: str, sections: Sequence[Section]) -> str:
    """Return the report as plain text, figures as their descriptions."""
    parts = [title, "=" * len(title), ""]
    for section in sections:
        parts += [section.title, "-" * len(section.title), ""]
        for block in section.blocks:
            parts += [_BLOCKS[type(block)](block), ""]
    return "\n".join(parts)


def _paragraph(block: Paragraph) -> str:
    return textwrap.fill(block.text, WIDTH)


def _bullets(block: Bullets) -> str:
    return "\n".join(textwrap.fill(item, WIDTH, initial_indent="* ", subsequent_indent="  ") for item in block.items)


def _code(block: Code) -> str:
    return f"{block.caption}\n{block.text}" if block.caption else block.text


def _equation(block: Equation) -> str:
    return block.latex


def _figure(block: Figure) -> str:
    return textwrap.fill(f"[Figure {block.name}: {block.caption} {block.picture.alt}]", WIDTH)


def _table(block: Table) -> str:
    header = [column.name for column in block.columns]
    widths = [max(len(row[i]) for row in [header, *block.cells]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "  ".join(
            f"{cell:>{width}}" if column.numeric else f"{cell:<{width}}"
            for cell, width, column in zip(cells, widths, block.columns, strict=True)
        ).rstrip()

    body = [line(header), "  ".join("-" * width for width in widths), *(line(row) for row in block.cells)]
    return "\n".join([*([block.caption] if block.caption else []), *body, *([textwrap.fill(block.note, WIDTH)] if block.note else [])])


_BLOCKS: dict[type, Callable[[Any], str]] = {
    Paragraph: _paragraph,
    Bullets: _bullets,
    Code: _code,
    Equation: _equation,
    Figure: _figure,
    Table: _table,
}
