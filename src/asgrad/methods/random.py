"""Random asynchronous SGD, with or without waiting for b."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_integer
from asgrad.kernels import compiled
from asgrad.methods.base import RULE, CompiledMethod, Opening, batch_size
from asgrad.methods.decisions import assign
from asgrad.methods.gather import gather
from asgrad.streams import Purpose, below, stream_key

__all__ = ["Random"]

# state: stream key and position (as `below` wants them), n, b, arrivals gathered
_N, _WAIT, _COUNT = 2, 3, 4


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Gather b arrivals, step with their mean, then b fresh uniform draws at the new model."""
    if gather(state, _WAIT, _COUNT, out):
        for _ in range(state[_WAIT]):
            assign(out, below(state, state[_N]))


@dataclass(frozen=True)
class Random(CompiledMethod):
    """Random asynchronous SGD: the next job goes to a worker drawn uniformly, busy or not.

    x_{t+1} = x_t − γ g_{i_t}(x_{π_t}), k_{t+1} ~ U[n], α_{t+1} = t + 1. With waiting: gather b
    arrivals, step with their mean, then b independent draws at the new model; this is FedBuff with
    one local step.

    Stepsize (bounded gradients): 30 L τ_C γ ≤ 1. Rate: a τ_C + (a σ²)^½ + (a ζ²)^½ + (a τ_C G)^⅔.
    It converges with unequal data; the price is that a slow worker's queue grows.

    Parameters
    ----------
    wait : int, 1 <= wait <= concurrency
        b, the arrivals that make a step.
    concurrency : int >= 1, optional
        How many jobs there are at the start, each for a worker drawn uniformly (Koloskova et al.,
        Algorithm 2). By default every worker has one job (AsGrad).

    References
    ----------
    Islamov, Safaryan, Alistarh: AsGrad, arXiv 2310.20452, Algorithms 4 and 5; Koloskova, Stich,
    Jaggi, arXiv 2206.08307, Algorithm 2. Deviations: none.
    """

    wait: int = 1
    concurrency: int | None = None

    name: ClassVar[str] = "random"
    reference: ClassVar[str] = "AsGrad, arXiv 2310.20452, Alg. 4 and 5; arXiv 2206.08307, Alg. 2"
    any_worker: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_integer("Random", "wait", self.wait, minimum=1)
        if self.concurrency is not None:
            check_integer("Random", "concurrency", self.concurrency, minimum=1)

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: one job a worker, or `concurrency` uniform draws."""
        concurrency = self.concurrency or n_workers
        batch_size("Random", "wait", self.wait, concurrency, "the concurrency")
        key = stream_key(seed, Purpose.METHOD)
        state = np.array([key, 0, n_workers, self.wait, 0], np.int64)
        if self.concurrency is None:
            workers = np.arange(n_workers)
        else:
            workers = np.array([below(state, n_workers) for _ in range(concurrency)], np.int64)
        return Opening(state, workers, _rule, 0)
