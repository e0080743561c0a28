"""How long a job takes: given a worker, its draw and the moment it starts, the seconds."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numba import types

from asgrad.errors import AsgradError, KindError, as_number, n_axes, shown
from asgrad.kernels import inlined
from asgrad.registry import label
from asgrad.streams import Purpose, job_stream, mix, stream_key

__all__ = [
    "CHANGES",
    "CodeBytes",
    "LINK",
    "SECONDS",
    "SERVER_LINK",
    "AnyTimes",
    "Changes",
    "Clock",
    "Scale",
    "ScaledTimes",
    "Slowing",
    "Times",
    "check_scale",
    "scales_of",
    "worker_key",
]

SECONDS = types.float64(
    types.float64[::1], types.float64, types.int64, types.int64, types.int64, types.float64
)
"""seconds(scales, shape, key, worker, draw, start): how long this job of this worker takes."""

_ASKED_WORKERS = (0.0, 0.25, 0.5, 0.75, 1.0)  # by their place among all
_ASKED_DRAWS = 3

CodeBytes = Callable[[int, int], float]
"""How many bytes a gradient takes on its way, from its dimension and the bytes of a number."""
Scale = float | str | Sequence[float]
"""One number for all workers, one number each, "linear" (s_i = i) or "sqrt" (s_i = √i), i >= 1."""


# The phase that a worker is in, and until when.
PHASES = np.dtype([("until", np.float64), ("index", np.int64)])
# A worker's link: seconds that a message occupies it each way, its latency, when it is free again;
# and the list of the jobs whose gradients are on their way, as slots of the ledger.
LINK = np.dtype(
    [(name, np.float64) for name in ("download", "upload", "latency", "down_free", "up_free")]
    + [("head", np.int64), ("tail", np.int64)]
)
# The server's link, which all share.
SERVER_LINK = np.dtype(
    [(name, np.float64) for name in ("download", "upload", "down_free", "up_free")]
)
# How often a worker has gone or come back, and when it does: by mean times, of which the last
# ended at `until`, or by moments that stand in a list.
CHANGES = np.dtype(
    [(name, np.float64) for name in ("uptime", "downtime", "until")]
    + [(name, np.int64) for name in ("index", "first", "end")]
)


class Slowing(NamedTuple):
    """What makes some jobs take longer than others."""

    numbers: np.ndarray
    """float64: share and factor of a mixture; factor, fast and slow mean times of phases."""
    phases: np.ndarray
    """PHASES of shape (n_workers,); empty without phases."""


class Changes(NamedTuple):
    """When workers go and come back."""

    own: np.ndarray
    """CHANGES of shape (n_workers,); empty where all stay."""
    moments: np.ndarray
    """float64; empty where the times are random."""


NO_SLOWING = Slowing(np.zeros(5), np.zeros(0, PHASES))
NO_CHANGES = Changes(np.zeros(0, CHANGES), np.zeros(0))


class Clock(NamedTuple):
    """Worker times made ready for a run of `n_workers` workers; the run owns what changes."""

    scales: np.ndarray
    """float64, s_i of every worker."""
    shape: float
    """A second parameter of the distribution, where it has one."""
    key: int
    """The random stream."""
    seconds: Callable
    """See `SECONDS`; compiled, or a Python function."""
    slowing: Slowing = NO_SLOWING
    links: np.ndarray = np.zeros(0, LINK)
    """Empty where messages take no time."""
    server: np.ndarray = np.zeros(1, SERVER_LINK)
    changes: Changes = NO_CHANGES


class AnyTimes(ABC):
    """How long each job takes, compiled or in plain Python (`Times`)."""

    name: ClassVar[str] = ""

    @abstractmethod
    def begin(self, n_workers: int, seed: int) -> Clock:
        """Return the clock of a run; random times follow from `seed`."""

    def sized(self, code: CodeBytes, dim: int | None = None, itemsize: int = 8) -> AnyTimes:
        """Return the times where messages have the bytes that are left open, as far as known.

        Parameters
        ----------
        code : callable
            Of how many bytes a gradient's code is, code(dim, itemsize).
        dim, itemsize : int
            How many numbers a model has, if that is known, and their bytes.
        """
        return self

    @property
    def label(self) -> str:
        """The times with their parameters, as the command line takes them."""
        return label(self)


class Times(AnyTimes):
    """How long each job takes. Subclass it, with `seconds`, for worker times of your own.

    `seconds` must answer the same when asked again. Random times take a further parameter `rng`, a
    `numpy.random.Generator` that is fixed by the run's seed, the worker and the draw:

        def seconds(self, worker, draw, start, rng):
            return rng.exponential(worker + 1)
    """

    @abstractmethod
    def seconds(self, worker: int, draw: int, start: float) -> float:
        """Return how many seconds the `draw`-th job of `worker` takes if it starts at `start`."""

    def begin(self, n_workers: int, seed: int) -> Clock:
        """Return the clock of a run; random times follow from `seed`.

        Raises
        ------
        AsgradError
            If the times come from a random generator of their own, which no seed fixes.
        """
        takes_rng = _takes_rng(self.seconds)

        def seconds(
            scales: np.ndarray, shape: float, key: int, worker: int, draw: int, start: float
        ) -> float:
            more = {}
            if takes_rng:
                stream = job_stream(key, worker, draw) & (2**63 - 1)
                more["rng"] = np.random.default_rng(stream)
            found = self.seconds(int(worker), int(draw), float(start), **more)
            return as_number(type(self).__name__, f"seconds of worker {worker}, draw {draw}", found)

        clock = Clock(np.ones(n_workers), 0.0, stream_key(seed, Purpose.TIMES), seconds)
        for worker in sorted({round(share * (n_workers - 1)) for share in _ASKED_WORKERS}):
            for draw in range(_ASKED_DRAWS):
                self._check_repetition(clock, worker, draw)
        return clock

    def _check_repetition(self, clock: Clock, worker: int, draw: int) -> None:
        """Refuse times that are others when they are asked for again."""
        try:
            # Several times, since integers that are drawn at random may agree by chance.
            answers = [clock.seconds(*clock[:3], worker, draw, 0.0) for _ in range(4)]
        except Exception:  # if the run gets there, it shows
            return
        if not np.array_equal(answers, answers[:1] * 4, equal_nan=True):
            other = next(answer for answer in answers if answer != answers[0])
            raise AsgradError(
                f"{type(self).__name__}: seconds(worker={worker}, draw={draw}, start=0.0) must "
                f"answer the same when asked again, got {answers[0]:g}, then {other:g}; draw "
                "random times from a parameter `rng`, which seconds is then given."
            )


def _takes_rng(seconds: Callable) -> bool:
    """Whether a user's function has a parameter `rng`."""
    try:
        return "rng" in inspect.signature(seconds).parameters
    except ValueError:  # written in another language
        return False


