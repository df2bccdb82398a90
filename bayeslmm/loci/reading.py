"""`read_methylation`: a sample sheet and its files of methylation calls into `LociData`, chromosome by chromosome."""

from __future__ import annotations

import gzip
import tempfile
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from bayeslmm.data import to_pandas
from bayeslmm.errors import DataError, DataWarning
from bayeslmm.formula.values import frozen
from bayeslmm.loci.data import LociData, samples_table
from bayeslmm.loci.formats import FORMATS, NO_STRAND, NUMBER, TEXT, Format, Sites, format_named, recognised
from bayeslmm.loci.regions import Regions, regions_of

__all__ = ["read_methylation"]

type Array = np.ndarray

_CHUNK = 500_000
"""Lines read at once."""
_FEW = 6
"""A covariate of at most so many different integers looks like the codes of a factor."""
_SITE = np.dtype([("position", "<i8"), ("strand", "i1"), ("methylated", "<u4"), ("coverage", "<u4")])
_RADMETH = "radmeth"


def read_methylation(
    sample_sheet: Any,
    *,
    format: str = "auto",
    destrand: bool = True,
    min_coverage: int = 5,
    min_samples: int = 1,
    max_coverage: int | None = None,
    regions: Any = None,
    min_sites: int = 1,
    levels: Mapping[str, Sequence[Any]] | None = None,
    modification: str = "m",
    chromosomes: Sequence[str] | None = None,
) -> LociData:
    """Read the methylation calls of many samples, join them by position and keep what is covered.

    Files are read in pieces and joined one chromosome at a time; memory holds one chromosome of all samples beside the result.

    Parameters
    ----------
    sample_sheet
        Path of a CSV or TSV file, or a frame: one row a sample with `sample_id`, `path` (relative to the sheet) and the covariates. Where
        all samples stand in one table (`radmeth`), the same path for each.
    format
        `"auto"` (by the first line and, where that cannot tell, the name), or `"bismark_coverage"`, `"bismark_merged"`,
        `"bismark_zero"`, `"bismark_report"`, `"bedmethyl"` (modkit, old and new), `"methylkit"`, `"methylkit_tabix"`, `"dss"`,
        `"methyldackel"`, `"radmeth"`. Plain text, gzip and bgzip are read.
    destrand
        Whether the two strands of a CpG are added up at the position of its C on the forward strand. Formats that do not tell the
        strand are taken as they are, with a note.
    min_coverage, max_coverage
        Reads that a sample needs (default 5), and may have at most (default: any number), at a locus; otherwise it counts as not
        covered there. Of regions, it is the sum that is judged by `min_coverage`, each site by `max_coverage`.
    min_samples
        Samples that have to be covered for a locus to be kept, 1 by default.
    regions
        None: single sites; a number: tiles of so many bases; a BED or GTF file or a frame (`chromosome, start, end[, name]`, counted
        from 1, both ends in): counts are summed over the sites of each. Sums vary more than a binomial: fit them as `beta_binomial`.
    min_sites
        Sites that a region needs, 1 by default.
    levels
        Covariate -> its levels, the reference first: that covariate becomes a factor.
    modification
        The code that counts as methylated in bedMethyl: `"m"` or `"h"`.
    chromosomes
        Those to keep; default: all.

    Returns
    -------
    LociData
        Loci are named `chr1:10468` (counted from 1), regions by their names.

    Raises
    ------
    DataError
        If the sheet, a file or a line cannot be used: a missing file, a sample named twice, a truncated file, a line with the wrong
        number of fields, no numbers, or more methylated reads than reads. File and line are named.

    Warns
    -----
    DataWarning
        `integer_factor`: a covariate of few integers enters as a number; name its `levels` if it is a factor.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> data = bl.read_methylation("samples.csv", regions="genes.gtf")  # doctest: +SKIP
    """
    if min_coverage < 1 or min_samples < 1 or min_sites < 1 or (max_coverage is not None and max_coverage < min_coverage):
        raise DataError("min_coverage, min_samples and min_sites are at least 1, and max_coverage at least min_coverage")
    samples, paths = _sheet(sample_sheet, levels)
    wanted = regions_of(regions)
    limits = _Limits(destrand, min_coverage, max_coverage if max_coverage is not None else np.iinfo(np.uint32).max, min_samples, min_sites)
    keep = None if chromosomes is None else frozenset(chromosomes)
    with tempfile.TemporaryDirectory() as folder:
        store = _Store(Path(folder))
        stranded = _scatter(store, samples, paths, format, modification, keep)
        pieces = [_joined(store, len(samples), chromosome, wanted, limits) for chromosome in store.chromosomes()]
    notes = () if stranded or not destrand else ("the files do not tell the strand: strands were left as they are",)
    return _gathered(pieces, samples, notes, paths)


