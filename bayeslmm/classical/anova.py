"""`anova`: F tests of whole terms of one fit, or likelihood-ratio tests between several."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import chdtrc

from bayeslmm.classical.ddf import f_test, inference
from bayeslmm.classical.fit import ClassicalFit
from bayeslmm.classical.lmm import lmer, needs_maximum
from bayeslmm.classical.terms import term_contrasts
from bayeslmm.errors import BayesLmmWarning, FitError

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.fit import Fit

__all__ = ["LRT_COLUMNS", "TERM_COLUMNS", "anova", "contrast"]

type Array = np.ndarray

TERM_COLUMNS = ("sum_sq", "mean_sq", "num_df", "den_df", "f_value", "p_value")
LRT_COLUMNS = ("n_parameters", "aic", "bic", "loglik", "deviance", "chisq", "df", "p_value")


def anova(*fits: Fit, type: int | str = 3, ddf: str = "satterthwaite", refit: bool = True) -> pd.DataFrame:
    """Test the terms of one fit by F tests, or compare several fits by likelihood-ratio tests.

    Parameters
    ----------
    *fits
        One fit; or two and more of the same rows, from `lmer` with or without random effects, in any order.
    type
        For one fit: 1, 2 or 3 (or `"I"`, `"II"`, `"III"`), see `bayeslmm.classical.terms`; 3 does not depend on the coding of factors.
    ddf
        For one fit: `"satterthwaite"` or `"kenward-roger"`.
    refit
        For several: fit REML fits again by ML (with a warning that says so); with False, REML likelihoods are compared, which
        needs equal fixed effects.

    Returns
    -------
    DataFrame
        One fit: `sum_sq, mean_sq, num_df, den_df, f_value, p_value` by term. Several: `n_parameters, aic, bic, loglik, deviance,
        chisq, df, p_value` by model (its formula), smallest first, each tested against the one before. A test of a variance is
        conservative there, see `bayeslmm.ranova`.

    Raises
    ------
    FitError
        For unknown types and methods, fits of different rows or responses, and fits that are not from `lmer`.

    Source: Kuznetsova, Brockhoff & Christensen (2017), J. Stat. Softw. 82(13); Bates et al. (2015), J. Stat. Softw. 67(1).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> data = bl.load_dataset("sleepstudy")
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", data)
    >>> bl.anova(fit).round(4).loc["Days"].tolist()
    [30031.0148, 30031.0148, 1.0, 17.0, 45.853, 0.0]
    >>> small = bl.lmer("Reaction ~ Days + (1 | Subject)", data, reml=False)
    >>> large = bl.lmer("Reaction ~ Days + (Days | Subject)", data, reml=False)
    >>> float(bl.anova(small, large)["chisq"].iloc[1].round(4))
    42.1393
    """
    if not fits:
        raise FitError("anova needs a fit")
    classical = [_classical(fit) for fit in fits]
    return _terms(classical[0], type, ddf) if len(classical) == 1 else _ratios(classical, refit)


def contrast(fit: ClassicalFit, L: Array, rhs: Array | float = 0.0, *, ddf: str = "satterthwaite") -> pd.DataFrame:
    """Test L beta = rhs by an F test, all contrasts together.

    Parameters
    ----------
    fit
        What `lmer` returned.
    L
        Contrasts (q, p), or one (p,); rows that repeat others count once.
    rhs
        Their hypothetical values (q,), default zero.
    ddf
        `"satterthwaite"` or `"kenward-roger"`.

    Returns
    -------
    DataFrame
        One row of `sum_sq, mean_sq, num_df, den_df, f_value, p_value`.

    Raises
    ------
    DataError
        If L does not fit the coefficients, or contradicts itself.
    FitError
        For an unknown method.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> contrast(fit, [[1, 0], [0, 1]])[["num_df", "den_df"]].round(3).iloc[0].tolist()
    [2.0, 17.0]
    """
    import pandas as pd

    row = _f_row(fit, ddf, {"contrast": np.asarray(L, dtype=float)}, rhs)
    return pd.DataFrame(row, columns=list(TERM_COLUMNS), index=["contrast"], dtype=float)


def _classical(fit: Fit) -> ClassicalFit:
    if not isinstance(fit, ClassicalFit):
        raise FitError(f"anova tests fits from `lmer`, not a {type(fit).__name__}; compare posteriors with `compare`")
    return fit


# ------------------------------------------------------------------------------------------------------------------------ terms


def _terms(fit: ClassicalFit, kind: int | str, ddf: str) -> pd.DataFrame:
    import pandas as pd

    contrasts = term_contrasts(fit.model, kind)
    index = pd.Index(list(contrasts), name="term", dtype=object)
    return pd.DataFrame(_f_row(fit, ddf, contrasts, 0.0), columns=list(TERM_COLUMNS), index=index, dtype=float)


def _f_row(fit: ClassicalFit, ddf: str, contrasts: dict[str, Array], rhs: Array | float) -> list[tuple[float, ...]]:
    found = inference(fit, ddf)
    rows: list[tuple[float, ...]] = []
    for L in contrasts.values():
        test = f_test(found, L, rhs)
        if test is None:
            rows.append(tuple(float("nan") for _ in TERM_COLUMNS))
            continue
        mean_sq = test.f_value / test.scaling * found.sigma**2
        rows.append((mean_sq * test.num_df, mean_sq, test.num_df, test.den_df, test.f_value, test.p_value))
    return rows


# ----------------------------------------------------------------------------------------------------------- likelihood ratios


def _ratios(fits: Sequence[ClassicalFit], refit: bool) -> pd.DataFrame:
    import pandas as pd

    _check_same_rows(fits)
    compared = _by_ml(fits) if refit else _as_fitted(fits)
    labels = _labels(fits)
    order = sorted(range(len(fits)), key=lambda i: compared[i].n_parameters)
    ordered = [compared[i] for i in order]
    sizes, loglik = np.array([fit.n_parameters for fit in ordered]), np.array([fit.loglik for fit in ordered])
    df = np.diff(sizes).astype(float)
    chisq = 2.0 * np.maximum(np.diff(loglik), 0.0)
    columns = {
        "n_parameters": sizes,
        "aic": [fit.aic for fit in ordered],
        "bic": [fit.bic for fit in ordered],
        "loglik": loglik,
        "deviance": -2.0 * loglik,
        "chisq": [np.nan, *chisq],
        "df": [np.nan, *df],
        "p_value": np.append(np.nan, chdtrc(np.where(df > 0.0, df, np.nan), chisq)),
    }
    return pd.DataFrame(columns, columns=list(LRT_COLUMNS), index=pd.Index([labels[i] for i in order], name="model"))


def _check_same_rows(fits: Sequence[ClassicalFit]) -> None:
    for fit in fits:
        needs_maximum(fit, "anova of several fits")
    first = fits[0].model.design
    for fit in fits[1:]:
        design = fit.model.design
        if design.n != first.n or not design.index.equals(first.index):
            raise FitError(
                f"the fits use different rows ({first.n} and {design.n}), so their likelihoods cannot be compared; "
                "leave out the rows with missing values first"
            )
        if design.response_name != first.response_name or not np.allclose(design.y, first.y, rtol=1e-12, atol=0.0):
            raise FitError(
                f"the fits have different responses ({first.response_name} and {design.response_name}), "
                "so their likelihoods cannot be compared"
            )


def _by_ml(fits: Sequence[ClassicalFit]) -> list[ClassicalFit]:
    again = sum(fit.reml for fit in fits)
    if again:
        message = f"{again} of {len(fits)} models fitted again by ML: REML likelihoods of different fixed effects do not compare"
        warnings.warn(BayesLmmWarning("refitted_ml", message), stacklevel=4)
    return [lmer(fit.model, reml=False) if fit.reml else fit for fit in fits]


def _as_fitted(fits: Sequence[ClassicalFit]) -> list[ClassicalFit]:
    if len({fit.reml for fit in fits}) > 1:
        raise FitError("some of the fits are by REML and some by ML, so their likelihoods cannot be compared; leave out refit=False")
    names = fits[0].model.design.fixed_names
    if fits[0].reml and any(fit.model.design.fixed_names != names for fit in fits):
        raise FitError("REML likelihoods of different fixed effects cannot be compared; leave out refit=False")
    return list(fits)


def _labels(fits: Sequence[ClassicalFit]) -> list[str]:
    """Return the fits' formulas, numbered where two share one."""
    texts = [str(fit.model.formula) for fit in fits]
    count, seen, labels = Counter(texts), Counter[str](), []
    for text in texts:
        seen[text] += 1
        labels.append(f"{text} ({seen[text]})" if count[text] > 1 else text)
    return labels
