"""The tables of a trace: columns, types, meanings."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple, TypeVar

import numpy as np

__all__ = ["COLUMNS", "Contributions", "Fate", "Jobs", "Tables", "empty_table"]


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


class Jobs(NamedTuple):
    """One row a job, in the order in which the jobs were assigned."""

    worker: np.ndarray
    """int32: who computes."""
    read_step: np.ndarray
    """int64: the gradient is taken at x_{read_step}, the model when the job was assigned."""
    draw: np.ndarray
    """int64: this worker's how-many-th job, from 0; fixes the sampled rows and the noise."""
    assign_time: np.ndarray
    """float64, seconds."""
    start_time: np.ndarray
    """float64, seconds; NaN if the job never left its worker's queue."""
    arrival_time: np.ndarray
    """float64, seconds; for a cancelled or lost job the moment when the server gave it up; NaN for
    a job that had not arrived when the run ended."""
    fate: np.ndarray
    """int8, see `Fate`."""


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


class Tables(NamedTuple):
    """All of a trace but its header."""

    jobs: Jobs
    contributions: Contributions
    step_times: np.ndarray
    """float64 of shape (n_steps,), seconds."""

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
}
"""NumPy types of all columns, table by table."""

Table = TypeVar("Table", Jobs, Contributions)
_NAMES = {Jobs: "jobs", Contributions: "contributions"}


def empty_table(kind: type[Table], size: int) -> Table:
    """Return a table with uninitialised columns of `size` rows."""
    return kind(*(np.empty(size, dtype) for dtype in COLUMNS[_NAMES[kind]].values()))
