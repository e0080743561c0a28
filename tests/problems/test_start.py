"""Where a run starts: by name, from a file, as an array; the same way for all problems."""

from __future__ import annotations

import io

import numpy as np
import pytest
from scipy import stats

import asgrad as ag
from asgrad.errors import KindError, UnknownNameError
from asgrad.problems import Logistic, Problem, Quadratic, Softmax, Tridiagonal

ROWS, SIGNS = np.eye(4), np.array([1.0, -1.0, 1.0, -1.0])
MAKERS = {
    "logistic": lambda **options: Logistic(ROWS, SIGNS, n_workers=2, **options),
    "tridiagonal": lambda **options: Tridiagonal(4, n_workers=2, **options),
    "quadratic": lambda **options: Quadratic([1, 2, 3, 4], n_workers=2, **options),
}
every_problem = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@every_problem
def test_a_start_has_a_name(make):
    assert make(x0="zeros").x0.tolist() == [0, 0, 0, 0]
    assert make(x0="ones").x0.tolist() == [1, 1, 1, 1]
    wanted = [2.0, 0, 0, 0] if isinstance(make(), Tridiagonal) else [0.0] * 4  # (√d, 0, ...)
    assert make().x0.tolist() == wanted


@every_problem
@pytest.mark.parametrize("kind", [np.array, list, tuple, lambda x: np.array(x, np.float32)])
def test_a_start_may_be_given_in_numbers(make, kind):
    mine = kind([1, -2, 0.5, 0])
    problem = make(x0=mine)
    np.testing.assert_array_equal(problem.x0, [1, -2, 0.5, 0], strict=True)
    problem.x0[:] = 7  # a copy
    if isinstance(mine, np.ndarray):
        mine[:] = 7
    assert problem.x0.tolist() == [1, -2, 0.5, 0]


@every_problem
def test_a_start_may_stand_in_a_file(make, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    np.save(tmp_path / "start.npy", np.arange(4))
    for path in (tmp_path / "start.npy", str(tmp_path / "start.npy"), "~/start.npy"):
        assert make(x0=path).x0.tolist() == [0, 1, 2, 3]


def test_a_normal_start_is_standard_normal_and_fixed_by_the_seed():
    first, again, other = (Tridiagonal(5000, x0="normal", seed=seed).x0 for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first, other)[0, 1]) < 0.06
    assert stats.kstest(first, "norm").pvalue > 1e-3
    data = np.random.default_rng(0).normal(size=(40, 50)), np.arange(40) % 2
    assert Logistic(*data, x0="normal", seed=3).x0.tolist() == (
        Tridiagonal(50, x0="normal", seed=3).x0.tolist()
    )


def test_runs_start_there():
    problem = Softmax(ROWS, [0, 1, 2, 0], n_workers=2, x0="normal")
    trace = ag.simulate(ag.methods.Pure(), ag.times.Linear(), n_workers=2, steps=0)
    np.testing.assert_array_equal(ag.replay(trace, problem, 0.1).models[:, 0], problem.x0)
    np.testing.assert_array_equal(
        ag.train(problem, ag.methods.Pure(), 0.1, steps=0).model, problem.x0
    )
    found = ag.compare(problem, ag.times.Linear(), ["sync"], steps=2, seeds=1)
    assert found.results["", "sync", 0].loss[0, 0] == problem.loss(problem.x0)
    elsewhere = ag.replay(trace, problem, 0.1, x0=np.ones(12))  # the call has the last word
    assert elsewhere.models[:, 0].tolist() == [1.0] * 12


@every_problem
@pytest.mark.parametrize(
    ("x0", "said"),
    [
        ([1, 2], "x0 must have shape (4,), got (2,)"),
        (np.zeros((4, 1)), "x0 must have shape (4,), got (4, 1)"),
        ([1, 2, 3, np.nan], "x0 must be finite"),
        ([1, 2, 3, np.inf], "x0 must be finite"),
        ("nowhere.npy", "x0: no file 'nowhere.npy'"),
        ("no/where", "x0: no file 'no/where'"),
    ],
)
def test_a_start_that_is_none_is_refused(refused, make, x0, said):
    text = refused(lambda: make(x0=x0))
    assert text.startswith(f"{type(make()).__name__}: {said}")


@every_problem
@pytest.mark.parametrize(
    "x0", [["a"] * 4, np.zeros(4, complex), np.ma.masked_equal(SIGNS, 1), [[1], [2, 3]], {"x": 1}]
)
def test_a_start_of_another_kind_is_refused(refused, make, x0):
    assert ": x0 must be an array of numbers, got " in refused(lambda: make(x0=x0), KindError)


def test_a_misspelt_start_gets_the_closest_name(refused):
    text = refused(lambda: Tridiagonal(4, x0="nromal"), UnknownNameError)
    assert (
        text
        == "unknown x0 'nromal'. Did you mean 'normal'? Valid: a .npy file, normal, ones, zeros."
    )


def archive() -> bytes:
    """What np.savez writes."""
    file = io.BytesIO()
    np.savez(file, x=np.ones(4))
    return file.getvalue()


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: path.write_bytes(b""), "is no .npy file of numbers"),
        (lambda path: path.write_bytes(b"1 2 3 4"), "is no .npy file of numbers"),
        (lambda path: path.write_bytes(b"PK\3\4 no archive"), "is no .npy file of numbers"),
        (lambda path: np.save(path, np.array([None] * 4)), "is no .npy file of numbers"),
        (lambda path: path.write_bytes(archive()), "is no .npy file of numbers"),
        (lambda path: np.save(path, np.ones(5)), "start.npy: x0 must have shape (4,), got (5,)"),
        (lambda path: np.save(path, np.full(4, np.nan)), "start.npy: x0 must be finite"),
        (lambda path: np.save(path, np.full(4, "a")), "start.npy: x0 must be an array of numbers"),
    ],
)
def test_a_file_that_holds_no_start_is_refused(refused, tmp_path, write, said):
    path = tmp_path / "start.npy"
    write(path)
    text = refused(lambda: Tridiagonal(4, x0=path))
    assert text.startswith("Tridiagonal: ")
    assert said in text
    assert str(path) in text


class Own(Problem):
    """f = ‖x‖²/2 with a start that is no copy."""

    dim, n_workers = 2, 2

    def __init__(self, x0):
        self.start = x0

    @property
    def x0(self):
        return self.start

    def gradient(self, x, worker, draw=0, rng=None):
        return x

    def loss(self, x):
        return x @ x / 2

    def full_gradient(self, x):
        return x


def test_the_start_of_an_own_problem_stays_as_it_is():
    problem = Own(np.array([1.0, 2.0]))
    ag.train(problem, ag.methods.Pure(), 0.1, steps=20)
    trace = ag.simulate(ag.methods.Pure(), ag.times.Linear(), n_workers=2, steps=5)
    ag.replay(trace, problem, 0.1)
    assert problem.start.tolist() == [1.0, 2.0]
