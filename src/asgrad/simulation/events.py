"""The event loop of the simulator: virtual time, compiled, no gradient.

The loop's source is also run as plain Python when a method or the worker times are plain Python
classes: one loop, two speeds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np
from numba import typeof, types

from asgrad.kernels import Bound, BoundType, compiled, entry_point, inlined, is_compiled
from asgrad.methods.base import RULE
from asgrad.moments import is_later, put_back, rounded_off, time_at
from asgrad.simulation.arrays import ledger_type
from asgrad.simulation.ledger import (
    arrive_job,
    carry_out,
    join_worker,
    lacks_room,
    leave_worker,
    next_delivery,
    next_job,
    send_job,
    weigh_entry,
    wrong_decision,
)
from asgrad.times.base import NO_CHANGES, NO_SLOWING, SECONDS, Changes, Slowing
from asgrad.times.outages import next_change
from asgrad.times.phases import slowness
from asgrad.tournament import (
    ALARMS_LAST,
    CHANGES_LAST,
    TREE,
    finish_place,
    first_worker,
    prefetch_arrivals,
    reschedule,
)

__all__ = ["Ends", "Lines", "Loop", "Pace", "close_entries", "schedule"]

# The clock: the present moment; the last job's time; the remainder, which added to the moment gives
# the true sum of all the times that led to the arrival that is dealt with. An arrival is its job's
# start plus its time, rounded, to the bit; but what rounding takes is added again once it counts,
# so that the error does not grow with the number of jobs.
NOW, DURATION, REMAINDER = range(3)
# What a call of the loop ends with.
GROW, PAUSE, STEPS, JOBS, TIME, STALLED, BAD_TIME, STANDSTILL, OVERFLOW, CHANGE, WRONG = range(11)
GOES_ON = -1
_BUSY = -2
UNLIMITED = 2**62
# What waits to be done: nothing; what was decided; workers may have to start a job.
_NOTHING, _DECIDED, _STARTING = range(3)
_INFINITE = np.inf


class Lines(NamedTuple):
    """Where in the tournament the events of each kind begin; from 0 on, the ends of computations.

    A kind that a run has not begins where the next one does.
    """

    sending: int
    """Gradients arrive that were on their way, one line a worker."""
    changes: int
    """Workers go, or come back, one line a worker."""
    alarms: int

    @classmethod
    def of(cls, n_workers: int, has_links: bool, has_changes: bool) -> Lines:
        """Return the lines of a run."""
        changes = n_workers * (1 + has_links)
        return cls(n_workers, changes, changes + n_workers * has_changes)


class Pace(NamedTuple):
    """What the workers' times are computed from, see `Clock`."""

    scales: np.ndarray
    shape: float
    key: int
    slowing: Slowing
    changes: Changes
    lines: Lines


class Ends(NamedTuple):
    """Where a call of the loop ends: after so many steps, arrivals, at a moment, or for a pause."""

    steps: int
    jobs: int
    time: float
    pause: int


@inlined
def _take_event(ledger, tree, clock, record, lines, ends):
    """Take what comes next, at its moment, as far as no one has to be asked; or end the call.

    `counts` then says what waits to be done, in `pending`, and which job arrived, in `arriving`.
    """
    counts = ledger.counts
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
    if counts[0]["standing"] > 1000 * ledger.workers.size + 100_000 and ends.jobs >= UNLIMITED:
        return STANDSTILL
    line = first_worker(tree, clock[NOW])
    if line < ledger.workers.size and ledger.links.size == 0:
        finished = time_at(finish_place(tree, line))
        clock[REMAINDER] = ledger.workers[line]["remainder"] + (finished - clock[NOW])
        arrive_job(ledger, record, line, clock[NOW])
        counts[0]["pending"] = _DECIDED
        return GOES_ON
    return _take_other(ledger, tree, clock, record, lines, line)


@inlined
def _take_other(ledger, tree, clock, record, lines, line):
    """Take an event that only runs with links, outages or alarms have."""
    counts = ledger.counts
    clock[REMAINDER] = 0.0
    if line >= lines.alarms:
        ledger.alarms[line - lines.alarms] = _INFINITE
        reschedule(tree, ALARMS_LAST, line, _INFINITE)
        counts[0]["alarm"] = line - lines.alarms
        counts[0]["arriving"] = -1
        counts[0]["pending"] = _DECIDED
    elif line >= lines.changes:
        counts[0]["worker"] = line - lines.changes
        return CHANGE
    elif line >= lines.sending:
        worker = line - lines.sending
        arrive_job(ledger, record, worker, clock[NOW])
        reschedule(tree, counts[0]["started"], line, next_delivery(ledger, worker))
        counts[0]["started"] += 1
        counts[0]["pending"] = _DECIDED
    else:
        send_job(ledger, record, line, clock[NOW])
        # One that is on its way already keeps its place in line.
        if ledger.links[line]["head"] == ledger.links[line]["tail"]:
            reschedule(
                tree, counts[0]["started"], lines.sending + line, next_delivery(ledger, line)
            )
            counts[0]["started"] += 1
        ledger.starting[0] = line
        counts[0]["n_starting"] = 1
        counts[0]["n_alarmed"] = 0
        counts[0]["pending"] = _STARTING
    return GOES_ON


