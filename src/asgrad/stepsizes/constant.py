"""The stepsize that ignores the delay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.kernels import compiled
from asgrad.stepsizes.base import FACTOR, Stepsize

__all__ = ["Constant"]


@compiled(FACTOR)
def _factor(parameters, stepsize, delay):
    """1."""
    return 1.0


@dataclass(frozen=True)
class Constant(Stepsize):
    """γ_t = γ, whatever the delay."""

    name: ClassVar[str] = "constant"
    reference: ClassVar[str] = "textbook rule"
    kernel: ClassVar = _factor
    reads_constants: ClassVar[bool] = False

    def parameters(self, smoothness: float, concurrency: int, n_workers: int) -> np.ndarray:
        """Return nothing: the kernel reads no parameter."""
        return np.zeros(1)
