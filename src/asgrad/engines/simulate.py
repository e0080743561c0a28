"""simulate: play a method in virtual time and record who computed what at which model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Literal, overload

import numpy as np

from asgrad.engines import books, events
from asgrad.engines.cost import BYTES_A_WORKER, Cost, Limits, Point, check_cost, expected
from asgrad.errors import (
    AsgradError,
    check_callable,
    check_flag,
    check_integer,
    check_memory,
    check_positive,
)
from asgrad.kernels import is_compiled
from asgrad.methods.base import Method, Opening
from asgrad.methods.decisions import ASSIGN
from asgrad.progress import progress_bar
from asgrad.registry import resolve
from asgrad.times.base import Clock, Times
from asgrad.trace import Contributions, Fate, Header, Jobs, Summary, Trace
from asgrad.trace.tables import empty_table

__all__ = ["Cost", "expected_cost", "simulate", "versions"]

_RESERVED = 1 << 25  # the most jobs that memory is reserved for before they come up
_ARRIVALS_A_CALL = 500_000  # some tenths of a second, so that Ctrl-C is answered
_PILOT = 50_000  # arrivals from which the cost of a run is guessed
_SLOWER = 25  # how many times fewer arrivals where the loop runs as plain Python

Progress = Callable[[float], None] | bool | None
"""Called with the share of the work done since the last call; True: a bar where somebody watches.
"""


@overload
def simulate(
    method: Method | str,
    times: Times | str,
    *,
    n_workers: int,
    steps: int | None = ...,
    jobs: int | None = ...,
    until_time: float | None = ...,
    seed: int = ...,
    record: Literal[True] = ...,
    progress: Progress = ...,
    insist: bool = ...,
) -> Trace: ...


@overload
def simulate(
    method: Method | str,
    times: Times | str,
    *,
    n_workers: int,
    steps: int | None = ...,
    jobs: int | None = ...,
    until_time: float | None = ...,
    seed: int = ...,
    record: Literal[False],
    progress: Progress = ...,
    insist: bool = ...,
) -> Summary: ...


def simulate(
    method: Method | str,
    times: Times | str,
    *,
    n_workers: int,
    steps: int | None = None,
    jobs: int | None = None,
    until_time: float | None = None,
    seed: int = 0,
    record: bool = True,
    progress: Progress = None,
    insist: bool = False,
) -> Trace | Summary:
    """Play `method` on workers that take `times`, in virtual time; no gradient is computed.

    The run ends with the arrival that reaches the first limit; at least one must be given. A method
    that takes several steps at one arrival may so pass `steps`.

    Arrivals at one moment are taken in the order in which their jobs started; the worker that
    arrived goes on with its queue first, then the jobs that are assigned start, in the order of
    assignment.

    Parameters
    ----------
    method : Method or str
    times : Times or str
        Objects, or texts as on the command line: "ringmaster:max_delay=8", "normal:scale=sqrt".
    n_workers : int >= 1
    steps : int >= 0, optional
        Stop after this many server steps.
    jobs : int >= 0, optional
        Stop after this many arrivals.
    until_time : float >= 0, optional
        Stop at this moment, in seconds; what happens at the moment itself still happens.
    seed : int >= 0
        Fixes the worker times and the method's random choices.
    record : bool
        False: keep no trace, return its `Summary` alone; memory then does not grow with the run.
    progress : callable or bool, optional
        Called with the share of the run that was played since the last call; True shows a bar, on a
        terminal or in a notebook.
    insist : bool
        Play a run that seems to need more memory than there is, or more than ten minutes. Both are
        guessed from its first jobs, and otherwise such a run is refused.

    Returns
    -------
    Trace or Summary

    Raises
    ------
    AsgradError
        If no limit is given, a parameter does not fit the workers, a job's time is negative, NaN or
        infinite, the method leaves all workers without work, or the run is too large.

    Examples
    --------
    >>> import asgrad as ag
    >>> trace = ag.simulate(ag.methods.Pure(), ag.times.Fixed(), n_workers=4, steps=8)
    >>> trace.delays.tolist()
    [0, 1, 2, 3, 3, 3, 3, 3]
    """
    run, limits = _prepared(method, times, n_workers, steps, jobs, until_time, seed, record)
    check_flag("simulate", "insist", insist)
    if progress is not True and progress is not False:
        check_callable("simulate", "progress", progress)
    bar = progress_bar("simulating") if progress is True else nullcontext(progress or None)
    with bar as tell:
        stopped_by = run.play(limits, tell, insist)
    return run.trace(stopped_by) if record else run.summary()


def expected_cost(
    method: Method | str,
    times: Times | str,
    *,
    n_workers: int,
    steps: int | None = None,
    jobs: int | None = None,
    until_time: float | None = None,
    seed: int = 0,
    record: bool = True,
) -> Cost:
    """Return what `simulate` with these arguments would take, guessed from its first jobs.

    It plays some ten thousand jobs, which takes some hundredths of a second.

    Returns
    -------
    Cost
        jobs, n_bytes and seconds. Of a method or worker times whose pace changes it can be wrong.
    """
    run, limits = _prepared(method, times, n_workers, steps, jobs, until_time, seed, record)
    points = run.begin(limits)
    if len(points) == 2:
        return run.expected(points[0], points[1], limits)
    ended = run.point()  # before the guess was due
    return run.expected(Point(0, 0, 0.0, 0, run.started), ended, Limits(0, 0, 0))


def _prepared(
    method: Method | str,
    times: Times | str,
    n_workers: int,
    steps: int | None,
    jobs: int | None,
    until_time: float | None,
    seed: int,
    record: bool,
) -> tuple[_Run, Limits]:
    """Return a run that has not begun, and where it ends."""
    decisions = resolve("simulate", "method", method, Method, "ag.methods.Pure()")
    pace = resolve("simulate", "times", times, Times, "ag.times.Linear()")
    n_workers = check_integer("simulate", "n_workers", n_workers, minimum=1)
    check_memory("simulate", f"{n_workers} workers", BYTES_A_WORKER * n_workers)
    if steps is None and jobs is None and until_time is None:
        raise AsgradError("simulate: give a limit: steps, jobs or until_time.")
    end = math.inf
    if until_time is not None:
        end = check_positive("simulate", "until_time", until_time, zero=True)
    check_flag("simulate", "record", record)
    limits = Limits(_limit("steps", steps), _limit("jobs", jobs), end)
    run = _Run(decisions, pace, n_workers, seed, record)
    most = min(limits.steps, limits.jobs)
    if record and most < events.UNLIMITED:
        run.reserve(min(most, _RESERVED))
    return run, limits


class _Run:
    """The arrays of one simulated run; they grow as the event loop asks."""

    def __init__(self, method: Method, times: Times, n_workers: int, seed: int, record: bool):
        self.method, self.times = method, times
        self.n_workers, self.seed, self.record = n_workers, seed, record
        self.opening: Opening = method.begin(n_workers, seed)
        self.watch: Clock = times.begin(n_workers, seed)
        self.clock = np.zeros(3)
        self.counts = np.zeros(1, books.COUNTS)
        for name in ("free", "batch_head", "batch_tail", "arriving"):
            self.counts[name] = -1
        idle = np.zeros(1, books.WORKERS)
        for name in ("running", "head", "tail"):
            idle[name] = -1
        self.workers = _aligned(n_workers, books.WORKERS)
        self.workers[:] = idle
        self.tree = _new_tree(n_workers)
        self.entries = np.zeros(self.opening.n_entries, books.ENTRIES)
        self.entries["head"] = -1
        self.slots = np.empty(0, books.SLOTS)
        self.jobs, self.rows = empty_table(Jobs, 0), empty_table(Contributions, 0)
        self.step_times, self.log = np.empty(0), np.empty(0, books.LOG)
        self.out = self.opening.decision_table(n_workers)
        self.restart = np.empty(self.out.shape[0] + 2, np.int64)
        first = self.opening.workers
        self.out[0, 0] = first.size
        self.out[1 : first.size + 1, 0] = ASSIGN
        self.out[1 : first.size + 1, 1] = first
        self.counts["pending"] = 1
        self.is_compiled = is_compiled(self.opening.rule) and is_compiled(self.watch.seconds)
        self.stopped_by = ""
        self.started = 0.0
        self.insist = False

    def reserve(self, n_jobs: int) -> None:
        """Make room in the trace in advance; memory that is never written costs nothing."""
        size = n_jobs + 2 * self.n_workers + 16
        self.jobs, self.rows = empty_table(Jobs, size), empty_table(Contributions, size)
        self.step_times, self.log = np.empty(size), np.empty(size, books.LOG)

    def count(self, name: str) -> int:
        """Return one of the event loop's counters."""
        return int(self.counts[name][0])

    def play(self, limits: Limits, tell: Callable[[float], None] | None, insist: bool) -> str:
        """Run the event loop to a limit; return which one it was."""
        points = self.begin(limits)
        self.insist = insist
        if len(points) == 2 and not insist:
            check_cost(self.expected(points[0], points[1], limits), points[-1])
        told = 0.0
        while not self.stopped_by:
            if tell:
                share = max(self.point().share(limits), told)
                tell(share - told)
                told = share
            self.go_on(limits, _ARRIVALS_A_CALL // (1 if self.is_compiled else _SLOWER))
        if tell:
            tell(1.0 - told)
        return self.stopped_by

    def begin(self, limits: Limits) -> list[Point]:
        """Play the first jobs; return two points from which the cost is guessed, if it gets there.

        What a beginning costs once, and where no worker has delivered, is left out of the guess.
        """
        self.started = time.perf_counter()
        half = max(_PILOT // (1 if self.is_compiled else _SLOWER), 2 * self.n_workers) // 2 + 1
        points = []
        for _ in range(2):
            self.go_on(limits, half)
            if self.stopped_by:
                break
            points.append(self.point())
        return points

    def point(self) -> Point:
        """Return how far the run has come."""
        arrived, steps = self.count("arrived"), self.count("steps")
        rows = self.count("rows") + self.count("kept")
        return Point(arrived, steps, float(self.clock[events.NOW]), rows, time.perf_counter())

    def expected(self, first: Point, last: Point, limits: Limits) -> Cost:
        """Return what the run takes if it goes on as from `first` to `last`."""
        table = self.opening.n_entries > 0
        return expected(first, last, limits, self.n_workers, self.record, table)

    def go_on(self, limits: Limits, max_arrivals: int) -> None:
        """Run the event loop for some arrivals, or to a limit."""
        loop = events.run if self.is_compiled else events.run.py_func
        pause_at = self.count("arrived") + max_arrivals
        status = events.GROW
        while status == events.GROW:
            status = loop(
                self.opening.rule,
                self.watch.seconds,
                self.counts,
                self.slots,
                self.jobs,
                self.rows,
                self.workers,
                self.tree,
                self.entries,
                self.step_times,
                self.log,
                self.opening.state,
                self.out,
                self.restart,
                self.watch.scales,
                self.watch.shape,
                self.watch.key,
                self.clock,
                self.record,
                *limits,
                pause_at,
            )
            if status == events.GROW:
                self.grow()
        if status != events.PAUSE:
            self.refuse(status)
            names = {events.STEPS: "steps", events.JOBS: "jobs", events.TIME: "time"}
            self.stopped_by = names[status]

    def refuse(self, status: int) -> None:
        """Raise if the loop ended for a reason that is an error."""
        if status == events.STALLED:
            if (self.workers["running"] >= 0).any():
                raise AsgradError(
                    f"{type(self.times).__name__}: the moment at which a job ends must be finite, "
                    f"got infinity after {self.clock[events.NOW]:g} s; give the times in a larger "
                    "unit."
                )
            raise AsgradError(
                f"{type(self.method).__name__}: every worker is idle after {self.count('steps')} "
                "steps and none was assigned a job; a method must assign a job before the last "
                "one in flight is used up."
            )
        if status == events.STANDSTILL:
            raise AsgradError(
                f"simulate: time stands still at {self.clock[events.NOW]:g} s: "
                f"{self.count('standing') - 1} jobs took 0 seconds; give a worker times above 0, "
                "or a limit on jobs."
            )
        if status == events.OVERFLOW:
            raise AsgradError(
                f"{type(self.method).__name__}: at most {self.out.shape[0] - 1} decisions fit one "
                f"arrival, got {self.out[0, 0]:.0f}."
            )
        if status == events.BAD_TIME:
            raise AsgradError(
                f"{type(self.times).__name__}: the time of a job must be finite and >= 0, got "
                f"{self.clock[events.DURATION]:g} for worker {self.count('worker')}. It was asked "
                f"for draw {self.count('draw')}."
            )

    def grow(self) -> None:
        """Make room for the decisions that wait to be carried out."""
        coming = int(self.out[0, 0])
        if self.count("n_free") < coming:
            old = self.slots.size
            self.slots = _larger(self.slots, old + coming + 1024)
            links = self.slots["link"][old:]
            links[:-1] = np.arange(old + 1, self.slots.size)
            links[-1] = self.count("free")
            self.counts["free"] = old
            self.counts["n_free"] += links.size
        if self.record:
            n_jobs = self.count("assigned") + coming
            n_rows = max(self.count("needed_rows"), self.count("rows") + self.count("kept"))
            if self.count("rows") > _RESERVED and not self.insist:
                check_memory("simulate", "a trace of as many jobs again", 105 * n_rows)
            self.jobs = Jobs(*(_larger(column, n_jobs) for column in self.jobs))
            self.rows = Contributions(*(_larger(column, n_rows) for column in self.rows))
            self.step_times = _larger(self.step_times, self.count("steps") + coming)
            self.log = _larger(self.log, self.count("arrived") + 1)

    def trace(self, stopped_by: str) -> Trace:
        """Return what was recorded; an entry still in use counts to the last step."""
        self._close_entries()
        n_jobs, n_rows = self.count("assigned"), self.count("rows")
        rows = Contributions(*(column[:n_rows] for column in self.rows))
        if self.opening.n_entries:
            order = np.lexsort((rows.entry, rows.first_step))
            for column in rows:  # in place: a second table would take as much again
                column[:] = column[order]
        arrived = self.log[: self.count("arrived")]
        self.jobs.arrival_time[arrived["row"]] = arrived["time"]
        self.jobs.fate[rows.job] = Fate.APPLIED
        header = Header(
            method=self.method.label,
            times=self.times.label,
            n_workers=self.n_workers,
            seed=int(self.seed),
            end_time=float(self.clock[events.NOW]),
            stopped_by=stopped_by,
            versions=versions(),
        )
        return Trace(
            Jobs(*(column[:n_jobs] for column in self.jobs)),
            rows,
            self.step_times[: self.count("steps")],
            header,
        )

    def summary(self) -> Summary:
        """Return the running sums as a summary."""
        self._close_entries()
        n, n_steps, end = self.n_workers, self.count("steps"), float(self.clock[events.NOW])
        waiting = self._jobs_in_flight()
        running = waiting[~np.isnan(waiting["start_time"]) & (waiting["arrived"] == 0)]
        ages = n_steps - waiting["read_step"]
        applied = self.workers["applied"]
        terms = applied + np.bincount(waiting["worker"], minlength=n)
        sums = self.workers["delay"] + np.bincount(waiting["worker"], weights=ages, minlength=n)
        busy = self.workers["busy"] + np.bincount(
            running["worker"], weights=end - running["start_time"], minlength=n
        )
        n_applied = int(applied.sum())
        return Summary(
            n_steps=n_steps,
            n_jobs=self.count("assigned"),
            n_applied=n_applied,
            n_dropped=self.count("dropped"),
            n_cancelled=self.count("cancelled"),
            n_lost=0,
            n_in_flight=waiting.size,
            n_computed=self.count("arrived"),
            end_time=end,
            tau_max=int(max(self.count("max_delay"), ages.max(initial=0))),
            tau_avg=float(sums.sum() / max(self.count("assigned"), 1)),
            tau_c=self.count("max_flying"),
            worker_delays=sums / np.where(terms, terms, np.nan),
            work_shares=applied / max(n_applied, 1),
            idle_times=end - busy,
        )

    def _close_entries(self) -> None:
        """Write the rows of the gradients that are still held at the end."""
        if not self.opening.n_entries:
            return
        self.out[0, 0] = 0
        if self.record:
            self.grow()
        events.close_entries(
            self.counts, self.slots, self.jobs, self.rows, self.workers, self.entries, self.record
        )

    def _jobs_in_flight(self) -> np.ndarray:
        """Return the slots of the jobs whose story is not over, when the run is not recorded."""
        in_use = np.ones(self.slots.size, bool)
        slot = self.count("free")
        while slot >= 0:
            in_use[slot] = False
            slot = int(self.slots["link"][slot])
        slots = self.slots[in_use]
        return slots[slots["applied"] == 0]


def _limit(name: str, value: int | None) -> int:
    """Return a limit on a count; none means as good as none."""
    return events.UNLIMITED if value is None else check_integer("simulate", name, value, minimum=0)


def _new_tree(n_workers: int) -> np.ndarray:
    """Return the tournament tree of idle workers."""
    leaves = max(2, 1 << (n_workers - 1).bit_length())
    tree = _aligned(2 * leaves, books.TREE)
    tree["finish"], tree["ticket"] = books.place(np.inf), 0
    return tree


def _aligned(size: int, dtype: np.dtype) -> np.ndarray:
    """Return an uninitialised array that begins with a cache line.

    A job's slot and a worker's record fill one line each; astride two they would cost two misses.
    """
    line = 64
    raw = np.empty(size * dtype.itemsize + line, np.uint8)
    offset = -raw.ctypes.data % line
    return raw[offset : offset + size * dtype.itemsize].view(dtype)


def _larger(array: np.ndarray, size: int) -> np.ndarray:
    """Return a copy with room for at least `size` elements, at least twice what it had."""
    if array.size >= size:
        return array
    grown = _aligned(max(size, 2 * array.size, 1024), array.dtype)
    grown[: array.size] = array
    return grown


def versions() -> dict[str, str]:
    """Return the versions that a trace depends on."""
    return {name: _version(name) for name in ("asgrad", "numba", "numpy")}


@cache  # a look-up reads files, for a millisecond
def _version(package: str) -> str:
    """Return the version of an installed package."""
    from importlib.metadata import version

    return version(package)
