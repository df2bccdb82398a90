"""Intraclass correlations and R2 against closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.fit import Draws


class Known:
    """A fit with given draws."""

    def __init__(self, model: bl.Model, draws: Draws):
        self.model, self._draws = model, draws

    def draws(self) -> Draws:
        return self._draws


def frame(response: Any) -> pd.DataFrame:
    return pd.DataFrame({"y": response, "x": np.tile([-1.0, 1.0], 10), "g": np.repeat(list("abcde"), 4)})


def known(family: str, link: str | None, response: Any, **aux: np.ndarray) -> Known:
    """Intercept 0.5, slope 1, variance 4 of the intercepts; one draw."""
    model = bl.model("y ~ x + (1 | g)", frame(response), family, link=link)
    draws = Draws(b=np.array([[0.5, 1.0]]), effects=(np.zeros((1, 5, 1)),), covariance=(np.full((1, 1, 1), 4.0),), aux=aux)
    return Known(model, draws)


FIXED = 20 / 19
"""Sample variance of -1, 1, ..."""


def test_random_slopes_count_by_their_mean_over_the_rows() -> None:
    """Johnson (2014): the mean of the diagonal of Z Sigma Z', also for uncorrelated terms of one factor."""
    fit = bl.lmer("Reaction ~ Days + (Days || Subject)", bl.load_dataset("sleepstudy"))
    Z = fit.model.design.Z.toarray()
    sigma = np.concatenate([np.full(18, c[0, 0]) for c in fit.covariances])
    random = np.mean(np.sum(Z**2 * sigma, axis=1))
    fixed = np.var(fit.model.design.X @ fit.beta, ddof=1)
    icc, r2 = bl.icc(fit)["estimate"], bl.r2(fit)["estimate"]
    assert icc["adjusted"] == pytest.approx(random / (random + fit.sigma**2), rel=1e-10)
    assert icc["unadjusted"] == icc["conditional"] == pytest.approx(random / (random + fixed + fit.sigma**2), rel=1e-10)
    assert r2["marginal"] == pytest.approx(fixed / (random + fixed + fit.sigma**2), rel=1e-10)
    assert r2["conditional"] == pytest.approx((random + fixed) / (random + fixed + fit.sigma**2), rel=1e-10)
    assert bl.icc(fit)[["se", "lower", "upper"]].isna().all().all()


def test_several_factors_share_the_adjusted_one() -> None:
    icc = bl.icc(bl.lmer("diameter ~ 1 + (1 | plate) + (1 | sample)", bl.load_dataset("Penicillin")))["estimate"]
    assert icc["adjusted: plate"] + icc["adjusted: sample"] == pytest.approx(icc["adjusted"])


def test_singular_and_plain_fits_have_numbers() -> None:
    with pytest.warns(bl.SingularFitWarning):
        singular = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2"))
    assert bl.icc(singular)["estimate"].tolist() == [0.0, 0.0, 0.0]
    assert bl.r2(singular)["estimate"].tolist() == [0.0, 0.0]
    linear = bl.lmer("Reaction ~ Days", bl.load_dataset("sleepstudy"))
    assert bl.icc(linear)["estimate"].tolist() == [0.0, 0.0, 0.0]
    assert bl.r2(linear)["estimate"].nunique() == 1


@pytest.mark.parametrize(
    ("family", "link", "response", "residual"),
    [
        ("bernoulli", "logit", np.tile([0, 1], 10), np.pi**2 / 3),
        ("bernoulli", "probit", np.tile([0, 1], 10), 1.0),
        ("bernoulli", "cloglog", np.tile([0, 1], 10), np.pi**2 / 6),
        ("poisson", "log", np.arange(20), np.log1p(1 / (np.exp(0.5 + 2.0) * np.cosh(1.0)))),
    ],
)
def test_residual_variance_on_the_scale_of_the_link(family: str, link: str, response: np.ndarray, residual: float) -> None:
    fit = known(family, link, response)
    assert bl.icc(fit)["estimate"]["adjusted"] == pytest.approx(4 / (4 + residual), rel=1e-10)  # type: ignore[arg-type]
    assert bl.r2(fit)["estimate"]["marginal"] == pytest.approx(FIXED / (FIXED + 4 + residual), rel=1e-10)  # type: ignore[arg-type]


