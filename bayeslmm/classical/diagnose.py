"""Checks of a classical fit: did the search arrive, is the estimate inside, do the data say enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.checks import model_checks
from bayeslmm.classical.separated import WAY_OUT, separated
from bayeslmm.covariance import structure_of
from bayeslmm.fit import Check, Diagnostics
from bayeslmm.linear.triangle import triangle_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.design import Design, RandomBlock

__all__ = [
    "SINGULAR_TOLERANCE",
    "badly_scaled",
    "diagnose",
    "on_boundary",
    "plateau",
    "row_factor",
    "singular_blocks",
    "singular_terms",
    "undetermined",
]

type Array = np.ndarray

SINGULAR_TOLERANCE = 1e-4
"""lme4's limit of a relative standard deviation (or of a correlation's distance from its limit) that counts as singular."""
_CHANGE = 1e-3
"""A unit step along a flat direction that changes the covariance matrices by less than this does not change them."""
_FAR = 1e5
"""A predictor this many times its range away from zero is worth a sentence."""
_LARGE = 1e7
"""A predictor of this size (or one over it) is worth a sentence."""


def diagnose(fit: ClassicalFit) -> Diagnostics:
    """Return all checks of a classical fit; see `Check`."""
    from bayeslmm.classical.adequacy import laplace_accuracy

    checks = (
        _arrived(fit),
        _lme4_gradient(fit),
        _hessian(fit),
        _separated(fit),
        _singular(fit),
        laplace_accuracy(fit),
        _scaling(fit),
        _rank(fit),
        _levels(fit),
    )
    return Diagnostics(checks=tuple(check for check in checks if check is not None) + model_checks(fit))


def singular_terms(fit: ClassicalFit) -> list[str]:
    """Return the random terms whose estimate lies on the boundary, as `(Days | Subject)`.

    As lme4's `isSingular`, but whatever the units of the predictors: each effect is measured by the root mean square of its column,
    in unstructured terms of what its column has beside the earlier ones.
    """
    return [
        f"({' + '.join(block.effects)} | {block.group}){of_parameter}"
        for of_parameter, blocks, theta in _parts(fit)
        for block, _ in _at_the_limit(blocks, theta)
    ]


def singular_blocks(fit: ClassicalFit) -> list[tuple[RandomBlock, Array]]:
    """Return the blocks of the mean's `singular_terms`, with their theta."""
    return _at_the_limit(fit.model.design.blocks, fit.theta)


def _parts(fit: ClassicalFit) -> list[tuple[str, Sequence[RandomBlock], Array]]:
    """Return the random terms of all predictors: words for whose they are, blocks and theta."""
    design = fit.model.design
    further = [(name, part) for name, part in fit.further.items() if part.names]
    return [("", design.blocks, fit.theta), *((f" of {name}", design.parameters[name][1], part.theta) for name, part in further)]


def _at_the_limit(blocks: Sequence[RandomBlock], theta: Array) -> list[tuple[RandomBlock, Array]]:
    ends = np.cumsum([structure_of(block).n_theta(block.n_effects) for block in blocks])[:-1]
    return [
        (block, theta)
        for block, theta in zip(blocks, np.split(theta, ends) if blocks else [], strict=True)
        if structure_of(block).is_boundary(_unitless(block, theta), block.n_effects, SINGULAR_TOLERANCE)
    ]


def on_boundary(fit: ClassicalFit) -> list[str]:
    """Say of each term whose estimate lies on the boundary what is zero or one there."""
    found = [
        (f"in the predictor{of_parameter}, " if of_parameter else "") + _at_limit(block, row_factor(block, own))
        for of_parameter, blocks, theta in _parts(fit)
        for block, own in _at_the_limit(blocks, theta)
    ]
    return [*found, *_residual_limit(fit)]


def _residual_limit(fit: ClassicalFit) -> list[str]:
    """Say whether the correlation of residuals is at its limit."""
    series = fit.model.design.series
    if series is None:
        return []
    value = float(fit.further[series.term.name].natural()[0])
    return (
        [f"the correlation of neighbouring residuals in {series.term.text} is {np.sign(value):.0f}"]
        if 1.0 - abs(value) < SINGULAR_TOLERANCE
        else []
    )


