"""Profile likelihood: against the dense criterion maximised under the constraint, at the boundary, and for every structure."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import scipy.optimize
import scipy.stats

from bayeslmm.classical import ClassicalFit, lmer
from bayeslmm.classical.profile import profile, profile_limits
from bayeslmm.datasets import load_dataset
from bayeslmm.errors import FitError

CUTOFF = scipy.stats.norm.ppf(0.975)


def dense_deviance(fit: ClassicalFit, covariances: list[np.ndarray], sigma: float, beta: np.ndarray) -> float:
    """-2 log L of the marginal normal distribution, nothing profiled out."""
    design = fit.model.design
    V = np.diag(sigma**2 / design.weights)
    for block, G in zip(design.blocks, covariances, strict=True):
        same = block.index[:, None] == block.index[None, :]
        V = V + same * (block.values @ G @ block.values.T)
    residual = design.y - design.X @ beta - design.offset
    return float(np.linalg.slogdet(2.0 * np.pi * V)[1] + residual @ np.linalg.solve(V, residual))


@pytest.fixture(scope="module")
def small() -> pd.DataFrame:
    rng = np.random.default_rng(27)
    group = np.repeat(np.arange(8), 5)
    x = np.tile(np.arange(5.0), 8)
    y = 3.0 + 0.5 * x + rng.normal(size=8)[group] * 1.5 + rng.normal(size=8)[group] * 0.7 * x + rng.normal(size=40)
    return pd.DataFrame({"y": y, "x": x, "g": group.astype(str), "w": np.tile([1.0, 2.0], 20)})


@pytest.fixture(scope="module")
def slopes(small: pd.DataFrame) -> ClassicalFit:
    return lmer("y ~ x + (x | g)", small, weights="w", reml=False)


def constrained(fit: ClassicalFit, held: str, value: float) -> float:
    """Minimise the dense deviance of `y ~ x + (x | g)` over log sds, atanh correlation, log sigma and beta, one of them held."""
    names = ["sd_(Intercept)|g", "cor_x.(Intercept)|g", "sd_x|g", "sigma", "(Intercept)", "x"]
    into = [np.log, np.arctanh, np.log, np.log, float, float]
    at = names.index(held)
    G = fit.covariances[0]
    sd = np.sqrt(np.diagonal(G))
    start = [sd[0], G[0, 1] / sd[0] / sd[1], sd[1], fit.sigma, *fit.beta]
    free = np.array([f(v) for f, v in zip(into, start, strict=True)])

    def deviance(v: np.ndarray) -> float:
        full = np.insert(v, at, into[at](value))
        s0, s1, rho, sigma = math.exp(full[0]), math.exp(full[2]), math.tanh(full[1]), math.exp(full[3])
        cov = np.array([[s0 * s0, rho * s0 * s1], [rho * s0 * s1, s1 * s1]])
        return dense_deviance(fit, [cov], sigma, full[4:])

    first = scipy.optimize.minimize(deviance, np.delete(free, at), method="BFGS")
    return scipy.optimize.minimize(deviance, first.x, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-9}).fun


@pytest.mark.parametrize("name", ["sd_(Intercept)|g", "cor_x.(Intercept)|g", "sd_x|g", "sigma", "(Intercept)", "x"])
def test_limits_are_where_the_dense_deviance_rises_by_the_quantile(name: str, slopes: ClassicalFit) -> None:
    limits = profile_limits(slopes, 0.95, name)
    for value in limits.loc[name]:
        assert constrained(slopes, name, value) - slopes.criterion == pytest.approx(CUTOFF**2, abs=1e-4)


def test_table_holds_the_deviance_and_its_signed_root(slopes: ClassicalFit) -> None:
    found = profile(slopes, "sd_x|g")
    points = found.table
    assert (np.diff(points["value"]) > 0).all()
    assert (np.diff(points["zeta"]) > 0).all()
    assert points["zeta"].abs().max() >= math.sqrt(scipy.stats.chi2.ppf(0.99, 6))
    row = points.iloc[3]
    assert row["deviance"] == pytest.approx(slopes.criterion + row["zeta"] ** 2)
    assert constrained(slopes, "sd_x|g", row["value"]) == pytest.approx(row["deviance"], abs=1e-5)


def test_interpolated_limits_are_near_the_exact_ones(slopes: ClassicalFit) -> None:
    found = profile(slopes)
    for level in (0.5, 0.95):
        exact = profile_limits(slopes, level, None)
        assert list(found.intervals(level).index) == list(exact.index)
        width = (exact["upper"] - exact["lower"]).to_numpy()[:, None]
        assert np.all(np.abs(found.intervals(level) - exact) < 2e-3 * width)


def test_coefficient_and_sigma_of_a_linear_model_in_closed_form(small: pd.DataFrame) -> None:
    fit = lmer("y ~ x", small)
    limits = profile_limits(fit, 0.9, None)
    X = np.column_stack([np.ones(40), small["x"]])
    beta, (rss,), *_ = np.linalg.lstsq(X, small["y"], rcond=None)
    cutoff = scipy.stats.chi2.ppf(0.9, 1)
    half = np.sqrt(rss * (math.exp(cutoff / 40) - 1.0) * np.linalg.inv(X.T @ X)[1, 1])
    assert limits.loc["x"].tolist() == pytest.approx([beta[1] - half, beta[1] + half], rel=1e-6)
    for sigma in limits.loc["sigma"]:
        ratio = rss / 40 / sigma**2
        assert 40 * (ratio - 1 - math.log(ratio)) == pytest.approx(cutoff, rel=1e-5)


def test_reml_fit_is_profiled_by_ml_and_says_so(small: pd.DataFrame, slopes: ClassicalFit) -> None:
    reml = profile(lmer("y ~ x + (x | g)", small, weights="w"), "x")
    ml = profile(slopes, "x")
    assert "ML refit" in reml.note
    assert "ML refit" not in ml.note
    assert not reml.fit.reml
    assert reml.intervals().to_numpy() == pytest.approx(ml.intervals().to_numpy(), rel=1e-5)


def test_zero_variance_has_lower_limit_zero() -> None:
    from bayeslmm.classical.lmm import fit_model
    from bayeslmm.model import model

    fit = fit_model(model("Yield ~ 1 + (1 | Batch)", load_dataset("Dyestuff2")), reml=False)
    assert fit.theta[0] == 0.0
    lower, upper = profile_limits(fit, 0.95, "sd_(Intercept)|Batch").iloc[0]
    assert lower == 0.0
    y, batch = fit.model.design.y, fit.model.design.blocks[0].index

    def at(sd: float) -> float:
        def rest(v: np.ndarray) -> float:
            return dense_deviance(fit, [np.array([[sd**2]])], math.exp(v[0]), v[1:])

        return scipy.optimize.minimize(rest, [math.log(y.std()), y.mean()], method="Nelder-Mead", options={"fatol": 1e-10}).fun

    assert len(np.unique(batch)) == 6
    assert at(upper) - at(0.0) == pytest.approx(CUTOFF**2, abs=1e-4)
    assert profile(fit).intervals().loc["sd_(Intercept)|Batch", "lower"] == 0.0


def test_undetermined_correlation_has_all_its_range(small: pd.DataFrame) -> None:
    flat = small.assign(y=small["x"] + np.tile([0.3, -0.3, 0.1, -0.2, 0.1], 8))
    from bayeslmm.classical.lmm import fit_model
    from bayeslmm.model import model

    fit = fit_model(model("y ~ x + (x | g)", flat), reml=False)
    assert profile_limits(fit, 0.95, "cor_x.(Intercept)|g").iloc[0].tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(
    ("term", "same"),
    [
        ("cs(Days | Subject)", {"sd_(Intercept)|Subject": 0, "rho|Subject": 1, "sd_Days|Subject": 2}),
        ("diag(Days | Subject)", None),
    ],
)
def test_structures_profile_on_their_own_parameters(term: str, same: dict[str, int] | None) -> None:
    """Two effects: `cs` is the unstructured model, `diag` that of two separate terms."""
    data = load_dataset("sleepstudy")
    limits = profile_limits(lmer(f"Reaction ~ Days + {term}", data, reml=False), 0.95, None)
    other = "(Days | Subject)" if same else "(1 | Subject) + (0 + Days | Subject)"
    plain = profile_limits(lmer(f"Reaction ~ Days + {other}", data, reml=False), 0.95, None)
    for name in limits.index:
        row = plain.iloc[same[name]] if same and name in same else plain.loc[name]
        assert limits.loc[name].tolist() == pytest.approx(row.tolist(), rel=1e-5)


def test_shared_standard_deviation_and_rho_have_names_of_their_own() -> None:
    fit = lmer("Reaction ~ Days + ar1(0 + factor(Days) | Subject)", load_dataset("sleepstudy"), reml=False)
    limits = profile_limits(fit, 0.95, ["sd|Subject", "rho|Subject"])
    rho = float(fit.theta[1])
    assert limits.loc["rho|Subject", "lower"] < rho < limits.loc["rho|Subject", "upper"] < 1.0
    assert limits.loc["sd|Subject", "lower"] < fit.sigma * fit.theta[0] < limits.loc["sd|Subject", "upper"]


def test_limits_scale_with_the_data(small: pd.DataFrame, slopes: ClassicalFit) -> None:
    big = small.assign(y=1e6 * small["y"], x=1e3 * small["x"])
    limits = profile_limits(lmer("y ~ x + (x | g)", big, weights="w", reml=False), 0.95, None)
    units = np.array([1e6, 1.0, 1e3, 1e6, 1e6, 1e3])[:, None]
    assert limits.to_numpy() / units == pytest.approx(profile_limits(slopes, 0.95, None).to_numpy(), rel=1e-5)


def test_unknown_parameter_is_refused(slopes: ClassicalFit) -> None:
    with pytest.raises(FitError, match=r"no parameter 'sigm'.*sigma"):
        profile(slopes, "sigm")
    with pytest.raises(FitError, match="level must lie between 0 and 1"):
        profile(slopes, "x").intervals(95)


def test_plot_shows_every_parameter(slopes: ClassicalFit) -> None:
    found = profile(slopes)
    picture = found.plot()
    titles = [axes.get_title().replace("\n", "").replace("| ", "|") for axes in picture.axes if axes.get_title()]
    assert titles == list(found.parameters)
    assert "zeta" in picture.alt
    assert len(picture.data) == len(found.table)
