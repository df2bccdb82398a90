"""Two or more fits side by side: one table, the differences in standard errors, a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.errors import BayesLmmError, FitError
from bayeslmm.fit import Fit
from bayeslmm.model import as_model

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bayeslmm.formula import Formula
    from bayeslmm.model import Model
    from bayeslmm.priors import PriorRow

__all__ = ["Comparison", "compare", "fit", "html_table", "side_by_side", "text_table"]

_ENDLESS = 1000.0
"""A standard error so many times the other fit's is that of an estimate that ran off, as where data are separated."""
_KEYS = ["part", "group", "term"]
AGREE, DIFFER = 0.25, 1.0
"""Limits of the verdict, in standard errors: up to the first two fits agree, beyond the second they differ."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Fits of the same data, side by side.

    Attributes
    ----------
    fits
        The fits, in the order given.
    labels
        A unique name for each: its method (`REML`, `NUTS`), numbered where two share it.
    table
        One row per estimate: `part, group, term`, then `<label>`, `<label>_se`, `<label>_lower`, `<label>_upper` for each fit,
        `difference` (last minus first), `difference_in_se` (over the larger standard error at hand) and `verdict`.
    absent
        Engine -> why it gave no fit, where `fit` was refused by one of the two.
    """

    fits: tuple[Fit, ...]
    labels: tuple[str, ...]
    table: pd.DataFrame
    absent: tuple[tuple[str, str], ...] = ()

    @property
    def verdicts(self) -> tuple[str, ...]:
        """What the table says, a sentence each: where the engines agree, where not, and what each engine's checks say."""
        return (*_agreement(self), *_soundness(self), *(f"{engine} gave no fit: {reason}" for engine, reason in self.absent))

    @property
    def ok(self) -> bool:
        """Whether every fit passed its checks and no engine refused."""
        return not self.absent and all(one.diagnose().ok for one in self.fits)

    def plot(self) -> Figure:
        """Draw the estimates of all fits side by side with their intervals."""
        from bayeslmm.plots import compare_plot

        return compare_plot(self)

    def save(self, path: Any) -> None:
        """Write all fits to one file, which `bayeslmm.load` reads; see their own `save`.

        Raises
        ------
        PersistenceError
            If the file cannot be written there; what was there is then as it was.
        """
        from bayeslmm.persistence import save

        save(self, path)

    def __getitem__(self, label: str) -> Fit:
        """Return the fit of that label (`"REML"`, `"NUTS"`)."""
        if label not in self.labels:
            raise FitError(f"no fit is labelled {label!r}; there are {', '.join(self.labels)}")
        return self.fits[self.labels.index(label)]

    def __str__(self) -> str:
        return "\n".join([text_table(self), "", *self.verdicts])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from html import escape

        sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.verdicts)
        return f"{html_table(self)}<ul>{sentences}</ul>"


def compare(*fits: Fit) -> Comparison:
    """Put fits of the same response side by side.

    Parameters
    ----------
    *fits
        Two or more fits, of either engine, in any mixture.

    Returns
    -------
    Comparison
        With `.table`, `.verdicts`, `.plot()`.

    Raises
    ------
    FitError
        If fewer than two fits are given, or they are not of the same response on the same rows.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> data = bl.load_dataset("sleepstudy")
    >>> reml = bl.lmer("Reaction ~ Days + (Days | Subject)", data)
    >>> ml = bl.lmer("Reaction ~ Days + (Days | Subject)", data, reml=False)
    >>> bl.compare(reml, ml).labels
    ('REML', 'ML')
    """
    if len(fits) < 2:
        raise FitError("compare needs at least two fits, as compare(one, two)")
    for other in fits:
        if not isinstance(other, Fit):
            raise FitError(f"compare takes fits, as compare(one, two), not {type(other).__name__}")
    first = fits[0].model.design
    for other in fits[1:]:
        design = other.model.design
        if design.n != first.n or not design.index.equals(first.index) or not np.array_equal(design.y, first.y):
            raise FitError(
                "the fits are not of the same response on the same rows; fit them to the same data (after dropping missing values)"
            )
    return _comparison(fits)


