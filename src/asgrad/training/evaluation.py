"""Evaluations of a live run, beside it: a thread of their own does them."""

from __future__ import annotations

import inspect
import math
import queue
import threading
from collections.abc import Callable

import numpy as np

from asgrad.errors import AsgradError
from asgrad.numerics.replay import BLOW_UP
from asgrad.problems.base import CompiledProblem, Problem
from asgrad.workers.base import worker_buffers

__all__ = [
    "Evaluation",
    "Evaluator",
    "OnEvaluation",
    "check_beginning",
    "check_target",
    "taking_all",
]

Evaluation = tuple[int, float, float, float, float, float]
"""Step, time, f, ‖∇f‖, accuracy, loss on test rows."""

OnEvaluation = Callable[..., None]
"""Called with step, time, f and ‖∇f‖; accuracy and test loss follow by name, see `taking_all`."""


class Evaluator:
    """Evaluates models one after the other, and says what they show.

    Parameters
    ----------
    problem : Problem
    dtype : str
    done : list of Evaluation
        Of the part of the run before a checkpoint.
    tell : callable, optional
        Called with step, time, f and ‖∇f‖, and what `taking_all` says.
    never : bool
        Whether nothing is evaluated, whoever asks.
    beside : bool
        Whether a thread of its own evaluates, beside the run; otherwise whoever asks waits.
    """

    def __init__(
        self,
        problem: Problem,
        dtype: str,
        done: list[Evaluation],
        tell: OnEvaluation | None,
        never: bool = False,
        beside: bool = True,
    ):
        self.done, self._n_before = done, len(done)
        self.beside, self.busy = beside, False
        self.error: BaseException | None = None
        """What ended the thread: raised by the problem or by `tell`."""
        self._problem, self._tell = problem, taking_all(tell)
        self._compute = None if never else _evaluation(problem, dtype)
        if self._compute and isinstance(problem, CompiledProblem):
            # Before the clock starts: it may take seconds.
            self._compute(np.zeros((problem.dim, 1), dtype))
        self._wanted: queue.SimpleQueue[tuple[int, float, np.ndarray] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="asgrad-evaluation")
        self._thread.start()

    def ask(self, step: int, now: float, x: np.ndarray) -> None:
        """Have x_step evaluated."""
        if self._compute is None:
            return
        if not self.beside:
            self._evaluate(step, now, x)
            return
        self.busy = True
        self._wanted.put((step, now, x.copy()))

    def close(self) -> None:
        """Wait for what was asked, and let go of the problem's data."""
        self._wanted.put(None)
        self._thread.join()
        self._compute = None

    def columns(self) -> dict[str, np.ndarray]:
        """Return all evaluations, an array each of steps, times and values."""
        kinds = {"steps": np.int64} | dict.fromkeys(
            ("times", "loss", "gradient_norm", "accuracy", "test_loss"), np.float64
        )
        columns = list(zip(*self.done, strict=True)) or [()] * len(kinds)
        return {
            name: np.array(column, kind)
            for (name, kind), column in zip(kinds.items(), columns, strict=True)
        }

    def blown_up(self) -> bool:
        """Say whether an evaluation has seen the run diverge, by the rule of `replay`."""
        if not self.done:
            return False
        first, last = _size(self.done[0]), _size(self.done[-1])
        if self._problem.evaluates_gradient and len(self.done) > self._n_before:
            last = self.done[-1][3]  # a NaN too is a computed one
        return not last <= BLOW_UP * max(1.0, first)

    def reached(self, target: float | None) -> bool:
        """Say whether one of the last evaluations has seen ‖∇f‖ at or below `target`."""
        return target is not None and any(done[3] <= target for done in self.done[-3:])

    def _work(self) -> None:
        """Evaluate until told to stop."""
        try:
            while (item := self._wanted.get()) is not None:
                self._evaluate(*item)
                self.busy = False
        except BaseException as error:  # raised again where the run was started
            self.error = error

    def _evaluate(self, step: int, now: float, x: np.ndarray) -> None:
        """Evaluate x_step, unless that was done last."""
        assert self._compute is not None
        if not self.done or self.done[-1][0] != step:
            loss, norm, accuracy, test_loss = self._compute(x)
            self.done.append((step, now, loss, norm, accuracy, test_loss))
            if self._tell:
                self._tell(*self.done[-1])


