"""DC-ASGD: asynchronous SGD with delay compensation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from asgrad.corrections import DelayCompensation
from asgrad.methods import Pure
from asgrad.recipes.base import Named, Recipe

__all__ = ["DCASGD"]


@dataclass(frozen=True)
class DCASGD(Named):
    """DC-ASGD: pure assignment, and g + λ g⊙g⊙(x_now − x_read) in the gradient's place.

    Parameters
    ----------
    strength : float > 0
        λ, or λ_0 where it adapts.
    decay : float in [0, 1), optional
        Of the running mean of g², by whose root λ_0 is divided; None: λ is fixed.

    References
    ----------
    Zheng et al., arXiv 1609.08326. Deviations: those of `ag.corrections.DelayCompensation`.
    """

    strength: float = 0.04
    decay: float | None = None

    name: ClassVar[str] = "dc-asgd"
    reference: ClassVar[str] = "DC-ASGD, arXiv 1609.08326"

    def __post_init__(self) -> None:
        self.build()  # the part checks what it is given

    def build(self) -> Recipe:
        """Return the method and its correction."""
        return Recipe(Pure(), correction=DelayCompensation(self.strength, self.decay))
