"""Dyestuff batches in plain PyMC: what the posterior says where the classical variance estimate is zero."""

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
    """Return the model of Yield ~ 1 + (1 | Batch) with weak priors on the data's scale."""
    y = data["Yield"].to_numpy(dtype=float)
    batch = data["Batch"].cat.codes.to_numpy()
    scale = spread(y)
    coords = {"Batch": list(data["Batch"].cat.categories), "Batch_effect": ["(Intercept)"], "obs": np.arange(len(y))}
    with pm.Model(coords=coords) as model:
        intercept = pm.StudentT("Intercept", nu=3, mu=rounded(np.median(y), 4), sigma=rounded(scale))
        sd = pm.HalfStudentT("sd_Batch", nu=3, sigma=rounded(scale), dims="Batch_effect")
        z = pm.Normal("z_Batch", 0, 1, dims=("Batch", "Batch_effect"))
        sigma = pm.HalfStudentT("sigma", nu=3, sigma=rounded(scale))
        pm.Normal("y", intercept + (z * sd)[batch, 0], sigma, observed=y, dims="obs")
    return model
