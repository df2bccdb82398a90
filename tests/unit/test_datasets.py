"""Example data: the bundled files are R's own, the folder comes first, downloads are verified, refusals are one line."""

from __future__ import annotations

import gzip
import hashlib
import json
import runpy
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bayeslmm import datasets
from bayeslmm.datasets import canonical_text, list_datasets, load_dataset, remote
from bayeslmm.errors import DataError
from tests.support import ROOT, reference_dir

OF_R = {"sleepstudy": 180, "sleepstudy183": 183, "cbpp": 56, "Dyestuff": 30, "Dyestuff2": 30, "Penicillin": 144, "Pastes": 60}
OF_R |= {"grouseticks": 403, "VerbAgg": 7584}
BUNDLED = {**OF_R, "methylation_sets": 23}


@pytest.fixture
def no_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datasets.DATA_DIR, raising=False)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    def refuse(**_: Any) -> str:
        raise ConnectionError("no network in tests")

    monkeypatch.setattr(pooch, "retrieve", refuse)


@pytest.mark.usefixtures("no_folder")
@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_sets_load_with_their_categories(name: str) -> None:
    frame = load_dataset(name)
    assert len(frame) == BUNDLED[name]
    assert not frame.isna().any().any()
    assert any(isinstance(dtype, pd.CategoricalDtype) for dtype in frame.dtypes)


@pytest.mark.usefixtures("no_folder")
def test_known_cells_of_sleepstudy() -> None:
    frame = load_dataset("sleepstudy")
    assert list(frame.columns) == ["Reaction", "Days", "Subject"]
    assert frame.loc[0, "Reaction"] == 249.56
    assert frame.loc[179, "Reaction"] == 364.1236
    assert list(frame["Subject"].cat.categories[:3]) == ["308", "309", "310"]
    assert frame["Days"].dtype.kind == "i"


@pytest.mark.reference
@pytest.mark.usefixtures("no_folder")
@pytest.mark.parametrize("name", OF_R)
def test_bundled_sets_equal_those_read_by_R(name: str) -> None:
    folder = reference_dir() / "datasets"
    described = json.loads((folder / "datasets.json").read_text())[name]["columns"]
    theirs = pd.read_csv(
        folder / f"{name}.csv", dtype={column: str for column, facts in described.items() if facts["type"] in ("factor", "ordered")}
    )
    ours = load_dataset(name)
    for column, facts in described.items():
        if facts["type"] in ("factor", "ordered"):
            assert list(ours[column].cat.categories) == facts["levels"]
            assert ours[column].astype(str).tolist() == theirs[column].tolist()
        else:
            assert ours[column].tolist() == theirs[column].tolist()


@pytest.mark.usefixtures("no_folder")
def test_the_simulated_set_is_what_its_script_makes() -> None:
    script = runpy.run_path(str(ROOT / "models" / "methylation_separated" / "make_data.py"))
    made, bundled = script["simulate"](), load_dataset("methylation_sets")
    assert made.astype(str).to_numpy().tolist() == bundled.astype(str).to_numpy().tolist()
    cell = bundled[(bundled["treatment"] == "400") & (bundled["time"] == "09")]
    assert cell[["uC_b", "mC_c"]].to_numpy().sum() == 0
    assert cell["mC_d"].sum() == 1


@pytest.mark.usefixtures("no_folder")
def test_the_list_names_rows_source_and_citation_of_all() -> None:
    table = list_datasets()
    assert list(table.columns) == ["name", "rows", "source", "citation", "bundled"]
    assert set(BUNDLED) | {"school", "md_red"} == set(table["name"])
    assert table.set_index("name")["rows"].to_dict() == {**BUNDLED, "school": 1200, "md_red": 4720}
    assert (table["source"].str.len() > 5).all()
    assert (table["citation"].str.len() > 20).all()
    assert set(table.loc[~table["bundled"], "name"]) == {"school", "md_red"}


@pytest.mark.usefixtures("no_folder")
def test_a_typo_is_met_with_the_right_name() -> None:
    with pytest.raises(DataError, match="there is no data set 'slepstudy'; did you mean 'sleepstudy'"):
        load_dataset("slepstudy")


@pytest.mark.usefixtures("no_folder", "no_network")
def test_without_a_network_one_line_says_what_to_do() -> None:
    with pytest.raises(
        DataError, match=r"'school' cannot be downloaded .*school\.csv in a folder and name it in BAYESLMM_DATA_DIR"
    ) as caught:
        load_dataset("school")
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("no_network")
def test_the_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datasets.DATA_DIR, str(tmp_path))
    (tmp_path / "sleepstudy.csv").write_text('"Reaction","Days","Subject"\n1.5,0,"308"\n2.5,NA,"309"\n')
    frame = load_dataset("sleepstudy")
    assert frame["Reaction"].tolist() == [1.5, 2.5]
    assert pd.isna(frame["Days"][1])
    assert list(frame["Subject"].cat.categories[:2]) == ["308", "309"]


