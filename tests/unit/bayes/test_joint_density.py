"""The joint density of all parameters against PyMC's own, and its coordinates against the collapsed density's."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

import bayeslmm as bl
from bayeslmm.bayes.collapsed_density import density_of
from bayeslmm.bayes.collapsed_effects import coefficients, correlations, deviations, effects, values_of
from bayeslmm.bayes.draws import posterior_names
from bayeslmm.bayes.joint_density import layout_of, limit, log_joint, points
from bayeslmm.bayes.translate import translate
from bayeslmm.priors import PriorRow

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")


def _data() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 48
    g = np.repeat(list("ABCDEFGH"), 6)
    frame = pd.DataFrame({"x": rng.normal(2.0, 1.5, n), "f": rng.choice(list("abc"), n), "g": g, "h": np.tile(list("pqrs"), 12)})
    frame["w"], frame["size"] = rng.uniform(0.5, 3.0, n), rng.integers(3, 12, n)
    frame["y"], frame["count"] = 10.0 + frame["x"] + rng.normal(size=n), rng.poisson(3.0, n)
    frame["hits"] = rng.binomial(frame["size"], 0.4)
    frame["time"] = np.tile(np.arange(6), 8)
    frame["o"] = pd.Categorical(rng.choice(["low", "mid", "high", "top"], n), categories=["low", "mid", "high", "top"], ordered=True)
    return frame


def _relationship() -> pd.DataFrame:
    rng = np.random.default_rng(5)
    root = rng.normal(size=(8, 8)) + 3.0 * np.eye(8)
    return pd.DataFrame(root @ root.T / 10.0, index=list("ABCDEFGH"), columns=list("ABCDEFGH"))


MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "binomial": ("hits | trials(size) ~ x + f + (1 | g) + (1 | h)", {"family": "binomial"}),
    "poisson": ("count ~ x + (x || g) + offset(w)", {"family": "poisson"}),
    "negative_binomial": ("count ~ 0 + f + (1 | g)", {"family": "negative_binomial"}),
    "student": ("y ~ x + (1 | g)", {"family": "student"}),
    "no_random_effects": ("y ~ x", {"weights": "w"}),
    "powers": ("y ~ x + (1 | g)", {"weights": "w", "dialect": "brms"}),
    "sigma": (bl.formula("y ~ x + (1 | g)", sigma="~ x + (1 | h)"), {}),
    "hurdle": (bl.formula("count ~ x + (1 | g)", hu="~ 0 + x"), {"family": "hurdle_poisson"}),
    "known": ("y ~ x + (1 | gr(g, cov = A))", {"data2": {"A": _relationship()}}),
    "series": ("y ~ x + ar(time = time, gr = g)", {}),
    "sequential": ("o ~ x + (1 | g)", {"family": "sratio"}),
    "raw_intercept": ("y ~ x + (1 | g)", {"priors": [bl.prior("normal(8, 3)", part="fixed", term="(Intercept)")]}),
    "held": ("count ~ x + (1 | g)", {"family": "poisson", "priors": [bl.prior("constant(0.5)", part="sd")]}),
    "bounded": (
        "y ~ x + (1 | g)",
        {"priors": [bl.prior("uniform(0, 4)", part="aux"), bl.prior("uniform(-2, 3)", part="fixed"), bl.prior("gamma(2, 1)", part="sd")]},
    ),
    "shared_deviation": ("y ~ x + diag(0 + f | g, hom = TRUE)", {}),
}


def _posterior(model: bl.Model, values: dict[str, np.ndarray]) -> xr.Dataset:
    """The public names of one draw, with dimensions that nobody asks for."""
    variables = {}
    for name in posterior_names(model):
        value = np.asarray(values[name], dtype=float)
        variables[name] = (("chain", "draw", *(f"{name}_{axis}" for axis in range(value.ndim))), value[None, None])
    return xr.Dataset(variables)


def _pymc(model: bl.Model, seed: int) -> tuple[xr.Dataset, float]:
    """A random point of PyMC's model by the public names, and its log density there with the Jacobians."""
    translated = translate(model)
    rng = np.random.default_rng(seed)
    point = {name: value + 0.3 * rng.normal(size=value.shape) for name, value in translated.initial_point().items()}
    outputs = translated.unobserved_value_vars
    found = translated.compile_fn(outputs, inputs=translated.value_vars, mode="FAST_COMPILE", on_unused_input="ignore")(point)
    values = {variable.name: np.asarray(value) for variable, value in zip(outputs, found, strict=True)}
    return _posterior(model, values), float(translated.compile_logp(mode="FAST_COMPILE")(point))


