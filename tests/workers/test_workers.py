"""What all workers of `train` do: in virtual time, threads, on Ray and on a stand-in for Ray."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest

import asgrad as ag
import asgrad.workers.ray.session
from asgrad.trace import Fate
from asgrad.training import Ending
from asgrad.workers.base import Job, RunContext, Stopwatch
from asgrad.workers.ray import session as ray_session
from asgrad.workers.ray import shared_memory

sys.path.insert(0, os.path.dirname(__file__))
from fake_ray import Death, FakeRay

from accounting import Account

REAL = ["threads", "fake-ray", "ray"]
METHODS = [
    ag.methods.Pure(),
    ag.methods.Sync(),
    ag.methods.Random(),
    ag.methods.Shuffled(wait=2),
    ag.methods.Minibatch(),
    ag.methods.Ringmaster(max_delay=2, stop_stale=True),
    ag.methods.Rennala(batch=4, stop_stale=True),
    ag.methods.Ringleader(),
]


@pytest.fixture(scope="module")
def real_ray():
    """A Ray of this machine that all tests share."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed")
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.cloudpickle.register_pickle_by_value(sys.modules["fake_ray"])
    yield
    ray.shutdown()


def workers_on(on, request):
    """A class of workers."""
    if on == "threads":
        return ag.Threads
    if on == "virtual":
        return partial(ag.Virtual, ag.times.Exponential(0.01))
    if on == "ray":
        request.getfixturevalue("real_ray")
    else:
        request.getfixturevalue("fake")
    return ag.Ray


@pytest.fixture(params=["virtual", *REAL])
def kind(request):
    """Each class of workers."""
    return workers_on(request.param, request)


@pytest.fixture(params=REAL)
def real(request):
    """Each class of those whose jobs take the time that they take."""
    return workers_on(request.param, request)


class Faulty(ag.Problem):
    """f = ‖x‖²/2; what goes wrong is said by (worker, draw)."""

    n_workers, dim = 3, 4

    def __init__(self, faults=None, always=None, dim=4):
        self.faults, self.always, self.dim = faults or {}, always or {}, dim
        self.parent = os.getpid()

    def gradient(self, x, worker, draw=0, rng=None):
        """x plus noise, unless a fault is due."""
        fault = self.faults.get((worker, draw)) or self.always.get(worker)
        if draw == 0:
            fault = None  # workers may compute draw 0 to warm up
        if isinstance(fault, float):
            time.sleep(fault)
        if fault == "raise":
            raise RuntimeError("out of memory")
        if fault == "nan":
            return np.full(self.dim, np.nan)
        if fault == "hang":
            time.sleep(4.0)
        if fault == "hang long":
            time.sleep(60.0)
        if fault == "die" and os.getpid() == self.parent:
            raise Death
        if fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.001)
        return x + 0.01 * rng.standard_normal(self.dim)

    def loss(self, x):
        """‖x‖²/2."""
        return float(x @ x / 2)

    def full_gradient(self, x):
        """x."""
        return x


def train(problem, method, workers, on_arrival=None, on_open=None, **options):
    """A run from ones, and the check of its books and bits."""
    start = np.ones(problem.dim)
    account = Account(problem.n_workers, on_arrival)

    def opened(session):
        account.on_open(session)
        if on_open:
            on_open(session)

    run = ag.train(
        problem, method, 0.1, workers=workers, x0=start, on_open=opened,
        on_arrival=account.on_arrival, **options,
    )  # fmt: skip
    account.check(run, resumed=options.get("resume", False))
    jobs = run.trace.jobs
    keys = set(zip(jobs.worker.tolist(), jobs.draw.tolist(), strict=True))
    assert len(keys) == run.trace.n_jobs
    counts = {fate: int((jobs.fate == fate).sum()) for fate in Fate}
    assert sum(counts.values()) == run.trace.n_jobs
    applied = set(np.flatnonzero(jobs.fate == Fate.APPLIED).tolist())
    assert set(run.trace.contributions.job.tolist()) == applied
    # A worker computes one job at a time, in the order of their assignment.
    for worker in range(problem.n_workers):
        own = (jobs.worker == worker) & np.isin(jobs.fate, (Fate.APPLIED, Fate.DROPPED))
        start_times, ends = jobs.start_time[own], jobs.arrival_time[own]
        assert (jobs.assign_time[own] <= start_times).all()
        assert (start_times <= ends).all()
        assert (start_times[1:] >= ends[:-1] - 0.05).all()
    with tempfile.TemporaryDirectory() as folder:  # reading checks that the tables fit together
        assert ag.Trace.load(run.trace.save(f"{folder}/trace")).equals(run.trace)
    healthy = Faulty(dim=problem.dim)
    again = ag.replay(run.trace, healthy, 0.1, x0=start, evaluations=1)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    return run, counts


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
def test_a_run_replays_bit_for_bit(method, kind):
    """Whatever the method; its books balance."""
    run, counts = train(Faulty(), method, kind(), steps=40, seed=3)
    assert run.status == Ending.STEPS
    assert counts[Fate.LOST] == 0
    assert run.failures == []


