"""What the server knows of one worker that is an actor."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

from asgrad.workers.base import Arrival, Job, Record, failed
from asgrad.workers.memory import Lineage
from asgrad.workers.ray.shared_memory import OwnPlaces

__all__ = ["Status", "Worker"]


class Status(Enum):
    """How a worker stands."""

    STARTING = auto()
    READY = auto()
    LEFT = auto()
    GONE = auto()


@dataclass
class Worker:
    """One worker: its actor, if it has one, and its jobs."""

    actor_class: Any
    """Ray's, with the options of this worker."""
    arguments: tuple[Any, ...]
    """Of its actors."""
    record: Record
    actor: Any = None
    compute: Any = None
    pid: int = 0
    status: Status = Status.STARTING
    begun_at: float = math.inf
    """When the process of an actor that starts was seen to run."""
    left_at: float = -math.inf
    places: OwnPlaces | None = None
    running: Job | None = None
    waiting: deque[tuple[Job, Any]] = field(default_factory=deque)
    failure: str = ""
    lineage: Lineage | None = None
    """Of what its actor's encoder remembers."""

    def start(self) -> Any:
        """Start an actor; return the call that ends when its process runs."""
        self.status, self.begun_at = Status.STARTING, math.inf
        self.actor = self.actor_class.remote(*self.arguments)
        # Events of every call, for Ray's dashboard, would cost more than a small gradient.
        self.compute = self.actor.compute.options(enable_task_events=False)
        return self.actor.begun.remote()

    def is_starting(self, actor: Any) -> bool:
        """Say whether it waits for this actor to start, and for no later one."""
        return actor is self.actor and self.status == Status.STARTING

    def stop(self, status: Status) -> None:
        """Note that the actor is killed."""
        self.status, self.pid, self.places = status, 0, None

    def abandoned(self, why: str) -> list[Arrival]:
        """Give all jobs up; return that they are lost."""
        jobs = [self.running] if self.running else []
        jobs += [job for job, _ in self.waiting]
        self.running = None
        self.waiting.clear()
        return [failed(job, why, gone=True) for job in jobs]
