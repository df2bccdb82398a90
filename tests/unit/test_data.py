"""Frames in: which are read, what their columns become, and what is refused."""

from __future__ import annotations

import datetime
import decimal

import narwhals as nw
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from bayeslmm.data import levels_of, read_column, to_pandas
from bayeslmm.errors import DataError
from bayeslmm.formula.values import Factor, Numbers, number_label

COLUMNS = {"y": [1.5, 2.0, 4.0], "k": [1, 2, 3], "g": ["b", "a", "b"], "l": [True, False, True]}


def test_a_pandas_frame_is_returned_itself():
    frame = pd.DataFrame(COLUMNS)
    assert to_pandas(frame) is frame


@pytest.mark.parametrize(
    "make",
    [pl.DataFrame, pl.LazyFrame, pa.table, dict, lambda columns: nw.from_native(pl.DataFrame(columns))],
    ids=["polars", "lazy", "arrow", "dict", "narwhals"],
)
def test_other_frames_give_the_same_columns(make):
    frame = to_pandas(make(COLUMNS))
    assert list(frame.columns) == list(COLUMNS)
    for name in ("y", "k", "l"):
        np.testing.assert_array_equal(read_column(frame, name).values, np.asarray(COLUMNS[name], dtype=float))
    assert levels_of(frame["g"]) == ("a", "b")


@pytest.mark.parametrize(
    "data", [[1, 2], "text", np.zeros((3, 2)), None, 3, pd.Series([1, 2])], ids=["list", "str", "array", "None", "int", "series"]
)
def test_what_is_no_frame_is_refused(data):
    with pytest.raises(DataError, match="frame or a dict of columns"):
        to_pandas(data)


def test_columns_of_different_length_are_refused():
    with pytest.raises(DataError, match="one length"):
        to_pandas({"a": [1, 2], "b": [1]})


def test_repeated_column_names_are_refused():
    with pytest.raises(DataError, match="repeated: a"):
        to_pandas(pd.DataFrame([[1, 2, 3]], columns=["a", "b", "a"]))


def test_several_rows_of_column_names_are_refused():
    with pytest.raises(DataError, match="several rows of column names"):
        to_pandas(pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")])))


def test_a_missing_column_is_named_with_the_closest_known():
    with pytest.raises(DataError, match="no column 'Dyas'; did you mean 'Days'") as caught:
        read_column(pd.DataFrame({"Days": [1], "Subject": [2]}), "Dyas")
    assert caught.value.column == "Dyas"


@pytest.mark.parametrize(
    ("series", "levels"),
    [
        (pd.Series(["b", "a", "B", None]), ("B", "a", "b")),
        (pd.Series(["b", "a", None], dtype="string[pyarrow]"), ("a", "b")),
        (pd.Series(["b", "a", None], dtype=object), ("a", "b")),
        (pd.Series(["b", "a"], dtype=pd.ArrowDtype(pa.string())), ("a", "b")),
        (pd.Series(pd.Categorical(["lo", "hi"], categories=["lo", "mid", "hi"])), ("lo", "mid", "hi")),
        (pd.Series(pd.Categorical([2, 10])), ("2", "10")),
        (pd.Series(pd.Categorical([True, False])), ("FALSE", "TRUE")),
        (pd.Series([True, False]), ("FALSE", "TRUE")),
        (pd.Series([True, None, False], dtype="boolean"), ("FALSE", "TRUE")),
        (pd.Series([True, None], dtype=object), ("FALSE", "TRUE")),
        (pd.Series([10, 2, 1]), ("1", "2", "10")),
        (pd.Series([10.0, 2.0, np.nan]), ("2", "10")),
        (pd.Series([0.1 + 0.2, 1 / 3]), ("0.3", "0.333333333333333")),
        (pd.Series([3, None, 1], dtype="Int64"), ("1", "3")),
        (pd.Series([3, None, 1.5], dtype="Float64"), ("1.5", "3")),
        (pd.Series([3, None, 1], dtype=pd.ArrowDtype(pa.int64())), ("1", "3")),
        (pd.Series([3, None, 1], dtype=object), ("1", "3")),
        (pd.Series([decimal.Decimal("2.5"), decimal.Decimal(1)]), ("1", "2.5")),
        (pd.Series(pa.array(["b", "a"]).dictionary_encode().to_pandas()), ("b", "a")),
        (pd.Series(["b", "a", None], dtype=pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))), ("b", "a")),
        (pd.cut(pd.Series([0.5, 1.5]), [0, 1, 2]), ("(0, 1]", "(1, 2]")),
    ],
)
def test_levels_and_their_order(series, levels):
    assert levels_of(series) == levels


