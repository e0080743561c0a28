"""The delay-adaptive stepsizes of Mishchenko, Bach, Even and Woodworth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import AsgradError, check_choice, check_positive
from asgrad.kernels import compiled
from asgrad.stepsizes.base import FACTOR, Stepsize, check_smoothness, known_smoothness

__all__ = ["Mishchenko"]

_SETTINGS = ("practical", "convex", "nonconvex", "heterogeneous", "strongly-convex")
_PRACTICAL, _STRONGLY = 0, 2


@compiled(FACTOR)
def _factor(parameters, stepsize, delay):
    """n / max(n, τ⁺), or min{1, bound(τ⁺)/γ}, τ⁺ = τ + 1."""
    setting, n_workers = parameters[0], parameters[1]
    since = delay + 1.0
    if setting == _PRACTICAL:
        return n_workers / max(n_workers, since)
    scale, convexity, smoothness = parameters[2], parameters[3], parameters[4]
    bound = 1.0 / (scale * smoothness * since)
    if setting == _STRONGLY:
        bound *= np.exp(-convexity * since / (4.0 * n_workers * smoothness))
    return min(1.0, bound / stepsize)


@dataclass(frozen=True)
class Mishchenko(Stepsize):
    """A stepsize that falls as 1/τ⁺, τ⁺ = τ + 1, beyond the tuned γ.

    convex and nonconvex: γ_t = min{γ, 1/(4 L τ⁺)}; heterogeneous: min{γ, 1/(8 L τ⁺)};
    strongly-convex: min{γ, exp(−μ τ⁺/(4 n L))/(4 L τ⁺)}; practical, as in the authors' code:
    γ n / max(n, τ⁺). The other terms of the paper's minima do not depend on the delay and are part
    of γ.

    Made for `Pure`; in the homogeneous settings the rate depends on n and on no delay at all.

    Parameters
    ----------
    setting : str
        "practical", "convex", "nonconvex", "heterogeneous" or "strongly-convex".
    smoothness : float > 0, optional
        L. By default the problem's; the practical form needs none.
    strong_convexity : float > 0, optional
        μ; for "strongly-convex" only.

    References
    ----------
    Mishchenko, Bach, Even, Woodworth, arXiv 2206.07638. Deviations: the point that is reported is
    the last one, not one drawn with probability proportional to the stepsizes.
    """

    setting: str = "practical"
    smoothness: float | None = None
    strong_convexity: float | None = None

    name: ClassVar[str] = "mishchenko"
    reference: ClassVar[str] = "arXiv 2206.07638"
    kernel: ClassVar = _factor

    def __post_init__(self) -> None:
        check_choice("setting", self.setting, _SETTINGS)
        check_smoothness("Mishchenko", self.smoothness)
        if self.strong_convexity is not None:
            check_positive("Mishchenko", "strong_convexity", self.strong_convexity)
        elif self.setting == "strongly-convex":
            raise AsgradError("Mishchenko: strongly-convex needs strong_convexity=...")

    def parameters(self, run: Mapping[str, float]) -> np.ndarray:
        """Return the setting, n, the constant before Lτ⁺, μ and L."""
        if self.setting == "practical":
            return np.array([_PRACTICAL, run["n_workers"], 0.0, 0.0, 0.0])
        bound = known_smoothness("Mishchenko", self.smoothness, run)
        scale = 8.0 if self.setting == "heterogeneous" else 4.0
        kind = _STRONGLY if self.setting == "strongly-convex" else 1
        convexity = self.strong_convexity or 0.0
        return np.array([kind, run["n_workers"], scale, convexity, bound])
