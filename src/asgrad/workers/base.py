"""What a live run asks of real workers, whatever they are."""

from __future__ import annotations

import math
import statistics
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from asgrad.encoders import Encoder
from asgrad.errors import (
    AsgradError,
    KindError,
    as_number,
    check_integer,
    check_positive,
    shown,
)
from asgrad.kernels import is_finite
from asgrad.problems.base import Problem
from asgrad.trace import Fate

__all__ = [
    "NOT_FINITE",
    "Arrival",
    "Computation",
    "Engine",
    "Job",
    "Joined",
    "Limits",
    "Record",
    "RunContext",
    "arrival_of",
    "check_slowdown",
    "failed",
    "worker_buffers",
]

NOT_FINITE = "the gradient holds NaN or infinity"
_REMEMBERED = 31  # job times that a worker's median is taken over
_FEWEST = 5  # jobs before a worker's median counts


@dataclass(slots=True, eq=False)
class Job:
    """One row of the trace's jobs, and what the server still needs of it."""

    row: int
    worker: int
    read_step: int
    draw: int
    assign_time: float
    start_time: float = math.nan
    arrival_time: float = math.nan
    fate: Fate = Fate.IN_FLIGHT
    gradient: np.ndarray | None = None
    """Between its arrival and the first step that uses it."""
    weight: float = 0.0
    """In the batch of the coming step."""
    since: int = -1
    """Held: the step from which the present weight of its entry counts; −1 while it has none."""


class Arrival(NamedTuple):
    """What an engine reports of a job: its gradient, or why there is none."""

    job: Job
    gradient: np.ndarray | None
    """float of shape (dim, 1)."""
    failure: str = ""
    refused: bool = False
    """The gradient held NaN or infinity; that is no failure of the worker."""
    gone: bool = False
    """The worker takes no more jobs, unless it joins again."""


def arrival_of(job: Job, found: np.ndarray | str) -> Arrival:
    """Return the arrival of a gradient, or of the reason why a worker refuses it."""
    if isinstance(found, str):
        return failed(job, found)._replace(refused=True)
    return Arrival(job, found)


def failed(job: Job, why: str, gone: bool = False) -> Arrival:
    """Return the arrival of a job that brought no gradient."""
    return Arrival(job, None, f"worker {job.worker}, draw {job.draw}: {why}", gone=gone)


class Joined(NamedTuple):
    """A worker that was gone takes jobs again."""

    worker: int


@dataclass(frozen=True)
class RunContext:
    """What a live run gives its engine."""

    problem: Problem
    key: int
    """Of the stream from which rows and noise follow."""
    dtype: str
    seed: int
    now: Callable[[], float]
    """The run's clock, in seconds."""
    deliver: Callable[[Sequence[Arrival | Joined]], bool]
    """Tell the run what happened, from any thread, which may deal with what others told as well:
    it may submit jobs before it returns. True: something waits, call it again when there is
    nothing else to do; nothing need be told then."""
    ended: threading.Event
    """Set when the run has ended."""
    encoder: Encoder | None = None
    """What every worker does to its gradients before it delivers them."""


@runtime_checkable
class Engine(Protocol):
    """Real workers."""

    def open(self, context: RunContext) -> None:
        """Start the workers."""

    def submit(self, job: Job, x: np.ndarray) -> bool:
        """Queue a job at model `x`, of shape (dim, 1); False if its worker is gone."""

    def wait(self, seconds: float) -> Sequence[Arrival | Joined]:
        """Wait until something happens that was not delivered otherwise, the run ends, or so long.

        Returns all that has happened. Events are delivered and returned in their order.
        """

    def may_join(self) -> bool:
        """Say whether a worker that is gone may still join."""

    def close(self) -> None:
        """Stop the workers."""


@dataclass(frozen=True)
class Limits:
    """How many workers there are to be, when one has failed, and how often it may."""

    owner: str
    n_workers: int | None
    deadline: float
    least_deadline: float
    first_deadline: float
    restarts: int

    def __post_init__(self) -> None:
        if self.n_workers is not None:
            check_integer(self.owner, "n_workers", self.n_workers, minimum=1)
        for name in ("deadline", "least_deadline", "first_deadline"):
            check_positive(self.owner, name, getattr(self, name))
        check_integer(self.owner, "restarts", self.restarts, minimum=0)

    def check_workers(self, there: int) -> None:
        """Refuse a problem with another number of workers."""
        if self.n_workers not in (None, there):
            raise AsgradError(
                f"{self.owner}: the problem has {there} workers, n_workers is {self.n_workers}; "
                "give the problem that many, or leave n_workers out."
            )


@dataclass
class Record:
    """How a worker has done."""

    limits: Limits
    took: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    failures: int = 0

    @property
    def deadline(self) -> float:
        """The seconds after which a job of this worker is given up."""
        if len(self.took) < _FEWEST:
            return self.limits.first_deadline
        return max(self.limits.least_deadline, self.limits.deadline * statistics.median(self.took))

    def fail(self) -> bool:
        """Count a failure; say whether the worker has had its last chance."""
        self.failures += 1
        return self.failures > self.limits.restarts


def check_slowdown(owner: str, slowdown: Sequence[float] | None, n_workers: int) -> list[float]:
    """Return each worker's factor; by default 1."""
    if slowdown is None:
        return [1.0] * n_workers
    if isinstance(slowdown, str) or not isinstance(slowdown, Sequence | np.ndarray):
        raise KindError(
            f"{owner}: slowdown must hold one number for each worker, for instance [1, 1, 5], got "
            f"{shown(slowdown)}."
        )
    factors = [as_number(owner, "a slowdown", factor) for factor in slowdown]
    for factor in factors:
        if not 1 <= factor < math.inf:
            raise AsgradError(f"{owner}: a slowdown must be >= 1 and finite, got {factor:g}.")
    if len(factors) != n_workers:
        raise AsgradError(
            f"{owner}: slowdown must hold one number for each of the {n_workers} workers, got "
            f"{len(factors)}."
        )
    return factors


class Computation:
    """What one worker computes: the gradient of a job, encoded; with data and working space."""

    def __init__(
        self, problem: Problem, dtype: str, key: int, worker: int, encoder: Encoder | None
    ):
        self._gradient = problem.kernels().gradient
        self._packed = problem.packed(np.dtype(dtype))
        self._worker, self._key = worker, key
        self._buffers = worker_buffers(problem, dtype)
        self._encode = type(encoder).kernel if encoder else None
        self._parameters = encoder.parameters() if encoder else None
        self._memory = np.zeros((0, problem.dim, 1), dtype)

    def __call__(self, x: np.ndarray, draw: int, out: np.ndarray) -> bool:
        """Write the gradient at `x` into `out`, both of shape (dim, 1); False if it is not finite.

        One that is not is never encoded: an encoder may hide what is wrong with it.
        """
        self._gradient(*self._packed, x, self._worker, draw, self._key, out, *self._buffers)
        finite = bool(is_finite(out))
        if self._encode is not None and finite:
            self._encode(self._parameters, out, self._worker, draw, self._key, self._memory)
        return finite


def worker_buffers(problem: Problem, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the working space of one worker: floats, and the identity that kernels pick from."""
    n_floats, n_picks = problem.workspace(1)
    return np.empty(n_floats, dtype), np.arange(n_picks)