def taking_all(tell: OnEvaluation | None) -> Callable[..., None] | None:
    """Return a callback that takes a whole `Evaluation`, and gives `tell` of it what that takes.

    Step, time, f and ‖∇f‖ always; accuracy and test loss where `tell` has parameters of the names
    `accuracy` and `test_loss`.
    """
    if tell is None:
        return None
    try:
        known = set(inspect.signature(tell).parameters)
    except (TypeError, ValueError):  # written in another language
        known = set()
    wanted = [name for name in ("accuracy", "test_loss") if name in known]

    def tell_all(step: int, now: float, loss: float, norm: float, *more: float) -> None:
        named = dict(zip(("accuracy", "test_loss"), more, strict=True))
        tell(step, now, loss, norm, **{name: named[name] for name in wanted})

    return tell_all


def _size(evaluation: Evaluation) -> float:
    """Return ‖∇f‖, or |f| where it was not computed: a NaN beside a finite f."""
    _, _, loss, norm, _, _ = evaluation
    return abs(loss) if math.isnan(norm) and math.isfinite(loss) else norm


def check_target(problem: Problem, target: float | None, evaluate_every: float | None) -> None:
    """Refuse a bound on ‖∇f‖ that no evaluation would ever see."""
    if target is None:
        return
    if evaluate_every is None:
        raise AsgradError(
            f"train: a target is seen by evaluations, got target {target:g} and evaluate_every "
            "None; give the seconds between them."
        )
    if not problem.evaluates_gradient:
        raise AsgradError(
            f"train: target is a bound on ‖∇f‖, which evaluations of {type(problem).__name__} "
            f"leave out, got {target:g}; build the problem with gradient_norm=True (in CONFIG.toml "
            "gradient_norm = true), or leave the target out."
        )


def check_beginning(problem: Problem, dtype: str, x0: np.ndarray, done: list[Evaluation]) -> None:
    """Refuse to go on with a problem whose f or ‖∇f‖ at x_0 is not what `done` begins with."""
    if not done or done[0][0] != 0:
        return
    now = _evaluation(problem, dtype)(x0.astype(dtype).reshape(-1, 1))[:2]
    then = done[0][2:4]
    if math.isnan(now[1]):  # without ‖∇f‖, here or then
        then = (then[0], math.nan)
    elif math.isnan(then[1]):
        now = (now[0], math.nan)
    tolerance = 1e-6 if dtype == "float64" else 1e-3  # other processors add in another order
    if not np.allclose(now, then, rtol=tolerance, atol=tolerance, equal_nan=True):
        raise AsgradError(
            f"train: the run that is to go on began with f = {then[0]:.6g} and ‖∇f‖ = {then[1]:.6g}"
            f", this problem has {now[0]:.6g} and {now[1]:.6g} there; a resumed run must have the "
            "same data, and the same start."
        )


def _evaluation(
    problem: Problem, dtype: str
) -> Callable[[np.ndarray], tuple[float, float, float, float]]:
    """Return what gives f, ‖∇f‖, accuracy and test loss at a model of shape (dim, 1)."""
    kernel, packed = problem.kernels().evaluation, problem.packed(np.dtype(dtype))
    scratch, picks = worker_buffers(problem, dtype)
    metrics = np.full((4, 1), np.nan)

    def evaluate(x: np.ndarray) -> tuple[float, float, float, float]:
        with np.errstate(all="ignore"):
            kernel(*packed, x, metrics, np.empty_like(x), scratch, picks)
        loss, square, accuracy, test_loss = metrics[:, 0].tolist()
        return loss, math.sqrt(square), accuracy, test_loss

    return evaluate
