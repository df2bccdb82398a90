"""Ticks on grouse chicks in plain PyMC: Poisson counts whose logarithm varies between locations, broods and chicks."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pymc as pm


def rounded(value: float, digits: int = 3) -> float:
    """Round to significant digits: priors are meant to be read."""
    return float(f"{value:.{digits}g}")


def build(data: pd.DataFrame) -> pm.Model:
    """Return the model of TICKS ~ YEAR + cHEIGHT + (1 | BROOD) + (1 | INDEX) + (1 | LOCATION), priors on the log scale."""
    ticks = data["TICKS"].to_numpy()
    X = np.column_stack([data["YEAR"] == "96", data["YEAR"] == "97", data["cHEIGHT"]]).astype(float)
    # brms's scale of a log-linear intercept: median and MAD of the log counts, zeros taken as 0.1.
    log_ticks = np.log(np.where(ticks == 0, 0.1, ticks))
    location = round(float(np.median(log_ticks)), 1)
    scale = max(2.5, round(1.4826 * float(np.median(np.abs(log_ticks - np.median(log_ticks)))), 1))
    groups = ("INDEX", "BROOD", "LOCATION")
    coords = {"slope": ["YEAR96", "YEAR97", "cHEIGHT"], "obs": np.arange(len(ticks))}
    for group in groups:
        coords |= {group: list(data[group].cat.categories), f"{group}_effect": ["(Intercept)"]}
    with pm.Model(coords=coords) as model:
        intercept = pm.StudentT("Intercept", nu=3, mu=location, sigma=scale)
        beta = pm.Normal("beta", 0, np.array([rounded(2.5 / x.std(ddof=1)) for x in X.T]), dims="slope")
        eta = intercept + (X - X.mean(axis=0)) @ beta
        for group in groups:
            sd = pm.HalfStudentT(f"sd_{group}", nu=3, sigma=rounded(scale), dims=f"{group}_effect")
            z = pm.Normal(f"z_{group}", 0, 1, dims=(group, f"{group}_effect"))
            eta = eta + (z * sd)[data[group].cat.codes.to_numpy(), 0]
        pm.Poisson("y", mu=pm.math.exp(eta), observed=ticks, dims="obs")
    return model
