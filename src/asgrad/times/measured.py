"""Times that workers took: of a recorded run, or of a table."""

from __future__ import annotations

import csv
import math
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from asgrad.errors import AsgradError, shown, unknown_name
from asgrad.kernels import compiled
from asgrad.streams import Purpose, stream_key, uniform
from asgrad.times.base import SECONDS, AnyTimes, Clock, worker_key
from asgrad.trace import Fate, Trace

__all__ = ["FromRun", "FromTable", "Measured", "measured_times"]


@compiled(SECONDS)
def _seconds(scales, shape, key, worker, draw, start):
    """One of the worker's measured times: scales holds n + 1 bounds, then the times."""
    first, end = int(scales[worker]), int(scales[worker + 1])
    return scales[first + int(uniform(worker_key(key, worker), draw) * (end - first))]


class Measured(AnyTimes):
    """Every job takes one of the times that its worker took, drawn uniformly."""

    @abstractmethod
    def measured(self) -> list[np.ndarray]:
        """Read how long every worker's jobs took, in seconds, float64.

        Raises
        ------
        AsgradError
            If they cannot be read, or a worker has none.
        """

    @property
    @abstractmethod
    def source(self) -> str:
        """Where the times are from."""

    def begin(self, n_workers: int, seed: int) -> Clock:
        """Return the clock of a run; the draws follow from `seed`.

        Raises
        ------
        AsgradError
            If the times cannot be read, or are those of another number of workers.
        """
        times = self._measured_once()
        if len(times) != n_workers:
            raise AsgradError(
                f"{type(self).__name__}: {self.source} has {len(times)} workers, {n_workers} are "
                "wanted."
            )
        bounds = n_workers + 1 + np.concatenate([[0], np.cumsum([took.size for took in times])])
        key = stream_key(seed, Purpose.TIMES)
        return Clock(np.concatenate([bounds, *times]), 0.0, key, _seconds)

    def slowest(self) -> float:
        """Return the mean time of the worker whose mean is the largest, in seconds."""
        return max(float(np.mean(took)) for took in self._measured_once())

    def _measured_once(self) -> list[np.ndarray]:
        """Return the times, read anew only where the file is another than when they were read."""
        stamp = self._stamp()
        kept: Any = vars(self).get("_kept")
        if stamp is None or kept is None or kept[0] != stamp:
            kept = stamp, self.measured()
            vars(self)["_kept"] = kept  # what is frozen are the parameters
        times: list[np.ndarray] = kept[1]
        return times

    def _stamp(self) -> Any:
        """Return what changes when the file does; None where that is not known."""
        return None


@dataclass(frozen=True)
class FromRun(Measured):
    """Every job takes one of the times that its worker took in a recorded run, drawn uniformly.

    Parameters
    ----------
    run : str
        The folder of a trace, or of a run that `asgrad train` wrote.
    """

    run: str = ""

    name: ClassVar[str] = "from-run"

    @property
    def source(self) -> str:
        """The folder."""
        return str(self.run)

    def _folder(self) -> Path:
        """Return where the trace stands."""
        folder = Path(os.path.expanduser(self.run))
        inside = folder / "trace"
        return inside if os.path.isdir(inside) else folder

    def _stamp(self) -> Any:
        """Return what changes when the trace does."""
        return _stamp_of(lambda: self._folder() / "jobs.parquet")

    def measured(self) -> list[np.ndarray]:
        """Read how long every worker's delivered jobs took."""
        if not isinstance(self.run, str | Path) or not str(self.run):
            raise AsgradError(
                "FromRun: say from which run, by its folder: from-run:run=runs/profile, got "
                f"{shown(self.run)}."
            )
        times = measured_times(Trace.load(self._folder()))
        for worker, took in enumerate(times):
            if took.size == 0:
                raise AsgradError(
                    f"FromRun: worker {worker} delivered nothing in {self.run}; its times are not "
                    "known."
                )
        return times


