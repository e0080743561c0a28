"""What a simulation would take, guessed from its beginning."""

from __future__ import annotations

import math
from typing import NamedTuple

from asgrad.errors import AsgradError
from asgrad.machine import available_memory, check_memory

__all__ = ["BYTES_A_WORKER", "Cost", "Limits", "Point", "check_cost", "expected"]

BYTES_A_WORKER = 700  # of a method with a table; of another one 430
_A_JOB, _A_ROW, _A_STEP = 61, 36, 8  # bytes: the job and its arrival, a contribution, a step
_A_SORTED_ROW = 24  # bytes besides, where the contributions are sorted at the end
_NO_LIMIT = 2**61  # a limit on a count that is not there is larger
_LONG = 600.0  # seconds that are asked about first
_REMEDY = (
    "lower steps, jobs or until_time, keep the summary alone (record=False), or insist: "
    "insist=True, on the command line --insist"
)


class Limits(NamedTuple):
    """Where a run ends: at the first that is reached."""

    steps: int
    jobs: int
    time: float


class Point(NamedTuple):
    """How far a run has come."""

    arrived: int
    steps: int
    now: float
    rows: int
    """Of the contributions, and of gradients that are held: theirs are written later."""
    seconds: float
    """Real ones, since some moment."""

    def share(self, limits: Limits) -> float:
        """Return how much of the run is done."""
        shares = (
            self.steps / limits.steps if limits.steps else 1.0,
            self.arrived / limits.jobs if limits.jobs else 1.0,
            self.now / limits.time if limits.time else 1.0,
        )
        return min(max(shares), 1.0)


class Cost(NamedTuple):
    """What a simulation would take: an estimate."""

    jobs: float
    """Arrivals; infinity where the beginning comes no nearer to a limit."""
    n_bytes: float
    """Of memory."""
    seconds: float


def expected(
    first: Point, last: Point, limits: Limits, n_workers: int, record: bool, table: bool
) -> Cost:
    """Return what the run takes if it goes on as from `first` to `last`.

    `table` says whether the server keeps a table of gradients. It may take long to fill, and then
    there is at least a row for most jobs.
    """
    arrived = last.arrived - first.arrived
    ends = [math.inf]
    if limits.jobs < _NO_LIMIT:
        ends.append(float(limits.jobs - last.arrived))
    if limits.steps < _NO_LIMIT and last.steps > first.steps:
        ends.append((limits.steps - last.steps) * arrived / (last.steps - first.steps))
    if math.isfinite(limits.time) and last.now > first.now:
        as_often = (limits.time - last.now) / (last.now - first.now)
        ends.append(min(as_often, 1e200) * arrived)
    left = max(min(ends), 0.0)
    jobs = last.arrived + left
    n_bytes = float(BYTES_A_WORKER * n_workers)
    if record:
        kept = _A_ROW * last.rows + _A_STEP * last.steps
        if table:
            kept = (_A_ROW + _A_SORTED_ROW) * max(last.rows, last.arrived) + _A_STEP * last.steps
        n_bytes += jobs * (_A_JOB + kept / max(last.arrived, 1))
    return Cost(jobs, n_bytes, jobs * (last.seconds - first.seconds) / max(arrived, 1))


def check_cost(cost: Cost, last: Point) -> None:
    """Refuse a run that memory cannot hold, or that takes long."""
    if math.isinf(cost.jobs):  # nothing is known
        return
    took = cost.seconds
    time = f"{took:.0f} seconds" if took < 60 else f"{took / 60:.3g} minutes"
    if took > 7200:
        time = f"{took / 3600:.3g} hours"
    run = f"about {cost.jobs:.2g} jobs in about {time} (guessed from the first {last.arrived})"
    check_memory("simulate", run, cost.n_bytes, _REMEDY)
    if not took <= _LONG:
        raise AsgradError(
            f"simulate: the run would take {run} and {cost.n_bytes / 1e9:.2g} GB of the "
            f"{available_memory() / 1e9:.2g} GB of memory that are available; {_REMEDY}."
        )
