"""Leave-one-out predictive accuracy by Pareto-smoothed importance sampling: of rows given their groups, of rows, of whole groups."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.bayes import draws as arrays
from bayeslmm.bayes import marginal
from bayeslmm.bayes.checks import array_stats
from bayeslmm.bayes.fit import BayesFit
from bayeslmm.bayes.fit import log_likelihood as given_effects
from bayeslmm.bayes.subset import on_rows
from bayeslmm.errors import ConvergenceWarning, FitError, suggest

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.model import Model

__all__ = ["KINDS", "elpd_attributes", "khat", "loo", "loo_compare", "posterior_fit"]

type Array = np.ndarray

_CHUNK = 20_000_000
"""Rows x draws of log-likelihood held at a time (160 MB)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What is left out, and what is then predicted.

    `density`: the log density (S, units) of every unit given all others, at each draw. `given_effects`: whether the random effects are
    among what is drawn, so that their draws count in the sampler's efficiency. `units`: what is left out, in words; `remedy`: of
    weights that cannot be trusted.
    """

    density: Callable[[BayesFit, Array], Array]
    given_effects: bool
    units: str
    remedy: str


def _conditional(fit: BayesFit, units: Array) -> Array:
    """Return log p(y_i | parameters, random effects), residuals of other rows being given where they are correlated."""
    if fit.model.design.series is not None:
        return marginal.left_out(fit.model, fit.draws(), units, given_effects=True)
    values = given_effects(fit)
    return values.reshape(values.shape[0] * values.shape[1], -1)


def _marginal(fit: BayesFit, units: Array) -> Array:
    """Return log p(y_unit | all other rows, parameters), the random effects integrated out."""
    return marginal.left_out(fit.model, fit.draws(), units)


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "conditional": Kind(
            density=_conditional,
            given_effects=True,
            units="row",
            remedy="use loo(fit, kind='marginal'), or kfold(fit)",
        ),
        "marginal": Kind(density=_marginal, given_effects=False, units="row", remedy="use kfold(fit)"),
        "group": Kind(density=_marginal, given_effects=False, units="group", remedy="use kfold(fit, by=...) with this group"),
    }
)
"""What can be left out, by name."""


def loo(fit: BayesFit, kind: str = "conditional", group: str | None = None) -> Any:
    """Estimate how well a model predicts what it has not seen, by leaving out one row or one group at a time without refitting.

    Parameters
    ----------
    fit
        What `brm` returned.
    kind
        `"conditional"`: rows, weighted by their density given the draws of their groups' random effects (what `arviz.loo` does).
        `"marginal"`: rows again, and the same quantity, but with the random effects integrated out of the weights:
        log p(y_i | all other rows, parameters). Its Pareto k-hats are far better where groups are small.
        `"group"`: whole groups: the joint density of a group's rows, as of a new group.
    group
        For `"group"`: the grouping factor, or another column of the data; default: the model's only grouping factor.

    Returns
    -------
    arviz.ELPDData
        `elpd` with its standard error `se`, `p` the effective number of parameters, `elpd_i` and `pareto_k` of each row (dim `obs`)
        or group (dim: its name, coordinates: its levels), `good_k` the limit of a k-hat to be trusted.

    Warns
    -----
    ConvergenceWarning
        `khat`: some weights cannot be trusted; the message says how many, the worst, and what to do.

    Raises
    ------
    FitError
        If the fit is no posterior, the kind or group is unknown, or the random effects cannot be integrated out: for a family other
        than the Gaussian, groups must be independent of one another and have few effects (no crossed factors).

    Source: Vehtari, Gelman & Gabry (2017), Stat. Comput. 27; Bürkner, Gabry & Vehtari (2021), Comput. Stat. 36 (non-factorised models);
    Merkle, Furr & Rabe-Hesketh (2019), Psychometrika 84 (conditional and marginal); Vehtari et al. (2024), JMLR 25(72).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.brm("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"), seed=1, draws=250, progressbar=False)
    >>> rows = bl.loo(fit, kind="marginal")
    >>> bool(rows.pareto_k.max() < rows.good_k), bl.loo(fit, kind="group").elpd_i.dims
    (True, ('Batch',))
    """
    posterior_fit(fit, "loo")
    result = _loo(fit, kind, group)
    _report(result, kind, "", 3)
    return result


def _loo(fit: BayesFit, kind: str, group: str | None) -> Any:
    """Return the result of `loo`, whatever its k-hats."""
    if kind not in KINDS:
        raise FitError(f"unknown kind of loo {kind!r}{suggest(str(kind), list(KINDS))}")
    if group is not None and kind != "group":
        raise FitError(f"group={group!r} is for kind='group'; kind={kind!r} leaves out rows")
    units, dim, labels = marginal.units(fit.model, group) if kind == "group" else _rows(fit.model)
    efficiency = _efficiency(fit, KINDS[kind].given_effects)
    parts = [_psis(fit, values, labels[some], dim, efficiency) for some, values in _in_parts(fit, kind, units, len(labels))]
    result = parts[0] if len(parts) == 1 else _joined(parts, dim)
    result.elpd_i.attrs.update(elpd_attributes(fit, kind, dim, len(labels)))
    return result


def khat(fit: BayesFit) -> Array:
    """Return the Pareto k-hat (n,) of every row when it is left out given its groups' random effects: those of `loo(fit)`.

    Raises
    ------
    FitError
        If the fit is no posterior.
    """
    from bayeslmm.bayes.psis import khats, tail_length

    posterior_fit(fit, "khat")
    units, _, labels = _rows(fit.model)
    parts = [values for _, values in _in_parts(fit, "conditional", units, len(labels))]
    tail = tail_length(len(parts[0]), _efficiency(fit, True))
    return np.concatenate([khats(-np.ascontiguousarray(values.T), tail) for values in parts])


def posterior_fit(fit: Any, verb: str) -> None:
    """Refuse what is no posterior.

    Raises
    ------
    FitError
        If `fit` was not made by `brm`.
    """
    if not isinstance(fit, BayesFit):
        raise FitError(f"{verb} takes a posterior made by `brm`, not {type(fit).__name__}; fit the model with brm(fit.model)")


def _rows(model: Model) -> tuple[Array, str, Array]:
    n = model.design.n
    return np.arange(n), "obs", np.arange(n)


def _in_parts(fit: BayesFit, kind: str, units: Array, count: int) -> Iterator[tuple[Any, Array]]:
    """Yield (which units, log density (S, those)), some units at a time where units x draws is large."""
    draws = fit.draws()
    size = max(1, _CHUNK // draws.n_draws)
    if count <= size:
        yield slice(None), KINDS[kind].density(fit, units)
        return
    row_by_row = kind == "conditional" and fit.model.design.series is None
    values = None if row_by_row else KINDS[kind].density(fit, units)
    for start in range(0, count, size):
        some = np.arange(start, min(start + size, count))
        yield some, arrays.log_likelihood(*on_rows(fit.model, draws, some)) if values is None else values[:, some]


def _efficiency(fit: BayesFit, effects: bool) -> float:
    """Return the draws' effective number over their number, the mean over parameters, as `arviz.loo` has it."""
    posterior = fit.tree["posterior"].to_dataset()
    if posterior.sizes["chain"] == 1:
        return 1.0
    names = [name for name in posterior.data_vars if effects or not str(name).startswith("r_")]
    statistics, found = array_stats(), []
    for name in names:
        values = posterior[name].transpose("chain", "draw", ...).values
        found.append(np.ravel(statistics.ess(values, chain_axis=0, draw_axis=1, method="mean")))
    ratio = float(np.nanmean(np.concatenate(found))) / (posterior.sizes["chain"] * posterior.sizes["draw"])
    return ratio if np.isfinite(ratio) else 1.0


