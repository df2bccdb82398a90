"""Reports as one HTML page that needs nothing else: style, figures and mathematics are inside, scripts there are none."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from bayeslmm.report.mathml import mathml
from bayeslmm.report.records import Bullets, Code, Column, Equation, Figure, Paragraph, Section, Table

__all__ = ["render"]

LARGEST_SVG = 1_500_000
"""Figures whose SVG is longer than this (bytes) are put in as PNG."""


_NUMERIC = ' class="n"'


def render(title: str, sections: Sequence[Section]) -> str:
    """Return the report as a self-contained HTML page; all that users named is escaped."""
    links = "".join(f'<a href="#{escape(section.key)}">{escape(section.title)}</a>' for section in sections)
    body = "\n".join(_section(section) for section in sections)
    shown = escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="generator" content="bayeslmm">\n'
        f"<title>{shown}</title>\n<style>{_style()}</style>\n</head>\n<body>\n"
        f"<header>\n<h1>{shown}</h1>\n<nav>{links}</nav>\n</header>\n<main>\n{body}\n</main>\n"
        "<footer>Written by bayeslmm.</footer>\n</body>\n</html>\n"
    )


@cache
def _style() -> str:
    return files("bayeslmm.report").joinpath("style.css").read_text(encoding="utf-8")


def _section(section: Section) -> str:
    blocks = "\n".join(_BLOCKS[type(block)](block) for block in section.blocks)
    return f'<section id="{escape(section.key)}">\n<h2>{escape(section.title)}</h2>\n{blocks}\n</section>'


def _paragraph(block: Paragraph) -> str:
    tone = "" if block.tone == "plain" else f' class="tone {block.tone}"'
    return f"<p{tone}>{escape(block.text)}</p>"


def _bullets(block: Bullets) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in block.items)}</ul>"


def _code(block: Code) -> str:
    caption = f'<p class="label">{escape(block.caption)}</p>\n' if block.caption else ""
    return f"{caption}<pre>{escape(block.text)}</pre>"


def _equation(block: Equation) -> str:
    return mathml(block.latex)


def _figure(block: Figure) -> str:
    svg = block.picture.svg().encode("utf-8")
    kind, data = ("svg+xml", svg) if len(svg) <= LARGEST_SVG else ("png", block.picture.png())
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    width = round(block.picture.get_figwidth() * 96)
    return (
        f'<figure id="figure-{escape(block.name)}">\n<img src="{source}" alt="{escape(block.picture.alt)}" width="{width}">\n'
        f"<figcaption>{escape(block.caption)}</figcaption>\n</figure>"
    )


def _table(block: Table) -> str:
    head = "".join(f'<th{_NUMERIC if column.numeric else ""} scope="col">{escape(column.name)}</th>' for column in block.columns)
    rows, previous = [], None
    for values, cells in zip(block.rows, block.cells, strict=True):
        key = None if block.group_by is None else values[block.group_by]
        mark = ' class="first"' if key != previous else ""
        previous = key
        filled = "".join(_cell(cell, column) for cell, column in zip(cells, block.columns, strict=True))
        rows.append(f"<tr{mark}>{filled}</tr>")
    caption = f"<caption>{escape(block.caption)}</caption>" if block.caption else ""
    note = f'<p class="note">{escape(block.note)}</p>' if block.note else ""
    return f'<div class="scroll"><table>{caption}<thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>{note}</div>'


def _cell(text: str, column: Column) -> str:
    shown = escape(text)
    if column.kind == "mark":
        return f'<td><span class="mark {shown}">{shown}</span></td>'
    if column.kind == "code":
        return f'<td class="code">{shown}</td>'
    return f"<td{_NUMERIC if column.numeric else ''}>{shown}</td>"


_BLOCKS: dict[type, Callable[[Any], str]] = {
    Paragraph: _paragraph,
    Bullets: _bullets,
    Code: _code,
    Equation: _equation,
    Figure: _figure,
    Table: _table,
}
