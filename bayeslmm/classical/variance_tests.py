"""Tests of variances: `ranova`, boundary-corrected likelihood ratios, and the exact restricted likelihood-ratio test by simulation."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtrc

from bayeslmm.classical.glmm import fit_generalised, nodes_of
from bayeslmm.classical.lmm import lmer, needs_maximum
from bayeslmm.classical.noise import has_noise
from bayeslmm.design import encode
from bayeslmm.errors import BayesLmmWarning, FitError, suggest
from bayeslmm.formula.deparse import deparse

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from bayeslmm.classical.fit import ClassicalFit
    from bayeslmm.formula.nodes import RandomTerm
    from bayeslmm.model import Model
    from bayeslmm.random_blocks import RandomBlock

__all__ = ["RANOVA_COLUMNS", "boundary_p_value", "ranova", "variance_test"]

type Array = np.ndarray

RANOVA_COLUMNS = ("n_parameters", "loglik", "aic", "lrt", "df", "p_value", "p_boundary")
_METHODS = ("exact", "mixture")
_GRID = np.concatenate([[0.0], np.exp(np.linspace(-12.0, 12.0, 240))])
_CHUNK = 2_000


def ranova(fit: ClassicalFit) -> pd.DataFrame:
    """Test every random term, or every slope in it, by leaving it out: likelihood ratios by the fit's own method (REML, Laplace, ...).

    Parameters
    ----------
    fit
        What `lmer` or `glmer` returned, with random effects; those of further predictors (`zi`, ...) stay.

    Returns
    -------
    DataFrame
        `n_parameters, loglik, aic, lrt, df, p_value, p_boundary`, a row for the fit itself (`<none>`) and for each deletion, named as
        in lmerTest. `p_value` is lmerTest's, from chi-square with `df` degrees of freedom, which is conservative since a variance
        cannot be negative; `p_boundary` is from `boundary_p_value`.

    Raises
    ------
    FitError
        For a fit without random effects.

    Source: Kuznetsova, Brockhoff & Christensen (2017), J. Stat. Softw. 82(13); Stram & Lee (1994), Biometrics 50.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> bl.ranova(fit).loc["Days in (Days | Subject)", ["lrt", "df"]].round(4).tolist()
    [42.8368, 2.0]
    """
    import pandas as pd

    random = _random_terms(fit)
    rows = [(fit.n_parameters, fit.loglik, fit.aic, np.nan, np.nan, np.nan, np.nan)]
    labels = ["<none>"]
    for position, term in enumerate(random):
        for label, smaller in _deletions(term):
            others = [*random[:position], *([] if smaller is None else [smaller]), *random[position + 1 :]]
            reduced = _refitted(fit, others)
            lrt, df = 2.0 * (fit.loglik - reduced.loglik), fit.n_parameters - reduced.n_parameters
            p_value = float(chdtrc(df, max(lrt, 0.0))) if df > 0 else float("nan")
            rows.append((reduced.n_parameters, reduced.loglik, reduced.aic, lrt, df, p_value, boundary_p_value(lrt, df)))
            labels.append(label)
    table = pd.DataFrame(rows, columns=list(RANOVA_COLUMNS), index=pd.Index(labels, name="term"), dtype=float)
    return table.astype({"n_parameters": int})


def boundary_p_value(lrt: float, df: int) -> float:
    """Return the p value of a likelihood ratio that takes one random effect away: half chi-square of df - 1, half of df.

    Where more than one effect goes at once, its exact weights depend on the design, and this mixture is an upper bound.

    Parameters
    ----------
    lrt
        Twice the difference of the log-likelihoods; below zero counts as zero.
    df
        Covariance parameters that went: the effect's variance and its covariances. NaN is returned for none.

    Source: Self & Liang (1987), J. Am. Stat. Assoc. 82; Stram & Lee (1994), Biometrics 50.

    Examples
    --------
    >>> round(boundary_p_value(2.7055, 1), 4)
    0.05
    """
    if df < 1:
        return float("nan")
    if lrt <= 0.0:
        return 1.0
    below = float(chdtrc(df - 1, lrt)) if df > 1 else 0.0
    return 0.5 * (below + float(chdtrc(df, lrt)))


def variance_test(
    fit: ClassicalFit, term: str | None = None, *, method: str = "exact", n_sim: int = 10_000, seed: int | None = None
) -> pd.DataFrame:
    """Test that the variance of one random term with one effect is zero, by a restricted likelihood ratio.

    Parameters
    ----------
    fit
        What `lmer` returned; an ML fit is fitted again by REML, with a warning.
    term
        The term as in the formula, `"(1 | Subject)"`; not needed where there is only one.
    method
        `"exact"`: the finite-sample distribution of the restricted likelihood ratio, by simulation from the eigenvalues of the design;
        exact for a model with this term alone, with others an approximation as if they were not there (Greven et al. 2008).
        `"mixture"`: half a point mass at zero, half chi-square with one degree of freedom (for many groups).
    n_sim
        Number of simulated likelihood ratios.
    seed
        Seed of the simulation.

    Returns
    -------
    DataFrame
        One row, by term: `rlrt, p_value, method, n_sim`.

    Raises
    ------
    FitError
        For unknown terms and methods, and terms with several effects.

    Source: Crainiceanu & Ruppert (2004), J. R. Stat. Soc. B 66; Greven, Crainiceanu, Kuechenhoff & Peters (2008), J. Comput.
    Graph. Stat. 17.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Yield ~ 1 + (1 | Batch)", bl.load_dataset("Dyestuff"))
    >>> bool(bl.variance_test(fit, seed=1)["p_value"].iloc[0] < 0.01)
    True
    """
    import pandas as pd

    if method not in _METHODS:
        raise FitError(f"unknown method {method!r}{suggest(str(method), _METHODS)}")
    if n_sim < 1:
        raise FitError(f"n_sim must be at least 1, not {n_sim}")
    if method == "exact" and has_noise(fit.model.design):
        raise FitError("the exact test is not available for a model with a residual structure; use method='mixture'")
    random = _random_terms(fit)
    chosen = _chosen(random, term)
    block = _block_of(fit.model, chosen)
    if block.n_effects != 1:
        raise FitError(f"{_label(chosen)} has {block.n_effects} effects; this test is for one variance: use ranova for slopes")
    if not fit.reml:
        message = "the restricted likelihood ratio is for REML: the model is fitted again by REML"
        warnings.warn(BayesLmmWarning("refitted_reml", message), stacklevel=2)
        fit = lmer(fit.model, reml=True)
    rlrt = max(fit.loglik - _refitted(fit, [other for other in random if other is not chosen]).loglik, 0.0) * 2.0
    p_value = boundary_p_value(rlrt, 1)
    if method == "exact":
        simulated = _null_ratios(fit.model, block, n_sim, np.random.default_rng(seed))
        p_value = float(np.mean(simulated >= rlrt)) if rlrt > 1e-8 else 1.0
    row = {"rlrt": [rlrt], "p_value": [p_value], "method": [method], "n_sim": [n_sim if method == "exact" else 0]}
    return pd.DataFrame(row, index=pd.Index([_label(chosen)], name="term"))


# -------------------------------------------------------------------------------------------------------------------- deletions


def _random_terms(fit: ClassicalFit) -> list[RandomTerm]:
    """Return the random terms in the formula's order, those that stand twice once."""
    needs_maximum(fit, "a test of variances")
    used = [block.term for block in fit.model.design.blocks]
    random = [term for term in fit.model.formula.mean.random if term in used]
    if not random:
        raise FitError("the model has no random effects to test")
    return list(dict.fromkeys(random))


