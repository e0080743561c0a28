"""What can be read off a trace in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numba import types

from asgrad.errors import TraceError
from asgrad.kernels import compiled
from asgrad.trace.tables import COLUMNS, Fate, Jobs, Tables, stored

__all__ = ["Summary", "summarize"]


@dataclass(frozen=True, repr=False)
class Summary:
    """The numbers of a run; `simulate(..., record=False)` gives them without a trace.

    Attributes
    ----------
    n_steps, n_jobs : int
        Server steps taken; jobs assigned.
    n_applied, n_dropped, n_cancelled, n_lost, n_in_flight : int
        Jobs by fate.
    n_computed : int
        Gradients that workers delivered: applied, dropped, or held when the run ended.
    end_time : float
        Seconds.
    tau_max, tau_avg : int, float
        Maximum and sum of the delays of the applied jobs and the ages T − r of those in flight at
        the end, the sum divided by the number of all assigned jobs (AsGrad, Definitions 2 and 3).
    tau_c : int
        The maximal concurrency: jobs assigned and not yet arrived, after all that happens at one
        moment has happened. (AsGrad counts after every step; the two differ only where jobs take no
        time.)
    worker_delays : numpy.ndarray
        float64 of shape (n_workers,): mean of the same terms over each worker's
        own jobs; NaN for one without.
    work_shares : numpy.ndarray
        float64 of shape (n_workers,): each worker's share of the applied jobs.
    idle_times : numpy.ndarray
        float64 of shape (n_workers,): seconds in which each worker computed nothing.
    """

    n_steps: int
    n_jobs: int
    n_applied: int
    n_dropped: int
    n_cancelled: int
    n_lost: int
    n_in_flight: int
    n_computed: int
    end_time: float
    tau_max: int
    tau_avg: float
    tau_c: int
    worker_delays: np.ndarray
    work_shares: np.ndarray
    idle_times: np.ndarray

    def __repr__(self) -> str:
        """The numbers of the whole run; not those of each worker."""
        said = ", ".join(
            f"{field.name}={value}"
            for field in fields(self)
            if not isinstance(value := getattr(self, field.name), np.ndarray)
        )
        return f"Summary({said})"

    @property
    def wasted_share(self) -> float:
        """The share of the jobs with a verdict that were dropped, cancelled or lost."""
        wasted = self.n_dropped + self.n_cancelled + self.n_lost
        judged = self.n_applied + wasted
        return wasted / judged if judged else 0.0


def summarize(tables: Tables, first_steps: np.ndarray, n_workers: int, end_time: float) -> Summary:
    """Read the summary off the tables of a trace.

    `first_steps` holds for every job the first step that used it, −1 where none did.

    Raises
    ------
    TraceError
        If a job's worker or fate is none that there is.
    """
    kinds = COLUMNS["jobs"]
    jobs = Jobs(
        *(np.require(getattr(tables.jobs, name), kinds[name], ("C", "W")) for name in kinds)
    )
    n, end = n_workers, float(end_time)
    delays, busy = np.zeros(n), np.zeros(n)
    terms, applied = np.zeros(n, np.int64), np.zeros(n, np.int64)
    fates, totals = np.zeros(len(Fate), np.int64), np.zeros(3, np.int64)
    stop_time = jobs.arrival_time
    if "finish_time" in stored(tables.jobs):
        finish_time = tables.jobs.finish_time
        stop_time = np.where(np.isnan(finish_time), stop_time, finish_time)
    bad = _add_up(
        jobs.worker, jobs.read_step, jobs.start_time, jobs.arrival_time, stop_time, jobs.fate,
        first_steps, tables.n_steps, end, delays, terms, applied, busy, fates, totals,
    )  # fmt: skip
    if bad >= 0:
        raise TraceError(
            f"trace: jobs: worker must lie in [0, n_workers) and fate be a known one; row {bad} "
            "breaks this."
        )
    n_computed, longest, sum_of_delays = totals.tolist()
    return Summary(
        n_steps=tables.n_steps,
        n_jobs=tables.n_jobs,
        n_applied=int(fates[Fate.APPLIED]),
        n_dropped=int(fates[Fate.DROPPED]),
        n_cancelled=int(fates[Fate.CANCELLED]),
        n_lost=int(fates[Fate.LOST]),
        n_in_flight=int(fates[Fate.IN_FLIGHT]),
        n_computed=n_computed,
        end_time=end_time,
        tau_max=longest,
        tau_avg=float(sum_of_delays / max(tables.n_jobs, 1)),
        tau_c=_max_concurrency(jobs.assign_time, jobs.arrival_time),
        worker_delays=delays / np.where(terms, terms, np.nan),
        work_shares=applied / max(int(applied.sum()), 1),
        idle_times=end - busy,
    )


_I, _F = types.int64[::1], types.float64[::1]
_APPLIED, _IN_FLIGHT = int(Fate.APPLIED), int(Fate.IN_FLIGHT)
_CANCELLED, _LOST = int(Fate.CANCELLED), int(Fate.LOST)


@compiled(
    types.int64(types.int32[::1], _I, _F, _F, _F, types.int8[::1], _I, types.int64, types.float64,
                _F, _I, _I, _F, _I, _I)
)  # fmt: skip
def _add_up(
    worker, read_step, start_time, arrival_time, stop_time, fate, first_step, n_steps, end,
    delays, terms, applied, busy, fates, totals,
):  # fmt: skip
    """Add the jobs up, into sums by worker, by fate, and over all; return −1, or a bad row.

    `totals` are the gradients delivered, the longest delay or age, and the sum of these.
    """
    for job in range(worker.size):
        who, what = worker[job], fate[job]
        if not (0 <= who < delays.size and 0 <= what < fates.size):
            return job
        fates[what] += 1
        arrived = not np.isnan(arrival_time[job])
        if arrived and what != _CANCELLED and what != _LOST:
            totals[0] += 1
        if not np.isnan(start_time[job]):
            stopped = not np.isnan(stop_time[job])
            busy[who] += max(0.0, (stop_time[job] if stopped else end) - start_time[job])
        if what in (_APPLIED, _IN_FLIGHT):
            age = (first_step[job] if what == _APPLIED else n_steps) - read_step[job]
            delays[who] += age
            terms[who] += 1
            applied[who] += what == _APPLIED
            totals[1] = max(totals[1], age)
            totals[2] += age
    return -1


def _max_concurrency(assign_time: np.ndarray, arrival_time: np.ndarray) -> int:
    """Return the largest number in flight after all the events of any one moment."""
    if (assign_time[1:] < assign_time[:-1]).any():  # rows by hand, in another order
        assign_time = np.sort(assign_time)
    return int(_most_in_flight(assign_time, arrival_time, np.zeros(assign_time.size + 1, np.int32)))


@compiled(types.int64(_F, _F, types.int32[::1]))
def _most_in_flight(assign_time, arrival_time, gone):
    """Return the largest number in flight; assign_time does not fall, `gone` is zeros of size + 1.

    Arrivals are counted where they fall among the assignments, so that none of them is sorted. That
    is not far behind a job's own row: as many rows as others are assigned while it is in flight.
    """
    n = assign_time.size
    for job in range(n):
        moment = arrival_time[job]
        if np.isnan(moment):
            continue
        low, high, stride = 0, job, 1
        while high < n and assign_time[high] < moment:
            low = high + 1
            high += stride
            stride *= 2
        high = min(high, n)
        while low < high:  # the first row that is assigned at `moment` or later
            middle = (low + high) // 2
            if assign_time[middle] < moment:
                low = middle + 1
            else:
                high = middle
        gone[low] += 1
    most, left = 0, 0
    for job in range(n):
        left += gone[job]
        if job + 1 == n or assign_time[job + 1] > assign_time[job]:
            most = max(most, job + 1 - left)
    return most
