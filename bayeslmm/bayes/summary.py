"""Tables and print-outs of a posterior: estimates, variances, brms's summary, broom.mixed's frames; each number computed once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from bayeslmm.bayes.checks import convergence
from bayeslmm.bayes.draws import response_draws
from bayeslmm.bayes.translate import Factor, factors
from bayeslmm.errors import FitError, suggest
from bayeslmm.fit import ESTIMATES_COLUMNS, TIDY_COLUMNS, Diagnostics, tidied

if TYPE_CHECKING:
    from bayeslmm.bayes.fit import BayesFit
    from bayeslmm.model import Model

__all__ = ["BayesSummary", "Quantity", "augment", "estimates_frame", "glance", "quantities", "summarise", "tidy", "varcorr_frame"]

type Array = np.ndarray

_COLUMNS = ("Estimate", "Est.Error", "l-95% CI", "u-95% CI", "Rhat", "Bulk_ESS", "Tail_ESS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """One row of the estimates with its draws (chains, draws); `shown` is brms's name of it, `sd(Days)`."""

    part: str
    group: str
    term: str
    shown: str
    draws: Array


def quantities(model: Model, posterior: Any) -> tuple[Quantity, ...]:
    """Return the parameters in the order of the estimates: fixed, then per factor sd and cor, then the family's own."""
    rows = list(_coefficients(posterior["b"], model.design.fixed_names, ""))
    for name, (fixed, _) in model.design.parameters.items():
        rows += _coefficients(posterior[f"b_{name}"], fixed.names, f"{name}_")
    for factor in factors(model):
        rows += _of_factor(factor, posterior)
    for parameter in model.family.parameters:
        if parameter.name not in model.design.parameters:
            values = posterior[parameter.name].transpose("chain", "draw").values
            rows.append(Quantity(part="aux", group="", term=parameter.name, shown=parameter.name, draws=values))
    return tuple(rows)


def _coefficients(variable: Any, names: Sequence[str], prefix: str) -> list[Quantity]:
    values = variable.transpose("chain", "draw", ...).values
    return [
        Quantity(part="fixed", group="", term=prefix + name, shown=prefix + name, draws=values[:, :, j]) for j, name in enumerate(names)
    ]


def _of_factor(factor: Factor, posterior: Any) -> list[Quantity]:
    """Return a factor's standard deviations, then the correlations within each of its terms, column by column."""
    prefix = f"{factor.parameter}_" if factor.parameter else ""
    sd = posterior[f"sd_{factor.label}"].transpose("chain", "draw", ...).values
    rows = [
        Quantity(part="sd", group=factor.group, term=prefix + effect, shown=f"sd({_bare(prefix + effect)})", draws=sd[:, :, c])
        for c, effect in enumerate(factor.effects)
    ]
    if not factor.correlated:
        return rows
    cor = posterior[f"cor_{factor.label}"].transpose("chain", "draw", ...).values
    for columns, structure in zip(factor.columns, factor.structures, strict=True):
        if structure.correlated:
            for j, i in ((j, i) for j in columns for i in columns if i > j):
                first, second = prefix + factor.effects[j], prefix + factor.effects[i]
                shown = f"cor({_bare(first)},{_bare(second)})"
                rows.append(Quantity(part="cor", group=factor.group, term=f"{second}.{first}", shown=shown, draws=cor[:, :, i, j]))
    return rows


def _bare(effect: str) -> str:
    """Return an effect's name as brms prints it inside `sd()` and `cor()`: `Intercept` has no parentheses of its own."""
    return effect.replace("(Intercept)", "Intercept")


def estimates_frame(rows: Sequence[Quantity]) -> pd.DataFrame:
    """Return the estimates: posterior mean, standard deviation, 2.5 and 97.5 % quantiles."""
    records = []
    for row in rows:
        lower, upper = np.quantile(row.draws, [0.025, 0.975])
        spread = float(np.std(row.draws, ddof=1)) if row.draws.size > 1 else np.nan
        records.append((row.part, row.group, row.term, float(np.mean(row.draws)), spread, lower, upper))
    return pd.DataFrame(records, columns=list(ESTIMATES_COLUMNS))


