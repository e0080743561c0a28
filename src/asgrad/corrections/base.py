"""What happens to a gradient at the server, when a step uses it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numba import types

from asgrad.kernels import HasKernel, inlined

__all__ = ["Correction", "correct_nothing", "correction_type"]


def correction_type(f: Any) -> Any:
    """Return the signature of a correction's kernel for float type `f`.

    correct(parameters, g, x_read, x_now, delay, stepsizes, worker, memory) changes the gradient
    `g`, of shape (dim, n_lanes), in place, when a step first uses it. It sees the model that the
    job read, the model now, the steps between them, γ of every lane, and the server's own memory,
    of shape (n_blocks, dim, n_lanes). Gradients come in the order in which the step uses them.
    """
    block, lanes = types.Array(f, 2, "C"), types.Array(f, 1, "C")
    job, memory = (types.int64, lanes, types.int64), types.Array(f, 3, "C")
    return types.void(types.float64[::1], block, block, block, *job, memory)


class Correction(HasKernel, ABC):
    """A map of one job's gradient at the server: delay compensation, mixing of models."""

    name: ClassVar[str] = ""
    reference: ClassVar[str] = ""

    @abstractmethod
    def parameters(self) -> np.ndarray:
        """Return what the kernel reads."""

    def n_blocks(self, n_workers: int) -> int:
        """Return how many model-sized blocks the server remembers."""
        return 0


@inlined
def correct_nothing(parameters, g, x_read, x_now, delay, stepsizes, worker, memory):
    """Leave the gradient as it is: what stands for no correction."""
