"""The loop of a live run, between its workers and its server."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from asgrad.engines.checkpoint import Keeper
from asgrad.engines.evaluation import Evaluator
from asgrad.engines.server import Job, Orders, Server
from asgrad.engines.workers import Arrival, Engine, Joined

__all__ = ["Ending", "Facts", "Live", "Stopwatch"]

_SHOWN = 100  # failures that are kept in words


class Ending(StrEnum):
    """Why a live run ended."""

    STEPS = "steps"
    JOBS = "jobs"
    TIME = "time"
    TARGET = "target"
    DIVERGED = "diverged"
    TOO_FEW_WORKERS = "too few workers"
    INTERRUPTED = "interrupted"


class Stopwatch:
    """Seconds since a run began, without those between a checkpoint and its resumption."""

    def __init__(self, elapsed: float):
        self._elapsed = elapsed
        self.start()

    def start(self) -> None:
        """Begin here."""
        self._began = time.perf_counter() - self._elapsed

    def __call__(self) -> float:
        """Return the seconds."""
        return time.perf_counter() - self._began


@dataclass
class Facts:
    """What a run has seen beside its server; written into checkpoints as JSON."""

    elapsed: float
    n_arrived: int
    n_refused: int
    failures: list[str]
    owed: list[int]
    """A worker for every job that could not be given out again, until one joins."""


class Live:
    """A live run.

    Parameters
    ----------
    server : Server
        New, or as a checkpoint has it.
    engine : Engine
        Open.
    evaluator : Evaluator
    keeper : Keeper, optional
    facts : Facts
        What was before.
    clock : Stopwatch
    """

    def __init__(
        self,
        server: Server,
        engine: Engine,
        evaluator: Evaluator,
        keeper: Keeper | None,
        facts: Facts,
        clock: Stopwatch,
    ):
        self.server, self.engine, self.evaluator = server, engine, evaluator
        self.keeper, self.facts, self.clock = keeper, facts, clock
        self.on_step: Callable[[int, float], None] | None = None
        self.on_arrival: Callable[[Job], None] | None = None
        self._present = [True] * server.n_workers

    def begin(self) -> None:
        """Give out the first jobs, or those that were under way at the checkpoint."""
        self.clock.start()
        now = self.clock()
        self.evaluator.ask(self.server.n_steps, now, self.server.x)
        if self.server.jobs:
            self._give_out(Orders(assigned=self.server.unfinished()))
            for worker in range(self.server.n_workers):
                self._join(worker, now)
        else:
            self._give_out(self.server.start(0.0))
        self._save(now)

    def loop(
        self,
        steps: float,
        jobs: float,
        until_time: float,
        target: float | None,
        evaluate_every: float,
        max_refused: int,
    ) -> Ending:
        """Take what happens one by one, in its order, until the first limit; return which."""
        server, facts, evaluator = self.server, self.facts, self.evaluator
        next_evaluation = self.clock() + evaluate_every
        while True:
            if server.n_steps >= steps:
                return Ending.STEPS
            if facts.n_arrived >= jobs:
                return Ending.JOBS
            if facts.n_refused > max_refused or evaluator.blown_up():
                return Ending.DIVERGED
            if evaluator.reached(target):
                return Ending.TARGET
            if server.n_in_flight == 0 and not self.engine.may_join():
                return Ending.TOO_FEW_WORKERS
            left = until_time - self.clock()
            if left <= 0:
                return Ending.TIME
            event = self.engine.wait(min(left, evaluate_every, 0.5))
            now = self.clock()
            if isinstance(event, Joined):
                self._present[event.worker] = True
                self._join(event.worker, now)
            elif event is not None:
                self._take(event, now)
            if now >= next_evaluation and not evaluator.busy:
                evaluator.ask(server.n_steps, now, server.x)
                next_evaluation = now + evaluate_every
            if self.keeper and self.keeper.due(server.n_steps, now):
                self._save(now)

    def end(self, now: float) -> None:
        """Evaluate and save the last model."""
        self.evaluator.ask(self.server.n_steps, now, self.server.x)
        self.evaluator.close()
        if self.keeper:
            self._save(now)
            self.keeper.close()
            self.facts.failures += self.keeper.failures

    def _take(self, arrival: Arrival, now: float) -> None:
        """Deal with what came of one job."""
        job, gradient, failure = arrival.job, arrival.gradient, arrival.failure
        if arrival.gone:
            self._present[job.worker] = False
        if not self.server.expects(job):
            return  # cancelled or given up in the meantime
        if gradient is not None and not _is_finite(gradient):
            failure = f"worker {job.worker}, draw {job.draw}: the gradient holds NaN or infinity"
            self.facts.n_refused += 1
        if failure:
            if len(self.facts.failures) < _SHOWN:
                self.facts.failures.append(failure)
            self._give_out(self._lose(job, now))
            return
        self.facts.n_arrived += 1
        orders = self.server.arrive(job, gradient, now)
        if self.on_arrival:
            self.on_arrival(job)
        if self.on_step:
            for step in range(self.server.n_steps - orders.n_steps, self.server.n_steps):
                self.on_step(step, now)
        self._give_out(orders)

    def _lose(self, job: Job, now: float) -> Orders:
        """Give a job up; its worker, or another where the method allows, gets one in its place."""
        heir: int | None = None
        n = self.server.n_workers
        if self._present[job.worker]:
            heir = job.worker
        elif self.server.method.any_worker:
            after = ((job.worker + i) % n for i in range(1, n))
            heir = next((worker for worker in after if self._present[worker]), None)
        if heir is None and (self.server.method.any_worker or job.worker not in self.facts.owed):
            self.facts.owed.append(job.worker)
        return self.server.lose(job, now, heir)

    def _join(self, worker: int, now: float) -> None:
        """Give a worker that has come back what could not be given out."""
        owed = self.facts.owed
        if self.server.method.any_worker:
            count = len(owed)
            owed.clear()
        else:
            count = owed.count(worker)
            owed[:] = [other for other in owed if other != worker]
        for _ in range(count):
            self._give_out(self.server.join(worker, now))

    def _give_out(self, orders: Orders) -> None:
        """Hand new jobs to the workers; one for a worker that is gone is lost at once."""
        waiting = list(orders.assigned)
        while waiting:
            job = waiting.pop(0)
            if not self.engine.submit(job, self.server.model(job.read_step)):
                self._present[job.worker] = False
                waiting += self._lose(job, self.clock()).assigned

    def _save(self, now: float) -> None:
        """Have a checkpoint written."""
        if self.keeper:
            self.facts.elapsed = now
            facts: dict[str, Any] = {**vars(self.facts), "evaluations": self.evaluator.done}
            facts = {name: list(v) if isinstance(v, list) else v for name, v in facts.items()}
            self.keeper.save(self.server.n_steps, now, self.server.state(), facts)


def _is_finite(gradient: np.ndarray) -> bool:
    """Say whether no number is NaN or infinite; one pass where that is so."""
    with np.errstate(all="ignore"):
        return math.isfinite(gradient.sum()) or bool(np.isfinite(gradient).all())
