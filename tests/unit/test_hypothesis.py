"""Hypotheses: the language, posterior probabilities, density ratios against closed forms, Wald tests, and what is refused."""

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

import bayeslmm as bl
from bayeslmm.bayes.density_ratio import density_at
from bayeslmm.bayes.evidence import bayes_factor
from bayeslmm.bayes.prior_draws import drawn_parameters
from bayeslmm.effects.expressions import Affine, affine, evaluate, read
from bayeslmm.effects.hypothesis import hypothesis
from bayeslmm.errors import BayesLmmWarning, FitError, FormulaError

# --- The language -------------------------------------------------------------------------------------------------------------

VALUES = {
    "a": 2.0,
    "b": 5.0,
    "a:b": 7.0,
    "I(a^2)": 11.0,
    "poly(a, 2)1": 13.0,
    "x.y_z": 17.0,
    "r[g-1,a]": 19.0,
    "(Intercept)": 23.0,
    "log(a)": 29.0,
}
NAMES = {name: name for name in VALUES} | {"Intercept": "(Intercept)", "poly(a,2)1": "poly(a, 2)1"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a", 2.0),
        ("a + b * 2", 12.0),
        ("(a + b) * 2", 14.0),
        ("b - a - 1", 2.0),
        ("b / a / 2", 1.25),
        ("-a^2", -4.0),
        ("(-a)^2", 4.0),
        ("a^-1", 0.5),
        ("a^2^3", 256.0),
        ("2**3", 8.0),
        ("2 * -a", -4.0),
        ("- - +a", 2.0),
        ("1e2*a", 200.0),
        (".5 * a", 1.0),
        ("a:b - b", 2.0),
        ("a:b-a", 5.0),
        ("I(a^2) + 1", 12.0),
        ("poly(a, 2)1 - poly(a,2)1", 0.0),
        ("x.y_z*2", 34.0),
        ("r[g-1,a] - 1", 18.0),
        ("`r[g-1,a]`", 19.0),
        ("`a:b`/7", 1.0),
        ("(Intercept) + Intercept", 46.0),
        ("((Intercept))", 23.0),
        ("log(a)", 29.0),
        ("exp(log( 3 ))", 3.0),
        ("sqrt(abs(-16)) + log2(8) + log10(100) + expm1(0) + log1p(0)", 9.0),
        ("plogis(0) + inv_logit(0) + qlogis(0.5) + logit(0.5)", 1.0),
        ("pnorm(qnorm(0.3))", 0.3),
    ],
)
def test_expressions_mean_what_r_says(text: str, value: float) -> None:
    statement = read(f"{text} + a > a", NAMES)
    assert evaluate(statement.node, VALUES) == pytest.approx(value, rel=1e-12)


def test_two_sides_become_one() -> None:
    statement = read(" exp( a ) <= 2 * b ", NAMES)
    assert (statement.label, statement.sign, statement.names) == ("(exp( a )) - (2 * b) < 0", "<", ("a", "b"))
    assert read("a == 0", NAMES).label == "(a) = 0"
    assert read("a>=b", NAMES).sign == ">"


@pytest.mark.parametrize(
    ("text", "message", "caret"),
    [
        ("c > 1", "unknown parameter 'c'", (0, 1)),
        ("2 * a:c > 1", "unknown parameter 'a:c'", (4, 7)),
        ("`zz` > 1", "unknown parameter 'zz'", (0, 4)),
        ("cos(a) > 1", "unknown function cos(); known: abs", (0, 3)),
        ("poly(a, 3)1 > 1", "unknown function poly(); parameters that begin so: poly(a, 2)1", (0, 4)),
        ("a + * b > 1", "is missing here", (4, 5)),
        ("a >", "is missing here", (3, 4)),
        ("a", "compares two sides", (0, 1)),
        ("a b > 1", "expected an operator before 'b'", (2, 7)),
        ("a > 1 > 0", "cannot be chained", (6, 7)),
        ("(a > 1", "never closed", (0, 1)),
        ("exp(a > 1", "never closed", (0, 1)),
        ("a) > 1", "never opened", (1, 6)),
        ("a > 1)", "never opened", (5, 6)),
        ("a > 1; b", "expected an operator before ';'", (5, 6)),
        ("1 > 0", "no parameter", (None, None)),
        ("", "is missing here", (0, 1)),
        ("__import__('os') > 0", "unknown function __import__()", (0, 10)),
        ("a.__class__ > 0", "unknown parameter 'a.__class__'", (0, 11)),
        ("(" * 200 + "a" + ")" * 200 + " > 0", "nested too deeply", (100, 101)),
    ],
)
def test_what_cannot_be_read_has_a_caret(text: str, message: str, caret: tuple[int | None, int | None]) -> None:
    with pytest.raises(FormulaError) as caught:
        read(text, NAMES)
    assert message in caught.value.message
    assert (caught.value.start, caught.value.end) == caret


