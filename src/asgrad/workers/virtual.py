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
from asgrad.times import AnyTimes, times_of
from asgrad.times.links import delivered_at, received_at
from asgrad.times.outages import next_change
from asgrad.times.phases import slowness
from asgrad.tournament import CHANGES_LAST, finish_place, first_worker, new_tree, reschedule
from asgrad.trace import Fate
from asgrad.workers.base import (
    NOT_FINITE,
    Arrival,
    Job,
    Joined,
    Left,
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
        times = times_of("Virtual", self.times)
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


@dataclass(slots=True)
class _Held:
    """A job that a worker has, and the model that it reads."""

    job: Job
    x: np.ndarray
    ready: float
    """When the model is there."""
    delivered: float = math.nan
    """When the gradient will have arrived, once it is sent."""


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
        self._pace = pace = options.times.begin(n, context.seed)
        warm_up(context)
        first = computation_of(context, 0)
        self._compute = [first, *(first.of_another(worker) for worker in range(1, n))]
        if context.memories is not None:
            for compute, memory in zip(self._compute, context.memories, strict=True):
                compute.memory[:] = memory
        self._n_failures = [0] * n
        self._running: list[_Held | None] = [None] * n
        self._queues: list[deque[_Held]] = [deque() for _ in range(n)]
        self._sent: list[deque[_Held]] = [deque() for _ in range(n)]
        """What is on its way from each worker."""
        self._away = [False] * n
        self._to_start: list[int] = []
        """Workers that may have to start a job, in the order of starting."""
        self._last: list[int] = []
        """Those after them that may be left without work."""
        self._has_links, self._has_changes = pace.links.size > 0, pace.changes.own.size > 0
        self.sends = self._has_links
        self._changes_line = n * (1 + self._has_links)
        self._tree = new_tree(self._changes_line + n * self._has_changes)
        self._n_started = 0
        # The event loop's clock: the moment of the last arrival, and what added to it gives the
        # true sum of the times that led to that arrival; and the same of every running job's end.
        self._moment, self._remainder = 0.0, 0.0
        self._remainders = [0.0] * n
        self._arrived = -1
        """The worker of the last arrival, until it has been seen to."""
        self._queued: list[Job] = []
        """What stood in its queue then."""
        self._lost: deque[Job] = deque()
        """What a worker had that has gone, until the run has heard of it."""
        self._n_standing = 0
        self._newest_step = 0
        self._kept: dict[int, list[Any]] = {}
        if context.kept is not None:
            self._go_on_from(context.kept)
        elif self._has_changes:
            for worker in range(n):
                self._schedule_change(worker)

    def submit(self, job: Job, x: np.ndarray) -> bool:
        """Queue a job for its worker; False if the worker has failed too often."""
        worker = job.worker
        if job.row in self._kept:  # when the checkpoint was written
            self._take_up(job, x, *self._kept.pop(job.row))
            return True
        if self._n_failures[worker] > self._options.restarts:
            return False
        if job.read_step > self._newest_step and self._context.max_steps < math.inf:
            self._n_standing = 0
        self._newest_step = max(self._newest_step, job.read_step)
        self._notice_called_off(worker)
        ready = self._moment
        if self._has_links:
            ready = received_at(self._pace.links, self._pace.server, worker, self._moment)
        self._queues[worker].append(_Held(job, x, ready))
        self._to_start.append(worker)
        return True

    def wait(self, until: float) -> Sequence[Arrival | Joined | Left]:
        """Return what happens next, unless that is after `until`; then time passes to there.

        Nothing, too, where an alarm of the method is due: it goes off when nothing else happens.
        """
        if self._lost:
            return (failed(self._lost.popleft(), "its worker is away"),)
        self._start_jobs()
        while True:
            time = time_at(int(self._tree[1]["finish"]))
            first = min(time, self._context.next_alarm())
            if first == math.inf or is_later(first, until):
                if self._clock.moment < until < math.inf:
                    self._clock.moment = until
                return ()
            if is_later(first, self._moment):
                self._moment = min(first, self._context.until_time)
                self._n_standing = 0
            self._n_standing += 1
            self._check_standing()
            self._clock.moment = self._moment
            if is_later(time, self._moment):  # an alarm's turn
                self._remainder = 0.0
                return ()
            happened = self._happened(int(first_worker(self._tree, self._moment)))
            if happened is not None:
                return (happened,)

    def _happened(self, line: int) -> Arrival | Joined | Left | None:
        """Return what happens on a line of the tournament; None if the run need not hear of it."""
        n = len(self._running)
        if not self._has_links and line < n:
            finished = time_at(finish_place(self._tree, line))
            self._remainder = self._remainders[line] + (finished - self._moment)
            done, self._running[line] = self._running[line], None
            return self._arrive(line, done)
        self._remainder = 0.0
        if line >= self._changes_line:
            return self._change(line - self._changes_line)
        if line >= n:
            done = self._sent[line - n].popleft()
            self._schedule_delivery(line - n)
            return self._arrive(line - n, done)
        done, self._running[line] = self._running[line], None
        assert done is not None
        # By rounding it may have begun later: at the moment that is now.
        done.job.start_time = min(done.job.start_time, self._moment)
        done.job.finish_time = self._moment
        pace = self._pace
        done.delivered = delivered_at(pace.links, pace.server, line, self._moment)
        self._sent[line].append(done)
        if len(self._sent[line]) == 1:
            self._schedule_delivery(line)
        self._start_next(line, 0.0)
        return None

    def _arrive(self, worker: int, done: _Held | None) -> Arrival:
        """Return a gradient that arrives; its worker goes on afterwards."""
        assert done is not None
        self._arrived = worker
        self._queued = [held.job for held in self._queues[worker]]
        return self._computed(done.job, done.x)

    def _change(self, worker: int) -> Joined | Left:
        """Let a worker go, with all that it has, or come back."""
        self._away[worker] = not self._away[worker]
        self._schedule_change(worker)
        if not self._away[worker]:
            return Joined(worker)
        running = self._running[worker]
        had = [*self._sent[worker], *([running] if running else []), *self._queues[worker]]
        self._lost.extend(held.job for held in had if held.job.fate == Fate.IN_FLIGHT)
        self._running[worker] = None
        self._sent[worker].clear()
        self._queues[worker].clear()
        self._free_links(worker)
        self._last.append(worker)
        return Left(worker)

    def may_join(self) -> bool:
        """Say whether a worker that is away comes back."""
        ends = self._tree["finish"][self._tree.size // 2 + self._changes_line :]
        return any(
            away and time_at(int(ends[worker])) < math.inf for worker, away in enumerate(self._away)
        )

    def is_away(self, worker: int) -> bool:
        """Say whether a worker is away."""
        return self._away[worker]

    def state(self) -> dict[str, Any]:
        """Return what a session needs to go on: the clock, and how far each job has come."""
        if not self._lost:
            self._start_jobs()
        n, pace = len(self._running), self._pace
        jobs = [
            [
                held.job.row,
                *self._line(worker),
                self._remainders[worker],
                held.ready,
                held.job.start_time,
            ]
            for worker, held in enumerate(self._running)
            if held
        ]
        return {
            "moment": self._moment,
            "remainder": self._remainder,
            "n_started": self._n_started,
            "n_standing": self._n_standing,
            "n_failures": list(self._n_failures),
            "running": jobs,
            "sent": [
                [held.job.row, held.ready, held.job.start_time, held.job.finish_time,
                 held.delivered]
                for sent in self._sent for held in sent
            ],
            "queued": [[held.job.row, held.ready] for queue in self._queues for held in queue],
            "lost": [job.row for job in self._lost],
            "last": list(self._last),
            "away": list(self._away),
            "lines": [self._line(line) for line in range(n, self._tree.size // 2)],
            "links": [pace.links[name].tolist() for name in ("down_free", "up_free")],
            "server": [pace.server[name].tolist() for name in ("down_free", "up_free")],
            "changes": [pace.changes.own[name].tolist() for name in ("index", "until")],
        }  # fmt: skip

    def memories(self) -> np.ndarray | None:
        """Return what the encoders remember."""
        if n_remembered(self._context.encoder) == 0:
            return None
        return np.array([compute.memory for compute in self._compute])

    def close(self) -> None:
        """Start what was given out last: the trace says so."""
        self._start_jobs()

    def _line(self, line: int) -> list[Any]:
        """Return the time that stands on a line of the tournament, and its ticket."""
        leaf = self._tree[self._tree.size // 2 + line]
        return [time_at(int(leaf["finish"])), int(leaf["ticket"])]

    def _go_on_from(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned; the jobs themselves are submitted again."""
        self._moment, self._remainder = state["moment"], state["remainder"]
        self._n_started, self._n_standing = state["n_started"], state["n_standing"]
        self._n_failures = list(state["n_failures"])
        self._away, self._last = list(state["away"]), list(state["last"])
        leaves, n = self._tree.size // 2, len(self._running)
        for line, (time, ticket) in enumerate(state["lines"], n):
            reschedule(self._tree, ticket // leaves, line, time)
        for name, values in zip(("down_free", "up_free"), state["links"], strict=True):
            self._pace.links[name] = values
        for name, values in zip(("down_free", "up_free"), state["server"], strict=True):
            self._pace.server[name] = values
        for name, values in zip(("index", "until"), state["changes"], strict=True):
            self._pace.changes.own[name] = values
        for kind in ("running", "sent", "queued"):
            self._kept.update({row: [kind, *rest] for row, *rest in state[kind]})
        self._kept.update({row: ["lost"] for row in state["lost"]})

    def _take_up(self, job: Job, x: np.ndarray, kind: str, *numbers: float) -> None:
        """Take up a job as it was at a checkpoint, with the place that it had in line."""
        worker = job.worker
        if kind == "lost":
            self._lost.append(job)
        elif kind == "queued":
            self._queues[worker].append(_Held(job, x, numbers[0]))
        elif kind == "sent":
            held = _Held(job, x, numbers[0], numbers[3])
            job.start_time, job.finish_time = numbers[1:3]
            self._sent[worker].append(held)
        else:
            end, ticket, self._remainders[worker], ready, job.start_time = numbers
            self._running[worker] = _Held(job, x, ready)
            reschedule(self._tree, int(ticket) // (self._tree.size // 2), worker, end)

    def _start_jobs(self) -> None:
        """Let workers that have nothing to do start their next jobs, at this moment.

        Last come those that may be left without work, as after `carry_out` in the simulator.
        """
        if is_later(self._clock.moment, self._moment):  # an alarm went off since
            self._moment = self._clock.moment
        for worker in range(len(self._running)):
            self._notice_called_off(worker)
        again = put_back(self._moment, self._remainder)
        to_start = [*self._to_start, *self._last]
        # It goes on with its queue first, before jobs that are assigned now, unless all that stood
        # there has been called off.
        if any(job.fate == Fate.IN_FLIGHT for job in self._queued):
            to_start.insert(0, self._arrived)
        if self._arrived >= 0:
            to_start.append(self._arrived)
        self._to_start, self._last, self._arrived, self._queued = [], [], -1, []
        for worker in to_start:
            if self._running[worker] is None:
                self._start_next(worker, again)

    def _notice_called_off(self, worker: int) -> None:
        """Let a worker stop what was called off since, and free its links."""
        running, queue, sent = self._running[worker], self._queues[worker], self._sent[worker]
        stops = running is not None and running.job.fate != Fate.IN_FLIGHT
        if stops:
            self._running[worker] = None
            self._last.append(worker)
        wanted = [held for held in queue if held.job.fate == Fate.IN_FLIGHT]
        on_way = [held for held in sent if held.job.fate == Fate.IN_FLIGHT]
        if stops or len(wanted) < len(queue) or len(on_way) < len(sent):
            self._queues[worker], self._sent[worker] = deque(wanted), deque(on_way)
            self._free_links(worker)

    def _free_links(self, worker: int) -> None:
        """Free the links of a worker from what is not wanted any more."""
        if self._has_links:
            own = self._pace.links[worker]
            own["down_free"] = min(own["down_free"], self._moment)
            own["up_free"] = min(own["up_free"], self._moment)
            if not self._sent[worker]:
                reschedule(self._tree, self._n_started, len(self._running) + worker, math.inf)

    def _start_next(self, worker: int, again: float) -> None:
        """Start the next job of a worker, if there is one, once its model is there."""
        queue = self._queues[worker]
        end = math.inf
        if queue:
            self._running[worker] = held = queue.popleft()
            held.job.start_time = now = max(self._moment, held.ready)
            duration = self._seconds(held.job) + again
            end = now + duration
            self._remainders[worker] = self._remainder - again + rounded_off(now, duration)
        reschedule(self._tree, self._n_started, worker, end)
        self._n_started += 1

    def _schedule_delivery(self, worker: int) -> None:
        """Enter when the next gradient on its way from a worker arrives."""
        sent = self._sent[worker]
        moment = sent[0].delivered if sent else math.inf
        reschedule(self._tree, self._n_started, len(self._running) + worker, moment)
        self._n_started += 1

    def _schedule_change(self, worker: int) -> None:
        """Enter when a worker goes, or comes back, next."""
        moment = next_change(self._pace.changes, self._pace.key, worker)
        reschedule(self._tree, CHANGES_LAST, self._changes_line + worker, moment)

    def _seconds(self, job: Job) -> float:
        """Return how long a job that starts now takes."""
        pace = self._pace
        taken = pace.seconds(
            pace.scales, pace.shape, pace.key, job.worker, job.draw, job.start_time
        )
        taken *= slowness(pace.slowing, pace.key, job.worker, job.draw, job.start_time)
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
