"""What a gradient is: problems, data sets, and their split over the workers."""

from asgrad.problems.base import CompiledProblem, Problem
from asgrad.problems.data import Dataset, load, synthetic
from asgrad.problems.models import LeastSquares, LinearModel, Logistic, Softmax
from asgrad.problems.quadratic import Quadratic, Tridiagonal
from asgrad.problems.split import split

__all__ = [
    "CompiledProblem",
    "Dataset",
    "LeastSquares",
    "LinearModel",
    "Logistic",
    "Problem",
    "Quadratic",
    "Softmax",
    "Tridiagonal",
    "load",
    "split",
    "synthetic",
]
