"""Separation: whether the predictors take apart the outcomes of a response, and which coefficient and level do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.design import variables
from bayeslmm.errors import FitError
from bayeslmm.formula import deparse
from bayeslmm.model import Model
from bayeslmm.separation.kernel import separate, separate_with_levels
from bayeslmm.separation.words import Finding, Rows, findings

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.separation.kernel import SeparatedLevels

__all__ = ["Separation", "separation"]

type Array = np.ndarray

COLUMNS = ("part", "coefficient", "direction", "where", "successes", "trials", "sentence")
_SIGNS = {(True, False): "+inf", (False, True): "-inf", (True, True): "undefined"}
"""(can rise, can fall without bound) -> what the maximum-likelihood estimate is."""
_NAMED, _SHOWN = 3, 10
_TOGETHER = "fixed effects and groups together"


@dataclass(frozen=True, slots=True, kw_only=True)
class Separation:
    """Whether and how a response is separated.

    Attributes
    ----------
    part
        `"fixed"`: by the fixed effects alone; `"with groups"`: by fixed effects and groups, all as fixed effects.
    kind
        `"none"`; `"quasi"`: some rows are taken apart; `"complete"`: all are.
    coefficients
        Fixed coefficient without a finite maximum-likelihood estimate -> `"+inf"`, `"-inf"`, or `"undefined"`, where it is
        the difference of two infinite ones.
    findings
        What separates: `where` (level or range), `sentence`, `successes`, `trials`, `rows`, `direction` of each.
    names
        Names of the fixed coefficients, to which the directions belong.
    with_groups
        The same question with the groups as fixed effects too; None where the model has none or they were not asked for.
    """

    part: str
    kind: str
    coefficients: Mapping[str, str]
    findings: tuple[Finding, ...]
    names: tuple[str, ...]
    with_groups: Separation | None = None

    @property
    def separated(self) -> bool:
        """Whether rows are separated, so that some estimate is infinite."""
        return self.kind != "none"

    @property
    def sentence(self) -> str:
        """What is found, in one sentence: `treatment = 2800: 0 of 112 trials are successes (m); ...`."""
        if not self.separated:
            whom = "The fixed effects" if self.part == "fixed" else _TOGETHER.capitalize()
            return f"{whom} do not separate the response."
        shown = "; ".join(finding.sentence for finding in self.findings[:_NAMED])
        more = f"; and {len(self.findings) - _NAMED} more" if len(self.findings) > _NAMED else ""
        if not self.coefficients:
            return f"{shown}{more}"
        listed = ", ".join(f"{name} ({sign})" for name, sign in self.coefficients.items())
        return f"{shown}{more}. Maximum likelihood has no finite estimate of {listed}"

    @property
    def table(self) -> pd.DataFrame:
        """Frame `part, coefficient, direction, where, successes, trials, sentence`; the rows of `with_groups` come last.

        A row for each finding and each coefficient that it moves; `coefficient` is the level itself for a level of a group.
        """
        import pandas as pd

        own = pd.DataFrame(_table_rows(self), columns=list(COLUMNS))
        if self.with_groups is None or not self.with_groups.separated:
            return own
        return pd.concat([own, self.with_groups.table], ignore_index=True) if len(own) else self.with_groups.table

    def __str__(self) -> str:
        lines = [f"Separation by the fixed effects: {self.kind}" if self.part == "fixed" else f"With the groups: {self.kind}"]
        lines += [f"  {finding.sentence}" for finding in self.findings[:_SHOWN]]
        lines += [f"  and {len(self.findings) - _SHOWN} more: see .table"] if len(self.findings) > _SHOWN else []
        lines += [f"  {name}: {sign}" for name, sign in self.coefficients.items()]
        if self.with_groups is not None:
            lines.append(str(self.with_groups))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(self.sentence)}</p>{self.table.to_html(index=False) if len(self.table) else ''}"


def separation(model: Any, *, groups: bool = True) -> Separation:
    """Decide whether the predictors separate the response, so that maximum likelihood has no finite estimate.

    Binary and binomial responses are separated where a direction of the coefficients leads no row away from its outcome and
    some rows towards it: a level at 0 % or 100 %, a threshold of a measure, or a combination of predictors. Counts are where
    only zeros are led so. Normal random effects of groups are held by their distribution: they do not mend a separation by the
    fixed effects, and a group of one outcome separates nothing unless groups are fixed effects.

    Parameters
    ----------
    model
        A `Model`, or a fit of one.
    groups
        Whether to ask the same with the groups as fixed effects too.

    Returns
    -------
    Separation
        Of kind `"none"` for families whose rows have no extreme outcome.

    Raises
    ------
    FitError
        If `model` is neither a model nor a fit.

    Source: Albert & Anderson (1984), Biometrika 71, 1-10; Konis (2007), thesis, Oxford; for counts Correia, Guimaraes & Zylkin
    (2019), arXiv:1903.01633.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> data = {"dead": [0, 0, 1, 2], "alive": [9, 8, 6, 5], "dose": ["none", "none", "low", "high"]}
    >>> found = bl.separation(bl.model("cbind(dead, alive) ~ dose", data, "binomial"))
    >>> print(found)
    Separation by the fixed effects: quasi
      dose = none: 0 of 17 trials are successes (dead)
      dosenone: -inf
    """
    ready = model if isinstance(model, Model) else getattr(model, "model", None)
    if not isinstance(ready, Model):
        raise FitError(f"separation takes a Model, made by bayeslmm.model, or a fit, not {type(model).__name__}")
    low, high = extreme_rows(ready)
    rows = _rows(ready, low, high)
    alone = _fixed(ready, rows)
    if not groups or not ready.design.blocks:
        return alone
    return replace(alone, with_groups=_with_groups(ready, rows, alone))


def extreme_rows(model: Model) -> tuple[Array, Array]:
    """Return the masks (n,) of rows whose likelihood grows with an ever lower, an ever higher linear predictor.

    An end of the mean's range that the link puts at a finite value, as the log does with a probability of 1, has none.
    """
    design, nowhere = model.design, np.zeros(model.design.n, dtype=bool)
    if model.family.extremes is None:
        return nowhere, nowhere
    low, high = model.family.extremes(design.y, design.trials)
    with np.errstate(all="ignore"):
        ends = np.abs([float(model.link.link(np.array(end))) for end in (0.0, 1.0)])
    return (low if ends[0] > 1e9 else nowhere), (high if ends[1] > 1e9 else nowhere)


def _rows(model: Model, low: Array, high: Array) -> Rows:
    design = model.design
    response = design.encoder.formula.response
    success = "successes"
    if design.response_levels is not None:
        success = f"'{design.response_levels[-1]}'"
    elif design.trials is not None and response is not None:
        success = f"successes ({deparse(response.nodes[0])})"
    return Rows(
        X=design.X,
        names=design.fixed_names,
        y=design.y,
        trials=design.trials,
        low=low,
        high=high,
        success=success,
        counts=not (model.family.takes_levels or model.family.needs_trials),
    )


def _fixed(model: Model, rows: Rows) -> Separation:
    found = separate(rows.X, rows.low, rows.high)
    if found is None:
        return Separation(part="fixed", kind="none", coefficients=MappingProxyType({}), findings=(), names=rows.names)
    design = model.design
    terms = [tuple(deparse(variable) for variable in term.variables) for term in design.encoder.formula.mean.terms]
    values = variables(design.encoder, model.frame[design.kept])
    return Separation(
        part="fixed",
        kind="complete" if found.rows.all() else "quasi",
        coefficients=_signs(rows.names, found.up, found.down),
        findings=findings(rows, terms, values, found.rows),
        names=rows.names,
    )


def _signs(names: tuple[str, ...], up: Array, down: Array) -> Mapping[str, str]:
    pairs = zip(names, zip(up.tolist(), down.tolist(), strict=True), strict=True)
    return MappingProxyType({name: _SIGNS[pair] for name, pair in pairs if pair in _SIGNS})


def _with_groups(model: Model, rows: Rows, alone: Separation) -> Separation:
    blocks = model.design.blocks
    indexed = [(i, block.index, block.n_levels) for i, block in enumerate(blocks) if block.term.intercept]
    found = separate_with_levels(rows.X, model.design.Z, indexed, rows.low, rows.high)
    if found is None:
        return Separation(part="with groups", kind="none", coefficients=MappingProxyType({}), findings=(), names=rows.names)
    return Separation(
        part="with groups",
        kind="complete" if found.rows.all() else "quasi",
        coefficients=_signs(rows.names, found.up, found.down),
        findings=_with_levels(model, rows, alone, found),
        names=rows.names,
    )


def _with_levels(model: Model, rows: Rows, alone: Separation, found: SeparatedLevels) -> tuple[Finding, ...]:
    """Name levels of one outcome, then what the fixed effects separate in the rows that these leave, then that there is more."""
    named = _level_findings(model, rows, found)
    left = found.rows & ~np.logical_or.reduce([finding.rows for finding in named]) if named else found.rows.copy()
    for finding in alone.findings:
        if (finding.rows & left).any():
            named.append(finding)
            left &= ~finding.rows
    if left.any():
        successes, trials = rows.tally(left)
        count = f"{int(left.sum())} {'other ' if named else ''}row{'s' * int(left.sum() != 1)}"
        sentence = f"{_TOGETHER} separate {count}"
        named.append(
            Finding(where=_TOGETHER, sentence=sentence, successes=successes, trials=trials, rows=left, direction=np.zeros(len(rows.names)))
        )
    return tuple(named)


def _level_findings(model: Model, rows: Rows, found: SeparatedLevels) -> list[Finding]:
    """Name the levels of one outcome, each among the rows that the levels before it have left."""
    left = np.ones(len(rows.y), dtype=bool)
    named: list[Finding] = []
    for position, level in found.levels:
        block = model.design.blocks[position]
        whole = block.index == level
        inside = whole & left
        where = f"{block.group} = {block.levels[level]}"
        among = "" if inside.sum() == whole.sum() else " (in the rows that other levels leave)"
        successes, trials = rows.tally(inside)
        sentence = f"{where}{among}: {rows.said(inside)}"
        named.append(
            Finding(where=where, sentence=sentence, successes=successes, trials=trials, rows=inside, direction=np.zeros(len(rows.names)))
        )
        left &= ~whole
    return named


def _table_rows(found: Separation) -> list[tuple[Any, ...]]:
    """Return a row for each finding and each coefficient that it moves; coefficients that none moves stand with the first."""
    rows: list[tuple[Any, ...]] = []
    told: set[str] = set()
    for finding in found.findings:
        size = np.abs(finding.direction).max(initial=0.0)
        moved = [
            name
            for name, step in zip(found.names, finding.direction, strict=True)
            if abs(step) > 1e-9 * size and name in found.coefficients
        ]
        told |= set(moved)
        rows += [_row(found, name, found.coefficients[name], finding) for name in moved]
        if not finding.direction.any():
            rows.append(_row(found, finding.where, _level_sign(finding), finding))
    rows += [_row(found, name, sign, found.findings[0]) for name, sign in found.coefficients.items() if name not in told]
    return rows


def _level_sign(finding: Finding) -> str:
    """Return where the effect of a level of one outcome goes; nothing for rows of both."""
    return {0.0: "-inf", finding.trials: "+inf"}.get(finding.successes, "")


def _row(found: Separation, coefficient: str, direction: str, finding: Finding) -> tuple[Any, ...]:
    return (found.part, coefficient, direction, finding.where, finding.successes, finding.trials, finding.sentence)
