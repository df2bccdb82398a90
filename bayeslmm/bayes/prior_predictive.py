"""Draws from the priors of a model, and the responses that they imply before the data are seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.draws import draws_of, posterior_names
from bayeslmm.bayes.shrinkage import SHRINKAGE, scaled_by_sigma, shrinkage_row
from bayeslmm.bayes.translate import Factor, deviation_slots, factors, has_correlation, rows_of
from bayeslmm.errors import FitError, PriorError
from bayeslmm.model import Model
from bayeslmm.prediction import generator, replicates_of, whole_number
from bayeslmm.priors import INTERCEPT, bounds

if TYPE_CHECKING:
    from bayeslmm.covariance import Structure
    from bayeslmm.design import FixedPart
    from bayeslmm.families.base import Family
    from bayeslmm.priors import PriorRow

__all__ = ["draw_row", "improper_rows", "lkj_factors", "prior_draws", "prior_predictive"]

type Array = np.ndarray

_SMALLEST, _LARGEST = 1e-10, 1e15
"""Between these the further parameters and means are held for the response's random numbers; counts beyond are no whole numbers anyway."""


def prior_predictive(model: Model, draws: int = 500, seed: int | None = None) -> Any:
    """Draw parameters from the priors of a model, and for each draw a response of its rows.

    Parameters
    ----------
    model
        A `Model`; all its priors must be proper.
    draws
        Number of draws.
    seed
        Same seed, same draws. Default: a fresh one.

    Returns
    -------
    DataTree
        ArviZ groups `prior` (the names of a fit's `posterior`, one chain), `prior_predictive` (`y`: chain, draw, obs) and
        `observed_data` (`y`). Draws whose mean lies outside of what the family can have (possible under links as `identity`) have
        NaN for that row.

    Raises
    ------
    PriorError
        If a prior is improper: `flat()` on an unbounded parameter.
    FitError
        If `model` is no `Model`, or `draws` no positive whole number.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> m = bl.model("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> tree = bl.prior_predictive(m, draws=100, seed=1)
    >>> tree["prior_predictive"]["y"].shape
    (1, 100, 180)
    """
    import xarray as xr

    if not isinstance(model, Model):
        raise FitError(f"prior_predictive takes a Model, made by bayeslmm.model, not {type(model).__name__}")
    draws, rng = whole_number(draws, "draws"), generator(seed)
    _refuse_improper(model)
    prior = prior_draws(model, draws, rng)
    y = np.empty((draws, model.design.n))
    for which, some in replicates_of(_held(model), draws_of(model, prior), conditional=True, rng=rng):
        y[:, which] = some
    obs = {"obs": np.arange(model.design.n)}
    return xr.DataTree.from_dict(
        {
            "prior": prior,
            "prior_predictive": xr.Dataset(
                {"y": (("chain", "draw", "obs"), y[None])}, coords={"chain": prior["chain"], "draw": prior["draw"], **obs}
            ),
            "observed_data": xr.Dataset({"y": (("obs",), model.design.y)}, coords=obs),
        }
    )


# --- Single numbers -----------------------------------------------------------------------------------------------------------


def improper_rows(model: Model) -> list[PriorRow]:
    """Return the prior rows whose density has no finite integral: `flat()` on a parameter without both bounds."""
    return [row for row in model.prior_rows if not row.distribution.proper and not np.all(np.isfinite(bounds(row, model.family)))]


def _refuse_improper(model: Model) -> None:
    rows = improper_rows(model)
    if rows:
        named = ", ".join(" ".join(piece for piece in (row.part, row.group, row.term) if piece) for row in rows)
        raise PriorError(
            f"there are no draws from improper priors: {named} {'has' if len(rows) == 1 else 'have'} flat(); give proper ones, as those of "
            "default_priors(model, 'weak')"
        )


