"""What all figures need: the fits of an object with their labels, and the draws of a posterior by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from scipy import stats

from bayeslmm.errors import FitError
from bayeslmm.fit import Fit
from bayeslmm.formula.nodes import Name
from bayeslmm.model import Model

if TYPE_CHECKING:
    from bayeslmm.design import RandomBlock

__all__ = ["Source", "effect_intervals", "grid_shape", "observed", "pick", "posterior_draws", "response_label", "short", "source_of"]

type Array = np.ndarray


@runtime_checkable
class _Compared(Protocol):
    """What is asked of a comparison: its fits, their labels, its table."""

    @property
    def fits(self) -> tuple[Fit, ...]: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def table(self) -> pd.DataFrame: ...


@runtime_checkable
class _Posterior(Protocol):
    """What is asked of a Bayesian fit beyond the protocol: its draws as a DataTree."""

    @property
    def tree(self) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The fits to draw, with a unique label for each; all are of the same rows. Or no fit: a model to draw, `only`."""

    fits: tuple[Fit, ...]
    labels: tuple[str, ...]
    only: Model | None = None

    @property
    def model(self) -> Model:
        return self.only or self.fits[0].model

    @property
    def posteriors(self) -> tuple[tuple[str, Any], ...]:
        """Label and DataTree of every fit that has draws."""
        return tuple((label, fit.tree) for label, fit in zip(self.labels, self.fits, strict=True) if isinstance(fit, _Posterior))


def source_of(obj: Any) -> Source:
    """Return the fits of a fit or comparison, or a model.

    Raises
    ------
    FitError
        The object is none of these.
    """
    if isinstance(obj, Model):
        return Source(fits=(), labels=(), only=obj)
    if isinstance(obj, _Compared):
        return Source(fits=tuple(obj.fits), labels=tuple(obj.labels))
    if isinstance(obj, Fit):
        return Source(fits=(obj,), labels=(obj.method,))
    raise FitError(f"a figure is drawn of a fit, a comparison or a model, not of {type(obj).__name__}")


def observed(model: Model) -> Array:
    """Return the response on the scale of its mean: y, or successes / trials (n,)."""
    design = model.design
    return np.asarray(design.y, dtype=float) if design.trials is None else design.y / design.trials


def response_label(model: Model, *, counts: bool = False) -> str:
    """Return the response's name for an axis: of the proportion (or the counts) where it is successes of trials."""
    design, response = model.design, model.formula.response
    if design.trials is not None:
        first = response.nodes[0] if response is not None else None
        name = first.name if isinstance(first, Name) else design.response_name
        return name if counts else f"{name}, proportion"
    levels = design.response_levels
    return design.response_name if levels is None or len(levels) > 2 else f"{design.response_name} = {levels[-1]}"


def short(label: str, width: int = 18) -> str:
    """Return a label of at most `width` characters, cut with an ellipsis."""
    return label if len(label) <= width else label[: width - 1] + "…"


def grid_shape(count: int, widest: int) -> tuple[int, int]:
    """Return rows and columns of a grid of panels, at most `widest` columns, with as few empty places as can be.

    Examples
    --------
    >>> grid_shape(20, 6), grid_shape(18, 6), grid_shape(3, 6)
    ((4, 5), (3, 6), (1, 3))
    """
    if count <= widest:
        return 1, count
    columns = min(range(widest, max(2, widest - 3), -1), key=lambda width: -count % width)
    return -(-count // columns), columns


def pick(count: int, limit: int) -> Array:
    """Return at most `limit` positions spread evenly over `range(count)`."""
    return np.arange(count) if count <= limit else np.unique(np.linspace(0, count - 1, limit).round().astype(int))


def effect_intervals(fit: Fit, group: str, prob: float) -> pd.DataFrame:
    """Return the random effects of a factor: `level, effect, estimate, lower, upper`.

    Quantiles of the draws for a posterior; for a point estimate the normal interval of the conditional distribution,
    given the estimated variances.
    """
    values, sds = fit.ranef(condsd=True)[group]
    draws = fit.draws()
    frames = []
    for effect in values.columns:
        estimate = values[effect].to_numpy(dtype=float)
        half = stats.norm.ppf(0.5 + prob / 2) * sds[effect].to_numpy(dtype=float)
        lower, upper = estimate - half, estimate + half
        found = _effect_draws(fit.model.design.blocks, draws.effects, group, str(effect)) if draws.n_draws > 1 else None
        if found is not None:
            lower, upper = np.quantile(found, [(1 - prob) / 2, (1 + prob) / 2], axis=0)
        frames.append(
            pd.DataFrame({"level": values.index.astype(str), "effect": str(effect), "estimate": estimate, "lower": lower, "upper": upper})
        )
    return pd.concat(frames, ignore_index=True)


def _effect_draws(blocks: Sequence[RandomBlock], effects: Sequence[Array], group: str, effect: str) -> Array | None:
    """Return the draws (S, J) of one effect of a factor, or None where several terms share it."""
    found = [
        part[:, :, block.effects.index(effect)]
        for block, part in zip(blocks, effects, strict=True)
        if block.group == group and effect in block.effects
    ]
    return found[0] if len(found) == 1 else None


def posterior_draws(tree: Any) -> dict[str, Array]:
    """Return the draws (chain, draw) of every scalar parameter by its name: coefficients, standard deviations, correlations, others.

    Random effects are left out; so is everything with a dimension of the data's length.
    """
    out: dict[str, Array] = {}
    posterior = tree["posterior"]
    for name, variable in posterior.data_vars.items():
        name = str(name)
        dims = [str(dim) for dim in variable.dims if dim not in ("chain", "draw")]
        values = variable.transpose("chain", "draw", ...).to_numpy()
        if not dims:
            out[name] = values
        elif name == "b":
            out.update({str(term): values[:, :, i] for i, term in enumerate(variable.coords[dims[0]].to_numpy())})
        elif name.startswith("sd_") and len(dims) == 1:
            group = name.removeprefix("sd_")
            out.update({f"sd {term} | {group}": values[:, :, i] for i, term in enumerate(variable.coords[dims[0]].to_numpy())})
        elif name.startswith("cor_") and len(dims) == 2:
            out.update(_correlations(name.removeprefix("cor_"), values, [str(term) for term in variable.coords[dims[0]].to_numpy()]))
    return out


def _correlations(group: str, values: Array, terms: list[str]) -> dict[str, Array]:
    pairs = [(row, column) for row in range(len(terms)) for column in range(row)]
    return {f"cor {terms[row]}.{terms[column]} | {group}": values[:, :, row, column] for row, column in pairs}
