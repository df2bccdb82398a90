"""Four fits in trouble, each of which ends in an answer, or a refusal where there is none, and a sentence that names cause and remedy."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.errors import BayesLmmWarning, DataError, DataWarning, SingularFitWarning


@pytest.fixture(scope="module")
def sleep() -> pd.DataFrame:
    return bl.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def pupils() -> pd.DataFrame:
    """Return pupils of one school, in four classes that differ."""
    rng = np.random.default_rng(1)
    group = np.repeat(np.arange(4), 25)
    open_, agree, social = rng.normal(size=(3, 100))
    extro = 60 + 3 * rng.normal(size=4)[group] + 0.5 * social + rng.normal(size=100)
    names = np.array(list("abcd"))[group]
    return pd.DataFrame({"extro": extro, "open": open_, "agree": agree, "social": social, "class": names, "school": "IV"})


def told(make: Callable[[], bl.ClassicalFit], kind: type[BayesLmmWarning]) -> tuple[bl.ClassicalFit, str]:
    """Return a fit and the text of its one warning, which is of that kind."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit = make()
    assert [type(one.message) for one in caught] == [kind]
    return fit, str(caught[0].message)


def check(fit: bl.ClassicalFit, code: str) -> pd.Series:
    return fit.diagnose().table.set_index("code").loc[code]


def test_a_variance_of_zero() -> None:
    fit, text = told(lambda: bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2")), SingularFitWarning)
    assert "the variance of (1 | Batch) is zero" in text
    assert "`remedy`" in text
    found = check(fit, "singular")
    assert not found["passed"]
    assert found["meaning"] == "the estimate is on the boundary: the variance of (1 | Batch) is zero"
    assert "`remedy`" in found["remedy"]
    assert fit.fixef().iloc[0] == pytest.approx(5.6656)


def grouped(effects: list[list[float]]) -> pd.DataFrame:
    """Return 10 groups of 8 rows of y = b_0 + b_1 x + b_2 z + e, e orthogonal to 1, x and z in each; `effects`: what b is of two normals.

    So the coefficients of the groups vary as b does, with nothing added by e: a dimension that b lacks has no variance in any estimate.
    """
    rng = np.random.default_rng(4)
    frames = []
    for level in range(10):
        Z = np.column_stack([np.ones(8), np.arange(8.0), rng.normal(size=8)])
        e = rng.normal(size=8)
        e = e - Z @ np.linalg.lstsq(Z, e)[0]
        y = Z @ (np.array(effects) @ rng.normal(size=2)) + e
        frames.append(pd.DataFrame({"g": str(level), "x": Z[:, 1], "z": Z[:, 2], "y": y}))
    return pd.concat(frames, ignore_index=True)


@pytest.mark.parametrize(
    ("effects", "formula", "cause"),
    [
        ([[5, 0], [1, 0], [0, 0]], "y ~ x + (x | g)", "the correlation of (Intercept) and x in (x | g) is 1;"),
        ([[5, 0], [-1, 0], [0, 0]], "y ~ x + (x | g)", "the correlation of (Intercept) and x in (x | g) is -1;"),
        ([[5, 0], [0, 0], [0, 0]], "y ~ x + (1 | g) + (0 + x | g)", "the variance of (0 + x | g) is zero;"),
        ([[5, 0], [0, 0], [0, 0]], "y ~ x + diag(x | g)", "the variance of x in diag(x | g) is zero;"),
        ([[5, 0], [1, 1], [1, -2]], "y ~ x + z + (x + z | g)", "2 of the 3 principal components of (x + z | g) have a variance;"),
        ([[5, 0], [1, 0], [2, 0]], "y ~ x + z + (x + z | g)", "1 of the 3 principal components of (x + z | g) has a variance;"),
    ],
)
def test_what_is_zero_or_one_is_named(effects: list[list[float]], formula: str, cause: str) -> None:
    fit, text = told(lambda: bl.lmer(formula, grouped(effects)), SingularFitWarning)
    assert cause in text
    assert cause[:-1] in check(fit, "singular")["meaning"]
    assert np.isfinite(fit.standard_errors).all()


def test_a_school_alone_is_no_grouping_factor_and_its_classes_are(pupils: pd.DataFrame) -> None:
    formula = "extro ~ open + agree + social"
    with pytest.raises(DataError, match=r"'school' has 1 level; it needs 2 for a variance: leave \(1 \| school\) out"):
        bl.lmer(f"{formula} + (1 | school) + (1 | class)", pupils)
    fit = bl.lmer(f"{formula} + (1 | class)", pupils)
    assert fit.diagnose().ok
    assert "class (4)" in check(fit, "few_levels")["meaning"]


def test_a_predictor_that_repeats_another(sleep: pd.DataFrame) -> None:
    alone = bl.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    fit, text = told(lambda: bl.lmer("Reaction ~ Days + twice + (Days | Subject)", sleep.assign(twice=2.0 * sleep["Days"])), DataWarning)
    assert "combinations of earlier columns: twice; take them out of the formula" in text
    assert fit.dropped == ("twice",)
    assert "twice" in check(fit, "rank_deficient")["meaning"]
    assert "formula" in check(fit, "rank_deficient")["remedy"]
    np.testing.assert_allclose(fit.beta, alone.beta)


def test_a_predictor_so_far_away_that_it_repeats_the_intercept(sleep: pd.DataFrame) -> None:
    _, text = told(lambda: bl.lmer("Reaction ~ Days + (1 | Subject)", sleep.assign(Days=sleep["Days"] + 1e9)), DataWarning)
    assert "combinations of earlier columns: Days" in text
    assert "subtract its mean first" in text


@pytest.mark.parametrize("power", [9, -9])
def test_a_badly_scaled_predictor(sleep: pd.DataFrame, power: int) -> None:
    alone = bl.lmer("Reaction ~ Days + (Days | Subject)", sleep)
    scaled = sleep.assign(Days=sleep["Days"] * 10.0**power)
    fit, text = told(lambda: bl.lmer("Reaction ~ Days + (Days | Subject)", scaled), DataWarning)
    assert "the values of Days are of size" in text
    assert f"divide Days by 1e{power + 1:+03d}" in text
    assert fit.converged
    np.testing.assert_allclose(fit.fixef() * [1.0, 10.0**power], alone.fixef(), rtol=1e-9)
    np.testing.assert_allclose(fit.standard_errors * [1.0, 10.0**power], alone.standard_errors, rtol=1e-7)
    assert fit.loglik == pytest.approx(alone.loglik - np.log(10.0**power), rel=1e-9)


def test_one_observation_in_every_group_is_refused_and_in_one_group_is_not(sleep: pd.DataFrame) -> None:
    first = sleep[sleep["Days"] == 0]
    with pytest.raises(DataError, match=r"cannot be told from the residual one; group by something that repeats, or leave the term out"):
        bl.lmer("Reaction ~ 1 + (1 | Subject)", first)
    with pytest.raises(DataError, match=r"leave out effects, as in \(1 \| Subject\)"):
        bl.lmer("Reaction ~ Days + (Days | Subject)", sleep[sleep["Days"].isin([0, 1])])
    fit = bl.lmer("Reaction ~ Days + (1 | Subject)", sleep[(sleep["Subject"] != "308") | (sleep["Days"] == 0)])
    assert fit.diagnose().ok
