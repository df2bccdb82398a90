"""Formatting against what R 4.2 prints (values read off `format`, `abbreviate`, `printCoefmat` there)."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.classical.rformat import abbreviate, coefficient_table, format_numbers, named_row, text_matrix, zapsmall

NA = float("nan")


@pytest.mark.parametrize(
    ("values", "digits", "expected"),
    [
        ([1e-10, 1], 4, ["1e-10", "1e+00"]),
        ([123456.789, 0.001], 4, ["1.235e+05", "1.000e-03"]),
        ([1e10, 1], 7, ["1e+10", "1e+00"]),
        ([0.1 + 0.2, 1 / 3], 7, ["0.3000000", "0.3333333"]),
        ([1e5], 7, ["1e+05"]),
        ([123456], 7, ["123456"]),
        ([1.5, NA, 2.0], 4, ["1.5", " NA", "2.0"]),
        ([0.00001234], 4, ["1.234e-05"]),
        ([237743.6], 7, ["237743.6"]),
        ([0, 0], 4, ["0", "0"]),
        ([1e15], 7, ["1e+15"]),
        ([-1.5, 100], 3, [" -1.5", "100.0"]),
        ([9.9996, 1], 4, ["10", " 1"]),
    ],
)
def test_common_format(values: list[float], digits: int, expected: list[str]) -> None:
    assert format_numbers(values, digits) == expected


def test_at_least_so_many_decimals() -> None:
    assert format_numbers([1.0, -0.5], nsmall=3) == [" 1.000", "-0.500"]


def test_infinite_and_missing() -> None:
    assert format_numbers([np.inf, -np.inf, NA]) == [" Inf", "-Inf", "  NA"]


NAMES = {
    "(Intercept)": ("(Intr)", "(Intercept)"),
    "Days": ("Days", "Days"),
    "ConditionS:HemisphereR": ("CnS:HR", "CndtnS:HmsR"),
    "recipeB:temperature.L": ("rcB:.L", "rcpB:tmpr.L"),
    "I(Days^2)": ("I(D^2)", "I(Days^2)"),
    "poly(Days, 2)1": ("p(D,2)1", "ply(Dys,2)1"),
    "poly(Days, 2)2": ("p(D,2)2", "ply(Dys,2)2"),
    "temperature.L": ("tmpr.L", "temperatr.L"),
    "temperature.Q": ("tmpr.Q", "temperatr.Q"),
    "open agreement score": ("opnags", "opnagrmntsc"),
    "SexFemale": ("SexFml", "SexFemale"),
    "age:SexFemale": ("ag:SxF", "age:SexFeml"),
    "a": ("a", "a"),
    "period2": ("perid2", "period2"),
    "studage.L": ("stdg.L", "studage.L"),
    "lectage^4": ("lctg^4", "lectage^4"),
    "x1": ("x1", "x1"),
    "HemisphereR": ("HmsphR", "HemisphereR"),
    "ConditionS": ("CndtnS", "ConditionS"),
}


@pytest.mark.parametrize(("position", "length"), [(0, 6), (1, 11)])
def test_abbreviate(position: int, length: int) -> None:
    assert abbreviate(list(NAMES), length) == [pair[position] for pair in NAMES.values()]


@pytest.mark.parametrize(
    ("estimate", "se", "t", "cells"),
    [
        (
            [60.24, 0.0061, -0.00767],
            [4.0118, 0.00496, 0.0057],
            [15.015, 1.23, -1.345],
            "60.24000 4.01180 15.015 0.00610 0.00496 1.230 -0.00767 0.00570 -1.345",
        ),
        ([1e6, 0.5], [1e3, 1e-4], [1000, 5000], "1e+06 1e+03 1000 5e-01 1e-04 5000"),
        ([1e-8, 0.5], [1e-9, 0.1], [10, 5], "1e-08 1e-09 10 5e-01 1e-01 5"),
        ([0.0, 0.5], [0.2, 0.1], [0, 5], "0.0 0.2 0 0.5 0.1 5"),
    ],
)
def test_coefficient_table(estimate: list[float], se: list[float], t: list[float], cells: str) -> None:
    text = coefficient_table(["a", "b", "c"][: len(estimate)], np.array(estimate), np.array(se), np.array(t))
    lines = text.split("\n")
    assert lines[0].split() == ["Estimate", "Std.", "Error", "t", "value"]
    assert " ".join(" ".join(line.split()[1:]) for line in lines[1:]) == cells
    assert len({len(line) for line in lines}) == 1


def test_named_row() -> None:
    assert named_row(["AIC", "logLik"], ["7735.1", "-3863.6"]) == "    AIC  logLik \n 7735.1 -3863.6 "


def test_text_matrix() -> None:
    assert text_matrix([("Name", ["x", ""]), ("Corr", ["", "0.07"])], ["", ""]) == " Name Corr\n x        \n      0.07"


def test_zapsmall_keeps_the_digits_of_the_largest() -> None:
    np.testing.assert_array_equal(zapsmall(np.array([5.17931, 0.0231171]), 5), [5.1793, 0.0231])
    np.testing.assert_array_equal(zapsmall(np.array([2.97959, 0.0629171]), 5), [2.97959, 0.06292])
    np.testing.assert_array_equal(zapsmall(np.zeros(2), 5), [0.0, 0.0])
