"""How long a job takes, a distribution each."""

from asgrad.times.base import AnyTimes, Clock, ScaledTimes, Times
from asgrad.times.conditions import Condition, Conditions, times_of
from asgrad.times.fixed import Fixed, Linear, Sqrt
from asgrad.times.links import Links
from asgrad.times.measured import FromRun, FromTable, Measured, measured_times
from asgrad.times.outages import Availability, Away, Outages
from asgrad.times.phases import Mixture, Phases
from asgrad.times.random import (
    Exponential,
    Gamma,
    HalfNormal,
    LogNormal,
    Normal,
    Pareto,
    Poisson,
    ShiftedExponential,
    Uniform,
    Weibull,
)
from asgrad.times.stragglers import Stragglers

__all__ = [
    "AnyTimes",
    "Availability",
    "Away",
    "Clock",
    "Condition",
    "Conditions",
    "Exponential",
    "Fixed",
    "FromRun",
    "FromTable",
    "Gamma",
    "HalfNormal",
    "Linear",
    "Links",
    "LogNormal",
    "Measured",
    "Mixture",
    "Normal",
    "Outages",
    "Pareto",
    "Phases",
    "Poisson",
    "ScaledTimes",
    "ShiftedExponential",
    "Sqrt",
    "Stragglers",
    "Times",
    "Uniform",
    "Weibull",
    "measured_times",
    "times_of",
]