def test_a_close_name_is_suggested() -> None:
    with pytest.raises(FormulaError, match="unknown parameter 'Intercpt'; did you mean 'Intercept'"):
        read("Intercpt > 0", NAMES)


def test_straight_expressions_are_told_from_curved_ones() -> None:
    def of(text: str) -> Affine | None:
        return affine(read(f"{text} = 3", NAMES).node)

    assert of("2 * (a - 4) / 8 - -b") == Affine(constant=-4.0, slopes={"a": 0.25, "b": 1.0})
    assert of("a * exp(0)") == Affine(constant=-3.0, slopes={"a": 1.0})
    assert of("a - a") == Affine(constant=-3.0, slopes={"a": 0.0})
    assert all(of(text) is None for text in ("a * b", "a^2", "1 / a", "exp(a)", "abs(b)"))


# --- Posteriors ---------------------------------------------------------------------------------------------------------------


def _data() -> pd.DataFrame:
    rng = np.random.default_rng(2)
    g = np.repeat(np.arange(10), 5)
    x, z = rng.normal(size=(2, 50))
    y = 2.0 + 0.3 * x + rng.normal(size=10)[g] + rng.normal(size=50)
    return pd.DataFrame({"y": y, "x": x, "z": z, "my x": x * z, "g": [f"g {i}" for i in g], "f": np.tile(list("ab"), 25)})


def _posterior(model: bl.Model, **variables: np.ndarray) -> bl.BayesFit:
    arrays = {name: (("chain", "draw", *(f"{name}_{a}" for a in range(v.ndim - 2))), v) for name, v in variables.items()}
    return bl.BayesFit(model=model, tree=xr.DataTree.from_dict({"posterior": xr.Dataset(arrays)}), provenance={})


@cache
def _drawn(priors: tuple[Any, ...] = ()) -> bl.BayesFit:
    """Draws of all parameters of y ~ x * f + (x | g) that are known numbers: of nothing in particular."""
    rng = np.random.default_rng(0)
    model = bl.model("y ~ x * f + `my x` + (x | g)", _data(), priors=list(priors) or None)
    size = (2, 500)
    b = rng.normal([2.0, 0.3, 0.1, 0.0, -0.2], 0.2, size=(*size, 5))
    rho = rng.uniform(-0.9, 0.9, size)
    cor = np.ones((*size, 2, 2))
    cor[..., 0, 1] = cor[..., 1, 0] = rho
    sd = np.abs(rng.normal(1.0, 0.1, size=(*size, 2)))
    return _posterior(model, b=b, sd_g=sd, cor_g=cor, r_g=rng.normal(size=(*size, 10, 2)), sigma=np.abs(rng.normal(1, 0.1, size)))


def _flat(fit: bl.BayesFit, name: str) -> np.ndarray:
    values = fit.tree["posterior"][name].values
    return values.reshape(-1, *values.shape[2:])


def test_every_kind_of_parameter_has_its_names() -> None:
    fit = _drawn()
    b, sd, cor, r, sigma = (_flat(fit, name) for name in ("b", "sd_g", "cor_g", "r_g", "sigma"))
    assert list(fit.model.design.fixed_names) == ["(Intercept)", "x", "fb", "`my x`", "x:fb"]
    expected = {
        "Intercept > 0": b[:, 0],
        "b_Intercept > 0": b[:, 0],
        "x:fb > 0": b[:, 4],
        "`my x` > 0": b[:, 3],
        "my x > 0": b[:, 3],
        "myx > 0": b[:, 3],
        "sd_g__Intercept > 0": sd[:, 0],
        "sd_x|g > 0": sd[:, 1],
        "cor_g__Intercept__x > 0": cor[:, 0, 1],
        "cor_x.(Intercept)|g > 0": cor[:, 0, 1],
        "r_g[g 3,x] > 0": r[:, 3, 1],
        "r_g[g 4,Intercept] > 0": r[:, 4, 0],
        "sigma > 0": sigma,
    }
    for text, draws in expected.items():
        row = hypothesis(fit, text).iloc[0]
        assert row["estimate"] == pytest.approx(draws.mean(), rel=1e-12), text
    within = hypothesis(fit, "x - Intercept > 0", part="sd", group="g").iloc[0]
    assert within["estimate"] == pytest.approx((sd[:, 1] - sd[:, 0]).mean())
    assert hypothesis(fit, "Intercept__x > 0", part="cor", group="g")["estimate"][0] == pytest.approx(cor[:, 0, 1].mean())
    with pytest.raises(FormulaError, match="unknown parameter 'x'"):
        hypothesis(fit, "x > 0", part=None)


