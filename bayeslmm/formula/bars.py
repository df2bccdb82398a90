"""Random terms: bars found in the right side of a formula, and `/`, `*`, `||` and structure tags expanded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from bayeslmm.formula.deparse import deparse, quote_name
from bayeslmm.formula.nodes import Binary, Call, Literal, Name, Node, Paren, RandomTerm, Term, Unary
from bayeslmm.formula.parser import GROUP_TAG, STRUCTURE_TAGS
from bayeslmm.formula.terms import Expansion, Signed, check_value, expand_terms, sum_items, term_text
from bayeslmm.formula.tokens import fail

__all__ = ["Bar", "children", "expand_bar", "split_bars"]

_BARS = ("|", "||")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar as written: `(effects | group)`, or `tag(effects | group, options)`."""

    effects: Node
    group: Node
    double: bool
    structure: str
    options: tuple[tuple[str, object], ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """A grouping factor: its variables in order, its label, and the matrix of the covariance among its levels, if it names one."""

    variables: tuple[Node, ...]
    label: str
    cov: str = ""

    @property
    def text(self) -> str:
        return f"{GROUP_TAG}({self.label}, cov = {quote_name(self.cov)})" if self.cov else self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effects:
    """What varies by group: the text left of the bar, the terms, the intercept."""

    text: str
    terms: tuple[Term, ...]
    intercept: bool


def split_bars(right: Node, text: str) -> tuple[list[Signed], list[Bar]]:
    """Return the summands without a bar, with their signs, and the bars, both in order.

    Raises
    ------
    FormulaError
        If a bar stands anywhere but in parentheses, as a summand of its own.
    """
    if _is_bar(right):
        raise fail(f"put the random term into parentheses: ({deparse(right)})", text, right.start, right.end)
    fixed: list[Signed] = []
    bars: list[Bar] = []
    for sign, item in sum_items(right):
        first = _first_bar(item)
        if first is None:
            fixed.append((sign, item))
        elif sign == "-":
            raise fail("a random term cannot be removed; leave it out instead", text, item.start, item.end)
        elif (bar := _as_bar(item, text)) is not None:
            bars.append(bar)
        elif isinstance(item, Paren) or (isinstance(item, Unary) and item.operator == "+"):
            inner_fixed, inner_bars = split_bars(item.inner if isinstance(item, Paren) else item.operand, text)
            fixed += inner_fixed
            bars += inner_bars
        else:
            message = "a random term stands only as a summand of its own, in parentheses: ... + (x | g)"
            raise fail(message, text, first.start, first.end)
    return fixed, bars


def expand_bar(bar: Bar, text: str, dialect: str) -> tuple[RandomTerm, ...]:
    """Return the random terms that a bar stands for, one for each covariance matrix, in the dialect's order.

    lme4 reads `(x || g)` as `(1 | g) + (0 + x | g)` and `(x | a/b)` as `(x | b:a) + (x | a)`; brms reads the first as one
    term with structure `diag`, the second as `(x | a) + (x | a:b)`.

    Raises
    ------
    FormulaError
        If a side of the bar has no meaning there.
    """
    _refuse_inner_bars(bar, text)
    expansion = expand_terms(sum_items(bar.effects), text)
    _check_effects(expansion, bar, text)
    brms = dialect == "brms"
    groups = _groups(bar.group, text, outer_first=brms)
    structure = "diag" if bar.double and brms else bar.structure
    separate = bar.double and not brms
    written = _Effects(text=deparse(bar.effects), terms=expansion.terms, intercept=expansion.intercept)
    return tuple(
        _random_term(effects, group, structure, bar) for effects in (_separate(expansion) if separate else [written]) for group in groups
    )


def _is_bar(node: Node) -> bool:
    return isinstance(node, Binary) and node.operator in _BARS


def children(node: Node) -> Sequence[Node]:
    """Return the nodes that a node is made of, from left to right."""
    match node:
        case Call(args=args, keywords=keywords):
            return (*args, *(value for _, value in keywords))
        case Unary(operand=operand):
            return (operand,)
        case Binary(left=left, right=right):
            return (left, right)
        case Paren(inner=inner):
            return (inner,)
        case _:
            return ()


def _first_bar(node: Node) -> Node | None:
    """Return the leftmost bar in a node, without recursion, since a sum may be as long as the formula."""
    stack = [node]
    while stack:
        part = stack.pop()
        if _is_bar(part):
            return part
        stack += reversed(children(part))
    return None


def _as_bar(item: Node, text: str) -> Bar | None:
    """Return the bar that a summand is, whatever its number of parentheses; None if it is none."""
    node = item
    while isinstance(node, Paren):
        node = node.inner
    if isinstance(node, Binary) and node.operator in _BARS:
        return _bar(node, item, "us", ())
    if isinstance(node, Call) and node.function in STRUCTURE_TAGS and node.args:
        inner = node.args[0]
        while isinstance(inner, Paren):
            inner = inner.inner
        if isinstance(inner, Binary) and inner.operator in _BARS:
            if inner.operator == "||":
                raise fail(f"{node.function}() says how the effects covary; write a single bar inside it", text, inner.start, inner.end)
            return _bar(inner, item, node.function, _options(node, text))
    return None


def _bar(node: Binary, item: Node, structure: str, options: tuple[tuple[str, object], ...]) -> Bar:
    return Bar(
        effects=node.left,
        group=node.right,
        double=node.operator == "||",
        structure=structure,
        options=options,
        start=item.start,
        end=item.end,
    )


def _options(call: Call, text: str) -> tuple[tuple[str, object], ...]:
    if len(call.args) > 1:
        raise fail(f"options of {call.function}() are given by name, as hom = TRUE", text, call.args[1].start, call.args[1].end)
    for name, value in call.keywords:
        if not isinstance(value, Literal):
            raise fail(f"the option {name} of {call.function}() must be TRUE, FALSE, a number or a string", text, value.start, value.end)
    return tuple((name, value.value) for name, value in call.keywords if isinstance(value, Literal))


def _refuse_inner_bars(bar: Bar, text: str) -> None:
    inner = _first_bar(bar.effects) or _first_bar(bar.group)
    if inner is not None:
        raise fail("a random term has one bar; write several terms as (x | g) + (z | h)", text, inner.start, inner.end)


def _check_effects(expansion: Expansion, bar: Bar, text: str) -> None:
    if expansion.offsets:
        raise fail("an offset cannot vary by group; write it outside of the bar", text, bar.effects.start, bar.effects.end)
    if any(isinstance(variable, Name) and variable.name == "." for term in expansion.terms for variable in term.variables):
        raise fail("'.' cannot stand in a random term; name the columns", text, bar.effects.start, bar.effects.end)
    if not expansion.terms and not expansion.intercept:
        message = "no effect is left of the bar; a random intercept is written (1 | g)"
        raise fail(message, text, bar.effects.start, bar.effects.end)


def _separate(expansion: Expansion) -> list[_Effects]:
    """Return lme4's reading of `||`: the intercept and each term by itself; a factor keeps its columns together."""
    alone = [_Effects(text="1", terms=(), intercept=True)] if expansion.intercept else []
    return alone + [_Effects(text=f"0 + {term_text(term)}", terms=(term,), intercept=False) for term in expansion.terms]


def _random_term(effects: _Effects, group: _Group, structure: str, bar: Bar) -> RandomTerm:
    options = "".join(f", {name} = {deparse(Literal(value=value))}" for name, value in bar.options)  # type: ignore[arg-type]
    tag = "" if structure == "us" and bar.structure == "us" and not options else structure
    return RandomTerm(
        effects=effects.terms,
        intercept=effects.intercept,
        group=group.variables,
        group_label=group.label,
        structure=structure,
        options=bar.options,
        cov=group.cov,
        text=f"{tag}({effects.text} | {group.text}{options})",
        start=bar.start,
        end=bar.end,
    )


def _groups(node: Node, text: str, *, outer_first: bool) -> list[_Group]:
    """Return the grouping factors right of a bar: one, or one for each level of nesting or crossing."""
    node = _bare(node)
    if isinstance(node, Call) and node.function == GROUP_TAG:
        return _tagged(node, text, outer_first=outer_first)
    if isinstance(node, Binary) and node.operator == "*":
        expansion = expand_terms([("+", node)], text)
        return [_factor([part for variable in term.variables for part in _parts(variable, text)]) for term in expansion.terms]
    levels = [_factor(_parts(level, text)) for level in _nesting(node)]
    if outer_first:
        return list(accumulate(levels, lambda outer, inner: _factor([*outer.variables, *inner.variables])))
    return list(accumulate(levels, _within))[::-1]


def _tagged(call: Call, text: str, *, outer_first: bool) -> list[_Group]:
    """Return the grouping factors of brms's `gr(g)`, which is `g`, or the one of `gr(g, cov = A)`."""
    inner = [_bare(node) for node in call.args]
    if len(inner) != 1 or (isinstance(inner[0], Call) and inner[0].function == GROUP_TAG):
        raise fail("gr() takes one grouping factor, as in (1 | gr(g, cov = A))", text, call.start, call.end)
    for name, value in call.keywords:
        if name != "cov":
            message = f"gr() has no argument {name} here: it takes cov = A, a matrix of data2; {_INSTEAD.get(name, 'leave it out')}"
            raise fail(message, text, value.start, value.end)
        if not isinstance(value, Name):
            raise fail("cov is the name of a matrix in data2: gr(g, cov = A) with data2={'A': A}", text, value.start, value.end)
    groups = _groups(inner[0], text, outer_first=outer_first)
    cov = "".join(value.name for _, value in call.keywords if isinstance(value, Name))
    if cov and len(groups) != 1:
        raise fail("a known covariance is of the levels of one factor: gr(g, cov = A)", text, inner[0].start, inner[0].end)
    return [replace(group, cov=cov) for group in groups]


_INSTEAD = {
    "by": "a covariance by subgroup is not available: write a term for each, as (0 + dummy | g)",
    "dist": "random effects are normal",
    "id": "terms cannot share correlations across formulas",
    "cor": "write (x || g) for uncorrelated effects",
}
"""What to do in place of brms's other arguments of `gr()`."""


def _bare(node: Node) -> Node:
    while isinstance(node, Paren):
        node = node.inner
    return node


def _nesting(node: Node) -> list[Node]:
    """Return the levels of `a/b/c`, outermost first."""
    levels: list[Node] = []
    node = _bare(node)
    while isinstance(node, Binary) and node.operator == "/":
        levels.append(node.right)
        node = _bare(node.left)
    return [node, *reversed(levels)]


def _parts(node: Node, text: str) -> list[Node]:
    """Return the variables of `a:b:c`, each a column or a factor made of one."""
    node = _bare(node)
    if isinstance(node, Binary) and node.operator == ":":
        return [*_parts(node.left, text), *_parts(node.right, text)]
    if isinstance(node, Name) and node.name != ".":
        return [node]
    if isinstance(node, Call) and _makes_factor(node):
        check_value(node, text)
        return [node]
    message = "right of a bar stands a grouping column g, an interaction a:b, a nesting a/b, or a crossing a*b"
    if isinstance(node, Binary) and node.operator == "+":
        message += f"; for two groups write (... | {deparse(node.left)}) + (... | {deparse(node.right)})"
    raise fail(message, text, node.start, node.end)


def _makes_factor(node: Call) -> bool:
    from bayeslmm.formula.functions import FUNCTIONS

    return node.function in FUNCTIONS and FUNCTIONS[node.function].kind == "factor"


def _factor(variables: Sequence[Node]) -> _Group:
    return _Group(variables=tuple(variables), label=":".join(deparse(variable) for variable in variables))


def _within(outer: _Group, inner: _Group) -> _Group:
    """Return lme4's factor for one more level of nesting: `c:(b:a)`."""
    label = f"({outer.label})" if len(outer.variables) > 1 else outer.label
    return _Group(variables=(*inner.variables, *outer.variables), label=f"{inner.label}:{label}")
