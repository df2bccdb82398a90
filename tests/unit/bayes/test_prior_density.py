"""The log density of the priors at draws: PyMC's own, whatever the model; and how sensitive a posterior is to it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

import bayeslmm as bl
from bayeslmm.bayes.draws import posterior_names
from bayeslmm.bayes.prior_density import log_prior, log_prior_of
from bayeslmm.bayes.prior_predictive import prior_draws
from bayeslmm.bayes.sensitivity import CONFLICT, STRONG_PRIOR, conflict_sentence
from bayeslmm.bayes.translate import translate
from bayeslmm.errors import FitError, PriorError

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    n = 40
    data = pd.DataFrame({"x": rng.normal(2.0, 1.5, n), "z": rng.normal(size=n), "g": np.repeat(list("ABCDEFGH"), 5)})
    data["y"] = 4.0 + data["x"] + rng.normal(size=n)
    data["count"] = rng.poisson(3.0, n)
    data["level"] = pd.Categorical(rng.integers(1, 5, n), ordered=True)
    return data


def _at_a_point(model: Any) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """All variables at a random point, and the log density of each free one without the Jacobian of its transform."""
    rng = np.random.default_rng(1)
    point = {name: value + 0.3 * rng.normal(size=value.shape) for name, value in model.initial_point().items()}
    outputs = model.unobserved_value_vars
    found = model.compile_fn(outputs, inputs=model.value_vars, mode="FAST_COMPILE", on_unused_input="ignore")(point)
    densities = model.compile_logp(vars=model.free_RVs, jacobian=False, sum=False, mode="FAST_COMPILE")(point)
    values = {variable.name: np.asarray(value) for variable, value in zip(outputs, found, strict=True)}
    return values, {variable.name: float(np.sum(value)) for variable, value in zip(model.free_RVs, densities, strict=True)}


def _as_posterior(model: bl.Model, values: dict[str, np.ndarray]) -> Any:
    """The values as the one draw of a posterior, with the dimensions of this package's."""
    shapes = prior_draws(model, 1, np.random.default_rng(0))
    found = shapes.copy(deep=True)
    for name in posterior_names(model):
        found[name].values = values[name][None, None]
    return found


BOUNDED = [bl.prior("normal(1, 2)", part="fixed", term="x", lower=0.0), bl.prior("normal(0, 3)", part="sd", upper=9.0)]


@pytest.mark.parametrize(
    ("formula", "family", "rows"),
    [
        ("y ~ x + z + (x | g)", "gaussian", []),
        ("y ~ x + (x + z | g)", "gaussian", [bl.prior("lkj(3.5)", part="cor")]),
        ("y ~ x + cs(x + z | g)", "gaussian", [bl.prior("lkj(3.5)", part="cor")]),
        ("y ~ x + cs(0 + x + z | g, hom = TRUE)", "gaussian", []),
        ("y ~ 0 + x + (x || g)", "gaussian", []),
        ("y ~ x + (1 | g)", "student", BOUNDED),
        ("y ~ x", "gaussian", [bl.prior("normal(0, 9)", part="fixed", term="(Intercept)"), bl.prior("constant(1)", part="aux")]),
        ("count ~ x + (1 | g)", "negative_binomial", []),
        ("level ~ x + (1 | g)", "cumulative", []),
        ("level ~ 1", "sratio", []),
        (bl.formula("y ~ x + (1 | g)", sigma="~ z + (1 | g)"), "gaussian", []),
        ("y ~ x + z", "gaussian", [bl.prior("horseshoe(2, 0.5)", part="fixed")]),
        ("y ~ x + z + (1 | g)", "gaussian", [bl.prior("R2D2(0.3, 4)", part="fixed")]),
    ],
    ids=str,
)
def test_log_prior_is_pymcs(formula: Any, family: str, rows: list[Any], frame: pd.DataFrame) -> None:
    model = bl.model(formula, frame, family, priors=rows)
    values, densities = _at_a_point(translate(model))
    found = log_prior_of(model, _as_posterior(model, values))
    own = {name: value for name, value in densities.items() if not name.startswith(("z_", "beta_z", "hs_local", "R2D2_phi"))}
    # The parameter of `cs` is stretched from (0, 1) to its range: the density of the correlation itself divides by the width.
    stretched = {"y ~ x + cs(x + z | g)": 1.5, "y ~ x + cs(0 + x + z | g, hom = TRUE)": 2.0}
    expected = sum(own.values()) - np.log(stretched.get(str(formula), 1.0))
    if np.shape(values.get("L_g")) == (3, 3):  # PyMC's density is of the Cholesky factor: |dC / dL| is its second diagonal entry
        expected -= np.log(values["L_g"][1, 1])
    assert sum(float(value.item()) for value in found.values()) == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert all(value.shape == (1, 1) for value in found.values())


