"""Laws of every row of FAMILIES and LINKS: density, both faces equal, moments, links and their derivatives, refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import scipy.integrate

from bayeslmm.families import FAMILIES, LINKS, Family, Link, derivatives, latent
from bayeslmm.families.derivatives import by_jets

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")

links = pytest.mark.parametrize("link", LINKS.values(), ids=lambda link: link.name)
LEVELS = 4
ROWS = [
    family if family.of_levels is None else family.of_levels(LEVELS, LINKS["probit" if family.name == "cumulative" else "logit"])
    for family in FAMILIES.values()
]
"""Every family; those of ordered levels for four of them."""
families = pytest.mark.parametrize("family", ROWS, ids=lambda family: family.name)

AUX = {
    "sigma": 1.3,
    "nu": 7.0,
    "shape": 2.3,
    "phi": 3.7,
    "zi": 0.3,
    "hu": 0.45,
    "Intercept[1]": -0.8,
    "Intercept[2]": 0.2,
    "Intercept[3]": 1.1,
}
TRIALS = 6.0
REAL, ABOVE_ZERO, INSIDE = (-np.inf, np.inf), (0.0, np.inf), (0.0, 1.0)
SUPPORT = {
    "gaussian": REAL,
    "student": REAL,
    "lognormal": ABOVE_ZERO,
    "gamma": ABOVE_ZERO,
    "inverse_gaussian": ABOVE_ZERO,
    "beta": INSIDE,
}
"""Of the families whose response is no count; counts start at 0."""
BAD_COUNTS = [-1.0, 2.5, np.nan, np.inf]
BAD_SUCCESSES = [-1.0, 0.5, TRIALS + 1.0, np.nan]
BAD_POSITIVE = [0.0, -1.0, np.nan, np.inf]
INVALID = {
    "gaussian": [np.nan, np.inf],
    "student": [np.nan, -np.inf],
    "lognormal": BAD_POSITIVE,
    "gamma": BAD_POSITIVE,
    "inverse_gaussian": BAD_POSITIVE,
    "beta": [0.0, 1.0, -0.1, 1.1, np.nan],
    "bernoulli": [0.5, 2.0, -1.0, np.nan],
    "binomial": BAD_SUCCESSES,
    "beta_binomial": BAD_SUCCESSES,
    "zero_inflated_binomial": BAD_SUCCESSES,
    "truncated_poisson": [0.0, *BAD_COUNTS],
    "truncated_negative_binomial": [0.0, *BAD_COUNTS],
}


def _means(family: Family) -> np.ndarray:
    if family.of_levels is not None:
        return np.array([-0.6, 0.3, 2.0])
    if "logit" in family.links:
        return np.array([0.05, 0.3, 0.9])
    return np.array([-0.6, 0.1, 0.8]) if family.log_scale else np.array([0.2, 1.7, 6.0])


def _trials(family: Family, size: int) -> np.ndarray | None:
    return np.full(size, TRIALS) if family.needs_trials else None


def _aux(family: Family) -> dict[str, np.ndarray]:
    return {parameter.name: np.array(AUX[parameter.name]) for parameter in family.parameters}


@families
def test_density_sums_or_integrates_to_one(family: Family) -> None:
    for mu in _means(family):
        assert _total(family, mu) == pytest.approx(1.0, abs=1e-6)


def _total(family: Family, mu: float) -> float:
    """The sum of the density over the response's values, or its integral."""
    if not family.discrete:
        integrand = lambda y: np.exp(family.loglik(np.array([y]), np.array([mu]), _aux(family), None))[0]  # noqa: E731
        lower, upper = SUPPORT[family.name]
        middle = 0.5 if upper == 1.0 else 2.0
        return float(sum(scipy.integrate.quad(integrand, *ends, limit=400)[0] for ends in ((lower, middle), (middle, upper))))
    y = np.arange(0.0, 2.0 if family.name == "bernoulli" else TRIALS + 1.0 if family.needs_trials else 400.0)
    y = y[~family.check(y, _trials(family, len(y)))]
    return float(np.exp(family.loglik(y, np.full(len(y), mu), _aux(family), _trials(family, len(y)))).sum())


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
        kept = mu if family.response_mean is None else family.response_mean(full, _aux(family))[0]
        mean = kept * (TRIALS if family.needs_trials else 1.0)
        assert abs(draws.mean() - mean) < 5 * np.sqrt(variance / size)
        fourth = np.mean((draws - draws.mean()) ** 4)
        assert abs(draws.var() - variance) < max(0.05 * variance, 5 * np.sqrt((fourth - variance**2) / size))
        assert not np.any(family.check(draws, trials))


@families
def test_invalid_responses_are_refused(family: Family) -> None:
    bad = np.array(INVALID.get(family.name, BAD_COUNTS))
    assert np.all(family.check(bad, _trials(family, len(bad))))


@families
def test_default_link_is_allowed_and_known(family: Family) -> None:
    assert family.link in family.links
    assert set(family.links) <= set(LINKS)
    assert {parameter.link for parameter in family.parameters} <= set(LINKS)


