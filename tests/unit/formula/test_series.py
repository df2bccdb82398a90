"""Residual terms in formulas and on data: `ar(time, gr)` read, printed, coded, and coded anew."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from bayeslmm.design import Encoder, encode
from bayeslmm.errors import DataError, FormulaError
from bayeslmm.formula import deparse, expanded, format_formula, parse


def test_arguments_by_place_and_by_name() -> None:
    terms = [parse(f"y ~ x + {text}").mean.series for text in ("ar(t, g)", "ar(gr = g, time = t)", "ar(t, g, 1, TRUE)", "(ar(t, gr = g))")]
    for term in terms:
        assert term is not None
        assert term.time is not None
        assert (term.name, deparse(term.time), [deparse(node) for node in term.group]) == ("ar", "t", ["g"])
    empty = parse("y ~ ar()").mean.series
    assert empty is not None
    assert (empty.time, empty.group) == (None, ())
    crossed = parse("y ~ ar(t, a:factor(b))").mean.series
    assert crossed is not None
    assert [deparse(node) for node in crossed.group] == ["a", "factor(b)"]


def test_it_is_no_fixed_term_and_prints_as_written() -> None:
    formula = parse("y ~ 0 + x + (1 | g) + ar(time = t, gr = g)")
    assert [term.label for term in formula.mean.terms] == ["x"]
    assert not formula.mean.intercept
    assert format_formula(formula) == "y ~ 0 + x + (1 | g) + ar(time = t, gr = g)"
    assert expanded(formula) == ("y ~ 0 + x + (1 | g) + ar(time = t, gr = g)",)


@pytest.mark.parametrize(
    "text", ["y ~ ar(t, g) * x", "y ~ x + (ar(t, g) | g)", "y ~ I(ar(t))", "y ~ ar(t, g, g2 = h)", "y ~ ar(t, g, p = 0)"]
)
def test_places_and_arguments_that_mean_nothing(text: str) -> None:
    with pytest.raises(FormulaError):
        parse(text)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    return pd.DataFrame({"y": [1.0, 3.0, 2.0, 5.0, 4.0], "t": [3, 1, np.nan, 1, 5], "g": ["a", "a", "a", "b", "a"]}, index=list("pqrst"))


def test_rows_without_a_time_are_left_out(frame: pd.DataFrame) -> None:
    series = encode(parse("y ~ 1 + ar(t, g)"), frame).series
    assert series is not None
    assert series.previous.tolist() == [1, -1, -1, 0]
    assert series.gap.tolist() == [2.0, 0.0, 0.0, 2.0]


def test_new_rows_have_series_where_asked(frame: pd.DataFrame) -> None:
    encoder = encode(parse("y ~ 1 + ar(t, g)"), frame).encoder
    again = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    new = {"t": [4, 2, 2], "g": ["new", "new", "a"]}
    rows = again.encode_new(new, series=True)
    assert rows.series is not None
    assert rows.series.previous.tolist() == [1, -1, -1]
    assert again.encode_new({"x": [1.0]}).series is None
    with pytest.raises(DataError, match="'g'"):
        again.encode_new({"t": [1]}, series=True)


def test_the_message_names_the_rows(frame: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"two rows at the same time.*\(rows q, s\)"):
        encode(parse("y ~ 1 + ar(t)"), frame)
    with pytest.raises(DataError, match=r"whole numbers.*0.5.*\(row p\)"):
        encode(parse("y ~ 1 + ar(t, g)"), frame.assign(t=[0.5, 1, 2, 3, 4]))
