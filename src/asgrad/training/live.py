"""The loop of a live run, between its workers and its server."""

from __future__ import annotations

import math
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from asgrad.errors import AsgradError, check_integer, check_positive
from asgrad.moments import is_later
from asgrad.training.checkpoint import Keeper
from asgrad.training.evaluation import Evaluator
from asgrad.training.server import Orders, Server
from asgrad.workers.base import Arrival, Job, Joined, Left, Session, Stopwatch

__all__ = ["Bounds", "Ending", "Facts", "Live", "ctrl_c_ends"]

_SHOWN = 100  # failures that are kept in words
_PUNCTUAL = 0.005  # seconds; an alarm may be set while this thread waits
Event = Arrival | Joined | Left


class Ending(StrEnum):
    """Why a live run ended."""

    STEPS = "steps"
    JOBS = "jobs"
    TIME = "time"
    TARGET = "target"
    DIVERGED = "diverged"
    TOO_FEW_WORKERS = "too few workers"
    INTERRUPTED = "interrupted"


@dataclass
class Facts:
    """What a run has seen beside its server; written into checkpoints as JSON."""

    elapsed: float
    n_arrived: int
    n_refused: int
    failures: list[str]
    due: float = math.nan
    """When the next evaluation is due; NaN before the first."""
    workers: Any = None
    """What the session of the workers wants to know when the run goes on."""


@dataclass(frozen=True)
class Bounds:
    """When a run ends, and how often it is evaluated."""

    steps: float
    jobs: float
    until_time: float
    target: float | None
    evaluate_every: float
    max_refused: int

    @classmethod
    def checked(
        cls,
        steps: int | None,
        jobs: int | None,
        until_time: float | None,
        target: float | None,
        evaluate_every: float | None,
        max_refused: int,
    ) -> Bounds:
        """Return the bounds that `train` is given; refuse what is none, and a run without end."""
        if steps is None and jobs is None and until_time is None and target is None:
            raise AsgradError("train: give a limit: steps, jobs, until_time or target.")
        for name, count in (("steps", steps), ("jobs", jobs), ("max_refused", max_refused)):
            if count is not None:
                check_integer("train", name, count, minimum=0)
        for name, number in (("until_time", until_time), ("target", target)):
            if number is not None:
                check_positive("train", name, number)
        if evaluate_every is not None:
            check_positive("train", "evaluate_every", evaluate_every)
        return cls(
            math.inf if steps is None else steps,
            math.inf if jobs is None else jobs,
            math.inf if until_time is None else until_time,
            target,
            math.inf if evaluate_every is None else evaluate_every,
            max_refused,
        )


