"""What a trace says to compute, and computing it."""

from asgrad.numerics.prepared import Prepared, prepare
from asgrad.numerics.replay import Interrupted, Result, Status, replay

__all__ = ["Interrupted", "Prepared", "Result", "Status", "prepare", "replay"]
