"""Adjustments of p values and intervals for several tests at once, as R's emmeans makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any

import numpy as np

from bayeslmm.errors import FitError, suggest

__all__ = ["ADJUSTMENTS", "TestFamily", "adjusted", "adjustment_named"]

type Array = np.ndarray

_DIRECTIONS = 2**16
"""Quasi-random directions for the multivariate t distribution: probabilities are good to about 5e-5."""


@dataclass(frozen=True)
class TestFamily:
    """Tests that are judged together: `statistic` and `df` (n,), their `correlation` (n, n), NaN where a test cannot be made.

    `means`: how many means they compare; `pairs`: whether they are all pairs of them.
    """

    statistic: Array
    df: Array
    correlation: Array
    means: int
    pairs: bool

    __test__ = False

    @property
    def size(self) -> int:
        return len(self.statistic)

    @property
    def plain(self) -> Array:
        """Unadjusted two-sided p values (n,)."""
        from scipy.stats import t

        return np.asarray(2.0 * t.sf(np.abs(self.statistic), self.df))

    @cached_property
    def radii(self) -> tuple[Array, int]:
        """Return the largest |t| in each of many directions of the estimates' space, at distance one, and its dimension.

        With T = A z / s for spherical z of r dimensions, z = R u: max |T_i| <= x where R <= x s / max |A u|.
        """
        from scipy.stats import qmc

        known = np.isfinite(self.statistic)
        values, vectors = np.linalg.eigh(self.correlation[np.ix_(known, known)])
        keep = values > 1e-10 * values[-1]
        A = vectors[:, keep] * np.sqrt(values[keep])
        r = A.shape[1]
        u = _normal_directions(qmc.Sobol(r, seed=1).random(_DIRECTIONS))
        return np.max(np.abs(u @ A.T), axis=1), r


def _normal_directions(uniform: Array) -> Array:
    from scipy.special import ndtri

    normal = ndtri(np.clip(uniform, 1e-12, 1.0 - 1e-12))
    directions: Array = normal / np.linalg.norm(normal, axis=1, keepdims=True)
    return directions


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjustment:
    """`p_values`: of a family (n,). `quantile`: the critical value of |t| (n,) at a level; None where only p values have one."""

    p_values: Callable[[TestFamily], Array]
    quantile: Callable[[TestFamily, float], Array] | None


def adjustment_named(name: str) -> Adjustment:
    """Return the adjustment of a name.

    Raises
    ------
    FitError
        If there is none.
    """
    if name not in ADJUSTMENTS:
        raise FitError(f"unknown adjustment {name!r}{suggest(str(name), list(ADJUSTMENTS))}")
    return ADJUSTMENTS[name]


def adjusted(family: TestFamily, name: str, level: float) -> tuple[Array, Array, str]:
    """Return adjusted p values (n,), critical values of |t| (n,), and the name of the adjustment that was made.

    A single test is not adjusted. Tukey's method is for all pairs: elsewhere Sidak's takes its place, as in emmeans. Intervals of
    methods that have none of their own (Holm's, the false discovery rate) are Bonferroni's.

    Examples
    --------
    >>> import numpy as np
    >>> family = TestFamily(np.array([2.0, 2.5]), np.array([10.0, 10.0]), np.eye(2), 2, False)
    >>> adjusted(family, "bonferroni", 0.95)[0].round(4).tolist()
    [0.1468, 0.0629]
    """
    made = "none" if family.size == 1 else "sidak" if name == "tukey" and not family.pairs else name
    adjustment = adjustment_named(made)
    quantile = adjustment.quantile or _bonferroni_quantile
    p_values = np.full(family.size, np.nan)
    critical = np.full(family.size, np.nan)
    known = np.isfinite(family.statistic) & (family.df > 0.0)
    if known.any():
        p_values[known] = np.clip(adjustment.p_values(family)[known], 0.0, 1.0)
        critical[known] = quantile(family, level)[known]
    return p_values, critical, made


def _each(function: Callable[[float, float], float], values: Array, df: Array) -> Array:
    """Apply a slow function to pairs, each once, degrees of freedom that differ by rounding only counting as one."""
    once = cache(function)
    pairs = zip(values.tolist(), df.tolist(), strict=True)
    return np.array([once(value, float(f"{nu:.9g}")) if np.isfinite(value) and nu > 0.0 else np.nan for value, nu in pairs])


def _tukey_sf(means: float) -> Callable[[float, float], float]:
    from scipy.stats import studentized_range

    return lambda x, df: float(studentized_range.sf(np.sqrt(2.0) * x, means, df))


def _tukey(family: TestFamily) -> Array:
    return _each(_tukey_sf(family.means), np.abs(family.statistic), family.df)


def _tukey_quantile(family: TestFamily, level: float) -> Array:
    return _each(_root(_tukey_sf(family.means)), np.full(family.size, level), family.df)


def _root(sf: Callable[[float, float], float]) -> Callable[[float, float], float]:
    """Return the function of (level, df) that gives the x with sf(x, df) = 1 - level."""
    from scipy.optimize import brentq

    def quantile(level: float, df: float) -> float:
        upper = 4.0
        while sf(upper, df) > 1.0 - level:
            upper *= 2.0
        return float(brentq(lambda x: sf(x, df) - (1.0 - level), 0.0, upper, xtol=1e-9))

    return quantile


def _dunnett_sf(n: int) -> Callable[[float, float], float]:
    """Emmeans's `dunnettx`: Tukey's distribution for as many pairs, and Sidak's, weighted by (n - 1) / n and 1 / n."""
    from scipy.stats import f

    tukey = _tukey_sf((1.0 + np.sqrt(1.0 + 8.0 * n)) / 2.0)

    def sf(x: float, df: float) -> float:
        inside = f.cdf(x * x, 1, df) if np.isfinite(df) else _chi2_cdf(x * x)
        return float((n - 1) / n * tukey(x, df) + (1.0 - inside**n) / n)

    return sf


def _chi2_cdf(x: float) -> float:
    from scipy.stats import chi2

    return float(chi2.cdf(x, 1))


def _dunnett(family: TestFamily) -> Array:
    return _each(_dunnett_sf(family.size), np.abs(family.statistic), family.df)


def _dunnett_quantile(family: TestFamily, level: float) -> Array:
    return _each(_root(_dunnett_sf(family.size)), np.full(family.size, level), family.df)


def _mvt_sf(family: TestFamily) -> Callable[[float, float], float]:
    """P(max |T_i| > x) of the multivariate t distribution: exact along each direction, averaged over many."""
    from scipy.stats import chi2, f

    largest, r = family.radii

    def sf(x: float, df: float) -> float:
        squared = (x / largest) ** 2
        return float(np.mean(f.sf(squared / r, r, df) if np.isfinite(df) else chi2.sf(squared, r)))

    return sf


def _mvt(family: TestFamily) -> Array:
    return _each(_mvt_sf(family), np.abs(family.statistic), family.df)


def _mvt_quantile(family: TestFamily, level: float) -> Array:
    return _each(_root(_mvt_sf(family)), np.full(family.size, level), family.df)


def _sidak(family: TestFamily) -> Array:
    values: Array = -np.expm1(family.size * np.log1p(-np.minimum(family.plain, 1.0 - 1e-16)))
    return values


def _t_quantile(family: TestFamily, tail: float) -> Array:
    from scipy.stats import t

    return np.asarray(t.isf(tail / 2.0, family.df))


def _step(family: TestFamily, factor: Callable[[Array, int], Array], accumulate: Any, largest_first: bool) -> Array:
    """Multiply ordered p values by factors of their rank (1 the smallest), and keep their order."""
    p = family.plain
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(-p[known] if largest_first else p[known], kind="stable")]
    rank = np.arange(1, len(order) + 1)
    rank = rank[::-1] if largest_first else rank
    result = np.full(family.size, np.nan)
    result[order] = accumulate(p[order] * factor(rank, family.size))
    return result


