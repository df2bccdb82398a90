"""Models of ordered levels: thresholds in place of the intercept, the coding of new rows, priors, predictions, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.special
import scipy.stats

import bayeslmm as bl
from bayeslmm.bayes.translate import translate
from bayeslmm.design import Encoder
from bayeslmm.errors import DataError, FitError, FormulaError, PriorError
from bayeslmm.fit import Draws
from bayeslmm.prediction import predict, simulate

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")

THRESHOLDS = np.array([-0.7, 0.4, 1.8])


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    codes = np.r_[np.arange(4), rng.integers(0, 4, 20)]
    return pd.DataFrame(
        {
            "y": pd.Categorical.from_codes(codes, categories=["none", "mild", "bad", "worst"], ordered=True),
            "x": rng.normal(1.0, 2.0, 24),
            "f": pd.Categorical(np.resize(["a", "b", "c"], 24)),
            "g": np.repeat(list("stuvwz"), 4),
        }
    )


class Point:
    """The least that predictions ask of a fit: its model and its draws."""

    method = "made by hand"

    def __init__(self, model: bl.Model, draws: Draws):
        self.model, self._draws = model, draws

    def draws(self) -> Draws:
        return self._draws


@pytest.fixture(scope="module")
def fit(frame: pd.DataFrame) -> Point:
    model = bl.model("y ~ x + (1 | g)", frame, "cumulative")
    aux = {f"Intercept[{k}]": np.array([value]) for k, value in enumerate(THRESHOLDS, start=1)}
    effects = np.linspace(-0.5, 0.5, 6)[None, :, None]
    return Point(model, Draws(b=np.array([[0.6]]), effects=(effects,), covariance=(np.full((1, 1, 1), 0.16),), aux=aux))


def _expected_level(eta: np.ndarray) -> np.ndarray:
    """Levels from 0: the sum over k of P(y >= k)."""
    return np.sum([scipy.special.expit(eta - threshold) for threshold in THRESHOLDS], axis=0)


@pytest.mark.parametrize("family", ["cumulative", "sratio", "cratio", "acat"])
def test_thresholds_stand_in_the_place_of_the_intercept(family: str, frame: pd.DataFrame) -> None:
    model = bl.model("y ~ x + f", frame, family)
    assert model.design.fixed_names == ("x", "fb", "fc")
    assert [parameter.name for parameter in model.family.parameters] == ["Intercept[1]", "Intercept[2]", "Intercept[3]"]
    assert [str(row.distribution) for row in model.prior_rows if row.part == "aux"] == ["student_t(3, 0, 2.5)"] * 3


def test_new_rows_are_coded_without_a_column_of_ones(frame: pd.DataFrame) -> None:
    encoder = bl.model("y ~ f + x", frame, "cumulative").design.encoder
    for coder in (encoder, Encoder.from_dict(encoder.to_dict())):
        np.testing.assert_array_equal(coder.encode_new({"f": ["a", "c"], "x": [2.0, 3.0]}).X, [[0.0, 0.0, 2.0], [0.0, 1.0, 3.0]])


def test_collinear_columns_are_dropped_as_beside_an_intercept(frame: pd.DataFrame) -> None:
    with pytest.warns(bl.errors.DataWarning, match="I\\(2 - x\\)"):
        model = bl.model("y ~ x + I(2 - x) + f", frame, "cumulative")
    assert model.design.fixed_names == ("x", "fb", "fc")
    assert model.design.encoder.encode_new({"f": ["b"], "x": [2.0]}).X.tolist() == [[2.0, 1.0, 0.0]]


def test_a_model_of_thresholds_alone(frame: pd.DataFrame) -> None:
    model = bl.model("y ~ 1", frame, "acat")
    assert model.dims.p == 0
    translate(model).point_logps()


def test_slopes_have_the_scale_of_centred_predictors(frame: pd.DataFrame) -> None:
    rows = {row.term: row.distribution.args for row in bl.model("y ~ x", frame, "cumulative").prior_rows}
    assert rows["x"] == (0.0, pytest.approx(2.5 / frame["x"].std(), rel=5e-3))


def test_predictions_are_the_expected_level_counted_from_0(fit: Point) -> None:
    x, index = fit.model.frame["x"].to_numpy(), fit.model.design.blocks[0].index
    eta = 0.6 * x + fit.draws().effects[0][0, index, 0]
    np.testing.assert_allclose(predict(fit)["estimate"], _expected_level(eta), rtol=1e-12)
    np.testing.assert_allclose(predict(fit, scale="link")["estimate"], eta, rtol=1e-12)
    new = predict(fit, {"x": [3.0]}, target="average_group")["estimate"]
    np.testing.assert_allclose(new, _expected_level(np.array([1.8])), rtol=1e-12)


def test_simulated_levels_have_their_probabilities(fit: Point) -> None:
    draws = simulate(fit, 4000, conditional=True, seed=2).to_numpy()
    assert set(np.unique(draws)) == {0.0, 1.0, 2.0, 3.0}
    eta = predict(fit, scale="link")["estimate"].to_numpy()
    below = scipy.special.expit(THRESHOLDS[:, None] - eta)
    for k in range(3):
        error = np.sqrt(below[k] * (1.0 - below[k]) / 4000)
        assert np.all(np.abs((draws <= k).mean(axis=1) - below[k]) < 5 * error)


@pytest.mark.parametrize("link", ["logit", "probit", "cloglog"])
def test_the_pymc_model_is_the_formula_of_the_cumulative_model(link: str, frame: pd.DataFrame) -> None:
    """P(y <= k) = F(tau_k - eta), tau that of the uncentred design, its prior that of the centred one."""
    model = bl.model("y ~ x", frame, "cumulative", link=link)
    pymc_model = translate(model)
    point = {"beta": np.array([0.5]), "thresholds": np.array([-1.0, 0.2, 1.1])}
    values = {variable.name: pymc_model.rvs_to_values[variable] for variable in pymc_model.free_RVs}
    logps = pymc_model.compile_fn(
        pymc_model.logp(sum=False, jacobian=False), inputs=list(values.values()), mode="FAST_COMPILE", point_fn=False
    )
    transformed = {
        "beta": point["beta"],
        "thresholds": np.r_[point["thresholds"][0], np.log(np.diff(point["thresholds"]))],
    }
    terms = logps(*(transformed[name] for name in values))
    F = {"logit": scipy.special.expit, "probit": scipy.stats.norm.cdf, "cloglog": lambda t: -np.expm1(-np.exp(t))}[link]
    x, y = frame["x"].to_numpy(), frame["y"].cat.codes.to_numpy()
    raw = point["thresholds"] + 0.5 * x.mean()
    cumulative = np.array([np.zeros(24), *(F(tau - 0.5 * x) for tau in raw), np.ones(24)])
    likelihood = np.log(np.diff(cumulative, axis=0)[y, np.arange(24)]).sum()
    prior = (
        scipy.stats.norm(0, model.prior_rows[0].distribution.args[1]).logpdf(0.5)
        + scipy.stats.t(3, 0, 2.5).logpdf(point["thresholds"]).sum()
    )
    assert float(sum(np.sum(term) for term in terms)) == pytest.approx(likelihood + prior, rel=1e-9)


def test_thresholds_of_other_families_need_not_increase(frame: pd.DataFrame) -> None:
    pymc_model = translate(bl.model("y ~ x", frame, "sratio"))
    variable = pymc_model["thresholds"]
    assert pymc_model.rvs_to_transforms[variable] is None


# --- Refusals -----------------------------------------------------------------------------------------------------------------


def test_a_response_without_levels_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(DataError, match=r"family 'cumulative' needs a factor with its levels in order.*ordered=True"):
        bl.model("x ~ f", frame, "cumulative")


def test_no_intercept_and_thresholds_are_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(FormulaError, match=r"thresholds stand for the intercept.*leave `0 \+` out"):
        bl.model("y ~ 0 + x", frame, "cumulative")


def test_thresholds_have_no_predictors(frame: pd.DataFrame) -> None:
    with pytest.raises(FitError, match="family 'cumulative' has no parameter 'phi'"):
        bl.model(bl.formula("y ~ x", phi="~ x"), frame, "cumulative")


def test_thresholds_have_priors_of_one_distribution(frame: pd.DataFrame) -> None:
    model = bl.model("y ~ x", frame, "cumulative", priors=[bl.prior("normal(0, 1)", part="aux", term="Intercept[2]")])
    with pytest.raises(PriorError, match="thresholds take priors of one distribution"):
        translate(model)


def test_a_link_without_a_latent_distribution_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(FitError, match="family 'cumulative' has no link 'log'; known: logit, probit, cloglog"):
        bl.model("y ~ x", frame, "cumulative", link="log")
