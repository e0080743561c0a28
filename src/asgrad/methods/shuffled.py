"""Shuffled asynchronous SGD, with or without waiting for b, and random reshuffling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_flag, check_integer
from asgrad.kernels import compiled, inlined
from asgrad.methods.base import RULE, CompiledMethod, Opening, batch_size
from asgrad.methods.decisions import assign
from asgrad.methods.gather import gather
from asgrad.streams import Purpose, shuffle, stream_key

__all__ = ["Reshuffling", "Shuffled"]

# state: stream key and position (as `shuffle` wants them), b, arrivals gathered, whether one
# permutation is kept for ever, r (n: a new permutation is due), then the permutation χ
_WAIT, _COUNT, _ONCE, _NEXT, _ORDER = 2, 3, 4, 5, 6


@inlined
def _next_worker(state):
    """Return χ(r) and move on; at r = n, draw a new permutation unless one is kept for ever."""
    order = state[_ORDER:]
    if state[_NEXT] == order.size:
        if state[_ONCE] < 2:  # 0: reshuffle every time; 1: the one shuffle is due; 2: it is done
            shuffle(state, order, order.size)
            if state[_ONCE] == 1:
                state[_ONCE] = 2
        state[_NEXT] = 0
    worker = order[state[_NEXT]]
    state[_NEXT] += 1
    return worker


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Gather b arrivals, step with their mean, then the next b workers of the permutation."""
    if gather(state, _WAIT, _COUNT, out):
        for _ in range(state[_WAIT]):
            assign(out, _next_worker(state))


@dataclass(frozen=True)
class Shuffled(CompiledMethod):
    """Shuffled asynchronous SGD: jobs go round the workers in a random order, epoch by epoch.

    x_{t+1} = x_t − γ g_{i_t}(x_{π_t}), k_{t+1} = χ(r), r ← r + 1, α_{t+1} = t + 1; at r = n a new
    permutation χ is drawn and r = 0. Between two reshuffles each worker is assigned exactly once.

    Stepsize (bounded gradients): 30 L n γ ≤ 1. Rate: a n + (a σ²)^½ + (a √n ζ)^⅔ + (a G n)^⅔.
    With very unequal data (ζ ≥ √(n ε)) it beats `Random`; with equal data it has no advantage.

    Parameters
    ----------
    once : bool
        Keep one permutation for ever (shuffle once).
    wait : int, 1 <= wait <= concurrency
        b, the arrivals that make a step; b workers then follow in the permutation. The paper has
        b = 1; larger b is the natural combination with its waiting methods.
    concurrency : int, 1 <= concurrency <= n_workers, optional
        How many jobs there are at the start, for the first workers of the first permutation. By
        default every worker has one job and the first permutation begins after that.

    References
    ----------
    Islamov, Safaryan, Alistarh: AsGrad, arXiv 2310.20452, Algorithm 6. Deviations: `wait` and
    `concurrency` are not in the paper.
    """

    once: bool = False
    wait: int = 1
    concurrency: int | None = None

    name: ClassVar[str] = "shuffled"
    reference: ClassVar[str] = "AsGrad, arXiv 2310.20452, Alg. 6"
    any_worker: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_flag("Shuffled", "once", self.once)
        check_integer("Shuffled", "wait", self.wait, minimum=1)
        if self.concurrency is not None:
            check_integer("Shuffled", "concurrency", self.concurrency, minimum=1)

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: one job a worker, or the head of the first permutation."""
        concurrency = self.concurrency or n_workers
        batch_size("Shuffled", "concurrency", concurrency, n_workers, "the number of workers")
        batch_size("Shuffled", "wait", self.wait, concurrency, "the concurrency")
        head = [stream_key(seed, Purpose.METHOD), 0, self.wait, 0, int(self.once), n_workers]
        state = np.concatenate([np.array(head, np.int64), np.arange(n_workers)])
        if self.concurrency is None:
            workers = np.arange(n_workers)
        else:
            workers = np.array([_next_worker(state) for _ in range(concurrency)], np.int64)
        return Opening(state, workers, _rule, 0)


@dataclass(frozen=True)
class Reshuffling(CompiledMethod):
    """SGD with random reshuffling over the workers: one job in flight, a permutation an epoch.

    x_{t+1} = x_t − γ g_{χ(t mod n)}(x_t): no delay, and no parallelism. The yardstick for what the
    order of the workers alone does.

    Stepsize: 20 n L γ ≤ 1. Rate: a n + (a √n ζ)^⅔.

    Parameters
    ----------
    once : bool
        Keep one permutation for ever (shuffle once).

    References
    ----------
    Special case of AsGrad, arXiv 2310.20452, Table 1. Deviations: none.
    """

    once: bool = False

    name: ClassVar[str] = "reshuffling"
    reference: ClassVar[str] = "AsGrad, arXiv 2310.20452, Table 1"
    any_worker: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_flag("Reshuffling", "once", self.once)

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: `Shuffled` with a single job in flight."""
        return Shuffled(once=self.once, concurrency=1).begin(n_workers, seed)
