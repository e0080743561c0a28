"""What a replay does, worked out from the trace alone before any gradient is computed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from asgrad.errors import TraceError
from asgrad.kernels import compiled
from asgrad.trace import Fate, Trace

__all__ = ["SEEN", "USED", "Plan", "plan_replay"]

USED, SEEN = 1, 2


class Plan(NamedTuple):
    """The rows of the trace in the order of their work, and where each model version is kept.

    Row columns have one element a contribution; a row without a job says that a table entry leaves.
    """

    first_row: np.ndarray
    """int64 of shape (n_steps + 1,): step s uses rows first_row[s] <= row < first_row[s + 1]."""
    entry: np.ndarray
    """int64: table entry, −1 for a single step."""
    weight: np.ndarray
    """float64."""
    computes: np.ndarray
    """int64: 0 if the entry has the job's gradient already, USED if it is computed here, SEEN if it
    is only for what its worker's encoder remembers: it was delivered, and no step uses it."""
    keeps: np.ndarray
    """int64: 1 if the entry's gradients stay when this row's are added, 0 if they leave."""
    worker: np.ndarray
    """int64."""
    read_step: np.ndarray
    """int64."""
    draw: np.ndarray
    """int64."""
    work: np.ndarray
    """int64: of how many gradients the job is made."""
    fresh: np.ndarray
    """int64: 1 if its worker had forgotten, before it, what its encoder remembered."""
    slot: np.ndarray
    """int64 of shape (n_steps + 1,): the slot that holds x_s while a job may still read it."""
    evaluated: np.ndarray
    """int64: the steps whose models are evaluated, rising."""


@compiled(types.int64(types.int64[::1], types.int64[::1], types.int64[::1]))
def _assign_slots(last_use, slot, chain):
    """Give x_s the slot of a version that no later step uses, else a new one; return their number.

    `chain` is working space of the same length as `last_use`, filled with −1: lists of the versions
    by last use.
    """
    n = last_use.size
    heads, following = chain[:n], chain[n : 2 * n]
    free = chain[2 * n :]
    n_free, n_slots = 0, 0
    for s in range(n):
        if s > 0:  # versions last used by step s − 1 give up their slots before x_s is stored
            version = heads[s - 1]
            while version >= 0:
                free[n_free] = slot[version]
                n_free += 1
                version = following[version]
        if n_free > 0:
            n_free -= 1
            slot[s] = free[n_free]
        else:
            slot[s] = n_slots
            n_slots += 1
        following[s] = heads[last_use[s]]
        heads[last_use[s]] = s
    return n_slots


def plan_replay(
    trace: Trace, evaluated: np.ndarray, *, remembers: bool = False
) -> tuple[Plan, int, int]:
    """Return the plan of a replay, the number of model versions it keeps, and of table entries.

    With `remembers` there are also rows of what was delivered and no step uses.
    """
    rows, jobs, n_steps = trace.contributions, trace.jobs, trace.n_steps
    computes = rows.first_step == trace.first_steps[rows.job]
    entries = np.unique(rows.entry[rows.entry >= 0])
    n_entries = entries.size
    entry = np.where(rows.entry >= 0, np.searchsorted(entries, rows.entry), -1)
    columns = {
        "first": rows.first_step,
        "entry": entry.astype(np.int64),
        "weight": rows.weight,
        "computes": computes.astype(np.int64),
        "keeps": np.zeros(computes.size, np.int64),
        "worker": jobs.worker[rows.job].astype(np.int64),
        "read_step": jobs.read_step[rows.job],
        "draw": jobs.draw[rows.job],
        "work": jobs.work[rows.job].astype(np.int64),
        "fresh": jobs.fresh[rows.job].astype(np.int64),
    }
    if n_entries:
        columns = _with_table(columns, rows.end_step, n_steps)
    if remembers:
        columns = _with_unused(columns, trace)
    first = columns.pop("first")

    last_use = np.arange(n_steps + 1)
    used = columns["computes"] != 0
    # Rows are sorted by step, and of equal indices the last assignment stays: the latest use.
    last_use[columns["read_step"][used]] = first[used]
    slot = np.empty(n_steps + 1, np.int64)
    n_slots = int(_assign_slots(last_use, slot, np.full(3 * (n_steps + 1), -1)))
    first_row = np.searchsorted(first, np.arange(n_steps + 1))
    return Plan(first_row=first_row, slot=slot, evaluated=evaluated, **columns), n_slots, n_entries


def _with_table(
    columns: dict[str, np.ndarray], end: np.ndarray, n_steps: int
) -> dict[str, np.ndarray]:
    """Sort rows by step and entry, mark where an entry starts anew, add rows where one leaves."""
    order = np.lexsort((columns["first"], columns["entry"]))
    columns = {name: column[order] for name, column in columns.items()}
    entry, first = columns["entry"], columns["first"]
    # The latest end so far within each entry; the offset separates entries.
    offset = (entry + 1) * (n_steps + 1)
    until = np.maximum.accumulate(end[order] + offset) - offset
    same_entry = np.append(entry[1:] == entry[:-1], False)
    following = np.append(first[1:], 0)

    leaves = (entry >= 0) & (until < n_steps) & ~(same_entry & (following <= until))
    starts = np.append(True, (entry[1:] != entry[:-1]) | (first[1:] != first[:-1]))
    group = np.cumsum(starts) - 1
    before = np.append(-1, np.where(same_entry[:-1], until[:-1], -1))
    carried = np.bincount(group, weights=columns["computes"] == 0) > 0
    columns["keeps"] = ((before > first)[starts] | carried)[group].astype(np.int64)

    gone = {name: np.zeros(int(leaves.sum()), column.dtype) for name, column in columns.items()}
    gone["first"], gone["entry"] = until[leaves], entry[leaves]
    gone["keeps"][:] = 1  # a weight of 0 may be followed by another: only a new start empties
    columns = {name: np.append(column, gone[name]) for name, column in columns.items()}
    order = np.lexsort((columns["entry"], columns["first"]))
    return {name: column[order] for name, column in columns.items()}


