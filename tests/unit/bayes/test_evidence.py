"""Marginal likelihoods and Bayes factors against closed forms, quadrature and each other."""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats
from scipy.special import betaln, gammaln

import bayeslmm as bl
from bayeslmm.bayes import evidence
from bayeslmm.bayes.bridge import bridge
from bayeslmm.bayes.evidence import DENSITIES, bayes_factor, marginal_likelihood
from bayeslmm.errors import ConvergenceWarning, DataError, FitError, PriorError


def _fit(model: bl.Model, **variables: np.ndarray) -> bl.BayesFit:
    """A posterior of given draws, by the public names."""
    arrays = {name: (("chain", "draw", *(f"{name}_{a}" for a in range(v.ndim - 2))), v) for name, v in variables.items()}
    return bl.BayesFit(model=model, tree=xr.DataTree.from_dict({"posterior": xr.Dataset(arrays)}), provenance={})


def _grouped() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(10), 5)
    x = rng.normal(size=50)
    return pd.DataFrame({"y": 2.0 + 0.3 * x + rng.normal(size=10)[g] + rng.normal(size=50), "x": x, "g": [f"g{i}" for i in g]})


def test_successes_of_one_probability_have_the_beta_binomial_probability() -> None:
    """A logistic(0, 1) intercept is a uniform probability: p(y) = prod C(n, y) B(1 + sum y, 1 + sum(n - y))."""
    data = pd.DataFrame({"hits": [3, 5, 2, 6], "size": [10, 12, 7, 9]})
    model = bl.model("hits | trials(size) ~ 1", data, family="binomial", priors=[bl.prior("logistic(0, 1)", part="intercept")])
    hits, size = data["hits"].to_numpy(), data["size"].to_numpy()
    p = np.random.default_rng(0).beta(1 + hits.sum(), 1 + (size - hits).sum(), size=(4, 1000, 1))
    found = marginal_likelihood(_fit(model, b=np.log(p / (1.0 - p))), seed=1).iloc[0]
    choose = gammaln(size + 1) - gammaln(hits + 1) - gammaln(size - hits + 1)
    exact = float(choose.sum() + betaln(1 + hits.sum(), 1 + (size - hits).sum()))
    assert found["log_marginal"] == pytest.approx(exact, abs=4 * found["error_percent"] / 100)
    assert found["error_percent"] < 0.5
    assert found["density"] == "joint"


_HELD = (
    bl.prior("normal(1, 4)", part="intercept"),
    bl.prior("normal(0, 2)", part="fixed"),
    bl.prior("constant(0.9)", part="sd"),
    bl.prior("constant(1.1)", part="aux"),
)


@cache
def _held() -> bl.BayesFit:
    return bl.brm("y ~ x + (1 | g)", _grouped(), priors=_HELD, seed=1, progressbar=False)


def _exact_of_held() -> float:
    """y is normal where the variances are known, with the intercept's prior on the centred design."""
    data = _grouped()
    x = data["x"].to_numpy() - data["x"].mean()
    same = (data["g"].to_numpy()[:, None] == data["g"].to_numpy()).astype(float)
    V = 0.9**2 * same + 1.1**2 * np.eye(50) + 16.0 + 4.0 * np.outer(x, x)
    return float(stats.multivariate_normal(np.ones(50), V).logpdf(data["y"]))


@pytest.mark.parametrize("density", [one.name for one in DENSITIES])
def test_a_linear_model_of_known_variances_has_the_normal_density(density: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "DENSITIES", tuple(one for one in DENSITIES if one.name == density))
    found = marginal_likelihood(_held(), seed=1).iloc[0]
    assert found["density"] == density
    assert found["log_marginal"] == pytest.approx(_exact_of_held(), abs=4 * found["error_percent"] / 100)
    assert found["error_percent"] < (0.5 if density == "collapsed" else 3.0)


_WEAK = (
    bl.prior("normal(1, 4)", part="intercept"),
    bl.prior("normal(0, 2)", part="fixed"),
    bl.prior("student_t(3, 0, 2)", part="sd"),
    bl.prior("exponential(0.7)", part="aux"),
)


@cache
def _weak(formula: str) -> bl.BayesFit:
    priors = [row for row in _WEAK if row.part != "fixed" or "x" in formula]
    return bl.brm(formula, _grouped(), priors=priors, seed=1, progressbar=False)


