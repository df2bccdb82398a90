"""Pupils in classes in schools in plain PyMC: a class belongs to one school."""

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
    """Return the model of extro ~ open + agree + social + (1 | school/class) with weak priors on the data's scale."""
    y = data["extro"].to_numpy(dtype=float)
    X = data[["open", "agree", "social"]].to_numpy(dtype=float)
    school = data["school"].cat.codes.to_numpy()
    classes = pd.Categorical(data["class"].astype(str) + ":" + data["school"].astype(str))
    scale = spread(y)
    coords = {
        "slope": ["open", "agree", "social"],
        "school": list(data["school"].cat.categories),
        "school_effect": ["(Intercept)"],
        "class:school": list(classes.categories),
        "class:school_effect": ["(Intercept)"],
        "obs": np.arange(len(y)),
    }
    with pm.Model(coords=coords) as model:
        intercept = pm.StudentT("Intercept", nu=3, mu=rounded(np.median(y), 4), sigma=rounded(scale))
        beta = pm.Normal("beta", 0, np.array([rounded(2.5 * scale / x.std(ddof=1)) for x in X.T]), dims="slope")
        sd_school = pm.HalfStudentT("sd_school", nu=3, sigma=rounded(scale), dims="school_effect")
        z_school = pm.Normal("z_school", 0, 1, dims=("school", "school_effect"))
        sd_class = pm.HalfStudentT("sd_class:school", nu=3, sigma=rounded(scale), dims="class:school_effect")
        z_class = pm.Normal("z_class:school", 0, 1, dims=("class:school", "class:school_effect"))
        sigma = pm.HalfStudentT("sigma", nu=3, sigma=rounded(scale))
        mu = intercept + (X - X.mean(axis=0)) @ beta + (z_school * sd_school)[school, 0] + (z_class * sd_class)[classes.codes, 0]
        pm.Normal("y", mu, sigma, observed=y, dims="obs")
    return model
