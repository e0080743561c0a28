"""Data and parameters that cannot be used are refused in one clear line."""

from __future__ import annotations

import bz2
import gzip
import lzma

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from asgrad import machine
from asgrad.errors import AsgradError, KindError, UnknownNameError
from asgrad.problems import (
    LeastSquares,
    Logistic,
    Quadratic,
    Softmax,
    Tridiagonal,
    libsvm,
    load,
    split,
    synthetic,
)

ROWS = np.arange(12.0).reshape(4, 3)
SIGNS = np.array([1.0, -1.0, 1.0, -1.0])
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("features", "targets", "words"),
    [
        (np.zeros((0, 3)), [], ["empty", "0 rows"]),
        (np.zeros((3, 0)), [1, 1, 1], ["empty", "0 columns"]),
        ([], [], ["features"]),
        (sparse.csr_matrix((0, 3)), [], ["empty"]),
        ([[1, 2], [3]], [1, -1], ["features", "one length"]),
        ([1.0, 2.0], [1, -1], ["two axes", "(2,)"]),
        (np.zeros((2, 2, 2)), [1, -1], ["two axes", "(2, 2, 2)"]),
        ([["a", "b"]], [1], ["features", "numbers"]),
        ([[1, None]], [1], ["features"]),
        ([[1, 2], [NAN, 3]], [1, -1], ["finite", "nan", "row 1", "column 0"]),
        ([[1, INF]], [1], ["finite", "inf", "row 0", "column 1"]),
        ([[1, -INF]], [1], ["finite", "-inf"]),
        (sparse.csr_matrix([[0, 0], [0, NAN]]), [1, -1], ["finite", "row 1", "column 1"]),
        (ROWS, [1, -1], ["one target a row", "(2,)", "4 rows"]),
        (ROWS, SIGNS[:, None], ["one target a row", "(4, 1)"]),
        (ROWS, [1, -1, NAN, 1], ["targets", "finite", "nan", "row 2"]),
        (ROWS, [1, -1, 1, INF], ["targets", "finite", "inf", "row 3"]),
        (ROWS, ["cat", "dog", "cat", "dog"], ["targets must be numbers", "map your labels"]),
        (ROWS, [None] * 4, ["targets", "nan"]),
        (ROWS, [[1], [1, 2], [1], [1]], ["targets"]),
        (ROWS * 1j, SIGNS, ["features", "real numbers", "complex128"]),
        (sparse.csr_matrix(ROWS * 1j), SIGNS, ["features", "real numbers", "complex128"]),
        (ROWS, SIGNS * 1j, ["targets", "real numbers", "complex128"]),
        ([["1", "2"]], [1], ["features", "numbers", "text"]),
        (np.array([["1", 2.0]], object), [1], ["features", "text"]),
        (ROWS, ["1", "-1", "1", "-1"], ["targets must be numbers", "map your labels"]),
        (np.array([["2020-01-01"]], "M8[D]"), [1], ["features", "real numbers", "datetime64"]),
        (np.ma.masked_equal(ROWS, 5), SIGNS, ["features", "masked"]),
        (ROWS, np.ma.masked_equal(SIGNS, 1), ["targets", "masked"]),
        (pd.DataFrame(ROWS).astype("Int64").where(ROWS < 9), SIGNS, ["features", "numbers"]),
        (pd.DataFrame({"a": ["x"], "b": [1]}), [1], ["features", "text"]),
        ([[10**400]], [1], ["features", "numbers"]),
        ([[2**53 + 1]], [1], ["features", "2^53"]),
        (ROWS, [2**60, 1, 2, 3], ["targets", "2^53"]),
        ([[1, 1e308]], [1], ["features", "at most 1e+140", "row 0, column 1"]),
        (sparse.csr_matrix([[0, -1e200]]), [1], ["features", "at most 1e+140", "-1e+200"]),
        (ROWS, [1, -1, 1e300, 1], ["targets", "at most 1e+140", "row 2"]),
        (sparse.csr_matrix((1, 2**31)), [1], ["at most 2147483647 columns"]),
        (sparse.coo_array([1.0, 2.0]), [1, -1], ["two axes", "(2,)"]),
    ],
)
def test_arrays_that_are_no_data_are_refused(refused, features, targets, words):
    text = refused(lambda: load((features, targets)))
    assert all(word in text for word in words), text


@pytest.mark.parametrize("source", [[ROWS, SIGNS], ROWS, (ROWS, SIGNS, 1), 3, None])
def test_what_is_no_source_of_data_is_a_type_error(refused, source):
    text = refused(lambda: load(source), KindError)
    assert text.startswith("data: give a name, a path or (features, targets)")


@pytest.mark.parametrize("model", [Logistic, Softmax])
def test_one_class_is_refused(refused, model):
    text = refused(lambda: model((ROWS, np.ones(4)), n_workers=2))
    assert text.startswith(f"{model.__name__}: ")
    assert "one class only" in text


