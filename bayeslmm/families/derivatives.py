"""Derivatives of a family's log density in its linear predictors, exact to third order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from bayeslmm.families import jets
from bayeslmm.families.base import Quantity

if TYPE_CHECKING:
    from bayeslmm.families.base import Family, Link

__all__ = ["derivatives"]

type Array = np.ndarray


def derivatives(family: Family, links: Sequence[Link], y: Array, etas: Array, trials: Array | None = None, order: int = 3) -> jets.Taylor:
    """Return the log density of each row and its derivatives in the row's linear predictors.

    Parameters
    ----------
    family
        With K - 1 further parameters.
    links
        K links: of the mean, then of each further parameter in the family's order.
    y
        Response (n,).
    etas
        Linear predictors (K, n), in the order of the links; a constant is a row of equal numbers.
    trials
        (n,), for binomial-like families; None is one trial a row.
    order
        Highest derivative wanted, 0 to 3; those above it come back empty.

    Returns
    -------
    jets.Taylor
        `value` (n,), `d1` (K, n), `d2` (K, K, n), `d3` (K, K, K, n), of weight one. Where eta lies outside what the link takes
        (`log` of a binomial above 0, `inverse` at 0) the numbers are not finite; nothing is raised.

    Source: Griewank & Walther (2008), Evaluating Derivatives, chapter 13 (univariate and multivariate Taylor arithmetic).

    Examples
    --------
    >>> from bayeslmm.families import FAMILIES, LINKS
    >>> t = derivatives(FAMILIES["poisson"], (LINKS["log"],), np.array([3.0]), np.array([[0.0]]))
    >>> t.d1.tolist(), t.d2.tolist(), t.d3.tolist()
    ([[2.0]], [[[-1.0]]], [[[[-1.0]]]])
    """
    with np.errstate(all="ignore"):
        closed = family.closed.get(tuple(link.name for link in links))
        if closed is not None:
            return closed(y, etas, trials, order)
        return by_jets(family, links, y, etas, trials, order)


def by_jets(family: Family, links: Sequence[Link], y: Array, etas: Array, trials: Array | None, order: int) -> jets.Taylor:
    """Return what `derivatives` does from the log density alone, by Taylor arithmetic."""
    quantities = [Quantity(link, eta) for link, eta in zip(links, jets.variables(etas, order), strict=True)]
    aux = {parameter.name: quantity for parameter, quantity in zip(family.parameters, quantities[1:], strict=True)}
    return jets.taylor(family.log_density(y, quantities[0], aux, trials), len(etas), etas.shape[1], order)
