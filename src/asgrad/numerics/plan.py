"""What a replay does, worked out from the trace alone before any gradient is computed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from asgrad.kernels import compiled
from asgrad.trace import Fate, Trace

__all__ = ["Plan", "plan_replay"]


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
    """int64: 1 if the job's gradient is computed here, 0 if its entry has it already."""
    keeps: np.ndarray
    """int64: 1 if the entry's gradients stay when this row's are added, 0 if they leave."""
    worker: np.ndarray
    """int64."""
    read_step: np.ndarray
    """int64."""
    draw: np.ndarray
    """int64."""
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


def plan_replay(trace: Trace, evaluated: np.ndarray) -> tuple[Plan, int, int]:
    """Return the plan of a replay, the number of model versions it keeps, and of table entries."""
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
    }
    if n_entries:
        columns = _with_table(columns, rows.end_step, n_steps)
    first = columns.pop("first")

    last_use = np.arange(n_steps + 1)
    used = columns["computes"] == 1
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


def count_gradients(trace: Trace, steps: np.ndarray) -> np.ndarray:
    """Return how many gradients had arrived when each of these models came to be.

    Counted by order of arrival: a step in the middle of a moment leaves out what comes after it.
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
    return np.append(0, np.maximum.accumulate(counts))[steps]


def model_times(trace: Trace, steps: np.ndarray) -> np.ndarray:
    """Return the moment at which each x_s came to be: 0 for x_0, else the time of step s − 1."""
    return np.append(0.0, trace.step_times)[steps]
