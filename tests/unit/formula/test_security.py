"""Hostile text: every string ends in a `FormulaError`, at once; any text at all is read or refused, never worse."""

from __future__ import annotations

import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bayeslmm.errors import DataWarning, FormulaError
from bayeslmm.formula import deparse, expanded, format_formula, parse, parse_expression

_FUNCTIONS = (
    "eval exec compile open input print getattr setattr delattr globals locals vars dir type object super id hash repr str int float"
    " bool list dict set tuple map filter zip range iter next callable breakpoint exit quit help memoryview bytearray classmethod"
    " __import__ system popen source library require get assign do.call Sys.getenv Sys.setenv readRDS file unlink eval.parent parse"
    " expression quote substitute function_ lambda_ np.log numpy.log os.system pd.eval builtins.eval math.exp scipy.special.expit"
    " mean sum max min len sorted abs.default log.default self cls q Q"
)
CALLS = [f"y ~ {name}(x)" for name in _FUNCTIONS.split()]

OBJECTS = [
    "y ~ x.__class__()",
    "y ~ ().__class__",
    "y ~ ''.__class__",
    "y ~ x.__class__.__mro__[1].__subclasses__()",
    "y ~ [].__class__.__base__",
    "y ~ {}.__class__",
    "y ~ (1).__class__",
    "y ~ 'a'.format(x)",
    "y ~ '{0.__class__}'.format(x)",
    "y ~ x.mean()",
    "y ~ x.values.tolist()",
    "y ~ log.__globals__()",
    "y ~ log.__globals__['os']",
    "y ~ I(x).__class__",
    "y ~ x[0]",
    "y ~ x[x > 0]",
    "y ~ x[[1]]",
    "y ~ d$x",
    "y ~ d@x",
    "y ~ base::eval(x)",
    "y ~ base:::eval(x)",
    "y ~ x$y$z",
    "y ~ log(x).real",
    "y ~ (x).y",
    "y ~ __builtins__()",
    "y ~ __builtins__['eval']",
    "y ~ poly(x, 2).__dict__",
]

CODE = [
    "import os",
    "import os; os.system('id')",
    "y ~ x; import os",
    "y ~ x\nimport os",
    "y ~ x\n\nprint(1)",
    "lambda: 0",
    "y ~ lambda x: x",
    "y ~ (lambda: 0)()",
    "y ~ (x := 1)",
    "y ~ log(x := 1)",
    "y := x",
    "y ~ [x for x in y]",
    "y ~ {x for x in y}",
    "y ~ (x for x in y)",
    "y ~ x if y else z",
    "y ~ f'{x}'",
    "y ~ f\"{__import__('os')}\"",
    "y ~ b'x'",
    "y ~ r'x'",
    "y ~ rb'x'",
    "y ~ u'x'",
    "y ~ *x",
    "y ~ **x",
    "y ~ log(*x)",
    "y ~ log(**x)",
    "y ~ yield x",
    "y ~ await x",
    "y ~ x; y",
    "y ~ {x}",
    "y ~ {x; y}",
    "y ~ function(x) x",
    "y ~ \\(x) x",
    "y ~ x |> log()",
    "y ~ x %>% log",
    "y ~ x %o% z",
    "y ~ x %*% z",
    "y ~ x %/% z",
    "y <- x",
    "y ~ x <- 1",
    "y ~ x <<- 1",
    "y ~ 1 -> x",
    "y ~ x = 1",
    "y = x",
    "y ~ while (TRUE) x",
    "y ~ repeat x",
    "y ~ if (x) z",
    "y ~ for (i in x) z",
    "y ~ next",
    "y ~ break",
    "y ~ in",
    "y ~ ?x",
    "y ~ @x",
    "y ~ x @ z",
    "y ~ $x",
    "y ~ ~~x",
    "y ~ x ~ z",
    "~ ~ x",
    "y ~ !",
    "y ~ x and z",
    "y ~ not x",
    "y ~ x is z",
    "y ~ x // z",
    "y ~ x << 2",
    "y ~ x >> 2",
    "y ~ x ^^ 2",
    "y ~ x***2",
    "y ~ x -> z",
    "y ~ x => z",
    "y ~ x === z",
    "y ~ x <> z",
    "y ~ x!z",
    "assert x",
    "del x",
    "raise x",
    "return x",
    "y ~ `x`()",
    "y ~ `eval`(x)",
    "y ~ 'eval'(x)",
    'y ~ "log"(x)',
    "y ~ (log)(x)",
    "y ~ log(x)(z)",
    "y ~ ((x))(z)",
    "y ~ 1(x)",
    "y ~ TRUE(x)",
    "y ~ NULL(x)",
    "%%",
    "y ~ %in%",
    "y ~ x %in%",
    "y ~ x %in z",
    "y ~ %%x",
    "y ~ x %",
    "y ~ x ?",
]

