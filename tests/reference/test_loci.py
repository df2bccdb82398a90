"""The 200 simulated methylated loci: a named status for each, the separated ones and no other, and finite penalised estimates."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from tests.support import reference_dir

pytestmark = pytest.mark.reference


@pytest.fixture(scope="module")
def loci() -> pd.DataFrame:
    """A row for each locus: codes of the warnings, status of the fit, largest numbers of the penalised one."""
    folder = reference_dir()
    data = pd.read_csv(folder / "datasets" / "methylation.csv")
    rows = {}
    for locus, part in data.groupby("locus", sort=False):
        model = bl.model("cbind(m, u) ~ treatment * time + (1 | tank)", part, "binomial")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            fit = bl.glmer(model)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", bl.SingularFitWarning)
            penalised = bl.glmer(model, penalty="jeffreys")
        rows[locus] = {
            "codes": frozenset(warning.message.code for warning in caught),
            "finite": bool(np.all(np.isfinite(fit.beta)) and np.all(np.isfinite(fit.standard_errors))),
            "verdict": fit.convergence,
            "penalised": penalised.convergence,
            "coefficient": float(np.max(np.abs(penalised.beta))),
            "se": float(np.max(penalised.standard_errors)),
        }
    theirs = pd.read_csv(folder / "results" / "methylation_glmer_summary.csv").set_index("locus")
    return pd.DataFrame(rows).T.join(theirs)


def test_every_locus_has_an_answer_and_a_named_status(loci: pd.DataFrame) -> None:
    assert len(loci) == 200
    assert loci["finite"].all()
    assert set(loci["codes"]) <= {frozenset(), frozenset({"singular"}), frozenset({"separated"}), frozenset({"singular", "separated"})}


def test_the_separated_loci_and_no_other(loci: pd.DataFrame) -> None:
    found = loci["codes"].map(lambda codes: "separated" in codes)
    assert found.sum() == 23
    assert (found == loci["any_cell_0_or_1"]).all()
    assert (loci["verdict"] == "flat").equals(found)


def test_singular_loci_are_those_of_lme4(loci: pd.DataFrame) -> None:
    found = loci["codes"].map(lambda codes: "singular" in codes)
    sound = ~loci["any_cell_0_or_1"].astype(bool)
    assert (found == loci["singular"])[sound].all()


def test_penalised_estimates_are_finite(loci: pd.DataFrame) -> None:
    assert loci["penalised"].isin(["converged", "converged at the boundary"]).all()
    assert loci["coefficient"].max() < 10.0
    assert loci["se"].max() < 3.0
