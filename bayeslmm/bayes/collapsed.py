"""The collapsed sampler: NUTS on a Gaussian linear mixed model without its random effects, which are drawn exactly afterwards.

No graph is compiled: the density is one Numba kernel for all models, kept in Numba's cache. The search for the posterior mode and the
differences of its gradient give a normal approximation, in whose coordinates NUTS starts and runs, so that its own adaptation has
little left to do. Coefficients with normal or flat priors are integrated out and drawn too. See `collapsed_density` for the mathematics.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.limits import Limits, first_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bayeslmm.bayes.collapsed_density import Density, Evaluator
    from bayeslmm.bayes.samplers import Settings
    from bayeslmm.model import Model

__all__ = ["Approximation", "approximate", "limit", "sample_collapsed"]

type Array = np.ndarray

_STEP = 1e-4
"""Of the differences of the gradient, in units of `Density.scale`."""


def limit(model: Model) -> str | None:
    """Return why a model's random effects cannot be integrated out here, None where they can."""
    return first_of(_LIMITS, model)


_LIMITS: Limits = (
    ("the response is not Gaussian with identity link", lambda model: (model.family.name, model.link.name) != ("gaussian", "identity")),
    ("a further parameter has a predictor of its own", lambda model: bool(model.design.parameters)),
    ("residuals are correlated", lambda model: model.design.series is not None),
    ("the model has no random effects", lambda model: not model.design.blocks),
)
"""What the sampler cannot do: the reason, and whether a model has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approximation:
    """The normal approximation of a posterior: its `mode` (d,) and a Cholesky factor `root` (d, d) of its covariance."""

    mode: Array
    root: Array


def approximate(density: Density, evaluate: Evaluator) -> Approximation:
    """Return mode and covariance of the log density on the real line, the covariance from central differences of the gradient."""
    from scipy.optimize import minimize

    start, scale = density.start, density.scale

    def negative(t: Array) -> tuple[float, Array]:
        value, grad = evaluate(start + scale * t)
        return (-value, -scale * grad) if np.isfinite(value) else (np.inf, np.zeros_like(t))

    found = minimize(negative, np.zeros(density.dim), jac=True, method="L-BFGS-B", options={"maxiter": 500, "maxcor": 20})
    t = np.asarray(found.x)
    H = np.stack([negative(t + _STEP * one)[1] - negative(t - _STEP * one)[1] for one in np.eye(density.dim)]) / (2.0 * _STEP)
    values, vectors = np.linalg.eigh((H + H.T) / 2.0)
    values = np.maximum(np.abs(values), 1e-10 * float(np.max(np.abs(values))))
    root = np.linalg.qr((vectors / np.sqrt(values)).T, mode="r").T
    return Approximation(mode=start + scale * t, root=scale[:, None] * root)


def sample_collapsed(model: Model, names: Sequence[str], settings: Settings) -> Any:
    """NUTS (nutpie) on the density without random effects, which are drawn afterwards: no compilation for each model."""
    import xarray as xr
    from threadpoolctl import threadpool_limits

    from bayeslmm.bayes.collapsed_density import density_of, evaluator
    from bayeslmm.bayes.nuts import nuts

    density = density_of(model, marginal=True)
    with threadpool_limits(limits=1, user_api="blas"):  # chains are what runs side by side; sums in one order, whatever the cores
        approximation = approximate(density, evaluator(density))
        raw = nuts(_compiled(density, approximation), settings)
        t = raw["posterior"]["t"].transpose("chain", "draw", "parameter").values
        posterior = _posterior(density, approximation.mode + t @ approximation.root.T, names, settings)
    return xr.DataTree.from_dict({"posterior": posterior, "sample_stats": raw["sample_stats"].to_dataset()})


def _compiled(density: Density, approximation: Approximation) -> Any:
    """Return nutpie's model of the density of t, u = mode + root t, without Python in it."""
    from bayeslmm.bayes.collapsed_native import compiled

    mode, root, dim = approximation.mode, approximation.root, density.dim

    def initial(seed: int) -> Array:
        return np.random.default_rng(seed).standard_normal(dim)

    return compiled(density, mode, root, initial)


def _posterior(density: Density, u: Array, names: Sequence[str], settings: Settings) -> Any:
    """Return the variables of the posterior from draws u (chain, draw, d), random effects drawn by a stream of each chain's own."""
    import xarray as xr

    from bayeslmm.bayes import collapsed_effects as found

    coords: dict[str, Any] = {"chain": np.arange(len(u)), "draw": np.arange(u.shape[1])}
    chains = [found.values_of(density, one) for one in u]
    streams = [np.random.default_rng(one) for one in np.random.SeedSequence(settings.seed).spawn(len(u))]
    with ThreadPoolExecutor(settings.cores) as pool:
        effects = list(pool.map(partial(found.effects, density), chains, streams))

    def variable(parts: list[Array], *dims: str) -> tuple[tuple[str, ...], Array]:
        return ("chain", "draw", *dims), np.stack(parts)

    variables: dict[str, Any] = {"b": variable([found.coefficients(density, values) for values in chains], "fixed")}
    coords["fixed"] = list(density.fixed_names)
    for f, group in enumerate(density.groups):
        coords |= {group.dim: list(group.levels), group.effect_dim: list(group.effects)}
        variables[f"sd_{group.label}"] = variable([found.deviations(density, values, f) for values in chains], group.effect_dim)
        if group.correlated:
            coords[group.effect_dim2] = list(group.effects)
            matrices = [found.correlations(density, values, f) for values in chains]
            variables[f"cor_{group.label}"] = variable(matrices, group.effect_dim, group.effect_dim2)
        variables[f"r_{group.label}"] = variable([one[f] for one in effects], group.dim, group.effect_dim)
    variables["sigma"] = variable([values.x[:, -1] for values in chains])
    return xr.Dataset({name: variables[name] for name in names}, coords=coords)
