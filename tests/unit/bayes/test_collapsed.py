"""The collapsed density and its draws of random effects against dense normal distributions and PyMC's own prior densities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import multivariate_normal

import bayeslmm as bl
from bayeslmm.bayes import collapsed, collapsed_effects, collapsed_native
from bayeslmm.bayes.collapsed_density import Density, density_of, evaluator
from bayeslmm.bayes.collapsed_priors import constrain, form, scalars_of
from bayeslmm.bayes.translate import factors
from bayeslmm.errors import FitError
from bayeslmm.priors import Distribution, PriorRow, log_density

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")


def _sleepstudy() -> pd.DataFrame:
    data = bl.load_dataset("sleepstudy").iloc[:80].copy()
    rng = np.random.default_rng(0)
    data["w"] = rng.uniform(0.5, 2.0, len(data))
    data["o"] = rng.normal(0.0, 20.0, len(data))
    data["half"] = np.where(data["Days"] < 4, "a", np.where(data["Days"] < 7, "b", "c"))
    data["site"] = [f"s{i}" for i in rng.integers(0, 4, len(data))]
    return data


def _crossed(n: int = 150) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    g, h, c = rng.integers(0, 12, n), rng.integers(0, 9, n), rng.integers(0, 3, n)
    x = rng.normal(size=n)
    y = 3.0 + 0.5 * x + rng.normal(size=12)[g] + 0.7 * rng.normal(size=9)[h] * x + rng.normal(size=n)
    return pd.DataFrame({"y": y, "x": x, "g": [f"g{i}" for i in g], "h": [f"h{i}" for i in h], "c": [f"c{i}" for i in c]})


def _wide() -> pd.DataFrame:
    """Crossed factors, most levels of one with each of the other: rows that BLAS takes together."""
    rng = np.random.default_rng(4)
    g, h = (one.ravel() for one in np.meshgrid(np.arange(16), np.arange(11)))
    g, h = g[5:], h[5:]
    x = rng.normal(size=len(g))
    y = 1.0 + 0.5 * x + rng.normal(size=16)[g] + 0.7 * rng.normal(size=11)[h] * x + rng.normal(size=len(g))
    return pd.DataFrame({"y": y, "x": x, "g": [f"g{i}" for i in g], "h": [f"h{i}" for i in h]})


def _spread() -> pd.DataFrame:
    """Crossed factors of many levels, few of one with each of the other: rows that are taken by dense column."""
    rng = np.random.default_rng(5)
    g, h = np.repeat(np.arange(130), 4), rng.integers(0, 104, 520)
    x = rng.normal(size=520)
    y = 1.0 + 0.5 * x + rng.normal(size=130)[g] + 0.7 * rng.normal(size=104)[h] * x + rng.normal(size=520)
    return pd.DataFrame({"y": y, "x": x, "g": [f"g{i}" for i in g], "h": [f"h{i}" for i in h]})


def _errors() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    study, s = np.arange(24) % 9, rng.uniform(0.3, 2.0, 24)
    return pd.DataFrame({"y": 1.0 + rng.normal(size=9)[study] + s * rng.normal(size=24), "s": s, "study": [f"s{i}" for i in study]})


def _related() -> pd.DataFrame:
    """A covariance among the eight subjects of `_sleepstudy`, in another order, and a ninth."""
    names = [*reversed(bl.load_dataset("sleepstudy")["Subject"].astype(str).unique()[:8]), "other"]
    A = np.random.default_rng(8).normal(size=(9, 12))
    return pd.DataFrame(A @ A.T / 12.0, index=names, columns=names)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model whose density is checked."""

    name: str
    formula: str
    data: Callable[[], pd.DataFrame] = _sleepstudy
    options: dict[str, Any] = field(default_factory=dict)
    priors: tuple[tuple[str, str, str | None], ...] = ()

    def model(self) -> bl.Model:
        rows = [bl.prior(text, part=part, term=term) for text, part, term in self.priors]
        return bl.model(self.formula, self.data(), priors=rows or None, **self.options)


