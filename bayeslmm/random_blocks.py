"""Random terms on data: blocks of Z, their levels and order as lme4 has them, and what the groups are like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from bayeslmm.errors import DataError, FormulaError
from bayeslmm.formula.values import MISSING, Factor, frozen

if TYPE_CHECKING:
    import pandas as pd
    import scipy.sparse as sp

    from bayeslmm.formula.nodes import RandomTerm
    from bayeslmm.known import Known
    from bayeslmm.model_matrix import Matrix

__all__ = [
    "Grouped",
    "RandomBlock",
    "check_groups",
    "crossed",
    "group_table",
    "independent_Z",
    "make_block",
    "nesting",
    "ordered",
    "sparse_Z",
    "weak_groups",
]

type Array = np.ndarray

_FEW_LEVELS = 5
"""With fewer levels a standard deviation between them is hardly known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomBlock:
    """One random term on data: Z's columns for it are `values[i, c]` at level `index[i]`, effect `c`.

    `group` is the factor's label (`Subject`, `class:school`); `name` is lme4's unique one (`Subject.1` for the second
    term of a factor). `levels` (J,), `effects` (k,), `index` (n,) in 0..J-1 (-1: not seen in the fit), `values` (n, k).
    Column order in Z: levels outer, effects inner, blocks in lme4's order (decreasing number of levels).
    `known`: the covariance K among the levels, vec(b) ~ N(0, K (x) Sigma); None where levels are independent.
    """

    group: str
    name: str
    levels: tuple[str, ...]
    effects: tuple[str, ...]
    index: Array
    values: Array
    structure: str
    term: RandomTerm
    known: Known | None = None

    @property
    def n_levels(self) -> int:
        return len(self.levels)

    @property
    def n_effects(self) -> int:
        return len(self.effects)

    @property
    def mean_variance(self) -> float:
        """The variance of a level drawn from among those of the fit, the covariance of its effects being one: the mean of K's diagonal."""
        return 1.0 if self.known is None else self.known.mean_variance

    @property
    def row_variance(self) -> Array:
        """The same (n,) of each row's own level."""
        return np.ones(len(self.index)) if self.known is None else self.known.variance[self.index]


class Grouped(Protocol):
    """What has random blocks on rows: a `Design`."""

    @property
    def blocks(self) -> tuple[RandomBlock, ...]: ...
    @property
    def n(self) -> int: ...


def make_block(term: RandomTerm, name: str, group: Factor, matrix: Matrix, known: Known | None = None) -> RandomBlock:
    """Return the block of a random term: its effects' matrix (n, k) and its group as a factor, new levels becoming -1."""
    if not matrix.names:
        raise FormulaError(f"the random term {term.text} has no effect; write (1 | {term.group_label})")
    return RandomBlock(
        group=term.group_label,
        name=name,
        levels=group.levels,
        effects=matrix.names,
        index=frozen(np.maximum(group.codes, MISSING)),
        values=frozen(matrix.X),
        structure=term.structure,
        term=term,
        known=known,
    )


def crossed(factors: Sequence[Factor]) -> Factor:
    """Return the interaction of factors, labels joined by `:`, the first factor's levels varying slowest; only observed levels."""
    if len(factors) == 1:
        return factors[0]
    known = [(*factor.levels, *factor.unseen) or ("",) for factor in factors]
    missing = np.logical_or.reduce([factor.codes == MISSING for factor in factors])
    combined = np.zeros(len(missing), dtype=np.int64)
    for factor, labels in zip(factors, known, strict=True):
        combined = combined * len(labels) + np.where(factor.codes >= 0, factor.codes, len(factor.levels) - 2 - factor.codes)
    seen, inverse = _unique_codes(np.where(missing, 0, combined), int(np.prod([float(len(labels)) for labels in known])))
    parts: list[list[str]] = []
    for labels in reversed(known):
        parts.append([labels[i] for i in (seen % len(labels)).tolist()])
        seen //= len(labels)
    levels = tuple(":".join(names) for names in zip(*reversed(parts), strict=True))
    return Factor(codes=np.where(missing, MISSING, inverse), levels=levels)


