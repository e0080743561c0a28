"""The loop of a live run, told by a scripted engine what happens; and what goes wrong beside it."""

from __future__ import annotations

import signal
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import asgrad as ag
from asgrad.trace import Fate
from asgrad.training import Ending, checkpoint, live
from asgrad.workers.base import Arrival, Job, Joined, RunContext


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
    ("method", "at_steps"),
    [
        (ag.methods.Pure(), [1, 2, 3, 4, 5, 6]),
        (ag.methods.Ringleader(), [3, 5, 6]),  # the fourth is worker 1's second: a spare
    ],
)
def test_gradients_that_arrive_together_are_counted_one_by_one(method, at_steps):
    """The last worker's comes first, though all jobs started at one moment."""
    order = [2, 0, 1, 1, 2, 0]
    engine = Scripted(
        lambda e: [e.gradient(worker) for worker in order[:3]],
        lambda e: [e.gradient(worker) for worker in order[3:]],
    )
    run = train(method, engine, jobs=6)
    jobs = run.trace.jobs
    came = np.argsort(jobs.arrival_time)[:6]
    assert jobs.worker[came].tolist() == order
    assert np.unique(jobs.arrival_time[came]).size == 6
    problem = ag.problems.Quadratic(np.ones(2), n_workers=3)
    counted = ag.replay(run.trace, problem, 0.1, evaluations=6).gradients
    assert counted.tolist() == [0, *at_steps]


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
    run = train(
        ag.methods.Pure(), ag.Threads(), steps=400, checkpoints=kept,
        on_step=lambda step, now: time.sleep(0.0005),
    )  # fmt: skip
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
        ({"engine": "ray"}, "engine must be an Engine"),
        ({"checkpoints": "kept"}, "checkpoints must be a Checkpoints"),
        ({"engine": ag.Threads(slowdown=2)}, "slowdown must hold one number for each worker"),
        ({"engine": ag.Threads(slowdown=[1, 1, float("inf")])}, ">= 1 and finite"),
        ({"engine": ag.Threads(slowdown="1,1,5")}, "one number for each worker, for instance"),
        ({"engine": ag.Threads(slowdown=[1, None, 5])}, "slowdown must be a number, got None"),
        ({"engine": ag.Threads}, "engine must be an Engine"),
        ({"on_step": 3}, "on_step must be a function, got 3"),
        ({"on_arrival": "log"}, "on_arrival must be a function"),
        ({"on_evaluation": []}, "on_evaluation must be a function"),
    ],
)
def test_other_kinds_are_refused(options, said):
    """With what was expected."""
    with pytest.raises(ag.AsgradError, match=said):
        train(ag.methods.Pure(), options.pop("engine", None), steps=5, **options)


class Waiting(ag.Problem):
    """Its second and third evaluation last until ten further steps were taken."""

    n_workers, dim = 3, 2

    def __init__(self):
        self.n_steps, self.n_evaluations, self.gained = 0, 0, []

    def gradient(self, x, worker, draw=0, rng=None):
        """x, after a millisecond."""
        time.sleep(0.001)
        return x

    def loss(self, x):
        """Nothing."""
        return 0.0

    def full_gradient(self, x):
        """0 from the fourth evaluation on."""
        self.n_evaluations += 1
        if self.n_evaluations in (2, 3):
            begun, limit = self.n_steps, time.monotonic() + 20.0
            while self.n_steps < begun + 10 and time.monotonic() < limit:
                time.sleep(0.001)
            self.gained.append(self.n_steps - begun)
        return np.full(2, float(self.n_evaluations < 4))

    def count(self, step, now):
        """Called at every step."""
        self.n_steps = step + 1


def test_the_server_steps_while_a_model_is_evaluated():
    """An evaluation that waits for further steps gets them."""
    problem = Waiting()
    run = ag.train(
        problem, ag.methods.Pure(), 0.05, target=0.5, until_time=60.0, evaluate_every=0.01,
        on_step=problem.count,
    )  # fmt: skip
    assert run.status == Ending.TARGET
    assert len(problem.gained) == 2
    assert min(problem.gained) >= 10


def test_evaluations_are_compiled_before_the_clock_starts(monkeypatch):
    """A kernel that takes long to compile costs the run nothing."""
    from asgrad.training import evaluation

    begun = []
    start = live.Stopwatch.start
    monkeypatch.setattr(live.Stopwatch, "start", lambda self: (begun.append("clock"), start(self)))
    made = evaluation._evaluation

    def noted(*of):
        evaluate = made(*of)
        return lambda x: (begun.append("evaluation"), evaluate(x))[1]

    monkeypatch.setattr(evaluation, "_evaluation", noted)
    train(ag.methods.Pure(), None, steps=3)
    assert begun[:3] == ["clock", "evaluation", "clock"]  # made, compiled, started


def test_sleeps_are_times(refused):
    """Not a number of seconds."""
    assert "sleep must be a Times" in refused(lambda: ag.Threads(sleep=0.1))


class Idle(ag.Method):
    """Gives every worker one job, and no more."""

    name = "idle"

    def start(self, server):
        for worker in range(server.n_workers):
            server.assign(worker)

    def arrive(self, server, worker, read_step):
        server.apply(1.0)
        server.take_step()


