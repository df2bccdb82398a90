"""The sampler's checks, by ArviZ: R-hat, effective sample sizes, divergences, tree depth, E-BFMI; `CHECKS` lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayeslmm.fit import Check, Diagnostics

__all__ = ["CHECKS", "Evidence", "convergence", "diagnose", "quick_problem", "scalar_draws"]

type Array = np.ndarray

RHAT_LIMIT = 1.01
ESS_PER_CHAIN = 100
BFMI_LIMIT = 0.3
DEPTH_LIMIT = 0.01
_MANY = 2000
"""Random effects beyond this number are checked at regularly spaced ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the checks look at: draws of each scalar parameter (name -> (chains, draws)), their statistics, the sampler's own."""

    names: tuple[str, ...]
    rhat: Array
    ess_bulk: Array
    ess_tail: Array
    chains: int
    stats: Any


def scalar_draws(posterior: Any, *, random: bool) -> dict[str, Array]:
    """Return name -> (chains, draws) of every scalar parameter; of correlation matrices the lower triangle only.

    `random` asks for the random effects `r_` too.
    """
    found: dict[str, Array] = {}
    for name, variable in posterior.data_vars.items():
        if str(name).startswith("r_") and not random:
            continue
        values = variable.transpose("chain", "draw", ...)
        labels = [variable[dim].values if dim in variable.coords else np.arange(variable.sizes[dim]) for dim in values.dims[2:]]
        for position in np.ndindex(*values.shape[2:]):
            if str(name).startswith("cor_") and position[0] <= position[1]:
                continue
            label = ", ".join(str(labels[axis][i]) for axis, i in enumerate(position))
            found[f"{name}[{label}]" if label else str(name)] = values.values[(slice(None), slice(None), *position)]
    return found


def convergence(draws: Array) -> tuple[Array, Array, Array]:
    """Return rank R-hat, bulk ESS and tail ESS of draws (parameters, chains, draws); NaN where a parameter never moves.

    Source: Vehtari, Gelman, Simpson, Carpenter and Bürkner (2021), Bayesian Analysis 16, as implemented by ArviZ.
    """
    array_stats = _array_stats()
    shape = (len(draws),)
    rhat, bulk, tail = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    if not len(draws) or draws.shape[2] < 4:
        return rhat, bulk, tail
    moving = np.array([np.ptp(one) > 1e-12 * max(1.0, float(np.max(np.abs(one)))) and bool(np.all(np.isfinite(one))) for one in draws])
    if np.any(moving):
        if draws.shape[1] > 1:
            rhat[moving] = array_stats.rhat(draws[moving], chain_axis=1, draw_axis=2)
        bulk[moving] = array_stats.ess(draws[moving], chain_axis=1, draw_axis=2, method="bulk")
        tail[moving] = array_stats.ess(draws[moving], chain_axis=1, draw_axis=2, method="tail", prob=(0.05, 0.95))
    return rhat, bulk, tail


def _array_stats() -> Any:
    """Return ArviZ's statistics on arrays, which are not annotated."""
    import arviz_stats.base

    return vars(arviz_stats.base)["array_stats"]


def _rhat(evidence: Evidence) -> Check:
    worst, name = _worst(evidence.rhat, evidence.names, largest=True)
    if evidence.chains == 1:
        meaning = "one chain: whether chains agree cannot be seen"
        return Check(
            code="rhat", value=np.nan, limit=RHAT_LIMIT, passed=False, meaning=meaning, remedy="sample four chains", severity="note"
        )
    return Check(
        code="rhat",
        value=worst,
        limit=RHAT_LIMIT,
        passed=bool(worst < RHAT_LIMIT),
        meaning="the chains agree" if worst < RHAT_LIMIT else f"the chains have not mixed (worst: {name})",
        remedy="double tune and draws; if it persists, simplify the random effects or use stronger priors",
    )


def _ess(evidence: Evidence, code: str, values: Array, what: str) -> Check:
    worst, name = _worst(values, evidence.names, largest=False)
    limit = float(ESS_PER_CHAIN * evidence.chains)
    return Check(
        code=code,
        value=worst,
        limit=limit,
        passed=bool(worst >= limit),
        meaning=f"{what} rest on enough draws" if worst >= limit else f"too few independent draws for {what} (worst: {name})",
        remedy="raise draws",
    )