def _unique_codes(codes: Array, size: int) -> tuple[Array, Array]:
    """Return the sorted distinct codes and each row's position among them; counting where the range is short."""
    if size > 4 * len(codes) + 1000:
        seen, inverse = np.unique(codes, return_inverse=True)
        return seen, inverse.astype(np.intp)
    present = np.zeros(max(size, 1), dtype=bool)
    present[codes] = True
    return np.flatnonzero(present), (np.cumsum(present) - 1)[codes].astype(np.intp)


def ordered(blocks: Sequence[tuple[int, RandomBlock]]) -> list[tuple[int, RandomBlock]]:
    """Return blocks in lme4's order (`rev(order(nlevels))` unless already decreasing), with names made unique."""
    sizes = np.array([block.n_levels for _, block in blocks])
    order = range(len(blocks)) if (np.diff(sizes) <= 0).all() else np.argsort(sizes, kind="stable")[::-1].tolist()
    taken: set[str] = set()
    named: list[tuple[int, RandomBlock]] = []
    for position, block in (blocks[i] for i in order):
        name, count = block.group, 0
        while name in taken:
            count += 1
            name = f"{block.group}.{count}"
        taken.add(name)
        named.append((position, replace(block, name=name)))
    return named


def sparse_Z(blocks: Sequence[RandomBlock], n: int) -> sp.csc_array:
    """Return Z (n, q) of random blocks; a row whose level is new (-1) has zeros for that block."""
    import scipy.sparse as sp

    widths = [block.n_levels * block.n_effects for block in blocks]
    starts = np.cumsum([0, *widths])
    columns = [
        start + block.index[:, None] * block.n_effects + np.arange(block.n_effects)
        for start, block in zip(starts.tolist(), blocks, strict=False)
    ]
    values = [np.where((block.index >= 0)[:, None], block.values, 0.0) for block in blocks]
    per_row = sum(block.n_effects for block in blocks)
    if not blocks:
        return sp.csc_array((n, 0))
    indices = np.maximum(np.hstack(columns), 0).ravel()
    return sp.csr_array((np.hstack(values).ravel(), indices, np.arange(n + 1) * per_row), shape=(n, int(starts[-1]))).tocsc()


def independent_Z(blocks: Sequence[RandomBlock], n: int) -> sp.csc_array:
    """Return the matrix (n, q) of independent effects w, b = (root (x) I) w where the covariance among levels is known; else Z."""
    import scipy.sparse as sp

    if all(block.known is None for block in blocks):
        return sparse_Z(blocks, n)
    parts = [sparse_Z([block], n) for block in blocks]
    for i, block in enumerate(blocks):
        if block.known is not None:
            root = block.known.root[:, : block.known.n_fit]
            parts[i] = sp.csc_array(parts[i] @ sp.kron(sp.csr_array(root), sp.eye_array(block.n_effects), format="csr"))
    return sp.csc_array(sp.hstack(parts, format="csc"))


def check_groups(design: Grouped, *, residual: bool) -> None:
    """Refuse grouping factors whose variances the data cannot tell apart from anything else, as lme4 does.

    Parameters
    ----------
    design
        A design.
    residual
        True for families with a residual variance of their own: a level for every row is then refused too.

    Raises
    ------
    DataError
        If a factor has one level; if it has as many levels as there are rows, or a term as many effects (`residual`), or more:
        unless a known covariance relates levels to one another, as in a pedigree with one record for each animal.
    """
    n = design.n
    for block in design.blocks:
        levels, effects = block.n_levels, block.n_levels * block.n_effects
        if levels < 2:
            raise DataError(
                f"grouping factor '{block.group}' has {levels} level; it needs 2 for a variance: leave {block.term.text} out",
                column=block.group,
            )
        if block.known is not None and block.known.relates:
            continue
        if levels >= n if residual else levels > n:
            raise DataError(
                f"grouping factor '{block.group}' has {levels} levels in {n} rows, so its variance cannot be told from the residual one; "
                "group by something that repeats, or leave the term out",
                column=block.group,
            )
        if block.structure == "us" and (effects >= n if residual else effects > n):
            raise DataError(
                f"the random term ({' + '.join(block.effects)} | {block.group}) has {effects} effects for {n} rows; "
                f"leave out effects, as in (1 | {block.group})",
                column=block.group,
            )


