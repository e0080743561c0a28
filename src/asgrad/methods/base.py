"""What a method is: the server's decisions, written once, for simulated and live runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numba import types

from asgrad.errors import AsgradError, as_number, check_integer
from asgrad.methods import decisions
from asgrad.registry import label
from asgrad.streams import Purpose, stream_key

_MOST_WORK = 2**15 - 1  # as a slot of the ledger holds it

__all__ = ["RULE", "AnyMethod", "CompiledMethod", "Method", "Opening", "Server", "batch_size"]

RULE = types.void(types.int64[::1], types.int64, types.int64, types.int64, types.float64[:, ::1])
"""rule(state, worker, read_step, step, out): `worker`'s job, which read x_{read_step}, has arrived
after `step` steps; the rule changes `state` and writes its decisions into `out`."""


class Opening(NamedTuple):
    """What a method begins a run with."""

    state: np.ndarray
    """int64, all that the method remembers; the run owns it and may save it."""
    workers: np.ndarray
    """int64, the workers of the first jobs, all at x_0, in the order of assignment."""
    rule: Callable
    """The decision at an arrival, see `RULE`; compiled, or a Python function."""
    n_entries: int
    """How many entries the server's table of held gradients has."""
    says_work: bool = False
    """Whether the rule says of how many gradients jobs are made."""
    work: int = 0
    """Of how many gradients the first jobs are made; 0: of as many as the recipe says."""
    alarms: np.ndarray = np.empty(0)
    """float64, one an alarm: when it goes off first, in seconds; infinity: not before it is set."""

    def decision_table(self, n_workers: int) -> np.ndarray:
        """Return an empty table large enough for the decisions of any one arrival."""
        return np.zeros((4 * n_workers + 4 * self.workers.size + 16, 3))


class AnyMethod(ABC):
    """The server's decisions, compiled (`CompiledMethod`) or in plain Python (`Method`)."""

    name: ClassVar[str] = ""
    """The method's name on the command line and in figures."""
    reference: ClassVar[str] = ""
    """Where the method is from, with its arXiv number."""
    any_worker: ClassVar[bool] = False
    """Whether a job whose worker is gone may be given to any other worker."""

    @abstractmethod
    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening of a run; every random choice of the method follows from `seed`."""

    def defaults(self, n_workers: int) -> str:
        """Return what the parameters that were left open come to, empty where none was."""
        return ""

    @property
    def label(self) -> str:
        """The method with its parameters, as the command line takes it."""
        return label(self)


class CompiledMethod(AnyMethod):
    """A method whose rule runs compiled inside the simulator's event loop.

    A subclass is a frozen dataclass of its parameters and gives `begin`.
    """


class Method(AnyMethod):
    """The server's decisions. Subclass it to write a method of your own in plain Python.

    A method knows no clock, no network and no gradient: `start` names the first jobs, `arrive` says
    what becomes of a gradient and who computes what next. Whatever an instance remembers between
    calls is set up in `start`, so that one object can serve many runs.
    """

    @abstractmethod
    def start(self, server: Server) -> None:
        """Assign the first jobs."""

    @abstractmethod
    def arrive(self, server: Server, worker: int, read_step: int) -> None:
        """Decide on the gradient that `worker` computed at x_{read_step}.

        Call exactly one of server.apply, server.hold and server.drop, and whatever else the method
        says: server.take_step, server.assign, server.cancel, server.restart.
        """

    def alarm(self, server: Server, alarm: int) -> None:
        """Decide when an alarm goes off that `server.set_alarm` has set; no gradient is there."""

    def n_alarms(self, n_workers: int) -> int:
        """Return how many alarms the method sets (0 for most)."""
        return 0

    def n_entries(self, n_workers: int) -> int:
        """Return how many table entries the method holds gradients in (0 for most)."""
        return 0

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening of a run; every random choice of the method follows from `seed`."""
        for name in ("n_entries", "n_alarms"):
            if not callable(getattr(self, name)):
                raise AsgradError(
                    f"{type(self).__name__}: {name} must be a method, {name}(self, n_workers), got "
                    f"{getattr(self, name)!r}."
                )
        n_entries, n_alarms = self.n_entries(n_workers), self.n_alarms(n_workers)
        server = Server(self, n_workers, n_entries, seed, n_alarms)
        workers, alarms = server.first_jobs()
        return Opening(
            np.zeros(1, np.int64),
            np.array(workers, np.int64),
            server.rule,
            server.n_entries,
            says_work=True,
            alarms=alarms,
        )


