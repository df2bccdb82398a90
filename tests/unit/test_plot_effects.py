"""Conditional-effects figures: what is drawn is what the fits predict, in the panels that the formula asks for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.errors import DataError, FitError
from tests.unit.fakes import FakeFit, FakePosterior, compared


def frame() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 80
    data = pd.DataFrame({"x": rng.normal(size=n), "z": rng.normal(size=n), "t": rng.random(n) < 0.5, "g": np.arange(n) % 8})
    data["f"] = pd.Categorical(rng.choice(["low", "mid", "high"], n), categories=["low", "mid", "high"])
    data["k"] = rng.choice([10, 20, 30], n)
    data["y"] = data["x"] * data["z"] + data["f"].cat.codes + rng.normal(size=8)[data["g"]] + 0.5 * rng.normal(size=n)
    data["d"] = (data["y"] > 0.5).astype(int)
    return data


def panels(picture: Any) -> list[str]:
    return list(dict.fromkeys(picture.data["panel"]))


def test_a_line_is_the_prediction_at_the_mean_and_the_first_category() -> None:
    data = frame()
    fit = bl.lmer("y ~ x * z + f + t + (1 | g)", data)
    picture = bl.plot(fit, "effects")
    assert panels(picture) == ["x", "z", "f", "t", "x by z"]
    line = picture.data[picture.data["panel"] == "x"]
    at = pd.DataFrame({"x": line["value"].astype(float), "z": data["z"].mean(), "f": "low", "t": False})
    expected = fit.predict(at, target="average_group", interval="confidence")
    np.testing.assert_allclose(line[["estimate", "lower", "upper"]], expected[["estimate", "lower", "upper"]], rtol=1e-7)
    assert line["value"].min() == data["x"].min()
    assert picture.data.loc[picture.data["panel"] == "f", "value"].tolist() == ["low", "mid", "high"]
    assert picture.data.loc[picture.data["panel"] == "x by z", "by"].nunique() == 3


def test_of_two_that_interact_the_number_is_on_the_axis_then_the_one_of_more_categories() -> None:
    fit = bl.lmer("y ~ t * f + f * x + (1 | g)", frame())
    assert panels(bl.plot(fit, "effects"))[-2:] == ["f by t", "x by f"]


def test_numbers_made_factors_by_the_formula_are_categories() -> None:
    fit = bl.lmer("y ~ factor(k) + (1 | g)", frame())
    assert bl.plot(fit, "effects").data["value"].tolist() == ["10", "20", "30"]


def test_each_fit_has_its_line_and_its_own_panel_of_an_interaction() -> None:
    model = bl.model("y ~ x * f + (1 | g)", frame())
    picture = bl.plot(compared(FakeFit(model), FakePosterior(model)), "effects", points=False)
    assert panels(picture) == ["x", "f", "x by f, REML", "x by f, NUTS"]
    main = picture.data[picture.data["panel"] == "f"]
    assert main["fit"].tolist() == ["REML"] * 3 + ["NUTS"] * 3
    assert main["lower"].isna().tolist() == [True] * 3 + [False] * 3


def test_a_generalised_fit_is_drawn_on_the_scale_of_the_response() -> None:
    fit = bl.glmer("d ~ x + f + (1 | g)", frame(), "bernoulli")
    data = bl.plot(fit, "effects", target="population").data
    assert data[["lower", "estimate", "upper"]].to_numpy(dtype=float).min() > 0.0
    assert data[["lower", "estimate", "upper"]].to_numpy(dtype=float).max() < 1.0


def test_asked_for_by_name() -> None:
    fit = bl.lmer("y ~ x * z + f + (1 | g)", frame())
    assert panels(bl.plot(fit, "effects", variables=["f", "z:f"])) == ["f", "z by f"]
    assert panels(bl.plot(fit, "effects", limit=1)) == ["x"]
    with pytest.raises(DataError, match="'xx' is no predictor"):
        bl.plot(fit, "effects", variables="xx")
    with pytest.raises(FitError, match="one predictor or two"):
        bl.plot(fit, "effects", variables="x:z:f")


def test_nothing_to_draw_without_predictors() -> None:
    fit = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))
    with pytest.raises(FitError, match="no predictor"):
        bl.plot(fit, "effects")
