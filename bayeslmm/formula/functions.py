"""The functions that a formula may call: one record each, in one table; users add theirs by `register_transform`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from bayeslmm.errors import DataError, FormulaError
from bayeslmm.formula import splines
from bayeslmm.formula.contrasts import contrast_spec
from bayeslmm.formula.nodes import Name
from bayeslmm.formula.values import MISSING, Factor, Numbers, Value, as_factor, drop_unused, labels_of, number_label, recode

__all__ = ["FUNCTIONS", "Function", "is_users", "register_transform"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function of columns that formulas may call.

    Attributes
    ----------
    name
        As written in the formula.
    kind
        `"column"` (numbers in, numbers out), `"matrix"` (several columns: `poly`, `bs`, `ns`), `"factor"` (values of any
        kind in: `factor`, `C`, `ifelse`), `"literal"` (constants only: `c`), `"special"` (`offset`, `cbind`, `trials`,
        `weights`, `ar`: meaning given by the place, see `design`).
    min_args, max_args
        Number of positional arguments.
    keywords
        Names of R's keyword arguments, in positional order after the first (`apply` gets `.` as `_`).
    quoted
        Keywords whose argument may be a bare name that is no column, as in `C(f, contr.sum)`; `apply` gets the node.
    one_column
        True where R's function returns a matrix of one column, which tests of terms take for what it is (`scale`).
    variadic
        True where further positional arguments are columns, not keywords (`poly(x, z, degree = 2)`).
    fit
        `(values, *args, **keywords) -> state`: what to remember of the fitted rows (JSON-able), or None if stateless.
        `values` are then without missing rows.
    apply
        `(values, state, *args, **keywords) -> array or Value`: the values for any rows.
    """

    name: str
    kind: str = "column"
    min_args: int = 1
    max_args: int = 1
    keywords: tuple[str, ...] = ()
    quoted: tuple[str, ...] = ()
    one_column: bool = False
    variadic: bool = False
    fit: Callable[..., Mapping[str, Any]] | None = None
    apply: Callable[..., Any] | None = None


FUNCTIONS: dict[str, Function] = {}


def register_transform(name: str, fn: Callable[..., Any]) -> None:
    """Let formulas call a function of one's own: `register_transform("sq", lambda x: x * x)` allows `y ~ sq(x)`.

    Parameters
    ----------
    name
        The name in formulas; letters, digits, `_` and `.`, no name that is taken.
    fn
        Values (n,) of a column, and whatever further arguments the formula gives, to values (n,), row by row: it must not
        depend on the other rows, because new data are transformed by the same function.

    Raises
    ------
    FormulaError
        If the name is taken or no name, or `fn` cannot be called.

    Examples
    --------
    >>> register_transform("squared", lambda x: x * x)
    >>> FUNCTIONS["squared"].kind
    'column'
    """
    if not callable(fn):
        raise FormulaError(f"register_transform('{name}', ...) needs a function of a column, not {type(fn).__name__}")
    if not name.replace(".", "_").isidentifier():
        raise FormulaError(f"'{name}' cannot be a function's name in a formula; use letters, digits, '_' and '.'")
    if name in FUNCTIONS and FUNCTIONS[name].fit is not _NO_STATE:
        raise FormulaError(f"'{name}' is a function that formulas have already; choose another name")
    FUNCTIONS[name] = Function(name=name, max_args=8, variadic=True, fit=_NO_STATE, apply=_checked(name, fn))


def is_users(name: str) -> bool:
    """Whether a function is one that `register_transform` was given."""
    return name in FUNCTIONS and FUNCTIONS[name].fit is _NO_STATE


def _NO_STATE(values: Array, *args: Any) -> Mapping[str, Any]:
    """The state of a user's transform: none. (It also marks the row as the user's, who may replace it.)"""
    return {}


def _checked(name: str, fn: Callable[..., Any]) -> Callable[..., Array]:
    def apply(values: Array, state: Mapping[str, Any], *args: Any) -> Array:
        try:
            result = np.asarray(fn(values.copy(), *args), dtype=float)
        except Exception as error:
            raise FormulaError(f"the registered transform {name}() failed: {type(error).__name__}: {error}") from error
        if result.shape != values.shape:
            raise FormulaError(
                f"the registered transform {name}() returned shape {result.shape} for {values.shape}; it must return one value a row"
            )
        return result

    return apply


# Functions of numbers -------------------------------------------------------------------------------------------------


def _stateless(fn: Callable[..., Array]) -> Callable[..., Array]:
    return lambda values, state, **keywords: fn(values, **keywords)


def _log(x: Array, base: float | Array | None = None) -> Array:
    if base is None:
        return np.log(x)
    exact: dict[float, Callable[[Array], Array]] = {2.0: np.log2, 10.0: np.log10}
    return exact[float(base)](x) if np.ndim(base) == 0 and float(base) in exact else np.log(x) / np.log(base)


