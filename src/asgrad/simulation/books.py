"""A ledger that grows, and what is read off it in the end."""

from __future__ import annotations

import numpy as np

from asgrad.kernels import aligned
from asgrad.machine import check_memory
from asgrad.methods.base import Opening
from asgrad.methods.decisions import (
    ALARM,
    APPLY,
    ASSIGN,
    CANCEL,
    CLEAR,
    DROP,
    HOLD,
    RESTART,
    STEP,
    WEIGH,
)
from asgrad.simulation.arrays import (
    ABSENCES,
    ACTS,
    COUNTS,
    ENTRIES,
    LOG,
    PRESENCE,
    SLOTS,
    TRANSIT,
    WAITING,
    WORKERS,
    Ledger,
    larger,
)
from asgrad.simulation.events import close_entries
from asgrad.simulation.ledger import n_acts_at_most, wrong_decision
from asgrad.times.base import LINK, SERVER_LINK
from asgrad.trace import Contributions, Fate, Jobs, Tables
from asgrad.trace.tables import Absences, completed, empty_table

__all__ = ["RESERVED", "Books", "refused_decision"]

RESERVED = 1 << 25  # the most jobs that memory is reserved for before they come up


class Books:
    """The ledger of one run; its arrays are replaced as they grow.

    Parameters
    ----------
    opening : Opening
        What the method's `begin` returned. Its first jobs stand in `out`, to be carried out.
    n_workers : int
    record : bool
        Whether the tables of a trace are written.
    works : numpy.ndarray, optional
        int16 of shape (n_workers,): how many gradients a job is made of unless the method says; by
        default one.
    any_worker : bool
        Whether a job whose worker is gone may be given to any other.
    links, server : numpy.ndarray, optional
        As `Clock` has them, where messages take time.
    sends : bool
        Whether it is told when gradients were sent.
    forgets : bool
        Whether workers go, and forget what their encoders remembered.
    """

    def __init__(
        self,
        opening: Opening,
        n_workers: int,
        record: bool,
        *,
        works: np.ndarray | None = None,
        any_worker: bool = False,
        links: np.ndarray | None = None,
        server: np.ndarray | None = None,
        sends: bool = False,
        forgets: bool = False,
    ):
        self.record = record
        self.insist = False
        """Whether memory may run out."""
        counts = np.zeros(1, COUNTS)
        for name in ("free", "batch_head", "batch_tail", "arriving"):
            counts[name] = -1
        counts["any_worker"] = any_worker
        rule = getattr(opening.rule, "py_func", opening.rule)
        counts["trusted"] = str(rule.__module__).startswith("asgrad.methods.")
        # One that is not looked after may say so without a word of it in its opening.
        self.varies_work = works is not None or opening.says_work or not counts["trusted"][0]
        self.has_links = links is not None and links.size > 0
        self.sends, self.forgets = sends or self.has_links, forgets
        idle = np.zeros(1, WORKERS)
        for name in ("running", "head", "tail"):
            idle[name] = -1
        workers = aligned(n_workers, WORKERS)
        workers[:] = idle
        entries = np.zeros(opening.n_entries, ENTRIES)
        entries["head"] = -1
        out = opening.decision_table(n_workers)
        first = opening.workers
        out[0, 0] = first.size
        out[1 : first.size + 1, 0] = ASSIGN
        out[1 : first.size + 1, 1] = first
        out[1 : first.size + 1, 2] = opening.work
        self.ledger = Ledger(
            counts=counts,
            slots=np.empty(0, SLOTS),
            workers=workers,
            entries=entries,
            presence=np.zeros(n_workers, PRESENCE),
            limits=_limits(n_workers, opening),
            out=out,
            starting=np.empty(out.shape[0] + 2, np.int64),
            waiting=np.empty(0, WAITING),
            works=np.empty(0, np.int16) if works is None else works,
            alarms=opening.alarms.copy(),
            alarmed=np.empty(out.shape[0], np.int64),
            links=np.empty(0, LINK) if links is None else links,
            server=np.zeros(1, SERVER_LINK) if server is None else server,
            transit=np.empty(0, TRANSIT),
            absences=np.empty(0, ABSENCES),
            acts=np.empty(0, ACTS),
            jobs=empty_table(Jobs, 0),
            rows=empty_table(Contributions, 0),
            step_times=np.empty(0),
            log=np.empty(0, LOG),
        )

    def count(self, name: str) -> int:
        """Return one of the ledger's counters."""
        return int(self.ledger.counts[name][0])

    def reserve(self, n_jobs: int) -> None:
        """Make room in the trace in advance; memory that is never written costs nothing."""
        size = n_jobs + 2 * self.ledger.workers.size + 16
        self.ledger = self.ledger._replace(
            jobs=self._jobs(size),
            rows=empty_table(Contributions, size),
            step_times=np.empty(size),
            log=np.empty(size, LOG),
        )

    def _jobs(self, size: int) -> Jobs:
        """Return an empty table of jobs, with the optional columns that this run fills."""
        jobs = empty_table(Jobs, size)
        if self.varies_work:
            jobs = jobs._replace(work=np.empty(size, np.int32))
        if self.forgets:
            jobs = jobs._replace(fresh=np.empty(size, np.int8))
        if self.sends:
            jobs = jobs._replace(finish_time=np.empty(size))
        return jobs

    def grow(self) -> None:
        """Make room for the decisions that wait to be carried out."""
        ledger = self.ledger
        decided = int(ledger.out[0, 0])
        coming = 1 + decided + sum(map(self.count, ("n_waiting", "owed", "n_orphans")))
        if self.count("n_free") < coming:
            self._add_slots(coming + 1024)
        waiting = larger(ledger.waiting, coming)
        self.ledger = self.ledger._replace(
            waiting=waiting,
            starting=larger(ledger.starting, coming + ledger.out.shape[0] + 2),
        )
        if self.record:
            self._grow_tables(coming)

    def grow_acts(self) -> None:
        """Make room for what the driver of a live ledger is to do."""
        steps = int((self.ledger.out[1 : int(self.ledger.out[0, 0]) + 1, 0] == STEP).sum())
        needed = n_acts_at_most.py_func(self.ledger, steps)
        self.ledger = self.ledger._replace(acts=larger(self.ledger.acts, int(needed)))

    def _add_slots(self, n: int) -> None:
        """Add free slots."""
        old = self.ledger.slots.size
        slots = larger(self.ledger.slots, old + n)
        links = slots["link"][old:]
        links[:-1] = np.arange(old + 1, slots.size)
        links[-1] = self.count("free")
        self.ledger.counts["free"] = old
        self.ledger.counts["n_free"] += links.size
        self.ledger = self.ledger._replace(slots=slots)
        if self.has_links:
            transit = larger(self.ledger.transit, slots.size)
            self.ledger = self.ledger._replace(transit=transit)

    def _grow_tables(self, coming: int) -> None:
        """Make room in the tables of the trace."""
        ledger = self.ledger
        n_jobs = self.count("assigned") + 2 * coming
        n_rows = max(self.count("needed_rows"), self.count("rows") + self.count("kept"))
        if self.count("rows") > RESERVED and not self.insist:
            check_memory("simulate", "a trace of as many jobs again", 105 * n_rows)
        self.ledger = ledger._replace(
            jobs=Jobs._make(
                larger(column, n_jobs) if wanted.size else column
                for column, wanted in zip(ledger.jobs, self._jobs(1), strict=True)
            ),
            rows=Contributions(*(larger(column, n_rows) for column in ledger.rows)),
            step_times=larger(ledger.step_times, self.count("steps") + coming),
            log=larger(ledger.log, self.count("arrived") + 1),
            absences=larger(ledger.absences, self.count("n_absences") + 1),
        )

    def close(self) -> None:
        """Write the rows of the gradients that are still held; the run is at its end."""
        if self.ledger.entries.size:
            self.ledger.out[0, 0] = 0
            if self.record:
                self.grow()
            close_entries(self.ledger, self.record)

    def tables(self) -> Tables:
        """Return what was recorded; an entry still in use counts to the last step."""
        self.close()
        ledger = self.ledger
        n_jobs, n_rows = self.count("assigned"), self.count("rows")
        rows = Contributions(*(column[:n_rows] for column in ledger.rows))
        if ledger.entries.size:
            order = np.lexsort((rows.entry, rows.first_step))
            for column in rows:  # in place: a second table would take as much again
                column[:] = column[order]
        arrived = ledger.log[: self.count("arrived")]
        ledger.jobs.arrival_time[arrived["row"]] = arrived["time"]
        ledger.jobs.fate[rows.job] = Fate.APPLIED
        return Tables(
            completed(Jobs._make(column[:n_jobs] for column in ledger.jobs)),
            rows,
            ledger.step_times[: self.count("steps")],
            self._absences(),
        )

    def _absences(self) -> Absences:
        """Return when workers were away."""
        rows = self.ledger.absences[: self.count("n_absences")]
        return Absences(rows["worker"].astype(np.int32), rows["begin"].copy(), rows["end"].copy())

    def is_in_use(self) -> np.ndarray:
        """Return for every slot whether it holds a job whose story is not over."""
        used = np.ones(self.ledger.slots.size, bool)
        slot = self.count("free")
        while slot >= 0:
            used[slot] = False
            slot = int(self.ledger.slots["link"][slot])
        return used


