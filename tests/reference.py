"""Asynchronous SGD a second time: a plain event loop that carries real models along.

Written from the rules of the methods alone and sharing no code with the library, it is what traces
and replays are compared with. It is slow and plain on purpose: gradients are NumPy arrays taken at
the moment of assignment, and a step is a weighted sum of them.

Random choices are not made here. A method that draws its workers reads them from a tape.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

IN_FLIGHT, APPLIED, DROPPED, CANCELLED = "in flight", "applied", "dropped", "cancelled"


@dataclass(eq=False)
class Job:
    """One stochastic gradient by one worker, taken at the model of its assignment."""

    worker: int
    draw: int
    read_step: int
    gradient: np.ndarray
    assign_time: float
    start_time: float = math.nan
    arrival_time: float = math.nan
    fate: str = IN_FLIGHT
    delay: int = -1  # τ at its first use


@dataclass
class Worker:
    """A first-in first-out queue and at most one running job."""

    queue: deque[Job] = field(default_factory=deque)
    running: Job | None = None
    n_assigned: int = 0


class Run:
    """A server with its workers, from x_0 until a number of steps.

    Parameters
    ----------
    method : object
        `start(run)` hands out the first jobs; `arrive(run, job)` is the server's decision.
    n_workers : int
    duration : callable
        duration(worker, draw) in seconds; infinity if the job never ends. Times that are fractions
        stay exact: then it is known which moments are one.
    gradient : callable
        gradient(x, worker, draw) of shape (dim,).
    x0 : numpy.ndarray
        float64 of shape (dim,).
    stepsize : float
    momentum : float
        β of heavy ball: m = β m + d, x = x − stepsize · m.
    rule : callable, optional
        rule(stepsize, delay): the stepsize for a gradient of that delay.
    correct : callable, optional
        correct(g, x_read, x_now): what a gradient is made to at the step that first uses it.
    optimizer : callable, optional
        optimizer(x, d, stepsize, delay): the next model, in place of heavy ball; `delay` is the
        largest of those first used.
    """

    def __init__(
        self,
        method,
        *,
        n_workers: int,
        duration: Callable[[int, int], float],
        gradient: Callable[[np.ndarray, int, int], np.ndarray],
        x0: np.ndarray,
        stepsize: float = 0.0,
        momentum: float = 0.0,
        rule: Callable[[float, int], float] | None = None,
        correct: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None,
        optimizer: Callable[[np.ndarray, np.ndarray, float, int], np.ndarray] | None = None,
    ) -> None:
        """Set the clock to 0; nothing runs yet."""
        self.method = method
        self.n_workers = n_workers
        self.duration = duration
        self.gradient = gradient
        self.stepsize = stepsize
        self.momentum = momentum
        self.rule = rule
        self.correct = correct
        self.optimizer = optimizer
        self.now = 0  # exact, and stays so with durations that are
        self.models = [np.array(x0, float)]
        self.velocity = np.zeros_like(self.models[0])
        self.jobs: list[Job] = []
        self.step_times: list[float] = []
        self.arrival_times: list[float] = []
        self.delivered: list[int] = []  # arrivals up to every step
        self.directions: list[dict[tuple[int, int], float]] = []
        self.max_concurrency = 0
        self._workers = [Worker() for _ in range(n_workers)]
        self._in_flight: list[Job] = []
        self._events: list[tuple[float, int, Job]] = []
        self._n_started = 0

    @property
    def k(self) -> int:
        """The current step: x_k is the server's model."""
        return len(self.models) - 1

    def play(self, n_steps: float, until: float = math.inf) -> Run:
        """Run until `n_steps` steps are taken, or through moment `until`; return self."""
        self.method.start(self)
        while self.k < n_steps and self._events[0][0] <= until:
            time, _, job = heapq.heappop(self._events)
            if job.fate == CANCELLED:
                continue
            if time > self.now:
                self._note_concurrency()
            self.now = time
            self._finish(job)
            self.method.arrive(self, job)
        self._note_concurrency()
        return self

    def assign(self, worker: int) -> None:
        """Give `worker` a job at the current model; it waits if the worker is busy."""
        own = self._workers[worker]
        x = self.models[-1]
        gradient = np.array(self.gradient(x, worker, own.n_assigned), float)
        job = Job(worker, own.n_assigned, self.k, gradient, self.now)
        own.n_assigned += 1
        self.jobs.append(job)
        self._in_flight.append(job)
        own.queue.append(job)
        self._start_next(own)

    def cancel(self, job: Job) -> None:
        """Call a job off; its worker is then free."""
        own = self._workers[job.worker]
        job.fate, job.arrival_time = CANCELLED, self.now
        self._in_flight.remove(job)
        if own.running is job:
            own.running = None
        else:
            own.queue.remove(job)

    def cancel_where(self, stale: Callable[[Job], bool]) -> list[int]:
        """Cancel the unfinished jobs that are `stale`; return their workers, oldest job first."""
        jobs = [job for job in self._in_flight if stale(job)]
        for job in jobs:
            self.cancel(job)
        return [job.worker for job in jobs]

    def step(self, parts: Iterable[tuple[Job, float]]) -> None:
        """Take one step with the weighted sum of the gradients of `parts`."""
        direction = np.zeros_like(self.velocity)
        weights: dict[tuple[int, int], float] = {}
        largest = 0
        for job, weight in parts:
            if job.fate != APPLIED:
                job.fate, job.delay = APPLIED, self.k - job.read_step
                largest = max(largest, job.delay)
                if self.correct:
                    x_read = self.models[job.read_step]
                    job.gradient = self.correct(job.gradient, x_read, self.models[-1])
            size = self.stepsize if self.rule is None else self.rule(self.stepsize, job.delay)
            if size != 0:
                direction += weight * (size / self.stepsize) * job.gradient
            weights[job.worker, job.draw] = weight
        if self.optimizer:
            x = self.optimizer(self.models[-1], direction, self.stepsize, largest)
        else:
            self.velocity = self.momentum * self.velocity + direction
            x = self.models[-1] - self.stepsize * self.velocity
        self.models.append(x)
        self.step_times.append(self.now)
        self.delivered.append(len(self.arrival_times))
        self.directions.append(weights)

    def _start_next(self, own: Worker) -> None:
        """Let a free worker take the next job of its queue."""
        if own.running is None and own.queue:
            job = own.running = own.queue.popleft()
            job.start_time = self.now
            end = self.now + self.duration(job.worker, job.draw)
            # The number of jobs started so far settles ties in time.
            heapq.heappush(self._events, (end, self._n_started, job))
            self._n_started += 1

    def _finish(self, job: Job) -> None:
        """Take a finished job off its worker, which starts the next one in its queue at once."""
        own = self._workers[job.worker]
        job.arrival_time = self.now
        self.arrival_times.append(self.now)
        self._in_flight.remove(job)
        own.running = None
        self._start_next(own)

    def _note_concurrency(self) -> None:
        """Remember how many jobs are in flight when all of a moment's events are over."""
        self.max_concurrency = max(self.max_concurrency, len(self._in_flight))


