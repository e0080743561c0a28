"""train: run a method over real workers, and record the run as a trace."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from asgrad.engines.replay import BLOW_UP, check_parts, checked_start, rules_of
from asgrad.engines.server import Job, Orders, Server
from asgrad.engines.simulate import versions
from asgrad.engines.threads import Arrival, Threads
from asgrad.errors import AsgradError, check_choice, check_integer, check_kind, check_positive
from asgrad.methods.base import Method
from asgrad.optimizers import SGD, Optimizer
from asgrad.problems.base import Problem
from asgrad.stepsizes import Constant, Stepsize
from asgrad.streams import Purpose, stream_key
from asgrad.trace import Header, Trace
from asgrad.transforms import Identity, Transform

__all__ = ["Ending", "Engine", "Training", "train"]


class Ending(StrEnum):
    """Why a live run ended."""

    STEPS = "steps"
    JOBS = "jobs"
    TIME = "time"
    TARGET = "target"
    DIVERGED = "diverged"
    TOO_FEW_WORKERS = "too few workers"
    INTERRUPTED = "interrupted"


class Engine(Protocol):
    """Real workers, whatever they are."""

    def open(
        self, problem: Problem, key: int, dtype: str, seed: int, now: Callable[[], float]
    ) -> None:
        """Start the workers."""

    def submit(self, job: Job, x: np.ndarray) -> bool:
        """Queue a job at model `x`, of shape (dim, 1); False if its worker is gone."""

    def wait(self, seconds: float) -> Arrival | None:
        """Return the next arrival in the order of arrival; None if none came in time."""

    def close(self) -> None:
        """Stop the workers."""


@dataclass(frozen=True, eq=False)
class Training:
    """A finished live run.

    Attributes
    ----------
    trace : Trace
        Replaying it with the same problem, stepsize and rules gives back `model` bit for bit.
    model : numpy.ndarray
        float of shape (dim,).
    status : Ending
    stepsize : float
    steps, times, loss, gradient_norm, accuracy : numpy.ndarray
        The evaluations, each of shape (n_evaluations,).
    failures : list of str
        What went wrong with jobs that were lost, at most the first hundred.
    n_refused : int
        Gradients refused because they held NaN or infinity.
    """

    trace: Trace
    model: np.ndarray
    status: Ending
    stepsize: float
    steps: np.ndarray
    times: np.ndarray
    loss: np.ndarray
    gradient_norm: np.ndarray
    accuracy: np.ndarray
    failures: list[str] = field(default_factory=list)
    n_refused: int = 0


def train(
    problem: Problem,
    method: Method,
    stepsize: float,
    *,
    engine: Engine | None = None,
    steps: int | None = None,
    jobs: int | None = None,
    until_time: float | None = None,
    target: float | None = None,
    seed: int = 0,
    method_stepsize: Stepsize | None = None,
    transform: Transform | None = None,
    optimizer: Optimizer | None = None,
    x0: np.ndarray | None = None,
    dtype: str = "float64",
    evaluate_every: float = 1.0,
    max_refused: int = 10,
    on_step: Callable[[int, float], None] | None = None,
    on_arrival: Callable[[Job], None] | None = None,
    on_evaluation: Callable[[int, float, float, float], None] | None = None,
) -> Training:
    """Run `method` over real workers until the first limit that is reached.

    The server's step is the compiled code of `replay`. A gradient enters at most once: what arrives
    for a job that was cancelled or given up is ignored. If a worker fails, or its gradient holds
    NaN or infinity, the job is marked lost and the worker given another at the current model.

    Parameters
    ----------
    problem : Problem
    method : Method
    stepsize : float > 0
        γ.
    engine : Engine, optional
        By default `Threads()`.
    steps, jobs : int >= 0, optional
        Stop after so many server steps, or arrivals.
    until_time : float > 0, optional
        Seconds.
    target : float > 0, optional
        Stop once ‖∇f‖ is seen at or below this.
    seed : int >= 0
        Fixes the method's choices, the sampled rows and the noise; not who is how fast.
    method_stepsize, transform, optimizer, x0, dtype
        As in `replay`. A stepsize that needs the concurrency takes the number of first jobs.
    evaluate_every : float > 0
        Seconds between evaluations, which a thread of their own does; x_0 and the last model are
        always evaluated.
    max_refused : int >= 0
        Stop as diverged after more gradients than this with NaN or infinity.
    on_step : callable, optional
        Called with the step's number and time after every step.
    on_arrival : callable, optional
        Called with every job that arrives.
    on_evaluation : callable, optional
        Called with step, time, f and ‖∇f‖, from the evaluating thread.

    Returns
    -------
    Training
        After Ctrl-C, what was done until then, with status "interrupted".

    Raises
    ------
    AsgradError
        If an argument is refused.

    Examples
    --------
    >>> import asgrad as ag
    >>> problem = ag.problems.Tridiagonal(8, n_workers=2, noise=0.01)
    >>> run = ag.train(problem, ag.methods.Pure(), 0.1, steps=200)
    >>> again = ag.replay(run.trace, problem, 0.1)
    >>> bool((again.models[:, 0] == run.model).all())
    True
    """
    check_kind("train", "problem", problem, Problem, "ag.problems.Softmax('digits')")
    check_kind("train", "method", method, Method, "ag.methods.Pure()")
    check_parts("train", method_stepsize, transform, optimizer)
    if steps is None and jobs is None and until_time is None and target is None:
        raise AsgradError("train: give a limit: steps, jobs, until_time or target.")
    for name, count in (("steps", steps), ("jobs", jobs), ("max_refused", max_refused)):
        if count is not None:
            check_integer("train", name, count, minimum=0)
    for name, number in (("until_time", until_time), ("target", target)):
        if number is not None:
            check_positive("train", name, number)
    check_positive("train", "stepsize", stepsize)
    check_positive("train", "evaluate_every", evaluate_every)
    check_choice("dtype", dtype, ("float64", "float32"))
    method_stepsize = method_stepsize or Constant()
    transform, optimizer = transform or Identity(), optimizer or SGD()
    concurrency = int(method.begin(problem.n_workers, seed).workers.size)
    server = Server(
        problem,
        method,
        method_stepsize,
        rules_of(problem, method_stepsize, transform, optimizer, lambda: concurrency),
        transform,
        optimizer,
        checked_start(problem, x0),
        stepsize,
        dtype,
        seed,
    )
    run = _Run(problem, server, engine or Threads(), seed, dtype, evaluate_every, target)
    run.on_step, run.on_arrival, run.on_evaluation = on_step, on_arrival, on_evaluation
    unlimited = 2**62
    status = run.play(
        unlimited if steps is None else steps,
        unlimited if jobs is None else jobs,
        math.inf if until_time is None else until_time,
        max_refused,
    )
    return run.training(status, stepsize)


class _Run:
    """A live run: the loop between an engine and the server, and the evaluations beside it."""

    def __init__(
        self,
        problem: Problem,
        server: Server,
        engine: Engine,
        seed: int,
        dtype: str,
        evaluate_every: float,
        target: float | None,
    ):
        self.problem, self.server, self.engine = problem, server, engine
        self.seed, self.dtype, self.target = seed, dtype, target
        self.evaluate_every = evaluate_every
        self.failures: list[str] = []
        self.n_refused = self.n_arrived = 0
        self.on_step: Callable[[int, float], None] | None = None
        self.on_arrival: Callable[[Job], None] | None = None
        self.on_evaluation: Callable[[int, float, float, float], None] | None = None
        self.evaluations: list[tuple[int, float, float, float, float]] = []
        self._wanted: queue.SimpleQueue[tuple[int, float, np.ndarray] | None] = queue.SimpleQueue()
        self._busy = False
        self._began = 0.0
        self._end = 0.0

    def now(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    def play(self, steps: int, jobs: int, until_time: float, max_refused: int) -> Ending:
        """Run to the first limit; return which."""
        evaluator = threading.Thread(target=self._evaluate, daemon=True, name="asgrad-evaluation")
        evaluator.start()
        key = stream_key(self.seed, Purpose.GRADIENT)
        self.engine.open(self.problem, key, self.dtype, self.seed, self.now)
        self._began = time.perf_counter()
        try:
            self._ask_for_evaluation(0.0)
            self._give_out(self.server.start(0.0))
            status = self._loop(steps, jobs, until_time, max_refused)
        except KeyboardInterrupt:
            status = Ending.INTERRUPTED
        finally:
            self._end = self.now()
            self.engine.close()
            self._wanted.put((self.server.n_steps, self._end, self.server.x.copy()))
            self._wanted.put(None)
            evaluator.join()
        return Ending.DIVERGED if self._blown_up() else status

    def _loop(self, steps: int, jobs: int, until_time: float, max_refused: int) -> Ending:
        """Take arrivals one by one, in their order."""
        server = self.server
        next_evaluation = self.evaluate_every
        while True:
            if server.n_steps >= steps:
                return Ending.STEPS
            if self.n_arrived >= jobs:
                return Ending.JOBS
            if self.n_refused > max_refused or self._blown_up():
                return Ending.DIVERGED
            if self._target_reached():
                return Ending.TARGET
            if server.n_in_flight == 0:
                return Ending.TOO_FEW_WORKERS
            left = until_time - self.now()
            if left <= 0:
                return Ending.TIME
            arrival = self.engine.wait(min(left, next_evaluation, 0.5))
            now = self.now()
            if arrival is not None:
                self._take(arrival, now)
            if now >= next_evaluation and not self._busy:
                self._ask_for_evaluation(now)
                next_evaluation = now + self.evaluate_every

    def _take(self, arrival: Arrival, now: float) -> None:
        """Deal with one arrival."""
        job, gradient = arrival.job, arrival.gradient
        if not self.server.expects(job):
            return  # cancelled or given up in the meantime
        failure = arrival.failure
        if gradient is not None and not np.isfinite(gradient).all():
            failure = f"worker {job.worker}, draw {job.draw}: the gradient holds NaN or infinity"
            self.n_refused += 1
        if failure:
            if len(self.failures) < 100:
                self.failures.append(failure)
            self._give_out(self.server.lose(job, now, again=not arrival.gone))
            return
        self.n_arrived += 1
        assert gradient is not None
        orders = self.server.arrive(job, gradient, now)
        if self.on_arrival:
            self.on_arrival(job)
        if self.on_step:
            for step in range(self.server.n_steps - orders.n_steps, self.server.n_steps):
                self.on_step(step, now)
        self._give_out(orders)

    def _give_out(self, orders: Orders) -> None:
        """Hand new jobs to the workers; a job for one that is gone is lost at once."""
        for job in orders.assigned:
            if not self.engine.submit(job, self.server.model(job.read_step)):
                self.server.lose(job, self.now(), again=False)

    def _blown_up(self) -> bool:
        """Say whether an evaluation has seen the run diverge, by the rule of `replay`."""
        if not self.evaluations:
            return False
        first, last = self.evaluations[0][3], self.evaluations[-1][3]
        return not last <= BLOW_UP * max(1.0, first)

    def _target_reached(self) -> bool:
        """Say whether an evaluation has seen the target."""
        return self.target is not None and any(
            norm <= self.target for _, _, _, norm, _ in self.evaluations[-3:]
        )

    def _ask_for_evaluation(self, now: float) -> None:
        """Have the model evaluated beside the run."""
        self._busy = True
        self._wanted.put((self.server.n_steps, now, self.server.x.copy()))

    def _evaluate(self) -> None:
        """Evaluate the models that wait, in a thread of its own."""
        evaluate = self.problem.kernels()[1]
        packed = self.problem.pack(np.dtype(self.dtype))
        n_floats, n_picks = self.problem.workspace(1)
        scratch, picks = np.empty(n_floats, self.dtype), np.arange(n_picks)
        metrics = np.empty((4, 1))
        while (item := self._wanted.get()) is not None:
            step, now, x = item
            with np.errstate(all="ignore"):
                evaluate(*packed, x, metrics, np.empty_like(x), scratch, picks)
                loss, norm, accuracy = metrics[0, 0], math.sqrt(metrics[1, 0]), metrics[2, 0]
            if not self.evaluations or self.evaluations[-1][0] != step:
                self.evaluations.append((step, now, float(loss), norm, float(accuracy)))
                if self.on_evaluation:
                    self.on_evaluation(step, now, float(loss), norm)
            self._busy = False

    def training(self, status: Ending, stepsize: float) -> Training:
        """Return what was done."""
        tables = self.server.tables()
        header = Header(
            method=self.server.method.label,
            times=f"measured:{type(self.engine).__name__.lower()}",
            n_workers=self.problem.n_workers,
            seed=self.seed,
            end_time=self._end,
            stopped_by=str(status),
            versions=versions(),
        )
        columns: Any = zip(*self.evaluations, strict=True)
        steps, times, loss, norm, accuracy = (np.array(column) for column in columns)
        return Training(
            trace=Trace(*tables, header),
            model=self.server.x[:, 0].copy(),
            status=status,
            stepsize=stepsize,
            steps=steps,
            times=times,
            loss=loss,
            gradient_norm=norm,
            accuracy=accuracy,
            failures=self.failures,
            n_refused=self.n_refused,
        )
