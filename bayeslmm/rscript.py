"""A model as the equivalent R script, for lme4 or brms; what the package cannot express is refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bayeslmm.covariance import structure_of
from bayeslmm.errors import FitError, suggest
from bayeslmm.formula import deparse, fixed_only
from bayeslmm.formula.bars import children
from bayeslmm.formula.deparse import quote_name
from bayeslmm.formula.functions import is_users
from bayeslmm.formula.nodes import Call, Node, Predictor, names_in
from bayeslmm.formula.terms import term_text

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.design import Design, RandomBlock
    from bayeslmm.families.base import Family, Link
    from bayeslmm.priors import PriorRow

__all__ = ["PEERS", "Described", "r_script"]

WIDTH = 100
INTERCEPT = "(Intercept)"

_DEFINED = MappingProxyType(
    {
        "center": "center <- function(x) x - mean(x)",
        "logit": "logit <- qlogis",
        "expit": "expit <- plogis",
        "bs": "library(splines)",
        "ns": "library(splines)",
    }
)
"""Functions of formulas that base R has not -> the line that makes them known."""

_LINKS = MappingProxyType(
    {
        "gaussian": ("identity", "log", "inverse"),
        "binomial": ("logit", "probit", "cauchit", "log", "cloglog"),
        "poisson": ("log", "identity", "sqrt"),
        "Gamma": ("inverse", "identity", "log"),
        "inverse.gaussian": ("1/mu^2", "inverse", "identity", "log"),
    }
)
"""R's family -> the links that it takes by name; others go through `make.link`."""
_MAKE_LINK = ("logit", "probit", "cauchit", "cloglog", "identity", "log", "sqrt", "1/mu^2", "inverse")
_ALONE = MappingProxyType({"glmer.nb": ("log",)})
"""Functions of lme4 that fit one family, and the links that they have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What a script is written of: a model's parts, its frame and dialect."""

    design: Design
    family: Family
    link: Link
    prior_rows: tuple[PriorRow, ...]
    frame: pd.DataFrame
    dialect: str
    reml: bool

    @property
    def mean(self) -> Predictor:
        """The predictor of the mean, with `.` expanded."""
        return self.design.encoder.formula.mean


def r_script(model: Described, peer: str) -> str:
    """Return an R script that reads the data, sets the factors and fits the model by the package `peer`.

    Parameters
    ----------
    model
        The model's parts.
    peer
        `"lme4"` or `"brms"`.

    Raises
    ------
    FitError
        If there is no such peer, or it cannot express the model; the message says what.
    """
    if peer not in PEERS:
        raise FitError(f"no script can be written for {peer!r}{suggest(str(peer), list(PEERS))}")
    _check_common(model, peer)
    return "\n".join([*_data(model), "", *PEERS[peer](model)]) + "\n"


def _refuse(peer: str, what: str) -> FitError:
    return FitError(f"{peer} cannot express this model: {what}")


def _check_common(model: Described, peer: str) -> None:
    design = model.design
    for what, used, column in (
        ("weights", design.has_weights and not design.known_errors, design.encoder.weights or _response_weights(model)),
        ("offset", design.encoder.array_offset, None),
    ):
        if used and column is None:
            raise FitError(
                f"the {what} {'were' if what == 'weights' else 'was'} given as an array, which a script cannot read; name a column"
            )
    for name in sorted(_functions(model)):
        if is_users(name):
            raise _refuse(peer, f"{name}() was registered in Python, and R does not know it; put its values in a column")


# The data ----------------------------------------------------------------------------------------------------------------


