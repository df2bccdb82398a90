"""The formats of methylation calls, one record each; `FORMATS` lists them by name.

A format names its columns and turns a table of text lines into sites: chromosome, position (of the cytosine, counted from 1), strand,
methylated reads and coverage. Reading, errors with line numbers, strands and joining are the same for all (`reading`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import pandas as pd

from bayeslmm.errors import DataError, suggest

__all__ = ["FORMATS", "NO_STRAND", "Format", "Sites", "format_named", "recognised"]

type Array = np.ndarray

INTEGER, NUMBER, TEXT = "integer", "number", "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """Sites of a piece of a file, arrays (n,).

    `chromosome` text; `position` from 1; `strand` 1, -1, or 0 where it is not known or both are in one; `methylated`, `coverage`;
    `keep`: the rows that are meant (context and modification asked for).
    """

    chromosome: Array
    position: Array
    strand: Array
    methylated: Array
    coverage: Array
    keep: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A text format: columns as (name, kind), whether a header line stands above, and what its rows mean.

    Attributes
    ----------
    columns
        Name and kind (`integer`, `number`, `text`) of each column.
    header
        Whether the first line names the columns.
    separator
        What stands between columns: a tab, or (as `\\s+`) any white space.
    comment
        What a line begins with that is not read.
    stranded
        Whether its rows tell the strand.
    sites
        Turns a frame of those columns into `Sites`, given the modification code asked for.
    fits
        Whether the fields of a file's first line of data (and its name) are of this format.
    """

    name: str
    columns: tuple[tuple[str, str], ...]
    sites: Callable[[pd.DataFrame, str], Sites]
    fits: Callable[[Sequence[str], str], bool]
    header: bool = False
    separator: str = "\t"
    comment: str | None = None
    stranded: bool = False


def _sites(chromosome: pd.Series, position: Array, m: Array, n: Array, strand: pd.Series | None = None, keep: Array | None = None) -> Sites:
    rows = len(chromosome)
    return Sites(
        chromosome=chromosome.to_numpy(),
        position=position,
        strand=np.zeros(rows, dtype=np.int8) if strand is None else strand.map(_STRANDS).fillna(NO_STRAND).to_numpy(dtype=np.int8),
        methylated=m,
        coverage=n,
        keep=np.ones(rows, dtype=bool) if keep is None else keep,
    )


NO_STRAND = 2
"""What stands for a text that is no strand."""
_STRANDS = {"+": 1, "F": 1, "-": -1, "R": -1, ".": 0, "*": 0}


def _integers(fields: Sequence[str], *places: int) -> bool:
    return all(place < len(fields) and fields[place].isdigit() for place in places)


# ------------------------------------------------------------------------------------------------------------------------- Bismark


def _coverage(offset: int) -> Callable[[pd.DataFrame, str], Sites]:
    def sites(frame: pd.DataFrame, code: str) -> Sites:
        m = frame["methylated"].to_numpy()
        return _sites(frame["chromosome"], frame["start"].to_numpy() + offset, m, m + frame["unmethylated"].to_numpy())

    return sites


_COVERAGE = (
    ("chromosome", TEXT),
    ("start", INTEGER),
    ("end", INTEGER),
    ("percent", NUMBER),
    ("methylated", INTEGER),
    ("unmethylated", INTEGER),
)


def _is_coverage(width: int, named: str | None = None) -> Callable[[Sequence[str], str], bool]:
    """Whether a line is of Bismark's coverage with `end - start` as given; where that is 1, the file's name has to tell which."""

    def fits(fields: Sequence[str], name: str) -> bool:
        if len(fields) != 6 or not _integers(fields, 1, 2, 4, 5):
            return False
        return int(fields[2]) - int(fields[1]) == width and (named is None or named in name)

    return fits


def _cytosine_report(frame: pd.DataFrame, code: str) -> Sites:
    m = frame["methylated"].to_numpy()
    keep = frame["context"].str.upper().isin(("CG", "CPG")).to_numpy()
    return _sites(frame["chromosome"], frame["position"].to_numpy(), m, m + frame["unmethylated"].to_numpy(), frame["strand"], keep)


# ------------------------------------------------------------------------------------------------------------------------ bedMethyl


def _bedmethyl(frame: pd.DataFrame, code: str) -> Sites:
    """Coverage is N_valid: calls of other modifications count as not of this one. Codes may carry a motif, as `m,CG,0`."""
    codes = frame["code"].str.partition(",")[0].to_numpy()
    position = frame["start"].to_numpy() + 1
    m, n = frame["modified"].to_numpy(), frame["valid"].to_numpy()
    return _sites(frame["chromosome"], position, m, n, frame["strand"], codes == code)


