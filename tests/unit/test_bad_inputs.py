"""What a careless or hostile user passes in: an answer, or one clear line that says what, where and what to do."""

from __future__ import annotations

import datetime
import decimal
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import bayeslmm as bl
from bayeslmm.bayes.propriety import refuse_improper
from bayeslmm.cli import main
from bayeslmm.design import weak_groups
from bayeslmm.errors import BayesLmmError, ConvergenceWarning, DataError, DataWarning, FitError, FormulaError, PriorError

N = 40
PLAIN = "y ~ x + (1 | g)"
nan, inf = float("nan"), float("inf")


def frame(**columns) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    data = pd.DataFrame(
        {
            "y": rng.normal(size=N) + np.repeat(2 * rng.normal(size=8), 5),
            "x": rng.normal(size=N),
            "f": ["a", "b"] * 20,
            "g": np.repeat([f"g{i}" for i in range(8)], 5),
            "h": np.tile([f"h{i}" for i in range(5)], 8),
            "k": rng.integers(0, 5, N).astype(float),
            "n": np.full(N, 5.0),
            "b": np.arange(N) % 2.0,
        }
    )
    return data.assign(**columns)


def put(column: str, rows: list[int], value, data: pd.DataFrame | None = None) -> pd.DataFrame:
    """Return a frame with some cells of a column replaced."""
    data = frame() if data is None else data
    values = data[column].to_numpy(dtype=object if value is None or isinstance(value, str) else float, copy=True)
    values[rows] = value
    return data.assign(**{column: values})


def model(formula, data, family="gaussian", **options):
    return bl.model(formula, data, family, **options)


# Refused -----------------------------------------------------------------------------------------------------------------

DAYS = pd.date_range("2020-01-01", periods=N)

BAD_DATA = {
    "no rows": (PLAIN, frame().iloc[:0], "no rows"),
    "one row": (PLAIN, frame().iloc[:1], "1 of 1 rows"),
    "everything missing": (PLAIN, frame(y=nan, x=nan), r"0 of 40 rows .* y \(40\), x \(40\)"),
    "one missing each": (PLAIN, put("x", list(range(20)), nan, put("y", list(range(20, N)), nan)), r"y \(20\), x \(20\)"),
    "infinite response": (PLAIN, put("y", [3, 7], inf), r"'y' has infinite values.*rows 3, 7"),
    "infinite predictor": (PLAIN, put("x", [3], -inf), r"'x' has infinite values.*row 3"),
    "infinite, rows with two names": (PLAIN, put("x", [3], inf).set_index(["g", "h"], drop=False), r"row \('g0', 'h3'\)"),
    "log of zero": ("y ~ log(k) + (1 | g)", frame(), r"log\(k\) gives -Inf.*rows \d+, "),
    "log of a negative": ("y ~ log(x) + (1 | g)", frame(), r"log\(x\) gives NaN"),
    "one over zero": ("y ~ I(1/k) + (1 | g)", frame(), "1/k gives Inf"),
    "log of zero in the response": ("log(k) ~ x + (1 | g)", frame(), r"log\(k\) gives -Inf"),
    "overflow": ("y ~ exp(1e5 * x)", frame(), "gives Inf"),
    "constant response": (PLAIN, frame(y=1.0), "'y' is constant"),
    "one level": ("y ~ f + (1 | g)", frame(f="a"), "'f' has only one level"),
    "a measurement as group": (PLAIN, frame(g=np.linspace(0.1, 1, N)), "40 different fractions"),
    "unknown column": ("y ~ Xs + (1 | g)", frame(Xss=1.0), "no column 'Xs'; did you mean 'Xss'"),
    "unknown slope": ("y ~ x + (zz | g)", frame(), "no column 'zz'"),
    "unknown group": ("y ~ x + (1 | gg)", frame(), "no column 'gg'; did you mean 'g'"),
    "unknown response": ("yy ~ x", frame(), "no column 'yy'; did you mean 'y'"),
    "a variable of Python": ("y ~ N", frame(), "no column 'N'"),
    "group is the index": (PLAIN, frame().set_index("g"), r"'g'; the index has that name.*reset_index"),
    "text response": ("f ~ x + (1 | g)", frame(), "'f' is text"),
    "numbers as text": (PLAIN, frame(x=frame()["x"].astype(str)), "'x' is text, but its 40 values are all numbers"),
    "dates": (PLAIN, frame(x=DAYS), "'x' holds dates"),
    "dates with a zone": (PLAIN, frame(x=DAYS.tz_localize("UTC")), "'x' holds"),
    "dates of Python": (PLAIN, frame(x=[datetime.date(2020, 1, 1)] * N), "'x' holds"),
    "dates of Arrow": (PLAIN, frame(x=pd.array(DAYS, dtype=pd.ArrowDtype(pa.date32()))), "'x' holds"),
    "dates as group": (PLAIN, frame(g=DAYS), "'g' holds dates"),
    "durations": (PLAIN, frame(x=pd.to_timedelta(np.arange(N), "D")), "'x' holds durations"),
    "periods": (PLAIN, frame(x=pd.period_range("2020-01", periods=N, freq="M")), "'x' holds"),
    "complex numbers": (PLAIN, frame(x=np.arange(N) * 1j), "'x' holds complex"),
    "lists": (PLAIN, frame(x=[[1]] * N), "'x' holds lists"),
    "lists of Arrow": (PLAIN, frame(x=pd.array([[1]] * N, dtype=pd.ArrowDtype(pa.list_(pa.int64())))), "'x' holds"),
    "dicts": (PLAIN, frame(x=[{"a": 1}] * N), "'x' holds"),
    "tuples as group": (PLAIN, frame(g=[(1, 2)] * N), "'g' holds"),
    "bytes": (PLAIN, frame(g=[b"a", b"b"] * 20), "'g' holds"),
    "mixed objects": (PLAIN, frame(g=[1, "a"] * 20), "'g' holds"),
    "objects of polars": (PLAIN, pl.from_pandas(frame()).with_columns(x=pl.Series([object()] * N, dtype=pl.Object)), "'x' holds"),
    "a type pandas lacks": (PLAIN, pl.from_pandas(frame()).with_columns(g=pl.col("k").cast(pl.Int128)), "cannot hold a column"),
    "huge integers": (PLAIN, frame(g=np.repeat(2**60 + np.arange(8), 5)), r"'g' has integers beyond 2\^53"),
    "huge nullable integers": (PLAIN, frame(g=pd.array(np.repeat(2**60 + np.arange(8), 5), dtype="Int64")), r"beyond 2\^53"),
    "huge integers of Arrow": (PLAIN, frame(g=pd.array(np.repeat(2**60 + np.arange(8), 5), dtype="int64[pyarrow]")), r"beyond 2\^53"),
    "huge integers of Python": (PLAIN, frame(x=[10**30 + i for i in range(N)]), r"beyond 2\^53"),
    "largest unsigned integers": (PLAIN, frame(x=np.full(N, 2**64 - 1, dtype="uint64")), r"beyond 2\^53"),
    "least integers": (PLAIN, frame(x=np.full(N, -(2**63))), r"beyond 2\^53"),
    "huge response": (PLAIN, frame(y=frame()["y"] * 1e300), "'y' .* too large or too small"),
    "tiny response": (PLAIN, frame(y=frame()["y"] * 1e-300), "'y' .* too large or too small"),
    "huge predictor": (PLAIN, frame(x=frame()["x"] * 1e300), "'x' .* too large or too small"),
    "huge slope": ("y ~ 1 + (x | g)", frame(x=frame()["x"] * 1e300), "'x' .* too large or too small"),
    "categories where numbers are needed": ("y ~ scale(f)", frame(), r"scale\(f\) needs numbers"),
    "categories compared": ("y ~ f < 'b'", frame(), "categories can be compared"),
    "categories as offset": ("y ~ x + offset(f)", frame(), "offset 'f' holds categories"),
    "categories as weights": ("y | weights(f) ~ x", frame(), "weight 'f' holds categories"),
    "two coefficients of one name": ("y ~ f + fb", frame(fb=frame()["k"]), "two coefficients would be named 'fb'"),
    "two effects of one name": ("y ~ 1 + (f + fb | g)", frame(fb=frame()["k"]), "two coefficients would be named 'fb'"),
    "two groups of one name": ("y ~ 1 + (1 | g:h)", frame(g=["a:b", "a"] * 20, h=["c", "b:c"] * 20), "contains ':'"),
    "levels left out": ("y ~ factor(f, levels = c('a'))", frame(), "no level for some rows.*rows 1, 3"),
    "two columns of one name": (PLAIN, pd.concat([frame(), frame()[["x"]]], axis=1), "unique; repeated: x"),
    "3 and '3'": (PLAIN, frame(**{"3": 1.0}).rename(columns={"k": 3}), "unique; repeated: 3"),
    "rows of column names": (PLAIN, pd.concat({"a": frame()}, axis=1), "several rows of column names"),
    "columns of two lengths": (PLAIN, {"y": [1, 2], "x": [1]}, "one length"),
    "single values": (PLAIN, {"y": 1, "x": 2, "g": 3}, "one length"),
    "no columns": (PLAIN, {}, "no column 'y'"),
    **{
        f"data is {type(data).__name__}": (PLAIN, data, "frame or a dict of columns")
        for data in (None, [1, 2], np.ones((3, 3)), frame()["y"], "file.csv", 3, frame().groupby("g"))
    },
}