def test_names_of_groups_in_backticks_can_be_written_without() -> None:
    model = bl.model("y ~ x + (1 | `the g`)", _data().rename(columns={"g": "the g"}))
    group = model.design.blocks[0].group
    rng = np.random.default_rng(0)
    sd, r = np.abs(rng.normal(size=(2, 50, 1))), rng.normal(size=(2, 50, 10, 1))
    fit = _posterior(model, b=np.ones((2, 50, 2)), sigma=np.ones((2, 50)), **{f"sd_{group}": sd, f"r_{group}": r})
    for text, draws in {"sd_the g__Intercept > 0": sd, "r_the g[g 3,Intercept] > 0": r[:, :, 3]}.items():
        assert hypothesis(fit, text)["estimate"][0] == pytest.approx(draws.mean())


def test_rows_are_counts_and_quantiles_of_draws() -> None:
    fit = _drawn()
    difference = _flat(fit, "b")[:, 1] - 0.25
    table = hypothesis(fit, {"mine": "x > 0.25", "yours": "x < 1 / 4"}, joint=True)
    assert table["hypothesis"].tolist() == ["mine", "yours", "mine & yours"]
    share = np.mean(difference > 0)
    assert table["posterior_probability"].tolist() == pytest.approx([share, 1 - share, 0.0])
    assert table["evidence_ratio"].tolist() == pytest.approx([share / (1 - share), (1 - share) / share, 0.0])
    assert table.loc[0, ["lower", "upper"]].tolist() == pytest.approx(np.quantile(difference, [0.05, 0.95]).tolist())
    assert table.loc[0, "se"] == pytest.approx(difference.std(ddof=1))
    assert hypothesis(fit, "Intercept > 0")[["evidence_ratio", "star"]].iloc[0].tolist() == [np.inf, "*"]
    assert list(table) == [
        *("hypothesis", "estimate", "se", "lower", "upper", "evidence_ratio", "posterior_probability", "star", "prior_density"),
    ]


def test_levels_have_a_row_each() -> None:
    fit = _drawn()
    b, r = _flat(fit, "b"), _flat(fit, "r_g")
    own = hypothesis(fit, ["x > 0.5", "x + fb > 0"], scope="coef", group="g")
    assert own["level"].tolist() == [f"g {i}" for i in range(10)] * 2
    assert own["estimate"][3] == pytest.approx((b[:, 1] + r[:, 3, 1]).mean() - 0.5)
    assert own["estimate"][13] == pytest.approx((b[:, 1] + r[:, 3, 1] + b[:, 2]).mean())
    deviations = hypothesis(fit, "x - Intercept > 0", scope="ranef", group="g")
    assert deviations["estimate"][7] == pytest.approx((r[:, 7, 1] - r[:, 7, 0]).mean())


# --- Savage and Dickey --------------------------------------------------------------------------------------------------------

_PRIORS = (bl.prior("normal(0, 2)", part="fixed"), bl.prior("normal(1, 3)", part="intercept"))


def _normal_posterior(mean: list[float], covariance: np.ndarray) -> bl.BayesFit:
    model = bl.model("y ~ x + z", _data(), priors=list(_PRIORS))
    b = np.random.default_rng(1).multivariate_normal(mean, covariance, size=(4, 5000))
    return _posterior(model, b=b, sigma=np.ones((4, 5000)))


COVARIANCE = np.array([[0.4, 0.1, 0.0], [0.1, 0.25, -0.1], [0.0, -0.1, 0.16]])


