"""`m.to_bambi()`: the joint log density of bambi's model is ours, and what bambi cannot express is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.bayes.translate import factors, translate
from bayeslmm.errors import FitError

pytest.importorskip("bambi")
pytestmark = [
    pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

SHARED = {"phi": "kappa", "shape": "alpha", "zi": "psi", "hu": "psi", "sigma": "sigma", "nu": "nu"}


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 40
    data = pd.DataFrame({"x": rng.normal(2.0, 1.5, n), "z": rng.normal(size=n), "g": np.repeat(list("ABCDEFGH"), 5)})
    data = data.assign(f=rng.choice(list("abc"), n), h=np.tile(list("pqrs"), 10), k=np.tile(list("uv"), 20), w=rng.uniform(0.5, 2, n))
    data["size"] = rng.integers(3, 12, n)
    data["hits"], data["count"], data["yes"] = rng.binomial(data["size"], 0.4), rng.poisson(3.0, n), rng.integers(0, 2, n)
    data["y"], data["positive"], data["share"] = 4.0 + data["x"] + rng.normal(size=n), rng.gamma(2.0, 2.0, n), rng.uniform(0.1, 0.9, n)
    return data


def _untransformed(model: Any) -> Any:
    from pymc.model.transform.conditioning import remove_value_transforms

    return remove_value_transforms(model)


def _ours(model: bl.Model) -> tuple[dict[str, np.ndarray], float]:
    """A random point of our model in the parameters' own scale, and its joint log density."""
    built = translate(model)
    rng = np.random.default_rng(1)
    point = {name: value + 0.3 * rng.normal(size=value.shape) for name, value in built.initial_point().items()}
    outputs = built.unobserved_value_vars
    found = built.compile_fn(outputs, inputs=built.value_vars, mode="FAST_COMPILE", on_unused_input="ignore")(point)
    values = {variable.name: np.asarray(value) for variable, value in zip(outputs, found, strict=True)}
    return values, float(built.compile_logp(jacobian=False, mode="FAST_COMPILE")(point))


def _in_bambis_names(model: bl.Model, values: dict[str, np.ndarray], lam: bool = False) -> dict[str, np.ndarray]:
    """The same point under the names of bambi's free variables."""
    point = {}
    for parameter, fixed in [("", model.design.fixed), *((name, part) for name, (part, _) in model.design.parameters.items())]:
        prefix, suffix = (f"{SHARED[parameter]}_", f"_{parameter}") if parameter else ("", "")
        for name, value in zip(fixed.names, values[f"b{suffix}"], strict=True):
            point[f"{prefix}{name}"] = value
        if "(Intercept)" in fixed.names:
            raw = point.pop(f"{prefix}(Intercept)")
            point[f"{prefix}Intercept"] = values.get(f"Intercept{suffix}", raw)
    for factor in factors(model):
        prefix = f"{SHARED[factor.parameter]}_" if factor.parameter else ""
        for c, effect in enumerate(factor.effects):
            label = f"{prefix}{'1' if effect == '(Intercept)' else effect}|{factor.group}"
            point[f"{label}_sigma"], point[f"{label}_offset"] = values[f"sd_{factor.label}"][c], values[f"z_{factor.label}"][:, c]
    for parameter in model.family.parameters:
        if parameter.name in values:
            value = values[parameter.name]
            theirs = "lam" if lam else SHARED[parameter.name]
            point[theirs] = 1.0 - value if parameter.name in ("zi", "hu") else value
    return point


