"""The laws that every method obeys: one table, a row a method.

A row says how to build the method for n workers and a number k from 1 to n, and what the rules
state of it: how many jobs are in flight, what a gradient weighs, how large a delay can be. Every
row goes through every law, on workers of all kinds. A method with a table brings the law of its
weights along: a function of (row, case, trace).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from asgrad import methods, times
from asgrad.registry import catalogue
from asgrad.simulation import simulate
from asgrad.trace import Trace
from asgrad.trace.tables import Fate

Law = Callable[["Row", "Case", Trace], None]


def of_n(n: int, k: int) -> int:
    """Return n."""
    return n


def of_k(n: int, k: int) -> int:
    """Return k."""
    return k


def one(n: int, k: int) -> int:
    """Return 1."""
    return 1


def zero(n: int, k: int) -> int:
    """Return 0."""
    return 0


class Row(NamedTuple):
    """What the rules say of a method on n workers with the parameter k."""

    build: Callable[[int, int], methods.AnyMethod]
    concurrency: Callable[[int, int], int] = of_n
    """How many jobs the method begins with, which it never passes."""
    batch: Callable[[int, int], int] = one
    """How many gradients make a step, each with the weight 1/batch."""
    max_delay: Callable[[int, int], int] | None = None
    """The largest delay that a job can be applied with."""
    weights: Law | None = None
    """What its table puts into every step; None: batches of single gradients."""
    queues: bool = False
    """Whether it assigns jobs to busy workers."""
    random: bool = False
    """Whether it makes random choices."""
    permutes: bool = False
    """Whether it goes through the workers in permutations."""
    drops: bool = False
    """Whether it throws arrivals away."""
    cancels: bool = False
    """Whether it calls jobs off."""
    balanced: bool = False
    """Whether each arrival is a step and is answered by one assignment."""
    alone: Callable[[int], tuple[methods.AnyMethod, int]] | None = None
    """For a number b the method on one worker with at most one job in flight, and how many
    gradients make a step there; None: `build`, and one."""


def live_weights(trace: Trace) -> np.ndarray:
    """Return the sum of the weights that enter each step."""
    used = trace.contributions
    change = np.zeros(trace.n_steps + 1)
    np.add.at(change, used.first_step, used.weight)
    np.add.at(change, used.end_step, -used.weight)
    return np.cumsum(change)[: trace.n_steps]


def latest_of_each(row: Row, case: Case, trace: Trace) -> None:
    """Step s uses the latest gradient of every worker heard so far, of which s itself is one."""
    used, n = trace.contributions, case.n_workers
    waited = n - 1 if row.build(n, case.k).wait and trace.n_steps else 0
    assert_array_equal(used.first_step, [*[0] * waited, *np.arange(trace.n_steps)])
    assert_array_equal(used.entry, trace.jobs.worker[used.job])
    assert_array_equal(used.weight, 1 / n)
    heard = [np.unique(used.entry[used.first_step <= s]).size for s in range(trace.n_steps)]
    assert_allclose(live_weights(trace), np.array(heard) / n, rtol=1e-12)
    assert not waited or heard[0] == n
    for entry in range(n):
        own = used.entry == entry
        follows = np.append(used.first_step[own][1:], trace.n_steps)
        assert_array_equal(used.end_step[own], follows[: own.sum()])


def means_of_rounds(row: Row, case: Case, trace: Trace) -> None:
    """A round has n steps with one half of the table, whose entries grow; the halves take turns."""
    used, n = trace.contributions, case.n_workers
    assert_allclose(live_weights(trace), 1.0, rtol=1e-12)
    assert_array_equal(used.entry % n, trace.jobs.worker[used.job])
    for job in np.unique(used.job):
        own = used.job == job
        assert np.unique(used.entry[own]).size == 1
        assert_array_equal(used.first_step[own][1:], used.end_step[own][:-1])
        assert (np.diff(used.weight[own]) < 0).all()  # its entry has grown
    for step in range(trace.n_steps):
        live = (used.first_step <= step) & (step < used.end_step)
        entries, sizes = np.unique(used.entry[live], return_counts=True)
        assert_array_equal(entries, np.arange(n) + n * (step // n % 2))
        weights = 1 / (n * sizes[used.entry[live] % n])
        assert_allclose(used.weight[live], weights, rtol=1e-15)


def means_at_one_model(row: Row, case: Case, trace: Trace) -> None:
    """The mean of the workers' means over one model's gradients, as soon as n/Σ(1/B_i) > S/n."""
    used, n = trace.contributions, case.n_workers
    batch = row.build(n, case.k).batch
    assert_allclose(live_weights(trace), 1.0, rtol=1e-12)
    assert_array_equal(used.entry, trace.jobs.worker[used.job])
    assert_array_equal(used.end_step, used.first_step + 1)
    assert_array_equal(used.first_step, trace.jobs.read_step[used.job])
    for step in range(trace.n_steps):
        live = used.first_step == step
        sizes = np.bincount(used.entry[live], minlength=n)
        assert_array_equal(used.weight[live], 1 / (n * sizes[used.entry[live]]))
        assert is_enough(sizes, batch)
        last = trace.jobs.arrival_time[used.job[live]] == trace.step_times[step]
        ended = [sizes - (np.arange(n) == worker) for worker in used.entry[live][last]]
        assert not all(is_enough(before, batch) for before in ended)


def in_time_over_trials(row: Row, case: Case, trace: Trace) -> None:
    """With p_i = 1, 1/B for each gradient of the model that was in time, of at most B trials."""
    used, jobs, trials = trace.contributions, trace.jobs, row.build(case.n_workers, case.k).trials
    assert_array_equal(used.entry, 0)
    assert_array_equal(used.end_step, used.first_step + 1)
    assert_array_equal(used.first_step, jobs.read_step[used.job])
    assert_array_equal(used.weight, 1 / trials)
    assert (np.bincount(used.first_step, minlength=1) <= trials).all()
    took = (jobs.arrival_time - jobs.start_time)[jobs.fate == Fate.CANCELLED]
    assert (took <= ALLOTTED * (1 + 1e-9)).all()
    for step in range(trace.n_steps):  # every trial is one that ended in time, or at its alarm
        own = jobs.read_step == step
        stopped = own & (jobs.fate == Fate.CANCELLED)
        before = stopped & (jobs.arrival_time < trace.step_times[step])
        ended = int((own & (jobs.fate == Fate.APPLIED)).sum() + before.sum())
        assert ended <= trials <= ended + int((stopped & ~before).sum())


ALLOTTED = 1.5


def is_enough(sizes: np.ndarray, batch: int) -> bool:
    """Say whether the harmonic mean of the sizes exceeds batch/n, in exact numbers."""
    n = sizes.size
    return bool(sizes.all()) and n * n > batch * sum(Fraction(1, int(size)) for size in sizes)


ROWS: dict[str, Row] = {
    "pure": Row(lambda n, k: methods.Pure(), balanced=True),
    "pure, wait": Row(lambda n, k: methods.Pure(wait=k), batch=of_k),
    "random": Row(lambda n, k: methods.Random(), queues=True, random=True, balanced=True),
    "random, wait": Row(lambda n, k: methods.Random(wait=k), batch=of_k, queues=True, random=True),
    "random, concurrency": Row(
        lambda n, k: methods.Random(concurrency=2 * k),
        concurrency=lambda n, k: 2 * k,
        queues=True,
        random=True,
        balanced=True,
        alone=lambda b: (methods.Random(concurrency=1), 1),
    ),
    "shuffled": Row(
        lambda n, k: methods.Shuffled(), queues=True, random=True, permutes=True, balanced=True
    ),
    "shuffled once": Row(
        lambda n, k: methods.Shuffled(once=True),
        queues=True,
        random=True,
        permutes=True,
        balanced=True,
    ),
    "shuffled, wait": Row(
        lambda n, k: methods.Shuffled(wait=k),
        batch=of_k,
        queues=True,
        random=True,
        permutes=True,
    ),
    "shuffled, concurrency": Row(
        lambda n, k: methods.Shuffled(concurrency=k),
        concurrency=of_k,
        queues=True,
        random=True,
        permutes=True,
        balanced=True,
    ),
    "reshuffling": Row(
        lambda n, k: methods.Reshuffling(),
        concurrency=one,
        max_delay=zero,
        random=True,
        permutes=True,
        balanced=True,
    ),
    "reshuffling once": Row(
        lambda n, k: methods.Reshuffling(once=True),
        concurrency=one,
        max_delay=zero,
        random=True,
        permutes=True,
        balanced=True,
    ),
    "minibatch": Row(
        lambda n, k: methods.Minibatch(batch=k),
        concurrency=of_k,
        batch=of_k,
        max_delay=zero,
        random=True,
    ),
    "sync": Row(lambda n, k: methods.Sync(), batch=of_n, max_delay=zero),
    "m-sync": Row(lambda n, k: methods.MSync(m=k), batch=of_k, max_delay=zero, cancels=True),
    "rennala": Row(
        lambda n, k: methods.Rennala(batch=2 * k),
        batch=lambda n, k: 2 * k,
        max_delay=zero,
        drops=True,
        alone=lambda b: (methods.Rennala(batch=b), b),
    ),
    "rennala, stop": Row(
        lambda n, k: methods.Rennala(batch=2 * k, stop_stale=True),
        batch=lambda n, k: 2 * k,
        max_delay=zero,
        cancels=True,
        alone=lambda b: (methods.Rennala(batch=b, stop_stale=True), b),
    ),
    "buffered": Row(
        lambda n, k: methods.Buffered(size=2 * k),
        batch=lambda n, k: 2 * k,
        alone=lambda b: (methods.Buffered(b), b),
    ),
    "buffered, concurrency": Row(
        lambda n, k: methods.Buffered(size=2, concurrency=k),
        concurrency=of_k,
        batch=lambda n, k: 2,
        alone=lambda b: (methods.Buffered(b, concurrency=1), b),
    ),
    "ringmaster": Row(
        lambda n, k: methods.Ringmaster(max_delay=k),
        max_delay=lambda n, k: k - 1,
        drops=True,
        alone=lambda b: (methods.Ringmaster(max_delay=b), 1),
    ),
    "ringmaster, stop": Row(
        lambda n, k: methods.Ringmaster(max_delay=k, stop_stale=True),
        max_delay=lambda n, k: k - 1,
        cancels=True,
        alone=lambda b: (methods.Ringmaster(max_delay=b, stop_stale=True), 1),
    ),
    "ringleader": Row(
        lambda n, k: methods.Ringleader(), max_delay=lambda n, k: 2 * n - 2, weights=means_of_rounds
    ),
    "malenia": Row(
        lambda n, k: methods.Malenia(batch=2 * k),
        max_delay=zero,
        weights=means_at_one_model,
        drops=True,
        alone=lambda b: (methods.Malenia(batch=b), b + 1),  # the first number above S/1
    ),
    "malenia, stop": Row(
        lambda n, k: methods.Malenia(batch=2 * k, stop_stale=True),
        max_delay=zero,
        weights=means_at_one_model,
        cancels=True,
        alone=lambda b: (methods.Malenia(batch=b, stop_stale=True), b + 1),
    ),
    "mindflayer": Row(
        lambda n, k: methods.MindFlayer(allotted=ALLOTTED, trials=2 * k, success=1.0),
        max_delay=zero,
        weights=in_time_over_trials,
        cancels=True,
        alone=lambda b: (methods.MindFlayer(trials=b), b),
    ),
    "ata": Row(
        lambda n, k: methods.ATA(batch=2 * k, width=0.1),
        concurrency=lambda n, k: 2 * k,
        batch=lambda n, k: 2 * k,
        max_delay=zero,
        queues=True,
        alone=lambda b: (methods.ATA(batch=1), 1),
    ),
    "local-sgd": Row(lambda n, k: methods.LocalSGD(n=1, least=1), balanced=True),
    "ace": Row(lambda n, k: methods.ACE(), weights=latest_of_each, drops=True),
    "ace, no wait": Row(lambda n, k: methods.ACE(wait=False), weights=latest_of_each),
}


class Case(NamedTuple):
    """A method and the workers that it runs on."""

    n_workers: int
    k: int
    times: times.Times
    seed: int
    steps: int


MAX_JOBS = 80
"""Ends the runs that take no step, such as Ringleader with a worker that needs no time at all."""

SECONDS = st.one_of(st.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0]), st.floats(0.0, 10.0))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw workers of any kind and speed, ties and zeros included."""
    n_workers = draw(st.integers(1, 6))
    scale = tuple(draw(st.lists(SECONDS, min_size=n_workers, max_size=n_workers)))
    kind = draw(
        st.sampled_from(
            [
                times.Fixed,
                times.Poisson,
                times.Normal,
                times.HalfNormal,
                times.Uniform,
                times.Exponential,
                times.LogNormal,
                straggling,
            ]
        )
    )
    return Case(
        n_workers,
        draw(st.integers(1, n_workers)),
        kind(scale),
        draw(st.integers(0, 2**32)),
        draw(st.integers(0, 25)),
    )