@pytest.mark.parametrize(("formula", "data", "message"), BAD_DATA.values(), ids=BAD_DATA)
def test_data_that_cannot_be_used(formula, data, message):
    with pytest.raises(DataError, match=message) as caught:
        model(formula, data)
    assert "\n" not in str(caught.value)


FACTOR = pd.Categorical(["a", "b"] * 20)
BAD_RESPONSES = {
    "factor, gaussian": ("f ~ x", frame(f=FACTOR), "gaussian", "'f' is a factor .*family='bernoulli'"),
    "factor, counts": ("f ~ x", frame(f=FACTOR), "poisson", "'f' is a factor .*family='bernoulli'"),
    "three levels": ("f ~ x", frame(f=pd.Categorical(["a", "b", "c", "a"] * 10)), "bernoulli", "'f' has 3 levels .* needs two"),
    "one level": ("f ~ x", frame(f=pd.Categorical(["a"] * N)), "bernoulli", "'f' has 1 level .* needs two"),
    "neither 0 nor 1": ("k ~ x", frame(), "bernoulli", r"cannot have \(2, 3, 4\).*rows \d+, "),
    "more successes than trials": ("k | trials(n) ~ x", put("k", [2], 9.0), "binomial", r"\(9 of 5\).*\(row 2\)"),
    "negative failures": ("cbind(k, n - k) ~ x", put("k", [2], 9.0), "binomial", r"\(9 of 5\).*\(row 2\)"),
    "negative successes": ("cbind(k, n) ~ x", put("k", [2], -1.0), "binomial", r"\(-1 of 4\).*\(row 2\)"),
    "fractions of successes": ("cbind(k, n) ~ x", put("k", [2], 1.5), "binomial", r"\(1.5 of 6.5\).*proportion.*cbind.*\(row 2\)"),
    "fractions of trials": ("k | trials(n) ~ x", put("n", [2], 5.5), "binomial", r"of 5.5\).*\(row 2\)"),
    "no trials at all": ("cbind(k, n) ~ x", frame(k=0.0, n=0.0), "binomial", "every row has no trials"),
    "trials not given": ("k ~ x", frame(), "binomial", r"cannot have \(2, 3, 4\).*cbind\(successes, failures\)"),
    "proportions": ("p ~ x", frame(p=0.25), "binomial", "a proportion becomes its counts"),
    "trials, gaussian": ("cbind(k, n) ~ x", frame(), "gaussian", "needs family='binomial'"),
    "trials, bernoulli": ("b | trials(n) ~ x", frame(), "bernoulli", "needs family='binomial'"),
    "categories of trials": ("k | trials(f) ~ x", frame(), "binomial", "number of trials 'f' holds categories"),
    "negative counts": ("k ~ x", put("k", [1], -1.0), "poisson", r"cannot have \(-1\).*\(row 1\)"),
    "fractions of counts": ("k ~ x", put("k", [1], 1.5), "poisson", r"cannot have \(1.5\).*a rate becomes its count.*\(row 1\)"),
    "huge counts": ("k ~ x", put("k", [1], 1e18), "poisson", r"cannot have \(1e\+18\)"),
}