def test_a_method_that_leaves_all_workers_idle_is_named(refused):
    """It is no lack of workers."""
    text = refused(lambda: train(Idle(), None, steps=50))
    assert text.startswith("idle: every worker is idle after 3 steps and none was assigned a job")
    assert train(Idle(), None, steps=3).status == Ending.STEPS


def test_ctrl_c_takes_no_lock_that_the_run_may_hold():
    """The first only sets a flag, in whatever moment it comes; the second breaks off."""
    run = SimpleNamespace(interrupted=False)  # nothing else is there to be touched
    with live.ctrl_c_ends(run):
        signal.raise_signal(signal.SIGINT)
        assert run.interrupted
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


class Waits(ag.Problem):
    """A gradient of draw 1 waits for an event."""

    n_workers, dim = 1, 2

    def __init__(self):
        self.go_on, self.began = threading.Event(), threading.Event()

    def gradient(self, x, worker, draw=0, rng=None):
        """x."""
        if draw == 1:
            self.began.set()
            self.go_on.wait(20.0)
        return x

    def loss(self, x):
        """0."""
        return 0.0

    def full_gradient(self, x):
        """x."""
        return x


@pytest.fixture
def threads():
    """An engine of one thread that is busy with a late job, the job, and what was delivered."""
    problem, delivered = Waits(), []
    engine = ag.Threads(least_deadline=0.01, deadline=1e-9)
    engine.open(
        RunContext(problem, 7, "float64", 0, time.perf_counter, delivered.extend, threading.Event())
    )
    late = Job(0, 0, 0, 1, 0.0)
    engine._workers[0].record.took.extend([0.0] * 5)
    engine.submit(late, np.ones((2, 1)))
    assert problem.began.wait(20.0)
    yield engine, problem, late, delivered
    problem.go_on.set()
    engine.close()


def until(happened):
    """Wait for it."""
    end = time.monotonic() + 20.0
    while not happened() and time.monotonic() < end:
        time.sleep(0.01)
    assert happened()


def test_a_job_given_while_a_late_thread_is_replaced_is_done(threads, monkeypatch):
    """It comes from another thread between the moving of the inbox and the change of worker."""
    engine, problem, late, delivered = threads
    job = Job(1, 0, 0, 2, 0.0)
    original = type(engine._workers[0]).replaced
    giving = threading.Thread(target=engine.submit, args=(job, np.ones((2, 1))))

    def slowly(worker, which):
        fresh = original(worker, which)
        giving.start()
        time.sleep(0.2)
        return fresh

    monkeypatch.setattr(type(engine._workers[0]), "replaced", slowly)
    time.sleep(0.02)
    old = engine._workers[0].thread
    assert [arrival.job for arrival in engine.wait(0.0)] == [late]
    giving.join()
    until(lambda: [arrival.job for arrival in delivered] == [job])
    problem.go_on.set()
    old.join(20.0)
    assert not old.is_alive()
    assert [arrival.job for arrival in delivered] == [job]


def test_a_thread_that_ends_its_late_job_in_time_is_not_replaced(threads, monkeypatch):
    """It has begun the next job, which must not be left behind with it."""
    engine, problem, late, delivered = threads
    job, worker = Job(1, 0, 0, 2, 0.0), engine._workers[0]
    original = type(worker).replaced

    def after_its_end(worker, which):
        problem.go_on.set()
        until(lambda: [arrival.job for arrival in delivered] == [late])
        return original(worker, which)

    monkeypatch.setattr(type(worker), "replaced", after_its_end)
    time.sleep(0.02)
    assert engine.wait(0.0) == []
    assert engine._workers[0] is worker
    engine.submit(job, np.ones((2, 1)))
    until(lambda: [arrival.job for arrival in delivered] == [late, job])


class Queued(live.Live):
    """A run of three workers: whenever something is dealt with, something new is brought."""

    def __init__(self, brought):
        super().__init__(SimpleNamespace(n_workers=3), None, None, None, None)
        self.brought, self.dealt = list(brought), []

    def _deal_with(self, events):
        self.dealt += events
        if self.brought:
            assert not self.deliver([self.brought.pop(0)])  # somebody deals with it


def test_what_is_brought_is_dealt_with_in_order_and_in_turns():
    """Who brings something deals with as much as there are workers, then has its own work."""
    run = Queued("bcdefg")
    assert run.deliver(["a"])
    assert run.dealt == list("abc")
    assert run.deliver(())
    assert run.dealt == list("abcdef")
    assert not run.deliver(())
    assert run.dealt == list("abcdefg")
    assert not run.deliver(())


def test_no_thread_overtakes_others(monkeypatch):
    """All that have asked while one was dealt with come before its next job."""
    asked, taken, all_asked = [], [], threading.Event()
    deliver = live.Live.deliver

    def noted(run, events):
        asked.extend(event.job.worker for event in events)
        if len(set(asked)) == 8:
            all_asked.set()
        return deliver(run, events)

    def on_arrival(job):
        taken.append(job.worker)
        if len(taken) == 1:
            assert all_asked.wait(20.0)

    monkeypatch.setattr(live.Live, "deliver", noted)
    problem = ag.problems.Quadratic(np.ones(2), n_workers=8)
    ag.train(problem, ag.methods.Pure(), 0.1, steps=40, on_arrival=on_arrival)
    second = [*taken, taken[0]].index(taken[0], 1)
    assert len(set(taken[:second])) >= 7  # the last to ask may be about to