def mean_of(jobs: Sequence[Job]) -> list[tuple[Job, float]]:
    """Return the parts of a step with the mean of the jobs' gradients."""
    return [(job, 1.0 / len(jobs)) for job in jobs]


def start_all(run: Run) -> None:
    """Give every worker a job at the current model."""
    for worker in range(run.n_workers):
        run.assign(worker)


class Pure:
    """Gather `wait` arrivals, step with their mean, give those workers the new model."""

    def __init__(self, wait: int = 1) -> None:
        """Hold nothing yet."""
        self.wait = wait
        self.held: list[Job] = []

    def start(self, run: Run) -> None:
        """Every worker begins at x_0."""
        start_all(run)

    def arrive(self, run: Run, job: Job) -> None:
        """Hold the job until there are enough."""
        self.held.append(job)
        if len(self.held) == self.wait:
            run.step(mean_of(self.held))
            for used in self.held:
                run.assign(used.worker)
            self.held = []


class Taped:
    """Gather `wait` arrivals, step with their mean, give the tape's next `wait` workers the model.

    Random and Shuffled differ in their tapes only. The first `concurrency` workers of the tape
    begin at x_0.
    """

    def __init__(self, tape: Iterable[int], concurrency: int, wait: int = 1) -> None:
        """Hold nothing yet."""
        self.tape = iter(tape)
        self.concurrency = concurrency
        self.wait = wait
        self.held: list[Job] = []

    def start(self, run: Run) -> None:
        """The tape's first workers begin at x_0."""
        for _ in range(self.concurrency):
            run.assign(next(self.tape))

    def arrive(self, run: Run, job: Job) -> None:
        """Hold the job until there are enough."""
        self.held.append(job)
        if len(self.held) == self.wait:
            run.step(mean_of(self.held))
            self.held = []
            for _ in range(self.wait):
                run.assign(next(self.tape))


