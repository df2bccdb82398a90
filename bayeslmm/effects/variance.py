"""Shares of variance: intraclass correlations, Nakagawa's R2 with random slopes, and the Bayesian R2, for fits of either engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.errors import FitError

if TYPE_CHECKING:
    from bayeslmm.fit import Draws, Fit
    from bayeslmm.model import Model

__all__ = ["icc", "r2"]

type Array = np.ndarray

_CHUNK = 5_000_000
"""Draws x rows held at a time."""


def icc(fit: Fit, *, prob: float = 0.95) -> pd.DataFrame:
    """Return intraclass correlations: the share of the variance that is between groups.

    Parameters
    ----------
    fit
        A fit of either engine.
    prob
        Probability of the interval of a posterior.

    Returns
    -------
    DataFrame
        Columns `estimate, se, lower, upper` (the last three NaN for a classical fit); rows `adjusted`: random over random and
        residual variance; `unadjusted` and `conditional` (its older name): over these and the variance of the fixed effects; for
        several grouping factors also `adjusted: <factor>`, the part of each. As R's `performance::icc`, but that all random
        slopes count, and that the residual variance of counts is at the mean over the random effects, as in the source. A fit
        without random effects, or with variances of zero, has 0.

    Raises
    ------
    FitError
        For a family and link whose residual variance on the scale of the link is not known, or `prob` outside 0 to 1.

    Source: Nakagawa, Johnson & Schielzeth (2017), J. R. Soc. Interface 14; Johnson (2014), Methods Ecol. Evol. 5 (random slopes).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))
    >>> bl.icc(fit)["estimate"].round(4).tolist()
    [0.4185, 0.4185, 0.4185]
    """
    parts = _components(fit)
    total = parts.random + parts.residual
    rows = {
        "adjusted": _share(parts.random, total),
        "unadjusted": _share(parts.random, total + parts.fixed),
        "conditional": _share(parts.random, total + parts.fixed),
    }
    if len(parts.by_group) > 1:
        rows |= {f"adjusted: {group}": _share(values, total) for group, values in parts.by_group.items()}
    return _table(rows, prob)


def r2(fit: Fit, *, prob: float = 0.95) -> pd.DataFrame:
    """Return R2, the share of the variance explained.

    Parameters
    ----------
    fit
        A fit of either engine.
    prob
        Probability of the interval of a posterior.

    Returns
    -------
    DataFrame
        Columns `estimate, se, lower, upper` (the last three NaN for a classical fit); rows of Nakagawa's R2, `marginal`: of the
        fixed effects; `conditional`: of fixed and random effects. For a posterior also Gelman's, the variance of the predicted
        means over that and the residual variance at each draw, both on the response's scale: `bayes_conditional`, where that is the
        family's expected variance, and `bayes_marginal`, of the means with random effects at 0, where it is that and the variance that the
        random effects add (as `bayes_R2(fit, re_formula = NA)` of brms, where residuals are about these means).

    Raises
    ------
    FitError
        For a family and link whose residual variance on the scale of the link is not known, or `prob` outside 0 to 1.

    Source: Nakagawa, Johnson & Schielzeth (2017), J. R. Soc. Interface 14; Johnson (2014), Methods Ecol. Evol. 5 (random slopes);
    Gelman, Goodrich, Gabry & Vehtari (2019), Am. Stat. 73(3).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> bl.r2(fit)["estimate"].round(3).to_dict()
    {'marginal': 0.279, 'conditional': 0.799}
    """
    parts = _components(fit)
    total = parts.fixed + parts.random + parts.residual
    rows = {"marginal": _share(parts.fixed, total), "conditional": _share(parts.fixed + parts.random, total)}
    draws = fit.draws()
    if draws.n_draws > 1:
        marginal, conditional = _bayesian(fit.model, draws)
        rows |= {"bayes_marginal": marginal, "bayes_conditional": conditional}
    return _table(rows, prob)


# ------------------------------------------------------------------------------------------------------------------- components


@dataclass(frozen=True, slots=True, kw_only=True)
class _Components:
    """Variances on the scale of the linear predictor, (S,) each: `by_group` the random part's, by grouping factor."""

    fixed: Array
    by_group: Mapping[str, Array]
    residual: Array

    @property
    def random(self) -> Array:
        return np.asarray(sum(self.by_group.values(), start=np.zeros(len(self.fixed))))


def _components(fit: Fit) -> _Components:
    model, draws = fit.model, fit.draws()
    X = model.design.X
    centred = X - X.mean(axis=0)
    covariance = centred.T @ centred / max(len(X) - 1, 1)
    by_group: dict[str, Array] = {}
    for block, sigma in zip(model.design.blocks, draws.covariance, strict=True):
        mean_square = (block.values * block.row_variance[:, None]).T @ block.values / len(X)
        by_group[block.group] = by_group.get(block.group, 0.0) + np.einsum("kl,skl->s", mean_square, sigma)
    fixed = np.einsum("sp,pq,sq->s", draws.b, covariance, draws.b)
    key = (model.family.name, model.link.name)
    if key not in _RESIDUAL and model.link.name != "identity":
        known = ", ".join(f"{family}({link})" for family, link in _RESIDUAL)
        raise FitError(
            f"the residual variance of {key[0]} with link {key[1]} on the link's scale is not known: icc and Nakagawa's r2 are there for "
            f"the identity link and {known}"
        )
    residual = _RESIDUAL.get(key, _expected_variance)(model, draws)
    return _Components(fixed=fixed, by_group=by_group, residual=residual)


