"""`Model`: what is fitted, before any fitting; the noun that formula, data, family, structures and priors meet at."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm import families, priors
from bayeslmm.covariance import structure_of
from bayeslmm.data import to_pandas
from bayeslmm.design import encode, without_intercept
from bayeslmm.errors import DataError, DataWarning, FitError, FormulaError, PriorError, suggest
from bayeslmm.explain import Explanation, explanation
from bayeslmm.families.base import Parameter
from bayeslmm.formula import Formula, parse, with_dialect
from bayeslmm.formula.deparse import quote_name
from bayeslmm.formula.values import frozen
from bayeslmm.residual import residual_of

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.design import Design
    from bayeslmm.families.base import Family, Link
    from bayeslmm.priors import PriorRow

__all__ = ["DIALECTS", "Dims", "Model", "as_model", "default_priors", "model"]

type Array = np.ndarray

DIALECTS = ("lme4", "brms")

_LARGEST_COUNT = 2**53
_LARGEST = 1e153
"""Up to here the sum of many squares is a float64."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dims:
    """The sizes of a model.

    `n` rows, `p` fixed effects, `q` columns of Z, `k` random terms, `n_theta` covariance parameters,
    `levels`: grouping factor -> number of levels.
    """

    n: int
    p: int
    q: int
    k: int
    n_theta: int
    levels: Mapping[str, int]

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A validated model on its data; made by `model`, fitted by `lmer`, `brm` and `fit`; it never changes.

    Attributes
    ----------
    formula
        The parsed `Formula`.
    design
        `Design`: `.y`, `.X` (n, p), `.fixed_names`, `.Z` sparse (n, q), blocks, weights, offset.
    family, link
        `Family` and `Link` records.
    frame
        The user's data as a pandas frame, all rows.
    dialect
        Whose semantics decide where R packages disagree: `"lme4"` or `"brms"`.
    stated_priors
        All priors as rows where the user gave some; None where all are defaults.
    arrays
        `weights` and `offset` where they were given as arrays: a value for each row of `frame`.
    """

    formula: Formula
    design: Design
    family: Family
    link: Link
    frame: pd.DataFrame
    dialect: str
    stated_priors: tuple[PriorRow, ...] | None = None
    arrays: Mapping[str, Array] = field(default_factory=lambda: MappingProxyType({}))

    @cached_property
    def prior_rows(self) -> tuple[PriorRow, ...]:
        """All priors as rows: the visible defaults, made when first asked for, overlaid by the user's."""
        return _defaults(self.design, self.family, self.link) if self.stated_priors is None else self.stated_priors

    def on(self, design: Design, frame: pd.DataFrame | None = None) -> Model:
        """Return the same model, with the priors of this one, on another design: other rows or another response."""
        return replace(self, design=design, frame=self.frame if frame is None else frame, stated_priors=self.prior_rows)

    @property
    def priors(self) -> pd.DataFrame:
        """All priors: a frame `part, group, term, prior, source`."""
        return priors.priors_table(self.prior_rows)

    @property
    def dims(self) -> Dims:
        """Sizes: `n p q k n_theta` and levels per group."""
        design = self.design
        n_theta = sum(structure_of(block).n_theta(block.n_effects) for block in design.blocks)
        return Dims(n=design.n, p=design.p, q=design.q, k=len(design.blocks), n_theta=n_theta, levels=design.ngroups)

    def explain(self) -> Explanation:
        """Return the expanded terms, sizes, rank of X, groups and the model as LaTeX mathematics; it prints as text."""
        labels = {block.name: structure_of(block).labels(block.effects) for block in self.design.blocks}
        return explanation(self.formula, self.design, self.family, self.link, self.dialect, labels)

    def to_pymc(self) -> Any:
        """Return the model as a `pymc.Model` with named dimensions and coordinates."""
        from bayeslmm.bayes.translate import translate

        return translate(self)

    def to_bambi(self) -> Any:
        """Return the model as a `bambi.Model` with the same priors, on the columns of the design; see `bayes.bambi_model`.

        Raises
        ------
        FitError
            If bambi is not installed, or cannot express the model: the message names each thing, as correlated random effects.

        Examples
        --------
        >>> import bayeslmm as bl
        >>> m = bl.model("Reaction ~ Days + (Days || Subject)", bl.load_dataset("sleepstudy"))
        >>> m.to_bambi().formula.main
        'Reaction ~ 1 + Days + (1 | Subject) + (0 + Days | Subject)'
        """
        from bayeslmm.bayes.bambi_model import to_bambi

        return to_bambi(self)

    def to_r(self, peer: str = "lme4", *, reml: bool = True) -> str:
        """Return the equivalent R script as text: data, factor levels, contrasts, weights, formula, family and, for brms, priors.

        Parameters
        ----------
        peer
            `"lme4"` or `"brms"`.
        reml
            Whether `lmer` is to maximise the REML criterion.

        Raises
        ------
        FitError
            If the package cannot express the model; the message says what.

        Examples
        --------
        >>> import bayeslmm as bl
        >>> m = bl.model("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
        >>> print(m.to_r("lme4").split("library(lme4)")[1])
        <BLANKLINE>
        fit <- lmer(
          Reaction ~ 1 + Days + (Days | Subject),
          data = d,
          REML = TRUE
        )
        summary(fit)
        <BLANKLINE>
        """
        from bayeslmm.rscript import Described, r_script

        described = Described(
            design=self.design,
            family=self.family,
            link=self.link,
            prior_rows=self.prior_rows,
            frame=self.frame,
            dialect=self.dialect,
            reml=reml,
        )
        return r_script(described, peer)

    def __repr__(self) -> str:
        dims = self.dims
        groups = ", ".join(f"{group} {levels}" for group, levels in dims.levels.items())
        sizes = f"n = {dims.n}, p = {dims.p}, q = {dims.q}"
        return f"<Model {self.formula.text}; {self.family.name}({self.link.name}); {sizes}; groups: {groups or 'none'}>"