def _logit(p: Array) -> Array:
    return np.log(p / (1.0 - p))


def _expit(x: Array) -> Array:
    from scipy.special import expit

    return np.asarray(expit(x))


def _round(x: Array, digits: float = 0) -> Array:
    """R's `round` since 4.0.0: the nearer of the two decimals around x, the even one where they are equally near."""
    power = 10.0 ** int(digits)
    below, above = np.floor(x * power), np.ceil(x * power)
    low, high = below / power, above / power
    return np.where((x - low < high - x) | ((x - low == high - x) & (below % 2 == 0)), low, high)


_PLAIN: dict[str, Callable[..., Array]] = {
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "exp": np.exp,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "tanh": np.tanh,
    "floor": np.floor,
    "ceiling": np.ceil,
    "sign": np.sign,
    "logit": _logit,
    "qlogis": _logit,
    "expit": _expit,
    "plogis": _expit,
}


def _center_fit(x: Array) -> Mapping[str, Any]:
    return {"center": float(np.mean(x))}


def _center(x: Array, state: Mapping[str, Any]) -> Array:
    return x - float(state["center"])


def _scale_fit(x: Array, center: float | bool = True, scale: float | bool = True) -> Mapping[str, Any]:
    """R's `scale`: divide by the root of sum(x^2) / (n - 1), after centring if that is asked for."""
    middle = (float(np.mean(x)) if center else 0.0) if isinstance(center, bool) else float(center)
    if not isinstance(scale, bool):
        return {"center": middle, "scale": float(scale)}
    spread = float(np.sqrt(np.sum((x - middle) ** 2) / max(len(x) - 1, 1))) if scale else 1.0
    if spread == 0.0:
        raise FormulaError("scale() of a constant column divides by zero; leave the column out")
    return {"center": middle, "scale": spread}


def _scale(x: Array, state: Mapping[str, Any], **_: Any) -> Array:
    return (x - float(state["center"])) / float(state["scale"])


