"""How a stepsize depends on the delay: a factor on the weight of a job."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from numba import types

from asgrad.errors import AsgradError, check_integer, check_positive
from asgrad.kernels import HasKernel
from asgrad.registry import label

__all__ = ["FACTOR", "Stepsize"]

FACTOR = types.float64(types.float64[::1], types.float64, types.int64)
"""factor(parameters, stepsize, delay): what the job's gradient is multiplied by."""

_LEAST, _MOST = 1e-300, 1e300  # of L, so that 1/L and its multiples are numbers


class Stepsize(HasKernel, ABC):
    """A rule that turns the tuned stepsize γ and a job's delay τ into the stepsize used for it."""

    name: ClassVar[str] = ""
    reference: ClassVar[str] = ""

    @abstractmethod
    def parameters(self, run: Mapping[str, float]) -> np.ndarray:
        """Return what the kernel reads.

        `run` has, by name, what may be taken from the run: the concurrency τ_C, n_workers, and the
        problem's smoothness L. What is asked for is bound: stored in a live run's trace.
        """

    @property
    def label(self) -> str:
        """The rule as the command line takes it."""
        return label(self)


def known_smoothness(owner: str, given: float | None, run: Mapping[str, float]) -> float:
    """Return L as given, else the problem's, which must be known."""
    remedy = f"smoothness=..., on the command line as in {owner.lower()}:smoothness=10"
    return usable_smoothness(owner, run["smoothness"], remedy) if given is None else given


def usable_smoothness(owner: str, smoothness: float, remedy: str) -> float:
    """Return a problem's L if stepsizes follow from it, else raise and ask for `remedy`."""
    if not _LEAST <= smoothness <= _MOST:
        found = (
            "is not known" if np.isnan(smoothness) else f"gives no stepsize, it is {smoothness:g}"
        )
        raise AsgradError(f"{owner}: the problem's smoothness constant {found}; give {remedy}.")
    return smoothness


def check_smoothness(owner: str, value: float | None) -> None:
    """Refuse a smoothness constant that is no positive number."""
    if value is not None:
        check_positive(owner, "smoothness", value)


def check_concurrency(owner: str, value: int | None) -> None:
    """Refuse a concurrency that is no positive integer."""
    if value is not None:
        check_integer(owner, "concurrency", value, minimum=1)