def model(
    formula: str | Formula,
    data: Any,
    family: str = "gaussian",
    *,
    link: str | None = None,
    priors: Sequence[PriorRow] | None = None,
    weights: str | Any | None = None,
    offset: str | Any | None = None,
    contrasts: Mapping[str, Any] | None = None,
    data2: Mapping[str, Any] | None = None,
    na: str = "omit",
    dialect: str = "lme4",
) -> Model:
    """Read a formula, encode the data and check everything that can be checked before a fit.

    Parameters
    ----------
    formula
        In R's grammar, `"Reaction ~ Days + (Days | Subject)"`, or what `bayeslmm.formula` returned.
    data
        pandas, polars or pyarrow frame, or a dict of columns; one row an observation.
    family, link
        Response family in brms's spelling and its link (default: the family's own).
    priors
        Rows made by `prior`, laid over the visible defaults.
    weights, offset
        A column's name or an array of the data's length (default: ones, zeros). As in R, the column that `weights` names holds the
        trials where the response of a binomial family is a proportion.
    contrasts
        Column -> `"treatment" "sum" "helmert" "poly"` (R's `"contr.sum"` too) or a matrix (levels x columns).
    data2
        Name -> known covariance matrix among the levels of a factor, for terms `(x | gr(g, cov = name))`: a square frame whose index
        and columns name the levels, symmetric, positive definite, and taken as it is (not rescaled to correlations). Levels that
        only the matrix has are left out of the fit; `predict` knows them by their relations to the others.
    na
        `"omit"` drops rows with a missing value and says so; `"raise"` refuses them. Rows of weight zero or of no trials are
        always dropped, with a notice.
    dialect
        `"lme4"` or `"brms"`: decides where R packages disagree, as in the meaning of `||`.

    Returns
    -------
    Model

    Warns
    -----
    DataWarning
        `missing`, `excluded`: rows were left out, and why; `rank_deficient`: columns of X were left out; `constant_response`:
        no success, no failure or no count at all.

    Raises
    ------
    FormulaError
        If the formula cannot be read; the message shows it with a caret.
    DataError
        If the data cannot be used; the message names the column and the rows.
    PriorError
        If a prior names nothing in the model.
    FitError
        If family, link or an option is unknown.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> m = bl.model("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> m.dims.n, m.dims.p, m.dims.q
    (180, 2, 36)
    """
    if dialect not in DIALECTS:
        raise FitError(f"unknown dialect {dialect!r}{suggest(str(dialect), DIALECTS)}")
    record = families.family_named(family)
    link_record = families.link_named(link or record.link, record)
    parsed = with_dialect(formula, dialect) if isinstance(formula, Formula) else parse(formula, dialect=dialect)
    if parsed.response is None:
        raise FormulaError("the formula has no response; write `y ~ ...`", text=parsed.text)
    frame = to_pandas(data).copy(deep=False)  # the user may give the frame's columns other values later
    design = encode(parsed, frame, contrasts=contrasts, weights=weights, offset=offset, data2=data2, na=na)
    if isinstance(weights, str) and dialect == "lme4" and _is_share(design, record):
        parsed = _of_trials(parsed, weights)
        design = encode(parsed, frame, contrasts=contrasts, offset=offset, data2=data2, na=na)
    _check_parameters(design, record)
    if design.known_errors:
        _check_known_errors(design, record)
        dialect = "lme4"  # the weights that stand for known errors are precisions in either dialect
    record = _with_correlation(record, link_record, design, dialect)
    if record.of_levels is not None:
        record, link_record = record.of_levels(_levels(design, record), link_record), families.latent(link_record)
        design = without_intercept(design)
    _check_response(design, record)
    _check_sizes(design)
    for code, message in _notices(design, record):
        warnings.warn(DataWarning(code, message), stacklevel=2)
    stated = None if priors is None else _overlaid(_defaults(design, record, link_record), design, record, priors)
    return Model(
        formula=parsed,
        design=design,
        family=record,
        link=link_record,
        frame=frame,
        dialect=dialect,
        stated_priors=stated,
        arrays=_given_arrays({"weights": weights, "offset": offset}),
    )


