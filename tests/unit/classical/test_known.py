"""Fits with a known covariance among levels: dense brute force, an identity matrix that changes nothing, and every verb on such a fit."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.linalg import block_diag
from scipy.optimize import minimize_scalar

import bayeslmm as bl
from bayeslmm.classical.influence import influence
from bayeslmm.classical.joint import leverage
from bayeslmm.design import Encoder
from bayeslmm.errors import BayesLmmWarning, DataError, FitError

type Array = np.ndarray

SLOPES = "y ~ x + (x | gr(animal, cov = A)) + (1 | herd)"
TERMS = ("(1 | gr(animal, cov = A))", "(x | gr(animal, cov = A)) + (1 | herd)", "(x || gr(animal, cov = A)) + (x | herd)")


def relationship(J: int, founders: int, rng: np.random.Generator) -> pd.DataFrame:
    A = np.eye(J)
    for i in range(founders, J):
        sire, dam = rng.choice(i, 2, replace=False)
        A[i, :i] = A[:i, i] = 0.5 * (A[sire, :i] + A[dam, :i])
        A[i, i] = 1.0 + 0.5 * A[sire, dam]
    names = [f"an{i:02d}" for i in range(J)]
    return pd.DataFrame(A, names, names)


@pytest.fixture(scope="module")
def A() -> pd.DataFrame:
    return relationship(32, 6, np.random.default_rng(7))


@pytest.fixture(scope="module")
def animals(A: pd.DataFrame) -> pd.DataFrame:
    """Records of all animals but the first six and the last."""
    rng = np.random.default_rng(11)
    at = rng.permutation(np.repeat(np.arange(6, 31), 5))
    n = len(at)
    x, herd = rng.normal(size=n), rng.integers(0, 6, n)
    b = np.linalg.cholesky(A.to_numpy()) @ rng.normal(size=(32, 2)) @ np.array([[1.1, 0.3], [0.0, 0.7]])
    y = 2.0 + 0.5 * x + b[at, 0] + x * b[at, 1] + rng.normal(size=6)[herd] + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "animal": A.index[at], "herd": [f"h{h}" for h in herd], "w": rng.uniform(0.5, 2.0, n)})


@pytest.fixture(scope="module")
def slopes(animals: pd.DataFrame, A: pd.DataFrame) -> bl.ClassicalFit:
    return bl.lmer(SLOPES, animals, data2={"A": A})


class Dense:
    """The model of a fit by whole matrices: Z of every block over `levels`, its effects' covariance G, V, and generalised least squares."""

    def __init__(
        self, fit: bl.ClassicalFit, A: pd.DataFrame, more: tuple[str, ...] = (), covariances: Any = None, sigma: float | None = None
    ):
        self.design = fit.model.design
        self.sigma = fit.sigma if sigma is None else sigma
        self.levels = [(*block.levels, *(more if block.term.cov else ())) for block in self.design.blocks]
        self.Z = self.columns(self.design.blocks)
        covariances = fit.covariances if covariances is None else covariances
        self.G = block_diag(
            *(
                np.kron(A.loc[list(levels), list(levels)].to_numpy() if block.term.cov else np.eye(len(levels)), covariance)
                for block, levels, covariance in zip(self.design.blocks, self.levels, covariances, strict=True)
            )
        )
        self.refactor(np.diag(self.sigma**2 / self.design.weights))

    def refactor(self, R: Array) -> None:
        """Take R as the covariance of the residuals."""
        V = self.Z @ self.G @ self.Z.T + R
        self.inverse, self.logdet = np.linalg.inv(V), np.linalg.slogdet(V)[1]
        X = self.design.X
        self.information = X.T @ self.inverse @ X
        self.beta = np.linalg.solve(self.information, X.T @ self.inverse @ self.design.y)
        self.residual = self.design.y - X @ self.beta

    def columns(self, blocks: Any) -> Array:
        parts = []
        for block, levels in zip(blocks, self.levels, strict=True):
            Z = np.zeros((len(block.index), len(levels), block.n_effects))
            for i, level in enumerate(block.index):
                Z[i, levels.index(block.levels[level])] = block.values[i]
            parts.append(Z.reshape(len(Z), -1))
        return np.hstack(parts)

    def criterion(self, reml: bool) -> float:
        n, p = self.design.X.shape
        value = self.logdet + self.residual @ self.inverse @ self.residual + (n - p * reml) * np.log(2.0 * np.pi)
        return float(value + reml * np.linalg.slogdet(self.information)[1])

    def prediction(self, X: Array, Z: Array) -> tuple[Array, Array]:
        """Mean and variance of the error of X beta + Z b."""
        across = Z @ self.G @ self.Z.T @ self.inverse
        a = X - across @ self.design.X
        left = Z @ self.G @ Z.T - across @ self.Z @ self.G @ Z.T
        return X @ self.beta + across @ self.residual, np.diagonal(left + a @ np.linalg.inv(self.information) @ a.T)


