"""One file of a fit: a zip of a JSON text, `.npy` and Zarr arrays, and the digest of each; written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from bayeslmm.errors import PersistenceError

__all__ = ["FORMAT", "FORMAT_VERSION", "Contents", "read", "target", "write"]

FORMAT, FORMAT_VERSION = "bayeslmm fit", 1

_TEXT, _DIGESTS = "fit.json", "digests.json"
_NAME = re.compile(r"fit\.json|digests\.json|arrays/\d+\.npy|trees/\d+/[^\\]+")
_LARGEST_RATIO = 200
_ALWAYS_ALLOWED = 2**28
"""A file may unpack to so many times its own size, and to 256 MB in any case: numbers of a sample do not pack more tightly."""
_FIXED_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a file holds: `text`, JSON-able data; `files`, name -> bytes."""

    text: Mapping[str, Any]
    files: Mapping[str, bytes]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))


def target(path: Any) -> Path:
    """Return a user's path.

    Raises
    ------
    PersistenceError
        If it is no path.
    """
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise PersistenceError(f"a path is text, as 'fit.blmm', or a pathlib.Path, not {path!r}")
    return Path(os.fsdecode(path)).expanduser()


# Writing ---------------------------------------------------------------------------------------------------------------


def write(path: Path, contents: Contents, check: Callable[[Path], None]) -> None:
    """Write a file beside its place, check what was written, and move it there: what was there stays until then.

    Raises
    ------
    PersistenceError
        If the folder is missing or cannot be written to; and what `check`, called with the temporary file, raises.
    """
    place = path.resolve()
    if place.is_dir():
        raise PersistenceError(f"{path} is a folder; give the name of a file in it, as '{path / 'fit.blmm'}'")
    if not place.parent.is_dir():
        raise PersistenceError(f"{path}: there is no folder '{path.parent}'; make it first")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{place.name}.", suffix=".part", dir=place.parent)
        part = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                _pack(stream, contents)
                stream.flush()
                os.fsync(stream.fileno())
            check(part)
            part.chmod(_mode(place))
            part.replace(place)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise PersistenceError(f"{path} cannot be written: {error.strerror or error}") from error


def _mode(place: Path) -> int:
    """Return the rights that the file has, or that a new one gets."""
    if place.exists():
        return place.stat().st_mode & 0o777
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _pack(stream: IO[bytes], contents: Contents) -> None:
    text = json.dumps(contents.text, ensure_ascii=False, allow_nan=False, indent=1).encode()
    files = {_TEXT: text, **contents.files}
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    with zipfile.ZipFile(stream, "w") as packed:
        for name, data in {**files, _DIGESTS: json.dumps(digests, indent=1).encode()}.items():
            entry = zipfile.ZipInfo(name, _FIXED_TIME)
            entry.external_attr = 0o644 << 16
            packs = not name.startswith("trees/")  # Zarr's arrays are packed already
            packed.writestr(entry, data, zipfile.ZIP_DEFLATED if packs else zipfile.ZIP_STORED, 3 if packs else None)


# Reading ---------------------------------------------------------------------------------------------------------------


def read(path: Path) -> Contents:
    """Return what a file holds, once it is whole and as it was written.

    Raises
    ------
    PersistenceError
        If there is no such file; if it is none of this format, or of a later version of it; if it is cut short, was changed, names
        places outside of itself, or would unpack to more than it can hold.
    """
    if path.is_dir():
        raise PersistenceError(f"{path} is a folder, not a saved fit")
    if not path.exists():
        raise PersistenceError(f"{path}: no such file")
    try:
        with path.open("rb") as stream:
            return _unpack(path, stream)
    except OSError as error:
        raise PersistenceError(f"{path} cannot be read: {error.strerror or error}") from error


def _unpack(path: Path, stream: IO[bytes]) -> Contents:
    start = stream.read(4)
    if start != b"PK\x03\x04":
        raise PersistenceError(f"{path} is not a file that `fit.save` wrote")
    try:
        with zipfile.ZipFile(stream) as packed:
            _check_entries(path, packed)
            text = _json(path, packed, _TEXT)
            _check_version(path, text)
            digests = _json(path, packed, _DIGESTS)
            files = {name: packed.read(name) for name in packed.namelist() if name != _DIGESTS}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise PersistenceError(f"{path} is damaged or cut short ({' '.join(str(error).split())}); take another copy of it") from error
    found = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    if found != digests:
        changed = sorted(name for name in {*found, *digests} if found.get(name) != digests.get(name))
        raise PersistenceError(f"{path} was changed after it was written ({', '.join(changed[:3])}); take another copy, or fit again")
    return Contents(text=text, files={name: data for name, data in files.items() if name != _TEXT})


def _check_entries(path: Path, packed: zipfile.ZipFile) -> None:
    entries = packed.infolist()
    names = [entry.filename for entry in entries]
    if _TEXT not in names or _DIGESTS not in names:
        raise PersistenceError(f"{path} is a zip file, but not one that `fit.save` wrote")
    for name in names:
        if not _NAME.fullmatch(name) or any(part in ("", ".", "..") for part in name.split("/")):
            raise PersistenceError(f"{path} holds the entry {name!r}, which no saved fit has; it is not opened")
    if len(set(names)) < len(names):
        raise PersistenceError(f"{path} holds an entry twice; it is not opened")
    total, packed_size = sum(entry.file_size for entry in entries), path.stat().st_size
    if total > max(_ALWAYS_ALLOWED, _LARGEST_RATIO * packed_size):
        raise PersistenceError(
            f"{path} has {packed_size / 1e6:.1f} MB and would unpack to {total / 1e6:.0f} MB; no saved fit does, so it is not opened"
        )


def _json(path: Path, packed: zipfile.ZipFile, name: str) -> dict[str, Any]:
    try:
        found = json.loads(packed.read(name))
    except (ValueError, RecursionError) as error:
        raise PersistenceError(f"{path} is damaged: {name} is not JSON; take another copy of it") from error
    if not isinstance(found, dict):
        raise PersistenceError(f"{path} is a zip file, but not one that `fit.save` wrote")
    return found


def _check_version(path: Path, text: Mapping[str, Any]) -> None:
    version = text.get("format_version")
    if text.get("format") != FORMAT or not isinstance(version, int):
        raise PersistenceError(f"{path} is a zip file, but not one that `fit.save` wrote")
    if version > FORMAT_VERSION:
        versions = text.get("versions")
        writer = versions.get("bayeslmm") if isinstance(versions, dict) else None
        raise PersistenceError(
            f"{path} has format {version}, written by bayeslmm {writer or 'of a later version'}; this version reads formats up to "
            f"{FORMAT_VERSION}: update bayeslmm"
        )