FEEDBACK = "top-k:k=1,feedback=true"
REMEMBERING = [
    f"pure+{FEEDBACK}",
    f"random+{FEEDBACK}",
    f"ringmaster:max_delay=1,stop_stale=true+{FEEDBACK}",
    f"rennala:batch=4,stop_stale=true+{FEEDBACK}",
    f"shuffled:wait=2+local-steps:n=3,stepsize=0.05+{FEEDBACK}",
    "pure+local-steps:n=1/2/3,stepsize=0.05+rand-k:k=2",
]


@pytest.mark.parametrize("recipe", REMEMBERING)
def test_what_workers_remember_and_local_steps_replay_bit_for_bit(recipe, kind):
    """Gradients that fail, or are refused, move nothing; nobody has forgotten."""
    faults = {(0, 4): "raise", (1, 3): "nan", (1, 7): "nan"}
    run, counts = train(Faulty(faults), recipe, kind(), steps=60, seed=3)
    assert run.status == Ending.STEPS
    assert counts[Fate.LOST] > 0
    assert not run.trace.jobs.fresh.any()


@pytest.mark.parametrize("recipe", REMEMBERING[:3])
def test_an_actor_that_dies_has_forgotten(recipe, fake):
    """The first of its jobs that arrives afterwards is fresh, and the replay begins anew there."""
    run, counts = train(Faulty({(1, 3): "die"}), recipe, ag.Ray(), steps=400, seed=3)
    assert counts[Fate.LOST] > 0
    jobs = run.trace.jobs
    assert jobs.worker[jobs.fresh == 1].tolist() == [1]
    came = (jobs.worker == 1) & np.isin(jobs.fate, (Fate.APPLIED, Fate.DROPPED))
    later = np.flatnonzero(came & (jobs.draw > 3))
    assert np.flatnonzero(jobs.fresh).tolist() == later[:1].tolist()


def test_a_thread_that_is_given_up_has_forgotten():
    """Likewise, after its deadline."""
    workers = ag.Threads(deadline=1.0, least_deadline=0.3)
    run, counts = train(Faulty({(2, 8): "hang"}), REMEMBERING[0], workers, until_time=1.3)
    assert counts[Fate.LOST] == 1
    assert run.trace.jobs.worker[run.trace.jobs.fresh == 1].tolist() == [2]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_only_codes_travel(dtype, fake, monkeypatch):
    """K indices of four bytes and K values, whatever the dimension; bits come back as they were."""
    lengths = []
    taken = ray_session.unpack
    monkeypatch.setattr(
        ray_session, "unpack", lambda code, *how: lengths.append(len(code)) or taken(code, *how)
    )
    encoder = ag.encoders.RandK(k=7)
    problem = Faulty(dim=60_000)
    recipe = ag.Recipe(ag.methods.Pure(), encoder=encoder)
    run = ag.train(problem, recipe, 0.1, workers=ag.Ray(), steps=20, dtype=dtype)
    assert len(lengths) >= 20
    assert set(lengths) == {encoder.n_bytes(60_000, np.dtype(dtype).itemsize)}
    again = ag.replay(run.trace, Faulty(dim=60_000), 0.1, dtype=dtype, evaluations=0)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


class Elsewhere(shared_memory.OwnPlaces):
    """Memory that no actor reaches, as if all were on other machines."""

    def __init__(self, dim, dtype):
        super().__init__(dim, dtype)
        self.address = self.address._replace(machine="another")


