"""The server of a live run: it carries out a method's decisions, steps, and writes the trace.

It knows no clock and no workers: an engine tells it what arrived and when, and gives out the jobs
that it names. Its arithmetic is that of `replay`: so the trace that it writes gives back its model
bit for bit.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np

from asgrad.errors import AsgradError
from asgrad.methods import decisions
from asgrad.methods.base import Method, Opening
from asgrad.trace import Contributions, Fate, Jobs
from asgrad.training.arithmetic import Arithmetic
from asgrad.workers.base import Job

__all__ = ["Orders", "Server"]


@dataclass(slots=True)
class _Entry:
    """An entry of the table of held gradients."""

    jobs: list[Job] = field(default_factory=list)
    weight: float = 0.0
    shown: float = 0.0
    """The weight with which it entered the last step."""


class _Event(IntEnum):
    """What the server was told; together with the method this fixes every decision of a run."""

    ARRIVED = 0
    LOST = 1
    JOINED = 2
    ARRIVED_WITH_OTHERS = 3
    ALL_TAKEN = 4


class _Events:
    """What the server was told, in order."""

    def __init__(self) -> None:
        self.kinds, self.rows, self.workers = array("q"), array("q"), array("q")
        self.times = array("d")

    def add(self, kind: _Event, row: int, worker: int, now: float) -> None:
        """Note one event: the job's row and the worker that gets a new job, −1 for none."""
        self.kinds.append(kind)
        self.rows.append(row)
        self.workers.append(worker)
        self.times.append(now)

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the events as columns."""
        return {
            "event_kind": np.array(self.kinds, np.int64),
            "event_row": np.array(self.rows, np.int64),
            "event_worker": np.array(self.workers, np.int64),
            "event_time": np.array(self.times, np.float64),
        }


@dataclass(slots=True)
class Orders:
    """What an engine has to do after an arrival, in this order."""

    cancelled: list[Job] = field(default_factory=list)
    assigned: list[Job] = field(default_factory=list)
    n_steps: int = 0


class Server:
    """The state of a live run.

    Parameters
    ----------
    method : Method
    opening : Opening
        What `method.begin` returned.
    n_workers : int
    numbers : Arithmetic
        The model and its steps, at x_0.
    """

    def __init__(self, method: Method, opening: Opening, n_workers: int, numbers: Arithmetic):
        self.method, self.opening, self.n_workers = method, opening, n_workers
        self.jobs: list[Job] = []
        self.step_times: list[float] = []
        self.n_in_flight = 0
        self.waiting: list[int] = []
        """Workers whose next job waits for `assign_waiting`."""
        self._events = _Events()
        self._rows: list[tuple[int, int, int, int, float]] = []
        self._draws = [0] * n_workers
        self._unfinished: list[list[Job]] = [[] for _ in range(n_workers)]
        self._batch: list[Job] = []
        self._entries = [_Entry() for _ in range(opening.n_entries)]
        self._touched: set[int] = set()
        self._out = opening.decision_table(n_workers)
        self._numbers = numbers

    @property
    def n_steps(self) -> int:
        """The steps that have been taken."""
        return self._numbers.n_steps

    def start(self, now: float) -> Orders:
        """Assign the first jobs."""
        orders = Orders()
        for worker in self.opening.workers.tolist():
            self._assign(worker, now, orders)
        return orders

    def model(self, step: int) -> np.ndarray:
        """Return x_step, of shape (dim, 1); a view that stays valid while a job reads it."""
        return self._numbers.model(step)

    @property
    def x(self) -> np.ndarray:
        """The model now, of shape (dim, 1)."""
        return self.model(self.n_steps)

    def arrive(
        self, job: Job, gradient: np.ndarray | None, now: float, *, more: bool = False
    ) -> Orders:
        """Put an arrived gradient, of shape (dim, 1), to the method and carry out what it says.

        With `more` it is one of several that were waiting: the jobs that the method assigns wait
        for `assign_waiting`, so that they all read the model after the last of these.
        """
        kind = _Event.ARRIVED_WITH_OTHERS if more else _Event.ARRIVED
        self._events.add(kind, job.row, -1, now)
        job.arrival_time, job.gradient = now, gradient
        self._unfinished[job.worker].remove(job)
        self.n_in_flight -= 1
        self._out[0, 0] = 0
        self.opening.rule(self.opening.state, job.worker, job.read_step, self.n_steps, self._out)
        orders = Orders()
        for code, target, weight in self._decisions():
            if code == decisions.APPLY:
                job.weight = weight
                self._batch.append(job)
            elif code == decisions.STEP:
                self._take_step(now)
                orders.n_steps += 1
            elif code == decisions.ASSIGN and more:
                self.waiting.append(target)
            elif code == decisions.ASSIGN:
                self._assign(target, now, orders)
            elif code == decisions.DROP:
                self._finish(job, Fate.DROPPED)
            elif code == decisions.CANCEL:
                for unfinished in self._unfinished[target]:
                    unfinished.arrival_time = now
                    self._finish(unfinished, Fate.CANCELLED)
                    orders.cancelled.append(unfinished)
                    self.n_in_flight -= 1
                self._unfinished[target].clear()
                self.waiting = [worker for worker in self.waiting if worker != target]
            elif code == decisions.HOLD:
                entry = self._entries[target]
                job.since = self.n_steps if entry.weight != 0 else -1
                entry.jobs.append(job)
                self._touched.add(target)
            elif code == decisions.WEIGH:
                self._weigh(target, weight)
            elif code == decisions.CLEAR:
                self._clear(target)
        called_off = {id(job) for job in orders.cancelled}
        orders.assigned = [job for job in orders.assigned if id(job) not in called_off]
        return orders

    def assign_waiting(self, now: float) -> Orders:
        """Assign, at the current model, the jobs that wait since arrivals with `more`."""
        self._events.add(_Event.ALL_TAKEN, -1, -1, now)
        orders = Orders()
        for worker in self.waiting:
            self._assign(worker, now, orders)
        self.waiting = []
        return orders

    def expects(self, job: Job) -> bool:
        """Say whether a job is still to arrive: not cancelled, given up, or arrived before."""
        return job.fate == Fate.IN_FLIGHT and math.isnan(job.arrival_time)

    def lose(self, job: Job, now: float, heir: int | None) -> Orders:
        """Give a job up whose worker failed; `heir`, if any, gets another in its place."""
        self._events.add(_Event.LOST, job.row, -1 if heir is None else heir, now)
        job.arrival_time = now
        self._unfinished[job.worker].remove(job)
        self.n_in_flight -= 1
        self._finish(job, Fate.LOST)
        orders = Orders()
        if heir is not None:
            self._assign(heir, now, orders)
        return orders

    def join(self, worker: int, now: float) -> Orders:
        """Give a job to a worker that has come back."""
        self._events.add(_Event.JOINED, -1, worker, now)
        orders = Orders()
        self._assign(worker, now, orders)
        return orders

    def unfinished(self) -> list[Job]:
        """Return the jobs that are still to arrive, in the order of their assignment."""
        return sorted((job for jobs in self._unfinished for job in jobs), key=lambda job: job.row)

    def state(self) -> dict[str, np.ndarray]:
        """Return copies of all that `restore` needs: what happened, and the numbers."""
        held = (job for entry in self._entries for job in entry.jobs)
        waiting = [job for job in (*self._batch, *held) if job.gradient is not None]
        gradients = [job.gradient for job in waiting]
        x = self.x
        return {
            **self._events.arrays(),
            "start_time": np.array([job.start_time for job in self.jobs]),
            "gradient_rows": np.array([job.row for job in waiting], np.int64),
            "gradients": np.array(gradients, x.dtype).reshape(-1, *x.shape),
            **self._numbers.arrays(),
        }

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Bring a new server to where `state` was taken.

        The method decides again on all that happened, without any arithmetic; so its own state, the
        trace and the fates come back. The numbers are read.

        Raises
        ------
        AsgradError
            If the method decides otherwise than it did then.
        """
        columns = ("event_kind", "event_row", "event_worker", "event_time")
        events = zip(*(state[name].tolist() for name in columns), strict=True)
        other = AsgradError(
            f"the checkpoint does not fit {self.method.label}: it decides otherwise than it did "
            "when the checkpoint was written."
        )
        self._numbers.idle = True
        self.start(0.0)
        try:
            for kind, row, worker, time in events:
                if kind in (_Event.ARRIVED, _Event.ARRIVED_WITH_OTHERS):
                    self.arrive(self.jobs[row], None, time, more=kind != _Event.ARRIVED)
                elif kind == _Event.ALL_TAKEN:
                    self.assign_waiting(time)
                elif kind == _Event.LOST:
                    self.lose(self.jobs[row], time, None if worker < 0 else worker)
                else:
                    self.join(worker, time)
            waiting = [self.jobs[row] for row in state["gradient_rows"].tolist()]
            self._numbers.restore(state)
        except (IndexError, ValueError) as error:
            raise other from error
        self._numbers.idle = False
        if len(self.jobs) != state["start_time"].size:
            raise other
        for job, gradient in zip(waiting, state["gradients"], strict=True):
            job.gradient = gradient
        for job, start_time in zip(self.jobs, state["start_time"].tolist(), strict=True):
            job.start_time = start_time
        for job in self.unfinished():
            job.start_time = math.nan

    def tables(self) -> tuple[Jobs, Contributions, np.ndarray]:
        """Return the trace's tables up to now; the run may go on."""
        rows = list(self._rows)
        for index, entry in enumerate(self._entries):
            rows += self._open_rows(index, entry)
        rows.sort(key=lambda row: (row[2], row[1]))  # stable: by arrival within a step and entry
        names = Jobs._fields
        kinds = (np.int32, np.int64, np.int64, np.float64, np.float64, np.float64, np.int8)
        jobs = Jobs(
            *(
                np.array([getattr(job, name) for job in self.jobs], kind)
                for name, kind in zip(names, kinds, strict=True)
            )
        )
        columns = list(zip(*rows, strict=True)) or [()] * 5
        types = (np.int64, np.int32, np.int64, np.int64, np.float64)
        contributions = Contributions(
            *(np.array(column, kind) for column, kind in zip(columns, types, strict=True))
        )
        # A worker may have begun just when its job was called off; for the server it never did.
        jobs.start_time[jobs.arrival_time < jobs.start_time] = np.nan
        # A gradient that is held and has entered a step counts as applied already.
        jobs.fate[contributions.job] = Fate.APPLIED
        return jobs, contributions, np.array(self.step_times)

    def _decisions(self) -> Iterator[tuple[int, int, float]]:
        """Yield code, target and weight of every decision."""
        for i in range(1, int(self._out[0, 0]) + 1):
            code, target, weight = self._out[i].tolist()
            yield int(code), int(target), weight

    def _assign(self, worker: int, now: float, orders: Orders) -> None:
        """Give a worker a job at the current model."""
        job = Job(len(self.jobs), worker, self.n_steps, self._draws[worker], now)
        self._draws[worker] += 1
        self._numbers.hold(self.n_steps)
        self.jobs.append(job)
        self._unfinished[worker].append(job)
        self.n_in_flight += 1
        orders.assigned.append(job)

    def _finish(self, job: Job, fate: Fate) -> None:
        """Settle a job's fate and let go of the model that it read."""
        job.fate, job.gradient = fate, None
        self._numbers.release(job.read_step)

    def _take_step(self, now: float) -> None:
        """Write the step's rows and take it."""
        step, numbers = self.n_steps, self._numbers
        used = self._batch
        for job in self._batch:
            self._rows.append((job.row, -1, step, step + 1, job.weight))
            numbers.add_row(-1, job.weight, 0, job.worker, job.read_step, job.gradient)
        self._batch = []
        for index in sorted(self._touched):
            used += self._write_entry(index)
        self._touched.clear()
        numbers.step()
        self.step_times.append(now)
        for job in used:
            self._finish(job, Fate.APPLIED)

    def _write_entry(self, index: int) -> list[Job]:
        """Write the rows with which a touched entry enters the step, as `plan_replay` would.

        Returns the jobs whose gradients it uses for the first time.
        """
        entry, step, numbers = self._entries[index], self.n_steps, self._numbers
        starting = [job for job in entry.jobs if entry.weight != 0 and job.since == step]
        used = [job for job in starting if job.fate != Fate.APPLIED]
        if starting:
            carried = any(job.fate == Fate.APPLIED for job in entry.jobs if job.since <= step)
            for job in starting:  # of one that was used before the gradient is gone
                numbers.add_row(
                    index, entry.weight, int(carried), job.worker, job.read_step, job.gradient
                )
        elif entry.shown != 0 and (entry.weight == 0 or not entry.jobs):
            numbers.add_row(index, 0.0, keeps=1)
        entry.shown = entry.weight if entry.jobs else 0.0
        return used

    def _weigh(self, index: int, weight: float) -> None:
        """Change an entry's weight from the coming step on; rows with the old one are closed."""
        entry = self._entries[index]
        self._rows += self._open_rows(index, entry)
        for job in entry.jobs:
            job.since = self.n_steps if weight != 0 else -1
        entry.weight = weight
        self._touched.add(index)

    def _clear(self, index: int) -> None:
        """Empty an entry; a gradient that never entered a step is dropped."""
        self._weigh(index, 0.0)
        entry = self._entries[index]
        for job in entry.jobs:
            if job.fate != Fate.APPLIED:
                self._finish(job, Fate.DROPPED)
        entry.jobs.clear()

    def _open_rows(self, index: int, entry: _Entry) -> list[tuple[int, int, int, int, float]]:
        """Return the rows that the entry's present weight has earned so far."""
        if entry.weight == 0:
            return []
        return [
            (job.row, index, job.since, self.n_steps, entry.weight)
            for job in entry.jobs
            if job.since < self.n_steps
        ]
