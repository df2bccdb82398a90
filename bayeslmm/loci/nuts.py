"""The third tier: NUTS for one locus after another in one kernel, started and scaled by the mode of the marginal posterior.

The joint density is of x = (t, u): theta = mode + root t, the random effect of group g is tau u_g with u_g ~ N(0, 1) (non-centred; tau has
a sign that means nothing). The sampler is the multinomial NUTS of Hoffman & Gelman (2014) and Betancourt (2017), written without
recursion as in Phan, Pradhan & Jankowiak (2019), with the generalised criterion of no U-turn; step sizes by dual averaging.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba as nb
import numpy as np

from bayeslmm.loci.likelihood import BINOMIAL, row
from bayeslmm.loci.marginal import Prior, Shape, log_prior
from bayeslmm.loci.random import normal, stream, uniform

__all__ = ["joint", "sample_nuts"]

type Array = np.ndarray

DEPTH = 10
"""Greatest depth of a tree."""
_DIVERGENT = 1000.0
"""Energy error beyond which a trajectory has diverged."""


@nb.njit(cache=True)
def joint(
    x: Array, y: Array, n: Array, shape: Shape, prior: Prior, mode: Array, root: Array, gradient: Array, theta: Array, work: Array
) -> float:
    """Return the log joint density of x (d + G,) and fill its `gradient`; `theta` (d,) takes the parameters.

    `work` (2 d + d d,) is scratch.
    """
    d = mode.shape[0]
    p = shape.X.shape[1]
    slope = work[:d]
    work[:] = 0.0
    for i in range(d):
        total = mode[i]
        for j in range(i + 1):
            total += root[i, j] * x[j]
        theta[i] = total
    value = log_prior(theta, shape.family, prior, slope, work[2 * d :].reshape(d, d))
    tau = theta[p]
    phi = math.exp(min(theta[p + 1], 60.0)) if shape.family != BINOMIAL else 0.0
    for g in range(shape.first.shape[0] - 1):
        u = x[d + g]
        pull = -u
        value -= 0.5 * u * u
        for s in range(shape.first[g], shape.first[g + 1]):
            eta = tau * shape.z[s] * u
            for j in range(p):
                eta += shape.X[s, j] * theta[j]
            level, l_e, _, l_a, _, _ = row(shape.family, eta, y[s], n[s], phi)
            value += level
            for j in range(p):
                slope[j] += l_e * shape.X[s, j]
            slope[p] += l_e * shape.z[s] * u
            pull += l_e * tau * shape.z[s]
            if shape.family != BINOMIAL:
                slope[p + 1] += l_a
        gradient[d + g] = pull
    for j in range(d):
        total = 0.0
        for i in range(j, d):
            total += root[i, j] * slope[i]
        gradient[j] = total
    return value


class Track(NamedTuple):
    """Scratch of a trajectory: points `x`, momenta `p`, gradients `g` (m,) at its left and right ends and at the moving one; the draw
    taken so far and that of the new subtree; summed momenta; momenta and sums at the checkpoints of a subtree (DEPTH, m)."""

    x_left: Array
    p_left: Array
    g_left: Array
    x_right: Array
    p_right: Array
    g_right: Array
    x: Array
    p: Array
    g: Array
    x_taken: Array
    g_taken: Array
    x_sub: Array
    g_sub: Array
    total: Array
    total_sub: Array
    momenta: Array
    sums: Array


@nb.njit(cache=True)
def _track(m: int) -> Track:
    a = np.zeros((15, m))
    momenta, sums = np.zeros((DEPTH, m)), np.zeros((DEPTH, m))
    return Track(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14], momenta, sums)


@nb.njit(cache=True)
def _turns(one: Array, other: Array, total: Array) -> bool:
    """Return whether a trajectory of summed momentum `total` between the momenta `one` and `other` has begun to turn back."""
    a, b = 0.0, 0.0
    for i in range(total.shape[0]):
        rho = total[i] - 0.5 * (one[i] + other[i])
        a += one[i] * rho
        b += other[i] * rho
    return a <= 0.0 or b <= 0.0


@nb.njit(cache=True)
def _subtree_turns(leaf: int, track: Track, between: Array) -> bool:
    """Keep a checkpoint at an even leaf; at an odd one return whether a balanced subtree that ends there has begun to turn back."""
    at, rest = 0, leaf >> 1
    while rest > 0:
        at += rest & 1
        rest >>= 1
    if leaf % 2 == 0:
        track.momenta[at] = track.p
        track.sums[at] = track.total_sub
        return False
    trees, rest = 0, leaf
    while rest & 1:
        trees += 1
        rest >>= 1
    for i in range(at, at - trees, -1):
        for j in range(between.shape[0]):
            between[j] = track.total_sub[j] - track.sums[i, j] + track.momenta[i, j]
        if _turns(track.momenta[i], track.p, between):
            return True
    return False


@nb.njit(cache=True)
def _log_sum(a: float, b: float) -> float:
    return max(a, b) + math.log1p(math.exp(-abs(a - b))) if max(a, b) > -math.inf else -math.inf


class Target(NamedTuple):
    """What is sampled: counts `y`, `n` (S,), the common shape and prior, and the mode (d,) and root (d, d) that scale the parameters.

    `theta` (d,), `work` (2 d + d d,), `between` (m,): scratch.
    """

    y: Array
    n: Array
    shape: Shape
    prior: Prior
    mode: Array
    root: Array
    theta: Array
    work: Array
    between: Array


@nb.njit(cache=True)
def _density(x: Array, gradient: Array, target: Target) -> float:
    return joint(x, target.y, target.n, target.shape, target.prior, target.mode, target.root, gradient, target.theta, target.work)


@nb.njit(cache=True)
def _extend(state: Array, track: Track, depth: int, step: float, energy: float, target: Target) -> tuple[float, float, float, int, int]:
    """Double the trajectory by 2^depth leapfrog steps from `track.x`; the draw of the new part is left in `track.x_sub`.

    Returns the log weight of the new part, the log density of its draw, the sum of acceptances, the steps taken, and how it
    ended: 0 sound, 1 turned back, 2 diverged.
    """
    m = track.x.shape[0]
    weight, found, accepted = -math.inf, 0.0, 0.0
    track.total_sub[:] = 0.0
    for leaf in range(1 << depth):
        for i in range(m):
            track.p[i] += 0.5 * step * track.g[i]
            track.x[i] += step * track.p[i]
        level = _density(track.x, track.g, target)
        kinetic = 0.0
        for i in range(m):
            track.p[i] += 0.5 * step * track.g[i]
            kinetic += 0.5 * track.p[i] * track.p[i]
            track.total_sub[i] += track.p[i]
        error = energy + level - kinetic
        if not (math.isfinite(error) and error > -_DIVERGENT):
            return weight, found, accepted, leaf + 1, 2
        accepted += min(1.0, math.exp(min(error, 0.0)))
        weight = _log_sum(weight, error)
        if math.log(uniform(state)) < error - weight:
            found = level
            track.x_sub[:] = track.x
            track.g_sub[:] = track.g
        if _subtree_turns(leaf, track, target.between):
            return weight, found, accepted, leaf + 1, 1
    return weight, found, accepted, 1 << depth, 0


@nb.njit(cache=True)
def transition(
    state: Array, x: Array, gradient: Array, value: float, step: float, track: Track, target: Target
) -> tuple[float, float, int, bool]:
    """Replace x (m,) and its gradient by the next draw's; return its log density, the mean acceptance, the steps and divergence."""
    normal(state, track.p_left)
    energy = -value
    for i in range(x.shape[0]):
        energy += 0.5 * track.p_left[i] * track.p_left[i]
    track.p_right[:] = track.p_left
    track.total[:] = track.p_left
    track.x_left[:] = x
    track.x_right[:] = x
    track.g_left[:] = gradient
    track.g_right[:] = gradient
    log_weight, accepted, taken, ended = 0.0, 0.0, 0, 0
    for depth in range(DEPTH):
        forward = uniform(state) < 0.5
        if forward:
            track.x[:] = track.x_right
            track.p[:] = track.p_right
            track.g[:] = track.g_right
        else:
            track.x[:] = track.x_left
            track.p[:] = track.p_left
            track.g[:] = track.g_left
        weight, found, more, steps, ended = _extend(state, track, depth, step if forward else -step, energy, target)
        accepted += more
        taken += steps
        if ended != 0:
            break
        if math.log(uniform(state)) < weight - log_weight:
            value = found
            x[:] = track.x_sub
            gradient[:] = track.g_sub
        log_weight = _log_sum(log_weight, weight)
        if forward:
            track.x_right[:] = track.x
            track.p_right[:] = track.p
            track.g_right[:] = track.g
        else:
            track.x_left[:] = track.x
            track.p_left[:] = track.p
            track.g_left[:] = track.g
        for i in range(x.shape[0]):
            track.total[i] += track.total_sub[i]
        if _turns(track.p_left, track.p_right, track.total):
            break
    return value, accepted / max(taken, 1), taken, ended == 2


