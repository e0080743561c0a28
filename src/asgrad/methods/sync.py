"""Synchronous SGD, waiting for all workers or for the first m."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_integer
from asgrad.kernels import compiled
from asgrad.methods.base import RULE, CompiledMethod, Opening, batch_size
from asgrad.methods.decisions import restart
from asgrad.methods.gather import gather

__all__ = ["MSync", "Sync"]

_M, _COUNT, _ARRIVED = 0, 1, 2  # state: m, arrivals of this round, then a flag for every worker


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """At the m-th arrival step with the mean, cancel the rest, start all at the new model."""
    arrived = state[_ARRIVED:]
    arrived[worker] = 1
    if gather(state, _M, _COUNT, out):
        for i in range(arrived.size):
            restart(out, i)
            arrived[i] = 0


@dataclass(frozen=True)
class MSync(CompiledMethod):
    """m-synchronous SGD: wait for the first m of n gradients, cancel the rest, go on together.

    x_{q+1} = x_q − (γ/m) Σ_{first m} g_i(x_q). Near-optimal in many regimes when all workers hold
    the same data; with unequal data it never hears the slow ones.

    Parameters
    ----------
    m : int, 1 <= m <= n_workers, optional
        How many arrivals make a step. By default half of the workers, rounded up.

    References
    ----------
    arXiv 2602.03802. Deviations: none.
    """

    m: int | None = None

    name: ClassVar[str] = "m-sync"
    reference: ClassVar[str] = "m-Sync SGD, arXiv 2602.03802"

    def __post_init__(self) -> None:
        if self.m is not None:
            check_integer("MSync", "m", self.m, minimum=1)

    def defaults(self, n_workers: int) -> str:
        """Return what the parameters that were left open come to, empty where none was."""
        return f"m = {(n_workers + 1) // 2} (half of the workers)" if self.m is None else ""

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: every worker has a job at x_0."""
        m = self.m or (n_workers + 1) // 2
        batch_size("MSync", "m", m, n_workers, "the number of workers")
        state = np.zeros(_ARRIVED + n_workers, np.int64)
        state[_M] = m
        return Opening(state, np.arange(n_workers), _rule, 0)


@dataclass(frozen=True)
class Sync(CompiledMethod):
    """Synchronous SGD: wait for all n, step with the mean of their gradients.

    x_{q+1} = x_q − (γ/n) Σ_i g_i(x_q). The baseline that every asynchronous method has to beat at
    equal time: no delay and no bias, but the slowest worker sets the pace.

    References
    ----------
    Textbook method. Deviations: none.
    """

    name: ClassVar[str] = "sync"
    reference: ClassVar[str] = "synchronous data-parallel SGD"

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: `MSync` that waits for every worker."""
        return MSync(m=n_workers).begin(n_workers, seed)