def _by_quadrature(slope: bool) -> float:
    """Both standard deviations by the trapezoidal rule on their logarithms; coefficients in closed form."""
    data = _grouped()
    y, x = data["y"].to_numpy(), data["x"].to_numpy() - data["x"].mean()
    same = (data["g"].to_numpy()[:, None] == data["g"].to_numpy()).astype(float)
    prior = 16.0 + 4.0 * np.outer(x, x) * slope
    log_sd, log_sigma = np.linspace(-7.0, 2.5, 61), np.linspace(-0.8, 0.8, 33)
    total = np.empty((61, 33))
    for i, a in enumerate(np.exp(log_sd)):
        for j, b in enumerate(np.exp(log_sigma)):
            V = a**2 * same + b**2 * np.eye(50) + prior
            L = np.linalg.cholesky(V)
            z = np.linalg.solve(L, y - 1.0)
            likelihood = -0.5 * z @ z - np.log(np.diagonal(L)).sum() - 25.0 * math.log(2.0 * math.pi)
            half = math.log(2.0) + stats.t.logpdf(a, 3, 0, 2)
            total[i, j] = likelihood + half + math.log(a) + stats.expon(scale=1 / 0.7).logpdf(b) + math.log(b)
    return float(np.log(np.trapezoid(np.trapezoid(np.exp(total - total.max()), log_sigma), log_sd)) + total.max())


def test_a_mixed_model_has_the_integral_over_its_variances() -> None:
    fits = {slope: _weak("y ~ x + (1 | g)" if slope else "y ~ 1 + (1 | g)") for slope in (True, False)}
    exact = {slope: _by_quadrature(slope) for slope in (True, False)}
    for slope, fit in fits.items():
        found = marginal_likelihood(fit, seed=1).iloc[0]
        assert found["log_marginal"] == pytest.approx(exact[slope], abs=4 * found["error_percent"] / 100)
    ratio = bayes_factor(fits[True], fits[False], seed=1).iloc[0]
    assert ratio["log_bf"] == pytest.approx(exact[True] - exact[False], abs=4 * ratio["error_percent"] / 100)
    assert ratio["bf"] == pytest.approx(math.exp(ratio["log_bf"]))
    assert ratio["posterior_probability"] == pytest.approx(ratio["bf"] / (1.0 + ratio["bf"]))
    assert ratio["log_bf"] == pytest.approx(ratio["log_marginal_numerator"] - ratio["log_marginal_denominator"])


def test_eight_schools_have_their_integral_over_one_deviation() -> None:
    """Known errors of the responses; the mean is integrated out in closed form."""
    y, errors = np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    priors = [bl.prior("normal(0, 5)", part="intercept"), bl.prior("cauchy(0, 5)", part="sd")]
    data = pd.DataFrame({"y": y, "s": errors, "school": list("ABCDEFGH")})
    found = marginal_likelihood(bl.brm("y | se(s) ~ 1 + (1 | school)", data, priors=priors, seed=1, progressbar=False), seed=1).iloc[0]
    log_sd = np.linspace(-9.0, 8.0, 2001)
    sd = np.exp(log_sd)
    likelihood = np.array([stats.multivariate_normal(np.zeros(8), np.diag(errors**2 + a**2) + 25.0).logpdf(y) for a in sd])
    total = likelihood + math.log(2.0) + stats.cauchy(0.0, 5.0).logpdf(sd) + log_sd
    exact = float(np.log(np.trapezoid(np.exp(total - total.max()), log_sd)) + total.max())
    assert found["log_marginal"] == pytest.approx(exact, abs=4 * found["error_percent"] / 100)
    assert found["error_percent"] < 1.5


def test_random_effects_integrated_out_or_sampled_give_the_same() -> None:
    """With LKJ's density of correlations, in both coordinates."""
    data = bl.load_dataset("sleepstudy")
    fit = bl.brm("Reaction ~ Days + (Days | Subject)", data, seed=1, progressbar=False)
    posterior = fit.tree["posterior"].to_dataset()
    found = [bridge(one.make(fit.model), one.points(fit.model, posterior), seed=2) for one in DENSITIES]
    assert found[0].error < 0.02
    assert found[0].log_integral == pytest.approx(found[1].log_integral, abs=4 * math.hypot(*(one.error for one in found)))