@pytest.mark.parametrize("reml", [True, False])
@pytest.mark.parametrize("weights", [None, "w"])
@pytest.mark.parametrize("terms", TERMS)
def test_a_fit_is_that_of_dense_matrices(animals: pd.DataFrame, A: pd.DataFrame, terms: str, weights: str | None, reml: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        fit = bl.lmer(f"y ~ x + {terms}", animals, data2={"A": A}, reml=reml, weights=weights)
    dense = Dense(fit, A)
    assert fit.criterion == pytest.approx(dense.criterion(reml), rel=1e-9)
    np.testing.assert_allclose(fit.beta, dense.beta, rtol=1e-8)
    np.testing.assert_allclose(fit.vcov(), np.linalg.inv(dense.information), rtol=1e-8)
    b = dense.G @ dense.Z.T @ dense.inverse @ dense.residual
    np.testing.assert_allclose(np.concatenate([effects.ravel() for effects in fit.effects]), b, atol=1e-9)


def test_the_optimum_is_that_of_the_dense_criterion(animals: pd.DataFrame, A: pd.DataFrame) -> None:
    fit = bl.lmer("y ~ x + (1 | gr(animal, cov = A))", animals, data2={"A": A})

    def profiled(theta: float) -> float:
        """The REML criterion at theta, sigma at its best: with V = sigma^2 M it is (n - p) log sigma^2 + rss / sigma^2 + the rest."""
        dense = Dense(fit, A, covariances=[np.array([[theta**2]])], sigma=1.0)
        df = dense.design.n - dense.design.p
        rss = dense.residual @ dense.inverse @ dense.residual
        return float(dense.logdet + np.linalg.slogdet(dense.information)[1] + df * (1.0 + np.log(2.0 * np.pi * rss / df)))

    best = minimize_scalar(profiled, bounds=(0.05, 5.0), method="bounded", options={"xatol": 1e-10})
    assert fit.criterion == pytest.approx(best.fun, rel=1e-9)
    assert fit.theta[0] == pytest.approx(best.x, abs=1e-5)


def test_conditional_variances_are_those_of_dense_matrices(slopes: bl.ClassicalFit, A: pd.DataFrame) -> None:
    dense = Dense(slopes, A)
    left = dense.G - dense.G @ dense.Z.T @ dense.inverse @ dense.Z @ dense.G
    start = 0
    for block in slopes.model.design.blocks:
        k = block.n_effects
        for j, ours in enumerate(slopes.condvar[block.group]):
            own = slice(start + j * k, start + (j + 1) * k)
            np.testing.assert_allclose(ours, left[own, own], atol=1e-10)
        start += block.n_levels * k
    modes, sds = slopes.ranef(condsd=True)["animal"]
    assert modes.shape == sds.shape == (25, 2)
    assert list(modes.columns) == ["(Intercept)", "x"]


def test_what_shows_is_by_level_and_effect(slopes: bl.ClassicalFit) -> None:
    assert slopes.model.dims.n_theta == 4
    assert slopes.model.dims.q == 25 * 2 + 6
    assert slopes.ngroups == {"animal": 25, "herd": 6}
    assert slopes.varcorr()["group"].tolist() == ["animal", "animal", "animal", "herd", "Residual"]
    assert slopes.coef()["animal"].shape == (25, 2)
    assert not slopes.is_singular
    assert "animal, 25; herd, 6" in str(slopes.summary())
    assert r"\mathbf{A} \otimes \boldsymbol{\Sigma}_{\mathrm{animal}}" in slopes.model.explain().latex
    assert "covariance among levels: A, known; 7 of its levels have no data" in slopes.model.explain()


@pytest.mark.parametrize("terms", ["(1 | {})", "(x | {}) + (1 | herd)"])
def test_an_identity_matrix_changes_nothing(animals: pd.DataFrame, A: pd.DataFrame, terms: str) -> None:
    identity = pd.DataFrame(np.eye(len(A)), A.index, A.columns)
    plain = bl.lmer(f"y ~ x + {terms.format('animal')}", animals)
    known = bl.lmer(f"y ~ x + {terms.format('gr(animal, cov = A)')}", animals, data2={"A": identity})
    np.testing.assert_allclose(known.theta, plain.theta, atol=1e-7)
    for method in ("satterthwaite", "kenward-roger"):
        pd.testing.assert_frame_equal(known.coefficients(method), plain.coefficients(method), rtol=1e-5)
    for target in ("conditional", "new_group", "population", "average_group"):
        ours, theirs = (fit.predict(target=target, interval="prediction") for fit in (known, plain))
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-5)
    np.testing.assert_allclose(leverage(known), leverage(plain), rtol=1e-6)
    pd.testing.assert_frame_equal(bl.icc(known), bl.icc(plain), rtol=1e-6)
    pd.testing.assert_frame_equal(bl.r2(known), bl.r2(plain), rtol=1e-6)
    ours, theirs = (bl.confint(fit, method="profile", parameters=["sd_(Intercept)|animal", "x"]) for fit in (known, plain))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4)
    ours, theirs = (bl.bootstrap(fit, n=4, seed=3).replicates for fit in (known, plain))
    pd.testing.assert_frame_equal(ours, theirs, rtol=1e-4)
    np.testing.assert_array_equal(bl.ranova(known)["n_parameters"], bl.ranova(plain)["n_parameters"])
    np.testing.assert_allclose(bl.ranova(known)["loglik"], bl.ranova(plain)["loglik"], rtol=1e-9)


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_matrix_is_not_rescaled(animals: pd.DataFrame, A: pd.DataFrame, slopes: bl.ClassicalFit, scale: float) -> None:
    fit = bl.lmer(SLOPES, animals, data2={"A": scale * A})
    assert fit.criterion == pytest.approx(slopes.criterion, rel=1e-10)
    sds, before = (one.varcorr().set_index(["group", "term1"])["sdcor"] for one in (fit, slopes))
    assert sds["animal", "x"] * np.sqrt(scale) == pytest.approx(before["animal", "x"], rel=1e-5)
    assert sds["herd", "(Intercept)"] == pytest.approx(before["herd", "(Intercept)"], rel=1e-5)
    np.testing.assert_allclose(fit.ranef()["animal"], slopes.ranef()["animal"], atol=1e-5)
    np.testing.assert_allclose(bl.icc(fit)["estimate"], bl.icc(slopes)["estimate"], rtol=1e-5)


