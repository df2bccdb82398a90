"""The direct sampler's density against PyMC's of the same model, its gradient against differences, and the coordinates it starts in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.bayes import SAMPLERS, direct_density
from bayeslmm.bayes.direct import limit
from bayeslmm.bayes.direct_plan import Direct, columns_of, direct_of, evaluate, laid_out, linearised, values_of
from bayeslmm.bayes.direct_start import whiten
from bayeslmm.bayes.samplers import sampler_named
from bayeslmm.bayes.translate import deviation_slots, factors
from bayeslmm.covariance import structure_of
from bayeslmm.families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS installation:UserWarning")


def _data(n: int = 90) -> pd.DataFrame:
    """Rows of three crossed factors, one of them holding a nested one, with responses of all kinds."""
    rng = np.random.default_rng(4)
    g, h = rng.integers(0, 9, n), rng.integers(0, 5, n)
    x, w = rng.normal(size=n), rng.uniform(0.5, 2.0, n)
    trials = rng.integers(1, 20, n)
    effect = 0.8 * rng.normal(size=9)[g] + 0.5 * rng.normal(size=5)[h] * x
    mu = np.exp(0.4 + 0.3 * x + effect)
    p = mu / (1.0 + mu)
    positive = rng.gamma(2.0, mu / 2.0) + 1e-3
    return pd.DataFrame(
        {
            "x": x,
            "w": w,
            "o": 0.3 * rng.normal(size=n),
            "trials": trials,
            "g": [f"g{i}" for i in g],
            "h": [f"h{i}" for i in h],
            "c": [f"c{i}" for i in rng.integers(0, 3, n)],
            "count": rng.poisson(mu),
            "positive_count": 1 + rng.poisson(mu),
            "hits": rng.binomial(trials, p),
            "event": rng.binomial(1, p),
            "real": np.log(mu) + 0.5 * rng.standard_t(4, n),
            "positive": positive,
            "share": np.clip(rng.beta(2.0 * p + 0.2, 2.2 - 2.0 * p), 0.01, 0.99),
        }
    )


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model whose density is checked."""

    name: str
    formula: str
    family: str
    options: dict[str, Any] = field(default_factory=dict)
    priors: tuple[tuple[str, str, str | None], ...] = ()

    def model(self) -> bl.Model:
        rows = [bl.prior(text, part=part, term=term) for text, part, term in self.priors]
        return bl.model(self.formula, _data(), family=self.family, priors=rows or None, **self.options)


RESPONSES = {
    "gaussian": "real",
    "student": "real",
    "lognormal": "positive",
    "gamma": "positive",
    "inverse_gaussian": "positive",
    "beta": "share",
    "bernoulli": "event",
    "binomial": "hits | trials(trials)",
    "beta_binomial": "hits | trials(trials)",
    "zero_inflated_binomial": "hits | trials(trials)",
    "truncated_poisson": "positive_count",
    "truncated_negative_binomial": "positive_count",
}
"""Of a family; all others are of counts."""
WITH_KERNEL = [family.name for family in FAMILIES.values() if family.kernel is not None]
OPTIONS = {"inverse_gaussian": {"link": "log"}}
"""Its own link, 1/mu^2, is not defined everywhere."""
BY_FAMILY = [
    Case(name=name, formula=f"{RESPONSES.get(name, 'count')} ~ x + (1 | g)", family=name, options=OPTIONS.get(name, {}))
    for name in WITH_KERNEL
]
STRUCTURES = [
    Case(name="correlated", formula="count ~ x + (x | g)", family="poisson"),
    Case(name="three_effects", formula="hits | trials(trials) ~ c + (c | g)", family="binomial", priors=(("lkj(3.5)", "cor", None),)),
    Case(name="uncorrelated", formula="count ~ x + (x || g)", family="negative_binomial"),
    Case(name="homdiag", formula="count ~ c + diag(c | g, hom = TRUE)", family="poisson"),
    Case(name="two_terms", formula="count ~ x + (c | g) + (0 + x | g)", family="poisson"),
    Case(name="crossed", formula="event ~ x + (x | g) + (1 | h) + (1 | c)", family="bernoulli"),
    Case(name="nested", formula="count ~ x + (1 | g / h)", family="poisson"),
    Case(name="no_groups", formula="count ~ x + c", family="poisson"),
    Case(name="no_intercept", formula="count ~ 0 + c + (1 | g)", family="poisson"),
    Case(name="no_fixed", formula="count ~ 0 + (1 | g)", family="poisson"),
    Case(name="intercept_only", formula="event ~ 1 + (1 | g)", family="bernoulli"),
    Case(name="offset", formula="count ~ x + offset(o) + (1 | g)", family="poisson"),
    Case(name="powers", formula="count ~ x + (1 | g)", family="poisson", options={"weights": "w"}),
    Case(name="precisions", formula="real ~ x + (1 | g)", family="student", options={"weights": "w"}),
    Case(name="brms_weights", formula="real ~ x + (1 | g)", family="student", options={"weights": "w", "dialect": "brms"}),
    Case(name="raw_intercept", formula="event ~ x + (1 | g)", family="bernoulli", priors=(("normal(0, 2)", "fixed", "(Intercept)"),)),
    Case(
        name="many_priors",
        formula="count ~ c * x + (x | g)",
        family="negative_binomial",
        priors=(
            ("logistic(0, 1)", "intercept", None),
            ("cauchy(0, 1)", "fixed", None),
            ("uniform(-3, 3)", "fixed", "cc1"),
            ("constant(0.5)", "fixed", "x"),
            ("gamma(2, 2)", "sd", "(Intercept)"),
            ("constant(0.4)", "sd", "x"),
            ("inv_gamma(2, 2)", "aux", "shape"),
        ),
    ),
]
CASES = [*BY_FAMILY, *STRUCTURES]
LINKS_OF = [(family, link) for family in ("poisson", "bernoulli", "gamma", "inverse_gaussian") for link in FAMILIES[family].links]
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def _near_the_mode(model: bl.Model) -> Direct:
    return whiten(direct_of(model))


