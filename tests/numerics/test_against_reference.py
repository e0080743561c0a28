"""Traces and replays agree with the plain event loop of `reference`, method by method.

The library first decides who computes what (`simulate`) and computes later (`replay`); the
reference carries its models along. It takes from the library's trace only how long each job took
and whom a random method drew; that the draws follow their rule is checked here as well.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chisquare

import reference
from asgrad import corrections, methods, optimizers, problems, stepsizes, times
from asgrad.numerics import Result, replay
from asgrad.numerics.plan import count_gradients
from asgrad.simulation import simulate
from asgrad.streams import Purpose, stream_key
from asgrad.trace import Trace
from asgrad.trace.tables import Fate

N = 5
STEPS = 60
SEED = 3
STEPSIZES = [0.03, 0.2]
FATES = {
    Fate.IN_FLIGHT: reference.IN_FLIGHT,
    Fate.APPLIED: reference.APPLIED,
    Fate.DROPPED: reference.DROPPED,
    Fate.CANCELLED: reference.CANCELLED,
}


class Row(NamedTuple):
    """A method of the library, and how to make the reference's from a tape and n."""

    method: Any
    twin: Callable[[list[int], int], Any]


def taped(method: Any, concurrency: int | None = None, wait: int = 1) -> Row:
    """Return the row of a method that draws its workers."""
    return Row(method, lambda tape, n: reference.Taped(tape, concurrency or n, wait))


def reshuffled(method: Any) -> Row:
    """Return the row of a method with one job in flight."""
    return Row(method, lambda tape, n: reference.Reshuffling(tape))


def minibatch(batch: int) -> Row:
    """Return the row of minibatch SGD."""
    return Row(methods.Minibatch(batch), lambda tape, n: reference.Minibatch(tape, batch))


def untaped(method: Any, twin: Callable[..., Any], *args: Any) -> Row:
    """Return the row of a method without random choices."""
    return Row(method, lambda tape, n: twin(*args))


ROWS = {
    "pure": untaped(methods.Pure(), reference.Pure),
    "pure, wait 3": untaped(methods.Pure(wait=3), reference.Pure, 3),
    "pure, wait for all": untaped(methods.Pure(wait=N), reference.Pure, N),
    "random": taped(methods.Random()),
    "random, wait 2": taped(methods.Random(wait=2), wait=2),
    "random, wait for all": taped(methods.Random(wait=N), wait=N),
    "random, 3 in flight": taped(methods.Random(concurrency=3), 3),
    "random, 8 in flight": taped(methods.Random(concurrency=8), 8),
    "random, 4 in flight, wait 3": taped(methods.Random(wait=3, concurrency=4), 4, 3),
    "shuffled": taped(methods.Shuffled()),
    "shuffled once": taped(methods.Shuffled(once=True)),
    "shuffled, wait 3": taped(methods.Shuffled(wait=3), wait=3),
    "shuffled, wait for all": taped(methods.Shuffled(wait=N), wait=N),
    "shuffled, 3 in flight": taped(methods.Shuffled(concurrency=3), 3),
    "shuffled once, 4 in flight, wait 2": taped(
        methods.Shuffled(once=True, wait=2, concurrency=4), 4, 2
    ),
    "reshuffling": reshuffled(methods.Reshuffling()),
    "reshuffling once": reshuffled(methods.Reshuffling(once=True)),
    "minibatch of 1": minibatch(1),
    "minibatch of 3": minibatch(3),
    "minibatch of all": minibatch(N),
    "sync": untaped(methods.Sync(), reference.MSync, N),
    "1-sync": untaped(methods.MSync(1), reference.MSync, 1),
    "3-sync": untaped(methods.MSync(3), reference.MSync, 3),
    "all-sync": untaped(methods.MSync(N), reference.MSync, N),
    "rennala 1": untaped(methods.Rennala(1), reference.Rennala, 1),
    "buffered 3": untaped(methods.Buffered(3), reference.Buffered, 3),
    "buffered 12": untaped(methods.Buffered(12), reference.Buffered, 12),
    "rennala 4": untaped(methods.Rennala(4), reference.Rennala, 4),
    "rennala 12": untaped(methods.Rennala(12), reference.Rennala, 12),
    "rennala 1, stop": untaped(methods.Rennala(1, stop_stale=True), reference.Rennala, 1, True),
    "rennala 4, stop": untaped(methods.Rennala(4, stop_stale=True), reference.Rennala, 4, True),
    "rennala 12, stop": untaped(methods.Rennala(12, stop_stale=True), reference.Rennala, 12, True),
    "ringmaster 1": untaped(methods.Ringmaster(1), reference.Ringmaster, 1),
    "ringmaster 3": untaped(methods.Ringmaster(3), reference.Ringmaster, 3),
    "ringmaster 100": untaped(methods.Ringmaster(100), reference.Ringmaster, 100),
    "ringmaster 1, stop": untaped(
        methods.Ringmaster(1, stop_stale=True), reference.Ringmaster, 1, True
    ),
    "ringmaster 3, stop": untaped(
        methods.Ringmaster(3, stop_stale=True), reference.Ringmaster, 3, True
    ),
    "malenia 1": untaped(methods.Malenia(1), reference.Malenia, 1),
    "malenia 5": untaped(methods.Malenia(5), reference.Malenia, 5),
    "malenia 12": untaped(methods.Malenia(12), reference.Malenia, 12),
    "malenia 12, stop": untaped(methods.Malenia(12, stop_stale=True), reference.Malenia, 12, True),
    "ringleader": untaped(methods.Ringleader(), reference.Ringleader),
    "ace": untaped(methods.ACE(), reference.ACE),
    "ace, no wait": untaped(methods.ACE(wait=False), reference.ACE, False),
}
ANY_N = [
    *("pure", "random", "random, 8 in flight", "shuffled", "shuffled once", "reshuffling"),
    *("minibatch of 1", "1-sync", "buffered 3", "rennala 4", "rennala 4, stop", "ringmaster 3"),
    *("ringmaster 3, stop", "malenia 5", "ringleader", "ace", "ace, no wait"),
]
TIMES = {
    "linear": times.Linear(),
    "fixed": times.Fixed(),
    "normal": times.Normal(),
    "exponential": times.Exponential(),
    "poisson": times.Poisson(),
}