def fit(
    formula: str | Formula | Model,
    data: Any = None,
    family: str = "gaussian",
    *,
    reml: bool = True,
    link: str | None = None,
    priors: Sequence[PriorRow] | None = None,
    weights: Any = None,
    offset: Any = None,
    contrasts: Any = None,
    data2: Any = None,
    na: str = "omit",
    dialect: str = "lme4",
    chains: int = 4,
    draws: int = 1000,
    tune: int = 1000,
    cores: int | None = None,
    seed: int | None = None,
    sampler: str = "auto",
    target_accept: float | None = None,
    progressbar: bool = True,
) -> Comparison:
    """Fit one model by both engines, REML (or ML) and NUTS, and put them side by side.

    Parameters
    ----------
    formula, data, family, link, priors, weights, offset, contrasts, data2, na, dialect
        The model, as `model` takes them; or a ready `Model` in place of formula and data.
    reml
        True for REML, False for ML, in the classical engine.
    chains, draws, tune, cores, seed, sampler, target_accept, progressbar
        The sampling, as `brm` takes them.

    Returns
    -------
    Comparison
        Where the classical engine refuses the model, the posterior stands alone and `.absent` says why.

    Raises
    ------
    FormulaError, DataError, PriorError, FitError
        As `model` does.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> both = bl.fit("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"), seed=1)  # doctest: +SKIP
    >>> print(both)  # doctest: +SKIP
    """
    from bayeslmm.bayes import brm
    from bayeslmm.classical import engine_for

    ready = as_model(
        formula,
        data,
        family,
        link=link,
        priors=priors,
        weights=weights,
        offset=offset,
        contrasts=contrasts,
        data2=data2,
        na=na,
        dialect=dialect,
    )
    absent: tuple[tuple[str, str], ...] = ()
    made: list[Fit] = []
    method, classical = engine_for(ready, reml=reml)
    try:
        made.append(classical())
    except BayesLmmError as refusal:
        absent = ((method, str(refusal)),)
    made.append(
        brm(
            ready,
            chains=chains,
            draws=draws,
            tune=tune,
            cores=cores,
            seed=seed,
            sampler=sampler,
            target_accept=target_accept,
            progressbar=progressbar,
        )
    )
    return _comparison(made, absent)


def _comparison(fits: Sequence[Fit], absent: tuple[tuple[str, str], ...] = ()) -> Comparison:
    return side_by_side(fits, _labels([one.method for one in fits]), absent)


def side_by_side(fits: Sequence[Fit], labels: Sequence[str], absent: tuple[tuple[str, str], ...] = ()) -> Comparison:
    """Return fits of the same rows under labels of one's own."""
    return Comparison(fits=tuple(fits), labels=tuple(labels), table=_table(fits, labels), absent=absent)


def _labels(methods: Sequence[str]) -> tuple[str, ...]:
    """Return the methods, numbered where one occurs twice."""
    counts: dict[str, int] = {}
    labels = []
    for method in methods:
        counts[method] = counts.get(method, 0) + 1
        labels.append(f"{method} {counts[method]}" if methods.count(method) > 1 else method)
    return tuple(labels)


def _table(fits: Sequence[Fit], labels: Sequence[str]) -> pd.DataFrame:
    """Join the estimates on part, group and term, in the order of the first fit that has them."""
    frames = []
    for one, label in zip(fits, labels, strict=True):
        frame = one.estimates.set_index(_KEYS)
        frames.append(frame.rename(columns={"estimate": label, "se": f"{label}_se", "lower": f"{label}_lower", "upper": f"{label}_upper"}))
    order = list(dict.fromkeys(key for frame in frames for key in frame.index))
    table = pd.concat([frame.reindex(order) for frame in frames], axis=1).reset_index()
    table.columns = pd.Index([*_KEYS, *table.columns[len(_KEYS) :]])
    first, last = labels[0], labels[-1]
    if first == last:
        return table
    table["difference"] = table[last] - table[first]
    scale = table[[f"{first}_se", f"{last}_se"]].max(axis=1)
    table["difference_in_se"] = table["difference"] / scale.where(scale > 0)
    table["verdict"] = [_verdict(row, first, last) for _, row in table.iterrows()]
    return table


