"""The joint density of the response and all parameters of any model, random effects included, on the real line: values, in numpy.

A point u (d,) of the model's parameters holds, one after the other: the free scalars (coefficients of the centred design, those of
predictors of further parameters, standard deviations, the parameters of `cs` and `ar1` stretched to (0, 1), further parameters or
thresholds), each on the real line; the free correlations by the rows of their Cholesky factor; and standard normals z by factor, from
which the random effects are made as in `translate`. The first two parts are the coordinates of `collapsed_density` where that applies.
All constants are in: the density integrates to the marginal likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from bayeslmm.bayes import draws as arrays
from bayeslmm.bayes.collapsed_priors import FORMS, Scalars, constrain, form, lkj_constant, scalars_of
from bayeslmm.bayes.translate import Factor, deviation_slots, factors, has_correlation, rows_of
from bayeslmm.families import LINKS
from bayeslmm.fit import Draws
from bayeslmm.priors import INTERCEPT, Distribution, PriorRow

if TYPE_CHECKING:
    from bayeslmm.covariance import Structure
    from bayeslmm.design import FixedPart, RandomBlock
    from bayeslmm.model import Model

__all__ = ["Layout", "layout_of", "limit", "log_joint", "points"]

type Array = np.ndarray

_CELLS = 4_000_000
"""Points x rows evaluated at a time."""
_TINY = 1e-300
_GRID = 20_001


@dataclass(frozen=True, slots=True, kw_only=True)
class _Predictor:
    """Coefficients of one predictor (`""`: of the mean): their slots, and the `means` (p,) that they are centred by, 0 at `intercept`."""

    name: str
    fixed: FixedPart
    slots: slice
    means: Array
    intercept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Correlated:
    """A term with correlations: factor and columns in it, LKJ's `eta`; `at`: its first entry of u, or the slot of its one parameter."""

    factor: int
    columns: Array
    structure: Structure
    eta: float
    at: int

    @property
    def k(self) -> int:
        return self.columns.size

    @property
    def free(self) -> bool:
        return self.structure.linear


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where each parameter of a model stands in a point u, and among the values x (slots,) of its scalars.

    `scalars`: free ones, u's first entries; constants stand in `fixed` (slots,). `deviations`: per factor the slots of its effects'
    standard deviations. `aux`: name -> slot of further parameters. `thresholds`: the entries of u of thresholds that increase.
    `z_at`: where standard normals start in u; `constant`: what all log densities leave out.
    """

    model: Model
    groups: tuple[Factor, ...]
    scalars: Scalars
    fixed: Array
    predictors: tuple[_Predictor, ...]
    deviations: tuple[Array, ...]
    correlated: tuple[_Correlated, ...]
    aux: Mapping[str, int]
    thresholds: Array
    z_at: int
    constant: float

    @property
    def dim(self) -> int:
        """The number of parameters, random effects included."""
        return self.z_at + sum(len(group.levels) * len(group.effects) for group in self.groups)


def limit(model: Model) -> str | None:
    """Return why a model's density cannot be evaluated here, None where it can."""
    for row in model.prior_rows:
        name = row.distribution.name
        if name not in FORMS and name != ("lkj" if row.part == "cor" else "constant"):
            return f"the prior {row.distribution} is not among those that it knows"
        bounded = row.distribution.kind.support != (-np.inf, np.inf) or name in ("uniform", "constant")
        if row.part == "aux" and bounded and model.family.of_levels is not None:
            return f"the prior {row.distribution} of thresholds is bounded"
    return None


# ----------------------------------------------------------------------------------------------------------------------- layout


