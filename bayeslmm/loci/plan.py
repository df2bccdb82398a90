"""What all loci share: the design of the samples, encoded once, the family and the priors, in the form of the kernels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.design import encode
from bayeslmm.errors import BayesLmmWarning, DataError, FitError, PriorError
from bayeslmm.formula import parse
from bayeslmm.formula.deparse import deparse
from bayeslmm.formula.values import frozen
from bayeslmm.loci.likelihood import BETA_BINOMIAL, BINOMIAL
from bayeslmm.loci.marginal import Prior, Shape, nodes
from bayeslmm.model import Model, model

if TYPE_CHECKING:
    from bayeslmm.formula.nodes import Term
    from bayeslmm.loci.data import LociData
    from bayeslmm.priors import PriorRow

__all__ = ["FAMILY_CODES", "Plan", "plan_of"]

type Array = np.ndarray

FAMILY_CODES: Mapping[str, int] = MappingProxyType({"binomial": BINOMIAL, "beta_binomial": BETA_BINOMIAL})
"""The families that a locus can have, and their codes in the kernels."""

CONTRAST_SD, INTERCEPT_SD = 2.5, 5.0
"""Prior standard deviations on the logit scale: of a difference between two levels, and of the mean over all cells."""
TAU_PRIOR = (3.0, 1.0)
"""Degrees of freedom and scale of the half Student's t prior of the groups' standard deviation."""
PHI_PRIOR = (3.0, 1.5)
"""Mean and standard deviation of log phi, the beta-binomial's precision: phi between 1 and 380 with 95 %."""
_NODES = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One model for all loci.

    Attributes
    ----------
    model
        The model on counts of one read, which stand for those of a locus; its design is that of every locus.
    shape, prior
        Design and priors as the kernels take them; rows (samples) in `order` (S,), so that groups stand together.
    order
        The samples in the order of the kernels.
    terms
        Names of the coefficients, as lme4 has them.
    group, levels
        The grouping factor and its levels, in the order of the kernels' groups.
    invariant
        Whether the coefficients' prior is the default, which does not depend on the reference levels.
    """

    model: Model
    shape: Shape
    prior: Prior
    order: Array
    terms: tuple[str, ...]
    group: str
    levels: tuple[str, ...]
    invariant: bool

    @property
    def family(self) -> str:
        """The family's name."""
        return self.model.family.name

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the kernels' parameters: the coefficients, `sd_<group>`, and `phi` where there is one."""
        return (*self.terms, f"sd_{self.group}", *(("phi",) if self.family == "beta_binomial" else ()))


