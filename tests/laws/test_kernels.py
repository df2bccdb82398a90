"""Laws of every kernel of FAMILIES and LINKS: equal to the numpy face, derivatives by differences; and of the functions that they use."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from bayeslmm.families import FAMILIES, LINKS, Family, Link, _special
from bayeslmm.families.base import IDENTITY, Quantity
from bayeslmm.families.kernels import rows

WITH_KERNEL = [family for family in FAMILIES.values() if family.kernel is not None]
PAIRS = [(family, LINKS[name]) for family in WITH_KERNEL for name in family.links if LINKS[name].kernel is not None]
pairs = pytest.mark.parametrize(("family", "link"), PAIRS, ids=lambda one: one.name)
AUX = ((1.3, 7.0), (50.0, 2.2), (0.05, 300.0))
"""Further parameters: middling, and near two limits; a probability is x / (1 + x)."""


def _parameters(family: Family, values: tuple[float, ...]) -> np.ndarray:
    chosen = zip(family.parameters, values, strict=False)
    return np.array([value / (1.0 + value) if parameter.upper == 1.0 else value for parameter, value in chosen])


def _points(family: Family, aux: np.ndarray, n: int = 200) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Responses, means and trials of a family, drawn from it."""
    rng = np.random.default_rng(5)
    mu = rng.uniform(0.02, 0.98, n) if "logit" in family.links else rng.uniform(0.3, 6.0, n)
    trials = np.floor(rng.uniform(1.0, 60.0, n)) if family.needs_trials else None
    y = family.simulate(rng, mu, {p.name: np.array(v) for p, v in zip(family.parameters, aux, strict=True)}, trials)
    y = np.where(family.check(y, trials), 1.0, y)
    return np.clip(y, 1e-3, 1.0 - 1e-3) if family.name == "beta" else y, mu, trials


def _numpy(family: Family, link: Link, y: np.ndarray, eta: np.ndarray, aux: np.ndarray, trials: np.ndarray | None) -> np.ndarray:
    given = {p.name: Quantity(IDENTITY, np.asarray(value)) for p, value in zip(family.parameters, aux, strict=True)}
    return np.asarray(family.log_density(y, Quantity(link, eta), given, trials))


@pytest.mark.parametrize("values", AUX)
@pairs
def test_value_is_that_of_numpy_but_for_terms_of_the_response(family: Family, link: Link, values: tuple[float, ...]) -> None:
    aux = _parameters(family, values)
    y, mu, trials = _points(family, aux)
    eta, other, other_aux = link.link(mu), link.link(0.97 * mu + 0.01), 0.9 * aux
    found = rows(family, link, y, eta, aux, trials)[0] - rows(family, link, y, other, other_aux, trials)[0]
    expected = _numpy(family, link, y, eta, aux, trials) - _numpy(family, link, y, other, other_aux, trials)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-9 * max(1.0, float(np.max(np.abs(expected)))))


@pytest.mark.parametrize("values", AUX)
@pairs
def test_slopes_are_those_of_differences(family: Family, link: Link, values: tuple[float, ...]) -> None:
    aux = _parameters(family, values)
    y, mu, trials = _points(family, aux)
    eta = link.link(mu)
    slope = rows(family, link, y, eta, aux, trials)[1]
    step = 1e-6 * np.maximum(np.abs(eta), 0.1)
    expected = [(_numpy(family, link, y, eta + step, aux, trials) - _numpy(family, link, y, eta - step, aux, trials)) / (2.0 * step)]
    for k in range(len(aux)):
        change = 1e-6 * aux[k] * np.eye(len(aux))[k]
        up, down = (_numpy(family, link, y, eta, aux + sign * change, trials) for sign in (1.0, -1.0))
        expected.append((up - down) / (2e-6 * aux[k]))
    for one, exact in zip(slope, expected, strict=True):
        np.testing.assert_allclose(one, exact, rtol=1e-4, atol=1e-5 * max(1.0, float(np.max(np.abs(exact)))))


@pytest.mark.parametrize("eta", [-30.0, -8.0, -2.5, 0.0, 3.0, 7.0])
@pytest.mark.parametrize("name", ["logit", "probit", "cloglog", "cauchit"])
def test_probabilities_keep_their_digits_in_both_tails(name: str, eta: float) -> None:
    if name == "cloglog" and eta > 3.0:
        pytest.skip("log(1 - mu) is -exp(eta)")
    link, family = LINKS[name], FAMILIES["bernoulli"]
    for y in (0.0, 1.0):
        value, slope = rows(family, link, np.array([y]), np.array([eta]), np.zeros(0))
        quantity = Quantity(link, np.array([eta]))
        expected = quantity.log if y else quantity.log_complement
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        ends = Quantity(link, np.array([eta + 1e-5, eta - 1e-5]))
        pair = ends.log if y else ends.log_complement
        np.testing.assert_allclose(slope[0], (pair[0] - pair[1]) / 2e-5, rtol=1e-6, atol=1e-12)


def test_special_functions() -> None:
    for x in (1e-3, 0.2, 1.0, 4.5, 9.99, 10.0, 1e3, 1e8):
        assert _special.digamma(x) == pytest.approx(scipy.special.digamma(x), rel=1e-13, abs=1e-13)
    for a in (1e-6, 0.3, 2.0, 9.0, 11.0, 1e4, 1e9):
        for y in (0.0, 1.0, 2.0, 7.0, 12.0, 13.0, 0.5, 150.0):
            exact = scipy.special.loggamma(a + y) - scipy.special.loggamma(a) - y * np.log(a)
            value, slope = _special.rising_excess(a, y)
            assert value == pytest.approx(exact, rel=1e-9, abs=1e-6 * max(a, 1.0) * 1e-6)
            up, down = (_special.rising_excess(a * np.exp(step), y)[0] for step in (1e-5, -1e-5))
            assert slope == pytest.approx((up - down) / 2e-5, rel=1e-5, abs=1e-9)
    for x in (1e-9, 0.1, 0.8, 5.0, 40.0):
        assert _special.log1mexp(x)[0] == pytest.approx(np.log(-np.expm1(-x)), rel=1e-12, abs=1e-17)
    for x in (-40.0, -6.0, -4.0, 0.0, 3.0, 8.0):
        value, ratio = _special.log_ndtr(x)
        assert value == pytest.approx(scipy.special.log_ndtr(x), rel=1e-12)
        assert ratio == pytest.approx(np.exp(-0.5 * x * x - 0.5 * np.log(2 * np.pi) - scipy.special.log_ndtr(x)), rel=1e-9)
