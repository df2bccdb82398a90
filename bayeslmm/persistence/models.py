"""A model as what it was made of (formula, data, family, priors, options) and back: it is built anew from these."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.errors import BayesLmmError, DataWarning, PersistenceError
from bayeslmm.formula import parse
from bayeslmm.known import Relationship
from bayeslmm.model import Model
from bayeslmm.model import model as make_model
from bayeslmm.persistence.tables import digest, frame_from, frame_to
from bayeslmm.persistence.values import decode, encode, get_array, put_array
from bayeslmm.priors import Distribution, PriorRow

if TYPE_CHECKING:
    from bayeslmm.design import Design

__all__ = ["PRIOR_RECORDS", "model_from", "model_to"]

type Array = np.ndarray

PRIOR_RECORDS: Mapping[str, type] = MappingProxyType({"PriorRow": PriorRow, "Distribution": Distribution})


def model_to(model: Model, files: dict[str, bytes], *, priors: bool) -> dict[str, Any]:
    """Return a model as JSON-able data, arrays among the files.

    `priors`: whether default priors are kept too, as a posterior needs them. Columns of the data that hold objects are left out with
    a `DataWarning` (`not_saved`); the formula cannot use them.
    """
    design, encoder, formula = model.design, model.design.encoder, model.formula
    frame, left_out = frame_to(model.frame, files)
    if left_out:
        shown = ", ".join(f"'{name}'" for name in left_out)
        warnings.warn(DataWarning("not_saved", f"columns that hold objects are left out of the file: {shown}"), stacklevel=5)
    rows = model.prior_rows if priors else model.stated_priors
    return {
        "formula": {"text": formula.text, "parameters": dict(formula.sources), "dialect": formula.dialect},
        "family": model.family.name,
        "link": model.link.name,
        "dialect": model.dialect,
        "weights": encoder.weights,
        "offset": encoder.offset,
        "arrays": {name: put_array(values, files) for name, values in model.arrays.items()},
        "contrasts": dict(encoder.contrasts),
        "data2": {name: _matrix_to(one, files) for name, one in encoder.relationships.items()},
        "priors": encode(rows, files, PRIOR_RECORDS),
        "frame": frame,
        "sha256": digest(frame, files),
        "y": put_array(design.y, files),
        "kept": put_array(design.kept, files),
        "missing": dict(design.missing),
        "excluded": dict(design.excluded),
        "names": _names(design),
    }


def _matrix_to(one: Relationship, files: dict[str, bytes]) -> dict[str, Any]:
    return {"labels": list(one.labels), "matrix": put_array(one.matrix, files)}


def _names(design: Design) -> dict[str, Any]:
    """Return the names that a rebuilt design must have again: of coefficients and, by random term, of effects and levels."""
    parts = {"": (design.fixed, design.blocks), **design.parameters}
    return {
        part: [list(fixed.names), [[block.name, list(block.effects), list(block.levels)] for block in blocks]]
        for part, (fixed, blocks) in parts.items()
    }


def model_from(plain: Mapping[str, Any], files: Mapping[str, bytes]) -> Model:
    """Return the model that `model_to` wrote, built anew from its formula and data.

    Raises
    ------
    PersistenceError
        If it cannot be built, or has other rows, coefficients or levels than when it was written.
    """
    frame = frame_from(plain["frame"], files)
    if digest(plain["frame"], files) != plain["sha256"]:
        raise PersistenceError("the data are not those that the model was fitted to (their SHA-256 differs)")
    model = _with_rows(plain, files, _made(plain, files, frame, slice(None)))
    y, design = get_array(plain["y"], files), model.design
    _check_names(design, plain["names"])
    if not np.array_equal(y, design.y):
        design = replace(design, y=y)
    rows = decode(plain["priors"], files, PRIOR_RECORDS)
    return replace(model, design=design, stated_priors=rows)


def _made(plain: Mapping[str, Any], files: Mapping[str, bytes], frame: Any, rows: Any) -> Model:
    """Return the model on some rows of the data; notices about them were given when it was fitted."""
    source = plain["formula"]
    given = {name: get_array(array, files)[rows] for name, array in plain["arrays"].items()}
    data2 = {
        name: Relationship(name=name, labels=tuple(one["labels"]), matrix=get_array(one["matrix"], files))
        for name, one in plain["data2"].items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)
        try:
            return make_model(
                parse(source["text"], parameters=source["parameters"], dialect=source["dialect"]),
                frame.loc[rows] if not isinstance(rows, slice) else frame,
                plain["family"],
                link=plain["link"],
                weights=given.get("weights", plain["weights"]),
                offset=given.get("offset", plain["offset"]),
                contrasts=plain["contrasts"],
                data2=data2 or None,
                dialect=plain["dialect"],
            )
        except PersistenceError:
            raise
        except BayesLmmError as error:
            raise PersistenceError(f"the model cannot be built again: {error}") from error


def _with_rows(plain: Mapping[str, Any], files: Mapping[str, bytes], model: Model) -> Model:
    """Return the model on the rows of the fit: a model made from another one may have fewer than its formula alone asks for."""
    kept = get_array(plain["kept"], files)
    if np.array_equal(kept, model.design.kept):
        return model
    if kept.shape != model.design.kept.shape:
        raise PersistenceError(f"the data have {len(model.design.kept)} rows, the fit was made on {len(kept)}")
    fewer = _made(plain, files, model.frame, kept)
    design = replace(fewer.design, kept=kept, missing=MappingProxyType(plain["missing"]), excluded=MappingProxyType(plain["excluded"]))
    return replace(model, design=design)


def _check_names(design: Design, names: Mapping[str, Any]) -> None:
    found = _names(design)
    for part in dict.fromkeys([*names, *found]):
        before, now = names.get(part), found.get(part)
        if before == now:
            continue
        raise PersistenceError(
            f"built again, the predictor of {part or 'the mean'} has other coefficients or levels than when it was saved: "
            f"{_difference(before, now)}"
        )


def _difference(before: Any, now: Any) -> str:
    if before is None or now is None:
        return "it is new" if before is None else "it is gone"
    flat = [
        [*coefficients, *(name for _, effects, levels in blocks for name in (*effects, *levels))] for coefficients, blocks in (before, now)
    ]
    odd = [name for name in dict.fromkeys(flat[0] + flat[1]) if flat[0].count(name) != flat[1].count(name)]
    return ", ".join(odd[:5]) or "their order differs"
