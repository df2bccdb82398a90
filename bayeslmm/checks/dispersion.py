"""Overdispersion: whether counts vary more than their family lets them, by Pearson's chi-square and by simulation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.checks.simulated import ALTERNATIVES, LEVEL, single_trials, stacked, tail
from bayeslmm.covariance import structure_of
from bayeslmm.errors import FitError
from bayeslmm.fit import Check
from bayeslmm.prediction import whole_number

if TYPE_CHECKING:
    from bayeslmm.fit import Fit

__all__ = ["WIDER", "Overdispersion", "at_fit", "overdispersion"]

type Array = np.ndarray

WIDER = {
    "poisson": "negative_binomial",
    "binomial": "beta_binomial",
    "zero_inflated_poisson": "zero_inflated_negative_binomial",
    "hurdle_poisson": "hurdle_negative_binomial",
    "truncated_poisson": "truncated_negative_binomial",
}
"""Family -> the one with the same response and a free variance."""
_UNSOUND = 2.0
"""From this ratio on, standard errors are too small by a factor of 1.4 and more."""
_SURE = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Overdispersion:
    """Result of `overdispersion`.

    Attributes
    ----------
    chisq, df
        Sum of the squared Pearson residuals, and rows less parameters.
    pearson_ratio, pearson_p_value
        `chisq / df`, as `performance::check_overdispersion`, and its upper tail of the chi-square distribution.
    ratio
        Variance of the raw residuals over the mean of the simulated ones', as DHARMa's `testDispersion`.
    p_value
        Of `ratio`, by simulation.
    alternative, conditional, n
        How it was simulated.
    simulated
        The variances of the simulated residuals (n,) over their mean.
    """

    chisq: float
    df: int
    pearson_ratio: float
    pearson_p_value: float
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
        passed = self.p_value >= LEVEL
        return Check(
            code="overdispersion",
            value=self.p_value,
            limit=LEVEL,
            passed=passed,
            meaning=_meaning(self.ratio, passed=passed),
            remedy=self.remedy,
            severity="note",
        )


def overdispersion(fit: Fit, *, n: int = 1000, conditional: bool = True, alternative: str = "greater", seed: int = 0) -> Overdispersion:
    """Test whether counts vary more around their mean than the family lets them.

    Parameters
    ----------
    fit
        A fit of either engine with a family of counts.
    n
        Number of simulated responses.
    conditional
        True: simulate with the fitted random effects, residuals are those about the conditional mean. This is the test with power,
        a little conservative, because the fitted effects follow the data. False: with random effects drawn anew, residuals about the
        mean at random effects of zero, as DHARMa does where it is not told otherwise: large random effects then hide overdispersion.
    alternative
        `"greater"`, `"less"` (only with `conditional=False`: fitted effects always take up some variance) or `"two-sided"`.
    seed
        Seed of the simulation.

    Returns
    -------
    Overdispersion
        Ratios above one say overdispersion. Pearson's is over rows less parameters, coefficients and covariance parameters, as lme4's
        `df.residual`: random effects count for nothing, so that with few rows in a group it lies below one in a sound model.

    Raises
    ------
    FitError
        For a response of single trials (0 or 1) or levels, whose variance follows from its mean, or of measurements, whose spread is
        estimated; for an unknown alternative, or one that fitted random effects do not allow.

    Source: Hartig, DHARMa (`testDispersion`); Lüdecke et al. (2021), J. Open Source Softw. 6(60), for performance.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> from bayeslmm.checks import overdispersion
    >>> fit = bl.glmer("TICKS ~ YEAR + (1 | BROOD)", bl.load_dataset("grouseticks"), "poisson")
    >>> found = overdispersion(fit)
    >>> round(found.pearson_ratio, 2), found.p_value < 0.05
    (1.69, True)
    """
    _refuse(fit)
    n = whole_number(n)
    if conditional and alternative in ALTERNATIVES[1:]:
        raise FitError("fitted random effects always take up some variance: for alternative 'less' or 'two-sided' use conditional=False")
    sizes = _spread(fit, n, conditional=conditional, seed=seed)
    p_value = tail(float(sizes[0]), sizes[1:], alternative)
    chisq, df = _pearson(fit)
    expected = float(np.mean(sizes[1:]))
    return Overdispersion(
        chisq=chisq,
        df=df,
        pearson_ratio=chisq / df,
        pearson_p_value=_upper(chisq, df),
        ratio=float(sizes[0]) / expected,
        p_value=p_value,
        alternative=alternative,
        conditional=conditional,
        n=n,
        simulated=sizes[1:] / expected,
        remedy=_remedy(fit),
    )


def at_fit(fit: Fit) -> Check | None:
    """Return the check of Pearson's ratio; None where the family's variance is not fixed by its mean and trials."""
    if not _applies(fit):
        return None
    from scipy.stats import chi2

    chisq, df = _pearson(fit)
    ratio = chisq / df
    limit = float(chi2.isf(LEVEL, df)) / df
    return Check(
        code="overdispersion",
        value=ratio,
        limit=limit,
        passed=ratio <= limit,
        meaning=_meaning(ratio, passed=ratio <= limit),
        remedy=_remedy(fit),
        severity="error" if ratio > _UNSOUND and _upper(chisq, df) < _SURE else "note",
    )


def _applies(fit: Fit) -> bool:
    return fit.model.family.discrete and not single_trials(fit) and _df(fit) > 0


def _refuse(fit: Fit) -> None:
    family = fit.model.family
    if not family.discrete:
        raise FitError(f"overdispersion is of counts: the family {family.name} estimates the spread of its response")
    if single_trials(fit):
        raise FitError(
            "a response of single trials or of levels cannot be overdispersed; add rows of 0 and 1 up to successes out of trials, "
            "`cbind(successes, failures)`, or see `uniformity`"
        )
    if _df(fit) < 1:
        raise FitError(f"overdispersion needs more rows than parameters; there are {fit.nobs} rows")


def _spread(fit: Fit, n: int, *, conditional: bool, seed: int) -> Array:
    """Return the variances (n + 1,) over rows of observed, then simulated responses less their expected values."""
    design = fit.model.design
    centre = (fit.fitted() if conditional else fit.predict(target="average_group")["estimate"]).to_numpy()
    if design.trials is not None:
        centre = centre * design.trials
    total, squares = np.zeros(n + 1), np.zeros(n + 1)
    for here, values in stacked(fit, n, conditional=conditional, seed=seed):
        residuals = values - centre[here]
        total += residuals.sum(axis=1)
        squares += np.square(residuals).sum(axis=1)
    variances: Array = (squares - total**2 / design.n) / (design.n - 1)
    return variances


def _pearson(fit: Fit) -> tuple[float, int]:
    return float(np.sum(np.square(fit.residuals("pearson")))), _df(fit)


def _df(fit: Fit) -> int:
    """Return rows less coefficients, covariance parameters and further parameters."""
    design = fit.model.design
    parts = [(design.fixed, design.blocks), *design.parameters.values()]
    constants = len(fit.model.family.parameters) - len(design.parameters)
    coefficients = sum(fixed.X.shape[1] for fixed, _ in parts)
    covariance = sum(structure_of(block).n_theta(block.n_effects) for _, blocks in parts for block in blocks)
    return int(design.n - coefficients - covariance - constants)


def _upper(chisq: float, df: int) -> float:
    from scipy.special import chdtrc

    return float(chdtrc(df, chisq))


def _meaning(ratio: float, *, passed: bool) -> str:
    if passed:
        return "responses vary no more than the family lets them"
    if ratio < 1.0:
        return f"responses vary {ratio:.2g} times as much as the family lets them: standard errors are too large"
    return f"responses vary {ratio:.3g} times as much as the family lets them: standard errors are too small by {np.sqrt(ratio):.2g}"


def _remedy(fit: Fit) -> str:
    wider = WIDER.get(fit.model.family.name)
    row = "(1 | row)` with a column `row` that has one level per row"
    if wider is None:
        return f"let a further parameter depend on predictors, or add `{row}; look for predictors that are missing"
    return f"use family='{wider}', or add `{row}; look for predictors that are missing"
