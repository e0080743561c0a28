"""ACE, also known as IA²SGD: every step uses the latest gradient of every worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_flag
from asgrad.kernels import compiled
from asgrad.methods.base import RULE, CompiledMethod, Opening
from asgrad.methods.decisions import assign, clear, hold, take_step, weigh

__all__ = ["ACE"]


_N, _MISSING, _HEARD = 0, 1, 2  # state: n, workers that the table waits for, who has answered


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Replace the worker's entry; once the table waits for nobody, step with its mean."""
    n = state[_N]
    clear(out, worker)
    hold(out, worker)
    if state[_MISSING] == 0:
        weigh(out, worker, 1.0 / n)
        take_step(out)
    elif state[_HEARD + worker] == 0:
        state[_HEARD + worker] = 1
        state[_MISSING] -= 1
        if state[_MISSING] == 0:
            for i in range(n):
                weigh(out, i, 1.0 / n)
            take_step(out)
    assign(out, worker)


@dataclass(frozen=True)
class ACE(CompiledMethod):
    """ACE (IA²SGD): each arrival replaces its worker's gradient, a step with the mean of all.

    x_{t+1} = x_t − (γ/n) Σ_i G_i, G_i the latest gradient of worker i. No step is taken until every
    worker has answered once; until then all work at x_0.

    It hears all workers equally however unequal their speeds, so it converges with unequal data;
    the price is a table of n gradients, and that a slow worker's gradient is used many times.

    Parameters
    ----------
    wait : bool
        False: step from the first arrival on, with G_i = 0 for workers that have not answered.

    References
    ----------
    Chang et al.: ACE, arXiv 2511.19066. Deviations: the paper leaves open how the table is filled.
    As other published code does, no step is taken before it is full, and nothing that arrives until
    then is refused: a worker's later gradient replaces its earlier one.
    """

    wait: bool = True

    name: ClassVar[str] = "ace"
    reference: ClassVar[str] = "ACE / IA²SGD, arXiv 2511.19066"

    def __post_init__(self) -> None:
        check_flag("ACE", "wait", self.wait)

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: every worker has a job at x_0; the table is empty."""
        state = np.zeros(_HEARD + n_workers, np.int64)
        state[_N], state[_MISSING] = n_workers, n_workers if self.wait else 0
        return Opening(state, np.arange(n_workers), _rule, n_workers)
