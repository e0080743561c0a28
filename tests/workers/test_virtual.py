"""Workers in virtual time: `train` over them is `simulate`, then `replay`, bit for bit."""

from __future__ import annotations

import shutil
import signal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import asgrad as ag
from asgrad.registry import catalogue
from asgrad.training import Ending
from asgrad.training.checkpoint import list_checkpoints

METHODS = [cls() for cls in catalogue(ag.methods).values()] + [
    ag.methods.Pure(wait=2),
    ag.methods.Shuffled(once=True, wait=2),
    ag.methods.Ringmaster(max_delay=2, stop_stale=True),
    ag.methods.Rennala(batch=5, stop_stale=True),
]
TIMES = [
    ag.times.Fixed(scale=[0.1, 0.2, 0.3, 0.7]),  # sums that tie but for rounding: 0.1 + 0.2 > 0.3
    ag.times.Fixed(scale=[0.3, 0.3, 0.3, 0.1]),
    ag.times.Normal(),
    ag.times.Exponential(),
    ag.times.Poisson(scale=0.7),  # whole seconds, often 0
    ag.times.Stragglers(),
]
N = 4


def quadratic() -> ag.Problem:
    """A small problem."""
    return ag.problems.Quadratic(
        np.linspace(0.1, 1.0, 5), n_workers=N, heterogeneity=1.0, noise=0.1
    )


def check(method, times, *, seed=3, **limits):
    """Run it in virtual time; it is what simulate and replay say. Return the run."""
    run = ag.train(
        quadratic(), method, 0.05, workers=ag.Virtual(times), seed=seed, evaluate_every=None,
        **limits,
    )  # fmt: skip
    trace = ag.simulate(method, times, n_workers=N, seed=seed, **limits)
    assert run.trace.header == trace.header
    assert run.trace.equals(trace)
    again = ag.replay(trace, quadratic(), 0.05, evaluations=0)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    return run


@pytest.mark.parametrize("times", TIMES, ids=lambda times: times.label)
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
def test_a_run_is_what_simulate_and_replay_say(method, times):
    """Ended by each kind of limit, also where it is met in the middle of a tie, or at once."""
    assert check(method, times, steps=30).status == Ending.STEPS
    assert check(method, times, jobs=45, seed=4).status == Ending.JOBS
    assert check(method, times, until_time=4.2).status == Ending.TIME  # 6 · 0.7
    check(method, times, steps=0)
    check(method, times, jobs=0)


def test_what_rounding_takes_is_put_back_alike():
    """It counts after some thousands of jobs, and then decides ties."""
    check(ag.methods.Pure(), TIMES[0], jobs=6000)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
def test_a_worker_that_needs_no_time_is_played_alike(method):
    """Nobody else gets a turn if it is given job after job."""
    check(method, ag.times.Fixed(scale=[0.3, 0.0, 0.3, 0.1]), jobs=45)


class Whim(ag.Method):
    """Decides by chance, within the rules: queues, cancelled jobs, a table, several steps."""

    name = "whim"

    def __init__(self, share_cancelled, share_assigned):
        self.share_cancelled, self.share_assigned = share_cancelled, share_assigned

    def n_entries(self, n_workers):
        return 3

    def start(self, server):
        for _ in range(int(server.rng.integers(1, 2 * server.n_workers))):
            server.assign(int(server.rng.integers(server.n_workers)))

    def arrive(self, server, worker, read_step):
        rng = server.rng
        verdict = rng.integers(4)
        if verdict == 0:
            server.drop()
        elif verdict == 1:
            server.hold(int(rng.integers(3)))
        else:
            server.apply(float(rng.choice([1.0, 0.5, -0.25])))
        for _ in range(int(rng.integers(5))):
            other, chance = int(rng.integers(server.n_workers)), rng.random()
            if chance < self.share_cancelled:
                (server.cancel if rng.random() < 0.6 else server.restart)(other)
            elif chance < self.share_cancelled + self.share_assigned:
                server.assign(other)
            elif chance < 0.8:
                server.take_step()
            elif chance < 0.9:
                server.weigh(int(rng.integers(3)), float(rng.choice([0.0, 1.0, 0.3])))
            else:
                server.clear(int(rng.integers(3)))
        server.assign(worker)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sampled_from([0.0, 0.1, 0.3]),
    st.sampled_from([0.1, 0.3]),
    st.lists(st.sampled_from([0.1, 0.2, 0.3, 0.6, 1.0]), min_size=N, max_size=N),
)
def test_methods_of_ones_own_are_played_alike(seed, share_cancelled, share_assigned, scale):
    """Whatever they decide, where many arrivals tie."""
    whim = Whim(share_cancelled, share_assigned)
    check(whim, ag.times.Fixed(scale=scale), jobs=60, seed=seed)


