"""Methylation calls as tools write them, sound and broken, read from files."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import DataError, DataWarning
from bayeslmm.loci.data import LociData
from bayeslmm.loci.reading import read_methylation

CALLS = {"s1": [(100, 4, 10), (101, 1, 6), (250, 0, 8)], "s2": [(250, 8, 8), (100, 9, 9)]}
"""(position, methylated, coverage): 100 and 101 are the two strands of one CpG, as is 250 alone."""


def _sheet(folder: Path, suffix: str, samples: tuple[str, ...] = ("s1", "s2")) -> Path:
    rows = "".join(f"{name},{name}{suffix},{group}\n" for name, group in zip(samples, ("control", "acid"), strict=False))
    (folder / "samples.csv").write_text("sample_id,path,treatment\n" + rows)
    return folder / "samples.csv"


def _strand(position: int) -> str:
    return "-" if position % 2 else "+"


def _lines(form: str, sample: str) -> str:
    """Write a sample's calls by hand as a tool would."""
    rows = []
    for at, m, n in CALLS[sample]:
        sign, u = _strand(at), n - m
        bed = f"chr1\t{at - 1}\t{at}\tm\t{n}\t{sign}\t{at - 1}\t{at}\t255,0,0\t{n}"
        rows.append(
            {
                "bismark_coverage": f"chr1\t{at}\t{at}\t{100 * m / n:.4f}\t{m}\t{u}",
                "bismark_report": f"chr1\t{at}\t{sign}\t{m}\t{u}\tCG\tCGA",
                "bedmethyl": f"{bed}\t{100 * m / n:.2f}\t{m}\t{u}\t0\t0\t0\t0\t0",
                "bedmethyl_old": f"{bed.replace('m', 'm,CG,0')} {100 * m / n:.2f} {m} {u} 0 0 0 0 0",
                "methylkit": f"chr1.{at}\tchr1\t{at}\t{'R' if sign == '-' else 'F'}\t{n}\t{100 * m / n:.2f}\t{100 * u / n:.2f}",
                "methylkit_tabix": f"chr1\t{at}\t{at}\t{sign}\t{n}\t{m}\t{u}",
                "dss": f"chr1\t{at}\t{n}\t{m}",
                "methyldackel": f"chr1\t{at - 1}\t{at}\t{100 * m // n}\t{m}\t{u}",
            }[form]
        )
    heads = {
        "methylkit": "chrBase\tchr\tbase\tstrand\tcoverage\tfreqC\tfreqT",
        "dss": "chr\tpos\tN\tX",
        "methyldackel": 'track type="bedGraph" description="CpG"',
    }
    return "\n".join([*([heads[form]] if form in heads else []), *rows]) + "\n"


SUFFIXES = {
    "bismark_coverage": ".cov",
    "bismark_report": ".CpG_report.txt",
    "bedmethyl": ".bed",
    "bedmethyl_old": ".bed",
    "methylkit": ".txt",
    "methylkit_tabix": ".txt",
    "dss": ".txt",
    "methyldackel": "_CpG.bedGraph",
}
STRANDED = {"bismark_report", "bedmethyl", "bedmethyl_old", "methylkit", "methylkit_tabix"}


def _write(folder: Path, form: str, packed: bool = False) -> Path:
    suffix = SUFFIXES[form] + (".gz" if packed else "")
    for sample in CALLS:
        path = folder / f"{sample}{suffix}"
        if packed:
            path.write_bytes(gzip.compress(_lines(form, sample).encode()))
        else:
            path.write_text(_lines(form, sample))
    return _sheet(folder, suffix)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", list(SUFFIXES))
def test_every_format_gives_the_same_counts(tmp_path: Path, form: str, packed: bool) -> None:
    data = read_methylation(_write(tmp_path, form, packed), min_coverage=5)
    assert list(data.samples.index) == ["s1", "s2"]
    assert list(data.samples["treatment"]) == ["control", "acid"]
    if form in STRANDED:
        assert list(data.loci.index) == ["chr1:100", "chr1:250"]
        assert data.methylated.tolist() == [[5, 9], [0, 8]]
        assert data.coverage.tolist() == [[16, 9], [8, 8]]
        assert data.notes == ()
    else:
        assert list(data.loci.index) == ["chr1:100", "chr1:101", "chr1:250"]
        assert data.methylated.tolist() == [[4, 9], [1, 0], [0, 8]]
        assert data.coverage.tolist() == [[10, 9], [6, 0], [8, 8]]
        assert "strand" in data.notes[0]


