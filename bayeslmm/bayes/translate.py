"""Model -> `pymc.Model` with named dimensions and lme4's names: the only place where PyMC variables are named.

Free variables, as a model written by hand names them (`g` a grouping factor's label, `Subject` or `class:school`):

=================  =============================================================================================================
`Intercept`        intercept of the centred design (absent without one, or with a prior on the raw intercept)
`beta`             the other fixed effects, dim `slope`, in the order of the design's columns
`sd_<g>`           standard deviations of all effects of factor g, dim `<g>_effect` (terms on one factor are merged)
`L_<g>`            Cholesky factor of the correlation matrix of an `us` term (`pm.LKJCorr`); `rho_<g>` of `cs` and `ar1`.
                   With several terms on g, `L_<g>[1]`, `L_<g>[2]`, numbered by term
`z_<g>`            standard normals, dims (`<g>`, `<g>_effect`): `r_<g> = (z L') * sd`; `C (z L') * sd` where the covariance
                   K = C C' among the levels is known
`sigma`, `nu`      the family's further parameters; `ar` the correlation of its residuals
`thresholds`       of an ordered response, of the centred design; `Intercept[1]`, ... are those of the uncentred one
`beta_z`, ...      of `horseshoe` and `R2D2`, in place of a free `beta`: see `shrinkage`
=================  =============================================================================================================

Deterministic: `b` (dim `fixed`; coefficients of the uncentred design), `cor_<g>` (`<g>_effect`, `<g>_effect2`; zero between
terms; absent where no term is correlated), `r_<g>` (`<g>`, `<g>_effect`). The response is `y`, dim `obs`.

Where priors of one vector are of different distributions, it is made of scalars `beta[Days]`, `sd_Subject[Days]`. Where effects
share one standard deviation (`hom = TRUE`), the free ones are `tau_<g>`. A further parameter with a predictor of its own has
the same variables with its name behind: `Intercept_sigma`, `beta_sigma`, `b_sigma` (dim `fixed_sigma`), `sd_<g>__sigma`.
A factor's dimension whose name would collide (`draw`, `b`, `fixed`, `sigma`) has `_` appended; `obs` and `slope` give way to factors
of these names in the same way.

Random effects are always non-centred, as in brms: it is the parametrisation that samples well where groups hold few rows, the
case of most mixed models; strongly informed groups cost more steps but stay correct.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.shrinkage import SHRINKAGE, scaled_by_sigma, shrinkage_row
from bayeslmm.covariance import structure_of
from bayeslmm.errors import PriorError
from bayeslmm.families import LINKS
from bayeslmm.priors import INTERCEPT, bounds
from bayeslmm.residual import residual_of

if TYPE_CHECKING:
    from bayeslmm.covariance import Structure
    from bayeslmm.design import FixedPart, RandomBlock
    from bayeslmm.known import Known
    from bayeslmm.model import Model
    from bayeslmm.priors import PriorRow
    from bayeslmm.series import Series

__all__ = ["Factor", "deviation_slots", "factors", "has_correlation", "prior_variable", "rows_of", "translate"]

type Array = np.ndarray

_RESERVED = ("chain", "draw", "__sample__", "fixed", "b", "beta", "Intercept", "y", "y_power", "thresholds")
"""Names that no factor's dimension may have: PyMC keeps variables and dimensions apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """A grouping factor with all its random terms in one predictor.

    `label` names its variables (`sd_<label>`), `group` is the formula's; `dim`, `effect_dim`, `effect_dim2` its dimensions;
    `blocks` its terms with `columns[i]` the positions of block i among `effects`; `correlated` whether any term is.
    """

    group: str
    parameter: str
    label: str
    dim: str
    effect_dim: str
    effect_dim2: str
    effects: tuple[str, ...]
    blocks: tuple[RandomBlock, ...]
    columns: tuple[Array, ...]
    structures: tuple[Structure, ...]

    @property
    def correlated(self) -> bool:
        return any(has_correlation(block, structure) for block, structure in zip(self.blocks, self.structures, strict=True))

    @property
    def levels(self) -> tuple[str, ...]:
        return self.blocks[0].levels

    @property
    def known(self) -> Known | None:
        """The known covariance among levels, the same for all terms of a factor."""
        return self.blocks[0].known


def factors(model: Model) -> tuple[Factor, ...]:
    """Return the grouping factors of a model, in the order of the design's blocks, those of further parameters last."""
    taken = _taken_names(model)
    predictors = [("", model.design.blocks), *((name, blocks) for name, (_, blocks) in model.design.parameters.items())]
    return tuple(
        _factor(group, parameter, tuple(block for block in blocks if block.group == group), taken)
        for parameter, blocks in predictors
        for group in dict.fromkeys(block.group for block in blocks)
    )


