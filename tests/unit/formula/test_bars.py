"""Random terms against lme4's `findbars` and `mkReTrms` (golden.json), brms's dialect, structures, and misplaced bars."""

from __future__ import annotations

from typing import Any

import pytest

from bayeslmm.errors import FormulaError
from bayeslmm.formula import deparse, expand_dot, parse
from bayeslmm.formula.nodes import RandomTerm
from tests.unit.formula.golden import golden


def texts(text: str, dialect: str = "lme4") -> list[str]:
    return [term.text for term in parse(text, dialect=dialect).mean.random]


def shape(term: RandomTerm) -> dict[str, Any]:
    return {"group": term.group_label, "labels": [effect.label for effect in term.effects], "intercept": term.intercept}


@pytest.mark.parametrize("case", golden()["random"], ids=lambda case: case["formula"])
def test_bars_are_those_of_lme4(case: dict[str, Any]) -> None:
    mean = expand_dot(parse(case["formula"]), case["columns"]).mean
    assert [shape(term) for term in mean.random] == case["bars"]
    assert sorted({term.group_label for term in mean.random}) == case["groups"]
    assert [term.label for term in mean.terms] == case["labels"]
    assert mean.intercept is case["intercept"]
    assert {term.structure for term in mean.random} == {"us"}


@pytest.mark.parametrize(
    ("text", "variables"),
    [("g", ["g"]), ("a:b", ["a", "b"]), ("(a:b)", ["a", "b"]), ("factor(g)", ["factor(g)"]), ("`my g`", ["`my g`"])],
)
def test_group_variables(text: str, variables: list[str]) -> None:
    (term,) = parse(f"y ~ (1 | {text})").mean.random
    assert [deparse(variable) for variable in term.group] == variables
    assert term.group_label == ":".join(variables)


@pytest.mark.parametrize(
    ("group", "variables", "label"),
    [
        ("a/b/c", ["c", "b", "a"], "c:(b:a)"),
        ("a/b/c/d", ["d", "c", "b", "a"], "d:(c:(b:a))"),
        ("a/b:c", ["b", "c", "a"], "b:c:a"),
        ("a:b/c", ["c", "a", "b"], "c:(a:b)"),
        ("(a/b)/c", ["c", "b", "a"], "c:(b:a)"),
    ],
)
def test_nesting_runs_from_the_inside_out(group: str, variables: list[str], label: str) -> None:
    term = parse(f"y ~ (1 | {group})").mean.random[0]
    assert [deparse(variable) for variable in term.group] == variables
    assert term.group_label == label


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("y ~ (x || g)", ["(1 | g)", "(0 + x | g)"]),
        ("y ~ (x || a/b)", ["(1 | b:a)", "(1 | a)", "(0 + x | b:a)", "(0 + x | a)"]),
        ("y ~ (1 || g)", ["(1 | g)"]),
        ("y ~ (x | a * b)", ["(x | a)", "(x | b)", "(x | a:b)"]),
        ("y ~ (1 | g) + x + (0 + x | g)", ["(1 | g)", "(0 + x | g)"]),
        ("y ~ us(x | g)", ["(x | g)"]),
        ("y ~ diag(x | g)", ["diag(x | g)"]),
        ("y ~ cs(1 + f | a/b, hom = TRUE)", ["cs(1 + f | b:a, hom = TRUE)", "cs(1 + f | a, hom = TRUE)"]),
    ],
)
def test_texts(text: str, terms: list[str]) -> None:
    assert texts(text) == terms


def test_every_text_reads_back_as_the_same_term() -> None:
    for case in golden()["random"]:
        for term in parse(case["formula"]).mean.random:
            (again,) = parse(f"y ~ {term.text}").mean.random
            assert shape(again)["labels"] == shape(term)["labels"]
            assert again.group == term.group


def test_structures_and_their_options() -> None:
    (term,) = parse("y ~ x + ar1(0 + t | g, hom = TRUE)").mean.random
    assert (term.structure, term.options, term.intercept, term.group_label) == ("ar1", (("hom", True),), False, "g")


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("y ~ (x | a/b)", ["(x | a)", "(x | a:b)"]),
        ("y ~ (1 | a/b/c)", ["(1 | a)", "(1 | a:b)", "(1 | a:b:c)"]),
        ("y ~ (x * f || g)", ["diag(x * f | g)"]),
        ("y ~ (x || a/b)", ["diag(x | a)", "diag(x | a:b)"]),
        ("y ~ (x | g)", ["(x | g)"]),
    ],
)
def test_brms_dialect(text: str, terms: list[str]) -> None:
    assert texts(text, "brms") == terms


def test_brms_double_bar_is_one_term_with_independent_columns() -> None:
    (term,) = parse("y ~ (x * f || g)", dialect="brms").mean.random
    assert (term.structure, term.intercept, [effect.label for effect in term.effects]) == ("diag", True, ["x", "f", "x:f"])


def test_bars_leave_the_intercept_alone() -> None:
    assert not parse("y ~ 0 + x + (1 | g)").mean.intercept
    assert not parse("y ~ (1 | g) - 1").mean.intercept
    assert parse("y ~ (0 + x | g)").mean.intercept


def test_spans() -> None:
    text = "y ~ x + (0 + x | g) + (1 | h)"
    assert [text[term.start : term.end] for term in parse(text).mean.random] == ["(0 + x | g)", "(1 | h)"]


