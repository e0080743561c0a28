"""What a trace says to compute, and computing it."""

from asgrad.numerics.replay import Interrupted, Result, Status, replay

__all__ = ["Interrupted", "Result", "Status", "replay"]
