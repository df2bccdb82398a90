"""A fit or a comparison as JSON-able data, arrays and trees, and back; on the way back its objective is computed anew."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

import numpy as np

from bayeslmm import __version__
from bayeslmm.bayes import BayesFit
from bayeslmm.classical import ClassicalFit
from bayeslmm.classical.fit import Further, SearchLog
from bayeslmm.classical.penalty import Penalty
from bayeslmm.compare import Comparison, side_by_side
from bayeslmm.errors import BayesLmmError, PersistenceError
from bayeslmm.model import Model
from bayeslmm.persistence.archive import FORMAT, FORMAT_VERSION, Contents
from bayeslmm.persistence.models import PRIOR_RECORDS, model_from, model_to
from bayeslmm.persistence.objective import criterion_at, log_likelihoods_at
from bayeslmm.persistence.trees import tree_from, tree_to
from bayeslmm.persistence.values import decode, encode

__all__ = ["contents_of", "restored"]

type Array = np.ndarray
type Files = dict[str, bytes]

_TOLERANCE = 1e-8
"""Share by which an objective may differ from the one that was saved: that of rounding, also on another machine."""

_INCOMPLETE = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, AssertionError, RuntimeError, MemoryError)
"""What comes of data that are not those of a fit."""
_PACKAGES = ("numpy", "scipy", "pandas", "numba", "pymc", "nutpie", "arviz", "xarray", "zarr")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of fit: its class, how it becomes data and a fit again, its objective as it is stated, and as it is computed anew."""

    name: str
    cls: type
    to: Callable[[Any, Files, str], dict[str, Any]]
    back: Callable[[Mapping[str, Any], Files, Model], Any]
    objective: str
    stated: Callable[[Any], list[float]]
    compute: Callable[[Any], list[float]]
    keeps_priors: bool


# The two engines' fits ---------------------------------------------------------------------------------------------------

_RECORDS: Mapping[str, type] = MappingProxyType({"Further": Further, "SearchLog": SearchLog, "Penalty": Penalty, **PRIOR_RECORDS})


def _classical_to(fit: ClassicalFit, files: Files, folder: str) -> dict[str, Any]:
    return {one.name: encode(getattr(fit, one.name), files, _RECORDS) for one in fields(fit) if one.name != "model"}


def _classical_from(plain: Mapping[str, Any], files: Files, model: Model) -> ClassicalFit:
    return ClassicalFit(model=model, **{name: decode(value, files, _RECORDS) for name, value in plain.items()})


def _bayes_to(fit: BayesFit, files: Files, folder: str) -> dict[str, Any]:
    files.update(tree_to(fit.tree, folder))
    return {"tree": folder, "provenance": encode(fit.provenance, files, {})}


def _bayes_from(plain: Mapping[str, Any], files: Files, model: Model) -> BayesFit:
    return BayesFit(model=model, tree=tree_from(files, plain["tree"]), provenance=decode(plain["provenance"], files, {}))


KINDS = (
    Kind(
        name="classical",
        cls=ClassicalFit,
        to=_classical_to,
        back=_classical_from,
        objective="criterion",
        stated=lambda fit: [fit.criterion],
        compute=lambda fit: [criterion_at(fit)],
        keeps_priors=False,
    ),
    Kind(
        name="bayes",
        cls=BayesFit,
        to=_bayes_to,
        back=_bayes_from,
        objective="log-likelihood of some draws",
        stated=log_likelihoods_at,
        compute=log_likelihoods_at,
        keeps_priors=True,
    ),
)


# Out ---------------------------------------------------------------------------------------------------------------------


def contents_of(thing: Any) -> Contents:
    """Return what the file of a fit or of a comparison holds.

    Raises
    ------
    PersistenceError
        If it is neither, or holds something that cannot be saved.
    """
    whole = isinstance(thing, Comparison)
    members = thing.fits if whole else (thing,)
    kinds = [_kind_of(member) for member in members]
    models = list({id(member.model): member.model for member in members}.values())
    files: Files = {}
    keep = {id(member.model) for member, kind in zip(members, kinds, strict=True) if kind.keeps_priors}
    text = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": _versions(),
        "comparison": {"labels": list(thing.labels), "absent": [list(pair) for pair in thing.absent]} if whole else None,
        "models": [model_to(model, files, priors=id(model) in keep) for model in models],
        "fits": [
            {
                "kind": kind.name,
                "model": next(i for i, model in enumerate(models) if model is member.model),
                "objective": encode(kind.stated(member), files, {}),
                "values": kind.to(member, files, f"trees/{position}"),
            }
            for position, (member, kind) in enumerate(zip(members, kinds, strict=True))
        ],
    }
    return Contents(text=text, files=files)


def _kind_of(fit: Any) -> Kind:
    for kind in KINDS:
        if isinstance(fit, kind.cls):
            return kind
    raise PersistenceError(f"a {type(fit).__name__} cannot be saved; `save` is for what `lmer`, `glmer`, `brm`, `fit` and `compare` return")


def _versions() -> dict[str, str]:
    found = {"bayeslmm": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# In ----------------------------------------------------------------------------------------------------------------------


def restored(contents: Contents) -> Any:
    """Return the fit or the comparison of a file, once its objective is what it was.

    Raises
    ------
    PersistenceError
        If a model cannot be built again, something is missing, or an objective differs.
    """
    text, files = contents.text, dict(contents.files)
    try:
        models = [model_from(plain, files) for plain in text["models"]]
        members = [_restored_fit(plain, files, models, text["versions"]) for plain in text["fits"]]
        side = text["comparison"]
        if side is None:
            return members[0]
        return side_by_side(members, side["labels"], tuple((engine, reason) for engine, reason in side["absent"]))
    except PersistenceError:
        raise
    except BayesLmmError as error:
        raise PersistenceError(f"the fit cannot be built again: {error}") from error
    except _INCOMPLETE as error:
        said = " ".join(str(error).split())
        raise PersistenceError(f"the file is incomplete ({type(error).__name__}: {said})") from error


def _restored_fit(plain: Mapping[str, Any], files: Files, models: Sequence[Model], versions: Mapping[str, str]) -> Any:
    kind = next((one for one in KINDS if one.name == plain["kind"]), None)
    if kind is None:
        raise PersistenceError(f"the file holds a fit of unknown kind {plain['kind']!r}")
    fit = kind.back(plain["values"], files, models[plain["model"]])
    before, now = decode(plain["objective"], files, {}), kind.compute(fit)
    scale = np.maximum(1.0, np.abs(before))
    if len(before) != len(now) or not np.allclose(
        np.divide(now, scale), np.divide(before, scale), rtol=0.0, atol=_TOLERANCE, equal_nan=True
    ):
        raise PersistenceError(
            f"the fit is not that of its model and data any more: its {kind.objective} was {_shown(before)} and is {_shown(now)}; it was "
            f"written by bayeslmm {versions.get('bayeslmm')}, this is {__version__}: fit the model again"
        )
    return fit


def _shown(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.10g}" for value in values)
