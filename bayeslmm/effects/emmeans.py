"""Estimated marginal means and contrasts between them, as R's emmeans makes them, of either engine's fit."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from bayeslmm.classical import ddf as ddf_methods
from bayeslmm.classical.lmm import lmer
from bayeslmm.classical.noise import has_noise
from bayeslmm.effects.adjust import TestFamily, adjusted, adjustment_named
from bayeslmm.effects.contrasts import ContrastSet, contrast_set
from bayeslmm.effects.grid import Grid, Linear, reference_grid
from bayeslmm.errors import BayesLmmWarning, DataError, FitError, suggest
from bayeslmm.formula.evaluate import columns_in

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.fit import Draws, Fit

__all__ = ["DDF", "DDF_METHODS", "MAX_ROWS_DDF", "SCALES", "Judged", "emmeans"]

type Array = np.ndarray

MAX_ROWS_DDF = 3000
"""Fits of more rows get normal tests unless degrees of freedom are asked for by name; emmeans has the same limit."""
DDF = ("kenward-roger", "satterthwaite", "asymptotic")
SCALES = ("link", "response")


def emmeans(
    fit: Fit,
    specs: str | Sequence[str],
    by: str | Sequence[str] | None = None,
    contrast: str | Mapping[str, Any] | Any = None,
    adjust: str | None = None,
    *,
    at: Mapping[str, Any] | None = None,
    ddf: str | None = None,
    level: float = 0.95,
    scale: str = "link",
) -> pd.DataFrame:
    """Return the means of the response at factor levels, averaged over the other factors with equal weights, or their contrasts.

    The means are those of the fixed part (random effects at zero) on the reference grid: all combinations of the factors' levels,
    other columns at their mean (those of two values at both). Contrasts are taken within each combination of the columns of `by`,
    whose tests are one family each.

    Parameters
    ----------
    fit
        Of `lmer`, `glmer` or `brm`.
    specs
        Columns whose means are wanted; or text as `"~ a | b"`, or `"pairwise ~ a | b"`, which stands for `by` and `contrast` too.
    by
        Columns within whose levels means are compared.
    contrast
        `"pairwise" "revpairwise" "trt.vs.ctrl" "trt.vs.ctrlk" "consec" "eff" "poly"`, a dict of name -> coefficients, or a matrix with
        one row a contrast. Default: the means themselves.
    adjust
        `"tukey" "dunnettx" "mvt" "sidak" "bonferroni" "holm" "fdr" "none"`. Default: Tukey's for all pairs, `dunnettx` against a
        control, `mvt` for consecutive differences, `fdr` for `eff`, otherwise none. Intervals are adjusted alike (`holm` and `fdr`,
        which have none, by Bonferroni's).
    at
        Column -> values of the grid, in place of the usual ones.
    ddf
        `"kenward-roger"` (default; an ML fit's standard errors are then those of its REML fit), `"satterthwaite"` or
        `"asymptotic"` (default above 3000 rows, and of `glmer`). Of classical fits only.
    level
        Of the intervals.
    scale
        `"link"`, or `"response"`: means through the inverse link, contrasts as ratios, of odds for a logit link. Tests are made, and
        limits are computed, on the scale of the link.

    Returns
    -------
    DataFrame
        The columns of `specs` (or `contrast`) and `by`; then `estimate, se, df, lower, upper`, and for contrasts `statistic, p_value`.
        Of a posterior `estimate` (mean), `se` (standard deviation), `lower, upper` (quantiles), and for contrasts `p_direction`.
        NaN, with a warning `not_estimable`, where the data do not tell a mean. `.attrs["notes"]` says what was done.

    Raises
    ------
    DataError
        If a column is not in the fixed part of the model, or the coefficients of a contrast do not fit.
    FitError
        For an unknown option, or one that the fit cannot have.

    Source: Searle, Speed & Milliken (1980), Am. Stat. 34, 216-221; Lenth, emmeans 1.8.4, for defaults and labels.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("diameter ~ sample + (1 | plate)", bl.load_dataset("Penicillin"))
    >>> emmeans(fit, "sample")["estimate"].round(2).tolist()
    [25.17, 21.96, 24.92, 22.88, 22.96, 19.96]
    >>> emmeans(fit, "sample", contrast="consec", adjust="holm")["p_value"].round(4).tolist()
    [0.0, 0.0, 0.0, 0.6006, 0.0]
    """
    question = _question(specs, by, contrast)
    _check_options(adjust, ddf, level, scale)
    grid = reference_grid(fit.model, at)
    means = grid.marginal([*question.names, *question.by])
    chosen = None if question.contrast is None else _contrasts(question, grid, means)
    linear = means if chosen is None else _contrasted(question, means, chosen)
    if not linear.known.all():
        message = f"{int(np.sum(~linear.known))} of {len(linear.labels)} values cannot be estimated from these data; they are NaN"
        warnings.warn(BayesLmmWarning("not_estimable", message), stacklevel=2)
    groups = len(means.labels) // _group_size(question, grid)
    asked = _Asked(
        linear=linear,
        contrasts=chosen,
        groups=groups,
        means=_group_size(question, grid),
        adjust=adjust,
        ddf=ddf,
        level=level,
        scale=scale,
        notes=tuple(_grid_notes(fit, grid, question)),
    )
    draws = fit.draws()
    return _posterior_table(fit, draws, asked) if draws.n_draws > 1 else _classical_table(cast("ClassicalFit", fit), asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    """The columns whose means are wanted, those within which they are compared, and the contrast."""

    names: tuple[str, ...]
    by: tuple[str, ...]
    contrast: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """The linear functions wanted, in `groups` families of one size over `means` means each, and how they are to be judged."""

    linear: Linear
    contrasts: ContrastSet | None
    groups: int
    means: int
    adjust: str | None
    ddf: str | None
    level: float
    scale: str
    notes: tuple[str, ...]

    @property
    def method(self) -> str:
        """The adjustment asked for, or the usual one."""
        return self.adjust or ("none" if self.contrasts is None else self.contrasts.adjust)

    @property
    def pairs(self) -> bool:
        return self.contrasts is not None and self.contrasts.pairs


# What is asked ---------------------------------------------------------------------------------------------------------


def _question(specs: str | Sequence[str], by: str | Sequence[str] | None, contrast: Any) -> _Question:
    names, within = specs, by
    if isinstance(specs, str) and "~" in specs:
        left, _, right = specs.partition("~")
        inside, _, condition = right.partition("|")
        if left.strip() and contrast is not None:
            raise DataError(f"specs '{specs}' names a contrast, and contrast= another; give one of them")
        if condition.strip() and by is not None:
            raise DataError(f"specs '{specs}' has a bar, and by= is given; give one of them")
        contrast = left.strip() or contrast
        names, within = _split(inside), (_split(condition) or by)
    wanted, groups = _names(names, "specs"), _names(within, "by")
    return _Question(names=tuple(name for name in wanted if name not in groups), by=groups, contrast=contrast)


def _split(text: str) -> list[str]:
    return [name for name in re.split(r"[\s*+:]+", text.strip()) if name and name != "1"]


def _names(given: str | Sequence[str] | None, what: str) -> tuple[str, ...]:
    names = () if given is None else (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"{what} must be a column's name or a list of them")
    return tuple(dict.fromkeys(names))


def _check_options(adjust: str | None, ddf: str | None, level: float, scale: str) -> None:
    if adjust is not None:
        adjustment_named(adjust)
    if ddf is not None and ddf not in DDF:
        raise FitError(f"unknown ddf {ddf!r}{suggest(str(ddf), DDF)}")
    if scale not in SCALES:
        raise FitError(f"unknown scale {scale!r}{suggest(str(scale), SCALES)}")
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0.0 < level < 1.0:
        raise FitError(f"level must lie between 0 and 1, not {level!r}")


def _group_size(question: _Question, grid: Grid) -> int:
    return int(np.prod([len(grid.axis(name).values) for name in question.names], dtype=int))


def _contrasts(question: _Question, grid: Grid, means: Linear) -> ContrastSet:
    size = _group_size(question, grid)
    parts = []
    for name in question.names:
        axis = grid.axis(name)
        prefix = name if axis.numeric_labels else ""
        by_value = dict(zip(axis.values, axis.labels, strict=True))
        parts.append([f"{prefix}{by_value[value]}" for value in means.labels[name].iloc[:size]])
    return contrast_set(question.contrast, [" ".join(label) for label in zip(*parts, strict=True)] or ["overall"])


def _contrasted(question: _Question, means: Linear, chosen: ContrastSet) -> Linear:
    import pandas as pd

    q, size = chosen.weights.shape
    groups = len(means.labels) // size
    labels = pd.DataFrame({"contrast": list(chosen.names) * groups})
    for name in question.by:
        labels[name] = means.labels[name].iloc[np.repeat(np.arange(groups) * size, q)].array
    return means.combined(np.kron(np.eye(groups), chosen.weights), labels)


def _grid_notes(fit: Fit, grid: Grid, question: _Question) -> list[str]:
    shown = {*question.names, *question.by}
    averaged = [axis.name for axis in grid.axes if axis.name not in shown and len(axis.values) > 1]
    notes = [f"averaged over the levels of: {', '.join(averaged)}"] if averaged else []
    together = [
        {name for variable in term.variables for name in columns_in(variable)} for term in fit.model.design.encoder.formula.mean.terms
    ]
    if any(columns & shown and columns & set(averaged) for columns in together):
        notes.append("may mislead: these columns interact with those averaged over")
    return notes


# Classical fits --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """The covariance of the coefficients (p, p) and the function that gives a contrast's degrees of freedom."""

    vcov: Array
    df: Callable[[Array], float]
    name: str


def _asymptotic(fit: ClassicalFit) -> Judged:
    return Judged(vcov=fit.vcov().to_numpy(), df=lambda contrast: float("inf"), name="asymptotic")


def _satterthwaite(fit: ClassicalFit) -> Judged:
    found = ddf_methods.inference(fit, "satterthwaite")
    return Judged(vcov=found.vcov, df=found.df, name="satterthwaite")


def _kenward_roger(fit: ClassicalFit) -> Judged:
    if not fit.reml and not fit.generalised and fit.model.design.blocks:
        message = "Kenward and Roger's standard errors and degrees of freedom are of the REML fit; the estimates stay those by ML"
        warnings.warn(BayesLmmWarning("refitted_reml", message), stacklevel=5)
        fit = lmer(fit.model, reml=True)
    found = ddf_methods.inference(fit, "kenward-roger")
    return Judged(vcov=found.vcov, df=found.df, name="kenward-roger")


DDF_METHODS: Mapping[str, Callable[[ClassicalFit], Judged]] = MappingProxyType(
    {"kenward-roger": _kenward_roger, "satterthwaite": _satterthwaite, "asymptotic": _asymptotic}
)


def _judged(fit: ClassicalFit, ddf: str | None) -> Judged:
    """Return what tests need: by default Kenward and Roger's where it can be had, Satterthwaite's of a fit with a residual structure.

    Of a generalised model it is the normal distribution.
    """
    if ddf is not None:
        return DDF_METHODS[ddf](fit)
    if fit.generalised:
        return _asymptotic(fit)
    if has_noise(fit.model.design):
        return _satterthwaite(fit)
    reason = f"{fit.nobs} rows are more than {MAX_ROWS_DDF}"
    if fit.nobs <= MAX_ROWS_DDF:
        try:
            return _kenward_roger(fit)
        except FitError as error:
            reason = str(error)
    message = f"tests are asymptotic, without degrees of freedom: {reason}; ask by ddf='kenward-roger', 'satterthwaite' or 'asymptotic'"
    warnings.warn(BayesLmmWarning("asymptotic", message), stacklevel=4)
    return _asymptotic(fit)


def _classical_table(fit: ClassicalFit, asked: _Asked) -> pd.DataFrame:
    linear, known = asked.linear, asked.linear.known
    carried, slope, labels = _carried(fit, asked)
    judged = _judged(fit, asked.ddf)
    nan = np.full(len(known), np.nan)
    estimate = np.where(known, linear.L @ fit.beta + linear.offset, np.nan)
    covariance = linear.L @ judged.vcov @ linear.L.T
    se = np.where(known, np.sqrt(np.maximum(np.diagonal(covariance), 0.0)), np.nan)
    df = nan.copy()
    df[known] = [judged.df(row) for row in linear.L[known]]
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = estimate / se
        correlation = covariance / np.outer(se, se)
    p_value, critical, made = nan.copy(), nan.copy(), "none"
    for rows in np.split(np.arange(len(known)), asked.groups):
        family = TestFamily(statistic[rows], df[rows], correlation[np.ix_(rows, rows)], asked.means, asked.pairs)
        p_value[rows], critical[rows], made = adjusted(family, asked.method, asked.level)
    ends = np.sort(carried(np.stack([estimate - critical * se, estimate + critical * se])), axis=0)
    columns = {"estimate": carried(estimate), "se": se * np.abs(slope(estimate)), "df": df, "lower": ends[0], "upper": ends[1]}
    tests = {"statistic": statistic, "p_value": p_value} if asked.contrasts is not None else {}
    notes = [f"degrees of freedom: {judged.name}", *([f"adjusted: {made}"] if made != "none" else [])]
    notes += [f"scale: {asked.scale}"] if fit.generalised else []
    return _table(asked, labels, columns | tests, notes)


def _table(asked: _Asked, labels: pd.DataFrame, columns: Mapping[str, Array], notes: Sequence[str]) -> pd.DataFrame:
    table = labels.assign(**columns)
    table.attrs["notes"] = [*asked.notes, *notes, f"intervals: {100 * asked.level:g} %"]
    return table


# Posteriors ------------------------------------------------------------------------------------------------------------


def _posterior_table(fit: Fit, draws: Draws, asked: _Asked) -> pd.DataFrame:
    if asked.adjust not in (None, "none"):
        raise FitError(f"adjust={asked.adjust!r} corrects tests, and a posterior makes none; leave it out")
    if asked.ddf is not None:
        raise FitError("ddf is of classical fits; a posterior needs no degrees of freedom")
    linear = asked.linear
    eta = draws.b @ linear.L.T + linear.offset
    positive = np.mean(eta > 0.0, axis=0)
    direction = np.maximum(positive, np.mean(eta < 0.0, axis=0))
    carried, _, labels = _carried(fit, asked)
    values = carried(eta)
    lower, upper = np.quantile(values, [0.5 - asked.level / 2.0, 0.5 + asked.level / 2.0], axis=0)
    columns = {"estimate": values.mean(axis=0), "se": values.std(axis=0, ddof=1), "lower": lower, "upper": upper}
    columns |= {"p_direction": direction} if asked.contrasts is not None else {}
    told = {name: np.where(linear.known, column, np.nan) for name, column in columns.items()}
    return _table(asked, labels, told, [f"scale: {asked.scale}"])


# Scales ----------------------------------------------------------------------------------------------------------------


def _carried(fit: Fit, asked: _Asked) -> tuple[Callable[[Array], Array], Callable[[Array], Array], pd.DataFrame]:
    """Return what carries values to the scale asked for, its slope, and the labels there: contrasts of logarithms become ratios."""
    link, labels = fit.model.link, asked.linear.labels
    if asked.scale == "link" or link.name == "identity":
        return np.asarray, np.ones_like, labels
    if asked.contrasts is None:
        return link.inverse, link.mu_eta, labels
    if link.name not in ("log", "logit") or np.any(np.abs(asked.contrasts.weights.sum(axis=1)) > 1e-6):
        raise FitError(f"these contrasts have no meaning on the response scale of link '{link.name}'; use scale='link'")
    return np.exp, np.exp, labels.assign(contrast=list(asked.contrasts.ratios) * asked.groups)