# ------------------------------------------------------------------------------------------------------------------------ the sheet


def _sheet(sheet: Any, levels: Mapping[str, Sequence[Any]] | None) -> tuple[pd.DataFrame, list[Path]]:
    """Return the samples' covariates and the paths of their files."""
    base = Path()
    if isinstance(sheet, str | Path):
        path = Path(sheet)
        if not path.is_file():
            raise DataError(f"no sample sheet {path}")
        base = path.parent
        try:
            sheet = pd.read_csv(path, sep="\t" if path.suffix in (".tsv", ".txt") else ",")
        except (ValueError, OSError) as failure:
            raise DataError(f"{path} is no sample sheet: {failure}") from failure
    frame = samples_table(to_pandas(sheet))
    if "path" not in frame.columns:
        raise DataError("the sample sheet has no column 'path'", column="path")
    bare = frame.index[frame["path"].isna()]
    if len(bare):
        raise DataError(f"no path for sample {', '.join(bare)}", column="path")
    paths = [base / str(path) for path in frame["path"]]
    for sample, path in zip(frame.index, paths, strict=True):
        if not path.is_file():
            raise DataError(f"no file {path} for sample {sample}", column="path")
    return _with_levels(frame.drop(columns="path"), levels or {}), paths


def _with_levels(frame: pd.DataFrame, levels: Mapping[str, Sequence[Any]]) -> pd.DataFrame:
    """Make factors of the covariates whose levels are given, and warn of integers that look like codes."""
    made = {}
    for name, known in levels.items():
        if name not in frame.columns:
            raise DataError(
                f"levels for '{name}', which the sample sheet has not; it has {', '.join(map(str, frame.columns))}", column=name
            )
        texts, wanted = frame[name].astype(str), [str(level) for level in known]
        unknown = sorted(set(texts) - set(wanted))
        if unknown:
            raise DataError(f"'{name}' has values that are not among its levels: {', '.join(unknown[:5])}", column=name)
        made[name] = pd.Categorical(texts, categories=wanted)
    for name in frame.columns:
        if name not in made and pd.api.types.is_integer_dtype(frame[name]) and frame[name].nunique() <= _FEW:
            values = ", ".join(map(str, sorted(frame[name].unique())))
            message = (
                f"'{name}' has the integers {values}: it enters a formula as a number; if it is a factor, give levels={{'{name}': [...]}}"
            )
            warnings.warn(DataWarning("integer_factor", message), stacklevel=4)
    return frame.assign(**made)


# ------------------------------------------------------------------------------------------------------------------------ the files


@dataclass(frozen=True, slots=True)
class _Limits:
    destrand: bool
    min_coverage: int
    max_coverage: int
    min_samples: int
    min_sites: int


