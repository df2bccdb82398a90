"""Text -> `Formula`: response, fixed and random terms of each predictor; and `Formula` -> text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType

from bayeslmm.errors import FormulaError, suggest
from bayeslmm.formula.bars import children, expand_bar, split_bars
from bayeslmm.formula.deparse import deparse, quote_name
from bayeslmm.formula.nodes import Binary, Call, Formula, Literal, Name, Node, Paren, Predictor, Response, Unary, names_in
from bayeslmm.formula.parser import parse_expression
from bayeslmm.formula.series import split_series
from bayeslmm.formula.terms import check_value, expand_terms, sum_items, term_text
from bayeslmm.formula.tokens import Kind, fail, tokenize

__all__ = ["DIALECTS", "expand_dot", "expanded", "fixed_only", "format_formula", "formula", "parse", "with_dialect"]

DIALECTS = ("lme4", "brms")
"""Whose meaning of `||` and `/` a formula can have."""


def parse(text: str, *, parameters: Mapping[str, str] | None = None, dialect: str = "lme4") -> Formula:
    """Read a formula in R's grammar; no data is looked at.

    Parameters
    ----------
    text
        As `"Reaction ~ Days + (Days | Subject)"`; at most 10,000 characters.
    parameters
        One-sided formulas of further parameters of the family, as `{"sigma": "~ Days"}`.
    dialect
        `"lme4"` (default) or `"brms"`: whose meaning `||` and `/` in random terms have.

    Raises
    ------
    FormulaError
        If the text is no formula; the message shows it with a caret.

    Source: R's `terms.formula`; Bates et al. (2015), J. Stat. Softw. 67(1), section 2.

    Examples
    --------
    >>> from bayeslmm.formula import parse
    >>> parsed = parse("Reaction ~ Days + (Days | Subject)")
    >>> [term.label for term in parsed.mean.terms], parsed.mean.random[0].group_label
    (['Days'], 'Subject')
    """
    further = tuple((parameters or {}).items())
    if all(isinstance(part, str) for part in (text, dialect, *(part for pair in further for part in pair))):
        return _parsed(text, further, dialect)
    return _build(text, dict(further), dialect, None)


@lru_cache(maxsize=256)
def _parsed(text: str, parameters: tuple[tuple[str, str], ...], dialect: str) -> Formula:
    """Read a text once: a `Formula` never changes, and refits, bootstraps and loops over responses come with the same one."""
    return _build(text, dict(parameters), dialect, None)


def formula(text: str, /, **parameters: str) -> Formula:
    """Return a formula with one predictor for the mean and one for each further parameter that is named.

    Parameters
    ----------
    text
        Response and predictor of the mean: `"y ~ x + (1 | g)"`.
    **parameters
        One-sided formulas by parameter of the family: `sigma="~ x"`, `zi="~ 1"`.

    Raises
    ------
    FormulaError
        If a text is no formula; the message shows it with a caret.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> print(bl.formula("y ~ x + (1 | g)", sigma="~ x"))
    y ~ x + (1 | g), sigma ~ x
    """
    return parse(text, parameters=parameters)


def expand_dot(formula: Formula, columns: Sequence[str]) -> Formula:
    """Return the formula with `.` standing for all columns except those of the response, in R's order.

    As in lme4, grouping columns are not left out: `y ~ . + (1 | g)` has a fixed effect of `g` too.

    Raises
    ------
    FormulaError
        If a formula with `.` has no other column left.
    """
    if not formula.uses_dot:
        return formula
    response = () if formula.response is None else tuple(name for node in formula.response.nodes for name in names_in(node))
    others = tuple(column for column in columns if column not in response)
    if not others:
        raise FormulaError("'.' stands for no column: the data have none but the response", text=formula.text)
    return _build(formula.text, formula.sources, formula.dialect, others)


def with_dialect(formula: Formula, dialect: str) -> Formula:
    """Return the same text read in another dialect.

    Raises
    ------
    FormulaError
        If there is no such dialect.
    """
    return formula if formula.dialect == dialect else _build(formula.text, formula.sources, dialect, formula.dot)


def format_formula(formula: Formula) -> str:
    """Return the formula as R would print it, those of further parameters after commas."""
    texts = [deparse(parse_expression(formula.text))]
    for name, source in formula.sources.items():
        right = _sides(parse_expression(source), source)[1]
        texts.append(f"{quote_name(name)} ~ {deparse(right)}")
    return ", ".join(texts)


def fixed_only(predictor: Predictor) -> str:
    """Return the right side without random terms, expanded: `1 + a + b + a:b`."""
    start = ["1" if predictor.intercept else "0"]
    return " + ".join([*start, *(term_text(term) for term in predictor.terms), *(deparse(offset) for offset in predictor.offsets)])


def expanded(formula: Formula) -> tuple[str, ...]:
    """Return what the formula stands for, one line for each predictor: `y ~ 1 + a + b + a:b + (1 | g)`."""
    left = "" if formula.response is None else f"{formula.response.label} "
    lines = [f"{left}~ {_right(formula.mean)}"]
    return (*lines, *(f"{quote_name(name)} ~ {_right(predictor)}" for name, predictor in formula.parameters.items()))


def _right(predictor: Predictor) -> str:
    series = [] if predictor.series is None else [predictor.series.text]
    return " + ".join([fixed_only(predictor), *(term.text for term in predictor.random), *series])


def _build(text: str, sources: Mapping[str, str], dialect: str, dot: tuple[str, ...] | None) -> Formula:
    if dialect not in DIALECTS:
        raise FormulaError(f"unknown dialect '{dialect}'{suggest(str(dialect), DIALECTS)}")
    left, right = _sides(_tree(text), text)
    response = None if left is None else _response(left, text)
    subject = _subject(response, left)
    mean = _predictor(right, text, dialect, subject, dot)
    parameters = {name: _parameter(name, source, dialect, dot) for name, source in sources.items()}
    return Formula(
        text=text.strip(),
        response=response,
        mean=mean,
        parameters=MappingProxyType(parameters),
        uses_dot=dot is None and any(_has_dot(source) for source in (text, *sources.values())),
        sources=MappingProxyType(dict(sources)),
        dialect=dialect,
        dot=dot,
    )


def _tree(text: str) -> Node:
    if not isinstance(text, str):
        raise FormulaError(f"a formula is text, as 'y ~ x + (1 | g)', not {type(text).__name__}")
    return parse_expression(text)


def _sides(tree: Node, text: str) -> tuple[Node | None, Node]:
    match tree:
        case Binary(operator="~", left=left, right=right):
            sides: tuple[Node | None, Node] = left, right
        case Unary(operator="~", operand=operand):
            sides = None, operand
        case _:
            raise fail("a formula has a '~' between the response and the terms: y ~ x + (1 | g)", text)
    tildes = [token for token in tokenize(text) if token.kind is Kind.OPERATOR and token.value == "~"]
    if len(tildes) > 1:
        raise fail("a formula has one '~', and this is the second", text, tildes[1].start, tildes[1].end)
    return sides


def _parameter(name: str, source: str, dialect: str, dot: tuple[str, ...] | None) -> Predictor:
    left, right = _sides(_tree(source), source)
    if left is not None and not (isinstance(left, Name) and left.name == name):
        raise fail(f"the formula of {name} has no response; write '~ ...'", source, left.start, left.end)
    return _predictor(right, source, dialect, None, dot)


def _predictor(right: Node, text: str, dialect: str, response: Node | None, dot: tuple[str, ...] | None) -> Predictor:
    fixed, bars = split_bars(right, text)
    fixed, series = split_series(fixed, text)
    columns = _dot_order(right, dot) if dot is not None and bars else dot
    expansion = expand_terms(fixed, text, response=response, dot=columns)
    random = tuple(term for bar in bars for term in expand_bar(bar, text, dialect))
    return Predictor(terms=expansion.terms, intercept=expansion.intercept, offsets=expansion.offsets, random=random, series=series)


def _dot_order(right: Node, columns: Sequence[str]) -> list[str]:
    """Return the columns with those first that are written before the `.`: lme4 takes them from its model frame."""
    earlier: list[str] = []
    stack = [right]
    while stack and "." not in earlier:
        node = stack.pop()
        if isinstance(node, Name):
            earlier.append(node.name)
        stack += reversed(children(node))
    first = [name for name in dict.fromkeys(earlier) if name in columns]
    return [*first, *(column for column in columns if column not in first)]


def _has_dot(text: str) -> bool:
    return any(token.kind is Kind.NAME and token.value == "." for token in tokenize(text))


def _subject(response: Response | None, left: Node | None) -> Node | None:
    """Return what R counts as the response variable: the whole of `cbind(...)`, else the node left of any bar."""
    if response is None or left is None:
        return None
    return left if response.kind == "cbind" else response.nodes[0]


def _response(left: Node, text: str) -> Response:
    while isinstance(left, Paren):
        left = left.inner
    label = deparse(left)
    if isinstance(left, Binary) and left.operator == "|":
        return _with_additions(left, label, text)
    if isinstance(left, Call) and left.function == "cbind":
        return _cbind(left, label, text)
    _check_response(left, text)
    return Response(kind="plain", nodes=(left,), label=label)


def _cbind(left: Call, label: str, text: str) -> Response:
    if len(left.args) != 2 or left.keywords:
        raise fail("cbind() takes two columns, the successes and the failures", text, left.start, left.end)
    for node in left.args:
        check_value(node, text)
    return Response(kind="cbind", nodes=left.args, label=label)


_ADDITIONS = ("trials", "weights", "se")
"""What may stand after the bar of a response."""


def _with_additions(left: Binary, label: str, text: str) -> Response:
    """Read brms's `y | trials(n) + weights(w)` and `y | se(s)`."""
    _check_response(left.left, text)
    found: dict[str, Node] = {}
    for sign, item in sum_items(left.right):
        if not (sign == "+" and isinstance(item, Call) and item.function in _ADDITIONS and len(item.args) == 1):
            raise fail("after the bar of a response stand trials(n) and weights(w), joined by '+', or se(s)", text, item.start, item.end)
        if item.function in found:
            raise fail(f"{item.function}() is given twice", text, item.start, item.end)
        check_value(item.args[0], text)
        _check_options(item, text)
        found[item.function] = item.args[0]
    if "se" in found and len(found) > 1:
        raise fail("se() cannot be combined with weights() or trials()", text, left.right.start, left.right.end)
    trials = found.get("trials")
    nodes = (left.left,) if trials is None else (left.left, trials)
    return Response(
        kind="plain" if trials is None else "trials", nodes=nodes, label=label, weights=found.get("weights"), se=found.get("se")
    )


def _check_options(item: Call, text: str) -> None:
    """Refuse options of an addition, but for `se(s, sigma = FALSE)`, the default."""
    for keyword, value in item.keywords:
        if item.function != "se" or keyword != "sigma" or not (isinstance(value, Literal) and isinstance(value.value, bool)):
            raise fail(f"{item.function}() has no option '{keyword}' here", text, item.start, item.end)
        if value.value:
            raise fail(
                "a sigma beside known standard errors is the sd of a random effect of each row: write se(s) and add (1 | row), with a "
                "column that numbers the rows",
                text,
                item.start,
                item.end,
            )


def _check_response(node: Node, text: str) -> None:
    if not names_in(node) or isinstance(node, Literal):
        raise fail("no column is on the left side; write the response there: y ~ ...", text, node.start, node.end)
    check_value(node, text)