def _given_arrays(given: Mapping[str, Any]) -> Mapping[str, Array]:
    """Return those arguments that are arrays, as copies that nobody can write to."""
    arrays = {name: frozen(np.array(values, dtype=np.float64)) for name, values in given.items() if not isinstance(values, str | None)}
    return MappingProxyType(arrays)


def as_model(
    formula: str | Formula | Model,
    data: Any,
    family: str = "gaussian",
    *,
    link: str | None = None,
    priors: Sequence[PriorRow] | None = None,
    weights: Any = None,
    offset: Any = None,
    contrasts: Mapping[str, Any] | None = None,
    data2: Mapping[str, Any] | None = None,
    na: str = "omit",
    dialect: str = "lme4",
) -> Model:
    """Return a ready `Model`, with `priors` laid over its own, or make one of a formula and data as `model` does.

    Raises
    ------
    FitError
        If options are given beside a ready model that has decided them already.
    """
    if not isinstance(formula, Model):
        if data is None:
            raise DataError("no data given; pass a data frame after the formula")
        decided = {"link": link, "priors": priors, "weights": weights, "offset": offset, "contrasts": contrasts, "data2": data2}
        return model(formula, data, family, **decided, na=na, dialect=dialect)
    given = {"data": data, "link": link, "weights": weights, "offset": offset, "contrasts": contrasts, "data2": data2}
    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise FitError(f"a ready Model has its {', '.join(extra)} already; pass {'them' if len(extra) > 1 else 'it'} to model(...)")
    if not priors:
        return formula
    return replace(formula, stated_priors=_overlaid(formula.prior_rows, formula.design, formula.family, priors))


def _defaults(design: Design, family: Family, link: Link) -> tuple[PriorRow, ...]:
    return priors.default_rows(design, family, link, "weak")


def default_priors(model: Model, style: str = "weak") -> list[PriorRow]:
    """Return the default priors of a model as rows that `priors=` takes.

    Parameters
    ----------
    model
        A `Model`.
    style
        `"weak"`: proper, weakly informative on the data's scale; `"brms"`: exactly those of brms (flat slopes).

    Raises
    ------
    PriorError
        If the style is unknown, or `model` is no `Model`.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> m = bl.model("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> [row.part for row in bl.default_priors(m, "brms")][:2]
    ['intercept', 'fixed']
    """
    if not isinstance(model, Model):
        raise PriorError(f"default_priors takes a Model, made by bayeslmm.model, not {type(model).__name__}")
    return list(priors.default_rows(model.design, model.family, model.link, style))


