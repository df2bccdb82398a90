"""Bounds, horseshoe and R2D2 in PyMC and in the collapsed density: the densities written down by hand, and what draws imply."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import bayeslmm as bl
from bayeslmm.bayes.collapsed import limit
from bayeslmm.bayes.collapsed_density import density_of, evaluator
from bayeslmm.bayes.draws import posterior_names
from bayeslmm.bayes.shrinkage import SHRINKAGE
from bayeslmm.bayes.translate import translate

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 40
    data = pd.DataFrame({"x": rng.normal(2.0, 1.5, n), "z": rng.normal(size=n), "g": np.repeat(list("ABCDEFGH"), 5)})
    data["y"] = 4.0 + data["x"] + rng.normal(size=n)
    data["count"] = rng.poisson(3.0, n)
    return data


def _at_a_point(model: Any, seed: int = 1) -> dict[str, np.ndarray]:
    """All variables at a random point, and `prior`: the log density of the free ones, without the transforms' Jacobian."""
    rng = np.random.default_rng(seed)
    point = {name: value + 0.4 * rng.normal(size=value.shape) for name, value in model.initial_point().items()}
    outputs = model.unobserved_value_vars
    found = model.compile_fn(outputs, inputs=model.value_vars, mode="FAST_COMPILE", on_unused_input="ignore")(point)
    values = {variable.name: np.asarray(value) for variable, value in zip(outputs, found, strict=True)}
    logp = model.compile_logp(vars=model.free_RVs, jacobian=False, mode="FAST_COMPILE")
    return values | {"prior": np.asarray(logp(point))}


def _of(model: bl.Model, values: dict[str, np.ndarray], skip: tuple[str, ...]) -> float:
    """The prior density of everything but the coefficients: student_t intercept, half student_t sigma and sd, standard normals."""
    rows = {(row.part, row.term): row.distribution.args for row in model.prior_rows}
    total = 0.0
    for name, key in (("Intercept", ("intercept", "(Intercept)")), ("sigma", ("aux", "sigma")), ("sd_g", ("sd", "(Intercept)"))):
        if name in values and name not in skip:
            nu, mu, sigma = rows[key]
            total += float(np.sum(scipy.stats.t(nu, mu, sigma).logpdf(values[name]))) + (0.0 if name == "Intercept" else np.log(2.0))
    return total + (float(scipy.stats.norm.logpdf(values["z_g"]).sum()) if "z_g" in values else 0.0)


def test_bounded_coefficient_is_truncated_and_normalised(frame: pd.DataFrame) -> None:
    rows = [
        bl.prior("normal(1, 0.5)", part="fixed", term="x", lower=0.7),
        bl.prior("student_t(3, 0, 1)", part="fixed", term="z", lower=-0.5, upper=2),
        bl.prior("normal(3, 2)", part="intercept", upper=8),
    ]
    model = bl.model("y ~ x + z", frame, priors=rows)
    values = _at_a_point(translate(model))
    x, z = values["beta"]
    assert x > 0.7
    assert -0.5 < z < 2.0
    assert values["Intercept"] < 8.0
    normal, t = scipy.stats.norm(1.0, 0.5), scipy.stats.t(3, 0.0, 1.0)
    expected = normal.logpdf(x) - normal.logsf(0.7) + t.logpdf(z) - np.log(t.cdf(2.0) - t.cdf(-0.5))
    centred = scipy.stats.norm(3.0, 2.0)
    expected += centred.logpdf(values["Intercept"]) - centred.logcdf(8.0)
    assert values["prior"] == pytest.approx(expected + _of(model, values, ("Intercept",)), rel=1e-7)


def test_equal_bounds_keep_one_vector_of_coefficients(frame: pd.DataFrame) -> None:
    free = translate(bl.model("y ~ x + z", frame, priors=[bl.prior("normal(0, 1)", part="fixed", lower=0)])).free_RVs
    assert [variable.name for variable in free] == ["Intercept", "beta", "sigma"]


def test_bounds_in_the_collapsed_density(frame: pd.DataFrame) -> None:
    """Cutting a prior divides its density by the mass that is left: within the bounds the two posteriors differ by that constant."""
    rows = [bl.prior("normal(1, 0.5)", part="fixed", term="x", lower=0.2, upper=1.6), bl.prior("normal(0, 2)", part="aux", lower=0.1)]
    wide = [bl.prior("normal(1, 0.5)", part="fixed", term="x"), bl.prior("normal(0, 2)", part="aux")]
    bounded, free = (bl.model("y ~ x + (1 | g)", frame, priors=one) for one in (rows, wide))
    assert limit(bounded) is None
    cut, whole = density_of(bounded), density_of(free)
    x, sigma, share = 0.9, 1.3, np.log((0.9 - 0.2) / (1.6 - 0.9))
    u_cut, u_whole = np.array([6.0, share, np.log(0.8), np.log(sigma - 0.1)]), np.array([6.0, x, np.log(0.8), np.log(sigma)])
    normal, half = scipy.stats.norm(1.0, 0.5), scipy.stats.norm(0.0, 2.0)
    jacobian = np.log((0.9 - 0.2) * (1.6 - 0.9) / 1.4) + np.log(sigma - 0.1) - np.log(sigma)
    constant = -np.log(normal.cdf(1.6) - normal.cdf(0.2)) - half.logsf(0.1) + np.log(0.5)
    difference = evaluator(cut)(u_cut)[0] - evaluator(whole)(u_whole)[0]
    assert difference == pytest.approx(jacobian + constant, abs=1e-8)