@pytest.mark.parametrize("labels", [[1, 2, 1, 3], [0, 1, 2, 0], [-1, 0, 1, 0]])
def test_labels_of_more_than_two_classes_are_refused_with_the_way_to_map_them(refused, labels):
    text = refused(lambda: Logistic((ROWS, labels), n_workers=2))
    assert text.startswith("Logistic: labels must be of two classes, got 3: ")
    assert "np.where(" in text
    assert "Softmax" in text


def test_the_ten_digits_are_no_binary_labels(refused):
    assert "0, 1, 2, 3, 4, 5, ..." in refused(lambda: Logistic("digits"))


def test_a_misspelt_data_set_gets_the_closest_name(refused):
    text = refused(lambda: load("digts"), UnknownNameError)
    assert "'digts'" in text
    assert "Did you mean 'digits'?" in text
    assert "breast-cancer" in text


@pytest.mark.parametrize("name", ["nowhere.svm", "no/where", "/no/such/folder/w7a.svm.gz"])
def test_a_missing_file_is_named(refused, name):
    text = refused(lambda: load(name))
    assert "no file" in text
    assert name in text


def test_a_folder_is_no_file(refused, tmp_path):
    assert str(tmp_path) in refused(lambda: load(tmp_path))


TEXT = b"".join(b"%d 1:%d 3:0.5\n" % (1 - i % 2 * 2, i) for i in range(500))


DAMAGED = {
    "empty.svm": b"",
    "remark.svm": b"# nothing\n",
    "label.svm": b"cat 1:1\n",
    "labels.svm": b"1,2 1:1\n",
    "text.svm": b"this is no data\n",
    "table.svm": b"1.0,2.0,3.0\n",
    "unsorted.svm": b"1 3:1 2:1\n",
    "negative.svm": b"1 -3:1\n",
    "far.svm": b"1 4000000000:1\n",
    "farther.svm": b"1 99999999999999999999:1\n",
    "novalue.svm": b"1 1:\n",
    "nan.svm": b"1 1:nan\n-1 2:1\n",
    "label-inf.svm": b"inf 1:1\n",
    "binary.svm": bytes(range(256)) * 4,
    "latin.svm": "1 1:é\n".encode("latin-1"),
    "plain.gz": TEXT,
    "plain.bz2": TEXT,
    "short.gz": gzip.compress(TEXT)[:-20],
    "short.bz2": bz2.compress(TEXT)[:-20],
    "header-only.gz": gzip.compress(TEXT)[:10],
    "bad-block.gz": gzip.compress(TEXT)[:10] + b"\xff" * 40,
    "bad-sum.gz": gzip.compress(TEXT)[:-8] + b"\0" * 8,
    "plain.xz": TEXT,
    "short.xz": lzma.compress(TEXT)[:-20],
    "bad-block.xz": lzma.compress(TEXT)[:12] + b"\xff" * 40,
    "bad-sum.bz2": bz2.compress(TEXT)[:10] + b"\0\0" + bz2.compress(TEXT)[12:],
}


LINES = {
    "cat 1:1": "could not convert string to float: b'cat'",
    "1,2 1:1": "could not convert string to float: b'1,2'",
    "1 3:1 2:1": "the indices of the features must rise, each only once",
    "1 3:1 3:1": "the indices of the features must rise, each only once",
    "1 -3:1": "Invalid index -3",
    "1 4000000000:1": "a feature's index must be at most 2147483647",
    "1 99999999999999999999:1": "a feature's index must be at most 2147483647",
    "1 1:": "could not convert string to float: b''",
    "1 1": "features must be written index:value",
    "1 1.5:2": "invalid literal for int() with base 10: b'1.5'",
    "\0\1\2": "could not convert string to float",
}


@pytest.mark.parametrize("ending", ["", ".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("line", LINES)
def test_what_is_wrong_in_a_libsvm_file_is_said_with_its_line(refused, tmp_path, line, ending):
    path = tmp_path / f"small.svm{ending}"
    pack = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[ending]
    path.write_bytes(pack(f"1 1:1\n# remark\n\n{line}\n1 1:1\n".encode()))
    text = refused(lambda: load(path))
    assert text.startswith(f"data: {path} is not a readable LIBSVM file: line 4: {LINES[line]}")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1 7:nan", "features must be finite and at most 1e+140 in size, got nan in line 4, index"),
        ("1 7:-inf", "got -inf in line 4, index 7."),
        ("1 7:1e150", "got 1e+150 in line 4, index 7."),
        ("nan 7:1", "targets must be finite and at most 1e+140 in size, got nan in line 4."),
        ("1e400 7:1", "got inf in line 4."),
    ],
)
@pytest.mark.parametrize("first", [0, 1])
def test_numbers_that_are_none_are_said_with_their_line(refused, tmp_path, line, said, first):
    path = tmp_path / "small.svm"
    path.write_text(f"1 {first}:1\n# remark\n\n{line}\n1 1:1\n")
    text = refused(lambda: load(path))
    assert text.startswith(f"data: {path}: ")
    assert said in text


