"""A PyMC model's data as variables, so that models that differ only in data share one compiled density in a process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

__all__ = ["Separated", "named_as", "refilled", "separated"]

type Array = np.ndarray

_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Separated:
    """A model whose data are shared variables: `variables` in order, and `structure`, a digest of all the rest.

    Models of one structure have one density but for the values of the variables.
    """

    model: Any
    variables: tuple[Any, ...]
    structure: str

    @property
    def values(self) -> tuple[Array, ...]:
        """The data, in order."""
        return tuple(variable.get_value(borrow=True) for variable in self.variables)


def separated(model: Any) -> Separated:
    """Return a PyMC model with its data as shared variables.

    Data are all arrays of real numbers, arrays of integers with one entry for each row, and the arguments of priors but for 0 and 1, which
    belong to the kind of model.
    """
    import pytensor
    from pymc.model.fgraph import fgraph_from_model, model_from_fgraph

    rows = next((len(model.rvs_to_values[one].data) for one in model.observed_RVs if hasattr(model.rvs_to_values[one], "data")), 0)
    starts, model.rvs_to_initial_values = model.rvs_to_initial_values, dict.fromkeys(model.rvs_to_initial_values)
    try:
        graph, _ = fgraph_from_model(model)
    finally:
        model.rvs_to_initial_values = starts
    shared: Any = pytensor.compile.shared  # type: ignore[attr-defined, unused-ignore]
    digest = hashlib.sha256(repr([(name, len(labels)) for name, labels in model.coords.items()]).encode())
    variables: list[Any] = []
    for constant in _constants(graph, digest):
        value = np.asarray(constant.data)
        digest.update(repr((value.dtype.str, value.shape)).encode())
        if not _is_data(constant, value, rows, graph):
            digest.update(value.tobytes())
            continue
        variable = shared(value, name=f"data_{len(variables)}", shape=value.shape)
        graph.replace(constant, variable, import_missing=True)
        variables.append(variable)
    rebuilt = model_from_fgraph(graph, mutate_fgraph=True)
    for old, start in starts.items():
        rebuilt.rvs_to_initial_values[rebuilt[old.name]] = start
    return Separated(model=rebuilt, variables=tuple(variables), structure=digest.hexdigest())


def _constants(graph: Any, digest: Any) -> Iterator[Any]:
    """Yield the constants of a graph in its order, and put its operations and how they are joined into the digest."""
    from pytensor.tensor.variable import TensorConstant

    seen: dict[Any, int] = {}
    found = []
    for node in graph.toposort():
        digest.update(repr((type(node.op).__qualname__, _ADDRESS.sub("", str(node.op)), [str(out.name) for out in node.outputs])).encode())
        for variable in node.inputs:
            if variable not in seen:
                seen[variable] = len(seen)
                if isinstance(variable, TensorConstant):
                    found.append(variable)
            digest.update(repr((seen[variable], str(variable.type))).encode())
        for out in node.outputs:
            seen[out] = len(seen)
    yield from found


def _is_data(constant: Any, value: Array, rows: int, graph: Any) -> bool:
    """Whether a constant is data: see `separated`."""
    if value.dtype.kind == "f" and value.ndim > 0:
        return True
    if value.dtype.kind in "iu" and value.ndim > 0:
        return rows > 0 and value.shape[0] == rows
    return value.dtype.kind == "f" and float(value) not in (0.0, 1.0) and _is_of_a_prior(constant, graph)


def _is_of_a_prior(variable: Any, graph: Any) -> bool:
    """Whether a number serves as argument of random variables alone, as it is or as a vector of one."""
    from pytensor.tensor.elemwise import DimShuffle
    from pytensor.tensor.random.op import RNGConsumerOp

    users = [node for node, _ in graph.clients[variable]]
    return all(
        isinstance(node.op, RNGConsumerOp) or (isinstance(node.op, DimShuffle) and _is_of_a_prior(node.outputs[0], graph)) for node in users
    )


def refilled(compiled: Any, variables: Sequence[Any], values: Sequence[Array]) -> Any:
    """Return nutpie's compiled model with other data; `variables` are those that it was compiled with."""
    used = {variable.name for variable in compiled.shared_var_keys}
    for variable, value in zip(variables, values, strict=True):
        variable.set_value(value)  # what the initial points are computed from
    return compiled.with_data(**{one.name: value for one, value in zip(variables, values, strict=True) if one.name in used})


def named_as(compiled: Any, model: Any) -> Any:
    """Return nutpie's compiled model with the labels of another model's dimensions."""
    import pandas as pd

    own = {name: pd.Index(labels) for name, labels in model.coords.items() if labels is not None}
    return replace(compiled, _coords={**compiled.coords, **own})
