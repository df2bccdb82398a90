"""The gallery: one folder of `models/` is one canonical analysis; read its `model.toml`, fit it, write figures and a report."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bayeslmm.errors import DataError, FitError, suggest

if TYPE_CHECKING:
    from rich.console import Console

    from bayeslmm.compare import Comparison
    from bayeslmm.fit import Fit
    from bayeslmm.model import Model
    from bayeslmm.priors import PriorRow

__all__ = ["ENGINES", "Analysis", "Case", "Named", "Sampling", "read_case", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """Settings of NUTS: `seed` makes a run repeatable."""

    chains: int = 4
    draws: int = 1000
    tune: int = 1000
    seed: int = 1
    target_accept: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One model of a case: its name, formula and what it says."""

    name: str
    formula: str
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A canonical analysis, as `model.toml` states it.

    `main` names the model that is reported in full; the others of a ladder are fitted by `ladder_engines`. `penalty`: of the classical
    fits of generalised models, as `glmer` takes it.
    """

    folder: Path
    title: str
    dataset: str
    models: tuple[Named, ...]
    main: str
    about: str = ""
    family: str = "gaussian"
    engines: tuple[str, ...] = ("reml", "nuts")
    ladder_engines: tuple[str, ...] = ("reml",)
    reml: bool = True
    sampling: Sampling = field(default_factory=Sampling)
    priors: tuple[Mapping[str, Any], ...] = ()
    penalty: str | None = None

    def named(self, name: str) -> Named:
        """Return the model of that name."""
        return next(model for model in self.models if model.name == name)

    def prior_rows(self) -> list[PriorRow]:
        """Return the case's priors as rows, to be laid over the defaults."""
        from bayeslmm.priors import prior

        return [prior(**row) for row in self.priors]


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What a run made: fits by model and engine, the comparison of the main model (or its only fit), the files written."""

    case: Case
    fits: Mapping[str, Mapping[str, Fit]]
    main: Comparison | Fit
    files: tuple[Path, ...]

    @property
    def ok(self) -> bool:
        """Whether all checks of all fits of the main model passed."""
        return all(fit.diagnose().ok for fit in self.fits[self.case.main].values())


def read_case(path: str | Path) -> Case:
    """Read `model.toml` of a folder of the gallery.

    Parameters
    ----------
    path
        The folder, or the file itself.

    Raises
    ------
    DataError
        There is no such file, it is not TOML, or it lacks a field or has one that is unknown.
    """
    given = Path(path)
    file = given / "model.toml" if given.is_dir() else given
    try:
        stated = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise DataError(f"there is no analysis at {given}; name a folder that holds a model.toml") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not valid TOML: {error}") from None
    return _case(file, stated)


_FIELDS = ("title", "about", "dataset", "family", "engines", "ladder_engines", "main", "reml", "sampling", "models", "priors", "penalty")
_ROWS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "models": ("name", "formula", "about"),
        "sampling": ("chains", "draws", "tune", "seed", "target_accept"),
        "priors": ("distribution", "part", "term", "group", "lower", "upper"),
    }
)


def _case(file: Path, stated: dict[str, Any]) -> Case:
    _known(file, stated, _FIELDS, "")
    for key, names in _ROWS.items():
        rows = stated.get(key, [])
        for row in [rows] if isinstance(rows, dict) else rows:
            _known(file, row, names, f"{key}: ")
    lost = [key for key in ("title", "dataset", "models") if key not in stated]
    if lost:
        raise DataError(f"{file} lacks the field '{lost[0]}'")
    try:
        models = tuple(Named(**row) for row in stated["models"])
        sampling = Sampling(**stated.get("sampling", {}))
    except TypeError as error:
        raise DataError(f"{file}: {error}") from None
    options = {key: stated[key] for key in ("about", "family", "reml", "penalty") if key in stated}
    case = Case(
        folder=file.parent,
        title=stated["title"],
        dataset=stated["dataset"],
        models=models,
        main=stated.get("main", models[0].name),
        engines=tuple(stated.get("engines", ("reml", "nuts"))),
        ladder_engines=tuple(stated.get("ladder_engines", ("reml",))),
        sampling=sampling,
        priors=tuple(stated.get("priors", ())),
        **options,
    )
    if case.main not in [model.name for model in models]:
        raise DataError(f"{file}: main = {case.main!r} is none of its models{suggest(case.main, [model.name for model in models])}")
    for engine in (*case.engines, *case.ladder_engines):
        if engine not in ENGINES:
            raise DataError(f"{file}: unknown engine {engine!r}{suggest(engine, list(ENGINES))}")
    return case


def _known(file: Path, row: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    for key in row:
        if key not in names:
            raise DataError(f"{file}: {where}unknown field '{key}'{suggest(key, names)}")


def _reml(model: Model, case: Case, progressbar: bool) -> Fit:
    from bayeslmm.classical import engine_for

    _, classical = engine_for(model, reml=case.reml, penalty=case.penalty)
    return classical()


def _nuts(model: Model, case: Case, progressbar: bool) -> Fit:
    from bayeslmm.bayes import brm

    sampling = case.sampling
    return brm(
        model,
        chains=sampling.chains,
        draws=sampling.draws,
        tune=sampling.tune,
        seed=sampling.seed,
        target_accept=sampling.target_accept,
        progressbar=progressbar,
    )


ENGINES: Mapping[str, Callable[[Model, Case, bool], Fit]] = MappingProxyType({"reml": _reml, "nuts": _nuts})
"""Engine, as `model.toml` names it -> function of model, case and progress bar."""


def run(
    path: str | Path,
    out: str | Path | None = None,
    *,
    sampling: Sampling | None = None,
    console: Console | None = None,
    progressbar: bool = False,
) -> Analysis:
    """Run one analysis of the gallery: fit, print, draw, report.

    Parameters
    ----------
    path
        A folder of the gallery, as `models/sleepstudy`.
    out
        Folder for the figures (SVG and PNG) and `report.html` (default: `out/<case>` in the current folder).
    sampling
        In place of what `model.toml` states.
    console
        A rich console to print on (default: none).
    progressbar
        Whether NUTS shows its progress.

    Returns
    -------
    Analysis

    Raises
    ------
    BayesLmmError
        Whatever data, formula or fit refuse.
    """
    from dataclasses import replace

    from bayeslmm.compare import compare
    from bayeslmm.datasets import load_dataset
    from bayeslmm.model import model

    case = read_case(path)
    case = case if sampling is None else replace(case, sampling=sampling)
    data = load_dataset(case.dataset)
    fits: dict[str, dict[str, Fit]] = {}
    for named in case.models:
        ready = model(named.formula, data, case.family, priors=case.prior_rows() or None)
        engines = case.engines if named.name == case.main else tuple(name for name in case.engines if name in case.ladder_engines)
        fits[named.name] = {engine: ENGINES[engine](ready, case, progressbar) for engine in engines}
    main_fits = list(fits[case.main].values())
    main = compare(*main_fits) if len(main_fits) > 1 else main_fits[0]
    if console is not None:
        _print(console, case, main, fits)
    folder = Path(out) if out is not None else Path("out") / case.folder.resolve().name
    files = _write(folder, case, main, fits)
    if console is not None:
        console.print(f"\nreport: {files[0]}", highlight=False, soft_wrap=True, markup=False)
    return Analysis(case=case, fits=fits, main=main, files=files)


def _print(console: Console, case: Case, main: Comparison | Fit, fits: Mapping[str, Mapping[str, Fit]]) -> None:
    from bayeslmm.report.terminal import print_ladder, print_result

    console.rule(case.title)
    console.print(case.about, markup=False, highlight=False)
    if len(case.models) > 1:
        print_ladder(console, _ladder(case, fits))
    print_result(console, main)


def _ladder(case: Case, fits: Mapping[str, Mapping[str, Fit]]) -> list[tuple[str, str, str, list[str]]]:
    """Return for each model of a ladder: name, formula, what it says, and a line for each fit."""
    return [(named.name, named.formula, named.about, [_fit_line(fit) for fit in fits[named.name].values()]) for named in case.models]


def _fit_line(fit: Fit) -> str:
    from bayeslmm.report.records import number

    parts = [f"{name} {number(float(value))}" for name in ("criterion", "aic") if (value := getattr(fit, name, None)) is not None]
    state = "sound" if fit.diagnose().ok else "; ".join(check.code for check in fit.diagnose().failed if check.severity == "error")
    return f"{fit.method}: sigma {number(fit.sigma)}{''.join(f', {part}' for part in parts)} ({state})"


def _write(folder: Path, case: Case, main: Comparison | Fit, fits: Mapping[str, Mapping[str, Fit]]) -> tuple[Path, ...]:
    """Write the report and every figure in it; returns the paths, the report first."""
    from bayeslmm.report import report
    from bayeslmm.report.records import Bullets, Column, Figure, Paragraph, Section, Table

    extra = [Section(key="about", title="About", blocks=(Paragraph(text=case.about),))] if case.about else []
    if len(case.models) > 1:
        columns = (Column(name="Model"), Column(name="Formula", kind="code"), Column(name="What it says"), Column(name="Fits"))
        rows = tuple((name, formula, about, "; ".join(lines)) for name, formula, about, lines in _ladder(case, fits))
        said = Bullets(items=(f"The model reported below is '{case.main}'.",))
        extra.append(Section(key="ladder", title="Models of this case", blocks=(Table(caption="", columns=columns, rows=rows), said)))
    made = report(main, title=case.title, extra=extra)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FitError(f"cannot write to {folder}: {error.strerror or error}") from None
    files = [made.save(folder / "report.html")]
    for block in (block for section in made.sections for block in section.blocks if isinstance(block, Figure)):
        files += [folder / f"{block.name}.svg", folder / f"{block.name}.png"]
        files[-2].write_text(block.picture.svg(), encoding="utf-8")
        files[-1].write_bytes(block.picture.png())
    return tuple(files)