def plan_of(formula: Any, data: LociData, family: str = "beta_binomial", priors: Sequence[PriorRow] | None = None) -> Plan:
    """Encode a formula on the samples of loci.

    Parameters
    ----------
    formula
        Its response is `cbind(M, U)` (methylated, unmethylated) or `M | trials(coverage)`; the right side uses the samples' columns.
    data
        The loci; only their samples are looked at.
    family
        `"beta_binomial"` or `"binomial"`.
    priors
        Rows of `prior`; default: normal with standard deviation 2.5 for every difference of two levels and 2.5 / sd(x) for a slope,
        whatever the reference levels; half Student's t(3, 0, 1) for the groups' standard deviation; log phi normal(3, 1.5).

    Raises
    ------
    FormulaError, DataError, PriorError
        As `model` does, and if the response is another.
    FitError
        If the family is another, or the random part is not one random effect of one factor.
    """
    if family not in FAMILY_CODES:
        raise FitError(f"loci are of family {' or '.join(FAMILY_CODES)}, not {family!r}")
    frame = data.samples.assign(M=1, U=1, coverage=2)
    clash = [name for name in ("M", "U", "coverage") if name in data.samples.columns]
    if clash:
        raise DataError(f"the samples' column '{clash[0]}' has the name of the counts; rename it", column=clash[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        made = model(formula, frame, family, priors=priors)
    _check_response(made)
    design = made.design
    if design.n != data.n_samples:
        lost = ", ".join(f"{count} with {reason}" for reason, count in design.lost.items())
        raise DataError(f"all samples are needed: {lost}; complete the table of samples or take some of them out of the data")
    index, z, group, levels = _random_effect(made)
    order = np.argsort(index, kind="stable")
    first = np.searchsorted(index[order], np.arange(len(levels) + 1))
    shape = Shape(np.ascontiguousarray(design.X[order]), z[order], first, FAMILY_CODES[family], *nodes(_NODES))
    return Plan(
        model=made,
        shape=shape,
        prior=_kernel_prior(made, priors or ()),
        order=frozen(order),
        terms=design.fixed_names,
        group=group,
        levels=levels,
        invariant=not any(row.part in ("fixed", "intercept") for row in priors or ()),
    )


def _check_response(made: Model) -> None:
    """Refuse a response that is not the counts of a locus."""
    name = made.design.response_name.replace(" ", "")
    if name not in ("cbind(M,U)", "M|trials(coverage)", "M") or made.design.trials is None:
        raise DataError(f"the response of loci is `cbind(M, U)` or `M | trials(coverage)`, not `{made.design.response_name}`")


def _random_effect(made: Model) -> tuple[Array, Array, str, tuple[str, ...]]:
    """Return index (S,), values (S,), label and levels of the one random effect; without any, of none for a group of all samples."""
    blocks = made.design.blocks
    if made.design.parameters or made.design.series is not None:
        raise FitError("loci take one formula, for the mean")
    if len(blocks) != 1 or blocks[0].n_effects != 1 or blocks[0].known is not None:
        raise FitError(
            f"loci take one random effect of one factor, as (1 | tank), not {' + '.join(block.term.text for block in blocks) or 'none'}"
        )
    block = blocks[0]
    return block.index, block.values[:, 0].astype(float), block.group, block.levels


# ------------------------------------------------------------------------------------------------------------------------- priors


def _kernel_prior(made: Model, given: Sequence[PriorRow]) -> Prior:
    """Return the priors as the kernels take them: defaults that do not depend on the reference levels, or the user's rows."""
    rows = {(row.part, row.term): row for row in made.prior_rows if row.source != "default"}
    if any(part in ("fixed", "intercept") for part, _ in rows):
        A, location, scale, df = _by_rows(made)
    else:
        p = made.design.p
        A, location, scale, df = np.linalg.inv(np.linalg.cholesky(_invariant(made))), np.zeros(p), np.ones(p), np.full(p, np.inf)
    tau = next((row for (part, _), row in rows.items() if part == "sd"), None)
    phi = rows.get(("aux", "phi"))
    tau_df, tau_scale = TAU_PRIOR if tau is None else _half(tau)
    phi_mean, phi_sd = PHI_PRIOR if phi is None else _lognormal(phi)
    return Prior(np.ascontiguousarray(A), location, scale, df, tau_df, tau_scale, phi_mean, phi_sd)


def _invariant(made: Model) -> Array:
    """Return the covariance (p, p) of the coefficients' default prior.

    The linear predictor is mu + sum over terms of D a, D the indicators of all combinations of the term's levels (times its
    numbers, in units of their standard deviation), a independent normal, all of one variance within a term: a difference of two levels,
    or the greatest contrast of two by two, has standard deviation 2.5. The coefficients are those of the same predictor in the
    columns of X, so that what is the reference level does not matter. Where X cannot make the same predictor (a term without its
    margins), columns are taken one by one.
    """
    X = made.design.X
    back = np.linalg.pinv(X)
    spread = INTERCEPT_SD**2 * np.outer(back.sum(axis=1), back.sum(axis=1))
    for term in made.formula.mean.terms:
        D, factors = _indicators(made, term)
        made_of = back @ D
        if np.max(np.abs(X @ made_of - D), initial=0.0) > 1e-8 * max(1.0, float(np.max(np.abs(D), initial=0.0))):
            return np.diag(_by_columns(X) ** 2)
        spread += CONTRAST_SD**2 / 2.0**factors * (made_of @ made_of.T)
    return spread


def _indicators(made: Model, term: Term) -> tuple[Array, int]:
    """Return the columns (S, m) of a term with a column for every combination of levels, and the number of its factors."""
    response = made.formula.text.partition("~")[0]
    known = [label for variable in term.variables if (label := deparse(variable)) in made.design.encoder.factors]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        D = encode(parse(f"{response} ~ 0 + {term.label}"), made.frame, contrasts=made.design.encoder.contrasts).X
    numbers = D.sum(axis=1, keepdims=True) if known else D
    spread = numbers.std(axis=0)
    return D / np.where(spread > 1e-12, spread, 1.0), len(known)


def _by_columns(X: Array) -> Array:
    """Return a standard deviation for each coefficient by itself: 2.5 for an indicator, 2.5 / sd(x) for numbers."""
    spread = X.std(axis=0)
    constant = spread <= 1e-12
    indicator = np.all((X == 0.0) | (X == 1.0), axis=0)
    sd = CONTRAST_SD / np.where(constant | indicator, 1.0, spread)
    return np.where(constant, INTERCEPT_SD, sd)


_TAILS: Mapping[str, Callable[..., tuple[float, float, float]]] = MappingProxyType(
    {
        "normal": lambda mean, sd: (mean, sd, math.inf),
        "student_t": lambda df, location, scale: (location, scale, df),
        "cauchy": lambda location, scale: (location, scale, 1.0),
    }
)
"""The distributions that a coefficient's prior can be: location, scale, degrees of freedom."""


def _tail(row: PriorRow) -> tuple[float, float, float]:
    distribution = row.distribution
    if distribution.name not in _TAILS or row.bounded:
        raise PriorError(f"for loci a prior of '{row.term or row.part}' is one of {', '.join(_TAILS)}, without bounds; not {distribution}")
    location, scale, df = _TAILS[distribution.name](*distribution.args)
    return location, scale, df


def _by_rows(made: Model) -> tuple[Array, Array, Array, Array]:
    """Return A, location, scale, df of independent priors: the user's rows, by columns where there is none."""
    p, names = made.design.p, made.design.fixed_names
    A, location, df = np.eye(p), np.zeros(p), np.full(p, np.inf)
    scale = _by_columns(made.design.X)
    for row in made.prior_rows:
        if row.part not in ("fixed", "intercept") or row.source == "default":
            continue
        at = names.index("(Intercept)" if row.part == "intercept" else row.term)
        location[at], scale[at], df[at] = _tail(row)
        if row.part == "intercept":
            A[at] = made.design.X.mean(axis=0)
    return A, location, scale, df


def _half(row: PriorRow) -> tuple[float, float]:
    """Return degrees of freedom and scale of a half Student's t."""
    location, scale, df = _tail(row)
    if location != 0.0:
        raise PriorError(f"for loci the prior of a standard deviation is centred at 0, not {row.distribution}")
    return df, scale


def _lognormal(row: PriorRow) -> tuple[float, float]:
    if row.distribution.name != "lognormal":
        raise PriorError(f"for loci the prior of phi is lognormal(mean, sd), not {row.distribution}")
    mean, sd = row.distribution.args
    return mean, sd