def test_keys_name_part_group_and_term(frame: pd.DataFrame) -> None:
    model = bl.model("y ~ x + (x | g)", frame, priors=[bl.prior("constant(2)", part="aux")])
    found = log_prior_of(model, prior_draws(model, 3, np.random.default_rng(0)))
    assert list(found) == ["intercept/(Intercept)", "fixed/x", "sd/g/(Intercept)", "sd/g/x", "cor/g"]


@pytest.fixture(scope="module")
def dyestuff() -> bl.BayesFit:
    rows = [bl.prior("normal(1300, 20)", part="intercept")]
    data = bl.load_dataset("Dyestuff")
    return bl.brm("Yield ~ 1 + (1 | Batch)", data, priors=rows, chains=2, draws=1000, tune=500, seed=3, progressbar=False)


def test_sensitivity_is_arvizs_of_a_tree_made_by_hand(dyestuff: bl.BayesFit) -> None:
    import arviz_stats
    import xarray as xr

    posterior = dyestuff.tree["posterior"].to_dataset()
    table = dyestuff.model.priors.set_index("part")["prior"]
    _, location, scale = (float(piece) for piece in table["aux"][len("student_t(") : -1].split(","))
    half = scipy.stats.t(3, location, scale)
    b, sd, sigma = posterior["b"].values[:, :, 0], posterior["sd_Batch"].values[:, :, 0], posterior["sigma"].values
    by_hand = scipy.stats.norm(1300, 20).logpdf(b) + half.logpdf(sd) + half.logpdf(sigma)
    tree = xr.DataTree.from_dict(
        {
            "posterior": posterior[["sigma"]].assign(b=posterior["b"][:, :, 0].drop_vars("fixed"), sd=posterior["sd_Batch"][:, :, 0]),
            "log_prior": xr.Dataset({"all": (("chain", "draw"), by_hand)}),
            "log_likelihood": dyestuff.tree["log_likelihood"].to_dataset(),
        }
    )
    expected = arviz_stats.psense_summary(tree, round_to=12)
    found = bl.prior_sensitivity(dyestuff)
    assert list(found.index) == ["(Intercept)", "sd_(Intercept)|Batch", "sigma"]
    assert list(found.columns) == ["prior", "likelihood", "diagnosis"]
    for mine, theirs in (("(Intercept)", "b"), ("sd_(Intercept)|Batch", "sd"), ("sigma", "sigma")):
        named = next(name for name in expected.index if str(name).split("[")[0] == theirs)
        np.testing.assert_allclose(
            found.loc[mine, ["prior", "likelihood"]].astype(float), expected.loc[named, ["prior", "likelihood"]].astype(float), rtol=1e-6
        )
        assert found.loc[mine, "diagnosis"] == expected.loc[named, "diagnosis"]


def test_a_prior_far_from_the_data_is_found(dyestuff: bl.BayesFit) -> None:
    found = bl.prior_sensitivity(dyestuff)
    assert found.loc["(Intercept)", "diagnosis"] in (CONFLICT, STRONG_PRIOR)
    assert found.loc["(Intercept)", "prior"] > 0.1
    assert "different directions" in conflict_sentence(found.assign(diagnosis=CONFLICT))
    assert conflict_sentence(found.assign(diagnosis="✓")) == ""


def test_only_the_named_priors_are_scaled(dyestuff: bl.BayesFit) -> None:
    everything, intercept = bl.prior_sensitivity(dyestuff), bl.prior_sensitivity(dyestuff, priors=["intercept/(Intercept)"])
    sd = bl.prior_sensitivity(dyestuff, priors="sd")
    assert sd.loc["(Intercept)", "prior"] < 0.5 * intercept.loc["(Intercept)", "prior"]
    np.testing.assert_array_equal(everything["likelihood"], sd["likelihood"])
    with pytest.raises(PriorError, match="the model has no prior 'fixed'"):
        bl.prior_sensitivity(dyestuff, priors=["fixed"])


def test_flat_priors_have_no_influence() -> None:
    data = bl.load_dataset("Dyestuff")
    model = bl.model("Yield ~ 1 + (1 | Batch)", data)
    rows = [bl.prior("flat()", part=part) for part in ("intercept", "sd", "aux")]
    fit = bl.brm(model, priors=rows, chains=2, draws=500, tune=500, seed=3, progressbar=False)
    assert all(np.all(value == 0.0) for value in log_prior(fit).values())
    found = bl.prior_sensitivity(fit)
    assert (found["prior"] == 0.0).all()
    assert (found["likelihood"] > 0.0).all()


def test_what_is_no_posterior_is_refused(dyestuff: bl.BayesFit) -> None:
    with pytest.raises(FitError, match="prior_sensitivity is of a posterior"):
        bl.prior_sensitivity(bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff")))  # type: ignore[arg-type]
    with pytest.raises(FitError, match="threshold must be above 0"):
        bl.prior_sensitivity(dyestuff, threshold=0.0)
