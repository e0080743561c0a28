"""The engines: simulate a method in virtual time, replay a trace on a problem."""

from asgrad.engines.simulate import simulate

__all__ = ["simulate"]