def _at_limit(block: RandomBlock, A: Array) -> str:
    text = block.term.text
    nil = [effect for effect, size in zip(block.effects, np.linalg.norm(A, axis=1), strict=True) if size < SINGULAR_TOLERANCE]
    if block.n_effects == 1:
        return f"the variance of {text} is zero"
    if nil:
        return f"the variance{'s' if len(nil) > 1 else ''} of {' and '.join(nil)} in {text} {'are' if len(nil) > 1 else 'is'} zero"
    if block.n_effects == 2 and structure_of(block).correlated:
        sign = "-1" if A[0] @ A[1] < 0.0 else "1"
        return f"the correlation of {block.effects[0]} and {block.effects[1]} in {text} is {sign}"
    kept = int(np.sum(np.linalg.svd(A, compute_uv=False) > SINGULAR_TOLERANCE))
    return f"{kept} of the {block.n_effects} principal components of {text} {'has' if kept == 1 else 'have'} a variance"


def row_factor(block: RandomBlock, theta: Array) -> Array:
    """Return the relative Cholesky factor (k, k) of what the effects add to a row: in units of the columns' root mean squares."""
    factor: Array = _root_mean_square(block)[:, None] * structure_of(block).factor(theta, block.n_effects)
    return factor


def _unitless(block: RandomBlock, theta: Array) -> Array:
    """Return theta of a linear structure for columns of root mean square one (if unstructured, orthonormal); of others unchanged."""
    structure, k = structure_of(block), block.n_effects
    if not structure.linear:
        return theta
    L = structure.factor(theta, k)
    if len(theta) == k * (k + 1) // 2:
        L = triangle_of((triangle_of(block.values) @ L).T * np.sqrt(block.mean_variance / len(block.values))).T
        L = L * np.where(np.diagonal(L) < 0.0, -1.0, 1.0)
    else:
        L = _root_mean_square(block)[:, None] * L
    basis = structure.jacobian(theta, k).reshape(-1, k * k)
    scaled: Array = basis @ L.ravel() / np.sum(basis, axis=1)
    return scaled


def undetermined(blocks: Sequence[RandomBlock], theta: Array, directions: Array) -> tuple[str, ...]:
    """Return the covariance parameters, as `Days | Subject`, that change along directions (n_theta, m) in which the fit is flat.

    Where columns of a factor L are zero, L may change and LL' not: such a direction says nothing about the data, and is left out.
    """
    if not directions.size:
        return ()
    names: list[str] = []
    at, sizes, parts = 0, [], []
    for block in blocks:
        structure, k = structure_of(block), block.n_effects
        own = slice(at, at + structure.n_theta(k))
        at = own.stop
        names += [f"{label} | {block.name}" for label in structure.labels(block.effects)]
        units = _root_mean_square(block)
        L, J = structure.factor(theta[own], k), structure.jacobian(theta[own], k)
        moved = units[:, None] * np.tensordot(directions[own].T, J, axes=1)
        change = moved @ (units[:, None] * L).T
        parts.append((change + np.swapaxes(change, 1, 2)).reshape(directions.shape[1], -1))
        sizes.append(np.sqrt(np.einsum("irc,r->i", J**2, units**2)))
    _, strengths, shares = np.linalg.svd(np.concatenate(parts, axis=1).T, full_matrices=False)
    real = strengths > _CHANGE
    moves = np.max(np.abs(directions @ shares[real].T), axis=1, initial=0.0) * np.concatenate(sizes)
    return tuple(name for name, move in zip(names, moves, strict=True) if move > 0.1 * np.max(moves)) if np.any(real) else ()


def _root_mean_square(block: RandomBlock) -> Array:
    sizes: Array = np.sqrt(np.mean(np.square(block.values), axis=0) * block.mean_variance)
    return sizes


def badly_scaled(design: Design) -> list[str]:
    """Return a sentence for each predictor whose size or distance from zero costs digits: cause and remedy."""
    columns = dict(zip(design.fixed_names, design.X.T, strict=True))
    for block in design.blocks:
        columns.update(zip(block.effects, block.values.T, strict=True))
    return [sentence for name, values in columns.items() if (sentence := _poor_scale(name, values))]


