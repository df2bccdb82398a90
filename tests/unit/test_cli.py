"""The command line: exit codes, one line on stderr for what cannot be used, never a traceback; the engines are fakes here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bayeslmm import cli
from bayeslmm.datasets import load_dataset
from bayeslmm.errors import SingularFitWarning
from tests.support import ROOT
from tests.unit.fakes import FakeFit, FakePosterior, compared

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture
def sleep(tmp_path: Path) -> Path:
    path = tmp_path / "sleep.csv"
    load_dataset("sleepstudy").to_csv(path, index=False)
    return path


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Put fakes in place of the engines; returns the settings that they were given."""
    given: dict[str, Any] = {"sound": True}

    def both(model: Any, sampling: Any) -> Any:
        given.update(sampling, engine="both")
        return compared(FakeFit(model, sound=given["sound"]), FakePosterior(model))

    def reml(model: Any, sampling: Any) -> Any:
        import warnings

        given["engine"] = "reml"
        warnings.warn(SingularFitWarning("singular", "a variance\nof zero"), stacklevel=2)
        return FakeFit(model)

    def nuts(model: Any, sampling: Any) -> Any:
        given["engine"] = "nuts"
        return FakePosterior(model)

    monkeypatch.setattr(cli, "_ENGINES", {cli.Engine.both: both, cli.Engine.reml: reml, cli.Engine.nuts: nuts})
    return given


def invoke(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["bayeslmm", *arguments])
    with pytest.raises(SystemExit) as left:
        cli.main()
    out, err = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, out, err


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *arguments: invoke(monkeypatch, capsys, *(str(argument) for argument in arguments))


def test_fit_prints_both_engines_and_the_table_and_writes_the_report(
    command: Any, sleep: Path, engines: dict[str, Any], tmp_path: Path
) -> None:
    report = tmp_path / "r" / "report.html"
    code, out, err = command("fit", sleep, FORMULA, "--report", report, "--chains", 2, "--draws", 50, "--tune", 60, "--seed", 3)
    assert (code, err) == (0, "")
    for wanted in ("A print-out of", "Side by side", "Days.(Intercept)", "agree", "all checks passed", str(report)):
        assert wanted in out
    assert report.read_text().startswith("<!DOCTYPE html>")
    assert [engines[name] for name in ("chains", "draws", "tune", "seed", "progressbar")] == [2, 50, 60, 3, False]


def test_a_failed_check_is_named_and_gives_exit_code_one(command: Any, sleep: Path, engines: dict[str, Any]) -> None:
    engines["sound"] = False
    code, out, err = command("fit", sleep, FORMULA)
    assert code == 1
    assert err == "bayeslmm: checks failed: REML: gradient\n"
    assert "1 check failed" in out


