"""Ringmaster ASGD: asynchronous SGD that refuses gradients older than a threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_flag, check_integer
from asgrad.kernels import compiled, inlined
from asgrad.methods.base import RULE, CompiledMethod, Opening
from asgrad.methods.decisions import apply, assign, drop, restart, take_step

__all__ = ["Ringmaster"]

# state: R, whether stale jobs are stopped, n, then (only when they are) for every worker the step
# that its job reads, and a ring of the workers in the order of their assignment: next and previous,
# with position n as the ring's head. The oldest job is thus always at hand.
_MAX_DELAY, _STOP, _N, _ARRAYS = 0, 1, 2, 3


@inlined
def _move_to_back(follow, precede, n, worker):
    """Move `worker` to the back of the ring: it has the newest job now."""
    follow[precede[worker]] = follow[worker]
    precede[follow[worker]] = precede[worker]
    last = precede[n]
    follow[last] = worker
    precede[worker] = last
    follow[worker] = n
    precede[n] = worker


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Step with a gradient whose delay is below R, drop any other; stop jobs that reach R."""
    max_delay = state[_MAX_DELAY]
    fresh = step - read_step < max_delay
    if fresh:
        apply(out, 1.0)
        take_step(out)
        step += 1
    else:
        drop(out)
    assign(out, worker)
    if state[_STOP] == 0:
        return
    n = state[_N]
    reads = state[_ARRAYS : _ARRAYS + n]
    follow = state[_ARRAYS + n : _ARRAYS + 2 * n + 1]
    precede = state[_ARRAYS + 2 * n + 1 :]
    reads[worker] = step
    _move_to_back(follow, precede, n, worker)
    oldest = follow[n]
    while step - reads[oldest] >= max_delay:
        restart(out, oldest)
        reads[oldest] = step
        _move_to_back(follow, precede, n, oldest)
        oldest = follow[n]


@dataclass(frozen=True)
class Ringmaster(CompiledMethod):
    """Ringmaster ASGD: step with every gradient whose delay is below R, ignore the others.

    At an arrival with delay δ = k − read step: if δ < R, x_{k+1} = x_k − γ g and the worker goes on
    at x_{k+1}; otherwise the gradient is dropped and the worker goes on at x_k. With `stop_stale` a
    running job is called off as soon as its delay reaches R, and its worker goes on at x_k.

    Optimal in time for non-convex problems where all workers hold the same data. Stepsize:
    γ = min{1/(2RL), ε/(4Lσ²)}, R = max(1, ⌈σ²/ε⌉). Any R consecutive steps take at most
    2 min_m H_m (1 + R/m) seconds for fixed worker times, H_m the harmonic mean of the m shortest.

    Parameters
    ----------
    max_delay : int >= 1, optional
        R. By default the number of workers.
    stop_stale : bool
        Stop stale jobs instead of waiting for them.

    References
    ----------
    Maranjyan, Tyurin, Richtárik: Ringmaster ASGD, arXiv 2501.16168. Deviations: none.
    """

    max_delay: int | None = None
    stop_stale: bool = False

    name: ClassVar[str] = "ringmaster"
    reference: ClassVar[str] = "Ringmaster ASGD, arXiv 2501.16168"

    def __post_init__(self) -> None:
        check_flag("Ringmaster", "stop_stale", self.stop_stale)
        if self.max_delay is not None:
            check_integer("Ringmaster", "max_delay", self.max_delay, minimum=1)

    def defaults(self, n_workers: int) -> str:
        """Return what the parameters that were left open come to, empty where none was."""
        return (
            f"max_delay = R = {n_workers} (the number of workers)" if self.max_delay is None else ""
        )

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: every worker has a job at x_0."""
        head = np.array([self.max_delay or n_workers, int(self.stop_stale), n_workers], np.int64)
        workers = np.arange(n_workers)
        ring = [
            np.zeros(n_workers, np.int64),
            np.concatenate([workers[1:], [n_workers, 0]]),
            np.concatenate([[n_workers], workers]),
        ]
        state = np.concatenate([head, *ring]) if self.stop_stale else head
        return Opening(state, workers, _rule, 0)
