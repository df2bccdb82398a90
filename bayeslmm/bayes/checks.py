"""The checks of a posterior, by ArviZ: of its draws and the sampler (`CHECKS`), of a fit's data and priors (`FIT_CHECKS`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.fit import Check, Diagnostics

if TYPE_CHECKING:
    from bayeslmm.bayes.fit import BayesFit

__all__ = [
    "CHECKS",
    "FIT_CHECKS",
    "Evidence",
    "array_stats",
    "convergence",
    "diagnose",
    "fit_checks",
    "gather",
    "quick_problem",
    "scalar_draws",
]

type Array = np.ndarray

RHAT_LIMIT = 1.01
ESS_PER_CHAIN = 100
BFMI_LIMIT = 0.3
DEPTH_LIMIT = 0.01
MCSE_LIMIT = 0.1
"""Of a mean, in posterior standard deviations: it adds half a per cent to the uncertainty."""
MCSE_END_LIMIT = 0.25
"""Of an end of the 95 % interval, in posterior standard deviations: what 100 independent draws of a normal posterior have."""
KHAT_LIMIT = 0.7
FEWEST_WEIGHTED = 100
"""Draws below which importance weights are not worth a look."""
_MANY = 2000
"""Random effects beyond this number are checked at regularly spaced ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the checks look at: the statistics of each scalar parameter, the sampler's own, and what went otherwise than asked.

    `names`: of all parameters, to `rhat`, `ess_bulk`, `ess_tail`; those that are not random effects come first, and `mcse_mean` and
    `mcse_end` (the worse end of the 95 % interval), in posterior standard deviations, are of them. `notes`: code -> sentence, as
    `attempts.Sampled` has them.
    """

    names: tuple[str, ...]
    rhat: Array
    ess_bulk: Array
    ess_tail: Array
    mcse_mean: Array
    mcse_end: Array
    chains: int
    stats: Any
    notes: Mapping[str, str] = field(default_factory=dict)


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
    statistics = array_stats()
    shape = (len(draws),)
    rhat, bulk, tail = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan)
    moving = _moving(draws)
    if np.any(moving):
        if draws.shape[1] > 1:
            rhat[moving] = statistics.rhat(draws[moving], chain_axis=1, draw_axis=2)
        bulk[moving] = statistics.ess(draws[moving], chain_axis=1, draw_axis=2, method="bulk")
        tail[moving] = statistics.ess(draws[moving], chain_axis=1, draw_axis=2, method="tail", prob=(0.05, 0.95))
    return rhat, bulk, tail


def monte_carlo_errors(draws: Array) -> tuple[Array, Array]:
    """Return the Monte-Carlo standard errors of the mean and of the worse end of the 95 % interval, in posterior standard deviations.

    `draws`: (parameters, chains, draws); NaN where a parameter never moves. Source: as of `convergence`.
    """
    statistics = array_stats()
    mean, end = np.full(len(draws), np.nan), np.full(len(draws), np.nan)
    moving = _moving(draws)
    if np.any(moving):
        own = draws[moving]
        spread = own.std(axis=(1, 2), ddof=1)
        mean[moving] = statistics.mcse(own, chain_axis=1, draw_axis=2, method="mean") / spread
        ends = [statistics.mcse(own, chain_axis=1, draw_axis=2, method="quantile", prob=prob) for prob in (0.025, 0.975)]
        end[moving] = np.maximum(*ends) / spread
    return mean, end


def _moving(draws: Array) -> Array:
    """Return which parameters (parameters, chains, draws) have enough draws, all finite and not all the same."""
    if not len(draws) or draws.shape[2] < 4:
        return np.zeros(len(draws), dtype=bool)
    return np.array([np.ptp(one) > 1e-12 * max(1.0, float(np.max(np.abs(one)))) and bool(np.all(np.isfinite(one))) for one in draws])


def array_stats() -> Any:
    """Return ArviZ's statistics on arrays, which are not annotated."""
    import arviz_stats.base

    return vars(arviz_stats.base)["array_stats"]


