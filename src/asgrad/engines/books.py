"""The books of a simulated run: jobs, queues, batch, table, clocks, and how decisions change them.

A job lives in a slot from its assignment until its fate is settled; then the slot is used again.
`link` chains slots into lists: a worker's queue, the batch of the coming step, an entry of the
table, the free slots. If the run is recorded, what happens to a job is also written to the tables
of the trace.
"""

from __future__ import annotations

import numpy as np

from asgrad.kernels import inlined, prefetch
from asgrad.methods.decisions import APPLY, ASSIGN, CANCEL, CLEAR, DROP, HOLD, STEP, WEIGH
from asgrad.trace.tables import Fate

__all__ = [
    "COUNTS",
    "ENTRIES",
    "LOG",
    "SLOTS",
    "TREE",
    "WORKERS",
    "arrive_job",
    "carry_out",
    "finish_place",
    "first_worker",
    "is_later",
    "lacks_room",
    "next_job",
    "place",
    "put_back",
    "prefetch_arrivals",
    "reschedule",
    "rounded_off",
    "time_at",
    "weigh_entry",
]

_IN_FLIGHT = int(Fate.IN_FLIGHT)
_DROPPED = int(Fate.DROPPED)
_CANCELLED = int(Fate.CANCELLED)

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
        # Running sums over the worker's jobs, for a summary where no trace is recorded.
        ("applied", np.int64),
        ("delay", np.int64),
        ("busy", np.float64),
        ("remainder", np.float64),  # what rounding took from the moment at which it finishes
    ]
)
# Moments at most this far apart are one; counted in steps between neighbouring numbers, of which
# 2^52 make a moment twice as late. Sums of the same times in another order, or in other units, come
# out less than half as far apart (`put_back`); random times hardly ever come as near.
_SAME = 512
_KEPT = 2.0**-46  # the share of a moment that its remainder may be: at most 128 such steps
# A tournament over the moments at which the workers finish: the workers are the leaves, node i > 0
# holds the earliest of its children 2i and 2i + 1. A leaf's path to the root is known in advance,
# so its cache misses overlap even with a million workers. The ticket, (starts before this one) *
# leaves + worker, settles ties and names the worker.
TREE = np.dtype([("finish", np.int64), ("ticket", np.int64)])
_LAST = 2**63 - 1  # after all tickets
_NODES_IN_CACHE = 1 << 14  # the top of the tree, which every arrival touches
# When each job arrived, in the order of arrival; entered into the trace's jobs at the end, because
# a million workers' jobs lie far apart in memory.
LOG = np.dtype([("row", np.int64), ("time", np.float64)])
# The server's table of held gradients: lists of slots, and the weight of each.
ENTRIES = np.dtype([("head", np.int64), ("tail", np.int64), ("weight", np.float64)])
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
            *("worker", "draw"),  # of a job whose time is bad
            "standing",  # arrivals since the last step or the last passing of time
            "needed_rows",  # how many contributions there must be room for
        )
    ]
)


@inlined
def place(time):
    """Return the place of `time` >= 0 among all float64 numbers, an int64, in the same order."""
    return np.float64(time).view(np.int64)


@inlined
def time_at(place):
    """Return the float64 number at a place."""
    return np.int64(place).view(np.float64)


@inlined
def is_later(time, moment):
    """Say whether `time` comes after `moment`, by more than what rounding can do."""
    return place(time) > place(moment) + _SAME


def latest_of(times: np.ndarray) -> np.ndarray:
    """Return for each time >= 0 the latest number that is not later, in the sense of `is_later`."""
    places: np.ndarray = np.ascontiguousarray(times, np.float64).view(np.int64) + _SAME
    return places.view(np.float64)


