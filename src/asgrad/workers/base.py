"""What a live run asks of its workers, whatever they are."""

from __future__ import annotations

import math
import statistics
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numba import from_dtype

from asgrad.encoders import Encoder
from asgrad.encoders.base import encode_job, encoder_type, feedback_of, n_remembered
from asgrad.errors import (
    AsgradError,
    KindError,
    as_number,
    check_integer,
    check_positive,
    shown,
)
from asgrad.kernels import Bound, is_finite
from asgrad.problems.base import Problem
from asgrad.trace import Fate
from asgrad.work import Work
from asgrad.work.base import add_up_gradients
from asgrad.workers.memory import Lineage, Mark, Memory

__all__ = [
    "NOT_FINITE",
    "Arrival",
    "Computation",
    "Job",
    "Joined",
    "Left",
    "LOOK",
    "Limits",
    "Record",
    "RunContext",
    "Session",
    "Stopwatch",
    "Workers",
    "arrival_of",
    "computation_of",
    "check_same_number",
    "check_slowdown",
    "failed",
    "lineage_of",
    "warm_up",
    "worker_buffers",
]

NOT_FINITE = "the gradient holds NaN or infinity"
LOOK = 0.5
"""Seconds after which `Session.wait` returns in any case, so that deadlines are looked at."""
_REMEMBERED = 31  # job times that a worker's median is taken over
_FEWEST = 5  # jobs before a worker's median counts


@dataclass(slots=True, eq=False)
class Job:
    """A job of a live run whose story is not over."""

    row: int
    worker: int
    read_step: int
    draw: int
    assign_time: float
    start_time: float = math.nan
    finish_time: float = math.nan
    """When its gradient was sent, where that takes time of its own."""
    arrival_time: float = math.nan
    fate: Fate = Fate.IN_FLIGHT
    gradient: np.ndarray | None = None
    """Between its arrival and the first step that uses it."""
    slot: int = -1
    """Of the server's ledger."""
    work: int = 1
    """How many gradients it is made of."""
    fresh: bool = False
    """Its worker had forgotten, before it, what its encoder remembered."""
    delivered: bool = False
    """The server has taken its gradient."""


class Arrival(NamedTuple):
    """What became of a job: its gradient, or why there is none."""

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


class Left(NamedTuple):
    """A worker takes no more jobs, until it joins again; of those that it has, the run hears."""

    worker: int


class Stopwatch:
    """Seconds since a run began, without those between a checkpoint and its resumption."""

    def __init__(self, elapsed: float):
        self._elapsed = elapsed
        self.start()

    def start(self) -> None:
        """Begin here."""
        self._began = time.perf_counter() - self._elapsed

    def __call__(self) -> float:
        """Return the seconds."""
        return time.perf_counter() - self._began


@dataclass(frozen=True)
class RunContext:
    """What a live run gives its workers."""

    problem: Problem
    key: int
    """Of the stream from which rows and noise follow."""
    dtype: str
    seed: int
    clock: Stopwatch
    """The run's."""
    deliver: Callable[[Sequence[Arrival | Joined | Left]], bool]
    """Tell the run what happened, from any thread, which may deal with what others told as well:
    it may submit jobs before it returns. True: something waits, call it again when there is
    nothing else to do; nothing need be told then."""
    ended: threading.Event
    """Set when the run has ended."""
    max_steps: float = math.inf
    max_jobs: float = math.inf
    until_time: float = math.inf
    """Where the run ends, if nothing else ends it before."""
    next_alarm: Callable[[], float] = lambda: math.inf
    """When the first of the method's alarms is due."""
    kept: Any = None
    """What a session of the same workers returned as its `state` before a checkpoint."""
    encoder: Encoder | None = None
    """What every worker does to its gradients before it delivers them."""
    work: Work | None = None
    """How one gradient of a job leads to the next."""
    resumed: bool = False
    """The run goes on from a checkpoint."""
    memories: np.ndarray | None = None
    """What a session returned as its `memories` before that."""


class Workers(ABC):
    """Who computes in a live run: options, and nothing that changes.

    All state of a run is in the session that `open` returns, so that one object serves many runs,
    also at once.
    """

    is_virtual: ClassVar[bool] = False
    """Whether the run's clock shows what the session says, and nothing is done beside the run."""

    @property
    def times_label(self) -> str:
        """What the trace says of how long jobs took."""
        return f"measured:{type(self).__name__.lower()}"

    def clock(self, elapsed: float) -> Stopwatch:
        """Return the clock of a run, of which so many seconds were before."""
        return Stopwatch(elapsed)

    @abstractmethod
    def open(self, context: RunContext) -> Session:
        """Start the workers of a run."""


