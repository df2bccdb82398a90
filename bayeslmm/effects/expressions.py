"""Hypotheses as text, `"Days - 10 > 0"`: read by a parser of their own into syntax nodes, evaluated on arrays; no text is ever executed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import expit, log_ndtr, logit, ndtri

from bayeslmm.errors import suggest
from bayeslmm.formula.nodes import Binary, Call, Literal, Name, Node, Unary, names_in
from bayeslmm.formula.parser import MAX_DEPTH
from bayeslmm.formula.tokens import MAX_LENGTH, fail

__all__ = ["FUNCTIONS", "Affine", "Statement", "affine", "evaluate", "read"]

type Array = np.ndarray

FUNCTIONS: Mapping[str, Callable[[Any], Any]] = MappingProxyType(
    {
        "exp": np.exp,
        "expm1": np.expm1,
        "log": np.log,
        "log2": np.log2,
        "log10": np.log10,
        "log1p": np.log1p,
        "sqrt": np.sqrt,
        "abs": np.abs,
        "plogis": expit,
        "inv_logit": expit,
        "qlogis": logit,
        "logit": logit,
        "pnorm": lambda x: np.exp(log_ndtr(x)),
        "qnorm": ndtri,
    }
)
"""The functions that a hypothesis may call, by R's names and brms's `logit`, `inv_logit`."""

_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = MappingProxyType(
    {"+": np.add, "-": np.subtract, "*": np.multiply, "/": np.divide, "^": np.power}
)
_LEVELS = (("+", "-"), ("*", "/"))
_NUMBER = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_BACKTICKED = re.compile(r"`([^`]+)`")
_WORD = re.compile(r"[^\s+\-*/^=<>(),`]+")
_COMPARISON = re.compile(r"<=|>=|==|=|<|>")
_SIGNS: Mapping[str, str] = MappingProxyType({"=": "=", "==": "=", "<": "<", "<=": "<", ">": ">", ">=": ">"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A hypothesis `left sign right`, as one expression `node` compared with zero: `sign` is `=`, `<` or `>`.

    `text`: as it was given; `label`: as brms prints it, `(Days) - (10) > 0`; `names`: of its parameters, in order.
    """

    text: str
    label: str
    node: Node
    sign: str
    names: tuple[str, ...]


def read(text: str, names: Mapping[str, str], what: str = "parameter", listed: Sequence[str] = ()) -> Statement:
    """Return a hypothesis that has been read.

    At each place where a parameter can stand the longest name that fits is taken, so that names may hold any characters:
    `Days:sexf`, `I(Days^2)`, `r_Subject[308,Days]`; where this goes wrong (`a-b` beside `a` and `b`) backticks or blanks decide.

    Parameters
    ----------
    text
        `left = right`, `left < right` or `left > right`, of numbers, parameters, `+ - * / ^`, parentheses and `FUNCTIONS`.
    names
        Names as they may be written -> the parameter's own.
    what
        What the names are of, for messages.
    listed
        The names that a message lists; default: all.

    Raises
    ------
    FormulaError
        If it cannot be read, with a caret; a name that is not known comes with the closest that is.

    Examples
    --------
    >>> read("2 * Days > exp(1)", {"Days": "b_Days"}).label
    '(2 * Days) - (exp(1)) > 0'
    """
    if not isinstance(text, str):
        raise fail(f"a hypothesis is a text as 'Days > 10', not {type(text).__name__}", str(text))
    if len(text) > MAX_LENGTH:
        raise fail(f"a hypothesis of {len(text)} characters is too long: at most {MAX_LENGTH} are read", text[:60] + "...")
    reader = _Reader(text, names, what, listed or list(names))
    left = reader.sums()
    compared = reader.match(_COMPARISON)
    if compared is None:
        place, message = reader.unexpected()
        raise fail(message or "a hypothesis compares two sides: write '= 0', '< 0' or '> 0' behind it", text, place, len(text))
    begin = reader.position
    right = reader.sums()
    reader.finish()
    node = Binary(operator="-", left=left, right=right, start=0, end=len(text))
    used = names_in(node)
    if not used:
        raise fail(f"there is no {what} in this hypothesis{suggest('', listed or list(names))}", text)
    first, second = text[: compared.start()].strip(), text[begin:].strip()
    shown = f"({first})" if second == "0" else f"({first}) - ({second})"
    sign = _SIGNS[compared[0]]
    return Statement(text=text.strip(), label=f"{shown} {sign} 0", node=node, sign=sign, names=used)