def layout_of(model: Model) -> Layout:
    """Return the layout of a model to which it applies (see `limit`) and whose priors are proper."""
    groups, design = factors(model), model.design
    rows: list[PriorRow] = []
    predictors = []
    for name, fixed in [("", design.fixed), *((name, fixed) for name, (fixed, _) in design.parameters.items())]:
        own, intercept = _coefficients(model, fixed, name)
        means = np.where(np.arange(len(own)) == intercept, 0.0, fixed.X.mean(axis=0)) * (intercept >= 0)
        slots = slice(len(rows), len(rows) + len(own))
        predictors.append(_Predictor(name=name, fixed=fixed, slots=slots, means=means, intercept=intercept))
        rows += own
    deviations = []
    for group in groups:
        deviations.append(len(rows) + deviation_slots(group))
        rows += rows_of(model, "sd", group.parameter, group.group)
    terms = [term for f, group in enumerate(groups) for term in _correlated(model, f, group)]
    units = {i: len(rows) + n for n, i in enumerate(i for i, term in enumerate(terms) if not term.free)}
    rows += [_unit_row(terms[i].eta) for i in units]
    aux = {row.term: len(rows) + i for i, row in enumerate(rows_of(model, "aux"))}
    rows += rows_of(model, "aux")
    free = [(slot, row) for slot, row in enumerate(rows) if row.distribution.name != "constant"]
    scalars, constant = scalars_of(free, model.family)
    entry, placed = len(free), []
    for i, term in enumerate(terms):
        placed.append(_at(term, units.get(i, entry)))
        entry += term.k * (term.k - 1) // 2 if term.free else 0
        constant -= lkj_constant(term.k, term.eta) if term.free else 0.0
    increasing = np.flatnonzero(np.isin(scalars.slot, list(aux.values()))) if model.family.increasing else np.zeros(0, dtype=np.int64)
    if increasing.size:
        constant -= math.log(_increasing_mass([rows[slot].distribution for slot in aux.values()]))
    z = sum(len(group.levels) * len(group.effects) for group in groups)
    return Layout(
        model=model,
        groups=groups,
        scalars=scalars,
        fixed=np.array([row.distribution.args[0] if row.distribution.name == "constant" else 0.0 for row in rows]),
        predictors=tuple(predictors),
        deviations=tuple(deviations),
        correlated=tuple(placed),
        aux=aux,
        thresholds=increasing,
        z_at=entry,
        constant=constant - 0.5 * z * math.log(2.0 * math.pi),
    )


def _coefficients(model: Model, fixed: FixedPart, parameter: str) -> tuple[list[PriorRow], int]:
    """Return the prior rows of a predictor's coefficients in its columns' order, and the place of the centred intercept, or -1."""
    intercept, slopes = rows_of(model, "intercept", parameter), rows_of(model, "fixed", parameter)
    if not intercept:
        return slopes, -1
    at = fixed.names.index(INTERCEPT)
    return [*slopes[:at], *intercept, *slopes[at:]], at


def _correlated(model: Model, f: int, group: Factor) -> list[_Correlated]:
    """Return the terms of a factor that have correlations; their places are not known yet."""
    etas = iter(rows_of(model, "cor", group.parameter, group.group))
    return [
        _Correlated(factor=f, columns=columns, structure=structure, eta=next(etas).distribution.args[0], at=-1)
        for block, columns, structure in zip(group.blocks, group.columns, group.structures, strict=True)
        if has_correlation(block, structure)
    ]


def _at(term: _Correlated, at: int) -> _Correlated:
    return _Correlated(factor=term.factor, columns=term.columns, structure=term.structure, eta=term.eta, at=at)


def _unit_row(eta: float) -> PriorRow:
    """Return the prior of a structure's own parameter, stretched to (0, 1), as `Structure.pymc_cholesky` has it."""
    return PriorRow(part="cor", distribution=Distribution(name="beta", args=(eta, eta)))


def _increasing_mass(distributions: Sequence[Distribution]) -> float:
    """Return the probability that independent variables of these distributions come in increasing order.

    Of equal distributions 1 / m!; of others by the trapezoidal rule on the probabilities of the first one.
    """
    if len(set(distributions)) == 1:
        return 1.0 / math.factorial(len(distributions))
    made = [one.kind.scipy(*one.args) for one in distributions if one.kind.scipy is not None]
    ends = np.array([one.ppf([1e-9, 1.0 - 1e-9]) for one in made])
    t = np.unique(np.concatenate([one.ppf(np.linspace(1e-9, 1.0 - 1e-9, _GRID)) for one in made]))
    t = np.union1d(t, np.linspace(ends.min(), ends.max(), _GRID))
    below = made[0].cdf(t)
    for one in made[1:]:
        steps = np.diff(one.cdf(t)) * 0.5 * (below[1:] + below[:-1])
        below = np.concatenate([[0.0], np.cumsum(steps)])
    return float(below[-1])


# --------------------------------------------------------------------------------------------------------------------- the density


