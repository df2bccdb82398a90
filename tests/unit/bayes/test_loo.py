"""`loo`, `kfold`, `loo_compare`: what they return, warn of and refuse; exact leave-one-out by refitting where it is cheap."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import arviz as az
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.special import logsumexp

import bayeslmm as bl
from bayeslmm.bayes import kfold as kfolds
from bayeslmm.bayes import loo as module
from bayeslmm.bayes import marginal
from bayeslmm.bayes.loo import khat
from bayeslmm.bayes.subset import model_on
from bayeslmm.errors import ConvergenceWarning, FitError
from bayeslmm.fit import Draws

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")


def _data() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    g = np.repeat(np.arange(7), [1, 2, 3, 4, 4, 5, 5])
    x = rng.normal(size=24)
    y = 2.0 + 0.5 * x + rng.normal(size=7)[g] + 0.7 * rng.normal(size=24)
    return pd.DataFrame({"y": y, "x": x, "g": [f"g {i}" for i in g], "half": np.where(np.arange(24) % 2, "a", "b")})


@cache
def _fit(formula: str = "y ~ x + (1 | g)", chains: int = 2, draws: int = 500) -> bl.BayesFit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bl.brm(formula, _data(), seed=1, chains=chains, draws=draws, sampler="auto", progressbar=False)


def _quiet(function: Any, *args: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return function(*args, **options)


@pytest.mark.sampling
def test_conditional_is_what_arviz_has() -> None:
    fit = _fit()
    found = _quiet(bl.loo, fit)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        expected = az.loo(fit.tree, pointwise=True)
    assert isinstance(found, az.ELPDData)
    np.testing.assert_allclose([found.elpd, found.se, found.p], [expected.elpd, expected.se, expected.p], rtol=1e-12)
    np.testing.assert_allclose(found.pareto_k.values, expected.pareto_k.values, rtol=1e-12)
    np.testing.assert_allclose(khat(fit), expected.pareto_k.values, rtol=1e-12)


@pytest.mark.sampling
@pytest.mark.parametrize("kind", ["conditional", "marginal"])
def test_rows_taken_in_parts_give_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = _fit()
    whole, k = _quiet(bl.loo, fit, kind=kind), khat(fit)
    monkeypatch.setattr(module, "_CHUNK", 7 * fit.draws().n_draws)
    parts = _quiet(bl.loo, fit, kind=kind)
    np.testing.assert_allclose([parts.elpd, parts.se, parts.p], [whole.elpd, whole.se, whole.p], rtol=1e-10)
    np.testing.assert_allclose(parts.pareto_k.values, whole.pareto_k.values, rtol=1e-8)
    np.testing.assert_allclose(khat(fit), k, rtol=1e-8)
    assert parts.n_data_points == 24
    assert parts.warning == whole.warning


@pytest.mark.sampling
def test_marginal_weights_are_better_than_conditional_ones() -> None:
    fit = _fit()
    conditional, marginal_rows = _quiet(bl.loo, fit), bl.loo(fit, kind="marginal")
    assert float(conditional.pareto_k.max()) > conditional.good_k
    assert float(marginal_rows.pareto_k.max()) < marginal_rows.good_k
    assert float(marginal_rows.pareto_k.mean()) < float(conditional.pareto_k.mean()) - 0.1


@pytest.mark.sampling
def test_high_k_hats_are_said_with_a_remedy() -> None:
    with pytest.warns(ConvergenceWarning, match=r"\[khat\] \d+ of 24 rows .*\(worst: row \d+, .*use loo\(fit, kind='marginal'\)"):
        bl.loo(_fit())
    with pytest.warns(ConvergenceWarning, match=r"in 'y ~ x \+ \(1 \| g\)' "):
        bl.loo_compare({"one": _fit(), "two": _quiet(bl.loo, _fit())})


@pytest.mark.sampling
def test_groups_are_named() -> None:
    found = _quiet(bl.loo, _fit(), kind="group")
    assert found.elpd_i.dims == ("g",)
    assert found.elpd_i["g"].values.tolist() == [f"g {i}" for i in range(7)]
    halves = _quiet(bl.loo, _fit(), kind="group", group="half")
    assert halves.elpd_i["half"].values.tolist() == ["a", "b"]


@pytest.mark.sampling
def test_one_chain_and_polars_are_taken() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = bl.brm("y ~ x + (1 | g)", pl.from_pandas(_data()), seed=1, chains=1, draws=300, progressbar=False)
    assert _quiet(bl.loo, fit, kind="group").n_data_points == 7
    assert np.isfinite(_quiet(bl.kfold, fit, k=2, by="half", seed=1).elpd)


def _exact(fit: bl.BayesFit, units: np.ndarray) -> np.ndarray:
    """Log density of each unit's rows by refits without it."""
    found = []
    for unit in range(units.max() + 1):
        rows = np.flatnonzero(units == unit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            refitted = bl.brm(
                model_on(fit.model, np.setdiff1d(np.arange(24), rows), drop_levels=True),
                seed=unit,
                chains=2,
                draws=1000,
                progressbar=False,
            )
        draws = refitted.draws()
        own = Draws(b=draws.b, effects=(), covariance=draws.covariance, aux=draws.aux)
        density = marginal.left_out(fit.model, own, units)[:, unit]
        found.append(logsumexp(density) - np.log(len(density)))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.sampling
@pytest.mark.parametrize("kind", ["marginal", "group"])
def test_importance_weights_agree_with_refits(kind: str) -> None:
    fit = _fit(draws=4000)
    units = np.arange(24) if kind == "marginal" else marginal.units(fit.model, "g")[0]
    found = _quiet(bl.loo, fit, kind=kind)
    expected = _exact(fit, units)
    good = found.pareto_k.values < 0.5
    assert good.mean() > 0.7
    np.testing.assert_allclose(found.elpd_i.values[good], expected[good], atol=0.08)


@pytest.mark.slow
@pytest.mark.sampling
def test_leaving_out_one_row_at_a_time_agrees_with_the_weights() -> None:
    fit = _fit()
    exact = _quiet(bl.kfold, fit, k=24, seed=3)
    found = bl.loo(fit, kind="marginal")
    np.testing.assert_allclose(exact.elpd_i.values, found.elpd_i.values, atol=0.25)
    assert abs(exact.elpd - found.elpd) < 0.8


@pytest.mark.sampling
def test_kfold_repeats_and_does_not_depend_on_workers() -> None:
    fit = _fit()
    one, two = (_quiet(bl.kfold, fit, k=4, by="g", seed=5, workers=workers) for workers in (1, 2))
    np.testing.assert_array_equal(one.elpd_i.values, two.elpd_i.values)
    assert isinstance(one, az.ELPDData)
    assert one.n_folds == 4
    assert one.p > 0.0


# ------------------------------------------------------------------------------------------------------------------------ folds


def test_folds_are_even_and_keep_groups_whole() -> None:
    model = bl.model("y ~ x + (1 | g)", _data())
    rng = np.random.default_rng(0)
    assert sorted(np.bincount(kfolds.folds_of(model, 5, None, None, rng)).tolist()) == [4, 5, 5, 5, 5]
    by_group = kfolds.folds_of(model, 3, "g", None, rng)
    assert all(len(set(by_group[_data()["g"] == level])) == 1 for level in _data()["g"].unique())
    assert sorted(np.bincount(by_group).tolist()) == [8, 8, 8]
    stratified = kfolds.folds_of(model, 4, None, "half", rng)
    counts = pd.crosstab(stratified, _data()["half"]).to_numpy()
    assert counts.max() - counts.min() == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 1}, "k must be a whole number of at least 2, not 1"),
        ({"k": 25}, "24 rows are too few for 25 folds; use k=24"),
        ({"k": 8, "by": "g"}, "'g' has 7 groups, too few for 8 folds; use k=7"),
        ({"by": "gg"}, "'gg' is neither a grouping factor nor a column"),
        ({"by": "g", "stratify": "half"}, "give one of them"),
        ({"seed": -1}, "seed must be a whole number"),
        ({"workers": 0}, "workers must be a whole number of at least 1"),
    ],
)
@pytest.mark.sampling
def test_kfold_refuses_in_words(options: dict[str, Any], message: str) -> None:
    with pytest.raises(FitError, match=message):
        bl.kfold(_fit(), **options)


