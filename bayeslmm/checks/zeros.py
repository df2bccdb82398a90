"""Zero inflation: whether there are more zeros than the fitted model makes, by its probabilities and by simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.checks.simulated import LEVEL, single_trials, stacked, tail
from bayeslmm.errors import FitError
from bayeslmm.fit import Check
from bayeslmm.prediction import distribution, whole_number

if TYPE_CHECKING:
    from bayeslmm.fit import Fit

__all__ = ["INFLATED", "ZeroInflation", "at_fit", "zero_inflation"]

type Array = np.ndarray

INFLATED = {
    "poisson": "zero_inflated_poisson",
    "negative_binomial": "zero_inflated_negative_binomial",
    "negative_binomial1": "zero_inflated_negative_binomial",
    "binomial": "zero_inflated_binomial",
}
"""Family -> the one with more zeros."""
_TOLERANCE = 1.05
_DRAWS = 200
"""Draws of a posterior that the probability of a zero is averaged over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroInflation:
    """Result of `zero_inflation`.

    Attributes
    ----------
    observed
        Number of zeros.
    predicted
        Their expected number in the fitted groups; over `observed`, the ratio of `performance::check_zeroinflation`.
    expected, ratio
        Mean number of simulated zeros, and `observed / expected`, as DHARMa's `testZeroInflation`.
    p_value
        By simulation.
    alternative, conditional, n
        How it was simulated.
    simulated
        Numbers of simulated zeros (n,).
    """

    observed: int
    predicted: float
    expected: float
    ratio: float
    p_value: float
    alternative: str
    conditional: bool
    n: int
    simulated: Array
    remedy: str

    @property
    def check(self) -> Check:
        """The check by simulation: failed below 5 %."""
        return Check(
            code="zero_inflation",
            value=self.p_value,
            limit=LEVEL,
            passed=self.p_value >= LEVEL,
            meaning=_meaning(self.observed, self.expected, passed=self.p_value >= LEVEL),
            remedy=self.remedy,
            severity="note",
        )


def zero_inflation(fit: Fit, *, n: int = 1000, conditional: bool = False, alternative: str = "greater", seed: int = 0) -> ZeroInflation:
    """Test whether there are more zeros than the fitted model makes.

    Parameters
    ----------
    fit
        A fit of either engine with a family of counts.
    n
        Number of simulated responses.
    conditional
        False: simulate with random effects drawn anew, as DHARMa; True: with the fitted ones.
    alternative
        `"greater"` (more zeros), `"less"` or `"two-sided"`.
    seed
        Seed of the simulation.

    Returns
    -------
    ZeroInflation
        Ratios above one say more zeros than the model makes. Overdispersion makes zeros too: look at `overdispersion` first.

    Raises
    ------
    FitError
        For a response that cannot be zero, of single trials (0 or 1) or levels, or of measurements.

    Source: Hartig, DHARMa (`testZeroInflation`); Lüdecke et al. (2021), J. Open Source Softw. 6(60), for performance.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> from bayeslmm.checks import zero_inflation
    >>> fit = bl.glmer("TICKS ~ YEAR + (1 | BROOD)", bl.load_dataset("grouseticks"), "poisson")
    >>> found = zero_inflation(fit)
    >>> found.observed, round(found.predicted)
    (126, 107)
    """
    _refuse(fit)
    n = whole_number(n)
    zeros = np.zeros(n + 1, dtype=int)
    for _, values in stacked(fit, n, conditional=conditional, seed=seed):
        zeros += np.sum(values == 0, axis=1)
    expected = float(np.mean(zeros[1:]))
    return ZeroInflation(
        observed=int(zeros[0]),
        predicted=float(np.sum(_probabilities(fit))),
        expected=expected,
        ratio=_over(int(zeros[0]), expected),
        p_value=tail(float(zeros[0]), zeros[1:], alternative),
        alternative=alternative,
        conditional=conditional,
        n=n,
        simulated=zeros[1:],
        remedy=_remedy(fit),
    )


def at_fit(fit: Fit) -> Check | None:
    """Return the check of the number of zeros by their fitted probabilities; None for a response that has no zeros of interest."""
    if _reason(fit):
        return None
    observed, probabilities = int(np.sum(fit.model.design.y == 0)), _probabilities(fit)
    predicted = float(np.sum(probabilities))
    limit = max(_TOLERANCE, _over(_quantile(probabilities), predicted))
    ratio = _over(observed, predicted)
    return Check(
        code="zero_inflation",
        value=ratio,
        limit=limit,
        passed=ratio <= limit,
        meaning=_meaning(observed, predicted, passed=ratio <= limit),
        remedy=_remedy(fit),
        severity="note",
    )


def _reason(fit: Fit) -> str:
    """Say why zeros are not to be counted, or nothing."""
    family, design = fit.model.family, fit.model.design
    if not family.discrete:
        return f"zero inflation is of counts; family {family.name} is of {family.response}"
    if single_trials(fit):
        return "zeros of single trials or levels are as many as the mean says; add rows of 0 and 1 up to successes out of trials"
    if np.any(family.check(np.zeros(design.n), design.trials)):
        return f"family {family.name} has no zeros"
    return ""


def _refuse(fit: Fit) -> None:
    reason = _reason(fit)
    if reason:
        raise FitError(reason)


def _probabilities(fit: Fit) -> Array:
    """Return each row's probability (n,) of a zero, averaged over draws."""
    design, draws = fit.model.design, fit.draws()
    some = draws.take(np.unique(np.linspace(0, draws.n_draws - 1, _DRAWS).astype(int)))
    found = np.empty(design.n)
    for here, mu, aux in distribution(fit.model, some):
        trials = None if design.trials is None else design.trials[here]
        found[here] = np.exp(fit.model.family.loglik(np.zeros(mu.shape), mu, aux, trials)).mean(axis=0)
    return found


def _quantile(probabilities: Array) -> float:
    """Return the 95 % quantile of the number of zeros: of the binomial distribution with its mean and variance."""
    from scipy.special import bdtrik

    predicted = float(np.sum(probabilities))
    if predicted <= 0.0:
        return 0.0
    p = min(float(np.sum(probabilities**2)) / predicted, 1.0 - 1e-12)
    return float(np.ceil(bdtrik(1.0 - LEVEL, predicted / p, p)))


def _over(observed: float, expected: float) -> float:
    if expected > 0.0:
        return observed / expected
    return np.inf if observed else 1.0


def _meaning(observed: int, expected: float, *, passed: bool) -> str:
    if passed:
        return "no more zeros than the model makes"
    return f"{observed} zeros where the model makes {expected:.3g}"


def _remedy(fit: Fit) -> str:
    inflated = INFLATED.get(fit.model.family.name)
    if inflated is None:
        return "let the probability of a zero depend on predictors: bl.formula(..., zi='~ x'), or hu='~ x' of a hurdle"
    return f"if the counts are overdispersed, mend that first; else use family='{inflated}'"
