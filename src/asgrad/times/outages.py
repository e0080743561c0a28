"""Outages: workers are away for a while; the jobs that they have then are lost."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from asgrad.errors import AsgradError, KindError, as_number, n_axes, shown
from asgrad.kernels import inlined
from asgrad.streams import mix, uniform
from asgrad.times.base import CHANGES, Changes, Clock, Scale, check_scale, scales_of
from asgrad.times.conditions import Condition

__all__ = ["Availability", "Away", "Outages", "next_change"]

_OF_OUTAGES = 1 << 52  # a stream beside that of the times


@inlined
def next_change(changes, key, worker):
    """Return when a worker will go, or come back, next; infinity if it stays as it is.

    Change number 0 is its first going.
    """
    own = changes.own[worker]
    index = own["index"]
    own["index"] = index + 1
    if changes.moments.size > 0:
        place = own["first"] + index
        return changes.moments[place] if place < own["end"] else np.inf
    mean = own["uptime"] if index % 2 == 0 else own["downtime"]
    stream = np.int64(mix(mix(key, _OF_OUTAGES), worker))
    own["until"] -= mean * math.log(uniform(stream, index))
    return own["until"]


@dataclass(frozen=True)
class Outages(Condition):
    """Every worker is there for a while, then away for a while, by exponential times.

    The jobs of a worker that goes are lost, also a gradient on its way; a method that assigns jobs
    to any worker has others take them over, otherwise a worker gets one when it is back. A
    worker's encoder forgets what it remembered.

    Parameters
    ----------
    uptime, downtime : Scale > 0
        Mean time to failure and mean time to repair, in seconds: a number, one a worker, "linear"
        or "sqrt".
    """

    uptime: Scale = 100.0
    downtime: Scale = 10.0

    name: ClassVar[str] = "outages"
    about: ClassVar[str] = "outages"

    def __post_init__(self) -> None:
        for name in ("uptime", "downtime"):
            object.__setattr__(self, name, check_scale("Outages", name, getattr(self, name)))

    def add_to(self, clock: Clock, n_workers: int) -> Clock:
        """Return the clock with outages."""
        own = np.zeros(n_workers, CHANGES)
        for name in ("uptime", "downtime"):
            means = scales_of("Outages", name, getattr(self, name), n_workers)
            if not (means > 0).all():
                raise AsgradError(f"Outages: {name} must be > 0, got {means.min():g}.")
            own[name] = means
        return clock._replace(changes=Changes(own, np.empty(0)))


@dataclass(frozen=True)
class Away(Condition):
    """Workers are away between given moments; see `Outages` for what becomes of their jobs.

    Parameters
    ----------
    workers : int >= 0, or several
    begins, ends : float >= 0, or several
        From when to when each is away, in seconds, one for each of `workers`, which may name a
        worker more than once; one number holds for all. An infinite end: for good.
    """

    workers: int | Sequence[int] = 0
    begins: float | Sequence[float] = 0.0
    ends: float | Sequence[float] = math.inf

    name: ClassVar[str] = "away"
    about: ClassVar[str] = "outages"

    def __post_init__(self) -> None:
        for name in ("workers", "begins", "ends"):
            value = getattr(self, name)
            if isinstance(value, str) or n_axes(value) > 1:
                raise KindError(f"Away: {name} must be a number or several, got {shown(value)}.")
            numbers = tuple(as_number("Away", name, number) for number in _listed(value))
            if n_axes(value) == 1:
                object.__setattr__(self, name, numbers)
        sizes = {len(column) for column in self._columns() if isinstance(column, tuple)}
        if len(sizes) > 1 or 0 in sizes:
            raise AsgradError(
                "Away: workers, begins and ends must be equally many, or one for all, got "
                f"{' and '.join(map(str, sorted(sizes)))}."
            )

    def add_to(self, clock: Clock, n_workers: int) -> Clock:
        """Return the clock with these absences."""
        rows = np.transpose(np.broadcast_arrays(*map(np.atleast_1d, self._columns())))
        return clock._replace(changes=_changes("Away", rows, n_workers))

    def _columns(self) -> tuple[float | Sequence[float], ...]:
        """Return the numbers as they are given."""
        return self.workers, self.begins, self.ends


@dataclass(frozen=True)
class Availability(Condition):
    """Workers are away as an availability trace says, a CSV file; see `Outages`.

    Parameters
    ----------
    path : str
        A file with the columns worker, begin, end, a row an absence, in seconds; an empty end: for
        good.
    """

    path: str = ""

    name: ClassVar[str] = "availability"
    about: ClassVar[str] = "outages"

    def add_to(self, clock: Clock, n_workers: int) -> Clock:
        """Return the clock with the absences of the file."""
        return clock._replace(changes=_changes("Availability", self._rows(), n_workers))

    def _rows(self) -> list[tuple[float, float, float]]:
        """Read the file."""
        if not isinstance(self.path, str | Path) or not str(self.path):
            raise AsgradError(
                "Availability: say from which file: availability:path=away.csv, got "
                f"{shown(self.path)}."
            )
        path = os.path.expanduser(self.path)
        rows = []
        try:
            with open(path, newline="", encoding="utf-8") as file:
                table = csv.DictReader(file)
                lacking = {"worker", "begin", "end"} - set(table.fieldnames or ())
                if lacking:
                    raise AsgradError(
                        f"Availability: {self.path}: columns worker, begin, end must be there, "
                        f"{', '.join(sorted(lacking))} lacks."
                    )
                for line, row in enumerate(table, 2):
                    try:
                        end = float(row["end"]) if row["end"] else math.inf
                        rows.append((float(row["worker"]), float(row["begin"]), end))
                    except (TypeError, ValueError) as error:
                        raise AsgradError(
                            f"Availability: {self.path}, line {line}: worker, begin and end must "
                            f"be numbers, got {shown(list(row.values()))}."
                        ) from error
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise AsgradError(f"Availability: {self.path} cannot be read: {error}.") from error
        return rows


def _listed(value: float | Sequence[float]) -> Sequence[float]:
    """Return one number, or several, as a sequence."""
    return tuple(np.ravel(value).tolist())


def _changes(owner: str, rows: Iterable[Any], n_workers: int) -> Changes:
    """Return the changes that absences come to: of every worker apart, rising."""
    absences: list[list[tuple[float, float]]] = [[] for _ in range(n_workers)]
    for worker, begin, end in rows:
        if not (0 <= worker < n_workers and worker == int(worker)):
            raise AsgradError(
                f"{owner}: worker must be an integer in [0, {n_workers - 1}], got {worker:g}."
            )
        if not (0 <= begin < end and begin < math.inf):
            raise AsgradError(
                f"{owner}: an absence must begin at 0 or later and before it ends, got {begin:g} "
                f"to {end:g} for worker {worker:g}."
            )
        absences[int(worker)].append((begin, end))
    moments: list[float] = []
    own = np.zeros(n_workers, CHANGES)
    for worker, spans in enumerate(absences):
        own["first"][worker] = len(moments)
        latest = -math.inf
        for begin, end in sorted(spans):
            if not begin > latest:
                raise AsgradError(
                    f"{owner}: absences of a worker must lie apart, got one at {begin:g} before "
                    f"another's end, {latest:g}, for worker {worker}."
                )
            moments += [begin, end]
            latest = end
        own["end"][worker] = len(moments)
    return Changes(own, np.array([*moments, math.inf]))