def test_series_are_not_cut() -> None:
    data = _data()
    data["t"] = data.groupby("g").cumcount()
    model = bl.model("y ~ x + ar(time = t, gr = g)", data)
    with pytest.raises(FitError, match=r"residuals are correlated within the series of ar.*leave out whole series"):
        kfolds._check_series(model, np.arange(24) % 2)
    kfolds._check_series(model, marginal.units(model, "g")[0])


def test_flat_priors_that_a_fold_leaves_undetermined_are_refused() -> None:
    data = _data()
    data["rare"] = (np.arange(24) == 0).astype(float)
    model = bl.model("y ~ rare + (1 | g)", data, priors=[bl.prior("flat()", part="fixed")])
    with pytest.raises(FitError, match="without fold 2 do not determine all coefficients, whose priors are flat"):
        kfolds._check_determined(model_on(model, np.arange(1, 24)), 2)
    kfolds._check_determined(model_on(bl.model("y ~ rare + (1 | g)", data), np.arange(1, 24)), 2)


class _Stub:
    """A fit with given draws."""

    def __init__(self, model: bl.Model, draws: Draws):
        self.model, self._draws = model, draws

    def draws(self) -> Draws:
        return self._draws


@pytest.mark.parametrize(("family", "response"), [("gaussian", "y"), ("poisson", "count")])
def test_held_out_rows_of_new_groups_are_integrated(family: str, response: str) -> None:
    """Known groups by their drawn effects; new ones as the mean density over many effects drawn from the population."""
    data = _data()
    data["count"] = np.round(np.exp(data["y"] / 3.0))
    model = bl.model(f"{response} ~ x + (x | g) + (1 | half)", data, family=family)
    rng = np.random.default_rng(0)
    rows = np.flatnonzero(data["g"].isin(["g 3", "g 6"]) | (data.index == 12))
    training = model_on(model, np.setdiff1d(np.arange(24), rows), drop_levels=True)
    assert training.design.blocks[0].levels == ("g 0", "g 1", "g 2", "g 4", "g 5")
    covariance = (np.array([[[0.5, 0.1], [0.1, 0.3]]] * 2), np.array([[[0.4]]] * 2))
    effects = (rng.normal(size=(2, 5, 2)), rng.normal(size=(2, 2, 1)))
    aux = {"sigma": np.array([0.7, 0.9])} if family == "gaussian" else {}
    draws = Draws(b=rng.normal(size=(2, 2)) * 0.3, effects=effects, covariance=covariance, aux=aux)
    found = kfolds.held_out(model, _Stub(training, draws), rows, rng)  # type: ignore[arg-type]
    many = rng.multivariate_normal(np.zeros(2), covariance[0][0], size=200_000)
    for s in range(2):
        for position, row in enumerate(rows):
            eta = draws.b[s] @ model.design.X[row] + effects[1][s, model.design.blocks[1].index[row], 0]
            level, z = data["g"][row], model.design.blocks[0].values[row]
            known = {name: j for j, name in enumerate(training.design.blocks[0].levels)}
            eta = eta + (effects[0][s, known[level]] @ z if level in known else many @ z)
            mu = model.link.inverse(np.atleast_1d(eta))
            each = model.family.loglik(np.full(mu.shape, model.design.y[row]), mu, {name: values[s] for name, values in aux.items()}, None)
            expected = logsumexp(each) - np.log(len(each))
            np.testing.assert_allclose(found[s, position], expected, atol=1e-10 if level in known else 0.01)


