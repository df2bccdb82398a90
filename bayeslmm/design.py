"""Formula and frame -> `Design` (y, X, sparse Z, weights, offset), and the `Encoder` that re-encodes new data."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from bayeslmm.data import read_column, to_pandas
from bayeslmm.errors import DataError, DataWarning, FormulaError, suggest
from bayeslmm.formula import Formula, deparse, expand_dot, parse
from bayeslmm.formula.contrasts import contrast_spec
from bayeslmm.formula.evaluate import Scope, columns_in, evaluate
from bayeslmm.formula.nodes import Call, Literal, Name, Node, Predictor, RandomTerm, Response, SeriesTerm, Term, names_in, parts_in
from bayeslmm.formula.values import MISSING, Factor, Numbers, as_factor, drop_unused, frozen, recode
from bayeslmm.known import Known, Relationship, known_among, relationships
from bayeslmm.model_matrix import FactorCoding, Matrix, build_matrix, full_rank_columns
from bayeslmm.random_blocks import (
    RandomBlock,
    check_groups,
    crossed,
    group_table,
    make_block,
    nesting,
    ordered,
    sparse_Z,
    weak_groups,
)
from bayeslmm.series import Series, make_series, order_within

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

__all__ = [
    "Design",
    "Encoder",
    "FixedPart",
    "NewRows",
    "RandomBlock",
    "check_groups",
    "encode",
    "group_table",
    "nesting",
    "weak_groups",
    "without_intercept",
]

type Array = np.ndarray

INTERCEPT = "(Intercept)"
MEAN = ""
"""The key of the mean's predictor among those of further parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedPart:
    """A fixed-effects matrix: `X` (n, p) after dropping, `names` (p,), `assign` (p,) term number (0: intercept).

    `terms` are the term labels, `dropped` the names of rank-deficient columns that were left out.
    """

    X: Array
    names: tuple[str, ...]
    assign: tuple[int, ...]
    terms: tuple[str, ...]
    dropped: tuple[str, ...] = ()