def _label(term: RandomTerm) -> str:
    return term.text if term.text.startswith("(") else f"({term.text})"


def _deletions(term: RandomTerm) -> list[tuple[str, RandomTerm | None]]:
    """Return what can be left out of a term: its effects that no other contains, or all of it; with what stays.

    As in lmerTest, the last effect leaves an intercept behind.
    """
    sets = {effect.label: {deparse(variable) for variable in effect.variables} for effect in term.effects}
    scope = [label for label, own in sets.items() if not any(own < other for other in sets.values())]
    if not scope:
        return [(_label(term), None)]
    found: list[tuple[str, RandomTerm | None]] = []
    for label in scope:
        effects = tuple(effect for effect in term.effects if effect.label != label)
        found.append((f"{label} in {_label(term)}", replace(term, effects=effects, intercept=term.intercept or not effects)))
    return found


def _refitted(fit: ClassicalFit, random: Sequence[RandomTerm]) -> ClassicalFit:
    """Fit the model again with other random terms on the same rows."""
    model = fit.model
    blocks: tuple[RandomBlock, ...] = ()
    once = {(frozenset(effect.label for effect in term.effects), term.intercept, term.group_label): term for term in reversed(random)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BayesLmmWarning)
        if random:
            formula = replace(model.formula, mean=replace(model.formula.mean, random=tuple(reversed(once.values()))))
            rows = model.frame.loc[model.design.kept]
            encoder = model.design.encoder
            data2 = {term.cov: encoder.relationships[term.cov] for term in random if term.cov}
            blocks = encode(formula, rows, contrasts=encoder.contrasts, data2=data2, states=encoder.states).blocks
        reduced = model.on(replace(model.design, blocks=blocks))
        return fit_generalised(reduced, n_agq=nodes_of(fit.approximation)) if fit.generalised else lmer(reduced, reml=fit.reml)