def _u(direct: Direct, t: np.ndarray) -> dict[str, np.ndarray]:
    """The standard normals (J, K) of each factor, from its effects: u = L^-1 b, by a dense inverse."""
    values = values_of(direct.plan, t[None])
    plan, found = direct.plan, {}
    for f, group in enumerate(direct.groups):
        K, J = int(plan.width[f]), int(plan.levels[f])
        b = values.b[0, plan.level_at[f] : plan.level_at[f] + J * K].reshape(J, K)
        found[group.label] = b @ np.linalg.inv(_covariance_root(direct, values, f)).T
    return found


def _covariance_root(direct: Direct, values: Any, f: int) -> np.ndarray:
    plan, K = direct.plan, int(direct.plan.width[f])
    root = np.zeros((K, K))
    for t in range(plan.term_at[f], plan.term_at[f + 1]):
        k, first = plan.k[t], plan.column[t]
        C = values.C[0, plan.matrix_at[t] : plan.matrix_at[t] + k * k].reshape(k, k)
        sd = values.x[0, plan.sd_slot[plan.sd_at[f] + first + np.arange(k)]]
        root[first : first + k, first : first + k] = sd[:, None] * C
    return root


def _pymc_values(direct: Direct, t: np.ndarray) -> dict[str, np.ndarray]:
    """The free variables of the translation, on their own scale."""
    model, values, plan = direct.model, values_of(direct.plan, t[None]), direct.plan
    x = values.x[0]
    rows = [row for row in model.prior_rows if row.part == "fixed"]
    slopes = np.delete(x[: direct.p], direct.intercept) if direct.intercept >= 0 else x[: direct.p]
    found: dict[str, Any] = {"beta": slopes} | {f"beta[{row.term}]": one for row, one in zip(rows, slopes, strict=True)}
    if direct.intercept >= 0:
        found["Intercept"] = x[direct.intercept]
    for k, parameter in enumerate(model.family.parameters, start=len(x) - plan.further):
        found[parameter.name] = x[k]
    for f, group in enumerate(factors(model)):
        sd = x[plan.sd_slot[plan.sd_at[f] : plan.sd_at[f] + plan.width[f]]]
        firsts = np.unique(deviation_slots(group), return_index=True)[1]
        found |= {f"sd_{group.label}": sd, f"tau_{group.label}": sd[firsts], f"z_{group.label}": _u(direct, t)[group.label]}
        found |= {f"sd_{group.label}[{effect}]": one for effect, one in zip(group.effects, sd, strict=True)}
        for position, t_ in enumerate(range(plan.term_at[f], plan.term_at[f + 1]), start=1):
            label = f"{group.label}[{position}]" if len(group.blocks) > 1 else group.label
            k, at = plan.k[t_], plan.matrix_at[t_]
            found[f"L_{label}"] = values.C[0, at : at + k * k].reshape(k, k)
    return found