def test_predictions_and_their_errors_are_those_of_dense_matrices(slopes: bl.ClassicalFit, A: pd.DataFrame) -> None:
    """The founder an03 and the last animal have no records: they are predicted from their relatives."""
    new = pd.DataFrame({"x": [0.3, 1.0, -0.5, 2.0], "animal": ["an03", "an30", "an10", "an31"], "herd": ["h1", "h2", "h1", "h0"]})
    dense = Dense(slopes, A, more=("an03", "an31"))
    rows = slopes.model.design.encoder.encode_new(new)
    mean, variance = dense.prediction(rows.X, dense.columns(rows.blocks))
    found = slopes.predict(new, interval="prediction")
    np.testing.assert_allclose(found["estimate"], mean, rtol=1e-9)
    np.testing.assert_allclose(found["se"], np.sqrt(variance), rtol=1e-8)
    assert (found["upper"] - found["estimate"] > 1.9 * np.sqrt(variance + slopes.sigma**2)).all()


def test_a_level_that_the_matrix_does_not_have_is_new(slopes: bl.ClassicalFit) -> None:
    new = {"x": [0.0], "animal": ["stray"], "herd": ["h1"]}
    with pytest.raises(DataError, match="new levels of 'animal': stray"):
        slopes.predict(new)
    with pytest.raises(DataError, match=r"matrix 'A' has no row for the new level 'stray' of 'animal'"):
        slopes.predict(new, new_levels="sample")
    average = slopes.predict(new, new_levels="average")["estimate"].iloc[0]
    assert average == pytest.approx(slopes.fixef()["(Intercept)"] + slopes.ranef()["herd"].loc["h1"].iloc[0])


def test_a_new_group_has_the_mean_variance_of_the_matrix(slopes: bl.ClassicalFit, A: pd.DataFrame) -> None:
    rows = slopes.model.design.encoder.encode_new({"x": [1.0], "animal": ["an10"], "herd": ["h1"]}, random=False)
    inside, _ = slopes.prediction_variance(rows, "new_group")
    fixed, _ = slopes.prediction_variance(rows, "average_group")
    levels = list(slopes.ranef()["animal"].index)
    mean = np.mean(np.diagonal(A.loc[levels, levels]))
    animal, herd = (slopes.covariances[i] for i in range(2))
    assert inside[0] - fixed[0] == pytest.approx(mean * animal.sum() + herd[0, 0])