class Live:
    """A live run. Whatever happens is dealt with in one order, that in which it was brought.

    Who brings it puts it into a queue, and deals with what stands there unless another thread does.
    So nobody waits for a lock, where who asks first need not be the first to get it; and few
    threads need be woken.

    Parameters
    ----------
    server : Server
        New, or as a checkpoint has it.
    bounds : Bounds
    facts : Facts
        What was before.
    clock : Stopwatch
    """

    def __init__(self, server: Server, bounds: Bounds, facts: Facts, clock: Stopwatch):
        self.server, self.bounds = server, bounds
        self.facts, self.clock = facts, clock
        self.on_step: Callable[[int, float], None] | None = None
        self.on_arrival: Callable[[Job], None] | None = None
        self.ended = threading.Event()
        self.interrupted = False
        self._lock = threading.Lock()
        self._queue: deque[Sequence[Event]] = deque()
        self._turn = server.n_workers
        """After so many batches a thread goes back to its own work."""
        self._status: Ending | None = None
        self._error: BaseException | None = None
        self._whole = True
        self._evaluated = -1
        """The step whose model was evaluated last."""

    def play(self, session: Session, evaluator: Evaluator, keeper: Keeper | None) -> Ending:
        """Run from the first jobs, or those that were under way at the checkpoint, to the end.

        `session` was opened with this run's `deliver`.

        Raises
        ------
        BaseException
            What a callback or the problem's method raised; the run can be resumed all the same.
        """
        self.session, self.evaluator, self.keeper = session, evaluator, keeper
        self.clock.start()
        with self._lock:
            now = self.clock()
            if math.isnan(self.facts.due):
                self._evaluate(now)
            else:
                self._evaluated = evaluator.done[-1][0] if evaluator.done else -1
                self.facts.due = min(self.facts.due, now + self.bounds.evaluate_every)
            if self.server.has_begun:
                self._status = self._reached(now)
                if self._status is not None:  # resumed past its limits
                    self.ended.set()
                    if not self.evaluator.beside:  # in virtual time what is under way stays so
                        self._give_out(Orders(assigned=self.server.unfinished()))
                    return self._status
                self._give_out(Orders(assigned=self.server.unfinished()))
                for worker in range(self.server.n_workers):
                    if not session.is_away(worker):
                        self._give_out(self.server.join(worker, now))
                self._give_out(self.server.assign_waiting(now))
            else:
                self._give_out(self.server.start(0.0))
            self._save(now)
        more = self.handle([])
        while self._status is None:
            more = self.handle(session.wait(0.0 if more else self._next_due()))
        if self._error is not None:
            raise self._error
        return self._status

    def _next_due(self) -> float:
        """Return the next moment at which something is to be done though nothing happens."""
        due = self.facts.due
        if self.evaluator.beside and (self._is_evaluated or self.evaluator.busy):
            due = self.clock() + self.bounds.evaluate_every
        elif self._is_evaluated:
            due = math.inf
        if self.server.has_alarms:
            due = min(due, max(self.server.next_alarm, self.clock()), self.clock() + _PUNCTUAL)
        return min(due, self.bounds.until_time)

    @property
    def _is_evaluated(self) -> bool:
        """Whether the model is still the one that was evaluated last."""
        return self.server.n_steps == self._evaluated

    def _evaluate(self, now: float) -> None:
        """Have the model evaluated, unless it is still the same."""
        if not self._is_evaluated:
            self.evaluator.ask(self.server.n_steps, now, self.server.x)
            self._evaluated = self.server.n_steps
        self.facts.due = now + self.bounds.evaluate_every

    def deliver(self, events: Sequence[Event]) -> bool:
        """Bring what happened, from any thread, or nothing; deal with what waits, for a while.

        Returns whether something still waits that nobody deals with: whoever has nothing better to
        do is to call it again.
        """
        if events:
            self._queue.append(events)
        # Looked at again after the lock is given back: who brought something while it was held has
        # gone on.
        for _ in range(self._turn):
            if not (self._queue and self._lock.acquire(blocking=False)):
                return False
            try:
                if self._queue:
                    self._deal_with(self._queue.popleft())
            finally:
                self._lock.release()
        return bool(self._queue)

    def handle(self, events: Sequence[Event]) -> bool:
        """Deal with what happened, if anything, and with what is due; return as `deliver` does."""
        self._queue.append(events)
        return self.deliver(())

    def _deal_with(self, events: Sequence[Event]) -> None:
        """Deal with what happened, in order, and with what is due."""
        if self._status is not None:
            return
        try:
            now = self.clock()
            waiting, several = deque(events), len(events) > 1
            idle = not events
            if self.facts.due < now and self._is_evaluated:
                self.facts.due = now  # a new model is looked at once this moment has passed
            while waiting and not (several and self._reached(now)):
                event = waiting.popleft()
                if isinstance(event, Joined):
                    self._give_out(self.server.join(event.worker, now))
                elif isinstance(event, Left):
                    self.server.leave(event.worker, now)
                else:
                    self._take(event, now, more=several)
                if several:
                    now = math.nextafter(now, math.inf)  # the trace says who came first
                if several and not waiting:  # what has come in the meantime
                    waiting += self.session.wait(0.0)
                    now = self.clock()
            if self.server.waiting:
                self._give_out(self.server.assign_waiting(now))
            if self.server.has_alarms and self._rings(now, idle):
                self._ring(now)
                idle = False  # the moment is not over
            if _has_passed(self.facts.due, now, idle) and not self.evaluator.busy:
                self._evaluate(now)
            if self.keeper and self.keeper.due(self.server.n_steps, now):
                self._save(now)
            if self.evaluator.error is not None:
                raise self.evaluator.error
            self._status = self._reached(now, idle) or self._deserted()
        except BaseException as error:  # raised again where the run was started
            self._error, self._status = error, Ending.INTERRUPTED
        if self._status is not None:
            self.ended.set()

    def end(self, now: float) -> None:
        """Evaluate and save the last model."""
        self.evaluator.ask(self.server.n_steps, now, self.server.x)
        self.evaluator.close()
        if self.keeper:
            if self._whole:
                self._save(now)
            self.keeper.close()
            self.facts.failures += self.keeper.failures

    def _reached(self, now: float, idle: bool = False) -> Ending | None:
        """Return the first limit that is reached, if any."""
        server, facts, bounds = self.server, self.facts, self.bounds
        if server.n_steps >= bounds.steps:
            return Ending.STEPS
        if facts.n_arrived >= bounds.jobs:
            return Ending.JOBS
        if facts.n_refused > bounds.max_refused or self.evaluator.blown_up():
            return Ending.DIVERGED
        if self.evaluator.reached(bounds.target):
            return Ending.TARGET
        if self.interrupted:
            return Ending.INTERRUPTED
        return Ending.TIME if _has_passed(bounds.until_time, now, idle) else None

    def _deserted(self) -> Ending | None:
        """Say whether nobody works any more, once all events are dealt with."""
        waits = self.server.next_alarm < math.inf
        if waits or self.server.n_in_flight > 0 or self.session.may_join():
            return None
        if self.server.all_present:
            raise AsgradError(
                f"{self.server.method.label}: every worker is idle after {self.server.n_steps} "
                "steps and none was assigned a job; a method must assign a job before the last "
                "one in flight is used up."
            )
        return Ending.TOO_FEW_WORKERS

    def _take(self, arrival: Arrival, now: float, more: bool) -> None:
        """Deal with what came of one job; `more`: of one of several."""
        job, failure = arrival.job, arrival.failure
        if arrival.gone:
            self.server.leave(job.worker, now)
        if not self.server.expects(job):
            return  # cancelled or given up in the meantime
        self.facts.n_refused += arrival.refused
        if failure:
            if len(self.facts.failures) < _SHOWN:
                self.facts.failures.append(failure)
            self._give_out(self.server.lose(job, now))
            return
        self.facts.n_arrived += 1
        self._whole = False  # if the method raises, the server is not to be saved
        orders = self.server.arrive(job, arrival.gradient, now, more=more)
        self._whole = True
        if self.on_arrival:
            self.on_arrival(job)
        self._carry_out(orders, now)

    def _rings(self, now: float, idle: bool) -> bool:
        """Say whether an alarm goes off: after all else that happens at its moment."""
        due = self.server.next_alarm
        return bool(not is_later(due, now) if idle else is_later(now, due))

    def _ring(self, now: float) -> None:
        """Let the method's alarm go off that is due."""
        self._whole = False
        orders = self.server.ring(now)
        self._whole = True
        self._carry_out(orders, now)

    def _carry_out(self, orders: Orders, now: float) -> None:
        """Tell of the steps that were taken, and hand out the new jobs."""
        if self.on_step:
            for step in range(self.server.n_steps - orders.n_steps, self.server.n_steps):
                self.on_step(step, now)
        self._give_out(orders)

    def _give_out(self, orders: Orders) -> None:
        """Hand new jobs to the workers; one for a worker that is gone is lost at once."""
        waiting = list(orders.assigned)
        while waiting:
            job = waiting.pop(0)
            if not self.session.submit(job, self.server.model(job.read_step)):
                now = self.clock()
                self.server.leave(job.worker, now)
                waiting += self.server.lose(job, now).assigned

    def _save(self, now: float) -> None:
        """Have a checkpoint written."""
        if self.keeper:
            self.facts.elapsed, self.facts.workers = now, self.session.state()
            facts: dict[str, Any] = {**vars(self.facts), "evaluations": self.evaluator.done}
            facts = {name: list(v) if isinstance(v, list) else v for name, v in facts.items()}
            state, memories = self.server.state(), self.session.memories()
            if memories is not None:
                state["memories"] = memories
            self.keeper.save(self.server.n_steps, now, state, self.server.journal.parts(), facts)


def _has_passed(moment: float, now: float, idle: bool) -> bool:
    """Say whether a moment is over, with all that happens at it: in virtual time that may be much.

    At the moment itself it is once nothing has happened (`idle`).
    """
    return now > moment or (idle and now == moment)


@contextmanager
def ctrl_c_ends(run: Live) -> Iterator[None]:
    """Let Ctrl-C end a run in order, not in the middle of a step; a second one breaks it off."""
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as where nohup has started us
    if ignored or threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: Any) -> None:
        run.interrupted = True  # no more: an Event's lock might be held by the thread it stops
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
