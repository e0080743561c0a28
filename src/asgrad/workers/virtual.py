"""Workers in virtual time: their gradients are computed, their times are reckoned."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from asgrad.encoders.base import n_remembered
from asgrad.errors import AsgradError, check_integer, in_one_line
from asgrad.moments import is_later, put_back, rounded_off, time_at
from asgrad.registry import resolve
from asgrad.times import AnyTimes
from asgrad.tournament import finish_place, first_worker, new_tree, reschedule
from asgrad.trace import Fate
from asgrad.workers.base import (
    NOT_FINITE,
    Arrival,
    Job,
    Joined,
    RunContext,
    Session,
    Stopwatch,
    Workers,
    arrival_of,
    check_same_number,
    computation_of,
    failed,
    warm_up,
)

__all__ = ["Virtual"]

_STANDS_STILL = 100_000


@dataclass(frozen=True)
class Virtual(Workers):
    """Workers in virtual time: `train` decides, steps and records as ever, and waits for nobody.

    Who computes what when is that of `simulate` with the same method, times, seed and limits: the
    trace is the same bit for bit, and the model that of its replay. The gradients are computed one
    after the other by the thread that called `train`, each when its job ends; those of jobs that
    are called off are not. The run's clock is the virtual one: limits, evaluations and checkpoints
    go by it, and there are no deadlines.

    For methods whose decisions depend on gradients, which `simulate` cannot play; for tests; and
    for runs that are to be repeated exactly. For a grid of stepsizes `simulate` and `replay` are
    much faster.

    Parameters
    ----------
    times : Times or str
        How long jobs take, as in `simulate`.
    n_workers : int, optional
        If given, must be the problem's.
    restarts : int >= 0
        How often a worker may fail, by a gradient that raises, before it gets no more jobs.
    """

    times: AnyTimes
    n_workers: int | None = None
    restarts: int = 3

    is_virtual: ClassVar[bool] = True

    def __post_init__(self) -> None:
        times = resolve("Virtual", "times", self.times, AnyTimes, "ag.times.Linear()")
        object.__setattr__(self, "times", times)
        if self.n_workers is not None:
            check_integer("Virtual", "n_workers", self.n_workers, minimum=1)
        check_integer("Virtual", "restarts", self.restarts, minimum=0)

    @property
    def times_label(self) -> str:
        """The label of the times, as in a trace of `simulate`."""
        return self.times.label

    def clock(self, elapsed: float) -> Stopwatch:
        """Return a clock that shows what the session sets it to."""
        return _Clock(elapsed)

    def open(self, context: RunContext) -> Session:
        """Begin at the run's start, or where a checkpoint has left off."""
        check_same_number("Virtual", self.n_workers, context.problem.n_workers)
        return _Session(self, context)


class _Clock(Stopwatch):
    """Shows the moment to which a run in virtual time has come."""

    def __init__(self, elapsed: float):
        self.moment = elapsed

    def start(self) -> None:
        """Do nothing: time passes when the session says so."""

    def __call__(self) -> float:
        """Return the moment."""
        return self.moment


