"""From formula and frame to arrays: rows kept, coding, random blocks, new rows, and what is refused."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pytest

from bayeslmm import model_matrix
from bayeslmm.design import Encoder, check_groups, encode, group_table, nesting
from bayeslmm.errors import BayesLmmError, DataError, DataWarning, FormulaError
from bayeslmm.formula import formula, parse
from bayeslmm.model_matrix import full_rank_columns

N = 24


def frame(**columns) -> pd.DataFrame:
    rng = np.random.default_rng(11)
    base = pd.DataFrame(
        {
            "y": rng.normal(size=N),
            "x": rng.normal(size=N),
            "z": rng.uniform(1, 2, size=N),
            "f": pd.Categorical(["lo", "mid", "hi"] * 8, categories=["lo", "mid", "hi"]),
            "t": ["b", "a"] * 12,
            "flag": [True, False, False, True] * 6,
            "g": np.repeat(["g1", "g2", "g3", "g4"], 6),
            "h": ["h1", "h2"] * 12,
            "id": np.repeat([10, 2, 30, 4, 5, 60], 4),
            "n": rng.integers(1, 9, size=N),
        },
        index=[f"r{i}" for i in range(N)],
    )
    base["k"] = base["n"] // 2
    return base.assign(**columns)


def with_missing(column: str, rows: list[int], data: pd.DataFrame | None = None) -> pd.DataFrame:
    data = (frame() if data is None else data).copy()
    values = data[column].astype(object) if data[column].dtype.kind in "bi" else data[column].copy()
    values.iloc[rows] = np.nan if values.dtype.kind == "f" else None
    return data.assign(**{column: values})


def design(text: str, data: pd.DataFrame | None = None, **options):
    return encode(parse(text), frame() if data is None else data, **options)


# Rows --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["y", "x", "f", "t", "flag", "g", "id"])
def test_rows_with_a_missing_value_are_dropped_and_counted(column):
    data = with_missing(column, [2, 5])
    found = design("y ~ x + f + t + flag + (1 | g) + (1 | id)", data)
    assert dict(found.missing) == {column: 2}
    assert found.n == N - 2
    assert found.kept.tolist() == [i not in (2, 5) for i in range(N)]
    assert found.index.tolist() == [f"r{i}" for i in range(N) if i not in (2, 5)]
    wanted = encode(parse("y ~ x + f + t + flag + (1 | g) + (1 | id)"), frame().drop(index=["r2", "r5"]))
    np.testing.assert_array_equal(found.X, wanted.X)
    np.testing.assert_array_equal(found.Z.toarray(), wanted.Z.toarray())
    np.testing.assert_array_equal(found.y, wanted.y)


def test_missing_weights_and_offsets_drop_rows_too():
    data = frame(w=[np.nan] + [1.0] * (N - 1), o=[0.5] * (N - 1) + [np.nan])
    found = design("y ~ x + offset(o)", data, weights="w")
    assert dict(found.missing) == {"o": 1, "weights": 1}
    assert found.n == N - 2


def test_missing_values_can_be_refused():
    with pytest.raises(DataError, match=r"missing values in x \(2\).*rows r1, r3"):
        design("y ~ x", with_missing("x", [1, 3]), na="raise")
    with pytest.raises(DataError, match="'omit' or 'raise'"):
        design("y ~ x", na="drop")


def test_unused_columns_may_hold_anything():
    data = with_missing("z", [0]).assign(when=pd.Timestamp("2020"), bad=np.inf)
    assert design("y ~ x + (1 | g)", data).n == N


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (frame().iloc[:0], "the data have no rows"),
        (frame().iloc[:1], "1 of 1 rows can be used"),
        (with_missing("x", list(range(N))), r"0 of 24 rows can be used after dropping rows with missing values in x \(24\)"),
        (frame(x=np.where(np.arange(N) == 4, np.inf, 0.5)), r"column 'x' has infinite values.*row r4"),
        (frame(y=np.where(np.arange(N) < 2, -np.inf, 0.5)), r"column 'y' has infinite values.*rows r0, r1"),
        (frame(x=pd.Timestamp("2020")), "column 'x' holds .*convert it"),
        (frame(x=1j), "column 'x' holds complex numbers"),
        (frame(f="lo"), r"factor 'f' has only one level \('lo'\)"),
        (frame(f=pd.Categorical(["lo"] * N, categories=["lo", "hi"])), r"only one level \('lo'\)"),
        (frame(f=[f"{i}.5" for i in range(N)]), "column 'f' is text, but its 24 values are all numbers"),
        (frame(y=["a", "b"] * 12), "the response 'y' is text"),
        (frame(g=np.linspace(0.1, 2.3, N)), "grouping column 'g' holds 24 different fractions"),
        (frame().drop(columns="f"), "no column 'f'"),
        (frame().drop(columns="g"), "no column 'g'"),
    ],
)
def test_data_that_cannot_be_used(data, message):
    with pytest.raises(DataError, match=message):
        design("y ~ x + f + (1 | g)", data)


@pytest.mark.parametrize(
    ("text", "message"),
    [("~ x", "no response"), ("y ~ 0", "empty")],
)
def test_formulas_that_cannot_be_used(text, message):
    with pytest.raises(FormulaError, match=message):
        design(text)


def test_pi_is_the_number_unless_a_column_has_that_name():
    np.testing.assert_allclose(design("y ~ cos(pi * x)").X[:, 1], np.cos(np.pi * frame()["x"]))
    with pytest.raises(DataError, match="'pi' in a call is a number"):
        design("y ~ cos(pi * x)", frame(pi=1.0))
    assert design("y ~ poly(x, 2, raw = T)", frame(T=1.0)).fixed_names[1:] == ("poly(x, 2, raw = T)1", "poly(x, 2, raw = T)2")


def test_text_that_only_looks_partly_like_numbers_is_a_factor():
    assert design("y ~ t", frame(t=["1", "2"] * 12)).fixed_names == ("(Intercept)", "t2")


def test_every_input_frame_gives_the_same_design():
    data = frame().reset_index(drop=True)
    one = design("y ~ x * f + (x | g)", data)
    plain = data.assign(f=data["f"].astype(str))
    two = encode(
        parse("y ~ x * f + (x | g)"),
        pl.from_pandas(plain.assign(f=plain["f"])).with_columns(pl.col("f").cast(pl.Enum(["lo", "mid", "hi"]))),
    )
    np.testing.assert_array_equal(one.X, two.X)
    assert one.fixed_names == two.fixed_names
    assert one.blocks[0].levels == two.blocks[0].levels


def test_the_frame_is_neither_changed_nor_shared():
    data = frame()
    before = data.copy(deep=True)
    found = design("y ~ x + offset(z) + (x | g)", data, weights="n")
    pd.testing.assert_frame_equal(data, before)
    data.loc["r0", ["y", "x", "z", "n"]] = 99
    assert found.y[0] == before["y"].iloc[0]
    for array in (found.y, found.X, found.offset, found.weights, found.blocks[0].values, found.blocks[0].index, found.kept):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


# Fixed part ----------------------------------------------------------------------------------------------------------------


def test_unused_categories_are_dropped_and_refused_later():
    data = frame(f=pd.Categorical(["lo", "hi"] * 12, categories=["lo", "mid", "hi"]))
    found = design("y ~ f", data)
    assert found.fixed_names == ("(Intercept)", "fhi")
    with pytest.raises(DataError, match="level 'mid' of factor 'f' has no rows in the fitted data"):
        found.encoder.encode_new({"f": ["mid", "lo"]})


def test_collinear_columns_are_dropped_in_order_and_reported():
    found = design("y ~ x + I(2 * x) + z + f")
    assert found.fixed.dropped == ("I(2 * x)",)
    assert found.fixed_names == ("(Intercept)", "x", "z", "fmid", "fhi")
    assert found.fixed.assign == (0, 1, 3, 4, 4)
    assert found.encoder.encode_new(frame()).X.shape == (N, 5)
    np.testing.assert_array_equal(found.encoder.encode_new(frame()).X, found.X)


def test_more_columns_than_rows_keep_as_many_as_rows():
    found = design("y ~ factor(id) * f * x", frame().iloc[:8].assign(id=range(8)))
    assert found.p == 8 == np.linalg.matrix_rank(found.X)


def slow_walk(X: np.ndarray, tolerance: float = 1e-7) -> list[int]:
    """The rule of LINPACK's limited pivoting, by least squares on the kept columns."""
    kept: list[int] = []
    for j in range(X.shape[1]):
        rest = X[:, j] - X[:, kept] @ np.linalg.lstsq(X[:, kept], X[:, j], rcond=None)[0] if kept else X[:, j]
        if len(kept) < X.shape[0] and np.linalg.norm(rest) >= tolerance * max(np.linalg.norm(X[:, j]), 1e-300):
            kept.append(j)
    return kept


