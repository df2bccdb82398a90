"""Brain responses to words and sentences in plain PyMC: people differ in level and effect, experiments and regions in level."""

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
    """Return the model of Effect_Size ~ Condition + (1 + Condition | SubjectID) + (1 | Experiment) + (1 | Region), weak priors."""
    y = data["Effect_Size"].to_numpy(dtype=float)
    sentences = (data["Condition"] == "S").to_numpy(dtype=float)
    codes = {name: data[name].cat.codes.to_numpy() for name in ("SubjectID", "Experiment", "Region")}
    scale = spread(y)
    coords = {
        "slope": ["ConditionS"],
        "SubjectID": list(data["SubjectID"].cat.categories),
        "SubjectID_effect": ["(Intercept)", "ConditionS"],
        "Experiment": list(data["Experiment"].cat.categories),
        "Experiment_effect": ["(Intercept)"],
        "Region": list(data["Region"].cat.categories),
        "Region_effect": ["(Intercept)"],
        "obs": np.arange(len(y)),
    }
    with pm.Model(coords=coords) as model:
        intercept = pm.StudentT("Intercept", nu=3, mu=rounded(np.median(y), 4), sigma=rounded(scale))
        beta = pm.Normal("beta", 0, rounded(2.5 * scale / sentences.std(ddof=1)), dims="slope")
        sd_subject = pm.HalfStudentT("sd_SubjectID", nu=3, sigma=rounded(scale), dims="SubjectID_effect")
        L = pm.LKJCorr("L_SubjectID", n=2, eta=2)
        z_subject = pm.Normal("z_SubjectID", 0, 1, dims=("SubjectID", "SubjectID_effect"))
        subject = (z_subject @ L.T) * sd_subject
        mu = intercept + beta[0] * (sentences - sentences.mean())
        mu = mu + subject[codes["SubjectID"], 0] + subject[codes["SubjectID"], 1] * sentences
        for name in ("Experiment", "Region"):
            sd = pm.HalfStudentT(f"sd_{name}", nu=3, sigma=rounded(scale), dims=f"{name}_effect")
            z = pm.Normal(f"z_{name}", 0, 1, dims=(name, f"{name}_effect"))
            mu = mu + (z * sd)[codes[name], 0]
        sigma = pm.HalfStudentT("sigma", nu=3, sigma=rounded(scale))
        pm.Normal("y", mu, sigma, observed=y, dims="obs")
    return model
