"""Syntax trees: R's precedence and R's way of printing (golden.json), and errors that point at the place."""

from __future__ import annotations

from typing import Any

import pytest

from bayeslmm.errors import FormulaError
from bayeslmm.formula import deparse, parse_expression
from bayeslmm.formula.nodes import Binary, Call, Literal, Name, Node, Unary, names_in
from bayeslmm.formula.parser import MAX_DEPTH
from tests.unit.formula.golden import golden


@pytest.mark.parametrize("case", golden()["trees"], ids=lambda case: case["text"])
def test_precedence_is_that_of_r(case: dict[str, Any]) -> None:
    node = parse_expression(case["text"])
    parts: tuple[Node, ...]
    match node:
        case Unary(operator=operator, operand=operand):
            parts = (operand,)
        case Binary(operator=operator, left=left, right=right):
            parts = (left, right)
        case _:
            pytest.fail(f"{node} is no operation")
    assert [operator, *map(deparse, parts)] == case["parts"]


@pytest.mark.parametrize("case", golden()["printed"], ids=lambda case: case["text"])
def test_printed_as_r_prints_labels(case: dict[str, Any]) -> None:
    assert deparse(parse_expression(case["text"])) == case["label"]


@pytest.mark.parametrize("case", golden()["printed"], ids=lambda case: case["text"])
def test_what_r_prints_reads_back(case: dict[str, Any]) -> None:
    assert deparse(parse_expression(case["label"])) == case["label"]


def test_call() -> None:
    node = parse_expression("poly(x, 2, raw = TRUE)")
    assert node == Call(function="poly", args=(Name(name="x"), Literal(value=2)), keywords=(("raw", Literal(value=True)),))


def test_spans_are_those_of_the_text() -> None:
    text = "y ~ a + log(x + 1):b"
    node = parse_expression(text)
    assert isinstance(node, Binary)
    assert isinstance(node.right, Binary)
    assert text[node.right.right.start : node.right.right.end] == "log(x + 1):b"


def test_a_function_may_share_its_name_with_a_column() -> None:
    assert parse_expression("log(log)") == Call(function="log", args=(Name(name="log"),))


@pytest.mark.parametrize(
    ("text", "says", "at"),
    [
        ("", "empty", None),
        ("  # nothing", "empty", None),
        ("y ~", "nothing stands right of the '~'", None),
        ("y ~ a +", "after '+'", None),
        ("y ~ a b", "expected an operator", "b"),
        ("y ~ (a + b", "never closed", "("),
        ("y ~ a)", "never opened", ")"),
        ("y ~ a + * b", "after '+'", "*"),
        ("y ~ log(x", "never closed", "("),
        ("y ~ log(x,)", "expected a column", ")"),
        ("y ~ log()", "takes 1 to 2 arguments", "log()"),
        ("y ~ log(x, 1, 2)", "takes 1 to 2 arguments", "log(x, 1, 2)"),
        ("y ~ log(x, bass = 2)", "did you mean 'base'", "2"),
        ("y ~ log(x, base = 2, base = 3)", "given twice", "base"),
        ("y ~ poly(degree = 2, x)", "stand before", "x"),
        ("y ~ lgo(x)", "did you mean 'log'", "lgo"),
        ("y ~ s(x)", "bs(), ns() or poly()", "s"),
        ("y ~ log(x)(y)", "can be called", "log(x)("),
        ("y ~ (f)(x)", "can be called", "(f)("),
        ("y ~ `log`(x)", "can be called", "`log`("),
        ("y ~ a = b", "written '=='", "="),
        ("y ~ a < b < c", "cannot be chained", "<"),
        ("y ~ a ~ b", "one '~'", "~"),
        ("y ~ ( | g)", "left of the bar", "|"),
        ("y ~ (1 | )", "right of the bar", ")"),
    ],
)
def test_errors_point_at_the_place(text: str, says: str, at: str | None) -> None:
    with pytest.raises(FormulaError) as caught:
        parse_expression(text)
    assert says in caught.value.message
    if at is not None:
        assert text[caught.value.start : caught.value.end] == at


@pytest.mark.parametrize("opening", ["(", "-", "!", "log(", "I(-", "a^", "a:(", "~"])
@pytest.mark.parametrize("count", [MAX_DEPTH + 1, 2000])
def test_too_deep_is_an_error_and_no_recursion(opening: str, count: int) -> None:
    with pytest.raises(FormulaError, match=r"nested too deeply|too long"):
        parse_expression("y ~ " + opening * count + "x" + ")" * (count * opening.count("(")))


def test_deep_but_allowed() -> None:
    inner = "(" * (MAX_DEPTH - 3) + "x" + ")" * (MAX_DEPTH - 3)
    assert deparse(parse_expression(f"y ~ {inner}")) == f"y ~ {inner}"


@pytest.mark.parametrize("operator", ["*", ":", "/", "%in%", "&"])
def test_long_products_are_too_deep(operator: str) -> None:
    with pytest.raises(FormulaError, match="nested too deeply"):
        parse_expression("y ~ " + operator.join(["x"] * (MAX_DEPTH + 2)))


def test_long_sums_inside_a_call_are_too_deep() -> None:
    with pytest.raises(FormulaError, match="nested too deeply"):
        parse_expression("y ~ I(" + "+".join(["x"] * (MAX_DEPTH + 2)) + ")")


def test_sums_of_terms_may_be_long() -> None:
    text = "y ~ " + " + ".join(f"x{i}" for i in range(1000))
    assert deparse(parse_expression(text)) == text


def test_sums_in_parentheses_may_be_long() -> None:
    text = "y ~ (" + " + ".join(f"x{i}" for i in range(500)) + ") * g"
    assert deparse(parse_expression(text)) == text


def test_pi_is_a_number_in_a_call_and_a_column_outside() -> None:
    node = parse_expression("sin(2 * pi * x)")
    assert deparse(node) == "sin(2 * pi * x)"
    assert names_in(node) == ("x",)
    assert names_in(parse_expression("y ~ pi + (1 | g)")) == ("y", "pi", "g")
    assert names_in(parse_expression("log(`pi`)")) == ("pi",)


def test_named_T_and_F_are_truth_values_and_print_as_written() -> None:
    node = parse_expression("poly(x, 2, raw = T)")
    assert isinstance(node, Call)
    (_, value), *_ = node.keywords
    assert isinstance(value, Literal)
    assert value.value is True
    assert deparse(node) == "poly(x, 2, raw = T)"
    (_, column), *_ = parse_expression("poly(x, 2, raw = `T`)").keywords  # type: ignore[union-attr]
    assert isinstance(column, Name)