@pytest.mark.parametrize("shape", [(20, 6), (6, 9), (8, 8)])
@pytest.mark.parametrize("seed", range(6))
def test_rank_against_the_slow_rule(shape, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=shape)
    X[:, 3] = X[:, 0] - 2 * X[:, 1]
    X[:, 5] = X[:, 2] + 1e-9 * rng.normal(size=shape[0]) if seed % 2 else 0.0
    assert full_rank_columns(X).tolist() == slow_walk(X)


@pytest.mark.parametrize("scale", [1e-300, 1e-12, 1e12, 1e300])
def test_rank_does_not_depend_on_a_columns_unit(scale):
    data = frame(wide=frame()["x"] * scale)
    assert design("y ~ wide + z + f", data).fixed.dropped == ()
    assert design("y ~ x + wide + z", data).fixed.dropped == ("wide",)


def test_contrasts_hold_for_fixed_factors_and_need_one():
    found = design("y ~ f * t + (f | g)", contrasts={"f": "contr.sum", "t": "helmert"})
    assert found.fixed_names == ("(Intercept)", "f1", "f2", "t1", "f1:t1", "f2:t1")
    assert found.blocks[0].effects == ("(Intercept)", "fmid", "fhi")
    np.testing.assert_array_equal(found.encoder.encode_new(frame()).X, found.X)
    with pytest.raises(DataError, match="contrasts: 'x' is no factor"):
        design("y ~ x + f", contrasts={"x": "sum"})
    with pytest.raises(FormulaError, match="unknown contrast"):
        design("y ~ x + f", contrasts={"f": "sums"})