def _taken_names(model: Model) -> set[str]:
    """Return the names of all variables, which no dimension may have, and of the dimensions that are not factors'."""
    taken = {*_RESERVED, *(parameter.name for parameter in model.family.parameters)}
    labels = [_variable_label(block.group) for block in model.design.blocks]
    for name, (_, blocks) in model.design.parameters.items():
        taken |= {f"{one}_{name}" for one in ("fixed", "b", "beta", "Intercept")}
        labels += [_variable_label(f"{block.group}__{name}") for block in blocks]
    return taken | {f"{prefix}_{label}" for prefix in ("sd", "cor", "r", "z", "L", "rho", "tau") for label in labels}


def _factor(group: str, parameter: str, blocks: tuple[RandomBlock, ...], taken: set[str]) -> Factor:
    label = _variable_label(f"{group}__{parameter}" if parameter else group)
    ends = np.cumsum([0, *(block.n_effects for block in blocks)])
    columns = tuple(np.arange(start, stop) for start, stop in pairwise(ends))
    return Factor(
        group=group,
        parameter=parameter,
        label=label,
        dim=_free_name(label, taken),
        effect_dim=_free_name(f"{label}_effect", taken),
        effect_dim2=_free_name(f"{label}_effect2", taken),
        effects=_unique([effect for block in blocks for effect in block.effects]),
        blocks=blocks,
        columns=columns,
        structures=tuple(structure_of(block) for block in blocks),
    )


def _variable_label(group: str) -> str:
    """Return the name that a factor has in names of variables, where a slash is the path of a tree."""
    return group.replace("/", "_")


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    taken.add(name)
    return name


def _unique(effects: Sequence[str]) -> tuple[str, ...]:
    """Number an effect that several terms of one factor share, as lme4 numbers the terms: `x`, `x.1`."""
    seen: dict[str, int] = {}
    result = []
    for effect in effects:
        count = seen.get(effect, 0)
        seen[effect] = count + 1
        result.append(f"{effect}.{count}" if count else effect)
    return tuple(result)


def _inner_dim(name: str, groups: Sequence[Factor]) -> str:
    """Return the name of a dimension that the posterior does not show, giving way to factors."""
    return _free_name(name, {dim for factor in groups for dim in (factor.dim, factor.effect_dim, factor.effect_dim2)})


def has_correlation(block: RandomBlock, structure: Structure) -> bool:
    """Whether a term has correlations: its structure does, and it has several effects."""
    return structure.correlated and block.n_effects > 1


def translate(model: Model) -> Any:
    """Return the model as a `pymc.Model`; the module's first lines list its variables.

    Parameters
    ----------
    model
        A `Model`; its `dialect` says what weights are: lme4's precision weights (`sigma / sqrt(w)`, for families with a
        scale) or powers of the likelihood (brms, and every other family).

    Returns
    -------
    pymc.Model
    """
    import pymc as pm

    design, family = model.design, model.family
    groups = factors(model)
    with pm.Model(coords=_coords(model, groups)) as pymc_model:
        eta = design.offset + _predictor(model, design.fixed, groups, "")
        mu = model.link.pymc_inverse(eta)
        if family.of_levels is None:
            aux = {parameter.name: _aux(model, parameter.name, parameter.link, groups) for parameter in family.parameters}
        else:
            aux = _thresholds(model, pymc_model["b"])
        powers = design.weights if design.has_weights else None
        if powers is not None and family.scale is not None and model.dialect == "lme4":
            aux[family.scale] = aux[family.scale] / np.sqrt(design.weights)
            powers = None
        if design.series is not None:
            mu, aux = _given_earlier(design.series, design.y, mu, aux)
        observed = design.y.astype(int) if family.discrete else design.y
        trials = None if design.trials is None else design.trials.astype(int)
        family.pymc("y", mu, aux, trials, observed, powers, _inner_dim("obs", groups))
    return pymc_model


