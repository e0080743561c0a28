"""The tables of a trace: columns, types, meanings."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeVar

import numpy as np

__all__ = [
    "COLUMNS",
    "Absences",
    "Contributions",
    "Fate",
    "Jobs",
    "OPTIONAL",
    "Tables",
    "completed",
    "empty_table",
    "stored",
]


class Fate(IntEnum):
    """What became of a job."""

    IN_FLIGHT = 0
    """The run ended first: it was queued, being computed, or arrived and held for a later step."""
    APPLIED = 1
    """Its gradient entered at least one step."""
    DROPPED = 2
    """It arrived and was thrown away."""
    CANCELLED = 3
    """The server called it off before it was finished."""
    LOST = 4
    """Its worker died."""


_NONE = {kind: np.empty(0, kind) for kind in ("int8", "int32", "float64")}
"""What stands for a column that says of every row what it says by default."""


class Jobs(NamedTuple):
    """One row a job, in the order in which the jobs were assigned."""

    worker: np.ndarray
    """int32: who computes."""
    read_step: np.ndarray
    """int64: the gradient is taken at x_{read_step}, the model when the job was assigned."""
    draw: np.ndarray
    """int64: this worker's how-many-th gradient, from 0, is the job's first; fixes the sampled rows
    and the noise."""
    assign_time: np.ndarray
    """float64, seconds."""
    start_time: np.ndarray
    """float64, seconds; NaN if the job never left its worker's queue."""
    arrival_time: np.ndarray
    """float64, seconds; for a cancelled or lost job the moment when the server gave it up; NaN for
    a job that had not arrived when the run ended."""
    fate: np.ndarray
    """int8, see `Fate`."""
    work: np.ndarray = _NONE["int32"]
    """int32: how many gradients the job is made of, by default 1; it has so many draws."""
    fresh: np.ndarray = _NONE["int8"]
    """int8: 1 if its worker had forgotten, before it, what its encoder remembered, as one that was
    started anew has; by default 0."""
    finish_time: np.ndarray = _NONE["float64"]
    """float64, seconds: when the computation ended and the gradient was sent; by default NaN, where
    sending takes no time."""


class Contributions(NamedTuple):
    """One row for each span of steps in which a job's gradient enters with one weight.

    Rows are sorted by first_step, then by entry; rows of one step and entry stand in the order of
    arrival.
    """

    job: np.ndarray
    """int64: row of the jobs table."""
    entry: np.ndarray
    """int32: the entry of the server's table that held the gradient; −1 for a single step."""
    first_step: np.ndarray
    """int64: the gradient enters the directions of steps first_step <= s < end_step."""
    end_step: np.ndarray
    """int64."""
    weight: np.ndarray
    """float64."""


class Absences(NamedTuple):
    """One row for each time that a worker was away, in the order of its going. A trace may lack it.

    The jobs that a worker had when it went are lost.
    """

    worker: np.ndarray = _NONE["int32"]
    """int32."""
    begin_time: np.ndarray = _NONE["float64"]
    """float64, seconds."""
    end_time: np.ndarray = _NONE["float64"]
    """float64, seconds; NaN if it had not come back when the run ended."""


class Tables(NamedTuple):
    """All of a trace but its header."""

    jobs: Jobs
    contributions: Contributions
    step_times: np.ndarray
    """float64 of shape (n_steps,), seconds."""
    absences: Absences = Absences()

    @property
    def n_jobs(self) -> int:
        """How many jobs were assigned."""
        return int(self.jobs.worker.size)

    @property
    def n_steps(self) -> int:
        """How many steps the server took."""
        return int(self.step_times.size)


COLUMNS: dict[str, dict[str, str]] = {
    "jobs": {
        "worker": "int32",
        "read_step": "int64",
        "draw": "int64",
        "assign_time": "float64",
        "start_time": "float64",
        "arrival_time": "float64",
        "fate": "int8",
    },
    "contributions": {
        "job": "int64",
        "entry": "int32",
        "first_step": "int64",
        "end_step": "int64",
        "weight": "float64",
    },
    "steps": {"time": "float64"},
    "absences": {"worker": "int32", "begin_time": "float64", "end_time": "float64"},
}
"""NumPy types of the columns that every trace has, table by table; it may lack the absences."""
OPTIONAL: dict[str, dict[str, tuple[str, float]]] = {
    "jobs": {
        "work": ("int32", 1),
        "fresh": ("int8", 0),
        "finish_time": ("float64", np.nan),
    },
}
"""Types and defaults of the columns that a trace may lack: all its rows then have the default."""

Table = TypeVar("Table", Jobs, Contributions)
_NAMES = {Jobs: "jobs", Contributions: "contributions"}


def empty_table(kind: type[Table], size: int) -> Table:
    """Return a table with uninitialised columns of `size` rows, without the optional ones."""
    return kind(*(np.empty(size, dtype) for dtype in COLUMNS[_NAMES[kind]].values()))


def completed(jobs: Jobs) -> Jobs:
    """Return the jobs with all columns; a default takes no memory, and cannot be written to."""
    n_jobs = jobs.worker.size
    lacking = {
        name: np.broadcast_to(np.array(default, kind), n_jobs)
        for name, (kind, default) in OPTIONAL["jobs"].items()
        if getattr(jobs, name).size != n_jobs
    }
    return jobs._replace(**lacking)


def stored(jobs: Jobs) -> dict[str, np.ndarray]:
    """Return the columns by name, without those that say of every row what they say by default."""
    optional = OPTIONAL["jobs"]
    return {
        name: column
        for name, column in jobs._asdict().items()
        if name not in optional or not _is_default(column, *optional[name])
    }


def _is_default(column: np.ndarray, kind: str, default: float) -> bool:
    """Say whether all rows of a column have its default."""
    wanted = np.array(default, kind)
    if column.strides == (0,):
        column = column[:1]
    return bool(
        np.array_equal(column, np.broadcast_to(wanted, column.shape), equal_nan=kind == "float64")
    )
