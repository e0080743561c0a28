"""Evaluations of a live run, beside it: a thread of their own does them."""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable

import numpy as np

from asgrad.errors import AsgradError
from asgrad.numerics.replay import BLOW_UP
from asgrad.problems.base import CompiledProblem, Problem
from asgrad.workers.base import worker_buffers

__all__ = ["Evaluation", "Evaluator", "check_beginning", "check_target"]

Evaluation = tuple[int, float, float, float, float, float]
"""Step, time, f, ‖∇f‖, accuracy, loss on test rows."""


class Evaluator:
    """Evaluates models one after the other, and says what they show.

    Parameters
    ----------
    problem : Problem
    dtype : str
    done : list of Evaluation
        Of the part of the run before a checkpoint.
    tell : callable, optional
        Called with step, time, f and ‖∇f‖.
    never : bool
        Whether nothing is evaluated, whoever asks.
    """

    def __init__(
        self,
        problem: Problem,
        dtype: str,
        done: list[Evaluation],
        tell: Callable[[int, float, float, float], None] | None,
        never: bool = False,
    ):
        self.done, self._n_before, self._never = done, len(done), never
        self.busy = False
        self.error: BaseException | None = None
        """What ended the thread: raised by the problem or by `tell`."""
        self._problem, self._dtype, self._tell = problem, dtype, tell
        if (
            isinstance(problem, CompiledProblem) and not never
        ):  # before the clock starts: it may take seconds
            _evaluation(problem, dtype)(np.zeros((problem.dim, 1), dtype))
        self._wanted: queue.SimpleQueue[tuple[int, float, np.ndarray] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True, name="asgrad-evaluation")
        self._thread.start()

    def ask(self, step: int, now: float, x: np.ndarray) -> None:
        """Have x_step, which is copied, evaluated."""
        if self._never:
            return
        self.busy = True
        self._wanted.put((step, now, x.copy()))

    def close(self) -> None:
        """Wait for what was asked."""
        self._wanted.put(None)
        self._thread.join()

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
            self._evaluate_all()
        except BaseException as error:  # raised again where the run was started
            self.error = error

    def _evaluate_all(self) -> None:
        """Evaluate the models that wait."""
        evaluate = _evaluation(self._problem, self._dtype)
        while (item := self._wanted.get()) is not None:
            step, now, x = item
            if not self.done or self.done[-1][0] != step:
                loss, norm, accuracy, test_loss = evaluate(x)
                self.done.append((step, now, loss, norm, accuracy, test_loss))
                if self._tell:
                    self._tell(step, now, loss, norm)
            self.busy = False


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