def _pymc_log_densities(model: bl.Model, points: list[dict[str, np.ndarray]]) -> list[float]:
    """Log densities of all free variables and the response, on the real line, by PyMC."""
    from pytensor.compile import function

    translated, mode = model.to_pymc(), "FAST_COMPILE"
    logp = translated.compile_logp(mode=mode)
    inputs = {}
    for variable in translated.free_RVs:
        transform, value = translated.rvs_to_transforms[variable], variable.type()
        moved = value if transform is None else transform.forward(value, *variable.owner.inputs)
        inputs[translated.rvs_to_values[variable].name] = (variable.name, function([value], moved, mode=mode))
    return [float(logp({name: forward(point[of]) for name, (of, forward) in inputs.items()})) for point in points]


def _log_jacobian(direct: Direct, t: np.ndarray) -> float:
    """log |du / dt| of all random effects' standard normals by t's last entries, by differences."""
    q = direct.dim - direct.globals
    if q == 0:
        return 0.0

    def stacked(point: np.ndarray) -> np.ndarray:
        return np.concatenate([u.ravel() for u in _u(direct, point).values()])

    steps = 1e-4 * np.eye(direct.dim)[direct.globals :]
    J = np.stack([stacked(t + step) - stacked(t - step) for step in steps]) / 2e-4
    return float(np.linalg.slogdet(J)[1])


def _without_root(direct: Direct) -> Direct:
    from dataclasses import replace

    return replace(direct, plan=direct.plan._replace(root=np.zeros((0, 0))))


@cases
def test_density_is_that_of_the_pymc_model(case: Case) -> None:
    direct = _without_root(_near_the_mode(case.model()))
    buffer, rng = laid_out(direct.plan), np.random.default_rng(1)
    points = [0.4 * rng.normal(size=direct.dim) for _ in range(3)]
    expected = _pymc_log_densities(direct.model, [_pymc_values(direct, t) for t in points])
    difference = [evaluate(buffer, t)[0] - _log_jacobian(direct, t) - one for t, one in zip(points, expected, strict=True)]
    assert np.ptp(difference) < 1e-5


@cases
def test_gradient_is_that_of_differences(case: Case) -> None:
    direct = _near_the_mode(case.model())
    buffer, rng = laid_out(direct.plan), np.random.default_rng(2)
    for _ in range(2):
        t = rng.normal(size=direct.dim)
        grad = evaluate(buffer, t)[1]
        steps = 1e-5 * np.eye(direct.dim)
        expected = np.array([evaluate(buffer, t + step)[0] - evaluate(buffer, t - step)[0] for step in steps]) / 2e-5
        np.testing.assert_allclose(grad, expected, rtol=1e-5, atol=1e-5 * np.max(np.abs(expected)))


@pytest.mark.parametrize(("family", "link"), LINKS_OF)
def test_density_of_every_link(family: str, link: str) -> None:
    model = bl.model(f"{RESPONSES.get(family, 'count')} ~ 1", _data(), family=family, link=link)
    direct = direct_of(model)
    at = {"bernoulli": 0.4}.get(family, 2.0)
    eta = float(model.link.link(np.array([at]))[0])
    points = [np.array([eta + step, 0.2][: direct.dim]) for step in (-0.02, 0.0, 0.03)]
    buffer = laid_out(direct.plan)
    found = [evaluate(buffer, x)[0] for x in points]
    expected = _pymc_log_densities(model, [_pymc_values(direct, x) for x in points])
    assert np.ptp(np.subtract(found, expected)) < 1e-6


@pytest.mark.parametrize("name", ["correlated", "crossed", "nested", "two_terms", "no_groups"])
def test_coordinates_make_the_posterior_near_a_standard_normal(name: str) -> None:
    case = next(case for case in CASES if case.name == name)
    direct = _near_the_mode(case.model())
    buffer = laid_out(direct.plan)
    steps = 1e-4 * np.eye(direct.dim)
    assert np.max(np.abs(evaluate(buffer, np.zeros(direct.dim))[1])) < 0.05
    H = np.stack([evaluate(buffer, -step)[1] - evaluate(buffer, step)[1] for step in steps]) / 2e-4
    values = np.linalg.eigvalsh((H + H.T) / 2.0)
    assert values[0] > 0.4
    assert values[-1] < 2.5


