"""Tokens -> syntax nodes, by R's table of operators; only allow-listed functions can be called."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bayeslmm.errors import FormulaError, suggest
from bayeslmm.formula.deparse import deparse, quote_name
from bayeslmm.formula.nodes import Binary, Call, Literal, Name, Node, Paren, Unary
from bayeslmm.formula.tokens import Kind, Token, fail, tokenize

if TYPE_CHECKING:
    from bayeslmm.formula.functions import Function

__all__ = ["GROUP_TAG", "MAX_DEPTH", "STRUCTURE_TAGS", "deparse", "parse_expression"]

MAX_DEPTH = 100
"""Deepest nesting of parentheses, calls and operators; sums of terms may be as long as they like."""

STRUCTURE_TAGS = ("us", "diag", "cs", "ar1")
"""Calls around a bar that name its covariance structure: `cs(x | g)`."""

GROUP_TAG = "gr"
"""brms's call around a grouping factor: `(x | gr(g, cov = A))`."""

_UNAVAILABLE = {
    "mm": "mm() is not available: multi-membership terms cannot be fitted",
    "s": "s() is not available: use bs(), ns() or poly() for a curve",
    "t2": "t2() is not available: use products of bs(), ns() or poly()",
    "te": "te() is not available: use products of bs(), ns() or poly()",
    "gp": "gp() is not available: use bs(), ns() or poly() for a curve",
    "mo": "mo() is not available: use an ordered factor",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Infix:
    """An operator between operands: the higher its level, the tighter it binds."""

    level: int
    right: bool = False
    chains: bool = True


_COMPARISON = _Infix(level=5, chains=False)
_INFIX: Mapping[str, _Infix] = {
    "~": _Infix(level=1, chains=False),
    "|": _Infix(level=2),
    "||": _Infix(level=2),
    "&": _Infix(level=3),
    "&&": _Infix(level=3),
    **dict.fromkeys(("==", "!=", "<", ">", "<=", ">="), _COMPARISON),
    "+": _Infix(level=6),
    "-": _Infix(level=6),
    "*": _Infix(level=7),
    "/": _Infix(level=7),
    "%in%": _Infix(level=8),
    "%%": _Infix(level=8),
    ":": _Infix(level=9),
    "^": _Infix(level=11, right=True),
}
_PREFIX: Mapping[str, int] = {"~": 1, "!": 4, "+": 10, "-": 10}
_SUMS = ("+", "-")
_TERM_OPERATORS = ("+", "-", "*", "/", ":", "^", "%in%", "|", "||")


def parse_expression(text: str) -> Node:
    """Return the syntax tree of a formula's text, with R's precedence; terms and bars are not yet expanded.

    Raises
    ------
    FormulaError
        If the text is no formula, calls an unknown function, or is nested deeper than `MAX_DEPTH`.

    Examples
    --------
    >>> from bayeslmm.formula import deparse, parse_expression
    >>> deparse(parse_expression("y~poly(x,2,raw=TRUE)*g"))
    'y ~ poly(x, 2, raw = TRUE) * g'
    """
    parser = _Parser(text, tokenize(text))
    if parser.token.kind is Kind.END:
        raise FormulaError("the formula is empty; write one as `y ~ x + (1 | g)`")
    node = parser.expression(0)
    parser.finish()
    _check_depth(node, text)
    return node


class _Parser:
    """The position in the tokens, and one method for each kind of phrase."""

    def __init__(self, text: str, tokens: tuple[Token, ...]) -> None:
        self.text, self.tokens = text, tokens
        self.position = self.depth = self.calls = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def advance(self) -> Token:
        token = self.token
        self.position += 1
        return token

    def fail(self, message: str, token: Token) -> FormulaError:
        return fail(message, self.text, token.start, max(token.end, token.start + 1))

    def found(self) -> str:
        token = self.token
        return "the formula ends" if token.kind is Kind.END else f"'{self.text[token.start : token.end]}' stands here"

    def expect(self, symbol: str, opened: Token) -> Token:
        if self.token.symbol == symbol:
            return self.advance()
        if self.token.kind is Kind.END:
            raise self.fail(f"this parenthesis is never closed: '{symbol}' is missing", opened)
        raise self.fail(f"expected '{symbol}' or an operator, but {self.found()}", self.token)

    def finish(self) -> None:
        if self.token.kind is Kind.END:
            return
        if self.token.symbol == ")":
            raise self.fail("this parenthesis was never opened", self.token)
        if self.token.symbol == "=":
            raise self.fail("'=' names an argument inside a call; a comparison is written '=='", self.token)
        raise self.fail(f"expected an operator, but {self.found()}", self.token)

    def expression(self, level: int) -> Node:
        """Read operands and operators as long as the operators bind at least as tightly as `level`."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise self.fail(f"nested too deeply: at most {MAX_DEPTH} levels are read", self.token)
        left = self.operand()
        while (infix := _INFIX.get(self.token.symbol)) is not None and infix.level >= level:
            operator = self.advance()
            right = self.expression(infix.level if infix.right else infix.level + 1)
            left = Binary(operator=operator.symbol, left=left, right=right, start=left.start, end=right.end)
            following = _INFIX.get(self.token.symbol)
            if not infix.chains and following is not None and following.level == infix.level:
                reason = "a formula has one '~'" if infix.level == 1 else "comparisons cannot be chained"
                raise self.fail(f"{reason}, and this is the second", self.token)
        self.depth -= 1
        return left

    def operand(self) -> Node:
        token = self.advance()
        if token.kind is Kind.CONSTANT:
            return Literal(value=token.value, start=token.start, end=token.end)
        if token.kind is Kind.NAME and self.token.symbol == "(":
            return self.call(token)
        if token.kind in (Kind.NAME, Kind.BACKTICKED):
            return self.name(token)
        if token.symbol == "(":
            inner = self.expression(0)
            closed = self.expect(")", token)
            return self.uncalled(Paren(inner=inner, start=token.start, end=closed.end))
        if token.symbol in _PREFIX:
            operand = self.expression(_PREFIX[token.symbol])
            return Unary(operator=token.symbol, operand=operand, start=token.start, end=operand.end)
        self.position -= 1
        raise self.missing(token)

    def missing(self, token: Token) -> FormulaError:
        before = self.tokens[self.position - 1].symbol if self.position else ""
        if token.symbol in ("|", "||"):
            return self.fail("nothing stands left of the bar; a random intercept is written (1 | g)", token)
        if before in ("|", "||"):
            return self.fail("nothing stands right of the bar; write the grouping column there, as in (1 | g)", token)
        if before == "~":
            return self.fail("nothing stands right of the '~'; a model with a mean only is written `y ~ 1`", token)
        place = f" after '{before}'" if before else ""
        return self.fail(f"expected a column, a number or a function{place}, but {self.found()}", token)

    def name(self, token: Token) -> Node:
        """Return a column, or R's constant `pi` where it is an argument, as in `sin(2 * pi * x)`; a term `pi` is a column."""
        if token.value == "pi" and token.kind is Kind.NAME and self.calls:
            return self.uncalled(Literal(value=math.pi, text="pi", start=token.start, end=token.end))
        return self.uncalled(Name(name=str(token.value), start=token.start, end=token.end))

    def uncalled[N: (Name, Paren, Call, Literal)](self, node: N) -> N:
        if self.token.symbol == "(":
            raise fail("only a function's plain name can be called", self.text, node.start, self.token.end)
        return node

    def call(self, name: Token) -> Node:
        function = str(name.value)
        opened = self.advance()
        args: list[Node] = []
        keywords: dict[str, Node] = {}
        _check_function(function, self.text, name)
        self.calls += 1
        while self.token.symbol != ")" or args or keywords:
            self.argument(args, keywords)
            if self.token.symbol != ",":
                break
            self.advance()
        closed = self.expect(")", opened)
        self.calls -= 1
        node = Call(function=function, args=tuple(args), keywords=tuple(keywords.items()), start=name.start, end=closed.end)
        _check_arguments(node, self.text)
        return self.uncalled(node)

    def truth(self, value: Node) -> Node:
        """Read R's `T` and `F` as TRUE and FALSE where only a constant can stand: as a named argument."""
        match value:
            case Name(name="T" | "F" as name, start=start, end=end) if self.text[start] != "`":
                return Literal(value=name == "T", text=name, start=start, end=end)
        return value

    def argument(self, args: list[Node], keywords: dict[str, Node]) -> None:
        token = self.token
        named = token.kind in (Kind.NAME, Kind.BACKTICKED) and self.tokens[self.position + 1].symbol == "="
        if not named:
            if keywords:
                raise self.fail("arguments without a name stand before those with one", token)
            args.append(self.expression(0))
            return
        if token.value in keywords:
            raise self.fail(f"the argument {token.value} is given twice", token)
        self.position += 2
        keywords[str(token.value)] = self.truth(self.expression(0))


def _functions() -> Mapping[str, Function]:
    from bayeslmm.formula.functions import FUNCTIONS

    return FUNCTIONS


def _check_function(name: str, text: str, token: Token) -> None:
    known = _functions()
    if name in known or name in STRUCTURE_TAGS or name == GROUP_TAG:
        return
    message = _UNAVAILABLE.get(name) or f"unknown function {quote_name(name)}(){suggest(name, [*known, *STRUCTURE_TAGS])}"
    raise fail(message, text, token.start, token.end)


def _check_arguments(node: Call, text: str) -> None:
    known = _functions()
    if node.function not in known or (node.args and _is_bar(node.args[0])):
        return
    function = known[node.function]
    given = len(node.args)
    unknown = [(name, value) for name, value in node.keywords if not {name, name.replace(".", "_")} & {*function.keywords}]
    for name, value in unknown[0 if node.args else 1 :]:  # without positional arguments, the first one may be given by any name
        raise fail(f"{node.function}() has no argument {name}{suggest(name, function.keywords)}", text, value.start, value.end)
    if given > function.max_args or given + len(node.keywords) < function.min_args:
        low, high = function.min_args, function.max_args
        wanted = str(low) if low == high else f"{low} to {high}"
        raise fail(f"{node.function}() takes {wanted} argument{'s' * (wanted != '1')}, not {given}", text, node.start, node.end)


def _is_bar(node: Node) -> bool:
    return isinstance(node, Binary) and node.operator in ("|", "||")


def _check_depth(root: Node, text: str) -> None:
    """Refuse what later recursion could not walk; sums of terms are walked without recursion, and may be long."""
    stack: list[tuple[Node, int, bool]] = [(root, 0, True)]
    while stack:
        node, depth, terms = stack.pop()
        if depth > MAX_DEPTH:
            raise fail(f"nested too deeply: at most {MAX_DEPTH} levels are read", text, node.start, node.end)
        match node:
            case Binary(operator="~", left=left, right=right):
                stack += [(left, depth + 1, False), (right, depth + 1, True)]
            case Binary(operator=operator, left=left, right=right):
                inside = terms and operator in _TERM_OPERATORS
                along = inside and operator in _SUMS
                stack += [(left, depth if along else depth + 1, inside), (right, depth + 1, inside)]
            case Unary(operator=operator, operand=operand):
                stack.append((operand, depth + 1, terms and operator != "!"))
            case Paren(inner=inner):
                stack.append((inner, depth + 1, terms))
            case Call(args=args, keywords=keywords):
                stack += [(child, depth + 1, False) for child in (*args, *(value for _, value in keywords))]
            case _:
                pass