@pytest.mark.parametrize(
    ("text", "weights", "at", "how"),
    [
        ("x = 0.5", [0, 1, 0], 0.5, "exact"),
        ("2 * x = 0", [0, 2, 0], 0.0, "exact"),
        ("x - z = 0", [0, 1, -1], 0.0, "exact"),
        ("x + 2 * z = 1.5", [0, 1, 2], 1.5, "exact"),
        ("Intercept = 1", [1, 0, 0], 1.0, "draws"),
    ],
)
def test_the_ratio_of_normal_densities(text: str, weights: list[float], at: float, how: str) -> None:
    """Prior of the intercept at predictors of zero: normal about 1, its variance that of the centred one and of the slopes' shift."""
    mean, w = np.array([1.5, 0.3, 0.2]), np.array(weights, dtype=float)
    fit = _normal_posterior(mean.tolist(), COVARIANCE)
    shift = _data()[["x", "z"]].mean().to_numpy()
    prior = np.diag([9.0 + 4.0 * shift @ shift, 4.0, 4.0])
    expected = stats.norm(w @ mean, np.sqrt(w @ COVARIANCE @ w)).pdf(at) / stats.norm(w[0], np.sqrt(w @ prior @ w)).pdf(at)
    row = hypothesis(fit, text).iloc[0]
    assert row["evidence_ratio"] == pytest.approx(expected, rel=0.05)
    assert row["posterior_probability"] == pytest.approx(row["evidence_ratio"] / (1 + row["evidence_ratio"]))
    assert row["prior_density"] == how
    lower, upper = stats.norm(w @ mean - at, np.sqrt(w @ COVARIANCE @ w)).ppf([0.025, 0.975])
    assert row[["lower", "upper"]].tolist() == pytest.approx([lower, upper], abs=0.05)
    assert row["star"] == ("" if lower < 0 < upper else "*")


def test_a_curved_point_hypothesis_takes_both_densities_from_draws() -> None:
    fit = _normal_posterior([1.5, 0.3, 0.2], COVARIANCE)
    row = hypothesis(fit, "exp(x) = 1").iloc[0]
    assert row["prior_density"] == "draws"
    exact = stats.lognorm(0.5, scale=math.exp(0.3)).pdf(1.0) / stats.lognorm(2.0).pdf(1.0)
    assert row["evidence_ratio"] == pytest.approx(exact, rel=0.1)


def test_a_standard_deviation_of_zero_is_at_the_end_of_its_range() -> None:
    model = bl.model("y ~ x + (1 | g)", _data(), priors=[bl.prior("normal(0, 1.5)", part="sd")])
    rng = np.random.default_rng(3)
    sd = np.abs(rng.normal(0.0, 0.5, size=(4, 5000, 1)))
    fit = _posterior(model, b=np.zeros((4, 5000, 2)), sd_g=sd, r_g=np.zeros((4, 5000, 10, 1)), sigma=np.ones((4, 5000)))
    row = hypothesis(fit, "sd_g__Intercept = 0").iloc[0]
    assert row["evidence_ratio"] == pytest.approx(1.5 / 0.5, rel=0.05)
    assert row["prior_density"] == "exact"


def test_the_ratio_is_the_bayes_factor_of_the_nested_models() -> None:
    data = _data()
    priors = [bl.prior("normal(0, 1)", part="fixed")]
    full = bl.brm("y ~ x + z + (1 | g)", data, priors=priors, seed=1, progressbar=False)
    nested = bl.brm("y ~ x + (1 | g)", data, priors=priors, seed=1, progressbar=False)
    ratio = hypothesis(full, "z = 0").iloc[0]["evidence_ratio"]
    assert math.log(ratio) == pytest.approx(bayes_factor(nested, full, seed=1).iloc[0]["log_bf"], abs=0.12)


def test_without_a_proper_prior_there_is_no_ratio() -> None:
    fit = _drawn((bl.prior("flat()", part="fixed", term="fb"),))
    with pytest.warns(BayesLmmWarning, match=r"\[improper_prior\] no evidence ratio for 'fb = 0'"):
        row = hypothesis(fit, "fb = 0").iloc[0]
    assert math.isnan(row["evidence_ratio"])
    assert math.isnan(row["posterior_probability"])
    assert math.isfinite(row["estimate"])
    with pytest.warns(BayesLmmWarning, match="improper_prior"):
        hypothesis(fit, "Intercept = 2")
    with pytest.warns(BayesLmmWarning, match="random effects have no prior of their own"):
        hypothesis(fit, "r_g[g 3,x] = 0")
    assert hypothesis(fit, "x = 0.3").iloc[0]["evidence_ratio"] > 0.0


