"""Prior rows: the text, the default tables on the data's scale, the overlay, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.errors import PriorError


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    rng = np.random.default_rng(7)
    x = rng.normal(5.0, 2.0, 60)
    data = pd.DataFrame({"x": x, "f": np.tile(list("abc"), 20), "g": np.repeat(list("ABCDEF"), 10), "h": np.tile(list("pqrst"), 12)})
    data["y"] = 300.0 + 4.0 * x + rng.normal(0, 30.0, 60)
    data["count"] = rng.poisson(4.0, 60)
    return data


def _priors(
    frame: pd.DataFrame, formula: str, rows: list[bl.Model] | None = None, family: str = "gaussian"
) -> dict[tuple[str, str, str], str]:
    table = bl.model(formula, frame, family, priors=rows).priors
    return {(row.part, row.group, row.term): row.prior for row in table.itertuples()}


def _scale(text: str) -> float:
    return float(text.rstrip(")").split(",")[-1])


def test_weak_priors_are_proper_and_on_the_datas_scale(frame: pd.DataFrame) -> None:
    table = bl.model("y ~ x + (x | g)", frame).priors
    assert list(table.columns) == ["part", "group", "term", "prior", "source"]
    assert list(table["part"]) == ["intercept", "fixed", "sd", "sd", "cor", "aux"]
    assert not table["prior"].str.contains("flat").any()
    assert set(table["source"]) == {"default"}
    priors = _priors(frame, "y ~ x + (x | g)")
    mad = 1.4826 * np.median(np.abs(frame["y"] - np.median(frame["y"])))
    s = max(mad, frame["y"].std())
    assert _scale(priors["intercept", "", "(Intercept)"]) == pytest.approx(s, rel=5e-3)
    assert _scale(priors["fixed", "", "x"]) == pytest.approx(2.5 * s / frame["x"].std(), rel=5e-3)
    assert _scale(priors["sd", "g", "(Intercept)"]) == pytest.approx(s, rel=5e-3)
    assert _scale(priors["sd", "g", "x"]) == pytest.approx(s / frame["x"].std(), rel=5e-3)
    assert priors["cor", "g", ""] == "lkj(2)"


def test_weak_priors_follow_the_units(frame: pd.DataFrame) -> None:
    scaled = frame.assign(y=frame["y"] * 1000, x=frame["x"] / 10)
    before, after = _priors(frame, "y ~ x + (x | g)"), _priors(scaled, "y ~ x + (x | g)")
    for key, factor in {("fixed", "", "x"): 1e4, ("sd", "g", "(Intercept)"): 1e3, ("sd", "g", "x"): 1e4, ("aux", "", "sigma"): 1e3}.items():
        assert _scale(after[key]) == pytest.approx(factor * _scale(before[key]), rel=1e-2)


def test_without_an_intercept_cell_means_are_not_pulled_to_zero(frame: pd.DataFrame) -> None:
    far = frame.assign(y=1e4 + frame["y"])
    assert _scale(_priors(far, "y ~ 0 + f + (1 | g)")["fixed", "", "fa"]) > 1e4


def test_log_link_has_priors_on_the_log_scale(frame: pd.DataFrame) -> None:
    priors = _priors(frame, "count ~ x + (1 | g)", family="poisson")
    location = round(float(np.median(np.log(np.where(frame["count"] == 0, 0.1, frame["count"])))), 1)
    assert priors["intercept", "", "(Intercept)"] == f"student_t(3, {location:g}, 2.5)"
    assert _scale(priors["fixed", "", "x"]) == pytest.approx(2.5 / frame["x"].std(), rel=5e-3)


def test_student_has_a_prior_on_nu(frame: pd.DataFrame) -> None:
    assert _priors(frame, "y ~ x", family="student")["aux", "", "nu"] == "gamma(2, 0.1)"


def test_brms_style(frame: pd.DataFrame) -> None:
    rows = bl.default_priors(bl.model("y ~ x + (x | g)", frame), "brms")
    assert [str(row.distribution) for row in rows if row.part in ("fixed", "cor")] == ["flat()", "lkj(1)"]
    with pytest.raises(PriorError, match="did you mean 'brms'"):
        bl.default_priors(bl.model("y ~ x", frame), "brm")


def test_the_more_specific_row_wins_whatever_the_order(frame: pd.DataFrame) -> None:
    rows = [
        bl.prior("normal(0, 3)", part="sd", group="g", term="x"),
        bl.prior("normal(0, 1)", part="sd"),
        bl.prior("normal(0, 2)", part="sd", group="g"),
    ]
    for order in (rows, rows[::-1]):
        priors = _priors(frame, "y ~ x + (x | g) + (1 | h)", order)
        assert priors["sd", "g", "x"] == "normal(0, 3)"
        assert priors["sd", "g", "(Intercept)"] == "normal(0, 2)"
        assert priors["sd", "h", "(Intercept)"] == "normal(0, 1)"


def test_of_equally_specific_rows_the_later_wins(frame: pd.DataFrame) -> None:
    rows = [bl.prior("normal(0, 1)", part="fixed"), bl.prior("normal(0, 2)", part="fixed")]
    assert _priors(frame, "y ~ x", rows)["fixed", "", "x"] == "normal(0, 2)"


def test_source_says_whose_row_it_is(frame: pd.DataFrame) -> None:
    table = bl.model("y ~ x + f", frame, priors=[bl.prior("normal(0, 1)", part="fixed", term="fb")]).priors.set_index("term")
    assert table.loc["fb", "source"] == "user"
    assert table.loc["x", "source"] == "default"


def test_a_row_for_all_fixed_effects_leaves_the_intercept_alone(frame: pd.DataFrame) -> None:
    priors = _priors(frame, "y ~ x", [bl.prior("normal(0, 1)", part="fixed")])
    assert priors["intercept", "", "(Intercept)"].startswith("student_t(3, ")


def test_a_raw_intercept_replaces_the_centred_one(frame: pd.DataFrame) -> None:
    priors = _priors(frame, "y ~ x", [bl.prior("normal(300, 9)", part="fixed", term="(Intercept)")])
    assert priors["fixed", "", "(Intercept)"] == "normal(300, 9)"
    assert ("intercept", "", "(Intercept)") not in priors
    both = [bl.prior("normal(0, 9)", part="fixed", term="(Intercept)"), bl.prior("normal(0, 9)", part="intercept")]
    with pytest.raises(PriorError, match="both the centred intercept"):
        bl.model("y ~ x", frame, priors=both)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"part": "fixed", "term": "Day"}, "no term 'Day' in part 'fixed'"),
        ({"part": "sd", "group": "G"}, "no group 'G' in part 'sd'.*known: g"),
        ({"part": "sd", "group": "g", "term": "xx"}, r"no term 'xx'.*known: \(Intercept\), x|did you mean 'x'"),
        ({"part": "aux", "term": "sigm"}, "did you mean 'sigma'"),
    ],
)
def test_a_row_that_names_nothing_is_refused(options: dict[str, str], message: str, frame: pd.DataFrame) -> None:
    with pytest.raises(PriorError, match=message):
        bl.model("y ~ x + (x | g)", frame, priors=[bl.prior("normal(0, 1)", **options)])


def test_a_part_that_the_model_lacks_is_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(PriorError, match="no parameters of part 'cor'; it has: intercept, fixed, sd, aux"):
        bl.model("y ~ x + (1 | g)", frame, priors=[bl.prior("lkj(2)", part="cor")])
    with pytest.raises(PriorError, match="did you mean 'fixed'"):
        bl.prior("normal(0, 1)", part="fixd")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("normal(0, 0)", "sigma of normal.* must be above 0"),
        ("normal(0, -1)", "must be above 0"),
        ("normal(0)", r"has 1 arguments; it is normal\(mu, sigma\)"),
        ("student_t(0, 0, 1)", "nu of"),
        ("uniform(2, 1)", "lower must be below upper"),
        ("norml(0, 1)", "did you mean 'normal'"),
        ("normal(0, a)", "'a' in the prior .* is not a number"),
        ("normal(0, inf)", "must be finite"),
        ("normal 0 1", "cannot read the prior"),
        ("horseshoe(0)", "df of horseshoe.* must be above 0"),
        ("horseshoe(1, ratio=2)", r"horseshoe\(\) has no argument 'ratio'.*did you mean 'par_ratio'"),
        ("horseshoe(1, par_ratio=-2)", "par_ratio of horseshoe.* must be above 0"),
        ("R2D2(1)", "mean_R2 of R2D2.* must lie between 0 and 1"),
        ("R2D2(0.5, mean_R2=0.4)", "the argument 'mean_R2' stands twice"),
        ("R2D2(mean_R2=0.4, 2)", "arguments without a name come first"),
        ("R2D2(0.5, 2, 1, 1, 1)", "has 5 arguments"),
    ],
)
def test_what_is_no_distribution_is_refused(text: str, message: str) -> None:
    with pytest.raises(PriorError, match=message):
        bl.prior(text, part="fixed")


def test_lkj_is_for_correlations_and_they_for_lkj() -> None:
    with pytest.raises(PriorError, match="correlations take lkj"):
        bl.prior("normal(0, 1)", part="cor")
    with pytest.raises(PriorError, match=r"lkj\(eta\) is for part='cor'"):
        bl.prior("lkj(2)", part="sd")


@pytest.mark.parametrize("text", ["uniform(-3, -1)", "constant(-2)"])
def test_a_prior_outside_the_range_is_refused(text: str, frame: pd.DataFrame) -> None:
    with pytest.raises(PriorError, match="range of sd"):
        bl.model("y ~ x + (1 | g)", frame, priors=[bl.prior(text, part="sd")])


def test_rows_that_are_no_rows_are_refused(frame: pd.DataFrame) -> None:
    with pytest.raises(PriorError, match="rows made by prior"):
        bl.model("y ~ x", frame, priors=["normal(0, 1)"])  # type: ignore[list-item]
    with pytest.raises(PriorError, match="not int"):
        bl.prior(3, part="fixed")


def test_parameters_with_a_predictor_are_named(frame: pd.DataFrame) -> None:
    formula = bl.formula("y ~ x + (1 | g)", sigma="~ x + (1 | h)")
    rows = [bl.prior("normal(0, 7)", part="fixed"), bl.prior("normal(0, 0.3)", part="fixed", term="sigma_x")]
    priors = _priors(frame, formula, rows)
    assert priors["fixed", "", "x"] == "normal(0, 7)"
    assert priors["fixed", "", "sigma_x"] == "normal(0, 0.3)"
    assert ("sd", "h", "sigma_(Intercept)") in priors
    assert ("aux", "", "sigma") not in priors


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("horseshoe()", "horseshoe(df=1, scale_global=1, df_global=1, scale_slab=2, df_slab=4)"),
        ("horseshoe(3, par_ratio=0.1)", "horseshoe(df=3, scale_global=1, df_global=1, scale_slab=2, df_slab=4, par_ratio=0.1)"),
        ("R2D2(prec_R2=10, autoscale=FALSE)", "R2D2(mean_R2=0.5, prec_R2=10, cons_D2=0.5, autoscale=FALSE)"),
        ("normal(mu=1, sigma=2)", "normal(1, 2)"),
        ("normal(1, sigma = 2)", "normal(1, 2)"),
    ],
)
def test_arguments_by_name_and_by_default(text: str, shown: str) -> None:
    row = bl.prior(text, part="fixed")
    assert str(row) == shown
    assert bl.prior(shown, part="fixed") == row


def test_bounds_stand_in_the_table_and_follow_their_row(frame: pd.DataFrame) -> None:
    rows = [bl.prior("normal(0, 1)", part="fixed", term="x", lower=0), bl.prior("normal(0, 5)", part="sd", upper=3.5)]
    priors = _priors(frame, "y ~ x + f + (x | g)", rows)
    assert priors["fixed", "", "x"] == "normal(0, 1), lower=0"
    assert priors["fixed", "", "fb"].count("lower") == 0
    assert priors["sd", "g", "x"] == "normal(0, 5), upper=3.5"
    assert str(bl.prior("student_t(3, 0, 1)", part="aux", term="sigma", lower=1, upper=4)) == "student_t(3, 0, 1), lower=1, upper=4"
    again = _priors(frame, "y ~ x", [*rows[:1], bl.prior("normal(0, 2)", part="fixed", term="x")])
    assert again["fixed", "", "x"] == "normal(0, 2)"


def test_flat_between_two_bounds_is_uniform() -> None:
    row = bl.prior("flat()", part="fixed", term="x", lower=-1, upper=3)
    assert row.distribution.name == "uniform"
    assert row.distribution.args == (-1.0, 3.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"distribution": "lkj(2)", "part": "cor", "lower": 0}, "takes no bounds"),
        ({"distribution": "constant(2)", "part": "fixed", "upper": 3}, "takes no bounds"),
        ({"distribution": "horseshoe()", "part": "fixed", "lower": 0}, "takes no bounds"),
        ({"distribution": "normal(0, 1)", "part": "fixed", "lower": 2, "upper": 2}, r"lower \(2\) must be below upper \(2\)"),
        ({"distribution": "normal(0, 1)", "part": "fixed", "lower": "low"}, "lower must be a number, not 'low'"),
        ({"distribution": "normal(0, 1)", "part": "fixed", "lower": np.nan}, "lower must be a number"),
    ],
)
def test_bounds_where_they_mean_nothing_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(PriorError, match=message):
        bl.prior(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"distribution": "normal(0, 1)", "part": "sd", "upper": -1}, "leaves nothing of the range of sd"),
        ({"distribution": "uniform(0, 1)", "part": "fixed", "term": "x", "lower": 2}, "no mass in the range of fixed x"),
        ({"distribution": "normal(0, 1)", "part": "fixed", "term": "x", "lower": 9}, "no mass in the range of fixed x"),
    ],
)
def test_bounds_that_leave_nothing_are_refused(row: dict[str, object], message: str, frame: pd.DataFrame) -> None:
    with pytest.raises(PriorError, match=message):
        bl.model("y ~ x + (1 | g)", frame, priors=[bl.prior(**row)])  # type: ignore[arg-type]


def test_thresholds_take_no_bounds(frame: pd.DataFrame) -> None:
    data = frame.assign(level=pd.Categorical(frame["f"], ordered=True))
    with pytest.raises(PriorError, match="thresholds take no bounds"):
        bl.model("level ~ x", data, "cumulative", priors=[bl.prior("normal(0, 1)", part="aux", lower=0)])


@pytest.mark.parametrize("text", ["horseshoe()", "R2D2()"])
def test_a_prior_of_all_coefficients_is_of_all_of_them(text: str, frame: pd.DataFrame) -> None:
    priors = _priors(frame, "y ~ x + f + (1 | g)", [bl.prior(text, part="fixed")])
    assert {priors["fixed", "", term] for term in ("x", "fb", "fc")} == {str(bl.prior(text, part="fixed"))}
    assert priors["intercept", "", "(Intercept)"].startswith("student_t")
    with pytest.raises(PriorError, match="all coefficients together"):
        bl.prior(text, part="fixed", term="x")
    with pytest.raises(PriorError, match="all coefficients together"):
        bl.prior(text, part="sd")
    with pytest.raises(PriorError, match="'x' cannot have its own, normal"):
        bl.model("y ~ x + f", frame, priors=[bl.prior(text, part="fixed"), bl.prior("normal(0, 1)", part="fixed", term="x")])


class _TheirPrior:
    """What is read of a `bambi.Prior`."""

    def __init__(self, name: str, **args: object) -> None:
        self.name, self.args = name, args


def test_bambis_folded_and_truncated_priors_have_their_bounds() -> None:
    assert str(bl.prior(_TheirPrior("HalfNormal", sigma=2.0), part="fixed", term="x")) == "normal(0, 2), lower=0"
    truncated = _TheirPrior("TruncatedNormal", mu=1.0, sigma=2.0, lower=-1.0, upper=3.0)
    assert str(bl.prior(truncated, part="fixed", term="x")) == "normal(1, 2), lower=-1, upper=3"
    assert str(bl.prior(_TheirPrior("StudentT", nu=3, mu=0, sigma=2.5), part="intercept")) == "student_t(3, 0, 2.5)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (_TheirPrior("Laplace", mu=0.0, b=1.0), r"no counterpart here; there are: Normal\(mu, sigma\), HalfNormal"),
        (_TheirPrior("Normal", mu=0.0, sigma=_TheirPrior("HalfNormal", sigma=1.0)), "sigma of bambi.Prior.* must be one number"),
        (_TheirPrior("Normal", mu=np.zeros(2), sigma=np.ones(2)), "must be one number"),
        ({"mu": 0}, "not dict"),
    ],
)
def test_a_prior_of_bambi_without_counterpart_is_refused(given: object, message: str) -> None:
    with pytest.raises(PriorError, match=message):
        bl.prior(given, part="fixed")
