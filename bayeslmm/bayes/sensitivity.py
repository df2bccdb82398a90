"""Sensitivity of a posterior to its priors and to the data, by power-scaling them (ArviZ): where the two are in conflict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.bayes.fit import BayesFit, log_likelihood
from bayeslmm.bayes.prior_density import log_prior
from bayeslmm.bayes.summary import Quantity, quantities
from bayeslmm.errors import FitError, PriorError, suggest

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["CONFLICT", "SENSITIVE", "STRONG_PRIOR", "conflict_sentence", "prior_sensitivity"]

type Array = np.ndarray

SENSITIVE = 0.05
"""From here on a sensitivity counts, as in the paper and in ArviZ."""
CONFLICT, STRONG_PRIOR, NONE = "potential prior-data conflict", "potential strong prior / weak likelihood", "✓"


def prior_sensitivity(fit: BayesFit, *, priors: Sequence[str] | None = None, threshold: float = SENSITIVE) -> pd.DataFrame:
    """Return how sensitive each parameter's posterior is to the power of the priors, and to that of the likelihood.

    The posterior is weighted, by Pareto-smoothed importance sampling, to what it would be were the prior (then the likelihood)
    raised to the powers 0.99 and 1.01; the sensitivity is the distance between these posteriors per doubling of the power. Scaled are
    the top-level priors: coefficients, standard deviations, correlations, further parameters; not the normal distribution of the
    random effects, which is part of the model. The likelihood is that of the rows given the random effects; it bears on a coefficient
    that is constant within groups only through these, so that a conflict there can show as a strong prior.

    Parameters
    ----------
    fit
        A posterior, made by `brm`.
    priors
        The priors that are scaled, by their keys in `bayes.prior_density.log_prior` (`fixed/Days`, `sd/Subject/Days`,
        `aux/sigma`) or their parts (`fixed`, `sd`); default: all.
    threshold
        From here on a sensitivity counts.

    Returns
    -------
    DataFrame
        Indexed by `parameter`, named as by `confint` (`Days`, `sd_Days|Subject`, `sigma`), with columns `prior`, `likelihood` (the
        sensitivities; of a constant parameter NaN) and `diagnosis`: `"potential prior-data conflict"` (both count),
        `"potential strong prior / weak likelihood"` (only the prior's), or a tick.

    Raises
    ------
    FitError
        If the fit is no posterior, or the threshold not positive.
    PriorError
        If a prior is named that the model has not.

    Source: Kallioinen, Paananen, Bürkner and Vehtari (2024), Statistics and Computing 34, 57.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> off = [bl.prior("normal(1400, 20)", part="intercept")]
    >>> fit = bl.brm("Yield ~ 1", bl.load_dataset("Dyestuff"), priors=off, chains=2, draws=500, seed=1)
    >>> bl.prior_sensitivity(fit).loc["(Intercept)", "diagnosis"]
    'potential prior-data conflict'
    """
    if not isinstance(fit, BayesFit):
        raise FitError(f"prior_sensitivity is of a posterior; fit with `brm`, which {type(fit).__name__} is not made by")
    if not threshold > 0.0:
        raise FitError(f"threshold must be above 0, not {threshold!r}")
    rows = quantities(fit.model, fit.tree["posterior"].to_dataset())
    names = [_named(row) for row in rows]
    draws = np.stack([row.draws for row in rows], axis=-1)
    moving = np.ptp(draws, axis=(0, 1)) > 0.0
    powers = {"prior": sum(_chosen(log_prior(fit), priors).values()), "likelihood": log_likelihood(fit).sum(axis=-1)}
    columns: dict[str, Array] = {}
    for name, values in powers.items():
        columns[name] = np.full(len(rows), np.nan)
        columns[name][moving] = _sensitivity(draws[:, :, moving], np.broadcast_to(np.asarray(values, dtype=float), draws.shape[:2]))
    frame = pd.DataFrame(columns, index=pd.Index(names, name="parameter"))
    return frame.assign(diagnosis=[_diagnosis(*pair, threshold) for pair in zip(frame["prior"], frame["likelihood"], strict=True)])


def conflict_sentence(frame: pd.DataFrame) -> str:
    """Return what a frame of `prior_sensitivity` says of conflicts between priors and data, in a sentence; empty where there is none."""
    named = list(frame.index[frame["diagnosis"] == CONFLICT])
    if not named:
        return ""
    return (
        f"priors and data pull {', '.join(map(str, named[:5]))}{' and others' if len(named) > 5 else ''} in different directions: "
        "look at these priors, and report what another choice gives"
    )


def _chosen(densities: Mapping[str, Array], priors: Sequence[str] | None) -> dict[str, Array]:
    """Return the densities of the named priors or parts."""
    if priors is None:
        return dict(densities)
    wanted = [priors] if isinstance(priors, str) else list(priors)
    found: dict[str, Array] = {}
    for name in wanted:
        own = {key: values for key, values in densities.items() if key == name or key.startswith(f"{name}/")}
        if not own:
            raise PriorError(f"the model has no prior '{name}'{suggest(str(name), list(densities))}")
        found |= own
    return found


def _sensitivity(draws: Array, log_density: Array) -> Array:
    """Return the sensitivity of each parameter, draws (chain, draw, parameter), to the power of a density (chain, draw)."""
    if np.ptp(log_density) == 0.0:
        return np.zeros(draws.shape[-1])
    import xarray as xr

    coords = {"chain": np.arange(draws.shape[0]), "draw": np.arange(draws.shape[1]), "parameter": np.arange(draws.shape[2])}
    tree = xr.DataTree.from_dict(
        {
            "posterior": xr.Dataset({"parameter_draws": (("chain", "draw", "parameter"), draws)}, coords=coords),
            "log_prior": xr.Dataset({"power": (("chain", "draw"), log_density)}),
        }
    )
    found = _arviz().psense(tree, group="prior", sample_dims=["chain", "draw"])
    return np.asarray(found["parameter_draws"].values, dtype=float)


def _arviz() -> ModuleType:
    """Return `arviz_stats`, which takes a second to import."""
    import arviz_stats

    return arviz_stats


def _diagnosis(prior: float, likelihood: float, threshold: float) -> str:
    if prior >= threshold and likelihood >= threshold:
        return CONFLICT
    return STRONG_PRIOR if prior >= threshold else NONE


def _named(row: Quantity) -> str:
    """Return a parameter's name as `confint` has it."""
    prefix = f"{row.part}_" if row.part in ("sd", "cor") else ""
    return f"{prefix}{row.term}{f'|{row.group}' if row.group else ''}"
