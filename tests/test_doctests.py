"""Every example in a docstring of the package runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import warnings

import pytest

import bayeslmm

FINDER = doctest.DocTestFinder(exclude_empty=True)
MODULES = sorted(found.name for found in pkgutil.walk_packages(bayeslmm.__path__, "bayeslmm.") if not found.name.endswith("__main__"))


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in FINDER.find(importlib.import_module(name), extraglobs={"bl": bayeslmm}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runner.run(test)
    assert runner.failures == 0
