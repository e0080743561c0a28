"""Comparisons of many methods on one problem, a tuned stepsize each."""

from asgrad.experiments.comparison import Comparison, compare
from asgrad.experiments.config import CompareConfig, TrainConfig

__all__ = ["CompareConfig", "Comparison", "TrainConfig", "compare"]
