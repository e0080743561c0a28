"""Loading data: the bundled sets, LIBSVM files, arrays and sparse matrices."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import datasets

from asgrad.problems import Dataset, Logistic, Softmax, load

LIBSVM = """\
+1 1:0.5 3:-2
-1 2:1e-3 # a remark
+1 1:3 2:4 5:1
-1
"""
ROWS = np.array(
    [[0.5, 0, -2, 0, 0], [0, 1e-3, 0, 0, 0], [3, 4, 0, 0, 1], [0, 0, 0, 0, 0]], np.float64
)
LABELS = np.array([1.0, -1.0, 1.0, -1.0])
WRITERS: dict[str, Callable] = {"": open, ".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}


def test_digits_are_the_ten_digits_between_zero_and_one():
    data = load("digits")
    features, targets = datasets.load_digits(return_X_y=True)
    np.testing.assert_array_equal(data.features.toarray(), features / 16)
    np.testing.assert_array_equal(data.targets, targets)
    assert data.features.shape == (1797, 64)
    assert data.features.max() == 1.0
    assert data.name == "digits"
    assert Softmax("digits", n_workers=4).dim == 640


def test_breast_cancer_is_standardised():
    data = load("breast-cancer")
    features, targets = datasets.load_breast_cancer(return_X_y=True)
    rows = data.features.toarray()
    assert rows.shape == (569, 30)
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((rows**2).mean(axis=0), 1, rtol=1e-12)
    for column, original in zip(rows.T, features.T, strict=True):
        assert np.corrcoef(column, original)[0, 1] == pytest.approx(1)
    np.testing.assert_array_equal(data.targets, targets)
    assert Logistic("breast-cancer", n_workers=4).dim == 30


@pytest.mark.parametrize("name", ["digits", "breast-cancer"])
def test_bundled_data_are_found_wherever_scikit_learn_keeps_them(name, monkeypatch):
    found = load(name)
    monkeypatch.setattr("asgrad.problems.data.find_spec", lambda package: None)
    other = load(name)
    np.testing.assert_array_equal(found.features.toarray(), other.features.toarray(), strict=True)
    np.testing.assert_array_equal(found.targets, other.targets, strict=True)


@pytest.mark.parametrize("ending", WRITERS)
@pytest.mark.parametrize("as_text", [False, True])
def test_a_libsvm_file_is_read_plain_or_compressed(tmp_path, ending, as_text):
    path = tmp_path / f"small.svm{ending}"
    with WRITERS[ending](path, "wb") as file:
        file.write(LIBSVM.encode())
    data = load(str(path) if as_text else path)
    np.testing.assert_array_equal(data.features.toarray(), ROWS)
    np.testing.assert_array_equal(data.targets, LABELS)
    assert data.features.dtype == data.targets.dtype == np.float64
    assert data.name == "small"


def test_a_libsvm_file_gives_the_problem_of_its_arrays(tmp_path):
    path = tmp_path / "small.svm"
    path.write_text(LIBSVM)
    x = np.arange(5.0) / 10
    losses = {Logistic(source, n_workers=2).loss(x) for source in (path, (ROWS, LABELS))}
    assert len(losses) == 1


@pytest.mark.parametrize(
    "make",
    [
        np.asarray,
        np.asfortranarray,
        np.ndarray.tolist,
        sparse.csr_matrix,
        sparse.csc_matrix,
        sparse.coo_matrix,
        sparse.csr_array,
        sparse.lil_matrix,
        lambda rows: sparse.csr_matrix(rows.astype(np.float32)),
        np.float32,
        lambda rows: rows.astype(object),
        lambda rows: np.ma.masked_array(rows, mask=False),
        pd.DataFrame,
        lambda rows: pd.DataFrame(rows, dtype=object),
    ],
)
def test_features_of_every_make_are_taken(make):
    rows = np.where(ROWS == 1e-3, 0.25, ROWS)  # exact in single precision, too
    data = load((make(rows), LABELS.astype(int).tolist()))
    np.testing.assert_array_equal(data.features.toarray(), rows)
    np.testing.assert_array_equal(data.targets, LABELS)
    assert data.features.dtype == data.targets.dtype == np.float64


def test_a_data_set_is_taken_as_it_is():
    data = Dataset.of(ROWS, LABELS, "mine")
    assert load(data) is data
    assert data.name == "mine"


def test_entries_given_twice_are_added():
    twice = sparse.coo_matrix(([1.0, 2.0, 5.0], ([0, 0, 1], [1, 1, 0])), shape=(2, 2))
    np.testing.assert_array_equal(load((twice, [1, -1])).features.toarray(), [[0, 3], [5, 0]])


def test_the_users_arrays_are_left_as_they_were():
    parts = np.array([1.0, 2.0, 5.0]), np.array([1, 1, 0]), np.array([0, 2, 3])
    mine = sparse.csr_matrix(parts, shape=(2, 2))  # an entry twice, and none in order
    kept = [part.copy() for part in (mine.data, mine.indices, mine.indptr)]
    targets = np.array([1.0, -1.0])
    problem = Logistic((mine, targets), n_workers=1)
    problem.loss(np.ones(2))
    for part, before in zip((mine.data, mine.indices, mine.indptr), kept, strict=True):
        np.testing.assert_array_equal(part, before)
    np.testing.assert_array_equal(targets, [1.0, -1.0])


def test_a_data_set_does_not_follow_later_changes_of_the_arrays():
    rows, targets = ROWS.copy(), LABELS.copy()
    problem = Logistic((rows, targets), n_workers=2)
    before = problem.loss(np.ones(5))
    rows[:], targets[:] = 9.0, 1.0
    assert problem.loss(np.ones(5)) == before


@pytest.mark.parametrize("kind", [bool, np.int8, np.uint64, np.float16, pd.Series, list])
def test_targets_of_every_make_are_taken(kind):
    made = kind([1, 0, 1, 0]) if kind in (pd.Series, list) else np.array([1, 0, 1, 0], kind)
    data = load((np.eye(4).astype(int), made))
    np.testing.assert_array_equal(data.targets, [1.0, 0.0, 1.0, 0.0], strict=True)
    assert data.features.dtype == np.float64


@pytest.mark.parametrize(
    ("text", "rows", "labels"),
    [
        (b"\xef\xbb\xbf1 1:2\n-1 2:3\n", [[2, 0], [0, 3]], [1, -1]),
        (b"1 1:2\r\n-1 2:3\r\n", [[2, 0], [0, 3]], [1, -1]),
        (b"# a\n\n1 1:2 # b 9:9\n#c\n-1 2:3", [[2, 0], [0, 3]], [1, -1]),
        (b"1 qid:1 1:2\n-1 qid:2 2:3\n", [[2, 0], [0, 3]], [1, -1]),
        (b"1 0:2\n-1 1:3\n", [[2, 0], [0, 3]], [1, -1]),  # counted from 0
        (b"1\n-1 2:3\n", [[0, 0], [0, 3]], [1, -1]),
        (b"1\t1:2\t2:1e1\n 2.5 1:0\n", [[2, 10], [0, 0]], [1, 2.5]),
    ],
)
def test_libsvm_files_of_every_make_are_read(tmp_path, text, rows, labels):
    path = tmp_path / "small.svm"
    path.write_bytes(text)
    data = load(path)
    np.testing.assert_array_equal(data.features.toarray(), rows)
    np.testing.assert_array_equal(data.targets, labels)
    assert data.zero_based is (b" 0:" in text)


def test_a_path_may_begin_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "small.svm").write_text(LIBSVM)
    assert load("~/small.svm").name == load(Path("~/small.svm")).name == "small"


def test_a_folder_with_dots_and_blanks_in_its_name_is_no_hindrance(tmp_path):
    folder = tmp_path / "my data.v1"
    folder.mkdir()
    path: Path = folder / "a b.c.svm"
    path.write_text(LIBSVM)
    assert load(path).features.shape == (4, 5)
