"""Term algebra: the right side of a formula -> ordered terms, as R's `terms.formula`; sets of variables are bits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bayeslmm.formula.deparse import deparse
from bayeslmm.formula.nodes import Binary, Call, Literal, Name, Node, Paren, Term, Unary, names_in
from bayeslmm.formula.parser import STRUCTURE_TAGS
from bayeslmm.formula.tokens import fail

__all__ = ["MAX_TERMS", "Expansion", "Signed", "check_value", "expand_terms", "sum_items", "term_text"]

MAX_TERMS = 10_000
"""Most terms that a formula may expand to."""

_MAX_PRODUCTS = 1_000_000

type Signed = tuple[str, Node]
"""A summand with its sign, `+` or `-`."""

_PLACES = {
    "ar": "ar() stands only on the right side, as a term of its own: + ar(time, gr)",
    "gr": "gr() stands only right of a bar: (x | gr(g, cov = A))",
    "cbind": "cbind() stands only on the left side, as the whole response",
    "offset": "offset() stands only on the right side, as a term of its own",
    "se": "se() stands only after the bar of a response: y | se(s) ~ ...",
    "trials": "trials() stands only after the bar of a response: k | trials(n) ~ ...",
    "weights": "weights() stands only after the bar of a response: y | weights(w) ~ ...",
    **{tag: f"{tag}() marks a random term: {tag}(x | g)" for tag in STRUCTURE_TAGS},
}
_REFUSED = {
    ":": "':' inside a function is R's sequence, not an interaction; multiply with '*', or write the interaction outside",
    "~": "a formula has one '~', between the response and the terms",
    "|": "a bar cannot stand inside a function or an operation; a random term is a summand of its own: + (x | g)",
    "||": "a bar cannot stand inside a function or an operation; a random term is a summand of its own: + (x || g)",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """A sum of terms after expansion: R's `terms` object."""

    terms: tuple[Term, ...]
    intercept: bool
    offsets: tuple[Node, ...]


def sum_items(node: Node) -> list[Signed]:
    """Return the summands of a sum, in order, each with its sign; anything but a sum is one summand."""
    items: list[Signed] = []
    while isinstance(node, Binary) and node.operator in ("+", "-"):
        items.append((node.operator, node.right))
        node = node.left
    items.append(("+", node))
    return items[::-1]


def expand_terms(items: Sequence[Signed], text: str, *, response: Node | None = None, dot: Sequence[str] | None = None) -> Expansion:
    """Expand summands to R's ordered terms: by degree of interaction, then by first appearance, no term twice.

    Parameters
    ----------
    items
        Summands with signs, without bars.
    text
        The formula, for error messages.
    response
        The response: R's first variable, so that it leads any interaction with itself.
    dot
        The columns that `.` stands for; None keeps `.` as a placeholder.

    Raises
    ------
    FormulaError
        If a summand is no term, or the sum expands to more than `MAX_TERMS` terms.
    """
    expander = _Expander(text=text, dot=dot)
    if response is not None:
        expander.variable(response)
    bits = sorted(expander.sum(items), key=int.bit_count)
    variables = list(expander.variables.values())
    offsets = [is_offset(variable) for variable in variables]
    masked = sum(1 << index for index, offset in enumerate(offsets) if offset)
    terms = tuple(_term(term, variables) for term in bits if not term & masked)
    return Expansion(
        terms=terms,
        intercept=expander.intercept,
        offsets=tuple(variable for variable, offset in zip(variables, offsets, strict=True) if offset),
    )


def term_text(term: Term) -> str:
    """Return a term as it is written in a formula: its label, with operations as `a == b` in parentheses."""
    return ":".join(f"({deparse(part)})" if isinstance(part, Binary | Unary) else deparse(part) for part in term.variables)


def is_offset(node: Node) -> bool:
    """Return whether a node is a call of `offset`."""
    return isinstance(node, Call) and node.function == "offset"


def check_value(node: Node, text: str) -> None:
    """Refuse what has no value on data: interactions, bars, `.`, and functions that only have a meaning elsewhere."""
    match node:
        case Name(name="."):
            raise fail("'.' means all other columns and cannot stand inside a function or an operation", text, node.start, node.end)
        case Call(function=function, args=args, keywords=keywords):
            if function in _PLACES:
                raise fail(_PLACES[function], text, node.start, node.end)
            for child in (*args, *(value for _, value in keywords)):
                check_value(child, text)
        case Unary(operator=operator, operand=operand):
            if operator in _REFUSED:
                raise fail(_REFUSED[operator], text, node.start, node.end)
            check_value(operand, text)
        case Binary(operator=":", left=left, right=right) if _is_number(left) and _is_number(right):
            pass
        case Binary(operator=operator, left=left, right=right):
            if operator in _REFUSED:
                raise fail(_REFUSED[operator], text, left.start, right.end)
            check_value(left, text)
            check_value(right, text)
        case Paren(inner=inner):
            check_value(inner, text)
        case _:
            pass


def _is_number(node: Node) -> bool:
    if isinstance(node, Unary) and node.operator == "-":
        node = node.operand
    return isinstance(node, Literal) and isinstance(node.value, int | float) and not isinstance(node.value, bool)


