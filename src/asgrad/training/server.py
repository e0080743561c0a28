"""The server of a live run: it carries out a method's decisions, steps, and keeps the journal.

It knows no clock and no workers: it is told what arrived and when, and names the jobs that are to
be given out. What decisions mean is the ledger's business, as in the simulator, and its arithmetic
is that of `replay`: so the trace gives back its model bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from asgrad.errors import AsgradError
from asgrad.kernels import make_ready
from asgrad.methods.base import Method, Opening
from asgrad.moments import latest_of
from asgrad.simulation.arrays import Act
from asgrad.simulation.books import RESERVED, Books, refused_decision
from asgrad.trace import Fate, Tables
from asgrad.training.arithmetic import Arithmetic
from asgrad.training.journal import (
    OVERFLOW,
    WRONG,
    Event,
    Journal,
    Part,
    Told,
    retell,
    tell,
    teller,
)
from asgrad.workers.base import Job

__all__ = ["Orders", "Server"]

_ASSIGNED, _CANCELLED, _ROW, _SHOWN, _STEP, _FINISHED, _APPLIED, _HELD, _CLEARED = map(int, Act)


@dataclass(slots=True)
class Orders:
    """What is to be done after an arrival, in this order."""

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
    works : numpy.ndarray, optional
        As `Books` takes it.
    """

    def __init__(
        self,
        method: Method,
        opening: Opening,
        n_workers: int,
        numbers: Arithmetic,
        works: np.ndarray | None = None,
    ):
        self.method, self.opening, self.n_workers = method, opening, n_workers
        self.journal = Journal()
        self.sends = False
        """Whether gradients take time on their way, of which the workers tell."""
        self._works = works
        self._books = Books(
            opening, n_workers, record=False, works=works, any_worker=method.any_worker
        )
        self._jobs: dict[int, Job] = {}  # by slot: those in flight, and those that wait for a step
        self._numbers = numbers
        make_ready(opening.rule)  # before the run's clock starts
        teller()

    @property
    def n_steps(self) -> int:
        """The steps that have been taken."""
        return self._numbers.n_steps

    @property
    def has_begun(self) -> bool:
        """Whether any job was assigned."""
        return self._books.count("assigned") > 0

    @property
    def n_in_flight(self) -> int:
        """The jobs that are still to arrive."""
        return self._books.count("flying")

    @property
    def waiting(self) -> list[int]:
        """Workers whose next job waits for `assign_waiting`."""
        waiting: list[int] = self._books.ledger.waiting["worker"][
            : self._books.count("n_waiting")
        ].tolist()
        return waiting

    @property
    def all_present(self) -> bool:
        """Whether every worker takes jobs."""
        return not self._books.ledger.presence["away"].any()

    def start(self, now: float) -> Orders:
        """Assign the first jobs."""
        return self._tell(Event.BEGUN, 0, -1, now)

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
        if job.fresh:
            self._tell_of(Event.FORGOT, job.worker, job.row, now)
        job.delivered = True
        ledger = self._books.ledger
        self._note_sending(job, now)
        ledger.out[0] = 0, now, now - job.start_time
        ledger.counts["arriving"] = job.slot
        self.opening.rule(self.opening.state, job.worker, job.read_step, self.n_steps, ledger.out)
        job.arrival_time, job.gradient = now, gradient
        kind = Event.ARRIVED_WITH_OTHERS if more else Event.ARRIVED
        return self._tell(kind, job.worker, job.row, now, job.start_time)

    @property
    def has_alarms(self) -> bool:
        """Whether the method may set alarms."""
        return bool(self._books.ledger.alarms.size)

    @property
    def next_alarm(self) -> float:
        """When the first of the method's alarms is due; infinity where none is set."""
        alarms = self._books.ledger.alarms
        return float(alarms.min()) if alarms.size else math.inf

    def ring(self, now: float) -> Orders:
        """Put the first alarm that is due to the method and carry out what it says."""
        ledger = self._books.ledger
        due = ledger.alarms <= latest_of(ledger.alarms.min(keepdims=True))
        alarm = int(np.flatnonzero(due)[0])  # of one moment, the lowest number
        ledger.out[0] = 0, now, math.nan
        self.opening.rule(self.opening.state, -1 - alarm, -1, self.n_steps, ledger.out)
        return self._tell(Event.RANG, alarm, -1, now)

    def assign_waiting(self, now: float) -> Orders:
        """Assign, at the current model, the jobs that wait since arrivals with `more`."""
        return self._tell_of(Event.ALL_TAKEN, 0, -1, now)

    def expects(self, job: Job) -> bool:
        """Say whether a job is still to arrive: not cancelled, given up, or arrived before."""
        return job.fate == Fate.IN_FLIGHT and math.isnan(job.arrival_time)

    def lose(self, job: Job, now: float) -> Orders:
        """Give a job up whose worker failed; another in its place is given out, or owed."""
        self._note_sending(job, now)
        job.arrival_time = now
        return self._tell_of(Event.LOST, job.worker, job.row, now, job.start_time)

    def leave(self, worker: int, now: float) -> None:
        """Note that a worker takes no more jobs."""
        if not self._books.ledger.presence["away"][worker]:
            self._tell_of(Event.LEFT, worker, -1, now)

    def join(self, worker: int, now: float) -> Orders:
        """Note that a worker takes jobs; it gets at once what is owed to it, or to anyone."""
        return self._tell_of(Event.JOINED, worker, -1, now)

    def unfinished(self) -> list[Job]:
        """Return the jobs that are still to arrive, in the order of their assignment."""
        open_jobs = (job for job in self._jobs.values() if math.isnan(job.arrival_time))
        return sorted(open_jobs, key=lambda job: job.row)

    def state(self) -> dict[str, np.ndarray]:
        """Return the numbers that `restore` needs beside the journal; copies."""
        waiting = [job for job in self._jobs.values() if job.gradient is not None]
        x = self.x
        return {
            "gradient_rows": np.array([job.row for job in waiting], np.int64),
            "gradients": np.array([job.gradient for job in waiting], x.dtype).reshape(-1, *x.shape),
            **self._numbers.arrays(),
        }

    def restore(self, parts: list[Part], state: dict[str, np.ndarray]) -> None:
        """Bring a new server to where journal and numbers were taken.

        The method decides again on all that happened, without any arithmetic; so its own state
        comes back. The numbers are read.

        Raises
        ------
        AsgradError
            If the method decides otherwise than it did then.
        """
        other = AsgradError(
            f"the checkpoint does not fit {self.method.label}: it decides otherwise than it did "
            "when the checkpoint was written."
        )
        books = self._books
        if not retell(books, self.opening, parts, decide=True):
            raise other
        self.journal.read(parts)
        gradients = dict(zip(state["gradient_rows"].tolist(), state["gradients"], strict=True))
        readers = {books.count("steps"): 1}
        for slot in np.flatnonzero(books.is_in_use()).tolist():
            if books.ledger.slots["applied"][slot]:
                continue
            found = books.ledger.slots[slot]
            row, worker, read_step, draw, work = (
                int(found[name]) for name in ("row", "worker", "read_step", "draw", "work")
            )
            job = Job(row, worker, read_step, draw, math.nan, slot=slot, work=work)
            if books.ledger.slots["arrived"][slot]:
                job.arrival_time, job.gradient = 0.0, gradients.pop(job.row, None)
                if job.gradient is None and not self._numbers.sums:
                    raise other
            self._jobs[slot] = job
            readers[job.read_step] = readers.get(job.read_step, 0) + 1
        try:
            self._numbers.restore(state, books.count("steps"), readers)
        except ValueError as error:
            raise other from error

    def tables(self) -> Tables:
        """Return the trace's tables up to now; the run may go on."""
        books = Books(
            self.opening,
            self.n_workers,
            record=True,
            works=self._works,
            any_worker=self.method.any_worker,
            sends=self.sends,
        )
        books.reserve(min(self._books.count("assigned"), RESERVED))
        forgot: list[np.ndarray] = []
        retell(books, self.opening, self._noted(forgot), decide=False)
        tables = books.tables()
        for job in self.unfinished():
            tables.jobs.start_time[job.row] = job.start_time
            if self.sends:
                tables.jobs.finish_time[job.row] = job.finish_time
        if not any(rows.size for rows in forgot):
            return tables
        fresh = np.zeros(tables.n_jobs, np.int8)
        fresh[np.concatenate(forgot)] = 1
        return tables._replace(jobs=tables.jobs._replace(fresh=fresh))

    def _noted(self, forgot: list[np.ndarray]) -> Iterator[Part]:
        """Yield the journal's parts; note the jobs before which their worker had forgotten."""
        for part in self.journal.parts():
            events, _ = part.arrays()
            forgot.append(events["row"][events["kind"] == Event.FORGOT])
            yield part

    def _tell_of(self, *told: Any) -> Orders:
        """Tell the books of an event on which the method does not decide."""
        self._books.ledger.out[0, 0] = 0
        return self._tell(*told)

    def _tell(
        self, kind: Event, worker: int, row: int, now: float, start_time: float = math.nan
    ) -> Orders:
        """Tell the books of an event, and do what follows from it."""
        books = self._books
        told = Told(int(kind), worker, row, now, start_time)
        status = tell(books, self.journal, told)
        if status == WRONG:
            raise AsgradError(refused_decision(type(self.method).__name__, books.ledger))
        if status == OVERFLOW:
            out = books.ledger.out
            raise AsgradError(
                f"{type(self.method).__name__}: at most {out.shape[0] - 1} decisions fit one "
                f"arrival, got {out[0, 0]:.0f}."
            )
        orders, numbers = Orders(), self._numbers
        for act in books.ledger.acts[: books.count("n_acts")].tolist():
            code, slot, entry, weight, flag, work = act
            if code == _APPLIED:
                numbers.apply(self._jobs[slot], weight)
            elif code == _ROW:
                numbers.use(self._jobs[slot], entry, weight, flag)
            elif code == _STEP:
                numbers.step()
                orders.n_steps += 1
            elif code == _FINISHED:
                job = self._jobs.pop(slot)
                job.fate, job.gradient = Fate(flag), None
                numbers.release(job.read_step)
            elif code == _ASSIGNED:
                # Read off the act: the slot may have been given back, and used again, since.
                job = Job(flag, entry, numbers.n_steps, int(weight), now, slot=slot, work=work)
                self._jobs[slot] = job
                numbers.hold(job.read_step)
                orders.assigned.append(job)
            elif code == _HELD:
                numbers.keep(self._jobs[slot], entry, bool(flag))
            elif code == _SHOWN:
                numbers.add_row(entry, weight, flag)
            elif code == _CLEARED:
                numbers.clear(entry)
            elif code == _CANCELLED:
                job = self._jobs[slot]
                job.arrival_time = now
                orders.cancelled.append(job)
        # What was called off at once, or given to a worker that is away, is not given out.
        orders.assigned = [job for job in orders.assigned if job.fate == Fate.IN_FLIGHT]
        if orders.cancelled:
            for job in orders.cancelled:
                self._note_start(job, now)
        return orders

    def _note_start(self, job: Job, now: float) -> None:
        """Write down when a job that was called off had begun; for the server it has not, if not
        by now."""
        self._note_sending(job, now)
        if job.start_time <= now:
            self._tell_of(Event.STARTED, job.worker, job.row, now, job.start_time)

    def _note_sending(self, job: Job, now: float) -> None:
        """Write down when a job's gradient was sent, if that is known and was before now."""
        if self.sends and job.finish_time <= now:
            self._tell_of(Event.SENT, job.worker, job.row, now, job.finish_time)
