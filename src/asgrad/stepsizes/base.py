"""How a stepsize depends on the delay: a factor on the weight of a job."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numba import types

from asgrad.errors import AsgradError, check_integer, check_positive
from asgrad.registry import label

__all__ = ["FACTOR", "Stepsize"]

FACTOR = types.float64(types.float64[::1], types.float64, types.int64)
"""factor(parameters, stepsize, delay): what the job's gradient is multiplied by."""


class Stepsize(ABC):
    """A rule that turns the tuned stepsize γ and a job's delay τ into the stepsize used for it."""

    name: ClassVar[str] = ""
    reference: ClassVar[str] = ""
    kernel: ClassVar[Callable]
    reads_constants: ClassVar[bool] = True
    """Whether `parameters` reads L or τ_C, which may take long to find."""

    @abstractmethod
    def parameters(self, smoothness: float, concurrency: int, n_workers: int) -> np.ndarray:
        """Return what the kernel reads, given L of the problem and τ_C and n of the trace."""

    @property
    def label(self) -> str:
        """The rule as the command line takes it."""
        return label(self)


def known_smoothness(owner: str, given: float | None, problem: float) -> float:
    """Return L as given, else the problem's, which must be known."""
    smoothness = problem if given is None else given
    if not (np.isfinite(smoothness) and smoothness > 0):
        raise AsgradError(
            f"{owner}: the problem's smoothness constant is not known; give smoothness=..., on the "
            f"command line as in {owner.lower()}:smoothness=10."
        )
    return smoothness


def check_smoothness(owner: str, value: float | None) -> None:
    """Refuse a smoothness constant that is no positive number."""
    if value is not None:
        check_positive(owner, "smoothness", value)


def check_concurrency(owner: str, value: int | None) -> None:
    """Refuse a concurrency that is no positive integer."""
    if value is not None:
        check_integer(owner, "concurrency", value, minimum=1)
