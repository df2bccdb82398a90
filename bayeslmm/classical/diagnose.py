"""Checks of a classical fit: did the search arrive, is the estimate inside, do the data say enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.covariance import STRUCTURES
from bayeslmm.fit import Check, Diagnostics

if TYPE_CHECKING:
    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.design import RandomBlock

__all__ = ["SINGULAR_TOLERANCE", "diagnose", "singular_terms"]

type Array = np.ndarray

SINGULAR_TOLERANCE = 1e-4
"""lme4's limit of a relative standard deviation (or of a correlation's distance from its limit) that counts as singular."""


def diagnose(fit: ClassicalFit) -> Diagnostics:
    """Return all checks of a classical fit; see `Check`."""
    checks = (_arrived(fit), _lme4_gradient(fit), _hessian(fit), _singular(fit), _rank(fit), _levels(fit))
    return Diagnostics(checks=tuple(check for check in checks if check is not None))


def singular_terms(fit: ClassicalFit) -> list[str]:
    """Return the random terms whose estimate lies on the boundary, as `(Days | Subject)`.

    As lme4's `isSingular`, but whatever the units of the predictors: each effect is measured by the root mean square of its column.
    """
    return [
        f"({' + '.join(block.effects)} | {block.group})"
        for block, theta in zip(fit.model.design.blocks, fit.theta_by_block, strict=True)
        if STRUCTURES[block.structure].is_boundary(_unitless(block, theta), block.n_effects, SINGULAR_TOLERANCE)
    ]


def _unitless(block: RandomBlock, theta: Array) -> Array:
    """Return theta of a linear structure for columns of root mean square one; that of others unchanged."""
    structure, k = STRUCTURES[block.structure], block.n_effects
    if not structure.linear:
        return theta
    sizes = np.sqrt(np.mean(np.square(block.values), axis=0))
    basis = structure.jacobian(theta, k).reshape(-1, k * k)
    scaled: Array = basis @ (sizes[:, None] * structure.factor(theta, k)).ravel() / np.sum(basis, axis=1)
    return scaled


def _arrived(fit: ClassicalFit) -> Check | None:
    if fit.search is None:
        return None
    return Check(
        code="gradient",
        value=fit.search.projected / max(1.0, abs(fit.criterion)),
        limit=1e-6,
        passed=fit.search.converged,
        meaning="the exact gradient at the estimate, relative to the criterion: the search stopped before the optimum",
        remedy="rescale predictors that differ by orders of magnitude, simplify the random effects, or fit by `brm`",
    )


def _lme4_gradient(fit: ClassicalFit) -> Check | None:
    if fit.search is None:
        return None
    gradient, hessian = fit.search.gradient, fit.search.hessian
    value = float(np.max(np.abs(gradient), initial=0.0))
    singular = fit.is_singular
    if not singular and gradient.size and np.linalg.eigvalsh(hessian)[0] > 0.0:
        scaled = np.linalg.solve(np.linalg.cholesky(hessian), gradient)
        value = float(np.max(np.minimum(np.abs(scaled), np.abs(gradient))))
    return Check(
        code="lme4_gradient",
        value=value,
        limit=0.002,
        passed=value <= 0.002 or singular,
        meaning="lme4's own convergence number (skipped there for singular fits), from the exact gradient by theta",
        remedy="see `gradient`, which is the exact verdict",
        severity="note",
    )


def _hessian(fit: ClassicalFit) -> Check | None:
    if fit.search is None or not fit.theta.size:
        return None
    return Check(
        code="curvature",
        value=fit.search.least_curvature,
        limit=1e-6,
        passed=not fit.search.flat,
        meaning="least eigenvalue of the Hessian over the greatest, inside the boundary: some combination of variance parameters is "
        "not determined by the data (effects that never occur together, or say the same)",
        remedy="drop a random effect or its correlation: `(x || g)`, or `0 + factor` without the intercept",
    )


def _singular(fit: ClassicalFit) -> Check | None:
    if not fit.theta.size:
        return None
    terms = singular_terms(fit)
    found = f"on the boundary (a variance of zero, or a correlation of one): {', '.join(terms)}"
    return Check(
        code="singular",
        value=float(len(terms)),
        limit=0.0,
        passed=not terms,
        meaning=found if terms else "no term is on the boundary",
        remedy="the data do not support the term: simplify it, or fit by `brm`, whose prior keeps the variance away from zero",
    )


def _rank(fit: ClassicalFit) -> Check | None:
    if not fit.dropped:
        return None
    return Check(
        code="rank_deficient",
        value=float(len(fit.dropped)),
        limit=0.0,
        passed=False,
        meaning=f"columns of the fixed effects that say the same as earlier ones were left out: {', '.join(fit.dropped)}",
        remedy="leave the redundant predictors out of the formula",
        severity="note",
    )


def _levels(fit: ClassicalFit) -> Check | None:
    groups = fit.ngroups
    if not groups:
        return None
    few = [f"{group} ({levels})" for group, levels in groups.items() if levels < 5]
    found = f"a variance between fewer than five levels is poorly known: {', '.join(few)}"
    return Check(
        code="few_levels",
        value=float(min(groups.values())),
        limit=5.0,
        passed=not few,
        meaning=found if few else "every factor has five levels or more",
        remedy="take the factor as a fixed effect, or fit by `brm` with a considered prior",
        severity="note",
    )
