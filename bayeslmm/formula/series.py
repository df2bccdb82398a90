"""Residual terms: `ar(time = t, gr = g)` taken out of the right side of a formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bayeslmm.errors import suggest
from bayeslmm.formula.deparse import deparse
from bayeslmm.formula.nodes import Binary, Call, Literal, Node, Paren, SeriesTerm
from bayeslmm.formula.terms import Signed, check_value
from bayeslmm.formula.tokens import fail

__all__ = ["SERIES_TERMS", "split_series"]

SERIES_TERMS = ("ar",)
"""Calls that stand for a correlation of residuals; arguments in brms's order."""

_ARGUMENTS = ("time", "gr", "p", "cov")


def split_series(items: Sequence[Signed], text: str) -> tuple[list[Signed], SeriesTerm | None]:
    """Return the summands that are none, and the residual term that is among them, if any.

    Raises
    ------
    FormulaError
        If there are two, one is subtracted, or its arguments have no meaning here.
    """
    kept: list[Signed] = []
    found: SeriesTerm | None = None
    for sign, item in items:
        call = _bare(item)
        if not (isinstance(call, Call) and call.function in SERIES_TERMS):
            kept.append((sign, item))
            continue
        if sign == "-":
            raise fail(f"{call.function}() cannot be removed; leave it out instead", text, call.start, call.end)
        if found is not None:
            raise fail("a model has one correlation structure of its residuals, and this is the second", text, call.start, call.end)
        found = _term(call, text)
    return kept, found


def _bare(node: Node) -> Node:
    while isinstance(node, Paren):
        node = node.inner
    return node


def _term(call: Call, text: str) -> SeriesTerm:
    given = _given(call, text)
    _check_options(call, given, text)
    time = given.get("time")
    if time is not None:
        check_value(time, text)
    group = _parts(given["gr"], text) if "gr" in given else ()
    return SeriesTerm(name=call.function, time=time, group=group, text=deparse(call), start=call.start, end=call.end)


def _given(call: Call, text: str) -> Mapping[str, Node]:
    """Return the arguments by name; positional ones in brms's order."""
    given = dict(zip(_ARGUMENTS, call.args, strict=False))
    for name, value in call.keywords:
        if name not in _ARGUMENTS:
            raise fail(f"{call.function}() has no argument {name}{suggest(name, _ARGUMENTS)}", text, value.start, value.end)
        if name in given:
            raise fail(f"the argument {name} is given twice", text, value.start, value.end)
        given[name] = value
    return given


def _check_options(call: Call, given: Mapping[str, Node], text: str) -> None:
    order = given.get("p")
    if order is not None and not (isinstance(order, Literal) and order.value == 1 and not isinstance(order.value, bool)):
        message = f"{call.function}() of order p = 1 only can be fitted: one correlation of neighbours in time"
        raise fail(message, text, order.start, order.end)
    cov = given.get("cov")
    if cov is not None and not (isinstance(cov, Literal) and cov.value is True):
        message = (
            f"{call.function}() is the stationary covariance of the residuals here, which is brms's cov = TRUE; "
            "brms's cov = FALSE, a regression on the residual before, cannot be fitted"
        )
        raise fail(message, text, cov.start, cov.end)


def _parts(node: Node, text: str) -> tuple[Node, ...]:
    """Return the variables of a grouping `a`, `a:b` or `factor(a)`."""
    node = _bare(node)
    if isinstance(node, Binary) and node.operator == ":":
        return (*_parts(node.left, text), *_parts(node.right, text))
    check_value(node, text)
    return (node,)