def log_joint(layout: Layout, u: Array) -> Array:
    """Return the log density (m,) of points u (m, d): log p(y, parameters) with the Jacobians; -inf where it is none."""
    size = max(1, _CELLS // max(layout.model.design.n, layout.dim, 1))
    parts = [_log_joint(layout, u[start : start + size]) for start in range(0, len(u), size)]
    return np.concatenate(parts) if parts else np.zeros(0)


def _log_joint(layout: Layout, u: Array) -> Array:
    with np.errstate(all="ignore"):
        draws, log_prior = _parameters(layout, u)
        total = log_prior + arrays.log_likelihood(layout.model, draws).sum(axis=1)
    return np.where(np.isnan(total), -np.inf, total)


def _parameters(layout: Layout, u: Array) -> tuple[Draws, Array]:
    """Return the parameters at points u (m, d), and the log of their prior density on the real line (m,)."""
    model = layout.model
    x, total = _scalar_values(layout, u)
    coefficients = {one.name: _uncentred(one, x) for one in layout.predictors}
    choleskys: list[dict[int, Array]] = [{} for _ in layout.groups]
    for term in layout.correlated:
        C, log_prior = _rows_to_factor(term, u) if term.free else (_given_factors(term, x[:, term.at]), 0.0)
        choleskys[term.factor][int(term.columns[0])] = C
        total = total + log_prior
    effects: dict[str, dict[str, Array]] = {one.name: {} for one in layout.predictors}
    start = layout.z_at
    for group, slots, own in zip(layout.groups, layout.deviations, choleskys, strict=True):
        count = len(group.levels) * len(group.effects)
        z = u[:, start : start + count].reshape(len(u), len(group.levels), len(group.effects))
        total = total - 0.5 * np.sum(z**2, axis=(1, 2))
        effects[group.parameter] |= _effects(group, z, x[:, slots], own)
        start += count
    aux = _further(layout, x, coefficients, effects)
    mean = tuple(effects[""][block.name] for block in model.design.blocks)
    return Draws(b=coefficients[""], effects=mean, covariance=(), aux=aux), total


def _scalar_values(layout: Layout, u: Array) -> tuple[Array, Array]:
    """Return values x (m, slots) and the log prior of the scalars with the Jacobians (m,), all constants included."""
    free = u[:, : layout.scalars.slot.size].copy()
    total = np.full(len(u), layout.constant)
    if layout.thresholds.size:
        later = layout.thresholds[1:]
        total += free[:, later].sum(axis=1)
        free[:, later] = np.exp(free[:, later])
        free[:, layout.thresholds] = np.cumsum(free[:, layout.thresholds], axis=1)
    x = np.tile(layout.fixed, (len(u), 1))
    _add_scalars(layout.scalars, free, x, total)
    return x, total


@njit(cache=True, nogil=True, error_model="numpy")
def _add_scalars(scalars: Scalars, u: Array, x: Array, total: Array) -> None:
    for s in range(u.shape[0]):
        for i in range(scalars.slot.size):
            value, _, log_jacobian, _ = constrain(u[s, i], scalars.lower[i], scalars.upper[i])
            x[s, scalars.slot[i]] = value
            total[s] += form(scalars.kind[i], scalars.args[i], value)[0] + log_jacobian


def _uncentred(predictor: _Predictor, x: Array) -> Array:
    b = x[:, predictor.slots].copy()
    if predictor.intercept >= 0:
        b[:, predictor.intercept] -= b @ predictor.means
    return b


def _rows_to_factor(term: _Correlated, u: Array) -> tuple[Array, Array]:
    """Return Cholesky factors (m, k, k) of correlation matrices, and LKJ's log density of their rows, but for its constant (m,)."""
    k, entry = term.k, term.at
    C, total = np.zeros((len(u), k, k)), np.zeros(len(u))
    C[:, 0, 0] = 1.0
    for i in range(1, k):
        y = u[:, entry : entry + i]
        square = 1.0 + np.sum(y**2, axis=1)
        C[:, i, :i] = y / np.sqrt(square)[:, None]
        C[:, i, i] = 1.0 / np.sqrt(square)
        total -= 0.5 * (2.0 * term.eta - 1.0 + k) * np.log(square)
        entry += i
    return C, total


def _given_factors(term: _Correlated, share: Array) -> Array:
    """Return the Cholesky factors (m, k, k) of correlation matrices with one parameter, stretched from (0, 1)."""
    lowest, highest = _own_range(term)
    theta = np.ones(term.structure.n_theta(term.k))
    found = np.empty((len(share), term.k, term.k))
    for s, rho in enumerate(lowest + (highest - lowest) * share):
        theta[-1] = rho
        found[s] = term.structure.factor(theta, term.k)
    return found


def _own_range(term: _Correlated) -> tuple[float, float]:
    return float(term.structure.lower(term.k)[-1]), float(term.structure.upper(term.k)[-1])


def _effects(group: Factor, z: Array, sd: Array, choleskys: Mapping[int, Array]) -> dict[str, Array]:
    """Return block name -> random effects (m, J, k), as `translate` makes them of z (m, J, K)."""
    r = z.copy()
    for columns in group.columns:
        if int(columns[0]) in choleskys:
            r[:, :, columns] = z[:, :, columns] @ choleskys[int(columns[0])].transpose(0, 2, 1)
    r *= sd[:, None, :]
    if group.known is not None:
        r = np.einsum("jl,slk->sjk", group.known.root, r)
    return {block.name: r[:, :, columns] for block, columns in zip(group.blocks, group.columns, strict=True)}


def _further(layout: Layout, x: Array, coefficients: Mapping[str, Array], effects: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """Return further parameters: (m,) of a constant, (m, n) where one has a predictor of its own; thresholds of the design as it is."""
    model = layout.model
    found = {name: x[:, slot] for name, slot in layout.aux.items()}
    if model.family.of_levels is not None:
        shift = coefficients[""] @ model.design.X.mean(axis=0)
        return {name: values + shift for name, values in found.items()}
    for one in layout.predictors[1:]:
        link = next(parameter.link for parameter in model.family.parameters if parameter.name == one.name)
        eta = coefficients[one.name] @ one.fixed.X.T
        for block in model.design.parameters[one.name][1]:
            eta = eta + _of_rows(block, effects[one.name][block.name])
        found[one.name] = LINKS[link].inverse(eta)
    return found


def _of_rows(block: RandomBlock, effects: Array) -> Array:
    return np.asarray(np.einsum("snk,nk->sn", effects[:, block.index], block.values))


# --------------------------------------------------------------------------------------------------------------------- draws -> u


def points(layout: Layout, posterior: Any, *, random: bool) -> Array:
    """Return the posterior's draws (chains, draws, d) as points; without the random effects' z where not `random`.

    Parameters
    ----------
    posterior
        The Dataset of a fit's posterior, with the names of the public contract.
    """
    x = _values(layout, posterior)
    parts = [_unconstrained(layout.scalars, x[:, layout.scalars.slot])]
    if layout.thresholds.size:
        tau = parts[0][:, layout.thresholds]
        parts[0][:, layout.thresholds[1:]] = np.log(np.maximum(np.diff(tau, axis=1), _TINY))
    for term in layout.correlated:
        if term.free:
            C = np.linalg.cholesky(_own_correlation(layout, term, posterior))
            rows, columns = np.tril_indices(term.k, -1)
            parts.append(C[:, rows, columns] / C[:, rows, rows])
    if random:
        parts += [_standard_normals(layout, f, posterior) for f in range(len(layout.groups))]
    flat = np.concatenate(parts, axis=1)
    return flat.reshape(posterior.sizes["chain"], posterior.sizes["draw"], -1)


def _values(layout: Layout, posterior: Any) -> Array:
    """Return the values x (S, slots) of the scalars."""
    x = np.tile(layout.fixed, (posterior.sizes["chain"] * posterior.sizes["draw"], 1))
    b = np.zeros((len(x), 0))
    for one in reversed(layout.predictors):
        b = arrays.flat(posterior[f"b_{one.name}" if one.name else "b"])
        x[:, one.slots] = b
        if one.intercept >= 0:
            x[:, one.slots.start + one.intercept] += b @ one.means
    for group, slots in zip(layout.groups, layout.deviations, strict=True):
        x[:, slots] = arrays.flat(posterior[f"sd_{group.label}"])
    for term in layout.correlated:
        if not term.free:
            lowest, highest = _own_range(term)
            x[:, term.at] = (_own_correlation(layout, term, posterior)[:, 1, 0] - lowest) / (highest - lowest)
    shift = b @ layout.model.design.X.mean(axis=0) if layout.model.family.of_levels is not None else 0.0
    for name, slot in layout.aux.items():
        x[:, slot] = arrays.flat(posterior[name]) - shift
    return x


def _own_correlation(layout: Layout, term: _Correlated, posterior: Any) -> Array:
    values = arrays.flat(posterior[f"cor_{layout.groups[term.factor].label}"])
    return np.asarray(values[:, term.columns[:, None], term.columns])


def _unconstrained(scalars: Scalars, x: Array) -> Array:
    """Return u (S, m) of values x (S, m): the inverse of `constrain`, kept off the ends of the ranges."""
    u = x.copy()
    for i, (lower, upper) in enumerate(zip(scalars.lower, scalars.upper, strict=True)):
        above, below = np.maximum(x[:, i] - lower, _TINY), np.maximum(upper - x[:, i], _TINY)
        if np.isfinite(lower) and np.isfinite(upper):
            u[:, i] = np.log(above) - np.log(below)
        elif np.isfinite(lower):
            u[:, i] = np.log(above)
        elif np.isfinite(upper):
            u[:, i] = np.log(below)
    return u


def _standard_normals(layout: Layout, f: int, posterior: Any) -> Array:
    """Return z (S, J K) of a factor's random effects."""
    group = layout.groups[f]
    r = arrays.flat(posterior[f"r_{group.label}"])
    z = r if group.known is None else np.einsum("jl,slk->sjk", np.linalg.inv(group.known.root), r)
    z = z / np.maximum(arrays.flat(posterior[f"sd_{group.label}"]), _TINY)[:, None, :]
    for term in layout.correlated:
        if term.factor == f:
            C = np.linalg.cholesky(_own_correlation(layout, term, posterior))
            z[:, :, term.columns] = np.linalg.solve(C, z[:, :, term.columns].transpose(0, 2, 1)).transpose(0, 2, 1)
    return np.asarray(z.reshape(len(z), -1))