def test_any_name_of_the_folder_loads_also_compressed_with_its_description(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datasets.DATA_DIR, str(tmp_path))
    (tmp_path / "mine.csv.gz").write_bytes(gzip.compress(b"y,dose,note\n1,low,x\n2,high,\n3,NA,z\n"))
    columns = {"dose": {"type": "ordered", "levels": ["low", "high"]}}
    (tmp_path / "datasets.json").write_text(json.dumps({"mine": {"nrow": 3, "source": "here", "citation": "me", "columns": columns}}))
    frame = load_dataset("mine")
    assert frame["dose"].cat.ordered
    assert frame["dose"].cat.codes.tolist() == [0, 1, -1]
    row = list_datasets().set_index("name").loc["mine"]
    assert (row["rows"], row["source"], row["citation"], row["bundled"]) == (3, "here", "me", False)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Reaction,Days\n1,2\n", "no column 'Subject'"),
        ("Reaction,Days,Subject\n1,2,999\n", "'999', which is none of its levels"),
        ("", "not a CSV table"),
    ],
)
def test_damaged_files_are_refused(content: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(datasets.DATA_DIR, str(tmp_path))
    (tmp_path / "sleepstudy.csv").write_text(content)
    with pytest.raises(DataError, match=message):
        load_dataset("sleepstudy")


def test_names_do_not_leave_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.csv").write_text("a\n1\n")
    monkeypatch.setenv(datasets.DATA_DIR, str(inside))
    with pytest.raises(DataError, match="there is no data set"):
        load_dataset("../secret")


# --- Fetched sets -------------------------------------------------------------------------------------------------------------


RAW_MD = """Experiment,System,Region,SubjectID,Condition,Hemisphere,Effect_Size,Modality,Task
Experiment1,MD,LH_insula,018_X,S,L,9,visual,passive
Experiment20,MD,LH_insula,233_A,S,L,0.25,visual,task
Experiment20,language,LIFG,233_A,S,L,7,visual,task
Experiment19,MD,RH_insula,018_B,W,R,-0.5,visual,task
Experiment19,MD,RH_insula,233_A,W,R,0.125,visual,task
"""


def test_md_red_keeps_its_experiments_in_order_and_renames_subjects_by_sorted_identifier() -> None:
    frame = remote.convert_md_red(RAW_MD.replace("\n", "\r\n"), "address")
    assert frame["Experiment"].tolist() == ["Experiment19", "Experiment19", "Experiment20"]
    assert frame["SubjectID"].tolist() == ["S001", "S002", "S002"]
    assert frame["Effect_Size"].tolist() == [-0.5, 0.125, 0.25]
    assert list(frame.columns) == ["Experiment", "Region", "SubjectID", "Condition", "Hemisphere", "Effect_Size"]


def test_raw_files_that_are_something_else_are_refused() -> None:
    with pytest.raises(DataError, match="has no column 'Experiment'"):
        remote.convert_md_red("<html>not found</html>\n", "address")
    with pytest.raises(DataError, match="has no column 'agree'"):
        remote.convert_school("id,extro,open\n1,2,3\n", "address")


@pytest.mark.reference
@pytest.mark.parametrize("name", ["school", "md_red"])
def test_the_checksum_of_a_fetched_set_is_that_of_the_table_read_by_R(name: str) -> None:
    theirs = pd.read_csv(reference_dir() / "datasets" / f"{name}.csv")
    stated = datasets._registry()[name].sha256
    assert hashlib.sha256(canonical_text(theirs).encode()).hexdigest() == stated


@pytest.mark.reference
@pytest.mark.usefixtures("no_folder")
def test_a_download_is_verified_and_a_wrong_one_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    raw = tmp_path / "school.raw"
    monkeypatch.setattr(pooch, "retrieve", lambda **_: str(raw))
    right = (reference_dir() / "datasets" / "school.csv").read_text()
    raw.write_bytes(right.replace("\n", "\r\r\n").encode())
    frame = load_dataset("school")
    assert frame.shape == (1200, 7)
    assert list(frame["school"].cat.categories) == ["I", "II", "III", "IV", "V", "VI"]
    raw.write_text(right.replace("63.6935560100888", "63.7"))
    with pytest.raises(DataError, match="is not data set 'school' any more"):
        load_dataset("school")
    assert not raw.exists()
