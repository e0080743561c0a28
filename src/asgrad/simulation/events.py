"""The event loop of the simulator: virtual time, compiled, no gradient.

The loop's source is also run as plain Python when a method or the worker times are plain Python
classes: one loop, two speeds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import NamedTuple

import numpy as np
from numba import typeof, types

from asgrad.kernels import compiled, entry_point, inlined
from asgrad.methods.base import RULE
from asgrad.moments import is_later, put_back, rounded_off, time_at
from asgrad.simulation.ledger import (
    arrive_job,
    carry_out,
    lacks_room,
    ledger_type,
    next_job,
    weigh_entry,
)
from asgrad.times.base import SECONDS
from asgrad.tournament import TREE, finish_place, first_worker, prefetch_arrivals, reschedule

__all__ = ["Ends", "Pace", "close_entries", "run", "run_in_python"]

# The clock: the present moment; the last job's time; the remainder, which added to the moment gives
# the true sum of all the times that led to the arrival that is dealt with. An arrival is its job's
# start plus its time, rounded, to the bit; but what rounding takes is added again once it counts,
# so that the error does not grow with the number of jobs.
NOW, DURATION, REMAINDER = range(3)
# What a call of the loop ends with.
GROW, PAUSE, STEPS, JOBS, TIME, STALLED, BAD_TIME, STANDSTILL, OVERFLOW = range(9)
GOES_ON = -1
_BUSY = -2
UNLIMITED = 2**62

_INFINITE = np.inf


class Pace(NamedTuple):
    """What the workers' times are computed from, see `Clock`."""

    scales: np.ndarray
    shape: float
    key: int


class Ends(NamedTuple):
    """Where a call of the loop ends: after so many steps, arrivals, at a moment, or for a pause."""

    steps: int
    jobs: int
    time: float
    pause: int


@inlined
def _arrive(ledger, tree, clock, record, ends):
    """Take the next job that is finished off its worker, at its moment; or say what ends the call.

    `counts` then says which it is, in `arriving`.
    """
    counts, workers = ledger.counts, ledger.workers
    if counts[0]["steps"] >= ends.steps:
        return STEPS
    if counts[0]["arrived"] >= ends.jobs:
        return JOBS
    if counts[0]["arrived"] >= ends.pause:
        return PAUSE
    time = time_at(tree[1]["finish"])
    if time == _INFINITE:
        return STALLED
    if is_later(time, ends.time):
        clock[NOW] = ends.time
        return TIME
    if is_later(time, clock[NOW]):
        counts[0]["max_flying"] = max(counts[0]["max_flying"], counts[0]["flying"])
        clock[NOW] = min(time, ends.time)
        counts[0]["standing"] = 0
    counts[0]["standing"] += 1
    if counts[0]["standing"] > 1000 * workers.size + 100_000 and ends.jobs >= UNLIMITED:
        return STANDSTILL
    worker = first_worker(tree, clock[NOW])
    finished = time_at(finish_place(tree, worker))
    clock[REMAINDER] = workers[worker]["remainder"] + (finished - clock[NOW])
    arrive_job(ledger, record, worker, clock[NOW])
    ledger.out[0, 0] = 0
    counts[0]["pending"] = 1
    return GOES_ON


@inlined
def _carry_out(ledger, clock, record, ends):
    """Carry out what was decided, if there is room for it."""
    counts, out = ledger.counts, ledger.out
    if int(out[0, 0]) >= out.shape[0]:
        return OVERFLOW
    if lacks_room(ledger, record, False):
        return GROW
    steps_before = counts[0]["steps"]
    carry_out(ledger, record, False, False, clock[NOW])
    counts[0]["pending"] = 0
    if counts[0]["steps"] > steps_before and ends.steps < UNLIMITED:
        counts[0]["standing"] = 0
    return GOES_ON


@inlined
def _begin(ledger, clock, record, worker):
    """Let a worker take its next job; return the job's slot, −1 for none, `_BUSY` if it has one."""
    if ledger.workers[worker]["running"] >= 0:
        return _BUSY
    return next_job(ledger, record, worker, clock[NOW])


