"""Frames in, through narwhals, and their columns as numbers or factors with missing values marked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.errors import DataError, suggest
from bayeslmm.formula.values import MISSING, Factor, Numbers, as_factor, number_label

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["levels_of", "read_column", "to_pandas"]

type Array = np.ndarray

_EXACT = 2**53
"""Up to here every integer is a float64."""


def to_pandas(data: Any) -> pd.DataFrame:
    """Return any supported frame as a pandas frame with text for column names; such a pandas frame itself, not copied.

    Parameters
    ----------
    data
        A pandas, polars (also lazy) or pyarrow frame, any other that narwhals reads, or a dict of columns of one length.
        Column names that are no text are turned into it: 3 is written `` `3` `` in a formula.

    Raises
    ------
    DataError
        If it is none of these, or if two columns share a name.

    Examples
    --------
    >>> to_pandas({"y": [1.0, 2.0], "g": ["a", "b"]}).shape
    (2, 2)
    """
    import pandas as pd

    frame = data if isinstance(data, pd.DataFrame) else _convert(data)
    if frame.columns.nlevels > 1:
        raise DataError("the frame has several rows of column names; flatten them to one name a column")
    if frame.columns.inferred_type != "string" or frame.columns.hasnans:
        frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    if not frame.columns.is_unique:
        twice = [str(name) for name in frame.columns[frame.columns.duplicated()].unique()]
        raise DataError(f"column names must be unique; repeated: {', '.join(twice)}", column=twice[0])
    return frame


def _convert(data: Any) -> pd.DataFrame:
    import pandas as pd

    if isinstance(data, Mapping):
        try:
            return pd.DataFrame(dict(data))
        except (ValueError, TypeError) as error:
            raise DataError(f"the dict of columns makes no frame: {error}; give columns of one length") from error
    import narwhals as nw

    try:
        frame: Any = nw.from_native(data)
    except TypeError as error:
        kind = type(data).__name__
        raise DataError(f"data must be a pandas, polars or pyarrow frame or a dict of columns, not {kind}") from error
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    try:
        return _plain_order(frame)
    except ImportError as error:
        raise DataError(f"this frame needs pyarrow to be read ({error}); install pyarrow or pass a pandas frame") from error
    except (ValueError, TypeError, NotImplementedError) as error:
        raise DataError(f"pandas cannot hold a column of this frame ({error}); leave it out or convert it") from error


def _plain_order(frame: Any) -> pd.DataFrame:
    """Convert to pandas: polars' Enum is a factor with its levels in order, not an ordered one; its Categorical is text.

    (The order of a polars Categorical depends on what the process has read before, so that it cannot be an order of levels.)
    """
    import narwhals as nw

    converted: pd.DataFrame = frame.to_pandas()
    if not frame.implementation.is_polars():
        return converted
    enums = {name: converted[name].cat.as_unordered() for name, kind in frame.schema.items() if isinstance(kind, nw.Enum)}
    texts = {name: converted[name].astype("str") for name, kind in frame.schema.items() if kind == nw.Categorical}
    return converted.assign(**enums, **texts) if enums or texts else converted


def column_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """Return a column, or refuse an unknown name with the closest known one."""
    if name in frame.columns:
        return frame[name]
    hint = "; the index has that name: pass data.reset_index()" if name in frame.index.names else suggest(name, list(frame.columns))
    raise DataError(f"the data has no column '{name}'{hint}", column=name)


def read_column(frame: pd.DataFrame, name: str) -> Numbers | Factor:
    """Return a column as `Numbers` (float64, NaN missing) or `Factor`.

    Numbers and booleans become `Numbers`; categoricals keep the order of their categories; text is sorted by code point
    (so upper case comes before lower case, where R sorts by locale). Nullable, Arrow and object columns are read by what
    they hold.

    Parameters
    ----------
    frame
        A pandas frame.
    name
        The column's name.

    Raises
    ------
    DataError
        If there is no such column, or if it holds dates, durations, complex numbers, lists or mixed objects.

    Examples
    --------
    >>> import pandas as pd
    >>> read_column(pd.DataFrame({"g": ["b", "a", None]}), "g").levels
    ('a', 'b')
    """
    return _read(column_of(frame, name), name)


def levels_of(series: pd.Series) -> tuple[str, ...]:
    """Return the levels that a column has as a factor, in order.

    Categories keep their order; text is sorted by code point, numbers by value (labelled as R prints them: `1`, not
    `1.0`), booleans as `FALSE`, `TRUE`.

    Parameters
    ----------
    series
        A pandas column.

    Raises
    ------
    DataError
        If the column cannot be a factor.

    Examples
    --------
    >>> import pandas as pd
    >>> levels_of(pd.Series([10.0, 2.0, 10.0]))
    ('2', '10')
    """
    return as_factor(_read(series, str(series.name))).levels


def _read(series: pd.Series, name: str) -> Numbers | Factor:
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return _read_numpy(series, name, dtype.kind)
    if isinstance(dtype, pd.CategoricalDtype):
        return _read_categorical(series)
    if isinstance(dtype, pd.StringDtype):
        return _read_text(series)
    if isinstance(dtype, pd.ArrowDtype) and "dictionary" in str(dtype.pyarrow_dtype):
        return _read_arrow_dictionary(series)
    return _read_extension(series, name)


def _read_numpy(series: pd.Series, name: str, kind: str) -> Numbers | Factor:
    values = series.to_numpy()
    if kind in "iu":
        _check_exact(values, name)
    if kind in "fiu":
        return Numbers(values=values.astype(np.float64, copy=False))
    if kind == "b":
        return Numbers(values=values.astype(np.float64), logical=True)
    if kind == "O":
        return _read_objects(series, name)
    raise _refused(name, {"M": "dates", "m": "durations", "c": "complex numbers"}.get(kind, f"values of type {series.dtype}"))


def _check_exact(integers: Any, name: str) -> None:
    """Refuse integers that floats cannot tell apart; `integers` is an array or series of them, missing ones left out."""
    if len(integers) and max(int(integers.max()), -int(integers.min())) > _EXACT:
        raise DataError(f"column '{name}' has integers beyond 2^53, which are not exact as numbers; convert it to text", column=name)


def _read_objects(series: pd.Series, name: str) -> Numbers | Factor:
    import pandas as pd

    held = pd.api.types.infer_dtype(series, skipna=True)
    if held == "string":
        return _read_text(series)
    if held == "boolean":
        return Numbers(values=_floats(series), logical=True)
    if held == "integer":
        _check_exact(series.dropna(), name)
    if held in ("integer", "floating", "mixed-integer-float", "decimal", "empty"):
        return Numbers(values=_floats(series))
    raise _refused(name, {"complex": "complex numbers", "mixed": "lists or mixed objects"}.get(held, f"values of kind '{held}'"))


def _floats(series: pd.Series) -> Array:
    missing = series.isna().to_numpy()
    values = np.full(len(series), np.nan)
    values[~missing] = [float(value) for value in series.to_numpy(dtype=object)[~missing]]
    return values


def _read_extension(series: pd.Series, name: str) -> Numbers | Factor:
    import pandas as pd

    types = pd.api.types
    if types.is_string_dtype(series.dtype):
        return _read_text(series)
    if types.is_bool_dtype(series.dtype):
        return Numbers(values=series.to_numpy(dtype=np.float64, na_value=np.nan), logical=True)
    if types.is_integer_dtype(series.dtype):
        _check_exact(series.dropna(), name)
    if str(series.dtype) == "null[pyarrow]":
        return Numbers(values=np.full(len(series), np.nan))
    if types.is_numeric_dtype(series.dtype) and not types.is_complex_dtype(series.dtype):
        return Numbers(values=np.asarray(series.to_numpy(dtype=np.float64, na_value=np.nan)))
    raise _refused(name, f"values of type {series.dtype}")


def _read_categorical(series: pd.Series) -> Factor:
    held: Any = series.array
    labels = tuple(_label(category) for category in held.categories.tolist())
    return Factor(codes=held.codes.astype(np.intp), levels=labels, ordered=bool(held.ordered))


def _read_arrow_dictionary(series: pd.Series) -> Factor:
    import pyarrow as pa  # type: ignore[import-untyped]

    return _read_categorical(pa.chunked_array(pa.array(series.array)).to_pandas())


def _label(category: object) -> str:
    if isinstance(category, bool):
        return "TRUE" if category else "FALSE"
    return number_label(category) if isinstance(category, int | float) else str(category)


def _read_text(series: pd.Series) -> Factor:
    import pandas as pd

    codes, unique = pd.factorize(series, use_na_sentinel=True)
    labels = np.asarray(unique, dtype=object).astype(str)
    order = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels) + 1, dtype=np.intp)
    rank[order] = np.arange(len(labels))
    rank[-1] = MISSING
    return Factor(codes=rank[codes], levels=tuple(labels[order].tolist()), text=True)


def _refused(name: str, what: str) -> DataError:
    return DataError(f"column '{name}' holds {what}; convert it to numbers, text or categories first", column=name)