@nb.njit(cache=True)
def _first_step(state: Array, x: Array, gradient: Array, value: float, track: Track, target: Target) -> float:
    """Return a step at which one leapfrog step is accepted about every second time (Hoffman & Gelman 2014, algorithm 4)."""
    step, direction = 0.5, 0
    for _ in range(30):
        track.x[:] = x
        track.g[:] = gradient
        normal(state, track.p)
        energy = -value
        for i in range(x.shape[0]):
            energy += 0.5 * track.p[i] * track.p[i]
        _, _, accepted, _, ended = _extend(state, track, 0, step, energy, target)
        now = 1 if ended != 2 and accepted > 0.5 else -1
        if direction != 0 and now != direction:
            break
        direction = now
        step *= 2.0**now
    return step


@nb.njit(cache=True)
def _chain(state: Array, target: Target, tune: int, draws: Array, u: Array, accept: float, m: int) -> tuple[int, int]:
    """Fill `draws` (D, d) of the parameters and `u` (D, G) of the random effects with one chain's; return divergences and gradients."""
    d = target.mode.shape[0]
    x, gradient, track = np.empty(m), np.empty(m), _track(m)
    normal(state, x)
    value = _density(x, gradient, target)
    step = _first_step(state, x, gradient, value, track, target)
    shrink, h_bar, log_mean = math.log(10.0 * step), 0.0, 0.0
    divergent, gradients = 0, 0
    for i in range(tune + draws.shape[0]):
        value, rate, taken, diverged = transition(state, x, gradient, value, step, track, target)
        gradients += taken
        if i < tune:
            k = i + 1.0
            h_bar += (accept - rate - h_bar) / (k + 10.0)
            log_step = shrink - math.sqrt(k) / 0.05 * h_bar
            weight = k**-0.75
            log_mean += weight * (log_step - log_mean)
            step = math.exp(log_step if i + 1 < tune else log_mean)
            continue
        divergent += diverged
        for j in range(d):
            total = target.mode[j]
            for k2 in range(j + 1):
                total += target.root[j, k2] * x[k2]
            draws[i - tune, j] = total
        p = target.shape.X.shape[1]
        sign = 1.0 if draws[i - tune, p] >= 0.0 else -1.0
        draws[i - tune, p] = abs(draws[i - tune, p])
        for g in range(m - d):
            u[i - tune, g] = sign * x[d + g]
    return divergent, gradients


