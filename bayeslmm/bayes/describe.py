"""`describe_posterior`: the centre, intervals, probability of direction and share of practical equivalence of every parameter."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes.checks import array_stats
from bayeslmm.bayes.fit import BayesFit
from bayeslmm.bayes.summary import quantities
from bayeslmm.errors import FitError, suggest

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.model import Model

__all__ = ["INTERVALS", "PARTS", "describe_posterior", "rope_range"]

type Array = np.ndarray

PARTS = ("fixed", "sd", "cor", "aux")
_PRECISION = 1024
_CORE = 0.9


def describe_posterior(
    fit: BayesFit,
    rope: tuple[float, float] | Mapping[str, tuple[float, float]] | None = None,
    *,
    prob: float = 0.95,
    interval: str = "eti",
    rope_of: str = "posterior",
    parts: str | Sequence[str] = "fixed",
) -> pd.DataFrame:
    """Describe the posterior of each parameter: centre, interval, probability of direction, share in a region of practical equivalence.

    Parameters
    ----------
    fit
        What `brm` returned.
    rope
        The region of practical equivalence to zero, (low, high), for all rows, or a dict of term -> (low, high) for some. Default:
        `rope_range` for the coefficients of the mean but the intercept, whose units it is in.
    prob
        Probability of the interval.
    interval
        `"eti"` (equal tails) or `"hdi"` (shortest).
    rope_of
        Of what the share in the region is: of the whole `"posterior"`, or of the part of it inside the `"interval"`.
    parts
        Which of `"fixed"`, `"sd"`, `"cor"`, `"aux"`.

    Returns
    -------
    DataFrame
        `part, group, term, median, map, mean, sd, lower, upper, p_direction, rope_low, rope_high, rope_share`. `map`: the highest
        point of the density, by ArviZ's kernel estimate; `p_direction`: the probability that the parameter has the sign of its median;
        `rope_share`: NaN where no region is given.

    Raises
    ------
    FitError
        If the fit is no posterior, or an option is unknown.

    Source: Makowski, Ben-Shachar, Chen & Lüdecke (2019), Front. Psychol. 10 (probability of direction); Kruschke (2018), Adv. Methods
    Pract. Psychol. Sci. 1 (ROPE).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.brm("Reaction ~ Days + (1 | Subject)", bl.load_dataset("sleepstudy"), seed=1, progressbar=False)
    >>> table = bl.describe_posterior(fit).set_index("term")
    >>> table.loc["Days", ["p_direction", "rope_low", "rope_share"]].round(2).tolist()
    [1.0, -5.63, 0.0]
    """
    import pandas as pd

    if not isinstance(fit, BayesFit):
        raise FitError(f"describe_posterior is of posteriors, which `brm` makes, not of {type(fit).__name__}")
    wanted = (parts,) if isinstance(parts, str) else tuple(parts)
    for name, value, known in (("interval", interval, [*INTERVALS]), ("rope_of", rope_of, ["posterior", "interval"])):
        if value not in known:
            raise FitError(f"unknown {name} {value!r}{suggest(str(value), known)}")
    for one in wanted:
        if one not in PARTS:
            raise FitError(f"unknown part {one!r}{suggest(str(one), PARTS)}")
    if isinstance(prob, bool) or not isinstance(prob, (int, float)) or not 0.0 < prob < 1.0:
        raise FitError(f"prob must lie between 0 and 1, not {prob!r}")
    rows = [row for row in quantities(fit.model, fit.tree["posterior"].to_dataset()) if row.part in wanted]
    regions = _regions(fit.model, rope, [(row.part, row.term) for row in rows])
    records = []
    for row, (low, high) in zip(rows, regions, strict=True):
        values = row.draws.reshape(-1)
        lower, upper = INTERVALS[interval](values, float(prob))
        inside = values if rope_of == "posterior" else values[(values >= lower) & (values <= upper)]
        share = float(np.mean((inside >= low) & (inside <= high))) if math.isfinite(low) else math.nan
        records.append(
            {
                "part": row.part,
                "group": row.group,
                "term": row.term,
                "median": float(np.median(values)),
                "map": _mode(values),
                "mean": float(np.mean(values)),
                "sd": float(np.std(values, ddof=1)) if values.size > 1 else math.nan,
                "lower": lower,
                "upper": upper,
                "p_direction": float(max(np.mean(values > 0.0), np.mean(values < 0.0))),
                "rope_low": low,
                "rope_high": high,
                "rope_share": share,
            }
        )
    columns = [
        "part",
        "group",
        "term",
        "median",
        "map",
        "mean",
        "sd",
        "lower",
        "upper",
        "p_direction",
        "rope_low",
        "rope_high",
        "rope_share",
    ]
    return pd.DataFrame(records, columns=columns)


def rope_range(model: Model) -> tuple[float, float]:
    """Return the usual region of practical equivalence to zero of a model's coefficients, as bayestestR has it.

    Gaussian with identity link: a tenth of the response's standard deviation; lognormal, Gaussian with log link and a response that is a
    logarithm: 0.01; logit: a tenth of pi / sqrt(3), 0.18; probit 0.1; all others 0.1.

    Source: Kruschke & Liddell (2018), Psychon. Bull. Rev. 25; bayestestR (Makowski, Ben-Shachar & Lüdecke 2019, JOSS 4).
    """
    design, link = model.design, model.link.name
    logarithm = model.family.log_scale or design.response_name.replace(" ", "").startswith(("log(", "log10(", "log2(", "log1p("))
    if logarithm or (model.family.name, link) == ("gaussian", "log"):
        size = 0.01
    elif link == "identity" and model.family.name in ("gaussian", "student") and design.n > 1:
        size = 0.1 * float(np.std(design.y, ddof=1))
    else:
        size = _BY_LINK.get(link, 0.1)
    return -size, size


_BY_LINK: Mapping[str, float] = MappingProxyType({"logit": 0.1 * math.pi / math.sqrt(3.0), "probit": 0.1})


def _regions(model: Model, rope: Any, rows: Sequence[tuple[str, str]]) -> list[tuple[float, float]]:
    """Return the region of each (part, term); NaN where there is none."""
    none = (math.nan, math.nan)
    if rope is None:
        usual, slopes = rope_range(model), {name for name in model.design.fixed_names if name != "(Intercept)"}
        return [usual if part == "fixed" and term in slopes else none for part, term in rows]
    if not isinstance(rope, Mapping):
        return [_pair(rope)] * len(rows)
    terms = [term for _, term in rows]
    for term in rope:
        if term not in terms:
            raise FitError(f"rope: no term '{term}' in this table{suggest(str(term), terms)}")
    return [_pair(rope[term]) if term in rope else none for term in terms]


def _pair(given: Any) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in given)
    except (TypeError, ValueError):
        raise FitError(f"rope is a pair (low, high), not {given!r}") from None
    if not low < high or not math.isfinite(high - low):
        raise FitError(f"rope is a pair (low, high) of numbers, the lower one first, not {given!r}")
    return low, high


def _equal_tailed(values: Array, prob: float) -> tuple[float, float]:
    lower, upper = np.quantile(values, [(1.0 - prob) / 2.0, (1.0 + prob) / 2.0])
    return float(lower), float(upper)


def _shortest(values: Array, prob: float) -> tuple[float, float]:
    lower, upper = array_stats().hdi(values, prob)
    return float(lower), float(upper)


INTERVALS: Mapping[str, Callable[[Array, float], tuple[float, float]]] = MappingProxyType({"eti": _equal_tailed, "hdi": _shortest})
"""Kind of interval -> function of draws (S,) and probability."""


def _mode(values: Array) -> float:
    """Return the highest point of the density of draws, which lies in the shortest interval; of draws that are all the same, themselves.

    Kernels on the draws of that interval alone are fine enough, however long the tails.
    """
    lower, upper = _shortest(values, _CORE)
    core = values[(values >= lower) & (values <= upper)]
    if not np.ptp(core) > 0.0:
        return float(core[0])
    grid, density, _ = array_stats().kde(core, grid_len=_PRECISION)
    return float(grid[int(np.argmax(density))])