@dataclass(frozen=True, repr=False)
class ScaledTimes(AnyTimes):
    """A distribution with a scale s_i for every worker; concrete classes choose the kernel."""

    scale: Scale = "linear"

    kernel: ClassVar[Callable]

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", check_scale(type(self).__name__, "scale", self.scale))

    def __repr__(self) -> str:
        """The parameters; many scales in short."""
        said = (f"{each.name}={shown(getattr(self, each.name))}" for each in fields(self))
        return f"{type(self).__name__}({', '.join(said)})"

    @property
    def shape(self) -> float:
        """The distribution's second parameter."""
        return 0.0

    def scales(self, n_workers: int) -> np.ndarray:
        """Return s_i for every worker, float64 of shape (n_workers,)."""
        return scales_of(type(self).__name__, "scale", self.scale, n_workers)

    def begin(self, n_workers: int, seed: int) -> Clock:
        """Return the clock of a run; random times follow from `seed`."""
        key = stream_key(seed, Purpose.TIMES)
        return Clock(self.scales(n_workers), self.shape, key, type(self).kernel)


def scales_of(
    owner: str, name: str, scale: Scale, n_workers: int, *, infinite: bool = False
) -> np.ndarray:
    """Return a scale as one number a worker, float64 of shape (n_workers,)."""
    index = np.arange(1, n_workers + 1, dtype=np.float64)
    if isinstance(scale, str):
        scales = index if scale == "linear" else np.sqrt(index)
    elif isinstance(scale, tuple):
        scales = np.array(scale)
    else:
        scales = np.full(n_workers, float(scale))  # type: ignore[arg-type]
    if scales.shape != (n_workers,):
        raise AsgradError(
            f"{owner}: {name} must hold one number for each of the {n_workers} workers, "
            f"got {scales.size}."
        )
    good = (scales >= 0) & (np.isfinite(scales) | infinite)
    if not good.all():
        worker = int(np.argmin(good))
        rule = ">= 0" if infinite else "finite and >= 0"
        raise AsgradError(
            f"{owner}: {name} must be {rule}, got {scales[worker]:g} for worker {worker}."
        )
    return scales


def check_scale(owner: str, name: str, scale: Any) -> Scale:
    """Return a scale as a word, a number, or a tuple of numbers."""
    if isinstance(scale, str):
        if scale not in ("linear", "sqrt"):
            raise AsgradError(
                f"{owner}: {name} must be a number, a number for every worker, 'linear' or 'sqrt', "
                f"got {scale!r}."
            )
        return scale
    if n_axes(scale) == 0:
        return as_number(owner, name, scale)
    if n_axes(scale) > 1:
        raise KindError(f"{owner}: {name} must hold one number a worker, got {shown(scale)}.")
    return tuple(as_number(owner, name, number) for number in scale)


@inlined
def worker_key(key, worker):
    """Return the stream of one worker's times; its numbers are indexed by the draw."""
    return np.int64(mix(key, worker))