@inlined
def _carry_out(ledger, tree, clock, record, lines, ends):
    """Carry out what was decided, if there is room for it."""
    counts, out = ledger.counts, ledger.out
    if int(out[0, 0]) >= out.shape[0]:
        return OVERFLOW
    wrong = wrong_decision(ledger)
    if wrong > 0:
        counts[0]["draw"] = wrong
        return WRONG
    if lacks_room(ledger, record, False):
        return GROW
    steps_before = counts[0]["steps"]
    carry_out(ledger, record, False, False, clock[NOW])
    for i in range(counts[0]["n_alarmed"]):
        alarm = ledger.alarmed[i]
        reschedule(tree, ALARMS_LAST, lines.alarms + alarm, ledger.alarms[alarm])
    if counts[0]["steps"] > steps_before and ends.steps < UNLIMITED:
        counts[0]["standing"] = 0
    return GOES_ON


@inlined
def _begin(ledger, tree, clock, record, lines, worker):
    """Let a worker take its next job; return the job's slot, −1 for none, `_BUSY` if it has one."""
    if ledger.links.size > 0 and ledger.links[worker]["head"] < 0:
        line = lines.sending + worker
        if time_at(finish_place(tree, line)) < _INFINITE:  # what was on its way was called off
            reschedule(tree, ledger.counts[0]["started"], line, _INFINITE)
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
        now, remainder = slots[slot]["start_time"], clock[REMAINDER]
        again = put_back(now, remainder)
        duration += again
        finish = now + duration
        workers[worker]["remainder"] = remainder - again + rounded_off(now, duration)
    reschedule(tree, counts[0]["started"], worker, finish)
    counts[0]["started"] += 1
    prefetch_arrivals(slots, workers, tree, scales, worker)
    return True


_LEDGER, _TREE, _ENDS = ledger_type(), typeof(np.zeros(1, TREE)), typeof(Ends(1, 1, 1.0, 1))
_CLOCK, _LINES = types.float64[::1], typeof(Lines(1, 1, 1))
_SLOWING = typeof(NO_SLOWING)


@inlined
def _n_jobs(ledger, worker):
    """Count the unfinished jobs of a worker."""
    n_jobs = 1 if ledger.workers[worker]["running"] >= 0 else 0
    slot = ledger.workers[worker]["head"]
    while slot >= 0:
        n_jobs += 1
        slot = ledger.slots[slot]["link"]
    slot = ledger.links[worker]["head"] if ledger.links.size > 0 else -1
    while slot >= 0:
        n_jobs += 1
        slot = ledger.slots[slot]["link"]
    return n_jobs


CHANGING = types.int64(
    _LEDGER, _TREE, typeof(NO_CHANGES), types.int64, _CLOCK, types.boolean, _LINES
)


@compiled(CHANGING)
def stay(ledger, tree, changes, key, clock, record, lines):
    """Stand for `change` where all workers stay, so that it need not be compiled."""
    return GOES_ON


@compiled(CHANGING)
def change(ledger, tree, changes, key, clock, record, lines):
    """Let the worker whose turn it is go, or come back, if there is room for what follows."""
    counts = ledger.counts
    worker, now = counts[0]["worker"], clock[NOW]
    counts[0]["n_orphans"] = 0
    if ledger.presence[worker]["away"] == 0:
        counts[0]["n_orphans"] = _n_jobs(ledger, worker)
    ledger.out[0, 0] = 0
    full = lacks_room(ledger, record, False)
    if full:
        return GROW
    counts[0]["n_orphans"] = 0
    counts[0]["n_alarmed"] = 0
    counts[0]["arriving"] = -1
    if ledger.presence[worker]["away"] == 0:
        leave_worker(ledger, record, worker, now)
        ledger.starting[counts[0]["n_starting"]] = worker  # so that it is seen to be idle
        counts[0]["n_starting"] += 1
    else:
        join_worker(ledger, record, False, worker, now)
    reschedule(tree, CHANGES_LAST, lines.changes + worker, next_change(changes, key, worker))
    counts[0]["pending"] = _STARTING
    if counts[0]["flying"] == 0 and counts[0]["n_away"] == 0 and ledger.alarms.size == 0:
        return STALLED
    return GOES_ON


_SIGNATURE = types.int64(
    BoundType(RULE),
    BoundType(SECONDS),
    BoundType(CHANGING),
    _LEDGER,
    _TREE,
    types.int64[::1],  # the method's state
    typeof(Pace(np.zeros(1), 1.0, 1, NO_SLOWING, NO_CHANGES, Lines(1, 1, 1))),
    _CLOCK,
    types.boolean,  # record
    _ENDS,
)


