"""The kernels of a locus against slow twins: scipy's distributions, quadrature, differences, and grids of the posterior."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import expit, gammaln, logsumexp

from bayeslmm.loci.importance import sample_importance
from bayeslmm.loci.likelihood import BETA_BINOMIAL, BINOMIAL, rising, row, row_value
from bayeslmm.loci.marginal import Prior, Shape, log_posterior, log_posterior_derivatives, log_prior, nodes
from bayeslmm.loci.mode import CONVERGED, find_modes
from bayeslmm.loci.nuts import joint, sample_nuts
from bayeslmm.loci.random import keys, normal, stream, uniform

FAMILIES = (BINOMIAL, BETA_BINOMIAL)


class Locus(NamedTuple):
    shape: Shape
    prior: Prior
    y: np.ndarray
    n: np.ndarray


def locus(family: int, p: int = 4, seed: int = 1, k: int = 9) -> Locus:
    """Return the counts of one locus in 23 samples of 12 tanks, with a design of p columns."""
    rng = np.random.default_rng(seed)
    group = np.sort(np.r_[np.arange(12), np.arange(11)])
    X = np.column_stack([np.ones(23), group % 2, rng.integers(0, 2, 23), rng.standard_normal(23)])[:, :p]
    n = rng.poisson(15, 23)
    n[3] = 0
    y = rng.binomial(n, expit(X @ np.array([1.0, 0.5, -0.5, 0.3])[:p] + 0.7 * rng.standard_normal(12)[group]))
    shape = Shape(np.ascontiguousarray(X), np.ones(23), np.searchsorted(group, np.arange(13)), family, *nodes(k))
    scale = np.array([5.0, 2.5, 2.5, 2.5])[:p]
    prior = Prior(np.eye(p) + 0.1 * np.tri(p, k=-1), np.zeros(p), scale, np.array([np.inf, 7.0, np.inf, 3.0])[:p], 3.0, 1.0, 3.0, 1.5)
    return Locus(shape, prior, y, n)


def point(one: Locus) -> np.ndarray:
    p = one.shape.X.shape[1]
    return np.array([1.0, 0.4, -0.3, 0.2][:p] + [0.74] + ([2.5] if one.shape.family == BETA_BINOMIAL else []))


def density(one: Locus, theta: np.ndarray) -> float:
    d = len(theta)
    groups = len(one.shape.first) - 1
    return log_posterior(theta, one.y, one.n, one.shape, one.prior, np.zeros(groups), np.empty(len(one.y)), np.empty(d + d * d))


def derivatives(one: Locus, theta: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    d = len(theta)
    gradient, hessian = np.empty(d), np.empty((d, d))
    value = log_posterior_derivatives(theta, one.y, one.n, one.shape, one.prior, np.zeros(len(one.shape.first) - 1), gradient, hessian)
    return value, gradient, hessian


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("eta", "y", "n", "phi"), [(0.3, 5, 12, 8.0), (-3.0, 0, 20, 50.0), (6.0, 150, 151, 3.0), (-2.0, 40, 400, 300.0)])
def test_rows_are_scipys_with_their_derivatives(family: int, eta: float, y: int, n: int, phi: float) -> None:
    mu = expit(eta)
    known = stats.binom(n, mu) if family == BINOMIAL else stats.betabinom(n, mu * phi, (1 - mu) * phi)
    choose = gammaln(n + 1) - gammaln(y + 1) - gammaln(n - y + 1)
    found = row(family, eta, y, n, phi)
    assert found[0] == pytest.approx(known.logpmf(y) - choose, rel=1e-9)
    assert row_value(family, eta, y, n, phi) == pytest.approx(found[0], rel=1e-12)

    def at(e: float, a: float) -> np.ndarray:
        return np.array(row(family, e, y, n, math.exp(a)))

    a, h = math.log(phi), 1e-5
    by_eta, by_phi = (at(eta + h, a) - at(eta - h, a)) / (2 * h), (at(eta, a + h) - at(eta, a - h)) / (2 * h)
    assert found[1:3] == pytest.approx(by_eta[:2], rel=1e-5, abs=1e-6)
    assert (found[3], found[4], found[5]) == pytest.approx((by_phi[0], by_phi[1], by_phi[3]), rel=1e-5, abs=1e-6)
    assert row(family, eta, 0, 0, phi) == (0.0,) * 6


@pytest.mark.parametrize("k", [0, 3, 96, 97, 5000])
@pytest.mark.parametrize("a", [1e-8, 0.3, 40.0])
def test_rising_factorials(a: float, k: int) -> None:
    value, first, second = rising(a, k)
    terms = a + np.arange(k)
    assert value == pytest.approx(np.sum(np.log(terms)), rel=1e-10, abs=1e-10)
    assert first == pytest.approx(np.sum(1 / terms), rel=1e-10)
    assert second == pytest.approx(np.sum(1 / terms**2), rel=1e-9)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prior_is_scipys(family: int) -> None:
    one = locus(family)
    theta = point(one)
    d = len(theta)
    A, scale = one.prior.A, one.prior.scale
    normal_or_t = [stats.norm if math.isinf(df) else stats.t(df) for df in one.prior.df]
    expected = sum(float(f.logpdf(z)) - math.log(s) for f, z, s in zip(normal_or_t, A @ theta[:4] / scale, scale, strict=True))
    expected += stats.t(3).logpdf(theta[4]) + math.log(2.0)
    expected += stats.norm(3.0, 1.5).logpdf(theta[5]) if family == BETA_BINOMIAL else 0.0
    assert log_prior(theta, family, one.prior, np.zeros(d), np.zeros((d, d))) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_marginal_density_is_that_of_quadrature(family: int) -> None:
    one = locus(family, k=15)
    theta = point(one)
    d, phi = len(theta), math.exp(theta[-1])
    total = log_prior(theta, family, one.prior, np.zeros(d), np.zeros((d, d)))
    for g in range(12):
        rows = range(one.shape.first[g], one.shape.first[g + 1])

        def integrand(u: float, rows: range = rows) -> float:
            eta = one.shape.X @ theta[:4] + theta[4] * u
            return math.exp(sum(row_value(family, eta[s], one.y[s], one.n[s], phi) for s in rows) - u * u / 2 + 30) / math.sqrt(2 * math.pi)

        total += math.log(quad(integrand, -9, 9, epsabs=0, epsrel=1e-11)[0]) - 30
    assert density(one, theta) == pytest.approx(total, abs=1e-6)
    assert derivatives(one, theta)[0] == pytest.approx(total, abs=1e-6)
    mirrored = theta.copy()
    mirrored[4] = -theta[4]
    assert density(one, mirrored) == pytest.approx(total, abs=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_derivatives_are_those_of_differences(family: int) -> None:
    one = locus(family, k=21)
    theta = point(one)
    _, gradient, hessian = derivatives(one, theta)
    steps = 1e-5 * np.eye(len(theta))
    slopes = [(derivatives(one, theta + h)[0] - derivatives(one, theta - h)[0]) / 2e-5 for h in steps]
    curvatures = [(derivatives(one, theta + h)[1] - derivatives(one, theta - h)[1]) / 2e-5 for h in steps]
    assert gradient == pytest.approx(slopes, rel=1e-5, abs=1e-5)
    assert hessian == pytest.approx(np.array(curvatures), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_joint_density_has_the_marginal_one(family: int) -> None:
    """Over u, the joint density integrates to the marginal one; its gradient is that of differences."""
    one = locus(family, k=31)
    theta, (root, d) = point(one), (np.tril(0.3 + np.eye(len(point(one)))), len(point(one)))
    x = np.r_[np.full(d, 0.2), np.random.default_rng(2).standard_normal(12)]

    def value(x: np.ndarray, gradient: np.ndarray) -> float:
        scratch = np.empty(d), np.empty(2 * d + d * d)
        return joint(x, one.y, one.n, one.shape, one.prior, theta, root, gradient, *scratch)

    gradient, none = np.empty(d + 12), np.empty(d + 12)
    value(x, gradient)
    slopes = [(value(x + h, none) - value(x - h, none)) / 2e-6 for h in 1e-6 * np.eye(d + 12)]
    assert gradient == pytest.approx(slopes, rel=1e-4, abs=1e-4)
    nodes_u = np.linspace(-9, 9, 1001)
    total = 12 * math.log(nodes_u[1] - nodes_u[0]) - 6 * math.log(2 * math.pi)
    base = value(np.r_[x[:d], np.zeros(12)], none)
    for g in range(12):
        values = [value(np.r_[x[:d], np.where(np.arange(12) == g, u, 0.0)], none) - base for u in nodes_u]
        total += logsumexp(values)
    assert base + total == pytest.approx(density(one, theta + root @ x[:d]), abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(4))
def test_modes_have_no_slope_and_are_the_greatest(family: int, seed: int) -> None:
    one = locus(family, seed=seed, k=15)
    if seed == 3:
        one = one._replace(y=np.where(one.shape.X[:, 1] > 0, one.n, one.y))
    theta, root, value, status = find_modes(one.y[None], one.n[None], one.shape, one.prior)
    assert status[0] == CONVERGED
    _, gradient, hessian = derivatives(one, theta[0])
    assert np.max(np.abs(root[0].T @ gradient)) < 1e-3
    assert root[0] @ root[0].T == pytest.approx(np.linalg.inv(-hessian), rel=1e-4, abs=1e-6)
    rng = np.random.default_rng(1)
    assert all(density(one, theta[0] + root[0] @ rng.standard_normal(len(theta[0]))) < value[0] + 1e-6 for _ in range(50))


def test_no_counts_at_all_give_the_prior() -> None:
    one = locus(BINOMIAL)
    theta, _, _, status = find_modes(np.zeros((1, 23), dtype=np.int64), np.zeros((1, 23), dtype=np.int64), one.shape, one.prior)
    assert status[0] == CONVERGED
    assert theta[0] == pytest.approx(np.zeros(5), abs=1e-3)


def _grid(one: Locus) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and SD of (beta, tau) for a model with one coefficient, by brute force on a grid."""
    beta, tau = np.linspace(-6, 25, 621), np.linspace(0.0, 15.0, 301)
    values = np.array([[density(one, np.array([b, t])) for t in tau] for b in beta])
    weights = np.exp(values - values.max())
    weights[:, [0, -1]] *= 0.5
    weights /= weights.sum()
    points = np.stack(np.meshgrid(beta, tau, indexing="ij"))
    mean = np.sum(points * weights, axis=(1, 2))
    return mean, np.sqrt(np.sum((points - mean[:, None, None]) ** 2 * weights, axis=(1, 2)))


