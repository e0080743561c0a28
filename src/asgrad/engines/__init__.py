"""The engines: simulate a method in virtual time, replay a trace on a problem."""

from asgrad.engines.replay import Interrupted, Result, Status, replay
from asgrad.engines.simulate import simulate

__all__ = ["Interrupted", "Result", "Status", "replay", "simulate"]
