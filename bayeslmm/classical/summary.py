"""The print-out of a classical fit, laid out and rounded as lme4's `print(summary(fit))`."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtr

from bayeslmm.classical.diagnose import singular_terms
from bayeslmm.classical.rformat import abbreviate, coefficient_table, format_numbers, named_row, text_matrix, zapsmall

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit

__all__ = ["ClassicalSummary", "summarise"]

type Array = np.ndarray

MAX_CORRELATIONS = 12
"""With more fixed effects than this their correlations are not printed, as in lme4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicalSummary:
    """The summary of a fit: `str()` is the print-out, `_repr_html_` the same for notebooks."""

    text: str

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(self.text)}</pre>"


def summarise(fit: ClassicalFit) -> ClassicalSummary:
    """Return the summary of a classical fit."""
    parts = [_heading(fit), _criterion(fit), _residuals(fit), _random(fit), _fixed(fit), _further(fit), _correlations(fit)]
    text = "\n\n".join(part for part in parts if part)
    return ClassicalSummary(text="\n".join([text, *_messages(fit)]) + "\n")


def _heading(fit: ClassicalFit) -> str:
    design = fit.model.design
    rows = ", ".join([f"{len(design.kept)} rows", *(f"{count} left out for {reason}" for reason, count in design.lost.items())])
    sources = [f"{name:>7}: ~ {source.partition('~')[2].strip()}" for name, source in fit.model.formula.sources.items()]
    lines = [f"{_kind(fit)} ['{type(fit).__name__}']", *_family(fit), f"Formula: {fit.model.formula.text}", *sources, f"   Data: {rows}"]
    if design.has_weights:
        lines.append(f"Weights: {design.encoder.weights or 'given'}")
    if design.encoder.offset or design.encoder.array_offset:
        lines.append(f" Offset: {design.encoder.offset or 'given'}")
    return "\n".join(lines)


def _kind(fit: ClassicalFit) -> str:
    linear, mixed = not fit.generalised, bool(fit.model.design.blocks)
    if linear:
        by = ("REML" if fit.reml else "maximum likelihood ") + " with a boundary-avoiding prior" * fit.avoids_boundary
        squares = "least squares" if fit.search is None else f"generalized least squares ({by.strip()})"
        return f"Linear mixed model fit by {by}" if mixed else f"Linear model fit by {squares}"
    by = "maximum likelihood" + ("" if fit.penalty is None else f" with a penalty of the coefficients ({fit.penalty.name})")
    if fit.search is None:
        return f"Generalized linear model fit by {by}"
    prior = " with a boundary-avoiding prior" * fit.avoids_boundary
    return f"Generalized linear mixed model fit by {by}{prior} ({_approximation(fit.approximation)})"


def _approximation(method: str) -> str:
    """Return lme4's words for how a likelihood was computed."""
    words = {"Laplace": "Laplace Approximation", "PIRLS": "Adaptive Gauss-Hermite Quadrature, nAGQ = 0"}
    return words.get(method, f"Adaptive Gauss-Hermite Quadrature, nAGQ = {method[4:-1]}")


def _family(fit: ClassicalFit) -> list[str]:
    return [f" Family: {fit.model.family.name}  ( {fit.model.link.name} )"] if fit.generalised else []


def _criterion(fit: ClassicalFit) -> str:
    if fit.reml:
        return f"REML criterion at convergence: {format_numbers([round(fit.criterion, 1)])[0]}"
    values = format_numbers(np.round([fit.aic, fit.bic, fit.loglik, fit.criterion, fit.df_residual], 1))
    values[-1] = str(fit.df_residual)
    return named_row(["AIC", "BIC", "logLik", "deviance", "df.resid"], values)


def _residuals(fit: ClassicalFit) -> str:
    quantiles = np.quantile(fit.residuals("scaled").to_numpy(), [0.0, 0.25, 0.5, 0.75, 1.0])
    return "Scaled residuals: \n" + named_row(["Min", "1Q", "Median", "3Q", "Max"], format_numbers(zapsmall(quantiles, 5), 4))