@pytest.mark.parametrize("kind", ["sound", "separated", "few"])
def test_both_samplers_have_the_posterior_of_a_grid(kind: str) -> None:
    one = locus(BINOMIAL, p=1, k=15)
    if kind == "separated":
        one = one._replace(y=one.n.copy())
    if kind == "few":
        one = one._replace(y=np.minimum(one.y, 1), n=np.minimum(one.n, 1))
    mean, sd = _grid(one)
    Y, N, name = one.y[None], one.n[None], keys(1, ["chr1:1"])
    theta, root, _, _ = find_modes(Y, N, one.shape, one.prior)
    draws, weights, khat, _ = sample_importance(Y, N, one.shape, one.prior, theta, root, name, 40_000)
    assert khat[0] < 0.7
    found = weights[0] @ draws[0]
    assert np.max(np.abs(found - mean) / sd) < 0.06
    assert np.sqrt(weights[0] @ (draws[0] - found) ** 2) == pytest.approx(sd, rel=0.06)
    chains, u, divergent, _ = sample_nuts(Y, N, one.shape, one.prior, theta, root, name, 4, 500, 4000, 0.9)
    pooled = chains[0].reshape(-1, 2)
    assert np.max(np.abs(pooled.mean(axis=0) - mean) / sd) < 0.08
    assert pooled.std(axis=0) == pytest.approx(sd, rel=0.08)
    assert divergent[0] <= 16
    assert u.shape == (1, 4, 4000, 12)


