"""Who computes in a live run."""

from asgrad.workers.ray import Ray
from asgrad.workers.threads import Threads
from asgrad.workers.virtual import Virtual

__all__ = ["Ray", "Threads", "Virtual"]
