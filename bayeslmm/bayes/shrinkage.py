"""Priors of all coefficients together, brms's `horseshoe` and `R2D2`: variables in PyMC, draws and densities, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.priors import INTERCEPT, log_density, parse_distribution

if TYPE_CHECKING:
    from bayeslmm.model import Model
    from bayeslmm.priors import Distribution, PriorRow

__all__ = ["SHRINKAGE", "Shrinkage", "scaled_by_sigma", "shrinkage_row"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrinkage:
    """A prior of K coefficients together.

    Attributes
    ----------
    variables
        Its scalar parameters, which the posterior keeps.
    pymc
        `(arguments, K, n, sigma) -> tensor (K,)`: registers the free variables in the open PyMC model; `n` rows; `sigma` the residual
        standard deviation that the prior is in units of, a tensor or 1.
    draw
        `(rng, S, arguments, K, n, sigma (S,)) -> (variables (S,) by name, coefficients (S, K))`.
    log_density
        `(values by name, arguments, n, sigma) -> Array`: of the scalar parameters, with all constants.
    """

    variables: tuple[str, ...]
    pymc: Callable[[Mapping[str, float], int, int, Any], Any]
    draw: Callable[[np.random.Generator, int, Mapping[str, float], int, int, Array], tuple[dict[str, Array], Array]]
    log_density: Callable[[Mapping[str, Array], Mapping[str, float], int, Any], Array]


def shrinkage_row(rows: Sequence[PriorRow]) -> PriorRow | None:
    """Return the first of the rows whose prior is of all coefficients together, if there is one."""
    return next((row for row in rows if row.part == "fixed" and row.distribution.kind.joint and row.term != INTERCEPT), None)


def scaled_by_sigma(model: Model, distribution: Distribution) -> bool:
    """Whether the prior is in units of sigma: where it is to be, and the model has one sigma for all rows (as brms)."""
    given = dict(zip(distribution.kind.arguments, distribution.args, strict=True))
    own = any(parameter.name == "sigma" for parameter in model.family.parameters)
    return bool(given["autoscale"]) and own and "sigma" not in model.design.parameters


# --- Horseshoe ----------------------------------------------------------------------------------------------------------------


def _scale_global(given: Mapping[str, float], n: int) -> float:
    """Return the scale of the global parameter: that of the ratio of non-zero to zero coefficients, where it is given."""
    return given["par_ratio"] / float(np.sqrt(n)) if given["par_ratio"] else given["scale_global"]


def _horseshoe_pymc(given: Mapping[str, float], K: int, n: int, sigma: Any) -> Any:
    """Register `hs_global`, `hs_slab`, `hs_local` and the standard normals `beta_z`.

    With tau = hs_global and c^2 = scale_slab^2 hs_slab, a coefficient is
    z tau lambda c / sqrt(c^2 + tau^2 lambda^2): Piironen and Vehtari (2017), Electron. J. Stat. 11, 5018-5051.
    """
    import pymc as pm
    import pytensor.tensor as pt

    tau = pm.HalfStudentT("hs_global", nu=given["df_global"], sigma=_scale_global(given, n) * sigma)
    slab = pm.InverseGamma("hs_slab", alpha=0.5 * given["df_slab"], beta=0.5 * given["df_slab"])
    local = pm.HalfStudentT("hs_local", nu=given["df"], sigma=1.0, shape=K)
    z = pm.Normal("beta_z", 0.0, 1.0, shape=K)
    width = given["scale_slab"] * pt.sqrt(slab)
    return z * tau * local * width / pt.sqrt(width**2 + (tau * local) ** 2)


def _horseshoe_draw(
    rng: np.random.Generator, S: int, given: Mapping[str, float], K: int, n: int, sigma: Array
) -> tuple[dict[str, Array], Array]:
    tau = np.abs(rng.standard_t(given["df_global"], S)) * _scale_global(given, n) * sigma
    slab = 0.5 * given["df_slab"] / rng.gamma(0.5 * given["df_slab"], size=S)
    local = np.abs(rng.standard_t(given["df"], (S, K)))
    width = given["scale_slab"] * np.sqrt(slab)[:, None]
    reach = tau[:, None] * local
    beta = rng.standard_normal((S, K)) * reach * width / np.hypot(width, reach)
    return {"hs_global": tau, "hs_slab": slab}, beta


def _horseshoe_log_density(values: Mapping[str, Array], given: Mapping[str, float], n: int, sigma: Any) -> Array:
    scale = _scale_global(given, n) * np.asarray(sigma, dtype=float)
    unit = parse_distribution(f"student_t({given['df_global']!r}, 0, 1)")
    half = 0.5 * given["df_slab"]
    on_tau = log_density(unit, values["hs_global"] / scale, 0.0) - np.log(scale)
    return np.asarray(on_tau + log_density(parse_distribution(f"inv_gamma({half!r}, {half!r})"), values["hs_slab"], 0.0))


# --- R2D2 ---------------------------------------------------------------------------------------------------------------------


def _R2_prior(given: Mapping[str, float]) -> tuple[float, float]:
    return given["mean_R2"] * given["prec_R2"], (1.0 - given["mean_R2"]) * given["prec_R2"]


def _R2D2_pymc(given: Mapping[str, float], K: int, n: int, sigma: Any) -> Any:
    """Register `R2D2_R2`, the shares `R2D2_phi` (where K > 1) and the standard normals `beta_z`.

    A coefficient is z sigma sqrt(phi R2 / (1 - R2)): Zhang, Naughton, Bondell and Reich (2022), JASA 117, 862-874, in brms's form.
    """
    import pymc as pm
    import pytensor.tensor as pt

    a, b = _R2_prior(given)
    R2 = pm.Beta("R2D2_R2", alpha=a, beta=b)
    phi = pm.Dirichlet("R2D2_phi", a=np.full(K, given["cons_D2"])) if K > 1 else np.ones(1)
    z = pm.Normal("beta_z", 0.0, 1.0, shape=K)
    return z * sigma * pt.sqrt(phi * R2 / (1.0 - R2))


def _R2D2_draw(
    rng: np.random.Generator, S: int, given: Mapping[str, float], K: int, n: int, sigma: Array
) -> tuple[dict[str, Array], Array]:
    R2 = rng.beta(*_R2_prior(given), size=S)
    phi = rng.dirichlet(np.full(K, given["cons_D2"]), size=S)
    odds = R2 / np.maximum(1.0 - R2, np.finfo(float).tiny)
    return {"R2D2_R2": R2}, rng.standard_normal((S, K)) * (sigma * np.sqrt(odds))[:, None] * np.sqrt(phi)


def _R2D2_log_density(values: Mapping[str, Array], given: Mapping[str, float], n: int, sigma: Any) -> Array:
    a, b = _R2_prior(given)
    return log_density(parse_distribution(f"beta({a!r}, {b!r})"), values["R2D2_R2"], 0.0, 1.0)


SHRINKAGE: Mapping[str, Shrinkage] = MappingProxyType(
    {
        "horseshoe": Shrinkage(
            variables=("hs_global", "hs_slab"), pymc=_horseshoe_pymc, draw=_horseshoe_draw, log_density=_horseshoe_log_density
        ),
        "R2D2": Shrinkage(variables=("R2D2_R2",), pymc=_R2D2_pymc, draw=_R2D2_draw, log_density=_R2D2_log_density),
    }
)
"""Distribution's name -> what it is as a prior of all coefficients."""
