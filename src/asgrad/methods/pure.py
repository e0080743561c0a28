"""Pure asynchronous SGD, with or without waiting for b."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_integer
from asgrad.kernels import compiled
from asgrad.methods.base import RULE, CompiledMethod, Opening, batch_size
from asgrad.methods.decisions import assign
from asgrad.methods.gather import gather

__all__ = ["Pure"]

_WAIT, _COUNT, _GATHERED = 0, 1, 2  # state: b, arrivals gathered, then their workers


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Gather b arrivals, step with their mean, give each of those workers the new model."""
    state[_GATHERED + state[_COUNT]] = worker
    if gather(state, _WAIT, _COUNT, out):
        for i in range(state[_WAIT]):
            assign(out, state[_GATHERED + i])


@dataclass(frozen=True)
class Pure(CompiledMethod):
    """Pure asynchronous SGD: whoever delivers a gradient gets the new model at once.

    x_{t+1} = x_t − γ g_{i_t}(x_{π_t}), k_{t+1} = i_t, α_{t+1} = t + 1. With waiting: gather b
    arrivals, step with their mean, give each of those b workers the new model.

    Stepsize: 20 L γ √(τ_max τ_C) ≤ 1. Rate: a√(τ_max τ_C) + (a σ²)^½ + ζ², a = L F0 / T: with
    unequal data it stalls at ζ², because fast workers are heard more often.

    Parameters
    ----------
    wait : int, 1 <= wait <= n_workers
        b, the arrivals that make a step.

    References
    ----------
    Islamov, Safaryan, Alistarh: AsGrad, arXiv 2310.20452, Algorithms 2 and 3. Deviations: none.
    """

    wait: int = 1

    name: ClassVar[str] = "pure"
    reference: ClassVar[str] = "AsGrad, arXiv 2310.20452, Alg. 2 and 3"

    def __post_init__(self) -> None:
        check_integer("Pure", "wait", self.wait, minimum=1)

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: every worker has a job at x_0."""
        wait = batch_size("Pure", "wait", self.wait, n_workers, "one job a worker")
        state = np.zeros(_GATHERED + wait, np.int64)
        state[_WAIT] = wait
        return Opening(state, np.arange(n_workers), _rule, 0)
