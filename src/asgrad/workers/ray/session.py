"""The actors of one live run, as its server deals with them."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asgrad.encoders.sparse import Sparse, unpack
from asgrad.errors import AsgradError, check_integer, in_one_line
from asgrad.trace import Fate
from asgrad.workers.base import (
    LOOK,
    Arrival,
    Job,
    Joined,
    Record,
    RunContext,
    Session,
    arrival_of,
    failed,
    lineage_of,
)
from asgrad.workers.ray.actor import HEAD, INLINE, Actor
from asgrad.workers.ray.connection import Connection
from asgrad.workers.ray.shared_memory import Loan, OwnPlaces
from asgrad.workers.ray.worker import Status, Worker

__all__ = ["RaySession"]


class RaySession(Session):
    """The actors of one run.

    Everything is done by the thread that runs `train`. What other threads want, Ray's and those
    that call `leave` and `join`, waits in a queue of things to do, which `wait` empties.

    Parameters
    ----------
    connection : Connection
        Closed with the session.
    context : RunContext
    patience, start_deadline : float
        As in `Ray`.
    """

    def __init__(
        self, connection: Connection, context: RunContext, patience: float, start_deadline: float
    ):
        self._connection, (self._ray, self._inline) = connection, connection
        self._context, self._clock = context, context.clock
        self._patience, self._start_deadline = patience, start_deadline
        self._dim, self._dtype = context.problem.dim, context.dtype
        self._workers: list[Worker] = []
        self._to_do: queue.SimpleQueue[tuple[Callable, tuple]] = queue.SimpleQueue()
        self._happened: list[Arrival | Joined] = []
        self._latest: tuple[int, Any] = (-1, None)
        """The newest model that was put into the object store, and its step."""
        self._problem: Any = None
        self._next_look = 0.0

    def start(
        self, options: list[dict[str, Any]], slowdown: list[float], records: list[Record]
    ) -> None:
        """Start the actors, of these options, and wait for those of the first jobs."""
        context = self._context
        actor_class = self._ray.remote(Actor)
        try:
            self._problem = self._ray.put(context.problem)
        except Exception as error:  # pickle's own, or what __getstate__ raises
            raise AsgradError(
                "Ray: the problem cannot be sent to workers in other processes: "
                f"{in_one_line(error.__cause__ or error)}. Make it of data that can be pickled, "
                "or use ag.Threads."
            ) from error
        self._workers = [
            Worker(
                actor_class.options(**options[i]),
                (
                    context.key,
                    context.dtype,
                    i,
                    slowdown[i],
                    self._inline,
                    context.encoder,
                    context.work,
                ),
                records[i],
            )
            for i in range(len(options))
        ]
        for index in range(len(options)):
            self._start(index)
        self._await_first(options)

    def submit(self, job: Job, x: np.ndarray) -> bool:
        """Queue a job for its worker; False if the worker is away."""
        worker = self._workers[job.worker]
        if worker.status != Status.READY:
            return False
        model: Any = x
        if x.nbytes > self._inline:
            if self._latest[0] != job.read_step:
                self._latest = job.read_step, self._ray.put(x)
            model = self._latest[1]
        worker.waiting.append((job, model))
        self._send_next(worker)
        return True

    def wait(self, until: float) -> Sequence[Arrival | Joined]:
        """Return all that has happened, in order of arrival; wait for it as told.

        Nothing is delivered from Ray's own thread, which must not wait for the server.
        """
        if not self._happened:
            self._act(min(max(until - self._clock(), 0.0), LOOK))
        if time.monotonic() >= self._next_look:
            self._kill_late()
            self._next_look = time.monotonic() + LOOK
        happened, self._happened = self._happened, []
        return happened

    def may_join(self) -> bool:
        """Say whether an actor is starting, waits for room, or has left a short while ago."""
        since = time.monotonic() - self._patience
        return any(
            worker.status == Status.STARTING
            or (worker.status == Status.LEFT and worker.left_at > since)
            for worker in self._workers
        )

    def leave(self, worker: int) -> None:
        """Let a worker leave the run, from any thread; its jobs are lost."""
        self._tell(self._left, worker)

    def join(self, worker: int) -> None:
        """Let a worker that left, or is gone, join the run again, from any thread."""
        self._tell(self._joins, worker)

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
        self._connection.close()
        self._to_do, self._happened = queue.SimpleQueue(), []  # they may hold gradients

    def _tell(self, act: Callable, worker: int) -> None:
        """Have the server's thread do something to a worker."""
        if not self._workers:
            raise AsgradError("Ray: no run is under way that a worker could leave or join.")
        check_integer("Ray", "worker", worker, minimum=0, maximum=len(self._workers) - 1)
        self._to_do.put((act, (worker,)))

    def _act(self, seconds: float) -> None:
        """Do what is to be done by the server's thread; wait for the first so long."""
        try:
            act, arguments = self._to_do.get(timeout=seconds)
            while True:
                act(*arguments)
                act, arguments = self._to_do.get_nowait()
        except queue.Empty:
            return

    def _follow(self, ref: Any, act: Callable, *arguments: Any) -> None:
        """Have `act(*arguments, future)` done by the server's thread when a call has ended."""
        to_do = self._to_do  # not the one that `close` leaves
        ref.future().add_done_callback(lambda future: to_do.put((act, (*arguments, future))))

    def _start(self, index: int) -> None:
        """Start a worker's actor; it reports when it is ready."""
        worker = self._workers[index]
        worker.lineage = lineage_of(self._context, fresh=worker.actor is not None)
        self._follow(worker.start(), self._has_begun, index, worker.actor)

    def _has_begun(self, index: int, actor: Any, future: Any) -> None:
        """Give an actor whose process runs the problem; its deadline counts from here."""
        worker = self._workers[index]
        if not worker.is_starting(actor):
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
        if not worker.is_starting(actor):
            return
        error = future.exception()
        if error is None:
            worker.status = Status.READY
            worker.places = places if future.result() else None
            self._happened.append(Joined(index))
        else:
            self._restart(index, in_one_line(error))

    def _await_first(self, options: list[dict[str, Any]]) -> None:
        """Wait for the workers of the first jobs; later ones will join."""
        end = time.monotonic() + self._patience
        while self.may_join() and (left := end - time.monotonic()) > 0:
            self._act(min(left, LOOK))
            self._kill_late()
        self._happened.clear()  # all are present at the start
        if not any(worker.status == Status.READY for worker in self._workers):
            raise self._nobody(options)

    def _nobody(self, options: list[dict[str, Any]]) -> AsgradError:
        """Return the error that says why no worker has started."""
        failure = next((worker.failure for worker in self._workers if worker.failure), "")
        if failure:
            return AsgradError(f"Ray: no worker could start: {failure}")
        n_begun = sum(worker.begun_at < math.inf for worker in self._workers)
        if n_begun:
            return AsgradError(
                f"Ray: no worker was ready within {self._patience:g} s: {n_begun} have started, "
                "none has ended its first gradient, data and compilation included. Give more "
                "patience if that takes long."
            )
        return AsgradError(
            f"Ray: no worker was ready within {self._patience:g} s: each asks for "
            f"{options[0]['num_cpus']:g} CPUs, {options[0]['num_gpus']:g} GPUs and "
            f"{options[0]['resources'] or 'no other resources'}, the cluster has "
            f"{self._ray.cluster_resources()}."
        )

    def _new_places(self) -> OwnPlaces | None:
        """Return memory for an actor's gradients, in case that it is on this machine."""
        sends_codes = isinstance(self._context.encoder, Sparse)
        if sends_codes or self._dim * np.dtype(self._dtype).itemsize <= INLINE:
            return None
        try:
            return OwnPlaces(self._dim, self._dtype)
        except OSError:
            return None

    def _restart(self, index: int, why: str) -> None:
        """Kill a worker's actor and start another, unless it has failed too often."""
        worker = self._workers[index]
        worker.failure = why
        self._kill(worker, Status.GONE)
        if not worker.record.fail():
            self._start(index)

    def _kill(self, worker: Worker, status: Status) -> None:
        """Kill a worker's actor."""
        self._ray.kill(worker.actor)
        worker.stop(status)

    def _send_next(self, worker: Worker) -> None:
        """Send a worker the next job that is still wanted, if it is free."""
        while worker.running is None and worker.waiting:
            job, model = worker.waiting.popleft()
            if job.fate != Fate.IN_FLIGHT:
                continue  # called off while it waited
            worker.running = job
            job.start_time = self._clock()
            loan = worker.places.lend() if worker.places else None
            mark = worker.lineage.follow(job) if worker.lineage else (-1, -1)
            head = HEAD.pack(job.draw, job.work, loan.place if loan else -1, *mark)
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
            worker.record.took.append(self._clock() - job.start_time)
            found = future.result()
            if found is None and loan is not None:
                found = loan.array
            elif isinstance(found, tuple):
                found = unpack(found[0], self._dim, self._dtype)
            elif isinstance(found, bytes):
                found = np.frombuffer(found, self._dtype).reshape(-1, 1)
            if isinstance(found, str) and worker.lineage:
                worker.lineage.drop(job)
            self._happened.append(arrival_of(job, found))
        elif isinstance(error, self._ray.exceptions.RayTaskError):
            worker.running = None
            if worker.lineage:
                worker.lineage.drop(job)
            gone = worker.record.fail()
            why = in_one_line(error)
            self._happened.append(failed(job, why, gone=gone))
            if gone:
                self._happened += worker.abandoned(why)
                self._kill(worker, Status.GONE)
        else:
            why = in_one_line(error)
            self._happened += worker.abandoned(why)
            self._restart(job.worker, why)
        self._send_next(worker)

    def _kill_late(self) -> None:
        """Give up workers whose job, or start, is past its deadline."""
        for index, worker in enumerate(self._workers):
            job, limit = worker.running, worker.record.deadline
            if job is not None and self._clock() - job.start_time > limit:
                why = f"no answer within {limit:.3g} s"
                self._happened += worker.abandoned(why)
                self._restart(index, why)
            starting = worker.status == Status.STARTING
            if starting and time.monotonic() - worker.begun_at > self._start_deadline:
                self._restart(index, f"not ready within {self._start_deadline:.3g} s")

    def _left(self, index: int) -> None:
        """Carry out `leave`."""
        worker = self._workers[index]
        if worker.status in (Status.READY, Status.STARTING):
            self._happened += worker.abandoned("the worker left")
            self._kill(worker, Status.LEFT)
            worker.left_at = time.monotonic()

    def _joins(self, index: int) -> None:
        """Carry out `join`."""
        worker = self._workers[index]
        if worker.status in (Status.LEFT, Status.GONE):
            worker.record.failures = 0
            self._start(index)