def straggling(scale: tuple[float, ...]) -> times.Times:
    """Return exponential times of which the last third is four times slower."""
    return times.Stragglers(share=1 / 3, slowdown=4.0, times=times.Exponential(scale))


def play(row: Row, case: Case, **options):
    """Return the run of a method on a case."""
    return simulate(
        row.build(case.n_workers, case.k),
        case.times,
        n_workers=case.n_workers,
        seed=case.seed,
        **{"steps": case.steps, "jobs": MAX_JOBS, **options},
    )


def under_every_row(law: Callable[[Row, Case, Trace], None]):
    """Make a law of (row, case, trace) a test of every row on drawn cases."""

    @pytest.mark.parametrize("name", ROWS)
    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(case=cases())
    def test(name: str, case: Case) -> None:
        law(ROWS[name], case, play(ROWS[name], case))

    test.__name__, test.__doc__ = law.__name__, law.__doc__
    return test


def jobs_by_worker(trace: Trace) -> list[np.ndarray]:
    """Return every worker's jobs in the order of assignment."""
    return [np.flatnonzero(trace.jobs.worker == worker) for worker in range(trace.n_workers)]


@under_every_row
def test_every_job_ends_once(row: Row, case: Case, trace: Trace):
    """A job has one fate, and what the tables say of it fits that fate and no other."""
    jobs, used = trace.jobs, trace.contributions
    applied = jobs.fate == Fate.APPLIED
    assert set(jobs.fate.tolist()) <= {Fate.IN_FLIGHT, Fate.APPLIED, Fate.DROPPED, Fate.CANCELLED}
    assert row.drops or not (jobs.fate == Fate.DROPPED).any()
    assert row.cancels or not (jobs.fate == Fate.CANCELLED).any()
    # A job is in the contributions if and only if it was applied.
    assert_array_equal(np.bincount(used.job, minlength=trace.n_jobs) > 0, applied)
    assert_array_equal(trace.first_steps >= 0, applied)
    # Whatever has a verdict had its moment; what had none may have arrived and wait for a step.
    ended = ~np.isnan(jobs.arrival_time)
    assert ended[jobs.fate != Fate.IN_FLIGHT].all()
    waiting = int((ended & (jobs.fate == Fate.IN_FLIGHT)).sum())
    if row.weights is None:
        assert waiting < row.batch(case.n_workers, case.k)
    # Every arrival is counted: the run ends by steps or by this many of them.
    arrivals = int(ended.sum() - (jobs.fate == Fate.CANCELLED).sum())
    assert arrivals <= MAX_JOBS
    assert trace.n_steps <= case.steps
    assert arrivals == MAX_JOBS or trace.n_steps == case.steps


