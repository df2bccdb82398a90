"""Laws of every row of FAMILIES and LINKS: density, both faces equal, moments, links and their derivatives, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from bayeslmm.families import FAMILIES, LINKS, Family, Link

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")

links = pytest.mark.parametrize("link", LINKS.values(), ids=lambda link: link.name)
families = pytest.mark.parametrize("family", FAMILIES.values(), ids=lambda family: family.name)

AUX = {"sigma": 1.3, "nu": 7.0}
TRIALS = 6.0
PROBABILITY = {"bernoulli", "binomial"}
INVALID = {
    "gaussian": [np.nan, np.inf],
    "student": [np.nan, -np.inf],
    "bernoulli": [0.5, 2.0, -1.0, np.nan],
    "binomial": [-1.0, 0.5, TRIALS + 1.0, np.nan],
    "poisson": [-1.0, 2.5, np.nan, np.inf],
}


def _means(family: Family) -> np.ndarray:
    return np.array([0.05, 0.3, 0.9]) if family.name in PROBABILITY else np.array([0.2, 1.7, 6.0])


def _trials(family: Family, size: int) -> np.ndarray | None:
    return np.full(size, TRIALS) if family.needs_trials else None


def _aux(family: Family) -> dict[str, np.ndarray]:
    return {parameter.name: np.array(AUX[parameter.name]) for parameter in family.parameters}


@families
def test_density_sums_or_integrates_to_one(family: Family) -> None:
    if family.discrete:
        y = np.arange(0.0, 2.0 if family.name == "bernoulli" else TRIALS + 1.0 if family.needs_trials else 200.0)
        width = 1.0
    else:
        y, width = np.linspace(-3000.0, 3000.0, 1_200_001, retstep=True)
    for mu in _means(family):
        total = np.exp(family.loglik(y, np.full(len(y), mu), _aux(family), _trials(family, len(y)))).sum() * width
        assert total == pytest.approx(1.0, abs=1e-6)


@families
def test_both_faces_have_the_same_log_density(family: Family) -> None:
    import pymc as pm

    mu = _means(family)
    rng = np.random.default_rng(1)
    trials = _trials(family, len(mu))
    y = family.simulate(rng, mu, _aux(family), trials)
    with pm.Model() as model:
        observed = y.astype(int) if family.discrete else y
        n = None if trials is None else trials.astype(int)
        family.pymc("y", mu, _aux(family), n, observed, None, None)
    (logp,) = model.compile_fn(model.logp(sum=False), mode="FAST_COMPILE")({})
    np.testing.assert_allclose(logp, family.loglik(y, mu, _aux(family), trials), rtol=1e-10)


@families
def test_weights_are_powers_of_the_likelihood(family: Family) -> None:
    import pymc as pm

    mu, weights = _means(family), np.array([0.5, 1.0, 3.0])
    trials = _trials(family, len(mu))
    y = family.simulate(np.random.default_rng(2), mu, _aux(family), trials)
    with pm.Model() as model:
        observed = y.astype(int) if family.discrete else y
        n = None if trials is None else trials.astype(int)
        family.pymc("y", mu, _aux(family), n, observed, weights, None)
    expected = np.sum(weights * family.loglik(y, mu, _aux(family), trials))
    assert model.compile_logp(mode="FAST_COMPILE")({}) == pytest.approx(expected)


@families
def test_simulated_moments(family: Family) -> None:
    size = 200_000
    for mu in _means(family):
        trials = _trials(family, size)
        full = np.full(size, mu)
        draws = family.simulate(np.random.default_rng(3), full, _aux(family), trials)
        variance = family.variance(full, _aux(family), trials)[0]
        mean = mu * (TRIALS if family.needs_trials else 1.0)
        assert abs(draws.mean() - mean) < 5 * np.sqrt(variance / size)
        assert draws.var() == pytest.approx(variance, rel=0.05)
        assert not np.any(family.check(draws, trials))


@families
def test_invalid_responses_are_refused(family: Family) -> None:
    bad = np.array(INVALID[family.name])
    assert np.all(family.check(bad, _trials(family, len(bad))))


@families
def test_default_link_is_allowed_and_known(family: Family) -> None:
    assert family.link in family.links
    assert set(family.links) <= set(LINKS)
    assert {parameter.link for parameter in family.parameters} <= set(LINKS)


@links
def test_link_and_inverse(link: Link) -> None:
    eta = np.linspace(0.1, 2.5, 13) if link.name in ("inverse", "sqrt") else np.linspace(-2.5, 1.2, 13)
    np.testing.assert_allclose(link.link(link.inverse(eta)), eta, rtol=1e-9, atol=1e-12)


@links
def test_derivative_of_the_inverse(link: Link) -> None:
    eta = np.linspace(0.1, 2.5, 13) if link.name in ("inverse", "sqrt") else np.linspace(-2.5, 1.2, 13)
    h = 1e-6
    differences = (link.inverse(eta + h) - link.inverse(eta - h)) / (2 * h)
    np.testing.assert_allclose(link.mu_eta(eta), differences, rtol=1e-6)


@links
def test_inverse_on_tensors(link: Link) -> None:
    import pytensor.tensor as pt

    eta = np.linspace(0.1, 2.5, 13) if link.name in ("inverse", "sqrt") else np.linspace(-2.5, 1.2, 13)
    tensor = link.pymc_inverse(pt.constant(eta)).eval(mode="FAST_COMPILE") if link.name != "identity" else link.pymc_inverse(eta)
    np.testing.assert_allclose(tensor, link.inverse(eta), rtol=1e-12)


@links
def test_extreme_predictors_stay_finite(link: Link) -> None:
    if link.name in ("inverse", "sqrt", "identity"):
        pytest.skip("no limit to keep away from")
    eta = np.array([-700.0, 700.0])
    assert np.all(np.isfinite(link.inverse(eta)))
    assert np.all(link.mu_eta(eta) > 0)
    if link.name in ("logit", "probit", "cloglog", "cauchit"):
        assert np.all((link.inverse(eta) > 0) & (link.inverse(eta) < 1))