_BEDMETHYL = (
    ("chromosome", TEXT), ("start", INTEGER), ("end", INTEGER), ("code", TEXT), ("score", NUMBER), ("strand", TEXT),
    ("thick_start", TEXT), ("thick_end", TEXT), ("rgb", TEXT), ("valid", INTEGER), ("percent", NUMBER), ("modified", INTEGER),
    ("canonical", INTEGER), ("other", INTEGER), ("deleted", INTEGER), ("failed", INTEGER), ("different", INTEGER), ("no_call", INTEGER),
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------- methylKit, DSS, MethylDackel


def _methylkit_text(frame: pd.DataFrame, code: str) -> Sites:
    """The counts are those whose rounded percentage is written: exact up to a coverage of about 5,000 with two decimals."""
    n = frame["coverage"].to_numpy()
    m = np.rint(n * frame["freqC"].to_numpy() / 100.0).astype(np.int64)
    return _sites(frame["chr"], frame["base"].to_numpy(), m, n, frame["strand"])


def _methylkit_tabix(frame: pd.DataFrame, code: str) -> Sites:
    return _sites(frame["chr"], frame["start"].to_numpy(), frame["numCs"].to_numpy(), frame["coverage"].to_numpy(), frame["strand"])


def _dss(frame: pd.DataFrame, code: str) -> Sites:
    return _sites(frame["chr"], frame["pos"].to_numpy(), frame["X"].to_numpy(), frame["N"].to_numpy())


_ALL = (
    Format(
        name="bismark_coverage",
        columns=_COVERAGE,
        sites=_coverage(0),
        fits=_is_coverage(0),
    ),
    Format(
        name="bismark_merged",
        columns=_COVERAGE,
        sites=_coverage(0),
        fits=_is_coverage(1, "merged_CpG_evidence"),
    ),
    Format(
        name="bismark_zero",
        columns=_COVERAGE,
        sites=_coverage(1),
        fits=_is_coverage(1, ".zero.cov"),
    ),
    Format(
        name="bismark_report",
        columns=(
            ("chromosome", TEXT),
            ("position", INTEGER),
            ("strand", TEXT),
            ("methylated", INTEGER),
            ("unmethylated", INTEGER),
            ("context", TEXT),
            ("trinucleotide", TEXT),
        ),
        sites=_cytosine_report,
        fits=lambda fields, name: len(fields) == 7 and fields[2] in "+-" and _integers(fields, 1, 3, 4) and not fields[5].isdigit(),
        stranded=True,
    ),
    Format(
        name="bedmethyl",
        columns=_BEDMETHYL,
        sites=_bedmethyl,
        fits=lambda fields, name: len(fields) == 18 and _integers(fields, 1, 2, 9, 11, 12),
        separator=r"\s+",
        comment="#",
        stranded=True,
    ),
    Format(
        name="methylkit",
        columns=(
            ("chrBase", TEXT),
            ("chr", TEXT),
            ("base", INTEGER),
            ("strand", TEXT),
            ("coverage", INTEGER),
            ("freqC", NUMBER),
            ("freqT", NUMBER),
        ),
        sites=_methylkit_text,
        fits=lambda fields, name: list(fields) == ["chrBase", "chr", "base", "strand", "coverage", "freqC", "freqT"],
        header=True,
        separator=r"\s+",
        stranded=True,
    ),
    Format(
        name="methylkit_tabix",
        columns=(
            ("chr", TEXT),
            ("start", INTEGER),
            ("end", INTEGER),
            ("strand", TEXT),
            ("coverage", INTEGER),
            ("numCs", INTEGER),
            ("numTs", INTEGER),
        ),
        sites=_methylkit_tabix,
        fits=lambda fields, name: len(fields) == 7 and fields[3] in "+-*" and _integers(fields, 1, 2, 4, 5, 6),
        comment="#",
        stranded=True,
    ),
    Format(
        name="dss",
        columns=(("chr", TEXT), ("pos", INTEGER), ("N", INTEGER), ("X", INTEGER)),
        sites=_dss,
        fits=lambda fields, name: list(fields) == ["chr", "pos", "N", "X"],
        header=True,
        separator=r"\s+",
    ),
    Format(
        name="methyldackel",
        columns=_COVERAGE,
        sites=_coverage(1),
        fits=lambda fields, name: len(fields) == 6 and _integers(fields, 1, 2, 4, 5) and "bedgraph" in name.lower(),
        comment="track",
    ),
)

FORMATS: Mapping[str, Format] = MappingProxyType({one.name: one for one in _ALL})
"""Every format of one sample a file, by name. (`radmeth`, all samples in one table, is read by `tables`.)"""


def format_named(name: str) -> Format:
    """Return a format by its name.

    Raises
    ------
    DataError
        If there is none of that name.
    """
    if name not in FORMATS:
        raise DataError(f"unknown format {name!r}{suggest(str(name), ['auto', 'radmeth', *FORMATS])}")
    return FORMATS[name]


def recognised(line: str, name: str) -> list[str]:
    """Return the formats that a first line (of data, or header) of a file of this name can be of; of one whose name tells, that alone."""
    found = [one.name for one in _ALL if one.fits(line.rstrip("\r\n").split("\t" if one.separator == "\t" else None), name)]
    return ["methyldackel"] if "methyldackel" in found else found