class Server:
    """The server as a method written in Python sees it: a place to say decisions.

    Attributes
    ----------
    n_workers : int
    step : int
        Steps taken so far; x_step is the current model.
    now : float
        When the gradient arrived, in seconds since the run began.
    job_time : float
        How long its job took, in seconds, from its start to its arrival.
    rng : numpy.random.Generator
        For the method's random choices; fixed by the run's seed, and new in every run.
    """

    def __init__(
        self, method: Method, n_workers: int, n_entries: int, seed: int, n_alarms: int = 0
    ):
        self.n_workers = n_workers
        self.n_entries = check_integer(type(method).__name__, "n_entries", n_entries, minimum=0)
        self.n_alarms = check_integer(type(method).__name__, "n_alarms", n_alarms, minimum=0)
        self.step = 0
        self.now = self.job_time = 0.0
        self.rng = np.random.default_rng(stream_key(seed, Purpose.METHOD) & (2**63 - 1))
        self._method = method
        self._name = type(method).__name__
        self._said: list[tuple[int, int, float]] = []

    def apply(self, weight: float = 1.0) -> None:
        """Let the arrived gradient enter the direction of the next step with this weight."""
        self._said.append((decisions.APPLY, 0, self._weight(weight)))

    def drop(self) -> None:
        """Throw the arrived gradient away."""
        self._said.append((decisions.DROP, 0, 0.0))

    def hold(self, entry: int) -> None:
        """Add the arrived gradient to a table entry, where it stays until `clear`."""
        self._said.append((decisions.HOLD, self._entry(entry), 0.0))

    def take_step(self) -> None:
        """Take a step; from here on, jobs are assigned at the new model."""
        self._said.append((decisions.STEP, 0, 0.0))
        self.step += 1

    def assign(self, worker: int, work: int | None = None) -> None:
        """Give `worker` a job at the current model; a busy worker queues it.

        The job is made of `work` gradients, by default of as many as the recipe says.
        """
        self._said.append((decisions.ASSIGN, self._worker(worker), self._work(work)))

    def restart(self, worker: int, work: int | None = None) -> None:
        """Call off the unfinished jobs of `worker`, and give it one at the current model."""
        self._said.append((decisions.RESTART, self._worker(worker), self._work(work)))

    def cancel(self, worker: int) -> None:
        """Call off the unfinished jobs of `worker`."""
        self._said.append((decisions.CANCEL, self._worker(worker), 0.0))

    def weigh(self, entry: int, weight: float) -> None:
        """Let the sum in `entry` enter every later direction with this weight."""
        self._said.append((decisions.WEIGH, self._entry(entry), self._weight(weight)))

    def clear(self, entry: int) -> None:
        """Empty `entry`."""
        self._said.append((decisions.CLEAR, self._entry(entry), 0.0))

    def set_alarm(self, alarm: int, seconds: float) -> None:
        """Have the method's `alarm` called after so many seconds; infinity takes it back.

        What arrives at that very moment comes first. A second call for the same alarm sets it anew.
        """
        if self.n_alarms == 0:
            raise AsgradError(f"{self._name}: to set alarms, let n_alarms() return > 0.")
        number = check_integer(self._name, "alarm", alarm, minimum=0, maximum=self.n_alarms - 1)
        after = as_number(self._name, "an alarm's seconds", seconds)
        if not after >= 0:
            raise AsgradError(f"{self._name}: an alarm's seconds must be >= 0, got {after:g}.")
        self._said.append((decisions.ALARM, number, after))

    def first_jobs(self) -> tuple[list[int], np.ndarray]:
        """Run the method's `start`; return the workers it named, and when alarms go off first."""
        self._method.start(self)
        allowed = (decisions.ASSIGN, decisions.ALARM)
        if any(code not in allowed for code, _, _ in self._said):
            raise AsgradError(f"{self._name}: start() may only assign jobs and set alarms.")
        workers, alarms = [], np.full(self.n_alarms, np.inf)
        for code, target, number in self._said:
            if code == decisions.ALARM:
                alarms[target] = number
                continue
            if number:
                raise AsgradError(
                    f"{self._name}: the work of the first jobs is the recipe's; start() may not "
                    f"say it, got {number:g}."
                )
            workers.append(target)
        return workers, alarms

    def rule(
        self, state: np.ndarray, worker: int, read_step: int, step: int, out: np.ndarray
    ) -> None:
        """Put an arrival to the method and write down what it says, as `RULE` asks."""
        self.step = int(step)
        self.now, self.job_time = float(out[0, 1]), float(out[0, 2])
        self._said = []
        if worker < 0:
            self._method.alarm(self, -1 - int(worker))
        else:
            self._method.arrive(self, int(worker), int(read_step))
        verdicts = sum(
            code in (decisions.APPLY, decisions.HOLD, decisions.DROP) for code, _, _ in self._said
        )
        if worker < 0 and verdicts:
            raise AsgradError(
                f"{self._name}: alarm() has no gradient to apply, hold or drop, but did so."
            )
        if worker >= 0 and verdicts != 1:
            raise AsgradError(
                f"{self._name}: arrive() must call exactly one of server.apply, server.hold and "
                f"server.drop, it called {verdicts}."
            )
        if len(self._said) >= out.shape[0]:
            raise AsgradError(
                f"{self._name}: at most {out.shape[0] - 1} decisions fit one arrival, "
                f"got {len(self._said)}."
            )
        out[0, 0] = len(self._said)
        if self._said:  # at an alarm it may have nothing to say
            out[1 : len(self._said) + 1] = self._said

    def _weight(self, weight: Any) -> float:
        """Check a weight."""
        number = as_number(self._name, "weight", weight)
        if not np.isfinite(number):
            raise AsgradError(f"{self._name}: a weight must be finite, got {number}.")
        return number

    def _worker(self, worker: Any) -> int:
        """Check a worker's index."""
        return check_integer(self._name, "worker", worker, minimum=0, maximum=self.n_workers - 1)

    def _work(self, work: Any) -> float:
        """Check how many gradients a job is to be made of; 0 leaves it to the recipe."""
        if work is None:
            return 0.0
        return float(check_integer(self._name, "work", work, minimum=1, maximum=_MOST_WORK))

    def _entry(self, entry: Any) -> int:
        """Check an entry's index."""
        if self.n_entries == 0:
            raise AsgradError(f"{self._name}: to hold gradients, let n_entries() return > 0.")
        return check_integer(self._name, "entry", entry, minimum=0, maximum=self.n_entries - 1)


def batch_size(owner: str, name: str, value: int, limit: int, what: str) -> int:
    """Return `value` if it is at most `limit`, which is a fact of the run, else raise."""
    if not value <= limit:
        raise AsgradError(f"{owner}: {name} must be at most {limit} ({what}), got {value}.")
    return value