def test_evidence_is_that_of_the_grid() -> None:
    one = locus(BINOMIAL, p=1, k=15)
    beta, tau = np.linspace(-4, 6, 241), np.linspace(0.0, 6.0, 201)
    values = np.array([[density(one, np.array([b, t])) for t in tau] for b in beta])
    ends = np.where((tau == tau[0]) | (tau == tau[-1]), 0.5, 1.0)
    exact = logsumexp(values, b=ends[None, :] * (beta[1] - beta[0]) * (tau[1] - tau[0]))
    theta, root, _, _ = find_modes(one.y[None], one.n[None], one.shape, one.prior)
    found = sample_importance(one.y[None], one.n[None], one.shape, one.prior, theta, root, keys(1, ["a"]), 20_000)[3]
    assert found[0] == pytest.approx(exact, abs=0.02)


def test_streams_are_xoshiro_by_key() -> None:
    def twin(key: int, part: int, count: int) -> list[float]:
        mask = (1 << 64) - 1
        x, state = (key + 0x632BE59BD9B4E019 * (part + 1)) & mask, []
        for _ in range(4):
            x = (x + 0x9E3779B97F4A7C15) & mask
            z = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
            z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
            state.append(z ^ (z >> 31))
        made = []
        for _ in range(count):
            a = (state[0] + state[3]) & mask
            result = ((((a << 23) | (a >> 41)) & mask) + state[0]) & mask
            t = (state[1] << 17) & mask
            state[2] ^= state[0]
            state[3] ^= state[1]
            state[1] ^= state[2]
            state[0] ^= state[3]
            state[2] ^= t
            state[3] = ((state[3] << 45) | (state[3] >> 19)) & mask
            made.append(((result >> 11) + 0.5) / 2.0**53)
        return made

    key = keys(7, ["chr1:10468"])[0]
    for part in (0, 3):
        state = stream(key, part)
        assert [uniform(state) for _ in range(50)] == twin(int(key), part, 50)
    assert keys(7, ["a", "b"])[1] == keys(7, ["b"])[0] != keys(8, ["b"])[0]


def test_normal_numbers_are_normal() -> None:
    out = np.empty(20_001)
    normal(stream(keys(1, ["x"])[0], 0), out)
    assert stats.kstest(out, "norm").pvalue > 0.001
    assert abs(np.corrcoef(out[:-1], out[1:])[0, 1]) < 0.03


def test_draws_depend_on_seed_and_locus_alone() -> None:
    one = locus(BETA_BINOMIAL)
    Y, N, names = np.stack([one.y, one.n - one.y]), np.stack([one.n, one.n]), keys(3, ["a", "b"])
    theta, root, _, _ = find_modes(Y, N, one.shape, one.prior)
    both = sample_nuts(Y, N, one.shape, one.prior, theta, root, names, 2, 50, 50, 0.8)
    alone = sample_nuts(Y[1:], N[1:], one.shape, one.prior, theta[1:], root[1:], names[1:], 2, 50, 50, 0.8)
    for whole, part in zip(both, alone, strict=True):
        assert np.array_equal(whole[1:], part)