SPELLINGS = [
    "y ~ ｌｏｇ(x)",
    "y ~ ᵉval(x)",
    "y ~ eval（x）",
    "y ~ 𝐞𝐯𝐚𝐥(x)",
    "y ~ 𝓮𝓿𝓪𝓵(x)",
    "y ~ lоg(x)",
    "y ~ ɩog(x)",
    "y ~ ＿＿import＿＿(x)",
    "y ~ ﬁle(x)",
    "y ~ x\u202e(g)",
    "y ~ \u202ex",
    "y ~ x\u2066 + z",
    "y ~ x\u200b",
    "y ~ x\u200dz",
    "y ~ \ufeffx",
    "y ~ x\u00adz",
    "y ~ x\u2060z",
    "y ~ x\u061c",
    "y ~ x\x00",
    "\x00",
    "y ~ \x00x",
    "y\x00 ~ x",
    "y ~ 'a\x00'",
    "y ~ `a\x00b`",
    "y ~ `a\u202eb`",
    "y ~ 'a\u2067b'",
    "y ~ x\x07",
    "y ~ x\x1b[31m",
    "y ~ \ud800",
    "y ~ `\ud800`",
    "y ~ 'a\udfff'",
    "y ~ x²",
    "y ~ x½",
    "y ~ ½",
    "y ~ ①",
    "y ~ x − z",
    "y ~ x × z",
    "y ~ x ∗ z",
    "y ~ x ＋ z",
    "y ～ x",
    "y ∼ x",
    "y ~ x ｜ g",
    "y ~ (1 ｜ g)",
    "y ~ (1 ∣ g)",
    "y ~ “x”",
    "y ~ ‘x’",
    "y ~ x… ",
    "y ~ 😀",
    "y ~ x😀",
    "y ~ ٣",
    "y ~ x + ３",
    "y ~ \u0301x",
    "y ~ `x",
    "y ~ x`",
    "y ~ ``",
    "y ~ `a``b`",
    "y ~ `a`b`",
    "y ~ `\\`",
    "y ~ `a\\x00`",
    "y ~ `a\\0b`",
    "y ~ 'a",
    'y ~ "a',
    "y ~ 'a\"",
    "y ~ '\\u202e'",
    "y ~ `.`",
    "y ~ `a`(b)",
    "y ~ '''x'''",
    'y ~ """x"""',
    "y ~ '\\",
    "y ~ `a` `b`",
    "y ~ `eval(x)`(1)",
]

NUMBERS = [
    "y ~ 1e400",
    "y ~ 1e99999999",
    "y ~ " + "9" * 5000,
    "y ~ x^1e300^1e300",
    "y ~ x^-1",
    "y ~ x^0",
    "y ~ x^(2)",
    "y ~ x^z",
    "y ~ 9^9^9",
    "y ~ 0x41",
    "y ~ 1_000",
    "y ~ 1j",
    "y ~ 1i",
    "y ~ NaN",
    "y ~ Inf",
    "y ~ -Inf",
    "y ~ NA",
    "y ~ 1..2",
    "y ~ 1.2.3",
    "y ~ 7",
    "y ~ x + 7",
    "y ~ x - 7",
    "y ~ -2",
    "y ~ 'text'",
    "y ~ NULL",
    "y ~ TRUE",
    "y ~ x:2",
    "y ~ I(2)",
    "y ~ log(2)",
    "y ~ c(1, 2)",
]

SIZES = [
    "(" * 100_000,
    "y ~ " + "(" * 4000 + "x" + ")" * 4000,
    "y ~ " + "-" * 9000 + "x",
    "y ~ " + "!" * 9000 + "x",
    "y ~ " + "~" * 9000 + "x",
    "y ~ " + "x^" * 4000 + "2",
    "y ~ " + "x*" * 4000 + "x",
    "y ~ " + "x:" * 4000 + "x",
    "y ~ " + "x/" * 4000 + "x",
    "y ~ " + "x%in%" * 1500 + "x",
    "y ~ " + "log(" * 2000 + "x" + ")" * 2000,
    "y ~ I(" + "x+" * 4000 + "x)",
    "y ~ (1|" * 1000 + "g" + ")" * 1000,
    "y ~ " + "x" * 100_000,
    "y ~ (1 | " + "a/" * 1000 + "b)",
    "y ~ (1 | " + "a:" * 1000 + "b)",
    "y ~ " + "+".join(f"a{i}" for i in range(100_000)),
    "x+" * 4000 + "x ~ z",
    "y ~ (" + "+".join(f"a{i}" for i in range(100)) + ")^99",
    "y ~ " + "*".join(f"a{i}" for i in range(90)),
    "y ~ x == " + "x+" * 3000 + "x",
    "y ~ (" + "*".join(f"a{i}" for i in range(90)) + " | g)",
    "y ~ (1 | " + "*".join(f"a{i}" for i in range(90)) + ")",
    "y ~ (" + "*".join(f"a{i}" for i in range(90)) + " || g)",
    "y ~ " + "'" * 9001,
    "y ~ " + "`" * 9001,
    "y ~ " + "\\" * 9000,
    "|" * 9000,
    "~" * 9000,
    "%" * 9000,
    "," * 9000,
    ")" * 9000,
    "y ~ log(" + "x," * 4000 + "x)",
    "y ~ c(" + ",".join(["x"] * 2000) + ")",
]