def test_strands_stay_apart_on_request(tmp_path: Path) -> None:
    data = read_methylation(_write(tmp_path, "bismark_report"), destrand=False)
    assert list(data.loci.index) == ["chr1:100", "chr1:101", "chr1:250"]
    assert list(data.loci["strand"]) == ["+", "-", "+"]


def test_other_modifications_and_contexts_are_left_out(tmp_path: Path) -> None:
    report = _lines("bismark_report", "s1") + "chr1\t300\t+\t3\t9\tCHG\tCAG\n"
    (tmp_path / "a.txt").write_text(report)
    bed = _lines("bedmethyl", "s1") + _lines("bedmethyl", "s1").replace("\tm\t", "\th\t").replace("\t4\t6\t", "\t2\t8\t")
    (tmp_path / "b.bed").write_text(bed)
    one = read_methylation(pd.DataFrame({"sample_id": ["a"], "path": [str(tmp_path / "a.txt")]}))
    two = read_methylation(pd.DataFrame({"sample_id": ["b"], "path": [str(tmp_path / "b.bed")]}))
    other = read_methylation(pd.DataFrame({"sample_id": ["b"], "path": [str(tmp_path / "b.bed")]}), modification="h")
    assert one.methylated.tolist() == two.methylated.tolist() == [[5], [0]]
    assert other.methylated.tolist() == [[3], [0]]


def test_a_table_of_all_samples_is_matched_by_name(tmp_path: Path) -> None:
    text = "s2\ts1\nchr1:99:+:CpG\t9\t9\t10\t4\nchr1:100:-:CpG\t0\t0\t6\t1\nchr1:249:+:CpG\t8\t8\t8\t0\n"
    (tmp_path / "table.txt").write_text(text)
    sheet = pd.DataFrame({"sample_id": ["s1", "s2"], "path": [str(tmp_path / "table.txt")] * 2})
    data = read_methylation(sheet)
    assert data.methylated.tolist() == [[5, 9], [0, 8]]
    assert data.coverage.tolist() == [[16, 9], [8, 8]]
    with pytest.raises(DataError, match=r"table\.txt has no sample s3"):
        read_methylation(sheet.assign(sample_id=["s1", "s3"]))
    (tmp_path / "table.txt").write_text(text.replace("9\t9\t10\t4", "9\t11\t10\t4"))
    with pytest.raises(DataError, match=r"table\.txt, line 2: methylated reads above the coverage"):
        read_methylation(sheet)


def test_zero_and_merged_coverage_are_told_by_their_names(tmp_path: Path) -> None:
    line = "chr1\t99\t100\t40.0\t4\t6\n"
    for name, locus in (("a.bismark.zero.cov", "chr1:100"), ("a.CpG_report.merged_CpG_evidence.cov", "chr1:99")):
        (tmp_path / name).write_text(line)
        assert list(read_methylation(pd.DataFrame({"sample_id": ["a"], "path": [str(tmp_path / name)]})).loci.index) == [locus]
    (tmp_path / "a.cov").write_text(line)
    with pytest.raises(DataError, match=r"bismark_merged.*bismark_zero"):
        read_methylation(pd.DataFrame({"sample_id": ["a"], "path": [str(tmp_path / "a.cov")]}))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("chr1\t300\t300\t50\t5", r"line 4: 5 fields, bismark_coverage has 6"),
        ("chr1\t300\t300\t50\t5\t5\t7", r"line 4: 7 fields, bismark_coverage has 6"),
        ("chr1\t300\t300\t50\tx\t5", r"line 4: methylated is 'x', no integer"),
        ("chr1\t300\t300\t50\t-5\t5", r"line 4: a count is negative"),
        ("chr1\t-3\t300\t50\t5\t5", r"line 4: a count is negative, too large, or the position below 1"),
        ("chr1\t300\t300\t50\t5.5\t5", r"line 4: methylated is '5.5', no integer"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, bad: str, said: str) -> None:
    sheet = _write(tmp_path, "bismark_coverage")
    (tmp_path / "s1.cov").write_text(_lines("bismark_coverage", "s1") + bad + "\n")
    with pytest.raises(DataError, match=r"s1\.cov, " + said):
        read_methylation(sheet)


