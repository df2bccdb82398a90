"""`confint`: intervals of all parameters of a fit, by Wald, profile likelihood or bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import norm

from bayeslmm.classical.bootstrap import bootstrap
from bayeslmm.classical.parameters import check_level, chosen, estimates_of
from bayeslmm.classical.profile import profile_limits, profile_note
from bayeslmm.errors import FitError, suggest

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit

__all__ = ["confint"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What was asked for; `names`: the parameters, in order."""

    level: float
    names: tuple[str, ...]
    n: int
    seed: int | None


def confint(
    fit: ClassicalFit,
    method: str = "wald",
    level: float = 0.95,
    parameters: Sequence[str] | str | None = None,
    n: int = 1000,
    seed: int | None = None,
) -> pd.DataFrame:
    """Return confidence intervals of a fit's parameters.

    Parameters
    ----------
    fit
        What `lmer` or `glmer` returned, penalised fits included.
    method
        `wald`: estimate +- normal quantile times standard error, for coefficients, and for the residual structure (of `ar` on its
        link's scale); NaN for other variance parameters, as in lme4;
        `profile`: profile likelihood, by maximum likelihood also for a REML fit, each limit found exactly; a limit that the data
        do not reach is the parameter's bound, and infinite for a coefficient that the data separate; `boot`: percentiles of `n`
        parametric replicates.
    level
        Nominal coverage.
    parameters
        Names of some of the parameters.
    n, seed
        Of the bootstrap.

    Returns
    -------
    DataFrame
        Columns `lower, upper`; rows `sd_(Intercept)|Subject`, `cor_Days.(Intercept)|Subject`, `sigma`, then coefficients.
        `attrs["note"]` says how they were found, and counts failed and singular replicates.

    Raises
    ------
    FitError
        For an unknown method or parameter, a level outside 0 to 1, or where the profile or all replicates fail.

    Source: Bates, Maechler, Bolker & Walker (2015), J. Stat. Softw. 67(1), section 5.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> bl.confint(fit, "profile", parameters="Days").round(2).loc["Days"].tolist()
    [7.36, 13.58]
    """
    if method not in _METHODS:
        raise FitError(f"unknown method {method!r}{suggest(str(method), list(_METHODS))} (methods: {', '.join(_METHODS)})")
    names = chosen([str(name) for name in estimates_of(fit).index], parameters)
    table, note = _METHODS[method](fit, _Request(level=check_level(level), names=names, n=n, seed=seed))
    table.attrs.update({"method": method, "level": level, "note": note})
    return table


def _wald(fit: ClassicalFit, request: _Request) -> tuple[pd.DataFrame, str]:
    z = float(norm.ppf(0.5 + request.level / 2.0))
    table = pd.DataFrame(np.nan, index=list(estimates_of(fit).index), columns=["lower", "upper"])
    errors = fit.standard_errors
    table.loc[list(fit.model.design.fixed_names)] = np.column_stack([fit.beta - z * errors, fit.beta + z * errors])
    for name, part in fit.further.items():
        ends = [part.beta - z * part.standard_errors, part.beta + z * part.standard_errors]
        rows = [f"{name}_{term}" for term in part.names] or [name]
        table.loc[rows] = np.column_stack(ends if part.names else [part.natural(end) for end in ends])
    return table.loc[list(request.names)], "normal approximation; none for standard deviations and correlations of random effects"


def _profile(fit: ClassicalFit, request: _Request) -> tuple[pd.DataFrame, str]:
    return profile_limits(fit, request.level, request.names), profile_note(fit)


def _boot(fit: ClassicalFit, request: _Request) -> tuple[pd.DataFrame, str]:
    found = bootstrap(fit, n=request.n, seed=request.seed)
    counts = found.counts
    note = (
        f"percentiles of {counts['replicates']} parametric replicates, {counts['singular']} singular (kept), "
        f"{counts['failed']} failed; seed {found.entropy}"
    )
    return found.intervals(level=request.level, parameters=request.names), note


_METHODS: dict[str, Callable[[ClassicalFit, _Request], tuple[pd.DataFrame, str]]] = {
    "wald": _wald,
    "profile": _profile,
    "boot": _boot,
}