def _verdict(row: pd.Series[Any], first: str, last: str) -> str:
    """Say in a word how far the last fit lies from the first."""
    distance = abs(row["difference_in_se"])
    if pd.isna(row[first]) or pd.isna(row[last]):
        if row["part"] == "cor" and not (pd.isna(row[first]) and pd.isna(row[last])):
            return "undefined at the boundary"
        return "in one fit only"
    errors = sorted((row[f"{first}_se"], row[f"{last}_se"]))
    if errors[0] > 0 and errors[1] > _ENDLESS * errors[0]:
        return "no finite estimate in one fit"
    if row["part"] == "sd" and min(row[first], row[last]) == 0:
        return "at the boundary in one fit"
    if pd.isna(distance):
        return ""
    if distance <= AGREE:
        return "agree"
    return "close" if distance <= DIFFER else "differ"


def _agreement(comparison: Comparison) -> list[str]:
    table = comparison.table
    if "verdict" not in table:
        return []
    first, last = comparison.labels[0], comparison.labels[-1]
    sentences = []
    agree = int((table["verdict"] == "agree").sum())
    sentences.append(f"{first} and {last} agree within {AGREE:g} standard errors on {agree} of {len(table)} estimates.")
    for _, row in table[~table["verdict"].isin(["agree", ""])].iterrows():
        sentences.append(_explain_row(row, first, last))
    return sentences


def _explain_row(row: pd.Series[Any], first: str, last: str) -> str:
    name = f"{row['part']} {row['term']}" + (f" | {row['group']}" if row["group"] else "")
    if row["verdict"] in ("close", "differ"):
        tail = (
            f" (a posterior mean of a standard deviation lies above the {first} estimate where the data say little)"
            if row["part"] == "sd" and row["difference"] > 0
            else ""
        )
        return f"{name}: {last} lies {row['difference_in_se']:+.2f} standard errors from {first}{tail}."
    return f"{name}: {row['verdict']} ({first} {row[first]:.4g}, {last} {row[last]:.4g})."


def _soundness(comparison: Comparison) -> list[str]:
    sentences = []
    for label, one in zip(comparison.labels, comparison.fits, strict=True):
        failed = [check for check in one.diagnose().failed if check.severity == "error"]
        if failed:
            sentences.append(
                f"{label} failed {len(failed)} of its checks: " + "; ".join(f"{check.code} ({check.meaning})" for check in failed)
            )
        else:
            sentences.append(f"{label} passed its checks.")
    return sentences


def html_table(comparison: Comparison) -> str:
    """Return the table as HTML, without the intervals."""
    shown = comparison.table.drop(columns=[name for name in comparison.table if str(name).endswith(("_lower", "_upper"))])
    html: str = shown.to_html(index=False, float_format=lambda value: f"{value:.4g}", na_rep="")
    return html


def text_table(comparison: Comparison) -> str:
    """Return the table as text: estimate and standard error of each fit, difference in standard errors, verdict."""
    table = comparison.table
    columns: dict[str, list[str]] = {name: [str(value) for value in table[name]] for name in _KEYS}
    for label in comparison.labels:
        columns[label] = [_number(value) for value in table[label]]
        columns[f"SE {label}"] = [_number(value) for value in table[f"{label}_se"]]
    if "verdict" in table:
        columns["diff/SE"] = [_number(value, "+.2f") for value in table["difference_in_se"]]
        columns["verdict"] = [str(value) for value in table["verdict"]]
    padded = [_padded(name, cells, left=name in (*_KEYS, "verdict")) for name, cells in columns.items()]
    return "\n".join("  ".join(cells).rstrip() for cells in zip(*padded, strict=True))


def _padded(name: str, cells: list[str], *, left: bool) -> list[str]:
    width = max(len(cell) for cell in (name, *cells))
    return [cell.ljust(width) if left else cell.rjust(width) for cell in (name, *cells)]


def _number(value: float, spec: str = "#.4g") -> str:
    text = "" if pd.isna(value) else format(value, spec)
    return text.lstrip("+-") if text and float(text) == 0 else text