def test_a_bounded_posterior_is_the_unbounded_one_cut(frame: pd.DataFrame) -> None:
    """Draws of the unbounded model that lie within the bounds are draws of the bounded one."""
    prior = {"distribution": "normal(0, 1)", "part": "fixed", "term": "x"}
    options = {"chains": 2, "draws": 2000, "tune": 500, "seed": 4, "sampler": "collapsed", "progressbar": False}
    free = bl.brm("y ~ x + (1 | g)", frame, priors=[bl.prior(**prior)], **options)  # type: ignore[arg-type]
    edge = float(free.fixef()["x"])
    bounded = bl.brm("y ~ x + (1 | g)", frame, priors=[bl.prior(**prior, lower=edge)], **options)  # type: ignore[arg-type]
    drawn, whole = bounded.draws(), free.draws()
    assert drawn.b[:, 1].min() >= edge
    kept = whole.b[:, 1] >= edge
    for mine, theirs in (
        (drawn.b[:, 1], whole.b[kept, 1]),
        (drawn.aux["sigma"], whole.aux["sigma"][kept]),
        (drawn.b[:, 0], whole.b[kept, 0]),
    ):
        error = np.hypot(mine.std() / np.sqrt(1000), theirs.std() / np.sqrt(1000))
        assert abs(mine.mean() - theirs.mean()) < 4.0 * error


def _half_t(nu: float, scale: float, x: np.ndarray) -> float:
    return float(np.sum(scipy.stats.t(nu, 0.0, scale).logpdf(x) + np.log(2.0)))


@pytest.mark.parametrize(
    ("formula", "family", "text", "scaled"),
    [
        ("y ~ x + z + (1 | g)", "gaussian", "horseshoe(2, par_ratio=0.3)", True),
        ("y ~ x + z", "gaussian", "horseshoe(1, 0.5, 3, 1.5, 6, autoscale=FALSE)", False),
        ("count ~ x + z", "poisson", "horseshoe()", False),
        ("y ~ 0 + x + z", "gaussian", "horseshoe(1)", True),
    ],
)
def test_horseshoe_is_that_of_brms_stan_code(formula: str, family: str, text: str, scaled: bool, frame: pd.DataFrame) -> None:
    """Densities as brms 2.18's `make_stancode` writes them; see brms's `horseshoe` and Piironen and Vehtari (2017)."""
    row = bl.prior(text, part="fixed")
    model = bl.model(formula, frame, family, priors=[row])
    values = _at_a_point(translate(model))
    df, scale_global, df_global, scale_slab, df_slab, par_ratio, _ = row.distribution.args
    scale = (par_ratio / np.sqrt(40) if par_ratio else scale_global) * (float(values["sigma"]) if scaled else 1.0)
    local, tau, slab, z = values["hs_local"], values["hs_global"], values["hs_slab"], values["beta_z"]
    expected = _half_t(df, 1.0, local) + _half_t(df_global, scale, tau) + scipy.stats.norm.logpdf(z).sum()
    expected += scipy.stats.invgamma(0.5 * df_slab, scale=0.5 * df_slab).logpdf(slab)
    if family == "poisson":
        expected += float(scipy.stats.t(*model.prior_rows[0].distribution.args).logpdf(values["Intercept"]))
    else:
        expected += _of(model, values, ())
    assert values["prior"] == pytest.approx(expected, rel=1e-7)
    c2 = scale_slab**2 * slab
    np.testing.assert_allclose(values["beta"], z * np.sqrt(c2 * local**2 / (c2 + tau**2 * local**2)) * tau, rtol=1e-9)


