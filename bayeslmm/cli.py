"""The command line: run an analysis of the gallery, fit a file, report or check a saved fit, explain a formula; by the public verbs."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bayeslmm.errors import BayesLmmError, BayesLmmWarning, DataError, FormulaError, PersistenceError

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from bayeslmm.formula.nodes import Formula

__all__ = ["app", "main", "read_table"]

SOUND, UNSOUND, UNUSABLE = 0, 1, 2
"""Exit codes: fitted and sound; fitted, but checks failed; input that cannot be used."""

app = typer.Typer(
    name="bayeslmm",
    help="Mixed models for scientists: an lme4 formula in; a REML fit and a PyMC posterior out, side by side.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class Engine(StrEnum):
    """Which engine fits."""

    both = "both"
    reml = "reml"
    nuts = "nuts"


DataFile = Annotated[Path, typer.Argument(help="A .csv, .tsv or .parquet file; NA and empty cells are missing.", show_default=False)]
FormulaText = Annotated[str, typer.Argument(help="As in lme4: 'y ~ x + (x | g)'.", show_default=False)]
FamilyName = Annotated[str, typer.Option(help="Response family: gaussian, binomial, poisson, ...")]
SavedFit = Annotated[Path, typer.Argument(help="A file that `fit --save` or `fit.save` wrote.", show_default=False)]
Chains = Annotated[int, typer.Option(min=1, help="Chains of NUTS.")]
Draws = Annotated[int, typer.Option(min=1, help="Draws kept of each chain.")]
Tune = Annotated[int, typer.Option(min=0, help="Warm-up draws of each chain.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the random numbers.", show_default=False)]


@app.command()
def run(
    case: Annotated[Path, typer.Argument(help="A folder of the gallery, as models/sleepstudy.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Folder for figures and report.html (default: out/<case>).", show_default=False)] = None,
    chains: Annotated[int | None, typer.Option(min=1, help="In place of the case's own.", show_default=False)] = None,
    draws: Annotated[int | None, typer.Option(min=1, help="In place of the case's own.", show_default=False)] = None,
    tune: Annotated[int | None, typer.Option(min=0, help="In place of the case's own.", show_default=False)] = None,
    seed: Annotated[int | None, typer.Option(help="In place of the case's own.", show_default=False)] = None,
) -> int:
    """Run one analysis of the gallery: both engines, the table, figures, report.html."""
    from dataclasses import replace

    from bayeslmm import gallery

    given = {"chains": chains, "draws": draws, "tune": tune, "seed": seed}
    sampling = replace(gallery.read_case(case).sampling, **{name: value for name, value in given.items() if value is not None})
    console = _console()
    made = gallery.run(case, out, sampling=sampling, console=console, progressbar=console.is_terminal)
    return _verdict({fit.method: fit for fit in made.fits[made.case.main].values()})


@app.command()
def fit(
    data: DataFile,
    formula: FormulaText,
    family: FamilyName = "gaussian",
    engine: Annotated[Engine, typer.Option(help="Which engine fits.")] = Engine.both,
    report: Annotated[Path | None, typer.Option(help="Write a report: .html, .md or .txt.", show_default=False)] = None,
    save: Annotated[Path | None, typer.Option(help="Save the fit, as fit.blmm, for `report` and `check`.", show_default=False)] = None,
    chains: Chains = 4,
    draws: Draws = 1000,
    tune: Tune = 1000,
    seed: Seed = None,
) -> int:
    """Fit a model to a file and print both engines side by side."""
    from bayeslmm.report import report as make_report
    from bayeslmm.report.terminal import print_result

    if report is not None:
        _check_format(report, "--report ")
    if save is not None and not save.parent.is_dir():
        raise PersistenceError(f"--save {save}: there is no folder '{save.parent}'; make it first")
    model = _model(data, formula, family)
    console = _console()
    sampling = {"chains": chains, "draws": draws, "tune": tune, "seed": seed, "progressbar": console.is_terminal}
    fitted = _ENGINES[engine](model, sampling)
    print_result(console, fitted)
    if save is not None:
        fitted.save(save)
        console.print(f"\nsaved: {save}", markup=False, highlight=False, soft_wrap=True)
    if report is not None:
        make_report(fitted, report)
        console.print(f"\nreport: {report}", markup=False, highlight=False, soft_wrap=True)
    return _verdict(_fits(fitted), dict(getattr(fitted, "absent", ())))


@app.command()
def report(
    saved: SavedFit,
    out: Annotated[Path, typer.Argument(help="The report: .html, .md or .txt.", show_default=False)],
) -> int:
    """Write the report of a saved fit."""
    from bayeslmm.persistence import load
    from bayeslmm.report import report as make_report

    _check_format(out, "")
    fitted = load(saved)
    make_report(fitted, out)
    _console().print(f"report: {out}", markup=False, highlight=False, soft_wrap=True)
    return _verdict(_fits(fitted), dict(getattr(fitted, "absent", ())))


@app.command()
def check(saved: SavedFit) -> int:
    """Print the diagnostics of a saved fit: what was measured, its limit, and what to do about what failed."""
    from bayeslmm.persistence import load

    fitted = load(saved)
    console = _console()
    for label, one in _fits(fitted).items():
        console.print(f"{label}: {one.model.formula}", markup=False, highlight=False, soft_wrap=True)
        console.print(str(one.diagnose()), markup=False, highlight=False, soft_wrap=True)
    return _verdict(_fits(fitted), dict(getattr(fitted, "absent", ())))


@app.command()
def explain(data: DataFile, formula: FormulaText, family: FamilyName = "gaussian") -> int:
    """Say what a formula means on a file: terms, sizes, groups, priors, mathematics; nothing is fitted."""
    model = _model(data, formula, family)
    console = _console()
    console.print(str(model.explain()), markup=False, highlight=False, soft_wrap=True)
    console.print("\nPriors\n" + model.priors.to_string(index=False), markup=False, highlight=False, soft_wrap=True)
    return SOUND


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.", is_eager=True)] = False) -> None:
    if version:
        from bayeslmm import __version__

        print(__version__)
        raise typer.Exit()


def main() -> None:
    """Run the command line and leave with its exit code; what users did wrong is said in one line on stderr."""
    try:
        with _short_warnings():
            code = app(standalone_mode=False)
    except FormulaError as error:
        _leave(str(error))
    except BayesLmmError as error:
        _leave(" ".join(str(error).split()))
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        _leave(" ".join(str(error.format_message()).split()))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else SOUND)


def _leave(message: str) -> None:
    print(f"bayeslmm: {message}", file=sys.stderr)
    sys.exit(UNUSABLE)


@contextmanager
def _short_warnings() -> Iterator[None]:
    """Show warnings as one line each, without the place in the code."""

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        print(f"bayeslmm: warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", BayesLmmWarning)
        warnings.showwarning = show
        yield


def _console() -> Console:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=max(console.width, 120))


def _model(data: Path, text: str, family: str) -> Any:
    from bayeslmm.formula import parse
    from bayeslmm.model import model

    formula = parse(text)
    frame = read_table(data)
    _refuse_mixed(frame, formula, data)
    return model(text, frame, family)


def _both(model: Any, sampling: Mapping[str, Any]) -> Any:
    from bayeslmm.compare import fit as fit_both

    return fit_both(model, **sampling)


def _reml(model: Any, sampling: Mapping[str, Any]) -> Any:
    from bayeslmm.classical import engine_for

    return engine_for(model)[1]()


def _nuts(model: Any, sampling: Mapping[str, Any]) -> Any:
    from bayeslmm.bayes import brm

    return brm(model, **sampling)


_ENGINES = {Engine.both: _both, Engine.reml: _reml, Engine.nuts: _nuts}


def _check_format(path: Path, option: str) -> None:
    from bayeslmm.report import FORMATS

    if path.suffix.removeprefix(".") not in FORMATS:
        raise DataError(f"{option}{path}: a report is written as {', '.join('.' + name for name in FORMATS)}")


def _fits(fitted: Any) -> dict[str, Any]:
    from bayeslmm.plots.common import source_of

    source = source_of(fitted)
    return dict(zip(source.labels, source.fits, strict=True))


def _verdict(fits: Mapping[str, Any], absent: Mapping[str, str] = MappingProxyType({})) -> int:
    """Return the exit code of some fits; the checks that failed, and engines that gave no fit, are named on stderr."""
    failed = {label: [check.code for check in fit.diagnose().failed if check.severity == "error"] for label, fit in fits.items()}
    said = [f"{label}: {', '.join(codes)}" for label, codes in failed.items() if codes]
    named = "; ".join([*(f"{engine}: no fit" for engine in absent), *said])
    if not named:
        return SOUND
    print(f"bayeslmm: checks failed: {named}", file=sys.stderr)
    return UNSOUND


# --- Files --------------------------------------------------------------------------------------------------------------------


def read_table(path: Path) -> pd.DataFrame:
    """Read a .csv, .tsv, .txt (tabs) or .parquet file; `NA` and empty cells are missing, text stays text.

    Raises
    ------
    DataError
        The file is missing, empty, or not such a table; the message is one line.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file" if not path.exists() else f"{path} is a folder, not a file")
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    if suffix not in _READERS:
        raise DataError(f"{path}: files of type '{suffix}' cannot be read; give a {', '.join(_READERS)} file")
    frame = _READERS[suffix](path)
    if frame.shape[1] == 0 or len(frame) == 0:
        raise DataError(f"{path} holds no rows of data")
    return frame