def _extreme(reduce: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    def apply(x: Array, state: Mapping[str, Any], *others: Any) -> Array:
        for other in others:
            x = reduce(x, np.asarray(other, dtype=float))
        return x

    return apply


# Functions with several columns ---------------------------------------------------------------------------------------


def _poly_degree(args: tuple[Any, ...], degree: float | None) -> tuple[tuple[Any, ...], int]:
    """Split R's `...` of poly: a lone number after the first column is the degree."""
    if degree is None and args and np.ndim(args[-1]) == 0:
        args, degree = args[:-1], args[-1]
    if any(np.ndim(arg) == 0 for arg in args):
        raise FormulaError("poly(): give columns, then one degree, as in poly(x, 2) or poly(x, z, degree = 2)")
    order = 1 if degree is None else int(degree)
    if degree is not None and order != degree:
        raise FormulaError(f"poly(): the degree must be a whole number, not {degree:g}")
    if order < 1:
        raise FormulaError(f"poly(): the degree must be at least 1, not {order}")
    return args, order


def _poly_fit(x: Array, *args: Any, degree: float | None = None, raw: bool = False) -> Mapping[str, Any]:
    others, order = _poly_degree(args, degree)
    if raw:
        return {}
    columns = (x, *others)
    for column in columns:
        if order >= len(np.unique(column)):
            raise FormulaError(f"poly(): the degree {order} must be less than the number of distinct values, {len(np.unique(column))}")
    return {"recurrences": [[list(part) for part in splines.poly_recurrence(column, order)] for column in columns]}


def _poly(x: Array, state: Mapping[str, Any], *args: Any, degree: float | None = None, raw: bool = False) -> Numbers:
    others, order = _poly_degree(args, degree)
    columns = (x, *others)
    if raw:
        bases = [np.column_stack([column**power for power in range(1, order + 1)]) for column in columns]
    else:
        bases = [splines.poly_basis(column, *recurrence) for column, recurrence in zip(columns, state["recurrences"], strict=True)]
    if len(bases) == 1:
        return Numbers(values=bases[0], suffixes=tuple(str(i + 1) for i in range(order)))
    powers = [p[::-1] for p in product(range(order + 1), repeat=len(bases)) if 0 < sum(p) <= order]
    full = [np.column_stack([np.ones(len(x)), basis]) for basis in bases]
    values = np.column_stack([np.prod([basis[:, power] for basis, power in zip(full, p, strict=True)], axis=0) for p in powers])
    return Numbers(values=values, suffixes=tuple(".".join(str(power) for power in p) for p in powers))


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _bs_fit(
    x: Array,
    df: float | None = None,
    knots: Any = None,
    degree: float = 3,
    intercept: bool = False,
    Boundary_knots: Any = None,
) -> Mapping[str, Any]:
    return {"knots": splines.bs_knots(x, _whole(df), _sequence(knots), int(degree), bool(intercept), Boundary_knots)}


def _bs(x: Array, state: Mapping[str, Any], degree: float = 3, intercept: bool = False, **_: Any) -> Numbers:
    return _numbered(splines.bs_basis(x, state["knots"], int(degree), bool(intercept)))


def _ns_fit(x: Array, df: float | None = None, knots: Any = None, intercept: bool = False, Boundary_knots: Any = None) -> Mapping[str, Any]:
    return {"knots": splines.ns_knots(x, _whole(df), _sequence(knots), bool(intercept), Boundary_knots)}


def _ns(x: Array, state: Mapping[str, Any], intercept: bool = False, **_: Any) -> Numbers:
    return _numbered(splines.ns_basis(x, state["knots"], bool(intercept)))


def _sequence(values: Any) -> Sequence[float] | None:
    return None if values is None else np.atleast_1d(values).tolist()


def _numbered(values: Array) -> Numbers:
    return Numbers(values=values, suffixes=tuple(str(i + 1) for i in range(values.shape[1])))


def _dummy_fit(value: Value, levels: Any = None) -> Mapping[str, Any]:
    factor = drop_unused(_factor_of("dummy", value))
    return {"levels": list(factor.levels), "keep": list(factor.levels[1:]) if levels is None else _labels(levels)}


def _dummy(value: Value, state: Mapping[str, Any], levels: Any = None) -> Numbers:
    factor = _known("dummy", recode(_factor_of("dummy", value), state["levels"]))
    keep = [list(factor.levels).index(level) if level in factor.levels else -9 for level in state["keep"]]
    values = (factor.codes[:, None] == np.asarray(keep)).astype(float)
    values[factor.codes == MISSING] = np.nan
    return Numbers(values=values, suffixes=tuple(state["keep"]))


# Functions of factors, and of values of any kind ----------------------------------------------------------------------


def _factor_of(function: str, value: Value) -> Factor:
    if isinstance(value, Numbers | Factor):
        return as_factor(value)
    raise FormulaError(f"{function}() needs a column")


def _known(function: str, factor: Factor) -> Factor:
    if factor.unseen:
        raise DataError(
            f"{function}(): level '{factor.unseen[0]}' has no rows in the fitted data (levels: {', '.join(factor.levels[:10])})"
        )
    return factor


def _labels(values: Any) -> list[str]:
    return [_label(value) for value in (values if isinstance(values, tuple) else (values,))]


def _label(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    return value if isinstance(value, str) else number_label(float(value))


def _to_factor_fit(value: Value, levels: Any = None, labels: Any = None, ordered: bool | None = None) -> Mapping[str, Any]:
    known = list(drop_unused(_factor_of("factor", value)).levels) if levels is None else _labels(levels)
    shown = known if labels is None else _labels(labels)
    if len(shown) != len(known):
        raise FormulaError(f"factor(): {len(shown)} labels for {len(known)} levels; give one label a level")
    return {"levels": known, "labels": shown}


def _to_factor(value: Value, state: Mapping[str, Any], levels: Any = None, labels: Any = None, ordered: bool | None = None) -> Factor:
    old = _factor_of("factor", value)
    new = recode(old, state["levels"])
    codes = new.codes if levels is None else np.where(new.codes < 0, MISSING, new.codes)
    unseen = new.unseen if levels is None else ()
    return Factor(codes=codes, levels=tuple(state["labels"]), ordered=old.ordered if ordered is None else bool(ordered), unseen=unseen)


def _to_ordered(value: Value, state: Mapping[str, Any], **keywords: Any) -> Factor:
    return _to_factor(value, state, **{**keywords, "ordered": True})


def _contrasted(value: Value, state: Mapping[str, Any], contr: Any = None) -> Factor:
    factor = _factor_of("C", value)
    spec = None if contr is None else contrast_spec(contr.name if isinstance(contr, Name) else contr)
    if isinstance(contr, Name) and contr.name.startswith("contr."):
        spec = {"function": spec}
    return Factor(codes=factor.codes, levels=factor.levels, ordered=factor.ordered, contrast=spec, unseen=factor.unseen)


def _releveled(value: Value, state: Mapping[str, Any], ref: Any = None) -> Factor:
    factor = _factor_of("relevel", value)
    reference = _label(ref) if ref is not None else ""
    if reference not in factor.levels:
        raise FormulaError(f"relevel(): '{reference}' is no level; the levels are {', '.join(factor.levels)}")
    return recode(factor, [reference, *(level for level in factor.levels if level != reference)])


def _as_numeric(value: Value, state: Mapping[str, Any]) -> Array:
    if isinstance(value, Factor):
        return np.where(value.codes == MISSING, np.nan, _known("as.numeric", value).codes + 1.0)
    return np.asarray(value.values if isinstance(value, Numbers) else value, dtype=float)


def _as_integer(value: Value, state: Mapping[str, Any]) -> Array:
    return np.trunc(_as_numeric(value, state))


def _identity(value: Value, state: Mapping[str, Any]) -> Value:
    return value


def _ifelse(test: Value, state: Mapping[str, Any], yes: Value = None, no: Value = None) -> Value:
    if not isinstance(test, Numbers):
        raise FormulaError("ifelse(): the first argument must be a comparison, as in ifelse(x > 2, 1, 0)")
    branches = (yes, no)
    if any(isinstance(branch, str | Factor) for branch in branches):
        return _ifelse_labels(test, yes, no)
    low, high = (branch.values if isinstance(branch, Numbers) else float(branch) for branch in (no, yes))  # type: ignore[arg-type]
    chosen = np.where(np.isnan(test.values), np.nan, np.where(test.values != 0, high, low))
    logical = all(isinstance(branch, bool) or (isinstance(branch, Numbers) and branch.logical) for branch in branches)
    return Numbers(values=chosen, logical=logical)


def _ifelse_labels(test: Numbers, yes: Value, no: Value) -> Factor:
    size = len(test.values)
    chosen = np.where(test.values != 0, _texts(yes, size), _texts(no, size))
    chosen[np.isnan(test.values)] = None
    known = sorted({label for label in chosen.tolist() if label is not None})
    position = {label: code for code, label in enumerate(known)}
    return Factor(codes=np.array([position.get(label, MISSING) for label in chosen.tolist()], dtype=np.intp), levels=tuple(known))


def _texts(value: Value, size: int) -> Array:
    if isinstance(value, Factor):
        return labels_of(value)
    if isinstance(value, Numbers):
        return np.array([None if np.isnan(x) else number_label(x) for x in value.values.tolist()], dtype=object)
    return np.full(size, None if value is None else _label(value), dtype=object)


# The table ------------------------------------------------------------------------------------------------------------


def _table() -> list[Function]:
    spline = ("df", "knots", "degree", "intercept", "Boundary.knots")
    natural = ("df", "knots", "intercept", "Boundary.knots")
    factor = ("levels", "labels", "ordered")
    return [
        *(Function(name=name, apply=_stateless(fn)) for name, fn in _PLAIN.items()),
        Function(name="log", max_args=2, keywords=("base",), apply=_stateless(_log)),
        Function(name="round", max_args=2, keywords=("digits",), apply=_stateless(_round)),
        Function(name="pmin", min_args=2, max_args=8, variadic=True, apply=_extreme(np.minimum)),
        Function(name="pmax", min_args=2, max_args=8, variadic=True, apply=_extreme(np.maximum)),
        Function(name="center", fit=_center_fit, apply=_center),
        Function(name="scale", one_column=True, max_args=3, keywords=("center", "scale"), fit=_scale_fit, apply=_scale),
        Function(name="poly", kind="matrix", max_args=8, variadic=True, keywords=("degree", "raw"), fit=_poly_fit, apply=_poly),
        Function(name="bs", kind="matrix", max_args=6, keywords=spline, fit=_bs_fit, apply=_bs),
        Function(name="ns", kind="matrix", max_args=5, keywords=natural, fit=_ns_fit, apply=_ns),
        Function(name="dummy", kind="factor", max_args=2, keywords=("levels",), fit=_dummy_fit, apply=_dummy),
        Function(name="factor", kind="factor", max_args=4, keywords=factor, fit=_to_factor_fit, apply=_to_factor),
        Function(name="as.factor", kind="factor", fit=_to_factor_fit, apply=_to_factor),
        Function(name="ordered", kind="factor", max_args=3, keywords=("levels", "labels"), fit=_to_factor_fit, apply=_to_ordered),
        Function(name="C", kind="factor", max_args=2, keywords=("contr",), quoted=("contr",), apply=_contrasted),
        Function(name="relevel", kind="factor", max_args=2, keywords=("ref",), apply=_releveled),
        Function(name="as.numeric", kind="factor", apply=_as_numeric),
        Function(name="as.integer", kind="factor", apply=_as_integer),
        Function(name="ifelse", kind="factor", min_args=3, max_args=3, keywords=("yes", "no"), apply=_ifelse),
        Function(name="I", kind="factor", apply=_identity),
        Function(name="c", kind="literal", max_args=1000),
        Function(name="offset", kind="special"),
        Function(name="ar", kind="special", min_args=0, max_args=4, keywords=("time", "gr", "p", "cov")),
        Function(name="cbind", kind="special", min_args=2, max_args=2),
        Function(name="se", kind="special", max_args=2, keywords=("x", "sigma")),
        Function(name="trials", kind="special"),
        Function(name="weights", kind="special"),
    ]


FUNCTIONS.update({function.name: function for function in _table()})
