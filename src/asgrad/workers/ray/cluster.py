"""Workers as actors of a Ray cluster, or of a Ray that is started on this machine."""

from __future__ import annotations

import math
import os
import queue
import secrets
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import numpy as np

from asgrad.errors import (
    AsgradError,
    KindError,
    check_choice,
    check_integer,
    check_positive,
    in_one_line,
    shown,
)
from asgrad.machine import processors
from asgrad.trace import Fate
from asgrad.workers.base import (
    Arrival,
    Job,
    Joined,
    Limits,
    Record,
    RunContext,
    arrival_of,
    check_slowdown,
    failed,
)
from asgrad.workers.ray.actor import HEAD, INLINE, Actor
from asgrad.workers.ray.shared_memory import Loan, OwnPlaces

__all__ = ["Ray"]

_INLINE_HERE = 1_000_000  # the same for objects of a Ray that is started for this run
_KNOCK = 5.0  # seconds to wait for a cluster's address to answer
_BETWEEN_LOOKS = 0.5  # seconds after which deadlines are looked at again


class _Status(Enum):
    """How a worker stands."""

    STARTING = auto()
    READY = auto()
    LEFT = auto()
    GONE = auto()


@dataclass
class Ray:
    """An engine whose workers are Ray actors, one call in flight each.

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

    _workers: list[_Worker] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        self._limits = Limits(
            "Ray",
            self.n_workers,
            self.deadline,
            self.least_deadline,
            self.first_deadline,
            self.restarts,
        )
        check_positive("Ray", "patience", self.patience)
        check_positive("Ray", "start_deadline", self.start_deadline)
        check_choice("strategy", self.strategy, ("DEFAULT", "SPREAD"))

    def open(self, context: RunContext) -> None:
        """Start the actors and wait until they are ready."""
        problem = context.problem
        n = problem.n_workers
        self._limits.check_workers(n)
        slowdown = check_slowdown("Ray", self.slowdown, n)
        options = [
            {
                "num_cpus": _of(self.cpus, "cpus", worker, n),
                "num_gpus": _of(self.gpus, "gpus", worker, n),
                "resources": _of(self.resources or {}, "resources", worker, n),
                "scheduling_strategy": self.strategy,
                "max_restarts": 0,
                "max_task_retries": 0,
            }
            for worker in range(n)
        ]
        self._ray = _imported()
        self._now = context.now
        self._events: queue.SimpleQueue[tuple[Callable, tuple]] = queue.SimpleQueue()
        self._arrivals: list[Arrival | Joined] = []
        self._latest: tuple[int, Any] = (-1, None)
        self._problem: Any = None
        self._next_look = 0.0
        self._inline, self._dim, self._dtype = INLINE, problem.dim, context.dtype
        self._owns_ray = self._connect(sum(o["num_cpus"] for o in options))
        try:
            self._start_all(context, slowdown, options)
        except BaseException:
            self.close()
            raise

    def _start_all(
        self, context: RunContext, slowdown: list[float], options: list[dict[str, Any]]
    ) -> None:
        """Start the actors and wait for those of the first jobs."""
        n = len(options)
        actor_class = self._ray.remote(Actor)
        try:
            shared = self._ray.put(context.problem)
        except Exception as error:  # pickle's own, or what __getstate__ raises
            raise AsgradError(
                "Ray: the problem cannot be sent to workers in other processes: "
                f"{in_one_line(error.__cause__ or error)}. Make it of data that can be pickled, "
                "or use ag.Threads."
            ) from error
        self._problem = shared
        self._workers = [
            _Worker(
                actor_class.options(**options[i]),
                (context.key, context.dtype, i, slowdown[i], self._inline, context.encoder),
                Record(self._limits),
            )
            for i in range(n)
        ]
        for worker in range(n):
            self._start(worker)
        self._await_first(options)

    def submit(self, job: Job, x: np.ndarray) -> bool:
        """Queue a job for its worker; False if the worker is away."""
        worker = self._workers[job.worker]
        if worker.status != _Status.READY:
            return False
        model: Any = x
        if x.nbytes > self._inline:
            if self._latest[0] != job.read_step:
                self._latest = job.read_step, self._ray.put(x)
            model = self._latest[1]
        worker.waiting.append((job, model))
        self._send_next(worker)
        return True

    def wait(self, seconds: float) -> Sequence[Arrival | Joined]:
        """Return all that has happened, in order of arrival; nothing after `seconds`.

        Nothing is delivered from Ray's own thread, which must not wait for the server.
        """
        end = time.monotonic() + seconds
        while not self._arrivals:
            self._act(max(min(end - time.monotonic(), _BETWEEN_LOOKS), 0.0))
            if time.monotonic() >= self._next_look:
                self._kill_late()
                self._next_look = time.monotonic() + _BETWEEN_LOOKS
            if time.monotonic() >= end:
                break
        happened, self._arrivals = self._arrivals, []
        return happened

    def _act(self, seconds: float) -> None:
        """Do what is to be done by the server's thread; wait for the first so long."""
        try:
            act, arguments = self._events.get(timeout=seconds)
            while True:
                act(*arguments)
                act, arguments = self._events.get_nowait()
        except queue.Empty:
            return

    def may_join(self) -> bool:
        """Say whether an actor is starting, waits for room, or has left a short while ago."""
        since = time.monotonic() - self.patience
        return any(
            worker.status == _Status.STARTING
            or (worker.status == _Status.LEFT and worker.left_at > since)
            for worker in self._workers
        )

    def leave(self, worker: int) -> None:
        """Let a worker leave the run, from any thread; its jobs are lost."""
        self._tell(self._left, worker)

    def join(self, worker: int) -> None:
        """Let a worker that left, or is gone, join the run again, from any thread."""
        self._tell(self._joins, worker)

    def _tell(self, act: Callable, worker: int) -> None:
        """Have the server's thread do something to a worker."""
        if not self._workers:
            raise AsgradError("Ray: no run is under way that a worker could leave or join.")
        check_integer("Ray", "worker", worker, minimum=0, maximum=len(self._workers) - 1)
        self._events.put((act, (worker,)))

    @property
    def pids(self) -> list[int]:
        """The process of each worker, on whichever node it is; 0 where there is none."""
        return [worker.pid for worker in self._workers]

    def close(self) -> None:
        """Kill the actors; stop Ray if it was started here."""
        for worker in self._workers:
            if worker.actor is not None:
                self._ray.kill(worker.actor)
        self._workers, self._latest, self._problem = [], (-1, None), None
        if self._owns_ray:
            self._ray.shutdown()
        self._events, self._arrivals = queue.SimpleQueue(), []  # they may hold gradients

    def _connect(self, n_cpus: float) -> bool:
        """Connect to the cluster; say whether a Ray was started here."""
        if self._ray.is_initialized():
            return False
        quiet = {"log_to_driver": False, "logging_level": "error"}
        if self.address is not None:
            _knock(self.address)
            try:
                self._ray.init(address=self.address, **quiet)
            except Exception as error:  # some are of Ray's own kinds
                reason = in_one_line(error).rstrip(".")
                raise AsgradError(
                    f"Ray: no cluster at {self.address}: {reason}. If it asks for a token, set "
                    "RAY_AUTH_MODE=token here too; the token is the one in ~/.ray/auth_token."
                ) from error
            return True
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        if not os.access(os.path.expanduser("~"), os.W_OK):  # where Ray would keep its token
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        room = max(processors(), math.ceil(n_cpus))  # more workers than cores are allowed
        self._inline = _INLINE_HERE
        limits = {
            "max_direct_call_object_size": _INLINE_HERE,
            "task_rpc_inlined_bytes_limit": 100 * _INLINE_HERE,
            "free_objects_batch_size": 1,  # at once: fresh memory costs more than a copy
            "event_stats": False,  # of every small message, for Ray's own developers
        }
        with _loopback_only():
            self._ray.init(
                address="local",  # not a cluster that runs here already
                num_cpus=room,
                include_dashboard=False,
                _system_config=limits,
                **quiet,
            )
        return True

    def _start(self, index: int) -> None:
        """Start a worker's actor; it reports when it is ready."""
        worker = self._workers[index]
        worker.status, worker.begun_at = _Status.STARTING, math.inf
        worker.actor = worker.actor_class.remote(*worker.arguments)
        # Events of every call, for Ray's dashboard, would cost more than a small gradient.
        worker.compute = worker.actor.compute.options(enable_task_events=False)
        self._follow(worker.actor.begun.remote(), self._has_begun, index, worker.actor)

    def _new_places(self) -> OwnPlaces | None:
        """Return memory for an actor's gradients, in case that it is on this machine."""
        if self._dim * np.dtype(self._dtype).itemsize <= INLINE:
            return None
        try:
            return OwnPlaces(self._dim, self._dtype)
        except OSError:
            return None

    def _await_first(self, options: list[dict[str, Any]]) -> None:
        """Wait for the workers of the first jobs; later ones will join."""
        end = time.monotonic() + self.patience
        while self.may_join() and (left := end - time.monotonic()) > 0:
            self._act(min(left, _BETWEEN_LOOKS))
            self._kill_late()
        self._arrivals.clear()  # all are present at the start
        if not any(worker.status == _Status.READY for worker in self._workers):
            failure = next((worker.failure for worker in self._workers if worker.failure), "")
            if failure:
                raise AsgradError(f"Ray: no worker could start: {failure}")
            n_begun = sum(worker.begun_at < math.inf for worker in self._workers)
            if n_begun:
                raise AsgradError(
                    f"Ray: no worker was ready within {self.patience:g} s: {n_begun} have started, "
                    "none has ended its first gradient, data and compilation included. Give more "
                    "patience if that takes long."
                )
            raise AsgradError(
                f"Ray: no worker was ready within {self.patience:g} s: each asks for "
                f"{options[0]['num_cpus']:g} CPUs, {options[0]['num_gpus']:g} GPUs and "
                f"{options[0]['resources'] or 'no other resources'}, the cluster has "
                f"{self._ray.cluster_resources()}."
            )

    def _follow(self, ref: Any, act: Callable, *arguments: Any) -> None:
        """Have `act(*arguments, future)` done by the server's thread when a call has ended."""
        events = self._events  # of this run; the engine may be used for another
        ref.future().add_done_callback(lambda future: events.put((act, (*arguments, future))))

    def _has_begun(self, index: int, actor: Any, future: Any) -> None:
        """Give an actor whose process runs the problem; its deadline counts from here."""
        worker = self._workers[index]
        if actor is not worker.actor or worker.status != _Status.STARTING:
            return
        error = future.exception()
        if error is not None:
            self._restart(index, in_one_line(error))
            return
        worker.pid, worker.begun_at = future.result(), time.monotonic()
        places = self._new_places()
        ref = actor.ready.remote(self._problem, places and places.address)
        self._follow(ref, self._is_ready, index, actor, places)

    def _is_ready(self, index: int, actor: Any, places: OwnPlaces | None, future: Any) -> None:
        """Note that an actor has started, or could not."""
        worker = self._workers[index]
        if actor is not worker.actor or worker.status != _Status.STARTING:
            return
        error = future.exception()
        if error is None:
            worker.status = _Status.READY
            worker.places = places if future.result() else None
            self._arrivals.append(Joined(index))
        else:
            self._restart(index, in_one_line(error))

    def _restart(self, index: int, why: str) -> None:
        """Kill a worker's actor and start another, unless it has failed too often."""
        worker = self._workers[index]
        worker.failure = why
        self._kill(index, _Status.GONE)
        if not worker.record.fail():
            self._start(index)

    def _kill(self, index: int, status: _Status) -> None:
        """Kill a worker's actor."""
        worker = self._workers[index]
        self._ray.kill(worker.actor)
        worker.status, worker.pid, worker.places = status, 0, None

    def _send_next(self, worker: _Worker) -> None:
        """Send a worker the next job that is still wanted, if it is free."""
        while worker.running is None and worker.waiting:
            job, model = worker.waiting.popleft()
            if job.fate != Fate.IN_FLIGHT:
                continue  # called off while it waited
            worker.running = job
            job.start_time = self._now()
            loan = worker.places.lend() if worker.places else None
            head = HEAD.pack(job.draw, loan.place if loan else -1)
            if isinstance(model, np.ndarray):  # bytes: Ray sends them with the least ado
                ref = worker.compute.remote(b"".join((head, model.data)))
            else:
                ref = worker.compute.remote(head, model)
            self._follow(ref, self._has_ended, job, worker.actor, loan)

    def _has_ended(self, job: Job, actor: Any, loan: Loan | None, future: Any) -> None:
        """Take a job's result, or why there is none."""
        worker = self._workers[job.worker]
        if actor is not worker.actor or worker.running is not job:
            return  # of an actor that was given up
        error = future.exception()
        if error is None:
            worker.running = None
            worker.record.took.append(self._now() - job.start_time)
            found = future.result()
            if found is None and loan is not None:
                found = loan.array
            elif isinstance(found, bytes):
                found = np.frombuffer(found, self._dtype).reshape(-1, 1)
            self._arrivals.append(arrival_of(job, found))
        elif isinstance(error, self._ray.exceptions.RayTaskError):
            worker.running = None
            gone = worker.record.fail()
            why = in_one_line(error)
            self._arrivals.append(failed(job, why, gone=gone))
            if gone:
                self._abandon(job.worker, why)
                self._kill(job.worker, _Status.GONE)
        else:
            why = in_one_line(error)
            self._abandon(job.worker, why)
            self._restart(job.worker, why)
        self._send_next(worker)

    def _abandon(self, index: int, why: str) -> None:
        """Report all jobs of a worker as lost."""
        worker = self._workers[index]
        jobs = [worker.running] if worker.running else []
        jobs += [job for job, _ in worker.waiting]
        worker.running = None
        worker.waiting.clear()
        self._arrivals += [failed(job, why, gone=True) for job in jobs]

    def _kill_late(self) -> None:
        """Give up workers whose job, or start, is past its deadline."""
        for index, worker in enumerate(self._workers):
            job, limit = worker.running, worker.record.deadline
            if job is not None and self._now() - job.start_time > limit:
                why = f"no answer within {limit:.3g} s"
                self._abandon(index, why)
                self._restart(index, why)
            starting = worker.status == _Status.STARTING
            if starting and time.monotonic() - worker.begun_at > self.start_deadline:
                self._restart(index, f"not ready within {self.start_deadline:.3g} s")

    def _left(self, index: int) -> None:
        """Carry out `leave`."""
        worker = self._workers[index]
        if worker.status in (_Status.READY, _Status.STARTING):
            self._abandon(index, "the worker left")
            self._kill(index, _Status.LEFT)
            worker.left_at = time.monotonic()

    def _joins(self, index: int) -> None:
        """Carry out `join`."""
        worker = self._workers[index]
        if worker.status in (_Status.LEFT, _Status.GONE):
            worker.record.failures = 0
            self._start(index)


