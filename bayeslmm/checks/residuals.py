"""Scaled quantile residuals by simulation: whether they are uniform, whether some are outliers, whether they follow a predictor.

A residual is the share of simulated responses below the observed one, ties broken at random: uniform between 0 and 1 where the model
holds (`bayeslmm.prediction.quantile_residuals` has its normal quantile). P values are Monte Carlo: the statistic of the observed
responses among those of the simulated ones, whose residuals hang together within groups just as the observed ones' do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.checks.simulated import LEVEL, ranked, tail
from bayeslmm.errors import DataError, FitError, suggest
from bayeslmm.fit import Check
from bayeslmm.prediction import whole_number

if TYPE_CHECKING:
    from bayeslmm.fit import Fit

__all__ = ["Outliers", "Trend", "Uniformity", "outliers", "trend", "uniformity"]

type Array = np.ndarray

_CELLS = 1000
"""The distribution of the residuals is compared with the uniform one at so many points at most."""


# --------------------------------------------------------------------------------------------------------------------- uniformity


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniformity:
    """Result of `uniformity`.

    Attributes
    ----------
    statistic
        Kolmogorov's greatest distance from the uniform distribution.
    p_value
        By simulation.
    independent_p_value
        Of Kolmogorov's distribution, as DHARMa's `testUniformity`: right only where residuals are independent.
    conditional, n
        How it was simulated.
    residuals
        The residuals, between 0 and 1.
    simulated
        The statistic of the simulated responses (n,).
    """

    statistic: float
    p_value: float
    independent_p_value: float
    conditional: bool
    n: int
    residuals: pd.Series
    simulated: Array

    @property
    def check(self) -> Check:
        """The check by simulation: failed below 5 %."""
        passed = self.p_value >= LEVEL
        shape = _shape(self.residuals.to_numpy())
        return Check(
            code="uniformity",
            value=self.p_value,
            limit=LEVEL,
            passed=passed,
            meaning="residuals are distributed as the model says"
            if passed
            else f"residuals are not distributed as the model says: {shape}",
            remedy="look at `overdispersion`, `zero_inflation` and `outliers`, then at another family or link",
            severity="note",
        )


def uniformity(fit: Fit, *, n: int = 1000, conditional: bool = False, seed: int = 0) -> Uniformity:
    """Test whether scaled quantile residuals are uniform, by Kolmogorov and Smirnov's statistic.

    Parameters
    ----------
    fit
        A fit of either engine, of any family.
    n
        Number of simulated responses.
    conditional
        False: simulate with random effects drawn anew, as DHARMa's default; True: with the fitted ones, whose residuals crowd
        around one half where groups have few rows, in a sound model too.
    seed
        Seed of the simulation.

    Raises
    ------
    FitError
        If `n` is no positive whole number, or the seed none at all.

    Source: Hartig, DHARMa (`testUniformity`); Dunn & Smyth (1996), J. Comput. Graph. Stat. 5(3).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> from bayeslmm.checks import uniformity
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> uniformity(fit).p_value > 0.05
    True
    """
    from scipy.stats import kstest

    n = whole_number(n)
    cells = min(n + 1, _CELLS)
    u, counts = np.empty(fit.nobs), np.zeros((n + 1) * cells)
    within = np.random.default_rng(n)
    for here, _, ranks in ranked(fit, n, conditional=conditional, seed=seed):
        u[here] = (ranks[0] + within.random(ranks.shape[1])) / (n + 1.0)
        place = np.arange(n + 1)[:, None] * cells + ranks * cells // (n + 1)
        counts += np.bincount(place.ravel(), minlength=counts.size)
    cumulative = np.cumsum(counts.reshape(n + 1, cells), axis=1) / fit.nobs
    distances = np.max(np.abs(cumulative - _edges(n, cells)), axis=1)
    exact = kstest(u, "uniform")
    return Uniformity(
        statistic=float(exact.statistic),
        p_value=tail(float(distances[0]), distances[1:], "greater"),
        independent_p_value=float(exact.pvalue),
        conditional=conditional,
        n=n,
        residuals=pd.Series(u, index=fit.model.design.index, name="residual"),
        simulated=distances[1:],
    )


def _edges(n: int, cells: int) -> Array:
    """Return the share (cells,) of the ranks 0 .. n up to the end of each cell."""
    places: Array = np.cumsum(np.bincount(np.arange(n + 1) * cells // (n + 1), minlength=cells)) / (n + 1.0)
    return places


def _shape(u: Array) -> str:
    """Say how residuals differ from uniform ones."""
    if abs(np.mean(u) - 0.5) > np.std(u) / 3.0:
        return "most responses lie above their prediction" if np.mean(u) > 0.5 else "most responses lie below their prediction"
    spread = float(np.std(u)) * np.sqrt(12.0)
    if abs(spread - 1.0) > 0.05:
        return "they are more spread than it says" if spread > 1.0 else "they are less spread than it says"
    return "their distribution has another shape"


# ----------------------------------------------------------------------------------------------------------------------- outliers


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Result of `outliers`.

    Attributes
    ----------
    observed, expected
        Number of residuals at either end, lower or higher than all simulated responses, and the number expected, 2 / (n + 1) of the
        rows. Of equal counts (discrete families), a random one is the furthest, so that the expected number is right for them too.
    p_value
        By simulation: the probability of so many.
    binomial_p_value
        Of the exact two-sided binomial test, as DHARMa's `testOutliers`: right only where residuals are independent.
    rows
        Labels of the rows outside the range of their simulated responses, not merely equal to its end.
    conditional, n
        How it was simulated.
    simulated
        Numbers of outliers of the simulated responses (n,).
    """

    observed: int
    expected: float
    p_value: float
    binomial_p_value: float
    rows: tuple[object, ...]
    conditional: bool
    n: int
    simulated: Array

    @property
    def check(self) -> Check:
        """The check by simulation: failed below 5 %."""
        passed = self.p_value >= LEVEL
        named = ", ".join(map(str, self.rows[:5])) + (", ..." if len(self.rows) > 5 else "")
        found = f"{self.observed} responses lie outside all of {self.n} simulated ones, where {self.expected:.2g} are expected"
        return Check(
            code="outliers",
            value=self.p_value,
            limit=LEVEL,
            passed=passed,
            meaning="no more outlying responses than chance makes" if passed else found + (f": rows {named}" if named else ""),
            remedy="check these rows; heavier tails: family='student' for measurements, an overdispersed family for counts",
            severity="note",
        )