@pytest.mark.parametrize(("formula", "data", "family", "message"), BAD_RESPONSES.values(), ids=BAD_RESPONSES)
def test_responses_that_the_family_cannot_have(formula, data, family, message):
    with pytest.raises(DataError, match=message):
        model(formula, data, family)


BAD_FORMULAS = {
    "~ x + (1 | g)": "no response",
    "y ~ x | g": r"\(x \| g\)",
    "y ~ 0": "empty",
    "y ~ 0 + offset(k)": "empty",
    "y ~ ": "y ~ 1",
    "": "empty",
    "y": "a formula has a '~'",
    "y ~ x ~ z": "one '~'",
    "y = x": "'='",
    "y ~ x + (1 | g": r"never closed",
    "y ~ x)": "never opened",
    "y ~ x + (0 | g)": "no effect is left of the bar",
    "y ~ x + (1 | 1)": "grouping column",
    "y ~ x + (1 | g + h)": "for two groups",
    "y ~ x * (1 | g)": "summand of its own",
    "y ~ x - (1 | g)": "cannot be removed",
    "y ~ x + y + (1 | g)": "the response y is on the right side too",
    "y ~ y:x": "the response y is on the right side too",
    "y ~ x + (y | g)": "the response y is on the right side too",
    "y ~ x + (1 | y)": "the response y is on the right side too",
    "y ~ log(y + 10)": r"on the right side too, in log\(y \+ 10\)",
    "y ~ offset(y)": "on the right side too",
    "log(y + 9) ~ log(y + 9)": "on the right side too",
    "1 ~ x": "no column is on the left side",
    "cbind(k, n, b) ~ x": "2 arguments",
    "y ~ 3": "3 is no term",
    "y ~ NA": "reserved word",
    "y ~ x^-1": "whole number from 2",
    "y ~ poly(x, 2.5)": "whole number",
    "y ~ poly(x, 50)": "distinct values",
    "y ~ scale(n)": "constant",
    "y ~ lgo(x)": r"unknown function lgo\(\); did you mean 'log'",
    "y ~ C(f, contr.zz)": "unknown contrast",
    "y ~ __import__('os').system('true')": "unknown function|called|takes",
    "y ~ exec(x)": "unknown function",
    "y ~ x.__class__()": "unknown function",
    "y ~ (lambda: 1)()": "plain name",
    "y ~ x[0]": "subscripts",
    "y ~ x := 1": "assign nothing",
    "y ~ x\x00": r"U\+0000",
    "y ~ \u202ex": r"U\+202E",
    "y ~ `": "never closed",
    "y ~ " + "(" * 400 + "x" + ")" * 400: "deep|nested|parenthes",
    "y ~ " + "+".join(["x"] * 20000): "too long",
    None: "a formula is text",
    42: "a formula is text",
}


@pytest.mark.parametrize(("formula", "message"), BAD_FORMULAS.items(), ids=lambda value: str(value)[:30].replace("\x00", "NUL"))
def test_formulas_that_cannot_be_used(formula, message):
    with pytest.raises(FormulaError, match=message):
        model(formula, frame())


OPTIONS = {
    "family": ({"family": "poison"}, FitError, "did you mean 'poisson'"),
    "family's kind": ({"family": 3}, FitError, "unknown family 3"),
    "link": ({"link": "lgo"}, FitError, "did you mean 'log'"),
    "link of another family": ({"link": "logit"}, FitError, "has no link 'logit'"),
    "na": ({"na": "drop"}, DataError, "'omit' or 'raise'"),
    "dialect": ({"dialect": "lme5"}, FitError, "did you mean 'lme4'"),
    "data2": ({"data2": {"K": 1}}, FitError, "data2"),
    "prior of nothing": ({"priors": [bl.prior("normal(0, 1)", part="fixed", term="zz")]}, PriorError, "no term 'zz'"),
    "prior of no group": ({"priors": [bl.prior("normal(0, 1)", part="sd", group="gg")]}, PriorError, "did you mean 'g'"),
    "prior alone": ({"priors": bl.prior("normal(0, 1)", part="fixed")}, PriorError, r"put it in \[...\]"),
    "prior as text": ({"priors": "normal(0, 1)"}, PriorError, "rows made by prior"),
    "priors as dict": ({"priors": {"x": "normal(0, 1)"}}, PriorError, "rows made by prior"),
    "priors as number": ({"priors": 3}, PriorError, "rows made by prior"),
    "contrasts' kind": ({"contrasts": "sum"}, DataError, "contrasts is a dict"),
    "contrast": ({"contrasts": {"f": "summ"}}, FormulaError, "did you mean 'sum'"),
    "contrast of nothing": ({"contrasts": {"x": "sum"}}, DataError, "'x' is no factor"),
    "contrast's size": ({"contrasts": {"f": np.ones((3, 3))}}, FormulaError, "3 rows, but the factor has 2 levels"),
    "contrast of zeros": ({"contrasts": {"f": [[0], [0]]}}, FormulaError, "singular"),
    "contrast missing": ({"contrasts": {"f": [[nan], [1]]}}, FormulaError, "finite"),
    **{
        f"{what}: {name}": ({what: values}, DataError, message)
        for what in ("weights", "offset")
        for name, values, message in (
            ("no column", "zz", "no column 'zz'"),
            ("categories", "f", "'f' holds categories"),
            ("short", np.ones(3), r"shape \(3,\), but the data have 40 rows"),
            ("scalar", 1.0, "one value a row"),
            ("matrix", np.ones((N, 2)), "one value a row"),
            ("text", ["a"] * N, "array of numbers"),
            ("complex", np.full(N, 1j), "array of numbers"),
            ("infinite", np.full(N, inf), "infinite"),
            ("missing", np.full(N, nan), "0 of 40 rows"),
            ("series of other rows", pd.Series(np.ones(N), index=range(N, 0, -1)), "index is not that of the data"),
        )
    },
    "weights negative": ({"weights": np.full(N, -1.0)}, DataError, "not be negative.*rows 0"),
    "weights zero": ({"weights": np.zeros(N)}, DataError, "every row has zero weight"),
}


