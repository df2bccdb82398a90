"""Response families, one file each with both faces (numpy and PyMC); `FAMILIES` and `LINKS` list them by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from bayeslmm.errors import FitError, suggest
from bayeslmm.families.acat import ACAT
from bayeslmm.families.base import Family, Link, Parameter
from bayeslmm.families.bernoulli import BERNOULLI
from bayeslmm.families.beta import BETA
from bayeslmm.families.beta_binomial import BETA_BINOMIAL
from bayeslmm.families.binomial import BINOMIAL
from bayeslmm.families.cratio import CRATIO
from bayeslmm.families.cumulative import CUMULATIVE
from bayeslmm.families.derivatives import derivatives
from bayeslmm.families.gamma import GAMMA
from bayeslmm.families.gaussian import GAUSSIAN
from bayeslmm.families.hurdle_negative_binomial import HURDLE_NEGATIVE_BINOMIAL
from bayeslmm.families.hurdle_poisson import HURDLE_POISSON
from bayeslmm.families.inverse_gaussian import INVERSE_GAUSSIAN
from bayeslmm.families.jets import Jet, Taylor
from bayeslmm.families.links import LINKS, latent
from bayeslmm.families.lognormal import LOGNORMAL
from bayeslmm.families.negative_binomial import NEGATIVE_BINOMIAL
from bayeslmm.families.negative_binomial1 import NEGATIVE_BINOMIAL1
from bayeslmm.families.poisson import POISSON
from bayeslmm.families.sratio import SRATIO
from bayeslmm.families.student import STUDENT
from bayeslmm.families.truncated_negative_binomial import TRUNCATED_NEGATIVE_BINOMIAL
from bayeslmm.families.truncated_poisson import TRUNCATED_POISSON
from bayeslmm.families.zero_inflated_binomial import ZERO_INFLATED_BINOMIAL
from bayeslmm.families.zero_inflated_negative_binomial import ZERO_INFLATED_NEGATIVE_BINOMIAL
from bayeslmm.families.zero_inflated_poisson import ZERO_INFLATED_POISSON

__all__ = ["FAMILIES", "LINKS", "Family", "Jet", "Link", "Parameter", "Taylor", "derivatives", "family_named", "latent", "link_named"]

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        row.name: row
        for row in (
            GAUSSIAN,
            STUDENT,
            LOGNORMAL,
            BERNOULLI,
            BINOMIAL,
            BETA_BINOMIAL,
            POISSON,
            NEGATIVE_BINOMIAL,
            NEGATIVE_BINOMIAL1,
            GAMMA,
            INVERSE_GAUSSIAN,
            BETA,
            ZERO_INFLATED_POISSON,
            ZERO_INFLATED_NEGATIVE_BINOMIAL,
            ZERO_INFLATED_BINOMIAL,
            HURDLE_POISSON,
            HURDLE_NEGATIVE_BINOMIAL,
            TRUNCATED_POISSON,
            TRUNCATED_NEGATIVE_BINOMIAL,
            CUMULATIVE,
            SRATIO,
            CRATIO,
            ACAT,
        )
    }
)


_ELSEWHERE = MappingProxyType(
    {
        "nbinom1": "negative_binomial1",
        "nbinom2": "negative_binomial",
        "negbinomial": "negative_binomial",
        "betabinomial": "beta_binomial",
        "Beta": "beta",
        "beta_family": "beta",
        "truncated_nbinom2": "truncated_negative_binomial",
        "t_family": "student",
    }
)
"""What glmmTMB and brms call a family -> its name here, where it is not the closest in spelling."""


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
    if isinstance(name, str) and name in _ELSEWHERE:
        raise FitError(f"unknown family {name!r}; it is called '{_ELSEWHERE[name]}' here")
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
