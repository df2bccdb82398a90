"""The posterior of a Gaussian linear mixed model with its random effects integrated out: log density and exact gradient.

With V = sigma^2 (W^-1 + Z Lambda Lambda'Z') and v = (-beta, 1), all that the density needs of n rows is F = [X y]'(V / sigma^2)^-1 [X y],
which the elimination of `system` makes from products that are formed once:

    log p(y | beta, Lambda, sigma) = -n/2 log(2 pi sigma^2) + (sum log w) / 2 - log|I + Lambda'Z'WZ Lambda| / 2 - v'F v / (2 sigma^2).

The adjoint of the same elimination, started with v v' / sigma^2, is the gradient by Lambda. Parameters are those of `translate`, on the
real line with their Jacobians: coefficients of the centred design, standard deviations, correlations by the rows of their Cholesky factor
(y / sqrt(1 + |y|^2), 1 / sqrt(1 + |y|^2)), sigma. X enters by an orthonormal basis, y as its least-squares residual, the columns of Z
in units of their root mean square, so that digits are kept whatever the units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numba import njit
from scipy.special import betaln

from bayeslmm.bayes.collapsed_priors import Scalars, constrain, form, scalars_of
from bayeslmm.bayes.translate import Factor, factors, rows_of
from bayeslmm.classical import pls
from bayeslmm.classical import system as linear
from bayeslmm.design import INTERCEPT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bayeslmm.covariance import Structure
    from bayeslmm.model import Model
    from bayeslmm.priors import PriorRow

__all__ = ["Density", "Parameters", "Plan", "Values", "density_of", "evaluator", "values_of"]

type Array = np.ndarray

_INDEPENDENT, _FREE, _GIVEN = range(3)


class Plan(NamedTuple):
    """All that a kernel needs to go from a point u on the real line to the arguments of the elimination, and back.

    Values x (in slots): p coefficients, standard deviations, the unit-interval parameters of `cs` and `ar1`, sigma last. Those that are
    free are in `scalars`, u's first entries; constants stand in `fixed` (slots,). Behind them in u: the rows of the correlations.
    `G` (m, p), `centre` (p,): v = (-G (x - centre), 1). `y_scale`: units of the response. `rows`: n, or the sum of brms's weights.
    Per term t: `k` effects, `kind` of its correlation, `lam_at` and `width` of its factor's block in Lambda, `effect_at` where its effects
    start in `sd_slot` and `size`, `cor_at` where its correlations start in u, `matrix_at` where its (k, k) Cholesky factor stands in
    C, `power` = 2 eta - 1 + k.
    """

    scalars: Scalars
    fixed: Array
    G: Array
    centre: Array
    y_scale: float
    rows: float
    constant: float
    k: Array
    kind: Array
    lam_at: Array
    width: Array
    effect_at: Array
    cor_at: Array
    matrix_at: Array
    power: Array
    sd_slot: Array
    size: Array


class Space(NamedTuple):
    """Scratch arrays of one thread: values x and adjoint xbar (slots), dx/du and d log prior/du (scalars), C and Cbar (flat), L, v, Fv."""

    x: Array
    xbar: Array
    slope: Array
    prior: Array
    C: Array
    Cbar: Array
    lam: Array
    v: Array
    Fv: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A term whose correlation matrix has one parameter: its place in u, in C, its structure and the least correlation."""

    at: int
    matrix_at: int
    k: int
    structure: Structure
    lowest: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """The vector u by name: entries `labels` (d,), and how the values of the posterior are read from x.

    `p` coefficients, the intercept at `intercept` (-1: none that is centred) with the other columns' `means` (p,); per grouping factor
    the slots of its standard deviations.
    """

    labels: tuple[str, ...]
    p: int
    intercept: int
    means: Array
    sd_slots: tuple[Array, ...]
    sigma: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Density:
    """The log density of u (d,) of one model: the products of its data, and the plan that leads to them."""

    system: linear.System
    plan: Plan
    given: tuple[Given, ...]
    groups: tuple[Factor, ...]
    parameters: Parameters

    @property
    def dim(self) -> int:
        return len(self.parameters.labels)


# --------------------------------------------------------------------------------------------------------------------- preparing


@dataclass(frozen=True, slots=True, kw_only=True)
class _Term:
    """One random term's numbers in the plan, and its prior."""

    k: int
    kind: int
    factor: int
    column: int
    structure: Structure
    eta: float


def density_of(model: Model) -> Density:
    """Return the collapsed density of a Gaussian linear mixed model to which it applies (see `collapsed.limit`)."""
    design, groups = model.design, factors(model)
    powers = design.weights if design.has_weights else np.ones(design.n)
    precise = model.dialect == "lme4"
    coefficients, intercept, means = _coefficients(model)
    basis = _basis(design.X - means, design.y - design.offset, np.sqrt(powers))
    sizes = [_root_mean_square(_columns(group) * np.sqrt(powers)[:, None]) for group in groups]
    random = [
        linear.Factor(index=group.blocks[0].index, n_levels=len(group.levels), z=_columns(group) * np.sqrt(powers)[:, None] / size)
        for group, size in zip(groups, sizes, strict=True)
    ]
    system = linear.assemble(random, basis.XY)
    terms = _terms(model, groups)
    rows = [*enumerate(coefficients)]
    sd_slots = []
    for group in groups:
        own, slots = _deviations(model, group, len(rows))
        rows += own
        sd_slots.append(slots)
    rows += [(len(rows) + i, _unit_row(term.eta)) for i, term in enumerate(term for term in terms if term.kind == _GIVEN)]
    (sigma,) = [row for row in model.prior_rows if row.part == "aux"]
    rows.append((len(rows), sigma))
    plan, given, labels = _plan(model, basis, system, terms, rows, sd_slots, sizes)
    log_weights = float(np.sum(np.log(powers))) if precise else 0.0
    plan = plan._replace(rows=float(design.n if precise else np.sum(powers)))
    plan = plan._replace(constant=plan.constant + 0.5 * (log_weights - plan.rows * math.log(2.0 * math.pi)))
    parameters = Parameters(
        labels=labels, p=len(coefficients), intercept=intercept, means=means, sd_slots=tuple(sd_slots), sigma=len(rows) - 1
    )
    return Density(system=system, plan=plan, given=given, groups=groups, parameters=parameters)