@pytest.mark.parametrize(("family", "formula"), [("gaussian", "y ~ x + z + (1 | g)"), ("gaussian", "y ~ x"), ("poisson", "count ~ x + z")])
def test_R2D2_is_that_of_brms_stan_code(family: str, formula: str, frame: pd.DataFrame) -> None:
    model = bl.model(formula, frame, family, priors=[bl.prior("R2D2(0.4, 5, 0.7)", part="fixed")])
    values = _at_a_point(translate(model))
    R2, z = values["R2D2_R2"], values["beta_z"]
    phi = values.get("R2D2_phi", np.ones(1))
    expected = scipy.stats.beta(2.0, 3.0).logpdf(R2) + scipy.stats.norm.logpdf(z).sum()
    if len(z) > 1:
        expected += scipy.stats.dirichlet(np.full(2, 0.7)).logpdf(phi)
    tau2 = R2 / (1 - R2)
    if family == "poisson":
        expected += float(scipy.stats.t(*model.prior_rows[0].distribution.args).logpdf(values["Intercept"]))
    else:
        expected += _of(model, values, ())
        tau2 = tau2 * values["sigma"] ** 2
    assert values["prior"] == pytest.approx(expected, rel=1e-7)
    np.testing.assert_allclose(values["beta"], z * np.sqrt(phi * tau2), rtol=1e-9)


def test_draws_of_R2D2_imply_a_beta_distributed_R2() -> None:
    """Of independent predictors of variance one, the explained variance sum(beta^2) has mean tau^2 given tau: with K large it is tau^2."""
    rng = np.random.default_rng(0)
    given = {"mean_R2": 0.6, "prec_R2": 8.0, "cons_D2": 5.0, "autoscale": 1.0}
    sigma = np.exp(rng.normal(size=4000))
    values, beta = SHRINKAGE["R2D2"].draw(rng, 4000, given, 200, 50, sigma)
    explained = np.sum(beta**2, axis=1)
    implied = explained / (explained + sigma**2)
    theory = scipy.stats.beta(4.8, 3.2)
    assert scipy.stats.kstest(values["R2D2_R2"], theory.cdf).pvalue > 1e-3
    assert scipy.stats.kstest(implied, theory.cdf).statistic < 0.05


def test_draws_of_the_horseshoe_are_those_of_its_definition() -> None:
    """With an infinite slab and one local parameter the median of |beta| is that of a product of two half-Cauchys and a normal."""
    rng, other = np.random.default_rng(0), np.random.default_rng(1)
    given = {"df": 1.0, "scale_global": 0.1, "df_global": 1.0, "scale_slab": 1e12, "df_slab": 4.0, "par_ratio": 0.0, "autoscale": 1.0}
    _, beta = SHRINKAGE["horseshoe"].draw(rng, 20_000, given, 1, 50, np.full(20_000, 3.0))
    product = 0.3 * np.abs(other.standard_cauchy(20_000) * other.standard_cauchy(20_000) * other.standard_normal(20_000))
    assert scipy.stats.ks_2samp(np.log(np.abs(beta[:, 0])), np.log(product)).pvalue > 1e-3
    narrow = given | {"scale_slab": 0.2, "scale_global": 1e6}
    values, beta = SHRINKAGE["horseshoe"].draw(rng, 20_000, narrow, 1, 50, np.ones(20_000))
    assert scipy.stats.kstest(beta[:, 0] / 0.2, scipy.stats.t(4).cdf).pvalue > 1e-3
    assert set(values) == set(SHRINKAGE["horseshoe"].variables)


def test_density_of_the_shrinkage_parameters_is_scipys() -> None:
    given = {"df": 1.0, "scale_global": 0.4, "df_global": 3.0, "scale_slab": 2.0, "df_slab": 6.0, "par_ratio": 0.0, "autoscale": 1.0}
    found = SHRINKAGE["horseshoe"].log_density({"hs_global": np.array([0.7]), "hs_slab": np.array([1.2])}, given, 50, np.array([1.5]))
    expected = scipy.stats.t(3, 0, 0.6).logpdf(0.7) + np.log(2.0) + scipy.stats.invgamma(3.0, scale=3.0).logpdf(1.2)
    assert found[0] == pytest.approx(expected)
    R2D2 = {"mean_R2": 0.4, "prec_R2": 5.0, "cons_D2": 1.0, "autoscale": 1.0}
    assert SHRINKAGE["R2D2"].log_density({"R2D2_R2": np.array([0.3])}, R2D2, 50, 1.0)[0] == pytest.approx(
        scipy.stats.beta(2, 3).logpdf(0.3)
    )


def test_the_sampler_and_the_posterior_know_them(frame: pd.DataFrame) -> None:
    model = bl.model("y ~ x + z + (1 | g)", frame, priors=[bl.prior("horseshoe()", part="fixed")])
    assert "horseshoe" in str(limit(model))
    assert {"hs_global", "hs_slab"} <= set(posterior_names(model))
    raw = [bl.prior("R2D2()", part="fixed"), bl.prior("normal(0, 9)", part="fixed", term="(Intercept)")]
    values = _at_a_point(translate(bl.model("y ~ x + z", frame, priors=raw)))
    np.testing.assert_allclose(values["b"][0], values["beta[(Intercept)]"])
    assert len(values["beta_z"]) == 2
