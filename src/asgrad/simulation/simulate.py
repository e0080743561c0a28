"""simulate: play a method in virtual time and record who computed what at which model."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from typing import Any, Literal, overload

import numpy as np

from asgrad.errors import (
    AsgradError,
    check_callable,
    check_flag,
    check_integer,
    check_positive,
)
from asgrad.machine import check_memory
from asgrad.methods.base import AnyMethod, Opening
from asgrad.progress import progress_bar
from asgrad.recipes import Recipe, recipe_of
from asgrad.simulation import events
from asgrad.simulation.books import RESERVED, Books, refused_decision
from asgrad.simulation.cost import BYTES_A_WORKER, Cost, Limits, Point, check_cost, expected
from asgrad.times import AnyTimes, Clock, times_of
from asgrad.tournament import new_tree
from asgrad.trace import Header, Summary, Trace

__all__ = ["Cost", "expected_cost", "simulate", "versions"]

_ARRIVALS_A_CALL = 500_000  # some tenths of a second, so that Ctrl-C is answered
_PILOT = 50_000  # arrivals from which the cost of a run is guessed
_SLOWER = 25  # how many times fewer arrivals where the loop runs as plain Python

Said = Recipe | AnyMethod | str | tuple[Any, ...]
"""What stands for a recipe."""
Progress = Callable[[float], None] | bool | None
"""Called with the share of the work done since the last call; True: a bar where somebody watches.
"""


@overload
def simulate(
    recipe: Said,
    times: AnyTimes | str,
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
    recipe: Said,
    times: AnyTimes | str,
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
    recipe: Said,
    times: AnyTimes | str,
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
    """Play a recipe's method on workers that take `times`, in virtual time, without gradients.

    The run ends with the arrival that reaches the first limit; at least one must be given. A method
    that takes several steps at one arrival may so pass `steps`.

    Arrivals at one moment are taken in the order in which their jobs started; the worker that
    arrived goes on with its queue first, then the jobs that are assigned start, in the order of
    assignment.

    Parameters
    ----------
    recipe : Recipe, method, tuple of them and parts, or str
        Its parts are for the replay: the trace says which they are.
    times : Times, tuple of them and conditions, or str
        Both are objects, or texts as on the command line: "ringmaster:max_delay=8+koloskova",
        "normal:scale=sqrt+outages:uptime=100".
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
    run, limits = _prepared(recipe, times, n_workers, steps, jobs, until_time, seed, record)
    check_flag("simulate", "insist", insist)
    if progress is not True and progress is not False:
        check_callable("simulate", "progress", progress)
    bar = progress_bar("simulating") if progress is True else nullcontext(progress or None)
    with bar as tell:
        stopped_by = run.play(limits, tell, insist)
    return run.trace(stopped_by) if record else run.summary()