def test_odd_column_names_work_in_backticks():
    data = frame().rename(columns={"x": "my x", "f": "sigma"}).assign(Intercept=frame()["z"])
    found = design("y ~ `my x` * sigma + Intercept", data, contrasts={"sigma": "sum"})
    assert found.fixed_names == ("(Intercept)", "`my x`", "sigma1", "sigma2", "Intercept", "`my x`:sigma1", "`my x`:sigma2")


def test_a_dense_matrix_too_large_is_refused_before_it_is_made(monkeypatch):
    monkeypatch.setattr(model_matrix, "MAX_CELLS", 100)
    with pytest.raises(DataError, match="24 x 6 cells"):
        design("y ~ factor(id)")


def test_the_dot_stands_for_all_other_columns():
    assert design("y ~ .", frame()[["y", "x", "t"]]).fixed_names == ("(Intercept)", "x", "tb")


# Response, weights, offset ---------------------------------------------------------------------------------------------------


def test_responses():
    data = frame(two=pd.Categorical(["no", "yes"] * 12), three=frame()["f"])
    assert design("log(z) ~ x").y == pytest.approx(np.log(frame()["z"]))
    assert design("log(z) ~ x").response_name == "log(z)"
    assert design("flag ~ x").y.tolist() == [1.0, 0.0, 0.0, 1.0] * 6
    assert design("flag ~ x").response_levels is None
    two = design("two ~ x", data)
    assert (two.y.tolist(), two.response_levels) == ([0.0, 1.0] * 12, ("no", "yes"))
    assert design("three ~ x", data).response_levels == ("lo", "mid", "hi")


