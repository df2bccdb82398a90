"""Verbal aggression in plain PyMC: 316 persons answer 24 items, both vary, and covariates of both explain part of it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pymc as pm

SLOPES = ("Anger", "GenderM", "btypescold", "btypeshout", "situself")


def rounded(value: float, digits: int = 3) -> float:
    """Round to significant digits: priors are meant to be read."""
    return float(f"{value:.{digits}g}")


def build(data: pd.DataFrame) -> pm.Model:
    """Return the model of r2 ~ Anger + Gender + btype + situ + (1 | id) + (1 | item) with weak priors on the log-odds scale."""
    yes = (data["r2"] == "Y").to_numpy(dtype=int)
    columns = [data["Anger"], data["Gender"] == "M", data["btype"] == "scold", data["btype"] == "shout", data["situ"] == "self"]
    X = np.column_stack(columns).astype(float)
    person, item = data["id"].cat.codes.to_numpy(), data["item"].cat.codes.to_numpy()
    coords = {
        "slope": list(SLOPES),
        "id": list(data["id"].cat.categories),
        "id_effect": ["(Intercept)"],
        "item": list(data["item"].cat.categories),
        "item_effect": ["(Intercept)"],
        "obs": np.arange(len(yes)),
    }
    with pm.Model(coords=coords) as model:
        intercept = pm.StudentT("Intercept", nu=3, mu=0, sigma=2.5)
        beta = pm.Normal("beta", 0, np.array([rounded(2.5 / x.std(ddof=1)) for x in X.T]), dims="slope")
        sd_person = pm.HalfStudentT("sd_id", nu=3, sigma=2.5, dims="id_effect")
        z_person = pm.Normal("z_id", 0, 1, dims=("id", "id_effect"))
        sd_item = pm.HalfStudentT("sd_item", nu=3, sigma=2.5, dims="item_effect")
        z_item = pm.Normal("z_item", 0, 1, dims=("item", "item_effect"))
        ability, easiness = (z_person * sd_person)[:, 0], (z_item * sd_item)[:, 0]
        pm.Bernoulli("y", logit_p=intercept + (X - X.mean(axis=0)) @ beta + ability[person] + easiness[item], observed=yes, dims="obs")
    return model
