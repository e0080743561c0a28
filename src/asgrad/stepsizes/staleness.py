"""Stepsizes that are a function of the delay alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_integer, check_positive
from asgrad.kernels import compiled
from asgrad.stepsizes.base import FACTOR, Stepsize

__all__ = ["Fleet", "Hinge", "Polynomial"]


@compiled(FACTOR)
def _polynomial(parameters, stepsize, delay):
    """(τ + 1)^−a."""
    return (delay + 1.0) ** -parameters[0]


@compiled(FACTOR)
def _hinge(parameters, stepsize, delay):
    """1 up to b, beyond it 1/(a (τ − b) + 1)."""
    slope, last = parameters[0], parameters[1]
    return 1.0 if delay <= last else 1.0 / (slope * (delay - last) + 1.0)


@compiled(FACTOR)
def _fleet(parameters, stepsize, delay):
    """exp(−β τ)."""
    return np.exp(-parameters[0] * delay)


@dataclass(frozen=True)
class Polynomial(Stepsize):
    """γ_t = γ (τ + 1)^−a: FedAsync's polynomial rule; a = 1/2 is FedBuff's, a = 1 is INVERSE.

    Parameters
    ----------
    power : float >= 0
        a.

    References
    ----------
    Xie, Koyejo, Gupta, arXiv 1903.03934; FedBuff, arXiv 2106.06639. Deviations: none.
    """

    power: float = 0.5

    name: ClassVar[str] = "polynomial"
    reference: ClassVar[str] = "FedAsync, arXiv 1903.03934"
    kernel: ClassVar = _polynomial

    def __post_init__(self) -> None:
        check_positive("Polynomial", "power", self.power, zero=True)

    def parameters(self, run: Mapping[str, float]) -> np.ndarray:
        """Return a."""
        return np.array([float(self.power)])


@dataclass(frozen=True)
class Hinge(Stepsize):
    """γ_t = γ up to a delay of b, beyond it γ/(a (τ − b) + 1): FedAsync's hinge.

    Parameters
    ----------
    slope : float > 0
        a.
    max_delay : int >= 0
        b, the largest delay that costs nothing.

    References
    ----------
    Xie, Koyejo, Gupta, arXiv 1903.03934, whose experiments have a = 10, b = 4. Deviations: none.
    """

    slope: float = 10.0
    max_delay: int = 4

    name: ClassVar[str] = "hinge"
    reference: ClassVar[str] = "FedAsync, arXiv 1903.03934"
    kernel: ClassVar = _hinge

    def __post_init__(self) -> None:
        check_positive("Hinge", "slope", self.slope)
        check_integer("Hinge", "max_delay", self.max_delay, minimum=0)

    def parameters(self, run: Mapping[str, float]) -> np.ndarray:
        """Return a and b."""
        return np.array([float(self.slope), float(self.max_delay)])


@dataclass(frozen=True)
class Fleet(Stepsize):
    """γ_t = γ exp(−β τ), β = (2/τ_θ) ln(1 + τ_θ/2): FLeet's rule, 1/(τ + 1) at τ = τ_θ/2.

    It spares small delays what `Polynomial(power=1)` takes from them, and takes more from large
    ones.

    Parameters
    ----------
    threshold : float > 0, optional
        τ_θ, twice the delay at which it meets 1/(τ + 1). By default n + 1.

    References
    ----------
    FLeet, arXiv 2006.07273. Deviations: τ_θ is a given number, not a percentile of the delays seen
    so far; FLeet's boost for rare labels is left out.
    """

    threshold: float | None = None

    name: ClassVar[str] = "fleet"
    reference: ClassVar[str] = "FLeet, arXiv 2006.07273"
    kernel: ClassVar = _fleet

    def __post_init__(self) -> None:
        if self.threshold is not None:
            check_positive("Fleet", "threshold", self.threshold)

    def parameters(self, run: Mapping[str, float]) -> np.ndarray:
        """Return β."""
        threshold = run["n_workers"] + 1.0 if self.threshold is None else self.threshold
        return np.array([2.0 / threshold * math.log1p(threshold / 2.0)])
