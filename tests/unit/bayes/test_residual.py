"""Residuals correlated in time in the Bayesian engine: densities against the multivariate normal, draws, defaults, refusals."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pymc as pm
import pytest
from scipy.stats import multivariate_normal, norm, uniform

import bayeslmm as bl
from bayeslmm.bayes import log_likelihood
from bayeslmm.bayes.shared_data import separated
from bayeslmm.bayes.translate import translate
from bayeslmm.errors import FitError, PriorError
from bayeslmm.prediction import _observations, _rows
from tests.unit.bayes.test_fit import STATS

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    data = pd.DataFrame([(g, t) for g in "abcdef" for t in (0, 1, 2, 4, 7)], columns=["g", "t"])
    data["x"], data["w"] = rng.normal(size=30), rng.uniform(0.5, 2.0, size=30)
    data["y"] = data["x"] + rng.normal(size=30)
    return data.sample(frac=1.0, random_state=1).reset_index(drop=True)


def correlation(frame: pd.DataFrame, rho: float) -> np.ndarray:
    lag = np.abs(frame["t"].to_numpy()[:, None] - frame["t"].to_numpy())
    return np.where(frame["g"].to_numpy()[:, None] == frame["g"].to_numpy(), rho**lag, 0.0)


def values_of(model: Any) -> dict[str, np.ndarray]:
    """Free variables and deterministics at a point, and the log density of each (`logp_<name>`)."""
    rng = np.random.default_rng(1)
    point = {name: value + 0.7 + 0.2 * rng.normal(size=value.shape) for name, value in model.initial_point().items()}
    outputs = model.unobserved_value_vars
    found = model.compile_fn(outputs, inputs=model.value_vars, mode="FAST_COMPILE", on_unused_input="ignore")(point)
    values = {variable.name: np.asarray(value) for variable, value in zip(outputs, found, strict=True)}
    variables = [*model.free_RVs, *model.observed_RVs]
    densities = model.compile_fn(model.logp(variables, jacobian=False, sum=False), inputs=model.value_vars, mode="FAST_COMPILE")(point)
    return values | {f"logp_{variable.name}": np.asarray(one) for variable, one in zip(variables, densities, strict=True)}


@pytest.mark.parametrize("sigma", [None, "~ x"])
@pytest.mark.parametrize("weights", [None, "w"])
def test_the_density_is_the_multivariate_normal(frame: pd.DataFrame, sigma: str | None, weights: str | None) -> None:
    text = "y ~ x + (1 | g) + ar(time = t, gr = g)"
    model = bl.model(bl.formula(text, sigma=sigma) if sigma else text, frame, weights=weights)
    values = values_of(translate(model))
    rho = float(values["ar"])
    assert rho > 0.2
    design = model.design
    mean = design.X @ values["b"] + values["r_g"][design.blocks[0].index, 0]
    sd = np.exp(design.parameters["sigma"][0].X @ values["b_sigma"]) if sigma else np.full(30, float(values["sigma"]))
    sd = sd / np.sqrt(design.weights)
    V = sd[:, None] * correlation(frame, rho) * sd
    assert values["logp_y"].sum() == pytest.approx(multivariate_normal(mean, V).logpdf(frame["y"]), rel=1e-9)
    assert values["logp_ar"] == pytest.approx(uniform(-1.0, 2.0).logpdf(rho))


@pytest.fixture(scope="module")
def fit(frame: pd.DataFrame) -> bl.BayesFit:
    from pymc.testing import mock_sample

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pm, "sample", partial(mock_sample, sample_stats=STATS))
        return bl.brm("y ~ x + (1 | g) + ar(t, g)", frame, sampler="pymc", draws=400, chains=4, seed=3)


def test_rows_given_the_earlier_ones_add_up_to_the_whole(fit: bl.BayesFit, frame: pd.DataFrame) -> None:
    draws = fit.draws()
    found = log_likelihood(fit).reshape(draws.n_draws, -1)
    design = fit.model.design
    for s in (0, 17, 60):
        mean = design.X @ draws.b[s] + draws.effects[0][s][design.blocks[0].index, 0]
        V = draws.aux["sigma"][s] ** 2 * correlation(frame, float(draws.aux["ar"][s]))
        assert found[s].sum() == pytest.approx(multivariate_normal(mean, V, allow_singular=True).logpdf(frame["y"]), rel=1e-6)
        first = int(np.flatnonzero(design.series.previous < 0)[0])
        assert found[s, first] == pytest.approx(norm(mean[first], draws.aux["sigma"][s]).logpdf(frame["y"][first]))


def test_tables(fit: bl.BayesFit) -> None:
    row = fit.estimates.set_index("term").loc["ar"]
    assert row["part"] == "aux"
    assert -1.0 < row["lower"] < row["estimate"] < row["upper"] < 1.0
    assert "ar" in str(fit.summary())


def test_simulated_rows_are_correlated_in_time(frame: pd.DataFrame, fit: bl.BayesFit) -> None:
    draws = fit.draws()
    rows = _rows(fit.model, None, random=True, parameters=True, series=True)
    aux = {"sigma": np.full((4000, 1), 2.0), "ar": np.full((4000, 1), 0.6)}
    made = _observations(fit.model, rows, aux, np.zeros((4000, 30)), np.random.default_rng(0))
    np.testing.assert_allclose(np.cov(made.T), 4.0 * correlation(frame, 0.6), atol=0.45)
    assert fit.simulate(3, seed=1).shape == (30, 3)
    assert fit.predict(interval="prediction").shape == (30, 4)
    assert draws.n_draws == 1600


def test_defaults_and_refusals(frame: pd.DataFrame) -> None:
    model = bl.model("y ~ x + ar(t, g)", frame)
    assert model.priors.set_index("term").loc["ar", "prior"] == "uniform(-1, 1)"
    moved = bl.model("y ~ x + ar(t, g)", frame, priors=[bl.prior("normal(0.5, 0.2)", part="aux", term="ar")])
    assert translate(moved).named_vars["ar"] is not None
    with pytest.raises(PriorError):
        bl.model("y ~ x", frame, priors=[bl.prior("normal(0.5, 0.2)", part="aux", term="ar")])
    with pytest.raises(FitError, match="'student'"):
        bl.model("y ~ x + ar(t, g)", frame, "student")
    with pytest.raises(FitError, match="identity link"):
        bl.model("y ~ x + ar(t, g)", frame, link="log")
    with pytest.raises(FitError, match="dialect='lme4'"):
        bl.model("y ~ x + ar(t, g)", frame, weights="w", dialect="brms")


def test_the_compiled_density_depends_on_the_series(frame: pd.DataFrame) -> None:
    later = frame.assign(t=frame["t"] * 2)
    one, other = (separated(bl.model("y ~ x + ar(t, g)", data).to_pymc()) for data in (frame, later))
    same = [np.array_equal(first, second) for first, second in zip(one.values, other.values, strict=False)]
    assert one.structure != other.structure or not all(same)
