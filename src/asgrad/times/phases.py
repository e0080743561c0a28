"""Times that some jobs, or some while, take longer: mixtures, and slow and fast phases."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_fraction, check_positive
from asgrad.kernels import inlined
from asgrad.streams import mix, uniform
from asgrad.times.base import Clock, Slowing
from asgrad.times.conditions import Condition

__all__ = ["Mixture", "Phases", "slowness"]

_OF_MIXTURE, _OF_PHASES = 1 << 50, 1 << 51  # streams beside that of the times


@inlined
def slowness(slowing, key, worker, draw, start):
    """Return how many times longer a job takes that starts now; a worker's starts never fall."""
    longer = 1.0
    numbers, phases = slowing.numbers, slowing.phases
    if numbers[0] > 0.0:
        stream = np.int64(mix(mix(key, _OF_MIXTURE), worker))
        if uniform(stream, draw) < numbers[0]:
            longer = numbers[1]
    if phases.size > 0:
        stream = np.int64(mix(mix(key, _OF_PHASES), worker))
        while phases[worker]["until"] <= start:  # an even phase is fast
            index = phases[worker]["index"] + 1
            mean = numbers[3] if index % 2 == 0 else numbers[4]
            phases[worker]["index"] = index
            phases[worker]["until"] -= mean * math.log(uniform(stream, index))
        if phases[worker]["index"] % 2 == 1:
            longer *= numbers[2]
    return longer


@dataclass(frozen=True)
class Mixture(Condition):
    """A job takes k times as long with probability q: a mixture of a law and its multiple.

    Parameters
    ----------
    share : float in [0, 1]
        q.
    factor : float > 0
        k.
    """

    share: float = 0.1
    factor: float = 10.0

    name: ClassVar[str] = "mixture"
    about: ClassVar[str] = "single jobs"

    def __post_init__(self) -> None:
        check_fraction("Mixture", "share", self.share)
        check_positive("Mixture", "factor", self.factor)

    def add_to(self, clock: Clock, n_workers: int) -> Clock:
        """Return the clock with longer jobs among the others."""
        numbers = clock.slowing.numbers.copy()
        numbers[:2] = self.share, self.factor
        return clock._replace(slowing=clock.slowing._replace(numbers=numbers))


@dataclass(frozen=True)
class Phases(Condition):
    """Every worker is fast for a while, then slow for a while; a job's time is set at its start.

    The phases follow one another by exponential times, of each worker by itself; all begin fast. A
    job that starts in a slow phase takes k times as long, whatever comes after.

    Parameters
    ----------
    factor : float > 0
        k.
    fast_time, slow_time : float > 0
        The mean lengths of the phases, in seconds.
    """

    factor: float = 5.0
    fast_time: float = 100.0
    slow_time: float = 20.0

    name: ClassVar[str] = "phases"
    about: ClassVar[str] = "phases"

    def __post_init__(self) -> None:
        for name in ("factor", "fast_time", "slow_time"):
            check_positive("Phases", name, getattr(self, name))

    def add_to(self, clock: Clock, n_workers: int) -> Clock:
        """Return the clock with slow phases."""
        numbers = clock.slowing.numbers.copy()
        numbers[2:5] = self.factor, self.fast_time, self.slow_time
        phases = np.zeros(n_workers, clock.slowing.phases.dtype)
        phases["index"] = -1
        return clock._replace(slowing=Slowing(numbers, phases))
