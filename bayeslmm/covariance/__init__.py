"""Covariance structures of random effects, one file each; `STRUCTURES` lists them by the name of the formula's tag."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from bayeslmm.covariance.ar1 import AR1, HETAR1
from bayeslmm.covariance.base import Structure
from bayeslmm.covariance.cs import CS, HOMCS
from bayeslmm.covariance.diag import DIAG, HOMDIAG
from bayeslmm.covariance.us import US
from bayeslmm.errors import FormulaError, suggest

if TYPE_CHECKING:
    from bayeslmm.design import RandomBlock

__all__ = ["STRUCTURES", "Structure", "structure_named", "structure_of"]

STRUCTURES: Mapping[str, Structure] = MappingProxyType({row.name: row for row in (US, DIAG, HOMDIAG, CS, HOMCS, AR1, HETAR1)})

_BY_HOM: Mapping[tuple[str, bool], str] = MappingProxyType(
    {
        ("diag", True): "homdiag",
        ("diag", False): "diag",
        ("cs", True): "homcs",
        ("cs", False): "cs",
        ("ar1", True): "ar1",
        ("ar1", False): "hetar1",
        ("homdiag", True): "homdiag",
        ("homcs", True): "homcs",
        ("hetar1", False): "hetar1",
    }
)


def structure_named(name: str, options: Sequence[tuple[str, object]] = ()) -> Structure:
    """Return the structure of a formula's tag and its options, as `cs(1 + x | g, hom = TRUE)`.

    Parameters
    ----------
    name
        A key of `STRUCTURES`.
    options
        Keyword and value pairs of the tag. Known: `hom` (one standard deviation for all effects); lme4's defaults are
        FALSE for `diag` and `cs`, TRUE for `ar1`.

    Raises
    ------
    FormulaError
        For an unknown structure or option.

    Examples
    --------
    >>> structure_named("cs", [("hom", True)]).name
    'homcs'
    """
    if name not in STRUCTURES:
        raise FormulaError(f"'{name}' is no covariance structure{suggest(name, list(STRUCTURES))}")
    chosen = name
    for keyword, value in options:
        if keyword != "hom" or (name, bool(value)) not in _BY_HOM:
            known = ["hom"] if (name, True) in _BY_HOM else []
            raise FormulaError(f"{name}() has no option '{keyword}'{suggest(keyword, known) or '; it has none'}")
        chosen = _BY_HOM[name, bool(value)]
    return STRUCTURES[chosen]


def structure_of(block: RandomBlock) -> Structure:
    """Return the structure of a random term on data, its options heeded."""
    return structure_named(block.structure, block.term.options)
