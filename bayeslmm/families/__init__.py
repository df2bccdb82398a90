"""Response families, one file each with both faces (numpy and PyMC); `FAMILIES` and `LINKS` list them by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bayeslmm.errors import FitError, suggest
from bayeslmm.families.base import Family, Link, Parameter
from bayeslmm.families.bernoulli import BERNOULLI
from bayeslmm.families.binomial import BINOMIAL
from bayeslmm.families.gaussian import GAUSSIAN
from bayeslmm.families.links import LINKS
from bayeslmm.families.poisson import POISSON
from bayeslmm.families.student import STUDENT

__all__ = ["FAMILIES", "LINKS", "Family", "Link", "Parameter", "family_named", "link_named"]

FAMILIES: Mapping[str, Family] = MappingProxyType({row.name: row for row in (GAUSSIAN, STUDENT, BERNOULLI, BINOMIAL, POISSON)})


def family_named(name: str) -> Family:
    """Return the family of a name in brms's spelling.

    Raises
    ------
    FitError
        If there is none, naming the closest.

    Examples
    --------
    >>> family_named("poisson").link
    'log'
    """
    if not isinstance(name, str) or name not in FAMILIES:
        raise FitError(f"unknown family {name!r}{suggest(str(name), list(FAMILIES))}")
    return FAMILIES[name]


def link_named(name: str, family: Family | None = None) -> Link:
    """Return the link of a name; with a family, only one that the family allows.

    Raises
    ------
    FitError
        If there is none, or the family does not allow it.

    Examples
    --------
    >>> link_named("probit").name
    'probit'
    """
    if not isinstance(name, str) or name not in LINKS:
        raise FitError(f"unknown link {name!r}{suggest(str(name), list(LINKS))}")
    if family is not None and name not in family.links:
        raise FitError(f"family '{family.name}' has no link '{name}'; known: {', '.join(family.links)}")
    return LINKS[name]