def test_effects_of_a_normal_response_are_those_of_the_conditional_distribution() -> None:
    """With the residual's variance at its linearisation, v is exactly standard normal given the parameters."""
    model = bl.model("real ~ x + (x | g)", _data(), family="gaussian", priors=[bl.prior("constant(0.5)", part="aux", term="sigma")])
    direct = direct_of(model)
    rng = np.random.default_rng(3)
    x = np.concatenate([0.3 * rng.normal(size=direct.globals), np.zeros(direct.dim - direct.globals)])
    direct = linearised(direct, values_of(direct.plan, x[None]))
    x[: direct.globals] += 0.5 * rng.normal(size=direct.globals)
    values = values_of(direct.plan, x[None])
    b = values.b[0].reshape(9, 2)
    root, z, plan = _covariance_root(direct, values, 0), columns_of(direct.plan, 0), direct.plan
    residual = plan.y - plan.X @ values.x[0, : direct.p]
    for j in range(9):
        own = plan.level[0] == j
        precision = z[own].T @ z[own] / 0.25 + np.linalg.inv(root @ root.T)
        np.testing.assert_allclose(b[j], np.linalg.solve(precision, z[own].T @ residual[own] / 0.25), rtol=1e-8, atol=1e-10)
    gradient = evaluate(laid_out(plan), x)[1]
    np.testing.assert_allclose(gradient[direct.globals :], 0.0, atol=1e-8)


@pytest.mark.parametrize(
    ("formula", "family", "reason"),
    [
        ("count ~ x + cs(0 + c | g)", "poisson", "structure"),
        ("real ~ x + (1 | g) + ar(w, g)", "gaussian", "residuals are correlated"),
        ("ordered ~ x + (1 | g)", "cumulative", "no kernel"),
    ],
)
def test_where_it_does_not_apply(formula: str, family: str, reason: str) -> None:
    data = _data()
    data["ordered"] = pd.Categorical(np.where(data["real"] < 0.0, "a", np.where(data["real"] < 1.0, "b", "c")), ordered=True)
    data["w"] = data.groupby("g").cumcount()
    model = bl.model(formula, data, family=family)
    assert reason in (limit(model) or "")
    assert sampler_named("auto", model) == "nutpie" or model.family.name == "gaussian"
    with pytest.raises(bl.FitError, match="does not apply"):
        sampler_named("direct", model)


def test_it_is_what_auto_takes_for_a_generalised_model() -> None:
    assert sampler_named("auto", STRUCTURES[0].model()) == "direct"
    assert SAMPLERS["direct"].package == "nutpie"


def test_correlations_of_other_structures_are_refused_only_where_there_are_any() -> None:
    model = bl.model("count ~ x + cs(1 | g)", _data(), family="poisson")
    assert structure_of(model.design.blocks[0]).name == "cs"
    assert limit(model) is None


@pytest.mark.filterwarnings("ignore::bayeslmm.errors.ConvergenceWarning")
def test_draws_are_those_of_every_machine_and_have_the_names_of_the_other_samplers() -> None:
    model = bl.model("count ~ x + (x | g) + (1 | h)", _data(), family="negative_binomial")
    one, two = (bl.brm(model, seed=3, draws=150, tune=150, chains=2, cores=cores) for cores in (1, 2))
    assert one.provenance["sampler"] == "direct"
    assert one.provenance["sampling_seconds"] > 0.0
    for name, variable in one.tree["posterior"].data_vars.items():
        np.testing.assert_array_equal(variable.values, two.tree["posterior"][name].values)
    assert list(one.tree["posterior"].data_vars) == ["b", "sd_g", "cor_g", "r_g", "sd_h", "r_h", "shape"]
    r, eta = one.draws(), one.model.design.X @ one.draws().b[0]
    assert r.effects[0].shape == (300, 9, 2)
    assert eta.shape == (len(_data()),)


def test_addresses_of_kernels_are_in_the_plan() -> None:
    plan = direct_of(STRUCTURES[0].model()).plan
    assert plan.link != 0
    assert plan.family != 0
    assert len(direct_density.work_at(plan)) == len(direct_density.Work._fields) + 1
