"""A bar that counts long work on a terminal, once it has lasted two seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["counted"]

_QUIET = 2.0
"""Seconds before a bar shows."""


@contextmanager
def counted(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield a function that counts what is done of `total`; shown on a terminal only."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    bar = Progress(console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(label, total=total)
    since, shown = time.monotonic(), False

    def advance(number: int) -> None:
        nonlocal shown
        bar.advance(task, number)
        if not shown and console.is_terminal and time.monotonic() - since > _QUIET:
            bar.start()
            shown = True

    try:
        yield advance
    finally:
        bar.stop()