def test_both_methods_agree() -> None:
    one, two = (marginal_likelihood(_weak("y ~ x + (1 | g)"), method=method, seed=1).iloc[0] for method in ("warp3", "normal"))
    error = math.hypot(one["error_percent"], two["error_percent"]) / 100
    assert one["log_marginal"] == pytest.approx(two["log_marginal"], abs=4 * error)


def test_the_sentence_has_numbers_and_no_adjectives() -> None:
    first, second = _weak("y ~ x + (1 | g)"), _weak("y ~ 1 + (1 | g)")
    forth, back = bayes_factor(first, second, seed=1).iloc[0], bayes_factor(second, first, seed=1).iloc[0]
    assert forth["log_bf"] == pytest.approx(-back["log_bf"])
    assert forth["sentence"] == back["sentence"]
    assert f"(log Bayes factor {abs(forth['log_bf']):.2f}, Monte-Carlo error" in forth["sentence"]
    same = bayes_factor(first, first, seed=1).iloc[0]
    assert same["log_bf"] == 0.0
    assert same["posterior_probability"] == 0.5
    assert same["sentence"].endswith("The Monte-Carlo error is too large to tell which is favoured.")


def test_improper_priors_are_refused_by_name() -> None:
    model = bl.model("y ~ x + (1 | g)", _grouped(), priors=[bl.prior("flat()", part="fixed"), bl.prior("flat()", part="sd")])
    fit = _fit(model, b=np.zeros((2, 10, 2)))
    with pytest.raises(PriorError, match=r"needs proper priors, .*: fixed x, sd g \(Intercept\); give them one"):
        marginal_likelihood(fit)


def test_a_prior_of_all_coefficients_together_is_refused_by_name() -> None:
    model = bl.model("y ~ x + (1 | g)", _grouped(), priors=[bl.prior("horseshoe(1)", part="fixed")])
    with pytest.raises(FitError, match=r"not available: the prior horseshoe\(.*\) is not among those that it knows"):
        marginal_likelihood(_fit(model, b=np.zeros((2, 10, 2))))


def test_few_draws_are_named() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = bl.brm("y ~ x + (1 | g)", _grouped(), seed=1, chains=2, draws=100, tune=200, progressbar=False)
    with pytest.warns(ConvergenceWarning, match=r"\[few_draws_for_evidence\] 200 draws .* few .* 4 dimensions; draw at least 2000"):
        marginal_likelihood(fit, seed=1)


def _like(fit: bl.BayesFit, data: pd.DataFrame, formula: str = "y ~ x + (1 | g)", **options: Any) -> bl.BayesFit:
    return bl.BayesFit(model=bl.model(formula, data, **options), tree=fit.tree, provenance={})


def test_models_of_other_data_are_not_compared() -> None:
    fit, data = _weak("y ~ x + (1 | g)"), _grouped()
    with pytest.raises(DataError, match=r"different rows \(50 and 49\)"):
        bayes_factor(fit, _like(fit, data.iloc[1:]))
    with pytest.raises(DataError, match="responses 'y' and 'exp\\(y\\)' differ"):
        bayes_factor(fit, _like(fit, data, "exp(y) ~ x + (1 | g)"))
    counts = data.assign(y=np.arange(50) % 7)
    other = _like(fit, counts, family="poisson")
    with pytest.raises(DataError, match=r"a density \(gaussian\) and probabilities of counts \(poisson\)"):
        bayes_factor(other, _like(fit, counts))


def test_only_posteriors_have_evidence() -> None:
    classical = bl.lmer("y ~ x + (1 | g)", _grouped())
    with pytest.raises(FitError, match="of posteriors, which `brm` makes, not of ClassicalFit"):
        marginal_likelihood(classical)  # type: ignore[arg-type]
    with pytest.raises(FitError, match="of posteriors"):
        bayes_factor(_held(), classical)  # type: ignore[arg-type]
    with pytest.raises(FitError, match="unknown method 'warp'"):
        marginal_likelihood(_held(), method="warp")
    with pytest.raises(FitError, match="seed must be a whole number"):
        marginal_likelihood(_held(), seed=-1)
