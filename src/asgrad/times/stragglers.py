"""A share of the workers is slower than the others."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from asgrad.errors import KindError, check_fraction, check_positive
from asgrad.times.base import AnyTimes, Clock, ScaledTimes
from asgrad.times.fixed import Fixed

__all__ = ["Stragglers"]


@dataclass(frozen=True)
class Stragglers(AnyTimes):
    """The last ⌈q n⌉ workers have a scale s_i that is k times larger than `times` says.

    So they are k times slower wherever the time is proportional to the scale: fixed, uniform,
    exponential, log-normal, and in the mean Poisson.

    Parameters
    ----------
    share : float in [0, 1]
        q, the share of stragglers.
    slowdown : float > 0
        k: a straggler's s_i is multiplied by it.
    times : ScaledTimes
        The times of all workers before the slowdown; by default 1 second for every job.
    """

    share: float = 0.1
    slowdown: float = 5.0
    times: ScaledTimes = field(default_factory=Fixed)

    name: ClassVar[str] = "stragglers"

    def __post_init__(self) -> None:
        check_fraction("Stragglers", "share", self.share)
        check_positive("Stragglers", "slowdown", self.slowdown)
        if not isinstance(self.times, ScaledTimes):
            raise KindError(
                f"Stragglers: times must be worker times with a scale, got {self.times!r}."
            )

    def begin(self, n_workers: int, seed: int) -> Clock:
        """Return the clock of a run; random times follow from `seed`."""
        clock = self.times.begin(n_workers, seed)
        n_slow = math.ceil(self.share * n_workers - 1e-9)
        slow = np.arange(n_workers) >= n_workers - n_slow
        return clock._replace(scales=np.where(slow, self.slowdown, 1.0) * clock.scales)
