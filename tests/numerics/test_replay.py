"""replay: lanes, divergence, memory, stopping."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest

import asgrad as ag
from asgrad.errors import AsgradError, TraceError
from asgrad.numerics import Interrupted
from asgrad.numerics.blocks import bytes_of_blocks
from asgrad.numerics.plan import plan_replay
from asgrad.numerics.replay import replayed_models

PROBLEMS = {
    "quadratic": ag.problems.Quadratic(
        np.linspace(0.1, 1.0, 7), n_workers=4, heterogeneity=1.0, noise=0.1
    ),
    "tridiagonal": ag.problems.Tridiagonal(11, n_workers=4, noise=0.1),
    "softmax": ag.problems.Softmax("digits", n_workers=4, split="label", batch=8, strength=0.01),
    "logistic": ag.problems.Logistic("breast-cancer", n_workers=4, batch=5),
}
STEPSIZES = np.geomspace(0.01, 0.3, 9)


def trace_of(method, steps: int = 120) -> ag.Trace:
    """A trace on four workers with random times."""
    return ag.simulate(method, ag.times.Normal(), n_workers=4, steps=steps, seed=2)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", [ag.methods.Random(), ag.methods.Ringleader()])
@pytest.mark.parametrize("name", PROBLEMS)
def test_bits_of_a_lane_depend_on_no_other_lane_and_no_thread(name, method, dtype):
    """Nine lanes on two threads, on one, and each alone: equal bits, models and metrics."""
    trace, problem = trace_of(method), PROBLEMS[name]
    options = {"evaluations": 7, "dtype": dtype}
    together = ag.replay(trace, problem, STEPSIZES, threads=1, **options)
    split = ag.replay(trace, problem, STEPSIZES, threads=2, **options)
    np.testing.assert_array_equal(together.models, split.models)
    for lane, stepsize in enumerate(STEPSIZES):
        alone = ag.replay(trace, problem, stepsize, **options)
        np.testing.assert_array_equal(together.models[:, lane], alone.models[:, 0])
        np.testing.assert_array_equal(together.gradient_norm[:, lane], alone.gradient_norm[:, 0])
        np.testing.assert_array_equal(together.loss[:, lane], alone.loss[:, 0])


@pytest.mark.parametrize(
    "method",
    [ag.methods.Pure(), ag.methods.Rennala(batch=3), ag.methods.Ringleader(), ag.methods.Sync()],
    ids=lambda method: method.label,
)
def test_models_on_the_way_are_those_of_shorter_runs(method):
    """One walk with pauses gives the bits of a replay of each beginning."""
    trace = trace_of((method, ag.stepsizes.Mishchenko(), ag.optimizers.HeavyBall(0.5)))
    problem, steps = PROBLEMS["softmax"], [0, 1, 17, 40, 120]
    models = replayed_models(trace, problem, 0.2, steps, dtype="float32")
    for step, model in zip(steps, models, strict=True):
        # A rule may read the largest delays of the whole run; Mishchenko's does not.
        alone = ag.replay(trace.until(step), problem, 0.2, dtype="float32")
        np.testing.assert_array_equal(model, alone.models[:, 0])
        assert model.dtype == np.float32


def test_more_lanes_than_a_block_holds_and_several_seeds():
    """Lanes are all pairs of seed and stepsize, seeds outermost, and each equals its own run."""
    trace, problem = trace_of(ag.methods.Pure()), PROBLEMS["quadratic"]
    stepsizes = np.linspace(0.01, 0.2, 40)
    result = ag.replay(trace, problem, stepsizes, seeds=[3, 8], evaluations=2)
    np.testing.assert_array_equal(result.seeds, np.repeat([3, 8], 40))
    np.testing.assert_array_equal(result.stepsizes, np.tile(stepsizes, 2))
    alone = ag.replay(trace, problem, stepsizes[33], seeds=8, evaluations=2)
    np.testing.assert_array_equal(result.models[:, 40 + 33], alone.models[:, 0])
    assert (result.models[:, 33] != alone.models[:, 0]).any()


def test_a_diverging_lane_is_stopped_and_the_others_go_on():
    """Stepsizes far above 2/L blow up at different times; the rest keep their bits."""
    trace, problem = trace_of(ag.methods.Sync(), 400), PROBLEMS["tridiagonal"]
    result = ag.replay(trace, problem, [0.5, 1000.0, 0.25, 5.0, 1e6], evaluations=400)
    assert result.status == ["finished", "diverged", "finished", "diverged", "diverged"]
    alone = ag.replay(trace, problem, [0.5, 0.25], evaluations=400)
    np.testing.assert_array_equal(result.models[:, [0, 2]], alone.models)
    for lane in (1, 3, 4):
        norms = result.gradient_norm[:, lane]
        last = np.flatnonzero(np.isfinite(norms))[-1]
        assert np.isnan(norms[last + 1 :]).all()
        assert (norms[: last + 1] <= 1e8 * max(1.0, norms[0])).all()
    firsts = [np.argmax(np.isnan(result.gradient_norm[:, lane])) for lane in (4, 1, 3)]
    assert firsts == sorted(set(firsts))


def test_all_lanes_may_diverge():
    """The result is still whole."""
    trace, problem = trace_of(ag.methods.Sync(), 100), PROBLEMS["tridiagonal"]
    result = ag.replay(trace, problem, [1e3, 1e5], evaluations=10)
    assert result.status == ["diverged", "diverged"]
    assert np.isfinite(result.gradient_norm[0]).all()
    assert np.isnan(result.gradient_norm[-1]).all()


@pytest.mark.parametrize("method", [ag.methods.Pure(), ag.methods.Sync(), ag.methods.ACE()])
def test_memory_stays_under_the_stated_formula(method):
    """(V + E + 4 + M) · dim · lanes floats + 200 · dim a thread, and a little."""
    problem = ag.problems.Tridiagonal(20_000, n_workers=10, noise=0.01)
    trace = ag.simulate(method, ag.times.Linear(), n_workers=10, steps=60)
    _, n_versions, n_entries = plan_replay(trace, np.array([0, 60]))
    assert n_versions <= 11
    lanes = 8
    ag.replay(trace, problem, np.full(lanes, 0.1), evaluations=3, threads=1)  # compiled by now
    tracemalloc.start()
    ag.replay(trace, problem, np.full(lanes, 0.1), evaluations=3, threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    floats = (n_versions + n_entries + 4) * problem.dim * lanes + 200 * problem.dim
    assert peak <= 8 * floats + 1_000_000
    assert n_versions == {"pure": 10, "sync": 1, "ace": 10}[method.name]


@pytest.mark.parametrize("method", ["pure", "ace"])
def test_a_replay_that_memory_cannot_hold_is_refused_before_it_begins(method, monkeypatch, refused):
    """What it is guessed to take is what was measured, by an eighth; insisting computes it."""
    problem = ag.problems.Tridiagonal(20_000, n_workers=10, noise=0.01)
    trace = ag.simulate(method, ag.times.Linear(), n_workers=10, steps=60)
    options = {"recipe": "heavy-ball", "evaluations": 14, "threads": 1}

    def play(**more: bool) -> ag.Result:
        return ag.replay(trace, problem, np.full(8, 0.1), **options, **more)

    play()  # compiled by now
    tracemalloc.start()
    play()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    monkeypatch.setattr("asgrad.machine.available_memory", lambda: 1.125 * peak)
    play()
    monkeypatch.setattr("asgrad.machine.available_memory", lambda: 0.875 * peak)
    with monkeypatch.context() as patch:
        patch.setattr(type(problem), "kernels", None)  # whoever begins asks for them
        text = refused(play)
    assert text.startswith("replay: 8 lanes with 10 models and ")
    assert "of dimension 20000 would take" in text
    assert text.endswith("--insist.")
    assert play(insist=True).status == ["finished"] * 8


def test_threads_hold_their_lanes_at_once(monkeypatch, refused):
    """One after the other they fit; side by side they do not."""
    trace, problem = trace_of(ag.methods.Pure()), PROBLEMS["softmax"]
    one = bytes_of_blocks(problem, ag.recipes.Parts(), 5, "float64", 4, 0)
    monkeypatch.setattr("asgrad.machine.available_memory", lambda: 1.7 * one)
    assert "9 lanes" in refused(lambda: ag.replay(trace, problem, STEPSIZES, threads=2))
    ag.replay(trace, problem, STEPSIZES[:5], threads=1)


def test_a_live_run_that_memory_cannot_hold_is_refused(monkeypatch, refused):
    """A model for every worker and two to spare, and two table entries each."""
    monkeypatch.setattr("asgrad.machine.available_memory", lambda: 1e6)
    problem = ag.problems.Tridiagonal(20_000, n_workers=10)
    text = refused(lambda: ag.train(problem, "ringleader", 0.1, steps=1))
    assert text.startswith("train: 12 models and 20 table entries of dimension 20000 would take")


def test_evaluations_are_spread_evenly_and_at_both_ends():
    """At most one a step; x_0 came to be at 0 s, x_s with step s − 1."""
    trace, problem = trace_of(ag.methods.Pure(), 10), PROBLEMS["quadratic"]
    assert ag.replay(trace, problem, 0.1, evaluations=5).steps.tolist() == [0, 2, 4, 6, 8, 10]
    every = ag.replay(trace, problem, 0.1, evaluations=1000)
    assert every.steps.tolist() == list(range(11))
    np.testing.assert_array_equal(every.times, np.append(0.0, trace.step_times))


@pytest.mark.parametrize("name", PROBLEMS)
def test_without_evaluations_the_models_are_the_same(name):
    """Nothing is recorded on the way; a lane has diverged if its last model is not finite."""
    trace, problem = trace_of(ag.methods.Pure(), 400), PROBLEMS[name]
    result = ag.replay(trace, problem, [0.1, 0.2, 1e12], evaluations=0, threads=2)
    plain = ag.replay(trace, problem, [0.1, 0.2], evaluations=1)
    np.testing.assert_array_equal(result.models[:, :2], plain.models)
    assert result.status[:2] == ["finished", "finished"]
    assert (result.status[2] == "diverged") == (not np.isfinite(result.models[:, 2]).all())
    assert result.steps.size == 0
    assert result.loss.shape == result.test_loss.shape == (0, 3)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        ag.replay(trace, problem, 0.1, evaluations=0, stop=stop)
    unmoved = ag.replay(trace.until(0), problem, 0.1, evaluations=0)
    np.testing.assert_array_equal(unmoved.models[:, 0], problem.x0)


def test_a_problem_says_in_which_dtype_it_is_computed():
    """Unless a run says otherwise."""
    trace = trace_of(ag.methods.Pure(), 5)
    quadratic = ag.problems.Tridiagonal(5, n_workers=4)
    assert ag.replay(trace, quadratic, 0.1).models.dtype == np.float64
    quadratic.dtype = np.float32
    assert ag.replay(trace, quadratic, 0.1).models.dtype == np.float32
    assert ag.replay(trace, quadratic, 0.1, dtype="float64").models.dtype == np.float64
    assert ag.train(quadratic, ag.methods.Pure(), 0.1, steps=3).model.dtype == np.float32
    quadratic.dtype = "double-double"
    with pytest.raises(AsgradError, match="unknown dtype 'double-double'"):
        ag.replay(trace, quadratic, 0.1)


def test_a_trace_without_steps_is_evaluated_at_its_start():
    """Nothing happened: the model is x_0."""
    trace, problem = trace_of(ag.methods.Pure(), 0), PROBLEMS["quadratic"]
    x0 = np.arange(7.0)
    result = ag.replay(trace, problem, [0.1, 0.2], x0=x0)
    assert result.steps.tolist() == [0]
    np.testing.assert_array_equal(result.models, np.column_stack([x0, x0]))


def test_progress_adds_up_to_one_and_stop_is_answered():
    """Shares sum to 1, also if lanes diverge; once stop is set, it raises."""
    trace, problem = trace_of(ag.methods.Pure()), PROBLEMS["quadratic"]
    told: list[float] = []
    ag.replay(trace, problem, [0.1, 0.2, 0.3], progress=told.append)
    assert sum(told) == pytest.approx(1.0)
    told.clear()
    ag.replay(trace, problem, [0.1, 1e9, 1e7], progress=told.append, threads=1)
    assert sum(told) == pytest.approx(1.0)
    stop = threading.Event()
    stop.set()
    with pytest.raises(Interrupted):
        ag.replay(trace, problem, 0.1, stop=stop)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stepsizes": []}, "at least one stepsize"),
        ({"stepsizes": [0.1, 0.0]}, "stepsize must be finite and > 0"),
        ({"stepsizes": [float("nan")]}, "stepsize must be finite and > 0"),
        ({"dtype": "float16"}, "Valid: float32, float64"),
        ({"evaluations": -1}, "evaluations must be an integer >= 0"),
        ({"x0": np.zeros(3)}, r"x0 must have shape \(7,\)"),
        ({"x0": np.full(7, np.inf)}, "x0 must be finite"),
        ({"seeds": []}, "one seed"),
        ({"threads": 0}, "threads must be an integer >= 1"),
        ({"threads": -1}, "threads must be an integer >= 1"),
    ],
)
def test_bad_arguments_are_one_clear_line(options, said):
    """Each wrong argument is named with its rule."""
    options = {"stepsizes": 0.1, **options}
    with pytest.raises(AsgradError, match=said):
        ag.replay(trace_of(ag.methods.Pure(), 5), PROBLEMS["quadratic"], **options)


def test_trace_and_problem_must_agree_on_the_workers():
    """The message names both numbers."""
    with pytest.raises(TraceError, match="4 workers and the problem 3"):
        ag.replay(trace_of(ag.methods.Pure(), 5), ag.problems.Tridiagonal(5, n_workers=3), 0.1)


class Odd(ag.Method):
    """Holds, re-weighs, clears, applies, takes no, one or two steps an arrival."""

    def n_entries(self, n_workers):
        """Three entries."""
        return 3

    def start(self, server):
        """Every worker twice."""
        for worker in [*range(server.n_workers)] * 2:
            server.assign(worker)

    def arrive(self, server, worker, read_step):
        """A random mixture of what a server may do."""
        choice = server.rng.integers(6)
        entry = int(server.rng.integers(3))
        if choice == 0:
            server.apply(0.5)
        elif choice == 1:
            server.drop()
        else:
            if choice == 2:
                server.clear(entry)
            server.hold(entry)
        if choice >= 3:
            server.weigh(entry, float(server.rng.choice([0.0, 0.25, -0.5])))
        if choice == 5:
            server.clear((entry + 1) % 3)
            server.cancel((worker + 1) % server.n_workers)
            server.assign((worker + 1) % server.n_workers)
        for _ in range(int(server.rng.integers(3))):
            server.take_step()
        server.assign(worker)


def check_odd_run(seed: int) -> None:
    """Compare replay with d_s = Σ weight · g, read straight off the contributions table."""
    problem = ag.problems.Quadratic(np.linspace(0.1, 1.0, 5), n_workers=4, heterogeneity=1.0)
    trace = ag.simulate(Odd(), ag.times.Normal(), n_workers=4, steps=60, seed=seed)
    x = [problem.x0]
    rows = list(zip(*(column.tolist() for column in trace.contributions), strict=True))
    for step in range(trace.n_steps):
        direction = np.zeros(5)
        for job, _, first, end, weight in rows:
            if first <= step < end:
                read = x[trace.jobs.read_step[job]]
                direction += weight * problem.gradient(read, int(trace.jobs.worker[job]))
        x.append(x[-1] - 0.05 * direction)
    result = ag.replay(trace, problem, [0.05, 0.01])
    np.testing.assert_allclose(result.models[:, 0], x[-1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_a_direction_is_the_weighted_sum_of_its_live_contributions(seed):
    """It holds for a method that uses its table in the oddest ways."""
    check_odd_run(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(1000, 3000))
def test_odd_methods_for_long(seed):
    """The same for two thousand more runs."""
    check_odd_run(seed)


def test_progress_is_a_function_or_a_bar(refused):
    """True shows nothing where nobody watches; the shares that a function is told sum to one."""
    problem = ag.problems.Tridiagonal(4, n_workers=2)
    trace = ag.simulate("pure", "fixed", n_workers=2, steps=20)
    shares = []
    plain = ag.replay(trace, problem, [0.1, 0.2], progress=shares.append)
    assert sum(shares) == pytest.approx(1.0)
    for progress in (True, False, None):
        again = ag.replay(trace, problem, [0.1, 0.2], progress=progress)
        np.testing.assert_array_equal(again.loss, plain.loss)
    text = refused(lambda: ag.replay(trace, problem, 0.1, progress="bar"))
    assert text == "replay: progress must be a function, got 'bar'."
