"""Laws of draws from the priors: every family and structure, the distribution of each row, and responses that the family can have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import bayeslmm as bl
from bayeslmm.bayes.draws import posterior_names
from bayeslmm.bayes.prior_predictive import draw_row, lkj_factors, prior_draws
from bayeslmm.covariance import STRUCTURES
from bayeslmm.errors import FitError, PriorError
from bayeslmm.families import FAMILIES

N = 40


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    data = pd.DataFrame({"x": rng.normal(2.0, 1.5, N), "z": rng.normal(size=N), "g": np.repeat(list("ABCDEFGH"), 5)})
    data = data.assign(t=np.tile(np.arange(5), 8), size=rng.integers(3, 12, N), h=np.tile(list("pqrs"), 10))
    data["hits"] = rng.binomial(data["size"], 0.4)
    data["real"] = 4.0 + data["x"] + rng.normal(size=N)
    data["positive"], data["count"], data["yes"] = rng.gamma(2.0, 2.0, N), rng.poisson(3.0, N), rng.integers(0, 2, N)
    data["above"], data["share"] = data["count"] + 1, rng.uniform(0.05, 0.95, N)
    data["level"] = pd.Categorical(rng.integers(1, 5, N), ordered=True)
    return data


def _response(name: str, frame: pd.DataFrame) -> str:
    family = FAMILIES[name]
    if family.of_levels is not None:
        return "level"
    if family.needs_trials:
        return "hits | trials(size)"
    kinds = ("yes", "count", "above") if family.discrete else ("real", "share", "positive")
    return next(kind for kind in kinds if not family.check(frame[kind].to_numpy(float), None).any())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_responses_of_its_own(name: str, frame: pd.DataFrame) -> None:
    """With the default priors, whose tails reach beyond floating point, under every link."""
    for link in FAMILIES[name].links:
        model = bl.model(f"{_response(name, frame)} ~ x + (x | g)", frame, name, link=link)
        tree = bl.prior_predictive(model, draws=150, seed=1)
        y = tree["prior_predictive"]["y"].values[0]
        assert y.shape == (150, N)
        whole = y[~np.isnan(y).any(axis=1)]
        trials = None if model.design.trials is None else np.broadcast_to(model.design.trials, whole.shape)
        assert not model.family.check(whole, trials).any()
        if link == FAMILIES[name].link:
            assert len(whole) == 150


TERMS = {
    "homdiag": "diag(0 + x + z | g, hom = TRUE)",
    "homcs": "cs(0 + x + z | g, hom = TRUE)",
    "hetar1": "ar1(0 + x + z | g, hom = FALSE)",
}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_structure_has_effects(structure: str, frame: pd.DataFrame) -> None:
    model = bl.model(f"real ~ x + {TERMS.get(structure, f'{structure}(0 + x + z | g)')}", frame)
    prior = bl.prior_predictive(model, draws=4000, seed=1)["prior"].to_dataset()
    assert list(prior.data_vars) == posterior_names(model)
    sd, r = prior["sd_g"].values[0], prior["r_g"].values[0]
    standard = r / sd[:, None, :]
    for one in range(2):
        assert scipy.stats.kstest(standard[:, 3, one], "norm").pvalue > 1e-3
    if STRUCTURES[structure].hom:
        np.testing.assert_array_equal(sd[:, 0], sd[:, 1])
    product = np.mean(standard[:, :, 0] * standard[:, :, 1], axis=1)
    cor = prior["cor_g"].values[0][:, 0, 1] if "cor_g" in prior else np.zeros(4000)
    assert np.mean(product - cor) == pytest.approx(0.0, abs=0.03)
    if "cor_g" in prior:
        assert np.corrcoef(product, cor)[0, 1] > 0.6
        assert prior["cor_g"].dims == ("chain", "draw", "g_effect", "g_effect2")


@pytest.mark.parametrize(("k", "eta"), [(2, 1.0), (3, 2.0), (5, 0.7)])
def test_correlations_have_the_margins_of_lkj(k: int, eta: float) -> None:
    """Every correlation is Beta(eta + k / 2 - 1) on (-1, 1), and E log|C| is that of independent partial correlations."""
    L = lkj_factors(k, eta, 8000, np.random.default_rng(0))
    C = L @ L.transpose(0, 2, 1)
    np.testing.assert_allclose(np.diagonal(C, axis1=1, axis2=2), 1.0)
    margin = scipy.stats.beta(eta + k / 2 - 1, eta + k / 2 - 1)
    for i in range(1, k):
        for j in range(i):
            assert scipy.stats.kstest((C[:, i, j] + 1) / 2, margin.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("normal(0, 1)", (6.0, None)),
        ("normal(0, 1)", (None, -6.0)),
        ("student_t(3, 1, 2)", (0.0, 5.0)),
        ("cauchy(0, 1)", (None, None)),
        ("exponential(2)", (None, 1.0)),
        ("inv_gamma(0.4, 0.3)", (None, None)),
        ("logistic(0, 1)", (2.0, 3.0)),
        ("uniform(-1, 4)", (0.0, None)),
    ],
)
def test_draws_of_a_row_are_of_its_distribution_cut_to_the_bounds(text: str, limits: tuple[float | None, float | None]) -> None:
    row = bl.prior(text, part="fixed", lower=limits[0], upper=limits[1])
    values = draw_row(row, FAMILIES["gaussian"], (5000,), np.random.default_rng(2))
    assert values.min() >= row.lower
    assert values.max() <= row.upper
    make = row.distribution.kind.scipy
    assert make is not None
    frozen = make(*row.distribution.args)
    if row.lower > 0:  # by the upper tail, where the distribution function is one
        share = (frozen.sf(row.lower) - frozen.sf(values)) / (frozen.sf(row.lower) - frozen.sf(row.upper))
    else:
        share = (frozen.cdf(values) - frozen.cdf(row.lower)) / (frozen.cdf(row.upper) - frozen.cdf(row.lower))
    assert scipy.stats.kstest(share, "uniform").pvalue > 1e-3


def test_intercept_is_that_of_the_centred_design(frame: pd.DataFrame) -> None:
    model = bl.model("real ~ x + z", frame, priors=[bl.prior("normal(7, 0.5)", part="intercept")])
    b = prior_draws(model, 4000, np.random.default_rng(0))["b"].values[0]
    assert scipy.stats.kstest(b @ model.design.X.mean(axis=0), scipy.stats.norm(7, 0.5).cdf).pvalue > 1e-3


def test_thresholds_increase_and_are_draws_given_that_they_do(frame: pd.DataFrame) -> None:
    rows = [bl.prior(f"normal({2 - k}, 1)", part="aux", term=f"Intercept[{k}]") for k in (1, 2, 3)]
    for given in ([], rows):
        model = bl.model("level ~ 1", frame, "cumulative", priors=given)
        prior = prior_draws(model, 4000, np.random.default_rng(0))
        found = np.stack([prior[f"Intercept[{k}]"].values[0] for k in (1, 2, 3)], axis=1)
        assert np.all(np.diff(found, axis=1) >= 0.0)
    rng = np.random.default_rng(5)
    independent = np.array([1.0, 0.0, -1.0]) + rng.standard_normal((400_000, 3))
    kept = independent[np.all(np.diff(independent, axis=1) > 0, axis=1)]
    for k in range(3):
        assert scipy.stats.ks_2samp(found[:, k], kept[:, k]).pvalue > 1e-3


@pytest.mark.parametrize(
    ("formula", "family", "text"),
    [
        ("real ~ x + (1 | g) + (1 | h)", "gaussian", None),
        ("real ~ 1", "gaussian", None),
        ("real ~ 0 + (1 | g)", "gaussian", None),
        ("real ~ x + (1 | g/h)", "student", None),
        ("real ~ x + ar(t, g)", "gaussian", None),
        ("count ~ x + offset(z) + (x || g)", "poisson", None),
        (bl.formula("real ~ x + (1 | g)", sigma="~ z + (1 | h)"), "gaussian", None),
        (bl.formula("count ~ x", zi="~ z"), "zero_inflated_poisson", None),
        ("real ~ x + z", "gaussian", "horseshoe()"),
        ("count ~ x + z + (1 | g)", "poisson", "R2D2()"),
    ],
    ids=str,
)
def test_other_models(formula: Any, family: str, text: str | None, frame: pd.DataFrame) -> None:
    model = bl.model(formula, frame, family, priors=[bl.prior(text, part="fixed")] if text else None)
    tree = bl.prior_predictive(model, draws=60, seed=2)
    assert list(tree["prior"].data_vars) == posterior_names(model)
    assert tree["prior_predictive"]["y"].sizes == {"chain": 1, "draw": 60, "obs": N}
    np.testing.assert_array_equal(tree["observed_data"]["y"], model.design.y)
    assert np.isfinite(tree["prior_predictive"]["y"]).all()
    again = bl.prior_predictive(model, draws=60, seed=2)
    np.testing.assert_array_equal(tree["prior_predictive"]["y"], again["prior_predictive"]["y"])


def test_normal_responses_have_the_variance_of_the_priors(frame: pd.DataFrame) -> None:
    rows = [bl.prior("normal(5, 2)", part="intercept"), bl.prior("constant(1.5)", part="sd"), bl.prior("constant(0.7)", part="aux")]
    model = bl.model("real ~ 1 + (1 | g)", frame, priors=rows)
    y = bl.prior_predictive(model, draws=20_000, seed=1)["prior_predictive"]["y"].values[0]
    covariance = np.cov(y[:, [0, 1, 39]].T)
    np.testing.assert_allclose(covariance, [[6.74, 6.25, 4.0], [6.25, 6.74, 4.0], [4.0, 4.0, 6.74]], atol=0.25)
    assert y.mean() == pytest.approx(5.0, abs=0.06)


def test_a_known_covariance_among_levels_correlates_them(frame: pd.DataFrame) -> None:
    levels = list("ABCDEFGH")
    K = pd.DataFrame(np.full((8, 8), 0.9) + 0.1 * np.eye(8), index=levels, columns=levels)
    rows = [bl.prior("constant(2)", part="sd")]
    model = bl.model("real ~ 1 + (1 | gr(g, cov = K))", frame, data2={"K": K}, priors=rows)
    r = bl.prior_predictive(model, draws=5000, seed=1)["prior"]["r_g"].values[0, :, :, 0]
    np.testing.assert_allclose(np.cov(r.T), 4.0 * K.to_numpy(), atol=0.4)


def test_improper_priors_are_refused_by_name(frame: pd.DataFrame) -> None:
    model = bl.model("real ~ x + z", frame, priors=[bl.prior("flat()", part="fixed")])
    with pytest.raises(PriorError, match=r"no draws from improper priors: fixed x, fixed z have flat\(\)"):
        bl.prior_predictive(model)
    share = [bl.prior("flat()", part="aux", term="zi")]
    model = bl.model("count ~ x", frame, "zero_inflated_poisson", priors=share)
    zi = bl.prior_predictive(model, draws=2000, seed=1)["prior"]["zi"].values[0]
    assert scipy.stats.kstest(zi, "uniform").pvalue > 1e-3


def test_bad_options_are_refused(frame: pd.DataFrame) -> None:
    model = bl.model("real ~ x", frame)
    with pytest.raises(FitError, match="takes a Model"):
        bl.prior_predictive("real ~ x")  # type: ignore[arg-type]
    with pytest.raises(FitError, match="draws must be a whole number of at least 1, not 0"):
        bl.prior_predictive(model, draws=0)
    with pytest.raises(FitError, match="seed must be"):
        bl.prior_predictive(model, seed=-1)


def test_the_figure_is_of_a_model_or_its_fit(frame: pd.DataFrame) -> None:
    model = bl.model("count ~ x", frame, "poisson")
    picture = bl.plot(model, "prior_predictive", draws=50, seed=3)
    assert list(picture.data.columns) == ["draw", "mean", "sd", "q05", "median", "q95"]
    assert "from the priors" in picture.alt
    assert len(picture.png(50)) > 1000
    fitted = bl.plot(bl.glmer(model), "prior_predictive", draws=50, seed=3)
    pd.testing.assert_frame_equal(fitted.data, picture.data)
    with pytest.raises(FitError, match="figure 'trace' is of a fit: fit the model first"):
        bl.plot(model, "trace")
