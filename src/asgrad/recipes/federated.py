"""Recipes of federated learning: FedAsync, FedBuff, FADAS, each with local steps or without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from asgrad.corrections import Mixing
from asgrad.errors import check_choice, check_integer, check_positive
from asgrad.methods import Buffered, Pure
from asgrad.optimizers import AMSGrad
from asgrad.recipes.base import Named, Recipe
from asgrad.stepsizes import Hinge, Polynomial, Stepsize
from asgrad.work import LocalSteps
from asgrad.work.local_steps import checked_steps

__all__ = ["FADAS", "FedAsync", "FedBuff"]


@dataclass(frozen=True)
class FedAsync(Named):
    """FedAsync: the server mixes each model that arrives into its own, the less the staler it is.

    x_{t+1} = (1 − α_τ) x_t + α_τ y_Q, y_0 = x_{t−τ}, y_{q+1} = y_q − η g(y_q). α_τ = α s(τ), where
    α is the stepsize: give it in (0, 1]. s(τ) = (τ + 1)^−a, or the hinge 1 for τ <= b, else
    1/(a (τ − b) + 1).

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
    local_steps : int >= 1, or one a worker
        Q.

    References
    ----------
    Xie, Koyejo, Gupta, arXiv 1903.03934. Deviations: no proximal term.
    """

    local_stepsize: float = 1.0
    rule: str = "polynomial"
    slope: float | None = None
    max_delay: int = 4
    local_steps: int | Sequence[int] = 1

    name: ClassVar[str] = "fedasync"
    reference: ClassVar[str] = "FedAsync, arXiv 1903.03934"

    def __post_init__(self) -> None:
        check_positive("FedAsync", "local_stepsize", self.local_stepsize)
        check_choice("rule", self.rule, ("polynomial", "hinge"))
        check_integer("FedAsync", "max_delay", self.max_delay, minimum=0)
        if self.slope is not None:
            check_positive("FedAsync", "slope", self.slope)
        _work("FedAsync", self.local_steps, self.local_stepsize)

    def build(self) -> Recipe:
        """Return pure assignment, the mixing, and the rule."""
        if self.rule == "hinge":
            rule: Stepsize = Hinge(10.0 if self.slope is None else self.slope, self.max_delay)
        else:
            rule = Polynomial(0.5 if self.slope is None else self.slope)
        work = _work("FedAsync", self.local_steps, self.local_stepsize)
        mixing = Mixing(self.local_stepsize)
        return Recipe(Pure(), stepsize=rule, work=work, correction=mixing)


@dataclass(frozen=True)
class FedBuff(Named):
    """FedBuff: a step with the mean of K arrivals, each weighed by (1 + τ)^−p; nobody waits.

    x_{k+1} = x_k − (γ/K) Σ (1 + τ_j)^−p Δ_j, Δ_j = (y_0 − y_Q)/η the sum of a job's gradients,
    y_0 = x_{k−τ_j}, y_{q+1} = y_q − η g(y_q). No weight exceeds 1. τ counts steps, not arrivals.

    Parameters
    ----------
    size : int >= 1
        K.
    power : float >= 0
        p; 0 weighs all alike.
    local_steps : int >= 1, or one a worker
        Q.
    local_stepsize : float >= 0
        η; it is of no account where Q = 1.
    concurrency : int >= 1, optional
        The most jobs in flight, by default one a worker.

    References
    ----------
    Nguyen et al., arXiv 2106.06639. Deviations: those of `ag.methods.Buffered`; γ multiplies the
    sums of gradients, where the paper's server stepsize multiplies y_0 − y_Q: γ = η η_server.
    """

    size: int = 10
    power: float = 0.5
    local_steps: int | Sequence[int] = 1
    local_stepsize: float = 0.01
    concurrency: int | None = None

    name: ClassVar[str] = "fedbuff"
    reference: ClassVar[str] = "FedBuff, arXiv 2106.06639"

    def __post_init__(self) -> None:
        self.build()  # the parts check what they are given

    def build(self) -> Recipe:
        """Return the buffer, the weights and the local steps."""
        work = _work("FedBuff", self.local_steps, self.local_stepsize)
        buffered = Buffered(self.size, self.concurrency)
        return Recipe(buffered, stepsize=Polynomial(self.power), work=work)


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
    local_steps : int >= 1, or one a worker
        Q.
    local_stepsize : float >= 0
        η; it is of no account where Q = 1.
    concurrency : int >= 1, optional
        The most jobs in flight, by default one a worker.

    References
    ----------
    Wang et al., arXiv 2407.18365. Deviations: see `ag.optimizers.AMSGrad`; the optimizer is given
    sums of gradients, where the paper's is given y_Q − y_0, which is −η times as much.
    """

    size: int = 10
    max_delay: int = 1
    local_steps: int | Sequence[int] = 1
    local_stepsize: float = 0.01
    concurrency: int | None = None

    name: ClassVar[str] = "fadas"
    reference: ClassVar[str] = "FADAS, arXiv 2407.18365"

    def __post_init__(self) -> None:
        self.build()

    def build(self) -> Recipe:
        """Return the buffer, the local steps and the optimizer."""
        work = _work("FADAS", self.local_steps, self.local_stepsize)
        optimizer = AMSGrad(max_delay=self.max_delay)
        return Recipe(Buffered(self.size, self.concurrency), work=work, optimizer=optimizer)


def _work(owner: str, local_steps: Any, local_stepsize: float) -> LocalSteps | None:
    """Return the local steps, checked; None where a job is one gradient."""
    n = checked_steps(owner, "local_steps", local_steps)
    check_positive(owner, "local_stepsize", local_stepsize, zero=True)
    return None if n == 1 else LocalSteps(n, local_stepsize)