type Part = tuple[FixedPart, tuple[RandomBlock, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """All that estimation needs of the data, for the kept rows, read-only.

    `y` (n,): the response; successes where `trials` (n,) is given; codes 0, 1, ... for a factor (`response_levels`).
    `weights` (n,) (ones where none), `offset` (n,) (zeros where none), both on kept rows.
    `index`: the kept rows' labels; `kept` (N,) mask over the frame's rows; `missing`: column -> number of rows without it;
    `excluded`: `zero weight`, `no trials` -> number of complete rows left out because they say nothing.
    `parameters`: designs of further distributional parameters (`sigma`, `zi`, ...), each `(FixedPart, blocks)`.
    `series`: the rows' series where the formula has a correlation of residuals, `ar(time, gr)`.
    """

    y: Array
    trials: Array | None
    fixed: FixedPart
    blocks: tuple[RandomBlock, ...]
    weights: Array
    offset: Array
    index: pd.Index
    kept: Array
    missing: Mapping[str, int]
    response_name: str
    response_levels: tuple[str, ...] | None
    has_weights: bool
    has_offset: bool
    encoder: Encoder
    parameters: Mapping[str, Part] = field(default_factory=lambda: MappingProxyType({}))
    excluded: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    series: Series | None = None

    @property
    def X(self) -> Array:
        """The fixed-effects matrix, dense (n, p)."""
        return self.fixed.X

    @property
    def fixed_names(self) -> tuple[str, ...]:
        """Names of the columns of X, as R's `model.matrix` has them."""
        return self.fixed.names

    @property
    def Z(self) -> sp.csc_array:
        """The random-effects matrix, sparse (n, q); built anew at each call, in time of its non-zeros."""
        return sparse_Z(self.blocks, self.n)

    @property
    def n(self) -> int:
        """Number of rows used."""
        return len(self.index)

    @property
    def known_errors(self) -> bool:
        """Whether the standard error of each row is known, `y | se(s)`: `weights` are then their inverse squares, and sigma is 1."""
        response = self.encoder.formula.response
        return response is not None and response.se is not None

    @property
    def lost(self) -> dict[str, int]:
        """Why rows were left out -> how many: `missing values`, then the reasons of `excluded`; only those that occurred."""
        missing = len(self.kept) - self.n - sum(self.excluded.values())
        return {reason: count for reason, count in {"missing values": missing, **self.excluded}.items() if count}

    @property
    def p(self) -> int:
        """Number of fixed effects, after dropping."""
        return len(self.fixed.names)

    @property
    def q(self) -> int:
        """Number of random effects, the columns of Z."""
        return sum(block.n_levels * block.n_effects for block in self.blocks)

    @property
    def ngroups(self) -> dict[str, int]:
        """Grouping factor -> number of levels."""
        return {block.group: block.n_levels for block in self.blocks}


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRows:
    """New data in the coding of a fit, all rows kept: NaN in `X`, `offset` and `values` where a predictor is missing.

    `blocks`: as in the fit, `index` -1 where the level is new or missing. `unseen`: block's name -> `(labels, index)`, the
    new levels and, by row, the position among them (-1: none), so that rows of one new level can share an effect.
    `y`: where the response was asked for. `trials`: then, and where their columns are there. `weights` (n,): ones where none.
    `series`: where it was asked for, and the formula has a correlation of residuals.
    """

    X: Array
    fixed_names: tuple[str, ...]
    offset: Array
    blocks: tuple[RandomBlock, ...]
    unseen: Mapping[str, tuple[tuple[str, ...], Array]]
    index: pd.Index
    weights: Array
    y: Array | None = None
    trials: Array | None = None
    parameters: Mapping[str, Part] = field(default_factory=lambda: MappingProxyType({}))
    series: Series | None = None

    @property
    def n(self) -> int:
        """Number of rows."""
        return len(self.index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a fit remembers of a column: `kind` is `number`, `logical` or `factor`, the last with all its levels."""

    kind: str
    levels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCoding:
    """What a fit remembers of a random block: which of the predictor's random terms it is, its name, levels and their covariance."""

    position: int
    name: str
    levels: tuple[str, ...]
    known: Known | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """How a fit coded its columns: plain data (see `to_dict`), without the rows, enough to code new ones alike.

    `columns`: by name. `states`: what stateful functions remember, by call. `factors`: coding of factors, by label.
    `contrasts`: what the user asked for, by column or label. `kept`: parameter ("" is the mean) -> positions of the columns
    of X that were not dropped. `blocks`: parameter -> its random blocks in order. `weights`, `offset`: the columns given as
    arguments; `array_offset`: whether the offset was given as an array, which new data cannot have;
    `thresholds`: whether the mean has no column of ones, thresholds being in its place (positions count without it).
    """

    formula: Formula
    columns: Mapping[str, Column]
    states: Mapping[str, Mapping[str, Any]]
    factors: Mapping[str, FactorCoding]
    contrasts: Mapping[str, Any]
    kept: Mapping[str, tuple[int, ...]]
    blocks: Mapping[str, tuple[BlockCoding, ...]]
    response_levels: tuple[str, ...] | None
    weights: str | None
    offset: str | None
    array_offset: bool
    thresholds: bool = False

    @property
    def relationships(self) -> dict[str, Relationship]:
        """The matrices of `data2` that its terms name, by name; `encode` and `model` take them as they are."""
        return {
            coding.known.relationship.name: coding.known.relationship
            for codings in self.blocks.values()
            for coding in codings
            if coding.known
        }

    def encode_new(self, newdata: Any, *, random: bool = True, need_response: bool = False, series: bool = False) -> NewRows:
        """Code new rows as the fit coded its own.

        Parameters
        ----------
        newdata
            Any frame that `to_pandas` reads, also of no rows; it needs the predictors only.
        random
            Whether the groups of the rows are wanted; without them grouping columns may be absent and every index is -1.
        need_response
            Whether the response is wanted, and so must be there.
        series
            Whether the series of correlated residuals are wanted; without them the columns of time and series may be absent.

        Raises
        ------
        DataError
            If a column is missing or of another kind than in the fit, or a fixed factor has a level without rows in the fit.

        Examples
        --------
        >>> import pandas as pd
        >>> from bayeslmm.formula import parse
        >>> data = pd.DataFrame({"y": [1.0, 2.0, 4.0], "x": [0.0, 1.0, 2.0]})
        >>> encode(parse("y ~ x"), data).encoder.encode_new({"x": [5.0]}).X.tolist()
        [[1.0, 5.0]]
        """
        rows = _encode_new(self, to_pandas(newdata), random, need_response)
        return replace(rows, series=_new_series(self, to_pandas(newdata))) if series else rows

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON-able data: the formula's text, numbers, names."""
        return _encoder_to_dict(self)

    @staticmethod
    def from_dict(plain: Mapping[str, Any]) -> Encoder:
        """Return the encoder that `to_dict` wrote.

        Raises
        ------
        DataError
            If the data are not those of an encoder.
        """
        try:
            return _encoder_from_dict(plain)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise DataError(f"not the data of an encoder: {type(error).__name__}: {error}") from error


# The rows of a fit -----------------------------------------------------------------------------------------------------


def encode(
    formula: Formula,
    frame: Any,
    *,
    contrasts: Mapping[str, Any] | None = None,
    weights: str | Any | None = None,
    offset: str | Any | None = None,
    data2: Mapping[str, Any] | None = None,
    na: str = "omit",
    need_response: bool = True,
    states: Mapping[str, Mapping[str, Any]] | None = None,
) -> Design:
    """Code the rows of a frame for a formula, as lme4 does.

    Parameters
    ----------
    formula
        A parsed formula.
    frame
        Any frame that `to_pandas` reads.
    contrasts
        Column (or label, as `factor(x)`) -> contrast of a fixed factor; as in lme4, random effects keep the default.
    weights, offset
        A column's name or an array, one value a row of `frame`; the offset adds to those of the formula.
    data2
        Name -> covariance matrix among levels, for `gr(g, cov = name)`, as `bayeslmm.known.relationships` takes them.
    na
        `"omit"`: rows that lack a value of any column used are left out and counted; `"raise"`: they are refused. Rows of
        weight zero or of no trials, which say nothing, are left out and counted in either case.
    need_response
        False where a design is wanted of a formula without a response: `y` is then NaN.
    states
        What stateful functions remember of another fit (`Encoder.states`): `scale(x)` in it then means what it meant there.

    Raises
    ------
    DataError
        If a column is missing, of a kind that cannot be used, or not finite; if a factor has one level; if two coefficients
        would have one name; if no row is left.
    FormulaError
        If the formula has no term at all, the response among its predictors, or an offset in that of a further parameter.

    Source: Bates et al. (2015), J. Stat. Softw. 67(1), section 2; R's `model.frame` and `model.matrix`.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayeslmm.formula import parse
    >>> data = pd.DataFrame({"y": [1.0, 2.0, 4.0, 3.0], "x": [0.0, 1.0, 0.0, 1.0], "g": ["a", "a", "b", "b"]})
    >>> design = encode(parse("y ~ x + (1 | g)"), data)
    >>> design.fixed_names, design.ngroups
    (('(Intercept)', 'x'), {'g': 2})
    """
    table = to_pandas(frame)
    formula = expand_dot(formula, table.columns.tolist())
    _check_formula(formula, need_response)
    _check_constants(formula, table)
    given = {"weights": _argument(weights, table, "weights"), "offset": _argument(offset, table, "offset")}
    arrays = {name: values for name, values in given.items() if values is not None}
    raw = {name: read_column(table, name) for name in _columns_used(formula, random=True, response=need_response)}
    kept, missing = _complete_rows(raw, arrays, table, na)
    _check_finite(raw, arrays, kept, table)
    fitted = dict(states or {})
    scope = Scope(read=raw.__getitem__, states=fitted, fitting=True, rows=table.index, text=formula.text, complete=kept)
    kept, excluded = _informative_rows(given["weights"], formula.response if need_response else None, scope, kept)
    source = _Source(scope=scope, size=len(table), kept=None if kept.all() else kept)
    coder = _Coder(source=source, contrasts=_contrast_specs(contrasts), relationships=relationships(data2, _covariances(formula)))
    parts = {name: _fit_part(coder, predictor) for name, predictor in _predictors(formula)}
    _check_contrasts(coder)
    y, trials, levels = _fit_response(formula.response, source) if need_response else (np.full(source.n, np.nan), None, None)
    weight = _row_weights(given["weights"], formula.response, source)
    shift = _row_offset(given["offset"], formula.mean.offsets, source)
    encoder = Encoder(
        formula=formula,
        columns=MappingProxyType({name: _remembered(value) for name, value in raw.items()}),
        states=MappingProxyType(fitted),
        factors=MappingProxyType(coder.factors),
        contrasts=MappingProxyType(coder.contrasts),
        kept=MappingProxyType({name: part.kept for name, part in parts.items()}),
        blocks=MappingProxyType({name: part.codings for name, part in parts.items()}),
        response_levels=levels,
        weights=weights if isinstance(weights, str) else None,
        offset=offset if isinstance(offset, str) else None,
        array_offset=offset is not None and not isinstance(offset, str),
    )
    return Design(
        y=_own(y),
        trials=None if trials is None else _own(trials),
        fixed=parts[MEAN].fixed,
        blocks=parts[MEAN].blocks,
        weights=_own(np.ones(source.n) if weight is None else weight),
        offset=_own(np.zeros(source.n) if shift is None else shift),
        index=table.index if source.kept is None else table.index[kept],
        kept=frozen(kept),
        missing=MappingProxyType(missing),
        excluded=MappingProxyType(excluded),
        response_name="" if formula.response is None else formula.response.label,
        response_levels=levels,
        has_weights=weight is not None,
        has_offset=shift is not None,
        encoder=encoder,
        parameters=MappingProxyType({name: (part.fixed, part.blocks) for name, part in parts.items() if name != MEAN}),
        series=_series(formula.mean.series, source),
    )


def without_intercept(design: Design) -> Design:
    """Return the design without the mean's column of ones, whose place the thresholds of an ordered response take.

    Raises
    ------
    FormulaError
        If there is no such column: `0 + x` with thresholds would code the factors by every level.
    """
    fixed, encoder = design.fixed, design.encoder
    if INTERCEPT not in fixed.names:
        raise FormulaError("thresholds stand for the intercept of an ordered response; leave `0 +` out of the formula")
    rest = [i for i, name in enumerate(fixed.names) if name != INTERCEPT]
    kept = tuple(encoder.kept[MEAN][i] - 1 for i in rest)
    return replace(
        design,
        fixed=replace(
            fixed,
            X=frozen(np.ascontiguousarray(fixed.X[:, rest])),
            names=tuple(fixed.names[i] for i in rest),
            assign=tuple(fixed.assign[i] for i in rest),
        ),
        encoder=replace(encoder, kept=MappingProxyType({**encoder.kept, MEAN: kept}), thresholds=True),
    )


def _check_formula(formula: Formula, need_response: bool) -> None:
    if formula.response is None and need_response:
        raise FormulaError("the formula has no response; write `y ~ ...`", text=formula.text)
    mean = formula.mean
    if not (mean.terms or mean.intercept or mean.random):
        raise FormulaError("the model is empty: it has no intercept, no term and no random effect", text=formula.text)
    for name, predictor in formula.parameters.items():
        if predictor.series is not None:
            raise FormulaError(f"{predictor.series.name}() in the predictor of {name} has no meaning; put it in that of the mean")
        if predictor.offsets:
            raise FormulaError(f"an offset in the predictor of {name} is not available; put it in the predictor of the mean")
    _check_circular(formula)


def _check_circular(formula: Formula) -> None:
    """Refuse the response among its own predictors: as it stands or, where it is a plain column, inside of anything.

    A part of it may be there, as in `y - base ~ base`. (R drops a term that is the response, warns, and keeps all else.)
    """
    if formula.response is None or formula.response.kind == "cbind":
        return
    response, mean = formula.response.nodes[0], formula.mean
    label = deparse(response)
    terms = [*mean.terms, *(effect for bar in mean.random for effect in bar.effects)]
    nodes = [
        *(variable for term in terms for variable in term.variables),
        *mean.offsets,
        *(part for bar in mean.random for part in bar.group),
    ]
    for node in nodes:
        if deparse(node) == label or (isinstance(response, Name) and response.name in names_in(node)):
            where = "" if deparse(node) == label else f", in {deparse(node)}"
            raise FormulaError(f"the response {label} is on the right side too{where}; take it out there", text=formula.text)


def _predictors(formula: Formula) -> list[tuple[str, Predictor]]:
    return [(MEAN, formula.mean), *formula.parameters.items()]


def _columns_used(formula: Formula, *, random: bool, response: bool) -> list[str]:
    return list(dict.fromkeys(name for node in _nodes_used(formula, random=random, response=response) for name in columns_in(node)))


def _nodes_used(formula: Formula, *, random: bool, response: bool) -> list[Node]:
    nodes: list[Node] = []
    if response and formula.response is not None:
        additions = (formula.response.weights, formula.response.se)
        nodes += [*formula.response.nodes, *(node for node in additions if node is not None)]
    for _, predictor in _predictors(formula):
        nodes += [variable for term in predictor.terms for variable in term.variables] + list(predictor.offsets)
        nodes += predictor.series.nodes if random and predictor.series is not None else ()
        for bar in predictor.random if random else ():
            nodes += [variable for term in bar.effects for variable in term.variables] + list(bar.group)
    return nodes


def _check_constants(formula: Formula, table: pd.DataFrame) -> None:
    """Refuse `pi` in a call where a column has that name: R would read the column."""
    nodes = (node for whole in _nodes_used(formula, random=True, response=True) for node in parts_in(whole))
    for node in nodes:
        if isinstance(node, Literal) and not isinstance(node.value, bool) and node.text in table.columns:
            raise DataError(f"'{node.text}' in a call is a number, but a column has that name too; rename the column", column=node.text)


def _argument(given: Any, table: pd.DataFrame, what: str) -> Array | None:
    """Return the values of `weights=` or `offset=` for all rows of the frame."""
    if given is None:
        return None
    if isinstance(given, str):
        value = read_column(table, given)
        if not isinstance(value, Numbers):
            raise DataError(f"{what}: column '{given}' holds categories; it must hold numbers", column=given)
        return value.values
    _check_aligned(given, table, what)
    try:
        values = np.asarray(given, dtype=None if np.iscomplexobj(given) else np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{what} must be a column's name or an array of numbers, not {type(given).__name__}") from error
    if values.dtype.kind == "c":
        raise DataError(f"{what} must be a column's name or an array of numbers, not of complex ones")
    if values.shape != (len(table),):
        raise DataError(f"{what} has shape {values.shape}, but the data have {len(table)} rows; give one value a row")
    return values


def _check_aligned(given: Any, table: pd.DataFrame, what: str) -> None:
    import pandas as pd

    if isinstance(given, pd.Series) and not given.index.equals(table.index):
        raise DataError(f"{what} is a series whose index is not that of the data; pass {what}.to_numpy() to take it row by row")


def _missing(value: Numbers | Factor) -> Array:
    return value.codes == MISSING if isinstance(value, Factor) else np.isnan(value.values)


def _complete_rows(
    raw: Mapping[str, Numbers | Factor], arrays: Mapping[str, Array], table: pd.DataFrame, na: str
) -> tuple[Array, dict[str, int]]:
    """Return the mask of rows without a missing value, and how many each column lacks."""
    if na not in ("omit", "raise"):
        raise DataError(f"na must be 'omit' or 'raise', not {na!r}")
    if len(table) == 0:
        raise DataError("the data have no rows")
    kept = np.ones(len(table), dtype=bool)
    missing: dict[str, int] = {}
    masks = [(name, _missing(value)) for name, value in raw.items()] + [(name, np.isnan(values)) for name, values in arrays.items()]
    for name, mask in masks:
        if mask.any():
            missing[name] = int(mask.sum())
            kept &= ~mask
    shown = ", ".join(f"{name} ({count})" for name, count in missing.items())
    if missing and na == "raise":
        raise DataError(f"missing values in {shown}; fill or drop them, or use na='omit'", rows=table.index[~kept].tolist())
    if kept.sum() < 2:
        lost = f" after dropping rows with missing values in {shown}" if missing else ""
        raise DataError(f"{kept.sum()} of {len(table)} rows can be used{lost}; a model needs at least 2")
    return kept, missing


def _check_finite(raw: Mapping[str, Numbers | Factor], arrays: Mapping[str, Array], kept: Array, table: pd.DataFrame) -> None:
    columns = [(name, value.values) for name, value in raw.items() if isinstance(value, Numbers)]
    for name, values in [*columns, *arrays.items()]:
        infinite = np.isinf(values)
        if infinite.any() and (infinite & kept).any():
            rows = table.index[infinite & kept].tolist()
            raise DataError(f"column '{name}' has infinite values; replace or drop them", column=name, rows=rows)


def _informative_rows(weights: Array | None, response: Response | None, scope: Scope, kept: Array) -> tuple[Array, dict[str, int]]:
    """Leave out complete rows of weight zero or of no trials; return the mask, and how many went for which reason."""
    complete = _Source(scope=scope, size=len(kept), kept=kept)
    factors = {
        "zero weight": _row_weights(weights, response, complete),
        "no trials": None if response is None or response.kind == "plain" else _trials(response.nodes, response.kind, complete),
    }
    left = np.ones(complete.n, dtype=bool)
    excluded: dict[str, int] = {}
    for reason, values in factors.items():
        empty = np.zeros(complete.n, dtype=bool) if values is None else values == 0
        if empty.all():
            raise DataError(f"every row has {reason}; no row is left to fit")
        if empty.any():
            excluded[reason] = int((left & empty).sum())
            left &= ~empty
    if excluded and left.sum() < 2:
        raise DataError(f"{left.sum()} of {len(kept)} rows can be used; a model needs at least 2")
    informative = kept.copy()
    informative[kept] = left
    return informative, excluded


def _contrast_specs(contrasts: Mapping[str, Any] | None) -> dict[str, Any]:
    if contrasts is not None and not isinstance(contrasts, Mapping):
        raise DataError(f"contrasts is a dict of column -> contrast, as {{'f': 'sum'}}, not {type(contrasts).__name__}")
    return {name: contrast_spec(spec) for name, spec in (contrasts or {}).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """Where a design's variables come from: a scope, the number of its rows, and which of them are kept (None: all)."""

    scope: Scope
    size: int
    kept: Array | None
    cache: dict[str, Numbers | Factor] = field(default_factory=dict)

    @property
    def n(self) -> int:
        return self.size if self.kept is None else int(np.count_nonzero(self.kept))

    def value(self, node: Node) -> Numbers | Factor:
        """Return a node's values on the kept rows; a constant becomes a column."""
        label = deparse(node)
        if label not in self.cache:
            self.cache[label] = self._taken(evaluate(node, self.scope), label)
        return self.cache[label]

    def numbers(self, node: Node, what: str) -> Array:
        """Return a node's values (n,), which must be numbers."""
        value = self.value(node)
        if not isinstance(value, Numbers):
            raise DataError(f"the {what} '{deparse(node)}' holds categories; it must hold numbers", column=deparse(node))
        if value.values.ndim != 1:
            raise DataError(f"the {what} '{deparse(node)}' has {value.values.shape[1]} columns; it must have one", column=deparse(node))
        return value.values

    def take(self, values: Array) -> Array:
        return values if self.kept is None else values[self.kept]

    def _check_levels(self, factor: Factor, label: str) -> None:
        """Refuse `factor(x, levels = ...)` that leaves out values of x: in a fit they would be missing."""
        if self.scope.fitting and factor.codes.size and factor.codes.min() < 0:
            rows = self.take(np.asarray(self.scope.rows))[factor.codes < 0].tolist()
            raise DataError(f"'{label}' has no level for some rows; name all levels, or drop those rows first", column=label, rows=rows)

    def _taken(self, value: Any, label: str) -> Numbers | Factor:
        if isinstance(value, Factor):
            factor = value if self.kept is None else replace(value, codes=self.take(value.codes))
            self._check_levels(factor, label)
            return factor
        if isinstance(value, Numbers):
            return value if self.kept is None else replace(value, values=value.values[self.kept])
        if isinstance(value, int | float):
            return Numbers(values=np.full(self.n, float(value)), logical=isinstance(value, bool))
        raise FormulaError(f"'{label}' is no column and no number, so it cannot be a variable of the model")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Coder:
    """What gathers while the parts of a design are made: the coding of each factor, by label."""

    source: _Source
    contrasts: dict[str, Any]
    relationships: Mapping[str, Relationship]
    factors: dict[str, FactorCoding] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _PartFit:
    """One predictor on data, and what its encoder remembers."""

    fixed: FixedPart
    blocks: tuple[RandomBlock, ...]
    kept: tuple[int, ...]
    codings: tuple[BlockCoding, ...]


def _fit_part(coder: _Coder, predictor: Predictor) -> _PartFit:
    matrix = build_matrix(predictor.terms, predictor.intercept, _fit_values(coder, predictor.terms), _fixed_codings(coder), coder.source.n)
    kept = full_rank_columns(matrix.X)
    _check_names([matrix.names[i] for i in kept])
    terms = tuple(term.label for term in predictor.terms)
    _check_covariances(predictor.random)
    found = ordered(
        [_fit_block(coder, term, position) for position, term in enumerate(predictor.random) if not _repeated(predictor, position)]
    )
    codings = tuple(BlockCoding(position=position, name=block.name, levels=block.levels, known=block.known) for position, block in found)
    return _PartFit(
        fixed=_fixed_part(matrix, kept, terms),
        blocks=tuple(block for _, block in found),
        kept=tuple(kept.tolist()),
        codings=codings,
    )


def _check_names(names: Sequence[str]) -> None:
    """Refuse coefficients of one name, as of column `fb` and of level b of factor f: no table could tell them apart."""
    if len(set(names)) == len(names):
        return
    twice = next(name for name in names if names.count(name) > 1)
    raise DataError(f"two coefficients would be named '{twice}' (a column, and a level of a factor); rename one column", column=twice)


def _fixed_part(matrix: Matrix, kept: Array, terms: tuple[str, ...]) -> FixedPart:
    whole = len(kept) == len(matrix.names)
    chosen = set(kept.tolist())
    return FixedPart(
        X=frozen(matrix.X if whole else np.ascontiguousarray(matrix.X[:, kept])),
        names=tuple(matrix.names[i] for i in kept),
        assign=tuple(matrix.assign[i] for i in kept),
        terms=terms,
        dropped=() if whole else tuple(name for i, name in enumerate(matrix.names) if i not in chosen),
    )


def _fit_values(coder: _Coder, terms: Iterable[Term]) -> dict[str, Numbers | Factor]:
    """Return the variables of terms by label, logical ones as factors; remember the coding of every factor."""
    nodes = {deparse(node): node for term in terms for node in term.variables}
    return {label: _fit_variable(coder, label, coder.source.value(node)) for label, node in nodes.items()}


def _fit_variable(coder: _Coder, label: str, value: Numbers | Factor) -> Numbers | Factor:
    if isinstance(value, Numbers) and not value.logical:
        return value
    if isinstance(value, Numbers):
        factor = as_factor(value)
    else:
        factor = drop_unused(value)
        _check_factor(factor, label, coder.source.n)
    if label not in coder.factors:
        contrast = factor.contrast or ("poly" if factor.ordered else "treatment")
        coder.factors[label] = FactorCoding(levels=factor.levels, contrast=contrast)
    return factor


def _check_factor(factor: Factor, label: str, n: int) -> None:
    if len(factor.levels) < 2:
        only = f"only one level ('{factor.levels[0]}')" if factor.levels else "no level"
        raise DataError(f"factor '{label}' has {only} in the rows that are used; leave it out of the formula", column=label)
    if factor.text and 2 * len(factor.levels) > n and all(_is_number(level) for level in factor.levels):
        raise DataError(
            f"column '{label}' is text, but its {len(factor.levels)} values are all numbers; convert it to numbers, "
            "or to a category if each value is meant as a level",
            column=label,
        )


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _fixed_codings(coder: _Coder) -> dict[str, FactorCoding]:
    return {label: replace(coding, contrast=coder.contrasts.get(_bare(label), coding.contrast)) for label, coding in coder.factors.items()}


def _bare(label: str) -> str:
    return label[1:-1] if label.startswith("`") and label.endswith("`") else label


def _check_contrasts(coder: _Coder) -> None:
    known = [_bare(label) for label in coder.factors]
    for name in coder.contrasts:
        if name not in known:
            raise DataError(f"contrasts: '{name}' is no factor among the terms of the model{suggest(name, known)}", column=name)


# Random blocks ---------------------------------------------------------------------------------------------------------


def _repeated(predictor: Predictor, position: int) -> bool:
    """Return whether a random term stands earlier in the formula too, which lme4 could not identify; warn if so."""
    term = predictor.random[position]
    if _identity(term) not in {_identity(other) for other in predictor.random[:position]}:
        return False
    warnings.warn(DataWarning("repeated_random_term", f"({term.text.strip('()')}) stands twice in the formula; used once"), stacklevel=4)
    return True


def _identity(term: RandomTerm) -> tuple[object, ...]:
    return tuple(effect.label for effect in term.effects), term.intercept, term.group_label, term.structure, term.options, term.cov


def _covariances(formula: Formula) -> tuple[str, ...]:
    """Return the matrices of `data2` that random terms name."""
    return tuple(dict.fromkeys(bar.cov for _, predictor in _predictors(formula) for bar in predictor.random if bar.cov))


def _check_covariances(random: Sequence[RandomTerm]) -> None:
    """Refuse one factor under several covariances among its levels: their effects would bear one name."""
    first = {term.group_label: term for term in reversed(random)}
    for term in random:
        if term.cov != first[term.group_label].cov:
            column = term.group_label
            raise FormulaError(
                f"'{column}' stands in {first[column].text} and in {term.text}, with another covariance among its levels; copy the column "
                f"under another name and group one term by that, as (1 | gr({column}, cov = A)) + (1 | {column}2)"
            )


def _fit_block(coder: _Coder, term: RandomTerm, position: int) -> tuple[int, RandomBlock]:
    values = _fit_values(coder, term.effects)
    for node in term.group:
        _check_group(coder.source.value(node), deparse(node))
    group = drop_unused(crossed([as_factor(coder.source.value(node)) for node in term.group]))
    if len(set(group.levels)) < len(group.levels):
        raise DataError(f"two levels of '{term.group_label}' have one name because a level contains ':'; rename the levels")
    effects = build_matrix(term.effects, term.intercept, values, coder.factors, coder.source.n)
    _check_names(effects.names)
    known = known_among(coder.relationships[term.cov], group.levels, term.group_label) if term.cov else None
    return position, make_block(term, term.group_label, group, effects, known)


def _check_group(value: Numbers | Factor, label: str) -> None:
    if isinstance(value, Factor):
        return
    if value.values.ndim != 1:
        raise DataError(f"the grouping factor '{label}' has {value.values.shape[1]} columns; it must have one", column=label)
    if np.array_equal(value.values, np.floor(value.values)):
        return
    count = len(np.unique(value.values))
    if 2 * count > len(value.values):
        raise DataError(
            f"the grouping column '{label}' holds {count} different fractions in {len(value.values)} rows: a measurement, not a group",
            column=label,
        )


# Series ----------------------------------------------------------------------------------------------------------------


def _series(term: SeriesTerm | None, source: _Source) -> Series | None:
    """Return the rows' series of a residual term: one where it has no group; its rows in their order where it has no time."""
    if term is None:
        return None
    index = np.zeros(source.n, dtype=np.int64)
    for node in term.group:
        _check_group(source.value(node), deparse(node))
    if term.group:
        index = drop_unused(crossed([as_factor(source.value(node)) for node in term.group])).codes.astype(np.int64)
    time = order_within(index) if term.time is None else source.numbers(term.time, "time")
    return make_series(term, index, time, source.take(np.asarray(source.scope.rows, dtype=object)))


def _new_series(encoder: Encoder, table: pd.DataFrame) -> Series | None:
    return _series(encoder.formula.mean.series, _new_source(replace(encoder, columns=MappingProxyType({})), table, {}))


# Response, weights, offset ---------------------------------------------------------------------------------------------


def _fit_response(response: Response | None, source: _Source) -> tuple[Array, Array | None, tuple[str, ...] | None]:
    """Return `(y, trials, levels)`: successes and trials of `cbind` and `trials`, codes of a factor."""
    if response is None:
        raise FormulaError("the formula has no response; write `y ~ ...`")
    if response.kind != "plain":
        return source.numbers(response.nodes[0], "response"), _trials(response.nodes, response.kind, source), None
    value = source.value(response.nodes[0])
    if isinstance(value, Numbers):
        return source.numbers(response.nodes[0], "response"), None, None
    if value.text:
        raise DataError(
            f"the response '{response.label}' is text; convert it to numbers, or to a category where its levels are meant",
            column=response.label,
        )
    factor = drop_unused(value)
    return factor.codes.astype(np.float64), None, factor.levels


def _trials(nodes: Sequence[Node], kind: str, source: _Source) -> Array:
    """Return the number of trials: successes and failures of `cbind`, the second node of `k | trials(n)`."""
    counted = nodes if kind == "cbind" else nodes[1:]
    return np.asarray(np.sum([source.numbers(node, "number of trials") for node in counted], axis=0))


def _row_weights(given: Array | None, response: Response | None, source: _Source) -> Array | None:
    weights = None if given is None else source.take(given)
    if response is not None and response.se is not None:
        if weights is not None:
            raise FormulaError("a response with known standard errors, se(), takes no weights")
        return _known_precision(response.se, source)
    if response is not None and response.weights is not None:
        if weights is not None:
            raise FormulaError("weights are given twice: in the formula and as an argument")
        weights = source.numbers(response.weights, "weight")
    if weights is not None and (weights < 0).any():
        rows = np.asarray(source.scope.rows, dtype=object)
        raise DataError("weights must not be negative", rows=source.take(rows)[weights < 0].tolist())
    return weights


def _known_precision(se: Node, source: _Source) -> Array:
    """Return the inverse squares of known standard errors: with a sigma of 1 these are precision weights."""
    errors = source.numbers(se, "standard error")
    if not (errors > 0).all():
        rows = np.asarray(source.scope.rows, dtype=object)
        raise DataError(f"standard errors must be positive, in {deparse(se)}", rows=source.take(rows)[~(errors > 0)].tolist())
    return np.asarray(errors**-2.0)


def _row_offset(given: Array | None, nodes: Sequence[Node], source: _Source) -> Array | None:
    parts = [] if given is None else [source.take(given)]
    parts += [source.numbers(_inside_offset(node), "offset") for node in nodes]
    return np.sum(parts, axis=0) if parts else None


def _inside_offset(node: Node) -> Node:
    return node.args[0] if isinstance(node, Call) and node.function == "offset" else node


def _remembered(value: Numbers | Factor) -> Column:
    if isinstance(value, Factor):
        return Column(kind="factor", levels=value.levels)
    return Column(kind="logical" if value.logical else "number")


def _own(values: Array) -> Array:
    """Return a read-only copy: what the user's frame holds stays the user's to change."""
    return frozen(np.array(values, dtype=np.float64))


# New rows --------------------------------------------------------------------------------------------------------------


def variables(encoder: Encoder, table: pd.DataFrame) -> dict[str, Numbers | Factor]:
    """Return the variables of the mean's fixed terms by label, on rows of data, factors with the levels of the fit."""
    return _new_values(encoder, encoder.formula.mean.terms, _new_source(encoder, table, {}))


def _encode_new(encoder: Encoder, table: pd.DataFrame, random: bool, need_response: bool) -> NewRows:
    read: dict[str, Numbers | Factor] = {}
    source = _new_source(encoder, table, read)
    formula = encoder.formula
    parts = {name: _new_part(encoder, name, predictor, source, random) for name, predictor in _predictors(formula)}
    fixed, blocks, unseen = parts[MEAN]
    y, trials = _new_response(encoder, source, table, need_response)
    weights = _new_weights(encoder, table, source)
    offset = _row_offset(_new_offset(encoder, table), formula.mean.offsets, source)
    arrays = {name: values for name, values in (("weights", weights), ("offset", offset)) if values is not None}
    _check_finite(read, arrays, np.ones(len(table), dtype=bool), table)
    return NewRows(
        X=fixed.X,
        fixed_names=fixed.names,
        offset=_own(np.zeros(source.n) if offset is None else offset),
        blocks=blocks,
        unseen=MappingProxyType(unseen),
        index=table.index,
        weights=_own(np.ones(source.n) if weights is None else weights),
        y=y,
        trials=trials,
        parameters=MappingProxyType({name: (part[0], part[1]) for name, part in parts.items() if name != MEAN}),
    )


def _new_source(encoder: Encoder, table: pd.DataFrame, raw: dict[str, Numbers | Factor]) -> _Source:
    """Return where new rows come from; `raw` is filled with the columns that are read."""

    def read(name: str) -> Numbers | Factor:
        if name not in raw:
            value = read_column(table, name)
            raw[name] = _as_remembered(value, encoder.columns.get(name, _remembered(value)))
        return raw[name]

    scope = Scope(read=read, states=dict(encoder.states), fitting=False, rows=table.index, text=encoder.formula.text)
    return _Source(scope=scope, size=len(table), kept=None)


def _as_remembered(value: Numbers | Factor, column: Column) -> Numbers | Factor:
    """Return new values in the fit's coding, where they can be; a number for a category counts by its label."""
    if column.kind == "factor":
        return recode(as_factor(value), column.levels)
    if isinstance(value, Numbers) and column.kind == "logical":
        return replace(value, logical=True)
    if isinstance(value, Factor) and not value.levels:
        return Numbers(values=np.full(len(value.codes), np.nan), logical=column.kind == "logical")
    return value


def _new_weights(encoder: Encoder, table: pd.DataFrame, source: _Source) -> Array | None:
    response = encoder.formula.response
    if response is not None and response.se is not None:  # without the column: unknown, as are new responses
        known = all(name in table.columns for name in columns_in(response.se))
        return _known_precision(response.se, source) if known else np.full(len(table), np.nan)
    if encoder.weights is None or encoder.weights not in table.columns:
        return None
    weights = _argument(encoder.weights, table, "weights")
    if weights is not None and (weights <= 0).any():
        rows = table.index[weights <= 0].tolist()
        raise DataError(f"weights of new rows must be positive, in column '{encoder.weights}'", column=encoder.weights, rows=rows)
    return weights


def _new_offset(encoder: Encoder, table: pd.DataFrame) -> Array | None:
    if encoder.array_offset:
        raise DataError(
            "the offset was given as an array, which new rows do not have; name a column, or write offset(column) in the formula"
        )
    return _argument(encoder.offset, table, "offset")


def _without_ones(matrix: Matrix) -> Matrix:
    rest = [i for i, name in enumerate(matrix.names) if name != INTERCEPT]
    assign = tuple(matrix.assign[i] for i in rest)
    return replace(matrix, X=np.ascontiguousarray(matrix.X[:, rest]), names=tuple(matrix.names[i] for i in rest), assign=assign)


def _new_part(
    encoder: Encoder, name: str, predictor: Predictor, source: _Source, random: bool
) -> tuple[FixedPart, tuple[RandomBlock, ...], dict[str, tuple[tuple[str, ...], Array]]]:
    values = _new_values(encoder, predictor.terms, source)
    codings = {
        label: replace(coding, contrast=encoder.contrasts.get(_bare(label), coding.contrast)) for label, coding in encoder.factors.items()
    }
    matrix = build_matrix(predictor.terms, predictor.intercept, values, codings, source.n)
    if encoder.thresholds and name == MEAN:
        matrix = _without_ones(matrix)
    kept = np.asarray(encoder.kept[name], dtype=np.intp)
    fixed = _fixed_part(matrix, kept, tuple(term.label for term in predictor.terms))
    blocks: list[RandomBlock] = []
    unseen: dict[str, tuple[tuple[str, ...], Array]] = {}
    for coding in encoder.blocks[name]:
        term = predictor.random[coding.position]
        effects = build_matrix(term.effects, term.intercept, _new_values(encoder, term.effects, source), encoder.factors, source.n)
        group = _new_group(term, coding, source) if random else _no_group(coding, source.n)
        blocks.append(make_block(term, coding.name, group, effects, coding.known and coding.known.extended(group.levels)))
        if group.unseen:
            unseen[coding.name] = (group.unseen, np.where(group.codes < MISSING, -2 - group.codes, -1))
    return fixed, tuple(blocks), unseen


def _new_group(term: RandomTerm, coding: BlockCoding, source: _Source) -> Factor:
    group = recode(crossed([as_factor(source.value(node)) for node in term.group]), coding.levels)
    if coding.known is None or not group.unseen:
        return group
    return recode(group, (*coding.levels, *coding.known.related(group.unseen)))


def _no_group(coding: BlockCoding, n: int) -> Factor:
    return Factor(codes=np.full(n, MISSING, dtype=np.intp), levels=coding.levels)


def _new_values(encoder: Encoder, terms: Iterable[Term], source: _Source) -> dict[str, Numbers | Factor]:
    nodes = {deparse(node): node for term in terms for node in term.variables}
    return {label: _new_variable(encoder, label, source.value(node), source) for label, node in nodes.items()}


def _new_variable(encoder: Encoder, label: str, value: Numbers | Factor, source: _Source) -> Numbers | Factor:
    coding = encoder.factors.get(label)
    if coding is None:
        if isinstance(value, Factor):
            raise DataError(f"column '{label}' holds categories, but held numbers in the fitted data", column=label)
        return value
    if isinstance(value, Numbers) and value.logical and set(coding.levels) != {"FALSE", "TRUE"}:
        raise DataError(
            f"column '{label}' holds TRUE and FALSE, but had levels {', '.join(coding.levels[:5])} in the fitted data", column=label
        )
    factor = recode(as_factor(value), coding.levels)
    if factor.unseen:
        rows = [source.scope.rows[i] for i in np.flatnonzero(factor.codes < MISSING).tolist()]
        shown = ", ".join(f"'{level}'" for level in factor.unseen[:5])
        many = len(factor.unseen) > 1
        raise DataError(
            f"level{'s' * many} {shown} of factor '{label}' {'have' if many else 'has'} no rows in the fitted data "
            f"(levels: {', '.join(coding.levels[:10])})",
            column=label,
            rows=rows,
        )
    return factor


def _new_response(encoder: Encoder, source: _Source, table: pd.DataFrame, needed: bool) -> tuple[Array | None, Array | None]:
    """Return `(y, trials)`: y where it is needed, trials also where their columns happen to be there."""
    response = encoder.formula.response
    if response is None:
        return None, None
    if needed and encoder.response_levels is not None:
        factor = recode(as_factor(source.value(response.nodes[0])), encoder.response_levels)
        return _own(np.where(factor.codes < 0, np.nan, factor.codes)), None
    if needed:
        y, trials, _ = _fit_response(response, source)
        return _own(y), None if trials is None else _own(trials)
    counts = {"trials": response.nodes[1:], "cbind": response.nodes}.get(response.kind, ())
    if not counts or any(name not in table.columns for node in counts for name in columns_in(node)):
        return None, None
    return None, _own(_trials(response.nodes, response.kind, source))


# Plain data ------------------------------------------------------------------------------------------------------------


def _encoder_to_dict(encoder: Encoder) -> dict[str, Any]:
    formula = encoder.formula
    return {
        "formula": {
            "text": formula.text,
            "sources": dict(formula.sources),
            "dialect": formula.dialect,
            "dot": None if formula.dot is None else list(formula.dot),
        },
        "columns": {name: {"kind": column.kind, "levels": list(column.levels)} for name, column in encoder.columns.items()},
        "states": {label: dict(state) for label, state in encoder.states.items()},
        "factors": {label: {"levels": list(coding.levels), "contrast": coding.contrast} for label, coding in encoder.factors.items()},
        "contrasts": dict(encoder.contrasts),
        "kept": {name: list(positions) for name, positions in encoder.kept.items()},
        "blocks": {
            name: [
                {"position": block.position, "name": block.name, "levels": list(block.levels), "known": _known_to_dict(block.known)}
                for block in blocks
            ]
            for name, blocks in encoder.blocks.items()
        },
        "response_levels": None if encoder.response_levels is None else list(encoder.response_levels),
        "weights": encoder.weights,
        "offset": encoder.offset,
        "array_offset": encoder.array_offset,
        "thresholds": encoder.thresholds,
    }


def _known_to_dict(known: Known | None) -> dict[str, Any] | None:
    if known is None:
        return None
    whole = known.relationship
    return {"name": whole.name, "labels": list(whole.labels), "matrix": whole.matrix.tolist()}


def _known_from_dict(plain: Mapping[str, Any] | None, levels: Sequence[str]) -> Known | None:
    if plain is None:
        return None
    matrix = frozen(np.array(plain["matrix"], dtype=np.float64))
    return known_among(Relationship(name=plain["name"], labels=tuple(plain["labels"]), matrix=matrix), levels)


def _encoder_from_dict(plain: Mapping[str, Any]) -> Encoder:
    source = plain["formula"]
    formula = parse(source["text"], parameters=source["sources"], dialect=source["dialect"])
    levels = plain["response_levels"]
    return Encoder(
        formula=formula if source["dot"] is None else expand_dot(formula, source["dot"]),
        columns=MappingProxyType(
            {name: Column(kind=item["kind"], levels=tuple(item["levels"])) for name, item in plain["columns"].items()}
        ),
        states=MappingProxyType({label: dict(state) for label, state in plain["states"].items()}),
        factors=MappingProxyType(
            {label: FactorCoding(levels=tuple(item["levels"]), contrast=item["contrast"]) for label, item in plain["factors"].items()}
        ),
        contrasts=MappingProxyType(dict(plain["contrasts"])),
        kept=MappingProxyType({name: tuple(int(i) for i in positions) for name, positions in plain["kept"].items()}),
        blocks=MappingProxyType(
            {
                name: tuple(
                    BlockCoding(
                        position=int(item["position"]),
                        name=item["name"],
                        levels=tuple(item["levels"]),
                        known=_known_from_dict(item["known"], item["levels"]),
                    )
                    for item in items
                )
                for name, items in plain["blocks"].items()
            }
        ),
        response_levels=None if levels is None else tuple(levels),
        weights=plain["weights"],
        offset=plain["offset"],
        array_offset=bool(plain["array_offset"]),
        thresholds=bool(plain.get("thresholds", False)),
    )
