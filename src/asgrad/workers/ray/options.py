"""Workers that are actors of a Ray cluster, or of a Ray that is started on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asgrad.errors import AsgradError, KindError, check_choice, check_positive, shown
from asgrad.workers.base import Limits, Record, RunContext, Workers, check_slowdown
from asgrad.workers.ray.connection import connect, imported
from asgrad.workers.ray.session import RaySession

__all__ = ["Ray"]


@dataclass(frozen=True)
class Ray(Workers):
    """Workers that are actors of Ray, one call in flight each.

    Arrivals are taken in the order in which they reach the server; where several wait for it, the
    jobs that they lead to all read the model after the last of them. A model version above 100 kB
    (1 MB in a Ray that is started here) is put into Ray's object store once, for all jobs that read
    it, and freed with the last of them; a smaller one travels with the call. A worker on this
    machine writes gradients above 100 kB where the server reads them. A job lasts from the call to
    its result's arrival.

    A job that is called off before it is sent is not computed; one that an actor is at is, to its
    end, and what comes of it is thrown away.

    An actor that dies is started anew, up to `restarts` times; until it is there, and while the
    cluster has no room for it, its worker is away. Nodes may come and go during a run.

    Parameters
    ----------
    n_workers : int, optional
        If given, must be the problem's.
    address : str, optional
        Of a running cluster, "auto" for the one of this machine; by default, unless Ray is
        connected already, a Ray of its own is started here and stopped in the end.
    cpus, gpus : float >= 0 or a sequence of them, one a worker
        What each actor asks for.
    resources : mapping, or a sequence of them, one a worker, optional
        Custom resources, by which Ray chooses the node, for instance {"a100": 1}.
    strategy : "DEFAULT" or "SPREAD"
        Ray's scheduling strategy.
    slowdown : sequence of float >= 1, optional
        Each worker's factor, to stage unequal machines.
    deadline, least_deadline, first_deadline, restarts
        As for `Threads`; a worker that hangs is killed and started anew.
    start_deadline : float > 0
        Seconds that an actor may take from the start of its process to the end of its first
        gradient, data and compilation included; past them it is killed and started anew. While the
        cluster has no room for it, it waits as long as it takes.
    patience : float > 0
        Seconds to wait for workers at the start; those that come later join then. A run in which
        nobody works any more waits as long for one that has left.
    """

    n_workers: int | None = None
    address: str | None = None
    cpus: float | Sequence[float] = 1.0
    gpus: float | Sequence[float] = 0.0
    resources: Mapping[str, float] | Sequence[Mapping[str, float]] | None = None
    strategy: str = "DEFAULT"
    slowdown: Sequence[float] | None = None
    deadline: float = 50.0
    least_deadline: float = 10.0
    first_deadline: float = 3600.0
    restarts: int = 3
    patience: float = 60.0
    start_deadline: float = 300.0

    def __post_init__(self) -> None:
        Limits.of(self)
        check_positive("Ray", "patience", self.patience)
        check_positive("Ray", "start_deadline", self.start_deadline)
        check_choice("strategy", self.strategy, ("DEFAULT", "SPREAD"))

    def open(self, context: RunContext) -> RaySession:
        """Start the actors and wait until they are ready."""
        n, limits = context.problem.n_workers, Limits.of(self)
        limits.check_workers(n)
        slowdown = check_slowdown("Ray", self.slowdown, n)
        options = [self._asked_for(worker, n) for worker in range(n)]
        ray = imported()
        connection = connect(ray, self.address, sum(each["num_cpus"] for each in options))
        session = RaySession(connection, context, self.patience, self.start_deadline)
        try:
            session.start(options, slowdown, [Record(limits) for _ in range(n)])
        except BaseException:
            session.close()
            raise
        return session

    def _asked_for(self, worker: int, n: int) -> dict[str, Any]:
        """Return Ray's options of a worker's actors; Ray itself is to repeat nothing."""
        return {
            "num_cpus": _of(self.cpus, "cpus", worker, n),
            "num_gpus": _of(self.gpus, "gpus", worker, n),
            "resources": _of(self.resources or {}, "resources", worker, n),
            "scheduling_strategy": self.strategy,
            "max_restarts": 0,
            "max_task_retries": 0,
        }


def _of(value: Any, name: str, worker: int, n: int) -> Any:
    """Return a worker's own value."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) != n:
            raise AsgradError(
                f"Ray: {name} must hold one value for each of the {n} workers, got {len(value)}."
            )
        value = value[worker]
    if name != "resources":
        return check_positive("Ray", name, value, zero=True)
    if not isinstance(value, Mapping):
        raise KindError(
            f"Ray: resources must map names to amounts, for instance {{'a100': 1}}, got "
            f"{shown(value)}."
        )
    return {key: check_positive("Ray", key, amount, zero=True) for key, amount in value.items()}
