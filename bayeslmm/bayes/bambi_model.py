"""Model -> `bambi.Model` with the same priors, or an error that names what bambi cannot express."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.translate import prior_variable
from bayeslmm.covariance import structure_of
from bayeslmm.errors import FitError
from bayeslmm.priors import INTERCEPT, Distribution, bounds

if TYPE_CHECKING:
    from bayeslmm.design import FixedPart, RandomBlock
    from bayeslmm.model import Model
    from bayeslmm.priors import PriorRow

__all__ = ["to_bambi"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class _Peer:
    """How bambi names a family: its own name, our further parameters -> its own, `complement` those that it has as one minus ours."""

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    complement: str = ""


_FAMILIES: Mapping[str, _Peer] = MappingProxyType(
    {
        "gaussian": _Peer(name="gaussian", parameters={"sigma": "sigma"}),
        "student": _Peer(name="t", parameters={"sigma": "sigma", "nu": "nu"}),
        "lognormal": _Peer(name="lognormal", parameters={"sigma": "sigma"}),
        "bernoulli": _Peer(name="bernoulli"),
        "binomial": _Peer(name="binomial"),
        "beta_binomial": _Peer(name="beta_binomial", parameters={"phi": "kappa"}),
        "beta": _Peer(name="beta", parameters={"phi": "kappa"}),
        "poisson": _Peer(name="poisson"),
        "negative_binomial": _Peer(name="negativebinomial", parameters={"shape": "alpha"}),
        "gamma": _Peer(name="gamma", parameters={"shape": "alpha"}),
        "inverse_gaussian": _Peer(name="wald", parameters={"shape": "lam"}),
        "zero_inflated_poisson": _Peer(name="zero_inflated_poisson", parameters={"zi": "psi"}, complement="zi"),
        "zero_inflated_binomial": _Peer(name="zero_inflated_binomial", parameters={"zi": "psi"}, complement="zi"),
        "zero_inflated_negative_binomial": _Peer(
            name="zero_inflated_negativebinomial", parameters={"shape": "alpha", "zi": "psi"}, complement="zi"
        ),
        "hurdle_poisson": _Peer(name="hurdle_poisson", parameters={"hu": "psi"}, complement="hu"),
        "hurdle_negative_binomial": _Peer(name="hurdle_negativebinomial", parameters={"shape": "alpha", "hu": "psi"}, complement="hu"),
    }
)
"""Our families -> bambi's."""

_LINKS: Mapping[str, str] = MappingProxyType(
    {
        **{name: name for name in ("identity", "log", "logit", "probit", "cloglog", "inverse")},
        "1/mu^2": "inverse_squared",
    }
)


def to_bambi(model: Model) -> Any:
    """Return the model as a `bambi.Model`, its priors carried over.

    The data of the bambi model are the columns of the design: dummy variables and transformed predictors as numbers, under the
    coefficients' names. bambi's automatic priors are off; the intercept's is of the centred design, as here.

    Parameters
    ----------
    model
        A `Model`.

    Raises
    ------
    FitError
        If bambi is not installed or cannot express the model: the message names each thing.
    """
    reasons = list(_limits(model))
    if reasons:
        raise FitError(f"bambi cannot express this model: {'; '.join(reasons)}")
    if find_spec("bambi") is None:
        raise FitError("bambi is not installed: pip install bambi")
    import bambi

    columns = _Columns()
    peer = _FAMILIES[model.family.name]
    named = _Named(columns=columns, priors={})
    formulas = [f"{_response(model, columns)} ~ {_right(model, '', named)}"]
    priors = dict(named.priors)
    for name in model.design.parameters:
        theirs, own = peer.parameters[name], _Named(columns=columns, priors={})
        formulas.append(f"{theirs} ~ {_right(model, name, own)}")
        priors[theirs] = own.priors
    for row in model.prior_rows:
        if row.part == "aux":
            priors[peer.parameters[row.term]] = _prior(_complemented(row) if row.term == peer.complement else row, model)
    import pandas as pd

    try:
        return bambi.Model(
            bambi.Formula(*formulas),
            pd.DataFrame(columns.found),
            family=peer.name,
            link=_LINKS[model.link.name],
            priors=priors,
            auto_scale=False,
            center_predictors=_is_centred(model),
        )
    except Exception as refusal:  # whatever bambi and its reader of formulas raise
        said = str(refusal).strip() or type(refusal).__name__
        raise FitError(f"bambi cannot express this model: {said.splitlines()[0]}") from refusal