@dataclass(frozen=True)
class FromTable(Measured):
    """Every job takes one of the times that a table has for its worker, drawn uniformly.

    Workers are named by integers without gaps, as 0, 1, 2 or 1, 2, 3, or by texts; they are taken
    in sorted order ("w10" stands before "w2").

    Parameters
    ----------
    path : str
        A CSV file whose first line names the columns, or a Parquet file; a row a job.
    worker : str
        The column that names the worker.
    seconds : str
        The column that says how long the job took.
    """

    path: str = ""
    worker: str = "worker"
    seconds: str = "seconds"

    name: ClassVar[str] = "from-table"

    @property
    def source(self) -> str:
        """The file."""
        return str(self.path)

    def _stamp(self) -> Any:
        """Return what changes when the file does."""
        return _stamp_of(lambda: Path(os.path.expanduser(self.path)))

    def measured(self) -> list[np.ndarray]:
        """Read the times of the workers, in the order of their sorted names."""
        if not isinstance(self.path, str | Path) or not str(self.path):
            raise AsgradError(
                "FromTable: say from which file: from-table:path=times.csv, got "
                f"{shown(self.path)}."
            )
        path = Path(os.path.expanduser(self.path))
        found: dict[str, list[float]] = {}
        try:
            with path.open("rb") as file:
                is_parquet = file.read(4) == b"PAR1"
            for place, name, said in (self._parquet if is_parquet else self._csv)(path):
                if not name:
                    raise AsgradError(f"FromTable: {place}: no worker is named.")
                found.setdefault(name, []).append(_duration(place, self.seconds, said))
        except AsgradError:
            raise
        except (OSError, ValueError) as error:  # ValueError: no file can have such a name
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise AsgradError(f"FromTable: cannot read {self.path}: {reason}.") from error
        if not found:
            raise AsgradError(f"FromTable: {self.path} has no rows.")
        return [np.array(found[name]) for name in self._sorted(list(found))]

    def _csv(self, path: Path) -> Iterator[tuple[str, str, Any]]:
        """Yield place, worker and seconds of every row of a CSV file; empty lines do not count."""
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file)
            try:
                header = [name.strip() for name in next(lines, [])]
                columns = [header.index(self._known(name, header)) for name in self._columns]
                for line in lines:
                    if not line:
                        continue
                    place = f"{self.path}, line {lines.line_num}"
                    if len(line) <= max(columns):
                        raise AsgradError(
                            f"FromTable: {place}: there must be {len(header)} columns, got "
                            f"{len(line)}."
                        )
                    name, said = (line[column].strip() for column in columns)
                    yield place, name, said
            except (csv.Error, UnicodeDecodeError) as error:
                raise AsgradError(f"FromTable: {self.path} is no CSV file: {error}.") from error

    def _parquet(self, path: Path) -> Iterator[tuple[str, str, Any]]:
        """Yield place, worker and seconds of every row of a Parquet file."""
        import pyarrow
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(path) as file:
                header = file.schema_arrow.names
                columns = [self._known(name, header) for name in self._columns]
                table = file.read(columns)
        except pyarrow.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise AsgradError(f"FromTable: {self.path} is no Parquet file: {reason}") from error
        kind = table[self.worker].type
        types = pyarrow.types
        if types.is_dictionary(kind):
            kind = kind.value_type
        if not (types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind)):
            raise AsgradError(
                f"FromTable: {self.path}: column {self.worker!r} must name workers by integers or "
                f"texts, got {kind}."
            )
        names, times = (table[name].to_pylist() for name in self._columns)
        for row, (name, said) in enumerate(zip(names, times, strict=True)):
            yield f"{self.path}, row {row}", "" if name is None else str(name).strip(), said

    @property
    def _columns(self) -> tuple[str, str]:
        """The columns of worker and seconds."""
        return self.worker, self.seconds

    def _known(self, name: str, header: list[str]) -> str:
        """Return a column's name if there is such a column, else raise."""
        if name not in header:
            raise unknown_name(f"column of {self.path}", name, header)
        return name

    def _sorted(self, names: list[str]) -> list[str]:
        """Return the workers' names in order, as numbers if all are integers."""
        try:
            names = sorted(names, key=int)
        except ValueError:
            return sorted(names)
        for number, name in enumerate(names, int(names[0])):
            if int(name) != number:
                raise AsgradError(
                    f"FromTable: {self.path}: there are workers {names[0]} to {names[-1]}, but "
                    f"worker {number} has no rows; number them without gaps, or name them by texts."
                )
        return names


def _stamp_of(find: Callable[[], Path]) -> Any:
    """Return what tells a file from what stood in its place before; None if there is none."""
    try:
        path = find()
        stat = path.stat()
    except (OSError, ValueError, TypeError):  # reading it says what is wrong
        return None
    return path.absolute(), stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


def _duration(place: str, column: str, said: Any) -> float:
    """Return a cell of the column of seconds as a number >= 0."""
    try:
        number = float(said)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number < math.inf:
        raise AsgradError(
            f"FromTable: {place}: {column} must be a finite number >= 0, got {shown(said)}."
        )
    return number


def measured_times(trace: Trace) -> list[np.ndarray]:
    """Return, for every worker, how long each of its delivered jobs took, in seconds, float64."""
    jobs = trace.jobs
    given_up = np.isin(jobs.fate, (Fate.CANCELLED, Fate.LOST))
    delivered = ~given_up & ~np.isnan(jobs.arrival_time) & ~np.isnan(jobs.start_time)
    took = jobs.arrival_time - jobs.start_time
    return [took[delivered & (jobs.worker == worker)] for worker in range(trace.n_workers)]
