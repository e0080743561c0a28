"""MindFlayer SGD: who takes too long is asked anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from asgrad.errors import AsgradError, as_number, check_integer, n_axes
from asgrad.kernels import compiled, inlined
from asgrad.methods.base import RULE, CompiledMethod, Opening
from asgrad.methods.decisions import assign, clear, hold, restart, set_alarm, take_step, weigh
from asgrad.methods.state import real

__all__ = ["MindFlayer"]

# state: B, n, trials since the last step, whether the p_i are given; then of every worker its t_i,
# its p_i, its trials since the last step, and all its trials and gradients so far
_TRIALS, _N, _COUNT, _GIVEN, _OWN = 0, 1, 2, 3, 4


@inlined
def _weight(state):
    """Return 1/Σ p_i B_i, 0 where nothing was to be expected."""
    n = state[_N]
    expected = 0.0
    for i in range(n):
        chance = real(state, _OWN + n + i)
        tried = state[_OWN + 3 * n + i]
        if state[_GIVEN] == 0 and tried > 0:
            chance = state[_OWN + 4 * n + i] / tried
        expected += chance * state[_OWN + 2 * n + i]
    return 1.0 / expected if expected > 0.0 else 0.0


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Count a trial that has ended, by its gradient or its alarm; step after B of them."""
    n = state[_N]
    finished = worker >= 0
    tried = worker if finished else -1 - worker
    if finished:
        hold(out, 0)
        state[_OWN + 4 * n + tried] += 1
    state[_OWN + 3 * n + tried] += 1
    state[_OWN + 2 * n + tried] += 1
    state[_COUNT] += 1
    if state[_COUNT] < state[_TRIALS]:
        if finished:
            assign(out, tried)
        else:
            restart(out, tried)
        set_alarm(out, tried, real(state, _OWN + tried))
        return
    weigh(out, 0, _weight(state))
    take_step(out)
    clear(out, 0)
    state[_COUNT] = 0
    for i in range(n):
        state[_OWN + 2 * n + i] = 0
        restart(out, i)
        set_alarm(out, i, real(state, _OWN + i))


@dataclass(frozen=True)
class MindFlayer(CompiledMethod):
    """MindFlayer SGD: a trial that takes longer than t_i is given up and begun afresh.

    All compute at x_k. A trial ends with its gradient, or after t_i seconds without one; then its
    worker begins another. After B trials in all, of which worker i made B_i,
    x_{k+1} = x_k − γ Σ g / Σ_i p_i B_i, where p_i is the chance that a trial of worker i is in
    time; everyone stops and begins at x_{k+1}. Every applied gradient has delay 0. A gradient that
    is done at the very moment counts.

    Made for times with heavy tails, and for workers that hang. With t_i = ∞ it is Rennala that
    stops stale jobs. For equal data: fast workers are heard more often.

    Parameters
    ----------
    allotted : float > 0, or one a worker
        t_i, in seconds.
    trials : int >= 1, optional
        B; by default the number of workers.
    success : float in (0, 1], or one a worker, optional
        p_i. By default what the trials so far say, gradients over trials, with which a step is
        nearly unbiased, and exactly the mean of the gradients where all p_i are equal.

    References
    ----------
    Maranjyan, Shaikh Omar, Richtárik: MindFlayer, arXiv 2410.04285. Deviations: p_i may be
    estimated.
    """

    allotted: float | Sequence[float] = math.inf
    trials: int | None = None
    success: float | Sequence[float] | None = None

    name: ClassVar[str] = "mindflayer"
    reference: ClassVar[str] = "MindFlayer SGD, arXiv 2410.04285"

    def __post_init__(self) -> None:
        for name in ("allotted", "success"):
            value = getattr(self, name)
            if value is not None and n_axes(value) == 1 and not isinstance(value, str):
                object.__setattr__(
                    self, name, tuple(as_number("MindFlayer", name, v) for v in value)
                )
        _numbers("allotted", self.allotted, None, math.inf)
        if self.success is not None:
            _numbers("success", self.success, None, 1.0)
        if self.trials is not None:
            check_integer("MindFlayer", "trials", self.trials, minimum=1)

    def defaults(self, n_workers: int) -> str:
        """Return what the parameters that were left open come to, empty where none was."""
        return f"trials = B = {n_workers} (the number of workers)" if self.trials is None else ""

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: every worker has a job at x_0, and an alarm."""
        n = n_workers
        allotted = _numbers("allotted", self.allotted, n, math.inf)
        given = self.success is not None
        chances = _numbers("success", self.success, n, 1.0) if given else np.ones(n)
        state = np.zeros(_OWN + 5 * n, np.int64)
        state[_TRIALS], state[_N], state[_GIVEN] = self.trials or n, n, given
        state[_OWN : _OWN + n] = allotted.view(np.int64)
        state[_OWN + n : _OWN + 2 * n] = chances.view(np.int64)
        return Opening(state, np.arange(n), _rule, 1, alarms=allotted)


def _numbers(name: str, value: Any, n_workers: int | None, most: float) -> np.ndarray:
    """Return one number a worker, each in (0, most]; without `n_workers` as many as are given."""
    listed = value if isinstance(value, tuple) else [as_number("MindFlayer", name, value)]
    if not listed:
        raise AsgradError(f"MindFlayer: {name} must be a number, or one a worker, got none.")
    for number in listed:
        if not 0 < number <= most:
            rule = "> 0" if most == math.inf else f"in (0, {most:g}]"
            raise AsgradError(f"MindFlayer: {name} must be {rule}, got {number:g}.")
    if n_workers is None:
        return np.array(listed, float)
    if isinstance(value, tuple) and len(value) != n_workers:
        raise AsgradError(
            f"MindFlayer: {name} must hold one number for each of the {n_workers} workers, got "
            f"{len(value)}."
        )
    return np.broadcast_to(np.array(listed, float), n_workers).copy()
