"""train: what a live run records, that it replays bit for bit, and that failures lose nothing."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import asgrad as ag
from asgrad.registry import catalogue
from asgrad.trace import Fate
from asgrad.training import Ending

METHODS = [cls() for cls in catalogue(ag.methods).values()] + [
    ag.methods.Pure(wait=2),
    ag.methods.Shuffled(once=True, wait=2),
    ag.methods.Ringmaster(max_delay=2, stop_stale=True),
    ag.methods.Rennala(batch=5, stop_stale=True),
]


def quadratic(noise: float = 0.1) -> ag.Problem:
    """A small problem for three workers."""
    return ag.problems.Quadratic(
        np.linspace(0.1, 1.0, 20), n_workers=3, heterogeneity=1.0, noise=noise
    )


def check_books(trace: ag.Trace) -> None:
    """Every job ended once: assigned = applied + dropped + cancelled + lost + in flight."""
    jobs = trace.jobs
    counts = [int((jobs.fate == fate).sum()) for fate in Fate]
    assert sum(counts) == trace.n_jobs
    keys = set(zip(jobs.worker.tolist(), jobs.draw.tolist(), strict=True))
    assert len(keys) == trace.n_jobs
    assert set(trace.contributions.job.tolist()) == set(
        np.flatnonzero(jobs.fate == Fate.APPLIED).tolist()
    )


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.label)
def test_a_run_on_threads_replays_bit_for_bit(method, dtype, tmp_path):
    """The model and its evaluation come back from the trace, also through a file.

    Under a rule that takes τ_C from the run, which a live run knows from its first jobs only.
    """
    problem = quadratic()
    recipe = ag.Recipe(
        method, stepsize=ag.stepsizes.Koloskova(), optimizer=ag.optimizers.HeavyBall(0.5)
    )
    run = ag.train(problem, recipe, 0.05, steps=150, seed=4, dtype=dtype)
    assert run.status == Ending.STEPS
    assert run.trace.n_steps == 150
    check_books(run.trace)
    run.trace.save(tmp_path / "trace")
    again = ag.replay(ag.Trace.load(tmp_path / "trace"), problem, 0.05, dtype=dtype)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    assert again.gradient_norm[-1, 0] == run.gradient_norm[-1]
    assert run.model.dtype == dtype


@pytest.mark.parametrize(
    "rule", [ag.stepsizes.Mishchenko(), ag.stepsizes.Koloskova(stale="drop", concurrency=2)]
)
def test_stepsize_rules_replay_bit_for_bit(rule):
    """As do rules that depend on the delay, and clipping; the trace knows its recipe."""
    problem = quadratic()
    recipe = ag.Recipe(ag.methods.Pure(), stepsize=rule, encoder=ag.encoders.Clip(0.5))
    workers = ag.Threads(slowdown=[1.0, 1.0, 6.0])
    run = ag.train(problem, recipe, 0.1, steps=200, workers=workers)
    assert run.trace.header.recipe == f"pure+{rule.label}+clip:threshold=0.5"
    for said in (None, recipe, recipe.label):
        again = ag.replay(run.trace, problem, 0.1, recipe=said)
        np.testing.assert_array_equal(again.models[:, 0], run.model)
    plain = ag.replay(run.trace, problem, 0.1, recipe="pure")
    assert (plain.models[:, 0] != run.model).any()


class Growing(ag.Method):
    """One job at the start; every arrival asks for one more, up to six in the worker's queue."""

    def start(self, server):
        self.flying = 1
        server.assign(0)

    def arrive(self, server, worker, read_step):
        server.apply()
        server.take_step()
        server.assign(worker)
        if self.flying < 6:
            server.assign(worker)
            self.flying += 1


def test_what_a_rule_takes_from_a_live_run_is_bound_in_its_trace(tmp_path):
    """A live run knows its first jobs only, one here; its trace has six in flight.

    Under Koloskova's rule with τ_C = 1 a gradient of delay 5 is scaled, with τ_C = 6 it is not.
    """
    problem = quadratic()
    recipe = (Growing(), ag.stepsizes.Koloskova())
    run = ag.train(problem, recipe, 0.2, steps=60, seed=4)
    assert run.trace.summary.tau_max == 5
    assert run.trace.header.recipe == "Growing+koloskova"
    assert run.trace.header.bound == {"smoothness": problem.smoothness, "concurrency": 1}
    assert run.trace.summary.tau_c == 6
    run.trace.save(tmp_path / "trace")
    loaded = ag.Trace.load(tmp_path / "trace")
    for options in ({}, {"recipe": recipe}, {"recipe": "koloskova"}):
        again = ag.replay(loaded, problem, 0.2, **options)
        np.testing.assert_array_equal(again.models[:, 0], run.model)
    unbound = ag.replay(run.trace, problem, 0.2, recipe="koloskova:concurrency=6")
    assert np.abs(unbound.models[:, 0] - run.model).max() > 1e-3


