"""Reports: a fit or a comparison -> sections of typed tables, prose and figures -> one of the formats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from bayeslmm.errors import FitError, suggest
from bayeslmm.report import html, markdown, text
from bayeslmm.report.records import Section

__all__ = ["FORMATS", "Report", "report"]

FORMATS: Mapping[str, Callable[[str, Sequence[Section]], str]] = MappingProxyType(
    {"html": html.render, "md": markdown.render, "txt": text.render}
)
"""Format, which is also the file's suffix -> function of title and sections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report in its parts; written out by `render` and `save`, printed as text.

    Attributes
    ----------
    title
        Its heading.
    sections
        `Section` records, each with blocks: prose, tables, equations, figures, print-outs.
    """

    title: str
    sections: tuple[Section, ...]

    def render(self, format: str = "html") -> str:
        """Return the whole report in a format of `FORMATS`."""
        return _renderer(format)(self.title, self.sections)

    def save(self, path: str | Path, format: str | None = None) -> Path:
        """Write the report to a file, in the format given or that of the file's suffix; returns the path."""
        target = Path(path)
        written = self.render(format or target.suffix.removeprefix("."))
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(written, encoding="utf-8")
        except OSError as error:
            raise FitError(f"the report cannot be written to {target}: {error.strerror or error}") from None
        return target

    def __str__(self) -> str:
        return self.render("txt")

    def _repr_markdown_(self) -> str:
        return self.render("md")


def report(
    obj: Any,
    path: str | Path | None = None,
    format: str | None = None,
    *,
    title: str | None = None,
    figures: Sequence[str] | None = None,
    extra: Sequence[Section] = (),
) -> Report:
    """Report a fit or a comparison: model, data, both engines side by side, priors, diagnostics, figures, provenance.

    Parameters
    ----------
    obj
        A fit, or a `Comparison`.
    path
        Where to write it; by default it is only returned.
    format
        `"html"`, `"md"` or `"txt"` (default: the suffix of `path`).
    title
        The heading (default: the formula).
    figures
        Kinds of figures to draw, as `plot` names them (default: all that apply; `()` for none).
    extra
        Further sections, put in after the first.

    Returns
    -------
    Report

    Raises
    ------
    FitError
        The format is unknown, the object is no fit, or the file cannot be written.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))
    >>> bl.report(fit).sections[0].title
    'Verdict'
    """
    from bayeslmm.report.sections import all_sections

    if path is not None or format is not None:
        _renderer(format or Path(str(path)).suffix.removeprefix("."))
    sections = all_sections(obj, figures)
    made = Report(title=title or _title(obj), sections=(*sections[:1], *extra, *sections[1:]))
    if path is not None:
        made.save(path, format)
    return made


def _renderer(format: str) -> Callable[[str, Sequence[Section]], str]:
    if format not in FORMATS:
        shown = f"format {format!r}" if format else "a file without a suffix"
        raise FitError(f"a report cannot be written as {shown}{suggest(format, list(FORMATS))} (formats: {', '.join(FORMATS)})")
    return FORMATS[format]


def _title(obj: Any) -> str:
    from bayeslmm.plots.common import source_of

    return str(source_of(obj).model.formula)
