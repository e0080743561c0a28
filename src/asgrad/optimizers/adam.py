"""Adam and AMSGrad at the server."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_decay, check_integer, check_positive
from asgrad.kernels import inlined
from asgrad.optimizers.base import Optimizer

__all__ = ["AMSGrad", "Adam"]


@inlined
def _adam(parameters, stepsizes, step, delay, direction, memory, x, x_new):
    """m ← β₁ m + (1 − β₁) d, v ← β₂ v + (1 − β₂) d⊙d, x − γ m̂/(√v̂ + ε), both bias-corrected."""
    first, second, epsilon = parameters[0], parameters[1], parameters[2]
    first_share, second_share = 1.0 - first ** (step + 1.0), 1.0 - second ** (step + 1.0)
    size, run = x.size, stepsizes.size
    d, m, v = direction.reshape(size), memory[0].reshape(size), memory[1].reshape(size)
    old, new = x.reshape(size), x_new.reshape(size)
    for start in range(0, size, run):
        for i in range(start, min(start + run, size)):
            m[i] = first * m[i] + (1.0 - first) * d[i]
            v[i] = second * v[i] + (1.0 - second) * (d[i] * d[i])
            root = math.sqrt(v[i] / second_share)
            new[i] = old[i] - stepsizes[i - start] * (m[i] / first_share / (root + epsilon))


@inlined
def _amsgrad(parameters, stepsizes, step, delay, direction, memory, x, x_new):
    """As Adam's m and v, v̂ ← max(v̂, v), x − γ_s m/(√v̂ + ε), γ_s = min(γ, 1/τ) beyond τ_c."""
    first, second, epsilon = parameters[0], parameters[1], parameters[2]
    most = 1.0 / delay if delay > parameters[3] else np.inf
    size, run = x.size, stepsizes.size
    d, m, v = direction.reshape(size), memory[0].reshape(size), memory[1].reshape(size)
    largest, old, new = memory[2].reshape(size), x.reshape(size), x_new.reshape(size)
    for start in range(0, size, run):
        for i in range(start, min(start + run, size)):
            m[i] = first * m[i] + (1.0 - first) * d[i]
            v[i] = second * v[i] + (1.0 - second) * (d[i] * d[i])
            # Written so that NaN stays: a lane that blew up must be seen to have diverged.
            largest[i] = largest[i] if largest[i] >= v[i] else v[i]
            stepsize = min(np.float64(stepsizes[i - start]), most)
            new[i] = old[i] - stepsize * (m[i] / (math.sqrt(largest[i]) + epsilon))


@dataclass(frozen=True)
class Adam(Optimizer):
    """m ← β₁ m + (1 − β₁) d, v ← β₂ v + (1 − β₂) d⊙d, x ← x − γ m̂/(√v̂ + ε), in coordinates.

    m̂ = m/(1 − β₁^t) and v̂ = v/(1 − β₂^t) at the t-th step, t = s + 1; m_0 = v_0 = 0.

    Parameters
    ----------
    momentum : float in [0, 1)
        β₁.
    decay : float in [0, 1)
        β₂.
    epsilon : float > 0
        ε.

    References
    ----------
    Kingma, Ba, arXiv 1412.6980, Algorithm 1, with its bias correction. Deviations: none; d is the
    server's direction, of however many gradients.
    """

    momentum: float = 0.9
    decay: float = 0.999
    epsilon: float = 1e-8

    name: ClassVar[str] = "adam"
    reference: ClassVar[str] = "arXiv 1412.6980"
    kernel: ClassVar = _adam

    def __post_init__(self) -> None:
        check_decay("Adam", "momentum", self.momentum)
        check_decay("Adam", "decay", self.decay)
        check_positive("Adam", "epsilon", self.epsilon)

    def parameters(self) -> np.ndarray:
        """Return β₁, β₂ and ε."""
        return np.array([self.momentum, self.decay, self.epsilon])

    def n_blocks(self) -> int:
        """Return 2: m and v."""
        return 2


@dataclass(frozen=True)
class AMSGrad(Optimizer):
    """m, v as in Adam, v̂ ← max(v̂, v), x ← x − γ m/(√v̂ + ε); with max_delay that of FADAS.

    There is no bias correction. With `max_delay` τ_c, a step whose largest delay τ is beyond it is
    taken with min(γ, 1/τ) in place of γ: FADAS's delay-adaptive stepsize. τ is that of the
    gradients that the step is the first to use.

    Parameters
    ----------
    momentum : float in [0, 1)
        β₁.
    decay : float in [0, 1)
        β₂.
    epsilon : float > 0
        ε.
    max_delay : int >= 0, optional
        τ_c; by default the stepsize does not depend on the delay.

    References
    ----------
    Reddi, Kale, Kumar, arXiv 1904.09237, Algorithm 2; FADAS: Wang et al., arXiv 2407.18365.
    Deviations: β₁ does not fall with the steps, and the paper on AMSGrad has no ε. FADAS's rule is
    taken from second sources, which have ε outside of the root.
    """

    momentum: float = 0.9
    decay: float = 0.999
    epsilon: float = 1e-8
    max_delay: int | None = None

    name: ClassVar[str] = "amsgrad"
    reference: ClassVar[str] = "arXiv 1904.09237; FADAS, arXiv 2407.18365"
    kernel: ClassVar = _amsgrad

    def __post_init__(self) -> None:
        check_decay("AMSGrad", "momentum", self.momentum)
        check_decay("AMSGrad", "decay", self.decay)
        check_positive("AMSGrad", "epsilon", self.epsilon)
        if self.max_delay is not None:
            check_integer("AMSGrad", "max_delay", self.max_delay, minimum=0)

    def parameters(self) -> np.ndarray:
        """Return β₁, β₂, ε and τ_c."""
        threshold = np.inf if self.max_delay is None else self.max_delay
        return np.array([self.momentum, self.decay, self.epsilon, threshold])

    def n_blocks(self) -> int:
        """Return 3: m, v and v̂."""
        return 3
