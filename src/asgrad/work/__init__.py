"""Of how many gradients a job is made, and how one leads to the next."""

from asgrad.work.base import Work
from asgrad.work.local_steps import LocalSteps

__all__ = ["LocalSteps", "Work"]