def _psis(fit: BayesFit, values: Array, labels: Array, dim: str, efficiency: float) -> Any:
    """Return ArviZ's result for log densities (S, units)."""
    import arviz as az
    import xarray as xr

    posterior = fit.tree["posterior"].to_dataset()
    shape = (posterior.sizes["chain"], posterior.sizes["draw"], -1)
    coords = {"chain": posterior["chain"].values, "draw": posterior["draw"].values, dim: labels}
    data = xr.Dataset({"y": (("chain", "draw", dim), values.reshape(shape))}, coords=coords)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # ArviZ's own about k-hat, which this package says with a remedy
        return az.loo(xr.DataTree.from_dict({"log_likelihood": data}), pointwise=True, reff=efficiency)


def _joined(parts: list[Any], dim: str) -> Any:
    """Return one result of those of parts of the rows; without the smoothed weights, which are as large as the log-likelihood."""
    import xarray as xr

    elpd_i = xr.concat([part.elpd_i for part in parts], dim=dim)
    return replace(
        parts[0],
        elpd=float(elpd_i.sum()),
        se=float(np.sqrt(elpd_i.size * np.var(elpd_i.values, ddof=1))),
        p=float(sum(part.p for part in parts)),
        n_data_points=int(elpd_i.size),
        warning=any(part.warning for part in parts),
        elpd_i=elpd_i,
        pareto_k=xr.concat([part.pareto_k for part in parts], dim=dim),
        log_weights=None,
    )


