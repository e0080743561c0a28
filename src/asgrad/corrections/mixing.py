"""FedAsync: the server's model is mixed with the worker's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.corrections.base import Correction
from asgrad.errors import check_positive
from asgrad.kernels import inlined

__all__ = ["Mixing"]


@inlined
def _mix(parameters, g, x_read, x_now, delay, stepsizes, worker, memory):
    """η g + (x_now − x_read)."""
    flat_g, flat_read, flat_now = g.reshape(g.size), x_read.reshape(g.size), x_now.reshape(g.size)
    for i in range(flat_g.size):
        flat_g[i] = parameters[0] * flat_g[i] + (flat_now[i] - flat_read[i])


@dataclass(frozen=True)
class Mixing(Correction):
    """g ← η g + (x_now − x_read), which makes a step x ← (1 − α) x + α x_worker, as in FedAsync.

    x_worker = x_read − η g is the worker's own model after its local step, and the run's stepsize
    γ is the mixing weight α, in (0, 1]. With `stepsizes.Polynomial` or `stepsizes.Hinge` it is
    FedAsync's α s(τ). Stale models pull the server back to where they began: for plain
    asynchronous SGD leave it out.

    Parameters
    ----------
    local_stepsize : float > 0
        η, the worker's.

    References
    ----------
    Xie, Koyejo, Gupta, arXiv 1903.03934, Algorithm 1. Deviations: none for one local step, where
    the gradient of the local regulariser (ρ/2) ‖x − x_read‖² is 0.
    """

    local_stepsize: float = 0.1

    name: ClassVar[str] = "mixing"
    reference: ClassVar[str] = "FedAsync, arXiv 1903.03934"
    kernel: ClassVar = _mix

    def __post_init__(self) -> None:
        check_positive("Mixing", "local_stepsize", self.local_stepsize)

    def parameters(self) -> np.ndarray:
        """Return η."""
        return np.array([self.local_stepsize])
