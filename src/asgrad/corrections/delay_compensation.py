"""DC-ASGD: a gradient is carried from the model where it was taken to the model now."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.corrections.base import Correction
from asgrad.errors import check_decay, check_positive
from asgrad.kernels import inlined

__all__ = ["DelayCompensation"]

_EPSILON = 1e-7


@inlined
def _compensate(parameters, g, x_read, x_now, delay, stepsizes, worker, memory):
    """g + λ g⊙g⊙(x_now − x_read); λ a number, or λ_0/√(mean square of g + ε)."""
    strength, decay = parameters[0], parameters[1]
    flat_g, flat_read, flat_now = g.reshape(g.size), x_read.reshape(g.size), x_now.reshape(g.size)
    if memory.shape[0] == 0:
        for i in range(flat_g.size):
            square = flat_g[i] * flat_g[i]
            flat_g[i] += strength * square * (flat_now[i] - flat_read[i])
        return
    mean = memory[0].reshape(g.size)
    for i in range(flat_g.size):
        square = flat_g[i] * flat_g[i]
        mean[i] = decay * mean[i] + (1.0 - decay) * square
        scale = strength / math.sqrt(mean[i] + _EPSILON)
        flat_g[i] += scale * square * (flat_now[i] - flat_read[i])


@dataclass(frozen=True)
class DelayCompensation(Correction):
    """g ← g + λ g⊙g⊙(x_now − x_read): DC-ASGD's first-order guess of the gradient at x_now.

    g⊙g stands for the diagonal of the Hessian, of which it is an estimate where the loss is a
    log-likelihood near its optimum; elsewhere the correction may do harm. Without a decay λ is
    fixed (DC-ASGD-c). With one, λ_t = λ_0/√(MeanSquare(t) + 1e-7) in every coordinate (DC-ASGD-a),
    MeanSquare(t) = m MeanSquare(t − 1) + (1 − m) g⊙g, MeanSquare(−1) = 0, one for all workers.

    Parameters
    ----------
    strength : float >= 0
        λ, or λ_0. The paper takes 0.04 on CIFAR-10 without a decay, and λ_0 = 2 with m = 0.95.
    decay : float in [0, 1), optional
        m; it makes λ adaptive, at the price of one block of memory of the model's size.

    References
    ----------
    Zheng et al., arXiv 1609.08326, Algorithm 2. Deviations: none. Where a step has several
    gradients, or a table, which the paper has not, each is compensated by itself, once, in the step
    that is the first to use it.
    """

    strength: float = 0.04
    decay: float | None = None

    name: ClassVar[str] = "delay-compensation"
    reference: ClassVar[str] = "DC-ASGD, arXiv 1609.08326"
    kernel: ClassVar = _compensate

    def __post_init__(self) -> None:
        check_positive("DelayCompensation", "strength", self.strength, zero=True)
        if self.decay is not None:
            check_decay("DelayCompensation", "decay", self.decay)

    def parameters(self) -> np.ndarray:
        """Return λ, or λ_0, and m."""
        return np.array([self.strength, self.decay or 0.0])

    def n_blocks(self, n_workers: int) -> int:
        """Return 1 for the mean square, if there is one."""
        return 0 if self.decay is None else 1
