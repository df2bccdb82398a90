"""Known standard errors, `y | se(s)`: the grammar, the likelihood, and eight schools' posterior against its quadrature."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from scipy.stats import t as student

import bayeslmm as bl
from bayeslmm.errors import BayesLmmError

EIGHT = pd.DataFrame({"y": [28, 8, -3, 7, -1, 1, 18, 12], "s": [15, 10, 16, 11, 9, 11, 10, 18], "school": list("ABCDEFGH")})
FORMULA = "y | se(s) ~ 1 + (1 | school)"


def _fit(formula: str = FORMULA, data: pd.DataFrame = EIGHT, **options: Any) -> bl.BayesFit:
    priors = [bl.prior("normal(0, 5)", part="intercept"), bl.prior("cauchy(0, 5)", part="sd")]
    return bl.brm(formula, data, priors=priors, seed=20261120, progressbar=False, **options)


@pytest.fixture(scope="module")
def fit() -> bl.BayesFit:
    return _fit(draws=4000)


def test_eight_schools_is_the_posterior_by_quadrature(fit: bl.BayesFit, reference_dir: Path) -> None:
    """Means, standard deviations and quantiles within 4.5 of their Monte-Carlo errors."""
    from arviz import ess

    exact = json.loads((reference_dir / "posteriordb" / "exact_eight_schools.json").read_text())["summary"]
    posterior = fit.tree["posterior"]
    mu = posterior["b"].values[..., 0]
    theta = mu[..., None] + posterior["r_school"].values[..., 0]
    drawn = {"mu": mu, "tau": posterior["sd_school"].values[..., 0]} | {f"theta[{i + 1}]": theta[..., i] for i in range(8)}
    assert drawn.keys() == exact.keys()
    for name, values in drawn.items():
        known = exact[name]
        size = float(ess(values))
        square = (values - known["mean"]) ** 2
        assert abs(values.mean() - known["mean"]) < 4.5 * values.std() / np.sqrt(size)
        assert abs(square.mean() - known["sd"] ** 2) < 4.5 * square.std() / np.sqrt(float(ess(square)))
        for level, at in known["quantiles"].items():
            below = (values < at).astype(float)
            p = float(level)
            assert abs(below.mean() - p) < 4.5 * np.sqrt(p * (1.0 - p) / float(ess(below)))


def test_likelihood_has_the_errors(fit: bl.BayesFit) -> None:
    mean = fit.tree["posterior"]["b"].values + fit.tree["posterior"]["r_school"].values[..., 0]
    expected = norm(mean, EIGHT["s"].to_numpy()).logpdf(EIGHT["y"].to_numpy())
    np.testing.assert_allclose(fit.tree["log_likelihood"]["y"].values, expected, rtol=1e-10)


def test_new_responses_have_the_errors_of_their_rows(fit: bl.BayesFit) -> None:
    new = pd.DataFrame({"school": ["A", "A"], "s": [1e-3, 1e3]})
    found = fit.predict(new, interval="prediction", seed=1)
    width = (found["upper"] - found["lower"]).to_numpy()
    conditional = fit.tree["posterior"]["b"].values[..., 0] + fit.tree["posterior"]["r_school"].values[..., 0, 0]
    assert width[0] == pytest.approx(np.ptp(np.quantile(conditional, [0.025, 0.975])), rel=0.02)
    assert width[1] == pytest.approx(2 * 1.96e3, rel=0.1)
    assert fit.predict(new.drop(columns="s"))["estimate"].notna().all()


def test_model_has_no_prior_of_sigma_but_its_unit(fit: bl.BayesFit) -> None:
    assert fit.model.priors.set_index("part").loc["aux", "prior"] == "constant(1)"
    assert (fit.tree["posterior"]["sigma"].values == 1.0).all()
    script = fit.model.to_r("brms")
    assert "bf(y | se(s) ~ 1 + (1 | school))" in script
    assert "sigma" not in script


def test_dialects_and_a_scaled_error_are_the_same_model() -> None:
    for formula, dialect in (
        (FORMULA, "brms"),
        ("y | se(s, sigma = FALSE) ~ 1 + (1 | school)", "lme4"),
        ("y | se(2 * h) ~ 1 + (1 | school)", "lme4"),
    ):
        model = bl.model(formula, EIGHT.assign(h=EIGHT["s"] / 2), dialect=dialect)
        np.testing.assert_allclose(model.design.weights, 1.0 / EIGHT["s"] ** 2)
        assert model.dialect == "lme4"


def test_rows_without_an_error_are_left_out() -> None:
    with pytest.warns(bl.DataWarning, match="missing values in s"):
        model = bl.model(FORMULA, EIGHT.assign(s=[np.nan, *EIGHT["s"][1:]]))
    assert model.design.n == 7


def test_students_t_with_known_errors() -> None:
    """The translation to PyMC, at a point."""
    model = bl.model(FORMULA, EIGHT, "student")
    translated = model.to_pymc()
    y = translated["y"]
    given = {translated["nu"]: 4.0, translated["Intercept"]: 5.0, translated["z_school"]: np.zeros((8, 1))}
    import pymc as pm
    import pytensor

    value = pytensor.function(
        [], pm.logp(y, EIGHT["y"].to_numpy(dtype=float)), givens=given, mode="FAST_COMPILE", on_unused_input="ignore"
    )()
    np.testing.assert_allclose(value, student(4.0, 5.0, EIGHT["s"]).logpdf(EIGHT["y"]), rtol=1e-6)


@pytest.mark.parametrize(
    ("formula", "options", "message"),
    [
        ("y | se(s, sigma = TRUE) ~ 1 + (1 | school)", {}, "add \\(1 \\| row\\)"),
        ("y | se(s) + weights(s) ~ 1 + (1 | school)", {}, "cannot be combined"),
        ("y | se(s) ~ 1 + (1 | school)", {"weights": "s"}, "takes no weights"),
        ("y | se(y) ~ 1 + (1 | school)", {}, "standard errors must be positive, in y \\(rows 2, 4\\)"),
        ("y ~ se(s) + (1 | school)", {}, "only after the bar of a response"),
        ("y | se(s) ~ 1 + (1 | school)", {"family": "poisson"}, "family 'poisson' has none"),
        (FORMULA, {"priors": [bl.prior("normal(0, 1)", part="aux", term="sigma")]}, "sigma has no prior"),
        (bl.formula(FORMULA, sigma="~ s"), {}, "leave out the predictor of sigma"),
    ],
)
def test_what_cannot_be_meant(formula: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BayesLmmError, match=message):
        bl.model(formula, EIGHT, **options)


def test_lmer_says_that_it_estimates_sigma() -> None:
    with pytest.raises(bl.FitError, match="known standard errors"):
        bl.lmer(FORMULA, EIGHT)
    with pytest.raises(bl.FitError, match="known standard errors"):
        bl.model(FORMULA, EIGHT).to_r("lme4")
