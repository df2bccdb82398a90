"""The ladder out of a singular fit: its rungs, its table, its sentence; a sound fit is left alone; NUTS is a stand-in but for one test."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.classical.glmm import fit_generalised
from bayeslmm.classical.lmm import fit_model
from bayeslmm.errors import FitError
from bayeslmm.remedy import REMEDY_COLUMNS
from tests.unit.fakes import FakePosterior


@pytest.fixture(scope="module")
def singular() -> bl.ClassicalFit:
    return fit_model(bl.model("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2")), reml=True)


def fixed(fit: bl.Fit) -> pd.DataFrame:
    rows = fit.estimates
    return rows[rows["part"] == "fixed"].set_index("term")


@pytest.fixture(scope="module")
def ladder(singular: bl.ClassicalFit) -> bl.Remedy:
    return bl.remedy(singular, nuts=False)


@pytest.fixture(scope="module")
def slopes() -> bl.ClassicalFit:
    rng = np.random.default_rng(1)
    g, x = np.repeat(np.arange(8), 6), rng.normal(size=48)
    data = pd.DataFrame({"g": g.astype(str), "x": x, "y": 2 * x + 3 * rng.normal(size=8)[g] + rng.normal(size=48)})
    fit = fit_model(bl.model("y ~ x + (x | g)", data), reml=True)
    assert fit.is_singular
    return fit


def test_rungs_are_fits_by_name(singular: bl.ClassicalFit, ladder: bl.Remedy) -> None:
    assert list(ladder.rungs) == ["REML", "MAP", "reduced"]
    assert ladder["REML"] is singular
    assert ladder["MAP"].varcorr()["sdcor"][0] > 0.1
    assert ladder["reduced"].model.formula.text == "Yield ~ 1"
    assert ladder.needed
    with pytest.raises(FitError, match=r"rungs: REML, MAP, reduced"):
        ladder["NUTS"]


def test_table_is_long_with_verdicts_against_the_first_rung(singular: bl.ClassicalFit, ladder: bl.Remedy) -> None:
    table = ladder.table
    assert tuple(table.columns) == REMEDY_COLUMNS
    assert (table.loc[table["rung"] == "REML", "verdict"] == "").all()
    rows = table.set_index(["rung", "part", "term"])
    assert rows.loc[("MAP", "sd", "(Intercept)"), "verdict"] == "at the boundary in one fit"
    assert rows.loc[("reduced", "fixed", "(Intercept)"), "verdict"] == "agree"
    assert rows.loc[("reduced", "fixed", "(Intercept)"), "formula"] == "Yield ~ 1"
    np.testing.assert_array_equal(table.loc[table["rung"] == "REML", "estimate"], singular.estimates["estimate"])


def test_sentence_names_cause_ways_and_consequence(ladder: bl.Remedy) -> None:
    ratio = ladder["MAP"].vcov().iloc[0, 0] ** 0.5 / ladder["REML"].vcov().iloc[0, 0] ** 0.5
    assert "REML fit of Yield ~ 1 + (1 | Batch) was singular" in ladder.sentence
    assert "the variance of (1 | Batch) is zero" in ladder.sentence
    assert "Chung et al., 2013" in ladder.sentence
    assert "Yield ~ 1, without random effects" in ladder.sentence
    assert "(Intercept) did not move" in ladder.sentence
    assert f"between 1.00 and {ratio:.2f} times" in ladder.sentence
    assert "report more than one" in ladder.sentence
    assert "NUTS" not in ladder.sentence


def test_sentence_says_how_far_the_coefficients_of_interest_move(slopes: bl.ClassicalFit) -> None:
    ladder = bl.remedy(slopes, nuts=False, terms="x")
    before, moves = fixed(slopes).loc["x"], []
    for rung in ("MAP", "reduced"):
        after = fixed(ladder[rung]).loc["x"]
        moves.append(abs(after["estimate"] - before["estimate"]) / max(after["se"], before["se"]))
    assert max(moves) >= 0.005
    assert f"the fixed effect x moved by at most {max(moves):.2g} standard errors (by " in ladder.sentence


def test_print_out_has_all_rungs_formulas_and_steps(ladder: bl.Remedy) -> None:
    text = str(ladder)
    assert "SE REML" in text
    assert "SE MAP" in text
    assert "REML: Yield ~ 1 + (1 | Batch) (checks failed: singular)" in text
    assert "reduced: Yield ~ 1 (passed its checks)" in text
    assert "reduced, step 1: (1 | Batch) left out: its variance is estimated as zero." in text
    assert text.endswith(ladder.sentence)
    assert "<table" in ladder._repr_html_()
    assert ladder.comparison.labels == ("REML", "MAP", "reduced")


def test_components_are_those_of_the_first_fit(slopes: bl.ClassicalFit) -> None:
    ladder = bl.remedy(slopes, nuts=False)
    assert len(ladder.components) == 2
    assert ladder.components["sd"][1] == pytest.approx(0.0, abs=1e-3)
    assert ladder.steps


def test_a_sound_fit_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("nothing is to be fitted")

    monkeypatch.setattr("bayeslmm.bayes.brm", never)
    monkeypatch.setattr(import_module("bayeslmm.remedy"), "fit_again", never)
    fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    ladder = bl.remedy(fit)
    assert not ladder.needed
    assert list(ladder.rungs) == ["REML"]
    assert str(ladder).startswith("Nothing to remedy: the REML fit of Reaction ~ Days + (Days | Subject) converged")
    assert set(ladder.table["rung"]) == {"REML"}
    assert "<p>Nothing to remedy" in ladder._repr_html_()


def test_the_posterior_is_the_last_rung_and_its_options_reach_it(singular: bl.ClassicalFit, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def sampled(model: bl.Model, **options: Any) -> FakePosterior:
        asked.update(options)
        return FakePosterior(model, sd=1.0, sigma=3.7)

    monkeypatch.setattr("bayeslmm.bayes.brm", sampled)
    ladder = bl.remedy(singular, seed=7, draws=50, progressbar=False)
    assert list(ladder.rungs) == ["REML", "MAP", "reduced", "NUTS"]
    assert (asked["seed"], asked["draws"], asked["target_accept"], asked["progressbar"]) == (7, 50, 0.95, False)
    assert "by NUTS" in ladder.sentence
    assert ladder["NUTS"].model is singular.model


def test_a_posterior_that_fails_its_checks_is_said_to(singular: bl.ClassicalFit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bayeslmm.bayes.brm", lambda model, **options: FakePosterior(model, sound=False))
    ladder = bl.remedy(singular)
    codes = [check.code for check in ladder["NUTS"].diagnose().failed]
    assert f"by NUTS, under the priors of the model (checks failed: {', '.join(codes)}: not to be relied on)" in ladder.sentence


def test_a_refusal_is_told_and_stops_nothing(singular: bl.ClassicalFit, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*arguments: Any, **options: Any) -> Any:
        raise FitError("no sampler today")

    monkeypatch.setattr("bayeslmm.bayes.brm", refuses)
    ladder = bl.remedy(singular)
    assert ladder.absent == (("NUTS", "no sampler today"),)
    assert "NUTS is not there: no sampler today" in str(ladder)
    assert "by NUTS" not in ladder.sentence


def test_a_flat_fit_is_remedied_too() -> None:
    data = bl.load_dataset("sleepstudy").assign(half=lambda frame: np.where(frame["Days"] < 5, "a", "b"))
    fit = fit_model(bl.model("Reaction ~ Days + (1 | Subject) + (0 + half | Subject)", data), reml=True)
    ladder = bl.remedy(fit, nuts=False)
    assert "was flat (the criterion is flat: the data determine only a combination of" in ladder.sentence
    assert ladder["reduced"].convergence == "converged"


def test_an_ml_fit_stays_by_ml() -> None:
    fit = fit_model(bl.model("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2")), reml=False)
    ladder = bl.remedy(fit, nuts=False)
    assert list(ladder.rungs) == ["ML", "MAP", "reduced"]
    assert [rung.method for rung in ladder.rungs.values()] == ["ML", "MAP (ML)", "ML"]


def test_a_generalised_fit_has_the_same_ladder() -> None:
    rng = np.random.default_rng(2)
    g, x = np.repeat(np.arange(10), 12), rng.normal(size=120)
    data = pd.DataFrame({"y": rng.poisson(np.exp(0.5 + 0.3 * x + 0.5 * rng.normal(size=10)[g])), "x": x, "g": g.astype(str)})
    fit = fit_generalised(bl.model("y ~ x + (x | g)", data, "poisson"))
    assert fit.is_singular
    ladder = bl.remedy(fit, nuts=False)
    assert [rung.method for rung in ladder.rungs.values()] == ["Laplace", "MAP (Laplace)", "Laplace"]
    assert not ladder["MAP"].is_singular
    assert ladder["MAP"].criterion > fit.criterion
    assert ladder["reduced"].model.formula.text in ("y ~ x + (1 | g)", "y ~ x + (1 | g) + (0 + x | g)")
    assert "Laplace fit of y ~ x + (x | g) was singular" in ladder.sentence
    again = bl.refit(ladder["MAP"], data["y"])
    np.testing.assert_allclose(again.theta, ladder["MAP"].theta, atol=1e-5)


def test_what_is_no_classical_fit_is_refused(singular: bl.ClassicalFit) -> None:
    with pytest.raises(FitError, match="not a FakePosterior"):
        bl.remedy(FakePosterior(singular.model))
    with pytest.raises(FitError, match="no coefficient 'Interc'"):
        bl.remedy(singular, terms="Interc")


@pytest.mark.slow
@pytest.mark.sampling
def test_the_whole_ladder_for_real(singular: bl.ClassicalFit) -> None:
    ladder = bl.remedy(singular, seed=1, progressbar=False)
    assert list(ladder.rungs) == ["REML", "MAP", "reduced", "NUTS"]
    posterior = ladder["NUTS"]
    assert posterior.diagnose().ok
    sd = posterior.estimates.query("part == 'sd'").iloc[0]
    assert sd["lower"] > 0.0
    assert abs(posterior.fixef().iloc[0] - 5.6656) < 0.3
    assert "by NUTS" in ladder.sentence


# ------------------------------------------------------------------------------------------------------------------ separated data


@pytest.fixture(scope="module")
def separated_ladder() -> bl.Remedy:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.BayesLmmWarning)
        fit = bl.glmer("cbind(mC_b, uC_b) ~ treatment * time + (1 | tank)", bl.load_dataset("methylation_sets"))
    return bl.remedy(fit, nuts=False)


def test_separated_data_get_a_penalised_rung_on_which_the_others_stand(separated_ladder: bl.Remedy) -> None:
    assert list(separated_ladder.rungs) == ["Laplace", "penalised", "MAP", "reduced"]
    methods = [fit.method for fit in separated_ladder.rungs.values()]
    assert methods == ["Laplace", "Laplace, penalty jeffreys", "MAP (Laplace), penalty jeffreys", "ML, penalty jeffreys"]
    assert "was separated (treatment = 400, time = 09: all 66 trials are successes" in separated_ladder.sentence
    assert "times those of the penalised fit" in separated_ladder.sentence


def test_verdicts_on_separated_data_are_against_the_penalised_fit(separated_ladder: bl.Remedy) -> None:
    table = separated_ladder.table
    assert set(table.loc[table["rung"].isin(["Laplace", "penalised"]), "verdict"]) == {""}
    reduced = table[(table["rung"] == "reduced") & (table["part"] == "fixed")]
    assert set(reduced["verdict"]) == {"agree"}


def test_separated_data_without_singular_variance_need_the_penalty_only() -> None:
    table = pd.DataFrame({"hit": [0, 7], "miss": [12, 5], "arm": ["a", "b"]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", bl.ConvergenceWarning)
        fit = bl.glmer("cbind(hit, miss) ~ arm", table)
    assert list(bl.remedy(fit, nuts=False).rungs) == ["ML", "penalised"]


def test_a_comparison_sees_estimates_that_ran_off(separated_ladder: bl.Remedy) -> None:
    compared = bl.compare(separated_ladder["Laplace"], separated_ladder["penalised"]).table
    assert set(compared.loc[compared["part"] == "fixed", "verdict"]) == {"no finite estimate in one fit"}