# -------------------------------------------------------------------------------------------------------------------- comparison


@pytest.mark.sampling
def test_comparison_names_models_and_ranks_them() -> None:
    one, two = _fit(), _fit("y ~ 1 + (1 | g)")
    table = bl.loo_compare(one, two, kind="marginal")
    assert set(table.index) == {"y ~ x + (1 | g)", "y ~ 1 + (1 | g)"}
    assert list(table.columns[:8]) == ["rank", "elpd", "se", "elpd_diff", "dse", "p_worse", "p", "weight"]
    first, second = (bl.loo(fit, kind="marginal") for fit in (one, two))
    np.testing.assert_allclose(table.loc["y ~ x + (1 | g)", "elpd"], first.elpd)
    np.testing.assert_allclose(abs(table["elpd_diff"].iloc[1]), abs(first.elpd - second.elpd), rtol=1e-10)
    np.testing.assert_allclose(table["weight"].sum(), 1.0)
    same = bl.loo_compare(first, first)
    assert list(same.index) == ["y ~ x + (1 | g) [1]", "y ~ x + (1 | g) [2]"]
    assert same["elpd_diff"].tolist() == [0.0, 0.0]


@pytest.mark.sampling
def test_weights_survive_densities_that_no_exponential_holds() -> None:
    one, two = (_quiet(bl.loo, _fit(formula), kind="group") for formula in ("y ~ x + (1 | g)", "y ~ 1 + (1 | g)"))
    expected = bl.loo_compare({"one": one, "two": two})["weight"]
    for result in (one, two):
        result.elpd_i = result.elpd_i - 2000.0
    np.testing.assert_allclose(bl.loo_compare({"one": one, "two": two})["weight"], expected, atol=1e-6)


