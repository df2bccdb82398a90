"""Contrast matrices: closed forms, R's labels, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from bayeslmm.errors import FormulaError
from bayeslmm.formula.contrasts import CONTRASTS, contrast_matrix, contrast_spec

LEVELS = ("a", "b", "c", "d")
ROOT = np.sqrt([20.0, 4.0, 20.0])


@pytest.mark.parametrize(
    ("name", "matrix", "labels"),
    [
        ("treatment", [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], ("b", "c", "d")),
        ("SAS", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], ("a", "b", "c")),
        ("sum", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]], ("1", "2", "3")),
        ("helmert", [[-1, -1, -1], [1, -1, -1], [0, 2, -1], [0, 0, 3]], ("1", "2", "3")),
        ("poly", np.array([[-3, 1, -1], [-1, -1, 3], [1, -1, -3], [3, 1, 1]]) / ROOT, (".L", ".Q", ".C")),
    ],
)
@pytest.mark.parametrize("prefix", ["", "contr."])
def test_matrices_and_labels_of_R(name, matrix, labels, prefix):
    found, names = contrast_matrix(LEVELS, prefix + name, "f")
    np.testing.assert_allclose(found, matrix, atol=1e-14)
    assert names == labels


def test_polynomial_labels_beyond_the_cubic():
    assert contrast_matrix(tuple("abcdef"), "poly", "f")[1] == (".L", ".Q", ".C", "^4", "^5")


@pytest.mark.parametrize("name", CONTRASTS)
@pytest.mark.parametrize("size", [2, 3, 7])
def test_every_contrast_spans_the_factor_with_the_intercept(name, size):
    matrix, names = contrast_matrix(tuple(str(i) for i in range(size)), name, "f")
    assert matrix.shape == (size, size - 1)
    assert len(set(names)) == size - 1
    assert np.linalg.matrix_rank(np.column_stack([np.ones(size), matrix])) == size


def test_a_matrix_with_names_and_one_without():
    rows = [[1.0, 0.0], [-1.0, 0.5], [0.0, -0.5]]
    assert contrast_matrix(("a", "b", "c"), pd.DataFrame(rows, columns=["ab", "bc"]), "f")[1] == ("ab", "bc")
    matrix, names = contrast_matrix(("a", "b", "c"), rows, "f")
    assert names == ("1", "2")
    assert matrix.tolist() == rows


def test_a_vector_is_one_contrast():
    assert contrast_matrix(("a", "b", "c"), [1, 0, -1], "f")[0].tolist() == [[1.0], [0.0], [-1.0]]


def test_specs_are_json_and_stable():
    spec = contrast_spec(np.array([[1.0], [-1.0]]))
    assert contrast_spec(json.loads(json.dumps(spec))) == spec


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("contr.sumx", "unknown contrast 'contr.sumx'; did you mean 'sum'"),
        ([[1, 0], [0, 1]], "has 2 rows, but the factor has 3 levels"),
        ([[1, 2], [2, 4], [3, 6]], "singular"),
        ([[1], [1], [1]], "singular"),
        (np.eye(3), "singular"),
        ("", "unknown contrast"),
        ([["x"], ["y"], ["z"]], "a name .* or a matrix of numbers"),
        ([[np.nan], [1], [2]], "finite"),
    ],
)
def test_what_is_no_contrast_is_refused(spec, message):
    with pytest.raises(FormulaError, match=message):
        contrast_matrix(("a", "b", "c"), spec, "f")
