"""Real numbers in a method's state, which is made of integers: their bits stand there."""

from __future__ import annotations

import numpy as np

from asgrad.kernels import inlined

__all__ = ["real", "set_real"]


@inlined
def real(state, place):
    """Return the float64 number that stands at a place."""
    return np.int64(state[place]).view(np.float64)


@inlined
def set_real(state, place, number):
    """Put a float64 number at a place."""
    state[place] = np.float64(number).view(np.int64)