@pytest.mark.parametrize(("options", "kind", "message"), OPTIONS.values(), ids=OPTIONS)
def test_options_that_cannot_be_used(options, kind, message):
    with pytest.raises(kind, match=message):
        model("y ~ x + f + (1 | g)", frame(), **options)


LEVELS = [f"g{i}" for i in range(8)]
K = pd.DataFrame(np.eye(8), index=LEVELS, columns=LEVELS)
MATRICES = {
    "none": (None, FitError, r"pass data2=\{'K': matrix\}"),
    "a list": ([K], FitError, "data2 is a dict"),
    "another name": ({"Q": K}, FitError, "which data2 does not hold; known: Q"),
    "no names": ({"K": np.eye(8)}, DataError, "does not name its levels"),
    "one row": ({"K": np.ones(8)}, DataError, "does not name its levels"),
    "text": ({"K": "A"}, DataError, "does not name its levels"),
    "not square": ({"K": K.iloc[:, :7]}, DataError, "square|same names|rows and columns"),
    "a level missing": ({"K": K.iloc[:7, :7]}, DataError, r"no row for 1 of 8 levels of 'g' \('g7'\)"),
    "not symmetric": ({"K": K + np.triu(np.full((8, 8), 0.1), 1)}, DataError, "not symmetric: its entries of 'g0' and 'g1'"),
    "not positive": ({"K": K - 2.0}, DataError, "not positive definite"),
    "zero": ({"K": K * 0.0}, DataError, "not positive definite"),
    "missing": ({"K": K * nan}, DataError, "missing or infinite entries"),
}


@pytest.mark.parametrize(("data2", "kind", "message"), MATRICES.values(), ids=MATRICES)
def test_matrices_that_are_no_covariance_of_the_levels(data2, kind, message):
    with pytest.raises(kind, match=message):
        model("y ~ x + (1 | gr(g, cov = K))", frame(), data2=data2)


def test_a_parameter_that_the_family_lacks():
    with pytest.raises(FitError, match="no parameter 'sgma'; did you mean 'sigma'"):
        model(bl.formula(PLAIN, sgma="~ x"), frame())
    with pytest.raises(FitError, match="'poisson' has no parameter 'sigma'"):
        model(bl.formula("k ~ x", sigma="~ x"), frame(), "poisson")


BAD_FITS = {
    "one group": (PLAIN, frame(g="a"), DataError, "'g' has 1 level"),
    "a group for each row": (PLAIN, frame(g=np.arange(N)), DataError, "40 levels in 40 rows"),
    "an effect for each row": ("y ~ x + (x | g)", frame(g=np.repeat(np.arange(20), 2)), DataError, "40 effects for 40 rows"),
    "nothing to explain": (PLAIN, frame(y=2 * frame()["x"]), FitError, "no variance to estimate"),
    "two rows": ("y ~ x", frame().iloc[:2], FitError, "2 rows cannot estimate 2 coefficients"),
    "another link": (bl.formula("y ~ x"), frame(), FitError, "identity"),
}


@pytest.mark.parametrize(("formula", "data", "kind", "message"), BAD_FITS.values(), ids=BAD_FITS)
def test_models_that_lmer_cannot_fit_but_the_prior_can_carry(formula, data, kind, message):
    ready = model(formula, data, link="log" if message == "identity" else None)
    with pytest.raises(kind, match=message):
        bl.lmer(ready)


def test_more_coefficients_than_rows():
    wide = frame(**{f"v{i}": np.random.default_rng(i).normal(size=N) for i in range(50)})
    with pytest.warns(match="rank_deficient"):
        ready = model(" + ".join(["y ~ (1 | g)", *(f"v{i}" for i in range(50))]), wide)
    assert ready.dims.p == N
    with pytest.raises(FitError, match="40 rows cannot estimate 40 coefficients"):
        bl.lmer(ready)


