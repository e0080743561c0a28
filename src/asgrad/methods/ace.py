"""ACE, also known as IA²SGD: every step uses the latest gradient of every worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.kernels import compiled
from asgrad.methods.base import RULE, CompiledMethod, Opening
from asgrad.methods.decisions import assign, clear, hold, take_step, weigh

__all__ = ["ACE"]


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Replace the worker's entry and step with the table's mean; state[0] is n."""
    clear(out, worker)
    hold(out, worker)
    weigh(out, worker, 1.0 / state[0])
    take_step(out)
    assign(out, worker)


@dataclass(frozen=True)
class ACE(CompiledMethod):
    """ACE (IA²SGD): each arrival replaces its worker's gradient, a step with the mean of all.

    x_{t+1} = x_t − (γ/n) Σ_i G_i, G_i the latest gradient of worker i, 0 until its first arrival.

    It hears all workers equally however unequal their speeds, so it converges with unequal data;
    the price is a table of n gradients, and that a slow worker's gradient is used many times.

    References
    ----------
    Chang et al.: ACE, arXiv 2511.19066. Deviations: none.
    """

    name: ClassVar[str] = "ace"
    reference: ClassVar[str] = "ACE / IA²SGD, arXiv 2511.19066"

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: every worker has a job at x_0; the table is empty."""
        return Opening(np.array([n_workers], np.int64), np.arange(n_workers), _rule, n_workers)
