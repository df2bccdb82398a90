"""Random effects reduced to what the data support: planted structures are found, and the reduced fit is a fit of its own formula."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.classical.lmm import fit_model
from bayeslmm.classical.reduce import principal_components, reduced, with_random
from bayeslmm.errors import DataWarning
from bayeslmm.formula import parse

FULL = "y ~ x + z + (x + z | g)"


def simulated(seed: int, L: list[list[float]], groups: int = 12, rows: int = 8) -> pd.DataFrame:
    """Return data with effects of 1, x and z by group, whose Cholesky factor is L, and noise of variance one."""
    rng = np.random.default_rng(seed)
    g, n = np.repeat(np.arange(groups), rows), groups * rows
    x, z = rng.normal(size=(2, n))
    effects = rng.normal(size=(groups, 3)) @ np.array(L).T
    y = 1 + x + 0.5 * z + np.einsum("nk,nk->n", np.column_stack([np.ones(n), x, z]), effects[g]) + rng.normal(size=n)
    f = np.tile(["a", "b", "c", "d"], n // 4)
    return pd.DataFrame(
        {"y": y, "x": x, "z": z, "f": f, "g": [f"g{i:02}" for i in g], "w": rng.uniform(0.5, 2.0, n), "o": rng.normal(size=n)}
    )


def fitted(formula: str, data: pd.DataFrame, **options: str) -> bl.ClassicalFit:
    return fit_model(bl.model(formula, data, **options), reml=True)


def assert_same(one: bl.ClassicalFit, other: bl.ClassicalFit) -> None:
    assert one.criterion == pytest.approx(other.criterion, abs=1e-7)
    np.testing.assert_allclose(one.beta, other.beta, atol=1e-7)
    np.testing.assert_allclose(one.theta, other.theta, atol=1e-5)


def test_an_effect_without_variance_goes_and_the_correlation_of_the_others_comes_back() -> None:
    data = simulated(2, [[1, 0, 0], [0.6, 0.6, 0], [0, 0, 0]])
    fit = fitted(FULL, data)
    assert fit.is_singular
    found = reduced(fit)
    assert found.fit.model.formula.text == "y ~ x + z + (x | g)"
    assert [step.split(" ")[0] for step in found.steps] == ["(x", "(0", "the"]
    assert "2 of its 3 principal components have a variance" in found.steps[0]
    assert not found.fit.is_singular
    assert_same(found.fit, fitted("y ~ x + z + (x | g)", data))


def test_correlations_go_where_every_effect_has_a_variance() -> None:
    data = simulated(8, [[1, 0, 0], [0.6, 0.6, 0], [0, 0, 0]])
    fit = fitted(FULL, data)
    assert fit.is_singular
    found = reduced(fit)
    assert found.fit.model.formula.text == "y ~ x + z + (1 | g) + (0 + x | g) + (0 + z | g)"
    assert_same(found.fit, fitted("y ~ x + z + (x + z || g)", data))


@pytest.mark.parametrize("term", ["(f | g)", "cs(f | g)", "diag(f | g)"])
def test_a_factor_goes_as_a_whole(term: str) -> None:
    data = simulated(0, [[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    fit = fitted(f"y ~ x + f + {term}", data)
    assert fit.is_singular
    found = reduced(fit)
    assert found.fit.model.formula.text == "y ~ x + f + (1 | g)"
    assert_same(found.fit, fitted("y ~ x + f + (1 | g)", data))


def test_nothing_may_be_left() -> None:
    found = reduced(fitted("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff2")))
    assert found.fit.model.formula.text == "Yield ~ 1"
    assert found.fit.model.design.blocks == ()
    assert found.steps == ("(1 | Batch) left out: its variance is estimated as zero",)


def test_of_terms_that_the_data_cannot_tell_apart_the_better_stays() -> None:
    data = bl.load_dataset("sleepstudy")
    data["half"] = np.where(data["Days"] < 5, "a", "b")
    fit = fitted("Reaction ~ Days + (1 | Subject) + (0 + half | Subject)", data)
    assert fit.convergence == "flat"
    found = reduced(fit)
    assert found.fit.model.formula.text == "Reaction ~ Days + (0 + half | Subject)"
    assert found.fit.criterion == pytest.approx(fit.criterion, abs=1e-6)


def test_a_sound_fit_stays_as_it_is() -> None:
    fit = fitted("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    found = reduced(fit)
    assert found.fit is fit
    assert found.steps == ()


def test_an_effect_without_variance_costs_nothing_to_leave_out() -> None:
    data = simulated(5, [[1, 0, 0], [0, 0, 0], [0, 0, 0]], groups=10)
    fit = fitted("y ~ x * z + diag(x * z | g)", data)
    found = reduced(fit)
    assert len(found.steps) >= 1
    assert all("a variance of zero" in step for step in found.steps)
    assert found.fit.criterion == pytest.approx(fit.criterion, abs=1e-6)
    assert found.fit.n_parameters < fit.n_parameters


def test_the_reduced_model_keeps_weights_offset_contrasts_priors_and_predicts() -> None:
    data = simulated(2, [[1, 0, 0], [0.6, 0.6, 0], [0, 0, 0]])
    data.loc[3, "y"] = np.nan
    row = bl.prior("exponential(1)", part="sd", group="g", term="x")
    with pytest.warns(DataWarning, match="missing"):
        model = bl.model("y ~ x + f + (x + z | g)", data, weights="w", offset="o", contrasts={"f": "sum"}, priors=[row])
    smaller = with_random(model, model.formula.mean.random[:0])
    assert smaller.formula.text == "y ~ x + f"
    text = "y ~ x + f + (x | g)"
    fit = fit_model(with_random(model, parse(text).mean.random), reml=True)
    assert fit.model.formula.text == text
    known = {"weights": "w", "offset": "o", "contrasts": {"f": "sum"}}
    alone = fit_model(bl.model(text, data.dropna(), **known), reml=True)
    assert_same(fit, alone)
    rows = data.head(5).assign(f="b")
    pd.testing.assert_frame_equal(fit.predict(rows), alone.predict(rows), atol=1e-5)
    kept = {(prior.part, prior.group, prior.term): prior for prior in fit.model.prior_rows}
    assert ("sd", "g", "z") not in kept
    assert kept["sd", "g", "x"].source == "user"


def test_principal_components_are_those_of_what_the_effects_add_to_a_row() -> None:
    data = simulated(0, [[1, 0, 0], [0.6, 0.6, 0], [0.2, 0.3, 0.5]])
    fit = fitted(FULL, data)
    found = principal_components(fit)
    block = fit.model.design.blocks[0]
    units = np.sqrt(np.mean(block.values**2, axis=0))
    values = np.linalg.eigvalsh(fit.covariances[0] * np.outer(units, units))[::-1]
    np.testing.assert_allclose(found["sd"] ** 2, values, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found["share"], values / values.sum(), rtol=1e-6, atol=1e-12)
    assert found["cumulative"].iloc[-1] == pytest.approx(1.0)
    far = fitted(FULL, data.assign(x=1e6 * data["x"]))
    np.testing.assert_allclose(principal_components(far)["share"], found["share"], rtol=1e-4, atol=1e-8)