def test_simulated_responses_have_the_covariance_of_the_model(slopes: bl.ClassicalFit, A: pd.DataFrame) -> None:
    """2000 simulations: variances of 40 random contrasts within five standard errors (a relative error of 0.032 each)."""
    draws = slopes.simulate(2000, seed=5).to_numpy()
    dense = Dense(slopes, A)
    contrasts = np.random.default_rng(0).normal(size=(40, len(draws)))
    wanted = np.einsum("ci,ij,cj->c", contrasts, np.linalg.inv(dense.inverse), contrasts)
    found = np.var(contrasts @ draws, axis=1, ddof=1)
    np.testing.assert_allclose(found / wanted, 1.0, atol=5.0 * np.sqrt(2.0 / 2000))
    relatives = contrasts * np.isin(slopes.model.frame["animal"], ["an10", "an20", "an30"])
    wanted = np.einsum("ci,ij,cj->c", relatives, np.linalg.inv(dense.inverse), relatives)
    np.testing.assert_allclose(np.var(relatives @ draws, axis=1, ddof=1) / wanted, 1.0, atol=5.0 * np.sqrt(2.0 / 2000))


def test_simulation_given_the_effects_draws_relatives_around_their_prediction(slopes: bl.ClassicalFit, A: pd.DataFrame) -> None:
    new = pd.DataFrame({"x": [1.0], "animal": ["an31"], "herd": ["h1"]})
    draws = slopes.simulate(4000, conditional=True, newdata=new, seed=2).to_numpy()[0]
    levels = list(slopes.ranef()["animal"].index)
    K = A.loc[levels, levels].to_numpy()
    across = A.loc["an31", levels].to_numpy()
    left = A.loc["an31", "an31"] - across @ np.linalg.solve(K, across)
    variance = left * slopes.covariances[0].sum() + slopes.sigma**2
    assert np.mean(draws) == pytest.approx(slopes.predict(new)["estimate"].iloc[0], abs=5.0 * np.sqrt(variance / 4000))
    assert np.var(draws) == pytest.approx(variance, rel=5.0 * np.sqrt(2.0 / 4000))


def test_satterthwaite_is_that_of_differences_of_the_dense_criterion(animals: pd.DataFrame, A: pd.DataFrame) -> None:
    fit = bl.lmer("y ~ x + (1 | gr(animal, cov = A))", animals, data2={"A": A})
    at, step = np.array([fit.theta[0], fit.sigma]), 1e-3

    def dense(parameters: Array) -> Dense:
        theta, sigma = parameters
        return Dense(fit, A, covariances=[np.array([[(theta * sigma) ** 2]])], sigma=sigma)

    units = step * np.eye(2)
    hessian = np.array(
        [
            [sum(a * b * dense(at + a * i + b * j).criterion(True) for a in (1, -1) for b in (1, -1)) / (4 * step**2) for j in units]
            for i in units
        ]
    )
    spread = 2.0 * np.linalg.inv(hessian)
    slopes = [(np.linalg.inv(dense(at + i).information) - np.linalg.inv(dense(at - i).information)).diagonal() / (2 * step) for i in units]
    v, g = np.diagonal(np.linalg.inv(dense(at).information)), np.array(slopes)
    np.testing.assert_allclose(fit.coefficients("satterthwaite")["df"], 2.0 * v**2 / np.einsum("ij,ik,kj->j", g, spread, g), rtol=1e-4)


def test_leverages_are_the_diagonal_of_the_dense_hat_matrix(slopes: bl.ClassicalFit, A: pd.DataFrame) -> None:
    dense = Dense(slopes, A)
    X = dense.design.X
    projection = dense.inverse - dense.inverse @ X @ np.linalg.solve(dense.information, X.T @ dense.inverse)
    np.testing.assert_allclose(leverage(slopes), 1.0 - slopes.sigma**2 * np.diagonal(projection), rtol=1e-8)


def test_shares_of_variance_are_means_over_rows(slopes: bl.ClassicalFit, A: pd.DataFrame) -> None:
    dense = Dense(slopes, A)
    random = np.mean(np.diagonal(dense.Z @ dense.G @ dense.Z.T))
    assert bl.icc(slopes).loc["adjusted", "estimate"] == pytest.approx(random / (random + slopes.sigma**2))


def test_a_dropped_term_is_a_fit_without_it(slopes: bl.ClassicalFit, animals: pd.DataFrame, A: pd.DataFrame) -> None:
    table = bl.ranova(slopes)
    without = bl.lmer("y ~ x + (x | gr(animal, cov = A))", animals, data2={"A": A})
    intercept = bl.lmer("y ~ x + (1 | gr(animal, cov = A)) + (1 | herd)", animals, data2={"A": A})
    assert table.loc["(1 | herd)", "loglik"] == pytest.approx(without.loglik, rel=1e-9)
    assert table.loc["x in (x | gr(animal, cov = A))", "loglik"] == pytest.approx(intercept.loglik, rel=1e-9)


