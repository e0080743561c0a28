"""The numbers read off a trace, against a trace worked out by hand and against plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgrad.errors import TraceError
from asgrad.simulation import simulate
from asgrad.trace import Contributions, Fate, Header, Jobs, Trace
from asgrad.trace.summary import summarize

NAN = float("nan")


@pytest.fixture
def trace() -> Trace:
    """Three workers, three steps, eight seconds; worker 2 never delivers.

    job  worker  reads  assigned  starts  arrives  fate
    0    0       0      0         0       1        applied at step 0, τ = 0
    1    1       0      0         0       3        applied at steps 1 and 2 (an entry), τ = 1
    2    2       0      0         0       -        in flight, age 3
    3    0       1      1         1       4        dropped
    4    1       2      3         3       5        cancelled at 5
    5    0       2      4         4       6        applied at step 2, τ = 0
    6    0       3      6         6       -        in flight, age 0
    7    0       3      6         -       -        in flight in the queue, age 0
    """
    jobs = Jobs(
        worker=np.array([0, 1, 2, 0, 1, 0, 0, 0], np.int32),
        read_step=np.array([0, 0, 0, 1, 2, 2, 3, 3]),
        draw=np.array([0, 0, 0, 1, 1, 2, 3, 4]),
        assign_time=np.array([0, 0, 0, 1, 3, 4, 6, 6.0]),
        start_time=np.array([0, 0, 0, 1, 3, 4, 6, NAN]),
        arrival_time=np.array([1, 3, NAN, 4, 5, 6, NAN, NAN]),
        fate=np.array([1, 1, 0, 2, 3, 1, 0, 0], np.int8),
    )
    rows = Contributions(
        job=np.array([0, 1, 5, 1]),
        entry=np.array([-1, 4, -1, 4], np.int32),
        first_step=np.array([0, 1, 2, 2]),
        end_step=np.array([1, 2, 3, 3]),
        weight=np.array([1.0, 0.5, 1.0, 0.25]),
    )
    header = Header("by hand", "by hand", 3, 0, 8.0, "time")
    return Trace(jobs, rows, np.array([1.0, 3.0, 6.0]), header)


def test_sizes_and_delays(trace):
    assert (trace.n_steps, trace.n_jobs, trace.n_workers) == (3, 8, 3)
    assert trace.first_steps.tolist() == [0, 1, -1, -1, -1, 2, -1, -1]
    assert trace.delays.tolist() == [0, 1, 0]


def test_the_summary(trace):
    summary = trace.summary
    assert (summary.n_steps, summary.n_jobs, summary.end_time) == (3, 8, 8.0)
    assert summary.n_applied == 3
    assert summary.n_dropped == 1
    assert summary.n_cancelled == 1
    assert summary.n_in_flight == 3
    assert summary.n_computed == 4
    assert summary.wasted_share == 2 / 5
    # Delays 0, 1, 0 of the applied jobs and ages 3, 0, 0 of those in flight.
    assert summary.tau_max == 3
    assert summary.tau_avg == pytest.approx(4 / 8)  # over all assigned jobs
    # Three jobs at the start; at 6 worker 2's, and the two of worker 0.
    assert summary.tau_c == 3
    np.testing.assert_allclose(summary.worker_delays, [0.0, 1.0, 3.0])
    np.testing.assert_allclose(summary.work_shares, [2 / 3, 1 / 3, 0.0])
    # Worker 0 is busy from 0 to 8, worker 1 from 0 to 5, worker 2 from 0 to 8.
    np.testing.assert_allclose(summary.idle_times, [0.0, 3.0, 0.0])


def test_what_happens_at_one_moment_counts_as_one(trace):
    # At 4 job 3 arrives and job 5 is assigned: never four in flight, although rows alone might say.
    times = trace.jobs.assign_time.copy()
    times[5] = 3.5
    earlier = Trace(
        trace.jobs._replace(assign_time=times), trace.contributions, trace.step_times, trace.header
    )
    assert earlier.summary.tau_c == 4


def test_a_worker_without_a_judged_job_has_no_delay(trace):
    fate = trace.jobs.fate.copy()
    fate[2] = Fate.CANCELLED
    other = Trace(
        trace.jobs._replace(fate=fate), trace.contributions, trace.step_times, trace.header
    )
    assert np.isnan(other.summary.worker_delays[2])
    assert other.summary.tau_max == 1


def test_a_trace_without_steps_has_a_summary():
    jobs = Jobs(
        *(np.zeros(2, kind) for kind in (np.int32, np.int64, np.int64, float, float)),
        np.full(2, NAN),
        np.zeros(2, np.int8),
    )
    empty = Contributions(*(np.empty(0, kind) for kind in (int, np.int32, int, int, float)))
    summary = Trace(jobs, empty, np.empty(0), Header("m", "t", 2, 0, 0.0, "steps")).summary
    assert (summary.n_steps, summary.n_in_flight, summary.tau_max) == (0, 2, 0)
    assert summary.tau_avg == summary.wasted_share == 0.0
    assert summary.work_shares.tolist() == [0.0, 0.0]


def twin(trace: Trace) -> dict[str, object]:
    """The numbers that are read off job by job, in plain NumPy."""
    jobs, n = trace.jobs, trace.n_workers
    applied, waiting = jobs.fate == Fate.APPLIED, jobs.fate == Fate.IN_FLIGHT
    given_up = np.isin(jobs.fate, (Fate.CANCELLED, Fate.LOST))
    counted = applied | waiting
    terms = (np.where(applied, trace.first_steps, trace.n_steps) - jobs.read_step)[counted]
    counts = np.bincount(jobs.worker[counted], minlength=n)
    shares = np.bincount(jobs.worker[applied], minlength=n)
    started = ~np.isnan(jobs.start_time)
    times = np.where(np.isnan(jobs.arrival_time), trace.header.end_time, jobs.arrival_time)
    times = (times - jobs.start_time)[started]
    # Of all that is assigned by the end of some moment, what has arrived by then.
    moments = np.unique(jobs.assign_time)
    arrived = np.sort(jobs.arrival_time[~np.isnan(jobs.arrival_time)])
    in_flight = np.searchsorted(np.sort(jobs.assign_time), moments, side="right")
    in_flight = in_flight - np.searchsorted(arrived, moments, side="right")
    fates = [int((jobs.fate == fate).sum()) for fate in Fate]
    names = ("n_in_flight", "n_applied", "n_dropped", "n_cancelled", "n_lost")
    return {
        **dict(zip(names, fates, strict=True)),
        "n_computed": int((~np.isnan(jobs.arrival_time) & ~given_up).sum()),
        "tau_max": int(terms.max(initial=0)),
        "tau_avg": float(terms.sum() / max(trace.n_jobs, 1)),
        "tau_c": int(in_flight.max(initial=0)),
        "worker_delays": np.bincount(jobs.worker[counted], terms, n)
        / np.where(counts, counts, NAN),
        "work_shares": shares / max(int(shares.sum()), 1),
        "idle_times": trace.header.end_time - np.bincount(jobs.worker[started], times, n),
    }


def assert_as_twin(trace: Trace) -> None:
    """The summary has the numbers of the twin, bit for bit."""
    summary = summarize(trace.tables, trace.first_steps, trace.n_workers, trace.header.end_time)
    for name, wanted in twin(trace).items():
        found = getattr(summary, name)
        assert type(found) is type(wanted), name
        np.testing.assert_array_equal(found, wanted, err_msg=name)


METHODS = {
    "pure": "linear",
    "pure:wait=3": "fixed:scale=0.1",
    "sync": "uniform",
    "m-sync:m=2": "exponential",
    "random:concurrency=9": "exponential",
    "shuffled:concurrency=3": "fixed:scale=0.1",
    "ringmaster:max_delay=3,stop_stale=true": "exponential",
    "rennala:batch=4": "linear",
    "ringleader": "exponential",
    "ace": "linear",
}


@pytest.mark.parametrize("n_workers", [3, 7])
@pytest.mark.parametrize("method", METHODS)
def test_the_summary_of_a_method_is_that_of_plain_numpy(method, n_workers):
    for limits in ({"steps": 300}, {"until_time": 7.3}, {"steps": 0}):
        assert_as_twin(simulate(method, METHODS[method], n_workers=n_workers, **limits))


@given(seed=st.integers(0, 2**32), n_jobs=st.integers(0, 60), n_moments=st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_the_summary_of_any_trace_is_that_of_plain_numpy(seed, n_jobs, n_moments):
    """Every fate, jobs given up in a queue, many at one moment, rows in and out of time's order."""
    rng = np.random.default_rng(seed)
    n_steps, n_workers = int(rng.integers(1, 9)), int(rng.integers(1, 5))
    moments = np.sort(rng.exponential(size=n_moments))
    fate = rng.integers(len(Fate), size=n_jobs).astype(np.int8)
    read_step = rng.integers(n_steps, size=n_jobs)
    assign_time = rng.choice(moments, n_jobs)
    if seed % 2:
        assign_time.sort()
    start_time = np.maximum(rng.choice(moments, n_jobs), assign_time)
    arrival_time = np.maximum(rng.choice(moments, n_jobs), start_time)
    waited = (rng.random(n_jobs) < 0.3) & (fate != Fate.APPLIED) & (fate != Fate.DROPPED)
    start_time[waited] = NAN
    arrival_time[(rng.random(n_jobs) < 0.5) & (fate == Fate.IN_FLIGHT)] = NAN
    jobs = Jobs(
        rng.integers(n_workers, size=n_jobs).astype(np.int32), read_step, np.arange(n_jobs),
        assign_time, start_time, arrival_time, fate,
    )  # fmt: skip
    used = np.flatnonzero(fate == Fate.APPLIED)
    used = np.concatenate([used, rng.choice(used, 5)]) if used.size else used
    first = rng.integers(read_step[used], n_steps)
    order = np.argsort(first, kind="stable")
    used, first = used[order], first[order]
    single = np.full(used.size, -1, np.int32)
    rows = Contributions(used, single, first, first + 1, np.ones(used.size))
    header = Header("any", "any", n_workers, 0, float(moments[-1]) + 1, "time")
    assert_as_twin(Trace(jobs, rows, np.sort(rng.choice(moments, n_steps)), header))


def test_columns_of_other_types_and_that_cannot_be_written_are_read(trace):
    jobs = Jobs(*(np.repeat(column, 2)[::2] for column in trace.jobs))  # not contiguous
    jobs = jobs._replace(worker=jobs.worker.astype(np.int64), fate=jobs.fate.astype(np.int64))
    for column in jobs:
        column.flags.writeable = False
    assert_as_twin(Trace(jobs, trace.contributions, trace.step_times, trace.header))


@pytest.mark.parametrize(("column", "value"), [("worker", 3), ("worker", -1), ("fate", 5)])
def test_a_trace_by_hand_with_a_worker_or_fate_that_is_none_is_refused(
    refused, trace, column, value
):
    changed = getattr(trace.jobs, column).copy()
    changed[4] = value
    jobs = trace.jobs._replace(**{column: changed})
    other = Trace(jobs, trace.contributions, trace.step_times, trace.header)
    assert "row 4" in refused(lambda: other.summary, TraceError)