def dataset() -> tuple[np.ndarray, np.ndarray]:
    """Return 60 rows of 4 features with labels that a linear model gets mostly right."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 4))
    labels = np.sign(features @ rng.normal(size=4) + 0.5 * rng.normal(size=60))
    return features, labels


class OwnQuadratic(problems.Problem):
    """f_i(x) = ½ ‖x − c_i‖² with a shift of the gradient by sin(draw), in plain Python."""

    n_workers = N
    dim = 2
    centres = np.random.default_rng(1).normal(size=(N, 2))

    def gradient(
        self, x: np.ndarray, worker: int, draw: int = 0, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Return x − c_i, shifted."""
        return x - self.centres[worker] + 0.1 * np.sin(draw)

    def loss(self, x: np.ndarray) -> float:
        """Return the mean of all f_i."""
        return 0.5 * float(np.mean(np.sum((x - self.centres) ** 2, axis=1)))

    def full_gradient(self, x: np.ndarray) -> np.ndarray:
        """Return x − the mean of the c_i."""
        return x - self.centres.mean(axis=0)


@functools.cache
def problem_named(name: str) -> problems.Problem:
    """Return one of the problems that runs are compared on."""
    if name == "own":
        return OwnQuadratic()
    if name == "logistic":
        return problems.Logistic(
            dataset(), n_workers=N, batch=3, regularizer="nonconvex", strength=0.1
        )
    return problems.Quadratic([1.0, 0.6, 0.2, 0.05], n_workers=N, heterogeneity=1.0, noise=0.1)


@functools.cache
def trace_of(row: str, kind: str, n: int = N, steps: int = STEPS) -> Trace:
    """Return the library's trace of a method on `n` workers with the times `kind`."""
    return simulate(ROWS[row].method, TIMES[kind], n_workers=n, steps=steps, seed=SEED)


@functools.cache
def durations(row: str, kind: str, n: int) -> Callable[[int, int], float]:
    """Return how long every job takes.

    Fixed times follow from their rule. Random ones are read off a trace that is longer than the one
    to be compared, so that jobs in flight at its end have a duration as well.
    """
    if kind == "linear":
        return lambda worker, draw: worker + 1.0
    if kind == "fixed":
        return lambda worker, draw: 1.0
    jobs = trace_of(row, kind, n, 2 * STEPS).jobs
    known = (jobs.fate != Fate.CANCELLED) & np.isfinite(jobs.arrival_time)
    keys = zip(jobs.worker[known].tolist(), jobs.draw[known].tolist(), strict=True)
    took = (jobs.arrival_time - jobs.start_time)[known].tolist()
    table = dict(zip(keys, took, strict=True))
    return lambda worker, draw: table.get((worker, draw), math.inf)