CASES = (
    Case(name="correlated", formula="Reaction ~ Days + (Days | Subject)"),
    Case(name="uncorrelated", formula="Reaction ~ Days + (Days || Subject)"),
    Case(name="three_effects", formula="Reaction ~ half + (half | Subject)", priors=(("lkj(3.5)", "cor", None),)),
    Case(name="diag_hom", formula="Reaction ~ half + diag(half | Subject, hom = TRUE)"),
    Case(name="cs", formula="Reaction ~ half + cs(0 + half | Subject)"),
    Case(name="ar1", formula="Reaction ~ half + ar1(0 + half | Subject) + (1 | site)"),
    Case(name="two_terms", formula="Reaction ~ half + (half | Subject) + (0 + Days | Subject)"),
    Case(name="two_correlated_terms", formula="Reaction ~ Days + (0 + half | Subject) + cs(Days | Subject)"),
    Case(name="nested", formula="Reaction ~ Days + (1 | Subject / half)"),
    Case(name="weights", formula="Reaction ~ Days + (Days | Subject)", options={"weights": "w"}),
    Case(name="powers", formula="Reaction ~ Days + (Days | Subject)", options={"weights": "w", "dialect": "brms"}),
    Case(name="offset", formula="Reaction ~ Days + offset(o) + (1 | Subject)"),
    Case(name="no_intercept", formula="Reaction ~ 0 + half + (1 | Subject)"),
    Case(name="no_fixed", formula="Reaction ~ 0 + (1 | Subject)"),
    Case(name="intercept_only", formula="Reaction ~ 1 + (1 | Subject)"),
    Case(name="raw_intercept", formula="Reaction ~ Days + (1 | Subject)", priors=(("normal(250, 50)", "fixed", "(Intercept)"),)),
    Case(
        name="many_priors",
        formula="Reaction ~ half * Days + (Days | Subject)",
        priors=(
            ("logistic(250, 30)", "intercept", None),
            ("cauchy(0, 10)", "fixed", None),
            ("uniform(-300, 300)", "fixed", "halfc"),
            ("lognormal(1, 2)", "fixed", "Days"),
            ("constant(0.5)", "fixed", "halfb:Days"),
            ("flat()", "fixed", "halfc:Days"),
            ("gamma(2, 0.1)", "sd", "(Intercept)"),
            ("constant(4)", "sd", "Days"),
            ("inv_gamma(2, 20)", "aux", "sigma"),
        ),
    ),
    Case(
        name="cut_priors",
        formula="Reaction ~ Days + (Days | Subject)",
        priors=(("normal(20, 10)", "sd", "(Intercept)"), ("exponential(0.1)", "sd", "Days"), ("uniform(-5, 100)", "aux", "sigma")),
    ),
    Case(name="crossed", formula="y ~ x + (1 | g) + (1 | h)", data=_crossed),
    Case(name="crossed_slopes", formula="y ~ x + (x | g) + (x | h) + (1 | c)", data=_crossed),
    Case(name="wide", formula="y ~ x + (1 | g) + (1 | h)", data=_wide),
    Case(name="wide_slopes", formula="y ~ x + (x | g) + (x | h)", data=_wide),
    Case(name="spread", formula="y ~ x + (1 | g) + (1 | h)", data=_spread),
    Case(name="spread_slopes", formula="y ~ x + (x | g) + (0 + x | h)", data=_spread),
    Case(name="related", formula="Reaction ~ Days + (Days | gr(Subject, cov = A)) + (1 | site)", options={"data2": {"A": _related()}}),
    Case(name="all_related", formula="Reaction ~ Days + (1 | gr(Subject, cov = A))", options={"data2": {"A": _related()}}),
    Case(name="known_errors", formula="y | se(s) ~ 1 + (1 | study)", data=_errors),
    Case(name="known_errors_brms", formula="y | se(s, sigma = FALSE) ~ 1 + (1 | study)", data=_errors, options={"dialect": "brms"}),
)


def _posterior(density: Density, model: bl.Model, u: np.ndarray) -> dict[str, np.ndarray]:
    """One point's variables, as the tree names them."""
    values = collapsed_effects.values_of(density, u[None])
    found = {"b": collapsed_effects.coefficients(density, values)[0], "sigma": values.x[0, -1]}
    for f, group in enumerate(factors(model)):
        found[f"sd_{group.label}"] = collapsed_effects.deviations(density, values, f)[0]
        found[f"cor_{group.label}"] = collapsed_effects.correlations(density, values, f)[0]
    return found


