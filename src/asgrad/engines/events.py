"""The event loop of the simulator: virtual time, compiled, no gradient.

The loop's source is also run as plain Python (`run.py_func`) when a method or the worker times are
plain Python classes: one loop, two speeds.
"""

from __future__ import annotations

import numpy as np
from numba import typeof, types

from asgrad.engines.books import (
    COUNTS,
    ENTRIES,
    LOG,
    SLOTS,
    TREE,
    WORKERS,
    arrive_job,
    carry_out,
    finish_place,
    first_worker,
    is_later,
    lacks_room,
    next_job,
    prefetch_arrivals,
    put_back,
    reschedule,
    rounded_off,
    time_at,
    weigh_entry,
)
from asgrad.kernels import compiled
from asgrad.methods.base import RULE
from asgrad.times.base import SECONDS
from asgrad.trace.tables import Contributions, Jobs, empty_table

__all__ = ["close_entries", "run"]

# The clock: the present moment; the last job's time; the remainder, which added to the moment gives
# the true sum of all the times that led to the arrival that is dealt with. An arrival is its job's
# start plus its time, rounded, to the bit; but what rounding takes is added again once it counts,
# so that the error does not grow with the number of jobs.
NOW, DURATION, REMAINDER = range(3)
# What a call of the loop ends with.
GROW, PAUSE, STEPS, JOBS, TIME, STALLED, BAD_TIME, STANDSTILL, OVERFLOW = range(9)
UNLIMITED = 2**62

_INFINITE = np.inf


def _array_types() -> tuple:
    """Return the types of the loop's arrays."""
    kinds = (COUNTS, SLOTS, WORKERS, TREE, ENTRIES, np.float64, LOG)
    counts, slots, *others = (typeof(np.zeros(1, kind)) for kind in kinds)
    tables = (typeof(table) for table in (empty_table(Jobs, 1), empty_table(Contributions, 1)))
    return counts, slots, *tables, *others


_SIGNATURE = types.int64(
    types.FunctionType(RULE),
    types.FunctionType(SECONDS),
    *_array_types(),  # counts ... step_times, log
    types.int64[::1],  # the method's state
    types.float64[:, ::1],  # its decisions
    types.int64[::1],  # workers to start
    types.float64[::1],  # the clock's scales, shape, key
    types.float64,
    types.int64,
    types.float64[::1],  # the clock
    types.boolean,  # record
    types.int64,  # limits: steps, jobs, time, arrivals before a pause
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
    step_times,
    log,
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
    pause_at,
):
    """Play events until a limit, a lack of room or a pause; everything is left ready to go on."""
    now, remainder = clock[NOW], clock[REMAINDER]
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
            time = time_at(tree[1]["finish"])
            if time == _INFINITE:
                status = STALLED
                break
            if is_later(time, until_time):
                now = until_time
                status = TIME
                break
            if is_later(time, now):
                counts[0]["max_flying"] = max(counts[0]["max_flying"], counts[0]["flying"])
                now = min(time, until_time)
                counts[0]["standing"] = 0
            counts[0]["standing"] += 1
            if counts[0]["standing"] > 1000 * workers.size + 100_000 and max_jobs >= UNLIMITED:
                status = STANDSTILL
                break
            worker = first_worker(tree, now)
            finished = time_at(finish_place(tree, worker))
            remainder = workers[worker]["remainder"] + (finished - now)
            slot = arrive_job(counts, slots, log, workers, record, worker, now)
            counts[0]["arriving"] = slot
            out[0, 0] = 0
            rule(state, worker, slots[slot]["read_step"], counts[0]["steps"], out)
            counts[0]["pending"] = 1
        if int(out[0, 0]) >= out.shape[0]:
            status = OVERFLOW
            break
        if lacks_room(counts, slots, jobs, rows, log, step_times, record, out):
            status = GROW
            break
        again = put_back(now, remainder)
        steps_before = counts[0]["steps"]
        n_restart = carry_out(
            counts,
            slots,
            jobs,
            rows,
            workers,
            entries,
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
            slot = next_job(slots, jobs, workers, record, worker, now)
            finish = _INFINITE
            if slot >= 0:
                draw = slots[slot]["draw"]
                duration = seconds(scales, shape, key, worker, draw, now)
                if not (duration >= 0 and duration < _INFINITE):
                    clock[NOW] = now
                    clock[DURATION] = duration
                    counts[0]["worker"] = worker
                    counts[0]["draw"] = draw
                    return BAD_TIME
                duration += again
                finish = now + duration
                workers[worker]["remainder"] = remainder - again + rounded_off(now, duration)
            reschedule(counts, tree, worker, finish)
            prefetch_arrivals(slots, workers, tree, scales, worker)
    counts[0]["max_flying"] = max(counts[0]["max_flying"], counts[0]["flying"])
    clock[NOW], clock[REMAINDER] = now, remainder
    return status


@compiled(types.void(*_array_types()[:5], _array_types()[6], types.boolean))
def close_entries(counts, slots, jobs, rows, workers, entries, record):
    """At the end of a run, note the steps that the gradients still held have entered."""
    for entry in range(entries.size):
        weigh_entry(counts, slots, jobs, rows, workers, entries, record, entry, 0.0)
