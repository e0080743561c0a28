"""Times that never vary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from asgrad.kernels import compiled
from asgrad.times.base import SECONDS, Scale, ScaledTimes

__all__ = ["Fixed", "Linear", "Sqrt"]


@compiled(SECONDS)
def _seconds(scales, shape, key, worker, draw, start):
    """s_i."""
    return scales[worker]


@dataclass(frozen=True, repr=False)
class Fixed(ScaledTimes):
    """Every job of worker i takes exactly s_i seconds; by default all take 1.

    Parameters
    ----------
    scale : float, sequence of float, "linear" or "sqrt"
        s_i in seconds, finite and >= 0.
    """

    scale: Scale = 1.0

    name: ClassVar[str] = "fixed"
    kernel: ClassVar = _seconds


@dataclass(frozen=True, repr=False)
class Linear(Fixed):
    """Worker i = 1, ..., n takes s_i = i seconds for every job."""

    scale: Scale = "linear"

    name: ClassVar[str] = "linear"


@dataclass(frozen=True, repr=False)
class Sqrt(Fixed):
    """Worker i = 1, ..., n takes s_i = √i seconds for every job."""

    scale: Scale = "sqrt"

    name: ClassVar[str] = "sqrt"
