"""`Model`: what is fitted, before any fitting; the noun that formula, data, family, structures and priors meet at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm import families, priors
from bayeslmm.covariance import STRUCTURES
from bayeslmm.data import to_pandas
from bayeslmm.design import encode
from bayeslmm.errors import DataError, FitError, FormulaError, suggest
from bayeslmm.explain import Explanation, explanation
from bayeslmm.formula import Formula, parse, with_dialect

if TYPE_CHECKING:
    import pandas as pd

    from bayeslmm.design import Design
    from bayeslmm.families.base import Family, Link
    from bayeslmm.priors import PriorRow

__all__ = ["DIALECTS", "Dims", "Model", "as_model", "default_priors", "model"]

DIALECTS = ("lme4", "brms")


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


@dataclass(frozen=True, slots=True, kw_only=True)
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
    prior_rows
        All priors as rows: the visible defaults, overlaid by the user's.
    frame
        The user's data as a pandas frame, all rows.
    dialect
        Whose semantics decide where R packages disagree: `"lme4"` or `"brms"`.
    """

    formula: Formula
    design: Design
    family: Family
    link: Link
    prior_rows: tuple[PriorRow, ...]
    frame: pd.DataFrame
    dialect: str

    @property
    def priors(self) -> pd.DataFrame:
        """All priors: a frame `part, group, term, prior, source`."""
        return priors.priors_table(self.prior_rows)

    @property
    def dims(self) -> Dims:
        """Sizes: `n p q k n_theta` and levels per group."""
        design = self.design
        n_theta = sum(STRUCTURES[block.structure].n_theta(block.n_effects) for block in design.blocks)
        return Dims(n=design.n, p=design.p, q=design.q, k=len(design.blocks), n_theta=n_theta, levels=design.ngroups)

    def explain(self) -> Explanation:
        """Return the expanded terms, sizes, rank of X, groups and the model as LaTeX mathematics; it prints as text."""
        labels = {block.name: STRUCTURES[block.structure].labels(block.effects) for block in self.design.blocks}
        return explanation(self.formula, self.design, self.family, self.link, self.dialect, labels)

    def to_pymc(self) -> Any:
        """Return the model as a `pymc.Model` with named dimensions and coordinates."""
        from bayeslmm.bayes.translate import translate

        return translate(self)

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
        A column's name or an array of the data's length (default: ones, zeros).
    contrasts
        Column -> `"treatment" "sum" "helmert" "poly"` (R's `"contr.sum"` too) or a matrix (levels x columns).
    data2
        Named matrices for known covariances; reserved, as `gr(g, cov = K)` cannot be fitted yet.
    na
        `"omit"` drops rows with a missing value and says so; `"raise"` refuses them.
    dialect
        `"lme4"` or `"brms"`: decides where R packages disagree, as in the meaning of `||`.

    Returns
    -------
    Model

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
    if data2:
        raise FitError("data2 holds matrices for `gr(g, cov = K)`, which cannot be fitted yet; leave it out")
    record = families.family_named(family)
    link_record = families.link_named(link or record.link, record)
    parsed = parse(formula, dialect=dialect) if isinstance(formula, str) else with_dialect(formula, dialect)
    if parsed.response is None:
        raise FormulaError("the formula has no response; write `y ~ ...`", text=parsed.text)
    frame = to_pandas(data)
    design = encode(parsed, frame, contrasts=contrasts, weights=weights, offset=offset, na=na)
    _check_response(design, record)
    rows = _prior_rows(design, record, link_record, priors)
    return Model(formula=parsed, design=design, family=record, link=link_record, prior_rows=rows, frame=frame, dialect=dialect)


def as_model(formula: str | Formula | Model, data: Any, family: str = "gaussian", **options: Any) -> Model:
    """Return `formula` itself where it is a ready `Model`, else `model(formula, data, family, **options)`."""
    if isinstance(formula, Model):
        if data is not None:
            raise FitError("a ready Model holds its data already; pass either a Model or a formula with data")
        return formula
    if data is None:
        raise DataError("no data given; pass a data frame after the formula")
    return model(formula, data, family, **options)


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
        If the style is unknown.

    Examples
    --------
    >>> import bayeslmm as bl
    >>> m = bl.model("Reaction ~ Days + (Days | Subject)", bl.load_dataset("sleepstudy"))
    >>> [row.part for row in bl.default_priors(m, "brms")][:2]
    ['intercept', 'fixed']
    """
    return list(priors.default_rows(model.design, model.family, model.link, style))


def _prior_rows(design: Design, family: Family, link: Link, user: Sequence[PriorRow] | None) -> tuple[PriorRow, ...]:
    defaults = priors.default_rows(design, family, link, "weak")
    return tuple(priors.overlay(defaults, tuple(user or ()), design, family))


def _check_response(design: Design, family: Family) -> None:
    """Refuse a response that the family cannot have, naming the rows."""
    name = design.response_name
    if design.trials is not None and not family.needs_trials:
        raise DataError(f"a response of successes and trials needs family='binomial', not {family.name!r}", column=name)
    if design.response_levels is not None and not family.takes_levels:
        raise DataError(
            f"the response '{name}' is a factor ({', '.join(design.response_levels[:4])}); family {family.name!r} needs {family.response}; "
            "for two levels use family='bernoulli'",
            column=name,
        )
    bad = family.check(design.y, design.trials)
    if np.any(bad):
        shown = ", ".join(f"{value:g}" for value in np.unique(design.y[bad])[:3])
        raise DataError(
            f"the response '{name}' has values that family {family.name!r} cannot have ({shown}); it needs {family.response}",
            column=name,
            rows=list(design.index[bad]),
        )
    if family.scale is not None and design.n > 1 and np.ptp(design.y) == 0:
        raise DataError(f"the response '{name}' is constant ({design.y[0]:g}); there is nothing to fit", column=name)