def play(
    row: str,
    kind: str,
    problem: problems.Problem | None = None,
    *,
    n: int = N,
    seed: int = SEED,
    **options: Any,
) -> reference.Run:
    """Return the reference's run of a method; without a problem all gradients are zero."""
    if problem is None:
        gradient, x0 = (lambda x, worker, draw: np.zeros(1)), np.zeros(1)
    elif isinstance(problem, problems.CompiledProblem):
        key = stream_key(seed, Purpose.GRADIENT)
        gradient, x0 = functools.partial(problem.gradient, key=key), problem.x0
    else:
        gradient, x0 = problem.gradient, problem.x0
    run = reference.Run(
        ROWS[row].twin(trace_of(row, kind, n).jobs.worker.tolist(), n),
        n_workers=n,
        duration=durations(row, kind, n),
        gradient=gradient,
        x0=x0,
        **options,
    )
    return run.play(STEPS)


@functools.cache
def events_of(row: str, kind: str, n: int = N) -> reference.Run:
    """Return the reference's run without gradients."""
    return play(row, kind, n=n)


def assert_lanes_agree(
    result: Result, problem: problems.Problem, runs: list[reference.Run], rtol: float = 1e-10
) -> None:
    """Compare all that a replay reports, one lane a run, with the runs of the reference."""
    assert result.models.shape == (problem.dim, len(runs))
    assert_array_equal(result.steps, np.arange(STEPS + 1))
    for lane, run in enumerate(runs):
        models = run.models
        scale = rtol * float(np.linalg.norm(models[-1]))
        assert_allclose(result.models[:, lane], models[-1], rtol=0, atol=scale)
        norms = [np.linalg.norm(problem.full_gradient(x)) for x in models]
        assert_allclose(result.gradient_norm[:, lane], norms, rtol=rtol)
        losses = [problem.loss(x) for x in models]
        assert_allclose(result.loss[:, lane], losses, rtol=rtol, atol=rtol)
        shares = [problem.accuracy(x) for x in models]
        assert_allclose(result.accuracy[:, lane], shares, rtol=rtol)
        assert np.linalg.norm(models[-1] - models[0]) > 1e-3  # the run went somewhere


def job_rows(trace: Trace) -> list[tuple[int, int, int, str]]:
    """Return worker, draw, read step and fate of every job."""
    jobs = trace.jobs
    fates = [FATES[Fate(fate)] for fate in jobs.fate.tolist()]
    columns = (jobs.worker.tolist(), jobs.draw.tolist(), jobs.read_step.tolist(), fates)
    return list(zip(*columns, strict=True))


def expanded(trace: Trace) -> list[dict[tuple[int, int], float]]:
    """Return, step by step, the weight of every job (worker, draw) in the direction."""
    steps: list[dict[tuple[int, int], float]] = [{} for _ in range(trace.n_steps)]
    keys = list(zip(trace.jobs.worker.tolist(), trace.jobs.draw.tolist(), strict=True))
    for job, _, first, end, weight in zip(
        *(column.tolist() for column in trace.contributions), strict=True
    ):
        for s in range(first, min(end, trace.n_steps)):
            steps[s][keys[job]] = steps[s].get(keys[job], 0.0) + weight
    return steps


def assert_traces_agree(trace: Trace, run: reference.Run, exact: bool) -> None:
    """Compare the jobs, the steps and what each job gave to each step."""
    assert job_rows(trace) == [(j.worker, j.draw, j.read_step, j.fate) for j in run.jobs]
    rtol = 0.0 if exact else 1e-12
    for name in ("assign_time", "start_time", "arrival_time"):
        moments = [float(getattr(job, name)) for job in run.jobs]
        assert_allclose(getattr(trace.jobs, name), moments, rtol=rtol)
    assert_allclose(trace.step_times, [float(moment) for moment in run.step_times], rtol=rtol)
    for mine, theirs in zip(expanded(trace), run.directions, strict=True):
        assert set(mine) == set(theirs)
        assert_allclose([mine[key] for key in theirs], list(theirs.values()), rtol=1e-14)
    delays = [job.delay for job in run.jobs if job.fate == reference.APPLIED]
    assert_array_equal(trace.delays, delays)
    assert trace.summary.tau_c == run.max_concurrency


@pytest.mark.parametrize("kind", TIMES)
@pytest.mark.parametrize("row", ROWS)
def test_jobs_and_steps_are_those_of_the_reference(row: str, kind: str) -> None:
    """Who computes at which model, when, to what end, and with which weight in which step."""
    exact = kind in ("linear", "fixed", "poisson")  # whole seconds
    assert_traces_agree(trace_of(row, kind), events_of(row, kind), exact)