@under_every_row
def test_workers_do_their_jobs_in_order_one_at_a_time(row: Row, case: Case, trace: Trace):
    """Draws count up from 0; a job starts when assigned, or when the one before it has ended."""
    jobs = trace.jobs
    assert (np.diff(jobs.assign_time) >= 0).all()
    assert (np.diff(jobs.read_step) >= 0).all()
    for own in jobs_by_worker(trace):
        assert_array_equal(jobs.draw[own], np.arange(own.size))
        ends = jobs.arrival_time[own]
        # np.maximum hands on the NaN of a job that has not ended: the next one has not started.
        free = np.concatenate([[0.0], ends])[: own.size]
        assert_array_equal(jobs.start_time[own], np.maximum(jobs.assign_time[own], free))
        known = ~np.isnan(ends)
        assert (ends[known] >= jobs.start_time[own][known]).all()
        assert (ends[known] <= trace.header.end_time).all()
    if not row.queues:
        assert_array_equal(jobs.start_time, jobs.assign_time)
    if isinstance(case.times, times.Fixed):
        scale = np.array(case.times.scale)
        arrived = ~np.isnan(jobs.arrival_time) & (jobs.fate != Fate.CANCELLED)
        due = jobs.start_time + scale[jobs.worker]
        # Moments that differ by rounding only are one, that of the first.
        assert_allclose(jobs.arrival_time[arrived], due[arrived], rtol=2.0**-43, atol=1e-300)
        cut = jobs.fate == Fate.CANCELLED
        assert (jobs.arrival_time[cut] <= due[cut] * (1 + 2.0**-43)).all()


