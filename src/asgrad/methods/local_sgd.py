"""Asynchronous local SGD: slow workers take fewer local steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import AsgradError, check_integer
from asgrad.kernels import compiled
from asgrad.methods.base import RULE, CompiledMethod, Opening
from asgrad.methods.decisions import apply, assign, job_time, take_step
from asgrad.methods.state import real, set_real

__all__ = ["LocalSGD"]

# state: H, the least H_i, the shortest time of a gradient so far; then every worker's H_i
_MOST, _LEAST, _FASTEST, _OWN = 0, 1, 2, 3


@compiled(RULE)
def _rule(state, worker, read_step, step, out):
    """Step with what arrived; its worker goes on with H_i steps by the time that it needed."""
    own = job_time(out) / state[_OWN + worker]
    if own < real(state, _FASTEST):
        set_real(state, _FASTEST, own)
    n_local = state[_MOST]
    if own > 0.0:
        n_local = max(state[_LEAST], int(state[_MOST] * (real(state, _FASTEST) / own)))
    state[_OWN + worker] = n_local
    apply(out, 1.0)
    take_step(out)
    assign(out, worker, n_local)


@dataclass(frozen=True)
class LocalSGD(CompiledMethod):
    """Asynchronous local SGD: H_i gradients a job, fewer for slow workers; with +local-steps.

    H_i = max(H_min, ⌊H · fastest/own⌋), from the time that worker i needed for a gradient in its
    last job, and the shortest of all so far; at first H for all. Whoever delivers gets the new
    model at once, as with `Pure`. How a local step moves says the recipe:
    `local-sgd:n=50+local-steps:stepsize=0.1`, of which n is not used; without it all gradients of a
    job are taken at one model.

    Parameters
    ----------
    n : int >= 1
        H, of the fastest worker; at most 32767.
    least : int >= 1
        H_min.

    References
    ----------
    Liu et al.: Asynchronous Local-SGD Training for Language Modeling, arXiv 2401.09135 (dynamic
    local updates). Deviations: none.
    """

    n: int = 50
    least: int = 5

    name: ClassVar[str] = "local-sgd"
    reference: ClassVar[str] = "Asynchronous local SGD, arXiv 2401.09135"

    def __post_init__(self) -> None:
        check_integer("LocalSGD", "n", self.n, minimum=1, maximum=2**15 - 1)
        check_integer("LocalSGD", "least", self.least, minimum=1)
        if self.least > self.n:
            raise AsgradError(f"LocalSGD: least must be at most n = {self.n}, got {self.least}.")

    def begin(self, n_workers: int, seed: int) -> Opening:
        """Return the opening: every worker has a job of H gradients at x_0."""
        state = np.full(_OWN + n_workers, self.n, np.int64)
        state[_LEAST], state[_FASTEST] = self.least, np.array(np.inf).view(np.int64)
        return Opening(state, np.arange(n_workers), _rule, 0, says_work=True, work=self.n)
