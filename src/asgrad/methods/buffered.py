"""A buffer of K arrivals, as in FedBuff: whoever has delivered goes on at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_integer
from asgrad.kernels import compiled
from asgrad.methods.base import RULE, CompiledMethod, Opening
from asgrad.methods.decisions import assign
from asgrad.methods.gather import gather

__all__ = ["Buffered"]

_SIZE, _COUNT = 0, 1  # state: K, arrivals since the last step


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Gather K arrivals for a step; the worker goes on at the model that is current then."""
    gather(state, _SIZE, _COUNT, out)
    assign(out, worker)


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

    References
    ----------
    Nguyen et al.: FedBuff, arXiv 2106.06639, Algorithm 1 with one local step. Deviations: the
    clients are those that deliver, not drawn anew; the weights by the delay are a stepsize rule.
    """

    size: int = 10

    name: ClassVar[str] = "buffered"
    reference: ClassVar[str] = "FedBuff, arXiv 2106.06639"

    def __post_init__(self) -> None:
        check_integer("Buffered", "size", self.size, minimum=1)

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: every worker has a job at x_0."""
        return Opening(np.array([self.size, 0], np.int64), np.arange(n_workers), _rule, 0)