def _with_unused(columns: dict[str, np.ndarray], trace: Trace) -> dict[str, np.ndarray]:
    """Add rows of what was delivered and no step uses, each at its place among its worker's.

    A worker delivers its jobs in the order of their draws. A row stands at the step that came next
    when its job arrived, or later, if earlier draws do; in the step before the worker's next row
    that enters it once, else after all those and before what enters a table.
    """
    jobs, n_steps, n_rows = trace.jobs, trace.n_steps, columns["first"].size
    came = np.isin(jobs.fate, (Fate.DROPPED, Fate.IN_FLIGHT)) & ~np.isnan(jobs.arrival_time)
    unused = np.flatnonzero(came)
    coming = np.searchsorted(trace.step_times, jobs.arrival_time[unused], side="left")
    extra = {name: np.zeros(unused.size, column.dtype) for name, column in columns.items()}
    extra["first"][:] = np.maximum(coming, jobs.read_step[unused])
    extra["entry"][:] = -1
    extra["computes"][:] = SEEN
    for name in ("worker", "read_step", "draw", "work", "fresh"):
        extra[name][:] = getattr(jobs, name)[unused]
    columns = {name: np.append(column, extra[name]) for name, column in columns.items()}

    seen = np.flatnonzero(columns["computes"] != 0)
    seen = seen[np.lexsort((columns["draw"][seen], columns["worker"][seen]))]
    worker, step = columns["worker"][seen], columns["first"][seen]
    added, held = seen >= n_rows, columns["entry"][seen] >= 0
    # What comes after a row of a table, which stands behind all others, goes into the next step.
    offset = worker * (n_steps + 2)
    step[added] = (np.maximum.accumulate(step + held + offset) - offset)[added]
    columns["first"][seen[added]] = step[added]

    # Backwards: the row before which each stands, which is its worker's next in the same step.
    before = np.append(np.arange(n_rows), np.full(unused.size, n_rows))
    place = n_rows
    for i in np.flatnonzero(added)[::-1].tolist():
        follows = i + 1 < seen.size and worker[i + 1] == worker[i] and step[i + 1] == step[i]
        place = int(before[seen[i + 1]]) if follows and not held[i + 1] else n_rows
        before[seen[i]] = place
    own = np.arange(before.size) < n_rows
    keys = (columns["draw"], own, before, columns["entry"] >= 0, columns["first"])
    order = np.lexsort(keys)
    order = order[columns["first"][order] < n_steps]
    columns = {name: column[order] for name, column in columns.items()}
    _check_order(columns)
    return columns


def _check_order(columns: dict[str, np.ndarray]) -> None:
    """Refuse what would have a worker's encoder see its gradients in another order than it did."""
    seen = columns["computes"] != 0
    order = np.argsort(columns["worker"][seen], kind="stable")
    worker, draw = columns["worker"][seen][order], columns["draw"][seen][order]
    bad = np.flatnonzero((worker[1:] == worker[:-1]) & (draw[1:] < draw[:-1]))
    if bad.size:
        raise TraceError(
            "replay: a recipe whose encoder remembers needs each worker's gradients to enter steps "
            f"in the order in which it delivered them, but of worker {worker[bad[0]]} draw "
            f"{draw[bad[0]]} does before draw {draw[bad[0] + 1]}; leave out what the encoder "
            "remembers (feedback), or take another method."
        )


def count_gradients(trace: Trace, steps: np.ndarray) -> np.ndarray:
    """Return how many gradients had arrived when each of these models came to be.

    Counted by order of arrival: a step in the middle of a moment leaves out what comes after it. A
    job counts as often as it has gradients.
    """
    jobs, rows = trace.jobs, trace.contributions
    fates = (Fate.APPLIED, Fate.DROPPED, Fate.IN_FLIGHT)
    came = np.flatnonzero(np.isin(jobs.fate, fates) & ~np.isnan(jobs.arrival_time))
    # What waits for a step that was not taken came after all steps; not so what a table holds.
    last = (jobs.fate[came] == Fate.IN_FLIGHT) & bool((rows.entry < 0).all())
    order = came[np.lexsort((jobs.start_time[came], last, jobs.arrival_time[came]))]
    place = np.zeros(trace.n_jobs, np.int64)
    place[order] = np.arange(1, order.size + 1)
    # Jobs may start at one moment in another order than that of their assignment, if some waited in
    # a queue. But gradients that are applied enter the next step, so their rows tell the order.
    applied = rows.job[rows.entry < 0]
    place[applied] = np.sort(place[applied])
    # Before a step come all the gradients in it, and whatever arrived at an earlier moment.
    counts = np.searchsorted(jobs.arrival_time[order], trace.step_times, side="left")
    np.maximum.at(counts, rows.first_step, place[rows.job])
    gradients = np.append(0, np.cumsum(jobs.work[order], dtype=np.int64))
    return gradients[np.append(0, np.maximum.accumulate(counts))[steps]]


def model_times(trace: Trace, steps: np.ndarray) -> np.ndarray:
    """Return the moment at which each x_s came to be: 0 for x_0, else the time of step s − 1."""
    return np.append(0.0, trace.step_times)[steps]
