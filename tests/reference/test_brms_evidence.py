"""Hypotheses, evidence and descriptions against brms 2.18, bridgesampling 1.1 and bayestestR 0.13 (`brms_evidence.R`)."""

from __future__ import annotations

import json
import math
import warnings
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr

import bayeslmm as bl
from bayeslmm.bayes.describe import describe_posterior, rope_range
from bayeslmm.bayes.evidence import bayes_factor, marginal_likelihood
from bayeslmm.effects.hypothesis import hypothesis
from bayeslmm.errors import BayesLmmWarning

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "brms_evidence.json").read_text(encoding="utf8"))

GAUSSIAN = (
    bl.prior("normal(0, 20)", part="fixed"),
    bl.prior("student_t(3, 288.7, 59.3)", part="intercept"),
    bl.prior("student_t(3, 0, 59.3)", part="sd"),
    bl.prior("student_t(3, 0, 59.3)", part="aux"),
)
BINOMIAL = (
    bl.prior("normal(0, 2.5)", part="fixed"),
    bl.prior("student_t(3, 0, 2.5)", part="intercept"),
    bl.prior("student_t(3, 0, 2.5)", part="sd"),
)


@cache
def _model(name: str) -> bl.Model:
    sleepstudy, cbpp = bl.load_dataset("sleepstudy"), bl.load_dataset("cbpp")
    lkj = bl.prior("lkj(2)", part="cor")
    return {
        "slopes": lambda: bl.model("Reaction ~ Days + (Days | Subject)", sleepstudy, priors=[*GAUSSIAN, lkj]),
        "intercepts": lambda: bl.model("Reaction ~ Days + (1 | Subject)", sleepstudy, priors=GAUSSIAN),
        "period": lambda: bl.model("incidence | trials(size) ~ period + (1 | herd)", cbpp, "binomial", priors=BINOMIAL),
        "none": lambda: bl.model("incidence | trials(size) ~ 1 + (1 | herd)", cbpp, "binomial", priors=BINOMIAL[1:]),
    }[name]()


@cache
def _fit(name: str) -> bl.BayesFit:
    return bl.brm(_model(name), seed=1, progressbar=False)


# --- Evidence -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["slopes", "intercepts", "period", "none"])
def test_marginal_likelihoods_are_bridgesamplings(name: str) -> None:
    """With the relative error that bridgesampling gives of its own (its `normal` method)."""
    golden = GOLDEN["logml"][name]
    found = marginal_likelihood(_fit(name), seed=1).iloc[0]
    error = math.hypot(found["error_percent"] / 100, golden["normal_error"])
    assert found["log_marginal"] == pytest.approx(golden["normal"], abs=4 * error)
    assert found["log_marginal"] == pytest.approx(golden["warp3"], abs=4 * error)
    assert error < 0.05


@pytest.mark.parametrize("names", [("slopes", "intercepts"), ("period", "none")])
def test_bayes_factors_are_bridgesamplings(names: tuple[str, str]) -> None:
    one, two = (GOLDEN["logml"][name] for name in names)
    found = bayes_factor(_fit(names[0]), _fit(names[1]), seed=1).iloc[0]
    error = math.hypot(found["error_percent"] / 100, one["normal_error"], two["normal_error"])
    assert found["log_bf"] == pytest.approx(one["normal"] - two["normal"], abs=4 * error)


# --- Hypotheses on brms's own draws -------------------------------------------------------------------------------------------


@cache
def _same_draws() -> bl.BayesFit:
    """Draws that brms was given too: all parameters, and the random effects of two of the subjects."""
    model, kept = _model("slopes"), {name: np.array(values) for name, values in GOLDEN["exact"]["draws"].items()}
    n = len(kept["sigma"])
    cor = np.ones((n, 2, 2))
    cor[:, 0, 1] = cor[:, 1, 0] = kept["cor_Subject__Intercept__Days"]
    r = np.zeros((n, 18, 2))
    for j, level in enumerate(("308", "309")):
        for c, effect in enumerate(("Intercept", "Days")):
            r[:, j, c] = kept[f"r_Subject[{level},{effect}]"]
    variables = {
        "b": np.column_stack([kept["b_Intercept"], kept["b_Days"]]),
        "sd_Subject": np.column_stack([kept["sd_Subject__Intercept"], kept["sd_Subject__Days"]]),
        "cor_Subject": cor,
        "r_Subject": r,
        "sigma": kept["sigma"],
    }
    arrays = {name: (("chain", "draw", *(f"{name}_{a}" for a in range(v.ndim - 1))), v[None]) for name, v in variables.items()}
    return bl.BayesFit(model=model, tree=xr.DataTree.from_dict({"posterior": xr.Dataset(arrays)}), provenance={})


STANDARD = (
    *("Days > 10", "Days < 2 * 5 - 1", "Days - 10 = 0", "Intercept / Days > 24", "exp(Days / 10) > 3", "abs(Days - 10) < 2"),
    *("sqrt(Intercept) - 15 > 1", "-Days^2 < -100", "log(Intercept) = 5.5"),
)
SPREAD = (
    *("sd_Subject__Days < sigma / 4", "sd_Subject__Days^2 / sigma^2 > 0.05", "cor_Subject__Intercept__Days > 0"),
    "b_Days / sd_Subject__Days > 1.5",
)
_BRMS = {"estimate": "Estimate", "se": "Est.Error", "lower": "CI.Lower", "upper": "CI.Upper"}


