"""A pandas frame as typed columns of plain arrays and text, and back with the same types, categories and index."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.errors import PersistenceError
from bayeslmm.persistence.values import get_array, put_array

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["digest", "frame_from", "frame_to"]

type Array = np.ndarray
type Files = dict[str, bytes]
type Column = dict[str, Any]


def frame_to(frame: pd.DataFrame, files: Files) -> tuple[dict[str, Any], list[str]]:
    """Return a frame as JSON-able data, arrays among the files; and the columns that cannot be stored, of lists and other objects."""
    columns, left_out = [], []
    for name in frame.columns:
        try:
            columns.append([name, _to(frame[name], files)])
        except _NoPlainValues:
            left_out.append(str(name))
    return {"rows": len(frame), "index": _index_to(frame.index, files), "columns": columns}, left_out


def frame_from(plain: Mapping[str, Any], files: Mapping[str, bytes]) -> pd.DataFrame:
    """Return the frame that `frame_to` wrote.

    Raises
    ------
    PersistenceError
        If the data are none that it writes.
    """
    import pandas as pd

    try:
        index = _index_from(plain["index"], files)
        columns = {name: _from(column, files).set_axis(index) for name, column in plain["columns"]}
        return pd.DataFrame(columns, index=index)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise PersistenceError(f"the data frame in the file cannot be read: {' '.join(str(error).split())}") from error


def digest(plain: Mapping[str, Any], files: Mapping[str, bytes]) -> str:
    """Return the SHA-256 of a frame that `frame_to` wrote: of the values, types, names and order of its columns and rows."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, str) and value in files:
            found.update(files[value])
        elif isinstance(value, Mapping):
            for key, item in value.items():
                found.update(f"{key}:".encode())
                add(item)
        elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
            for item in value:
                add(item)
        else:
            found.update(json.dumps(value).encode())

    add(plain)
    return found.hexdigest()


# Columns: `_to` asks each kind in turn ------------------------------------------------------------------------------------


class _NoPlainValues(Exception):
    """A column of lists or other objects, that has no plain form."""


def _to(series: pd.Series, files: Files) -> Column:
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return _objects_to(series, files) if dtype.kind == "O" else {"kind": "plain", "values": put_array(series.to_numpy(), files)}
    for kind, function in _extensions().items():
        if isinstance(dtype, kind):
            return function(series, files)
    if hasattr(series.array, "_mask"):
        return _masked_to(series, files)
    if isinstance(dtype, pd.SparseDtype):
        return _to(pd.Series(np.asarray(series.array), index=series.index), files)
    raise _NoPlainValues


def _extensions() -> Mapping[type, Callable[[pd.Series, Files], Column]]:
    import pandas as pd

    return {
        pd.CategoricalDtype: _categorical_to,
        pd.StringDtype: _text_to,
        pd.DatetimeTZDtype: _zoned_to,
        pd.IntervalDtype: _interval_to,
        pd.PeriodDtype: _period_to,
        pd.ArrowDtype: _arrow_to,
    }


def _categorical_to(series: pd.Series, files: Files) -> Column:
    import pandas as pd

    held: Any = series.array
    categories = _to(pd.Series(held.categories), files)
    return {
        "kind": "categorical",
        "codes": put_array(np.asarray(held.codes), files),
        "categories": categories,
        "ordered": bool(held.ordered),
    }


def _text_to(series: pd.Series, files: Files) -> Column:
    import pandas as pd

    codes, labels = pd.factorize(series, use_na_sentinel=True)
    code_type = np.min_scalar_type(-max(len(labels), 1))
    return {
        "kind": "text",
        "type": str(series.dtype),
        "codes": put_array(codes.astype(code_type), files),
        "labels": [str(label) for label in labels],
    }


def _zoned_to(series: pd.Series, files: Files) -> Column:
    return {
        "kind": "zoned",
        "zone": str(series.dt.tz),
        "values": put_array(series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy(), files),
    }


def _interval_to(series: pd.Series, files: Files) -> Column:
    import pandas as pd

    held: Any = series.array
    return {
        "kind": "interval",
        "left": _to(pd.Series(held.left), files),
        "right": _to(pd.Series(held.right), files),
        "closed": held.closed,
    }


def _period_to(series: pd.Series, files: Files) -> Column:
    held: Any = series.array
    return {"kind": "period", "type": str(series.dtype), "values": put_array(held.asi8, files)}


def _arrow_to(series: pd.Series, files: Files) -> Column:
    """Arrow's columns come back as pandas' own: of the same values, numbers with missing ones as float64."""
    import pandas as pd
    import pyarrow as pa  # type: ignore[import-untyped]

    return _to(pd.Series(pa.chunked_array(pa.array(series.array)).to_pandas()), files)


def _masked_to(series: pd.Series, files: Files) -> Column:
    held: Any = series.array
    mask = np.asarray(held.isna())
    values = held.to_numpy(dtype=held.dtype.numpy_dtype, na_value=held.dtype.numpy_dtype.type(0))
    return {"kind": "masked", "type": str(series.dtype), "values": put_array(values, files), "mask": put_array(mask, files)}


