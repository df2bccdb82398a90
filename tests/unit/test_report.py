"""Reports: every format renders every part, numbers read back agree with the fits, what users named is escaped, nothing is made up."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bayeslmm.datasets import load_dataset
from bayeslmm.errors import FitError
from bayeslmm.model import model
from bayeslmm.report import FORMATS, report
from bayeslmm.report.mathml import mathml
from bayeslmm.report.records import Column, Table, number
from tests.unit.fakes import FakeFit, FakePosterior, compared


@pytest.fixture(scope="module")
def both() -> Any:
    sleep = model("Reaction ~ Days + (Days | Subject)", load_dataset("sleepstudy"))
    return compared(FakeFit(sleep), FakePosterior(sleep))


@pytest.fixture(scope="module")
def made(both: Any) -> Any:
    return report(both)


class Page(HTMLParser):
    """Tags, attributes and the cells of tables of a page."""

    VOID = ("meta", "img", "link", "br")

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def test_the_page_is_well_formed_and_needs_nothing_else(made: Any) -> None:
    text = made.render("html")
    page = Page(text)
    assert page.open == []
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "link", "iframe", "object"})
    for _, attributes in page.tags:
        for key in ("src", "href"):
            value = attributes.get(key)
            assert value is None or value.startswith(("data:image/", "#"))
    assert "url(" not in text
    assert "@import" not in text


def test_every_figure_has_its_alternative_text(made: Any) -> None:
    images = [attributes for tag, attributes in Page(made.render("html")).tags if tag == "img"]
    assert len(images) >= 6
    assert all(len(str(attributes["alt"])) > 40 for attributes in images)


def test_the_anchors_of_the_navigation_exist_once(made: Any) -> None:
    tags = Page(made.render("html")).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(attributes["href"])[1:] for tag, attributes in tags if tag == "a"} <= set(ids)


def test_what_the_checklist_asks_for_is_there(made: Any) -> None:
    text = str(made)
    titles = [section.title for section in made.sections]
    assert titles == [
        "Verdict",
        "Side by side",
        "Model",
        "Data and groups",
        "Figures",
        "Priors",
        "Diagnostics",
        "Print-outs",
        "Methods",
        "Provenance",
        "Citations",
    ]
    for wanted in (
        "180 of 180 rows",
        "Subject",
        "student_t(3, 0, 59.3)",
        "SHA-256",
        "numpy",
        "2 chains of 100 draws",
        "[not recorded]",
        "10.18637/jss.v067.i01",
    ):
        assert wanted in text


@pytest.mark.parametrize("format", FORMATS)
def test_numbers_read_back_from_every_format_agree_with_the_table(format: str, made: Any, both: Any) -> None:
    row = both.table[(both.table["part"] == "fixed") & (both.table["term"] == "Days")].iloc[0]
    text = made.render(format)
    lines = [" ".join(cells) for cells in Page(text).rows] if format == "html" else text.splitlines()
    line = next(line for line in lines if re.match(r"\W*fixed\W+Days\b", line))
    found = [float(value.replace("−", "-")) for value in re.findall(r"[−-]?\d+\.\d+", line)]
    wanted = [row[name] for label in ("REML", "NUTS") for name in (label, f"{label}_se", f"{label}_lower", f"{label}_upper")]
    assert found[:8] == pytest.approx([float(value) for value in wanted], rel=1e-3)


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_writes_a_file_named_by_its_suffix(format: str, both: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"r.{format}"
    made = report(both, path, title="A title", figures=("estimates",))
    assert path.read_text(encoding="utf-8") == made.render(format)
    assert "A title" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(("path", "format"), [("r.docx", None), ("r", None), (None, "pdf")])
def test_unknown_formats_list_the_known(path: str | None, format: str | None, both: Any) -> None:
    with pytest.raises(FitError, match=r"formats: html, md, txt"):
        report(both, path, format)


def test_figures_are_those_asked_for(both: Any) -> None:
    images = re.findall(r"figure-(\w+)", report(both, figures=("estimates", "ranef")).render("html"))
    assert images == ["estimates", "ranef"]
    with pytest.raises(FitError, match="did you mean 'ranef'"):
        report(both, figures=("ranf",))


def test_a_report_needs_a_fit() -> None:
    with pytest.raises(FitError, match="not of str"):
        report("a fit")


def test_names_from_users_are_escaped() -> None:
    data = load_dataset("Dyestuff").rename(columns={"Yield": "<script>alert(1)</script>"})
    data["Batch"] = data["Batch"].cat.rename_categories(lambda level: f"<img src=x onerror=alert('{level}')> & | `*_")
    fit = FakeFit(model("`<script>alert(1)</script>` ~ 1 + (1 | Batch)", data))
    made = report(fit, title="<b>bold</b>", figures=("ranef",))
    page = Page(made.render("html"))
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "b"})
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert "\\<b\\>" in made.render("md")


def test_an_unsound_fit_is_named_first_and_never_called_converged() -> None:
    fit = FakeFit(model("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff")), sound=False)
    made = report(fit, figures=())
    first = made.sections[0].blocks[0]
    assert first.tone == "bad"
    assert "1 check failed" in first.text
    assert "Rescale the predictors." in first.text
    assert "convergence checks passed" not in str(made)
    assert "failed these checks: gradient" in str(made)


def test_dropped_rows_are_counted_by_column() -> None:
    data = load_dataset("sleepstudy")
    data.loc[[2, 5], "Days"] = float("nan")
    data.loc[7, "Reaction"] = float("nan")
    with pytest.warns(match="missing"):
        fitted = model("Reaction ~ Days + (1 | Subject)", data)
    text = str(report(FakeFit(fitted), figures=()))
    assert "177 of 180 rows were used. 3 rows were dropped" in text
    assert "Days (2)" in text
    assert "Reaction (1)" in text


def test_one_posterior_alone() -> None:
    text = str(report(FakePosterior(model("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff"))), figures=()))
    assert "Estimates with 95% intervals" in text
    assert "95% CrI" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (251.4051, "251.4"),
        (1743.628, "1743.6"),
        (0.0655512, "0.06555"),
        (0, "0"),
        (float("nan"), ""),
        (-0.123456, "−0.1235"),
        (1.2e-9, "1.2e−09"),
        (3e8, "3e+08"),
    ],
)
def test_numbers_are_written_with_four_digits(value: float, text: str) -> None:
    assert number(value) == text


def test_missing_cells_are_empty() -> None:
    table = Table(caption="", columns=(Column(name="a", kind="number"), Column(name="b")), rows=((float("nan"), None), (1.5, "x")))
    assert table.cells == (("", ""), ("1.500", "x"))


def test_mathematics_of_users_names_stays_text() -> None:
    shown = mathml(r"\mathrm{x\_1<y}_i &\sim \mathcal{N}(\mu_i,\ \sigma^2) \\ \boldsymbol{\Sigma} &= \unknown")
    assert "x_1&lt;y" in shown
    assert "<msup><mi>σ</mi><mn>2</mn></msup>" in shown
    assert ">Σ<" in shown
    assert "unknown" in shown
    assert shown.count("<tr>") == 2


def test_the_data_hash_changes_with_the_data_and_only_then() -> None:
    from bayeslmm.report.methods import data_hash

    data = load_dataset("Dyestuff")
    changed = data.assign(Yield=data["Yield"].where(pd.Series(range(30)) != 3, 1))
    formula = "Yield ~ 1 + (1 | Batch)"
    assert data_hash(model(formula, data)) == data_hash(model(formula, data.copy()))
    assert data_hash(model(formula, data)) != data_hash(model(formula, changed))