LARGE = [*METHODS, ag.methods.Rennala(batch=90)]  # the last holds more than there are places
CASES = [("fake", method, reached) for method in LARGE for reached in (True, False)] + [
    ("real_ray", ag.methods.Shuffled(wait=2), True),
    ("real_ray", LARGE[-1], True),
    ("real_ray", ag.methods.Ringleader(), False),
]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is shared on Linux only")
@pytest.mark.parametrize(("ray_in_use", "method", "reached"), CASES)
def test_large_gradients_stay_as_long_as_they_are_read(ray_in_use, method, reached, request):
    """Those written in place and those that come through the object store, whatever holds them."""
    request.getfixturevalue(ray_in_use)
    if not reached:
        request.getfixturevalue("monkeypatch").setattr(
            asgrad.workers.ray.session, "OwnPlaces", Elsewhere
        )
    opened, seen = [], set()

    def look(job):
        seen.update(worker.places is not None for worker in opened[0]._workers)

    problem = Faulty({(1, 3): "nan", (2, 4): "raise", (0, 4): "die"}, dim=15_000)
    steps = 5 if method.label == "rennala:batch=90" else 40  # more gradients than there are places
    run, counts = train(
        problem, method, ag.Ray(), steps=steps, seed=3, on_open=opened.append, on_arrival=look
    )
    assert run.status == Ending.STEPS
    assert reached in seen
    assert not (seen - {reached, False})  # False as well while an actor is started anew
    assert counts[Fate.LOST] >= 1


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_compiled_problems_give_the_same_bits(kind, dtype):
    """Kernels in workers, encoders too, on arrays as they are handed over, and in replay."""
    problem = ag.problems.Softmax("digits", n_workers=3, split="label", batch=16, strength=0.01)
    recipe = "pure+clip:0.2+delay-compensation:0.5,decay=0.9"
    run = ag.train(problem, recipe, 0.1, workers=kind(), steps=30, dtype=dtype)
    again = ag.replay(run.trace, problem, 0.1, dtype=dtype, evaluations=1)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    rest = "delay-compensation:0.5,decay=0.9"
    unclipped = ag.replay(run.trace, problem, 0.1, dtype=dtype, evaluations=1, recipe=rest)
    assert (unclipped.models[:, 0] != run.model).any()


def test_large_models_give_the_same_bits(kind):
    """Models that do not travel with the call."""
    run, counts = train(Faulty(dim=150_000), ag.methods.Pure(), kind(), steps=30)
    assert run.status == Ending.STEPS
    assert counts[Fate.APPLIED] == 30


def test_what_a_worker_raises_loses_its_job_and_the_run_goes_on(kind):
    """The worker gets another job; NaN is refused likewise."""
    faults = {(1, 3): "raise", (1, 5): "raise", (0, 7): "nan"}
    run, _ = train(Faulty(faults), ag.methods.Pure(), kind(), steps=60)
    assert run.status == Ending.STEPS
    jobs = run.trace.jobs
    lost = jobs.fate == Fate.LOST
    pairs = zip(jobs.worker[lost].tolist(), jobs.draw[lost].tolist(), strict=True)
    assert sorted(pairs) == sorted(faults)
    assert run.n_refused == 1
    for draw in (3, 5):
        assert f"worker 1, draw {draw}: RuntimeError: out of memory" in run.failures
    assert (jobs.worker == 1).sum() > 8


class Broken(Faulty):
    """Every gradient raises."""

    def gradient(self, x, worker, draw=0, rng=None):
        """Nothing."""
        raise RuntimeError("no such column")


def test_a_gradient_that_always_raises_ends_the_run_before_it_begins(kind):
    """As the gradient's own error, or in one line where it comes from another process."""
    with pytest.raises((RuntimeError, ag.AsgradError), match="no such column") as caught:
        train(Broken(), ag.methods.Pure(), kind(restarts=0), steps=5)
    if kind is ag.Ray:
        assert str(caught.value) == "Ray: no worker could start: RuntimeError: no such column"


def test_a_worker_that_dies_is_started_anew(real):
    """Killed by the system in the middle of a job."""
    if real is ag.Threads:
        pytest.skip("a thread cannot be killed")
    problem = Faulty({(1, 3): "die", (2, 4): "die"})
    arrived = [0, 0, 0]

    def end_when_all_are_back(job):
        arrived[job.worker] += 1
        if min(arrived) == 12:
            arrived[:] = [-math.inf] * 3  # a second signal would break it off
            signal.raise_signal(signal.SIGINT)

    run, _ = train(
        problem, ag.methods.Pure(), real(), until_time=60.0, on_arrival=end_when_all_are_back
    )
    jobs = run.trace.jobs
    lost = jobs.fate == Fate.LOST
    pairs = set(zip(jobs.worker[lost].tolist(), jobs.draw[lost].tolist(), strict=True))
    assert pairs == {(1, 3), (2, 4)}
    for worker in (1, 2):
        assert (jobs.worker[jobs.fate == Fate.APPLIED] == worker).sum() > 8