def test_a_file_that_is_cut_off_says_after_which_line(refused, tmp_path):
    path = tmp_path / "short.gz"
    path.write_bytes(gzip.compress(b"1 1:1\n" * 9)[:-9])
    assert "short.gz is not a readable LIBSVM file: line " in refused(lambda: load(path))
    assert "Compressed file ended" in refused(lambda: load(path))


def test_a_file_without_rows_is_empty(refused, tmp_path):
    path = tmp_path / "none.svm"
    path.write_text("# a\n\n# b\n")
    assert refused(lambda: load(path)) == f"data: {path} is empty: its 3 lines hold no rows."


@pytest.mark.parametrize("name", ["x" * 5000, "x" * 5000 + ".svm", "nul\0.svm", "a/" * 300 + "b"])
def test_names_that_no_file_can_have_are_one_short_line(refused, name):
    assert len(refused(lambda: load(name))) < 300


def test_data_that_memory_cannot_hold_are_refused(refused, tmp_path, monkeypatch):
    path = tmp_path / "small.svm"
    path.write_text("1 1:1\n" * 100)
    monkeypatch.setattr(machine, "available_memory", lambda: 500)
    assert refused(lambda: load(path)) == (
        f"data: the rows of {path} would take 600 B of memory, 500 B are available."
    )
    text = refused(lambda: synthetic(1, 1, n_workers=10**9))
    assert text.startswith("synthetic: 60000000000000 features would take 1.68 PB of memory")


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
@pytest.mark.parametrize("text", [b"1 1:1\n" * 200_000, b"1" * 1_200_000], ids=["rows", "line"])
def test_a_packed_file_that_is_too_large_is_refused_while_it_is_read(
    refused, tmp_path, monkeypatch, ending, text
):
    """Of 1.2 MB that come out of some kB, 100 kB and what is read at once are taken at most."""
    path = tmp_path / f"small.svm{ending}"
    path.write_bytes(
        {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[ending](text)
    )
    assert path.stat().st_size < 5000
    monkeypatch.setattr(libsvm, "_PIECE", 1000)
    monkeypatch.setattr(machine, "available_memory", lambda: 100_000)
    said = refused(lambda: load(path))
    assert said.startswith(f"data: the rows of {path} would take 1")
    assert said.endswith(" kB of memory, 100 kB are available.")


def test_a_line_may_come_in_pieces(tmp_path, monkeypatch):
    path = tmp_path / "small.svm"
    path.write_text("1 1:0.25 20:3 # remark\n\n-1 2:4 3:1\n1 1:5")
    whole = load(path)
    for size in (1, 2, 7, 25):
        monkeypatch.setattr(libsvm, "_PIECE", size)
        cut = load(path)
        np.testing.assert_array_equal(cut.features.toarray(), whole.features.toarray())
        np.testing.assert_array_equal(cut.targets, [1, -1, 1])


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_libsvm_file_is_refused(refused, tmp_path, name):
    path = tmp_path / name
    path.write_bytes(DAMAGED[name])
    assert name.split(".")[0] in refused(lambda: load(path))


def logistic(**options):
    """A small problem with the given parameters."""
    return Logistic((ROWS, SIGNS), **({"n_workers": 2} | options))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: logistic(n_workers=0), "Logistic: n_workers must be an integer >= 1, got 0."),
        (lambda: logistic(batch=0), "Logistic: batch must be an integer >= 1, got 0."),
        (lambda: logistic(batch=-2), "Logistic: batch must be an integer >= 1, got -2."),
        (lambda: logistic(strength=-0.5), "Logistic: strength must be finite and >= 0, got -0.5."),
        (
            lambda: logistic(strength=1e308),
            "Logistic: strength must be at most 1e+140, got 1e+308.",
        ),
        (lambda: logistic(strength=NAN), "Logistic: strength must be finite and >= 0, got nan."),
        (lambda: Tridiagonal(1), "Tridiagonal: dim must be an integer >= 2, got 1."),
        (lambda: Tridiagonal(9, noise=-1), "Tridiagonal: noise must be finite and >= 0, got -1."),
        (
            lambda: Tridiagonal(9, n_workers=0),
            "Tridiagonal: n_workers must be an integer >= 1, got 0.",
        ),
        (
            lambda: Quadratic([1], heterogeneity=INF),
            "Quadratic: heterogeneity must be finite and >= 0, got inf.",
        ),
        (lambda: Quadratic([1], noise=NAN), "Quadratic: noise must be finite and >= 0, got nan."),
        (lambda: synthetic(-1, 0), "synthetic: alpha must be finite and >= 0, got -1."),
        (lambda: synthetic(0, NAN), "synthetic: beta must be finite and >= 0, got nan."),
        (
            lambda: synthetic(1, 1, n_rows=0),
            "synthetic: n_rows must be an integer >= 1, got 0.",
        ),
        (
            lambda: synthetic(1, 1, n_features=0),
            "synthetic: n_features must be an integer >= 1, got 0.",
        ),
    ],
)
def test_a_parameter_out_of_range_is_refused(refused, make, text):
    assert refused(make) == text