BARS = [
    "y ~ x | g",
    "y ~ x || g",
    "y ~ (x | g",
    "y ~ x | g)",
    "y ~ (|)",
    "y ~ (| g)",
    "y ~ (1 |)",
    "y ~ (1 | g | h)",
    "y ~ (1 ||| g)",
    "y ~ ((1 | g) | h)",
    "y ~ log((1 | g))",
    "y ~ log(1 | g)",
    "y ~ x * (1 | g)",
    "y ~ x - (1 | g)",
    "y ~ (1 | g)(h)",
    "y ~ us((1 | g))(x)",
    "y ~ us(us(1 | g))",
    "y ~ us(x)",
    "y ~ us()",
    "y ~ us(1 | g, x)",
    "y ~ us(1 | g, a = b)",
    "y ~ us(1 | g, a = eval(b))",
    "y ~ (1 | eval(g))",
    "y ~ (eval(x) | g)",
    "y ~ (1 | 'g')",
    "y ~ (1 | TRUE)",
    "y ~ (1 | log(g))",
    "(1 | g) ~ x",
    "y | eval(n) ~ x",
    "y | trials(eval(n)) ~ x",
    "y | trials() ~ x",
    "trials(y) ~ x",
    "y | ~ x",
]

BLANK = [
    "",
    " ",
    "\n",
    "# y ~ x",
    "~",
    "y",
    "y ~",
    "~ #x",
    "()",
    "y ~ ()",
    "y ~ (+)",
    "+",
    ".",
    "...",
    ". ~ .",
    "y ~ x,",
    "y, z ~ x",
    "y ~ x x",
]

HOSTILE = [*CALLS, *OBJECTS, *CODE, *SPELLINGS, *NUMBERS, *SIZES, *BARS, *BLANK]


def test_the_corpus_is_large() -> None:
    assert len(set(HOSTILE)) >= 300


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_a_formula_error_at_once(text: str) -> None:
    start = time.perf_counter()
    with pytest.raises(FormulaError) as caught:
        parse(text)
    assert time.perf_counter() - start < 5
    assert str(caught.value).isprintable() or "\n" in str(caught.value)
    assert not {"\x00", "\u202e", "\x1b"} & set(str(caught.value))


@pytest.mark.parametrize("text", [text for text in HOSTILE if "~" not in text[:3]][:60])
def test_hostile_parameters_too(text: str) -> None:
    with pytest.raises(FormulaError):
        parse("y ~ x", parameters={"sigma": text})


def test_a_column_may_have_a_dangerous_name() -> None:
    parsed = parse("y ~ `__import__('os')` + eval + __class__")
    assert [term.label for term in parsed.mean.terms] == ["`__import__('os')`", "eval", "`__class__`"]


def read(text: str) -> None:
    """Read a text; whatever is read must print as something that reads back the same."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)
            parsed = parse(text)
            printed = format_formula(parsed)
            again = parse(printed)
    except FormulaError:
        return
    assert format_formula(again) == printed
    assert expanded(again) == expanded(parsed)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    read(text)
    read("y ~ " + text)


_WORDS = (
    "y x z g `a` f.1 . 0 1 2 1.5 1e5 'a' TRUE NULL ~ + - * / ^ ** : %in% %% | || ( ( ) ) , = == < ! & &&"
    " log( I( poly( cs( offset( cbind( (1| (x|"
)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.sampled_from(_WORDS.split()), max_size=25))
def test_any_words_are_read_or_refused(words: list[str]) -> None:
    read("y ~ x + " + " ".join(words))
    read(" ".join(words))


_LEAVES = st.sampled_from(["x", "z", "`a b`", "f.1", "log(x)", "I(x^2)", "poly(x, 2, raw = TRUE)", "factor(g)", "1", "0", "offset(w)"])


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(inner, st.sampled_from([" + ", " - ", " * ", ":", "/", " %in% "]), inner).map("".join)
    return binary | inner.map("({})".format) | inner.map("({})^2".format) | inner.map("-{}".format)


_TERMS = st.recursive(_LEAVES, _larger, max_leaves=8)
_BARS = st.builds("({} {} {})".format, _TERMS, st.sampled_from(["|", "||"]), st.sampled_from(["g", "a/b", "a:b", "a/b/c", "a*b"]))


@settings(max_examples=300, deadline=None)
@given(st.lists(_TERMS | _BARS, min_size=1, max_size=4))
def test_formulas_of_the_grammar_print_and_read_back(parts: list[str]) -> None:
    text = "y ~ " + " + ".join(parts)
    assert deparse(parse_expression(deparse(parse_expression(text)))) == deparse(parse_expression(text))
    assert parse_expression(deparse(parse_expression(text))) == parse_expression(text)
    read(text)
