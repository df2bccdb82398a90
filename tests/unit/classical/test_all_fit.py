"""Several optimisers side by side: they agree where there is one optimum, and the table says so where not; no failure escapes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.classical import all_fit as module
from bayeslmm.classical.all_fit import ALL_FIT_COLUMNS, OPTIMISERS, Optimiser
from bayeslmm.classical.engine import criterion
from bayeslmm.classical.lmm import fit_model, problem_of
from bayeslmm.errors import FitError

FORMULA = "Reaction ~ Days + (Days | Subject)"


@pytest.fixture(scope="module")
def sleep() -> pd.DataFrame:
    return bl.load_dataset("sleepstudy")


@pytest.fixture(scope="module")
def fit(sleep: pd.DataFrame) -> bl.ClassicalFit:
    return bl.lmer(FORMULA, sleep)


@pytest.fixture(scope="module")
def table(fit: bl.ClassicalFit) -> pd.DataFrame:
    return bl.all_fit(fit)


def test_every_optimiser_is_a_row_and_all_agree(fit: bl.ClassicalFit, table: pd.DataFrame) -> None:
    assert list(table.index) == list(OPTIMISERS)
    assert list(table.columns[: len(ALL_FIT_COLUMNS)]) == list(ALL_FIT_COLUMNS)
    assert set(table["verdict"]) == {"agrees"}
    assert table["converged"].all()
    np.testing.assert_allclose(table["criterion"], fit.criterion, atol=1e-6)
    assert table["difference"].min() == 0.0


def test_optimisers_with_the_gradient_end_where_it_vanishes(table: pd.DataFrame) -> None:
    exact = [name for name, row in OPTIMISERS.items() if row.uses_gradient]
    assert len(exact) >= 4
    assert len(OPTIMISERS) - len(exact) >= 3
    assert (table.loc[exact, "gradient"] < 1e-3).all()


def test_estimates_are_those_of_confint_by_name(fit: bl.ClassicalFit, table: pd.DataFrame) -> None:
    row = table.loc["COBYQA"]
    for name, estimate in fit.fixef().items():
        assert row[str(name)] == pytest.approx(estimate, rel=1e-6)
    assert row["sd_Days|Subject"] == pytest.approx(fit.varcorr()["sdcor"][1], rel=1e-4)
    assert row["sigma"] == pytest.approx(fit.sigma, rel=1e-5)
    assert set(bl.confint(fit, "wald").index) <= set(table.columns)
    np.testing.assert_allclose(row[["theta_1", "theta_2", "theta_3"]].to_numpy(dtype=float), fit.theta, atol=1e-4)


def test_criterion_is_that_at_the_theta_shown(sleep: pd.DataFrame, table: pd.DataFrame) -> None:
    problem = problem_of(bl.model(FORMULA, sleep))
    for name, row in table.iterrows():
        theta = row[["theta_1", "theta_2", "theta_3"]].to_numpy(dtype=float)
        assert criterion(problem, theta) == pytest.approx(row["criterion"], abs=1e-7), name


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning")
def test_a_variance_of_zero_is_found_by_all() -> None:
    found = bl.all_fit(bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2")))
    assert set(found["verdict"]) == {"agrees"}
    assert (found["sd_(Intercept)|Batch"] < 1e-4).all()


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.ConvergenceWarning")
def test_a_flat_criterion_shows_as_other_estimates_at_the_same_criterion(sleep: pd.DataFrame) -> None:
    halves = sleep.assign(half=np.where(sleep["Days"] < 5, "a", "b"))
    found = bl.all_fit(bl.lmer("Reaction ~ Days + (1 | Subject) + (0 + half | Subject)", halves))
    assert (found["difference"] < 1e-6).all()
    assert "same criterion, other estimates" in set(found["verdict"])
    assert np.ptp(found["sd_halfa|Subject"]) > 1.0
    assert np.ptp(found["Days"]) < 1e-5


def with_rows(*rows: Optimiser) -> Mapping[str, Optimiser]:
    return MappingProxyType({**{row.name: row for row in rows}, "Newton": OPTIMISERS["Newton"]})


def test_a_failure_is_a_row_with_its_message(fit: bl.ClassicalFit, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(search: Any, function: Any) -> Any:
        raise ValueError("array must not\n contain infs")

    def stays(search: Any, function: Any) -> Any:
        return search.start, True, "did nothing"

    rows = [Optimiser(name="fails", uses_gradient=False, run=fails), Optimiser(name="stays", uses_gradient=True, run=stays)]
    monkeypatch.setattr(module, "OPTIMISERS", with_rows(*rows))
    found = bl.all_fit(fit)
    assert found["verdict"].tolist() == ["failed", "higher", "agrees"]
    assert found.loc["fails", "message"] == "ValueError: array must not contain infs"
    assert np.isnan(found.loc["fails", "Days"])
    assert not found.loc["fails", "converged"]
    assert found.loc["stays", "difference"] > 0.01


def test_a_search_without_end_is_stopped(fit: bl.ClassicalFit) -> None:
    found = bl.all_fit(fit, ["Newton", "Nelder-Mead"], max_evaluations=30)
    assert found.loc["Nelder-Mead", "evaluations"] == 30
    assert found.loc["Nelder-Mead", "message"] == "stopped after 30 evaluations"
    assert found.loc["Nelder-Mead", "verdict"] == "higher"
    assert not found.loc["Nelder-Mead", "converged"]


def test_a_fit_by_map_is_searched_with_its_prior() -> None:
    model = bl.model("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2"))
    fit = fit_model(model, reml=True, avoid_boundary=True)
    found = bl.all_fit(fit, ["L-BFGS-B", "COBYQA"])
    np.testing.assert_allclose(found["theta_1"], fit.theta[0], rtol=1e-5)


@pytest.mark.parametrize("n_agq", [0, 1, 5])
def test_generalised_models_are_searched_too(n_agq: int) -> None:
    fit = bl.glmer("cbind(incidence, size - incidence) ~ period + (1 | herd)", bl.load_dataset("cbpp"), n_agq=n_agq)
    found = bl.all_fit(fit, ["Newton", "L-BFGS-B", "COBYQA"])
    assert set(found["verdict"]) == {"agrees"}
    np.testing.assert_allclose(found["criterion"], fit.criterion, atol=1e-6)
    np.testing.assert_allclose(found[list(fit.fixef().index)].to_numpy(), np.tile(fit.fixef(), (3, 1)), atol=1e-4)
    np.testing.assert_allclose(found["theta_1"], fit.theta[0], atol=1e-4)
    assert "sigma" not in found


def test_what_cannot_be_searched_is_refused(sleep: pd.DataFrame, fit: bl.ClassicalFit) -> None:
    with pytest.raises(FitError, match="did you mean 'Powell'"):
        bl.all_fit(fit, "Powel")
    with pytest.raises(FitError, match="no optimiser is named"):
        bl.all_fit(fit, [])
    with pytest.raises(FitError, match="no random effects"):
        bl.all_fit(bl.lmer("Reaction ~ Days", sleep))
