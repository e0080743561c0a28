"""The arrays that a ledger is kept in: what stands in each, and the named tuple of all."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numba import typeof

from asgrad.kernels import aligned
from asgrad.times.base import LINK, SERVER_LINK
from asgrad.trace.tables import Contributions, Jobs, empty_table

__all__ = [
    "ABSENCES",
    "ACTS",
    "COUNTS",
    "ENTRIES",
    "LOG",
    "PRESENCE",
    "SLOTS",
    "TRANSIT",
    "WAITING",
    "WORKERS",
    "Act",
    "Ledger",
    "larger",
    "ledger_type",
]

SLOTS = np.dtype(
    [
        ("worker", np.int32),
        ("work", np.int16),
        ("arrived", np.int8),
        ("applied", np.int8),
        ("row", np.int64),  # of the trace's jobs
        ("read_step", np.int64),
        ("draw", np.int64),
        ("start_time", np.float64),
        ("link", np.int64),  # next slot of the list that the job is in; -1 at its end
        ("since", np.int64),  # held job: from which step its present weight counts; -1: none yet
        ("weight", np.float64),  # job in the batch: its weight
    ]
)
WORKERS = np.dtype(
    [
        ("running", np.int64),  # slot of the job in work, -1 for none
        ("head", np.int64),  # first and last slot of the queue, -1 for none
        ("tail", np.int64),
        ("draws", np.int64),  # gradients assigned so far
        # Running sums over the worker's jobs, for a summary where no trace is recorded.
        ("applied", np.int64),
        ("delay", np.int64),
        ("busy", np.float64),
        ("remainder", np.float64),  # what rounding took from the moment at which it finishes
    ]
)
# Jobs whose assignment waits until all that has arrived is dealt with.
WAITING = np.dtype([("worker", np.int64), ("work", np.int64)])
# Who can be given jobs, in a run in which workers come and go: whether one is away; the work of the
# job that is owed to it; the row of its absence; whether its encoder has forgotten since.
PRESENCE = np.dtype([(name, np.int64) for name in ("away", "owed", "row", "forgot")])
# When workers were away; the row of one that is, is not ended yet.
ABSENCES = np.dtype([("worker", np.int64), ("begin", np.float64), ("end", np.float64)])
# Of a job by its slot, where messages take time: when its model is there, and its gradient is; NaN
# until it is sent.
TRANSIT = np.dtype([("ready", np.float64), ("delivered", np.float64)])
# When each job arrived, in the order of arrival; entered into the trace's jobs at the end, because
# a million workers' jobs lie far apart in memory.
LOG = np.dtype([("row", np.int64), ("time", np.float64)])
# The server's table of held gradients: lists of slots, and the weight of each. In a live run also
# whether it was changed since the last step, the weight with which it entered that, and whether
# any step has used what it holds.
ENTRIES = np.dtype(
    [
        ("head", np.int64),
        ("tail", np.int64),
        ("weight", np.float64),
        ("touched", np.int64),
        ("shown", np.float64),
        ("used", np.int64),
    ]
)
COUNTS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("steps", "assigned", "arrived", "rows", "flying", "started", "dropped", "cancelled"),
            "lost",
            *("pending", "arriving"),  # decisions wait to be carried out; whose, -1 at the start
            *("free", "n_free"),  # list of free slots
            *("batch_head", "batch_tail"),  # jobs applied to the coming step
            "kept",  # jobs in the batch and in entries
            *("max_flying", "max_delay"),
            *("worker", "draw"),  # of a job whose time is bad
            "standing",  # arrivals since the last step or the last passing of time
            "needed_rows",  # how many contributions there must be room for
            *("n_starting", "n_waiting", "n_acts", "n_absences", "n_alarmed"),  # in these arrays
            "owed",  # jobs that could not be given out again to anyone
            "any_worker",  # whether a job whose worker is gone may be given to any other
            "n_away",
            "heir",  # whose turn it is to take over a job of a worker that is gone
            "n_orphans",  # jobs in the hands of a worker that is about to go
            "alarm",  # that has gone off
            "trusted",  # whether what the rule decides need not be looked at
        )
    ]
)


class Act(IntEnum):
    """What the driver of a live ledger has to do, in this order; an act's `code`."""

    ASSIGNED = 1
    """Give the job in `slot` to worker `entry`: it is row `flag` of the trace, draw `weight`."""
    CANCELLED = 2
    """Call off the job in `slot`."""
    ROW = 3
    """The gradient of the job in `slot` enters the coming step, with `weight`. In a table its
    entry's gradients stay if `flag` is 1, and leave before it is added if not."""
    SHOWN = 4
    """Likewise, of a gradient that its entry has already (slot −1: of all that it has)."""
    STEP = 5
    """Take the step of which the rows have been told."""
    FINISHED = 6
    """The fate of the job in `slot` is settled: it is `flag`."""
    APPLIED = 7
    """The arrived gradient of the job in `slot` waits for the coming step, with `weight`."""
    HELD = 8
    """It is added to `entry`; `flag` is 1 if a step has used others that the entry holds."""
    CLEARED = 9
    """`entry` is emptied."""