FLAT = {part: [bl.prior("flat()", part=part)] for part in ("fixed", "intercept", "sd", "aux")}
SIDES = {"b": np.repeat([0.0, 1.0], 20)}
IMPROPER = {
    "sd of two groups": ("y ~ x + (1 | f)", frame(), "gaussian", FLAT["sd"], r"sd \(Intercept\) of 'f' with 2 levels"),
    "sd of groups that are all of one outcome": (
        "b ~ 1 + (1 | g)",
        frame(**SIDES),
        "bernoulli",
        FLAT["sd"],
        "of whose 8 levels only 0 have both",
    ),
    "slope that separates": (
        "b ~ f",
        frame(b=[0.0, 1.0] * 20),
        "bernoulli",
        FLAT["fixed"],
        r"on fb and .* separated \(f = a: 0 of 20 rows",
    ),
    "slope that separates trials": ("k | trials(n) ~ f", frame(k=[0.0, 5.0] * 20), "binomial", FLAT["fixed"], "on fb and .* separated"),
    "coefficients of which one is infinite": (
        *("b ~ f", frame(b=np.where(frame()["f"] == "a", 0.0, np.arange(N) % 4 == 1)), "bernoulli"),
        *([*FLAT["fixed"], *FLAT["intercept"]], r"on fb, \(Intercept\) and .* separated"),
    ),
    "counts of zero on one side": (
        *("k ~ f + (1 | g)", frame(k=[0.0, 3.0] * 20), "poisson"),
        *([*FLAT["fixed"], *FLAT["intercept"]], "separated"),
    ),
    "degrees of freedom": ("y ~ x", frame(), "student", [bl.prior("flat()", part="aux", term="nu")], "nu, whose likelihood does not fall"),
    "shape of counts": ("k ~ x", frame(), "negative_binomial", FLAT["aux"], "shape, whose likelihood does not fall"),
    "precision of trials": ("k | trials(n) ~ x", frame(), "beta_binomial", FLAT["aux"], "phi, whose likelihood does not fall"),
    "sigma of as many coefficients as rows": (
        *("y ~ x", frame().iloc[:3], "gaussian"),
        *([*FLAT["fixed"], *FLAT["intercept"], *FLAT["aux"]], "sigma of 3 rows with 2 flat"),
    ),
}


@pytest.mark.parametrize(("formula", "data", "family", "priors", "message"), IMPROPER.values(), ids=IMPROPER)
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.DataWarning")
def test_flat_priors_that_leave_no_posterior(formula, data, family, priors, message):
    with pytest.raises(PriorError, match=message) as caught:
        bl.brm(formula, data, family, priors=priors, seed=1)
    assert str(caught.value).startswith("flat() on ")
    assert str(caught.value).endswith("there is no proper posterior; give it a proper prior")


PROPER = {
    "sd of many groups": (PLAIN, frame(), "gaussian", FLAT["sd"]),
    "sigma": (PLAIN, frame(), "gaussian", FLAT["aux"]),
    "all coefficients": (PLAIN, frame(), "gaussian", [*FLAT["fixed"], *FLAT["intercept"]]),
    "slope of outcomes that overlap": ("b ~ x", frame(), "bernoulli", FLAT["fixed"]),
    "slope held by the intercept's prior": (
        *("b ~ f", frame(b=np.where(frame()["f"] == "a", 0.0, np.arange(N) % 4 == 1)), "bernoulli", FLAT["fixed"]),
    ),
    "sd of groups with both outcomes": ("b ~ 1 + (1 | g)", frame(), "bernoulli", FLAT["sd"]),
    "shape of measures": ("y ~ x", frame(y=np.exp(frame()["y"])), "gamma", FLAT["aux"]),
}


@pytest.mark.parametrize(("formula", "data", "family", "priors"), PROPER.values(), ids=PROPER)
def test_flat_priors_that_the_data_make_proper(formula, data, family, priors):
    refuse_improper(model(formula, data, family, priors=priors))


SAMPLING = {
    "chains": ({"chains": "4"}, "chains must be a whole number"),
    "no chains": ({"chains": 0}, "chains must be a whole number of at least 1"),
    "draws": ({"draws": None}, "draws must be a whole number"),
    "part of a draw": ({"draws": 1.5}, "draws must be a whole number"),
    "no tuning": ({"tune": 0}, "tune must be a whole number of at least 1"),
    "cores": ({"cores": 0}, "cores must be"),
    "seed": ({"seed": "a"}, "seed must be"),
    "seed's kind": ({"seed": np.random.default_rng(1)}, "seed must be"),
    "seed too long": ({"seed": 2**80}, r"below 2\^63"),
    "target as text": ({"target_accept": "high"}, "target_accept must lie between 0 and 1, not 'high'"),
    "target as list": ({"target_accept": [0.9]}, "target_accept must lie"),
    "target missing": ({"target_accept": nan}, "target_accept must lie"),
    "no sampler": ({"sampler": None}, "unknown sampler None"),
    "samplers": ({"sampler": ["nutpie"]}, "unknown sampler"),
}


@pytest.mark.parametrize(("options", "message"), SAMPLING.values(), ids=SAMPLING)
def test_options_of_the_sampling(options, message):
    with pytest.raises(FitError, match=message):
        bl.brm(PLAIN, frame(), **options)


@pytest.mark.sampling
@pytest.mark.parametrize(
    ("chains", "draws", "codes"), [(1, 800, {"one_chain"}), (4, 20, {"few_draws"}), (1, 1, {"one_chain", "few_draws"})]
)
def test_one_chain_and_few_draws_are_said_and_answered(chains, draws, codes):
    with pytest.warns(ConvergenceWarning) as caught:
        fit = bl.brm(PLAIN, frame(), chains=chains, draws=draws, tune=200, seed=1, progressbar=False)
    assert codes <= {warning.message.code for warning in caught}
    assert fit.draws().n_draws == chains * draws
    assert np.isfinite(fit.estimates["estimate"]).all()
    assert len(str(fit.summary()).splitlines()) > 10
    assert len(fit.diagnose().table) > 6
    assert len(fit.tidy()) == len(fit.estimates)
    assert len(fit.predict(frame().iloc[:3])) == 3


# Said once, and answered -----------------------------------------------------------------------------------------------

