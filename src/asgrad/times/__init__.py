"""How long a job takes, a distribution each."""

from asgrad.times.base import AnyTimes, Clock, ScaledTimes, Times
from asgrad.times.fixed import Fixed, Linear, Sqrt
from asgrad.times.measured import FromRun, FromTable, Measured, measured_times
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
    "Clock",
    "Exponential",
    "Fixed",
    "FromRun",
    "FromTable",
    "Gamma",
    "HalfNormal",
    "Linear",
    "LogNormal",
    "Measured",
    "Normal",
    "Pareto",
    "Poisson",
    "ScaledTimes",
    "ShiftedExponential",
    "Sqrt",
    "Stragglers",
    "Times",
    "Uniform",
    "Weibull",
    "measured_times",
]