def _interrupted(evidence: Evidence) -> Check | None:
    if "interrupted" not in evidence.notes:
        return None
    return Check(
        code="interrupted",
        value=1.0,
        limit=0.0,
        passed=False,
        meaning=f"sampling was interrupted: {evidence.notes['interrupted']}",
        remedy="fit again and let it end; fewer draws end sooner",
    )


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
        meaning="the chains agree" if worst < RHAT_LIMIT else f"the chains have not mixed{_of(name)}",
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
        meaning=f"{what} rest on enough draws" if worst >= limit else f"too few independent draws for {what}{_of(name)}",
        remedy="raise draws",
    )


def _ess_bulk(evidence: Evidence) -> Check:
    return _ess(evidence, "ess_bulk", evidence.ess_bulk, "means")


def _ess_tail(evidence: Evidence) -> Check:
    return _ess(evidence, "ess_tail", evidence.ess_tail, "interval ends")


def _mcse(code: str, values: Array, names: tuple[str, ...], limit: float, what: str) -> Check:
    worst, name = _worst(values, names, largest=True)
    return Check(
        code=code,
        value=worst,
        limit=limit,
        passed=not worst > limit,
        meaning=f"Monte-Carlo error hardly moves {what}"
        if not worst > limit
        else f"another seed would move {what} by about {worst:.2f} posterior SDs (worst: {name})",
        remedy="raise draws, or report fewer digits",
        severity="note",
    )


def _mcse_mean(evidence: Evidence) -> Check:
    return _mcse("mcse_mean", evidence.mcse_mean, evidence.names, MCSE_LIMIT, "means")


def _mcse_end(evidence: Evidence) -> Check:
    return _mcse("mcse_interval", evidence.mcse_end, evidence.names, MCSE_END_LIMIT, "interval ends")