def elpd_attributes(fit: BayesFit, kind: str, dim: str, count: int) -> dict[str, Any]:
    """Return what `loo_compare` asks of a result: the model in words, what was left out, and digests of rows and response."""
    design = fit.model.design
    powers = design.weights if design.has_weights and not (fit.model.dialect == "lme4" and fit.model.family.scale) else None
    response = [design.y, *(one for one in (design.trials, powers) if one is not None)]
    return {
        "formula": fit.model.formula.text,
        "family": fit.model.family.name,
        "kind": kind,
        "left_out": "row" if dim == "obs" else dim,
        "response_name": design.response_name,
        "rows": _digest([np.asarray(design.index.astype(str), dtype="U")]),
        "response": _digest(response),
        "count": count,
    }


def _digest(values: list[Array]) -> str:
    found = hashlib.sha256()
    for one in values:
        found.update(np.ascontiguousarray(one).tobytes())
    return found.hexdigest()


def _report(result: Any, kind: str, name: str, level: int) -> None:
    """Warn of k-hats over the limit, with the worst and the remedy; `name`: which of several models it is."""
    k = np.asarray(result.pareto_k.values)
    high = int(np.sum(~(k <= result.good_k)))
    if not high:
        return
    at = int(np.argmax(np.where(np.isnan(k), np.inf, k)))
    what, (dim,) = KINDS[kind], result.pareto_k.dims
    message = (
        f"{high} of {k.size} {what.units}s have a Pareto k-hat above {result.good_k:.2f}{name} (worst: {what.units} "
        f"{result.pareto_k[dim].values[at]}, {k[at]:.2f}): leaving one out changes the posterior too much for weights; {what.remedy}"
    )
    warnings.warn(ConvergenceWarning("khat", message), stacklevel=level)


# ------------------------------------------------------------------------------------------------------------------- comparison


