"""A model, and draws of its parameters, on some of its rows."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.fit import Draws

if TYPE_CHECKING:
    from bayeslmm.design import Design, FixedPart, RandomBlock
    from bayeslmm.model import Model

__all__ = ["draws_on", "model_on", "on_rows"]

type Array = np.ndarray


def on_rows(model: Model, draws: Draws, rows: Array) -> tuple[Model, Draws]:
    """Return the model and the draws of its parameters on some rows (positions), all levels kept."""
    return model_on(model, rows), draws_on(draws, rows)


def draws_on(draws: Draws, rows: Array) -> Draws:
    """Return draws whose parameters by row are those of some rows."""
    return replace(draws, aux={name: values[:, rows] if values.ndim == 2 else values for name, values in draws.aux.items()})


def model_on(model: Model, rows: Array, *, drop_levels: bool = False) -> Model:
    """Return the model with its own priors on some rows (positions), coded as they are.

    `drop_levels` leaves out the levels without a row, but for those whose covariance with the others is known.
    """
    design = model.design
    series = None if design.series is None else design.series.take(rows)
    small: Design = replace(
        design,
        y=design.y[rows],
        trials=None if design.trials is None else design.trials[rows],
        fixed=_fixed(design.fixed, rows),
        blocks=_blocks(design.blocks, rows, drop_levels),
        weights=design.weights[rows],
        offset=design.offset[rows],
        index=design.index[rows],
        kept=np.ones(len(rows), dtype=bool),
        parameters=MappingProxyType(
            {name: (_fixed(fixed, rows), _blocks(blocks, rows, drop_levels)) for name, (fixed, blocks) in design.parameters.items()}
        ),
        series=series,
    )
    return model.on(small, model.frame.loc[design.kept].iloc[rows])


def _fixed(fixed: FixedPart, rows: Array) -> FixedPart:
    return replace(fixed, X=fixed.X[rows])


def _blocks(blocks: tuple[RandomBlock, ...], rows: Array, drop_levels: bool) -> tuple[RandomBlock, ...]:
    return tuple(_block(block, rows, drop_levels and block.known is None) for block in blocks)


def _block(block: RandomBlock, rows: Array, drop_levels: bool) -> RandomBlock:
    index, values = block.index[rows], block.values[rows]
    if not drop_levels:
        return replace(block, index=index, values=values)
    seen, position = np.unique(index, return_inverse=True)
    levels = tuple(block.levels[level] for level in seen.tolist())
    return replace(block, index=position.astype(block.index.dtype), values=values, levels=levels)