def _covariance(model: bl.Model, found: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Z (n, q) and the covariance (q, q) of all random effects, factor by factor, levels outer."""
    columns, blocks = [], []
    for group in factors(model):
        z = np.column_stack([block.values for block in group.blocks])
        wide = np.eye(len(group.levels))[group.blocks[0].index][:, :, None] * z[:, None, :]
        columns.append(wide.reshape(len(z), -1))
        sd = found[f"sd_{group.label}"]
        among = np.eye(len(group.levels)) if group.known is None else group.known.relationship.among(group.levels)
        blocks.append(np.kron(among, sd[:, None] * found[f"cor_{group.label}"] * sd))
    covariance = np.zeros((sum(len(one) for one in blocks),) * 2)
    at = 0
    for one in blocks:
        covariance[at : at + len(one), at : at + len(one)] = one
        at += len(one)
    return np.column_stack(columns), covariance


def _likelihood(model: bl.Model, found: dict[str, np.ndarray]) -> float:
    """Log density of y with the random effects integrated out, by a dense matrix; brms's weights are powers of the rows' densities."""
    design, sigma = model.design, found["sigma"]
    weights = design.weights if design.has_weights else np.ones(design.n)
    Z, covariance = _covariance(model, found)
    V = Z @ covariance @ Z.T + np.diag(sigma**2 / weights)
    value = multivariate_normal(design.offset + design.X @ found["b"], V).logpdf(design.y)
    if model.dialect == "brms":
        value += np.sum(0.5 * np.log(2 * np.pi * sigma**2 / weights) - 0.5 * weights * np.log(2 * np.pi * sigma**2))
    return float(value)


def _pymc_values(model: bl.Model, found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The free variables of the translation, on their own scale, from those of the posterior."""
    design, b = model.design, found["b"]
    names = list(design.fixed_names)
    centred = any(row.part == "intercept" for row in model.prior_rows)
    slopes = np.array([value for name, value in zip(names, b, strict=True) if not (centred and name == "(Intercept)")])
    values: dict[str, Any] = {"beta": slopes, "sigma": found["sigma"]}
    if centred:
        values["Intercept"] = design.X.mean(axis=0) @ b
    values |= {f"beta[{row.term}]": slope for row, slope in zip((r for r in model.prior_rows if r.part == "fixed"), slopes, strict=True)}
    for group in factors(model):
        sd, cor = found[f"sd_{group.label}"], found[f"cor_{group.label}"]
        values |= {f"sd_{group.label}": sd, f"tau_{group.label}": np.array(list(dict.fromkeys(sd)))}
        values |= {f"sd_{group.label}[{effect}]": one for effect, one in zip(group.effects, sd, strict=True)}
        for position, (columns, structure) in enumerate(zip(group.columns, group.structures, strict=True), start=1):
            own = cor[np.ix_(columns, columns)]
            label = f"{group.label}[{position}]" if len(group.blocks) > 1 else group.label
            values[f"L_{label}"] = np.linalg.cholesky(own)
            if not structure.linear:
                lowest = structure.lower(len(columns))[-1]
                values[f"rho_{label}"] = (own[0, 1] - lowest) / (1.0 - lowest)
    return values


def _pymc_prior(model: bl.Model, points: list[dict[str, np.ndarray]]) -> list[float]:
    """Log densities of all parameters but the random effects, on the real line, by PyMC."""
    from pytensor.compile import function

    translated = model.to_pymc()
    variables = [variable for variable in translated.free_RVs if not variable.name.startswith("z_")]
    mode = "FAST_COMPILE"
    logp = translated.compile_logp(vars=variables, mode=mode)
    inputs = {}
    for variable in variables:
        transform = translated.rvs_to_transforms[variable]
        value = variable.type()
        moved = value if transform is None else transform.forward(value, *variable.owner.inputs)
        inputs[translated.rvs_to_values[variable].name] = (variable.name, function([value], moved, mode=mode))
    start = translated.initial_point()
    results = []
    for found in points:
        values = _pymc_values(model, found)
        moved = {name: forward(values[of]) for name, (of, forward) in inputs.items()}
        results.append(float(logp({**start, **moved})))
    return results


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_density_is_that_of_the_hierarchical_model_with_effects_integrated_out(case: Case) -> None:
    model = case.model()
    density = density_of(model)
    evaluate = evaluator(density)
    rng = np.random.default_rng(1)
    points = [density.start + density.scale * rng.normal(size=density.dim) for _ in range(3)]
    found = [_posterior(density, model, u) for u in points]
    expected = [_likelihood(model, one) + prior for one, prior in zip(found, _pymc_prior(model, found), strict=True)]
    difference = np.array([evaluate(u)[0] for u in points]) - expected
    # PyMC's constants, as log(2 pi), are rounded to single precision: the same at all points.
    assert np.max(np.abs(difference)) < 1e-6
    assert np.ptp(difference) < 1e-8


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradient_is_that_of_differences(case: Case) -> None:
    density = density_of(case.model())
    evaluate = evaluator(density)
    rng = np.random.default_rng(2)
    for _ in range(2):
        u = density.start + density.scale * rng.normal(size=density.dim)
        _, grad = evaluate(u)
        steps = np.diag(density.scale) * 1e-4
        slopes = [(8 * (evaluate(u + h)[0] - evaluate(u - h)[0]) - evaluate(u + 2 * h)[0] + evaluate(u - 2 * h)[0]) / 12e-4 for h in steps]
        np.testing.assert_allclose(grad * density.scale, slopes, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("marginal", [False, True])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_native_density_is_the_same_in_whitened_coordinates(case: Case, marginal: bool) -> None:
    density = density_of(case.model(), marginal=marginal)
    rng = np.random.default_rng(9)
    root = np.diag(density.scale) @ np.tril(np.eye(density.dim) + 0.1 * rng.normal(size=(density.dim, density.dim)))
    buffer = collapsed_native.laid_out(density, density.start, root)
    t, grad = rng.normal(size=density.dim), np.empty(density.dim)
    value = collapsed_native.whitened(buffer, buffer.view(np.float64), t, grad)
    expected, by_u = evaluator(density)(density.start + root @ t)
    assert value == pytest.approx(expected, rel=1e-12)
    np.testing.assert_allclose(grad, root.T @ by_u, rtol=1e-9, atol=1e-9)


MARGINAL = (
    *(case for case in CASES if case.name in ("three_effects", "ar1", "weights", "powers", "no_intercept", "wide_slopes", "related")),
    Case(
        name="flat", formula="Reaction ~ half * Days + (Days | Subject)", priors=(("flat()", "fixed", None), ("flat()", "intercept", None))
    ),
    Case(
        name="normal",
        formula="Reaction ~ half + (1 | site)",
        priors=(("normal(9, 3)", "fixed", None), ("normal(200, 50)", "intercept", None)),
    ),
)


@pytest.mark.parametrize("case", MARGINAL, ids=lambda case: case.name)
def test_density_without_coefficients_is_the_integral_over_them(case: Case) -> None:
    """At any coefficients: log p(u) = log p(u, b) - log p(b | u), whose normal distribution has the second derivatives of log p(u, b)."""
    model = case.model()
    full, density = density_of(model), density_of(model, marginal=True)
    inner, rng = density.plan.inner, np.random.default_rng(12)
    places = [int(np.flatnonzero(full.plan.scalars.slot == slot)[0]) for slot in inner]
    others = np.setdiff1d(np.arange(full.dim), places)
    assert len(inner)
    assert density.dim == len(others)
    both, one = evaluator(full), evaluator(density)
    for _ in range(2):
        u = full.start + full.scale * rng.normal(size=full.dim)
        size = full.scale[places]
        gradient = both(u)[1][places] * size
        H = np.empty((len(inner), len(inner)))
        for column, place in enumerate(places):
            step = np.zeros(full.dim)
            step[place] = full.scale[place]
            H[:, column] = (both(u + step)[1][places] * size - both(u - step)[1][places] * size) / 2.0  # quadratic: no error of differences
        away = np.linalg.solve(-H, gradient)
        log_conditional = 0.5 * np.linalg.slogdet(-H / np.outer(size, size) / (2.0 * np.pi))[1] - 0.5 * away @ -H @ away
        assert one(u[others])[0] == pytest.approx(both(u)[0] - log_conditional, rel=1e-10, abs=1e-8)


@pytest.mark.parametrize("case", MARGINAL, ids=lambda case: case.name)
def test_gradient_without_coefficients_is_that_of_differences(case: Case) -> None:
    density = density_of(case.model(), marginal=True)
    evaluate, rng = evaluator(density), np.random.default_rng(2)
    u = density.start + density.scale * rng.normal(size=density.dim)
    steps = np.diag(density.scale) * 1e-4
    slopes = [(8 * (evaluate(u + h)[0] - evaluate(u - h)[0]) - evaluate(u + 2 * h)[0] + evaluate(u - 2 * h)[0]) / 12e-4 for h in steps]
    np.testing.assert_allclose(evaluate(u)[1] * density.scale, slopes, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("case", [MARGINAL[-1], MARGINAL[-3]], ids=lambda case: case.name)
def test_coefficients_and_effects_are_drawn_from_their_joint_distribution(case: Case) -> None:
    """Twin: the normal distribution of (coefficients, effects) given the response, their priors and the other parameters."""
    model = case.model()
    density = density_of(model, marginal=True)
    u = density.start + 0.3 * density.scale * np.random.default_rng(4).normal(size=density.dim)
    n, design, plan = 5_000, model.design, density.plan
    values = collapsed_effects.values_of(density, np.tile(u, (n, 1)))
    found = _posterior(density, model, u)
    drawn = collapsed_effects.effects(density, values, np.random.default_rng(5))
    flat = np.concatenate([values.x[:, plan.inner], *(one.reshape(n, -1) for one in drawn)], axis=1)
    Z, covariance = _covariance(model, found)
    X = (design.X - density.means)[:, plan.inner]
    precision = np.zeros((len(plan.inner) + Z.shape[1],) * 2)
    precision[: len(plan.inner), : len(plan.inner)] = np.diag(plan.inner_precision)
    precision[len(plan.inner) :, len(plan.inner) :] = np.linalg.inv(covariance)
    XZ = np.hstack([X, Z])
    precision += XZ.T @ (design.weights[:, None] * XZ) / found["sigma"] ** 2
    rest = np.setdiff1d(np.arange(density.p), plan.inner)
    y = design.y - design.offset - (design.X - density.means)[:, rest] @ values.x[0, rest]
    right = XZ.T @ (design.weights * y) / found["sigma"] ** 2
    right[: len(plan.inner)] += plan.inner_precision * plan.inner_mean
    mean, spread = np.linalg.solve(precision, right), np.linalg.inv(precision)
    deviation = np.sqrt(np.diag(spread))
    standard = (flat - mean) / deviation
    assert np.max(np.abs(standard.mean(axis=0))) < 4.5 / np.sqrt(n)
    assert np.max(np.abs(standard.T @ standard / n - spread / np.outer(deviation, deviation))) < 6.0 / np.sqrt(n)


@pytest.mark.parametrize("name", ["correlated", "two_terms", "ar1", "nested", "weights", "crossed_slopes", "wide_slopes", "related"])
def test_effects_are_drawn_from_their_distribution_given_the_parameters(name: str) -> None:
    (case,) = [one for one in CASES if one.name == name]
    model = case.model()
    density = density_of(model)
    rng = np.random.default_rng(4)
    u = density.start + 0.3 * density.scale * rng.normal(size=density.dim)
    found = _posterior(density, model, u)
    design, sigma = model.design, found["sigma"]
    Z, covariance = _covariance(model, found)
    V = Z @ covariance @ Z.T + np.diag(sigma**2 / design.weights)
    gain = covariance @ Z.T @ np.linalg.inv(V)
    mean = gain @ (design.y - design.offset - design.X @ found["b"])
    spread = covariance - gain @ Z @ covariance
    n = 5_000
    drawn = collapsed_effects.effects(density, collapsed_effects.values_of(density, np.tile(u, (n, 1))), np.random.default_rng(5))
    flat = np.concatenate([one.reshape(n, -1) for one in drawn], axis=1)
    deviation = np.sqrt(np.diag(spread))
    assert np.max(np.abs(flat.mean(axis=0) - mean) / deviation) < 4.5 / np.sqrt(n)
    correlation = spread / np.outer(deviation, deviation)
    standard = (flat - mean) / deviation
    assert np.max(np.abs(standard.T @ standard / n - correlation)) < 6.0 / np.sqrt(n)


def test_effects_do_not_depend_on_the_chunk() -> None:
    density = density_of(MARGINAL[-1].model())
    values = collapsed_effects.values_of(density, density.start + 0.1 * np.random.default_rng(0).normal(size=(7, density.dim)))
    one, other = (collapsed_effects.effects(density, values, np.random.default_rng(1), chunk=chunk) for chunk in (3, 100))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a, b)


def test_density_does_not_depend_on_where_a_predictor_has_its_zero() -> None:
    data, rng = _sleepstudy(), np.random.default_rng(6)
    shifted = data.assign(Days=data["Days"] + 1e7)
    fixed = "Reaction ~ Days + (1 | Subject)"
    one, other = (density_of(bl.model(fixed, frame)) for frame in (data, shifted))
    first, second = evaluator(one), evaluator(other)
    for u in one.start + one.scale * rng.normal(size=(3, one.dim)):
        assert first(u)[0] == pytest.approx(second(u)[0], rel=1e-9)


def test_density_does_not_depend_on_the_order_of_rows_and_levels() -> None:
    data = _crossed()
    formula = "y ~ x + (x | g) + (1 | h)"
    shuffled = data.sample(frac=1.0, random_state=1).assign(g=lambda frame: "z" + frame["g"].str[::-1])
    one, other = (density_of(bl.model(formula, frame)) for frame in (data, shuffled))
    first, second = evaluator(one), evaluator(other)
    for u in one.start + one.scale * np.random.default_rng(7).normal(size=(3, one.dim)):
        assert first(u)[0] == pytest.approx(second(u)[0], rel=1e-10)
        np.testing.assert_allclose(first(u)[1], second(u)[1], rtol=1e-7, atol=1e-7)


PRIORS = (
    ("flat", ()),
    ("uniform", (-1.0, 3.0)),
    ("normal", (1.0, 2.0)),
    ("student_t", (3.0, 1.0, 2.0)),
    ("cauchy", (1.0, 2.0)),
    ("logistic", (1.0, 2.0)),
    ("exponential", (0.7,)),
    ("gamma", (2.5, 0.7)),
    ("gamma", (1.0, 0.7)),
    ("inv_gamma", (2.5, 0.7)),
    ("beta", (2.5, 0.7)),
    ("lognormal", (0.3, 0.8)),
)


@pytest.mark.parametrize(("name", "args"), PRIORS)
@pytest.mark.parametrize("part", ["fixed", "sd"])
def test_forms_of_priors(name: str, args: tuple[float, ...], part: str) -> None:
    distribution = Distribution(name=name, args=args)
    row = PriorRow(part=part, group="g", term="x", distribution=distribution)
    scalars, constant = scalars_of([(0, row)], bl.model("Reaction ~ Days + (1 | Subject)", _sleepstudy()).family)
    lower, upper = scalars.lower[0], scalars.upper[0]
    for u in (-1.3, 0.2, 1.1):
        x, slope, log_jacobian, its_slope = constrain(u, lower, upper)
        assert lower < x < upper
        value, by_x = form(scalars.kind[0], scalars.args[0], x)
        assert value + constant == pytest.approx(float(log_density(distribution, np.array(x), lower, upper)), abs=1e-12)
        h = 1e-6
        above, below = constrain(u + h, lower, upper), constrain(u - h, lower, upper)
        assert slope == pytest.approx((above[0] - below[0]) / (2 * h), rel=1e-6)
        assert log_jacobian == pytest.approx(np.log(abs(slope)), abs=1e-12)
        assert its_slope == pytest.approx((above[2] - below[2]) / (2 * h), abs=1e-6)
        forms = [form(scalars.kind[0], scalars.args[0], x + step)[0] for step in (h, -h)]
        assert by_x == pytest.approx((forms[0] - forms[1]) / (2 * h), rel=1e-5, abs=1e-7)


@pytest.mark.parametrize(
    ("formula", "family", "options", "reason"),
    [
        ("Reaction ~ Days + (1 | Subject)", "student", {}, "the response is not Gaussian"),
        ("Reaction ~ Days + (1 | Subject)", "gaussian", {"link": "log"}, "the response is not Gaussian"),
        ("Reaction ~ Days", "gaussian", {}, "the model has no random effects"),
        (bl.formula("Reaction ~ Days + (1 | Subject)", sigma="~ Days"), "gaussian", {}, "a further parameter has a predictor"),
        ("Reaction ~ Days + ar(Days, Subject) + (1 | Subject)", "gaussian", {}, "residuals are correlated"),
    ],
)
def test_where_it_does_not_apply(formula: Any, family: str, options: dict[str, Any], reason: str) -> None:
    model = bl.model(formula, _sleepstudy(), family, **options)
    assert reason in str(collapsed.limit(model))
    with pytest.raises(FitError, match=f"the sampler 'collapsed' does not apply: {reason}"):
        bl.brm(model, sampler="collapsed")


def test_approximation_is_the_mode_and_the_curvature() -> None:
    density = density_of(CASES[0].model())
    evaluate = evaluator(density)
    approximation = collapsed.approximate(density, evaluate)
    value, grad = evaluate(approximation.mode)
    assert np.max(np.abs(approximation.root.T @ grad)) < 1e-3
    rng = np.random.default_rng(8)
    for direction in rng.normal(size=(5, density.dim)):
        unit = approximation.root @ (direction / np.linalg.norm(direction))
        second = (evaluate(approximation.mode + 0.01 * unit)[0] + evaluate(approximation.mode - 0.01 * unit)[0] - 2.0 * value) / 1e-4
        assert second == pytest.approx(-1.0, abs=1e-3)