@pytest.mark.parametrize(
    "method",
    [ag.methods.Random(), ag.methods.Shuffled(), ag.methods.Minibatch()],
    ids=lambda method: method.label,
)
def test_jobs_of_a_worker_that_is_gone_go_to_others(method, kind):
    """Where the method gives jobs to any worker; as many stay under way as before."""
    problem = Faulty(always={2: "raise"})
    run, counts = train(problem, method, kind(restarts=1), steps=60)
    assert run.status == Ending.STEPS
    assert counts[Fate.LOST] > 2
    concurrency = method.begin(3, 0).workers.size
    assert counts[Fate.IN_FLIGHT] <= concurrency


def test_a_worker_that_fails_too_often_leaves(kind):
    """The others go on; a method that needs it ends with a clear status."""
    problem = Faulty(always={2: "raise"})
    run, counts = train(problem, ag.methods.Pure(), kind(restarts=2), steps=40)
    assert run.status == Ending.STEPS
    assert counts[Fate.LOST] == 3
    stuck, _ = train(problem, ag.methods.Sync(), kind(restarts=0), steps=40)
    assert stuck.status == Ending.TOO_FEW_WORKERS


def test_a_worker_that_hangs_is_replaced(real):
    """Past its deadline its job is lost, and it comes back."""
    problem = Faulty({(0, 8): "hang"})
    run, counts = train(
        problem, ag.methods.Sync(), real(deadline=20.0, least_deadline=0.5), steps=20
    )
    assert run.status == Ending.STEPS
    assert counts[Fate.LOST] == 1
    assert "no answer within" in run.failures[0]
    assert run.trace.step_times[-1] < 60


def test_a_worker_that_hangs_in_one_of_its_first_jobs_is_replaced(real):
    """There is no median yet to measure it by."""
    run, counts = train(
        Faulty({(2, 1): "hang"}), ag.methods.Sync(), real(first_deadline=0.5), steps=20
    )
    assert run.status == Ending.STEPS
    assert counts[Fate.LOST] == 1
    assert run.failures == ["worker 2, draw 1: no answer within 0.5 s"]


@pytest.mark.parametrize(
    "method",
    [
        ag.methods.Ringmaster(max_delay=3, stop_stale=True),
        ag.methods.Rennala(batch=4, stop_stale=True),
    ],
    ids=lambda method: method.label,
)
def test_a_worker_that_hangs_in_a_job_that_was_called_off_is_replaced(method, real):
    """The jobs that wait behind it are done."""

    back = []

    def end_when_it_is_back(job):
        if job.worker == 1 and job.draw > 40 and not back:  # a second signal would break it off
            back.append(job)
            signal.raise_signal(signal.SIGINT)

    run, _ = train(
        Faulty({(1, 40): "hang long"}), method,
        real(least_deadline=0.5, deadline=2.0, restarts=20),  # a busy machine is late at times
        until_time=100.0, on_arrival=end_when_it_is_back,
    )  # fmt: skip
    jobs = run.trace.jobs
    assert jobs.fate[(jobs.worker == 1) & (jobs.draw == 40)] == Fate.CANCELLED
    assert run.status == Ending.INTERRUPTED


def test_too_many_bad_gradients_end_the_run_as_diverged(kind):
    """Refused, counted, and the model stays finite."""
    problem = Faulty(always=dict.fromkeys(range(3), "nan"))
    run, _ = train(problem, ag.methods.Pure(), kind(), steps=1000, max_refused=5)
    assert run.status == Ending.DIVERGED
    assert run.n_refused == 6
    assert np.isfinite(run.model).all()


def test_slow_workers_take_longer(real):
    """By the factor that is asked for."""
    run, _ = train(Faulty(), ag.methods.Pure(), real(slowdown=[1.0, 1.0, 20.0]), steps=400)
    took = run.trace.jobs.arrival_time - run.trace.jobs.start_time
    done = run.trace.jobs.fate == Fate.APPLIED
    slow = done & (run.trace.jobs.worker == 2)
    fast = done & (run.trace.jobs.worker == 0)
    assert slow.sum() >= 1
    assert np.median(took[slow]) > 4 * np.median(took[fast])


def test_a_cut_off_run_is_resumed(kind, tmp_path):
    """Jobs that were under way are given out again, none is applied twice."""
    pytest.importorskip("safetensors")
    kept = ag.Checkpoints(tmp_path, steps=5)
    train(Faulty(), ag.methods.Shuffled(), kind(), steps=20, checkpoints=kept)
    run, _ = train(Faulty(), ag.methods.Shuffled(), kind(), steps=45, checkpoints=kept, resume=True)
    assert run.trace.n_steps == 45


