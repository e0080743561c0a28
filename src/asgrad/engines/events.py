"""The event loop of the simulator: virtual time, compiled, no gradient.

The loop's source is also run as plain Python (`run.py_func`) when a method or the worker times are
plain Python classes: one loop, two speeds.

A job lives in a slot from its assignment until its fate is settled; then the slot is used again.
`link` chains slots into lists: a worker's queue, the batch of the coming step, an entry of the
table, the free slots. If the run is recorded, what happens to a job is also written to the tables
of the trace.
"""

from __future__ import annotations

import numpy as np
from numba import typeof, types

from asgrad.kernels import compiled, inlined
from asgrad.methods.base import RULE
from asgrad.methods.decisions import APPLY, ASSIGN, CANCEL, CLEAR, DROP, HOLD, STEP, WEIGH
from asgrad.times.base import SECONDS
from asgrad.trace.tables import Contributions, Fate, Jobs, empty_table

__all__ = ["COUNTS", "ENTRIES", "SLOTS", "TALLY", "TREE", "WORKERS", "close_entries", "run"]

# What a call of the loop ends with.
GROW, PAUSE, STEPS, JOBS, TIME, STALLED, BAD_TIME, STANDSTILL, OVERFLOW = range(9)
UNLIMITED = 2**62

_IN_FLIGHT = int(Fate.IN_FLIGHT)
_APPLIED = int(Fate.APPLIED)
_DROPPED = int(Fate.DROPPED)
_CANCELLED = int(Fate.CANCELLED)
_INFINITE = np.inf


SLOTS = np.dtype(
    [
        ("worker", np.int32),
        ("arrived", np.int16),
        ("applied", np.int16),
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
        ("draws", np.int64),  # jobs assigned so far
        ("order", np.int64),  # when the running job started, counted in starts; settles ties
    ]
)
# A tournament over the moments at which the workers finish: the workers are the leaves, node i > 0
# holds the earliest of its children 2i and 2i + 1. A leaf's path to the root is known in advance,
# so its cache misses overlap even with a million workers.
TREE = np.dtype([("finish", np.float64), ("winner", np.int64)])
# The server's table of held gradients: lists of slots, and the weight of each.
ENTRIES = np.dtype([("head", np.int64), ("tail", np.int64), ("weight", np.float64)])
# Running sums over each worker's jobs, for a summary where no trace is recorded.
TALLY = np.dtype([("applied", np.int64), ("delay", np.int64), ("busy", np.float64)])
COUNTS = np.dtype(
    [
        (name, np.int64)
        for name in (
            *("steps", "assigned", "arrived", "rows", "flying", "started", "dropped", "cancelled"),
            *("pending", "arriving"),  # decisions wait to be carried out; whose, -1 at the start
            *("free", "n_free"),  # list of free slots
            *("batch_head", "batch_tail"),  # jobs applied to the coming step
            "kept",  # jobs in the batch and in entries
            *("max_flying", "max_delay"),
            "worker",  # whose time is bad
            "standing",  # arrivals since the last step or the last passing of time
            "needed_rows",  # how many contributions there must be room for
        )
    ]
)


@inlined
def _reschedule(workers, tree, worker, time):
    """Set the moment at which `worker` finishes (infinity: never) and replay its matches."""
    node = tree.size // 2 + worker
    best = worker
    tree[node]["finish"] = time
    while node > 1:
        rival = tree[node ^ 1]["finish"]
        contender = tree[node ^ 1]["winner"]
        wins = rival < time
        if rival == time:
            wins = workers[contender]["order"] < workers[best]["order"]
        # Selections instead of a branch: who wins cannot be predicted.
        best = contender if wins else best
        time = min(time, rival)
        node >>= 1
        tree[node]["finish"] = time
        tree[node]["winner"] = best


@inlined
def _free_slot(counts, slots, slot):
    """Give back the slot of a job whose fate is settled."""
    slots[slot]["link"] = counts[0]["free"]
    counts[0]["free"] = slot
    counts[0]["n_free"] += 1


