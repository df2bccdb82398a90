"""Writes family_derivatives.json: log densities and their derivatives in 60 digits by mpmath, from textbook forms of the densities.

Run by hand with mpmath installed: `python tests/reference/family_derivatives.py`. Nothing of the package is used.
"""

import itertools
import json
import random
from pathlib import Path

from mpmath import mp, mpf

mp.dps = 60

INVERSE = {
    "identity": lambda e: e,
    "log": mp.exp,
    "logit": lambda e: 1 / (1 + mp.exp(-e)),
    "probit": lambda e: mp.erfc(-e / mp.sqrt(2)) / 2,
    "cloglog": lambda e: -mp.expm1(-mp.exp(e)),
    "cauchit": lambda e: mp.atan2(1, -e) / mp.pi,
    "inverse": lambda e: 1 / e,
    "1/mu^2": lambda e: 1 / mp.sqrt(e),
    "sqrt": lambda e: e**2,
    "softplus": lambda e: mp.log1p(mp.exp(e)),
}
COMPLEMENT = {
    "logit": lambda e: 1 / (1 + mp.exp(e)),
    "probit": lambda e: mp.erfc(e / mp.sqrt(2)) / 2,
    "cloglog": lambda e: mp.exp(-mp.exp(e)),
    "cauchit": lambda e: mp.atan2(1, e) / mp.pi,
    "log": lambda e: -mp.expm1(e),
    "identity": lambda e: 1 - e,
}


def log_choose(n, y):
    return mp.loggamma(n + 1) - mp.loggamma(y + 1) - mp.loggamma(n - y + 1)


def log_beta(a, b):
    return mp.loggamma(a) + mp.loggamma(b) - mp.loggamma(a + b)


def poisson(y, mu):
    return y * mp.log(mu) - mu - mp.loggamma(y + 1)


def negative_binomial(y, mu, size):
    choose = mp.loggamma(y + size) - mp.loggamma(size) - mp.loggamma(y + 1)
    return choose + size * mp.log(size / (size + mu)) + y * mp.log(mu / (size + mu))


def normal(y, mu, sigma):
    return -((y - mu) ** 2) / (2 * sigma**2) - mp.log(sigma) - mp.log(2 * mp.pi) / 2


def student(y, mu, sigma, nu):
    constant = mp.loggamma((nu + 1) / 2) - mp.loggamma(nu / 2) - mp.log(nu * mp.pi) / 2 - mp.log(sigma)
    return constant - (nu + 1) / 2 * mp.log1p(((y - mu) / sigma) ** 2 / nu)


def binomial(y, n, p, q):
    return log_choose(n, y) + (y * mp.log(p) if y else 0) + ((n - y) * mp.log(q) if n > y else 0)


def mixed(y, zero, log_zero, log_density):
    return mp.log(zero + (1 - zero) * mp.exp(log_zero)) if y == 0 else mp.log(1 - zero) + log_density


def hurdle(y, zero, log_zero, log_density):
    return mp.log(zero) if y == 0 else mp.log(1 - zero) + log_density - mp.log(-mp.expm1(log_zero))


def nb_zero(mu, size):
    return size * mp.log(size / (size + mu))


