"""Correlation structures of residuals within series of rows, one file each; `RESIDUALS` lists them by the formula's term."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from bayeslmm.residual.ar import AR
from bayeslmm.residual.base import Residual

if TYPE_CHECKING:
    from bayeslmm.series import Series

__all__ = ["RESIDUALS", "Residual", "residual_of"]

RESIDUALS: Mapping[str, Residual] = MappingProxyType({row.name: row for row in (AR,)})


def residual_of(series: Series) -> Residual:
    """Return the structure that a series' term names."""
    return RESIDUALS[series.term.name]
