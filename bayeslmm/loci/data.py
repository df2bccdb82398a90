"""`LociData`: counts of loci x samples with the table of each; `loci_data` makes it from arrays, frames, files or AnnData."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.data import to_pandas
from bayeslmm.errors import DataError, suggest
from bayeslmm.formula.values import frozen

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LociData", "loci_data", "samples_table"]

type Array = np.ndarray

SAMPLE_NAMES = ("sample_id", "sample", "ID", "id", "Sample", "SampleID")
"""Columns that may hold the samples' names, the first present counts."""
LAYERS = (("M", "methylated"), ("Cov", "coverage", "N"))
"""Layers of an AnnData object: methylated counts, coverage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LociData:
    """Counts of many loci in the same samples; made by `read_methylation` and `loci_data`.

    Attributes
    ----------
    methylated, coverage
        Counts (n_loci, n_samples), uint32: methylated reads (successes) and all reads (trials); 0 of 0 where a sample has none.
    loci
        Frame indexed by locus name, `chr1:10468` (positions count from 1) or the user's own; columns such as
        `chromosome, start, end, strand`, and `n_sites` for regions.
    samples
        Frame indexed by sample name: the covariates that a formula can use, in the order of the counts' columns.
    notes
        What reading left out or changed, a sentence each.
    """

    methylated: Array
    coverage: Array
    loci: pd.DataFrame
    samples: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def n_loci(self) -> int:
        """Number of loci."""
        return len(self.loci)

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.samples)

    def take(self, loci: Sequence[Any] | Array | slice) -> LociData:
        """Return some of the loci: by names, a boolean mask (n_loci,), positions or a slice.

        Raises
        ------
        DataError
            If a name is unknown, or a mask has another length.
        """
        at = self._positions(loci)
        return replace(self, methylated=frozen(self.methylated[at]), coverage=frozen(self.coverage[at]), loci=self.loci.iloc[at])

    def _positions(self, loci: Sequence[Any] | Array | slice) -> Array:
        if isinstance(loci, slice):
            return np.arange(self.n_loci)[loci]
        wanted = np.asarray(loci)
        if wanted.dtype == bool:
            if wanted.shape != (self.n_loci,):
                raise DataError(f"a mask of {wanted.size} for {self.n_loci} loci; give one value a locus")
            return np.flatnonzero(wanted)
        if np.issubdtype(wanted.dtype, np.integer):
            if wanted.size and not -self.n_loci <= wanted.min() <= wanted.max() < self.n_loci:
                raise DataError(f"positions of loci go from 0 to {self.n_loci - 1}")
            return wanted
        return np.array([self.position(str(name)) for name in wanted], dtype=np.int64)

    def position(self, locus: str) -> int:
        """Return the position of a locus by its name.

        Raises
        ------
        DataError
            If there is none of that name.
        """
        found = self.loci.index.get_indexer(pd.Index([locus]))[0]
        if found < 0:
            hint = suggest(locus, [str(name) for name in self.loci.index[:2000]]) if self.n_loci <= 2000 else ""
            raise DataError(f"no locus '{locus}' among {self.n_loci}{hint}")
        return int(found)

    def frame(self, locus: str) -> pd.DataFrame:
        """Return the samples' table with the counts of one locus: `M` methylated, `U` unmethylated, `coverage`."""
        at = self.position(locus)
        m, n = self.methylated[at].astype(np.int64), self.coverage[at].astype(np.int64)
        return self.samples.assign(M=m, U=n - m, coverage=n)

    def __repr__(self) -> str:
        covered = f"{np.mean(self.coverage > 0):.0%} of cells covered" if self.coverage.size else "empty"
        return f"<LociData {self.n_loci} loci x {self.n_samples} samples; {covered}; {', '.join(map(str, self.samples.columns))}>"