@pytest.mark.sampling
def test_what_does_not_compare_is_refused_by_name() -> None:
    fit = _fit()
    result = bl.loo(fit, kind="marginal")
    with pytest.raises(FitError, match="two or more"):
        bl.loo_compare(result)
    with pytest.raises(FitError, match=r"loo_compare takes a posterior made by `brm`, not ClassicalFit"):
        bl.loo_compare(result, bl.lmer("y ~ x + (1 | g)", _data()))
    with pytest.raises(FitError, match=r"differ in what was left out .*marginal by row.*group by g"):
        bl.loo_compare(result, _quiet(bl.loo, fit, kind="group"))

    def refit(formula: str, data: pd.DataFrame) -> bl.BayesFit:
        return _quiet(bl.brm, formula, data, seed=1, chains=2, draws=300, progressbar=False)

    fewer = refit("y ~ x + (1 | g)", _data().iloc[:20])
    with pytest.raises(FitError, match=r"differ in the number of values \('y ~ x \+ \(1 \| g\) \[1\]': 24; .*: 20\)"):
        bl.loo_compare(result, _quiet(bl.loo, fewer, kind="marginal"))
    other = refit("I(2 * y) ~ x + (1 | g)", _data())
    with pytest.raises(FitError, match="differ in the response or the weights"):
        bl.loo_compare(result, _quiet(bl.loo, other, kind="marginal"))
    moved = refit("y ~ x + (1 | g)", _data().set_index(np.arange(100, 124)))
    with pytest.raises(FitError, match="differ in the rows"):
        bl.loo_compare(result, _quiet(bl.loo, moved, kind="marginal"))


def test_loo_refuses_in_words() -> None:
    with pytest.raises(FitError, match="loo takes a posterior made by `brm`, not ClassicalFit"):
        bl.loo(bl.lmer("y ~ x + (1 | g)", _data()))  # type: ignore[arg-type]


@pytest.mark.sampling
def test_loo_refuses_unknown_options() -> None:
    with pytest.raises(FitError, match="unknown kind of loo 'margnal'; did you mean 'marginal'"):
        bl.loo(_fit(), kind="margnal")
    with pytest.raises(FitError, match="group='g' is for kind='group'"):
        bl.loo(_fit(), group="g")
