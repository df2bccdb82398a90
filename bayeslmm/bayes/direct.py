"""The direct sampler: NUTS on the joint density of a mixed model's parameters and random effects, without a graph to compile.

One kernel serves all models of the families that have one (`families.kernels`), kept in Numba's cache. See `direct_density` for the
coordinates, in which a posterior is near a standard normal, and `direct_start` for the mode that they are made at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.limits import Limits, first_of
from bayeslmm.bayes.nuts import nuts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bayeslmm.bayes.direct_plan import Direct, Values
    from bayeslmm.bayes.samplers import Settings
    from bayeslmm.model import Model

__all__ = ["limit", "sample_direct"]

type Array = np.ndarray


def limit(model: Model) -> str | None:
    """Return why the kernel cannot do a model, None where it can."""
    return first_of(_LIMITS, model)


def _correlated_otherwise(model: Model) -> bool:
    from bayeslmm.covariance import structure_of

    structures = [(structure_of(block), block.n_effects) for block in model.design.blocks]
    return any(structure.correlated and not structure.linear and k > 1 for structure, k in structures)


_LIMITS: Limits = (
    ("the family has no kernel", lambda model: model.family.kernel is None),
    ("the link has no kernel", lambda model: model.link.kernel is None),
    ("a further parameter has a predictor of its own", lambda model: bool(model.design.parameters)),
    ("residuals are correlated", lambda model: model.design.series is not None),
    ("the covariance among levels is given", lambda model: any(block.known is not None for block in model.design.blocks)),
    ("random effects have another structure than 'us', 'diag' or 'homdiag'", _correlated_otherwise),
)
"""What the kernel cannot do: the reason, and whether a model has it."""


def sample_direct(model: Model, names: Sequence[str], settings: Settings) -> Any:
    """NUTS (nutpie) on the joint density of parameters and random effects: no compilation for each model."""
    import xarray as xr
    from threadpoolctl import threadpool_limits

    from bayeslmm.bayes.direct_density import density_function
    from bayeslmm.bayes.direct_plan import direct_of, laid_out, values_of
    from bayeslmm.bayes.direct_start import whiten
    from bayeslmm.bayes.native import compiled

    with threadpool_limits(limits=1, user_api="blas"):  # chains are what runs side by side; sums in one order, whatever the cores
        direct = whiten(direct_of(model))
        dim = direct.dim

        def initial(seed: int) -> Array:
            return np.random.default_rng(seed).standard_normal(dim)

        raw = nuts(compiled(density_function, laid_out(direct.plan), dim, initial), settings)
        t = raw["posterior"]["t"].transpose("chain", "draw", "parameter").values
        posterior = _posterior(direct, values_of(direct.plan, t.reshape(-1, dim)), t.shape[:2], names)
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": raw["sample_stats"].to_dataset()})


def _posterior(direct: Direct, values: Values, sizes: tuple[int, ...], names: Sequence[str]) -> Any:
    """Return the variables of the posterior from draws (chain * draw, ...)."""
    import xarray as xr

    plan, family = direct.plan, direct.model.family
    coords: dict[str, Any] = {"chain": np.arange(sizes[0]), "draw": np.arange(sizes[1])}

    def variable(draws: Array, *dims: str) -> tuple[tuple[str, ...], Array]:
        return ("chain", "draw", *dims), draws.reshape(*sizes, *draws.shape[1:])

    b = values.x[:, : direct.p].copy()
    if direct.intercept >= 0:
        b[:, direct.intercept] -= b @ direct.means
    variables = {"b": variable(b, "fixed")}
    coords["fixed"] = list(direct.model.design.fixed_names)
    for f, group in enumerate(direct.groups):
        K, J = int(plan.width[f]), int(plan.levels[f])
        coords |= {group.dim: list(group.levels), group.effect_dim: list(group.effects)}
        sd = values.x[:, plan.sd_slot[plan.sd_at[f] : plan.sd_at[f] + K]]
        variables[f"sd_{group.label}"] = variable(sd, group.effect_dim)
        if group.correlated:
            coords[group.effect_dim2] = list(group.effects)
            variables[f"cor_{group.label}"] = variable(_correlations(direct, values, f), group.effect_dim, group.effect_dim2)
        effects = values.b[:, plan.level_at[f] : plan.level_at[f] + J * K].reshape(-1, J, K)
        variables[f"r_{group.label}"] = variable(effects, group.dim, group.effect_dim)
    for k, parameter in enumerate(family.parameters, start=values.x.shape[1] - plan.further):
        variables[parameter.name] = variable(values.x[:, k])
    return xr.Dataset({name: variables[name] for name in names}, coords=coords)


def _correlations(direct: Direct, values: Values, f: int) -> Array:
    """Return the correlation matrices (S, K, K) of the effects of one factor, zero between terms."""
    plan, K = direct.plan, int(direct.plan.width[f])
    found = np.zeros((len(values.x), K, K))
    for t in range(plan.term_at[f], plan.term_at[f + 1]):
        k, first, at = plan.k[t], plan.column[t], plan.matrix_at[t]
        C = values.C[:, at : at + k * k].reshape(-1, k, k)
        found[:, first : first + k, first : first + k] = C @ C.transpose(0, 2, 1)
    return found
