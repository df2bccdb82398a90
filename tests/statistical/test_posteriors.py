"""Posteriors by NUTS against the same posteriors by deterministic quadrature (`exact_*.json`: no Monte-Carlo error)."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl

type Draws = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One posterior: the model here, and the names that its parameters have in the exact results."""

    name: str
    data: str
    formula: str
    family: str = "gaussian"
    priors: str | tuple[tuple[str, str, str | None], ...]
    names: Callable[[bl.BayesFit], Draws]


def _flat(fit: bl.BayesFit, name: str) -> np.ndarray:
    values = fit.tree["posterior"][name].transpose("chain", "draw", ...).values
    return values.reshape(-1, *values.shape[2:])


def _by_level(fit: bl.BayesFit, group: str, prefix: str, effect: int = 0, fixed: int | None = None) -> Draws:
    """`prefix[level]`: random effects, plus a fixed effect where the exact results hold the level's own coefficient."""
    r = _flat(fit, f"r_{group}")[:, :, effect]
    if fixed is not None:
        r = r + _flat(fit, "b")[:, [fixed]]
    levels = fit.tree["posterior"][f"r_{group}"].coords[group].values
    return {f"{prefix}[{level}]": r[:, j] for j, level in enumerate(levels)}


def _sleepstudy(fit: bl.BayesFit) -> Draws:
    b, sd = _flat(fit, "b"), _flat(fit, "sd_Subject")
    intercepts, slopes = _by_level(fit, "Subject", "r_Subject", 0), _by_level(fit, "Subject", "r_Subject", 1)
    return {
        "b_Intercept": b[:, 0],
        "b_Days": b[:, 1],
        "sd_Subject__Intercept": sd[:, 0],
        "sd_Subject__Days": sd[:, 1],
        "cor_Subject__Intercept__Days": _flat(fit, "cor_Subject")[:, 0, 1],
        "sigma": _flat(fit, "sigma"),
        **{name.replace("]", ",Intercept]"): values for name, values in intercepts.items()},
        **{name.replace("]", ",Days]"): values for name, values in slopes.items()},
    }


def _cbpp(fit: bl.BayesFit) -> Draws:
    b = _flat(fit, "b")
    names = ("b_Intercept", "b_period2", "b_period3", "b_period4")
    return {"sd_herd__Intercept": _flat(fit, "sd_herd")[:, 0], **dict(zip(names, b.T, strict=True)), **_by_level(fit, "herd", "u")}


def _radon_intercepts(fit: bl.BayesFit) -> Draws:
    b = _flat(fit, "b")
    found = {"sigma_y": _flat(fit, "sigma"), "sd_alpha": _flat(fit, "sd_county_idx")[:, 0], "mu_alpha": b[:, 0]}
    return found | _by_level(fit, "county_idx", "alpha", fixed=0)


def _radon_one_slope(fit: bl.BayesFit) -> Draws:
    return _radon_intercepts(fit) | {"beta": _flat(fit, "b")[:, 1]}


def _radon_two_slopes(fit: bl.BayesFit) -> Draws:
    b = _flat(fit, "b")
    found = {"sigma_y": _flat(fit, "sigma"), "sd_alpha": _flat(fit, "sd_county_idx")[:, 0], "mu_alpha": b[:, 0]}
    return found | {"beta[1]": b[:, 1], "beta[2]": b[:, 2]}


def _radon_slopes(fit: bl.BayesFit) -> Draws:
    b = _flat(fit, "b")
    found = {"sigma_y": _flat(fit, "sigma"), "sd_beta": _flat(fit, "sd_county_idx")[:, 0], "alpha": b[:, 0], "mu_beta": b[:, 1]}
    return found | _by_level(fit, "county_idx", "beta", fixed=1)


def _seeds(fit: bl.BayesFit) -> Draws:
    names = ("alpha0", "alpha1", "alpha2", "alpha12")
    return {"sigma": _flat(fit, "sd_plate")[:, 0], **dict(zip(names, _flat(fit, "b").T, strict=True)), **_by_level(fit, "plate", "u")}


