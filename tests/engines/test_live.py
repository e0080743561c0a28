"""The loop of a live run, told by a scripted engine what happens; and what goes wrong beside it."""

from __future__ import annotations

import numpy as np
import pytest

import asgrad as ag
from asgrad.engines import Ending, checkpoint
from asgrad.engines.workers import Arrival, Joined
from asgrad.trace import Fate


class Scripted:
    """An engine that returns one batch of events after the other, made from the jobs it has."""

    def __init__(self, *script, away=()):
        self.script, self.away = list(script), set(away)
        self.jobs = {0: [], 1: [], 2: []}

    def open(self, context):
        self.now = context.now

    def submit(self, job, x):
        if job.worker in self.away:
            return False
        job.start_time = self.now()
        self.jobs[job.worker].append(job)
        return True

    def wait(self, seconds):
        return self.script.pop(0)(self) if self.script and seconds > 0 else []

    def may_join(self):
        return False

    def close(self):
        pass

    def gradient(self, worker):
        """The worker's first job arrives."""
        return Arrival(self.jobs[worker].pop(0), np.full((2, 1), 0.1))

    def gone(self, worker):
        """The worker leaves at its first job."""
        return Arrival(self.jobs[worker].pop(0), None, "gone", gone=True)


def train(method, engine, **limits):
    """Three workers on ‖x‖²/2."""
    problem = ag.problems.Quadratic(np.ones(2), n_workers=3)
    return ag.train(problem, method, 0.1, engine=engine, **limits)


@pytest.mark.parametrize(
    "method",
    [
        ag.methods.Ringmaster(max_delay=1, stop_stale=True),
        ag.methods.Rennala(batch=1, stop_stale=True),
    ],
)
def test_a_worker_that_joins_when_the_method_gives_it_a_job_gets_one(method):
    """Not the one that is owed as well."""

    def back(engine):
        engine.away.clear()
        return [engine.gradient(0), Joined(2)]

    engine = Scripted(back, away=[2])
    train(method, engine, steps=5, until_time=0.3)
    in_flight = [job for job in engine.jobs[2] if job.fate == Fate.IN_FLIGHT]
    assert len(in_flight) == 1


def test_a_run_goes_on_if_the_last_worker_leaves_when_another_joins():
    """In one batch of events."""

    def swap(engine):
        engine.away = {0, 2}
        return [engine.gone(0), Joined(1)]

    engine = Scripted(swap, lambda engine: [engine.gradient(1)], away=[1, 2])
    run = train(ag.methods.Pure(), engine, steps=1, until_time=5)
    assert run.status == Ending.STEPS


def test_a_run_without_workers_ends():
    """All leave, none may join."""
    engine = Scripted(lambda engine: [engine.gone(worker) for worker in range(3)])
    engine.away = set()
    run = train(ag.methods.Sync(), engine, steps=5, until_time=5)
    assert run.status == Ending.TOO_FEW_WORKERS
    assert (run.trace.jobs.fate == Fate.LOST).all()


def test_what_an_evaluation_raises_ends_the_run():
    """It is raised where the run was started, not lost in a thread."""

    def on_evaluation(step, now, loss, norm):
        raise RuntimeError("no room for the log")

    with pytest.raises(RuntimeError, match="no room for the log"):
        train(ag.methods.Pure(), ag.Threads(), target=1e-300, on_evaluation=on_evaluation)


def test_a_checkpoint_that_cannot_be_written_is_reported_and_later_ones_are(tmp_path, monkeypatch):
    """Whatever the library that writes it raises on a full disk."""
    pytest.importorskip("safetensors")
    written, write_arrays = [], checkpoint.write_arrays

    def full_at_first(path, arrays):
        written.append(path)
        if len(written) <= 2:
            raise Exception("no space left")
        return write_arrays(path, arrays)

    monkeypatch.setattr(checkpoint, "write_arrays", full_at_first)
    kept = ag.Checkpoints(tmp_path / "kept", steps=5)
    run = train(ag.methods.Pure(), ag.Threads(), steps=400, checkpoints=kept)
    assert len([failure for failure in run.failures if "no space left" in failure]) == 2
    newest = max(path.name for path in (tmp_path / "kept").glob("step-*"))
    assert newest == "step-000000000400"


def test_a_sleep_that_raises_is_the_jobs_failure():
    """The worker is given up after its restarts; the run ends."""

    class Broken(ag.times.Fixed):
        def begin(self, n_workers, seed):
            clock = super().begin(n_workers, seed)

            def seconds(*arguments):
                raise ValueError("no such time")

            return clock._replace(seconds=seconds)

    run = train(ag.methods.Pure(), ag.Threads(sleep=Broken(), restarts=1), steps=50)
    assert run.status == Ending.TOO_FEW_WORKERS
    assert "no such time" in run.failures[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "ray"}, "engine must be a Engine"),
        ({"checkpoints": "kept"}, "checkpoints must be a Checkpoints"),
        ({"engine": ag.Threads(slowdown=2)}, "slowdown must hold one number for each worker"),
        ({"engine": ag.Threads(slowdown=[1, 1, float("inf")])}, ">= 1 and finite"),
    ],
)
def test_other_kinds_are_refused(options, said):
    """With what was expected."""
    with pytest.raises(ag.AsgradError, match=said):
        train(ag.methods.Pure(), options.pop("engine", None), steps=5, **options)
