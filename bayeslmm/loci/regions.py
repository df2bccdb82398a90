"""Regions: tiles of the genome, or those of a BED or GTF file or a frame; counts of a region are the sums over its sites."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bayeslmm.data import to_pandas
from bayeslmm.errors import DataError

__all__ = ["Regions", "regions_of"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Regions:
    """Tiles of `width` bases, or a table `chromosome, start, end, name` (from 1, both ends in)."""

    width: int | None = None
    table: pd.DataFrame | None = None

    def of(self, chromosome: str, position: Array) -> tuple[Array, Array, pd.DataFrame]:
        """Return the pairs (site, region) of sites that lie in regions, as two arrays, and the regions met, in order of their starts.

        A site may lie in several regions of a table.
        """
        if self.width is not None:
            tiles, region = np.unique((position - 1) // self.width, return_inverse=True)
            starts = tiles * self.width + 1
            met = pd.DataFrame({"chromosome": chromosome, "start": starts, "end": starts + self.width - 1})
            return np.arange(len(position)), region, met.assign(name=_places(met))
        assert self.table is not None
        own = self.table[self.table["chromosome"] == chromosome].sort_values(["start", "end"], kind="stable")
        order = np.argsort(position, kind="stable")
        first = np.searchsorted(position[order], own["start"].to_numpy(), side="left")
        last = np.searchsorted(position[order], own["end"].to_numpy(), side="right")
        sizes = last - first
        region = np.repeat(np.arange(len(own)), sizes)
        within = np.arange(len(region)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return order[np.repeat(first, sizes) + within], region, own.reset_index(drop=True)


def regions_of(regions: Any) -> Regions | None:
    """Return the regions that a user asks for: None, a width in bases, the path of a BED or GTF/GFF file, or a frame.

    A frame has `chromosome`, `start`, `end` (from 1, both ends in) and perhaps `name`.

    Raises
    ------
    DataError
        If it is none of these, a line cannot be read, or a region ends before it starts.
    """
    if regions is None:
        return None
    if isinstance(regions, int | np.integer) and not isinstance(regions, bool):
        if regions < 2:
            raise DataError(f"tiles need a width of at least 2 bases, not {regions}")
        return Regions(width=int(regions))
    table = _read(Path(regions)) if isinstance(regions, str | Path) else _of_frame(to_pandas(regions))
    wrong = table["end"] < table["start"]
    if bool(wrong.any()):
        raise DataError(f"a region ends before it starts: {_places(table[wrong])[0]}")
    return Regions(table=table)


def _places(table: pd.DataFrame) -> list[str]:
    return [f"{chromosome}:{start}-{end}" for chromosome, start, end in zip(table["chromosome"], table["start"], table["end"], strict=True)]


def _of_frame(frame: pd.DataFrame) -> pd.DataFrame:
    names = {"chrom": "chromosome", "chr": "chromosome"}
    frame = frame.rename(columns={old: new for old, new in names.items() if old in frame.columns})
    absent = [name for name in ("chromosome", "start", "end") if name not in frame.columns]
    if absent:
        raise DataError(f"regions need columns chromosome, start, end; absent: {', '.join(absent)}")
    table = frame.assign(
        chromosome=frame["chromosome"].astype(str), start=frame["start"].astype(np.int64), end=frame["end"].astype(np.int64)
    )
    named = table["name"].astype(str) if "name" in table.columns else pd.Series(_places(table), index=table.index)
    return table[["chromosome", "start", "end"]].assign(name=named)


def _read(path: Path) -> pd.DataFrame:
    """Read BED (from 0, half-open) or GTF/GFF (from 1, both ends in) line by line, so that a bad one is named."""
    import gzip

    if not path.is_file():
        raise DataError(f"no file {path} of regions")
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".bgz")]
    parse = _gtf if suffixes[-1:] and suffixes[-1] in (".gtf", ".gff", ".gff3") else _bed
    rows = []
    with gzip.open(path, "rt") if path.suffix in (".gz", ".bgz") else path.open() as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith(("#", "track", "browser")):
                continue
            try:
                rows.append(parse(line.rstrip("\n").split("\t")))
            except (ValueError, IndexError) as failure:
                raise DataError(f"{path}, line {number}: not a region ({line.strip()[:60]!r})") from failure
    if not rows:
        raise DataError(f"{path} has no regions")
    table = pd.DataFrame(rows, columns=["chromosome", "start", "end", "name"])
    return table.assign(name=table["name"].where(table["name"] != "", pd.Series(_places(table))))


def _bed(fields: list[str]) -> tuple[str, int, int, str]:
    return fields[0], int(fields[1]) + 1, int(fields[2]), fields[3] if len(fields) > 3 and fields[3] != "." else ""


def _gtf(fields: list[str]) -> tuple[str, int, int, str]:
    import re

    found = re.search(r'(?:gene_id "?|ID=|Name=)([^";]+)', fields[8] if len(fields) > 8 else "")
    return fields[0], int(fields[3]), int(fields[4]), found.group(1) if found else ""