def test_a_point_in_the_tail_is_told() -> None:
    with pytest.warns(BayesLmmWarning, match=r"\[tail_density\] 'Intercept = 0' .* hardly any draws \(0\): .* `bayes_factor`"):
        assert hypothesis(_drawn(), "Intercept = 0").iloc[0]["evidence_ratio"] < 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        hypothesis(_drawn(), "Intercept = 2")


def test_kernels_find_densities() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(3.0, 2.0, 20_000)
    for at in (3.0, 5.0, 7.0):
        assert density_at(normal, at) == pytest.approx(stats.norm(3, 2).pdf(at), rel=0.06)
    exponential = rng.exponential(size=20_000)
    assert density_at(exponential, 0.0, 0.0) == pytest.approx(1.0, rel=0.08)
    assert density_at(exponential, -0.1, 0.0) == 0.0
    uniform = rng.random(20_000)
    assert density_at(uniform, 1.0, 0.0, 1.0) == pytest.approx(1.0, rel=0.08)


# --- Draws from priors --------------------------------------------------------------------------------------------------------


def test_draws_of_priors_have_their_distributions() -> None:
    priors = [bl.prior("normal(0, 2)", part="fixed"), bl.prior("gamma(2, 3)", part="sd"), bl.prior("constant(1.5)", part="aux")]
    model = bl.model("y ~ x * f + (x | g)", _data(), priors=[*priors, bl.prior("normal(1, 3)", part="intercept")])
    wanted = [("fixed", "", "x:fb"), ("fixed", "", "(Intercept)"), ("sd", "g", "x"), ("cor", "g", "x.(Intercept)"), ("aux", "", "sigma")]
    found = drawn_parameters(model, wanted, 20_000, seed=1)
    assert set(found) == set(wanted)
    assert stats.kstest(found["fixed", "", "x:fb"], stats.norm(0, 2).cdf).pvalue > 1e-4
    assert stats.kstest(found["sd", "g", "x"], stats.gamma(2, scale=1 / 3).cdf).pvalue > 1e-4
    assert np.all(found["aux", "", "sigma"] == 1.5)
    means = model.design.X[:, 1:].mean(axis=0)
    assert stats.kstest(found["fixed", "", "(Intercept)"], stats.norm(1, np.sqrt(9 + 4 * means @ means)).cdf).pvalue > 1e-4
    assert stats.kstest((found["cor", "g", "x.(Intercept)"] + 1) / 2, stats.beta(2, 2).cdf).pvalue > 1e-4


def test_parameters_of_improper_priors_have_no_draws() -> None:
    model = bl.model("y ~ x * f + (x | g)", _data(), priors=[bl.prior("flat()", part="fixed", term="x"), bl.prior("flat()", part="sd")])
    wanted = [("fixed", "", name) for name in model.design.fixed_names] + [
        ("sd", "g", "x"),
        ("cor", "g", "x.(Intercept)"),
        ("aux", "", "sigma"),
    ]
    found = drawn_parameters(model, wanted, 100, seed=1)
    assert set(found) == {("fixed", "", "fb"), ("fixed", "", "x:fb"), ("cor", "g", "x.(Intercept)"), ("aux", "", "sigma")}


# --- Classical fits -----------------------------------------------------------------------------------------------------------


def test_wald_tests_of_straight_hypotheses_are_those_of_the_coefficients() -> None:
    fit = bl.lmer("y ~ x * f + (1 | g)", _data())
    table = hypothesis(fit, ["x = 0", "x > 0", "x < 0", "x + x:fb = 0"])
    own = fit.coefficients().loc["x"]
    assert table.loc[0, ["estimate", "se", "df", "statistic", "p_value"]].tolist() == pytest.approx(
        own[["estimate", "se", "df", "statistic", "p_value"]].tolist()
    )
    assert table["p_value"][1] + table["p_value"][2] == pytest.approx(1.0)
    assert 2 * min(table["p_value"][1:3]) == pytest.approx(table["p_value"][0])
    vcov = fit.vcov()
    se = np.sqrt(vcov.loc["x", "x"] + vcov.loc["x:fb", "x:fb"] + 2 * vcov.loc["x", "x:fb"])
    assert table["se"][3] == pytest.approx(se)
    half = stats.t.ppf(0.975, table["df"][0]) * table["se"][0]
    assert table["upper"][0] - table["estimate"][0] == pytest.approx(half)
    assert hypothesis(fit, "x = 0", ddf="asymptotic")["df"][0] == np.inf