@under_every_row
def test_jobs_in_flight_never_pass_the_concurrency(row: Row, case: Case, trace: Trace):
    """At no moment is more in flight than at the start, and at the end no less."""
    jobs, limit = trace.jobs, row.concurrency(case.n_workers, case.k)
    assert int((jobs.assign_time == 0.0).sum()) >= limit
    moments = np.unique(jobs.assign_time)
    assigned = np.searchsorted(jobs.assign_time, moments, side="right")
    ends = np.sort(jobs.arrival_time)  # NaN comes last
    in_flight = assigned - np.searchsorted(ends, moments, side="right")
    assert in_flight.max() <= limit
    assert trace.summary.tau_c == in_flight.max()
    if row.batch(case.n_workers, case.k) == 1 or row.weights is not None:
        assert int(np.isnan(jobs.arrival_time).sum()) == limit
    if not row.queues:
        for own in jobs_by_worker(trace):
            assert (jobs.assign_time[own][1:] >= jobs.arrival_time[own][:-1]).all()


@under_every_row
def test_delays_are_never_negative_and_within_the_bound(row: Row, case: Case, trace: Trace):
    """0 <= τ; Rennala and what is synchronous 0; Ringmaster < R; Ringleader <= 2n − 2."""
    jobs = trace.jobs
    assert (trace.delays >= 0).all()
    assert (jobs.read_step >= 0).all()
    assert (jobs.read_step <= trace.n_steps).all()
    if row.max_delay is not None:
        assert trace.delays.max(initial=0) <= row.max_delay(case.n_workers, case.k)
    # A step happens at an arrival, and later steps no earlier.
    assert (np.diff(trace.step_times) >= 0).all()
    assert np.isin(trace.step_times, jobs.arrival_time).all()
    # What a job reads is the model of its moment: the steps before it are over, later ones not.
    assert (np.searchsorted(trace.step_times, jobs.assign_time, "left") <= jobs.read_step).all()
    assert (np.searchsorted(trace.step_times, jobs.assign_time, "right") >= jobs.read_step).all()