@pytest.mark.parametrize(
    ("formula", "family", "options"),
    [
        ("y ~ x + f + (x || g)", "gaussian", {}),
        ("y ~ x + I(x^2) + (1 | h/k)", "gaussian", {}),
        ("y ~ 0 + f + (1 | g) + (0 + x | g)", "gaussian", {}),
        ("y ~ x + (1 | g)", "student", {"link": "log"}),
        ("positive ~ x + offset(z)", "lognormal", {}),
        ("yes ~ x + (1 | g)", "bernoulli", {"link": "probit"}),
        ("hits | trials(size) ~ x + (1 | g)", "binomial", {}),
        ("cbind(hits, size) ~ x + (1 | g)", "beta_binomial", {}),
        ("share ~ x", "beta", {"link": "cloglog"}),
        ("count ~ x + offset(z) + (1 | g)", "poisson", {}),
        ("count ~ x + (1 | g)", "negative_binomial", {}),
        ("positive ~ x + (1 | g)", "gamma", {"link": "log"}),
        ("positive ~ x", "inverse_gaussian", {"link": "log"}),
        ("count ~ x", "zero_inflated_poisson", {"priors": [bl.prior("beta(2, 5)", part="aux", term="zi")]}),
        ("hits | trials(size) ~ x", "zero_inflated_binomial", {}),
        ("count ~ x", "zero_inflated_negative_binomial", {}),
        ("count ~ x", "hurdle_poisson", {}),
        ("y ~ x", "gaussian", {"weights": "w", "dialect": "brms"}),
        (bl.formula("y ~ x + (1 | g)", sigma="~ z + (1 | h)"), "gaussian", {}),
    ],
    ids=str,
)
def test_joint_density_is_ours(formula: Any, family: str, options: dict[str, Any], frame: pd.DataFrame) -> None:
    model = bl.model(formula, frame, family, **options)
    values, expected = _ours(model)
    theirs = model.to_bambi()
    theirs.build()
    plain = _untransformed(theirs.backend.model)
    point = _in_bambis_names(model, values, lam=family == "inverse_gaussian")
    assert set(point) == {variable.name for variable in plain.value_vars}
    found = plain.compile_logp(mode="FAST_COMPILE")(point)
    assert found == pytest.approx(expected, rel=1e-7)


def test_priors_are_carried_over(frame: pd.DataFrame) -> None:
    rows = [
        bl.prior("normal(1, 2)", part="fixed", term="x", lower=0),
        bl.prior("normal(3, 1)", part="fixed", term="(Intercept)"),
        bl.prior("exponential(2)", part="sd"),
        bl.prior("gamma(2, 1)", part="aux"),
    ]
    model = bl.model("y ~ x + z + (1 | g)", frame, priors=rows)
    theirs = model.to_bambi()
    assert theirs.center_predictors is False
    text = str(theirs)
    for piece in (
        "Intercept ~ Normal(mu: 3.0, sigma: 1.0)",
        "x ~ normal(1, 2), lower=0",
        "Exponential(lam: 2.0)",
        "Gamma(alpha: 2.0, beta: 1.0)",
    ):
        assert piece in text
    values, expected = _ours(model)
    theirs.build()
    found = _untransformed(theirs.backend.model).compile_logp(mode="FAST_COMPILE")(_in_bambis_names(model, values))
    assert found == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(
    ("formula", "family", "options", "message"),
    [
        ("y ~ x + (x | g)", "gaussian", {}, r"correlated random effects \(x \| g\) \(write `\|\|`, as \(x \|\| g\)"),
        ("y ~ x + cs(x + z | g)", "gaussian", {}, r"the structure of cs\(x \+ z \| g\)"),
        ("y ~ x", "gaussian", {"weights": "w"}, "weights that divide the residual variance"),
        ("count ~ x", "negative_binomial1", {}, "the family 'negative_binomial1'"),
        ("count ~ x", "poisson", {"link": "sqrt"}, "the link 'sqrt'"),
        ("share ~ x", "beta", {"link": "identity"}, "identity"),
        ("y ~ x + z", "gaussian", {"priors": [bl.prior("horseshoe()", part="fixed")]}, r"the prior horseshoe\(\)"),
        (bl.formula("count ~ x", zi="~ z"), "zero_inflated_poisson", {}, "a predictor of zi"),
        ("count ~ x", "hurdle_poisson", {"priors": [bl.prior("normal(0, 1)", part="aux", term="hu")]}, r"the prior normal\(0, 1\) of hu"),
    ],
    ids=str,
)
def test_what_bambi_cannot_express_is_named(formula: Any, family: str, options: dict[str, Any], message: str, frame: pd.DataFrame) -> None:
    model = bl.model(formula, frame, family, **options)
    with pytest.raises(FitError, match="bambi cannot express this model: .*" + message):
        model.to_bambi()


def test_everything_is_named_at_once(frame: pd.DataFrame) -> None:
    ordered = frame.assign(level=pd.Categorical(frame["f"], ordered=True))
    with pytest.raises(FitError, match=r"the family 'cumulative', whose thresholds .*; correlated random effects"):
        bl.model("level ~ x + (x | g)", ordered, "cumulative").to_bambi()


def test_names_that_need_backticks(frame: pd.DataFrame) -> None:
    odd = frame.rename(columns={"x": "my x", "g": "the group"})
    theirs = bl.model("y ~ `my x` * f + poly(z, 2) + (1 | `the group`)", odd).to_bambi()
    theirs.build()
    names = {variable.name for variable in theirs.backend.model.free_RVs}
    assert {"my x", "fb", "my x:fb", "poly(z, 2)1", "1|the group_sigma"} <= names