def weak_groups(design: Grouped, *, residual: bool) -> list[str]:
    """Return one sentence for each random term whose variance rests on its prior more than on the data.

    Parameters
    ----------
    design
        A design.
    residual
        True for families with a residual variance of their own, from which a level for every row cannot be told.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayeslmm.design import encode
    >>> from bayeslmm.formula import parse
    >>> design = encode(parse("y ~ 1 + (1 | g)"), pd.DataFrame({"y": [1.0, 2.0, 4.0], "g": ["a", "a", "b"]}))
    >>> weak_groups(design, residual=True)
    ["grouping factor 'g' has only 2 levels"]
    """
    found: dict[str, None] = {}
    for block in design.blocks:
        effects = block.n_levels * block.n_effects
        if block.n_levels < _FEW_LEVELS:
            found[f"grouping factor '{block.group}' has only {block.n_levels} level{'s' * (block.n_levels != 1)}"] = None
        elif (block.known is None or not block.known.relates) and (effects >= design.n if residual else effects > design.n):
            term = f"({' + '.join(block.effects)} | {block.group})"
            found[f"the random term {term} has {effects} effects for {design.n} rows"] = None
    return list(found)


def group_table(design: Grouped) -> pd.DataFrame:
    """Return the size of each grouping factor: a frame `group, levels, rows_min, rows_median, rows_max`.

    Parameters
    ----------
    design
        A design.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayeslmm.design import encode
    >>> from bayeslmm.formula import parse
    >>> design = encode(parse("y ~ 1 + (1 | g)"), pd.DataFrame({"y": [1.0, 2.0, 4.0], "g": ["a", "a", "b"]}))
    >>> group_table(design)["rows_max"].tolist()
    [2]
    """
    import pandas as pd

    columns = ("group", "levels", "rows_min", "rows_median", "rows_max")
    counts = {block.group: np.bincount(block.index, minlength=block.n_levels) for block in design.blocks}
    rows = [(group, len(count), int(count.min()), float(np.median(count)), int(count.max())) for group, count in counts.items()]
    return pd.DataFrame(rows, columns=list(columns))


def nesting(design: Grouped) -> list[str]:
    """Return one sentence for each pair of grouping factors: nested in one another, crossed fully, or in part.

    Parameters
    ----------
    design
        A design.

    Examples
    --------
    >>> import pandas as pd
    >>> from bayeslmm.design import encode
    >>> from bayeslmm.formula import parse
    >>> data = pd.DataFrame({"y": [1.0, 2.0, 4.0, 3.0], "a": ["p", "p", "q", "q"], "b": ["u", "v", "w", "w"]})
    >>> nesting(encode(parse("y ~ 1 + (1 | a) + (1 | b)"), data))
    ['b is nested in a']
    """
    blocks = list({block.group: block for block in design.blocks}.values())
    return [_relation(one, two) for position, one in enumerate(blocks) for two in blocks[position + 1 :]]


def _relation(one: RandomBlock, two: RandomBlock) -> str:
    pairs = len(np.unique(one.index.astype(np.int64) * two.n_levels + two.index))
    if pairs == one.n_levels == two.n_levels:
        return f"{one.group} and {two.group} are the same partition of the rows"
    if pairs == one.n_levels:
        return f"{one.group} is nested in {two.group}"
    if pairs == two.n_levels:
        return f"{two.group} is nested in {one.group}"
    if pairs == one.n_levels * two.n_levels:
        return f"{one.group} and {two.group} are fully crossed"
    return f"{one.group} and {two.group} are partly crossed ({pairs} of {one.n_levels * two.n_levels} combinations occur)"
