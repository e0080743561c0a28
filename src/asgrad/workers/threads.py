"""Workers as threads of one process: the kernels, and torch, release the GIL."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from asgrad.errors import KindError, check_kind, check_positive, in_one_line
from asgrad.kernels import make_ready
from asgrad.problems.base import Packed
from asgrad.times import AnyTimes, Clock, Conditions
from asgrad.trace import Fate
from asgrad.workers.base import (
    LOOK,
    NOT_FINITE,
    Arrival,
    Job,
    Joined,
    Limits,
    Record,
    RunContext,
    Session,
    Workers,
    arrival_of,
    check_slowdown,
    computation_of,
    failed,
    lineage_of,
    warm_up,
)

__all__ = ["Threads"]


@dataclass(frozen=True)
class Threads(Workers):
    """Workers that are threads of this process.

    Parameters
    ----------
    n_workers : int, optional
        If given, must be the problem's.
    slowdown : sequence of float >= 1, optional
        Each worker's factor: after a gradient it sleeps until the job has taken that many times as
        long. Stages unequal machines; jobs of less than a millisecond get slower than asked for, by
        what the system takes to wake a thread.
    sleep : Times, optional
        Seconds that a worker sleeps in every job, on top of computing.
    deadline : float > 0
        A job that takes longer than this many times its worker's median is given up and its thread
        left behind. It counts from the sixth job on.
    least_deadline : float > 0
        Seconds below which no job is given up.
    first_deadline : float > 0
        Seconds after which one of a worker's first five jobs is given up.
    restarts : int >= 0
        How often a worker may fail before it gets no more jobs.
    """

    n_workers: int | None = None
    slowdown: Sequence[float] | None = None
    sleep: AnyTimes | None = None
    deadline: float = 50.0
    least_deadline: float = 10.0
    first_deadline: float = 3600.0
    restarts: int = 3

    def __post_init__(self) -> None:
        if self.sleep is not None:
            check_kind("Threads", "sleep", self.sleep, AnyTimes, "ag.times.Exponential(0.1)")
            if isinstance(self.sleep, Conditions):
                raise KindError(
                    "Threads: sleep must be worker times without conditions, which are for virtual "
                    f"time, got {self.sleep.label}."
                )
        Limits.of(self)

    def open(self, context: RunContext) -> Session:
        """Start the threads, after one gradient has compiled or loaded the kernels."""
        n, limits = context.problem.n_workers, Limits.of(self)
        limits.check_workers(n)
        slowdown = check_slowdown("Threads", self.slowdown, n)
        data = context.problem.packed(np.dtype(context.dtype))  # one copy for all, to the end
        warm_up(context)
        sleep = self.sleep.begin(n, context.seed) if self.sleep else None
        make_ready(sleep and sleep.seconds)
        workers = [_Worker(context, sleep, slowdown[i], i, Record(limits)) for i in range(n)]
        return _Session(context, workers, data)


class _Session(Session):
    """The threads of one run."""

    def __init__(self, context: RunContext, workers: list[_Worker], data: Packed | None):
        self._context, self._workers, self._data = context, workers, data
        self._swapping = threading.Lock()

    def submit(self, job: Job, x: np.ndarray) -> bool:
        """Queue a job for its worker; False if the worker takes no more."""
        with self._swapping:
            worker = self._workers[job.worker]
            if worker.gone:
                return False
            worker.put(job, x)
            return True

    def wait(self, until: float) -> Sequence[Arrival | Joined]:
        """Wait for the end of the run, or as told; return the jobs that are past their deadline.

        All else the workers deliver themselves: a thread less to wake for every gradient.
        """
        now = self._context.clock
        self._context.ended.wait(min(max(until - now(), 0.0), LOOK))
        late: list[Arrival] = []
        for index, worker in enumerate(self._workers):
            job, limit = worker.running, worker.record.deadline
            if job is None:
                continue
            if now() - job.start_time > limit:
                with self._swapping:  # no job may be put into the inbox that is given up
                    fresh = worker.replaced(job)
                    if fresh is None:
                        continue
                    self._workers[index] = fresh
                late.append(failed(job, f"no answer within {limit:.3g} s", gone=fresh.fail()))
        return late

    def close(self) -> None:
        """Tell the workers to stop after the job they are at; do not wait for one that hangs."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.thread.join(timeout=0.5)
        self._data = None


