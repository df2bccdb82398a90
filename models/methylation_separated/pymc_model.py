"""A methylated locus in plain PyMC: methylated reads out of all, treatment by time, tanks differ; sets a to d."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pymc as pm


def rounded(value: float, digits: int = 3) -> float:
    """Round to significant digits: priors are meant to be read."""
    return float(f"{value:.{digits}g}")


def build(data: pd.DataFrame, which: str = "b") -> pm.Model:
    """Return the model of cbind(mC, uC) ~ treatment * time + (1 | tank) of one set, with weak priors on the log-odds scale."""
    methylated, reads = data[f"mC_{which}"].to_numpy(), (data[f"mC_{which}"] + data[f"uC_{which}"]).to_numpy()
    high, late = (data["treatment"] == "2800").to_numpy(dtype=float), (data["time"] == "80").to_numpy(dtype=float)
    X = np.column_stack([high, late, high * late])
    coords = {
        "slope": ["treatment2800", "time80", "treatment2800:time80"],
        "tank": list(data["tank"].cat.categories),
        "tank_effect": ["(Intercept)"],
        "obs": np.arange(len(reads)),
    }
    with pm.Model(coords=coords) as model:
        intercept = pm.StudentT("Intercept", nu=3, mu=0, sigma=2.5)
        beta = pm.Normal("beta", 0, np.array([rounded(2.5 / x.std(ddof=1)) for x in X.T]), dims="slope")
        sd = pm.HalfStudentT("sd_tank", nu=3, sigma=2.5, dims="tank_effect")
        z = pm.Normal("z_tank", 0, 1, dims=("tank", "tank_effect"))
        eta = intercept + (X - X.mean(axis=0)) @ beta + (z * sd)[data["tank"].cat.codes.to_numpy(), 0]
        pm.Binomial("y", n=reads, logit_p=eta, observed=methylated, dims="obs")
    return model