def test_the_settings_of_a_run_name_its_recipe_and_what_it_bound():
    """By which a resumed run is told from another."""
    problem = quadratic()
    run = ag.train(problem, "pure+mishchenko", 0.1, steps=3)
    assert run.settings["recipe"] == "pure+mishchenko"
    assert run.settings["n_workers"] == run.trace.header.bound["n_workers"] == 3
    assert ag.train(problem, "pure", 0.1, steps=3).trace.header.bound == {}


def test_rules_that_take_nothing_from_a_live_run_replay_bit_for_bit():
    """A what-if on its trace takes what the run did not bind from the trace."""
    problem = quadratic()
    run = ag.train(problem, "pure", 0.1, steps=100)
    what_if = ag.replay(run.trace, problem, 0.1, recipe="koloskova")
    tau_c = run.trace.summary.tau_c
    said = ag.replay(run.trace, problem, 0.1, recipe=f"koloskova:concurrency={tau_c}")
    np.testing.assert_array_equal(what_if.models, said.models)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("method", ["pure", "pure:wait=2", "ringleader"])
@pytest.mark.parametrize("optimizer", [*catalogue(ag.optimizers), "amsgrad:max_delay=1"])
def test_optimizers_replay_bit_for_bit(optimizer, method, dtype):
    """The largest delay of a step is the same, too."""
    problem = quadratic()
    run = ag.train(problem, f"{method}+{optimizer}", 0.5, steps=60, dtype=dtype)
    again = ag.replay(run.trace, problem, 0.5, dtype=dtype)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


@pytest.mark.parametrize("rule", ["polynomial", "hinge:max_delay=1", "fleet"])
def test_stepsizes_of_the_delay_alone_replay_bit_for_bit(rule):
    problem = quadratic()
    run = ag.train(problem, f"random+{rule}", 0.1, steps=60)
    again = ag.replay(run.trace, problem, 0.1)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


def test_softmax_replays_bit_for_bit():
    """A finite sum with sampled rows too."""
    problem = ag.problems.Softmax("digits", n_workers=3, split="label", batch=16, strength=0.01)
    run = ag.train(problem, ag.methods.Random(), 0.05, steps=100, seed=1)
    again = ag.replay(run.trace, problem, 0.05)
    np.testing.assert_array_equal(again.models[:, 0], run.model)
    assert run.accuracy[-1] == again.accuracy[-1, 0]


def test_one_worker_is_sequential_sgd():
    """One worker never has a delay: x ← x − γ g(x; draw), step by step."""
    problem = ag.problems.Tridiagonal(6, n_workers=1, noise=0.1)
    run = ag.train(problem, ag.methods.Pure(), 0.2, steps=50, seed=9)
    from asgrad.streams import Purpose, stream_key

    key = stream_key(9, Purpose.GRADIENT)
    x = problem.x0
    for draw in range(50):
        x = x - 0.2 * problem.gradient(x, 0, draw, key=key)
    np.testing.assert_allclose(run.model, x, rtol=1e-12)


def test_limits_and_callbacks():
    """Each limit ends the run; callbacks see every step and arrival."""
    problem = quadratic()
    seen: dict[str, list] = {"steps": [], "jobs": [], "evaluations": []}
    run = ag.train(
        problem, ag.methods.Sync(), 0.1, jobs=30,
        on_step=lambda step, now: seen["steps"].append(step),
        on_arrival=lambda job: seen["jobs"].append(job.row),
        on_evaluation=lambda step, now, loss, norm: seen["evaluations"].append(step),
    )  # fmt: skip
    assert run.status == Ending.JOBS
    assert seen["steps"] == list(range(run.trace.n_steps)) == list(range(10))
    assert len(seen["jobs"]) == 30
    assert seen["evaluations"] == run.steps.tolist()
    assert run.steps[0] == 0
    assert run.steps[-1] == 10
    by_time = ag.train(problem, ag.methods.Pure(), 0.1, until_time=0.3)
    assert by_time.status == Ending.TIME
    assert by_time.trace.header.end_time == pytest.approx(0.3, abs=0.2)
    reached = ag.train(
        quadratic(noise=0.0), ag.methods.Sync(), 1.0, target=0.5, evaluate_every=0.01,
        until_time=20,
    )  # fmt: skip
    assert reached.status == Ending.TARGET
    assert reached.gradient_norm[-1] <= 0.5