def _poor_scale(name: str, values: Array) -> str:
    largest = float(np.max(np.abs(values)))
    spread = float(np.ptp(values))
    if 0.0 < spread < largest / _FAR:
        far = f"{largest / spread:.0e} times their range from zero"
        return f"the values of {name} lie {far}, which costs digits: subtract a value near {largest:.3g}"
    if largest > _LARGE or 0.0 < largest < 1.0 / _LARGE:
        power = 10.0 ** round(np.log10(largest))
        return f"the values of {name} are of size {largest:.0e}, those of the intercept 1: divide {name} by {power:.0e}"
    return ""


def _arrived(fit: ClassicalFit) -> Check | None:
    if fit.search is None:
        return None
    return Check(
        code="gradient",
        value=fit.search.projected / max(1.0, abs(fit.criterion)),
        limit=1e-6,
        passed=fit.search.converged,
        meaning="the exact gradient vanishes at the estimate"
        if fit.search.converged
        else "the exact gradient, relative to the criterion, is not zero: the search stopped before the optimum",
        remedy="rescale predictors that differ by orders of magnitude, simplify the random effects, or fit by `brm`",
    )


def _lme4_gradient(fit: ClassicalFit) -> Check | None:
    if fit.search is None:
        return None
    gradient, hessian = fit.search.gradient, fit.search.hessian
    value = float(np.max(np.abs(gradient), initial=0.0))
    singular = fit.is_singular
    values = np.linalg.eigvalsh(hessian)
    if not singular and gradient.size and values[0] > 1e-12 * values[-1]:
        scaled = np.linalg.solve(np.linalg.cholesky(hessian), gradient)
        value = float(np.max(np.minimum(np.abs(scaled), np.abs(gradient))))
    return Check(
        code="lme4_gradient",
        value=value,
        limit=0.002,
        passed=value <= 0.002 or singular,
        meaning="lme4's own convergence number, max|grad|, which lme4 skips for singular fits",
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
        meaning=plateau(fit)[0]
        if fit.search.flat
        else "the criterion curves upwards in every direction (least over greatest eigenvalue of its Hessian)",
        remedy=plateau(fit)[1],
    )


def _separated(fit: ClassicalFit) -> Check | None:
    found = separated(fit)
    if found is None:
        return None
    return Check(
        code="separated",
        value=float(len(found.coefficients)),
        limit=0.0,
        passed=False,
        meaning=found.sentence,
        remedy=WAY_OUT,
    )


def plateau(fit: ClassicalFit) -> tuple[str, str]:
    """Say what a flat optimum leaves open, and what to do about it."""
    open_ones = () if fit.search is None else fit.search.undetermined
    coefficients = [name for name in open_ones if " | " not in name]
    if coefficients and fit.generalised:
        return (
            f"the likelihood goes on rising as {', '.join(coefficients)} grow{'s' * (len(coefficients) == 1)} without limit",
            "see `separation(model)` for the level or predictor behind it; leave it out, or fit by `brm`, whose priors keep it finite",
        )
    return (
        f"the criterion is flat: the data determine only a combination of {', '.join(open_ones)}",
        "drop a random effect or its correlation: `(x || g)`, or `0 + factor` without the intercept",
    )


def _singular(fit: ClassicalFit) -> Check | None:
    if not fit.theta.size and fit.model.design.series is None:
        return None
    terms = on_boundary(fit)
    found = f"the estimate is on the boundary: {'; '.join(terms)}"
    return Check(
        code="singular",
        value=float(len(terms)),
        limit=0.0,
        passed=not terms,
        meaning=found if terms else "no term is on the boundary",
        remedy="the data do not support all of the random effects: `remedy` shows the ways out, and says what to report",
    )


def _scaling(fit: ClassicalFit) -> Check | None:
    poorly = badly_scaled(fit.model.design)
    if not poorly:
        return None
    return Check(
        code="badly_scaled",
        value=float(len(poorly)),
        limit=0.0,
        passed=False,
        meaning="; ".join(poorly),
        remedy="centre or rescale these predictors; the results are right on their scale, but hold fewer digits",
        severity="note",
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
        remedy="take them out of the formula; where a predictor lies far from zero compared to its range, subtract its mean first",
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