def test_curved_hypotheses_take_the_delta_method() -> None:
    fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    row = hypothesis(fit, "exp(Days / 10) - Intercept / Days = 0").iloc[0]
    b, V = fit.fixef().to_numpy(), fit.vcov().to_numpy()
    gradient = np.array([-1.0 / b[1], math.exp(b[1] / 10) / 10 + b[0] / b[1] ** 2])
    assert row["estimate"] == pytest.approx(math.exp(b[1] / 10) - b[0] / b[1])
    assert row["se"] == pytest.approx(math.sqrt(gradient @ V @ gradient), rel=1e-6)


def test_generalised_fits_have_normal_tests() -> None:
    data = bl.load_dataset("cbpp")
    fit = bl.glmer("incidence | trials(size) ~ period + (1 | herd)", data, family="binomial")
    row = hypothesis(fit, "period2 = 0").iloc[0]
    assert row["p_value"] == pytest.approx(fit.coefficients()["p_value"]["period2"])
    assert row["df"] == np.inf
    with pytest.raises(FitError, match="this fit by Laplace has normal tests"):
        hypothesis(fit, "period2 = 0", ddf="satterthwaite")


# --- What is refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "sds"}, "unknown part 'sds'; did you mean 'sd'"),
        ({"scope": "levels"}, "unknown scope 'levels'"),
        ({"scope": "coef"}, "need a group; the model has: g"),
        ({"scope": "coef", "group": "h"}, "no group 'h'; known: g"),
        ({"part": "sd", "group": "h"}, "no group 'h'"),
        ({"alpha": 0.7}, "alpha must lie between 0 and 0.5"),
        ({"ddf": "satterthwaite"}, "ddf is of classical fits"),
    ],
)
def test_options_that_there_are_not(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FitError, match=message):
        hypothesis(_drawn(), "sigma > 1", **options)


def test_what_is_no_hypothesis() -> None:
    with pytest.raises(FitError, match="a list or a dict of texts, not int"):
        hypothesis(_drawn(), 3)  # type: ignore[arg-type]
    with pytest.raises(FitError, match="not float"):
        hypothesis(_drawn(), ["x > 1", 2.0])  # type: ignore[list-item]
    with pytest.raises(FitError, match="no hypothesis is given"):
        hypothesis(_drawn(), [])
    with pytest.raises(FitError, match=r"'log\(-sigma\) > 0' is not a finite number at 1000 of 1000 draws"):
        hypothesis(_drawn(), "log(-sigma) > 0")
    with pytest.raises(FitError, match="joint=True is of one-sided hypotheses, and 'x = 0' is a point"):
        hypothesis(_drawn(), ["x = 0", "fb > 0"], joint=True)
    with pytest.raises(FitError, match="not on str"):
        hypothesis("fit", "x > 0")  # type: ignore[arg-type]


def test_unknown_names_list_parameters_but_no_random_effects() -> None:
    with pytest.raises(FormulaError) as caught:
        hypothesis(_drawn(), "qqq > 0")
    assert "sd_g__Intercept" in caught.value.message
    assert "r_g[" not in caught.value.message


def test_classical_fits_say_what_they_cannot_test() -> None:
    fit = bl.lmer("y ~ x + (1 | g)", _data())
    with pytest.raises(FitError, match=r"part is of posteriors: .* see `confint`"):
        hypothesis(fit, "Intercept > 0", part="sd", group="g")
    with pytest.raises(FormulaError, match="unknown coefficient 'sigma'"):
        hypothesis(fit, "sigma > 1")
    with pytest.raises(FitError, match="unknown ddf 'kenward'; did you mean 'kenward-roger'"):
        hypothesis(fit, "x > 1", ddf="kenward")
    with pytest.raises(FitError, match="not a finite number at the estimates"):
        hypothesis(fit, "log(x - 100) > 1")
