"""The numbers printed in the lecture and the tutorial that this package answers to, 139 of them, at the digits printed.

Their fits stopped at lme4's default tolerance, up to 5e-4 from the optimum (see the notes of the reference collection),
hence a relative tolerance of 1e-3 beside half a unit of the last digit printed.
"""

from __future__ import annotations

import json
import re
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest

import bayeslmm as bl
from tests.support import reference_dir

pytestmark = pytest.mark.reference

RTOL = 1e-3


@cache
def published() -> list[dict[str, Any]]:
    text = (reference_dir() / "results" / "seed_numbers.json").read_text(encoding="utf8")
    return list(json.loads(text))


@cache
def fit(call: str) -> bl.ClassicalFit:
    """Fit what an R call says, `lme4::lmer(formula, data=name, REML=TRUE)`."""
    found = re.fullmatch(r"lme4::lmer\((.+), data=(\w+), REML=(TRUE|FALSE)\)", call)
    assert found is not None, call
    formula, name, reml = found.groups()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bl.lmer(formula, bl.load_dataset(name), reml=reml == "TRUE")


def variance_row(made: bl.ClassicalFit, group: str, one: str, two: str | None, column: str) -> float:
    rows = made.varcorr()
    wanted = rows["group"] == group
    wanted &= rows["term1"].isna() | (rows["term1"] == "") if one == "-" else rows["term1"] == one
    wanted &= rows["term2"].isna() | (rows["term2"] == "") if two is None else rows["term2"] == two
    (value,) = rows.loc[wanted, column]
    return float(value)


def ours(made: bl.ClassicalFit, quantity: str) -> float:
    kind, *keys = quantity.split("|")
    coefficient = {"beta": "estimate", "se": "se", "t": "statistic", "df": "df", "p": "p_value"}
    match kind:
        case "REMLcrit" | "dev":
            return made.criterion
        case "logLik":
            return made.loglik
        case "AIC" | "BIC":
            return float(getattr(made, kind.lower()))
        case "var":
            return variance_row(made, keys[0], keys[1], None, "vcov")
        case "sd":
            return variance_row(made, keys[0], keys[1], None, "sdcor")
        case "recor":
            return variance_row(made, keys[0], keys[1], keys[2], "sdcor")
        case "corr":
            covariance = made.vcov().to_numpy()
            return float(covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1]))
        case "q":
            return float(np.quantile(made.residuals("scaled"), float(keys[0].rstrip("%")) / 100))
    ddf = "satterthwaite" if kind in ("df", "p") else "none"
    return float(made.coefficients(ddf=ddf).loc[keys[0], coefficient[kind]])


def last_digit(printed: str) -> float:
    return 10.0 ** -len(printed.partition(".")[2])


def test_published_numbers() -> None:
    wrong = []
    for row in published():
        value, printed = ours(fit(row["model"]), row["quantity"]), float(row["printed"])
        if abs(value - printed) > RTOL * abs(printed) + 0.5 * last_digit(row["printed"]):
            wrong.append((row["fixture"], row["quantity"], row["printed"], value))
    assert not wrong
    assert len(published()) == 139