def _overlaid(rows: Sequence[PriorRow], design: Design, family: Family, user: Sequence[PriorRow] | None) -> tuple[PriorRow, ...]:
    """Lay the user's rows over others, once they are rows at all."""
    if isinstance(user, priors.PriorRow) or not isinstance(user, Iterable | None):
        raise PriorError(f"priors is a list of rows made by prior(...), not a single {type(user).__name__}; put it in [...]")
    laid = tuple(priors.overlay(rows, tuple(user or ()), design, family))
    if design.known_errors and any(row.part == "aux" and row.term == family.scale and row.distribution.name != "constant" for row in laid):
        raise PriorError(f"{family.scale} has no prior in a model with known standard errors, se(): it is in units of these, constant(1)")
    return laid


_WHOLE = 1e-3
"""As in R, a proportion times its trials is a count where it lies this close to a whole number."""


def _is_share(design: Design, family: Family) -> bool:
    """Whether the response is proportions whose weights are their trials, as R's binomial has them."""
    y, counts = design.y, design.y * design.weights
    possible = family.needs_trials and design.trials is None and design.response_levels is None
    if not possible or np.any((y < 0.0) | (y > 1.0)) or np.array_equal(y, np.round(y)):
        return False
    return bool(np.all(np.abs(counts - np.round(counts)) < _WHOLE))


def _of_trials(formula: Formula, weights: str) -> Formula:
    """Return the formula of a proportion as one of its counts: `k / n` of weights `n` as `round(k / n * n) | trials(n)`."""
    response, trials = formula.text.partition("~")[0].strip(), quote_name(weights)
    text = f"round(({response}) * {trials}) | trials({trials}) ~ {formula.text.partition('~')[2].strip()}"
    return parse(text, parameters=formula.sources, dialect=formula.dialect)


def _levels(design: Design, family: Family) -> int:
    """Return the number of levels of an ordered response."""
    if design.response_levels is None or len(design.response_levels) < 2:
        raise DataError(
            f"family {family.name!r} needs {family.response}, two at least; make the response '{design.response_name}' categorical "
            "(`pandas.Categorical(values, categories=[...], ordered=True)`)",
            column=design.response_name,
        )
    return len(design.response_levels)


def _check_response(design: Design, family: Family) -> None:
    """Refuse a response that the family cannot have, naming the rows."""
    name = design.response_name
    if design.trials is not None and not family.needs_trials:
        raise DataError(
            f"a response of successes and trials needs family='binomial', or 'beta_binomial', 'zero_inflated_binomial', "
            f"not {family.name!r}",
            column=name,
        )
    if design.response_levels is not None and not family.takes_levels:
        raise DataError(
            f"the response '{name}' is a factor ({', '.join(design.response_levels[:4])}); family {family.name!r} needs {family.response}; "
            "for two levels use family='bernoulli'",
            column=name,
        )
    if design.response_levels is not None and family.of_levels is None and len(design.response_levels) != 2:
        count = len(design.response_levels)
        raise DataError(f"the response '{name}' has {count} level{'s' * (count != 1)} in the rows that are used; it needs two", column=name)
    bad = family.check(design.y, design.trials) | (family.discrete & (np.abs(design.y) > _LARGEST_COUNT))
    if np.any(bad):
        raise DataError(
            f"the response '{name}' has values that family {family.name!r} cannot have ({_shown(design, bad)}); "
            f"it needs {family.response}{_hint(design, family, bad)}",
            column=name,
            rows=list(design.index[bad]),
        )
    if not family.discrete and design.n > 1 and np.ptp(design.y) == 0:
        raise DataError(f"the response '{name}' is constant ({design.y[0]:g}); there is nothing to fit", column=name)


def _shown(design: Design, bad: Any) -> str:
    """Return the first few values at fault, as `7 of 5` where there are trials."""
    if design.trials is None:
        return ", ".join(f"{value:g}" for value in np.unique(design.y[bad])[:3])
    pairs = np.unique(np.column_stack([design.y[bad], design.trials[bad]]), axis=0)
    return ", ".join(f"{successes:g} of {trials:g}" for successes, trials in pairs[:3])


