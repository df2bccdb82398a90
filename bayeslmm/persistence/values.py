"""Numbers, arrays and records as JSON-able data and back, exactly; arrays are files of their own, records are of a short list."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from bayeslmm.errors import PersistenceError

__all__ = ["decode", "encode", "get_array", "put_array"]

type Array = np.ndarray

_KINDS = frozenset("biufcmMU")
"""Kinds of numbers, times and text that an array may hold: never objects."""


def put_array(array: Array, files: dict[str, bytes]) -> str:
    """Put an array among the files, and return its name."""
    if array.dtype.kind not in _KINDS:
        raise PersistenceError(f"an array of type {array.dtype} cannot be saved")
    name = f"arrays/{len(files):04d}.npy"
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), allow_pickle=False)
    files[name] = stream.getvalue()
    return name


def get_array(name: Any, files: Mapping[str, bytes]) -> Array:
    """Return the array of a name, read-only.

    Raises
    ------
    PersistenceError
        If there is none, or its file is not as long as its head says.
    """
    if name not in files:
        raise PersistenceError(f"the array {name!r} is missing from the file")
    stream = io.BytesIO(files[name])
    try:
        version = np.lib.format.read_magic(stream)
        read: Callable[..., Any] = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(stream)
    except ValueError as error:
        raise PersistenceError(f"{name} is not an array: {error}") from error
    size = math.prod(shape) * dtype.itemsize
    if dtype.kind not in _KINDS or size != len(files[name]) - stream.tell():
        raise PersistenceError(f"{name} is not an array of numbers of the size that it claims")
    flat = np.frombuffer(files[name], dtype=dtype, offset=stream.tell()) if size else np.zeros(shape, dtype=dtype)
    array: Array = flat.reshape(shape, order="F" if by_columns else "C")
    if array.flags.aligned and array.dtype.isnative:
        return array
    array = array.astype(dtype.newbyteorder("="))
    array.flags.writeable = False
    return array


# Values are JSON's own, or a dict with one key that says what they are ---------------------------------------------------


def encode(value: Any, files: dict[str, bytes], records: Mapping[str, type]) -> Any:
    """Return a value as JSON-able data: numbers and text, arrays, tuples, lists, mappings, and dataclasses among `records`."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, np.ndarray):
        return {"array": put_array(value, files)}
    if isinstance(value, np.generic):
        return encode(value.item(), files, records)
    if isinstance(value, tuple | list):
        return {type(value).__name__: [encode(item, files, records) for item in value]}
    if isinstance(value, Mapping):
        return {"mapping": [[key, encode(item, files, records)] for key, item in value.items()], "frozen": not isinstance(value, dict)}
    name = type(value).__name__
    if is_dataclass(value) and records.get(name) is type(value):
        return {"record": name, "fields": {field.name: encode(getattr(value, field.name), files, records) for field in fields(value)}}
    raise PersistenceError(f"a value of type {name} cannot be saved")


def decode(plain: Any, files: Mapping[str, bytes], records: Mapping[str, type]) -> Any:
    """Return the value that `encode` wrote.

    Raises
    ------
    PersistenceError
        If the data are none that it writes, or a record has other fields than here.
    """
    if not isinstance(plain, dict):
        return plain
    kind = next(iter(plain), "")
    if kind not in _DECODERS:
        raise PersistenceError(f"the file holds a value of unknown kind {kind!r}")
    try:
        return _DECODERS[kind](plain, files, records)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise PersistenceError(f"the file holds a {kind} that cannot be read: {' '.join(str(error).split())}") from error


def _items(plain: list[Any], files: Mapping[str, bytes], records: Mapping[str, type]) -> list[Any]:
    return [decode(item, files, records) for item in plain]


def _mapping(plain: Mapping[str, Any], files: Mapping[str, bytes], records: Mapping[str, type]) -> Mapping[Any, Any]:
    found = {key: decode(item, files, records) for key, item in plain["mapping"]}
    return MappingProxyType(found) if plain["frozen"] else found


def _record(plain: Mapping[str, Any], files: Mapping[str, bytes], records: Mapping[str, type]) -> Any:
    name = plain["record"]
    if name not in records:
        raise PersistenceError(f"the file holds a record of unknown kind {name!r}")
    return records[name](**{key: decode(item, files, records) for key, item in plain["fields"].items()})


type _Decoder = Callable[[Mapping[str, Any], Mapping[str, bytes], Mapping[str, type]], Any]

_DECODERS: Mapping[str, _Decoder] = MappingProxyType(
    {
        "float": lambda plain, files, records: float(plain["float"]),
        "array": lambda plain, files, records: get_array(plain["array"], files),
        "tuple": lambda plain, files, records: tuple(_items(plain["tuple"], files, records)),
        "list": lambda plain, files, records: _items(plain["list"], files, records),
        "mapping": _mapping,
        "record": _record,
    }
)
