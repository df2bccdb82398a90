"""Profile limits against lme4's `confint(fit, method = "profile")`, every stored case and some run for this test."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from bayeslmm.classical.intervals import confint
from bayeslmm.classical.lmm import fit_model
from bayeslmm.datasets import load_dataset
from bayeslmm.model import model
from tests.support import ROOT, reference_case, reference_dir

pytestmark = [pytest.mark.reference, pytest.mark.filterwarnings("ignore::bayeslmm.errors.DataWarning")]

_FOLDER = Path(os.environ.get("BAYESLMM_REFERENCE_DIR") or ROOT.parent / "shared" / "reference") / "results"


def _stored() -> list[str]:
    found = []
    for path in sorted(_FOLDER.glob("*__[0-9][0-9].json")):
        with path.open(encoding="utf8") as handle:
            if "confint_profile95" in json.load(handle).get("ML", {}):
                found.append(path.stem)
    return found or ["absent"]


DOUBTFUL = {
    "sleepstudy_x__01": ("(Intercept)", "Days"),
    "sleepstudy_x__02": ("(Intercept)", "Days"),
    "sleepstudy_x__07": ("cor_latelate.(Intercept)|Subject",),
    "sleepstudy_x__09": ("sd_(Intercept)|Subject", "sd_lateearly|Subject", "sd_latelate|Subject", "cor_latelate.lateearly|Subject"),
    "sleepstudy__06": ("cor_Days.(Intercept)|Subject",),
    "Orthodont__02": ("sd_(Intercept)|Subject", "cor_age.(Intercept)|Subject"),
}
"""Parameters whose limits lme4 gets wrong or cannot determine: non-monotonic profiles (weights; an over-parametrised model), limits
next to a bound, and two correlations where its spline is coarse: `test_where_the_spline_of_lme4_is_coarse` has the exact ones."""


@pytest.mark.parametrize("case", _stored())
def test_limits(case: str) -> None:
    reference_dir()
    stored = reference_case(case)
    options = {"weights": stored["weights"], "contrasts": stored["contrasts"] or None}
    fit = fit_model(model(stored["formula"], load_dataset(stored["dataset"]), **options), reml=False)
    expected = stored["ML"]["confint_profile95"]
    table = confint(fit, "profile")
    assert list(table.index) == expected["rows"]
    for name, values in zip(expected["rows"], expected["values"], strict=True):
        if name not in DOUBTFUL.get(case, ()):
            limits = np.array(values, dtype=float)
            near_zero = 1e-3 * np.abs(limits).max()
            assert np.all(np.abs(table.loc[name] - limits) <= 1e-3 * np.maximum(np.abs(limits), near_zero)), (name, limits)


def test_where_the_spline_of_lme4_is_coarse() -> None:
    """Exact: the roots of lme4's own deviance function, minimised by optim() at a fixed correlation, at 1.959964."""
    data = load_dataset("sleepstudy")
    data = data.assign(late=np.where(data["Days"] >= 5, "late", "early"))
    for formula, name, upper in [
        ("Reaction ~ 1 + (Days | Subject)", "cor_Days.(Intercept)|Subject", 0.7223254),
        ("Reaction ~ late + (late | Subject)", "cor_latelate.(Intercept)|Subject", 0.9851446),
    ]:
        fit = fit_model(model(formula, data), reml=False)
        assert confint(fit, "profile", parameters=name)["upper"].item() == pytest.approx(upper, rel=1e-6)


def test_crossed_factors_with_a_correlation() -> None:
    """lme4 1.1-31 on the first 15 subjects, bobyqa to 1e-9; lower limit of the slope's SD: the root of lme4's deviance by optim()."""
    data = load_dataset("sim_crossed")
    data = data[data["subj"].astype(str) <= "s15"]
    fit = fit_model(model("rt ~ cond + x + (cond | subj) + (1 | item)", data), reml=False)
    expected = {
        "sd_(Intercept)|item": (26.50516557, 44.48141566),
        "sd_(Intercept)|subj": (54.25314636, 103.52656007),
        "sd_condtreat|subj": (7.671409, 42.722864),
        "sigma": (77.0673461, 85.25002113),
        "(Intercept)": (449.93108849, 519.02701964),
        "condtreat": (30.24910207, 61.87336458),
        "x": (9.10752753, 19.87972798),
    }
    table = confint(fit, "profile", level=0.9, parameters=list(expected))
    assert list(table.index) == list(expected)
    assert table.to_numpy() == pytest.approx(np.array(list(expected.values())), rel=2e-5)
