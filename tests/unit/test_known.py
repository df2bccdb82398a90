"""Matrices of `data2`: how they are read, what is refused and in which words, and the model's density with one in PyMC."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import bayeslmm as bl
from bayeslmm.bayes.translate import translate
from bayeslmm.errors import DataError, FitError, FormulaError
from bayeslmm.fit import Draws
from bayeslmm.known import Known, known_among, relationships
from bayeslmm.prediction import predict, simulate
from bayeslmm.priors import prior

TEXT = "y ~ x + (x | gr(g, cov = A))"


@pytest.fixture
def A() -> pd.DataFrame:
    names = list("abcde")
    return pd.DataFrame(0.4 ** np.abs(np.subtract.outer(np.arange(5), np.arange(5))) * 1.5, names, names)


@pytest.fixture
def data() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    return pd.DataFrame({"y": rng.normal(size=24), "x": rng.normal(size=24), "g": np.tile(list("dbac"), 6), "h": np.tile(list("uv"), 12)})


def known(data: pd.DataFrame, A: Any, text: str = TEXT) -> Known:
    found = bl.model(text, data, data2={"A": A}).design.blocks[0].known
    assert found is not None
    return found


def test_rows_are_found_by_name_in_whatever_order(A: pd.DataFrame, data: pd.DataFrame) -> None:
    expected = A.loc[list("abcd"), list("abcd")].to_numpy()
    shuffled = A.loc[list("ecadb"), list("badce")]
    for matrix in (A, shuffled, A.reset_index(drop=True)):
        found = known(data, matrix)
        assert found.levels == tuple("abcd")
        np.testing.assert_allclose(found.root @ found.root.T, expected, atol=1e-14)
        np.testing.assert_allclose(found.variance, np.diagonal(expected))


def test_a_polars_frame_names_the_levels_by_its_columns(A: pd.DataFrame, data: pd.DataFrame) -> None:
    polars = pytest.importorskip("polars")
    np.testing.assert_array_equal(known(data, polars.DataFrame(A.to_dict("list"))).root, known(data, A).root)


def test_numbers_name_levels_as_r_prints_them(A: pd.DataFrame, data: pd.DataFrame) -> None:
    numbered = data.assign(g=np.tile([4, 2, 1, 3], 6))
    for names in ([1, 2, 3, 4, 5], [1.0, 2.0, 3.0, 4.0, 5.0]):
        np.testing.assert_array_equal(known(numbered, pd.DataFrame(A.to_numpy(), names, names)).root, known(data, A).root)


def test_the_frame_stays_the_users(A: pd.DataFrame, data: pd.DataFrame) -> None:
    made = bl.model(TEXT, data, data2={"A": A})
    before = made.design.blocks[0].known.relationship.matrix.copy()  # type: ignore[union-attr]
    A.loc["a", "b"] = A.loc["b", "a"] = 7.0
    np.testing.assert_array_equal(made.design.blocks[0].known.relationship.matrix, before)  # type: ignore[union-attr]


def test_two_terms_and_two_parameters_can_have_matrices(A: pd.DataFrame, data: pd.DataFrame) -> None:
    B = pd.DataFrame([[1.0, 0.2], [0.2, 1.0]], list("uv"), list("uv"))
    made = bl.model("y ~ x + (1 | gr(g, cov = A)) + (1 | gr(h, cov = B))", data, data2={"A": A, "B": B})
    assert [block.known.relationship.name for block in made.design.blocks if block.known] == ["A", "B"]


def _broken(A: pd.DataFrame, **changes: float) -> pd.DataFrame:
    """A copy with some entries changed, named `row_column`."""
    values, labels = A.to_numpy().copy(), list(A.columns)
    for name, value in changes.items():
        values[labels.index(name[0]), labels.index(name[-1])] = value
    return pd.DataFrame(values, labels, labels)


REFUSED: dict[str, tuple[Any, str]] = {
    "array": (lambda A: A.to_numpy(), r"does not name its levels; pass pandas.DataFrame\(A, index=names"),
    "sparse": (lambda A: sparse.csr_array(A.to_numpy()), r"is a sparse matrix, which does not name its levels; .*A.toarray\(\)"),
    "number": (lambda A: 1, "of type int"),
    "oblong": (lambda A: A.iloc[:3], "3 rows and 5 columns"),
    "twice": (lambda A: A.set_axis(list("abcda"), axis=0).set_axis(list("abcda"), axis=1), "level 'a' more than once"),
    "names": (lambda A: A.set_axis(list("abcdz"), axis=0), r"other names on its rows than on its columns \('e'\)"),
    "unnamed": (lambda A: pd.DataFrame(A.to_numpy()), r"a frame without names; make it by pandas.DataFrame\(A, index=names"),
    "text": (lambda A: A.astype(object).replace(1.5, "one"), "other things than numbers"),
    "missing": (lambda A: _broken(A, c_d=np.nan), "first in the row of 'c'"),
    "infinite": (lambda A: _broken(A, e_e=np.inf), "first in the row of 'e'"),
    "asymmetric": (lambda A: _broken(A, a_b=0.7), r"not symmetric: its entries of 'a' and 'b' are 0.7 and 0.6; use \(A \+ A.T\) / 2"),
    "others": (
        lambda A: A.set_axis([1, 2, 3, 4, 5], axis=0).set_axis([1, 2, 3, 4, 5], axis=1),
        r"4 of 4 levels of 'g' \('a', 'b', 'c', 'd'\)",
    ),
    "absent": (lambda A: A.drop("b").drop(columns="b"), r"has no row for 1 of 4 levels of 'g' \('b'\)"),
    "indefinite": (lambda A: _broken(A, a_b=1.6, b_a=1.6), r"not positive definite .*smallest eigenvalue -0\.\d+\): level 'b'"),
    "twins": (lambda A: A.loc[list("aacde"), list("aacde")].set_axis(list("abcde"), axis=0).set_axis(list("abcde"), axis=1), "as a twin"),
    "negative": (lambda A: _broken(A, a_a=-1.0), r"not positive definite .* level 'a'"),
    "zero": (lambda A: 0.0 * A, r"not positive definite .*\+ 1e-6 \* I"),
}


@pytest.mark.parametrize("case", list(REFUSED))
def test_a_matrix_that_is_none_is_refused(A: pd.DataFrame, data: pd.DataFrame, case: str) -> None:
    make, says = REFUSED[case]
    with pytest.raises(DataError, match=says):
        bl.model(TEXT, data, data2={"A": make(A)})


def test_trouble_among_levels_without_data_is_none(A: pd.DataFrame, data: pd.DataFrame) -> None:
    names, twins = list(A.columns), list("abcdd")
    found = known(data, pd.DataFrame(A.loc[twins, twins].to_numpy(), names, names))
    np.testing.assert_allclose(found.extended((*found.levels, "e")).predicted(np.arange(8.0).reshape(4, 2))[4], [6.0, 7.0], atol=1e-12)


@pytest.mark.parametrize(
    ("data2", "text", "says"),
    [
        (None, TEXT, "cov = A, which data2 does not hold: pass data2="),
        ({"AA": 1}, TEXT, "did you mean 'AA'"),
        ({"A": None, "B": 1}, TEXT, "data2 holds 'B', which no term of the formula names; did you mean|data2 holds 'B'"),
        ({"A": None}, "y ~ x + (x | g)", r"write it into a term, as \(1 \| gr\(g, cov = K\)\)"),
        ([1], TEXT, "data2 is a dict"),
    ],
)
def test_names_must_agree(A: pd.DataFrame, data: pd.DataFrame, data2: Any, text: str, says: str) -> None:
    given = {name: A if value is None else value for name, value in data2.items()} if isinstance(data2, dict) else data2
    with pytest.raises(FitError, match=says):
        bl.model(text, data, data2=given)


def test_a_ready_model_has_its_matrices(A: pd.DataFrame, data: pd.DataFrame) -> None:
    made = bl.model(TEXT, data, data2={"A": A})
    with pytest.raises(FitError, match="a ready Model has its data2 already"):
        bl.lmer(made, data2={"A": A})


def test_one_factor_has_one_covariance(A: pd.DataFrame, data: pd.DataFrame) -> None:
    with pytest.raises(FormulaError, match=r"'g' stands in \(1 \| gr\(g, cov = A\)\) and in \(0 \+ x \| g\).*copy the column"):
        bl.model("y ~ (1 | gr(g, cov = A)) + (0 + x | g)", data, data2={"A": A})


def test_further_levels_follow_from_their_relatives(A: pd.DataFrame) -> None:
    """Against the conditional normal distribution by whole matrices."""
    fit, more = list("bd"), list("cea")
    found = known_among(relationships({"A": A}, ["A"])["A"], fit).extended((*fit, *more))
    np.testing.assert_allclose(found.root @ found.root.T, A.loc[[*fit, *more], [*fit, *more]], atol=1e-14)
    weights = A.loc[more, fit].to_numpy() @ np.linalg.inv(A.loc[fit, fit].to_numpy())
    b = np.array([[[1.0, 2.0], [-1.0, 0.5]]])
    np.testing.assert_allclose(found.predicted(b)[0], np.vstack([b[0], weights @ b[0]]), atol=1e-14)
    left = np.diagonal(A.loc[more, more] - weights @ A.loc[fit, more].to_numpy())
    np.testing.assert_allclose(found.remainder, [0.0, 0.0, *left], atol=1e-14)


# A posterior ---------------------------------------------------------------------------------------------------------------


class Posterior:
    """A model with given draws."""

    method = "NUTS"

    def __init__(self, model: bl.Model, draws: Draws):
        self.model, self._draws = model, draws

    def draws(self) -> Draws:
        return self._draws


def test_draws_of_a_posterior_spread_around_the_prediction_of_a_relative(A: pd.DataFrame, data: pd.DataFrame) -> None:
    """With constant draws of the effects, those of level e have their conditional mean and variance, within five standard errors."""
    made, S = bl.model("y ~ 1 + (1 | gr(g, cov = A))", data, data2={"A": A}), 4000
    effects, variance = np.array([1.0, -2.0, 0.5, 3.0]), 1.7
    draws = Draws(
        b=np.zeros((S, 1)),
        effects=(np.tile(effects[:, None], (S, 1, 1)),),
        covariance=(np.full((S, 1, 1), variance),),
        aux={"sigma": np.full(S, 0.5)},
    )
    fit: Any = Posterior(made, draws)
    weights = A.loc["e", list("abcd")].to_numpy() @ np.linalg.inv(A.loc[list("abcd"), list("abcd")].to_numpy())
    left = variance * (A.loc["e", "e"] - weights @ A.loc[list("abcd"), "e"].to_numpy())
    new = {"g": ["e", "a", "e"]}
    found = predict(fit, new, seed=1)
    np.testing.assert_allclose(found["estimate"], [weights @ effects, 1.0, weights @ effects], atol=5.0 * np.sqrt(left / S))
    assert found["estimate"].iloc[0] == found["estimate"].iloc[2]
    assert found["se"].iloc[0] == pytest.approx(np.sqrt(left), rel=5.0 / np.sqrt(2 * S))
    assert found["se"].iloc[1] == pytest.approx(0.0, abs=1e-12)
    anew = simulate(fit, S, newdata={"g": list("abe")}, seed=2).to_numpy()
    wanted = variance * A.loc[list("abe"), list("abe")].to_numpy() + 0.25 * np.eye(3)
    np.testing.assert_allclose(np.cov(anew), wanted, atol=5.0 * wanted.max() * np.sqrt(2.0 / S))


@pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")
@pytest.mark.parametrize("text", ["y ~ x + (1 | gr(g, cov = A))", TEXT])
def test_the_density_is_that_of_the_model_by_hand(A: pd.DataFrame, data: pd.DataFrame, text: str) -> None:
    import pymc as pm

    rows = [prior("normal(0, 2)", part="fixed"), prior("normal(0, 5)", part="intercept"), prior("exponential(1)", part="sd")]
    more = [prior("exponential(2)", part="aux", term="sigma")] + ([prior("lkj(2)", part="cor")] if "(x |" in text else [])
    made = bl.model(text, data, data2={"A": A}, priors=[*rows, *more])
    x, index = data["x"].to_numpy(), np.array(["abcd".index(level) for level in data["g"]])
    root = np.linalg.cholesky(A.loc[list("abcd"), list("abcd")].to_numpy())
    k = made.design.blocks[0].n_effects
    with pm.Model() as hand:
        intercept, beta = pm.Normal("Intercept", 0, 5), pm.Normal("beta", 0, 2, shape=1)
        sd = pm.Exponential("sd_g", 1.0, shape=k)
        z = pm.Normal("z_g", 0, 1, shape=(4, k))
        w = z @ pm.LKJCorr("L_g", n=2, eta=2.0).T if k == 2 else z
        b = pm.math.dot(root, w * sd)
        mean = intercept + beta[0] * (x - x.mean()) + b[index, 0] + (x * b[index, 1] if k == 2 else 0.0)
        pm.Normal("y", mean, pm.Exponential("sigma", 2.0), observed=data["y"])
    ours = translate(made)
    densities = [one.compile_logp(mode="FAST_COMPILE") for one in (ours, hand)]
    rng, start = np.random.default_rng(9), ours.initial_point()
    for _ in range(5):
        point = {name: value + rng.normal(scale=0.5, size=value.shape) for name, value in start.items()}
        np.testing.assert_allclose(densities[0](point), densities[1](point), rtol=1e-10)


@pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")
def test_the_effects_of_the_posterior_have_the_covariance_of_the_matrix(A: pd.DataFrame, data: pd.DataFrame) -> None:
    """Linear in standard normals z, r = M z with M M' = sd^2 K."""
    ours = translate(bl.model("y ~ 1 + (1 | gr(g, cov = A))", data, data2={"A": A}))
    M = np.column_stack([ours["r_g"].eval({ours["z_g"]: unit[:, None], ours["sd_g"]: np.array([2.0])}).ravel() for unit in np.eye(4)])
    np.testing.assert_allclose(M @ M.T, 4.0 * A.loc[list("abcd"), list("abcd")], atol=1e-12)