class Late(ag.Times):
    """A time of one's own, which depends on the start."""

    def seconds(self, worker, draw, start):
        return 0.1 * (worker + 1) + 0.05 * start


class Never(ag.Times):
    """The second job of worker 1 never ends."""

    def seconds(self, worker, draw, start):
        return np.inf if (worker, draw) == (1, 1) else 1.0


class Still(ag.Times):
    """Nothing takes time."""

    def seconds(self, worker, draw, start):
        return 0.0


def test_times_of_ones_own():
    check(ag.methods.Pure(), Late(), steps=50)


def test_times_that_are_none_are_refused_as_in_simulate(refused):
    """In the same words."""
    options = {"steps": 50}
    workers = ag.Virtual(Never())
    text = refused(
        lambda: ag.train(quadratic(), ag.methods.Pure(), 0.1, workers=workers, **options)
    )
    assert text == refused(lambda: ag.simulate(ag.methods.Pure(), Never(), n_workers=N, **options))
    assert "got inf for worker 1. It was asked for draw 1." in text


def test_a_run_whose_time_stands_still_is_refused(refused, monkeypatch):
    """Unless a limit ends it."""
    monkeypatch.setattr("asgrad.workers.virtual._STANDS_STILL", 50)
    workers, method = ag.Virtual(Still()), ag.methods.Pure()
    assert "train: time stands still at 0 s: 4050 jobs took 0 seconds" in refused(
        lambda: ag.train(quadratic(), method, 0.1, workers=workers, until_time=1.0)
    )
    check(method, Still(), steps=5000)
    check(method, Still(), jobs=5000)


@pytest.mark.parametrize("times", TIMES[::2], ids=lambda times: times.label)
@pytest.mark.parametrize(
    "method",
    [
        ag.methods.Shuffled(),  # queues
        ag.methods.Ringmaster(max_delay=2, stop_stale=True),  # cancels
        ag.methods.Ringleader(),  # a table
        Whim(0.1, 0.3),
    ],
    ids=lambda method: method.label,
)
def test_a_run_that_was_cut_off_goes_on_as_if_it_had_not_been(method, times, tmp_path):
    """Wherever it was: by its limit, by a callback that raises, or between two checkpoints."""
    pytest.importorskip("safetensors")
    whole = check(method, times, jobs=40)

    def train(folder, **options):
        return ag.train(
            quadratic(), method, 0.05, workers=ag.Virtual(times), seed=3,
            checkpoints=ag.Checkpoints(tmp_path / folder, steps=1, keep=100), **options,
        )  # fmt: skip

    def resumed(folder):
        run = train(folder, jobs=40, resume=True)
        assert run.trace.header == whole.trace.header
        assert run.trace.equals(whole.trace)
        np.testing.assert_array_equal(run.model, whole.model)

    for jobs in (0, 7, 20):
        short = train(f"limit-{jobs}", jobs=jobs)
        again = train(f"limit-{jobs}", jobs=jobs, resume=True)  # nothing is left to do
        assert again.trace.equals(short.trace)
        resumed(f"limit-{jobs}")

    arrived = []

    def broken(job):
        arrived.append(job)
        if len(arrived) == 9:
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        train("raised", jobs=40, on_arrival=broken)
    resumed("raised")
    for path in list_checkpoints(tmp_path / "raised")[1:-1:8]:  # as many as there was time for
        for name in (path.name, "journal"):
            shutil.copytree(path.parent / name, tmp_path / f"alone-{path.name}" / name)
        resumed(f"alone-{path.name}")


