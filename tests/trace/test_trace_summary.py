"""The numbers read off a trace, against a trace worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from asgrad.trace import Contributions, Fate, Header, Jobs, Trace

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