def test_workers_are_used_again_while_a_job_of_the_run_before_still_runs(real):
    again = real()
    run, _ = train(Faulty({(1, 1): 0.5}), ag.methods.Pure(), again, steps=20)
    assert run.status == Ending.STEPS
    late = (run.trace.jobs.worker == 1) & (run.trace.jobs.draw == 1)
    assert run.trace.jobs.fate[late] == Fate.IN_FLIGHT
    run, _ = train(Faulty(dim=7), ag.methods.Sync(), again, until_time=0.8)
    assert run.status == Ending.TIME
    assert run.trace.n_steps > 20


def test_one_object_serves_two_runs_at_once(kind):
    """Each has its own session; on_open shows it before the first job is given out."""
    workers, sessions, met = kind(), [], threading.Barrier(2, timeout=60.0)

    def opened(session):
        sessions.append(session)
        if len(sessions) <= 2:
            met.wait()  # both are open

    def one(dim):
        return train(Faulty(dim=dim), ag.methods.Sync(), workers, steps=20, on_open=opened)

    with ThreadPoolExecutor() as pool:
        runs = [run for run, _ in pool.map(one, (4, 7))]
    assert len({id(session) for session in sessions}) == 2
    assert [run.model.size for run in runs] == [4, 7]
    assert {run.status for run in runs} == {Ending.STEPS}
    run, _ = one(5)
    assert run.status == Ending.STEPS
    with pytest.raises(dataclasses.FrozenInstanceError):
        workers.restarts = 5


def test_what_on_open_raises_ends_the_run_before_it_begins(kind):
    """Its workers are stopped."""

    def broken(session):
        raise RuntimeError("no such pid")

    arrived = []
    with pytest.raises(RuntimeError, match="no such pid"):
        train(
            Faulty(), ag.methods.Pure(), kind(), steps=5, on_open=broken, on_arrival=arrived.append
        )
    assert not arrived


def test_what_is_refused(kind):
    """In one clear line, before any work."""
    with pytest.raises(ag.AsgradError, match="the problem has 3 workers, n_workers is 4"):
        ag.train(Faulty(), ag.methods.Pure(), 0.1, steps=5, workers=kind(n_workers=4))
    with pytest.raises(ag.AsgradError, match="n_workers must be an integer >= 1"):
        kind(n_workers=0)
    with pytest.raises(ag.AsgradError, match="restarts must be an integer >= 0"):
        kind(restarts=-1)


def test_what_is_refused_of_workers_that_take_time(real):
    method = ag.methods.Pure()
    with pytest.raises(ag.AsgradError, match="one number for each of the 3"):
        ag.train(Faulty(), method, 0.1, steps=5, workers=real(slowdown=[1.0]))
    with pytest.raises(ag.AsgradError, match="slowdown must be >= 1"):
        ag.train(Faulty(), method, 0.1, steps=5, workers=real(slowdown=[0.5, 1, 1]))
    for name in ("deadline", "least_deadline", "first_deadline"):
        with pytest.raises(ag.AsgradError, match=f"{name} must be finite and > 0"):
            real(**{name: 0})


@pytest.fixture
def fake(monkeypatch):
    """The stand-in for Ray."""
    module = FakeRay()
    monkeypatch.setitem(sys.modules, "ray", module)
    return module


def test_a_model_version_is_stored_once_and_only_if_large(fake):
    """Sync gives three workers the same model: one put a step; a small model travels along."""
    train(Faulty(), ag.methods.Sync(), ag.Ray(), steps=10)
    assert fake.n_puts == 1  # the problem
    train(Faulty(dim=150_000), ag.methods.Sync(), ag.Ray(), steps=10)
    assert fake.n_puts == 2 + 11


def test_the_last_of_several_runs_stops_the_ray_that_the_first_has_started(fake):
    """Not the first to end."""
    opened, ended = threading.Event(), threading.Event()

    def first():
        train(Faulty(), ag.methods.Pure(), ag.Ray(), steps=5, on_open=lambda session: opened.set())
        ended.set()

    running = threading.Thread(target=first)

    def beside(step, now):
        if step == 0:
            assert ended.wait(60.0)
            assert fake.is_initialized()

    def start_first(session):
        running.start()
        assert opened.wait(60.0)

    run, _ = train(
        Faulty(), ag.methods.Pure(), ag.Ray(), steps=5, on_open=start_first, on_step=beside
    )
    running.join()
    assert run.status == Ending.STEPS
    assert not fake.is_initialized()


