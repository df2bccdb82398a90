"""The slow obvious twin of the classical engine: the dense marginal covariance V = I + Z Lambda Lambda'Z' (over sigma^2)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg

from bayeslmm.classical.engine import TermData


@dataclass(frozen=True, kw_only=True)
class Twin:
    """Everything at one theta, by the textbook: see `at`."""

    criterion: float
    ld_l2: float
    ld_rx2: float
    pwrss: float
    beta: np.ndarray
    vcov: np.ndarray
    b: np.ndarray
    variance: np.ndarray


def dense_columns(term: TermData) -> np.ndarray:
    """Z of one term (n, J k): levels outer, effects inner."""
    n, k = term.values.shape
    Z = np.zeros((n, term.n_levels * k))
    for effect in range(k):
        Z[np.arange(n), term.index * k + effect] = term.values[:, effect]
    return Z


def at(theta, y, X, terms, *, weights=None, offset=None, reml: bool) -> Twin:
    """Evaluate the linear mixed model at theta with dense matrices only."""
    n, p = X.shape
    w = np.ones(n) if weights is None else weights
    r = y if offset is None else y - offset
    G, Z, start = [], [], 0
    for term in terms:
        k = term.values.shape[1]
        size = term.structure.n_theta(k)
        L = term.structure.factor(np.asarray(theta)[start : start + size], k)
        start += size
        G.append(np.kron(np.eye(term.n_levels), L @ L.T))
        Z.append(dense_columns(term))
    Z = np.column_stack(Z) if Z else np.zeros((n, 0))
    G = scipy.linalg.block_diag(*G) if G else np.zeros((0, 0))
    V = np.diag(1.0 / w) + Z @ G @ Z.T
    inverse = np.linalg.inv(V)
    P = X.T @ inverse @ X
    beta = np.linalg.solve(P, X.T @ inverse @ r)
    e = r - X @ beta
    pwrss = float(e @ inverse @ e)
    ld_l2 = np.linalg.slogdet(V)[1] + np.sum(np.log(w))
    ld_rx2 = np.linalg.slogdet(P)[1]
    df = n - p if reml else n
    value = ld_l2 - np.sum(np.log(w)) + df * (1 + np.log(2 * np.pi * pwrss / df)) + (ld_rx2 if reml else 0.0)
    return Twin(
        criterion=float(value),
        ld_l2=float(ld_l2),
        ld_rx2=float(ld_rx2),
        pwrss=pwrss,
        beta=beta,
        vcov=np.linalg.inv(P),
        b=G @ Z.T @ inverse @ e,
        variance=G - G @ Z.T @ inverse @ Z @ G,
    )
