"""A problem's data are packed once for all who hold them, and afresh once nobody does."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from dataclasses import dataclass

import numpy as np

import asgrad as ag


def logistic() -> ag.problems.Logistic:
    """Eight rows for two workers."""
    rng = np.random.default_rng(0)
    return ag.problems.Logistic((rng.normal(size=(8, 3)), np.tile([-1.0, 1.0], 4)), n_workers=2)


def counted(problem, monkeypatch) -> list[str]:
    """The dtypes that the problem is packed in from here on."""
    packings, pack = [], type(problem).pack
    monkeypatch.setattr(
        type(problem),
        "pack",
        lambda self, dtype: packings.append(np.dtype(dtype).name) or pack(self, dtype),
    )
    return packings


def test_who_comes_while_it_is_held_shares_it(monkeypatch):
    """Whatever the spelling of the dtype; from all threads that ask at once."""
    problem = logistic()
    packings = counted(problem, monkeypatch)
    found = []
    ready = threading.Barrier(4)

    def ask(dtype):
        ready.wait()
        found.append(problem.packed(dtype))

    kinds = ("float64", np.float64, np.dtype("float64"), "float64")
    threads = [threading.Thread(target=ask, args=(dtype,)) for dtype in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(packed.values) for packed in found}) == 1
    assert problem.packed("float32").values.dtype == np.float32
    assert packings == ["float64", "float32"]


def test_what_is_changed_between_runs_is_seen():
    """Data in place, or a setting; nothing is held any more then."""
    problem = logistic()
    before = problem.packed("float64")
    trace = ag.simulate("pure", "linear", n_workers=2, steps=20)
    first = ag.replay(trace, problem, 0.5)
    values = before.values.copy()
    del before
    gc.collect()
    problem.features.data *= 2.0
    problem.strength = 0.25
    assert problem.packed("float64").values[0] == 0.25
    np.testing.assert_array_equal(
        problem.packed("float64").values[1 : 1 + 24], 2.0 * values[1 : 1 + 24]
    )
    second = ag.replay(trace, problem, 0.5)
    assert (first.models != second.models).any()


def test_a_copy_is_another_problem_and_nothing_packed_is_sent():
    """A copy may be changed while the first is held."""
    problem = logistic()
    size = len(pickle.dumps(problem))
    held = problem.packed("float64")
    assert len(pickle.dumps(problem)) == size
    other = copy.copy(problem)
    other.strength = 0.5
    assert other.packed("float64").values[0] == 0.5
    assert held.values[0] == 0.0
    assert pickle.loads(pickle.dumps(problem)).packed("float64").values[0] == 0.0


def test_a_problem_that_is_forgotten_is_let_go():
    """Nothing here keeps it alive."""
    from asgrad.problems.base import _PACKED

    problem = logistic()
    packed = problem.packed("float64")
    assert problem in _PACKED
    n_known = len(_PACKED)
    del problem
    gc.collect()
    assert len(_PACKED) < n_known
    assert packed.values.size


def test_a_problem_that_compares_by_value_is_packed_each_time():
    """Equal ones need not have the same data."""

    @dataclass(eq=True)
    class Compared(ag.problems.Tridiagonal):
        dim: int = 4

        def __post_init__(self):
            super().__init__(self.dim, n_workers=2)

    assert Compared().packed("float64").values.size == 7


def test_a_live_run_packs_once(monkeypatch):
    """For all its threads and its evaluations; and holds nothing afterwards."""
    problem = logistic()
    packings = counted(problem, monkeypatch)
    threads = ag.Threads()
    for n_runs in (1, 2):
        ag.train(problem, "pure", 0.1, steps=20, workers=threads)
        assert packings == ["float64"] * n_runs
