"""The sections of a report, one function each, in the order of `SECTIONS`; a function with nothing to say returns None."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import BayesLmmError, FitError, suggest
from bayeslmm.fit import Check, Fit
from bayeslmm.formula.nodes import names_in
from bayeslmm.model import Model
from bayeslmm.plots import KINDS, plot
from bayeslmm.plots.common import Source, source_of
from bayeslmm.report.methods import CITATIONS, methods_sentences, provenance_rows
from bayeslmm.report.records import (
    Block,
    Bullets,
    Code,
    Column,
    Equation,
    Figure,
    Paragraph,
    Section,
    Table,
    from_frame,
    number,
)

if TYPE_CHECKING:
    from bayeslmm.plots.picture import Picture

__all__ = ["SECTIONS", "Subject", "all_sections"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is reported: the object given, its fits with their labels, and the kinds of figures wanted (None: all)."""

    obj: Any
    source: Source
    wanted: tuple[str, ...] | None = None

    @property
    def model(self) -> Model:
        return self.source.model

    @property
    def pairs(self) -> list[tuple[str, Fit]]:
        return list(zip(self.source.labels, self.source.fits, strict=True))

    @property
    def table(self) -> pd.DataFrame | None:
        """The comparison's table, None where one fit is reported."""
        return getattr(self.obj, "table", None) if len(self.source.fits) > 1 else None


def all_sections(obj: Any, figures: Sequence[str] | None = None) -> tuple[Section, ...]:
    """Return the sections that apply to a fit or comparison, with figures of the kinds named (None: all)."""
    for kind in figures or ():
        if kind not in KINDS:
            raise FitError(f"there is no figure of kind {kind!r}{suggest(kind, list(KINDS))} (kinds: {', '.join(KINDS)})")
    subject = Subject(obj=obj, source=source_of(obj), wanted=None if figures is None else tuple(figures))
    return tuple(section for make in SECTIONS if (section := make(subject)) is not None)


def verdict(subject: Subject) -> Section:
    """What came out, in sentences; unsound fits are named before anything else."""
    blocks: list[Block] = []
    for label, fit in subject.pairs:
        failed = [check for check in fit.diagnose().failed if check.severity == "error"]
        if failed:
            said = " ".join(sentence for check in failed for sentence in (_sentence(check.meaning), _sentence(check.remedy)) if sentence)
            blocks.append(Paragraph(text=f"{label}: {len(failed)} check{'s' * (len(failed) > 1)} failed. {said}", tone="bad"))
    if not blocks:
        names = " and ".join(subject.source.labels)
        notes = dict.fromkeys(_sentence(check.meaning) for _, fit in subject.pairs for check in fit.diagnose().failed)
        said = f"no check failed. To note: {' '.join(notes)}" if notes else "all checks passed."
        blocks.append(Paragraph(text=f"{names}: {said}", tone="plain" if notes else "good"))
    for engine, reason in getattr(subject.obj, "absent", ()):
        blocks.append(Paragraph(text=f"{engine} gave no fit: {reason}", tone="bad"))
    if subject.table is not None:
        known = {f"{label} passed its checks." for label in subject.source.labels}
        blocks.append(
            Bullets(
                items=tuple(
                    said for said in subject.obj.verdicts if said not in known and " failed " not in said and " gave no fit: " not in said
                )
            )
        )
    return Section(key="verdict", title="Verdict", blocks=tuple(blocks))


def results(subject: Subject) -> Section:
    """Both engines side by side, or the estimates of the one fit."""
    table = subject.table
    if table is None:
        frame = subject.source.fits[0].estimates
        kinds = [("part", "Part", "text"), ("group", "Group", "text"), ("term", "Term", "code")]
        kinds += [("estimate", "Estimate", "number"), ("se", "SE", "number"), ("lower", "2.5%", "number"), ("upper", "97.5%", "number")]
        shown = from_frame("Estimates with 95% intervals", frame, kinds, group_by=0)
        return Section(key="results", title="Results", blocks=(shown,))
    kinds = [("part", "Part", "text"), ("group", "Group", "text"), ("term", "Term", "code")]
    for label in subject.source.labels:
        kinds += [
            (label, label, "number"),
            (f"{label}_se", "SE", "number"),
            (f"{label}_lower", "2.5%", "number"),
            (f"{label}_upper", "97.5%", "number"),
        ]
    kinds += [("difference_in_se", "Difference (SE)", "signed"), ("verdict", "Verdict", "text")]
    note = (
        "SE of a posterior is its standard deviation; its interval holds the central 95%. "
        "Difference: last minus first, over the larger standard error. "
        "Verdict: agree up to 0.25 SE, close up to 1 SE, else differ."
    )
    shown = from_frame("Estimates side by side", table, kinds, note=note, group_by=0)
    caption = "Estimates of each engine as distances in standard errors; a point without a line has no stated interval."
    forest = _figures(subject, (("estimates", caption),))
    return Section(key="results", title="Side by side", blocks=(shown, *forest))


