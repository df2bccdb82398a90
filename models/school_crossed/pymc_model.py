"""Pupils in classes and schools in plain PyMC, as if class a were one class in all schools."""

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
    """Return the model of extro ~ open + agree + social + (1 | school) + (1 | class) with weak priors on the data's scale."""
    y = data["extro"].to_numpy(dtype=float)
    X = data[["open", "agree", "social"]].to_numpy(dtype=float)
    school = data["school"].cat.codes.to_numpy()
    classes = data["class"].cat.codes.to_numpy()
    scale = spread(y)
    coords = {
        "slope": ["open", "agree", "social"],
        "school": list(data["school"].cat.categories),
        "school_effect": ["(Intercept)"],
        "class": list(data["class"].cat.categories),
        "class_effect": ["(Intercept)"],
        "obs": np.arange(len(y)),
    }
    with pm.Model(coords=coords) as model:
        intercept = pm.StudentT("Intercept", nu=3, mu=rounded(np.median(y), 4), sigma=rounded(scale))
        beta = pm.Normal("beta", 0, np.array([rounded(2.5 * scale / x.std(ddof=1)) for x in X.T]), dims="slope")
        sd_school = pm.HalfStudentT("sd_school", nu=3, sigma=rounded(scale), dims="school_effect")
        z_school = pm.Normal("z_school", 0, 1, dims=("school", "school_effect"))
        sd_class = pm.HalfStudentT("sd_class", nu=3, sigma=rounded(scale), dims="class_effect")
        z_class = pm.Normal("z_class", 0, 1, dims=("class", "class_effect"))
        sigma = pm.HalfStudentT("sigma", nu=3, sigma=rounded(scale))
        mu = intercept + (X - X.mean(axis=0)) @ beta + (z_school * sd_school)[school, 0] + (z_class * sd_class)[classes, 0]
        pm.Normal("y", mu, sigma, observed=y, dims="obs")
    return model
