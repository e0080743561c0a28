"""Minibatch SGD over a random set of workers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_integer
from asgrad.kernels import compiled
from asgrad.methods.base import RULE, CompiledMethod, Opening, batch_size
from asgrad.methods.decisions import assign
from asgrad.methods.gather import gather
from asgrad.streams import Purpose, shuffle, stream_key

__all__ = ["Minibatch"]

# state: stream key and position (as `shuffle` wants them), b, arrivals of this round, then the
# workers, of which the first b are this round's
_BATCH, _COUNT, _ORDER = 2, 3, 4


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """When all b are in, step with their mean and draw the next b."""
    if gather(state, _BATCH, _COUNT, out):
        order = state[_ORDER:]
        shuffle(state, order, state[_BATCH])
        for i in range(state[_BATCH]):
            assign(out, order[i])


@dataclass(frozen=True)
class Minibatch(CompiledMethod):
    """Minibatch SGD: b workers drawn without replacement, a step with the mean of their gradients.

    x_{q+1} = x_q − (γ/b) Σ_{i in S_q} g_i(x_q). Synchronous: the slowest of the b sets the pace.

    Stepsize: 20 L γ ≤ 1. Rate: a + (a ζ²/b)^½.

    Parameters
    ----------
    batch : int, 1 <= batch <= n_workers, optional
        b. By default half of the workers, rounded up.

    References
    ----------
    Special case of AsGrad, arXiv 2310.20452, Table 1. Deviations: none.
    """

    batch: int | None = None

    name: ClassVar[str] = "minibatch"
    reference: ClassVar[str] = "AsGrad, arXiv 2310.20452, Table 1"
    any_worker: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.batch is not None:
            check_integer("Minibatch", "batch", self.batch, minimum=1)

    def defaults(self, n_workers: int) -> str:
        """Return what the parameters that were left open come to, empty where none was."""
        return (
            f"batch = b = {(n_workers + 1) // 2} (half of the workers)"
            if self.batch is None
            else ""
        )

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: the first b workers drawn."""
        batch = self.batch or (n_workers + 1) // 2
        batch_size("Minibatch", "batch", batch, n_workers, "the number of workers")
        head = np.array([stream_key(seed, Purpose.METHOD), 0, batch, 0], np.int64)
        state = np.concatenate([head, np.arange(n_workers)])
        shuffle(state, state[_ORDER:], batch)
        return Opening(state, state[_ORDER : _ORDER + batch].copy(), _rule, 0)
