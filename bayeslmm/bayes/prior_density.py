"""The log density of the priors at every posterior draw, one array a prior row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.collapsed_priors import lkj_constant
from bayeslmm.bayes.shrinkage import SHRINKAGE, scaled_by_sigma, shrinkage_row
from bayeslmm.bayes.translate import Factor, deviation_slots, factors, has_correlation, rows_of
from bayeslmm.priors import INTERCEPT, Distribution, bounds, log_density

if TYPE_CHECKING:
    from bayeslmm.bayes.fit import BayesFit
    from bayeslmm.covariance import Structure
    from bayeslmm.design import FixedPart
    from bayeslmm.model import Model
    from bayeslmm.priors import PriorRow

__all__ = ["log_prior", "log_prior_of", "row_values"]

type Array = np.ndarray


def log_prior(fit: BayesFit) -> dict[str, Array]:
    """Return the log density of every prior at every draw: `part/group/term` -> (chain, draw).

    Keys are as `fixed/Days`, `sd/Subject/Days`, `cor/Subject`, `aux/sigma`; empty pieces are left out. The intercept's prior is of
    the centred design, where it is the default one. Densities are of the parameters on their own scale, normalised, cut to their
    range; `flat()` is 0 throughout, and constants have no key. Only top-level priors are here: not the normal distribution of the
    random effects, nor, of `horseshoe` and `R2D2` (key `fixed/horseshoe`), the coefficients' own. Thresholds that are ordered have
    their densities before the order, as in brms.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.brm("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"), chains=2, draws=200, tune=200, seed=1)
    >>> {name: values.shape for name, values in log_prior(fit).items()}
    {'intercept/(Intercept)': (2, 200), 'sd/Batch/(Intercept)': (2, 200), 'aux/sigma': (2, 200)}
    """
    return log_prior_of(fit.model, fit.tree["posterior"].to_dataset())


def log_prior_of(model: Model, posterior: Any) -> dict[str, Array]:
    """Return `log_prior` of draws that are a dataset with the posterior's names."""
    found = {}
    for row, values in row_values(model, posterior):
        if row.part == "cor":
            found[_key(row)] = values
        elif row.distribution.name != "constant":
            found[_key(row)] = log_density(row.distribution, values, *bounds(row, model.family))
    return found | dict(_joint(model, posterior))


def _key(row: PriorRow) -> str:
    return "/".join(piece for piece in (row.part, row.group, row.term) if piece)


def _joint(model: Model, posterior: Any) -> Iterator[tuple[str, Array]]:
    """Yield the density of the scalar parameters of a prior of all coefficients together."""
    row = shrinkage_row(rows_of(model, "fixed"))
    if row is not None:
        distribution = row.distribution
        kind = SHRINKAGE[distribution.name]
        given = dict(zip(distribution.kind.arguments, distribution.args, strict=True))
        sigma = _of(posterior, "sigma") if scaled_by_sigma(model, distribution) else 1.0
        values = {name: _of(posterior, name) for name in kind.variables}
        yield f"fixed/{distribution.name}", kind.log_density(values, given, model.design.n, sigma)


def row_values(model: Model, posterior: Any) -> Iterator[tuple[PriorRow, Array]]:
    """Yield each prior row of single parameters with its parameter's draws (chain, draw).

    For correlations, which are matrices, the draws are of the log density of their prior.
    """
    parts = [("", model.design.fixed), *((name, fixed) for name, (fixed, _) in model.design.parameters.items())]
    yield from chain.from_iterable(_coefficients(model, name, fixed, posterior) for name, fixed in parts)
    groups = factors(model)
    yield from chain.from_iterable(_deviations(model, factor, posterior) for factor in groups)
    yield from chain.from_iterable(_correlations(model, factor, posterior) for factor in groups)
    for row in rows_of(model, "aux"):
        values = _of(posterior, row.term)
        if model.family.of_levels is not None and model.design.p:
            values = values - _of(posterior, "b") @ model.design.X.mean(axis=0)
        yield row, values


def _of(posterior: Any, name: str) -> Array:
    return np.asarray(posterior[name].transpose("chain", "draw", ...).values)


def _coefficients(model: Model, parameter: str, fixed: FixedPart, posterior: Any) -> Iterator[tuple[PriorRow, Array]]:
    """Yield the coefficients of one predictor, its intercept that of the centred design."""
    b = _of(posterior, f"b_{parameter}" if parameter else "b")
    named = [f"{parameter}_{name}" if parameter else name for name in fixed.names]
    for row in rows_of(model, "intercept", parameter):
        at = fixed.names.index(INTERCEPT)
        means = fixed.X.mean(axis=0)
        means[at] = 1.0
        yield row, b @ means
    for row in rows_of(model, "fixed", parameter):
        if not row.distribution.kind.joint:
            yield row, b[:, :, named.index(row.term)]


def _deviations(model: Model, factor: Factor, posterior: Any) -> Iterator[tuple[PriorRow, Array]]:
    sd, slots = _of(posterior, f"sd_{factor.label}"), deviation_slots(factor)
    for slot, row in enumerate(rows_of(model, "sd", factor.parameter, factor.group)):
        yield row, sd[:, :, int(np.flatnonzero(slots == slot)[0])]


def _correlations(model: Model, factor: Factor, posterior: Any) -> Iterator[tuple[PriorRow, Array]]:
    rows = iter(rows_of(model, "cor", factor.parameter, factor.group))
    for block, columns, structure in zip(factor.blocks, factor.columns, factor.structures, strict=True):
        if has_correlation(block, structure):
            row = next(rows)
            matrices = _of(posterior, f"cor_{factor.label}")[:, :, columns[:, None], columns]
            yield row, _correlation_density(structure, matrices, row.distribution.args[0])


def _correlation_density(structure: Structure, matrices: Array, eta: float) -> Array:
    """Return the log density of correlation matrices (..., k, k): LKJ, or Beta of a single correlation stretched over its range."""
    k = matrices.shape[-1]
    if structure.linear:
        return np.asarray((eta - 1.0) * np.linalg.slogdet(matrices)[1] - lkj_constant(k, eta))
    lowest, highest = structure.lower(k)[-1], structure.upper(k)[-1]
    share = (matrices[..., 1, 0] - lowest) / (highest - lowest)
    return np.asarray(log_density(Distribution(name="beta", args=(eta, eta)), share, 0.0, 1.0) - np.log(highest - lowest))