def outliers(fit: Fit, *, n: int = 1000, conditional: bool = False, seed: int = 0) -> Outliers:
    """Test whether more responses than expected lie outside all simulated ones.

    Parameters
    ----------
    fit
        A fit of either engine, of any family.
    n
        Number of simulated responses; the more, the further out an outlier must lie.
    conditional
        False: simulate with random effects drawn anew, as DHARMa's default; True: with the fitted ones, to find rows that are
        outlying within their group.
    seed
        Seed of the simulation.

    Raises
    ------
    FitError
        If `n` is no positive whole number, or the seed none at all.

    Source: Hartig, DHARMa (`testOutliers`, `type = "binomial"`).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> from bayeslmm.checks import outliers
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> outliers(fit, conditional=True).rows
    (7, 56, 59)
    """
    from scipy.stats import binomtest

    n = whole_number(n)
    counts = np.zeros(n + 1, dtype=int)
    outside = np.zeros(fit.nobs, dtype=bool)
    for here, values, ranks in ranked(fit, n, conditional=conditional, seed=seed):
        counts += np.sum((ranks == 0) | (ranks == n), axis=1)
        outside[here] = (values[0] < values[1:].min(axis=0)) | (values[0] > values[1:].max(axis=0))
    probability = 2.0 / (n + 1.0)
    return Outliers(
        observed=int(counts[0]),
        expected=probability * fit.nobs,
        p_value=tail(float(counts[0]), counts[1:], "greater"),
        binomial_p_value=float(binomtest(int(counts[0]), fit.nobs, probability).pvalue),
        rows=tuple(fit.model.design.index[outside]),
        conditional=conditional,
        n=n,
        simulated=counts[1:],
    )


