"""Waiting for b arrivals: the part that many rules share."""

from __future__ import annotations

from asgrad.kernels import inlined
from asgrad.methods.decisions import apply, take_step

__all__ = ["gather"]


@inlined
def gather(state, size, count, out):
    """Apply the arrival with weight 1/b; at the b-th, take the step and return True.

    state[size] is b, state[count] the arrivals since the last step.
    """
    apply(out, 1.0 / state[size])
    state[count] += 1
    if state[count] < state[size]:
        return False
    take_step(out)
    state[count] = 0
    return True
