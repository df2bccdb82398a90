"""The translated model's log density is the one written down by hand, whatever the formula, priors, weights and names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import bayeslmm as bl
from bayeslmm.bayes.translate import factors, translate
from bayeslmm.families import LINKS
from bayeslmm.priors import log_density

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 48
    data = pd.DataFrame(
        {
            "x": rng.normal(2.0, 1.5, n),
            "z": rng.normal(size=n),
            "f": rng.choice(list("abc"), n),
            "g": np.repeat(list("ABCDEFGH"), 6),
            "h": np.tile(list("pqrs"), 12),
            "k": np.tile(list("uv"), 24),
            "w": rng.uniform(0.5, 3.0, n),
            "size": rng.integers(3, 12, n),
            "off": rng.normal(size=n),
        }
    )
    data["y"] = 10.0 + data["x"] + rng.normal(size=n)
    data["count"] = rng.poisson(3.0, n)
    data["hits"] = rng.binomial(data["size"], 0.4)
    data["yes"] = rng.integers(0, 2, n)
    return data


def _values(model: Any, seed: int = 1) -> dict[str, np.ndarray]:
    """Every free variable and deterministic at a random point, and `logp` without the Jacobian of the transforms."""
    rng = np.random.default_rng(seed)
    point = {name: value + 0.4 * rng.normal(size=value.shape) for name, value in model.initial_point().items()}
    outputs = model.unobserved_value_vars
    found = model.compile_fn(outputs, inputs=model.value_vars, mode="FAST_COMPILE", on_unused_input="ignore")(point)
    values = {variable.name: np.asarray(value) for variable, value in zip(outputs, found, strict=True)}
    return values | {"logp": np.asarray(model.compile_logp(jacobian=False, mode="FAST_COMPILE")(point))}


def _row_prior(model: bl.Model, part: str, values: np.ndarray, group: str = "", lower: float = -np.inf, parameter: str = "") -> float:
    rows = [row for row in model.prior_rows if (row.part, row.group, row.parameter) == (part, group, parameter)]
    assert len(rows) == np.size(values)
    return sum(float(log_density(row.distribution, value, lower)) for row, value in zip(rows, np.ravel(values), strict=True))


def _lkj2(r: float, eta: float) -> float:
    """LKJ on a 2 x 2 correlation matrix: (r + 1) / 2 is Beta(eta, eta)."""
    return float(scipy.stats.beta(eta, eta).logpdf((r + 1) / 2) - np.log(2))


def _eta(model: bl.Model, values: dict[str, np.ndarray]) -> np.ndarray:
    """X b + Z r + offset, by the columns of the design, rows one by one."""
    design = model.design
    eta = design.offset + design.X @ values["b"]
    for factor in factors(model):
        if not factor.parameter:
            for block, columns in zip(factor.blocks, factor.columns, strict=True):
                r = values[f"r_{factor.label}"][:, columns]
                eta = eta + np.array([block.values[i] @ r[block.index[i]] for i in range(len(design.y))])
    return eta


def _likelihood(model: bl.Model, values: dict[str, np.ndarray], aux: dict[str, Any] | None = None, power: Any = 1.0) -> float:
    mu = LINKS[model.link.name].inverse(_eta(model, values))
    given = {parameter.name: values[parameter.name] for parameter in model.family.parameters} if aux is None else aux
    return float(np.sum(power * model.family.loglik(model.design.y, mu, given, model.design.trials)))


def test_correlated_slopes(frame: pd.DataFrame) -> None:
    model = bl.model("y ~ x + (x | g)", frame)
    values = _values(translate(model))
    r = values["cor_g"][0, 1]
    expected = (
        _row_prior(model, "intercept", values["Intercept"])
        + _row_prior(model, "fixed", values["beta"])
        + _row_prior(model, "sd", values["sd_g"], "g", 0.0)
        + _row_prior(model, "aux", values["sigma"], lower=0.0)
        + _lkj2(r, 2.0)
        + scipy.stats.norm.logpdf(values["z_g"]).sum()
        + _likelihood(model, values)
    )
    assert values["logp"] == pytest.approx(expected, rel=1e-9)
    assert r != 0.0
    S = np.diag(values["sd_g"]) @ values["cor_g"] @ np.diag(values["sd_g"])
    np.testing.assert_allclose(values["r_g"], values["z_g"] @ np.linalg.cholesky(S).T, rtol=1e-9)


def test_intercept_is_of_the_centred_design(frame: pd.DataFrame) -> None:
    values = _values(translate(bl.model("y ~ x + z + (1 | g)", frame)))
    means = frame[["x", "z"]].mean().to_numpy()
    assert values["b"][0] == pytest.approx(values["Intercept"] - means @ values["beta"])
    np.testing.assert_array_equal(values["b"][1:], values["beta"])


@pytest.mark.parametrize(
    ("formula", "family"),
    [
        ("hits | trials(size) ~ x + (1 | g)", "binomial"),
        ("yes ~ x + (1 | g)", "bernoulli"),
        ("count ~ x + offset(off) + (1 | g)", "poisson"),
        ("y ~ x + (1 | g)", "student"),
        ("y ~ 0 + f + (1 | g)", "gaussian"),
        ("y ~ 0 + (1 | g)", "gaussian"),
        ("y ~ 1 + (1 | g)", "gaussian"),
        ("y ~ x + (1 | g) + (1 | h)", "gaussian"),
        ("y ~ x + (1 | h/k)", "gaussian"),
        ("y ~ x + (x || g)", "gaussian"),
        ("y ~ x + diag(x | g)", "gaussian"),
        ("y ~ x", "gaussian"),
    ],
)
def test_other_models(formula: str, family: str, frame: pd.DataFrame) -> None:
    model = bl.model(formula, frame, family)
    values = _values(translate(model))
    expected = _likelihood(model, values)
    if "Intercept" in values:
        expected += _row_prior(model, "intercept", values["Intercept"])
    if "beta" in values:
        expected += _row_prior(model, "fixed", values["beta"])
    for factor in factors(model):
        assert not factor.correlated
        expected += _row_prior(model, "sd", values[f"sd_{factor.label}"], factor.group, 0.0)
        expected += scipy.stats.norm.logpdf(values[f"z_{factor.label}"]).sum()
        np.testing.assert_allclose(values[f"r_{factor.label}"], values[f"z_{factor.label}"] * values[f"sd_{factor.label}"])
    for parameter in model.family.parameters:
        (row,) = [row for row in model.prior_rows if row.term == parameter.name]
        expected += float(log_density(row.distribution, values[parameter.name], parameter.lower))
    assert values["logp"] == pytest.approx(expected, rel=1e-8)


def test_correlation_is_sampled_and_shapes_the_effects(frame: pd.DataFrame) -> None:
    """`(x | g)` must keep its correlation: it is free, and the effects drawn under it have it."""
    import pymc as pm

    model = translate(bl.model("y ~ x + (x | g)", frame, priors=[bl.prior("constant(2)", part="sd")]))
    assert "L_g" in [variable.name for variable in model.free_RVs]
    r, cor = pm.draw([model["r_g"], model["cor_g"]], draws=4000, random_seed=5, mode="FAST_COMPILE")
    rho = cor[:, 0, 1]
    assert rho.std() > 0.2
    product = (r[:, :, 0] * r[:, :, 1]).mean(axis=1) / 4.0
    assert np.polyfit(rho, product, 1)[0] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("formula", ["y ~ x + (x || g)", "y ~ x + diag(x | g)"])
def test_independent_effects_have_no_correlation(formula: str, frame: pd.DataFrame) -> None:
    model = translate(bl.model(formula, frame))
    assert not [name for name in model.named_vars if name.startswith(("cor_", "L_"))]
    assert tuple(model.coords["g_effect"]) == ("(Intercept)", "x")


def test_terms_of_one_factor_are_merged_and_independent(frame: pd.DataFrame) -> None:
    pymc_model = translate(bl.model("y ~ x + (x | g) + (0 + z | g)", frame))
    values = _values(pymc_model)
    assert tuple(pymc_model.coords["g_effect"]) == ("(Intercept)", "x", "z")
    assert values["sd_g"].shape == (3,)
    np.testing.assert_array_equal(values["cor_g"][2], [0.0, 0.0, 1.0])
    assert abs(values["cor_g"][0, 1]) > 0.01


@pytest.mark.parametrize("structure", ["cs", "ar1"])
def test_structured_correlations(structure: str, frame: pd.DataFrame) -> None:
    values = _values(translate(bl.model(f"y ~ x + {structure}(0 + f | g)", frame)))
    cor = values["cor_g"]
    rho = cor[0, 1]
    other = {"cs": rho, "ar1": rho**2}[structure]
    np.testing.assert_allclose(cor, [[1, rho, other], [rho, 1, rho], [other, rho, 1]], rtol=1e-12)
    assert abs(rho) > 0.01
    if structure == "ar1":
        assert np.ptp(values["sd_g"]) == 0


def test_prior_on_the_raw_intercept(frame: pd.DataFrame) -> None:
    model = bl.model("y ~ x + (1 | g)", frame, priors=[bl.prior("normal(10, 3)", part="fixed", term="(Intercept)")])
    pymc_model = translate(model)
    values = _values(pymc_model)
    assert "Intercept" not in values
    np.testing.assert_array_equal(values["b"], values["beta"])
    prior = scipy.stats.norm(10, 3).logpdf(values["b"][0])
    rest = (
        float(log_density(model.prior_rows[1].distribution, values["b"][1]))
        + _row_prior(model, "sd", values["sd_g"], "g", 0.0)
        + _row_prior(model, "aux", values["sigma"], lower=0.0)
    )
    expected = prior + rest + scipy.stats.norm.logpdf(values["z_g"]).sum() + _likelihood(model, values)
    assert values["logp"] == pytest.approx(expected, rel=1e-9)


def test_priors_of_different_distributions(frame: pd.DataFrame) -> None:
    rows = [
        bl.prior("cauchy(0, 1)", part="fixed", term="x"),
        bl.prior("exponential(0.3)", part="sd", term="x"),
        bl.prior("constant(1.5)", part="aux", term="sigma"),
    ]
    model = bl.model("y ~ x + z + (x | g)", frame, priors=rows)
    values = _values(translate(model))
    assert values["sigma"] == 1.5
    expected = (
        _row_prior(model, "intercept", values["Intercept"])
        + _row_prior(model, "fixed", values["beta"])
        + _row_prior(model, "sd", values["sd_g"], "g", 0.0)
        + _lkj2(values["cor_g"][0, 1], 2.0)
        + scipy.stats.norm.logpdf(values["z_g"]).sum()
        + _likelihood(model, values)
    )
    assert values["logp"] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dialect", ["lme4", "brms"])
def test_weights(dialect: str, frame: pd.DataFrame) -> None:
    model = bl.model("y ~ x", frame, weights="w", dialect=dialect)
    values = _values(translate(model))
    priors = _row_prior(model, "intercept", values["Intercept"]) + _row_prior(model, "fixed", values["beta"])
    priors += _row_prior(model, "aux", values["sigma"], lower=0.0)
    w = frame["w"].to_numpy()
    if dialect == "lme4":
        likelihood = _likelihood(model, values, {"sigma": values["sigma"] / np.sqrt(w)})
    else:
        likelihood = _likelihood(model, values, power=w)
    assert values["logp"] == pytest.approx(priors + likelihood, rel=1e-9)


def test_predictor_of_sigma(frame: pd.DataFrame) -> None:
    model = bl.model(bl.formula("y ~ x + (1 | g)", sigma="~ z"), frame)
    pymc_model = translate(model)
    values = _values(pymc_model)
    assert tuple(pymc_model.coords["fixed_sigma"]) == ("(Intercept)", "z")
    assert "sigma" not in values
    sigma = np.exp(values["b_sigma"][0] + values["b_sigma"][1] * frame["z"].to_numpy())
    expected = (
        _row_prior(model, "intercept", values["Intercept"])
        + _row_prior(model, "fixed", values["beta"])
        + _row_prior(model, "intercept", values["Intercept_sigma"], parameter="sigma")
        + _row_prior(model, "fixed", values["beta_sigma"], parameter="sigma")
        + _row_prior(model, "sd", values["sd_g"], "g", 0.0)
        + scipy.stats.norm.logpdf(values["z_g"]).sum()
        + _likelihood(model, values, {"sigma": sigma})
    )
    assert values["logp"] == pytest.approx(expected, rel=1e-9)


COLLIDING = ["b", "fixed", "draw", "chain", "sigma", "mu", "obs", "slope", "beta", "Intercept", "z_g", "L"]


@pytest.mark.parametrize("name", COLLIDING)
def test_a_factor_or_predictor_of_any_name(name: str, frame: pd.DataFrame) -> None:
    renamed = frame.rename(columns={"g": name})
    model = translate(bl.model(f"y ~ x + (x | {name})", renamed))
    reference = translate(bl.model("y ~ x + (x | g)", frame))
    assert float(_values(model)["logp"]) == pytest.approx(float(_values(reference)["logp"]))
    assert f"r_{name}" in model.named_vars
    as_predictor = translate(bl.model(f"y ~ {name} + (1 | g)", frame.rename(columns={"x": name})))
    assert tuple(as_predictor.coords["fixed"]) == ("(Intercept)", name)


def test_factors_named_as_each_others_variables(frame: pd.DataFrame) -> None:
    model = translate(bl.model("y ~ x + (1 | g) + (1 | r_g) + (1 | g_effect)", frame.rename(columns={"h": "r_g", "k": "g_effect"})))
    assert {"r_g", "r_r_g", "r_g_effect"} <= set(model.named_vars)


def test_interaction_of_factors_keeps_its_label(frame: pd.DataFrame) -> None:
    model = translate(bl.model("y ~ x + (1 | h:k)", frame))
    assert model.named_vars_to_dims["r_h:k"] == ("h:k", "h:k_effect")
    assert set(model.coords["h:k"]) == {f"{h}:{k}" for h, k in zip(frame["h"], frame["k"], strict=True)}


def test_an_effect_in_two_terms_of_a_factor_is_numbered(frame: pd.DataFrame) -> None:
    model = translate(bl.model("y ~ x + (1 | g) + (1 + x | g)", frame))
    assert tuple(model.coords["g_effect"]) == ("(Intercept)", "(Intercept).1", "x")