@pytest.mark.parametrize("name", list(MODELS))
def test_the_density_is_pymcs_with_the_same_transforms(name: str) -> None:
    formula, options = MODELS[name]
    model = bl.model(formula, _data(), **options)
    layout = layout_of(model)
    posterior, expected = _pymc(model, seed=1)
    u = points(layout, posterior, random=True)
    assert u.shape == (1, 1, layout.dim)
    assert log_joint(layout, u[0])[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("distribution", ["normal(0, 2)", "student_t(3, 1, 2.5)"])
def test_ordered_thresholds_have_a_prior_that_integrates_to_one(distribution: str) -> None:
    model = bl.model("o ~ x", _data(), family="cumulative", priors=[bl.prior(distribution, part="aux")])
    layout = layout_of(model)
    posterior, expected = _pymc(model, seed=2)
    u = points(layout, posterior, random=True)
    assert log_joint(layout, u[0])[0] == pytest.approx(expected + math.log(math.factorial(3)), rel=1e-9)


def test_thresholds_of_different_priors_are_normalised_by_the_probability_of_their_order() -> None:
    priors = [bl.prior("normal(-1, 1)", part="aux", term="Intercept[1]"), bl.prior("normal(2, 3)", part="aux", term="Intercept[3]")]
    model = bl.model("o ~ x", _data(), family="cumulative", priors=[bl.prior("normal(0, 2)", part="aux"), *priors])
    posterior, expected = _pymc(model, seed=2)
    layout = layout_of(model)
    gained = log_joint(layout, points(layout, posterior, random=True)[0])[0] - expected
    drawn = stats.norm([-1.0, 0.0, 2.0], [1.0, 2.0, 3.0]).rvs((1_000_000, 3), random_state=3)
    assert math.exp(-gained) == pytest.approx(np.mean((drawn[:, 0] < drawn[:, 1]) & (drawn[:, 1] < drawn[:, 2])), abs=0.002)


GAUSSIAN = {
    "correlated": "y ~ x + f + (f | g)",
    "compound": "y ~ x + cs(0 + f | g) + (1 | h)",
    "autoregressive": "y ~ x + ar1(0 + f | g) + (x | h)",
    "two_terms": "y ~ 1 + (x | g) + (0 + f | g)",
}


@pytest.mark.parametrize("name", list(GAUSSIAN))
def test_points_of_a_posterior_are_those_that_it_was_made_from(name: str) -> None:
    model = bl.model(GAUSSIAN[name], _data())
    density, layout = density_of(model), layout_of(model)
    rng = np.random.default_rng(4)
    u = density.start + 0.3 * rng.normal(size=(1, 6, density.dim))
    values = values_of(density, u[0])
    drawn = effects(density, values, rng)
    variables: dict[str, Any] = {"b": coefficients(density, values), "sigma": values.x[:, -1]}
    for f, group in enumerate(density.groups):
        variables |= {f"sd_{group.label}": deviations(density, values, f), f"r_{group.label}": drawn[f]}
        if group.correlated:
            variables[f"cor_{group.label}"] = correlations(density, values, f)
    arrays = {key: (("chain", "draw", *(f"{key}_{a}" for a in range(v.ndim - 1))), v[None]) for key, v in variables.items()}
    posterior = xr.Dataset(arrays)
    np.testing.assert_allclose(points(layout, posterior, random=False), u, rtol=1e-8, atol=1e-9)
    whole = points(layout, posterior, random=True)
    assert whole.shape == (1, 6, layout.dim)
    assert np.all(np.isfinite(log_joint(layout, whole[0])))


def _dense(model: bl.Model, density: Any, values: Any, drawn: Any) -> np.ndarray:
    """log p(y | b, r, sigma) + log p(r | sd, cor), row by row and level by level."""
    design = model.design
    total = np.zeros(len(values.x))
    b = coefficients(density, values)
    for s in range(len(total)):
        mean = design.X @ b[s]
        for f, group in enumerate(density.groups):
            sd, R = deviations(density, values, f)[s], correlations(density, values, f)[s]
            total[s] += stats.multivariate_normal(np.zeros(len(sd)), R * np.outer(sd, sd)).logpdf(drawn[f][s]).sum()
            for block, columns in zip(group.blocks, group.columns, strict=True):
                mean = mean + np.sum(drawn[f][s][block.index][:, columns] * block.values, axis=1)
        total[s] += stats.norm(mean, values.x[s, -1]).logpdf(design.y).sum()
    return total


def test_random_effects_enter_as_their_normal_density() -> None:
    """Less the priors and the Jacobian of z = L^-1 r / sd it is p(y | r) p(r), written down densely; LKJ's part cancels in differences."""
    model = bl.model("y ~ x + (f | g)", _data())
    density, layout = density_of(model), layout_of(model)
    rng = np.random.default_rng(4)
    u = np.repeat(density.start[None], 5, axis=0)
    values = values_of(density, u)
    drawn = effects(density, values, rng)
    (group,) = density.groups
    posterior = xr.Dataset(
        {
            "b": (("chain", "draw", "p"), coefficients(density, values)[None]),
            "sigma": (("chain", "draw"), values.x[None, :, -1]),
            f"sd_{group.label}": (("chain", "draw", "k"), deviations(density, values, 0)[None]),
            f"cor_{group.label}": (("chain", "draw", "k", "l"), correlations(density, values, 0)[None]),
            f"r_{group.label}": (("chain", "draw", "j", "k"), drawn[0][None]),
        }
    )
    found = log_joint(layout, points(layout, posterior, random=True)[0])
    expected = _dense(model, density, values, drawn)
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-9)


def test_what_it_cannot_evaluate_it_names() -> None:
    model = bl.model("o ~ x", _data(), family="cumulative", priors=[bl.prior("uniform(-5, 5)", part="aux")])
    assert "uniform(-5, 5) of thresholds is bounded" in str(limit(model))
    assert limit(bl.model("y ~ x + (1 | g)", _data())) is None
    assert all(isinstance(row, PriorRow) for row in model.prior_rows)
