"""Separation: every direction by brute force, closed-form cases, the 200 loci of the R results, and what the sentences say."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bayeslmm as bl
from bayeslmm.errors import FitError
from bayeslmm.families import FAMILIES
from bayeslmm.separation import extreme_rows, kernel
from bayeslmm.separation.kernel import separate, separate_with_levels
from tests.support import reference_dir

type Array = np.ndarray


def rays(X: Array, low: Array, high: Array) -> list[Array]:
    """All extreme rays of the cone of directions, by brute force: each is orthogonal to p - 1 independent rows."""
    n, p = X.shape
    signed = np.where(high, 1.0, -1.0)[:, None] * X
    free = low | high
    found = []
    for chosen in combinations(range(n), p - 1):
        rows = X[list(chosen)]
        if np.linalg.matrix_rank(rows) < p - 1:
            continue
        v = np.linalg.svd(np.vstack([rows, np.zeros((1, p))]))[2][-1]
        found += [ray for ray in (v, -v) if (signed[free] @ ray > -1e-9).all() and (np.abs(X[~free] @ ray) < 1e-9).all()]
    return found


@st.composite
def designs(draw: Any) -> tuple[Array, Array, Array]:
    n, p = draw(st.integers(3, 8)), draw(st.integers(1, 4))
    cells = st.lists(st.lists(st.integers(-2, 2), min_size=p, max_size=p), min_size=n, max_size=n)
    X = np.array(draw(cells.filter(lambda rows: np.linalg.matrix_rank(np.array(rows)) == p)), dtype=float)
    outcome = np.array(draw(st.lists(st.sampled_from([-1, -1, 1, 1, 0]), min_size=n, max_size=n)))
    return X, outcome < 0, outcome > 0


@settings(max_examples=300, deadline=None)
@given(designs())
def test_every_direction_is_found(case: tuple[Array, Array, Array]) -> None:
    X, low, high = case
    expected = rays(X, low, high) if X.shape[1] > 1 else [v for v in (np.ones(1), -np.ones(1)) if _is_ray(X, low, high, v)]
    found = separate(X, low, high)
    if not expected:
        assert found is None
        return
    assert found is not None
    together = np.array(expected)
    np.testing.assert_array_equal(found.rows, (np.abs(together @ X.T) > 1e-9).any(axis=0))
    np.testing.assert_array_equal(found.up, (together > 1e-9).any(axis=0))
    np.testing.assert_array_equal(found.down, (together < -1e-9).any(axis=0))
    moved = X @ found.direction
    assert (moved[low] <= 1e-7).all()
    assert (moved[high] >= -1e-7).all()
    np.testing.assert_array_equal(np.abs(moved) > 1e-7, found.rows)


def _is_ray(X: Array, low: Array, high: Array, v: Array) -> bool:
    moved = X @ v
    return bool((moved[low] <= 0).all() and (moved[high] >= 0).all() and (moved[~(low | high)] == 0).all())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_groups_are_fixed_effects(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, levels = 24, (5, 3)
    index = [rng.integers(0, size, n) for size in levels]
    X = np.column_stack([np.ones(n), rng.integers(0, 2, n), np.round(rng.normal(size=n), 1)])
    outcome = rng.choice([-1, 0, 1], n, p=[0.55, 0.1, 0.35])
    Z = np.hstack([np.eye(size)[codes] for size, codes in zip(levels, index, strict=True)])
    keep = [j for j in range(Z.shape[1]) if np.linalg.matrix_rank(Z[:, : j + 1]) > np.linalg.matrix_rank(Z[:, :j])]
    known = [1, 2] if np.linalg.matrix_rank(np.hstack([Z, X])) == np.linalg.matrix_rank(Z) + 2 else None
    if known is None:
        return
    import scipy.sparse as sp

    dense = separate(np.hstack([Z[:, keep], X[:, known]]), outcome < 0, outcome > 0)
    blocks = [(i, codes, size) for i, (codes, size) in enumerate(zip(index, levels, strict=True))]
    found = separate_with_levels(X, sp.csr_array(Z), blocks, outcome < 0, outcome > 0)
    assert (dense is None) == (found is None)
    if dense is not None and found is not None:
        np.testing.assert_array_equal(found.rows, dense.rows)
        np.testing.assert_array_equal(found.up[known], dense.up[-2:])
        np.testing.assert_array_equal(found.down[known], dense.down[-2:])
        assert not found.up[0]


def test_a_large_overlapping_response_needs_no_linear_program(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Array:
        raise AssertionError("a linear program was solved")

    monkeypatch.setattr(kernel, "_most_separated", refuse)
    rng = np.random.default_rng(1)
    X = np.column_stack([np.ones(2000), rng.normal(size=(2000, 4))])
    y = rng.random(2000) < 1.0 / (1.0 + np.exp(-X @ [0.5, 1.0, -1.0, 2.0, 0.0]))
    assert separate(X, ~y, y) is None


def test_units_and_origins_of_predictors_change_nothing() -> None:
    year = np.arange(2000.0, 2020.0)
    late = year > 2009
    for x in (year, 1e-8 * year, 1e8 * year):
        found = separate(np.column_stack([np.ones(20), x]), ~late, late)
        assert found is not None
        assert found.rows.all()
        assert found.up.tolist() == [False, True]
    late[3] = True
    assert separate(np.column_stack([np.ones(20), year]), ~late, late) is None


# The laboratory's kind of data -------------------------------------------------------------------------------------------


def test_the_200_loci() -> None:
    folder = reference_dir()
    data = pd.read_csv(folder / "datasets" / "methylation.csv")
    truth = pd.read_csv(folder / "datasets" / "methylation_truth.csv").set_index("locus")
    glmer = {row["locus"]: row for row in json.loads((folder / "results" / "methylation_glmer.json").read_text())["loci"]}
    found: dict[str, bl.Separation] = {}
    for locus, rows in data.groupby("locus"):
        result = bl.separation(bl.model("cbind(m, u) ~ treatment * time + (1 | tank)", rows, "binomial"))
        if result.separated:
            found[str(locus)] = result
    assert len(found) == 23
    assert set(found) == {locus for locus, row in glmer.items() if row["any_cell_0_or_1"]}
    assert set(truth.index[truth["type"] == "separated"]) < set(found)
    for locus, result in found.items():
        cells = glmer[locus]["cell_proportions"]
        named = result.findings[0].where
        if truth.loc[locus, "type"] == "separated":
            level, percent = truth.loc[locus, "separation"].split()
            expected = "treatment = exposed" if level == "treatment=exposed" else "treatment = exposed, time = d80"
            assert named == expected
            assert ("0 of " in result.sentence) == (percent == "0%")
        else:
            treatment, time = next(cell for cell, share in cells.items() if share in (0, 1)).split("_")
            assert named == f"treatment = {treatment}, time = {time}"
        signs = {name: sign for name, sign in result.coefficients.items() if sign != "undefined"}
        for name, sign in signs.items():
            assert (glmer[locus]["fixef"][name] > 0) == (sign == "+inf")
            assert abs(glmer[locus]["fixef"][name]) > 5
        finite = set(glmer[locus]["fixef"]) - set(result.coefficients)
        assert all(glmer[locus]["se"][name] < 5 for name in finite)


def test_well_known_data_that_are_not_separated() -> None:
    folder = reference_dir()
    assert folder
    toenail = bl.separation(bl.model("outcome ~ treatment * visit + (1 | patientID)", bl.load_dataset("toenail"), "bernoulli"))
    assert not toenail.separated
    assert toenail.with_groups is not None
    assert toenail.with_groups.kind == "quasi"
    data = bl.load_dataset("toenail")
    same = data.groupby("patientID", observed=True)["outcome"].nunique() == 1
    assert len(toenail.with_groups.findings) == same.sum()
    assert not toenail.with_groups.coefficients
    assert "'moderate or severe'" in toenail.with_groups.sentence
    culcita = bl.separation(bl.model("predation ~ ttt + (1 | block)", bl.load_dataset("culcita"), "bernoulli"))
    assert not culcita.separated
    cbpp = bl.separation(bl.model("cbind(incidence, size - incidence) ~ period + (1 | herd)", bl.load_dataset("cbpp"), "binomial"))
    assert not cbpp.separated
    assert cbpp.with_groups is not None
    assert not cbpp.with_groups.separated
    assert str(cbpp) == "Separation by the fixed effects: none\nWith the groups: none"
    assert len(cbpp.table) == 0


def lab(cells: dict[tuple[str, str], tuple[int, int]]) -> pd.DataFrame:
    rows = [
        {"treatment": treatment, "time": time, "tank": f"{treatment}_{tank}", "mC": m, "uC": u}
        for (treatment, time), (m, u) in cells.items()
        for tank in range(3)
    ]
    data = pd.DataFrame(rows)
    return data.assign(treatment=pd.Categorical(data["treatment"], ["400", "2800"]), time=pd.Categorical(data["time"], ["09", "80"]))


@pytest.mark.parametrize(
    ("cell", "kind", "signs"),
    [((5, 2), "none", {}), ((7, 0), "quasi", "+--+"), ((0, 7), "quasi", "-++-"), ((1, 6), "none", {})],
    ids=["a: as it was", "b: all methylated", "c: none methylated", "d: one of 21"],
)
def test_the_laboratorys_four_sets(cell: tuple[int, int], kind: str, signs: Any) -> None:
    data = lab({("400", "09"): cell, ("400", "80"): (6, 1), ("2800", "09"): (3, 4), ("2800", "80"): (2, 5)})
    if cell == (1, 6):
        data.loc[(data["treatment"] == "400") & (data["time"] == "09"), ["mC", "uC"]] = [[1, 6], [0, 7], [0, 7]]
    result = bl.separation(bl.model("cbind(mC, uC) ~ treatment * time + (1 | tank)", data, "binomial"))
    assert result.kind == kind
    names = ("(Intercept)", "treatment2800", "time80", "treatment2800:time80")
    assert result.coefficients == {name: f"{sign}inf" for name, sign in zip(names, signs, strict=False)}
    if kind == "quasi":
        count = "all 21 trials are successes (mC)" if cell[0] else "0 of 21 trials are successes (mC)"
        assert result.sentence.startswith(
            f"treatment = 400, time = 09: {count}. Maximum likelihood has no finite estimate of (Intercept) ("
        )
        assert result.table["where"].unique().tolist() == ["treatment = 400, time = 09"]


# What is named -----------------------------------------------------------------------------------------------------------


def named(formula: str, data: dict[str, Any], family: str = "bernoulli", **options: Any) -> bl.Separation:
    return bl.separation(bl.model(formula, pd.DataFrame(data), family, **options))


def test_a_threshold() -> None:
    dose = [1.0, 2.0, 3.2, 4.0, 5.0, 6.0]
    complete = named("y ~ dose", {"y": [0, 0, 0, 1, 1, 1], "dose": dose})
    assert complete.kind == "complete"
    assert complete.sentence.startswith("dose above 3.2: all 3 rows are successes; up to 3.2: 0 of 3 rows are successes.")
    assert complete.coefficients["dose"] == "+inf"
    quasi = named("y ~ dose", {"y": [1, 1, 0, 1, 0, 0], "dose": [1.0, 2.0, 3.2, 3.2, 5.0, 6.0]})
    assert quasi.kind == "quasi"
    assert quasi.sentence.startswith("dose above 3.2: 0 of 2 rows are successes; below 3.2: all 2 rows are successes.")
    assert quasi.coefficients == {"(Intercept)": "+inf", "dose": "-inf"}
    assert not named("y ~ dose", {"y": [0, 1, 0, 1, 1, 1], "dose": dose}).separated


def test_a_threshold_in_one_group_of_an_interaction() -> None:
    data = {"y": [0, 1, 0, 1, 0, 0, 1, 1], "x": [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0], "f": ["a"] * 4 + ["b"] * 4}
    result = named("y ~ f * x", data)
    assert result.findings[0].where == "f = b, x above 2"
    assert result.coefficients == {"fb": "-inf", "f:x": "+inf"} or result.coefficients == {"fb": "-inf", "fb:x": "+inf"}


def test_levels_that_are_numbers() -> None:
    result = named("y ~ treatment", {"y": [0, 0, 0, 1, 0, 1], "treatment": [2800, 2800, 2800, 400, 400, 400]})
    assert result.sentence.startswith("treatment = 2800: 0 of 3 rows are successes.")
    assert result.table.loc[0, ["coefficient", "direction", "successes", "trials"]].tolist() == ["(Intercept)", "+inf", 0.0, 3.0]


def test_no_cell_is_extreme_but_a_combination_separates() -> None:
    cells = {"a1b1": (0, 1), "a2b2": (0, 1), "a1b2": (1, 1), "a2b1": (0, 0)}
    data: dict[str, list[Any]] = {"y": [], "a": [], "b": []}
    for cell, outcomes in cells.items():
        for y in outcomes:
            data["y"].append(y)
            data["a"].append(cell[:2])
            data["b"].append(cell[2:])
    result = named("y ~ a + b", data)
    assert result.kind == "quasi"
    assert result.coefficients == {"aa2": "-inf", "bb2": "+inf"}
    assert len(result.findings) == 1
    sentence = result.findings[0].sentence
    assert "aa2 - bb2" in sentence.replace("-aa2 + bb2", "aa2 - bb2")
    assert "all 2 rows are successes" in sentence
    assert "0 of 2 rows are successes" in sentence


def test_a_line_between_two_clouds() -> None:
    rng = np.random.default_rng(5)
    x, z = rng.uniform(size=(2, 40))
    y = x + 2.0 * z > 1.5
    result = named("y ~ x + z", {"y": y.astype(int), "x": x, "z": z})
    assert result.kind == "complete"
    assert result.coefficients["x"] == result.coefficients["z"] == "+inf"
    where = result.findings[0].where
    assert where.startswith("x + ")
    weight, limit = float(where.split(" + ")[1].split()[0]), float(result.findings[0].sentence.split("above ")[1].split(":")[0])
    assert 1.0 < weight < 4.0
    above = x + weight * z > limit
    assert (above == y).mean() > 0.95


def test_more_than_one_thing() -> None:
    data = {"y": [0, 0, 1, 1, 0, 1], "f": ["a", "a", "b", "b", "c", "c"]}
    result = named("y ~ f", data)
    assert [finding.where for finding in result.findings] == ["f = a", "f = b"]
    assert result.coefficients == {"(Intercept)": "-inf", "fb": "+inf", "fc": "+inf"}
    assert result.table["coefficient"].tolist() == ["(Intercept)", "fb", "fc", "fb"]


def test_a_cell_of_the_rows_that_another_leaves() -> None:
    result = named("y ~ a + b", {"y": [0, 0, 0, 0, 1, 0, 1, 1], "a": list("uuuuvvvv"), "b": list("ssttsstt")})
    assert [finding.sentence for finding in result.findings] == [
        "a = u: 0 of 4 rows are successes",
        "b = t (among the other 4 rows): all 2 rows are successes",
    ]
    assert result.coefficients == {"(Intercept)": "-inf", "av": "+inf", "bt": "+inf"}


def test_counts_are_separated_by_zeros() -> None:
    data = {"y": [0, 0, 0, 2, 0, 5], "f": ["a", "a", "a", "b", "b", "b"], "x": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]}
    result = named("y ~ f", data, "poisson")
    assert result.sentence == "f = a: all 3 counts are 0. Maximum likelihood has no finite estimate of (Intercept) (-inf), fb (+inf)"
    assert result.kind == "quasi"
    assert not named("y ~ x", data, "poisson").separated
    low = named("y ~ x", {"y": [0, 0, 3, 4], "x": [1.0, 2.0, 3.0, 3.0]}, "poisson")
    assert low.sentence.startswith("x below 3: all 2 counts are 0.")


def test_the_link_decides_which_ends_are_infinitely_far() -> None:
    ones = {"y": [1, 1, 1, 0, 1, 0], "f": ["a", "a", "a", "b", "b", "b"]}
    zeros = {**ones, "y": [0, 0, 0, 0, 1, 0]}
    for link in ("logit", "probit", "cloglog", "cauchit"):
        assert named("y ~ f", ones, link=link).separated
        assert named("y ~ f", zeros, link=link).separated
    assert not named("y ~ f", ones, link="log").separated
    assert named("y ~ f", zeros, link="log").coefficients == {"(Intercept)": "-inf", "fb": "+inf"}
    assert not named("y ~ f", zeros, link="identity").separated
    assert not named("y ~ f", zeros, "gaussian").separated


def test_rank_deficient_columns_and_rows_of_weight_zero_change_nothing() -> None:
    data = {"y": [0, 0, 0, 1, 0, 1, 1], "f": ["a", "a", "a", "b", "b", "b", "a"], "w": [1, 1, 1, 1, 1, 1, 0]}
    data["twice"] = [2.0 * (f == "b") for f in data["f"]]
    with pytest.warns(bl.BayesLmmWarning):
        result = named("y ~ f + twice", data, weights="w")
    assert result.coefficients == {"(Intercept)": "-inf", "fb": "+inf"}


def test_one_outcome_only() -> None:
    with pytest.warns(bl.BayesLmmWarning, match="constant_response"):
        result = named("y ~ f", {"y": [0, 0, 0, 0], "f": ["a", "a", "b", "b"]})
    assert result.kind == "complete"
    assert result.sentence.startswith("every row: 0 of 4 rows are successes.")
    assert result.coefficients == {"(Intercept)": "-inf", "fb": "undefined"}


def test_what_is_taken_and_what_is_shown() -> None:
    data = {"y": [0, 0, 1, 1, 0, 1] * 2, "f": ["a", "a", "a", "b", "b", "b"] * 2, "g": list("uvuvuvwwwwww")}
    ready = bl.model("y ~ f + (1 | g)", pd.DataFrame(data), "bernoulli")

    class Fitted:
        model = ready

    assert str(bl.separation(Fitted())) == str(bl.separation(ready))
    assert bl.separation(ready, groups=False).with_groups is None
    with pytest.raises(FitError, match="takes a Model"):
        bl.separation("y ~ x")
    page = named("y ~ f", {"y": [0, 0, 0, 1, 0, 1], "f": ["<a>"] * 3 + ["b"] * 3})._repr_html_()
    assert "&lt;a&gt;" in page
    assert "<a>" not in page


def test_every_family_says_which_rows_are_extreme() -> None:
    extreme = {name for name, family in FAMILIES.items() if family.extremes is not None}
    assert {"bernoulli", "binomial", "poisson"} <= extreme
    assert not {"gaussian", "student"} & extreme
    m = bl.model("y ~ 1", {"y": [0, 3, 1]}, "poisson")
    assert [mask.tolist() for mask in extreme_rows(m)] == [[True, False, False], [False, False, False]]
