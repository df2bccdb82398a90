"""Laws of every row of DISTRIBUTIONS: this package's log density is scipy's cut to the range, and PyMC's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from bayeslmm.bayes.translate import prior_variable
from bayeslmm.errors import PriorError
from bayeslmm.priors import DISTRIBUTIONS, Distribution, PriorRow, log_density, parse_distribution, prior

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")

TEXTS = {
    "normal": ("normal(0, 2.5)", "normal(1.2, 0.7)"),
    "student_t": ("student_t(3, 0, 2.5)", "student_t(4, -1, 2)"),
    "cauchy": ("cauchy(0, 1)", "cauchy(0.5, 2)"),
    "exponential": ("exponential(0.5)",),
    "gamma": ("gamma(2, 0.1)",),
    "inv_gamma": ("inv_gamma(0.4, 0.3)", "inv_gamma(3, 2)"),
    "logistic": ("logistic(0, 1)", "logistic(-0.5, 2)"),
    "lognormal": ("lognormal(0.2, 0.8)",),
    "beta": ("beta(2, 3)",),
    "uniform": ("uniform(-1, 4)",),
    "flat": ("flat()",),
}
SCIPY = {
    "normal": lambda mu, sigma: scipy.stats.norm(mu, sigma),
    "student_t": lambda nu, mu, sigma: scipy.stats.t(nu, mu, sigma),
    "cauchy": scipy.stats.cauchy,
    "exponential": lambda rate: scipy.stats.gamma(1.0, scale=1.0 / rate),
    "gamma": lambda shape, rate: scipy.stats.gamma(shape, scale=1.0 / rate),
    "inv_gamma": lambda shape, scale: scipy.stats.invgamma(shape, scale=scale),
    "logistic": scipy.stats.logistic,
    "lognormal": lambda mu, sigma: scipy.stats.lognorm(sigma, scale=np.exp(mu)),
    "beta": scipy.stats.beta,
    "uniform": lambda lower, upper: scipy.stats.uniform(lower, upper - lower),
}
RANGES = {"line": (-np.inf, np.inf), "half": (0.0, np.inf), "above_one": (1.0, np.inf), "between": (0.2, 0.9), "below": (-np.inf, 0.5)}

texts = pytest.mark.parametrize("text", [text for several in TEXTS.values() for text in several])
ranges = pytest.mark.parametrize("range_", RANGES.values(), ids=RANGES)


def _has_mass(distribution: Distribution, lower: float) -> bool:
    return not (distribution.name == "beta" and lower == 1.0)


def _points(distribution: Distribution, lower: float, upper: float) -> np.ndarray:
    if distribution.name == "flat":
        return np.array([max(lower, -2.0) + 0.3, min(upper, 3.0) - 0.1])
    frozen = SCIPY[distribution.name](*distribution.args)
    p = frozen.cdf(lower) + (frozen.cdf(upper) - frozen.cdf(lower)) * np.array([0.1, 0.5, 0.9])
    return frozen.ppf(p)


def test_every_distribution_on_the_line_is_tried() -> None:
    assert set(TEXTS) | {"lkj", "constant"} | {kind.name for kind in DISTRIBUTIONS.values() if kind.joint} == set(DISTRIBUTIONS)


@texts
def test_text_comes_back(text: str) -> None:
    assert str(parse_distribution(text)) == text
    assert parse_distribution(text.replace(" ", "")) == parse_distribution(text)


@texts
@ranges
def test_log_density_is_scipys_cut_to_the_range(text: str, range_: tuple[float, float]) -> None:
    distribution = parse_distribution(text)
    if distribution.name == "flat" or not _has_mass(distribution, range_[0]):
        pytest.skip("no density to compare")
    frozen = SCIPY[distribution.name](*distribution.args)
    x = _points(distribution, *range_)
    mass = frozen.cdf(range_[1]) - frozen.cdf(range_[0])
    np.testing.assert_allclose(log_density(distribution, x, *range_), frozen.logpdf(x) - np.log(mass), rtol=1e-10)
    total = scipy.integrate.quad(lambda point: np.exp(log_density(distribution, point, *range_)), *range_, limit=400)[0]
    assert total == pytest.approx(1.0, abs=1e-5)


@texts
@ranges
def test_pymc_has_the_same_log_density(text: str, range_: tuple[float, float]) -> None:
    import pymc as pm

    distribution = parse_distribution(text)
    if not _has_mass(distribution, range_[0]):
        pytest.skip("no mass in the range")
    x = _points(distribution, *range_)
    rows = [PriorRow(part="aux", term=f"t{i}", distribution=distribution) for i in range(len(x))]
    with pm.Model() as model:
        variable = prior_variable("v", rows, *range_, dim="")
    logp = pm.logp(variable, x).eval(mode="FAST_COMPILE")
    expected = log_density(distribution, x, *range_)
    # PyTensor holds a constant such as 2.5 in single precision, and so its logarithm: 3e-8.
    np.testing.assert_allclose(logp, expected, rtol=1e-7, atol=1e-7)
    assert [free.name for free in model.free_RVs] == ["v"]


@texts
def test_nothing_outside_the_range(text: str) -> None:
    assert np.all(log_density(parse_distribution(text), np.array([-0.5, -2.0]), 0.0, np.inf) == -np.inf)


def test_constant_and_lkj_have_no_density_on_the_line() -> None:
    for text in ("constant(2)", "lkj(2)"):
        with pytest.raises(PriorError, match="no density"):
            log_density(parse_distribution(text), np.zeros(1))


_IN_BAMBI = [(name, kind) for kind in DISTRIBUTIONS.values() for name, _ in kind.bambi]


@pytest.mark.parametrize(("name", "kind"), _IN_BAMBI, ids=[name for name, _ in _IN_BAMBI])
def test_bambis_priors_mean_the_same(name: str, kind: object) -> None:
    bambi = pytest.importorskip("bambi")
    arguments = next(arguments for their_name, arguments in kind.bambi if their_name == name)  # type: ignore[attr-defined]
    values = {"lower": 0.5, "upper": 2.0}
    row = prior(bambi.Prior(name, **{argument: values.get(argument, 1.5) for argument in arguments}), part="sd")
    assert row.distribution.name == kind.name  # type: ignore[attr-defined]
    assert len(row.distribution.args) == len(kind.arguments)  # type: ignore[attr-defined]
    if name.startswith("Half") and name != "HalfFlat":
        assert row.distribution.args[kind.arguments.index("mu")] == 0.0  # type: ignore[attr-defined]