def test_a_cluster_without_room_is_said(fake):
    """With what was asked for and what there is."""
    fake.room = 0
    with pytest.raises(ag.AsgradError, match=r"no worker was ready within 0\.05 s: each asks for"):
        train(Faulty(), ag.methods.Pure(), ag.Ray(patience=0.05), steps=10)
    assert not fake.is_initialized()  # what was started is stopped


class HangsAtStart(Faulty):
    """Worker 1 hangs in the gradient with which it starts, so many times."""

    n_hangs, go_on = 0, threading.Event()

    def gradient(self, x, worker, draw=0, rng=None):
        """As ever from then on."""
        if worker == 1 and draw == 0 and HangsAtStart.n_hangs > 0:
            HangsAtStart.n_hangs -= 1
            HangsAtStart.go_on.wait(20.0)
        return super().gradient(x, worker, draw, rng)


@pytest.fixture
def hanging(fake):
    """It, and the fake Ray; in the end those that hang are let go."""
    HangsAtStart.go_on.clear()
    yield fake
    HangsAtStart.n_hangs = 0
    HangsAtStart.go_on.set()


@pytest.mark.parametrize("patience", [20.0, 0.05])
def test_an_actor_that_hangs_while_it_starts_is_replaced(patience, hanging):
    """Before the run begins, and while all wait for it."""
    HangsAtStart.n_hangs = 2
    workers = ag.Ray(patience=patience, start_deadline=0.2)
    run, _ = train(HangsAtStart(), ag.methods.Sync(), workers, steps=20, until_time=60.0)
    assert run.status == Ending.STEPS
    assert len(hanging.actors) == 3 + 2


def test_an_actor_that_always_hangs_while_it_starts_is_given_up(hanging):
    """A method that needs its worker ends; where all do, it is said."""
    HangsAtStart.n_hangs = 10**9
    options = {"start_deadline": 0.1, "restarts": 1}
    workers = ag.Ray(patience=0.05, **options)
    run, _ = train(HangsAtStart(), ag.methods.Sync(), workers, steps=20, until_time=60.0)
    assert run.status == Ending.TOO_FEW_WORKERS
    assert len(hanging.actors) == 4
    one = HangsAtStart()
    one.n_workers = 2
    one.gradient = lambda x, worker, *of: HangsAtStart.gradient(one, x, 1, 0)
    with pytest.raises(ag.AsgradError, match=r"no worker could start: not ready within 0\.1 s"):
        ag.train(one, ag.methods.Pure(), 0.1, workers=ag.Ray(patience=20.0, **options), steps=5)
    with pytest.raises(ag.AsgradError, match=r"within 0\.05 s: 2 have started, none has ended its"):
        ag.train(one, ag.methods.Pure(), 0.1, workers=ag.Ray(patience=0.05), steps=5)


def test_a_deadline_of_starting_does_not_count_while_there_is_no_room(fake):
    """An actor that Ray has not placed yet may wait for hours."""
    fake.room = 2
    workers = ag.Ray(patience=0.05, start_deadline=0.01, restarts=0)

    def later(job):
        if job.arrival_time > 0.6:  # a look every half second
            fake.room = 3

    run, _ = train(
        Faulty(), ag.methods.Pure(), workers, steps=100_000, until_time=1.2, on_arrival=later
    )
    assert len(fake.actors) == 3
    jobs = run.trace.jobs
    assert set(jobs.worker[jobs.fate == Fate.APPLIED].tolist()) == {0, 1, 2}


def test_the_actor_of_a_worker_that_is_gone_for_good_is_killed(fake):
    """Its CPU, or GPU, is free for others while the run goes on."""
    running = []
    run, _ = train(
        Faulty(always={1: "raise"}), ag.methods.Pure(), ag.Ray(restarts=1), steps=60,
        on_step=lambda step, now: running.append([not actor.dead for actor in fake.actors]),
    )  # fmt: skip
    assert run.status == Ending.STEPS
    assert running[0] == [True, True, True]
    assert running[-1] == [True, False, True]


@pytest.mark.parametrize("method", [ag.methods.Pure(), ag.methods.Random(), ag.methods.Sync()])
def test_workers_that_come_late_join(method, fake):
    """The run begins with those that are there, and gives the others work when they come.

    It ends by Ctrl-C once all have delivered, however long that takes.
    """
    fake.room, came = 2, set()

    def look(job):
        fake.room = 3
        if job.worker not in came and came | {job.worker} == {0, 1, 2}:
            signal.raise_signal(signal.SIGINT)
        came.add(job.worker)

    run, counts = train(
        Faulty(), method, ag.Ray(patience=0.2), steps=100_000, until_time=60, on_arrival=look
    )
    assert run.status == Ending.INTERRUPTED
    jobs = run.trace.jobs
    workers = [int((jobs.worker[jobs.fate == Fate.APPLIED] == worker).sum()) for worker in range(3)]
    assert min(workers) > 0
    assert counts[Fate.LOST] >= 1


