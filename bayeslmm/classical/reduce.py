"""Random effects that the data support: their principal components, and a fit reduced step by step until it is off the boundary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.classical.diagnose import SINGULAR_TOLERANCE, row_factor, singular_blocks
from bayeslmm.classical.glmm import fit_generalised, nodes_of
from bayeslmm.classical.lmm import fit_model
from bayeslmm.covariance import structure_of
from bayeslmm.design import encode
from bayeslmm.formula.deparse import deparse
from bayeslmm.formula.parse import expanded
from bayeslmm.priors import default_rows

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.classical.penalty import Penalty
    from bayeslmm.formula.nodes import RandomTerm
    from bayeslmm.model import Model
    from bayeslmm.random_blocks import RandomBlock

__all__ = ["Reduction", "fit_again", "principal_components", "reduced", "with_random"]

type Array = np.ndarray

COMPONENT_COLUMNS = ("group", "component", "sd", "share", "cumulative")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduction:
    """A fit with the random effects that the data support; `steps`: a sentence for each change that led there."""

    fit: ClassicalFit
    steps: tuple[str, ...]


def principal_components(fit: ClassicalFit) -> pd.DataFrame:
    """Return the principal components of each term's random effects: how many dimensions the estimated covariance has.

    Each effect is measured by what it adds to a row: its standard deviation times the root mean square of its column.

    Returns
    -------
    DataFrame
        `group` (lme4's unique name of the term), `component` (from 1, largest first), `sd` on the response's scale, `share` of
        the term's variance, `cumulative`.

    Source: Bates, Kliegl, Vasishth & Baayen (2015), Parsimonious mixed models, arXiv:1506.04967.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> principal_components(fit)["share"].round(2).tolist()
    [0.62, 0.38]
    """
    rows = []
    for block, theta in zip(fit.model.design.blocks, fit.theta_by_block, strict=True):
        sds = fit.sigma * np.linalg.svd(row_factor(block, theta), compute_uv=False)
        total = float(np.sum(sds**2))
        shares = sds**2 / total if total > 0.0 else np.full(len(sds), np.nan)
        rows += [(block.name, i + 1, float(sds[i]), float(shares[i]), float(np.sum(shares[: i + 1]))) for i in range(len(sds))]
    return pd.DataFrame(rows, columns=list(COMPONENT_COLUMNS))


# ------------------------------------------------------------------------------------------------------------------------ reducing


def reduced(fit: ClassicalFit) -> Reduction:
    """Return a fit of fewer random effects that is sound, or has none left.

    A term with one effect whose variance is zero goes. Of a term with several, effects without a variance go; where all have one
    but a principal component has none, the correlations go first (`(x || g)`), then effects. Where the data cannot tell terms apart,
    the change with the lowest AIC is taken. Where effects went together with the correlations, the correlations of those that are
    left are tried again, and kept where the fit is sound and its AIC lower.

    Source: Bates, Kliegl, Vasishth & Baayen (2015), arXiv:1506.04967, section 3.
    """
    steps: list[str] = []
    current = fit
    while current.model.design.blocks and not _sound(current):
        tried = [(_again(current, random), sentence) for random, sentence in _simpler(current)]
        current, sentence = min(tried, key=lambda pair: pair[0].aic)
        steps.append(sentence)
    for random, sentence in _joined(fit, current):
        again = _again(current, random)
        if _sound(again) and again.aic < current.aic:
            current = again
            steps.append(sentence)
    return Reduction(fit=current, steps=tuple(steps))


def _sound(fit: ClassicalFit) -> bool:
    return fit.convergence == "converged" and not fit.is_singular


def _again(fit: ClassicalFit, random: Sequence[RandomTerm]) -> ClassicalFit:
    return fit_again(fit, with_random(fit.model, random))


def fit_again(fit: ClassicalFit, model: Model, *, avoid_boundary: bool = False, penalty: Penalty | None = None) -> ClassicalFit:
    """Fit a model by the method of another fit, without a warning; under its penalty where none is given."""
    if not fit.generalised:
        return fit_model(model, reml=fit.reml, avoid_boundary=avoid_boundary)
    penalty = fit.penalty if penalty is None else penalty
    return fit_generalised(model, n_agq=nodes_of(fit.approximation), avoid_boundary=avoid_boundary, penalty=penalty)


def with_random(model: Model, random: Sequence[RandomTerm]) -> Model:
    """Return the model with other random terms on the same rows; its formula says so."""
    mean = replace(model.formula.mean, random=tuple(random))
    text = expanded(replace(model.formula, mean=mean))[0]
    formula = replace(model.formula, mean=mean, text=text.replace("~ 1 + ", "~ ", 1) if mean.terms else text)
    old = model.design
    wanted = {term.cov for term in random}
    known = {block.term.cov: block.known.relationship for block in old.blocks if block.known is not None and block.term.cov in wanted}
    new = encode(formula, model.frame.loc[old.kept], contrasts=old.encoder.contrasts, data2=known, states=old.encoder.states)
    encoder = replace(
        new.encoder,
        columns=MappingProxyType({**old.encoder.columns, **new.encoder.columns}),
        weights=old.encoder.weights,
        offset=old.encoder.offset,
        array_offset=old.encoder.array_offset,
    )
    design = replace(old, blocks=new.blocks, encoder=encoder)
    given = {(row.part, row.group, row.term, row.parameter): row for row in model.prior_rows}
    rows = default_rows(design, model.family, model.link, "weak")
    rows = tuple(given.get((row.part, row.group, row.term, row.parameter), row) for row in rows)
    return replace(model, formula=formula, design=design, stated_priors=rows)


# ------------------------------------------------------------------------------------------------------------------- a single step


@dataclass(frozen=True, slots=True, kw_only=True)
class _Effect:
    """What is left or right in a formula as a whole: the intercept (`position` -1) or a term, and its columns in the block."""

    label: str
    position: int
    columns: tuple[int, ...]


def _simpler(fit: ClassicalFit) -> list[tuple[list[RandomTerm], str]]:
    """Return simpler random terms and why, in a sentence: of the largest term on the boundary, or of each that the data do not tell."""
    singular = singular_blocks(fit)
    if singular:
        return [_simplified(fit, *max(singular, key=lambda pair: pair[0].n_effects), "its variance is estimated as zero")]
    blocks = list(zip(fit.model.design.blocks, fit.theta_by_block, strict=True))
    undetermined = () if fit.search is None else fit.search.undetermined
    at_fault = [pair for pair in blocks if any(name.endswith(f" | {pair[0].name}") for name in undetermined)]
    cause = "the data cannot tell its variance from others" if at_fault else "the search did not arrive"
    return [_simplified(fit, *pair, cause) for pair in at_fault or blocks]


def _simplified(fit: ClassicalFit, block: RandomBlock, theta: Array, cause: str) -> tuple[list[RandomTerm], str]:
    """Return the random terms with a simpler one in place of that of the block, and why."""
    term = block.term
    A = row_factor(block, theta)
    effects = _effects(fit.model, block)
    sizes = [float(np.max(np.linalg.norm(A[list(effect.columns)], axis=1))) for effect in effects]
    nil = [effect for effect, size in zip(effects, sizes, strict=True) if size < SINGULAR_TOLERANCE]
    if len(nil) == len(effects) or block.n_effects == 1:
        return _replaced(fit, term, []), f"{term.text} left out: {cause}"
    if nil:
        return _without(fit, term, nil, "a variance of zero")
    if structure_of(block).correlated:
        split = _uncorrelated(term, effects)
        shown = " + ".join(one.text for one in split)
        return _replaced(fit, term, split), f"{term.text} without its correlations, as {shown}: {_components(A, cause)}"
    if len(effects) == 1:
        return _replaced(fit, term, []), f"{term.text} left out: {cause}"
    least = min(_outermost(term, effects), key=lambda effect: sizes[effects.index(effect)])
    return _without(fit, term, [least], "the least variance in a term that the data do not support")


def _components(A: Array, cause: str) -> str:
    sizes = np.linalg.svd(A, compute_uv=False)
    kept = int(np.sum(sizes > SINGULAR_TOLERANCE))
    if kept == len(sizes):
        return cause
    return f"{kept} of its {len(sizes)} principal components {'has' if kept == 1 else 'have'} a variance"


def _effects(model: Model, block: RandomBlock) -> list[_Effect]:
    """Return the intercept and the terms left of the bar with their columns; a factor's columns are found by coding earlier terms alone."""
    term = block.term
    found = [_Effect(label="the intercept", position=-1, columns=(0,))] if term.intercept else []
    at = len(found)
    for position, one in enumerate(term.effects):
        stop = at + 1
        if block.n_effects != len(term.effects) + term.intercept:
            first = replace(term, effects=term.effects[: position + 1])
            stop = with_random(model, [first]).design.blocks[0].n_effects
        found.append(_Effect(label=one.label, position=position, columns=tuple(range(at, stop))))
        at = stop
    return found


def _outermost(term: RandomTerm, effects: Sequence[_Effect]) -> list[_Effect]:
    """Return the effects that are in no other one, as the intercept is in all, and `x` in `x:z`."""
    variables = [
        frozenset(deparse(node) for node in term.effects[e.position].variables) if e.position >= 0 else frozenset() for e in effects
    ]
    return [effect for effect, own in zip(effects, variables, strict=True) if not any(own < other for other in variables)]


def _replaced(fit: ClassicalFit, term: RandomTerm, by: Sequence[RandomTerm]) -> list[RandomTerm]:
    terms: list[RandomTerm] = []
    for one in dict.fromkeys(fit.model.formula.mean.random):
        terms += by if one == term else [one]
    return terms


def _without(fit: ClassicalFit, term: RandomTerm, effects: Sequence[_Effect], why: str) -> tuple[list[RandomTerm], str]:
    positions = {effect.position for effect in effects}
    kept = tuple(one for position, one in enumerate(term.effects) if position not in positions)
    left = replace(term, effects=kept, intercept=term.intercept and -1 not in positions)
    left = _written(left if kept else replace(left, structure="us", options=()))
    names = " and ".join(effect.label for effect in effects)
    return _replaced(fit, term, [left]), f"{names} left out of {term.text}, which becomes {left.text}: {why}"


def _uncorrelated(term: RandomTerm, effects: Sequence[_Effect]) -> list[RandomTerm]:
    """Return `(1 | g) + (0 + x | g)` where every effect is one column, otherwise `diag(f | g)`, which keeps a factor's columns apart."""
    if term.structure != "us" or any(len(effect.columns) > 1 for effect in effects):
        return [_written(replace(term, structure="diag", options=tuple(pair for pair in term.options if pair[0] == "hom")))]
    alone = [_written(replace(term, effects=(), intercept=True))] if term.intercept else []
    return [*alone, *(_written(replace(term, effects=(one,), intercept=False)) for one in term.effects)]


def _written(term: RandomTerm) -> RandomTerm:
    """Return the term with the text that says what it is."""
    start = [] if term.intercept and term.effects else ["1" if term.intercept else "0"]
    effects = " + ".join([*start, *(one.label for one in term.effects)])
    group = f"gr({term.group_label}, cov = {term.cov})" if term.cov else term.group_label
    options = "".join(f", {name} = {str(value).upper()}" for name, value in term.options)
    tag = "" if term.structure == "us" else term.structure
    return replace(term, text=f"{tag}({effects} | {group}{options})")


# --------------------------------------------------------------------------------------------------------------- and joining again


def _joined(fit: ClassicalFit, current: ClassicalFit) -> Iterator[tuple[list[RandomTerm], str]]:
    """Yield random terms with correlations again, for each term of the first fit of which several effects are left, but not all."""
    if current is fit:
        return
    left = list(dict.fromkeys(current.model.formula.mean.random))
    for term in dict.fromkeys(fit.model.formula.mean.random):
        own = [one for one in left if one.group == term.group and one not in fit.model.formula.mean.random and _part_of(one, term)]
        effects = tuple(effect for effect in term.effects if any(effect in one.effects for one in own))
        intercept = any(one.intercept for one in own)
        size = len(effects) + intercept
        as_before = size == len(term.effects) + term.intercept or (len(own) == 1 and own[0].structure == "us")
        if term.structure != "us" or size < 2 or as_before:
            continue
        again = _written(replace(term, effects=effects, intercept=intercept))
        terms = [again if one is own[0] else one for one in left if one is own[0] or one not in own]
        yield terms, f"the correlations of the effects that are left come back, as {again.text}: the fit is sound and its AIC lower"


def _part_of(one: RandomTerm, term: RandomTerm) -> bool:
    return set(one.effects) <= set(term.effects) and one.intercept <= term.intercept
