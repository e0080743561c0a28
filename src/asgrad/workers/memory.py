"""What a worker's encoder remembers, in a live run: it moves with what was delivered alone.

A worker may be at its next job before the server has dealt with the last, and learns only then that
the last was called off. So it keeps what it remembered before each job whose fate is not known yet,
and whoever gives it jobs says with each of them which earlier ones still count.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

import numpy as np

from asgrad.trace import Fate

__all__ = ["Lineage", "Mark", "Memory"]


class Job(Protocol):
    """What is looked at, and noted, in a job."""

    draw: int
    fate: Fate
    delivered: bool
    fresh: bool


class Mark(NamedTuple):
    """Which jobs stand before one, by their draws, −1 for none."""

    delivered: int
    """The last that the server is known to have taken: nothing up to it need be undone."""
    after: int
    """The last that counts: those between were called off."""


class Lineage:
    """The jobs of one worker that its memory has seen, as far as it may have to be undone.

    Parameters
    ----------
    fresh : bool
        The worker has forgotten what it remembered: it was started anew in the middle of a run.
    """

    def __init__(self, fresh: bool):
        self._fresh, self._delivered = fresh, -1
        self._jobs: deque[Job] = deque()

    def follow(self, job: Job) -> Mark:
        """Let a job start; say what stands before it, and note in it if that is forgotten."""
        while self._jobs and self._jobs[0].delivered:
            self._delivered = self._jobs.popleft().draw
        # Whatever was called off, all that its worker had not delivered was.
        for place, earlier in enumerate(self._jobs):
            if earlier.fate == Fate.CANCELLED:
                self._jobs = deque(list(self._jobs)[:place])
                break
        after = self._jobs[-1].draw if self._jobs else self._delivered
        job.fresh = self._fresh and after < 0
        self._jobs.append(job)
        return Mark(self._delivered, after)

    def drop(self, job: Job) -> None:
        """Forget a job that has failed: it has moved nothing."""
        self._jobs.remove(job)


class Memory:
    """The blocks that one worker remembers, and those before jobs that may have to be undone."""

    def __init__(self, n_blocks: int, dim: int, dtype: str):
        self.blocks = np.zeros((n_blocks, dim, 1), dtype)
        self._before: deque[tuple[int, np.ndarray]] = deque()

    def go_back(self, mark: Mark) -> None:
        """Undo what came after the last job that counts."""
        while self._before and self._before[-1][0] > mark.after:
            self.blocks = self._before.pop()[1]
        while self._before and self._before[0][0] <= mark.delivered:
            self._before.popleft()

    def keep(self, draw: int) -> None:
        """Keep what is remembered before a job."""
        self._before.append((draw, self.blocks.copy()))
