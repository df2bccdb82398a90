"""Formulas: text -> `Formula` with R's semantics, without any data; only allow-listed functions can be called."""

from bayeslmm.formula.deparse import deparse
from bayeslmm.formula.nodes import Formula
from bayeslmm.formula.parse import expand_dot, expanded, fixed_only, format_formula, formula, parse, with_dialect
from bayeslmm.formula.parser import parse_expression

__all__ = [
    "Formula",
    "deparse",
    "expand_dot",
    "expanded",
    "fixed_only",
    "format_formula",
    "formula",
    "parse",
    "parse_expression",
    "with_dialect",
]
