"""Bridge sampling: the integral of a density over the real space from draws of it, with the error of the result.

For a density q without its constant, draws theta_i ~ q / c and proposals z_j from a normal distribution g of the draws' mean and
covariance, the optimal bridge of Meng and Wong (1996) makes c the fixed point of

    c = mean_j [l_j / (s1 l_j + s2 c)] / mean_i [1 / (s1 l_i + s2 c)],        l = q / g,  s1 + s2 = 1 in proportion to the sample sizes.

The warp of Gronau, Singmann and Wagenmakers (2020; "Warp-III") takes for q its mean with its mirror image about the draws' mean: the
integral is the same, and skewness no longer hurts. Draws that make g are not those that enter the sums: each half of every chain
serves the other, and the two results are averaged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.special import logsumexp

from bayeslmm.bayes.checks import array_stats
from bayeslmm.errors import FitError, suggest

__all__ = ["METHODS", "Bridge", "bridge"]

type Array = np.ndarray
type LogDensity = Callable[[Array], Array]

_TOLERANCE = 1e-12
_ITERATIONS = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Bridge:
    """The log of an integral; `error`: relative root mean squared error of the integral; `n_effective`: draws, were they independent."""

    log_integral: float
    error: float
    method: str
    n_draws: int
    n_effective: float


def _normal(log_density: LogDensity, centre: Array, root: Array) -> LogDensity:
    """Return the log density (m,) of z (m, d), where theta = centre + root z."""
    logdet = float(np.sum(np.log(np.diagonal(root))))

    def one_side(z: Array) -> Array:
        found = log_density(centre + z @ root.T)
        return np.asarray(np.where(np.isnan(found), -np.inf, found) + logdet)

    return one_side


def _warp3(log_density: LogDensity, centre: Array, root: Array) -> LogDensity:
    """Return the log density of z, made symmetric about the centre."""
    one_side = _normal(log_density, centre, root)
    return lambda z: np.asarray(np.logaddexp(one_side(z), one_side(-z)) - math.log(2.0))


METHODS: Mapping[str, Callable[[LogDensity, Array, Array], LogDensity]] = MappingProxyType({"warp3": _warp3, "normal": _normal})
"""How the draws and a standard normal distribution are brought to overlap, by name."""


def bridge(log_density: LogDensity, points: Array, *, method: str = "warp3", seed: Any = None) -> Bridge:
    """Return the log of the integral of a density.

    Parameters
    ----------
    log_density
        Points (m, d) to log density (m,) without the constant that is sought; -inf (or NaN) where there is none.
    points
        Draws (chains, draws, d) from it.
    method
        A name of `METHODS`.
    seed
        Of the proposals.

    Raises
    ------
    FitError
        For an unknown method; with too few draws for a covariance matrix; where the density is not a number at a draw.

    Source: Meng & Wong (1996), Statistica Sinica 6, equation 4.2; Frühwirth-Schnatter (2004), Econometrics Journal 7 (the error);
    Gronau et al. (2017), J. Math. Psych. 81; Gronau, Singmann & Wagenmakers (2020), J. Stat. Softw. 92(10).

    Examples
    --------
    >>> import numpy as np
    >>> draws = np.random.default_rng(0).gamma(3.0, size=(4, 1000, 1))  # u = log x has the log density 3 u - exp(u), less log 2
    >>> found = bridge(lambda u: 3.0 * u[:, 0] - np.exp(u[:, 0]), np.log(draws), seed=0)
    >>> bool(abs(found.log_integral - np.log(2.0)) < 4 * found.error)
    True
    """
    if method not in METHODS:
        raise FitError(f"unknown method {method!r}{suggest(str(method), list(METHODS))}")
    _, n, d = points.shape
    half = n // 2
    if points.shape[0] * half <= d + 1:
        raise FitError(f"{points.shape[0] * n} draws are too few for bridge sampling in {d} dimensions; draw more")
    rng = np.random.default_rng(seed)
    log_given = np.array([log_density(chain) for chain in points])
    if not np.all(np.isfinite(log_given)):
        raise FitError("the posterior density is not a number at some of its own draws; were they made with this model?")
    halves = (slice(0, half), slice(half, n))
    found = [_one_half(log_density, points[:, a], points[:, b], method, rng) for a, b in (halves, halves[::-1])]
    logs, errors, sizes = (np.array(column) for column in zip(*found, strict=True))
    log_integral = float(logsumexp(logs) - math.log(2.0))
    error = max(0.5 * math.hypot(*errors), 0.5 * abs(float(logs[0] - logs[1])))
    return Bridge(log_integral=log_integral, error=error, method=method, n_draws=points.shape[0] * n, n_effective=float(np.sum(sizes)))


def _one_half(log_density: LogDensity, fitted: Array, used: Array, method: str, rng: np.random.Generator) -> tuple[float, float, float]:
    """Return log c, its error and the effective size, with the proposal of draws `fitted` and the sums over draws `used`."""
    chains, n, d = used.shape
    flat = fitted.reshape(-1, d)
    centre = flat.mean(axis=0)
    root = _root(np.cov(flat, rowvar=False).reshape(d, d))
    warped = METHODS[method](log_density, centre, root)
    given: Array = solve_triangular(root, (used.reshape(-1, d) - centre).T, lower=True).T
    proposed: Array = rng.standard_normal((chains * n, d))
    at_given, at_proposed = _log_ratio(warped, given), _log_ratio(warped, proposed)
    effective = float(np.clip(np.median([_effective(used[:, :, j]) for j in range(d)]), 1.0, chains * n))
    share = effective / (effective + len(proposed))
    log_c = _fixed_point(at_given, at_proposed, share)
    of_proposed = np.exp(at_proposed - np.logaddexp(math.log(share) + at_proposed, math.log1p(-share) + log_c))
    of_given = np.exp(log_c - np.logaddexp(math.log(share) + at_given, math.log1p(-share) + log_c))
    spread = _relative_variance(of_proposed) / len(proposed) + _relative_variance(of_given) / _effective(of_given.reshape(chains, n))
    return log_c, math.sqrt(spread), effective


def _root(covariance: Array) -> Array:
    """Return the Cholesky factor (d, d) of a covariance matrix of draws."""
    size = np.sqrt(np.diagonal(covariance))
    if not np.all(size > 0.0):
        raise FitError("a parameter has the same value in all draws; the sampler did not move")
    try:
        factor = cholesky(covariance / np.outer(size, size), lower=True)
    except np.linalg.LinAlgError as error:
        raise FitError("the draws' covariance matrix is singular; draw more") from error
    return np.asarray(size[:, None] * factor)


def _log_ratio(warped: LogDensity, z: Array) -> Array:
    """Return log(q / g) at z (m, d)."""
    return np.asarray(warped(z) + 0.5 * np.sum(z**2, axis=1) + 0.5 * z.shape[1] * math.log(2.0 * math.pi))


def _fixed_point(at_given: Array, at_proposed: Array, share: float) -> float:
    """Return log c of the optimal bridge, `share` = s1."""
    log_s1, log_s2 = math.log(share), math.log1p(-share)
    log_c = float(np.median(at_given))
    for _ in range(_ITERATIONS):
        above = logsumexp(at_proposed - np.logaddexp(log_s1 + at_proposed, log_s2 + log_c)) - math.log(len(at_proposed))
        below = logsumexp(-np.logaddexp(log_s1 + at_given, log_s2 + log_c)) - math.log(len(at_given))
        new = float(above - below)
        if not np.isfinite(new):
            raise FitError("no proposal has a posterior density: the draws say too little of where the posterior is; draw more")
        if abs(new - log_c) < _TOLERANCE * max(1.0, abs(new)):
            return new
        log_c = new
    raise FitError(f"bridge sampling did not converge in {_ITERATIONS} steps; draw more, or use method='warp3'")


def _relative_variance(values: Array) -> float:
    mean = float(np.mean(values))
    return float(np.var(values)) / mean**2 if mean > 0.0 else math.inf


def _effective(values: Array) -> float:
    """Return the effective number of draws (chains, draws) for a mean, by ArviZ; at most their number."""
    if values.shape[1] < 4 or not np.ptp(values) > 0.0:
        return float(values.size)
    found = float(array_stats().ess(values, chain_axis=0, draw_axis=1, method="mean"))
    return min(found, float(values.size)) if np.isfinite(found) else float(values.size)