@dataclass
class _Worker:
    """What the server knows of one worker."""

    actor_class: Any
    arguments: tuple[Any, ...]
    record: Record
    actor: Any = None
    compute: Any = None
    pid: int = 0
    status: _Status = _Status.STARTING
    begun_at: float = math.inf
    """When the process of an actor that starts was seen to run."""
    left_at: float = -math.inf
    places: OwnPlaces | None = None
    running: Job | None = None
    waiting: deque[tuple[Job, Any]] = field(default_factory=deque)
    failure: str = ""


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


@contextmanager
def _loopback_only() -> Iterator[None]:
    """Let a Ray that starts listen on the loopback interface only, where nobody else can reach it.

    Ray does so by itself on systems on which it makes no clusters; it has no option for others.
    """
    try:
        from ray._private import ray_constants
    except ImportError:  # another version of Ray: what it listens on is its own choice
        yield
        return
    before = getattr(ray_constants, "ENABLE_RAY_CLUSTER", None)
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _knock(address: str) -> None:
    """Refuse an address where nobody listens; Ray itself would try for more than a minute."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not (colon and port.isdecimal()):
        return  # "auto" and the like
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()
    except (OSError, OverflowError, ValueError) as error:
        raise AsgradError(
            f"Ray: no cluster at {address}: {error}. Start one there with ray start --head, or "
            "leave the address out."
        ) from error


def _imported() -> Any:
    """Return the module ray."""
    try:
        import ray
    except ImportError as error:
        raise AsgradError("the Ray engine needs Ray: pip install 'asgrad[ray]'.") from error
    return ray