NOTICES = {
    "missing": (PLAIN, put("x", [3, 4], nan, put("y", [3], nan)), "gaussian", r"y \(1\), x \(2\); 38 of 40 rows"),
    "missing group": (PLAIN, put("g", [3], None), "gaussian", r"g \(1\); 39 of 40 rows"),
    "missing category": (PLAIN, frame(g=pd.Categorical(put("g", [3], None)["g"])), "gaussian", r"g \(1\)"),
    "missing of pandas": (PLAIN, frame(x=pd.array([pd.NA, *range(1, N)], dtype="Int64")), "gaussian", r"x \(1\)"),
    "missing of Arrow": (PLAIN, frame(g=pd.array([None, *frame()["g"][1:]], dtype="string[pyarrow]")), "gaussian", r"g \(1\)"),
    "missing of polars": (PLAIN, pl.from_pandas(put("x", [1], nan)), "gaussian", r"x \(1\)"),
    "no trials": ("k | trials(n) ~ x + (1 | g)", put("n", [2], 0.0, put("k", [2], 0.0)), "binomial", r"no trials \(1\); 39 of 40"),
    "rank_deficient": ("y ~ x + x2", frame(x2=2 * frame()["x"]), "gaussian", "earlier columns: x2"),
    "constant predictor": (PLAIN, frame(x=2.0), "gaussian", "earlier columns: x"),
    "almost a combination": ("y ~ x + x2", frame(x2=2 * frame()["x"] + 1e-9 * np.arange(N)), "gaussian", "earlier columns: x2"),
    "rank of a parameter": (bl.formula("y ~ x", sigma="~ n"), frame(), "gaussian", "earlier columns: sigma_n"),
    "repeated_random_term": ("y ~ x + (1 | g) + (1 | g)", frame(), "gaussian", "stands twice"),
    "constant_response": ("b ~ x + (1 | g)", frame(b=0.0), "bernoulli", "only priors keep"),
    "no failure": ("k | trials(n) ~ x + (1 | g)", frame(k=5.0), "binomial", "only priors keep"),
    "no count": ("k ~ x + (1 | g)", frame(k=0.0), "poisson", "only priors keep"),
}


@pytest.mark.parametrize(("formula", "data", "family", "message"), NOTICES.values(), ids=NOTICES)
def test_what_is_done_to_the_data_is_said_once(formula, data, family, message):
    with pytest.warns(DataWarning, match=message) as caught:
        ready = model(formula, data, family)
    assert len(caught) == 1
    assert np.isfinite(ready.design.X).all()


def test_missing_values_can_be_refused_by_row():
    with pytest.raises(DataError, match=r"x \(2\).*na='omit'.*rows 3, 4"):
        model(PLAIN, put("x", [3, 4], nan), na="raise")


@pytest.mark.parametrize("weights", ["w", np.r_[0.0, 0.0, np.ones(N - 2)]], ids=["column", "array"])
def test_rows_of_weight_zero_count_for_nothing(weights):
    data = frame(w=np.r_[0.0, 0.0, np.ones(N - 2)])
    with pytest.warns(DataWarning, match=r"\[excluded\].*zero weight \(2\); 38 of 40"):
        fit = bl.lmer(PLAIN, data, weights=weights)
    without = bl.lmer(PLAIN, frame().iloc[2:])
    assert fit.nobs == 38
    assert fit.criterion == pytest.approx(without.criterion, abs=1e-9)
    assert fit.model.design.excluded == {"zero weight": 2}


def test_rows_of_no_trials_count_for_nothing():
    data = put("n", [5], 0.0, put("k", [5], 0.0))
    with pytest.warns(DataWarning, match="excluded"):
        ready = model("k | trials(n) ~ x + (1 | g)", data, "binomial")
    without = model("k | trials(n) ~ x + (1 | g)", frame().drop(index=5), "binomial")
    np.testing.assert_array_equal(ready.design.X, without.design.X)
    np.testing.assert_array_equal(ready.design.trials, without.design.trials)
    assert ready.design.index.tolist() == without.design.index.tolist()


def test_few_and_many_groups_are_named():
    def found(residual=True, **columns):
        return weak_groups(model("y ~ x + (x | g)", frame(**columns)).design, residual=residual)

    assert found() == []
    assert found(g="a") == ["grouping factor 'g' has only 1 level"]
    assert found(g=["a", "b"] * 20) == ["grouping factor 'g' has only 2 levels"]
    many = {"g": np.repeat(np.arange(20), 2)}
    assert found(**many) == ["the random term ((Intercept) + x | g) has 40 effects for 40 rows"]
    assert found(residual=False, **many) == []
    assert "only 2 levels" in str(model(PLAIN, frame(g=["a", "b"] * 20)).explain())


# The same answer ---------------------------------------------------------------------------------------------------------