@nb.njit(cache=True)
def sample_nuts(
    Y: Array,
    N: Array,
    shape: Shape,
    prior: Prior,
    theta: Array,
    root: Array,
    keys: Array,
    chains: int,
    tune: int,
    n_draws: int,
    accept: float,
) -> tuple[Array, Array, Array, Array]:
    """Return of each locus draws (L, chains, D, d), standardised random effects (L, chains, D, G), divergences (L,) and gradients (L,).

    `theta` (L, d), `root` (L, d, d): modes and roots of the covariances there; a chain's numbers are those of (key, chain).
    """
    L, d = theta.shape
    G = shape.first.shape[0] - 1
    draws, u = np.empty((L, chains, n_draws, d)), np.empty((L, chains, n_draws, G))
    divergent, gradients = np.zeros(L, dtype=np.int64), np.zeros(L, dtype=np.int64)
    scratch, work, between = np.empty(d), np.empty(2 * d + d * d), np.empty(d + G)
    for locus in range(L):
        target = Target(Y[locus], N[locus], shape, prior, theta[locus], root[locus], scratch, work, between)
        for chain in range(chains):
            state = stream(keys[locus], chain)
            found, taken = _chain(state, target, tune, draws[locus, chain], u[locus, chain], accept, d + G)
            divergent[locus] += found
            gradients[locus] += taken
    return draws, u, divergent, gradients
