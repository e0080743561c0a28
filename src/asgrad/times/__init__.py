"""How long a job takes, a distribution each."""

from asgrad.times.base import AnyTimes, Clock, ScaledTimes, Times
from asgrad.times.fixed import Fixed, Linear, Sqrt
from asgrad.times.measured import FromRun, FromTable, Measured, measured_times
from asgrad.times.random import Exponential, HalfNormal, LogNormal, Normal, Poisson, Uniform
from asgrad.times.stragglers import Stragglers

__all__ = [
    "AnyTimes",
    "Clock",
    "Exponential",
    "Fixed",
    "FromRun",
    "FromTable",
    "HalfNormal",
    "Linear",
    "LogNormal",
    "Measured",
    "Normal",
    "Poisson",
    "ScaledTimes",
    "Sqrt",
    "Stragglers",
    "Times",
    "Uniform",
    "measured_times",
]