def _given_earlier(series: Series, y: Array, mu: Any, aux: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Return mean and standard deviation of each row given the earlier ones of its series: their product is the joint density."""
    structure = residual_of(series)
    rho, sigma = aux[structure.name], aux["sigma"]
    mean = mu + sigma * structure.pymc_prediction(rho, series, (y - mu) / sigma)
    return mean, {**aux, "sigma": sigma * structure.pymc_conditional_sd(rho, series)}


def _coords(model: Model, groups: Sequence[Factor]) -> dict[str, Any]:
    coords: dict[str, Any] = {_inner_dim("obs", groups): np.arange(len(model.design.y))}
    for suffix, fixed in _predictors(model).items():
        coords[f"fixed{suffix}"] = list(fixed.names)
        coords[_inner_dim(f"slope{suffix}", groups)] = [row.term for row in rows_of(model, "fixed", suffix[1:])]
    for factor in groups:
        coords[factor.dim] = list(factor.levels)
        coords[factor.effect_dim] = list(factor.effects)
        if factor.correlated:
            coords[factor.effect_dim2] = list(factor.effects)
    return coords


def _predictors(model: Model) -> dict[str, FixedPart]:
    """Return the fixed parts by the suffix of their variables' names."""
    return {"": model.design.fixed} | {f"_{name}": fixed for name, (fixed, _) in model.design.parameters.items()}


def deviation_slots(factor: Factor) -> Array:
    """Return, for each effect of a factor, which of its free standard deviations it has: effects of a term with `hom` share one."""
    slots: list[int] = []
    for block, structure in zip(factor.blocks, factor.structures, strict=True):
        first = max(slots, default=-1) + 1
        slots += [first] * block.n_effects if structure.hom else list(range(first, first + block.n_effects))
    return np.array(slots)


def rows_of(model: Model, part: str, parameter: str = "", group: str = "") -> list[PriorRow]:
    """Return the prior rows of a part of one predictor: the mean's, or a further parameter's."""
    return [row for row in model.prior_rows if row.part == part and row.parameter == parameter and row.group == group]


def _aux(model: Model, name: str, link: str, groups: Sequence[Factor]) -> Any:
    """Return a further parameter: one number, or one for each row by its own predictor."""
    if name in model.design.parameters:
        fixed, _ = model.design.parameters[name]
        return LINKS[link].pymc_inverse(_predictor(model, fixed, groups, name))
    import pymc as pm

    made = pm.modelcontext(None)
    if name in made.named_vars:
        return made[name]
    row = next(row for row in model.prior_rows if row.part == "aux" and row.term == name)
    return prior_variable(name, [row], *bounds(row, model.family), dim=None)


def _thresholds(model: Model, b: Any) -> dict[str, Any]:
    """Return the thresholds of an ordered response by name; their priors are those of the centred design, as an intercept's."""
    import pymc as pm
    from pymc.distributions.transforms import ordered

    rows = [row for row in model.prior_rows if row.part == "aux"]
    kinds = {row.distribution.name for row in rows}
    if len(kinds) > 1 or kinds == {"constant"}:
        raise PriorError(f"thresholds take priors of one distribution that is no constant, not {', '.join(sorted(kinds))}")
    shape: dict[str, Any] = {"shape": len(rows)}
    if model.family.increasing:
        shape |= {"default_transform": ordered, "initval": np.linspace(-1.0, 1.0, len(rows))}
    centred = _free("thresholds", kinds.pop(), [row.distribution.args for row in rows], -np.inf, np.inf, shape)
    raw = centred + model.design.X.mean(axis=0) @ b if model.design.p else centred
    return {row.term: pm.Deterministic(row.term, raw[k]) for k, row in enumerate(rows)}


def _predictor(model: Model, fixed: FixedPart, groups: Sequence[Factor], parameter: str) -> Any:
    """Return the linear predictor (n,) of the mean or of a further parameter, without offset."""
    suffix = f"_{parameter}" if parameter else ""
    eta = _fixed_effects(model, fixed, parameter, suffix, _inner_dim(f"slope{suffix}", groups))
    for factor in groups:
        if factor.parameter == parameter:
            r = _random_effects(model, factor)
            for block, columns in zip(factor.blocks, factor.columns, strict=True):
                for c, column in enumerate(columns):
                    values = block.values[:, c]
                    effect = r[block.index, int(column)]
                    eta = eta + (effect if np.all(values == 1.0) else values * effect)
    return eta


def _fixed_effects(model: Model, fixed: FixedPart, parameter: str, suffix: str, slope_dim: str) -> Any:
    """Return X b, with the intercept's prior on the centred design; registers `b`."""
    import pymc as pm

    pt = _tensors()
    intercept_rows, slope_rows = rows_of(model, "intercept", parameter), rows_of(model, "fixed", parameter)
    dim = f"fixed{suffix}"
    if not fixed.names:
        pm.Deterministic(f"b{suffix}", pt.zeros(0), dims=dim)
        return np.zeros(len(fixed.X))
    if not intercept_rows:
        b = pm.Deterministic(f"b{suffix}", _slopes(model, slope_rows, suffix, slope_dim), dims=dim)
        return fixed.X @ b
    at = fixed.names.index(INTERCEPT)
    X = np.delete(fixed.X, at, axis=1)
    means = X.mean(axis=0)
    intercept = prior_variable(f"Intercept{suffix}", intercept_rows, -np.inf, np.inf, dim=None)
    if not slope_rows:
        pm.Deterministic(f"b{suffix}", pt.stack([intercept]), dims=dim)
        return pt.repeat(pt.stack([intercept]), len(X))
    beta = _slopes(model, slope_rows, suffix, slope_dim)
    raw = pt.stack([intercept - means @ beta])
    pm.Deterministic(f"b{suffix}", pt.concatenate([beta[:at], raw, beta[at:]]), dims=dim)
    return intercept + (X - means) @ beta


def _slopes(model: Model, rows: Sequence[PriorRow], suffix: str, dim: str) -> Any:
    """Return the coefficients of some rows as the variable `beta`: each with its own prior, or all with one of them together."""
    import pymc as pm

    pt = _tensors()
    joint = shrinkage_row(rows)
    if joint is None:
        return prior_variable(f"beta{suffix}", rows, -np.inf, np.inf, dim=dim)
    distribution = joint.distribution
    given = dict(zip(distribution.kind.arguments, distribution.args, strict=True))
    sigma = _aux(model, "sigma", "log", ()) if scaled_by_sigma(model, distribution) else 1.0
    own = [row.distribution.kind.joint for row in rows]
    shrunk = SHRINKAGE[distribution.name].pymc(given, sum(own), model.design.n, sigma)
    places = np.cumsum(own) - 1
    parts = [
        shrunk[int(place)] if inside else prior_variable(f"beta{suffix}[{row.term}]", [row], -np.inf, np.inf, dim=None)
        for row, inside, place in zip(rows, own, places, strict=True)
    ]
    return pm.Deterministic(f"beta{suffix}", shrunk if all(own) else pt.stack(parts), dims=dim)


def _random_effects(model: Model, factor: Factor) -> Any:
    """Return r (levels, effects) of a grouping factor; registers `sd_`, `cor_`, `r_`."""
    import pymc as pm

    pt = _tensors()

    sd = _standard_deviations(model, factor)
    z = pm.Normal(f"z_{factor.label}", 0.0, 1.0, dims=(factor.dim, factor.effect_dim))
    choleskys = _correlation_factors(model, factor)
    pieces = []
    for columns, L in zip(factor.columns, choleskys, strict=True):
        piece = z[:, columns[0] : columns[-1] + 1]
        pieces.append(piece if L is None else piece @ L.T)
    r = (pieces[0] if len(pieces) == 1 else pt.concatenate(pieces, axis=1)) * sd
    if factor.known is not None:
        r = pt.dot(factor.known.root, r)
    if factor.correlated and len(factor.blocks) > 1:
        cor = pt.eye(len(factor.effects))
        for columns, L in zip(factor.columns, choleskys, strict=True):
            if L is not None:
                span = slice(int(columns[0]), int(columns[-1]) + 1)
                cor = pt.set_subtensor(cor[span, span], L @ L.T)
        pm.Deterministic(f"cor_{factor.label}", cor, dims=(factor.effect_dim, factor.effect_dim2))
    return pm.Deterministic(f"r_{factor.label}", r, dims=(factor.dim, factor.effect_dim))


def _standard_deviations(model: Model, factor: Factor) -> Any:
    """Return sd (effects,), one free number for each effect, or one for all effects of a term."""
    import pymc as pm

    rows = rows_of(model, "sd", factor.parameter, factor.group)
    name = f"sd_{factor.label}"
    if len(rows) == len(factor.effects):
        return prior_variable(name, rows, 0.0, np.inf, dim=factor.effect_dim)
    free = prior_variable(f"tau_{factor.label}", rows, 0.0, np.inf, dim="")
    return pm.Deterministic(name, free[deviation_slots(factor)], dims=factor.effect_dim)


def _correlation_factors(model: Model, factor: Factor) -> list[Any]:
    """Return each term's Cholesky factor of its correlation matrix, None where its effects are independent."""
    rows = iter(rows_of(model, "cor", factor.parameter, factor.group))
    several = len(factor.blocks) > 1
    result: list[Any] = []
    for position, (block, structure) in enumerate(zip(factor.blocks, factor.structures, strict=True), start=1):
        if not has_correlation(block, structure):
            result.append(None)
            continue
        name = f"{factor.label}[{position}]" if several else factor.label
        dims = None if several else (factor.effect_dim, factor.effect_dim2)
        result.append(structure.pymc_cholesky(name, block.n_effects, next(rows).distribution.args[0], dims))
    return result


def _tensors() -> Any:
    """Return `pytensor.tensor`, which is not annotated."""
    import pytensor.tensor

    return pytensor.tensor


# --- Priors -> variables ------------------------------------------------------------------------------------------------------


def prior_variable(name: str, rows: Sequence[PriorRow], lower: float, upper: float, *, dim: str | None) -> Any:
    """Return the variable of some rows: a scalar (dim None), one vector, or scalars stacked where distributions or bounds differ.

    An empty `dim` makes a vector without a named dimension. A vector of constants is registered under its name too.
    `lower`, `upper`: the range of the parameters, which the rows' own bounds cut further.
    """
    import pymc as pm
    import pytensor.tensor as pt

    kinds = {(row.distribution.name, max(lower, row.lower), min(upper, row.upper)) for row in rows}
    if dim is None:
        (row,), ((distribution, low, high),) = rows, kinds
        if distribution == "constant":
            return pm.Deterministic(name, pt.as_tensor_variable(np.float64(row.distribution.args[0])))
        return _free(name, distribution, [row.distribution.args], low, high, {})
    if len(kinds) == 1 and rows[0].distribution.name != "constant":
        shape: dict[str, Any] = {"dims": dim} if dim else {"shape": len(rows)}
        distribution, low, high = kinds.pop()
        return _free(name, distribution, [row.distribution.args for row in rows], low, high, shape)
    scalars = [prior_variable(f"{name}[{row.term}]", [row], lower, upper, dim=None) for row in rows]
    return pm.Deterministic(name, pt.stack(scalars), dims=dim or None)


def _free(
    name: str, distribution: str, arguments: Sequence[tuple[float, ...]], lower: float, upper: float, shape: Mapping[str, Any]
) -> Any:
    """Register one free variable with a distribution cut to (lower, upper); `arguments` one tuple for each element."""
    import pymc as pm

    from bayeslmm.priors import DISTRIBUTIONS

    kind = DISTRIBUTIONS[distribution]
    columns = [_collapse(column) for column in zip(*arguments, strict=True)]
    values = dict(zip(kind.arguments, columns, strict=True))
    named = dict(zip(kind.pymc_arguments, columns, strict=True))
    if kind.name == "uniform":
        return pm.Uniform(name, lower=np.maximum(columns[0], lower), upper=np.minimum(columns[1], upper), **shape)
    if kind.support[0] >= lower and kind.support[1] <= upper:
        return getattr(pm, kind.pymc)(name, **named, **shape)
    if kind.half is not None and (lower, upper) == (0.0, np.inf) and np.all(values.get("mu", 0.0) == 0.0):
        folded, kept = kind.half
        return getattr(pm, folded)(name, **{key: named[key] for key in kept}, **shape)
    edges = {"lower": lower if np.isfinite(lower) else None, "upper": upper if np.isfinite(upper) else None}
    if kind.name == "flat":
        return pm.Flat(name, transform=pm.distributions.transforms.Interval(*edges.values()), **shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="RandomVariables .* were found in the derived graph")
        return pm.Truncated(name, getattr(pm, kind.pymc).dist(**named), **edges, **shape)


def _collapse(column: tuple[float, ...]) -> Any:
    """Return one number where all elements have the same argument, else an array."""
    return column[0] if len(set(column)) == 1 else np.array(column)
