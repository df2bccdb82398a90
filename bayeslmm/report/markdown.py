"""Reports as Markdown, with pictures as data addresses, so that the file stands alone."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from typing import Any

from bayeslmm.report.records import Bullets, Code, Equation, Figure, Paragraph, Section, Table

__all__ = ["render"]


def render(title: str, sections: Sequence[Section]) -> str:
    """Return the report as Markdown (pipe tables, fenced code, dollar mathematics)."""
    parts = [f"# {_safe(title)}", ""]
    for section in sections:
        parts += [f"## {_safe(section.title)}", ""]
        for block in section.blocks:
            parts += [_BLOCKS[type(block)](block), ""]
    return "\n".join(parts)


def _safe(text: str) -> str:
    """Return text in which nothing is read as Markdown or HTML."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$])", r"\\\1", text).replace("\n", " ")


def _paragraph(block: Paragraph) -> str:
    return f"**{_safe(block.text)}**" if block.tone == "bad" else _safe(block.text)


def _bullets(block: Bullets) -> str:
    return "\n".join(f"- {_safe(item)}" for item in block.items)


def _code(block: Code) -> str:
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall(r"`+", block.text) or [""]))
    caption = f"{_safe(block.caption)}\n\n" if block.caption else ""
    return f"{caption}{fence}text\n{block.text}\n{fence}"


def _equation(block: Equation) -> str:
    return f"$$\n{block.latex}\n$$"


def _figure(block: Figure) -> str:
    data = base64.b64encode(block.picture.png()).decode("ascii")
    return f"![{_safe(block.picture.alt)}](data:image/png;base64,{data})\n\n*{_safe(block.caption)}*"


def _table(block: Table) -> str:
    head = "| " + " | ".join(_safe(column.name) for column in block.columns) + " |"
    rule = "|" + "|".join(" ---: " if column.numeric else " --- " for column in block.columns) + "|"
    rows = ["| " + " | ".join(_safe(cell) for cell in row) + " |" for row in block.cells]
    caption = [f"**{_safe(block.caption)}**", ""] if block.caption else []
    return "\n".join([*caption, head, rule, *rows, *(["", _safe(block.note)] if block.note else [])])


_BLOCKS: dict[type, Callable[[Any], str]] = {
    Paragraph: _paragraph,
    Bullets: _bullets,
    Code: _code,
    Equation: _equation,
    Figure: _figure,
    Table: _table,
}