def test_a_family_without_a_known_residual_variance_is_refused() -> None:
    fit = known("gaussian", "log", np.arange(1.0, 21.0), sigma=np.ones(1))
    with pytest.raises(bl.FitError, match=r"gaussian with link log .* poisson\(log\)"):
        bl.icc(fit)  # type: ignore[arg-type]


def test_a_posterior_is_summarised_over_its_draws() -> None:
    S = 4000
    rng = np.random.default_rng(1)
    sigma = rng.uniform(1.0, 2.0, S)
    model = bl.model("y ~ x + (1 | g)", frame(np.arange(20.0)))
    effects = np.tile(np.array([-2.0, -1.0, 0.0, 1.0, 2.0])[None, :, None], (S, 1, 1))
    draws = Draws(b=np.tile([0.5, 1.0], (S, 1)), effects=(effects,), covariance=(np.full((S, 1, 1), 4.0),), aux={"sigma": sigma})
    fit = Known(model, draws)
    icc, r2 = bl.icc(fit, prob=0.9), bl.r2(fit)  # type: ignore[arg-type]
    each = 4 / (4 + sigma**2)
    expected = [each.mean(), each.std(ddof=1), *np.quantile(each, [0.05, 0.95])]
    np.testing.assert_allclose(icc.loc["adjusted"], expected, rtol=1e-10)
    both = np.var(np.tile([-1.0, 1.0], 10) + np.repeat([-2.0, -1.0, 0.0, 1.0, 2.0], 4), ddof=1)
    assert r2.loc["bayes_conditional", "estimate"] == pytest.approx(np.mean(both / (both + sigma**2)), rel=1e-10)
    added = np.var(np.repeat([-2.0, -1.0, 0.0, 1.0, 2.0], 4), ddof=1)
    assert r2.loc["bayes_marginal", "estimate"] == pytest.approx(np.mean(FIXED / (FIXED + added + sigma**2)), rel=1e-10)
    assert list(r2.columns) == ["estimate", "se", "lower", "upper"]


def test_bayesian_r2_of_counts_out_of_trials_is_of_proportions() -> None:
    data = frame(np.tile([1, 3], 10)).assign(n=4)
    model = bl.model("y | trials(n) ~ x + (1 | g)", data, "binomial")
    draws = Draws(b=np.tile([0.0, 1.0], (2, 1)), effects=(np.zeros((2, 5, 1)),), covariance=(np.ones((2, 1, 1)),), aux={})
    p = 1 / (1 + np.exp(-np.tile([-1.0, 1.0], 10)))
    expected = np.var(p, ddof=1) / (np.var(p, ddof=1) + np.mean(p * (1 - p) / 4))
    assert bl.r2(Known(model, draws)).loc["bayes_conditional", "estimate"] == pytest.approx(expected, rel=1e-10)  # type: ignore[arg-type]


def test_the_bayesian_r2_of_a_mean_and_a_scale_is_arvizs() -> None:
    from arviz_stats.base import array_stats  # type: ignore[attr-defined]

    rng = np.random.default_rng(1)
    model = bl.model("y ~ x + (1 | g)", frame(np.arange(20.0)))
    b, effects, sigma = rng.normal(size=(50, 2)), rng.normal(size=(50, 5, 1)), rng.uniform(1.0, 2.0, 50)
    draws = Draws(b=b, effects=(effects,), covariance=(np.ones((50, 1, 1)),), aux={"sigma": sigma})
    mean = b @ model.design.X.T + effects[:, model.design.blocks[0].index, 0]
    expected = array_stats.bayesian_r2(mean, sigma, "sd", False)
    found = bl.r2(Known(model, draws)).loc["bayes_conditional"]  # type: ignore[arg-type]
    assert found["estimate"] == pytest.approx(np.mean(expected), rel=1e-10)
    assert found["se"] == pytest.approx(np.std(expected, ddof=1), rel=1e-10)


def test_a_bad_probability_is_refused() -> None:
    with pytest.raises(bl.FitError, match="prob"):
        bl.icc(known("poisson", "log", np.arange(20)), prob=95)  # type: ignore[arg-type]
