"""The delay-adaptive stepsize of Koloskova, Stich and Jaggi."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_choice
from asgrad.kernels import compiled
from asgrad.stepsizes.base import (
    FACTOR,
    Stepsize,
    check_concurrency,
    check_smoothness,
    known_smoothness,
)

__all__ = ["Koloskova"]


@compiled(FACTOR)
def _factor(parameters, stepsize, delay):
    """1 up to delay τ_C, beyond it min{1, 1/(4 L τ γ)} or 0."""
    smoothness, concurrency, drop = parameters[0], parameters[1], parameters[2]
    if delay <= concurrency:
        return 1.0
    if drop != 0:
        return 0.0
    return min(1.0, 1.0 / (4.0 * smoothness * delay * stepsize))


@dataclass(frozen=True)
class Koloskova(Stepsize):
    """η_t = η if τ_t <= τ_C, else a value in [0, min{η, 1/(4 L τ_t)}): either end of it.

    It takes τ_max out of the rate: O(σ²/ε² + τ_C/ε) for η <= 1/(4L). With unequal data it biases
    the model towards fast workers, as its authors warn.

    Parameters
    ----------
    stale : "shrink" or "drop"
        Beyond τ_C take the upper end min{η, 1/(4 L τ_t)}, or 0: ignore the gradient.
    concurrency : int >= 1, optional
        τ_C. By default that of the trace; in a live run the number of first jobs.
    smoothness : float > 0, optional
        L. By default the problem's.

    References
    ----------
    Koloskova, Stich, Jaggi, arXiv 2206.08307, Theorem 8. Deviations: the upper end itself is taken,
    which the half-open interval excludes.
    """

    stale: str = "shrink"
    concurrency: int | None = None
    smoothness: float | None = None

    name: ClassVar[str] = "koloskova"
    reference: ClassVar[str] = "arXiv 2206.08307, Thm. 8"
    kernel: ClassVar = _factor

    def __post_init__(self) -> None:
        check_choice("treatment of stale gradients", self.stale, ("shrink", "drop"))
        check_concurrency("Koloskova", self.concurrency)
        check_smoothness("Koloskova", self.smoothness)

    def parameters(self, run: Mapping[str, float]) -> np.ndarray:
        """Return L, τ_C and whether stale gradients are dropped."""
        drop = self.stale == "drop"
        bound = 1.0 if drop else known_smoothness("Koloskova", self.smoothness, run)
        return np.array([bound, self.concurrency or run["concurrency"], float(drop)])