class _Reader:
    """The position in the text, and one method for each kind of phrase."""

    def __init__(self, text: str, names: Mapping[str, str], what: str, listed: Sequence[str]) -> None:
        self.text, self.names, self.what, self.listed = text, names, what, listed
        self.sorted = sorted(names, key=len, reverse=True)
        self.position = self.depth = 0

    def skip(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1

    def match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        self.skip()
        found = pattern.match(self.text, self.position)
        if found is not None:
            self.position = found.end()
        return found

    def symbol(self, *symbols: str) -> str:
        """Take one of these symbols where it stands next, else take nothing."""
        self.skip()
        for one in symbols:
            if self.text.startswith(one, self.position):
                self.position += len(one)
                return one
        return ""

    def sums(self, level: int = 0) -> Node:
        """Read operands between operators of a level of `_LEVELS` and all tighter ones."""
        if level == len(_LEVELS):
            return self.signed()
        left = self.sums(level + 1)
        while operator := self.symbol(*_LEVELS[level]):
            right = self.sums(level + 1)
            left = Binary(operator=operator, left=left, right=right, start=left.start, end=right.end)
        return left

    def signed(self) -> Node:
        """Read a power with its signs, which bind more loosely: -x^2 is -(x^2)."""
        self.skip()
        start = self.position
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise fail(f"nested too deeply: at most {MAX_DEPTH} levels are read", self.text, start, start + 1)
        sign = self.symbol("+", "-")
        if sign:
            operand = self.signed()
            node: Node = Unary(operator=sign, operand=operand, start=start, end=operand.end)
        else:
            node = self.operand()
            if self.symbol("**", "^"):
                power = self.signed()
                node = Binary(operator="^", left=node, right=power, start=node.start, end=power.end)
        self.depth -= 1
        return node

    def operand(self) -> Node:
        self.skip()
        start = self.position
        known = self.known()
        if known:
            self.position += len(known)
            return Name(name=self.names[known], start=start, end=self.position)
        if quoted := self.match(_BACKTICKED):
            if quoted[1] not in self.names:
                raise self.unknown(quoted[1], start, self.position)
            return Name(name=self.names[quoted[1]], start=start, end=self.position)
        if number := self.match(_NUMBER):
            return Literal(value=float(number[0]), start=start, end=self.position)
        if self.symbol("("):
            inner = self.sums()
            self.close(start)
            return inner
        return self.call(start)

    def known(self) -> str:
        """Return the longest known name that stands here, and ends here."""
        for name in self.sorted:
            after = self.position + len(name)
            if self.text.startswith(name, self.position) and not (_joins(name[-1]) and _joins(self.text[after : after + 1])):
                return name
        return ""

    def call(self, start: int) -> Node:
        word = self.match(_WORD)
        if word is None:
            raise fail(f"a {self.what}, a number or a function is missing here", self.text, start, start + 1)
        if not self.symbol("("):
            raise self.unknown(word[0], start, start + len(word[0]))
        if word[0] not in FUNCTIONS:
            alike = [name for name in self.names if name.startswith(f"{word[0]}(")]
            hint = f"; {self.what}s that begin so: {', '.join(alike)}" if alike else suggest(word[0], list(FUNCTIONS))
            raise fail(f"unknown function {word[0]}(){hint}", self.text, start, start + len(word[0]))
        inner = self.sums()
        self.close(start)
        return Call(function=word[0], args=(inner,), start=start, end=self.position)

    def close(self, opened: int) -> None:
        if self.symbol(")"):
            return
        if self.position >= len(self.text) or _COMPARISON.match(self.text, self.position):
            raise fail("this parenthesis is never closed: ')' is missing", self.text, opened, opened + 1)
        raise fail("expected ')' or an operator here", self.text, self.position, self.position + 1)

    def unknown(self, name: str, start: int, end: int) -> Exception:
        close = get_close_matches(name, list(self.names), n=1)
        return fail(f"unknown {self.what} '{name}'{suggest(name, close or self.listed)}", self.text, start, end)

    def unexpected(self) -> tuple[int, str]:
        """Return where the reading stopped, and what is wrong with what stands there; empty at the end of the text."""
        self.skip()
        if self.position >= len(self.text):
            return 0, ""
        if self.text[self.position] == ")":
            return self.position, "this parenthesis was never opened"
        if word := _WORD.match(self.text, self.position):
            return self.position, f"expected an operator before '{word[0]}'"
        return self.position, f"'{self.text[self.position]}' has no meaning here"

    def finish(self) -> None:
        place, message = self.unexpected()
        if not message:
            return
        if _COMPARISON.match(self.text, place):
            message = "comparisons cannot be chained, and this is the second; give two hypotheses"
        raise fail(message, self.text, place, place + 1)


def _joins(char: str) -> bool:
    """Whether a character can stand inside a word, so that a name does not end before it."""
    return bool(char) and (char.isalnum() or char in "_.:[")


# ------------------------------------------------------------------------------------------------------------------- evaluation


def evaluate(node: Node, values: Mapping[str, Any]) -> Any:
    """Return the value of an expression, given those of its parameters: numbers, or arrays of one shape."""
    match node:
        case Name(name=name):
            return values[name]
        case Literal(value=value):
            return value
        case Unary(operator=operator, operand=operand):
            inside = evaluate(operand, values)
            return -inside if operator == "-" else inside
        case Binary(operator=operator, left=left, right=right):
            with np.errstate(all="ignore"):
                return _OPERATORS[operator](evaluate(left, values), evaluate(right, values))
        case Call(function=function, args=args):
            with np.errstate(all="ignore"):
                return FUNCTIONS[function](evaluate(args[0], values))
    raise TypeError(f"{node!r} is no part of a hypothesis")


@dataclass(frozen=True, slots=True, kw_only=True)
class Affine:
    """An expression that is `constant` + sum of slope times parameter."""

    constant: float
    slopes: Mapping[str, float]


def affine(node: Node) -> Affine | None:
    """Return an expression as a constant and slopes, None where it is curved."""
    match node:
        case Name(name=name):
            return Affine(constant=0.0, slopes={name: 1.0})
        case Unary(operator=operator, operand=operand):
            return _combined((affine(operand),), (-1.0 if operator == "-" else 1.0,))
        case Binary(operator="+" | "-" as operator, left=left, right=right):
            return _combined((affine(left), affine(right)), (1.0, 1.0 if operator == "+" else -1.0))
        case Binary(operator="*", left=left, right=right) if not names_in(left):
            return _combined((affine(right),), (float(evaluate(left, {})),))
        case Binary(operator="*", left=left, right=right) if not names_in(right):
            return _combined((affine(left),), (float(evaluate(right, {})),))
        case Binary(operator="/", left=left, right=right) if not names_in(right):
            return _combined((affine(left),), (float(np.divide(1.0, evaluate(right, {}))),))
        case _ if not names_in(node):
            return Affine(constant=float(evaluate(node, {})), slopes={})
    return None


def _combined(parts: Sequence[Affine | None], weights: Sequence[float]) -> Affine | None:
    slopes: dict[str, float] = {}
    constant = 0.0
    for part, weight in zip(parts, weights, strict=True):
        if part is None:
            return None
        constant += weight * part.constant
        for name, slope in part.slopes.items():
            slopes[name] = slopes.get(name, 0.0) + weight * slope
    return Affine(constant=constant, slopes=slopes)
