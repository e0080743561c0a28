"""Times as workers of a recorded run took them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from asgrad.errors import AsgradError, shown
from asgrad.kernels import compiled
from asgrad.streams import Purpose, stream_key, uniform
from asgrad.times.base import SECONDS, Clock, Times, worker_key
from asgrad.trace import Fate, Trace

__all__ = ["FromRun", "measured_times"]


@compiled(SECONDS)
def _seconds(scales, shape, key, worker, draw, start):
    """One of the worker's measured times: scales holds n + 1 bounds, then the times."""
    first, end = int(scales[worker]), int(scales[worker + 1])
    return scales[first + int(uniform(worker_key(key, worker), draw) * (end - first))]


@dataclass(frozen=True)
class FromRun(Times):
    """Every job takes one of the times that its worker took in a recorded run, drawn uniformly.

    Parameters
    ----------
    run : str
        The folder of a trace, or of a run that `asgrad train` wrote.
    """

    run: str = ""

    name: ClassVar[str] = "from-run"

    def begin(self, n_workers: int, seed: int) -> Clock:
        """Return the clock of a run; the draws follow from `seed`.

        Raises
        ------
        AsgradError
            If there is no such run, it has another number of workers, or one delivered nothing.
        """
        times = self._measured()
        if len(times) != n_workers:
            raise AsgradError(
                f"FromRun: {self.run} has {len(times)} workers, {n_workers} are wanted."
            )
        silent = [worker for worker, took in enumerate(times) if took.size == 0]
        if silent:
            raise AsgradError(
                f"FromRun: worker {silent[0]} delivered nothing in {self.run}; its times are not "
                "known."
            )
        bounds = n_workers + 1 + np.concatenate([[0], np.cumsum([took.size for took in times])])
        key = stream_key(seed, Purpose.TIMES)
        return Clock(np.concatenate([bounds, *times]), 0.0, key, _seconds)

    def typical(self) -> float:
        """Return the median over the workers of their median times, in seconds."""
        medians = [np.median(took) for took in self._measured() if took.size]
        if not medians:
            raise AsgradError(f"FromRun: no worker delivered anything in {self.run}.")
        return float(np.median(medians))

    def _measured(self) -> list[np.ndarray]:
        """Read the workers' times."""
        if not isinstance(self.run, str | Path) or not str(self.run):
            raise AsgradError(
                "FromRun: say from which run, by its folder: from-run:run=runs/profile, got "
                f"{shown(self.run)}."
            )
        folder = Path(self.run).expanduser()
        inside = folder / "trace"
        return measured_times(Trace.load(inside if inside.is_dir() else folder))

    def seconds(self, worker: int, draw: int, start: float) -> float:
        """Not used: the kernel draws the times."""
        raise TypeError("FromRun: call begin() and use the clock's kernel.")


def measured_times(trace: Trace) -> list[np.ndarray]:
    """Return, for every worker, how long each of its delivered jobs took, in seconds, float64."""
    jobs = trace.jobs
    given_up = np.isin(jobs.fate, (Fate.CANCELLED, Fate.LOST))
    delivered = ~given_up & ~np.isnan(jobs.arrival_time) & ~np.isnan(jobs.start_time)
    took = jobs.arrival_time - jobs.start_time
    return [took[delivered & (jobs.worker == worker)] for worker in range(trace.n_workers)]