@under_every_row
def test_contributions_have_the_weights_of_the_rule(row: Row, case: Case, trace: Trace):
    """Single gradients weigh 1/b and enter one step; of a table the row says it."""
    used = trace.contributions
    assert (np.diff(used.first_step) >= 0).all()
    assert (used.first_step < used.end_step).all()
    assert (used.end_step <= trace.n_steps).all()
    if row.weights is not None:
        row.weights(row, case, trace)
        return
    batch = row.batch(case.n_workers, case.k)
    assert_array_equal(used.entry, -1)
    assert_array_equal(used.end_step, used.first_step + 1)
    assert_array_equal(used.weight, 1 / batch)
    assert np.unique(used.job).size == used.job.size
    assert_array_equal(np.bincount(used.first_step, minlength=trace.n_steps), batch)
    assert_allclose(live_weights(trace), 1.0, rtol=1e-12)


@under_every_row
def test_rows_of_a_step_stand_by_entry_and_then_in_the_order_of_arrival(
    row: Row, case: Case, trace: Trace
):
    """Within a first_step, contributions are sorted by entry; within that, by arrival."""
    used = trace.contributions
    arrived = trace.jobs.arrival_time[used.job]
    same_step = np.diff(used.first_step) == 0
    assert (np.diff(used.entry)[same_step] >= 0).all()
    same_entry = same_step & (np.diff(used.entry) == 0)
    assert (np.diff(arrived)[same_entry] >= 0).all()