class Minibatch(Taped):
    """`batch` workers of the tape at x_q; step with the mean when all of them are in."""

    def __init__(self, tape: Iterable[int], batch: int) -> None:
        """Nothing beside the batch is ever in flight."""
        super().__init__(tape, concurrency=batch, wait=batch)


class Reshuffling(Taped):
    """One job in flight, workers in the order of the tape."""

    def __init__(self, tape: Iterable[int]) -> None:
        """Each arrival is a step."""
        super().__init__(tape, concurrency=1, wait=1)


class MSync:
    """Wait for the first `m` of all workers, step with their mean, cancel the rest, start all."""

    def __init__(self, m: int) -> None:
        """Hold nothing yet."""
        self.m = m
        self.held: list[Job] = []

    def start(self, run: Run) -> None:
        """Every worker begins at x_0."""
        start_all(run)

    def arrive(self, run: Run, job: Job) -> None:
        """Hold the job until there are enough."""
        self.held.append(job)
        if len(self.held) == self.m:
            run.step(mean_of(self.held))
            self.held = []
            run.cancel_where(lambda _: True)
            start_all(run)


class Buffered:
    """Gather `size` arrivals, step with their mean; whoever delivers goes on at once."""

    def __init__(self, size: int) -> None:
        """Hold nothing yet."""
        self.size = size
        self.held: list[Job] = []

    def start(self, run: Run) -> None:
        """Every worker begins at x_0."""
        start_all(run)

    def arrive(self, run: Run, job: Job) -> None:
        """Hold the job; the worker reads the model after the step, if there is one."""
        self.held.append(job)
        if len(self.held) == self.size:
            run.step(mean_of(self.held))
            self.held = []
        run.assign(job.worker)


class Rennala:
    """Gather `batch` gradients at x_k, all computing there over and over; step with the mean."""

    def __init__(self, batch: int, stop_stale: bool = False) -> None:
        """Hold nothing yet."""
        self.batch = batch
        self.stop_stale = stop_stale
        self.held: list[Job] = []

    def start(self, run: Run) -> None:
        """Every worker begins at x_0."""
        start_all(run)

    def arrive(self, run: Run, job: Job) -> None:
        """Drop what was read elsewhere, hold the rest; the worker is asked again at once."""
        if job.read_step != run.k:
            job.fate = DROPPED
        else:
            self.held.append(job)
        if len(self.held) < self.batch:
            run.assign(job.worker)
            return
        run.step(mean_of(self.held))
        self.held = []
        if self.stop_stale:
            run.cancel_where(lambda _: True)
            start_all(run)
        else:
            run.assign(job.worker)