def _predictors(link: Link) -> np.ndarray:
    return np.linspace(0.1, 2.5, 13) if link.name in ("inverse", "sqrt", "1/mu^2") else np.linspace(-2.5, 1.2, 13)


@links
def test_link_and_inverse(link: Link) -> None:
    eta = _predictors(link)
    np.testing.assert_allclose(link.link(link.inverse(eta)), eta, rtol=1e-9, atol=1e-12)


@links
def test_derivative_of_the_inverse(link: Link) -> None:
    eta = _predictors(link)
    h = 1e-6
    differences = (link.inverse(eta + h) - link.inverse(eta - h)) / (2 * h)
    np.testing.assert_allclose(link.mu_eta(eta), differences, rtol=1e-6)


@links
def test_inverse_on_tensors(link: Link) -> None:
    import pytensor.tensor as pt

    eta = _predictors(link)
    tensor = link.pymc_inverse(pt.constant(eta)).eval(mode="FAST_COMPILE") if link.name != "identity" else link.pymc_inverse(eta)
    np.testing.assert_allclose(tensor, link.inverse(eta), rtol=1e-12)


@links
def test_extreme_predictors_stay_finite(link: Link) -> None:
    if link.name in ("inverse", "sqrt", "identity", "1/mu^2"):
        pytest.skip("no limit to keep away from")
    eta = np.array([-700.0, 700.0])
    assert np.all(np.isfinite(link.inverse(eta)))
    assert np.all(link.mu_eta(eta) > 0)
    if link.name in ("logit", "probit", "cloglog", "cauchit"):
        assert np.all((link.inverse(eta) > 0) & (link.inverse(eta) < 1))


# --- Derivatives --------------------------------------------------------------------------------------------------------------