def _check(found: Any, golden: dict[str, Any], point: bool) -> None:
    for ours, theirs in _BRMS.items():
        assert found[ours] == pytest.approx(golden[theirs], rel=1e-8, abs=1e-9), (golden["Hypothesis"], ours)
    assert found["star"] == golden["Star"]
    assert found["hypothesis"].replace(" ", "") == golden["Hypothesis"].replace(" ", "")
    if not point:
        assert found["evidence_ratio"] == pytest.approx(golden["Evid.Ratio"], rel=1e-8)
        assert found["posterior_probability"] == pytest.approx(golden["Post.Prob"], rel=1e-8)


@pytest.mark.parametrize("at", range(len(STANDARD)))
def test_rows_are_brmss_of_the_same_draws(at: int) -> None:
    text, fit = STANDARD[at], _same_draws()
    point = "=" in text
    if text.startswith("log"):
        warnings.filterwarnings("ignore", message=r"\[improper_prior\] .* not a number under the prior")
    _check(hypothesis(fit, text).iloc[0], GOLDEN["exact"]["standard"][at], point)
    _check(hypothesis(fit, text, alpha=0.1, robust=True).iloc[0], GOLDEN["exact"]["robust"][at], point)


@pytest.mark.parametrize("at", range(len(SPREAD)))
def test_rows_of_variance_parameters_are_brmss(at: int) -> None:
    _check(hypothesis(_same_draws(), SPREAD[at], part=None).iloc[0], GOLDEN["exact"]["spread"][at], point=False)


@pytest.mark.parametrize(
    ("model", "text", "golden"),
    [("slopes", "Days = 10", "days"), ("period", "period2 = 0", "period2"), ("period", "period2 - period3 = 0", "difference")],
)
def test_density_ratios_are_brmss(model: str, text: str, golden: str) -> None:
    """brms takes both densities from kernels, of 40,000 draws each; period2 = 0 lies so far in the tail that both are guesses."""
    tail = golden == "period2"
    with pytest.warns(BayesLmmWarning, match="tail_density") if tail else nullcontext():
        found = hypothesis(_fit(model), text).iloc[0]
    theirs = GOLDEN["savage_dickey"][golden]
    assert found["evidence_ratio"] == pytest.approx(theirs["Evid.Ratio"], rel=0.6 if tail else 0.1)
    assert found["estimate"] == pytest.approx(theirs["Estimate"], abs=0.1 * theirs["Est.Error"])


@pytest.mark.parametrize(("scope", "text"), [("ranef", "Days > 0"), ("coef", "Days > 10")])
def test_levels_are_brmss(scope: str, text: str) -> None:
    found, golden = hypothesis(_fit("slopes"), text, scope=scope, group="Subject"), GOLDEN["levels"][scope]
    assert found["level"].tolist() == [row["Group"] for row in golden]
    for (_, ours), theirs in zip(found.iterrows(), golden, strict=True):
        assert ours["estimate"] == pytest.approx(theirs["Estimate"], abs=0.1 * theirs["Est.Error"])
        assert ours["lower"] == pytest.approx(theirs["CI.Lower"], abs=0.25 * theirs["Est.Error"])
        assert ours["posterior_probability"] == pytest.approx(theirs["Post.Prob"], abs=0.03)
        assert ours["hypothesis"].replace(" ", "") == theirs["Hypothesis"].replace(" ", "")


# --- Descriptions -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "term"), [("Intercept", "(Intercept)"), ("Days", "Days"), ("cor", "Days.(Intercept)")])
def test_descriptions_are_bayestestrs_of_the_same_draws(name: str, term: str) -> None:
    """The shortest interval may begin one draw later: the two count the draws inside differently. Kernels and their grids differ."""
    golden, rope = GOLDEN["described"][name], (-0.25, 11.0)
    tables = {
        of: describe_posterior(_same_draws(), rope, parts=("fixed", "cor"), rope_of=of).set_index("term").loc[term]
        for of in ("posterior", "interval")
    }
    hdi = describe_posterior(_same_draws(), parts=("fixed", "cor"), interval="hdi").set_index("term").loc[term]
    whole = tables["posterior"]
    assert whole["median"] == pytest.approx(golden["median"])
    assert whole["p_direction"] == pytest.approx(golden["pd"])
    assert whole[["lower", "upper"]].tolist() == pytest.approx(golden["eti"])
    assert whole["rope_share"] == pytest.approx(golden["rope_full"])
    assert tables["interval"]["rope_share"] == pytest.approx(golden["rope_95"])
    assert hdi[["lower", "upper"]].tolist() == pytest.approx(golden["hdi"], abs=0.1 * whole["sd"])
    assert whole["map"] == pytest.approx(golden["map"], abs=0.25 * whole["sd"])


@pytest.mark.parametrize(("name", "family"), [("slopes", "gaussian"), ("period", "binomial")])
def test_default_regions_are_bayestestrs(name: str, family: str) -> None:
    assert rope_range(_model(name)) == pytest.approx(GOLDEN["rope_range"][family])


@pytest.mark.parametrize(("row", "golden"), [("bayes_conditional", "slopes"), ("bayes_marginal", "slopes_marginal")])
def test_r2_is_near_that_of_brms(row: str, golden: str) -> None:
    """brms 2.18 takes the variance of the residuals themselves, later versions sigma^2, as here: the same on average, not in its spread."""
    assert bl.r2(_fit("slopes")).loc[row, "estimate"] == pytest.approx(GOLDEN["r2"][golden][0], abs=0.02)