# --- What it cannot express ---------------------------------------------------------------------------------------------------


def _limits(model: Model) -> Iterator[str]:
    """Yield everything about a model that bambi has no words for."""
    design, family = model.design, model.family
    peer = _FAMILIES.get(family.name)
    if peer is None:
        yield f"the family '{family.name}'" + (", whose thresholds have priors on the centred design here" if family.of_levels else "")
    if family.of_levels is None and model.link.name not in _LINKS:
        yield f"the link '{model.link.name}'"
    if design.series is not None:
        yield "correlated residuals"
    for block in (*design.blocks, *(block for _, blocks in design.parameters.values() for block in blocks)):
        yield from _limits_of(block)
    if design.has_weights and (design.trials is not None or (model.dialect == "lme4" and family.scale is not None)):
        yield "weights that divide the residual variance, or weights beside trials (its weights are powers of the likelihood)"
    for row in model.prior_rows:
        if row.distribution.kind.joint:
            yield f"the prior {row.distribution.name}()"
            break
    raw = [row.term for row in model.prior_rows if row.part == "fixed" and row.term.removeprefix(f"{row.parameter}_") == INTERCEPT]
    if raw and any(row.part == "intercept" for row in model.prior_rows):
        yield "a prior on a raw intercept beside one on a centred intercept"
    if peer is not None and peer.complement:
        yield from _limits_of_zeros(model, peer.complement)


def _limits_of(block: RandomBlock) -> Iterator[str]:
    structure = structure_of(block)
    if block.known is not None:
        yield f"the known covariance among levels of {block.term.text}"
    if structure.name not in ("us", "diag", "homdiag") or (structure.hom and block.n_effects > 1):
        yield f"the structure of {block.term.text}"
    elif structure.correlated and block.n_effects > 1:
        double = f"({block.term.text.strip('()').partition('|')[0].strip()} || {block.group})"
        yield f"correlated random effects {block.term.text} (write `||`, as {double}, for independent ones)"


def _limits_of_zeros(model: Model, name: str) -> Iterator[str]:
    if name in model.design.parameters:
        yield f"a predictor of {name} (bambi has one of psi = 1 - {name})"
        return
    row = next(row for row in model.prior_rows if row.part == "aux" and row.term == name)
    if row.distribution.name not in _COMPLEMENTS or row.bounded:
        yield f"the prior {row} of {name} (bambi has one of psi = 1 - {name}: write it as a beta)"


_COMPLEMENTS: Mapping[str, Callable[..., tuple[float, ...]]] = MappingProxyType(
    {
        "beta": lambda alpha, beta: (beta, alpha),
        "uniform": lambda lower, upper: (1.0 - upper, 1.0 - lower),
        "constant": lambda value: (1.0 - value,),
    }
)
"""Distribution of x -> the arguments of that of 1 - x."""


def _complemented(row: PriorRow) -> PriorRow:
    arguments = _COMPLEMENTS[row.distribution.name](*row.distribution.args)
    return replace(row, distribution=Distribution(name=row.distribution.name, args=arguments))


# --- Formula and data ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    """The columns of the data so far; one of the same name and other values gets another name."""

    found: dict[str, Any] = field(default_factory=dict)

    def add(self, name: str, values: Any) -> str:
        """Return the column's name as the formula has it; it holds no backticks, which names in R may."""
        name = name.replace("`", "")
        free, number = name, 1
        while free in self.found and not np.array_equal(np.asarray(self.found[free]), np.asarray(values)):
            free, number = f"{name}_{number}", number + 1
        self.found[free] = values
        return free if free.isidentifier() else f"`{free}`"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Named:
    """The priors of one predictor by bambi's names of its terms, and the columns."""

    columns: _Columns
    priors: dict[str, Any]