def expected_cost(
    recipe: Said,
    times: AnyTimes | str,
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
    run, limits = _prepared(recipe, times, n_workers, steps, jobs, until_time, seed, record)
    points = run.begin(limits)
    if len(points) == 2:
        return run.expected(points[0], points[1], limits)
    ended = run.point()  # before the guess was due
    return run.expected(Point(0, 0, 0.0, 0, run.started), ended, Limits(0, 0, 0))


def _prepared(
    recipe: Said,
    times: AnyTimes | str,
    n_workers: int,
    steps: int | None,
    jobs: int | None,
    until_time: float | None,
    seed: int,
    record: bool,
) -> tuple[_Run, Limits]:
    """Return a run that has not begun, and where it ends."""
    chosen = recipe_of("simulate", recipe)
    pace = times_of("simulate", times)
    n_workers = check_integer("simulate", "n_workers", n_workers, minimum=1)
    check_memory("simulate", f"{n_workers} workers", BYTES_A_WORKER * n_workers)
    if steps is None and jobs is None and until_time is None:
        raise AsgradError("simulate: give a limit: steps, jobs or until_time.")
    end = math.inf
    if until_time is not None:
        end = check_positive("simulate", "until_time", until_time, zero=True)
    check_flag("simulate", "record", record)
    limits = Limits(_limit("steps", steps), _limit("jobs", jobs), end)
    run = _Run(chosen, pace, n_workers, seed, record)
    most = min(limits.steps, limits.jobs)
    if record and most < events.UNLIMITED:
        run.books.reserve(min(most, RESERVED))
    return run, limits


class _Run:
    """One simulated run."""

    def __init__(self, recipe: Recipe, times: AnyTimes, n_workers: int, seed: int, record: bool):
        self.recipe, self.method, self.times = recipe, recipe.method, times
        self.n_workers, self.seed = n_workers, seed
        self.opening: Opening = self.method.begin(n_workers, seed)
        self.watch: Clock = times.sized(recipe.code_bytes).begin(n_workers, seed)
        watch = self.watch
        self.books = Books(
            self.opening,
            n_workers,
            record,
            works=recipe.work.gradients(n_workers) if recipe.work else None,
            any_worker=self.method.any_worker,
            links=watch.links,
            server=watch.server,
            forgets=watch.changes.own.size > 0,
        )
        self.books.ledger.counts["pending"] = 1
        self.clock = np.zeros(3)
        self.lines = events.Lines.of(n_workers, watch.links.size > 0, watch.changes.own.size > 0)
        self.tree = new_tree(self.lines.alarms + self.opening.alarms.size)
        if self.opening.alarms.size or watch.changes.own.size:  # else it need not be compiled
            events.schedule(self.books.ledger, self.tree, watch.changes, watch.key, self.lines)
        self.loop = events.Loop.of(self.opening.rule, watch.seconds, watch.changes)
        self.stopped_by = ""
        self.started = 0.0

    def play(self, limits: Limits, tell: Callable[[float], None] | None, insist: bool) -> str:
        """Run the event loop to a limit; return which one it was."""
        points = self.begin(limits)
        self.books.insist = insist
        if len(points) == 2 and not insist:
            check_cost(self.expected(points[0], points[1], limits), points[-1])
        told = 0.0
        while not self.stopped_by:
            if tell:
                share = max(self.point().share(limits), told)
                tell(share - told)
                told = share
            self.go_on(limits, _ARRIVALS_A_CALL // (1 if self.loop.is_compiled else _SLOWER))
        if tell:
            tell(1.0 - told)
        return self.stopped_by

    def begin(self, limits: Limits) -> list[Point]:
        """Play the first jobs; return two points from which the cost is guessed, if it gets there.

        What a beginning costs once, and where no worker has delivered, is left out of the guess.
        """
        self.started = time.perf_counter()
        half = max(_PILOT // (1 if self.loop.is_compiled else _SLOWER), 2 * self.n_workers) // 2 + 1
        points = []
        for _ in range(2):
            self.go_on(limits, half)
            if self.stopped_by:
                break
            points.append(self.point())
        return points

    def point(self) -> Point:
        """Return how far the run has come."""
        count = self.books.count
        rows = count("rows") + count("kept")
        now = float(self.clock[events.NOW])
        return Point(count("arrived"), count("steps"), now, rows, time.perf_counter())

    def expected(self, first: Point, last: Point, limits: Limits) -> Cost:
        """Return what the run takes if it goes on as from `first` to `last`."""
        table = self.opening.n_entries > 0
        return expected(first, last, limits, self.n_workers, self.books.record, table)

    def go_on(self, limits: Limits, max_arrivals: int) -> None:
        """Run the event loop for some arrivals, or to a limit."""
        ends = events.Ends(*limits, self.books.count("arrived") + max_arrivals)
        run, *functions = self.loop
        watch = self.watch
        pace = events.Pace(
            watch.scales, watch.shape, watch.key, watch.slowing, watch.changes, self.lines
        )
        status = events.GROW
        while status == events.GROW:
            status = run(
                *functions,
                self.books.ledger,
                self.tree,
                self.opening.state,
                pace,
                self.clock,
                self.books.record,
                ends,
            )
            if status == events.GROW:
                self.books.grow()
        if status != events.PAUSE:
            self.refuse(status)
            names = {events.STEPS: "steps", events.JOBS: "jobs", events.TIME: "time"}
            self.stopped_by = names[status]

    def refuse(self, status: int) -> None:
        """Raise if the loop ended for a reason that is an error."""
        count, out = self.books.count, self.books.ledger.out
        if status == events.STALLED:
            if (self.books.ledger.workers["running"] >= 0).any():
                raise AsgradError(
                    f"{type(self.times).__name__}: the moment at which a job ends must be finite, "
                    f"got infinity after {self.clock[events.NOW]:g} s; give the times in a larger "
                    "unit."
                )
            if count("n_away"):
                raise AsgradError(
                    f"{self.times.label}: at least one worker that has a job must stay or come "
                    f"back, but all were away for good after {self.clock[events.NOW]:g} s; set a "
                    "limit before that."
                )
            raise AsgradError(
                f"{type(self.method).__name__}: every worker is idle after {count('steps')} "
                "steps and none was assigned a job; a method must assign a job before the last "
                "one in flight is used up."
            )
        if status == events.STANDSTILL:
            raise AsgradError(
                f"simulate: time stands still at {self.clock[events.NOW]:g} s: "
                f"{count('standing') - 1} jobs took 0 seconds; give a worker times above 0, "
                "or a limit on jobs."
            )
        if status == events.OVERFLOW:
            raise AsgradError(
                f"{type(self.method).__name__}: at most {out.shape[0] - 1} decisions fit one "
                f"arrival, got {out[0, 0]:.0f}."
            )
        if status == events.WRONG:
            raise AsgradError(refused_decision(type(self.method).__name__, self.books.ledger))
        if status == events.BAD_TIME:
            raise AsgradError(
                f"{type(self.times).__name__}: the time of a job must be finite and >= 0, got "
                f"{self.clock[events.DURATION]:g} for worker {count('worker')}. It was asked "
                f"for draw {count('draw')}."
            )

    def trace(self, stopped_by: str) -> Trace:
        """Return what was recorded."""
        header = Header(
            method=self.method.label,
            times=self.times.label,
            n_workers=self.n_workers,
            seed=int(self.seed),
            end_time=float(self.clock[events.NOW]),
            stopped_by=stopped_by,
            versions=versions(),
            recipe=self.recipe.label,
        )
        return Trace.of(self.books.tables(), header)

    def summary(self) -> Summary:
        """Return the running sums as a summary."""
        books = self.books
        books.close()
        count, workers = books.count, books.ledger.workers
        n, n_steps, end = self.n_workers, count("steps"), float(self.clock[events.NOW])
        used = books.is_in_use()
        waiting = books.ledger.slots[used]
        left = waiting["applied"] == 0
        waiting = waiting[left]
        works = ~np.isnan(waiting["start_time"]) & (waiting["arrived"] == 0)
        if books.has_links:
            works &= np.isnan(books.ledger.transit["delivered"][used][left])
        running = waiting[works]
        ages = n_steps - waiting["read_step"]
        applied = workers["applied"]
        terms = applied + np.bincount(waiting["worker"], minlength=n)
        sums = workers["delay"] + np.bincount(waiting["worker"], weights=ages, minlength=n)
        busy = workers["busy"] + np.bincount(
            running["worker"],
            weights=np.maximum(0.0, end - running["start_time"]),
            minlength=n,
        )
        n_applied = int(applied.sum())
        return Summary(
            n_steps=n_steps,
            n_jobs=count("assigned"),
            n_applied=n_applied,
            n_dropped=count("dropped"),
            n_cancelled=count("cancelled"),
            n_lost=count("lost"),
            n_in_flight=waiting.size,
            n_computed=count("arrived"),
            end_time=end,
            tau_max=int(max(count("max_delay"), ages.max(initial=0))),
            tau_avg=float(sums.sum() / max(count("assigned"), 1)),
            tau_c=count("max_flying"),
            worker_delays=sums / np.where(terms, terms, np.nan),
            work_shares=applied / max(n_applied, 1),
            idle_times=end - busy,
        )


def _limit(name: str, value: int | None) -> int:
    """Return a limit on a count; none means as good as none."""
    return events.UNLIMITED if value is None else check_integer("simulate", name, value, minimum=0)


def versions() -> dict[str, str]:
    """Return the versions that a trace depends on."""
    return {name: _version(name) for name in ("asgrad", "numba", "numpy")}


@cache  # a look-up reads files, for a millisecond
def _version(package: str) -> str:
    """Return the version of an installed package."""
    from importlib.metadata import version

    return version(package)
