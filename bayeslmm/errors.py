"""Every exception and warning of the package, each with a stable code."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "BayesLmmError",
    "BayesLmmWarning",
    "ConvergenceWarning",
    "DataError",
    "DataWarning",
    "FitError",
    "FormulaError",
    "PersistenceError",
    "PriorError",
    "SingularFitWarning",
    "suggest",
]


class BayesLmmError(Exception):
    """Whatever this package refuses: the base of all its exceptions."""


class FormulaError(BayesLmmError):
    """A formula that cannot be read; the message shows its text with a caret.

    Parameters
    ----------
    message
        What is wrong and what to do.
    text
        The whole formula, shown under the message.
    start, end
        Half-open span of the offending characters in `text`.
    """

    def __init__(self, message: str, *, text: str | None = None, start: int | None = None, end: int | None = None):
        self.message, self.text, self.start, self.end = message, text, start, end
        super().__init__(message + _caret(text, start, end))


class DataError(BayesLmmError):
    """Data that cannot be used; the message names the column and the rows.

    Parameters
    ----------
    message
        What is wrong and what to do.
    column
        The column at fault.
    rows
        Labels (index values) of the rows at fault; the first five are shown.
    """

    def __init__(self, message: str, *, column: str | None = None, rows: Sequence[object] | None = None):
        self.message, self.column, self.rows = message, column, None if rows is None else list(rows)
        where = ""
        if rows is not None and len(rows):
            shown = ", ".join(str(row) for row in list(rows)[:5])
            where = f" (row{'s' if len(rows) > 1 else ''} {shown}{', ...' if len(rows) > 5 else ''})"
        super().__init__(message + where)


class PriorError(BayesLmmError):
    """A prior that names nothing in the model, or is no distribution of this package."""


class FitError(BayesLmmError):
    """A fit that cannot be made, or an option that no fit has."""


class PersistenceError(BayesLmmError):
    """A file that is not a saved fit, or no longer reproduces the fit that it claims to hold."""


class BayesLmmWarning(UserWarning):
    """The base of this package's warnings: a message behind a stable code, as in `[singular] ...`."""

    def __init__(self, code: str, message: str):
        self.code, self.message = code, message
        super().__init__(f"[{code}] {message}")


class DataWarning(BayesLmmWarning):
    """Data that can be used, but perhaps not as meant."""


class SingularFitWarning(BayesLmmWarning):
    """The estimate lies on the boundary: a variance of zero or a correlation of one."""


class ConvergenceWarning(BayesLmmWarning):
    """The optimiser or the sampler did not reach what its checks ask for."""


def suggest(name: str, known: Sequence[str]) -> str:
    """Return `"; did you mean 'x'?"` with the closest known name, or all known names where none is close."""
    import difflib

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(sorted(known))}" if known else ""


def _caret(text: str | None, start: int | None, end: int | None) -> str:
    if text is None:
        return ""
    if start is None:
        return f"\n    {text}"
    width = max((end if end is not None else start + 1) - start, 1)
    return f"\n    {text}\n    {' ' * start}{'^' * width}"