class Malenia:
    """As Rennala, with the mean over workers of their means, once n / Σ(1/B_i) > batch / n."""

    def __init__(self, batch: int, stop_stale: bool = False) -> None:
        """Hold nothing yet."""
        self.batch = batch
        self.stop_stale = stop_stale
        self.held: dict[int, list[Job]] = {}

    def start(self, run: Run) -> None:
        """Every worker begins at x_0."""
        start_all(run)

    def arrive(self, run: Run, job: Job) -> None:
        """Drop what was read elsewhere, hold the rest by worker; the worker is asked again."""
        n = run.n_workers
        if job.read_step != run.k:
            job.fate = DROPPED
            run.assign(job.worker)
            return
        self.held.setdefault(job.worker, []).append(job)
        inverses = sum(Fraction(1, len(own)) for own in self.held.values())
        if len(self.held) < n or inverses * self.batch >= n * n:
            run.assign(job.worker)
            return
        run.step((own, 1.0 / (n * len(all_own))) for all_own in self.held.values()
                 for own in all_own)  # fmt: skip
        self.held = {}
        if self.stop_stale:
            run.cancel_where(lambda _: True)
            start_all(run)
        else:
            run.assign(job.worker)


class Ringmaster:
    """Step with every arrival of a delay below `max_delay`, drop the others."""

    def __init__(self, max_delay: int, stop_stale: bool = False) -> None:
        """Keep the threshold R."""
        self.max_delay = max_delay
        self.stop_stale = stop_stale

    def start(self, run: Run) -> None:
        """Every worker begins at x_0."""
        start_all(run)

    def arrive(self, run: Run, job: Job) -> None:
        """Step or drop; the worker restarts at the model that is current then."""
        if run.k - job.read_step < self.max_delay:
            run.step([(job, 1.0)])
        else:
            job.fate = DROPPED
        restarted = [job.worker]
        if self.stop_stale:
            restarted += run.cancel_where(lambda other: run.k - other.read_step >= self.max_delay)
        for worker in restarted:
            run.assign(worker)


class Ringleader:
    """Rounds of two phases: fill a table of all workers, then n steps with it, one a worker."""

    def __init__(self) -> None:
        """The tables are empty and the first phase begins."""
        self.table: list[list[Job]] = []
        self.spare: list[list[Job]] = []
        self.served: set[int] = set()

    def start(self, run: Run) -> None:
        """Every worker begins at x_0."""
        self.table = [[] for _ in range(run.n_workers)]
        self.spare = [[] for _ in range(run.n_workers)]
        start_all(run)

    def arrive(self, run: Run, job: Job) -> None:
        """Add the job to the table, and step if its worker's turn has come."""
        stepping = bool(self.served)  # phase 2 begins with the service of the first worker
        if job.worker in self.served:
            self.spare[job.worker].append(job)
        else:
            self.table[job.worker].append(job)
            if stepping or all(self.table):
                self._serve(run, job.worker)
        run.assign(job.worker)

    def _serve(self, run: Run, worker: int) -> None:
        """Step with the mean over workers of each worker's mean; after n steps turn the tables."""
        n = run.n_workers
        run.step((job, 1.0 / (n * len(entry))) for entry in self.table for job in entry)
        self.served.add(worker)
        if len(self.served) == n:
            self.table, self.spare = self.spare, [[] for _ in range(n)]
            self.served = set()


class ACE:
    """Step with the table of every worker's latest gradient, once all have answered.

    Without waiting a worker not yet heard counts as 0.
    """

    def __init__(self, wait: bool = True) -> None:
        """The table is empty."""
        self.wait = wait
        self.latest: dict[int, Job] = {}

    def start(self, run: Run) -> None:
        """Every worker begins at x_0."""
        start_all(run)

    def arrive(self, run: Run, job: Job) -> None:
        """Replace the worker's entry, step, ask it again."""
        old = self.latest.get(job.worker)
        if old is not None and old.fate == IN_FLIGHT:
            old.fate = DROPPED
        self.latest[job.worker] = job
        if not self.wait or len(self.latest) == run.n_workers:
            run.step((entry, 1.0 / run.n_workers) for entry in self.latest.values())
        run.assign(job.worker)


def koloskova(stale: str, concurrency: int, smoothness: float) -> Callable[[float, int], float]:
    """Return η_t = η if τ <= τ_C, else min{η, 1/(4 L τ)} ("shrink") or 0 ("drop")."""

    def rule(stepsize: float, delay: int) -> float:
        """Return the stepsize of a gradient."""
        if delay <= concurrency:
            return stepsize
        return 0.0 if stale == "drop" else min(stepsize, 1 / (4 * smoothness * delay))

    return rule