@inlined
def finish_place(tree, worker):
    """Return the place of the moment at which `worker` finishes."""
    return tree[tree.size // 2 + worker]["finish"]


@inlined
def first_worker(tree, moment):
    """Return the worker whose job, of those that finish at `moment`, started first."""
    leaves = tree.size // 2
    worker = tree[1]["ticket"] & (leaves - 1)
    latest = place(moment) + _SAME
    if finish_place(tree, worker) > latest:
        # On its way up it met one that is near to both it and the first, which are not near.
        ticket = _LAST
        for node in range(leaves, tree.size):
            if tree[node]["finish"] <= latest:
                ticket = min(ticket, tree[node]["ticket"])
        worker = ticket & (leaves - 1)
    return worker


@inlined
def put_back(moment, remainder):
    """Return what of a remainder counts by now, and is to be added to the times that follow."""
    return remainder if abs(remainder) > _KEPT * moment else 0.0


@inlined
def rounded_off(moment, duration):
    """Return what rounding takes from moment + duration, exactly (Knuth's sum without error)."""
    total = moment + duration
    added = total - moment
    return (moment - (total - added)) + (duration - added)


@inlined
def reschedule(counts, tree, worker, time):
    """Set the moment at which `worker` finishes (infinity: never) and replay its matches."""
    leaves = tree.size // 2
    node = leaves + worker
    ticket = counts[0]["started"] * leaves + worker
    counts[0]["started"] += 1
    finish = place(time)
    tree[node]["finish"] = finish
    tree[node]["ticket"] = ticket
    while node > 1:
        rival = tree[node ^ 1]["finish"]
        contender = tree[node ^ 1]["ticket"]
        # Of one moment, the ticket decides. No branch, since who wins cannot be predicted: signs
        # are spread over masks. Compared and chosen, LLVM makes it a branch.
        sooner = (rival + _SAME - finish) >> 63
        near = (rival - _SAME - 1 - finish) >> 63
        loses = sooner | (near & ((contender - ticket) >> 63))
        ticket += (contender - ticket) & loses
        finish = min(finish, rival)
        node >>= 1
        tree[node]["finish"] = finish
        tree[node]["ticket"] = ticket


@inlined
def prefetch_arrivals(slots, workers, tree, scales, worker):
    """Prefetch what coming arrivals will touch, after `worker` was rescheduled.

    With a million workers an arrival misses the cache a dozen times. The first to finish among a
    64th of the workers arrives some 64 arrivals from now; it can have changed only in the part of
    the tree around `worker`. A job's slot is asked for later, when its worker's record is there.
    """
    leaves = tree.size // 2
    if leaves < _NODES_IN_CACHE:
        return
    leaf = leaves + worker
    coming = tree[leaf * 64 // leaves]["ticket"] & (leaves - 1)
    prefetch(workers, coming)
    prefetch(scales, coming)
    node = leaves + coming
    while node >= _NODES_IN_CACHE:
        prefetch(tree, node)
        node >>= 1
    sooner = tree[leaf * 8 // leaves]["ticket"] & (leaves - 1)
    slot = workers[sooner]["running"]
    if slot >= 0:
        prefetch(slots, slot)


@inlined
def free_slot(counts, slots, slot):
    """Give back the slot of a job whose fate is settled."""
    slots[slot]["link"] = counts[0]["free"]
    counts[0]["free"] = slot
    counts[0]["n_free"] += 1


@inlined
def assign_job(counts, slots, jobs, workers, record, worker, now):
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
def cancel_job(counts, slots, jobs, record, slot, now):
    """Call off one unfinished job."""
    if record:
        jobs.arrival_time[slots[slot]["row"]] = now
        jobs.fate[slots[slot]["row"]] = _CANCELLED
    counts[0]["cancelled"] += 1
    counts[0]["flying"] -= 1
    free_slot(counts, slots, slot)


@inlined
def cancel_jobs(counts, slots, jobs, workers, record, worker, now):
    """Call off the running job of a worker and those in its queue."""
    slot = workers[worker]["running"]
    if slot >= 0:
        if not record:
            workers[worker]["busy"] += now - slots[slot]["start_time"]
        workers[worker]["running"] = -1
        cancel_job(counts, slots, jobs, record, slot, now)
    slot = workers[worker]["head"]
    while slot >= 0:
        following = slots[slot]["link"]
        cancel_job(counts, slots, jobs, record, slot, now)
        slot = following
    workers[worker]["head"] = -1


@inlined
def drop_job(counts, slots, jobs, record, slot):
    """Throw an arrived job away."""
    if record:
        jobs.fate[slots[slot]["row"]] = _DROPPED
    counts[0]["dropped"] += 1
    free_slot(counts, slots, slot)


@inlined
def use_gradient(
    counts, slots, jobs, rows, workers, record, slot, entry, first_step, end_step, weight
):
    """Note that a job's gradient entered steps first_step <= s < end_step with this weight."""
    if slots[slot]["applied"] == 0:
        slots[slot]["applied"] = 1
        if not record:  # in a trace the contributions say which jobs were applied
            worker = slots[slot]["worker"]
            delay = first_step - slots[slot]["read_step"]
            workers[worker]["applied"] += 1
            workers[worker]["delay"] += delay
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
def take_step(counts, slots, jobs, rows, workers, record, step_times, now):
    """Take a step: the jobs of the batch are applied and the batch is emptied."""
    step = counts[0]["steps"]
    slot = counts[0]["batch_head"]
    while slot >= 0:
        following = slots[slot]["link"]
        weight = slots[slot]["weight"]
        use_gradient(counts, slots, jobs, rows, workers, record, slot, -1, step, step + 1, weight)
        free_slot(counts, slots, slot)
        counts[0]["kept"] -= 1
        slot = following
    counts[0]["batch_head"] = -1
    if record:
        step_times[step] = now
    counts[0]["steps"] = step + 1


@inlined
def apply_job(counts, slots, slot, weight):
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
def hold_job(counts, slots, entries, slot, entry):
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
def weigh_entry(counts, slots, jobs, rows, workers, entries, record, entry, weight):
    """Change the weight of an entry from the coming step on."""
    step = counts[0]["steps"]
    old = entries[entry]["weight"]
    slot = entries[entry]["head"]
    while slot >= 0:
        since = slots[slot]["since"]
        if old != 0 and since < step:
            use_gradient(counts, slots, jobs, rows, workers, record, slot, entry, since, step, old)
        slots[slot]["since"] = step if weight != 0 else -1
        slot = slots[slot]["link"]
    entries[entry]["weight"] = weight


@inlined
def clear_entry(counts, slots, jobs, rows, workers, entries, record, entry):
    """Empty an entry; a job that never entered a step is dropped."""
    weigh_entry(counts, slots, jobs, rows, workers, entries, record, entry, 0.0)
    slot = entries[entry]["head"]
    while slot >= 0:
        following = slots[slot]["link"]
        if slots[slot]["applied"] == 0:
            drop_job(counts, slots, jobs, record, slot)
        else:
            free_slot(counts, slots, slot)
        counts[0]["kept"] -= 1
        slot = following
    entries[entry]["head"] = -1


@inlined
def carry_out(counts, slots, jobs, rows, workers, entries, step_times, record, out, restart, now):
    """Carry out the decisions in `out`; return how many workers stand in `restart`.

    `restart` names the workers that may have to start a job, in the order of starting: the worker
    that arrived goes on with its queue at once, before what is assigned now.
    """
    slot = counts[0]["arriving"]
    arrived = slots[slot]["worker"] if slot >= 0 else -1
    n_restart = 0
    n_cancels = 0
    if arrived >= 0 and workers[arrived]["head"] >= 0:
        restart[0] = arrived
        n_restart = 1
    for i in range(1, int(out[0, 0]) + 1):
        code = int(out[i, 0])
        target = int(out[i, 1])
        if code == APPLY:
            apply_job(counts, slots, slot, out[i, 2])
        elif code == STEP:
            take_step(counts, slots, jobs, rows, workers, record, step_times, now)
        elif code == ASSIGN:
            assign_job(counts, slots, jobs, workers, record, target, now)
            if workers[target]["running"] < 0:
                restart[n_restart] = target
                n_restart += 1
        elif code == DROP:
            drop_job(counts, slots, jobs, record, slot)
        elif code == CANCEL:
            cancel_jobs(counts, slots, jobs, workers, record, target, now)
            n_cancels += 1
        elif code == HOLD:
            hold_job(counts, slots, entries, slot, target)
        elif code == WEIGH:
            weigh_entry(counts, slots, jobs, rows, workers, entries, record, target, out[i, 2])
        elif code == CLEAR:
            clear_entry(counts, slots, jobs, rows, workers, entries, record, target)
    # Last those that may be left without work.
    for i in range(1, int(out[0, 0]) + 1 if n_cancels > 0 else 1):
        if int(out[i, 0]) == CANCEL:
            restart[n_restart] = int(out[i, 1])
            n_restart += 1
    if arrived >= 0:
        restart[n_restart] = arrived
        n_restart += 1
    return n_restart


@inlined
def next_job(slots, jobs, workers, record, worker, now):
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
def arrive_job(counts, slots, log, workers, record, worker, now):
    """Take the finished job of `worker` off it; return the job's slot."""
    slot = workers[worker]["running"]
    slots[slot]["arrived"] = 1
    if record:
        log[counts[0]["arrived"]]["row"] = slots[slot]["row"]
        log[counts[0]["arrived"]]["time"] = now
    else:
        workers[worker]["busy"] += now - slots[slot]["start_time"]
    workers[worker]["running"] = -1
    counts[0]["flying"] -= 1
    counts[0]["arrived"] += 1
    return slot


@inlined
def lacks_room(counts, slots, jobs, rows, log, step_times, record, out):
    """Say whether the arrays are too small for the decisions in `out`."""
    n_decisions = int(out[0, 0])
    if not record:
        return counts[0]["n_free"] < n_decisions
    n_steps = 0
    if counts[0]["kept"] > 0:
        for i in range(1, n_decisions + 1):
            n_steps += int(out[i, 0]) == STEP
    # Between two steps each kept job's row can be closed at most once.
    counts[0]["needed_rows"] = (
        counts[0]["rows"] + (n_steps + 1) * (counts[0]["kept"] + 1) + n_decisions
    )
    return (
        counts[0]["n_free"] < n_decisions
        or counts[0]["assigned"] + n_decisions > jobs.worker.size
        or counts[0]["steps"] + n_decisions > step_times.size
        or counts[0]["arrived"] + 1 > log.size  # the next arrival's place
        or counts[0]["needed_rows"] > rows.job.size
    )