@pytest.mark.parametrize("n", [1, 2, 13])
@pytest.mark.parametrize("row", ANY_N)
def test_jobs_and_steps_are_those_of_the_reference_for_few_and_many_workers(
    row: str, n: int
) -> None:
    """The number of workers changes nothing in the rules."""
    assert_traces_agree(trace_of(row, "normal", n), events_of(row, "normal", n), exact=False)


UNITS = {
    "seconds": Fraction(1),
    "tenths": Fraction(1, 10),
    "minutes": Fraction(1, 60),
    "milliseconds": Fraction(1, 1000),
    "some other": Fraction(6577, 46189),
}
PACES = [Fraction(3, 2), Fraction(1), Fraction(4, 3), Fraction(1, 2), Fraction(1)]


def exact_events(row: str, paces: list[Fraction], tape: list[int], **limits: Any) -> reference.Run:
    """Return the reference's run with exact times and no gradients."""
    run = reference.Run(
        ROWS[row].twin(tape, len(paces)),
        n_workers=len(paces),
        duration=lambda worker, draw: paces[worker],
        gradient=lambda x, worker, draw: np.zeros(1),
        x0=np.zeros(1),
    )
    return run.play(**limits)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("row", ROWS)
def test_ties_are_those_of_exact_times_in_any_unit(row: str, unit: str) -> None:
    """Workers whose sums often meet, though in floating point they often do not."""
    paces = [pace * UNITS[unit] for pace in PACES]
    given = times.Fixed([float(pace) for pace in paces])
    trace = simulate(ROWS[row].method, given, n_workers=N, steps=150, seed=SEED)
    run = exact_events(row, paces, trace.jobs.worker.tolist(), n_steps=150)
    assert row != "pure" or len(set(run.arrival_times)) < len(run.arrival_times) / 2
    assert_traces_agree(trace, run, exact=False)
    assert_array_equal(count_gradients(trace, np.arange(151)), [0, *run.delivered])


@pytest.mark.parametrize("seed", [5, 13, 22, 37])
@pytest.mark.parametrize("row", ROWS)
def test_gradients_are_counted_in_the_order_of_arrival_within_a_moment(row: str, seed: int) -> None:
    """All arrive at tenths; what is held at the end came after the last step at the same moment."""
    drawn = np.random.default_rng(seed).choice([1, 1, 2, 4], N)
    paces = [Fraction(int(tenths), 20) for tenths in drawn]
    given = times.Fixed([float(pace) for pace in paces])
    for jobs in range(30, 42):
        trace = simulate(ROWS[row].method, given, n_workers=N, jobs=jobs, seed=seed)
        run = exact_events(row, paces, trace.jobs.worker.tolist(), n_steps=trace.n_steps)
        steps = np.arange(trace.n_steps + 1)
        assert_array_equal(count_gradients(trace, steps), [0, *run.delivered])


@pytest.mark.parametrize(
    ("wait", "counts"),
    [
        # 0.1: workers 0 and 1, each a step. 0.2 and 0.3, which is no float64 sum of tenths: again.
        (1, [0, 1, 2, 3, 4, 5]),
        # Every second arrival is a step; the fifth is held.
        (2, [0, 2, 4]),
    ],
)
def test_two_equal_workers_of_a_tenth_are_counted_one_by_one(wait: int, counts: list[int]) -> None:
    trace = simulate(methods.Pure(wait=wait), times.Fixed(0.1), n_workers=2, jobs=5)
    moments = trace.jobs.arrival_time[~np.isnan(trace.jobs.arrival_time)]
    assert_array_equal(moments, np.array([0.1, 0.1, 0.1 + 0.1, 0.1 + 0.1, moments[-1]]))
    assert_array_equal(count_gradients(trace, np.arange(len(counts))), counts)


@pytest.mark.parametrize("unit", UNITS)
def test_a_limit_in_time_is_that_of_exact_times_in_any_unit(unit: str) -> None:
    """Whatever happens at the limit happens, and the run ends there."""
    paces = [pace * UNITS[unit] for pace in PACES]
    given = times.Fixed([float(pace) for pace in paces])
    for sixths in range(3, 60):
        end = Fraction(sixths, 6) * UNITS[unit]
        trace = simulate(methods.Pure(), given, n_workers=N, until_time=float(end))
        run = exact_events("pure", paces, [], n_steps=math.inf, until=end)
        assert job_rows(trace) == [(j.worker, j.draw, j.read_step, j.fate) for j in run.jobs]
        assert trace.header.end_time == float(end)
        assert (trace.step_times <= trace.header.end_time).all()


