"""The functions that formulas may call: state, arguments, users' own, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from bayeslmm.design import Encoder, encode
from bayeslmm.errors import BayesLmmError, DataError, FormulaError
from bayeslmm.formula import parse
from bayeslmm.formula.functions import FUNCTIONS, register_transform
from bayeslmm.formula.splines import ns_basis, ns_knots, poly_basis, poly_recurrence

rng = np.random.default_rng(3)
DATA = pd.DataFrame({"y": rng.normal(size=30), "x": rng.uniform(0.5, 9, size=30), "z": rng.normal(size=30), "f": list("abc") * 10})


@pytest.fixture
def registry():
    before = dict(FUNCTIONS)
    yield
    FUNCTIONS.clear()
    FUNCTIONS.update(before)


def columns(text: str, frame: pd.DataFrame = DATA) -> np.ndarray:
    return encode(parse(f"y ~ 0 + {text}"), frame).X


@pytest.mark.parametrize(
    "call",
    [
        "scale(x)",
        "center(x)",
        "poly(x, 3)",
        "bs(x, df = 5)",
        "ns(x, df = 4)",
        "scale(log(x))",
        "poly(log(x), 2)",
        "ns(scale(x), df = 3)",
        "dummy(f)",
    ],
)
def test_new_rows_are_coded_by_the_state_of_the_fit(call):
    design = encode(parse(f"y ~ {call}"), DATA)
    encoder = Encoder.from_dict(json.loads(json.dumps(design.encoder.to_dict())))
    for rows in (slice(0, 1), slice(5, 9), slice(None, None, -1)):
        np.testing.assert_allclose(encoder.encode_new(DATA[rows]).X, design.X[rows], rtol=0, atol=1e-12)


def test_state_comes_from_all_rows_of_the_column_as_in_R():
    frame = DATA.assign(y=DATA["y"].where(DATA.index > 4))
    wanted = (DATA["x"] - DATA["x"].mean()) / DATA["x"].std()
    np.testing.assert_allclose(columns("scale(x)", frame)[:, 0], wanted[5:], rtol=1e-13)


def test_polynomials_are_orthonormal_and_rising():
    x = DATA["x"].to_numpy()
    Q = poly_basis(x, *poly_recurrence(x, 4))
    np.testing.assert_allclose(Q.T @ Q, np.eye(4), atol=1e-12)
    np.testing.assert_allclose(Q.sum(axis=0), 0, atol=1e-12)
    assert (poly_basis(np.array([1e3]), *poly_recurrence(x, 4)) > 0).all()


def test_natural_splines_are_straight_outside_and_smooth_at_the_boundary():
    x = DATA["x"].to_numpy()
    knots = ns_knots(x, 4, None, False, None)
    far = ns_basis(np.array([x.max(), x.max() + 1, x.max() + 2, x.min(), x.min() - 1, x.min() - 2]), knots, False)
    np.testing.assert_allclose(far[0] - far[1], far[1] - far[2], atol=1e-12)
    np.testing.assert_allclose(far[3] - far[4], far[4] - far[5], atol=1e-12)


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        ("log(x, 2)", np.log2(DATA["x"])),
        ("log(x, base = 3)", np.log(DATA["x"]) / np.log(3)),
        ("I(x^2 - 2 * z / 3)", DATA["x"] ** 2 - 2 * DATA["z"] / 3),
        ("I(-x + (z - 1))", -DATA["x"] + DATA["z"] - 1),
        ("logit(expit(z))", DATA["z"]),
        ("pmin(x, z, 2)", np.minimum(np.minimum(DATA["x"], DATA["z"]), 2)),
        ("ifelse(x > 3, z, 0)", np.where(DATA["x"] > 3, DATA["z"], 0)),
        ("scale(x, center = 2, scale = 4)", (DATA["x"] - 2) / 4),
        ("sqrt(abs(z))", np.sqrt(np.abs(DATA["z"]))),
    ],
)
def test_values(call, wanted):
    np.testing.assert_allclose(columns(call)[:, 0], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("log(f)", "needs numbers, but its column is categorical"),
        ("poly(x, 30)", "less than the number of distinct values"),
        ("poly(x, 0)", "at least 1"),
        ("ns(x, df = 0)", "too small"),
        ("bs(x, df = 2)", "too small"),
        ("scale(I(x * 0))", "constant column"),
        ("ns(I(x * 0), df = 3)", "two distinct values"),
        ("bs(x, Boundary.knots = c(2, 2))", "two distinct values"),
        ("factor(f, levels = c('a', 'b', 'c'), labels = c('A', 'B'))", "2 labels for 3 levels"),
        ("relevel(f, ref = 'zz')", "'zz' is no level"),
        ("C(f, contr.nosuch)", "unknown contrast"),
        ("I(f < 'b')", "== and != only"),
        ("log(x, base = 'e')", "cannot evaluate"),
        ("poly(x, degree = f)", "its column is categorical"),
        ("poly(x, degree = z)", "cannot evaluate"),
        ("ns(x, knots = f)", "cannot evaluate|categorical"),
        ("log(c(1, 2))", "cannot evaluate|no column"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(text, message):
    with pytest.raises(BayesLmmError, match=message):
        columns(text)


def test_a_wrong_argument_is_shown_with_a_caret():
    with pytest.raises(FormulaError) as caught:
        encode(parse("y ~ z + poly(x, 30)"), DATA)
    assert str(caught.value).splitlines()[1:] == ["    y ~ z + poly(x, 30)", "            ^^^^^^^^^^^"]


def test_a_transform_that_is_not_finite_names_its_rows():
    frame = DATA.assign(x=DATA["x"].where(~DATA.index.isin([3, 7]), 0.0), w=DATA["x"].where(DATA.index != 2, -1.0))
    with pytest.raises(DataError, match=r"transform log\(x\) gives -Inf.*rows 3, 7") as caught:
        columns("log(x)", frame)
    assert caught.value.rows == [3, 7]
    with pytest.raises(DataError, match=r"transform log\(w\) gives NaN.*row 2"):
        columns("scale(log(w))", frame)
    with pytest.raises(DataError, match=r"transform 1/x gives Inf"):
        columns("I(1 / x)", frame)


def test_a_row_that_is_dropped_anyway_may_have_any_value():
    frame = DATA.assign(x=DATA["x"].where(DATA.index != 3, 0.0), y=DATA["y"].where(DATA.index != 3))
    assert columns("log(x)", frame).shape == (29, 1)


def test_values_without_a_level_are_refused():
    with pytest.raises(DataError, match=r"has no level for some rows.*rows 2, 5"):
        columns("factor(f, levels = c('a', 'b'))")


@pytest.mark.parametrize("call", ["dummy(f)", "as.numeric(f)", "C(f, sum)", "factor(f)", "relevel(f, ref = 'c')", "ifelse(x > 0, f, 'a')"])
def test_no_function_hides_a_level_that_the_fit_has_not_seen(call):
    encoder = encode(parse(f"y ~ {call}"), DATA).encoder
    assert encoder.encode_new(DATA.iloc[:3]).X.shape[0] == 3
    with pytest.raises(DataError, match="level 'new'"):
        encoder.encode_new(DATA.iloc[:3].assign(f=["a", "new", "b"]))


@pytest.mark.usefixtures("registry")
def test_users_transforms():
    register_transform("halved", lambda x: x / 2)
    register_transform("times", lambda x, factor: x * factor)
    np.testing.assert_allclose(columns("halved(x) + times(z, 3)"), np.column_stack([DATA["x"] / 2, DATA["z"] * 3]))
    register_transform("halved", lambda x: x / 4)
    np.testing.assert_allclose(columns("halved(x)")[:, 0], DATA["x"] / 4)


@pytest.mark.usefixtures("registry")
def test_users_transforms_that_cannot_be():
    with pytest.raises(FormulaError, match="'log' is a function that formulas have already"):
        register_transform("log", np.sqrt)
    with pytest.raises(FormulaError, match="cannot be a function's name"):
        register_transform("a b", np.sqrt)
    with pytest.raises(FormulaError, match="needs a function"):
        register_transform("nothing", 3)
    register_transform("summed", lambda x: x.sum())
    with pytest.raises(FormulaError, match=r"summed\(\) returned shape \(\) for \(30,\)"):
        columns("summed(x)")
    register_transform("broken", lambda x: x.nosuch)
    with pytest.raises(FormulaError, match=r"broken\(\) failed: AttributeError"):
        columns("broken(x)")


@pytest.mark.usefixtures("registry")
def test_a_users_transform_cannot_change_the_data():
    def spoil(x):
        x[:] = 0
        return x

    register_transform("spoil", spoil)
    before = DATA["x"].copy()
    columns("spoil(x)")
    pd.testing.assert_series_equal(DATA["x"], before)


@pytest.mark.parametrize(
    "name", [name for name, function in FUNCTIONS.items() if function.fit is None and function.kind == "column" and function.min_args == 1]
)
def test_stateless_functions_work_row_by_row(name):
    x = np.array([0.2, 0.5, 0.9])
    whole = FUNCTIONS[name].apply(x, {})
    np.testing.assert_array_equal([FUNCTIONS[name].apply(x[i : i + 1], {})[0] for i in range(3)], whole)