def test_counts_of_successes():
    data = frame()
    bound = design("cbind(k, n - k) ~ x")
    trials = design("k | trials(n) ~ x")
    for found in (bound, trials):
        np.testing.assert_array_equal(found.y, data["k"])
        np.testing.assert_array_equal(found.trials, data["n"])
    np.testing.assert_array_equal(design("k | trials(10) ~ x").trials, np.full(N, 10.0))
    assert design("y ~ x").trials is None


def test_weights_and_offsets_add_up():
    data = frame()
    plain = design("y ~ x")
    assert (plain.has_weights, plain.has_offset) == (False, False)
    assert (plain.weights.tolist(), plain.offset.tolist()) == ([1.0] * N, [0.0] * N)
    found = design("y ~ x + offset(z) + offset(log(z))", weights="n", offset=np.arange(N))
    np.testing.assert_allclose(found.offset, data["z"] + np.log(data["z"]) + np.arange(N))
    np.testing.assert_array_equal(found.weights, data["n"])
    np.testing.assert_array_equal(design("y | weights(n) ~ x").weights, data["n"])
    assert found.fixed_names == ("(Intercept)", "x")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": [1.0, 2.0]}, r"weights has shape \(2,\), but the data have 24 rows"),
        ({"weights": [-1.0] + [1.0] * 23}, r"weights must not be negative \(row r0\)"),
        ({"weights": [0.0] * 24}, "every row has zero weight"),
        ({"weights": "nosuch"}, "no column 'nosuch'"),
        ({"weights": "f"}, "column 'f' holds categories"),
        ({"offset": "t"}, "column 't' holds categories"),
        ({"offset": ["a"] * 24}, "offset must be a column's name or an array of numbers"),
        ({"offset": [np.inf] + [0.0] * 23}, "column 'offset' has infinite values"),
    ],
)
def test_weights_and_offsets_that_cannot_be(options, message):
    with pytest.raises(DataError, match=message):
        design("y ~ x", **options)


def test_weights_twice_and_an_offset_of_categories():
    with pytest.raises(FormulaError, match="weights are given twice"):
        design("y | weights(n) ~ x", weights="n")
    with pytest.raises(DataError, match="the offset 't' holds categories"):
        design("y ~ x + offset(t)")


# Random blocks -----------------------------------------------------------------------------------------------------------------


def test_blocks_order_names_and_levels():
    found = design("y ~ x + (1 | h) + (1 | g) + (0 + x | g) + (1 | id)")
    assert [(block.name, block.group, block.n_levels) for block in found.blocks] == [
        ("id", "id", 6),
        ("g", "g", 4),
        ("g.1", "g", 4),
        ("h", "h", 2),
    ]
    assert found.blocks[0].levels == ("2", "4", "5", "10", "30", "60")
    assert found.blocks[1].effects == ("x",)
    assert found.ngroups == {"id": 6, "g": 4, "h": 2}
    assert found.q == 6 + 4 + 4 + 2 == found.Z.shape[1]


def dense_Z(found) -> np.ndarray:
    parts = [np.hstack([(block.index == level)[:, None] * block.values for level in range(block.n_levels)]) for block in found.blocks]
    return np.hstack(parts)


