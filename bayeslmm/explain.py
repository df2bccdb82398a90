"""A model in words and mathematics: expanded terms, sizes, rank, groups, LaTeX."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bayeslmm.formula.deparse import deparse
from bayeslmm.residual import residual_of

if TYPE_CHECKING:
    from bayeslmm.design import Design, FixedPart, RandomBlock
    from bayeslmm.families.base import Family, Link
    from bayeslmm.formula.nodes import Formula
    from bayeslmm.series import Series

__all__ = ["Explanation", "equations", "explanation"]


_GREEK = ("sigma", "nu", "phi", "kappa", "theta", "alpha")


class Explanation(str):
    """The explanation as text, which prints as it reads; `.latex` holds the mathematics alone."""

    __slots__ = ("latex",)
    latex: str

    def __new__(cls, text: str, latex: str) -> Explanation:
        made = super().__new__(cls, text)
        made.latex = latex
        return made

    def __repr__(self) -> str:
        return str(self)

    def _repr_markdown_(self) -> str:
        return f"```\n{self.split('Mathematics')[0].rstrip()}\n```\n$$\n{self.latex}\n$$"


def explanation(
    formula: Formula, design: Design, family: Family, link: Link, dialect: str, theta_labels: dict[str, tuple[str, ...]]
) -> Explanation:
    """Return what a model says, in words, numbers and LaTeX.

    `theta_labels`: block name -> names of its covariance parameters.
    """
    latex = equations(design, family, link)
    lines = [
        f"Formula: {formula}",
        f"Family:  {family.name} ({link.name} link)      Dialect: {dialect}",
        "",
        *_rows(design),
        "",
        *_fixed(design),
        "",
        *_random(design, theta_labels),
        *_groups(design, family),
        "Mathematics",
        latex,
    ]
    return Explanation("\n".join(lines), latex)


def _rows(design: Design) -> list[str]:
    lines = [f"Rows:    {design.n} used of {len(design.kept)}"]
    lines += [f"         {count} dropped for {reason}" for reason, count in design.lost.items()]
    if design.missing:
        lines.append("         missing: " + ", ".join(f"{column} ({count})" for column, count in design.missing.items()))
    if design.known_errors:
        lines.append("Errors:  known, by se()")
    elif design.has_weights:
        lines.append("Weights: given")
    if design.has_offset:
        lines.append("Offset:  given")
    return lines


def _fixed(design: Design) -> list[str]:
    fixed = design.fixed
    rank = len(fixed.names)
    columns = rank + len(fixed.dropped)
    lines = [f"Fixed effects: {columns} column{'s' * (columns != 1)}, rank {rank}"]
    labels = ("(Intercept)", *fixed.terms) if 0 in fixed.assign else ("", *fixed.terms)
    for position, label in enumerate(labels):
        names = [name for name, term in zip(fixed.names, fixed.assign, strict=True) if term == position]
        if names:
            lines.append(f"  {label:<20} -> {', '.join(names)}" if names != [label] else f"  {label}")
    if fixed.dropped:
        lines.append(f"  dropped, as linear combinations of earlier columns: {', '.join(fixed.dropped)}")
    return lines


def _random(design: Design, theta_labels: dict[str, tuple[str, ...]]) -> list[str]:
    if not design.blocks:
        return ["Random effects: none", ""]
    lines = [f"Random effects: q = {design.q} (columns of Z)"]
    for block in design.blocks:
        labels = theta_labels[block.name]
        lines.append(
            f"  ({' + '.join(block.effects)} | {block.group})  structure {block.structure}: {block.n_levels} levels x {block.n_effects} "
            f"effect{'s' * (block.n_effects != 1)}, {len(labels)} covariance parameter{'s' * (len(labels) != 1)}"
        )
        if block.known is not None:
            whole = block.known.relationship
            unused = len(whole.labels) - block.n_levels
            lines.append(f"    covariance among levels: {whole.name}, known; {unused} of its levels have no data")
    return [*lines, ""]


def _groups(design: Design, family: Family) -> list[str]:
    from bayeslmm.design import group_table, nesting, weak_groups

    if not design.blocks:
        return []
    lines = ["Groups:", *("  " + line for line in group_table(design).to_string(index=False).splitlines())]
    lines += [f"  {sentence}" for sentence in nesting(design)]
    residual = family.scale is not None and not design.known_errors
    lines += [f"  {sentence}: its variance rests on little" for sentence in weak_groups(design, residual=residual)]
    return [*lines, ""]


def equations(design: Design, family: Family, link: Link) -> str:
    """Return the model as LaTeX (an `aligned` environment): likelihood, linear predictor, random effects."""
    left = link.latex.format(family.latex_mean) if link.latex else rf"\mathrm{{{link.name}}}({family.latex_mean})"
    terms = [
        (rf"\beta_{{{j}}}" if name == "(Intercept)" else rf"\beta_{{{j}}}\,\mathrm{{{_tex(name)}}}_i")
        for j, name in enumerate(design.fixed.names)
    ]
    for block in design.blocks:
        terms += [_effect(block, name) for name in block.effects]
    if design.has_offset:
        terms.append(r"\mathrm{offset}_i")
    law = family.latex.replace(r"\sigma", "s_i") if design.known_errors else family.latex
    for name in design.parameters:
        law = law.replace(_symbol(name), f"{_symbol(name)}_i")
    rows = [rf"\mathrm{{{_tex(design.response_name)}}}_i &\sim {law}", rf"{left} &= {' + '.join(terms) or '0'}"]
    rows += [_distribution(block) for block in design.blocks]
    links = {parameter.name: parameter.link for parameter in family.parameters}
    for name, (fixed, blocks) in design.parameters.items():
        rows.append(_parameter(name, links[name], fixed, blocks))
        rows += [_distribution(block, name) for block in blocks]
    if design.series is not None:
        rows.append(_correlation(design.series))
    return "\\begin{aligned}\n" + " \\\\\n".join(rows) + "\n\\end{aligned}"


def _symbol(name: str) -> str:
    """Return how a further parameter is written: Greek where its name is, else upright."""
    return rf"\{name}" if name in _GREEK else rf"\mathrm{{{_tex(name)}}}"


def _parameter(name: str, link: str, fixed: FixedPart, blocks: tuple[RandomBlock, ...]) -> str:
    """Return the equation of a further parameter's own predictor."""
    terms = [
        rf"\gamma_{{{j}}}" if term == "(Intercept)" else rf"\gamma_{{{j}}}\,\mathrm{{{_tex(term)}}}_i" for j, term in enumerate(fixed.names)
    ]
    terms += [_effect(block, effect, name) for block in blocks for effect in block.effects]
    return rf"\mathrm{{{link}}}({_symbol(name)}_i) &= {' + '.join(terms) or '0'}"