@inlined
def _schedule(ledger, tree, scales, clock, worker, slot, duration):
    """Say when a worker will have finished the job that it has begun, if any; False: it is bad."""
    counts, slots, workers = ledger.counts, ledger.slots, ledger.workers
    finish = _INFINITE
    if slot >= 0:
        if not (duration >= 0 and duration < _INFINITE):
            counts[0]["worker"] = worker
            counts[0]["draw"] = slots[slot]["draw"]
            clock[DURATION] = duration
            return False
        now, remainder = clock[NOW], clock[REMAINDER]
        again = put_back(now, remainder)
        duration += again
        finish = now + duration
        workers[worker]["remainder"] = remainder - again + rounded_off(now, duration)
    reschedule(tree, counts[0]["started"], worker, finish)
    counts[0]["started"] += 1
    prefetch_arrivals(slots, workers, tree, scales, worker)
    return True


_LEDGER, _TREE, _ENDS = ledger_type(), typeof(np.zeros(1, TREE)), typeof(Ends(1, 1, 1.0, 1))
_CLOCK = types.float64[::1]
_SIGNATURE = types.int64(
    types.FunctionType(RULE),
    types.FunctionType(SECONDS),
    _LEDGER,
    _TREE,
    types.int64[::1],  # the method's state
    typeof(Pace(np.zeros(1), 1.0, 1)),
    _CLOCK,
    types.boolean,  # record
    _ENDS,
)


@compiled(_SIGNATURE)
def run(rule, seconds, ledger, tree, state, pace, clock, record, ends):
    """Play events until a limit, a lack of room or a pause; everything is left ready to go on."""
    counts, slots = ledger.counts, ledger.slots
    status = GOES_ON
    while status == GOES_ON:
        if counts[0]["pending"] == 0:
            status = _arrive(ledger, tree, clock, record, ends)
            if status != GOES_ON:
                break
            slot = counts[0]["arriving"]
            worker, read_step = slots[slot]["worker"], slots[slot]["read_step"]
            ledger.out[0, 1] = clock[NOW]
            ledger.out[0, 2] = clock[NOW] - slots[slot]["start_time"]
            rule(state, worker, read_step, counts[0]["steps"], ledger.out)
        status = _carry_out(ledger, clock, record, ends)
        if status != GOES_ON:
            break
        for i in range(counts[0]["n_starting"]):
            worker = ledger.starting[i]
            slot = _begin(ledger, clock, record, worker)
            if slot == _BUSY:
                continue
            duration = 0.0
            if slot >= 0:
                draw, now = slots[slot]["draw"], clock[NOW]
                duration = seconds(pace.scales, pace.shape, pace.key, worker, draw, now)
                duration *= slots[slot]["work"]
            if not _schedule(ledger, tree, pace.scales, clock, worker, slot, duration):
                return BAD_TIME
    counts[0]["max_flying"] = max(counts[0]["max_flying"], counts[0]["flying"])
    return status


@cache
def run_in_python() -> Callable[..., int]:
    """Return `run` as plain Python, for a method or worker times that are plain Python classes.

    It is the same source; the pieces that it calls are machine code here as well.
    """
    i8, f8 = types.int64, types.float64
    pieces = {
        _arrive: i8(_LEDGER, _TREE, _CLOCK, types.boolean, _ENDS),
        _carry_out: i8(_LEDGER, _CLOCK, types.boolean, _ENDS),
        _begin: i8(_LEDGER, _CLOCK, types.boolean, i8),
        _schedule: types.boolean(_LEDGER, _TREE, f8[::1], _CLOCK, i8, i8, f8),
    }
    names = {piece.py_func.__name__: entry_point(piece, kind) for piece, kind in pieces.items()}
    return FunctionType(run.py_func.__code__, {**globals(), **names})


@compiled(types.void(_LEDGER, types.boolean))
def close_entries(ledger, record):
    """At the end of a run, note the steps that the gradients still held have entered."""
    for entry in range(ledger.entries.size):
        weigh_entry(ledger, record, entry, 0.0)
