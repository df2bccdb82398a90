"""Where chains start: apart in everything but the slopes, whose units are those of the predictors."""

from __future__ import annotations

from typing import Any

import nutpie
import pytest

import bayeslmm as bl
from bayeslmm.bayes import samplers


class _AskedError(Exception):
    """Raised in place of compiling."""


def test_slopes_start_at_the_centres_of_their_priors(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def ask(model: Any, **options: Any) -> None:
        asked.update(options)
        raise _AskedError

    monkeypatch.setattr(nutpie, "compile_pymc_model", ask)
    monkeypatch.setattr(samplers, "_COMPILED", type(samplers._COMPILED)())
    formula = bl.formula("Reaction ~ Days + (Days | Subject)", sigma="~ Days")
    model = bl.model(formula, bl.load_dataset("sleepstudy")).to_pymc()
    with pytest.raises(_AskedError):
        samplers._compiled(model, ["b"])
    names = {variable.name for variable in model.free_RVs}
    assert {"beta", "beta_sigma"} < names
    assert {variable.name for variable in asked["jitter_rvs"]} == names - {"beta", "beta_sigma"}