def _correlation(series: Series) -> str:
    group = ":".join(deparse(node) for node in series.term.group)
    within = rf",\quad \mathrm{{{_tex(group)}}}[i] = \mathrm{{{_tex(group)}}}[j]" if group else ""
    symbol = r"\mathrm{cor}(y_i - \mu_i,\ y_j - \mu_j)"
    return rf"{symbol} &= {residual_of(series).latex}{within}"


def _owned(name: str, parameter: str) -> str:
    """Return a name of the random effects of a further parameter's predictor, `a, zi`, which the mean may have as well."""
    return f"{_tex(name)}, {_tex(parameter)}" if parameter else _tex(name)


def _effect(block: RandomBlock, name: str, parameter: str = "") -> str:
    symbol = rf"b^{{\mathrm{{{_owned(block.group, parameter)}}}}}_{{\mathrm{{{_tex(name)}}},\,j[i]}}"
    return symbol if name == "(Intercept)" else rf"{symbol}\,\mathrm{{{_tex(name)}}}_i"


def _distribution(block: RandomBlock, parameter: str = "") -> str:
    group, name = _owned(block.group, parameter), _owned(block.name, parameter)
    if block.known is not None:
        matrix, own = rf"\mathbf{{{_tex(block.known.relationship.name)}}}", rf"\mathrm{{{name}}}"
        if block.n_effects > 1:
            spread = rf"{matrix} \otimes \boldsymbol{{\Sigma}}_{{{own}}}"
            return rf"\mathbf{{b}}^{{\mathrm{{{group}}}}} &\sim \mathcal{{N}}(\mathbf{{0}},\ {spread})"
        effect = rf"\mathrm{{{_tex(block.effects[0])}}}"
        return rf"\mathbf{{b}}^{{\mathrm{{{group}}}}}_{{{effect}}} &\sim \mathcal{{N}}(\mathbf{{0}},\ \sigma^2_{{{own}}}\,{matrix})"
    if block.n_effects == 1:
        return (
            rf"b^{{\mathrm{{{group}}}}}_{{\mathrm{{{_tex(block.effects[0])}}},\,j}} &\sim "
            rf"\mathcal{{N}}(0,\ \sigma^2_{{\mathrm{{{name}}}}}),\quad j = 1,\dots,{block.n_levels}"
        )
    return (
        rf"\mathbf{{b}}^{{\mathrm{{{group}}}}}_j &\sim \mathcal{{N}}(\mathbf{{0}},\ "
        rf"\boldsymbol{{\Sigma}}_{{\mathrm{{{name}}}}}),\quad j = 1,\dots,{block.n_levels}"
    )


def _tex(name: str) -> str:
    return re.sub(
        r"([\\{}_%&#$^~])", lambda found: {"\\": r"\backslash{}", "^": r"\hat{}", "~": r"\sim{}"}.get(found[1], "\\" + found[1]), name
    )