def test_successes_above_coverage_are_named(tmp_path: Path) -> None:
    sheet = _write(tmp_path, "dss")
    (tmp_path / "s2.txt").write_text("chr\tpos\tN\tX\nchr1\t7\t5\t6\n")
    with pytest.raises(DataError, match=r"s2\.txt, line 2: 6 methylated reads of 5"):
        read_methylation(sheet)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    sheet = _write(tmp_path, "bismark_coverage", packed=True)
    path = tmp_path / "s2.cov.gz"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=r"s2\.cov\.gz is truncated"):
        read_methylation(sheet)


def test_a_position_twice_is_named(tmp_path: Path) -> None:
    sheet = _write(tmp_path, "bismark_coverage")
    with (tmp_path / "s1.cov").open("a") as file:
        file.write("chr1\t250\t250\t50\t5\t5\n")
    with pytest.raises(DataError, match="chr1:250 stands twice"):
        read_methylation(sheet)


def test_the_sheet_is_checked(tmp_path: Path) -> None:
    sheet = pd.read_csv(_write(tmp_path, "bismark_coverage"))
    sheet["path"] = [str(tmp_path / path) for path in sheet["path"]]
    with pytest.raises(DataError, match="repeated: s1"):
        read_methylation(sheet.assign(sample_id="s1"))
    with pytest.raises(DataError, match=r"no file .*absent\.cov for sample s2"):
        read_methylation(sheet.assign(path=[sheet["path"][0], "absent.cov"]))
    with pytest.raises(DataError, match="no path for sample s2"):
        read_methylation(sheet.assign(path=[sheet["path"][0], None]))
    with pytest.raises(DataError, match="no column 'sample_id'"):
        read_methylation(sheet.drop(columns="sample_id"))
    with pytest.raises(DataError, match="no column 'path'"):
        read_methylation(sheet.drop(columns="path"))
    with pytest.raises(DataError, match="no sample sheet"):
        read_methylation(tmp_path / "absent.csv")
    with pytest.raises(DataError, match=r"unknown format 'bismrk.*bismark"):
        read_methylation(sheet, format="bismrk_coverage")
    with pytest.raises(DataError, match="no locus"):
        read_methylation(sheet, min_coverage=1000)


def test_integer_codes_warn_and_levels_make_factors(tmp_path: Path) -> None:
    sheet = pd.read_csv(_write(tmp_path, "bismark_coverage")).assign(Treatment=[400, 2800])
    sheet["path"] = [str(tmp_path / path) for path in sheet["path"]]
    with pytest.warns(DataWarning, match=r"\[integer_factor\] 'Treatment' has the integers 400, 2800"):
        read_methylation(sheet)
    data = read_methylation(sheet, levels={"Treatment": [2800, 400]})
    assert list(data.samples["Treatment"].cat.categories) == ["2800", "400"]
    with pytest.raises(DataError, match="not among its levels: 400"):
        read_methylation(sheet, levels={"Treatment": [2800, 500]})


