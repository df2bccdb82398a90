"""Link functions: eta = g(mu), its inverse and derivative on arrays, and the inverse on tensors; `LINKS` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

from bayeslmm.families.base import Link

__all__ = ["LINKS"]

type Array = np.ndarray

_EPS = np.finfo(float).eps
"""As in R's `make.link`: probabilities stay this far from 0 and 1, derivatives above 0."""


def _inside(p: Array) -> Array:
    return np.asarray(np.clip(p, _EPS, 1.0 - _EPS))


def _positive(x: Array) -> Array:
    return np.asarray(np.maximum(x, _EPS))


def _pymc_probit(eta: Any) -> Any:
    import pytensor.tensor as pt

    return 0.5 * pt.erfc(-eta / np.sqrt(2.0))


def _pymc_logit(eta: Any) -> Any:
    import pytensor.tensor as pt

    return pt.sigmoid(eta)


def _pymc_cloglog(eta: Any) -> Any:
    import pytensor.tensor as pt

    return -pt.expm1(-pt.exp(eta))


def _pymc_cauchit(eta: Any) -> Any:
    import pytensor.tensor as pt

    return 0.5 + pt.arctan(eta) / np.pi


def _pymc_exp(eta: Any) -> Any:
    import pytensor.tensor as pt

    return pt.exp(eta)


def _pymc_softplus(eta: Any) -> Any:
    import pytensor.tensor as pt

    return pt.softplus(eta)


def _log_expm1(mu: Array) -> Array:
    """Softplus's inverse `log(exp(mu) - 1)`, without overflow."""
    return np.asarray(mu + np.log(-np.expm1(-mu)))


LINKS: Mapping[str, Link] = MappingProxyType(
    {
        row.name: row
        for row in (
            Link(
                name="identity",
                link=lambda mu: mu,
                inverse=lambda eta: eta,
                mu_eta=np.ones_like,
                pymc_inverse=lambda eta: eta,
            ),
            Link(
                name="log",
                link=np.log,
                inverse=lambda eta: _positive(np.exp(eta)),
                mu_eta=lambda eta: _positive(np.exp(eta)),
                pymc_inverse=_pymc_exp,
            ),
            Link(
                name="logit",
                link=logit,
                inverse=lambda eta: _inside(expit(eta)),
                mu_eta=lambda eta: _positive(expit(eta) * expit(-eta)),
                pymc_inverse=_pymc_logit,
            ),
            Link(
                name="probit",
                link=ndtri,
                inverse=lambda eta: _inside(ndtr(eta)),
                mu_eta=lambda eta: _positive(np.exp(-0.5 * eta**2) / np.sqrt(2.0 * np.pi)),
                pymc_inverse=_pymc_probit,
            ),
            Link(
                name="cloglog",
                link=lambda mu: np.log(-np.log1p(-mu)),
                inverse=lambda eta: _inside(-np.expm1(-np.exp(np.minimum(eta, 700.0)))),
                mu_eta=lambda eta: _positive(np.exp(np.minimum(eta, 700.0) - np.exp(np.minimum(eta, 700.0)))),
                pymc_inverse=_pymc_cloglog,
            ),
            Link(
                name="cauchit",
                link=lambda mu: np.tan(np.pi * (mu - 0.5)),
                inverse=lambda eta: _inside(0.5 + np.arctan(eta) / np.pi),
                mu_eta=lambda eta: _positive(1.0 / (np.pi * (1.0 + eta**2))),
                pymc_inverse=_pymc_cauchit,
            ),
            Link(
                name="inverse",
                link=lambda mu: 1.0 / mu,
                inverse=lambda eta: 1.0 / eta,
                mu_eta=lambda eta: -1.0 / eta**2,
                pymc_inverse=lambda eta: 1.0 / eta,
            ),
            Link(
                name="sqrt",
                link=np.sqrt,
                inverse=lambda eta: eta**2,
                mu_eta=lambda eta: 2.0 * eta,
                pymc_inverse=lambda eta: eta**2,
            ),
            Link(
                name="softplus",
                link=_log_expm1,
                inverse=lambda eta: _positive(np.logaddexp(0.0, eta)),
                mu_eta=lambda eta: _positive(expit(eta)),
                pymc_inverse=_pymc_softplus,
            ),
        )
    }
)