class _Session(Session):
    """The event loop of `simulate` (simulation/events.py), turned inside out.

    There the loop asks the method; here the run asks for the next arrival, and gives out jobs in
    between. What decides about ties and rounding is the same code: moments.py, tournament.py.
    """

    def __init__(self, options: Virtual, context: RunContext):
        n = context.problem.n_workers
        self._context, self._options = context, options
        assert isinstance(context.clock, _Clock)
        self._clock = context.clock
        self._pace = options.times.begin(n, context.seed)
        warm_up(context)
        first = computation_of(context, 0)
        self._compute = [first, *(first.of_another(worker) for worker in range(1, n))]
        if context.memories is not None:
            for compute, memory in zip(self._compute, context.memories, strict=True):
                compute.memory[:] = memory
        self._n_failures = [0] * n
        self._running: list[tuple[Job, np.ndarray] | None] = [None] * n
        self._queues: list[deque[tuple[Job, np.ndarray]]] = [deque() for _ in range(n)]
        self._to_start: list[int] = []
        """Workers that may have to start a job, in the order of starting."""
        self._tree = new_tree(n)
        self._n_started = 0
        # The event loop's clock: the moment of the last arrival, and what added to it gives the
        # true sum of the times that led to that arrival; and the same of every running job's end.
        self._moment, self._remainder = 0.0, 0.0
        self._remainders = [0.0] * n
        self._arrived = -1
        """The worker of the last arrival, until it has been seen to."""
        self._queued: list[Job] = []
        """What stood in its queue then."""
        self._n_standing = 0
        self._newest_step = 0
        self._under_way: dict[int, list[Any]] = {}
        if context.kept is not None:
            self._go_on_from(context.kept)

    def submit(self, job: Job, x: np.ndarray) -> bool:
        """Queue a job for its worker; False if the worker has failed too often."""
        worker = job.worker
        if job.row in self._under_way:  # when the checkpoint was written
            self._restart(job, x, *self._under_way.pop(job.row)[1:])
            return True
        if self._n_failures[worker] > self._options.restarts:
            return False
        if job.read_step > self._newest_step and self._context.max_steps < math.inf:
            self._n_standing = 0
        self._newest_step = max(self._newest_step, job.read_step)
        self._queues[worker].append((job, x))
        self._to_start.append(worker)
        return True

    def wait(self, until: float) -> Sequence[Arrival | Joined]:
        """Return the next arrival, unless it comes after `until`; then time passes to there."""
        self._start_jobs()
        time = time_at(int(self._tree[1]["finish"]))
        if time == math.inf or is_later(time, until):
            if self._clock.moment < until < math.inf:
                self._clock.moment = until
            return ()
        if is_later(time, self._moment):
            self._moment = min(time, self._context.until_time)
            self._n_standing = 0
        self._n_standing += 1
        self._check_standing()
        self._clock.moment = self._moment
        worker = int(first_worker(self._tree, self._moment))
        finished = time_at(finish_place(self._tree, worker))
        self._remainder = self._remainders[worker] + (finished - self._moment)
        done, self._running[worker], self._arrived = self._running[worker], None, worker
        assert done is not None
        self._queued = [job for job, _ in self._queues[worker]]
        return (self._computed(*done),)

    def state(self) -> dict[str, Any]:
        """Return what a session needs to go on: the clock, and the ends of the running jobs."""
        self._start_jobs()
        leaves = self._tree.size // 2
        under_way = [
            [
                item[0].row,
                item[0].start_time,
                time_at(int(self._tree[leaves + worker]["finish"])),
                int(self._tree[leaves + worker]["ticket"]),
                self._remainders[worker],
            ]
            for worker, item in enumerate(self._running)
            if item is not None
        ]
        return {
            "moment": self._moment,
            "remainder": self._remainder,
            "n_started": self._n_started,
            "n_standing": self._n_standing,
            "n_failures": list(self._n_failures),
            "under_way": under_way,
        }

    def memories(self) -> np.ndarray | None:
        """Return what the encoders remember."""
        if n_remembered(self._context.encoder) == 0:
            return None
        return np.array([compute.memory for compute in self._compute])

    def close(self) -> None:
        """Start what was given out last: the trace says so."""
        self._start_jobs()

    def _go_on_from(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned; the jobs themselves are submitted again."""
        self._moment, self._remainder = state["moment"], state["remainder"]
        self._n_started, self._n_standing = state["n_started"], state["n_standing"]
        self._n_failures = list(state["n_failures"])
        self._under_way = {job[0]: job for job in state["under_way"]}

    def _start_jobs(self) -> None:
        """Let workers that have nothing to do start their next jobs, at the last arrival's moment.

        Last come those that may be left without work, as after `carry_out` in the simulator.
        """
        called_off = [
            worker
            for worker, item in enumerate(self._running)
            if item is not None and item[0].fate != Fate.IN_FLIGHT
        ]
        for worker in called_off:
            self._running[worker] = None
        again = put_back(self._moment, self._remainder)
        to_start = [*self._to_start, *called_off]
        # It goes on with its queue first, before jobs that are assigned now, unless all that stood
        # there has been called off.
        if any(job.fate == Fate.IN_FLIGHT for job in self._queued):
            to_start.insert(0, self._arrived)
        if self._arrived >= 0:
            to_start.append(self._arrived)
        self._to_start, self._arrived, self._queued = [], -1, []
        for worker in to_start:
            if self._running[worker] is None:
                self._start_next(worker, again)

    def _start_next(self, worker: int, again: float) -> None:
        """Start the next job of a worker that is wanted, if there is one."""
        queue = self._queues[worker]
        while queue and queue[0][0].fate != Fate.IN_FLIGHT:
            queue.popleft()
        end = math.inf
        if queue:
            self._running[worker] = job, _ = queue.popleft()
            job.start_time = now = self._moment
            duration = self._seconds(job) + again
            end = now + duration
            self._remainders[worker] = self._remainder - again + rounded_off(now, duration)
        reschedule(self._tree, self._n_started, worker, end)
        self._n_started += 1

    def _restart(
        self, job: Job, x: np.ndarray, start: float, end: float, ticket: int, remainder: float
    ) -> None:
        """Take up a job that was under way at a checkpoint, with the place that it had in line."""
        self._running[job.worker] = job, x
        job.start_time, self._remainders[job.worker] = start, remainder
        reschedule(self._tree, ticket // (self._tree.size // 2), job.worker, end)

    def _seconds(self, job: Job) -> float:
        """Return how long a job that starts now takes."""
        pace = self._pace
        taken = pace.seconds(
            pace.scales, pace.shape, pace.key, job.worker, job.draw, job.start_time
        )
        if not 0 <= taken < math.inf:
            raise AsgradError(
                f"{type(self._options.times).__name__}: the time of a job must be finite and >= 0, "
                f"got {taken:g} for worker {job.worker}. It was asked for draw {job.draw}."
            )
        return float(taken * job.work)

    def _computed(self, job: Job, x: np.ndarray) -> Arrival:
        """Compute the gradient of a job that ends."""
        gradient = np.empty_like(x)
        try:
            finite = self._compute[job.worker](x, job.draw, gradient, job.work)
        except Exception as error:  # whatever a user's problem raises is the job's failure
            self._n_failures[job.worker] += 1
            gone = self._n_failures[job.worker] > self._options.restarts
            return failed(job, in_one_line(error), gone=gone)
        return arrival_of(job, gradient if finite else NOT_FINITE)

    def _check_standing(self) -> None:
        """Refuse a run whose time does not pass, as `simulate` does."""
        most = 1000 * len(self._queues) + _STANDS_STILL
        if self._n_standing > most and self._context.max_jobs == math.inf:
            raise AsgradError(
                f"train: time stands still at {self._moment:g} s: {self._n_standing - 1} jobs took "
                "0 seconds; give a worker times above 0, or a limit on jobs."
            )
