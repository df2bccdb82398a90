"""Syntax nodes -> text, exactly as R deparses term labels."""

from __future__ import annotations

from bayeslmm.formula.nodes import Binary, Call, Literal, Name, Node, Paren, Unary
from bayeslmm.formula.tokens import is_syntactic

__all__ = ["deparse", "quote_name"]

_TIGHT = frozenset({"^", ":", "/", "%%"})
_DIGITS = 15
_ESCAPED = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"})


def deparse(node: Node) -> str:
    """Return a node as R prints it in term labels: `I(Days^2)`, `poly(Days, 2, raw = TRUE)`, `log(x + 1)`."""
    match node:
        case Name(name=name):
            return name if name == "." else quote_name(name)
        case Literal(value=value, text=text):
            return text or _literal(value)
        case Call(function=function, args=args, keywords=keywords):
            given = [deparse(arg) for arg in args]
            named = [f"{quote_name(name)} = {deparse(value)}" for name, value in keywords]
            return f"{function}({', '.join([*given, *named])})"
        case Unary(operator=operator, operand=operand):
            return operator + deparse(operand)
        case Paren(inner=inner):
            return f"({deparse(inner)})"
        case Binary():
            return _chain(node)


def quote_name(name: str) -> str:
    """Return a name, in backticks where R could not read it without."""
    if is_syntactic(name):
        return name
    return "`" + name.translate(_ESCAPED).replace("`", "\\`") + "`"


def _chain(node: Binary) -> str:
    """Print operators from the right end of the left spine, which may be as long as the formula, without recursion."""
    tail: list[str] = []
    left: Node = node
    while isinstance(left, Binary):
        space = "" if left.operator in _TIGHT else " "
        tail.append(f"{space}{left.operator}{space}{deparse(left.right)}")
        left = left.left
    return deparse(left) + "".join(reversed(tail))


def _literal(value: float | int | str | bool | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, str):
        return '"' + value.translate(_ESCAPED).replace('"', '\\"') + '"'
    return _number(float(value))


def _number(value: float) -> str:
    """Print as R does: the fewest of at most 15 digits, in scientific notation where that is shorter."""
    rounded = float(f"{value:.{_DIGITS - 1}e}")
    digits = next(count for count in range(_DIGITS) if float(f"{value:.{count}e}") == rounded)
    scientific = f"{value:.{digits}e}"
    power = int(scientific.partition("e")[2])
    fixed = f"{value:.{max(digits - power, 0)}f}"
    return fixed if len(fixed) <= len(scientific) else scientific