@pytest.mark.parametrize("bars", ["(x | g)", "(f | g) + (1 | h)", "(x | g/h)", "(0 + f:x | h) + (z | g:h) + (1 | id)"])
def test_Z_against_its_definition(bars):
    found = design(f"y ~ x + {bars}")
    np.testing.assert_array_equal(found.Z.toarray(), dense_Z(found))


def test_without_bars_Z_has_no_columns():
    assert design("y ~ x").Z.shape == (N, 0)


def test_unobserved_combinations_are_no_levels():
    data = frame(h=np.where(frame()["g"] == "g1", "h1", frame()["h"]))
    assert design("y ~ x + (1 | g:h)", data).blocks[0].levels == ("g1:h1", "g2:h1", "g2:h2", "g3:h1", "g3:h2", "g4:h1", "g4:h2")


def test_levels_that_would_get_one_name_are_refused():
    data = frame(g=["a:b", "a"] * 12, h=["c", "b:c"] * 12)
    with pytest.raises(DataError, match="two levels of 'g:h' have one name"):
        design("y ~ x + (1 | g:h)", data)


def test_a_repeated_bar_is_used_once_with_a_warning():
    with pytest.warns(DataWarning, match="stands twice"):
        found = design("y ~ x + (1 | g) + (1 | g)")
    assert len(found.blocks) == 1


def test_boolean_and_fractional_groups():
    found = design("y ~ x + (1 | flag) + (1 | part)", frame(part=np.repeat([0.5, 1.5, 2.25], 8)))
    assert {block.group: block.levels for block in found.blocks} == {"flag": ("FALSE", "TRUE"), "part": ("0.5", "1.5", "2.25")}