def loci_data(methylated: Any, coverage: Any = None, samples: Any = None, loci: Any = None) -> LociData:
    """Gather counts of loci x samples from arrays, frames, files of matrices or an AnnData object.

    Parameters
    ----------
    methylated, coverage
        Methylated and total counts (n_loci, n_samples): arrays, frames whose columns are named by sample (and whose index, or first
        column of text, names the loci), or paths of CSV, TSV or Parquet files of such frames. Frames are aligned by their names, never
        by their order; arrays are taken in the order of `samples`. An AnnData object (samples x loci, layers `M` and `Cov`) stands
        for all four.
    samples
        One row a sample: a frame with a column `sample_id` (or that as its index) and the covariates.
    loci
        One row a locus: a frame (`chromosome`, `start`, ... name the loci `chr1:10468`, counted from 1) or a list of names. Default:
        the index of the frames of counts, or `locus1`, `locus2`, ...

    Returns
    -------
    LociData

    Raises
    ------
    DataError
        If shapes or names do not match, a name stands twice, counts are missing, negative or no whole numbers, or methylated counts
        exceed the coverage; the message names the loci and samples.

    Examples
    --------
    >>> import numpy as np, pandas as pd, bayeslmm as bl
    >>> sheet = pd.DataFrame({"sample_id": ["s1", "s2"], "treatment": ["control", "acid"]})
    >>> bl.loci_data(np.array([[1, 2], [0, 5]]), np.array([[4, 4], [5, 5]]), sheet).n_loci
    2
    """
    if coverage is None and samples is None and hasattr(methylated, "layers"):
        return _of_anndata(methylated)
    if coverage is None or samples is None:
        raise DataError("loci_data needs methylated counts, coverage and the table of samples")
    table = samples_table(samples)
    m, n = _counts(methylated, "methylated", table), _counts(coverage, "coverage", table)
    if isinstance(m, pd.DataFrame) and isinstance(n, pd.DataFrame):
        n = _same_loci(m, n)
    names = next((frame.index for frame in (m, n) if isinstance(frame, pd.DataFrame)), None)
    M, N = np.asarray(m), np.asarray(n)
    if M.shape != N.shape:
        raise DataError(f"methylated counts are {M.shape[0]} x {M.shape[1]}, coverage {N.shape[0]} x {N.shape[1]}; they must match")
    rows = _loci_table(loci, names, len(M))
    _check_counts(M, N, rows.index, table.index)
    return LociData(methylated=frozen(M.astype(np.uint32)), coverage=frozen(N.astype(np.uint32)), loci=rows, samples=table)


def samples_table(samples: Any) -> pd.DataFrame:
    """Return the table of samples indexed by their names.

    Raises
    ------
    DataError
        If no column names the samples, or a name is missing or stands twice.
    """
    frame = to_pandas(samples)
    column = next((name for name in SAMPLE_NAMES if name in frame.columns), None)
    if column is not None:
        frame = frame.set_index(column)
    elif frame.index.name not in SAMPLE_NAMES and isinstance(frame.index, pd.RangeIndex):
        raise DataError(f"the table of samples has no column 'sample_id'{suggest('sample_id', [str(name) for name in frame.columns])}")
    if frame.index.hasnans:
        raise DataError("a sample has no name", column="sample_id", rows=list(np.flatnonzero(frame.index.isna()) + 1))
    frame = frame.set_axis(frame.index.astype(str).rename("sample_id"))
    if not frame.index.is_unique:
        twice = list(dict.fromkeys(frame.index[frame.index.duplicated()]))
        raise DataError(f"sample names must be unique; repeated: {', '.join(twice[:5])}", column="sample_id")
    if not len(frame):
        raise DataError("the table of samples has no rows")
    return frame


def _counts(counts: Any, what: str, samples: pd.DataFrame) -> pd.DataFrame | Array:
    """Return counts in the samples' order: a frame indexed by locus, or an array."""
    if isinstance(counts, str | Path):
        counts = _read_matrix(Path(counts))
    if isinstance(counts, np.ndarray | list | tuple):
        values = np.asarray(counts)
        if values.ndim != 2 or values.shape[1] != len(samples):
            raise DataError(
                f"{what} has shape {values.shape}; it needs loci x {len(samples)} samples, in the order of the table of samples"
            )
        return values
    frame = to_pandas(counts)
    texts = [name for name in frame.columns if name not in samples.index and not pd.api.types.is_numeric_dtype(frame[name])]
    if isinstance(frame.index, pd.RangeIndex) and texts:
        frame = frame.set_index(texts[0])
    absent = [name for name in samples.index if name not in frame.columns]
    if absent:
        raise DataError(f"{what} has no column for sample {', '.join(absent[:5])}{suggest(absent[0], list(frame.columns))}")
    unknown = [name for name in frame.columns if name not in samples.index and pd.api.types.is_numeric_dtype(frame[name])]
    if unknown:
        raise DataError(f"{what} has columns that the table of samples does not name: {', '.join(unknown[:5])}; add or drop them")
    return frame[list(samples.index)]


