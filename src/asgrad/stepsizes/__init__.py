"""Stepsizes that depend on the delay, a rule each."""

from asgrad.stepsizes.base import Stepsize
from asgrad.stepsizes.constant import Constant
from asgrad.stepsizes.koloskova import Koloskova
from asgrad.stepsizes.mishchenko import Mishchenko
from asgrad.stepsizes.staleness import Fleet, Hinge, Polynomial

__all__ = [
    "Constant",
    "Fleet",
    "Hinge",
    "Koloskova",
    "Mishchenko",
    "Polynomial",
    "Stepsize",
]
