"""Rennala SGD: asynchronous collection of a batch at one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_flag, check_integer
from asgrad.kernels import compiled
from asgrad.methods.base import RULE, CompiledMethod, Opening
from asgrad.methods.decisions import assign, drop, restart
from asgrad.methods.gather import gather

__all__ = ["Rennala"]

_BATCH, _STOP, _N, _COUNT = 0, 1, 2, 3  # state: S, whether stale jobs are stopped, n, gathered


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Gather S gradients of the current model; ask every worker again at once."""
    if read_step < step:
        drop(out)
        assign(out, worker)
        return
    if not gather(state, _BATCH, _COUNT, out) or state[_STOP] == 0:
        assign(out, worker)
    else:
        for i in range(state[_N]):
            restart(out, i)


@dataclass(frozen=True)
class Rennala(CompiledMethod):
    """Rennala SGD: all compute at x_k, whoever is ready computes again, S gradients make a step.

    x_{k+1} = x_k − (γ/S) Σ g(x_k; ξ_j) over the first S gradients taken at x_k; an arrival that
    read an older model is dropped. Every applied gradient has delay 0.

    Optimal in time for non-convex problems where all workers hold the same data; with unequal data
    the fast workers dominate every batch. Stepsize: γ = min{1/L, εS/(2Lσ²)}, S = max(1, ⌈σ²/ε⌉).

    Parameters
    ----------
    batch : int >= 1, optional
        S. By default the number of workers. It may be larger: a worker may contribute often.
    stop_stale : bool
        Cancel unfinished jobs at a step; otherwise they arrive and are dropped.

    References
    ----------
    Tyurin, Richtárik: Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a
    Fixed Computation Model, arXiv 2305.12387. Deviations: none.
    """

    batch: int | None = None
    stop_stale: bool = False

    name: ClassVar[str] = "rennala"
    reference: ClassVar[str] = "Rennala SGD, arXiv 2305.12387"

    def __post_init__(self) -> None:
        check_flag("Rennala", "stop_stale", self.stop_stale)
        if self.batch is not None:
            check_integer("Rennala", "batch", self.batch, minimum=1)

    def defaults(self, n_workers: int) -> str:
        """Return what the parameters that were left open come to, empty where none was."""
        return f"batch = S = {n_workers} (the number of workers)" if self.batch is None else ""

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: every worker has a job at x_0."""
        batch = self.batch or n_workers
        state = np.array([batch, int(self.stop_stale), n_workers, 0], np.int64)
        return Opening(state, np.arange(n_workers), _rule, 0)