def test_a_callback_is_given_what_it_asks_for_by_name():
    """Accuracy and test loss, one of them, or neither; they are those of the run."""
    problem = ag.problems.Softmax("digits", n_workers=2, batch=8, test=0.2)
    seen: list[tuple] = []
    callbacks = (
        lambda step, now, loss, norm, accuracy, test_loss: seen.append((accuracy, test_loss)),
        lambda step, now, loss, norm, test_loss=None: seen.append((test_loss,)),
        lambda *four: seen.append(four[4:]),
    )
    for names, callback in zip(
        (("accuracy", "test_loss"), ("test_loss",), ()), callbacks, strict=True
    ):
        run = ag.train(problem, "pure", 0.1, steps=5, on_evaluation=callback)
        columns = [getattr(run, name).tolist() for name in names]
        assert seen == (list(zip(*columns, strict=True)) or [()] * run.steps.size)
        seen.clear()


def test_a_run_may_go_without_evaluations():
    """Not even of x_0; it replays all the same."""
    problem = quadratic()
    seen: list[int] = []
    run = ag.train(
        problem, ag.methods.Pure(), 0.1, steps=50, evaluate_every=None,
        on_evaluation=lambda step, *values: seen.append(step),
    )  # fmt: skip
    assert not seen
    assert run.steps.size == run.loss.size == run.accuracy.size == run.test_loss.size == 0
    again = ag.replay(run.trace, problem, 0.1, evaluations=0)
    np.testing.assert_array_equal(again.models[:, 0], run.model)


def test_a_gradient_norm_that_is_no_number_ends_a_run():
    """Also where f still is one; a replay says the same."""

    class Broken(ag.Problem):
        """f = 0, with a full gradient that is no number away from the start."""

        n_workers, dim = 2, 2

        def gradient(self, x, worker, draw=0, rng=None):
            return np.ones(2)

        def loss(self, x):
            return 0.0

        def full_gradient(self, x):
            return x / 0 if x.any() else x

    with np.errstate(all="ignore"):
        run = ag.train(Broken(), ag.methods.Sync(), 0.1, steps=5)
        assert run.status == Ending.DIVERGED
        assert ag.replay(run.trace, Broken(), 0.1).status == ["diverged"]


def test_a_job_that_is_called_off_is_not_slept_through():
    """m-Sync calls the slow worker's job off and it starts the next at once, for the new model."""
    workers = ag.Threads(sleep=ag.times.Fixed(scale=[0.01, 0.01, 2.0]))
    run = ag.train(quadratic(), ag.methods.MSync(m=2), 0.1, steps=30, workers=workers)
    assert run.trace.header.end_time < 1.5
    jobs = run.trace.jobs
    started = (jobs.worker == 2) & ~np.isnan(jobs.start_time)
    assert started.sum() > 20


def test_threads_end_with_the_run():
    """No thread of its own is left; those of other tests, whose jobs hang, may be."""
    before = set(threading.enumerate())
    seen: set[str] = set()
    ag.train(
        quadratic(), ag.methods.Pure(), 0.1, steps=20,
        on_step=lambda step, now: seen.update(t.name for t in threading.enumerate()),
    )  # fmt: skip
    assert {"asgrad-0", "asgrad-1", "asgrad-2", "asgrad-evaluation"} <= seen
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give a limit"),
        ({"steps": -1}, "steps must be an integer >= 0"),
        ({"steps": 5, "stepsize": 0.0}, "stepsize must be finite and > 0"),
        ({"steps": 5, "evaluate_every": 0.0}, "evaluate_every must be finite and > 0"),
        ({"target": 1.0, "evaluate_every": None}, "a target is seen by evaluations"),
        ({"steps": 5, "dtype": "int8"}, "unknown dtype 'int8'"),
        ({"steps": 5, "workers": ag.Threads(slowdown=[1.0])}, "one number for each of the 3"),
        ({"steps": 5, "method": ag.methods.Pure(wait=9)}, "wait must be at most 3"),
    ],
)
def test_bad_arguments_are_one_clear_line(options, said):
    """Each wrong argument is named with its rule."""
    options = {"method": ag.methods.Pure(), "stepsize": 0.1, **options}
    with pytest.raises(ag.AsgradError, match=said):
        ag.train(quadratic(), options.pop("method"), options.pop("stepsize"), **options)