def _holm(family: TestFamily) -> Array:
    return _step(family, lambda rank, n: n + 1.0 - rank, np.maximum.accumulate, False)


def _fdr(family: TestFamily) -> Array:
    return _step(family, lambda rank, n: n / rank, np.minimum.accumulate, True)


def _bonferroni_quantile(family: TestFamily, level: float) -> Array:
    return _t_quantile(family, (1.0 - level) / family.size)


ADJUSTMENTS: Mapping[str, Adjustment] = MappingProxyType(
    {
        "none": Adjustment(p_values=lambda family: family.plain, quantile=lambda family, level: _t_quantile(family, 1.0 - level)),
        "tukey": Adjustment(p_values=_tukey, quantile=_tukey_quantile),
        "dunnettx": Adjustment(p_values=_dunnett, quantile=_dunnett_quantile),
        "mvt": Adjustment(p_values=_mvt, quantile=_mvt_quantile),
        "sidak": Adjustment(p_values=_sidak, quantile=lambda family, level: _t_quantile(family, 1.0 - level ** (1.0 / family.size))),
        "bonferroni": Adjustment(p_values=lambda family: family.size * family.plain, quantile=_bonferroni_quantile),
        "holm": Adjustment(p_values=_holm, quantile=None),
        "fdr": Adjustment(p_values=_fdr, quantile=None),
    }
)
"""Adjustment's name -> how it is made."""