def _many(tmp_path: Path, n: int = 400) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return a sheet of three samples over three chromosomes, and the sites in a long frame, read by nothing of ours."""
    rng = np.random.default_rng(1)
    rows, names = [], ["chr10", "chr2", "chr1"]
    for sample in ("c", "a", "b"):
        at = np.sort(rng.choice(5000, n, replace=False)) + 1
        N = rng.integers(0, 30, n)
        frame = pd.DataFrame({"chrom": rng.choice(names, n), "pos": at, "M": rng.binomial(N, 0.4), "N": N}).sort_values(["chrom", "pos"])
        percent = np.where(frame.N > 0, 100 * frame.M / frame.N.clip(lower=1), 0.0)
        out = pd.DataFrame({"c": frame.chrom, "s": frame.pos, "e": frame.pos, "p": percent, "m": frame.M, "u": frame.N - frame.M})
        out.to_csv(tmp_path / f"{sample}.cov", sep="\t", header=False, index=False)
        rows.append(frame.assign(sample=sample))
    sheet = pd.DataFrame({"sample_id": ["c", "a", "b"], "path": [str(tmp_path / f"{s}.cov") for s in "cab"]})
    return sheet, pd.concat(rows, ignore_index=True)


def test_the_join_is_the_outer_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sheet, long = _many(tmp_path)
    long = long[long["N"] >= 5]
    wide = long.pivot(index=["chrom", "pos"], columns="sample", values="N").fillna(0)[["c", "a", "b"]]
    data = read_methylation(sheet)
    assert list(dict.fromkeys(data.loci["chromosome"])) == ["chr1", "chr2", "chr10"]
    expected = wide.set_axis([f"{chrom}:{pos}" for chrom, pos in wide.index])
    assert data.n_loci == len(expected)
    assert np.array_equal(data.coverage, expected.loc[data.loci.index].to_numpy())
    monkeypatch.setattr("bayeslmm.loci.reading._CHUNK", 37)
    again = read_methylation(sheet)
    assert np.array_equal(again.methylated, data.methylated)
    assert list(again.loci.index) == list(data.loci.index)


def test_limits_of_coverage_and_samples(tmp_path: Path) -> None:
    sheet, _ = _many(tmp_path)
    data = read_methylation(sheet, min_coverage=8, max_coverage=20, min_samples=2, chromosomes=["chr2"])
    assert set(data.loci["chromosome"]) == {"chr2"}
    covered = data.coverage > 0
    assert data.coverage[covered].min() >= 8
    assert data.coverage.max() <= 20
    assert np.all(covered.sum(axis=1) >= 2)


def test_tiles_sum_their_sites(tmp_path: Path) -> None:
    sheet, long = _many(tmp_path)
    data = read_methylation(sheet, regions=100, min_coverage=1, min_sites=3)
    tile = (long["pos"] - 1) // 100 * 100 + 1
    sums = long.assign(tile=tile).groupby(["chrom", "tile", "sample"])[["M", "N"]].sum().unstack(fill_value=0)
    sites = long[long.N > 0].assign(tile=tile).groupby(["chrom", "tile"])["pos"].nunique()
    kept = sites[sites >= 3].index
    assert data.n_loci == len(kept)
    places = list(zip(data.loci["chromosome"], data.loci["start"], strict=True))
    assert np.array_equal(data.coverage, sums["N"][["c", "a", "b"]].loc[places].to_numpy())
    assert np.array_equal(data.methylated, sums["M"][["c", "a", "b"]].loc[places].to_numpy())
    assert data.loci["n_sites"].tolist() == sites.loc[places].tolist()
    chrom, start = places[0]
    assert data.loci.index[0] == f"{chrom}:{start}-{start + 99}"


def test_regions_of_files_may_overlap(tmp_path: Path) -> None:
    sheet, long = _many(tmp_path)
    (tmp_path / "genes.bed").write_text("track name=x\nchr2\t0\t1000\tfirst\nchr2\t499\t2000\tsecond\nchrX\t1\t5\tnone\n")
    gtf = 'chr2\tx\tgene\t1\t1000\t.\t+\t.\tgene_id "first"; other "y"\nchr2\tx\tgene\t500\t2000\t.\t+\t.\tgene_id "second"\n'
    (tmp_path / "genes.gtf").write_text("#comment\n" + gtf)
    own = long[long["chrom"] == "chr2"]
    expected = [[int(own[(own["sample"] == s) & own["pos"].between(*at)]["N"].sum()) for s in "cab"] for at in ((1, 1000), (500, 2000))]
    frame = pd.DataFrame({"chrom": "chr2", "start": [1, 500], "end": [1000, 2000], "name": ["first", "second"]})
    for regions in (tmp_path / "genes.bed", tmp_path / "genes.gtf", frame):
        data: LociData = read_methylation(sheet, regions=regions, min_coverage=1)
        assert list(data.loci.index) == ["first", "second"]
        assert data.coverage.tolist() == expected
    (tmp_path / "bad.bed").write_text("chr2\t0\t1000\nchr2\tx\t7\n")
    with pytest.raises(DataError, match=r"bad\.bed, line 2: not a region"):
        read_methylation(sheet, regions=tmp_path / "bad.bed")
    with pytest.raises(DataError, match="ends before it starts"):
        read_methylation(sheet, regions=frame.assign(end=0))