def _epilepsy(fit: bl.BayesFit) -> Draws:
    names = ("alpha", "beta1", "beta2", "beta3")
    return {"sigma": _flat(fit, "sd_obs")[:, 0], **dict(zip(names, _flat(fit, "b").T, strict=True)), **_by_level(fit, "obs", "u")}


_RADON = (
    ("normal(0, 10)", "fixed", None),
    ("normal(0, 10)", "fixed", "(Intercept)"),
    ("normal(0, 1)", "sd", None),
    ("normal(0, 1)", "aux", "sigma"),
)
_RADON_MEAN = (("normal(0, 10)", "fixed", "(Intercept)"), *_RADON[2:])
_SEEDS = (("normal(0, 1)", "fixed", None), ("normal(0, 1)", "fixed", "(Intercept)"), ("cauchy(0, 1)", "sd", None))
_POISSON = (("uniform(-20, 20)", "fixed", "(Intercept)"), ("uniform(-10, 10)", "fixed", None), ("uniform(0, 5)", "sd", None))

CASES = (
    Case(
        name="sleepstudy_brms_default",
        data="datasets/sleepstudy.csv",
        formula="Reaction ~ Days + (Days | Subject)",
        priors="brms",
        names=_sleepstudy,
    ),
    Case(
        name="cbpp_brms_default",
        data="datasets/cbpp.csv",
        formula="incidence | trials(size) ~ period + (1 | herd)",
        family="binomial",
        priors="brms",
        names=_cbpp,
    ),
    Case(
        name="radon_mn_variable_intercept",
        data="posteriordb/radon_mn.csv",
        formula="log_radon ~ floor_measure + (1 | county_idx)",
        priors=_RADON,
        names=_radon_one_slope,
    ),
    Case(
        name="radon_mn_partially_pooled",
        data="posteriordb/radon_mn.csv",
        formula="log_radon ~ 1 + (1 | county_idx)",
        priors=_RADON_MEAN,
        names=_radon_intercepts,
    ),
    Case(
        name="radon_mn_hierarchical_intercept",
        data="posteriordb/radon_mn.csv",
        formula="log_radon ~ log_uppm + floor_measure + (1 | county_idx)",
        priors=_RADON,
        names=_radon_two_slopes,
    ),
    Case(
        name="radon_mn_variable_slope",
        data="posteriordb/radon_mn.csv",
        formula="log_radon ~ floor_measure + (0 + floor_measure | county_idx)",
        priors=_RADON,
        names=_radon_slopes,
    ),
    Case(
        name="seeds_stanified",
        data="posteriordb/seeds.csv",
        formula="n | trials(N) ~ x1 * x2 + (1 | plate)",
        family="binomial",
        priors=_SEEDS,
        names=_seeds,
    ),
    Case(
        name="GLMM_Poisson",
        data="posteriordb/GLMM_Poisson.csv",
        formula="C ~ year + I(year^2) + I(year^3) + (1 | obs)",
        family="poisson",
        priors=_POISSON,
        names=_epilepsy,
    ),
)
FAST = CASES[:3]
COLLAPSED = tuple(case for case in FAST if case.family == "gaussian")
DIRECT = tuple(case for case in CASES if case.family != "gaussian")
BY_SAMPLER = [("auto", case) for case in CASES] + [("nutpie", case) for case in CASES if case.family == "gaussian"]
"""`auto` takes the collapsed sampler for the Gaussian ones: they are checked by both. Those of `DIRECT` are the direct sampler's."""


def _model(case: Case, folder: Path) -> bl.Model:
    frame = pd.read_csv(folder / case.data)
    for column in ("Subject", "herd", "period"):
        if column in frame:
            frame[column] = frame[column].astype(str)
    if isinstance(case.priors, str):
        rows = bl.default_priors(bl.model(case.formula, frame, case.family), case.priors)
    else:
        rows = [bl.prior(text, part=part, term=term) for text, part, term in case.priors]
    return bl.model(case.formula, frame, case.family, priors=rows)


