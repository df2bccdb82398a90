"""A formula's syntax node and the columns of a frame -> its values; stateful functions remember the fitted rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bayeslmm.errors import DataError, FormulaError, suggest
from bayeslmm.formula.deparse import deparse
from bayeslmm.formula.functions import FUNCTIONS, Function
from bayeslmm.formula.nodes import Binary, Call, Literal, Name, Node, Paren, Unary, names_in
from bayeslmm.formula.values import MISSING, Factor, Numbers, labels_of

__all__ = ["Scope", "columns_in", "evaluate"]

type Array = np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where a node is evaluated.

    `read`: a column's values by name. `states`: call's label -> what a stateful function remembers; filled where `fitting`.
    `rows`: labels of the rows, by position, for messages. `text`: the formula, for carets.
    `complete` (n,): rows without a missing value in any column that is used.
    """

    read: Callable[[str], Numbers | Factor]
    states: MutableMapping[str, Mapping[str, Any]]
    fitting: bool
    rows: Any
    text: str = ""
    complete: Array | None = None


def columns_in(node: Node) -> tuple[str, ...]:
    """Return the columns that a node needs, in order of appearance, each once; `contr.sum` in `C(f, contr.sum)` is none."""
    return names_in(node, _evaluated)


def evaluate(node: Node, scope: Scope) -> Any:
    """Return a node's `Value`, or the tuple of constants of `c(...)`.

    Raises
    ------
    DataError
        If a column is missing or of the wrong kind, or if a transform gives a value that is not finite.
    FormulaError
        If a function is unknown or its arguments are wrong.
    """
    match node:
        case Name(name=name):
            return scope.read(name)
        case Literal(value=value):
            return value
        case Paren(inner=inner):
            return evaluate(inner, scope)
        case Unary(operator=operator, operand=operand):
            return _unary(node, operator, evaluate(operand, scope))
        case Binary(operator=operator, left=left, right=right):
            return _finite(node, _binary(node, operator, evaluate(left, scope), evaluate(right, scope)), scope)
        case Call():
            return _call(node, scope)
    raise FormulaError(f"cannot evaluate {node!r}")


# Calls ----------------------------------------------------------------------------------------------------------------


def _function(node: Call) -> Function:
    function = FUNCTIONS.get(node.function)
    if function is None:
        raise FormulaError(f"unknown function {node.function}(){suggest(node.function, list(FUNCTIONS))}")
    if not function.min_args <= len(node.args) + len(node.keywords):
        raise FormulaError(f"{node.function}() needs at least {function.min_args} argument(s): {deparse(node)}")
    if len(node.args) > function.max_args:
        raise FormulaError(f"{node.function}() takes at most {function.max_args} arguments: {deparse(node)}")
    return function


def _arguments(node: Call, function: Function) -> tuple[tuple[Node, ...], dict[str, Node]]:
    """Sort a call's arguments into positional and named ones, with R's rule that positions fill the free keywords."""
    named = dict(node.keywords)
    unknown = [key for key in named if key not in function.keywords]
    positional = node.args
    if not positional and unknown:
        positional, unknown = (named.pop(unknown[0]),), unknown[1:]
    if unknown:
        raise FormulaError(f"{node.function}() has no argument '{unknown[0]}'{suggest(unknown[0], function.keywords)}")
    if not positional:
        raise FormulaError(f"{node.function}() needs a column as its first argument: {deparse(node)}")
    if function.variadic or function.kind in ("literal", "special"):
        return positional, named
    free = [key for key in function.keywords if key not in named]
    return positional[:1], named | dict(zip(free, positional[1:], strict=False))


def _evaluated(node: Call) -> tuple[Node, ...]:
    function = _function(node)
    positional, named = _arguments(node, function)
    return positional + tuple(value for key, value in named.items() if not (key in function.quoted and isinstance(value, Name)))


def _call(node: Call, scope: Scope) -> Any:
    function = _function(node)
    positional, named = _arguments(node, function)
    if function.kind == "literal":
        return _constants(node, [evaluate(part, scope) for part in positional])
    if function.apply is None:
        raise FormulaError(f"{node.function}() cannot stand here: {deparse(node)}")
    args: list[Any] = [evaluate(part, scope) for part in positional]
    keywords: dict[str, Any] = {
        key: part if key in function.quoted and isinstance(part, Name) else evaluate(part, scope) for key, part in named.items()
    }
    if function.kind in ("column", "matrix"):
        args = [_numeric(node, arg) for arg in args]
        keywords = {key.replace(".", "_"): _numeric(node, arg, texts=True) for key, arg in keywords.items()}
    try:
        with np.errstate(all="ignore"):
            state = _state(node, function, args, keywords, scope)
            result = function.apply(args[0], state, *args[1:], **keywords)
    except FormulaError as error:
        raise _located(error.message, node, scope) from error
    except (TypeError, ValueError, AttributeError, np.linalg.LinAlgError) as error:
        raise _located(f"cannot evaluate {deparse(node)}: {error}", node, scope) from error
    value = Numbers(values=np.asarray(result)) if isinstance(result, np.ndarray) else result
    return _finite(node, value, scope)


def _located(message: str, node: Call, scope: Scope) -> FormulaError:
    """Return the error with a caret, where the call stands in the formula's own text (and not in that of a parameter)."""
    if scope.text[node.start : node.end].startswith(node.function):
        return FormulaError(message, text=scope.text, start=node.start, end=node.end)
    return FormulaError(message)


