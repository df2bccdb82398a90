"""Predictions, comparisons and slopes by Python's marginaleffects 0.6 on models by statsmodels; writes marginaleffects.json.

Usage: python marginaleffects_golden.py <output>, where marginaleffects, statsmodels, pandas and polars (before 2) are installed.
"""

import json
import sys
import warnings
from pathlib import Path

import marginaleffects as me
import numpy as np
import pandas as pd
import statsmodels.formula.api as smf

warnings.filterwarnings("ignore")
rng = np.random.default_rng(20241)
N = 40
data = pd.DataFrame(
    {
        "x": rng.gamma(3.0, 2.0, N).round(3),
        "z": rng.normal(size=N).round(3),
        "b": rng.integers(0, 2, N).astype(float),
        "k": rng.integers(1, 7, N).astype(float),
        "f": rng.choice(list("abc"), N),
    }
)
eta = 0.2 + 0.1 * data.x + 0.3 * (data.f == "b") + 0.2 * data.z
data["c"] = rng.poisson(np.exp(eta)).astype(float)
data["y"] = (10.0 + 2.0 * eta + rng.normal(size=N)).round(4)
data["d"] = (rng.random(N) < 1.0 / (1.0 + np.exp(0.5 - eta))).astype(float)
coded = data.assign(f=data.f.astype("category"))
FORMULAS = {"ols": "y ~ x * f + z + b", "poisson": "c ~ x * f + z + b + k", "logit": "d ~ x + f + z"}
MODELS = {
    "ols": smf.ols(FORMULAS["ols"], coded).fit(),
    "poisson": smf.poisson(FORMULAS["poisson"], coded).fit(disp=0, method="newton", tol=1e-12),
    "logit": smf.logit(FORMULAS["logit"], coded).fit(disp=0, method="newton", tol=1e-12),
}
P, C, S = "predictions", "comparisons", "slopes"
QUESTIONS = [
    (P, {}),
    (P, {"by": True}),
    (P, {"by": "f"}),
    (P, {"newdata": "mean"}),
    (P, {"newdata": "median"}),
    (P, {"newdata": "balanced"}),
    (P, {"variables": {"x": [1.0, 4.0]}}),
    (P, {"variables": {"x": [1.0, 4.0]}, "by": "x"}),
    (P, {"newdata": "mean", "variables": {"x": [1.0, 4.0]}}),
    (P, {"by": "f", "hypothesis": "difference ~ pairwise"}),
    (P, {"by": "f", "hypothesis": "difference ~ sequential"}),
    (P, {"by": "f", "hypothesis": "ratio ~ reference"}),
    (P, {"by": True, "hypothesis": 2.0}),
    (C, {"variables": "x"}),
    (C, {"variables": "f"}),
    (C, {"by": True}),
    (C, {"variables": "x", "by": "f"}),
    (C, {"variables": {"x": 3.0}, "by": True}),
    (C, {"variables": {"x": "sd"}}),
    (C, {"variables": {"x": "2sd"}, "by": True}),
    (C, {"variables": {"x": "iqr"}, "by": True}),
    (C, {"variables": {"x": "minmax"}, "by": True}),
    (C, {"variables": {"x": [2.0, 5.0]}, "by": True}),
    *((C, {"variables": {"f": pairs}, "by": True}) for pairs in ("pairwise", "sequential", "all", "revpairwise", ["a", "c"])),
    (C, {"variables": "x", "comparison": "ratio", "by": True, "hypothesis": 0.0}),
    (C, {"variables": "f", "comparison": "ratio", "hypothesis": 0.0}),
    (C, {"variables": "f", "comparison": "lnratio", "by": "f"}),
    (C, {"variables": "x", "comparison": "lift", "by": True}),
    (C, {"variables": "x", "by": True, "wts": "k"}),
    (C, {"variables": "x", "newdata": "mean"}),
    (C, {"variables": "x", "newdata": "balanced", "by": "f"}),
    (S, {"by": True}),
    (S, {"variables": "x", "by": "f"}),
    (S, {"variables": "x"}),
    (S, {"variables": "x", "slope": "eyex", "by": True}),
    (S, {"variables": "x", "slope": "eyex", "newdata": "mean"}),
    (S, {"variables": "x", "slope": "eydx"}),
    (S, {"variables": "x", "slope": "dyex", "by": True}),
]
OF_PROBABILITIES = [(C, {"variables": "f", "comparison": "lnor", "by": True}), (C, {"variables": "x", "comparison": "lnor"})]
STEP = 0.01
"""Of slopes, wider than the default, where the error of differences taken twice is several per cent of a standard error."""
NUMBERS = ["estimate", "std_error", "statistic", "conf_low", "conf_high"]
LABELS = ["rowid", "term", "contrast", "f", "x"]


def answer(name, verb, question):
    step = {"eps": STEP} if verb == S else {}
    found = getattr(me, verb)(MODELS[name], **question, **step)
    labels = [label for label in LABELS if label in found.columns and (label in LABELS[:3] or "rowid" not in found.columns)]
    frame = found.to_pandas()
    return {
        "model": name,
        "verb": verb,
        "question": question,
        "labels": {label: frame[label].astype(object).tolist() for label in labels},
        "values": [[float(f"{value:.10g}") for value in row] for row in frame[NUMBERS].to_numpy(dtype=float).tolist()],
    }


answers = [answer(name, verb, question) for name in MODELS for verb, question in QUESTIONS]
answers += [answer("logit", verb, question) for verb, question in OF_PROBABILITIES]
models = {
    name: {
        "formula": FORMULAS[name],
        "names": list(model.params.index),
        "beta": model.params.tolist(),
        "vcov": model.cov_params().to_numpy().tolist(),
    }
    for name, model in MODELS.items()
}
Path(sys.argv[1]).write_text(json.dumps({"data": data.to_dict("list"), "models": models, "answers": answers}) + "\n", encoding="utf8")