@inlined
def _assign(counts, slots, jobs, workers, record, worker, now):
    """Append a job at the current model to a worker's queue."""
    slot = counts[0]["free"]
    counts[0]["free"] = slots[slot]["link"]
    counts[0]["n_free"] -= 1
    row = counts[0]["assigned"]
    draw = workers[worker]["draws"]
    slots[slot]["worker"] = worker
    slots[slot]["row"] = row
    slots[slot]["read_step"] = counts[0]["steps"]
    slots[slot]["draw"] = draw
    slots[slot]["arrived"] = 0
    slots[slot]["applied"] = 0
    slots[slot]["start_time"] = np.nan
    slots[slot]["link"] = -1
    if record:
        jobs.worker[row] = worker
        jobs.read_step[row] = counts[0]["steps"]
        jobs.draw[row] = draw
        jobs.assign_time[row] = now
        jobs.start_time[row] = np.nan
        jobs.arrival_time[row] = np.nan
        jobs.fate[row] = _IN_FLIGHT
    if workers[worker]["head"] < 0:
        workers[worker]["head"] = slot
    else:
        slots[workers[worker]["tail"]]["link"] = slot
    workers[worker]["tail"] = slot
    workers[worker]["draws"] = draw + 1
    counts[0]["assigned"] = row + 1
    counts[0]["flying"] += 1


@inlined
def _cancel_job(counts, slots, jobs, record, slot, now):
    """Call off one unfinished job."""
    if record:
        jobs.arrival_time[slots[slot]["row"]] = now
        jobs.fate[slots[slot]["row"]] = _CANCELLED
    counts[0]["cancelled"] += 1
    counts[0]["flying"] -= 1
    _free_slot(counts, slots, slot)


@inlined
def _cancel(counts, slots, jobs, workers, tally, record, worker, now):
    """Call off the running job of a worker and those in its queue."""
    slot = workers[worker]["running"]
    if slot >= 0:
        if not record:
            tally[worker]["busy"] += now - slots[slot]["start_time"]
        workers[worker]["running"] = -1
        _cancel_job(counts, slots, jobs, record, slot, now)
    slot = workers[worker]["head"]
    while slot >= 0:
        following = slots[slot]["link"]
        _cancel_job(counts, slots, jobs, record, slot, now)
        slot = following
    workers[worker]["head"] = -1


@inlined
def _drop(counts, slots, jobs, record, slot):
    """Throw an arrived job away."""
    if record:
        jobs.fate[slots[slot]["row"]] = _DROPPED
    counts[0]["dropped"] += 1
    _free_slot(counts, slots, slot)


@inlined
def _use(counts, slots, jobs, rows, tally, record, slot, entry, first_step, end_step, weight):
    """Note that a job's gradient entered steps first_step <= s < end_step with this weight."""
    if slots[slot]["applied"] == 0:
        slots[slot]["applied"] = 1
        if record:
            jobs.fate[slots[slot]["row"]] = _APPLIED
        else:
            worker = slots[slot]["worker"]
            delay = first_step - slots[slot]["read_step"]
            tally[worker]["applied"] += 1
            tally[worker]["delay"] += delay
            counts[0]["max_delay"] = max(counts[0]["max_delay"], delay)
    if record:
        row = counts[0]["rows"]
        rows.job[row] = slots[slot]["row"]
        rows.entry[row] = entry
        rows.first_step[row] = first_step
        rows.end_step[row] = end_step
        rows.weight[row] = weight
        counts[0]["rows"] = row + 1


@inlined
def _take_step(counts, slots, jobs, rows, tally, record, step_times, now):
    """Take a step: the jobs of the batch are applied and the batch is emptied."""
    step = counts[0]["steps"]
    slot = counts[0]["batch_head"]
    while slot >= 0:
        following = slots[slot]["link"]
        weight = slots[slot]["weight"]
        _use(counts, slots, jobs, rows, tally, record, slot, -1, step, step + 1, weight)
        _free_slot(counts, slots, slot)
        counts[0]["kept"] -= 1
        slot = following
    counts[0]["batch_head"] = -1
    if record:
        step_times[step] = now
    counts[0]["steps"] = step + 1


@inlined
def _apply(counts, slots, slot, weight):
    """Put an arrived job into the batch of the coming step."""
    slots[slot]["weight"] = weight
    slots[slot]["link"] = -1
    if counts[0]["batch_head"] < 0:
        counts[0]["batch_head"] = slot
    else:
        slots[counts[0]["batch_tail"]]["link"] = slot
    counts[0]["batch_tail"] = slot
    counts[0]["kept"] += 1


@inlined
def _hold(counts, slots, entries, slot, entry):
    """Add an arrived job to an entry of the table."""
    slots[slot]["link"] = -1
    slots[slot]["since"] = counts[0]["steps"] if entries[entry]["weight"] != 0 else -1
    if entries[entry]["head"] < 0:
        entries[entry]["head"] = slot
    else:
        slots[entries[entry]["tail"]]["link"] = slot
    entries[entry]["tail"] = slot
    counts[0]["kept"] += 1


