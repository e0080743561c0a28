"""When moments are one: comparing times, and adding them up without letting rounding grow."""

from __future__ import annotations

import numpy as np

from asgrad.kernels import inlined

__all__ = ["SAME", "is_later", "latest_of", "place", "put_back", "rounded_off", "time_at"]

# Moments at most this far apart are one; counted in steps between neighbouring numbers, of which
# 2^52 make a moment twice as late. Sums of the same times in another order, or in other units, come
# out less than half as far apart (`put_back`); random times hardly ever come as near.
SAME = 512
_KEPT = 2.0**-46  # the share of a moment that its remainder may be: at most 128 such steps


@inlined
def place(time):
    """Return the place of `time` >= 0 among all float64 numbers, an int64, in the same order."""
    return np.float64(time).view(np.int64)


@inlined
def time_at(place):
    """Return the float64 number at a place."""
    return np.int64(place).view(np.float64)


@inlined
def is_later(time, moment):
    """Say whether `time` comes after `moment`, by more than what rounding can do."""
    return place(time) > place(moment) + SAME


def latest_of(times: np.ndarray) -> np.ndarray:
    """Return for each time >= 0 the latest number that is not later, in the sense of `is_later`."""
    places: np.ndarray = np.ascontiguousarray(times, np.float64).view(np.int64) + SAME
    return places.view(np.float64)


@inlined
def put_back(moment, remainder):
    """Return what of a remainder counts by now, and is to be added to the times that follow."""
    return remainder if abs(remainder) > _KEPT * moment else 0.0


@inlined
def rounded_off(moment, duration):
    """Return what rounding takes from moment + duration, exactly (Knuth's sum without error)."""
    total = moment + duration
    added = total - moment
    return (moment - (total - added)) + (duration - added)
