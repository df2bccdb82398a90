"""The parameters of a linear mixed model by name, on the scale of standard deviations and correlations, and their values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.covariance import structure_of
from bayeslmm.errors import FitError, suggest

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.design import Design, RandomBlock

__all__ = ["Parameter", "check_level", "chosen", "estimates_of", "further_names", "parameter_values", "parameters_of", "profiled"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter: name, bounds, and what it is.

    `kind`: `free_sd`, `free_cor` (of an unstructured term), `own_sd`, `own_rho` (a structure's own), `sigma`, `coefficient`, `further`.
    `block`: the term's position in the design. `at`: the coefficient, the theta within the term, or the effect whose standard
    deviation it is; `other`: the second effect of a correlation.
    """

    name: str
    kind: str
    lower: float
    upper: float
    block: int = -1
    at: int = -1
    other: int = -1


def parameters_of(design: Design) -> tuple[Parameter, ...]:
    """Return all parameters in lme4's order: term by term, then sigma, then coefficients.

    Names are `sd_(Intercept)|Subject`, `cor_Days.(Intercept)|Subject`, `sigma`; a structure with parameters of its own has
    `rho|Subject`, and `sd|Subject` where its effects share one standard deviation. Where two terms of a factor would share a
    name, it ends in lme4's unique name of the term, `Subject.1`.
    """
    found: list[Parameter] = []
    for position, block in enumerate(design.blocks):
        found += _free(block, position) if _is_free(block) else _own(block, position)
    names = [parameter.name for parameter in found]
    found = [
        parameter if names.count(parameter.name) == 1 else replace(parameter, name=_unique(parameter.name, design.blocks[parameter.block]))
        for parameter in found
    ]
    found.append(Parameter(name="sigma", kind="sigma", lower=0.0, upper=math.inf))
    for j, name in enumerate(design.fixed_names):
        found.append(Parameter(name=name, kind="coefficient", lower=-math.inf, upper=math.inf, at=j))
    return tuple(found)


def _unique(name: str, block: RandomBlock) -> str:
    return name.removesuffix(block.group) + block.name


def _is_free(block: RandomBlock) -> bool:
    structure, k = structure_of(block), block.n_effects
    return structure.linear and structure.n_theta(k) == k * (k + 1) // 2


def _free(block: RandomBlock, position: int) -> list[Parameter]:
    """Return standard deviations and correlations of an unstructured term: the columns of the lower triangle."""
    found = []
    for j, effect in enumerate(block.effects):
        name = f"sd_{effect}|{block.group}"
        found.append(Parameter(name=name, kind="free_sd", lower=0.0, upper=math.inf, block=position, at=j))
        for i in range(j + 1, block.n_effects):
            name = f"cor_{block.effects[i]}.{effect}|{block.group}"
            found.append(Parameter(name=name, kind="free_cor", lower=-1.0, upper=1.0, block=position, at=j, other=i))
    return found


def _own(block: RandomBlock, position: int) -> list[Parameter]:
    structure, k = structure_of(block), block.n_effects
    lower, upper = structure.lower(k), structure.upper(k)
    found = []
    for i, label in enumerate(structure.labels(block.effects)):
        is_sd = lower[i] == 0.0 and math.isinf(upper[i])
        stem = f"sd_{label}" if is_sd and not (structure.hom and k > 1) else label
        kind = "own_sd" if is_sd else "own_rho"
        name = f"{stem}|{block.group}"
        found.append(Parameter(name=name, kind=kind, lower=float(lower[i]), upper=float(upper[i]), block=position, at=i))
    return found


def parameter_values(design: Design, theta: Array, sigma: float, beta: Array) -> Array:
    """Return the values of `parameters_of`, in order; NaN for a correlation with an effect whose standard deviation is zero."""
    values: list[float] = []
    at = 0
    for block in design.blocks:
        structure, k = structure_of(block), block.n_effects
        size = structure.n_theta(k)
        own = theta[at : at + size]
        at += size
        if _is_free(block):
            values += _free_values(sigma * structure.factor(own, k))
        else:
            is_sd = (structure.lower(k) == 0.0) & np.isinf(structure.upper(k))
            values += np.where(is_sd, sigma * own, own).tolist()
    return np.array([*values, sigma, *beta.tolist()])


def _free_values(L: Array) -> list[float]:
    k = len(L)
    sd = np.sqrt(np.sum(L**2, axis=1)).tolist()
    products = (L @ L.T).tolist()
    values = []
    for j in range(k):
        values.append(sd[j])
        for i in range(j + 1, k):
            size = sd[i] * sd[j]
            values.append(min(max(products[i][j] / size, -1.0), 1.0) if size > 0.0 else math.nan)
    return values


def estimates_of(fit: ClassicalFit) -> pd.Series:
    """Return the estimates of a fit by parameter's name, those of further parameters last (see `further_names`).

    Where sigma has a predictor its coefficients stand for it.
    """
    design = fit.model.design
    values = parameter_values(design, fit.theta, fit.sigma, fit.beta)
    found = pd.Series(values, index=[parameter.name for parameter in parameters_of(design)], name="estimate")
    if not fit.has_residual:
        found = found.drop("sigma")
    more = [part.beta if part.names else part.natural() for part in fit.further.values()]
    return pd.concat([found, pd.Series(np.concatenate(more), index=further_names(fit), name="estimate")]) if more else found


def further_names(fit: ClassicalFit) -> list[str]:
    """Return the names of further parameters: `sigma_x` of coefficients of a predictor, `ar` of a constant, on its own scale."""
    return [name for key, part in fit.further.items() for name in ([f"{key}_{term}" for term in part.names] or [key])]


def profiled(fit: ClassicalFit) -> tuple[Parameter, ...]:
    """Return the parameters that `estimates_of` gives values of, in the same order.

    Those of the distribution's further parameters have kind `further`: `block` is the position among them, `at` the coefficient.
    """
    found = [one for one in parameters_of(fit.model.design) if fit.has_residual or one.kind != "sigma"]
    ranges = {one.name: (one.lower, one.upper) for one in fit.model.family.parameters}
    for k, (key, part) in enumerate(fit.further.items()):
        if not part.names:
            lower, upper = ranges[key]
            found.append(Parameter(name=key, kind="further", lower=lower, upper=upper, block=k, at=0))
        for j, term in enumerate(part.names):
            found.append(Parameter(name=f"{key}_{term}", kind="further", lower=-math.inf, upper=math.inf, block=k, at=j))
    return tuple(found)


def chosen(names: Sequence[str], wanted: Sequence[str] | str | None) -> tuple[str, ...]:
    """Return those of `names` that are asked for, in their own order.

    Raises
    ------
    FitError
        For a name that is none.
    """
    if wanted is None:
        return tuple(names)
    asked = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    for name in asked:
        if name not in names:
            raise FitError(f"there is no parameter {name!r}{suggest(str(name), list(names))} (parameters: {', '.join(names)})")
    return tuple(name for name in names if name in asked)


def check_level(level: float) -> float:
    """Return the level of an interval, if it is one.

    Raises
    ------
    FitError
        If it is not a number between 0 and 1.
    """
    if not (isinstance(level, int | float) and 0.0 < level < 1.0):
        raise FitError(f"level must lie between 0 and 1, as 0.95, not {level!r}")
    return float(level)