def varcorr_frame(model: Model, estimates: pd.DataFrame) -> pd.DataFrame:
    """Return lme4's `as.data.frame(VarCorr(m))` of the posterior means: per term variances, then covariances; `Residual` last."""
    keys = zip(estimates["part"], estimates["group"], estimates["term"], strict=True)
    value = dict(zip(keys, estimates["estimate"].to_numpy(dtype=float), strict=True))
    records: list[tuple[str, str | None, str | None, float, float]] = []
    for factor in factors(model):
        if factor.parameter:
            continue
        for block, columns, structure in zip(factor.blocks, factor.columns, factor.structures, strict=True):
            effects = [factor.effects[c] for c in columns]
            sds = {effect: value["sd", factor.group, effect] for effect in effects}
            records += [(block.name, effect, None, sd**2, sd) for effect, sd in sds.items()]
            if structure.correlated:
                for j, first in enumerate(effects):
                    for second in effects[j + 1 :]:
                        cor = value["cor", factor.group, f"{second}.{first}"]
                        records.append((block.name, first, second, cor * sds[first] * sds[second], cor))
    sigma = value.get(("aux", "", "sigma"))
    if sigma is not None:
        records.append(("Residual", None, None, sigma**2, sigma))
    return pd.DataFrame(records, columns=["group", "term1", "term2", "vcov", "sdcor"])


# --- The print-out ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class BayesSummary:
    """The summary of a posterior: `str()` prints it as brms does; a notebook shows it as tables.

    `header`: label and text pairs; `tables`: title and frame; `verdict`: the diagnostics in words.
    """

    header: tuple[tuple[str, str], ...]
    tables: tuple[tuple[str, pd.DataFrame], ...]
    verdict: tuple[str, ...]
    diagnostics: Diagnostics

    def __str__(self) -> str:
        width = max(len(label) for label, _ in self.header)
        lines = [f"{label:>{width}}: {text}" for label, text in self.header]
        stub = max((len(str(name)) for _, table in self.tables for name in table.index), default=0)
        for title, table in self.tables:
            lines += ["", f"{title}:", *_text_rows(table, stub)]
        return "\n".join([*lines, "", *self.verdict])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        header = "".join(f"<tr><th>{escape(label)}</th><td>{escape(text)}</td></tr>" for label, text in self.header)
        parts = [f"<table>{header}</table>"]
        for title, table in self.tables:
            shown = pd.DataFrame([_cells(row) for row in table.to_numpy()], index=table.index, columns=table.columns)
            parts.append(f"<h4>{escape(title)}</h4>{shown.to_html()}")
        return "".join([*parts, *(f"<p>{escape(sentence)}</p>" for sentence in self.verdict)])


def _cells(row: Array) -> list[str]:
    return [*(f"{value:.2f}" if abs(value) < 1e5 else f"{value:.4g}" for value in row[:5]), *(f"{value:.0f}" for value in row[5:])]