def draw_row(row: PriorRow, family: Family, size: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return independent draws of one prior row's parameter, by the inverse of its distribution function cut to the range."""
    return _drawn(row, *bounds(row, family), size, rng)


def _drawn(row: PriorRow, lower: Any, upper: Any, size: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return draws within (lower, upper), numbers or arrays."""
    distribution = row.distribution
    if distribution.name == "constant":
        return np.full(size, distribution.args[0])
    u = rng.random(size)
    if distribution.name == "flat":
        return np.asarray(lower + (upper - lower) * u)
    make = distribution.kind.scipy
    assert make is not None
    frozen = make(*distribution.args)
    above = lower > frozen.median()
    by_lower = frozen.ppf(frozen.cdf(lower) + u * (frozen.cdf(upper) - frozen.cdf(lower)))
    by_upper = frozen.isf(frozen.sf(lower) + u * (frozen.sf(upper) - frozen.sf(lower)))
    return np.asarray(np.clip(np.where(above, by_upper, by_lower), lower, upper))


# --- All parameters -----------------------------------------------------------------------------------------------------------


def prior_draws(model: Model, draws: int, rng: np.random.Generator) -> Any:
    """Return independent draws of all parameters as a dataset with a posterior's names: `b`, `sd_<group>`, ..., one chain."""
    import xarray as xr

    family = model.family
    variables: dict[str, tuple[tuple[str, ...], Array]] = {}
    coords: dict[str, Any] = {"chain": np.arange(1), "draw": np.arange(draws)}

    def keep(name: str, values: Array, dims: Mapping[str, Sequence[str]]) -> None:
        variables[name] = (("chain", "draw", *dims), np.asarray(values)[None])
        coords.update({dim: list(labels) for dim, labels in dims.items()})

    rows = [row for row in rows_of(model, "aux") if family.of_levels is None]
    aux = {row.term: draw_row(row, family, (draws,), rng) for row in rows}
    for parameter, fixed in _predictors(model):
        suffix = f"_{parameter}" if parameter else ""
        b, more = _coefficients(model, parameter, fixed, aux, draws, rng)
        keep(f"b{suffix}", b, {f"fixed{suffix}": fixed.names})
        for name, values in more.items():
            keep(name, values, {})
    for factor in factors(model):
        sd, cor, r = _effects(model, factor, draws, rng)
        keep(f"sd_{factor.label}", sd, {factor.effect_dim: factor.effects})
        if factor.correlated:
            keep(f"cor_{factor.label}", cor, {factor.effect_dim: factor.effects, factor.effect_dim2: factor.effects})
        keep(f"r_{factor.label}", r, {factor.dim: factor.levels, factor.effect_dim: factor.effects})
    if family.of_levels is not None:
        aux = _thresholds(model, variables["b"][1][0], draws, rng)
    for name, values in aux.items():
        keep(name, values, {})
    return xr.Dataset({name: variables[name] for name in posterior_names(model)}, coords=coords)


def _predictors(model: Model) -> Iterator[tuple[str, FixedPart]]:
    yield "", model.design.fixed
    for name, (fixed, _) in model.design.parameters.items():
        yield name, fixed


def _coefficients(
    model: Model, parameter: str, fixed: FixedPart, aux: Mapping[str, Array], S: int, rng: np.random.Generator
) -> tuple[Array, dict[str, Array]]:
    """Return the coefficients (S, p) of one predictor's design as it is, and the parameters of a prior of all of them together."""
    b = np.zeros((S, len(fixed.names)))
    more: dict[str, Array] = {}
    named = [f"{parameter}_{name}" if parameter else name for name in fixed.names]
    rows = rows_of(model, "fixed", parameter)
    joint = shrinkage_row(rows)
    if joint is not None:
        distribution = joint.distribution
        given = dict(zip(distribution.kind.arguments, distribution.args, strict=True))
        sigma = aux["sigma"] if scaled_by_sigma(model, distribution) else np.ones(S)
        own = [named.index(row.term) for row in rows if row.distribution.kind.joint]
        more, b[:, own] = SHRINKAGE[distribution.name].draw(rng, S, given, len(own), model.design.n, sigma)
    for row in rows:
        if not row.distribution.kind.joint:
            b[:, named.index(row.term)] = draw_row(row, model.family, (S,), rng)
    for row in rows_of(model, "intercept", parameter):
        at = fixed.names.index(INTERCEPT)
        b[:, at] = draw_row(row, model.family, (S,), rng) - b @ fixed.X.mean(axis=0)
    return b, more


def _effects(model: Model, factor: Factor, S: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Return standard deviations (S, k), correlations (S, k, k) and random effects (S, levels, k) of a grouping factor."""
    free = [draw_row(row, model.family, (S,), rng) for row in rows_of(model, "sd", factor.parameter, factor.group)]
    sd = np.stack(free, axis=1)[:, deviation_slots(factor)]
    k = len(factor.effects)
    root = np.broadcast_to(np.eye(k), (S, k, k)).copy()
    etas = iter(rows_of(model, "cor", factor.parameter, factor.group))
    for block, columns, structure in zip(factor.blocks, factor.columns, factor.structures, strict=True):
        if has_correlation(block, structure):
            eta = next(etas).distribution.args[0]
            root[:, columns[:, None], columns] = _correlation_factors(structure, block.n_effects, eta, S, rng)
    r = np.einsum("sjl,skl->sjk", rng.standard_normal((S, len(factor.levels), k)), root) * sd[:, None, :]
    if factor.known is not None:
        r = factor.known.correlated(r)
    return sd, root @ root.transpose(0, 2, 1), r


def _correlation_factors(structure: Structure, k: int, eta: float, S: int, rng: np.random.Generator) -> Array:
    """Return Cholesky factors (S, k, k) of correlation matrices drawn from their prior."""
    if structure.linear:
        return lkj_factors(k, eta, S, rng)
    theta = np.ones((S, structure.n_theta(k)))
    lowest, highest = structure.lower(k)[-1], structure.upper(k)[-1]
    theta[:, -1] = lowest + (highest - lowest) * rng.beta(eta, eta, S)
    return np.stack([structure.factor(one, k) for one in theta])


def lkj_factors(k: int, eta: float, S: int, rng: np.random.Generator) -> Array:
    """Return Cholesky factors (S, k, k) of correlation matrices of density |C|^(eta - 1), by their independent partial correlations.

    Source: Lewandowski, Kurowicka and Joe (2009), J. Multivar. Anal. 100, section 2 (C-vine).
    """
    L = np.zeros((S, k, k))
    L[:, 0, 0] = 1.0
    for i in range(1, k):
        left = np.ones(S)
        for j in range(i):
            shape = eta + (k - 2 - j) / 2.0
            partial = 2.0 * rng.beta(shape, shape, S) - 1.0
            L[:, i, j] = partial * np.sqrt(left)
            left = left * (1.0 - partial**2)
        L[:, i, i] = np.sqrt(left)
    return L


# --- Thresholds ---------------------------------------------------------------------------------------------------------------


def _thresholds(model: Model, b: Array, S: int, rng: np.random.Generator) -> dict[str, Array]:
    """Return the thresholds of an ordered response by name: drawn on the centred design, in order where the family has them so."""
    rows = rows_of(model, "aux")
    found = np.stack([draw_row(row, model.family, (S,), rng) for row in rows], axis=1)
    if model.family.increasing:
        found = np.sort(found, axis=1)
        if len({row.distribution for row in rows}) > 1:
            found = _in_order(rows, found, rng)
    if model.design.p:
        found = found + (b @ model.design.X.mean(axis=0))[:, None]
    return {row.term: found[:, k] for k, row in enumerate(rows)}


_SWEEPS = 100


def _in_order(rows: Sequence[PriorRow], start: Array, rng: np.random.Generator) -> Array:
    """Return draws (S, k) given that they increase, by Gibbs sweeps from a start (S, k): each between its neighbours."""
    S, k = start.shape
    edge = np.full(S, np.inf)
    found = start.copy()
    for _ in range(_SWEEPS):
        for c, row in enumerate(rows):
            lower = found[:, c - 1] if c else -edge
            upper = found[:, c + 1] if c + 1 < k else edge
            found[:, c] = _drawn(row, lower, upper, (S,), rng)
    return found


# --- Responses ----------------------------------------------------------------------------------------------------------------


def _held(model: Model) -> Model:
    """Return the model with its mean and further parameters held where responses can be drawn: heavy-tailed priors reach far beyond."""
    link, family = model.link, model.family
    low, high = _mean_range(family)

    def inverse(eta: Array) -> Array:
        with np.errstate(all="ignore"):
            mean = link.inverse(eta)
        return np.asarray(np.nan_to_num(mean, nan=0.5 * _LARGEST, posinf=_LARGEST, neginf=-_LARGEST))

    def simulate(rng: np.random.Generator, mu: Array, aux: Mapping[str, Array], trials: Array | None) -> Array:
        possible = (mu >= low) & (mu <= high)
        inside = np.clip(np.where(possible, mu, 0.5), *_inner(low, high))
        further = {
            parameter.name: np.clip(aux[parameter.name], *_inner(parameter.lower, parameter.upper)) for parameter in family.parameters
        }
        with np.errstate(all="ignore"):
            simulated = np.nan_to_num(family.simulate(rng, inside, further, trials))
        return np.where(possible, simulated, np.nan)

    return replace(model, family=replace(family, simulate=simulate), link=replace(link, inverse=inverse))


def _inner(low: float, high: float) -> tuple[float, float]:
    """Return a range without its edges and what is beyond all use."""
    return max(low + _SMALLEST, -_LARGEST), min(high - _SMALLEST, _LARGEST)


def _mean_range(family: Family) -> tuple[float, float]:
    """Return the range of mu, by which responses the family takes: those of no trials to count, 1 of 1, and what lies outside."""
    if family.log_scale or family.of_levels is not None:
        return -np.inf, np.inf

    def takes(value: float) -> bool:
        return not bool(family.check(np.array([value]), np.array([1.0]) if family.needs_trials else None)[0])

    return (-np.inf if takes(-1.0) else 0.0), (np.inf if takes(2.0) else 1.0)
