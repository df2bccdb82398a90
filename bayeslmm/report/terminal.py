"""Fits and comparisons on a terminal, through rich: print-outs, the side-by-side table, the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from bayeslmm.plots.common import source_of
from bayeslmm.report.records import Paragraph, Table
from bayeslmm.report.sections import Subject, results, verdict

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["print_ladder", "print_result", "print_table"]

_TONES = {"good": "green", "bad": "bold red", "plain": ""}
_VERDICTS = {"agree": "green", "differ": "bold yellow"}


def print_result(console: Console, obj: Any) -> None:
    """Print the print-out of every fit, the table side by side, and the verdict."""
    subject = Subject(obj=obj, source=source_of(obj))
    for label, fit in subject.pairs:
        console.print()
        console.rule(Text(label), align="left", style="dim")
        console.print(Text(str(fit.summary())), soft_wrap=True)
    if subject.table is not None:
        console.print()
        console.rule(Text("Side by side"), align="left", style="dim")
        print_table(console, next(block for block in results(subject).blocks if isinstance(block, Table)), skip=("2.5%", "97.5%"))
    console.print()
    for block in verdict(subject).blocks:
        if isinstance(block, Paragraph):
            console.print(Text(block.text, style=_TONES[block.tone]))
        else:
            for sentence in getattr(block, "items", ()):
                console.print(Text(f"  {sentence}"))


def print_ladder(console: Console, rows: Sequence[tuple[str, str, str, list[str]]]) -> None:
    """Print the models of a case: name, formula, what each says, and a line for each fit."""
    for name, formula, about, lines in rows:
        console.print()
        console.print(Text(f"{name}: {formula}", style="bold"), soft_wrap=True)
        for line in (about, *lines):
            console.print(Text(f"    {line}"), soft_wrap=True)


def print_table(console: Console, table: Table, skip: Sequence[str] = ()) -> None:
    """Print a table of a report, without the columns named in `skip`."""
    kept = [place for place, column in enumerate(table.columns) if column.name not in skip]
    shown = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for place in kept:
        column = table.columns[place]
        shown.add_column(Text(column.name), justify="right" if column.numeric else "left", no_wrap=True)
    for cells in table.cells:
        shown.add_row(*(Text(cells[place], style=_VERDICTS.get(cells[place], "")) for place in kept))
    console.print(shown)