def _text_rows(table: pd.DataFrame, stub: int) -> list[str]:
    widths = [10, 10, 10, 10, 6, 9, 9]
    head = " " * stub + "".join(f" {name:>{width}}" for name, width in zip(table.columns, widths, strict=True))
    body = [
        f"{name!s:<{stub}}" + "".join(f" {cell:>{width}}" for cell, width in zip(_cells(row), widths, strict=True))
        for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return [head, *body]


def summarise(fit: BayesFit) -> BayesSummary:
    """Return the summary of a fit."""
    model, made = fit.model, fit.provenance
    rows = quantities(model, fit.tree["posterior"].to_dataset())
    estimates = fit.estimates
    rhat, bulk, tail = convergence(np.stack([row.draws for row in rows]))
    numbers = np.column_stack([estimates[["estimate", "se", "lower", "upper"]].to_numpy(dtype=float), rhat, bulk, tail])
    header = (
        ("Family", f"{model.family.name} ({model.link.name})"),
        ("Formula", model.formula.text),
        ("Data", f"{fit.nobs} rows"),
        ("Draws", f"{made['chains']} chains, each {made['draws']} after {made['tune']} of tuning ({made['sampler']}, seed {made['seed']})"),
    )
    sections: list[tuple[str, tuple[str, ...], str]] = [
        (f"Group-level effects, {group} ({levels} levels)", ("sd", "cor"), group) for group, levels in fit.ngroups.items()
    ]
    sections += [("Population-level effects", ("fixed",), ""), ("Family-specific parameters", ("aux",), "")]
    tables = []
    for title, parts, group in sections:
        chosen = [i for i, row in enumerate(rows) if row.part in parts and row.group == group]
        if chosen:
            tables.append((title, pd.DataFrame(numbers[chosen], index=[rows[i].shown for i in chosen], columns=list(_COLUMNS))))
    diagnostics = fit.diagnose()
    return BayesSummary(header=header, tables=tuple(tables), verdict=_verdict(diagnostics, made.get("notes", {})), diagnostics=diagnostics)


def _verdict(diagnostics: Diagnostics, notes: Mapping[str, str]) -> tuple[str, ...]:
    """Say in words what the checks found, and what went otherwise than asked; an interruption is among the failed checks."""
    value = {check.code: check.value for check in diagnostics}
    numbers = (
        f"Diagnostics: R-hat at most {value['rhat']:.3f}, bulk ESS at least {value['ess_bulk']:.0f}, tail ESS at least "
        f"{value['ess_tail']:.0f}, {value['divergences']:.0f} divergences, E-BFMI at least {value['ebfmi']:.2f}."
    )
    said = [f"Note: {sentence}." for code, sentence in notes.items() if code != "interrupted"]
    if not diagnostics.failed:
        return numbers, *said, "All checks passed: the draws can be trusted."
    failed = [f"{check.code}: {check.meaning}; {check.remedy}." for check in diagnostics.failed]
    ending = "Read the notes below." if diagnostics.ok else "Do not trust these numbers before the failed checks are mended."
    return numbers, *said, ending, *failed


# --- broom.mixed --------------------------------------------------------------------------------------------------------------

_EFFECTS = ("fixed", "ran_pars", "ran_vals")
_CONVERGENCE = ("rhat", "ess_bulk", "ess_tail")


def tidy(fit: BayesFit, effects: str | Sequence[str]) -> pd.DataFrame:
    """Return one row for each parameter in broom.mixed's columns, then the convergence of its draws.

    Raises
    ------
    FitError
        If an entry of `effects` is unknown.
    """
    wanted = (effects,) if isinstance(effects, str) else tuple(effects)
    for name in wanted:
        if name not in _EFFECTS:
            raise FitError(f"unknown effects {name!r}{suggest(str(name), _EFFECTS)}")
    posterior = fit.tree["posterior"].to_dataset()
    rows = list(quantities(fit.model, posterior))
    frame = tidied(fit.model.design, estimates_frame(rows))
    if "ran_vals" in wanted:
        found = _random_values(fit.model, posterior)
        values = tidied(fit.model.design, estimates_frame([row for _, row in found]))
        frame = pd.concat([frame, values.assign(effect="ran_vals", level=[level for level, _ in found])], ignore_index=True)
        rows += [row for _, row in found]
    kept = frame["effect"].isin(wanted).to_numpy()
    if not kept.any():
        return pd.DataFrame(columns=[*TIDY_COLUMNS, *_CONVERGENCE])
    checks = convergence(np.stack([row.draws for row, wanted_row in zip(rows, kept, strict=True) if wanted_row]))
    return frame[kept].reset_index(drop=True).assign(**dict(zip(_CONVERGENCE, checks, strict=True)))


def _random_values(model: Model, posterior: Any) -> list[tuple[str, Quantity]]:
    """Return level and draws of every random effect."""
    found = []
    for factor in factors(model):
        r = posterior[f"r_{factor.label}"].transpose("chain", "draw", ...).values
        for j, level in enumerate(factor.levels):
            for c, effect in enumerate(factor.effects):
                found.append((level, Quantity(part="ran_vals", group=factor.group, term=effect, shown=effect, draws=r[:, :, j, c])))
    return found


def glance(fit: BayesFit) -> pd.DataFrame:
    """Return one row about the whole fit."""
    diagnostics = fit.diagnose()
    value = {check.code: check.value for check in diagnostics}
    row = {
        "nobs": fit.nobs,
        "sigma": fit.sigma,
        "n_draws": fit.draws().n_draws,
        "rhat_max": value["rhat"],
        "ess_bulk_min": value["ess_bulk"],
        "ess_tail_min": value["ess_tail"],
        "divergences": int(value["divergences"]),
        "ok": diagnostics.ok,
    }
    return pd.DataFrame([row])


def augment(fit: BayesFit) -> pd.DataFrame:
    """Return the rows used with the posterior of their expected response, and the residuals."""
    model = fit.model
    mu = response_draws(model, fit.draws())
    frame = model.frame.loc[np.asarray(model.design.kept)].copy()
    lower, upper = np.quantile(mu, [0.025, 0.975], axis=0)
    frame["fitted"] = fit.fitted().to_numpy()
    frame["se_fit"] = mu.std(axis=0, ddof=1) if len(mu) > 1 else np.nan
    frame["lower"], frame["upper"] = lower, upper
    frame["fixed"] = response_draws(model, fit.draws(), random=False).mean(axis=0)
    frame["resid"] = fit.residuals().to_numpy()
    return frame