def _data(model: Described) -> Iterator[str]:
    """Yield the lines that read the data: `data.csv` as pandas writes it, levels in the order of the fit."""
    encoder = model.design.encoder
    factors = {name: column.levels for name, column in encoder.columns.items() if column.kind == "factor"}
    as_text = [name for name in factors if not _holds_numbers(model.frame[name])]
    yield '# The data are those of the model: in Python, data.to_csv("data.csv", index=False)'
    read = 'd <- read.csv("data.csv", check.names = FALSE, na.strings = c("NA", "")'
    yield from (
        _wrapped(f"{read}, colClasses = c(", [f'{quote_name(name)} = "character"' for name in as_text], "))") if as_text else [f"{read})"]
    )
    for name, column in encoder.columns.items():
        if column.kind == "logical":
            yield f"d[[{_text(name)}]] <- as.logical(d[[{_text(name)}]])"
        elif column.kind == "factor":
            order = ", ordered = TRUE" if getattr(model.frame[name].dtype, "ordered", False) or name in _ordered(model) else ""
            before = f"d[[{_text(name)}]] <- factor(d[[{_text(name)}]], levels = c("
            yield from _wrapped(before, [_text(level) for level in column.levels], f"){order})")
    yield from _left_out(model)
    yield from dict.fromkeys(_DEFINED[name] for name in sorted(_functions(model)) if name in _DEFINED)


def _ordered(model: Described) -> tuple[str, ...]:
    """Return the response's column where the family takes its levels as ordered."""
    response = model.design.encoder.formula.response
    return names_in(response.nodes[0]) if response is not None and model.family.of_levels is not None else ()


def _holds_numbers(column: pd.Series) -> bool:
    """Whether the labels of a factor are numbers in the file, which R must not read as text."""
    import pandas as pd

    values = column.dtype.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    return bool(pd.api.types.is_numeric_dtype(values.dtype))


def _left_out(model: Described) -> Iterator[str]:
    """Yield the lines that leave out rows, as the model did: incomplete ones first, then those that say nothing."""
    excluded, encoder = model.design.excluded, model.design.encoder
    if model.design.missing:
        used = [*encoder.columns, *(name for name in (encoder.weights, encoder.offset) if name is not None)]
        yield from _wrapped("d <- d[complete.cases(d[c(", [_text(name) for name in dict.fromkeys(used)], ")]), ]")
    if "zero weight" in excluded:
        yield f"d <- subset(d, {_weights(model)} > 0)"
    response = model.design.encoder.formula.response
    if "no trials" in excluded and response is not None:
        yield f"d <- subset(d, {' + '.join(deparse(node) for node in response.nodes[response.kind == 'trials' :])} > 0)"


def _functions(model: Described) -> set[str]:
    formula = model.design.encoder.formula
    nodes: list[Node] = [] if formula.response is None else list(formula.response.nodes)
    for predictor in (formula.mean, *formula.parameters.values()):
        terms = [*predictor.terms, *(term for bar in predictor.random for term in bar.effects)]
        nodes += [*(variable for term in terms for variable in term.variables), *predictor.offsets]
        nodes += [node for bar in predictor.random for node in bar.group]
    found: set[str] = set()
    while nodes:
        node = nodes.pop()
        nodes += children(node)
        if isinstance(node, Call):
            found.add(node.function)
    return found


