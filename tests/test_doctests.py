"""Every example in the docstring of a public name runs and prints what it says."""

from __future__ import annotations

import doctest
import inspect
import warnings

import pytest

import bayeslmm

FINDER = doctest.DocTestFinder(recurse=True)
NAMES = [name for name in bayeslmm.__all__ if inspect.getdoc(getattr(bayeslmm, name)) and callable(getattr(bayeslmm, name))]


@pytest.mark.parametrize("name", NAMES)
def test_examples(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in FINDER.find(getattr(bayeslmm, name), name, globs={"bl": bayeslmm, "bayeslmm": bayeslmm}):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            runner.run(test)
    assert runner.failures == 0
