"""Log densities against R's own functions, and log-likelihoods at glmmTMB's estimates against glmmTMB's (see families.R)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bayeslmm.families import FAMILIES, LINKS, derivatives

STORED: dict[str, Any] = json.loads(Path(__file__).with_name("families.json").read_text())


def _label(case: dict[str, Any]) -> str:
    return str(case["family"])


@pytest.mark.parametrize("case", STORED["densities"], ids=_label)
def test_density_is_r_s(case: dict[str, Any]) -> None:
    y = np.array(case["y"], dtype=float)
    aux = {name: np.array(value) for name, value in case["aux"].items()}
    np.testing.assert_allclose(FAMILIES[case["family"]].loglik(y, np.full(len(y), case["mu"]), aux, None), case["log"], rtol=1e-9)


def _etas(case: dict[str, Any]) -> np.ndarray:
    """Linear predictors at glmmTMB's estimates: of the mean, then its dispersion's and its zeros' where the family has them."""
    x = np.array(case["x"])
    further = [case["zi"] if parameter.name in ("zi", "hu") else case["disp"] for parameter in FAMILIES[case["family"]].parameters]
    wanted = [case["beta"], *further]
    rows = [np.atleast_1d(np.asarray(values, dtype=float)) for values in wanted]
    return np.array([values[0] + (values[1] * x if len(values) > 1 else 0.0 * x) for values in rows])


@pytest.mark.parametrize("case", STORED["fits"], ids=_label)
def test_log_likelihood_at_glmmtmb_s_estimates_and_its_gradient(case: dict[str, Any]) -> None:
    """The gradient is 0 but for where glmmTMB's optimiser stopped."""
    family = FAMILIES[case["family"]]
    links = (LINKS[family.link], *(LINKS[parameter.link] for parameter in family.parameters))
    trials = None if case.get("trials") is None else np.array(case["trials"], dtype=float)
    found = derivatives(family, links, np.array(case["y"], dtype=float), _etas(case), trials, 1)
    assert found.value.sum() == pytest.approx(case["loglik"], rel=1e-9)
    np.testing.assert_allclose(found.d1.sum(axis=1), 0.0, atol=2e-3)
    np.testing.assert_allclose(found.d1[0] @ np.array(case["x"]), 0.0, atol=2e-3)
