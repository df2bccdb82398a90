"""Models that differ only in data share one compiled density: of the same structure, and right after an exchange of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import nutpie
import pandas as pd
import pytest
from pytensor.scalar.basic import autocast_float_as

import bayeslmm as bl
from bayeslmm.bayes import samplers
from bayeslmm.bayes.shared_data import separated

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")


def _data(seed: int, n: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    g, x = np.arange(n) % 6, rng.normal(size=n)
    y = 1.0 + 0.5 * x + rng.normal(size=6)[g] + rng.normal(size=n)
    return pd.DataFrame(
        {
            "y": y,
            "x": x,
            "w": rng.uniform(0.5, 2.0, n),
            "g": [f"g{seed}{i}" for i in g],
            "time": np.arange(n) // 6,
            "count": 1 + rng.poisson(np.exp(0.3 * y)),
            "trials": rng.integers(8, 12, n),
            "hits": rng.integers(0, 8, n),
            "ordered": pd.Categorical(np.array(["a", "b", "c"])[np.argsort(np.argsort(y)) * 3 // n], ordered=True),
        }
    )


CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "correlated": ("y ~ x + (x | g)", {}),
    "weights": ("y ~ x + (1 | g)", {"weights": "w"}),
    "spread": (bl.formula("y ~ x + (1 | g)", sigma="~ x"), {}),
    "series": ("y ~ x + (1 | g) + ar(time, g)", {}),
    "ordered": ("ordered ~ x + (1 | g)", {"family": "cumulative"}),
    "truncated": ("count ~ x + (1 | g)", {"family": "truncated_poisson"}),
    "binomial": ("hits | trials(trials) ~ x + cs(x | g)", {"family": "binomial"}),
}


def _model(case: str, seed: int) -> bl.Model:
    formula, options = CASES[case]
    return bl.model(formula, _data(seed), **options)


def _translated(model: bl.Model) -> Any:
    """Translate as the samplers do: all numbers in double precision."""
    with autocast_float_as("float64"):
        return model.to_pymc()


@pytest.mark.parametrize("case", CASES)
def test_exchange_of_data_makes_the_other_model(case: str) -> None:
    one, other = (separated(_translated(_model(case, seed))) for seed in (1, 2))
    assert one.structure == other.structure
    assert len(one.variables) == len(other.variables) > 1
    start = one.model.initial_point()
    rng = np.random.default_rng(0)
    point = {name: value + 0.1 * rng.normal(size=value.shape) for name, value in start.items()}
    logp = one.model.compile_logp(mode="FAST_COMPILE")
    for which, seed in ((one, 1), (other, 2)):
        for variable, value in zip(one.variables, which.values, strict=True):
            variable.set_value(value)
        expected = _translated(_model(case, seed)).compile_logp(mode="FAST_COMPILE")(point)
        assert logp(point) == pytest.approx(expected, rel=1e-10)


def test_other_structures_are_told_apart() -> None:
    data = _data(1)
    user = [bl.prior("normal(0, 3)", part="fixed")]
    models = [
        bl.model("y ~ x + (x | g)", data),
        bl.model("y ~ x + (x || g)", data),
        bl.model("y ~ x + (1 | g)", data),
        bl.model("y ~ w + (1 | g)", data),
        bl.model("y ~ x + (1 | g)", data, priors=[bl.prior("student_t(3, 0, 3)", part="fixed")]),
        bl.model("y ~ x + (1 | g)", data.iloc[:59]),
        bl.model("y ~ x + (1 | g)", data, weights="w"),
        bl.model("count ~ x + (1 | g)", data, family="poisson"),
        bl.model("count ~ x + (1 | g)", data, family="negative_binomial"),
    ]
    structures = [separated(_translated(model)).structure for model in models]
    same_as_renamed = separated(_translated(bl.model("y ~ x + (1 | g)", data, priors=user))).structure
    assert same_as_renamed == structures[2] == structures[3]
    del structures[3]
    assert len(set(structures)) == len(structures)


def test_compiled_once_for_whatever_data(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled, given = [], []

    def compile_pymc_model(model: Any, **options: Any) -> str:
        compiled.append(model)
        return f"compiled {len(compiled)}"

    monkeypatch.setattr(nutpie, "compile_pymc_model", compile_pymc_model)
    monkeypatch.setattr(samplers, "_COMPILED", type(samplers._COMPILED)())
    monkeypatch.setattr(samplers, "refilled", lambda made, variables, values: given.append((made, values)) or made)
    monkeypatch.setattr(samplers, "named_as", lambda made, model: (made, next(iter(model.coords["g"]))))
    found = [samplers._compiled(_translated(_model("correlated", seed)), ["b"]) for seed in (1, 2, 1)]
    assert found == [("compiled 1", "g10"), ("compiled 1", "g20"), ("compiled 1", "g10")]
    assert len(compiled) == 1
    assert any(np.array_equal(value, _data(2)["y"]) for value in given[1][1])
    assert samplers._compiled(_translated(_model("weights", 1)), ["b"])[0] == "compiled 2"


@pytest.mark.sampling
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::bayeslmm.errors.ConvergenceWarning")
def test_draws_are_those_of_a_fresh_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(seed: int) -> bl.BayesFit:
        return bl.brm(_model("weights", seed), sampler="nutpie", seed=3, chains=2, draws=200, tune=200)

    fit(1)
    shared = fit(2)
    monkeypatch.setattr(samplers, "_COMPILED", type(samplers._COMPILED)())
    fresh = fit(2)
    assert list(shared.tree["posterior"]["g"].values) == [f"g2{i}" for i in range(6)]
    np.testing.assert_array_equal(shared.tree["posterior"]["r_g"].values, fresh.tree["posterior"]["r_g"].values)
