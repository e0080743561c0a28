"""What the server does with a direction."""

from asgrad.optimizers.adam import Adam, AMSGrad
from asgrad.optimizers.base import Optimizer
from asgrad.optimizers.sgd import SGD, HeavyBall, Nesterov

__all__ = ["AMSGrad", "Adam", "HeavyBall", "Nesterov", "Optimizer", "SGD"]
