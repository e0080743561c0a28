"""The trace of a run: who computed what at which model, and which server step used it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from asgrad.errors import TraceError
from asgrad.trace import parquet
from asgrad.trace.header import Header
from asgrad.trace.summary import Summary, summarize
from asgrad.trace.tables import Absences, Contributions, Fate, Jobs, Tables, completed

__all__ = ["Trace"]


_NO_ABSENCES = Absences()


@dataclass(frozen=True, eq=False)
class Trace:
    """A run without its numbers: its jobs, what they contributed, its steps.

    The direction of step s is d_s = Σ weight · g_job over the contributions that are live at s. The
    delay of a job is its first_step minus its read_step.

    Attributes
    ----------
    jobs : Jobs
        Columns of shape (n_jobs,).
    contributions : Contributions
        Columns of shape (n_contributions,).
    step_times : numpy.ndarray
        float64 of shape (n_steps,): the moment of every step, in seconds.
    header : Header
    absences : Absences
        When workers were away; columns of shape (n_absences,).
    """

    jobs: Jobs
    contributions: Contributions
    step_times: np.ndarray
    header: Header
    absences: Absences = _NO_ABSENCES

    @classmethod
    def of(cls, tables: Tables, header: Header) -> Trace:
        """Return the trace of these tables; what had not begun by the end has no start."""
        jobs, contributions, step_times, absences = tables
        late = jobs.start_time > header.end_time
        if late.any():
            jobs = jobs._replace(start_time=np.where(late, np.nan, jobs.start_time))
        return cls(jobs, contributions, step_times, header, absences)

    def __post_init__(self) -> None:
        object.__setattr__(self, "jobs", completed(self.jobs))

    def __repr__(self) -> str:
        """What it is, in one line."""
        header = self.header
        return (
            f"<Trace of {header.recipe}, times {header.times:.60}: {self.n_workers} workers, "
            f"{self.n_steps} steps, {self.n_jobs} jobs, {header.end_time:g} s>"
        )

    @property
    def tables(self) -> Tables:
        """All tables."""
        return Tables(self.jobs, self.contributions, self.step_times, self.absences)

    @property
    def n_steps(self) -> int:
        """How many steps the server took."""
        return int(self.step_times.size)

    @property
    def n_jobs(self) -> int:
        """How many jobs were assigned."""
        return int(self.jobs.worker.size)

    @property
    def n_workers(self) -> int:
        """How many workers there were."""
        return self.header.n_workers

    @cached_property
    def first_steps(self) -> np.ndarray:
        """int64 of shape (n_jobs,): the first step that used each job; −1 where none did."""
        first = np.full(self.n_jobs, -1, np.int64)
        # Rows are sorted by first_step: written backwards, the earliest row of a job stays.
        first[self.contributions.job[::-1]] = self.contributions.first_step[::-1]
        return first

    @cached_property
    def delays(self) -> np.ndarray:
        """int64: the delay τ = first_step − read_step of every applied job, in job order."""
        used = self.jobs.fate == Fate.APPLIED
        return self.first_steps[used] - self.jobs.read_step[used]

    @cached_property
    def summary(self) -> Summary:
        """Delays, concurrency, shares of work and idle time, in numbers."""
        return summarize(self.tables, self.first_steps, self.n_workers, self.header.end_time)

    def until(self, step: int) -> Trace:
        """Return the trace of the run up to x_step: what later steps used is in flight.

        Raises
        ------
        TraceError
            If the run has no such step.
        """
        if not 0 <= step <= self.n_steps:
            raise TraceError(f"the trace ends at step {self.n_steps}, it has no step {step}.")
        kept = self.contributions.first_step < step
        rows = Contributions(*(column[kept] for column in self.contributions))
        rows = rows._replace(end_step=np.minimum(rows.end_step, step))
        fate = np.where(
            (self.jobs.fate == Fate.APPLIED) & (self.first_steps >= step),
            np.int8(Fate.IN_FLIGHT),
            self.jobs.fate,
        )
        return Trace(
            self.jobs._replace(fate=fate),
            rows,
            self.step_times[:step].copy(),
            self.header,
            self.absences,
        )

    def equals(self, other: Trace) -> bool:
        """Say whether two traces have the same tables, bit for bit, and the same header."""
        mine = (*self.jobs, *self.contributions, self.step_times, *self.absences)
        theirs = (*other.jobs, *other.contributions, other.step_times, *other.absences)
        return self.header == other.header and all(
            a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
            for a, b in zip(mine, theirs, strict=True)
        )

    def save(self, path: str | Path, *, overwrite: bool = True, elsewhere: bool = False) -> Path:
        """Write the trace as a folder of Parquet files; return where it stands.

        Parameters
        ----------
        path : path
        overwrite : bool
            Replace a trace that is there; otherwise it is refused.
        elsewhere : bool
            Where something else has come to stand there, take a free name beside it.

        Raises
        ------
        TraceError
            If the folder cannot be written.
        """
        return parquet.write(
            self.tables, self.header, path, overwrite=overwrite, elsewhere=elsewhere
        )

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """Read a trace.

        Raises
        ------
        TraceError
            If there is none, or it is damaged, foreign or of another version.
        """
        tables, header = parquet.read(path)
        return cls.of(tables, header)
