"""Linear mixed models against lme4 at a tight optimum: every stored case, REML and ML."""

from __future__ import annotations

import os
import re
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from bayeslmm.classical import ClassicalFit, lmer, problem_of
from bayeslmm.classical.engine import criterion
from bayeslmm.datasets import load_dataset
from bayeslmm.errors import BayesLmmWarning
from tests.support import ROOT, reference_case, reference_dir

pytestmark = pytest.mark.reference

_FOLDER = Path(os.environ.get("BAYESLMM_REFERENCE_DIR") or ROOT.parent / "shared" / "reference") / "results"
CASES = sorted(path.stem for path in _FOLDER.glob("*__[0-9][0-9].json")) or ["absent"]
BLOCKS = [(case, block) for case in CASES for block in ("REML", "ML")]

NOT_UNIQUE = {"sleepstudy_x__09", "sim_crossed__05", "Orthodont__06"}
"""Over-parametrised: the criterion and fixed effects are determined, theta is not."""

CRITERION = 1e-9
"""Relative. lme4 is evaluated at its own optimum to 15 digits; both are at the minimum, so errors are second order."""
FIXED = 1e-6
THETA = 1e-5
"""lme4's own gradient there is up to 1e-6 (InstEval 3e-3), which leaves theta good to about 1e-6."""
EFFECTS = 1e-5