def _limits(n_workers: int, opening: Opening) -> np.ndarray:
    """Return below which number lies what a decision names, by its code."""
    limits = np.zeros(ALARM + 1, np.int64)
    limits[[APPLY, DROP, STEP]] = 1
    limits[[ASSIGN, CANCEL, RESTART]] = n_workers
    limits[[HOLD, WEIGH, CLEAR]] = opening.n_entries
    limits[ALARM] = opening.alarms.size
    return limits


def refused_decision(owner: str, ledger: Ledger) -> str:
    """Return in words what is wrong with the decisions that stand in `out`."""
    place, out = int(wrong_decision.py_func(ledger)), ledger.out
    if place > int(out[0, 0]):
        if ledger.counts["arriving"][0] < 0:
            return f"{owner}: when an alarm goes off there is no gradient to apply, hold or drop."
        return f"{owner}: of a gradient that arrives exactly one of apply, hold and drop is said."
    code, target = int(out[place, 0]), int(out[place, 1])
    if code in (HOLD, WEIGH, CLEAR):
        what, most = "an entry", ledger.entries.size
    elif code == ALARM:
        what, most = "an alarm", ledger.alarms.size
    else:
        what, most = "a worker", ledger.workers.size
    said = f"in [0, {most - 1}]" if most else "one that its opening has, which has none"
    return f"{owner}: {what} must be {said}, got {target}."