@compiled(_SIGNATURE)
def run(rule, seconds, change, ledger, tree, state, pace, clock, record, ends):
    """Play events until a limit, a lack of room or a pause; everything is left ready to go on."""
    counts, slots, out = ledger.counts, ledger.slots, ledger.out
    status = GOES_ON
    while status == GOES_ON:
        if counts[0]["pending"] == _NOTHING:
            status = _take_event(ledger, tree, clock, record, pace.lines, ends)
            if status == CHANGE:
                status = change(ledger, tree, pace.changes, pace.key, clock, record, pace.lines)
            if status != GOES_ON:
                break
            slot = counts[0]["arriving"]
            if counts[0]["pending"] == _DECIDED:
                out[0, 0] = 0
                out[0, 1] = clock[NOW]
                if slot >= 0:
                    out[0, 2] = clock[NOW] - slots[slot]["start_time"]
                    worker, read_step = slots[slot]["worker"], slots[slot]["read_step"]
                    rule(state, worker, read_step, counts[0]["steps"], out)
                else:
                    out[0, 2] = np.nan
                    rule(state, -1 - counts[0]["alarm"], -1, counts[0]["steps"], out)
        if counts[0]["pending"] == _DECIDED:
            status = _carry_out(ledger, tree, clock, record, pace.lines, ends)
            if status != GOES_ON:
                break
        counts[0]["pending"] = _NOTHING
        for i in range(counts[0]["n_starting"]):
            worker = ledger.starting[i]
            slot = _begin(ledger, tree, clock, record, pace.lines, worker)
            if slot == _BUSY:
                continue
            duration = 0.0
            if slot >= 0:
                draw, start = slots[slot]["draw"], slots[slot]["start_time"]
                duration = seconds(pace.scales, pace.shape, pace.key, worker, draw, start)
                duration *= slowness(pace.slowing, pace.key, worker, draw, start)
                duration *= slots[slot]["work"]
            if not _schedule(ledger, tree, pace.scales, clock, worker, slot, duration):
                return BAD_TIME
    counts[0]["max_flying"] = max(counts[0]["max_flying"], counts[0]["flying"])
    return status


class Loop(NamedTuple):
    """The event loop and the functions that it calls, which its first arguments are."""

    run: Callable[..., int]
    rule: Any
    seconds: Any
    change: Any

    @classmethod
    def of(cls, rule: Any, seconds: Any, changes: Changes) -> Loop:
        """Return the compiled loop, or its source as plain Python where a function is plain Python.

        The pieces that it calls are machine code there as well.
        """
        kernel = change if changes.own.size else stay
        if is_compiled(rule) and is_compiled(seconds):
            kinds = zip((rule, seconds, kernel), (RULE, SECONDS, CHANGING), strict=True)
            return cls(entry_point(run, _SIGNATURE), *(Bound(*each) for each in kinds))
        return cls(_run_in_python(), rule, seconds, entry_point(kernel, CHANGING))

    @property
    def is_compiled(self) -> bool:
        """Whether it is machine code."""
        return isinstance(self.rule, Bound)


@cache
def _run_in_python() -> Callable[..., int]:
    """Return the source of `run` as plain Python, over compiled pieces."""
    i8, f8, flag = types.int64, types.float64, types.boolean
    pieces = {
        _take_event: i8(_LEDGER, _TREE, _CLOCK, flag, _LINES, _ENDS),
        _carry_out: i8(_LEDGER, _TREE, _CLOCK, flag, _LINES, _ENDS),
        _begin: i8(_LEDGER, _TREE, _CLOCK, flag, _LINES, i8),
        _schedule: flag(_LEDGER, _TREE, f8[::1], _CLOCK, i8, i8, f8),
        slowness: f8(_SLOWING, i8, i8, i8, f8),
    }
    names = {piece.py_func.__name__: entry_point(piece, kind) for piece, kind in pieces.items()}
    return FunctionType(run.py_func.__code__, {**globals(), **names})


@compiled(types.void(_LEDGER, _TREE, typeof(NO_CHANGES), types.int64, _LINES))
def schedule(ledger, tree, changes, key, lines):
    """Enter the first alarms, and when each worker goes first, into the tournament."""
    for alarm in range(ledger.alarms.size):
        reschedule(tree, ALARMS_LAST, lines.alarms + alarm, ledger.alarms[alarm])
    for worker in range(changes.own.size):
        moment = next_change(changes, key, worker)
        reschedule(tree, CHANGES_LAST, lines.changes + worker, moment)


@compiled(types.void(_LEDGER, types.boolean))
def close_entries(ledger, record):
    """At the end of a run, note the steps that the gradients still held have entered."""
    for entry in range(ledger.entries.size):
        weigh_entry(ledger, record, entry, 0.0)
