"""Families and links by name, and what a family's numbers are in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from bayeslmm.errors import FitError
from bayeslmm.families import FAMILIES, family_named, link_named


def test_names_are_brms_own() -> None:
    assert {"gaussian", "student", "bernoulli", "binomial", "poisson"} <= set(FAMILIES)
    assert [parameter.name for parameter in FAMILIES["student"].parameters] == ["sigma", "nu"]


def test_a_typo_is_answered_with_the_name() -> None:
    with pytest.raises(FitError, match="did you mean 'poisson'"):
        family_named("poison")
    with pytest.raises(FitError, match="did you mean 'probit'"):
        link_named("probits")


def test_a_link_that_the_family_lacks_is_refused() -> None:
    with pytest.raises(FitError, match="family 'poisson' has no link 'logit'; known: log, identity"):
        link_named("logit", family_named("poisson"))
    assert link_named("log", family_named("poisson")).name == "log"


def test_a_family_that_is_no_text_is_refused() -> None:
    with pytest.raises(FitError, match="unknown family"):
        family_named(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "frozen", "aux", "trials"),
    [
        ("gaussian", scipy.stats.norm(0.4, 1.3), {"sigma": np.array(1.3)}, None),
        ("student", scipy.stats.t(5.0, 0.4, 1.3), {"sigma": np.array(1.3), "nu": np.array(5.0)}, None),
        ("bernoulli", scipy.stats.bernoulli(0.4), {}, None),
        ("binomial", scipy.stats.binom(7, 0.4), {}, np.array([7.0, 7.0])),
        ("poisson", scipy.stats.poisson(0.4), {}, None),
    ],
)
def test_log_likelihood_is_scipys(name: str, frozen: object, aux: dict[str, np.ndarray], trials: np.ndarray | None) -> None:
    y = np.array([0.0, 1.0])
    theirs = getattr(frozen, "logpmf" if FAMILIES[name].discrete else "logpdf")(y)
    np.testing.assert_allclose(FAMILIES[name].loglik(y, np.full(2, 0.4), aux, trials), theirs, rtol=1e-12)
    mu = np.full(2, 0.4)
    np.testing.assert_allclose(FAMILIES[name].variance(mu, aux, trials), frozen.var())  # type: ignore[attr-defined]


def test_binomial_without_trials_takes_zero_and_one_only() -> None:
    np.testing.assert_array_equal(FAMILIES["binomial"].check(np.array([0.0, 1.0, 2.0, 0.5]), None), [False, False, True, True])


def test_certain_outcomes_have_log_likelihood_zero() -> None:
    for name in ("bernoulli", "binomial"):
        np.testing.assert_array_equal(FAMILIES[name].loglik(np.array([0.0, 1.0]), np.array([0.0, 1.0]), {}, None), [0.0, 0.0])


def test_student_has_no_variance_at_two_degrees_of_freedom() -> None:
    aux = {"sigma": np.array(1.0), "nu": np.array(2.0)}
    assert FAMILIES["student"].variance(np.zeros(1), aux, None)[0] == np.inf
