"""Leverage, Cook's distances and fits without one group, against dense matrices and plain refits."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.classical.influence import influence
from bayeslmm.classical.joint import leverage


@pytest.fixture(scope="module")
def data() -> pd.DataFrame:
    return bl.load_dataset("sleepstudy").iloc[:-4].reset_index(drop=True)


@pytest.fixture(scope="module")
def fit(data: pd.DataFrame) -> bl.ClassicalFit:
    return bl.lmer("Reaction ~ Days + (Days | Subject)", data)


def test_leverage_is_the_derivative_of_the_fitted_values(fit: bl.ClassicalFit) -> None:
    """H = I - sigma^2 V^-1 + sigma^2 V^-1 X (X'V^-1 X)^-1 X'V^-1."""
    design = fit.model.design
    Z = design.Z.toarray()
    V = Z @ np.kron(np.eye(18), fit.covariances[0]) @ Z.T + fit.sigma**2 * np.eye(design.n)
    inverse = np.linalg.inv(V)
    project = inverse - inverse @ design.X @ np.linalg.solve(design.X.T @ inverse @ design.X, design.X.T @ inverse)
    np.testing.assert_allclose(leverage(fit), 1.0 - fit.sigma**2 * np.diag(project), rtol=1e-9)


def test_leverage_of_a_linear_model(data: pd.DataFrame) -> None:
    model = bl.lmer("Reaction ~ Days", data)
    X = model.model.design.X
    np.testing.assert_allclose(leverage(model), np.diag(X @ np.linalg.inv(X.T @ X) @ X.T), rtol=1e-10)
    rows = influence(model)
    one_out = bl.lmer("Reaction ~ Days", data.drop(index=5)).beta
    shift = X @ (model.beta - one_out)
    assert rows.loc[5, "cooks_distance"] == pytest.approx(shift @ shift / (2 * model.sigma**2), rel=1e-8)


def test_rows_have_cooks_distance_of_lme4() -> None:
    """First three rows of lme4's cooks.distance for sleepstudy (1.1-31, tight tolerances)."""
    rows = influence(bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy")))
    np.testing.assert_allclose(rows["cooks_distance"].iloc[:3], [0.00496313251, 0.04020620186, 0.22609918476], rtol=1e-5)


def test_levels_are_left_out_as_by_lme4() -> None:
    """lme4's `influence(fit, "Subject")`: its dfbeta is without less with; its Cook's distance is (n - p) / n of ours, n groups."""
    fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    levels = influence(fit, "Subject")
    assert list(levels.index[:3]) == ["308", "309", "310"]
    np.testing.assert_allclose(levels["cooks_distance"].iloc[:3], np.array([0.0821484051, 0.1320207980, 0.0982407443]) * 18 / 16, rtol=1e-4)
    dfbetas = -np.array([[0.0587248823, -0.448927439], [0.4108749216, 0.309896898], [0.4276087915, 0.158341224]])
    np.testing.assert_allclose(levels[["dfbetas_(Intercept)", "dfbetas_Days"]].iloc[:3], dfbetas, rtol=2e-4)


def test_a_level_left_out_is_a_fit_without_its_rows(fit: bl.ClassicalFit, data: pd.DataFrame) -> None:
    levels = influence(fit, "Subject")
    again = bl.lmer("Reaction ~ Days + (Days | Subject)", data[data["Subject"] != "335"])
    expected = (fit.beta - again.beta) / again.standard_errors
    np.testing.assert_allclose(levels.loc["335", ["dfbetas_(Intercept)", "dfbetas_Days"]].astype(float), expected, rtol=1e-5)
    assert levels.loc["335", "sigma"] == pytest.approx(again.sigma, rel=1e-6)
    assert levels.loc["335", "n_rows"] == 10
    assert set(levels["status"]) == {"ok"}


def test_one_step_keeps_the_variance_parameters(fit: bl.ClassicalFit) -> None:
    design = fit.model.design
    kept = design.blocks[0].index != 3
    Z, X = design.Z.toarray()[kept], design.X[kept]
    inverse = np.linalg.inv(Z @ np.kron(np.eye(18), fit.covariances[0]) @ Z.T + fit.sigma**2 * np.eye(len(X)))
    beta = np.linalg.solve(X.T @ inverse @ X, X.T @ inverse @ design.y[kept])
    difference = fit.beta - beta
    expected = difference @ np.linalg.solve(fit.vcov().to_numpy(), difference) / 2
    assert influence(fit, "Subject", refit=False)["cooks_distance"].iloc[3] == pytest.approx(expected, rel=1e-7)


def test_a_level_that_a_coefficient_hangs_on_is_named() -> None:
    data = bl.load_dataset("sleepstudy").assign(only=lambda frame: (frame["Subject"] == "308").astype(float))
    levels = influence(bl.lmer("Reaction ~ Days + only + (1 | Subject)", data), "Subject", refit=False)
    assert levels.loc["308", "status"] == "failed: without it the data do not determine all coefficients"
    assert np.isnan(levels.loc["308", "cooks_distance"])
    assert (levels["status"] == "ok").sum() == 17


def test_an_unknown_factor_is_refused(fit: bl.ClassicalFit) -> None:
    with pytest.raises(bl.FitError, match="did you mean 'Subject'"):
        influence(fit, "Subjet")


@pytest.mark.parametrize("penalty", [None, "jeffreys"])
def test_groups_of_generalised_fits_are_left_out_one_at_a_time(penalty: str | None) -> None:
    data, formula = bl.load_dataset("cbpp"), "cbind(incidence, size - incidence) ~ period + (1 | herd)"
    fit = bl.glmer(formula, data, penalty=penalty)
    table = bl.influence(fit, "herd")
    assert set(table["status"]) == {"ok"}
    again = bl.glmer(formula, data[data["herd"] != "8"], penalty=penalty)
    moved = (fit.beta - again.beta) / again.standard_errors
    assert np.allclose(table.loc["8"].filter(like="dfbetas").astype(float), moved, atol=1e-5)
    with pytest.raises(bl.FitError, match="refit=False is of linear mixed models"):
        bl.influence(fit, "herd", refit=False)