def test_ties_stay_ties_in_a_long_run() -> None:
    """Rounding does not pile up: after 30 000 jobs of a tenth and of three tenths they still meet.

    Arrivals at 3k tenths: worker 1's job started before worker 0's third one, so it comes first.
    """
    given = times.Fixed([0.1, 0.3])
    trace = simulate(methods.Pure(), given, n_workers=2, until_time=3000.0)
    order = trace.jobs.worker[trace.contributions.job]
    assert_array_equal(order, np.tile([0, 0, 1, 0], 10_000))
    moments = np.repeat(np.arange(10_000), 4) * 3 + np.tile([1, 2, 3, 3], 10_000)
    assert_allclose(trace.step_times, moments / 10, rtol=1e-13)
    assert trace.jobs.worker.size == 40_002


@pytest.mark.parametrize("problem", ["logistic", "quadratic"])
@pytest.mark.parametrize("kind", ["linear", "normal"])
@pytest.mark.parametrize("row", ROWS)
def test_models_and_metrics_after_every_step_are_those_of_the_reference(
    row: str, kind: str, problem: str
) -> None:
    """Two stepsizes at once, every model evaluated."""
    target, trace = problem_named(problem), trace_of(row, kind)
    result = replay(trace, target, STEPSIZES, evaluations=STEPS)
    runs = [play(row, kind, target, stepsize=stepsize) for stepsize in STEPSIZES]
    assert_allclose(result.times, [0.0, *runs[0].step_times], rtol=1e-12)
    assert_array_equal(result.gradients, [0, *runs[0].delivered])
    assert_lanes_agree(result, target, runs)


@pytest.mark.parametrize("row", ["pure, wait 3", "random", "ringleader", "ace"])
def test_a_problem_written_in_python_is_replayed_as_in_the_reference(row: str) -> None:
    """Nothing of the library takes part in these gradients."""
    problem = problem_named("own")
    result = replay(trace_of(row, "normal"), problem, STEPSIZES, evaluations=STEPS)
    runs = [play(row, "normal", problem, stepsize=stepsize) for stepsize in STEPSIZES]
    assert_lanes_agree(result, problem, runs)


@pytest.mark.parametrize("row", ["pure", "shuffled, wait 3", "rennala 4", "ringleader"])
def test_every_pair_of_a_seed_and_a_stepsize_is_a_lane_of_its_own(row: str) -> None:
    """Seeds change the sampled rows, not the trace; they are outermost."""
    problem, seeds = problem_named("logistic"), [11, SEED]
    result = replay(trace_of(row, "normal"), problem, STEPSIZES, seeds=seeds, evaluations=STEPS)
    pairs = [(seed, stepsize) for seed in seeds for stepsize in STEPSIZES]
    assert_array_equal(result.seeds, [seed for seed, _ in pairs])
    assert_array_equal(result.stepsizes, [stepsize for _, stepsize in pairs])
    runs = [play(row, "normal", problem, seed=seed, stepsize=size) for seed, size in pairs]
    assert_lanes_agree(result, problem, runs)


@pytest.mark.parametrize("problem", ["logistic", "quadratic"])
@pytest.mark.parametrize("row", ["pure", "random, wait 2", "rennala 4, stop", "ringleader", "ace"])
def test_single_precision_follows_the_reference_loosely(row: str, problem: str) -> None:
    """Rounding to 24 bits at every step and no more."""
    target = problem_named(problem)
    result = replay(trace_of(row, "normal"), target, STEPSIZES, evaluations=STEPS, dtype="float32")
    assert result.models.dtype == np.float32
    runs = [play(row, "normal", target, stepsize=stepsize) for stepsize in STEPSIZES]
    assert_lanes_agree(result, target, runs, rtol=2e-4)


@pytest.mark.parametrize("problem", ["logistic", "quadratic"])
@pytest.mark.parametrize("row", ["pure", "shuffled, wait 3", "rennala 4", "ringleader", "ace"])
def test_heavy_ball_is_that_of_the_reference(row: str, problem: str) -> None:
    """m = 0.9 m + d; x = x − γ m."""
    target, sizes = problem_named(problem), [0.004, 0.03]
    result = replay(
        trace_of(row, "normal"),
        target,
        sizes,
        recipe=optimizers.HeavyBall(0.9),
        evaluations=STEPS,
    )
    runs = [play(row, "normal", target, stepsize=size, momentum=0.9) for size in sizes]
    assert_lanes_agree(result, target, runs)