@pytest.mark.parametrize(
    ("text", "says", "at"),
    [
        ("y ~ x | g", "parentheses: (x | g)", "x | g"),
        ("y ~ x + 1 || g", "parentheses: (x + 1 || g)", "x + 1 || g"),
        ("y ~ x * (1 | g)", "summand of its own", "1 | g"),
        ("y ~ x:(1 | g)", "summand of its own", "1 | g"),
        ("y ~ log((1 | g))", "summand of its own", "1 | g"),
        ("y ~ log(1 | g)", "summand of its own", "1 | g"),
        ("y ~ I(x + (1 | g))", "summand of its own", "1 | g"),
        ("y ~ x - (1 | g)", "cannot be removed", "(1 | g)"),
        ("y ~ (x - (1 | g))", "cannot be removed", "(1 | g)"),
        ("y ~ (1 | g)^2", "summand of its own", "1 | g"),
        ("y ~ ((1 | g) | h)", "one bar", "1 | g"),
        ("y ~ (1 | g | h)", "one bar", "1 | g"),
        ("y ~ (1 | (g | h))", "one bar", "g | h"),
        ("y ~ (0 | g)", "no effect", "0"),
        ("y ~ (x - x - 1 | g)", "no effect", "x - x - 1"),
        ("y ~ (1 | a + b)", "(... | a) + (... | b)", "a + b"),
        ("y ~ (1 | a - b)", "grouping column", "a - b"),
        ("y ~ (1 | a %in% b)", "grouping column", "a %in% b"),
        ("y ~ (1 | a/(b + c))", "grouping column", "b + c"),
        ("y ~ (1 | 1)", "grouping column", "1"),
        ("y ~ (1 | .)", "grouping column", "."),
        ("y ~ (1 | log(g))", "grouping column", "log(g)"),
        ("y ~ (. | g)", "name the columns", "."),
        ("y ~ (offset(x) | g)", "cannot vary by group", "offset(x)"),
        ("y ~ diag(x || g)", "single bar", "x || g"),
        ("y ~ cs(x | g, TRUE)", "given by name", "TRUE"),
        ("y ~ cs(x | g, hom = h)", "must be TRUE", "h"),
        ("y ~ (1 | g):(1 | h)", "summand of its own", "1 | g"),
    ],
)
def test_misplaced(text: str, says: str, at: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse(text)
    assert says in caught.value.message
    assert text[caught.value.start : caught.value.end] == at


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("y ~ (1 | gr(g))", [("(1 | g)", "g", "")]),
        ("y ~ (1 | gr(a / b))", [("(1 | b:a)", "b:a", ""), ("(1 | a)", "a", "")]),
        ("y ~ (1 + x | gr(g, cov = A))", [("(1 + x | gr(g, cov = A))", "g", "A")]),
        ("y ~ (1 | (gr((g), cov = `my A`)))", [("(1 | gr(g, cov = `my A`))", "g", "my A")]),
        ("y ~ (1 | gr(a:b, cov = K))", [("(1 | gr(a:b, cov = K))", "a:b", "K")]),
        ("y ~ (x || gr(g, cov = A))", [("(1 | gr(g, cov = A))", "g", "A"), ("(0 + x | gr(g, cov = A))", "g", "A")]),
        ("y ~ cs(x | gr(g, cov = A), hom = TRUE)", [("cs(x | gr(g, cov = A), hom = TRUE)", "g", "A")]),
    ],
)
def test_a_known_covariance_among_levels(text: str, expected: list[tuple[str, str, str]]) -> None:
    terms = parse(text).mean.random
    assert [(term.text, term.group_label, term.cov) for term in terms] == expected
    assert parse("y ~ " + " + ".join(term.text for term in terms)).mean.random == terms


@pytest.mark.parametrize(
    ("text", "says", "at"),
    [
        ("y ~ gr(x)", "right of a bar", "gr(x)"),
        ("y ~ (1 | gr())", "takes one grouping factor", "gr()"),
        ("y ~ (1 | gr(a, b, cov = K))", "takes one grouping factor", "gr(a, b, cov = K)"),
        ("y ~ (1 | gr(gr(g), cov = K))", "takes one grouping factor", "gr(gr(g), cov = K)"),
        ("y ~ (1 | gr(g, cov = 1))", "name of a matrix in data2", "1"),
        ("y ~ (1 | gr(g, by = x))", "write a term for each", "x"),
        ("y ~ (1 | gr(g, dist = d))", "random effects are normal", "d"),
        ("y ~ (1 | gr(g, id = a))", "cannot share", "a"),
        ("y ~ (1 | gr(g, cor = FALSE))", "(x || g)", "FALSE"),
        ("y ~ (1 | gr(g, kov = K))", "no argument kov", "K"),
        ("y ~ (1 | gr(a / b, cov = K))", "of one factor", "a / b"),
        ("y ~ (1 | gr(g, cov = K) / b)", "right of a bar stands", "gr(g, cov = K)"),
    ],
)
def test_what_gr_cannot_say(text: str, says: str, at: str) -> None:
    with pytest.raises(FormulaError) as caught:
        parse(text)
    assert says in caught.value.message
    assert text[caught.value.start : caught.value.end] == at