def _constant(value: float) -> Callable[[Model, Draws], Array]:
    return lambda model, draws: np.full(draws.n_draws, value)


def _expected_variance(model: Model, draws: Draws) -> Array:
    """Return the family's mean variance over the rows (S,), of weight one: on the identity link, that of the response."""
    return _over_rows(model, draws).expected


def _on_log(model: Model, draws: Draws) -> Array:
    """log(1 + variance / lambda^2) (S,), lambda the mean with the random effects integrated out: Nakagawa's lognormal approximation.

    The variance is the family's at lambda: lambda for Poisson counts, so that it is log(1 + 1 / lambda).
    """
    design = model.design
    spread = sum(
        np.einsum("nk,skl,nl->sn", block.values, sigma, block.values) * block.row_variance
        for block, sigma in zip(design.blocks, draws.covariance, strict=True)
    )
    mean = np.exp(draws.b @ design.X.T + design.offset + 0.5 * spread).mean(axis=1)
    aux = {name: values.reshape(draws.n_draws, -1).mean(axis=1) for name, values in draws.aux.items()}
    return np.asarray(np.log1p(model.family.variance(mean, aux, None) / mean**2))


_RESIDUAL: Mapping[tuple[str, str], Callable[[Model, Draws], Array]] = MappingProxyType(
    {
        **{(family, "logit"): _constant(np.pi**2 / 3.0) for family in ("binomial", "bernoulli")},
        **{(family, "probit"): _constant(1.0) for family in ("binomial", "bernoulli")},
        **{(family, "cloglog"): _constant(np.pi**2 / 6.0) for family in ("binomial", "bernoulli")},
        **{(family, "log"): _on_log for family in ("poisson", "negative_binomial", "negative_binomial1", "gamma")},
        ("lognormal", "identity"): lambda model, draws: np.square(draws.aux["sigma"]).reshape(draws.n_draws, -1).mean(axis=1),
    }
)
"""(family, link) -> residual variance on the scale of the link (S,); Nakagawa et al. (2017), table 2 and section 2."""


# --------------------------------------------------------------------------------------------------------------- Bayesian R2


def _bayesian(model: Model, draws: Draws) -> tuple[Array, Array]:
    """Return Gelman's R2 (S,) of the fixed effects, to which the random ones are residual variance, and of both."""
    found = _over_rows(model, draws)
    return _share(found.fixed, found.fixed + found.random + found.expected), _share(found.both, found.both + found.expected)


@dataclass(frozen=True, slots=True, kw_only=True)
class _OverRows:
    """Variances over the rows (S,): of the mean with random effects at 0, of what they add, of the mean with them; `expected`: the
    family's own mean variance. With trials, of proportions."""

    fixed: Array
    random: Array
    both: Array
    expected: Array


def _over_rows(model: Model, draws: Draws) -> _OverRows:
    design, S = model.design, draws.n_draws
    fixed, random, both, expected = np.empty(S), np.empty(S), np.empty(S), np.empty(S)
    step = max(1, _CHUNK // max(design.n, 1))
    for start in range(0, S, step):
        here = slice(start, start + step)
        some = draws.take(np.arange(S)[here])
        eta = some.b @ design.X.T + design.offset
        aux = {name: values if values.ndim == 2 else values[:, None] for name, values in some.aux.items()}
        without = _expected_response(model, model.link.inverse(eta), aux)
        for block, effects in zip(design.blocks, some.effects, strict=True):
            for k in range(block.n_effects):
                eta = eta + effects[:, block.index, k] * block.values[:, k]
        mu = model.link.inverse(eta)
        with_effects = _expected_response(model, mu, aux)
        fixed[here], random[here], both[here] = _variance(without), _variance(with_effects - without), _variance(with_effects)
        variance = np.broadcast_to(model.family.variance(mu, aux, design.trials), mu.shape)
        expected[here] = (variance if design.trials is None else variance / np.maximum(design.trials, 1.0) ** 2).mean(axis=1)
    return _OverRows(fixed=fixed, random=random, both=both, expected=expected)


def _expected_response(model: Model, mu: Array, aux: Mapping[str, Array]) -> Array:
    response_mean = model.family.response_mean
    return mu if response_mean is None else response_mean(mu, aux)


def _variance(values: Array) -> Array:
    return np.asarray(values.var(axis=1, ddof=1 if values.shape[1] > 1 else 0))


# ------------------------------------------------------------------------------------------------------------------------ table


def _share(part: Array, total: Array) -> Array:
    """Return part / total, NaN where there is no variance at all."""
    share: Array = np.divide(part, total, out=np.full(len(part), np.nan), where=total > 0.0)
    return share


def _table(rows: Mapping[str, Array], prob: float) -> pd.DataFrame:
    if not isinstance(prob, Real) or not 0 < prob < 1:
        raise FitError(f"prob must lie between 0 and 1, not {prob!r}")
    return pd.DataFrame([_summary(values, float(prob)) for values in rows.values()], index=pd.Index(list(rows), name="measure"))


def _summary(values: Array, prob: float) -> dict[str, float]:
    if len(values) == 1:
        return {"estimate": float(values[0]), "se": np.nan, "lower": np.nan, "upper": np.nan}
    lower, upper = np.quantile(values, [(1.0 - prob) / 2.0, (1.0 + prob) / 2.0])
    return {"estimate": float(values.mean()), "se": float(values.std(ddof=1)), "lower": float(lower), "upper": float(upper)}