def model_section(subject: Subject) -> Section:
    """The model in words and mathematics."""
    explained = subject.model.explain()
    words = str(explained).split("\nMathematics")[0].rstrip()
    family, link = subject.model.family.name, subject.model.link.name
    sentence = f"{subject.model.formula} with family {family} and link {link}."
    return Section(
        key="model",
        title="Model",
        blocks=(Paragraph(text=sentence), Equation(latex=explained.latex), Code(text=words, caption="What the formula says")),
    )


def data_section(subject: Subject) -> Section:
    """Rows, missing values, groups, predictors."""
    design = subject.model.design
    lost = "".join(f" {count} rows were dropped for {reason}." for reason, count in design.lost.items()) or " No row was dropped."
    if design.missing:
        lost += f" Missing by column: {', '.join(f'{column} ({count})' for column, count in design.missing.items())}."
    blocks: list[Block] = [Paragraph(text=f"{design.n} of {len(design.kept)} rows were used.{lost}")]
    if design.blocks:
        blocks.append(_groups(subject.model))
    blocks.append(_variables(subject.model))
    return Section(key="data", title="Data and groups", blocks=tuple(blocks))


def summaries(subject: Subject) -> Section:
    """The print-out of every fit."""
    blocks = tuple(Code(text=str(fit.summary()), caption=label) for label, fit in subject.pairs)
    return Section(key="summaries", title="Print-outs", blocks=blocks)


def priors(subject: Subject) -> Section | None:
    """The priors of the posterior fit, None without one."""
    if not subject.source.posteriors:
        return None
    kinds = [
        ("part", "Part", "text"),
        ("group", "Group", "text"),
        ("term", "Term", "code"),
        ("prior", "Prior", "code"),
        ("source", "Source", "text"),
    ]
    note = (
        "Intercept: of the design with centred predictors, as in brms. Standard deviations and scales are cut at zero. "
        "lkj: of the correlation matrix."
    )
    return Section(
        key="priors",
        title="Priors",
        blocks=(from_frame("Priors, in units of the data", subject.model.priors, kinds, note=note, group_by=0),),
    )


