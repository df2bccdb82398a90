"""Collinearity of the fixed effects: variance inflation factors, generalised for terms with several coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bayeslmm.errors import FitError
from bayeslmm.fit import Check

if TYPE_CHECKING:
    from bayeslmm.fit import Fit

__all__ = ["Collinearity", "at_fit", "collinearity"]

type Array = np.ndarray

_LIMIT = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collinearity:
    """Result of `collinearity`.

    Attributes
    ----------
    table
        Per term, in the formula's order: `vif`, the (generalised) variance inflation factor; `df`, its number of coefficients;
        `se_factor`, `vif ** (1 / (2 df))`: how many times larger the term's standard errors are than if it were unrelated to the
        others; `tolerance`, `1 / vif`; `interacts`: whether it is part of an interaction, or has one as a part.
    """

    table: pd.DataFrame

    @property
    def check(self) -> Check:
        """The check of the largest `se_factor ** 2`; of terms that interact, it depends on where zero is, and is left out."""
        alone = self.table[~self.table["interacts"]]
        squares = alone["se_factor"] ** 2
        worst = float(squares.max()) if len(squares) else 1.0
        terms = ", ".join(squares.index[squares > _LIMIT])
        found = f"others of the predictors say nearly the same as {terms}: standard errors are {np.sqrt(worst):.2g} times as large"
        return Check(
            code="collinearity",
            value=worst,
            limit=_LIMIT,
            passed=not worst > _LIMIT,
            meaning=found if worst > _LIMIT else "no predictor is nearly a combination of the others",
            remedy="leave one of them out, take their mean or difference, or centre a predictor before its powers (`poly(x, 2)`)",
            severity="note",
        )


def collinearity(fit: Fit) -> Collinearity:
    """Return variance inflation factors of the terms of the fixed effects.

    Parameters
    ----------
    fit
        A fit of either engine with two terms or more.

    Returns
    -------
    Collinearity
        Factors from the correlations of the estimates, the intercept left out, as `car::vif` and `performance::check_collinearity`.
        Without an intercept, and for terms that interact, they depend on the predictors' zeros: read them with care.

    Raises
    ------
    FitError
        With fewer than two terms.

    Source: Fox & Monette (1992), J. Am. Stat. Assoc. 87.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> from bayeslmm.checks import collinearity
    >>> fit = bl.lmer("Reaction ~ Days + I(Days^2) + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> collinearity(fit).table["vif"].round(2).to_dict()
    {'Days': 3.33, 'I(Days^2)': 3.33}
    """
    fixed = fit.model.design.fixed
    assign = np.array([number for number in fixed.assign if number], dtype=int)
    numbers = np.unique(assign)
    if len(numbers) < 2:
        raise FitError("collinearity is among two terms of the fixed effects or more")
    labels = [fixed.terms[number - 1] for number in numbers]
    vif = _inflation(fit.vcov().to_numpy()[np.ix_(*2 * [np.array(fixed.assign) > 0])], assign, numbers)
    df = np.array([int(np.sum(assign == number)) for number in numbers])
    columns = {"vif": vif, "df": df, "se_factor": vif ** (1.0 / (2.0 * df)), "tolerance": 1.0 / vif, "interacts": _interacting(labels)}
    return Collinearity(table=pd.DataFrame(columns, index=pd.Index(labels, name="term")))


def at_fit(fit: Fit) -> Check | None:
    """Return the check of the factors; None with fewer than two terms."""
    return collinearity(fit).check if len(set(fit.model.design.fixed.assign) - {0}) > 1 else None


def _inflation(vcov: Array, assign: Array, numbers: Array) -> Array:
    """Return det R_11 det R_22 / det R of each term's coefficients against the others, R the correlations of the estimates."""
    found = []
    with np.errstate(all="ignore"):
        sd = np.sqrt(np.diagonal(vcov))
        R = vcov / np.outer(sd, sd)
        for number in numbers:
            own = assign == number
            parts = sum(np.linalg.slogdet(R[np.ix_(some, some)])[1] for some in (own, ~own))
            found.append(float(np.exp(parts - np.linalg.slogdet(R)[1])))
    return np.array(found)


def _interacting(labels: list[str]) -> Array:
    """Say of each term whether its variables are part of another's, or another's part of its own."""
    variables = [set(label.split(":")) for label in labels]
    return np.array([any(i != j and (own < other or other < own) for j, other in enumerate(variables)) for i, own in enumerate(variables)])
