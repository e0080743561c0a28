"""What the server does with a direction."""

from asgrad.optimizers.base import Optimizer
from asgrad.optimizers.sgd import SGD, HeavyBall

__all__ = ["HeavyBall", "Optimizer", "SGD"]