def _rows(family: Family, link: Link, n: int = 6) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Responses, linear predictors (K, n) and trials that the family and link can have."""
    rng = np.random.default_rng(5)
    low, high = (0.3, 2.0) if link.name in ("inverse", "1/mu^2", "sqrt", "softplus", "identity") else (-1.5, 1.2)
    if "logit" in family.links and link.name in ("log", "identity"):
        low, high = (-2.0, -0.3) if link.name == "log" else (0.1, 0.9)
    further = [rng.uniform(-1.0, 1.0, n) for _ in family.parameters]
    if family.of_levels is not None:
        further = [0.4 * values + k for k, values in enumerate(further)]
    etas = np.array([rng.uniform(low, high, n), *further])
    aux = {
        p.name: LINKS[p.link].inverse(eta) + (1.0 if p.lower == 1.0 else 0.0) for p, eta in zip(family.parameters, etas[1:], strict=True)
    }
    trials = _trials(family, n)
    return family.simulate(rng, link.inverse(etas[0]), aux, trials), etas, trials


def _pairs() -> list[tuple[Family, Link]]:
    ordered = [
        (family.of_levels(LEVELS, LINKS[name]), latent(LINKS[name]))
        for family in FAMILIES.values()
        if family.of_levels
        for name in family.links
    ]
    return [(family, LINKS[name]) for family in FAMILIES.values() if family.of_levels is None for name in family.links] + ordered


pairs = pytest.mark.parametrize(("family", "link"), _pairs(), ids=lambda row: row.name)


@pairs
def test_each_order_of_derivatives_is_the_differences_of_the_one_below(family: Family, link: Link) -> None:
    every = (link, *(LINKS[parameter.link] for parameter in family.parameters))
    y, etas, trials = _rows(family, link)
    h = 1e-5
    exact = derivatives(family, every, y, etas, trials)
    for k in range(len(etas)):
        step = np.zeros_like(etas)
        step[k] = h
        up, down = (derivatives(family, every, y, etas + sign * step, trials) for sign in (1.0, -1.0))
        for below, above in (("value", exact.d1[k]), ("d1", exact.d2[k]), ("d2", exact.d3[k])):
            differences = (getattr(up, below) - getattr(down, below)) / (2 * h)
            np.testing.assert_allclose(above, differences, rtol=1e-5, atol=1e-6 * max(1.0, float(np.abs(differences).max())))


@pairs
def test_the_value_is_the_log_likelihood(family: Family, link: Link) -> None:
    every = (link, *(LINKS[parameter.link] for parameter in family.parameters))
    y, etas, trials = _rows(family, link)
    aux = {parameter.name: each.inverse(eta) for parameter, each, eta in zip(family.parameters, every[1:], etas[1:], strict=True)}
    expected = family.loglik(y, link.inverse(etas[0]), aux, trials)
    np.testing.assert_allclose(derivatives(family, every, y, etas, trials, 0).value, expected, rtol=1e-10, atol=1e-12)


@pairs
def test_lower_orders_are_the_same_numbers(family: Family, link: Link) -> None:
    every = (link, *(LINKS[parameter.link] for parameter in family.parameters))
    y, etas, trials = _rows(family, link)
    full = derivatives(family, every, y, etas, trials)
    for order in range(4):
        some = derivatives(family, every, y, etas, trials, order)
        for m, name in enumerate(("d1", "d2", "d3"), start=1):
            part = getattr(some, name)
            assert part.shape == (len(etas),) * m + ((len(y),) if m <= order else (0,))
            if m <= order:
                np.testing.assert_array_equal(part, getattr(full, name))


@pytest.mark.parametrize("family", [family for family in FAMILIES.values() if family.closed], ids=lambda family: family.name)
def test_derivatives_written_out_are_those_of_the_jets(family: Family) -> None:
    for names in family.closed:
        every = tuple(LINKS[name] for name in names)
        y, etas, trials = _rows(family, every[0])
        for scale in (1.0, 12.0):
            written, by_arithmetic = (function(family, every, y, scale * etas, trials, 3) for function in (derivatives, by_jets))
            for name in ("value", "d1", "d2", "d3"):
                np.testing.assert_allclose(getattr(written, name), getattr(by_arithmetic, name), rtol=1e-11, atol=1e-14)


@families
def test_expected_information_is_the_mean_of_the_observed(family: Family) -> None:
    if family.information is None:
        pytest.skip("no simple form")
    size = 100_000
    aux = {name: np.full(size, value) for name, value in _aux(family).items()}
    identity = tuple(LINKS["identity"] for _ in range(1 + len(family.parameters)))
    for mu in _means(family):
        full, trials = np.full(size, mu), _trials(family, size)
        y = family.simulate(np.random.default_rng(6), full, aux, trials)
        slopes = by_jets(family, identity, y, np.array([full, *aux.values()]), trials, 1).d1[0]
        expected = family.information(full, aux, trials)[0]
        assert abs(slopes.mean()) < 5 * np.sqrt(expected / size)
        assert abs(np.mean(slopes**2) - expected) < 5 * np.std(slopes**2) / np.sqrt(size)


@families
def test_a_fit_starts_inside_the_range(family: Family) -> None:
    for mu in _means(family):
        y = family.simulate(np.random.default_rng(7), np.full(50, mu), _aux(family), _trials(family, 50))
        trials = _trials(family, 50)
        start = family.start(y, trials)
        assert start.shape == (50,)
        assert np.all(np.isfinite(start if family.of_levels is not None else LINKS[family.link].link(start)))
        values = family.start_parameters(y, trials)
        assert set(values) == {parameter.name for parameter in family.parameters}
        for parameter in family.parameters:
            assert parameter.lower < values[parameter.name] < parameter.upper


@families
def test_the_gradient_of_the_pymc_face_is_that_of_the_jets(family: Family) -> None:
    import pymc as pm

    mu, aux = np.repeat(_means(family), 4), _aux(family)
    trials = _trials(family, len(mu))
    y = family.simulate(np.random.default_rng(8), mu, aux, trials)
    with pm.Model() as model:
        further = {name: pm.Flat(name) for name in aux}
        observed = y.astype(int) if family.discrete else y
        family.pymc("y", pm.Flat("mu", shape=len(mu)), further, None if trials is None else trials.astype(int), observed, None, None)
    found = model.compile_dlogp(mode="FAST_COMPILE")({"mu": mu, **aux})
    identity = tuple(LINKS["identity"] for _ in range(1 + len(aux)))
    etas = np.array([mu, *(np.full(len(mu), value) for value in aux.values())])
    slopes = by_jets(family, identity, y, etas, trials, 1).d1
    expected = {"mu": slopes[0], **{name: part.sum(keepdims=True) for name, part in zip(aux, slopes[1:], strict=True)}}
    np.testing.assert_allclose(found, np.concatenate([expected[variable.name] for variable in model.free_RVs]), rtol=1e-7, atol=1e-10)


@families
def test_default_priors_are_proper_and_cover_every_parameter(family: Family) -> None:
    import bayeslmm as bl

    rng = np.random.default_rng(9)
    mu = np.resize(_means(family), 12)
    trials = _trials(family, 12)
    y = family.simulate(rng, mu, _aux(family), trials)
    data = {"y": y, "x": np.arange(12.0), "n": np.full(12, TRIALS), "g": list("aabbccddeeff")}
    response = "y | trials(n)" if family.needs_trials else "y"
    predictors = {parameter.name: "~ x + (1 | g)" for parameter in family.parameters}
    formulas = [f"{response} ~ x + (1 | g)"]
    if family.of_levels is None:
        formulas.append(bl.formula(f"{response} ~ x + (1 | g)", **predictors))
    else:
        data["y"] = pd.Categorical(list("abcd") * 3, ordered=True)
    for formula in formulas:
        model = bl.model(formula, data, family.name)
        rows = bl.default_priors(model, "weak")
        assert all(row.distribution.proper for row in rows)
        named = {row.term for row in rows if row.part == "aux"}
        assert named == ({parameter.name for parameter in family.parameters} if isinstance(formula, str) else set())
        for parameter in predictors if not isinstance(formula, str) else ():
            assert {row.term for row in rows if row.parameter == parameter} == {
                f"{parameter}_(Intercept)", f"{parameter}_x"
            }  # fmt: skip