# -------------------------------------------------------------------------------------------------------------------------- trend


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """Result of `trend`.

    Attributes
    ----------
    by
        Name of the predictor, or `fitted`.
    statistic, df
        Kruskal and Wallis's statistic of the residuals among the bins, the ranks being those among simulated responses; bins less one.
    p_value
        By simulation.
    table
        Per bin: `label`, `rows`, `mean` of the residuals, which is 0.5 where the model holds.
    conditional, n
        How it was simulated.
    simulated
        The statistic of the simulated responses (n,).
    """

    by: str
    statistic: float
    df: int
    p_value: float
    table: pd.DataFrame
    conditional: bool
    n: int
    simulated: Array

    @property
    def check(self) -> Check:
        """The check by simulation: failed below 5 %."""
        passed = self.p_value >= LEVEL
        worst = self.table.iloc[int(np.argmax(np.abs(self.table["mean"] - 0.5) * np.sqrt(self.table["rows"])))]
        side = "above" if worst["mean"] > 0.5 else "below"
        found = f"residuals follow {self.by}: at {worst['label']} responses lie {side} their prediction"
        return Check(
            code="trend",
            value=self.p_value,
            limit=LEVEL,
            passed=passed,
            meaning=f"residuals do not follow {self.by}" if passed else found,
            remedy="let the predictor enter, bend (`poly(x, 2)`, `ns(x, 3)`), interact or vary between groups; or try another link",
            severity="note",
        )


def trend(fit: Fit, by: str | None = None, *, bins: int = 8, n: int = 1000, conditional: bool = False, seed: int = 0) -> Trend:
    """Test whether the location of scaled quantile residuals follows a predictor, by a rank test among its bins.

    Parameters
    ----------
    fit
        A fit of either engine, of any family.
    by
        A column of the data, in the model or not; default: the fitted values at random effects of zero (with `conditional`, in the
        fitted groups).
    bins
        A numeric predictor with more values than this is cut into so many bins of equal size; a factor's bins are its levels.
    n, conditional, seed
        As for `uniformity`.

    Returns
    -------
    Trend
        Where DHARMa's `testQuantiles` fits quantile regressions, this compares the bins' mean residuals with Kruskal and Wallis's
        statistic, which sees a bend as well as a slope.

    Raises
    ------
    DataError
        If there is no such column, or it has fewer than two values.
    FitError
        If `n` or `bins` is no positive whole number, or the seed none at all.

    Source: Kruskal & Wallis (1952), J. Am. Stat. Assoc. 47; Hartig, DHARMa (`testCategorical`, `testQuantiles`).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> from bayeslmm.checks import trend
    >>> data = bl.load_dataset("sleepstudy")
    >>> trend(bl.lmer("Reaction ~ 1 + (1 | Subject)", data), "Days").p_value < 0.01
    True
    >>> trend(bl.lmer("Reaction ~ Days + (Days | Subject)", data), "Days").p_value > 0.05
    True
    """
    name, values = ("fitted", _centre(fit, conditional=conditional)) if by is None else (by, _column(fit, by))
    labels, place = _binned(name, values, bins)
    n, known = whole_number(n), place >= 0
    rows = np.bincount(place[known], minlength=len(labels))
    sums = np.zeros((n + 1, len(labels)))
    for here, _, ranks in ranked(fit, n, conditional=conditional, seed=seed):
        some = known[here]
        member = np.eye(len(labels))[place[here][some]]
        sums += (ranks[:, some] + 0.5) @ member / (n + 1.0)
    means = sums / rows
    overall = sums.sum(axis=1, keepdims=True) / rows.sum()
    statistics = 12.0 * np.sum(rows * (means - overall) ** 2, axis=1)
    return Trend(
        by=name,
        statistic=float(statistics[0]),
        df=len(labels) - 1,
        p_value=tail(float(statistics[0]), statistics[1:], "greater"),
        table=pd.DataFrame({"label": labels, "rows": rows, "mean": means[0]}),
        conditional=conditional,
        n=n,
        simulated=statistics[1:],
    )


def _centre(fit: Fit, *, conditional: bool) -> pd.Series:
    return fit.fitted() if conditional else fit.predict(target="average_group")["estimate"]


def _column(fit: Fit, by: str) -> pd.Series:
    frame = fit.model.frame
    if by not in frame.columns:
        raise DataError(f"no column '{by}' in the data{suggest(by, [str(name) for name in frame.columns])}", column=by)
    values: pd.Series = frame.loc[fit.model.design.kept, by]
    return values


def _binned(name: str, values: pd.Series, bins: int) -> tuple[list[str], Array]:
    """Return the labels of the bins and each row's position among them, -1 where its value is missing."""
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 2:
        raise FitError(f"bins must be a whole number of at least 2, not {bins!r}")
    numeric = pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)
    if numeric and values.nunique() > bins:
        values = pd.qcut(values, bins, duplicates="drop")
    found = pd.Categorical(values).remove_unused_categories()
    if len(found.categories) < 2:
        raise DataError(f"the column '{name}' has a single value: residuals cannot follow it", column=name)
    return [f"{label}" for label in found.categories], np.asarray(found.codes, dtype=int)
