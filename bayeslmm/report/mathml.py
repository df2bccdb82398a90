"""The LaTeX that models are written in, as MathML: browsers show it without scripts or fonts from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

__all__ = ["mathml"]

_SYMBOLS = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "eta": "η", "theta": "θ", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν",
    "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "ϕ", "omega": "ω", "Sigma": "Σ", "Lambda": "Λ", "Omega": "Ω",
}  # fmt: skip
_OPERATORS = {
    "sim": "∼",
    "dots": "…",
    "ldots": "…",
    "cdot": "⋅",
    "times": "×",
    "mid": "|",
    "quad": "\u2003",
    ",": "\u2009",
    " ": "\u2005",
    ";": "\u2004",
}
_ESCAPED = {"_": "_", "%": "%", "&": "&", "#": "#", "$": "$", "{": "{", "}": "}"}
_STYLES = ("mathrm", "mathbf", "boldsymbol", "mathcal", "text")
_INFIX = ' form="infix"'
_TOKEN = re.compile(r"\\begin\{aligned\}|\\end\{aligned\}|\\\\|\\[A-Za-z]+|\\.|[{}_^&]|\d+(?:\.\d+)?|\s+|.", re.DOTALL)


def mathml(latex: str) -> str:
    r"""Return the subset of LaTeX that `Model.explain` writes as an HTML table of MathML cells, aligned at the `&`.

    Unknown commands appear as their names. (Cells of a table, because browsers do not align the columns of MathML's own.)

    Examples
    --------
    >>> "<msub><mi>μ</mi><mi>i</mi></msub>" in mathml(r"\mu_i &= \beta_{0}")
    True
    """
    tokens = [token for token in _TOKEN.findall(latex) if token not in (r"\begin{aligned}", r"\end{aligned}") and not token.isspace()]
    rows: list[list[list[str]]] = [[[]]]
    for token in tokens:
        if token == r"\\":
            rows.append([[]])
        elif token == "&":
            rows[-1].append([])
        else:
            rows[-1][-1].append(token)
    body = "".join(f"<tr>{''.join(_cell(cell, place) for place, cell in enumerate(row))}</tr>" for row in rows if any(row))
    return f'<div class="scroll"><table class="equation" role="math"><tbody>{body}</tbody></table></div>'


def _cell(tokens: list[str], place: int) -> str:
    return f'<td class="{"l" if place == 0 else "r"}"><math displaystyle="true"><mrow>{_sequence(iter(tokens), None)}</mrow></math></td>'


def _sequence(tokens: Iterator[str], end: str | None) -> str:
    """Return MathML up to `end` (or the tokens' end), with subscripts and superscripts bound to what precedes them."""
    atoms: list[tuple[str, str, str]] = []
    for token in tokens:
        if token == end:
            break
        if token in ("_", "^"):
            base, below, above = atoms.pop() if atoms else ("<mrow></mrow>", "", "")
            script = _atom(next(tokens, ""), tokens)
            atoms.append((base, script, above) if token == "_" else (base, below, script))
        else:
            atoms.append((_atom(token, tokens), "", ""))
    return "".join(_scripted(*atom) for atom in atoms)


def _scripted(base: str, below: str, above: str) -> str:
    if below and above:
        return f"<msubsup>{base}{below}{above}</msubsup>"
    if below:
        return f"<msub>{base}{below}</msub>"
    return f"<msup>{base}{above}</msup>" if above else base


def _atom(token: str, tokens: Iterator[str]) -> str:
    if token == "{":
        return f"<mrow>{_sequence(tokens, '}')}</mrow>"
    if token.startswith("\\"):
        return _command(token[1:], tokens)
    if token[:1].isdigit():
        return f"<mn>{token}</mn>"
    return f"<mi>{escape(token)}</mi>" if token.isalpha() else f"<mo{_INFIX if token in '=+' else ''}>{escape(token)}</mo>"


def _command(name: str, tokens: Iterator[str]) -> str:
    if name in _STYLES:
        return _styled(_plain(tokens), name)
    if name in _SYMBOLS:
        return f"<mi>{_SYMBOLS[name]}</mi>"
    if name in _OPERATORS:
        shown = _OPERATORS[name]
        return f"<mtext>{shown}</mtext>" if shown.isspace() else f'<mo form="infix">{shown}</mo>'
    return f"<mtext>{escape(_ESCAPED.get(name, name))}</mtext>"


def _plain(tokens: Iterator[str]) -> str:
    """Return the braced argument that follows as plain text."""
    depth, text = 0, []
    for token in tokens:
        if token == "{":
            depth += 1
            continue
        if token == "}":
            depth -= 1
            if depth == 0:
                break
            continue
        text.append(_ESCAPED.get(token[1:], _SYMBOLS.get(token[1:], token[1:])) if token.startswith("\\") else token)
        if depth == 0:
            break
    return "".join(text)


def _styled(text: str, command: str) -> str:
    shown = escape(text)
    if command == "mathcal" and text == "N":
        return "<mi>𝒩</mi>"
    if command in ("mathbf", "boldsymbol"):
        return f'<mi class="b" mathvariant="normal">{shown}</mi>'
    return f"<mtext>{shown}</mtext>"
