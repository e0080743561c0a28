"""What the server does with a direction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
from numba import types

from asgrad.kernels import HasKernel

__all__ = ["Optimizer", "optimizer_type"]


def optimizer_type(f: Any) -> Any:
    """Return the signature of an optimizer's kernel for float type `f`.

    optimizer(parameters, stepsizes, step, delay, direction, memory, x, x_new) writes x_{s+1} into
    `x_new`, which may be `x` itself; `direction` is only read. `delay` is the largest of the
    gradients that the step is the first to use, 0 where there are none. Blocks have shape
    (dim, n_lanes), the optimizer's own memory (n_blocks, dim, n_lanes). The stepsizes are those of
    the lanes, repeated: they fit a flat block, run after run, which lets LLVM vectorise over few
    lanes too.
    """
    block = types.Array(f, 2, "C")
    lanes = types.Array(f, 1, "C")
    memory = types.Array(f, 3, "C")
    return types.void(
        types.float64[::1], lanes, types.int64, types.int64, block, memory, block, block
    )


class Optimizer(HasKernel, ABC):
    """A rule x_{s+1} = x_s + something(γ, d_s, memory)."""

    name: ClassVar[str] = ""
    reference: ClassVar[str] = ""

    @abstractmethod
    def parameters(self) -> np.ndarray:
        """Return what the kernel reads."""

    def n_blocks(self) -> int:
        """Return how many model-sized blocks the optimizer remembers."""
        return 0
