"""The design of the samples and the default prior, which knows no reference level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import bayeslmm as bl
from bayeslmm.errors import DataError, FitError, PriorError
from bayeslmm.loci.data import LociData, loci_data
from bayeslmm.loci.plan import Plan, plan_of


def samples() -> pd.DataFrame:
    rng = np.random.default_rng(1)
    i = np.arange(23)
    return pd.DataFrame(
        {
            "sample_id": [f"s{k}" for k in i],
            "tank": [f"t{k % 12:02d}" for k in i],
            "treatment": np.array(["400", "2800"])[i % 12 // 6],
            "time": np.array(["day9", "day80"])[i // 12],
            "x": 3.0 * rng.standard_normal(23),
        }
    )


def data(table: pd.DataFrame | None = None) -> LociData:
    return loci_data(np.ones((2, 23)), np.full((2, 23), 2), samples() if table is None else table)


def predictor_covariance(plan: Plan) -> np.ndarray:
    """Return the prior covariance of the linear predictor of the samples, in their own order."""
    scaled = plan.prior.A / plan.prior.scale[:, None]
    V = plan.shape.X @ np.linalg.inv(scaled.T @ scaled) @ plan.shape.X.T
    back = np.argsort(plan.order)
    return V[np.ix_(back, back)]


@pytest.mark.parametrize(
    "right", ["treatment * time", "treatment + time", "treatment:time", "treatment * x", "x", "0 + treatment", "treatment * poly(x, 2)"]
)
def test_the_reference_level_does_not_matter(right: str) -> None:
    turned = samples().assign(
        treatment=lambda d: pd.Categorical(d["treatment"], categories=["400", "2800"]),
        time=lambda d: pd.Categorical(d["time"], categories=["day9", "day80"]),
    )
    one, other = (plan_of(f"cbind(M, U) ~ {right} + (1 | tank)", data(table)) for table in (samples(), turned))
    assert predictor_covariance(one) == pytest.approx(predictor_covariance(other), rel=1e-8)


def test_every_difference_of_levels_has_the_same_prior() -> None:
    table = samples().assign(f=[f"f{k % 4}" for k in range(23)])
    plan = plan_of("cbind(M, U) ~ f + (1 | tank)", data(table))
    V = predictor_covariance(plan)
    levels = [int(np.flatnonzero(table["f"] == f"f{k}")[0]) for k in range(4)]
    for i in levels:
        for j in levels:
            if i != j:
                assert V[i, i] + V[j, j] - 2 * V[i, j] == pytest.approx(2.5**2)
    slope = plan_of("cbind(M, U) ~ x + (1 | tank)", data())
    sd = np.sqrt(np.linalg.inv(slope.prior.A.T @ slope.prior.A)[1, 1])
    assert sd == pytest.approx(2.5 / table["x"].std(ddof=0))


def test_rows_stand_by_group() -> None:
    plan = plan_of("M | trials(coverage) ~ treatment + (1 | tank)", data())
    tanks = samples()["tank"].to_numpy()[plan.order]
    for g, level in enumerate(plan.levels):
        assert set(tanks[plan.shape.first[g] : plan.shape.first[g + 1]]) == {level}
    assert plan.parameters == ("(Intercept)", "treatment400", "sd_tank", "phi")
    assert plan_of("cbind(M, U) ~ 1 + (1 | tank)", data(), "binomial").parameters == ("(Intercept)", "sd_tank")


def test_rows_of_priors() -> None:
    given = [
        bl.prior("student_t(7, 0, 1.5)", part="fixed", term="x"),
        bl.prior("normal(0, 2)", part="sd"),
        bl.prior("lognormal(2, 1)", part="aux", term="phi"),
    ]
    plan = plan_of("cbind(M, U) ~ x + (1 | tank)", data(), priors=given)
    assert not plan.invariant
    assert (plan.prior.scale[1], plan.prior.df[1]) == (1.5, 7.0)
    assert (plan.prior.tau_df, plan.prior.tau_scale) == (np.inf, 2.0)
    assert (plan.prior.phi_mean, plan.prior.phi_sd) == (2.0, 1.0)
    with pytest.raises(PriorError, match="one of normal, student_t, cauchy"):
        plan_of("cbind(M, U) ~ x + (1 | tank)", data(), priors=[bl.prior("uniform(-1, 1)", part="fixed", term="x")])
    with pytest.raises(PriorError, match="lognormal"):
        plan_of("cbind(M, U) ~ x + (1 | tank)", data(), priors=[bl.prior("gamma(2, 1)", part="aux", term="phi")])


@pytest.mark.parametrize(
    ("formula", "error", "said"),
    [
        ("cbind(M, U) ~ treatment + (1 | tank) + (1 | time)", FitError, "one random effect of one factor"),
        ("cbind(M, U) ~ x + (x | tank)", FitError, "one random effect of one factor"),
        ("cbind(U, M) ~ x + (1 | tank)", DataError, "the response of loci is"),
        ("cbind(M, U) ~ absent + (1 | tank)", DataError, "no column 'absent'"),
    ],
)
def test_what_cannot_be_a_model_of_loci_is_named(formula: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        plan_of(formula, data())


def test_samples_have_to_be_whole() -> None:
    with pytest.raises(DataError, match="all samples are needed: 1 with missing values"):
        plan_of("cbind(M, U) ~ x + (1 | tank)", data(samples().assign(x=lambda d: d["x"].where(d.index > 0))))
    with pytest.raises(DataError, match="has the name of the counts"):
        plan_of("cbind(M, U) ~ x + (1 | tank)", data(samples().rename(columns={"time": "U"})))
    with pytest.raises(FitError, match="binomial or beta_binomial"):
        plan_of("cbind(M, U) ~ x + (1 | tank)", data(), "poisson")
