"""Tokens: their kinds, values and positions, and what is refused at once."""

from __future__ import annotations

import pytest

from bayeslmm.errors import FormulaError
from bayeslmm.formula.tokens import MAX_LENGTH, Kind, is_syntactic, tokenize


def words(text: str) -> list[object]:
    return [token.value for token in tokenize(text)[:-1]]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1), ("1L", 1), ("0", 0), ("1.5", 1.5), (".5", 0.5), ("2.", 2.0), ("1e3", 1000.0), ("1E-3", 0.001), ("1e+05", 1e5),
        ("TRUE", True), ("FALSE", False), ("True", True), ("NULL", None),
        ("'a b'", "a b"), ('"a b"', "a b"), (r"'it\'s'", "it's"), (r'"tab\t"', "tab\t"), ("''", ""),
    ],
)  # fmt: skip
def test_constants(text: str, value: object) -> None:
    token, end = tokenize(text)
    assert (token.kind, token.value, type(token.value)) == (Kind.CONSTANT, value, type(value))
    assert (token.start, token.end, end.kind) == (0, len(text), Kind.END)


@pytest.mark.parametrize("name", ["x", "x1", "x.y_2", ".", "..1", "_private", "T", "F", "naïve", "Größe", "年齢", "trueish", "e", ".x"])
def test_names(name: str) -> None:
    token = tokenize(name)[0]
    assert (token.kind, token.value) == (Kind.NAME, name)


@pytest.mark.parametrize(("text", "name"), [("`my var`", "my var"), ("`if`", "if"), (r"`a\`b`", "a`b"), ("`x`", "x"), ("`a(b)`", "a(b)")])
def test_backticks(text: str, name: str) -> None:
    token = tokenize(text)[0]
    assert (token.kind, token.value) == (Kind.BACKTICKED, name)


def test_operators() -> None:
    found = words("a%in%b %% c**2||d|e&&f&g==h!=i<=j>=k<l>m~n!o-p")
    assert " ".join(map(str, found)) == "a %in% b %% c ^ 2 || d | e && f & g == h != i <= j >= k < l > m ~ n ! o - p"


def test_positions_are_those_of_the_text() -> None:
    text = "y ~ poly(x, 2)"
    assert [text[token.start : token.end] for token in tokenize(text)[:-1]] == ["y", "~", "poly", "(", "x", ",", "2", ")"]


def test_newlines_and_comments_are_space() -> None:
    assert words("y ~ a # the mean\n\t+ b\u00a0") == ["y", "~", "a", "+", "b"]


@pytest.mark.parametrize(
    ("text", "says", "start"),
    [
        ("y ~ 'a", "never closed", 4),
        ("y ~ `a", "never closed", 4),
        ("y ~ 2x", "cannot begin with a digit", 4),
        ("y ~ 1.2.3", "cannot begin with a digit", 4),
        ("y ~ 1e999", "too large", 4),
        ("y ~ if", "reserved word", 4),
        ("y ~ a %o% b", "%in%", 6),
        ("y ~ a$b", "no meaning in a formula", 5),
        ("y ~ a[1]", "no subscripts", 5),
        ("y <- a", "assign nothing", 2),
        ("y ~ base::log(x)", "no package names", 8),
        ("y ~ a \u202e b", "U+202E", 6),
        ("y ~ a\x00b", "U+0000", 5),
        ("y ~ '\u202ea'", "U+202E", 5),
        ("y ~ `a\x00`", "U+0000", 6),
        ("y ~ ``", "no column's name", 4),
        (r"y ~ '\x41'", "unknown escape", 5),
        ("y ~ a; b", "one formula", 5),
    ],
)
def test_refused_with_the_place(text: str, says: str, start: int) -> None:
    with pytest.raises(FormulaError) as caught:
        tokenize(text)
    assert says in caught.value.message
    assert caught.value.start == start


def test_caret_stands_under_the_fault_though_the_text_has_newlines() -> None:
    with pytest.raises(FormulaError) as caught:
        tokenize("y ~ a +\n b$c")
    _, shown, caret = str(caught.value).split("\n")
    assert shown[caret.index("^")] == "$"


def test_too_long() -> None:
    assert len(tokenize("x" * MAX_LENGTH)) == 2
    with pytest.raises(FormulaError, match="too long"):
        tokenize("x" * (MAX_LENGTH + 1))


@pytest.mark.parametrize("name", ["x", "a.b", ".x", "..1", "naïve", "x_1"])
def test_is_syntactic(name: str) -> None:
    assert is_syntactic(name)


@pytest.mark.parametrize("name", ["", "_x", ".2a", "my var", "if", "TRUE", "2x", "a-b"])
def test_is_not_syntactic(name: str) -> None:
    assert not is_syntactic(name)
