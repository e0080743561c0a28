"""Who computes what when, in virtual time; no gradient."""

from asgrad.simulation.cost import Cost
from asgrad.simulation.simulate import expected_cost, simulate

__all__ = ["Cost", "expected_cost", "simulate"]
