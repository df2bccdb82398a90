"""The rules of the structure: instant import, layers, the README's map, the public names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import bayeslmm
from tests.support import ROOT

PACKAGE = ROOT / "bayeslmm"
HEAVY = ("pymc", "pytensor", "arviz", "nutpie", "numba", "pandas", "scipy", "matplotlib", "xarray", "narwhals")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def test_import_loads_nothing_heavy() -> None:
    loaded = run("import sys, bayeslmm; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_import_takes_under_300_ms() -> None:
    code = "import time; t = time.perf_counter(); import bayeslmm; print(time.perf_counter() - t)"
    assert min(float(run(code)) for _ in range(3)) < 0.3


def test_classical_fit_loads_no_pymc() -> None:
    loaded = run("import sys, bayeslmm as bl; bl.lmer('Yield ~ 1 + (1 | Batch)', bl.load_dataset('Dyestuff')); print(*sys.modules)").split()
    assert not {"pymc", "pytensor", "matplotlib"} & set(loaded)


def test_every_public_name_loads() -> None:
    for name in bayeslmm.__all__:
        assert getattr(bayeslmm, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(bayeslmm, "no_such_name")


def module_sentences() -> dict[str, str]:
    """Return module -> first line of its docstring, for every module of the package."""
    sentences = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf8")))
        assert doc, f"{path.relative_to(ROOT)} has no docstring"
        sentences[path.relative_to(ROOT).as_posix()] = doc.splitlines()[0]
    return sentences


def test_readme_map_repeats_the_sentences_of_the_modules() -> None:
    sentences = module_sentences()
    text = (ROOT / "README.md").read_text(encoding="utf8")
    mapped = dict(re.findall(r"^\| `(bayeslmm/[\w/.]+)` \| (.+) \|$", text, flags=re.MULTILINE))
    assert mapped, "README.md has no map"
    assert {path: sentence for path, sentence in mapped.items() if sentences.get(path) != sentence} == {}
    tops = {path for path in sentences if path.count("/") == 1 or path.endswith("/__init__.py")} - {"bayeslmm/__main__.py"}
    assert tops - set(mapped) == set()


def test_top_level_directories() -> None:
    for name in ("bayeslmm", "models", "tests", "notebooks", "docs", "benchmarks"):
        assert (ROOT / name).is_dir()