def test_a_run_in_which_all_wait_for_one_that_left_waits_too(fake):
    """For so long as `patience` says; then there are too few workers."""
    sessions, timers = [], []

    def leave(step, now):
        if step == 10:
            sessions[-1].leave(1)
            timers.append(threading.Timer(0.5, sessions[-1].join, [1]))
            timers[0].start()

    run, counts = train(
        Faulty(), ag.methods.Sync(), ag.Ray(patience=20.0), steps=30, on_open=sessions.append,
        on_step=leave,
    )  # fmt: skip
    assert run.status == Ending.STEPS
    assert counts[Fate.LOST] <= 1
    run, _ = train(
        Faulty(), ag.methods.Sync(), ag.Ray(patience=0.3), steps=30, on_open=sessions.append,
        on_step=lambda step, now: step == 10 and sessions[-1].leave(1),
    )  # fmt: skip
    assert run.status == Ending.TOO_FEW_WORKERS
    assert 10 < run.trace.n_steps < 30


def test_versions_that_nobody_reads_are_freed(fake):
    """No more of them are alive at a time than jobs, and the newest."""
    alive, most = weakref.WeakSet(), []
    put = fake.put

    def remembered(value):
        ref = put(value)
        if isinstance(value, np.ndarray):
            alive.add(ref)
        return ref

    fake.put = remembered
    train(
        Faulty(dim=150_000), ag.methods.Pure(), ag.Ray(), steps=40,
        on_step=lambda step, now: most.append(len(alive)),
    )  # fmt: skip
    assert fake.n_puts > 20
    assert max(most) <= 3 + 2


class Ordered(Faulty):
    """Jobs of draw 1 end in the order of `turns`, each some time after the one before."""

    def __init__(self, turns):
        super().__init__()
        self.turns = turns

    def __deepcopy__(self, memo):
        return self

    def gradient(self, x, worker, draw=0, rng=None):
        """x."""
        while draw == 1 and self.turns[0] != worker:
            time.sleep(0.001)
        if draw == 1:
            time.sleep(0.05)
            self.turns.pop(0)
        return x


def test_all_that_is_ready_is_taken_at_once_in_order_of_arrival(fake):
    """Not in the order of the workers, nor of the calls."""
    problem, clock, ended = Ordered([2, 0, 1]), Stopwatch(0.0), threading.Event()
    session = ag.Ray().open(RunContext(problem, 1, "float64", 0, clock, lambda events: None, ended))
    try:
        jobs = [Job(row, row, 0, 1, 0.0) for row in range(3)]
        for job in jobs:
            assert session.submit(job, np.ones((4, 1)))
        while problem.turns:
            time.sleep(0.01)
        time.sleep(0.2)  # the last one returns
        arrivals = session.wait(0.0)
        assert [arrival.job.worker for arrival in arrivals] == [2, 0, 1]
    finally:
        session.close()


def test_workers_leave_and_join(fake):
    """The job of one that leaves is lost; it is given another when it joins."""
    sessions = []

    def change(step, now):
        if step == 20:
            sessions[0].leave(1)
        if step == 60:
            sessions[0].join(1)

    run, counts = train(
        Faulty(), ag.methods.Pure(), ag.Ray(), steps=200, on_open=sessions.append, on_step=change
    )
    assert counts[Fate.LOST] == 1
    jobs, times = run.trace.jobs, run.trace.step_times
    own = jobs.assign_time[jobs.worker == 1]
    # What had arrived before it left is taken first: at most a job of each worker.
    assert not ((own > times[24]) & (own < times[60])).any()
    assert (own > times[60]).any()
    with pytest.raises(ag.AsgradError, match="no run is under way"):
        sessions[0].leave(1)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_large_gradients_that_wait_are_in_the_checkpoint(dtype, fake, tmp_path):
    """A run that ends in the middle of a batch goes on, in place as before."""
    pytest.importorskip("safetensors")
    kept = ag.Checkpoints(tmp_path / "kept")
    options = {"x0": np.ones(30_001), "dtype": dtype, "workers": ag.Ray(), "checkpoints": kept}
    problem, method = Faulty(dim=30_001), ag.methods.Rennala(batch=5)
    ag.train(problem, method, 0.1, jobs=33, **options)
    run = ag.train(problem, method, 0.1, steps=12, resume=True, **options)
    assert run.trace.n_steps == 12
    again = ag.replay(run.trace, problem, 0.1, x0=np.ones(30_001), evaluations=1, dtype=dtype)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cpus": [1.0, 2.0]}, "cpus must hold one value for each of the 3 workers, got 2"),
        ({"gpus": -1}, "gpus must be finite and >= 0"),
        ({"resources": [{"a100": 1}]}, "resources must hold one value for each of the 3"),
        ({"resources": "a100"}, "resources must map names to amounts, for instance"),
        ({"resources": {"a100": "one"}}, "a100 must be a number, got 'one'"),
        ({"cpus": "2"}, "cpus must be a number, got '2'"),
        ({"strategy": "PACK"}, "unknown strategy 'PACK'"),
        ({"patience": 0}, "patience must be finite and > 0"),
    ],
)
def test_what_ray_is_not_asked_for(options, said, fake):
    """Each wrong option is named with its rule."""
    with pytest.raises(ag.AsgradError, match=said):
        ag.train(Faulty(), ag.methods.Pure(), 0.1, steps=5, workers=ag.Ray(**options))


