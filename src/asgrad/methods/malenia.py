"""Malenia SGD: Rennala's collection, with every worker heard equally."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_flag, check_integer
from asgrad.kernels import compiled, inlined
from asgrad.methods.base import RULE, CompiledMethod, Opening
from asgrad.methods.decisions import assign, clear, drop, hold, restart, take_step, weigh

__all__ = ["Malenia"]

# state: S, whether stale jobs are stopped, n, workers without a gradient at this model, gradients
# at this model, then how many of them each worker has given, B_i
_BATCH, _STOP, _N, _MISSING, _GATHERED, _SIZES = 0, 1, 2, 3, 4, 5


@inlined
def _is_enough(state):
    """Say whether the harmonic mean of the B_i exceeds S/n."""
    n = state[_N]
    # It is at most the mean, so that most arrivals need not look at all workers.
    if state[_MISSING] > 0 or state[_GATHERED] <= state[_BATCH]:
        return False
    inverse = 0.0
    for i in range(n):
        inverse += 1.0 / state[_SIZES + i]
    # Rounding must not make more of what is equal in exact numbers.
    return np.float64(n) * n > state[_BATCH] * inverse * (1.0 + 1e-12)


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Add up every worker's gradients of the current model; step with the mean of their means."""
    if read_step < step:
        drop(out)
        assign(out, worker)
        return
    hold(out, worker)
    state[_MISSING] -= state[_SIZES + worker] == 0
    state[_SIZES + worker] += 1
    state[_GATHERED] += 1
    if not _is_enough(state):
        assign(out, worker)
        return
    n = state[_N]
    for i in range(n):
        weigh(out, i, 1.0 / (n * state[_SIZES + i]))
    take_step(out)
    for i in range(n):
        clear(out, i)
        state[_SIZES + i] = 0
    state[_MISSING] = n
    state[_GATHERED] = 0
    if state[_STOP] == 0:
        assign(out, worker)
        return
    for i in range(n):
        restart(out, i)


@dataclass(frozen=True)
class Malenia(CompiledMethod):
    """Malenia SGD: all compute at x_k over and over, a step with the mean of the workers' means.

    x_{k+1} = x_k − (γ/n) Σ_i (1/B_i) Σ_{j <= B_i} g_i(x_k; ξ_ij), as soon as the harmonic mean of
    the B_i, (1/n Σ 1/B_i)⁻¹, exceeds S/n; an arrival that read an older model is dropped. Every
    applied gradient has delay 0.

    Optimal in time among methods that wait for every worker, for non-convex problems where the
    workers hold different data: all count equally, and fast ones lessen the noise. Stepsize:
    γ = min{1/L, εS/(2Lσ²)}, S = max(n, ⌈σ²/ε⌉).

    Parameters
    ----------
    batch : int >= 1, optional
        S. By default the number of workers, with which some B_i must reach 2; below that a step is
        taken as soon as every worker has answered.
    stop_stale : bool
        Cancel unfinished jobs at a step; otherwise they arrive and are dropped.

    References
    ----------
    Tyurin, Richtárik: Optimal Time Complexities of Parallel Stochastic Optimization Methods Under a
    Fixed Computation Model, arXiv 2305.12387. Deviations: none.
    """

    batch: int | None = None
    stop_stale: bool = False

    name: ClassVar[str] = "malenia"
    reference: ClassVar[str] = "Malenia SGD, arXiv 2305.12387"

    def __post_init__(self) -> None:
        check_flag("Malenia", "stop_stale", self.stop_stale)
        if self.batch is not None:
            check_integer("Malenia", "batch", self.batch, minimum=1)

    def defaults(self, n_workers: int) -> str:
        """Return what the parameters that were left open come to, empty where none was."""
        return f"batch = S = {n_workers} (the number of workers)" if self.batch is None else ""

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: every worker has a job at x_0; the table is empty."""
        state = np.zeros(_SIZES + n_workers, np.int64)
        state[_BATCH], state[_STOP] = self.batch or n_workers, self.stop_stale
        state[_N] = state[_MISSING] = n_workers
        return Opening(state, np.arange(n_workers), _rule, n_workers)
