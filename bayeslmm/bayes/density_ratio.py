"""Densities at a point, of draws by kernels and of priors exactly where they are known: what Savage and Dickey's ratio is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.bayes.translate import rows_of
from bayeslmm.priors import PriorRow, bounds, log_density

if TYPE_CHECKING:
    from bayeslmm.model import Model

__all__ = ["density_at", "exact_density", "known_row", "support"]

type Array = np.ndarray
type Key = tuple[str, str, str]

_ROOT_2_PI = math.sqrt(2.0 * math.pi)


def density_at(draws: Array, point: float, lower: float = -math.inf, upper: float = math.inf) -> float:
    """Return the density of draws (S,) at a point, by Gaussian kernels.

    The bandwidth is Silverman's, 0.9 min(sd, IQR / 1.34) S^(-1/5); where the support is the whole line, draws are moved towards their
    mean so that kernels do not add to their variance (exact for normal draws); at an end of the support (lower, upper) they are reflected.

    Source: Silverman (1986), Density Estimation, sections 3.4.2, 6.1.1; Jones (1991), Aust. J. Stat. 33 (the variance).
    """
    quartiles = np.quantile(draws, [0.25, 0.75])
    deviation = float(np.std(draws, ddof=1))
    spread = min(deviation, float(quartiles[1] - quartiles[0]) / 1.34) or deviation
    if not spread > 0.0:
        return math.inf if point == float(draws[0]) else 0.0
    h = 0.9 * spread * math.pow(len(draws), -0.2)
    if not lower <= point <= upper:
        return 0.0
    bounded = math.isfinite(lower) or math.isfinite(upper)
    centre = float(np.mean(draws))
    kept = draws if bounded or not math.isfinite(deviation) else centre + (draws - centre) / math.sqrt(1.0 + (h / deviation) ** 2)
    images = [kept, *(2.0 * end - kept for end in (lower, upper) if math.isfinite(end))]
    total = float(np.sum([np.exp(-0.5 * ((point - one) / h) ** 2).sum() for one in images]))
    return total / (len(draws) * h * _ROOT_2_PI)


def known_row(model: Model, key: Key) -> PriorRow | None:
    """Return the prior row of a parameter's own distribution, None where it has none: of an intercept that is centred, say."""
    part, _, term = key
    if part == "aux" and model.family.of_levels is not None:
        return None
    if part == "fixed" and term in {row.term for row in model.prior_rows if row.part == "intercept"}:
        return _centred_alone(model, term)
    rows = [row for row in model.prior_rows if (row.part, row.group, row.term) == key]
    return rows[0] if rows and rows[0].distribution.kind.scipy is not None else None


def _centred_alone(model: Model, term: str) -> PriorRow | None:
    """Return an intercept's prior where there is nothing that it is centred by."""
    row = next(row for row in model.prior_rows if row.part == "intercept" and row.term == term)
    return row if not rows_of(model, "fixed", row.parameter) and row.distribution.kind.scipy is not None else None


def support(model: Model, key: Key) -> tuple[float, float]:
    """Return the range of a parameter."""
    part, _, _ = key
    if part == "cor":
        return -1.0, 1.0
    row = known_row(model, key)
    return (-math.inf, math.inf) if row is None else _range(row, model)


def _range(row: PriorRow, model: Model) -> tuple[float, float]:
    (low, high), (lower, upper) = row.distribution.kind.support, bounds(row, model.family)
    ends = row.distribution.args if row.distribution.name == "uniform" else (low, high)
    return max(lower, ends[0]), min(upper, ends[1])


def exact_density(model: Model, constant: float, slopes: Mapping[Key, float], point: float) -> float | None:
    """Return the prior density at a point of `constant` + sum of slope times parameter, None where it is not known in closed form.

    Known are one parameter of any distribution, and sums of parameters with normal priors that nothing cuts.
    """
    rows = [known_row(model, key) for key in slopes]
    if any(row is None for row in rows) or any(slope == 0.0 for slope in slopes.values()):
        return None
    known: Sequence[PriorRow] = [row for row in rows if row is not None]
    if len(known) == 1:
        (slope,) = slopes.values()
        at = np.array([(point - constant) / slope])
        return float(np.exp(log_density(known[0].distribution, at, *bounds(known[0], model.family))[0])) / abs(slope)
    if any(row.distribution.name != "normal" or _range(row, model) != (-math.inf, math.inf) for row in known):
        return None
    pairs = [(slope, row.distribution.args) for slope, row in zip(slopes.values(), known, strict=True)]
    mean = constant + sum(slope * args[0] for slope, args in pairs)
    sd = math.sqrt(sum((slope * args[1]) ** 2 for slope, args in pairs))
    return math.exp(-0.5 * ((point - mean) / sd) ** 2) / (sd * _ROOT_2_PI)