def diagnostics(subject: Subject) -> Section:
    """Every check of every fit: value, limit, meaning, and the remedy of those that failed."""
    columns = [
        Column(name="Fit"),
        Column(name="Check", kind="code"),
        Column(name="Value", kind="plain"),
        Column(name="Limit", kind="plain"),
        Column(name="", kind="mark"),
        Column(name="Meaning"),
        Column(name="Remedy"),
    ]
    rows: list[tuple[Any, ...]] = [
        (label, check.code, float(check.value), float(check.limit), _mark(check), check.meaning, "" if check.passed else check.remedy)
        for label, fit in subject.pairs
        for check in fit.diagnose()
    ]
    if not any(row[-1] for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    table = Table(caption="Checks", columns=tuple(columns), rows=tuple(rows), group_by=0)
    return Section(key="diagnostics", title="Diagnostics", blocks=(table,))


def figures(subject: Subject) -> Section | None:
    """Figures of the data, the groups, the residuals, and of the draws where there are any."""
    posterior = bool(subject.source.posteriors)
    drawn = (*_figures(subject, _OF_DATA), *(_checks(subject) if posterior else ()), *(_figures(subject, _OF_DRAWS) if posterior else ()))
    return Section(key="figures", title="Figures", blocks=drawn) if drawn else None


_OF_DATA = (
    ("fitted", "Observations and fitted lines."),
    ("ranef", "Differences of the levels from the average, sorted by size."),
    ("residuals", "Residuals against fitted values, and their normal quantiles."),
    ("ppc", "The response beside responses simulated from the fits."),
)
_OF_REPLICATES = (
    (
        "stat",
        "Statistics of the response (dark line) among those of simulated responses: near p = 0 or 1 the fit does not reproduce it.",
    ),
    (
        "pit",
        "Where the observed values lie among simulated ones, as an ECDF less that of uniform values (for a posterior, LOO-PIT: each row "
        "predicted from all others); the grey band holds 95% of calibrated fits.",
    ),
)
_OF_DRAWS = (
    ("prior_posterior", "Priors beside the posteriors that the data made of them."),
    (
        "rank",
        "Rank ECDF of the thinned draws, chain by chain: chains that have mixed stay in the grey band (99%).",
    ),
    ("trace", "Density and trace of the draws, chain by chain."),
)


def methods(subject: Subject) -> Section:
    """Sentences for a paper's methods section."""
    return Section(key="methods", title="Methods", blocks=tuple(Paragraph(text=sentence) for sentence in methods_sentences(subject.pairs)))


def provenance(subject: Subject) -> Section:
    """Versions, seeds, hash of the data."""
    rows = tuple(provenance_rows(subject.pairs))
    columns = (Column(name="What"), Column(name="Value", kind="code"))
    return Section(key="provenance", title="Provenance", blocks=(Table(caption="", columns=columns, rows=rows),))


def citations(subject: Subject) -> Section:
    """What to cite."""
    kinds = ["any", *("posterior" if fit.draws().n_draws > 1 else "classical" for _, fit in subject.pairs)]
    return Section(key="citations", title="Citations", blocks=(Bullets(items=tuple(text for kind, text in CITATIONS if kind in kinds)),))


SECTIONS: tuple[Callable[[Subject], Section | None], ...] = (
    verdict,
    results,
    model_section,
    data_section,
    figures,
    priors,
    diagnostics,
    summaries,
    methods,
    provenance,
    citations,
)
"""All sections, in order."""


def _mark(check: Check) -> str:
    if check.passed:
        return "passed"
    return "failed" if check.severity == "error" else "note"


def _sentence(text: str) -> str:
    """Return text as a sentence: capital letter, full stop; nothing for nothing."""
    return f"{text[0].upper()}{text[1:].rstrip('.')}." if text else ""


def _figures(subject: Subject, kinds: Sequence[tuple[str, str]]) -> tuple[Block, ...]:
    """Draw those of the kinds (with captions) that are wanted and apply; where one is refused, say why in its place."""
    blocks: list[Block] = []
    for kind, caption in kinds:
        if (subject.wanted is not None and kind not in subject.wanted) or (kind == "ranef" and not subject.model.design.blocks):
            continue
        blocks.append(_drawn(kind, caption, partial(plot, subject.obj, kind)))
    return tuple(blocks)


def _checks(subject: Subject) -> tuple[Block, ...]:
    """Draw further checks against replicates, where `ppc` is wanted."""
    if subject.wanted is not None and "ppc" not in subject.wanted:
        return ()
    return tuple(_drawn(f"ppc_{kind}", caption, partial(plot, subject.obj, "ppc", check=kind)) for kind, caption in _OF_REPLICATES)


def _drawn(name: str, caption: str, draw: Callable[[], Picture]) -> Block:
    """Return a figure, or in its place why it is refused."""
    try:
        return Figure(picture=draw(), caption=caption, name=name)
    except BayesLmmError as refusal:
        return Paragraph(text=f"Figure {name} could not be drawn: {refusal}")


def _groups(model: Model) -> Table:
    design = model.design
    rows = []
    for block in {block.group: block for block in design.blocks}.values():
        counts = np.bincount(block.index[block.index >= 0], minlength=block.n_levels)
        rows.append((block.group, block.n_levels, int(counts.min()), float(np.median(counts)), int(counts.max())))
    columns = (
        Column(name="Grouping factor", kind="code"),
        Column(name="Levels", kind="count"),
        Column(name="Fewest rows", kind="count"),
        Column(name="Median rows", kind="number"),
        Column(name="Most rows", kind="count"),
    )
    return Table(caption="Groups", columns=columns, rows=tuple(rows))


def _variables(model: Model) -> Table:
    """The response and the predictors: range, mean and SD, or levels with the reference first."""
    mean = model.formula.mean
    nodes = [*(model.formula.response.nodes if model.formula.response else ()), *(node for term in mean.terms for node in term.variables)]
    names = [name for name in dict.fromkeys(name for node in nodes for name in names_in(node)) if name in model.frame.columns]
    used = model.frame.loc[model.design.kept]
    rows = [(name, "numeric" if pd.api.types.is_numeric_dtype(used[name]) else "categorical", _described(used[name])) for name in names]
    columns = (Column(name="Variable", kind="code"), Column(name="Type"), Column(name="In the rows used"))
    return Table(caption="Variables", columns=columns, rows=tuple(rows))


def _described(values: pd.Series[Any]) -> str:
    if pd.api.types.is_numeric_dtype(values):
        data = values.to_numpy(dtype=float)
        mean, spread, low, high = (number(float(value)) for value in (data.mean(), data.std(ddof=1), data.min(), data.max()))
        return f"mean {mean}, SD {spread}, from {low} to {high}"
    levels = [str(level) for level in (values.cat.categories if isinstance(values.dtype, pd.CategoricalDtype) else sorted(values.unique()))]
    shown = ", ".join(levels[:8]) + (f", … ({len(levels)} levels)" if len(levels) > 8 else "")
    return f"levels {shown}; reference {levels[0]}"