class Session(ABC):
    """The workers of one run. Only the run itself submits, waits and closes."""

    sends: bool = False
    """Whether gradients take time of their own on their way: each job then says when it was sent.
    """

    @abstractmethod
    def submit(self, job: Job, x: np.ndarray) -> bool:
        """Queue a job at model `x`, of shape (dim, 1); False if its worker is gone."""

    @abstractmethod
    def wait(self, until: float) -> Sequence[Arrival | Joined | Left]:
        """Return what has happened and was not delivered, in its order; wait for it if need be.

        It may return nothing once the run's clock shows `until`, the run ends, or half a second
        has passed: then the run looks whether something else is due.
        """

    def may_join(self) -> bool:
        """Say whether a worker that is gone may still join."""
        return False

    def is_away(self, worker: int) -> bool:
        """Say whether a worker was away at the checkpoint from which the run goes on."""
        return False

    def state(self) -> Any:
        """Return what a session that goes on from here is to know, as JSON can hold it."""
        return None

    def memories(self) -> np.ndarray | None:
        """Return a copy of what encoders remember, for a checkpoint, of shape (n_workers, n_blocks,
        dim, 1); None: a session that goes on from there begins without."""
        return None

    @abstractmethod
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

    @classmethod
    def of(cls, options: Any) -> Limits:
        """Return those that the options of workers name, checked."""
        names = [each.name for each in fields(cls)[1:]]
        return cls(type(options).__name__, *(getattr(options, name) for name in names))

    def __post_init__(self) -> None:
        if self.n_workers is not None:
            check_integer(self.owner, "n_workers", self.n_workers, minimum=1)
        for name in ("deadline", "least_deadline", "first_deadline"):
            check_positive(self.owner, name, getattr(self, name))
        check_integer(self.owner, "restarts", self.restarts, minimum=0)

    def check_workers(self, there: int) -> None:
        """Refuse a problem with another number of workers."""
        check_same_number(self.owner, self.n_workers, there)


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


def check_same_number(owner: str, n_workers: int | None, there: int) -> None:
    """Refuse a problem with another number of workers than was asked for, if it was."""
    if n_workers not in (None, there):
        raise AsgradError(
            f"{owner}: the problem has {there} workers, n_workers is {n_workers}; give the problem "
            "that many, or leave n_workers out."
        )


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
    """What one worker computes: what a job delivers, encoded; with data and working space."""

    def __init__(
        self,
        problem: Problem,
        dtype: str,
        key: int,
        worker: int,
        encoder: Encoder | None,
        work: Work | None = None,
    ):
        self._gradient = problem.kernels().gradient
        self._packed = problem.packed(np.dtype(dtype))
        self._worker, self._key, self._dtype = worker, key, dtype
        self._buffers = worker_buffers(problem, dtype)
        self._encode = type(encoder).kernel if encoder else None
        if self._encode is not None:  # one that cannot be compiled is refused before the run
            Bound(self._encode, encoder_type(from_dtype(np.dtype(dtype))))
        self._parameters = encoder.numbers(encoder.parameters()) if encoder else None
        self._feedback = feedback_of(encoder)
        self._scratch = np.zeros(encoder.n_scratch(problem.dim) if encoder else 0, np.int64)
        self._memory = Memory(n_remembered(encoder), problem.dim, dtype)
        self._local_stepsize = work.local_stepsize if work else 0.0
        self._local = np.empty((2, 0, 1), dtype)

    def __call__(
        self, x: np.ndarray, draw: int, out: np.ndarray, work: int = 1, mark: Mark | None = None
    ) -> bool:
        """Write what a job at `x` delivers into `out`, both of shape (dim, 1); False if it is not
        finite.

        What is not is never encoded: an encoder may hide what is wrong with it. With a `mark` what
        the encoder remembers is first brought to where that says, and may be brought back there.
        """
        if mark is not None:
            self._memory.go_back(mark)
        if work > 1 and self._local.shape[1] == 0:
            self._local = np.empty((2, *x.shape), self._dtype)
        add_up_gradients(
            self._gradient, self._packed, x, self._worker, draw, work, self._local_stepsize,
            self._key, out, self._local, *self._buffers,
        )  # fmt: skip
        finite = bool(is_finite(out))
        if self._encode is not None and finite:
            if mark is not None and self._memory.blocks.size:
                self._memory.keep(draw)
            encode_job(
                self._encode, self._parameters, self._feedback, out, self._worker, draw, self._key,
                self._memory.blocks, self._scratch,
            )  # fmt: skip
        return finite

    def go_back(self, mark: Mark) -> None:
        """Have the encoder remember what it did after the last job that counts."""
        self._memory.go_back(mark)

    @property
    def memory(self) -> np.ndarray:
        """What the encoder remembers, float of shape (n_blocks, dim, 1)."""
        return self._memory.blocks

    def of_another(self, worker: int) -> Computation:
        """Return that of a worker which never computes at the same time: they share their space."""
        other = copy(self)
        other._worker = worker
        n_blocks, dim, _ = self._memory.blocks.shape
        other._memory = Memory(n_blocks, dim, self._dtype)
        return other


def computation_of(context: RunContext, worker: int) -> Computation:
    """Return what a worker of a run computes."""
    return Computation(
        context.problem, context.dtype, context.key, worker, context.encoder, context.work
    )


def lineage_of(context: RunContext, fresh: bool) -> Lineage | None:
    """Return the lineage of a worker that begins; None where nothing is remembered."""
    if n_remembered(context.encoder) == 0:
        return None
    return Lineage(fresh or context.resumed)


def warm_up(context: RunContext) -> None:
    """Compute one gradient before the clock starts: kernels are compiled or loaded by it."""
    x, out = (np.zeros((context.problem.dim, 1), context.dtype) for _ in range(2))
    x[:, 0] = context.problem.x0
    computation_of(context, 0)(x, 0, out)


def worker_buffers(problem: Problem, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the working space of one worker: floats, and the identity that kernels pick from."""
    n_floats, n_picks = problem.workspace(1)
    return np.empty(n_floats, dtype), np.arange(n_picks)