def _distances(case: Case, fit: bl.BayesFit, folder: Path) -> pd.DataFrame:
    """Distance of each mean in exact posterior SDs, and ratio of the SDs less one."""
    exact = json.loads((folder / "posteriordb" / f"exact_{case.name}.json").read_text(encoding="utf8"))["summary"]
    found = case.names(fit)
    shared = [name for name in exact if name in found]
    assert {name for name in exact if "[" not in name} <= set(shared)
    assert len(shared) == len(found)
    rows = [
        ((found[name].mean() - exact[name]["mean"]) / exact[name]["sd"], found[name].std() / exact[name]["sd"] - 1.0) for name in shared
    ]
    return pd.DataFrame(rows, index=shared, columns=["mean", "sd"]).abs()


def _assert_mixed(fit: bl.BayesFit) -> None:
    value = {check.code: check.value for check in fit.diagnose()}
    assert value["rhat"] < 1.01, fit.diagnose()
    assert value["divergences"] < 1e-3 * fit.draws().n_draws, fit.diagnose()


@pytest.mark.sampling
@pytest.mark.reference
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.ConvergenceWarning")
@pytest.mark.parametrize("case", FAST, ids=lambda case: case.name)
def test_posterior_is_near_the_exact_one(case: Case, reference_dir: Path) -> None:
    # 4 x 1500 draws: ESS of the slowest parameter about 1500, a Monte-Carlo error of 0.026 SD: 0.15 is beyond five of them.
    fit = bl.brm(_model(case, reference_dir), draws=1500, seed=20240201, sampler="nutpie")
    distance = _distances(case, fit, reference_dir)
    _assert_mixed(fit)
    assert distance["mean"].max() < 0.15, distance.sort_values("mean").tail(3)
    assert distance["sd"].max() < 0.15, distance.sort_values("sd").tail(3)


@pytest.mark.sampling
@pytest.mark.reference
@pytest.mark.parametrize("case", COLLAPSED, ids=lambda case: case.name)
def test_collapsed_posterior_is_the_exact_one(case: Case, reference_dir: Path) -> None:
    # 4 x 4000 draws, nearly independent: a Monte-Carlo error of 0.01 SD.
    fit = bl.brm(_model(case, reference_dir), draws=4000, seed=20240203, sampler="collapsed")
    _assert_mixed(fit)
    distance = _distances(case, fit, reference_dir)
    assert distance["mean"].max() < 0.05, distance.sort_values("mean").tail(3)
    assert distance["sd"].max() < 0.05, distance.sort_values("sd").tail(3)


@pytest.mark.sampling
@pytest.mark.reference
@pytest.mark.parametrize("case", DIRECT, ids=lambda case: case.name)
def test_direct_posterior_is_the_exact_one(case: Case, reference_dir: Path) -> None:
    # 4 x 4000 draws, nearly independent, against reference draws of which there are as many: 0.015 SD, of some dozens of parameters.
    fit = bl.brm(_model(case, reference_dir), draws=4000, seed=20240204, sampler="direct")
    _assert_mixed(fit)
    distance = _distances(case, fit, reference_dir)
    assert distance["mean"].max() < 0.06, distance.sort_values("mean").tail(3)
    assert distance["sd"].max() < 0.06, distance.sort_values("sd").tail(3)


@pytest.mark.slow
@pytest.mark.sampling
@pytest.mark.reference
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.ConvergenceWarning")
@pytest.mark.parametrize(("sampler", "case"), BY_SAMPLER, ids=lambda one: one if isinstance(one, str) else one.name)
def test_posterior_is_the_exact_one(sampler: str, case: Case, reference_dir: Path) -> None:
    # 4 x 20000 draws: Monte-Carlo error below 0.01 SD for every parameter.
    fit = bl.brm(_model(case, reference_dir), draws=20_000, tune=2000, seed=20240202, target_accept=0.95, sampler=sampler)
    _assert_mixed(fit)
    distance = _distances(case, fit, reference_dir)
    assert distance["mean"].max() < 0.05, distance.sort_values("mean").tail(3)
    assert distance["sd"].max() < 0.05, distance.sort_values("sd").tail(3)