def _read_matrix(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise DataError(f"no file {path}")
    suffixes = [suffix for suffix in path.suffixes if suffix not in (".gz", ".bgz")]
    try:
        if suffixes[-1:] == [".parquet"]:
            return pd.read_parquet(path)
        return pd.read_csv(path, sep="," if suffixes[-1:] == [".csv"] else "\t", compression="gzip" if path.suffix == ".bgz" else "infer")
    except (ValueError, OSError, EOFError, ImportError) as failure:
        raise DataError(f"{path} cannot be read: {failure}") from failure


def _same_loci(m: pd.DataFrame, n: pd.DataFrame) -> pd.DataFrame:
    """Return the coverage in the order of the methylated counts' loci."""
    for what, frame in (("methylated", m), ("coverage", n)):
        if not frame.index.is_unique:
            raise DataError(f"{what} has loci twice: {', '.join(map(str, frame.index[frame.index.duplicated()][:5]))}")
    apart = m.index.symmetric_difference(n.index)
    if len(apart):
        raise DataError(f"methylated and coverage have different loci, among them {', '.join(map(str, apart[:5]))}")
    return n.loc[m.index]


def _loci_table(loci: Any, names: pd.Index | None, n: int) -> pd.DataFrame:
    """Return the table of loci, indexed by unique names."""
    if loci is None:
        given = None if isinstance(names, pd.RangeIndex) else names
        table = pd.DataFrame(index=pd.Index([f"locus{i + 1}" for i in range(n)] if given is None else [str(name) for name in given]))
    elif isinstance(loci, list | tuple | np.ndarray | pd.Index):
        table = pd.DataFrame(index=pd.Index([str(name) for name in loci]))
    else:
        table = to_pandas(loci)
        if isinstance(table.index, pd.RangeIndex):
            table = table.set_axis(_named(table))
    if len(table) != n:
        raise DataError(f"the table of loci has {len(table)} rows, the counts {n}")
    table = table.set_axis(table.index.astype(str).rename("locus"))
    if not table.index.is_unique:
        raise DataError(f"names of loci must be unique; repeated: {', '.join(table.index[table.index.duplicated()][:5])}")
    return table


def _named(table: pd.DataFrame) -> list[str]:
    """Return the names of loci from their places, or from a column `locus`."""
    if "locus" in table.columns:
        return [str(name) for name in table["locus"]]
    chromosome = next((name for name in ("chromosome", "chrom", "chr") if name in table.columns), None)
    position = next((name for name in ("start", "position", "pos") if name in table.columns), None)
    if chromosome is None or position is None:
        raise DataError("the table of loci needs a column 'locus', or 'chromosome' and 'start'")
    places = [f"{a}:{b}" for a, b in zip(table[chromosome], table[position], strict=True)]
    if "end" in table.columns and bool((table["end"] > table[position] + 1).any()):
        return [f"{place}-{end}" for place, end in zip(places, table["end"], strict=True)]
    return places


def _check_counts(M: Array, N: Array, loci: pd.Index, samples: pd.Index) -> None:
    """Refuse what no counts are, by locus and sample."""

    def refuse(bad: Array, what: str) -> None:
        if np.any(bad):
            row, column = (int(at[0]) for at in np.nonzero(bad))
            raise DataError(f"{what} at locus {loci[row]}, sample {samples[column]} ({int(bad.sum())} in all)")

    for what, values in (("methylated", M), ("coverage", N)):
        if not np.issubdtype(values.dtype, np.number):
            raise DataError(f"{what} counts are no numbers")
        refuse(~np.isfinite(values), f"{what} count is missing; write 0 where a sample has no reads,")
        refuse((values < 0) | (values != np.floor(values)) | (values > np.iinfo(np.uint32).max), f"{what} count is no count")
    refuse(M > N, "methylated count above coverage")


def _of_anndata(data: Any) -> LociData:
    """Read an AnnData object: `obs` samples, `var` loci, layers of counts (samples x loci)."""
    found = []
    for names in LAYERS:
        layer = next((name for name in names if name in data.layers), None)
        if layer is None:
            raise DataError(f"the AnnData object has no layer {' or '.join(repr(name) for name in names)}; it has {list(data.layers)}")
        values = data.layers[layer]
        found.append(np.asarray(values.todense() if hasattr(values, "todense") else values).T)
    samples = data.obs.set_axis(data.obs.index.rename("sample_id"))
    return loci_data(found[0], found[1], samples, data.var)