@inlined
def _weigh(counts, slots, jobs, rows, entries, tally, record, entry, weight):
    """Change the weight of an entry from the coming step on."""
    step = counts[0]["steps"]
    old = entries[entry]["weight"]
    slot = entries[entry]["head"]
    while slot >= 0:
        since = slots[slot]["since"]
        if old != 0 and since < step:
            _use(counts, slots, jobs, rows, tally, record, slot, entry, since, step, old)
        slots[slot]["since"] = step if weight != 0 else -1
        slot = slots[slot]["link"]
    entries[entry]["weight"] = weight


@inlined
def _clear(counts, slots, jobs, rows, entries, tally, record, entry):
    """Empty an entry; a job that never entered a step is dropped."""
    _weigh(counts, slots, jobs, rows, entries, tally, record, entry, 0.0)
    slot = entries[entry]["head"]
    while slot >= 0:
        following = slots[slot]["link"]
        if slots[slot]["applied"] == 0:
            _drop(counts, slots, jobs, record, slot)
        else:
            _free_slot(counts, slots, slot)
        counts[0]["kept"] -= 1
        slot = following
    entries[entry]["head"] = -1


@inlined
def _carry_out(
    counts, slots, jobs, rows, workers, entries, tally, step_times, record, out, restart, now
):
    """Carry out the decisions in `out`; return how many workers stand in `restart`.

    `restart` names the workers that may have to start a job, in the order of starting: the worker
    that arrived goes on with its queue at once, before what is assigned now.
    """
    slot = counts[0]["arriving"]
    arrived = slots[slot]["worker"] if slot >= 0 else -1
    n_restart = 0
    if arrived >= 0 and workers[arrived]["head"] >= 0:
        restart[0] = arrived
        n_restart = 1
    for i in range(1, int(out[0, 0]) + 1):
        code = int(out[i, 0])
        target = int(out[i, 1])
        if code == APPLY:
            _apply(counts, slots, slot, out[i, 2])
        elif code == STEP:
            _take_step(counts, slots, jobs, rows, tally, record, step_times, now)
        elif code == ASSIGN:
            _assign(counts, slots, jobs, workers, record, target, now)
            if workers[target]["running"] < 0:
                restart[n_restart] = target
                n_restart += 1
        elif code == DROP:
            _drop(counts, slots, jobs, record, slot)
        elif code == CANCEL:
            _cancel(counts, slots, jobs, workers, tally, record, target, now)
        elif code == HOLD:
            _hold(counts, slots, entries, slot, target)
        elif code == WEIGH:
            _weigh(counts, slots, jobs, rows, entries, tally, record, target, out[i, 2])
        elif code == CLEAR:
            _clear(counts, slots, jobs, rows, entries, tally, record, target)
    # Last those that may be left without work.
    for i in range(1, int(out[0, 0]) + 1):
        if int(out[i, 0]) == CANCEL:
            restart[n_restart] = int(out[i, 1])
            n_restart += 1
    if arrived >= 0:
        restart[n_restart] = arrived
        n_restart += 1
    return n_restart


@inlined
def _next_job(slots, jobs, workers, record, worker, now):
    """Take the next job of an idle worker off its queue; return its slot, −1 for none."""
    slot = workers[worker]["head"]
    if slot >= 0:
        workers[worker]["head"] = slots[slot]["link"]
        workers[worker]["running"] = slot
        slots[slot]["start_time"] = now
        if record:
            jobs.start_time[slots[slot]["row"]] = now
    return slot


@inlined
def _arrive(counts, slots, jobs, workers, tally, record, worker, now):
    """Take the finished job of `worker` off it; return the job's slot."""
    slot = workers[worker]["running"]
    slots[slot]["arrived"] = 1
    if record:
        jobs.arrival_time[slots[slot]["row"]] = now
    else:
        tally[worker]["busy"] += now - slots[slot]["start_time"]
    workers[worker]["running"] = -1
    counts[0]["flying"] -= 1
    counts[0]["arrived"] += 1
    return slot


@inlined
def _lacks_room(counts, slots, jobs, rows, step_times, record, out):
    """Say whether the arrays are too small for the decisions in `out`."""
    n_decisions = int(out[0, 0])
    n_steps = 0
    if counts[0]["kept"] > 0:
        for i in range(1, n_decisions + 1):
            n_steps += int(out[i, 0]) == STEP
    # Between two steps each kept job's row can be closed at most once.
    counts[0]["needed_rows"] = (
        counts[0]["rows"] + (n_steps + 1) * (counts[0]["kept"] + 1) + n_decisions
    )
    return counts[0]["n_free"] < n_decisions or (
        record
        and (
            counts[0]["assigned"] + n_decisions > jobs.worker.size
            or counts[0]["steps"] + n_decisions > step_times.size
            or counts[0]["needed_rows"] > rows.job.size
        )
    )


