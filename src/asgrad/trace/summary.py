"""What can be read off a trace in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from asgrad.trace.tables import Fate

if TYPE_CHECKING:
    from asgrad.trace.trace import Trace

__all__ = ["Summary", "summarize"]


@dataclass(frozen=True)
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

    @property
    def wasted_share(self) -> float:
        """The share of the jobs with a verdict that were dropped, cancelled or lost."""
        wasted = self.n_dropped + self.n_cancelled + self.n_lost
        judged = self.n_applied + wasted
        return wasted / judged if judged else 0.0


def summarize(trace: Trace) -> Summary:
    """Read the summary off a trace."""
    jobs = trace.jobs
    n_workers = trace.n_workers
    applied = jobs.fate == Fate.APPLIED
    waiting = jobs.fate == Fate.IN_FLIGHT
    given_up = np.isin(jobs.fate, (Fate.CANCELLED, Fate.LOST))
    age = np.where(applied, trace.first_steps, trace.n_steps) - jobs.read_step
    counted = applied | waiting
    terms = age[counted]
    sums = np.bincount(jobs.worker[counted], weights=terms, minlength=n_workers)
    counts = np.bincount(jobs.worker[counted], minlength=n_workers)
    shares = np.bincount(jobs.worker[applied], minlength=n_workers)
    end = trace.header.end_time
    started = ~np.isnan(jobs.start_time)
    until = np.where(np.isnan(jobs.arrival_time), end, jobs.arrival_time)
    busy = np.bincount(
        jobs.worker[started], weights=(until - jobs.start_time)[started], minlength=n_workers
    )
    fates = np.bincount(jobs.fate, minlength=len(Fate))
    with np.errstate(invalid="ignore"):
        worker_delays = sums / np.where(counts, counts, np.nan)
    return Summary(
        n_steps=trace.n_steps,
        n_jobs=trace.n_jobs,
        n_applied=int(fates[Fate.APPLIED]),
        n_dropped=int(fates[Fate.DROPPED]),
        n_cancelled=int(fates[Fate.CANCELLED]),
        n_lost=int(fates[Fate.LOST]),
        n_in_flight=int(fates[Fate.IN_FLIGHT]),
        n_computed=int((~np.isnan(jobs.arrival_time) & ~given_up).sum()),
        end_time=end,
        tau_max=int(terms.max(initial=0)),
        tau_avg=float(terms.sum() / max(trace.n_jobs, 1)),
        tau_c=_max_concurrency(jobs.assign_time, jobs.arrival_time),
        worker_delays=worker_delays,
        work_shares=shares / max(int(shares.sum()), 1),
        idle_times=end - busy,
    )


def _max_concurrency(assign_time: np.ndarray, arrival_time: np.ndarray) -> int:
    """Return the largest number in flight after all the events of any one moment."""
    arrived = np.sort(arrival_time[~np.isnan(arrival_time)])
    assigned = np.sort(assign_time)
    last = np.flatnonzero(np.append(np.diff(assigned) > 0, assigned.size > 0))
    in_flight = last + 1 - np.searchsorted(arrived, assigned[last], side="right")
    return int(in_flight.max(initial=0))