def _divergences(evidence: Evidence) -> Check:
    count = float(np.sum(evidence.stats["diverging"].values)) if "diverging" in evidence.stats else np.nan
    retried = "retry" in evidence.notes
    accept = "target_accept=0.999" if retried else "target_accept=0.95 or 0.99"
    return Check(
        code="divergences",
        value=count,
        limit=0.0,
        passed=not count > 0,
        meaning=("no divergent transition" + " in the second attempt" * retried)
        if not count > 0
        else f"{count:.0f} divergent transitions{' after a second attempt' * retried}: parts of the posterior were not reached",
        remedy=f"set {accept}; if they persist, use stronger priors on the standard deviations",
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
            worst = float(np.min(array_stats().bfmi(energy)))
    return Check(
        code="ebfmi",
        value=worst,
        limit=BFMI_LIMIT,
        passed=not worst <= BFMI_LIMIT,
        meaning="energies are explored well" if not worst <= BFMI_LIMIT else "heavy tails are explored slowly (low E-BFMI)",
        remedy="tune longer; use priors with lighter tails",
    )


CHECKS: tuple[Callable[[Evidence], Check | None], ...] = (
    _interrupted, _rhat, _ess_bulk, _ess_tail, _mcse_mean, _mcse_end, _divergences, _tree_depth, _ebfmi,
)  # fmt: skip
"""Every check of draws and sampler: a function of `Evidence`, None where there is nothing to say, in the order of the print-out."""


def _worst(values: Array, names: tuple[str, ...], *, largest: bool) -> tuple[float, str]:
    """Return the worst value and its parameter; NaN where there is none."""
    if not len(values) or np.all(np.isnan(values)):
        return np.nan, ""
    at = int(np.nanargmax(values) if largest else np.nanargmin(values))
    return float(values[at]), names[at]


def _of(name: str) -> str:
    return f" (worst: {name})" if name else ""


def gather(tree: Any, notes: Mapping[str, str] | None = None, *, random: bool = True) -> Evidence:
    """Return the evidence of a fit's tree; of more than 2000 random effects, regularly spaced ones."""
    posterior = tree["posterior"].to_dataset()
    draws = scalar_draws(posterior, random=False)
    main = len(draws)
    if random:
        effects = {name: values for name, values in scalar_draws(posterior, random=True).items() if name not in draws}
        step = max(1, -(-len(effects) // _MANY))
        draws |= dict(list(effects.items())[::step])
    every = np.stack(list(draws.values()))
    rhat, bulk, tail = convergence(every)
    mean, end = monte_carlo_errors(every[:main])
    return Evidence(
        names=tuple(draws),
        rhat=rhat,
        ess_bulk=bulk,
        ess_tail=tail,
        mcse_mean=mean,
        mcse_end=end,
        chains=posterior.sizes["chain"],
        stats=tree["sample_stats"].to_dataset() if "sample_stats" in tree else {},
        notes=notes or {},
    )


def diagnose(tree: Any, notes: Mapping[str, str] | None = None) -> Diagnostics:
    """Return all checks of a fit's tree; `notes`: what went otherwise than asked, as `attempts.Sampled` has them."""
    evidence = gather(tree, notes)
    return Diagnostics(checks=tuple(check for make in CHECKS if (check := make(evidence)) is not None))


def quick_problem(tree: Any, notes: Mapping[str, str] | None = None) -> tuple[str, str] | None:
    """Return code and message of the first failed check of the main parameters, for a warning after sampling."""
    evidence = gather(tree, notes, random=False)
    for make in CHECKS:
        check = make(evidence)
        if check is not None and not check.passed and check.severity == "error":
            return check.code, f"{check.meaning}; {check.remedy}; `.diagnose()` lists all checks"
    return None


# --- Checks of a fit ----------------------------------------------------------------------------------------------------------


def fit_checks(fit: BayesFit) -> tuple[Check, ...]:
    """Return the checks of a posterior against its data and priors."""
    found = (_weighed(check, fit) for check in FIT_CHECKS)
    return tuple(check for check in found if check is not None)


def _weighed(check: Callable[[BayesFit], Check | None], fit: BayesFit) -> Check | None:
    """Return a check; None where ArviZ cannot smooth its weights, the largest of which are all the same."""
    try:
        return check(fit)
    except ValueError as failure:
        if "tail values" not in str(failure):
            raise
        return None


def _has_densities(fit: BayesFit) -> bool:
    return "log_likelihood" in fit.tree and fit.draws().n_draws >= FEWEST_WEIGHTED


def _khat(fit: BayesFit) -> Check | None:
    """Rows whose absence would change the posterior so much that importance weights cannot say how; where their densities are kept."""
    from bayeslmm.bayes.loo import khat

    if not _has_densities(fit):
        return None
    k = khat(fit)
    limit = min(1.0 - 1.0 / np.log10(fit.draws().n_draws), KHAT_LIMIT)
    high = int(np.sum(~(k <= limit)))
    at = int(np.argmax(np.where(np.isnan(k), np.inf, k)))
    return Check(
        code="khat",
        value=float(k[at]),
        limit=float(limit),
        passed=not high,
        meaning="no single row decides the posterior"
        if not high
        else f"{high} of {len(k)} rows shift the posterior of their groups so much that `loo` cannot leave them out (worst: "
        f"row {fit.model.design.index[at]})",
        remedy="compare models by loo(fit, kind='marginal') or kfold(fit); look at these rows",
        severity="note",
    )


def _prior_conflict(fit: BayesFit) -> Check | None:
    """Parameters that a little more of the prior moves one way, and a little more of the data another; where densities are kept."""
    from bayeslmm.bayes.sensitivity import SENSITIVE, conflict_sentence, prior_sensitivity

    if not _has_densities(fit):
        return None
    found = prior_sensitivity(fit)
    both = np.fmin(found["prior"].to_numpy(dtype=float), found["likelihood"].to_numpy(dtype=float))
    worst, _ = _worst(both, tuple(found.index), largest=True)
    said = conflict_sentence(found)
    return Check(
        code="prior_conflict",
        value=worst,
        limit=SENSITIVE,
        passed=not said,
        meaning=said or "priors and data do not pull in different directions",
        remedy="see prior_sensitivity(fit); state priors of your own where the defaults do not say what you know",
        severity="note",
    )


FIT_CHECKS: tuple[Callable[[BayesFit], Check | None], ...] = (_khat, _prior_conflict)
"""Every check of a posterior against its data and priors: a function of a fit, None where it does not apply."""
