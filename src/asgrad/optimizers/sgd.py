"""Plain SGD and SGD with momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from asgrad.errors import check_decay
from asgrad.kernels import inlined
from asgrad.optimizers.base import Optimizer

__all__ = ["SGD", "HeavyBall", "Nesterov"]


@inlined
def _descend(stepsizes, d, x, x_new):
    """x_new = x − γ d, lane by lane."""
    flat_d, flat_x, flat_new = d.reshape(d.size), x.reshape(x.size), x_new.reshape(x.size)
    for start in range(0, flat_x.size, stepsizes.size):
        run_d, run_x, run_new = flat_d[start:], flat_x[start:], flat_new[start:]
        for i in range(min(stepsizes.size, run_x.size)):
            run_new[i] = run_x[i] - stepsizes[i] * run_d[i]


@inlined
def _sgd(parameters, stepsizes, step, delay, direction, memory, x, x_new):
    """x − γ d."""
    _descend(stepsizes, direction, x, x_new)


@inlined
def _heavy_ball(parameters, stepsizes, step, delay, direction, memory, x, x_new):
    """m ← β m + d, x − γ m."""
    momentum = memory[0]
    for i in range(direction.shape[0]):
        for lane in range(direction.shape[1]):
            momentum[i, lane] = parameters[0] * momentum[i, lane] + direction[i, lane]
    _descend(stepsizes, momentum, x, x_new)


@inlined
def _nesterov(parameters, stepsizes, step, delay, direction, memory, x, x_new):
    """m ← β m + d, x − γ (d + β m)."""
    momentum, size, run = parameters[0], x.size, stepsizes.size
    d, m = direction.reshape(size), memory[0].reshape(size)
    old, new = x.reshape(size), x_new.reshape(size)
    for start in range(0, size, run):
        for i in range(start, min(start + run, size)):
            m[i] = momentum * m[i] + d[i]
            new[i] = old[i] - stepsizes[i - start] * (d[i] + momentum * m[i])


@dataclass(frozen=True)
class SGD(Optimizer):
    """x_{s+1} = x_s − γ d_s."""

    name: ClassVar[str] = "sgd"
    reference: ClassVar[str] = "textbook rule"
    kernel: ClassVar = _sgd

    def parameters(self) -> np.ndarray:
        """Return nothing: the kernel reads no parameter."""
        return np.zeros(1)


@dataclass(frozen=True)
class HeavyBall(Optimizer):
    """m_{s+1} = β m_s + d_s, x_{s+1} = x_s − γ m_{s+1}, m_0 = 0.

    Parameters
    ----------
    momentum : float in [0, 1)
        β.

    References
    ----------
    Polyak 1964. Deviations: none.
    """

    momentum: float = 0.9

    name: ClassVar[str] = "heavy-ball"
    reference: ClassVar[str] = "Polyak 1964"
    kernel: ClassVar = _heavy_ball

    def __post_init__(self) -> None:
        check_decay("HeavyBall", "momentum", self.momentum)

    def parameters(self) -> np.ndarray:
        """Return β."""
        return np.array([self.momentum])

    def n_blocks(self) -> int:
        """Return 1: the momentum."""
        return 1


@dataclass(frozen=True)
class Nesterov(Optimizer):
    """m_{s+1} = β m_s + d_s, x_{s+1} = x_s − γ (d_s + β m_{s+1}), m_0 = 0.

    Of Nesterov's two sequences x is the one ahead, where gradients are taken; workers read it.

    Parameters
    ----------
    momentum : float in [0, 1)
        β.

    References
    ----------
    Nesterov 1983, in the form that Sutskever et al. 2013 and PyTorch give it. Deviations: β is the
    same in every step.
    """

    momentum: float = 0.9

    name: ClassVar[str] = "nesterov"
    reference: ClassVar[str] = "Nesterov 1983"
    kernel: ClassVar = _nesterov

    def __post_init__(self) -> None:
        check_decay("Nesterov", "momentum", self.momentum)

    def parameters(self) -> np.ndarray:
        """Return β."""
        return np.array([self.momentum])

    def n_blocks(self) -> int:
        """Return 1: the momentum."""
        return 1
