"""A posterior's tree as Zarr arrays and back; only plain codecs and types of numbers and text are opened."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, cast
from urllib.parse import unquote

from bayeslmm.errors import PersistenceError

__all__ = ["tree_from", "tree_to"]

_CODECS = frozenset({"bytes", "zstd", "vlen-utf8"})
_TYPES = frozenset(
    {
        "bool",
        "string",
        "fixed_length_utf32",
        *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
        "float32",
        "float64",
    }
)
_LONGEST_RATIO = 200
_ALWAYS_ALLOWED = 2**28


def tree_to(tree: Any, folder: str) -> dict[str, bytes]:
    """Return the files of a Zarr group (format 3) that holds a `DataTree`, named under `folder`."""
    from zarr.storage import MemoryStore

    entries: dict[str, Any] = {}
    try:
        tree.map_over_datasets(lambda node: _renamed(node, _quoted)).to_zarr(
            MemoryStore(store_dict=entries), zarr_format=3, consolidated=False
        )
    except (TypeError, ValueError, NotImplementedError, KeyError) as error:
        raise PersistenceError(f"the draws cannot be saved: {' '.join(str(error).split())}") from error
    return {f"{folder}/{key}": value.to_bytes() for key, value in entries.items()}


def _renamed(dataset: Any, function: Callable[[str], str]) -> Any:
    """Return a dataset with other names of its variables and dimensions; they are named after the user's columns."""
    names = [str(name) for name in (*dataset.variables, *dataset.dims)]
    changed = {name: function(name) for name in names if function(name) != name}
    return dataset.rename(changed) if changed else dataset


def _quoted(name: str) -> str:
    """Return a name without what a path in Zarr cannot have: a backslash, or nothing but dots."""
    quoted = name.replace("%", "%25").replace("\\", "%5C")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def tree_from(files: Mapping[str, bytes], folder: str) -> Any:
    """Return the `DataTree` that `tree_to` wrote, in memory.

    Raises
    ------
    PersistenceError
        If an array has a codec or a type that is not written here, claims to be much larger than its file, or cannot be read.
    """
    import xarray as xr
    from zarr.core.buffer import cpu
    from zarr.storage import MemoryStore

    start = f"{folder}/"
    entries = {name.removeprefix(start): data for name, data in files.items() if name.startswith(start)}
    _check_arrays(entries)
    store = MemoryStore(store_dict={key: cpu.Buffer.from_bytes(data) for key, data in entries.items()}, read_only=True)
    try:
        opened: Any = xr.open_datatree(cast(Any, store), engine="zarr", consolidated=False).load()
    except Exception as error:  # Zarr and its codecs have no base class of their own
        raise PersistenceError(f"the draws in the file cannot be read: {' '.join(str(error).split())}") from error
    return opened.map_over_datasets(lambda node: _renamed(node, unquote))


def _check_arrays(entries: Mapping[str, bytes]) -> None:
    claimed = 0
    for key, data in entries.items():
        if key.rsplit("/", 1)[-1] != "zarr.json":
            continue
        try:
            claimed += _claimed(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PersistenceError(f"the draws in the file cannot be read: {key}: {error}") from error
    if claimed > max(_ALWAYS_ALLOWED, _LONGEST_RATIO * sum(map(len, entries.values()))):
        raise PersistenceError(f"the draws in the file claim {claimed / 1e6:.0f} MB, far more than the file can hold; it is not opened")


def _claimed(head: Mapping[str, Any]) -> int:
    """Return the bytes that an array claims to have, once its codecs and its type are known ones."""
    if head["node_type"] == "group":
        return 0
    kind = head["data_type"]
    name, size = (kind, 8) if isinstance(kind, str) else (kind["name"], kind["configuration"]["length_bytes"])
    codecs = [codec["name"] for codec in head["codecs"]]
    if name not in _TYPES or not _CODECS.issuperset(codecs) or head.get("storage_transformers"):
        raise PersistenceError(f"the draws in the file have type {name} and codecs {', '.join(codecs)}, which no saved fit has")
    return math.prod(int(length) for length in head["shape"]) * int(size)