def _objects_to(series: pd.Series, files: Files) -> Column:
    values = series.to_numpy(dtype=object)
    missing = series.isna().to_numpy()
    if all(isinstance(value, str) for value in values[~missing]):
        return {**_text_to(series, files), "none": any(value is None for value in values[missing])}
    return {"kind": "objects", "values": [_scalar_to(value) for value in values.tolist()]}


def _scalar_to(value: Any) -> Any:
    """Return a scalar of an object column as JSON: itself, or its type's name and its text."""
    if value is None or type(value) in (str, bool, int):
        return value
    if type(value) is float and math.isfinite(value):
        return value
    name = type(value).__name__
    if name not in _SCALARS:
        raise _NoPlainValues
    return [name, value.isoformat() if hasattr(value, "isoformat") else str(value)]


def _timestamp(text: str) -> Any:
    import pandas as pd

    return pd.Timestamp(text)


def _missing(text: str) -> Any:
    import pandas as pd

    return pd.NaT if text == "NaT" else pd.NA


_SCALARS: Mapping[str, Callable[[str], Any]] = MappingProxyType(
    {
        "float": float,
        "Decimal": Decimal,
        "date": datetime.date.fromisoformat,
        "datetime": datetime.datetime.fromisoformat,
        "time": datetime.time.fromisoformat,
        "Timestamp": _timestamp,
        "NaTType": _missing,
        "NAType": _missing,
    }
)
"""Types of an object column's scalars that JSON does not have -> how they are read."""


def _from(column: Mapping[str, Any], files: Mapping[str, bytes]) -> pd.Series:
    import pandas as pd

    kind = column["kind"]
    if kind not in _READERS:
        raise PersistenceError(f"the data frame in the file has a column of unknown kind {kind!r}")
    return pd.Series(_READERS[kind](column, files))


def _text_from(column: Mapping[str, Any], files: Mapping[str, bytes]) -> Any:
    import pandas as pd

    labels = np.array([*column["labels"], None if column.get("none") else np.nan], dtype=object)
    values = labels[get_array(column["codes"], files)]
    return pd.Series(values, dtype=column["type"])


def _categorical_from(column: Mapping[str, Any], files: Mapping[str, bytes]) -> Any:
    import pandas as pd

    categories = pd.Index(_from(column["categories"], files))
    return pd.Categorical.from_codes(get_array(column["codes"], files), categories=categories, ordered=column["ordered"])


def _zoned_from(column: Mapping[str, Any], files: Mapping[str, bytes]) -> Any:
    import pandas as pd

    return pd.Series(get_array(column["values"], files).copy()).dt.tz_localize("UTC").dt.tz_convert(column["zone"])


def _interval_from(column: Mapping[str, Any], files: Mapping[str, bytes]) -> Any:
    import pandas as pd

    return pd.arrays.IntervalArray.from_arrays(_from(column["left"], files), _from(column["right"], files), closed=column["closed"])


def _period_from(column: Mapping[str, Any], files: Mapping[str, bytes]) -> Any:
    import pandas as pd

    return pd.arrays.PeriodArray(get_array(column["values"], files).copy(), dtype=pd.PeriodDtype(column["type"][len("period[") : -1]))


def _masked_from(column: Mapping[str, Any], files: Mapping[str, bytes]) -> Any:
    import pandas as pd

    found = pd.array(get_array(column["values"], files).copy(), dtype=column["type"])
    found[get_array(column["mask"], files)] = pd.NA
    return found


def _objects_from(column: Mapping[str, Any], files: Mapping[str, bytes]) -> Any:
    values = np.empty(len(column["values"]), dtype=object)
    values[:] = [_SCALARS[value[0]](value[1]) if isinstance(value, list) else value for value in column["values"]]
    return values


_READERS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, bytes]], Any]] = MappingProxyType(
    {
        "plain": lambda column, files: get_array(column["values"], files).copy(),
        "text": _text_from,
        "categorical": _categorical_from,
        "zoned": _zoned_from,
        "interval": _interval_from,
        "period": _period_from,
        "masked": _masked_from,
        "objects": _objects_from,
    }
)


# The index ---------------------------------------------------------------------------------------------------------------


def _index_to(index: pd.Index, files: Files) -> dict[str, Any]:
    import pandas as pd

    names = [None if name is None else str(name) for name in index.names]
    if isinstance(index, pd.RangeIndex):
        return {"range": [index.start, index.stop, index.step], "names": names}
    try:
        return {"columns": [_to(pd.Series(index.get_level_values(i)), files) for i in range(index.nlevels)], "names": names}
    except _NoPlainValues:
        raise PersistenceError("the index of the data holds objects that cannot be saved; fit to data.reset_index(drop=True)") from None


def _index_from(plain: Mapping[str, Any], files: Mapping[str, bytes]) -> pd.Index:
    import pandas as pd

    names = plain["names"]
    if "range" in plain:
        start, stop, step = plain["range"]
        return pd.RangeIndex(start, stop, step, name=names[0])
    columns = [_from(column, files) for column in plain["columns"]]
    found: pd.Index = pd.Index(columns[0], name=names[0]) if len(columns) == 1 else pd.MultiIndex.from_arrays(columns, names=names)
    return found
