"""Recipes of federated learning: FedAsync, FedBuff, FADAS; one local step each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from asgrad.corrections import Mixing
from asgrad.errors import check_choice, check_integer, check_positive
from asgrad.methods import Buffered, Pure
from asgrad.optimizers import AMSGrad
from asgrad.recipes.base import Named, Recipe
from asgrad.stepsizes import Hinge, Polynomial, Stepsize

__all__ = ["FADAS", "FedAsync", "FedBuff"]


@dataclass(frozen=True)
class FedAsync(Named):
    """FedAsync: the server mixes each model that arrives into its own, the less the staler it is.

    x_{t+1} = (1 − α_τ) x_t + α_τ (x_{t−τ} − η g(x_{t−τ})), α_τ = α s(τ), where α is the stepsize:
    give it in (0, 1]. s(τ) = (τ + 1)^−a, or the hinge 1 for τ <= b, else 1/(a (τ − b) + 1).

    Parameters
    ----------
    local_stepsize : float > 0
        η.
    rule : "polynomial" or "hinge"
        s.
    slope : float > 0
        a; by default 1/2 for the polynomial and 10 for the hinge.
    max_delay : int >= 0
        b of the hinge.

    References
    ----------
    Xie, Koyejo, Gupta, arXiv 1903.03934. Deviations: one local step; no proximal term.
    """

    local_stepsize: float = 1.0
    rule: str = "polynomial"
    slope: float | None = None
    max_delay: int = 4

    name: ClassVar[str] = "fedasync"
    reference: ClassVar[str] = "FedAsync, arXiv 1903.03934"

    def __post_init__(self) -> None:
        check_positive("FedAsync", "local_stepsize", self.local_stepsize)
        check_choice("rule", self.rule, ("polynomial", "hinge"))
        check_integer("FedAsync", "max_delay", self.max_delay, minimum=0)
        if self.slope is not None:
            check_positive("FedAsync", "slope", self.slope)

    def build(self) -> Recipe:
        """Return pure assignment, the mixing, and the rule."""
        if self.rule == "hinge":
            rule: Stepsize = Hinge(10.0 if self.slope is None else self.slope, self.max_delay)
        else:
            rule = Polynomial(0.5 if self.slope is None else self.slope)
        return Recipe(Pure(), stepsize=rule, correction=Mixing(self.local_stepsize))


@dataclass(frozen=True)
class FedBuff(Named):
    """FedBuff: a step with the mean of K arrivals, each weighed by (1 + τ)^−p; nobody waits.

    x_{k+1} = x_k − (γ/K) Σ (1 + τ_j)^−p g(x_{k−τ_j}; ξ_j). No weight exceeds 1.

    Parameters
    ----------
    size : int >= 1
        K.
    power : float >= 0
        p; 0 weighs all alike.

    References
    ----------
    Nguyen et al., arXiv 2106.06639. Deviations: those of `ag.methods.Buffered`; one local step.
    """

    size: int = 10
    power: float = 0.5

    name: ClassVar[str] = "fedbuff"
    reference: ClassVar[str] = "FedBuff, arXiv 2106.06639"

    def __post_init__(self) -> None:
        self.build()  # the parts check what they are given

    def build(self) -> Recipe:
        """Return the buffer and the weights."""
        return Recipe(Buffered(self.size), stepsize=Polynomial(self.power))


@dataclass(frozen=True)
class FADAS(Named):
    """FADAS: FedBuff into AMSGrad at the server, with a shorter step where a delay is large.

    The step takes min(γ, 1/τ) for the largest delay τ among its gradients once that exceeds τ_c.

    Parameters
    ----------
    size : int >= 1
        K, the arrivals of a step.
    max_delay : int >= 0
        τ_c.

    References
    ----------
    Wang et al., arXiv 2407.18365. Deviations: see `ag.optimizers.AMSGrad`; one local step.
    """

    size: int = 10
    max_delay: int = 1

    name: ClassVar[str] = "fadas"
    reference: ClassVar[str] = "FADAS, arXiv 2407.18365"

    def __post_init__(self) -> None:
        self.build()

    def build(self) -> Recipe:
        """Return the buffer and the optimizer."""
        return Recipe(Buffered(self.size), optimizer=AMSGrad(max_delay=self.max_delay))