def _hint(design: Design, family: Family, bad: Any) -> str:
    """Say what values that are no whole numbers should have been."""
    if not family.discrete or np.array_equal(design.y[bad], np.round(design.y[bad])):
        return ""
    if family.takes_levels or family.needs_trials:
        return "; a proportion becomes its counts, `cbind(successes, failures)` with family='binomial', or `weights=` names its trials"
    return "; a rate becomes its count, with `offset(log(exposure))` in the formula"


def _check_parameters(design: Design, family: Family) -> None:
    """Refuse a predictor of a parameter that the family does not have."""
    known = [parameter.name for parameter in family.parameters if family.of_levels is None]
    for name in design.parameters:
        if name not in known:
            raise FitError(f"family {family.name!r} has no parameter '{name}'{suggest(name, known)}")


def _check_known_errors(design: Design, family: Family) -> None:
    """Refuse known standard errors where no parameter is one, or has a predictor."""
    if family.scale is None:
        raise FitError(f"se() gives the standard errors of normal or Student's t responses; family {family.name!r} has none")
    if family.scale in design.parameters:
        raise FitError(f"the standard errors are known, by se(): leave out the predictor of {family.scale}")


def _with_correlation(family: Family, link: Link, design: Design, dialect: str) -> Family:
    """Return the family with the correlation of its residuals as a further parameter, where the formula has one."""
    if design.series is None:
        return family
    structure = residual_of(design.series)
    if not family.correlates:
        raise FitError(f"{structure.name}() correlates normal residuals; family {family.name!r} has none: leave it out, or use 'gaussian'")
    if link.name != "identity":
        raise FitError(f"{structure.name}() is for the identity link, not {link.name!r}; leave it out")
    if design.has_weights and dialect == "brms":
        raise FitError(
            "in the dialect 'brms' weights are powers of each row's likelihood, which correlated rows do not have; use dialect='lme4'"
        )
    more = Parameter(name=structure.name, lower=structure.lower, upper=structure.upper, link=structure.link, prior=structure.prior)
    return replace(family, parameters=(*family.parameters, more))


def _check_sizes(design: Design) -> None:
    """Refuse numbers whose squares would over- or underflow."""
    blocks = [block for _, part in design.parameters.items() for block in part[1]]
    matrices = [(design.fixed.names, design.X), *((fixed.names, fixed.X) for fixed, _ in design.parameters.values())]
    matrices += [(block.effects, block.values) for block in (*design.blocks, *blocks)]
    matrices += [((design.response_name,), design.y[:, None]), (("the offset",), design.offset[:, None])]
    for names, values in matrices:
        largest = np.maximum(values.max(axis=0, initial=0.0), -values.min(axis=0, initial=0.0))
        for name, size in zip(names, largest.tolist(), strict=True):
            if size > _LARGEST or 0.0 < size < 1.0 / _LARGEST:
                raise DataError(
                    f"values of '{name}' (up to {size:.3g}) are too large or too small to compute with; rescale them", column=name
                )


def _notices(design: Design, family: Family) -> list[tuple[str, str]]:
    """Return code and message of what was left out of the model, and of what the data cannot tell."""
    used = f"{design.n} of {len(design.kept)} rows are used"
    dropped = [*design.fixed.dropped, *(f"{name}_{term}" for name, (fixed, _) in design.parameters.items() for term in fixed.dropped)]
    found = []
    if design.missing:
        found.append(("missing", f"rows were left out for missing values in {_listed(design.missing)}; {used}"))
    if design.excluded:
        found.append(("excluded", f"rows were left out that say nothing: {_listed(design.excluded)}; {used}"))
    if dropped:
        remedy = "take them out of the formula (where a predictor lies far from zero compared to its range, subtract its mean first)"
        found.append(
            ("rank_deficient", f"left out of the fixed effects, as combinations of earlier columns: {', '.join(dropped)}; {remedy}")
        )
    if family.discrete and _is_extreme(design, family):
        what = f"the response '{design.response_name}' is the same extreme in every row (no success, no failure, or no count)"
        found.append(("constant_response", f"{what}: only priors keep the estimates finite"))
    return found


def _is_extreme(design: Design, family: Family) -> bool:
    full = 1.0 if design.trials is None else design.trials
    return not design.y.any() or (family.takes_levels and bool(np.all(design.y == full)))


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counts.items())