def assert_rule_agrees(
    row: str, method_stepsize: Any, rule: Callable[[float, int], float], momentum: float = 0.0
) -> None:
    """Compare a replay under a delay-adaptive stepsize with the reference, and see it matter."""
    problem, trace = problem_named("quadratic"), trace_of(row, "normal")
    result = replay(
        trace,
        problem,
        STEPSIZES,
        recipe=(method_stepsize, optimizers.HeavyBall(momentum)),
        evaluations=STEPS,
    )
    options = {"momentum": momentum, "rule": rule}
    runs = [play(row, "normal", problem, stepsize=size, **options) for size in STEPSIZES]
    assert_lanes_agree(result, problem, runs)
    plain = play(row, "normal", problem, stepsize=STEPSIZES[1], momentum=momentum)
    assert np.linalg.norm(plain.models[-1] - runs[1].models[-1]) > 1e-3


DELAYED = ["pure", "random, wait 2", "random", "shuffled", "ringmaster 100"]


@pytest.mark.parametrize("stale", ["shrink", "drop"])
@pytest.mark.parametrize("row", DELAYED)
def test_koloskova_stepsizes_are_those_of_the_reference(row: str, stale: str) -> None:
    """Both ends of the interval, for a threshold that many delays pass."""
    given = {"concurrency": 1, "smoothness": 1.5}
    assert_rule_agrees(
        row, stepsizes.Koloskova(stale=stale, **given), reference.koloskova(stale, **given)
    )


@pytest.mark.parametrize("stale", ["shrink", "drop"])
def test_koloskova_takes_concurrency_and_smoothness_from_the_run_by_default(stale: str) -> None:
    """τ_C of the trace and L of the problem, the largest eigenvalue."""
    rule = reference.koloskova(stale, events_of("random", "normal").max_concurrency, smoothness=1.0)
    assert_rule_agrees("random", stepsizes.Koloskova(stale=stale), rule)


@pytest.mark.parametrize(
    "setting", ["practical", "convex", "nonconvex", "heterogeneous", "strongly-convex"]
)
@pytest.mark.parametrize("row", DELAYED)
def test_mishchenko_stepsizes_are_those_of_the_reference(row: str, setting: str) -> None:
    """Each form of the stepsize; the terms of the minimum that know no delay belong to γ."""
    given: dict[str, float] = {}
    if setting != "practical":
        given["smoothness"] = 1.5
    if setting == "strongly-convex":
        given["strong_convexity"] = 0.8
    assert_rule_agrees(
        row,
        stepsizes.Mishchenko(setting=setting, **given),
        reference.mishchenko(setting, N, **given),
    )


def test_a_delay_adaptive_stepsize_scales_what_enters_the_momentum() -> None:
    """d is the weighted sum after scaling."""
    rule = reference.koloskova("drop", 1, 1.0)
    method_stepsize = stepsizes.Koloskova(stale="drop", concurrency=1, smoothness=1.0)
    assert_rule_agrees("pure", method_stepsize, rule, momentum=0.5)