ACTS = np.dtype(
    [
        ("code", np.int64),
        ("slot", np.int64),
        ("entry", np.int64),
        ("weight", np.float64),
        ("flag", np.int64),
        ("work", np.int64),  # of a job that is given out
    ]
)


class Ledger(NamedTuple):
    """The arrays of a ledger."""

    counts: np.ndarray
    """COUNTS, one element."""
    slots: np.ndarray
    workers: np.ndarray
    entries: np.ndarray
    presence: np.ndarray
    limits: np.ndarray
    """int64, by the code of a decision: below which number what it names lies."""
    out: np.ndarray
    """float64 of shape (n, 3): the decisions that are to be carried out."""
    starting: np.ndarray
    """int64: workers that may have to start a job, in the order of starting."""
    waiting: np.ndarray
    works: np.ndarray
    """int16, how many gradients a job of each worker is made of unless it is said; empty: one."""
    alarms: np.ndarray
    """float64: when each of the method's alarms is due; infinity: it is not set."""
    alarmed: np.ndarray
    """int64: the alarms that the decisions have set or taken back."""
    links: np.ndarray
    """LINK, one a worker; empty where messages take no time, as for a live ledger."""
    server: np.ndarray
    """SERVER_LINK, one element."""
    transit: np.ndarray
    absences: np.ndarray
    acts: np.ndarray
    jobs: Jobs
    rows: Contributions
    step_times: np.ndarray
    log: np.ndarray


def larger(array: np.ndarray, size: int) -> np.ndarray:
    """Return a copy with room for at least `size` elements, at least twice what it had."""
    if array.size >= size:
        return array
    grown = aligned(max(size, 2 * array.size, 1024), array.dtype)
    grown[: array.size] = array
    return grown


def ledger_type() -> Any:
    """Return the type that compiled functions take a ledger as."""
    kinds: dict[str, Any] = {
        "counts": COUNTS,
        "slots": SLOTS,
        "workers": WORKERS,
        "entries": ENTRIES,
        "presence": PRESENCE,
        "limits": np.int64,
        "starting": np.int64,
        "waiting": WAITING,
        "works": np.int16,
        "alarms": np.float64,
        "alarmed": np.int64,
        "links": LINK,
        "server": SERVER_LINK,
        "transit": TRANSIT,
        "absences": ABSENCES,
        "acts": ACTS,
        "step_times": np.float64,
        "log": LOG,
    }
    columns: dict[str, Any] = {name: np.zeros(1, kind) for name, kind in kinds.items()}
    columns |= {"jobs": empty_table(Jobs, 1), "rows": empty_table(Contributions, 1)}
    return typeof(Ledger(out=np.zeros((1, 3)), **columns))