def test_evaluations_go_by_virtual_time():
    """After all that happens at their moment; where nothing has changed there is none."""
    problem = ag.problems.Quadratic(np.ones(2), n_workers=2)
    options = {"workers": ag.Virtual(ag.times.Fixed(scale=1.0)), "until_time": 6.0}
    run = ag.train(problem, ag.methods.Pure(), 0.1, evaluate_every=1.5, **options)
    # Both workers arrive at 1, 2, 3, ...; at 3 and 6 the evaluation comes after them.
    assert run.times.tolist() == [0.0, 1.5, 3.0, 4.5, 6.0]
    assert run.steps.tolist() == [0, 2, 6, 8, 12]
    run = ag.train(problem, ag.methods.Pure(), 0.1, evaluate_every=0.25, **options)
    assert run.times.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert run.steps.tolist() == [0, 2, 4, 6, 8, 10, 12]


def test_a_target_ends_a_run_at_the_same_step_every_time():
    """Evaluations take no time: none comes late."""
    options = {"target": 0.2, "evaluate_every": 0.5, "seed": 1}
    runs = [
        ag.train(quadratic(), "sync", 0.2, workers=ag.Virtual("exponential"), **options)
        for _ in range(2)
    ]
    assert {run.status for run in runs} == {Ending.TARGET}
    assert runs[0].trace.equals(runs[1].trace)
    np.testing.assert_array_equal(runs[0].times, runs[1].times)
    # The end is the moment of the evaluation that saw it; no other before did.
    assert runs[0].trace.header.end_time == runs[0].times[-1]
    assert (runs[0].gradient_norm[:-1] > 0.2).all()


def test_what_an_evaluation_raises_ends_the_run():
    def broken(step, now, loss, norm):
        if step > 3:
            raise RuntimeError("no room for the log")

    with pytest.raises(RuntimeError, match="no room for the log"):
        ag.train(
            quadratic(), "pure", 0.1, workers=ag.Virtual("linear"), steps=50, on_evaluation=broken
        )


def test_ctrl_c_ends_a_run_in_order():
    def stop(step, now):
        if step == 10:
            signal.raise_signal(signal.SIGINT)

    run = ag.train(quadratic(), "pure", 0.1, workers=ag.Virtual("linear"), steps=50, on_step=stop)
    assert run.status == Ending.INTERRUPTED
    assert run.trace.n_steps == 11


def test_gradients_of_jobs_that_are_called_off_are_not_computed():
    """Nor of those that the run does not wait for: what a run takes is its arrivals' gradients."""
    computed = []

    class Counting(ag.Problem):
        """f = ‖x‖²/2."""

        dim, n_workers = 2, N

        def gradient(self, x, worker, draw=0, rng=None):
            computed.append((worker, draw))
            return x

        def loss(self, x):
            return float(x @ x / 2)

        def full_gradient(self, x):
            return x

    workers = ag.Virtual(ag.times.Fixed(scale=[1.0, 1e9, 1e9, 1e9]))
    run = ag.train(
        Counting(), ag.methods.MSync(m=1), 0.1, workers=workers, steps=20, evaluate_every=None
    )
    assert run.trace.header.end_time == 20.0
    assert computed == [(0, 0), *((0, draw) for draw in range(20))]  # the first compiles


def test_a_checkpoint_is_resumed_with_the_same_times_only(tmp_path, refused):
    """Neither with others nor on real workers, and the other way round."""
    pytest.importorskip("safetensors")

    def train(folder, workers, **options):
        kept = ag.Checkpoints(tmp_path / folder)
        return ag.train(quadratic(), "pure", 0.1, workers=workers, checkpoints=kept, **options)

    virtual = ag.Virtual("linear")
    train("virtual", virtual, steps=5)
    train("threads", ag.Threads(), steps=5)
    for workers, said in ((ag.Threads(), "measured"), (ag.Virtual("sqrt"), "sqrt")):
        text = refused(lambda w=workers: train("virtual", w, steps=9, resume=True))
        assert f"times = linear, this one has {said}" in text
    text = refused(lambda: train("threads", virtual, steps=9, resume=True))
    assert "times = measured, this one has linear" in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"times": 3.0}, "Virtual: times must be a Times, for instance"),
        ({"times": "liner"}, "Did you mean 'linear'"),
        ({"times": "linear", "n_workers": 2.5}, "Virtual: n_workers must be an integer"),
    ],
)
def test_bad_options_are_refused(options, said, refused):
    assert said in refused(lambda: ag.Virtual(**options))