RULES = {
    "inverse": (stepsizes.Polynomial(power=1), lambda size, delay: size / (1 + delay)),
    "root": (stepsizes.Polynomial(), lambda size, delay: size / math.sqrt(1 + delay)),
    "hinge": (
        stepsizes.Hinge(slope=2.0, max_delay=1),
        lambda size, delay: size if delay <= 1 else size / (2 * (delay - 1) + 1),
    ),
    "fleet": (
        stepsizes.Fleet(),
        lambda size, delay: size * (1 + (N + 1) / 2) ** (-2 * delay / (N + 1)),
    ),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("row", ["pure", "random, wait 2", "ringmaster 100"])
def test_stepsizes_of_the_delay_alone_are_those_of_the_reference(row: str, name: str) -> None:
    """exp(−β τ) with β = (2/τ_θ) ln(1 + τ_θ/2) is (1 + τ_θ/2)^(−2τ/τ_θ), τ_θ = n + 1."""
    assert_rule_agrees(row, *RULES[name])


def assert_parts_agree(
    row: str,
    problem: str,
    sizes: list[float],
    twin: Callable[[], dict[str, Any]],
    parts: Any,
    dtype: str = "float64",
) -> list[reference.Run]:
    """Compare a replay with a correction or an optimizer with the reference, and see it matter."""
    target, trace = problem_named(problem), trace_of(row, "normal")
    recipe = parts if isinstance(parts, tuple) else (parts,)
    result = replay(trace, target, sizes, evaluations=STEPS, dtype=dtype, recipe=recipe)
    runs = [play(row, "normal", target, stepsize=size, **twin()) for size in sizes]
    # In single precision small roots make much of what rounding leaves.
    assert_lanes_agree(result, target, runs, rtol=1e-10 if dtype == "float64" else 1e-2)
    plain = play(row, "normal", target, stepsize=sizes[-1])
    assert np.linalg.norm(plain.models[-1] - runs[-1].models[-1]) > 1e-5
    return runs


STALE = ["pure", "pure, wait 3", "random", "ringmaster 100", "ringleader", "ace"]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("given", [(0.5,), (0.5, 0.9), (0.3, 0.0)])
@pytest.mark.parametrize("row", STALE)
def test_delay_compensation_is_that_of_the_reference(
    row: str, given: tuple[float, ...], dtype: str
) -> None:
    """Fixed and adaptive; the mean square sees every gradient once, in the order of the steps."""
    for problem in ("quadratic", "logistic"):
        assert_parts_agree(
            row,
            problem,
            STEPSIZES,
            lambda: {"correct": reference.Compensation(*given)},
            corrections.DelayCompensation(*given),
            dtype,
        )


def test_compensation_that_remembers_sees_what_a_rule_drops() -> None:
    """A factor of 0 keeps a gradient out of the model, not out of the mean square."""
    assert_parts_agree(
        "pure",
        "quadratic",
        STEPSIZES,
        lambda: {
            "correct": reference.Compensation(0.5, 0.9),
            "rule": reference.koloskova("drop", 3, 1.0),
        },
        (
            corrections.DelayCompensation(0.5, 0.9),
            stepsizes.Koloskova(stale="drop", concurrency=3, smoothness=1.0),
        ),
    )


@pytest.mark.parametrize("name", ["constant", "root", "hinge"])
def test_mixing_is_fedasync(name: str) -> None:
    """x ← (1 − α s(τ)) x + α s(τ) (x_read − η g), job by job along the trace."""
    problem, trace = problem_named("quadratic"), trace_of("random", "normal")
    rule, twin = {**RULES, "constant": (stepsizes.Constant(), lambda size, delay: size)}[name]
    mixing = corrections.Mixing(local_stepsize=0.3)
    result = replay(trace, problem, STEPSIZES, recipe=(rule, mixing))
    key = stream_key(SEED, Purpose.GRADIENT)
    jobs = trace.jobs
    for lane, size in enumerate(STEPSIZES):
        models = [problem.x0]
        for step, job in enumerate(trace.contributions.job.tolist()):
            read = models[jobs.read_step[job]]
            g = problem.gradient(read, int(jobs.worker[job]), int(jobs.draw[job]), key=key)
            alpha = twin(size, step - jobs.read_step[job])
            models.append((1 - alpha) * models[-1] + alpha * (read - 0.3 * g))
        assert_allclose(result.models[:, lane], models[-1], rtol=1e-10, atol=1e-12)
    plain = replay(trace, problem, STEPSIZES, recipe=rule)
    assert (abs(plain.models - result.models) > 1e-3).any()


OPTIMIZERS = {
    "nesterov": (optimizers.Nesterov(0.8), lambda: reference.Nesterov(0.8), [0.004, 0.03]),
    "adam": (optimizers.Adam(), lambda: reference.Adam(0.9, 0.999, 1e-8), [0.01, 0.1]),
    "adam without memory": (
        optimizers.Adam(momentum=0.0, decay=0.5, epsilon=1e-3),
        lambda: reference.Adam(0.0, 0.5, 1e-3),
        [0.01, 0.1],
    ),
    "amsgrad": (
        optimizers.AMSGrad(decay=0.9, epsilon=1e-6),
        lambda: reference.AMSGrad(0.9, 0.9, 1e-6),
        [0.01, 0.1],
    ),
    "fadas": (
        optimizers.AMSGrad(decay=0.9, max_delay=2),
        lambda: reference.AMSGrad(0.9, 0.9, 1e-8, threshold=2),
        [0.01, 0.3],
    ),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("row", ["pure", "pure, wait 3", "rennala 4", "ringleader", "ace"])
def test_optimizers_are_those_of_the_reference(row: str, name: str, dtype: str) -> None:
    """Two stepsizes at once."""
    optimizer, twin, sizes = OPTIMIZERS[name]
    for problem in ("quadratic", "logistic"):
        assert_parts_agree(row, problem, sizes, lambda: {"optimizer": twin()}, optimizer, dtype)


def test_fadas_shortens_the_steps_of_large_delays() -> None:
    """In a step of three gradients by the largest of their delays."""
    optimizer, twin, _ = OPTIMIZERS["fadas"]
    made: list[reference.AMSGrad] = []

    def remembered() -> dict[str, Any]:
        made.append(twin())
        return {"optimizer": made[-1]}

    sizes = [0.1, 0.6]
    assert_parts_agree("pure, wait 3", "quadratic", sizes, remembered, optimizer)
    assert made[0].n_shortened == 0
    assert 0 < made[1].n_shortened < STEPS


def assigned(method: Any, n: int, steps: int) -> list[int]:
    """Return the workers of all jobs in the order of assignment."""
    trace = simulate(method, times.Linear(), n_workers=n, steps=steps, seed=SEED)
    return trace.jobs.worker.tolist()


def groups(workers: list[int], size: int) -> list[tuple[int, ...]]:
    """Return the full groups of `size` consecutive workers."""
    return [tuple(workers[i : i + size]) for i in range(0, len(workers) - size + 1, size)]


def assert_equally_frequent(outcomes: list[Any], n_outcomes: int) -> None:
    """Refuse counts that a uniform draw would give less than once in ten thousand seeds."""
    counts = [outcomes.count(outcome) for outcome in set(outcomes)]
    assert len(counts) == n_outcomes
    assert chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize("wait", [1, 2])
@pytest.mark.parametrize("concurrency", [None, 3, 5])
def test_random_draws_every_worker_equally_often_whoever_was_drawn_before(
    wait: int, concurrency: int | None
) -> None:
    """Uniform over all workers, busy or not, and independent."""
    method = methods.Random(wait=wait, concurrency=concurrency)
    workers = assigned(method, 3, 6000 // wait)
    if concurrency is None:
        assert workers[:3] == [0, 1, 2]
        workers = workers[3:]
    assert_equally_frequent(workers, 3)
    assert_equally_frequent(groups(workers, 2), 9)
    assert_equally_frequent(groups(workers[1:], 2), 9)


def test_random_draws_the_jobs_at_the_start_when_their_number_is_given() -> None:
    """Over many seeds the first draws are uniform and independent as well."""
    method = methods.Random(concurrency=2)
    starts = [
        tuple(
            simulate(method, times.Fixed(), n_workers=3, steps=1, seed=seed)
            .jobs.worker[:2]
            .tolist()
        )
        for seed in range(900)
    ]
    assert_equally_frequent(starts, 9)


@pytest.mark.parametrize(
    ("method", "n_first"),
    [
        (methods.Shuffled(), 3),
        (methods.Shuffled(wait=2), 3),
        (methods.Shuffled(concurrency=2), 0),
        (methods.Reshuffling(), 0),
    ],
)
def test_shuffled_assigns_every_worker_once_between_two_reshuffles(
    method: Any, n_first: int
) -> None:
    """Permutations, each as frequent as any other; those who start at x_0 by rule come before."""
    workers = assigned(method, 3, 3000)
    assert workers[:n_first] == [0, 1, 2][:n_first]
    permutations = groups(workers[n_first:], 3)
    assert all(sorted(permutation) == [0, 1, 2] for permutation in permutations)
    assert_equally_frequent(permutations, 6)
    assert_equally_frequent(list(zip(permutations[::2], permutations[1::2], strict=False)), 36)


@pytest.mark.parametrize(
    ("method", "n_first"),
    [
        (methods.Shuffled(once=True), 6),
        (methods.Shuffled(once=True, wait=4), 6),
        (methods.Shuffled(once=True, concurrency=4), 0),
        (methods.Reshuffling(once=True), 0),
    ],
)
def test_shuffling_once_keeps_one_permutation_for_ever(method: Any, n_first: int) -> None:
    """The permutation is not the order of the workers, which a missing shuffle would give."""
    permutations = groups(assigned(method, 6, 100)[n_first:], 6)
    assert len(set(permutations)) == 1
    assert sorted(permutations[0]) == list(range(6)) != list(permutations[0])


def test_minibatch_draws_distinct_workers_and_every_set_equally_often() -> None:
    """Without replacement: the ordered pairs of two out of four workers are equally frequent."""
    batches = groups(assigned(methods.Minibatch(2), 4, 3000), 2)
    assert all(first != second for first, second in batches)
    assert_equally_frequent(batches, 12)
