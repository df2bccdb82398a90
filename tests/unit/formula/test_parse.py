"""Whole formulas: responses, further parameters, dialects, and their printing."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bayeslmm.errors import FormulaError
from bayeslmm.formula import deparse, expand_dot, expanded, fixed_only, format_formula, formula, parse, with_dialect
from bayeslmm.formula.nodes import Formula, Node, Term
from tests.unit.formula.golden import golden


@pytest.mark.parametrize(
    ("text", "kind", "nodes", "weights", "label"),
    [
        ("y ~ x", "plain", ["y"], None, "y"),
        ("log(y+1) ~ x", "plain", ["log(y + 1)"], None, "log(y + 1)"),
        ("(y) ~ x", "plain", ["y"], None, "y"),
        ("k/n ~ x", "plain", ["k/n"], None, "k/n"),
        ("y^2 ~ x", "plain", ["y^2"], None, "y^2"),
        ("y > 3 ~ x", "plain", ["y > 3"], None, "y > 3"),
        ("`my y` ~ x", "plain", ["`my y`"], None, "`my y`"),
        ("cbind(k,n-k) ~ x", "cbind", ["k", "n - k"], None, "cbind(k, n - k)"),
        ("k|trials(n) ~ x", "trials", ["k", "n"], None, "k | trials(n)"),
        ("y | weights(w) ~ x", "plain", ["y"], "w", "y | weights(w)"),
        ("k | trials(n) + weights(w) ~ x", "trials", ["k", "n"], "w", "k | trials(n) + weights(w)"),
        ("k | weights(w/2) + trials(10) ~ x", "trials", ["k", "10"], "w/2", "k | weights(w/2) + trials(10)"),
    ],
)
def test_response(text: str, kind: str, nodes: list[str], weights: str | None, label: str) -> None:
    response = parse(text).response
    assert response is not None
    assert (response.kind, [deparse(node) for node in response.nodes], response.label) == (kind, nodes, label)
    assert (None if response.weights is None else deparse(response.weights)) == weights


def test_no_response() -> None:
    assert parse("~ x + (1 | g)").response is None


@pytest.mark.parametrize(
    ("text", "says", "at"),
    [
        ("x + (1 | g)", "has a '~'", None),
        ("y", "has a '~'", None),
        ("y ~ x ~ z", "second", "~"),
        ("y ~ (~ x)", "second", "~"),
        ("y ~ (a ~ b)", "second", "~"),
        ("1 ~ x", "no column", "1"),
        ("'y' ~ x", "no column", "'y'"),
        (". ~ x", "cannot stand inside", "."),
        ("a:b ~ x", "R's sequence", "a:b"),
        ("cbind(a) ~ x", "cbind()", "cbind(a)"),
        ("cbind(a, b, c) ~ x", "cbind()", "cbind(a, b, c)"),
        ("log(cbind(a, b)) ~ x", "whole response", "cbind(a, b)"),
        ("k | n ~ x", "trials(n) and weights(w)", "n"),
        ("k | trials(n) * 2 ~ x", "trials(n) and weights(w)", "trials(n) * 2"),
        ("k | trials(n) - weights(w) ~ x", "trials(n) and weights(w)", "weights(w)"),
        ("k | trials(n) + trials(m) ~ x", "given twice", "trials(m)"),
        ("offset(y) ~ x", "only on the right side", "offset(y)"),
        ("log(k | trials(n)) ~ x", "bar cannot stand", "k | trials(n)"),
    ],
)
def test_bad_response(text: str, says: str, at: str | None) -> None:
    with pytest.raises(FormulaError) as caught:
        parse(text)
    assert says in caught.value.message
    if at is not None:
        assert text[caught.value.start : caught.value.end] == at


@pytest.mark.parametrize("text", [None, 3, b"y ~ x", ["y ~ x"]])
def test_only_text_is_read(text: object) -> None:
    with pytest.raises(FormulaError, match="is text"):
        parse(text)  # type: ignore[arg-type]


def test_parameters() -> None:
    parsed = formula("y ~ x", sigma="~ x + (1 | g)", zi="~ 0 + z")
    assert list(parsed.parameters) == ["sigma", "zi"]
    assert parsed.parameters["sigma"].random[0].group_label == "g"
    assert not parsed.parameters["zi"].intercept
    assert str(parsed) == "y ~ x, sigma ~ x + (1 | g), zi ~ 0 + z"


def test_a_parameter_may_be_named_on_the_left() -> None:
    assert formula("y ~ x", sigma="sigma ~ z").parameters["sigma"].terms[0].label == "z"


@pytest.mark.parametrize(("source", "says"), [("y ~ x", "no response"), ("x", "has a '~'"), ("~ (1 | )", "right of the bar")])
def test_bad_parameters(source: str, says: str) -> None:
    with pytest.raises(FormulaError, match=says):
        formula("y ~ x", sigma=source)


def test_parameters_are_read_only() -> None:
    with pytest.raises(TypeError):
        formula("y ~ x", sigma="~ x").parameters["zi"] = parse("~ x").mean  # type: ignore[index]


def test_dialect_can_be_changed_later() -> None:
    parsed = formula("y ~ (x || g)", sigma="~ (1 | a/b)")
    brms = with_dialect(parsed, "brms")
    assert [term.structure for term in brms.mean.random] == ["diag"]
    assert [term.group_label for term in brms.parameters["sigma"].random] == ["a", "a:b"]
    assert with_dialect(brms, "lme4") == parsed
    with pytest.raises(FormulaError, match="did you mean 'brms'"):
        with_dialect(parsed, "brm")


def test_dialect_keeps_the_columns_of_the_dot() -> None:
    done = with_dialect(expand_dot(formula("y ~ . + (1 | a/b)", sigma="~ ."), ["y", "a", "b"]), "brms")
    assert [term.label for term in done.mean.terms] == ["a", "b"]
    assert [term.label for term in done.parameters["sigma"].terms] == ["a", "b"]


def test_format() -> None:
    parsed = formula("y~a*b+(x|g)  # comment", sigma="~x")
    assert format_formula(parsed) == "y ~ a * b + (x | g), sigma ~ x"
    assert parsed.text == "y~a*b+(x|g)  # comment"


def test_expanded() -> None:
    parsed = formula("y ~ a*b + offset(w) + (x || g)", sigma="~ 0 + x")
    assert expanded(parsed) == ("y ~ 1 + a + b + a:b + offset(w) + (1 | g) + (0 + x | g)", "sigma ~ 0 + x")
    assert fixed_only(parsed.mean) == "1 + a + b + a:b + offset(w)"


def meaning(parsed: Formula) -> tuple[object, ...]:
    """What a formula says, whatever the order in which an interaction names its variables."""

    def products(terms: Sequence[Term]) -> list[frozenset[Node]]:
        return [frozenset(term.variables) for term in terms]

    mean = parsed.mean
    random = [(products(term.effects), term.intercept, term.group, term.structure) for term in mean.random]
    return products(mean.terms), mean.intercept, mean.offsets, random


@pytest.mark.parametrize("kind", ["fixed", "random", "dots"])
def test_the_expanded_formula_means_the_same(kind: str) -> None:
    for case in golden()[kind]:
        once = expand_dot(parse(case["formula"]), case.get("columns", ["y", "a", "b", "c"]))
        (line,) = expanded(once)
        assert meaning(parse(line)) == meaning(once)


@pytest.mark.parametrize("kind", ["fixed", "random", "dots"])
def test_printing_reads_back_the_same(kind: str) -> None:
    for case in golden()[kind]:
        parsed = parse(case["formula"])
        printed = format_formula(parsed)
        assert format_formula(parse(printed)) == printed
        assert expanded(parse(printed)) == expanded(parsed)


def test_operations_stand_in_parentheses_where_terms_are_listed() -> None:
    parsed = parse("y ~ (a == b) + (a > 1):d + (!a || g)")
    assert [term.label for term in parsed.mean.terms] == ["a == b", "a > 1:d"]
    assert expanded(parsed) == ("y ~ 1 + (a == b) + (a > 1):d + (1 | g) + (0 + (!a) | g)",)