@pytest.mark.parametrize(
    ("make", "start"),
    [
        (lambda: logistic(n_workers=2.0), "Logistic: n_workers must be an integer, got 2.0."),
        (lambda: logistic(batch="5"), "Logistic: batch must be an integer, got '5'."),
        (lambda: logistic(strength="0.1"), "Logistic: strength must be a number, got '0.1'."),
        (lambda: logistic(strength=""), "Logistic: strength must be a number, got ''."),
        (lambda: Tridiagonal(10.0), "Tridiagonal: dim must be an integer, got 10.0."),
        (lambda: synthetic(None, 1), "synthetic: alpha must be a number, got None."),
    ],
)
def test_a_parameter_of_the_wrong_kind_is_refused(refused, make, start):
    assert refused(make, KindError) == start


@pytest.mark.parametrize("wrong", [None, 3, ["l2"]])
@pytest.mark.parametrize("name", ["regularizer", "split"])
def test_a_choice_that_is_no_name_is_refused_by_its_own_name(refused, name, wrong):
    text = refused(lambda: logistic(**{name: wrong}))
    assert name in text
    assert repr(wrong) in text


@pytest.mark.parametrize("spectrum", [[], [[1.0]], 3.0, [1.0, -1.0], [NAN], "abc", [[1, 2], [3]]])
def test_a_spectrum_must_be_a_list_of_eigenvalues(refused, spectrum):
    assert refused(lambda: Quadratic(spectrum)).startswith("Quadratic: ")


@pytest.mark.parametrize(
    ("make", "guess"),
    [
        (lambda: logistic(regularizer="L2"), "'l2'"),
        (lambda: logistic(regularizer="non-convex"), "'nonconvex'"),
        (lambda: logistic(split="dirichet"), "'dirichlet'"),
        (lambda: logistic(split="shufled"), "'shuffled'"),
    ],
)
def test_a_misspelt_choice_gets_the_closest_name(refused, make, guess):
    assert f"Did you mean {guess}?" in refused(make, UnknownNameError)


@pytest.mark.parametrize("how", ["contiguous", "shuffled", "label", "dirichlet"])
@pytest.mark.parametrize("model", [Logistic, Softmax, LeastSquares])
def test_more_workers_than_rows_are_refused(refused, model, how):
    text = refused(lambda: model((ROWS, SIGNS), n_workers=5, split=how))
    assert all(word in text for word in ("one row a worker", "5 workers", "4 rows"))


@pytest.mark.parametrize("n_workers", [0, -1])
def test_a_split_over_no_worker_is_refused(refused, n_workers):
    data = load((ROWS, SIGNS))
    assert "n_workers" in refused(lambda: split(data, n_workers))


@pytest.mark.parametrize("alpha", [0, -1, NAN])
def test_alpha_must_be_positive(refused, alpha):
    text = refused(lambda: logistic(split="dirichlet", alpha=alpha))
    assert "alpha must be finite and > 0" in text


def test_a_dirichlet_split_that_cannot_serve_every_worker_is_refused(refused):
    # Nearly all of either class goes to one worker: two workers at most have rows, not three.
    text = refused(lambda: logistic(n_workers=3, split="dirichlet", alpha=1e-6))
    assert "larger alpha" in text


@pytest.mark.parametrize("seed", [-1, 1.5])
def test_a_seed_must_be_a_whole_number(refused, seed):
    for make in (logistic, lambda seed: Quadratic([1.0], seed=seed)):
        text = refused(lambda make=make: make(seed=seed))
        assert "seed must be an integer" in text


PROBLEMS = {
    "logistic": logistic,
    "batched": lambda: logistic(batch=1),
    "tridiagonal": lambda: Tridiagonal(3, n_workers=2),
    "quadratic": lambda: Quadratic([1.0, 2.0], n_workers=2, heterogeneity=1.0),
}


@pytest.mark.parametrize("make", PROBLEMS.values(), ids=PROBLEMS)
@pytest.mark.parametrize("worker", [2, -1])
def test_a_worker_that_does_not_exist_has_no_gradient(make, worker):
    problem = make()
    with pytest.raises((AsgradError, IndexError), match="worker"):
        problem.gradient(problem.x0, worker)