def test_an_engine_that_refused_is_named(command: Any, sleep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bayeslmm.compare import Comparison

    def refused(model: Any, sampling: Any) -> Any:
        fit = FakePosterior(model)
        return Comparison(fits=(fit,), labels=("NUTS",), table=fit.estimates, absent=(("REML", "it cannot"),))

    monkeypatch.setattr(cli, "_ENGINES", {cli.Engine.both: refused})
    code, out, err = command("fit", sleep, FORMULA)
    assert (code, err) == (1, "bayeslmm: checks failed: REML: no fit\n")
    assert "REML gave no fit: it cannot" in out


def test_one_engine_alone_and_warnings_in_one_line(command: Any, sleep: Path, engines: dict[str, Any]) -> None:
    code, out, err = command("fit", sleep, FORMULA, "--engine", "reml")
    assert (code, engines["engine"]) == (0, "reml")
    assert err == "bayeslmm: warning: [singular] a variance of zero\n"
    assert "Side by side" not in out
    assert command("fit", sleep, FORMULA, "--engine", "nuts")[0] == 0
    assert engines["engine"] == "nuts"


def test_explain_says_what_the_formula_means(command: Any, sleep: Path) -> None:
    code, out, err = command("explain", sleep, FORMULA)
    assert (code, err) == (0, "")
    for wanted in ("Rows:    180 used of 180", "18 levels x 2 effects", r"\beta_{0}", "student_t(3, 0, 59.3)"):
        assert wanted in out


def test_run_gives_the_gallery_what_was_asked(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bayeslmm import gallery

    monkeypatch.setattr(
        gallery, "ENGINES", {"reml": lambda ready, case, bar: FakeFit(ready), "nuts": lambda ready, case, bar: FakePosterior(ready)}
    )
    code, out, err = command("run", ROOT / "models" / "dyestuff2", "--out", tmp_path / "o", "--draws", "9")
    assert (code, err) == (0, "")
    assert "Dyestuff" in out
    assert (tmp_path / "o" / "report.html").exists()


# --- Saved fits ---------------------------------------------------------------------------------------------------------------


def test_a_fit_is_saved_reported_and_checked(command: Any, sleep: Path, tmp_path: Path) -> None:
    saved, report = tmp_path / "fit.blmm", tmp_path / "again.html"
    code, out, err = command("fit", sleep, FORMULA, "--engine", "reml", "--save", saved)
    assert (code, err) == (0, "")
    assert f"saved: {saved}" in out
    code, out, err = command("check", saved)
    assert (code, err) == (0, "")
    assert out.startswith(f"REML: {FORMULA}\nok ")
    assert "singular" in out
    code, out, err = command("report", saved, report)
    assert (code, err) == (0, "")
    assert f"report: {report}" in out
    assert report.read_text().startswith("<!DOCTYPE html>")


def test_both_engines_are_saved_as_a_comparison(command: Any, sleep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bayeslmm as bl

    def both(model: Any, sampling: Any) -> Any:
        return bl.compare(bl.lmer(model), bl.lmer(model, reml=False))

    monkeypatch.setattr(cli, "_ENGINES", {cli.Engine.both: both})
    saved = tmp_path / "both.blmm"
    assert command("fit", sleep, FORMULA, "--save", saved)[0] == 0
    assert bl.load(saved).labels == ("REML", "ML")  # type: ignore[union-attr]
    code, out, err = command("check", saved)
    assert (code, err) == (0, "")
    assert [line for line in out.splitlines() if line.endswith(FORMULA)] == [f"REML: {FORMULA}", f"ML: {FORMULA}"]


def test_a_saved_fit_that_fails_its_checks_is_exit_code_one(command: Any, tmp_path: Path) -> None:
    data, saved = tmp_path / "dyestuff2.csv", tmp_path / "fit.blmm"
    load_dataset("Dyestuff2").to_csv(data, index=False)
    assert command("fit", data, "Yield ~ 1 + (1 | Batch)", "--engine", "reml", "--save", saved)[0] == 1
    code, out, err = command("check", saved)
    assert code == 1
    assert err == "bayeslmm: checks failed: REML: singular\n"
    assert "FAIL  singular" in out
    assert command("report", saved, tmp_path / "out.md")[0] == 1
    assert (tmp_path / "out.md").exists()


def test_a_saved_fit_that_cannot_be_used_is_exit_code_two(command: Any, sleep: Path, tmp_path: Path) -> None:
    (tmp_path / "other.blmm").write_text("y,x\n1,2\n")
    for arguments, message in (
        (("check", tmp_path / "none.blmm"), "none.blmm: no such file"),
        (("check", tmp_path / "other.blmm"), "other.blmm is not a file that `fit.save` wrote"),
        (("report", tmp_path / "other.blmm", tmp_path / "o.html"), "other.blmm is not a file that `fit.save` wrote"),
        (("report", tmp_path / "other.blmm", tmp_path / "o.png"), "o.png: a report is written as .html"),
        (("fit", sleep, FORMULA, "--save", tmp_path / "none" / "fit.blmm"), "there is no folder"),
    ):
        code, out, err = command(*arguments)
        assert (code, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
    assert not (tmp_path / "o.html").exists()


# --- What cannot be used ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "none.csv: no such file"),
        ("empty.csv", "", "is empty; it needs a line of column names"),
        ("head.csv", "Reaction,Days,Subject\n", "holds no rows of data"),
        ("data.xlsx", "x", "files of type '.xlsx' cannot be read; give a .csv"),
        ("ragged.csv", "Reaction,Days,Subject\n1,2,a\n1,2,3,4,5\n", "is not a table"),
        ("bytes.csv", b"Reaction,Days,Subject\n1,2,\xff\xfe\n", "is not UTF-8 text"),
        ("bad.parquet", "nothing", "is not a Parquet file"),
        ("typo.csv", "Reactoin,Days,Subject\n1,2,a\n2,3,b\n", "did you mean 'Reactoin'"),
        (
            "mixed.csv",
            "Reaction,Days,Subject\n1,0,a\n2,one,a\n3,2,b\n5,3,b\n",
            r"column 'Days' holds numbers, but also text ('one'); mend the file or write NA (line 3)",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_exit_code_two(
    name: str, content: Any, message: str, command: Any, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    code, out, err = command("fit", path, FORMULA)
    assert (code, out) == (2, "")
    assert message in err
    assert err.startswith("bayeslmm: ")
    assert err.count("\n") == 1


def test_a_formula_that_cannot_be_read_is_shown_with_a_caret(command: Any, sleep: Path) -> None:
    code, out, err = command("fit", sleep, "Reaction ~ Days + (Days | Subject")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert lines[1].strip() == "Reaction ~ Days + (Days | Subject"
    assert set(lines[2].strip()) == {"^"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit",), "Missing argument"),
        (("fit", "{data}", FORMULA, "--chains", "0"), "chains"),
        (("fit", "{data}", FORMULA, "--engine", "stan"), "engine"),
        (("fit", "{data}", FORMULA, "--family", "gausian"), "did you mean 'gaussian'"),
        (("fit", "{data}", FORMULA, "--report", "r.docx"), "a report is written as .html, .md, .txt"),
        (("fit", "{data}", "Reaction ~ Dayz + (1 | Subject)"), "did you mean 'Days'"),
        (("run", "nowhere"), "no analysis at nowhere"),
        (("fitt",), "fitt"),
    ],
)
def test_slips_in_the_arguments_are_exit_code_two(arguments: tuple[str, ...], message: str, command: Any, sleep: Path) -> None:
    code, out, err = command(*(str(sleep) if argument == "{data}" else argument for argument in arguments))
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


# --- Files --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".csv.gz", ".parquet"])
def test_all_kinds_of_files_read_alike(suffix: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"y": [1.5, 2.5, None], "g": ["a", None, "None"], "n": [1, 2, 3]})
    path = tmp_path / f"data{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, na_rep="NA", sep="\t" if suffix in (".tsv", ".txt") else ",")
    read = cli.read_table(path)
    assert read["y"].isna().tolist() == [False, False, True]
    assert read["g"].isna().tolist() == [False, True, False]
    assert read["g"][2] == "None"
    assert read["n"].tolist() == [1, 2, 3]


def test_a_text_column_stays_text_and_a_mixed_grouping_factor_is_fine(command: Any, tmp_path: Path, engines: dict[str, Any]) -> None:
    path = tmp_path / "g.csv"
    path.write_text("y,x,g\n" + "".join(f"{i % 5}.{i},{i % 3},{'7b' if i % 4 == 0 else i % 4}\n" for i in range(24)))
    assert command("fit", path, "y ~ x + (1 | g)", "--engine", "nuts")[0] == 0


def test_the_module_runs_and_states_its_version() -> None:
    done = subprocess.run([sys.executable, "-m", "bayeslmm", "--version"], capture_output=True, text=True, cwd=ROOT, check=True)
    from bayeslmm import __version__

    assert done.stdout.strip() == __version__