def _state(node: Call, function: Function, args: list[Any], keywords: dict[str, Any], scope: Scope) -> Mapping[str, Any]:
    if function.fit is None:
        return {}
    label = deparse(node)
    if scope.fitting and label not in scope.states:
        scope.states[label] = function.fit(*_without_missing(args), **keywords)
    return scope.states[label]


def _without_missing(args: list[Any]) -> list[Any]:
    arrays = [arg for arg in args if isinstance(arg, np.ndarray) and arg.ndim == 1]
    if not arrays:
        return args
    good = np.logical_and.reduce([np.isfinite(array) for array in arrays])
    if good.all():
        return args
    if not good.any():
        raise DataError("a transform has no rows without missing values to work on")
    return [arg[good] if isinstance(arg, np.ndarray) and arg.ndim == 1 else arg for arg in args]


def _constants(node: Call, values: list[Any]) -> tuple[Any, ...]:
    flat = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
    if any(isinstance(part, Numbers | Factor) for part in flat):
        raise FormulaError(f"{deparse(node)}: only constants can stand in c()")
    return tuple(flat)


def _numeric(node: Node, value: Any, texts: bool = False) -> Any:
    match value:
        case Numbers():
            return value.values
        case Factor():
            raise DataError(f"{deparse(node)} needs numbers, but its column is categorical; convert the column, or use it as a factor")
        case str() if not texts:
            raise FormulaError(f"{deparse(node)} needs numbers, not the text '{value}'")
    return value


def _finite(node: Node, value: Any, scope: Scope) -> Any:
    """Refuse what a transform made infinite or undefined in a row whose columns are all there."""
    if not scope.fitting or scope.complete is None or not isinstance(value, Numbers):
        return value
    bad = ~np.isfinite(value.values)
    if not bad.any():
        return value
    rows = (bad if bad.ndim == 1 else bad.any(axis=1)) & scope.complete
    if rows.any():
        first = value.values[rows].ravel()
        shown = {True: "NaN"}.get(bool(np.isnan(first[~np.isfinite(first)][0])), "-Inf" if first[~np.isfinite(first)][0] < 0 else "Inf")
        raise DataError(
            f"transform {deparse(node)} gives {shown}; change those values or the transform",
            column=deparse(node),
            rows=[scope.rows[i] for i in np.flatnonzero(rows).tolist()],
        )
    return value


# Operators ------------------------------------------------------------------------------------------------------------

_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "^": np.power,
    "**": np.power,
    "%%": np.mod,
}
_COMPARISONS: dict[str, Callable[[Any, Any], Any]] = {
    "==": np.equal,
    "!=": np.not_equal,
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
}
_LOGIC: dict[str, Callable[[Any, Any], Any]] = {"&": np.logical_and, "&&": np.logical_and, "|": np.logical_or, "||": np.logical_or}


def _unary(node: Node, operator: str, value: Any) -> Any:
    numbers = _numeric(node, value)
    if operator == "!":
        negated = np.where(np.isnan(numbers), np.nan, np.equal(numbers, 0))
        return Numbers(values=negated, logical=True) if isinstance(value, Numbers) else not value
    result = np.negative(numbers) if operator == "-" else numbers
    return Numbers(values=result) if isinstance(value, Numbers) else float(result)


def _binary(node: Binary, operator: str, left: Any, right: Any) -> Any:
    if operator == "%in%":
        return _membership(left, right)
    if operator in _COMPARISONS and any(isinstance(side, Factor | str) for side in (left, right)):
        return _compare_labels(node, operator, left, right)
    table = next((table for table in (_ARITHMETIC, _COMPARISONS, _LOGIC) if operator in table), None)
    if table is None:
        raise FormulaError(f"operator '{operator}' has no meaning in {deparse(node)}")
    one, two = _numeric(node, left), _numeric(node, right)
    with np.errstate(all="ignore"):
        result = np.asarray(table[operator](one, two), dtype=float)
    logical = table is not _ARITHMETIC
    if logical:
        result = np.where(np.isnan(np.asarray(one, dtype=float) + np.asarray(two, dtype=float)), np.nan, result)
    if result.ndim == 0:
        return bool(result) if logical else float(result)
    return Numbers(values=result, logical=logical)


def _compare_labels(node: Node, operator: str, left: Any, right: Any) -> Numbers:
    if not isinstance(left, Factor):
        left, right = right, left
    if operator not in ("==", "!=") or not isinstance(left, Factor):
        raise DataError(f"{deparse(node)}: categories can be compared by == and != only")
    if isinstance(right, Factor):
        same = labels_of(left) == labels_of(right)
        missing = (left.codes == MISSING) | (right.codes == MISSING)
    else:
        label = right if isinstance(right, str) else f"{right:g}"
        same = left.codes == (left.levels.index(label) if label in left.levels else -9)
        missing = left.codes == MISSING
    return Numbers(values=np.where(missing, np.nan, same == (operator == "==")), logical=True)


def _membership(left: Any, right: Any) -> Numbers:
    wanted = right if isinstance(right, tuple) else (right,)
    if isinstance(left, Factor):
        codes = [left.levels.index(label) for label in wanted if label in left.levels]
        return Numbers(values=np.isin(left.codes, codes).astype(float), logical=True)
    if isinstance(left, Numbers):
        return Numbers(values=np.isin(left.values, np.asarray(wanted, dtype=float)).astype(float), logical=True)
    raise FormulaError("%in% needs a column on its left and constants, as c(1, 2), on its right")
