"""A buffer of K arrivals, as in FedBuff: whoever has delivered goes on at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_integer
from asgrad.kernels import compiled
from asgrad.methods.base import RULE, CompiledMethod, Opening, batch_size
from asgrad.methods.decisions import assign
from asgrad.methods.gather import gather

__all__ = ["Buffered"]

# state: K, arrivals since the last step, idle workers, whose turn is next, then who they are
_SIZE, _COUNT, _IDLE, _NEXT, _QUEUE = 0, 1, 2, 3, 4


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Gather K arrivals for a step; the worker, or who has waited longest, goes on at once."""
    gather(state, _SIZE, _COUNT, out)
    following = worker
    if state[_IDLE] > 0:
        place = _QUEUE + state[_NEXT]
        following = state[place]
        state[place] = worker
        state[_NEXT] = (state[_NEXT] + 1) % state[_IDLE]
    assign(out, following)


@dataclass(frozen=True)
class Buffered(CompiledMethod):
    """Buffered asynchronous SGD: K arrivals make a step, and nobody waits for it.

    x_{k+1} = x_k − (γ/K) Σ g(x_{r_j}; ξ_j) over the K arrivals since step k, whatever models they
    read. Other than in `pure:wait=b`, whose b workers wait for the step, a worker begins its next
    job at once, at the model that is current when it delivers. The delay counts steps.

    Parameters
    ----------
    size : int >= 1
        K. It may exceed the number of workers: a worker may deliver several gradients of a step.
    concurrency : int >= 1, optional
        The most jobs in flight, by default one a worker. With fewer, who delivers waits until all
        that wait already have had their turn.

    References
    ----------
    Nguyen et al.: FedBuff, arXiv 2106.06639, Algorithm 1 with one local step. Deviations: the
    clients are those that deliver, not drawn anew; the weights by the delay are a stepsize rule.
    """

    size: int = 10
    concurrency: int | None = None

    name: ClassVar[str] = "buffered"
    reference: ClassVar[str] = "FedBuff, arXiv 2106.06639"

    def __post_init__(self) -> None:
        check_integer("Buffered", "size", self.size, minimum=1)
        if self.concurrency is not None:
            check_integer("Buffered", "concurrency", self.concurrency, minimum=1)

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: the first workers have a job at x_0."""
        at_work = self.concurrency or n_workers
        batch_size("Buffered", "concurrency", at_work, n_workers, "one job a worker")
        idle = np.arange(at_work, n_workers)
        state = np.array([self.size, 0, idle.size, 0, *idle], np.int64)
        return Opening(state, np.arange(at_work), _rule, 0)