def test_an_address_where_nobody_listens_is_refused_at_once(fake):
    """Ray itself is not asked."""
    with socket.socket() as taken:  # bound, but it does not listen
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ag.AsgradError, match=f"no cluster at {address}: .*ray start --head"):
            train(Faulty(), ag.methods.Pure(), ag.Ray(address=address), steps=5)
    assert not fake.is_initialized()


def test_a_cluster_that_lets_nobody_in_is_said(fake, monkeypatch, refused):
    """Whatever Ray raises; a token may be what is missing."""

    class AuthenticationError(Exception):
        """Of Ray's own kind."""

    def init(**options):
        raise AuthenticationError("no token found.\nRead the documentation.")

    monkeypatch.setattr(fake, "init", init)
    workers = ag.Ray(address="auto")
    text = refused(lambda: ag.train(Faulty(), ag.methods.Pure(), 0.1, workers=workers, steps=5))
    assert "Ray: no cluster at auto: AuthenticationError: no token found. If it asks" in text
    assert "RAY_AUTH_MODE=token" in text


def test_a_ray_that_does_not_start_is_said(fake, monkeypatch, refused):
    """In one line, as on a machine that is too busy for it."""

    def init(**options):
        raise Exception("The current node timed out during startup.\nSome of the raylet failed.")

    monkeypatch.setattr(fake, "init", init)
    text = refused(lambda: ag.train(Faulty(), "pure", 0.1, workers=ag.Ray(), steps=5))
    assert "none could be started on this machine: Exception: The current node timed out" in text


def test_a_problem_that_cannot_be_sent_is_refused(fake, monkeypatch):
    """Ray's own error is a page long."""

    def put(value):
        raise TypeError("Could not serialize\na long list") from TypeError("cannot pickle a lock")

    monkeypatch.setattr(fake, "put", put)
    with pytest.raises(ag.AsgradError, match=r"cannot be sent .*: TypeError: cannot pickle a lock"):
        train(Faulty(), ag.methods.Pure(), ag.Ray(), steps=5)
    assert not fake.is_initialized()


def test_actors_ask_for_what_their_workers_need(fake, monkeypatch):
    """One set of options a worker; Ray itself repeats nothing."""
    asked = []
    remote = fake.remote

    def recording(cls):
        made = remote(cls)
        made.options = lambda **options: asked.append(options) or made
        return made

    monkeypatch.setattr(fake, "remote", recording, raising=False)
    workers = ag.Ray(cpus=2, gpus=[1, 0.5, 0], resources={"a100": 1}, strategy="SPREAD")
    train(Faulty(), ag.methods.Pure(), workers, steps=5)
    assert [options["num_gpus"] for options in asked] == [1, 0.5, 0]
    assert all(options["num_cpus"] == 2 for options in asked)
    assert all(options["resources"] == {"a100": 1} for options in asked)
    assert all(options["scheduling_strategy"] == "SPREAD" for options in asked)
    assert all(options["max_restarts"] == options["max_task_retries"] == 0 for options in asked)


def test_without_ray_it_is_said_how_to_get_it(monkeypatch):
    """In one line."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ag.AsgradError, match=r"pip install 'asgrad\[ray\]'"):
        ag.train(Faulty(), ag.methods.Pure(), 0.1, steps=5, workers=ag.Ray())