# ------------------------------------------------------------------------------------------------------------------ exact test


def _chosen(random: list[RandomTerm], term: str | None) -> RandomTerm:
    labels = [_label(one) for one in random]
    if term is None and len(random) == 1:
        return random[0]
    if term is None:
        raise FitError(f"the model has several random terms; name one: {', '.join(labels)}")
    plain = {_plain(label): one for label, one in zip(labels, random, strict=True)}
    if _plain(term) not in plain:
        raise FitError(f"the model has no random term {term!r}{suggest(term, labels)}")
    return plain[_plain(term)]


def _plain(label: str) -> str:
    return "".join(label.split()).removeprefix("(").removesuffix(")")


def _block_of(model: Model, term: RandomTerm) -> RandomBlock:
    return next(block for block in model.design.blocks if block.term == term)


def _null_ratios(model: Model, block: RandomBlock, n_sim: int, rng: np.random.Generator) -> Array:
    """Simulate the restricted likelihood ratio where the variance is zero (n_sim,).

    With mu the positive eigenvalues of Z'P Z, P the projection off X, and w standard normal, it is the supremum over lambda >= 0 of

        (n - p) log(1 + N / D) - sum log(1 + lambda mu),   N = sum lambda mu w^2 / (1 + lambda mu),   D = sum w^2 / (1 + lambda mu) + rest,

    `rest` chi-square with n - p - K degrees of freedom; taken over a grid in log lambda and a parabola through its best three points.
    """
    mu = _eigenvalues(model, block)
    rest_df = model.design.n - model.design.p - len(mu)
    lam = _GRID / np.max(mu)
    shrunk = 1.0 / (1.0 + np.outer(mu, lam))
    penalty = -np.sum(np.log(shrunk), axis=0)
    ratios = np.empty(n_sim)
    for start in range(0, n_sim, _CHUNK):
        size = min(_CHUNK, n_sim - start)
        squares = rng.chisquare(1.0, (size, len(mu)))
        rest = rng.chisquare(rest_df, size) if rest_df > 0 else np.zeros(size)
        D = squares @ shrunk + rest[:, None]
        total = np.sum(squares, axis=1) + rest
        ratios[start : start + size] = _supremum((rest_df + len(mu)) * np.log(total[:, None] / D) - penalty)
    return ratios


def _eigenvalues(model: Model, block: RandomBlock) -> Array:
    """Return the positive eigenvalues of Z'PZ (K,), P the projection off X and Z that of independent effects."""
    design, n_levels = model.design, block.n_levels
    root = np.sqrt(design.weights)
    z = block.values[:, 0] * root
    lengths = np.max(np.abs(design.X), axis=0, initial=0.0)
    Q = np.linalg.qr(design.X * root[:, None] / np.where(lengths > 0.0, lengths, 1.0))[0]
    ZQ = np.stack([np.bincount(block.index, z * column, n_levels) for column in Q.T], axis=1) if design.p else np.zeros((n_levels, 0))
    products = np.diag(np.bincount(block.index, z**2, n_levels)) - ZQ @ ZQ.T
    values = np.linalg.eigvalsh(products if block.known is None else block.known.root.T @ products @ block.known.root)
    positive: Array = values[values > 1e-9 * values[-1]]
    return positive


def _supremum(values: Array) -> Array:
    """Return the maximum of each row (its first entry, at lambda = 0, is 0), refined by a parabola where it lies inside."""
    best = np.argmax(values, axis=1)
    inside = (best > 1) & (best < values.shape[1] - 1)
    rows = np.arange(len(values))
    top = values[rows, best]
    at = np.clip(best, 1, values.shape[1] - 2)
    before, after = values[rows, at - 1], values[rows, at + 1]
    bend = 2.0 * top - before - after
    refined = top + np.where(bend > 0.0, (after - before) ** 2 / (8.0 * np.where(bend > 0.0, bend, 1.0)), 0.0)
    return np.where(inside, refined, top)