def test_refits_and_resamples(animals: pd.DataFrame, A: pd.DataFrame) -> None:
    fit = bl.lmer("y ~ x + (1 | gr(animal, cov = A)) + (1 | herd)", animals, data2={"A": A})
    again = bl.refit(fit, animals["y"].to_numpy() * 2.0)
    assert again.sigma == pytest.approx(2.0 * fit.sigma, rel=1e-5)
    for kind in ("parametric", "semiparametric", "case"):
        assert bl.bootstrap(fit, n=3, kind=kind, seed=1).counts["failed"] == 0
    assert bl.bootstrap(fit, n=2, kind="cluster", group="herd", seed=1).counts["failed"] == 0
    with pytest.raises(FitError, match="copies of a level of 'animal' have no place in the matrix 'A'"):
        bl.bootstrap(fit, n=2, kind="cluster", group="animal", seed=1)


def test_a_level_left_out_is_a_fit_without_its_rows(animals: pd.DataFrame, A: pd.DataFrame) -> None:
    fit = bl.lmer("y ~ x + (1 | gr(animal, cov = A))", animals, data2={"A": A})
    without = bl.lmer("y ~ x + (1 | gr(animal, cov = A))", animals[animals["animal"] != "an12"], data2={"A": A})
    assert influence(fit, "animal").loc["an12", "sigma"] == pytest.approx(without.sigma, rel=1e-5)


def test_one_record_for_each_animal_can_be_fitted(A: pd.DataFrame) -> None:
    rng = np.random.default_rng(3)
    big = relationship(150, 20, rng)
    y = np.linalg.cholesky(big.to_numpy()) @ rng.normal(size=150) * 1.5 + rng.normal(size=150)
    data = pd.DataFrame({"y": y, "animal": big.index})
    fit = bl.lmer("y ~ 1 + (1 | gr(animal, cov = A))", data, data2={"A": big})
    assert fit.criterion == pytest.approx(Dense(fit, big).criterion(True), rel=1e-9)
    identity = pd.DataFrame(np.eye(150), big.index, big.columns)
    with pytest.raises(DataError, match="150 levels in 150 rows"):
        bl.lmer("y ~ 1 + (1 | gr(animal, cov = A))", data, data2={"A": identity})


@pytest.mark.parametrize("residual", ["ar", "sigma"])
def test_a_residual_structure_stands_beside_it(animals: pd.DataFrame, A: pd.DataFrame, residual: str) -> None:
    """The criterion is the dense one at the estimate, and the dense one is lower nowhere near."""
    data = animals.assign(time=animals.groupby("animal").cumcount())
    text = "y ~ x + (1 | gr(animal, cov = A))"
    fit = bl.lmer(f"{text} + ar(time, animal)" if residual == "ar" else bl.formula(text, sigma="~ x"), data, data2={"A": A})
    level = data["animal"].to_numpy()
    apart = np.abs(np.subtract.outer(data["time"].to_numpy(), data["time"].to_numpy()))
    (part,) = fit.further.values()
    slope = float(part.natural()[0] if residual == "ar" else part.beta[-1])

    def criterion(parameter: float, sd: float) -> float:
        dense = Dense(fit, A, covariances=[np.array([[sd**2]])])
        if residual == "ar":
            R = fit.sigma**2 * np.where(level[:, None] == level, parameter**apart, 0.0)
        else:
            R = np.diag(np.exp(2.0 * (float(part.beta[0]) + parameter * data["x"].to_numpy())))
        dense.refactor(R)
        return dense.criterion(True)

    sd = float(np.sqrt(fit.covariances[0][0, 0]))
    assert fit.converged
    assert fit.criterion == pytest.approx(criterion(slope, sd), rel=1e-9)
    assert all(criterion(slope + a, sd + b) > fit.criterion for a, b in [(0.01, 0.0), (-0.01, 0.0), (0.0, 0.01), (0.0, -0.01)])


def test_an_encoder_keeps_the_matrix(slopes: bl.ClassicalFit) -> None:
    encoder = slopes.model.design.encoder
    again = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    ours, theirs = (one.encode_new({"x": [0.0], "animal": ["an31"], "herd": ["h1"]}).blocks[0].known for one in (encoder, again))
    assert ours is not None
    assert theirs is not None
    np.testing.assert_array_equal(theirs.root, ours.root)
    assert theirs.levels[-1] == "an31"
