"""Link functions: eta = g(mu), its inverse and derivative on arrays, the inverse on tensors and on jets; `LINKS` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from scipy.special import expit, logit, ndtr, ndtri

from bayeslmm.families import _link_rows, jets
from bayeslmm.families.base import IDENTITY, Link

__all__ = ["LINKS", "latent"]

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


def _pymc_tanh(eta: Any) -> Any:
    import pytensor.tensor as pt

    return pt.tanh(eta)


def _tanh(eta: Any) -> Any:
    return 2.0 * jets.expit(2.0 * eta) - 1.0


def _unchanged(eta: Any) -> Any:
    return eta


def _softplus_below(eta: Any) -> Any:
    """log(1 - p) of the logit."""
    return -jets.softplus(eta)


def _softplus_above(eta: Any) -> Any:
    """log p of the logit."""
    return -jets.softplus(-eta)


def _log_complement_of(mean: Any) -> Any:
    """eta -> log(1 - mu), for links whose mean is no probability or has no better form."""
    return lambda eta: jets.log1p(-mean(eta))


LINKS: Mapping[str, Link] = MappingProxyType(
    {
        row.name: row
        for row in (
            IDENTITY,
            Link(
                name="log",
                link=np.log,
                inverse=lambda eta: _positive(np.exp(eta)),
                mu_eta=lambda eta: _positive(np.exp(eta)),
                pymc_inverse=_pymc_exp,
                mean=jets.exp,
                log_mean=_unchanged,
                log_complement=lambda eta: jets.log1mexp(-eta),
                kernel=_link_rows.log_rows,
            ),
            Link(
                name="logit",
                link=logit,
                inverse=lambda eta: _inside(expit(eta)),
                mu_eta=lambda eta: _positive(expit(eta) * expit(-eta)),
                pymc_inverse=_pymc_logit,
                mean=jets.expit,
                log_mean=_softplus_above,
                log_complement=_softplus_below,
                kernel=_link_rows.logit_rows,
            ),
            Link(
                name="probit",
                link=ndtri,
                inverse=lambda eta: _inside(ndtr(eta)),
                mu_eta=lambda eta: _positive(np.exp(-0.5 * eta**2) / np.sqrt(2.0 * np.pi)),
                pymc_inverse=_pymc_probit,
                mean=jets.ndtr,
                log_mean=jets.log_ndtr,
                log_complement=lambda eta: jets.log_ndtr(-eta),
                kernel=_link_rows.probit_rows,
            ),
            Link(
                name="cloglog",
                link=lambda mu: np.log(-np.log1p(-mu)),
                inverse=lambda eta: _inside(-np.expm1(-np.exp(np.minimum(eta, 700.0)))),
                mu_eta=lambda eta: _positive(np.exp(np.minimum(eta, 700.0) - np.exp(np.minimum(eta, 700.0)))),
                pymc_inverse=_pymc_cloglog,
                mean=lambda eta: -jets.expm1(-jets.exp(eta)),
                log_mean=jets.log1mexpexp,
                log_complement=lambda eta: -jets.exp(eta),
                kernel=_link_rows.cloglog_rows,
            ),
            Link(
                name="cauchit",
                link=lambda mu: np.tan(np.pi * (mu - 0.5)),
                inverse=lambda eta: _inside(0.5 + np.arctan(eta) / np.pi),
                mu_eta=lambda eta: _positive(1.0 / (np.pi * (1.0 + eta**2))),
                pymc_inverse=_pymc_cauchit,
                mean=lambda eta: jets.arccot(-eta) / np.pi,
                log_mean=lambda eta: jets.log(jets.arccot(-eta)) - np.log(np.pi),
                log_complement=lambda eta: jets.log(jets.arccot(eta)) - np.log(np.pi),
                kernel=_link_rows.cauchit_rows,
            ),
            Link(
                name="inverse",
                link=lambda mu: 1.0 / mu,
                inverse=lambda eta: 1.0 / eta,
                mu_eta=lambda eta: -1.0 / eta**2,
                pymc_inverse=lambda eta: 1.0 / eta,
                mean=lambda eta: 1.0 / eta,
                log_mean=lambda eta: -jets.log(eta),
                log_complement=_log_complement_of(lambda eta: 1.0 / eta),
                kernel=_link_rows.inverse_rows,
            ),
            Link(
                name="1/mu^2",
                link=lambda mu: 1.0 / mu**2,
                inverse=lambda eta: 1.0 / np.sqrt(eta),
                mu_eta=lambda eta: -0.5 / eta**1.5,
                pymc_inverse=lambda eta: eta**-0.5,
                mean=lambda eta: eta**-0.5,
                log_mean=lambda eta: -0.5 * jets.log(eta),
                log_complement=_log_complement_of(lambda eta: eta**-0.5),
                kernel=_link_rows.inverse_square_rows,
                latex="{}^{{-2}}",
            ),
            Link(
                name="sqrt",
                link=np.sqrt,
                inverse=lambda eta: eta**2,
                mu_eta=lambda eta: 2.0 * eta,
                pymc_inverse=lambda eta: eta**2,
                mean=lambda eta: eta**2,
                log_mean=lambda eta: jets.log(eta**2),
                log_complement=_log_complement_of(lambda eta: eta**2),
                kernel=_link_rows.sqrt_rows,
            ),
            Link(
                name="atanh",
                link=np.arctanh,
                inverse=lambda eta: np.asarray(np.tanh(eta)),
                mu_eta=lambda eta: _positive(1.0 / np.cosh(np.minimum(np.abs(eta), 300.0)) ** 2),
                pymc_inverse=_pymc_tanh,
                mean=_tanh,
                log_mean=lambda eta: jets.log(_tanh(eta)),
                log_complement=lambda eta: np.log(2.0) - jets.softplus(2.0 * eta),
            ),
            Link(
                name="softplus",
                link=_log_expm1,
                inverse=lambda eta: _positive(np.logaddexp(0.0, eta)),
                mu_eta=lambda eta: _positive(expit(eta)),
                pymc_inverse=_pymc_softplus,
                mean=jets.softplus,
                log_mean=lambda eta: jets.log(jets.softplus(eta)),
                log_complement=_log_complement_of(jets.softplus),
                kernel=_link_rows.softplus_rows,
            ),
        )
    }
)


def latent(link: Link) -> Link:
    """Return the link of a latent response: eta is its own mean, and the link names the latent distribution."""
    return replace(IDENTITY, name=link.name)