def _response(model: Model, columns: _Columns) -> str:
    design = model.design
    y = design.y.astype(int) if model.family.discrete else design.y
    shown = columns.add(design.response_name.partition(" | ")[0], y)
    if design.trials is not None:
        return f"p({shown}, {columns.add('trials', design.trials.astype(int))})"
    if model.family.needs_trials:
        return f"p({shown}, {columns.add('trials', np.ones(design.n, dtype=int))})"
    return f"weighted({shown}, {columns.add('weights', design.weights)})" if design.has_weights else shown


def _right(model: Model, parameter: str, named: _Named) -> str:
    """Return the right-hand side of one predictor; writes its columns and priors."""
    design = model.design
    fixed, blocks = design.parameters[parameter] if parameter else (design.fixed, design.blocks)
    terms = [*_fixed_terms(model, fixed, parameter, named), *_random_terms(model, blocks, parameter, named)]
    if not parameter and np.any(design.offset != 0.0):
        terms.append(f"offset({named.columns.add('offset', design.offset)})")
    return " + ".join(terms)


def _fixed_terms(model: Model, fixed: FixedPart, parameter: str, named: _Named) -> Iterator[str]:
    rows = {row.term: row for row in model.prior_rows if row.part in ("intercept", "fixed") and row.parameter == parameter}
    yield "1" if INTERCEPT in fixed.names else "0"
    for j, name in enumerate(fixed.names):
        row = rows[f"{parameter}_{name}" if parameter else name]
        if name == INTERCEPT:
            named.priors["Intercept"] = _prior(row, model)
            continue
        term = named.columns.add(name, fixed.X[:, j])
        named.priors[term.strip("`")] = _prior(row, model)
        yield term


def _random_terms(model: Model, blocks: Sequence[RandomBlock], parameter: str, named: _Named) -> Iterator[str]:
    """Yield one term an effect: all are independent."""
    import bambi
    import pandas as pd

    rows = {(row.group, row.term): row for row in model.prior_rows if row.part == "sd" and row.parameter == parameter}
    for block in blocks:
        group = named.columns.add(block.group, pd.Categorical.from_codes(block.index, categories=pd.Index(list(block.levels))))
        for c, effect in enumerate(block.effects):
            row = rows[block.group, f"{parameter}_{effect}" if parameter else effect]
            values = block.values[:, c]
            column = "1" if np.all(values == 1.0) else named.columns.add(effect, values)
            named.priors[f"{column.strip('`')}|{group.strip('`')}"] = bambi.Prior("Normal", mu=0.0, sigma=_prior(row, model))
            yield f"(1 | {group})" if column == "1" else f"(0 + {column} | {group})"


def _is_centred(model: Model) -> bool:
    return any(row.part == "intercept" for row in model.prior_rows)


# --- Priors -------------------------------------------------------------------------------------------------------------------


def _prior(row: PriorRow, model: Model) -> Any:
    """Return a row as a `bambi.Prior`: by name where bambi has the distribution on this range, otherwise as this package cuts it."""
    import bambi

    distribution, (lower, upper) = row.distribution, bounds(row, model.family)
    kind = distribution.kind
    at = dict(zip(kind.arguments, distribution.args, strict=True))
    names = dict(kind.bambi)
    inside = kind.support[0] >= lower and kind.support[1] <= upper and kind.name != "uniform"
    folded = next((name for name in names if name.startswith("Half")), None)
    if names and (inside or (lower, upper) == (-np.inf, np.inf)):
        return _by_name(bambi, next(iter(names)), names, distribution.args)
    if folded is not None and (lower, upper) == (0.0, np.inf) and at.get("mu", 0.0) == 0.0:
        return _by_name(bambi, folded, names, [value for name, value in at.items() if name != "mu"])
    return bambi.Prior(str(row), auto_scale=False, dist=partial(_own, row, lower, upper))


def _by_name(bambi: Any, name: str, names: Mapping[str, tuple[str, ...]], values: Sequence[float]) -> Any:
    return bambi.Prior(name, auto_scale=False, **dict(zip(names[name], values, strict=True)))


def _own(row: PriorRow, lower: float, upper: float, name: str, dims: Any = None, shape: Any = None) -> Any:
    """Register a prior under bambi's name for it, as `translate` does."""
    return prior_variable(name, [row], lower, upper, dim=None)