DENSITY = {
    "gaussian": lambda y, n, p, q, sigma: normal(y, p, sigma),
    "student": lambda y, n, p, q, sigma, nu: student(y, p, sigma, nu),
    "lognormal": lambda y, n, p, q, sigma: normal(mp.log(y), p, sigma) - mp.log(y),
    "bernoulli": lambda y, n, p, q: binomial(y, 1, p, q),
    "binomial": binomial,
    "beta_binomial": lambda y, n, p, q, phi: log_choose(n, y) + log_beta(y + p * phi, n - y + q * phi) - log_beta(p * phi, q * phi),
    "poisson": lambda y, n, mu, q: poisson(y, mu),
    "negative_binomial": lambda y, n, mu, q, shape: negative_binomial(y, mu, shape),
    "negative_binomial1": lambda y, n, mu, q, phi: negative_binomial(y, mu, mu / phi),
    "gamma": lambda y, n, mu, q, a: a * mp.log(a / mu) + (a - 1) * mp.log(y) - a * y / mu - mp.loggamma(a),
    "inverse_gaussian": lambda y, n, mu, q, a: mp.log(a / (2 * mp.pi * y**3)) / 2 - a * (y - mu) ** 2 / (2 * mu**2 * y),
    "beta": lambda y, n, p, q, phi: (p * phi - 1) * mp.log(y) + (q * phi - 1) * mp.log(1 - y) - log_beta(p * phi, q * phi),
    "zero_inflated_poisson": lambda y, n, mu, q, zi: mixed(y, zi, -mu, poisson(y, mu)),
    "zero_inflated_negative_binomial": lambda y, n, mu, q, s, zi: mixed(y, zi, nb_zero(mu, s), negative_binomial(y, mu, s)),
    "zero_inflated_binomial": lambda y, n, p, q, zi: mixed(y, zi, n * mp.log(q), binomial(y, n, p, q)),
    "hurdle_poisson": lambda y, n, mu, q, hu: hurdle(y, hu, -mu, poisson(y, mu)),
    "hurdle_negative_binomial": lambda y, n, mu, q, s, hu: hurdle(y, hu, nb_zero(mu, s), negative_binomial(y, mu, s)),
    "truncated_poisson": lambda y, n, mu, q: hurdle(y, 0, -mu, poisson(y, mu)),
    "truncated_negative_binomial": lambda y, n, mu, q, s: hurdle(y, 0, nb_zero(mu, s), negative_binomial(y, mu, s)),
}


def levels(probabilities):
    """Of three ordered levels with two thresholds: the log density from F below and above a point, by `probabilities`."""
    return lambda link, y, eta, *taus: mp.log(probabilities(INVERSE[link], COMPLEMENT[link], eta, *taus)[y])


def adjacent(below, above, eta, first, second):
    weights = [above(eta - first) * above(eta - second), below(eta - first) * above(eta - second), below(eta - first) * below(eta - second)]
    return [weight / sum(weights) for weight in weights]


ORDERED = {
    "cumulative": levels(lambda below, above, e, s, t: [below(s - e), below(t - e) - below(s - e), above(t - e)]),
    "sratio": levels(lambda below, above, e, s, t: [below(s - e), above(s - e) * below(t - e), above(s - e) * above(t - e)]),
    "cratio": levels(lambda below, above, e, s, t: [above(e - s), below(e - s) * above(e - t), below(e - s) * below(e - t)]),
    "acat": levels(adjacent),
}

PROBABILITY = ("logit", "probit", "cloglog", "cauchit")
COUNT = ("log", "sqrt", "softplus")
FAMILIES = {
    "gaussian": (("identity", "log"), ("log",)),
    "student": (("identity",), ("log", "log")),
    "lognormal": (("identity",), ("log",)),
    "bernoulli": ((*PROBABILITY, "log"), ()),
    "binomial": ((*PROBABILITY, "log"), ()),
    "beta_binomial": (PROBABILITY, ("log",)),
    "poisson": (COUNT, ()),
    "negative_binomial": (COUNT, ("log",)),
    "negative_binomial1": (("log",), ("log",)),
    "gamma": (("log", "inverse", "identity"), ("log",)),
    "inverse_gaussian": (("1/mu^2", "log", "inverse"), ("log",)),
    "beta": (("logit", "probit"), ("log",)),
    "zero_inflated_poisson": (("log",), ("logit",)),
    "zero_inflated_negative_binomial": (("log",), ("log", "logit")),
    "zero_inflated_binomial": (("logit", "cloglog"), ("logit",)),
    "hurdle_poisson": (("log",), ("logit",)),
    "hurdle_negative_binomial": (("log",), ("log", "logit")),
    "truncated_poisson": (("log",), ()),
    "truncated_negative_binomial": (("log",), ("log",)),
}
ETAS = {
    "identity": (0.3, 1.7, 8.0),
    "log": (-12.0, -3.0, -0.4, 0.9, 3.5, 7.0),
    "logit": (-30.0, -5.0, -0.7, 0.4, 6.0, 30.0),
    "probit": (-30.0, -4.0, -2.9, 0.4, 3.1, 30.0),
    "cloglog": (-30.0, -6.0, -0.6, 0.2, 1.4, 4.0),
    "cauchit": (-30.0, -2.0, 0.3, 1.0, 30.0),
    "inverse": (0.2, 1.1, 6.0),
    "1/mu^2": (0.05, 0.9, 4.0),
    "sqrt": (0.4, 1.3, 5.0),
    "softplus": (-3.0, 0.2, 4.0, 20.0),
}
BELOW_ZERO = (-20.0, -3.0, -0.4, -0.01)
FURTHER = {"log": (-6.0, -1.0, 0.3, 2.0, 5.0, 14.0), "logit": (-25.0, -2.0, 0.5, 4.0)}
COUNTS, POSITIVE_COUNTS = (0, 1, 2, 7, 60), (1, 2, 7, 60)
SUCCESSES = ((0, 1), (1, 1), (0, 9), (4, 9), (9, 9), (70, 300))
RESPONSES = {
    "gaussian": (-2.0, 0.1, 5.5),
    "student": (-2.0, 0.1, 50.0),
    "lognormal": (0.01, 0.8, 30.0),
    "gamma": (0.01, 0.8, 30.0),
    "inverse_gaussian": (0.01, 0.8, 30.0),
    "beta": (0.001, 0.4, 0.99),
    "bernoulli": (0, 1),
    "truncated_poisson": POSITIVE_COUNTS,
    "truncated_negative_binomial": POSITIVE_COUNTS,
}
TRIALS = {"binomial", "beta_binomial", "zero_inflated_binomial"}
POINTS = 10
TINY = mpf(10) ** -60


