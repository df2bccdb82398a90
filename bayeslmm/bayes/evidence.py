"""Evidence for models: marginal likelihoods by bridge sampling and the Bayes factor of two fits, with their Monte-Carlo errors."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes import collapsed
from bayeslmm.bayes import joint_density as joint
from bayeslmm.bayes.bridge import METHODS, Bridge, bridge
from bayeslmm.bayes.fit import BayesFit
from bayeslmm.bayes.samplers import available_cores
from bayeslmm.errors import ConvergenceWarning, DataError, FitError, PriorError, suggest

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.model import Model

__all__ = ["DENSITIES", "bayes_factor", "marginal_likelihood"]

type Array = np.ndarray

_FEW_PER_DIMENSION = 20
_FEWEST = 2000
_LARGE_ERROR = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """How a model's density on the real line is evaluated.

    `limit`: why it cannot be, None where it can; `points`: model and posterior to the draws' points (chains, draws, d); `make`: a function
    of points (m, d) to log densities (m,).
    """

    name: str
    limit: Callable[[Model], str | None]
    points: Callable[[Model, Any], Array]
    make: Callable[[Model], Callable[[Array], Array]]


def _collapsed(model: Model) -> Callable[[Array], Array]:
    """Return the density without random effects, points dealt out to threads."""
    from threadpoolctl import threadpool_limits

    from bayeslmm.bayes.collapsed_density import density_of, evaluator

    density, threads = density_of(model), available_cores()
    evaluators = [evaluator(density) for _ in range(threads)]

    def some(which: int, u: Array) -> list[float]:
        return [evaluators[which](one)[0] for one in u]

    def log_density(u: Array) -> Array:
        with threadpool_limits(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool, np.errstate(all="ignore"):
            return np.concatenate(list(pool.map(some, range(threads), np.array_split(np.ascontiguousarray(u), threads))))

    return log_density


def _joint(model: Model) -> Callable[[Array], Array]:
    layout = joint.layout_of(model)
    return lambda u: joint.log_joint(layout, u)


DENSITIES: tuple[Target, ...] = (
    Target(
        name="collapsed",
        limit=collapsed.limit,
        points=lambda model, posterior: joint.points(joint.layout_of(model), posterior, random=False),
        make=_collapsed,
    ),
    Target(
        name="joint",
        limit=joint.limit,
        points=lambda model, posterior: joint.points(joint.layout_of(model), posterior, random=True),
        make=_joint,
    ),
)
"""The densities that bridge sampling can take: of a model the first that applies. `collapsed`: random effects integrated out."""


def marginal_likelihood(fit: BayesFit, *, method: str = "warp3", seed: int | None = None) -> pd.DataFrame:
    """Return the marginal likelihood of a model, the density of its data averaged over the priors, by bridge sampling.

    Random effects of Gaussian models are integrated out exactly first, those of others are part of the sampling. Four chains of 1000
    draws do for few parameters; with many random effects in a generalised model take several thousand each.

    Parameters
    ----------
    fit
        What `brm` returned. All its priors must be proper.
    method
        `"warp3"` (Gronau, Singmann & Wagenmakers 2020), good for skewed posteriors too, or `"normal"` (half the evaluations).
    seed
        Of the proposals.

    Returns
    -------
    DataFrame
        One row: `model, log_marginal, error_percent, method, density, n_draws, n_effective`. `error_percent`: relative root mean squared
        Monte-Carlo error of the marginal likelihood itself (Frühwirth-Schnatter 2004), or what its two halves of the draws differ by where
        that is more. `density`: `collapsed` or `joint`, whether random effects were integrated out.

    Raises
    ------
    FitError
        If the fit is not a posterior, has a prior that is not among those known here, or too few draws.
    PriorError
        If a prior is improper; the message lists which.

    Warns
    -----
    ConvergenceWarning
        `few_draws_for_evidence`, `large_evidence_error` (more than 5 %).

    Source: Meng & Wong (1996), Statistica Sinica 6; Gronau et al. (2017), J. Math. Psych. 81; Frühwirth-Schnatter (2004),
    Econometrics Journal 7.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.brm("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"), seed=1, progressbar=False)
    >>> bl.marginal_likelihood(fit, seed=1)["log_marginal"].round(0).tolist()
    [-168.0]
    """
    import pandas as pd

    target, found = _evidence(fit, method, seed)
    row = {
        "model": str(fit.model.formula),
        "log_marginal": found.log_integral,
        "error_percent": 100.0 * found.error,
        "method": found.method,
        "density": target.name,
        "n_draws": found.n_draws,
        "n_effective": found.n_effective,
    }
    return pd.DataFrame([row])


def bayes_factor(f1: BayesFit, f2: BayesFit, *, method: str = "warp3", seed: int | None = None) -> pd.DataFrame:
    """Return the Bayes factor of two models of the same response, by bridge sampling.

    It is the ratio of the marginal likelihoods: how many times as probable the data are under the first model as under the second,
    averaged over each one's priors. It depends on the priors, and on their widths in particular, whatever the number of rows: state
    them, and vary them.

    Parameters
    ----------
    f1, f2
        What `brm` returned for the two models, on the same rows and the same response. All priors must be proper.
    method, seed
        As for `marginal_likelihood`.

    Returns
    -------
    DataFrame
        One row: `numerator, denominator, bf, log_bf, error_percent, log_marginal_numerator, log_marginal_denominator,
        posterior_probability` (of the first model, were both equally probable beforehand) and a `sentence` to report.
        `error_percent`: relative Monte-Carlo error of `bf`.

    Raises
    ------
    DataError
        If the responses differ.
    FitError, PriorError
        As `marginal_likelihood` does.

    Source: Kass & Raftery (1995), J. Am. Stat. Assoc. 90; Gronau et al. (2017), J. Math. Psych. 81.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> data = bl.load_dataset("sleepstudy")
    >>> slopes = bl.brm("Reaction ~ Days + (Days | Subject)", data, seed=1, progressbar=False)
    >>> none = bl.brm("Reaction ~ Days + (1 | Subject)", data, seed=1, progressbar=False)
    >>> bl.bayes_factor(slopes, none, seed=1)["log_bf"].round(0).tolist()
    [18.0]
    """
    import pandas as pd

    for fit in (f1, f2):
        _check_posterior(fit)
    _check_same_response(f1.model, f2.model)
    found = [_evidence(fit, method, seed)[1] for fit in (f1, f2)]
    names = [str(fit.model.formula) for fit in (f1, f2)]
    log_bf = found[0].log_integral - found[1].log_integral
    error = math.hypot(found[0].error, found[1].error)
    probability = 1.0 / (1.0 + math.exp(min(-log_bf, 700.0)))
    row = {
        "numerator": names[0],
        "denominator": names[1],
        "bf": float(np.exp(min(log_bf, 709.0))),
        "log_bf": log_bf,
        "error_percent": 100.0 * error,
        "log_marginal_numerator": found[0].log_integral,
        "log_marginal_denominator": found[1].log_integral,
        "posterior_probability": probability,
        "sentence": _sentence(names, log_bf, error),
    }
    return pd.DataFrame([row])


def _sentence(names: list[str], log_bf: float, error: float) -> str:
    """Say what the Bayes factor is, in numbers."""
    first, second = names if log_bf >= 0 else names[::-1]
    size = abs(log_bf)
    times = f"{math.exp(size):.3g}" if size < 13.8 else f"10^{size / math.log(10.0):.1f}"
    said = (
        f"The data are {times} times as probable under `{first}` as under `{second}` (log Bayes factor {size:.2f}, Monte-Carlo error "
        f"{100.0 * error:.2g} %), averaged over the priors of each."
    )
    return said if size > 2.0 * error else f"{said} The Monte-Carlo error is too large to tell which is favoured."


def _evidence(fit: BayesFit, method: str, seed: int | None) -> tuple[Target, Bridge]:
    """Return the density used and the integral of it."""
    _check_posterior(fit)
    if method not in METHODS:
        raise FitError(f"unknown method {method!r}{suggest(str(method), list(METHODS))}")
    model = fit.model
    _refuse_improper(model)
    posterior = fit.tree["posterior"].to_dataset()
    reasons = [target.limit(model) for target in DENSITIES]
    if reasons[-1] is not None:
        raise FitError(f"the marginal likelihood is not available: {reasons[-1]}")
    target = DENSITIES[next(i for i, reason in enumerate(reasons) if reason is None)]
    points = target.points(model, posterior)
    if points.shape[2] == 0:
        raise FitError("all parameters of the model are constants: its marginal likelihood is its likelihood")
    found = bridge(target.make(model), points, method=method, seed=_seed(seed))
    _warn(found, points.shape[2], str(model.formula))
    return target, found


def _seed(seed: int | None) -> int | None:
    if seed is not None and (not isinstance(seed, (int, np.integer)) or isinstance(seed, bool) or seed < 0):
        raise FitError(f"seed must be a whole number of at least 0, not {seed!r}")
    return seed


def _check_posterior(fit: Any) -> None:
    if not isinstance(fit, BayesFit):
        raise FitError(f"marginal likelihoods are of posteriors, which `brm` makes, not of {type(fit).__name__}")


def _refuse_improper(model: Model) -> None:
    improper = [
        " ".join(piece for piece in (row.part, row.group, row.term) if piece) for row in model.prior_rows if not row.distribution.proper
    ]
    if improper:
        raise PriorError(
            f"the marginal likelihood needs proper priors, and flat() has no density to average over: {', '.join(improper)}; "
            'give them one, as prior("normal(0, 10)", part="fixed")'
        )


def _check_same_response(first: Model, second: Model) -> None:
    """Refuse two models whose likelihoods are not densities of the same numbers."""
    one, two = first.design, second.design
    if len(one.y) != len(two.y):
        raise DataError(
            f"the models have different rows ({len(one.y)} and {len(two.y)}): a Bayes factor compares models of the same data; "
            "drop the rows with missing values of either model first"
        )
    if not np.array_equal(one.y, two.y) or not _same(one.trials, two.trials):
        raise DataError(
            f"the responses '{one.response_name}' and '{two.response_name}' differ: a Bayes factor compares models of the same response, "
            "on the same scale"
        )
    if first.family.discrete != second.family.discrete:
        raise DataError(
            f"a density ({(second if first.family.discrete else first).family.name}) and probabilities of counts "
            f"({(first if first.family.discrete else second).family.name}) cannot be compared by a Bayes factor"
        )


def _same(one: Array | None, two: Array | None) -> bool:
    return (one is None) == (two is None) and (one is None or two is None or np.array_equal(one, two))


def _warn(found: Bridge, dim: int, name: str) -> None:
    least = max(_FEWEST, _FEW_PER_DIMENSION * dim)
    if found.n_effective < 0.5 * least or found.n_draws < least:
        message = (
            f"{found.n_draws} draws ({found.n_effective:.0f} independent ones) are few for the marginal likelihood of `{name}` in "
            f"{dim} dimensions; draw at least {least}"
        )
        warnings.warn(ConvergenceWarning("few_draws_for_evidence", message), stacklevel=4)
    if found.error > _LARGE_ERROR:
        message = f"the marginal likelihood of `{name}` has a Monte-Carlo error of {100.0 * found.error:.2g} %; raise draws"
        warnings.warn(ConvergenceWarning("large_evidence_error", message), stacklevel=4)
