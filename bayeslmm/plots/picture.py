"""`Picture`: a matplotlib figure with its alternative text and the data behind it; colours, markers and style."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["COLOURS", "INK", "LINES", "MARKERS", "MUTED", "Picture", "style"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Okabe and Ito's colours: told apart by colour-blind readers; lines and markers differ too, for black and white."""
LINES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "P")
INK, MUTED = "#222222", "#8a8a8a"

_STYLE: Any = {
    "figure.dpi": 110,
    "figure.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.edgecolor": "#555555",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.labelcolor": INK,
    "axes.unicode_minus": True,
    "axes.prop_cycle": cycler(color=COLOURS),
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
    "svg.hashsalt": "bayeslmm",
    "svg.fonttype": "path",
}


@contextmanager
def style() -> Iterator[None]:
    """Hold the package's figure style while a figure is made or saved; the user's own settings are untouched."""
    with mpl.rc_context(_STYLE):
        yield


class Picture(Figure):
    """A figure that can say what it shows.

    Attributes
    ----------
    alt
        What is to be seen, in a sentence or two.
    data
        The numbers drawn, as a tidy frame.
    """

    alt: str
    data: pd.DataFrame

    def describe(self, alt: str, data: pd.DataFrame) -> Picture:
        """Attach the alternative text and the data, lay the picture out for good, so that it is the same each time; returns it."""
        self.alt, self.data = alt, data
        self.draw_without_rendering()
        self.set_layout_engine("none")
        return self

    def png(self, dpi: int = 160) -> bytes:
        """Return the picture as PNG."""
        return self._rendered("png", dpi)

    def svg(self) -> str:
        """Return the picture as SVG, the same text each time."""
        return self._rendered("svg", 110).decode("utf-8")

    def _rendered(self, kind: str, dpi: int) -> bytes:
        buffer = io.BytesIO()
        with style():
            self.savefig(buffer, format=kind, dpi=dpi, metadata={"Date": None} if kind == "svg" else None)
        return buffer.getvalue()

    def _repr_png_(self) -> bytes:
        return self.png(110)
