"""The sleep study in plain PyMC: a line for each subject, starting level and slope correlated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pymc as pm


def rounded(value: float, digits: int = 3) -> float:
    """Round to significant digits: priors are meant to be read."""
    return float(f"{value:.{digits}g}")


def spread(y: np.ndarray) -> float:
    """The larger of the standard deviation and 1.4826 median absolute deviations."""
    return max(float(np.std(y, ddof=1)), 1.4826 * float(np.median(np.abs(y - np.median(y)))))


def build(data: pd.DataFrame) -> pm.Model:
    """Return the model of Reaction ~ Days + (Days | Subject) with weak priors on the data's scale."""
    y = data["Reaction"].to_numpy(dtype=float)
    days = data["Days"].to_numpy(dtype=float)
    subject = data["Subject"].cat.codes.to_numpy()
    scale = spread(y)
    coords = {
        "slope": ["Days"],
        "Subject": list(data["Subject"].cat.categories),
        "Subject_effect": ["(Intercept)", "Days"],
        "obs": np.arange(len(y)),
    }
    with pm.Model(coords=coords) as model:
        # The average subject: expected reaction at the mean day, and its change a day.
        intercept = pm.StudentT("Intercept", nu=3, mu=rounded(np.median(y), 4), sigma=rounded(scale))
        beta = pm.Normal("beta", 0, rounded(2.5 * scale / days.std(ddof=1)), dims="slope")
        # How subjects differ: standard deviations of level and slope, and their correlation.
        sd_scales = np.array([rounded(rounded(scale) / 1.0), rounded(rounded(scale) / days.std(ddof=1))])
        sd = pm.HalfStudentT("sd_Subject", nu=3, sigma=sd_scales, dims="Subject_effect")
        L = pm.LKJCorr("L_Subject", n=2, eta=2)
        z = pm.Normal("z_Subject", 0, 1, dims=("Subject", "Subject_effect"))
        r = pm.Deterministic("r_Subject", (z @ L.T) * sd, dims=("Subject", "Subject_effect"))
        sigma = pm.HalfStudentT("sigma", nu=3, sigma=rounded(scale))
        mu = intercept + beta[0] * (days - days.mean()) + r[subject, 0] + r[subject, 1] * days
        pm.Normal("y", mu, sigma, observed=y, dims="obs")
    return model
