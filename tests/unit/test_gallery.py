"""The gallery: every case reads, its formulas fit its data, a run writes figures and a report, and slips in a file are named."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from bayeslmm import gallery
from bayeslmm.errors import DataError
from bayeslmm.gallery import Sampling, read_case, run
from bayeslmm.model import Model, model
from tests.support import ROOT
from tests.unit.fakes import FakeFit, FakePosterior

CASES = sorted(path.parent.name for path in (ROOT / "models").glob("*/model.toml"))
MINIMAL = 'title = "T"\ndataset = "Dyestuff"\n[[models]]\nname = "a"\nformula = "Yield ~ 1 + (1 | Batch)"\n'


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Model, Sampling]]:
    """Put fakes in place of the engines; returns the list of what they were asked."""
    asked: list[tuple[str, Model, Sampling]] = []

    def reml(ready: Model, case: Any, progressbar: bool) -> FakeFit:
        asked.append(("reml", ready, case.sampling))
        return FakeFit(ready)

    def nuts(ready: Model, case: Any, progressbar: bool) -> FakePosterior:
        asked.append(("nuts", ready, case.sampling))
        return FakePosterior(ready)

    monkeypatch.setattr(gallery, "ENGINES", {"reml": reml, "nuts": nuts})
    return asked


@pytest.mark.parametrize("name", CASES)
def test_every_case_reads_and_its_formulas_fit_its_data(name: str) -> None:
    from bayeslmm.datasets import load_dataset

    case = read_case(ROOT / "models" / name)
    assert (case.folder / "README.md").read_text().startswith("# ")
    assert case.about
    try:
        data = load_dataset(case.dataset)
    except DataError:
        pytest.skip(f"{case.dataset} is not at hand")
    for named in case.models:
        assert model(named.formula, data, case.family, priors=case.prior_rows() or None).dims.n == len(data)


def test_the_lectures_models_are_there() -> None:
    assert {"sleepstudy", "sleepstudy183", "school_nested", "school_crossed", "md_red", "cbpp", "dyestuff2"} <= set(CASES)
    assert len(read_case(ROOT / "models" / "sleepstudy183").models) == 4
    assert len(read_case(ROOT / "models" / "md_red").models) == 6


def test_a_run_fits_prints_draws_and_reports(tmp_path: Path, engines: list[Any]) -> None:
    text = io.StringIO()
    made = run(ROOT / "models" / "sleepstudy183", tmp_path / "o", sampling=Sampling(draws=7), console=Console(file=text, width=150))
    assert [(engine, str(asked.formula)) for engine, asked, _ in engines][:2] == [
        ("reml", "reaction ~ 1 + days + (1 | subject)"),
        ("nuts", "reaction ~ 1 + days + (1 | subject)"),
    ]
    assert len(engines) == 8
    assert all(sampling.draws == 7 for _, _, sampling in engines)
    assert made.ok
    assert made.files[0] == tmp_path / "o" / "report.html"
    assert {path.suffix for path in made.files} == {".html", ".svg", ".png"}
    assert all(path.stat().st_size > 1000 for path in made.files)
    page = made.files[0].read_text()
    assert "Models of this case" in page
    assert "parallel lines" in page
    printed = text.getvalue()
    for wanted in ("Partial pooling", "uncorrelated: reaction", "A print-out of", "Side by side", "all checks passed", "report.html"):
        assert wanted in printed


def test_a_penalty_is_of_the_classical_fits_of_generalised_models(tmp_path: Path) -> None:
    text = 'dataset = "cbpp"\ntitle = "T"\nfamily = "binomial"\npenalty = "jeffreys"\nengines = ["reml"]\n'
    (tmp_path / "model.toml").write_text(
        text + '[[models]]\nname = "a"\nformula = "cbind(incidence, size - incidence) ~ period + (1 | herd)"\n'
    )
    made = run(tmp_path, tmp_path / "out")
    assert made.main.method == "Laplace, penalty jeffreys"
    assert "Laplace, penalty jeffreys" in made.files[0].read_text(encoding="utf8")


def test_the_folder_is_out_by_default(tmp_path: Path, engines: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "model.toml").write_text(MINIMAL + '[[priors]]\ndistribution = "normal(0, 3)"\npart = "sd"\n')
    monkeypatch.chdir(tmp_path)
    made = run("mine")
    assert made.files[0] == Path("out/mine/report.html")
    assert made.case.engines == ("reml", "nuts")
    assert "normal(0, 3)" in engines[0][1].priors["prior"].tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title = ", "is not valid TOML"),
        ('title = "T"\n', "lacks the field 'dataset'"),
        ('titel = "T"\n' + MINIMAL, "unknown field 'titel'; did you mean 'title'"),
        (MINIMAL + 'formla = "y ~ x"\n', "models: unknown field 'formla'; did you mean 'formula'"),
        ('engines = ["remls"]\n' + MINIMAL, "unknown engine 'remls'; did you mean 'reml'"),
        ('main = "b"\n' + MINIMAL, "main = 'b' is none of its models"),
        (MINIMAL.replace('name = "a"\n', ""), "name"),
    ],
)
def test_slips_in_the_file_are_named_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_case(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_case_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no analysis at .*; name a folder that holds a model.toml"):
        read_case(tmp_path)