@under_every_row
def test_equal_seeds_give_equal_traces(row: Row, case: Case, trace: Trace):
    """A run depends on its arguments alone, not on what the method did before."""
    assert trace.equals(play(row, case))
    method = row.build(case.n_workers, case.k)
    for _ in range(2):  # one object serves many runs
        again = simulate(
            method,
            case.times,
            n_workers=case.n_workers,
            seed=case.seed,
            steps=case.steps,
            jobs=MAX_JOBS,
        )
        assert trace.equals(again)


@under_every_row
def test_a_run_without_a_record_gives_the_summary_of_its_trace(row: Row, case: Case, trace: Trace):
    """All fields, the times to rounding."""
    summary = play(row, case, record=False)
    for field in dataclasses.fields(summary):
        mine, theirs = getattr(summary, field.name), getattr(trace.summary, field.name)
        if field.name == "idle_times":
            slack = 1e-9 * max(1.0, trace.header.end_time)
            assert_allclose(mine, theirs, rtol=0, atol=slack, err_msg=field.name)
        else:
            assert_array_equal(mine, theirs, err_msg=field.name)
            assert np.asarray(mine).dtype == np.asarray(theirs).dtype, field.name


@under_every_row
def test_a_longer_run_begins_as_the_shorter_one(row: Row, case: Case, trace: Trace):
    """What has happened does not depend on how long the run will be."""
    longer = play(row, case, steps=case.steps + 5)
    n_jobs, n_steps = trace.n_jobs, trace.n_steps
    assert_array_equal(longer.step_times[:n_steps], trace.step_times)
    for column in ("worker", "read_step", "draw", "assign_time"):
        mine, theirs = getattr(trace.jobs, column), getattr(longer.jobs, column)[:n_jobs]
        assert_array_equal(mine, theirs, err_msg=column)
    for column in ("start_time", "arrival_time", "fate"):
        settled = trace.jobs.fate != Fate.IN_FLIGHT
        mine, theirs = getattr(trace.jobs, column), getattr(longer.jobs, column)[:n_jobs]
        assert_array_equal(mine[settled], theirs[settled], err_msg=column)


@pytest.mark.parametrize("name", ROWS)
def test_another_seed_changes_the_choices_of_random_methods_alone(name: str):
    """On workers of fixed speeds, where nothing else is drawn."""
    row = ROWS[name]
    runs = [play(row, Case(5, 2, times.Linear(), seed, 40), jobs=400) for seed in range(3)]
    same = [runs[0].jobs.worker.tolist() == run.jobs.worker.tolist() for run in runs[1:]]
    assert same == [not row.random] * 2