@pytest.mark.parametrize(
    ("text", "data", "message"),
    [
        ("y ~ x + (1 | g)", frame(g="a"), "grouping factor 'g' has 1 level"),
        ("y ~ x + (1 | g)", frame(g=range(N)), "has 24 levels in 24 rows"),
        ("y ~ x + (x | g)", frame(g=[i // 2 for i in range(N)]), r"the random term \(\(Intercept\) \+ x | g\) has 24 effects for 24 rows"),
    ],
)
def test_groups_that_cannot_be_estimated(text, data, message):
    with pytest.raises(DataError, match=message):
        check_groups(design(text, data), residual=True)


def test_a_level_for_each_row_is_an_overdispersion_term_where_there_is_no_residual():
    check_groups(design("y ~ x + (1 | g)", frame(g=range(N))), residual=False)
    check_groups(design("y ~ x + (x | g)", frame()), residual=True)


def test_facts_of_groups():
    data = frame(class_=[f"{g}{h}" for g, h in zip(frame()["g"], frame()["h"], strict=True)], copy=frame()["g"])
    found = design("y ~ x + (1 | class_) + (1 | g) + (1 | h) + (1 | id) + (1 | copy)", data.iloc[1:])
    table = group_table(found).set_index("group")
    assert table.loc["g"].tolist() == [4, 5, 6.0, 6]
    assert {
        "class_ is nested in g",
        "class_ is nested in h",
        "g and h are fully crossed",
        "id and h are fully crossed",
        "copy and g are the same partition of the rows",
        "id and g are partly crossed (8 of 24 combinations occur)",
    } <= set(nesting(found))


# Further parameters --------------------------------------------------------------------------------------------------------------


def test_further_parameters_have_designs_of_their_own():
    text = formula("y ~ x + (1 | g)", sigma="~ f + (x | h)", zi="~ 1")
    found = encode(text, with_missing("f", [0]))
    sigma, blocks = found.parameters["sigma"]
    assert sigma.names == ("(Intercept)", "fmid", "fhi")
    assert sigma.X.shape == (N - 1, 3)
    assert [(block.name, block.effects) for block in blocks] == [("h", ("(Intercept)", "x"))]
    assert found.parameters["zi"][0].names == ("(Intercept)",)
    assert dict(found.missing) == {"f": 1}
    new = found.encoder.encode_new(frame())
    np.testing.assert_array_equal(new.parameters["sigma"][0].X[1:], sigma.X)
    np.testing.assert_array_equal(new.parameters["sigma"][1][0].values[1:], blocks[0].values)
    with pytest.raises(FormulaError, match="offset in the predictor of sigma"):
        encode(formula("y ~ x", sigma="~ offset(z)"), frame())


# New rows --------------------------------------------------------------------------------------------------------------------------

RICH = "y ~ poly(x, 2) * f + flag + t:z + offset(z) + (x + f | g) + (1 | id) + (1 | g:h)"


@pytest.fixture(scope="module")
def rich():
    return design(RICH)


def test_the_encoder_codes_its_own_rows_as_the_fit_did(rich):
    again = Encoder.from_dict(json.loads(json.dumps(rich.encoder.to_dict())))
    for encoder in (rich.encoder, again):
        new = encoder.encode_new(frame())
        np.testing.assert_allclose(new.X, rich.X, rtol=0, atol=1e-13)
        np.testing.assert_array_equal(new.offset, rich.offset)
        assert new.fixed_names == rich.fixed_names
        for one, two in zip(new.blocks, rich.blocks, strict=True):
            assert (one.name, one.levels, one.effects) == (two.name, two.levels, two.effects)
            np.testing.assert_array_equal(one.index, two.index)
            np.testing.assert_array_equal(one.values, two.values)
        assert new.y is None
        np.testing.assert_array_equal(encoder.encode_new(frame(), need_response=True).y, rich.y)


def test_a_few_rows_keep_the_levels_of_the_fit(rich):
    new = rich.encoder.encode_new(frame().iloc[[7]])
    np.testing.assert_allclose(new.X, rich.X[[7]], rtol=0, atol=1e-13)
    assert [block.levels for block in new.blocks] == [block.levels for block in rich.blocks]
    assert [block.index.tolist() for block in new.blocks] == [block.index[[7]].tolist() for block in rich.blocks]


def test_no_rows_give_empty_arrays(rich):
    new = rich.encoder.encode_new(frame().iloc[:0])
    assert new.X.shape == (0, rich.p)
    assert [block.index.shape for block in new.blocks] == [(0,)] * 3
    assert new.n == 0


def test_missing_predictors_give_nan_and_keep_the_row(rich):
    data = with_missing("x", [0])
    data = with_missing("f", [1], data)
    data = with_missing("flag", [2], data)
    data = with_missing("g", [3], data)
    new = rich.encoder.encode_new(data)
    assert np.isnan(new.X).any(axis=1).tolist()[:5] == [True, True, True, False, False]
    assert new.index.tolist() == data.index.tolist()
    g = next(block for block in new.blocks if block.name == "g")
    assert g.index[3] == -1
    assert np.isnan(g.values[:2]).any(axis=1).all()
    assert new.unseen == {}


def test_new_groups_are_marked_so_that_rows_can_share_them(rich):
    data = frame(g=["g1", "new", "other", "new"] * 6, id=[99] * N)
    new = rich.encoder.encode_new(data)
    blocks = {block.name: block for block in new.blocks}
    assert blocks["g"].index.tolist() == [0, -1, -1, -1] * 6
    labels, index = new.unseen["g"]
    assert (labels, index.tolist()) == (("new", "other"), [-1, 0, 1, 0] * 6)
    assert new.unseen["id"][0] == ("99",)
    assert new.unseen["g:h"][0] == ("new:h2", "other:h1")
    assert blocks["id"].index.tolist() == [-1] * N


def test_grouping_columns_may_be_absent_where_groups_are_not_wanted(rich):
    new = rich.encoder.encode_new(frame().drop(columns=["g", "h", "id", "y"]), random=False)
    np.testing.assert_allclose(new.X, rich.X, rtol=0, atol=1e-13)
    for one, two in zip(new.blocks, rich.blocks, strict=True):
        assert one.levels == two.levels
        assert (one.index == -1).all()
        np.testing.assert_array_equal(one.values, two.values)
    with pytest.raises(DataError, match="no column 'g'"):
        rich.encoder.encode_new(frame().drop(columns=["g"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"f": ["lo", "huge"] * 12}, r"level 'huge' of factor 'f' has no rows in the fitted data \(levels: lo, mid, hi\)"),
        ({"t": "c"}, "level 'c' of factor 't' has no rows"),
        ({"x": "wide"}, "needs numbers, but its column is categorical"),
        ({"z": ["1.5"] * N}, "column 'z' holds categories, but held numbers"),
        ({"t": True}, "level 'TRUE' of factor 't'"),
        ({"x": pd.Timestamp("2020")}, "column 'x' holds"),
    ],
)
def test_new_rows_of_another_kind_are_refused(rich, change, message):
    with pytest.raises(DataError, match=message):
        rich.encoder.encode_new(frame(**change))


def test_a_missing_column_of_new_rows_is_named(rich):
    with pytest.raises(DataError, match="no column 'flag'; did you mean 'flags'"):
        rich.encoder.encode_new(frame().rename(columns={"flag": "flags"}))


def test_labels_of_groups_decide_whatever_their_type(rich):
    text = rich.encoder.encode_new(frame(id=frame()["id"].astype(str), f=frame()["f"].astype(str)))
    whole = rich.encoder.encode_new(frame(id=frame()["id"].astype(float)))
    for new in (text, whole):
        np.testing.assert_array_equal(new.blocks[1].index, next(b for b in rich.blocks if b.name == new.blocks[1].name).index)
        np.testing.assert_allclose(new.X, rich.X, atol=1e-13)


def test_offsets_of_new_rows():
    named = design("y ~ x + offset(z)", offset="n")
    np.testing.assert_array_equal(named.encoder.encode_new(frame()).offset, named.offset)
    array = design("y ~ x", offset=np.ones(N))
    with pytest.raises(DataError, match="offset was given as an array"):
        array.encoder.encode_new(frame())


def test_trials_and_weights_of_new_rows():
    found = design("cbind(k, n - k) ~ x", weights="z")
    new = found.encoder.encode_new(frame())
    assert new.y is None
    np.testing.assert_array_equal(new.trials, frame()["n"])
    np.testing.assert_array_equal(new.weights, frame()["z"])
    bare = found.encoder.encode_new({"x": [1.0]})
    assert (bare.trials, bare.weights.tolist()) == (None, [1.0])
    np.testing.assert_array_equal(design("k | trials(n) ~ x").encoder.encode_new(frame().drop(columns="k")).trials, frame()["n"])


def test_a_factor_response_of_new_rows_has_the_codes_of_the_fit():
    data = frame(two=pd.Categorical(["no", "yes"] * 12))
    encoder = design("two ~ x", data).encoder
    assert encoder.encode_new({"x": [0.0, 1.0], "two": ["yes", None]}, need_response=True).y.tolist()[0] == 1.0


@pytest.mark.parametrize("plain", [{}, {"formula": 3}, {"formula": {"text": "y ~ x"}}, None])
def test_what_is_no_encoder_is_refused(plain):
    with pytest.raises(BayesLmmError):
        Encoder.from_dict(plain)


def test_the_encoder_keeps_no_rows(rich):
    assert len(json.dumps(rich.encoder.to_dict())) < 3000


def test_rows_in_another_order_give_the_same_rows():
    order = np.random.default_rng(0).permutation(N)
    one, two = design(RICH), design(RICH, frame().iloc[order])
    np.testing.assert_allclose(two.X, one.X[order], atol=1e-12)
    assert [block.levels for block in one.blocks] == [block.levels for block in two.blocks]
    np.testing.assert_array_equal(two.Z.toarray(), one.Z.toarray()[order])


def test_no_warning_is_given_for_sound_data():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        design(RICH)