def mishchenko(
    setting: str, n_workers: int, smoothness: float = math.nan, strong_convexity: float = math.nan
) -> Callable[[float, int], float]:
    """Return the minimum of γ and the term that falls with τ⁺ = τ + 1, or the practical form."""

    def rule(stepsize: float, delay: int) -> float:
        """Return the stepsize of a gradient."""
        tau = delay + 1
        if setting == "practical":
            return stepsize * n_workers / max(n_workers, tau)
        bound = 1 / ((8 if setting == "heterogeneous" else 4) * smoothness * tau)
        if setting == "strongly-convex":
            bound *= math.exp(-strong_convexity * tau / (4 * n_workers * smoothness))
        return min(stepsize, bound)

    return rule


class Compensation:
    """g + λ g⊙g⊙(x_now − x_read), λ = λ_0/√(running mean of g⊙g + 1e-7) where there is a decay."""

    def __init__(self, strength: float, decay: float | None = None) -> None:
        """The mean begins at 0."""
        self.strength, self.decay = strength, decay
        self.mean_square = 0.0

    def __call__(self, g: np.ndarray, x_read: np.ndarray, x_now: np.ndarray) -> np.ndarray:
        """Return the compensated gradient."""
        scale = self.strength
        if self.decay is not None:
            self.mean_square = self.decay * self.mean_square + (1 - self.decay) * g**2
            scale = self.strength / np.sqrt(self.mean_square + 1e-7)
        return g + scale * g**2 * (x_now - x_read)


class Adam:
    """Adam from its moments written as sums over all directions so far."""

    def __init__(self, first: float, second: float, epsilon: float) -> None:
        """Nothing is seen yet."""
        self.first, self.second, self.epsilon = first, second, epsilon
        self.seen: list[np.ndarray] = []

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Return Σ (1 − β) β^age d and Σ (1 − β) β^age d²."""
        ages = np.arange(len(self.seen))[::-1, None]
        d = np.array(self.seen)
        m = ((1 - self.first) * self.first**ages * d).sum(axis=0)
        v = ((1 - self.second) * self.second**ages * d**2).sum(axis=0)
        return m, v

    def __call__(self, x: np.ndarray, d: np.ndarray, stepsize: float, delay: int) -> np.ndarray:
        """Return the next model."""
        self.seen.append(d)
        t = len(self.seen)
        m, v = self.moments()
        m, v = m / (1 - self.first**t), v / (1 - self.second**t)
        return x - stepsize * m / (np.sqrt(v) + self.epsilon)


class AMSGrad(Adam):
    """The largest second moment so far; min(γ, 1/τ) for steps of a delay beyond the threshold."""

    def __init__(
        self, first: float, second: float, epsilon: float, threshold: float = math.inf
    ) -> None:
        """Nothing is seen yet."""
        super().__init__(first, second, epsilon)
        self.threshold = threshold
        self.largest = 0.0
        self.n_shortened = 0

    def __call__(self, x: np.ndarray, d: np.ndarray, stepsize: float, delay: int) -> np.ndarray:
        """Return the next model."""
        self.seen.append(d)
        m, v = self.moments()
        self.largest = np.maximum(self.largest, v)
        if delay > self.threshold:
            self.n_shortened += 1 / delay < stepsize
            stepsize = min(stepsize, 1 / delay)
        return x - stepsize * m / (np.sqrt(self.largest) + self.epsilon)


class Nesterov:
    """Nesterov's two sequences: y moves by the gradient at the point ahead, and x looks ahead."""

    def __init__(self, momentum: float) -> None:
        """y_0 = x_0."""
        self.momentum = momentum
        self.y: np.ndarray | None = None

    def __call__(self, x: np.ndarray, d: np.ndarray, stepsize: float, delay: int) -> np.ndarray:
        """y_{s+1} = x_s − γ d, x_{s+1} = y_{s+1} + β (y_{s+1} − y_s)."""
        old = x if self.y is None else self.y
        self.y = x - stepsize * d
        return self.y + self.momentum * (self.y - old)
