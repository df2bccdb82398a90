"""The records of a parsed formula: syntax nodes, terms, random terms, and `Formula` itself; no data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

__all__ = [
    "Binary",
    "Call",
    "Formula",
    "Literal",
    "Name",
    "Node",
    "Paren",
    "Predictor",
    "RandomTerm",
    "Response",
    "SeriesTerm",
    "Term",
    "Unary",
    "names_in",
    "parts_in",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Spanned:
    """Where in the formula's text a node stands: half-open, not part of equality."""

    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Name(_Spanned):
    """A column's name (backticks removed) or, as `.`, all other columns."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Literal(_Spanned):
    """A number, a string, TRUE / FALSE, or NULL (`None`); `text` where it prints otherwise than its value (`raw = T`)."""

    value: float | int | str | bool | None
    text: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(_Spanned):
    """A call of an allow-listed function, with R's positional and named arguments."""

    function: str
    args: tuple[Node, ...] = ()
    keywords: tuple[tuple[str, Node], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Unary(_Spanned):
    """`+x`, `-x` or `!x`."""

    operator: str
    operand: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary(_Spanned):
    """An operator between two nodes."""

    operator: str
    left: Node
    right: Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Paren(_Spanned):
    """Parentheses, kept because R prints them in labels and because bars need them."""

    inner: Node


type Node = Name | Literal | Call | Unary | Binary | Paren


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """A product of variables, as `a:b` or `poly(x, 2)`; the empty product is the intercept.

    `variables` are syntax nodes in R's order; `label` is R's term label (`a:b`), `"(Intercept)"` for none.
    """

    variables: tuple[Node, ...]
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomTerm:
    """One bar `(effects | group)` after expansion of `/`, `||` and `*`: one covariance matrix.

    `effects`: the terms left of the bar, in R's order, without the intercept; `intercept` says whether it has one.
    `group`: the variables right of the bar in lme4's order (`(1 | a/b)` gives `(b, a)`), `group_label` `"b:a"`.
    `structure`: a name of `covariance.STRUCTURES` (`us`, `diag`, `cs`, `ar1`); `options` its literal keywords.
    `cov`: the matrix of `data2` that is the covariance among the levels, as in brms's `gr(g, cov = A)`; empty for none.
    """

    effects: tuple[Term, ...]
    intercept: bool
    group: tuple[Node, ...]
    group_label: str
    structure: str = "us"
    options: tuple[tuple[str, object], ...] = ()
    cov: str = ""
    text: str = ""
    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesTerm:
    """A correlation of residuals within series, `ar(time = Days, gr = Subject)`.

    `name`: of `residual.RESIDUALS`; `time`: the node of the times, None for the rows' order; `group`: the variables that make a
    series, none where all rows are one.
    """

    name: str
    time: Node | None
    group: tuple[Node, ...]
    text: str = ""
    start: int = field(default=0, compare=False)
    end: int = field(default=0, compare=False)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The nodes that have values on data."""
        return (*self.group, *(() if self.time is None else (self.time,)))

    @property
    def label_of_time(self) -> str:
        """The time as it is written, or what stands for it."""
        from bayeslmm.formula.deparse import deparse

        return "the order of the rows" if self.time is None else deparse(self.time)


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor:
    """One linear predictor: fixed terms in R's order, whether it has an intercept, offsets, random terms, a residual term."""

    terms: tuple[Term, ...] = ()
    intercept: bool = True
    offsets: tuple[Node, ...] = ()
    random: tuple[RandomTerm, ...] = ()
    series: SeriesTerm | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The left side: `kind` is `plain` (one node), `cbind` (successes, failures) or `trials` (successes, trials).

    `label` is the text as R prints it; `weights` is the node of brms's `y | weights(w)`, `se` that of `y | se(s)`, known standard
    errors in the place of sigma, where given.
    """

    kind: str
    nodes: tuple[Node, ...]
    label: str
    weights: Node | None = None
    se: Node | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Formula:
    """A model formula after parsing: text, response, the predictor of the mean, those of further parameters.

    `uses_dot` is true where `.` stands in a fixed part: `expand_dot` resolves it once the columns are known.
    `sources` (texts of the further parameters), `dialect` and `dot` (columns that `.` stands for) are what it was read from.
    """

    text: str
    response: Response | None
    mean: Predictor
    parameters: Mapping[str, Predictor] = field(default_factory=lambda: MappingProxyType({}))
    uses_dot: bool = False
    sources: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    dialect: str = "lme4"
    dot: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return ", ".join([self.text, *(f"{name} ~ {source.partition('~')[2].strip()}" for name, source in self.sources.items())])


def names_in(node: Node, arguments: Callable[[Call], Iterable[Node]] | None = None) -> tuple[str, ...]:
    """Return the column names that a node mentions, in order of appearance, each once.

    `arguments` says which parts of a call count; by default all of them.
    """
    return tuple(dict.fromkeys(part.name for part in parts_in(node, arguments) if isinstance(part, Name)))


def parts_in(node: Node, arguments: Callable[[Call], Iterable[Node]] | None = None) -> Iterator[Node]:
    """Yield a node and all that it is made of, in order of appearance; `arguments` as in `names_in`."""
    yield node
    children: Iterable[Node] = ()
    match node:
        case Call():
            children = (arguments or _all_arguments)(node)
        case Unary(operand=child) | Paren(inner=child):
            children = (child,)
        case Binary(left=left, right=right):
            children = (left, right)
        case _:
            pass
    for child in children:
        yield from parts_in(child, arguments)


def _all_arguments(call: Call) -> tuple[Node, ...]:
    return (*call.args, *(value for _, value in call.keywords))