def _delimited(path: Path, delimiter: str) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_csv(
            path, sep=delimiter, na_values=["NA", ""], keep_default_na=False, skipinitialspace=True, encoding="utf-8-sig", low_memory=False
        )
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} is empty; it needs a line of column names and rows of data") from None
    except pd.errors.ParserError as error:
        raise DataError(f"{path} is not a table: {' '.join(str(error).split())}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not UTF-8 text; save it again as UTF-8") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _parquet(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.read_parquet(path)
    except ImportError:
        raise DataError(f"{path}: reading Parquet needs pyarrow; install pyarrow or save the data as CSV") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a Parquet file: {' '.join(str(error).split())}") from None


_READERS = MappingProxyType(
    {
        ".csv": lambda path: _delimited(path, ","),
        ".tsv": lambda path: _delimited(path, "\t"),
        ".txt": lambda path: _delimited(path, "\t"),
        ".parquet": _parquet,
    }
)


def _refuse_mixed(frame: pd.DataFrame, formula: Formula, path: Path) -> None:
    """Refuse a plain variable that is mostly numbers with some text: a slip of the pen, not a factor."""
    import pandas as pd

    from bayeslmm.formula.nodes import Name

    terms = [*formula.mean.terms, *(term for random in formula.mean.random for term in random.effects)]
    nodes = [*(formula.response.nodes if formula.response else ()), *(node for term in terms for node in term.variables)]
    for name in dict.fromkeys(node.name for node in nodes if isinstance(node, Name)):
        if name not in frame.columns or pd.api.types.is_numeric_dtype(frame[name]):
            continue
        present = frame[name].dropna().astype(str)
        numbers = pd.to_numeric(present, errors="coerce").notna()
        if numbers.any() and not numbers.all() and numbers.mean() >= 0.5:
            strange = present[~numbers]
            lines = [int(row) + 2 for row in strange.index]
            raise DataError(
                f"{path}: column '{name}' holds numbers, but also text ('{strange.iloc[0]}'); mend the file or write NA "
                f"(line {', '.join(str(line) for line in lines[:5])}{', ...' if len(lines) > 5 else ''})",
                column=name,
            )