def _ess_bulk(evidence: Evidence) -> Check:
    return _ess(evidence, "ess_bulk", evidence.ess_bulk, "means")


def _ess_tail(evidence: Evidence) -> Check:
    return _ess(evidence, "ess_tail", evidence.ess_tail, "interval ends")


def _divergences(evidence: Evidence) -> Check:
    count = float(np.sum(evidence.stats["diverging"].values)) if "diverging" in evidence.stats else np.nan
    return Check(
        code="divergences",
        value=count,
        limit=0.0,
        passed=not count > 0,
        meaning="no divergent transition"
        if not count > 0
        else f"{count:.0f} divergent transitions: parts of the posterior were not reached",
        remedy="set target_accept=0.95 or 0.99; if they persist, use stronger priors on the standard deviations",
    )


def _tree_depth(evidence: Evidence) -> Check:
    names = [name for name in ("maxdepth_reached", "reached_max_treedepth") if name in evidence.stats]
    share = float(np.mean(evidence.stats[names[0]].values)) if names else np.nan
    return Check(
        code="tree_depth",
        value=share,
        limit=DEPTH_LIMIT,
        passed=not share > DEPTH_LIMIT,
        meaning="trajectories end by themselves"
        if not share > DEPTH_LIMIT
        else f"{share:.0%} of trajectories were cut at the greatest depth",
        remedy="a matter of speed, not of validity: rescale or centre predictors",
        severity="note",
    )


def _ebfmi(evidence: Evidence) -> Check:
    worst = np.nan
    if "energy" in evidence.stats:
        energy = evidence.stats["energy"].transpose("chain", "draw").values
        if np.all(np.isfinite(energy)) and energy.shape[1] > 2:
            worst = float(np.min(_array_stats().bfmi(energy)))
    return Check(
        code="ebfmi",
        value=worst,
        limit=BFMI_LIMIT,
        passed=not worst <= BFMI_LIMIT,
        meaning="energies are explored well" if not worst <= BFMI_LIMIT else "heavy tails are explored slowly (low E-BFMI)",
        remedy="tune longer; use priors with lighter tails",
    )


CHECKS: tuple[Callable[[Evidence], Check], ...] = (_rhat, _ess_bulk, _ess_tail, _divergences, _tree_depth, _ebfmi)
"""Every check of a posterior: a function of `Evidence`, in the order of the print-out."""


def _worst(values: Array, names: tuple[str, ...], *, largest: bool) -> tuple[float, str]:
    """Return the worst value and its parameter; NaN where there is none."""
    if not len(values) or np.all(np.isnan(values)):
        return np.nan, ""
    at = int(np.nanargmax(values) if largest else np.nanargmin(values))
    return float(values[at]), names[at]


def gather(tree: Any, *, random: bool = True) -> Evidence:
    """Return the evidence of a fit's tree; of more than 2000 random effects, regularly spaced ones."""
    posterior = tree["posterior"].to_dataset()
    draws = scalar_draws(posterior, random=False)
    if random:
        effects = {name: values for name, values in scalar_draws(posterior, random=True).items() if name not in draws}
        step = max(1, -(-len(effects) // _MANY))
        draws |= dict(list(effects.items())[::step])
    rhat, bulk, tail = convergence(np.stack(list(draws.values())))
    stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree else {}
    return Evidence(names=tuple(draws), rhat=rhat, ess_bulk=bulk, ess_tail=tail, chains=posterior.sizes["chain"], stats=stats)


def diagnose(tree: Any) -> Diagnostics:
    """Return all checks of a fit's tree."""
    evidence = gather(tree)
    return Diagnostics(checks=tuple(check(evidence) for check in CHECKS))


def quick_problem(tree: Any) -> tuple[str, str] | None:
    """Return code and message of the first failed check of the main parameters, for a warning after sampling."""
    evidence = gather(tree, random=False)
    for make in CHECKS:
        check = make(evidence)
        if not check.passed and check.severity == "error":
            return check.code, f"{check.meaning}; {check.remedy}; `.diagnose()` lists all checks"
    return None