def cases():
    rng = random.Random(4)
    for family, (mean_links, links) in FAMILIES.items():
        for mean_link in mean_links:
            below = mean_link == "log" and family in ("bernoulli", "binomial")
            etas = [BELOW_ZERO if below else ETAS[mean_link], *(FURTHER[link] for link in links)]
            responses = SUCCESSES if family in TRIALS else [(y, None) for y in RESPONSES.get(family, COUNTS)]
            grid = list(itertools.product(responses, *etas))
            for point in rng.sample(grid, min(POINTS, len(grid))):
                (y, n), *eta = point
                yield family, (mean_link, *links), y, n, tuple(eta)


def ordered_cases():
    rng = random.Random(5)
    for family in ORDERED:
        for link, latent in (
            ("logit", (-30.0, -3.0, 0.2, 4.0, 30.0)),
            ("probit", (-9.0, -2.0, 0.2, 3.0, 9.0)),
            ("cloglog", (-3.0, -1.0, 0.3, 1.5, 9.0)),
        ):
            grid = list(itertools.product((0, 1, 2), latent, ((-0.8, 0.9), (0.1, 0.11), (-2.0, 2.5))))
            for y, eta, thresholds in rng.sample(grid, POINTS):
                yield family, (link, "identity", "identity"), y, None, (eta, *thresholds)


def derivatives(family, links, y, n, eta):
    def density(*e):
        if family in ORDERED:
            return ORDERED[family](links[0], y, *e)
        further = [INVERSE[link](value) for link, value in zip(links[1:], e[1:], strict=True)]
        q = COMPLEMENT[links[0]](e[0]) if links[0] in COMPLEMENT else None
        return DENSITY[family](mpf(y), n, INVERSE[links[0]](e[0]), q, *further)

    point = tuple(mpf(value) for value in eta)
    orders = [o for o in itertools.product(range(4), repeat=len(eta)) if sum(o) <= 3]
    with mp.workdps(120):
        found = {o: mp.diff(density, point, o) if sum(o) else density(*point) for o in orders}
    return {",".join(map(str, o)): float(value) if abs(value) > TINY else 0.0 for o, value in found.items()}


def main():
    rows = [
        {"family": family, "links": links, "y": y, "trials": n, "eta": eta, "derivatives": derivatives(family, links, y, n, eta)}
        for family, links, y, n, eta in itertools.chain(cases(), ordered_cases())
    ]
    lines = ",\n".join(json.dumps(row) for row in rows)
    Path(__file__).with_suffix(".json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
