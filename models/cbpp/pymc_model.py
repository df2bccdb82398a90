"""Bovine pleuropneumonia in plain PyMC: cases out of animals at risk, falling by period, herds differ."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pymc as pm


def rounded(value: float, digits: int = 3) -> float:
    """Round to significant digits: priors are meant to be read."""
    return float(f"{value:.{digits}g}")


def build(data: pd.DataFrame) -> pm.Model:
    """Return the model of cbind(incidence, size - incidence) ~ period + (1 | herd) with weak priors on the log-odds scale."""
    cases, animals = data["incidence"].to_numpy(), data["size"].to_numpy()
    X = np.column_stack([(data["period"] == level).to_numpy(dtype=float) for level in ("2", "3", "4")])
    herd = data["herd"].cat.codes.to_numpy()
    coords = {
        "slope": ["period2", "period3", "period4"],
        "herd": list(data["herd"].cat.categories),
        "herd_effect": ["(Intercept)"],
        "obs": np.arange(len(cases)),
    }
    with pm.Model(coords=coords) as model:
        intercept = pm.StudentT("Intercept", nu=3, mu=0, sigma=2.5)
        beta = pm.Normal("beta", 0, np.array([rounded(2.5 / x.std(ddof=1)) for x in X.T]), dims="slope")
        sd = pm.HalfStudentT("sd_herd", nu=3, sigma=2.5, dims="herd_effect")
        z = pm.Normal("z_herd", 0, 1, dims=("herd", "herd_effect"))
        eta = intercept + (X - X.mean(axis=0)) @ beta + (z * sd)[herd, 0]
        pm.Binomial("y", n=animals, logit_p=eta, observed=cases, dims="obs")
    return model
