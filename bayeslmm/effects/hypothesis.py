"""`hypothesis`: expressions of parameters compared with zero, by posterior probabilities and density ratios, or by Wald tests."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, product
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from bayeslmm.bayes.density_ratio import density_at, exact_density, support
from bayeslmm.bayes.draws import flat
from bayeslmm.bayes.fit import BayesFit
from bayeslmm.bayes.prior_draws import drawn_parameters
from bayeslmm.bayes.summary import quantities
from bayeslmm.bayes.translate import factors
from bayeslmm.classical.fit import ClassicalFit
from bayeslmm.effects.emmeans import DDF, DDF_METHODS, MAX_ROWS_DDF
from bayeslmm.effects.expressions import Statement, affine, evaluate, read
from bayeslmm.errors import BayesLmmWarning, FitError, suggest
from bayeslmm.priors import INTERCEPT

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.fit import Fit
    from bayeslmm.model import Model

__all__ = ["PARTS", "SCOPES", "hypothesis"]

type Array = np.ndarray
type Key = tuple[str, str, str]

PARTS = ("fixed", "sd", "cor", "aux")
SCOPES = ("standard", "ranef", "coef")
_PRIOR_DRAWS = 50_000
_MAD = 1.4826
_BEYOND = 20
"""Draws on the far side of a point that its density can rest on."""
_STEP = 1e-6


def hypothesis(
    fit: Fit,
    hypothesis: str | Sequence[str] | Mapping[str, str],
    *,
    part: str | None = "fixed",
    group: str | None = None,
    scope: str = "standard",
    alpha: float = 0.05,
    robust: bool = False,
    joint: bool = False,
    ddf: str | None = None,
    seed: int | None = None,
) -> pd.DataFrame:
    """Test hypotheses about parameters, written as in brms: `"Days > 10"`, `"sd_Subject__Days = 0"`, `"exp(a) / exp(b) < 2"`.

    Parameters
    ----------
    fit
        A fit of either engine; of a classical one the coefficients of the mean can be tested.
    hypothesis
        One text, several, or a dict of name -> text. Each compares two sides by `=`, `<` or `>`; sides are made of numbers, parameters,
        `+ - * / ^`, parentheses and `exp log log2 log10 log1p expm1 sqrt abs plogis qlogis pnorm qnorm`. Coefficients have the names that
        lme4 prints (`Days`, `(Intercept)` or `Intercept`, `Days:sexf`); backticks may be around any name.
        Whatever the `part`, brms's full names can stand too: `b_Days`, `sd_Subject__Days`, `cor_Subject__Intercept__Days`, `sigma`,
        `r_Subject[308,Days]`, and those of `confint`: `sd_Days|Subject`.
    part, group
        Where short names are looked up: `"fixed"` coefficients; `"sd"` and `"cor"` of a grouping factor `group`, as `Days` and
        `Intercept__Days`; `"aux"`; None for full names alone.
    scope
        `"standard"`, or for each level of `group` by itself: `"ranef"`, names are its random effects; `"coef"`, names are
        its coefficients, fixed plus random.
    alpha
        The interval has probability 1 - alpha for `=`, and 1 - 2 alpha for the one-sided `<` and `>`.
    robust
        Median and MAD in place of mean and standard deviation.
    joint
        Add a row for all one-sided hypotheses being true at once.
    ddf
        Of a classical fit: `"satterthwaite"` (default of linear models of up to 3000 rows), `"kenward-roger"` or `"asymptotic"`.
    seed
        Of draws from the priors.

    Returns
    -------
    DataFrame
        One row a hypothesis (and level): `hypothesis` (its name, or left minus right), `estimate, se, lower, upper` of left minus right.
        Of a posterior further `evidence_ratio`: for one-sided ones the posterior odds; for `=` the posterior density at zero over
        the prior's (Savage and Dickey), above 1 where the data speak for equality. `posterior_probability`: that the hypothesis is true
        (for `=`, were both equally probable beforehand). `star`: `*` where the interval leaves out zero, or the posterior probability
        exceeds 1 - alpha. `prior_density`: whether the prior's density at zero is `exact`, or of `draws` (Gaussian kernels).
        Of a classical fit `df, statistic, p_value` in their place: Wald tests, by the delta method where the expression is
        curved, one-sided for `<` and `>`.

    Raises
    ------
    FormulaError
        If a text cannot be read, or names what the fit does not have; with a caret.
    FitError
        If an option is unknown or does not apply.

    Warns
    -----
    BayesLmmWarning
        `improper_prior`: no density ratio, which is NaN then; `tail_density`: the point lies where there are hardly any draws, and the
        ratio is a guess (use `bayes_factor` with the model without the term).

    Source: Wagenmakers, Lodewyckx, Kuriyal & Grasman (2010), Cognitive Psychology 60; Bürkner (2017), J. Stat. Softw. 80(1).

    Examples
    --------
    >>> import bayeslmm as bl
    >>> fit = bl.lmer("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> table = bl.hypothesis(fit, ["Days > 8", "Intercept / Days = 20"])
    >>> table[["hypothesis", "estimate", "p_value"]].round(3).values.tolist()
    [['(Days) - (8) > 0', 2.467, 0.064], ['(Intercept / Days) - (20) = 0', 4.018, 0.292]]
    """
    import pandas as pd

    texts = _texts(hypothesis)
    _one_of("part", part, (*PARTS, "b", None))
    _one_of("scope", scope, SCOPES)
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0.0 < alpha < 0.5:
        raise FitError(f"alpha must lie between 0 and 0.5, not {alpha!r}")
    asked = _Asked(alpha=float(alpha), robust=robust, seed=seed)
    if isinstance(fit, ClassicalFit):
        refused = {"part": part not in ("fixed", "b"), "group": group is not None, "scope": scope != "standard"}
        refused |= {"robust": robust, "joint": joint}
        return pd.DataFrame(_wald(fit, texts, asked, ddf, [name for name, given in refused.items() if given]))
    if not isinstance(fit, BayesFit):
        raise FitError(f"hypotheses are tested on one fit, not on {type(fit).__name__}")
    if ddf is not None:
        raise FitError("ddf is of classical fits; a posterior needs no degrees of freedom")
    if scope != "standard":
        return pd.DataFrame(list(_by_level(fit, texts, scope, _known_group(fit.model, group), asked)))
    found = _parameters(fit, part, group)
    listed = [name for name in found.draws if name in found.keys]
    statements = [(name, read(text, found.names, listed=listed)) for name, text in texts]
    values = [_values(statement, found.draws) for _, statement in statements]
    made = [
        _row(name, statement, own, asked, *_ratio(fit.model, found, statement, own, asked))
        for (name, statement), own in zip(statements, values, strict=True)
    ]
    return pd.DataFrame([*made, _all_at_once(statements, values, asked)] if joint else made)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """How hypotheses are judged."""

    alpha: float
    robust: bool
    seed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameters:
    """The parameters of a posterior: `names` as they may be written -> own name; own name -> draws (S,), and its place in the estimates."""

    names: Mapping[str, str]
    draws: Mapping[str, Array]
    keys: Mapping[str, Key] = field(default_factory=lambda: MappingProxyType({}))


def _texts(hypothesis: Any) -> list[tuple[str, str]]:
    """Return (name, text) pairs; names are empty where none were given."""
    if isinstance(hypothesis, str):
        return [("", hypothesis)]
    if isinstance(hypothesis, Mapping):
        pairs = [(str(name), text) for name, text in hypothesis.items()]
    elif isinstance(hypothesis, Sequence):
        pairs = [("", text) for text in hypothesis]
    else:
        raise FitError(f"a hypothesis is a text as 'Days > 10', a list or a dict of texts, not {type(hypothesis).__name__}")
    for _, text in pairs:
        if not isinstance(text, str):
            raise FitError(f"a hypothesis is a text as 'Days > 10', not {type(text).__name__}")
    if not pairs:
        raise FitError("no hypothesis is given; write one as 'Days > 10'")
    return pairs


def _one_of(name: str, value: Any, known: Sequence[str | None]) -> None:
    if value not in known:
        raise FitError(f"unknown {name} {value!r}{suggest(str(value), [str(one) for one in known])}")


def _known_group(model: Model, group: str | None) -> str:
    groups = list(dict.fromkeys(block.group for block in model.design.blocks))
    if group is None:
        raise FitError(f"scope='ranef' and 'coef' need a group; the model has: {', '.join(groups) or 'none'}")
    if group not in groups:
        raise FitError(f"the model has no group '{group}'{suggest(str(group), groups)}")
    return group


# ----------------------------------------------------------------------------------------------------------------------- names


def _spellings(name: str) -> Iterator[str]:
    """Yield the ways to write a coefficient's name: as lme4 prints it; without backticks; `Intercept` bare; each without blanks too."""
    for one in (name, name.replace("`", ""), name.replace(INTERCEPT, "Intercept")):
        yield one
        yield one.replace(" ", "")


def _parameters(fit: BayesFit, part: str | None, group: str | None) -> _Parameters:
    """Return a posterior's parameters: short names of the part first, full names behind them."""
    short: dict[str, str] = {}
    full: dict[str, str] = {}
    draws: dict[str, Array] = {}
    keys: dict[str, Key] = {}
    pairs = _pairs(fit.model)
    wanted = "fixed" if part == "b" else part
    for row in quantities(fit.model, fit.tree["posterior"].to_dataset()):
        key = (row.part, row.group, row.term)
        inner = [name for term in (pairs.get(key) or [row.term]) for name in _spellings(term)]
        own = _full_names(key, inner)
        draws[own[0]], keys[own[0]] = row.draws.reshape(-1), key
        full |= {name: own[0] for name in own if name not in full}
        if wanted == row.part and group in (None, "", row.group):
            short |= {name: own[0] for name in inner if name not in short}
    if group is not None and wanted in ("sd", "cor"):
        _known_group(fit.model, group)
    for name, values in _random_effects(fit):
        if name not in full:
            full[name], draws[name] = name, values
    return _Parameters(names=full | short, draws=draws, keys=keys)


def _full_names(key: Key, inner: Sequence[str]) -> list[str]:
    """Return a parameter's full names, brms's first."""
    part, group, term = key
    if part == "fixed":
        return [f"b_{name}" for name in reversed(inner)]
    if part == "aux":
        return [term, f"b_{term}"]
    brms = [f"{part}_{group}__{name}" for name in reversed(inner)]
    names = [*brms, *(f"{group}__{name}" for name in reversed(inner)), f"{part}_{term}|{group}"]
    return list(dict.fromkeys(spelling for name in names for spelling in (name, name.replace("`", ""))))


def _pairs(model: Model) -> dict[Key, list[str]]:
    """Return the names of correlations as brms has them, `Intercept__Days`, and as lme4 has, `Days.(Intercept)`."""
    found: dict[Key, list[str]] = {}
    for factor in factors(model):
        prefix = f"{factor.parameter}_" if factor.parameter else ""
        effects = [prefix + effect for effect in factor.effects]
        for first, second in combinations(effects, 2):
            term = f"{second}.{first}"
            found["cor", factor.group, term] = [term, f"{first}__{second}"]
    return found


def _random_effects(fit: BayesFit) -> Iterator[tuple[str, Array]]:
    """Yield the names `r_Subject[308,Days]` of all random effects, and their draws."""
    posterior = fit.tree["posterior"]
    for factor in factors(fit.model):
        r = flat(posterior[f"r_{factor.label}"])
        for j, level in enumerate(factor.levels):
            for c, effect in enumerate(factor.effects):
                for label, name in product({factor.label, factor.label.replace("`", "")}, dict.fromkeys(_spellings(effect))):
                    yield f"r_{label}[{level},{name}]", r[:, j, c]


# ------------------------------------------------------------------------------------------------------------------- posteriors


def _values(statement: Statement, draws: Mapping[str, Array]) -> Array:
    """Return the draws of left minus right.

    Raises
    ------
    FitError
        If some of them are not numbers.
    """
    size = len(next(iter(draws.values())))
    values = np.broadcast_to(np.asarray(evaluate(statement.node, {name: draws[name] for name in statement.names}), dtype=float), (size,))
    bad = ~np.isfinite(values)
    if bad.any():
        raise FitError(
            f"'{statement.text}' is not a finite number at {int(bad.sum())} of {size} draws (a root or logarithm of what is below 0?)"
        )
    return values


def _row(name: str, statement: Statement, values: Array, asked: _Asked, ratio: float, density: str = "") -> dict[str, Any]:
    """Return one row of the table, from the draws of left minus right; `ratio`: evidence for equality, where that is asked for."""
    alpha, equality = asked.alpha, statement.sign == "="
    tail = alpha / 2.0 if equality else alpha
    lower, upper = np.quantile(values, [tail, 1.0 - tail])
    median = float(np.median(values))
    centre = median if asked.robust else float(np.mean(values))
    spread = _MAD * float(np.median(np.abs(values - median))) if asked.robust else float(np.std(values, ddof=1))
    share = _share(statement, values)
    odds = ratio if equality else math.inf if share == 1.0 else share / (1.0 - share)
    probability = 1.0 if math.isinf(odds) else odds / (1.0 + odds)
    starred = not lower <= 0.0 <= upper if equality else probability > 1.0 - alpha
    return {
        "hypothesis": name or statement.label,
        "estimate": centre,
        "se": spread,
        "lower": float(lower),
        "upper": float(upper),
        "evidence_ratio": odds,
        "posterior_probability": probability,
        "star": "*" if starred else "",
        "prior_density": density,
    }


def _share(statement: Statement, values: Array) -> float:
    return float(np.mean(values < 0.0 if statement.sign == "<" else values > 0.0))


def _all_at_once(statements: Sequence[tuple[str, Statement]], values: Sequence[Array], asked: _Asked) -> dict[str, Any]:
    """Return the row of all one-sided hypotheses being true at once."""
    points = [statement.text for _, statement in statements if statement.sign == "="]
    if points:
        raise FitError(f"joint=True is of one-sided hypotheses, and '{points[0]}' is a point; compare models by `bayes_factor`")
    true = [own < 0.0 if statement.sign == "<" else own > 0.0 for (_, statement), own in zip(statements, values, strict=True)]
    share = float(np.mean(np.logical_and.reduce(true)))
    odds = math.inf if share == 1.0 else share / (1.0 - share)
    nothing = dict.fromkeys(("estimate", "se", "lower", "upper"), np.nan)
    star = "*" if share > 1.0 - asked.alpha else ""
    return {
        "hypothesis": " & ".join(name or statement.label for name, statement in statements),
        **nothing,
        "evidence_ratio": odds,
        "posterior_probability": share,
        "star": star,
        "prior_density": "",
    }


def _ratio(model: Model, found: _Parameters, statement: Statement, values: Array, asked: _Asked) -> tuple[float, str]:
    """Return Savage and Dickey's density ratio of a point hypothesis, and how the prior's density was found; NaN where there is none."""
    if statement.sign != "=":
        return math.nan, ""
    if any(name not in found.keys for name in statement.names):
        return _no_ratio(statement, "random effects have no prior of their own")
    linear = affine(statement.node)
    slopes = {} if linear is None else {found.keys[name]: slope for name, slope in linear.slopes.items()}
    prior = None if linear is None else exact_density(model, linear.constant, slopes, 0.0)
    how, low, high = "exact", -math.inf, math.inf
    if prior is None:
        keys = {name: found.keys[name] for name in statement.names}
        how, drawn = "draws", drawn_parameters(model, keys.values(), _PRIOR_DRAWS, asked.seed if asked.seed is not None else 0)
        if any(key not in drawn for key in keys.values()):
            return _no_ratio(statement, "a prior is improper")
        sample = np.asarray(evaluate(statement.node, {name: drawn[key] for name, key in keys.items()}), dtype=float)
        sample = sample[np.isfinite(sample)]
        if len(sample) < 0.99 * _PRIOR_DRAWS:
            return _no_ratio(statement, "it is not a number under the prior")
    if linear is not None and len(slopes) == 1:
        ((key, slope),) = slopes.items()
        low, high = sorted(linear.constant + slope * end if slope else end for end in support(model, key))
    if prior is None:
        prior = density_at(sample, 0.0, low, high)
    if not low <= 0.0 <= high:
        return 0.0, how
    _warn_of_tails(statement, values, at_end=0.0 in (low, high))
    return (density_at(values, 0.0, low, high) / prior if prior > 0.0 else math.nan), how


def _no_ratio(statement: Statement, reason: str) -> tuple[float, str]:
    message = f"no evidence ratio for '{statement.text}': {reason}; give proper priors, or compare models by `bayes_factor`"
    warnings.warn(BayesLmmWarning("improper_prior", message), stacklevel=4)
    return math.nan, ""


def _warn_of_tails(statement: Statement, values: Array, *, at_end: bool) -> None:
    """Warn where hardly any draws lie about zero: beyond it, or at an end of the range within a quarter of the draws' spread of it."""
    near = np.abs(values) < 0.25 * np.std(values)
    count = int(near.sum() if at_end else min((values < 0.0).sum(), (values > 0.0).sum()))
    if count < _BEYOND:
        message = (
            f"'{statement.text}' lies where there are hardly any draws ({count}): its evidence ratio is a guess; compare with the model "
            "that has the hypothesis built in, by `bayes_factor`"
        )
        warnings.warn(BayesLmmWarning("tail_density", message), stacklevel=4)


# ------------------------------------------------------------------------------------------------------------- levels of a factor


def _by_level(fit: BayesFit, texts: Sequence[tuple[str, str]], scope: str, group: str, asked: _Asked) -> Iterator[dict[str, Any]]:
    """Yield a row for every hypothesis and level, the level first."""
    factor = next(factor for factor in factors(fit.model) if factor.group == group and not factor.parameter)
    r = flat(fit.tree["posterior"][f"r_{factor.label}"])
    effects = {name: r[:, :, c] for c, name in enumerate(factor.effects)}
    if scope == "coef":
        b = fit.draws().b
        fixed = {name: np.repeat(b[:, [j]], r.shape[1], axis=1) for j, name in enumerate(fit.model.design.fixed_names)}
        effects = fixed | {name: values + fixed.get(name, 0.0) for name, values in effects.items()}
    names = {spelling: name for name in effects for spelling in _spellings(name)}
    for name, text in texts:
        statement = read(text, names, "effect")
        for j, level in enumerate(factor.levels):
            values = _values(statement, {effect: every[:, j] for effect, every in effects.items()})
            yield {"level": level} | _row(name, statement, values, asked, math.nan)


# ------------------------------------------------------------------------------------------------------------------ classical fits


def _wald(
    fit: ClassicalFit, texts: Sequence[tuple[str, str]], asked: _Asked, ddf: str | None, refused: Sequence[str]
) -> list[dict[str, Any]]:
    """Return Wald tests of the coefficients of the mean; curved expressions by the delta method."""
    if refused:
        raise FitError(
            f"{refused[0]} is of posteriors: a classical fit tests coefficients; for variance parameters see `confint`, `ranova`"
        )
    if ddf is not None:
        _one_of("ddf", ddf, DDF)
    names = fit.model.design.fixed_names
    spelled = {spelling: name for name in names for spelling in (*_spellings(name), *(f"b_{one}" for one in _spellings(name)))}
    statements = [(name, read(text, spelled, "coefficient")) for name, text in texts]
    judged = DDF_METHODS[_method(fit, ddf)](fit)
    rows = []
    for name, statement in statements:
        value, gradient = _linearised(statement, names, fit.beta)
        se = math.sqrt(max(float(gradient @ judged.vcov @ gradient), 0.0))
        rows.append(_test(name, statement, value, se, judged.df(gradient), asked.alpha))
    return rows


def _method(fit: ClassicalFit, ddf: str | None) -> str:
    if fit.generalised:
        if ddf not in (None, "asymptotic"):
            raise FitError(f"ddf='{ddf}' is of linear mixed models; this fit by {fit.method} has normal tests")
        return "asymptotic"
    if ddf is not None or fit.nobs <= MAX_ROWS_DDF:
        return ddf or "satterthwaite"
    message = f"tests are asymptotic, without degrees of freedom: {fit.nobs} rows are more than {MAX_ROWS_DDF}; ask by ddf='satterthwaite'"
    warnings.warn(BayesLmmWarning("asymptotic", message), stacklevel=4)
    return "asymptotic"


def _linearised(statement: Statement, names: Sequence[str], beta: Array) -> tuple[float, Array]:
    """Return left minus right at the estimate and its gradient (p,): exact where it is linear, else by central differences."""

    def at(b: Array) -> float:
        return float(evaluate(statement.node, dict(zip(names, b.tolist(), strict=True))))

    value, linear = at(beta), affine(statement.node)
    if not math.isfinite(value):
        raise FitError(f"'{statement.text}' is not a finite number at the estimates")
    if linear is not None:
        return value, np.array([linear.slopes.get(name, 0.0) for name in names])
    gradient = np.zeros(len(beta))
    for j in [names.index(name) for name in statement.names]:
        step = np.zeros(len(beta))
        step[j] = _STEP * max(abs(float(beta[j])), _STEP)
        gradient[j] = (at(beta + step) - at(beta - step)) / (2.0 * step[j])
    return value, gradient


def _test(name: str, statement: Statement, value: float, se: float, df: float, alpha: float) -> dict[str, Any]:
    equality = statement.sign == "="
    half = float(stats.t.ppf(1.0 - (alpha / 2.0 if equality else alpha), df)) * se
    statistic = value / se if se > 0.0 else math.nan
    above, below = float(stats.t.sf(statistic, df)), float(stats.t.cdf(statistic, df))
    p_value = {"=": 2.0 * min(above, below), ">": above, "<": below}[statement.sign]
    return {
        "hypothesis": name or statement.label,
        "estimate": value,
        "se": se,
        "lower": value - half,
        "upper": value + half,
        "df": df,
        "statistic": statistic,
        "p_value": p_value,
        "star": "*" if p_value < alpha else "",
    }