def _text(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _wrapped(before: str, items: Sequence[str], after: str) -> Iterator[str]:
    """Yield a call with its list of items, on several lines where one is too long; items are never broken."""
    line = before
    for position, item in enumerate(items):
        piece = item + (", " if position + 1 < len(items) else after)
        if len(line) + len(piece) > WIDTH and line.strip():
            yield line.rstrip()
            line = "    "
        line += piece
    yield line if items else before + after


def _weights(model: Described) -> str | None:
    named = model.design.encoder.weights
    return quote_name(named) if named is not None else _response_weights(model)


def _response_weights(model: Described) -> str | None:
    response = model.design.encoder.formula.response
    return None if response is None or response.weights is None else deparse(response.weights)


def _call(function: str, arguments: Sequence[str]) -> Iterator[str]:
    yield f"{function}("
    yield from (f"  {argument}{',' if i + 1 < len(arguments) else ''}" for i, argument in enumerate(arguments))
    yield ")"


def _kept_bars(model: Described, parameter: str = "") -> list[RandomBlock]:
    """Return the random blocks of a predictor in the order of the formula."""
    encoder = model.design.encoder
    blocks = model.design.blocks if not parameter else model.design.parameters[parameter][1]
    pairs = zip(encoder.blocks[parameter], blocks, strict=True)
    return [block for _, block in sorted(pairs, key=lambda pair: pair[0].position)]


def _effects(block: RandomBlock) -> str:
    return " + ".join(["1" if block.term.intercept else "0", *(term_text(term) for term in block.term.effects)])


# lme4 --------------------------------------------------------------------------------------------------------------------


def _lme4(model: Described) -> Iterator[str]:
    design, family = model.design, model.family
    _check_lme4(model)
    random = [_lme4_bar(block) for block in _kept_bars(model)]
    tagged = [block for block in _kept_bars(model) if _is_tagged(block)]
    yield "library(lme4)"
    if tagged:
        yield 'stopifnot(packageVersion("lme4") >= "2.0.0")  # covariance structures'
    name, link = family.r_lme4, model.link.name
    linear = (name, link) == ("gaussian", "identity")
    arguments = [f"{_lme4_response(model)} ~ {' + '.join([fixed_only(model.mean), *random])}", "data = d"]
    if not linear and name not in _ALONE:
        arguments.append(f"family = {name}(link = {_lme4_link(name, link)})")
    if linear:
        arguments.append(f"REML = {'TRUE' if model.reml else 'FALSE'}")
    if design.has_weights:
        arguments.append(f"weights = {_weights(model)}")
    if design.encoder.offset is not None:
        arguments.append(f"offset = {quote_name(design.encoder.offset)}")
    if design.encoder.contrasts:
        listed = ", ".join(f"{quote_name(column)} = {_contrast(spec)}" for column, spec in design.encoder.contrasts.items())
        arguments.append(f"contrasts = list({listed})")
    yield from _call("fit <- lmer" if linear else f"fit <- {name if name in _ALONE else 'glmer'}", arguments)
    yield "summary(fit)"


def _check_lme4(model: Described) -> None:
    family, design = model.family, model.design
    if not family.r_lme4:
        raise _refuse("lme4", f"it has no family '{family.name}'")
    if design.parameters:
        raise _refuse("lme4", f"it has no formula for {', '.join(design.parameters)}")
    if model.mean.series is not None:
        raise _refuse("lme4", f"it has no correlated residuals, {model.mean.series.text}")
    if design.known_errors:
        raise _refuse("lme4", "it estimates the residual variance, and known standard errors leave none")
    if not design.blocks:
        raise _refuse("lme4", "it needs a random effect; R's own lm and glm fit models without one")
    if model.link.name not in _ALONE.get(family.r_lme4, _MAKE_LINK):
        raise _refuse("lme4", f"family '{family.name}' has no link '{model.link.name}' there")
    if model.dialect == "brms" and design.has_weights and family.scale is not None:
        raise _refuse("lme4", "its weights divide the residual variance; those of the dialect 'brms' are powers of the likelihood")


def _lme4_link(name: str, link: str) -> str:
    return f'"{link}"' if link in _LINKS[name] else f'make.link("{link}")'


def _lme4_response(model: Described) -> str:
    response = model.design.encoder.formula.response
    if response is None:
        return ""
    first, *rest = (deparse(node) for node in response.nodes)
    if response.kind == "trials":
        return f"cbind({first}, {rest[0]} - {first})"
    return f"cbind({first}, {rest[0]})" if rest else first


def _is_tagged(block: RandomBlock) -> bool:
    """Whether a block needs a structure tag of lme4 2.0: it is neither unstructured nor split by `||` into numbers."""
    structure = structure_of(block)
    return structure.name != "us" and not _splits(block)


def _splits(block: RandomBlock) -> bool:
    """Whether lme4's `||` gives the block's diagonal structure: it splits terms, so each must have one column."""
    return structure_of(block).name == "diag" and block.n_effects == len(block.term.effects) + block.term.intercept


def _lme4_bar(block: RandomBlock) -> str:
    if block.term.cov:
        raise _refuse("lme4", f"it has no known covariance of levels, {block.term.text}")
    if _splits(block):
        return f"({_effects(block)} || {block.group})"
    return block.term.text


def _contrast(spec: Any) -> str:
    if isinstance(spec, str):
        return f'"contr.{spec}"'
    if "function" in spec:
        return f'"contr.{spec["function"]}"'
    rows = spec["matrix"]
    values = ", ".join(repr(float(row[j])) for j in range(len(rows[0])) for row in rows)
    names = ", ".join(_text(name) for name in spec["names"])
    return f"matrix(c({values}), nrow = {len(rows)}, dimnames = list(NULL, c({names})))"


# brms --------------------------------------------------------------------------------------------------------------------


def _brms(model: Described) -> Iterator[str]:
    _check_brms(model)
    yield "library(brms)"
    if "dummy" in _functions(model):
        yield "dummy <- lme4::dummy"
    for column, spec in model.design.encoder.contrasts.items():
        levels = len(model.design.encoder.factors[column].levels)
        shown = _contrast(spec) if isinstance(spec, Mapping) and "matrix" in spec else f"{_contrast(spec)[1:-1]}({levels})"
        yield f"contrasts(d[[{_text(column)}]]) <- {shown}"
    known = sorted({block.term.cov for block in model.design.blocks if block.term.cov})
    for name in known:
        yield f'{name} <- as.matrix(read.csv("{name}.csv", row.names = 1, check.names = FALSE))  # the matrix of data2'
    yield from _priors(model)
    arguments = [_brms_formula(model), "data = d", f'family = {model.family.r_brms}(link = "{model.link.name}")', "prior = priors"]
    if known:
        arguments.append(f"data2 = list({', '.join(f'{name} = {name}' for name in known)})")
    yield from _call("fit <- brm", [*arguments, "chains = 4, iter = 2000, warmup = 1000, seed = 1"])
    yield "summary(fit)"


def _check_brms(model: Described) -> None:
    design, family = model.design, model.family
    if not family.r_brms:
        raise _refuse("brms", f"it has no family '{family.name}'")
    if design.fixed.dropped:
        raise _refuse("brms", f"it keeps columns that are combinations of others ({', '.join(design.fixed.dropped)}); leave them out")
    if model.dialect == "lme4" and design.has_weights and not design.known_errors and family.scale is not None:
        raise _refuse("brms", "its weights are powers of the likelihood; those of the dialect 'lme4' divide the residual variance")
    if family.needs_trials and design.trials is None and design.response_levels is not None:
        raise _refuse("brms", "its binomial family takes counts; use family='bernoulli' for a factor")
    blocks = [*design.blocks, *(block for _, part in design.parameters.values() for block in part)]
    for block in blocks:
        if structure_of(block).name not in ("us", "diag"):
            raise _refuse("brms", f"random effects there have a correlation matrix of any form or none, not {block.term.text}")
    for column in design.encoder.contrasts:
        if column not in design.encoder.columns:
            raise _refuse("brms", f"contrasts are those of a column there, and {column} is none")
        if any(column in [deparse(node) for term in block.term.effects for node in term.variables] for block in blocks):
            raise _refuse("brms", f"the contrast of {column} would hold for its random effects too")


def _brms_formula(model: Described) -> str:
    formula, design = model.design.encoder.formula, model.design
    right = _brms_right(model, "", formula.mean)
    if design.encoder.offset is not None:
        right += f" + offset({quote_name(design.encoder.offset)})"
    parts = [f"{_brms_response(model)} ~ {right}"]
    parts += [f"{name} ~ {_brms_right(model, name, predictor)}" for name, predictor in formula.parameters.items()]
    return f"bf({', '.join(parts)})"


def _brms_right(model: Described, parameter: str, predictor: Predictor) -> str:
    fixed = fixed_only(predictor)
    if predictor.intercept and any(row.part == "fixed" and row.term == _named(parameter, INTERCEPT) for row in model.prior_rows):
        fixed = "0 + Intercept" + fixed.removeprefix("1")
    bars = [_brms_bar(block) for block in _kept_bars(model, parameter)]
    series = [] if predictor.series is None else [predictor.series.text.removesuffix(")") + ", cov = TRUE)"]
    return " + ".join([fixed, *bars, *series])


def _brms_bar(block: RandomBlock) -> str:
    group = f"gr({block.group}, cov = {block.term.cov})" if block.term.cov else block.group
    double = structure_of(block).name == "diag" and block.n_effects > 1
    return f"({_effects(block)} {'||' if double else '|'} {group})"


def _brms_response(model: Described) -> str:
    response = model.design.encoder.formula.response
    if response is None:
        return ""
    first, *rest = (deparse(node) for node in response.nodes)
    additions = []
    if response.kind == "cbind":
        additions.append(f"trials({first} + {rest[0]})")
    elif model.family.needs_trials:
        additions.append(f"trials({rest[0] if rest else 1})")
    if response.se is not None:
        additions.append(f"se({deparse(response.se)})")
    elif model.design.has_weights:
        additions.append(f"weights({_weights(model)})")
    return f"{first} | {' + '.join(additions)}" if additions else first


def _named(parameter: str, term: str) -> str:
    return f"{parameter}_{term}" if parameter else term


def _priors(model: Described) -> Iterator[str]:
    known = model.family.scale if model.design.known_errors else None
    stated = [row for row in model.prior_rows if known is None or (row.part, row.term) != ("aux", known)]
    rows = list(dict.fromkeys(text for row in stated if (text := _prior(row))))
    yield from _call("priors <- c", [*_class_bounds(model), *rows])


def _class_bounds(model: Described) -> list[str]:
    """Return the rows of whole classes that brms needs for the bounds of coefficients, which hold for all of a predictor there."""
    found = {}
    for parameter in ("", *model.design.parameters):
        bounds = {(row.lower, row.upper) for row in model.prior_rows if (row.part, row.parameter) == ("fixed", parameter)}
        if len(bounds) > 1:
            raise _refuse("brms", "bounds there are of all coefficients together, not of a single one")
        found[parameter] = _limits(*bounds.pop()) if bounds else {}
    if any(row.part == "sd" and row.bounded for row in model.prior_rows):
        raise _refuse("brms", "standard deviations there have no bounds but zero")
    return [
        _prior_call('""', {"class": "b"} | ({"dpar": parameter} if parameter else {}), limits)
        for parameter, limits in found.items()
        if limits
    ]


def _limits(lower: float, upper: float) -> dict[str, str]:
    return {name: f"{value:.15g}" for name, value in (("lb", lower), ("ub", upper)) if abs(value) != float("inf")}


def _prior_call(shown: str, given: Mapping[str, str], limits: Mapping[str, str]) -> str:
    named = [*(f"{key} = {_text(value)}" for key, value in given.items()), *(f"{key} = {value}" for key, value in limits.items())]
    return f"prior({', '.join([shown, *named])})"


def _prior(row: PriorRow) -> str:
    """Return a row as brms's `prior()`; nothing where it is brms's flat default."""
    if row.distribution.name == "flat" and row.part == "fixed":
        return ""
    term = row.term.removeprefix(f"{row.parameter}_") if row.parameter else row.term
    name, _, position = (_PARTS[row.part] or row.term).removesuffix("]").partition("[")
    given = {"class": name} | ({"coef": position} if position else {})
    if row.part in ("fixed", "sd") and term and not row.distribution.kind.joint:
        given["coef"] = _brms_name(term)
    if row.group:
        given["group"] = row.group
    if row.parameter:
        given["dpar"] = row.parameter
    shown = '""' if row.distribution.name == "flat" else str(row.distribution)
    return _prior_call(shown, given, _limits(row.lower, row.upper) if row.part in ("intercept", "aux") else {})


_PARTS: Mapping[str, str] = MappingProxyType({"intercept": "Intercept", "fixed": "b", "sd": "sd", "cor": "cor", "aux": ""})
"""Part of a prior row -> brms's class; a further parameter's class is its name."""

_SYMBOLS = str.maketrans({**dict.fromkeys(" ()[],\"'?", ""), "+": "P", "-": "M", "*": "MU", "/": "D", "^": "E", "=": "EQ", "$": "USD"})
"""How brms writes the names of coefficients."""


def _brms_name(term: str) -> str:
    return term.translate(_SYMBOLS)


PEERS: Mapping[str, Callable[[Described], Iterator[str]]] = MappingProxyType({"lme4": _lme4, "brms": _brms})
"""Package -> function that yields the lines of its part of the script."""
