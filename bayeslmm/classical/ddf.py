"""Degrees of freedom for fixed effects: Satterthwaite's and Kenward and Roger's, for single coefficients and for F tests."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.special import chdtrc, fdtrc, stdtr

from bayeslmm.classical.information import by_theta, information, linear_span
from bayeslmm.classical.noise import has_noise
from bayeslmm.errors import BayesLmmWarning, ConvergenceWarning, DataError, FitError, suggest

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.classical.fit import ClassicalFit

__all__ = [
    "METHODS",
    "FTest",
    "Inference",
    "coefficient_table",
    "contrast_table",
    "f_test",
    "inference",
    "wald_table",
]

type Array = np.ndarray

_FLAT = 1e-8
"""lmerTest's limit: eigenvalues of the Hessian below it count as zero, as negative below its negative."""
_RANK = 1.5e-8
"""Relative variance below which a combination of contrasts counts as a repetition of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FTest:
    """An F test: `f_value` (scaled by `scaling`, which only Kenward and Roger's method needs), its degrees of freedom, `p_value`."""

    f_value: float
    num_df: int
    den_df: float
    scaling: float
    p_value: float


class Inference(Protocol):
    """Estimates (p,) with the covariance (p, p) that tests use, and the degrees of freedom of contrasts."""

    @property
    def beta(self) -> Array: ...
    @property
    def vcov(self) -> Array: ...
    @property
    def sigma(self) -> float: ...
    def df(self, contrast: Array) -> float:
        """Return the degrees of freedom of one contrast (p,)."""

    def den_df(self, L: Array) -> tuple[float, float]:
        """Return denominator degrees of freedom and scaling of the F test of L beta, L (q, p) with uncorrelated estimates."""


def inference(fit: ClassicalFit, ddf: str) -> Inference:
    """Return what tests of the fixed effects need, by the method named.

    Parameters
    ----------
    fit
        What `lmer` returned; without random effects all methods give the exact n - p.
    ddf
        `"satterthwaite"` or `"kenward-roger"`; the latter refits an ML fit by REML, and warns that it does.

    Raises
    ------
    FitError
        For an unknown method, and for fits with too many effects that hang together (see `information.MAX_CONNECTED`).

    Source: Fai & Cornelius (1996), J. Stat. Comput. Simul. 54; Kenward & Roger (1997), Biometrics 53; Kuznetsova, Brockhoff &
    Christensen (2017), J. Stat. Softw. 82(13); Halekoh & Hojsgaard (2014), J. Stat. Softw. 59(9).

    Examples
    --------
    >>> import numpy as np
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> round(inference(fit, "kenward-roger").df(np.array([0.0, 1.0])), 6)
    17.0
    """
    if fit.generalised:
        wald_table(fit, ddf)
        return _Exact(beta=fit.beta, sigma=1.0, vcov=fit.vcov().to_numpy(), residual=float("inf"))
    if ddf not in METHODS:
        raise FitError(f"unknown ddf {ddf!r}{suggest(str(ddf), ['none', *METHODS])}")
    if not (fit.model.design.blocks or has_noise(fit.model.design)) or not len(fit.beta):
        return _Exact(beta=fit.beta, sigma=fit.sigma, vcov=fit.vcov().to_numpy(), residual=float(fit.nobs - len(fit.beta)))
    return METHODS[ddf](fit)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Exact:
    """A linear model: the residual degrees of freedom, exactly."""

    beta: Array
    vcov: Array
    sigma: float
    residual: float

    def df(self, contrast: Array) -> float:
        return self.residual

    def den_df(self, L: Array) -> tuple[float, float]:
        return self.residual, 1.0


# --------------------------------------------------------------------------------------------------------------- Satterthwaite


@dataclass(frozen=True, slots=True, kw_only=True)
class _Satterthwaite:
    """`slopes` (d, p, p): vcov's derivative by (theta, sigma); `spread` (d, d): their asymptotic covariance."""

    beta: Array
    vcov: Array
    sigma: float
    slopes: Array
    spread: Array

    def df(self, contrast: Array) -> float:
        variance = contrast @ self.vcov @ contrast
        slope = np.einsum("x,dxy,y->d", contrast, self.slopes, contrast)
        return _ratio(2.0 * variance**2, float(slope @ self.spread @ slope))

    def den_df(self, L: Array) -> tuple[float, float]:
        return _combined(np.array([self.df(contrast) for contrast in L])), 1.0


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator > 0.0 else float("inf")


def _combined(nu: Array) -> float:
    """Return the degrees of freedom of an F statistic that is the mean of squared t statistics with `nu` (q,) each."""
    if np.all(np.isinf(nu)) or np.all(np.abs(np.diff(nu)) < 1e-8):
        return float(np.mean(nu))
    if np.any(nu <= 2.0):
        return 2.0
    expected = float(np.sum(1.0 / (1.0 - 2.0 / nu)))
    return 2.0 * expected / (expected - len(nu))


def _satterthwaite(fit: ClassicalFit) -> Inference:
    """Deviance in (theta, sigma), beta profiled out: A = 2 H^-1; slopes of vcov = half phi half' by the same parameters.

    With a residual structure, in (theta, phi, sigma), by differences (see `structured`).
    """
    if has_noise(fit.model.design):
        from bayeslmm.classical.structured import spread_of

        found = spread_of(fit)
        return _Satterthwaite(beta=fit.beta, sigma=fit.sigma, vcov=fit.vcov().to_numpy(), slopes=found.slopes, spread=found.covariance)
    info = information(fit)
    parameters = by_theta(fit, info)
    J = parameters.first
    bend, slope = info.hessian(fit.reml), info.gradient(fit.reml)
    hessian = J.T @ bend @ J + np.einsum("a,ade->de", slope, parameters.second)
    size = np.abs(J).T @ np.abs(bend) @ np.abs(J) + np.einsum("a,ade->de", np.abs(slope), np.abs(parameters.second))
    by_gamma = info.half @ info.phi @ info.A @ info.phi @ info.half.T
    return _Satterthwaite(
        beta=fit.beta,
        sigma=fit.sigma,
        vcov=fit.vcov().to_numpy(),
        slopes=np.tensordot(J.T, by_gamma, axes=1),
        spread=2.0 * _positive_inverse(hessian, np.sqrt(np.diagonal(size))),
    )


def _positive_inverse(H: Array, scale: Array) -> Array:
    """Return the inverse on the positive eigenvalues, as lmerTest does, with a warning where some are not.

    A Hessian that is positive definite beyond rounding in units of `scale` (d,), the size of what was added up, is inverted
    whatever the units of the parameters.
    """
    if np.all(scale > 0.0):
        values, vectors = np.linalg.eigh(H / np.outer(scale, scale))
        if values[0] > 1e-11:
            return np.asarray((vectors / values) @ vectors.T / np.outer(scale, scale))
    values, vectors = np.linalg.eigh(H)
    keep = values > max(_FLAT, 1e-11 * values[-1])
    few = f"{int(np.sum(~keep))} of {len(values)} combinations of variance parameters"
    message = (
        f"the likelihood is not curved downwards in {few}: degrees of freedom leave the variability of these out; "
        "see fit.diagnose(), and simplify the random effects"
    )
    warnings.warn(ConvergenceWarning("hessian", message), stacklevel=6)
    part = vectors[:, keep]
    return np.asarray((part / values[keep]) @ part.T)


# --------------------------------------------------------------------------------------------------------------- Kenward-Roger


@dataclass(frozen=True, slots=True, kw_only=True)
class _KenwardRoger:
    """`vcov` adjusted; `phi` plain; `half` as in `Information`; `moves` (d, p, p): phi A_a; `W` (d, d): covariance of gamma."""

    beta: Array
    vcov: Array
    sigma: float
    phi: Array
    half: Array
    moves: Array
    W: Array

    def df(self, contrast: Array) -> float:
        return self.den_df(contrast[None, :])[0]

    def den_df(self, L: Array) -> tuple[float, float]:
        l_scaled = L @ self.half
        theta = l_scaled.T @ np.linalg.solve(l_scaled @ self.phi @ l_scaled.T, l_scaled)
        u = theta @ self.moves @ self.phi
        traces = np.einsum("axx->a", u)
        A1 = float(traces @ self.W @ traces)
        A2 = float(np.sum(self.W * np.einsum("axy,byx->ab", u, u)))
        return _kenward_roger_df(len(L), A1, A2)


def _kenward_roger_df(q: int, A1: float, A2: float) -> tuple[float, float]:
    """Return denominator degrees of freedom and scaling of a Wald F of q restrictions; Kenward & Roger (1997), section 4."""
    if not A2 > 0.0:
        return float("inf"), 1.0
    B = (A1 + 6.0 * A2) / (2.0 * q)
    g = ((q + 1) * A1 - (q + 4) * A2) / ((q + 2) * A2)
    share = 3.0 * q + 2.0 * (1.0 - g)
    V0 = 1.0 + g / share * B
    V1 = 1.0 - (q - g) / share * B
    V2 = 1.0 - (q + 2.0 - g) / share * B
    V0 = 0.0 if abs(V0) < 1e-10 else V0
    E = 1.0 - A2 / q
    rho = _both_zero(E, V1) ** 2 * V0 / V2 / q
    df = 4.0 + (q + 2.0) / (q * rho - 1.0)
    return df, 1.0 if abs(df - 2.0) < 0.01 else df * E / (df - 2.0)


def _both_zero(x: float, y: float) -> float:
    """Return x / y, one where both vanish (a t statistic with two degrees of freedom)."""
    return 1.0 if abs(x) < 1e-14 and abs(y) < 1e-14 else x / y


def _kenward_roger(fit: ClassicalFit) -> Inference:
    if has_noise(fit.model.design):
        raise FitError(
            "Kenward and Roger's method is not available for a model with a residual structure (a predictor of sigma, or ar()); "
            "use ddf='satterthwaite'"
        )
    if not fit.reml:
        message = "Kenward and Roger's method is for REML: the model is fitted again by REML, and its estimates are those shown"
        warnings.warn(BayesLmmWarning("refitted_reml", message), stacklevel=5)
        fit = _again_by_reml(fit)
    info = information(fit)
    basis = linear_span(fit, info)
    phi, half = info.phi, info.half
    A = np.tensordot(basis.T, info.A, axes=1)
    Q = np.einsum("ad,be,abxy->dexy", basis, basis, info.Q)
    W = 2.0 * _symmetric_inverse(basis.T @ info.expected @ basis)
    moves = phi @ A
    middle = np.einsum("ab,abxy->xy", W, Q) - np.einsum("ab,axy,byz->xz", W, A, moves)
    adjusted = phi + phi @ (middle + middle.T) @ phi
    return _KenwardRoger(
        beta=fit.beta,
        sigma=fit.sigma,
        vcov=half @ adjusted @ half.T,
        phi=phi,
        half=half,
        moves=moves,
        W=W,
    )


def _symmetric_inverse(H: Array) -> Array:
    """Return the (pseudo-)inverse of a symmetric matrix that is scaled to a unit diagonal first."""
    scale = np.sqrt(np.abs(np.diagonal(H)))
    scale = np.where(scale > 0.0, scale, 1.0)
    inverse: Array = np.linalg.pinv(H / np.outer(scale, scale), rcond=1e-11, hermitian=True) / np.outer(scale, scale)
    return inverse


def _again_by_reml(fit: ClassicalFit) -> ClassicalFit:
    from bayeslmm.classical.lmm import lmer

    return lmer(fit.model, reml=True)


METHODS: Mapping[str, Callable[[ClassicalFit], Inference]] = MappingProxyType(
    {"satterthwaite": _satterthwaite, "kenward-roger": _kenward_roger}
)
"""Method's name -> how a fit with random effects is prepared for it."""


# ---------------------------------------------------------------------------------------------------------------------- tables


def f_test(found: Inference, L: Array, rhs: Array | float = 0.0) -> FTest | None:
    """Return the F test of L beta = rhs; restrictions that repeat others count once; None where nothing is restricted.

    Parameters
    ----------
    found
        What `inference` returned.
    L
        Contrasts (q, p).
    rhs
        Their hypothetical values (q,), or one for all.

    Raises
    ------
    DataError
        If L does not have a column for every coefficient, or contradicts itself.
    """
    L = np.atleast_2d(np.asarray(L, dtype=float))
    if L.shape[1] != len(found.beta) or not np.all(np.isfinite(L)):
        raise DataError(f"a contrast needs {len(found.beta)} finite numbers, one for each coefficient; these have shape {L.shape}")
    values = np.broadcast_to(np.asarray(rhs, dtype=float), (len(L),))
    rows, values = _independent_rows(L, values, found.vcov)
    if not len(rows):
        return None
    difference = rows @ found.beta - values
    den_df, scaling = found.den_df(rows)
    statistic = float(difference @ np.linalg.solve(rows @ found.vcov @ rows.T, difference)) / len(rows) * scaling
    return FTest(f_value=statistic, num_df=len(rows), den_df=den_df, scaling=scaling, p_value=_f_tail(statistic, len(rows), den_df))


def _f_tail(statistic: float, num_df: int, den_df: float) -> float:
    if not den_df > 0.0:
        return float("nan")
    return float(chdtrc(num_df, num_df * statistic) if np.isinf(den_df) else fdtrc(num_df, den_df, statistic))


def _independent_rows(L: Array, values: Array, vcov: Array) -> tuple[Array, Array]:
    """Return contrasts of full row rank, with uncorrelated estimates, that restrict the same.

    Their directions are those of L vcov L' with L as given, as lmerTest has them (Satterthwaite's degrees of freedom of several
    contrasts depend on the rows' units); where units differ so much that this would hide rows, rows in units of standard errors.
    """
    sizes = np.sqrt(np.maximum(np.einsum("qx,xy,qy->q", L, vcov, L), 0.0))
    largest = np.max(np.abs(L) * np.sqrt(np.diagonal(vcov)), axis=1, initial=0.0)
    kept = (largest > 0.0) & (sizes > 1e-8 * largest)
    if np.any(np.abs(values[~kept]) > 0.0):
        raise DataError("a contrast of zeros cannot equal anything but zero")
    L, values, sizes = L[kept], values[kept], sizes[kept]
    if not len(L):
        return L, values
    unit, targets = L / sizes[:, None], values / sizes
    eigenvalues, vectors = np.linalg.eigh(unit @ vcov @ unit.T)
    keep = eigenvalues > _RANK * eigenvalues[-1]
    if np.any(np.abs(vectors[:, ~keep].T @ targets) > 1e-7 * max(1.0, float(np.max(np.abs(targets))))):
        raise DataError("the contrasts contradict one another: some repeat others with different values")
    raw, directions = np.linalg.eigh(L @ vcov @ L.T)
    if np.sum(raw > _RANK * raw[-1]) == np.sum(keep):
        unit, targets, vectors, keep = L, values, directions, raw > _RANK * raw[-1]
    return vectors[:, keep].T @ unit, vectors[:, keep].T @ targets


def wald_table(fit: ClassicalFit, ddf: str) -> pd.DataFrame:
    """Return the coefficients of a generalised model: z values, p values of the normal distribution.

    Raises
    ------
    FitError
        For degrees of freedom that only linear models have, and unknown ones.
    """
    if ddf not in ("satterthwaite", "none"):
        raise FitError(f"ddf={ddf!r} is not available for a generalised model: its coefficients have z values (ddf='none')")
    import pandas as pd
    from scipy.special import ndtr

    se = fit.standard_errors
    z = fit.beta / se
    columns = {"estimate": fit.beta, "se": se, "df": np.inf, "statistic": z, "p_value": 2.0 * ndtr(-np.abs(z))}
    return pd.DataFrame(columns, index=list(fit.model.design.fixed_names), dtype=float)


def coefficient_table(fit: ClassicalFit, ddf: str) -> pd.DataFrame:
    """Return the table of fixed effects `estimate, se, df, statistic, p_value` with t tests by the method named."""
    names = list(fit.model.design.fixed_names)
    return contrast_table(inference(fit, ddf), np.eye(len(names)), names)


def contrast_table(found: Inference, L: Array, names: list[str], rhs: Array | float = 0.0) -> pd.DataFrame:
    """Return `estimate, se, df, statistic, p_value` of single contrasts, the rows of L (q, p), against `rhs`.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> contrast_table(inference(fit, "satterthwaite"), [[1.0, 5.0]], ["day 5"]).round(3).iloc[0].tolist()
    [303.742, 9.581, 17.0, 31.702, 0.0]
    """
    import pandas as pd

    rows = np.atleast_2d(np.asarray(L, dtype=float)).reshape(len(names), len(found.beta))
    estimate = rows @ found.beta
    se = np.sqrt(np.einsum("qx,xy,qy->q", rows, found.vcov, rows))
    df = np.array([found.df(row) for row in rows], dtype=float)
    statistic = (estimate - rhs) / se
    p_value = 2.0 * stdtr(np.where(df > 0.0, df, np.nan), -np.abs(statistic))
    table = {"estimate": estimate, "se": se, "df": df, "statistic": statistic, "p_value": p_value}
    return pd.DataFrame(table, index=names, dtype=float)
