"""The server of live runs, told by hand what happens."""

from __future__ import annotations

import numpy as np
import pytest

import asgrad as ag
from asgrad.trace import Fate
from asgrad.training.arithmetic import Arithmetic
from asgrad.training.server import Server


def make(method: ag.Method, n_workers: int = 3) -> Server:
    """A server for f = ‖x‖²/2 in two dimensions, from (1, 1), γ = 0.5."""
    problem = ag.problems.Quadratic(np.ones(2), n_workers=n_workers)
    opening = method.begin(n_workers, 0)
    numbers = Arithmetic(problem, ag.recipes.Parts(), opening, np.ones(2), 0.5, "float64")
    return Server(method, opening, n_workers, numbers)


def column(*numbers: float) -> np.ndarray:
    """A gradient."""
    return np.array(numbers).reshape(-1, 1)


def test_arrivals_one_by_one():
    """Each worker's next job reads the model after its own gradient."""
    server = make(ag.methods.Pure())
    first = server.start(0.0).assigned
    assert [(job.worker, job.read_step) for job in first] == [(0, 0), (1, 0), (2, 0)]
    following = server.arrive(first[1], column(1.0, 0.0), 1.0).assigned
    assert [(job.worker, job.read_step, job.draw) for job in following] == [(1, 1, 1)]
    np.testing.assert_array_equal(server.x[:, 0], [0.5, 1.0])
    server.arrive(first[0], column(0.0, 1.0), 2.0)
    np.testing.assert_array_equal(server.x[:, 0], [0.5, 0.5])
    np.testing.assert_array_equal(server.model(1)[:, 0], [0.5, 1.0])


def test_arrivals_that_waited_together():
    """Each takes its own step; the jobs they lead to all read the model after the last."""
    server = make(ag.methods.Pure())
    first = server.start(0.0).assigned
    for job in (first[2], first[0]):
        orders = server.arrive(job, column(1.0, 0.0), 1.0, more=True)
        assert orders.assigned == []
        assert orders.n_steps == 1
    assert server.waiting == [2, 0]
    following = server.assign_waiting(1.0).assigned
    assert [(job.worker, job.read_step, job.draw) for job in following] == [(2, 2, 1), (0, 2, 1)]
    np.testing.assert_array_equal(server.x[:, 0], [0.0, 1.0])
    jobs, rows, times, _ = server.tables()
    assert rows.job.tolist() == [2, 0]
    assert rows.first_step.tolist() == [0, 1]
    assert times.tolist() == [1.0, 1.0]
    assert jobs.read_step.tolist() == [0, 0, 0, 2, 2]


def test_a_job_that_waits_is_called_off():
    """m-Sync calls all off and assigns anew: no worker gets two jobs."""
    server = make(ag.methods.MSync(m=1))
    first = server.start(0.0).assigned
    server.arrive(first[0], column(1.0, 1.0), 1.0, more=True)
    assert not server.expects(first[1])
    assert sorted(server.waiting) == [0, 1, 2]
    second = server.assign_waiting(1.0).assigned
    assert sorted(job.worker for job in second) == [0, 1, 2]
    assert all(job.read_step == 1 for job in second)


@pytest.mark.parametrize(
    "method",
    [ag.methods.Pure(), ag.methods.Random(), ag.methods.Ringleader(),
     ag.methods.Rennala(batch=3, stop_stale=True), ag.methods.Shuffled(wait=2)],
    ids=lambda method: method.label,
)  # fmt: skip
def test_state_restores_whatever_happened(method):
    """Arrivals alone and together, losses, joinings: a restored server goes on alike."""
    rng = np.random.default_rng(3)
    server = make(method)
    open_jobs = list(server.start(0.0).assigned)

    def happen(target: Server, jobs: list, step: int, seed: int) -> list:
        rng = np.random.default_rng(seed)
        if step % 7 == 3:
            job = jobs.pop(0)
            if step % 2 and len(jobs) > 1:
                target.leave(job.worker, float(step))
            return target.lose(job, float(step)).assigned + jobs
        if step % 7 == 5:
            return jobs + [
                job for worker in range(3) for job in target.join(worker, float(step)).assigned
            ]
        more = step % 3 == 0 and len(jobs) > 1
        count = 2 if more else 1
        for _ in range(count):
            job = jobs.pop(int(rng.integers(len(jobs))))
            gradient = rng.standard_normal((2, 1))
            orders = target.arrive(job, gradient, float(step), more=more)
            jobs = [job for job in jobs if target.expects(job)] + orders.assigned
            if not jobs:
                break
        if target.waiting:
            jobs += target.assign_waiting(float(step)).assigned
        return jobs

    for step in range(1, 60):
        open_jobs = happen(server, open_jobs, step, int(rng.integers(2**40)))
    other = make(method)
    other.restore(server.journal.parts(), server.state())
    rows = {job.row: job for job in other.unfinished()}
    others = [rows[job.row] for job in open_jobs]
    for step in range(60, 90):
        seed = int(rng.integers(2**40))
        open_jobs = happen(server, open_jobs, step, seed)
        others = happen(other, others, step, seed)
        np.testing.assert_array_equal(server.x, other.x)
    for table, same in zip(server.tables(), other.tables(), strict=True):
        columns = table if isinstance(table, tuple) else (table,)
        sames = same if isinstance(same, tuple) else (same,)
        for mine, theirs in zip(columns, sames, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert (server.tables()[0].fate == Fate.LOST).any()