@pytest.mark.parametrize("kind", [times.Exponential, times.Normal, times.LogNormal])
@pytest.mark.parametrize("name", ROWS)
def test_another_seed_changes_random_times(name: str, kind: Callable[[], times.Times]):
    """Every method sees other times under another seed."""
    runs = [play(ROWS[name], Case(5, 2, kind(), seed, 20), jobs=400) for seed in (0, 1)]
    assert not np.array_equal(runs[0].step_times, runs[1].step_times)


# The numbered laws of the methods' specification.


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", ROWS)
def test_one_worker_is_sequential(name: str, batch: int):
    """Law 1: step s takes the worker's next gradients, all of them at x_s, with the same weight."""
    row, steps = ROWS[name], 12
    method, size = row.alone(batch) if row.alone else (row.build(1, 1), 1)
    alone = row._replace(build=lambda n, k: method)
    trace = play(alone, Case(1, 1, times.Exponential(), 5, steps))
    jobs, used = trace.jobs, trace.contributions
    n_applied = steps * size
    assert_array_equal(jobs.read_step, np.append(np.repeat(np.arange(steps), size), steps))
    assert_array_equal(jobs.draw, np.arange(n_applied + 1))
    assert_array_equal(jobs.fate, [Fate.APPLIED] * n_applied + [Fate.IN_FLIGHT])
    assert_array_equal(used.job, np.arange(n_applied))
    assert_array_equal(used.first_step, np.repeat(np.arange(steps), size))
    assert_array_equal(used.end_step, used.first_step + 1)
    assert_array_equal(used.weight, 1 / size)
    assert_array_equal(jobs.start_time[1:], jobs.arrival_time[:-1])


BALANCED = [name for name, row in ROWS.items() if row.balanced]


@pytest.mark.parametrize("name", BALANCED)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=cases())
def test_delays_are_paid_for_by_jobs_in_flight(name: str, case: Case):
    """Law 2: Σ_{t<T} τ_t + Σ_{in flight}(T − r) = Σ_{t<T} (|in flight at t| − 1)."""
    row, n_steps = ROWS[name], case.steps
    trace = play(row, case, jobs=None)
    jobs = trace.jobs
    waiting = jobs.fate == Fate.IN_FLIGHT
    paid = trace.delays.sum() + (n_steps - jobs.read_step[waiting]).sum()
    # An arrival answered by one assignment leaves as much in flight as there was at the start.
    assert trace.n_steps == n_steps
    assert paid == n_steps * (row.concurrency(case.n_workers, case.k) - 1)


@pytest.mark.parametrize("name", BALANCED)
def test_delays_are_paid_for_by_jobs_counted_on_the_clock(name: str):
    """Law 2 again, the jobs in flight counted by time; exponential times have no ties."""
    trace = play(ROWS[name], Case(6, 4, times.Exponential(), 3, 200), jobs=None)
    jobs, T = trace.jobs, trace.n_steps
    assert np.unique(trace.step_times).size == T
    in_flight = [
        int(((jobs.assign_time < now) & ~(jobs.arrival_time < now)).sum())
        for now in trace.step_times
    ]
    waiting = jobs.fate == Fate.IN_FLIGHT
    paid = trace.delays.sum() + (T - jobs.read_step[waiting]).sum()
    assert paid == sum(in_flight) - T


@pytest.mark.parametrize("n_workers", [1, 2, 5, 16])
def test_pure_on_equal_workers_has_the_delay_of_the_others(n_workers: int):
    """Law 3: from step n on, every delay is n − 1; before that, step s has the delay s."""
    trace = simulate(methods.Pure(), times.Fixed(0.5), n_workers=n_workers, steps=5 * n_workers)
    by_step = trace.contributions.first_step - trace.jobs.read_step[trace.contributions.job]
    assert_array_equal(by_step, np.minimum(np.arange(5 * n_workers), n_workers - 1))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.permutes])
