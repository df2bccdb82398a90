"""Text of a formula -> tokens with their positions; whatever R's formula grammar does not have is refused here."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from bayeslmm.errors import FormulaError

__all__ = ["MAX_LENGTH", "RESERVED", "Kind", "Token", "fail", "is_syntactic", "tokenize"]

MAX_LENGTH = 10_000
"""Longest formula that is read, in characters."""

RESERVED = frozenset(
    {
        *("if", "else", "repeat", "while", "function", "for", "next", "break", "in", "TRUE", "FALSE", "True", "False"),
        *("NULL", "Inf", "NaN", "NA", "NA_integer_", "NA_real_", "NA_character_", "NA_complex_"),
    }
)
"""R's reserved words: none of them names a column unless it stands in backticks."""

_CONSTANTS: dict[str, bool | None] = {"TRUE": True, "FALSE": False, "True": True, "False": False, "NULL": None}

_OPERATORS = ("%in%", "%%", "||", "&&", "==", "!=", "<=", ">=", *"~+-*/^:|!&<>=(),")
_SPELLINGS = {"**": "^"}
_FOREIGN = {
    "::": "no package names can be given",
    ":=": "formulas assign nothing",
    "<-": "formulas assign nothing; for a comparison with a negative number write `x < (-1)`",
    "->": "formulas assign nothing",
    "|>": "formulas have no pipe",
    "$": "columns are written by their name alone",
    "@": "columns are written by their name alone",
    "[": "formulas take no subscripts",
    "]": "formulas take no subscripts",
    "{": "formulas hold no blocks of code",
    "}": "formulas hold no blocks of code",
    ";": "one formula at a time",
    "\\": "formulas define no functions",
}
_SYMBOLS = sorted((*_OPERATORS, *_SPELLINGS, *_FOREIGN), key=len, reverse=True)

_SPACE = re.compile(r"(?:\s|#[^\n]*)+")
_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?L?")
_QUOTED = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "`": "`"}
_EXACT = 2**53
_LARGEST = 1e300
_JOINERS = {"\u200c", "\u200d"}


class Kind(StrEnum):
    """What a token is."""

    CONSTANT = "constant"
    NAME = "name"
    BACKTICKED = "backticked name"
    OPERATOR = "operator"
    END = "end"


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """One word of a formula: its kind, its value, and where it stands (half-open)."""

    kind: Kind
    value: float | int | str | bool | None
    start: int
    end: int

    @property
    def symbol(self) -> str:
        """The operator's spelling; empty for any other token."""
        return str(self.value) if self.kind is Kind.OPERATOR else ""


def fail(message: str, text: str, start: int | None = None, end: int | None = None) -> FormulaError:
    """Return the error to raise, with the formula printable on one line so that the caret stands right."""
    shown = "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)
    return FormulaError(message, text=shown, start=start, end=end)


@lru_cache(maxsize=4096)
def is_syntactic(name: str) -> bool:
    """Return whether R would read `name` as a name without backticks."""
    if name in RESERVED or not _continues(name):
        return False
    return not name[1:2].isdigit() if name.startswith(".") else name[0] != "_" and name[0].isidentifier()


def tokenize(text: str) -> tuple[Token, ...]:
    """Return the tokens of a formula, the last of them of kind `END`.

    Raises
    ------
    FormulaError
        If the text is longer than `MAX_LENGTH` or holds what no formula has.
    """
    if len(text) > MAX_LENGTH:
        raise FormulaError(f"a formula of {len(text)} characters is too long: at most {MAX_LENGTH} are read")
    tokens: list[Token] = []
    position = 0
    while position < len(text):
        space = _SPACE.match(text, position)
        if space:
            position = space.end()
            continue
        token = _token(text, position)
        tokens.append(token)
        position = token.end
    tokens.append(Token(kind=Kind.END, value=None, start=len(text), end=len(text)))
    return tuple(tokens)


def _token(text: str, start: int) -> Token:
    char = text[start]
    if char in "\"'`":
        return _quoted(text, start)
    number = _NUMBER.match(text, start)
    if number:
        return _number(text, number)
    if char == "." or char.isidentifier():
        return _name(text, start)
    return _operator(text, start)


def _continues(part: str) -> bool:
    """Return whether these characters, one at least, may stand inside a name."""
    return bool(part) and ("_" + part.replace(".", "_")).isidentifier() and not _JOINERS & {*part}


def _name(text: str, start: int) -> Token:
    end = start + 1
    while end < len(text) and _continues(text[end]):
        end += 1
    name = text[start:end]
    if name in _CONSTANTS:
        return Token(kind=Kind.CONSTANT, value=_CONSTANTS[name], start=start, end=end)
    if name in RESERVED:
        raise fail(f"'{name}' is a reserved word; a column of that name is written in backticks: `{name}`", text, start, end)
    return Token(kind=Kind.NAME, value=name, start=start, end=end)


def _number(text: str, match: re.Match[str]) -> Token:
    start, end = match.span()
    if end < len(text) and _continues(text[end]):
        raise fail("a name cannot begin with a digit; write such a column in backticks", text, start, end + 1)
    digits = match[0].removesuffix("L")
    value = float(digits)
    if value > _LARGEST:
        raise fail("this number is too large", text, start, end)
    whole = digits.isdecimal() and value < _EXACT
    return Token(kind=Kind.CONSTANT, value=int(value) if whole else value, start=start, end=end)


def _quoted(text: str, start: int) -> Token:
    match = _QUOTED.match(text, start)
    if match is None:
        raise fail(f"this {text[start]} is never closed", text, start, len(text))
    value = _unescaped(text, start + 1, match.end() - 1)
    if text[start] != "`":
        return Token(kind=Kind.CONSTANT, value=value, start=start, end=match.end())
    if not value or value == ".":
        raise fail("there is no column's name between these backticks", text, start, match.end())
    return Token(kind=Kind.BACKTICKED, value=value, start=start, end=match.end())


def _unescaped(text: str, start: int, end: int) -> str:
    for offset, char in enumerate(text[start:end]):
        if unicodedata.category(char) in ("Cc", "Cf", "Cs") and char not in _JOINERS:
            raise fail(f"the invisible character U+{ord(char):04X} is not allowed here", text, start + offset, start + offset + 1)

    def replacement(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            known = " ".join("\\" + char for char in _ESCAPES)
            raise fail(f"unknown escape '\\{match[1]}'; known: {known}", text, start + match.start(), start + match.end())
        return _ESCAPES[match[1]]

    return _ESCAPE.sub(replacement, text[start:end])


def _operator(text: str, start: int) -> Token:
    for symbol in _SYMBOLS:
        if text.startswith(symbol, start):
            if symbol in _FOREIGN:
                raise fail(f"'{symbol}' has no meaning in a formula: {_FOREIGN[symbol]}", text, start, start + len(symbol))
            return Token(kind=Kind.OPERATOR, value=_SPELLINGS.get(symbol, symbol), start=start, end=start + len(symbol))
    if text[start] == "%":
        raise fail("unknown operator; between percent signs R's formulas know %in% and %%", text, start, start + 1)
    name = unicodedata.name(text[start], "")
    shown = f"'{text[start]}'" if text[start].isprintable() else f"U+{ord(text[start]):04X}{' ' + name if name else ''}"
    raise fail(f"the character {shown} has no meaning in a formula", text, start, start + 1)