def _random(fit: ClassicalFit) -> str:
    """Return the table of standard deviations and correlations of all predictors, the mean's first."""
    design = fit.model.design
    parts = [("", design.blocks, fit.covariances)]
    parts += [(f"{name}_", design.parameters[name][1], part.covariances) for name, part in fit.further.items() if part.names]
    terms = [(prefix, block, covariance) for prefix, blocks, own in parts for block, covariance in zip(blocks, own, strict=True)]
    groups: list[str] = []
    names: list[str] = []
    sds: list[float] = []
    correlations: list[list[str]] = []
    most = max((block.n_effects for _, block, _ in terms), default=0)
    for prefix, block, covariance in terms:
        sd = np.sqrt(np.diagonal(covariance))
        groups += [block.name, *[""] * (len(sd) - 1)]
        names += [prefix + effect for effect in block.effects]
        sds += list(sd)
        correlations += _correlation_cells(covariance, sd, most)
    if fit.has_residual:
        groups, names, sds = [*groups, "Residual"], [*names, ""], [*sds, fit.sigma]
        correlations.append([""] * max(most - 1, 0))
    counts = "; ".join(f"{group}, {levels}" for group, levels in fit.ngroups.items())
    first, second = f"Number of obs: {fit.nobs}", f"groups:  {counts}"
    obs = f"{first}, {second}" if counts else first
    if len(obs) > 80:
        obs = f"{first}, groups: \n{counts}"
    if not names:
        return obs
    columns = [
        ("Groups", groups),
        ("Name", names),
        ("Variance", format_numbers(np.square(sds), 4)),
        ("Std.Dev.", format_numbers(sds, 4)),
    ]
    columns += [("Corr" if j == 0 else "", [row[j] for row in correlations]) for j in range(most - 1)]
    title = "Random effects:\n" if terms else "Residual:\n"
    return title + text_matrix(columns, [""] * len(sds)) + "\n" + obs


def _correlation_cells(covariance: Array, sd: Array, most: int) -> list[list[str]]:
    """Return the lower triangle of a correlation matrix as text, padded to `most - 1` columns."""
    k = len(sd)
    with np.errstate(invalid="ignore", divide="ignore"):
        correlation = covariance / np.outer(sd, sd)
    cells = format_numbers(np.round(correlation, 2), 7, nsmall=2)
    rows = []
    for i in range(k):
        row = [cells[i * k + j] if j < i else "" for j in range(k)]
        rows.append([*row, *[""] * (most - k)][: most - 1])
    return [[text.replace("NA", "NaN") for text in row] for row in rows]


def _fixed(fit: ClassicalFit) -> str:
    names = fit.model.design.fixed_names
    if not names:
        return ""
    table = fit.coefficients(ddf="none")
    estimate, se, statistic, p_value = (table[column].to_numpy() for column in ("estimate", "se", "statistic", "p_value"))
    return "Fixed effects:\n" + coefficient_table(names, estimate, se, statistic, p_value if fit.generalised else None)


def _further(fit: ClassicalFit) -> str:
    """Return the predictors of further parameters, on their links' scale, and the constants, on their own."""
    sections = []
    for name, part in fit.further.items():
        if part.names:
            se = part.standard_errors
            ratio = part.beta / se
            table = coefficient_table(part.names, part.beta, se, ratio, 2.0 * ndtr(-np.abs(ratio)) if fit.generalised else None)
            sections.append(f"Predictor of {name} ({part.link} link):\n{table}")
    rows = fit.estimates
    constants = rows[(rows["part"] == "aux") & rows["term"].isin(list(fit.further))]
    if len(constants):
        estimates, errors = (format_numbers(constants[name].to_numpy(), 4) for name in ("estimate", "se"))
        columns = [("Estimate", estimates), ("Std. Error", errors)]
        sections.append("Further parameters:\n" + text_matrix(columns, list(constants["term"])))
    return "\n\n".join(sections)


def _correlations(fit: ClassicalFit) -> str:
    names = fit.model.design.fixed_names
    p = len(names)
    if not 1 < p <= MAX_CORRELATIONS:
        return ""
    vcov = fit.vcov().to_numpy()
    sd = np.sqrt(np.diagonal(vcov))
    cells = np.array(format_numbers(np.round(vcov / np.outer(sd, sd), 3), 7, nsmall=3)).reshape(p, p)
    columns = [(name, [cells[i, j] if j < i else "" for i in range(1, p)]) for j, name in enumerate(abbreviate(names, 6)[:-1])]
    return "Correlation of Fixed Effects:\n" + text_matrix(columns, abbreviate(names, 11)[1:])


def _messages(fit: ClassicalFit) -> list[str]:
    lines = []
    if fit.dropped:
        several = f"{len(fit.dropped)} column{'s' if len(fit.dropped) > 1 else ''} / coefficient{'s' if len(fit.dropped) > 1 else ''}"
        lines.append(f"fit warnings:\nfixed-effect model matrix is rank deficient so dropping {several}")
    terms = singular_terms(fit)
    if terms:
        lines.append(f"boundary (singular) fit: {', '.join(terms)}; see .diagnose()")
    if not fit.converged:
        lines.append(f"the search did not converge ({fit.convergence}); see .diagnose()")
    return lines