def test_missing_values_are_marked_and_never_a_level():
    frame = pd.DataFrame(
        {
            "text": ["a", None, "b"],
            "code": pd.Categorical(["a", None, "b"]),
            "int": pd.Series([1, None, 2], dtype="Int64"),
            "bool": pd.Series([True, None, False], dtype="boolean"),
            "object": pd.Series([1, None, 2.5], dtype=object),
            "none": pd.Series([None, None, None], dtype=object),
        }
    )
    for name in ("text", "code"):
        assert read_column(frame, name).codes.tolist() == [0, -1, 1]
    for name in ("int", "bool", "object"):
        np.testing.assert_array_equal(np.isnan(read_column(frame, name).values), [False, True, False])
    assert np.isnan(read_column(frame, "none").values).all()


def test_an_ordered_categorical_is_an_ordered_factor_and_polars_enum_is_not():
    ordered = read_column(pd.DataFrame({"o": pd.Categorical(["lo", "hi"], categories=["lo", "hi"], ordered=True)}), "o")
    assert isinstance(ordered, Factor)
    assert ordered.ordered
    enum = read_column(to_pandas(pl.DataFrame({"o": pl.Series(["lo", "hi"], dtype=pl.Enum(["lo", "hi", "top"]))})), "o")
    assert isinstance(enum, Factor)
    assert enum.levels == ("lo", "hi", "top")
    assert not enum.ordered


def test_a_polars_categorical_is_text_because_its_order_is_an_accident():
    pl.Series(["zz", "b", "a"], dtype=pl.Categorical)
    frame = to_pandas(pl.DataFrame({"g": pl.Series(["b", "a", None], dtype=pl.Categorical)}))
    assert read_column(frame, "g").levels == ("a", "b")
    assert read_column(frame, "g").codes.tolist() == [1, 0, -1]


def test_integers_that_floats_cannot_hold_are_refused():
    with pytest.raises(DataError, match="convert it to text"):
        read_column(pd.DataFrame({"id": [2**53 + 1, 2**53 + 2]}), "id")


def test_bool_is_logical_and_integers_are_floats():
    frame = pd.DataFrame({"l": [True, False], "k": np.array([1, 2], dtype=np.int8)})
    logical, whole = read_column(frame, "l"), read_column(frame, "k")
    assert isinstance(logical, Numbers)
    assert logical.logical
    assert isinstance(whole, Numbers)
    assert whole.values.dtype == np.float64


@pytest.mark.parametrize(
    "values",
    [
        pd.to_datetime(["2020-01-01", "2020-01-02"]),
        pd.to_timedelta([1, 2], unit="D"),
        np.array([1j, 2.0]),
        [[1, 2], [3]],
        [datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)],
        pd.Series([datetime.date(2020, 1, 1)] * 2, dtype=pd.ArrowDtype(pa.date32())),
        pd.Series([1, "a"], dtype=object),
        pd.period_range("2020", periods=2),
    ],
    ids=["datetime", "timedelta", "complex", "lists", "dates", "arrow dates", "mixed", "periods"],
)
def test_columns_that_are_no_numbers_and_no_categories_are_refused(values):
    frame = pd.DataFrame({"when": pd.Series(values)})
    with pytest.raises(DataError, match=r"column 'when' holds .*; convert it") as caught:
        read_column(frame, "when")
    assert caught.value.column == "when"


@pytest.mark.parametrize(
    ("value", "label"),
    [
        (123456.0, "123456"),
        (0.1 + 0.2, "0.3"),
        (1e-5, "1e-05"),
        (1234567.5, "1234567.5"),
        (1 / 3, "0.333333333333333"),
        (1.0, "1"),
        (-2.0, "-2"),
        (np.inf, "Inf"),
    ],
)
def test_number_labels_are_those_of_as_character_in_R(value, label):
    assert number_label(value) == label