@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=cases())
def test_each_worker_is_assigned_once_between_reshuffles(name: str, case: Case):
    """Law 4: n assignments in a row hold every worker once; shuffled once, they repeat."""
    n = case.n_workers
    workers = play(ROWS[name], case).jobs.worker
    epochs = [workers[i : i + n] for i in range(0, workers.size, n)]
    for epoch in epochs[:-1]:
        assert sorted(epoch.tolist()) == list(range(n))
    assert np.unique(epochs[-1]).size == epochs[-1].size
    if ROWS[name].build(n, case.k).once:
        # All workers at the start stand in their own order; the permutation comes after them.
        own = int(ROWS[name].concurrency is of_n)
        for epoch in epochs[own:]:
            assert_array_equal(epoch, epochs[own][: epoch.size])


@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=cases())
def test_a_minibatch_has_different_workers(case: Case):
    """Drawn without replacement, all at the same model."""
    jobs = play(ROWS["minibatch"], case).jobs
    batches = jobs.worker.reshape(-1, case.k)
    assert all(np.unique(batch).size == case.k for batch in batches)
    assert_array_equal(jobs.read_step, np.repeat(np.arange(len(batches)), case.k))


@pytest.mark.parametrize("name", ["random", "random, concurrency"])
def test_random_draws_all_workers_alike(name: str):
    """Uniform over all n and independent: every pair of successive draws comes up as often."""
    n, steps = 3, 9000
    start = ROWS[name].concurrency(n, 2)
    workers = play(ROWS[name], Case(n, 2, times.Linear(), 0, steps), jobs=None).jobs.worker[start:]
    pairs = np.bincount(n * workers[:-1] + workers[1:], minlength=n * n)
    expected = (steps - 1) / n**2
    # 8 degrees of freedom: chi-square stays below 26.1 with probability 0.999.
    assert ((pairs - expected) ** 2 / expected).sum() < 26.1


@pytest.mark.parametrize("stop_stale", [False, True])
@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    speeds=st.lists(st.floats(0.1, 20.0), min_size=1, max_size=8),
    max_delay=st.integers(1, 12),
)
def test_ringmaster_takes_any_max_delay_steps_in_the_time_of_its_lemma(
    stop_stale: bool, speeds: list[float], max_delay: int
):
    """Law 6: R steps in a row take at most t(R) = 2 min_m H_m (1 + R/m) on fixed speeds."""
    trace = simulate(
        methods.Ringmaster(max_delay=max_delay, stop_stale=stop_stale),
        times.Fixed(tuple(speeds)),
        n_workers=len(speeds),
        steps=6 * max_delay + 40,
    )
    at = np.concatenate([[0.0], trace.step_times])
    longest = (at[max_delay:] - at[:-max_delay]).max()
    assert longest <= lemma_time(speeds, max_delay) * (1 + 1e-12)


def lemma_time(speeds: list[float], max_delay: int) -> float:
    """Return 2 min_m H_m (1 + R/m), H_m the harmonic mean of the m smallest job times."""
    ordered = sorted(speeds)
    bounds = []
    for m in range(1, len(ordered) + 1):
        harmonic_mean = m / sum(1 / seconds for seconds in ordered[:m])
        bounds.append(2 * harmonic_mean * (1 + max_delay / m))
    return min(bounds)


def test_the_time_of_the_lemma():
    """Worked by hand: workers of 1 and 3 seconds, R = 2."""
    # m = 1: H = 1, 2 · 1 · (1 + 2) = 6.  m = 2: H = 2 / (1 + 1/3) = 3/2, 2 · 3/2 · (1 + 1) = 6.
    assert lemma_time([3.0, 1.0], 2) == pytest.approx(6.0)
    # R = 4. m = 1: 2 · 5 = 10.  m = 2: 3 · (1 + 2) = 9.
    assert lemma_time([3.0, 1.0], 4) == pytest.approx(9.0)


def test_the_table_has_every_method():
    """A method without a row would escape the laws."""
    there = {type(row.build(2, 1)).name for row in ROWS.values()}
    missing = sorted(set(catalogue(methods)) - there)
    assert not missing, (
        f"no row for {missing}: add one to ROWS in tests/methods/test_laws.py, which says how the "
        "method is built for n workers and a number k, and what its rules state of it."
    )