def loo_compare(*models: Any, kind: str = "conditional", group: str | None = None) -> pd.DataFrame:
    """Rank models by how well they predict what they have not seen.

    Parameters
    ----------
    *models
        Two or more fits of `brm`, or results of `loo` and `kfold` on the same rows, or one dict name -> either.
    kind, group
        For fits: what `loo` leaves out.

    Returns
    -------
    DataFrame
        Best first, by formula (or the dict's names): `rank`, `elpd`, `se`, `elpd_diff` (to the best, at most zero) with its standard
        error `dse`, `p_worse`, `p` the effective number of parameters, stacking `weight`, `warning` (weights not to be trusted),
        and ArviZ's remarks `diag_diff`, `diag_elpd`.

    Raises
    ------
    FitError
        If there are fewer than two, one is no posterior, or they differ in rows, response, weights or what was left out.

    Source: Vehtari, Gelman & Gabry (2017), Stat. Comput. 27; Yao et al. (2018), Bayesian Anal. 13 (stacking).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> data = bl.load_dataset("sleepstudy")
    >>> one, two = (bl.brm(f"Reaction ~ {x} + (1 | Subject)", data, seed=1, draws=250, progressbar=False) for x in ("1", "Days"))
    >>> list(bl.loo_compare(one, two, kind="marginal").index)
    ['Reaction ~ Days + (1 | Subject)', 'Reaction ~ 1 + (1 | Subject)']
    """
    import arviz as az

    given = dict(models[0]) if len(models) == 1 and isinstance(models[0], Mapping) else None
    results = [_result(one, kind, group) for one in (given.values() if given is not None else models)]
    if len(results) < 2:
        raise FitError("loo_compare takes two or more fits or results of loo")
    names = [str(name) for name in given] if given is not None else _names(results)
    _check_comparable(names, results)
    best = np.max([one.elpd_i.values for one in results], axis=0)
    shifted = {  # a constant by row changes neither differences nor weights, and keeps exp() from underflowing
        name: replace(one, elpd_i=one.elpd_i - best) for name, one in zip(names, results, strict=True)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table = az.compare(shifted, round_to="none")
    flags = {name: bool(one.warning) for name, one in zip(names, results, strict=True)}
    table["warning"] = [flags[name] for name in table.index]
    shown: pd.DataFrame = table[list(_COLUMNS)]
    return shown


_COLUMNS = ("rank", "elpd", "se", "elpd_diff", "dse", "p_worse", "p", "weight", "warning", "diag_diff", "diag_elpd")


def _result(one: Any, kind: str, group: str | None) -> Any:
    """Return the result of `loo` of a fit; a result of `loo` or `kfold` as it is."""
    import arviz as az

    if isinstance(one, az.ELPDData):
        if one.elpd_i is None:
            raise FitError("a result without pointwise values cannot be compared; make it with loo(fit), or arviz.loo(pointwise=True)")
        return one
    posterior_fit(one, "loo_compare")
    result = _loo(one, kind, group)
    _report(result, kind, f" in '{one.model.formula.text}'", 4)
    return result


def _names(results: list[Any]) -> list[str]:
    """Return the formulas, with the families where they repeat, and numbers where these do too."""
    formulas = [str(one.elpd_i.attrs.get("formula", "model")) for one in results]
    families = [str(one.elpd_i.attrs.get("family", "")) for one in results]
    labels = [
        f"{text} ({family})" if formulas.count(text) > 1 and len(set(families)) > 1 else text
        for text, family in zip(formulas, families, strict=True)
    ]
    return [f"{label} [{labels[: i + 1].count(label)}]" if labels.count(label) > 1 else label for i, label in enumerate(labels)]


_MUST_AGREE: tuple[tuple[str, Callable[[Any], Any], str], ...] = (
    ("what was left out", lambda one: (one.elpd_i.attrs.get("kind"), one.elpd_i.attrs.get("left_out")), "use one kind, and one group"),
    ("the number of values", lambda one: one.elpd_i.size, "fit them to the same rows; a missing value of one model's column drops rows"),
    ("the rows", lambda one: one.elpd_i.attrs.get("rows"), "fit them to the same rows of one frame"),
    ("the response or the weights", lambda one: one.elpd_i.attrs.get("response"), "densities compare on one scale of one response only"),
)
"""What compared results have in common: in words, how it is read, and what to do."""


def _check_comparable(names: list[str], results: list[Any]) -> None:
    for what, read, remedy in _MUST_AGREE:
        first = read(results[0])
        for name, one in zip(names[1:], results[1:], strict=True):
            if read(one) != first:
                detail = _detail(what, names[0], first, name, read(one))
                raise FitError(f"the models differ in {what}{detail}: {remedy}")


def _detail(what: str, one: str, first: Any, two: str, second: Any) -> str:
    """Return the two values in words, where a reader can use them."""
    if what == "what was left out":
        shown = [" by ".join(str(part) for part in value if part is not None) or "arviz.loo" for value in (first, second)]
        return f" ('{one}': {shown[0]}; '{two}': {shown[1]})"
    return f" ('{one}': {first}; '{two}': {second})" if isinstance(first, int) else f" ('{one}' and '{two}')"