SAME = {
    "text of pandas": lambda data: data.assign(g=data["g"].astype("str")),
    "nullable text": lambda data: data.assign(g=data["g"].astype("string")),
    "text of Arrow": lambda data: data.assign(g=data["g"].astype("string[pyarrow]")),
    "numbers of Arrow": lambda data: data.assign(x=data["x"].astype("float64[pyarrow]")),
    "nullable numbers": lambda data: data.assign(x=data["x"].astype("Float64")),
    "objects": lambda data: data.astype(object),
    "sparse": lambda data: data.assign(x=pd.arrays.SparseArray(data["x"])),
    "polars": pl.from_pandas,
    "lazy polars": lambda data: pl.from_pandas(data).lazy(),
    "Arrow": pa.Table.from_pandas,
    "dict": lambda data: data.to_dict("list"),
    "categories": lambda data: data.assign(g=pd.Categorical(data["g"])),
    "unused categories": lambda data: data.assign(g=pd.Categorical(data["g"], categories=[f"g{i}" for i in range(20)])),
    "numbers as groups": lambda data: data.assign(g=data["g"].str[1:].astype(float)),
    "repeated index": lambda data: data.set_axis([0] * N),
    "two index columns": lambda data: data.set_index(["g", "h"], drop=False),
    "index named as a column": lambda data: data.rename_axis("g"),
    "a column named by a number": lambda data: data.rename(columns={"k": 3}),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_the_kind_of_frame_does_not_matter(change):
    wanted = model(PLAIN, frame()).design
    found = model(PLAIN, change(frame())).design
    np.testing.assert_array_equal(found.X, wanted.X)
    np.testing.assert_array_equal(found.Z.toarray(), wanted.Z.toarray())
    np.testing.assert_array_equal(found.y, wanted.y)


NAMES = [
    "sigma",
    "mu",
    "Intercept",
    "b",
    "(Intercept)",
    "C",
    "log",
    "I",
    "poly",
    "NA",
    "TRUE",
    "if",
    "3",
    "1x",
    "a b",
    "α β",
    "x:z",
    "draw",
    "fixed",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("column", ["y", "x", "g"])
def test_no_name_of_a_column_is_special(name, column):
    data = frame().drop(columns="b")
    wanted = model(PLAIN, data)
    found = model(PLAIN.replace(column, f"`{name}`"), data.rename(columns={column: int(name) if name.isdigit() else name}))
    np.testing.assert_array_equal(found.design.X, wanted.design.X)
    np.testing.assert_array_equal(found.design.Z.toarray(), wanted.design.Z.toarray())
    assert len(set(found.design.fixed_names)) == 2
    assert str(found.explain())


ANSWERED = {
    "unused levels": ("y ~ f + (1 | g)", frame(f=pd.Categorical(["a", "b"] * 20, categories=["a", "b", "c"])), 2),
    "group is a fixed effect too": ("y ~ g + (1 | g)", frame(), 8),
    "boolean groups": (PLAIN, frame(g=[True, False] * 20), 2),
    "boolean predictor with a gap": (PLAIN, frame(x=pd.array([True, False] * 20, dtype="bool[pyarrow]")), 2),
    "decimals": (PLAIN, frame(x=[decimal.Decimal("1.5"), decimal.Decimal("2.5")] * 20), 2),
    "intervals": (PLAIN, frame(x=pd.cut(frame()["x"], 3)), 3),
    "empty text": ("y ~ f + (1 | g)", frame(f=["", "b"] * 20), 2),
    "no fixed effect": ("y ~ 0 + (1 | g)", frame(), 0),
    "no random effect": ("y ~ x", frame(), 2),
    "one group": (PLAIN, frame(g="a"), 2),
    "a group for each row": (PLAIN, frame(g=np.arange(N)), 2),
    "only an offset": ("y ~ offset(k) + (1 | g)", frame(), 1),
    "boolean response": ("f ~ x", frame(f=[True, False] * 20), 2),
    "a huge power": ("y ~ (x + f)^1000000000", frame(), 4),
}


@pytest.mark.parametrize(("formula", "data", "p"), ANSWERED.values(), ids=ANSWERED)
def test_odd_but_sound_models_are_built(formula, data, p):
    assert model(formula, data).dims.p == p


@pytest.mark.parametrize("scale", [1e12, 1e-12, 1e150, 1e-150])
def test_a_fit_does_not_depend_on_units(scale):
    wanted, y = bl.lmer(PLAIN, frame()), bl.lmer(PLAIN, frame(y=frame()["y"] * scale))
    with pytest.warns(DataWarning, match=r"badly scaled: .*divide x by"):
        x = bl.lmer(PLAIN, frame(x=frame()["x"] * scale))
    np.testing.assert_allclose(y.beta / scale, wanted.beta, rtol=1e-6)
    np.testing.assert_allclose(y.varcorr()["sdcor"] / scale, wanted.varcorr()["sdcor"], rtol=1e-6)
    np.testing.assert_allclose(x.beta * [1.0, scale], wanted.beta, rtol=1e-6)
    np.testing.assert_allclose(x.varcorr()["sdcor"], wanted.varcorr()["sdcor"], rtol=1e-6)


# Predictions -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fit() -> bl.ClassicalFit:
    return bl.lmer("y ~ x + f + (1 | g)", frame(f=pd.Categorical(["a", "b"] * 20, categories=["a", "b", "zz"])))


NEW = frame().iloc[:3]
BAD_NEW = {
    "column missing": (NEW.drop(columns="x"), "no column 'x'"),
    "column misspelt": (NEW.rename(columns={"x": "x1"}), "did you mean 'x1'"),
    "group missing": (NEW.drop(columns="g"), "no column 'g'"),
    "new group": (NEW.assign(g="new"), "new levels of 'g': new; use new_levels=.*rows 0, 1, 2"),
    "new level": (NEW.assign(f="q"), r"level 'q' of factor 'f' .*\(levels: a, b\).*rows 0"),
    "level without rows": (NEW.assign(f="zz"), "level 'zz' of factor 'f'"),
    "number for a level": (NEW.assign(f=3.0), "level '3' of factor 'f'"),
    "text for a number": (NEW.assign(x="1.5"), "'x' holds categories, but held numbers"),
    "date for a number": (NEW.assign(x=pd.Timestamp("2020-01-01")), "'x' holds dates"),
    "infinite": (NEW.assign(x=[1.0, inf, 2.0]), "'x' has infinite values.*row 1"),
    "list": ([1, 2], "frame or a dict of columns"),
    "single values": ({"x": 1}, "one length"),
}


@pytest.mark.parametrize(("new", "message"), BAD_NEW.values(), ids=BAD_NEW)
def test_new_rows_that_cannot_be_predicted(fit, new, message):
    with pytest.raises(DataError, match=message):
        fit.predict(new)


@pytest.mark.parametrize(
    "options",
    [
        *({"target": "zz"}, {"target": [1]}, {"new_levels": None}, {"scale": "zz"}, {"interval": "zz"}),
        *({"prob": 2}, {"prob": "a"}, {"prob": nan}, {"prob": None}, {"seed": "a"}, {"seed": -1}),
    ],
    ids=str,
)
def test_options_of_predictions(fit, options):
    with pytest.raises(FitError):
        fit.predict(NEW, **options)


@pytest.mark.parametrize("options", [{"n": 0}, {"n": 1.5}, {"n": "a"}, {"n": None}, {"seed": "a"}], ids=str)
def test_options_of_simulations(fit, options):
    with pytest.raises(FitError):
        fit.simulate(**options)


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("target", ["conditional", "average_group", "new_group", "population"])
def test_no_row_and_one_row_are_predicted(fit, rows, target):
    found = fit.predict(NEW.iloc[:rows], target=target)
    assert list(found.columns) == ["estimate", "se"]
    assert found.index.tolist() == NEW.index[:rows].tolist()
    if rows and target == "conditional":
        assert found["estimate"].iloc[0] == pytest.approx(fit.fitted().iloc[0])


@pytest.mark.parametrize(("column", "value"), [("x", nan), ("f", None), ("g", None), ("x", pd.NA)])
def test_rows_with_a_missing_value_are_nan_and_keep_their_label(fit, column, value):
    values = NEW[column].astype(object).to_numpy(copy=True)
    values[1] = value
    found = fit.predict(NEW.assign(**{column: values}).set_axis(["p", "q", "p"]))
    assert found.index.tolist() == ["p", "q", "p"]
    assert found["estimate"].isna().tolist() == [False, True, False]


def test_weights_of_new_rows_must_be_positive():
    weighted = bl.lmer(PLAIN, frame(), weights="n")
    with pytest.raises(DataError, match=r"must be positive.*row 1"):
        weighted.simulate(newdata=NEW.assign(n=[1.0, 0.0, 1.0]))


def test_what_is_no_fit_is_not_compared(fit):
    for others in ((), ([fit, fit],), (3,)):
        with pytest.raises(FitError, match="compare"):
            bl.compare(fit, *others)
    with pytest.raises(FitError, match="same rows"):
        bl.compare(fit, bl.lmer(PLAIN, frame().iloc[:30]))


def test_arguments_in_the_wrong_place(fit):
    with pytest.raises(FormulaError, match="not DataFrame"):
        bl.lmer(frame(), PLAIN)
    with pytest.raises(FormulaError, match="not ClassicalFit"):
        bl.lmer(fit, frame())
    with pytest.raises(DataError, match="no data given"):
        bl.lmer(PLAIN)
    with pytest.raises(FitError, match="has its data already"):
        bl.lmer(fit.model, frame())
    with pytest.raises(PriorError, match="takes a Model"):
        bl.default_priors(fit)


# Command line ------------------------------------------------------------------------------------------------------------

COMMANDS = {
    "no such file": ("nosuch.csv", PLAIN, [], "no such file"),
    "a folder": (".", PLAIN, [], "is a folder"),
    "empty file": ("empty.csv", PLAIN, [], "is empty"),
    "only a header": ("header.csv", PLAIN, [], "no rows"),
    "not text": ("bytes.csv", PLAIN, [], "UTF-8|not a table"),
    "another type": ("data.xlsx", PLAIN, [], "cannot be read"),
    "unknown column": ("data.csv", "y ~ z + (1 | g)", [], "no column 'z'"),
    "a slip of the pen": ("slip.csv", PLAIN, [], "column 'x' holds numbers, but also text .'1,5'.*line 4"),
    "bare bar": ("data.csv", "y ~ x | g", [], r"\(x \| g\)"),
    "code": ("data.csv", "y ~ __import__('os').system('true')", [], "unknown function|called"),
    "family": ("data.csv", PLAIN, ["--family", "gausian"], "did you mean 'gaussian'"),
    "engine": ("data.csv", PLAIN, ["--engine", "stan"], "stan"),
    "draws": ("data.csv", PLAIN, ["--draws", "0"], "--draws"),
    "report": ("data.csv", PLAIN, ["--report", "out.pdf"], "out.pdf"),
    "one group": ("one.csv", PLAIN, ["--engine", "reml"], "'g' has 1 level"),
}


@pytest.mark.parametrize(("file", "formula", "options", "message"), COMMANDS.values(), ids=COMMANDS)
def test_the_command_line_says_what_is_wrong_and_leaves_with_2(file, formula, options, message, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    frame().to_csv("data.csv", index=False)
    frame(g="a").to_csv("one.csv", index=False)
    frame(x=["1.5", "2", "1,5", "3"] * 10).to_csv("slip.csv", index=False)
    Path("empty.csv").write_text("")
    Path("header.csv").write_text("y,x,g\n")
    Path("bytes.csv").write_bytes(b"\xff\xfe\x00\x01\n\x80")
    Path("data.xlsx").write_bytes(b"PK")
    monkeypatch.setattr(sys, "argv", ["bayeslmm", "fit", file, formula, *options])
    with pytest.raises(SystemExit) as left:
        main()
    shown = capsys.readouterr().err
    assert left.value.code == 2
    assert re.search(message, shown), shown
    assert "Traceback" not in shown


# Anything at all ---------------------------------------------------------------------------------------------------------

PIECES = [
    "1",
    "0",
    "x",
    "f",
    "x:f",
    "log(k)",
    "poly(x, 2)",
    "(1 | g)",
    "(x | g)",
    "(x || g)",
    "(0 + f | h)",
    "(1 | g:h)",
    "offset(k)",
    "zz",
    "y",
]


@pytest.mark.parametrize("seed", range(60))
def test_random_frames_and_formulas_give_an_answer_or_one_line(seed):
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(0, 16))
    data = frame().iloc[rng.permutation(N)[:rows]]
    for column in rng.choice(data.columns, size=int(rng.integers(0, 3)), replace=False):
        cells = data[column].astype(object).to_numpy(copy=True)
        cells[rng.random(rows) < 0.3] = rng.choice(np.array([None, 0.0, 1e12], dtype=object))
        data = data.assign(**{column: cells})
    formula = "y ~ " + " + ".join(rng.choice(PIECES, size=int(rng.integers(1, 5))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.BayesLmmWarning)
        try:
            ready = model(formula, data)
        except BayesLmmError:
            return
        assert np.isfinite(ready.design.X).all()
        assert np.isfinite(ready.design.y).all()
        assert full_rank(ready.design.X)


def full_rank(X: np.ndarray) -> bool:
    scaled = X / np.maximum(np.abs(X).max(axis=0, initial=0.0), 1e-300)
    return X.shape[1] == 0 or np.linalg.matrix_rank(scaled, tol=1e-12) == X.shape[1]