class _Worker:
    """One worker: a thread, its inbox, and how it has done."""

    def __init__(
        self,
        context: RunContext,
        sleep: Clock | None,
        slowdown: float,
        index: int,
        record: Record,
        fresh: bool = False,
    ):
        self._settings = (context, sleep, slowdown, index, record)
        self._lineage = lineage_of(context, fresh)
        self.inbox: queue.SimpleQueue[tuple[Job, np.ndarray] | None] = queue.SimpleQueue()
        self.running: Job | None = None
        self.record = record
        self.gone = False
        self._stopped = False
        self._ending = threading.Lock()
        self._awake = threading.Event()
        self.thread = threading.Thread(target=self._work, daemon=True, name=f"asgrad-{index}")
        self.thread.start()

    def put(self, job: Job, x: np.ndarray) -> None:
        """Queue a job; one that was called off is slept through no further."""
        self.inbox.put((job, x))
        running = self.running
        if running is not None and running.fate != Fate.IN_FLIGHT:
            self._awake.set()

    def stop(self) -> None:
        """Take no further job."""
        self._stopped = True
        self._awake.set()
        self.inbox.put(None)

    def fail(self) -> bool:
        """Count a failure; say whether the worker takes no more jobs."""
        self.gone = self.record.fail()
        return self.gone

    def replaced(self, late: Job) -> _Worker | None:
        """Return a fresh worker with the jobs that wait; this thread is left to itself.

        None if it has just ended its late job: it may be at the next one.
        """
        with self._ending:
            if self.running is not late:
                return None
            self._stopped = True
        self._awake.set()
        fresh = _Worker(*self._settings, fresh=True)
        while not self.inbox.empty():
            fresh.inbox.put(self.inbox.get())
        return fresh

    def _work(self) -> None:
        """Compute one job after the other."""
        context, sleep, slowdown, index, record = self._settings
        shape, dtype, now = (context.problem.dim, 1), context.dtype, context.clock
        compute = computation_of(context, index)
        while not self._stopped:
            item = self.inbox.get()
            if item is None or self._stopped:
                return
            context.deliver(())  # who has dealt with it has had a turn
            job, x = item
            if job.fate != Fate.IN_FLIGHT:
                continue  # called off while it waited
            job.start_time = now()
            self.running = job
            failure, finite, mark = "", False, None
            try:
                gradient = np.empty(shape, dtype)
                mark = self._lineage.follow(job) if self._lineage else None
                finite = compute(x, job.draw, gradient, job.work, mark)
                pause = (slowdown - 1.0) * (now() - job.start_time)
                if sleep is not None:
                    asleep = sleep.seconds(
                        sleep.scales, sleep.shape, sleep.key, index, job.draw, job.start_time
                    )
                    what = f"the time of worker {index} for draw {job.draw}"
                    pause += check_positive("Threads", what, asleep, zero=True)
                self._sleep(job, now() + pause)
            except Exception as error:  # whatever a user's problem raises is the job's failure
                failure, finite = in_one_line(error), False
            if job.fate == Fate.IN_FLIGHT:
                record.took.append(now() - job.start_time)
            with self._ending:
                self.running = None
                if self._stopped:
                    return
            if self._lineage and mark and not finite:
                self._lineage.drop(job)
                compute.go_back(mark)
            if failure:
                arrival = failed(job, failure, gone=self.fail())
            else:
                arrival = arrival_of(job, gradient if finite else NOT_FINITE)
            something_waits = context.deliver([arrival])
            while something_waits and self.inbox.empty():
                something_waits = context.deliver(())

    def _sleep(self, job: Job, end: float) -> None:
        """Sleep until `end` on the run's clock, as long as the job is wanted."""
        now = self._settings[0].clock
        while job.fate == Fate.IN_FLIGHT and not self._stopped and (left := end - now()) > 0:
            self._awake.wait(left)
            self._awake.clear()