@cache
def fitted(case: str, block: str) -> ClassicalFit:
    stored = reference_case(case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        return lmer(
            stored["formula"],
            load_dataset(stored["dataset"]),
            reml=block == "REML",
            weights=stored["weights"],
            contrasts=stored["contrasts"] or None,
        )


def expected(case: str, block: str) -> dict:
    reference_dir()
    return reference_case(case)[block]


def close(value, reference, tolerance, scale=None) -> None:
    value, reference = np.asarray(value, dtype=float), np.asarray(reference, dtype=float)
    size = np.abs(reference) if scale is None else scale
    assert value.shape == reference.shape
    assert np.all(np.abs(value - reference) <= tolerance * np.maximum(size, 1e-12)), (value, reference)


every_block = pytest.mark.parametrize(("case", "block"), BLOCKS)


@every_block
def test_criterion_at_given_theta(case: str, block: str) -> None:
    stored = expected(case, block)
    problem = problem_of(fitted(case, block).model, reml=block == "REML")
    for point in stored["devfun"].values():
        assert criterion(problem, np.array(point["theta"])) == pytest.approx(point["value"], rel=1e-9)


@every_block
def test_optimum(case: str, block: str) -> None:
    stored, fit = expected(case, block), fitted(case, block)
    (value,) = stored["criterion"].values()
    assert fit.criterion == pytest.approx(value, rel=CRITERION)
    assert fit.converged
    assert fit.method == block
    close(fit.loglik, stored["logLik"], CRITERION)
    close(fit.aic, stored["AIC"], CRITERION)
    close(fit.bic, stored["BIC"], CRITERION)
    assert fit.n_parameters == stored["logLik_df"]
    assert fit.df_residual == stored["df_residual"]
    assert fit.nobs == stored["nobs"]
    assert fit.ngroups == stored["ngrps"]
    assert list(fit.ngroups) == list(stored["ngrps"])
    close(fit.sigma, stored["sigma"], FIXED)


@every_block
def test_theta(case: str, block: str) -> None:
    if case in NOT_UNIQUE:
        pytest.skip("theta is not unique")
    stored, fit = expected(case, block), fitted(case, block)
    reference = np.array(list(stored["theta"].values()))
    close(fit.theta, reference, THETA, scale=np.maximum(np.abs(reference), 0.05 * np.max(np.abs(reference))))
    assert fit.is_singular == stored["isSingular"]


@every_block
def test_fixed_effects(case: str, block: str) -> None:
    stored, fit = expected(case, block), fitted(case, block)
    assert list(fit.fixef().index) == list(stored["fixef"])
    assert list(fit.dropped) == list(stored["dropped_columns"])
    reference, se = np.array(list(stored["fixef"].values())), np.array(list(stored["se"].values()))
    close(fit.fixef(), reference, FIXED, scale=np.maximum(np.abs(reference), se))
    close(fit.standard_errors, se, FIXED)
    close(fit.vcov(), stored["vcov"], 3 * FIXED, scale=np.outer(se, se))
    table = fit.coefficients("none")
    close(table["statistic"], list(stored["tvalue"].values()), 3 * FIXED, scale=np.maximum(np.abs(table["statistic"].to_numpy()), 1.0))


@every_block
def test_variance_table(case: str, block: str) -> None:
    stored, table = expected(case, block), fitted(case, block).varcorr()
    names = [(row["grp"], row["var1"], row["var2"]) for row in stored["varcorr"]]
    assert [tuple(None if x != x else x for x in row) for row in table[["group", "term1", "term2"]].to_numpy()] == names
    if case not in NOT_UNIQUE:
        reference = np.array([row["vcov"] for row in stored["varcorr"]])
        close(table["vcov"], reference, 3 * THETA, scale=np.maximum(np.abs(reference), 1e-3 * np.max(reference)))


@every_block
def test_random_effects(case: str, block: str) -> None:
    stored, fit = expected(case, block), fitted(case, block)
    for group, (modes, sds) in fit.ranef(condsd=True).items():
        reference = stored["ranef"][group]
        assert list(modes.columns) == list(reference["terms"])
        rows = [str(level) for level in reference["levels"]]
        if case in NOT_UNIQUE:
            continue
        values, errors = np.array(reference["values"], dtype=float), np.array(reference["condsd"], dtype=float)
        size = np.maximum(np.max(np.abs(values), axis=0), np.max(errors, axis=0))
        close(modes.loc[rows], values, EFFECTS, scale=size)
        close(sds.loc[rows], errors, EFFECTS, scale=np.maximum(np.max(errors, axis=0), 1e-3 * size))
        if len(rows) == len(modes):
            assert list(modes.index) == rows


@every_block
def test_rows(case: str, block: str) -> None:
    stored, fit = expected(case, block), fitted(case, block)
    close(fit.fitted().iloc[:20], stored["fitted20"], EFFECTS, scale=fit.sigma)
    close(fit.residuals().iloc[:20], stored["resid20"], EFFECTS, scale=fit.sigma)
    quantiles = np.quantile(fit.residuals("scaled"), [0, 0.25, 0.5, 0.75, 1])
    close(quantiles, list(stored["scaled_resid_quantiles"].values()), EFFECTS, scale=1.0)


PRINTED = {
    "sleepstudy_lmer": "sleepstudy__02",
    "Dyestuff2_singular": "Dyestuff2__01",
    "Penicillin_crossed": "Penicillin__01",
    "rank_deficient": "sleepstudy_x__12",
    "school_seed002": "school__01",
}


def summaries(text: str) -> list[str]:
    """Cut the first printed summary out of a transcript of R, from its heading to its last table."""
    start = text.index("Linear mixed model fit")
    return text[start:].split("\n\n>")[0].rstrip().split("\n")


def layout(line: str) -> tuple[str, list[float]]:
    """Return a line with its digits blanked out, and its numbers."""
    return re.sub(r"\d", "#", line), [float(number) for number in re.findall(r"\d+\.?\d*", line)]


@pytest.mark.parametrize(("name", "case"), PRINTED.items())
def test_summary_has_lme4s_layout(name: str, case: str) -> None:
    """The print-outs are of lme4's default optimiser: numbers may differ by 1e-5 or two units of the last digit."""
    lines = summaries((reference_dir() / "text" / f"{name}.txt").read_text(encoding="utf8"))
    ours = str(fitted(case, "REML").summary()).rstrip().split("\n")
    for line, mine in zip(lines[3:], ours[3:], strict=False):
        if line.startswith(("optimizer", "boundary")):
            break
        pattern, numbers = layout(line)
        my_pattern, my_numbers = layout(mine)
        assert my_pattern == pattern
        for number, my_number in zip(numbers, my_numbers, strict=True):
            decimals = len(str(number).split(".")[1])
            assert my_number == pytest.approx(number, rel=1e-5, abs=2.5 * 10.0**-decimals)
    assert ours[0].startswith("Linear mixed model fit by REML")
    assert ours[1].startswith("Formula: ")