def _term(bits: int, variables: Sequence[Node]) -> Term:
    chosen = tuple(variable for index, variable in enumerate(variables) if bits >> index & 1)
    return Term(variables=chosen, label=":".join(deparse(variable) for variable in chosen))


@dataclass(slots=True, kw_only=True)
class _Expander:
    """What R's `TermsForm` carries along: the variables so far, the intercept, and whether it is adding or removing."""

    text: str
    dot: Sequence[str] | None
    variables: dict[str, Node] = field(default_factory=dict)
    positions: dict[str, int] = field(default_factory=dict)
    intercept: bool = True
    adding: bool = True
    products: int = 0

    def variable(self, node: Node) -> list[int]:
        """Return the term of one variable, which is new or was met before."""
        label = deparse(node)
        if label not in self.positions:
            self.positions[label] = len(self.positions)
            self.variables[label] = node
        return [1 << self.positions[label]]

    def sum(self, items: Iterable[Signed]) -> list[int]:
        terms: dict[int, None] = {}
        for sign, node in items:
            if sign == "-":
                for term in self.removed(node):
                    terms.pop(term, None)
            else:
                terms.update(dict.fromkeys(self.terms(node)))
                self.limit(len(terms), node)
        return list(terms)

    def removed(self, node: Node) -> list[int]:
        self.adding = not self.adding
        terms = self.terms(node)
        self.adding = not self.adding
        return terms

    def terms(self, node: Node) -> list[int]:
        match node:
            case Paren(inner=inner):
                return self.terms(inner)
            case Name(name="."):
                return self.all_columns(node)
            case Literal():
                return self.constant(node)
            case Unary(operator="-", operand=operand):
                self.removed(operand)
                return []
            case Unary(operator="+", operand=operand):
                return self.terms(operand)
            case Binary(operator="+" | "-"):
                return self.sum(sum_items(node))
            case Binary(operator="^"):
                return self.power(node)
            case Binary(operator=operator, left=left, right=right) if operator in _PRODUCTS:
                return _PRODUCTS[operator](self, self.terms(left), self.terms(right), node)
            case Call(function="offset", args=args):
                for arg in args:
                    check_value(arg, self.text)
            case _:
                check_value(node, self.text)
                if not names_in(node):
                    raise fail(f"there is no column in {deparse(node)}", self.text, node.start, node.end)
        return self.variable(node)

    def all_columns(self, node: Name) -> list[int]:
        if self.dot is None:
            return self.variable(node)
        return [bit for column in self.dot for bit in self.variable(Name(name=column, start=node.start, end=node.end))]

    def constant(self, node: Literal) -> list[int]:
        if isinstance(node.value, bool) or node.value not in (0, 1):
            message = f"{deparse(node)} is no term; of the constants only 0 and 1 have a meaning, for the intercept"
            raise fail(message, self.text, node.start, node.end)
        self.intercept = (node.value == 1) == self.adding
        return []

    def power(self, node: Binary) -> list[int]:
        exponent = node.right
        degree = exponent.value if isinstance(exponent, Literal) and _is_number(exponent) else 0
        if not isinstance(degree, int | float) or degree < 2 or degree != int(degree):
            message = "outside of I() a power gives the degree of interactions, a whole number from 2; write I(x^2) for a column's square"
            raise fail(message, self.text, exponent.start, exponent.end)
        base = self.terms(node.left)
        terms = base
        for _ in range(int(degree) - 1):
            product = self.interactions(base, terms, node)
            if product == terms:
                break
            terms = product
        return terms

    def interactions(self, left: list[int], right: list[int], node: Node) -> list[int]:
        self.products += len(left) * len(right)
        self.limit(self.products, node, _MAX_PRODUCTS)
        terms = list(dict.fromkeys(a | b for a in left for b in right))
        self.limit(len(terms), node)
        return terms

    def crossed(self, left: list[int], right: list[int], node: Node) -> list[int]:
        if not left:  # as in R, where `1 * a` and `1 / a` come to nothing
            return []
        return list(dict.fromkeys([*left, *right, *self.interactions(left, right, node)]))

    def nested(self, left: list[int], right: list[int], node: Node) -> list[int]:
        if not left:
            return []
        return list(dict.fromkeys([*left, *self.interactions([_union(left)], right, node)]))

    def inside(self, left: list[int], right: list[int], node: Node) -> list[int]:
        return self.interactions(left, [_union(right)], node)

    def limit(self, count: int, node: Node, most: int = MAX_TERMS) -> None:
        if count > most:
            raise fail(f"this expands to too many terms: at most {MAX_TERMS} are allowed", self.text, node.start, node.end)


def _union(terms: Iterable[int]) -> int:
    union = 0
    for term in terms:
        union |= term
    return union


_PRODUCTS: dict[str, Callable[[_Expander, list[int], list[int], Node], list[int]]] = {
    ":": _Expander.interactions,
    "*": _Expander.crossed,
    "/": _Expander.nested,
    "%in%": _Expander.inside,
}
