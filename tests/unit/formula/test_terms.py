"""Term algebra against R's `terms.formula` (golden.json), limits, and terms that mean nothing."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bayeslmm.errors import FormulaError
from bayeslmm.formula import deparse, expand_dot, parse
from bayeslmm.formula.nodes import Formula
from tests.unit.formula.golden import golden


def labels(formula: Formula) -> list[str]:
    return [term.label for term in formula.mean.terms]


@pytest.mark.parametrize("case", golden()["fixed"], ids=lambda case: case["formula"])
def test_terms_are_those_of_r(case: dict[str, Any]) -> None:
    mean = parse(case["formula"]).mean
    assert [term.label for term in mean.terms] == case["labels"]
    assert mean.intercept is case["intercept"]
    assert [deparse(offset) for offset in mean.offsets] == case["offsets"]


@pytest.mark.parametrize("case", golden()["dots"], ids=lambda case: case["formula"])
def test_dot_is_that_of_r(case: dict[str, Any]) -> None:
    parsed = parse(case["formula"])
    assert parsed.uses_dot
    done = expand_dot(parsed, ["y", "a", "b", "c"])
    assert not done.uses_dot
    assert (labels(done), done.mean.intercept) == (case["labels"], case["intercept"])


def test_dot_is_kept_until_columns_are_known() -> None:
    assert labels(parse("y ~ a + .")) == ["a", "."]
    assert not parse("y ~ a").uses_dot


def test_dot_without_columns() -> None:
    with pytest.raises(FormulaError, match="stands for no column"):
        expand_dot(parse("y ~ ."), ["y"])


def test_dot_takes_names_that_need_backticks() -> None:
    assert labels(expand_dot(parse("y ~ ."), ["y", "my var", "x"])) == ["`my var`", "x"]


def test_variables_of_a_term_are_its_nodes() -> None:
    term = parse("y ~ b + log(a):b").mean.terms[1]
    assert term.label == "b:log(a)"
    assert [deparse(variable) for variable in term.variables] == ["b", "log(a)"]


def test_parsing_keeps_the_response_on_the_right_for_the_design_to_refuse() -> None:
    assert labels(parse("y ~ y + x:y")) == ["y", "y:x"]


@pytest.mark.parametrize("power", [8, 9, 1_000_000_000])
def test_all_interactions_of_eight_answer_at_once(power: int) -> None:
    start = time.perf_counter()
    terms = parse(f"y ~ (a + b + c + d + e + f + g + h)^{power}").mean.terms
    assert len(terms) == 2**8 - 1
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "right",
    [
        "(" + "+".join(f"x{i}" for i in range(40)) + ")^40",
        "(" + "+".join(f"x{i}" for i in range(40)) + ")^4",
        "*".join(f"x{i}" for i in range(30)),
        "(" + "+".join(f"x{i}" for i in range(150)) + "):(" + "+".join(f"z{i}" for i in range(150)) + ")",
        ":".join(["(a + b + c + d + e + f + g + h + i + j + k)^11"] * 40),
        "+".join(["(a + b + c + d + e + f + g + h + i + j + k)^11"] * 180),
    ],
)
def test_too_many_terms_answer_at_once(right: str) -> None:
    start = time.perf_counter()
    with pytest.raises(FormulaError, match="too many terms"):
        parse(f"y ~ {right}")
    assert time.perf_counter() - start < 5


@pytest.mark.parametrize(
    ("text", "says", "at"),
    [
        ("y ~ 2", "no term", "2"),
        ("y ~ a + 2", "no term", "2"),
        ("y ~ a + TRUE", "no term", "TRUE"),
        ("y ~ 'a'", "no term", "'a'"),
        ("y ~ NULL", "no term", "NULL"),
        ("y ~ a^b", "I(x^2)", "b"),
        ("y ~ a^1", "whole number from 2", "1"),
        ("y ~ a^2.5", "whole number from 2", "2.5"),
        ("y ~ a^-2", "whole number from 2", "-2"),
        ("y ~ I(a:b)", "R's sequence", "a:b"),
        ("y ~ log(.)", "cannot stand inside", "."),
        ("y ~ cbind(a, b)", "only on the left", "cbind(a, b)"),
        ("y ~ trials(n)", "after the bar of a response", "trials(n)"),
        ("y ~ weights(w)", "after the bar of a response", "weights(w)"),
        ("y ~ log(offset(w))", "a term of its own", "offset(w)"),
        ("y ~ cs(x)", "marks a random term", "cs(x)"),
        ("y ~ log(2)", "no column", "log(2)"),
        ("y ~ I(a | b)", "summand of its own", "a | b"),
    ],
)
def test_what_is_no_term(text: str, says: str, at: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse(text)
    assert says in caught.value.message
    assert text[caught.value.start : caught.value.end] == at


def test_sequences_of_constants_inside_a_call() -> None:
    assert labels(parse("y ~ factor(x, levels = 1:3)")) == ["factor(x, levels = 1:3)"]