def _array_types() -> tuple:
    """Return the types of the loop's arrays."""
    kinds = (COUNTS, SLOTS, WORKERS, TREE, ENTRIES, TALLY, np.float64)
    counts, slots, *others = (typeof(np.zeros(1, kind)) for kind in kinds)
    tables = (typeof(table) for table in (empty_table(Jobs, 1), empty_table(Contributions, 1)))
    return counts, slots, *tables, *others


_SIGNATURE = types.int64(
    types.FunctionType(RULE),
    types.FunctionType(SECONDS),
    *_array_types(),  # counts ... step_times
    types.int64[::1],  # the method's state
    types.float64[:, ::1],  # its decisions
    types.int64[::1],  # workers to start
    types.float64[::1],  # the clock's scales, shape, key
    types.float64,
    types.int64,
    types.float64[::1],  # now, and the last duration
    types.boolean,  # record
    types.int64,  # limits: steps, jobs, time, arrivals in this call
    types.int64,
    types.float64,
    types.int64,
)


@compiled(_SIGNATURE)
def run(
    rule,
    seconds,
    counts,
    slots,
    jobs,
    rows,
    workers,
    tree,
    entries,
    tally,
    step_times,
    state,
    out,
    restart,
    scales,
    shape,
    key,
    clock,
    record,
    max_steps,
    max_jobs,
    until_time,
    max_arrivals,
):
    """Play events until a limit, a lack of room or a pause; everything is left ready to go on."""
    now = clock[0]
    pause_at = counts[0]["arrived"] + max_arrivals
    while True:
        if counts[0]["pending"] == 0:
            if counts[0]["steps"] >= max_steps:
                status = STEPS
                break
            if counts[0]["arrived"] >= max_jobs:
                status = JOBS
                break
            if counts[0]["arrived"] >= pause_at:
                status = PAUSE
                break
            time = tree[1]["finish"]
            if time == _INFINITE:
                status = STALLED
                break
            if time > until_time:
                now = until_time
                status = TIME
                break
            if time > now:
                counts[0]["max_flying"] = max(counts[0]["max_flying"], counts[0]["flying"])
                now = time
                counts[0]["standing"] = 0
            counts[0]["standing"] += 1
            if counts[0]["standing"] > 1000 * workers.size + 100_000 and max_jobs >= UNLIMITED:
                status = STANDSTILL
                break
            worker = tree[1]["winner"]
            slot = _arrive(counts, slots, jobs, workers, tally, record, worker, now)
            counts[0]["arriving"] = slot
            out[0, 0] = 0
            rule(state, worker, slots[slot]["read_step"], counts[0]["steps"], out)
            counts[0]["pending"] = 1
        if int(out[0, 0]) >= out.shape[0]:
            status = OVERFLOW
            break
        if _lacks_room(counts, slots, jobs, rows, step_times, record, out):
            status = GROW
            break
        steps_before = counts[0]["steps"]
        n_restart = _carry_out(
            counts,
            slots,
            jobs,
            rows,
            workers,
            entries,
            tally,
            step_times,
            record,
            out,
            restart,
            now,
        )
        counts[0]["pending"] = 0
        if counts[0]["steps"] > steps_before and max_steps < UNLIMITED:
            counts[0]["standing"] = 0
        for i in range(n_restart):
            worker = restart[i]
            if workers[worker]["running"] >= 0:
                continue
            slot = _next_job(slots, jobs, workers, record, worker, now)
            duration = _INFINITE
            if slot >= 0:
                duration = seconds(scales, shape, key, worker, slots[slot]["draw"], now)
                if not (duration >= 0 and duration < _INFINITE):
                    clock[0] = now
                    clock[1] = duration
                    counts[0]["worker"] = worker
                    return BAD_TIME
                workers[worker]["order"] = counts[0]["started"]
                counts[0]["started"] += 1
            _reschedule(workers, tree, worker, now + duration)
    counts[0]["max_flying"] = max(counts[0]["max_flying"], counts[0]["flying"])
    clock[0] = now
    return status


@compiled(types.void(*_array_types()[:4], *_array_types()[6:8], types.boolean))
def close_entries(counts, slots, jobs, rows, entries, tally, record):
    """At the end of a run, note the steps that the gradients still held have entered."""
    for entry in range(entries.size):
        _weigh(counts, slots, jobs, rows, entries, tally, record, entry, 0.0)
