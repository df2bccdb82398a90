"""Example data: small sets bundled with checksums, others fetched once; a folder of the user's own comes first."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bayeslmm.datasets.remote import CONVERTERS, fetch
from bayeslmm.errors import DataError, suggest

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["list_datasets", "load_dataset"]

DATA_DIR = "BAYESLMM_DATA_DIR"
"""Environment variable: a folder of `<name>.csv[.gz]`, with their column types in a `datasets.json` where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One data set: `columns` maps a name to `{"type": "factor" | "ordered" | "integer" | "numeric", "levels": [...]}`.

    `sha256` is the checksum of the bundled file, or, for a fetched set, of its canonical table (`canonical_text`).
    """

    name: str
    rows: int | None
    source: str
    citation: str
    columns: dict[str, dict[str, Any]] | None
    file: str | None = None
    url: str | None = None
    converter: str | None = None
    sha256: str | None = None

    @property
    def bundled(self) -> bool:
        return self.file is not None


def load_dataset(name: str) -> pd.DataFrame:
    """Return an example data set as a pandas frame, its categories set in their proper order.

    The folder that the environment variable `BAYESLMM_DATA_DIR` names is looked into first, for `<name>.csv` or
    `<name>.csv.gz`; then the bundled sets; others are downloaded at first use and kept in the user's cache.

    Parameters
    ----------
    name
        As listed by `list_datasets`, or the name of a file in the folder.

    Raises
    ------
    DataError
        The name is unknown, the file is damaged, or a download failed.

    Examples
    --------
    >>> load_dataset("sleepstudy").shape
    (180, 3)
    """
    local = _local_path(name)
    if local is not None:
        return _read(_bytes_of(local), _local_entry(name))
    entry = _registry().get(name)
    if entry is None:
        raise DataError(f"there is no data set '{name}'{suggest(name, sorted({*_registry(), *_local_names()}))}")
    return _bundled(entry) if entry.bundled else _fetched(entry)


def list_datasets() -> pd.DataFrame:
    """Return the known data sets as a frame `name, rows, source, citation, bundled`.

    Sets of the folder `BAYESLMM_DATA_DIR` are listed too; `rows` is missing where nothing states it.

    Examples
    --------
    >>> list_datasets().set_index("name").loc["sleepstudy", "rows"]
    np.int64(180)
    """
    import pandas as pd

    entries = dict(_registry())
    for name in _local_names():
        entries.setdefault(name, _local_entry(name))
    rows = [
        {"name": entry.name, "rows": entry.rows, "source": entry.source, "citation": entry.citation, "bundled": entry.bundled}
        for entry in entries.values()
    ]
    return pd.DataFrame(rows, columns=["name", "rows", "source", "citation", "bundled"]).astype({"rows": "Int64"})


def canonical_text(frame: pd.DataFrame) -> str:
    """Return a frame as CSV with 12 significant digits: what the checksum of a fetched set is taken of."""
    return frame.to_csv(index=False, lineterminator="\n", float_format="%.12g")


@cache
def _registry() -> dict[str, Entry]:
    text = files("bayeslmm.datasets").joinpath("registry.json").read_text(encoding="utf-8")
    return {name: Entry(name=name, **fields) for name, fields in json.loads(text).items()}


def _bundled(entry: Entry) -> pd.DataFrame:
    raw = files("bayeslmm.datasets").joinpath(str(entry.file)).read_bytes()
    if hashlib.sha256(raw).hexdigest() != entry.sha256:
        raise DataError(f"the bundled file of data set '{entry.name}' is damaged (checksum differs); reinstall bayeslmm")
    return _read(gzip.decompress(raw) if str(entry.file).endswith(".gz") else raw, entry)


def _fetched(entry: Entry) -> pd.DataFrame:
    path = fetch(entry.name, str(entry.url), DATA_DIR)
    text = _text_of(path.read_bytes(), entry.name)
    frame = _typed(CONVERTERS[str(entry.converter)](text, str(entry.url)), entry)
    if hashlib.sha256(canonical_text(frame).encode()).hexdigest() != entry.sha256:
        path.unlink(missing_ok=True)
        raise DataError(
            f"what {entry.url} holds is not data set '{entry.name}' any more (checksum differs); put {entry.name}.csv in {DATA_DIR}"
        )
    return frame


def _folder() -> Path | None:
    named = os.environ.get(DATA_DIR)
    return Path(named).expanduser() if named else None


def _local_path(name: str) -> Path | None:
    folder = _folder()
    if folder is None or Path(name).name != name:
        return None
    return next((path for suffix in (".csv", ".csv.gz") if (path := folder / f"{name}{suffix}").is_file()), None)


def _local_names() -> list[str]:
    folder = _folder()
    if folder is None or not folder.is_dir():
        return []
    return sorted({path.name.removesuffix(".gz").removesuffix(".csv") for path in (*folder.glob("*.csv"), *folder.glob("*.csv.gz"))})


def _local_entry(name: str) -> Entry:
    """Describe a set of the user's folder: by the folder's `datasets.json`, else by the registry, else by nothing."""
    described = _local_description().get(name)
    if described is not None:
        return Entry(
            name=name,
            rows=described.get("nrow"),
            source=described.get("source", ""),
            citation=described.get("citation", ""),
            columns=described.get("columns"),
        )
    return _registry().get(name) or Entry(name=name, rows=None, source=DATA_DIR, citation="", columns=None)


def _local_description() -> dict[str, dict[str, Any]]:
    folder = _folder()
    path = None if folder is None else folder / "datasets.json"
    if path is None or not path.is_file():
        return {}
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} is not valid JSON ({error}); mend it or remove it") from None
    return described if isinstance(described, dict) else {}


def _bytes_of(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _text_of(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"the file of data set '{name}' is not UTF-8 text; save it again as UTF-8 CSV") from None


def _read(raw: bytes, entry: Entry) -> pd.DataFrame:
    import pandas as pd

    texts = {name: str for name, column in (entry.columns or {}).items() if column["type"] in ("factor", "ordered")}
    try:
        frame = pd.read_csv(io.StringIO(_text_of(raw, entry.name)), dtype=texts, na_values=["NA"], keep_default_na=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise DataError(f"the file of data set '{entry.name}' is not a CSV table: {error}") from None
    return _typed(frame, entry)


def _typed(frame: pd.DataFrame, entry: Entry) -> pd.DataFrame:
    """Return the frame with the categories of `entry` set, in their order; other columns stay as read."""
    import pandas as pd

    columns = entry.columns or {}
    lost = [name for name in columns if name not in frame.columns]
    if lost:
        raise DataError(f"the file of data set '{entry.name}' has no column '{lost[0]}'", column=lost[0])
    out = frame.copy()
    for name, column in columns.items():
        if column["type"] not in ("factor", "ordered"):
            continue
        strange = frame[name].notna() & ~frame[name].isin(column["levels"])
        if strange.any():
            raise DataError(
                f"column '{name}' of data set '{entry.name}' holds '{frame.loc[strange, name].iloc[0]}', which is none of its levels",
                column=name,
                rows=list(frame.index[strange]),
            )
        out[name] = pd.Categorical(frame[name], categories=column["levels"], ordered=column["type"] == "ordered")
    return out