@dataclass(frozen=True, slots=True)
class _Store:
    """Sites of each sample and chromosome as records, on disk while files are read."""

    folder: Path

    def add(self, sample: int, sites: Sites) -> None:
        codes, names = pd.factorize(sites.chromosome)
        for code, name in enumerate(names):
            own = np.flatnonzero(codes == code)
            records = np.empty(len(own), dtype=_SITE)
            for field in _SITE.names or ():
                records[field] = getattr(sites, field)[own]
            place = self.folder / _escaped(str(name))
            place.mkdir(exist_ok=True)
            with (place / str(sample)).open("ab") as file:
                file.write(records.tobytes())

    def chromosomes(self) -> list[str]:
        """Return the names of the chromosomes met, `chr2` before `chr10`."""
        import re

        names = [_unescaped(place.name) for place in self.folder.iterdir()]
        return sorted(
            names, key=lambda name: [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", name)]
        )

    def read(self, chromosome: str, sample: int) -> Array:
        path = self.folder / _escaped(chromosome) / str(sample)
        return np.fromfile(path, dtype=_SITE) if path.exists() else np.empty(0, dtype=_SITE)


def _escaped(name: str) -> str:
    return "c" + name.encode().hex()


def _unescaped(name: str) -> str:
    return bytes.fromhex(name[1:]).decode()


def _scatter(
    store: _Store, samples: pd.DataFrame, paths: Sequence[Path], name: str, modification: str, keep: frozenset[str] | None
) -> bool:
    """Read all files into the store; return whether they tell the strand."""
    if name == _RADMETH or (name == "auto" and _is_table(paths[0])):
        _scatter_tables(store, samples, paths, keep)
        return True
    told = []
    for sample, path in enumerate(paths):
        form = _recognise(path) if name == "auto" else format_named(name)
        for sites in _sites_of(path, form, modification):
            store.add(sample, _selected(sites, sites.keep if keep is None else sites.keep & np.isin(sites.chromosome, list(keep))))
        told.append(form.stranded)
    return all(told)


def _selected(sites: Sites, keep: Array) -> Sites:
    if keep.all():
        return sites
    return Sites(
        chromosome=sites.chromosome[keep],
        position=sites.position[keep],
        strand=sites.strand[keep],
        methylated=sites.methylated[keep],
        coverage=sites.coverage[keep],
        keep=keep[keep],
    )


def _compressed(path: Path) -> bool:
    """Whether a file is gzip or bgzip: told by its first bytes, whatever its name."""
    with path.open("rb") as raw:
        return raw.read(2) == b"\x1f\x8b"


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    """Open a text file, plain or compressed."""
    with gzip.open(path, "rt", encoding="utf8") if _compressed(path) else path.open(encoding="utf8") as file:
        yield file


_BROKEN = (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError)


def _first_line(path: Path) -> str:
    """Return the first line that is no comment."""
    try:
        with _opened(path) as lines:
            return next((line for line in lines if line.strip() and not line.startswith(("#", "track", "browser"))), "")
    except _BROKEN as failure:
        raise DataError(f"{path} is truncated or no text: {failure}") from failure


def _recognise(path: Path) -> Format:
    """Return the format of a file by its first line and name.

    Raises
    ------
    DataError
        If it is none, or could be several.
    """
    line = _first_line(path)
    if not line:
        raise DataError(f"{path} is empty")
    found = recognised(line, path.name)
    if len(found) == 1:
        return FORMATS[found[0]]
    fields = line.rstrip("\n").split("\t")
    if len(fields) == 6 and not found:
        hint = "where end = start + 1, give format='bismark_merged' (from 1) or 'bismark_zero' (from 0)"
    else:
        hint = f"give format= one of {', '.join(FORMATS)}, {_RADMETH}"
    raise DataError(f"{path} is of no known format (first line: {line.strip()[:80]!r}); {hint}")


def _sites_of(path: Path, form: Format, modification: str) -> Iterator[Sites]:
    """Yield a file's sites piece by piece, checked.

    Raises
    ------
    DataError
        With file and line, if one cannot be used.
    """
    names = [name for name, _ in form.columns]
    kinds = {name: _DTYPES[kind] for name, kind in form.columns}
    try:
        with gzip.open(path) if _compressed(path) else path.open("rb") as file:
            pieces = pd.read_csv(
                file,
                sep=form.separator,
                names=names,
                header=0 if form.header else None,
                comment=None if form.comment == "track" else form.comment,
                skiprows=_skipped(path, form),
                dtype=kinds,
                chunksize=_CHUNK,
                index_col=False,
                na_filter=False,
                quoting=3,
                engine="c",
            )
            for frame in pieces:
                sites = form.sites(frame, modification)
                if np.any(_bad(sites)):
                    raise ValueError("a count or strand is not possible")
                yield sites
    except _BROKEN as failure:
        raise DataError(f"{path} is truncated or no text: {failure}") from failure
    except (ValueError, OverflowError) as failure:
        raise _named(path, form, modification, failure) from failure


_DTYPES: Mapping[str, Any] = {"integer": np.int64, NUMBER: np.float64, TEXT: object}


def _skipped(path: Path, form: Format) -> int:
    """Return how many lines of a genome browser's stand first."""
    if form.comment != "track":
        return 0
    with _opened(path) as lines:
        return int(next(lines, "").startswith("track"))


def _bad(sites: Sites) -> Array:
    """Return which rows have impossible counts, positions or strands."""
    wrong: Array = (sites.methylated < 0) | (sites.methylated > sites.coverage) | (sites.coverage > np.iinfo(np.uint32).max)
    wrong |= (sites.position < 1) | (sites.strand == NO_STRAND)
    return wrong


def _named(path: Path, form: Format, modification: str, failure: Exception) -> DataError:
    """Return the error that names the first line that cannot be used."""
    with _opened(path) as lines:
        header = form.header
        for number, line in enumerate(lines, 1):
            if not line.strip() or (form.comment and line.startswith(form.comment)):
                continue
            if header:
                header = False
                continue
            reason = _reason(line, form, modification)
            if reason:
                return DataError(f"{path}, line {number}: {reason} ({line.strip()[:80]!r})")
    return DataError(f"{path} cannot be read as {form.name}: {failure}")


def _reason(line: str, form: Format, modification: str) -> str:
    """Return what is wrong with a line; nothing where it is sound."""
    fields = line.rstrip("\r\n").split("\t" if form.separator == "\t" else None)
    if len(fields) != len(form.columns):
        return f"{len(fields)} fields, {form.name} has {len(form.columns)}"
    row: dict[str, list[Any]] = {}
    for (name, kind), text in zip(form.columns, fields, strict=True):
        try:
            row[name] = [text if kind == TEXT else float(text) if kind == NUMBER else int(text)]
        except ValueError:
            return f"{name} is {text!r}, no {kind}"
    sites = form.sites(pd.DataFrame(row), modification)
    if sites.strand[0] == NO_STRAND:
        return "the strand is none of + - ."
    if sites.methylated[0] > sites.coverage[0]:
        return f"{sites.methylated[0]} methylated reads of {sites.coverage[0]}"
    return "a count is negative, too large, or the position below 1" if _bad(sites)[0] else ""


# ------------------------------------------------------------------------------------------------------- tables of several samples


def _is_table(path: Path) -> bool:
    """Whether a file is a proportion table of RADMeth: a header of names, then `chr:pos:strand:context` and pairs of counts."""
    try:
        with _opened(path) as lines:
            header, row = next(lines, "").split(), next(lines, "").split()
    except _BROKEN as failure:
        raise DataError(f"{path} is truncated or no text: {failure}") from failure
    return len(header) > 0 and len(row) == 2 * len(header) + 1 and row[0].count(":") == 3


def _scatter_tables(store: _Store, samples: pd.DataFrame, paths: Sequence[Path], keep: frozenset[str] | None) -> None:
    for path in dict.fromkeys(paths):
        own = {str(sample): at for at, (sample, place) in enumerate(zip(samples.index, paths, strict=True)) if place == path}
        try:
            with _opened(path) as lines:
                header = next(lines, "").split()
                absent = [name for name in own if name not in header]
                if absent:
                    raise DataError(f"{path} has no sample {', '.join(absent)}; it has {', '.join(header[:10])}")
                rows = [_table_row(path, number, line, len(header)) for number, line in enumerate(lines, 2) if line.strip()]
        except _BROKEN as failure:
            raise DataError(f"{path} is truncated or no text: {failure}") from failure
        places = [row[0] for row in rows]
        counts = np.array([row[1] for row in rows], dtype=np.int64).reshape(len(rows), 2 * len(header))
        chromosome = np.array([place[0] for place in places], dtype=object)
        for name, at in own.items():
            column = 2 * header.index(name)
            sites = Sites(
                chromosome=chromosome,
                position=np.array([place[1] for place in places], dtype=np.int64),
                strand=np.array([place[2] for place in places], dtype=np.int8),
                methylated=counts[:, column + 1],
                coverage=counts[:, column],
                keep=np.ones(len(rows), dtype=bool),
            )
            store.add(at, sites if keep is None else _selected(sites, np.isin(chromosome, list(keep))))


def _table_row(path: Path, number: int, line: str, n_samples: int) -> tuple[tuple[str, int, int], list[int]]:
    """Return the place (dnmtools counts from 0) and the counts `N X N X ...` of a line."""
    fields = line.split()
    try:
        chromosome, position, strand, _ = fields[0].rsplit(":", 3)
        counts = [int(text) for text in fields[1:]]
        place = (chromosome, int(position) + 1, {"+": 1, "-": -1, ".": 0}[strand])
    except (ValueError, KeyError) as failure:
        raise DataError(f"{path}, line {number}: not chr:pos:strand:context and whole numbers ({line.strip()[:80]!r})") from failure
    if len(counts) != 2 * n_samples:
        raise DataError(f"{path}, line {number}: {len(counts)} counts for {n_samples} samples; each has coverage and methylated")
    if any(not 0 <= m <= n for n, m in zip(counts[::2], counts[1::2], strict=True)):
        raise DataError(f"{path}, line {number}: methylated reads above the coverage ({line.strip()[:80]!r})")
    return place, counts


# ------------------------------------------------------------------------------------------------------------------------- the join


def _joined(store: _Store, n_samples: int, chromosome: str, regions: Regions | None, limits: _Limits) -> tuple[pd.DataFrame, Array, Array]:
    """Return the loci of one chromosome with their counts, methylated and coverage (loci, samples)."""
    found = [_one_strand(store.read(chromosome, sample), limits, chromosome, sample) for sample in range(n_samples)]
    position = np.unique(np.concatenate([records["position"] for records in found]))
    strand = np.zeros(len(position), dtype=np.int8)
    M, N = (np.zeros((len(position), n_samples), dtype=np.uint32) for _ in range(2))
    for sample, records in enumerate(found):
        at = np.searchsorted(position, records["position"])
        M[at, sample], N[at, sample], strand[at] = records["methylated"], records["coverage"], records["strand"]
    over = limits.max_coverage < N
    M[over] = N[over] = 0
    signs = np.array(["-", ".", "+"])[strand + 1]
    places = pd.DataFrame({"chromosome": chromosome, "start": position, "end": position, "strand": signs})
    if regions is not None:
        places, M, N = _summed(chromosome, position, M, N, regions, limits)
    under = limits.min_coverage > N
    M[under] = N[under] = 0
    kept = np.sum(N > 0, axis=1) >= limits.min_samples
    return places[kept], M[kept], N[kept]


def _one_strand(records: Array, limits: _Limits, chromosome: str, sample: int) -> Array:
    """Return records in order of position, one for each; the strands of a CpG added up if asked for."""
    if limits.destrand and len(records):
        records = records.copy()
        reverse = records["strand"] == -1
        records["position"][reverse] -= 1
        records["strand"] = 0
        at, inverse = np.unique(records["position"], return_inverse=True)
        made = np.zeros(len(at), dtype=_SITE)
        made["position"] = at
        for field in ("methylated", "coverage"):
            made[field] = np.bincount(inverse, weights=records[field], minlength=len(at)).astype(np.uint32)
        twice = np.bincount(inverse * 2 + reverse, minlength=2 * len(at)) > 1
        _refuse_repeated(made["position"][np.flatnonzero(twice) // 2], chromosome, sample)
        return made
    records = records[np.argsort(records["position"], kind="stable")]
    _refuse_repeated(records["position"][1:][np.diff(records["position"]) == 0], chromosome, sample)
    return records


def _refuse_repeated(positions: Array, chromosome: str, sample: int) -> None:
    if len(positions):
        raise DataError(f"{chromosome}:{positions[0]} stands twice in the file of sample {sample + 1}; its lines must be unique")


def _summed(chromosome: str, position: Array, M: Array, N: Array, regions: Regions, limits: _Limits) -> tuple[pd.DataFrame, Array, Array]:
    """Return the regions met with the sums of their sites."""
    site, region, table = regions.of(chromosome, position)
    sums = []
    for counts in (M, N):
        total = np.zeros((len(table), M.shape[1]), dtype=np.uint32)
        np.add.at(total, region, counts[site])
        sums.append(total)
    covered = np.bincount(region[np.any(N[site] > 0, axis=1)], minlength=len(table))
    kept = covered >= limits.min_sites
    table = table.assign(strand=".", n_sites=covered)
    return table[kept].reset_index(drop=True), sums[0][kept], sums[1][kept]


def _gathered(
    pieces: Sequence[tuple[pd.DataFrame, Array, Array]], samples: pd.DataFrame, notes: tuple[str, ...], paths: Sequence[Path]
) -> LociData:
    """Return the chromosomes' loci in one, or refuse where nothing is left."""
    pieces = [piece for piece in pieces if len(piece[0])]
    if not pieces:
        raise DataError(f"no locus of {paths[0].name} and the other files is left: lower min_coverage or min_samples, or widen the regions")
    loci = pd.concat([piece[0] for piece in pieces], ignore_index=True)
    M, N = (np.concatenate([piece[part] for piece in pieces]) for part in (1, 2))
    names = loci["name"] if "name" in loci.columns else loci["chromosome"].astype(str) + ":" + loci["start"].astype(str)
    repeated = names.duplicated(keep=False)
    places = loci["chromosome"].astype(str) + ":" + loci["start"].astype(str) + "-" + loci["end"].astype(str)
    names = names.where(~repeated, places)
    loci = loci.drop(columns="name", errors="ignore").set_axis(pd.Index(names, name="locus", dtype="str"))
    if not loci.index.is_unique:
        raise DataError(f"two regions are the same: {loci.index[loci.index.duplicated()][0]}")
    bare = list(samples.index[~np.any(N > 0, axis=0)])
    if bare:
        notes = (*notes, f"no locus is covered in sample {', '.join(map(str, bare))}")
    return LociData(methylated=frozen(M), coverage=frozen(N), loci=loci, samples=samples, notes=notes)
