"""Every family and every covariance structure comes back from a file as it was: estimates, predictions, print-outs, draws of new data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.covariance import STRUCTURES, Structure
from bayeslmm.families import FAMILIES, LINKS, Family

pytestmark = [
    pytest.mark.filterwarnings("ignore::bayeslmm.errors.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::bayeslmm.errors.SingularFitWarning"),
]

AUX = {"sigma": 0.7, "nu": 7.0, "shape": 4.0, "phi": 6.0, "zi": 0.2, "hu": 0.3}
CUTS = np.array([-0.9, 0.1, 1.2])


def link_for(family: Family) -> str:
    """Return the family's own link, or log where that leaves the range of the mean."""
    return "log" if family.link in ("inverse", "1/mu^2") else family.link


def data_for(family: Family) -> pd.DataFrame:
    """Return 12 groups of 15 rows with a slope of 0.5 and group sds of 0.5 on the link's scale, and a response of the family."""
    rng = np.random.default_rng(11)
    n, groups = 180, 12
    index = np.repeat(np.arange(groups), n // groups)
    frame = pd.DataFrame({"x": np.round(rng.normal(size=n), 3), "g": pd.Categorical([f"g{i:02d}" for i in index]), "n": 8})
    eta = 0.4 + 0.5 * frame["x"].to_numpy() + rng.normal(0.0, 0.5, groups)[index]
    if family.of_levels is not None:
        cut = np.digitize(eta + rng.logistic(size=n), CUTS)
        return frame.assign(y=pd.Categorical.from_codes(cut, ["never", "rarely", "often", "always"], ordered=True))
    link = LINKS[link_for(family)]
    aux: dict[str, Any] = {one.name: np.full(n, AUX[one.name]) for one in family.parameters}
    trials = frame["n"].to_numpy(float) if family.needs_trials else None
    return frame.assign(y=family.simulate(rng, link.inverse(eta), aux, trials))


def written(family: Family) -> str:
    return "y | trials(n) ~ x + (1 | g)" if family.needs_trials else "y ~ x + (1 | g)"


def same(fit: bl.ClassicalFit, path: Path, newdata: pd.DataFrame) -> bl.ClassicalFit:
    """Save, load and compare all that a fit says; returns the loaded one."""
    fit.save(path)
    again = bl.load(path)
    assert isinstance(again, bl.ClassicalFit)
    pd.testing.assert_frame_equal(again.estimates, fit.estimates, check_exact=True)
    pd.testing.assert_frame_equal(
        again.predict(newdata, new_levels="average"), fit.predict(newdata, new_levels="average"), check_exact=True
    )
    pd.testing.assert_frame_equal(again.simulate(2, seed=3), fit.simulate(2, seed=3), check_exact=True)
    pd.testing.assert_series_equal(again.residuals("quantile"), fit.residuals("quantile"), check_exact=True)
    assert str(again.summary()) == str(fit.summary())
    assert str(again.diagnose()) == str(fit.diagnose())
    for group, (values, sds) in fit.ranef(condsd=True).items():
        pd.testing.assert_frame_equal(again.ranef(condsd=True)[group][0], values, check_exact=True)
        pd.testing.assert_frame_equal(again.ranef(condsd=True)[group][1], sds, check_exact=True)
    return again


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_a_fit_of_every_family_comes_back(family: Family, tmp_path: Path) -> None:
    data = data_for(family)
    fit = (
        bl.lmer(written(family), data) if family.name == "gaussian" else bl.glmer(written(family), data, family.name, link=link_for(family))
    )
    new = pd.DataFrame({"x": [0.0, 1.0], "g": ["g03", "elsewhere"], "n": [8, 8]})
    same(fit, tmp_path / "fit.blmm", new)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)
def test_draws_of_every_family_come_back(family: Family, tmp_path: Path) -> None:
    """Draws from the priors stand for a posterior: they are far out for some families, so that infinite log-likelihoods come by."""
    import xarray as xr

    model = bl.model(written(family), data_for(family), family.name, link=link_for(family))
    drawn = bl.prior_predictive(model, draws=40, seed=2)
    tree = xr.DataTree.from_dict({"posterior": drawn["prior"].to_dataset(), "observed_data": drawn["observed_data"].to_dataset()})
    fit = bl.BayesFit(model=model, tree=tree, provenance={"sampler": "none", "chains": 1, "draws": 40, "seed": 2})
    fit.save(tmp_path / "fit.blmm")
    again = bl.load(tmp_path / "fit.blmm")
    assert isinstance(again, bl.BayesFit)
    assert again.tree.identical(fit.tree)
    assert again.provenance == fit.provenance
    pd.testing.assert_frame_equal(again.estimates, fit.estimates, check_exact=True)
    pd.testing.assert_frame_equal(again.model.priors, fit.model.priors)
    new = pd.DataFrame({"x": [0.0, 1.0], "g": ["g03", "g11"], "n": [8, 8]})
    pd.testing.assert_frame_equal(again.predict(new, scale="link"), fit.predict(new, scale="link"), check_exact=True)


@pytest.mark.parametrize("structure", STRUCTURES.values(), ids=lambda structure: structure.name)
@pytest.mark.parametrize("family", ["gaussian", "poisson"])
def test_a_fit_of_every_structure_comes_back(structure: Structure, family: str, tmp_path: Path) -> None:
    tags = {
        "us": "(x + z | g)",
        "homdiag": "diag(x + z | g, hom = TRUE)",
        "homcs": "cs(x + z | g, hom = TRUE)",
        "hetar1": "ar1(x + z | g, hom = FALSE)",
    }
    term = tags.get(structure.name, f"{structure.name}(x + z | g)")
    rng = np.random.default_rng(5)
    index = np.repeat(np.arange(15), 16)
    frame = pd.DataFrame({"x": rng.normal(size=240), "z": rng.normal(size=240), "g": [f"s{i}" for i in index]})
    effects = rng.normal(0.0, 0.6, (15, 3))[index]
    eta = 1.0 + effects[:, 0] + (0.3 + effects[:, 1]) * frame["x"] + effects[:, 2] * frame["z"]
    frame["y"] = eta + rng.normal(0.0, 0.5, 240) if family == "gaussian" else rng.poisson(np.exp(eta))
    formula = f"y ~ x + {term}"
    fit = bl.lmer(formula, frame) if family == "gaussian" else bl.glmer(formula, frame, family)
    same(fit, tmp_path / "fit.blmm", pd.DataFrame({"x": [0.5], "z": [-1.0], "g": ["s3"]}))
