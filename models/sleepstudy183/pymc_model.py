"""The four random-effect structures of the partial-pooling lecture in plain PyMC."""

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


EFFECTS = {
    "intercepts": ["(Intercept)"],
    "slopes": ["days"],
    "correlated": ["(Intercept)", "days"],
    "uncorrelated": ["days", "(Intercept)"],
}
"""Model -> the random effects of a subject, in the formula's order."""


def build(data: pd.DataFrame, name: str = "correlated") -> pm.Model:
    """Return one of the models reaction ~ days + (... | subject) with weak priors on the data's scale."""
    y = data["reaction"].to_numpy(dtype=float)
    days = data["days"].to_numpy(dtype=float)
    subject = data["subject"].cat.codes.to_numpy()
    effects = EFFECTS[name]
    scale = spread(y)
    sd_scale = {"(Intercept)": rounded(rounded(scale)), "days": rounded(rounded(scale) / days.std(ddof=1))}
    columns = {"(Intercept)": np.ones_like(days), "days": days}
    coords = {
        "slope": ["days"],
        "subject": list(data["subject"].cat.categories),
        "subject_effect": effects,
        "obs": np.arange(len(y)),
    }
    with pm.Model(coords=coords) as model:
        intercept = pm.StudentT("Intercept", nu=3, mu=rounded(np.median(y), 4), sigma=rounded(scale))
        beta = pm.Normal("beta", 0, rounded(2.5 * scale / days.std(ddof=1)), dims="slope")
        sd = pm.HalfStudentT("sd_subject", nu=3, sigma=np.array([sd_scale[effect] for effect in effects]), dims="subject_effect")
        z = pm.Normal("z_subject", 0, 1, dims=("subject", "subject_effect"))
        if name == "correlated":
            L = pm.LKJCorr("L_subject", n=2, eta=2)
            r = (z @ L.T) * sd
        else:
            r = z * sd
        r = pm.Deterministic("r_subject", r, dims=("subject", "subject_effect"))
        sigma = pm.HalfStudentT("sigma", nu=3, sigma=rounded(scale))
        mu = intercept + beta[0] * (days - days.mean())
        for place, effect in enumerate(effects):
            mu = mu + r[subject, place] * columns[effect]
        pm.Normal("y", mu, sigma, observed=y, dims="obs")
    return model
