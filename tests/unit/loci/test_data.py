"""Counts of loci from arrays, frames, files and AnnData; what does not fit together is refused by name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import polars as pl
import pytest

from bayeslmm.errors import DataError
from bayeslmm.loci.data import loci_data

SAMPLES = pd.DataFrame({"sample_id": ["s1", "s2", "s3"], "tank": ["t1", "t1", "t2"]})
M = np.array([[1, 2, 3], [0, 0, 4]])
N = np.array([[4, 5, 6], [0, 7, 4]])


def test_arrays() -> None:
    data = loci_data(M, N, SAMPLES)
    assert (data.n_loci, data.n_samples) == (2, 3)
    assert list(data.loci.index) == ["locus1", "locus2"]
    assert data.frame("locus2").to_dict("list") == {"tank": ["t1", "t1", "t2"], "M": [0, 0, 4], "U": [0, 7, 0], "coverage": [0, 7, 4]}
    with pytest.raises(ValueError, match="read-only"):
        data.coverage[0, 0] = 1


@pytest.mark.parametrize("kind", ["pandas", "polars", "csv", "parquet"])
def test_frames_are_aligned_by_name(tmp_path: Path, kind: str) -> None:
    m = pd.DataFrame(M[:, ::-1], columns=["s3", "s2", "s1"], index=["a", "b"])
    n = pd.DataFrame(N, columns=["s1", "s2", "s3"], index=["a", "b"]).loc[["b", "a"]]
    given: list[object] = [m, n]
    if kind == "polars":
        given = [pl.from_pandas(frame.reset_index(names="locus")) for frame in (m, n)]
    if kind in ("csv", "parquet"):
        given = [tmp_path / f"{i}.{kind}" for i in range(2)]
        for frame, path in zip((m, n), given, strict=True):
            named = frame.rename_axis("locus")
            named.to_csv(path) if kind == "csv" else named.reset_index().to_parquet(path)
    data = loci_data(given[0], given[1], SAMPLES)
    assert list(data.loci.index) == ["a", "b"]
    assert data.methylated.tolist() == M.tolist()
    assert data.coverage.tolist() == N.tolist()


def test_places_name_the_loci() -> None:
    places = pd.DataFrame({"chrom": ["chr1", "chr2"], "start": [5, 9]})
    assert list(loci_data(M, N, SAMPLES, places).loci.index) == ["chr1:5", "chr2:9"]
    regions = places.assign(end=[100, 200])
    assert list(loci_data(M, N, SAMPLES, regions).loci.index) == ["chr1:5-100", "chr2:9-200"]
    assert list(loci_data(M, N, SAMPLES, ["x", "y"]).loci.index) == ["x", "y"]


def test_anndata() -> None:
    obs, var = SAMPLES.set_index("sample_id"), pd.DataFrame(index=["a", "b"])
    data = loci_data(SimpleNamespace(layers={"M": M.T, "Cov": N.T}, obs=obs, var=var))
    assert data.methylated.tolist() == M.tolist()
    with pytest.raises(DataError, match="no layer 'Cov'"):
        loci_data(SimpleNamespace(layers={"M": M.T}, obs=obs, var=var))


def test_taking_some() -> None:
    data = loci_data(M, N, SAMPLES, ["x", "y"])
    for wanted in (["y"], np.array([False, True]), np.array([1]), slice(1, 2)):
        assert list(data.take(wanted).loci.index) == ["y"]
        assert data.take(wanted).coverage.tolist() == [[0, 7, 4]]
    with pytest.raises(DataError, match="no locus 'z'"):
        data.take(["z"])
    with pytest.raises(DataError, match="a mask of 3 for 2 loci"):
        data.take(np.array([True, False, True]))
    with pytest.raises(DataError, match="from 0 to 1"):
        data.take(np.array([2]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"methylated": N + 1}, "methylated count above coverage at locus locus1, sample s1"),
        ({"methylated": M - 1}, "methylated count is no count at locus locus2, sample s1"),
        ({"methylated": M + 0.5}, "no count"),
        ({"coverage": np.where(N == 7, np.nan, N)}, "coverage count is missing.*locus locus2, sample s2"),
        ({"coverage": N[:, :2]}, r"coverage has shape \(2, 2\)"),
        ({"coverage": N[:1]}, "methylated counts are 2 x 3, coverage 1 x 3"),
        ({"samples": SAMPLES.assign(sample_id="s1")}, "repeated: s1"),
        ({"samples": SAMPLES.assign(sample_id=["s1", None, "s3"])}, "has no name"),
        ({"samples": SAMPLES.drop(columns="sample_id")}, "no column 'sample_id'"),
        ({"loci": ["a"]}, "has 1 rows, the counts 2"),
        ({"loci": ["a", "a"]}, "unique"),
        ({"methylated": pd.DataFrame(M, columns=["s1", "s2", "sx"])}, "no column for sample s3"),
        ({"methylated": pd.DataFrame(M, columns=["s1", "s2", "s3"]).assign(s4=1)}, "does not name: s4"),
        ({"methylated": "absent.csv"}, "no file"),
        ({"coverage": None}, "needs methylated counts, coverage and the table"),
    ],
)
def test_what_does_not_fit_is_named(change: dict[str, object], said: str) -> None:
    given = {"methylated": M, "coverage": N, "samples": SAMPLES, "loci": None} | change
    with pytest.raises(DataError, match=said):
        loci_data(given["methylated"], given["coverage"], given["samples"], given["loci"])
