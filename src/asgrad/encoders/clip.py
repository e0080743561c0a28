"""Clipping of every gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.encoders.base import Encoder
from asgrad.errors import check_positive
from asgrad.kernels import inlined

__all__ = ["Clip"]


@inlined
def _clip(parameters, g, worker, draw, key, memory, scratch):
    """g · min(1, c/‖g‖), lane by lane."""
    for lane in range(g.shape[1]):
        largest = 0.0  # divided by, so that the squares do not overflow
        for i in range(g.shape[0]):
            largest = max(largest, abs(np.float64(g[i, lane])))
        if not 0.0 < largest < np.inf:
            continue
        square = 0.0
        for i in range(g.shape[0]):
            square += (np.float64(g[i, lane]) / largest) ** 2
        norm = largest * math.sqrt(square)
        if norm > parameters[0]:
            shrink = parameters[0] / norm
            for i in range(g.shape[0]):
                g[i, lane] *= shrink


@dataclass(frozen=True)
class Clip(Encoder):
    """g ← min(1, c/‖g‖) g for every job by itself.

    Parameters
    ----------
    threshold : float > 0
        c.

    References
    ----------
    Clipped asynchronous SGD, arXiv 2606.13287. Deviations: none.
    """

    threshold: float = 1.0

    name: ClassVar[str] = "clip"
    reference: ClassVar[str] = "arXiv 2606.13287"
    kernel: ClassVar = _clip

    def __post_init__(self) -> None:
        check_positive("Clip", "threshold", self.threshold)

    def parameters(self) -> np.ndarray:
        """Return c."""
        return np.array([self.threshold])
