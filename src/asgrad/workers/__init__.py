"""Who computes in a live run."""

from asgrad.workers.ray import Ray
from asgrad.workers.threads import Threads

__all__ = ["Ray", "Threads"]
